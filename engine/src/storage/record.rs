//! The record as it lies on disk: a 48-byte header, the body, zeros up to a multiple of 8 bytes.
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | CRC32C of everything after this field, padding included |
//! | 4 | 2 | magic, [`MAGIC`] |
//! | 6 | 2 | body length in bytes |
//! | 8 | 8 | sequence |
//! | 16 | 8 | time, nanoseconds since 1970 UTC |
//! | 24 | 4 | session slot |
//! | 28 | 1 | kind |
//! | 29 | 3 | zero |
//! | 32 | 8 | chain value of everything before this record |
//! | 40 | 4 | records before this one that were flushed with it |
//! | 44 | 4 | salt of the segment |
//!
//! All numbers are little-endian. The salt is random and never leaves the log, so bytes that a
//! client put into a body can not pass for a record when recovery searches for one.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Marks the start of a record.
pub const MAGIC: u16 = 0x5256;
/// Bytes of the header.
pub const HEADER_BYTES: usize = size_of::<Header>();
/// Longest body in bytes.
pub const BODY_BYTES_MAX: usize = 496;
/// Bytes of the longest record.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;
/// Every record starts and ends at a multiple of this.
pub const ALIGN_BYTES: usize = 8;
/// Bytes of the CRC, which does not cover itself.
const CRC_BYTES: usize = 4;

const _: () = assert!(HEADER_BYTES == 48 && HEADER_BYTES.is_multiple_of(ALIGN_BYTES));
const _: () = assert!(BODY_BYTES_MAX.is_multiple_of(ALIGN_BYTES));

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    crc: U32,
    magic: U16,
    body_bytes: U16,
    sequence: U64,
    time_ns: U64,
    session: U32,
    kind: u8,
    reserved: [u8; 3],
    chain: U64,
    flush_index: U32,
    salt: U32,
}

/// A record, its body borrowed from the buffer it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// Place in the one order of everything; the first is 1.
    pub sequence: u64,
    /// Sequencer's time, nanoseconds since 1970 UTC.
    pub time_ns: u64,
    /// Slot of the session that sent it.
    pub session: u32,
    /// What the body is; storage does not look.
    pub kind: u8,
    /// Chain value of everything before this record.
    pub chain: u64,
    /// Records before this one that were flushed with it.
    pub flush_index: u32,
    /// CRC32C as stored.
    pub crc: u32,
    /// What was recorded, at most [`BODY_BYTES_MAX`] bytes.
    pub body: &'a [u8],
}

/// Why bytes are not a whole record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The buffer ends before the record does.
    #[error("the record is cut short")]
    Short,
    /// No record starts here.
    #[error("no record starts here")]
    Magic,
    /// The length is above [`BODY_BYTES_MAX`].
    #[error("the body's length {0} is out of range")]
    Length(u16),
    /// The record belongs to another segment, or is no record at all.
    #[error("the salt is another segment's")]
    Salt,
    /// The bytes are not those that were written.
    #[error("the checksum does not match")]
    Crc,
}

/// Bytes that a record with a body of `body_bytes` takes on disk.
#[inline]
pub const fn record_bytes(body_bytes: usize) -> usize {
    HEADER_BYTES + body_bytes.next_multiple_of(ALIGN_BYTES)
}

/// The chain value after a record: a fold of the value before it with the record's sequence, CRC
/// and body length.
///
/// The CRC covers the value before it, so one value stands for the whole history. It finds
/// records lost, exchanged or put in; it is not cryptographic. The BLAKE3 links between segments
/// are.
#[inline]
pub const fn chain_next(chain: u64, sequence: u64, crc: u32, body_bytes: u16) -> u64 {
    // Two rounds of multiply and fold; the constants are the golden ratio and a random odd number.
    let mut x = chain ^ ((crc as u64) << 32 | body_bytes as u64);
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x ^= x >> 32;
    x = x.wrapping_add(sequence).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 29)
}

impl Record<'_> {
    /// The chain value after this record.
    #[inline]
    pub fn chain_after(&self) -> u64 {
        // `decode` and `encode` bound the body far below u16::MAX.
        chain_next(self.chain, self.sequence, self.crc, self.body.len() as u16)
    }

    /// Bytes it takes on disk.
    #[inline]
    pub fn bytes(&self) -> usize {
        record_bytes(self.body.len())
    }

    /// Writes the record at the start of `out` and returns its CRC; `self.crc` is not used.
    ///
    /// The caller has checked that the body is at most [`BODY_BYTES_MAX`] and that `out` holds
    /// [`Record::bytes`].
    #[inline]
    pub(crate) fn encode(&self, out: &mut [u8], salt: u32) -> u32 {
        assert!(self.body.len() <= BODY_BYTES_MAX, "a body is longer than a record holds");
        let out = &mut out[..self.bytes()];
        let header = Header {
            crc: U32::ZERO,
            magic: U16::new(MAGIC),
            body_bytes: U16::new(self.body.len() as u16),
            sequence: U64::new(self.sequence),
            time_ns: U64::new(self.time_ns),
            session: U32::new(self.session),
            kind: self.kind,
            reserved: [0; 3],
            chain: U64::new(self.chain),
            flush_index: U32::new(self.flush_index),
            salt: U32::new(salt),
        };
        let (head, rest) = out.split_at_mut(HEADER_BYTES);
        head.copy_from_slice(header.as_bytes());
        let (body, padding) = rest.split_at_mut(self.body.len());
        body.copy_from_slice(self.body);
        padding.fill(0);
        let crc = crc32c::crc32c(&out[CRC_BYTES..]);
        out[..CRC_BYTES].copy_from_slice(&crc.to_le_bytes());
        crc
    }
}

