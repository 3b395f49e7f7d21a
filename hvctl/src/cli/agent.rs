//! `hvctl agent`: trades for one instance. Deciding is the library's; here is what it sees and does.
//!
//! Each step looks at what stands in the books and takes the one step that is due, so a lost answer,
//! a daemon that was killed or an agent that was killed leave nothing to clear up: the next step
//! sees what is. Requests that were under way cannot arrive late either, because every connection
//! of an instance's agent resumes the same session, and taking it over ends the older connection.

mod desk;
mod sampler;
mod trader;

use super::alarm::Alarm;
use super::door::{Reach, Trouble};
use super::names::{Directory, find_instance, instances, parse_resource, tiers};
use super::output::Output;
use desk::Desk;
use hvctl::agent::backoff::Backoff;
use hvctl::agent::predict::{WINDOW_MAX, falling_weights};
use hvctl::agent::price::{Band, Policy};
use hvctl::agent::series::Series;
use hvctl::agent::{Agent, Settings};
use sampler::Sampler;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trader::{Stop, Trader};
use vendue_wire::client::{Client, ClientError, Identity, fresh_session};
use vendue_wire::code::{Reject, Resource, Role};
use vendue_wire::message::*;

/// Longest wait between two looks at the connection, which also send its heartbeats.
const LOOK: Duration = Duration::from_secs(1);
/// First pause before a lost connection is tried again.
const RECONNECT: Duration = Duration::from_millis(100);

/// Whom to trade for, and how.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Every step it measures what the instance uses, averages the newest samples by their weights, and \
predicts the balance at the horizon: balance + (baseline - use) x horizon. It offers what that has \
above --offer-above, though never so much that today's balance falls below --request-below, and \
requests what is missing below --request-below, as far as the account's funds reach. Urgency is how \
far the prediction is beyond its threshold, and full at what the baseline earns in one horizon.

Policies, all within --low and --high:
  fixed   offers at low, requests at high
  linear  offers from high down to low, requests from low up to high, with urgency
  last    offers at the last trade's price less up to an eighth, requests at it plus up to an \
eighth, with urgency; before the first trade the middle of low and high stands for it

It keeps one order for each resource, replaces it as things change, and leaves orders of others \
alone. It waits longer and longer while the daemon throttles it, and connects again when the daemon \
is restarted. SIGINT and SIGTERM take its orders back; if it is killed they stay, and the next agent \
of the instance goes on with them.

A demand file is CSV: `day,cpu,memory`, then rows such as `28800,40,256`. The first column is \
seconds: of the `day` or the `week` (from Monday, UTC), which repeat, or `time` since 1970; the \
others are VRUs needed from then on. Where it speaks it replaces the average.")]
pub struct AgentCommand {
    /// Instance to trade for, by name or number
    instance: String,
    /// Resources to trade, with commas between: cpu, memory, block-io; others need --demand
    #[arg(long, value_delimiter = ',', default_value = "cpu", value_parser = parse_resource)]
    resource: Vec<Resource>,
    /// How prices are found: fixed, linear or last
    #[arg(long, default_value = "last", value_parser = parse_policy)]
    policy: Policy,
    /// Never sell below this price, in ticks
    #[arg(long, value_name = "TICKS", default_value_t = 10)]
    low: u32,
    /// Never buy above this price, in ticks
    #[arg(long, value_name = "TICKS", default_value_t = 100)]
    high: u32,
    /// Offer what the predicted balance has above this, in seconds of baseline
    #[arg(long, value_name = "SECONDS", default_value_t = 120, allow_negative_numbers = true)]
    offer_above: i32,
    /// Request what the predicted balance lacks below this, in seconds of baseline
    #[arg(long, value_name = "SECONDS", default_value_t = 30, allow_negative_numbers = true)]
    request_below: i32,
    /// How far ahead to predict
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    horizon: u32,
    /// Samples in the moving average; the newest weighs this much, each before it 1 less
    #[arg(long, value_name = "SAMPLES", default_value_t = 10, conflicts_with = "weights")]
    window: u16,
    /// The samples' own weights instead, newest first, with commas between
    #[arg(long, value_name = "WEIGHTS", value_delimiter = ',')]
    weights: Vec<u32>,
    /// Time between steps, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=3_600_000))]
    every_ms: u32,
    /// CSV file of the demand that is known beforehand
    #[arg(long, value_name = "FILE")]
    demand: Option<PathBuf>,
    /// Measure this machine by /proc, as an agent inside of the instance does
    #[arg(long)]
    guest: bool,
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    let found = Policy::ALL.into_iter().find(|(name, _)| *name == text);
    found
        .map(|(_, policy)| policy)
        .ok_or_else(|| "a policy is one of fixed, linear, last".to_owned())
}

