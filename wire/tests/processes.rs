//! The ring and the board between real processes, with descriptors passed over a socket.
#![cfg(not(loom))]

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use vendue_wire::board::{BoardReader, BoardWriter, BookView, Level};
use vendue_wire::descriptors;
use vendue_wire::doorbell::{self, Bell, Doorbell};
use vendue_wire::ring::{Consumer, Memory, Producer, PushError};

/// Set in the environment of a process that plays the peer.
const PEER: &str = "VENDUE_TEST_PEER";
const RECORDS: u32 = 300_000;
const CAPACITY_BYTES: usize = 1 << 14;

/// A peer process that runs test `name` of this binary; killed if the test fails first.
struct Peer(Child);

impl Peer {
    /// Starts the peer and returns this side of the socket that is the peer's standard input.
    fn start(name: &str) -> (Peer, OwnedFd) {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)
                .unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args([name, "--exact", "--nocapture"])
            .env(PEER, "1")
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        (Peer(child), ours)
    }

    fn finish(mut self) {
        assert!(self.0.wait().unwrap().success(), "the peer failed; its output is above");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Already reaped after `finish`; both calls then change nothing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct GiveUp<'a>(&'a AtomicBool);

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn is_peer() -> bool {
    std::env::var_os(PEER).is_some()
}

fn send(socket: impl AsFd, fds: &[BorrowedFd<'_>]) {
    descriptors::send(socket, b"!", fds).unwrap();
}

fn receive<const N: usize>(socket: impl AsFd) -> [OwnedFd; N] {
    let (mut space, mut fds) = (nix::cmsg_space!([i32; 8]), Vec::new());
    descriptors::receive(socket, &mut [0], &mut space, (&mut fds, 8)).unwrap();
    fds.try_into().expect("as many descriptors as were sent")
}

fn payload(number: u32) -> Vec<u8> {
    let length = number.wrapping_mul(2_654_435_761) >> 25;
    (0..length).map(|at| (number ^ at) as u8).collect()
}

#[test]
fn records_cross_to_another_process_and_back() {
    if is_peer() {
        return echo();
    }
    let (requests, replies) =
        (Memory::create(CAPACITY_BYTES).unwrap(), Memory::create(CAPACITY_BYTES).unwrap());
    let (wake_peer, peer_doorbell) = doorbell::pair().unwrap();
    let (peer_bell, doorbell) = doorbell::pair().unwrap();
    let (peer, socket) = Peer::start("records_cross_to_another_process_and_back");
    let theirs = [requests.as_fd(), replies.as_fd(), peer_doorbell.as_fd(), peer_bell.as_fd()];
    send(&socket, &theirs);
    drop((peer_doorbell, peer_bell));

    let mut producer = Producer::attach(requests, wake_peer).unwrap();
    let mut consumer = Consumer::attach(replies).unwrap();
    let given_up = AtomicBool::new(false);
    thread::scope(|scope| {
        // Set however this closure ends, so that a failure here does not leave the other waiting.
        let _give_up = GiveUp(&given_up);
        let pushing = scope.spawn(|| {
            for number in 0..RECORDS {
                while let Err(error) = producer.try_push(number, &[&payload(number)]) {
                    assert_eq!(error, PushError::Full);
                    assert!(!given_up.load(Ordering::Relaxed), "the other side gave up");
                    producer.flush();
                    thread::yield_now();
                }
                if number % 10 == 0 {
                    producer.flush();
                }
            }
            producer.flush();
        });
        for number in 0..RECORDS {
            wait(&mut consumer, &doorbell);
            let record = consumer.pop().unwrap().unwrap();
            assert_eq!(record.tag, !number);
            assert_eq!(record.bytes, payload(number), "record {number}");
        }
        pushing.join().unwrap();
    });
    peer.finish();
}

/// The peer: sends every record back with its tag inverted, parking whenever there is none.
fn echo() {
    let [requests, replies, doorbell, bell] = receive(std::io::stdin());
    let doorbell = Doorbell::from_fd(doorbell);
    let mut consumer = Consumer::attach(Memory::from_fd(requests).unwrap()).unwrap();
    let replies = Memory::from_fd(replies).unwrap();
    let mut producer = Producer::attach(replies, Bell::from_fd(bell)).unwrap();
    for number in 0..RECORDS {
        if consumer.is_empty() {
            producer.flush();
        }
        wait(&mut consumer, &doorbell);
        let record = consumer.pop().unwrap().unwrap();
        assert_eq!(record.tag, number);
        while producer.try_push(!record.tag, &[record.bytes]).is_err() {
            producer.flush();
            thread::yield_now();
        }
    }
    producer.flush();
}

fn wait(consumer: &mut Consumer, doorbell: &Doorbell) {
    while consumer.is_empty() {
        if consumer.prepare_park() {
            // Fails when the peer is gone, so that its death does not hang the test.
            doorbell.wait(None).unwrap();
        }
        consumer.cancel_park();
    }
}

fn view(number: u64) -> BookView {
    let level = |at: usize| Level { price_ticks: at as u32 + 1, quantity: number + at as u64 };
    BookView {
        trades: number,
        volume: number * 3,
        sequence: number,
        bids: std::array::from_fn(level),
        asks: std::array::from_fn(level),
        ..BookView::default()
    }
}

#[test]
fn another_process_reads_the_board_untorn() {
    const WRITES: u64 = 500_000;
    if is_peer() {
        let [board] = receive(std::io::stdin());
        let reader = BoardReader::attach(board).unwrap();
        let mut last = 0;
        while last < WRITES {
            let Some(seen) = reader.read(3) else { continue };
            if seen.sequence > 0 {
                assert_eq!(seen, view(seen.sequence));
            }
            assert!(seen.sequence >= last);
            last = seen.sequence;
        }
        return;
    }
    let mut writer = BoardWriter::create(4).unwrap();
    let (peer, socket) = Peer::start("another_process_reads_the_board_untorn");
    send(&socket, &[writer.as_fd()]);
    for number in 1..=WRITES {
        writer.write(3, &view(number));
    }
    peer.finish();
}
