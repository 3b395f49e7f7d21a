//! `hvctl top`: a live view for operators. What is known ([`known`]) and what the user has chosen
//! ([`state`]) are drawn ([`draw`]) by one thread; others read keys, wait for signals and ask the
//! daemon ([`asker`]), and tell it by one channel.

mod asker;
mod draw;
mod header;
mod history;
mod instances;
mod keys;
mod known;
mod leases;
mod market;
mod one;
mod sheet;
mod state;
mod tasks;
mod terminal;
mod units;

#[cfg(test)]
mod tests;

use super::amount::parse_credits;
use super::door::{Reach, Trouble};
use super::output::Output;
use asker::{Asker, Wish};
use hvctl::agent::backoff::Backoff;
use keys::{Act, press};
use known::{Known, Page};
use nix::sys::signal::{SigSet, Signal};
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use sheet::Sheet;
use state::{Away, INTERVAL, State};
use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};
use terminal::Screen;

/// What can wait to be seen by the thread that draws.
const TOLD_MAX: usize = 64;
/// First and longest pause before it is tried to connect again.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(8)];
/// Even if nothing happens the screen is drawn so often: counters count down.
const REDRAW: Duration = Duration::from_secs(1);
/// An exit code for a signal is so much more than its number.
const SIGNALLED: u8 = 128;

/// How often to look.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Keys: 1 2 3 4 or Tab choose instances, market, leases or tasks; Up and Down mark a row, Enter looks into \
its instance, Esc goes back; < and > sort by the column before and by the next, r turns the order \
around; / filters, Esc clears the filter; Space pauses, + and - change the pace, R looks now; ? explains \
all keys; q quits.

However many instances there are, a look asks no more than some hundred questions: 256 instances and the \
limits of as many as they hold, the others at the next looks in turn. NO_COLOR in the environment turns \
colours off. When vendued goes away its last word stays on the screen and is called old; it is tried \
again after half a second, then ever more seldom up to every 8 s. Programs use `hvctl --json` with \
instance list, instance sensors, limits, market, lease list and task list instead.")]
pub struct TopCommand {
    /// Seconds between two looks, 0.25 to 60
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_interval)]
    interval: Duration,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    // Three decimals of a second.
    let interval = parse_credits(text).ok().map(Duration::from_millis);
    let [least, most] = INTERVAL;
    let fits = interval.filter(|interval| (least..=most).contains(interval));
    fits.ok_or_else(|| "give seconds from 0.25 to 60".to_owned())
}

/// What the thread that draws is told.
enum Told {
    Key(KeyEvent),
    Resized,
    /// No more keys will come.
    Deaf(io::Error),
    Signal(Signal),
    Answer(Result<Vec<Page>, Trouble>),
}

/// Runs the command.
pub fn run(command: &TopCommand, reach: Reach, out: &Output) -> Result<(), Trouble> {
    if out.is_json() || !io::stdout().is_terminal() {
        return Err(Trouble::Usage(
            "top draws on a terminal, for people; programs use `hvctl --json instance list`, \
             `instance sensors`, `limits`, `market`, `lease list` and `task list`"
                .to_owned(),
        ));
    }
    let endpoint = reach.endpoint().to_string();
    // Who cannot be reached at all is told as by every other command.
    let asker = Asker::connect(reach)?;
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let state = State::new(endpoint, command.interval, colours);
    let signals =
        SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT]);
    // Before any thread begins, so that all of them leave these to the one that waits for them.
    signals.thread_block().map_err(io::Error::from)?;
    let (tell, told) = sync_channel(TOLD_MAX);
    let (wish, wishes) = sync_channel(1);
    let screen = Screen::take()?;
    let hear = tell.clone();
    thread::spawn(move || signals.wait().map(|signal| hear.send(Told::Signal(signal))));
    let answer = tell.clone();
    thread::spawn(move || asker.run(&wishes, |pages| answer.send(Told::Answer(pages)).is_ok()));
    thread::spawn(move || read_keys(&tell));
    let ended = Watch::new(screen, state, wish).run(&told)?;
    match ended {
        None => Ok(()),
        Some(signal) => Err(Trouble::Ended(SIGNALLED + signal as u8)),
    }
}

