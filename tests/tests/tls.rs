//! TLS as its peers see it: who is let in, as what, what the others are told, and what strangers at
//! the door cost.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use vendue_tests::daemon::{Daemon, PATIENCE, Setup, eventually, free_address};
use vendue_tests::market::*;
use vendue_tests::raw::logon;
use vendue_wire::client::{Client, ClientError, Endpoint, Identity};
use vendue_wire::code::{Goodbye, Reject, Role, Side};
use vendue_wire::frame::{FRAME_BYTES_MAX, Frame, encode};
use vendue_wire::message::*;

const GRANTS: &str = r#"
[[access]]
certificate = "root"
role = "operator"
[[access]]
certificate = "alice"
role = "tenant"
account = 0
[[access]]
certificate = "bob"
role = "tenant"
account = 1
[[access]]
certificate = "web"
role = "agent"
account = 0
instance = 0
"#;

fn hvctl(arguments: &[&str]) -> Output {
    let program = vendue_tests::daemon::hvctl();
    Command::new(program).args(arguments).output().expect("run hvctl")
}

fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// A daemon that is not started, with TLS on loopback and keys from `pki/localhost` in its
/// directory.
fn prepare(setup: Setup) -> (Daemon, SocketAddr) {
    let address = free_address();
    let tls = format!("{{ address = \"{address}\", dir = \"{{dir}}/pki/localhost\" }}");
    (Daemon::prepare(&setup.key("tls", &tls).with(GRANTS)), address)
}

fn endpoint(daemon: &Daemon, who: &str, host: &str, address: SocketAddr) -> Endpoint {
    let dir = daemon.path("pki").join(who);
    Endpoint::Tls { dir, host: host.to_owned(), port: address.port() }
}

/// A site made with `hvctl pki`: an authority, a daemon that runs and a client for each grant, and
/// one for none.
fn site(setup: Setup) -> (Daemon, SocketAddr) {
    let (mut daemon, address) = prepare(setup);
    let dir = daemon.path("pki");
    let dir = dir.to_str().expect("a plain name");
    let make = |what: &[&str]| {
        let made = hvctl(&[&["pki"], what, &["--dir", dir]].concat());
        assert!(made.status.success(), "{what:?}: {}", text_of(&made));
    };
    make(&["ca"]);
    make(&["server", "localhost", "127.0.0.1"]);
    for name in ["root", "alice", "bob", "web", "stranger"] {
        make(&["client", name]);
    }
    daemon.launch();
    (daemon, address)
}

#[track_caller]
fn refused(endpoint: &Endpoint, identity: &Identity) {
    let came = Client::connect(endpoint, identity);
    let code = Reject::BadCredentials as u8;
    assert!(matches!(came, Err(ClientError::Refused { code: c, .. }) if c == code), "{came:?}");
}

fn as_role(role: Role, account: u32, instance: u32) -> Identity {
    Identity { role, instance, ..Identity::tenant(account) }
}

/// A site, its market, and how each client reaches it.
struct Town {
    daemon: Daemon,
    market: Market,
    root: Endpoint,
    alice: Endpoint,
    bob: Endpoint,
    web: Endpoint,
    stranger: Endpoint,
}

impl Town {
    fn open() -> Town {
        let (daemon, address) = site(Setup::small());
        let market = Market::open(&daemon);
        let [root, alice, web, stranger] = ["root", "alice", "web", "stranger"]
            .map(|who| endpoint(&daemon, who, "localhost", address));
        let bob = endpoint(&daemon, "bob", "127.0.0.1", address);
        Town { daemon, market, root, alice, bob, web, stranger }
    }
}

