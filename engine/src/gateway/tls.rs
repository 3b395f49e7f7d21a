//! TLS on a TCP connection: TLS 1.3, both sides by certificate, rustls driven by the gateway's poll.
//!
//! The directory of keys holds what `hvctl pki` writes: `ca.pem` (whose certificates are taken),
//! `cert.pem` and `key.pem` (what the daemon shows). Sessions are not resumed: each connection
//! proves anew who is at its end, and what it may do is looked up when it logs on.

use crate::config::ConfigError;
use mio::net::TcpStream;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use std::sync::Arc;
use webpki::EndEntityCert;

/// What clients have to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// A certificate.
    MustShow,
    /// A certificate, or none if they are known by something else.
    MayShow,
}

/// Reads the keys in `dir`.
///
/// # Errors
/// A file is missing or holds something else; the text says how to make it.
pub fn load(dir: &Path, clients: Clients) -> Result<Arc<ServerConfig>, ConfigError> {
    let (roots, chain, key) = (dir.join("ca.pem"), dir.join("cert.pem"), dir.join("key.pem"));
    let mut trusted = RootCertStore::empty();
    for root in certificates(&roots)? {
        trusted.add(root).map_err(|error| unusable(&roots, error))?;
    }
    let shown = certificates(&chain)?;
    let secret = PrivateKeyDer::from_pem_file(&key).map_err(|error| not_pem(&key, error))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(trusted.into(), provider.clone());
    let verifier = match clients {
        Clients::MustShow => verifier,
        Clients::MayShow => verifier.allow_unauthenticated(),
    };
    let verifier = verifier.build().map_err(|error| unusable(&roots, error))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .and_then(|made| made.with_client_cert_verifier(verifier).with_single_cert(shown, secret))
        .map_err(|error| unusable(&chain, error))?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let found: Vec<_> = found.map_err(|error| not_pem(path, error))?;
    if found.is_empty() {
        return Err(not_pem(path, pem::Error::NoItemsFound));
    }
    Ok(found)
}

fn not_pem(path: &Path, error: pem::Error) -> ConfigError {
    match error {
        pem::Error::Io(error) => unusable(path, error),
        pem::Error::NoItemsFound => unusable(path, "it holds nothing of the kind in PEM"),
        other => unusable(path, other),
    }
}

fn unusable(path: &Path, why: impl Display) -> ConfigError {
    let why = format!("{why}; `hvctl pki server` makes a directory for gateway.tls");
    ConfigError::Read { path: path.to_owned(), source: io::Error::other(why) }
}

/// The DNS names in the first of a peer's certificates.
pub fn names(shown: Option<&[CertificateDer<'_>]>) -> Vec<String> {
    let first = shown.and_then(<[CertificateDer<'_>]>::first);
    let parsed = first.and_then(|first| EndEntityCert::try_from(first).ok());
    parsed.iter().flat_map(|parsed| parsed.valid_dns_names()).map(str::to_owned).collect()
}

/// A connection's bytes, encrypted.
#[derive(Debug)]
pub struct TlsStream {
    /// The socket beneath.
    pub socket: TcpStream,
    session: ServerConnection,
}

impl TlsStream {
    /// A connection just accepted; nothing is said yet.
    ///
    /// # Errors
    /// Never, with a configuration that [`load`] made.
    pub fn new(socket: TcpStream, config: &Arc<ServerConfig>) -> io::Result<TlsStream> {
        let session = ServerConnection::new(config.clone()).map_err(io::Error::other)?;
        Ok(TlsStream { socket, session })
    }

    /// True until the peer has proven who it is.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// The DNS names in the peer's certificate; none before the handshake's end.
    pub fn names(&self) -> Vec<String> {
        names(self.session.peer_certificates())
    }

    /// Hands the socket what is encrypted. True if nothing is left.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn push(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes in some of what the socket has, and answers the handshake.
    fn pull(&mut self) -> io::Result<Pulled> {
        let mut counted = Counted { socket: &mut self.socket, short: false };
        let read = self.session.read_tls(&mut counted);
        let short = counted.short;
        if read? == 0 {
            return Ok(Pulled::End);
        }
        if let Err(error) = self.session.process_new_packets() {
            // The peer is told in an alert, and what it is said in the log.
            let _ = self.push();
            tracing::debug!(peer = ?self.socket.peer_addr().ok(), "TLS refused: {error}");
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        self.push()?;
        Ok(if short { Pulled::All } else { Pulled::Some })
    }
}

enum Pulled {
    /// There may be more.
    Some,
    /// There is nothing more for now.
    All,
    /// The peer sends nothing more.
    End,
}

/// Notes that a socket gave less than it was asked for: it has nothing left, and tells anew.
struct Counted<'a> {
    socket: &'a mut TcpStream,
    short: bool,
}

impl Read for Counted<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.socket.read(bytes)?;
        self.short = read < bytes.len();
        Ok(read)
    }
}

impl Read for TlsStream {
    /// As a socket's: less than was asked for only if there is nothing more for now.
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let (mut got, mut pulled) = (0, Pulled::Some);
        loop {
            match self.session.reader().read(&mut bytes[got..]) {
                Ok(0) => return Ok(got),
                Ok(count) => got += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Cut off without a goodbye: the same to us.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(got),
                Err(error) => return Err(error),
            }
            if got == bytes.len() {
                return Ok(got);
            }
            match pulled {
                Pulled::Some => {}
                Pulled::All | Pulled::End if got > 0 => return Ok(got),
                Pulled::All => return Err(ErrorKind::WouldBlock.into()),
                Pulled::End => return Ok(0),
            }
            pulled = match self.pull() {
                Ok(pulled) => pulled,
                Err(error) if error.kind() == ErrorKind::Interrupted => Pulled::Some,
                Err(error) if error.kind() == ErrorKind::WouldBlock => Pulled::All,
                Err(error) => return Err(error),
            };
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.session.writer().write(bytes)?;
        if taken == 0 && self.push()? {
            taken = self.session.writer().write(bytes)?;
        }
        self.push()?;
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push().map(drop)
    }
}

impl Drop for TlsStream {
    /// Says that nothing more comes: what was sent ends here, and was not cut off.
    fn drop(&mut self) {
        self.session.send_close_notify();
        let _ = self.push();
    }
}
