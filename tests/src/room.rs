//! A room to drive the real machine in: encodes requests as their bytes, parses them as the
//! daemon does, applies them in order and hands back what was said.

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{
    CloseSession, Command, DefineBook, Envelope, Genesis, OpenSession, Tick, Usage,
};
use vendue_engine::machine::event::{Event, Outbox};
use vendue_wire::code::{RESOURCES, Reject, Role, Side};
use vendue_wire::message::{
    ANY, Accepted, AccountRow, Body, CreateAccount, CreateInstance, Deposit, Done, GrantCredits,
    InstanceRow, NewOrder, QueryAccounts, QueryInstances, Rejected, SetForecast, U32, field_cut,
};

/// Connection that query answers go to.
const CONNECTION: u32 = 7;

/// Bounds of a small house without fees, which looks for no swaps.
pub fn small_genesis() -> Genesis {
    Genesis {
        accounts_max: 4.into(),
        instances_max: 8.into(),
        orders_max: 64.into(),
        orders_per_instance_max: 16.into(),
        sessions_max: 8.into(),
        credit_cap_s: 3600.into(),
        burst_resume_ms: 1000.into(),
        limit_window_s: 3600.into(),
        reversible_trades: 64.into(),
        leases_max: 64.into(),
        swap_every_ms: 0.into(),
        lease_margin_percent: 5.into(),
        maker_fee_bps: 0.into(),
        taker_fee_bps: 0.into(),
    }
}

/// A book of a hundred VRUs of processors in a house's first tier, traded continuously.
pub fn small_book() -> DefineBook {
    DefineBook {
        vru_size: 10.into(),
        capacity_vru: 100.into(),
        tick_micro: 1.into(),
        price_ticks_max: 100.into(),
        quantity_max: 1000.into(),
        burst_percent: 100.into(),
        name: field_cut("tier"),
        ..DefineBook::zeroed()
    }
}

/// A machine, its outbox, and the sequencer's two numbers.
pub struct Room {
    /// The machine.
    pub machine: Machine,
    /// What the last command said.
    pub out: Outbox,
    /// Now, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    sequence: u64,
    requests: u64,
}

impl Room {
    /// When time starts in it: the machine's house.
    pub const BEGINS_NS: u64 = 1_000_000_000;

    /// A room with these books. Time starts at one second.
    ///
    /// # Panics
    /// If the bounds are refused.
    pub fn new(genesis: &Genesis, books: &[DefineBook]) -> Room {
        Room::begun(genesis, books, Room::BEGINS_NS)
    }

    /// One whose time starts then, nanoseconds since 1970 UTC.
    ///
    /// # Panics
    /// If the bounds are refused.
    pub fn begun(genesis: &Genesis, books: &[DefineBook], time_ns: u64) -> Room {
        let machine = Machine::new(genesis).unwrap_or_else(|error| panic!("{error}"));
        let out = machine.outbox();
        let mut room = Room { machine, out, time_ns, sequence: 0, requests: 0 };
        room.daemon(genesis);
        books.iter().for_each(|book| room.daemon(book));
        room
    }

    /// Says what an instance will need for so long from now on: quantiles 50, 90 and 97.5, VRUs.
    ///
    /// # Panics
    /// If that is refused.
    pub fn forecast(&mut self, session: u32, instance: u32, lasts_ms: u32, vru: [u32; 3]) {
        let m = SetForecast {
            client_id: self.next_id(),
            instance: instance.into(),
            lasts_ms: lasts_ms.into(),
            p50_vru: vru[0].into(),
            p90_vru: vru[1].into(),
            p975_vru: vru[2].into(),
            ..SetForecast::zeroed()
        };
        self.apply(session, &m);
        assert_eq!(self.refusal(), None);
    }

    /// The same room after a crash: another machine, from the state that was stored.
    ///
    /// # Panics
    /// If the state is refused or comes back as another.
    pub fn recovered(&self) -> Room {
        let stored = self.machine.encode();
        let machine = Machine::decode(&stored).unwrap_or_else(|why| panic!("{why}"));
        assert!(machine.encode() == stored, "the state comes back as another");
        let out = machine.outbox();
        let Room { time_ns, sequence, requests, .. } = *self;
        Room { machine, out, time_ns, sequence, requests }
    }

    /// The envelope of the next command of `session`.
    pub fn envelope(&mut self, session: u32) -> Envelope {
        self.sequence += 1;
        self.requests += u64::from(session != ANY);
        let request = if session == ANY { 0 } else { self.requests };
        let connection = CONNECTION;
        Envelope { sequence: self.sequence, time_ns: self.time_ns, request, session, connection }
    }

    /// Parses and applies a message; its events are in `out`.
    ///
    /// # Panics
    /// If the message does not parse, or the machine calls itself broken.
    pub fn apply<M: Body>(&mut self, session: u32, body: &M) -> Envelope {
        let env = self.envelope(session);
        let command = Command::parse(M::KIND, body.as_bytes());
        let command = command.unwrap_or_else(|why| panic!("{}: {why}", M::NAME));
        self.out.clear();
        self.machine.apply(&env, &command, &mut self.out).unwrap_or_else(|why| panic!("{why}"));
        env
    }

