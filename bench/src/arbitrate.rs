//! One bid for a lease against many that stand, and clearing again after a change of capacity.
//!
//! *Ours* is a command to the real machine: bids are checked, held for, metered, served, displace others,
//! are paid for and told. *The floor* of a bid is an insertion into a bare ordered map of as many bids
//! by rent and arrival, and the removal that follows; of clearing again, one pass over the winners.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::time::Instant;

use hdrhistogram::Histogram;
use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{Command, DefineBook, Envelope, Genesis, Tick};
use vendue_engine::machine::event::Outbox;
use vendue_wire::message::*;

use crate::daemon::AnyError;
use crate::ours::{definition, genesis, operator};
use crate::pin::{Processors, pin};
use crate::report::Pair;

/// Standing bids.
const SIZES: [u32; 5] = [100, 1000, 10_000, 100_000, 1_000_000];
/// Bids of an instance: fewer than it may have, so that there is room for one more.
const EACH: u32 = 50;
/// Bids measured in a run.
const BIDS: u32 = 2000;
/// Rents, ticks.
const RENTS: u64 = 900;
/// What the ratios should be at most.
const RATIO_MAX: f64 = 5.0;

/// Measures `arbitrate.1e2` to `arbitrate.1e6`, `arbitrate.reclear` and `arbitrate.capacity`.
///
/// # Errors
/// The thread cannot be pinned.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    for (power, bids) in (2..).zip(SIZES) {
        show(bid_row(&format!("arbitrate.1e{power}"), bids, runs, processors));
    }
    show(reclear_row(runs, processors));
    show(capacity_row(runs, processors));
    Ok(())
}

/// A machine with one book, half of whose bids are served.
struct Room {
    machine: Machine,
    out: Outbox,
    sequence: u64,
    time_ns: u64,
    instances: u32,
    state: u64,
}

impl Room {
    fn new(bids: u32) -> Room {
        let instances = bids.div_ceil(EACH).max(2);
        let bounds = Genesis {
            instances_max: instances.into(),
            leases_max: (bids + 1).into(),
            ..genesis(1, 1, 1024)
        };
        let machine = Machine::new(&bounds).expect("good bounds");
        let out = machine.outbox();
        let (sequence, time_ns, state) = (0, 1_000_000_000, 1);
        let mut room = Room { machine, out, sequence, time_ns, instances, state };
        room.tell(ANY, &bounds);
        let capacity = u64::from(instances) + u64::from(bids / 2);
        room.tell(ANY, &DefineBook { capacity_vru: capacity.into(), ..definition(0, 0) });
        room.tell(ANY, &operator(1));
        let id = room.sequence.into();
        room.tell(
            0,
            &CreateAccount { client_id: id, name: field_cut("a"), ..CreateAccount::zeroed() },
        );
        let id = room.sequence.into();
        let amount_micro = (1 << 60).into();
        room.tell(0, &Deposit { client_id: id, amount_micro, ..Deposit::zeroed() });
        for instance in 0..instances {
            let id = room.sequence.into();
            let mut m = CreateInstance { client_id: id, ..CreateInstance::zeroed() };
            m.baseline_vru[0] = 1.into();
            m.name = field_cut(&format!("i{instance}"));
            room.tell(0, &m);
        }
        for number in 0..bids {
            let rent = room.draw();
            room.bid(number % instances, rent);
            // Only so many bids of an instance are taken in a second.
            room.time_ns += u64::from(number % instances == instances - 1) * 1_000_000_000;
        }
        // Whatever was served may be displaced from now on.
        room.time_ns += 2_000_000_000;
        room.tell(ANY, &Tick::zeroed());
        room
    }

    fn draw(&mut self) -> u32 {
        self.state =
            self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888);
        (1 + (self.state >> 33) % RENTS) as u32
    }

    /// The answer to a command is left in the outbox.
    fn apply<M: Body>(&mut self, session: u32, body: &M) {
        self.sequence += 1;
        self.out.clear();
        let (sequence, time_ns) = (self.sequence, self.time_ns);
        let env = Envelope { sequence, time_ns, request: sequence, session, connection: ANY };
        let command = Command::parse(M::KIND, body.as_bytes()).expect("well-formed");
        self.machine.apply(&env, &command, &mut self.out).expect("in order");
    }

    fn tell<M: Body>(&mut self, session: u32, body: &M) {
        self.apply(session, body);
        let refused = self.out.events().any(|event| event.kind == Rejected::KIND);
        assert!(!refused, "{} was rejected", M::NAME);
    }

    /// Bids for one VRU and returns the lease's handle.
    fn bid(&mut self, instance: u32, rent: u32) -> u64 {
        let m = BidLease {
            client_id: (self.sequence + 1).into(),
            instance: instance.into(),
            amount: 1.into(),
            rent_ticks: rent.into(),
            class: 1,
            ..BidLease::zeroed()
        };
        self.apply(0, &m);
        self.done()
    }

    fn cancel(&mut self, handle: u64) {
        let client_id = (self.sequence + 1).into();
        self.apply(0, &CancelLease { client_id, handle: handle.into() });
        self.done();
    }

    /// The value of the answer.
    fn done(&self) -> u64 {
        let done = self.out.events().find_map(|event| event.read::<Done>().copied());
        done.expect("carried out").value.get()
    }
}

