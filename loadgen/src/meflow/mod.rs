//! MEFLOW-1: a file of orders that any matching engine can be run on, and how its result is checked.
//!
//! A flow is `prefill` adds that build the book, then the operations that are timed, then (in
//! published flows) two sweeps a book that empty it, so that a residual book is checked too.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub mod generate;
pub mod oracle;

use generate::generate;
use oracle::Oracle;

#[cfg(target_endian = "big")]
compile_error!("flow files are little-endian; port `Record` before building");

/// Lowest and highest price of a flow, ticks.
pub const PRICE_TICKS: std::ops::RangeInclusive<u16> = 1..=1000;
/// Largest quantity of an order: no sum over a whole flow overflows 64 bits.
pub const QUANTITY_MAX: u32 = 1 << 28;
/// Most records a flow may hold: 1 GiB of them.
pub const RECORDS_MAX: usize = 1 << 26;
/// Most books a flow may use.
pub const BOOKS_MAX: usize = 1024;

/// `Record::kind`: a limit order.
pub const ADD: u8 = 0;
/// `Record::kind`: cancels the live order `id`.
pub const CANCEL: u8 = 1;
/// `Record::kind`: a limit order at the far end of the price range, so that it takes.
pub const AGGRESSIVE: u8 = 2;
/// `Record::side`: wants to buy.
pub const BUY: u8 = 0;
/// `Record::side`: wants to sell.
pub const SELL: u8 = 1;

/// One operation, as it lies in the file.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Record {
    /// The order's id, dense from 1.
    pub id: u32,
    /// Units; in a cancel, what remains of the order (engines must not use it).
    pub quantity: u32,
    /// Which book.
    pub book: u16,
    /// Limit, ticks.
    pub price: u16,
    /// [`ADD`], [`CANCEL`] or [`AGGRESSIVE`].
    pub kind: u8,
    /// [`BUY`] or [`SELL`].
    pub side: u8,
    /// Zero.
    pub pad: u16,
}

const _: () = assert!(size_of::<Record>() == 16);

impl Record {
    /// The handle that [`Record::set_handle`] put into a cancel.
    #[must_use]
    pub fn handle(&self) -> u64 {
        u64::from(self.quantity) << 32 | u64::from(self.id)
    }

    /// Replaces the id of a cancel by the handle its engine answered the order with. It fills the
    /// 64 bits of `id` and `quantity`, neither of which a cancel by handle needs.
    pub fn set_handle(&mut self, handle: u64) {
        self.id = handle as u32;
        self.quantity = (handle >> 32) as u32;
    }

    /// The sweep of `book` and `side`: takes `quantity` at any price.
    pub(crate) fn aggressive(id: u32, quantity: u32, book: u16, side: u8) -> Self {
        let price = if side == BUY { *PRICE_TICKS.end() } else { *PRICE_TICKS.start() };
        Self { id, quantity, book, price, kind: AGGRESSIVE, side, pad: 0 }
    }

    fn is_sweep(&self, book: usize, side: u8) -> bool {
        *self == Self::aggressive(self.id, self.quantity, book as u16, side)
    }
}

/// One trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// Id of the order that came in.
    pub taker: u32,
    /// Id of the order that rested.
    pub maker: u32,
    /// The maker's price, ticks.
    pub price: u16,
    /// Units.
    pub quantity: u32,
}

/// What an engine did. Equal hashes mean the same fills in the same order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Number of fills.
    pub trades: u64,
    /// Units traded.
    pub volume: u64,
    /// Sum of price x quantity, ticks x units.
    pub notional: u64,
    /// Running hash of the fills.
    pub hash: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self { trades: 0, volume: 0, notional: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}

impl Totals {
    /// Counts one fill.
    #[inline(always)]
    pub fn count(&mut self, fill: Fill) {
        const K: u64 = 0x9E37_79B9_7F4A_7C15;
        let (price, quantity) = (u64::from(fill.price), u64::from(fill.quantity));
        self.trades += 1;
        self.volume += quantity;
        self.notional += price * quantity;
        let parties = u64::from(fill.taker) << 32 | u64::from(fill.maker);
        self.hash = (self.hash ^ parties).wrapping_mul(K);
        self.hash = (self.hash ^ (price << 32 | quantity)).wrapping_mul(K);
    }
}

