//! Cells among the instances: their memory and vCPUs follow the entitlement, and one that ends by itself is
//! told to the sequencer, which removes its instance.

use super::record::Arrival;
use crate::machine::command::Perished;
use hvctl::kvm::keeper::{Keeper, Standing};
use hvctl::outcome::Reached;
use hvctl::sense::VirtualCounts;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use vendue_wire::code::Resource;
use vendue_wire::message::{Body, LimitRow, PLACE_BYTES};
use vendue_wire::ring::Producer;
use zerocopy::IntoBytes;

/// Faults that are told at once.
const FAULTS_MAX: usize = 16;

/// The cells of a host.
#[derive(Debug, Default)]
pub(super) struct Cells {
    keeper: Keeper,
    /// Their places, until their end is told.
    places: BTreeMap<u32, [u8; PLACE_BYTES]>,
    /// How they stood when last looked at.
    standings: Vec<(u32, Standing)>,
}

impl Cells {
    /// Keeps an instance's cell from now on.
    pub(super) fn adopt(
        &mut self,
        instance: u32,
        port: &Path,
        place: [u8; PLACE_BYTES],
    ) -> io::Result<()> {
        self.keeper.keep(instance, port)?;
        self.places.insert(instance, place);
        Ok(())
    }

    /// Lets an instance's cell be, if it has one.
    pub(super) fn release(&mut self, instance: u32) {
        self.keeper.release(instance);
        self.places.remove(&instance);
    }

    /// Sets what an instance's cell may have of a resource; false if it has no cell, or that is
    /// nothing that is set.
    pub(super) fn want(
        &mut self,
        instance: u32,
        resource: Resource,
        vrus: u64,
        vru_size: u64,
    ) -> bool {
        self.keeper.want(instance, resource, vrus, vru_size)
    }

    /// How far a resource of an instance's cell has come.
    pub(super) fn reached(&self, instance: u32, resource: Resource) -> Option<Reached> {
        self.keeper.reached(instance, resource)
    }

    /// Looks how all cells stand, and tells once of each that has ended. True if something changed.
    pub(super) fn look(&mut self, measured: &mut Producer) -> bool {
        let standings: Vec<_> = self.keeper.standings().collect();
        for (instance, _) in standings.iter().filter(|(_, standing)| standing.is_dead) {
            let Some(&place) = self.places.get(instance) else { continue };
            // Without room it is told at the next look.
            if tell_end(measured, *instance, place) {
                self.places.remove(instance);
            }
        }
        let changed = standings != self.standings;
        self.standings = standings;
        changed
    }

    /// What is wrong with cells.
    pub(super) fn faults(&self) -> impl Iterator<Item = String> {
        let faults = self.standings.iter().filter_map(|(instance, standing)| {
            Some(format!("instance {instance}: {}", standing.trouble.as_ref()?))
        });
        faults.take(FAULTS_MAX)
    }

    /// What an instance's cell counts itself, if it has one.
    pub(super) fn counts(&self, instance: u32) -> Option<VirtualCounts> {
        self.keeper.counts(instance)
    }

    /// What an instance's cell is set to as limits, if it has one.
    pub(super) fn limits(&self, instance: u32) -> Vec<LimitRow> {
        self.keeper.limits(instance)
    }
}

fn tell_end(measured: &mut Producer, instance: u32, place: [u8; PLACE_BYTES]) -> bool {
    let perished = Perished { instance: instance.into(), reserved: 0.into(), place };
    let parts = [Arrival::OWN.as_bytes(), perished.as_bytes()];
    measured.try_push(Perished::KIND.into(), &parts).is_ok()
}
