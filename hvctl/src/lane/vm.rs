//! How a resource of a VM stands: what the slow lanes of QEMUs and cells keep of each.

use crate::lever::State;
use crate::outcome::{Effect, Reached};
use std::collections::BTreeMap;
use vendue_wire::code::{Lag, Resource};
use vendue_wire::message::{LimitRow, field_cut};

/// How one resource of a VM stands. Amounts are processors, bytes, or bytes/s.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What was decided, in VRUs.
    pub wanted_vru: u64,
    /// What the guest should have in all.
    pub wanted: u64,
    /// A wish that the thread has not seen yet.
    pub is_new: bool,
    /// Where it is: pending, in force (read back), refused, drifted (the guest has not followed) or
    /// gone (nobody answers).
    pub state: State,
    /// What was asked last.
    pub asked: Option<u64>,
    /// What was read back last.
    pub held: Option<u64>,
    /// How often something was asked.
    pub writes: u64,
    /// When last, nanoseconds since 1970 UTC; 0: never.
    pub written_at_ns: u64,
    /// What is wrong.
    pub fault: Option<String>,
}

/// By resource; those of which nothing was wished are not in here.
pub type Standings = BTreeMap<Resource, Standing>;

/// What so many VRUs of a resource are worth in a VM: whole processors, rounded up; bytes; bytes/s.
/// `None` where a VM has nothing to be set. An instance that reserved no processors or no I/O is let
/// be.
pub fn amount(resource: Resource, vrus: u64, vru_size: u64) -> Option<u64> {
    let amount = vrus.saturating_mul(vru_size);
    match resource {
        Resource::Memory => Some(amount),
        Resource::Cpu => (amount > 0).then(|| amount.div_ceil(1000)),
        Resource::BlockIo => (amount > 0).then_some(amount),
        Resource::Network | Resource::Accelerator => None,
    }
}

/// Wishes `wanted`, decided as so many VRUs. True if it is another wish than before.
pub fn want(standings: &mut Standings, resource: Resource, wanted_vru: u64, wanted: u64) -> bool {
    if let Some(standing) = standings.get_mut(&resource) {
        standing.wanted_vru = wanted_vru;
        if standing.wanted == wanted {
            return false;
        }
        standing.wanted = wanted;
        standing.is_new = true;
        standing.state = State::Pending;
        return true;
    }
    standings.insert(resource, Standing::wished(None, wanted_vru, wanted));
    true
}

impl Standing {
    /// A new wish, with what came of the one before.
    pub fn wished(before: Option<Standing>, wanted_vru: u64, wanted: u64) -> Standing {
        let none = Standing {
            wanted_vru: 0,
            wanted: 0,
            is_new: true,
            state: State::Pending,
            asked: None,
            held: None,
            writes: 0,
            written_at_ns: 0,
            fault: None,
        };
        let (is_new, state) = (true, State::Pending);
        Standing { wanted_vru, wanted, is_new, state, ..before.unwrap_or(none) }
    }

    /// The same as a limit among those of the instance; `file` says what is set.
    pub fn limit(&self, instance: u32, resource: Resource, file: &str) -> LimitRow {
        let shown = |amount: Option<u64>| {
            field_cut(&amount.map(|amount| amount.to_string()).unwrap_or_default())
        };
        LimitRow {
            wanted_vru: self.wanted_vru.into(),
            writes: self.writes.into(),
            written_at_ns: self.written_at_ns.into(),
            instance: instance.into(),
            resource: resource as u8,
            state: self.state as u8,
            of_account: 0,
            reason: self.reached().effect.reason(),
            file: field_cut(file),
            wanted: shown(Some(self.wanted)),
            written: shown(self.asked),
            read_back: shown(self.held),
        }
    }

    /// How far it has come.
    pub fn reached(&self) -> Reached {
        let effect = match self.state {
            State::InForce | State::DryRun => Effect::Applied,
            State::Pending => Effect::Pending(Lag::Waiting),
            State::Drifted => Effect::Pending(Lag::Guest),
            State::Refused => Effect::Refused(Lag::OutOfRange),
            State::Gone => Effect::Refused(Lag::Unreachable),
        };
        Reached { effect, wanted: self.wanted, held: self.held.unwrap_or(0) }
    }
}
