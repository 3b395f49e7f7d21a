//! The client against a daemon's side that each test scripts itself, frame by frame, over real
//! sockets, rings and descriptors.

use super::*;
use crate::board::{BoardWriter, BookView};
use crate::code::Side;
use crate::doorbell;
use crate::frame::HEADER_BYTES;
use crate::message::*;
use crate::ring::{Consumer, Memory, Producer};
use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
use std::io::{IoSlice, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread::JoinHandle;
use tempfile::TempDir;
use zerocopy::IntoBytes;

/// Long enough never to matter; a test that waits so long has failed.
const LONG: Duration = Duration::from_secs(60);

/// The daemon's side of one connection.
struct Peer(UnixStream);

impl Peer {
    fn read(&mut self) -> Received {
        let mut bytes = [0; FRAME_BYTES_MAX];
        self.0.read_exact(&mut bytes[..HEADER_BYTES]).unwrap();
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        self.0.read_exact(&mut bytes[HEADER_BYTES..length]).unwrap();
        Received::of(&Frame::parse(&bytes[..length]).unwrap().unwrap())
    }

    /// The next message, which must be an `M` with this sequence; heartbeats are not expected.
    fn expect<M: Body>(&mut self, sequence: u64) -> M {
        let frame = self.read();
        assert_eq!((frame.kind(), frame.sequence()), (M::KIND, sequence), "{}", M::NAME);
        *frame.message().unwrap()
    }

    fn say<M: Body>(&mut self, sequence: u64, message: &M) {
        self.0.write_all(&bytes_of(sequence, message)).unwrap();
    }

    fn say_with<M: Body>(&mut self, message: &M, descriptors: &[i32]) {
        let bytes = bytes_of(0, message);
        let rights = [ControlMessage::ScmRights(descriptors)];
        let parts = [IoSlice::new(&bytes)];
        let flags = MsgFlags::empty();
        let sent = sendmsg::<UnixAddr>(self.0.as_raw_fd(), &parts, &rights, flags, None).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// Answers the logon: no report and no request yet, heartbeats every minute.
    fn welcome(&mut self) -> Logon {
        let logon = self.expect(0);
        self.say(0, &ack(0, 1));
        logon
    }
}

fn bytes_of<M: Body>(sequence: u64, message: &M) -> Vec<u8> {
    let mut bytes = vec![0; FRAME_BYTES_MAX];
    let length = encode(sequence, message, &mut bytes);
    bytes.truncate(length);
    bytes
}

fn ack(last_request: u64, next_sequence: u64) -> LogonAck {
    LogonAck {
        last_request: last_request.into(),
        next_sequence: next_sequence.into(),
        oldest_sequence: 1.into(),
        heartbeat_ms: 60_000.into(),
        ..LogonAck::zeroed()
    }
}

fn accepted(request: u64) -> Accepted {
    Accepted { request: request.into(), ..Accepted::zeroed() }
}

/// A daemon that takes one connection and follows `script`.
struct Daemon {
    directory: TempDir,
    thread: JoinHandle<()>,
}

impl Daemon {
    fn start(script: impl FnOnce(&UnixListener, Peer) + Send + 'static) -> Daemon {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        let thread = std::thread::spawn(move || {
            let peer = Peer(listener.accept().unwrap().0);
            script(&listener, peer);
        });
        Daemon { directory, thread }
    }

    fn endpoint(&self) -> Endpoint {
        Endpoint::Unix(self.directory.path().join("socket"))
    }

    fn shm(&self) -> Endpoint {
        Endpoint::Shm { path: self.directory.path().join("socket"), ring_bytes: 4096 }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.endpoint(), &Identity::tenant(7)).unwrap()
    }

    fn end(self) {
        self.thread.join().unwrap();
    }
}

fn next(client: &mut Client) -> Result<Received, ClientError> {
    client.recv(LONG).map(|frame| *frame.expect("nothing came"))
}