fn bid_row(name: &str, bids: u32, runs: usize, processors: Processors) -> Pair {
    let mut room = Room::new(bids);
    let mut map: BTreeMap<(u32, u64), u32> =
        (0..bids).map(|number| ((room.draw(), number.into()), number)).collect();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let mut hists = [(); 2].map(|()| Histogram::<u64>::new(3).expect("a histogram"));
    let mut number = u64::from(bids);
    for run in 0..=runs {
        let mut took = [0; 2];
        for _ in 0..BIDS {
            let (instance, rent) = (room.draw() % room.instances, room.draw());
            number += 1;
            // A second each: an instance may bid again.
            room.time_ns += 1_000_000_000;
            let start = Instant::now();
            let handle = black_box(room.bid(instance, rent));
            let bid = start.elapsed().as_nanos() as u64;
            room.cancel(handle);
            let cancelled = start.elapsed().as_nanos() as u64;
            let start = Instant::now();
            map.insert(black_box((rent, number)), instance);
            let inserted = start.elapsed().as_nanos() as u64;
            black_box(map.remove(&(rent, number)));
            let removed = start.elapsed().as_nanos() as u64;
            took = [took[0] + cancelled, took[1] + removed];
            if run > 0 {
                let _ = hists[0].record(bid.max(1));
                let _ = hists[1].record(inserted.max(1));
            }
        }
        if run > 0 {
            ours.push(took[0] as f64 / f64::from(BIDS));
            floor.push(took[1] as f64 / f64::from(BIDS));
        }
    }
    room.machine.check_conservation();
    let [ours_hist, floor_hist] = hists;
    Pair::new(name, "ns/bid", &ours, &floor)
        .at_most(RATIO_MAX)
        .quantiles(&ours_hist, &floor_hist)
        .fact("bids", bids)
        .fact("instances", room.instances)
        .method(format!(
            "{runs} runs of {BIDS} bids on CPU {}, each cancelled again, in turns with the map; \
             quantiles are of the bid and of the insertion alone",
            processors.asking
        ))
}

fn reclear_row(runs: usize, processors: Processors) -> Pair {
    let bids = 100_000;
    let mut room = Room::new(bids);
    let winners: Vec<[u64; 4]> = (0..bids / 2).map(|at| [u64::from(at); 4]).collect();
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let full = room.instances + bids / 2;
    for run in 0..=runs {
        room.time_ns += 2_000_000_000;
        room.tell(ANY, &Tick::zeroed());
        let start = Instant::now();
        black_box(winners.iter().map(|row| black_box(row)[0]).sum::<u64>());
        let passed = start.elapsed().as_nanos() as f64 / f64::from(bids / 2);
        let mut m = SetTier { act: TIER_CHANGE, ..SetTier::zeroed() };
        // A quarter of the winners go, and come again.
        for capacity in [full - bids / 8, full] {
            m.client_id = (room.sequence + 1).into();
            m.capacity_vru[0] = capacity.into();
            let start = Instant::now();
            room.apply(0, &m);
            let cleared = start.elapsed().as_nanos() as f64 / f64::from(bids / 8);
            room.done();
            if run > 0 && capacity < full {
                ours.push(cleared);
                floor.push(passed);
            }
        }
    }
    room.machine.check_conservation();
    Pair::new("arbitrate.reclear", "ns/lease", &ours, &floor)
        .fact("bids", bids)
        .fact("moved", bids / 8)
        .method(format!(
            "{runs} runs on CPU {}: an eighth of all bids loses its VRUs at once, each told and \
             charged; beside summing over the winners, a lease",
            processors.asking
        ))
}

/// The time until a change of capacity by one VRU is decided, with 100,000 bids standing.
fn capacity_row(runs: usize, processors: Processors) -> Pair {
    let bids = 100_000;
    let mut room = Room::new(bids);
    let winners: Vec<[u64; 4]> = (0..bids / 2).map(|at| [u64::from(at); 4]).collect();
    let full = room.instances + bids / 2;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let [mut hist, mut floor_hist] =
        [(); 2].map(|()| Histogram::<u64>::new(3).expect("a histogram"));
    for run in 0..=runs {
        let start = Instant::now();
        black_box(winners.iter().map(|row| black_box(row)[0]).sum::<u64>());
        let passed = start.elapsed().as_nanos() as f64;
        let mut took = 0;
        for change in 0..BIDS {
            let mut m = SetTier { act: TIER_CHANGE, ..SetTier::zeroed() };
            m.client_id = (room.sequence + 1).into();
            m.capacity_vru[0] = (full - change % 2).into();
            room.time_ns += 1_000_000;
            let start = Instant::now();
            room.apply(0, &m);
            let decided = start.elapsed().as_nanos() as u64;
            room.done();
            took += decided;
            if run > 0 {
                let _ = hist.record(decided.max(1));
            }
        }
        if run > 0 {
            ours.push(took as f64 / f64::from(BIDS));
            floor.push(passed);
            let _ = floor_hist.record((passed as u64).max(1));
        }
    }
    room.machine.check_conservation();
    Pair::new("arbitrate.capacity", "ns/change", &ours, &floor)
        .at_most(1.0)
        .quantiles(&hist, &floor_hist)
        .fact("bids", bids)
        .method(format!(
            "{runs} runs of {BIDS} changes on CPU {}, a VRU less and a VRU more, in turns; beside one \
             pass over all winners",
            processors.asking
        ))
}
