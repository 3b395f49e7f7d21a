//! A client as the protocol asks for: it sends requests, remembers what it was told, and after a
//! cut logs on again, has its reports replayed and sends again what never happened. It checks
//! what it is told on the way.

use crate::chance::Chance;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use vendue_wire::code::{Goodbye, Reject, Resource, Role};
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode, encode_raw};
use vendue_wire::message::*;
use zerocopy::FromBytes;

/// Requests that may be under way at once.
const WINDOW: usize = 8;
/// Accounts that operators make; each gets an instance of the same number.
pub const ACCOUNTS: u32 = 3;

/// A connection: bytes on their way in both directions.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    pub(super) out: VecDeque<u8>,
    pub(super) inbound: Vec<u8>,
    /// Bytes that have arrived at the client and hold no whole frame yet.
    arrived: Vec<u8>,
    pub(super) ended: bool,
}

/// How far the session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No connection.
    Down,
    /// The logon is on its way.
    Opening,
    /// Logged on, reports are being replayed.
    Replaying,
    /// Open.
    Open,
}

/// A request: made once, sent until it is known to have happened.
#[derive(Clone, Debug)]
struct Request {
    kind: u8,
    client_id: u64,
    body: Vec<u8>,
    /// Its number in the session, once sent on this connection.
    number: u64,
}

/// A client.
#[derive(Debug)]
pub struct Peer {
    /// The session's own number.
    pub number: u64,
    role: Role,
    account: u32,
    cancel_on_disconnect: bool,
    chance: Chance,
    link: Option<Link>,
    /// Former connections that still have bytes on their way.
    former: Vec<Link>,
    /// How far the session is.
    pub stage: Stage,
    next_number: u64,
    last_client_id: u64,
    /// Highest executed request, as the last logon said.
    last_request: u64,
    waiting: VecDeque<Request>,
    /// Every report so far, in order, as its frame's bytes.
    pub reports: Vec<Vec<u8>>,
    /// Bodies of every request with an id.
    pub made: BTreeMap<u64, (u8, Vec<u8>)>,
    /// Ids that were carried out, as reported.
    carried_out: BTreeSet<u64>,
    /// Ids of requests that never happened, as the daemon said.
    never: BTreeSet<u64>,
    handles: Vec<u64>,
    accounts: u32,
    instances: u32,
    /// Funds paid in less those paid out, as reported.
    pub funds_micro: i128,
}

impl Peer {
    /// The client of that number; the first is an operator, the others trade.
    pub fn new(number: u64, mut chance: Chance) -> Peer {
        let operator = number == 1;
        let cancel_on_disconnect = !operator && chance.below(3) == 0;
        Peer {
            number,
            role: if operator { Role::Operator } else { Role::Tenant },
            account: if operator { ANY } else { (number as u32 - 2) % ACCOUNTS },
            cancel_on_disconnect,
            chance,
            link: None,
            former: Vec::new(),
            stage: Stage::Down,
            next_number: 0,
            last_client_id: 0,
            last_request: 0,
            waiting: VecDeque::new(),
            reports: Vec::new(),
            made: BTreeMap::new(),
            carried_out: BTreeSet::new(),
            never: BTreeSet::new(),
            handles: Vec::new(),
            accounts: 0,
            instances: 0,
            funds_micro: 0,
        }
    }

    /// Whether nothing is under way.
    pub fn is_settled(&self) -> bool {
        self.stage == Stage::Open && self.waiting.is_empty() && self.former.is_empty()
    }

    /// Connects and sends the logon; nothing if the daemon does not listen.
    pub fn connect(&mut self, socket: &Path) {
        let Some(link) = Link::connect(socket) else { return };
        self.link = Some(link);
        self.stage = Stage::Opening;
        let mut logon = Logon::zeroed();
        logon.session = self.number.into();
        logon.replay_from = (self.reports.len() as u64 + 1).into();
        logon.account = self.account.into();
        logon.instance = ANY.into();
        logon.heartbeat_ms = 1000.into();
        logon.role = self.role as u8;
        logon.cancel_on_disconnect = self.cancel_on_disconnect.into();
        self.send(0, &logon);
    }

    /// Cuts the connection. What is on its way is lost, or still arrives later.
    pub fn cut(&mut self) {
        self.stage = Stage::Down;
        if let Some(link) = self.link.take()
            && self.chance.below(2) == 0
            && !link.out.is_empty()
        {
            self.former.push(link);
        }
    }

