//! Model checks: loom runs each model under every interleaving (up to a bound on preemptions) and
//! every value a relaxed load may return. Run with
//! `RUSTFLAGS="--cfg loom" cargo test -p vendue-wire --release --lib loom_tests`.

use crate::board::{seqlock_read, seqlock_write};
use crate::doorbell;
use crate::ring::{self, Consumer, Producer, PushError};
use crate::sync::AtomicU64;
use loom::cell::UnsafeCell;
use loom::thread;
use std::sync::Arc;

/// Preemptions explored per run. Known bugs of such algorithms show with two.
const PREEMPTIONS_MAX: usize = 3;

fn check(model: impl Fn() + Sync + Send + 'static) {
    check_with(PREEMPTIONS_MAX, model);
}

/// With three threads three preemptions each take too long.
fn check_with(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(model);
}

/// A ring of eight words; records of two payload words take three.
fn small_ring() -> (Producer, Consumer) {
    ring::pair(ring::CAPACITY_BYTES_MIN, doorbell::pair().unwrap().0).unwrap()
}

fn push(producer: &mut Producer, number: u8) {
    while let Err(error) = producer.try_push(u32::from(number), &[&[number; 8], &[number + 1; 8]]) {
        assert_eq!(error, PushError::Full);
        producer.flush();
        thread::yield_now();
    }
}

/// True if a record was there; it must be record `number`, whole.
fn pop(consumer: &mut Consumer, number: u8) -> bool {
    let Some(record) = consumer.pop().unwrap() else { return false };
    assert_eq!(record.tag, u32::from(number));
    assert_eq!(record.bytes[..8], [number; 8]);
    assert_eq!(record.bytes[8..], [number + 1; 8]);
    true
}

#[test]
fn batches_that_wrap_arrive_whole_and_in_order() {
    check(|| {
        let (mut producer, mut consumer) = small_ring();
        let pushing = thread::spawn(move || {
            // Two make a batch; the third wraps and has to wait for space.
            for number in 1..=3 {
                push(&mut producer, number);
                if number >= 2 {
                    producer.flush();
                }
            }
        });
        for number in 1..=3 {
            while !pop(&mut consumer, number) {
                thread::yield_now();
            }
        }
        pushing.join().unwrap();
        assert!(consumer.is_empty());
    });
}