#[test]
fn endpoints_are_written_as_they_are_read() {
    for text in ["unix:/run/v.sock", "tcp:127.0.0.1:7070", "tcp:[::1]:7", "shm:/run/v.sock"] {
        assert_eq!(text.parse::<Endpoint>().unwrap().to_string(), text);
    }
    assert_eq!("/a/b".parse(), Ok(Endpoint::Unix("/a/b".into())));
    for text in ["", "unix:", "shm:", "tcp:", "tcp:here", "tcp:127.0.0.1"] {
        let error = text.parse::<Endpoint>().unwrap_err().to_string();
        assert!(error.contains("tcp:ADDRESS:PORT"), "{error}");
    }
}

#[test]
fn fresh_sessions_differ_and_are_never_anonymous() {
    let numbers: std::collections::BTreeSet<u64> = (0..10_000).map(|_| fresh_session()).collect();
    assert_eq!(numbers.len(), 10_000);
    assert!(!numbers.contains(&0));
}

#[test]
fn a_resumed_session_numbers_on() {
    let daemon = Daemon::start(|_, mut peer| {
        let logon: Logon = peer.expect(0);
        assert_eq!((logon.session.get(), logon.account.get(), logon.role), (9, 7, 2));
        assert_eq!((logon.replay_from.get(), logon.cancel_on_disconnect), (4, 1));
        peer.say(0, &LogonAck { last_client_id: 30.into(), ..ack(41, 6) });
        peer.say(4, &accepted(1));
        peer.say(5, &accepted(2));
        peer.say(0, &ReplayEnd { next: 6.into() });
        let order: NewOrder = peer.expect(42);
        assert_eq!(order.client_id.get(), 31);
        peer.expect::<Cancel>(43);
        peer.say(6, &accepted(42));
    });
    let identity =
        Identity { session: 9, cancel_on_disconnect: true, replay_from: 4, ..Identity::tenant(7) };
    let mut client = Client::connect(&daemon.endpoint(), &identity).unwrap();
    for sequence in [4, 5] {
        assert_eq!(next(&mut client).unwrap().sequence(), sequence);
    }
    assert_eq!(next(&mut client).unwrap().message::<ReplayEnd>().unwrap().next.get(), 6);
    let client_id = client.next_client_id().into();
    assert_eq!(client.send(&NewOrder { client_id, ..NewOrder::zeroed() }).unwrap(), 42);
    assert_eq!(client.send(&Cancel::zeroed()).unwrap(), 43);
    assert_eq!(next(&mut client).unwrap().request(), Some(42));
    daemon.end();
}

#[test]
fn frames_that_come_in_pieces_arrive_whole() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        let report = Accepted { price_ticks: 77.into(), ..accepted(3) };
        let row = FaultRow { text: [b'x'; 256], ..FaultRow::zeroed() };
        let bytes = [bytes_of(1, &report), bytes_of(0, &row), bytes_of(2, &accepted(4))].concat();
        for byte in bytes {
            peer.0.write_all(&[byte]).unwrap();
        }
    });
    let mut client = daemon.connect();
    let first = next(&mut client).unwrap();
    assert_eq!(first.message::<Accepted>().unwrap().price_ticks.get(), 77);
    assert_eq!((first.request(), first.sequence()), (Some(3), 1));
    assert_eq!(first.message::<Cancelled>(), None);
    assert_eq!(next(&mut client).unwrap().message::<FaultRow>().unwrap().text, [b'x'; 256]);
    assert_eq!(next(&mut client).unwrap().request(), Some(4));
    daemon.end();
}

#[test]
fn many_frames_cross_the_buffers_end_intact() {
    // More than the client's buffer holds, less than the socket's: all is there before it reads.
    const REPORTS: u64 = 1_500;
    let (written, write) = std::sync::mpsc::channel();
    let daemon = Daemon::start(move |_, mut peer| {
        peer.welcome();
        // Sizes that do not divide the buffer's come first, with the logon's answer before them
        // or without, so that a frame straddles its end.
        let mut bytes =
            [bytes_of(0, &FaultRow::zeroed()), bytes_of(0, &QueryEnd::zeroed())].concat();
        let with_ack = bytes.len() + bytes_of(0, &ack(0, 1)).len();
        assert!([bytes.len(), with_ack].iter().all(|length| !length.is_multiple_of(64)));
        (1..=REPORTS).for_each(|n| bytes.extend(bytes_of(n, &accepted(n))));
        assert!(bytes.len() > 80 << 10);
        peer.0.write_all(&bytes).unwrap();
        written.send(()).unwrap();
    });
    let mut client = daemon.connect();
    write.recv().unwrap();
    assert!(next(&mut client).unwrap().message::<FaultRow>().is_some());
    assert!(next(&mut client).unwrap().message::<QueryEnd>().is_some());
    for number in 1..=REPORTS {
        assert_eq!(next(&mut client).unwrap().request(), Some(number));
    }
    daemon.end();
}

