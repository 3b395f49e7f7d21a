//! A cgroup v2 directory for one launched command.

use super::door::Trouble;
use hvctl::cgroup::{LEAF, SUBTREE, TIER, own_parent};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Controllers that groups below the parent should have, where the parent has them.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "io"];
/// Units' groups that a daemon keeps its subtree in: what the package's hold for instances, and those
/// of a daemon, whole or its actuator, to which a group was delegated.
const UNITS: [&str; 3] = [
    "system.slice/vendued-instances.service",
    "system.slice/vendued-actuate.service",
    "system.slice/vendued.service",
];
/// Where the processes of an instance go that are no task's.
pub const REST: &str = "rest";
/// How often and how long apart a group that was killed is tried to be removed.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// A group that this process made.
#[derive(Debug)]
pub struct Group {
    path: String,
}

impl Group {
    /// Makes the group `name` in `parent`, or in the tier's group below the subtree of the daemon that
    /// is `process`, see [`subtree`]; in it `below` a group that is the account's, if it has one.
    ///
    /// # Errors
    /// [`Trouble::Usage`] if the name is none for a directory, [`Trouble::Host`] if cgroup v2 or
    /// its CPU controller cannot be used there.
    pub fn make(
        (parent, process): (Option<&Path>, Option<i32>),
        tier: u16,
        below: Option<&str>,
        name: &str,
    ) -> Result<Group, Trouble> {
        if name.contains('/') || name == "." || name == ".." {
            return Err(Trouble::Usage(format!("{name:?} cannot name a cgroup; leave out the /")));
        }
        let parent = match parent {
            Some(parent) => parent.to_owned(),
            None => {
                let subtree = subtree(&mount()?, process);
                make_parent(&subtree)?;
                let group = subtree.join(format!("{TIER}{tier}"));
                match below {
                    Some(below) => {
                        make_parent(&group)?;
                        group.join(below)
                    }
                    None => group,
                }
            }
        };
        make_parent(&parent)?;
        let path = parent.join(name);
        let Some(text) = path.to_str() else {
            return Err(Trouble::Usage(format!("{} is not UTF-8", path.display())));
        };
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let path = path.display();
                return Err(Trouble::Host(format!(
                    "cgroup {path} exists; take another name, adopt it, or remove it with rmdir"
                )));
            }
            made => made.map_err(|error| refused("make", &path, &error))?,
        }
        let group = Group { path: text.to_owned() };
        if path.join("cpu.max").exists() {
            return Ok(group);
        }
        group.remove()?;
        Err(Trouble::Host(format!(
            "{} has no CPU controller to hand on; give a --parent inside a cgroup2 mount that has \
             cpu in its cgroup.controllers, or run vendued with --host dry-run",
            parent.display(),
        )))
    }

    /// Makes the group of a task below its instance's. Processes that are in the instance's own group
    /// go to [`REST`] below it first: a group has processes or hands controllers on, not both.
    ///
    /// # Errors
    /// [`Trouble::Host`] if the groups cannot be made there.
    pub fn make_task(instance: &Path, name: &str) -> Result<Group, Trouble> {
        let rest = instance.join(REST);
        match fs::create_dir(&rest) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refused("make", &rest, &error));
            }
            _ => {}
        }
        move_processes(instance, &rest)?;
        hand_on(instance);
        let path = instance.join(name);
        let text = path.to_str().map(str::to_owned);
        let text = text.ok_or_else(|| Trouble::Host(format!("{} is no UTF-8", path.display())))?;
        fs::create_dir(&path).map_err(|error| refused("make", &path, &error))?;
        Ok(Group { path: text })
    }

    /// Writes one of its files.
    ///
    /// # Errors
    /// [`Trouble::Host`] if the kernel refuses it.
    pub fn write(&self, file: &str, value: &str) -> Result<(), Trouble> {
        let path = Path::new(&self.path).join(file);
        fs::write(&path, value).map_err(|error| refused("write", &path, &error))
    }

    /// Reads one of its files; empty if there is none.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(Path::new(&self.path).join(file)).unwrap_or_default()
    }

    /// Moves its processes to another group.
    ///
    /// # Errors
    /// [`Trouble::Host`] if they cannot be moved.
    pub fn move_to(&self, other: &Group) -> Result<(), Trouble> {
        move_processes(Path::new(&self.path), Path::new(&other.path))
    }

    /// Where it is.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The file that a process joins the group through.
    ///
    /// # Errors
    /// [`Trouble::Host`] if it cannot be opened.
    pub fn open_procs(&self) -> Result<File, Trouble> {
        let path = Path::new(&self.path).join("cgroup.procs");
        File::options().write(true).open(&path).map_err(|error| refused("open", &path, &error))
    }

    /// Kills what is left in it and removes it.
    ///
    /// # Errors
    /// [`Trouble::Host`] if it stays.
    pub fn remove(self) -> Result<(), Trouble> {
        let path = Path::new(&self.path);
        for _ in 0..REMOVE_ATTEMPTS {
            // A cell has a group for each of its vCPUs.
            for below in fs::read_dir(path).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(below.path());
            }
            match fs::remove_dir(path) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::ResourceBusy => {
                    return Err(refused("remove", path, &error));
                }
                // Kernels before 5.14 have no such file; then the wait may do.
                Err(_) => drop(fs::write(path.join("cgroup.kill"), "1")),
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
        let busy = io::Error::from(io::ErrorKind::ResourceBusy);
        Err(refused("remove", path, &busy))
    }
}

