//! Instruction counts under valgrind: exact where time is not, so they can gate regressions.
//!
//! Each piece of work is a small deterministic run. [`work`] does one; [`measure`] starts this program
//! again under callgrind for each and reads how many instructions the counted part took.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode};
use vendue_wire::message::{Accepted, NewOrder};
use vendue_wire::ring;
use zerocopy::FromBytes;

use crate::daemon::AnyError;
use crate::flow::{Flow, Totals};
use crate::generate::generate;
use crate::ours::{Message, Ours};
use crate::run::{drive, inputs};

/// Growth over the baseline that fails, percent.
pub const MARGIN_PERCENT: f64 = 3.0;
/// What is counted; each is divided by [`OPERATIONS`].
pub const WORKS: [&str; 4] = ["book.one", "book.hundred", "codec", "ring"];
/// Operations of each piece of work.
const OPERATIONS: usize = 20_000;
/// How the baseline is written anew.
const REFRESH: &str = "cargo bench -p vendue-bench -- instructions --refresh";

/// Does one piece of work, its counted part in a function of its own.
///
/// # Errors
/// There is no such work, or it went wrong.
pub fn work(name: &str) -> Result<(), AnyError> {
    match name {
        "book.one" => book(1),
        "book.hundred" => book(100),
        "codec" => {
            let new_order = NewOrder::read_from_bytes(&[1; size_of::<NewOrder>()]);
            let accepted = Accepted::read_from_bytes(&[1; size_of::<Accepted>()]);
            counted_codec(&new_order.expect("any bytes"), &accepted.expect("any bytes"));
            Ok(())
        }
        "ring" => {
            let (mut producer, mut consumer) = ring::pair_within(1 << 16)?;
            counted_ring(&mut producer, &mut consumer);
            Ok(())
        }
        _ => Err(format!("{name} is none of {WORKS:?}").into()),
    }
}

fn book(books: usize) -> Result<(), AnyError> {
    let flow = generate(31, books, 5_000, OPERATIONS);
    let new = || Ours::new(books, flow.expected.live_max + 1);
    let inputs = inputs(&flow, new());
    let (mut ours, mut totals) = (new(), Totals::default());
    uncounted_book(&mut ours, flow.prefill(&inputs), &mut totals);
    counted_book(&mut ours, flow.timed(&inputs), &mut totals);
    check(&flow, totals)
}

fn check(flow: &Flow, totals: Totals) -> Result<(), AnyError> {
    if totals == flow.expected.timed { Ok(()) } else { Err("the book traded wrongly".into()) }
}

#[inline(never)]
fn uncounted_book(ours: &mut Ours, inputs: &[Message], totals: &mut Totals) {
    drive(ours, inputs, totals);
}

#[inline(never)]
fn counted_book(ours: &mut Ours, inputs: &[Message], totals: &mut Totals) {
    drive(ours, inputs, totals);
    black_box(totals);
}

#[inline(never)]
fn counted_codec(new_order: &NewOrder, accepted: &Accepted) {
    let mut out = [0; FRAME_BYTES_MAX];
    for sequence in 0..OPERATIONS as u64 {
        let length = encode(sequence, black_box(new_order), &mut out);
        let frame = Frame::parse(black_box(&out[..length])).expect("a frame").expect("a whole one");
        black_box(*frame.message::<NewOrder>().expect("of this kind"));
        let length = encode(sequence, black_box(accepted), &mut out);
        let frame = Frame::parse(black_box(&out[..length])).expect("a frame").expect("a whole one");
        black_box(*frame.message::<Accepted>().expect("of this kind"));
    }
}

#[inline(never)]
fn counted_ring(producer: &mut ring::Producer, consumer: &mut ring::Consumer) {
    let message = [7; 64];
    for tag in 0..OPERATIONS as u32 {
        producer.try_push(tag, &[black_box(&message)]).expect("there is room");
        producer.flush();
        let record = consumer.pop().expect("a whole ring").expect("a record");
        assert_eq!(black_box(record).tag, tag);
    }
}

