//! A real daemon in this process, and an operator's market in it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use hvctl::host::Host;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use vendue_engine::config::{Config, DEFAULT};
use vendue_engine::daemon::Daemon;
use vendue_wire::client::{Client, Endpoint, Identity};
use vendue_wire::code::{RESOURCES, Resource};
use vendue_wire::message::{CreateAccount, CreateInstance, Deposit, GrantCredits, U32, field_cut};

/// Why there is no daemon to measure.
pub type AnyError = Box<dyn std::error::Error>;

/// What TCP peers show.
const TOKEN: [u8; 32] = [0x5a; 32];
/// Directory and name of the keys of whoever answers over TLS.
pub const SERVER: &str = "localhost";
/// Directory and name of the keys of whoever asks.
pub const PEER: &str = "peer";
/// Micro-units deposited for each account.
const DEPOSIT_MICRO: u64 = 1 << 50;

/// The embedded defaults with some keys changed.
#[derive(Clone, Debug)]
pub struct Setup(String);

impl Setup {
    /// The defaults on a dry-run host, with the room that a benchmark needs.
    #[must_use]
    pub fn new() -> Setup {
        Setup(DEFAULT.to_owned())
            .key("kind", "\"dry-run\"")
            .key("throttle_per_s", "1000000000")
            .key("throttle_burst", "1000000000")
            .key("account_throttle_per_s", "1000000000")
            .key("account_throttle_burst", "1000000000")
            // A session waits in silence while another one is measured, on whatever disk.
            .key("heartbeat_ms_max", "600000")
    }

    /// Sets the first key of this name, also where the defaults have it in a comment.
    ///
    /// # Panics
    /// The defaults have no such key.
    #[must_use]
    pub fn key(self, name: &str, value: &str) -> Setup {
        let start = format!("{name} = ");
        let mut found = false;
        let lines = self.0.lines().map(|line| {
            if !found && line.trim_start_matches("# ").starts_with(&start) {
                found = true;
                return format!("{start}{value}");
            }
            line.to_owned()
        });
        let text = lines.collect::<Vec<_>>().join("\n");
        assert!(found, "the defaults have no key {name}");
        Setup(text)
    }

    /// One thread for the pipeline, on one processor, waiting in one way.
    #[must_use]
    pub fn threads(mut self, cpu: usize, wait: &str) -> Setup {
        self = self.key("threads", "\"one\"");
        for thread in ["gateway", "core", "journal", "actuate"] {
            let wait = if thread == "actuate" { "park" } else { wait };
            self = self.key(thread, &format!("{{ wait = \"{wait}\", cpu = {cpu} }}"));
        }
        self
    }
}

impl Default for Setup {
    fn default() -> Setup {
        Setup::new()
    }
}

/// A running daemon; stopped and its directories removed when dropped.
pub struct Running {
    daemon: Option<Daemon>,
    socket_dir: TempDir,
    data_dir: TempDir,
    tcp: SocketAddr,
    tls: SocketAddr,
}

