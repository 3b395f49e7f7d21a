//! An echo over each transport: what a round trip costs when nothing is done at the far end.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use vendue_wire::doorbell::{self, Doorbell};
use vendue_wire::idle::Wait;
use vendue_wire::ring::{self, Consumer, Producer};

use crate::daemon::{AnyError, PEER, SERVER, make_keys};
use crate::pin::pin;
use crate::rtt::Peer;

/// Tag of the record that ends an echo in shared memory.
const END: u32 = 1;
/// Bytes of a new order's frame.
const REQUEST_BYTES: usize = 64;
/// Bytes of the frame that accepts it.
const ANSWER_BYTES: usize = 72;
const BUFFER_BYTES: usize = 1 << 16;

/// The asking end.
pub enum Echo {
    /// A socket.
    Socket {
        /// Connected, nonblocking unless it is waited for.
        stream: Stream,
        /// Requests not sent yet.
        outbound: Vec<u8>,
        /// Bytes of an answer that is not whole.
        partial: usize,
    },
    /// Two rings.
    Rings(Rings),
}

/// The answering end.
pub enum Server {
    /// A socket.
    Socket(Stream),
    /// Two rings.
    Rings(Rings),
}

/// One end of two rings.
pub struct Rings {
    out: Producer,
    into: Consumer,
    doorbell: Doorbell,
}

/// A socket of either kind.
pub enum Stream {
    /// Unix.
    Unix(UnixStream),
    /// Loopback.
    Tcp(TcpStream),
    /// Loopback, encrypted: rustls and nothing else.
    Tls(Box<Tls>),
}

/// One end of a TLS connection.
pub struct Tls {
    stream: TcpStream,
    session: rustls::Connection,
}

impl Tls {
    /// Bytes decrypted; `None` if there are none now.
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.session.reader().read(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            if self.session.read_tls(&mut self.stream)? == 0 {
                return Ok(0);
            }
            self.session.process_new_packets().map_err(std::io::Error::other)?;
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.session.writer().write_all(bytes)?;
        while self.session.wants_write() {
            self.session.write_tls(&mut self.stream)?;
        }
        Ok(())
    }
}

impl Stream {
    fn set_nonblocking(&self, on: bool) -> std::io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_nonblocking(on),
            Stream::Tcp(stream) => stream.set_nonblocking(on),
            Stream::Tls(tls) => tls.stream.set_nonblocking(on),
        }
    }

    /// Bytes read; `None` if there are none now.
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<Option<usize>> {
        let read = match self {
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tcp(stream) => stream.read(bytes),
            Stream::Tls(tls) => tls.read(bytes),
        };
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            read => read.map(Some),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Tls(tls) => tls.write_all(bytes),
        }
    }
}

fn pair(near: Stream, far: Stream, wait: Wait) -> Result<(Echo, Server), AnyError> {
    // Whoever does not sleep in the call asks again.
    near.set_nonblocking(wait != Wait::Park)?;
    far.set_nonblocking(wait != Wait::Park)?;
    let outbound = Vec::with_capacity(BUFFER_BYTES);
    Ok((Echo::Socket { stream: near, outbound, partial: 0 }, Server::Socket(far)))
}

/// Over a Unix socket.
///
/// # Errors
/// No sockets are left.
pub fn unix(wait: Wait) -> Result<(Echo, Server), AnyError> {
    let (near, far) = UnixStream::pair()?;
    pair(Stream::Unix(near), Stream::Unix(far), wait)
}

/// Over loopback TCP.
///
/// # Errors
/// No sockets are left.
pub fn tcp(wait: Wait) -> Result<(Echo, Server), AnyError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    pair(Stream::Tcp(near), Stream::Tcp(far), wait)
}

/// Over TLS on loopback TCP: both sides by certificate, with the versions and ciphers of the daemon.
///
/// # Errors
/// No sockets are left, or the two do not shake hands.
pub fn tls(wait: Wait) -> Result<(Echo, Server), AnyError> {
    let keys = tempfile::tempdir()?;
    make_keys(keys.path())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let server = vendue_engine::gateway::tls::load(
        &keys.path().join(SERVER),
        vendue_engine::gateway::tls::Clients::MustShow,
    )?;
    let mut asked = rustls::ServerConnection::new(server)?;
    let mut asking =
        rustls::ClientConnection::new(client(&keys.path().join(PEER))?, SERVER.try_into()?)?;
    // One thread for both: each says all that it has to say before the other reads.
    while asking.is_handshaking() || asked.is_handshaking() {
        while asking.wants_write() {
            asking.write_tls(&mut near)?;
        }
        if asked.is_handshaking() {
            asked.read_tls(&mut far)?;
            asked.process_new_packets()?;
        }
        while asked.wants_write() {
            asked.write_tls(&mut far)?;
        }
        if asking.is_handshaking() {
            asking.read_tls(&mut near)?;
            asking.process_new_packets()?;
        }
    }
    let end = |stream, session| Stream::Tls(Box::new(Tls { stream, session }));
    pair(end(near, asking.into()), end(far, asked.into()), wait)
}

