//! Programs that tests run to their end, and packages of Python's that some of those need.

use crate::daemon::hvctl;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// What a program printed that must go well: its output, then its errors.
///
/// # Panics
/// If it does not run, or fails.
#[track_caller]
pub fn succeeds(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("a program that runs");
    let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, text.concat());
    text.concat()
}

/// Has pip put packages, or a tree that is one, into a directory.
///
/// # Panics
/// If pip cannot.
pub fn install<P: AsRef<std::ffi::OsStr>>(packages: &[P], place: &Path) {
    succeeds(
        Command::new("python3")
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--root-user-action=ignore", "--no-warn-script-location"])
            .args(["--no-warn-conflicts", "--target"])
            .arg(place)
            .args(packages),
    );
}

/// Where these packages are, as `PYTHONPATH` takes it; installed once for a target directory.
///
/// # Panics
/// If they cannot be installed.
pub fn installed(packages: &[&str]) -> PathBuf {
    let target = hvctl().parent().and_then(Path::parent).expect("a target directory").to_owned();
    let place = target.join(format!("python-{}", packages.join("-")));
    if !place.exists() {
        let work = TempDir::new_in(&target).expect("a directory");
        install(packages, work.path());
        // Whole or not at all; who was faster has installed the same.
        if std::fs::rename(work.path(), &place).is_ok() {
            let _ = work.keep();
        }
    }
    place
}
