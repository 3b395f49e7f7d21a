//! A whole run: set up, connect, drive, sum up.

use crate::attack::{self, Plan};
use crate::check::Counts;
use crate::profile::Profile;
use crate::record::{self, Recorder};
use crate::report::{Report, Tally};
use crate::schedule::Schedule;
use crate::session::{FilePart, Session, Source};
use crate::setup::{Market, market};
use crate::steps::Flow;
use crate::worker::{Pace, Phase, Shared, UNANSWERED_MAX, Worker};
use crate::{LoadError, Options};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use vendue_wire::client::{Client, Identity};

/// How far ahead of the first request its moment is fixed.
const RUN_UP: Duration = Duration::from_millis(20);
/// Threads that drive sessions at most.
const THREADS_MAX: usize = 8;
/// Threads that log sessions on: one logon waits for the daemon's disk, many share the wait.
const CONNECTORS: usize = 16;
/// Requests unanswered at most while a flow's book is built and emptied.
const UNTIMED_DEPTH: usize = 1024;
/// Descriptors of the process beside its connections; a session over shared memory has three.
const OTHER_DESCRIPTORS: u64 = 64;

/// Sets up, runs, and reports. `progress` shows a live line on standard error.
///
/// # Errors
/// [`LoadError`]; a failed check is no error but in the report.
pub fn run(options: &Options, progress: bool) -> Result<(Report, Tally), LoadError> {
    raise_descriptors(options)?;
    if let Some(flow) = &options.flow {
        check_ids(flow)?;
    }
    let market = market(options)?;
    let closed = options.instances.is_empty();
    let recorder = options.record.as_deref().map(|path| Recorder::create(path, closed));
    let recorder = recorder.transpose()?;
    let sessions = connect(options, &market, recorder.as_ref())?;
    let phases = phases(options);
    let ramp = phases.iter().find_map(|phase| match &phase.pace {
        Pace::Open(schedule) if options.ramp.is_some() => Some(schedule),
        _ => None,
    });
    let empty = Tally::new(ramp, options.attack.is_some());
    // Half the processors: the daemon needs the others.
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get());
    let threads = (processors / 2).clamp(1, THREADS_MAX.min(sessions.len().max(1)));
    let shared = Shared::new(threads);
    let mut shares: Vec<Vec<Session<'_>>> = (0..threads).map(|_| Vec::new()).collect();
    for session in sessions {
        shares[session.number % threads].push(session);
    }
    let workers = shares
        .into_iter()
        .enumerate()
        .map(|(number, share)| Worker::new(number, share, empty.clone(), &shared))
        .collect::<Result<Vec<_>, _>>()?;
    let plan = plan(options, &market);
    let (outcomes, fates) = drive(workers, &phases, &shared, plan.as_ref(), progress);
    let outcomes = outcomes?;
    let mut tally = empty;
    outcomes.iter().for_each(|outcome| tally.add(&outcome.tally));
    let mut report = Report::of(options, &outcomes, &tally);
    report.attacked(&tally, fates);
    if let (Some(recorder), Some(path)) = (&recorder, &options.record) {
        recorder.finish()?;
        let checked = record::check(path)?;
        report
            .record_checked(checked.judged, checked.violation.map(|(_, found)| found.to_string()));
    }
    Ok((report, tally))
}

/// Raises the limit of open descriptors as far as it goes.
fn raise_descriptors(options: &Options) -> Result<(), LoadError> {
    let attackers = options.attack.as_ref().map_or(0, |(kinds, each)| kinds.0.len() * each);
    let connections = options.mix.sessions() + attackers;
    let each = match options.endpoint {
        vendue_wire::client::Endpoint::Shm { .. } => 5,
        _ => 1,
    };
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(std::io::Error::from)?;
    if each * connections as u64 + OTHER_DESCRIPTORS > hard {
        return Err(LoadError::Descriptors { need: connections, have: hard });
    }
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(std::io::Error::from)?;
    Ok(())
}

