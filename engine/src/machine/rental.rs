//! Rental books: who leases what, one for each book, and how a change of one bid is cleared.
//!
//! Every lease stands in two queues of its class at most: what it still wants *waits*, what it has is
//! *firm* for its hold and *loose* afterwards. A queue is a ladder of rents with a bitmap over its
//! levels ([`Ladder`]) and a list for each level, so that the first to be served and the first to give
//! way are found in a few steps, however many leases there are. What is served: while VRUs are free
//! the first in line gets them; then it takes them from the loose lease that is last, if it goes before
//! that by the margin. What is left over after a change is served again in the same way, so a change
//! costs as much as the leases that it moves.
//!
//! Bids for all or nothing that wait are few ([`WHOLE_MAX`]) and are looked at one after the other,
//! because one that does not fit is passed over. Whether it fits is a sum over rents: a Fenwick tree
//! (Fenwick, 1994) of what is loose.
//!
//! Rent is metered by an index for each class: micro-units that a VRU has cost since the beginning. A
//! lease owes its VRUs times what the index grew since it was looked at last.

use super::ladder::{Ladder, NONE};
use super::lending::Lending;
use vendue_wire::code::{LeaseOutcome, RESOURCES, Side};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Classes of leases.
pub const CLASSES: usize = vendue_wire::code::LeaseClass::ALL.len();
/// Leases for all or nothing in a class of a book at most.
pub const WHOLE_MAX: u32 = 64;

/// A list that leases are linked into.
#[derive(Clone, Copy)]
enum Chain {
    /// Those that wait at a level.
    Waiting = 0,
    /// Those that have VRUs at a level.
    Granted = 1,
    /// Those of an instance's resource, oldest first.
    Own = 2,
}

/// Where a lease's VRUs are.
pub const NOWHERE: u8 = 0;
/// No other lease takes them.
pub const FIRM: u8 = 1;
/// One that goes first may take them.
pub const LOOSE: u8 = 2;

/// A lease, or a free place for one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Lease {
    /// Its class's index when what it owes was reckoned last.
    pub from_index: u128,
    /// Micro-units x milliseconds / 1000 that it owes and has not paid: thousandths of micro-units.
    pub owed_milli: u128,
    /// Micro-units it has paid.
    pub paid_micro: u64,
    /// Micro-units held for it.
    pub held_micro: u64,
    /// The id that its bid carried.
    pub client_id: u64,
    /// Number of the session that bid.
    pub session: u64,
    /// Its own number, which no other has: leases in order of arrival.
    pub number: u64,
    /// Place in the queue it waits in, and in the one of those that have VRUs.
    pub ranks: [u64; 2],
    /// When it ends by itself, milliseconds; 0: it does not.
    pub expires_ms: u64,
    /// Until then it is firm, milliseconds.
    pub firm_until_ms: u64,
    /// When it pays next, milliseconds.
    pub pays_ms: u64,
    /// VRUs it wants.
    pub wanted: u32,
    /// VRUs it has.
    pub granted: u32,
    /// Milliseconds that it is firm.
    pub hold_ms: u32,
    /// Of the place: part of handles.
    pub generation: u32,
    /// Before and after it in each chain, as slots plus one; 0: none. Of a free place the first
    /// is the next free one.
    pub links: [[u32; 2]; 3],
    /// Slot of the session that bid.
    pub slot: u16,
    /// Instance.
    pub instance: u16,
    /// Book.
    pub book: u16,
    /// The most that it pays, ticks.
    pub rent: u16,
    /// 1 while there is a lease.
    pub live: u8,
    /// A [`vendue_wire::code::LeaseClass`].
    pub class: u8,
    /// 1: all or nothing.
    pub whole: u8,
    /// [`NOWHERE`], [`FIRM`] or [`LOOSE`].
    pub place: u8,
    /// The policy that bid, its slot plus one; 0: none.
    pub policy: u32,
    /// The objective that bids for it, its slot plus one; 0: none.
    pub objective: u32,
    /// 1: of another tier's block I/O: its instance's storage class.
    pub storage: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

impl Lease {
    /// VRUs it waits for.
    pub fn waits(&self) -> u32 {
        self.wanted - self.granted
    }

    /// When something falls due, milliseconds.
    fn due_ms(&self) -> u64 {
        let firm = if self.place == FIRM { self.firm_until_ms } else { u64::MAX };
        let pays = if self.granted > 0 { self.pays_ms } else { u64::MAX };
        let expires = if self.expires_ms > 0 { self.expires_ms } else { u64::MAX };
        firm.min(pays).min(expires)
    }
}

