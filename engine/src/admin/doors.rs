//! Who calls, and the session with the gateway that speaks for them: one for each caller, as of any
//! other peer, so that roles, throttles, sequencing and the audit trail are the gateway's and nobody
//! else's. No rights are decided here.

use super::problem::Problem;
use crate::gateway::access::{Access, Peer, TOKEN_BYTES};
use crate::gateway::side::SideDoor;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Mutex as Turn;
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::ANY;

/// Sessions kept at once.
const SESSIONS_MAX: usize = 64;
/// Requests that wait for one session's turn at most.
const WAITING_MAX: u32 = 32;
/// A session that nobody used for so long is closed.
const IDLE: Duration = Duration::from_secs(20);
/// Heartbeats are not needed before a session is closed for idling.
const HEARTBEAT_MS: u32 = 60_000;

/// What is done on a session.
pub type Job = Box<dyn FnOnce(&mut Client) -> Result<Value, Problem> + Send>;

/// What a caller shows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Shown {
    /// `Authorization: Bearer` and the digits of a token file's 32 bytes.
    Token([u8; TOKEN_BYTES]),
    /// Names in its certificate.
    Names(Vec<String>),
}

impl Shown {
    /// Who came with a certificate is known by that alone, others by their token.
    ///
    /// # Errors
    /// Nothing is shown, or it is no token.
    pub fn by(headers: &HeaderMap, names: &[String]) -> Result<Shown, Problem> {
        if !names.is_empty() {
            return Ok(Shown::Names(names.to_vec()));
        }
        let unknown = || {
            let how = "show a token file's 32 bytes as `Authorization: Bearer` and 64 hexadecimal \
                       digits, or a certificate";
            Problem::new(StatusCode::UNAUTHORIZED, how)
        };
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, digits) = value.and_then(|value| value.split_once(' ')).ok_or_else(unknown)?;
        let digits = digits.trim().as_bytes();
        let mut token = [0; TOKEN_BYTES];
        let whole = digits.len() == 2 * TOKEN_BYTES && digits.iter().all(u8::is_ascii_hexdigit);
        if !scheme.eq_ignore_ascii_case("bearer") || !whole {
            return Err(unknown());
        }
        for (byte, pair) in token.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).map_err(|_| unknown())?;
        }
        Ok(Shown::Token(token))
    }

    fn peer(&self) -> Peer {
        match self {
            Shown::Token(_) => Peer::Tcp,
            Shown::Names(names) => Peer::Certificate(names.clone()),
        }
    }

    /// The number of this caller's session: the same after a restart.
    fn session(&self, slow: bool) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"vendue http session");
        match self {
            Shown::Token(token) => hasher.update(token),
            Shown::Names(names) => hasher.update(names.join("\n").as_bytes()),
        };
        hasher.update(&[u8::from(slow)]);
        let number = hasher.finalize().as_bytes()[..8].try_into().map_or(1, u64::from_le_bytes);
        number.max(1)
    }

    /// As whom the caller logs on: the most that the table grants it.
    ///
    /// # Errors
    /// The table does not know it.
    fn identity(&self, access: &Access, slow: bool) -> Result<Identity, Problem> {
        let peer = self.peer();
        let token = if let Shown::Token(token) = self { *token } else { [0; TOKEN_BYTES] };
        for role in [Role::Operator, Role::Tenant, Role::Agent, Role::Observer] {
            let identity = Identity {
                session: self.session(slow),
                role,
                token,
                account: ANY,
                heartbeat_ms: HEARTBEAT_MS,
                ..Identity::observer()
            };
            // What the table says is asked for by name: while the gateway has another table for a
            // moment, after a reload, it refuses and does not give what it said before.
            if let Ok(admitted) = access.admit(&peer, &identity.logon()) {
                let (account, instance) = (admitted.account, admitted.instance);
                return Ok(Identity { account, instance, ..identity });
            }
        }
        let why = "[[access]] knows no such token or certificate, or it names no account";
        let (code, name) = (Reject::BadCredentials as u8, Reject::BadCredentials.text());
        Err(Problem { code, name, ..Problem::new(StatusCode::UNAUTHORIZED, why) })
    }
}

/// A caller's session, for one request at a time.
struct Door {
    client: Arc<Turn<Option<Client>>>,
    waiting: AtomicU32,
    used: Mutex<Instant>,
}