/// Counts every piece of work in the program `program` and compares with the baseline in `path`,
/// or writes it there. Returns what to print.
///
/// # Errors
/// Valgrind is missing or fails, or a count has grown by more than [`MARGIN_PERCENT`].
pub fn measure(program: &Path, path: &Path, refresh: bool) -> Result<String, AnyError> {
    let mut counts = BTreeMap::new();
    for name in WORKS {
        counts.insert(name.to_owned(), count(program, name)? as f64 / OPERATIONS as f64);
    }
    if refresh {
        let rounded: BTreeMap<&String, f64> =
            counts.iter().map(|(name, count)| (name, (count * 10.0).round() / 10.0)).collect();
        std::fs::write(path, serde_json::to_string_pretty(&rounded)? + "\n")?;
        return Ok(format!("wrote {}", path.display()));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{}: {error}; write it: {REFRESH}", path.display()))?;
    let baseline: BTreeMap<String, f64> = serde_json::from_str(&text)?;
    compare(&counts, &baseline)
}

/// The table of counts, or what is wrong with them.
fn compare(
    counts: &BTreeMap<String, f64>,
    baseline: &BTreeMap<String, f64>,
) -> Result<String, AnyError> {
    let mut table = String::from("instructions an operation   baseline       now    change\n");
    let (mut grown, mut shrunk) = (Vec::new(), false);
    for (name, &now) in counts {
        let before = *baseline
            .get(name)
            .ok_or_else(|| format!("the baseline has no {name}; write it anew: {REFRESH}"))?;
        let percent = 100.0 * (now - before) / before;
        table += &format!("  {name:<24}{before:>10.1}{now:>10.1}{percent:>+9.1}%\n");
        shrunk |= percent < -MARGIN_PERCENT;
        if percent > MARGIN_PERCENT {
            grown.push(name.as_str());
        }
    }
    if !grown.is_empty() {
        return Err(format!(
            "{table}{} executes over {MARGIN_PERCENT}% more instructions than the baseline. Make it \
             cheaper; or, where the change is worth it, say so in the commit and write the baseline \
             anew: {REFRESH}",
            grown.join(", ")
        )
        .into());
    }
    if shrunk {
        table += &format!("cheaper than the baseline: write it anew, to keep it so: {REFRESH}\n");
    }
    Ok(table)
}

/// Instructions of the counted part of one piece of work.
fn count(program: &Path, name: &str) -> Result<u64, AnyError> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=vendue_bench::instructions::counted_*")
        .arg(program)
        .args(["work", name])
        .output()
        .map_err(|error| {
            format!("cannot start valgrind ({error}); install it: apt-get install valgrind")
        })?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("{name} under valgrind: {}\n{said}", output.status).into());
    }
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1));
    match collected.and_then(|text| text.trim().parse().ok()) {
        Some(count @ 1..) => Ok(count),
        _ => Err(format!("valgrind counted nothing of {name}:\n{said}").into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_beyond_the_margin_fails_and_says_how_to_go_on() {
        let counts = |count| BTreeMap::from([("book.one".to_owned(), count)]);
        let baseline = counts(1000.0);
        assert!(compare(&counts(1029.0), &baseline).expect("within").contains("+2.9%"));
        let error = compare(&counts(1031.0), &baseline).expect_err("beyond").to_string();
        assert!(error.contains("book.one") && error.contains("--refresh"), "{error}");
        let cheaper = compare(&counts(900.0), &baseline).expect("cheaper is no failure");
        assert!(cheaper.contains("--refresh"), "{cheaper}");
        let error = compare(&counts(1.0), &BTreeMap::new()).expect_err("unknown").to_string();
        assert!(error.contains("no book.one"), "{error}");
    }

    #[test]
    fn every_work_works() {
        for name in WORKS {
            work(name).expect(name);
        }
        assert!(work("nothing").is_err());
    }
}
