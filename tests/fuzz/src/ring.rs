//! The shared-memory ring beside a peer that writes anything anywhere: the other side may give up
//! the ring, but never panic, hang, or see what the peer's memory does not hold.

use arbitrary::{Result, Unstructured};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use vendue_wire::doorbell;
use vendue_wire::ring::{Consumer, Memory, Producer, PushError};

/// Ring capacities tried: the smallest, and one of several records.
const CAPACITIES: [usize; 3] = [64, 256, 4096];
/// Bytes of the header page.
const HEADER_BYTES: u64 = 4096;
/// Where the fields of the header page are, from the ring's documentation.
const FIELDS: [u64; 6] = [0, 8, 16, 128, 256, 384];

/// Who is honest.
#[derive(Clone, Copy)]
enum Ours {
    Producer,
    Consumer,
}

/// Plays the steps that `bytes` spell.
///
/// # Panics
/// When the honest side does what it must not.
pub fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let _ = play(&mut bytes);
}

fn play(bytes: &mut Unstructured<'_>) -> Result<()> {
    let capacity = *bytes.choose(&CAPACITIES)?;
    let memory = Memory::create(capacity).expect("a ring");
    let fd = memory.as_fd().try_clone_to_owned().expect("a descriptor");
    let peer = File::from(fd.try_clone().expect("a descriptor"));
    let (bell, _doorbell) = doorbell::pair().expect("a doorbell");
    // The memory as it came from elsewhere, perhaps after the peer has been at it.
    while !bytes.is_empty() && bytes.ratio(1, 4)? {
        scribble(bytes, &peer, capacity)?;
    }
    let Ok(memory) = Memory::from_fd(fd) else { return Ok(()) };
    assert_eq!(memory.capacity_bytes(), capacity);
    match bytes.choose(&[Ours::Producer, Ours::Consumer])? {
        Ours::Producer => {
            let Ok(mut producer) = Producer::attach(memory, bell) else { return Ok(()) };
            while !bytes.is_empty() {
                produce(bytes, &mut producer, &peer)?;
            }
        }
        Ours::Consumer => {
            let Ok(mut consumer) = Consumer::attach(memory) else { return Ok(()) };
            while !bytes.is_empty() {
                consume(bytes, &mut consumer, &peer)?;
            }
        }
    }
    Ok(())
}

/// The peer writes a word, mostly one that means something.
fn scribble(bytes: &mut Unstructured<'_>, peer: &File, capacity: usize) -> Result<()> {
    let at = match bytes.int_in_range(0..=3_u8)? {
        0 => *bytes.choose(&FIELDS)?,
        1 => FIELDS[3 + bytes.choose_index(3)?],
        _ => HEADER_BYTES + 8 * bytes.int_in_range(0..=capacity as u64 / 8 - 1)?,
    };
    let word: u64 = match bytes.int_in_range(0..=3_u8)? {
        0 => bytes.arbitrary()?,
        1 => bytes.int_in_range(0..=2 * capacity as u64)?,
        2 => bytes.int_in_range(0..=64)?,
        _ => u64::MAX - bytes.int_in_range(0..=64)?,
    };
    peer.write_all_at(&word.to_le_bytes(), at).expect("the peer writes where it likes");
    Ok(())
}

fn produce(bytes: &mut Unstructured<'_>, producer: &mut Producer, peer: &File) -> Result<()> {
    let memory = producer.memory();
    let (capacity, longest) = (memory.capacity_bytes(), memory.record_bytes_max());
    match bytes.int_in_range(0..=4_u8)? {
        0 => scribble(bytes, peer, capacity)?,
        1 => producer.flush(),
        2 => assert!(producer.free_bytes() <= capacity),
        _ => {
            let length = bytes.int_in_range(0..=2 * capacity)?;
            let fits = producer.record_fits(length);
            let (payload, split) = (vec![7; length], length / 3);
            let parts = [&payload[..split], &payload[split..]];
            match producer.try_push(1, &parts) {
                Ok(()) => assert!(length <= longest),
                Err(PushError::TooLong { .. }) => assert!(length > longest),
                Err(PushError::Full | PushError::Corrupt(_)) => assert!(!fits, "it fitted before"),
            }
        }
    }
    Ok(())
}

fn consume(bytes: &mut Unstructured<'_>, consumer: &mut Consumer, peer: &File) -> Result<()> {
    let memory = consumer.memory();
    let (capacity, longest) = (memory.capacity_bytes(), memory.record_bytes_max());
    match bytes.int_in_range(0..=5_u8)? {
        0 | 1 => scribble(bytes, peer, capacity)?,
        2 => consumer.release(),
        3 => {
            let parked = consumer.prepare_park();
            assert_eq!(parked, consumer.is_empty(), "nobody writes meanwhile");
            consumer.cancel_park();
        }
        _ => {
            let before = consumer.is_empty();
            match consumer.pop() {
                Ok(Some(record)) => {
                    assert!(!before && record.bytes.len() <= longest);
                    holds(peer, record.bytes, capacity);
                }
                Ok(None) => assert!(before, "it was not empty"),
                Err(_) => {}
            }
        }
    }
    Ok(())
}

/// What came out stands in the ring, somewhere, whole words at a time: nothing of ours leaked.
fn holds(peer: &File, record: &[u8], capacity: usize) {
    let mut ring = vec![0; capacity];
    peer.read_exact_at(&mut ring, HEADER_BYTES).expect("the peer reads what it may");
    let (words, rest) = record.as_chunks::<8>();
    let mut start = 0..capacity / 8;
    let word = |at: usize| &ring[at % (capacity / 8) * 8..][..8];
    let found = start.any(|start| {
        let whole = words.iter().enumerate().all(|(at, held)| word(start + at) == held);
        whole && word(start + words.len())[..rest.len()] == *rest
    });
    assert!(found, "a record that is not in the ring: {record:?}");
}
