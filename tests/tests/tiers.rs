//! Tiers: capacity and pool credits swapped between them, by an operator and by demand.

use serde_json::Value;
use std::process::{Command, Output};
use vendue_engine::machine::command::{DefineBook, DefineExchange, Genesis};
use vendue_engine::machine::event::{Entitled, RateMoved, Resized, Stored, TierSwap};
use vendue_tests::daemon::{Daemon, Setup, eventually, hvctl};
use vendue_tests::market::audit;
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::client::{Identity, Notice, Place, Subscription};
use vendue_wire::code::{LeaseOutcome, Reject, Resource, Role};
use vendue_wire::message::*;

const CPU: Resource = Resource::Cpu;
/// Seconds of what a tier has unreserved that its pool may hold.
const CAP_S: u64 = 3600;

/// Two tiers of 100 VRUs of processors, the first also with memory; an instance of 20 VRUs in each,
/// which bursts to the whole tier.
struct Host {
    room: Room,
    operator: u32,
}

fn book(tier: u16, resource: Resource) -> DefineBook {
    DefineBook {
        burst_percent: 1000.into(),
        tier: tier.into(),
        resource: resource as u8,
        ..small_book()
    }
}

/// Demand is looked at every second; three looks in a row are needed.
fn demand() -> DefineExchange {
    DefineExchange {
        rate: [1.into(), 2.into()],
        low: [2.into(), 5.into()],
        high: [3.into(), 5.into()],
        every_ms: 1000.into(),
        step_vru: 10.into(),
        idle_percent: 30.into(),
        saturated_percent: 80.into(),
        looks: 3.into(),
        rate_step_percent: 10.into(),
        from: 0.into(),
        to: 1.into(),
        resource: CPU as u8,
        reserved: [0; 3],
    }
}

impl Host {
    fn new(exchange: Option<DefineExchange>) -> Host {
        Host::of(exchange, &[book(0, CPU), book(0, Resource::Memory), book(1, CPU)])
    }

    fn of(exchange: Option<DefineExchange>, books: &[DefineBook]) -> Host {
        let genesis = Genesis {
            credit_cap_s: (CAP_S as u32).into(),
            limit_window_s: 60.into(),
            reversible_trades: 16.into(),
            ..small_genesis()
        };
        let mut room = Room::new(&genesis, books);
        if let Some(exchange) = &exchange {
            room.daemon(exchange);
        }
        let operator = room.open(1, Role::Operator, ANY, false);
        let account = room.account(operator, "ada", 0, (1, 1));
        room.tick(1000);
        for tier in [0, 1] {
            let mut message = CreateInstance::zeroed();
            message.client_id = room.next_id();
            message.account = account.into();
            message.tier = tier.into();
            message.baseline_vru[books[0].resource as usize] = 20.into();
            message.name = field_cut(&format!("of tier {tier}"));
            room.apply(operator, &message);
        }
        Host { room, operator }
    }

    /// Capacity and pool of each book.
    fn tiers(&mut self) -> Vec<(u64, u64)> {
        self.room.apply(ANY, &QueryTiers {});
        let rows = self.room.said::<TierRow>().into_iter();
        rows.map(|(_, row)| (row.capacity_vru.get(), row.pool_millicredits.get())).collect()
    }

    fn swap(&mut self, from: u16, to: u16, resource: Resource, vru: u32) -> Option<Reject> {
        let mut message = SwapTiers::zeroed();
        message.client_id = self.room.next_id();
        (message.from, message.to) = (from.into(), to.into());
        (message.vru, message.resource) = (vru.into(), resource as u8);
        self.room.apply(self.operator, &message);
        self.room.machine.check_conservation();
        self.room.refusal()
    }

