//! The guest's root filesystem: an archive in cpio's "newc" format, which the kernel unpacks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Vm, VmError, at, host};

/// The guest's first process.
const INIT: &str = include_str!("../../vm/init");

const DIRECTORY: u32 = 0o040_755;
const REGULAR: u32 = 0o100_000;

/// An entry of the archive; its key is its path in the guest.
enum Entry {
    Directory,
    Text(String),
    /// A file of the host.
    Host(PathBuf),
}

/// Writes the archive with busybox, the init script, the scenario and the guest's files.
pub(super) fn write(path: &Path, parts: &host::Parts, vm: &Vm) -> Result<(), VmError> {
    let mut entries = BTreeMap::new();
    add(&mut entries, "/init", Entry::Text(INIT.to_owned()));
    add(&mut entries, "/scenario", Entry::Text(vm.scenario.to_owned()));
    add(&mut entries, "/bin/busybox", Entry::Host(parts.busybox.clone()));
    for (file, guest_path) in &vm.files {
        for library in libraries(parts, file)? {
            add(&mut entries, &library, Entry::Host(PathBuf::from(&library)));
        }
        add(&mut entries, guest_path, Entry::Host(file.clone()));
    }
    let file = File::create_new(path).map_err(|source| at(path, source))?;
    let mut archive = Archive { out: BufWriter::new(file), path, entries: 0 };
    // A path sorts after its parents, so a directory exists before what is in it.
    for (name, entry) in &entries {
        let name = name.trim_start_matches('/');
        match entry {
            Entry::Directory => archive.entry(name, DIRECTORY, b"")?,
            Entry::Text(text) => archive.entry(name, REGULAR | 0o755, text.as_bytes())?,
            Entry::Host(file) => {
                let mode = file.metadata().map_err(|source| at(file, source))?.permissions().mode();
                let content = content(parts, file, &path.with_extension("stripped"))?;
                archive.entry(name, REGULAR | (mode & 0o777), &content)?;
            }
        }
    }
    archive.entry("TRAILER!!!", 0, b"")?;
    archive.out.flush().map_err(|source| at(path, source))
}

/// A file's bytes. A program comes without what only debuggers read, which is most of it: an emulated
/// processor unpacks the archive.
fn content(parts: &host::Parts, file: &Path, scratch: &Path) -> Result<Vec<u8>, VmError> {
    let bytes = std::fs::read(file).map_err(|source| at(file, source))?;
    if !bytes.starts_with(b"\x7fELF") {
        return Ok(bytes);
    }
    let strip = &mut Command::new(&parts.strip);
    host::run("strip", strip.arg("--strip-debug").arg("-o").arg(scratch).arg(file))?;
    std::fs::read(scratch).map_err(|source| at(scratch, source))
}

/// Adds an entry and the directories above it.
fn add(entries: &mut BTreeMap<String, Entry>, guest_path: &str, entry: Entry) {
    assert!(guest_path.starts_with('/'), "a guest path is absolute: {guest_path}");
    assert!(!guest_path.contains("/.."), "a guest path goes down only: {guest_path}");
    for (slash, _) in guest_path.match_indices('/').skip(1) {
        entries.entry(guest_path[..slash].to_owned()).or_insert(Entry::Directory);
    }
    entries.insert(guest_path.to_owned(), entry);
}

/// The shared libraries and the loader that a program needs, by their paths; none for a file that
/// is no dynamically linked program.
fn libraries(parts: &host::Parts, file: &Path) -> Result<Vec<String>, VmError> {
    let listing = host::run("ldd", Command::new(&parts.ldd).env("LC_ALL", "C").arg(file));
    let listing = match listing {
        Err(VmError::Program { detail, .. }) if detail.contains("not a dynamic executable") => {
            return Ok(Vec::new());
        }
        other => other?,
    };
    if let Some(line) = listing.lines().find(|line| line.contains("not found")) {
        let detail = format!("{} needs a library: {}", file.display(), line.trim());
        return Err(VmError::Program { program: "ldd", detail });
    }
    // "libc.so.6 => /lib/libc.so.6 (0x1234)", and the loader alone: "/lib64/ld.so (0x1234)".
    let paths = listing.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(str::to_owned).collect())
}

/// An archive that is being written.
struct Archive<'a> {
    out: BufWriter<File>,
    path: &'a Path,
    entries: u32,
}

impl Archive<'_> {
    /// Writes one entry: header, name and content, each filled up to a multiple of four bytes.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<(), VmError> {
        self.entries += 1;
        let bytes = u32::try_from(content.len()).map_err(|_| {
            at(Path::new(name), std::io::Error::other("too large: newc takes files up to 4 GiB"))
        })?;
        let name_bytes = u32::try_from(name.len() + 1).expect("a path's length fits in 32 bits");
        // Inode, mode, user, group, links, mtime, bytes, device (2), its own device (2), name, sum.
        let fields = [self.entries, mode, 0, 0, 1, 0, bytes, 0, 0, 0, 0, name_bytes, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(name);
        header.push('\0');
        self.put(header.as_bytes()).and_then(|()| self.put(content)).map_err(|e| at(self.path, e))
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.write_all(&[0; 3][..bytes.len().wrapping_neg() % 4])
    }
}