impl AgentCommand {
    fn settings(&self) -> Settings {
        let weights = match &self.weights[..] {
            [] => falling_weights(usize::from(self.window).min(WINDOW_MAX + 1)),
            weights => weights.to_vec(),
        };
        Settings {
            horizon_s: self.horizon,
            offer_above_s: self.offer_above,
            request_below_s: self.request_below,
            weights,
            policy: self.policy,
            band: Band { low_ticks: self.low, high_ticks: self.high },
        }
    }

    /// The deciding part for each resource, and whether its demand is known beforehand.
    fn deciders(&self) -> Result<Vec<(Resource, Agent, bool)>, Trouble> {
        let usage = |why: String| Trouble::Usage(why);
        let table = match &self.demand {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let wrong = |error| usage(format!("--demand {}: {error}", path.display()));
                Some((path, text.map_err(wrong)?))
            }
        };
        let mut deciders: Vec<(Resource, Agent, bool)> = Vec::new();
        for &resource in &self.resource {
            if deciders.iter().any(|(known, ..)| *known == resource) {
                continue;
            }
            let series = match &table {
                None => None,
                Some((path, text)) => Series::parse(text, resource)
                    .map_err(|bad| usage(format!("--demand {}: {bad}", path.display())))?,
            };
            let known = series.is_some();
            let agent =
                Agent::new(self.settings(), series).map_err(|bad| usage(bad.to_string()))?;
            deciders.push((resource, agent, known));
        }
        Ok(deciders)
    }
}

/// The instance that is traded for.
#[derive(Debug)]
struct Subject {
    instance: u32,
    account: u32,
    name: [u8; NAME_BYTES],
}

impl Subject {
    /// The number of the session that every agent of this instance resumes: made of what names the
    /// instance (FNV-1a, 64 bits), so that an agent that was killed needs no memory of its own.
    fn session(&self) -> u64 {
        let parts = [&self.instance.to_le_bytes()[..], &self.account.to_le_bytes(), &self.name];
        let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        parts.concat().iter().fold(0xcbf2_9ce4_8422_2325, mix).max(1)
    }

    fn gone(&self) -> Trouble {
        Trouble::Refused(format!(
            "instance {} was removed: nothing is left to trade for; see `hvctl instance list`",
            text(&self.name)
        ))
    }
}

/// Trades until it is told to stop, or until there is nothing left to trade for.
pub fn run(command: &AgentCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let deciders = command.deciders()?;
    let alarm = Alarm::set()?;
    let mut reader = reach.reader()?;
    let names = Directory {
        instances: instances(&mut reader)?,
        tiers: tiers(&mut reader)?,
        ..Directory::default()
    };
    drop(reader);
    let instance = find_instance(&command.instance, &names.instances)?;
    let row = names.instance_row(instance).ok_or_else(|| Trouble::Refused("no instance".into()))?;
    let sampler = Sampler::open(command.guest, text(&row.place))?;
    let every = Duration::from_millis(command.every_ms.into());
    let mut desks = Vec::new();
    for (resource, agent, known) in deciders {
        let measured = sampler.as_ref().is_some_and(|sampler| sampler.counts(resource));
        if !measured && !known {
            return Err(Trouble::Usage(format!(
                "the {resource} use of {} cannot be measured here: run inside of it with --guest, \
                 or say with --demand what it will be",
                text(&row.name)
            )));
        }
        let tier = names.tier_resource(row.tier.get(), resource as u8).ok_or_else(|| {
            let tier = names.tier(row.tier.get());
            Trouble::Refused(format!("tier {tier} has no {resource}; see `hvctl tier list`"))
        })?;
        desks.push(Desk::new(resource, tier, agent, measured, every));
    }
    let subject = Subject { instance, account: row.account.get(), name: row.name };
    let session = subject.session();
    let trader = Trader::new(subject, sampler, desks, every, out);
    Agency { reach, alarm, every, trader, session, lost: Backoff::new(RECONNECT) }.live()
}