    fn rate(&mut self, rate: [u32; 2], bounds: [[u32; 2]; 2], fixed: bool) -> Option<Reject> {
        let mut message = SetRate::zeroed();
        message.client_id = self.room.next_id();
        message.to = 1.into();
        message.rate = rate.map(U32::new);
        [message.low, message.high] = bounds.map(|bound| bound.map(U32::new));
        message.fixed = fixed.into();
        self.room.apply(self.operator, &message);
        self.room.refusal()
    }

    /// A second in which the second tier's instance used so many VRUs. Returns the swap of demand,
    /// and the rate that it moved to.
    fn second(&mut self, used_vru: u64) -> (Option<TierSwap>, Option<[u32; 2]>) {
        self.room.use_credits(1, CPU as u8, used_vru * 1000);
        self.room.tick(1000);
        self.room.machine.check_conservation();
        let rate = self.room.said::<RateMoved>().first().map(|(_, m)| m.rate.map(U32::get));
        (self.room.said::<TierSwap>().first().map(|(_, m)| *m), rate)
    }
}

#[test]
fn what_nobody_reserved_earns_for_its_pool_up_to_the_cap() {
    let mut host = Host::new(None);
    host.room.tick(1000);
    assert_eq!(host.tiers(), [(100, 80_000), (100, 100_000), (100, 80_000)]);
    host.room.tick(100 * CAP_S * 1000);
    let full = [80, 100, 80].map(|idle| (100, idle * CAP_S * 1000));
    assert_eq!(host.tiers(), full);
    host.room.machine.check_conservation();
}

#[test]
fn a_swap_moves_capacity_and_credits_at_the_rate_and_the_rest_stays() {
    let mut host = Host::new(None);
    assert_eq!(host.rate([2, 3], [[0, 0]; 2], false), None);
    host.room.grant(host.operator, 0, 1_000_000);
    host.room.grant(host.operator, 1, 1_000_000);
    host.room.tick(10_000);
    let before = host.tiers();
    assert_eq!(before[0], (100, 800_000));
    assert_eq!(host.swap(0, 1, CPU, 10), None);
    // Six for nine: the tenth stays.
    assert_eq!(host.room.value(), 6);
    let swap = host.room.one::<TierSwap>();
    let vru = (swap.left_vru.get(), swap.arrived_vru.get(), swap.rest_vru.get());
    assert_eq!(vru, (9, 6, 1));
    let milli = (swap.left_millicredits.get(), swap.arrived_millicredits.get());
    assert_eq!(milli, (540_000, 360_000));
    // Both tiers' capacities are told, and to the instances the bursts that these bound.
    let resized = host.room.said::<Resized>();
    let resized: Vec<_> =
        resized.iter().map(|(_, m)| (m.tier.get(), m.capacity_vru.get())).collect();
    assert_eq!(resized, [(0, 91), (1, 106)]);
    let caps = host.room.said::<Entitled>();
    let caps: Vec<_> = caps.iter().map(|(_, m)| (m.instance.get(), m.vru.get())).collect();
    assert_eq!(caps, [(0, 91), (1, 106)]);
    assert_eq!(host.tiers(), [(91, 260_000), before[1], (106, before[2].1 + 360_000)]);
    for instance in [0, 1] {
        let row = host.room.instance_row(instance);
        assert_eq!(u32::from(row.tier.get()), instance, "nobody notices");
        assert_eq!(row.baseline_vru[0].get(), 20);
    }
}

