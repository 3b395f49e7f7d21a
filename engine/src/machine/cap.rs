//! Caps on what an account's instances use of processors together. The machine only keeps them: the
//! host enforces them, and what is used under them is measured and paid as ever.

use super::Machine;
use super::command::Envelope;
use super::event::{AccountCapped, Outbox};
use vendue_wire::code::Reject;
use vendue_wire::message::{ANY, Body, SetAccountCap};

/// Least cap, thousandths of a processor: the kernel's least quota of a period.
const MILLICORES_MIN: u32 = 10;
/// Greatest cap: as many processors as the kernel has numbers for, and more.
const MILLICORES_MAX: u32 = 65_536_000;

impl Machine {
    /// An operator caps an account, or lifts its cap.
    pub(super) fn set_account_cap(
        &mut self,
        env: &Envelope,
        m: &SetAccountCap,
        out: &mut Outbox,
    ) -> Result<(), Reject> {
        self.operator(env)?;
        let client_id = self.fresh_client_id(env, m.client_id.get())?;
        let account = self.known_account(m.account)?;
        let millicores = m.millicores.get();
        if millicores != 0 && !(MILLICORES_MIN..=MILLICORES_MAX).contains(&millicores) {
            return Err(Reject::BadQuantity);
        }
        self.use_client_id(env, client_id);
        self.accounts[usize::from(account)].cap_millicores = millicores;
        self.announce_cap(account, out);
        self.report_done(env, SetAccountCap::KIND, client_id, millicores.into(), out);
        Ok(())
    }

    /// Tells the later stages an account's cap.
    fn announce_cap(&mut self, account: u16, out: &mut Outbox) {
        let millicores = self.accounts[usize::from(account)].cap_millicores;
        self.fold(u64::from(account) << 32 | u64::from(millicores));
        let account = u32::from(account).into();
        out.push(ANY, &AccountCapped { account, millicores: millicores.into() });
    }

    /// Tells the later stages every cap there is.
    pub(super) fn announce_caps(&mut self, out: &mut Outbox) {
        for account in 0..self.accounts_used as u16 {
            if self.accounts[usize::from(account)].cap_millicores > 0 {
                self.announce_cap(account, out);
            }
        }
    }
}
