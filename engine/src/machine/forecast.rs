//! Forecasts: what instances are said to need of a resource, and how likely that is more than they have.
//!
//! They are made elsewhere and come in as commands, so that a replay needs no forecaster. Nothing
//! breaks if one is wrong, late or absent: they are advice, for standing policies and for people.
//!
//! Each instance's resource has a place for each source and horizon ([`place`]). A forecast is three
//! quantiles of the need within a window of time; once the window is over it stands no more.
//!
//! **Risk** is the probability that the need is more than the instance has now, times what that would
//! matter. Between quantiles the probability is interpolated; below the median the distribution is
//! taken to be the mirror image of what is above it, and beyond the outermost quantile to end as far
//! away as lies between the last two.

use super::Machine;
use super::command::Envelope;
use super::config::RESOURCES;
use super::event::Outbox;
use super::ledger::pocket;
use super::plan::shifted;
use super::query::{LAST, PAGE, end};
use vendue_wire::code::{Horizon, Reject, Resource, Source};
use vendue_wire::message::{Body, ForecastRow, SetForecast, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Forecasts of an instance's resource at most: of each source for each horizon.
pub const WINDOWS: usize = Source::ALL.len() * Horizon::ALL.len();

/// A forecast, or a place for one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable,
)]
#[repr(C)]
pub struct Window {
    /// It holds from here on, milliseconds since 1970 UTC.
    pub starts_ms: u64,
    /// And for so many milliseconds; 0: there is none.
    pub lasts_ms: u32,
    /// Quantiles 50, 90 and 97.5 of the VRUs needed.
    pub vru: [u32; 3],
}

impl Window {
    /// When it is over, milliseconds.
    pub fn ends_ms(&self) -> u64 {
        self.starts_ms.saturating_add(self.lasts_ms.into())
    }

    /// True if it is not over.
    pub fn stands(&self, now_ms: u64) -> bool {
        self.lasts_ms > 0 && now_ms < self.ends_ms()
    }
}

/// Where the first forecast of an instance's resource is; the others follow by source, then horizon.
pub fn place(instance: u16, resource: Resource) -> usize {
    pocket(instance, resource) * WINDOWS
}

/// Places for the forecasts of so many instances.
pub(super) fn none(instances: u32) -> Box<[Window]> {
    vec![Window::default(); instances as usize * RESOURCES * WINDOWS].into_boxed_slice()
}

/// Probability, thousandths, that more than `vru` VRUs are needed where these are the quantiles 50,
/// 90 and 97.5. Rounded down.
pub fn short_permille([p50, p90, p975]: [u32; 3], vru: u64) -> u16 {
    let [p50, p90, p975] = [p50, p90, p975].map(i64::from);
    let tail = p975 - p90;
    // Needs and the probabilities of more, in order.
    let knots = [
        (2 * p50 - p975 - tail, 1000),
        (2 * p50 - p975, 975),
        (2 * p50 - p90, 900),
        (p50, 500),
        (p90, 100),
        (p975, 25),
        (p975 + tail, 0),
    ];
    let vru = i64::try_from(vru).unwrap_or(i64::MAX);
    let Some(next) = knots.iter().position(|&(need, _)| vru < need) else { return 0 };
    if next == 0 {
        return 1000;
    }
    let ((from, high), (to, low)) = (knots[next - 1], knots[next]);
    (high - ((high - low) * (vru - from) + (to - from) - 1) / (to - from)) as u16
}

