//! The board: market data that one writer publishes and any number of processes read, wait-free
//! and without a system call.
//!
//! **Algorithm.** One seqlock per book, after Boehm, "Can seqlocks get along with programming
//! language memory models?" (MSPC 2012). The writer makes the slot's version odd, writes, makes it
//! even. A reader copies the slot and keeps the copy only if the version was even and is the same
//! afterwards.
//!
//! **Memory ordering.** All payload words are relaxed atomics, so a torn copy is possible but a
//! data race is not. Writer: odd version (relaxed), release fence, payload, even version
//! (release). Reader: version (acquire), payload, acquire fence, version (relaxed). If a reader
//! sees one word of a write, the fences make its second look at the version see that write's odd
//! version or a later one, and the copy is thrown away.
//!
//! **Layout** (little-endian, words of 8 bytes): a header page (magic `VENDBORD`, layout version,
//! number of books), then 512 bytes a book: version, last price in ticks, last quantity, trades,
//! volume, time in ns, sequence, then bids and asks, each ten pairs of price in ticks and
//! quantity in credits, best first, zero if unused; then phase, indicative price, volume and
//! imbalance; the rest is zero.
//!
//! The memory is sealed so that only the writer's own mapping can ever be written. A reader tries
//! a bounded number of times, so that a writer that died amid a write hangs nobody.

#[cfg(not(any(loom, miri)))]
use crate::memory::AttachError;
use crate::memory::{Access, LAYOUT_VERSION, LINE_WORDS, Mapping, WORD_BYTES};
use crate::message::DEPTH_LEVELS;
use crate::sync::{AtomicU64, Ordering, fence, spin_loop};
use std::io;
use std::sync::Arc;

/// Most books a board can have.
pub const BOOKS_MAX: usize = 1 << 16;
/// Copies a reader takes before it gives up. A write lasts some 50 ns; only a writer that was
/// preempted amid one, or died, outlasts this.
pub const READ_ATTEMPTS_MAX: usize = if cfg!(loom) { 2 } else { 1 << 12 };

/// `VENDBORD` as a little-endian word.
const MAGIC: u64 = u64::from_le_bytes(*b"VENDBORD");
const MAGIC_AT: usize = 0;
const VERSION_AT: usize = 1;
const BOOKS_AT: usize = 2;
const HEADER_WORDS: usize = 4096 / WORD_BYTES;

/// Words of a [`BookView`].
const VIEW_WORDS: usize = LEVELS_AT + 2 * 2 * DEPTH_LEVELS + 4;
/// Where the levels begin, and what follows them.
const LEVELS_AT: usize = 6;
const CALL_AT: usize = LEVELS_AT + 2 * 2 * DEPTH_LEVELS;
/// Words of a slot: version and view, up to whole lines.
const SLOT_WORDS: usize = (1 + VIEW_WORDS).next_multiple_of(LINE_WORDS);

const _: () = assert!(cfg!(loom) || SLOT_WORDS * WORD_BYTES == 512);

/// A price level; zero if unused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Price in ticks.
    pub price_ticks: u32,
    /// Credits open at this price.
    pub quantity: u64,
}

/// What the board shows of a book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BookView {
    /// Price of the last trade in ticks, 0 if none.
    pub last_ticks: u32,
    /// Credits of the last trade.
    pub last_quantity: u32,
    /// Trades so far.
    pub trades: u64,
    /// Credits traded so far.
    pub volume: u64,
    /// Sequencer's time of the last change, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Journal sequence of the last change.
    pub sequence: u64,
    /// Best buy levels, best first.
    pub bids: [Level; DEPTH_LEVELS],
    /// Best sell levels, best first. In a call, and where orders may not meet, they may be below
    /// the bids.
    pub asks: [Level; DEPTH_LEVELS],
    /// A [`crate::code::Phase`].
    pub phase: u8,
    /// In a call: the price of an auction now in ticks; 0 if nothing crosses.
    pub indicative_ticks: u32,
    /// In a call: credits that the auction would trade if all orders may meet.
    pub indicative_volume: u64,
    /// In a call: credits wanted less credits offered at that price.
    pub indicative_imbalance: i64,
}

