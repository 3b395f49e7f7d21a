//! `PROTOCOL.md` says what the code does: every message, field, code, constant, shared word and
//! example in it is compared with the real one.
#![cfg(not(loom))]

use std::fmt::Debug;
use std::fs::File;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt;
use vendue_wire::board::{BoardWriter, BookView, Level};
use vendue_wire::code::{
    CancelReason, Cover, ExperimentEnd, Goodbye, Horizon, Kpi, Lag, LeaseClass, LeaseOutcome,
    OrderType, Phase, PolicyAct, PolicyReason, Reject, Rescue, Resource, Role, Side, Source,
    SwapAnswer, SwapReason, SwapState, TaskEnd, TimeInForce, TokenOutcome,
};
use vendue_wire::frame::{FRAME_BYTES_MAX, encode};
use vendue_wire::message::{ANY, Header, Logon, NewOrder, SCHEMA};
use vendue_wire::ring::{Consumer, Memory, Producer};
use vendue_wire::{board, doorbell, frame, memory, message, ring};

const DOC: &str = include_str!("../PROTOCOL.md");

/// The lines of the section under `heading`, up to the next heading of its level or above.
fn section<'a>(doc: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    let depth = |line: &str| line.bytes().take_while(|&byte| byte == b'#').count();
    let level = depth(heading);
    let mut lines = doc.lines().skip_while(move |line| !line.starts_with(heading)).peekable();
    assert!(lines.peek().is_some(), "PROTOCOL.md has no section {heading:?}");
    lines.skip(1).take_while(move |line| !(1..=level).contains(&depth(line)))
}

/// The cells of a table's row, or `None` if the line is none.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.strip_prefix("| ")?.strip_suffix(" |")?;
    Some(inner.split(" | ").map(|cell| cell.trim_matches('`')).collect())
}

/// The rows of the table whose head's second cell is `second`.
fn table<'a>(lines: impl Iterator<Item = &'a str>, second: &str) -> Vec<Vec<&'a str>> {
    let head = |line: &&str| cells(line).is_none_or(|row| row.get(1) != Some(&second));
    lines.skip_while(head).skip(2).map_while(cells).collect()
}

/// Bytes of a type as the tables write it: `u32`, or `u32 × 5`.
fn type_bytes(ty: &str) -> Option<usize> {
    let (unit, count) = ty.split_once(" × ").unwrap_or((ty, "1"));
    let unit = ["u8", "u16", "u32", "u64"].iter().position(|name| *name == unit)?;
    Some(count.parse::<usize>().ok()? << unit)
}

/// `offset size name` of each row, the size being that of the type too.
fn fields<'a>(lines: impl Iterator<Item = &'a str>, message: &str) -> Vec<String> {
    let rows = table(lines, "size").into_iter();
    rows.map(|row| {
        let [offset, size, name, ty, _] = row[..] else { panic!("{message}: row {row:?}") };
        let of_type = type_bytes(ty).map(|bytes| bytes.to_string());
        assert_eq!(of_type.as_deref(), Some(size), "{message}.{name} is of type {ty}");
        format!("{message}: {offset} {size} {name}")
    })
    .collect()
}

/// Fails with the lines that only one side has.
fn assert_same(doc: &[String], code: &[String]) {
    let only = |ours: &[String], theirs: &[String]| -> Vec<String> {
        ours.iter().filter(|line| !theirs.contains(line)).cloned().collect()
    };
    let (in_doc, in_code) = (only(doc, code), only(code, doc));
    assert!(
        in_doc.is_empty() && in_code.is_empty(),
        "only PROTOCOL.md has:\n  {}\nonly the code has:\n  {}",
        in_doc.join("\n  "),
        in_code.join("\n  ")
    );
    assert_eq!(doc, code, "the same lines in another order");
}

#[test]
fn every_message_and_field_is_documented_as_it_is() {
    let mut in_doc = Vec::new();
    for line in section(DOC, "## 9. ").filter(|line| line.starts_with("#### ")) {
        let (kind, rest) = line["#### `".len()..].split_once("` ").expect(line);
        let (name, bytes) = rest.split_once(", ").expect(line);
        in_doc.push(format!("{kind} {name} {bytes}"));
        in_doc.extend(fields(section(DOC, line), name));
    }
    let mut in_code = Vec::new();
    for (kind, name, bytes, fields) in SCHEMA {
        in_code.push(format!("{kind:#04x} {name} {bytes} bytes"));
        let row = |(field, offset, size): &_| format!("{name}: {offset} {size} {field}");
        in_code.extend(fields.iter().map(row));
    }
    assert_same(&in_doc, &in_code);
}

#[test]
fn the_header_is_documented_as_it_is() {
    macro_rules! in_code {
        ($($field:ident: $size:literal),+) => {
            [$(format!("Header: {} {} {}", offset_of!(Header, $field), $size, stringify!($field))),+]
        };
    }
    let in_code = in_code!(length: 2, version: 1, kind: 1, reserved: 4, sequence: 8);
    assert_same(&fields(section(DOC, "## 3. "), "Header"), &in_code);
}

