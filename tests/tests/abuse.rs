//! What no peer should do. The daemon answers each with a refusal or a farewell that says why, and
//! serves everybody else as if nothing had happened.

use nix::cmsg_space;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};
use nix::unistd::close;
use std::fs::{File, OpenOptions};
use std::io::{IoSliceMut, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use vendue_tests::chance::Chance;
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::*;
use vendue_tests::raw::{Raw, logon};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{Goodbye, Reject, Role, Side};
use vendue_wire::frame::{FRAME_BYTES_MAX, encode_raw};
use vendue_wire::message::*;

fn opened() -> (Daemon, Market) {
    let daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    (daemon, market)
}

fn frame(kind: u8, sequence: u64, body: &[u8]) -> Vec<u8> {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = encode_raw(kind, sequence, body, &mut bytes);
    bytes[..length].to_vec()
}

/// Bytes that are no frame end the connection with a reason, before a logon and after it.
#[test]
fn lost_framing_ends_the_connection() {
    let (daemon, market) = opened();
    let socket = daemon.path("socket");
    let good = frame(Heartbeat::KIND, 1, &[]);
    let changed = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        bytes
    };
    let wrong = [
        (changed(0, 15), Goodbye::BadFrame),
        (changed(0, 0), Goodbye::BadFrame),
        (changed(1, 3), Goodbye::BadFrame),
        (changed(4, 1), Goodbye::BadFrame),
        (changed(2, 0), Goodbye::BadVersion),
        (changed(2, 2), Goodbye::BadVersion),
        (vec![0xff; FRAME_BYTES_MAX], Goodbye::BadVersion),
        (vec![0; 16], Goodbye::BadVersion),
    ];
    for (bytes, reason) in &wrong {
        let mut fresh = Raw::connect(&socket);
        let mut known = Raw::logged_on(&socket, &Identity::tenant(market.buyer.account));
        for raw in [&mut fresh, &mut known] {
            assert!(raw.send_bytes(bytes));
            assert_eq!(raw.farewell(), *reason, "{bytes:?}");
        }
    }
    check_alive(&daemon, &market, &daemon.unix());
}

/// Every kind there is and is not, with every length that its body does not have: a typed refusal
/// each, and the connection goes on.
#[test]
fn wrong_kinds_and_lengths_are_refused_one_by_one() {
    let (daemon, market) = opened();
    let mut raw = Raw::logged_on(&daemon.path("socket"), &Identity::operator());
    let requests = 0x01..0x80;
    let length = |kind: u8| SCHEMA.iter().find(|row| row.0 == kind).map(|row| row.2);
    let mut sequence = 0;
    for kind in 0..=u8::MAX {
        for bytes in [0, 1, 7, 8, 47, 48, 49, 255, 496] {
            let known = length(kind).filter(|_| requests.contains(&kind));
            if known == Some(bytes) || [Heartbeat::KIND, Logout::KIND].contains(&kind) {
                continue;
            }
            sequence += 1;
            raw.send_raw(kind, sequence, &vec![0; bytes]);
            let answer = raw.next_said().expect("an answer");
            let code = answer.refusal();
            let expected = match kind {
                Logon::KIND => Reject::AlreadyLoggedOn,
                _ if known.is_none() => Reject::UnknownKind,
                _ => Reject::BadLength,
            };
            assert_eq!(code, Some(expected), "kind {kind:#04x} with {bytes} bytes: {answer:?}");
            let refused = answer.message::<Refused>().expect("a refusal");
            assert_eq!((refused.request.get(), refused.kind), (sequence, kind));
        }
    }
    check_alive(&daemon, &market, &daemon.unix());
}

