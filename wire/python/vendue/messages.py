"""Every message, code and constant of the protocol. Written by `generate`: do not edit.

Numbers are as on the wire; text is `str`. A code that this version does not know is left a
plain number."""

from dataclasses import dataclass
from enum import IntEnum

from .message import Message, field

VERSION = 1
HEADER_BYTES = 16
FRAME_BYTES_MAX = 512
ANY = 4294967295
ANY_BOOK = 65535
UNLIMITED = 18446744073709551615
NAME_BYTES = 32
PLACE_BYTES = 192
PEER_BYTES = 64
TIER_BIT = 2147483648
UNKNOWN = 18446744073709551615
DEPTH_LEVELS = 10
BID_MILLI_MIN = 100
BID_MILLI_MAX = 100000
TAKE_MAX = 512
TIER_DEFINE = 0
TIER_CHANGE = 1
TIER_DRAIN = 2
TIER_RESUME = 3
TIER_DELETE = 4
TASK_VRU_MAX = 1024
VRU_PRICE_MAX_MICRO = 1099511627776
STEEP_PERCENT_MAX = 10000
MEASURE_COST = 255
RISK_NEVER = 255
EXPERIMENT_MS_MAX = 7776000000
FORECAST_MS_MAX = 3024000000
EVENT_PERCENT_MAX = 10000
MIGRATION_ACCEPT = 0
MIGRATION_DECLINE = 1
MIGRATION_STAND = 2
MIGRATION_REFUSE = 3
MIGRATION_ABORT = 4
MIGRATION_DEPARTED = 5
MIGRATION_CLOSE = 6
MIGRATION_LEASES = 8
TOKEN_BYTES = 104
TOKEN_SEALED_BYTES = 64
TOKENS_MAX = 1024
SWAPS_MAX = 256
ACCOUNT_SWAPS_MAX = 32
SWAP_MS_MIN = 1000
DEGRADATION_PERCENT_MAX = 1000
SWAP_BREACHES = 3
SWAP_S = 60
RATE_MAX = 1000
LAYOUT_VERSION = 1
RECORD_BYTES_MAX = 65536
CAPACITY_BYTES_MIN = 64
CAPACITY_BYTES_MAX = 1073741824
BOOKS_MAX = 65536


class Resource(IntEnum):
    CPU = 0  # cpu
    MEMORY = 1  # memory
    BLOCK_IO = 2  # block-io
    NETWORK = 3  # network
    ACCELERATOR = 4  # accelerator


class Role(IntEnum):
    OBSERVER = 0  # observer
    AGENT = 1  # agent
    TENANT = 2  # tenant
    OPERATOR = 3  # operator


class Side(IntEnum):
    BUY = 0  # buy
    SELL = 1  # sell


class OrderType(IntEnum):
    LIMIT = 0  # limit
    MARKET = 1  # market


class TimeInForce(IntEnum):
    GTC = 0  # gtc
    GTD = 1  # gtd
    IOC = 2  # ioc
    FOK = 3  # fok


class Phase(IntEnum):
    CONTINUOUS = 0  # continuous
    CALL = 1  # call
    HALTED = 2  # halted


class Lag(IntEnum):
    GONE = 1  # gone
    MISSING = 2  # no such file
    NO_DEVICE = 3  # no device
    NO_INTERFACE = 4  # no interface
    NO_DISCIPLINE = 5  # no discipline
    DENIED = 6  # denied
    OUT_OF_RANGE = 7  # out of range
    DIFFERS = 8  # differs
    CHANGED = 9  # changed
    GARBLED = 10  # garbled
    FAILED = 11  # failed
    WAITING = 12  # waiting
    REFILLS = 13  # refills
    IN_USE = 14  # in use
    GUEST = 15  # guest
    UNREACHABLE = 16  # unreachable


class CancelReason(IntEnum):
    REQUESTED = 0  # requested
    MASS_CANCEL = 1  # mass cancel
    DISCONNECTED = 2  # disconnected
    EXPIRED = 3  # expired
    UNMATCHED = 4  # unmatched
    SELF_TRADE = 5  # self-trade
    INSTANCE_REMOVED = 6  # instance removed
    LIMITS_CHANGED = 10  # limits changed


class LeaseClass(IntEnum):
    SLA = 0  # sla
    BOUNDED = 1  # bounded
    SPECULATIVE = 2  # speculative


class LeaseOutcome(IntEnum):
    GRANTED = 0  # granted
    UNAVAILABLE = 1  # resource unavailable
    PRICE_TOO_LOW = 2  # price too low
    DISPLACED = 3  # displaced
    WITHDRAWN = 4  # withdrawn
    CANCELLED = 5  # cancelled
    EXPIRED = 6  # expired
    OUT_OF_FUNDS = 7  # out of funds
    INSTANCE_REMOVED = 8  # instance removed
    REVOKED = 9  # revoked
    BELOW_RESERVE = 10  # below the reserve
    CHANGED = 11  # changed


class Source(IntEnum):
    MODEL = 0  # model
    USER = 1  # user
    PLAN = 2  # plan


class Horizon(IntEnum):
    HOUR = 0  # hour
    DAY = 1  # day
    WEEK = 2  # week
    EVENT = 3  # event


class ExperimentEnd(IntEnum):
    RUNNING = 0  # running
    STOPPED = 1  # stopped
    HARM = 2  # harm
    OVER = 3  # over


class Cover(IntEnum):
    P50 = 0  # p50
    P90 = 1  # p90
    P975 = 2  # p97.5
    MEASURED = 3  # measured


class PolicyAct(IntEnum):
    NOTHING = 0  # nothing
    LEASE = 1  # lease
    RELEASE = 2  # release
    BUY = 3  # buy


class PolicyReason(IntEnum):
    ENOUGH = 0  # enough
    FORECAST = 1  # forecast
    MEASURED = 2  # measured
    BUDGET = 3  # budget
    TOO_DEAR = 4  # too dear
    CHEAPER = 5  # cheaper
    REMOVED = 6  # set anew


class Kpi(IntEnum):
    LATENCY = 0  # latency
    THROUGHPUT = 1  # throughput
    CPU_WAIT = 2  # cpu-wait
    THROTTLED = 3  # throttled
    MEMORY_WAIT = 4  # memory-wait
    IO_WAIT = 5  # io-wait
    REFAULTS = 6  # refaults
    IO_LATENCY = 7  # io-latency


class Rescue(IntEnum):
    BREACHED = 0  # breached
    RAISED = 1  # raised
    AT_BOUND = 2  # at its bound
    RECOVERED = 3  # recovered
    SILENT = 4  # silent
    BUDGET_SPENT = 5  # budget spent
    OUT_OF_FUNDS = 6  # out of funds
    REFUSED = 7  # refused
    ENDED = 8  # ended
    REMOVED = 9  # removed


class Reject(IntEnum):
    UNKNOWN_KIND = 1  # unknown message kind
    BAD_LENGTH = 2  # wrong message length
    BAD_FIELD = 3  # field out of range
    NOT_PERMITTED = 4  # not permitted for this role
    THROTTLED = 5  # throttled
    BUSY = 6  # queue full
    JOURNAL_STOPPED = 7  # journal stopped
    DRAINING = 8  # draining
    DUPLICATE_CLIENT_ID = 9  # client id already used
    REPLAY_GONE = 10  # too old to replay
    NOT_LOGGED_ON = 11  # not logged on
    ALREADY_LOGGED_ON = 12  # already logged on
    BAD_CREDENTIALS = 13  # credentials refused
    NOT_ON_THIS_TRANSPORT = 14  # not on this transport
    ACCOUNT_THROTTLED = 15  # account throttled
    UNKNOWN_ACCOUNT = 20  # unknown account
    UNKNOWN_INSTANCE = 21  # unknown instance
    UNKNOWN_TIER = 22  # unknown tier
    UNKNOWN_BOOK = 23  # unknown book
    UNKNOWN_ORDER = 24  # unknown order
    BAD_NAME = 25  # name empty or taken
    INSUFFICIENT_FUNDS = 30  # insufficient funds
    INSUFFICIENT_CREDITS = 31  # insufficient credits
    INSUFFICIENT_CAPACITY = 32  # insufficient capacity
    OVERFLOW = 33  # amount overflows
    BAD_PRICE = 40  # price outside the ladder
    BAD_QUANTITY = 41  # quantity out of range
    WOULD_CROSS = 42  # post-only would trade
    BAD_EXPIRY = 43  # expiry not in the future
    WRONG_TIER = 44  # instance is of another tier
    ACCOUNTS_FULL = 50  # account table full
    INSTANCES_FULL = 51  # instance table full
    ORDERS_FULL = 52  # order table full
    INSTANCE_ORDERS_FULL = 53  # too many open orders for this instance
    SESSIONS_FULL = 54  # session table full
    NOT_EMPTY = 55  # not empty
    BOOK_HALTED = 60  # book halted
    BOOK_IN_CALL = 61  # book in call
    RATE_OUT_OF_BOUNDS = 70  # exchange rate out of bounds
    POOL_TOO_SMALL = 71  # tier's pool has too few credits
    TIER_FULL = 72  # destination tier takes no capacity
    EXCHANGES_FULL = 73  # exchange table full
    WRONG_TIER_STATE = 74  # tier is in another state
    UNKNOWN_TRADE = 80  # unknown trade
    ALREADY_REVERSED = 81  # already reversed
    ORDER_VALUE_LIMIT = 82  # order above the account's largest value
    WINDOW_LIMIT = 83  # beyond the account's limit of this window
    POSITION_LIMIT = 84  # beyond the account's largest position
    OWN_TIER = 89  # storage of its own tier
    UNKNOWN_LEASE = 90  # unknown lease
    LEASES_FULL = 91  # too many leases
    RENT_TOO_LOW = 92  # rent below the reserve
    NOT_ENTITLED = 93  # not entitled to the class
    TOO_OFTEN = 94  # too often
    LEASE_OF_RESCUE = 97  # an objective's lease
    OBJECTIVES_FULL = 98  # objective table full
    UNKNOWN_OBJECTIVE = 99  # unknown objective
    MARGIN_TOO_LOW = 110  # margin too low
    SWARM_FULL = 111  # no VRU to be had
    TASKS_FULL = 112  # task table full
    UNKNOWN_GROUP = 113  # unknown group
    UNKNOWN_TASK = 114  # unknown task
    GROUPS_FULL = 115  # group table or group full
    NOT_OFFERED = 116  # group does not offer the resource
    POLICIES_FULL = 120  # policy table full
    MIGRATIONS_FULL = 130  # migration table full
    UNKNOWN_MIGRATION = 131  # unknown migration
    WRONG_HANDOVER = 132  # record or receipt of another migration
    ALREADY_ARRIVED = 133  # the instance has arrived
    UNKNOWN_TOKEN = 140  # unknown token
    TOKENS_FULL = 141  # token table full
    TOKEN_FORGED = 142  # token's seal does not hold
    TOKEN_STALE = 143  # token changed since
    TOKEN_NOT_OPEN = 144  # outside the token's window
    TOKEN_REDEEMED = 145  # token is redeemed
    TOKENS_DIFFER = 146  # tokens do not go together
    TOKEN_BOUND = 147  # token is bound to another instance
    SWAPS_FULL = 148  # too many swaps
    UNKNOWN_SWAP = 149  # unknown swap
    SWAP_SETTLED = 150  # swap is settled
    NOT_SWAP_ELIGIBLE = 151  # token is not to be swapped
    TOKEN_STICKY = 152  # sticky token is in use
    TOKEN_IN_SWAP = 153  # token is in a swap
    BEYOND_WINDOW = 154  # beyond a token's window
    DOWNTIME_TOO_LONG = 155  # longer downtime than agreed
    NO_SOURCE = 156  # no token to have it from
    EVENTS_FULL = 161  # planned events are full
    UNKNOWN_EXPERIMENT = 162  # unknown experiment
    EXPERIMENTS_FULL = 163  # experiment table full
    NO_SWAP_MANAGER = 164  # machine.swap_every_ms is 0


class TaskEnd(IntEnum):
    FINISHED = 0  # finished
    REQUESTED = 1  # requested
    EXHAUSTED = 2  # bid exhausted
    DISPLACED = 3  # displaced
    INSTANCE_REMOVED = 4  # instance removed


class TokenOutcome(IntEnum):
    ISSUED = 0  # issued
    REDEEMED = 1  # redeemed
    SPLIT = 2  # split
    MERGED = 3  # merged
    ABSORBED = 4  # absorbed
    TRANSFERRED = 5  # transferred
    RETURNED = 6  # returned
    REVOKED = 7  # revoked
    EXPIRED = 8  # expired
    SWAPPED = 9  # swapped


class SwapAnswer(IntEnum):
    ASK = 0  # ask
    ACCEPT = 1  # accept
    REFUSE = 2  # refuse


class SwapState(IntEnum):
    PROPOSED = 0  # proposed
    ACTIVE = 1  # active
    BOOSTING = 2  # boosting
    ENDED = 3  # ended
    ROLLED_BACK = 4  # rolled back
    REJECTED = 5  # rejected
    WITHDRAWN = 6  # withdrawn
    EXPIRED = 7  # expired
    REFUSED = 8  # refused


class SwapReason(IntEnum):
    REQUESTED = 0  # requested
    FORECAST = 1  # forecast
    OWNER = 2  # owner
    POLICY = 3  # policy
    ONE_ACCOUNT = 4  # one account
    INCENTIVE_TOO_LOW = 5  # incentive too low
    TIME = 6  # time
    DEGRADED = 7  # degraded
    TOKEN_CHANGED = 8  # token changed
    TOKEN_OVER = 9  # token over
    INSTANCE_REMOVED = 10  # instance removed


class Goodbye(IntEnum):
    LOGGED_OUT = 0  # logged out
    BAD_FRAME = 1  # framing lost
    BAD_VERSION = 2  # unsupported version
    SEQUENCE_GAP = 3  # session sequence gap
    HEARTBEAT_LOST = 4  # heartbeat lost
    SLOW_READER = 5  # reading too slowly
    SUPERSEDED = 6  # superseded by another connection
    SHUTTING_DOWN = 7  # shutting down
    LOGON_TIMEOUT = 8  # no logon in time
    BAD_CREDENTIALS = 9  # credentials refused
    TOO_MANY_CONNECTIONS = 10  # too many connections
    JOURNAL_STOPPED = 11  # journal stopped


@dataclass(slots=True)
class Logon(Message, kind=0x01, size=64, group='Session'):
    """Opens or resumes a session. The first message on a connection, with sequence 0."""

    #: The session's own number, chosen by the client; the same number resumes it. 0: anonymous;
    #: only queries are answered and nothing can be resumed.
    session: int = field('Q', at=0, default=0)
    #: Secret that plain TCP clients show (zero elsewhere: kernel or certificate vouch).
    token: bytes = field('32s', at=8, default=bytes(32))
    #: Replay reports from this sequence number; 0 for none.
    replay_from: int = field('Q', at=40, default=0)
    #: Account to act for; `ANY` where the credentials name one, or for operators.
    account: int = field('I', at=48, default=0)
    #: Instance an agent acts for; `ANY` for other roles.
    instance: int = field('I', at=52, default=0)
    #: Heartbeat interval proposed, milliseconds; the answer holds the one in force.
    heartbeat_ms: int = field('I', at=56, default=0)
    #: A `Role`; never more than the credentials allow.
    role: Role | int = field('B', at=60, default=0, code=Role)
    #: 1 to cancel this session's orders when the connection ends.
    cancel_on_disconnect: int = field('B', at=61, default=0)


@dataclass(slots=True)
class Heartbeat(Message, kind=0x02, size=0, group='Session'):
    """Says that the sender lives. Sent by either side when it has been silent for the interval."""


@dataclass(slots=True)
class Logout(Message, kind=0x03, size=0, group='Session'):
    """Ends the connection; the session can be resumed later."""


@dataclass(slots=True)
class Replay(Message, kind=0x04, size=8, group='Session'):
    """Asks for reports again, from a sequence number."""

    #: First report wanted.
    from_: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class Attach(Message, kind=0x05, size=8, group='Session'):
    """Asks for shared memory over the Unix socket. Answered by `Attached`, with descriptors."""

    #: 0: a ring pair that carries this session from now on; 1: the board (read-only).
    what: int = field('B', at=0, default=0)
    #: Bytes of each ring, a power of two within the daemon's bounds; 0 for the board.
    ring_bytes: int = field('I', at=4, default=0)


@dataclass(slots=True)
class Subscribe(Message, kind=0x06, size=16, group='Session'):
    """Asks to be told of trades and balances from a place in the journal on. Answered by
    `Subscribed`, then notices. Takes the place of the connection's subscription before.
    """

    #: First journal record wanted; 0 for what comes next.
    from_: int = field('Q', at=0, default=0)
    #: First part of that record wanted.
    part: int = field('I', at=8, default=0)
    #: What is wanted, a sum: 1 trades, 2 accounts' funds, 4 instances' credits, 8 swaps between
    #: tiers (told to who sees all accounts).
    what: int = field('B', at=12, default=0)


@dataclass(slots=True)
class Take(Message, kind=0x07, size=8, group='Session'):
    """Lets the daemon send more notices."""

    #: How many it may have sent since `Subscribed`, at most what it has sent and `Subscribed`'s
    #: `take_max`.
    through: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class Unsubscribe(Message, kind=0x08, size=0, group='Session'):
    """Ends the subscription. Answered by `Unsubscribed`, if there is one."""