impl Running {
    /// Starts a daemon that keeps its data below `directory`, which says what device is measured.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(setup: &Setup, directory: &Path) -> Result<Running, AnyError> {
        let mut running = Running::prepare(directory)?;
        let config = running.config(setup)?;
        running.daemon = Some(Daemon::start(&config)?);
        Ok(running)
    }

    /// As [`Running::start`], on a host that is open.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_on(host: Host, setup: &Setup, directory: &Path) -> Result<Running, AnyError> {
        let mut running = Running::prepare(directory)?;
        let config = running.config(setup)?;
        running.daemon = Some(Daemon::start_on(&config, host)?);
        Ok(running)
    }

    fn prepare(directory: &Path) -> Result<Running, AnyError> {
        // Sockets' paths are short.
        let socket_dir = tempfile::tempdir()?;
        let data_dir = tempfile::tempdir_in(directory)?;
        std::fs::write(socket_dir.path().join("token"), TOKEN)?;
        make_keys(socket_dir.path())?;
        // Free a moment ago.
        let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
        let (tcp, tls) = (listeners[0].local_addr()?, listeners[1].local_addr()?);
        Ok(Running { daemon: None, socket_dir, data_dir, tcp, tls })
    }

    fn config(&self, setup: &Setup) -> Result<Config, AnyError> {
        let token = self.socket_dir.path().join("token");
        let access = format!(
            "\n[[access]]\ntoken_file = \"{}\"\nrole = \"operator\"\n[[access]]\ncertificate = \
             \"{PEER}\"\nrole = \"operator\"\n[[tier]]",
            token.display()
        );
        let keys = self.socket_dir.path().join(SERVER);
        let tls = format!("{{ address = \"{}\", dir = \"{}\" }}", self.tls, keys.display());
        let text = setup.clone().key("tcp", &format!("\"{}\"", self.tcp)).key("tls", &tls).0;
        let text = text.replacen("\n[[tier]]", &access, 1);
        let mut config = Config::parse("the bench's configuration", &text)?;
        config.data_dir = self.data_dir.path().to_owned();
        config.gateway.unix = self.socket();
        Ok(config)
    }

    fn socket(&self) -> std::path::PathBuf {
        self.socket_dir.path().join("socket")
    }

    /// Its Unix socket.
    pub fn unix(&self) -> Endpoint {
        Endpoint::Unix(self.socket())
    }

    /// Its loopback address.
    pub fn tcp(&self) -> Endpoint {
        Endpoint::Tcp(self.tcp)
    }

    /// TLS on its loopback address.
    pub fn tls(&self) -> Endpoint {
        let dir = self.socket_dir.path().join(PEER);
        Endpoint::Tls { dir, host: SERVER.to_owned(), port: self.tls.port() }
    }

    /// Rings in shared memory.
    pub fn shm(&self) -> Endpoint {
        Endpoint::Shm { path: self.socket(), ring_bytes: 1 << 20 }
    }

    /// Where its journal and snapshots are.
    pub fn data_dir(&self) -> &Path {
        self.data_dir.path()
    }

    /// A new operator's session.
    ///
    /// # Errors
    /// It is refused.
    pub fn operator(&self, endpoint: &Endpoint) -> Result<Client, AnyError> {
        let identity = Identity { token: TOKEN, heartbeat_ms: 0, ..Identity::operator() };
        Ok(Client::connect(endpoint, &identity)?)
    }

    /// Stops it: everything is on the disk afterwards.
    ///
    /// # Errors
    /// It could not stop in order.
    pub fn stop(&mut self) -> Result<(), AnyError> {
        self.daemon.take().map_or(Ok(()), |daemon| Ok(daemon.stop()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            let _ = daemon.stop();
        }
    }
}

/// Makes keys for both sides of TLS below `dir`, as `hvctl pki` does.
///
/// # Errors
/// They cannot be written.
pub fn make_keys(dir: &Path) -> Result<(), AnyError> {
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    for name in [SERVER, PEER] {
        let key = KeyPair::generate()?;
        let signed = CertificateParams::new([name.to_owned()])?.signed_by(&key, &issuer)?;
        let dir = dir.join(name);
        std::fs::create_dir(&dir)?;
        std::fs::write(dir.join("ca.pem"), &root)?;
        std::fs::write(dir.join("cert.pem"), signed.pem())?;
        std::fs::write(dir.join("key.pem"), key.serialize_pem())?;
    }
    Ok(())
}

/// An account that may trade with everybody, with funds; its number.
///
/// # Errors
/// It is refused.
pub fn account(operator: &mut Client, name: &str) -> Result<u32, AnyError> {
    let account = CreateAccount {
        client_id: operator.next_client_id().into(),
        sells_to: u64::MAX.into(),
        buys_from: u64::MAX.into(),
        name: field_cut(name),
        group: 0,
        reserved: [0; 7],
    };
    let account = operator.call(&account)?.value.get() as u32;
    let deposit = Deposit {
        client_id: operator.next_client_id().into(),
        amount_micro: DEPOSIT_MICRO.into(),
        account: account.into(),
        reserved: U32::ZERO,
    };
    operator.call(&deposit)?;
    Ok(account)
}

/// An instance of `account` in the first tier that reserves one resource, with credits of it; its
/// number.
///
/// # Errors
/// It is refused.
pub fn instance(
    operator: &mut Client,
    account: u32,
    name: &str,
    (resource, baseline_vru): (Resource, u32),
    millicredits: u64,
) -> Result<u32, AnyError> {
    let mut baselines = [U32::ZERO; RESOURCES];
    baselines[resource as usize] = baseline_vru.into();
    let instance = CreateInstance {
        client_id: operator.next_client_id().into(),
        account: account.into(),
        tier: 0.into(),
        reserved: 0.into(),
        baseline_vru: baselines,
        reserved2: 0.into(),
        name: field_cut(name),
        place: field_cut(""),
    };
    let instance = operator.call(&instance)?.value.get() as u32;
    if millicredits > 0 {
        let grant = GrantCredits {
            client_id: operator.next_client_id().into(),
            amount_millicredits: millicredits.into(),
            instance: instance.into(),
            resource: resource as u8,
            reserved: [0; 3],
        };
        operator.call(&grant)?;
    }
    Ok(instance)
}
