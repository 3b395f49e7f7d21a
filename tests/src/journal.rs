//! Hands on the journal's files, to damage them.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

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

/// Cuts the last bytes of the last record off.
pub fn tear(journal: &Path, bytes: u64) {
    let path = last_segment(journal);
    let file = OpenOptions::new().write(true).open(&path).expect("open a segment");
    file.set_len(last_byte(&path) + 1 - bytes).expect("cut a segment");
}
