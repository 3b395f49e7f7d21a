//! `hvctl forecast`: what instances are said to need.

use super::door::{Door, Reach, Trouble};
use super::json;
use super::lease::Acting;
use super::names::{Directory, find_instance, instances, parse_resource};
use super::output::Output;
use super::plan;
use super::table::{left, right};
use super::time::{parse_ms, rfc3339};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use vendue_wire::code::{Horizon, Resource, Source};
use vendue_wire::message::*;

/// What to do with forecasts.
#[derive(Debug, clap::Subcommand)]
pub enum ForecastCommand {
    /// Say what an instance will need; takes the place of what the source said for the horizon
    Set(Box<SetArgs>),
    /// Take a forecast back
    Remove {
        #[command(flatten)]
        of: Of,
        #[command(flatten)]
        acting: Acting,
    },
    /// Show the forecasts that stand, and how likely each is more than its instance has
    List,
    /// Make a file what is planned: scheduled jobs, campaigns
    #[command(after_help = "\
A file of TOML has tables [[event]]: name, instance, resource, from = 2026-12-24T18:00:00Z, lasts_s, and percent (of what \
would be needed otherwise), add (VRUs more) or both; every_days repeats it, until an optional until. A file whose name ends \
in .ics is read as iCalendar: times in UTC, daily and weekly rules; an entry counts whose summary says what is shifted: \
`web cpu +40`, `web cpu 150%`. Events that are planned and not in the file are not planned any more, so run it again \
whenever the file changes.")]
    Plan {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        acting: Acting,
    },
    /// Show what is planned
    Events,
    /// Show what an instance used of a resource, and what had been foreseen of it
    History {
        /// Instance, by name or number
        instance: String,
        /// Resource
        #[arg(value_parser = parse_resource)]
        resource: Resource,
        /// A row a second, minute or hour; an hour, a week and a year of them are kept
        #[arg(long, default_value = "minute", value_parser = parse_step)]
        step: u16,
        /// From this time on, in UTC: 2026-01-31T12:00:00Z [default: the oldest]
        #[arg(long, value_name = "TIME", value_parser = parse_ms)]
        from: Option<u64>,
    },
}

/// Which forecast.
#[derive(Debug, clap::Args)]
pub struct Of {
    /// Instance, by name or number
    instance: String,
    /// Resource
    #[arg(value_parser = parse_resource)]
    resource: Resource,
    /// Who says so: user, plan, or model (operators, in the forecaster's place)
    #[arg(long, default_value = "user", value_parser = parse_source)]
    source: Source,
    /// Its place: hour, day, week or event
    #[arg(long, default_value = "hour", value_parser = parse_horizon)]
    horizon: Horizon,
}

/// A forecast.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    of: Of,
    /// VRUs needed: as likely more as less
    p50: u32,
    /// VRUs that will do with 90% [default: as many]
    #[arg(long)]
    p90: Option<u32>,
    /// VRUs that will do with 97.5% [default: as many as with 90%]
    #[arg(long)]
    p975: Option<u32>,
    /// It holds from so many seconds from now on
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    starts_in: u32,
    /// For so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    lasts: u32,
    #[command(flatten)]
    acting: Acting,
}

fn parse_source(text: &str) -> Result<Source, String> {
    let found = Source::ALL.iter().find(|source| source.text() == text);
    found.copied().ok_or_else(|| "give model, user or plan".to_owned())
}

fn parse_horizon(text: &str) -> Result<Horizon, String> {
    let found = Horizon::ALL.iter().find(|horizon| horizon.text() == text);
    found.copied().ok_or_else(|| "give hour, day, week or event".to_owned())
}

/// Seconds of a step.
fn parse_step(text: &str) -> Result<u16, String> {
    let steps = [("second", 1), ("minute", 60), ("hour", 3600)];
    let found = steps.into_iter().find(|step| step.0 == text);
    found.map(|step| step.1).ok_or_else(|| "give second, minute or hour".to_owned())
}

