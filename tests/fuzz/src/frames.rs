//! Bytes from a socket: framing, message bodies, and the parsing of commands.

use vendue_engine::machine::command::Command;
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, encode_raw};
use vendue_wire::message::{SCHEMA, text};

/// Takes frames off `bytes` until there are no more. The first byte says how the rest arrives in
/// pieces, which must make no difference.
pub fn run(bytes: &[u8]) {
    let Some((&piece, stream)) = bytes.split_first() else { return };
    let mut rest = stream;
    while let Ok(Some(frame)) = Frame::parse(rest) {
        arrives_in_pieces(rest, &frame, usize::from(piece));
        says_one_thing(&frame);
        rest = &rest[frame.len()..];
    }
}

/// No part of a frame is one, and what follows it does not change it.
fn arrives_in_pieces(stream: &[u8], whole: &Frame<'_>, step: usize) {
    for end in (0..whole.len()).step_by(1 + step) {
        let part = Frame::parse(&stream[..end]);
        assert!(matches!(part, Ok(None)), "{end} bytes of {}: {part:?}", whole.len());
    }
    let alone = Frame::parse(&stream[..whole.len()]).expect("it parsed before");
    assert_eq!(alone.map(|frame| frame.body), Some(whole.body));
    let mut again = [0; FRAME_BYTES_MAX];
    let length = encode_raw(whole.header.kind, whole.header.sequence.get(), whole.body, &mut again);
    assert_eq!(again[..length], stream[..whole.len()], "a frame encodes otherwise");
}

/// A body is a command only if its kind is known and its length is that kind's.
fn says_one_thing(frame: &Frame<'_>) {
    assert!(frame.len() >= HEADER_BYTES && frame.len() <= FRAME_BYTES_MAX);
    let kind = frame.header.kind;
    let schemas = [SCHEMA, vendue_engine::machine::command::SCHEMA];
    let known = schemas.into_iter().flatten().find(|row| row.0 == kind);
    match Command::parse(kind, frame.body) {
        Ok(command) => {
            let row = known.unwrap_or_else(|| panic!("{command:?} is in no schema"));
            assert_eq!(row.2, frame.body.len(), "{}", row.1);
        }
        Err(code) => assert!(!code.text().is_empty()),
    }
    let _ = text(frame.body);
}
