//! Files of planned events: TOML, or iCalendar as calendars export it.
//!
//! Of iCalendar (RFC 5545) what is needed is read: `VEVENT` with `UID`, `SUMMARY`, `DTSTART`, `DTEND` or
//! `DURATION`, and an `RRULE` that is daily or weekly. What would be misread is refused: times that are not in
//! UTC, other rules, exceptions of a rule. The summary says what is shifted, and how: `web cpu +40`,
//! `web cpu 150%`, `web cpu 150% +40`.

use super::names::parse_resource;
use super::time::parse_ms;
use serde::Deserialize;
use std::path::Path;
use vendue_wire::code::Resource;
use vendue_wire::message::{NAME_BYTES, field_cut, text};

const DAY_MS: u64 = 86_400_000;
const WEEKDAYS: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
/// Bytes of a file at most.
const FILE_BYTES_MAX: usize = 1 << 20;

/// An event as a file plans it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub name: String,
    pub instance: String,
    pub resource: Resource,
    pub starts_ms: u64,
    pub lasts_ms: u64,
    /// From here on it does not begin again; 0: it always does.
    pub until_ms: u64,
    pub every_days: u16,
    pub percent: u16,
    pub add_vru: u32,
}

impl Planned {
    /// When it is over for good, milliseconds.
    pub fn ends_ms(&self) -> u64 {
        match (self.every_days, self.until_ms) {
            (0, _) => self.starts_ms.saturating_add(self.lasts_ms),
            (_, 0) => u64::MAX,
            (_, until_ms) => until_ms.saturating_add(self.lasts_ms),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    event: Vec<Row>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    name: String,
    instance: String,
    resource: String,
    from: toml::value::Datetime,
    lasts_s: u64,
    #[serde(default = "as_it_is")]
    percent: u16,
    #[serde(default)]
    add: u32,
    #[serde(default)]
    every_days: u16,
    until: Option<toml::value::Datetime>,
}

fn as_it_is() -> u16 {
    100
}

/// The events of a file, and how many of a calendar's entries say nothing of an instance.
pub fn read(path: &Path) -> Result<(Vec<Planned>, usize), String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = std::fs::read(path).map_err(|error| told(&error))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(told(&"it is longer than 1 MiB"));
    }
    let text = String::from_utf8(bytes).map_err(|error| told(&error))?;
    let is_calendar = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("ics"));
    let read = if is_calendar { calendar(&text) } else { table(&text).map(|all| (all, 0)) };
    let (all, others) = read.map_err(|error| told(&error))?;
    for (at, event) in all.iter().enumerate() {
        let same = |other: &&Planned| {
            (&other.name, &other.instance, other.resource)
                == (&event.name, &event.instance, event.resource)
        };
        if all[..at].iter().any(|other| same(&other)) {
            let Planned { name, instance, resource, .. } = event;
            return Err(told(&format!("two events {name:?} of {instance}'s {resource}")));
        }
    }
    Ok((all, others))
}

fn table(text: &str) -> Result<Vec<Planned>, String> {
    let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
    let planned = |row: Row| {
        let of = |error: String| format!("event {:?}: {error}", row.name);
        if row.name.is_empty() || row.name.len() > NAME_BYTES {
            return Err(of(format!("give a name of 1 to {NAME_BYTES} bytes")));
        }
        Ok(Planned {
            resource: parse_resource(&row.resource).map_err(of)?,
            starts_ms: parse_ms(&row.from.to_string()).map_err(of)?,
            lasts_ms: row.lasts_s.saturating_mul(1000),
            until_ms: row.until.map_or(Ok(0), |at| parse_ms(&at.to_string())).map_err(of)?,
            name: row.name,
            instance: row.instance,
            every_days: row.every_days,
            percent: row.percent,
            add_vru: row.add,
        })
    };
    file.event.into_iter().map(planned).collect()
}

/// A property of an entry: name, parameters, value.
type Property<'a> = (String, &'a str, &'a str);