    /// Applies one of the daemon's own commands.
    pub fn daemon<M: Body>(&mut self, body: &M) {
        self.apply(ANY, body);
    }

    /// Every `M` that the last command said, with its target.
    pub fn said<M: Body>(&self) -> Vec<(u32, M)> {
        let read = |event: Event<'_>| event.read::<M>().map(|body| (event.target, *body));
        self.out.events().filter_map(read).collect()
    }

    /// The only `M` that the last command said.
    ///
    /// # Panics
    /// If there was none, or more than one.
    pub fn one<M: Body>(&self) -> M {
        match self.said::<M>().as_slice() {
            [(_, only)] => *only,
            many => panic!("{} of {}", many.len(), M::NAME),
        }
    }

    /// Why the last command was refused, if it was.
    pub fn refusal(&self) -> Option<Reject> {
        self.said::<Rejected>().first().and_then(|(_, row)| Reject::from_u8(row.code))
    }

    /// The handle that the last command gave out, if any.
    pub fn handle(&self) -> Option<u64> {
        self.said::<Accepted>().first().map(|(_, row)| row.handle.get())
    }

    /// What a carried-out administrative request answered.
    pub fn value(&self) -> u64 {
        self.one::<Done>().value.get()
    }

    /// Opens a session and returns its slot.
    pub fn open(
        &mut self,
        number: u64,
        role: Role,
        account: u32,
        cancel_on_disconnect: bool,
    ) -> u32 {
        let mut message = OpenSession::zeroed();
        message.session = number.into();
        message.account = account.into();
        message.instance = ANY.into();
        message.role = role as u8;
        message.cancel_on_disconnect = cancel_on_disconnect.into();
        self.daemon(&message);
        let target = self.out.events().next().map(|event| event.target);
        target.unwrap_or_else(|| panic!("session {number} was not answered"))
    }

    /// Ends a session's connection.
    pub fn close(&mut self, slot: u32) {
        self.daemon(&CloseSession { slot: slot.into() });
    }

    /// Lets time pass and ticks.
    pub fn tick(&mut self, milliseconds: u64) {
        self.time_ns += milliseconds * 1_000_000;
        self.daemon(&Tick::zeroed());
    }

    /// Reports measured use of a resource.
    pub fn use_credits(&mut self, instance: u32, resource: u8, millicredits: u64) {
        let mut message = Usage::zeroed();
        message.used_millicredits = millicredits.into();
        message.instance = instance.into();
        message.resource = resource;
        self.daemon(&message);
    }

    /// Creates an account of a group that trades with every group in the masks.
    pub fn account(&mut self, operator: u32, name: &str, group: u8, masks: (u64, u64)) -> u32 {
        let mut message = CreateAccount::zeroed();
        message.client_id = self.next_id();
        message.sells_to = masks.0.into();
        message.buys_from = masks.1.into();
        message.name = field_cut(name);
        message.group = group;
        self.apply(operator, &message);
        self.value() as u32
    }

    /// Pays funds into an account.
    pub fn deposit(&mut self, operator: u32, account: u32, amount_micro: u64) {
        let mut message = Deposit::zeroed();
        message.client_id = self.next_id();
        message.account = account.into();
        message.amount_micro = amount_micro.into();
        self.apply(operator, &message);
    }

    /// Creates an instance in tier 0; its number is in [`Room::value`] unless it was refused.
    pub fn instance(&mut self, operator: u32, account: u32, name: &str, vru: [u32; RESOURCES]) {
        let mut message = CreateInstance::zeroed();
        message.client_id = self.next_id();
        message.account = account.into();
        message.baseline_vru = vru.map(U32::new);
        message.name = field_cut(name);
        self.apply(operator, &message);
    }

    /// Grants processor credits.
    pub fn grant(&mut self, operator: u32, instance: u32, millicredits: u64) {
        let mut message = GrantCredits::zeroed();
        message.client_id = self.next_id();
        message.instance = instance.into();
        message.amount_millicredits = millicredits.into();
        self.apply(operator, &message);
    }

    /// A client id that no session has used.
    pub fn next_id(&self) -> vendue_wire::message::U64 {
        (self.sequence + 1).into()
    }

    /// A limit order for the first book, good till cancelled.
    pub fn order(&self, instance: u32, side: Side, price: u32, quantity: u32) -> NewOrder {
        NewOrder {
            client_id: self.next_id(),
            instance: instance.into(),
            price_ticks: price.into(),
            quantity: quantity.into(),
            side: side as u8,
            ..NewOrder::zeroed()
        }
    }

    /// An account as a query shows it.
    pub fn account_row(&mut self, account: u32) -> AccountRow {
        self.apply(0, &QueryAccounts { from: account.into() });
        self.said::<AccountRow>()[0].1
    }

    /// An instance as a query shows it.
    pub fn instance_row(&mut self, instance: u32) -> InstanceRow {
        self.apply(0, &QueryInstances { from: instance.into() });
        self.said::<InstanceRow>()[0].1
    }
}
