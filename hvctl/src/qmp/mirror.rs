//! Moves a disk to another file, and so to another class of storage, while the guest uses it.
//!
//! QEMU makes the new file, copies, lets every write of the guest go to both, and goes over when
//! both are the same. Whatever fails before that is taken back: the disk stays where it was, and
//! the new file is removed.

use super::command::{
    CacheMode, Command, CopyMode, Discard, FileNode, MirrorJob, NewFile, RawNode, Sync,
};
use super::reply::{Job, JobStatus};
use super::throttle::{Disk, find};
use super::{Go, Monitor, Outcome, Progress, QmpError, settled};
use std::path::Path;
use std::time::{Duration, Instant};

/// Between two looks at the job.
const LOOK: Duration = Duration::from_millis(100);
/// How long QEMU may take to end a job that it was told to end.
const END: Duration = Duration::from_secs(60);
/// What names of jobs and nodes begin with.
const NAME: &str = "vendue-disk-";
/// Names tried for a new node.
const NAMES_MAX: u32 = 1000;

/// What to move, and how.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'a> {
    /// The disk's name.
    pub disk: &'a str,
    /// Absolute path of the new file, which must not exist yet. It becomes a raw image.
    pub to: &'a Path,
    /// Bytes copied a second; 0 for as fast as it goes.
    pub bytes_per_s: u64,
    /// Longest time until the disk has gone over.
    pub patience: Duration,
}

/// How a job ended.
enum End {
    Well,
    Badly(String),
}

/// Moves a disk. `tell` is told how far it is several times a second and may have it taken back; the
/// monitor is free for something else meanwhile.
///
/// The value read back is the file that the disk is in.
///
/// # Errors
/// The QEMU is lost or makes no sense. Where it is lost in the middle, the job is QEMU's own and
/// may go on.
pub fn mirror(
    monitor: &mut Monitor,
    plan: &Plan<'_>,
    tell: impl FnMut(&mut Monitor, Progress) -> Go,
) -> Result<Outcome<String>, QmpError> {
    settled(prepare_and_run(monitor, plan, tell))
}

fn prepare_and_run(
    monitor: &mut Monitor,
    plan: &Plan<'_>,
    tell: impl FnMut(&mut Monitor, Progress) -> Go,
) -> Result<Outcome<String>, QmpError> {
    let until = Instant::now() + plan.patience;
    let disk = match find(monitor, plan.disk)? {
        Ok(disk) => disk,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    let (from, file) = match possible(&disk, plan.to) {
        Ok(both) => both,
        Err(why) => return Ok(Outcome::Refused(why)),
    };
    let Some(name) = free_name(monitor)? else {
        return Ok(Outcome::Refused("no name is free for the job".to_owned()));
    };
    if let End::Badly(why) = create(monitor, &name, &file, disk.size_bytes())? {
        return Ok(Outcome::Refused(format!("QEMU cannot make {file}: {why}")));
    }
    let moving = Moving { name, from, file, disk: disk.device.clone() };
    let cache =
        CacheMode { direct: disk.medium.cache.direct, no_flush: disk.medium.cache.no_flush };
    moving.run(monitor, cache, plan.bytes_per_s, until, tell)
}

/// The disk's node and the new file's path as text, or why it cannot be moved there.
fn possible(disk: &Disk, to: &Path) -> Result<(String, String), String> {
    let Some(node) = disk.medium.node_name.clone() else {
        return Err("QEMU does not name the disk's node".to_owned());
    };
    if disk.medium.ro || disk.size_bytes() == 0 {
        return Err("the disk is empty or cannot be written".to_owned());
    }
    let Some(file) = to.to_str().filter(|_| to.is_absolute()) else {
        return Err(format!("{} is no absolute path in UTF-8", to.display()));
    };
    // QEMU would empty it.
    match to.symlink_metadata() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok((node, file.to_owned())),
        Err(error) => Err(format!("{file}: {error}")),
        Ok(_) => Err(format!("{file} exists already")),
    }
}