/// Whoever has a certificate trades as what the configuration says of its name.
#[test]
fn a_certificate_is_an_account_and_a_role() {
    let Town { daemon, market, root, alice, bob, web, .. } = Town::open();
    let (seller, buyer) = (market.seller, market.buyer);
    // Who asks for no account in particular acts for its own.
    let mut sells = Client::connect(&alice, &Identity::tenant(ANY)).unwrap();
    assert_eq!(sells.ack.account.get(), seller.account);
    let mut buys = Client::connect(&bob, &Identity::tenant(buyer.account)).unwrap();
    let mut agent = Client::connect(&web, &as_role(Role::Agent, ANY, ANY)).unwrap();
    assert_eq!(agent.ack.instance.get(), seller.instance);
    enter(&mut sells, seller, Side::Sell, 10, 3);
    enter(&mut agent, seller, Side::Sell, 10, 3);
    enter(&mut buys, buyer, Side::Buy, 10, 6);
    assert_eq!(expect::<Filled>(&mut sells).quantity.get(), 3);
    assert_eq!(expect::<Filled>(&mut agent).quantity.get(), 3);
    let board = sells.attach_board().map(|_| ());
    let code = Reject::NotOnThisTransport as u8;
    assert!(matches!(board, Err(ClientError::Refused { code: c, .. }) if c == code), "{board:?}");
    assert!(Client::connect(&root, &Identity::operator()).is_ok());
    assert!(Client::connect(&root, &Identity::observer()).is_ok());

    // Much at once, in both directions.
    for _ in 0..200 {
        let order = limit(&mut sells, seller, Side::Sell, 50, 1);
        sells.send(&order).unwrap();
    }
    for _ in 0..200 {
        expect::<Accepted>(&mut sells);
    }
    let session = sells.ack.session.get();
    let again = Identity { session, replay_from: 1, ..Identity::tenant(seller.account) };
    let mut resumed = Client::connect(&alice, &again).unwrap();
    for _ in 0..202 {
        assert_ne!(next(&mut resumed).kind(), ReplayEnd::KIND);
    }
    expect::<ReplayEnd>(&mut resumed);
    check_alive(&daemon, &market, &daemon.unix());
}

/// Another's account is refused like one that does not exist, and so is more than was granted.
#[test]
fn a_certificate_is_nothing_else() {
    let Town { daemon, market, alice, bob, web, stranger, .. } = Town::open();
    let (seller, buyer) = (market.seller, market.buyer);
    for account in [buyer.account, 60] {
        refused(&alice, &Identity::tenant(account));
        refused(&web, &as_role(Role::Agent, account, seller.instance));
    }
    for instance in [buyer.instance, 60] {
        refused(&web, &as_role(Role::Agent, seller.account, instance));
    }
    refused(&web, &Identity::tenant(seller.account));
    for endpoint in [&alice, &bob, &web, &stranger] {
        refused(endpoint, &Identity::operator());
        refused(endpoint, &Identity::observer());
    }
    refused(&stranger, &Identity::tenant(seller.account));
    check_alive(&daemon, &market, &daemon.unix());
}

/// The operator's command finds out by itself what it may be.
#[test]
fn hvctl_shows_each_its_own() {
    let Town { root, alice, web, stranger, daemon, .. } = Town::open();
    let ask = |who: &Endpoint| {
        let connect = who.to_string();
        hvctl(&["--connect", connect.as_str(), "--json", "instance", "list"])
    };
    for narrow in [&alice, &web] {
        let shown = text_of(&ask(narrow));
        assert!(shown.contains("\"seller\"") && !shown.contains("buyer"), "{shown}");
    }
    assert!(text_of(&ask(&root)).contains("\"buyer\""));
    let told = ask(&stranger);
    assert_eq!(told.status.code(), Some(1));
    assert!(text_of(&told).contains("[[access]]"), "{}", text_of(&told));
    drop(daemon);
}

/// An authority of a test's own, that signs what `hvctl pki` would not.
struct Authority {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(dir: &Path, name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { dir: dir.to_owned(), issuer: Issuer::new(params, key), pem }
    }

    /// Makes a directory of keys; good until the end of `year`'s first day.
    fn make(&self, dir: &str, names: &[&str], usage: ExtendedKeyUsagePurpose, year: i32) {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        params.not_after = date_time_ymd(year, 1, 1);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let dir = self.dir.join(dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("ca.pem"), &self.pem).unwrap();
        std::fs::write(dir.join("cert.pem"), certificate.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), key.serialize_pem()).unwrap();
    }
}

