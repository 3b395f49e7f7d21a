//! What others speak and read the protocol with: the Python client, as pip installs it, and the
//! dissector for Wireshark, on what tshark captured.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use vendue_tests::daemon::{Daemon, Setup, eventually, free_address, hvctl};
use vendue_tests::market::*;
use vendue_tests::python::{install, succeeds};
use vendue_wire::client::{Client, Endpoint, Identity};
use vendue_wire::code::Side;
use vendue_wire::frame::Frame;
use vendue_wire::message::*;

const TOKEN: [u8; 32] = [7; 32];

fn wire() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire")
}

/// A daemon that also listens on loopback, and asks for a token there.
fn reachable() -> (Daemon, SocketAddr) {
    let address = free_address();
    let setup = Setup::small()
        .key("tcp", &format!("\"{address}\""))
        .with("[[access]]\ntoken_file = \"{dir}/token\"\nrole = \"operator\"");
    let mut daemon = Daemon::prepare(&setup);
    std::fs::write(daemon.path("token"), TOKEN).expect("write the token");
    daemon.launch();
    (daemon, address)
}

#[test]
fn what_is_generated_is_up_to_date() {
    succeeds(Command::new("python3").arg(wire().join("python/generate")).arg("--check"));
}

#[test]
fn the_python_client_is_installed_and_trades() {
    let (daemon, address) = reachable();
    let dir = TempDir::new().expect("a directory");
    // A copy: pip builds in the tree.
    let tree = dir.path().join("python");
    succeeds(Command::new("cp").arg("-r").arg(wire().join("python")).arg(&tree));
    let installed = dir.path().join("installed");
    install(&[tree], &installed);
    assert!(installed.join("vendue/messages.py").exists(), "the package is not whole");
    let hvctl = hvctl();
    let python = |arguments: &[&str]| {
        let mut command = Command::new("python3");
        // Not from the tree.
        command.args(arguments).env("PYTHONPATH", &installed).current_dir(dir.path());
        command
    };
    succeeds(
        python(&["-W", "error", "python/tests/test_client.py"])
            .env("VENDUE_UNIX", daemon.unix().to_string())
            .env("VENDUE_TCP", format!("tcp:{address}"))
            .env("VENDUE_TOKEN", daemon.path("token"))
            .env("VENDUE_HVCTL", hvctl)
            .env("VENDUE_PROTOCOL", wire().join("PROTOCOL.md")),
    );
    let said = succeeds(&mut python(&["python/example.py", &daemon.unix().to_string()]));
    assert!(said.contains("400 credits at 10\n"), "{said}");
}

/// tshark that captures what goes over loopback to and from a port; killed when dropped.
struct Capture {
    tshark: Child,
    file: PathBuf,
    port: u16,
}

