//! Start-up verifies the journal and executes it side by side; the one must not hide the other.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use vendue_engine::start::{StartError, replay};
use vendue_engine::storage::{
    Append, Host, Log, LogConfig, Point, RecoverError, Sync, recover, segment,
};
use vendue_engine::trail::{Dirs, State, TrailError};

/// Records of a kind that nobody can execute: far more than may wait to be executed.
const RECORDS: u64 = 100_000;

fn write(journal: &Path) {
    let config = LogConfig { segment_bytes: 2 << 20, buffer_bytes: 1 << 20, sync: Sync::Never };
    let recovered = recover(&Host, journal, None, Point::START).unwrap();
    let mut log = Log::open(config, recovered).unwrap();
    for sequence in 1..=RECORDS {
        while let Err(error) = log.append(sequence, sequence, 0, 0xff, &[7; 32]) {
            assert!(matches!(error, Append::Full), "{error}");
            log.wait().unwrap();
        }
    }
    log.close().unwrap();
}

#[test]
fn what_cannot_be_executed_is_said_only_of_a_log_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = Dirs::below(Host, dir.path());
    write(&dirs.journal);
    let outcome = || replay(&dirs, None, State::empty(0)).map(|_| ());
    let error = outcome().unwrap_err();
    assert!(matches!(error, StartError::Trail(TrailError::Broken(_))), "{error}");

    let segments = segment::list(&Host, &dirs.journal).unwrap();
    assert!(segments.len() > 3, "{segments:?}");
    let damaged = segment::path(&dirs.journal, segments[segments.len() - 2]);
    let file = OpenOptions::new().read(true).write(true).open(damaged).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 100_000).unwrap();
    let error = outcome().unwrap_err();
    assert!(matches!(error, StartError::Recover(RecoverError::LostWrite { .. })), "{error}");
}
