//! Planned events: scheduled jobs, campaigns. While one lasts its instance needs more of a resource,
//! or less, than is foreseen of it.
//!
//! An event shifts what the daemon's own model foresees, and what was measured where that stands for a
//! forecast; not what somebody else said, who knew of it. At a moment the percents of the events that
//! are going on are added up as far as they differ from a hundred, then what they add; of a stretch of time the
//! moment with the greatest need counts. An event can begin anew after whole days, of 24 hours.
//!
//! At most [`EACH_MAX`] are of an instance's resource, so that a look at them is short.

use super::Machine;
use super::command::Envelope;
use super::event::Outbox;
use super::ledger::pocket;
use super::query::{LAST, PAGE, end};
use vendue_wire::code::{Reject, Resource};
use vendue_wire::message::{
    Body, EVENT_PERCENT_MAX, EventRow, FORECAST_MS_MAX, NAME_BYTES, PlanEvent,
};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Planned events at most.
pub const EVENTS_MAX: usize = 1024;
/// Those of an instance's resource at most.
pub const EACH_MAX: usize = 16;
/// An event begins again after so many days at most.
const DAYS_MAX: u16 = 366;
const DAY_MS: u64 = 86_400_000;
/// No event begins later: then every sum of times fits.
const STARTS_MS_MAX: u64 = 1 << 60;

/// A planned event.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Planned {
    /// When it begins first, milliseconds since 1970 UTC.
    pub starts_ms: u64,
    /// From here on it does not begin again; 0: it always does.
    pub until_ms: u64,
    /// It lasts so long, milliseconds.
    pub lasts_ms: u32,
    /// VRUs more that are needed.
    pub add: u32,
    /// Percent of what would be needed otherwise.
    pub percent: u16,
    /// It begins again after so many days; 0: it is once.
    pub every_days: u16,
    /// Instance.
    pub instance: u16,
    /// A [`Resource`].
    pub resource: u8,
    /// Zero.
    pub reserved: u8,
    /// What it is called.
    pub name: [u8; NAME_BYTES],
}

impl Planned {
    fn key(&self) -> (u16, u8, [u8; NAME_BYTES]) {
        (self.instance, self.resource, self.name)
    }

    /// When it begins that is going on or comes next; `None` once it is over for good.
    pub fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let ends_ms = self.starts_ms + u64::from(self.lasts_ms);
        let every_ms = u64::from(self.every_days) * DAY_MS;
        if now_ms < ends_ms {
            return Some(self.starts_ms);
        }
        let passed = (now_ms - ends_ms).checked_div(every_ms)? + 1;
        let next = self.starts_ms.saturating_add(passed.saturating_mul(every_ms));
        (self.until_ms == 0 || next < self.until_ms).then_some(next)
    }

    fn goes_on(&self, at_ms: u64) -> bool {
        self.next_ms(at_ms).is_some_and(|starts| starts <= at_ms)
    }

    /// Calls `look` with each moment from `from_ms` on and before `to_ms` at which it begins or ends.
    fn turns(&self, from_ms: u64, to_ms: u64, mut look: impl FnMut(u64)) {
        let mut at = from_ms;
        while let Some(starts) = self.next_ms(at).filter(|starts| *starts < to_ms) {
            let ends = starts + u64::from(self.lasts_ms);
            look(starts.max(from_ms));
            if ends < to_ms {
                look(ends);
            }
            at = ends;
        }
    }
}

/// VRUs that are needed at most from `from_ms` on and before `to_ms`, of which there is some, where
/// `vru` would be without these events.
pub fn shifted(events: &[Planned], vru: u32, from_ms: u64, to_ms: u64) -> u32 {
    let need = |at_ms: u64| {
        let (mut percent, mut add) = (100_i64, 0_u64);
        for event in events.iter().filter(|event| event.goes_on(at_ms)) {
            percent += i64::from(event.percent) - 100;
            add += u64::from(event.add);
        }
        let need = u64::from(vru) * percent.max(0) as u64;
        need.div_ceil(100) + add
    };
    let mut most = need(from_ms);
    for event in events {
        event.turns(from_ms, to_ms, |at_ms| most = most.max(need(at_ms)));
    }
    u32::try_from(most).unwrap_or(u32::MAX)
}

/// All planned events, by instance, resource and name.
#[derive(Debug)]
pub struct Plan {
    rows: Box<[Planned]>,
    len: usize,
}

