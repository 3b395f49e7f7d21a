//! Instances that an operator froze. To the machine that is a word to the host: reservation, credits
//! and orders stay what they are, and what is not used is not paid, as ever.

use super::Machine;
use super::command::Envelope;
use super::event::{InstanceFrozen, Outbox};
use super::tables::Instance;
use vendue_wire::code::Reject;
use vendue_wire::message::{ANY, Body, FreezeInstance};

impl Machine {
    /// An operator freezes an instance, or lets it go on.
    pub(super) fn freeze_instance(
        &mut self,
        env: &Envelope,
        m: &FreezeInstance,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
        let instance = m.instance.get() as u16;
        self.use_client_id(env, client_id);
        let row = &mut self.instances[usize::from(instance)];
        row.bursting &= !Instance::FROZEN;
        row.bursting |= if m.frozen == 1 { Instance::FROZEN } else { 0 };
        // From now on it is not its group's affair.
        self.swarm.members[usize::from(instance)].parked = 0;
        self.fold(u64::from(instance) << 32 | u64::from(m.frozen));
        self.announce_frozen(instance, out);
        self.report_done(env, FreezeInstance::KIND, client_id, m.frozen.into(), out);
        Ok(())
    }

    /// Tells the later stages whether an instance is frozen.
    pub(super) fn announce_frozen(&self, instance: u16, out: &mut Outbox) {
        let frozen = u32::from(self.instances[usize::from(instance)].is_frozen());
        let instance = u32::from(instance).into();
        out.push(ANY, &InstanceFrozen { instance, frozen: frozen.into() });
    }
}
