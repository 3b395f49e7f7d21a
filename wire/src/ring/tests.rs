use super::*;
use crate::doorbell;
use std::thread;

/// Generated input: the same numbers on every run and machine.
struct Generator(u64);

impl Generator {
    fn next(&mut self) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Operations of a long test; Miri interprets and a sanitizer is slow, so they get a sample.
const fn scaled(count: usize) -> usize {
    match () {
        () if cfg!(miri) => count.div_ceil(100_000),
        () if cfg!(sanitized) => count.div_ceil(20),
        () => count,
    }
}

fn ring(capacity_bytes: usize) -> (Producer, Consumer) {
    pair(capacity_bytes, doorbell::pair().unwrap().0).unwrap()
}

/// The bytes of record number `sequence`, `length` long.
fn content(sequence: u64, length: usize) -> Vec<u8> {
    let mut generator = Generator(sequence);
    let mut bytes: Vec<u8> = std::iter::repeat_with(|| generator.next().to_le_bytes())
        .take(length.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(length);
    bytes
}

/// Mostly small, sometimes up to `max`.
fn length_of(sequence: u64, max: usize) -> usize {
    let mut generator = Generator(!sequence);
    let bound = if generator.below(50) == 0 { max } else { max.min(150) };
    generator.below(bound + 1)
}

fn push_all(producer: &mut Producer, count: u64, max: usize, batch_max: usize) {
    let mut generator = Generator(7);
    let mut until_flush = 1;
    for sequence in 0..count {
        let bytes = content(sequence, length_of(sequence, max));
        let (front, back) = bytes.split_at(generator.below(bytes.len() + 1));
        while let Err(error) = producer.try_push(sequence as u32, &[front, back]) {
            assert_eq!(error, PushError::Full);
            assert!(Arc::strong_count(&producer.memory.mapping) > 1, "the consumer is gone");
            producer.flush();
            thread::yield_now();
        }
        until_flush -= 1;
        if until_flush == 0 {
            producer.flush();
            until_flush = 1 + generator.below(batch_max);
        }
    }
    producer.flush();
}

fn expect_record(consumer: &mut Consumer, sequence: u64, max: usize) -> bool {
    let Some(record) = consumer.pop().unwrap() else { return false };
    assert_eq!(record.tag, sequence as u32);
    assert_eq!(record.bytes, content(sequence, length_of(sequence, max)), "record {sequence}");
    true
}

#[test]
fn records_of_random_lengths_cross_threads_in_order_and_whole() {
    for (capacity_bytes, count) in [(64, scaled(100_000)), (1 << 16, scaled(2_000_000))] {
        let (mut producer, consumer) = ring(capacity_bytes);
        let max = producer.memory().record_bytes_max().min(scaled(1 << 20).max(500));
        thread::scope(|scope| {
            // Moved in, so that a side that fails is gone for the other, which then fails too.
            let mut consumer = consumer;
            let pushing = scope.spawn(move || {
                push_all(&mut producer, count as u64, max, 40);
                producer
            });
            for sequence in 0..count as u64 {
                while !expect_record(&mut consumer, sequence, max) {
                    assert!(!pushing.is_finished() || !consumer.is_empty(), "records are missing");
                    thread::yield_now();
                }
            }
            let mut producer = pushing.join().unwrap();
            assert_eq!(consumer.pop(), Ok(None));
            assert_eq!(producer.free_bytes(), capacity_bytes);
        });
    }
}

#[test]
#[cfg(not(miri))] // Miri has no ppoll.
fn a_parked_consumer_of_two_rings_misses_nothing() {
    const COUNT: u64 = 100_000;
    let (bell, doorbell) = doorbell::pair().unwrap();
    let (mut first, first_out) = pair(1 << 10, bell.clone()).unwrap();
    let (mut second, second_out) = pair(1 << 10, bell).unwrap();
    let (mut first_seen, mut second_seen) = (0, 0);
    thread::scope(|scope| {
        // Moved in, so that a side that fails is gone for the others, which then fail too.
        let (mut first_out, mut second_out, doorbell) = (first_out, second_out, doorbell);
        scope.spawn(move || push_all(&mut first, COUNT, 100, 1));
        scope.spawn(move || push_all(&mut second, COUNT, 100, 3));
        while first_seen < COUNT || second_seen < COUNT {
            while expect_record(&mut first_out, first_seen, 100) {
                first_seen += 1;
            }
            while expect_record(&mut second_out, second_seen, 100) {
                second_seen += 1;
            }
            if first_seen + second_seen == 2 * COUNT {
                break;
            }
            // No timeout: a lost wake-up hangs the test.
            if first_out.prepare_park() && second_out.prepare_park() {
                assert!(doorbell.wait(None).unwrap());
            }
            first_out.cancel_park();
            second_out.cancel_park();
        }
    });
}

#[test]
fn every_length_survives_the_wrap_at_every_offset() {
    const CAPACITY_BYTES: usize = 128;
    let stride = if cfg!(miri) { 41 } else { 1 };
    for offset in 0..CAPACITY_BYTES / WORD_BYTES {
        for length in (0..=CAPACITY_BYTES - WORD_BYTES).step_by(stride) {
            let (mut producer, mut consumer) = ring(CAPACITY_BYTES);
            for _ in 0..offset {
                producer.try_push(0, &[]).unwrap();
                producer.flush();
                consumer.pop().unwrap().unwrap();
            }
            consumer.release();
            let bytes = content(length as u64, length);
            producer.try_push(9, &[&bytes]).unwrap();
            producer.flush();
            assert_eq!(consumer.pop(), Ok(Some(Record { tag: 9, bytes: &bytes })));
            assert_eq!(consumer.pop(), Ok(None));
        }
    }
}

#[test]
fn parts_become_one_record_wherever_they_are_cut() {
    let bytes = content(1, 40);
    let (mut producer, mut consumer) = ring(256);
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let parts = [&bytes[..first], &bytes[first..second], &[], &bytes[second..]];
            producer.try_push(3, &parts).unwrap();
            producer.flush();
            assert_eq!(consumer.pop(), Ok(Some(Record { tag: 3, bytes: &bytes })));
            assert_eq!(consumer.pop(), Ok(None));
        }
    }
}