/// A name for jobs and nodes that no disk and no job has.
fn free_name(monitor: &mut Monitor) -> Result<Option<String>, QmpError> {
    let disks = super::throttle::disks(monitor)?;
    let jobs: Vec<Job> = monitor.call(&Command::QueryJobs)?;
    let taken = |name: &String| {
        jobs.iter().any(|job| job.id == *name)
            || disks.iter().any(|disk| disk.medium.node_name.as_ref() == Some(name))
    };
    Ok((0..NAMES_MAX).map(|at| format!("{NAME}{at}")).find(|name| !taken(name)))
}

/// Has QEMU make a file, as its own user and where its own paths lead.
fn create(monitor: &mut Monitor, job: &str, file: &str, size: u64) -> Result<End, QmpError> {
    let options = NewFile { filename: file.to_owned(), size };
    monitor.tell(&Command::BlockdevCreate { job_id: job.to_owned(), options })?;
    end(monitor, job)
}

/// Ends what is left of moves that nobody waits for any more: their disks stay where they are.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn abandon(monitor: &mut Monitor) -> Result<(), QmpError> {
    let jobs: Vec<Job> = monitor.call(&Command::QueryJobs)?;
    for Job { id, .. } in jobs.into_iter().filter(|job| job.id.starts_with(NAME)) {
        cancel(monitor, &id)?;
        close(monitor, &id)?;
    }
    Ok(())
}

/// The job as QEMU tells it.
fn job(monitor: &mut Monitor, name: &str) -> Result<Option<Job>, QmpError> {
    let jobs: Vec<Job> = monitor.call(&Command::QueryJobs)?;
    Ok(jobs.into_iter().find(|job| job.id == name))
}

/// Waits until a job that ends by itself has ended, and has it forgotten.
fn end(monitor: &mut Monitor, name: &str) -> Result<End, QmpError> {
    let until = Instant::now() + END;
    loop {
        match job(monitor, name)? {
            None => return Ok(End::Badly("QEMU forgot the job".to_owned())),
            Some(job) if job.status == JobStatus::Concluded => {
                monitor.tell(&Command::JobDismiss { id: name.to_owned() })?;
                let badly = |why: String| End::Badly(super::session::printable(&why));
                return Ok(job.error.map_or(End::Well, badly));
            }
            Some(_) if Instant::now() >= until => {
                return Err(QmpError::Late { command: "the end of a job" });
            }
            Some(_) => monitor.rest(LOOK)?,
        }
    }
}

