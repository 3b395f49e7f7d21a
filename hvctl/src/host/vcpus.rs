//! Caps and weights of the threads that run an instance's virtual processors.

use super::{Host, HostError, Place};
use crate::lever::Lever;
use crate::limit::Knob;
use crate::vcpu::VcpuError;

impl Host {
    /// Gives the threads that run an instance's virtual processors groups of their own: each
    /// processor's number and its thread's id. Called again, it follows what has changed: groups of
    /// processors that are named no more go, and their threads are the instance's again.
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`], or the threads cannot have groups: [`HostError::Vcpu`].
    pub fn place_vcpus(&mut self, instance: u32, threads: &[(u16, u32)]) -> Result<(), HostError> {
        let page_bytes = self.page_bytes;
        let held = self.instances.get_mut(&instance).ok_or(HostError::UnknownInstance(instance))?;
        let arranged = match &mut held.place {
            Place::Cgroup(place) => place.arrange(threads),
            Place::DryRun(_) => Err(VcpuError::DryRun),
        };
        arranged.map_err(|error| HostError::Vcpu { instance, error })?;
        let is_named = |vcpu| threads.iter().any(|&(named, _)| named == vcpu);
        held.levers.retain(|lever| lever.knob().vcpu().is_none_or(is_named));
        for &(vcpu, _) in threads {
            for knob in [Knob::VcpuMax(vcpu), Knob::VcpuWeight(vcpu)] {
                if held.levers.iter().all(|lever| lever.knob() != knob) {
                    held.levers.push(Lever::new(knob, page_bytes, held.place.read(knob).ok()));
                }
            }
        }
        // A verification goes on from an index.
        self.cursor = (instance, 0);
        self.reschedule(instance, 0);
        Ok(())
    }

    /// Caps a virtual processor's thread, thousandths of a processor. Nothing is written before
    /// [`Host::turn`].
    ///
    /// # Errors
    /// [`HostError::UnknownInstance`]. A processor whose thread was not placed is passed over.
    pub fn cap_vcpu(
        &mut self,
        instance: u32,
        vcpu: u16,
        millicores: u64,
        now_ns: u64,
    ) -> Result<(), HostError> {
        self.set(instance, (millicores, 1), now_ns, |knob| knob == Knob::VcpuMax(vcpu))
    }

    /// Lets a virtual processor's thread weigh as much as so many thousandths of a processor beside
    /// the others of its instance.
    ///
    /// # Errors
    /// As with [`Host::cap_vcpu`].
    pub fn weigh_vcpu(
        &mut self,
        instance: u32,
        vcpu: u16,
        millicores: u64,
        now_ns: u64,
    ) -> Result<(), HostError> {
        self.set(instance, (millicores, 1), now_ns, |knob| knob == Knob::VcpuWeight(vcpu))
    }
}