impl Machine {
    /// The forecasts of an instance's resource that stand.
    pub fn forecasts(
        &self,
        instance: u16,
        resource: Resource,
    ) -> impl Iterator<Item = &Window> + '_ {
        let (from, now_ms) = (place(instance, resource), self.now_ms());
        self.forecasts[from..from + WINDOWS].iter().filter(move |window| window.stands(now_ms))
    }

    /// What an instance is foreseen to need of a resource up to a moment, with what is planned.
    pub(super) fn foreseen(
        &self,
        instance: u16,
        resource: Resource,
        until_ms: u64,
    ) -> impl Iterator<Item = Window> + '_ {
        let (from, now_ms) = (place(instance, resource), self.now_ms());
        let near = move |at: &usize| {
            let window = &self.forecasts[*at];
            window.stands(now_ms) && window.starts_ms <= until_ms
        };
        let to_ms = until_ms.saturating_add(1);
        (from..from + WINDOWS).filter(near).map(move |at| self.with_events(at, to_ms))
    }

    /// The forecast at a place, shifted by what is planned before `to_ms` where it is a model's.
    fn with_events(&self, at: usize, to_ms: u64) -> Window {
        let window = self.forecasts[at];
        let (instance, resource) = (at / WINDOWS / RESOURCES, at / WINDOWS % RESOURCES);
        let events = self.plan.of(instance as u16, Resource::ALL[resource]);
        if events.is_empty() || at % WINDOWS / Horizon::ALL.len() != Source::Model as usize {
            return window;
        }
        let from_ms = self.now_ms().max(window.starts_ms);
        let to_ms = to_ms.min(window.ends_ms());
        Window { vru: window.vru.map(|vru| shifted(events, vru, from_ms, to_ms)), ..window }
    }

    /// Somebody says what an instance will need.
    pub(super) fn set_forecast(
        &mut self,
        env: &Envelope,
        m: &SetForecast,
        of: (Resource, Source, Horizon),
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.acting_row(env, m.instance.get())?;
        let (resource, source, _) = of;
        if source == Source::Model {
            self.operator(env)?;
        }
        self.instance_book(m.instance.get() as u16, resource)?;
        self.use_client_id(env, client_id);
        self.note_forecast(m, of);
        let standing = self.forecasts(m.instance.get() as u16, resource).count() as u64;
        self.report_done(env, SetForecast::KIND, client_id, standing, out);
        Ok(())
    }

    /// Keeps a forecast. That of an instance which is not there, or of a resource that its tier has not,
    /// is nobody's: the forecaster may be late.
    pub(super) fn note_forecast(
        &mut self,
        m: &SetForecast,
        (resource, source, horizon): (Resource, Source, Horizon),
    ) {
        let Some(row) = self.instance(m.instance.get()) else { return };
        if self.book_of[usize::from(row.tier)][resource as usize] == u16::MAX {
            return;
        }
        let at = place(m.instance.get() as u16, resource);
        let at = at + source as usize * Horizon::ALL.len() + horizon as usize;
        let vru = [m.p50_vru, m.p90_vru, m.p975_vru].map(U32::get);
        let starts_ms = self.now_ms() + u64::from(m.starts_in_ms.get());
        let window = Window { starts_ms, lasts_ms: m.lasts_ms.get(), vru };
        self.forecasts[at] = if window.lasts_ms == 0 { Window::default() } else { window };
        self.fold(at as u64 ^ u64::from(vru[1]) << 32);
    }

    /// An instance goes, and what it would have needed with it.
    pub(super) fn forget_forecasts(&mut self, instance: u16) {
        let from = usize::from(instance) * RESOURCES * WINDOWS;
        self.forecasts[from..from + RESOURCES * WINDOWS].fill(Window::default());
    }

    /// What it would matter if an instance had too little, thousandths: its bid for what is contended,
    /// twice that if it is entitled to leases of class sla.
    pub fn impact_milli(&self, instance: u16, resource: Resource) -> u32 {
        let bid = self.stakes[pocket(instance, resource)].bid();
        let entitled = self.holding(instance, resource).entitled > 0;
        bid * if entitled { 2 } else { 1 }
    }

    /// VRUs that an instance can count on: reserved, less lent, leased, and of tokens.
    pub fn firm_vru(&self, instance: u16, resource: Resource) -> u64 {
        let baseline = self.instances[usize::from(instance)].baseline_vru[resource as usize];
        let holding = self.holding(instance, resource);
        u64::from(baseline - holding.lent) + holding.above()
    }

    fn forecast_row(&self, at: usize) -> ForecastRow {
        let window = self.with_events(at, u64::MAX);
        let (instance, resource) =
            (at / WINDOWS / RESOURCES, Resource::ALL[at / WINDOWS % RESOURCES]);
        let has = self.firm_vru(instance as u16, resource);
        let vru = window.vru;
        let short = short_permille(vru, has);
        let impact = self.impact_milli(instance as u16, resource);
        ForecastRow {
            starts_at_ms: window.starts_ms.into(),
            ends_at_ms: window.ends_ms().into(),
            p50_vru: vru[0].into(),
            p90_vru: vru[1].into(),
            p975_vru: vru[2].into(),
            has_vru: u32::try_from(has).unwrap_or(u32::MAX).into(),
            instance: (instance as u32).into(),
            impact_milli: impact.into(),
            risk: ((u64::from(short) * u64::from(impact) / 1000) as u32).into(),
            short_permille: short.into(),
            resource: resource as u8,
            source: (at % WINDOWS / Horizon::ALL.len()) as u8,
            horizon: (at % WINDOWS % Horizon::ALL.len()) as u8,
            reserved: [0; 7],
        }
    }

    /// Forecasts that stand, to those whose instances they are of.
    pub(super) fn forecast_rows(&self, env: &Envelope, from: u32, out: &mut Outbox) {
        const EACH: usize = RESOURCES * WINDOWS;
        let (first, now_ms) = (from as usize, self.now_ms());
        let instances = self.shown_instances(self.sight(env), (first / EACH) as u32);
        let places = instances.flat_map(|at| at as usize * EACH..(at as usize + 1) * EACH);
        let standing = |at: &usize| *at >= first && self.forecasts[*at].stands(now_ms);
        let mut shown = places.filter(standing).take(PAGE + 1);
        for at in shown.by_ref().take(PAGE) {
            out.push(env.connection, &self.forecast_row(at));
        }
        end(env, shown.next().map_or(LAST, |at| at as u64), out);
    }

    /// False if a restored forecast is none that was ever made.
    pub(super) fn forecasts_are_whole(&self) -> bool {
        self.forecasts.iter().enumerate().all(|(at, window)| {
            let live = self.instances[at / WINDOWS / RESOURCES].live == 1;
            window.vru.is_sorted()
                && if window.lasts_ms == 0 { *window == Window::default() } else { live }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_met_and_interpolated_between() {
        let q = [100, 140, 160];
        for (vru, permille) in
            [(100, 500), (140, 100), (160, 25), (120, 300), (150, 62), (170, 12), (180, 0)]
        {
            assert_eq!(short_permille(q, vru), permille, "{vru}");
        }
        // Below the median as above it.
        for (vru, permille) in [(60, 900), (40, 975), (80, 700), (20, 1000), (0, 1000)] {
            assert_eq!(short_permille(q, vru), permille, "{vru}");
        }
    }

    #[test]
    fn a_certain_need_is_met_or_not() {
        assert_eq!(short_permille([7; 3], 6), 1000);
        assert_eq!(short_permille([7; 3], 7), 0);
        assert_eq!(short_permille([0; 3], 0), 0);
        assert_eq!(short_permille([u32::MAX; 3], u64::MAX), 0);
        assert_eq!(short_permille([0, 0, u32::MAX], 0), 100);
    }

    #[test]
    fn more_of_it_is_never_less_safe() {
        for q in [[3, 9, 20], [0, 0, 5], [10, 10, 11], [5, 30, 31]] {
            let odds: Vec<_> = (0..60).map(|vru| short_permille(q, vru)).collect();
            assert!(odds.is_sorted_by(|a, b| a >= b), "{q:?}: {odds:?}");
        }
    }
}
