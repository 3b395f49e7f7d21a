//! The forecaster: a thread that keeps what was measured and says what comes, a bounded piece of work at a
//! time. It is told by the actuator, which also passes on what it says as commands.

use super::choice::{Server, backtest};
use super::features::Grid;
use super::forest::{Forest, Growing, Growth, Rows};
use super::history::Answer;
use super::past::Past;
use super::series::{HELD_S_MAX, Series, Step, pack};
use super::store::{self, STOOD_MAX, Saved, Stood};
use super::{LEVELS, MEDIAN, Quantiles};
use crate::machine::event::Asked;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vendue_wire::code::{Horizon, RESOURCES, Resource, Source};
use vendue_wire::message::{SetForecast, U32};

/// Batches of measurements, and forecasts, that may wait; what finds no room is lost, as advice may be.
const WAITING: usize = 256;
/// After work it rests so many times as long as that took.
const REST: u32 = 300;
/// Rows that a forest grows on at most, and at least.
const ROWS: [usize; 2] = [2_000, 20_000];
/// A forest is smaller than where memory is no matter.
const GROWTH: Growth = Growth { trees: 30, rows: 10_000, leaf_rows: 60, tried: 16 };
/// Another model may serve a series, and another forest grows, after so many refreshes.
const REFRESHES: u64 = 96;

/// What is known is written down so often, seconds.
const SAVE_S: u64 = 300;
/// A file that is older than this when it is read is of no use, seconds; what a series was in the
/// mean of its last hour it is taken to have been since then.
const GAP_S_MAX: u64 = 86_400;
/// Series of a file whose instances have not come after so many seconds are nobody's.
const COME_S: u64 = 60;

/// What the forecaster is told.
#[derive(Debug)]
pub enum Told {
    /// What was used.
    Batch(Batch),
    /// Somebody asks what was.
    Asked(Asked),
}

/// What was used since the last batch.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Up to when, seconds since 1970 UTC.
    pub until_s: u64,
    /// How long that is.
    pub seconds: u32,
    /// By instance and resource, VRUs in the mean; who is not named used nothing.
    pub used: Vec<(u32, Resource, f32)>,
    /// Instances that are no more.
    pub gone: Vec<u32>,
    /// Instances that came, and a number that tells one from another that had its number.
    pub came: Vec<(u32, u32)>,
}

/// How far is looked ahead, and in which steps.
pub(super) struct View {
    horizon: Horizon,
    grid: Grid,
    /// What a step of the grid is made of, and of how many.
    of: (Step, usize),
    /// Seconds of a step, and between two forecasts of a series.
    pub(super) step_s: u64,
    refresh_s: u64,
    forest: Option<Forest>,
    /// Time that it was grown at, seconds.
    grown_s: Option<u64>,
    growing: Option<Growing>,
}

/// Of a series and a view.
#[derive(Debug)]
pub(super) struct Served {
    server: Server,
    /// Forecasts it has made.
    made: u64,
    /// The last, and when, seconds.
    pub(super) said: Vec<Quantiles>,
    pub(super) said_s: u64,
}

#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) series: Series,
    pub(super) served: [Option<Served>; 3],
    /// What was foreseen of steps that are over, by view.
    pub(super) stood: [VecDeque<Stood>; 3],
    /// Seconds before which there is nothing to do, by view.
    due_s: [u64; 3],
}

impl Kept {
    fn bytes(&self) -> usize {
        let stood: usize = self.stood.iter().map(VecDeque::capacity).sum();
        self.series.bytes() + stood * size_of::<Stood>()
    }
}

/// The forecaster.
pub struct Forecaster {
    pub(super) kept: BTreeMap<(u32, u8), Kept>,
    pub(super) views: [View; 3],
    /// Up to when it was told, seconds since 1970 UTC.
    pub(super) now_s: u64,
    /// Instances that came, and what tells them from others of their numbers.
    whose: BTreeMap<u32, u32>,
    /// What a file held, until the instances have come.
    read: BTreeMap<(u32, u8), u32>,
    /// When it was written down last, and where that is.
    saved_s: u64,
    file: Option<PathBuf>,
    is_read: bool,
    /// Seconds it was told of.
    heard_s: u64,
    save_failed: bool,
    /// Where the next look for work begins.
    from: (u32, u8),
    bytes_max: usize,
    said: Sender<SetForecast>,
}

