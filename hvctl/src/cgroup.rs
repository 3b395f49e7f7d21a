//! The real host: cgroup v2, raw files, descriptors held open.
//!
//! A limit is written with one `pwrite` on a descriptor that stays open (0.5 us against 4 us for
//! opening each time) and read back with one `pread`. An instance holds up to 8 descriptors.
//!
//! Instances live in groups that Vendue made under its own subtree, or in groups that somebody
//! else made and an operator put under Vendue's care by path.

use crate::host::Home;
use crate::lever::Failure;
use crate::limit::{FILES, Knob, OWN, Own, Setting};
use crate::meter::{Meter, MeterError};
use crate::network::{Network, Queues};
use crate::sense::{Sensors, VirtualCounts};
use crate::topology::{parse_list, shown_list};
use crate::vcpu::{self, VcpuError};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use vendue_wire::code::Resource;
use vendue_wire::message::SensorRow;

/// Name of Vendue's own subtree in the parent group.
pub const SUBTREE: &str = "vendue";
/// Name of a tier's group in the subtree, before the tier's number.
pub const TIER: &str = "tier-";
/// Name of an account's group in its tier's, before the account's number.
pub const ACCOUNT: &str = "account-";
/// How often, and how long apart, the kernel is asked whether a group has frozen.
const FREEZE_LOOKS: u32 = 50;
const FREEZE_PAUSE: Duration = Duration::from_millis(1);
/// The parent that stands for the group this process was started in, as a service manager delegates
/// one.
pub const OWN_GROUP: &str = "own";
/// Name of the daemon's own leaf in a group that was delegated to it.
pub const LEAF: &str = "daemon";
/// Says which group this process is in.
const OWN_CGROUP: &str = "/proc/self/cgroup";
/// Bytes that are read of a limit file with a line for each device: some 50 devices.
const LINES_BYTES: usize = 4096;
/// Bytes that are read of any other: a few words.
const TEXT_BYTES: usize = 256;

/// Why this host's cgroups cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// No cgroup2 filesystem is mounted.
    #[error(
        "no cgroup2 filesystem is mounted; mount one (mount -t cgroup2 none /sys/fs/cgroup), \
         or use --host dry-run"
    )]
    NotMounted,
    /// The cgroup2 filesystem is mounted read-only.
    #[error("cgroup2 is mounted read-only at {0}; remount it read-write, or use --host dry-run")]
    ReadOnly(PathBuf),
    /// Controllers are bound to cgroup v1.
    #[error(
        "controllers {} are bound to cgroup v1, so cgroup v2 at {mount} cannot limit them; boot \
         with cgroup_no_v1=all (or systemd.unified_cgroup_hierarchy=1), or use --host dry-run",
        controllers.join(", ")
    )]
    BoundToV1 {
        /// Those that are needed.
        controllers: Vec<String>,
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// The parent group does not offer controllers.
    #[error(
        "group {parent} does not offer controllers {}; delegate them to it (systemd: \
         Delegate=cpu memory io), or use --host dry-run", controllers.join(", ")
    )]
    NotDelegated {
        /// Those that are needed.
        controllers: Vec<String>,
        /// The parent group.
        parent: PathBuf,
    },
    /// The parent group holds processes, so it cannot hand controllers on.
    #[error(
        "group {0} holds processes itself, so it cannot hand controllers on (cgroup v2's \
         no-internal-processes rule); move them into a group below it, or use --host dry-run"
    )]
    ParentPopulated(PathBuf),
    /// The subtree could not be made or read.
    #[error("cannot {what} {path} ({errno}){}; or use --host dry-run", advice(*errno))]
    Refused {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The configured parent is not a group.
    #[error("host.parent: {0}; correct it, or use --host dry-run")]
    Parent(#[from] PlaceError),
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::EACCES | Errno::EPERM => ": run as root, or delegate the group to this user",
        Errno::EROFS => ": remount it read-write",
        _ => "",
    }
}