@dataclass(slots=True)
class NewOrder(Message, kind=0x10, size=36, group='Orders'):
    """Enters an order. Answered by `Accepted` then reports, or by `Rejected`."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: For `Gtd`: milliseconds since 1970 UTC; otherwise 0.
    expires_at_ms: int = field('Q', at=8, default=0)
    #: Instance whose credits are traded.
    instance: int = field('I', at=16, default=0)
    #: Price in the book's ticks, 1 or more; for a market buy the worst price to pay.
    price_ticks: int = field('I', at=20, default=0)
    #: Credits (VRU-seconds).
    quantity: int = field('I', at=24, default=0)
    #: Book number, from `QueryBooks`.
    book: int = field('H', at=28, default=0)
    #: A `Side`.
    side: Side | int = field('B', at=30, default=0, code=Side)
    #: An `OrderType`.
    order_type: OrderType | int = field('B', at=31, default=0, code=OrderType)
    #: A `TimeInForce`.
    time_in_force: TimeInForce | int = field('B', at=32, default=0, code=TimeInForce)
    #: 1: refuse the order if it would trade at once.
    post_only: int = field('B', at=33, default=0)
    #: When it meets its own account: 0 cancels the rest of this order, 1 the resting one.
    self_trade: int = field('B', at=34, default=0)


@dataclass(slots=True)
class Cancel(Message, kind=0x11, size=8, group='Orders'):
    """Cancels the order a handle names. Answered by `Cancelled` or `Rejected`."""

    #: From `Accepted` or `Replaced`.
    handle: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class Replace(Message, kind=0x12, size=24, group='Orders'):
    """Changes price and open quantity. Keeps its place in the queue only if the price stays and
    the quantity shrinks. Answered by `Replaced` then reports, or by `Rejected`.
    """

    #: Greater than every earlier `client_id` of the session; the order's id from now on.
    client_id: int = field('Q', at=0, default=0)
    #: From `Accepted` or `Replaced`.
    handle: int = field('Q', at=8, default=0)
    #: New price in ticks.
    price_ticks: int = field('I', at=16, default=0)
    #: New open quantity in credits.
    quantity: int = field('I', at=20, default=0)


@dataclass(slots=True)
class MassCancel(Message, kind=0x13, size=8, group='Orders'):
    """Cancels many orders at once: `Cancelled` for each, then `Done` with their number."""

    #: Only this instance, or `ANY` of the session's.
    instance: int = field('I', at=0, default=0)
    #: Only this book, or `ANY_BOOK`.
    book: int = field('H', at=4, default=0)
    #: A `Side`, or 2 for both.
    side: Side | int = field('B', at=6, default=0, code=Side)


@dataclass(slots=True)
class BidLease(Message, kind=0x14, size=40, group='Orders'):
    """Bids for VRUs above an instance's baseline. `Done` holds the lease's handle; then
    `LeaseMoved` says what it got. For the instance's own agent, its tenant and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: When it ends by itself, milliseconds since 1970 UTC; 0: it does not.
    expires_at_ms: int = field('Q', at=8, default=0)
    #: Instance number.
    instance: int = field('I', at=16, default=0)
    #: VRUs, or percent of the baseline, rounded down to whole VRUs.
    amount: int = field('I', at=20, default=0)
    #: The most that it pays, in ticks of the book's micro-units a VRU-second.
    rent_ticks: int = field('I', at=24, default=0)
    #: Once it has VRUs no other lease takes them for so many milliseconds; 1000 to 60,000, 0:
    #: 1000.
    hold_ms: int = field('I', at=28, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=32, default=0, code=Resource)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=33, default=0, code=LeaseClass)
    #: 1: `amount` is percent.
    percent: int = field('B', at=34, default=0)
    #: 1: all of it or nothing.
    all_or_none: int = field('B', at=35, default=0)
    #: Of a bid for a storage class, the tier whose block I/O it is; otherwise zero.
    tier: int = field('H', at=36, default=0)
    #: 1: for a storage class: block I/O of another tier, on that tier's storage.
    storage: int = field('B', at=38, default=0)


@dataclass(slots=True)
class ChangeLease(Message, kind=0x15, size=24, group='Orders'):
    """Gives a lease other terms. What it has it keeps, as far as the new terms go; it waits
    behind others of its rent. `Done` holds the handle.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Handle of the lease.
    handle: int = field('Q', at=8, default=0)
    #: VRUs.
    vru: int = field('I', at=16, default=0)
    #: The most that it pays, in ticks of the book's micro-units a VRU-second.
    rent_ticks: int = field('I', at=20, default=0)


@dataclass(slots=True)
class CancelLease(Message, kind=0x16, size=16, group='Orders'):
    """Ends a lease. `LeaseMoved` tells who bid; `Done` holds the micro-units it paid in all."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Handle of the lease.
    handle: int = field('Q', at=8, default=0)


@dataclass(slots=True)
class Lend(Message, kind=0x17, size=24, group='Orders'):
    """Lends VRUs of an instance's baseline to who leases them, or takes them back at once.
    `Done` holds what was lent before.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Instance number.
    instance: int = field('I', at=8, default=0)
    #: VRUs lent from now on, less than its baseline; 0: none.
    vru: int = field('I', at=12, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=16, default=0, code=Resource)


@dataclass(slots=True)
class CreateAccount(Message, kind=0x20, size=64, group='Administration'):
    """Creates an account. `Done` holds its number."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Bit g set: sells to accounts of group g.
    sells_to: int = field('Q', at=8, default=0)
    #: Bit g set: buys from accounts of group g.
    buys_from: int = field('Q', at=16, default=0)
    #: Unique name.
    name: str = field('32s', at=24, default="")
    #: Group, 0..=63.
    group: int = field('B', at=56, default=0)


@dataclass(slots=True)
class Deposit(Message, kind=0x21, size=24, group='Administration'):
    """Pays funds into an account. `Done` holds the new free balance."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Micro-units of funds.
    amount_micro: int = field('Q', at=8, default=0)
    #: Account number.
    account: int = field('I', at=16, default=0)


@dataclass(slots=True)
class Withdraw(Message, kind=0x22, size=24, group='Administration'):
    """Pays funds out of an account. `Done` holds the new free balance."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Micro-units of funds.
    amount_micro: int = field('Q', at=8, default=0)
    #: Account number.
    account: int = field('I', at=16, default=0)


@dataclass(slots=True)
class CreateInstance(Message, kind=0x23, size=264, group='Administration'):
    """Puts an instance under Vendue's care. `Done` holds its number."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Owning account.
    account: int = field('I', at=8, default=0)
    #: Home tier.
    tier: int = field('H', at=12, default=0)
    #: VRUs reserved per resource, in the order of `Resource`.
    baseline_vru: tuple = field('5I', at=16, default=(0,) * 5)
    #: Unique name.
    name: str = field('32s', at=40, default="")
    #: Where it runs: an absolute cgroup v2 path, or `pid:N` on a dry-run host, or empty.
    place: str = field('192s', at=72, default="")


@dataclass(slots=True)
class RemoveInstance(Message, kind=0x24, size=16, group='Administration'):
    """Releases an instance: cancels its orders and burns its credits. Its limits are lifted."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Instance number.
    instance: int = field('I', at=8, default=0)


@dataclass(slots=True)
class GrantCredits(Message, kind=0x25, size=24, group='Administration'):
    """Issues credits to an instance beyond what it earns. `Done` holds the new free balance."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Milli-credits.
    amount_millicredits: int = field('Q', at=8, default=0)
    #: Instance number.
    instance: int = field('I', at=16, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=20, default=0, code=Resource)


@dataclass(slots=True)
class SetBid(Message, kind=0x26, size=24, group='Administration'):
    """Sets what an instance bids for capacity that is contended: it weighs in proportion, and
    pays at most so much for what it uses above its baseline. `Done` holds the bid. For the
    instance's own agent, its tenant and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Milli-credits a VRU-second, 100 to 100,000; 1,000 until set.
    bid_milli: int = field('I', at=8, default=0)
    #: Instance number.
    instance: int = field('I', at=12, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=16, default=0, code=Resource)


@dataclass(slots=True)
class CancelAccount(Message, kind=0x27, size=16, group='Administration'):
    """Cancels the open orders of an account: `Cancelled` for each, then `Done` with their
    number.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Account number.
    account: int = field('I', at=8, default=0)
    #: Only this book, or `ANY_BOOK`.
    book: int = field('H', at=12, default=0)
    #: A `Side`, or 2 for both.
    side: Side | int = field('B', at=14, default=0, code=Side)


@dataclass(slots=True)
class SetPhase(Message, kind=0x28, size=16, group='Administration'):
    """Puts a book into a phase, or back on its schedule. A book that becomes continuous holds
    the auction of its call first. `Done` holds the phase that is in force now.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Book number.
    book: int = field('H', at=8, default=0)
    #: A `Phase`, in force until the next `SetPhase`; 3: as scheduled.
    phase: Phase | int = field('B', at=10, default=0, code=Phase)


@dataclass(slots=True)
class FreezeInstance(Message, kind=0x29, size=16, group='Administration'):
    """Freezes an instance or lets it go on: section 7. `Done` holds 1 for frozen, 0 for not."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Instance.
    instance: int = field('I', at=8, default=0)
    #: 1: nothing in it runs; 0: it goes on.
    frozen: int = field('B', at=12, default=0)


@dataclass(slots=True)
class SetTier(Message, kind=0x2a, size=104, group='Administration'):
    """Changes, drains, resumes or deletes a tier, or defines one in the place of a spare.
    `Done` holds the tier's number.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: To define: size of a VRU of each resource in its unit; 0 for what it was. Otherwise 0.
    vru_size: tuple = field('5Q', at=8, default=(0,) * 5)
    #: To define and to change: capacity of each resource in VRUs; 0 to leave it. Otherwise 0.
    capacity_vru: tuple = field('5I', at=48, default=(0,) * 5)
    #: Tier.
    tier: int = field('H', at=68, default=0)
    #: One of `TIER_DEFINE`, `TIER_CHANGE`, `TIER_DRAIN`, `TIER_RESUME`, `TIER_DELETE`.
    act: int = field('B', at=70, default=0)
    #: To define: unique name. Otherwise empty.
    name: str = field('32s', at=72, default="")


@dataclass(slots=True)
class SetAccountCap(Message, kind=0x2b, size=16, group='Administration'):
    """Caps what the account's instances use of processors together, as far as they live below
    its group: section 7. `Done` holds the cap.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Account number.
    account: int = field('I', at=8, default=0)
    #: Thousandths of a processor, 10 to 65,536,000; 0 for no cap.
    millicores: int = field('I', at=12, default=0)


@dataclass(slots=True)
class SwapTiers(Message, kind=0x2c, size=24, group='Administration'):
    """Swaps capacity, and the pool's credits that go with it, from a tier to another at the
    rate in force. `Done` holds the VRUs that arrived.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: VRUs of the source, at most; what the rate leaves over stays there.
    vru: int = field('I', at=8, default=0)
    #: Source tier.
    from_: int = field('H', at=12, default=0)
    #: Destination tier.
    to: int = field('H', at=14, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=16, default=0, code=Resource)


@dataclass(slots=True)
class SetRate(Message, kind=0x2d, size=40, group='Administration'):
    """Sets the rate of swaps from a tier to another, and the bounds that it stays in. `Done`
    holds the exchange's place in `QueryExchanges`.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: So many VRUs arrive for so many that leave: numerator, denominator.
    rate: tuple = field('2I', at=8, default=(0,) * 2)
    #: The least that it may be from now on; zeros for what it is.
    low: tuple = field('2I', at=16, default=(0,) * 2)
    #: The most that it may be from now on; zeros for what it is.
    high: tuple = field('2I', at=24, default=(0,) * 2)
    #: Source tier.
    from_: int = field('H', at=32, default=0)
    #: Destination tier.
    to: int = field('H', at=34, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=36, default=0, code=Resource)
    #: 1: it stays so; 0: demand may move it, where the configuration says so.
    fixed: int = field('B', at=37, default=0)


@dataclass(slots=True)
class SetLimits(Message, kind=0x2e, size=64, group='Administration'):
    """Sets whom an account may trade with, and how much: all of it at once. `Done` holds how
    many of its orders were cancelled because what is open passes the new limits of a window.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Bit g set: sells to accounts of group g.
    sells_to: int = field('Q', at=8, default=0)
    #: Bit g set: buys from accounts of group g.
    buys_from: int = field('Q', at=16, default=0)
    #: Credits it may sell in a window, or `UNLIMITED`.
    sell_max_credits: int = field('Q', at=24, default=0)
    #: Credits it may buy in a window, or `UNLIMITED`.
    buy_max_credits: int = field('Q', at=32, default=0)
    #: Micro-units that one order may be worth, or `UNLIMITED`.
    order_max_micro: int = field('Q', at=40, default=0)
    #: Credits it may hold and have ordered, or `UNLIMITED`.
    position_max_credits: int = field('Q', at=48, default=0)
    #: Account number.
    account: int = field('I', at=56, default=0)
    #: Group, 0..=63.
    group: int = field('B', at=60, default=0)
    #: 1: it swaps credits with other accounts, as the masks say; 0: with none.
    opted_in: int = field('B', at=61, default=0)


@dataclass(slots=True)
class ReverseTrade(Message, kind=0x2f, size=16, group='Administration'):
    """Undoes a trade: credits, funds and fees go back to whom they came from, if both parties
    still have them free. `Done` holds the trade's number; both parties get `Reversed`.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Trade's number.
    trade: int = field('Q', at=8, default=0)


@dataclass(slots=True)
class QueryStatus(Message, kind=0x30, size=0, group='Queries'):
    """How the daemon is: one `StatusRow`, then a `FaultRow` for each standing fault."""


@dataclass(slots=True)
class QueryAccounts(Message, kind=0x31, size=4, group='Queries'):
    """Accounts in order of number, a page at a time: an `AccountRow` each, followed by an
    `AccountLimitsRow` if it has limits.
    """

    #: First number wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryInstances(Message, kind=0x32, size=4, group='Queries'):
    """Instances in order of number, a page at a time."""

    #: First number wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryTiers(Message, kind=0x33, size=0, group='Queries'):
    """Tiers: one `TierRow` for each tier and resource that it has."""


@dataclass(slots=True)
class QueryBooks(Message, kind=0x34, size=4, group='Queries'):
    """Books in order of number, a page at a time."""

    #: First number wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryOrders(Message, kind=0x35, size=8, group='Queries'):
    """Open orders of an instance, a page at a time."""

    #: Instance number.
    instance: int = field('I', at=0, default=0)
    #: First position wanted.
    from_: int = field('I', at=4, default=0)


@dataclass(slots=True)
class QueryTrades(Message, kind=0x36, size=8, group='Queries'):
    """The newest trades, oldest first."""

    #: At most this many, within the daemon's tape.
    limit: int = field('I', at=0, default=0)
    #: Only this book, or `ANY_BOOK`.
    book: int = field('H', at=4, default=0)


@dataclass(slots=True)
class QueryLedger(Message, kind=0x37, size=0, group='Queries'):
    """The house's accounts and totals: one `LedgerRow` for each."""


@dataclass(slots=True)
class QueryLimits(Message, kind=0x38, size=4, group='Queries'):
    """Limits wanted, written and read back, a page of instances at a time."""

    #: First instance wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryAudit(Message, kind=0x39, size=16, group='Queries'):
    """The audit trail: one `AuditRow` for each transaction, the chain verified on the way."""

    #: First sequence number wanted.
    from_: int = field('Q', at=0, default=0)
    #: At most this many journal records are read.
    limit: int = field('I', at=8, default=0)


@dataclass(slots=True)
class QueryDepth(Message, kind=0x3a, size=4, group='Queries'):
    """The best `DEPTH_LEVELS` levels of each side of a book: one `DepthRow`."""

    #: Book number.
    book: int = field('H', at=0, default=0)


@dataclass(slots=True)
class QueryMarket(Message, kind=0x3b, size=4, group='Queries'):
    """What each book's market comes to: one `MarketRow` a book, a page at a time."""

    #: First book wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryBars(Message, kind=0x3c, size=16, group='Queries'):
    """The bars of a book, oldest first, a page at a time: `BarRow`s. A bar in which nothing
    traded is left out.
    """

    #: From the bar on that holds this moment, nanoseconds since 1970 UTC; 0 for the oldest.
    from_ns: int = field('Q', at=0, default=0)
    #: One of `BAR_WIDTHS_S`.
    width_s: int = field('I', at=8, default=0)
    #: Book number.
    book: int = field('H', at=12, default=0)


@dataclass(slots=True)
class QueryTape(Message, kind=0x3d, size=16, group='Queries'):
    """The tape of trades, oldest first, a page at a time: `TradeRow`s."""

    #: From this trade's number on; 0 for the oldest that is kept.
    from_: int = field('Q', at=0, default=0)
    #: Only this book, or `ANY_BOOK`.
    book: int = field('H', at=8, default=0)


@dataclass(slots=True)
class QueryExchanges(Message, kind=0x3e, size=4, group='Queries'):
    """The exchanges between tiers that are not the usual: `ExchangeRow`s, a page at a time."""

    #: First place wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QuerySensors(Message, kind=0x3f, size=4, group='Queries'):
    """How instances fare on the host: `SensorRow`s, a page at a time."""

    #: First instance wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class SetReserveRent(Message, kind=0x50, size=16, group='Queries'):
    """Sets the least rent of a class. Leases that pay less end. `Done` holds what it was
    before.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Ticks of the book's micro-units a VRU-second, at least 1.
    rent_ticks: int = field('I', at=8, default=0)
    #: Book.
    book: int = field('H', at=12, default=0)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=14, default=0, code=LeaseClass)


@dataclass(slots=True)
class EntitleInstance(Message, kind=0x51, size=24, group='Queries'):
    """Entitles an instance to leases of class sla. Leases beyond that end, the newest first.
    `Done` holds what it was entitled to before.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Instance number.
    instance: int = field('I', at=8, default=0)
    #: VRUs that its leases of the class may want together.
    vru: int = field('I', at=12, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=16, default=0, code=Resource)


