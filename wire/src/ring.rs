//! The shared-memory ring: one producer, one consumer, records of any length, in order.
//!
//! **Algorithm.** Lamport's single-producer single-consumer queue ("Specifying concurrent program
//! modules", 1983) over a power-of-two array of 64-bit words, with the two refinements usual
//! since MCRingBuffer (Lee, Bu, Chandranmenon 2010): each side keeps a private copy of the other's
//! cursor and looks at the shared one only when the copy says "full" or "empty", and both sides
//! publish their own cursor in batches. Cursors count words since creation and never wrap in
//! practice (2^64 words); arithmetic wraps anyway.
//!
//! **Layout** (little-endian): a header page, then `capacity` bytes.
//!
//! | byte | word | written by |
//! |---|---|---|
//! | 0 | magic `VENDRING` | creator |
//! | 8 | layout version, 1 | creator |
//! | 16 | capacity in bytes, a power of two | creator |
//! | 128 | producer cursor, in words | producer |
//! | 256 | consumer cursor, in words | consumer |
//! | 384 | 1 while the consumer is parked | both |
//!
//! A record is a word (length in the low half, tag in the high half) and then its payload, padded
//! with zeros to whole words. Records wrap around the end word by word, so there are no padding
//! records and every word of the ring is usable.
//!
//! **Memory ordering.** Payload words are relaxed. The producer's cursor is stored with release
//! after them and loaded with acquire before they are read; the consumer's cursor is stored with
//! release after they were read and loaded with acquire before they are overwritten. Parking
//! needs one sequentially consistent fence on each side; see [`crate::doorbell`].
//!
//! **A hostile peer** can write anything anywhere at any time. So each side trusts only its own
//! private cursor; what it reads of the other's is checked against it (a cursor may only advance,
//! and only within the ring). A record is copied out word by word before anyone looks at it; its
//! header is read once. Indices are masked. The worst a peer can do is to send nonsense.

use crate::doorbell::Bell;
use crate::memory::{Access, AttachError, LAYOUT_VERSION, LINE_WORDS, Mapping, WORD_BYTES};
use crate::sync::{AtomicU64, Ordering, fence};
use std::io;
use std::sync::Arc;
use zerocopy::IntoBytes;

/// Largest payload of a record, in bytes.
pub const RECORD_BYTES_MAX: usize = 64 << 10;
/// Smallest ring, in bytes.
pub const CAPACITY_BYTES_MIN: usize = 64;
/// Largest ring, in bytes.
pub const CAPACITY_BYTES_MAX: usize = 1 << 30;

/// `VENDRING` as a little-endian word.
const MAGIC: u64 = u64::from_le_bytes(*b"VENDRING");
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 1;
const CAPACITY_AT: usize = 2;
const PRODUCER_AT: usize = if cfg!(loom) { 3 } else { LINE_WORDS };
const CONSUMER_AT: usize = PRODUCER_AT + LINE_WORDS;
const PARKED_AT: usize = CONSUMER_AT + LINE_WORDS;
const HEADER_WORDS: usize = if cfg!(loom) { PARKED_AT + 1 } else { 4096 / WORD_BYTES };

/// Words of a record's header.
const RECORD_HEADER_WORDS: u64 = 1;
/// The consumer returns space at the latest when this part of the ring is consumed: rarely
/// enough to spare the shared line, often enough that the producer is not kept waiting.
const RELEASES_PER_LAP: u64 = 4;

const _: () = assert!(PARKED_AT < HEADER_WORDS);
const _: () = assert!(RECORD_BYTES_MAX <= u32::MAX as usize);
const _: () = assert!(CAPACITY_BYTES_MIN.is_power_of_two() && CAPACITY_BYTES_MAX.is_power_of_two());

/// Why a record was not pushed. Nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PushError {
    /// Too little free space now. Flush, let the consumer run, try again.
    #[error("the ring is full")]
    Full,
    /// This ring can never hold such a record.
    #[error("a record of {length} bytes exceeds this ring's largest, {max}")]
    TooLong {
        /// Bytes of the record.
        length: usize,
        /// Most bytes a record of this ring can have.
        max: usize,
    },
    /// The shared memory makes no sense; give up this ring.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// The shared memory holds what no correct peer writes. Drop the ring and its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Corrupt {
    /// The other side's cursor went back, or further than it can.
    #[error("the peer's ring cursor is {found}, impossible beside ours, {ours}")]
    Cursor {
        /// The peer's cursor, in words.
        found: u64,
        /// This side's cursor, in words.
        ours: u64,
    },
    /// A record is longer than allowed or than what was published.
    #[error("a ring record claims {length} bytes, beyond the limit or what was published")]
    Length {
        /// Bytes claimed.
        length: u32,
    },
}