/// Every request with every bit of its body set, and with random ones: never a panic, and the
/// ledger balances.
#[test]
fn bodies_of_nonsense_change_nothing_that_counts() {
    let (daemon, mut market) = opened();
    let mut chance = Chance::new(1);
    let mut raw = Raw::logged_on(&daemon.path("socket"), &Identity::operator());
    let mut sequence = 0;
    let requests =
        SCHEMA.iter().filter(|row| (0x04..0x40).contains(&row.0) || (0x50..0x80).contains(&row.0));
    for &(kind, name, length, _) in requests {
        for at in 0..40 {
            let mut body = match at {
                0 => vec![0xff; length],
                _ => chance.bytes(length),
            };
            // Small numbers get further.
            if at % 2 == 1 {
                body.iter_mut()
                    .for_each(|byte| *byte &= chance.draw() as u8 & chance.draw() as u8 & 1);
            }
            // A ring would move the session away from this socket.
            if kind == Attach::KIND {
                body[0] |= 2;
            }
            // The market's two instances are to be there afterwards.
            if kind == RemoveInstance::KIND {
                body[8] |= 2;
            }
            if kind == Depart::KIND {
                body[24] |= 2;
            }
            sequence += 1;
            raw.send_raw(kind, sequence, &body);
            sequence += 1;
            raw.send(sequence, &QueryStatus {});
            loop {
                let came = raw.next_said().unwrap_or_else(|| panic!("{name} ended the connection"));
                let end = came.message::<QueryEnd>();
                if end.is_some_and(|end| end.request.get() == sequence) {
                    break;
                }
            }
        }
    }
    check_ledger(&mut daemon.client(&Identity::observer()));
    // Some of it made sense, and set limits.
    for account in [market.seller.account, market.buyer.account] {
        unlimit(&mut market.operator, account);
    }
    check_alive(&daemon, &market, &daemon.unix());
}

/// Garbage from many connections, some of which have logged on and begin with a good frame.
#[test]
fn garbage_is_survived() {
    // Room for those that have gone and are not yet missed.
    let daemon = Daemon::start(&Setup::small().key("connections_max", "4096"));
    let market = Market::open(&daemon);
    let socket = daemon.path("socket");
    let mut chance = Chance::new(2);
    for at in 0..2000 {
        let count = 1 + chance.below(600) as usize;
        let mut garbage = chance.bytes(count);
        let mut raw = Raw::connect(&socket);
        match at % 4 {
            0 => {}
            // Looks like a frame of this version.
            1 if count > 8 => {
                let kind = garbage[3];
                garbage[1..8].copy_from_slice(&[0, 1, kind, 0, 0, 0, 0]);
            }
            2 => {
                raw.send(0, &logon(&Identity::observer()));
            }
            _ => {
                raw.send(0, &logon(&Identity::tenant(market.buyer.account)));
                raw.next_said();
            }
        }
        let _ = raw.stream.write_all(&garbage);
        // Half of them wait for what comes of it, the others go at once.
        if at % 8 < 2 {
            let _ = raw.stream.shutdown(std::net::Shutdown::Write);
            while raw.frame().is_some() {}
        }
    }
    eventually("the last connection's end", || {
        (daemon.status().0.connections.get() == 2).then_some(())
    });
    check_alive(&daemon, &market, &daemon.unix());
}

#[test]
fn sequences_and_logons_out_of_turn() {
    let (daemon, market) = opened();
    let socket = daemon.path("socket");
    let identity = Identity::tenant(market.buyer.account);
    for sequence in [0, 2, u64::MAX] {
        let mut raw = Raw::logged_on(&socket, &identity);
        raw.send(sequence, &QueryStatus {});
        assert_eq!(raw.farewell(), Goodbye::SequenceGap);
    }
    let mut raw = Raw::connect(&socket);
    raw.send(1, &QueryStatus {});
    assert_eq!(raw.frame().and_then(|came| came.refusal()), Some(Reject::NotLoggedOn));
    raw.send(0, &logon(&identity));
    assert!(raw.frame().is_some_and(|came| came.message::<LogonAck>().is_some()));
    raw.send(1, &logon(&identity));
    assert_eq!(raw.frame().and_then(|came| came.refusal()), Some(Reject::AlreadyLoggedOn));
    raw.send(2, &QueryStatus {});
    assert!(raw.frame().is_some_and(|came| came.message::<StatusRow>().is_some()));
    raw.send(3, &Logout {});
    assert_eq!(raw.farewell(), Goodbye::LoggedOut);
    check_alive(&daemon, &market, &daemon.unix());
}