/// Whoever is not let in is told what is wrong and what to do, on either side.
#[test]
fn who_is_not_trusted_is_told_why() {
    use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
    let plain = free_address();
    let (mut daemon, address) = prepare(Setup::small().key("tcp", &format!("\"{plain}\"")));
    let ours = Authority::new(&daemon.path("pki"), "ours");
    let theirs = Authority::new(&daemon.path("pki"), "theirs");
    ours.make("localhost", &["localhost"], ServerAuth, 2100);
    ours.make("alice", &["alice"], ClientAuth, 2100);
    ours.make("expired", &["alice"], ClientAuth, 2020);
    ours.make("server", &["alice"], ServerAuth, 2100);
    theirs.make("theirs", &["alice"], ClientAuth, 2100);
    // Trusts the daemon, but its own certificate is of elsewhere.
    theirs.make("half", &["alice"], ClientAuth, 2100);
    std::fs::write(daemon.path("pki/half/ca.pem"), &ours.pem).unwrap();
    daemon.launch();
    let told = |who: &str, host: &str, address: SocketAddr| {
        let endpoint = endpoint(&daemon, who, host, address);
        let refused = Client::connect(&endpoint, &Identity::tenant(ANY));
        refused.expect_err("nobody is let in").to_string()
    };
    for (who, host, address, parts) in [
        ("half", "localhost", address, ["signed by the daemon's CA", "hvctl pki client"]),
        (
            "theirs",
            "localhost",
            address,
            ["not signed by the CA in ca.pem", "ca.pem from its site"],
        ),
        ("expired", "localhost", address, ["has expired", "hvctl pki client"]),
        ("server", "localhost", address, ["no client's certificate", "hvctl pki client"]),
        ("alice", "127.0.0.1", address, ["localhost", "hvctl pki server"]),
        ("alice", "localhost", plain, ["does not speak TLS", "gateway.tls"]),
        ("nobody", "localhost", address, ["ca.pem", "hvctl pki client"]),
    ] {
        let said = told(who, host, address);
        assert!(parts.iter().all(|part| said.contains(part)), "{who}, {host}: {said}");
    }
    // A new certificate is taken without a restart, and so is one that is no good.
    let alice = endpoint(&daemon, "alice", "localhost", address);
    let market = Market::open(&daemon);
    let lets_in =
        |_: &str| Client::connect(&alice, &Identity::tenant(market.seller.account)).is_ok();
    assert!(lets_in("at first"));
    ours.make("localhost", &["localhost"], ServerAuth, 2020);
    daemon.reload();
    let said = eventually("the expired one", || {
        Client::connect(&alice, &Identity::tenant(ANY)).err().map(|error| error.to_string())
    });
    assert!(said.contains("has expired") && said.contains("hvctl pki server"), "{said}");
    std::fs::write(daemon.path("pki/localhost/key.pem"), "no key").unwrap();
    let said = daemon.reload();
    assert!(said.contains("key.pem") && said.contains("stays"), "{said}");
    ours.make("localhost", &["localhost"], ServerAuth, 2100);
    daemon.reload();
    eventually("the good one", || lets_in("again").then_some(()));
    check_alive(&daemon, &market, &daemon.unix());
}

/// Reads until the other end hangs up, whatever it says.
fn until_closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the door stays open: {error}"),
        }
    }
}

/// Those who do not shake hands are shown out, however slowly or loudly they do not.
#[test]
fn strangers_at_the_door_are_bounded() {
    let setup = Setup::small().key("logon_timeout_ms", "300").key("connections_max", "24");
    let (daemon, address) = site(setup);
    let market = Market::open(&daemon);
    let connect = || TcpStream::connect(address).expect("the door");
    let openings: [&[u8]; 6] = [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 4096],
        // A record's header that promises more than ever comes, and the start of a hello.
        &[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        &[22, 3, 1, 0x40, 1],
        &[0; 64],
    ];
    let mut strangers: Vec<TcpStream> = Vec::new();
    for opening in openings.iter().cycle().take(12) {
        let mut stranger = connect();
        let _ = stranger.write_all(opening);
        strangers.push(stranger);
    }
    // A hello that takes for ever: each byte must buy no time.
    let mut slow = connect();
    let mut drip = [22, 3, 1, 2, 0].into_iter().chain(std::iter::repeat(1));
    eventually("the end of a slow hello", || {
        std::thread::sleep(Duration::from_millis(20));
        let byte = drip.next().expect("endless");
        slow.write_all(&[byte]).is_err().then_some(())
    });
    strangers.iter_mut().for_each(until_closed);
    let alice = endpoint(&daemon, "alice", "localhost", address);
    let mut client = Client::connect(&alice, &Identity::tenant(ANY)).unwrap();
    enter(&mut client, market.seller, Side::Sell, 99, 1);
    check_alive(&daemon, &market, &daemon.unix());
    drop(client);
    eventually("all are gone", || (daemon.status().0.connections.get() <= 2).then_some(()));
}