/// Bytes of the ring that a record with `length` payload bytes takes.
pub const fn record_ring_bytes(length: usize) -> usize {
    (RECORD_HEADER_WORDS as usize + length.div_ceil(WORD_BYTES)) * WORD_BYTES
}

fn record_words(length: usize) -> u64 {
    RECORD_HEADER_WORDS + length.div_ceil(WORD_BYTES) as u64
}

/// A ring's memory. Clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    mapping: Arc<Mapping>,
    /// Read from the header once; what a peer writes there later does not matter.
    capacity_words: u64,
}

impl Memory {
    /// Makes an empty ring of `capacity_bytes` in a new memfd whose size is sealed.
    ///
    /// # Errors
    /// `InvalidInput` unless the capacity is a power of two from [`CAPACITY_BYTES_MIN`] to
    /// [`CAPACITY_BYTES_MAX`]; otherwise what the kernel said.
    pub fn create(capacity_bytes: usize) -> io::Result<Memory> {
        if !capacity_is_valid(capacity_bytes) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "ring capacity {capacity_bytes} is not a power of two in \
                     {CAPACITY_BYTES_MIN}..={CAPACITY_BYTES_MAX}"
                ),
            ));
        }
        let capacity_words = capacity_bytes / WORD_BYTES;
        let mapping =
            Mapping::create(c"vendue-ring", HEADER_WORDS + capacity_words, Access::Shared)?;
        let words = mapping.words();
        words[MAGIC_AT].store(MAGIC, Ordering::Relaxed);
        words[VERSION_AT].store(LAYOUT_VERSION, Ordering::Relaxed);
        words[CAPACITY_AT].store(capacity_bytes as u64, Ordering::Relaxed);
        Ok(Memory { mapping: Arc::new(mapping), capacity_words: capacity_words as u64 })
    }

    /// Bytes of the ring, header page excluded.
    pub fn capacity_bytes(&self) -> usize {
        self.capacity_words as usize * WORD_BYTES
    }

    /// Most payload bytes a record of this ring can have.
    pub fn record_bytes_max(&self) -> usize {
        RECORD_BYTES_MAX.min(self.capacity_bytes() - record_ring_bytes(0))
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.mapping.words()[index]
    }

    #[inline]
    fn data(&self) -> &[AtomicU64] {
        &self.mapping.words()[HEADER_WORDS..]
    }

    /// `(producer, consumer)` cursors, checked against each other.
    fn cursors(&self) -> Result<(u64, u64), AttachError> {
        let producer = self.word(PRODUCER_AT).load(Ordering::Acquire);
        let consumer = self.word(CONSUMER_AT).load(Ordering::Acquire);
        if producer.wrapping_sub(consumer) > self.capacity_words {
            return Err(AttachError::Cursors);
        }
        Ok((producer, consumer))
    }
}

#[cfg(not(any(loom, miri)))]
impl Memory {
    /// Maps a ring that another process made, after checking seals, size and header.
    pub fn from_fd(fd: std::os::fd::OwnedFd) -> Result<Memory, AttachError> {
        let mapping = Mapping::attach(fd, Access::Shared)?;
        let words = mapping.words();
        let Some(data_words) = words.len().checked_sub(HEADER_WORDS) else {
            return Err(AttachError::Size { bytes: (words.len() * WORD_BYTES) as i64 });
        };
        let [magic, version, capacity] =
            [MAGIC_AT, VERSION_AT, CAPACITY_AT].map(|at| words[at].load(Ordering::Relaxed));
        if magic != MAGIC {
            return Err(AttachError::Magic(magic));
        }
        if version != LAYOUT_VERSION {
            return Err(AttachError::Version(version));
        }
        if !usize::try_from(capacity).is_ok_and(capacity_is_valid) {
            return Err(AttachError::Capacity(capacity));
        }
        let capacity_words = capacity / WORD_BYTES as u64;
        if capacity_words != data_words as u64 {
            return Err(AttachError::Size { bytes: (words.len() * WORD_BYTES) as i64 });
        }
        Ok(Memory { mapping: Arc::new(mapping), capacity_words })
    }
}

#[cfg(not(any(loom, miri)))]
impl Memory {
    /// Gives the memory back to the system, also where the other process keeps its mapping or
    /// its descriptor; both sides read zeros from then on. The ring is of no use any more.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn discard(&self) -> io::Result<()> {
        self.mapping.discard()
    }
}

