//! The protocol, pure: bytes in, bytes out, time as a parameter. It greets, negotiates, numbers the
//! commands, matches replies to them and gives each its deadline.
//!
//! What QEMU may do is bounded: [`PENDING_MAX`] commands under way, [`EVENTS_MAX`] events kept (the
//! newest), objects as [`super::frame`] takes them. A reply to nothing that was asked, a second
//! reply, or anything that is no QMP ends the session: after a lie nothing more is believed.

use super::command::Command;
use super::frame::{FrameFault, Framer};
use super::reply::{Greeting, QemuVersion};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;

/// Most commands without an answer, the late ones too.
pub const PENDING_MAX: usize = 8;
/// Most events kept until somebody takes them; older ones are dropped and counted.
pub const EVENTS_MAX: usize = 64;
/// Most characters shown of what QEMU says about an error.
const TEXT_MAX: usize = 400;

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Its bytes are no stream of objects.
    #[error("not QMP: {0}")]
    Frame(#[from] FrameFault),
    /// An object that is no message of the protocol.
    #[error("not QMP: {0}")]
    Shape(String),
    /// A message that has no place now.
    #[error("QEMU broke the protocol: {0}")]
    Protocol(&'static str),
    /// A reply to a command that is not under way.
    #[error("QEMU answered command {0}, which is not under way")]
    UnknownId(u64),
    /// QEMU closed the connection.
    #[error("QEMU closed the connection")]
    Closed,
    /// No greeting in time.
    #[error(
        "no greeting: a monitor serves one client at a time, and another may have it; give QEMU \
         a -qmp socket of its own for this"
    )]
    NoGreeting,
}

/// What QEMU refused a command with. Text of QEMU's, cut and without control characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// QEMU's class of errors.
    pub class: String,
    /// What it says.
    pub text: String,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// What it returned.
    Returned(Value),
    /// It was refused.
    Refused(Refusal),
    /// No answer by its deadline. One that comes later is skipped.
    Late,
}

/// Something that QEMU tells by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// What it says.
    pub data: Value,
}

/// A command under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// Why a command was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many are without an answer.
    #[error("QEMU left {PENDING_MAX} commands unanswered")]
    Full,
    /// The session is over, or has not been negotiated yet.
    #[error("the session is not ready")]
    NotReady,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// Waits for the greeting.
    New,
    /// Waits for the answer to the negotiation.
    Negotiating,
    Ready,
    Over(Fault),
}

#[derive(Debug)]
struct Pending {
    id: u64,
    deadline_ns: u64,
    answer: Option<Answer>,
    /// Nobody waits for it any more: its late answer is skipped.
    abandoned: bool,
}

/// One connection to a monitor.
#[derive(Debug)]
pub struct Session {
    state: State,
    framer: Framer,
    version: Option<QemuVersion>,
    greeting_by_ns: u64,
    next_id: u64,
    pending: Vec<Pending>,
    events: VecDeque<Event>,
    events_dropped: u64,
    out: Vec<u8>,
}

/// Any message of QEMU's. Which it is, is told by which of the first four is there.
#[derive(Deserialize)]
struct Message {
    #[serde(rename = "QMP")]
    greeting: Option<Greeting>,
    r#return: Option<Value>,
    error: Option<ErrorBody>,
    event: Option<String>,
    #[serde(default)]
    data: Value,
    id: Option<u64>,
}

#[derive(Deserialize)]
struct ErrorBody {
    class: String,
    desc: String,
}

#[derive(Serialize)]
struct Request<'a> {
    #[serde(flatten)]
    command: &'a Command,
    id: u64,
}

impl Session {
    /// A session that waits for its greeting until `greeting_by_ns`.
    pub fn new(greeting_by_ns: u64) -> Session {
        Session {
            state: State::New,
            framer: Framer::default(),
            version: None,
            greeting_by_ns,
            next_id: 1,
            pending: Vec::with_capacity(PENDING_MAX),
            events: VecDeque::with_capacity(EVENTS_MAX),
            events_dropped: 0,
            out: Vec::new(),
        }
    }

    /// True once commands can be sent.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Why the session is over, if it is.
    pub fn fault(&self) -> Option<&Fault> {
        match &self.state {
            State::Over(fault) => Some(fault),
            _ => None,
        }
    }