#[test]
fn a_missing_and_a_doubled_report_are_told() {
    for (second, expected) in [(3, 2), (1, 2)] {
        let daemon = Daemon::start(move |_, mut peer| {
            peer.welcome();
            peer.say(1, &accepted(1));
            peer.say(second, &accepted(2));
        });
        let mut client = daemon.connect();
        next(&mut client).unwrap();
        let error = next(&mut client).unwrap_err();
        assert!(
            matches!(error, ClientError::Gap { expected: e, got } if (e, got) == (expected, second)),
            "{error}"
        );
        daemon.end();
    }
}

#[test]
fn a_replay_may_go_back_to_where_it_was_asked_from_and_nowhere_else() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.expect::<Logon>(0);
        peer.say(0, &ack(0, 8));
        assert_eq!(peer.expect::<Replay>(1).from.get(), 3);
        peer.say(8, &accepted(1));
        (3..=9).for_each(|sequence| peer.say(sequence, &accepted(1)));
        peer.say(3, &accepted(1));
    });
    let mut client = daemon.connect();
    client.replay(3).unwrap();
    for sequence in [8, 3, 4, 5, 6, 7, 8, 9] {
        assert_eq!(next(&mut client).unwrap().sequence(), sequence);
    }
    let error = next(&mut client).unwrap_err();
    assert!(matches!(error, ClientError::Gap { expected: 10, got: 3 }), "{error}");
    daemon.end();
}

#[test]
fn a_farewell_comes_after_the_reports_before_it() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        peer.say(1, &accepted(1));
        peer.say(0, &Farewell { reason: Goodbye::SlowReader as u8, reserved: [0; 7] });
    });
    let mut client = daemon.connect();
    assert_eq!(next(&mut client).unwrap().sequence(), 1);
    let error = next(&mut client).unwrap_err();
    assert!(matches!(error, ClientError::Farewell { reason: 5 }), "{error}");
    assert!(error.to_string().contains("reading too slowly"), "{error}");
    daemon.end();
}

#[test]
fn sending_to_a_daemon_that_left_tells_its_reason_and_loses_no_report() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        peer.say(1, &accepted(1));
        peer.say(0, &Farewell { reason: Goodbye::ShuttingDown as u8, reserved: [0; 7] });
    });
    let mut client = daemon.connect();
    daemon.end();
    client.send(&Cancel::zeroed()).unwrap();
    let error = client.flush().unwrap_err();
    assert!(matches!(error, ClientError::Farewell { reason: 7 }), "{error}");
    assert_eq!(next(&mut client).unwrap().sequence(), 1);
    assert!(matches!(next(&mut client).unwrap_err(), ClientError::Closed));
}

#[test]
fn an_end_without_a_word_is_an_error() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        // Half a header: lost with the connection.
        peer.0.write_all(&[16, 0, 1]).unwrap();
    });
    let mut client = daemon.connect();
    assert!(matches!(next(&mut client).unwrap_err(), ClientError::Closed));
    assert!(matches!(client.try_recv().unwrap_err(), ClientError::Closed));
    daemon.end();
}

#[test]
fn bytes_that_are_no_frame_are_told() {
    for (bytes, want) in [
        ([16, 0, 2, 0x94], FrameError::Version(2)),
        ([15, 0, 1, 0x94], FrameError::Length(15)),
        ([1, 2, 1, 0x94], FrameError::Length(513)),
    ] {
        let daemon = Daemon::start(move |_, mut peer| {
            peer.welcome();
            peer.0.write_all(&[&bytes[..], &[0; 12]].concat()).unwrap();
        });
        let mut client = daemon.connect();
        let error = next(&mut client).unwrap_err();
        assert!(matches!(error, ClientError::Frame(got) if got == want), "{error}");
        daemon.end();
    }
}

