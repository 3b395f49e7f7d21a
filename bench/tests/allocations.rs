//! Nothing on the way of a request allocates: neither the machine, nor the threads of a real daemon
//! between its gateway and its journal.
//!
//! Allocations are counted for each thread by this program's allocator, so it has a process of its
//! own, and runs its parts one after the other.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use vendue_bench::daemon::{Running, Setup, account, instance};
use vendue_bench::flow::{CANCEL, Totals};
use vendue_bench::generate::generate;
use vendue_bench::ours::Ours;
use vendue_bench::rtt::{Peer, Trader};
use vendue_bench::run::Matcher;
use vendue_wire::client::Client;
use vendue_wire::code::{Resource, Side};
use vendue_wire::message::{Accepted, Filled, NewOrder};
use zerocopy::FromZeros;

/// Threads that can be told apart.
const THREADS_MAX: usize = 256;
/// Allocations and the thread's number in the kernel, by place.
static COUNTS: [AtomicU64; THREADS_MAX] = [const { AtomicU64::new(0) }; THREADS_MAX];
static THREADS: [AtomicI32; THREADS_MAX] = [const { AtomicI32::new(0) }; THREADS_MAX];
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static PLACE: Cell<usize> = const { Cell::new(usize::MAX) };
}

struct Counting;

fn count() {
    // A thread that ends allocates nothing that matters here.
    let Ok(mut place) = PLACE.try_with(Cell::get) else { return };
    if place == usize::MAX {
        place = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(place < THREADS_MAX, "more threads than can be told apart");
        THREADS[place].store(nix::unistd::gettid().as_raw(), Ordering::Relaxed);
        PLACE.set(place);
    }
    COUNTS[place].fetch_add(1, Ordering::Relaxed);
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    // SAFETY: the caller's promises are passed on.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as promised to us.
        unsafe { System.alloc(layout) }
    }

    // SAFETY: the caller's promises are passed on.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as promised to us.
        unsafe { System.dealloc(at, layout) }
    }

    // SAFETY: the caller's promises are passed on.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as promised to us.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations so far of each thread that lives, by its name.
fn by_thread() -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for place in 0..NEXT.load(Ordering::Relaxed) {
        let thread = THREADS[place].load(Ordering::Relaxed);
        let Ok(name) = std::fs::read_to_string(format!("/proc/self/task/{thread}/comm")) else {
            continue;
        };
        let count = COUNTS[place].load(Ordering::Relaxed);
        found.insert(name.trim().to_owned(), count);
    }
    found
}

fn main() {
    the_machine_allocates_nothing();
    // The device below the target directory may be slow: this says nothing of time.
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for threads in ["each", "one"] {
        for sync in ["always", "never"] {
            the_daemon_allocates_nothing(directory, threads, sync);
        }
    }
}

fn the_machine_allocates_nothing() {
    let flow = generate(41, 7, 5_000, 100_000);
    let mut ours = Ours::new(flow.books, flow.expected.live_max + 1);
    let (mut handles, mut totals) = (vec![0; flow.records.len() + 1], Totals::default());
    let before = COUNTS[PLACE.get()].load(Ordering::Relaxed);
    for record in &flow.records {
        let (mut record, id) = (*record, record.id as usize);
        if record.kind == CANCEL {
            record.set_handle(handles[id]);
        }
        let handle = ours.take(&ours.input(&record), |fill| totals.count(fill));
        if record.kind != CANCEL {
            handles[id] = handle;
        }
    }
    let after = COUNTS[PLACE.get()].load(Ordering::Relaxed);
    assert_eq!(totals, flow.expected.swept);
    assert_eq!(after - before, 0, "the machine allocated while it executed orders");
    println!("ok: the machine, {} commands", flow.records.len());
}

/// Requests after which every buffer has its size: reports kept, tape, batches.
const WARM_UP: u64 = 20_000;
const MEASURED: u64 = 20_000;
/// More trades than the tape keeps, and some more.
const TRADES_WARM_UP: u32 = 5_000;
const TRADES_MEASURED: u32 = 2_000;
/// Longest wait for a report.
const PATIENCE: Duration = Duration::from_secs(10);

fn the_daemon_allocates_nothing(directory: &Path, threads: &str, sync: &str) {
    let setup = Setup::new()
        .key("threads", &format!("\"{threads}\""))
        .key("sync", &format!("\"{sync}\""))
        // One segment: the next one's file is opened once in so many megabytes.
        .key("segment_bytes", "67108864");
    let mut running = Running::start(&setup, directory).expect("a daemon");
    let mut trader = Trader::new(&running, &running.shm(), "trader").expect("a session");
    let mut market = Market::open(&running);
    trade(&mut trader, WARM_UP);
    market.trade(TRADES_WARM_UP);
    let before = by_thread();
    trade(&mut trader, MEASURED);
    market.trade(TRADES_MEASURED);
    let after = by_thread();
    for thread in ["gateway", "core", "journal"] {
        let counts = [&before, &after].map(|counts| counts.get(thread));
        match counts {
            [Some(before), Some(after)] => assert_eq!(
                after - before,
                0,
                "the thread {thread} allocated during {MEASURED} requests \
                 (threads = {threads}, sync = {sync})"
            ),
            _ => assert!(threads == "one" && thread != "gateway", "no thread {thread}"),
        }
    }
    drop((trader, market));
    running.stop().expect("a clean stop");
    println!("ok: the daemon, threads = {threads}, sync = {sync}, {MEASURED} requests");
}

/// Two instances that trade with one another.
struct Market {
    client: Client,
    seller: u32,
    buyer: u32,
}

impl Market {
    fn open(running: &Running) -> Market {
        let mut client = running.operator(&running.unix()).expect("a session");
        let mut side = |name, millicredits| {
            let account = account(&mut client, name).expect("an account");
            instance(&mut client, account, name, (Resource::Cpu, 1), millicredits)
                .expect("an instance")
        };
        let (seller, buyer) = (side("seller", 1 << 40), side("buyer", 0));
        Market { client, seller, buyer }
    }

    fn trade(&mut self, count: u32) {
        for _ in 0..count {
            for (instance, side) in [(self.seller, Side::Sell), (self.buyer, Side::Buy)] {
                let order = NewOrder {
                    client_id: self.client.next_client_id().into(),
                    instance: instance.into(),
                    price_ticks: 10.into(),
                    quantity: 1.into(),
                    side: side as u8,
                    ..NewOrder::new_zeroed()
                };
                self.client.call_for::<Accepted, _>(&order).expect("accepted");
            }
            // Each side is told of the trade; both are this session's.
            for _ in 0..2 {
                let frame = self.client.recv(PATIENCE).expect("a report").expect("in time");
                assert!(frame.message::<Filled>().is_some(), "kind {:#x}", frame.kind());
            }
        }
    }
}

/// Keeps some requests under way.
fn trade(trader: &mut Trader, count: u64) {
    const DEPTH: u64 = 32;
    let (mut sent, mut done) = (0, 0);
    while done < count {
        while sent - done < DEPTH && sent < count {
            trader.send().expect("sent");
            sent += 1;
        }
        trader.flush().expect("flushed");
        done += trader.take(true).expect("answered");
    }
}