impl BookView {
    #[inline]
    fn to_words(self) -> [u64; VIEW_WORDS] {
        let mut words = [0; VIEW_WORDS];
        words[..LEVELS_AT].copy_from_slice(&[
            u64::from(self.last_ticks),
            u64::from(self.last_quantity),
            self.trades,
            self.volume,
            self.time_ns,
            self.sequence,
        ]);
        words[CALL_AT..].copy_from_slice(&[
            u64::from(self.phase),
            u64::from(self.indicative_ticks),
            self.indicative_volume,
            self.indicative_imbalance as u64,
        ]);
        let (pairs, _) = words[LEVELS_AT..CALL_AT].as_chunks_mut::<2>();
        for (pair, level) in pairs.iter_mut().zip(self.bids.iter().chain(&self.asks)) {
            *pair = [u64::from(level.price_ticks), level.quantity];
        }
        words
    }

    #[inline]
    fn from_words(words: &[u64; VIEW_WORDS]) -> BookView {
        let (pairs, _) = words[LEVELS_AT..CALL_AT].as_chunks::<2>();
        let level = |at: usize| Level { price_ticks: pairs[at][0] as u32, quantity: pairs[at][1] };
        BookView {
            last_ticks: words[0] as u32,
            last_quantity: words[1] as u32,
            trades: words[2],
            volume: words[3],
            time_ns: words[4],
            sequence: words[5],
            bids: std::array::from_fn(level),
            asks: std::array::from_fn(|at| level(DEPTH_LEVELS + at)),
            phase: words[CALL_AT] as u8,
            indicative_ticks: words[CALL_AT + 1] as u32,
            indicative_volume: words[CALL_AT + 2],
            indicative_imbalance: words[CALL_AT + 3] as i64,
        }
    }
}

/// Writes `values` under the slot's seqlock. The slot has one writer.
#[inline]
pub(crate) fn seqlock_write(version: &AtomicU64, payload: &[AtomicU64], values: &[u64]) {
    let before = version.load(Ordering::Relaxed);
    version.store(before.wrapping_add(1), Ordering::Relaxed);
    // No payload word becomes visible before the odd version.
    fence(Ordering::Release);
    for (word, value) in payload.iter().zip(values) {
        word.store(*value, Ordering::Relaxed);
    }
    version.store(before.wrapping_add(2), Ordering::Release);
}

/// Copies the payload into `values`. False if no whole copy could be had.
#[inline]
pub(crate) fn seqlock_read(version: &AtomicU64, payload: &[AtomicU64], values: &mut [u64]) -> bool {
    for _ in 0..READ_ATTEMPTS_MAX {
        let before = version.load(Ordering::Acquire);
        if before.is_multiple_of(2) {
            for (value, word) in values.iter_mut().zip(payload) {
                *value = word.load(Ordering::Relaxed);
            }
            // No payload word is read after the second look at the version.
            fence(Ordering::Acquire);
            if version.load(Ordering::Relaxed) == before {
                return true;
            }
        }
        spin_loop();
    }
    false
}

/// The slot of `book`: version and payload.
#[inline]
fn slot(mapping: &Mapping, book: usize) -> (&AtomicU64, &[AtomicU64]) {
    let start = HEADER_WORDS + book * SLOT_WORDS;
    let slot = &mapping.words()[start..start + 1 + VIEW_WORDS];
    (&slot[0], &slot[1..])
}

/// The one writer of a board.
#[derive(Debug)]
pub struct BoardWriter {
    mapping: Arc<Mapping>,
    books: usize,
}

impl BoardWriter {
    /// Makes a board for `books` books, all zero, in a new memfd that nobody else can ever write.
    ///
    /// # Errors
    /// `InvalidInput` unless `books` is 1..=[`BOOKS_MAX`]; otherwise what the kernel said.
    pub fn create(books: usize) -> io::Result<BoardWriter> {
        if !(1..=BOOKS_MAX).contains(&books) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a board of {books} books; it takes 1..={BOOKS_MAX}"),
            ));
        }
        let words = HEADER_WORDS + books * SLOT_WORDS;
        let mapping = Mapping::create(c"vendue-board", words, Access::ReadOnly)?;
        let header = mapping.words();
        header[MAGIC_AT].store(MAGIC, Ordering::Relaxed);
        header[VERSION_AT].store(LAYOUT_VERSION, Ordering::Relaxed);
        header[BOOKS_AT].store(books as u64, Ordering::Relaxed);
        Ok(BoardWriter { mapping: Arc::new(mapping), books })
    }

    /// Publishes `view` as the state of `book`.
    ///
    /// # Panics
    /// If the board has no such book.
    #[inline]
    pub fn write(&mut self, book: usize, view: &BookView) {
        assert!(book < self.books, "book {book} of a board of {}", self.books);
        let (version, payload) = slot(&self.mapping, book);
        seqlock_write(version, payload, &view.to_words());
    }

    /// A reader in this process.
    pub fn reader(&self) -> BoardReader {
        BoardReader { mapping: self.mapping.clone(), books: self.books }
    }

    /// Bytes of the board's memory.
    pub fn bytes(&self) -> usize {
        self.mapping.words().len() * WORD_BYTES
    }
}

