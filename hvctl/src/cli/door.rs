//! The way to the daemon, and everything that can go wrong on it.

use nix::sys::socket::{getsockopt, sockopt};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use vendue_wire::client::{Client, ClientError, Endpoint, Identity, Received, fresh_session};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::{ANY, Body, Done, SCHEMA};

/// Bytes of the secret that TCP clients show.
const TOKEN_BYTES: usize = 32;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The daemon refused, or what was asked for does not exist.
    #[error("{0}")]
    Refused(String),
    /// What was printed says that something is wrong.
    #[error("something is wrong; see above")]
    Unhealthy,
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The daemon cannot be reached, or is gone.
    #[error("{0}")]
    Connection(String),
    /// The host refused something that `launch` needs.
    #[error("{0}")]
    Host(String),
    /// Standard output cannot be written.
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    /// A launched command ended with this exit code.
    #[error("the command ended with {0}")]
    Ended(u8),
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Trouble {
        match error {
            ClientError::Rejected { kind, code } | ClientError::Refused { kind, code, .. } => {
                Trouble::Refused(refusal(kind, code))
            }
            other => Trouble::Connection(other.to_string()),
        }
    }
}

/// What was refused, why, and what to do about it.
pub fn refusal(kind: u8, code: u8) -> String {
    let what = SCHEMA.iter().find(|row| row.0 == kind).map_or("request", |row| row.1);
    let Some(reject) = Reject::from_u8(code) else {
        return format!("{what} refused with code {code}, which this hvctl does not know");
    };
    let hint = match reject {
        Reject::BadCredentials => {
            "; [[access]] in vendued's configuration grants this user, token or certificate no such \
             role or account"
        }
        Reject::NotPermitted => "; ask with a --role that may",
        Reject::Throttled | Reject::AccountThrottled | Reject::Busy => "; wait and try again",
        Reject::JournalStopped => "; see `hvctl status`",
        Reject::InsufficientFunds => "; see `hvctl account list` and `hvctl account deposit`",
        Reject::InsufficientCredits => "; see `hvctl instance list`",
        Reject::InsufficientCapacity
        | Reject::PoolTooSmall
        | Reject::TierFull
        | Reject::WrongTierState => "; see `hvctl tier list`",
        Reject::RateOutOfBounds => "; see `hvctl tier exchanges`",
        Reject::UnknownInstance => "; it does not exist, or is not yours",
        Reject::UnknownBook | Reject::BadPrice | Reject::WrongTier => "; see `hvctl book`",
        Reject::TokenStale | Reject::TokenForged => "; `hvctl token show` has it as it is now",
        Reject::ReplayGone => "; the older ones are in `hvctl audit`",
        Reject::OrderValueLimit | Reject::WindowLimit | Reject::PositionLimit => {
            "; see `hvctl account limits ACCOUNT`"
        }
        Reject::UnknownTrade | Reject::AlreadyReversed => "; see `hvctl trades`",
        Reject::UnknownLease | Reject::RentTooLow | Reject::LeasesFull => {
            "; see `hvctl lease list` and `hvctl lease rents`"
        }
        Reject::LeaseOfRescue | Reject::UnknownObjective | Reject::ObjectivesFull => {
            "; see `hvctl objective list`"
        }
        Reject::NotEntitled => "; an operator may allow it with `hvctl lease grant`",
        Reject::TooOften => "; wait a second",
        Reject::UnknownMigration | Reject::WrongHandover | Reject::MigrationsFull => {
            "; see `hvctl migration list`"
        }
        Reject::UnknownOrder => "; see `hvctl orders INSTANCE`",
        _ => "",
    };
    format!("{what} refused: {reject}{hint}")
}

/// Where the daemon is and what to show it.
#[derive(Debug)]
pub struct Reach {
    endpoint: Endpoint,
    token: [u8; TOKEN_BYTES],
}

/// Whom a session acts for.
#[derive(Clone, Copy, Debug)]
pub struct Who {
    /// Role.
    pub role: Role,
    /// Account, or [`ANY`].
    pub account: u32,
    /// Instance, or [`ANY`].
    pub instance: u32,
}

impl Who {
    /// An operator.
    pub const OPERATOR: Who = Who { role: Role::Operator, account: ANY, instance: ANY };
}

impl Reach {
    /// Checks the endpoint and reads the token.
    ///
    /// # Errors
    /// [`Trouble::Usage`] if either makes no sense.
    pub fn new(endpoint: &str, token_file: Option<&Path>) -> Result<Reach, Trouble> {
        let usage = |why: String| Trouble::Usage(why);
        let endpoint =
            endpoint.parse::<Endpoint>().map_err(|error| usage(format!("--connect: {error}")))?;
        let token = match token_file {
            None => [0; TOKEN_BYTES],
            Some(path) => {
                let shown = path.display();
                let bytes = std::fs::read(path)
                    .map_err(|error| usage(format!("--token-file {shown}: {error}")))?;
                let token = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
                <[u8; TOKEN_BYTES]>::try_from(token).map_err(|_| {
                    usage(format!(
                        "--token-file {shown}: holds {} bytes, not {TOKEN_BYTES}",
                        token.len()
                    ))
                })?
            }
        };
        Ok(Reach { endpoint, token })
    }

