//! A journal's files, written by the book (the format's documentation, not the daemon's own code),
//! then damaged as devices, crashes and people damage them, before recovery and replay read them.
//!
//! Whatever happened: no panic; what is read is what was written; what recovery gives up was not
//! whole any more; a torn end never keeps the daemon from starting.

mod damage;
mod written;

use arbitrary::{Result, Unstructured};
use std::path::Path;
use vendue_engine::storage::{Host, Point, ReadError, Reader, Recovered, Verify, recover};
use vendue_engine::trail::{Dirs, State};

use damage::Damage;
use written::Journal;

/// Damages of one side at most.
const DAMAGES_MAX: usize = 4;
/// Reports kept a session while replaying.
const REPLAY_BYTES: usize = 1 << 10;

/// Writes, damages and recovers the journal that `bytes` spell.
///
/// # Panics
/// When recovery or replay does what it must not.
pub fn run(bytes: &[u8]) {
    let _ = play(&mut Unstructured::new(bytes));
}

/// A directory of the journal, or of its mirror.
struct Side {
    files: written::Files,
    damages: Vec<Damage>,
}

impl Side {
    fn new(bytes: &mut Unstructured<'_>, journal: &Journal) -> Result<Side> {
        let mut files = journal.files();
        let mut damages = Vec::new();
        while damages.len() < DAMAGES_MAX && bytes.ratio(3, 4)? {
            damages.push(damage::inflict(bytes, journal, &mut files)?);
        }
        Ok(Side { files, damages })
    }

    /// True if somebody with the key to the checksums changed it: anything can be in it then.
    fn forged(&self) -> bool {
        self.damages.contains(&Damage::Forged)
    }

    fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("make a directory");
        for (name, bytes) in &self.files {
            std::fs::write(dir.join(name), bytes).expect("write a file");
        }
    }

    fn names(&self) -> Vec<(&str, usize)> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.len())).collect()
    }

    /// The last record that still lies whole where it was written.
    fn last_whole(&self, journal: &Journal) -> u64 {
        let whole = |file: &&written::Placed| {
            let found = self.files.iter().find(|(name, _)| *name == file.name);
            found.is_some_and(|(_, bytes)| {
                bytes.get(file.at..file.at + file.bytes.len()) == Some(&file.bytes[..])
            })
        };
        let whole = journal.placed.iter().filter(whole);
        whole.map(|placed| placed.sequence).max().unwrap_or(0)
    }
}

fn play(bytes: &mut Unstructured<'_>) -> Result<()> {
    let journal = Journal::new(bytes)?;
    let log = Side::new(bytes, &journal)?;
    let mirror = if bytes.ratio(1, 3)? { Some(Side::new(bytes, &journal)?) } else { None };
    let verify = *bytes.choose(&[Verify::Trail, Verify::Records])?;
    let dir = tempfile::tempdir().expect("make a directory");
    let dirs = Dirs::below(Host, dir.path());
    let second = dir.path().join("mirror");
    log.write(&dirs.journal);
    if let Some(mirror) = &mirror {
        mirror.write(&second);
    }
    let second = mirror.is_some().then_some(second.as_path());
    let recovered = recover(&Host, &dirs.journal, second, Point::START);
    let sides: Vec<&Side> = std::iter::once(&log).chain(&mirror).collect();
    match &recovered {
        Ok(recovered) => lost_nothing(&journal, &sides, recovered),
        Err(error) => {
            assert!(!torn(&sides), "a torn end keeps it from starting: {error}");
        }
    }
    let through = match recovered {
        Ok(recovered) => recovered.last.sequence,
        Err(_) => journal.last(),
    };
    let forged = sides.iter().any(|side| side.forged());
    let read = read_back(&journal, &dirs.journal, through, verify, forged);
    replay(&dirs, through, verify);
    if let Ok(again) = recover(&Host, &dirs.journal, second, Point::START) {
        assert!(again.cuts.is_empty() || second.is_none() || forged, "cut twice: {:?}", again.cuts);
        assert!(forged || read.is_ok(), "recovered and not readable: {read:?}");
    }
    Ok(())
}

/// True if nothing but the very end is missing, on one side only: what a crash leaves.
fn torn(sides: &[&Side]) -> bool {
    sides.iter().all(|side| side.damages.iter().all(|damage| *damage == Damage::Torn))
}

fn lost_nothing(journal: &Journal, sides: &[&Side], recovered: &Recovered) {
    let last = recovered.last.sequence;
    if sides.iter().any(|side| side.forged()) {
        return;
    }
    assert!(last <= journal.last());
    assert_eq!(recovered.last.chain, journal.chain_after(last), "another history");
    for side in sides {
        let whole = side.last_whole(journal);
        let (names, damages) = (side.names(), &side.damages);
        // With a mirror the last flush is acknowledged only when both sides have it.
        let given_up = if sides.len() == 1 { whole } else { journal.before_flush_of(whole) };
        assert!(
            given_up <= last,
            "record {whole} is whole and was given up behind {last}: {names:?} {damages:?}"
        );
    }
    if sides.iter().all(|side| side.damages.is_empty()) {
        assert_eq!(last, journal.last());
        assert!(recovered.cuts.is_empty() && recovered.rebuilt.is_none());
    }
}

/// Reads all that is there; it must be what was written.
fn read_back(
    journal: &Journal,
    dir: &Path,
    through: u64,
    verify: Verify,
    forged: bool,
) -> std::result::Result<(), ReadError> {
    if through == 0 {
        return Ok(());
    }
    let mut reader = Reader::open(&Host, dir, 1, through, verify)?;
    let mut next = 1;
    while let Some(record) = reader.next()? {
        assert_eq!(record.sequence, next);
        if !forged {
            let written = &journal.records[next as usize - 1];
            let (kind, time_ns, session) = (written.kind, written.time_ns, written.session);
            assert_eq!((record.kind, record.time_ns, record.session), (kind, time_ns, session));
            assert_eq!(record.body, written.body);
        }
        next += 1;
    }
    assert_eq!(next, through + 1, "the reader stopped early and did not say so");
    Ok(())
}

/// Executes the records: what is no command, or out of turn, is an error that says so.
fn replay(dirs: &Dirs, through: u64, verify: Verify) {
    let mut state = State::empty(REPLAY_BYTES);
    let outcome = state.advance(dirs, through, verify, |_, _, _| true);
    if let Err(error) = outcome {
        assert!(!error.to_string().is_empty());
    }
}
