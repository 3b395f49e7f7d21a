//! `http-load [TURNS]`: what load on HTTP costs those who trade. Starts the daemon beside it, has
//! `loadgen` trade in turns of three seconds, with and without callers that ask over HTTP as fast as they
//! are answered, and prints the latency from order to acknowledgement of both kinds of turns and the
//! median of the ratios of neighbours: the machine is the same for both.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup, free_address};
use vendue_tests::vm::binaries;

const TOKEN: [u8; 32] = [7; 32];
/// Callers at once, each on a connection that stays.
const CALLERS: usize = 4;
const PATHS: [&str; 4] = ["/instances", "/books", "/metrics", "/trades"];

fn main() {
    let turns = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(8);
    let address = free_address();
    let grants = "[[access]]\ntoken_file = \"{dir}/root\"\nrole = \"operator\"";
    let http = format!("{grants}\n[http]\naddress = \"{address}\"");
    let mut daemon = Daemon::prepare(&Setup::small().key("tick_ms", "100").with(&http));
    std::fs::write(daemon.path("root"), TOKEN).expect("write a token");
    daemon.launch();
    let answered = AtomicU64::new(0);
    let mut found: Vec<[[u64; 2]; 2]> = Vec::new();
    trade(&daemon);
    for turn in 0..turns {
        let calm = trade(&daemon);
        let over = AtomicBool::new(false);
        let loaded = std::thread::scope(|scope| {
            for caller in 0..CALLERS {
                let (over, answered) = (&over, &answered);
                scope.spawn(move || ask(address, caller, over, answered));
            }
            let loaded = trade(&daemon);
            over.store(true, Ordering::Relaxed);
            loaded
        });
        println!(
            "turn {turn}: p50 {} -> {} ns, p99 {} -> {} ns",
            calm[0], loaded[0], calm[1], loaded[1]
        );
        found.push([calm, loaded]);
    }
    for (at, name) in [(0, "p50"), (1, "p99")] {
        let ratio = |[calm, loaded]: &[[u64; 2]; 2]| loaded[at] as f64 / calm[at].max(1) as f64;
        let mut ratios: Vec<f64> = found.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        println!("{name}: median ratio {:.2} of {} pairs", ratios[ratios.len() / 2], ratios.len());
    }
    let asked = answered.load(Ordering::Relaxed) / (3 * turns.max(1));
    println!("HTTP: about {asked} answers a second from {CALLERS} callers");
}

/// A turn of trading; median and p99 from order to acknowledgement, nanoseconds.
fn trade(daemon: &Daemon) -> [u64; 2] {
    let loadgen = binaries(&["loadgen"]).expect("loadgen is built").remove(0).0;
    let mut command = Command::new(loadgen);
    command.args(["--connect", &daemon.unix().to_string(), "--sessions", "4", "--rate", "1000"]);
    let output = command.args(["--seconds", "3", "--json"]).output().expect("run loadgen");
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
    ["p50", "p99"].map(|name| report["order_ack_ns"][name].as_u64().expect("a latency"))
}

/// Asks until it is over.
fn ask(address: SocketAddr, caller: usize, over: &AtomicBool, answered: &AtomicU64) {
    let token: String = TOKEN.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let mut buffer = vec![0; 1 << 20];
    for path in PATHS.iter().cycle().skip(caller) {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: v\r\nAuthorization: Bearer {token}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("ask");
        let (mut have, mut want) = (0, usize::MAX);
        while have < want {
            let read = stream.read(&mut buffer[have..]).expect("an answer");
            assert!(read > 0, "the answer ends early");
            have += read;
            let text = String::from_utf8_lossy(&buffer[..have]);
            if let Some((head, _)) = text.split_once("\r\n\r\n") {
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                let length: usize = length.and_then(|digits| digits.parse().ok()).unwrap_or(0);
                want = head.len() + 4 + length;
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}
