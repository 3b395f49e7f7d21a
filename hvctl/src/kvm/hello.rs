//! What the port says over its socket: who it is, with the ends of both rings, and each vCPU's
//! statistics. The remote says nothing there; its end of the socket shows that it lives.

use super::memory::MemoryBounds;
use super::port::Bounds;

/// Bytes of every message.
pub(super) const MESSAGE_BYTES: usize = 64;
/// Descriptors that come with the hello: ring of intents, ring of answers, the port's bell, the
/// remote's doorbell, the VM's statistics.
pub(super) const HELLO_DESCRIPTORS: usize = 5;
const MAGIC: u64 = u64::from_le_bytes(*b"VENDKVM1");
const KIND_HELLO: u64 = 1;
const KIND_VCPU: u64 = 2;
/// vCPUs that a remote takes statistics of; each holds a descriptor.
pub(super) const VCPUS_MAX: u32 = 1024;

#[derive(Clone, Copy, Debug)]
pub(super) enum Message {
    /// The port's bounds.
    Hello(Bounds),
    /// A vCPU's statistics come along.
    Vcpu(u32),
}

impl Message {
    pub(super) fn bytes(&self) -> [u8; MESSAGE_BYTES] {
        let words = match self {
            Message::Hello(bounds) => [
                MAGIC,
                KIND_HELLO,
                bounds.memory.bytes_max,
                bounds.memory.boot_bytes,
                bounds.memory.slots_max.into(),
                bounds.vcpus_max.into(),
                bounds.halt_poll_ns_max.into(),
                0,
            ],
            Message::Vcpu(vcpu) => [MAGIC, KIND_VCPU, (*vcpu).into(), 0, 0, 0, 0, 0],
        };
        let mut bytes = [0; MESSAGE_BYTES];
        for (bytes, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *bytes = word.to_le_bytes();
        }
        bytes
    }

    /// What `bytes` say, or `None` if no port says that.
    pub(super) fn parse(bytes: &[u8; MESSAGE_BYTES]) -> Option<Message> {
        let mut words = [0; MESSAGE_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        let small = |at: usize| u32::try_from(words[at]).ok();
        match (words[0], words[1]) {
            (MAGIC, KIND_HELLO) => {
                let memory = MemoryBounds {
                    bytes_max: words[2],
                    boot_bytes: words[3],
                    slots_max: small(4)?,
                };
                let vcpus_max = small(5).filter(|&vcpus| vcpus <= VCPUS_MAX)?;
                Some(Message::Hello(Bounds { memory, vcpus_max, halt_poll_ns_max: small(6)? }))
            }
            (MAGIC, KIND_VCPU) => small(2).filter(|&vcpu| vcpu < VCPUS_MAX).map(Message::Vcpu),
            _ => None,
        }
    }
}
