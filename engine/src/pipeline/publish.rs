//! Publish: releases what is durable. Reports to sessions, market data to the board, entitlements
//! to the actuator, questions to those who keep the answers.

use super::record::{Delivery, Outcome, split, take};
use crate::desk::{Desk, Told};
use crate::machine::event::{
    AccountCapped, Asked, Entitled, Event, Events, InstanceCreated, InstanceFrozen,
    InstanceRemoved, Outbox, Resized, Stored, Watched, Weighted,
};
use hvctl::host::account_key;
use std::collections::{BTreeMap, VecDeque};
use vendue_wire::board::BoardWriter;
use vendue_wire::code::RESOURCES;
use vendue_wire::message::{
    Body, QueryAudit, QueryHistory, QueryLimits, QueryMoment, QueryReport, QuerySensors, TIER_BIT,
    U64,
};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Outcomes released in one turn at most.
const BATCH: usize = 256;
/// Turns that a book's change may wait to be shown.
const UNSHOWN_TURNS_MAX: u32 = 16;

/// The stage.
pub struct Publish {
    /// Outcomes from the machine.
    pub events: Consumer,
    /// Durable sequence numbers from the journal.
    pub durable_input: Consumer,
    /// Frames for connections, to the gateway.
    pub replies: Producer,
    /// Entitlements, to the actuator.
    pub intents: Producer,
    /// Audit questions, to the clerk.
    pub clerk: Producer,
    /// Market data for every reader.
    pub board: BoardWriter,
    /// What each party is told.
    pub desk: Desk,
    /// Everything up to here is durable.
    pub durable: u64,
    /// Turns since the first one that changed books which are not shown so; 0 if none did.
    pub unshown: u32,
    /// An outcome that waits to become durable.
    pub held: Vec<u8>,
    /// Frames the gateway's ring had no room for.
    pub backlog: VecDeque<(u32, Vec<u8>)>,
    /// Intents the actuator's ring had no room for; only the latest of each counts.
    pub overdue: BTreeMap<(u32, u8), Vec<u8>>,
}

impl Publish {
    /// Passes on what start-up says of every instance, before any thread runs.
    pub fn begin(&mut self, sequence: u64, outbox: &Outbox) {
        let outcome = Outcome { sequence: sequence.into(), time_ns: 0.into() };
        for event in outbox.events() {
            self.release(&outcome, &event);
        }
    }

    /// Releases what became durable. True if there was something.
    pub fn turn(&mut self) -> bool {
        let moved = self.learn_durable();
        self.drain_overdue();
        self.drain_backlog();
        let mut released = false;
        for _ in 0..BATCH {
            if self.pending() || !self.release_next() {
                break;
            }
            released = true;
        }
        self.replies.flush();
        self.intents.flush();
        self.clerk.flush();
        self.show(released);
        moved | released
    }

    /// Shows the books that changed: once there is nothing to release, for which somebody waits,
    /// or after some turns of that.
    fn show(&mut self, released: bool) {
        self.unshown += u32::from(released || self.unshown > 0);
        if self.unshown > 0 && (!released || self.unshown >= UNSHOWN_TURNS_MAX) {
            self.unshown = 0;
            let Publish { board, desk, .. } = self;
            desk.market.show_changed(|book, view| board.write(book, view));
        }
    }

    /// True if something waits that only a later turn can move on.
    pub fn pending(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// True if an outcome waits to become durable.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    fn learn_durable(&mut self) -> bool {
        let before = self.durable;
        while let Some(record) = take(&mut self.durable_input) {
            if let Ok(sequence) = U64::read_from_bytes(record.bytes) {
                self.durable = self.durable.max(sequence.get());
            }
        }
        self.durable != before
    }

    /// Releases the next outcome if it is there and durable.
    fn release_next(&mut self) -> bool {
        if self.held.is_empty() {
            let Some(record) = take(&mut self.events) else { return false };
            self.held.extend_from_slice(record.bytes);
        }
        let (outcome, _) = split::<Outcome>(&self.held);
        if outcome.sequence.get() > self.durable {
            return false;
        }
        let held = std::mem::take(&mut self.held);
        let (outcome, events) = split::<Outcome>(&held);
        for event in Events::new(events) {
            self.release(outcome, &event);
        }
        self.held = held;
        self.held.clear();
        true
    }

