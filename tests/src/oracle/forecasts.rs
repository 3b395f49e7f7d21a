//! Forecasts, said as simply as possible: a list of all that was ever said and still holds.

use super::{Caller, Market};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::{Body, SetForecast};

/// What somebody said that an instance will need.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the message's fields")]
pub struct Forecast {
    /// Instance, resource, source, horizon.
    pub of: (u32, usize, u8, u8),
    /// From and to, milliseconds.
    pub holds_ms: (i128, i128),
    pub vru: [i128; 3],
}

impl Forecast {
    /// The least probability, thousandths, that more than `vru` are needed: the line through the
    /// quantiles, mirrored at the median, walked from the right.
    pub fn short_permille(&self, vru: i128) -> i128 {
        let [p50, p90, p975] = self.vru;
        let (most, least) = (2 * p975 - p90, 2 * p50 - 2 * p975 + p90);
        let right = [(p50, 500), (p90, 100), (p975, 25), (most, 0)];
        let left = [(least, 1000), (2 * p50 - p975, 975), (2 * p50 - p90, 900), (p50, 500)];
        if vru >= most {
            return 0;
        }
        if vru < least {
            return 1000;
        }
        let line = if vru >= p50 { right } else { left };
        let pair = line.windows(2).rfind(|pair| pair[0].0 <= vru && vru < pair[1].0);
        let [(from, high), (to, low)] = pair.expect("between the ends")[..] else { unreachable!() };
        // Rounded down.
        (high * (to - vru) + low * (vru - from)).div_euclid(to - from)
    }
}

impl Market {
    pub(super) fn set_forecast(&mut self, who: &Caller, m: &SetForecast) -> Result<(), Reject> {
        let (client_id, instance) = (m.client_id.get(), m.instance.get());
        let resource = usize::from(m.resource);
        self.fresh(who, client_id)?;
        self.may_act(who, instance)?;
        if m.source == 0 && self.sessions[who.session as usize].role != Role::Operator {
            return Err(Reject::NotPermitted);
        }
        self.book_of(self.instances[&instance].tier, resource).ok_or(Reject::UnknownBook)?;
        self.use_id(who, client_id);
        self.note_forecast(who, m);
        let mine = self.standing(who.time_ns).into_iter();
        let mine = mine.filter(|forecast| (forecast.of.0, forecast.of.1) == (instance, resource));
        self.done(who, SetForecast::KIND, client_id, mine.count() as i128);
        Ok(())
    }

    pub(super) fn note_forecast(&mut self, who: &Caller, m: &SetForecast) {
        let (instance, resource) = (m.instance.get(), usize::from(m.resource));
        let Some(row) = self.instances.get(&instance) else { return };
        if self.book_of(row.tier, resource).is_none() {
            return;
        }
        let of = (instance, resource, m.source, m.horizon);
        self.forecasts.retain(|forecast| forecast.of != of);
        let from = i128::from(who.time_ns / 1_000_000) + i128::from(m.starts_in_ms.get());
        let vru = [m.p50_vru, m.p90_vru, m.p975_vru].map(|vru| vru.get().into());
        let holds_ms = (from, from + i128::from(m.lasts_ms.get()));
        self.forecasts.push(Forecast { of, holds_ms, vru });
    }

    /// Those that are not over, in the order of what they are of.
    pub fn standing(&self, time_ns: u64) -> Vec<Forecast> {
        let now_ms = i128::from(time_ns / 1_000_000);
        let all = self.forecasts.iter().filter(|forecast| now_ms < forecast.holds_ms.1);
        let mut all: Vec<_> =
            all.filter(|forecast| self.instances.contains_key(&forecast.of.0)).copied().collect();
        all.sort_by_key(|forecast| forecast.of);
        all
    }

    /// A forecast with what is planned from now on, before a moment: of what others than the model said,
    /// as they said it.
    pub fn with_plans(
        &self,
        forecast: &Forecast,
        time_ns: u64,
        before_ms: Option<i128>,
    ) -> Forecast {
        let (instance, resource, source, _) = forecast.of;
        let mut forecast = *forecast;
        if source == 0 {
            let from_ms = forecast.holds_ms.0.max(i128::from(time_ns / 1_000_000));
            let to_ms = before_ms.map_or(forecast.holds_ms.1, |at| at.min(forecast.holds_ms.1));
            let shifted = |vru| self.with_events((instance, resource), vru, from_ms, to_ms);
            forecast.vru = forecast.vru.map(shifted);
        }
        forecast
    }

    /// VRUs that an instance reserved and does not lend, and that it leases.
    pub fn firm(&self, instance: u32, resource: usize) -> i128 {
        let (leased, lent) = self.leased(instance, resource);
        self.instances[&instance].baseline[resource] - lent + leased
    }
}
