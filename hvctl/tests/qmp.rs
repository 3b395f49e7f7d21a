//! The monitor's client against peers that no healthy QEMU is. What a healthy one does is in
//! `tests/tests/vm_qemu.rs`, with a real guest.

use hvctl::qmp::command::Command;
use hvctl::qmp::session::Fault;
use hvctl::qmp::{Monitor, Outcome, QmpError, power, vcpu};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

const GREETING: &[u8] =
    b"{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}}}}\r\n";
/// Far more than a peer on this machine needs.
const LONG: Duration = Duration::from_secs(60);
/// For peers that never answer.
const SHORT: Duration = Duration::from_millis(100);

/// A peer that does as told once somebody has connected.
struct Peer {
    path: PathBuf,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Peer {
    fn new(act: impl FnOnce(UnixStream) + Send + 'static) -> Peer {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("qmp");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || act(listener.accept().unwrap().0));
        Peer { path, thread: Some(thread), _directory: directory }
    }

    /// One that negotiates, then answers each command with the next of these lines.
    fn answering(lines: &'static [&'static str]) -> Peer {
        Peer::new(move |stream| {
            let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
            let mut stream = stream;
            stream.write_all(GREETING).unwrap();
            for line in [r#"{"return": {}, "id": 1}"#].iter().chain(lines) {
                asked.next().expect("a command").unwrap();
                stream.write_all(line.as_bytes()).unwrap();
            }
            // Until the client goes.
            asked.for_each(drop);
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let ended = self.thread.take().expect("joined once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the peer panicked");
    }
}

fn fault(result: Result<impl std::fmt::Debug, QmpError>) -> Fault {
    match result {
        Err(QmpError::Lost { fault, .. }) => fault,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_socket_that_is_not_there_is_named() {
    let error = Monitor::connect(&PathBuf::from("/nowhere/qmp"), SHORT).unwrap_err();
    assert!(error.to_string().starts_with("/nowhere/qmp: "), "{error}");
}

#[test]
fn a_monitor_that_somebody_else_has_is_given_up_with_a_reason() {
    let silent = Peer::new(|stream| BufReader::new(stream).lines().for_each(drop));
    let error = Monitor::connect(&silent.path, SHORT).unwrap_err();
    assert!(error.to_string().contains("one client at a time"), "{error}");
}

#[test]
fn a_qemu_that_hangs_costs_its_patience_and_no_more() {
    let hung = Peer::answering(&[]);
    let mut monitor = Monitor::connect(&hung.path, SHORT).unwrap();
    let outcome = power::pause(&mut monitor).unwrap();
    assert!(matches!(outcome, Outcome::TimedOut(_)), "{outcome:?}");
    drop(monitor);
}

#[test]
fn a_qemu_that_never_stops_talking_costs_no_more_either() {
    let talking = Peer::new(|stream| {
        let mut asked = BufReader::new(stream.try_clone().unwrap()).lines();
        let mut stream = stream;
        stream.write_all(GREETING).unwrap();
        asked.next().expect("a command").unwrap();
        stream.write_all(b"{\"return\": {}, \"id\": 1}").unwrap();
        let event = b"{\"event\": \"RTC_CHANGE\", \"data\": {\"offset\": 1}}\r\n".repeat(100);
        while stream.write_all(&event).is_ok() {}
    });
    let mut monitor = Monitor::connect(&talking.path, SHORT).unwrap();
    let late = monitor.tell(&Command::Stop).unwrap_err();
    assert!(matches!(late, QmpError::Late { command: "stop" }), "{late:?}");
    let mut events = 0;
    while monitor.take_event().is_some() {
        events += 1;
    }
    assert!(events <= hvctl::qmp::session::EVENTS_MAX, "{events}");
    drop(monitor);
}

#[test]
fn a_qemu_that_ends_or_lies_is_lost() {
    let ends = Peer::new(|mut stream| stream.write_all(GREETING).unwrap());
    assert_eq!(fault(Monitor::connect(&ends.path, LONG)), Fault::Closed);
    drop(ends);

    let lies = Peer::answering(&[r#"{"return": {"running": true, "status": "x"}, "id": 3}"#]);
    let mut monitor = Monitor::connect(&lies.path, LONG).unwrap();
    assert_eq!(fault(power::status(&mut monitor)), Fault::UnknownId(3));
    assert_eq!(fault(power::status(&mut monitor)), Fault::UnknownId(3));
    drop(monitor);
}

#[test]
fn what_was_not_read_back_was_not_applied() {
    // It agrees to stop, and runs on.
    let runs_on = Peer::answering(&[
        r#"{"return": {"running": true, "status": "running"}, "id": 2}"#,
        r#"{"return": {}, "id": 3}"#,
        r#"{"return": {"running": true, "status": "running"}, "id": 4}"#,
    ]);
    let mut monitor = Monitor::connect(&runs_on.path, LONG).unwrap();
    let outcome = power::pause(&mut monitor).unwrap();
    assert_eq!(outcome, Outcome::Refused("QEMU says that it is running".to_owned()));
    drop(monitor);
}

#[test]
fn a_thread_of_another_process_is_not_believed_to_be_a_processor() {
    let lies = Peer::answering(&[r#"{"return": [{"cpu-index": 0, "thread-id": 1}], "id": 2}"#]);
    let mut monitor = Monitor::connect(&lies.path, LONG).unwrap();
    let error = vcpu::threads(&mut monitor).unwrap_err().to_string();
    assert!(error.contains("thread 1 is not of process"), "{error}");
    drop(monitor);
}
