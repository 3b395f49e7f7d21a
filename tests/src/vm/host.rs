//! What the host must have: programs, the kernel, this workspace's binaries.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{VmError, at};

/// Where the parts of every guest are on this machine.
pub(super) struct Parts {
    /// The emulator.
    pub qemu: PathBuf,
    /// Starts a program that is killed with the thread that started it.
    pub setpriv: PathBuf,
    /// Formats a disk.
    pub mkfs: PathBuf,
    /// Tells the shared libraries of a program.
    pub ldd: PathBuf,
    /// Takes the debugger's parts out of a program.
    pub strip: PathBuf,
    /// Debian's cloud kernel.
    pub kernel: PathBuf,
    /// A static busybox: the guest's shell and commands.
    pub busybox: PathBuf,
}

impl Parts {
    /// Finds all parts, or says which is missing.
    pub fn find() -> Result<Parts, VmError> {
        Ok(Parts {
            qemu: program("qemu-system-x86_64")?,
            setpriv: program("setpriv")?,
            mkfs: program("mkfs.ext4")?,
            ldd: program("ldd")?,
            strip: program("strip")?,
            kernel: fetched("vmlinuz")?,
            busybox: fetched("busybox")?,
        })
    }
}

/// A program on the search path, or where only administrators look.
pub(super) fn program(name: &'static str) -> Result<PathBuf, VmError> {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(OsString::from(":/usr/sbin:/sbin"));
    std::env::split_paths(&path)
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
        .ok_or_else(|| VmError::Missing { what: name, looked_in: path.display().to_string() })
}

/// A driver of Debian's cloud kernel.
pub(super) fn module(name: &str) -> Result<PathBuf, VmError> {
    Ok(fetched("modules")?.join(format!("{name}.ko")))
}

/// What `tests/vm/fetch` left in the cargo target directory the running test is in.
fn fetched(name: &'static str) -> Result<PathBuf, VmError> {
    let test = running_test()?;
    let caches = || test.ancestors().skip(1).take(4).map(|directory| directory.join("vm"));
    caches().map(|cache| cache.join(name)).find(|path| path.exists()).ok_or_else(|| {
        let looked_in: Vec<_> = caches().map(|cache| cache.display().to_string()).collect();
        VmError::Missing { what: name, looked_in: looked_in.join(", ") }
    })
}

/// Binaries of this workspace, each with its path `/bin/NAME` in a guest, for [`super::Vm`].
///
/// Cargo builds those of this package with its tests; those of other packages must have been
/// built before, with the same profile.
///
/// # Errors
/// [`VmError::NotBuilt`] names the first that is not there.
pub fn binaries(names: &[&str]) -> Result<Vec<(PathBuf, String)>, VmError> {
    let test = running_test()?;
    // Tests are in `deps`, binaries one directory up.
    let is_place = |directory: &&Path| !directory.ends_with("deps");
    let directory = test.ancestors().skip(1).find(is_place).unwrap_or(Path::new("/"));
    let binary = |name: &&str| {
        let path = directory.join(name);
        if path.is_file() {
            Ok((path, format!("/bin/{name}")))
        } else {
            Err(VmError::NotBuilt { path })
        }
    };
    names.iter().map(binary).collect()
}

/// The tests in `tests/NAME.rs` of any package of this workspace, with their path `/bin/NAME` in a
/// guest, for [`super::Vm`]: the newest that was built with this test's profile.
///
/// # Errors
/// [`VmError::NotBuilt`] if there are none.
pub fn tests_of(name: &str) -> Result<(PathBuf, String), VmError> {
    let test = running_test()?;
    let path = newest(test.parent().unwrap_or(Path::new("/")), name)?;
    Ok((path, format!("/bin/{name}")))
}

/// The benchmarks, `/bin/bench` in a guest, for [`super::Vm`]: the newest that `cargo bench -p
/// vendue-bench --no-run` built in this program's target directory.
///
/// # Errors
/// [`VmError::NotBuilt`] if there are none.
pub fn bench() -> Result<(PathBuf, String), VmError> {
    let program = running_test()?;
    let mut places = program.ancestors().map(|directory| directory.join("release/deps"));
    let place = places.find(|place| place.is_dir()).unwrap_or_default();
    Ok((newest(&place, "vendue")?, "/bin/bench".to_owned()))
}

/// The newest program in `directory` that cargo gave a hash to.
fn newest(directory: &Path, name: &str) -> Result<PathBuf, VmError> {
    let is_it = |path: &PathBuf| {
        let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
        let hash = file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-'));
        hash.is_some_and(|hash| !hash.contains(['.', '-']))
    };
    let entries = std::fs::read_dir(directory).map_err(|source| at(directory, source))?;
    let tests = entries.flatten().map(|entry| entry.path()).filter(is_it);
    let newest = tests.max_by_key(|path| path.metadata().and_then(|of| of.modified()).ok());
    newest.ok_or_else(|| VmError::NotBuilt { path: directory.join(name) })
}

/// The file of the test that runs.
fn running_test() -> Result<PathBuf, VmError> {
    std::env::current_exe().map_err(|source| at(Path::new("/proc/self/exe"), source))
}

/// Makes an empty ext4 filesystem in a sparse file.
pub(super) fn make_disk(parts: &Parts, disk: &Path, bytes: u64) -> Result<(), VmError> {
    let file = File::create_new(disk).and_then(|file| file.set_len(bytes));
    file.map_err(|source| at(disk, source))?;
    run("mkfs.ext4", Command::new(&parts.mkfs).arg("-q").arg(disk)).map(drop)
}

/// Runs a program of the host to its end and returns what it printed.
pub(super) fn run(program: &'static str, command: &mut Command) -> Result<String, VmError> {
    let failed = |detail| VmError::Program { program, detail };
    let output = command.output().map_err(|error| failed(error.to_string()))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{} {stdout}{stderr}", output.status)))
}