/// Runs the command.
pub fn run(command: &ForecastCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let nothing = SetForecast::zeroed();
    match command {
        ForecastCommand::Set(args) => {
            let p90 = args.p90.unwrap_or(args.p50);
            let ms = |seconds: u32| U32::from(seconds.saturating_mul(1000));
            let message = SetForecast {
                starts_in_ms: ms(args.starts_in),
                lasts_ms: ms(args.lasts),
                p50_vru: args.p50.into(),
                p90_vru: p90.into(),
                p975_vru: args.p975.unwrap_or(p90).into(),
                ..nothing
            };
            say(&args.of, &args.acting, message, reach, out)
        }
        ForecastCommand::Remove { of, acting } => say(of, acting, nothing, reach, out),
        ForecastCommand::List => list(reach, out),
        ForecastCommand::Plan { file, acting } => plan(file, acting, reach, out),
        ForecastCommand::Events => events(reach, out),
        ForecastCommand::History { instance, resource, step, from } => {
            let mut door = reach.reader()?;
            let number = find_instance(instance, &instances(&mut door)?)?;
            let query = |from_ns: u64| QueryHistory {
                from_ns: from_ns.max(from.unwrap_or(0).saturating_mul(1_000_000)).into(),
                instance: number.into(),
                width_s: (*step).into(),
                resource: *resource as u8,
                reserved: 0,
            };
            history(&door.pages_by_id::<HistoryRow, _>(query)?, out)
        }
    }
}

/// Makes what a file says what is planned, and tells what that changes.
fn plan(file: &Path, acting: &Acting, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let (planned, others) = plan::read(file).map_err(Trouble::Usage)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis());
    let mut door = acting.door(reach)?;
    let known = instances(&mut door)?;
    let standing: Vec<EventRow> = door.pages(|from| QueryEvents { from: from.into() })?;
    let (mut wanted, mut over) = (Vec::new(), 0);
    for event in &planned {
        let instance = find_instance(&event.instance, &known)?;
        if u128::from(event.ends_ms()) <= now_ms {
            over += 1;
            continue;
        }
        let too_long = || Trouble::Usage(format!("event {:?} lasts too long", event.name));
        wanted.push(EventRow {
            starts_at_ms: event.starts_ms.into(),
            until_ms: event.until_ms.into(),
            lasts_ms: u32::try_from(event.lasts_ms).map_err(|_| too_long())?.into(),
            instance: instance.into(),
            add_vru: event.add_vru.into(),
            percent: event.percent.into(),
            every_days: event.every_days.into(),
            resource: event.resource as u8,
            name: field_cut(&event.name),
            ..EventRow::zeroed()
        });
    }
    let key = |row: &EventRow| (row.instance, row.resource, row.name);
    let (mut said, mut same, mut removed) = (0, 0, 0);
    for row in &standing {
        if !wanted.iter().any(|wanted| key(wanted) == key(row)) {
            let (instance, resource, name) = key(row);
            let gone = EventRow { instance, resource, name, ..EventRow::zeroed() };
            say_event(&gone, &mut door)?;
            removed += 1;
        }
    }
    for row in &wanted {
        if standing.iter().any(|row_now| EventRow { next_at_ms: 0.into(), ..*row_now } == *row) {
            same += 1;
        } else {
            say_event(row, &mut door)?;
            said += 1;
        }
    }
    let object = json!({ "planned": said, "unchanged": same, "removed": removed, "over": over, "not_understood": others });
    let mut text = format!(
        "planned: {said}; as before: {same}; not planned any more: {removed}; over: {over}"
    );
    if others > 0 {
        text += &format!("; entries that say nothing of an instance: {others}");
    }
    Ok(out.say(&object, &text)?)
}

fn say_event(row: &EventRow, door: &mut Door) -> Result<(), Trouble> {
    let message = PlanEvent {
        client_id: door.next_client_id().into(),
        starts_at_ms: row.starts_at_ms,
        until_ms: row.until_ms,
        lasts_ms: row.lasts_ms,
        instance: row.instance,
        add_vru: row.add_vru,
        percent: row.percent,
        every_days: row.every_days,
        resource: row.resource,
        reserved: [0; 7],
        name: row.name,
    };
    let done = door.call(&message).map(|_| ());
    done.map_err(|error| match error {
        Trouble::Refused(why) => Trouble::Refused(format!("event {:?}: {why}", text(&row.name))),
        other => other,
    })
}