/// What a correct engine makes of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Totals after the timed part.
    pub timed: Totals,
    /// Totals after the sweeps.
    pub swept: Totals,
    /// Most orders that rest at once.
    pub live_max: usize,
}

/// A flow in memory, checked, with what must come out of it.
#[derive(Debug)]
pub struct Flow {
    /// Prefill, timed operations, sweeps.
    pub records: Vec<Record>,
    /// Number of records before the timed part.
    pub prefill: usize,
    /// Number of timed operations.
    pub ops: usize,
    /// Number of books.
    pub books: usize,
    /// What must come out.
    pub expected: Expected,
}

/// Why a flow cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The file could not be read or written.
    #[error("flow file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a whole number of records, or empty, or too long.
    #[error("flow file {path} has {bytes} bytes; it needs 1 to {RECORDS_MAX} records of 16 bytes")]
    Length {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// No operation is left to time.
    #[error(
        "{prefill} prefill records leave nothing to time in a flow of {records}; lower --prefill"
    )]
    Prefill {
        /// What was asked.
        prefill: usize,
        /// What there is.
        records: usize,
    },
    /// A record breaks the format.
    #[error("flow record {index}: {reason}")]
    Record {
        /// Position, from 0.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The generator no longer makes the published flow.
    #[error("generated flow {name} differs from the published one: {what}")]
    Generator {
        /// The flow.
        name: &'static str,
        /// What differs.
        what: String,
    },
}

impl Flow {
    /// Reads a flow file, finds its books and sweeps, and runs the oracle over it.
    ///
    /// # Errors
    /// The file cannot be read, or is not a flow with more than `prefill` records.
    pub fn read(path: &Path, prefill: usize) -> Result<Self, FlowError> {
        Self::from_records(read_records(path)?, prefill)
    }

    /// Makes a flow of records: finds its books and sweeps, and runs the oracle over it.
    ///
    /// # Errors
    /// A record breaks the format, or there are not more than `prefill` of them.
    pub fn from_records(records: Vec<Record>, prefill: usize) -> Result<Self, FlowError> {
        let mut flow = Self::lay_out(records, prefill)?;
        let mut oracle = Oracle::new(flow.books);
        let timed_end = flow.prefill + flow.ops;
        for (index, record) in flow.records.iter().enumerate() {
            oracle.apply(record).map_err(|reason| FlowError::Record { index, reason })?;
            if index + 1 == timed_end {
                flow.expected.timed = oracle.totals;
            }
        }
        flow.expected.swept = oracle.totals;
        flow.expected.live_max = oracle.live_max;
        Ok(flow)
    }

    /// Cuts the timed part to its first `ops` operations and sweeps what then rests.
    ///
    /// # Errors
    /// `ops` is zero.
    pub fn cut(mut self, ops: usize) -> Result<Self, FlowError> {
        if ops >= self.ops {
            return Ok(self);
        }
        self.records.truncate(self.prefill + ops);
        let mut oracle = Oracle::new(self.books);
        for (index, record) in self.records.iter().enumerate() {
            oracle.apply(record).map_err(|reason| FlowError::Record { index, reason })?;
        }
        let last_id = self.records.iter().map(|record| record.id).max().unwrap_or(0);
        for ((book, side), id) in sweep_order(self.books).zip(last_id + 1..) {
            let sweep = oracle.sweep(id, book as u16, side);
            oracle.apply(&sweep).expect("the oracle made it");
            self.records.push(sweep);
        }
        Self::from_records(self.records, self.prefill)
    }