/// Why a path is not a place for an instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceError {
    /// Not absolute, or with `.` or `..`.
    #[error("{0:?} is not an absolute path without `..`")]
    NotAbsolute(String),
    /// Outside the cgroup2 filesystem.
    #[error("{path:?} is not inside the cgroup2 mount {mount}")]
    Outside {
        /// As given.
        path: String,
        /// Where cgroup2 is mounted.
        mount: PathBuf,
    },
    /// The root group has no limits.
    #[error("{0:?} is the root group, which has no limits")]
    Root(String),
    /// Vendue's own subtree, or a group above it.
    #[error("{0:?} holds Vendue's own subtree; adopt the groups of single instances")]
    HoldsVendue(String),
    /// Not there, or not a directory.
    #[error("{0:?} is not an existing cgroup (symbolic links are not followed)")]
    NotADirectory(String),
    /// A tier's group could not be given its hardware.
    #[error(
        "{path} cannot be set to {list:?} ({errno}); name processors and NUMA nodes of this host, \
         and have the cpuset controller on cgroup v2"
    )]
    NotConfined {
        /// The file.
        path: PathBuf,
        /// Processors or nodes.
        list: String,
        /// What the kernel said.
        errno: Errno,
    },
    /// A group of Vendue's own could not be made.
    #[error("group {path} cannot be made ({errno})")]
    NotMade {
        /// The group.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
}

/// A mounted cgroup filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) point: PathBuf,
    /// 1 or 2.
    pub(crate) version: u8,
    read_only: bool,
    /// v1: the controllers bound to it, among other options.
    options: String,
}

/// The cgroup mounts that a `mountinfo` text names. Lines that make no sense are passed over.
pub(crate) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    // id parent major:minor root point options [optional...] - type source superoptions
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(4);
    let (point, options) = (left.next()?, left.next()?);
    let mut right = right.split(' ');
    let version = match right.next()? {
        "cgroup" => 1,
        "cgroup2" => 2,
        _ => return None,
    };
    let super_options = right.nth(1)?;
    let read_only = [options, super_options].iter().any(|list| list.split(',').any(|o| o == "ro"));
    Some(Mount { point: unescape(point), version, read_only, options: super_options.to_string() })
}

/// Undoes the kernel's `\ooo` for blanks in mount points.
fn unescape(text: &str) -> PathBuf {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let octal = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 4;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(out))
}

/// The files of a group. They differ from cgroup v2's own only where tests say so.
#[derive(Clone, Debug)]
pub(crate) struct FileNames {
    pub(crate) limits: [String; FILES],
    pub(crate) memory_current: String,
}

impl FileNames {
    fn kernel() -> FileNames {
        let mut limits = [const { String::new() }; FILES];
        for knob in OWN {
            limits[knob.slot()] = knob.file().to_string();
        }
        assert!(limits.iter().all(|name| !name.is_empty()), "a slot without a file");
        FileNames { limits, memory_current: "memory.current".to_string() }
    }
}

/// The hardware that a tier's instances run on, as the kernel's lists: `0-3,8`. Empty: all there is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Processors.
    pub cpus: String,
    /// NUMA nodes whose memory is used.
    pub nodes: String,
    /// Whether the processors are the tier's alone.
    pub own: Own,
}

/// What tiers' groups are made with.
#[derive(Clone, Debug)]
struct Tiers {
    /// Controllers that the groups below have.
    needed: Vec<String>,
    /// Controllers that they have where the kernel offers them.
    wished: Vec<&'static str>,
    /// Of tiers that are not to run everywhere.
    hardware: BTreeMap<u16, Hardware>,
}

/// A cgroup2 filesystem with a subtree of Vendue's own in it.
#[derive(Clone, Debug)]
pub struct CgroupHost {
    pub(crate) mount: PathBuf,
    subtree: PathBuf,
    tiers: Box<Tiers>,
    pub(crate) names: Arc<FileNames>,
}

impl CgroupHost {
    /// Finds cgroup v2, checks that the controllers of `resources` can be used, and makes (or
    /// finds again) Vendue's subtree in the group `parent`: an absolute path, empty for the root of
    /// the first cgroup2 mount, or [`OWN_GROUP`] for the group that this process is in, which it
    /// leaves for a leaf, [`LEAF`], first.
    ///
    /// # Errors
    /// Exactly why cgroup v2 cannot be used here, and what to do.
    pub fn detect(parent: &str, resources: &[Resource]) -> Result<CgroupHost, DetectError> {
        let path = "/proc/self/mountinfo";
        let mountinfo = fs::read_to_string(path).map_err(refused("read", Path::new(path)))?;
        let mut needed: Vec<&str> = Vec::new();
        for controller in resources.iter().filter_map(|&resource| Knob::controller(resource)) {
            if !needed.contains(&controller) {
                needed.push(controller);
            }
        }
        CgroupHost::with_controllers(parent, &needed, &mountinfo)
    }