#[cfg(not(any(loom, miri)))]
impl std::os::fd::AsFd for Memory {
    /// The memfd to hand to the other process.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.mapping.fd()
    }
}

fn capacity_is_valid(bytes: usize) -> bool {
    bytes.is_power_of_two() && (CAPACITY_BYTES_MIN..=CAPACITY_BYTES_MAX).contains(&bytes)
}

/// A new ring within one thread, whose consumer therefore never waits for this producer: nobody
/// has to be woken, which spares every flush a fence.
///
/// # Errors
/// As for [`Memory::create`].
pub fn pair_within(capacity_bytes: usize) -> io::Result<(Producer, Consumer)> {
    attach_both(capacity_bytes, None)
}

/// A new ring between two threads. `bell` wakes the consumer; rings of one consumer share it.
///
/// # Errors
/// As for [`Memory::create`].
pub fn pair(capacity_bytes: usize, bell: Bell) -> io::Result<(Producer, Consumer)> {
    attach_both(capacity_bytes, Some(bell))
}

fn attach_both(capacity_bytes: usize, bell: Option<Bell>) -> io::Result<(Producer, Consumer)> {
    let memory = Memory::create(capacity_bytes)?;
    let attached = |error: AttachError| io::Error::other(error);
    let producer = Producer::with_bell(memory.clone(), bell).map_err(attached)?;
    let consumer = Consumer::attach(memory).map_err(attached)?;
    Ok((producer, consumer))
}

/// The writing side. At most one may exist per ring, in any process.
#[derive(Debug)]
pub struct Producer {
    memory: Memory,
    /// `None` within one thread.
    bell: Option<Bell>,
    /// Where the next record goes, in words.
    tail: u64,
    /// Cursor as last published: `published..tail` is pushed but not visible.
    published: u64,
    /// The consumer's cursor when last looked at.
    head: u64,
}

impl Producer {
    /// Takes the writing side of `memory`; `bell` wakes its consumer.
    ///
    /// # Errors
    /// [`AttachError::Cursors`].
    pub fn attach(memory: Memory, bell: Bell) -> Result<Producer, AttachError> {
        Producer::with_bell(memory, Some(bell))
    }

    fn with_bell(memory: Memory, bell: Option<Bell>) -> Result<Producer, AttachError> {
        let (tail, head) = memory.cursors()?;
        Ok(Producer { memory, bell, tail, published: tail, head })
    }

    /// What wakes the consumer, if it is not of the same thread.
    pub fn bell(&self) -> Option<&Bell> {
        self.bell.as_ref()
    }

    /// Appends one record made of `parts`, one after the other. Invisible until
    /// [`Producer::flush`], so that a batch costs one store on the shared line.
    ///
    /// # Errors
    /// [`PushError`]; nothing was written then.
    #[inline(always)]
    pub fn try_push(&mut self, tag: u32, parts: &[&[u8]]) -> Result<(), PushError> {
        let length = parts.iter().fold(0, |sum: usize, part| sum.saturating_add(part.len()));
        let max = self.memory.record_bytes_max();
        if length > max {
            return Err(PushError::TooLong { length, max });
        }
        let words = record_words(length);
        if self.free_words() < words {
            self.look_at_consumer()?;
            if self.free_words() < words {
                return Err(PushError::Full);
            }
        }
        let header = u64::from(tag) << 32 | length as u64;
        let end = self.tail.wrapping_add(words);
        if !self.write_straight(header, words, parts) {
            let wrote = self.write_wrapping(header, parts);
            assert_eq!(wrote, end, "a record's words differ from its length");
        }
        self.tail = end;
        Ok(())
    }

    /// Writes a record at the tail if it does not wrap and only its last part may end within a
    /// word, as nearly all do; otherwise it does nothing and says so.
    #[inline(always)]
    fn write_straight(&self, header: u64, words: u64, parts: &[&[u8]]) -> bool {
        let data = self.memory.data();
        let start = self.tail as usize & (data.len() - 1);
        let Some(slots) = data.get(start..start + words as usize) else { return false };
        let Some((last, before)) = parts.split_last() else { return false };
        if before.iter().any(|part| !part.len().is_multiple_of(WORD_BYTES)) {
            return false;
        }
        let Some((first, mut slots)) = slots.split_first() else { return false };
        first.store(header, Ordering::Relaxed);
        for part in before {
            let (whole, rest) = slots.split_at(part.len() / WORD_BYTES);
            store_words(whole, part);
            slots = rest;
        }
        store_words(slots, last);
        true
    }

