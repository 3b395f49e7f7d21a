//! The log against real files, real crashes and real damage.

use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use proptest::prelude::*;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use vendue_engine::storage::{
    Append, BODY_BYTES_MAX, Host, Log, LogConfig, LogError, Point, ReadError, Reader, RecoverError,
    Recovered, Stop, Sync, Verify, recover, segment,
};

const SMALL: LogConfig =
    LogConfig { segment_bytes: 32 * 1024, buffer_bytes: 8 * 1024, sync: Sync::Always };

/// What record `sequence` holds in every test.
fn body(sequence: u64) -> Vec<u8> {
    let mut x = sequence.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let length = (x >> 33) as usize % 200;
    (0..length)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x as u8
        })
        .collect()
}

fn append_next(log: &mut Log) -> Result<(), Append> {
    let sequence = log.last().sequence + 1;
    log.append(sequence, sequence * 1000, sequence as u32 % 7, sequence as u8, &body(sequence))
}

/// Appends up to and including `through`, waiting when the buffer is full.
fn fill(log: &mut Log, through: u64) {
    while log.last().sequence < through {
        match append_next(log) {
            Ok(()) => {}
            Err(Append::Full) => drop(log.wait().unwrap()),
            Err(Append::Stopped(error)) => panic!("{error}"),
        }
    }
}

fn flush(log: &mut Log) {
    while !log.idle() {
        log.wait().unwrap();
    }
}

fn open(dir: &Path) -> Log {
    Log::open(SMALL, recover(&Host, dir, None, Point::START).unwrap()).unwrap()
}

/// Writes `1..=through`, in flushes that end at each of `ends`, and leaves it as a crash would.
fn written(dir: &Path, ends: &[u64]) {
    let mut log = open(dir);
    for &end in ends {
        fill(&mut log, end);
        flush(&mut log);
    }
}

/// Reads everything back through the reader, with the whole trail verified.
fn check_records(dir: &Path, through: u64) -> Point {
    let mut reader = Reader::open(&Host, dir, 1, through, Verify::Trail).unwrap();
    for sequence in 1..=through {
        let record = reader.next().unwrap().unwrap();
        assert_eq!(record.sequence, sequence);
        assert_eq!(record.time_ns, sequence * 1000);
        assert_eq!((record.session, record.kind), (sequence as u32 % 7, sequence as u8));
        assert_eq!(record.body, body(sequence));
    }
    assert!(reader.next().unwrap().is_none());
    reader.point()
}

/// A parser written from the documentation alone, to hold against the real one.
mod naive {
    use super::*;

    pub struct Place {
        pub path: PathBuf,
        pub start: usize,
        pub end: usize,
        pub sequence: u64,
        pub flush_index: u32,
    }

    pub fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| {
                (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
            })
        })
    }

    pub fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(&bytes[at..at + N]);
        u64::from_le_bytes(wide)
    }

    fn fold(chain: u64, sequence: u64, crc: u64, length: u64) -> u64 {
        let mut x = (chain ^ (crc << 32 | length)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        x ^= x >> 32;
        x = (x.wrapping_add(sequence)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        x ^ (x >> 29)
    }

    /// Every record of a log without damage, and the chain value behind the last.
    pub fn parse(dir: &Path) -> (Vec<Place>, u64) {
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
            .collect();
        paths.sort();
        let (mut places, mut chain, mut previous) = (Vec::new(), 0, vec![0; 32]);
        for path in paths {
            let bytes = fs::read(&path).unwrap();
            assert_eq!(&bytes[8..16], b"VENDUELG");
            assert_eq!(number::<4>(&bytes, 0), u64::from(crc32c(&bytes[4..4096])));
            let first = number::<8>(&bytes, 16);
            assert_eq!(first, places.len() as u64 + 1);
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{first:020}.log"));
            assert_eq!(number::<8>(&bytes, 24), chain);
            assert_eq!(bytes[32..64], previous[..]);
            let mut at = 4096;
            while at + 48 <= bytes.len() && number::<2>(&bytes, at + 4) == 0x5256 {
                let length = number::<2>(&bytes, at + 6);
                let end = at + 48 + (length as usize).div_ceil(8) * 8;
                let crc = number::<4>(&bytes, at);
                let sequence = number::<8>(&bytes, at + 8);
                assert_eq!(crc, u64::from(crc32c(&bytes[at + 4..end])));
                assert_eq!(sequence, places.len() as u64 + 1);
                assert_eq!(number::<8>(&bytes, at + 32), chain);
                assert_eq!(bytes[at + 44..at + 48], bytes[64..68], "the segment's salt");
                chain = fold(chain, sequence, crc, length);
                let flush_index = number::<4>(&bytes, at + 40) as u32;
                places.push(Place { path: path.clone(), start: at, end, sequence, flush_index });
                at = end;
            }
            assert!(bytes[at..].iter().all(|&byte| byte == 0));
            previous = blake3::hash(&bytes[..at]).as_bytes().to_vec();
        }
        (places, chain)
    }
}

fn temp() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn copy_dir(from: &Path) -> TempDir {
    let to = temp();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn overwrite(path: &Path, at: usize, bytes: &[u8]) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at as u64).unwrap();
}