    /// As [`CgroupHost::detect`], for measurements where memory is bound to cgroup v1: the files of
    /// the `hugetlb` controller stand in for memory's, so that what is written is a real limit of
    /// the kernel. It limits huge pages, not memory.
    ///
    /// # Errors
    /// As for [`CgroupHost::detect`].
    pub fn detect_hugetlb(parent: &str) -> Result<CgroupHost, DetectError> {
        let path = "/proc/self/mountinfo";
        let mountinfo = fs::read_to_string(path).map_err(refused("read", Path::new(path)))?;
        let mut host = CgroupHost::with_controllers(parent, &["hugetlb"], &mountinfo)?;
        let names = Arc::make_mut(&mut host.names);
        names.limits[Knob::MemoryMax.slot()] = "hugetlb.2MB.rsvd.max".to_string();
        names.limits[Knob::MemoryHigh.slot()] = "hugetlb.2MB.max".to_string();
        names.memory_current = "hugetlb.2MB.current".to_string();
        Ok(host)
    }

    pub(crate) fn with_controllers(
        parent: &str,
        needed: &[&str],
        mountinfo: &str,
    ) -> Result<CgroupHost, DetectError> {
        let mounts = mounts(mountinfo);
        let v2 = || mounts.iter().filter(|mount| mount.version == 2);
        // The deepest mount that holds the parent; the first one if no parent is named.
        let mount = v2()
            .filter(|mount| Path::new(parent).starts_with(&mount.point))
            .max_by_key(|mount| mount.point.as_os_str().len())
            .or_else(|| v2().next())
            .ok_or(DetectError::NotMounted)?;
        if mount.read_only {
            return Err(DetectError::ReadOnly(mount.point.clone()));
        }
        let parent = match parent {
            "" => mount.point.clone(),
            OWN_GROUP => {
                let text = fs::read_to_string(OWN_CGROUP);
                let text = text.map_err(refused("read", Path::new(OWN_CGROUP)))?;
                leave_to_leaf(&own_parent(&mount.point, &text))?
            }
            path => directory_in(&mount.point, path)?,
        };
        check_offered(&parent, mount, &mounts, needed)?;
        hand_on(&parent, needed)?;
        let subtree = parent.join(SUBTREE);
        make_group(&subtree).map_err(refused("make", &subtree))?;
        hand_on(&subtree, needed)?;
        let needed = needed.iter().map(|&need| need.to_owned()).collect();
        let mount = mount.point.clone();
        let tiers = Box::new(Tiers { needed, wished: Vec::new(), hardware: BTreeMap::new() });
        Ok(CgroupHost { mount, subtree, tiers, names: Arc::new(FileNames::kernel()) })
    }

    /// Keeps tiers to some of the host's hardware, from when their groups are opened on.
    pub fn confine(&mut self, hardware: BTreeMap<u16, Hardware>) {
        self.tiers.hardware = hardware;
    }

