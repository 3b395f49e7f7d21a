"""A session with vendued: requests, answers, reports, queries and subscriptions."""

import secrets
import select
import socket
import ssl
import time
from collections import deque
from dataclasses import dataclass, fields

from .message import FRAME_BYTES_MAX, HEADER, Message, encode
from .message import VERSION as PROTOCOL
from .messages import (
    ANY,
    Accepted,
    Cancel,
    Cancelled,
    CaughtUp,
    Done,
    Farewell,
    Goodbye,
    Heartbeat,
    Logon,
    LogonAck,
    Logout,
    NewOrder,
    QueryEnd,
    Refused,
    Reject,
    Rejected,
    Replace,
    Replaced,
    Replay,
    ReplayEnd,
    Role,
    Subscribe,
    Subscribed,
    Take,
    TiersSwapped,
    Unsubscribe,
    Unsubscribed,
)

#: Longest wait for an answer, seconds, unless the caller says otherwise.
ANSWER_S = 10.0
#: Most frames that are kept while a call waits for its answer.
KEPT_MAX = 1 << 16
#: Which answer a request has; all others have `Done`.
ANSWERS = {NewOrder: Accepted, Cancel: Cancelled, Replace: Replaced, Subscribe: Subscribed,
           Unsubscribe: Unsubscribed, Replay: ReplayEnd}
#: The next page of a query that has none.
LAST_PAGE = (1 << 64) - 1
#: Kinds of reports, which are numbered.
REPORTS = {*range(0x90, 0xA0), 0xA6}


class VendueError(Exception):
    """Everything that goes wrong between a client and the daemon."""


class ConnectionEnded(VendueError):
    """The connection is over; `reason` is a `Goodbye` if the daemon gave one."""

    def __init__(self, text, reason=None):
        super().__init__(text)
        self.reason = reason


class NotAnswered(VendueError):
    """No answer came in time. The request may or may not be carried out: see Replay."""


class BadFrame(VendueError):
    """The daemon sent what is no frame of this protocol."""


class Gap(VendueError):
    """A report is missing or doubled: connect again and replay from `expected`."""

    def __init__(self, expected, got):
        super().__init__(f"report {got} came where {expected} was due; replay from {expected}")
        self.expected, self.got = expected, got


class NotDone(VendueError):
    """A request changed nothing: `code` is a `Reject`, `detail` a number that helps, or 0."""

    def __init__(self, request, code, detail=0):
        name = code.name.lower().replace("_", " ") if isinstance(code, Reject) else f"code {code}"
        text = f"{type(request).__name__}: {name}" + (f" ({detail})" if detail else "")
        super().__init__(text)
        self.request, self.code, self.detail = request, code, detail


def is_notice(message):
    """True of what a subscriber is told."""
    return message.GROUP.startswith("Notices") or isinstance(message, TiersSwapped)


@dataclass(slots=True)
class Frame:
    """What came: a message, and its number if it is a report (0 otherwise)."""

    message: Message
    sequence: int = 0