fn flip(path: &Path, bit: usize) {
    let bytes = fs::read(path).unwrap();
    overwrite(path, bit / 8, &[bytes[bit / 8] ^ 1 << (bit % 8)]);
}

#[test]
fn records_come_back_over_many_segments_and_restarts() {
    let dir = temp();
    let mut last = Point::START;
    for (through, segments_min) in [(1500, 4), (1501, 5), (4000, 12)] {
        let recovered = recover(&Host, dir.path(), None, last).unwrap();
        assert_eq!(recovered.last, last);
        assert!(recovered.cuts.is_empty() && recovered.rebuilt.is_none());
        let mut log = Log::open(SMALL, recovered).unwrap();
        fill(&mut log, through);
        assert!(log.durable() <= through);
        last = log.close().unwrap();
        assert!(segment::list(&Host, dir.path()).unwrap().len() >= segments_min);
        assert_eq!(check_records(dir.path(), through), last);
    }
    let (places, chain) = naive::parse(dir.path());
    assert_eq!(Point { sequence: places.len() as u64, chain }, last);
    for from in (1..=4001).step_by(501) {
        let mut reader = Reader::open(&Host, dir.path(), from, 4000, Verify::Records).unwrap();
        for sequence in from..=4000 {
            assert_eq!(reader.next().unwrap().unwrap().body, body(sequence));
        }
        assert!(reader.next().unwrap().is_none());
    }
}

#[test]
fn the_longest_and_the_empty_body_fit() {
    let dir = temp();
    let mut log = open(dir.path());
    for sequence in 1..=500 {
        let body = vec![7; if sequence % 2 == 0 { BODY_BYTES_MAX } else { 0 }];
        while let Err(full) = log.append(sequence, 0, 0, 0, &body) {
            assert!(matches!(full, Append::Full));
            log.wait().unwrap();
        }
    }
    let last = log.close().unwrap();
    let mut reader = Reader::open(&Host, dir.path(), 1, 500, Verify::Trail).unwrap();
    while let Some(record) = reader.next().unwrap() {
        assert_eq!(record.body.len(), if record.sequence % 2 == 0 { BODY_BYTES_MAX } else { 0 });
    }
    assert_eq!(reader.point(), last);
}

