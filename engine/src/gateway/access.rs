//! Who may log on as what: user ids on the Unix socket, tokens on TCP, as the configuration maps
//! them to a role and an account.

use crate::config::{AccessKeys, ConfigError};
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::{ANY, Logon};

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 32;

/// How a peer is known before it says anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on the Unix socket, vouched for by the kernel.
    User(u32),
    /// A TCP connection: what it shows in its logon decides.
    Tcp,
}

#[derive(Clone, Debug)]
enum Proof {
    User(u32),
    Token([u8; TOKEN_BYTES]),
}

#[derive(Clone, Debug)]
struct Grant {
    proof: Proof,
    role: Role,
    account: u32,
}

/// The table of grants.
#[derive(Clone, Debug, Default)]
pub struct Access(Vec<Grant>);

/// Role and account in force after a logon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Role.
    pub role: Role,
    /// Account, or [`ANY`].
    pub account: u32,
}

impl Access {
    /// Reads the table and the token files it names.
    ///
    /// # Errors
    /// A token file cannot be read or does not hold exactly 32 bytes (a newline may follow).
    pub fn load(keys: &[AccessKeys]) -> Result<Access, ConfigError> {
        let mut grants = Vec::new();
        for key in keys {
            let proof = match (&key.uid, &key.token_file) {
                (Some(uid), _) => Proof::User(*uid),
                (None, Some(path)) => Proof::Token(read_token(path.get_ref())?),
                (None, None) => continue,
            };
            grants.push(Grant { proof, role: key.role, account: key.account.unwrap_or(ANY) });
        }
        Ok(Access(grants))
    }

    /// Decides a logon. A peer may ask for less than its grant allows, never for more.
    ///
    /// # Errors
    /// [`Reject::BadCredentials`].
    pub fn admit(&self, peer: Peer, logon: &Logon) -> Result<Admitted, Reject> {
        let role = Role::from_u8(logon.role).ok_or(Reject::BadField)?;
        let grant = self
            .0
            .iter()
            .filter(|grant| match (&grant.proof, peer) {
                (Proof::User(uid), Peer::User(peer)) => *uid == peer,
                (Proof::Token(token), _) => same(token, &logon.token),
                _ => false,
            })
            .max_by_key(|grant| grant.role)
            .ok_or(Reject::BadCredentials)?;
        let asked = logon.account.get();
        let account = match (grant.account, asked) {
            (ANY, asked) => asked,
            (bound, asked) if asked == ANY || asked == bound => bound,
            _ => return Err(Reject::BadCredentials),
        };
        let named = match role {
            Role::Observer | Role::Operator => true,
            Role::Tenant => account != ANY,
            Role::Agent => logon.instance.get() != ANY,
        };
        if role > grant.role || !named {
            return Err(Reject::BadCredentials);
        }
        Ok(Admitted { role, account })
    }
}

fn read_token(path: &std::path::Path) -> Result<[u8; TOKEN_BYTES], ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let token: [u8; TOKEN_BYTES] = bytes.try_into().map_err(|_| {
        failed(std::io::Error::other(format!(
            "a token is {TOKEN_BYTES} bytes, not {}",
            bytes.len()
        )))
    })?;
    if token == [0; TOKEN_BYTES] {
        return Err(failed(std::io::Error::other("a token of zeros stands for none")));
    }
    Ok(token)
}

/// Compares without telling by its time where the first difference is.
fn same(a: &[u8; TOKEN_BYTES], b: &[u8; TOKEN_BYTES]) -> bool {
    a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}