fn events(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        left("INSTANCE"),
        left("RESOURCE"),
        left("NAME"),
        left("NEXT"),
        right("SECONDS"),
        right("PERCENT"),
        right("VRU"),
        right("DAYS"),
        left("UNTIL"),
    ]);
    for row in door.pages::<EventRow, _>(|from| QueryEvents { from: from.into() })? {
        let resource = Resource::text_of(row.resource);
        list.object(&json::event(&row))?;
        let when = |ms: u64| rfc3339(ms.saturating_mul(1_000_000));
        list.cells(vec![
            names.instance(row.instance.get()),
            resource.to_owned(),
            text(&row.name).to_owned(),
            when(row.next_at_ms.get()),
            (row.lasts_ms.get() / 1000).to_string(),
            format!("{}%", row.percent),
            format!("+{}", row.add_vru),
            if row.every_days.get() == 0 { "-".to_owned() } else { row.every_days.to_string() },
            when(row.until_ms.get()),
        ]);
    }
    Ok(list.show()?)
}

fn history(rows: &[HistoryRow], out: &mut Output) -> Result<(), Trouble> {
    let names = ["USED", "P2.5", "P10", "P50", "P90", "P97.5"];
    let heads: Vec<_> = std::iter::once(left("FROM")).chain(names.map(right)).collect();
    let mut list = out.list(&heads);
    for row in rows {
        let [used, p025, p10, p50, p90, p975] = [
            row.used_milli_vru,
            row.p025_milli_vru,
            row.p10_milli_vru,
            row.p50_milli_vru,
            row.p90_milli_vru,
            row.p975_milli_vru,
        ]
        .map(|milli| Some(milli.get()).filter(|milli| *milli != u32::MAX));
        list.object(&json::history::history(row))?;
        let vru = |milli: Option<u32>| {
            milli.map_or("-".to_owned(), |milli| format!("{}.{:03}", milli / 1000, milli % 1000))
        };
        let cells = [used, p025, p10, p50, p90, p975].map(vru);
        list.cells(std::iter::once(rfc3339(row.time_ns.get())).chain(cells).collect());
    }
    Ok(list.show()?)
}

fn say(
    of: &Of,
    acting: &Acting,
    mut message: SetForecast,
    reach: &Reach,
    out: &mut Output,
) -> Result<(), Trouble> {
    let mut door = acting.door(reach)?;
    let number = find_instance(&of.instance, &instances(&mut door)?)?;
    message.client_id = door.next_client_id().into();
    message.instance = number.into();
    message.resource = of.resource as u8;
    message.source = of.source as u8;
    message.horizon = of.horizon as u8;
    let standing = door.call(&message)?.value.get();
    let object = json!({ "instance": number, "standing": standing });
    let resource = of.resource;
    let text = format!("forecasts of instance {}'s {resource} that stand: {standing}", of.instance);
    Ok(out.say(&object, &text)?)
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        left("INSTANCE"),
        left("RESOURCE"),
        left("SOURCE"),
        left("HORIZON"),
        left("FROM"),
        left("TO"),
        right("P50"),
        right("P90"),
        right("P97.5"),
        right("HAS"),
        right("SHORT"),
        right("RISK"),
    ]);
    for row in door.pages::<ForecastRow, _>(|from| QueryForecasts { from: from.into() })? {
        let resource = Resource::text_of(row.resource);
        let source = Source::text_of(row.source);
        let horizon = Horizon::text_of(row.horizon);
        let short = row.short_permille.get();
        list.object(&json::forecast(&row))?;
        let when = |ms: u64| rfc3339(ms.saturating_mul(1_000_000));
        list.cells(vec![
            names.instance(row.instance.get()),
            resource.to_owned(),
            source.to_owned(),
            horizon.to_owned(),
            when(row.starts_at_ms.get()),
            when(row.ends_at_ms.get()),
            row.p50_vru.to_string(),
            row.p90_vru.to_string(),
            row.p975_vru.to_string(),
            row.has_vru.to_string(),
            format!("{}.{}%", short / 10, short % 10),
            row.risk.to_string(),
        ]);
    }
    Ok(list.show()?)
}
