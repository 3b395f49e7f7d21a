//! Keeps a VM's disks on the storage where they belong, while the guest uses them: in the directory of
//! its own tier, or of the one whose storage it leases.
//!
//! A disk is known by its name in the directory of its own tier, which always leads to where it is: a
//! file there, or a link to the file elsewhere. So a QEMU that is started again opens the disk, not a
//! copy that was left behind. Moved are raw images that lie in that directory by that name; a disk of
//! another format would become raw under its old name.

use super::command::Command;
use super::mirror::{Plan, abandon, mirror};
use super::throttle::{Disk, Throttle, disks, set};
use super::{Go, Monitor, Outcome, QmpError};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between a disk's name and the number of a copy of it.
const COPY: &str = ".vendue-";
/// Copies of a name in a directory at most.
const COPIES_MAX: u32 = 1000;
/// Longest time that a disk may be under way: the guest's writes go to both sides, so it arrives.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);

/// Where a VM's disks belong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Directory of its own tier.
    pub home: PathBuf,
    /// Directory where they belong now.
    pub to: PathBuf,
    /// What it may use there, bytes/s; 0 at home. They are copied as fast.
    pub bytes_per_s: u64,
}

impl Stored {
    /// True if they belong elsewhere than at home.
    pub fn is_away(&self) -> bool {
        self.to != self.home
    }
}

/// A disk that can be moved.
struct Lying {
    disk: Disk,
    /// Where it is.
    file: PathBuf,
    /// Its name at home.
    name: String,
}

impl Lying {
    /// `None` for a disk that is let be.
    fn of(disk: Disk, home: &Path) -> Option<Lying> {
        let file = real(Path::new(&disk.medium.file))?;
        let own = file.file_name()?.to_str()?;
        let name = name_of(own).to_owned();
        let is_known = home.join(&name).symlink_metadata().is_ok();
        let is_ours = file.parent() == Some(home) || own != name;
        (is_known && is_ours && disk.medium.drv == "raw" && !disk.medium.ro).then_some(Lying {
            disk,
            file,
            name,
        })
    }

    fn is_in(&self, dir: &Path) -> bool {
        self.file.parent() == Some(dir)
    }

    /// Moves it, and has its name lead there. The reason if it stays.
    fn go(
        &mut self,
        monitor: &mut Monitor,
        (home, to): (&Path, &Path),
        bytes_per_s: u64,
        mut tell: impl FnMut(&mut Monitor) -> Go,
    ) -> Result<Result<(), String>, QmpError> {
        let copies = (0..COPIES_MAX).map(|at| to.join(format!("{}{COPY}{at}", self.name)));
        let free = |copy: &PathBuf| copy.symlink_metadata().is_err();
        let Some(copy) = copies.into_iter().find(free) else {
            return Ok(Err(format!("{} is full of copies of {}", to.display(), self.name)));
        };
        let disk = self.disk.device.as_str();
        let plan = Plan { disk, to: &copy, bytes_per_s, patience: PATIENCE };
        match mirror(monitor, &plan, |monitor, _| tell(monitor))? {
            Outcome::Applied(_) => {}
            Outcome::Partial { why, .. } | Outcome::Refused(why) | Outcome::TimedOut(why) => {
                return Ok(Err(why));
            }
        }
        let old = std::mem::replace(&mut self.file, copy);
        let named = lead(home, &self.name, &self.file).map_err(|error| {
            format!("{} is in {}, but its name: {error}", self.name, self.file.display())
        });
        // A copy of ours that nothing uses any more; at home the name itself took its place.
        if named.is_ok() && old.parent() != Some(home) {
            let _ = fs::remove_file(old);
        }
        Ok(named)
    }
}

/// The file without links in its path; of one that has another name by now, as it was called.
fn real(file: &Path) -> Option<PathBuf> {
    if !file.is_absolute() {
        return None;
    }
    let gone = || Some(file.parent()?.canonicalize().ok()?.join(file.file_name()?));
    file.canonicalize().ok().or_else(gone)
}

/// A disk's name, of that of a copy of it.
fn name_of(file: &str) -> &str {
    match file.rsplit_once(COPY) {
        Some((name, number)) if !name.is_empty() && number.parse::<u32>().is_ok() => name,
        _ => file,
    }
}

/// Has a disk's name at home lead to the file it is in: in one step, so that there is never another
/// disk behind it.
fn lead(home: &Path, name: &str, file: &Path) -> io::Result<()> {
    let own = home.join(name);
    if file.parent() == Some(home) {
        if file != own && file.symlink_metadata().is_ok() {
            File::open(file)?.sync_all()?;
            fs::rename(file, own)?;
        }
        return Ok(());
    }
    if fs::read_link(&own).is_ok_and(|to| to == file) {
        return Ok(());
    }
    File::open(file)?.sync_all()?;
    let link = home.join(format!("{name}{COPY}link"));
    let _ = fs::remove_file(&link);
    symlink(file, &link)?;
    fs::rename(link, own)
}