#[test]
fn nothing_is_visible_before_the_flush_and_everything_after() {
    let (mut producer, mut consumer) = ring(256);
    producer.try_push(1, &[b"one"]).unwrap();
    producer.try_push(2, &[b"two"]).unwrap();
    assert!(consumer.is_empty());
    assert_eq!(consumer.pop(), Ok(None));
    producer.flush();
    assert!(!consumer.is_empty());
    assert_eq!(consumer.pop(), Ok(Some(Record { tag: 1, bytes: b"one" })));
    assert_eq!(consumer.pop(), Ok(Some(Record { tag: 2, bytes: b"two" })));
    assert!(consumer.is_empty());
}

#[test]
fn a_full_ring_refuses_until_space_is_returned() {
    let (mut producer, mut consumer) = ring(256);
    for tag in 0..8 {
        assert_eq!(producer.free_bytes(), 256 - 32 * tag as usize);
        assert!(producer.record_fits(24));
        producer.try_push(tag, &[&[tag as u8; 24]]).unwrap();
    }
    assert!(!producer.record_fits(0));
    assert_eq!(producer.try_push(8, &[]), Err(PushError::Full));
    producer.flush();
    // One record of eight: less than the quarter at which space goes back by itself.
    consumer.pop().unwrap().unwrap();
    assert_eq!(producer.try_push(8, &[]), Err(PushError::Full));
    consumer.release();
    assert!(producer.record_fits(24) && !producer.record_fits(25));
    producer.try_push(8, &[&[8; 24]]).unwrap();
    producer.flush();
    for tag in 1..=8 {
        let expected = [tag as u8; 24];
        assert_eq!(consumer.pop(), Ok(Some(Record { tag, bytes: &expected })));
    }
    assert_eq!(consumer.pop(), Ok(None));
    assert_eq!(producer.free_bytes(), 256);
}

