//! A cgroup v2 directory for one launched command.

use super::door::Trouble;
use hvctl::cgroup::{SUBTREE, TIER};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Controllers that groups below the parent should have, where the parent has them.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "io"];
/// How often and how long apart a group that was killed is tried to be removed.
const REMOVE_ATTEMPTS: u32 = 100;
const REMOVE_PAUSE: Duration = Duration::from_millis(20);

/// A group that this process made.
#[derive(Debug)]
pub struct Group {
    path: String,
}

impl Group {
    /// Makes the group `name` in `parent`, or in the tier's group below `vendue` of the first
    /// cgroup2 mount; there `below` a group that is the account's, if it has one.
    ///
    /// # Errors
    /// [`Trouble::Usage`] if the name is none for a directory, [`Trouble::Host`] if cgroup v2 or
    /// its CPU controller cannot be used there.
    pub fn make(
        parent: Option<&Path>,
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
                let subtree = mount()?.join(SUBTREE);
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
    fn a_directory_without_controllers_is_refused_and_left_as_it_was() {
        let parent = tempfile::tempdir().unwrap();
        let refused = Group::make(Some(parent.path()), 0, None, "web").unwrap_err();
        assert!(matches!(&refused, Trouble::Host(why) if why.contains("no CPU controller")));
        assert!(!parent.path().join("web").exists());
    }

    #[test]
    fn a_group_that_exists_is_not_taken_over() {
        let parent = tempfile::tempdir().unwrap();
        fs::create_dir(parent.path().join("web")).unwrap();
        let refused = Group::make(Some(parent.path()), 0, None, "web").unwrap_err().to_string();
        assert!(refused.contains("web exists"), "{refused}");
        assert!(parent.path().join("web").exists());
        for name in ["a/b", "..", "."] {
            let made = Group::make(Some(parent.path()), 0, None, name);
            assert!(matches!(made, Err(Trouble::Usage(_))));
        }
    }
}