/// Closes a node that no disk uses. Nodes that QEMU made for itself go by themselves, and those
/// that were never opened are not there.
fn close(monitor: &mut Monitor, node: &str) -> Result<(), QmpError> {
    match monitor.tell(&Command::BlockdevDel { node_name: node.to_owned() }) {
        Ok(()) | Err(QmpError::Refused { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends a job without going over.
fn cancel(monitor: &mut Monitor, name: &str) -> Result<(), QmpError> {
    match monitor.tell(&Command::BlockJobCancel { device: name.to_owned(), force: true }) {
        // Refused where it has just ended by itself.
        Ok(()) | Err(QmpError::Refused { .. }) => end(monitor, name).map(drop),
        Err(error) => Err(error),
    }
}

/// A disk on its way.
struct Moving {
    /// Of the job and of the new node.
    name: String,
    /// Old node.
    from: String,
    /// New file.
    file: String,
    /// QEMU's path of the guest's device.
    disk: String,
}

/// Why copying stopped.
enum Stop {
    /// Both sides are the same.
    Ready,
    /// The job ended by itself.
    Ended,
    /// It must be taken back.
    Back(&'static str),
    Late,
}

impl Moving {
    fn run(
        &self,
        monitor: &mut Monitor,
        cache: CacheMode,
        speed: u64,
        until: Instant,
        tell: impl FnMut(&mut Monitor, Progress) -> Go,
    ) -> Result<Outcome<String>, QmpError> {
        if let Err(error) = self.start(monitor, cache, speed) {
            return self.back(monitor, |why| Outcome::Refused(format!("{error}{why}")));
        }
        match self.copy(monitor, until, tell)? {
            Stop::Ready => {
                match monitor.tell(&Command::JobComplete { id: self.name.clone() }) {
                    Err(QmpError::Refused { why, .. }) => {
                        cancel(monitor, &self.name)?;
                        return self.back(monitor, |rest| Outcome::Refused(format!("{why}{rest}")));
                    }
                    told => told?,
                }
                let ended = end(monitor, &self.name)?;
                self.arrived(monitor, ended)
            }
            Stop::Ended => {
                let ended = end(monitor, &self.name)?;
                self.arrived(monitor, ended)
            }
            Stop::Back(reason) => {
                cancel(monitor, &self.name)?;
                self.back(monitor, |why| Outcome::Refused(format!("{reason}{why}")))
            }
            Stop::Late => {
                cancel(monitor, &self.name)?;
                let late = "not done in time";
                self.back(monitor, |why| Outcome::TimedOut(format!("{late}{why}")))
            }
        }
    }

    fn start(&self, monitor: &mut Monitor, cache: CacheMode, speed: u64) -> Result<(), QmpError> {
        let discard = Discard::Unmap;
        let file = FileNode { filename: self.file.clone(), cache, discard };
        monitor.tell(&Command::BlockdevAdd(RawNode {
            node_name: self.name.clone(),
            file,
            cache,
            discard,
        }))?;
        monitor.tell(&Command::BlockdevMirror(MirrorJob {
            job_id: self.name.clone(),
            device: self.from.clone(),
            target: self.name.clone(),
            speed,
            sync: Sync::Full,
            copy_mode: CopyMode::WriteBlocking,
            auto_dismiss: false,
        }))
    }

    fn copy(
        &self,
        monitor: &mut Monitor,
        until: Instant,
        mut tell: impl FnMut(&mut Monitor, Progress) -> Go,
    ) -> Result<Stop, QmpError> {
        loop {
            let Some(job) = job(monitor, &self.name)? else { return Ok(Stop::Ended) };
            let done_bytes = job.current_progress;
            let left_bytes = job.total_progress.saturating_sub(done_bytes);
            let go = tell(monitor, Progress { done_bytes, left_bytes });
            match job.status {
                JobStatus::Concluded => return Ok(Stop::Ended),
                _ if go == Go::Back => return Ok(Stop::Back("given up as asked")),
                JobStatus::Ready => return Ok(Stop::Ready),
                JobStatus::Underway if Instant::now() >= until => return Ok(Stop::Late),
                JobStatus::Underway => monitor.rest(LOOK)?,
            }
        }
    }

    /// Reads where the disk is now that the job has ended.
    fn arrived(&self, monitor: &mut Monitor, ended: End) -> Result<Outcome<String>, QmpError> {
        if let (End::Well, true) = (&ended, self.is_at(monitor, &self.name)?) {
            close(monitor, &self.from)?;
            return Ok(Outcome::Applied(self.file.clone()));
        }
        let reason = match ended {
            End::Well => "the job ended, and the disk is not there".to_owned(),
            End::Badly(why) => why,
        };
        self.back(monitor, |why| Outcome::Refused(format!("{reason}{why}")))
    }

    /// True if the disk is in this node.
    fn is_at(&self, monitor: &mut Monitor, node: &str) -> Result<bool, QmpError> {
        let disk = find(monitor, &self.disk)?;
        Ok(disk.is_ok_and(|disk| disk.medium.node_name.as_deref() == Some(node)))
    }

    /// Closes and removes the new file. The outcome is made with what there is to say about it.
    fn back(
        &self,
        monitor: &mut Monitor,
        outcome: impl FnOnce(String) -> Outcome<String>,
    ) -> Result<Outcome<String>, QmpError> {
        if !self.is_at(monitor, &self.from)? {
            let why = "the disk is neither where it was nor where it should be".to_owned();
            return Err(QmpError::Nonsense { command: Command::QueryBlock.name(), why });
        }
        close(monitor, &self.name)?;
        let left = match std::fs::remove_file(&self.file) {
            Ok(()) => String::new(),
            Err(error) => format!(" ({} remains: {error})", self.file),
        };
        Ok(outcome(format!("; the disk stays where it was{left}")))
    }
}