/// `openssl s_client`, with these keys or none.
fn openssl(daemon: &Daemon, who: Option<&str>, address: SocketAddr) -> Child {
    let pki = daemon.path("pki");
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-tls1_3", "-verify_return_error"]);
    command.args(["-verify_hostname", "localhost", "-connect", &address.to_string()]);
    command.arg("-CAfile").arg(pki.join("localhost/ca.pem"));
    if let Some(who) = who {
        command.arg("-cert").arg(pki.join(who).join("cert.pem"));
        command.arg("-key").arg(pki.join(who).join("key.pem"));
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("openssl, which this test needs, runs")
}

/// The next frame on its standard output.
fn frame_of(child: &mut Child) -> (u8, Vec<u8>) {
    let out = child.stdout.as_mut().expect("a pipe");
    let mut bytes = Vec::new();
    loop {
        if let Some(frame) = Frame::parse(&bytes).expect("frames") {
            return (frame.header.kind, frame.body.to_vec());
        }
        let mut byte = [0];
        out.read_exact(&mut byte).expect("a frame");
        bytes.push(byte[0]);
    }
}

/// Another implementation of TLS shakes hands and speaks in frames.
#[test]
fn openssl_speaks_with_the_daemon() {
    let (daemon, address) = site(Setup::small().key("logon_timeout_ms", "1000"));
    let market = Market::open(&daemon);
    let mut bytes = [0; FRAME_BYTES_MAX];
    let length = encode(0, &logon(&Identity::tenant(market.seller.account)), &mut bytes);
    let mut alice = openssl(&daemon, Some("alice"), address);
    alice.stdin.as_mut().unwrap().write_all(&bytes[..length]).unwrap();
    let (kind, body) = frame_of(&mut alice);
    assert_eq!(kind, LogonAck::KIND, "{body:?}");
    let length = encode(1, &QueryInstances { from: 0.into() }, &mut bytes);
    alice.stdin.as_mut().unwrap().write_all(&bytes[..length]).unwrap();
    let (kind, row) = frame_of(&mut alice);
    assert_eq!(kind, InstanceRow::KIND);
    assert!(row.windows(6).any(|bytes| bytes == b"seller"));
    assert_eq!(frame_of(&mut alice).0, QueryEnd::KIND, "only its own is shown");
    alice.kill().unwrap();
    alice.wait().unwrap();

    // A handshake alone is no logon.
    let mut silent = openssl(&daemon, Some("alice"), address);
    let (kind, body) = frame_of(&mut silent);
    assert_eq!((kind, body[0]), (Farewell::KIND, Goodbye::LogonTimeout as u8));
    silent.kill().unwrap();
    silent.wait().unwrap();

    // Without a certificate there is no handshake.
    let mut nobody = openssl(&daemon, None, address);
    let status = eventually("its end", || nobody.try_wait().unwrap());
    let output = nobody.wait_with_output().unwrap();
    assert!(!status.success() && output.stdout.is_empty());
    assert!(text_of(&output).contains("certificate required"), "{}", text_of(&output));
    check_alive(&daemon, &market, &daemon.unix());
}

/// What would speak in plain text between hosts, or without keys, does not start.
#[test]
fn a_daemon_without_trust_does_not_start() {
    let open = Setup::small().key("tcp", "\"0.0.0.0:7411\"");
    let (status, said) = Daemon::prepare(&open).launch_refused();
    assert!(
        !status.success() && said.contains("loopback") && said.contains("gateway.tls"),
        "{said}"
    );
    let (daemon, _) = prepare(Setup::small());
    let (status, said) = daemon.launch_refused();
    assert!(!status.success() && said.contains("hvctl pki server"), "{said}");
}