fn read_keys(tell: &SyncSender<Told>) {
    loop {
        let told = match event::read() {
            Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => Told::Key(key),
            Ok(Event::Resize(..)) => Told::Resized,
            Ok(_) => continue,
            Err(error) => Told::Deaf(error),
        };
        let deaf = matches!(told, Told::Deaf(_));
        if tell.send(told).is_err() || deaf {
            return;
        }
    }
}

/// The view while it runs.
struct Watch {
    screen: Screen,
    state: State,
    known: Known,
    sheet: Sheet,
    wish: SyncSender<Wish>,
    /// A wish was not answered yet.
    waiting: bool,
    /// When to look next.
    due: Instant,
    /// The user asked for it, paused or not.
    asked: bool,
    backoff: Backoff,
}

impl Watch {
    fn new(screen: Screen, mut state: State, wish: SyncSender<Wish>) -> Watch {
        let known = Known::default();
        let sheet = state.sheet(&known);
        let (due, backoff) = (Instant::now(), Backoff::new(RETRY[0]));
        Watch { screen, state, known, sheet, wish, waiting: false, due, asked: true, backoff }
    }

    /// Until the user has seen enough, or a signal comes.
    fn run(mut self, told: &Receiver<Told>) -> Result<Option<Signal>, Trouble> {
        loop {
            self.look();
            self.draw()?;
            let left = self.due.saturating_duration_since(Instant::now());
            let idle = self.waiting || (self.state.paused && !self.asked);
            match told.recv_timeout(if idle { REDRAW } else { left.min(REDRAW) }) {
                Ok(Told::Key(key)) => match press(key, &mut self.state, &self.sheet) {
                    Act::Quit => return Ok(None),
                    Act::Suspend => self.screen.suspend()?,
                    Act::Ask => (self.due, self.asked) = (Instant::now(), true),
                    Act::Draw => {}
                },
                Ok(Told::Signal(signal)) => return Ok(Some(signal)),
                Ok(Told::Deaf(error)) => return Err(Trouble::Output(error)),
                Ok(Told::Answer(answer)) => self.learn(answer),
                Ok(Told::Resized) | Err(RecvTimeoutError::Timeout) => {}
                // A thread that panicked has ended the program.
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
            }
        }
    }

    /// Asks the daemon, if it is time to and it owes no answer.
    fn look(&mut self) {
        let due = self.asked || (!self.state.paused && Instant::now() >= self.due);
        if self.waiting || !due {
            return;
        }
        let State { view, one, .. } = self.state;
        let wish = Wish { view, one, book: self.state.book(&self.sheet) };
        (self.waiting, self.asked) = (self.wish.try_send(wish).is_ok(), false);
    }

    fn learn(&mut self, answer: Result<Vec<Page>, Trouble>) {
        self.waiting = false;
        let pause = match answer {
            Ok(pages) => {
                let first = self.known.status.is_none();
                pages.into_iter().for_each(|page| self.known.learn(page));
                self.state.away = None;
                self.backoff.worked();
                // There are rows now, and what belongs to the marked one is not known.
                if first { Duration::ZERO } else { self.state.interval }
            }
            Err(trouble) => {
                let tries = self.state.away.as_ref().map_or(0, |away| away.tries + 1);
                let again_in = self.backoff.pause().min(RETRY[1]);
                self.state.away = Some(Away { why: trouble.to_string(), tries, again_in });
                again_in
            }
        };
        self.due = Instant::now() + pause;
    }

    fn draw(&mut self) -> io::Result<()> {
        let Watch { screen, state, known, .. } = self;
        if let Some(away) = &mut state.away {
            away.again_in = match self.waiting {
                true => Duration::ZERO,
                false => self.due.saturating_duration_since(Instant::now()),
            };
        }
        self.sheet = state.sheet(known);
        screen.terminal.draw(|frame| draw::screen(frame, known, &self.sheet, state))?;
        Ok(())
    }
}
