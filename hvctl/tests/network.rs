//! The network meter against traffic that is known to the byte: two network namespaces of the test's
//! own with a pair of virtual Ethernet devices between them, which end with the processes in them.
//!
//! Needs root, `ip`, `unshare` and `nsenter`. Where namespaces cannot be made it says so and returns.

use hvctl::meter::Meter;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Bytes of a datagram, and of its frame: Ethernet, IPv4 and UDP headers before it.
const PAYLOAD_BYTES: u64 = 1000;
const FRAME_BYTES: u64 = 14 + 20 + 8 + PAYLOAD_BYTES;
/// How often a sample is taken until all that was sent has been counted.
const SAMPLES_MAX: u32 = 1000;

/// A process in a network namespace of its own, which ends with the test, also when that fails.
struct Namespace(Child);

impl Namespace {
    fn open() -> std::io::Result<Namespace> {
        let mut command = Command::new("unshare");
        // It says a word once it is there, and ends with its input.
        command.args(["--net", "sh", "-c", "echo; read end"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut word = [0];
        let heard = std::io::Read::read(child.stdout.as_mut().expect("a pipe"), &mut word)?;
        if heard == 1 {
            return Ok(Namespace(child));
        }
        let output = child.wait_with_output()?;
        Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Runs a script of bash's in it, which must succeed.
    fn run(&self, script: &str) -> Result<(), String> {
        let mut command = Command::new("nsenter");
        command.args(["--net", "--target", &self.pid().to_string()]);
        command.args(["--", "bash", "-euc", script]);
        let output = command.output().map_err(|error| format!("nsenter: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    }

    /// Sends so many datagrams to an address.
    fn send(&self, datagrams: u64, to: &str) {
        let script = format!(
            "text=$(printf '%0{PAYLOAD_BYTES}d' 0); \
             for at in $(seq {datagrams}); do printf %s \"$text\" >/dev/udp/{to}/9; done"
        );
        self.run(&script).unwrap_or_else(|error| panic!("datagrams were not sent: {error}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces with a wire between them; `None`, said aloud, where they cannot be made. What is
/// sent to .9 from the first and to .10 from the second arrives and is nobody's: nothing answers. A
/// wire of less than 1280 bytes carries no IPv6, and so nothing of the kernel's own.
fn wire() -> Option<(Namespace, Namespace)> {
    let made = || -> Result<(Namespace, Namespace), String> {
        let open = || Namespace::open().map_err(|error| format!("unshare: {error}"));
        let (near, far) = (open()?, open()?);
        let pid = far.pid();
        near.run(&format!(
            "ip link add near mtu 1200 address 02:00:00:00:00:01 type veth \
                 peer name far mtu 1200 address 02:00:00:00:00:02 netns {pid}
             ip address add 198.18.0.1/24 dev near
             ip link set near up
             ip neighbour add 198.18.0.9 lladdr 02:00:00:00:00:02 dev near"
        ))?;
        far.run(
            "ip address add 198.18.0.2/24 dev far
             ip link set far up
             ip link set lo up
             ip neighbour add 198.18.0.10 lladdr 02:00:00:00:00:01 dev far",
        )?;
        Ok((near, far))
    };
    made().map_err(|why| println!("not run: no wire between two namespaces here: {why}")).ok()
}

/// Samples until so many bytes have been counted.
fn count(meter: &mut Meter, bytes: u64) -> u64 {
    let mut counted = 0;
    for _ in 0..SAMPLES_MAX {
        counted += meter.sample().expect("a sample").network_bytes;
        if counted >= bytes {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    counted
}

#[test]
fn the_bytes_that_are_metered_are_those_that_went_over_the_wire() {
    let Some((near, far)) = wire() else { return };
    near.send(3, "198.18.0.9");
    let mut meter = Meter::process(far.pid()).expect("a meter");
    assert_eq!(count(&mut meter, 0), 0, "what came before is nobody's use");

    near.send(40, "198.18.0.9");
    assert_eq!(count(&mut meter, 40 * FRAME_BYTES), 40 * FRAME_BYTES, "received");
    far.send(25, "198.18.0.10");
    assert_eq!(count(&mut meter, 25 * FRAME_BYTES), 25 * FRAME_BYTES, "sent");
    // What goes round inside is no use of the network.
    far.send(10, "127.0.0.1");
    far.send(7, "198.18.0.10");
    near.send(5, "198.18.0.9");
    assert_eq!(count(&mut meter, 12 * FRAME_BYTES), 12 * FRAME_BYTES, "both ways");
    assert_eq!(count(&mut meter, 0), 0, "nothing is counted twice");
}
