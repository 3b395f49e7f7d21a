//! Bytes no honest client sends: whatever arrives is refused or carried out, never a panic, and
//! no unit of funds or credits is made or lost.

use vendue_engine::machine::Machine;
use vendue_engine::machine::command::{self, Command, DefineBook, Genesis, is_internal};
use vendue_tests::room::Room;
use vendue_wire::code::Role;
use vendue_wire::message::{self, ANY, NewOrder, field_cut};

/// The generator of Marsaglia's "Xorshift RNGs", 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A small room: an operator in slot 0, a tenant in slot 1, four instances with orders open.
fn room() -> Room {
    let genesis = Genesis {
        accounts_max: 6.into(),
        instances_max: 6.into(),
        orders_max: 90.into(),
        orders_per_instance_max: 8.into(),
        sessions_max: 5.into(),
        credit_cap_s: 60.into(),
        burst_resume_ms: 1000.into(),
        limit_window_s: 3600.into(),
        reversible_trades: 64.into(),
        maker_fee_bps: 10.into(),
        taker_fee_bps: 20.into(),
    };
    let book = DefineBook {
        vru_size: 10.into(),
        capacity_vru: 1000.into(),
        tick_micro: 100.into(),
        price_ticks_max: 20.into(),
        quantity_max: 30.into(),
        burst_percent: 200.into(),
        auction_every_ms: 0.into(),
        call_ms: 0.into(),
        tier: 0.into(),
        resource: 0,
        reserved: 0,
        name: field_cut("bronze"),
    };
    let mut room = Room::new(&genesis, &[book]);
    room.open(1, Role::Operator, ANY, false);
    for at in 0..4_u8 {
        let account = room.account(0, &format!("account {at}"), at, (u64::MAX, u64::MAX));
        room.deposit(0, account, 1_000_000);
        room.instance(0, account, &format!("instance {at}"), [5, 0, 0, 0, 0]);
        room.grant(0, at.into(), 500_000);
    }
    room.open(2, Role::Tenant, 1, true);
    for at in 0..12_u32 {
        let mut order = NewOrder::zeroed();
        order.client_id = room.next_id();
        order.instance = (at % 4).into();
        order.price_ticks = (1 + at % 8).into();
        order.quantity = (1 + at).into();
        order.side = (at % 2) as u8;
        if at % 3 == 0 {
            order.time_in_force = 1;
            order.expires_at_ms = 100_000.into();
        }
        room.apply(0, &order);
    }
    room.tick(1000);
    room
}

/// A body of the right size whose fields hold likely and unlikely values, or any bytes at all.
fn body(random: &mut Random, kind: u8, bytes: &mut Vec<u8>) {
    bytes.clear();
    let schema = message::SCHEMA.iter().chain(command::SCHEMA).find(|row| row.0 == kind);
    let Some((_, _, size, fields)) = schema.filter(|_| random.below(16) > 0) else {
        let length = random.below(320);
        bytes.extend((0..length).map(|_| random.next() as u8));
        return;
    };
    bytes.resize(*size, 0);
    for (name, offset, size) in *fields {
        let field = &mut bytes[*offset..*offset + *size];
        if name.starts_with("reserved") && random.below(32) > 0 {
            continue;
        }
        match random.below(8) {
            0 => {}
            1 => field.fill(0xff),
            2 => field.iter_mut().for_each(|byte| *byte = random.next() as u8),
            3 => field[0] = random.next() as u8,
            _ => field[0] = random.below(8) as u8,
        }
        if *name == "client_id" {
            let id = (1 << 40) + random.below(1 << 40);
            field.copy_from_slice(&id.to_le_bytes());
        }
        // A handle's slot and generation.
        if *name == "handle" && random.below(2) == 0 {
            field[4] = 1 + 2 * random.below(3) as u8;
        }
    }
}

#[test]
fn no_bytes_make_the_machine_panic_or_lose_a_unit() {
    let mut random = Random(0x5eed_0001);
    let (mut parsed, mut bytes) = (0_u64, Vec::new());
    for _ in 0..200 {
        let mut room = room();
        for _ in 0..10_000 {
            let kind = match random.below(4) {
                0 => random.next() as u8,
                1 => 0x10 + random.below(4) as u8,
                2 => 0x20 + random.below(6) as u8,
                _ => 0x30 + random.below(0x20) as u8,
            };
            body(&mut random, kind, &mut bytes);
            let Ok(command) = Command::parse(kind, &bytes) else { continue };
            parsed += 1;
            room.time_ns += random.below(1 << 24);
            let foreign = random.below(64) == 0;
            let session = if is_internal(kind) != foreign { ANY } else { random.below(8) as u32 };
            let env = room.envelope(session);
            room.out.clear();
            // The daemon's own records may be called broken; a session's request never.
            let done = room.machine.apply(&env, &command, &mut room.out);
            assert!(done.is_ok() || session == ANY, "kind {kind:#x}: {done:?}");
            room.machine.check_conservation();
        }
        let bytes = room.machine.encode();
        let again = Machine::decode(&bytes).map(|machine| machine.encode());
        assert!(again.as_ref() == Ok(&bytes), "the state cannot be read back");
    }
    assert!(parsed > 500_000, "only {parsed} bodies parsed");
}

#[test]
fn damaged_state_bytes_are_an_error_or_a_machine() {
    let mut random = Random(0x5eed_0002);
    let whole = room().machine.encode();
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(6) {
            // The tables first: the expiry wheel's buckets are most of the bytes.
            let span = if random.below(4) == 0 { bytes.len() } else { 4096 };
            let at = random.below(span as u64) as usize;
            bytes[at] = if random.below(2) == 0 { random.next() as u8 } else { 0xff };
        }
        refused += u32::from(Machine::decode(&bytes).is_err());
    }
    assert!(refused > 1000, "only {refused} damaged states were refused");
}

#[test]
fn state_bytes_cut_short_or_drawn_out_are_refused() {
    let whole = room().machine.encode();
    for length in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
        assert!(Machine::decode(&whole[..length]).is_err(), "{length} bytes were enough");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(Machine::decode(&longer).is_err(), "a byte too many was accepted");
    assert!(Machine::decode(&whole).is_ok());
}
