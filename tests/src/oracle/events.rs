//! Planned events, said as simply as possible: a list, and what they ask for looked at wherever one of them
//! begins or ends.

use super::{Caller, Market};
use vendue_wire::code::Reject;
use vendue_wire::message::{Body, NAME_BYTES, PlanEvent};

const DAY_MS: i128 = 86_400_000;

/// Of an instance's resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the message's fields")]
pub struct Event {
    /// Instance, resource, name.
    pub of: (u32, usize, [u8; NAME_BYTES]),
    pub starts_ms: i128,
    pub lasts_ms: i128,
    /// None: it always begins again, if it does.
    pub until_ms: Option<i128>,
    /// None: it does not.
    pub every_ms: Option<i128>,
    pub percent: i128,
    pub add: i128,
}

impl Event {
    /// When it begins, the first times that are not over at a moment.
    fn begins(&self, from_ms: i128) -> impl Iterator<Item = i128> + '_ {
        let skipped = self
            .every_ms
            .map_or(0, |every| ((from_ms - self.starts_ms - self.lasts_ms) / every - 1).max(0));
        let times = if self.every_ms.is_some() { skipped..skipped + 400 } else { 0..1 };
        times
            .map(|at| self.starts_ms + at * self.every_ms.unwrap_or(0))
            .filter(move |begins| from_ms < begins + self.lasts_ms)
            .take_while(|begins| self.until_ms.is_none_or(|until| *begins < until))
    }

    /// When it goes on or comes next.
    pub fn next_ms(&self, now_ms: i128) -> Option<i128> {
        self.begins(now_ms).next()
    }
}

impl Market {
    pub(super) fn plan_event(&mut self, who: &Caller, m: &PlanEvent) -> Result<(), Reject> {
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        let resource = usize::from(m.resource);
        self.fresh(who, client_id)?;
        self.may_act(who, instance)?;
        self.book_of(self.instances[&instance].tier, resource).ok_or(Reject::UnknownBook)?;
        let now_ms = i128::from(who.time_ns / 1_000_000);
        self.events.retain(|event| event.next_ms(now_ms).is_some());
        let of = (instance, resource, m.name);
        let others: Vec<Event> =
            self.events.iter().filter(|event| event.of != of).copied().collect();
        let lasts_ms = i128::from(m.lasts_ms.get());
        let beside = others.iter().filter(|event| (event.of.0, event.of.1) == (of.0, of.1)).count();
        if lasts_ms > 0 {
            let is_new = others.len() == self.events.len();
            if is_new && (beside == 16 || others.len() == 1024) {
                return Err(Reject::EventsFull);
            }
        }
        self.events = others;
        if lasts_ms > 0 {
            let given = |value: u64| (value > 0).then_some(i128::from(value));
            self.events.push(Event {
                of,
                starts_ms: m.starts_at_ms.get().into(),
                lasts_ms,
                until_ms: given(m.until_ms.get()),
                every_ms: given(m.every_days.get().into()).map(|days| days * DAY_MS),
                percent: m.percent.get().into(),
                add: m.add_vru.get().into(),
            });
        }
        self.use_id(who, client_id);
        let many = beside + usize::from(lasts_ms > 0);
        self.done(who, PlanEvent::KIND, client_id, many as i128);
        Ok(())
    }

    /// Those that are not over for good, in order.
    pub fn planned(&self, time_ns: u64) -> Vec<Event> {
        let now_ms = i128::from(time_ns / 1_000_000);
        let standing = self.events.iter().filter(|event| event.next_ms(now_ms).is_some());
        let mut all: Vec<Event> = standing.copied().collect();
        all.sort_by_key(|event| event.of);
        all
    }

    /// The greatest need from one moment to before another.
    pub fn with_events(&self, of: (u32, usize), vru: i128, from_ms: i128, to_ms: i128) -> i128 {
        let mine: Vec<&Event> =
            self.events.iter().filter(|event| (event.of.0, event.of.1) == of).collect();
        let mut moments = vec![from_ms];
        for event in &mine {
            let begins = event.begins(from_ms).take_while(|begins| *begins < to_ms);
            moments.extend(begins.flat_map(|begins| [begins, begins + event.lasts_ms]));
        }
        let within = moments.into_iter().filter(|at| (from_ms..to_ms).contains(at));
        let needs = within.map(|at| {
            let going_on = |event: &&&Event| event.begins(at).any(|begins| begins <= at);
            let on: Vec<_> = mine.iter().filter(going_on).collect();
            let percent = 100 + on.iter().map(|event| event.percent - 100).sum::<i128>();
            let add: i128 = on.iter().map(|event| event.add).sum();
            (vru * percent.max(0) + 99) / 100 + add
        });
        needs.max().unwrap_or(vru).min(u32::MAX.into())
    }
}
