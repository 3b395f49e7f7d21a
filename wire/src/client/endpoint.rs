//! Where a daemon listens, as people write it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of each ring that [`Endpoint::from_str`] asks for.
pub const RING_BYTES_DEFAULT: u32 = 1 << 20;

/// Where a daemon listens. Written `unix:/run/vendue.sock` (or the bare path),
/// `tcp:127.0.0.1:7070` or `shm:/run/vendue.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP; the logon must show a token.
    Tcp(SocketAddr),
    /// A pair of rings in shared memory, handed over the Unix socket.
    Shm {
        /// The Unix socket.
        path: PathBuf,
        /// Bytes of each ring, a power of two.
        ring_bytes: u32,
    },
}

/// The text names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no endpoint; use unix:PATH, shm:PATH or tcp:ADDRESS:PORT")]
pub struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        let path = |path: &str| if path.is_empty() { Err(bad()) } else { Ok(PathBuf::from(path)) };
        if let Some(address) = text.strip_prefix("tcp:") {
            return address.parse().map(Endpoint::Tcp).map_err(|_| bad());
        }
        if let Some(rest) = text.strip_prefix("shm:") {
            return Ok(Endpoint::Shm { path: path(rest)?, ring_bytes: RING_BYTES_DEFAULT });
        }
        Ok(Endpoint::Unix(path(text.strip_prefix("unix:").unwrap_or(text))?))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix:{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "tcp:{address}"),
            Endpoint::Shm { path, .. } => write!(f, "shm:{}", path.display()),
        }
    }
}