    fn send<M: Body>(&mut self, number: u64, message: &M) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode(number, message, &mut bytes);
        if let Some(link) = &mut self.link {
            link.out.extend(&bytes[..length]);
        }
    }

    /// Lets some bytes arrive, of this connection or of a former one.
    ///
    /// # Errors
    /// What it is told contradicts what it was told.
    pub fn carry(&mut self, all: bool) -> Result<bool, String> {
        let mut moved = false;
        for link in &mut self.former {
            moved |= link.carry_out(&mut self.chance, all);
        }
        self.former.retain(|link| !link.out.is_empty() && !link.ended);
        let Some(mut link) = self.link.take() else { return Ok(moved) };
        moved |= link.carry_out(&mut self.chance, all);
        moved |= link.carry_in(&mut self.chance, all);
        let frames = link.frames();
        let over = link.ended && link.inbound.is_empty();
        self.link = Some(link);
        for frame in frames? {
            moved = true;
            self.hear(&frame)?;
        }
        if over {
            self.link = None;
            self.stage = Stage::Down;
        }
        Ok(moved)
    }

    // ---- what it says ----------------------------------------------------------------------

    /// Whether it has made this request: requests without an id are any it could make.
    pub fn has_made(&self, kind: u8, body: &[u8]) -> bool {
        if kind == Cancel::KIND || kind == MassCancel::KIND {
            return true;
        }
        let id = body.first_chunk().map(|id| u64::from_le_bytes(*id));
        id.and_then(|id| self.made.get(&id)).is_some_and(|(of, made)| *of == kind && made == body)
    }

    /// Whether there are accounts to trade for.
    pub fn has_set_up(&self) -> bool {
        self.role != Role::Operator || self.accounts >= ACCOUNTS
    }

    /// Sends something, if it may.
    pub fn act(&mut self, fresh: bool) {
        if self.stage != Stage::Open {
            return;
        }
        // What never happened is sent again before anything new.
        if let Some(at) = self.waiting.iter().position(|request| request.number == 0) {
            let number = self.next_number;
            self.next_number += 1;
            let request = &mut self.waiting[at];
            request.number = number;
            let (kind, body) = (request.kind, request.body.clone());
            self.send_raw(kind, number, &body);
        } else if fresh && self.chance.below(12) == 0 {
            self.ask();
        } else if fresh && self.waiting.len() < WINDOW {
            self.request();
        }
    }

    /// Says that it lives.
    pub fn beat(&mut self) {
        if matches!(self.stage, Stage::Open | Stage::Replaying) {
            let number = self.next_number;
            self.next_number += 1;
            self.send(number, &Heartbeat {});
        }
    }

    fn send_raw(&mut self, kind: u8, number: u64, body: &[u8]) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = encode_raw(kind, number, body, &mut bytes);
        if let Some(link) = &mut self.link {
            link.out.extend(&bytes[..length]);
        }
    }

    /// A question.
    fn ask(&mut self) {
        let number = self.next_number;
        self.next_number += 1;
        match self.chance.below(6) {
            0 => self.send(number, &QueryAccounts { from: 0.into() }),
            1 => self.send(number, &QueryStatus {}),
            2 => self.send(number, &QueryLedger {}),
            3 => self.send(number, &QueryLimits { from: 0.into() }),
            4 => {
                let from = self.chance.below(200).into();
                let audit = QueryAudit { from, limit: 50.into(), reserved: 0.into() };
                self.send(number, &audit);
            }
            _ => {
                let from = (self.reports.len() as u64 + 1).into();
                self.send(number, &Replay { from });
            }
        }
    }

    fn wait_for<M: Body>(&mut self, client_id: u64, message: &M) {
        let number = self.next_number;
        self.next_number += 1;
        let body = message.as_bytes().to_vec();
        if client_id != 0 {
            self.made.insert(client_id, (M::KIND, body.clone()));
        }
        self.send_raw(M::KIND, number, &body);
        self.waiting.push_back(Request { kind: M::KIND, client_id, body, number });
    }

    fn request(&mut self) {
        let id = self.last_client_id + 1 + self.chance.below(2);
        let uses_id =
            if self.role == Role::Operator { self.administer(id) } else { self.trade(id) };
        if uses_id {
            self.last_client_id = id;
        }
    }

    fn administer(&mut self, id: u64) -> bool {
        let asked = |kind: u8| self.waiting.iter().filter(|request| request.kind == kind).count();
        if self.accounts + (asked(CreateAccount::KIND) as u32) < ACCOUNTS {
            let mut account = CreateAccount::zeroed();
            account.client_id = id.into();
            (account.sells_to, account.buys_from) = (u64::MAX.into(), u64::MAX.into());
            account.name = field_cut(&format!("account {id}"));
            self.wait_for(id, &account);
            return true;
        }
        let asked_for = self.instances + asked(CreateInstance::KIND) as u32;
        let whose = self.chance.below(u64::from(ACCOUNTS)) as u32;
        let amount = 1 + self.chance.below(50_000);
        match self.chance.below(13) {
            _ if asked_for < ACCOUNTS => {
                let account = asked_for;
                self.create_instance(id, account);
            }
            0 => self.create_instance(id, whose),
            1 => {
                let (client_id, instance) = (id.into(), (whose + ACCOUNTS).into());
                self.wait_for(id, &RemoveInstance { client_id, instance, reserved: 0.into() });
            }
            2..6 => {
                let (client_id, amount_micro, account) = (id.into(), amount.into(), whose.into());
                let deposit = Deposit { client_id, amount_micro, account, reserved: 0.into() };
                self.wait_for(id, &deposit);
            }
            7 => {
                let mut phase = SetPhase::zeroed();
                phase.client_id = id.into();
                phase.phase = [3, 3, 0, 1, 2][self.chance.below(5) as usize];
                self.wait_for(id, &phase);
            }
            8 => {
                let mut swap = SwapTiers::zeroed();
                let to = self.chance.below(2) as u16;
                (swap.client_id, swap.from, swap.to) = (id.into(), (1 - to).into(), to.into());
                swap.vru = (self.chance.below(4) as u32).into();
                self.wait_for(id, &swap);
            }
            11 => self.limit(id, whose),
            12 => {
                let (client_id, trade) = (id.into(), self.chance.below(24).into());
                self.wait_for(id, &ReverseTrade { client_id, trade });
            }
            6 => {
                let (client_id, amount_micro, account) = (id.into(), amount.into(), whose.into());
                let withdraw = Withdraw { client_id, amount_micro, account, reserved: 0.into() };
                self.wait_for(id, &withdraw);
            }
            _ => {
                let grant = GrantCredits {
                    client_id: id.into(),
                    amount_millicredits: (amount * 10).into(),
                    instance: whose.into(),
                    resource: Resource::Cpu as u8,
                    reserved: [0; 3],
                };
                self.wait_for(id, &grant);
            }
        }
        true
    }

    /// Mostly takes an account's limits away, so that there is trade.
    fn limit(&mut self, id: u64, account: u32) {
        let limited = self.chance.below(3) == 0;
        let mut most = || if limited { self.chance.below(400) } else { UNLIMITED };
        let limits = SetLimits {
            client_id: id.into(),
            sells_to: u64::MAX.into(),
            buys_from: u64::MAX.into(),
            sell_max_credits: most().into(),
            buy_max_credits: most().into(),
            order_max_micro: UNLIMITED.into(),
            position_max_credits: UNLIMITED.into(),
            account: account.into(),
            group: 0,
            opted_in: 1,
            reserved: [0; 2],
        };
        self.wait_for(id, &limits);
    }

    fn create_instance(&mut self, id: u64, account: u32) {
        let mut instance = CreateInstance::zeroed();
        instance.client_id = id.into();
        instance.account = account.into();
        instance.baseline_vru[0] = 5.into();
        instance.name = field_cut(&format!("instance {id}"));
        self.wait_for(id, &instance);
    }

    fn trade(&mut self, id: u64) -> bool {
        let some_handle = match self.handles.len() {
            0 => 77,
            many => self.handles[self.chance.below(many as u64) as usize],
        };
        match self.chance.below(20) {
            0..2 => {
                self.wait_for(0, &Cancel { handle: some_handle.into() });
                return false;
            }
            2 => {
                let mut all = MassCancel::zeroed();
                (all.instance, all.book, all.side) = (ANY.into(), ANY_BOOK.into(), 2);
                self.wait_for(0, &all);
                return false;
            }
            3..5 => {
                let replace = Replace {
                    client_id: id.into(),
                    handle: some_handle.into(),
                    price_ticks: (1 + self.chance.below(20) as u32).into(),
                    quantity: (1 + self.chance.below(30) as u32).into(),
                };
                self.wait_for(id, &replace);
            }
            _ => {
                let mut order = NewOrder::zeroed();
                order.client_id = id.into();
                order.instance = self.account.into();
                order.price_ticks = (1 + self.chance.below(20) as u32).into();
                order.quantity = (1 + self.chance.below(30) as u32).into();
                order.side = self.chance.below(2) as u8;
                order.time_in_force = [0, 0, 0, 2, 3][self.chance.below(5) as usize];
                self.wait_for(id, &order);
            }
        }
        true
    }

    // ---- what it hears ---------------------------------------------------------------------

    fn hear(&mut self, bytes: &[u8]) -> Result<(), String> {
        let frame = Frame::parse(bytes).map_err(|error| error.to_string())?;
        let Some(frame) = frame else { return Err("half a frame".to_owned()) };
        if frame.header.sequence.get() > 0 {
            return self.report(&frame, bytes);
        }
        if let Some(ack) = frame.message::<LogonAck>() {
            self.logged_on(ack)
        } else if let Some(refused) = frame.message::<Refused>() {
            self.refused(refused)
        } else if frame.message::<ReplayEnd>().is_some() {
            self.replayed()
        } else if let Some(farewell) = frame.message::<Farewell>() {
            match Goodbye::from_u8(farewell.reason) {
                Some(Goodbye::BadFrame | Goodbye::BadVersion | Goodbye::SequenceGap) => {
                    Err(format!("peer {}: farewell {:?}", self.number, farewell.reason))
                }
                _ => Ok(()),
            }
        } else {
            Ok(())
        }
    }

    fn logged_on(&mut self, ack: &LogonAck) -> Result<(), String> {
        let told = self.reports.len() as u64;
        let next = ack.next_sequence.get();
        let executed = ack.last_request.get();
        let who = self.number;
        if next <= told {
            return Err(format!("peer {who}: {told} reports were told, next is said to be {next}"));
        }
        if executed < self.last_request {
            let before = self.last_request;
            return Err(format!("peer {who}: request {before} was executed, now only {executed}"));
        }
        self.last_request = executed;
        self.last_client_id = self.last_client_id.max(ack.last_client_id.get());
        self.next_number = executed + 1;
        self.stage = Stage::Replaying;
        // What was not executed never happened. Some of it is sent again, with its id, in order;
        // from the first that is given up on, nothing is.
        let mut gives_up = false;
        let mut kept = VecDeque::new();
        for mut request in std::mem::take(&mut self.waiting) {
            if request.number == 0 || request.number > executed {
                gives_up |= self.chance.below(8) == 0;
                request.number = 0;
                if gives_up {
                    self.gone(request.client_id);
                    continue;
                }
            }
            kept.push_back(request);
        }
        self.waiting = kept;
        Ok(())
    }

    fn gone(&mut self, client_id: u64) {
        if client_id != 0 {
            self.never.insert(client_id);
        }
    }

    /// Everything executed has been told: a request that was not reported by now was refused, and
    /// that word was lost.
    fn replayed(&mut self) -> Result<(), String> {
        if self.stage != Stage::Replaying {
            return Ok(());
        }
        self.stage = Stage::Open;
        let executed = self.last_request;
        for request in std::mem::take(&mut self.waiting) {
            if request.number != 0 && request.number <= executed {
                self.gone(request.client_id);
            } else {
                self.waiting.push_back(request);
            }
        }
        Ok(())
    }

    fn refused(&mut self, refused: &Refused) -> Result<(), String> {
        let code = Reject::from_u8(refused.code);
        match code {
            Some(Reject::Busy | Reject::Throttled | Reject::Draining | Reject::JournalStopped) => {}
            Some(Reject::UnknownAccount | Reject::NotPermitted) => {}
            code => return Err(format!("peer {}: refused with {code:?}", self.number)),
        }
        let number = refused.request.get();
        if number != 0
            && let Some(at) = self.waiting.iter().position(|request| request.number == number)
            && let Some(request) = self.waiting.remove(at)
        {
            self.gone(request.client_id);
        }
        Ok(())
    }

    /// A report: each is told once, or again with the same bytes.
    fn report(&mut self, frame: &Frame<'_>, bytes: &[u8]) -> Result<(), String> {
        let (sequence, who) = (frame.header.sequence.get(), self.number);
        let told = self.reports.len() as u64;
        if sequence <= told {
            let before = &self.reports[sequence as usize - 1];
            if before == bytes {
                return Ok(());
            }
            return Err(format!(
                "peer {who}: report {sequence} was {before:?}, now it is {bytes:?}"
            ));
        }
        if sequence > told + 1 {
            return Err(format!("peer {who}: report {sequence} follows {told}"));
        }
        self.reports.push(bytes.to_vec());
        let kind = frame.header.kind;
        match kind {
            Accepted::KIND => {
                let m = read::<Accepted>(frame)?;
                self.handles.push(m.handle.get());
                self.carried_out(m.request.get(), m.client_id.get())
            }
            Replaced::KIND => {
                let m = read::<Replaced>(frame)?;
                self.handles.push(m.handle.get());
                self.carried_out(m.request.get(), m.client_id.get())
            }
            Done::KIND => self.done(&read::<Done>(frame)?),
            Rejected::KIND => {
                let m = read::<Rejected>(frame)?;
                self.answered(m.request.get());
                Ok(())
            }
            Cancelled::KIND => {
                let m = read::<Cancelled>(frame)?;
                self.handles.retain(|&handle| handle != m.handle.get());
                self.answered(m.request.get());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn done(&mut self, done: &Done) -> Result<(), String> {
        let id = done.client_id.get();
        self.carried_out(done.request.get(), id)?;
        let Some((kind, body)) = self.made.get(&id) else { return Ok(()) };
        match *kind {
            CreateAccount::KIND => self.accounts += 1,
            CreateInstance::KIND => self.instances += 1,
            Deposit::KIND => {
                let m = Deposit::read_from_bytes(body).map_err(|_| "a deposit's body")?;
                self.funds_micro += i128::from(m.amount_micro.get());
            }
            Withdraw::KIND => {
                let m = Withdraw::read_from_bytes(body).map_err(|_| "a withdrawal's body")?;
                self.funds_micro -= i128::from(m.amount_micro.get());
            }
            _ => {}
        }
        Ok(())
    }

    fn answered(&mut self, number: u64) {
        if let Some(at) = self.waiting.iter().position(|request| request.number == number)
            && number != 0
        {
            self.waiting.remove(at);
        }
    }

    /// A request was carried out: once, and not after it was said that it never happened.
    fn carried_out(&mut self, number: u64, client_id: u64) -> Result<(), String> {
        let who = self.number;
        let asked = self.waiting.iter().find(|request| request.number == number);
        if let Some(asked) = asked
            && asked.client_id != client_id
        {
            let asked = asked.client_id;
            return Err(format!("peer {who}: request {number} has id {asked}, told {client_id}"));
        }
        self.answered(number);
        if client_id == 0 {
            return Ok(());
        }
        if !self.made.contains_key(&client_id) {
            return Err(format!("peer {who}: id {client_id} was never used"));
        }
        if self.never.contains(&client_id) {
            return Err(format!(
                "peer {who}: id {client_id} was carried out after it was said never to happen"
            ));
        }
        if !self.carried_out.insert(client_id) {
            return Err(format!("peer {who}: id {client_id} was carried out twice"));
        }
        Ok(())
    }
}

fn read<M: Body>(frame: &Frame<'_>) -> Result<M, String> {
    frame.message::<M>().copied().ok_or_else(|| format!("a {} of wrong length", M::NAME))
}

impl Link {
    /// A connection, if the daemon listens.
    pub(super) fn connect(socket: &Path) -> Option<Link> {
        let stream = UnixStream::connect(socket).ok()?;
        stream.set_nonblocking(true).ok()?;
        let (out, inbound, arrived) = (VecDeque::new(), Vec::new(), Vec::new());
        Some(Link { stream, out, inbound, arrived, ended: false })
    }

    /// Lets bytes arrive at the daemon: some, cut anywhere.
    pub(super) fn carry_out(&mut self, chance: &mut Chance, all: bool) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let count =
            if all { self.out.len() } else { chance.below(self.out.len() as u64) as usize + 1 };
        let bytes: Vec<u8> = self.out.drain(..count).collect();
        if self.stream.write_all(&bytes).is_err() {
            self.ended = true;
        }
        true
    }

    /// Lets bytes arrive at the client: some, cut anywhere.
    pub(super) fn carry_in(&mut self, chance: &mut Chance, all: bool) -> bool {
        let mut bytes = [0; 8192];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(count) => {
                    self.inbound.extend(&bytes[..count]);
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.ended = true,
            }
            break;
        }
        if self.inbound.is_empty() {
            return false;
        }
        let most = self.inbound.len();
        let count = if all { most } else { chance.below(most as u64) as usize + 1 };
        self.arrived.extend(self.inbound.drain(..count));
        true
    }

    /// The whole frames that have arrived.
    pub(super) fn frames(&mut self) -> Result<Vec<Vec<u8>>, String> {
        let mut frames = Vec::new();
        while let Some(frame) = Frame::parse(&self.arrived).map_err(|error| error.to_string())? {
            let length = frame.len();
            frames.push(self.arrived.drain(..length).collect());
        }
        Ok(frames)
    }
}