#[test]
fn a_refused_logon_says_why() {
    let refuse = |script: fn(&mut Peer)| {
        let daemon = Daemon::start(move |_, mut peer| {
            peer.expect::<Logon>(0);
            script(&mut peer);
        });
        let error = Client::connect(&daemon.endpoint(), &Identity::operator()).unwrap_err();
        daemon.end();
        error
    };
    let error = refuse(|peer| {
        let code = Reject::BadCredentials as u8;
        peer.say(0, &Refused { kind: Logon::KIND, code, ..Refused::zeroed() });
    });
    assert!(matches!(error, ClientError::Refused { kind: 1, code: 13, .. }), "{error}");
    let error = refuse(|peer| {
        let reason = Goodbye::TooManyConnections as u8;
        peer.say(0, &Farewell { reason, reserved: [0; 7] });
    });
    assert!(error.to_string().contains("too many connections"), "{error}");
    let error = refuse(|peer| peer.say(0, &QueryEnd::zeroed()));
    assert!(matches!(error, ClientError::Unexpected { kind: 0xb0, .. }), "{error}");
}

#[test]
fn nobody_listening_is_said_with_the_address() {
    let directory = tempfile::tempdir().unwrap();
    let endpoint = Endpoint::Unix(directory.path().join("absent"));
    let error = Client::connect(&endpoint, &Identity::observer()).unwrap_err().to_string();
    assert!(error.contains("absent") && error.contains("is vendued running"), "{error}");
}

#[test]
fn waiting_ends_with_the_timeout_and_heartbeats_go_out_meanwhile() {
    let (heard, hear) = std::sync::mpsc::channel();
    let daemon = Daemon::start(move |_, mut peer| {
        peer.expect::<Logon>(0);
        peer.say(0, &LogonAck { heartbeat_ms: 10.into(), ..ack(5, 1) });
        peer.expect::<Heartbeat>(6);
        peer.expect::<Heartbeat>(7);
        peer.say(0, &Heartbeat {});
        heard.send(()).unwrap();
        // Until the client hangs up.
        std::io::copy(&mut peer.0, &mut std::io::sink()).unwrap();
    });
    let mut client = daemon.connect();
    while hear.try_recv().is_err() {
        assert!(client.recv(Duration::from_millis(20)).unwrap().is_none());
    }
    assert!(client.try_recv().unwrap().is_none());
    drop(client);
    daemon.end();
}

#[test]
fn pages_are_joined_and_reports_that_come_between_are_kept_in_order() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        let row = |account: u32| AccountRow { account: account.into(), ..AccountRow::zeroed() };
        let end = |request: u64, next: u64| QueryEnd { request: request.into(), next: next.into() };
        peer.say(1, &accepted(90));
        assert_eq!(peer.expect::<QueryAccounts>(1).from.get(), 0);
        peer.say(0, &row(0));
        peer.say(2, &accepted(91));
        peer.say(0, &row(1));
        peer.say(0, &end(1, 5));
        assert_eq!(peer.expect::<QueryAccounts>(2).from.get(), 5);
        peer.say(0, &row(5));
        peer.say(3, &accepted(92));
        peer.say(0, &end(2, u64::MAX));
        peer.say(4, &accepted(93));
    });
    let mut client = daemon.connect();
    let rows: Vec<AccountRow> =
        client.ask_all(|from| QueryAccounts { from: (from as u32).into() }).unwrap();
    assert_eq!(rows.iter().map(|row| row.account.get()).collect::<Vec<_>>(), [0, 1, 5]);
    for request in [90, 91, 92, 93] {
        assert_eq!(next(&mut client).unwrap().request(), Some(request));
    }
    daemon.end();
}

#[test]
fn one_answer_may_hold_rows_of_two_kinds() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        for request in 1..=2_u64 {
            peer.expect::<QueryStatus>(request);
            peer.say(0, &StatusRow { trades: 3.into(), ..StatusRow::zeroed() });
            peer.say(0, &FaultRow::zeroed());
            peer.say(0, &QueryEnd { request: request.into(), next: u64::MAX.into() });
        }
    });
    let mut client = daemon.connect();
    let mut kinds = Vec::new();
    assert_eq!(client.ask_each(&QueryStatus {}, |row| kinds.push(row.kind())).unwrap(), None);
    assert_eq!(kinds, [0xb1, 0xb2]);
    let status: Vec<StatusRow> = client.ask(&QueryStatus {}).unwrap();
    assert_eq!((status.len(), status[0].trades.get()), (1, 3));
    daemon.end();
}