impl Capture {
    fn begin(dir: &Path, port: u16) -> Capture {
        let file = dir.join("captured.pcapng");
        let mut tshark = Command::new("tshark")
            .args(["-i", "lo", "-f", &format!("tcp port {port}"), "-a", "duration:120", "-w"])
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tshark: tests/vm/fetch installs it");
        let stderr = BufReader::new(tshark.stderr.take().expect("piped"));
        let mut lines = stderr.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.contains("Capture started")), "tshark captures nothing");
        // It goes on talking.
        std::thread::spawn(move || lines.for_each(drop));
        Capture { tshark, file, port }
    }

    /// Waits until the connection's end is in the file.
    fn end(mut self) -> Capture {
        eventually("the end of the connection in the capture", || {
            let ends = "tcp.flags.fin == 1 || tcp.flags.reset == 1";
            let ends = self.read(&["-Y", ends, "-T", "fields", "-e", "tcp.srcport"]);
            (!ends.is_empty()).then_some(())
        });
        self.stop();
        self
    }

    fn stop(&mut self) {
        let _ = kill(Pid::from_raw(self.tshark.id() as i32), Signal::SIGINT);
        let _ = self.tshark.wait();
    }

    /// What tshark shows of the capture with our dissector. While it is still written its end may
    /// be cut off.
    fn read(&self, arguments: &[&str]) -> String {
        let script = format!("lua_script:{}", wire().join("wireshark/vendue.lua").display());
        let mut tshark = Command::new("tshark");
        tshark.arg("-r").arg(&self.file).args(["-X", &script]);
        tshark.args(["-o", &format!("vendue.port:{}", self.port)]).args(arguments);
        let output = tshark.output().expect("tshark runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!errors.contains("Lua"), "{errors}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What it made of the frames that went one way, and the frames themselves.
    fn one_way(&self, side: &str) -> (Vec<Value>, Vec<u8>) {
        let filter = format!("{side} == {} && vendue", self.port);
        let shown =
            self.read(&["-Y", &filter, "-T", "json", "-j", "vendue", "--no-duplicate-keys"]);
        let packets: Vec<Value> = serde_json::from_str(&shown).expect("JSON");
        let dissected =
            packets.into_iter().flat_map(|mut packet| match packet["_source"]["layers"]["vendue"]
                .take()
            {
                Value::Array(several) => several,
                one => vec![one],
            });
        let filter = format!("{side} == {} && tcp.len > 0", self.port);
        let hex = self.read(&["-Y", &filter, "-T", "fields", "-e", "tcp.payload"]);
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        let sent = digits.chunks(2).map(|pair| byte(pair).expect("hex")).collect();
        (dissected.collect(), sent)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the dissector is to show of a frame: each field that is one number, or text, by its name.
fn expected(frame: &Frame<'_>) -> Vec<(String, String)> {
    let schema = SCHEMA.iter().find(|(kind, ..)| *kind == frame.header.kind).expect("a known kind");
    let (_, message, _, fields) = schema;
    let mut shown = vec![
        ("vendue.message".to_owned(), (*message).to_owned()),
        ("vendue.length".to_owned(), frame.len().to_string()),
        ("vendue.sequence".to_owned(), frame.header.sequence.get().to_string()),
    ];
    for &(name, offset, size) in fields.iter().filter(|(name, ..)| !name.starts_with("reserved")) {
        let bytes = &frame.body[offset..offset + size];
        let value = match size {
            1 | 2 | 4 | 8 => bytes
                .iter()
                .rev()
                .fold(0_u64, |value, byte| value << 8 | u64::from(*byte))
                .to_string(),
            _ if name.ends_with("name") => {
                let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(size);
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            }
            _ => continue,
        };
        shown.push((format!("vendue.{message}.{name}"), value));
    }
    shown
}

#[test]
fn wireshark_shows_a_captured_session_as_it_was() {
    let (_daemon, address) = reachable();
    let dir = TempDir::new().expect("a directory");
    let capture = Capture::begin(dir.path(), address.port());
    let identity = Identity { token: TOKEN, ..Identity::operator() };
    let mut client = Client::connect(&Endpoint::Tcp(address), &identity).expect("a session");
    let [seller, buyer] = ["zoé", "bert"].map(|name| create_party(&mut client, name, ""));
    deposit(&mut client, buyer.account, 1 << 50);
    grant(&mut client, seller.instance, 0x0001_0203);
    for (party, side) in [(seller, Side::Sell), (buyer, Side::Buy)] {
        enter(&mut client, party, side, 7, 500);
    }
    for _ in 0..2 {
        expect::<Filled>(&mut client);
    }
    client.ask_all::<BookRow, _>(|from| QueryBooks { from: (from as u32).into() }).expect("books");
    client.ask::<LedgerRow, _>(&QueryLedger {}).expect("the ledger");
    client.logout().expect("a clean end");

    let capture = capture.end();
    let mut frames = 0;
    for side in ["tcp.dstport", "tcp.srcport"] {
        let (dissected, sent) = capture.one_way(side);
        let mut rest = &sent[..];
        for shown in &dissected {
            let frame = Frame::parse(rest).expect("frames").expect("a whole frame");
            for (name, value) in expected(&frame) {
                assert_eq!(shown[&name], Value::String(value), "{name} in {shown}");
            }
            rest = &rest[frame.len()..];
            frames += 1;
        }
        assert!(rest.is_empty(), "{} bytes were not dissected", rest.len());
    }
    assert!(frames > 40, "{frames} frames");
}