/// `number name text` of each row of a code's table.
fn code_rows(name: &str) -> Vec<String> {
    let rows = table(section(DOC, &format!("### {name}")), "name").into_iter();
    rows.map(|row| format!("{name} {} {} {}", row[0], row[1], row[2])).collect()
}

#[test]
fn every_code_is_documented_as_it_is() {
    let (mut in_doc, mut in_code) = (Vec::new(), Vec::new());
    macro_rules! add {
        ($($name:ident)+) => {$(
            in_doc.extend(code_rows(stringify!($name)));
            let row = |code: &$name| {
                format!("{} {} {code:?} {}", stringify!($name), *code as u8, code.text())
            };
            in_code.extend($name::ALL.iter().map(row));
        )+};
    }
    add!(Resource Role Side OrderType TimeInForce Phase Lag CancelReason);
    add!(LeaseClass LeaseOutcome Source Horizon Kpi Rescue);
    add!(ExperimentEnd Cover PolicyAct PolicyReason Reject TaskEnd TokenOutcome);
    add!(SwapAnswer SwapState SwapReason Goodbye);
    assert_same(&in_doc, &in_code);
    let tables = section(DOC, "## 10. ").filter(|line| line.starts_with("### ")).count();
    assert_eq!(tables, 25, "tables of codes in PROTOCOL.md");
}

#[test]
fn every_constant_is_documented_as_it_is() {
    let rows = table(section(DOC, "## 1. "), "value").into_iter();
    let in_doc: Vec<_> = rows.map(|row| format!("{} = {}", row[0], row[1])).collect();
    macro_rules! in_code {
        ($($module:ident::$name:ident)+) => {
            [$(format!("{} = {}", stringify!($name), $module::$name)),+]
        };
    }
    let in_code = in_code!(
        frame::VERSION frame::HEADER_BYTES frame::FRAME_BYTES_MAX
        message::ANY message::ANY_BOOK message::UNLIMITED message::NAME_BYTES message::PLACE_BYTES
        message::PEER_BYTES
        message::TIER_BIT message::UNKNOWN message::DEPTH_LEVELS message::BID_MILLI_MIN message::BID_MILLI_MAX message::TAKE_MAX
        message::TIER_DEFINE message::TIER_CHANGE message::TIER_DRAIN message::TIER_RESUME
        message::TIER_DELETE message::TASK_VRU_MAX message::VRU_PRICE_MAX_MICRO
        message::STEEP_PERCENT_MAX message::MEASURE_COST message::RISK_NEVER message::EXPERIMENT_MS_MAX
        message::FORECAST_MS_MAX message::EVENT_PERCENT_MAX
        message::MIGRATION_ACCEPT message::MIGRATION_DECLINE message::MIGRATION_STAND
        message::MIGRATION_REFUSE message::MIGRATION_ABORT message::MIGRATION_DEPARTED
        message::MIGRATION_CLOSE message::MIGRATION_LEASES message::TOKEN_BYTES
        message::TOKEN_SEALED_BYTES message::TOKENS_MAX message::SWAPS_MAX
        message::ACCOUNT_SWAPS_MAX message::SWAP_MS_MIN message::DEGRADATION_PERCENT_MAX
        message::SWAP_BREACHES message::SWAP_S message::RATE_MAX
        memory::LAYOUT_VERSION
        ring::RECORD_BYTES_MAX ring::CAPACITY_BYTES_MIN ring::CAPACITY_BYTES_MAX board::BOOKS_MAX
    );
    assert_same(&in_doc, &in_code);
}

/// The bytes of the example that is fenced as `hex NAME`.
fn example(name: &str) -> Vec<u8> {
    let fence = format!("```hex {name}");
    let lines = DOC.lines().skip_while(|line| *line != fence).skip(1);
    let digits = lines.take_while(|line| *line != "```").flat_map(str::split_whitespace);
    digits.map(|byte| u8::from_str_radix(byte, 16).expect(byte)).collect()
}

fn encoded<M: message::Body>(sequence: u64, body: &M) -> Vec<u8> {
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = encode(sequence, body, &mut bytes);
    bytes[..length].to_vec()
}

fn new_order() -> Vec<u8> {
    let order = NewOrder {
        client_id: 1.into(),
        instance: 3.into(),
        price_ticks: 250.into(),
        quantity: 100.into(),
        book: 2.into(),
        side: Side::Sell as u8,
        order_type: OrderType::Limit as u8,
        time_in_force: TimeInForce::Gtc as u8,
        ..NewOrder::zeroed()
    };
    encoded(1, &order)
}

#[test]
fn the_worked_frames_are_what_the_code_sends() {
    let logon = Logon {
        session: 7.into(),
        account: ANY.into(),
        instance: ANY.into(),
        heartbeat_ms: 1000.into(),
        role: Role::Operator as u8,
        cancel_on_disconnect: 1,
        ..Logon::zeroed()
    };
    assert_hex("logon", &encoded(0, &logon));
    assert_hex("new-order", &new_order());
}