#[cfg(not(any(loom, miri)))]
impl std::os::fd::AsFd for BoardWriter {
    /// The memfd to hand to readers.
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.mapping.fd()
    }
}

/// Reads a board. Clones are free.
#[derive(Clone, Debug)]
pub struct BoardReader {
    mapping: Arc<Mapping>,
    books: usize,
}

impl BoardReader {
    /// Maps a board that another process made, after checking seals, size and header.
    #[cfg(not(any(loom, miri)))]
    pub fn attach(fd: std::os::fd::OwnedFd) -> Result<BoardReader, AttachError> {
        let mapping = Mapping::attach(fd, Access::ReadOnly)?;
        let words = mapping.words();
        let size = AttachError::Size { bytes: (words.len() * WORD_BYTES) as i64 };
        if words.len() < HEADER_WORDS {
            return Err(size);
        }
        let [magic, version, books] =
            [MAGIC_AT, VERSION_AT, BOOKS_AT].map(|at| words[at].load(Ordering::Relaxed));
        if magic != MAGIC {
            return Err(AttachError::Magic(magic));
        }
        if version != LAYOUT_VERSION {
            return Err(AttachError::Version(version));
        }
        if !(1..=BOOKS_MAX as u64).contains(&books) {
            return Err(AttachError::Capacity(books));
        }
        let books = books as usize;
        if words.len() != HEADER_WORDS + books * SLOT_WORDS {
            return Err(size);
        }
        Ok(BoardReader { mapping: Arc::new(mapping), books })
    }

    /// Number of books.
    pub fn books(&self) -> usize {
        self.books
    }