#[test]
fn a_refused_swap_changes_nothing_and_says_why() {
    let mut host = Host::new(None);
    host.room.tick(5_000);
    let before = host.tiers();
    let refused = |host: &mut Host, from, to, resource, vru, why| {
        assert_eq!(host.swap(from, to, resource, vru), Some(why));
        assert!(host.room.said::<TierSwap>().is_empty() && host.room.said::<Resized>().is_empty());
        assert_eq!(host.tiers(), before, "{why}");
    };
    refused(&mut host, 0, 2, CPU, 1, Reject::UnknownTier);
    refused(&mut host, 7, 1, CPU, 1, Reject::UnknownTier);
    refused(&mut host, 1, 1, CPU, 1, Reject::UnknownTier);
    refused(&mut host, 1, 0, Resource::Memory, 1, Reject::UnknownBook);
    // The destination has none of it.
    refused(&mut host, 0, 1, Resource::Memory, 1, Reject::TierFull);
    refused(&mut host, 0, 1, CPU, 0, Reject::BadQuantity);
    // 20 of 100 are reserved.
    refused(&mut host, 0, 1, CPU, 81, Reject::InsufficientCapacity);
    // 400 credits are in the pool: six VRUs and a bit.
    refused(&mut host, 0, 1, CPU, 7, Reject::PoolTooSmall);
    assert_eq!(host.rate([1, 7], [[0, 0]; 2], false), None);
    refused(&mut host, 0, 1, CPU, 6, Reject::BadQuantity);
    assert_eq!(host.rate([1, 1], [[0, 0]; 2], false), None);
    assert_eq!(host.swap(0, 1, CPU, 6), None, "what is left is not refused");
}

#[test]
fn a_tier_is_never_swapped_away_whole() {
    let mut host = Host::new(None);
    host.room.tick(CAP_S * 1000);
    let mut remove = RemoveInstance::zeroed();
    remove.client_id = host.room.next_id();
    host.room.apply(host.operator, &remove);
    assert_eq!(host.swap(0, 1, CPU, 100), Some(Reject::InsufficientCapacity));
    assert_eq!(host.swap(0, 1, CPU, 99), None);
    assert_eq!(host.swap(1, 0, CPU, 1), None, "it takes some back");
}

#[test]
fn a_rate_stays_in_its_bounds_and_these_in_theirs() {
    let mut host = Host::new(None);
    let keep = [[0, 0]; 2];
    for (rate, bounds) in [
        ([0, 1], keep),
        ([1, 0], keep),
        ([1001, 1], keep),
        ([1, 1], [[2, 1], [3, 1]]),
        ([1, 1], [[1, 2], [9, 10]]),
        ([1, 1], [[1, 1001], [1, 1]]),
        ([1, 1], [[1, 1], [1001, 1]]),
        ([1, 1], [[0, 1], [0, 0]]),
    ] {
        let refused = host.rate(rate, bounds, false);
        assert_eq!(refused, Some(Reject::RateOutOfBounds), "{rate:?} {bounds:?}");
    }
    assert_eq!(host.rate([2, 2], [[1, 2], [1, 1]], false), None);
    assert_eq!(host.rate([11, 10], keep, false), Some(Reject::RateOutOfBounds));
    assert_eq!(host.rate([3, 4], keep, false), None);
    host.room.apply(ANY, &QueryExchanges { from: 0.into() });
    let row = host.room.one::<ExchangeRow>();
    let of = |rate: [U32; 2]| rate.map(U32::get);
    assert_eq!((of(row.rate), of(row.low), of(row.high)), ([3, 4], [1, 2], [1, 1]));
}

#[test]
fn demand_swaps_only_after_it_has_stood_for_as_long_as_it_must() {
    let mut host = Host::new(Some(demand()));
    host.room.tick(60_000);
    // Saturated from 80 VRUs on; twice, then not, starts anew.
    let demands = [80, 80, 79, 80, 80];
    assert!(demands.iter().all(|&used| host.second(used).0.is_none()));
    let swap = host.second(80).0.expect("the third in a row");
    // At the lower bound by now, 2/5: four for ten.
    assert_eq!((swap.left_vru.get(), swap.arrived_vru.get()), (10, 4));
    assert_eq!(host.tiers()[0].0, 90);
    // The destination has 104: 83 are no longer saturation.
    assert!((0..6).all(|_| host.second(83).0.is_none()));
    // 20 reserved of 67 are still 30%: the source gives until then and no further.
    let mut given = 0;
    for _ in 0..40 {
        given += host.second(200).0.map_or(0, |swap| swap.left_vru.get());
    }
    assert!(given > 10 && host.tiers()[0].0 >= 67, "{given} {:?}", host.tiers());
    assert!(host.tiers()[0].0 < 70, "{:?}", host.tiers());
}