/// The other ends of a forecaster's channels.
#[derive(Debug)]
pub struct Ends {
    /// What was used, and questions.
    pub told: Sender<Told>,
    /// Forecasts, as commands of source `Model`.
    pub said: Receiver<SetForecast>,
    /// Answers.
    pub answers: Receiver<Answer>,
    /// Ends once it has written down what it knows.
    pub thread: JoinHandle<()>,
}

/// Starts a forecaster whose series take `bytes_max` at most and outlast it in `file`; it ends with the
/// sender.
///
/// # Errors
/// The system has no thread to give.
pub fn start(bytes_max: usize, file: Option<PathBuf>) -> io::Result<Ends> {
    let (told, heard) = bounded(WAITING);
    let (answered, answers) = bounded(WAITING);
    let (mut forecaster, said) = Forecaster::new(bytes_max);
    forecaster.file = file;
    let thread = std::thread::Builder::new().name("forecast".to_owned()).spawn(move || {
        let mut rested = Instant::now();
        loop {
            match heard.recv_timeout(Duration::from_secs(1)) {
                Ok(Told::Batch(batch)) => forecaster.take(&batch),
                // Who does not take its answer asks again.
                Ok(Told::Asked(asked)) => drop(answered.try_send(forecaster.answer(&asked))),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return forecaster.save(),
            }
            let begun = Instant::now();
            if begun >= rested && forecaster.work() {
                rested = begun + begun.elapsed() * (REST + 1);
            }
        }
    })?;
    Ok(Ends { told, said, answers, thread })
}

impl View {
    fn new(horizon: Horizon, (steps, day): (usize, usize), of: (Step, usize)) -> View {
        let seconds = if of.0 == Step::Minute { 60 } else { 3600 };
        let step_s = seconds * of.1 as u64;
        let grid = Grid { steps, day };
        // A quarter of what is foreseen of an hour, a step of a day and a week.
        let refresh_s = step_s.max(steps as u64 * step_s / 14);
        View { horizon, grid, of, step_s, refresh_s, forest: None, grown_s: None, growing: None }
    }

    fn past(&self, series: &Series) -> Past {
        Past::new(series.means(self.of.0, self.of.1))
    }

    /// A forecast's worst step, as the command that says it.
    fn command(&self, (instance, resource): (u32, u8), said: &[Quantiles]) -> SetForecast {
        // Values are kept to 1 in 500: what is less is no use of another VRU.
        let vrus = |value: f32| (value - value / 500.0).ceil() as u32;
        let highest =
            |level: usize| said.iter().map(|quantiles| vrus(quantiles[level])).max().unwrap_or(0);
        SetForecast {
            client_id: 0.into(),
            starts_in_ms: 0.into(),
            lasts_ms: U32::new((self.step_s * 1000) as u32 * said.len() as u32),
            p50_vru: highest(MEDIAN).into(),
            p90_vru: highest(LEVELS.len() - 2).into(),
            p975_vru: highest(LEVELS.len() - 1).into(),
            instance: instance.into(),
            resource,
            source: Source::Model as u8,
            horizon: self.horizon as u8,
            reserved: [0; 5],
        }
    }
}

impl Forecaster {
    /// One that knows of nothing, and where its forecasts come out.
    pub fn new(bytes_max: usize) -> (Forecaster, Receiver<SetForecast>) {
        let (said, receiver) = bounded(WAITING);
        let views = [
            View::new(Horizon::Hour, (12, 288), (Step::Minute, 5)),
            View::new(Horizon::Day, (12, 12), (Step::Hour, 2)),
            View::new(Horizon::Week, (14, 2), (Step::Hour, 12)),
        ];
        let forecaster = Forecaster {
            kept: BTreeMap::new(),
            views,
            now_s: 0,
            whose: BTreeMap::new(),
            read: BTreeMap::new(),
            saved_s: 0,
            file: None,
            is_read: false,
            heard_s: 0,
            save_failed: false,
            from: (0, 0),
            bytes_max,
            said,
        };
        (forecaster, receiver)
    }