/// What an instance leases and lends of a resource.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Holding {
    /// [`Lending::earned`] when its loan was settled last.
    pub earned_from: u128,
    /// Thousandths of micro-units that its loan earned and that it was not paid.
    pub earned_milli: u128,
    /// [`Lending::used`] when its loan was settled last.
    pub used_from: u64,
    /// Milli-credits that it is not to earn: lent VRUs were in use.
    pub rented_milli: u64,
    /// Milli-credits of use that leases covered since use was reported last, up to `since_ms`.
    pub covered_milli: u64,
    /// See `covered_milli`.
    pub since_ms: u64,
    /// The second that `acts` counts.
    pub second: u64,
    /// VRUs that its leases of class sla want.
    pub sla_wanted: u64,
    /// Its leases, first and last, as slots plus one.
    pub ends: [u32; 2],
    /// VRUs leased.
    pub granted: u32,
    /// VRUs of its baseline lent.
    pub lent: u32,
    /// VRUs of class sla that it is entitled to.
    pub entitled: u32,
    /// Its leases.
    pub count: u32,
    /// Bids, changes and loans in that second.
    pub acts: u32,
    /// VRUs of tokens that it redeemed.
    pub redeemed: u32,
}

impl Holding {
    /// VRUs above its baseline: leased, and of tokens.
    pub fn above(&self) -> u64 {
        u64::from(self.granted) + u64::from(self.redeemed)
    }

    /// Reckons what leases and tokens covered up to now.
    pub fn cover(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.since_ms);
        let covered = self.above().saturating_mul(elapsed_ms);
        self.covered_milli = self.covered_milli.saturating_add(covered);
        self.since_ms = now_ms;
    }
}

/// Lists of leases by rent.
#[derive(Debug)]
struct Shelf {
    ladder: Ladder,
    /// First and last of each level, as slots plus one.
    ends: Box<[[u32; 2]]>,
}

impl Shelf {
    fn new(side: Side, rent_max: u16) -> Shelf {
        let ladder = Ladder::new(side, rent_max);
        let ends = vec![[0_u32; 2]; ladder.levels() as usize].into_boxed_slice();
        Shelf { ladder, ends }
    }

    /// The slot at an end of the first level.
    fn at_best(&self, end: usize) -> Option<u32> {
        let level = self.ladder.best();
        (level != NONE).then(|| self.ends[level as usize][end] - 1)
    }
}

/// Sums of VRUs up to a rent.
#[derive(Debug)]
struct Fenwick(Box<[u64]>);

impl Fenwick {
    fn add(&mut self, rent: u16, vru: i64) {
        let mut at = usize::from(rent);
        while let Some(sum) = self.0.get_mut(at) {
            *sum = sum.wrapping_add_signed(vru);
            at += at & at.wrapping_neg();
        }
    }

    fn up_to(&self, rent: u16) -> u64 {
        let (mut at, mut sum) = (usize::from(rent).min(self.0.len() - 1), 0_u64);
        while at > 0 {
            sum += self.0[at];
            at &= at - 1;
        }
        sum
    }
}

/// Queues, rents and meters of one class of a book.
#[derive(Debug)]
struct Class {
    waiting: Shelf,
    /// [`FIRM`] and [`LOOSE`], less one.
    granted: [Shelf; 2],
    /// Loose VRUs by rent.
    loose: Fenwick,
    /// Those that wait for all or nothing.
    whole: Vec<u32>,
    /// Leases for all or nothing.
    wholes: u32,
    leases: u32,
    /// VRUs leased.
    vru: u64,
}

/// What is metered of a class.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Meter {
    /// Micro-units x milliseconds that a VRU has cost, thousandths.
    pub index: u128,
    /// Up to when, milliseconds.
    pub until_ms: u64,
    /// The least rent, ticks.
    pub reserve: u32,
    /// What the class pays, ticks.
    pub rent: u32,
}

/// Leases of one book.
#[derive(Debug)]
pub struct Rental {
    classes: [Class; CLASSES],
    /// By class.
    pub meters: [Meter; CLASSES],
    tick_micro: u64,
    /// VRUs leased.
    pub granted: u64,
    /// VRUs that instances lend.
    pub lent: u64,
    /// VRUs that can be leased, as the book was cleared last; of one without leases any.
    pub supply: u64,
    /// What one of them has brought.
    pub lending: Lending,
    /// True if it must be cleared at the end of this tick.
    pub stirred: bool,
}

impl Rental {
    fn new(rent_max: u16, tick_micro: u64) -> Rental {
        let class = |_| Class {
            waiting: Shelf::new(Side::Buy, rent_max),
            granted: [(); 2].map(|()| Shelf::new(Side::Sell, rent_max)),
            loose: Fenwick(vec![0; usize::from(rent_max) + 1].into_boxed_slice()),
            whole: Vec::with_capacity(WHOLE_MAX as usize),
            wholes: 0,
            leases: 0,
            vru: 0,
        };
        Rental {
            classes: std::array::from_fn(class),
            meters: [Meter { reserve: 1, rent: 1, ..Meter::default() }; CLASSES],
            tick_micro,
            granted: 0,
            lent: 0,
            supply: 0,
            lending: Lending::default(),
            stirred: false,
        }
    }

    /// Leases of a class, and how many of them are for all or nothing.
    pub fn leases(&self, class: usize) -> (u32, u32) {
        (self.classes[class].leases, self.classes[class].wholes)
    }

