//! The bodies of a hierarchical token bucket (`sch_htb` of Linux, `linux/pkt_sched.h`): one class, for
//! everything.
//!
//! Beside it the plain token bucket, `tbf`, was built and measured over a pair of virtual Ethernet
//! devices. Both keep the rate: 0.956 of it is payload, as it is of a full frame. Where nothing is held
//! back neither costs measurably more processor time a byte than no discipline (0.996 and 0.985 of it).
//! But each change of a `tbf` fills its bucket anew: changed every 250 ms by a hundredth, it let pass
//! 1.21 times the rate at 5 Mbit/s and 1.08 times at 20, `htb` 1.01 and 1.00 times. And where a bucket
//! is smaller than a large packet `tbf` cuts that up in software: 5 times the processor time a byte at
//! 1 Mbit/s, 1.7 times at 20. `htb` lets the packet pass and owes its time.

use super::Queues;
use netlink_packet_core::{DefaultNla, Nla, NlasIterator};
use netlink_packet_route::tc::{TcAttribute, TcOption, TcStats2};

/// Its name.
pub(super) const KIND: &str = "htb";
/// The discipline's handle, `5644:`, and the number of its class in it.
pub(super) const HANDLE: u32 = 0x5644_0000;
/// See [`HANDLE`].
pub(super) const CLASS: u32 = HANDLE | 1;
/// What may be sent at once after a pause: what the rate makes of so much time, nanoseconds.
const BURST_NS: u64 = 10_000_000;
/// What the kernel counts bursts in, nanoseconds (the second word of `/proc/net/psched`).
const TICK_NS: u64 = 64;

const INIT: u16 = 2;
const PARMS: u16 = 1;
const RATE64: u16 = 6;
const CEIL64: u16 = 7;
/// `struct tc_htb_opt`: two `tc_ratespec` of 12 bytes, five words.
const PARMS_BYTES: usize = 2 * RATE_BYTES + 5 * 4;
const RATE_BYTES: usize = 12;
/// Of a `tc_ratespec`: lengths are those of Ethernet frames, so that no table of them is needed.
const ETHERNET: u8 = 1;
/// Version of the discipline that this is.
const VERSION: u32 = 3;
/// Bytes that the one class gets in its turn.
const QUANTUM_BYTES: u32 = 60_000;

/// A class as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Class {
    pub(super) bytes_per_s: u64,
    pub(super) queues: Queues,
}

fn option(kind: u16, body: Vec<u8>) -> TcOption {
    TcOption::Other(DefaultNla::new(kind, body))
}

/// The discipline: what belongs to no other class belongs to [`CLASS`].
pub(super) fn discipline() -> Vec<TcAttribute> {
    let words = [VERSION, 10, CLASS - HANDLE, 0, 0];
    let body = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(vec![option(INIT, body)])]
}

/// The class with a rate, which is its ceiling too.
pub(super) fn class(bytes_per_s: u64) -> Vec<TcAttribute> {
    let mut body = Vec::with_capacity(PARMS_BYTES);
    for _ in ["rate", "ceil"] {
        body.extend([0, ETHERNET]);
        body.extend([0; 6]);
        // A rate that does not fit is in its own attribute.
        let word = u32::try_from(bytes_per_s).unwrap_or(u32::MAX);
        body.extend(word.to_ne_bytes());
    }
    let burst = (BURST_NS / TICK_NS) as u32;
    for word in [burst, burst, QUANTUM_BYTES, 0, 0] {
        body.extend(word.to_ne_bytes());
    }
    assert_eq!(body.len(), PARMS_BYTES, "the layout of tc_htb_opt");
    let wide = bytes_per_s.to_ne_bytes().to_vec();
    let options = [(RATE64, wide.clone()), (CEIL64, wide), (PARMS, body)];
    let options = options.into_iter().map(|(kind, body)| option(kind, body)).collect();
    vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(options)]
}

/// Reads a class. One with another ceiling than its rate, or another burst, is not as we made it, and
/// so has no limit of ours.
pub(super) fn parse(attributes: &[TcAttribute]) -> Option<Class> {
    let (mut rate, mut queues) = (None, Queues::default());
    for attribute in attributes {
        match attribute {
            TcAttribute::Kind(kind) if kind != KIND => return None,
            TcAttribute::Options(options) => rate = parse_rate(options),
            TcAttribute::Stats2(stats) => {
                for stat in stats {
                    if let TcStats2::Queue(queue) = stat {
                        queues.backlog_bytes = queue.backlog.into();
                        queues.drops = queue.drops.into();
                    }
                }
            }
            _ => {}
        }
    }
    rate.map(|bytes_per_s| Class { bytes_per_s, queues })
}

fn parse_rate(options: &[TcOption]) -> Option<u64> {
    // What netlink-packet-route has no types for comes as one piece.
    let mut bytes = vec![0; options.first()?.value_len()];
    options.first()?.emit_value(&mut bytes);
    let (mut parms, mut rate64, mut ceil64) = ([0; PARMS_BYTES], None, None);
    for part in NlasIterator::new(&bytes) {
        let part = part.ok()?;
        let wide = || part.value().try_into().map(u64::from_ne_bytes).ok();
        match part.kind() {
            PARMS => parms = part.value().try_into().ok()?,
            RATE64 => rate64 = wide(),
            CEIL64 => ceil64 = wide(),
            _ => {}
        }
    }
    let word = |at: usize| {
        let bytes = parms[at..at + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    };
    let rate = rate64.unwrap_or_else(|| word(RATE_BYTES - 4).into());
    let ceil = ceil64.unwrap_or_else(|| word(2 * RATE_BYTES - 4).into());
    let bursts = [word(2 * RATE_BYTES), word(2 * RATE_BYTES + 4)];
    let ours = rate == ceil && bursts.iter().all(|&burst| burst == (BURST_NS / TICK_NS) as u32);
    ours.then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::{Emitable, Parseable};
    use netlink_packet_route::tc::TcMessage;

    /// As the kernel would say it.
    fn said(attributes: Vec<TcAttribute>) -> Option<u64> {
        let mut message = TcMessage::default();
        message.attributes = attributes;
        let mut bytes = vec![0; message.buffer_len()];
        message.emit(&mut bytes);
        let message = TcMessage::parse(&bytes[..]).expect("what was emitted");
        parse(&message.attributes).map(|class| class.bytes_per_s)
    }

    #[test]
    fn a_class_is_read_as_it_was_made_and_another_is_not_ours() {
        for rate in [1, 125_000, u64::from(u32::MAX), 1 << 40] {
            assert_eq!(said(class(rate)), Some(rate));
        }
        let mut other = class(125_000);
        let TcAttribute::Options(options) = &mut other[1] else { panic!("options come second") };
        let wider = option(CEIL64, 125_001u64.to_ne_bytes().to_vec());
        *options.iter_mut().find(|option| option.kind() == CEIL64).expect("a ceiling") = wider;
        assert_eq!(said(other), None);
        assert_eq!(said(vec![TcAttribute::Kind("tbf".to_owned())]), None);
        assert_eq!(said(discipline()), None);
    }
}
