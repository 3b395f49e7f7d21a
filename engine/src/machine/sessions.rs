//! Sessions: who is connected, what they have said so far, what happens when they go.

use super::Machine;
use super::command::{Envelope, OpenSession};
use super::event::{Outbox, SessionOpened, SessionRefused};
use super::slab::Node;
use super::tables::Session;
use vendue_wire::code::{CancelReason, Reject, Role};
use vendue_wire::message::ANY;

impl Machine {
    /// Opens a session or resumes it. The gateway has checked the credentials.
    pub(super) fn open_session(
        &mut self,
        env: &Envelope,
        m: &OpenSession,
        role: Role,
        out: &mut Outbox,
    ) {
        match self.session_slot(m, role) {
            Ok((slot, fresh)) => {
                if fresh && self.sessions[slot as usize].number != 0 {
                    self.forget_session(slot as u16);
                    self.forget_tasks_of(slot as u16);
                }
                self.peers[slot as usize] = m.peer;
                let row = &mut self.sessions[slot as usize];
                if fresh {
                    *row = Session { number: m.session.get(), ..Session::FREE };
                }
                row.account = m.account.get();
                row.instance = m.instance.get();
                row.connection = env.connection;
                row.role = role as u8;
                row.connected = 1;
                row.cancel_on_disconnect = m.cancel_on_disconnect;
                let opened = SessionOpened {
                    session: m.session,
                    last_request: row.last_request.into(),
                    last_client_id: row.last_client_id.into(),
                    replay_from: m.replay_from,
                    account: m.account,
                    instance: m.instance,
                    heartbeat_ms: m.heartbeat_ms,
                    connection: env.connection.into(),
                    role: m.role,
                    fresh: fresh.into(),
                    reserved: [0; 6],
                };
                out.push(slot, &opened);
            }
            Err(code) => {
                let refused = SessionRefused {
                    connection: env.connection.into(),
                    code: code as u8,
                    reserved: [0; 3],
                };
                out.push(ANY, &refused);
            }
        }
    }

    /// The row of this session: its own, a free one, or that of the longest gone session that
    /// has no open orders. The second part says that it starts afresh.
    fn session_slot(&self, m: &OpenSession, role: Role) -> Result<(u32, bool), Reject> {
        if m.session.get() == 0 {
            // Zero marks unused rows.
            return Err(Reject::BadField);
        }
        let account = m.account.get();
        if account != ANY && account >= self.accounts_used {
            return Err(Reject::UnknownAccount);
        }
        if role == Role::Agent {
            let row = self.instance(m.instance.get()).ok_or(Reject::UnknownInstance)?;
            if account != ANY && u32::from(row.account) != account {
                return Err(Reject::UnknownInstance);
            }
        }
        let rows = || (0..self.broker()).zip(self.sessions.iter());
        // A number is the client's own: who acts as another, or for another, has others.
        let same = |row: &Session| {
            row.number == m.session.get()
                && (row.account, row.instance, row.role) == (account, m.instance.get(), m.role)
        };
        if let Some((slot, _)) = rows().find(|(_, row)| same(row)) {
            return Ok((slot, false));
        }
        if let Some((slot, _)) = rows().find(|(_, row)| row.number == 0) {
            return Ok((slot, true));
        }
        rows()
            .filter(|(_, row)| row.connected == 0 && row.orders == 0)
            .min_by_key(|(slot, row)| (row.closed_at_ns, *slot))
            .map(|(slot, _)| (slot, true))
            .ok_or(Reject::SessionsFull)
    }

    /// Whom a report is for that a session asked for: its slot while that is its own, else [`ANY`].
    pub(super) fn addressee(&self, slot: u16, number: u64) -> u32 {
        let session = self.sessions.get(usize::from(slot));
        let same = session.is_some_and(|session| session.number == number);
        if same { slot.into() } else { ANY }
    }

    /// A session's connection is gone: cancels its orders if it had asked for that. The end of a
    /// connection from which another has taken the session over means nothing; at start-up all
    /// are gone, whatever their number.
    pub(super) fn close_session(&mut self, env: &Envelope, slot: u32, out: &mut Outbox) {
        let places = self.broker() as usize;
        let Some(row) = self.sessions[..places].get_mut(slot as usize) else { return };
        if env.connection != ANY && env.connection != row.connection {
            return;
        }
        row.connected = 0;
        row.closed_at_ns = env.time_ns;
        if row.cancel_on_disconnect == 0 {
            return;
        }
        if row.orders > 0 {
            let session = *row;
            let owner = |machine: &Machine, owner: u16| {
                session.acts_for(owner.into(), &machine.instances[usize::from(owner)])
            };
            let own = |node: &Node| u32::from(node.tag.session()) == slot;
            self.cancel_where(env, CancelReason::Disconnected, out, owner, own);
        }
    }
}