    /// The state of `book` at one instant. `None` if there is no such book, or if the writer
    /// stayed amid a write for [`READ_ATTEMPTS_MAX`] looks (preempted, or dead): try later.
    #[inline]
    pub fn read(&self, book: usize) -> Option<BookView> {
        if book >= self.books {
            return None;
        }
        let (version, payload) = slot(&self.mapping, book);
        let mut words = [0; VIEW_WORDS];
        seqlock_read(version, payload, &mut words).then(|| BookView::from_words(&words))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::thread;

    /// A view whose every field follows from `number`, so that a torn one cannot pass.
    fn view(number: u64) -> BookView {
        let level = |at: usize| Level {
            price_ticks: number.wrapping_mul(3).wrapping_add(at as u64) as u32,
            quantity: number.wrapping_mul(5).wrapping_add(at as u64),
        };
        BookView {
            last_ticks: number as u32,
            last_quantity: number.wrapping_add(1) as u32,
            trades: number.wrapping_add(2),
            volume: number.wrapping_add(3),
            time_ns: number.wrapping_add(4),
            sequence: number,
            bids: std::array::from_fn(level),
            asks: std::array::from_fn(|at| level(100 + at)),
            phase: number as u8,
            indicative_ticks: number.wrapping_add(5) as u32,
            indicative_volume: number.wrapping_add(6),
            indicative_imbalance: number.wrapping_add(7) as i64,
        }
    }

    #[test]
    fn each_book_reads_back_what_was_written_to_it() {
        let mut writer = BoardWriter::create(3).unwrap();
        let reader = writer.reader();
        assert_eq!(reader.read(2), Some(BookView::default()));
        for book in 0..3 {
            writer.write(book, &view(u64::MAX - book as u64));
        }
        for book in 0..3 {
            assert_eq!(reader.read(book), Some(view(u64::MAX - book as u64)));
        }
        assert_eq!((reader.books(), reader.read(3)), (3, None));
    }

    #[test]
    fn no_reader_ever_sees_a_torn_or_an_older_view() {
        const WRITES: u64 = match () {
            () if cfg!(miri) => 200,
            () if cfg!(sanitized) => 50_000,
            () => 1_000_000,
        };
        let mut writer = BoardWriter::create(1).unwrap();
        writer.write(0, &view(0));
        let readers = [writer.reader(), writer.reader()];
        thread::scope(|scope| {
            for reader in readers {
                scope.spawn(move || {
                    let mut last = 0;
                    while last < WRITES {
                        let Some(seen) = reader.read(0) else { continue };
                        assert_eq!(seen, view(seen.sequence));
                        assert!(seen.sequence >= last);
                        last = seen.sequence;
                    }
                });
            }
            for number in 1..=WRITES {
                writer.write(0, &view(number));
            }
        });
    }

    #[test]
    fn a_writer_that_died_amid_a_write_hangs_nobody() {
        let mut writer = BoardWriter::create(2).unwrap();
        let reader = writer.reader();
        writer.write(0, &view(1));
        writer.write(1, &view(2));
        slot(&writer.mapping, 0).0.store(3, Ordering::Relaxed);
        assert_eq!(reader.read(0), None);
        assert_eq!(reader.read(1), Some(view(2)));
    }

    #[test]
    fn impossible_numbers_of_books_are_refused() {
        for books in [0, BOOKS_MAX + 1, usize::MAX] {
            assert_eq!(BoardWriter::create(books).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[cfg(not(miri))]
    mod descriptors {
        use super::*;
        use crate::ring::Memory;
        use nix::fcntl::{FcntlArg, SealFlag, fcntl};
        use nix::sys::memfd::{MFdFlags, memfd_create};
        use std::fs::File;
        use std::os::fd::{AsFd, OwnedFd};
        use std::os::unix::fs::FileExt;
        use zerocopy::IntoBytes;

        const SEALS: SealFlag = SealFlag::F_SEAL_SHRINK
            .union(SealFlag::F_SEAL_GROW)
            .union(SealFlag::F_SEAL_FUTURE_WRITE)
            .union(SealFlag::F_SEAL_SEAL);

        #[test]
        fn a_receiver_of_the_descriptor_can_read_and_never_write() {
            let mut writer = BoardWriter::create(2).unwrap();
            let fd = || writer.as_fd().try_clone_to_owned().unwrap();
            let reader = BoardReader::attach(fd()).unwrap();
            let file = File::from(fd());
            let refused = file.write_at(&[1], 4096).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            assert!(nix::unistd::ftruncate(&file, 0).is_err());
            // A ring maps read-write, which is what must fail here.
            let refused = Memory::from_fd(fd()).unwrap_err().to_string();
            assert!(refused.contains("mmap"), "{refused}");
            writer.write(1, &view(9));
            assert_eq!(reader.read(1), Some(view(9)));
        }

        #[test]
        fn memory_that_is_no_board_is_refused() {
            let attach = |header: [u64; 3], bytes: i64, seals: SealFlag| {
                let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
                let fd: OwnedFd = memfd_create("test", flags).unwrap();
                nix::unistd::write(&fd, header.as_bytes()).unwrap();
                nix::unistd::ftruncate(&fd, bytes).unwrap();
                fcntl(&fd, FcntlArg::F_ADD_SEALS(seals)).unwrap();
                BoardReader::attach(fd)
            };
            let good = [MAGIC, LAYOUT_VERSION, 2];
            const BYTES: i64 = 4096 + 2 * 512;
            assert_eq!(attach(good, BYTES, SEALS).unwrap().books(), 2);
            for missing in SEALS {
                let refused = attach(good, BYTES, SEALS - missing);
                assert!(matches!(refused, Err(AttachError::Seals { .. })), "{refused:?}");
            }
            for bytes in [24, BYTES - 8, BYTES + 8] {
                let refused = attach(good, bytes, SEALS);
                assert!(matches!(refused, Err(AttachError::Size { .. })), "{refused:?}");
            }
            let refused = attach([MAGIC - 1, LAYOUT_VERSION, 2], BYTES, SEALS);
            assert!(matches!(refused, Err(AttachError::Magic(_))), "{refused:?}");
            let refused = attach([MAGIC, 0, 2], BYTES, SEALS);
            assert!(matches!(refused, Err(AttachError::Version(0))), "{refused:?}");
            for books in [0, BOOKS_MAX as u64 + 1, u64::MAX] {
                let refused = attach([MAGIC, LAYOUT_VERSION, books], BYTES, SEALS);
                assert!(matches!(refused, Err(AttachError::Capacity(_))), "{refused:?}");
            }
        }
    }
}