def _open(endpoint, timeout):
    """A connected socket for `unix:PATH`, `tcp:ADDRESS:PORT` or `tls:DIR@HOST:PORT`."""
    scheme, _, place = endpoint.partition(":")
    if scheme == "shm":
        raise ValueError("this client has no shared memory; use the same path with unix:")
    if scheme == "tls":
        keys, at, place = place.rpartition("@")
        if not at:
            raise ValueError(f"{endpoint!r} names no keys; use tls:DIR@HOST:PORT")
    if scheme in ("tcp", "tls"):
        host, _, port = place.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        stream = socket.create_connection((host, int(port)), timeout)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if scheme == "tcp":
            return stream
        context = ssl.create_default_context(cafile=f"{keys}/ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(f"{keys}/cert.pem", f"{keys}/key.pem")
        return context.wrap_socket(stream, server_hostname=host)
    path = place if scheme == "unix" else endpoint
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.settimeout(timeout)
    stream.connect(path)
    return stream


class Client:
    """One connection, logged on. Not for several threads at once.

    A client that says nothing for two heartbeat intervals is cut off; they are sent from within its
    methods. Without one of its own it gets the daemon's longest interval, a minute by default.

    `endpoint`: `unix:PATH`, `tcp:ADDRESS:PORT` (with a `token`) or `tls:DIR@HOST:PORT` (with the
    keys that `hvctl pki` made in DIR). `session`: a number of your own to resume later, with
    `replay_from` the first report not seen; one that nobody has without. `role`: a `Role`; an
    `OBSERVER` with `session=0` only asks. `account` and `instance`: whom to act for.
    """

    def __init__(self, endpoint, *, role=Role.OPERATOR, session=None, account=ANY, instance=ANY,
                 token=bytes(32), replay_from=0, cancel_on_disconnect=False, heartbeat_ms=0,
                 timeout=ANSWER_S):
        self._socket = _open(endpoint, timeout)
        # Bytes that are no whole frame yet; reports and notices that came while a call waited.
        self._inbox, self._kept, self._told = bytearray(), deque(), deque()
        self._sent_at = self._heard_at = time.monotonic()
        self._beat_s, self._expected, self._replay_due = None, None, None
        self._sequence = 0
        if session is None:
            session = secrets.randbits(63) | 1
        logon = Logon(session=session, token=token, replay_from=replay_from, account=account,
                      instance=instance, heartbeat_ms=heartbeat_ms, role=role,
                      cancel_on_disconnect=int(cancel_on_disconnect))
        try:
            self._write(encode(0, logon))
            frame = self._take(time.monotonic() + timeout)
            if frame is None:
                raise NotAnswered(f"no answer to the logon within {timeout:g} s")
            if isinstance(frame.message, Refused):
                raise NotDone(logon, frame.message.code, frame.message.detail)
            if not isinstance(frame.message, LogonAck):
                raise BadFrame(f"{type(frame.message).__name__} came where LogonAck was due")
        except BaseException:
            self._socket.close()
            raise
        #: The daemon's answer: what is in force, and how far this session got before.
        self.ack = frame.message
        self._sequence = self.ack.last_request
        self._client_id = self.ack.last_client_id
        self._beat_s = self.ack.heartbeat_ms / 1000
        self._expected = replay_from or self.ack.next_sequence
        self._replay_due = replay_from or None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        # Who leaves by an error has no use for another one.
        self.close() if kind is None else self._socket.close()

    @property
    def session(self):
        """The session's number, to resume it."""
        return self.ack.session

    @property
    def next_report(self):
        """Number of the next report: what to `replay_from` after a lost connection."""
        return self._expected

    def fileno(self):
        """The socket's descriptor, for `select`. Over TLS, `recv` until it has nothing as well."""
        return self._socket.fileno()

    def close(self):
        """Says goodbye; the session can be resumed. Harmless if the connection is gone."""
        try:
            self.send(Logout())
            while self._take(time.monotonic() + 1.0):
                pass
        except (OSError, VendueError):
            pass
        self._socket.close()

    def send(self, message):
        """Sends a request, without waiting; its number. A `client_id` of 0 is given a new one."""
        if getattr(message, "client_id", None) == 0:
            self._client_id += 1
            message.client_id = self._client_id
        elif hasattr(message, "client_id"):
            self._client_id = max(self._client_id, message.client_id)
        if isinstance(message, Replay):
            self._replay_due = message.from_
        frame = encode(self._sequence + 1, message)
        self._sequence += 1
        self._write(frame)
        return self._sequence

    def call(self, message, *, timeout=ANSWER_S):
        """Sends a request and waits for its answer: `Accepted` for `NewOrder`, `Replaced`,
        `Cancelled`, `Done` for all others. What else comes is kept for `recv`.

        Raises `NotDone` if it was refused or rejected."""
        request = self.send(message)
        answer = ANSWERS.get(type(message), Done)
        deadline = time.monotonic() + timeout
        while True:
            frame = self._await(message, deadline)
            if self._answers(frame.message, request, message, answer):
                return frame.message
            self._keep(frame)

    def ask(self, query, *, timeout=ANSWER_S):
        """The rows that answer a query, all pages of it, one after the other, each page asked for
        when it is wanted."""
        while True:
            page, request = [], self.send(query)
            deadline = time.monotonic() + timeout
            while True:
                frame = self._await(query, deadline)
                row = frame.message
                if isinstance(row, QueryEnd) and row.request == request:
                    break
                if isinstance(row, Refused) and row.request == request:
                    raise NotDone(query, row.code, row.detail)
                if type(row).__name__.endswith("Row"):
                    page.append(row)
                else:
                    self._keep(frame)
            # Whole, so that a caller who stops amid it leaves nothing on the connection.
            end = row.next
            yield from page
            place = next((name for name in ("from_", "from_ns") if hasattr(query, name)), None)
            if end == LAST_PAGE or place is None:
                return
            if end <= getattr(query, place):
                raise BadFrame(f"{type(query).__name__}: page {end} does not go on")
            query = type(query)(**{spec.name: getattr(query, spec.name) for spec in fields(query)})
            setattr(query, place, end)

    def recv(self, timeout=None):
        """The next `Frame` that no call took, waiting for it `timeout` seconds at most (`None`: for
        ever); `None` if none came."""
        for kept in (self._kept, self._told):
            if kept:
                return kept.popleft()
        return self._take(None if timeout is None else time.monotonic() + timeout)

    def subscribe(self, *, what=15, from_=0, part=0, timeout=None):
        """Every trade and every balance that changes, each once and in order: a sum of 1 trades, 2
        funds, 4 credits, 8 swaps between tiers. `from_` and `part` say where to begin: after the
        last notice done, its `sequence` and its `part` plus one; 0 for what comes next.

        Subscribes at once; the iterator that it returns yields notices, `CaughtUp` among them. It
        ends after `timeout` seconds without any, `None` never, and raises `ConnectionEnded` if the
        daemon ends the subscription."""
        subscribed = self.call(Subscribe(from_=from_, part=part, what=what))
        # What came before is of an earlier subscription.
        self._told.clear()
        return self._notices(subscribed.take_max, timeout)

    def _notices(self, take_max, timeout):
        came, allowed = 0, take_max
        while True:
            deadline = None if timeout is None else time.monotonic() + timeout
            while not self._told:
                frame = self._take(deadline)
                if frame is None:
                    return
                refused = frame.message
                if isinstance(refused, Refused) and refused.kind == Take.KIND:
                    # Said again after the next notice.
                    allowed = came
                else:
                    self._keep(frame)
            notice = self._told.popleft().message
            if isinstance(notice, Unsubscribed):
                raise ConnectionEnded(f"subscription ended ({notice}); subscribe again from there")
            came += 1
            if came + take_max // 2 >= allowed:
                allowed = came + take_max
                self.send(Take(through=allowed))
            yield notice

    # ---- frames ----------------------------------------------------------------------------

    def _answers(self, message, request, asked, answer):
        if getattr(message, "request", None) != request:
            return isinstance(message, ReplayEnd) and answer is ReplayEnd
        if isinstance(message, (Refused, Rejected)):
            raise NotDone(asked, message.code, getattr(message, "detail", 0))
        return isinstance(message, answer)

    def _await(self, message, deadline):
        frame = self._take(deadline)
        if frame is None:
            raise NotAnswered(f"{type(message).__name__} was not answered; look at `hvctl status`")
        return frame

    def _keep(self, frame):
        kept = self._told if is_notice(frame.message) else self._kept
        if len(kept) >= KEPT_MAX:
            raise VendueError("too much came while waiting for answers: recv more often")
        kept.append(frame)

    def _take(self, deadline):
        """The next frame off the connection that concerns the caller; `None` at the deadline."""
        while True:
            frame = self._parse()
            if frame is not None:
                if isinstance(frame.message, Heartbeat):
                    continue
                if isinstance(frame.message, Farewell):
                    reason = frame.message.reason
                    name = reason.name if isinstance(reason, Goodbye) else reason
                    raise ConnectionEnded(f"the daemon ended the connection: {name}", reason)
                return frame
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                return None
            self._read(None if deadline is None else deadline - now)

    def _parse(self):
        while len(self._inbox) >= HEADER.size:
            length, version, kind, reserved, sequence = HEADER.unpack_from(self._inbox)
            if not HEADER.size <= length <= FRAME_BYTES_MAX or version != PROTOCOL or reserved:
                raise BadFrame(f"no frame: length {length}, version {version}")
            if len(self._inbox) < length:
                return None
            body = bytes(self._inbox[HEADER.size:length])
            del self._inbox[:length]
            if kind in REPORTS:
                self._count(sequence)
            message = Message.BY_KIND.get(kind)
            # Later daemons may send more kinds.
            if message is None or message.SIZE != len(body):
                continue
            return Frame(message.unpack(body), sequence)
        return None

    def _count(self, sequence):
        if self._replay_due == sequence:
            self._replay_due, self._expected = None, sequence
        if sequence != self._expected:
            raise Gap(self._expected, sequence)
        self._expected += 1

    def _read(self, seconds):
        """Waits for bytes, at most so long or until a heartbeat is due."""
        if not self._is_readable(0):
            now = time.monotonic()
            if self._beat_s is not None:
                if now - self._heard_at > 2 * self._beat_s:
                    raise ConnectionEnded(f"nothing was heard for {2 * self._beat_s:g} s")
                if now - self._sent_at >= self._beat_s:
                    self.send(Heartbeat())
                    now = time.monotonic()
                due = max(0.0, self._sent_at + self._beat_s - now)
                seconds = due if seconds is None else min(seconds, due)
            if not self._is_readable(seconds):
                return
        try:
            bytes_read = self._socket.recv(1 << 16)
        except ssl.SSLWantReadError:
            return
        except OSError as error:
            raise ConnectionEnded(f"reading failed: {error}") from error
        if not bytes_read:
            raise ConnectionEnded("the daemon closed the connection without a reason")
        self._heard_at = time.monotonic()
        self._inbox += bytes_read

    def _is_readable(self, seconds):
        if self._socket.fileno() < 0:
            raise ConnectionEnded("this client was closed")
        # What TLS has read and not handed over, `select` does not see.
        pending = getattr(self._socket, "pending", int)()
        return pending or bool(select.select([self._socket], [], [], seconds)[0])

    def _write(self, frame):
        try:
            self._socket.sendall(frame)
        except OSError as error:
            self._explain(error)
        self._sent_at = time.monotonic()

    def _explain(self, error):
        """Why nothing can be sent: the daemon's last words, if they are there."""
        try:
            while frame := self._take(time.monotonic() + 0.1):
                self._keep(frame)
        except OSError:
            pass
        raise ConnectionEnded(f"writing failed: {error}") from error
