//! A guest that is a Debian host with systemd and this host's own programs. In one of them the package
//! is tried, twice (as it is built, and as its next version), by `tests/vm/service`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Outcome, Vm, VmError, at, boot_again, host};

/// Takes over from the guest's first process.
const FIRST: &str = include_str!("../../vm/first");
const SCENARIO: &str = include_str!("../../vm/service");

/// Programs of the guest besides busybox's; they go to `/bin`.
const PROGRAMS: [&str; 11] = [
    "systemctl",
    "journalctl",
    "systemd-sysusers",
    "systemd-tmpfiles",
    "dpkg",
    "dpkg-deb",
    "dpkg-query",
    "dpkg-split",
    "ldconfig",
    "start-stop-daemon",
    "tar",
];
/// Programs and libraries that are where they are on this host: the package's need the libraries.
const FILES: [&str; 6] = [
    "/lib/systemd/systemd",
    "/lib/systemd/systemd-journald",
    "/lib/systemd/systemd-shutdown",
    "/lib/systemd/systemd-cgroups-agent",
    "/lib/x86_64-linux-gnu/libgcc_s.so.1",
    "/lib/x86_64-linux-gnu/libm.so.6",
];
/// Where systemd's units are, and which of them a guest has besides all targets.
const UNITS: &str = "/lib/systemd/system";
const UNITS_WANTED: [&str; 7] = [
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-audit.socket",
    "systemd-journald-dev-log.socket",
    "systemd-tmpfiles-setup.service",
    "systemd-reboot.service",
    "systemd-poweroff.service",
];

/// Builds both packages of the programs beside the running test, and tries them.
///
/// # Errors
/// [`VmError`], as for [`super::boot`], or when the packages cannot be built.
pub fn try_package(timeout: Duration) -> Result<Outcome, VmError> {
    let work = tempfile::tempdir().map_err(|source| at(&std::env::temp_dir(), source))?;
    let (package, newer) = packages(work.path())?;
    let packages = [(package, "/packages/vendued.deb"), (newer, "/packages/newer.deb")];
    boot_host(packages.map(|(path, guest_path)| (path, guest_path.to_owned())), SCENARIO, timeout)
}

/// Boots such a host, twice if it reboots, with these files and a scenario as for [`Vm`]: a service of
/// its own, which ends as `tests/vm/service` does.
///
/// # Errors
/// [`VmError`], as for [`super::boot`].
pub fn boot_host(
    files: impl IntoIterator<Item = (PathBuf, String)>,
    scenario: &str,
    timeout: Duration,
) -> Result<Outcome, VmError> {
    let work = tempfile::tempdir().map_err(|source| at(&std::env::temp_dir(), source))?;
    let first = work.path().join("first");
    fs::write(&first, FIRST).map_err(|source| at(&first, source))?;
    let mut all = systemd()?;
    all.extend(files);
    all.push((executable(first)?, "/first".to_owned()));
    boot_again(&Vm { memory_mib: 640, cpus: 2, files: all, scenario, timeout })
}

/// The package, and the same with a higher version.
fn packages(work: &Path) -> Result<(PathBuf, PathBuf), VmError> {
    let programs = host::binaries(&["vendued", "hvctl", "loadgen"])?;
    let directory = programs[0].0.parent().unwrap_or(Path::new("/"));
    let build = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/package/build");
    let compression = ("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let mut command = Command::new(build);
    let path = host::run(
        "engine/package/build",
        command.env(compression.0, compression.1).arg(directory).arg(work),
    )?;
    let package = PathBuf::from(path.trim());

    let tree = work.join("tree");
    let mut command = Command::new("dpkg-deb");
    host::run("dpkg-deb", command.arg("--raw-extract").args([&package, &tree]))?;
    let control = tree.join("DEBIAN/control");
    let text = fs::read_to_string(&control).map_err(|source| at(&control, source))?;
    let raise = |line: &str| match line.starts_with("Version:") {
        true => format!("{line}+newer\n"),
        false => format!("{line}\n"),
    };
    let text: String = text.lines().map(raise).collect();
    fs::write(&control, text).map_err(|source| at(&control, source))?;
    let newer = work.join("newer.deb");
    let mut command = Command::new("dpkg-deb");
    command.env(compression.0, compression.1).args(["--root-owner-group", "--build"]);
    host::run("dpkg-deb", command.args([&tree, &newer]))?;
    Ok((package, newer))
}

/// What makes the guest a host with systemd, dpkg and Debian's shell.
fn systemd() -> Result<Vec<(PathBuf, String)>, VmError> {
    let mut files = vec![(host::program("dash")?, "/bin/sh".to_owned())];
    for name in PROGRAMS {
        files.push((host::program(name)?, format!("/bin/{name}")));
    }
    for path in FILES {
        files.push((PathBuf::from(path), path.to_owned()));
    }
    for entry in fs::read_dir(UNITS).map_err(|source| at(Path::new(UNITS), source))? {
        let path = entry.map_err(|source| at(Path::new(UNITS), source))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_wanted = name.ends_with(".target") || UNITS_WANTED.contains(&name.as_str());
        // Links among units are other names, which nobody asks for.
        if is_wanted && path.is_file() && !path.is_symlink() {
            files.push((path, format!("{UNITS}/{name}")));
        }
    }
    Ok(files)
}

fn executable(path: PathBuf) -> Result<PathBuf, VmError> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
        .map_err(|source| at(&path, source))?;
    Ok(path)
}
