//! Port and remote against peers that lie, and what KVM itself says to outsiders.

use hvctl::kvm::intent::Intent;
use hvctl::kvm::memory::MemoryBounds;
use hvctl::kvm::port::{Bounds, Note, Port};
use hvctl::kvm::remote::{Remote, RemoteError};
use kvm_ioctls::{Kvm, VmFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::JoinHandle;
use std::time::Duration;
use vendue_wire::descriptors;
use vendue_wire::doorbell::{Bell, pair};
use vendue_wire::ring::{Memory, Producer};

const PATIENCE: Duration = Duration::from_secs(60);
/// Of a message on a port's socket.
const MESSAGE_BYTES: usize = 64;

/// A VM, unless there is no KVM here; then it says so.
fn vm() -> Option<VmFd> {
    let vm = Kvm::new().and_then(|kvm| kvm.create_vm());
    if let Err(error) = &vm {
        println!("not shown: /dev/kvm cannot be used here ({error})");
    }
    vm.ok()
}

fn port(vm: VmFd, path: &Path) -> Port {
    let memory = MemoryBounds { slots_max: 2, bytes_max: 1 << 20, boot_bytes: 0 };
    let bounds = Bounds { memory, vcpus_max: 0, halt_poll_ns_max: 0 };
    let listener = UnixListener::bind(path).unwrap();
    Port::new(vm, bounds, listener, Box::new(|_| unreachable!("no vCPUs"))).unwrap()
}

/// Turns until the port has something to tell.
fn note(port: &mut Port) -> Note {
    loop {
        if let Some(note) = port.turn(PATIENCE).unwrap() {
            return note;
        }
    }
}

/// What a port says first, and what comes with it.
fn hello(stream: &UnixStream) -> ([u8; MESSAGE_BYTES], [OwnedFd; 5]) {
    let mut bytes = [0; MESSAGE_BYTES];
    let (mut control, mut came) = (nix::cmsg_space!([i32; 8]), Vec::new());
    let count = descriptors::receive(stream, &mut bytes, &mut control, (&mut came, 8)).unwrap();
    assert_eq!(count, MESSAGE_BYTES);
    (bytes, came.try_into().unwrap())
}

#[test]
fn kvm_refuses_other_processes_with_eio() {
    let Some(vm) = vm() else { return };
    let mut command = Command::new("true");
    let number = vm.as_raw_fd();
    let ask = move || {
        // KVM_CHECK_EXTENSION, which changes nothing and takes a number.
        // SAFETY: the descriptor is open in the child as in its parent; no memory is touched.
        let said = unsafe { nix::libc::ioctl(number, 0xae03, 0) };
        if said < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    ask().expect("its owner may");
    // SAFETY: between fork and exec only ioctl is called, which is async-signal-safe.
    unsafe { command.pre_exec(ask) };
    let error = command.spawn().expect_err("another process may not");
    assert_eq!(error.raw_os_error(), Some(nix::libc::EIO));
}

#[test]
fn a_remote_that_lies_is_sent_away_and_the_next_is_served() {
    let Some(vm) = vm() else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("port");
    let mut port = port(vm, &path);
    let connect = || UnixStream::connect(&path).unwrap();
    let why = |note: Note| match note {
        Note::Disconnected { why } => why,
        connected @ Note::Connected { .. } => panic!("{connected:?}"),
    };

    // Half an intent.
    let stream = connect();
    assert!(matches!(note(&mut port), Note::Connected { .. }));
    let (_, [intents, _, bell, ..]) = hello(&stream);
    let intents = Memory::from_fd(intents).unwrap();
    let mut producer = Producer::attach(intents.clone(), Bell::from_fd(bell)).unwrap();
    producer.try_push(1, &[&[0; 39]]).unwrap();
    producer.flush();
    assert!(why(note(&mut port)).contains("no intent"));

    // Speaks on the socket, where a remote has nothing to say.
    let mut stream = connect();
    assert!(matches!(note(&mut port), Note::Connected { .. }));
    io::Write::write_all(&mut stream, b"x").unwrap();
    assert!(why(note(&mut port)).contains("gone"));

    // An intent that nobody knows is refused by number, and does no harm.
    let stream = connect();
    assert!(matches!(note(&mut port), Note::Connected { .. }));
    let (_, [intents, _, bell, ..]) = hello(&stream);
    let intents = Memory::from_fd(intents).unwrap();
    let mut producer = Producer::attach(intents, Bell::from_fd(bell)).unwrap();
    for tag in [0, 77, u32::MAX] {
        producer.try_push(tag, &[&[0xff; 40]]).unwrap();
        producer.flush();
        assert_eq!(port.turn(Duration::ZERO).unwrap(), None);
    }
    drop((stream, producer));
    assert!(why(note(&mut port)).contains("gone"));

    let serving = std::thread::spawn(move || {
        assert!(matches!(note(&mut port), Note::Connected { .. }));
        note(&mut port)
    });
    let mut remote = Remote::connect(&path).unwrap();
    let add = Intent::AddMemory { slot: 1, guest_address: 0, bytes: 4096, bytes_max: 8192 };
    remote.ask(add, PATIENCE).unwrap();
    drop(remote);
    assert!(why(serving.join().unwrap()).contains("gone"));
}

/// A VMM that says hello with whatever `lie` makes of the descriptors of a true one.
fn liar(
    lie: impl FnOnce([u8; MESSAGE_BYTES], [OwnedFd; 5], &UnixStream) + Send + 'static,
) -> Option<(tempfile::TempDir, JoinHandle<()>)> {
    let directory = tempfile::tempdir().unwrap();
    let (honest, false_one) = (directory.path().join("honest"), directory.path().join("port"));
    let mut port = port(vm()?, &honest);
    let stream = UnixStream::connect(&honest).unwrap();
    note(&mut port);
    let (bytes, came) = hello(&stream);
    let listener = UnixListener::bind(false_one).unwrap();
    let lying = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        lie(bytes, came, &stream);
        // The honest port lives until then, and its statistics with it.
        drop(port);
    });
    Some((directory, lying))
}

