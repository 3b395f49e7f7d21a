//! Verified records on their way from the thread that verifies a log to the one that executes it:
//! whole buffers, a bounded number of them, without a copy.

use super::record::{Record, decode_with};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::ops::Range;

/// Buffers that may wait to be executed.
const WAITING: usize = 4;

/// Verified records of one segment, in order.
pub struct Block {
    bytes: Vec<u8>,
    /// Where in the bytes they lie.
    records: Range<usize>,
}

impl Block {
    /// The records in order.
    pub fn records(&self) -> impl Iterator<Item = Record<'_>> {
        let mut rest = &self.bytes[self.records.clone()];
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let Ok(record) = decode_with(rest, None, false) else {
                panic!("a verified block holds something that is no record")
            };
            rest = &rest[record.bytes()..];
            Some(record)
        })
    }
}

/// The end of the thread that verifies.
#[derive(Clone)]
pub struct Handing {
    blocks: Sender<Block>,
    emptied: Receiver<Vec<u8>>,
}

impl Handing {
    /// A buffer of `bytes` bytes to read into.
    pub(crate) fn buffer(&self, bytes: usize) -> Vec<u8> {
        self.emptied.try_recv().unwrap_or_else(|_| vec![0; bytes])
    }

    /// Hands over the records that lie in `records`; waits while too many blocks do.
    pub(crate) fn give(&self, bytes: Vec<u8>, records: Range<usize>) {
        // Nobody takes them any more: the records cannot be executed. Whether they are whole is
        // found out all the same, and comes first.
        let _ = self.blocks.send(Block { bytes, records });
    }
}

/// The end of the thread that executes.
pub struct Handed {
    blocks: Receiver<Block>,
    emptied: Sender<Vec<u8>>,
}

impl Handed {
    /// The next block; `None` after the last.
    pub fn next_block(&self) -> Option<Block> {
        self.blocks.recv().ok()
    }

    /// Gives a block's buffer back to be read into again.
    pub fn give_back(&self, block: Block) {
        // Nobody reads any more, or there are enough.
        let _ = self.emptied.try_send(block.bytes);
    }
}

/// Two ends.
pub fn handover() -> (Handing, Handed) {
    let (give, blocks) = bounded(WAITING);
    let (give_back, emptied) = bounded(WAITING);
    (Handing { blocks: give, emptied }, Handed { blocks, emptied: give_back })
}