    /// QEMU's version, from its greeting.
    pub fn version(&self) -> Option<QemuVersion> {
        self.version
    }

    /// Events that were dropped because nobody took them in time.
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped
    }

    /// Commands without an answer, the late ones too.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Takes the oldest event.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Queues a command that should be answered by `deadline_ns`.
    ///
    /// # Errors
    /// [`SendError`]; nothing is queued.
    pub fn send(&mut self, command: &Command, deadline_ns: u64) -> Result<Ticket, SendError> {
        if self.state != State::Ready {
            return Err(SendError::NotReady);
        }
        if self.pending.len() == PENDING_MAX {
            return Err(SendError::Full);
        }
        Ok(self.queue(command, deadline_ns))
    }

    fn queue(&mut self, command: &Command, deadline_ns: u64) -> Ticket {
        let id = self.next_id;
        self.next_id += 1;
        let line = serde_json::to_vec(&Request { command, id }).expect("commands are JSON");
        self.out.extend_from_slice(&line);
        self.out.push(b'\n');
        self.pending.push(Pending { id, deadline_ns, answer: None, abandoned: false });
        assert!(self.pending.len() <= PENDING_MAX, "bounded by send");
        Ticket(id)
    }

    /// Bytes for QEMU.
    pub fn outgoing(&self) -> &[u8] {
        &self.out
    }

    /// So many of them are on their way.
    ///
    /// # Panics
    /// If there were not so many.
    pub fn sent(&mut self, bytes: usize) {
        drop(self.out.drain(..bytes));
    }

    /// Takes what QEMU sent; nothing after a fault.
    pub fn receive(&mut self, mut bytes: &[u8]) {
        while self.fault().is_none() && !bytes.is_empty() {
            let taken = self.framer.take(&mut bytes).map_err(Fault::from);
            let done = match taken {
                Ok(Some(object)) => self.object(&object),
                Ok(None) => Ok(()),
                Err(fault) => Err(fault),
            };
            if let Err(fault) = done {
                self.end(fault);
            }
        }
    }

    /// QEMU closed the connection.
    pub fn closed(&mut self) {
        if self.fault().is_none() {
            self.end(Fault::Closed);
        }
    }

    fn end(&mut self, fault: Fault) {
        self.state = State::Over(fault);
        self.out.clear();
        self.pending.clear();
    }

    fn object(&mut self, object: &[u8]) -> Result<(), Fault> {
        let message: Message = serde_json::from_slice(object)
            .map_err(|error| Fault::Shape(printable(&error.to_string())))?;
        let Message { greeting, r#return, error, event, data, id } = message;
        match (greeting, r#return, error, event) {
            (Some(greeting), None, None, None) => self.greeted(&greeting),
            (None, Some(value), None, None) => self.answered(id, Answer::Returned(value)),
            (None, None, Some(ErrorBody { class, desc }), None) => {
                let refusal = Refusal { class: printable(&class), text: printable(&desc) };
                self.answered(id, Answer::Refused(refusal))
            }
            (None, None, None, Some(name)) => self.happened(Event { name: printable(&name), data }),
            _ => Err(Fault::Protocol("a message that is not one of greeting, reply, error, event")),
        }
    }

    fn greeted(&mut self, greeting: &Greeting) -> Result<(), Fault> {
        if self.state != State::New {
            return Err(Fault::Protocol("a second greeting"));
        }
        self.version = Some(greeting.version.qemu);
        self.state = State::Negotiating;
        self.queue(&Command::Capabilities, self.greeting_by_ns);
        Ok(())
    }

    fn answered(&mut self, id: Option<u64>, answer: Answer) -> Result<(), Fault> {
        let Some(id) = id else {
            return Err(Fault::Protocol("a reply without an id"));
        };
        let under_way = |pending: &Pending| pending.id == id && pending.answer.is_none();
        let Some(at) = self.pending.iter().position(under_way) else {
            return Err(Fault::UnknownId(id));
        };
        if self.state == State::Negotiating {
            let Answer::Returned(_) = answer else {
                return Err(Fault::Protocol("it refused the negotiation"));
            };
            self.state = State::Ready;
            self.pending.remove(at);
        } else if self.pending[at].abandoned {
            self.pending.remove(at);
        } else {
            self.pending[at].answer = Some(answer);
        }
        Ok(())
    }

    fn happened(&mut self, event: Event) -> Result<(), Fault> {
        if self.state == State::New {
            return Err(Fault::Protocol("an event before the greeting"));
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
            self.events_dropped += 1;
        }
        self.events.push_back(event);
        Ok(())
    }

    /// When something will be late, unless it comes before.
    pub fn due_ns(&self) -> Option<u64> {
        match self.state {
            State::New | State::Negotiating => Some(self.greeting_by_ns),
            State::Over(_) => None,
            State::Ready => {
                let waited = self.pending.iter().filter(|one| one.answer.is_none());
                waited.filter(|one| !one.abandoned).map(|one| one.deadline_ns).min()
            }
        }
    }

    /// Lets time pass: what is due is late.
    pub fn pass(&mut self, now_ns: u64) {
        if matches!(self.state, State::New | State::Negotiating) && now_ns >= self.greeting_by_ns {
            self.end(Fault::NoGreeting);
        }
    }

    /// The command's answer, once: when it is there, or when the command is late.
    ///
    /// # Panics
    /// If the answer was taken before.
    pub fn take(&mut self, ticket: Ticket, now_ns: u64) -> Option<Answer> {
        if self.fault().is_some() {
            return None;
        }
        let at = self.pending.iter().position(|one| one.id == ticket.0 && !one.abandoned);
        let at = at.expect("an answer is taken once");
        if self.pending[at].answer.is_some() {
            return self.pending.remove(at).answer;
        }
        if now_ns < self.pending[at].deadline_ns {
            return None;
        }
        self.pending[at].abandoned = true;
        Some(Answer::Late)
    }
}

