//! Actuate: turns entitlements into the host's own limits, and meters what instances use. A dead
//! lever is reported and retried by the host library; trading goes on.

use super::record::{Arrival, Delivery, TO_CONNECTION, take};
use crate::clock::Clock;
use crate::health::Health;
use crate::machine::command;
use crate::machine::event::{
    AccountCapped, Asked, Entitled, InstanceCreated, InstanceRemoved, Resized, Weighted,
};
use hvctl::host::{Home, Host, account_key};
use hvctl::limit::Device;
use hvctl::meter::Usage;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use vendue_wire::code::{RESOURCES, Resource};
use vendue_wire::frame::{self, FRAME_BYTES_MAX};
use vendue_wire::message::{ANY, Body, LimitRow, QueryEnd, TIER_BIT, text};
use vendue_wire::ring::{Consumer, Producer};
use zerocopy::{FromBytes, IntoBytes};

/// Rows of one answer at most.
const PAGE: usize = 32;
/// Limits read back in one turn at most.
const VERIFY_MAX: u32 = 128;

/// What is known of an instance here.
#[derive(Debug, Default)]
struct Metered {
    /// Size of a VRU of each resource, once an entitlement came: millicores, bytes, bytes/s.
    vru_size: [u64; RESOURCES],
    /// Use not yet told: less than a milli-credit, or told when there is room.
    rest: [u64; RESOURCES],
    /// When it was measured last, nanoseconds.
    at_ns: u64,
}

impl Metered {
    /// Adds what was used up to `now_ns`, in parts of which a milli-credit has as many as a VRU's
    /// size says. It is a VRU for a millisecond: of m millicores, m microseconds of processor
    /// time; of m bytes, those held for a millisecond; of m bytes/s, m thousandths of a byte, and of
    /// m bits/s, of a bit.
    fn add(&mut self, used: &Usage, now_ns: u64) {
        let held_ms = now_ns.saturating_sub(self.at_ns) / 1_000_000;
        // What is less than a millisecond counts with the next measurement.
        self.at_ns += held_ms * 1_000_000;
        let parts = [
            (Resource::Cpu, used.cpu_us),
            (Resource::Memory, used.memory_bytes.saturating_mul(held_ms)),
            (Resource::BlockIo, used.io_bytes.saturating_mul(1000)),
            // A VRU's size is bits a second there.
            (Resource::Network, used.network_bytes.saturating_mul(8 * 1000)),
        ];
        for (resource, parts) in parts {
            // What an instance reserved nothing of is not paid.
            if self.vru_size[resource as usize] > 0 {
                let rest = &mut self.rest[resource as usize];
                *rest = rest.saturating_add(parts);
            }
        }
    }
}

/// The stage.
pub struct Actuate {
    /// Entitlements and questions, from publish.
    pub intents: Consumer,
    /// Measured use, to the sequencer.
    pub measured: Producer,
    /// Answers, to the gateway.
    pub answers: Producer,
    /// The host's levers and meters.
    pub host: Host,
    /// By tier, block devices that `io.max` governs.
    pub devices: Vec<Vec<Device>>,
    /// Time between measurements, nanoseconds.
    pub meter_ns: u64,
    /// Time between read-backs, nanoseconds.
    pub verify_ns: u64,
    metered: BTreeMap<u32, Metered>,
    /// Tiers, by their numbers among the instances.
    tiers: BTreeSet<u32>,
    faults: BTreeMap<u32, String>,
    next_meter_ns: u64,
    next_verify_ns: u64,
    next_write_ns: Option<u64>,
    health: Arc<Health>,
    clock: Clock,
}

impl Actuate {
    /// The stage over `host`.
    pub fn new(
        (intents, measured, answers): (Consumer, Producer, Producer),
        host: Host,
        devices: Vec<Vec<Device>>,
        (meter_ns, verify_ns): (u64, u64),
        (health, clock): (Arc<Health>, Clock),
    ) -> Actuate {
        let now = clock.now_ns();
        Actuate {
            intents,
            measured,
            answers,
            host,
            devices,
            meter_ns,
            verify_ns,
            metered: BTreeMap::new(),
            tiers: BTreeSet::new(),
            faults: BTreeMap::new(),
            next_meter_ns: now + meter_ns,
            next_verify_ns: now + verify_ns,
            next_write_ns: None,
            health,
            clock,
        }
    }

    /// Takes intents, writes what is due, measures. True if there was something.
    pub fn turn(&mut self) -> bool {
        let mut moved = false;
        while let Some(record) = take(&mut self.intents) {
            let (tag, body) = (record.tag as u8, record.bytes.to_vec());
            moved = true;
            self.take(tag, &body);
        }
        let now = self.clock.now_ns();
        if moved || self.next_write_ns.is_some_and(|due| due <= now) {
            self.next_write_ns = self.host.turn(now);
        }
        if now >= self.next_meter_ns {
            self.next_meter_ns = now + self.meter_ns;
            self.meter(now);
        }
        if now >= self.next_verify_ns {
            self.next_verify_ns = now + self.verify_ns;
            self.host.verify(now, VERIFY_MAX);
            self.next_write_ns = self.host.turn(now);
            moved = true;
        }
        if moved {
            self.tell_health();
        }
        self.measured.flush();
        self.answers.flush();
        moved
    }