#[test]
fn demand_moves_the_rate_within_its_bounds_unless_it_is_fixed() {
    let mut host = Host::new(Some(demand()));
    let moves: Vec<_> = (0..4).filter_map(|_| host.second(90).1).collect();
    assert_eq!(moves, [[450_000, 1_000_000], [405_000, 1_000_000], [2, 5]], "dearer");
    let calm: Vec<_> = (0..8).filter_map(|_| host.second(0).1).collect();
    assert_eq!(calm.last(), Some(&[3, 5]), "cheaper, up to the bound");
    assert_eq!(host.rate([1, 2], [[0, 0]; 2], true), None);
    assert!((0..8).all(|_| host.second(90).1.is_none()), "an operator's word stands");
}

/// Two tiers with storage, a VRU of the second's being three times as large.
fn storage() -> Host {
    let io = Resource::BlockIo;
    let books = [book(0, io), DefineBook { vru_size: 30.into(), ..book(1, io) }];
    let mut host = Host::of(None, &books);
    host.room.deposit(host.operator, 0, 1_000_000);
    host
}

impl Host {
    /// Instance 0 bids for storage of a tier: its lease, or why not.
    fn lease(
        &mut self,
        tier: u16,
        amount: u32,
        percent: bool,
        expires_ms: u64,
    ) -> Result<u64, Reject> {
        let mut message = BidLease::zeroed();
        message.client_id = self.room.next_id();
        message.amount = amount.into();
        message.percent = percent.into();
        message.rent_ticks = 9.into();
        message.class = 1;
        (message.resource, message.storage) = (Resource::BlockIo as u8, 1);
        (message.tier, message.expires_at_ms) = (tier.into(), expires_ms.into());
        self.room.apply(self.operator, &message);
        self.room.machine.check_conservation();
        self.room.refusal().map_or_else(|| Ok(self.room.value()), Err)
    }

    /// Where the disks of instance 0 were told to belong, and its VRUs there.
    fn told(&self) -> Vec<(u16, u64)> {
        let told = self.room.said::<Stored>();
        told.iter().map(|(_, m)| (m.tier.get(), m.vru.get())).collect()
    }
}

#[test]
fn storage_of_another_tier_is_leased_and_the_disks_come_home() {
    let mut host = storage();
    let now_ms = host.room.time_ns / 1_000_000;
    // 20 VRUs of 10 are 6 of 30, and two thirds.
    let lease = host.lease(1, 100, true, now_ms + 4000).expect("a lease");
    assert_eq!(host.told(), [(1, 6)]);
    assert!(host.room.said::<Entitled>().is_empty(), "at home nothing changes");
    assert_eq!(host.room.recovered().machine.stored(0), (1, 6, 30), "after a crash too");
    host.room.tick(2000);
    // Two seconds of 6 VRUs of 30 are 36 credits of its own; it earned 20 a second.
    let free = |host: &mut Host| host.room.instance_row(0).free_millicredits[2].get();
    let before = free(&mut host);
    host.room.use_credits(0, Resource::BlockIo as u8, 40_000);
    assert_eq!(before - free(&mut host), 4_000, "what the lease covers costs no credits");
    host.room.tick(2000);
    assert_eq!(host.told(), [(0, 0)], "it expired");
    let moved = host.room.one::<LeaseMoved>();
    assert_eq!(moved.outcome, LeaseOutcome::Expired as u8);
    // Four seconds of six VRUs at the reserve rent of a tick.
    assert_eq!((moved.handle.get(), moved.paid_micro.get()), (lease, 24));
    let funds = host.room.account_row(0);
    assert_eq!(funds.free_micro.get(), 1_000_000 - 24, "nothing is held any more");
}