/// Orders are known to the daemon by ids that rise; a flow's own are used.
fn check_ids(flow: &crate::meflow::Flow) -> Result<(), LoadError> {
    let mut last = 0;
    for record in flow.records.iter().filter(|record| record.kind != crate::meflow::CANCEL) {
        if record.id <= last {
            return Err(LoadError::FlowIds(record.id));
        }
        last = record.id;
    }
    Ok(())
}

/// The run's parts: a flow's book is built and emptied outside of what is timed.
fn phases(options: &Options) -> Vec<Phase> {
    let untimed = |records_end| Phase {
        pace: Pace::Closed { depth: UNTIMED_DEPTH },
        end_ns: u64::MAX,
        timed: false,
        records_end,
    };
    let end_ns = match options.flow {
        Some(_) => u64::MAX,
        None => options.time.as_nanos() as u64,
    };
    let pace = match (options.ramp, options.rate) {
        (Some(ramp), _) => Pace::Open(Schedule::ramp(ramp.from, ramp.to, ramp.steps, end_ns)),
        (None, 0) => Pace::Closed { depth: options.depth.min(UNANSWERED_MAX) },
        (None, rate) => Pace::Open(Schedule::steady(rate, end_ns)),
    };
    let timed = |records_end| Phase { pace, end_ns, timed: true, records_end };
    match &options.flow {
        None => vec![timed(0)],
        Some(flow) => {
            let end = flow.prefill + flow.ops;
            vec![untimed(flow.prefill), timed(end), untimed(flow.records.len())]
        }
    }
}

/// Logs every session on, several at a time.
fn connect<'a>(
    options: &'a Options,
    market: &'a Market,
    recorder: Option<&'a Recorder>,
) -> Result<Vec<Session<'a>>, LoadError> {
    let profiles = options.mix.profiles();
    let asking = profiles.iter().filter(|&&profile| profile != Profile::Idle).count() as u64;
    let mut turn = 0;
    let mut wanted: VecDeque<_> = VecDeque::with_capacity(profiles.len());
    for (number, &profile) in profiles.iter().enumerate() {
        wanted.push_back((number, profile, (turn, asking)));
        turn += u64::from(profile != Profile::Idle);
    }
    let wanted = std::sync::Mutex::new(wanted);
    let work = || -> Result<Vec<Session<'a>>, LoadError> {
        let mut made = Vec::new();
        loop {
            let next = wanted.lock().unwrap_or_else(|error| error.into_inner()).pop_front();
            let Some((number, profile, turn)) = next else { return Ok(made) };
            made.push(log_on(options, market, recorder, (number, profile, turn))?);
        }
    };
    std::thread::scope(|scope| {
        let count = CONNECTORS.min(profiles.len());
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::with_capacity(profiles.len());
        for thread in threads {
            all.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        all.sort_by_key(|session| session.number);
        Ok(all)
    })
}

fn log_on<'a>(
    options: &'a Options,
    market: &'a Market,
    recorder: Option<&'a Recorder>,
    (number, profile, turn): (usize, Profile, (u64, u64)),
) -> Result<Session<'a>, LoadError> {
    let (identity, accounts) = match market.seats.get(number) {
        Some(seat) => (Identity::tenant(seat.account), [seat.account; 2]),
        // A flow buys and sells in one order: its session acts for both parties.
        None => (Identity::operator(), market.flow_accounts),
    };
    // The longest heartbeat the daemon allows: thousands of logons may take their time, and no
    // session is heard of before the last is there.
    let identity =
        Identity { token: options.token, cancel_on_disconnect: true, heartbeat_ms: 0, ..identity };
    let client = Client::connect(&options.endpoint, &identity)
        .map_err(|source| LoadError::Session { session: number, source })?;
    let source = match (&options.flow, market.seats.get(number)) {
        (Some(flow), _) => {
            let share = (number, options.mix.sessions());
            Source::File(Box::new(FilePart::new(flow, &market.flow_books, share)))
        }
        (None, Some(&seat)) if profile != Profile::Idle => {
            let flow = Flow::new(profile, options.seed, number as u64, market.price_ticks_max);
            Source::Drawn { flow: Box::new(flow), seat, book: options.book, turn }
        }
        _ => Source::Nothing,
    };
    Ok(Session::new(number, profile, client, source, accounts, recorder))
}