@dataclass(slots=True)
class SetObjective(Message, kind=0x52, size=60, group='Queries'):
    """Sets an objective of an instance: while its KPI breaches it, the engine itself bids for a
    lease, within its budget (section 7, *Rescue*). One there is of the KPI gets these terms,
    its lease ends. `Done` holds the micro-units it has spent in this window. For the instance's
    tenant and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Micro-units that its leases may cost in a window.
    budget_micro: int = field('Q', at=8, default=0)
    #: Instance number.
    instance: int = field('I', at=16, default=0)
    #: Seconds of a window, 1 to 2,678,400. Windows begin at multiples of it since 1970 UTC.
    window_s: int = field('I', at=20, default=0)
    #: It is in breach at this value and above; with `below`, and below.
    breach_at: int = field('I', at=24, default=0)
    #: It has recovered at this value and below; with `below`, and above.
    recover_at: int = field('I', at=28, default=0)
    #: It must be in breach so long before it bids, and again before it bids for more, 1000 to
    #: 3,600,000 milliseconds.
    breach_ms: int = field('I', at=32, default=0)
    #: It must have recovered so long before its lease ends, 1000 to 3,600,000 milliseconds.
    recover_ms: int = field('I', at=36, default=0)
    #: VRUs that it bids for at first, and by which it bids for more.
    step_vru: int = field('I', at=40, default=0)
    #: VRUs that it bids for at most.
    most_vru: int = field('I', at=44, default=0)
    #: The most that its lease pays, in ticks of the book's micro-units a VRU-second.
    rent_ticks: int = field('I', at=48, default=0)
    #: A `Kpi`.
    kpi: Kpi | int = field('B', at=52, default=0, code=Kpi)
    #: 1: low values are a breach.
    below: int = field('B', at=53, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=54, default=0, code=Resource)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=55, default=0, code=LeaseClass)
    #: 1: removes the objective; all but the id, the instance and the KPI is zero. `Done` holds
    #: the micro-units that its leases paid in all.
    remove: int = field('B', at=56, default=0)


@dataclass(slots=True)
class QueryLeases(Message, kind=0x54, size=4, group='Queries'):
    """Asks for `LeaseRow`s, by slot."""

    #: First slot.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryRents(Message, kind=0x55, size=4, group='Queries'):
    """Asks for `RentRow`s."""

    #: First book.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryObjectives(Message, kind=0x56, size=4, group='Queries'):
    """Asks for `ObjectiveRow`s, by slot."""

    #: First slot.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class ReportKpi(Message, kind=0x1c, size=16, group='Queries'):
    """A workload's own word on a KPI of which its instance has an objective. At most 8 a second
    of each; `Done` holds the value. For the instance's own agent, its tenant and operators.
    """

    #: Instance number; a `Rejected` names it as `client_id`.
    instance: int = field('I', at=0, default=0)
    #: Latency in microseconds, or throughput a second.
    value: int = field('I', at=4, default=0)
    #: A `Kpi` that is reported.
    kpi: Kpi | int = field('B', at=8, default=0, code=Kpi)


@dataclass(slots=True)
class LogonAck(Message, kind=0x81, size=64, group='Replies about the session'):
    """The session is open. Sequenced messages follow from `next_sequence`."""

    #: The session's number.
    session: int = field('Q', at=0, default=0)
    #: Highest sequence of a state-changing request that was executed; number on from here.
    last_request: int = field('Q', at=8, default=0)
    #: Highest `client_id` used.
    last_client_id: int = field('Q', at=16, default=0)
    #: Sequence the next new report will have.
    next_sequence: int = field('Q', at=24, default=0)
    #: Oldest report that can still be replayed (equals `next_sequence` when none is kept).
    oldest_sequence: int = field('Q', at=32, default=0)
    #: Daemon's clock, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=40, default=0)
    #: Account in force, or `ANY`.
    account: int = field('I', at=48, default=0)
    #: Instance in force, or `ANY`.
    instance: int = field('I', at=52, default=0)
    #: Heartbeat interval in force, milliseconds.
    heartbeat_ms: int = field('I', at=56, default=0)
    #: Role in force.
    role: int = field('B', at=60, default=0)


@dataclass(slots=True)
class Farewell(Message, kind=0x83, size=8, group='Replies about the session'):
    """The last frame on a connection: why it ends."""

    #: A `Goodbye`.
    reason: Goodbye | int = field('B', at=0, default=0, code=Goodbye)


@dataclass(slots=True)
class Attached(Message, kind=0x84, size=8, group='Replies about the session'):
    """Descriptors come with this frame. Ring pair: the request ring's memory, the report ring's
    memory, the bell (writing end of a pipe) that wakes the daemon, the doorbell (reading end of
    another) that wakes the client. Board: its memory.
    """

    #: As asked.
    what: int = field('B', at=0, default=0)
    #: Bytes of each ring, or of the board.
    bytes: int = field('I', at=4, default=0)


@dataclass(slots=True)
class ReplayEnd(Message, kind=0x85, size=8, group='Replies about the session'):
    """Replay is complete; `next` is the sequence of the next new report."""

    #: Next new report.
    next: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class Refused(Message, kind=0x86, size=24, group='Replies about the session'):
    """A request was refused before it reached the core. Not replayed: it never happened."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: A number that helps: the oldest replayable sequence, the throttle's rate, an offset.
    detail: int = field('Q', at=8, default=0)
    #: Kind of the request.
    kind: int = field('B', at=16, default=0)
    #: A `Reject`.
    code: Reject | int = field('B', at=17, default=0, code=Reject)


@dataclass(slots=True)
class Accepted(Message, kind=0x90, size=48, group='Reports'):
    """An order passed every check and has a handle. Fills and cancels follow."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: The order's id.
    client_id: int = field('Q', at=8, default=0)
    #: What cancels and replaces carry: slot in the low half, generation in the high one.
    handle: int = field('Q', at=16, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=24, default=0)
    #: Instance.
    instance: int = field('I', at=32, default=0)
    #: Price in ticks.
    price_ticks: int = field('I', at=36, default=0)
    #: Quantity in credits.
    quantity: int = field('I', at=40, default=0)
    #: Book.
    book: int = field('H', at=44, default=0)
    #: A `Side`.
    side: Side | int = field('B', at=46, default=0, code=Side)


@dataclass(slots=True)
class Filled(Message, kind=0x91, size=64, group='Reports'):
    """An order traded. Each party gets its own."""

    #: Trade's number; the same in both parties' reports.
    trade: int = field('Q', at=0, default=0)
    #: The order's id.
    client_id: int = field('Q', at=8, default=0)
    #: The order's handle.
    handle: int = field('Q', at=16, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=24, default=0)
    #: Instance.
    instance: int = field('I', at=32, default=0)
    #: Price in ticks: the maker's, or the auction's.
    price_ticks: int = field('I', at=36, default=0)
    #: Credits traded.
    quantity: int = field('I', at=40, default=0)
    #: Credits of the order still open.
    remaining: int = field('I', at=44, default=0)
    #: The other party's account.
    counterparty: int = field('I', at=48, default=0)
    #: Micro-units of funds this trade costs this party as a fee.
    fee_micro: int = field('Q', at=52, default=0)
    #: Book.
    book: int = field('H', at=60, default=0)
    #: A `Side`.
    side: Side | int = field('B', at=62, default=0, code=Side)
    #: 1 if this order was resting (maker), 0 if it came in (taker), 2 in an auction: both
    #: rested and pay the maker's fee.
    maker: int = field('B', at=63, default=0)


@dataclass(slots=True)
class Cancelled(Message, kind=0x92, size=48, group='Reports'):
    """An order, or the rest of it, left the book unfilled."""

    #: Sequence of the request that caused it, if this session sent it; otherwise 0.
    request: int = field('Q', at=0, default=0)
    #: The order's id.
    client_id: int = field('Q', at=8, default=0)
    #: The order's handle, now dead.
    handle: int = field('Q', at=16, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=24, default=0)
    #: Instance.
    instance: int = field('I', at=32, default=0)
    #: Credits that were still open.
    quantity: int = field('I', at=36, default=0)
    #: Book.
    book: int = field('H', at=40, default=0)
    #: A `Side`.
    side: Side | int = field('B', at=42, default=0, code=Side)
    #: A `CancelReason`.
    reason: CancelReason | int = field('B', at=43, default=0, code=CancelReason)
    #: The order's price in ticks.
    price_ticks: int = field('I', at=44, default=0)


@dataclass(slots=True)
class Replaced(Message, kind=0x93, size=48, group='Reports'):
    """An order has a new price, quantity, id and, if it lost its place, a new handle."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: The order's new id.
    client_id: int = field('Q', at=8, default=0)
    #: Handle before.
    old_handle: int = field('Q', at=16, default=0)
    #: Handle from now on.
    handle: int = field('Q', at=24, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=32, default=0)
    #: New price in ticks.
    price_ticks: int = field('I', at=40, default=0)
    #: New open quantity in credits.
    quantity: int = field('I', at=44, default=0)


@dataclass(slots=True)
class Rejected(Message, kind=0x94, size=32, group='Reports'):
    """The core refused a request; nothing changed."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: Its `client_id`, or its handle for a cancel.
    client_id: int = field('Q', at=8, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: Kind of the request.
    kind: int = field('B', at=24, default=0)
    #: A `Reject`.
    code: Reject | int = field('B', at=25, default=0, code=Reject)


@dataclass(slots=True)
class Done(Message, kind=0x95, size=40, group='Reports'):
    """An administrative request or a mass cancel was carried out."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: Its `client_id`, or 0.
    client_id: int = field('Q', at=8, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: New number, balance or count, as the request says.
    value: int = field('Q', at=24, default=0)
    #: Kind of the request.
    kind: int = field('B', at=32, default=0)


@dataclass(slots=True)
class LeaseMoved(Message, kind=0x96, size=56, group='Reports'):
    """What became of a lease, to the session that bid."""

    #: Handle of the lease.
    handle: int = field('Q', at=0, default=0)
    #: The id that its bid carried.
    client_id: int = field('Q', at=8, default=0)
    #: When, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: Micro-units of funds it has paid so far.
    paid_micro: int = field('Q', at=24, default=0)
    #: Instance number.
    instance: int = field('I', at=32, default=0)
    #: VRUs it has now.
    granted_vru: int = field('I', at=36, default=0)
    #: VRUs it wants.
    wanted_vru: int = field('I', at=40, default=0)
    #: What its class pays now, in ticks of the book's micro-units a VRU-second.
    rent_ticks: int = field('I', at=44, default=0)
    #: Book.
    book: int = field('H', at=48, default=0)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=50, default=0, code=LeaseClass)
    #: A `LeaseOutcome`.
    outcome: LeaseOutcome | int = field('B', at=51, default=0, code=LeaseOutcome)


@dataclass(slots=True)
class ObjectiveMoved(Message, kind=0x9e, size=40, group='Reports'):
    """What became of an objective, told to the session that set it."""

    #: When, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=0, default=0)
    #: Its lease; all bits set if it has none, or no more.
    lease: int = field('Q', at=8, default=0)
    #: Micro-units that its leases cost in this window.
    spent_micro: int = field('Q', at=16, default=0)
    #: Instance number.
    instance: int = field('I', at=24, default=0)
    #: The value told last.
    value: int = field('I', at=28, default=0)
    #: VRUs that it bids for from now on.
    wanted_vru: int = field('I', at=32, default=0)
    #: A `Kpi`.
    kpi: Kpi | int = field('B', at=36, default=0, code=Kpi)
    #: A `Rescue`.
    outcome: Rescue | int = field('B', at=37, default=0, code=Rescue)
    #: Of a bid that was refused a `Reject`, of a lease that ended a `LeaseOutcome`.
    code: int = field('B', at=38, default=0)