    /// Writes a record's words at the tail, wrapping, and returns the cursor behind them.
    fn write_wrapping(&self, header: u64, parts: &[&[u8]]) -> u64 {
        let data = self.memory.data();
        let mask = data.len() - 1;
        let mut at = self.tail;
        let mut put = |word: u64| {
            data[at as usize & mask].store(word, Ordering::Relaxed);
            at = at.wrapping_add(1);
        };
        put(header);
        // Bytes of a word begun by a part that did not end on a word, in the low `carried` bits.
        let (mut carry, mut carried) = (0_u64, 0_u32);
        for part in parts {
            let (whole, rest) = part.as_chunks::<WORD_BYTES>();
            for chunk in whole {
                let word = u64::from_le_bytes(*chunk);
                put(carry | word << carried);
                // Two shifts, because `carried == 0` would need one by 64.
                carry = word >> 1 >> (63 - carried);
            }
            for &byte in rest {
                carry |= u64::from(byte) << carried;
                carried += 8;
                if carried == 64 {
                    put(carry);
                    (carry, carried) = (0, 0);
                }
            }
        }
        if carried > 0 {
            put(carry);
        }
        at
    }

    /// Makes everything pushed so far visible, and wakes the consumer if it is parked.
    #[inline]
    pub fn flush(&mut self) {
        if self.tail == self.published {
            return;
        }
        self.memory.word(PRODUCER_AT).store(self.tail, Ordering::Release);
        self.published = self.tail;
        let Some(bell) = &self.bell else { return };
        // Pairs with the fence in `prepare_park`: it sees our cursor, or we see its flag.
        fence(Ordering::SeqCst);
        let parked = self.memory.word(PARKED_AT);
        // The flag only says whether to ring; the bell itself orders what the consumer sees. The
        // store may clear a later announcement than the one read: then the ring is for that one.
        if parked.load(Ordering::Relaxed) != 0 {
            parked.store(0, Ordering::Relaxed);
            bell.ring();
        }
    }

    /// Bytes free now; a record takes [`record_ring_bytes`] of them. Looks at the consumer's
    /// cursor; zero if that is corrupt, which the next push then reports.
    pub fn free_bytes(&mut self) -> usize {
        if self.look_at_consumer().is_err() {
            return 0;
        }
        self.free_words() as usize * WORD_BYTES
    }

    /// True if a record with `length` payload bytes would be accepted now.
    #[inline]
    pub fn record_fits(&mut self, length: usize) -> bool {
        if length > self.memory.record_bytes_max() {
            return false;
        }
        let words = record_words(length);
        self.free_words() >= words
            || (self.look_at_consumer().is_ok() && self.free_words() >= words)
    }

    /// The ring's memory, to hand on or to measure.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    #[inline]
    fn free_words(&self) -> u64 {
        self.memory.capacity_words - self.tail.wrapping_sub(self.head)
    }

    /// Refreshes the private copy of the consumer's cursor.
    fn look_at_consumer(&mut self) -> Result<(), Corrupt> {
        let found = self.memory.word(CONSUMER_AT).load(Ordering::Acquire);
        // It moves forward only, and not past what was published.
        if found.wrapping_sub(self.head) > self.published.wrapping_sub(self.head) {
            return Err(Corrupt::Cursor { found, ours: self.published });
        }
        self.head = found;
        Ok(())
    }
}

/// A record, copied out of the shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What the producer gave.
    pub tag: u32,
    /// The payload; aligned to 8 bytes.
    pub bytes: &'a [u8],
}

/// The reading side. At most one may exist per ring, in any process.
#[derive(Debug)]
pub struct Consumer {
    memory: Memory,
    /// Where the next record begins, in words.
    head: u64,
    /// Cursor as last published: `released..head` is consumed but not yet returned.
    released: u64,
    /// The producer's cursor when last looked at.
    tail: u64,
    /// Where records are copied to, out of the peer's reach.
    scratch: Box<[u64]>,
}

impl Consumer {
    /// Takes the reading side of `memory`.
    ///
    /// # Errors
    /// [`AttachError::Cursors`].
    pub fn attach(memory: Memory) -> Result<Consumer, AttachError> {
        let (tail, head) = memory.cursors()?;
        let scratch = vec![0; memory.record_bytes_max().div_ceil(WORD_BYTES)].into();
        Ok(Consumer { memory, head, released: head, tail, scratch })
    }