/// Who says nothing of who he is must go, also if he goes on talking.
#[test]
fn without_a_logon_time_runs_out() {
    let daemon = Daemon::start(&Setup::small().key("logon_timeout_ms", "100"));
    let market = Market::open(&daemon);
    let mut silent = Raw::connect(&daemon.path("socket"));
    let mut half_a_frame = Raw::connect(&daemon.path("socket"));
    half_a_frame.send_bytes(&frame(Logon::KIND, 0, &[0; 8])[..20]);
    assert_eq!(silent.farewell(), Goodbye::LogonTimeout);
    assert_eq!(half_a_frame.farewell(), Goodbye::LogonTimeout);
    let mut talking = Raw::connect(&daemon.path("socket"));
    eventually("the talker's end", || (!talking.send(1, &QueryStatus {})).then_some(()));
    check_alive(&daemon, &market, &daemon.unix());
}

#[test]
fn credentials_are_checked() {
    let (daemon, market) = opened();
    let socket = daemon.path("socket");
    let refused = |logon: Logon, code| {
        let mut raw = Raw::connect(&socket);
        raw.send(0, &logon);
        assert_eq!(raw.frame().and_then(|came| came.refusal()), Some(code), "{logon:?}");
        assert_eq!(raw.farewell(), Goodbye::BadCredentials);
    };
    let tenant = logon(&Identity::tenant(market.buyer.account));
    refused(Logon { account: ANY.into(), ..tenant }, Reject::BadCredentials);
    refused(Logon { account: 60.into(), ..tenant }, Reject::UnknownAccount);
    refused(Logon { role: 9, ..tenant }, Reject::BadField);
    refused(Logon { reserved: [1, 0], ..tenant }, Reject::BadField);
    refused(Logon { cancel_on_disconnect: 2, ..tenant }, Reject::BadField);
    let agent = Logon { role: Role::Agent as u8, ..tenant };
    refused(Logon { instance: 60.into(), ..agent }, Reject::UnknownInstance);
    refused(Logon { instance: market.seller.instance.into(), ..agent }, Reject::UnknownInstance);
    check_alive(&daemon, &market, &daemon.unix());

    // A user without a grant, and one that may only read.
    for (key, value) in [("uid", "4242"), ("role", "\"observer\"")] {
        let daemon = Daemon::prepare(&Setup::small().key(key, value));
        let mut child = daemon.launch_unready();
        let mut raw = eventually("a socket that listens", || {
            UnixStream::connect(daemon.path("socket")).ok().map(Raw::over)
        });
        raw.send(0, &logon(&Identity::operator()));
        assert_eq!(raw.frame().and_then(|came| came.refusal()), Some(Reject::BadCredentials));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

/// A session's number belongs to whom it was opened for: who acts as another may use the same one
/// and finds nothing of it, and does not take it over.
#[test]
fn nobody_squats_on_a_session() {
    let (daemon, market) = opened();
    let (seller, buyer) = (market.seller, market.buyer);
    let as_role = |role, account: u32, instance: u32| Identity {
        role,
        instance,
        session: 77,
        ..Identity::tenant(account)
    };
    let mut owner = daemon.client(&as_role(Role::Tenant, seller.account, ANY));
    enter(&mut owner, seller, Side::Sell, 99, 5);
    let strangers = [
        as_role(Role::Tenant, buyer.account, ANY),
        as_role(Role::Agent, seller.account, seller.instance),
        as_role(Role::Agent, buyer.account, buyer.instance),
        as_role(Role::Observer, seller.account, ANY),
        as_role(Role::Observer, ANY, ANY),
        as_role(Role::Operator, ANY, ANY),
    ];
    for identity in strangers {
        let stranger = daemon.client(&Identity { replay_from: 1, ..identity });
        let fresh = (stranger.ack.last_request.get(), stranger.ack.last_client_id.get());
        assert_eq!((fresh, stranger.ack.next_sequence.get()), ((0, 0), 1));
        enter(&mut owner, seller, Side::Sell, 99, 5);
    }
    drop(owner);
    let owner = daemon.client(&as_role(Role::Tenant, seller.account, ANY));
    assert_eq!((owner.ack.last_client_id.get(), owner.ack.next_sequence.get()), (7, 8));
    check_alive(&daemon, &market, &daemon.unix());
}

#[track_caller]
fn rejected<T: std::fmt::Debug>(result: Result<T, ClientError>, code: Reject) {
    let (Err(ClientError::Rejected { code: got, .. })
    | Err(ClientError::Refused { code: got, .. })) = result
    else {
        panic!("{result:?} instead of {code:?}");
    };
    assert_eq!(Reject::from_u8(got), Some(code));
}

/// Observers do not trade, tenants and agents act for their own only, and none of them operates.
#[test]
fn nobody_acts_for_others() {
    let (daemon, mut market) = opened();
    let (seller, buyer) = (market.seller, market.buyer);
    let resting = enter(&mut market.operator, seller, Side::Sell, 10, 100);
    let as_role = |role, account: u32, instance: u32| Identity {
        role,
        instance,
        ..Identity::tenant(account)
    };
    let strangers = [
        as_role(Role::Observer, ANY, ANY),
        as_role(Role::Observer, seller.account, ANY),
        as_role(Role::Tenant, buyer.account, ANY),
        as_role(Role::Agent, buyer.account, buyer.instance),
        as_role(Role::Agent, ANY, buyer.instance),
    ];
    for identity in strangers {
        let mut client = daemon.client(&identity);
        let order = limit(&mut client, seller, Side::Sell, 9, 1);
        let not_own = match identity.role {
            Role::Observer => Reject::NotPermitted,
            _ => Reject::UnknownInstance,
        };
        rejected(client.call_for::<Accepted, _>(&order), not_own);
        let cancel = Cancel { handle: resting.handle };
        rejected(client.call_for::<Cancelled, _>(&cancel), Reject::UnknownOrder);
        let replace = Replace {
            client_id: client.next_client_id().into(),
            handle: resting.handle,
            price_ticks: 1.into(),
            quantity: 1.into(),
        };
        rejected(client.call_for::<Replaced, _>(&replace), Reject::UnknownOrder);
        let mass = |instance: u32| MassCancel {
            instance: instance.into(),
            book: ANY_BOOK.into(),
            side: 2,
            reserved: 0,
        };
        rejected(client.call(&mass(seller.instance)), not_own);
        if let Ok(done) = client.call(&mass(ANY)) {
            assert_eq!(done.value.get(), 0, "{identity:?} cancelled what is not its own");
        }
        let (client_id, account) = (client.next_client_id().into(), buyer.account.into());
        let deposit = Deposit { client_id, amount_micro: 1.into(), account, reserved: 0.into() };
        rejected(client.call(&deposit), Reject::NotPermitted);
        let remove =
            RemoveInstance { client_id, instance: buyer.instance.into(), reserved: 0.into() };
        rejected(client.call(&remove), Reject::NotPermitted);
    }
    let mut anonymous = daemon.client(&Identity { role: Role::Operator, ..Identity::observer() });
    let order = limit(&mut anonymous, seller, Side::Sell, 9, 1);
    rejected(anonymous.call_for::<Accepted, _>(&order), Reject::NotPermitted);
    let row = instance_row(&mut anonymous, seller.instance);
    assert_eq!(row.orders.get(), 1);
    drop(anonymous);
    market.operator.call_for::<Cancelled, _>(&Cancel { handle: resting.handle }).unwrap();
    check_alive(&daemon, &market, &daemon.unix());
}

/// A session that speaks over shared memory, and the files that it shares with the daemon:
/// requests, reports, the daemon's bell, its own doorbell.
fn shared(daemon: &Daemon, identity: &Identity) -> (Raw, Vec<File>) {
    let mut raw = Raw::logged_on(&daemon.path("socket"), identity);
    raw.send(1, &Attach { what: 0, reserved: [0; 3], ring_bytes: 4096.into() });
    let mut bytes = [0; FRAME_BYTES_MAX];
    let mut control = cmsg_space!([i32; 4]);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let fd = raw.stream.as_raw_fd();
    let message = recvmsg::<UnixAddr>(fd, &mut parts, Some(&mut control), MsgFlags::empty());
    let message = message.expect("the answer to an attach");
    let mut files = Vec::new();
    for part in message.cmsgs().expect("descriptors") {
        let ControlMessageOwned::ScmRights(numbers) = part else { continue };
        for (at, number) in numbers.into_iter().enumerate() {
            let path = format!("/proc/self/fd/{number}");
            let mut options = OpenOptions::new();
            options.read(at != 2).write(at != 3);
            files.push(options.open(path).expect("open it again"));
            close(number).expect("close it");
        }
    }
    assert_eq!(files.len(), 4);
    (raw, files)
}

/// A peer may stuff the pipe that its bell is, or make its end of it block: nobody else, and no
/// thread of the daemon, writes to that pipe.
#[test]
fn a_bell_is_one_peers_alone() {
    let (daemon, market) = opened();
    let (_raw, files) = shared(&daemon, &Identity::tenant(market.buyer.account));
    let (_other, others) = shared(&daemon, &Identity::tenant(market.seller.account));
    daemon.signal(Signal::SIGSTOP);
    let (mut bell, mut others_bell) = (&files[2], &others[2]);
    for bell in [bell, others_bell] {
        fcntl(bell, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    }
    while bell.write(&[1; 4096]).is_ok() {}
    let rung = others_bell.write(&[1]);
    daemon.signal(Signal::SIGCONT);
    assert_eq!(rung.ok(), Some(1), "a peer keeps another from ringing");
    check_alive(&daemon, &market, &daemon.shm());
}

/// Who takes rings, goes, and keeps the memory does so at its own expense.
#[test]
fn memory_that_a_peer_keeps_is_given_back() {
    let (daemon, market) = opened();
    let identity = Identity::tenant(market.buyer.account);
    let kept: Vec<File> = (1..20)
        .flat_map(|session| shared(&daemon, &Identity { session, ..identity.clone() }).1)
        .collect();
    let in_use = || kept.iter().map(|file| file.metadata().unwrap().blocks()).sum::<u64>();
    assert!(in_use() > 0);
    eventually("the end of the memory", || (in_use() == 0).then_some(()));
    check_alive(&daemon, &market, &daemon.shm());
}

/// Scribbles over the memory that is shared with the daemon, cursors and all.
#[test]
fn a_scribbling_peer_hurts_only_itself() {
    let (daemon, market) = opened();
    let mut chance = Chance::new(3);
    let identity = Identity::tenant(market.buyer.account);
    for round in 0..60 {
        let (mut raw, files) =
            shared(&daemon, &Identity { session: round + 1, ..identity.clone() });
        for ring in &files[..2] {
            let length = ring.metadata().unwrap().len();
            assert!(ring.set_len(0).is_err(), "the memory can be taken away under the daemon");
            match round % 3 {
                0 => drop(ring.write_all_at(&vec![0xff; length as usize], 0)),
                1 => drop(ring.write_all_at(&chance.bytes(length as usize), 0)),
                // The cursors only, small steps of them.
                _ => (0..512).step_by(8).for_each(|at| {
                    let value = chance.below(3 * length);
                    ring.write_all_at(&value.to_le_bytes(), at).unwrap();
                }),
            }
        }
        // Broken once the daemon has seen enough.
        let _ = (&files[2]).write_all(&[1; 8]);
        if round % 2 == 0 {
            // A word on the socket is one too many once the session is in the rings.
            raw.send(2, &QueryStatus {});
            while raw.frame().is_some() {}
        }
    }
    check_alive(&daemon, &market, &daemon.unix());
    check_alive(&daemon, &market, &daemon.shm());
}

/// A bell that is rung for nothing keeps nobody from trading over shared memory.
#[test]
fn a_ringing_peer_disturbs_nobody() {
    let (daemon, market) = opened();
    let mut client =
        Client::connect(&daemon.shm(), &Identity::tenant(market.buyer.account)).unwrap();
    let wrong = limit(&mut client, market.buyer, Side::Buy, 1, 1);
    enter(&mut client, market.buyer, Side::Buy, 1, 1);
    rejected(client.call_for::<Accepted, _>(&wrong), Reject::DuplicateClientId);
    let (_raw, files) = shared(&daemon, &Identity::tenant(market.seller.account));
    let mut bell = &files[2];
    for _ in 0..100 {
        bell.write_all(&[1; 4096]).unwrap();
    }
    client
        .call_for::<Done, _>(&MassCancel {
            instance: ANY.into(),
            book: ANY_BOOK.into(),
            side: 2,
            reserved: 0,
        })
        .unwrap();
    check_alive(&daemon, &market, &daemon.shm());
}

/// As many connections as there may be: one more is told so, and after one went there is room.
#[test]
fn one_connection_too_many() {
    let daemon = Daemon::start(&Setup::small().key("connections_max", "8"));
    let market = Market::open(&daemon);
    let socket = daemon.path("socket");
    let mut all: Vec<Raw> =
        (0..7).map(|_| Raw::logged_on(&socket, &Identity::observer())).collect();
    assert_eq!(Raw::connect(&socket).farewell(), Goodbye::TooManyConnections);
    all.truncate(1);
    eventually("room", || {
        Client::connect(&daemon.unix(), &Identity::observer()).is_ok().then_some(())
    });
    check_alive(&daemon, &market, &daemon.unix());
}

/// Sessions that come and go: the table is full of them, and the longest gone make room.
#[test]
fn a_full_session_table_makes_room() {
    let (daemon, market) = opened();
    for session in 1..=200 {
        let identity = Identity { session, ..Identity::tenant(market.buyer.account) };
        Raw::logged_on(&daemon.path("socket"), &identity);
    }
    check_alive(&daemon, &market, &daemon.unix());
}

/// Questions without end from one who reads nothing: a few are answered, the others refused before
/// they cost anything, and it hears so when it reads at last.
#[test]
fn questions_without_end_are_refused() {
    const QUESTIONS: u64 = 2000;
    let (daemon, market) = opened();
    let mut raw = Raw::logged_on(&daemon.path("socket"), &Identity::observer());
    let query = QueryInstances { from: 0.into() };
    let all = (1..=QUESTIONS)
        .map(|at| frame(QueryInstances::KIND, at, zerocopy::IntoBytes::as_bytes(&query)));
    raw.send_bytes(&all.collect::<Vec<_>>().concat());
    let (mut answered, mut busy) = (0, 0);
    while answered + busy < QUESTIONS {
        let came = raw.next_said().expect("an answer to each");
        answered += u64::from(came.message::<QueryEnd>().is_some());
        busy += u64::from(came.refusal() == Some(Reject::Busy));
    }
    assert!(answered > 0 && busy > QUESTIONS / 2, "{answered} answered, {busy} refused");
    raw.send(QUESTIONS + 1, &QueryInstances { from: 0.into() });
    let came = raw.next_said().expect("an answer");
    assert_eq!(came.refusal(), None, "who waits for an answer gets it");
    check_alive(&daemon, &market, &daemon.unix());
}
