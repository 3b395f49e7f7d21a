//! Encoding and decoding of messages, beside a plain copy of the same bytes.

use std::hint::black_box;
use std::time::Instant;

use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, HEADER_BYTES, encode};
use vendue_wire::message::{Accepted, Body, Filled, NewOrder};

use crate::pin::{Processors, pin};
use crate::report::Pair;

/// Messages of one run.
const MESSAGES: u64 = 4_000_000;

/// Measures the codec: `codec.encode-*` and `codec.decode-*` of a new order, its acceptance and a
/// fill.
///
/// # Errors
/// The thread cannot be pinned.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), nix::Error> {
    pin(processors.asking)?;
    message::<NewOrder>("new-order", processors, runs).into_iter().for_each(&mut *show);
    message::<Accepted>("accepted", processors, runs).into_iter().for_each(&mut *show);
    message::<Filled>("filled", processors, runs).into_iter().for_each(show);
    Ok(())
}

fn message<M: Body + Copy>(name: &str, processors: Processors, runs: usize) -> [Pair; 2] {
    let body = M::read_from_bytes(&vec![1; size_of::<M>()]).expect("any bytes are a message");
    let mut frame = [0; FRAME_BYTES_MAX];
    let length = encode(1, &body, &mut frame);
    let (mut encoding, mut decoding, mut copying) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        copying.push(copies::<M>(&frame[..length]));
        encoding.push(encodes(&body));
        decoding.push(decodes::<M>(&frame[..length]));
    }
    [("encode", encoding), ("decode", decoding)].map(|(what, ours)| {
        Pair::new(format!("codec.{what}-{name}"), "ns/message", &ours, &copying)
            .fact("frame_bytes", length)
            .method(format!(
                "{runs} interleaved runs of {MESSAGES} on CPU {}; the floor copies the frame's \
                 {length} bytes",
                processors.asking
            ))
    })
}

fn each(mut one: impl FnMut(u64)) -> f64 {
    let start = Instant::now();
    (1..=MESSAGES).for_each(&mut one);
    start.elapsed().as_nanos() as f64 / MESSAGES as f64
}

fn encodes<M: Body>(body: &M) -> f64 {
    let mut out = [0; FRAME_BYTES_MAX];
    each(|sequence| {
        black_box(encode(sequence, black_box(body), &mut out));
        black_box(&mut out);
    })
}

fn decodes<M: Body + Copy>(frame: &[u8]) -> f64 {
    each(|_| {
        let frame = Frame::parse(black_box(frame)).expect("a frame").expect("a whole one");
        black_box(*frame.message::<M>().expect("of this kind"));
    })
}

fn copies<M: Body>(frame: &[u8]) -> f64 {
    let mut out = [0; FRAME_BYTES_MAX];
    let bytes = HEADER_BYTES + size_of::<M>();
    each(|_| {
        out[..bytes].copy_from_slice(&black_box(frame)[..bytes]);
        black_box(&mut out);
    })
}