fn calendar(text: &str) -> Result<(Vec<Planned>, usize), String> {
    // Long lines go on behind a break and a blank.
    let text = text.replace("\r\n", "\n").replace("\n ", "").replace("\n\t", "");
    let (mut all, mut others, mut entry) = (Vec::new(), 0, None::<Vec<Property<'_>>>);
    let mut below = 0;
    for line in text.lines() {
        match (line, &mut entry) {
            ("BEGIN:VEVENT", _) => entry = Some(Vec::new()),
            ("END:VEVENT", Some(properties)) => {
                match events(properties)? {
                    Some(events) => all.extend(events),
                    None => others += 1,
                }
                entry = None;
            }
            // Alarms and the like.
            (_, Some(_)) if line.starts_with("BEGIN:") => below += 1,
            (_, Some(_)) if line.starts_with("END:") => below -= 1,
            (_, Some(properties)) if below == 0 => {
                let Some((name, value)) = line.split_once(':') else { continue };
                let (name, parameters) = name.split_once(';').unwrap_or((name, ""));
                properties.push((name.to_ascii_uppercase(), parameters, value));
            }
            _ => {}
        }
    }
    Ok((all, others))
}

/// What an entry plans; `None` if its summary is of nothing here, or it is cancelled.
fn events(properties: &[Property<'_>]) -> Result<Option<Vec<Planned>>, String> {
    let of = |name: &str| properties.iter().find(|property| property.0 == name);
    let value = |name| of(name).map(|property| property.2);
    let (summary, uid) = (value("SUMMARY").unwrap_or(""), value("UID").unwrap_or(""));
    let Some((instance, resource, percent, add_vru)) = shift(summary) else { return Ok(None) };
    if value("STATUS") == Some("CANCELLED") {
        return Ok(None);
    }
    let told = |error: String| format!("event {summary:?}: {error}");
    for name in ["EXDATE", "RDATE", "RECURRENCE-ID"] {
        if of(name).is_some() {
            return Err(told(format!("{name} is not understood")));
        }
    }
    let time = |name| of(name).map(|property| moment(property).map_err(told)).transpose();
    let starts_ms = time("DTSTART")?.ok_or_else(|| told("it has no DTSTART".to_owned()))?;
    let lasts_ms = match (time("DTEND")?, value("DURATION")) {
        (Some(ends_ms), _) => ends_ms.saturating_sub(starts_ms),
        (None, Some(text)) => duration(text).ok_or_else(|| told(format!("DURATION {text}")))?,
        (None, None) => return Err(told("it has neither DTEND nor DURATION".to_owned())),
    };
    let uid = if uid.is_empty() { summary } else { uid };
    let event = Planned {
        name: text(&field_cut::<NAME_BYTES>(uid)).to_owned(),
        instance,
        resource,
        starts_ms,
        lasts_ms,
        until_ms: 0,
        every_days: 0,
        percent,
        add_vru,
    };
    match value("RRULE") {
        None => Ok(Some(vec![event])),
        Some(rule) => repeated(&event, rule)
            .map(Some)
            .ok_or_else(|| told(format!("RRULE {rule} is not understood"))),
    }
}

/// `web cpu 150% +40`: instance, resource, percent and VRUs more.
fn shift(summary: &str) -> Option<(String, Resource, u16, u32)> {
    let (mut rest, mut percent, mut add) = (summary.trim_end(), None, None);
    while let Some((before, word)) = rest.rsplit_once(' ') {
        if let Some(number) = word.strip_suffix('%') {
            percent = Some(number.parse().ok()?);
        } else if let Some(number) = word.strip_prefix('+') {
            add = Some(number.parse().ok()?);
        } else {
            let resource = parse_resource(word).ok()?;
            percent.is_some().then_some(()).or(add.map(|_| ()))?;
            let instance = before.trim().to_owned();
            return Some((instance, resource, percent.unwrap_or(100), add.unwrap_or(0)));
        }
        rest = before.trim_end();
    }
    None
}

/// `20261224T180000Z`, or a day, which begins at midnight UTC.
fn moment((name, parameters, value): &Property<'_>) -> Result<u64, String> {
    if !parameters.is_empty() && !["VALUE=DATE", "VALUE=DATE-TIME"].contains(parameters) {
        return Err(format!("{name};{parameters} is not understood: give times in UTC"));
    }
    stamp(value).ok_or_else(|| format!("{name}:{value} is no time in UTC"))
}

fn stamp(value: &str) -> Option<u64> {
    let (date, time) = value.split_once('T').unwrap_or((value, "000000Z"));
    let part = |text: &str, from, to| text.get(from..to).map(str::to_owned);
    let (year, month, day) = (part(date, 0, 4)?, part(date, 4, 6)?, part(date, 6, date.len())?);
    let (hour, minute, second) = (part(time, 0, 2)?, part(time, 2, 4)?, part(time, 4, time.len())?);
    parse_ms(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}")).ok()
}

/// `P1D`, `PT90M`, `P1DT2H`, in milliseconds.
fn duration(text: &str) -> Option<u64> {
    let (mut ms, mut number) = (0_u64, String::new());
    for letter in text.strip_prefix('P')?.chars() {
        let unit_ms = match letter {
            'W' => 7 * DAY_MS,
            'D' => DAY_MS,
            'H' => 3_600_000,
            'M' => 60_000,
            'S' => 1000,
            'T' if number.is_empty() => continue,
            digit => {
                number.push(digit);
                continue;
            }
        };
        ms = ms.checked_add(number.parse::<u64>().ok()?.checked_mul(unit_ms)?)?;
        number.clear();
    }
    number.is_empty().then_some(ms)
}

/// An event by a rule: one for each of the rule's weekdays.
fn repeated(event: &Planned, rule: &str) -> Option<Vec<Planned>> {
    let (mut every_days, mut each, mut count, mut until_ms) = (0, 1_u16, None, 0);
    let mut days = Vec::new();
    for part in rule.split(';') {
        match part.split_once('=')? {
            ("FREQ", "DAILY") => every_days = 1,
            ("FREQ", "WEEKLY") => every_days = 7,
            ("INTERVAL", number) => each = number.parse().ok()?,
            ("COUNT", number) => count = Some(number.parse::<u64>().ok()?),
            ("UNTIL", time) => until_ms = stamp(time)? + 1,
            ("WKST", "MO") => {}
            ("BYDAY", list) => {
                for day in list.split(',') {
                    days.push(WEEKDAYS.iter().position(|name| *name == day)? as u64);
                }
            }
            _ => return None,
        }
    }
    let every_days = u16::checked_mul(every_days, each).filter(|days| *days > 0)?;
    let every_ms = u64::from(every_days) * DAY_MS;
    if let Some(count) = count {
        until_ms = event.starts_ms + count.checked_sub(1)?.checked_mul(every_ms)? + 1;
    }
    let event = Planned { every_days, until_ms, ..event.clone() };
    // The first day there was is a Thursday.
    let weekday = (event.starts_ms / DAY_MS + 3) % 7;
    if days.is_empty() || days == [weekday] {
        return Some(vec![event]);
    }
    if every_days % 7 != 0 || count.is_some() {
        return None;
    }
    let of = |day: u64| {
        let monday_ms = event.starts_ms - weekday * DAY_MS;
        let mut starts_ms = monday_ms + day * DAY_MS;
        if starts_ms < event.starts_ms {
            starts_ms += every_ms;
        }
        let cut = text(&field_cut::<{ NAME_BYTES - 3 }>(&event.name)).to_owned();
        let name = format!("{cut} {}", WEEKDAYS[day as usize]);
        Planned { name, starts_ms, ..event.clone() }
    };
    Some(days.into_iter().map(of).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        parse_ms(text).expect("a time")
    }

    #[test]
    fn a_table_of_events_is_read() {
        let read = table(
            "[[event]]\nname = 'sale'\ninstance = 'web 1'\nresource = 'cpu'\n\
             from = 2026-12-24T18:00:00Z\nlasts_s = 7200\npercent = 150\nadd = 4\nevery_days = 7\n\
             until = 2027-02-01T00:00:00Z\n",
        );
        let event = Planned {
            name: "sale".to_owned(),
            instance: "web 1".to_owned(),
            resource: Resource::Cpu,
            starts_ms: ms("2026-12-24T18:00:00Z"),
            lasts_ms: 7_200_000,
            until_ms: ms("2027-02-01T00:00:00Z"),
            every_days: 7,
            percent: 150,
            add_vru: 4,
        };
        assert_eq!(read, Ok(vec![event]));
        let wrong = "[[event]]\nname = 'sale'\ninstance = 'web'\nresource = 'cpu'\nlasts_s = 1\n";
        for (line, what) in [
            ("from = 2026-12-24T18:00:00", "in UTC"),
            ("from = 2026-12-24T18:00:00+01:00", "in UTC"),
            ("from = 2026-12-24T18:00:00Z\nunless = 1", "unless"),
        ] {
            let error = table(&format!("{wrong}{line}\n")).expect_err(line);
            assert!(error.contains(what), "{error}");
        }
    }

    fn vevent(lines: &str) -> Result<Vec<Planned>, String> {
        let head = "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\nUID:one@example\r\n";
        let tail = "\r\nBEGIN:VALARM\r\nSUMMARY:alarm cpu +9\r\nEND:VALARM\r\nEND:VEVENT\r\n";
        calendar(&format!("{head}{}{tail}", lines.replace('\n', "\r\n"))).map(|read| read.0)
    }

    #[test]
    fn a_calendar_is_read() {
        let read = vevent(
            "SUMMARY:web 1 c\n pu 150% +40\nDTSTART:20261224T180000Z\nDTEND:20261224T193000Z",
        );
        let event = Planned {
            name: "one@example".to_owned(),
            instance: "web 1".to_owned(),
            resource: Resource::Cpu,
            starts_ms: ms("2026-12-24T18:00:00Z"),
            lasts_ms: 5_400_000,
            until_ms: 0,
            every_days: 0,
            percent: 150,
            add_vru: 40,
        };
        assert_eq!(read, Ok(vec![event.clone()]));
        let daily = vevent(
            "SUMMARY:web 1 cpu 150% +40\nDTSTART:20261224T180000Z\nDURATION:PT1H30M\n\
             RRULE:FREQ=DAILY;INTERVAL=2;COUNT=3",
        );
        let until_ms = ms("2026-12-28T18:00:00Z") + 1;
        assert_eq!(daily, Ok(vec![Planned { every_days: 2, until_ms, ..event.clone() }]));
        let day = vevent(
            "SUMMARY:web 1 cpu 150% +40\nDTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261225",
        );
        let (starts_ms, lasts_ms) = (ms("2026-12-24T00:00:00Z"), DAY_MS);
        assert_eq!(day, Ok(vec![Planned { starts_ms, lasts_ms, ..event }]));
        assert_eq!(vevent("SUMMARY:lunch with web\nDTSTART:20261224T180000Z"), Ok(vec![]));
    }

    #[test]
    fn each_weekday_of_a_rule_is_an_event_from_the_first_on() {
        // A Thursday.
        let read = vevent(
            "SUMMARY:web cpu +4\nDTSTART:20261224T180000Z\nDURATION:PT1H\n\
             RRULE:FREQ=WEEKLY;BYDAY=MO,TH,FR;UNTIL=20270110T000000Z",
        );
        let read = read.expect("read");
        let starts: Vec<u64> = read.iter().map(|event| event.starts_ms).collect();
        let days = ["2026-12-28T18:00:00Z", "2026-12-24T18:00:00Z", "2026-12-25T18:00:00Z"];
        assert_eq!(starts, days.map(ms));
        let names: Vec<&str> = read.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, ["one@example MO", "one@example TH", "one@example FR"]);
        let until_ms = ms("2027-01-10T00:00:00Z") + 1;
        assert!(read.iter().all(|event| (event.every_days, event.until_ms) == (7, until_ms)));
    }

    #[test]
    fn what_would_be_misread_is_refused() {
        let lasts = "DTSTART:20261224T180000Z\nDURATION:PT1H";
        for (lines, what) in [
            ("DTSTART;TZID=Europe/Rome:20261224T180000\nDURATION:PT1H", "in UTC"),
            ("DTSTART:20261224T180000\nDURATION:PT1H", "in UTC"),
            ("DTSTART:20261324T180000Z\nDURATION:PT1H", "in UTC"),
            ("DTSTART:20261224T180000Z", "DURATION"),
            ("DTSTART:20261224T180000Z\nDURATION:PT1X", "DURATION"),
            ("DURATION:PT1H", "DTSTART"),
            (&format!("{lasts}\nRRULE:FREQ=MONTHLY"), "RRULE"),
            (&format!("{lasts}\nRRULE:FREQ=WEEKLY;BYDAY=1MO"), "RRULE"),
            (&format!("{lasts}\nRRULE:FREQ=WEEKLY;COUNT=3;BYDAY=MO,FR"), "RRULE"),
            (&format!("{lasts}\nRRULE:FREQ=DAILY;INTERVAL=0"), "RRULE"),
            (&format!("{lasts}\nEXDATE:20261231T180000Z"), "EXDATE"),
        ] {
            let error = vevent(&format!("SUMMARY:web cpu +4\n{lines}")).expect_err(lines);
            assert!(error.contains(what), "{error}");
        }
    }
}