#[test]
fn pages_that_do_not_go_forward_end_in_an_error() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        peer.expect::<QueryBooks>(1);
        peer.say(0, &QueryEnd { request: 1.into(), next: 0.into() });
    });
    let asked = daemon.connect().ask_all::<BookRow, _>(|_| QueryBooks { from: 0.into() });
    assert!(matches!(asked, Err(ClientError::Unexpected { .. })), "{asked:?}");
    daemon.end();
}

#[test]
fn a_call_gets_its_own_answer_and_leaves_the_others() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        peer.expect::<NewOrder>(1);
        peer.expect::<Deposit>(2);
        peer.say(1, &accepted(1));
        peer.say(2, &Done { request: 2.into(), value: 500.into(), ..Done::zeroed() });
        peer.expect::<Deposit>(3);
        peer.say(3, &Rejected { request: 3.into(), kind: 0x21, code: 20, ..Rejected::zeroed() });
        peer.expect::<Deposit>(4);
        // The refusal of another request is not this one's answer.
        peer.say(0, &Refused { request: 9.into(), kind: 0x21, code: 5, ..Refused::zeroed() });
        let detail = 77.into();
        peer.say(0, &Refused { request: 4.into(), detail, kind: 0x21, code: 6, reserved: [0; 6] });
        peer.expect::<NewOrder>(5);
        peer.say(4, &accepted(5));
    });
    let mut client = daemon.connect();
    client.send(&NewOrder::zeroed()).unwrap();
    assert_eq!(client.call(&Deposit::zeroed()).unwrap().value.get(), 500);
    let error = client.call(&Deposit::zeroed()).unwrap_err();
    assert!(matches!(error, ClientError::Rejected { kind: 0x21, code: 20 }), "{error}");
    let error = client.call(&Deposit::zeroed()).unwrap_err();
    assert!(matches!(error, ClientError::Refused { code: 6, detail: 77, .. }), "{error}");
    let answer: Accepted = client.call_for(&NewOrder::zeroed()).unwrap();
    assert_eq!(answer.request.get(), 5);
    assert_eq!(next(&mut client).unwrap().request(), Some(1));
    assert_eq!(next(&mut client).unwrap().request(), Some(9));
    daemon.end();
}

#[test]
fn what_arrives_while_waiting_for_an_answer_is_bounded() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        peer.expect::<QueryStatus>(1);
        // Until the client hangs up.
        for number in 1.. {
            if peer.0.write_all(&bytes_of(number, &accepted(number))).is_err() {
                break;
            }
        }
    });
    let mut client = daemon.connect();
    let error = client.ask::<StatusRow, _>(&QueryStatus {}).unwrap_err();
    assert!(matches!(error, ClientError::StashFull), "{error}");
    drop(client);
    daemon.end();
}

#[test]
fn a_flood_both_ways_does_not_stick() {
    const MESSAGES: u64 = 20_000;
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        // Writes everything before it reads anything.
        for number in 1..=MESSAGES {
            peer.say(number, &accepted(number));
        }
        for number in 1..=MESSAGES {
            assert_eq!(peer.expect::<Cancel>(number).handle.get(), number);
        }
    });
    let mut client = daemon.connect();
    for number in 1..=MESSAGES {
        client.send(&Cancel { handle: number.into() }).unwrap();
    }
    client.flush().unwrap();
    for number in 1..=MESSAGES {
        assert_eq!(next(&mut client).unwrap().request(), Some(number));
    }
    daemon.end();
}

/// The daemon's ends of an attached pair of rings.
struct RingPeer {
    requests: Consumer,
    reports: Producer,
    doorbell: doorbell::Doorbell,
}

