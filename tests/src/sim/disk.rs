//! A disk that crashes, fails and lies on purpose, in memory and reproducibly.
//!
//! Each device is a directory tree by the first part of its paths. A file has what its readers see
//! now, what is on stable storage, and the changes between the two; so has a directory. A write
//! or a name is durable when a sync of the file or of the directory has succeeded, not before.
//!
//! - Losing power keeps a part of the changes that were not durable: the oldest, cut at any sector,
//!   of a disk that writes in order; any sectors of one that does not. Names keep their order, as
//!   on a journaling filesystem; a new directory is durable at once.
//! - Killing the daemon keeps everything the kernel had taken, and any part of the write under way.
//! - Power or daemon can go at any operation that changes something ([`SimDisk::die_in`]): it and
//!   everything after it fails, and it may or may not have had its effect.
//! - Honest failures ([`Fault`]) are reported to whoever asked; lies ([`Lie`]) are not.

use crate::chance::Chance;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use vendue_engine::storage::LogError;
use vendue_engine::storage::medium::{Aside, BlockWriter, Flush, Medium, MediumFile};
use vendue_engine::storage::record::{Record, decode};
use vendue_engine::storage::segment::{BLOCK_BYTES, FileError, SegmentHeader};

/// What a device writes whole or not at all, bytes.
const SECTOR_BYTES: usize = 512;
/// Numbers of the system's errors.
const EIO: i32 = 5;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const ENOENT: i32 = 2;

/// How a device fails, honestly: whoever asked is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write of the log fails, having written any part.
    Write,
    /// A write of the log writes a part and says so.
    ShortWrite,
    /// A flush of the log fails. What it was to make durable may have become so; on a disk that
    /// forgets, no later flush tries again.
    Flush,
    /// Making or filling a file finds no space.
    Space,
    /// Syncing a file or a directory fails.
    Sync,
    /// Renaming or removing fails.
    Name,
    /// Reading fails.
    Read,
}

/// How a device lies: it says that all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// A write of the log never reaches it.
    Phantom,
    /// A write of the log goes to another place of the same file.
    Misdirected,
    /// Only the first sectors of a write of the log reach it.
    Torn,
    /// A bit of a write of the log is turned over.
    Flipped,
    /// A write of the log is reported durable while it is not; it becomes so by later flushes.
    Early,
    /// A bit somewhere in a file turns over while it lies there.
    Rotten,
}

/// How a disk is broken that the simulator takes for a sound one: a test of the simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokenDisk {
    /// Every flush is acknowledged before it has happened.
    AcksBeforeFlush,
    /// Some writes of the log are dropped.
    DropsWrites,
}

/// How power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tear {
    /// Changes reach the device in their order.
    InOrder,
    /// Any sectors of any changes do.
    Scattered,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug, Default)]
struct Inode {
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Changes and the number of the operation that made them.
    pending: Vec<(u64, Change)>,
}

#[derive(Clone, Debug)]
enum Naming {
    Link(String, usize),
    Unlink(String),
    Rename(String, String),
}

#[derive(Debug, Default)]
struct Directory {
    now: BTreeMap<String, usize>,
    durable: BTreeMap<String, usize>,
    pending: Vec<(u64, Naming)>,
}

type Attempt = Box<dyn FnMut(&AtomicBool) -> bool + Send>;

struct Work {
    asked: bool,
    attempt: Option<Attempt>,
}

struct State {
    chance: Chance,
    inodes: Vec<Inode>,
    dirs: BTreeMap<PathBuf, Directory>,
    /// Operations that changed something so far.
    operations: u64,
    /// Number of the operation that dies.
    dies_at: Option<u64>,
    dead: bool,
    /// What goes wrong after so many more chances to, and on which device.
    fault: Option<(Fault, usize, u64)>,
    lie: Option<(Lie, usize, u64)>,
    /// Devices that have lied.
    lied: [bool; 2],
    faults: u64,
    /// Devices that failed to be read since the last look.
    unread: [bool; 2],
    /// A sync has failed half way since the last look.
    scattered: bool,
    /// Whether files take direct writes.
    direct: bool,
    /// Whether a failed flush drops what it was to write.
    forgets: bool,
    asides: BTreeMap<u64, Work>,
    asides_made: u64,
    broken: Option<BrokenDisk>,
    /// Somebody looks at it from outside: nothing fails.
    watched: bool,
    trace: Option<Vec<String>>,
}