impl Plan {
    /// Nothing is planned.
    pub(super) fn new() -> Plan {
        Plan { rows: vec![Planned::default(); EVENTS_MAX].into_boxed_slice(), len: 0 }
    }

    /// All of them.
    pub fn rows(&self) -> &[Planned] {
        &self.rows[..self.len]
    }

    /// Those of an instance's resource.
    pub fn of(&self, instance: u16, resource: Resource) -> &[Planned] {
        let of = |row: &Planned| pocket(row.instance, Resource::ALL[usize::from(row.resource)]);
        let wanted = pocket(instance, resource);
        let from = self.rows().partition_point(|row| of(row) < wanted);
        let many = self.rows()[from..].partition_point(|row| of(row) == wanted);
        &self.rows()[from..from + many]
    }

    /// Keeps those that are wanted.
    fn retain(&mut self, wanted: impl Fn(&Planned) -> bool) {
        let mut kept = 0;
        for at in 0..self.len {
            if wanted(&self.rows[at]) {
                self.rows[kept] = self.rows[at];
                kept += 1;
            }
        }
        self.rows[kept..self.len].fill(Planned::default());
        self.len = kept;
    }

    /// Puts one in the place of that of its name; false if there is no room for another.
    fn put(&mut self, event: Planned) -> bool {
        let resource = Resource::ALL[usize::from(event.resource)];
        match self.rows().binary_search_by_key(&event.key(), Planned::key) {
            Ok(at) => self.rows[at] = event,
            Err(_) if self.len == EVENTS_MAX => return false,
            Err(_) if self.of(event.instance, resource).len() == EACH_MAX => return false,
            Err(at) => {
                self.rows[at..=self.len].rotate_right(1);
                self.rows[at] = event;
                self.len += 1;
            }
        }
        true
    }

    /// Restores the rows. False if they are none that were ever kept.
    pub(super) fn restore(&mut self, rows: &[Planned], is_live: impl Fn(u16) -> bool) -> bool {
        let sound = |row: &Planned| {
            is_live(row.instance) && Resource::from_u8(row.resource).is_some() && check(row).is_ok()
        };
        let ordered = rows.is_sorted_by(|a, b| a.key() < b.key());
        if !ordered || !rows.iter().all(sound) {
            return false;
        }
        self.rows[..rows.len()].copy_from_slice(rows);
        self.len = rows.len();
        rows.iter().all(|row| {
            let resource = Resource::ALL[usize::from(row.resource)];
            self.of(row.instance, resource).len() <= EACH_MAX
        })
    }
}

/// An event as a message says it, of an instance that there is.
fn planned(m: &PlanEvent) -> Planned {
    Planned {
        starts_ms: m.starts_at_ms.get(),
        until_ms: m.until_ms.get(),
        lasts_ms: m.lasts_ms.get(),
        add: m.add_vru.get(),
        percent: m.percent.get(),
        every_days: m.every_days.get(),
        instance: m.instance.get() as u16,
        resource: m.resource,
        reserved: 0,
        name: m.name,
    }
}

fn check(event: &Planned) -> Result<(), Reject> {
    let Planned { starts_ms, until_ms, lasts_ms, percent, every_days, .. } = *event;
    let every_ms = u64::from(every_days) * DAY_MS;
    let once = every_days == 0;
    let repeats = every_days <= DAYS_MAX && u64::from(lasts_ms) <= every_ms;
    let within = starts_ms <= STARTS_MS_MAX
        && (1..=FORECAST_MS_MAX).contains(&lasts_ms)
        && percent <= EVENT_PERCENT_MAX;
    if within && (repeats || once) && (until_ms == 0 || (!once && until_ms > starts_ms)) {
        Ok(())
    } else {
        Err(Reject::BadField)
    }
}

/// Checks what no instance is needed for.
pub(super) fn check_message(m: &PlanEvent) -> Result<(), Reject> {
    if m.lasts_ms.get() == 0 {
        let (name, instance, resource) = (m.name, 0, m.resource);
        let nothing = Planned { name, instance, resource, ..Planned::default() };
        return if (Planned { instance: 0, ..planned(m) }) == nothing {
            Ok(())
        } else {
            Err(Reject::BadField)
        };
    }
    check(&planned(m))
}