    /// Takes the oldest record, or `None` if there is none now. Space goes back to the producer
    /// in batches: when a quarter of the ring is consumed, when it is found empty, and on
    /// [`Consumer::release`].
    ///
    /// # Errors
    /// [`Corrupt`]; the ring is of no use any more.
    #[inline(always)]
    pub fn pop(&mut self) -> Result<Option<Record<'_>>, Corrupt> {
        // Whoever polls finds nothing most of the time: that has to be cheap.
        if self.is_empty() {
            // A record may need more than what is free until now: keep nothing back.
            self.release();
            return Ok(None);
        }
        self.copy_oldest().map(Some)
    }

    /// Takes the oldest record of a ring that has some.
    #[inline]
    fn copy_oldest(&mut self) -> Result<Record<'_>, Corrupt> {
        if self.head == self.tail {
            self.look_at_producer()?;
        }
        let data = self.memory.data();
        let mask = data.len() - 1;
        let header = data[self.head as usize & mask].load(Ordering::Relaxed);
        let (length, tag) = (header as u32, (header >> 32) as u32);
        let words = record_words(length as usize);
        if length as usize > self.memory.record_bytes_max()
            || words > self.tail.wrapping_sub(self.head)
        {
            return Err(Corrupt::Length { length });
        }
        // The payload is one run of words, or two if it wraps.
        let payload_words = (words - RECORD_HEADER_WORDS) as usize;
        let start = self.head.wrapping_add(RECORD_HEADER_WORDS) as usize & mask;
        let before_wrap = payload_words.min(data.len() - start);
        let (first, second) = self.scratch[..payload_words].split_at_mut(before_wrap);
        copy_out(&data[start..start + before_wrap], first);
        copy_out(&data[..payload_words - before_wrap], second);
        self.head = self.head.wrapping_add(words);
        if self.head.wrapping_sub(self.released) >= self.memory.capacity_words / RELEASES_PER_LAP {
            self.release();
        }
        Ok(Record { tag, bytes: &self.scratch.as_bytes()[..length as usize] })
    }

    /// Returns the space of everything popped to the producer.
    #[inline]
    pub fn release(&mut self) {
        if self.head != self.released {
            self.memory.word(CONSUMER_AT).store(self.head, Ordering::Release);
            self.released = self.head;
        }
    }

    /// True if [`Consumer::pop`] would find nothing now.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head == self.tail && self.head == self.memory.word(PRODUCER_AT).load(Ordering::Acquire)
    }

    /// Announces that this thread is about to wait on the doorbell. True: nothing is here, and
    /// the next flush will ring. False: records are here (or the ring is corrupt, as pop will
    /// say), and the announcement is withdrawn.
    pub fn prepare_park(&mut self) -> bool {
        self.release();
        self.memory.word(PARKED_AT).store(1, Ordering::Relaxed);
        // Pairs with the fence in `flush`: we see its cursor, or it sees our flag.
        fence(Ordering::SeqCst);
        if self.is_empty() {
            return true;
        }
        self.cancel_park();
        false
    }

    /// Withdraws the announcement; call it on every ring after waking.
    pub fn cancel_park(&mut self) {
        self.memory.word(PARKED_AT).store(0, Ordering::Relaxed);
    }

    /// The ring's memory, to hand on or to measure.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Refreshes the private copy of the producer's cursor.
    #[inline]
    fn look_at_producer(&mut self) -> Result<(), Corrupt> {
        let found = self.memory.word(PRODUCER_AT).load(Ordering::Acquire);
        if found.wrapping_sub(self.head) > self.memory.capacity_words {
            return Err(Corrupt::Cursor { found, ours: self.head });
        }
        self.tail = found;
        Ok(())
    }
}

/// Stores bytes in as many words as they need, the last filled up with zeros.
#[inline(always)]
fn store_words(slots: &[AtomicU64], bytes: &[u8]) {
    let (whole, rest) = bytes.as_chunks::<WORD_BYTES>();
    for (slot, chunk) in slots.iter().zip(whole) {
        slot.store(u64::from_le_bytes(*chunk), Ordering::Relaxed);
    }
    if let Some(slot) = slots.get(whole.len()) {
        let mut word = [0; WORD_BYTES];
        word[..rest.len()].copy_from_slice(rest);
        slot.store(u64::from_le_bytes(word), Ordering::Relaxed);
    }
}

#[inline(always)]
fn copy_out(from: &[AtomicU64], to: &mut [u64]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = from.load(Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