fn assert_hex(name: &str, bytes: &[u8]) {
    let hex = |bytes: &[u8]| -> String {
        let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x} ")).collect::<String>();
        bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(hex(&example(name)), hex(bytes), "the example {name:?}");
}

/// Shared memory as another program sees it: bytes of a file.
struct Seen(File);

impl Seen {
    fn new(memory: BorrowedFd<'_>) -> Seen {
        Seen(File::from(memory.try_clone_to_owned().unwrap()))
    }

    fn bytes<const N: usize>(&self, at: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at))
    }
}

/// Offset of the word whose meaning starts with `meaning`, from the table headed by `head`.
fn offset(section_heading: &str, head: &str, meaning: &str) -> u64 {
    let rows = table(section(DOC, section_heading), head);
    let row = rows.iter().find(|row| row[1].starts_with(meaning));
    let row = row.unwrap_or_else(|| panic!("no row {meaning:?} in {section_heading}"));
    row[0].parse().expect(row[0])
}

fn assert_word<T: Debug + PartialEq>(meaning: &str, found: T, expected: T) {
    assert_eq!(found, expected, "the word that PROTOCOL.md calls {meaning:?}");
}

#[test]
fn the_ring_lies_in_memory_as_documented() {
    const CAPACITY_BYTES: u64 = 1 << 12;
    let at = |meaning| offset("## 11. ", "ring word", meaning);
    let memory = Memory::create(CAPACITY_BYTES as usize).unwrap();
    let seen = Seen::new(std::os::fd::AsFd::as_fd(&memory));
    let (bell, _doorbell) = doorbell::pair().unwrap();
    let mut producer = Producer::attach(memory.clone(), bell).unwrap();
    let mut consumer = Consumer::attach(memory).unwrap();
    assert_word("magic", seen.bytes(at("magic")), *b"VENDRING");
    assert_word("layout version", seen.word(at("layout version")), memory::LAYOUT_VERSION);
    assert_word("capacity", seen.word(at("capacity")), CAPACITY_BYTES);
    assert_eq!(seen.0.metadata().unwrap().len(), at("data") + CAPACITY_BYTES);

    assert!(consumer.prepare_park());
    assert_word("parked", seen.word(at("parked")), 1);
    producer.try_push(0, &[&new_order()]).unwrap();
    producer.flush();
    assert_word("parked", seen.word(at("parked")), 0);
    assert_word("producer cursor", seen.word(at("producer cursor")), 8);
    assert_word("consumer cursor", seen.word(at("consumer cursor")), 0);
    assert_hex("ring-record", &seen.bytes::<64>(at("data")));
    consumer.pop().unwrap().unwrap();
    consumer.release();
    assert_word("consumer cursor", seen.word(at("consumer cursor")), 8);
}

#[test]
fn the_board_lies_in_memory_as_documented() {
    let mut writer = BoardWriter::create(3).unwrap();
    let level = |at: usize| Level { price_ticks: at as u32, quantity: 1000 + at as u64 };
    let view = BookView {
        last_ticks: 11,
        last_quantity: 12,
        trades: 13,
        volume: 14,
        time_ns: 15,
        sequence: 16,
        phase: 17,
        indicative_ticks: 18,
        indicative_volume: 19,
        indicative_imbalance: -20,
        bids: std::array::from_fn(|at| level(20 + at)),
        asks: std::array::from_fn(|at| level(40 + at)),
    };
    writer.write(2, &view);
    let seen = Seen::new(std::os::fd::AsFd::as_fd(&writer));
    let at = |meaning| offset("## 12. ", "board word", meaning);
    assert_word("magic", seen.bytes(at("magic")), *b"VENDBORD");
    assert_word("layout version", seen.word(at("layout version")), memory::LAYOUT_VERSION);
    assert_word("number of books", seen.word(at("number of books")), 3);

    let slot = |meaning| at("slot of book 0") + 2 * 512 + offset("## 12. ", "slot word", meaning);
    for (meaning, expected) in [
        ("version", 2),
        ("price of the last trade", 11),
        ("credits of the last trade", 12),
        ("trades so far", 13),
        ("credits traded so far", 14),
        ("time of the last change", 15),
        ("journal sequence", 16),
        ("phase", 17),
        ("indicative price", 18),
        ("indicative volume", 19),
        ("indicative imbalance", -20_i64 as u64),
        ("zero", 0),
    ] {
        assert_word(meaning, seen.word(slot(meaning)), expected);
    }
    for (meaning, first) in [("bids", 20), ("asks", 40)] {
        for pair in 0..message::DEPTH_LEVELS as u64 {
            let at = slot(meaning) + 16 * pair;
            assert_word(
                meaning,
                [seen.word(at), seen.word(at + 8)],
                [first + pair, 1000 + first + pair],
            );
        }
    }
    assert_eq!(slot("zero") + 13 * 8, seen.0.metadata().unwrap().len(), "where the last slot ends");
}