#[test]
fn storage_is_leased_once_at_a_time_of_another_tier_that_has_some() {
    let mut host = storage();
    for (tier, reject) in
        [(0, Reject::OwnTier), (2, Reject::UnknownTier), (99, Reject::UnknownTier)]
    {
        assert_eq!(host.lease(tier, 5, false, 0), Err(reject), "of tier {tier}");
        assert_eq!(host.lease(tier, 50, true, 0), Err(reject), "of tier {tier}");
    }
    let lease = host.lease(1, 81, false, 0);
    assert_eq!(host.lease(1, 5, false, 0), Err(Reject::LeasesFull), "its disks are in one place");
    assert_eq!(host.told(), [], "a refusal changes nothing");
    let cancel = CancelLease { client_id: host.room.next_id(), handle: lease.unwrap().into() };
    host.room.apply(host.operator, &cancel);
    assert_eq!(host.told(), [(0, 0)]);
    // The second's own instance reserved 20 of 100.
    host.lease(1, 81, false, 0).expect("another lease");
    assert_eq!(host.told(), [(1, 80)], "what there is");

    let mut without = Host::new(None);
    assert_eq!(without.lease(1, 5, false, 0), Err(Reject::UnknownBook), "it has no block I/O");
}

/// `hvctl --json` against a daemon.
struct Operator<'a>(&'a Daemon);

impl Operator<'_> {
    fn run(&self, line: &str) -> Output {
        let hvctl = hvctl();
        let socket = format!("unix:{}", self.0.path("socket").display());
        let mut command = Command::new(hvctl);
        command.args(["--connect", &socket, "--json"]).args(line.split(' '));
        command.output().expect("run hvctl")
    }

    fn rows(&self, line: &str) -> Vec<Value> {
        let output = self.run(line);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "hvctl {line}: {said}");
        let text = String::from_utf8(output.stdout).expect("text");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn refused(&self, line: &str) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "hvctl {line}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Capacity and pool of a tier's processors.
    fn tier(&self, name: &str) -> (u64, u64) {
        let rows = self.rows("tier list");
        let row = rows.iter().find(|row| row["name"] == name && row["resource"] == "cpu");
        let row = row.expect("the tier");
        let number = |key: &str| row[key].as_u64().expect("a number");
        (number("capacity_vru"), number("pool_millicredits"))
    }

    /// The quota that a tier's `cpu.max` is to have.
    fn cap(&self, tier: u64) -> Option<String> {
        let rows = self.rows("limits");
        let row = rows.iter().find(|row| row["tier"] == tier && row["file"] == "cpu.max")?;
        assert_eq!(row["state"], "dry run");
        Some(row["wanted"].as_str()?.to_owned())
    }
}

const DEMAND: &str = "\n[[exchange]]\nfrom = \"silver\"\nto = \"platinum\"\nresource = \"memory\"\n\
    rate = \"1/2\"\nlow = \"1/4\"\nhigh = \"1\"\nevery_ms = 100\nsaturated_percent = 75\nlooks = 2\n\
    step_vru = 4\n";

