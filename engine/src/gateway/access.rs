//! Who may log on as what: user ids on the Unix socket, tokens on loopback TCP, certificates' names
//! on TLS, as the configuration maps them to a role, an account and an instance.

use crate::config::{AccessKeys, ConfigError};
use toml::Spanned;
use vendue_wire::code::{Reject, Role};
use vendue_wire::message::{ANY, Logon, PEER_BYTES, field_cut};

/// Bytes of a token.
pub const TOKEN_BYTES: usize = 32;

/// How a peer is known before it says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A process on the Unix socket, vouched for by the kernel.
    User(u32),
    /// A TCP connection: what it shows in its logon decides.
    Tcp,
    /// A TLS connection, by the names in the certificate it showed.
    Certificate(Vec<String>),
}

#[derive(Clone, Debug)]
enum Proof {
    User(u32),
    /// And the name of its file.
    Token([u8; TOKEN_BYTES], String),
    Certificate(String),
}

impl Proof {
    fn is_shown(&self, peer: &Peer, token: &[u8; TOKEN_BYTES]) -> bool {
        match (self, peer) {
            (Proof::User(uid), Peer::User(peer)) => uid == peer,
            (Proof::Certificate(name), Peer::Certificate(names)) => names.contains(name),
            // Who came with a certificate is known by that alone.
            (Proof::Token(known, _), Peer::User(_) | Peer::Tcp) => same(known, token),
            _ => false,
        }
    }

    /// What the audit trail calls a peer that shows this; a secret stays one.
    fn name(&self) -> [u8; PEER_BYTES] {
        field_cut(&match self {
            Proof::User(uid) => format!("uid {uid}"),
            Proof::Token(_, file) => format!("token {file}"),
            Proof::Certificate(name) => format!("certificate {name}"),
        })
    }
}

#[derive(Clone, Debug)]
struct Grant {
    proof: Proof,
    role: Role,
    account: u32,
    instance: u32,
}

impl Grant {
    /// What a logon gets of this grant, if that is what it asks for or more.
    fn admit(&self, role: Role, logon: &Logon) -> Option<Admitted> {
        // An anonymous session and an unbound observer's see the whole host.
        let sees_all = matches!(self.role, Role::Observer | Role::Operator);
        if logon.session.get() == 0 {
            let peer = self.proof.name();
            let anonymous = Admitted { role: Role::Observer, account: ANY, instance: ANY, peer };
            return (sees_all && self.account == ANY).then_some(anonymous);
        }
        let allowed = role == self.role
            || self.role == Role::Operator
            || (self.role == Role::Tenant && role == Role::Agent);
        let account = within(self.account, logon.account.get())?;
        let instance = within(self.instance, logon.instance.get())?;
        let named = match role {
            Role::Observer | Role::Operator => true,
            Role::Tenant => account != ANY,
            Role::Agent => instance != ANY,
        };
        let peer = self.proof.name();
        (allowed && named).then_some(Admitted { role, account, instance, peer })
    }
}

/// What is asked for, if the bound allows it.
fn within(bound: u32, asked: u32) -> Option<u32> {
    match (bound, asked) {
        (ANY, asked) => Some(asked),
        (bound, asked) if asked == ANY || asked == bound => Some(bound),
        _ => None,
    }
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
    /// Instance, or [`ANY`].
    pub instance: u32,
    /// What the audit trail calls the peer.
    pub peer: [u8; PEER_BYTES],
}

impl Access {
    /// Reads the table and the token files it names.
    ///
    /// # Errors
    /// A token file cannot be read or does not hold exactly 32 bytes (a newline may follow).
    pub fn load(keys: &[Spanned<AccessKeys>]) -> Result<Access, ConfigError> {
        let mut grants = Vec::new();
        for key in keys.iter().map(Spanned::get_ref) {
            let proof = match (&key.uid, &key.token_file, &key.certificate) {
                (Some(uid), ..) => Proof::User(*uid),
                (None, Some(path), _) => {
                    let file = path.get_ref().file_name().unwrap_or_default();
                    Proof::Token(read_token(path.get_ref())?, file.to_string_lossy().into_owned())
                }
                (None, None, Some(name)) => Proof::Certificate(name.get_ref().clone()),
                (None, None, None) => continue,
            };
            let (account, instance) = (key.account.unwrap_or(ANY), key.instance.unwrap_or(ANY));
            grants.push(Grant { proof, role: key.role, account, instance });
        }
        Ok(Access(grants))
    }

    /// Decides a logon: the first grant that what the peer shows is good for and that allows what
    /// it asks for. A peer may ask for less than a grant allows, never for more.
    ///
    /// # Errors
    /// [`Reject::BadCredentials`].
    pub fn admit(&self, peer: &Peer, logon: &Logon) -> Result<Admitted, Reject> {
        let role = Role::from_u8(logon.role).ok_or(Reject::BadField)?;
        self.0
            .iter()
            .filter(|grant| grant.proof.is_shown(peer, &logon.token))
            .find_map(|grant| grant.admit(role, logon))
            .ok_or(Reject::BadCredentials)
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