/// What outlives a connection.
#[derive(Debug)]
struct Agency<'a> {
    reach: &'a Reach,
    alarm: Alarm,
    every: Duration,
    trader: Trader<'a>,
    /// Number of the session.
    session: u64,
    lost: Backoff,
}

impl Agency<'_> {
    /// Trades on one connection after the other. The first must succeed: a wrong address is told at
    /// once.
    fn live(&mut self) -> Result<(), Trouble> {
        let mut client = self.connect()?;
        self.trader.say_started()?;
        loop {
            let mut stop = match self.trade(&mut client) {
                Ok(()) => return self.trader.say("stopped", "stopped"),
                Err(stop) => stop,
            };
            client = loop {
                let error = match stop {
                    Stop::Over(trouble) => return Err(trouble),
                    Stop::Slow(error) | Stop::Lost(error) => error,
                };
                let pause = self.lost.pause();
                self.trader.say_pause("lost", &error, pause)?;
                if self.alarm.wait(None, pause)? {
                    return self
                        .trader
                        .say("stopped", "stopped without a connection; its orders stay");
                }
                match self.connect() {
                    Ok(client) => break client,
                    Err(error) => stop = error,
                }
            };
            self.trader.say("connected", "connected again")?;
        }
    }

    /// Resumes the instance's session. Where somebody else took its number any other will do: then
    /// only the reports of before are lost.
    fn connect(&mut self) -> Result<Client, Stop> {
        let client = match self.open() {
            Err(error) if is(&error, Reject::BadCredentials) => {
                self.session = fresh_session();
                self.trader.seen = None;
                self.open()?
            }
            Err(error) if is(&error, Reject::UnknownInstance) => {
                return Err(self.trader.subject.gone().into());
            }
            other => other?,
        };
        self.trader.resume(&client);
        Ok(client)
    }

    /// Opens or resumes the session, with all reports since the last one heard if they are kept;
    /// what they would have told, the first step sees otherwise.
    fn open(&mut self) -> Result<Client, ClientError> {
        let from = |replay_from| Identity {
            session: self.session,
            role: Role::Agent,
            account: self.trader.subject.account,
            instance: self.trader.subject.instance,
            replay_from,
            ..Identity::observer()
        };
        let due = self.trader.seen.map_or(0, |seen| seen + 1);
        let mut client = self.reach.session(from(due))?;
        let (oldest, next) = (client.ack.oldest_sequence.get(), client.ack.next_sequence.get());
        if due != 0 && !(oldest..=next).contains(&due) {
            client = self.reach.session(from(0))?;
            self.trader.seen = None;
        }
        let next = client.ack.next_sequence.get();
        self.trader.seen.get_or_insert(next.saturating_sub(1));
        Ok(client)
    }

    /// Steps until it is told to stop, or cannot go on.
    fn trade(&mut self, client: &mut Client) -> Result<(), Stop> {
        let mut slow = Backoff::new(2 * self.every);
        loop {
            let pause = match self.trader.step(client) {
                Ok(()) => {
                    slow.worked();
                    self.lost.worked();
                    self.every
                }
                Err(Stop::Slow(error)) => {
                    let pause = slow.pause();
                    self.trader.say_pause("throttled", &error, pause)?;
                    pause
                }
                Err(stop) => {
                    if matches!(stop, Stop::Over(_)) {
                        // Why it ends is what counts, not whether this worked.
                        let _ = self.trader.withdraw(client);
                    }
                    return Err(stop);
                }
            };
            if self.wait(client, pause)? {
                return self.trader.withdraw(client);
            }
        }
    }

    /// Listens for `pause`. True if it was told to stop.
    fn wait(&mut self, client: &mut Client, pause: Duration) -> Result<bool, Stop> {
        let until = Instant::now() + pause;
        loop {
            while let Some(frame) = client.try_recv()? {
                self.trader.hear(frame)?;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            // Looking again sends the heartbeats.
            let other = client.prepare_wait().then(|| client.as_fd());
            let left = if other.is_some() { left.min(LOOK) } else { Duration::ZERO };
            if self.alarm.wait(other, left)? {
                return Ok(true);
            }
        }
    }
}

/// True if the daemon refused with this reason.
fn is(error: &ClientError, reject: Reject) -> bool {
    matches!(error, ClientError::Refused { code, .. } if *code == reject as u8)
}
