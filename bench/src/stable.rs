//! The device itself: what it takes to put bytes on stable storage with nothing around it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

use hdrhistogram::Histogram;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::run::histogram;

/// Bytes of a device's block, and of the file that is overwritten.
pub const BLOCK_BYTES: usize = 4096;
const FILE_BYTES: u64 = 16 << 20;

/// Bytes aligned as `O_DIRECT` wants them.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

/// A file of written blocks on the device below a directory; removed when dropped.
pub struct Raw {
    file: File,
    blocks: Vec<Block>,
    at: u64,
    /// Whether writes go past the page cache.
    pub direct: bool,
    _named: tempfile::NamedTempFile,
}

impl Raw {
    /// Writes the file; `bytes` is the most one write takes.
    ///
    /// # Errors
    /// The directory's device does not take it.
    pub fn new(directory: &Path, bytes: usize) -> io::Result<Raw> {
        let named = tempfile::NamedTempFile::new_in(directory)?;
        let open = |flags| OpenOptions::new().write(true).custom_flags(flags).open(named.path());
        named.as_file().write_all_at(&vec![1; FILE_BYTES as usize], 0)?;
        named.as_file().sync_all()?;
        let blocks = vec![Block([2; BLOCK_BYTES]); bytes.div_ceil(BLOCK_BYTES)];
        let mut raw = match open(nix::libc::O_DIRECT) {
            Ok(file) => Raw { file, blocks, at: 0, direct: true, _named: named },
            Err(_) => Raw { file: open(0)?, blocks, at: 0, direct: false, _named: named },
        };
        if raw.direct && raw.write(BLOCK_BYTES).is_err() {
            raw.file = OpenOptions::new().write(true).open(raw._named.path())?;
            raw.direct = false;
        }
        Ok(raw)
    }

    /// Writes `bytes`, whole blocks, behind the last write, and waits until they are stable.
    ///
    /// # Errors
    /// The device refuses.
    pub fn write(&mut self, bytes: usize) -> io::Result<()> {
        if self.at + bytes as u64 > FILE_BYTES {
            self.at = 0;
        }
        self.file.write_all_at(self.blocks[..bytes / BLOCK_BYTES].as_bytes(), self.at)?;
        self.at += bytes as u64;
        self.file.sync_data()
    }

    /// How long each of `count` writes of a block takes until it is stable, ns.
    ///
    /// # Errors
    /// The device refuses.
    pub fn times(&mut self, count: u64) -> io::Result<Histogram<u64>> {
        let mut histogram = histogram();
        for _ in 0..count {
            let start = Instant::now();
            self.write(BLOCK_BYTES)?;
            histogram.saturating_record(start.elapsed().as_nanos() as u64);
        }
        Ok(histogram)
    }
}
