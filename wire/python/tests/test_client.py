"""The client beside PROTOCOL.md's worked examples, a running daemon and `hvctl`.

`cargo test -p vendue-tests --test clients` starts the daemon and runs this; by hand it needs
VENDUE_UNIX, VENDUE_TCP, VENDUE_TOKEN (a file), VENDUE_HVCTL (a program) and VENDUE_PROTOCOL (a file).
"""

import json
import os
import random
import re
import subprocess
import time
import unittest
from dataclasses import fields
from pathlib import Path

import vendue
from vendue import Reject, Resource, Role, Side
from vendue.message import Message, encode

UNIX, TCP = os.environ["VENDUE_UNIX"], os.environ["VENDUE_TCP"]
TOKEN = Path(os.environ["VENDUE_TOKEN"]).read_bytes()
EVERYONE = (1 << 64) - 1


def hvctl(*arguments):
    """What `hvctl` says, a dictionary a line."""
    command = [os.environ["VENDUE_HVCTL"], "--connect", UNIX, "--json", *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return [json.loads(line) for line in done.stdout.splitlines()]


class Bytes(unittest.TestCase):
    def test_worked_examples(self):
        text = Path(os.environ["VENDUE_PROTOCOL"]).read_text(encoding="utf-8")
        examples = dict(re.findall(r"```hex (\S+)\n(.*?)```", text, re.DOTALL))
        logon = vendue.Logon(session=7, account=vendue.ANY, instance=vendue.ANY, heartbeat_ms=1000,
                             role=Role.OPERATOR, cancel_on_disconnect=1)
        order = vendue.NewOrder(client_id=1, instance=3, book=2, side=Side.SELL, price_ticks=250,
                                quantity=100)
        self.assertEqual(encode(0, logon), bytes.fromhex(examples["logon"]))
        self.assertEqual(encode(1, order), bytes.fromhex(examples["new-order"]))

    def test_every_message_reads_what_it_writes(self):
        chance = random.Random(41)
        self.assertGreater(len(Message.BY_KIND), 80)
        for cls in Message.BY_KIND.values():
            values = {}
            for spec in fields(cls):
                size = spec.metadata["layout"].size
                if isinstance(spec.default, str):
                    value = "".join(chance.choices("aß", k=size // 2))
                elif isinstance(spec.default, bytes):
                    value = chance.randbytes(size)
                elif isinstance(spec.default, tuple):
                    unit = 8 * size // len(spec.default)
                    value = tuple(chance.getrandbits(unit) for _ in spec.default)
                else:
                    value = chance.getrandbits(8 * size)
                values[spec.name] = value
            message = cls(**values)
            self.assertEqual(cls.unpack(message.pack()), message)

    def test_values_that_do_not_fit_are_named(self):
        for wrong in (vendue.NewOrder(quantity=1 << 32), vendue.NewOrder(book=-1),
                      vendue.CreateAccount(name="x" * 33), vendue.Cancel(handle="x")):
            with self.assertRaisesRegex(ValueError, "quantity|book|name|handle"):
                wrong.pack()

    def test_unknown_codes_stay_numbers(self):
        rejected = vendue.Rejected(code=250)
        self.assertEqual(vendue.Rejected.unpack(rejected.pack()).code, 250)
        known = vendue.Rejected.unpack(vendue.Rejected(code=20).pack()).code
        self.assertIs(known, Reject.UNKNOWN_ACCOUNT)


class Daemon(unittest.TestCase):
    def setUp(self):
        self.client = vendue.Client(UNIX)
        self.addCleanup(self.client.close)
        self.name = f"{self.id().rsplit('.', 1)[1][:20]}-{time.monotonic_ns() % 10**8}"

    def party(self, which, funds_micro=0, credits=0):
        """Account and instance of the CPU tier, with funds and credits."""
        name = f"{which[:1]}-{self.name}"[:32]
        account = self.client.call(
            vendue.CreateAccount(name=name, sells_to=EVERYONE, buys_from=EVERYONE)).value
        instance = self.client.call(vendue.CreateInstance(name=name, account=account)).value
        self.addCleanup(self.client.call, vendue.RemoveInstance(instance=instance))
        if funds_micro:
            self.client.call(vendue.Deposit(account=account, amount_micro=funds_micro))
        if credits:
            self.client.call(vendue.GrantCredits(instance=instance, resource=Resource.CPU,
                                                 amount_millicredits=1000 * credits))
        return account, instance

    def order(self, side, instance, quantity, price=10):
        return vendue.NewOrder(instance=instance, side=side, quantity=quantity, price_ticks=price)

    def test_rows_are_what_hvctl_shows(self):
        for at in range(20):
            self.client.call(vendue.CreateAccount(name=f"{self.name[-24:]}-{at}"))
        ours = list(self.client.ask(vendue.QueryAccounts()))
        theirs = hvctl("account", "list")
        self.assertGreater(len(ours), 16, "more than a page")
        self.assertEqual([(row.account, row.name, row.free_micro) for row in ours],
                         [(row["account"], row["name"], row["free_micro"]) for row in theirs])

    def test_a_caller_may_stop_amid_rows(self):
        first = next(self.client.ask(vendue.QueryBooks()))
        again = list(self.client.ask(vendue.QueryBooks()))
        self.assertEqual(first.book, again[0].book)
        self.assertEqual([row.book for row in again], sorted(row.book for row in again))

    def test_a_trade_and_its_reports(self):
        (_, seller), (_, buyer) = self.party("seller", credits=50), self.party("buyer", 10**9)
        resting = self.client.call(self.order(Side.SELL, seller, 50))
        taking = self.client.call(self.order(Side.BUY, buyer, 30))
        fills = [self.client.recv(10).message for _ in range(2)]
        self.assertEqual({fill.handle: fill.remaining for fill in fills},
                         {resting.handle: 20, taking.handle: 0})
        self.assertEqual({fill.quantity for fill in fills}, {30})
        shown = [row for row in hvctl("trades") if row["buyer"] == buyer]
        self.assertEqual([(row["seller"], row["quantity_credits"]) for row in shown], [(seller, 30)])
        cancelled = self.client.call(vendue.Cancel(handle=resting.handle))
        self.assertEqual(cancelled.quantity, 20)

    def test_refusals_say_what(self):
        for request, code in ((vendue.Deposit(account=4_000_000, amount_micro=1),
                               Reject.UNKNOWN_ACCOUNT),
                              (vendue.Cancel(handle=1 << 60), Reject.UNKNOWN_ORDER),
                              (vendue.CreateAccount(name=""), Reject.BAD_NAME),
                              (vendue.CreateAccount(name="x", group=200), Reject.BAD_FIELD)):
            with self.assertRaises(vendue.NotDone) as refused:
                self.client.call(request)
            self.assertIs(refused.exception.code, code)
        self.assertTrue(list(self.client.ask(vendue.QueryStatus())), "the connection goes on")

    def test_mass_cancel_tells_each_and_is_done(self):
        _, seller = self.party("seller", credits=50)
        handles = {self.client.call(self.order(Side.SELL, seller, 1, 500 + at)).handle
                   for at in range(5)}
        done = self.client.call(vendue.MassCancel(instance=seller, book=vendue.ANY_BOOK, side=2))
        self.assertEqual(done.value, 5)
        self.assertEqual({self.client.recv(10).message.handle for _ in range(5)}, handles)

    def test_reports_are_replayed_after_a_lost_connection(self):
        _, seller = self.party("seller", credits=50)
        with vendue.Client(UNIX) as client:
            first = client.next_report
            accepted = client.call(self.order(Side.SELL, seller, 5, 900))
            session = client.session
            client._socket.shutdown(2)
        with vendue.Client(UNIX, session=session, replay_from=first) as client:
            again = client.recv(10)
            self.assertEqual((again.sequence, again.message), (first, accepted))
            self.assertIsInstance(client.recv(10).message, vendue.ReplayEnd)
            # Sent again under its old number it is not done twice.
            twice = self.order(Side.SELL, seller, 5, 900)
            twice.client_id = accepted.client_id
            with self.assertRaises(vendue.NotDone) as refused:
                client.call(twice)
            self.assertIs(refused.exception.code, Reject.DUPLICATE_CLIENT_ID)

    def test_notices_come_once_and_in_order_across_subscriptions(self):
        (_, seller), (_, buyer) = self.party("seller", credits=2000), self.party("buyer", 10**12)
        count = 700  # More than may be on their way to one subscriber.
        notices = self.client.subscribe(what=1)
        begin = next(self.client.ask(vendue.QueryStatus())).sequenced
        with vendue.Client(UNIX) as trader:
            for at in range(count):
                trader.send(self.order(Side.SELL, seller, 1 + at % 3))
                trader.call(self.order(Side.BUY, buyer, 1 + at % 3))
        told = []
        while len(told) < count:
            notice = next(notices)
            if isinstance(notice, vendue.Swapped) and notice.seller == seller:
                told.append(notice)
        self.assertEqual([notice.quantity for notice in told], [1 + at % 3 for at in range(count)])
        half = told[count // 2]
        with vendue.Client(UNIX) as other:
            rest = other.subscribe(what=1, from_=half.sequence, part=half.part + 1)
            again = [half]
            while len(again) < count - count // 2:
                notice = next(rest)
                if isinstance(notice, vendue.Swapped) and notice.seller == seller:
                    again.append(notice)
        self.assertEqual(again, told[count // 2:])
        self.assertGreater(told[0].sequence, begin)

    def test_heartbeats_keep_a_waiting_client(self):
        with vendue.Client(UNIX, heartbeat_ms=100) as client:
            self.assertIsNone(client.recv(1.0))
            self.assertTrue(list(client.ask(vendue.QueryStatus())))
        with vendue.Client(UNIX, heartbeat_ms=100) as client:
            time.sleep(1.0)
            with self.assertRaises(vendue.ConnectionEnded) as ended:
                list(client.ask(vendue.QueryStatus()))
            self.assertIs(ended.exception.reason, vendue.Goodbye.HEARTBEAT_LOST)

    def test_tcp_wants_the_token(self):
        with self.assertRaises(vendue.NotDone) as refused:
            vendue.Client(TCP, token=bytes(32))
        self.assertIs(refused.exception.code, Reject.BAD_CREDENTIALS)
        with vendue.Client(TCP, token=TOKEN) as client:
            self.assertEqual(client.ack.role, Role.OPERATOR)
            self.assertEqual(len(list(client.ask(vendue.QueryStatus()))), 1)

    def test_endpoints_that_cannot_be(self):
        for endpoint in ("shm:/x", "tls:host:1"):
            with self.assertRaises(ValueError):
                vendue.Client(endpoint)
        with self.assertRaises(OSError):
            vendue.Client("unix:/nonexistent/socket")


if __name__ == "__main__":
    unittest.main()