fn client(dir: &Path) -> Result<Arc<ClientConfig>, AnyError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem"))?)?;
    let chain = vec![CertificateDer::from_pem_file(dir.join("cert.pem"))?];
    let key = PrivateKeyDer::from_pem_file(dir.join("key.pem"))?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// Over rings in shared memory, with doorbells as the daemon's.
///
/// # Errors
/// No memory or descriptors are left.
pub fn shm(_wait: Wait) -> Result<(Echo, Server), AnyError> {
    let ((near_bell, near_doorbell), (far_bell, far_doorbell)) =
        (doorbell::pair()?, doorbell::pair()?);
    let (requests, requested) = ring::pair(1 << 20, far_bell)?;
    let (answers, answered) = ring::pair(1 << 20, near_bell)?;
    let near = Rings { out: requests, into: answered, doorbell: near_doorbell };
    let far = Rings { out: answers, into: requested, doorbell: far_doorbell };
    Ok((Echo::Rings(near), Server::Rings(far)))
}

impl Rings {
    /// Sleeps until something came; false when the other end is gone.
    fn wait(&mut self) -> bool {
        let alive =
            !self.into.prepare_park() || self.doorbell.wait(None).is_ok() || !self.into.is_empty();
        self.into.cancel_park();
        alive
    }
}

impl Peer for Echo {
    fn send(&mut self) -> Result<(), AnyError> {
        match self {
            Echo::Socket { outbound, .. } => outbound.extend_from_slice(&[1; REQUEST_BYTES]),
            Echo::Rings(rings) => rings.out.try_push(0, &[&[1; REQUEST_BYTES]])?,
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), AnyError> {
        match self {
            Echo::Socket { stream, outbound, .. } if !outbound.is_empty() => {
                stream.write_all(outbound)?;
                outbound.clear();
            }
            Echo::Socket { .. } => {}
            Echo::Rings(rings) => rings.out.flush(),
        }
        Ok(())
    }

    fn take(&mut self, wait: bool) -> Result<u64, AnyError> {
        match self {
            Echo::Socket { stream, partial, .. } => {
                let mut bytes = [0; BUFFER_BYTES];
                let Some(read) = stream.read(&mut bytes)? else { return Ok(0) };
                let whole = (*partial % ANSWER_BYTES + read) / ANSWER_BYTES;
                *partial = (*partial % ANSWER_BYTES + read) % ANSWER_BYTES;
                Ok(whole as u64)
            }
            Echo::Rings(rings) => {
                let mut answers = 0;
                while rings.into.pop()?.is_some() {
                    answers += 1;
                }
                if answers == 0 && wait && !rings.wait() {
                    return Err("the echo is gone".into());
                }
                Ok(answers)
            }
        }
    }
}

impl Drop for Echo {
    /// Ends the answering thread: a socket does so by closing.
    fn drop(&mut self) {
        if let Echo::Rings(rings) = self {
            let _ = rings.out.try_push(END, &[]);
            rings.out.flush();
        }
    }
}

impl Server {
    /// Answers in a thread of its own on `cpu` until the asking end is gone.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(self, cpu: usize, wait: Wait) -> std::io::Result<Serving> {
        let thread = std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
            pin(cpu)?;
            match self {
                Server::Socket(stream) => answer_socket(stream, wait),
                Server::Rings(rings) => answer_rings(rings, wait),
            }
        })?;
        Ok(Serving(thread))
    }
}

/// An echo at work.
pub struct Serving(JoinHandle<Result<(), AnyThreadError>>);

type AnyThreadError = Box<dyn std::error::Error + Send + Sync>;

impl Serving {
    /// Waits until it has ended; drop the asking end first.
    ///
    /// # Errors
    /// It ended for another reason.
    pub fn join(self) -> Result<(), AnyError> {
        self.0.join().map_err(|_| "the echo panicked")?.map_err(|error| error as AnyError)
    }
}

fn pause(wait: Wait) {
    match wait {
        Wait::Yield => std::thread::yield_now(),
        Wait::Spin | Wait::Park => std::hint::spin_loop(),
    }
}

fn answer_socket(mut stream: Stream, wait: Wait) -> Result<(), AnyThreadError> {
    let mut bytes = [0; BUFFER_BYTES];
    let answers = [2; BUFFER_BYTES];
    let mut partial = 0;
    loop {
        match stream.read(&mut bytes)? {
            None => pause(wait),
            Some(0) => return Ok(()),
            Some(read) => {
                let whole = (partial + read) / REQUEST_BYTES;
                partial = (partial + read) % REQUEST_BYTES;
                stream.write_all(&answers[..whole * ANSWER_BYTES])?;
            }
        }
    }
}

fn answer_rings(mut rings: Rings, wait: Wait) -> Result<(), AnyThreadError> {
    loop {
        let mut moved = false;
        while let Some(record) = rings.into.pop()? {
            if record.tag == END {
                return Ok(());
            }
            moved = true;
            while rings.out.try_push(0, &[&[2; ANSWER_BYTES]]).is_err() {
                rings.out.flush();
                pause(wait);
            }
        }
        rings.out.flush();
        match wait {
            _ if moved => {}
            Wait::Park if !rings.wait() => return Ok(()),
            Wait::Park => {}
            Wait::Spin | Wait::Yield => pause(wait),
        }
    }
}