#[test]
fn nothing_is_durable_before_a_flush_and_one_flush_takes_what_has_gathered() {
    let dir = temp();
    let mut log = open(dir.path());
    for _ in 0..20 {
        append_next(&mut log).unwrap();
    }
    assert_eq!((log.durable(), log.in_flight(), log.idle()), (0, false, false));
    log.poll().unwrap();
    append_next(&mut log).unwrap();
    while log.in_flight() && log.durable() < 20 {
        log.poll().unwrap();
    }
    assert!(log.durable() == 20 || log.durable() == 21);
    flush(&mut log);
    assert_eq!(log.durable(), 21);
    let (places, _) = naive::parse(dir.path());
    let indexes: Vec<u32> = places.iter().map(|place| place.flush_index).collect();
    assert_eq!(indexes, (0..20).chain([0]).collect::<Vec<u32>>());
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_to_the_last_whole_record() {
    let dir = temp();
    written(dir.path(), &[30, 36]);
    let (places, _) = naive::parse(dir.path());
    let (start, end) = (places[30].start, places[35].end);
    let path = &places[30].path;
    let whole = fs::read(path).unwrap();
    for at in start..end {
        let torn: [&dyn Fn(); 3] = [
            &|| fs::write(path, &whole[..at]).unwrap(),
            &|| overwrite(path, at, &vec![0; end - at]),
            &|| overwrite(path, at, &vec![0xa5; end - at + 100]),
        ];
        for (kind, tear) in torn.iter().enumerate() {
            fs::write(path, &whole).unwrap();
            tear();
            // Zeros over padding change nothing, so look at what is left, not at where it tore.
            let left = fs::read(path).unwrap();
            let is_whole =
                |place: &&naive::Place| left.get(..place.end) == Some(&whole[..place.end]);
            let kept = places.iter().take_while(is_whole).count() as u64;
            let recovered = recover(&Host, dir.path(), None, Point::START)
                .unwrap_or_else(|error| panic!("byte {at}, tear {kind}: {error}"));
            assert_eq!(recovered.last.sequence, kept, "byte {at}, tear {kind}");
            // The last bytes of a body may be zeros by themselves, so "at most".
            let cut = recovered.cuts.first().map_or(0, |cut| cut.bytes) as usize;
            assert!(cut <= end + 100 - places[kept as usize - 1].end);
            drop(recovered);
            let left = fs::read(path).unwrap();
            assert_eq!(left, whole[..places[kept as usize - 1].end], "byte {at}, tear {kind}");
        }
    }
    // And it goes on behind the cut.
    let mut log = open(dir.path());
    fill(&mut log, 100);
    let last = log.close().unwrap();
    assert_eq!(check_records(dir.path(), 100), last);
}

#[test]
fn a_flipped_bit_is_never_cut_away_silently() {
    let dir = temp();
    written(dir.path(), &[200, 420, 640]);
    let (places, _) = naive::parse(dir.path());
    let segments = segment::list(&Host, dir.path()).unwrap();
    assert!(segments.len() >= 3);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let strategy = (any::<prop::sample::Index>(), any::<prop::sample::Index>());
    let result = runner.run(&strategy, |(segment, bit)| {
        let path = segment::path(dir.path(), *segment.get(&segments));
        let bytes = fs::read(&path).unwrap();
        let used = places.iter().rfind(|place| place.path == path).unwrap().end;
        let bit = bit.index(used * 8);
        flip(&path, bit);
        let result = recover(&Host, dir.path(), None, Point::START);
        fs::write(&path, &bytes).unwrap();
        let hit = places.iter().find(|place| place.path == path && bit / 8 < place.end).unwrap();
        match result {
            // The last record of all can not be told from one that was being written.
            Ok(recovered) => {
                prop_assert_eq!(hit.sequence, 640);
                prop_assert_eq!(recovered.last.sequence, 639);
            }
            Err(RecoverError::LostWrite { good_through, found, .. }) => {
                prop_assert_eq!(good_through, hit.sequence - 1);
                let later = segments.iter().rfind(|&&first| first > hit.sequence);
                let found_min = later.map_or(640, |first| first - 1);
                prop_assert!(found == 640 || found >= found_min, "{}", found);
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(recover(&Host, dir.path(), None, Point::START).unwrap().last.sequence, 640);
}

#[test]
fn a_block_that_was_never_written_is_a_lost_write() {
    let dir = temp();
    written(dir.path(), &[100, 150, 200]);
    let (places, _) = naive::parse(dir.path());
    let first = &places[0].path;
    let before = places.iter().rfind(|place| place.path == *first && place.end <= 8192).unwrap();
    overwrite(&before.path, 8192, &[0; 4096]);
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    let RecoverError::LostWrite { segment, good_through, found, one_flush } = &error else {
        panic!("{error}");
    };
    assert_eq!((segment, *good_through, *one_flush), (&before.path, before.sequence, false));
    assert!(*found > before.sequence);
    let text = error.to_string();
    assert!(text.contains("acknowledged are lost") && text.contains("Restore"), "{text}");
}

#[test]
fn a_hole_in_the_last_flush_is_told_apart_from_older_ones() {
    let dir = temp();
    written(dir.path(), &[20, 50]);
    let (places, _) = naive::parse(dir.path());
    overwrite(&places[30].path, places[30].start, &[0; 8]);
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    assert!(
        matches!(
            error,
            RecoverError::LostWrite { good_through: 30, found: 50, one_flush: true, .. }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("power failure"));
}

#[test]
fn a_segment_that_is_gone_is_noticed() {
    let dir = temp();
    written(dir.path(), &[1000]);
    let segments = segment::list(&Host, dir.path()).unwrap();
    let copy = copy_dir(dir.path());
    fs::remove_file(segment::path(copy.path(), segments[1])).unwrap();
    let error = recover(&Host, copy.path(), None, Point::START).unwrap_err();
    let good = segments[1] - 1;
    assert!(
        matches!(error, RecoverError::LostWrite { good_through, found, .. }
            if good_through == good && found >= segments[2] - 1),
        "{error}"
    );
    fs::remove_file(segment::path(dir.path(), segments[0])).unwrap();
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    assert!(matches!(error, RecoverError::Missing { needed: 1, .. }), "{error}");
}

#[test]
fn an_exchanged_segment_is_noticed() {
    let (ours, theirs) = (temp(), temp());
    for dir in [&ours, &theirs] {
        written(dir.path(), &[1000]);
    }
    // The same records fill segments alike, but under another salt.
    let segments = segment::list(&Host, ours.path()).unwrap();
    assert_eq!(segments, segment::list(&Host, theirs.path()).unwrap());
    let name = |dir: &TempDir| segment::path(dir.path(), 1);
    fs::copy(name(&theirs), name(&ours)).unwrap();
    let error = recover(&Host, ours.path(), None, Point::START).unwrap_err();
    assert!(matches!(error, RecoverError::Broken { .. }), "{error}");
    let mut reader = Reader::open(&Host, ours.path(), 1, 1000, Verify::Trail).unwrap();
    let error = loop {
        match reader.next() {
            Ok(record) => assert!(record.unwrap().sequence < segments[1]),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::Broken { .. }), "{error}");
}

#[test]
fn a_header_rewritten_with_a_fitting_checksum_breaks_the_link() {
    let dir = temp();
    written(dir.path(), &[1000]);
    let rewrite = |dir: &Path, first, at: usize| {
        let path = segment::path(dir, first);
        let mut block = fs::read(&path).unwrap()[..4096].to_vec();
        block[at] ^= 1;
        let crc = naive::crc32c(&block[4..]);
        block[..4].copy_from_slice(&crc.to_le_bytes());
        overwrite(&path, 0, &block);
    };
    let copy = copy_dir(dir.path());
    rewrite(copy.path(), segment::list(&Host, dir.path()).unwrap()[1], 24); // its chain value
    let error = recover(&Host, copy.path(), None, Point::START).unwrap_err();
    assert!(matches!(error, RecoverError::Broken { .. }), "{error}");

    rewrite(dir.path(), 1, 100); // nothing but the hash of the segment covers it
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    assert!(matches!(error, RecoverError::Broken { .. }), "{error}");
    assert!(error.to_string().contains("hash"), "{error}");
    let mut reader = Reader::open(&Host, dir.path(), 1, 1000, Verify::Trail).unwrap();
    let error = loop {
        match reader.next() {
            Ok(record) => assert!(record.is_some()),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ReadError::Broken { .. }), "{error}");
    let mut reader = Reader::open(&Host, dir.path(), 1, 1000, Verify::Records).unwrap();
    while reader.next().unwrap().is_some() {}
}

#[test]
fn a_record_rewritten_with_a_fitting_checksum_breaks_the_chain() {
    let dir = temp();
    written(dir.path(), &[20, 50]);
    let (places, _) = naive::parse(dir.path());
    let place = &places[10];
    let mut bytes = fs::read(&place.path).unwrap()[place.start..place.end].to_vec();
    bytes[16] ^= 1; // its time
    let crc = naive::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
    overwrite(&place.path, place.start, &bytes);
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    assert!(
        matches!(error, RecoverError::LostWrite { good_through: 11, found: 50, .. }),
        "{error}"
    );
    let mut reader = Reader::open(&Host, dir.path(), 11, 50, Verify::Records).unwrap();
    reader.next().unwrap();
    let error = reader.next().unwrap_err();
    assert!(matches!(error, ReadError::Damaged { sequence: 12, stop: Stop::Chain, .. }), "{error}");
}

#[test]
fn a_body_that_looks_like_a_record_is_not_taken_for_one() {
    let dir = temp();
    let mut log = open(dir.path());
    // A client sends what would be a whole record with a high sequence, but for the salt.
    let mut forged = vec![0; 48];
    forged[4..6].copy_from_slice(&0x5256_u16.to_le_bytes());
    forged[8] = 99;
    let crc = naive::crc32c(&forged[4..]);
    forged[..4].copy_from_slice(&crc.to_le_bytes());
    log.append(1, 0, 0, 0, b"first").unwrap();
    log.append(2, 0, 0, 0, &forged).unwrap();
    log.wait().unwrap();
    flush(&mut log);
    drop(log);
    let (places, _) = naive::parse(dir.path());
    overwrite(&places[1].path, places[1].start, &[0; 48]);
    let recovered = recover(&Host, dir.path(), None, Point::START).unwrap();
    assert_eq!(recovered.last.sequence, 1);
    assert_eq!(recovered.cuts[0].bytes, 48 + 9, "up to the forged sequence, its last byte set");
}

#[test]
fn a_segment_whose_name_was_lost_gets_it_back() {
    let dir = temp();
    written(dir.path(), &[1000]);
    let _ = fs::remove_file(dir.path().join(segment::PREPARED_NAME));
    let last = *segment::list(&Host, dir.path()).unwrap().last().unwrap();
    let path = segment::path(dir.path(), last);
    fs::rename(&path, dir.path().join(segment::PREPARED_NAME)).unwrap();
    assert_eq!(recover(&Host, dir.path(), None, Point::START).unwrap().last.sequence, 1000);
    assert!(path.exists());
    check_records(dir.path(), 1000);
    // With its header damaged as well, its records still are proof that they were written.
    fs::rename(&path, dir.path().join(segment::PREPARED_NAME)).unwrap();
    flip(&dir.path().join(segment::PREPARED_NAME), 200);
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    assert!(matches!(error, RecoverError::LostWrite { found: 1000, .. }), "{error}");
}

#[test]
fn segments_without_records_leave_no_trace() {
    let dir = temp();
    for _ in 0..3 {
        drop(open(dir.path())); // a segment is named, nothing is written
        assert_eq!(segment::list(&Host, dir.path()).unwrap(), [1]);
    }
    written(dir.path(), &[10]);
    // The header arrived, the records did not.
    drop(open(dir.path()));
    let mut log = open(dir.path());
    fill(&mut log, 12);
    flush(&mut log);
    drop(log);
    let (places, _) = naive::parse(dir.path());
    overwrite(&places[10].path, 4096, &[0; 4096]);
    let recovered = recover(&Host, dir.path(), None, Point::START).unwrap();
    assert_eq!(recovered.last.sequence, 10);
    assert_eq!(segment::list(&Host, dir.path()).unwrap(), [1]);
    let mut log = Log::open(SMALL, recovered).unwrap();
    fill(&mut log, 30);
    let last = log.close().unwrap();
    assert_eq!(check_records(dir.path(), 30), last);
}

#[test]
fn older_segments_may_be_missing_behind_a_snapshot() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 700);
    flush(&mut log);
    let known = log.last();
    fill(&mut log, 1000);
    let last = log.close().unwrap();
    let segments = segment::list(&Host, dir.path()).unwrap();
    let needed = segments.partition_point(|&first| first <= 700) - 1;
    assert!(needed > 0);
    let from_start = |dir: &Path| recover(&Host, dir, None, Point::START).map(|found| found.last);

    let other = Point { chain: known.chain ^ 1, ..known };
    let error = recover(&Host, dir.path(), None, other).unwrap_err();
    assert!(matches!(error, RecoverError::OtherLog { known: 700, .. }), "{error}");
    let error = recover(&Host, dir.path(), None, Point { sequence: 1001, chain: 0 }).unwrap_err();
    assert!(matches!(error, RecoverError::Behind { last: 1000, known: 1001, .. }), "{error}");

    for &first in &segments[..needed] {
        fs::remove_file(segment::path(dir.path(), first)).unwrap();
    }
    assert_eq!(recover(&Host, dir.path(), None, known).unwrap().last, last);
    assert!(matches!(from_start(dir.path()), Err(RecoverError::Missing { needed: 1, .. })));
    fs::remove_file(segment::path(dir.path(), segments[needed])).unwrap();
    let error = recover(&Host, dir.path(), None, known).unwrap_err();
    assert!(matches!(error, RecoverError::Missing { needed: 700, .. }), "{error}");
}

#[test]
fn a_snapshot_without_any_log_is_refused() {
    let dir = temp();
    let error = recover(&Host, dir.path(), None, Point { sequence: 5, chain: 1 }).unwrap_err();
    assert!(matches!(error, RecoverError::Missing { needed: 5, .. }), "{error}");
}

#[test]
fn a_log_has_one_writer() {
    let dir = temp();
    let log = open(dir.path());
    let error = recover(&Host, dir.path(), None, Point::START).unwrap_err();
    assert!(error.to_string().contains("in use by another daemon"), "{error}");
    drop(log);
    open(dir.path());
}

#[test]
#[should_panic(expected = "in order, once each")]
fn a_record_out_of_order_is_a_fault_of_ours() {
    let dir = temp();
    let mut log = open(dir.path());
    append_next(&mut log).unwrap();
    let _ = log.append(3, 0, 0, 0, b"");
}

#[test]
fn bad_sizes_are_refused() {
    let sizes = [(32 * 1024 + 1, 8192), (8192, 8192), (32768, 4096), (32768, 9000), (32768, 65536)];
    for (segment_bytes, buffer_bytes) in sizes {
        let dir = temp();
        let recovered = recover(&Host, dir.path(), None, Point::START).unwrap();
        let config = LogConfig { segment_bytes, buffer_bytes, sync: Sync::Always };
        let refused = Log::open(config, recovered).err().unwrap();
        assert!(matches!(refused, LogError::Config(_)), "{segment_bytes} {buffer_bytes}");
        assert!(segment::list(&Host, dir.path()).unwrap().is_empty());
    }
}

#[test]
fn without_sync_the_cursor_follows_the_write() {
    let dir = temp();
    let recovered = recover(&Host, dir.path(), None, Point::START).unwrap();
    let mut log = Log::open(LogConfig { sync: Sync::Never, ..SMALL }, recovered).unwrap();
    fill(&mut log, 1000);
    flush(&mut log);
    assert_eq!(log.durable(), 1000);
    check_records(dir.path(), 1000);
    fill(&mut log, 1100);
    let last = log.close().unwrap();
    assert_eq!(recover(&Host, dir.path(), None, Point::START).unwrap().last, last);
    check_records(dir.path(), 1100);
    assert!(!dir.path().join(segment::PREPARED_NAME).exists());
}

#[test]
fn a_reader_follows_the_writer() {
    let dir = temp();
    let mut log = open(dir.path());
    fill(&mut log, 1);
    flush(&mut log);
    let durable = AtomicU64::new(1);
    std::thread::scope(|scope| {
        let reading = scope.spawn(|| {
            let mut reader = Reader::open(&Host, dir.path(), 1, 0, Verify::Trail).unwrap();
            let mut next = 1;
            while next <= 3000 {
                reader.extend(durable.load(Ordering::Acquire));
                while let Some(record) = reader.next().unwrap() {
                    assert_eq!((record.sequence, record.body), (next, &body(next)[..]));
                    next += 1;
                }
            }
            reader.point()
        });
        for through in (3..=3000).step_by(3) {
            fill(&mut log, through);
            flush(&mut log);
            durable.store(log.durable(), Ordering::Release);
        }
        assert_eq!(reading.join().unwrap(), log.last());
    });
}

// ---- the mirror ------------------------------------------------------------------------------

fn open_pair(dir: &Path, mirror: &Path) -> Log {
    Log::open(SMALL, recover(&Host, dir, Some(mirror), Point::START).unwrap()).unwrap()
}

fn pair(through: u64) -> (TempDir, TempDir) {
    let (dir, mirror) = (temp(), temp());
    let mut log = open_pair(dir.path(), mirror.path());
    fill(&mut log, through);
    flush(&mut log);
    drop(log);
    (dir, mirror)
}

fn recover_pair(dir: &TempDir, mirror: &TempDir) -> Result<Recovered, RecoverError> {
    recover(&Host, dir.path(), Some(mirror.path()), Point::START)
}

fn assert_same(dir: &Path, mirror: &Path) {
    let segments = segment::list(&Host, dir).unwrap();
    assert_eq!(segments, segment::list(&Host, mirror).unwrap());
    for first in segments {
        let read = |dir| fs::read(segment::path(dir, first)).unwrap();
        assert!(read(dir) == read(mirror), "segment {first}");
    }
}

#[test]
fn both_devices_hold_the_same() {
    let (dir, mirror) = pair(1000);
    let recovered = recover_pair(&dir, &mirror).unwrap();
    assert!(recovered.rebuilt.is_none());
    assert_same(dir.path(), mirror.path());
    let mut log = Log::open(SMALL, recovered).unwrap();
    fill(&mut log, 1500);
    log.close().unwrap();
    check_records(dir.path(), 1500);
    check_records(mirror.path(), 1500);
}

#[test]
fn a_whole_side_mends_a_damaged_one() {
    let bad_block: fn(&Path) = |dir| overwrite(&segment::path(dir, 1), 8192, &[0; 4096]);
    let bad_header: fn(&Path) = |dir| {
        let last = *segment::list(&Host, dir).unwrap().last().unwrap();
        flip(&segment::path(dir, last), 200);
    };
    let gone: fn(&Path) = |dir| fs::remove_file(segment::path(dir, 1)).unwrap();
    let empty: fn(&Path) = |dir| {
        for first in segment::list(&Host, dir).unwrap() {
            fs::remove_file(segment::path(dir, first)).unwrap();
        }
    };
    let shorter: fn(&Path) = |dir| {
        let last = *segment::list(&Host, dir).unwrap().last().unwrap();
        fs::remove_file(segment::path(dir, last)).unwrap();
    };
    let harms =
        [(bad_block, true), (bad_header, true), (gone, true), (empty, false), (shorter, false)];
    for (case, (harm, damaged)) in harms.into_iter().enumerate() {
        for side in 0..2 {
            let (dir, mirror) = pair(1000);
            let bad = [&dir, &mirror][side].path();
            harm(bad);
            let recovered = recover_pair(&dir, &mirror).unwrap();
            assert_eq!(recovered.last.sequence, 1000, "case {case}, side {side}");
            let rebuilt = recovered.rebuilt.as_ref().unwrap();
            assert_eq!((&*rebuilt.dir, rebuilt.damage.is_some()), (bad, damaged), "case {case}");
            assert!(rebuilt.segments > 0);
            assert_same(dir.path(), mirror.path());
            check_records(bad, 1000);
            let mut log = Log::open(SMALL, recovered).unwrap();
            fill(&mut log, 1100);
            log.close().unwrap();
            check_records(bad, 1100);
        }
    }
}

#[test]
fn what_reached_only_one_device_is_kept_on_both() {
    let (dir, mirror) = pair(1000);
    let (places, _) = naive::parse(mirror.path());
    let torn = &places[995];
    overwrite(&torn.path, torn.start, &vec![0; places[999].end - torn.start]);
    let recovered = recover_pair(&dir, &mirror).unwrap();
    assert_eq!(recovered.last.sequence, 1000);
    assert!(recovered.rebuilt.unwrap().damage.is_none());
    drop(recovered.cuts);
    check_records(mirror.path(), 1000);
}

#[test]
fn two_damaged_sides_are_not_mended() {
    let (dir, mirror) = pair(1000);
    for side in [&dir, &mirror] {
        overwrite(&segment::path(side.path(), 1), 8192, &[0; 4096]);
    }
    let error = recover_pair(&dir, &mirror).unwrap_err();
    assert!(matches!(error, RecoverError::BothDamaged { .. }), "{error}");
}

#[test]
fn an_old_mirror_does_not_undo_what_it_never_saw() {
    let (dir, mirror) = pair(500);
    let mut log = open(dir.path()); // a day without the mirror
    fill(&mut log, 1000);
    log.close().unwrap();
    let stale = copy_dir(mirror.path());

    overwrite(&segment::path(dir.path(), 1), 8192, &[0; 4096]);
    let before = fs::read(segment::path(dir.path(), 1)).unwrap();
    let error = recover_pair(&dir, &stale).unwrap_err();
    assert!(matches!(error, RecoverError::Stale { last: 500, .. }), "{error}");
    assert!(fs::read(segment::path(dir.path(), 1)).unwrap() == before);
}

#[test]
fn sides_of_different_histories_are_refused() {
    let (dir, mirror) = (temp(), temp());
    written(dir.path(), &[100]);
    let mut log = open(mirror.path());
    log.append(1, 1, 1, 1, b"something else").unwrap();
    log.close().unwrap();
    let error = recover_pair(&dir, &mirror).unwrap_err();
    assert!(matches!(error, RecoverError::Diverged { sequence: 1, .. }), "{error}");
    check_records(dir.path(), 100);
}

// ---- real failures, in processes of their own --------------------------------------------------

const CHILD_DIR: &str = "VENDUE_STORAGE_TEST_DIR";

/// This test binary again, running one test as a child whose directory is `dir`.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(CHILD_DIR, dir);
    command
}

/// The directory, in a child; nothing when the test is run by itself.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Writes for ever and says what is durable. Half the time with a mirror.
#[test]
fn child_writes_until_killed() {
    let Some(dir) = child_dir() else { return };
    let mirror = dir.join("mirror");
    let recovered = recover(&Host, &dir, mirror.exists().then_some(&mirror), Point::START).unwrap();
    let config = LogConfig { segment_bytes: 256 * 1024, buffer_bytes: 64 * 1024, ..SMALL };
    let mut log = Log::open(config, recovered).unwrap();
    let mut out = std::io::stdout();
    let mut said = log.durable();
    loop {
        let last = log.last().sequence;
        fill(&mut log, last + 1 + last % 37);
        let durable = log.poll().unwrap();
        if durable > said {
            writeln!(out, "durable {durable}").unwrap();
            said = durable;
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost_to_kill_9() {
    let dir = temp();
    for round in 0..10_u64 {
        if round == 5 {
            fs::create_dir(dir.path().join("mirror")).unwrap();
        }
        let mut writer =
            child("child_writes_until_killed", dir.path()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(writer.stdout.take().unwrap()).lines();
        let mut durable = 0;
        let mut lines = lines.map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("durable ").map(|number| number.parse::<u64>().unwrap())
        });
        for sequence in lines.by_ref().take(20 + 40 * round as usize) {
            durable = sequence;
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        // What was said before the kill and read after it counts as well.
        durable = lines.last().unwrap_or(durable);
        assert!(durable > 0);
        let mirror = dir.path().join("mirror");
        let mirror = mirror.exists().then_some(mirror);
        let recovered = recover(&Host, dir.path(), mirror.as_deref(), Point::START).unwrap();
        assert!(recovered.last.sequence >= durable, "{} of {durable}", recovered.last.sequence);
        for side in mirror.iter().map(PathBuf::as_path).chain([dir.path()]) {
            assert_eq!(check_records(side, recovered.last.sequence), recovered.last);
        }
    }
}

fn assert_stopped(log: &mut Log, expected: fn(&LogError) -> bool) {
    for result in [log.poll().err(), log.wait().err()] {
        assert!(result.as_ref().is_some_and(expected), "{result:?}");
    }
    let Err(Append::Stopped(error)) = append_next(log) else { panic!("it was taken") };
    assert!(expected(&error), "{error}");
}

/// Runs under a limit on file size: the kernel itself refuses the write.
#[test]
fn child_meets_a_failing_write() {
    let Some(dir) = child_dir() else { return };
    // SAFETY: the default disposition is replaced by "ignore", no handler runs.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.unwrap();
    // At the first limit the kernel takes nothing of the flush, at the second its first block.
    type Expected = fn(&LogError) -> bool;
    let limits: [(u64, Expected); 2] = [
        (4096, |error| matches!(error, LogError::Device(_))),
        (8192, |error| matches!(error, LogError::ShortWrite { written: 4096, wanted: 8192, .. })),
    ];
    for (limit, expected) in limits {
        let mut log = open(&dir.join(limit.to_string()));
        fill(&mut log, 20);
        flush(&mut log);
        setrlimit(Resource::RLIMIT_FSIZE, limit, RLIM_INFINITY).unwrap();
        fill(&mut log, 45);
        let error = log.wait().unwrap_err();
        assert!(expected(&error), "{error}");
        assert!(error.to_string().contains("the log has stopped"), "{error}");
        assert_eq!(log.durable(), 20);
        setrlimit(Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY).unwrap();
        assert_stopped(&mut log, expected); // though it would work again
        assert!(log.close().is_err());
    }
    println!("done");
}

fn run_child(mut command: Command) {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("done"), "{text}{errors}");
}

#[test]
fn a_failed_write_stops_the_log_for_good() {
    let dir = temp();
    run_child(child("child_meets_a_failing_write", dir.path()));
    for limit in ["4096", "8192"] {
        let dir = dir.path().join(limit);
        let last = recover(&Host, &dir, None, Point::START).unwrap().last.sequence;
        assert!(last >= 20, "{last}");
        check_records(&dir, last);
    }
}

/// Runs on a filesystem of its own of one MiB.
#[test]
fn child_meets_a_full_disk() {
    let Some(dir) = child_dir() else { return };
    let (log_dir, filler) = (dir.join("log"), dir.join("filler"));
    let config =
        LogConfig { segment_bytes: 256 * 1024, buffer_bytes: 64 * 1024, sync: Sync::Always };
    let fill_disk = || fs::write(&filler, vec![1; 640 * 1024]).unwrap();
    let until = |log: &mut Log, warned: bool| {
        // Tried every second; endless waiting would hide what failed.
        for _ in 0..60_000 {
            if log.warning().is_some() == warned {
                return;
            }
            log.poll().unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("no change of the warning: {:?}", log.warning());
    };

    // Room for one segment only: a warning, and the log goes on.
    fill_disk();
    let mut log = Log::open(config, recover(&Host, &log_dir, None, Point::START).unwrap()).unwrap();
    until(&mut log, true);
    assert!(log.warning().unwrap().to_string().contains("No space left"));
    fill(&mut log, 100);
    flush(&mut log);
    assert_eq!(log.durable(), 100);
    // With room again, the warning goes and the log moves on.
    fs::remove_file(&filler).unwrap();
    until(&mut log, false);
    fill(&mut log, 2000);
    let last = log.close().unwrap();
    assert_eq!(check_records(&log_dir, 2000), last);
    assert!(segment::list(&Host, &log_dir).unwrap().len() > 1);

    // Still none when it is needed: the log stops, and what was durable stays.
    fs::remove_dir_all(&log_dir).unwrap();
    fill_disk();
    let mut log = Log::open(config, recover(&Host, &log_dir, None, Point::START).unwrap()).unwrap();
    let error = loop {
        match append_next(&mut log) {
            Ok(()) => {}
            Err(Append::Full) => {
                if let Err(error) = log.wait() {
                    break error;
                }
            }
            Err(Append::Stopped(error)) => break error,
        }
    };
    assert!(matches!(error, LogError::NoSegment(_)), "{error}");
    assert!(error.to_string().contains("No space left") && error.to_string().contains("make room"));
    assert_stopped(&mut log, |error| matches!(error, LogError::NoSegment(_)));
    let durable = log.durable();
    drop(log);
    assert!(durable > 1000);
    fs::remove_file(&filler).unwrap();
    assert!(recover(&Host, &log_dir, None, Point::START).unwrap().last.sequence >= durable);
    check_records(&log_dir, durable);
    println!("done");
}

#[test]
fn a_full_disk_warns_first_and_stops_the_log_when_room_is_needed() {
    let dir = temp();
    // The mount lives in a namespace of its own and goes with the process.
    let run = child("child_meets_a_full_disk", dir.path());
    let mut command = Command::new("unshare");
    command.arg(if nix::unistd::geteuid().is_root() { "-m" } else { "-rm" });
    command.args(["sh", "-c", "mount -t tmpfs -o size=1m none \"$0\" && exec \"$@\""]);
    command.arg(dir.path()).arg(run.get_program()).args(run.get_args());
    command.env(CHILD_DIR, dir.path());
    run_child(command);
}