    /// Of something for each record: those that build the book.
    #[must_use]
    pub fn prefill<'a, T>(&self, records: &'a [T]) -> &'a [T] {
        &records[..self.prefill]
    }

    /// Of something for each record: the timed operations.
    #[must_use]
    pub fn timed<'a, T>(&self, records: &'a [T]) -> &'a [T] {
        &records[self.prefill..self.prefill + self.ops]
    }

    /// Of something for each record: the sweeps that empty the books.
    #[must_use]
    pub fn sweeps<'a, T>(&self, records: &'a [T]) -> &'a [T] {
        &records[self.prefill + self.ops..]
    }

    /// Checks every field of every record and tells the three parts apart.
    fn lay_out(records: Vec<Record>, prefill: usize) -> Result<Self, FlowError> {
        for (index, record) in records.iter().enumerate() {
            check(record, records.len()).map_err(|reason| FlowError::Record { index, reason })?;
        }
        let books = records.iter().map(|r| usize::from(r.book) + 1).max().unwrap_or(0);
        let tail = records.len().saturating_sub(2 * books);
        let swept = sweep_order(books)
            .zip(&records[tail..])
            .filter(|((book, side), record)| record.is_sweep(*book, *side))
            .count();
        let timed_end = if swept == 2 * books { tail } else { records.len() };
        if timed_end <= prefill {
            return Err(FlowError::Prefill { prefill, records: timed_end });
        }
        let ops = timed_end - prefill;
        Ok(Self { records, prefill, ops, books, expected: Expected::default() })
    }
}

/// Books in order, in each first the buyer that empties the offers.
pub(crate) fn sweep_order(books: usize) -> impl Iterator<Item = (usize, u8)> {
    (0..books).flat_map(|book| [(book, BUY), (book, SELL)])
}

fn check(record: &Record, records: usize) -> Result<(), &'static str> {
    if record.kind > AGGRESSIVE {
        return Err("kind is none of 0 (add), 1 (cancel), 2 (aggressive)");
    }
    if record.side > SELL {
        return Err("side is neither 0 (buy) nor 1 (sell)");
    }
    if !PRICE_TICKS.contains(&record.price) {
        return Err("price is outside 1..=1000 ticks");
    }
    if record.quantity == 0 || record.quantity > QUANTITY_MAX {
        return Err("quantity is outside 1..=2^28");
    }
    if usize::from(record.book) >= BOOKS_MAX {
        return Err("book is above 1023");
    }
    // Dense ids let engines and drivers keep plain arrays; this also bounds those arrays.
    if record.id == 0 || record.id as usize > records {
        return Err("id is not dense: it must be from 1 to the number of records");
    }
    if record.pad != 0 {
        return Err("the last two bytes are not zero");
    }
    Ok(())
}

fn read_records(path: &Path) -> Result<Vec<Record>, FlowError> {
    let io = |source| FlowError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    let size = size_of::<Record>() as u64;
    if bytes == 0 || bytes % size != 0 || bytes / size > RECORDS_MAX as u64 {
        return Err(FlowError::Length { path: path.to_owned(), bytes });
    }
    let mut records = vec![Record::default(); (bytes / size) as usize];
    file.read_exact(records.as_mut_slice().as_mut_bytes()).map_err(io)?;
    Ok(records)
}

/// Writes a flow file, whole or not at all.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> Result<(), FlowError> {
    let partial = path.with_extension("partial");
    fs::write(&partial, records.as_bytes())
        .and_then(|()| fs::rename(&partial, path))
        .map_err(|source| FlowError::Io { path: path.to_owned(), source })
}

/// A flow whose result is published, so that any two engines in the world can be compared on it.
#[derive(Debug)]
pub struct Published {
    /// Short name: `a` or `b`.
    pub name: &'static str,
    seed: u64,
    books: usize,
    prefill: usize,
    ops: usize,
    /// Of the file's bytes.
    blake3: &'static str,
    /// What must come out.
    pub expected: Expected,
}

/// One book, 100,000 live orders in it.
pub const FLOW_A: Published = Published {
    name: "a",
    seed: 42,
    books: 1,
    prefill: 100_000,
    ops: 10_000_000,
    blake3: "21df74fba499978b1e28a4d00ed4a95c1432f0cb5bb2d6eba9bf004c7eb0df50",
    expected: Expected {
        timed: Totals {
            trades: 3_978_719,
            volume: 151_434_657,
            notional: 84_341_289_594,
            hash: 0xd20a_5203_1941_7022,
        },
        swept: Totals {
            trades: 4_078_783,
            volume: 156_479_441,
            notional: 87_053_854_005,
            hash: 0xa511_14e0_1454_a988,
        },
        live_max: 100_154,
    },
};