    /// Lets tiers' groups, from when they are opened on, also hand on these controllers where they are
    /// to be had.
    pub fn wish(&mut self, controllers: &[&'static str]) {
        self.tiers.wished = controllers.to_vec();
    }

    /// Vendue's own subtree.
    pub fn subtree(&self) -> &Path {
        &self.subtree
    }

    /// The group above those of a tier's instances: its limits are the tier's.
    pub fn tier_group(&self, tier: u16) -> PathBuf {
        self.subtree.join(format!("{TIER}{tier}"))
    }

    /// The group that the instances of a capped account live below.
    pub fn account_group(&self, home: Home) -> PathBuf {
        self.tier_group(home.tier).join(format!("{ACCOUNT}{}", home.account))
    }

    /// The group that instance `instance` has if it is put nowhere else: below its account's, if that
    /// is there and it was not made elsewhere before.
    fn own_group(&self, instance: u32, home: Home) -> PathBuf {
        let name = format!("instance-{instance}");
        let (group, plain) = (self.account_group(home), self.tier_group(home.tier).join(&name));
        if is_directory(&group) && !is_directory(&plain) { group.join(name) } else { plain }
    }

    /// Opens the group of an account, made if it is not there. It hands on what the tier's does.
    pub(crate) fn open_account(&self, home: Home) -> Result<CgroupPlace, PlaceError> {
        self.open_tier(home.tier)?;
        let path = self.account_group(home);
        let not_made = |errno| PlaceError::NotMade { path: path.clone(), errno };
        make_group(&path).map_err(|error| not_made(errno(&error)))?;
        let handed_on = words(&self.tier_group(home.tier).join("cgroup.subtree_control"));
        let handed_on = handed_on.and_then(|names| {
            hand_on(&path, &names.iter().map(String::as_str).collect::<Vec<_>>())
        });
        handed_on.map_err(|error| match error {
            DetectError::Refused { errno, .. } => not_made(errno),
            _ => not_made(Errno::EBUSY),
        })?;
        Ok(self.open_at(path, true))
    }

    /// Opens a tier's group; makes it, or finds it again after a restart.
    pub(crate) fn open_tier(&self, tier: u16) -> Result<CgroupPlace, PlaceError> {
        let dir = self.tier_group(tier);
        let not_made = |errno| PlaceError::NotMade { path: dir.clone(), errno };
        make_group(&dir).map_err(|error| not_made(errno(&error)))?;
        let needed: Vec<&str> = self.tiers.needed.iter().map(String::as_str).collect();
        hand_on(&dir, &needed).map_err(|error| match error {
            DetectError::Refused { errno, .. } => not_made(errno),
            _ => not_made(Errno::EBUSY),
        })?;
        for group in self.subtree.parent().into_iter().chain([self.subtree.as_path(), &dir]) {
            self.hand_on_wished(group);
        }
        self.give_hardware(tier, &dir)?;
        Ok(self.open_at(dir, true))
    }

    fn hand_on_wished(&self, group: &Path) {
        for controller in &self.tiers.wished {
            // What is not there to hand on shows as a file that is not there.
            let _ = hand_on(group, &[controller]);
        }
    }

    /// Sets what a tier's instances run on. What is set already is left.
    fn give_hardware(&self, tier: u16, dir: &Path) -> Result<(), PlaceError> {
        let Some(hardware) = self.tiers.hardware.get(&tier) else { return Ok(()) };
        for group in self.subtree.parent().into_iter().chain([self.subtree.as_path()]) {
            // If it cannot be handed on, the files below are not there.
            let _ = hand_on(group, &["cpuset"]);
        }
        self.divide()?;
        for (file, list) in [("cpuset.mems", &hardware.nodes), ("cpuset.cpus", &hardware.cpus)] {
            if !list.is_empty() {
                set_cpuset(&dir.join(file), list)?;
            }
        }
        if hardware.own == Own::Shared {
            share(dir);
        }
        Ok(())
    }

    /// Whether a tier's processors are its alone.
    pub(crate) fn own(&self, tier: u16) -> Own {
        self.tiers.hardware.get(&tier).map_or(Own::Shared, |hardware| hardware.own)
    }

    /// Has all tiers' processors for the subtree alone where a tier is to have some for its own: only a
    /// partition can be divided into others (before Linux 6.7). Whether the kernel keeps it so shows
    /// in the tiers'.
    fn divide(&self) -> Result<(), PlaceError> {
        let hardware = || self.tiers.hardware.values();
        if hardware().all(|hardware| hardware.own == Own::Shared) {
            share(&self.subtree);
            return Ok(());
        }
        let cpus = hardware().filter_map(|hardware| parse_list(&hardware.cpus)).flatten().collect();
        set_cpuset(&self.subtree.join("cpuset.cpus"), &shown_list(&cpus))?;
        set_cpuset(&self.subtree.join(Knob::Partition.file()), Own::Root.text())
    }

    /// Opens the group at `place`; an empty `place` makes the instance's own group, or finds it
    /// again after a restart.
    pub(crate) fn open(
        &self,
        instance: u32,
        home: Home,
        place: &str,
    ) -> Result<CgroupPlace, PlaceError> {
        let own = place.is_empty();
        let dir = if own {
            self.open_tier(home.tier)?;
            let dir = self.own_group(instance, home);
            make_group(&dir)
                .map_err(|error| PlaceError::NotMade { path: dir.clone(), errno: errno(&error) })?;
            dir
        } else {
            let dir = directory_in(&self.mount, place)?;
            if dir == self.mount {
                return Err(PlaceError::Root(place.to_string()));
            }
            if self.subtree.starts_with(&dir) {
                return Err(PlaceError::HoldsVendue(place.to_string()));
            }
            dir
        };
        Ok(self.open_at(dir, own))
    }

    /// The group above those of all tiers.
    pub(crate) fn open_subtree(&self) -> CgroupPlace {
        self.open_at(self.subtree.clone(), false)
    }

    /// The group of the whole host.
    pub(crate) fn open_root(&self) -> CgroupPlace {
        self.open_at(self.mount.clone(), false)
    }

    fn open_at(&self, dir: PathBuf, own: bool) -> CgroupPlace {
        let names = self.names.clone();
        let files = [const { None }; FILES];
        let vcpus = BTreeMap::new();
        let (network, sensors) = (Network::default(), None);
        let within = dir.starts_with(&self.subtree) && dir != self.subtree;
        let mut place =
            CgroupPlace { dir, own, within, names, files, vcpus, meter: None, network, sensors };
        // What cannot be opened now is reported by the first use of it.
        let _ = place.reopen();
        place
    }
}

pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

fn refused(what: &'static str, path: &Path) -> impl Fn(io::Error) -> DetectError {
    let path = path.to_path_buf();
    move |error| DetectError::Refused { what, path: path.clone(), errno: errno(&error) }
}

/// Writes a file of a group's cpuset unless that is set.
fn set_cpuset(path: &Path, text: &str) -> Result<(), PlaceError> {
    let set = fs::read_to_string(path).unwrap_or_default();
    if set.trim_end() == text {
        return Ok(());
    }
    fs::write(path, text).map_err(|error| {
        let (path, list) = (path.to_path_buf(), text.to_owned());
        PlaceError::NotConfined { path, list, errno: errno(&error) }
    })
}

/// Ends what an earlier configuration had for a group alone.
fn share(dir: &Path) {
    let path = dir.join(Knob::Partition.file());
    let says = fs::read_to_string(&path).unwrap_or_default();
    if !says.is_empty() && says.trim() != Own::Shared.text() {
        // What cannot be written stays as it was.
        let _ = fs::write(&path, Own::Shared.text());
    }
}

/// Makes a group, or finds it made.
pub(crate) fn make_group(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// The group that was delegated to a process whose `/proc/N/cgroup` this is: the one that it is in, or
/// that it left for [`LEAF`].
pub fn own_parent(mount: &Path, cgroup: &str) -> PathBuf {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let group = mount.join(path);
    // A daemon that starts again may be in its leaf already.
    if group.ends_with(LEAF) { group.parent().unwrap_or(mount).to_path_buf() } else { group }
}

/// Moves this process to its leaf below `group`: a group with processes hands nothing on.
fn leave_to_leaf(group: &Path) -> Result<PathBuf, DetectError> {
    let leaf = group.join(LEAF);
    make_group(&leaf).map_err(refused("make", &leaf))?;
    let procs = leaf.join("cgroup.procs");
    fs::write(&procs, "0").map_err(refused("write", &procs))?;
    Ok(group.to_path_buf())
}

/// `path` as a real directory inside `mount`.
fn directory_in(mount: &Path, path: &str) -> Result<PathBuf, PlaceError> {
    let given = Path::new(path);
    let plain = given.components().all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
    // `components` drops a `.` between names; such a path is not plain either.
    let dots = path.split('/').any(|name| name == "." || name == "..");
    if !given.is_absolute() || !plain || dots || path.contains('\0') {
        return Err(PlaceError::NotAbsolute(path.to_string()));
    }
    if !given.starts_with(mount) {
        return Err(PlaceError::Outside { path: path.to_string(), mount: mount.to_path_buf() });
    }
    // Comparing with the canonical path refuses symbolic links on the way.
    match fs::canonicalize(given) {
        Ok(real) if real.as_path() == given && real.is_dir() => Ok(real),
        _ => Err(PlaceError::NotADirectory(path.to_string())),
    }
}

fn words(path: &Path) -> Result<Vec<String>, DetectError> {
    let text = fs::read_to_string(path).map_err(refused("read", path))?;
    Ok(text.split_ascii_whitespace().map(str::to_string).collect())
}

/// Checks that `parent` offers the controllers in `needed`.
fn check_offered(
    parent: &Path,
    mount: &Mount,
    mounts: &[Mount],
    needed: &[&str],
) -> Result<(), DetectError> {
    let offered = words(&parent.join("cgroup.controllers"))?;
    let missing: Vec<&str> =
        needed.iter().copied().filter(|need| !offered.iter().any(|offer| offer == need)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    // The controller io of v2 is called blkio in v1.
    let bound = |controller: &str| {
        let name = if controller == "io" { "blkio" } else { controller };
        mounts.iter().any(|m| m.version == 1 && m.options.split(',').any(|option| option == name))
    };
    let on_v1: Vec<String> =
        missing.iter().filter(|need| bound(need)).map(|need| need.to_string()).collect();
    if !on_v1.is_empty() {
        return Err(DetectError::BoundToV1 { controllers: on_v1, mount: mount.point.clone() });
    }
    let controllers = missing.into_iter().map(str::to_string).collect();
    Err(DetectError::NotDelegated { controllers, parent: parent.to_path_buf() })
}

/// Lets the groups below `group` use the controllers in `needed`. What is on already is left.
fn hand_on(group: &Path, needed: &[&str]) -> Result<(), DetectError> {
    let path = group.join("cgroup.subtree_control");
    let on = words(&path)?;
    for need in needed.iter().filter(|need| !on.iter().any(|word| word == *need)) {
        fs::write(&path, format!("+{need}")).map_err(|error| match errno(&error) {
            Errno::EBUSY => DetectError::ParentPopulated(group.to_path_buf()),
            _ => refused("write", &path)(error),
        })?;
    }
    Ok(())
}

/// An instance's group, its files held open.
#[derive(Debug)]
pub(crate) struct CgroupPlace {
    dir: PathBuf,
    own: bool,
    /// It is in Vendue's subtree, whoever made it.
    within: bool,
    names: Arc<FileNames>,
    files: [Option<File>; FILES],
    /// Of the groups of its virtual processors.
    vcpus: BTreeMap<Knob, File>,
    meter: Option<Meter>,
    network: Network,
    /// From the first sample on.
    sensors: Option<Box<Sensors>>,
}

impl CgroupPlace {
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Opens the group at the same path anew: after its end, a group made anew there is another.
    pub(crate) fn reopen(&mut self) -> Result<(), Failure> {
        self.close();
        if !is_directory(&self.dir) {
            return Err(Failure::Gone);
        }
        self.meter = Meter::cgroup(&self.dir, &self.names.memory_current).ok();
        self.network = Network::of_group(&self.dir);
        Ok(())
    }

    pub(crate) fn close(&mut self) {
        self.files = [const { None }; FILES];
        self.vcpus.clear();
        self.meter = None;
        self.network = Network::default();
        self.sensors = None;
    }

    fn file(&mut self, knob: Knob) -> Result<&File, Failure> {
        let name = &self.names.limits[knob.slot()];
        let Some(vcpu) = knob.vcpu() else {
            let slot = &mut self.files[knob.slot()];
            return match slot {
                Some(file) => Ok(file),
                None => match open(&self.dir, &self.dir.join(name)) {
                    Err(Failure::Missing) if matches!(knob, Knob::IoCost(_)) => {
                        Err(Failure::NoCost)
                    }
                    opened => opened.map(|file| &*slot.insert(file)),
                },
            };
        };
        match self.vcpus.entry(knob) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let path = vcpu::group(&self.dir, vcpu).join(name);
                open(&self.dir, &path).map(|file| &*entry.insert(file))
            }
        }
    }

    /// True if the group has the file of `knob`.
    pub(crate) fn has(&self, knob: Knob) -> bool {
        self.dir.join(&self.names.limits[knob.slot()]).exists()
    }

    /// Gives each thread its group: a virtual processor's number and the thread that runs it.
    pub(crate) fn arrange(&mut self, threads: &[(u16, u32)]) -> Result<(), VcpuError> {
        // Held files may be those of groups that go.
        self.vcpus.clear();
        vcpu::arrange(&self.dir, threads)
    }

    /// Asks the kernel to reclaim so many bytes now. False if it found less, or does not reclaim
    /// when asked (before 5.19).
    pub(crate) fn reclaim(&self, bytes: u64) -> bool {
        fs::write(self.dir.join("memory.reclaim"), bytes.to_string()).is_ok()
    }

    /// Writes `setting` with one `pwrite`, or of a network with requests to the kernel.
    pub(crate) fn write(&mut self, knob: Knob, setting: &Setting) -> Result<(), Failure> {
        if let Knob::Network(way) = knob {
            return self.network.write(way, setting);
        }
        if knob == Knob::Partition {
            self.clear_partition();
        }
        let text = setting.text();
        let file = self.file(knob)?;
        match file.write_at(text.as_bytes(), 0) {
            Ok(length) if length == text.as_bytes().len() => Ok(()),
            Ok(_) => Err(Failure::Other(Errno::EIO)),
            // `io.max` answers ENODEV for a device that is not there: a dead group cannot be
            // read either, a live one can.
            Err(error) if errno(&error) == Errno::ENODEV && file.read_at(&mut [0], 0).is_ok() => {
                Err(Failure::NoDevice)
            }
            Err(error) => Err(failure(errno(&error))),
        }
    }

    /// Lets the group's processors be made its own: what has become invalid stays so until it was
    /// shared. The group above, which is divided, must be a partition itself; somebody may have undone
    /// that. What cannot be written shows when the group's own is read back.
    fn clear_partition(&self) {
        let Some(above) = self.dir.parent() else { return };
        let file = Knob::Partition.file();
        if fs::read_to_string(above.join(file)).is_ok_and(|says| says.trim() != Own::Root.text()) {
            share(above);
            let _ = set_cpuset(&above.join(file), Own::Root.text());
        }
        if fs::read_to_string(self.dir.join(file)).is_ok_and(|says| says.contains("invalid")) {
            share(&self.dir);
        }
    }

    /// Reads what the kernel says now with one `pread`.
    pub(crate) fn read(&mut self, knob: Knob) -> Result<Setting, Failure> {
        if let Knob::Network(way) = knob {
            return self.network.read(way);
        }
        if knob == Knob::Freeze {
            return self.frozen();
        }
        match knob {
            Knob::IoMax(_) | Knob::IoWeight => self.read_text::<LINES_BYTES>(knob),
            _ => self.read_text::<TEXT_BYTES>(knob),
        }
    }

    fn read_text<const BYTES: usize>(&mut self, knob: Knob) -> Result<Setting, Failure> {
        let mut bytes = [0; BYTES];
        let length = match self.file(knob)?.read_at(&mut bytes, 0) {
            Ok(length) => length,
            Err(error) => return Err(failure(errno(&error))),
        };
        if length == BYTES {
            return Err(Failure::Garbled);
        }
        let text = std::str::from_utf8(&bytes[..length]).ok();
        text.and_then(|text| knob.parse(text)).ok_or(Failure::Garbled)
    }

    /// Whether the group is frozen. It takes the kernel a moment after it was asked; until then
    /// neither is true.
    fn frozen(&self) -> Result<Setting, Failure> {
        let asked = self.text("cgroup.freeze")?;
        for _ in 0..FREEZE_LOOKS {
            let says = Knob::Freeze.parse(&self.text("cgroup.events")?).ok_or(Failure::Garbled)?;
            if says.to_string() == asked.trim() {
                return Ok(says);
            }
            std::thread::sleep(FREEZE_PAUSE);
        }
        Err(Failure::Differs)
    }

    fn text(&self, file: &str) -> Result<String, Failure> {
        fs::read_to_string(self.dir.join(file)).map_err(|error| match errno(&error) {
            Errno::ENOENT if is_directory(&self.dir) => Failure::Missing,
            errno => failure(errno),
        })
    }

    /// Memory that the group holds now, bytes.
    pub(crate) fn memory_bytes(&self) -> Result<u64, Failure> {
        let meter = self.meter.as_ref().ok_or(Failure::Missing)?;
        meter.memory_bytes().map_err(|error| match error {
            MeterError::Gone => Failure::Gone,
            MeterError::Io(errno) => failure(errno),
            MeterError::Garbled => Failure::Garbled,
            MeterError::NotMetered | MeterError::UnknownInstance => Failure::Missing,
        })
    }

    /// How its instance fares, which may be a virtual machine.
    pub(crate) fn sense(
        &mut self,
        machine: Option<VirtualCounts>,
        now_ns: u64,
    ) -> Result<SensorRow, MeterError> {
        let meter = self.meter.as_ref().ok_or(MeterError::Gone)?;
        let sensors = self.sensors.get_or_insert_with(|| Box::new(Sensors::cgroup(&self.dir)));
        let mut row = sensors.sample(meter, machine, now_ns)?;
        if let Some(Queues { backlog_bytes, drops, delay_us }) = self.network.queues() {
            row.network_backlog_bytes = backlog_bytes.into();
            row.network_drops = drops.into();
            row.network_delay_us = (delay_us.min(u32::MAX as u64 - 1) as u32).into();
        }
        Ok(row)
    }

    pub(crate) fn meter(&mut self) -> Option<&mut Meter> {
        self.meter.as_mut()
    }

    /// Removes the group if Vendue made it, and one in its subtree that nobody is in any more: of what
    /// was launched nobody else may be there to do so. A group that is gone already is no error.
    pub(crate) fn remove(&mut self) -> Result<(), Errno> {
        self.close();
        vcpu::disband(&self.dir);
        if !self.own {
            let _ = self.within.then(|| fs::remove_dir(&self.dir));
            return Ok(());
        }
        match fs::remove_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(errno(&error)),
            _ => Ok(()),
        }
    }
}