/// The disk. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimDisk")
    }
}

fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// Device a path lies on: the mirror is the second.
fn device(path: &Path) -> usize {
    usize::from(path.starts_with("/mirror"))
}

impl SimDisk {
    /// An empty disk.
    pub fn new(mut chance: Chance, trace: bool) -> SimDisk {
        let (direct, forgets) = (chance.below(4) != 0, chance.below(3) == 0);
        SimDisk(Arc::new(Mutex::new(State {
            chance,
            inodes: Vec::new(),
            dirs: BTreeMap::new(),
            operations: 0,
            dies_at: None,
            dead: false,
            fault: None,
            lie: None,
            lied: [false; 2],
            faults: 0,
            unread: [false; 2],
            scattered: false,
            direct,
            forgets: forgets && !direct,
            asides: BTreeMap::new(),
            asides_made: 0,
            broken: None,
            watched: false,
            trace: trace.then(Vec::new),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // One thread uses it: a poisoned lock is a panic that is being reported already.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets it die at the operation `operations` from now.
    pub fn die_in(&self, operations: u64) {
        let mut state = self.state();
        state.dies_at = Some(state.operations + operations);
    }

    /// Whether it has died.
    pub fn is_dead(&self) -> bool {
        self.state().dead
    }

    /// Operations that changed something so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Lets `device` fail after `after` chances to.
    pub fn fail(&self, fault: Fault, device: usize, after: u64) {
        self.state().fault = Some((fault, device, after));
    }

    /// Lets no device fail or lie any more.
    pub fn mend(&self) {
        let mut state = self.state();
        (state.fault, state.lie, state.dies_at) = (None, None, None);
    }

    /// Lets `device` lie after `after` chances to.
    pub fn lie(&self, lie: Lie, device: usize, after: u64) {
        self.state().lie = Some((lie, device, after));
    }

    /// Breaks it for good.
    pub fn break_with(&self, broken: BrokenDisk) {
        self.state().broken = Some(broken);
    }

    /// Looks at it from outside: nothing fails meanwhile.
    pub fn watch<T>(&self, look: impl FnOnce() -> T) -> T {
        self.state().watched = true;
        let seen = look();
        self.state().watched = false;
        seen
    }

    /// Which devices have lied so far.
    pub fn lied(&self) -> [bool; 2] {
        self.state().lied
    }

    /// Whether a sync has failed half way, and left any sectors, since the last call.
    pub fn take_scattered(&self) -> bool {
        std::mem::take(&mut self.state().scattered)
    }

    /// Devices that failed to be read since the last call.
    pub fn take_unread(&self) -> [bool; 2] {
        std::mem::take(&mut self.state().unread)
    }

    /// Failures that were reported so far.
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    /// What it did since the last call, if it was asked to remember.
    pub fn take_trace(&self) -> Vec<String> {
        self.state().trace.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Has work that goes on beside its owners done: one attempt of each that was asked for.
    /// True if there was one.
    pub fn run_asides(&self) -> bool {
        let asked: Vec<u64> =
            self.state().asides.iter().filter(|(_, work)| work.asked).map(|(&id, _)| id).collect();
        asked.iter().for_each(|&id| self.attempt(id));
        !asked.is_empty()
    }

    fn attempt(&self, id: u64) {
        let attempt = match self.state().asides.get_mut(&id) {
            Some(work) if work.asked => work.attempt.take(),
            _ => None,
        };
        let Some(mut attempt) = attempt else { return };
        let done = attempt(&AtomicBool::new(false));
        if let Some(work) = self.state().asides.get_mut(&id) {
            work.asked = !done;
            work.attempt = Some(attempt);
        }
    }

    /// The daemon is killed: the kernel keeps what it had taken.
    pub fn kill(&self) {
        let mut state = self.state();
        state.revive();
    }

    /// Power is lost, and comes back.
    pub fn lose_power(&self, tear: Tear) {
        self.state().lose_power(tear);
    }

    /// Turns bits over in a file of `device`.
    pub fn rot(&self, device: usize) {
        self.state().rot(device);
    }

    /// What readers see of every file in `dir`, by name.
    pub fn files(&self, dir: &Path) -> BTreeMap<String, Vec<u8>> {
        let state = self.state();
        let Some(directory) = state.dirs.get(dir) else { return BTreeMap::new() };
        let content =
            |(name, &inode): (&String, &usize)| (name.clone(), state.inodes[inode].now.clone());
        directory.now.iter().map(content).collect()
    }

    /// The highest sequence that a directory of segments bears witness of.
    pub fn evidence(&self, dir: &Path) -> u64 {
        self.files(dir).iter().map(|(name, bytes)| witness(name, bytes)).max().unwrap_or(0)
    }
}

/// The highest sequence of a record that a segment's name or content is a proof of.
fn witness(name: &str, bytes: &[u8]) -> u64 {
    let first = name.strip_suffix(".log").and_then(|digits| digits.parse::<u64>().ok());
    if first.is_none() && name != "prepared" {
        return 0;
    }
    let salt = bytes
        .get(..BLOCK_BYTES)
        .and_then(|block| SegmentHeader::decode(block).ok())
        .map(|header| header.salt);
    let records = (0..bytes.len()).step_by(8).filter_map(|at| decode(&bytes[at..], salt).ok());
    let highest = records.map(|record: Record<'_>| record.sequence).max().unwrap_or(0);
    let void = salt.is_none() && highest == 0;
    highest.max(if void { 0 } else { first.unwrap_or(1).saturating_sub(1) })
}

impl State {
    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    /// Counts an operation that changes something. `Err`: it fails because the disk is dead; the
    /// flag says whether it is to have its effect all the same.
    fn operate(&mut self, what: &str, path: &Path) -> Result<(), bool> {
        if self.dead {
            return Err(false);
        }
        self.operations += 1;
        if self.dies_at == Some(self.operations) {
            self.dead = true;
            let effect = self.chance.below(2) == 0;
            self.note(|| format!("dies in: {what} {} (effect: {effect})", path.display()));
            return Err(effect);
        }
        let operations = self.operations;
        self.note(|| format!("{operations}: {what} {}", path.display()));
        Ok(())
    }

    /// Whether `fault` strikes now on the device of `path`.
    fn fails(&mut self, fault: Fault, path: &Path) -> bool {
        if self.watched {
            return false;
        }
        let struck = match &mut self.fault {
            Some((planned, on, after)) if *planned == fault && *on == device(path) => {
                *after = after.saturating_sub(1);
                *after == 0
            }
            _ => false,
        };
        if struck {
            self.fault = None;
            self.faults += 1;
            self.unread[device(path)] |= fault == Fault::Read;
            self.note(|| format!("fails: {fault:?} {}", path.display()));
        }
        struck
    }

    /// The lie that is told now about a write to `path`, or about its flush, if one is.
    fn lies(&mut self, path: &Path, about_flush: bool) -> Option<Lie> {
        let (lie, on, after) = self.lie.as_mut()?;
        if *on != device(path) || *lie == Lie::Rotten || (*lie == Lie::Early) != about_flush {
            return None;
        }
        *after = after.saturating_sub(1);
        if *after > 0 {
            return None;
        }
        let (lie, on) = (*lie, *on);
        self.lie = None;
        self.lied[on] = true;
        self.note(|| format!("lies: {lie:?} {}", path.display()));
        Some(lie)
    }

    fn split(path: &Path) -> (PathBuf, String) {
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        (dir, path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    fn find(&self, path: &Path) -> Option<usize> {
        let (dir, name) = State::split(path);
        self.dirs.get(&dir)?.now.get(&name).copied()
    }

    fn change(&mut self, inode: usize, change: Change) {
        let operation = self.operations;
        let inode = &mut self.inodes[inode];
        apply(&mut inode.now, &change);
        inode.pending.push((operation, change));
    }

    fn rename_in(&mut self, dir: &Path, naming: Naming) {
        let operation = self.operations;
        if let Some(directory) = self.dirs.get_mut(dir) {
            name(&mut directory.now, &naming);
            directory.pending.push((operation, naming));
        }
    }

    fn sync(&mut self, inode: usize) {
        let Inode { durable, pending, .. } = &mut self.inodes[inode];
        pending.drain(..).for_each(|(_, change)| apply(durable, &change));
    }

    /// A failed sync: any sectors may have become durable; if the disk forgets, the rest never
    /// will.
    fn sync_badly(&mut self, inode: usize) {
        self.scattered = true;
        let pending = self.inodes[inode].pending.clone();
        for (_, change) in &pending {
            self.keep_some(inode, change, 50);
        }
        if self.forgets {
            self.inodes[inode].pending.clear();
        }
    }

    /// Makes each sector of a change durable with that chance, in percent.
    fn keep_some(&mut self, inode: usize, change: &Change, percent: u64) {
        match change {
            Change::Length(_) => {
                if self.chance.below(100) < percent {
                    apply(&mut self.inodes[inode].durable, change);
                }
            }
            Change::Write(offset, bytes) => {
                for (at, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                    if self.chance.below(100) < percent {
                        let part = Change::Write(offset + at * SECTOR_BYTES, sector.to_vec());
                        apply(&mut self.inodes[inode].durable, &part);
                    }
                }
            }
        }
    }

    fn revive(&mut self) {
        (self.dead, self.dies_at) = (false, None);
        self.asides.clear();
    }

    fn lose_power(&mut self, tear: Tear) {
        let operations = self.inodes.iter().flat_map(|inode| inode.pending.iter().map(|p| p.0));
        let named = self.dirs.values().flat_map(|dir| dir.pending.iter().map(|p| p.0));
        let mut order: Vec<u64> = operations.chain(named).collect();
        order.sort_unstable();
        order.dedup();
        let first_lost = self.chance.below(order.len() as u64 + 1) as usize;
        let cut = order.get(first_lost).copied().unwrap_or(u64::MAX);
        let percent = [0, 20, 50, 90, 100][self.chance.below(5) as usize];
        for at in 0..self.inodes.len() {
            for (operation, change) in std::mem::take(&mut self.inodes[at].pending) {
                match tear {
                    Tear::InOrder if operation < cut => {
                        apply(&mut self.inodes[at].durable, &change);
                    }
                    Tear::InOrder if operation == cut => self.keep_first(at, &change),
                    Tear::InOrder => {}
                    Tear::Scattered => self.keep_some(at, &change, percent),
                }
            }
            self.inodes[at].now = self.inodes[at].durable.clone();
        }
        let mut dirs = std::mem::take(&mut self.dirs);
        for dir in dirs.values_mut() {
            let pending = std::mem::take(&mut dir.pending);
            let kept = match tear {
                Tear::InOrder => pending.iter().filter(|(operation, _)| *operation < cut).count(),
                Tear::Scattered => self.chance.below(pending.len() as u64 + 1) as usize,
            };
            pending[..kept].iter().for_each(|(_, naming)| name(&mut dir.durable, naming));
            dir.now = dir.durable.clone();
        }
        self.dirs = dirs;
        self.note(|| format!("power is lost: {tear:?}, cut {cut}, {percent}%"));
        self.revive();
    }

    /// Makes the first sectors of a change durable.
    fn keep_first(&mut self, inode: usize, change: &Change) {
        let Change::Write(offset, bytes) = change else { return };
        let sectors = self.chance.below((bytes.len() / SECTOR_BYTES) as u64 + 1) as usize;
        let part = bytes[..(sectors * SECTOR_BYTES).min(bytes.len())].to_vec();
        if !part.is_empty() {
            apply(&mut self.inodes[inode].durable, &Change::Write(*offset, part));
        }
    }

    fn rot(&mut self, on: usize) {
        let files: Vec<(String, usize)> = self
            .dirs
            .iter()
            .filter(|(dir, _)| device(dir) == on)
            .flat_map(|(_, directory)| directory.now.iter())
            .map(|(name, &inode)| (name.clone(), inode))
            .filter(|(_, inode)| self.inodes[*inode].now.iter().any(|&byte| byte != 0))
            .collect();
        if files.is_empty() {
            return;
        }
        let (name, inode) = files[self.chance.below(files.len() as u64) as usize].clone();
        let used = self.inodes[inode].now.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 1;
        let bit = self.chance.below(used as u64 * 8) as usize;
        self.lied[on] = true;
        self.note(|| format!("rots: bit {bit} of {name}"));
        let file = &mut self.inodes[inode];
        file.now[bit / 8] ^= 1 << (bit % 8);
        if let Some(byte) = file.durable.get_mut(bit / 8) {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Whether the broken disk drops a write now, without owning up to it.
    fn broken_now(&mut self) -> bool {
        self.broken == Some(BrokenDisk::DropsWrites) && self.chance.below(20) == 0
    }

    /// A write of the log: what reaches the device.
    fn block_write(&mut self, path: &Path, inode: usize, offset: usize, bytes: &[u8]) {
        if self.broken_now() {
            return;
        }
        match self.lies(path, false) {
            None | Some(Lie::Early | Lie::Rotten) => {
                self.change(inode, Change::Write(offset, bytes.to_vec()));
            }
            Some(Lie::Phantom) => {}
            Some(Lie::Misdirected) => {
                let blocks = self.inodes[inode].now.len().saturating_sub(bytes.len()) / BLOCK_BYTES;
                let elsewhere = self.chance.below(blocks as u64 + 1) as usize * BLOCK_BYTES;
                self.change(inode, Change::Write(elsewhere, bytes.to_vec()));
            }
            Some(Lie::Torn) => {
                let sectors = self.chance.below((bytes.len() / SECTOR_BYTES) as u64) as usize;
                let part = bytes[..sectors * SECTOR_BYTES].to_vec();
                self.change(inode, Change::Write(offset, part));
            }
            Some(Lie::Flipped) => {
                let mut bytes = bytes.to_vec();
                let used = bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0) + 1;
                let bit = self.chance.below(used as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.change(inode, Change::Write(offset, bytes));
            }
        }
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Length(length) => bytes.resize(*length, 0),
        Change::Write(offset, data) => {
            let end = offset + data.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[*offset..end].copy_from_slice(data);
        }
    }
}

fn name(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming {
        Naming::Link(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Naming::Unlink(name) => {
            names.remove(name);
        }
        Naming::Rename(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}

/// An open file of it.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    path: PathBuf,
    inode: usize,
}

impl Medium for SimDisk {
    type File = SimFile;
    type Lock = ();
    type Writer = SimWriter;
    type Aside = SimAside;

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().dirs.entry(dir.to_owned()).or_default();
        Ok(())
    }

    fn lock(&self, _path: &Path) -> io::Result<Option<()>> {
        Ok(Some(()))
    }

    fn names(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let directory = state.dirs.get(dir).ok_or_else(|| os(ENOENT))?;
        Ok(directory.now.keys().cloned().collect())
    }

    fn exists(&self, path: &Path) -> bool {
        self.state().find(path).is_some()
    }

    fn open(&self, path: &Path, _write: bool) -> io::Result<SimFile> {
        let inode = self.state().find(path).ok_or_else(|| os(ENOENT))?;
        Ok(SimFile { disk: self.clone(), path: path.to_owned(), inode })
    }

    fn create(&self, path: &Path, direct: bool) -> io::Result<SimFile> {
        let mut state = self.state();
        if direct && !state.direct {
            return Err(os(EINVAL));
        }
        let lives = state.operate("create", path);
        if lives == Err(false) {
            return Err(os(EIO));
        }
        if lives.is_ok() && state.fails(Fault::Space, path) {
            return Err(os(ENOSPC));
        }
        let inode = match state.find(path) {
            Some(inode) => {
                state.change(inode, Change::Length(0));
                inode
            }
            None => {
                state.inodes.push(Inode::default());
                let inode = state.inodes.len() - 1;
                let (dir, name) = State::split(path);
                state.rename_in(&dir, Naming::Link(name, inode));
                inode
            }
        };
        drop(state);
        lives.map_err(|_| os(EIO))?;
        Ok(SimFile { disk: self.clone(), path: path.to_owned(), inode })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        let lives = state.operate("rename to", to);
        if lives == Err(false) || (lives.is_ok() && state.fails(Fault::Name, to)) {
            return Err(os(EIO));
        }
        state.find(from).ok_or_else(|| os(ENOENT))?;
        let ((dir, from), (_, to)) = (State::split(from), State::split(to));
        state.rename_in(&dir, Naming::Rename(from, to));
        lives.map_err(|_| os(EIO))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.find(path).ok_or_else(|| os(ENOENT))?;
        let lives = state.operate("remove", path);
        if lives == Err(false) || (lives.is_ok() && state.fails(Fault::Name, path)) {
            return Err(os(EIO));
        }
        let (dir, name) = State::split(path);
        state.rename_in(&dir, Naming::Unlink(name));
        lives.map_err(|_| os(EIO))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        let lives = state.operate("sync directory", dir);
        if lives == Err(false) || (lives.is_ok() && state.fails(Fault::Sync, dir)) {
            return Err(os(EIO));
        }
        if let Some(Directory { durable, pending, .. }) = state.dirs.get_mut(dir) {
            pending.drain(..).for_each(|(_, naming)| name(durable, &naming));
        }
        lives.map_err(|_| os(EIO))
    }

    fn salt(&self) -> io::Result<u32> {
        Ok(self.state().chance.draw() as u32)
    }

    fn writer(&self, buffer_bytes: usize, dirs: Vec<PathBuf>) -> Result<SimWriter, LogError> {
        let buffers = [vec![0; buffer_bytes], vec![0; buffer_bytes]];
        Ok(SimWriter { disk: self.clone(), buffers, dirs, flight: None })
    }

    fn aside(
        &self,
        _name: &'static str,
        attempt: impl FnMut(&AtomicBool) -> bool + Send + 'static,
    ) -> io::Result<SimAside> {
        let mut state = self.state();
        state.asides_made += 1;
        let id = state.asides_made;
        state.asides.insert(id, Work { asked: false, attempt: Some(Box::new(attempt)) });
        Ok(SimAside { disk: self.clone(), id })
    }
}

impl MediumFile for SimFile {
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        if state.fails(Fault::Read, &self.path) {
            return Err(os(EIO));
        }
        let content = &state.inodes[self.inode].now;
        let rest = content.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let lives = state.operate("fill", &self.path);
        if lives == Err(false) {
            return Err(os(EIO));
        }
        if lives.is_ok() && state.fails(Fault::Space, &self.path) {
            return Err(os(ENOSPC));
        }
        state.change(self.inode, Change::Write(offset as usize, bytes.to_vec()));
        lives.map_err(|_| os(EIO))
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let lives = state.operate("cut", &self.path);
        if lives == Err(false) {
            return Err(os(EIO));
        }
        state.change(self.inode, Change::Length(bytes as usize));
        lives.map_err(|_| os(EIO))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].now.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let lives = state.operate("sync", &self.path);
        if lives == Err(false) {
            return Err(os(EIO));
        }
        if lives.is_ok() && state.fails(Fault::Sync, &self.path) {
            state.sync_badly(self.inode);
            return Err(os(EIO));
        }
        state.sync(self.inode);
        lives.map_err(|_| os(EIO))
    }
}

/// How far a flush is on one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Submitted,
    Written,
    Done,
}

#[derive(Debug)]
struct Flight {
    buffer: usize,
    /// What was to be written: the buffer must not change meanwhile.
    bytes: Vec<u8>,
    offset: usize,
    sync: bool,
    files: Vec<(PathBuf, usize, Progress)>,
}

/// Writes blocks of a log, a step at a time.
#[derive(Debug)]
pub struct SimWriter {
    disk: SimDisk,
    buffers: [Vec<u8>; 2],
    dirs: Vec<PathBuf>,
    flight: Option<Flight>,
}

impl SimWriter {
    /// Moves one device's part of the flush on.
    fn move_on(&mut self, device: usize) -> Result<(), LogError> {
        let Some(flight) = &mut self.flight else { return Ok(()) };
        let dir = &self.dirs[device];
        let failed = |what, code| {
            let error = FileError { what, path: dir.clone(), source: os(code) };
            LogError::Device(Arc::new(error))
        };
        let mut state = self.disk.state();
        let (path, inode, progress) = &mut flight.files[device];
        if *progress == Progress::Submitted {
            let lives = state.operate("write the log", path);
            if let Err(effect) = lives {
                if effect {
                    state.change(*inode, Change::Write(flight.offset, flight.bytes.clone()));
                }
                return Err(failed("write the log in", EIO));
            }
            let short = state.fails(Fault::ShortWrite, path);
            if short || state.fails(Fault::Write, path) {
                let wanted = flight.bytes.len();
                let blocks = state.chance.below((wanted / BLOCK_BYTES) as u64) as usize;
                let part = flight.bytes[..blocks * BLOCK_BYTES].to_vec();
                let written = part.len();
                state.change(*inode, Change::Write(flight.offset, part));
                if short {
                    let dir = dir.clone();
                    return Err(LogError::ShortWrite { dir, written, wanted });
                }
                return Err(failed("write the log in", EIO));
            }
            state.block_write(path, *inode, flight.offset, &flight.bytes);
            *progress = if flight.sync { Progress::Written } else { Progress::Done };
        } else if *progress == Progress::Written {
            match state.operate("flush the log", path) {
                Err(effect) => {
                    if effect {
                        state.sync(*inode);
                    }
                    return Err(failed("flush the log in", EIO));
                }
                Ok(()) if state.fails(Fault::Flush, path) => {
                    state.sync_badly(*inode);
                    return Err(failed("flush the log in", EIO));
                }
                Ok(()) => {
                    let early = state.broken == Some(BrokenDisk::AcksBeforeFlush);
                    if state.lies(path, true).is_none() && !early {
                        state.sync(*inode);
                    }
                    *progress = Progress::Done;
                }
            }
        }
        Ok(())
    }
}

impl BlockWriter for SimWriter {
    type File = SimFile;

    fn bytes(&self, buffer: usize) -> &[u8] {
        &self.buffers[buffer]
    }

    fn bytes_mut(&mut self, buffer: usize) -> &mut [u8] {
        let busy = self.flight.as_ref().map(|flight| flight.buffer);
        assert!(busy != Some(buffer), "a buffer is changed while it is being written");
        &mut self.buffers[buffer]
    }

    fn carry(&mut self, from: usize, range: Range<usize>) {
        let (bytes, source) = (range.len(), self.buffers[from][range].to_vec());
        self.bytes_mut(1 - from)[..bytes].copy_from_slice(&source);
    }

    fn in_flight(&self) -> bool {
        self.flight.is_some()
    }

    fn watched(&self) -> Option<RawFd> {
        None
    }

    fn start(&mut self, flush: &Flush<'_, SimFile>) -> Result<(), LogError> {
        assert!(self.flight.is_none(), "one flush at a time");
        assert!(flush.bytes > 0 && flush.bytes.is_multiple_of(BLOCK_BYTES));
        assert!(flush.offset.is_multiple_of(BLOCK_BYTES as u64));
        assert_eq!(flush.files.len(), self.dirs.len());
        let file = |file: &SimFile| (file.path.clone(), file.inode, Progress::Submitted);
        let end = flush.offset as usize + flush.bytes;
        for file in flush.files {
            let length = self.disk.state().inodes[file.inode].now.len();
            assert!(end <= length, "a flush goes beyond the prepared segment");
        }
        self.flight = Some(Flight {
            buffer: flush.buffer,
            bytes: self.buffers[flush.buffer][..flush.bytes].to_vec(),
            offset: flush.offset as usize,
            sync: flush.sync,
            files: flush.files.iter().map(file).collect(),
        });
        Ok(())
    }

    fn reap(&mut self) -> Result<bool, LogError> {
        let devices = self.dirs.len();
        for device in 0..devices {
            let moves = self.disk.state().chance.below(3);
            for _ in 0..moves {
                self.move_on(device)?;
            }
        }
        if let Some(flight) = &self.flight
            && flight.files.iter().all(|file| file.2 == Progress::Done)
        {
            let written = &self.buffers[flight.buffer][..flight.bytes.len()];
            assert!(written == flight.bytes, "a buffer changed while it was being written");
            self.flight = None;
        }
        Ok(self.flight.is_none())
    }

    fn wait(&mut self) -> Result<(), LogError> {
        (0..self.dirs.len()).try_for_each(|device| self.move_on(device))
    }
}

impl Drop for SimWriter {
    /// What is under way may still come to its end, wholly, partly or not.
    fn drop(&mut self) {
        let Some(flight) = self.flight.take() else { return };
        let mut state = self.disk.state();
        for (_, inode, progress) in flight.files {
            if progress == Progress::Submitted {
                let blocks = state.chance.below((flight.bytes.len() / BLOCK_BYTES) as u64 + 1);
                let part = flight.bytes[..blocks as usize * BLOCK_BYTES].to_vec();
                if !part.is_empty() {
                    state.change(inode, Change::Write(flight.offset, part));
                }
            }
        }
    }
}

/// Work beside its owner, done when the simulator says so.
#[derive(Debug)]
pub struct SimAside {
    disk: SimDisk,
    id: u64,
}

impl Aside for SimAside {
    fn ask(&self) {
        if let Some(work) = self.disk.state().asides.get_mut(&self.id) {
            work.asked = true;
        }
    }

    fn help(&self) {
        self.disk.attempt(self.id);
    }
}

impl Drop for SimAside {
    fn drop(&mut self) {
        let work = self.disk.state().asides.remove(&self.id);
        // Outside the lock: what it holds may be of this disk too.
        drop(work);
    }
}
