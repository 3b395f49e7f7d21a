//! TLS 1.3 to the daemon, both sides by certificate.

use super::ANSWER_TIMEOUT;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::TLS13;
use rustls::{AlertDescription, CertificateError, ClientConfig, ClientConnection, Error};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A connection's bytes, encrypted. Nonblocking once made.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) stream: TcpStream,
    session: ClientConnection,
    /// Decrypted bytes may wait that the socket does not tell of.
    pub(super) more: bool,
}

impl Tls {
    /// Connects and shakes hands, with the keys in `dir`.
    ///
    /// Errors of kind `InvalidData` say what is wrong with a certificate, and what to do.
    pub(super) fn connect(dir: &Path, host: &str, port: u16) -> io::Result<Tls> {
        let config = load(dir)?;
        let name = ServerName::try_from(host.to_owned()).map_err(invalid)?;
        let session = ClientConnection::new(config, name).map_err(invalid)?;
        let stream = connect_any(host, port)?;
        stream.set_nodelay(true)?;
        let mut tls = Tls { stream, session, more: true };
        tls.shake_hands()?;
        tls.stream.set_nonblocking(true)?;
        Ok(tls)
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        while self.session.is_handshaking() || self.session.wants_write() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_millis(1) {
                return Err(io::Error::new(ErrorKind::TimedOut, "it does not shake hands"));
            }
            self.stream.set_read_timeout(Some(left))?;
            self.stream.set_write_timeout(Some(left))?;
            if self.session.wants_write() {
                self.session.write_tls(&mut self.stream)?;
            } else if self.session.read_tls(&mut self.stream)? == 0 {
                let why = "it hung up in the handshake; does it speak TLS there (gateway.tls), and \
                           is it full (gateway.connections_max)?";
                return Err(io::Error::new(ErrorKind::InvalidData, why));
            } else {
                self.take_in()?;
            }
        }
        Ok(())
    }

    fn take_in(&mut self) -> io::Result<()> {
        self.session.process_new_packets().map(drop).map_err(|error| {
            // Tells the daemon why, if it can still be told.
            let _ = self.session.write_tls(&mut self.stream);
            invalid(explain(&error))
        })
    }

    /// Decrypted bytes; 0 at the end.
    pub(super) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.session.reader().read(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // Cut off without a goodbye: the end all the same.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => {
                    self.more = true;
                    return read;
                }
            }
            self.more = false;
            if self.session.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            self.take_in()?;
        }
    }

    /// Encrypts bytes and hands the socket what it takes; how many of them were taken.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = self.session.writer().write(bytes)?;
        let all = self.push()?;
        if taken == 0 && all {
            taken = self.session.writer().write(bytes)?;
            self.push()?;
        }
        if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Hands the socket what is encrypted. True if nothing is left.
    pub(super) fn push(&mut self) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Drop for Tls {
    /// Says that nothing more comes: what was sent ends here, and was not cut off.
    fn drop(&mut self) {
        self.session.send_close_notify();
        let _ = self.push();
    }
}

fn invalid(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

fn load(dir: &Path) -> io::Result<Arc<ClientConfig>> {
    let unusable = |name: &str, why: String| {
        let path = dir.join(name);
        invalid(format!(
            "cannot use {}: {why}; `hvctl pki client` makes a directory",
            path.display()
        ))
    };
    let certificates = |name: &str| {
        let found: Result<Vec<_>, _> =
            CertificateDer::pem_file_iter(dir.join(name)).and_then(Iterator::collect);
        found.map_err(|error| unusable(name, error.to_string()))
    };
    let mut roots = RootCertStore::empty();
    for root in certificates("ca.pem")? {
        roots.add(root).map_err(|error| unusable("ca.pem", error.to_string()))?;
    }
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))
        .map_err(|error| unusable("key.pem", error.to_string()))?;
    let chain = certificates("cert.pem")?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .and_then(|made| made.with_root_certificates(roots).with_client_auth_cert(chain, key))
        .map_err(|error| unusable("cert.pem", error.to_string()))?;
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection to the first address of a name that takes one.
fn connect_any(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut failed = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

/// What is wrong, and what to do about it.
fn explain(error: &Error) -> String {
    let ours = "the daemon refuses this side's certificate";
    match error {
        Error::InvalidCertificate(why) => explain_theirs(why),
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            format!(
                "{ours}: it has expired; make a new one with `hvctl pki client`, or check the clocks"
            )
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            format!("{ours}: none was shown; point at a directory made with `hvctl pki client`")
        }
        Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::DecryptError
            | AlertDescription::UnsupportedCertificate,
        ) => format!(
            "{ours}: it is no client's certificate signed by the daemon's CA; have one made with \
             `hvctl pki client` where that CA is kept"
        ),
        Error::InvalidMessage(_) => {
            "what answers does not speak TLS; is this the address of gateway.tls?".to_owned()
        }
        other => other.to_string(),
    }
}

fn explain_theirs(why: &CertificateError) -> String {
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the daemon's certificate has expired; make a new one with `hvctl pki server` and send \
             the daemon SIGHUP, or check the clocks"
                .to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the daemon's certificate was not signed by the CA in ca.pem; is this the daemon you \
             mean? then take ca.pem from its site"
                .to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            format!(
                "{why}; connect by a name or address that the daemon's certificate holds, or make \
                 one that holds this too with `hvctl pki server`"
            )
        }
        other => format!("the daemon's certificate is refused: {other}"),
    }
}