/// A hundred books, about 1,000 live orders in each.
pub const FLOW_B: Published = Published {
    name: "b",
    seed: 43,
    books: 100,
    prefill: 100_000,
    ops: 10_000_000,
    blake3: "d922203f78d7e948d714ea9b089e4ea6e3dd51f87c4c311f5c635a0f97e5ee72",
    expected: Expected {
        timed: Totals {
            trades: 3_985_807,
            volume: 152_052_199,
            notional: 75_970_491_989,
            hash: 0x3f40_9e12_8633_675c,
        },
        swept: Totals {
            trades: 4_086_116,
            volume: 157_100_981,
            notional: 78_491_669_153,
            hash: 0x4a34_0869_58b2_7e69,
        },
        live_max: 101_016,
    },
};

impl Published {
    /// Reads the flow from `directory`, or makes it and leaves it there for the next run.
    ///
    /// # Errors
    /// The file cannot be written, or the generator no longer makes the published flow.
    pub fn load(&self, directory: &Path) -> Result<Flow, FlowError> {
        let path = directory.join(format!("{}.bin", self.name));
        let cached = read_records(&path).ok();
        if let Some(records) = cached.filter(|records| blake3_of(records) == self.blake3) {
            let (prefill, ops, books) = (self.prefill, self.ops, self.books);
            return Ok(Flow { records, prefill, ops, books, expected: self.expected });
        }
        let flow = self.generate()?;
        fs::create_dir_all(directory)
            .map_err(|source| FlowError::Io { path: directory.to_owned(), source })?;
        write(&path, &flow.records)?;
        Ok(flow)
    }

    /// Makes the flow and compares it with what is published.
    ///
    /// # Errors
    /// They differ.
    pub fn generate(&self) -> Result<Flow, FlowError> {
        let flow = generate(self.seed, self.books, self.prefill, self.ops);
        let differs = |what| Err(FlowError::Generator { name: self.name, what });
        if flow.expected != self.expected {
            return differs(format!("{:?} instead of {:?}", flow.expected, self.expected));
        }
        let blake3 = blake3_of(&flow.records);
        if blake3 != self.blake3 {
            return differs(format!("the fills agree, but the BLAKE3 of its bytes is {blake3}"));
        }
        Ok(flow)
    }
}