impl Machine {
    /// Somebody plans an event, or does no more.
    pub(super) fn plan_event(
        &mut self,
        env: &Envelope,
        m: &PlanEvent,
        resource: Resource,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.acting_row(env, m.instance.get())?;
        self.instance_book(m.instance.get() as u16, resource)?;
        let (event, now_ms) = (planned(m), self.now_ms());
        self.plan.retain(|row| row.next_ms(now_ms).is_some());
        if event.lasts_ms == 0 {
            self.plan.retain(|row| row.key() != event.key());
        } else if !self.plan.put(event) {
            return Err(Reject::EventsFull);
        }
        self.use_client_id(env, client_id);
        self.fold(event.starts_ms ^ u64::from(event.lasts_ms) << 32 ^ u64::from(event.add));
        let many = self.plan.of(event.instance, resource).len() as u64;
        self.report_done(env, PlanEvent::KIND, client_id, many, out);
        Ok(())
    }

    /// An instance goes, and what was planned for it.
    pub(super) fn forget_events(&mut self, instance: u16) {
        self.plan.retain(|row| row.instance != instance);
    }

    /// Planned events that are not over for good, to those whose instances they are of.
    pub(super) fn event_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        let (sight, now_ms) = (self.sight(env), self.now_ms());
        let rows = self.plan.rows().iter().enumerate().skip(from as usize);
        let rows = rows.filter_map(|(at, row)| Some((at, row, row.next_ms(now_ms)?)));
        let mut shown = rows
            .filter(|(_, row, _)| self.shows_instance(sight, row.instance.into()))
            .take(PAGE + 1);
        for (_, row, next_ms) in shown.by_ref().take(PAGE) {
            let row = EventRow {
                starts_at_ms: row.starts_ms.into(),
                until_ms: row.until_ms.into(),
                next_at_ms: next_ms.into(),
                lasts_ms: row.lasts_ms.into(),
                instance: u32::from(row.instance).into(),
                add_vru: row.add.into(),
                percent: row.percent.into(),
                every_days: row.every_days.into(),
                resource: row.resource,
                reserved: [0; 7],
                name: row.name,
            };
            out.push(env.connection, &row);
        }
        end(env, shown.next().map_or(LAST, |(at, ..)| at as u64), out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    fn event(starts_h: u64, hours: u32, percent: u16, add: u32) -> Planned {
        let (starts_ms, lasts_ms) = (starts_h * HOUR_MS, hours * HOUR_MS as u32);
        Planned { starts_ms, lasts_ms, percent, add, ..Planned::default() }
    }

    #[test]
    fn events_at_once_add_up_and_one_after_the_other_do_not() {
        let of = |events: &[Planned], from, to| shifted(events, 10, from * HOUR_MS, to * HOUR_MS);
        let first = event(2, 2, 150, 0);
        let beside = event(3, 2, 120, 7);
        let after = event(4, 2, 120, 7);
        assert_eq!(of(&[first], 0, 2), 10, "not yet");
        assert_eq!(of(&[first], 0, 3), 15);
        assert_eq!(of(&[first, beside], 0, 9), 24, "170 percent and 7");
        assert_eq!(of(&[first, after], 0, 9), 19, "120 percent and 7");
        assert_eq!(of(&[first, after], 6, 9), 10, "over");
    }

    #[test]
    fn less_is_needed_only_while_it_lasts() {
        let quiet = event(2, 2, 20, 0);
        assert_eq!(shifted(&[quiet], 10, 2 * HOUR_MS, 4 * HOUR_MS), 2);
        assert_eq!(shifted(&[quiet], 10, 2 * HOUR_MS, 4 * HOUR_MS + 1), 10);
        assert_eq!(shifted(&[quiet, quiet], 10, 3 * HOUR_MS, 4 * HOUR_MS), 0, "never less");
        assert_eq!(shifted(&[event(0, 1, 10_000, u32::MAX)], u32::MAX, 0, 1), u32::MAX);
    }

    #[test]
    fn what_repeats_does_so_until_its_last() {
        let daily = Planned { every_days: 1, until_ms: 3 * DAY_MS, ..event(5, 1, 200, 0) };
        assert_eq!(daily.next_ms(0), Some(5 * HOUR_MS));
        assert_eq!(daily.next_ms(6 * HOUR_MS - 1), Some(5 * HOUR_MS));
        assert_eq!(daily.next_ms(6 * HOUR_MS), Some(29 * HOUR_MS));
        assert_eq!(daily.next_ms(54 * HOUR_MS), None, "the third day's is the last");
        let weekly = Planned { every_days: 7, ..event(5, 1, 200, 0) };
        assert_eq!(shifted(&[weekly], 3, DAY_MS, 7 * DAY_MS), 3);
        assert_eq!(shifted(&[weekly], 3, DAY_MS, 8 * DAY_MS), 6);
    }
}