/// The subtree of the daemon that is `process`: beside the leaf that it lives in if a group was
/// delegated to it, or in a unit's group, or in the root.
fn subtree(mount: &Path, process: Option<i32>) -> PathBuf {
    let delegated = || {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", process?)).ok()?;
        let leaf = groups
            .lines()
            .any(|line| line.starts_with("0::/") && line.rsplit('/').next() == Some(LEAF));
        leaf.then(|| own_parent(mount, &groups))
    };
    let units = UNITS.iter().map(|unit| mount.join(unit));
    let mut groups = delegated().into_iter().chain(units).map(|group| group.join(SUBTREE));
    groups.find(|subtree| subtree.exists()).unwrap_or_else(|| mount.join(SUBTREE))
}

/// Moves every process of a group to another, also those that they start meanwhile.
fn move_processes(from: &Path, to: &Path) -> Result<(), Trouble> {
    for _ in 0..REMOVE_ATTEMPTS {
        let processes = from.join("cgroup.procs");
        let text =
            fs::read_to_string(&processes).map_err(|error| refused("read", &processes, &error))?;
        if text.trim().is_empty() {
            return Ok(());
        }
        for process in text.lines() {
            // It may end meanwhile; if it could not be moved it is still there the next time.
            let _ = fs::write(to.join("cgroup.procs"), process);
        }
    }
    let busy = io::Error::from(io::ErrorKind::ResourceBusy);
    Err(refused("move the processes of", from, &busy))
}

/// Makes a group that is to hand its controllers on, or finds it made.
fn make_parent(parent: &Path) -> Result<(), Trouble> {
    match fs::create_dir(parent) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(refused("make", parent, &error));
        }
        _ => {}
    }
    for group in [parent.parent().unwrap_or(parent), parent] {
        hand_on(group);
    }
    Ok(())
}

/// Lets the groups below use the controllers. What cannot be handed on shows in the new group.
fn hand_on(group: &Path) {
    let control = group.join("cgroup.subtree_control");
    let on = fs::read_to_string(&control).unwrap_or_default();
    for controller in CONTROLLERS {
        if !on.split_ascii_whitespace().any(|word| word == controller) {
            let _ = fs::write(&control, format!("+{controller}"));
        }
    }
}

fn refused(what: &str, path: &Path, error: &io::Error) -> Trouble {
    Trouble::Host(format!("cannot {what} cgroup {}: {error}", path.display()))
}

/// Where cgroup2 is mounted first.
fn mount() -> Result<PathBuf, Trouble> {
    let path = Path::new("/proc/self/mountinfo");
    let mountinfo = fs::read_to_string(path)
        .map_err(|error| Trouble::Host(format!("cannot read {}: {error}", path.display())))?;
    mount_in(&mountinfo).ok_or_else(|| {
        let what = "no cgroup2 filesystem is mounted (mount -t cgroup2 none /sys/fs/cgroup)";
        Trouble::Host(format!("{what}; or run vendued with --host dry-run"))
    })
}

/// The first cgroup2 mount point that a `mountinfo` text names.
fn mount_in(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        let is_v2 = filesystem.split(' ').next() == Some("cgroup2");
        is_v2.then(|| mount.split(' ').nth(4).map(|point| PathBuf::from(unescaped(point))))?
    })
}

/// The kernel writes blanks, tabs, newlines and backslashes as `\` and three octal digits.
fn unescaped(text: &str) -> String {
    let escapes = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    escapes.iter().fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cgroup2_mount_is_found_whatever_its_name() {
        let mountinfo = "\
25 30 0:23 / /sys rw,nosuid shared:7 - sysfs sysfs rw
31 25 0:27 / /sys/fs/cgroup/cgroup2 rw shared:9 - tmpfs cgroup2 rw
32 31 0:28 / /my\\040groups rw,nosuid shared:10 master:3 - cgroup2 cgroup2 rw
33 31 0:28 / /later rw - cgroup2 cgroup2 rw
";
        assert_eq!(mount_in(mountinfo), Some(PathBuf::from("/my groups")));
        assert_eq!(mount_in("25 30 0:23 / /sys rw - sysfs sysfs rw\ngarbage\n"), None);
    }

    #[test]
    fn the_subtree_is_the_daemons_or_a_units_or_the_roots() {
        let mount = tempfile::tempdir().unwrap();
        let mount = mount.path();
        assert_eq!(subtree(mount, None), mount.join("vendue"));
        // Not one that lives in a leaf.
        assert_eq!(subtree(mount, Some(std::process::id() as i32)), mount.join("vendue"));
        let unit = mount.join("system.slice/vendued.service/vendue");
        fs::create_dir_all(&unit).unwrap();
        assert_eq!(subtree(mount, None), unit);
    }

    #[test]
    fn a_directory_without_controllers_is_refused_and_left_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let refused = Group::make((Some(parent.path()), None), 0, None, "web").unwrap_err();
        assert!(matches!(&refused, Trouble::Host(why) if why.contains("no CPU controller")));
        assert!(!parent.path().join("web").exists());
    }

    #[test]
    fn a_group_that_exists_is_not_taken_over() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("web")).unwrap();
        let refused =
            Group::make((Some(parent.path()), None), 0, None, "web").unwrap_err().to_string();
        assert!(refused.contains("web exists"), "{refused}");
        assert!(parent.path().join("web").exists());
        for name in ["a/b", "..", "."] {
            let made = Group::make((Some(parent.path()), None), 0, None, name);
            assert!(matches!(made, Err(Trouble::Usage(_))));
        }
    }
}