    /// The first of a class that waits.
    pub fn first_waiting(&self, class: usize) -> Option<u32> {
        let class = &self.classes[class];
        class.waiting.at_best(0).or_else(|| class.whole.first().copied())
    }

    /// Meters up to now.
    pub fn meter(&mut self, now_ms: u64) {
        // Those of all classes stand at the same time.
        let elapsed_ms = now_ms.saturating_sub(self.meters[0].until_ms);
        if elapsed_ms > 0 && self.granted > 0 {
            assert!(self.granted.max(self.lent) <= self.supply, "more is leased than there is");
            let classes = self.classes.iter().zip(&self.meters);
            let rents =
                classes.map(|(class, meter)| u128::from(class.vru) * u128::from(meter.rent));
            let rents = rents.sum::<u128>() * u128::from(self.tick_micro);
            let used = u128::from(self.granted) * u128::from(elapsed_ms);
            self.lending.share(self.supply, rents * u128::from(elapsed_ms), used);
        }
        for meter in &mut self.meters {
            let elapsed_ms = u128::from(now_ms.saturating_sub(meter.until_ms));
            meter.index += u128::from(meter.rent) * u128::from(self.tick_micro) * elapsed_ms;
            meter.until_ms = now_ms;
        }
    }
}

/// A lease that has something due then, or later: an entry is not corrected before its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at_ms: u64,
    number: u64,
    slot: u32,
}

/// What moved in the command at hand.
#[derive(Clone, Copy, Debug, Default)]
struct Touch {
    /// VRUs it had before.
    had: u32,
    /// Why it has others now.
    why: u8,
    /// True if it is among those that moved.
    moved: bool,
}

/// All leases.
#[derive(Debug)]
pub struct Rentals {
    /// Leases by slot.
    pub leases: Box<[Lease]>,
    /// By instance and resource: `instance * RESOURCES + resource`; behind these, by instance, what it
    /// leases of another tier's storage, see [`Rentals::storage_of`].
    pub holdings: Box<[Holding]>,
    /// By book.
    pub books: Vec<Rental>,
    /// Slots that were ever used.
    used: u32,
    /// First free one of these, plus one.
    free: u32,
    /// Leases there have been.
    pub numbers: u64,
    /// Places in queues there have been.
    ranks: u64,
    margin_percent: u64,
    /// What is due, first things first, as a heap; and where in it each slot is, plus one.
    heap: Vec<Due>,
    heap_at: Box<[u32]>,
    touches: Box<[Touch]>,
    /// Slots that moved, in order.
    moved: Vec<u32>,
    /// Holdings that moved, each once, and which those are.
    shifted: Vec<u32>,
    is_shifted: Box<[bool]>,
}

impl Rentals {
    /// No leases; places for `leases` of them.
    pub fn new(leases: u32, instances: u32, margin_percent: u16) -> Rentals {
        let places = leases as usize;
        let holdings = instances as usize * (RESOURCES + 1);
        Rentals {
            leases: vec![Lease::default(); places].into_boxed_slice(),
            holdings: vec![Holding::default(); holdings].into_boxed_slice(),
            books: Vec::new(),
            used: 0,
            free: 0,
            numbers: 0,
            ranks: 0,
            margin_percent: margin_percent.into(),
            heap: Vec::with_capacity(places),
            heap_at: vec![0; places].into_boxed_slice(),
            touches: vec![Touch::default(); places].into_boxed_slice(),
            moved: Vec::with_capacity(places),
            shifted: Vec::with_capacity(holdings),
            is_shifted: vec![false; holdings].into_boxed_slice(),
        }
    }

    /// Start-up: a book.
    pub fn define(&mut self, rent_max: u16, tick_micro: u64) {
        self.books.push(Rental::new(rent_max, tick_micro));
    }

    /// Slots that were ever used.
    pub fn used(&self) -> u32 {
        self.used
    }

    /// True if a lease finds a place.
    pub fn has_room(&self) -> bool {
        self.free != 0 || (self.used as usize) < self.leases.len()
    }

    /// The live lease of a handle.
    pub fn find(&self, handle: u64) -> Option<u32> {
        let slot = handle as u32;
        let row = self.leases.get(slot as usize)?;
        (row.live == 1 && u64::from(row.generation) == handle >> 32).then_some(slot)
    }

    /// The handle of the lease in a slot.
    pub fn handle(&self, slot: u32) -> u64 {
        u64::from(slot) | u64::from(self.leases[slot as usize].generation) << 32
    }

    /// What an instance has of its resource, or of another tier's storage.
    pub fn holding_of(&self, slot: u32, resource: usize) -> usize {
        let row = &self.leases[slot as usize];
        match row.storage {
            0 => usize::from(row.instance) * RESOURCES + resource,
            _ => self.storage_of(row.instance),
        }
    }

    /// What an instance leases of another tier's storage.
    pub fn storage_of(&self, instance: u16) -> usize {
        self.holdings.len() / (RESOURCES + 1) * RESOURCES + usize::from(instance)
    }

