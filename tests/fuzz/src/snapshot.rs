//! Snapshots: damaged files, of which a whole older one must be found; and contents that bear a
//! right checksum and make no sense, which must be refused with a reason.

use arbitrary::{Result, Unstructured};
use std::sync::OnceLock;
use vendue_engine::desk::Desk;
use vendue_engine::machine::Machine;
use vendue_engine::pipeline::record::Outcome;
use vendue_engine::storage::Host;
use vendue_engine::storage::snapshot::{newest_valid, path, write};
use vendue_engine::trail::{Dirs, State};
use vendue_tests::duel::NARROW;
use vendue_tests::room::Room;
use vendue_wire::code::{Role, Side};
use vendue_wire::message::{ANY, Cancel};

/// Sequences of the two snapshots.
const OLDER: u64 = 5;
/// Reports kept a session.
const REPLAY_BYTES: usize = 1 << 12;
/// Changes of one run at most.
const CHANGES_MAX: usize = 6;

/// Damages files or contents as `bytes` spell.
///
/// # Panics
/// When a damaged snapshot is taken for whole, or reading one panics.
pub fn run(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let _ = match bytes.int_in_range(0..=2_u8) {
        Ok(0) => files(&mut bytes),
        Ok(1) => states(&mut bytes),
        _ => contents(&mut bytes),
    };
}

/// Two snapshots, of which the newer or both are damaged.
fn files(bytes: &mut Unstructured<'_>) -> Result<()> {
    let dir = tempfile::tempdir().expect("make a directory");
    let payloads = [b"the older one".to_vec(), bytes.bytes(bytes.len().min(64))?.to_vec()];
    for (sequence, payload) in (OLDER..).zip(&payloads) {
        write(&Host, dir.path(), sequence, 7, 9, payload).expect("write a snapshot");
    }
    let mut damaged = false;
    for sequence in [OLDER, OLDER + 1] {
        let path = path(dir.path(), sequence);
        let before = std::fs::read(&path).expect("read a snapshot");
        let mut after = before.clone();
        change(bytes, &mut after)?;
        damaged |= after != before;
        std::fs::write(&path, after).expect("write a snapshot");
    }
    let newest = newest_valid(&Host, dir.path()).expect("the directory can be read");
    match newest.snapshot {
        Some((meta, payload)) => {
            let at = meta.point.sequence.checked_sub(OLDER).expect("one of the two") as usize;
            assert_eq!(payload, payloads[at], "another payload than was written");
            assert_eq!(newest.damaged.len(), 1 - at);
        }
        None => assert!(damaged && newest.damaged.len() == 2),
    }
    Ok(())
}

/// A machine's bytes, changed: they are refused, or are those of a machine that writes them again.
fn states(bytes: &mut Unstructured<'_>) -> Result<()> {
    let mut state = base().0.clone();
    change(bytes, &mut state)?;
    if let Ok(machine) = Machine::decode(&state) {
        let _ = machine.encode();
    }
    Ok(())
}

/// A whole snapshot whose desk was changed.
fn contents(bytes: &mut Unstructured<'_>) -> Result<()> {
    let (state, desk, sequence) = base();
    let mut desk = desk.clone();
    change(bytes, &mut desk)?;
    let mut payload = (state.len() as u64).to_le_bytes().to_vec();
    payload.extend_from_slice(state);
    payload.extend_from_slice(&desk);
    if bytes.ratio(1, 8)? {
        change(bytes, &mut payload[..8].to_vec())?;
        payload[..8].copy_from_slice(&bytes.arbitrary::<u64>()?.to_le_bytes());
    }
    let dir = tempfile::tempdir().expect("make a directory");
    let dirs = Dirs::below(Host, dir.path());
    write(&Host, &dirs.snapshots, *sequence, 1, 1, &payload).expect("write a snapshot");
    match State::newest(&dirs, *bytes.choose(&[REPLAY_BYTES, 64])?) {
        Ok((state, damaged)) => {
            assert!(damaged.is_empty() && state.machine.is_some());
            state.save(&Dirs::below(Host, &dir.path().join("again"))).expect("write it again");
        }
        Err(error) => assert!(error.to_string().contains("cannot be used"), "{error}"),
    }
    Ok(())
}