fn plan(options: &Options, market: &Market) -> Option<Plan> {
    let (kinds, per_kind) = options.attack.as_ref()?;
    Some(Plan {
        endpoint: options.endpoint.clone(),
        token: options.token,
        seat: market.attacker?,
        book: options.book,
        victims: market.seats.clone(),
        kinds: kinds.clone(),
        per_kind: *per_kind,
        seed: options.seed,
    })
}

type Driven = (
    Result<Vec<crate::worker::Outcome>, LoadError>,
    std::collections::BTreeMap<String, attack::Fate>,
);

/// Runs the threads to their end.
fn drive(
    workers: Vec<Worker<'_>>,
    phases: &[Phase],
    shared: &Shared,
    plan: Option<&Plan>,
    progress: bool,
) -> Driven {
    let over = AtomicBool::new(false);
    let gate = Gate { arrived: AtomicUsize::new(0), threads: workers.len(), at: OnceLock::new() };
    std::thread::scope(|scope| {
        let (gate, over) = (&gate, &over);
        let running: Vec<_> = workers
            .into_iter()
            .map(|worker| scope.spawn(move || worker.run(phases, || gate.pass(shared))))
            .collect();
        let attack = plan.map(|plan| {
            scope.spawn(move || match gate.opened(shared) {
                Some(start) => attack::run(plan, start, over),
                None => Default::default(),
            })
        });
        let line = progress.then(|| scope.spawn(|| show_progress(shared, over)));
        let outcomes = running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect();
        over.store(true, Ordering::Relaxed);
        if let Some(line) = line {
            line.thread().unpark();
        }
        let fates = attack.map(|thread| thread.join());
        let fates = fates.map(|fates| fates.unwrap_or_else(|p| std::panic::resume_unwind(p)));
        (outcomes, fates.unwrap_or_default())
    })
}

/// Where threads meet before the timed part.
struct Gate {
    arrived: AtomicUsize,
    threads: usize,
    at: OnceLock<Instant>,
}

impl Gate {
    /// Waits for the others, or until the run is stopped; then says when it starts.
    fn pass(&self, shared: &Shared) -> Instant {
        self.arrived.fetch_add(1, Ordering::AcqRel);
        while self.arrived.load(Ordering::Acquire) < self.threads
            && !shared.stop.load(Ordering::Relaxed)
        {
            std::thread::sleep(Duration::from_millis(1));
        }
        *self.at.get_or_init(|| Instant::now() + RUN_UP)
    }

    /// When it starts; `None` if it was stopped before.
    fn opened(&self, shared: &Shared) -> Option<Instant> {
        while self.at.get().is_none() && !shared.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.at.get().copied()
    }
}

fn show_progress(shared: &Shared, over: &AtomicBool) {
    const PERIOD: Duration = Duration::from_secs(1);
    let (mut before, mut at) = (0, Instant::now());
    while !over.load(Ordering::Relaxed) {
        std::thread::park_timeout(PERIOD.saturating_sub(at.elapsed()));
        if at.elapsed() < PERIOD {
            continue;
        }
        let mut counts = Counts::default();
        let mut live = shared.live.lock().unwrap_or_else(|error| error.into_inner());
        live.counts.iter().for_each(|thread| counts.add(thread));
        let [p50, p99] = [0.5, 0.99].map(|q| live.order_ack_ns.value_at_quantile(q) as f64 / 1e3);
        live.order_ack_ns.reset();
        drop(live);
        let sent = counts.orders + counts.cancels;
        let rate = (sent - before) as f64 / at.elapsed().as_secs_f64();
        (before, at) = (sent, Instant::now());
        let refused: u64 = counts.rejected.values().chain(counts.refused.values()).sum();
        let mut line = String::new();
        let _ = write!(line, "{rate:>9.0}/s  ack p50 {p50:>8.1} us  p99 {p99:>9.1} us  ");
        let _ = write!(line, "{} trades  {refused} rejects", counts.trades);
        eprintln!("{line}");
    }
}
