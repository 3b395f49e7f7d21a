//! The shared-memory ring between two threads, beside the least that two threads can do: a bare
//! array of messages with two counters, and for a single message there and back two bare counters.

use std::cell::UnsafeCell;
use std::hint::{black_box, spin_loop};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crossbeam::utils::CachePadded;
use vendue_wire::doorbell;
use vendue_wire::ring::{self, Consumer, Producer};

use crate::pin::{Processors, pin};
use crate::report::Pair;

/// Bytes of a message: the frame of a new order.
const MESSAGE_BYTES: usize = 64;
/// Messages that one publication makes visible in the batched stream.
const BATCH: u64 = 64;
/// Messages of one run of a stream.
const STREAM: u64 = 2_000_000;
/// Messages of one run there and back.
const ROUND_TRIPS: u64 = 200_000;
/// Messages that the bare array holds; the ring has as many bytes for payload and headers.
const CAPACITY: u64 = 4096;

type Message = [u8; MESSAGE_BYTES];

/// Measures the ring: `ring.batch`, `ring.one-by-one`, `ring.round-trip`.
///
/// # Errors
/// The system gives no memory, threads or processors.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), std::io::Error> {
    let method = format!(
        "{runs} interleaved runs of two spinning threads on CPUs {} and {}, messages of \
         {MESSAGE_BYTES} bytes, every one checked; ",
        processors.asking, processors.answering
    );
    for (name, batch) in [("ring.batch", BATCH), ("ring.one-by-one", 1)] {
        let (mut ours, mut floor) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            floor.push(bare_stream(processors, batch)?);
            ours.push(ring_stream(processors, batch)?);
        }
        let pair = Pair::new(name, "ns/message", &ours, &floor)
            .fact("messages_a_publication", batch)
            .method(format!(
                "{method}published {batch} at a time; the floor copies the same bytes through a \
                 bare array with a counter each way"
            ));
        show(pair);
    }
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        floor.push(bare_round_trips(processors)?);
        ours.push(ring_round_trips(processors)?);
    }
    let pair = Pair::new("ring.round-trip", "ns/round trip", &ours, &floor)
        .method(format!("{method}one at a time there and back; the floor is two bare counters"));
    show(pair);
    Ok(())
}

/// Runs `answer` on the other processor and `ask` on this one; ns per `count` until both are done.
fn timed(
    processors: Processors,
    count: u64,
    ask: impl FnOnce(),
    answer: impl FnOnce() + Send,
) -> Result<f64, std::io::Error> {
    pin(processors.asking)?;
    let ready = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let other = std::thread::Builder::new().spawn_scoped(scope, || {
            let pinned = pin(processors.answering);
            ready.store(1, Ordering::Release);
            answer();
            pinned
        })?;
        while ready.load(Ordering::Acquire) == 0 {
            std::thread::yield_now();
        }
        let start = Instant::now();
        ask();
        other.join().expect("the answering thread asserts only what holds")?;
        Ok(start.elapsed().as_nanos() as f64 / count as f64)
    })
}

fn message(number: u64) -> Message {
    let mut message = [7; MESSAGE_BYTES];
    message[..8].copy_from_slice(&number.to_le_bytes());
    message
}

fn number(message: &[u8]) -> u64 {
    u64::from_le_bytes(*message.first_chunk().expect("a message has a number"))
}

fn new_ring() -> Result<(Producer, Consumer), std::io::Error> {
    // Nobody parks, so the bell is never rung.
    let (bell, _) = doorbell::pair()?;
    ring::pair((CAPACITY as usize * MESSAGE_BYTES).next_power_of_two(), bell)
}

fn push(ring: &mut Producer, message: &Message) {
    while ring.try_push(1, &[message]).is_err() {
        ring.flush();
        spin_loop();
    }
}

fn pop(ring: &mut Consumer) -> u64 {
    loop {
        if let Some(record) = ring.pop().expect("nobody else writes this ring") {
            return number(record.bytes);
        }
        spin_loop();
    }
}