fn send(stream: &UnixStream, bytes: &[u8], came: &[OwnedFd]) {
    let fds: Vec<_> = came.iter().map(AsFd::as_fd).collect();
    descriptors::send(stream, bytes, &fds).unwrap();
}

#[test]
fn a_vmm_that_hands_over_its_vm_is_told_why_that_is_of_no_use() {
    let lie = |bytes, came: [OwnedFd; 5], stream: &UnixStream| {
        let [intents, answers, bell, doorbell, _] = came;
        let vm = vm().unwrap();
        // SAFETY: the descriptor is `vm`'s, which lives until the end of this block.
        let vm_fd = unsafe { BorrowedFd::borrow_raw(vm.as_raw_fd()) };
        let fds = [intents.as_fd(), answers.as_fd(), bell.as_fd(), doorbell.as_fd(), vm_fd];
        descriptors::send(stream, &bytes as &[u8; MESSAGE_BYTES], &fds).unwrap();
    };
    let Some((directory, lying)) = liar(lie) else { return };
    let error = Remote::connect(&directory.path().join("port")).unwrap_err();
    assert!(matches!(error, RemoteError::Stats(_)), "{error:?}");
    let said = error.to_string();
    assert!(said.contains("kvm-vm") && said.contains("EIO"), "{said}");
    lying.join().unwrap();
}

/// What a lying VMM does with what a true one said.
type Lie = fn([u8; MESSAGE_BYTES], [OwnedFd; 5], &UnixStream);

#[test]
fn a_vmm_that_lies_is_found_out() {
    let cases: [(&str, Lie); 4] = [
        ("no port", |mut bytes, came, stream| {
            bytes[0] ^= 1;
            send(stream, &bytes, &came);
        }),
        ("without its descriptors", |bytes, came, stream| send(stream, &bytes, &came[..4])),
        ("half a message", |bytes, came, stream| send(stream, &bytes[..7], &came)),
        ("another size", |bytes, mut came, stream| {
            let small = Memory::create(1 << 12).unwrap();
            came[1] = small.as_fd().try_clone_to_owned().unwrap();
            send(stream, &bytes, &came);
        }),
    ];
    for (said, lie) in cases {
        let Some((directory, lying)) = liar(lie) else { return };
        let error = Remote::connect(&directory.path().join("port")).unwrap_err();
        assert!(error.to_string().contains(said), "{said}: {error}");
        lying.join().unwrap();
    }
}

#[test]
fn answers_that_nobody_asked_for_are_found_out() {
    /// A confirmation of vCPU 5, to intent 1.
    const ANSWER: (u32, [u64; 5]) = (4, [1, 5, 0, 0, 0]);
    for asked in [false, true] {
        let lie = |bytes: [u8; MESSAGE_BYTES], came: [OwnedFd; 5], stream: &UnixStream| {
            let answers = Memory::create(1 << 17).unwrap();
            let (bell, doorbell) = pair().unwrap();
            let mut producer = Producer::attach(answers.clone(), bell).unwrap();
            let [intents, _, their_bell, _, stats] = came;
            let (ring, bell) = (answers.as_fd(), their_bell.as_fd());
            let fds = [intents.as_fd(), ring, bell, doorbell.as_fd(), stats.as_fd()];
            descriptors::send(stream, &bytes, &fds).unwrap();
            let (tag, words) = ANSWER;
            let record: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            producer.try_push(tag, &[&record]).unwrap();
            producer.flush();
            // Until the remote has gone.
            let _ = io::Read::read(&mut &*stream, &mut [0; 1]);
        };
        let Some((directory, lying)) = liar(lie) else { return };
        let mut remote = Remote::connect(&directory.path().join("port")).unwrap();
        if asked {
            remote.submit(Intent::Park { vcpu: 4 }).unwrap();
        }
        let error = loop {
            match remote.poll() {
                Ok(None) => remote.wait(PATIENCE).unwrap(),
                other => break other.unwrap_err(),
            }
        };
        let said = if asked { "to another intent" } else { "to no intent" };
        assert!(error.to_string().contains(said), "{error}");
        drop(remote);
        lying.join().unwrap();
    }
}