#[test]
fn space_returns_by_itself_after_a_quarter_and_when_found_empty() {
    let (mut producer, mut consumer) = ring(256);
    for _ in 0..3 {
        producer.try_push(0, &[&[0; 24]]).unwrap();
    }
    producer.flush();
    consumer.pop().unwrap().unwrap();
    assert_eq!(producer.free_bytes(), 256 - 96);
    consumer.pop().unwrap().unwrap();
    assert_eq!(producer.free_bytes(), 256 - 96 + 64);
    consumer.pop().unwrap().unwrap();
    assert_eq!(producer.free_bytes(), 256 - 96 + 64);
    assert_eq!(consumer.pop(), Ok(None));
    assert_eq!(producer.free_bytes(), 256);
}

#[test]
fn a_record_that_can_never_fit_is_its_own_error() {
    let (mut producer, _consumer) = ring(64);
    assert_eq!(
        producer.try_push(0, &[&[0; 50], &[0; 7]]),
        Err(PushError::TooLong { length: 57, max: 56 })
    );
    producer.try_push(0, &[&[0; 56]]).unwrap();

    let (mut producer, mut consumer) = ring(1 << 18);
    let longest = content(5, RECORD_BYTES_MAX);
    assert_eq!(
        producer.try_push(0, &[&longest, &[0]]),
        Err(PushError::TooLong { length: RECORD_BYTES_MAX + 1, max: RECORD_BYTES_MAX })
    );
    assert!(!producer.record_fits(RECORD_BYTES_MAX + 1));
    producer.try_push(4, &[&longest]).unwrap();
    producer.flush();
    assert_eq!(consumer.pop(), Ok(Some(Record { tag: 4, bytes: &longest })));
}

#[test]
fn cursors_pass_the_end_of_their_range() {
    let memory = Memory::create(64).unwrap();
    let start = u64::MAX - 5;
    memory.word(PRODUCER_AT).store(start, Ordering::Relaxed);
    memory.word(CONSUMER_AT).store(start, Ordering::Relaxed);
    let mut producer = Producer::attach(memory.clone(), doorbell::pair().unwrap().0).unwrap();
    let mut consumer = Consumer::attach(memory).unwrap();
    for sequence in 0..20 {
        let bytes = content(sequence, sequence as usize);
        producer.try_push(0, &[&bytes]).unwrap();
        producer.flush();
        assert_eq!(consumer.pop(), Ok(Some(Record { tag: 0, bytes: &bytes })));
    }
}

#[test]
#[cfg(not(miri))] // Miri has no ppoll.
fn only_a_parked_consumer_is_rung() {
    let (bell, doorbell) = doorbell::pair().unwrap();
    let (mut producer, mut consumer) = pair(64, bell).unwrap();
    let moment = Some(std::time::Duration::from_millis(1));
    producer.try_push(0, &[]).unwrap();
    producer.flush();
    assert!(!doorbell.wait(moment).unwrap(), "rung though nobody was parked");
    assert!(!consumer.prepare_park(), "parked though a record was there");
    producer.try_push(0, &[]).unwrap();
    producer.flush();
    assert!(!doorbell.drain().unwrap(), "rung though parking was refused");
    consumer.pop().unwrap().unwrap();
    consumer.pop().unwrap().unwrap();

    assert!(consumer.prepare_park());
    producer.flush();
    assert!(!doorbell.wait(moment).unwrap(), "rung by a flush of nothing");
    producer.try_push(0, &[]).unwrap();
    producer.flush();
    assert!(doorbell.wait(None).unwrap());
    assert!(!doorbell.wait(moment).unwrap(), "a ring was not drained");
    producer.try_push(0, &[]).unwrap();
    producer.flush();
    assert!(!doorbell.drain().unwrap(), "rung twice for one park");

    consumer.pop().unwrap().unwrap();
    consumer.pop().unwrap().unwrap();
    assert!(consumer.prepare_park());
    consumer.cancel_park();
    producer.try_push(0, &[]).unwrap();
    producer.flush();
    assert!(!doorbell.drain().unwrap(), "rung after the park was cancelled");
}