    /// Where the daemon is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The daemon's process on this host, if it is spoken to by a socket of its own: where a service
    /// manager opened that, it is the manager's.
    pub fn process(&self) -> Option<i32> {
        let (Endpoint::Unix(path) | Endpoint::Shm { path, .. }) = &self.endpoint else {
            return None;
        };
        let socket = UnixStream::connect(path).ok()?;
        getsockopt(&socket, sockopt::PeerCredentials).ok().map(|who| who.pid())
    }

    /// A session to read by: an anonymous one for who may see everything, otherwise as the tenant
    /// or agent that the daemon takes this side for.
    pub fn reader(&self) -> Result<Door, Trouble> {
        let own = |role| Identity { role, ..Identity::tenant(ANY) };
        let mut first = None;
        for identity in [Identity::observer(), own(Role::Tenant), own(Role::Agent)] {
            let identity = Identity { token: self.token, ..identity };
            match Client::connect(&self.endpoint, &identity) {
                Ok(client) => return Ok(Door { client }),
                Err(error @ ClientError::Refused { code, .. })
                    if code == Reject::BadCredentials as u8 =>
                {
                    first.get_or_insert(error);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(first.map_or(Trouble::Connection("nobody answered".to_owned()), Trouble::from))
    }

    /// A session of its own that may change things.
    pub fn acting(&self, who: Who) -> Result<Door, Trouble> {
        let Who { role, account, instance } = who;
        let session = fresh_session();
        self.connect(Identity { session, role, account, instance, ..Identity::observer() })
    }

    fn connect(&self, identity: Identity) -> Result<Door, Trouble> {
        Ok(Door { client: self.session(identity)? })
    }

    /// Opens or resumes the session that `identity` names.
    pub fn session(&self, identity: Identity) -> Result<Client, ClientError> {
        Client::connect(&self.endpoint, &Identity { token: self.token, ..identity })
    }
}

/// An open session with the daemon.
#[derive(Debug)]
pub struct Door {
    /// The session itself.
    pub client: Client,
}

impl Door {
    /// The rows of kind `R` in a query's answer of one page.
    pub fn rows<R: Body>(&mut self, query: &impl Body) -> Result<Vec<R>, Trouble> {
        Ok(self.client.ask(query)?)
    }

    /// The rows of kind `R` in all pages of a query's answer.
    pub fn pages<R: Body, Q: Body>(&mut self, query: impl Fn(u32) -> Q) -> Result<Vec<R>, Trouble> {
        // Pages of these queries start at numbers of 32 bits.
        Ok(self.client.ask_all(|from| query(u32::try_from(from).unwrap_or(u32::MAX)))?)
    }

    /// As [`Door::pages`], where pages start at numbers of 64 bits.
    pub fn pages_by_id<R: Body, Q: Body>(
        &mut self,
        query: impl Fn(u64) -> Q,
    ) -> Result<Vec<R>, Trouble> {
        Ok(self.client.ask_all(query)?)
    }

    /// Every row of a query's answer; returns where the next page starts, if there is one.
    pub fn each(
        &mut self,
        query: &impl Body,
        row: impl FnMut(&Received),
    ) -> Result<Option<u64>, Trouble> {
        Ok(self.client.ask_each(query, row)?)
    }

    /// Sends a request and waits until it is carried out.
    pub fn call(&mut self, message: &impl Body) -> Result<Done, Trouble> {
        Ok(self.client.call(message)?)
    }

    /// The next unused id of a request.
    pub fn next_client_id(&mut self) -> u64 {
        self.client.next_client_id()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vendue_wire::message::Deposit;

    #[test]
    fn refusals_name_the_request_the_reason_and_the_next_step() {
        let shown = refusal(Deposit::KIND, Reject::UnknownAccount as u8);
        assert_eq!(shown, "Deposit refused: unknown account");
        let shown = refusal(0x10, Reject::InsufficientFunds as u8);
        assert!(shown.starts_with("NewOrder refused: insufficient funds; see `hvctl"), "{shown}");
        assert!(refusal(0x10, 250).contains("code 250"));
    }

    #[test]
    fn a_token_is_32_bytes_and_may_end_in_a_newline() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        let read = |bytes: &[u8]| {
            std::fs::write(&file, bytes).unwrap();
            Reach::new("tcp:127.0.0.1:1", Some(&file))
        };
        assert_eq!(read(&[b'x'; 32]).unwrap().token, [b'x'; 32]);
        let mut line = [b'y'; 33];
        line[32] = b'\n';
        assert_eq!(read(&line).unwrap().token, [b'y'; 32]);
        for wrong in [&[][..], &[1; 31], &[1; 33]] {
            assert!(matches!(read(wrong), Err(Trouble::Usage(_))));
        }
        let missing = Reach::new("x", Some(Path::new("/nonexistent/token")));
        assert!(missing.unwrap_err().to_string().contains("/nonexistent/token"));
    }

    #[test]
    fn an_endpoint_that_is_none_is_a_usage_error() {
        for wrong in ["", "unix:", "tcp:here", "tcp:127.0.0.1"] {
            assert!(matches!(Reach::new(wrong, None), Err(Trouble::Usage(_))), "{wrong:?}");
        }
    }
}
