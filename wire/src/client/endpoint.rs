//! Where a daemon listens, as people write it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of each ring that [`Endpoint::from_str`] asks for.
pub const RING_BYTES_DEFAULT: u32 = 1 << 20;

/// Where a daemon listens. Written `unix:/run/vendue.sock` (or the bare path),
/// `tcp:127.0.0.1:7070`, `shm:/run/vendue.sock` or `tls:pki/alice@host.example:7412`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// TCP; the logon must show a token.
    Tcp(SocketAddr),
    /// TLS on TCP; the certificate says who logs on.
    Tls {
        /// Directory with `ca.pem`, `cert.pem` and `key.pem`, as `hvctl pki client` makes it.
        dir: PathBuf,
        /// Name or address that the daemon's certificate must hold.
        host: String,
        /// Port.
        port: u16,
    },
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
#[error("{0:?} is no endpoint; use unix:PATH, shm:PATH, tcp:ADDRESS:PORT or tls:DIR@HOST:PORT")]
pub struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        let path = |path: &str| if path.is_empty() { Err(bad()) } else { Ok(PathBuf::from(path)) };
        if let Some(address) = text.strip_prefix("tcp:") {
            return address.parse().map(Endpoint::Tcp).map_err(|_| bad());
        }
        if let Some(rest) = text.strip_prefix("tls:") {
            let (dir, place) = rest.rsplit_once('@').ok_or_else(bad)?;
            let (host, port) = place.rsplit_once(':').ok_or_else(bad)?;
            let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
            let port = port.parse().map_err(|_| bad())?;
            if host.is_empty() {
                return Err(bad());
            }
            return Ok(Endpoint::Tls { dir: path(dir)?, host: host.to_owned(), port });
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
            Endpoint::Tls { dir, host, port } if host.contains(':') => {
                write!(f, "tls:{}@[{host}]:{port}", dir.display())
            }
            Endpoint::Tls { dir, host, port } => write!(f, "tls:{}@{host}:{port}", dir.display()),
            Endpoint::Shm { path, .. } => write!(f, "shm:{}", path.display()),
        }
    }
}
