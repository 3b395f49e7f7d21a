//! Outcomes: what came of each intent, told to the sequencer, so that the journal has it.
//!
//! They are told once in a quantum of actuation, many in one record. A ring without room keeps them
//! here; of those that a later one replaces meanwhile the record says how many there were.

use super::record::Arrival;
use crate::machine::command::{self, OUTCOMES_MAX, OutcomeRow};
use hvctl::outcome::{Aim, Effect, Intents, Key, Outcome, Reached};
use vendue_wire::code::Resource;
use vendue_wire::message::Body;
use vendue_wire::ring::Producer;
use zerocopy::IntoBytes;

/// Time of an intent: what is not as wanted by then is told in part. It goes on all the same.
const DEADLINE_NS: u64 = 1_000_000_000;

/// The intents whose outcomes are to be told.
#[derive(Debug)]
pub(super) struct Outcomes {
    intents: Intents,
    quantum_ns: u64,
    next_ns: u64,
}

impl Outcomes {
    /// None yet; looks once in `quantum_ns`.
    pub(super) fn new(quantum_ns: u64) -> Outcomes {
        Outcomes { intents: Intents::new(DEADLINE_NS), quantum_ns, next_ns: 0 }
    }

    /// Something is wanted from `now` on.
    pub(super) fn want(&mut self, number: u32, aim: Aim, resource: Resource, now: u64) {
        if self.due_ns().is_none() {
            self.next_ns = now + self.quantum_ns;
        }
        self.intents.want((number, aim, resource), now);
    }

    /// Nothing is wanted of an instance, a tier or an account any more.
    pub(super) fn forget(&mut self, number: u32) {
        self.intents.forget(number);
    }

    /// When to look next, nanoseconds.
    pub(super) fn due_ns(&self) -> Option<u64> {
        (self.intents.is_open() || !self.intents.all_told()).then_some(self.next_ns)
    }

    /// Looks how far everything has come, as `reached` says, and tells.
    pub(super) fn look(
        &mut self,
        now: u64,
        reached: impl Fn(Key) -> Option<Reached>,
        measured: &mut Producer,
    ) {
        self.next_ns = now + self.quantum_ns;
        self.intents.look(now, reached);
        while !self.intents.all_told() {
            let mut told = 0;
            let mut record = command::Outcomes::zeroed();
            record.replaced = self.intents.replaced().into();
            for (row, outcome) in record.rows.iter_mut().zip(self.intents.untold(OUTCOMES_MAX)) {
                *row = row_of(&outcome);
                told += 1;
            }
            let parts = [Arrival::OWN.as_bytes(), record.as_bytes()];
            if measured.try_push(command::Outcomes::KIND.into(), &parts).is_err() {
                return;
            }
            self.intents.told(told);
        }
    }
}

fn row_of(outcome: &Outcome) -> OutcomeRow {
    let ((number, aim, resource), Reached { effect, wanted, held }) =
        (outcome.key, outcome.reached);
    OutcomeRow {
        wanted: wanted.into(),
        held: held.into(),
        number: number.into(),
        aim: aim as u8,
        resource: resource as u8,
        effect: match effect {
            Effect::Applied => command::APPLIED,
            Effect::Pending(_) => command::PARTIAL,
            Effect::Refused(_) => command::REFUSED,
            Effect::Decided => command::DECIDED,
        },
        reason: effect.reason(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vendue_wire::code::Lag;
    use vendue_wire::ring::pair_within;
    use zerocopy::FromBytes;

    #[test]
    fn a_full_ring_loses_no_outcome_and_no_count_of_those_replaced() {
        let (mut producer, mut consumer) = pair_within(4096).unwrap();
        let mut outcomes = Outcomes::new(10);
        let applied = |_| Some(Reached { effect: Effect::Applied, wanted: 5, held: 5 });
        let refused =
            |_| Some(Reached { effect: Effect::Refused(Lag::Denied), wanted: 5, held: 4 });
        let (mut heard, mut replaced, wanted) = (Vec::new(), 0, 1000);
        for number in 0..wanted {
            outcomes.want(number, Aim::Limit, Resource::Cpu, 0);
        }
        outcomes.look(10, refused, &mut producer);
        outcomes.look(20, applied, &mut producer);
        let mut is_over = false;
        while !is_over {
            is_over = outcomes.due_ns().is_none();
            producer.flush();
            while let Ok(Some(record)) = consumer.pop() {
                let body = &record.bytes[size_of::<Arrival>()..];
                let record = command::Outcomes::ref_from_bytes(body).unwrap();
                replaced += record.replaced.get();
                heard.extend(record.rows.iter().filter(|row| row.effect != 0).copied());
            }
            outcomes.look(30, applied, &mut producer);
        }
        let of = |effect| heard.iter().filter(|row| row.effect == effect).count() as u64;
        assert_eq!(of(command::APPLIED), u64::from(wanted), "each is told in the end");
        assert_eq!(of(command::REFUSED) + replaced, u64::from(wanted), "or counted");
        assert!(replaced > 0 && of(command::REFUSED) > 0, "the ring was full between");
    }
}