#[test]
fn an_operator_swaps_with_hvctl_and_everybody_concerned_is_told() {
    let setup = Setup::small().key("tick_ms", "100").key("quantum_ms", "10");
    let mut daemon = Daemon::start(&setup);
    let operator = Operator(&daemon);
    eventually("a cap on each tier", || (operator.cap(3)? == "3200000 100000").then_some(()));
    eventually("a full pool", || (operator.tier("bronze").1 > 3_000_000).then_some(()));
    let refused = operator.refused("tier swap bronze gold accelerator 1");
    assert!(refused.contains("unknown book"), "{refused}");
    let refused = operator.refused("tier swap bronze gold cpu 3200");
    assert!(refused.contains("insufficient capacity"), "{refused}");
    let refused = operator.refused("tier swap bronze gold cpu 3199");
    assert!(refused.contains("pool") && refused.contains("hvctl tier list"), "{refused}");
    assert_eq!((operator.tier("bronze").0, operator.tier("gold").0), (3200, 3200));

    operator.rows("tier rate bronze gold cpu 2/3 --low 1/2 --high 1");
    assert!(operator.refused("tier rate bronze gold cpu 2").contains("out of bounds"));
    let exchange = &operator.rows("tier exchanges")[0];
    assert_eq!((&exchange["rate"], &exchange["high"]), (&"2/3".into(), &"1/1".into()));
    let swapped = operator.rows("tier swap bronze gold cpu 40");
    assert_eq!((&swapped[0]["arrived_vru"], &swapped[0]["offered_vru"]), (&26.into(), &40.into()));
    assert_eq!((operator.tier("bronze").0, operator.tier("gold").0), (3161, 3226));
    eventually("the caps to follow", || {
        let moved = operator.cap(0)? == "3161000 100000" && operator.cap(2)? == "3226000 100000";
        moved.then_some(())
    });
    operator.rows("ledger");
    let lines = eventually("the swap in the audit trail", || {
        let rows = operator.rows("audit");
        let of = |what: &str| rows.iter().find(|row| row["what"] == what).cloned();
        Some([of("tier out")?, of("tier in")?, of("tier rest")?, of("pool in")?, of("at 2/3")?])
    });
    assert_eq!((&lines[0]["amount_vru"], &lines[1]["amount_vru"]), (&39.into(), &26.into()));
    assert_eq!(
        (&lines[2]["amount_vru"], &lines[3]["amount_millicredits"]),
        (&1.into(), &(26 * 60_000).into())
    );

    // Told once, and again from the same place after a crash.
    let told = |daemon: &Daemon| {
        let start = Place { sequence: 1, part: 0 };
        let client = daemon.client(&Identity::observer());
        let mut subscription = Subscription::begin(client, start, TELL_TIERS).expect("notices");
        let mut told = Vec::new();
        loop {
            let wait = vendue_tests::daemon::PATIENCE;
            match subscription.next(wait).expect("a connection").expect("a notice") {
                Notice::Tiers(m) => told.push(m),
                Notice::CaughtUp(_) => return told,
                other => panic!("{other:?}"),
            }
        }
    };
    let before = told(&daemon);
    assert_eq!(before.len(), 1);
    let swap = before[0];
    assert_eq!((swap.from.get(), swap.to.get(), swap.cause), (0, 2, SwapTiers::KIND));
    assert_eq!((swap.left_vru.get(), swap.arrived_vru.get(), swap.rest_vru.get()), (39, 26, 1));
    daemon.kill_9();
    daemon.launch();
    assert_eq!(told(&daemon), before);
    let operator = Operator(&daemon);
    assert_eq!((operator.tier("bronze").0, operator.tier("gold").0), (3161, 3226));
    eventually("the caps again", || (operator.cap(0)? == "3161000 100000").then_some(()));
    assert_eq!(operator.rows("tier exchanges")[0]["rate"], "2/3");
}

#[test]
fn demand_swaps_as_configured_and_the_configuration_is_part_of_the_journal() {
    let setup = Setup::small().key("tick_ms", "100").with(DEMAND);
    let mut daemon = Daemon::start(&setup);
    let operator = Operator(&daemon);
    operator.rows("account create acme");
    // Three quarters of platinum's memory; silver has nobody.
    let place = format!("pid:{}", std::process::id());
    operator.rows(&format!(
        "instance adopt big --account acme --tier platinum --memory 3072 --cgroup {place}"
    ));
    let rows = || operator.rows("tier list");
    let memory = |name: &str| {
        let rows = rows();
        let row = rows.iter().find(|row| row["name"] == name && row["resource"] == "memory");
        row.and_then(|row| row["capacity_vru"].as_u64()).expect("memory")
    };
    eventually("platinum to have more", || (memory("platinum") > 4096).then_some(()));
    assert!(memory("silver") < 4096);
    // At 3072 of 4098 it is not saturated any more.
    assert_eq!((memory("silver"), memory("platinum")), (4092, 4098));
    let mut client = daemon.client(&Identity::operator());
    let rows = eventually("the swap in the journal", || {
        let rows = audit(&mut client);
        rows.iter().any(|row| text(&row.what) == "tier in").then_some(rows)
    });
    let swap = rows.iter().find(|row| text(&row.what) == "tier in").expect("the swap");
    assert_eq!((swap.session.get(), swap.amount.get()), (0, 2), "the daemon itself");
    drop(client);
    daemon.kill_9();
    daemon.configure(&Setup::small().key("tick_ms", "100"));
    let (_, said) = daemon.launch_refused();
    assert!(said.contains("[[exchange]] list"), "{said}");
    daemon.configure(&setup);
    daemon.launch();
    let operator = Operator(&daemon);
    assert_eq!(operator.rows("tier exchanges")[0]["every_ms"], 100);
}