impl RingPeer {
    /// Answers the logon and the attach that must follow it.
    fn hand_over(peer: &mut Peer) -> RingPeer {
        peer.welcome();
        let attach: Attach = peer.expect(1);
        assert_eq!((attach.what, attach.ring_bytes.get()), (0, 4096));
        let [requests, reports] = [4096; 2].map(|bytes| Memory::create(bytes).unwrap());
        let (our_bell, our_doorbell) = doorbell::pair().unwrap();
        let (their_bell, their_doorbell) = doorbell::pair().unwrap();
        let fds = [requests.as_fd(), reports.as_fd(), our_bell.as_fd(), their_doorbell.as_fd()];
        let attached = Attached { what: 0, reserved: [0; 3], bytes: 4096.into() };
        // A report that was on its way stays in front.
        peer.say(1, &accepted(99));
        peer.say_with(&attached, &fds.map(|fd| fd.as_raw_fd()));
        RingPeer {
            requests: Consumer::attach(requests).unwrap(),
            reports: Producer::attach(reports, their_bell).unwrap(),
            doorbell: our_doorbell,
        }
    }

    fn read(&mut self) -> Received {
        loop {
            if let Some(record) = self.requests.pop().unwrap() {
                return Received::of(&Frame::parse(record.bytes).unwrap().unwrap());
            }
            if self.requests.prepare_park() {
                assert!(self.doorbell.wait(Some(LONG)).unwrap());
                self.requests.cancel_park();
            }
        }
    }

    fn say<M: Body>(&mut self, sequence: u64, message: &M) {
        while self.reports.try_push(0, &[&bytes_of(sequence, message)]).is_err() {
            self.reports.flush();
            std::thread::yield_now();
        }
        self.reports.flush();
    }
}

#[test]
fn a_session_goes_on_over_the_rings() {
    const ORDERS: u64 = 5_000;
    let daemon = Daemon::start(|_, mut peer| {
        let mut rings = RingPeer::hand_over(&mut peer);
        for number in 1..=ORDERS {
            let order = rings.read();
            assert_eq!((order.kind(), order.sequence()), (NewOrder::KIND, number + 1));
            rings.say(number + 1, &accepted(number + 1));
        }
        rings.say(0, &Farewell { reason: Goodbye::ShuttingDown as u8, reserved: [0; 7] });
    });
    let mut client = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap();
    assert_eq!(next(&mut client).unwrap().request(), Some(99));
    // More than a ring holds, then one at a time.
    let batch = ORDERS / 2;
    for number in 1..=batch {
        let order = NewOrder { side: Side::Sell as u8, ..NewOrder::zeroed() };
        assert_eq!(client.send(&order).unwrap(), number + 1);
    }
    for number in 1..=batch {
        assert_eq!(next(&mut client).unwrap().request(), Some(number + 1));
    }
    for number in batch + 1..=ORDERS {
        let answer: Accepted = client.call_for(&NewOrder::zeroed()).unwrap();
        assert_eq!(answer.request.get(), number + 1);
    }
    assert!(matches!(next(&mut client).unwrap_err(), ClientError::Farewell { reason: 7 }));
    daemon.end();
}

#[test]
fn a_daemon_that_dies_with_the_rings_attached_is_noticed() {
    let daemon = Daemon::start(|_, mut peer| {
        let mut rings = RingPeer::hand_over(&mut peer);
        rings.say(2, &accepted(1));
    });
    let mut client = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap();
    daemon.end();
    assert_eq!(next(&mut client).unwrap().request(), Some(99));
    assert_eq!(next(&mut client).unwrap().sequence(), 2);
    assert!(matches!(next(&mut client).unwrap_err(), ClientError::Closed));
}