    /// Its newest lease.
    pub fn newest_of(&self, holding: usize) -> Option<u32> {
        self.holdings[holding].ends[1].checked_sub(1)
    }

    /// Its leases, newest first.
    pub fn newest(&self, holding: usize) -> impl Iterator<Item = u32> + '_ {
        std::iter::successors(self.newest_of(holding), |&slot| {
            self.leases[slot as usize].links[Chain::Own as usize][0].checked_sub(1)
        })
    }

    // ---- coming and going ----------------------------------------------------------------

    /// Puts a lease in: it waits for all that it wants. There is room for it.
    pub fn insert(&mut self, mut row: Lease, resource: usize) -> u32 {
        let slot = match self.free {
            0 => {
                self.used += 1;
                self.used - 1
            }
            free => {
                self.free = self.leases[free as usize - 1].links[0][0];
                free - 1
            }
        };
        self.numbers += 1;
        row.number = self.numbers;
        row.live = 1;
        row.generation = self.leases[slot as usize].generation;
        row.links = [[0; 2]; 3];
        self.leases[slot as usize] = row;
        let class = &mut self.books[usize::from(row.book)].classes[usize::from(row.class)];
        class.leases += 1;
        class.wholes += u32::from(row.whole);
        let holding = self.holding_of(slot, resource);
        self.hold(slot, holding);
        self.wait(slot);
        self.arm(slot);
        slot
    }

    fn hold(&mut self, slot: u32, holding: usize) {
        let Lease { class, wanted, .. } = self.leases[slot as usize];
        let row = &mut self.holdings[holding];
        row.count += 1;
        row.sla_wanted += if class == 0 { u64::from(wanted) } else { 0 };
        append(&mut self.leases, &mut row.ends, Chain::Own, slot);
    }

    /// Takes a lease out. What it owes has been looked at.
    pub fn remove(&mut self, slot: u32, resource: usize) {
        self.give_up(slot, resource);
        self.stop_waiting(slot);
        let holding = self.holding_of(slot, resource);
        let row = self.leases[slot as usize];
        let own = &mut self.holdings[holding];
        own.count -= 1;
        own.sla_wanted -= if row.class == 0 { u64::from(row.wanted) } else { 0 };
        unlink(&mut self.leases, &mut own.ends, Chain::Own, slot);
        let class = &mut self.books[usize::from(row.book)].classes[usize::from(row.class)];
        class.leases -= 1;
        class.wholes -= u32::from(row.whole);
        self.disarm(slot);
        // Nobody is told of a lease that is gone that it moved.
        self.touches[slot as usize].moved = false;
        let generation = row.generation.wrapping_add(1);
        self.leases[slot as usize] = Lease { generation, ..Lease::default() };
        self.leases[slot as usize].links[0][0] = self.free;
        self.free = slot + 1;
    }

    /// Gives a lease other terms: it stands behind others of its rent, with what it keeps.
    pub fn change(&mut self, slot: u32, resource: usize, wanted: u32, rent: u16) {
        let place = self.leases[slot as usize].place;
        let had = self.give_up(slot, resource);
        self.stop_waiting(slot);
        let holding = self.holding_of(slot, resource);
        let row = &mut self.leases[slot as usize];
        if row.class == 0 {
            let sum = &mut self.holdings[holding].sla_wanted;
            *sum = *sum - u64::from(row.wanted) + u64::from(wanted);
        }
        (row.wanted, row.rent) = (wanted, rent);
        let keeps = if row.whole == 1 && had < wanted { 0 } else { had.min(wanted) };
        self.wait(slot);
        if keeps > 0 {
            self.receive(slot, resource, keeps, place);
        }
        self.arm(slot);
    }

    // ---- queues --------------------------------------------------------------------------

    fn rank(&mut self) -> u64 {
        self.ranks += 1;
        self.ranks
    }

    /// Puts what a lease waits for at the end of its queue.
    fn wait(&mut self, slot: u32) {
        let rank = self.rank();
        self.leases[slot as usize].ranks[0] = rank;
        self.wait_at_rank(slot);
    }

    fn wait_at_rank(&mut self, slot: u32) {
        let row = self.leases[slot as usize];
        let class = &mut self.books[usize::from(row.book)].classes[usize::from(row.class)];
        if row.whole == 1 {
            assert!(class.whole.len() < WHOLE_MAX as usize, "more wait than there may be");
            class.whole.push(slot);
            return;
        }
        let level = class.waiting.ladder.level_of(row.rent);
        class.waiting.ladder.mark(level);
        let ends = &mut class.waiting.ends[level as usize];
        append(&mut self.leases, ends, Chain::Waiting, slot);
    }

    /// Takes a lease out of the queue it waits in, if it does.
    fn stop_waiting(&mut self, slot: u32) {
        let row = self.leases[slot as usize];
        if row.waits() == 0 {
            return;
        }
        let class = &mut self.books[usize::from(row.book)].classes[usize::from(row.class)];
        if row.whole == 1 {
            let at = class.whole.iter().position(|&other| other == slot);
            class.whole.swap_remove(at.expect("who waits for all or nothing is among them"));
            return;
        }
        let level = class.waiting.ladder.level_of(row.rent);
        let ends = &mut class.waiting.ends[level as usize];
        unlink(&mut self.leases, ends, Chain::Waiting, slot);
        if *ends == [0; 2] {
            class.waiting.ladder.clear(level);
        }
    }

    /// Puts a lease that has VRUs into the queue of its place.
    fn shelve(&mut self, slot: u32) {
        let row = self.leases[slot as usize];
        let class = &mut self.books[usize::from(row.book)].classes[usize::from(row.class)];
        let shelf = &mut class.granted[usize::from(row.place - FIRM)];
        let level = shelf.ladder.level_of(row.rent);
        shelf.ladder.mark(level);
        append(&mut self.leases, &mut shelf.ends[level as usize], Chain::Granted, slot);
        if row.place == LOOSE {
            class.loose.add(row.rent, row.granted.into());
        }
    }

    fn unshelve(&mut self, slot: u32) {
        let row = self.leases[slot as usize];
        let class = &mut self.books[usize::from(row.book)].classes[usize::from(row.class)];
        let shelf = &mut class.granted[usize::from(row.place - FIRM)];
        let level = shelf.ladder.level_of(row.rent);
        let ends = &mut shelf.ends[level as usize];
        unlink(&mut self.leases, ends, Chain::Granted, slot);
        if *ends == [0; 2] {
            shelf.ladder.clear(level);
        }
        if row.place == LOOSE {
            class.loose.add(row.rent, -i64::from(row.granted));
        }
    }

    /// Its hold is over: it may be displaced.
    pub fn loosen(&mut self, slot: u32) {
        self.unshelve(slot);
        let rank = self.rank();
        let row = &mut self.leases[slot as usize];
        (row.place, row.ranks[1]) = (LOOSE, rank);
        self.shelve(slot);
    }

    // ---- VRUs ----------------------------------------------------------------------------

    /// Notes what a lease had before it moves, and reckons what it owes up to now.
    pub fn touch(&mut self, slot: u32) {
        let row = &mut self.leases[slot as usize];
        let index = self.books[usize::from(row.book)].meters[usize::from(row.class)].index;
        let owed = u128::from(row.granted).saturating_mul(index - row.from_index);
        row.owed_milli = row.owed_milli.saturating_add(owed);
        row.from_index = index;
        let touch = &mut self.touches[slot as usize];
        if !touch.moved {
            *touch = Touch { had: row.granted, why: LeaseOutcome::Granted as u8, moved: true };
            assert!(self.moved.len() < self.moved.capacity(), "more moved than there are leases");
            self.moved.push(slot);
        }
    }

    /// Adds to the VRUs of a lease that has them in its place, and of its instance and book.
    fn add(&mut self, slot: u32, resource: usize, vru: i64) {
        let holding = self.holding_of(slot, resource);
        let row = &mut self.leases[slot as usize];
        row.granted = (i64::from(row.granted) + vru) as u32;
        let book = &mut self.books[usize::from(row.book)];
        book.granted = book.granted.wrapping_add_signed(vru);
        let class = &mut book.classes[usize::from(row.class)];
        class.vru = class.vru.wrapping_add_signed(vru);
        if row.place == LOOSE {
            class.loose.add(row.rent, vru);
        }
        let holding = &mut self.holdings[holding];
        holding.cover(book.meters[0].until_ms);
        holding.granted = (i64::from(holding.granted) + vru) as u32;
    }

    /// Takes all VRUs of a lease, which waits nowhere for them, and returns how many it had.
    fn give_up(&mut self, slot: u32, resource: usize) -> u32 {
        self.touch(slot);
        let row = self.leases[slot as usize];
        if row.granted == 0 {
            return 0;
        }
        if row.waits() == 0 {
            // As if it waited for nothing: what it has no more it does not wait for.
            self.wait(slot);
        }
        self.unshelve(slot);
        self.leases[slot as usize].place = NOWHERE;
        self.add(slot, resource, -i64::from(row.granted));
        row.granted
    }

    /// Takes up to `vru` VRUs from a lease, all if it has all or nothing; it waits for them.
    fn take(&mut self, slot: u32, resource: usize, vru: u64, why: LeaseOutcome) {
        self.touch(slot);
        let row = self.leases[slot as usize];
        let taken = if row.whole == 1 { row.granted } else { vru.min(row.granted.into()) as u32 };
        if taken == row.granted {
            self.give_up(slot, resource);
        } else {
            if row.waits() == 0 {
                self.wait(slot);
            }
            self.add(slot, resource, -i64::from(taken));
        }
        self.touches[slot as usize].why = why as u8;
        self.arm(slot);
    }

    /// Gives VRUs to a lease that waits for them; `place` if it had none.
    fn receive(&mut self, slot: u32, resource: usize, vru: u32, place: u8) {
        self.touch(slot);
        if self.leases[slot as usize].waits() == vru {
            self.stop_waiting(slot);
        }
        if self.leases[slot as usize].granted > 0 {
            self.add(slot, resource, vru.into());
            return;
        }
        self.add(slot, resource, vru.into());
        let rank = self.rank();
        let row = &mut self.leases[slot as usize];
        (row.place, row.ranks[1]) = (place, rank);
        self.shelve(slot);
    }

    /// Gives VRUs to the lease that is first in line. One that had none holds them for its time.
    fn give(&mut self, slot: u32, resource: usize, vru: u32, now_ms: u64, pay_ms: u64) {
        let row = &mut self.leases[slot as usize];
        if row.granted == 0 {
            row.firm_until_ms = now_ms + u64::from(row.hold_ms);
            row.pays_ms = now_ms + pay_ms;
        }
        self.receive(slot, resource, vru, FIRM);
        self.arm(slot);
    }

    // ---- clearing ------------------------------------------------------------------------

    /// True if a lease of this class and rent takes what one of that class and rent has.
    fn outranks(&self, class: u8, rent: u16, other: &Lease) -> bool {
        let dearer = u64::from(rent) * 100 >= u64::from(other.rent) * (100 + self.margin_percent);
        class < other.class || class == other.class && rent > other.rent && dearer
    }

    /// The lease that gives way first; of those that are firm none, unless `firm`.
    fn last(&self, book: usize, firm: bool) -> Option<u32> {
        let classes = self.books[book].classes.iter().rev();
        let loose = classes.clone().find_map(|class| class.granted[1].at_best(1));
        let firm = firm.then_some(classes);
        loose.or_else(|| firm?.into_iter().find_map(|class| class.granted[0].at_best(1)))
    }

    /// VRUs that a lease of this class and rent may take.
    fn within_reach(&self, book: usize, class: usize, rent: u16) -> u64 {
        let classes = &self.books[book].classes;
        let below = classes[class + 1..].iter().map(|other| other.loose.up_to(u16::MAX));
        let most = u64::from(rent) * 100 / (100 + self.margin_percent);
        let most = most.min(u64::from(rent).saturating_sub(1)) as u16;
        below.sum::<u64>() + classes[class].loose.up_to(most)
    }

    /// True if a lease for all or nothing gets all.
    fn fits(&self, slot: u32, free: u64) -> bool {
        let row = &self.leases[slot as usize];
        let reach = self.within_reach(row.book.into(), row.class.into(), row.rent);
        free + reach >= u64::from(row.wanted)
    }

    /// The lease that is served next, if one is.
    fn next(&self, book: usize, free: u64) -> Option<u32> {
        let order = |&slot: &u32| {
            let row = &self.leases[slot as usize];
            (std::cmp::Reverse(row.rent), row.ranks[0])
        };
        for class in &self.books[book].classes {
            let plain = class.waiting.at_best(0);
            let whole = class.whole.iter().copied().filter(|&slot| self.fits(slot, free));
            let whole = whole.min_by_key(order);
            let Some(first) = plain.into_iter().chain(whole).min_by_key(order) else { continue };
            if free > 0 || Some(first) == whole {
                return Some(first);
            }
            let row = &self.leases[first as usize];
            let last = self.last(book, false).map(|last| &self.leases[last as usize]);
            return last.filter(|last| self.outranks(row.class, row.rent, last)).map(|_| first);
        }
        None
    }

    /// Serves who waits, and takes from those that have too much, until nothing moves.
    pub fn clear(&mut self, book: usize, resource: usize, supply: u64, now_ms: u64, pay_ms: u64) {
        self.books[book].supply = supply;
        loop {
            let granted = self.books[book].granted;
            if granted > supply {
                let last = self.last(book, true).expect("what is leased somebody leases");
                self.take(last, resource, granted - supply, LeaseOutcome::Withdrawn);
                continue;
            }
            let free = supply - granted;
            let Some(slot) = self.next(book, free) else { break };
            let row = self.leases[slot as usize];
            let (least, most) =
                if row.whole == 1 { (u64::from(row.wanted), row.wanted) } else { (1, row.waits()) };
            if free >= least {
                self.give(slot, resource, free.min(most.into()) as u32, now_ms, pay_ms);
                continue;
            }
            let last = self.last(book, false).expect("there is enough to take");
            let lack = u64::from(most) - free;
            self.take(last, resource, lack, LeaseOutcome::Displaced);
        }
        self.price(book);
    }

    /// What each class pays: the best rent that waits, at most what all who have VRUs pay, at least the
    /// reserve rent.
    fn price(&mut self, book: usize) {
        for at in 0..CLASSES {
            let (waits, has) = self.edge(book, at);
            let meter = &mut self.books[book].meters[at];
            let rent = match (waits, has) {
                (Some(waits), Some(has)) => waits.min(has),
                _ => 0,
            };
            meter.rent = u32::from(rent).max(meter.reserve);
        }
    }

    /// The highest rent that waits, and the lowest that has VRUs.
    fn edge(&self, book: usize, class: usize) -> (Option<u16>, Option<u16>) {
        let class = &self.books[book].classes[class];
        let rent = |slot: u32| self.leases[slot as usize].rent;
        let waits = class.waiting.at_best(0).into_iter().chain(class.whole.iter().copied());
        let has = class.granted.iter().filter_map(|shelf| shelf.at_best(1));
        (waits.map(rent).max(), has.map(rent).min())
    }

    /// Why a lease waits: a higher rent could get it more, or none could.
    pub fn why_waits(&self, slot: u32, supply: u64) -> LeaseOutcome {
        let row = &self.leases[slot as usize];
        let book = &self.books[usize::from(row.book)];
        let others = book.classes[usize::from(row.class)..].iter();
        let loose: u64 = others.map(|class| class.loose.up_to(u16::MAX)).sum();
        // What it has itself it cannot take.
        let own = if row.place == LOOSE { u64::from(row.granted) } else { 0 };
        let reach = supply.saturating_sub(book.granted) + loose - own;
        let least = if row.whole == 1 { u64::from(row.wanted) } else { 1 };
        if reach >= least { LeaseOutcome::PriceTooLow } else { LeaseOutcome::Unavailable }
    }

    /// The next lease that moved in this command: its slot, what it had, and why it has less.
    pub fn next_moved(&mut self, at: usize) -> Option<(u32, Option<(u32, u8)>)> {
        let &slot = self.moved.get(at)?;
        let touch = std::mem::take(&mut self.touches[slot as usize]);
        Some((slot, touch.moved.then_some((touch.had, touch.why))))
    }

    /// All that moved have been told.
    pub fn forget_moved(&mut self) {
        self.moved.clear();
    }

    /// Notes that a holding has other VRUs: however many of its leases moved, it is told once.
    pub fn shift(&mut self, holding: usize) {
        if !std::mem::replace(&mut self.is_shifted[holding], true) {
            self.shifted.push(holding as u32);
        }
    }

    /// The next holding that has other VRUs.
    pub fn next_shifted(&mut self) -> Option<usize> {
        let holding = self.shifted.pop()? as usize;
        self.is_shifted[holding] = false;
        Some(holding)
    }

    // ---- what falls due ------------------------------------------------------------------

    /// The lease that has something due first, if that time has come.
    pub fn due(&mut self, now_ms: u64) -> Option<u32> {
        loop {
            let first = *self.heap.first()?;
            if first.at_ms > now_ms {
                return None;
            }
            let at_ms = self.leases[first.slot as usize].due_ms();
            assert!(at_ms >= first.at_ms, "something was due before its entry said");
            if at_ms == first.at_ms {
                return Some(first.slot);
            }
            self.heap[0].at_ms = at_ms;
            self.sink(0);
        }
    }

    /// Puts a lease where its next due moment belongs, if that is earlier than what is known. A later
    /// one is found out by [`Rentals::due`]: most leases that move back and forth never get there.
    pub fn arm(&mut self, slot: u32) {
        let row = &self.leases[slot as usize];
        let due = Due { at_ms: row.due_ms(), number: row.number, slot };
        let at = match self.heap_at[slot as usize] {
            0 => {
                assert!(
                    self.heap.len() < self.heap.capacity(),
                    "more are due than there are leases"
                );
                self.heap.push(due);
                self.heap_at[slot as usize] = self.heap.len() as u32;
                self.heap.len() - 1
            }
            at if due < self.heap[at as usize - 1] => {
                self.heap[at as usize - 1] = due;
                at as usize - 1
            }
            _ => return,
        };
        self.rise(at);
    }

    fn disarm(&mut self, slot: u32) {
        let at = self.heap_at[slot as usize] as usize - 1;
        let last = self.heap.len() - 1;
        self.trade_places(at, last);
        self.heap.pop();
        self.heap_at[slot as usize] = 0;
        if at < last {
            let at = self.rise(at);
            self.sink(at);
        }
    }

    fn trade_places(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        for at in [a, b] {
            self.heap_at[self.heap[at].slot as usize] = at as u32 + 1;
        }
    }

    fn rise(&mut self, mut at: usize) -> usize {
        while at > 0 && self.heap[at] < self.heap[(at - 1) / 2] {
            self.trade_places(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
        at
    }

    fn sink(&mut self, mut at: usize) {
        loop {
            let children = [2 * at + 1, 2 * at + 2].into_iter();
            let least = children.filter(|&child| child < self.heap.len());
            let Some(least) = least.min_by_key(|&child| self.heap[child]) else { return };
            if self.heap[at] <= self.heap[least] {
                return;
            }
            self.trade_places(at, least);
            at = least;
        }
    }
}

// ---- the state as bytes ------------------------------------------------------------------

impl Rentals {
    /// Slots that were used; the first free one, numbers and ranks.
    pub fn parts(&self) -> (&[Lease], [u64; 3]) {
        (&self.leases[..self.used as usize], [self.free.into(), self.numbers, self.ranks])
    }

    /// Restores what [`Rentals::parts`] and the tables hold: queues and sums from the rows. `resource`
    /// gives that of a book, if a lease of the instance can be in it. False if the rows contradict one
    /// another.
    pub fn restore(
        &mut self,
        rows: &[Lease],
        [free, numbers, ranks]: [u64; 3],
        resource: impl Fn(&Lease) -> Option<usize>,
    ) -> bool {
        self.leases[..rows.len()].copy_from_slice(rows);
        self.used = rows.len() as u32;
        (self.numbers, self.ranks) = (numbers, ranks);
        let live = rows.iter().filter(|row| row.live == 1).count();
        if !self.restore_free(free, rows.len() - live) || !self.are_sound(&resource) {
            return false;
        }
        let told = self.holdings.to_vec();
        for row in &mut self.holdings {
            *row = Holding { ends: [0; 2], count: 0, sla_wanted: 0, granted: 0, ..*row };
        }
        let mut slots: Vec<u32> =
            (0..self.used).filter(|&slot| self.leases[slot as usize].live == 1).collect();
        slots.sort_by_key(|&slot| self.leases[slot as usize].number);
        for &slot in &slots {
            let resource = resource(&self.leases[slot as usize]).unwrap_or(0);
            self.restore_own(slot, resource);
        }
        slots.sort_by_key(|&slot| self.leases[slot as usize].ranks[0]);
        for &slot in slots.iter().filter(|&&slot| rows[slot as usize].waits() > 0) {
            self.wait_at_rank(slot);
        }
        slots.sort_by_key(|&slot| self.leases[slot as usize].ranks[1]);
        for &slot in slots.iter().filter(|&&slot| rows[slot as usize].granted > 0) {
            self.shelve(slot);
        }
        (0..self.books.len()).for_each(|book| self.price(book));
        told.iter().zip(&self.holdings).all(|(told, now)| told == now)
    }

    fn restore_own(&mut self, slot: u32, resource: usize) {
        self.leases[slot as usize].links = [[0; 2]; 3];
        let row = self.leases[slot as usize];
        let book = &mut self.books[usize::from(row.book)];
        book.granted += u64::from(row.granted);
        let class = &mut book.classes[usize::from(row.class)];
        class.leases += 1;
        class.wholes += u32::from(row.whole);
        class.vru += u64::from(row.granted);
        let holding = self.holding_of(slot, resource);
        self.hold(slot, holding);
        self.holdings[holding].granted = self.holdings[holding].granted.wrapping_add(row.granted);
        self.arm(slot);
    }

    /// True if exactly so many places are free, each once.
    fn restore_free(&mut self, free: u64, places: usize) -> bool {
        let Ok(free) = u32::try_from(free) else { return false };
        self.free = free;
        let mut next = free;
        for _ in 0..places {
            match (next as usize)
                .checked_sub(1)
                .and_then(|at| self.leases[..self.used as usize].get(at))
            {
                Some(row) if row.live == 0 => next = row.links[0][0],
                _ => return false,
            }
        }
        next == 0
    }

    fn are_sound(&self, resource: &impl Fn(&Lease) -> Option<usize>) -> bool {
        let mut wholes = vec![[0; CLASSES]; self.books.len()];
        self.leases.iter().filter(|row| row.live == 1).all(|row| {
            let Some(book) = self.books.get(usize::from(row.book)) else { return false };
            let class = usize::from(row.class);
            let Some(meter) = book.meters.get(class) else { return false };
            wholes[usize::from(row.book)][class] += u32::from(row.whole);
            let rents = book.classes[class].loose.0.len();
            let in_part = row.granted > 0 && row.granted < row.wanted;
            resource(row).is_some()
                && row.whole <= 1
                && row.storage <= 1
                && wholes[usize::from(row.book)][class] <= WHOLE_MAX
                && row.place <= LOOSE
                && row.rent > 0
                && usize::from(row.rent) < rents
                && row.wanted > 0
                && row.granted <= row.wanted
                && (row.granted == 0) == (row.place == NOWHERE)
                && !(row.whole == 1 && in_part)
                && row.from_index <= meter.index
                && meter.reserve > 0
                && (meter.reserve as usize) < rents
        })
    }
}

/// Links a slot in at the end of a list.
fn append(leases: &mut [Lease], ends: &mut [u32; 2], chain: Chain, slot: u32) {
    let last = ends[1];
    leases[slot as usize].links[chain as usize] = [last, 0];
    match last {
        0 => ends[0] = slot + 1,
        last => leases[last as usize - 1].links[chain as usize][1] = slot + 1,
    }
    ends[1] = slot + 1;
}

/// Takes a slot out of its list.
fn unlink(leases: &mut [Lease], ends: &mut [u32; 2], chain: Chain, slot: u32) {
    let [before, after] = std::mem::take(&mut leases[slot as usize].links[chain as usize]);
    match before {
        0 => ends[0] = after,
        before => leases[before as usize - 1].links[chain as usize][1] = after,
    }
    match after {
        0 => ends[1] = before,
        after => leases[after as usize - 1].links[chain as usize][0] = before,
    }
}