/// Moves what lies elsewhere to where it belongs, and limits it there; at home disks that came back get
/// `home_bytes_per_s`. `tell` is asked several times a second whether to go on, and may use the monitor.
/// The value is the limit of what is away, as it was read back.
///
/// # Errors
/// The QEMU is lost or makes no sense.
pub fn keep(
    monitor: &mut Monitor,
    stored: &Stored,
    home_bytes_per_s: u64,
    mut tell: impl FnMut(&mut Monitor) -> Go,
) -> Result<Outcome<u64>, QmpError> {
    abandon(monitor)?;
    let [home, to] = [&stored.home, &stored.to].map(|dir| dir.canonicalize());
    let (home, to) = match (home, to) {
        (Ok(home), Ok(to)) => (home, to),
        (Err(error), _) => return Ok(no(&stored.home, &error)),
        (_, Err(error)) => return Ok(no(&stored.to, &error)),
    };
    let away = home != to;
    let rate = if away { stored.bytes_per_s } else { home_bytes_per_s };
    let all = disks(monitor)?.into_iter().filter_map(|disk| Lying::of(disk, &home));
    let mut held = (!away).then_some(0);
    for mut lying in all {
        let moves = !lying.is_in(&to);
        let done = match moves {
            true => lying.go(monitor, (&home, &to), rate, &mut tell)?,
            // A daemon that ended in between moved it and did not name it.
            false => lead(&home, &lying.name, &lying.file).map_err(|error| error.to_string()),
        };
        if let Err(why) = done {
            return Ok(Outcome::Refused(why));
        }
        if moves || away {
            let limits = Throttle { bytes_per_s: rate, ..lying.disk.throttle() };
            match set(monitor, &lying.disk.device, limits)? {
                Outcome::Applied(now) if away => held = Some(now.bytes_per_s),
                Outcome::Applied(_) => {}
                Outcome::Partial { why, .. } | Outcome::Refused(why) | Outcome::TimedOut(why) => {
                    return Ok(Outcome::Refused(why));
                }
            }
        }
    }
    Ok(held.map_or_else(|| none(&stored.home), Outcome::Applied))
}

fn no(dir: &Path, error: &io::Error) -> Outcome<u64> {
    Outcome::Refused(format!("{}: {error}", dir.display()))
}

fn none(home: &Path) -> Outcome<u64> {
    let why =
        format!("no raw disk of it lies in {} ({})", home.display(), Command::QueryBlock.name());
    Outcome::Refused(why)
}

/// True if a disk is in this directory.
pub fn lies_in(disk: &Disk, dir: &Path) -> bool {
    let dir = dir.canonicalize();
    let file = real(Path::new(&disk.medium.file));
    file.zip(dir.ok()).is_some_and(|(file, dir)| file.parent() == Some(&dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_known_by_the_name_of_their_disk() {
        for (file, name) in [
            ("web.img", "web.img"),
            ("web.img.vendue-0", "web.img"),
            ("web.vendue-1.vendue-17", "web.vendue-1"),
            ("web.img.vendue-link", "web.img.vendue-link"),
            (".vendue-3", ".vendue-3"),
        ] {
            assert_eq!(name_of(file), name);
        }
    }

    #[test]
    fn a_name_always_leads_to_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let [home, gold] = ["home", "gold"].map(|name| dir.path().join(name));
        for dir in [&home, &gold] {
            fs::create_dir(dir).unwrap();
        }
        let (own, away) = (home.join("web.img"), gold.join("web.img.vendue-0"));
        fs::write(&own, "old").unwrap();
        fs::write(&away, "away").unwrap();
        // Twice, as after a restart.
        for _ in 0..2 {
            lead(&home, "web.img", &away).unwrap();
            assert_eq!(fs::read_to_string(&own).unwrap(), "away");
        }
        assert_eq!(real(&own).unwrap(), away.canonicalize().unwrap(), "where QEMU finds it");
        let back = home.join("web.img.vendue-0");
        fs::write(&back, "back").unwrap();
        for _ in 0..2 {
            lead(&home, "web.img", &back).unwrap();
            assert_eq!(fs::read_to_string(&own).unwrap(), "back");
            assert!(own.symlink_metadata().unwrap().is_file(), "it is at home");
        }
        assert_eq!(fs::read_dir(&home).unwrap().count(), 1, "nothing else is left there");
        assert_eq!(fs::read_to_string(&away).unwrap(), "away");
    }
}