#[test]
fn a_socket_that_ends_is_noticed_though_the_bells_live() {
    let daemon = Daemon::start(|_, mut peer| {
        let _rings = RingPeer::hand_over(&mut peer);
        peer.0.shutdown(std::net::Shutdown::Both).unwrap();
        // Until the client has seen it.
        std::thread::park();
    });
    let mut client = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap();
    assert_eq!(next(&mut client).unwrap().request(), Some(99));
    let error = loop {
        match client.try_recv() {
            Ok(None) => std::thread::yield_now(),
            Ok(Some(frame)) => panic!("{frame:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Closed), "{error}");
    daemon.thread.thread().unpark();
    daemon.end();
}

#[test]
fn a_ring_record_that_is_no_whole_frame_is_told() {
    let daemon = Daemon::start(|_, mut peer| {
        let mut rings = RingPeer::hand_over(&mut peer);
        let two = [bytes_of(2, &accepted(1)), bytes_of(3, &accepted(2))].concat();
        rings.reports.try_push(0, &[&two]).unwrap();
        rings.reports.flush();
    });
    let mut client = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap();
    assert_eq!(next(&mut client).unwrap().request(), Some(99));
    let error = next(&mut client).unwrap_err();
    assert!(matches!(error, ClientError::BadRecord { bytes: 128 }), "{error}");
    daemon.end();
}

#[test]
fn an_attach_reply_without_its_descriptors_is_refused() {
    let daemon = Daemon::start(|_, mut peer| {
        peer.welcome();
        peer.expect::<Attach>(1);
        peer.say(0, &Attached::zeroed());
    });
    let error = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap_err();
    assert!(matches!(error, ClientError::Descriptors { got: 0, want: 4 }), "{error}");
    daemon.end();
}

#[test]
fn waiting_for_several_clients_loses_no_wake_up() {
    let (go, wait) = std::sync::mpsc::channel();
    let daemon = Daemon::start(move |_, mut peer| {
        let mut rings = RingPeer::hand_over(&mut peer);
        for sequence in 2..=200 {
            wait.recv().unwrap();
            rings.say(sequence, &accepted(sequence));
        }
    });
    let mut client = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap();
    assert!(!client.prepare_wait(), "a stashed report is here");
    assert_eq!(client.try_recv().unwrap().unwrap().request(), Some(99));
    for sequence in 2..=200 {
        if client.prepare_wait() {
            go.send(()).unwrap();
            let mut polled = [nix::poll::PollFd::new(client.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut polled, 60_000_u16).unwrap();
            assert_eq!(polled[0].any(), Some(true));
        } else {
            go.send(()).unwrap();
        }
        let frame = loop {
            if let Some(frame) = client.try_recv().unwrap() {
                break frame;
            }
        };
        assert_eq!(frame.sequence(), sequence);
    }
    daemon.end();
}

#[test]
fn the_board_comes_over_the_socket_and_beside_the_rings() {
    fn hand_out(peer: &mut Peer, sequence: u64, board: &BoardWriter) {
        assert_eq!(peer.expect::<Attach>(sequence).what, 1);
        let bytes = (board.bytes() as u32).into();
        let attached = Attached { what: 1, reserved: [0; 3], bytes };
        peer.say_with(&attached, &[board.as_fd().as_raw_fd()]);
    }
    let daemon = Daemon::start(|listener, mut peer| {
        let mut board = BoardWriter::create(2).unwrap();
        board.write(1, &BookView { trades: 5, ..BookView::default() });
        let _rings = RingPeer::hand_over(&mut peer);
        let mut second = Peer(listener.accept().unwrap().0);
        assert_eq!(second.welcome().session.get(), 0);
        hand_out(&mut second, 1, &board);
        let mut third = Peer(listener.accept().unwrap().0);
        third.welcome();
        hand_out(&mut third, 1, &board);
    });
    let mut client = Client::connect(&daemon.shm(), &Identity::tenant(7)).unwrap();
    let board = client.attach_board().unwrap();
    assert_eq!(board.read(1).unwrap().trades, 5);
    assert_eq!(daemon.connect().attach_board().unwrap().books(), 2);
    daemon.end();
}

#[test]
fn stashed_frames_come_back_byte_for_byte() {
    let mut stash = Stash::default();
    let row = FaultRow { text: [7; 256], ..FaultRow::zeroed() };
    let frames = [bytes_of(3, &accepted(1)), bytes_of(0, &row), bytes_of(4, &Heartbeat {})];
    let received = |bytes: &[u8]| Received::of(&Frame::parse(bytes).unwrap().unwrap());
    for bytes in &frames {
        stash.push(&received(bytes)).unwrap();
    }
    // What came before is longer than what is next.
    let mut frame = received(&frames[1]);
    for bytes in &frames {
        assert!(stash.pop(&mut frame));
        assert_eq!([frame.header.as_bytes(), frame.body()].concat(), *bytes);
    }
    assert!(!stash.pop(&mut frame));
}