fn ring_stream(processors: Processors, batch: u64) -> Result<f64, std::io::Error> {
    let (mut producer, mut consumer) = new_ring()?;
    let ask = || {
        for at in 0..STREAM {
            push(&mut producer, black_box(&message(at)));
            if at % batch == batch - 1 {
                producer.flush();
            }
        }
        producer.flush();
    };
    timed(processors, STREAM, ask, || (0..STREAM).for_each(|at| assert_eq!(pop(&mut consumer), at)))
}

fn ring_round_trips(processors: Processors) -> Result<f64, std::io::Error> {
    let ((mut there, mut arrived), (mut back, mut returned)) = (new_ring()?, new_ring()?);
    let ask = || {
        for at in 0..ROUND_TRIPS {
            push(&mut there, black_box(&message(at)));
            there.flush();
            assert_eq!(pop(&mut returned), at);
        }
    };
    timed(processors, ROUND_TRIPS, ask, || {
        for _ in 0..ROUND_TRIPS {
            let at = pop(&mut arrived);
            push(&mut back, &message(at));
            back.flush();
        }
    })
}

fn bare_round_trips(processors: Processors) -> Result<f64, std::io::Error> {
    let [there, back] = [const { CachePadded::new(AtomicU64::new(0)) }; 2];
    let wait = |counter: &AtomicU64, at| {
        while counter.load(Ordering::Acquire) != at {
            spin_loop();
        }
    };
    let ask = || {
        for at in 1..=ROUND_TRIPS {
            there.store(at, Ordering::Release);
            wait(&back, at);
        }
    };
    timed(processors, ROUND_TRIPS, ask, || {
        for at in 1..=ROUND_TRIPS {
            wait(&there, at);
            back.store(at, Ordering::Release);
        }
    })
}

/// The bare array: what is between `read` and `written` belongs to the reader, the rest to the
/// writer.
struct Bare {
    slots: Vec<UnsafeCell<Message>>,
    written: CachePadded<AtomicU64>,
    read: CachePadded<AtomicU64>,
}

// SAFETY: a slot is reached by one thread at a time: the writer touches it before `written` passes
// it and after `read` has, the reader in between; both counters are released and acquired.
unsafe impl Sync for Bare {}

impl Bare {
    fn slot(&self, at: u64) -> *mut Message {
        self.slots[(at % CAPACITY) as usize].get()
    }
}

fn bare_stream(processors: Processors, batch: u64) -> Result<f64, std::io::Error> {
    let bare = Arc::new(Bare {
        slots: (0..CAPACITY).map(|_| UnsafeCell::new([0; MESSAGE_BYTES])).collect(),
        written: CachePadded::new(AtomicU64::new(0)),
        read: CachePadded::new(AtomicU64::new(0)),
    });
    let ask = || {
        let mut read = 0;
        for at in 0..STREAM {
            while at - read == CAPACITY {
                bare.written.store(at, Ordering::Release);
                read = bare.read.load(Ordering::Acquire);
                spin_loop();
            }
            // SAFETY: the reader is past the slot's last message (`read`) and not told of the next.
            unsafe { *bare.slot(at) = *black_box(&message(at)) };
            if at % batch == batch - 1 {
                bare.written.store(at + 1, Ordering::Release);
            }
        }
        bare.written.store(STREAM, Ordering::Release);
    };
    timed(processors, STREAM, ask, || {
        let mut written = 0;
        for at in 0..STREAM {
            while at == written {
                bare.read.store(at, Ordering::Release);
                written = bare.written.load(Ordering::Acquire);
                spin_loop();
            }
            // SAFETY: the writer has published the slot, and overwrites it only once `read` says so.
            let message = unsafe { *bare.slot(at) };
            assert_eq!(number(black_box(&message)), at);
            if at % (CAPACITY / 4) == 0 {
                bare.read.store(at, Ordering::Release);
            }
        }
    })
}