/// Loom does not let a load drift behind a later store, so stale payload cannot show a missing
/// ordering of reading before reuse. A cell does: loom refuses access to it without that order.
#[test]
fn space_is_reused_only_after_it_was_read() {
    check(|| {
        let (mut producer, mut consumer) = small_ring();
        // Each record fills the ring, so the cell may be rewritten when the next one fits.
        let length = producer.memory().record_bytes_max();
        #[allow(
            clippy::arc_with_non_send_sync,
            reason = "whether it may be shared is the question"
        )]
        let space = Arc::new(UnsafeCell::new(0_u64));
        let written = space.clone();
        let pushing = thread::spawn(move || {
            for number in 1..=2 {
                while !producer.record_fits(length) {
                    thread::yield_now();
                }
                // SAFETY: the consumer has returned the ring's only space; loom checks it.
                written.with_mut(|cell| unsafe { *cell = number });
                producer.try_push(0, &[&[0; ring::CAPACITY_BYTES_MIN][..length]]).unwrap();
                producer.flush();
            }
        });
        for number in 1..=2 {
            while consumer.is_empty() {
                thread::yield_now();
            }
            // SAFETY: the producer has published and waits for space; loom checks it.
            assert_eq!(space.with(|cell| unsafe { *cell }), number);
            consumer.pop().unwrap().unwrap();
        }
        pushing.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost() {
    check(|| {
        let (bell, doorbell) = doorbell::pair().unwrap();
        let (mut producer, mut consumer) = ring::pair(ring::CAPACITY_BYTES_MIN, bell).unwrap();
        let pushing = thread::spawn(move || {
            for number in 1..=2 {
                push(&mut producer, number);
                producer.flush();
            }
        });
        for number in 1..=2 {
            while !pop(&mut consumer, number) {
                if consumer.prepare_park() {
                    doorbell.wait(None).unwrap();
                    consumer.cancel_park();
                }
            }
        }
        pushing.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_with_two_rings_on_one_doorbell() {
    check(|| {
        let (bell, doorbell) = doorbell::pair().unwrap();
        let mut consumers = Vec::new();
        let mut threads = Vec::new();
        for number in 1..=2 {
            let (mut producer, consumer) =
                ring::pair(ring::CAPACITY_BYTES_MIN, bell.clone()).unwrap();
            consumers.push((consumer, number));
            threads.push(thread::spawn(move || {
                push(&mut producer, number);
                producer.flush();
            }));
        }
        loop {
            consumers.retain_mut(|(consumer, number)| !pop(consumer, *number));
            if consumers.is_empty() {
                break;
            }
            if consumers.iter_mut().all(|(consumer, _)| consumer.prepare_park()) {
                doorbell.wait(None).unwrap();
            }
            consumers.iter_mut().for_each(|(consumer, _)| consumer.cancel_park());
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// The daemon's publisher: shows an outcome only once the journal's cursor has passed it, and
/// while it holds one it waits for that cursor alone.
struct Publisher {
    outcomes: Consumer,
    durable: Consumer,
    doorbell: doorbell::Doorbell,
    through: u32,
    held: Option<u32>,
}

impl Publisher {
    /// The next outcome that is durable.
    fn next(&mut self) -> u32 {
        loop {
            while let Some(cursor) = self.durable.pop().unwrap() {
                self.through = self.through.max(cursor.tag);
            }
            if self.held.is_none() {
                self.held = self.outcomes.pop().unwrap().map(|outcome| outcome.tag);
            }
            if let Some(number) = self.held.take_if(|number| *number <= self.through) {
                return number;
            }
            let quiet = self.durable.prepare_park()
                && (self.held.is_some() || self.outcomes.prepare_park());
            if quiet {
                self.doorbell.wait(None).unwrap();
            }
            self.durable.cancel_park();
            self.outcomes.cancel_park();
        }
    }
}

/// A ring of numbers: the tag is the number.
fn numbers(bell: doorbell::Bell) -> (Producer, Consumer) {
    ring::pair(ring::CAPACITY_BYTES_MIN, bell).unwrap()
}

fn tell(producer: &mut Producer, number: u32) {
    producer.try_push(number, &[]).unwrap();
    producer.flush();
}

/// Whatever order journal and machine are done in, what is shown was written before, each outcome
/// is shown once and in order, and none waits for ever.
#[test]
fn nothing_is_shown_before_it_is_durable() {
    check_with(2, || {
        let (bell, doorbell) = doorbell::pair().unwrap();
        let (mut outcome, outcomes) = numbers(bell.clone());
        let (mut cursor, durable) = numbers(bell);
        #[allow(
            clippy::arc_with_non_send_sync,
            reason = "whether it may be shared is the question"
        )]
        let disk = Arc::new([UnsafeCell::new(0_u32), UnsafeCell::new(0)]);
        let written = disk.clone();
        let journal = thread::spawn(move || {
            for number in 1..=2_u32 {
                // SAFETY: the publisher reads this only behind the cursor; loom checks it.
                written[number as usize - 1].with_mut(|cell| unsafe { *cell = number });
                tell(&mut cursor, number);
            }
        });
        let machine = thread::spawn(move || (1..=2).for_each(|number| tell(&mut outcome, number)));
        let mut publisher = Publisher { outcomes, durable, doorbell, through: 0, held: None };
        for number in 1..=2_u32 {
            assert_eq!(publisher.next(), number);
            // SAFETY: the cursor has passed it; loom checks it.
            assert_eq!(disk[number as usize - 1].with(|cell| unsafe { *cell }), number);
        }
        journal.join().unwrap();
        machine.join().unwrap();
    });
}

/// Readers do not disturb one another, and one that meets a writer amid its write gets nothing.
#[test]
fn two_readers_of_the_board_see_whole_views() {
    check_with(2, || {
        let slot = Arc::new((AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]));
        let read = |slot: &(AtomicU64, [AtomicU64; 2])| {
            let mut values = [7; 2];
            if seqlock_read(&slot.0, &slot.1, &mut values) {
                assert!(values == [0, 0] || values == [1, 1], "torn: {values:?}");
            }
        };
        let (written, seen) = (slot.clone(), slot.clone());
        let writing = thread::spawn(move || seqlock_write(&written.0, &written.1, &[1, 1]));
        let reading = thread::spawn(move || read(&seen));
        read(&slot);
        reading.join().unwrap();
        writing.join().unwrap();
        let mut values = [7; 2];
        assert!(seqlock_read(&slot.0, &slot.1, &mut values) && values == [1, 1]);
        slot.0.store(3, crate::sync::Ordering::Relaxed);
        assert!(!seqlock_read(&slot.0, &slot.1, &mut values), "a write that never ends");
    });
}

#[test]
fn no_read_of_the_board_is_torn() {
    check(|| {
        let slot = Arc::new((AtomicU64::new(0), [AtomicU64::new(0), AtomicU64::new(0)]));
        let written = slot.clone();
        let writing = thread::spawn(move || {
            let (version, payload) = &*written;
            for number in 1..=2 {
                seqlock_write(version, payload, &[number, number]);
            }
        });
        let (version, payload) = &*slot;
        let mut last = 0;
        for _ in 0..2 {
            let mut values = [0; 2];
            if seqlock_read(version, payload, &mut values) {
                assert_eq!(values[0], values[1], "torn");
                assert!(values[0] >= last, "went back");
                last = values[0];
            }
        }
        writing.join().unwrap();
    });
}