    fn release(&mut self, outcome: &Outcome, event: &Event<'_>) {
        match event.kind {
            Entitled::KIND
            | Stored::KIND
            | Weighted::KIND
            | InstanceCreated::KIND
            | InstanceRemoved::KIND
            | InstanceFrozen::KIND
            | AccountCapped::KIND
            | Watched::KIND
            | Resized::KIND => self.intend(event),
            Asked::KIND => self.pass_on(event),
            _ => {}
        }
        let Publish { desk, replies, backlog, .. } = self;
        desk.absorb(outcome, event, &mut |told| send(replies, backlog, &told));
    }

    /// Hands a question to the stage that keeps the answer. A full ring leaves it unanswered:
    /// the client asks again.
    fn pass_on(&mut self, event: &Event<'_>) {
        let to = match event.read::<Asked>().map(|asked| asked.kind) {
            Some(QueryLimits::KIND | QuerySensors::KIND | QueryHistory::KIND) => &mut self.intents,
            Some(QueryAudit::KIND | QueryReport::KIND | QueryMoment::KIND) => &mut self.clerk,
            _ => return,
        };
        let _ = to.try_push(event.kind.into(), &[event.body]);
    }

    fn intend(&mut self, event: &Event<'_>) {
        if self.overdue.is_empty()
            && self.intents.try_push(event.kind.into(), &[event.body]).is_ok()
        {
            return;
        }
        // The actuator is slow or stuck; trading is not. In key order: removed, created, caps,
        // weights, frozen, watched, stored.
        let (instance, rank) = if let Some(removed) = event.read::<InstanceRemoved>() {
            (removed.instance.get(), 0)
        } else if let Some(created) = event.read::<InstanceCreated>() {
            (created.instance.get(), 1)
        } else if let Some(entitled) = event.read::<Entitled>() {
            (entitled.instance.get(), 2 + entitled.resource)
        } else if let Some(weighted) = event.read::<Weighted>() {
            (weighted.instance.get(), 2 + RESOURCES as u8 + weighted.resource)
        } else if let Some(frozen) = event.read::<InstanceFrozen>() {
            (frozen.instance.get(), 2 + 2 * RESOURCES as u8)
        } else if let Some(watched) = event.read::<Watched>() {
            (watched.instance.get(), 3 + 2 * RESOURCES as u8)
        } else if let Some(stored) = event.read::<Stored>() {
            (stored.instance.get(), 4 + 2 * RESOURCES as u8)
        } else if let Some(capped) = event.read::<AccountCapped>() {
            (account_key(capped.account.get(), 0), 1)
        } else if let Some(resized) = event.read::<Resized>() {
            (TIER_BIT | u32::from(resized.tier.get()), resized.resource)
        } else {
            return;
        };
        if rank == 0 {
            self.overdue.retain(|&(other, _), _| other != instance);
        }
        self.overdue.insert((instance, rank), [&[event.kind], event.body].concat());
    }

    fn drain_overdue(&mut self) {
        while let Some(entry) = self.overdue.first_entry() {
            let (kind, body) = (entry.get()[0], &entry.get()[1..]);
            if self.intents.try_push(kind.into(), &[body]).is_err() {
                break;
            }
            entry.remove();
        }
    }

    fn drain_backlog(&mut self) {
        while let Some((tag, bytes)) = self.backlog.front() {
            if self.replies.try_push(*tag, &[bytes]).is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }
}

/// Sends a frame to the gateway, or keeps it until there is room.
fn send(replies: &mut Producer, backlog: &mut VecDeque<(u32, Vec<u8>)>, told: &Told<'_>) {
    let head = Delivery { connection: told.connection.into(), slot: told.slot.into() };
    let parts = [head.as_bytes(), told.frame];
    if !backlog.is_empty() || replies.try_push(told.tag, &parts).is_err() {
        backlog.push_back((told.tag, parts.concat()));
    }
}