#[test]
#[cfg(not(miri))] // Miri has no ppoll.
fn a_bell_never_blocks_and_a_doorbell_drains_a_full_pipe() {
    let (bell, doorbell) = doorbell::pair().unwrap();
    for _ in 0..100_000 {
        bell.ring();
    }
    assert!(doorbell.drain().unwrap());
    assert!(!doorbell.drain().unwrap());
    drop(bell);
    assert_eq!(doorbell.wait(None).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    let (bell, doorbell) = doorbell::pair().unwrap();
    drop(doorbell);
    bell.ring();
}

#[test]
fn impossible_cursors_and_lengths_are_corrupt() {
    let (mut producer, mut consumer) = ring(64);
    let memory = producer.memory().clone();
    producer.try_push(0, &[&[0; 16]]).unwrap();
    producer.flush();
    // The consumer's cursor beyond what was published, then behind where it was.
    memory.word(CONSUMER_AT).store(4, Ordering::Relaxed);
    let corrupt = Corrupt::Cursor { found: 4, ours: 3 };
    assert_eq!(producer.try_push(0, &[&[0; 56]]), Err(PushError::Corrupt(corrupt)));
    assert_eq!(producer.free_bytes(), 0);
    memory.word(CONSUMER_AT).store(2, Ordering::Relaxed);
    assert_eq!(producer.free_bytes(), 56);
    memory.word(CONSUMER_AT).store(1, Ordering::Relaxed);
    assert_eq!(producer.free_bytes(), 0);
    memory.word(CONSUMER_AT).store(0, Ordering::Relaxed);

    // A length beyond what was published, and beyond any record.
    for length in [17, 56, 57, u32::MAX] {
        memory.data()[0].store(u64::from(length), Ordering::Relaxed);
        assert_eq!(consumer.pop(), Err(Corrupt::Length { length }));
    }
    memory.data()[0].store(16, Ordering::Relaxed);
    assert_eq!(consumer.pop().unwrap().unwrap().bytes, [0; 16]);

    // The producer's cursor behind ours, and further ahead than the ring is long.
    for found in [2, 3 + 9, u64::MAX] {
        memory.word(PRODUCER_AT).store(found, Ordering::Relaxed);
        assert_eq!(consumer.pop(), Err(Corrupt::Cursor { found, ours: 3 }));
        assert!(!consumer.prepare_park());
    }
    for (producer, consumer) in [(0, 1), (9, 0), (1, u64::MAX - 7)] {
        memory.word(PRODUCER_AT).store(producer, Ordering::Relaxed);
        memory.word(CONSUMER_AT).store(consumer, Ordering::Relaxed);
        assert!(matches!(Consumer::attach(memory.clone()), Err(AttachError::Cursors)));
    }
}

#[test]
fn a_record_longer_than_any_may_be_is_corrupt_even_where_the_ring_could_hold_it() {
    let (producer, mut consumer) = ring(4 * RECORD_BYTES_MAX);
    let memory = producer.memory();
    memory.word(PRODUCER_AT).store(memory.capacity_words, Ordering::Relaxed);
    let length = RECORD_BYTES_MAX as u32 + 1;
    memory.data()[0].store(u64::from(length), Ordering::Relaxed);
    assert_eq!(consumer.pop(), Err(Corrupt::Length { length }));
}

#[test]
fn random_words_from_the_peer_are_corrupt_or_valid_never_a_crash() {
    let (mut corrupt, mut popped, mut pushed) = (0, 0, 0);
    for seed in 0..scaled(20_000) as u64 {
        let mut generator = Generator(seed);
        let (mut producer, mut consumer) = ring(64 << generator.below(4));
        let memory = producer.memory().clone();
        for _ in 0..64 {
            // Values near the real ones reach deeper than any random word.
            let value = match generator.below(3) {
                0 => generator.next(),
                1 => generator.below(80) as u64,
                _ => (consumer.head + generator.below(24) as u64).wrapping_sub(8),
            };
            match generator.below(6) {
                0 => memory.word(PRODUCER_AT).store(value, Ordering::Relaxed),
                1 => memory.word(CONSUMER_AT).store(value, Ordering::Relaxed),
                2 => memory.word(generator.below(HEADER_WORDS)).store(value, Ordering::Relaxed),
                3 => {
                    let data = memory.data();
                    data[generator.below(data.len())].store(value, Ordering::Relaxed);
                }
                4 => match consumer.pop() {
                    Ok(record) => popped += record.map_or(0, |record| 1 + record.bytes.len()),
                    Err(_) => corrupt += 1,
                },
                _ => {
                    match producer.try_push(1, &[&[7; 40][..generator.below(41)]]) {
                        Ok(()) => pushed += 1,
                        Err(PushError::Corrupt(_)) => corrupt += 1,
                        Err(_) => {}
                    }
                    producer.flush();
                    consumer.prepare_park();
                }
            }
            assert!(producer.free_bytes() <= memory.capacity_bytes());
        }
    }
    // The generator reached every outcome.
    if !cfg!(miri) {
        assert!(corrupt > 1000 && popped > 1000 && pushed > 1000, "{corrupt} {popped} {pushed}");
    }
}

#[test]
fn a_peer_that_scribbles_while_we_work_cannot_crash_us() {
    let (mut producer, mut consumer) = ring(256);
    let memory = producer.memory().clone();
    let working = Arc::new(());
    let alive = Arc::downgrade(&working);
    thread::scope(|scope| {
        // Moved in, so that the scribbler stops however this closure ends.
        let _working = working;
        let memory = &memory;
        scope.spawn(move || {
            let mut generator = Generator(11);
            while alive.strong_count() > 0 {
                let at = match generator.below(4) {
                    0 => PRODUCER_AT,
                    1 => CONSUMER_AT,
                    _ => HEADER_WORDS + generator.below(32),
                };
                memory.word(at).store(generator.next() % 64, Ordering::Relaxed);
            }
        });
        for round in 0..scaled(1_000_000) {
            let _ = producer.try_push(0, &[&[1; 20]]);
            producer.flush();
            if let Ok(Some(record)) = consumer.pop() {
                assert!(record.bytes.len() <= 248);
            }
            // Fresh sides now and then, so that corruption does not stop everything for good.
            if round % 64 == 0 {
                memory.word(PRODUCER_AT).store(0, Ordering::Relaxed);
                memory.word(CONSUMER_AT).store(0, Ordering::Relaxed);
                if let Ok(fresh) = Consumer::attach(memory.clone()) {
                    consumer = fresh;
                }
            }
        }
    });
}

#[cfg(not(miri))]
mod descriptors {
    use super::*;
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::fd::{AsFd, OwnedFd};

    const PAGE_BYTES: usize = 4096;
    const SIZE_SEALS: SealFlag =
        SealFlag::F_SEAL_SHRINK.union(SealFlag::F_SEAL_GROW).union(SealFlag::F_SEAL_SEAL);

    fn memfd(header: [u64; 3], bytes: usize, seals: SealFlag) -> OwnedFd {
        let fd = memfd_create("test", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        nix::unistd::write(&fd, header.as_bytes()).unwrap();
        nix::unistd::ftruncate(&fd, bytes as i64).unwrap();
        fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
        fd
    }

    #[test]
    fn the_size_is_sealed_and_a_second_mapping_sees_the_same_ring() {
        let (mut producer, _consumer) = ring(64);
        let fd = producer.memory().as_fd().try_clone_to_owned().unwrap();
        for bytes in [0, 2 * PAGE_BYTES] {
            assert_eq!(nix::unistd::ftruncate(&fd, bytes as i64), Err(nix::Error::EPERM));
        }
        let mut consumer = Consumer::attach(Memory::from_fd(fd).unwrap()).unwrap();
        assert_eq!(consumer.memory().capacity_bytes(), 64);
        producer.try_push(5, &[b"seen"]).unwrap();
        producer.flush();
        assert_eq!(consumer.pop(), Ok(Some(Record { tag: 5, bytes: b"seen" })));
    }

    #[test]
    fn memory_that_could_harm_or_makes_no_sense_is_refused() {
        let attach = |header, bytes, seals| Memory::from_fd(memfd(header, bytes, seals));
        let good = [MAGIC, LAYOUT_VERSION, 64];
        attach(good, PAGE_BYTES + 64, SIZE_SEALS).unwrap();
        for missing in SIZE_SEALS {
            // F_SEAL_SEAL, too: without it, seals may change after the check.
            let refused = attach(good, PAGE_BYTES + 64, SIZE_SEALS - missing);
            assert!(matches!(refused, Err(AttachError::Seals { .. })), "{missing:?} {refused:?}");
        }
        for bytes in [8, PAGE_BYTES, PAGE_BYTES + 63, PAGE_BYTES + 56, PAGE_BYTES + 128] {
            let refused = attach(good, bytes, SIZE_SEALS);
            assert!(matches!(refused, Err(AttachError::Size { .. })), "{bytes} {refused:?}");
        }
        for bytes in [PAGE_BYTES + 63, 2 << 30] {
            // Before it is mapped.
            let refused = Mapping::attach(memfd(good, bytes, SIZE_SEALS), Access::Shared);
            assert!(matches!(refused, Err(AttachError::Size { .. })), "{bytes} {refused:?}");
        }
        let refused = attach([MAGIC + 1, LAYOUT_VERSION, 64], PAGE_BYTES + 64, SIZE_SEALS);
        assert!(matches!(refused, Err(AttachError::Magic(_))), "{refused:?}");
        let refused = attach([MAGIC, LAYOUT_VERSION + 1, 64], PAGE_BYTES + 64, SIZE_SEALS);
        assert!(matches!(refused, Err(AttachError::Version(_))), "{refused:?}");
        for capacity in [0, 32, 63, 96, 2 << 30, u64::MAX] {
            let refused = attach([MAGIC, LAYOUT_VERSION, capacity], PAGE_BYTES + 64, SIZE_SEALS);
            assert!(matches!(refused, Err(AttachError::Capacity(_))), "{capacity} {refused:?}");
        }
        // Huge pages can run out when touched. A kernel without them makes no such descriptor.
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING | MFdFlags::MFD_HUGETLB;
        if let Ok(fd) = memfd_create("test", flags) {
            fcntl(&fd, FcntlArg::F_ADD_SEALS(SIZE_SEALS)).unwrap();
            let refused = Memory::from_fd(fd);
            assert!(matches!(refused, Err(AttachError::NotMemory)), "{refused:?}");
        }
        let file = tempfile::tempfile().unwrap();
        assert!(Memory::from_fd(file.into()).is_err());
        let (_bell, doorbell) = doorbell::pair().unwrap();
        let refused = Memory::from_fd(doorbell.as_fd().try_clone_to_owned().unwrap());
        assert!(matches!(refused, Err(AttachError::NotMemory)), "{refused:?}");
    }

    #[test]
    fn capacities_out_of_range_are_refused() {
        for bytes in [0, 1, 32, 63, 65, 96, CAPACITY_BYTES_MAX * 2, usize::MAX] {
            let error = Memory::create(bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{bytes}");
        }
    }
}