/// QEMU's text, short enough for a message and without control characters.
pub fn printable(text: &str) -> String {
    text.chars().take(TEXT_MAX).map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const GREETING: &[u8] = br#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2,
        "major": 7}, "package": "x"}, "capabilities": ["oob"]}}"#;

    fn ready() -> Session {
        let mut session = Session::new(100);
        session.receive(GREETING);
        assert_eq!(session.outgoing(), b"{\"execute\":\"qmp_capabilities\",\"id\":1}\n");
        session.sent(session.outgoing().len());
        assert_eq!(session.send(&Command::QueryStatus, 5), Err(SendError::NotReady));
        session.receive(br#"{"return": {}, "id": 1}"#);
        assert!(session.is_ready());
        session
    }

    fn fault(bytes: &[u8]) -> Fault {
        let mut session = ready();
        session.send(&Command::QueryStatus, 50).unwrap();
        session.receive(bytes);
        session.fault().cloned().expect("a fault")
    }

    #[test]
    fn replies_are_matched_by_id_in_any_order() {
        let mut session = ready();
        let status = session.send(&Command::QueryStatus, 50).unwrap();
        let stop = session.send(&Command::Stop, 50).unwrap();
        assert_eq!(session.take(status, 0), None);
        session.receive(br#"{"id": 3, "error": {"class": "Generic", "desc": "no\u0007"}}"#);
        session.receive(br#"{"return": {"running": true}, "id": 2}"#);
        assert_eq!(session.take(status, 99), Some(Answer::Returned(json!({ "running": true }))));
        let refusal = Refusal { class: "Generic".to_owned(), text: "no?".to_owned() };
        assert_eq!(session.take(stop, 99), Some(Answer::Refused(refusal)));
        assert_eq!(session.pending(), 0);
    }

    #[test]
    fn a_late_command_is_late_once_and_its_answer_is_skipped() {
        let mut session = ready();
        let ticket = session.send(&Command::QueryStatus, 50).unwrap();
        assert_eq!(session.due_ns(), Some(50));
        assert_eq!(session.take(ticket, 49), None);
        assert_eq!(session.take(ticket, 50), Some(Answer::Late));
        assert_eq!((session.due_ns(), session.pending()), (None, 1));
        session.receive(br#"{"return": {}, "id": 2}"#);
        assert_eq!((session.fault(), session.pending()), (None, 0));
    }

    #[test]
    fn a_qemu_that_answers_nothing_is_asked_no_more() {
        let mut session = ready();
        for _ in 0..PENDING_MAX {
            let ticket = session.send(&Command::QueryStatus, 1).unwrap();
            assert_eq!(session.take(ticket, 1), Some(Answer::Late));
        }
        assert_eq!(session.send(&Command::QueryStatus, 2), Err(SendError::Full));
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let mut session = ready();
        for at in 0..EVENTS_MAX + 3 {
            session.receive(format!("{{\"event\": \"E{at}\", \"data\": {{}}}}").as_bytes());
        }
        assert_eq!(session.events_dropped(), 3);
        assert_eq!(session.take_event().unwrap().name, "E3");
        assert_eq!(std::iter::from_fn(|| session.take_event()).count(), EVENTS_MAX - 1);
    }

    #[test]
    fn lies_end_the_session() {
        assert_eq!(fault(br#"{"return": {}, "id": 7}"#), Fault::UnknownId(7));
        assert_eq!(fault(br#"{"return": {}, "id": 1}"#), Fault::UnknownId(1));
        let twice = br#"{"return": {}, "id": 2} {"return": {}, "id": 2}"#;
        assert_eq!(fault(twice), Fault::UnknownId(2));
        assert_eq!(fault(br#"{"return": {}}"#), Fault::Protocol("a reply without an id"));
        assert_eq!(fault(GREETING), Fault::Protocol("a second greeting"));
        for shape in [
            &br#"{"return": {}, "id": -2}"#[..],
            br#"{"return": {}, "id": "2"}"#,
            br#"{"return": {}, "return": {}, "id": 2}"#,
            br#"{"error": "no", "id": 2}"#,
            br#"{"event": 5}"#,
            br#"{"return": {], "id": 2}"#,
            b"{\"event\": \"\xff\"}",
        ] {
            assert!(matches!(fault(shape), Fault::Shape(_)), "{shape:?}");
        }
        for protocol in [&b"{}"[..], br#"{"return": {}, "event": "X", "id": 2}"#] {
            assert!(matches!(fault(protocol), Fault::Protocol(_)), "{protocol:?}");
        }
        assert!(matches!(fault(b"HTTP/1.1 400"), Fault::Frame(FrameFault::NoObject(b'H'))));
    }

    #[test]
    fn a_monitor_that_says_nothing_is_given_up() {
        let mut session = Session::new(100);
        session.pass(99);
        assert_eq!((session.fault(), session.due_ns()), (None, Some(100)));
        session.pass(100);
        assert_eq!(session.fault(), Some(&Fault::NoGreeting));
        let mut early = Session::new(100);
        early.receive(br#"{"event": "X"}"#);
        assert!(matches!(early.fault(), Some(Fault::Protocol(_))));
    }

    /// Messages that are nearly right, and garbage.
    fn message() -> impl Strategy<Value = Vec<u8>> {
        let id = prop_oneof![Just("2".to_owned()), "[0-9\"\\[-]{0,3}".prop_map(|id| id)];
        prop_oneof![
            Just(GREETING.to_vec()),
            id.prop_map(|id| format!("{{\"return\": {{}}, \"id\": {id}}}").into_bytes()),
            Just(br#"{"event": "E", "data": {"a": [1]}}"#.to_vec()),
            Just(br#"{"error": {"class": "C", "desc": "d"}, "id": 3}"#.to_vec()),
            proptest::collection::vec(any::<u8>(), 0..40),
        ]
    }

    proptest! {
        /// Whatever comes, bounds hold, a fault is final, and pieces make no difference.
        #[test]
        fn whatever_comes_bounds_hold(messages in proptest::collection::vec(message(), 0..12),
                                      piece in 1_usize..20, start in any::<bool>()) {
            let bytes = messages.concat();
            let play = |piece: usize| {
                let mut session = if start { ready() } else { Session::new(100) };
                let _ = session.send(&Command::QueryStatus, 5);
                let _ = session.send(&Command::QueryBlock, 5);
                let mut faults = Vec::new();
                for part in bytes.chunks(piece) {
                    session.receive(part);
                    faults.extend(session.fault().cloned());
                }
                assert!(session.pending() <= PENDING_MAX && session.events.len() <= EVENTS_MAX);
                assert!(faults.windows(2).all(|pair| pair[0] == pair[1]), "{faults:?}");
                if session.fault().is_some() {
                    assert!(session.outgoing().is_empty());
                    assert_eq!(session.send(&Command::Stop, 9), Err(SendError::NotReady));
                }
                (session.fault().cloned(), session.events.len(), session.is_ready())
            };
            prop_assert_eq!(play(piece), play(bytes.len().max(1)));
        }
    }
}
