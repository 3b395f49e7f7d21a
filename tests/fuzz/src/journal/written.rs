//! A journal as the format's documentation says it is written.

use arbitrary::{Result, Unstructured};
use vendue_engine::machine::command::{DefineBook, Genesis, Outcomes, SCHEMA as OWN};
use vendue_wire::message::{ANY, Body, NewOrder, SCHEMA};

/// Segments and records of one journal at most.
const SEGMENTS_MAX: usize = 3;
const RECORDS_MAX: usize = 24;
/// Bytes of a segment's header block, and where each of its fields is.
pub const BLOCK: usize = 4096;
pub const HEADER_FIELDS: [(usize, usize); 6] =
    [(4, 4), (8, 8), (16, 8), (24, 8), (32, 32), (64, 4)];
/// Bytes of a record's header, and where each of its fields is.
pub const HEAD: usize = 48;
pub const RECORD_FIELDS: [(usize, usize); 9] =
    [(4, 2), (6, 2), (8, 8), (16, 8), (24, 4), (28, 1), (32, 8), (40, 4), (44, 4)];

/// Files by name.
pub type Files = Vec<(String, Vec<u8>)>;

/// What was recorded.
pub struct Written {
    pub kind: u8,
    pub time_ns: u64,
    pub session: u32,
    pub body: Vec<u8>,
}

/// Where a record lies.
pub struct Placed {
    pub sequence: u64,
    pub flush_index: u32,
    pub name: String,
    pub at: usize,
    pub bytes: Vec<u8>,
}

/// The journal.
pub struct Journal {
    pub records: Vec<Written>,
    pub placed: Vec<Placed>,
    chains: Vec<u64>,
    segments: Files,
}

impl Journal {
    /// The journal that `bytes` spell. The last segment may still bear the prepared file's name.
    pub fn new(bytes: &mut Unstructured<'_>) -> Result<Journal> {
        let mut journal = Journal {
            records: Vec::new(),
            placed: Vec::new(),
            chains: vec![0],
            segments: Vec::new(),
        };
        let lengths: Vec<usize> = (0..bytes.int_in_range(1..=SEGMENTS_MAX)?)
            .map(|_| bytes.int_in_range(1..=RECORDS_MAX / SEGMENTS_MAX))
            .collect::<Result<_>>()?;
        let sensible = bytes.ratio(3, 4)?;
        for (at, length) in lengths.iter().enumerate() {
            let prepared = at + 1 == lengths.len() && bytes.ratio(1, 8)?;
            let zeros = bytes.int_in_range(0..=3)? * BLOCK;
            journal.segment(bytes, *length, sensible, prepared, zeros)?;
        }
        if bytes.ratio(1, 4)? && !journal.segments.iter().any(|(name, _)| name == "prepared") {
            journal.segments.push(("prepared".to_owned(), vec![0; 2 * BLOCK]));
        }
        Ok(journal)
    }

    /// Last sequence written.
    pub fn last(&self) -> u64 {
        self.records.len() as u64
    }

    /// Chain value after a record.
    pub fn chain_after(&self, sequence: u64) -> u64 {
        self.chains[sequence as usize]
    }

    /// Last record before the flush that wrote this one.
    pub fn before_flush_of(&self, sequence: u64) -> u64 {
        let placed = self.placed.iter().find(|placed| placed.sequence == sequence);
        placed.map_or(0, |placed| sequence - 1 - u64::from(placed.flush_index))
    }

    /// The files, whole.
    pub fn files(&self) -> Files {
        self.segments.clone()
    }

    fn segment(
        &mut self,
        bytes: &mut Unstructured<'_>,
        length: usize,
        sensible: bool,
        prepared: bool,
        zeros: usize,
    ) -> Result<()> {
        let first = self.last() + 1;
        let name = if prepared { "prepared".to_owned() } else { format!("{first:020}.log") };
        let salt: u32 = 0x5a17_0000 + first as u32;
        let previous = self.placed.last().map_or([0; 32], |last| {
            let (_, before) = self.segments.last().expect("a record lies in a segment");
            *blake3::hash(&before[..last.at + last.bytes.len()]).as_bytes()
        });
        let mut file = vec![0; BLOCK];
        file[4..8].copy_from_slice(&2_u32.to_le_bytes());
        file[8..16].copy_from_slice(b"VENDUELG");
        file[16..24].copy_from_slice(&first.to_le_bytes());
        file[24..32].copy_from_slice(&self.chains[first as usize - 1].to_le_bytes());
        file[32..64].copy_from_slice(&previous);
        file[64..68].copy_from_slice(&salt.to_le_bytes());
        seal(&mut file);
        let mut flush_index = 0;
        for _ in 0..length {
            let begins = self.placed.last().is_none_or(|last| last.name != name);
            flush_index = if begins || bytes.ratio(1, 2)? { 0 } else { flush_index + 1 };
            let written = record(bytes, self.last() + 1, sensible)?;
            let encoded = self.encode(&written, flush_index, salt);
            let (sequence, at) = (self.last() + 1, file.len());
            file.extend_from_slice(&encoded);
            self.placed.push(Placed {
                sequence,
                flush_index,
                name: name.clone(),
                at,
                bytes: encoded,
            });
            self.records.push(written);
        }
        file.resize(file.len().next_multiple_of(BLOCK) + zeros, 0);
        self.segments.push((name, file));
        Ok(())
    }