#[test]
fn a_tier_is_drained_deleted_and_defined_while_the_daemon_runs() {
    let spare = "\n[[tier]]\nname = \"place\"\nspare = true\ncpu = { capacity_vru = 1 }\n";
    let setup = Setup::small().key("tick_ms", "100").with(spare);
    let mut daemon = Daemon::start(&setup);
    let operator = Operator(&daemon);
    operator.rows("account create acme --sells-to all --buys-from all");
    let adopt = |name: &str, tier: &str| {
        format!(
            "instance adopt {name} --account acme --tier {tier} --cpu 100 --cgroup pid:{}",
            std::process::id()
        )
    };
    let state = |number: usize| {
        let rows = operator.rows("tier list");
        let row = rows.iter().find(|row| row["tier"] == number).expect("the tier").clone();
        row["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!((state(0), state(4)), ("live".to_owned(), "spare".to_owned()));
    assert!(operator.refused(&adopt("web", "place")).contains("unknown tier"));
    operator.rows("tier define place quartz cpu=500 --vru-size cpu=20");
    assert_eq!((state(4), operator.tier("quartz").0), ("live".to_owned(), 500));
    eventually("its cap", || (operator.cap(4)? == "1000000 100000").then_some(()));
    assert!(operator.refused("tier define quartz other cpu=1").contains("another state"));
    operator.rows(&adopt("web", "quartz"));
    let order = "order buy web --resource cpu --price 1 --quantity 1";
    operator.rows("account deposit acme 100");
    operator.rows(order);
    assert!(operator.refused("tier resize quartz cpu=99").contains("insufficient capacity"));
    operator.rows("tier resize quartz cpu=100");
    eventually("its new cap", || (operator.cap(4)? == "200000 100000").then_some(()));
    assert!(operator.refused("tier delete quartz").contains("another state"));

    operator.rows("tier drain quartz");
    assert_eq!(state(4), "draining");
    assert!(operator.refused(order).contains("book halted"));
    assert!(operator.refused("phase 17 continuous").contains("another state"));
    assert!(operator.refused(&adopt("two", "quartz")).contains("another state"));
    assert!(operator.refused("tier swap gold quartz cpu 1").contains("another state"));
    assert!(operator.refused("tier delete quartz").contains("not empty"));
    operator.rows("instance remove web");
    operator.rows("tier delete quartz");
    assert_eq!((state(4), operator.tier("quartz").1), ("spare".to_owned(), 0), "its pool burnt");
    eventually("no cap", || operator.cap(4).is_none().then_some(()));
    operator.rows("tier define quartz onyx cpu=7");
    operator.rows("tier drain onyx");
    operator.rows("tier resume onyx");
    operator.rows("ledger");
    daemon.kill_9();
    daemon.launch();
    let operator = Operator(&daemon);
    assert_eq!(operator.tier("onyx").0, 7);
    operator.rows(&adopt("web", "onyx").replace("--cpu 100", "--cpu 7"));
    operator.rows(order);
}
