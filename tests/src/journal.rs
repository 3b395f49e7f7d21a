//! Hands on the journal's files, to damage them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vendue_engine::storage::record::{ALIGN_BYTES, decode};

/// The newest segment of a journal that holds records.
///
/// # Panics
/// If there is none.
pub fn last_segment(journal: &Path) -> PathBuf {
    let entries = std::fs::read_dir(journal).expect("a journal");
    let mut segments: Vec<PathBuf> = entries
        .map(|entry| entry.expect("a segment").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    segments.sort();
    segments.pop().expect("a segment")
}

/// Where a segment's last written byte is.
pub fn last_byte(segment: &Path) -> u64 {
    let bytes = std::fs::read(segment).expect("a segment");
    bytes.iter().rposition(|&byte| byte != 0).expect("a record") as u64
}

/// Turns a bit over in the middle of the records of a journal's newest segment.
pub fn flip_a_byte(journal: &Path) {
    let path = last_segment(journal);
    let middle = last_byte(&path) / 2;
    let file = OpenOptions::new().read(true).write(true).open(&path).expect("open a segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, middle).expect("read a segment");
    file.write_all_at(&[byte[0] ^ 1], middle).expect("write a segment");
}

/// Cuts a journal's newest segment inside its last record of a kind, that many bytes before the
/// record's last one that is not zero. What was recorded behind it is gone as well.
///
/// # Panics
/// If the segment has no such record.
pub fn tear(journal: &Path, kind: u8, bytes: u64) {
    let path = last_segment(journal);
    let segment = std::fs::read(&path).expect("a segment");
    let mut records = (0..segment.len()).step_by(ALIGN_BYTES).filter_map(|at| {
        let record = decode(&segment[at..], None).ok()?;
        (record.kind == kind).then_some(&segment[..at + record.bytes()])
    });
    let through = records.next_back().expect("a record of this kind");
    let end = through.iter().rposition(|&byte| byte != 0).expect("a record") as u64 + 1;
    let file = OpenOptions::new().write(true).open(&path).expect("open a segment");
    file.set_len(end - bytes).expect("cut a segment");
}
