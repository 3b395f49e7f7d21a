//! `hvctl experiment`: two standing policies compared on the instances there are, or two sets of terms of the
//! manager of swaps.

use super::amount::funds;
use super::door::{Reach, Trouble, Who};
use super::json::experiment::{
    compares, experiment as object, exposure, is_of_swaps, mean, measure,
};
use super::lease::parse_class;
use super::names::{Directory, accounts, find_account, find_tier, parse_resource, tiers};
use super::objective::parse_kpi;
use super::output::Output;
use super::policy::parse_cover;
use super::table::{left, right};
use super::time::rfc3339;
use serde::Deserialize;
use serde_json::json;
use std::path::{Path, PathBuf};
use vendue_wire::code::{Cover, ExperimentEnd, LeaseClass};
use vendue_wire::message::*;

/// What to do with experiments.
#[derive(Debug, clap::Subcommand)]
pub enum ExperimentCommand {
    /// Start the experiment that a file of TOML describes
    #[command(after_help = "\
name = \"longer lead\"      resource = \"cpu\"
measure = \"latency\"       a KPI, as the instances' objectives are told it, or \"cost\": micro-units a VRU-second used
better = \"less\"           or \"more\"
harm = 500.0              ends once B is worse than A by more than that, beyond doubt; in the measure's unit
lasts_s = 86400           a minute to 90 days
tier = \"bronze\"           only its instances [default: of every tier]; account likewise
salt = 7                  another number, other arms [default: 0]
[a]                       empty: instances of the arm stay as they are
[b]                       or a policy, as of `hvctl policy set`:
budget = 3.0              units of funds an hour; burst [default: a tenth]
rent = 12                 price, lead_s [60], hold_s [10], step, class [bounded], cover [p90]

Swaps of tokens are compared where an arm says what the daemon's manager of swaps does for its instances, as those \
that are lent to; an empty arm is the manager as it always is, which is risk_percent = 10 and cover = \"p90\":

name = \"later swaps\"      resource, measure (a KPI), better, harm, lasts_s and so on as above
[a]                       swaps on: as always
[b]
risk_percent = 30         it acts from this probability of too little, 1 to 100
cover = \"p97.5\"           and asks for this quantile of the need, p50, p90 or p97.5 [p90]
swaps = false             instead of both: swaps off, it leaves instances of the arm alone

Below 10% only p97.5 is more than an instance has. Who takes part redeemed a token that may be swapped, and has an account \
that lets the daemon ask (`hvctl swap policy ACCOUNT --seek`).

Instances are assigned by their number and the salt, for as long as it lasts; later ones too. Experiments that \
run together want different salts, or they share their arms. At its end each instance gets its own policy back, and the manager does as \
always.")]
    Start {
        /// The file
        file: PathBuf,
    },
    /// End an experiment and give instances their own policies back
    Stop {
        /// Its number
        experiment: u32,
    },
    /// Show experiments
    List,
    /// Show an experiment: the effect with its 95% interval, and who takes part
    Show {
        /// Its number
        experiment: u32,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    resource: String,
    measure: String,
    better: String,
    harm: f64,
    lasts_s: u64,
    tier: Option<String>,
    account: Option<String>,
    #[serde(default)]
    salt: u64,
    #[serde(default)]
    a: Arm,
    #[serde(default)]
    b: Arm,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Arm {
    budget: f64,
    burst: Option<f64>,
    rent: u32,
    price: u32,
    lead_s: Option<u32>,
    hold_s: Option<u32>,
    step: u32,
    class: Option<String>,
    cover: Option<String>,
    risk_percent: Option<u8>,
    swaps: Option<bool>,
}

impl Arm {
    /// From which risk the manager of swaps acts; 0: as always.
    fn risk_percent(&self) -> Result<u8, String> {
        match (self.risk_percent, self.swaps) {
            (None, Some(false)) => Ok(RISK_NEVER),
            (None, _) if self.cover.is_some() && self.budget == 0.0 => {
                Err("a cover alone: give a risk_percent or a budget too".to_owned())
            }
            (None, _) => Ok(0),
            (Some(_), Some(false)) => {
                Err("swaps = false: then there is no risk_percent".to_owned())
            }
            (Some(percent @ 1..=100), _) => Ok(percent),
            (Some(percent), _) => Err(format!("risk_percent = {percent}: give 1 to 100")),
        }
    }
}

/// Runs the command.
pub fn run(command: &ExperimentCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        ExperimentCommand::Start { file } => start(file, reach, out),
        ExperimentCommand::Stop { experiment } => {
            let mut door = reach.acting(Who::OPERATOR)?;
            let message = StopExperiment {
                client_id: door.next_client_id().into(),
                experiment: (*experiment).into(),
                reserved: 0.into(),
            };
            let left = door.call(&message)?.value.get();
            let object = json!({ "experiment": experiment, "to_be_given_back": left });
            let text = format!("experiment {experiment} ends; policies to be given back: {left}");
            Ok(out.say(&object, &text)?)
        }
        ExperimentCommand::List => list(reach, out),
        ExperimentCommand::Show { experiment } => show(*experiment, reach, out),
    }
}

/// Thousandths of a number that is not negative.
fn milli(number: f64) -> Result<u64, String> {
    let milli = (number * 1e3).round();
    if (0.0..1e15).contains(&milli) { Ok(milli as u64) } else { Err(format!("{number}")) }
}

fn start(file: &Path, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let told =
        |error: &dyn std::fmt::Display| Trouble::Usage(format!("{}: {error}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
    let read: File = toml::from_str(&text).map_err(|error| told(&error))?;
    let mut door = reach.acting(Who::OPERATOR)?;
    let mut message = message(&read).map_err(|error| told(&error))?;
    if let Some(wanted) = &read.tier {
        message.tier = find_tier(wanted, &tiers(&mut door)?)?.into();
    }
    if let Some(wanted) = &read.account {
        message.account = find_account(wanted, &accounts(&mut door)?)?.into();
    }
    message.client_id = door.next_client_id().into();
    let number = door.call(&message)?.value.get();
    let object = json!({ "experiment": number, "name": read.name });
    Ok(out.say(&object, &format!("experiment {number} has begun: {}", read.name))?)
}

/// The message that a file describes, for every tier and account.
fn message(read: &File) -> Result<StartExperiment, String> {
    let mut message = StartExperiment {
        salt: read.salt.into(),
        lasts_ms: read.lasts_s.saturating_mul(1000).into(),
        harm_milli: milli(read.harm).map_err(|number| format!("harm = {number}"))?.into(),
        account: ANY.into(),
        tier: u16::MAX.into(),
        resource: parse_resource(&read.resource)? as u8,
        measure: match read.measure.as_str() {
            "cost" => MEASURE_COST,
            kpi => parse_kpi(kpi)? as u8,
        },
        more_is_better: match read.better.as_str() {
            "less" => 0,
            "more" => 1,
            other => return Err(format!("better = {other:?}: give less or more")),
        },
        name: field(&read.name).ok_or_else(|| format!("{:?} is too long a name", read.name))?,
        ..StartExperiment::zeroed()
    };
    for (at, arm) in [&read.a, &read.b].into_iter().enumerate() {
        let micro = |units: f64| milli(units * 1e3).map_err(|units| format!("budget = {units}"));
        message.risk_percent[at] = arm.risk_percent()?;
        if matches!(message.risk_percent[at], 1..=100) {
            let cover = arm.cover.as_deref().map_or(Ok(Cover::P90), parse_cover)?;
            message.cover[at] = cover as u8;
        }
        if arm.budget == 0.0 {
            continue;
        }
        message.budget_micro[at] = micro(arm.budget)?.into();
        message.burst_micro[at] = micro(arm.burst.unwrap_or(arm.budget / 10.0))?.into();
        message.rent_ticks[at] = arm.rent.into();
        message.price_ticks[at] = arm.price.into();
        message.lead_ms[at] = arm.lead_s.unwrap_or(60).saturating_mul(1000).into();
        message.hold_ms[at] = arm.hold_s.unwrap_or(10).saturating_mul(1000).into();
        message.step_vru[at] = arm.step.into();
        let class = arm.class.as_deref().map_or(Ok(LeaseClass::Bounded), parse_class)?;
        let cover = arm.cover.as_deref().map_or(Ok(Cover::P90), parse_cover)?;
        (message.class[at], message.cover[at]) = (class as u8, cover as u8);
    }
    let of_swaps = message.risk_percent != [0; 2];
    let wrong = match (of_swaps, message.budget_micro != [U64::ZERO; 2]) {
        (false, false) => "give an arm a budget, a risk_percent or swaps = false",
        (true, true) => {
            "a budget is of policies, risk_percent and swaps are of swaps: compare one sort"
        }
        (true, false) if message.measure == MEASURE_COST => {
            "measure = \"cost\" is what policies spend: give a KPI"
        }
        (true, false) if message.cover.contains(&(Cover::Measured as u8)) => {
            "cover = \"measured\" is no quantile of a forecast: give p50, p90 or p97.5"
        }
        _ => return Ok(message),
    };
    Err(wrong.to_owned())
}

/// What an arm does, in words.
fn terms(row: &ExperimentRow, arm: usize) -> String {
    match (is_of_swaps(row), row.risk_percent[arm], row.budget_micro[arm].get()) {
        (false, _, 0) => "as they are".to_owned(),
        (false, _, micro) => format!("a policy of {} an hour", funds(micro)),
        (true, 0, _) => "swaps as always".to_owned(),
        (true, RISK_NEVER, _) => "no swaps".to_owned(),
        (true, percent, _) => {
            format!("swaps from {percent}% up to {}", Cover::text_of(row.cover[arm]))
        }
    }
}

/// Thousandths as a number.
fn number(milli: i64) -> String {
    let sign = if milli < 0 { "-" } else { "" };
    let milli = milli.unsigned_abs();
    format!("{sign}{}.{:03}", milli / 1000, milli % 1000)
}

/// The effect of an experiment and its interval, in words.
pub fn effect(row: &ExperimentRow) -> String {
    let signed = |field: U64| number(field.get() as i64);
    if row.has_interval == 0 {
        return "-".to_owned();
    }
    let [effect, low, high] = [row.effect_milli, row.low_milli, row.high_milli].map(signed);
    format!("{effect} [{low}, {high}]")
}

fn rows(reach: &Reach) -> Result<Vec<ExperimentRow>, Trouble> {
    reach.reader()?.pages(|from| QueryExperiments { from: from.into() })
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut list = out.list(&[
        right("NUMBER"),
        left("NAME"),
        left("COMPARES"),
        left("STATE"),
        left("MEASURE"),
        right("A"),
        right("B"),
        right("SAMPLE"),
        right("B - A [95%]"),
    ]);
    for row in rows(reach)? {
        list.object(&object(&row))?;
        list.cells(vec![
            row.experiment.to_string(),
            text(&row.name).to_owned(),
            compares(&row).to_owned(),
            ExperimentEnd::text_of(row.end).to_owned(),
            measure(row.measure).to_owned(),
            number(row.mean_milli[0].get() as i64),
            number(row.mean_milli[1].get() as i64),
            format!("{} + {}", row.sample[0], row.sample[1]),
            effect(&row),
        ]);
    }
    Ok(list.show()?)
}

fn show(experiment: u32, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let row = rows(reach)?.into_iter().find(|row| row.experiment.get() == experiment);
    let row =
        row.ok_or_else(|| Trouble::Refused(format!("there is no experiment {experiment}")))?;
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let exposures: Vec<ExposureRow> =
        door.pages(|from| QueryExposures { from: from.into(), experiment: experiment.into() })?;
    let mut shown = object(&row);
    shown["instances"] = exposures.iter().map(exposure).collect();
    let when = |ms: U64| rfc3339(ms.get().saturating_mul(1_000_000));
    let mut said = format!(
        "experiment {experiment}, {}: {}\nfrom {} to {}, looked {} times for harm beyond {}\n",
        text(&row.name),
        ExperimentEnd::text_of(row.end),
        when(row.started_at_ms),
        when(row.ends_at_ms),
        row.looks,
        number(row.harm_milli.get() as i64),
    );
    for (arm, name) in ["A", "B"].into_iter().enumerate() {
        let mean = number(row.mean_milli[arm].get() as i64);
        let (sample, values) = (row.sample[arm], row.values[arm]);
        let terms = terms(&row, arm);
        said += &format!("{name}, {terms}: mean {mean} of {sample} instances, {values} values\n");
    }
    let better = if row.more_is_better == 1 { "more" } else { "less" };
    said += &format!("{}, {better} is better: B - A = {}", measure(row.measure), effect(&row));
    for row in &exposures {
        let arm = ["A", "B"][usize::from(row.arm & 1)];
        let mean = mean(row).map_or("-".to_owned(), |mean| number(mean as i64));
        let left = if row.left == 1 { ", has left" } else { "" };
        let instance = names.instance(row.instance.get());
        said += &format!("\n  {arm}  {instance}: {mean} of {} values{left}", row.values);
    }
    Ok(out.say(&shown, &said)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_is_sent() {
        let text = "name = 'lead'\nresource = 'cpu'\nmeasure = 'latency'\nbetter = 'less'\n\
                    harm = 0.5\nlasts_s = 90\nsalt = 3\n[b]\nbudget = 3.0\nrent = 12\nlead_s = 60\n";
        let read: File = toml::from_str(text).expect("a file");
        let sent = message(&read).expect("a message");
        assert_eq!((sent.harm_milli.get(), sent.lasts_ms.get(), sent.salt.get()), (500, 90_000, 3));
        assert_eq!(sent.budget_micro.map(|micro| micro.get()), [0, 3_000_000]);
        assert_eq!(sent.burst_micro.map(|micro| micro.get()), [0, 300_000]);
        assert_eq!(sent.lead_ms.map(|ms| ms.get()), [0, 60_000]);
        assert_eq!((sent.class, sent.cover), ([0, LeaseClass::Bounded as u8], [0, 1]));
        for wrong in ["harm = -1.0", "better = 'best'", "measure = 'luck'", "resource = 'time'"] {
            let key = wrong.split(' ').next().expect("a key");
            let line = text.lines().find(|line| line.starts_with(key)).expect("its line");
            let read: File = toml::from_str(&text.replace(line, wrong)).expect("a file");
            assert!(message(&read).is_err(), "{wrong}");
        }
    }

    #[test]
    fn swaps_are_compared_where_an_arm_says_so() {
        let head = "name = 'swaps'\nresource = 'cpu'\nmeasure = 'latency'\nbetter = 'less'\n\
                    harm = 1.0\nlasts_s = 90\n";
        let sent = |head: &str, arms: &str| {
            let read: File = toml::from_str(&format!("{head}{arms}")).expect("a file");
            message(&read).map(|m| (m.risk_percent, m.cover, m.budget_micro.map(|b| b.get())))
        };
        assert_eq!(sent(head, "[a]\n[b]\nswaps = false\n"), Ok(([0, RISK_NEVER], [0, 0], [0; 2])));
        let both = "[a]\nrisk_percent = 10\n[b]\nrisk_percent = 30\ncover = 'p97.5'\n";
        assert_eq!(sent(head, both), Ok(([10, 30], [1, 2], [0; 2])));
        for (wrong, why) in [
            ("[a]\n[b]\n", "budget"),
            ("[a]\n[b]\nswaps = true\n", "budget"),
            ("[a]\n[b]\nrisk_percent = 0\n", "1 to 100"),
            ("[a]\n[b]\nrisk_percent = 101\n", "1 to 100"),
            ("[a]\n[b]\nrisk_percent = 30\nswaps = false\n", "no risk_percent"),
            ("[a]\ncover = 'p50'\n[b]\nswaps = false\n", "cover"),
            ("[a]\nbudget = 1.0\n[b]\nrisk_percent = 30\n", "one sort"),
            ("[a]\n[b]\nrisk_percent = 30\ncover = 'measured'\n", "p97.5"),
        ] {
            let refused = sent(head, wrong).expect_err(wrong);
            assert!(refused.contains(why), "{wrong}: {refused}");
        }
        let cost = sent(&head.replace("latency", "cost"), both).expect_err("a cost of swaps");
        assert!(cost.contains("KPI"), "{cost}");
    }
}
