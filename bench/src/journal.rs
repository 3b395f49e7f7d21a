//! The journal: a record until it is durable, and durable records a second at depth, beside raw
//! write + fdatasync of the same bytes in the same portions on the same device.

use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use vendue_engine::storage::{Append, Host, Log, LogConfig, Point, Sync, record, recover};

use crate::daemon::AnyError;
use crate::pin::{Processors, pin};
use crate::report::Pair;
use crate::run::histogram;
use crate::stable::{BLOCK_BYTES, Raw};

/// Bytes of a journalled order: who sent it, and the message.
const BODY_BYTES: usize = 16 + 48;
/// Durable records of one run at depth 1.
const SINGLE: u64 = 500;
/// Durable records of one run at depth.
const MANY: u64 = 400_000;
/// Records under way at once in the run at depth: more than the log's two buffers hold, so that one
/// fills while the other is written.
const DEPTH: u64 = 32_768;

const CONFIG: LogConfig =
    LogConfig { segment_bytes: 16 << 20, buffer_bytes: 1 << 20, sync: Sync::Always };

/// Measures `journal.latency` and `journal.throughput` on the device below `directory`.
///
/// # Errors
/// The device refuses.
pub fn measure(
    processors: Processors,
    runs: usize,
    directory: &Path,
    show: &mut dyn FnMut(Pair),
) -> Result<(), AnyError> {
    pin(processors.asking)?;
    let (mut ours, mut floor) = (Vec::new(), Vec::new());
    let (mut all_ours, mut all_floor) = (histogram(), histogram());
    let mut raw = Raw::new(directory, CONFIG.buffer_bytes)?;
    for _ in 0..runs {
        let run = raw.times(SINGLE)?;
        floor.push(run.value_at_quantile(0.5) as f64);
        all_floor.add(run)?;
        let run = singles(directory)?;
        ours.push(run.value_at_quantile(0.5) as f64);
        all_ours.add(run)?;
    }
    let method = format!("{runs} interleaved runs from CPU {}; ", processors.asking);
    let pair = Pair::new("journal.latency", "ns", &ours, &floor)
        .quantiles(&all_ours, &all_floor)
        .at_most(1.5)
        .fact("direct_io", raw.direct)
        .method(format!("{method}one record of {BODY_BYTES} bytes at a time, median until durable; floor: write + fdatasync of a block"));
    show(pair);
    let (mut ours, mut floor, mut flushes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        let (took, portions) = many(directory)?;
        ours.push(MANY as f64 / took.as_secs_f64());
        let start = Instant::now();
        for bytes in &portions {
            raw.write(*bytes)?;
        }
        floor.push(MANY as f64 / start.elapsed().as_secs_f64());
        flushes = portions.len();
    }
    let pair = Pair::new("journal.throughput", "records/s", &ours, &floor);
    let (enough, most) = (pair.ratio >= 0.9, pair.ours.median >= 200_000.0);
    let pair = pair
        .goal("ratio >= 0.9, and 200000 a second if the device gives that", enough && most)
        .fact("depth", DEPTH)
        .fact("flushes", flushes)
        .fact("record_bytes", record::record_bytes(BODY_BYTES))
        .method(format!("{method}{DEPTH} records under way at once, the clock stopped when the last is durable; floor: write + fdatasync of the same portions, nothing computed"));
    show(pair);
    Ok(())
}

fn open(dir: &Path) -> Result<Log, AnyError> {
    Ok(Log::open(CONFIG, recover(&Host, dir, None, Point::START)?)?)
}

fn append(log: &mut Log, sequence: u64) -> Result<bool, AnyError> {
    match log.append(sequence, sequence, 1, 0x10, &[3; BODY_BYTES]) {
        Ok(()) => Ok(true),
        Err(Append::Full) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn singles(directory: &Path) -> Result<Histogram<u64>, AnyError> {
    let dir = tempfile::tempdir_in(directory)?;
    let mut log = open(dir.path())?;
    let mut histogram = histogram();
    for sequence in 1..=SINGLE {
        let start = Instant::now();
        if !append(&mut log, sequence)? {
            return Err("a single record finds room".into());
        }
        while log.durable() < sequence {
            log.wait()?;
        }
        histogram.saturating_record(start.elapsed().as_nanos() as u64);
    }
    log.close()?;
    Ok(histogram)
}

/// Makes [`MANY`] records durable, [`DEPTH`] under way at once; how long that took, and the bytes
/// of each flush.
fn many(directory: &Path) -> Result<(Duration, Vec<usize>), AnyError> {
    let dir = tempfile::tempdir_in(directory)?;
    let mut log = open(dir.path())?;
    let start = Instant::now();
    let (mut appended, mut portions) = (0, Vec::new());
    while log.durable() < MANY {
        while appended < MANY && appended - log.durable() < DEPTH && append(&mut log, appended + 1)?
        {
            appended += 1;
        }
        let unsent = log.unsent_bytes();
        let was_idle = !log.in_flight();
        log.poll()?;
        if unsent > 0 && log.unsent_bytes() == 0 {
            portions.push(unsent.next_multiple_of(BLOCK_BYTES));
        }
        if !was_idle || log.in_flight() {
            let unsent = log.unsent_bytes();
            log.wait()?;
            if unsent > 0 && log.unsent_bytes() == 0 {
                portions.push(unsent.next_multiple_of(BLOCK_BYTES));
            }
        }
    }
    let took = start.elapsed();
    log.close()?;
    Ok((took, portions))
}