/// Changes some bytes: a few bits, whole words, or the length.
fn change(bytes: &mut Unstructured<'_>, of: &mut Vec<u8>) -> Result<()> {
    for _ in 0..CHANGES_MAX {
        if of.is_empty() || bytes.ratio(1, 3)? {
            return Ok(());
        }
        let at = bytes.choose_index(of.len())?;
        match bytes.int_in_range(0..=4_u8)? {
            0 => of.truncate(at),
            1 => of[at] ^= 1 << bytes.int_in_range(0..=7)?,
            2 => {
                let word = at / 8 * 8;
                let value: u64 = match bytes.int_in_range(0..=2_u8)? {
                    0 => bytes.int_in_range(0..=64)?,
                    1 => u64::MAX,
                    _ => bytes.arbitrary()?,
                };
                if let Some(place) = of.get_mut(word..word + 8) {
                    place.copy_from_slice(&value.to_le_bytes());
                }
            }
            3 => of.extend_from_slice(bytes.bytes(bytes.len().min(8))?),
            _ => of[at] = bytes.arbitrary()?,
        }
    }
    Ok(())
}

/// State and desk of a market that has seen a little, as bytes, and its sequence.
fn base() -> &'static (Vec<u8>, Vec<u8>, u64) {
    static BASE: OnceLock<(Vec<u8>, Vec<u8>, u64)> = OnceLock::new();
    BASE.get_or_init(|| {
        let (room, desk) = traded();
        (room.machine.encode(), desk.encode(), room.machine.sequence())
    })
}

/// A market with two accounts, an order of each kind, and a trade; and the desk beside it.
fn traded() -> (Room, Desk) {
    let mut room = Room::new(&NARROW.genesis(), &NARROW.definitions());
    let mut desk = Desk::new(NARROW.sessions_max, REPLAY_BYTES);
    NARROW.definitions().iter().for_each(|book| desk.market.add_book(book));
    let operator = room.open(1, Role::Operator, ANY, false);
    let tenant = room.open(2, Role::Tenant, ANY, true);
    for (group, name) in [(1, "acme"), (2, "bell")] {
        let account = room.account(operator, name, group, (u64::MAX, u64::MAX));
        room.deposit(operator, account, 1_000_000);
        room.instance(operator, account, name, [2, 2, 0, 0, 0]);
        room.grant(operator, account, 50_000);
    }
    for (instance, side, price, quantity) in
        [(0, Side::Sell, 5, 4), (1, Side::Buy, 5, 2), (1, Side::Buy, 3, 2), (0, Side::Sell, 7, 1)]
    {
        let mut order = room.order(instance, side, price, quantity);
        if quantity == 1 {
            order.time_in_force = 1;
            order.expires_at_ms = 900_000_u64.into();
        }
        room.apply(operator, &order);
        hear(&room, &mut desk);
    }
    room.apply(tenant, &Cancel { handle: 1.into() });
    hear(&room, &mut desk);
    room.tick(100);
    hear(&room, &mut desk);
    (room, desk)
}

/// Tells the desk what the market said last.
fn hear(room: &Room, desk: &mut Desk) {
    let outcome =
        Outcome { sequence: room.machine.sequence().into(), time_ns: room.time_ns.into() };
    for event in room.out.events() {
        desk.absorb(&outcome, &event, &mut |_| {});
    }
}

#[test]
fn the_base_is_a_whole_snapshot() {
    let (state, desk, sequence) = base();
    let mut payload = (state.len() as u64).to_le_bytes().to_vec();
    payload.extend_from_slice(state);
    payload.extend_from_slice(desk);
    let dir = tempfile::tempdir().expect("make a directory");
    let dirs = Dirs::below(Host, dir.path());
    write(&Host, &dirs.snapshots, *sequence, 1, 1, &payload).expect("write a snapshot");
    let (state, damaged) = State::newest(&dirs, REPLAY_BYTES).expect("a whole snapshot");
    assert!(damaged.is_empty());
    assert!(state.machine.is_some_and(|machine| machine.trades() > 0));
}