fn blake3_of(records: &[Record]) -> String {
    blake3::hash(records.as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(id: u32, kind: u8, side: u8, price: u16, quantity: u32) -> Record {
        Record { id, quantity, book: 0, price, kind, side, pad: 0 }
    }

    fn small_flow() -> Vec<Record> {
        vec![
            order(1, ADD, SELL, 500, 10),
            order(2, ADD, SELL, 500, 5),
            order(3, AGGRESSIVE, BUY, 1000, 12),
            order(2, CANCEL, SELL, 500, 3),
        ]
    }

    #[test]
    fn a_flow_survives_the_file_and_its_expected_totals_are_found_again() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("flow.bin");
        let made = generate(7, 3, 300, 5000);
        write(&path, &made.records).expect("written");
        let read = Flow::read(&path, 300).expect("read");
        assert_eq!(read.records, made.records);
        assert_eq!((read.ops, read.books), (5000, 3), "the sweeps are told from the operations");
        assert_eq!(read.expected, made.expected);
        assert!(read.expected.swept.trades > read.expected.timed.trades);
    }

    #[test]
    fn a_record_lies_in_the_file_as_the_format_says() {
        let record = Record {
            id: 0x0403_0201,
            quantity: 0x0807_0605,
            book: 0x0a09,
            price: 0x0c0b,
            kind: 13,
            side: 14,
            pad: 0,
        };
        assert_eq!(record.as_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 0]);
    }

    #[test]
    fn the_oracle_s_totals_are_those_computed_by_hand() {
        let flow = Flow::from_records(small_flow(), 0).expect("a flow");
        let totals = flow.expected.timed;
        assert_eq!((totals.trades, totals.volume, totals.notional), (2, 12, 6000));
        assert_eq!(flow.expected.live_max, 2);
        assert_eq!(flow.sweeps(&flow.records), []);
    }

    #[test]
    fn a_handle_of_64_bits_fits_a_cancel() {
        let mut cancel = order(2, CANCEL, SELL, 500, 3);
        cancel.set_handle(0xfedc_ba98_7654_3210);
        assert_eq!(cancel.handle(), 0xfedc_ba98_7654_3210);
        assert_eq!((cancel.book, cancel.price, cancel.kind), (0, 500, CANCEL));
    }

    #[test]
    fn records_that_break_the_format_are_named() {
        type Damage = fn(&mut [Record]);
        let breaks: [(&str, Damage); 11] = [
            ("kind", |flow| flow[3].kind = 3),
            ("side", |flow| flow[3].side = 2),
            ("price", |flow| flow[3].price = 0),
            ("price", |flow| flow[3].price = 1001),
            ("quantity", |flow| flow[3].quantity = 0),
            ("quantity", |flow| flow[3].quantity = QUANTITY_MAX + 1),
            ("book is above", |flow| flow[3].book = BOOKS_MAX as u16),
            ("dense", |flow| flow[3].id = 5),
            ("not zero", |flow| flow[3].pad = 1),
            ("not live", |flow| flow[3].id = 1),
            ("belongs to a live order", |flow| flow[3] = order(2, ADD, SELL, 500, 1)),
        ];
        for (reason, damage) in breaks {
            let mut records = small_flow();
            damage(&mut records);
            let error = Flow::from_records(records, 0).expect_err(reason).to_string();
            assert!(error.contains("flow record 3: ") && error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_cancel_in_another_book_is_named() {
        let mut records = small_flow();
        records[3].book = 1;
        let error = Flow::from_records(records, 0).expect_err("another book").to_string();
        assert_eq!(error, "flow record 3: the order is in another book");
    }

    #[test]
    fn a_prefill_that_leaves_nothing_to_time_is_refused() {
        let error = Flow::from_records(small_flow(), 4).expect_err("nothing left");
        assert!(matches!(error, FlowError::Prefill { prefill: 4, records: 4 }), "{error}");
    }

    #[test]
    fn files_that_are_no_flow_are_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("flow.bin");
        for bytes in [0, 15, 17] {
            fs::write(&path, vec![0; bytes]).expect("written");
            let error = Flow::read(&path, 0).expect_err("no flow");
            assert!(
                matches!(error, FlowError::Length { bytes: length, .. } if length == bytes as u64),
                "{error}"
            );
        }
        let missing = Flow::read(&directory.path().join("none"), 0).expect_err("no file");
        assert!(matches!(missing, FlowError::Io { .. }), "{missing}");
    }

    #[test]
    fn a_cut_flow_is_the_shorter_flow() {
        let long = generate(9, 2, 200, 4000);
        let short = generate(9, 2, 200, 1500);
        let cut = long.cut(1500).expect("a shorter flow");
        assert_eq!(cut.records, short.records);
        assert_eq!((cut.ops, cut.expected), (1500, short.expected));
    }

    #[test]
    fn a_damaged_cache_is_replaced() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let made = generate(5, 2, 100, 2000);
        let blake3: &'static str = blake3_of(&made.records).leak();
        let published = Published {
            name: "t",
            seed: 5,
            books: 2,
            prefill: 100,
            ops: 2000,
            blake3,
            expected: made.expected,
        };
        let path = directory.path().join("t.bin");
        published.load(directory.path()).expect("made");
        let whole = fs::read(&path).expect("left for the next run");
        let mut damaged = whole.clone();
        damaged[1000] ^= 1;
        fs::write(&path, damaged).expect("written");
        assert_eq!(published.load(directory.path()).expect("made again").records, made.records);
        assert_eq!(fs::read(&path).expect("there"), whole);
        // A generator that makes something else than was published is found out.
        let other = Published { seed: 6, ..published };
        assert!(matches!(other.generate(), Err(FlowError::Generator { .. })));
    }
}