    /// Reads what an earlier daemon wrote down, `before_s` being when this one began to measure.
    fn restore(&mut self, before_s: u64) {
        let Some(path) = self.file.as_ref().filter(|path| path.exists()) else { return };
        let (at_s, all) = match store::load(path) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!("what was used before is not known: {}: {error}", path.display());
                return;
            }
        };
        let Some(gap_s) = before_s.checked_sub(at_s).filter(|gap_s| *gap_s <= GAP_S_MAX) else {
            let path = path.display();
            tracing::warn!("what was used before is not known: {path}: it is of another day");
            return;
        };
        for Saved { key, whose, mut series, stood } in all {
            let newest = series.values(Step::Second);
            let newest = &newest[newest.len().saturating_sub(3600)..];
            let mean = newest.iter().sum::<f32>() / newest.len().max(1) as f32;
            for from_s in (0..gap_s).step_by(HELD_S_MAX as usize) {
                series.add(mean, HELD_S_MAX.min((gap_s - from_s) as u32));
            }
            self.read.insert(key, whose);
            self.kept.insert(key, Kept { series, stood, ..Kept::default() });
        }
        tracing::info!(series = self.kept.len(), gap_s, "what was used before is known");
    }

    /// Writes down what is known.
    fn save(&mut self) {
        self.saved_s = self.now_s;
        // Who was told nothing has read nothing: what is there stays.
        let Some(path) = self.file.as_ref().filter(|_| self.now_s > 0) else { return };
        let all = self.kept.iter().map(|(key, kept)| {
            let whose = self.whose.get(&key.0).or_else(|| self.read.get(key));
            (*key, whose.copied().unwrap_or(0), &kept.series, kept.stood.each_ref())
        });
        let all: Vec<_> = all.collect();
        match store::save(path, self.now_s, all.into_iter()) {
            Ok(()) => self.save_failed = false,
            Err(error) if !self.save_failed => {
                self.save_failed = true;
                let path = path.display();
                tracing::warn!("what is used will be forgotten at a restart: {path}: {error}");
            }
            Err(_) => {}
        }
    }

    /// Instances come and go: what was read of others that had their numbers is not theirs.
    fn meet(&mut self, batch: &Batch) {
        for gone in &batch.gone {
            self.whose.remove(gone);
            (0..RESOURCES as u8).for_each(|resource| drop(self.kept.remove(&(*gone, resource))));
        }
        for &(instance, whose) in &batch.came {
            self.whose.insert(instance, whose);
            for resource in 0..RESOURCES as u8 {
                if self.read.remove(&(instance, resource)).is_some_and(|read| read != whose) {
                    self.kept.remove(&(instance, resource));
                }
            }
        }
        if self.heard_s > COME_S {
            std::mem::take(&mut self.read).keys().for_each(|key| drop(self.kept.remove(key)));
        }
    }

    /// Keeps what was measured. Series that never moved are not begun.
    pub fn take(&mut self, batch: &Batch) {
        if !std::mem::replace(&mut self.is_read, true) {
            self.saved_s = batch.until_s;
            self.restore(batch.until_s.saturating_sub(batch.seconds.into()));
        }
        self.meet(batch);
        let seconds = batch.seconds.min(HELD_S_MAX);
        if seconds == 0 {
            return;
        }
        self.now_s = batch.until_s;
        self.heard_s += u64::from(seconds);
        // Meters may be read more often than once a batch.
        let mut used: BTreeMap<(u32, u8), f32> = BTreeMap::new();
        for &(instance, resource, vru) in &batch.used {
            *used.entry((instance, resource as u8)).or_default() += vru;
        }
        for &key in used.keys() {
            self.kept.entry(key).or_default();
        }
        // As much for each: what one has too much of is not taken from another.
        let share = self.bytes_max / self.kept.len().max(1);
        for (key, kept) in &mut self.kept {
            kept.series.add(used.get(key).copied().unwrap_or(0.0), seconds);
            while kept.bytes() > share && kept.series.forget() {}
        }
        if self.now_s >= self.saved_s + SAVE_S {
            self.save();
        }
    }

    /// Does a piece of what there is to do. False if there is nothing.
    pub fn work(&mut self) -> bool {
        (0..self.views.len()).any(|view| self.grow(view) || self.gather(view)) || self.serve_next()
    }

    /// Grows a tree.
    fn grow(&mut self, view: usize) -> bool {
        let View { growing, forest, .. } = &mut self.views[view];
        let Some(under_way) = growing else { return false };
        if !under_way.step() {
            *forest = growing.take().map(Growing::grown);
        }
        true
    }

    /// Begins a forest where one is due, with what is known before the choices' backtests.
    fn gather(&mut self, view: usize) -> bool {
        let of = &mut self.views[view];
        if of.grown_s.is_some_and(|grown| self.now_s < grown + REFRESHES * of.refresh_s) {
            return false;
        }
        let first = of.grid.steps * 3;
        // Looked at again after a while where there is too little yet.
        of.grown_s = Some(self.now_s);
        let known = self.kept.len() * 64;
        let stride = (known / ROWS[1]).max(3);
        let mut rows = Rows::new(of.grid);
        for kept in self.kept.values() {
            let past = of.past(&kept.series);
            let end = past.len() - backtest(past.len(), of.grid);
            for known in (first..(end + 1).saturating_sub(of.grid.steps)).step_by(stride) {
                if rows.len() < ROWS[1] {
                    rows.add(&past, known);
                }
            }
        }
        if rows.len() >= ROWS[0] {
            of.growing = Growing::new(rows, GROWTH, self.now_s);
        }
        true
    }

    /// Forecasts the next series that is due.
    fn serve_next(&mut self) -> bool {
        let after = self.kept.range(self.from..).chain(self.kept.range(..self.from));
        let due = after.into_iter().find_map(|(key, kept)| {
            let view = kept.due_s.iter().position(|due| *due <= self.now_s)?;
            Some((*key, view))
        });
        let Some((key, view)) = due else { return false };
        self.from = key;
        self.serve(key, view);
        true
    }

    fn serve(&mut self, key: (u32, u8), at: usize) {
        let (view, now_s) = (&self.views[at], self.now_s);
        let kept = self.kept.get_mut(&key).expect("a series that is kept");
        kept.due_s[at] = now_s + view.refresh_s;
        let past = view.past(&kept.series);
        let (known, forest) = (past.len(), view.forest.as_ref());
        if known < 4 * view.grid.steps {
            return;
        }
        let served = &mut kept.served[at];
        if served.as_ref().is_none_or(|served| served.made % REFRESHES == REFRESHES - 1) {
            let server = Server::choose(&past, known, view.grid, forest);
            *served = Some(Served { server, made: 0, said: Vec::new(), said_s: now_s });
        }
        let Some(served) = served else { return };
        let passed = (now_s.saturating_sub(served.said_s) / view.step_s) as usize;
        // What was said last is over, or the part of it that is.
        let came = &past.values()[known - passed.min(known)..];
        served.server.learn(&served.said[..passed.min(served.said.len())], came);
        for (step, quantiles) in served.said.iter().enumerate().take(passed) {
            if kept.stood[at].len() == STOOD_MAX[at] {
                kept.stood[at].pop_front();
            }
            let begins_s = (served.said_s + step as u64 * view.step_s) as u32;
            kept.stood[at].push_back(Stood { begins_s, quantiles: quantiles.map(pack) });
        }
        served.said = served.server.forecast(&past, known, forest);
        (served.said_s, served.made) = (now_s, served.made + 1);
        // Without room it is said again at the next refresh.
        let _ = self.said.try_send(view.command(key, &served.said));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vendue_wire::message::HistoryRow;

    /// Use at a second of an instance: high by day, in a rhythm, and a little uneven.
    fn vru(instance: u32, second: u64) -> f32 {
        let day = (second as f32 / 86_400.0 * std::f32::consts::TAU).sin();
        let uneven = (second / 300 * 7_919 + u64::from(instance) * 31) % 13;
        20.0 + 10.0 * day + uneven as f32 / 6.0
    }

    fn minute_of(minute: u64, used: Vec<(u32, Resource, f32)>) -> Batch {
        Batch { until_s: (minute + 1) * 60, seconds: 60, used, ..Batch::default() }
    }

    fn told(days: u64) -> (Forecaster, Receiver<SetForecast>) {
        let (mut forecaster, said) = Forecaster::new(8 << 20);
        for minute in 0..days * 1440 {
            let used = (0..6).map(|at| (at, Resource::Cpu, vru(at, minute * 60))).collect();
            forecaster.take(&minute_of(minute, used));
        }
        (forecaster, said)
    }

    #[test]
    fn an_hour_and_a_day_are_foreseen_and_nothing_is_left_to_do() {
        let (mut forecaster, said) = told(5);
        let pieces = (0..10_000).take_while(|_| forecaster.work()).count();
        assert!(pieces < 10_000, "the work ends");
        let said: Vec<SetForecast> = said.try_iter().collect();
        for horizon in [Horizon::Hour, Horizon::Day] {
            let of = said.iter().filter(|said| said.horizon == horizon as u8);
            assert_eq!(of.count(), 6, "{horizon:?}: one for each");
        }
        for said in &said {
            let (at, day) = (said.instance.get(), said.horizon == Horizon::Day as u8);
            let end = 5 * 86_400 + if day { 86_400 } else { 3_600 };
            let most = (5 * 86_400..end).step_by(300).map(|second| vru(at, second));
            let most = most.fold(0.0, f32::max);
            let (p50, p975) = (said.p50_vru.get() as f32, said.p975_vru.get() as f32);
            assert!(p50 > 0.75 * most && p50 < 1.2 * most, "{p50} beside {most}");
            assert!(p975 >= p50 && p975 < 2.0 * most, "{p975} beside {most}");
            assert_eq!(said.lasts_ms.get(), if day { 86_400_000 } else { 3_600_000 });
        }
    }

    #[test]
    fn what_is_gone_or_never_moved_costs_nothing() {
        let (mut forecaster, said) = told(1);
        assert_eq!(forecaster.kept.len(), 6);
        forecaster.take(&Batch { gone: (0..6).collect(), ..Batch::default() });
        assert!(forecaster.kept.is_empty());
        while forecaster.work() {}
        assert_eq!(said.try_iter().count(), 0);
    }

    #[test]
    fn series_share_the_memory_there_is() {
        let (mut forecaster, _said) = Forecaster::new(400 << 10);
        for minute in 0..2 * 1440_u64 {
            let used = (0..40).map(|at| (at, Resource::Cpu, vru(at, minute * 60))).collect();
            forecaster.take(&minute_of(minute, used));
        }
        let bytes: usize = forecaster.kept.values().map(Kept::bytes).sum();
        assert!(bytes <= 400 << 10, "{bytes}");
        assert!(forecaster.kept.values().all(|kept| kept.series.values(Step::Hour).len() == 48));
    }

    fn asked(instance: u32, width: u16, from_s: u64) -> Asked {
        let from = (from_s * 1_000_000_000).into();
        Asked { limit: instance.into(), book: width.into(), from, ..Asked::zeroed() }
    }

    /// All rows of the answer, page by page.
    fn history(forecaster: &Forecaster, instance: u32, width: u16) -> Vec<HistoryRow> {
        let (mut rows, mut from) = (Vec::new(), 0);
        while from != u64::MAX {
            let answer =
                forecaster.answer(&Asked { from: from.into(), ..asked(instance, width, 0) });
            rows.extend(answer.rows);
            from = answer.next;
        }
        rows
    }

    #[test]
    fn what_was_is_shown_beside_what_had_been_foreseen() {
        let (mut forecaster, _said) = told(4);
        while forecaster.work() {}
        for minute in 4 * 1440..4 * 1440 + 90 {
            let used = (0..6).map(|at| (at, Resource::Cpu, vru(at, minute * 60))).collect();
            forecaster.take(&minute_of(minute, used));
            while forecaster.work() {}
        }
        let rows = history(&forecaster, 2, 1);
        let (mut foreseen, mut held) = (0, 0);
        for (at, row) in rows.iter().enumerate() {
            let minute = row.time_ns.get() / 60_000_000_000;
            assert_eq!(minute, at as u64, "a row a minute from the first on");
            let band = [row.p025_milli_vru, row.p10_milli_vru, row.p50_milli_vru];
            let band = band.into_iter().chain([row.p90_milli_vru, row.p975_milli_vru]);
            let band: Vec<u32> = band.map(|milli| milli.get()).collect();
            assert!(band.is_sorted());
            if minute < 4 * 1440 + 90 {
                let came = vru(2, minute * 60) * 1e3;
                let used = row.used_milli_vru.get();
                assert!((used as f32 - came).abs() <= came / 400.0, "{used} {came}");
                foreseen += u32::from(band[2] != u32::MAX);
                held += u32::from(band[2] != u32::MAX && (band[0]..=band[4]).contains(&used));
            } else {
                assert_eq!(row.used_milli_vru.get(), u32::MAX, "still to come");
                assert_ne!(band[2], u32::MAX, "but foreseen");
            }
        }
        assert_eq!(foreseen, 90, "of each minute since it first foresaw");
        // How well is another test's matter; means of five minutes are foreseen, not minutes.
        assert!(held > 45, "{held} of 90 within the 95% interval");
        assert!(rows.len() >= 4 * 1440 + 90 + 55, "and most of an hour that comes");
        assert_eq!(history(&forecaster, 9, 1).len(), 0, "of who is not there");
        let hours = history(&forecaster, 2, 2);
        assert!(hours.len() >= 4 * 24 + 22, "{}: and a day that comes", hours.len());
    }

    #[test]
    fn series_outlast_the_daemon_unless_they_are_old_or_anothers() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("series");
        let (mut first, _said) = told(2);
        first.file = Some(file.clone());
        first.whose = (0..6).map(|at| (at, 100 + at)).collect();
        first.save();
        let before = first.kept[&(3, 0)].series.values(Step::Minute);

        // An hour later; instance 3 is there again, 4 is another now, the others do not come.
        let again = |from_s: u64, came: Vec<(u32, u32)>| {
            let (mut forecaster, _said) = Forecaster::new(8 << 20);
            forecaster.file = Some(file.clone());
            let used = vec![(3, Resource::Cpu, 5.0)];
            let batch = Batch { until_s: from_s + 60, seconds: 60, used, came, ..Batch::default() };
            forecaster.take(&batch);
            let later = Batch { until_s: from_s + 120, seconds: 60, ..Batch::default() };
            forecaster.take(&later);
            forecaster.take(&Batch { until_s: from_s + 180, ..later });
            forecaster
        };
        let second = again(2 * 86_400 + 3600, vec![(3, 103), (4, 999)]);
        assert_eq!(second.kept.keys().copied().collect::<Vec<_>>(), [(3, 0)]);
        let values = second.kept[&(3, 0)].series.values(Step::Minute);
        assert_eq!(values[..before.len()], before[..]);
        assert_eq!(values.len(), before.len() + 60 + 3, "the hour is bridged");
        let mean = before[before.len() - 60..].iter().sum::<f32>() / 60.0;
        let bridge = &values[before.len()..before.len() + 60];
        assert!(
            bridge.iter().all(|vru| (vru - mean).abs() < mean / 100.0),
            "by the last hour's mean"
        );

        let (mut idle, _said) = Forecaster::new(8 << 20);
        idle.file = Some(file.clone());
        idle.save();
        assert_eq!(store::load(&file).expect("still there").1.len(), 6, "it knew of nothing");
        let third = again(4 * 86_400, vec![(3, 103)]);
        assert_eq!(third.kept[&(3, 0)].series.values(Step::Minute).len(), 3, "too old");
        std::fs::write(&file, b"VENDFORE and no more").expect("torn");
        let fourth = again(2 * 86_400, vec![(3, 103)]);
        assert_eq!(fourth.kept[&(3, 0)].series.values(Step::Minute).len(), 3, "torn");
    }
}