@dataclass(slots=True)
class Reversed(Message, kind=0x9f, size=56, group='Reports'):
    """An operator reversed a trade. Each party gets its own."""

    #: Trade's number.
    trade: int = field('Q', at=0, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Micro-units of funds that this party got back (buyer) or gave back (seller).
    funds_micro: int = field('Q', at=16, default=0)
    #: Its fee, which is part of that: the house gave it back.
    fee_micro: int = field('Q', at=24, default=0)
    #: Instance.
    instance: int = field('I', at=32, default=0)
    #: Price in ticks that was paid.
    price_ticks: int = field('I', at=36, default=0)
    #: Credits that this party gave back (buyer) or got back (seller).
    quantity: int = field('I', at=40, default=0)
    #: The other party's account.
    counterparty: int = field('I', at=44, default=0)
    #: Book.
    book: int = field('H', at=48, default=0)
    #: This party's `Side` in the trade.
    side: int = field('B', at=50, default=0)


@dataclass(slots=True)
class Subscribed(Message, kind=0xa0, size=32, group='Notices to subscribers'):
    """The subscription begins. What came before on this connection is of an earlier one."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: First journal record that will be told.
    from_: int = field('Q', at=8, default=0)
    #: Last journal record that is durable.
    durable: int = field('Q', at=16, default=0)
    #: Notices that may be on their way: how many are sent before the first `Take`.
    take_max: int = field('I', at=24, default=0)


@dataclass(slots=True)
class Swapped(Message, kind=0xa1, size=80, group='Notices to subscribers'):
    """A trade."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Number.
    trade: int = field('Q', at=16, default=0)
    #: What was paid without fees, micro-units of funds.
    notional_micro: int = field('Q', at=24, default=0)
    #: Seller's fee; 0 for who may not know it.
    seller_fee_micro: int = field('Q', at=32, default=0)
    #: Buyer's fee; 0 for who may not know it.
    buyer_fee_micro: int = field('Q', at=40, default=0)
    #: Which of the record's notices.
    part: int = field('I', at=48, default=0)
    #: Credits.
    quantity: int = field('I', at=52, default=0)
    #: Price in ticks.
    price_ticks: int = field('I', at=56, default=0)
    #: Selling account.
    seller_account: int = field('I', at=60, default=0)
    #: Selling instance; `ANY` for who may not know it.
    seller: int = field('I', at=64, default=0)
    #: Buying account.
    buyer_account: int = field('I', at=68, default=0)
    #: Buying instance; `ANY` for who may not know it.
    buyer: int = field('I', at=72, default=0)
    #: Book.
    book: int = field('H', at=76, default=0)
    #: Side of the order that came in: a `Side`; 2 for a trade of an auction.
    taker_side: int = field('B', at=78, default=0)


@dataclass(slots=True)
class SwapReversed(Message, kind=0xda, size=56, group='Notices to subscribers'):
    """A trade was reversed; what that changes is told besides."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Trade's number.
    trade: int = field('Q', at=16, default=0)
    #: What had been paid without fees, micro-units of funds.
    notional_micro: int = field('Q', at=24, default=0)
    #: Which of the record's notices.
    part: int = field('I', at=32, default=0)
    #: Credits.
    quantity: int = field('I', at=36, default=0)
    #: Price in ticks.
    price_ticks: int = field('I', at=40, default=0)
    #: Account that had sold.
    seller_account: int = field('I', at=44, default=0)
    #: Account that had bought.
    buyer_account: int = field('I', at=48, default=0)
    #: Book.
    book: int = field('H', at=52, default=0)


@dataclass(slots=True)
class FundsChanged(Message, kind=0xa2, size=48, group='Notices to subscribers'):
    """An account's funds changed. Balances count what is held."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Micro-units more than before, two's complement.
    change_micro: int = field('Q', at=16, default=0)
    #: Micro-units now.
    balance_micro: int = field('Q', at=24, default=0)
    #: Which of the record's notices.
    part: int = field('I', at=32, default=0)
    #: Account.
    account: int = field('I', at=36, default=0)
    #: Kind of the request or command that did it.
    cause: int = field('B', at=40, default=0)


@dataclass(slots=True)
class CreditsChanged(Message, kind=0xa3, size=48, group='Notices to subscribers'):
    """An instance's credits of a resource changed. Balances count what is held."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Milli-credits more than before, two's complement.
    change_millicredits: int = field('Q', at=16, default=0)
    #: Milli-credits now.
    balance_millicredits: int = field('Q', at=24, default=0)
    #: Which of the record's notices.
    part: int = field('I', at=32, default=0)
    #: Instance.
    instance: int = field('I', at=36, default=0)
    #: Account that owns it.
    account: int = field('I', at=40, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=44, default=0, code=Resource)
    #: Kind of the request or command that did it.
    cause: int = field('B', at=45, default=0)


@dataclass(slots=True)
class CaughtUp(Message, kind=0xa4, size=8, group='Notices to subscribers'):
    """Everything up to this record has been told: go on from the next one."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class Unsubscribed(Message, kind=0xa5, size=16, group='Notices to subscribers'):
    """The subscription has ended. Subscribe again from here to go on."""

    #: Journal sequence of the next notice.
    sequence: int = field('Q', at=0, default=0)
    #: Its part.
    part: int = field('I', at=8, default=0)
    #: 0: asked for. `Busy`: too much waited, or for too long. `JournalStopped`: the journal
    #: cannot be read. Both are a `Reject`.
    code: int = field('B', at=12, default=0)


@dataclass(slots=True)
class QueryEnd(Message, kind=0xb0, size=16, group='Rows'):
    """Ends the answer to a query."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: Where the next page starts, or `u64::MAX` if this was the last.
    next: int = field('Q', at=8, default=0)


@dataclass(slots=True)
class StatusRow(Message, kind=0xb1, size=112, group='Rows'):
    """The daemon's state."""

    #: Last sequence number given.
    sequenced: int = field('Q', at=0, default=0)
    #: Last sequence number on stable storage.
    durable: int = field('Q', at=8, default=0)
    #: Last sequence number executed.
    executed: int = field('Q', at=16, default=0)
    #: Sequence number of the newest snapshot, 0 if none.
    snapshot: int = field('Q', at=24, default=0)
    #: Trades since the journal began.
    trades: int = field('Q', at=32, default=0)
    #: Limits written to the host.
    limits_written: int = field('Q', at=40, default=0)
    #: Limit changes that needed no write: unchanged or overtaken.
    limits_spared: int = field('Q', at=48, default=0)
    #: Limit writes that failed.
    limits_failed: int = field('Q', at=56, default=0)
    #: Read-backs that differed from what was written.
    limits_drifted: int = field('Q', at=64, default=0)
    #: Milliseconds since the daemon started.
    uptime_ms: int = field('Q', at=72, default=0)
    #: Requests refused before the core.
    refused: int = field('Q', at=80, default=0)
    #: Live accounts.
    accounts: int = field('I', at=88, default=0)
    #: Live instances.
    instances: int = field('I', at=92, default=0)
    #: Open orders.
    orders: int = field('I', at=96, default=0)
    #: Connections.
    connections: int = field('I', at=100, default=0)
    #: Standing faults.
    faults: int = field('I', at=104, default=0)
    #: 0 cgroup v2, 1 dry run.
    host: int = field('B', at=108, default=0)
    #: 0 never, 1 always.
    journal_sync: int = field('B', at=109, default=0)
    #: 1 while requests that change state are accepted.
    accepting: int = field('B', at=110, default=0)
    #: How far the processors left to placed instances lie in pieces, percent; 0 where no tier
    #: places.
    fragmentation_percent: int = field('B', at=111, default=0)


@dataclass(slots=True)
class FaultRow(Message, kind=0xb2, size=288, group='Rows'):
    """A fault that stands."""

    #: When it was first seen, nanoseconds since 1970 UTC.
    since_ns: int = field('Q', at=0, default=0)
    #: How often it was seen.
    count: int = field('Q', at=8, default=0)
    #: Which part reports it.
    source: str = field('16s', at=16, default="")
    #: What is wrong and what to do, UTF-8, zero-padded.
    text: str = field('256s', at=32, default="")


@dataclass(slots=True)
class AccountRow(Message, kind=0xb3, size=80, group='Rows'):
    """An account."""

    #: Funds free to use, micro-units.
    free_micro: int = field('Q', at=0, default=0)
    #: Funds held for open orders, micro-units.
    held_micro: int = field('Q', at=8, default=0)
    #: Groups it sells to.
    sells_to: int = field('Q', at=16, default=0)
    #: Groups it buys from.
    buys_from: int = field('Q', at=24, default=0)
    #: Number.
    account: int = field('I', at=32, default=0)
    #: Instances it owns.
    instances: int = field('I', at=36, default=0)
    #: Name.
    name: str = field('32s', at=40, default="")
    #: Thousandths of a processor that its instances may use together, 0 for no cap.
    cap_millicores: int = field('I', at=72, default=0)
    #: Group.
    group: int = field('B', at=76, default=0)
    #: 1 if it swaps credits with other accounts, as the masks say.
    opted_in: int = field('B', at=77, default=0)


@dataclass(slots=True)
class AccountLimitsRow(Message, kind=0xbf, size=80, group='Rows'):
    """The limits of an account that has some."""

    #: Credits it may sell in a window, or `UNLIMITED`.
    sell_max_credits: int = field('Q', at=0, default=0)
    #: Credits it may buy in a window, or `UNLIMITED`.
    buy_max_credits: int = field('Q', at=8, default=0)
    #: Micro-units that one order may be worth, or `UNLIMITED`.
    order_max_micro: int = field('Q', at=16, default=0)
    #: Credits it may hold and have ordered, or `UNLIMITED`.
    position_max_credits: int = field('Q', at=24, default=0)
    #: Credits sold in this window.
    sold_credits: int = field('Q', at=32, default=0)
    #: Credits bought in this window.
    bought_credits: int = field('Q', at=40, default=0)
    #: Credits that its open orders offer.
    offered_credits: int = field('Q', at=48, default=0)
    #: Credits that its open orders want.
    wanted_credits: int = field('Q', at=56, default=0)
    #: When this window ends, nanoseconds since 1970 UTC.
    window_ends_ns: int = field('Q', at=64, default=0)
    #: Account number.
    account: int = field('I', at=72, default=0)


@dataclass(slots=True)
class InstanceRow(Message, kind=0xb4, size=360, group='Rows'):
    """An instance."""

    #: Number.
    instance: int = field('I', at=0, default=0)
    #: Account.
    account: int = field('I', at=4, default=0)
    #: Open orders.
    orders: int = field('I', at=8, default=0)
    #: Tier.
    tier: int = field('H', at=12, default=0)
    #: Bit r set: bursting in resource r.
    bursting: int = field('B', at=14, default=0)
    #: 1: an operator froze it.
    frozen: int = field('B', at=15, default=0)
    #: Reserved VRUs per resource.
    baseline_vru: tuple = field('5I', at=16, default=(0,) * 5)
    #: VRUs it may use now per resource.
    entitled_vru: tuple = field('5I', at=36, default=(0,) * 5)
    #: Milli-credits free per resource.
    free_millicredits: tuple = field('5Q', at=56, default=(0,) * 5)
    #: Milli-credits held for open orders per resource.
    held_millicredits: tuple = field('5Q', at=96, default=(0,) * 5)
    #: Name.
    name: str = field('32s', at=136, default="")
    #: Where it runs.
    place: str = field('192s', at=168, default="")


@dataclass(slots=True)
class TierRow(Message, kind=0xb5, size=80, group='Rows'):
    """A tier's resource."""

    #: Size of a VRU in the resource's unit (millicores, bytes, bytes/s, bits/s, slots).
    vru_size: int = field('Q', at=0, default=0)
    #: Capacity in VRUs.
    capacity_vru: int = field('Q', at=8, default=0)
    #: Milli-credits in the tier's pool: earned by what nobody reserved.
    pool_millicredits: int = field('Q', at=24, default=0)
    #: Tier.
    tier: int = field('H', at=32, default=0)
    #: Book that trades it.
    book: int = field('H', at=34, default=0)
    #: Burst ceiling in hundredths of the baseline.
    burst_percent: int = field('I', at=36, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=40, default=0, code=Resource)
    #: 0 live, 1 draining, 2 spare: an operator can define it.
    state: int = field('B', at=41, default=0)
    #: Tier's name.
    name: str = field('32s', at=48, default="")


@dataclass(slots=True)
class BookRow(Message, kind=0xb6, size=120, group='Rows'):
    """A book. What it says of an auction is as of the last tick."""

    #: Micro-units of one tick.
    tick_micro: int = field('Q', at=0, default=0)
    #: Trades.
    trades: int = field('Q', at=8, default=0)
    #: Credits traded.
    volume: int = field('Q', at=16, default=0)
    #: In a call: credits that an auction would trade if all orders may meet. Otherwise 0.
    indicative_volume: int = field('Q', at=24, default=0)
    #: In a call: credits wanted less credits offered at the indicative price, two's complement.
    #: Otherwise 0.
    indicative_imbalance: int = field('Q', at=32, default=0)
    #: When the schedule acts next, milliseconds since 1970 UTC; 0 if it does not.
    next_phase_ms: int = field('Q', at=40, default=0)
    #: Number.
    book: int = field('H', at=48, default=0)
    #: Tier.
    tier: int = field('H', at=50, default=0)
    #: Highest price in ticks.
    price_ticks_max: int = field('I', at=52, default=0)
    #: Last price in ticks, 0 if none.
    last_ticks: int = field('I', at=56, default=0)
    #: Best bid in ticks, 0 if none.
    bid_ticks: int = field('I', at=60, default=0)
    #: Best ask in ticks, 0 if none.
    ask_ticks: int = field('I', at=64, default=0)
    #: Open orders.
    orders: int = field('I', at=68, default=0)
    #: In a call: the price of an auction now; 0 if nothing crosses.
    indicative_ticks: int = field('I', at=72, default=0)
    #: Schedule: an auction so often, milliseconds; 0 for none.
    auction_every_ms: int = field('I', at=76, default=0)
    #: Schedule: the call lasts so long before each auction, milliseconds.
    call_ms: int = field('I', at=80, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=84, default=0, code=Resource)
    #: A `Phase`.
    phase: Phase | int = field('B', at=85, default=0, code=Phase)
    #: 1 if the phase follows the schedule, 0 if an operator has set it.
    scheduled: int = field('B', at=86, default=0)
    #: Tier's name.
    tier_name: str = field('32s', at=88, default="")


@dataclass(slots=True)
class OrderRow(Message, kind=0xb7, size=32, group='Rows'):
    """An open order."""

    #: Handle.
    handle: int = field('Q', at=0, default=0)
    #: The order's id.
    client_id: int = field('Q', at=8, default=0)
    #: Instance.
    instance: int = field('I', at=16, default=0)
    #: Price in ticks.
    price_ticks: int = field('I', at=20, default=0)
    #: Credits open.
    quantity: int = field('I', at=24, default=0)
    #: Book.
    book: int = field('H', at=28, default=0)
    #: A `Side`.
    side: Side | int = field('B', at=30, default=0, code=Side)


@dataclass(slots=True)
class TradeRow(Message, kind=0xb8, size=48, group='Rows'):
    """A trade."""

    #: Number.
    trade: int = field('Q', at=0, default=0)
    #: Journal sequence.
    sequence: int = field('Q', at=8, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: Price in ticks.
    price_ticks: int = field('I', at=24, default=0)
    #: Credits.
    quantity: int = field('I', at=28, default=0)
    #: Selling instance.
    seller: int = field('I', at=32, default=0)
    #: Buying instance.
    buyer: int = field('I', at=36, default=0)
    #: Book.
    book: int = field('H', at=40, default=0)
    #: Side of the order that came in: a `Side`; 2 for a trade of an auction.
    taker_side: int = field('B', at=42, default=0)
    #: 1 if it was reversed.
    reversed: int = field('B', at=43, default=0)


@dataclass(slots=True)
class LedgerRow(Message, kind=0xb9, size=48, group='Rows'):
    """A line of the ledger. Each asset's lines sum to zero."""

    #: Balance, two's complement: micro-units of funds or milli-credits.
    balance: int = field('Q', at=0, default=0)
    #: Tier, or `ANY_BOOK` for funds.
    tier: int = field('H', at=8, default=0)
    #: A `Resource`, or 255 for funds.
    resource: Resource | int = field('B', at=10, default=0, code=Resource)
    #: Name of the line: `issue`, `burn`, `fees`, `free`, `held`, `pool`...
    line: str = field('32s', at=16, default="")


@dataclass(slots=True)
class LimitRow(Message, kind=0xba, size=144, group='Rows'):
    """A limit on the host."""

    #: What the machine decided, in VRUs.
    wanted_vru: int = field('Q', at=0, default=0)
    #: How often it was written.
    writes: int = field('Q', at=8, default=0)
    #: Nanoseconds since 1970 UTC of the last write, 0 if none.
    written_at_ns: int = field('Q', at=16, default=0)
    #: Instance, or `TIER_BIT` and a tier; with `of_account` an account, and its tier in the
    #: high half. 4294967294 stands for all tiers together, 4294967295 for the host.
    instance: int = field('I', at=24, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=28, default=0, code=Resource)
    #: 0 pending, 1 in force (read back), 2 refused, 3 drifted, 4 gone, 5 dry run.
    state: int = field('B', at=29, default=0)
    #: 1: of the group that an account's instances live below; `instance` is the account.
    of_account: int = field('B', at=30, default=0)
    #: A `Lag` while it is not in force, 0 otherwise.
    reason: Lag | int = field('B', at=31, default=0, code=Lag)
    #: File written, e.g. `cpu.max`.
    file: str = field('16s', at=32, default="")
    #: Text wanted in the file.
    wanted: str = field('32s', at=48, default="")
    #: Text last written.
    written: str = field('32s', at=80, default="")
    #: Text last read back.
    read_back: str = field('32s', at=112, default="")


@dataclass(slots=True)
class AuditRow(Message, kind=0xbb, size=160, group='Rows'):
    """A line of the audit trail."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Chain value of the record.
    chain: int = field('Q', at=16, default=0)
    #: Session that asked, 0 for the daemon itself.
    session: int = field('Q', at=24, default=0)
    #: Credits, milli-credits or micro-units, as `what` says.
    amount: int = field('Q', at=32, default=0)
    #: Micro-units of funds that moved, if any.
    funds_micro: int = field('Q', at=40, default=0)
    #: First party: account, or `ANY`.
    account: int = field('I', at=48, default=0)
    #: First party: instance, or `ANY`.
    instance: int = field('I', at=52, default=0)
    #: Second party: account, or `ANY`.
    other_account: int = field('I', at=56, default=0)
    #: Second party: instance, or `ANY`.
    other_instance: int = field('I', at=60, default=0)
    #: Price in ticks, 0 if none.
    price_ticks: int = field('I', at=64, default=0)
    #: Book, or `ANY_BOOK`.
    book: int = field('H', at=68, default=0)
    #: A `Reject` for a refusal; of an outcome on the host a `Lag`; otherwise 0.
    code: Reject | int = field('B', at=70, default=0, code=Reject)
    #: The `Role` of who asked; 255 for the daemon itself.
    role: int = field('B', at=71, default=0)
    #: What happened: `trade`, `order`, `deposit`...
    what: str = field('24s', at=72, default="")
    #: What the peer that asked was known as when it logged on: `uid 1000`, `certificate alice`,
    #: `token operator.key`; empty for the daemon itself.
    peer: str = field('64s', at=96, default="")


@dataclass(slots=True)
class DepthRow(Message, kind=0xbc, size=248, group='Rows'):
    """The best levels of a book, best first; unused levels are zero."""

    #: Bid prices in ticks.
    bid_ticks: tuple = field('10I', at=0, default=(0,) * 10)
    #: Bid quantities in credits.
    bid_quantity: tuple = field('10Q', at=40, default=(0,) * 10)
    #: Ask prices in ticks.
    ask_ticks: tuple = field('10I', at=120, default=(0,) * 10)
    #: Ask quantities in credits.
    ask_quantity: tuple = field('10Q', at=160, default=(0,) * 10)
    #: Book.
    book: int = field('H', at=240, default=0)


@dataclass(slots=True)
class MarketRow(Message, kind=0xbd, size=96, group='Rows'):
    """What a book's market comes to. Prices are 0 where there is none; averages are weighted by
    quantity and rounded down.
    """

    #: Trades since the journal began.
    trades: int = field('Q', at=0, default=0)
    #: Credits traded since the journal began.
    volume: int = field('Q', at=8, default=0)
    #: Trades of the last 24 hours, counted in whole minutes.
    day_trades: int = field('Q', at=16, default=0)
    #: Credits traded in them.
    day_volume: int = field('Q', at=24, default=0)
    #: Credits that open orders want to buy.
    bid_quantity: int = field('Q', at=32, default=0)
    #: Credits that open orders offer.
    ask_quantity: int = field('Q', at=40, default=0)
    #: When the last trade was, nanoseconds since 1970 UTC.
    last_time_ns: int = field('Q', at=48, default=0)
    #: Price of the last trade in ticks.
    last_ticks: int = field('I', at=56, default=0)
    #: Credits of the last trade.
    last_quantity: int = field('I', at=60, default=0)
    #: Best bid in ticks.
    bid_ticks: int = field('I', at=64, default=0)
    #: Best ask in ticks.
    ask_ticks: int = field('I', at=68, default=0)
    #: Average price of all open bids, in thousandths of a tick.
    average_bid_milliticks: int = field('I', at=72, default=0)
    #: Average price of all open asks, in thousandths of a tick.
    average_ask_milliticks: int = field('I', at=76, default=0)
    #: Average price of all trades, in thousandths of a tick.
    vwap_milliticks: int = field('I', at=80, default=0)
    #: Average price of the trades of the last 24 hours, in thousandths of a tick.
    day_vwap_milliticks: int = field('I', at=84, default=0)
    #: Book.
    book: int = field('H', at=88, default=0)


@dataclass(slots=True)
class BarRow(Message, kind=0xbe, size=56, group='Rows'):
    """The trades of a book in one stretch of time. It grows until that is over."""

    #: When it begins, nanoseconds since 1970 UTC: a multiple of its width.
    start_ns: int = field('Q', at=0, default=0)
    #: Trades.
    trades: int = field('Q', at=8, default=0)
    #: Credits.
    volume: int = field('Q', at=16, default=0)
    #: Seconds it is wide.
    width_s: int = field('I', at=24, default=0)
    #: First price in ticks.
    open_ticks: int = field('I', at=28, default=0)
    #: Highest price in ticks.
    high_ticks: int = field('I', at=32, default=0)
    #: Lowest price in ticks.
    low_ticks: int = field('I', at=36, default=0)
    #: Last price in ticks.
    close_ticks: int = field('I', at=40, default=0)
    #: Average price weighted by quantity, in thousandths of a tick, rounded down.
    vwap_milliticks: int = field('I', at=44, default=0)
    #: Book.
    book: int = field('H', at=48, default=0)


@dataclass(slots=True)
class TiersSwapped(Message, kind=0xd0, size=64, group='Tiers: a notice and a row'):
    """A notice: capacity and pool credits were swapped from a tier to another."""

    #: Journal sequence.
    sequence: int = field('Q', at=0, default=0)
    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Milli-credits that left the source's pool.
    left_millicredits: int = field('Q', at=16, default=0)
    #: Milli-credits that arrived in the destination's.
    arrived_millicredits: int = field('Q', at=24, default=0)
    #: Which of the record's notices.
    part: int = field('I', at=32, default=0)
    #: VRUs that left the source.
    left_vru: int = field('I', at=36, default=0)
    #: VRUs that arrived.
    arrived_vru: int = field('I', at=40, default=0)
    #: VRUs that were to be swapped and stayed with the source.
    rest_vru: int = field('I', at=44, default=0)
    #: The rate: numerator, denominator.
    rate: tuple = field('2I', at=48, default=(0,) * 2)
    #: Source tier.
    from_: int = field('H', at=56, default=0)
    #: Destination tier.
    to: int = field('H', at=58, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=60, default=0, code=Resource)
    #: Kind of the request or command that did it: `SwapTiers`, or 0x42 for demand.
    cause: int = field('B', at=61, default=0)


@dataclass(slots=True)
class ExchangeRow(Message, kind=0xd1, size=52, group='Tiers: a notice and a row'):
    """An exchange between two tiers. Those without a row swap one to one, within `RATE_MAX`."""

    #: Rate: numerator, denominator.
    rate: tuple = field('2I', at=0, default=(0,) * 2)
    #: The least that it may be.
    low: tuple = field('2I', at=8, default=(0,) * 2)
    #: The most that it may be.
    high: tuple = field('2I', at=16, default=(0,) * 2)
    #: Place of the row.
    number: int = field('I', at=24, default=0)
    #: Demand is looked at so often, milliseconds; 0: never.
    every_ms: int = field('I', at=28, default=0)
    #: VRUs that demand swaps at a time, at most.
    step_vru: int = field('I', at=32, default=0)
    #: Source tier.
    from_: int = field('H', at=36, default=0)
    #: Destination tier.
    to: int = field('H', at=38, default=0)
    #: The source is idle up to so many percent of its capacity.
    idle_percent: int = field('H', at=40, default=0)
    #: The destination is saturated from so many percent of its capacity on.
    saturated_percent: int = field('H', at=42, default=0)
    #: Looks in a row that must find them so before demand swaps.
    looks: int = field('H', at=44, default=0)
    #: Looks in a row that did so far.
    found: int = field('H', at=46, default=0)
    #: Percent that demand moves the rate by at each look.
    rate_step_percent: int = field('H', at=48, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=50, default=0, code=Resource)
    #: 1: demand does not move the rate.
    fixed: int = field('B', at=51, default=0)


@dataclass(slots=True)
class LeaseRow(Message, kind=0xd5, size=72, group='Tiers: a notice and a row'):
    """A lease."""

    #: Handle.
    handle: int = field('Q', at=0, default=0)
    #: The id that its bid carried.
    client_id: int = field('Q', at=8, default=0)
    #: When it ends by itself, milliseconds since 1970 UTC; 0: it does not.
    expires_at_ms: int = field('Q', at=16, default=0)
    #: Until then no other lease takes its VRUs, milliseconds since 1970 UTC.
    held_until_ms: int = field('Q', at=24, default=0)
    #: Micro-units of funds it has paid so far, as far as they were collected.
    paid_micro: int = field('Q', at=32, default=0)
    #: Micro-units of funds held for what it may cost next.
    held_micro: int = field('Q', at=40, default=0)
    #: Instance number.
    instance: int = field('I', at=48, default=0)
    #: VRUs it wants.
    wanted_vru: int = field('I', at=52, default=0)
    #: VRUs it has.
    granted_vru: int = field('I', at=56, default=0)
    #: The most that it pays, ticks.
    rent_ticks: int = field('I', at=60, default=0)
    #: Book.
    book: int = field('H', at=64, default=0)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=66, default=0, code=LeaseClass)
    #: 1: all of it or nothing.
    all_or_none: int = field('B', at=67, default=0)


@dataclass(slots=True)
class ObjectiveRow(Message, kind=0xd7, size=120, group='Tiers: a notice and a row'):
    """An objective."""

    #: Micro-units that its leases may cost in a window.
    budget_micro: int = field('Q', at=0, default=0)
    #: Micro-units that they cost in the window of its last payment.
    spent_micro: int = field('Q', at=8, default=0)
    #: Micro-units that they cost in all, as far as they were collected.
    paid_micro: int = field('Q', at=16, default=0)
    #: When that window ends, milliseconds since 1970 UTC.
    window_ends_ms: int = field('Q', at=24, default=0)
    #: When its value came, milliseconds since 1970 UTC; 0: nobody told one for a minute.
    told_at_ms: int = field('Q', at=32, default=0)
    #: In breach since, milliseconds since 1970 UTC; 0: it is not.
    breached_since_ms: int = field('Q', at=40, default=0)
    #: Recovered since, milliseconds since 1970 UTC; 0: it has not.
    recovered_since_ms: int = field('Q', at=48, default=0)
    #: Its lease; all bits set if it has none.
    lease: int = field('Q', at=56, default=0)
    #: Its slot.
    number: int = field('I', at=64, default=0)
    #: Instance number.
    instance: int = field('I', at=68, default=0)
    #: The value told last.
    value: int = field('I', at=72, default=0)
    #: As in `SetObjective`.
    window_s: int = field('I', at=76, default=0)
    #: As in `SetObjective`.
    breach_at: int = field('I', at=80, default=0)
    #: As in `SetObjective`.
    recover_at: int = field('I', at=84, default=0)
    #: As in `SetObjective`.
    breach_ms: int = field('I', at=88, default=0)
    #: As in `SetObjective`.
    recover_ms: int = field('I', at=92, default=0)
    #: As in `SetObjective`.
    step_vru: int = field('I', at=96, default=0)
    #: As in `SetObjective`.
    most_vru: int = field('I', at=100, default=0)
    #: As in `SetObjective`.
    rent_ticks: int = field('I', at=104, default=0)
    #: VRUs that its lease wants.
    wanted_vru: int = field('I', at=108, default=0)
    #: VRUs that it has.
    granted_vru: int = field('I', at=112, default=0)
    #: A `Kpi`.
    kpi: Kpi | int = field('B', at=116, default=0, code=Kpi)
    #: 1: low values are a breach.
    below: int = field('B', at=117, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=118, default=0, code=Resource)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=119, default=0, code=LeaseClass)


@dataclass(slots=True)
class RentRow(Message, kind=0xd6, size=64, group='Tiers: a notice and a row'):
    """What leases of a book cost, and what there is to lease."""

    #: VRUs that can be leased.
    supply_vru: int = field('Q', at=0, default=0)
    #: VRUs that are.
    granted_vru: int = field('Q', at=8, default=0)
    #: Of the supply, VRUs that instances lend.
    lent_vru: int = field('Q', at=16, default=0)
    #: What leases of each class pay, ticks.
    rent_ticks: tuple = field('3I', at=24, default=(0,) * 3)
    #: The least that they pay, ticks.
    reserve_ticks: tuple = field('3I', at=36, default=(0,) * 3)
    #: Leases of each class, granted or waiting.
    leases: tuple = field('3I', at=48, default=(0,) * 3)
    #: Book.
    book: int = field('H', at=60, default=0)


@dataclass(slots=True)
class SensorRow(Message, kind=0xd4, size=136, group='Tiers: a notice and a row'):
    """How an instance fares on the host, between its last two samples. Fields whose bits are
    all set were not measured: see `UNKNOWN`.
    """

    #: When it was sampled, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=0, default=0)
    #: Memory held then.
    memory_bytes: int = field('Q', at=8, default=0)
    #: Read from block devices.
    read_bytes_per_s: int = field('Q', at=16, default=0)
    #: Written to block devices.
    write_bytes_per_s: int = field('Q', at=24, default=0)
    #: Received and sent by its own network.
    network_bytes_per_s: int = field('Q', at=32, default=0)
    #: Sent, of that.
    network_sent_bytes_per_s: int = field('Q', at=40, default=0)
    #: Bytes that waited for their turn in its network's queues when these were last read back.
    network_backlog_bytes: int = field('Q', at=48, default=0)
    #: Packets that those queues have dropped since they were made.
    network_drops: int = field('Q', at=56, default=0)
    #: Instance.
    instance: int = field('I', at=64, default=0)
    #: Time between the two samples; 0 after the first, which knows no rates.
    interval_us: int = field('I', at=68, default=0)
    #: Processor time used, thousandths of a processor.
    cpu_millicores: int = field('I', at=72, default=0)
    #: Time that its cap held it back, thousandths; of several processors added up.
    throttled_permille: int = field('I', at=76, default=0)
    #: Time in which some of it waited for a processor, thousandths.
    cpu_wait_permille: int = field('I', at=80, default=0)
    #: Time in which some of it waited for memory, thousandths.
    memory_some_permille: int = field('I', at=84, default=0)
    #: Time in which all of it did.
    memory_full_permille: int = field('I', at=88, default=0)
    #: Time in which some of it waited for block I/O, thousandths.
    io_some_permille: int = field('I', at=92, default=0)
    #: Time in which all of it did.
    io_full_permille: int = field('I', at=96, default=0)
    #: Pages that it needed again after they had been reclaimed.
    refaults_per_s: int = field('I', at=100, default=0)
    #: Reads from block devices.
    reads_per_s: int = field('I', at=104, default=0)
    #: Writes to block devices.
    writes_per_s: int = field('I', at=108, default=0)
    #: Exits of its virtual processors to the host.
    exits_per_s: int = field('I', at=112, default=0)
    #: Time that these halted for, thousandths; of several added up.
    halt_permille: int = field('I', at=116, default=0)
    #: Virtual processors.
    vcpus: int = field('I', at=120, default=0)
    #: Time of block devices that its operations took, as the kernel costs them, thousandths.
    device_permille: int = field('I', at=124, default=0)
    #: Time that it waited for block devices, over its operations.
    io_wait_us: int = field('I', at=128, default=0)
    #: How long what waited in its network's queues takes to leave at its rate.
    network_delay_us: int = field('I', at=132, default=0)


@dataclass(slots=True)
class ExpectInstance(Message, kind=0x62, size=264, group='Migration: requests, query, report, row'):
    """Reserves room for an instance that is to come from another host. It earns nothing and can
    do nothing before it arrives. `Done` holds the number of its ticket.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Owning account, called as on the other host.
    account: int = field('I', at=8, default=0)
    #: Home tier.
    tier: int = field('H', at=12, default=0)
    #: VRUs reserved per resource: as on the other host.
    baseline_vru: tuple = field('5I', at=16, default=(0,) * 5)
    #: Name: as on the other host.
    name: str = field('32s', at=40, default="")
    #: Where it will run.
    place: str = field('192s', at=72, default="")


@dataclass(slots=True)
class Depart(Message, kind=0x63, size=64, group='Migration: requests, query, report, row'):
    """An instance leaves for the host that expects it. `Done` holds the seal of its record."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: The expecting host's house.
    house: int = field('Q', at=8, default=0)
    #: The ticket that it gave out.
    ticket: int = field('Q', at=16, default=0)
    #: Instance number.
    instance: int = field('I', at=24, default=0)
    #: What people call that host.
    to: str = field('32s', at=32, default="")


@dataclass(slots=True)
class Arrive(Message, kind=0x64, size=424, group='Migration: requests, query, report, row'):
    """The record of an instance that departed, to the host that expects it. `Done` holds the
    receipt.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: House that gave the ticket out: this one.
    house: int = field('Q', at=8, default=0)
    #: Ticket.
    ticket: int = field('Q', at=16, default=0)
    #: House that the instance departed from.
    source: int = field('Q', at=24, default=0)
    #: Number of the departure, which no other from that house has.
    departure: int = field('Q', at=32, default=0)
    #: Seal of all that follows and precedes, but for `client_id`.
    seal: int = field('Q', at=40, default=0)
    #: Milli-credits that come along, per resource.
    credit_millicredits: tuple = field('5Q', at=48, default=(0,) * 5)
    #: Size of a VRU there, per resource.
    vru_size: tuple = field('5Q', at=88, default=(0,) * 5)
    #: Leases, oldest first: when each ends by itself, milliseconds since 1970 UTC; 0: it does
    #: not.
    lease_expires_ms: tuple = field('8Q', at=128, default=(0,) * 8)
    #: VRUs that each wants.
    lease_vru: tuple = field('8I', at=192, default=(0,) * 8)
    #: Milliseconds that each holds.
    lease_hold_ms: tuple = field('8I', at=224, default=(0,) * 8)
    #: VRUs reserved per resource.
    baseline_vru: tuple = field('5I', at=256, default=(0,) * 5)
    #: VRUs of class sla that it is entitled to, per resource.
    entitled_vru: tuple = field('5I', at=276, default=(0,) * 5)
    #: What it bids, milli-credits a VRU-second, per resource; 0: the usual.
    bid_milli: tuple = field('5I', at=296, default=(0,) * 5)
    #: The most that each lease pays, ticks.
    lease_rent_ticks: tuple = field('8H', at=316, default=(0,) * 8)
    #: A `LeaseClass` each.
    lease_class: str = field('8s', at=332, default="")
    #: A `Resource` each.
    lease_resource: str = field('8s', at=340, default="")
    #: 1: all or nothing.
    lease_all_or_none: str = field('8s', at=348, default="")
    #: How many leases there are; the other places are zero.
    leases: int = field('B', at=356, default=0)
    #: Account's name.
    account: str = field('32s', at=360, default="")
    #: Instance's name.
    name: str = field('32s', at=392, default="")


@dataclass(slots=True)
class SettleMigration(Message, kind=0x65, size=72, group='Migration: requests, query, report, row'):
    """Decides on a proposal, or on what becomes of a migration under way. `Done` holds what the
    act says.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: House that gave the ticket out, or 0.
    house: int = field('Q', at=8, default=0)
    #: Ticket, or a proposal's number.
    ticket: int = field('Q', at=16, default=0)
    #: What the other host answered, or 0.
    receipt: int = field('Q', at=24, default=0)
    #: Account of `MIGRATION_STAND`, else 0.
    account: int = field('I', at=32, default=0)
    #: MIGRATION_ACCEPT` to `MIGRATION_CLOSE`.
    act: int = field('B', at=36, default=0)
    #: The host that is accepted, for `MIGRATION_ACCEPT` and `MIGRATION_STAND`.
    to: str = field('32s', at=40, default="")


@dataclass(slots=True)
class QueryMigrations(Message, kind=0x66, size=4, group='Migration: requests, query, report, row'):
    """Proposals, then migrations under way, then advice, a page at a time: a `MigrationRow`
    each.
    """

    #: First place.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class MigrationMoved(Message, kind=0x98, size=112, group='Migration: requests, query, report, row'):
    """A migration was proposed or went a step further. Told to the session that asked, of a
    proposal to the one whose bid for a lease waits.
    """

    #: Ticket, or the proposal's number.
    ticket: int = field('Q', at=0, default=0)
    #: House that gave the ticket out, or 0.
    house: int = field('Q', at=8, default=0)
    #: When, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: Milli-credits that move along, per resource.
    credit_millicredits: tuple = field('5Q', at=24, default=(0,) * 5)
    #: Instance.
    instance: int = field('I', at=64, default=0)
    #: VRUs that a proposal's lease waits for.
    short_vru: int = field('I', at=68, default=0)
    #: As in `MigrationRow`; 0: it is over.
    state: int = field('B', at=72, default=0)
    #: Resource of a proposal.
    resource: int = field('B', at=73, default=0)
    #: Leases that moved along.
    leases: int = field('B', at=74, default=0)
    #: Leases that found no place, or that their account cannot pay here.
    dropped: int = field('B', at=75, default=0)
    #: Where to.
    to: str = field('32s', at=80, default="")


@dataclass(slots=True)
class MigrationRow(Message, kind=0xde, size=472, group='Migration: requests, query, report, row'):
    """A proposal, a migration under way, or advice."""

    #: Ticket, or the proposal's number.
    ticket: int = field('Q', at=0, default=0)
    #: House that gave the ticket out, or 0.
    house: int = field('Q', at=8, default=0)
    #: House that the instance departs from: of a proposal this one, of an instance that is
    #: expected 0.
    source: int = field('Q', at=16, default=0)
    #: As in `Arrive`, once it departed.
    departure: int = field('Q', at=24, default=0)
    #: Seal of its record, once it departed.
    seal: int = field('Q', at=32, default=0)
    #: What `MIGRATION_DEPARTED` wants, once it arrived.
    receipt: int = field('Q', at=40, default=0)
    #: Since when it is in this state, milliseconds since 1970 UTC.
    since_ms: int = field('Q', at=48, default=0)
    #: As in `Arrive`, from here on.
    credit_millicredits: tuple = field('5Q', at=56, default=(0,) * 5)
    #: As there.
    vru_size: tuple = field('5Q', at=96, default=(0,) * 5)
    #: As there.
    lease_expires_ms: tuple = field('8Q', at=136, default=(0,) * 8)
    #: As there.
    lease_vru: tuple = field('8I', at=200, default=(0,) * 8)
    #: As there.
    lease_hold_ms: tuple = field('8I', at=232, default=(0,) * 8)
    #: As there.
    baseline_vru: tuple = field('5I', at=264, default=(0,) * 5)
    #: As there.
    entitled_vru: tuple = field('5I', at=284, default=(0,) * 5)
    #: As there.
    bid_milli: tuple = field('5I', at=304, default=(0,) * 5)
    #: As there.
    lease_rent_ticks: tuple = field('8H', at=324, default=(0,) * 8)
    #: As there.
    lease_class: str = field('8s', at=340, default="")
    #: As there.
    lease_resource: str = field('8s', at=348, default="")
    #: As there.
    lease_all_or_none: str = field('8s', at=356, default="")
    #: As there.
    leases: int = field('B', at=364, default=0)
    #: 1: proposed; 2: accepted; 3: declined; 4: expected here; 5: arrived here; 6: departing;
    #: 7: advice.
    state: int = field('B', at=365, default=0)
    #: Of a proposal: 1: its lease of class sla cannot be served here; 2: its tier is nearly
    #: empty.
    reason: int = field('B', at=366, default=0)
    #: Resource of a proposal.
    resource: int = field('B', at=367, default=0)
    #: VRUs that a proposal's lease waits for.
    short_vru: int = field('I', at=368, default=0)
    #: Instance.
    instance: int = field('I', at=372, default=0)
    #: Account's name.
    account: str = field('32s', at=376, default="")
    #: Instance's name.
    name: str = field('32s', at=408, default="")
    #: Where to.
    to: str = field('32s', at=440, default="")


@dataclass(slots=True)
class IssueToken(Message, kind=0x67, size=52, group='Tokens: requests, query, report, row'):
    """Reserves VRUs for an account over a window of time. `Done` holds the token's id; the
    token itself is a `TokenRow`. For operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: The window's beginning, milliseconds since 1970 UTC; what is past is now.
    from_ms: int = field('Q', at=8, default=0)
    #: Its end, milliseconds since 1970 UTC.
    until_ms: int = field('Q', at=16, default=0)
    #: Value of the KPI that the workload is to reach; 0 without one.
    profile_limit: int = field('Q', at=24, default=0)
    #: Account.
    account: int = field('I', at=32, default=0)
    #: The only instance that may redeem it, of the account and the tier; `ANY`: any such.
    instance: int = field('I', at=36, default=0)
    #: VRUs.
    vru: int = field('I', at=40, default=0)
    #: Tier.
    tier: int = field('H', at=44, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=46, default=0, code=Resource)
    #: Greater goes first.
    priority: int = field('B', at=47, default=0)
    #: Performance profile: a `Kpi`, or 255 for none.
    profile: int = field('B', at=48, default=0)
    #: 1: it may be swapped for another.
    swap_eligible: int = field('B', at=49, default=0)
    #: 1: what runs on it is not to be moved while it runs.
    sticky: int = field('B', at=50, default=0)


@dataclass(slots=True)
class RedeemToken(Message, kind=0x68, size=120, group='Tokens: requests, query, report, row'):
    """Gives an instance a token's VRUs until the window ends, on top of its baseline. `Done`
    holds the token's generation from then on. For the account's tenant and operators; for
    agents, if the token is bound to their instance.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Instance, of the token's account and tier.
    instance: int = field('I', at=8, default=0)
    #: The first `TOKEN_BYTES` of its `TokenRow`.
    token: bytes = field('104s', at=16, default=bytes(104))


@dataclass(slots=True)
class SplitToken(Message, kind=0x69, size=128, group='Tokens: requests, query, report, row'):
    """Takes a part of a token off as a new one. `Done` holds the new one's id."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: The window's part from here on, milliseconds since 1970 UTC; 0: `vru` says the part.
    at_ms: int = field('Q', at=8, default=0)
    #: So many VRUs; 0: `at_ms` says the part.
    vru: int = field('I', at=16, default=0)
    #: The first `TOKEN_BYTES` of its `TokenRow`.
    token: bytes = field('104s', at=24, default=bytes(104))


@dataclass(slots=True)
class MergeTokens(Message, kind=0x6a, size=216, group='Tokens: requests, query, report, row'):
    """Makes one token of two of the same window, or of the same VRUs in windows that meet; all
    else is the same. `Done` holds the generation of the first from then on; the other is over.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: The first `TOKEN_BYTES` of the `TokenRow` of the one that stays.
    token: bytes = field('104s', at=8, default=bytes(104))
    #: Those of the one that goes.
    other: bytes = field('104s', at=112, default=bytes(104))


@dataclass(slots=True)
class TransferToken(Message, kind=0x6b, size=120, group='Tokens: requests, query, report, row'):
    """Gives a token to another account, if they may trade; no instance is bound to it any more.
    `Done` holds its generation from then on.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Account.
    account: int = field('I', at=8, default=0)
    #: The first `TOKEN_BYTES` of its `TokenRow`.
    token: bytes = field('104s', at=16, default=bytes(104))


@dataclass(slots=True)
class RevokeToken(Message, kind=0x6c, size=16, group='Tokens: requests, query, report, row'):
    """Ends a token, redeemed or not. `Done` holds its VRUs. For operators."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Its id.
    id: int = field('Q', at=8, default=0)


@dataclass(slots=True)
class QueryTokens(Message, kind=0x6d, size=8, group='Tokens: requests, query, report, row'):
    """Asks for `TokenRow`s, by id."""

    #: First id.
    from_: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class TokenMoved(Message, kind=0x99, size=56, group='Tokens: requests, query, report, row'):
    """What became of a token, to the session that changed it last."""

    #: Its id.
    id: int = field('Q', at=0, default=0)
    #: When, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Its window from then on, milliseconds since 1970 UTC.
    from_ms: int = field('Q', at=16, default=0)
    #: The window's end.
    until_ms: int = field('Q', at=24, default=0)
    #: Account.
    account: int = field('I', at=32, default=0)
    #: Instance that it is bound to or redeemed for, or `ANY`.
    instance: int = field('I', at=36, default=0)
    #: VRUs.
    vru: int = field('I', at=40, default=0)
    #: Generation from then on.
    generation: int = field('I', at=44, default=0)
    #: Book of its tier and resource.
    book: int = field('H', at=48, default=0)
    #: A `TokenOutcome`.
    outcome: TokenOutcome | int = field('B', at=50, default=0, code=TokenOutcome)


@dataclass(slots=True)
class TokenRow(Message, kind=0xdf, size=112, group='Tokens: requests, query, report, row'):
    """A token, and how it stands. The first `TOKEN_BYTES` are what requests carry: the token,
    sealed for who may present it.
    """

    #: The daemon that issued it.
    house: int = field('Q', at=0, default=0)
    #: Its id.
    id: int = field('Q', at=8, default=0)
    #: Its window's beginning, milliseconds since 1970 UTC.
    from_ms: int = field('Q', at=16, default=0)
    #: The window's end.
    until_ms: int = field('Q', at=24, default=0)
    #: Value of the profile's KPI that is to be reached.
    profile_limit: int = field('Q', at=32, default=0)
    #: VRUs.
    vru: int = field('I', at=40, default=0)
    #: Changes so far, and one.
    generation: int = field('I', at=44, default=0)
    #: Account.
    account: int = field('I', at=48, default=0)
    #: Instance that it is bound to or redeemed for, or `ANY`.
    instance: int = field('I', at=52, default=0)
    #: Tier.
    tier: int = field('H', at=56, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=58, default=0, code=Resource)
    #: Greater goes first.
    priority: int = field('B', at=59, default=0)
    #: Performance profile: a `Kpi`, or 255 for none.
    profile: int = field('B', at=60, default=0)
    #: 1: it may be swapped for another.
    swap_eligible: int = field('B', at=61, default=0)
    #: 1: what runs on it is not to be moved while it runs.
    sticky: int = field('B', at=62, default=0)
    #: Number of the key that it is sealed with; 0: it is not sealed.
    key: int = field('Q', at=64, default=0)
    #: Keyed BLAKE3 of the 64 bytes before `key`; zeros where it is not sealed.
    mac: bytes = field('32s', at=72, default=bytes(32))
    #: 1: it is redeemed.
    redeemed: int = field('B', at=104, default=0)
    #: 1: it is sealed.
    sealed: int = field('B', at=105, default=0)


@dataclass(slots=True)
class SwapRequest(Message, kind=0x6e, size=64, group='Swaps of tokens: requests, queries, report, rows'):
    """Asks for VRUs of a token for another of the same book, for a time. `Done` holds the
    swap's id. For the tenant of the destination's account and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Id of the token whose VRUs are lent; 0: the daemon picks one, as it does for its own
    #: proposals.
    source: int = field('Q', at=8, default=0)
    #: Id of the token that has them meanwhile.
    destination: int = field('Q', at=16, default=0)
    #: It is approved by then or expires, milliseconds since 1970 UTC.
    deadline_ms: int = field('Q', at=24, default=0)
    #: Micro-units of funds for the source's account, held of the destination's from now on.
    incentive_micro: int = field('Q', at=32, default=0)
    #: Generation of the source that was seen; 0 with the daemon's pick.
    source_generation: int = field('I', at=40, default=0)
    #: Generation of the destination that was seen.
    destination_generation: int = field('I', at=44, default=0)
    #: VRUs, fewer than the source has.
    vru: int = field('I', at=48, default=0)
    #: From its approval, milliseconds; `SWAP_MS_MIN` at least.
    lasts_ms: int = field('I', at=52, default=0)
    #: VRUs that the destination lends the source afterwards, fewer than it has; 0: none.
    boost_vru: int = field('I', at=56, default=0)
    #: For so long, milliseconds; 0 without a boost.
    boost_ms: int = field('I', at=60, default=0)


@dataclass(slots=True)
class SwapApprove(Message, kind=0x6f, size=16, group='Swaps of tokens: requests, queries, report, rows'):
    """Approves a swap, which begins at once. `Done` holds the source's generation from then on.
    For the tenant of the source's account and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: The swap.
    id: int = field('Q', at=8, default=0)


@dataclass(slots=True)
class SwapReject(Message, kind=0x70, size=48, group='Swaps of tokens: requests, queries, report, rows'):
    """Rejects a swap that waits for approval; by who asked for it: takes it back. `Done` holds
    its incentive, which is free again. For the tenants of both accounts and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: The swap.
    id: int = field('Q', at=8, default=0)
    #: Why, in words; may be empty.
    words: str = field('32s', at=16, default="")


@dataclass(slots=True)
class SwapList(Message, kind=0x71, size=8, group='Swaps of tokens: requests, queries, report, rows'):
    """Asks for `SwapRow`s, by id."""

    #: First id.
    from_: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class SetSwapPolicy(Message, kind=0x72, size=40, group='Swaps of tokens: requests, queries, report, rows'):
    """What an account thinks of swaps of its tokens. `Done` holds the account. For its tenant
    and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: It lends for that much at least, micro-units a VRU-second; where the answer is `Accept`.
    least_micro: int = field('Q', at=8, default=0)
    #: The daemon may offer that much for it, micro-units a VRU-second.
    pay_micro: int = field('Q', at=16, default=0)
    #: Account.
    account: int = field('I', at=24, default=0)
    #: Its workloads may stand still for so long while a limit is moved, milliseconds.
    downtime_ms: int = field('I', at=28, default=0)
    #: The KPI of its token's profile may be worse than its limit by so many percent while it
    #: lends; at most `DEGRADATION_PERCENT_MAX`.
    degradation_percent: int = field('H', at=32, default=0)
    #: A `SwapAnswer`.
    answer: SwapAnswer | int = field('B', at=34, default=0, code=SwapAnswer)
    #: 1: the daemon asks for swaps on its behalf.
    seek: int = field('B', at=35, default=0)


@dataclass(slots=True)
class QuerySwapPolicies(Message, kind=0x73, size=4, group='Swaps of tokens: requests, queries, report, rows'):
    """Asks for `SwapPolicyRow`s, by account."""

    #: First account.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class SwapMoved(Message, kind=0xa6, size=96, group='Swaps of tokens: requests, queries, report, rows'):
    """What became of a swap, to the session that asked for it and to tenants of both accounts."""

    #: Its id.
    id: int = field('Q', at=0, default=0)
    #: When, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=8, default=0)
    #: Token whose VRUs are lent.
    source: int = field('Q', at=16, default=0)
    #: Token that has them meanwhile.
    destination: int = field('Q', at=24, default=0)
    #: When that which it does now ends, or ended, milliseconds since 1970 UTC.
    ends_ms: int = field('Q', at=32, default=0)
    #: Micro-units of funds that the source's account has earned.
    paid_micro: int = field('Q', at=40, default=0)
    #: Account of the source.
    source_account: int = field('I', at=48, default=0)
    #: Account of the destination.
    destination_account: int = field('I', at=52, default=0)
    #: VRUs that are lent; in a boost those of the boost.
    vru: int = field('I', at=56, default=0)
    #: Book of both.
    book: int = field('H', at=60, default=0)
    #: A `SwapState`.
    state: SwapState | int = field('B', at=62, default=0, code=SwapState)
    #: A `SwapReason`.
    reason: SwapReason | int = field('B', at=63, default=0, code=SwapReason)
    #: Why, in words, if somebody rejected it.
    words: str = field('32s', at=64, default="")


@dataclass(slots=True)
class SwapRow(Message, kind=0xd2, size=144, group='Swaps of tokens: requests, queries, report, rows'):
    """A swap, to both accounts."""

    #: Its id.
    id: int = field('Q', at=0, default=0)
    #: Token whose VRUs are lent.
    source: int = field('Q', at=8, default=0)
    #: Token that has them meanwhile.
    destination: int = field('Q', at=16, default=0)
    #: When it was asked for, milliseconds since 1970 UTC.
    asked_ms: int = field('Q', at=24, default=0)
    #: It is approved by then or expires, milliseconds since 1970 UTC.
    deadline_ms: int = field('Q', at=32, default=0)
    #: When that which it does now ends, or ended, milliseconds since 1970 UTC; 0 while it
    #: waits.
    ends_ms: int = field('Q', at=40, default=0)
    #: Micro-units of funds that were offered.
    incentive_micro: int = field('Q', at=48, default=0)
    #: Micro-units of them that the source's account has earned.
    paid_micro: int = field('Q', at=56, default=0)
    #: Account of the source.
    source_account: int = field('I', at=64, default=0)
    #: Account of the destination.
    destination_account: int = field('I', at=68, default=0)
    #: Instance that the source is bound to or redeemed for, or `ANY`; when it was asked for.
    source_instance: int = field('I', at=72, default=0)
    #: The same of the destination.
    destination_instance: int = field('I', at=76, default=0)
    #: Generation of the source that it is about.
    source_generation: int = field('I', at=80, default=0)
    #: The same of the destination.
    destination_generation: int = field('I', at=84, default=0)
    #: VRUs.
    vru: int = field('I', at=88, default=0)
    #: From its approval, milliseconds.
    lasts_ms: int = field('I', at=92, default=0)
    #: VRUs of the boost; 0: none.
    boost_vru: int = field('I', at=96, default=0)
    #: The boost lasts so long, milliseconds.
    boost_ms: int = field('I', at=100, default=0)
    #: Percent by which the KPI of who lends may be worse than its profile's limit.
    degradation_percent: int = field('H', at=104, default=0)
    #: Book of both.
    book: int = field('H', at=106, default=0)
    #: A `SwapState`.
    state: SwapState | int = field('B', at=108, default=0, code=SwapState)
    #: A `SwapReason`.
    reason: SwapReason | int = field('B', at=109, default=0, code=SwapReason)
    #: 1: the daemon asked for it.
    by_manager: int = field('B', at=110, default=0)
    #: Reports of the KPI in a row that were worse.
    breaches: int = field('B', at=111, default=0)
    #: Why, in words, if somebody rejected it.
    words: str = field('32s', at=112, default="")


@dataclass(slots=True)
class SwapPolicyRow(Message, kind=0xd3, size=32, group='Swaps of tokens: requests, queries, report, rows'):
    """What an account thinks of swaps, to itself."""

    #: It lends for that much at least, micro-units a VRU-second.
    least_micro: int = field('Q', at=0, default=0)
    #: The daemon may offer that much for it, micro-units a VRU-second.
    pay_micro: int = field('Q', at=8, default=0)
    #: Account.
    account: int = field('I', at=16, default=0)
    #: Its workloads may stand still for so long while a limit is moved, milliseconds.
    downtime_ms: int = field('I', at=20, default=0)
    #: Percent by which the KPI of its token's profile may be worse than its limit.
    degradation_percent: int = field('H', at=24, default=0)
    #: A `SwapAnswer`.
    answer: SwapAnswer | int = field('B', at=26, default=0, code=SwapAnswer)
    #: 1: the daemon asks for swaps on its behalf.
    seek: int = field('B', at=27, default=0)


@dataclass(slots=True)
class SubmitTask(Message, kind=0x18, size=80, group='Swarm: requests, queries, reports, rows'):
    """Asks for VRUs of an instance of a group for a task: section 7, *Swarm*. Answered by
    `TaskAdmitted` or `Rejected`. For tenants and operators; an agent names its own instance.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Micro-units of funds that the task may cost at most. Held until it ends.
    bid_micro: int = field('Q', at=8, default=0)
    #: No VRU is granted that leaves the margin at so many micro-units a second or below.
    margin_min_micro: int = field('Q', at=16, default=0)
    #: How long the task is expected to take, milliseconds, 1 or more.
    duration_ms: int = field('I', at=24, default=0)
    #: VRUs it can use at most, 1 to `TASK_VRU_MAX`.
    vru_max: int = field('I', at=28, default=0)
    #: Instance it must run in, or `ANY` of the group.
    instance: int = field('I', at=32, default=0)
    #: Account that pays, or `ANY`: the session's own; of an operator, the group's.
    account: int = field('I', at=36, default=0)
    #: Group number, from `QueryGroups`.
    group: int = field('H', at=40, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=42, default=0, code=Resource)
    #: What happens while no VRU can be granted: 1: it waits; 0: it is refused, or ends.
    queue: int = field('B', at=43, default=0)
    #: What it is called, zero-padded UTF-8; need not be unique.
    name: str = field('32s', at=48, default="")


@dataclass(slots=True)
class CancelTask(Message, kind=0x19, size=8, group='Swarm: requests, queries, reports, rows'):
    """Ends a task: what it holds is given back. Answered by `Done` with what it cost, micro-
    units, or by `Rejected`.
    """

    #: From `TaskAdmitted`.
    handle: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class ReportTask(Message, kind=0x1a, size=16, group='Swarm: requests, queries, reports, rows'):
    """Says how far a task is and what it used. Answered by `Done` with the progress, or by
    `Rejected`.
    """

    #: From `TaskAdmitted`.
    handle: int = field('Q', at=0, default=0)
    #: Thousandths of VRUs that it used on average since it began; all bits set: as said before.
    used_millivru: int = field('I', at=8, default=0)
    #: Thousandths of its work that are done; 1000 ends it.
    progress_permille: int = field('H', at=12, default=0)


@dataclass(slots=True)
class SetGroup(Message, kind=0x58, size=104, group='Swarm: requests, queries, reports, rows'):
    """Makes a group of instances, or changes what holds in it. `Done` holds its number."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Micro-units a VRU-second while nothing is granted, for each resource, at most
    #: `VRU_PRICE_MAX_MICRO`; 0: tasks get none of it.
    base_micro: tuple = field('5Q', at=8, default=(0,) * 5)
    #: Account whose instances it is made of.
    account: int = field('I', at=48, default=0)
    #: By so many percent of the base the last VRU of an instance is dearer than the first,
    #: about; at most `STEEP_PERCENT_MAX`.
    steep_percent: int = field('I', at=52, default=0)
    #: A task keeps each VRU so long before another can win it, milliseconds.
    hold_ms: int = field('I', at=56, default=0)
    #: Demand must be high or low for so long before an instance is activated or deactivated,
    #: and so long anew before the next, milliseconds.
    cool_ms: int = field('I', at=60, default=0)
    #: Demand is high from so many thousandths of the active instances' VRUs on.
    high_permille: int = field('H', at=64, default=0)
    #: Demand is low up to so many.
    low_permille: int = field('H', at=66, default=0)
    #: So many instances stay active.
    active_min: int = field('H', at=68, default=0)
    #: Group number; 65,535 to make one.
    group: int = field('H', at=70, default=0)
    #: Unique name.
    name: str = field('32s', at=72, default="")


@dataclass(slots=True)
class SetMember(Message, kind=0x59, size=16, group='Swarm: requests, queries, reports, rows'):
    """Puts an instance into a group of its account, or takes it out. `Done` holds the instance."""

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Instance.
    instance: int = field('I', at=8, default=0)
    #: Group number; 65,535 for none.
    group: int = field('H', at=12, default=0)


@dataclass(slots=True)
class QueryTasks(Message, kind=0x5c, size=4, group='Swarm: requests, queries, reports, rows'):
    """Tasks in order of slot, a page at a time: a `TaskRow` each."""

    #: First slot wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryGroups(Message, kind=0x5d, size=4, group='Swarm: requests, queries, reports, rows'):
    """Groups in order of number, a page at a time: a `GroupRow` each."""

    #: First number wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryMembers(Message, kind=0x5e, size=4, group='Swarm: requests, queries, reports, rows'):
    """Instances that are in a group, in order of number, a page at a time: a `MemberRow` each."""

    #: First instance wanted.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class TaskAdmitted(Message, kind=0x9a, size=64, group='Swarm: requests, queries, reports, rows'):
    """A task was taken; it may wait for VRUs. Changes and its end follow."""

    #: Sequence of the request.
    request: int = field('Q', at=0, default=0)
    #: The task's id.
    client_id: int = field('Q', at=8, default=0)
    #: What `CancelTask` and `ReportTask` carry: slot in the low half, generation in the high.
    handle: int = field('Q', at=16, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=24, default=0)
    #: Micro-units held.
    held_micro: int = field('Q', at=32, default=0)
    #: Micro-units a second that its VRUs cost.
    rate_micro: int = field('Q', at=40, default=0)
    #: Margin, micro-units a second, rounded down, two's complement.
    margin_micro: int = field('Q', at=48, default=0)
    #: Instance it runs in; `ANY` while it waits.
    instance: int = field('I', at=56, default=0)
    #: VRUs granted.
    vru: int = field('I', at=60, default=0)


@dataclass(slots=True)
class TaskChanged(Message, kind=0x9b, size=48, group='Swarm: requests, queries, reports, rows'):
    """A task has other VRUs, or runs elsewhere."""

    #: The task's id.
    client_id: int = field('Q', at=0, default=0)
    #: The task's handle.
    handle: int = field('Q', at=8, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: Micro-units a second that its VRUs cost from now on.
    rate_micro: int = field('Q', at=24, default=0)
    #: Margin, micro-units a second, rounded down, two's complement.
    margin_micro: int = field('Q', at=32, default=0)
    #: Instance it runs in; `ANY` while it waits.
    instance: int = field('I', at=40, default=0)
    #: VRUs granted.
    vru: int = field('I', at=44, default=0)


@dataclass(slots=True)
class TaskEnded(Message, kind=0x9c, size=48, group='Swarm: requests, queries, reports, rows'):
    """A task is over. Told to the session that submitted it."""

    #: The task's id.
    client_id: int = field('Q', at=0, default=0)
    #: The task's handle.
    handle: int = field('Q', at=8, default=0)
    #: Sequencer's time, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=16, default=0)
    #: Micro-units it cost.
    paid_micro: int = field('Q', at=24, default=0)
    #: Micro-units of its bid that are free again.
    released_micro: int = field('Q', at=32, default=0)
    #: A `TaskEnd`.
    reason: TaskEnd | int = field('B', at=40, default=0, code=TaskEnd)


@dataclass(slots=True)
class TaskRow(Message, kind=0xe8, size=128, group='Swarm: requests, queries, reports, rows'):
    """A task."""

    #: Handle.
    handle: int = field('Q', at=0, default=0)
    #: Its id.
    client_id: int = field('Q', at=8, default=0)
    #: Micro-units bid.
    bid_micro: int = field('Q', at=16, default=0)
    #: Micro-units paid so far: the task's cost, its group's revenue.
    paid_micro: int = field('Q', at=24, default=0)
    #: Micro-units a second that its VRUs cost.
    rate_micro: int = field('Q', at=32, default=0)
    #: Margin, micro-units a second, rounded down, two's complement.
    margin_micro: int = field('Q', at=40, default=0)
    #: Least margin asked for, micro-units a second.
    margin_min_micro: int = field('Q', at=48, default=0)
    #: When it was submitted, milliseconds since 1970 UTC.
    submitted_ms: int = field('Q', at=56, default=0)
    #: Expected to take so long, milliseconds.
    duration_ms: int = field('I', at=64, default=0)
    #: VRUs granted.
    vru: int = field('I', at=68, default=0)
    #: VRUs it can use at most.
    vru_max: int = field('I', at=72, default=0)
    #: Thousandths of VRUs that it said it used; all bits set if it said nothing.
    used_millivru: int = field('I', at=76, default=0)
    #: Account that pays.
    account: int = field('I', at=80, default=0)
    #: Instance it runs in; `ANY` while it waits.
    instance: int = field('I', at=84, default=0)
    #: Group.
    group: int = field('H', at=88, default=0)
    #: Thousandths of its work that are done, as it said.
    progress_permille: int = field('H', at=90, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=92, default=0, code=Resource)
    #: 1 while it waits for VRUs.
    waits: int = field('B', at=93, default=0)
    #: 1: it said it uses less than a quarter of what it was granted.
    inefficient: int = field('B', at=94, default=0)
    #: What it is called.
    name: str = field('32s', at=96, default="")


@dataclass(slots=True)
class GroupRow(Message, kind=0xe9, size=168, group='Swarm: requests, queries, reports, rows'):
    """A group of instances."""

    #: Micro-units a VRU-second while nothing is granted, for each resource.
    base_micro: tuple = field('5Q', at=0, default=(0,) * 5)
    #: Micro-units that tasks have paid in it.
    revenue_micro: int = field('Q', at=40, default=0)
    #: VRUs granted of each resource.
    used_vru: tuple = field('5I', at=48, default=(0,) * 5)
    #: VRUs of the active instances of each resource.
    active_vru: tuple = field('5I', at=68, default=(0,) * 5)
    #: Account.
    account: int = field('I', at=88, default=0)
    #: As set.
    steep_percent: int = field('I', at=92, default=0)
    #: As set.
    hold_ms: int = field('I', at=96, default=0)
    #: As set.
    cool_ms: int = field('I', at=100, default=0)
    #: Tasks that have VRUs.
    running: int = field('I', at=104, default=0)
    #: Tasks that wait.
    waiting: int = field('I', at=108, default=0)
    #: Instances activated since the group was made.
    activations: int = field('I', at=112, default=0)
    #: Instances deactivated since then.
    deactivations: int = field('I', at=116, default=0)
    #: As set.
    high_permille: int = field('H', at=120, default=0)
    #: As set.
    low_permille: int = field('H', at=122, default=0)
    #: As set.
    active_min: int = field('H', at=124, default=0)
    #: Group number.
    group: int = field('H', at=126, default=0)
    #: Instances in it.
    members: int = field('H', at=128, default=0)
    #: Those that run.
    active: int = field('H', at=130, default=0)
    #: 0: demand is neither; 1: high; 2: low.
    demand: int = field('B', at=132, default=0)
    #: Name.
    name: str = field('32s', at=136, default="")


@dataclass(slots=True)
class MemberRow(Message, kind=0xea, size=88, group='Swarm: requests, queries, reports, rows'):
    """An instance that is in a group."""

    #: Micro-units a VRU-second that the next VRU of each resource costs; 0 where there is none.
    price_micro: tuple = field('5Q', at=0, default=(0,) * 5)
    #: VRUs granted to tasks.
    used_vru: tuple = field('5I', at=40, default=(0,) * 5)
    #: VRUs there are: the instance's baseline.
    capacity_vru: tuple = field('5I', at=60, default=(0,) * 5)
    #: Instance.
    instance: int = field('I', at=80, default=0)
    #: Group.
    group: int = field('H', at=84, default=0)
    #: 0: it runs; 1: the group deactivated it; 2: an operator froze it.
    state: int = field('B', at=86, default=0)


@dataclass(slots=True)
class SetForecast(Message, kind=0x1b, size=40, group='Forecasts and policies: requests, queries, a report, rows'):
    """Says what an instance will need of a resource: section 7, *Forecasts*. It takes the place
    of what the same source said before for the same horizon. `Done` holds how many forecasts of
    the resource stand. For the instance's own agent, its tenant and operators; of source model
    for operators and the daemon itself.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: It holds from so many milliseconds after the request on.
    starts_in_ms: int = field('I', at=8, default=0)
    #: And for so long, milliseconds; 0 takes it back, and the rest is zero. Both together are
    #: at most `FORECAST_MS_MAX`.
    lasts_ms: int = field('I', at=12, default=0)
    #: VRUs needed: as likely more as less.
    p50_vru: int = field('I', at=16, default=0)
    #: VRUs that will do with 90%: the upper end of the 80% interval.
    p90_vru: int = field('I', at=20, default=0)
    #: VRUs that will do with 97.5%: the upper end of the 95% interval.
    p975_vru: int = field('I', at=24, default=0)
    #: Instance number.
    instance: int = field('I', at=28, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=32, default=0, code=Resource)
    #: A `Source`.
    source: Source | int = field('B', at=33, default=0, code=Source)
    #: A `Horizon`.
    horizon: Horizon | int = field('B', at=34, default=0, code=Horizon)


@dataclass(slots=True)
class QueryForecasts(Message, kind=0x5a, size=4, group='Forecasts and policies: requests, queries, a report, rows'):
    """Asks for `ForecastRow`s, by instance, resource, source and horizon."""

    #: First place.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class ForecastRow(Message, kind=0xd9, size=56, group='Forecasts and policies: requests, queries, a report, rows'):
    """A forecast that stands."""

    #: It holds from here on, milliseconds since 1970 UTC.
    starts_at_ms: int = field('Q', at=0, default=0)
    #: Up to here.
    ends_at_ms: int = field('Q', at=8, default=0)
    #: VRUs needed: as likely more as less.
    p50_vru: int = field('I', at=16, default=0)
    #: VRUs that will do with 90%.
    p90_vru: int = field('I', at=20, default=0)
    #: VRUs that will do with 97.5%.
    p975_vru: int = field('I', at=24, default=0)
    #: VRUs that the instance has now: reserved, less lent, and leased.
    has_vru: int = field('I', at=28, default=0)
    #: Instance number.
    instance: int = field('I', at=32, default=0)
    #: What it would matter, thousandths: its bid, twice that if it is entitled to class sla.
    impact_milli: int = field('I', at=36, default=0)
    #: short_permille` x `impact_milli` / 1000, rounded down.
    risk: int = field('I', at=40, default=0)
    #: Probability that it needs more than it has, thousandths.
    short_permille: int = field('H', at=44, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=46, default=0, code=Resource)
    #: A `Source`.
    source: Source | int = field('B', at=47, default=0, code=Source)
    #: A `Horizon`.
    horizon: Horizon | int = field('B', at=48, default=0, code=Horizon)


@dataclass(slots=True)
class PlanEvent(Message, kind=0x76, size=80, group='Forecasts and policies: requests, queries, a report, rows'):
    """Plans an event: while it lasts an instance needs more, or less, of a resource than the
    daemon foresees: section 7, *Planned events*. One of the same name takes the place of the
    one before. `Done` holds how many there are of the resource. For the instance's own agent,
    its tenant and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: When it begins, milliseconds since 1970 UTC.
    starts_at_ms: int = field('Q', at=8, default=0)
    #: From here on it does not begin again, milliseconds since 1970 UTC; 0: it always does. 0
    #: where `every_days` is, else after the begin.
    until_ms: int = field('Q', at=16, default=0)
    #: It lasts so long, milliseconds, at most `FORECAST_MS_MAX` and what it repeats after; 0:
    #: it is not planned any more, and all but `name` and whose it is is zero.
    lasts_ms: int = field('I', at=24, default=0)
    #: Instance number.
    instance: int = field('I', at=28, default=0)
    #: VRUs more that are needed.
    add_vru: int = field('I', at=32, default=0)
    #: Percent of what would be needed otherwise, at most `EVENT_PERCENT_MAX`.
    percent: int = field('H', at=36, default=0)
    #: It begins again after so many days, at most 366; 0: it is once.
    every_days: int = field('H', at=38, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=40, default=0, code=Resource)
    #: What it is called: one of a name for an instance's resource.
    name: str = field('32s', at=48, default="")


@dataclass(slots=True)
class QueryEvents(Message, kind=0x77, size=4, group='Forecasts and policies: requests, queries, a report, rows'):
    """Asks for `EventRow`s, by instance and resource, of events that are not over for good."""

    #: First place.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class EventRow(Message, kind=0xe7, size=80, group='Forecasts and policies: requests, queries, a report, rows'):
    """A planned event."""

    #: When it began or begins first, milliseconds since 1970 UTC.
    starts_at_ms: int = field('Q', at=0, default=0)
    #: From here on it does not begin again, milliseconds since 1970 UTC; 0: it always does.
    until_ms: int = field('Q', at=8, default=0)
    #: When it began, if it is going on, or begins next, milliseconds since 1970 UTC.
    next_at_ms: int = field('Q', at=16, default=0)
    #: It lasts so long, milliseconds.
    lasts_ms: int = field('I', at=24, default=0)
    #: Instance number.
    instance: int = field('I', at=28, default=0)
    #: VRUs more that are needed.
    add_vru: int = field('I', at=32, default=0)
    #: Percent of what would be needed otherwise.
    percent: int = field('H', at=36, default=0)
    #: It begins again after so many days; 0: it is once.
    every_days: int = field('H', at=38, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=40, default=0, code=Resource)
    #: What it is called.
    name: str = field('32s', at=48, default="")


@dataclass(slots=True)
class QueryHistory(Message, kind=0x61, size=16, group='Forecasts and policies: requests, queries, a report, rows'):
    """What an instance used of a resource, and what had been foreseen of it: `HistoryRow`s, the
    oldest first, as far as the daemon's forecaster remembers.
    """

    #: The first that is wanted begins here or later, nanoseconds since 1970 UTC.
    from_ns: int = field('Q', at=0, default=0)
    #: Instance number.
    instance: int = field('I', at=8, default=0)
    #: Seconds of a row: one of `BAR_WIDTHS_S`. Seconds are kept for an hour, minutes for a
    #: week, hours for a year.
    width_s: int = field('H', at=12, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=14, default=0, code=Resource)


@dataclass(slots=True)
class HistoryRow(Message, kind=0xe6, size=32, group='Forecasts and policies: requests, queries, a report, rows'):
    """What an instance used of a resource in a while, and what was foreseen of that while: by
    the last forecast that was made before it. Thousandths of VRUs; where all bits are set it is
    not known, or was not foreseen.
    """

    #: Begin, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=0, default=0)
    #: What was used, in the mean; not known of what is still to come.
    used_milli_vru: int = field('I', at=8, default=0)
    #: Lower end of the 95% interval.
    p025_milli_vru: int = field('I', at=12, default=0)
    #: Lower end of the 80% interval.
    p10_milli_vru: int = field('I', at=16, default=0)
    #: As likely more as less.
    p50_milli_vru: int = field('I', at=20, default=0)
    #: Upper end of the 80% interval.
    p90_milli_vru: int = field('I', at=24, default=0)
    #: Upper end of the 95% interval.
    p975_milli_vru: int = field('I', at=28, default=0)


@dataclass(slots=True)
class SetPolicy(Message, kind=0x53, size=56, group='Forecasts and policies: requests, queries, a report, rows'):
    """Sets or removes the standing policy of an instance's resource: section 7, *Policies*.
    `Done` holds 1 if there was one. For the instance's own agent, its tenant and operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Micro-units of funds an hour; 0 removes the policy.
    budget_micro: int = field('Q', at=8, default=0)
    #: Micro-units that it may save up to spend at once, at most the budget.
    burst_micro: int = field('Q', at=16, default=0)
    #: Instance number.
    instance: int = field('I', at=24, default=0)
    #: The most that it pays to lease a VRU for a second, ticks; 0: it does not lease.
    rent_ticks: int = field('I', at=28, default=0)
    #: The most that it pays for a credit, ticks; 0: it buys none.
    price_ticks: int = field('I', at=32, default=0)
    #: It looks ahead so far, milliseconds, at most `FORECAST_MS_MAX`.
    lead_ms: int = field('I', at=36, default=0)
    #: It gives nothing back so soon after its last change, milliseconds, at most an hour.
    hold_ms: int = field('I', at=40, default=0)
    #: It changes its lease by so many VRUs at least; 0 means 1.
    step_vru: int = field('I', at=44, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=48, default=0, code=Resource)
    #: Class of its lease, a `LeaseClass`.
    class_: int = field('B', at=49, default=0)
    #: A `Cover`.
    cover: Cover | int = field('B', at=50, default=0, code=Cover)


@dataclass(slots=True)
class QueryPolicies(Message, kind=0x57, size=4, group='Forecasts and policies: requests, queries, a report, rows'):
    """Asks for `PolicyRow`s, by slot."""

    #: First slot.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class PolicyActed(Message, kind=0x97, size=56, group='Forecasts and policies: requests, queries, a report, rows'):
    """What a policy did, or why it does nothing, to the session that set it."""

    #: When, nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=0, default=0)
    #: Handle of its lease, 0 if it has none.
    handle: int = field('Q', at=8, default=0)
    #: Micro-units spent since it was set, what is held included.
    spent_micro: int = field('Q', at=16, default=0)
    #: Micro-units that it may spend now.
    left_micro: int = field('Q', at=24, default=0)
    #: Instance number.
    instance: int = field('I', at=32, default=0)
    #: VRUs that it needs.
    need_vru: int = field('I', at=36, default=0)
    #: VRUs that it leases from now on, or credits that it bought.
    amount: int = field('I', at=40, default=0)
    #: The most that its lease pays, or what it bought for, ticks.
    price_ticks: int = field('I', at=44, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=48, default=0, code=Resource)
    #: A `PolicyAct`.
    act: PolicyAct | int = field('B', at=49, default=0, code=PolicyAct)
    #: A `PolicyReason`.
    reason: PolicyReason | int = field('B', at=50, default=0, code=PolicyReason)
    #: Why it was refused, a `Reject`; 0: it was not.
    code: int = field('B', at=51, default=0)


@dataclass(slots=True)
class PolicyRow(Message, kind=0xd8, size=112, group='Forecasts and policies: requests, queries, a report, rows'):
    """A standing policy."""

    #: Micro-units of funds an hour.
    budget_micro: int = field('Q', at=0, default=0)
    #: Micro-units that it may save up.
    burst_micro: int = field('Q', at=8, default=0)
    #: Micro-units that it may spend now.
    left_micro: int = field('Q', at=16, default=0)
    #: Micro-units spent in this hour of the clock, what is held for its lease included.
    hour_micro: int = field('Q', at=24, default=0)
    #: Micro-units spent since it was set, what is held included.
    spent_micro: int = field('Q', at=32, default=0)
    #: Credits bought since then.
    bought_credits: int = field('Q', at=40, default=0)
    #: Handle of its lease, 0 if it has none.
    handle: int = field('Q', at=48, default=0)
    #: When it changed something last, milliseconds since 1970 UTC.
    acted_at_ms: int = field('Q', at=56, default=0)
    #: Instance number.
    instance: int = field('I', at=64, default=0)
    #: VRUs that the instance needed when it was looked at last.
    need_vru: int = field('I', at=68, default=0)
    #: VRUs that its lease wants.
    wanted_vru: int = field('I', at=72, default=0)
    #: VRUs that its lease has.
    granted_vru: int = field('I', at=76, default=0)
    #: The most that it pays to lease, ticks.
    rent_ticks: int = field('I', at=80, default=0)
    #: The most that it pays for a credit, ticks.
    price_ticks: int = field('I', at=84, default=0)
    #: It looks ahead so far, milliseconds.
    lead_ms: int = field('I', at=88, default=0)
    #: It gives nothing back so soon after its last change, milliseconds.
    hold_ms: int = field('I', at=92, default=0)
    #: It changes its lease by so many VRUs at least.
    step_vru: int = field('I', at=96, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=100, default=0, code=Resource)
    #: A `LeaseClass`.
    class_: LeaseClass | int = field('B', at=101, default=0, code=LeaseClass)
    #: A `Cover`.
    cover: Cover | int = field('B', at=102, default=0, code=Cover)
    #: A `PolicyAct`: the last.
    act: PolicyAct | int = field('B', at=103, default=0, code=PolicyAct)
    #: A `PolicyReason`: why.
    reason: PolicyReason | int = field('B', at=104, default=0, code=PolicyReason)
    #: Why it was refused, a `Reject`; 0: it was not.
    code: int = field('B', at=105, default=0)


@dataclass(slots=True)
class StartExperiment(Message, kind=0x7a, size=152, group='Forecasts and policies: requests, queries, a report, rows'):
    """Starts an experiment: some instances follow one policy for a resource, some another, or
    none, or the manager of swaps acts for some on other terms than for others, and what that
    does is measured: section 7, *Experiments*. Of each pair the first is arm A's, the second
    arm B's. `Done` holds its number. For operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Chooses who is in which arm.
    salt: int = field('Q', at=8, default=0)
    #: It is over after so long, milliseconds, a minute to 90 days.
    lasts_ms: int = field('Q', at=16, default=0)
    #: It ends once B is worse than A by more than that, thousandths of the measure's unit,
    #: beyond doubt.
    harm_milli: int = field('Q', at=24, default=0)
    #: As of `SetPolicy`; 0: the arm leaves instances as they are, and the rest of it is zero.
    #: Of both arms 0 if swaps are compared.
    budget_micro: tuple = field('2Q', at=32, default=(0,) * 2)
    #: As of `SetPolicy`.
    burst_micro: tuple = field('2Q', at=48, default=(0,) * 2)
    #: As of `SetPolicy`.
    rent_ticks: tuple = field('2I', at=64, default=(0,) * 2)
    #: As of `SetPolicy`.
    price_ticks: tuple = field('2I', at=72, default=(0,) * 2)
    #: As of `SetPolicy`.
    lead_ms: tuple = field('2I', at=80, default=(0,) * 2)
    #: As of `SetPolicy`.
    hold_ms: tuple = field('2I', at=88, default=(0,) * 2)
    #: As of `SetPolicy`.
    step_vru: tuple = field('2I', at=96, default=(0,) * 2)
    #: Only instances of this account take part; `ANY`: of every account.
    account: int = field('I', at=104, default=0)
    #: Only those of this tier; all bits set: of every tier.
    tier: int = field('H', at=108, default=0)
    #: As of `SetPolicy`.
    class_: str = field('2s', at=110, default="")
    #: As of `SetPolicy`; if swaps are compared, the quantile of its need up to which an
    #: instance is lent to.
    cover: str = field('2s', at=112, default="")
    #: A `Resource`.
    resource: Resource | int = field('B', at=114, default=0, code=Resource)
    #: What is compared: a `Kpi`, as the instances' objectives are told it, or, of policies,
    #: `MEASURE_COST`.
    measure: int = field('B', at=115, default=0)
    #: 1: more of it is better; 0: less.
    more_is_better: int = field('B', at=116, default=0)
    #: From which probability of too little the manager of swaps acts for an instance, percent;
    #: `RISK_NEVER`: it does not; 0: as it does for others. Of both arms 0 if policies are
    #: compared.
    risk_percent: str = field('2s', at=117, default="")
    #: What it is called.
    name: str = field('32s', at=120, default="")


@dataclass(slots=True)
class StopExperiment(Message, kind=0x7b, size=16, group='Forecasts and policies: requests, queries, a report, rows'):
    """Ends an experiment. `Done` holds how many instances have their policies still to be taken
    back; of swaps 0. For operators.
    """

    #: Greater than every earlier `client_id` of the session.
    client_id: int = field('Q', at=0, default=0)
    #: Its number.
    experiment: int = field('I', at=8, default=0)


@dataclass(slots=True)
class QueryExperiments(Message, kind=0x7c, size=4, group='Forecasts and policies: requests, queries, a report, rows'):
    """Asks for `ExperimentRow`s, by number. For who sees everything; to others there are none."""

    #: First number.
    from_: int = field('I', at=0, default=0)


@dataclass(slots=True)
class QueryExposures(Message, kind=0x7d, size=8, group='Forecasts and policies: requests, queries, a report, rows'):
    """Asks for `ExposureRow`s of an experiment, by place. For who sees everything; to others
    there are none.
    """

    #: First place.
    from_: int = field('I', at=0, default=0)
    #: Its number.
    experiment: int = field('I', at=4, default=0)


@dataclass(slots=True)
class ExperimentRow(Message, kind=0xec, size=172, group='Forecasts and policies: requests, queries, a report, rows'):
    """An experiment. Of each pair the first is arm A's, the second arm B's."""

    #: When it began, milliseconds since 1970 UTC.
    started_at_ms: int = field('Q', at=0, default=0)
    #: When it is over, or ended, milliseconds since 1970 UTC.
    ends_at_ms: int = field('Q', at=8, default=0)
    #: Chooses who is in which arm.
    salt: int = field('Q', at=16, default=0)
    #: How much worse B may be, thousandths of the measure's unit.
    harm_milli: int = field('Q', at=24, default=0)
    #: Values that were told.
    values: tuple = field('2Q', at=32, default=(0,) * 2)
    #: Mean of the instances' means, thousandths of the measure's unit.
    mean_milli: tuple = field('2Q', at=48, default=(0,) * 2)
    #: The mean of B less that of A, thousandths, signed.
    effect_milli: int = field('Q', at=64, default=0)
    #: Where its 95% interval begins, thousandths, signed.
    low_milli: int = field('Q', at=72, default=0)
    #: Where that ends, thousandths, signed.
    high_milli: int = field('Q', at=80, default=0)
    #: Instances that were measured: the sample.
    sample: tuple = field('2I', at=88, default=(0,) * 2)
    #: Instances that follow an arm now.
    exposed: tuple = field('2I', at=96, default=(0,) * 2)
    #: Micro-units an hour of the policies, 0 of no policy; of both 0: swaps are compared.
    budget_micro: tuple = field('2Q', at=104, default=(0,) * 2)
    #: Number.
    experiment: int = field('I', at=120, default=0)
    #: Only instances of this account; `ANY`: of every account.
    account: int = field('I', at=124, default=0)
    #: Only those of this tier; all bits set: of every tier.
    tier: int = field('H', at=128, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=130, default=0, code=Resource)
    #: A `Kpi` or `MEASURE_COST`.
    measure: Kpi | int = field('B', at=131, default=0, code=Kpi)
    #: 1: more of it is better; 0: less.
    more_is_better: int = field('B', at=132, default=0)
    #: A `ExperimentEnd`.
    end: ExperimentEnd | int = field('B', at=133, default=0, code=ExperimentEnd)
    #: 1: there is an interval; 0: fewer than four instances of an arm were measured.
    has_interval: int = field('B', at=134, default=0)
    #: How often was looked for harm.
    looks: int = field('B', at=135, default=0)
    #: As of `StartExperiment`.
    risk_percent: str = field('2s', at=136, default="")
    #: As of `StartExperiment`.
    cover: str = field('2s', at=138, default="")
    #: What it is called.
    name: str = field('32s', at=140, default="")


@dataclass(slots=True)
class ExposureRow(Message, kind=0xed, size=32, group='Forecasts and policies: requests, queries, a report, rows'):
    """An instance that takes part in an experiment."""

    #: Since when, milliseconds since 1970 UTC.
    since_ms: int = field('Q', at=0, default=0)
    #: Values that were told.
    values: int = field('Q', at=8, default=0)
    #: Their mean, thousandths of the measure's unit; all bits set: there is none yet.
    mean_milli: int = field('Q', at=16, default=0)
    #: Instance number.
    instance: int = field('I', at=24, default=0)
    #: 0: A; 1: B.
    arm: int = field('B', at=28, default=0)
    #: 1: its policy was changed meanwhile, and it takes part no more.
    left: int = field('B', at=29, default=0)


@dataclass(slots=True)
class QueryReport(Message, kind=0x5b, size=16, group='Reports over a period'):
    """What happened in the next journal records, summed by step: `ReportFlowRow`,
    `ReportSampleRow` and `ReportTaskRow`s.
    """

    #: First sequence number wanted, 1 or more.
    from_: int = field('Q', at=0, default=0)
    #: At most this many journal records are read.
    limit: int = field('I', at=8, default=0)
    #: Seconds of a step, 1 or more; steps begin at multiples of that since 1970 UTC.
    step_s: int = field('H', at=12, default=0)


@dataclass(slots=True)
class QueryMoment(Message, kind=0x5f, size=8, group='Reports over a period'):
    """Where in the journal a time is: no row, and `QueryEnd.next` is the first durable record
    of that time or later, or the next one there will be.
    """

    #: Nanoseconds since 1970 UTC.
    time_ns: int = field('Q', at=0, default=0)


@dataclass(slots=True)
class ReportFlowRow(Message, kind=0xdb, size=176, group='Reports over a period'):
    """What an account or one of its instances paid, earned and used in a step. Amounts may be
    negative, two's complement, where a trade of before was reversed.
    """

    #: When the step begins, nanoseconds since 1970 UTC.
    step_ns: int = field('Q', at=0, default=0)
    #: Funds deposited, micro-units.
    deposited_micro: int = field('Q', at=8, default=0)
    #: Funds withdrawn.
    withdrawn_micro: int = field('Q', at=16, default=0)
    #: Earned by trades, without fees.
    sold_micro: int = field('Q', at=24, default=0)
    #: Paid for trades, without fees.
    bought_micro: int = field('Q', at=32, default=0)
    #: Paid for fees of trades.
    fee_micro: int = field('Q', at=40, default=0)
    #: Paid for leases.
    rent_paid_micro: int = field('Q', at=48, default=0)
    #: Paid for lent VRUs: their part of the rents of their book.
    rent_earned_micro: int = field('Q', at=56, default=0)
    #: Paid for tasks' VRUs. The account is who pays; the instance where they ran.
    task_cost_micro: int = field('Q', at=64, default=0)
    #: Earned by tasks' VRUs, by the group's account.
    task_revenue_micro: int = field('Q', at=72, default=0)
    #: Credits sold.
    sold_credits: int = field('Q', at=80, default=0)
    #: Credits bought.
    bought_credits: int = field('Q', at=88, default=0)
    #: VRU-milliseconds leased.
    leased_vru_ms: int = field('Q', at=104, default=0)
    #: VRU-milliseconds lent.
    lent_vru_ms: int = field('Q', at=112, default=0)
    #: VRU-milliseconds used, as the host measured.
    used_vru_ms: int = field('Q', at=120, default=0)
    #: Account.
    account: int = field('I', at=128, default=0)
    #: Instance; `ANY` for what concerns none.
    instance: int = field('I', at=132, default=0)
    #: Book of its tier and resource; `ANY_BOOK` for what concerns none.
    book: int = field('H', at=136, default=0)
    #: The instance's name then.
    name: str = field('32s', at=144, default="")


@dataclass(slots=True)
class ReportSampleRow(Message, kind=0xdc, size=136, group='Reports over a period'):
    """A book, or a resource of a group, in a step."""

    #: When the step begins, nanoseconds since 1970 UTC.
    step_ns: int = field('Q', at=0, default=0)
    #: Up to when it is summed.
    until_ns: int = field('Q', at=8, default=0)
    #: First price: ticks, of trades; of a group micro-units a second, of its cheapest next VRU.
    #: 0: none.
    open: int = field('Q', at=16, default=0)
    #: Highest price.
    high: int = field('Q', at=24, default=0)
    #: Lowest price.
    low: int = field('Q', at=32, default=0)
    #: Last price.
    close: int = field('Q', at=40, default=0)
    #: Trades; of a group 0.
    trades: int = field('Q', at=48, default=0)
    #: Credits traded; of a group 0.
    volume_credits: int = field('Q', at=56, default=0)
    #: What was paid for them, without fees; of a group, what its tasks paid.
    notional_micro: int = field('Q', at=64, default=0)
    #: VRU-milliseconds there were; of a group, those of its active instances.
    capacity_vru_ms: int = field('Q', at=72, default=0)
    #: VRU-milliseconds leased; of a group, those that tasks had.
    granted_vru_ms: int = field('Q', at=88, default=0)
    #: VRU-milliseconds lent; of a group 0.
    lent_vru_ms: int = field('Q', at=96, default=0)
    #: VRU-milliseconds used, as the host measured; of a group, as tasks said.
    used_vru_ms: int = field('Q', at=104, default=0)
    #: Rent of each class at the end, ticks a VRU-second; of a group 0.
    rent_ticks: tuple = field('3I', at=112, default=(0,) * 3)
    #: Book; `ANY_BOOK` for a group's.
    book: int = field('H', at=124, default=0)
    #: Group; 65,535 for a book's.
    group: int = field('H', at=126, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=128, default=0, code=Resource)


@dataclass(slots=True)
class ReportTaskRow(Message, kind=0xdd, size=176, group='Reports over a period'):
    """A task in a step."""

    #: When the step begins, nanoseconds since 1970 UTC.
    step_ns: int = field('Q', at=0, default=0)
    #: Tasks submitted before it: its own number.
    number: int = field('Q', at=8, default=0)
    #: Handle.
    handle: int = field('Q', at=16, default=0)
    #: When it was submitted.
    submitted_ns: int = field('Q', at=24, default=0)
    #: When it ended; 0 if it goes on.
    ended_ns: int = field('Q', at=32, default=0)
    #: Micro-units bid.
    bid_micro: int = field('Q', at=40, default=0)
    #: Micro-units it cost in this step.
    paid_micro: int = field('Q', at=48, default=0)
    #: Micro-units a second that its VRUs cost last.
    rate_micro: int = field('Q', at=56, default=0)
    #: Its margin then, micro-units a second, rounded down, two's complement.
    margin_micro: int = field('Q', at=64, default=0)
    #: VRU-milliseconds it had.
    granted_vru_ms: int = field('Q', at=72, default=0)
    #: Those of them for which it had said what it uses.
    reported_vru_ms: int = field('Q', at=80, default=0)
    #: VRU-milliseconds of those that it used, as it said.
    used_vru_ms: int = field('Q', at=88, default=0)
    #: Milliseconds for which it used less than a quarter of what it had.
    inefficient_ms: int = field('Q', at=96, default=0)
    #: Micro-units it cost while it did.
    inefficient_micro: int = field('Q', at=104, default=0)
    #: Expected to take so long, milliseconds.
    duration_ms: int = field('I', at=112, default=0)
    #: VRUs it had last.
    vru: int = field('I', at=116, default=0)
    #: VRUs it can use at most.
    vru_max: int = field('I', at=120, default=0)
    #: Account that pays.
    account: int = field('I', at=124, default=0)
    #: Instance it ran in last; `ANY` if it never ran.
    instance: int = field('I', at=128, default=0)
    #: Group.
    group: int = field('H', at=132, default=0)
    #: Thousandths of its work done, as it said last.
    progress_permille: int = field('H', at=134, default=0)
    #: A `Resource`.
    resource: Resource | int = field('B', at=136, default=0, code=Resource)
    #: A `TaskEnd`; 255 if it goes on.
    reason: TaskEnd | int = field('B', at=137, default=0, code=TaskEnd)
    #: What it is called.
    name: str = field('32s', at=144, default="")
