//! `hvctl cell`: one flat guest under KVM.

use super::door::Trouble;
use clap::ValueEnum;
use hvctl::cell::{IMAGE_AT, Mode, Plan};
use std::path::PathBuf;

/// vCPUs of a cell, at most.
const VCPUS_MAX: u32 = 64;
/// Memory of a cell, at most: what its guest can reach with the tables it starts with.
const MEMORY_BYTES_MAX: u64 = 3 << 30;
const PAGE_BYTES: u64 = hvctl::kvm::intent::PAGE_BYTES;

const _: () = assert!(MEMORY_BYTES_MAX.is_multiple_of(PAGE_BYTES));
const _: () = assert!(IMAGE_AT < PAGE_BYTES * 16);

/// What to run.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
The image is put at 0x8000 and every vCPU starts there, interrupts off, with its number in (e)bx and \
the bytes of --memory in (r)si; in long mode the first 4 GiB are mapped onto themselves, and code has \
selector 8, data 16. Bytes that the guest writes to port 0x3f8 go to standard output; a byte written \
to port 0xf4 ends the cell with that exit code. Memory that is not there reads as ones.

Through --port, whoever may open that socket (root, and this user) adds, grows and shrinks the guest's \
memory, creates, parks and unparks its vCPUs, sets halt polling, samples what the guest writes, and \
gets its statistics: within --memory-max and --cpus-max, in this process's own threads, because KVM \
takes such calls from no other.

The cell drops every capability and all privileges it could get, and is left with some forty system \
calls, none of which opens a file. Its cgroup and those of its vCPUs (vcpu-0, ...) cannot be removed by \
itself when it ends: `hvctl instance launch NAME ... -- hvctl cell ...` makes and removes them, and so \
does the daemon those of an instance that ended by itself.")]
pub struct Cell {
    /// The guest: flat code, at most 608 KiB
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    /// How its processors start
    #[arg(long, value_enum, default_value_t = Start::Long)]
    mode: Start,
    /// Its memory, in bytes or with K, M or G; whole pages
    #[arg(long, value_name = "SIZE", default_value = "16M", value_parser = size)]
    memory: u64,
    /// What its memory may be raised to [default: as --memory]
    #[arg(long, value_name = "SIZE", value_parser = size)]
    memory_max: Option<u64>,
    /// vCPUs that start
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=VCPUS_MAX as i64))]
    cpus: u32,
    /// What they may be raised to [default: as --cpus]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=VCPUS_MAX as i64))]
    cpus_max: Option<u32>,
    /// Unix socket to make for Vendue
    #[arg(long, value_name = "SOCKET")]
    port: PathBuf,
    /// Directory in a cgroup2 mount to make and live in [default: where it is started]
    #[arg(long, value_name = "CGROUP_DIR")]
    cgroup: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Start {
    /// 16 bits
    Real,
    /// 64 bits
    Long,
}

/// Reads a size in bytes: `65536`, `64K`, `16M`, `1G`.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a size; write 65536, 64K, 16M or 1G")?;
    let bytes = number.checked_mul(1 << shift).filter(|&bytes| bytes <= MEMORY_BYTES_MAX);
    let bytes = bytes.ok_or("more than 3G, which is the most that a cell can have")?;
    if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES) {
        return Err(format!("not whole pages of {PAGE_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Runs the cell; [`Trouble::Ended`] with the guest's exit code.
pub fn run(cell: &Cell) -> Result<(), Trouble> {
    let memory_bytes_max = cell.memory_max.unwrap_or(cell.memory);
    let vcpus_max = cell.cpus_max.unwrap_or(cell.cpus);
    if memory_bytes_max < cell.memory || vcpus_max < cell.cpus {
        let why = "--memory-max and --cpus-max are not below what the cell starts with";
        return Err(Trouble::Usage(why.to_owned()));
    }
    let image = std::fs::read(&cell.image)
        .map_err(|error| Trouble::Usage(format!("--image {}: {error}", cell.image.display())))?;
    let plan = Plan {
        image,
        mode: match cell.mode {
            Start::Real => Mode::Real,
            Start::Long => Mode::Long,
        },
        memory_bytes: cell.memory,
        memory_bytes_max,
        vcpus: cell.cpus,
        vcpus_max,
        port: cell.port.clone(),
        cgroup: cell.cgroup.clone(),
    };
    match hvctl::cell::run(plan) {
        Ok(code) => Err(Trouble::Ended(code)),
        Err(error) => Err(Trouble::Host(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_pages_and_bounded() {
        assert_eq!(size("16M"), Ok(16 << 20));
        assert_eq!(size("8192"), Ok(8192));
        for wrong in ["", "K", "-1", "4097", "0", "4G", "99999999999999999999", "1T", "16 M"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
