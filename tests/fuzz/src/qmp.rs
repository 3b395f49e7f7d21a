//! A QEMU that its guest has taken over: any bytes on its monitor.

use hvctl::qmp::command::Command;
use hvctl::qmp::reply::{
    Balloon, BlockDevice, CpuFast, HotpluggableCpu, Job, MemoryDevice, MemorySize, Migration,
    Status, VirtioMem,
};
use hvctl::qmp::session::{Answer, EVENTS_MAX, Fault, PENDING_MAX, Session};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Ns that a command may take.
const PATIENCE_NS: u64 = 8;
const GREETED: &[u8] = br#"{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}}}}
    {"return": {}, "id": 1}"#;

/// What a play ended with.
#[derive(Debug, PartialEq, Eq)]
struct End {
    fault: Option<Fault>,
    answers: Vec<Answer>,
    events: usize,
}

/// The first byte says in what pieces the rest arrives, which must make no difference, and with its
/// lowest bit whether QEMU has greeted already. Each byte 0 stands for a command that is sent.
///
/// # Panics
/// When a bound does not hold, a fault is not final, or an answer comes to nothing that was asked.
pub fn run(bytes: &[u8]) {
    let Some((&first, stream)) = bytes.split_first() else { return };
    let greeted = first & 1 == 1;
    let pieces = play(stream, usize::from(first >> 1) + 1, greeted);
    let whole = play(stream, stream.len() + 1, greeted);
    assert_eq!(pieces, whole, "pieces make a difference");
    for answer in &whole.answers {
        if let Answer::Returned(value) = answer {
            read(value);
        }
    }
}

/// Each turn the next command is sent, then a part of the stream arrives, then the answers are
/// taken; after the last part time passes until all is late.
fn play(stream: &[u8], piece: usize, greeted: bool) -> End {
    let mut session = Session::new(u64::MAX);
    if greeted {
        session.receive(GREETED);
        assert!(session.is_ready());
    }
    let mut tickets = Vec::new();
    let mut answers = Vec::new();
    for (now_ns, part) in (0..).zip(stream.split(|byte| *byte == 0)) {
        if let Ok(ticket) = session.send(&Command::QueryStatus, now_ns + PATIENCE_NS) {
            tickets.push(ticket);
        }
        for piece in part.chunks(piece) {
            session.receive(piece);
            check(&session);
        }
        tickets.retain(|ticket| match session.take(*ticket, now_ns) {
            Some(answer) => {
                answers.push(answer);
                false
            }
            None => true,
        });
    }
    let events = std::iter::from_fn(|| session.take_event()).count();
    assert!(events <= EVENTS_MAX, "{events} events");
    let fault = session.fault().cloned();
    if fault.is_none() {
        for ticket in tickets {
            answers.push(session.take(ticket, u64::MAX).expect("all is late in the end"));
        }
    }
    End { fault, answers, events }
}

fn check(session: &Session) {
    assert!(session.pending() <= PENDING_MAX);
    assert!(session.outgoing().len() < 1 << 16, "what is sent grows");
    if let Some(fault) = session.fault() {
        assert!(session.outgoing().is_empty() && !session.is_ready());
        assert!(fault.to_string().chars().all(|char| !char.is_control()), "{fault:?}");
    }
}

/// Reads a value as everything that is ever read; refusing it is fine.
fn read(value: &Value) {
    fn one<T: DeserializeOwned>(value: &Value) -> bool {
        serde_json::from_value::<T>(value.clone()).is_ok()
    }
    let _ = one::<Status>(value)
        | one::<MemorySize>(value)
        | one::<VirtioMem>(value)
        | one::<Balloon>(value)
        | one::<Migration>(value)
        | one::<Vec<CpuFast>>(value)
        | one::<Vec<HotpluggableCpu>>(value)
        | one::<Vec<MemoryDevice>>(value)
        | one::<Vec<BlockDevice>>(value)
        | one::<Vec<Job>>(value);
}