/// Reads the record at the start of `bytes`. With `salt`, only one of that segment is accepted.
///
/// # Errors
/// Says what keeps the bytes from being a whole record.
#[inline]
pub fn decode(bytes: &[u8], salt: Option<u32>) -> Result<Record<'_>, RecordError> {
    decode_with(bytes, salt, true)
}

/// As [`decode`], with or without verifying the checksum.
#[inline]
pub(crate) fn decode_with(
    bytes: &[u8],
    salt: Option<u32>,
    checksum: bool,
) -> Result<Record<'_>, RecordError> {
    let (header, rest) = Header::ref_from_prefix(bytes).map_err(|_| RecordError::Short)?;
    if header.magic.get() != MAGIC {
        return Err(RecordError::Magic);
    }
    let body_bytes = usize::from(header.body_bytes.get());
    if body_bytes > BODY_BYTES_MAX {
        return Err(RecordError::Length(header.body_bytes.get()));
    }
    if salt.is_some_and(|salt| header.salt.get() != salt) {
        return Err(RecordError::Salt);
    }
    let whole = bytes.get(CRC_BYTES..record_bytes(body_bytes)).ok_or(RecordError::Short)?;
    let crc = header.crc.get();
    if checksum && crc32c::crc32c(whole) != crc {
        return Err(RecordError::Crc);
    }
    Ok(Record {
        sequence: header.sequence.get(),
        time_ns: header.time_ns.get(),
        session: header.session.get(),
        kind: header.kind,
        chain: header.chain.get(),
        flush_index: header.flush_index.get(),
        crc,
        body: &rest[..body_bytes],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(body: &[u8]) -> Record<'_> {
        Record {
            sequence: 7,
            time_ns: 1_700_000_000_000_000_000,
            session: 3,
            kind: 0x21,
            chain: 0x0123_4567_89ab_cdef,
            flush_index: 2,
            crc: 0,
            body,
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(body in proptest::collection::vec(any::<u8>(), 0..=BODY_BYTES_MAX)) {
            let mut buffer = [0xa5; RECORD_BYTES_MAX];
            let record = sample(&body);
            let crc = record.encode(&mut buffer, 99);
            prop_assert_eq!(decode(&buffer, Some(99)), Ok(Record { crc, ..record }));
            prop_assert_eq!(decode(&buffer, Some(98)), Err(RecordError::Salt));
        }

        #[test]
        fn any_flipped_bit_is_noticed(body in proptest::collection::vec(any::<u8>(), 0..64), at in any::<proptest::sample::Index>()) {
            let mut buffer = [0; RECORD_BYTES_MAX];
            let record = sample(&body);
            record.encode(&mut buffer, 99);
            let bit = at.index(record.bytes() * 8);
            buffer[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&buffer, Some(99)).is_err());
        }
    }

    #[test]
    fn a_short_buffer_is_said_to_be_short() {
        let mut buffer = [0; RECORD_BYTES_MAX];
        let record = sample(b"body");
        record.encode(&mut buffer, 99);
        for end in 0..record.bytes() {
            assert_eq!(decode(&buffer[..end], Some(99)), Err(RecordError::Short), "{end}");
        }
        assert_eq!(decode(&[0; HEADER_BYTES], None), Err(RecordError::Magic));
    }

    #[test]
    fn the_chain_depends_on_every_part() {
        let base = chain_next(1, 2, 3, 4);
        let others = [chain_next(0, 2, 3, 4), chain_next(1, 3, 3, 4), chain_next(1, 2, 4, 4)];
        assert!(others.iter().all(|&other| other != base));
        assert_ne!(chain_next(1, 2, 3, 5), base);
    }

    /// The layout is an interface: logs outlive the program that wrote them.
    #[test]
    fn the_layout_does_not_change() {
        let mut buffer = [0xff; RECORD_BYTES_MAX];
        let record = sample(b"vendue");
        let crc = record.encode(&mut buffer, 0x1122_3344);
        let mut expected = Vec::new();
        expected.extend_from_slice(&0x5256_u16.to_le_bytes());
        expected.extend_from_slice(&6_u16.to_le_bytes());
        expected.extend_from_slice(&7_u64.to_le_bytes());
        expected.extend_from_slice(&1_700_000_000_000_000_000_u64.to_le_bytes());
        expected.extend_from_slice(&3_u32.to_le_bytes());
        expected.extend_from_slice(&[0x21, 0, 0, 0]);
        expected.extend_from_slice(&0x0123_4567_89ab_cdef_u64.to_le_bytes());
        expected.extend_from_slice(&2_u32.to_le_bytes());
        expected.extend_from_slice(&0x1122_3344_u32.to_le_bytes());
        expected.extend_from_slice(b"vendue\0\0");
        assert_eq!(&buffer[4..56], expected);
        assert_eq!(crc, crc32c::crc32c(&expected));
        assert_eq!(buffer[..4], crc.to_le_bytes());
        assert_eq!(buffer[56], 0xff);
    }
}