    /// Lays a record out and moves the chain on.
    fn encode(&mut self, written: &Written, flush_index: u32, salt: u32) -> Vec<u8> {
        let (sequence, length) = (self.last() + 1, written.body.len() as u16);
        let chain = self.chains[sequence as usize - 1];
        let mut out = vec![0; 4];
        out.extend(0x5256_u16.to_le_bytes());
        out.extend(length.to_le_bytes());
        out.extend(sequence.to_le_bytes());
        out.extend(written.time_ns.to_le_bytes());
        out.extend(written.session.to_le_bytes());
        out.extend([written.kind, 0, 0, 0]);
        out.extend(chain.to_le_bytes());
        out.extend(flush_index.to_le_bytes());
        out.extend(salt.to_le_bytes());
        out.extend(&written.body);
        out.resize(out.len().next_multiple_of(8), 0);
        let crc = seal(&mut out);
        self.chains.push(vendue_engine::storage::record::chain_next(chain, sequence, crc, length));
        out
    }
}

/// Writes the CRC32C of what follows it.
pub fn seal(bytes: &mut [u8]) -> u32 {
    let crc = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// A record: start-up records first if it is to make sense, then commands with small numbers.
fn record(bytes: &mut Unstructured<'_>, sequence: u64, sensible: bool) -> Result<Written> {
    let time_ns = 1_000_000_000 * (sequence + u64::from(bytes.int_in_range(0..=3_u8)?));
    let session: u32 = if bytes.ratio(1, 2)? { ANY } else { bytes.int_in_range(0..=3)? };
    let mut body = vec![0; 8];
    body.extend(session.to_le_bytes());
    body.extend(u32::MAX.to_le_bytes());
    let kind = match sequence {
        _ if !sensible => {
            body.truncate(bytes.int_in_range(0..=16)?);
            let length = bytes.int_in_range(0..=480)?.min(bytes.len());
            body.extend(bytes.bytes(length)?);
            return Ok(Written { kind: bytes.arbitrary()?, time_ns, session, body });
        }
        1 => Genesis::KIND,
        2 => DefineBook::KIND,
        _ => {
            let rows = SCHEMA.iter().chain(OWN).filter(|row| row.0 < 0x80);
            rows.map(|row| row.0).nth(bytes.int_in_range(0..=43)?).unwrap_or(NewOrder::KIND)
        }
    };
    let row = SCHEMA.iter().chain(OWN).find(|row| row.0 == kind).expect("a known kind");
    let start = body.len();
    body.resize(start + row.2, 0);
    for (field, at, size) in row.3 {
        let value = value(bytes, kind, field)?;
        body[start + at..start + at + size.min(&8)]
            .copy_from_slice(&value.to_le_bytes()[..*size.min(&8)]);
    }
    let session = if (0x40..0x50).contains(&kind) { ANY } else { session };
    body[8..12].copy_from_slice(&session.to_le_bytes());
    Ok(Written { kind, time_ns, session, body })
}

/// A field's value: valid bounds for the start-up records, small numbers for others.
fn value(bytes: &mut Unstructured<'_>, kind: u8, field: &str) -> Result<u64> {
    if field.starts_with("reserved") || field.starts_with("digest") {
        return Ok(0);
    }
    match (kind, field) {
        (Outcomes::KIND, "rows") => Ok(0),
        (Genesis::KIND, "maker_fee_bps" | "taker_fee_bps" | "lease_margin_percent") => Ok(10),
        (Genesis::KIND, _) => bytes.int_in_range(4..=16),
        (DefineBook::KIND, "tier" | "resource") => Ok(0),
        (DefineBook::KIND, "burst_percent") => Ok(400),
        (DefineBook::KIND, _) => bytes.int_in_range(1..=100),
        _ if bytes.ratio(1, 16)? => bytes.arbitrary(),
        _ => bytes.int_in_range(0..=3),
    }
}