/// Opens a file of the group `dir` to be written and read.
fn open(dir: &Path, path: &Path) -> Result<File, Failure> {
    let flags = nix::libc::O_NOFOLLOW;
    match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
        Ok(file) => Ok(file),
        Err(error) if errno(&error) == Errno::ENOENT && is_directory(dir) => Err(Failure::Missing),
        Err(error) => Err(failure(errno(&error))),
    }
}

fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())
}

fn failure(errno: Errno) -> Failure {
    match errno {
        Errno::ENODEV | Errno::ENOENT => Failure::Gone,
        Errno::EROFS | Errno::EACCES | Errno::EPERM => Failure::Denied(errno),
        Errno::EINVAL | Errno::ERANGE | Errno::EOVERFLOW => Failure::OutOfRange(errno),
        _ => Failure::Other(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_with_their_blanks_and_bindings() {
        let text = "\
            27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
            41 31 0:38 / /sys/fs/cgroup/a\\040b ro,relatime - cgroup2 cgroup2 rw,nsdelegate\n\
            nonsense\n";
        let [v1, v2] = &mounts(text)[..] else { panic!("two cgroup mounts") };
        assert_eq!((v1.version, v1.read_only, v1.options.as_str()), (1, false, "rw,cpu,cpuacct"));
        assert_eq!((v2.version, v2.read_only), (2, true));
        assert_eq!(v2.point, Path::new("/sys/fs/cgroup/a b"));
        assert_eq!(unescape("\\134x\\04"), Path::new("\\x\\04"));
    }

    #[test]
    fn the_delegated_group_is_found_from_it_and_from_its_leaf() {
        let own = |text: &str| own_parent(Path::new("/cg"), text);
        let service = Path::new("/cg/system.slice/vendued.service");
        assert_eq!(own("4:cpu:/x\n0::/system.slice/vendued.service\n"), service);
        assert_eq!(own("0::/system.slice/vendued.service/daemon\n"), service);
        assert_eq!(own("0::/\n"), Path::new("/cg"));
    }

    /// A plain directory instead of cgroup2: no machine has every kind of mount.
    fn refusal(controllers: &str, options: &str, v1: &str, parent: &str) -> DetectError {
        let dir = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(dir.path()).unwrap();
        fs::write(real.join("cgroup.controllers"), controllers).unwrap();
        let point = real.to_str().unwrap();
        let text = format!("41 31 0:38 / {point} {options} - cgroup2 cgroup2 rw\n{v1}\n");
        CgroupHost::with_controllers(parent, &["cpu", "memory", "io"], &text).unwrap_err()
    }

    #[test]
    fn detection_says_why_and_offers_the_dry_run() {
        let none = CgroupHost::with_controllers("", &["cpu"], "").unwrap_err();
        assert!(matches!(none, DetectError::NotMounted));
        let read_only = refusal("cpu memory io\n", "ro,relatime", "", "");
        assert!(matches!(read_only, DetectError::ReadOnly(_)));
        let v1 = "1 2 0:1 / /c rw - cgroup cgroup rw,cpu\n3 2 0:2 / /b rw - cgroup cgroup rw,blkio";
        let bound = refusal("memory hugetlb\n", "rw", v1, "");
        let DetectError::BoundToV1 { controllers, .. } = &bound else { panic!("{bound}") };
        assert_eq!(controllers, &["cpu", "io"], "io is blkio in v1");
        let not_delegated = refusal("memory\n", "rw", "", "");
        let DetectError::NotDelegated { controllers, .. } = &not_delegated else { panic!() };
        assert_eq!(controllers, &["cpu", "io"]);
        let outside = refusal("cpu memory io\n", "rw", "", "/nowhere");
        assert!(matches!(outside, DetectError::Parent(PlaceError::Outside { .. })));
        for error in [none, read_only, bound, not_delegated, outside] {
            assert!(error.to_string().contains("--host dry-run"), "{error}");
        }
    }
}