    /// Time until something is due.
    pub fn due_in(&self) -> Duration {
        let due = self.next_meter_ns.min(self.next_verify_ns);
        let due = self.next_write_ns.map_or(due, |write| due.min(write));
        Duration::from_nanos(due.saturating_sub(self.clock.now_ns()))
    }

    fn take(&mut self, kind: u8, body: &[u8]) {
        match kind {
            InstanceCreated::KIND => {
                if let Ok(created) = InstanceCreated::ref_from_bytes(body) {
                    self.adopt(created);
                }
            }
            InstanceRemoved::KIND => {
                if let Ok(removed) = InstanceRemoved::ref_from_bytes(body) {
                    self.release(removed.instance.get());
                }
            }
            Entitled::KIND => {
                if let Ok(entitled) = Entitled::ref_from_bytes(body) {
                    self.want(entitled);
                }
            }
            Weighted::KIND => {
                if let Ok(weighted) = Weighted::ref_from_bytes(body) {
                    self.weigh(weighted);
                }
            }
            AccountCapped::KIND => {
                if let Ok(capped) = AccountCapped::ref_from_bytes(body) {
                    self.cap(capped);
                }
            }
            Resized::KIND => {
                if let Ok(resized) = Resized::ref_from_bytes(body) {
                    self.resize(resized);
                }
            }
            Asked::KIND => {
                if let Ok(asked) = Asked::ref_from_bytes(body) {
                    self.answer(asked);
                }
            }
            _ => {}
        }
    }

    fn adopt(&mut self, created: &InstanceCreated) {
        let (instance, tier) = (created.instance.get(), created.tier.get());
        let place = text(&created.place);
        self.metered.insert(instance, Metered { at_ns: self.clock.now_ns(), ..Metered::default() });
        self.faults.remove(&instance);
        let home = Home { account: created.account.get(), tier };
        let devices = devices_of(&self.devices, tier);
        if let Err(error) = self.host.adopt(instance, home, place, devices) {
            self.faults.insert(
                instance,
                format!("instance {instance} is traded but not limited: {error}"),
            );
        }
    }

    fn release(&mut self, instance: u32) {
        self.metered.remove(&instance);
        let adopted = self.faults.remove(&instance).is_none();
        if let Err(error) = self.host.release(instance)
            && adopted
        {
            self.health.report("actuate", error.to_string());
        }
    }

    fn want(&mut self, entitled: &Entitled) {
        let Some(resource) = Resource::from_u8(entitled.resource) else { return };
        let (instance, size) = (entitled.instance.get(), entitled.vru_size.get());
        if let Some(metered) = self.metered.get_mut(&instance) {
            metered.vru_size[resource as usize] = size;
        }
        // An instance that could not be adopted is reported already.
        let now = self.clock.now_ns();
        let _ = self.host.want(instance, resource, entitled.vru.get(), size, now);
    }

    fn weigh(&mut self, weighted: &Weighted) {
        let Some(resource) = Resource::from_u8(weighted.resource) else { return };
        let (instance, size) = (weighted.instance.get(), weighted.vru_size.get());
        let (vrus, now) = (weighted.weight_vru.get().into(), self.clock.now_ns());
        // An instance that could not be adopted is reported already.
        let _ = self.host.weigh(instance, resource, vrus, size, now);
    }

    fn cap(&mut self, capped: &AccountCapped) {
        let (account, millicores) = (capped.account.get(), capped.millicores.get());
        self.faults.remove(&account_key(account, 0));
        if let Err(error) = self.host.cap(account, millicores.into(), self.clock.now_ns()) {
            let text = format!("account {account} is not capped: {error}");
            self.faults.insert(account_key(account, 0), text);
        }
    }

    /// A tier's capacity is the cap of all its instances together.
    fn resize(&mut self, resized: &Resized) {
        let Some(resource) = Resource::from_u8(resized.resource) else { return };
        let (tier, now) = (resized.tier.get(), self.clock.now_ns());
        let number = TIER_BIT | u32::from(tier);
        let capacity = (resized.capacity_vru.get(), resized.vru_size.get());
        if capacity.0 == 0 {
            // Deleted: the first of its resources says it.
            if self.tiers.remove(&number) {
                self.release(number);
            }
            return;
        }
        let devices = devices_of(&self.devices, tier);
        match self.host.resize_tier(tier, resource, capacity, devices, now) {
            Ok(()) => {
                self.tiers.insert(number);
                self.faults.remove(&number);
            }
            Err(error) => {
                self.faults.insert(number, format!("tier {tier} is not limited: {error}"));
            }
        }
    }