/// Who shows what, as whom it logged on by that, and whether for what takes long.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    shown: Shown,
    role: u8,
    account: u32,
    instance: u32,
    slow: bool,
}

/// All callers' sessions.
pub struct Doors {
    side: SideDoor,
    access: RwLock<Access>,
    open: Mutex<HashMap<Key, Arc<Door>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Doors {
    /// No session yet.
    pub fn new(side: SideDoor, access: Access) -> Doors {
        Doors { side, access: RwLock::new(access), open: Mutex::default() }
    }

    /// Takes another table of grants, and closes what was opened by the one before.
    pub fn reload(&self, access: Access) {
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = access;
        lock(&self.open).clear();
    }

    /// Closes what nobody used for a while.
    pub fn sweep(&self) {
        lock(&self.open)
            .retain(|_, door| Arc::strong_count(door) > 1 || lock(&door.used).elapsed() < IDLE);
    }

    /// Does a job on the caller's session, after those that came before it. What may take long has
    /// one of its own.
    ///
    /// # Errors
    /// The job's, and why there is no session.
    pub async fn run(
        self: &Arc<Doors>,
        shown: Shown,
        slow: bool,
        job: Job,
    ) -> Result<Value, Problem> {
        let identity = {
            let access = self.access.read().unwrap_or_else(PoisonError::into_inner);
            shown.identity(&access, slow)?
        };
        let peer = shown.peer();
        let Identity { role, account, instance, .. } = identity;
        let door = self.door(Key { shown, role: role as u8, account, instance, slow })?;
        let waiting = Waiting::of(&door)?;
        let mut turn = door.client.clone().lock_owned().await;
        let doors = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            let client = doors.ready(&mut turn, peer, &identity)?;
            let done = job(client);
            match &done {
                Err(problem) if problem.lost => *turn = None,
                // That it has ended, the next request finds.
                _ => drop(drain(client)),
            }
            done
        })
        .await;
        *lock(&door.used) = Instant::now();
        drop(waiting);
        done.unwrap_or_else(|error| {
            tracing::error!("a request over HTTP ended in a panic: {error}");
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "see the daemon's log"))
        })
    }

    fn door(&self, key: Key) -> Result<Arc<Door>, Problem> {
        let mut open = lock(&self.open);
        if let Some(door) = open.get(&key) {
            return Ok(door.clone());
        }
        if open.len() >= SESSIONS_MAX {
            let idle = open.iter().filter(|(_, door)| Arc::strong_count(door) == 1);
            let oldest = idle.min_by_key(|(_, door)| *lock(&door.used)).map(|(key, _)| key.clone());
            let full = || Problem::busy(format!("{SESSIONS_MAX} callers are being served"));
            open.remove(&oldest.ok_or_else(full)?);
        }
        let door = Arc::new(Door {
            client: Arc::default(),
            waiting: AtomicU32::new(0),
            used: Mutex::new(Instant::now()),
        });
        open.insert(key, door.clone());
        Ok(door)
    }

    /// The session, opened anew if there is none or it has ended.
    fn ready<'a>(
        &self,
        turn: &'a mut Option<Client>,
        peer: Peer,
        identity: &Identity,
    ) -> Result<&'a mut Client, Problem> {
        if turn.as_mut().is_some_and(|client| drain(client).is_err()) {
            *turn = None;
        }
        if turn.is_none() {
            let stream = self.side.open(peer).map_err(|error| match error.kind() {
                std::io::ErrorKind::WouldBlock => Problem::busy("too many callers at once"),
                _ => Problem::busy(format!("no session can be opened: {error}")),
            })?;
            *turn = Some(Client::over(stream, identity)?);
        }
        turn.as_mut().ok_or_else(|| Problem::busy("no session"))
    }
}

/// Drops what a session is told besides answers, which is nobody's here; an error if it has ended.
fn drain(client: &mut Client) -> Result<(), ClientError> {
    while client.try_recv()?.is_some() {}
    Ok(())
}

/// A request that waits for a session's turn, or has it.
struct Waiting<'a>(&'a Door);

impl<'a> Waiting<'a> {
    fn of(door: &'a Door) -> Result<Waiting<'a>, Problem> {
        if door.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            door.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Problem::busy(format!("{WAITING_MAX} requests of yours wait already")));
        }
        Ok(Waiting(door))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