    /// Measures every instance and tells the sequencer what each used.
    fn meter(&mut self, now: u64) {
        for (&instance, metered) in &mut self.metered {
            let Ok(used) = self.host.sample(instance, now) else {
                // Time without a measurement is not paid.
                metered.at_ns = now;
                continue;
            };
            metered.add(&used, now);
            for &resource in Resource::ALL {
                let size = metered.vru_size[resource as usize];
                let rest = &mut metered.rest[resource as usize];
                let Some(milli @ 1..) = rest.checked_div(size) else { continue };
                if tell_use(&mut self.measured, instance, resource, milli) {
                    *rest %= size;
                }
            }
        }
    }

    fn tell_health(&mut self) {
        let counters = self.host.counters();
        self.health.limits_written.set(counters.written);
        self.health.limits_spared.set(counters.spared);
        self.health.limits_failed.set(counters.failed);
        self.health.limits_drifted.set(counters.drifted);
        let mut texts: Vec<String> =
            self.host.faults().into_iter().map(|fault| fault.text).collect();
        texts.extend(self.host.outside());
        texts.extend(self.faults.values().take(16).cloned());
        self.health.restate("limits", &texts);
    }

    /// A page of limits.
    fn answer(&mut self, asked: &Asked) {
        let mut rows: Vec<LimitRow> = Vec::new();
        let mut next = u64::MAX;
        let from = asked.from.get() as u32;
        // The machine has found the one instance that may be shown, and the next.
        let to = if asked.narrow == 1 { from } else { u32::MAX };
        let instances = self.metered.range(from..=to).map(|(&at, _)| at);
        let accounts = self.host.accounts(from..=to);
        for instance in instances.chain(accounts).chain(self.tiers.range(from..=to).copied()) {
            if rows.len() >= PAGE {
                next = instance.into();
                break;
            }
            rows.extend(self.host.limits(instance));
        }
        if asked.narrow == 1 && asked.limit.get() != ANY {
            next = asked.limit.get().into();
        }
        for row in &rows {
            self.send(asked, row);
        }
        self.send(asked, &QueryEnd { request: asked.request, next: next.into() });
    }

    fn send<M: Body>(&mut self, asked: &Asked, body: &M) {
        let mut bytes = [0; FRAME_BYTES_MAX];
        let length = frame::encode(0, body, &mut bytes);
        let head = Delivery { connection: asked.connection, slot: ANY.into() };
        // A full ring loses the answer; the client asks again.
        let _ = self.answers.try_push(TO_CONNECTION, &[head.as_bytes(), &bytes[..length]]);
    }
}

/// The block devices of a tier.
fn devices_of(devices: &[Vec<Device>], tier: u16) -> &[Device] {
    devices.get(usize::from(tier)).map_or(&[], Vec::as_slice)
}

/// False if the sequencer's ring is full: the use is told with the next measurement.
fn tell_use(measured: &mut Producer, instance: u32, resource: Resource, milli: u64) -> bool {
    let head = Arrival { request: 0.into(), session: ANY.into(), connection: ANY.into() };
    let usage = command::Usage {
        used_millicredits: milli.into(),
        instance: instance.into(),
        resource: resource as u8,
        reserved: [0; 3],
    };
    let parts = [head.as_bytes(), usage.as_bytes()];
    measured.try_push(command::Usage::KIND.into(), &parts).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_milli_credit_is_a_vru_for_a_millisecond_of_every_resource() {
        let mut metered = Metered { at_ns: 5_000_000, ..Metered::default() };
        metered.vru_size = [10, 16 << 20, 1 << 20, 1_000_000, 0];
        // 20% of a processor, 24 MiB and 3 MiB in half a second, told in two measurements.
        for now_ns in [255_600_000, 505_000_000] {
            let used = Usage {
                cpu_us: 50_000,
                memory_bytes: 24 << 20,
                io_bytes: 3 << 19,
                network_bytes: 250_000,
            };
            metered.add(&used, now_ns);
        }
        let milli = |resource| metered.rest[resource] / metered.vru_size[resource];
        assert_eq!([0, 1, 2, 3].map(milli), [10_000, 750, 3_000, 4_000]);
    }

    #[test]
    fn what_was_not_reserved_is_not_paid() {
        let mut metered = Metered::default();
        metered.vru_size[Resource::Cpu as usize] = 10;
        let used =
            Usage { cpu_us: 7, memory_bytes: 1 << 30, io_bytes: 1 << 30, network_bytes: 1 << 30 };
        metered.add(&used, 1_000_000_000);
        assert_eq!(metered.rest, [7, 0, 0, 0, 0]);
    }
}
