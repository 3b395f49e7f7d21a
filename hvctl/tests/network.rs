//! The network meter against traffic that is known to the byte, and the network limit against traffic
//! that takes what it gets: two network namespaces of the test's own with a pair of virtual Ethernet
//! devices between them, which end with the processes in them.
//!
//! Needs root, `ip`, `tc`, `unshare`, `nsenter` and cgroup v2, whose controllers may be elsewhere. Where
//! namespaces cannot be made it says so and returns.

use hvctl::cgroup::CgroupHost;
use hvctl::host::{Backend, Home, Host, Options};
use hvctl::lever::State;
use hvctl::meter::Meter;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vendue_wire::code::Resource;
use vendue_wire::message::text;

/// Bytes of a datagram, and of its frame: Ethernet, IPv4 and UDP headers before it.
const PAYLOAD_BYTES: u64 = 1000;
const FRAME_BYTES: u64 = 14 + 20 + 8 + PAYLOAD_BYTES;
/// How often a sample is taken until all that was sent has been counted.
const SAMPLES_MAX: u32 = 1000;
/// What veth carries in one piece, though it is many frames.
const PACKET_BYTES_MAX: u64 = 64 << 10;
/// Looks at a rate until the machine had time to send so fast.
const WINDOWS_MAX: usize = 10;

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

/// A group of the test's own on cgroup v2, with all below it; no controller is needed there. It ends
/// with the test, also when that fails, after the processes in it.
struct Group(PathBuf);

impl Group {
    fn make() -> Result<Group, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").map_err(|e| e.to_string())?;
        let line = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let point = line.and_then(|line| line.split(' ').nth(4)).ok_or("no cgroup2 is mounted")?;
        let path = Path::new(point).join(format!("network-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Group(path))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        fn remove(path: &Path) {
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                if entry.path().is_dir() {
                    remove(&entry.path());
                }
            }
            let _ = std::fs::write(path.join("cgroup.kill"), "1");
            // What was killed leaves its group a moment later.
            for _ in 0..100 {
                if std::fs::remove_dir(path).is_ok() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        remove(&self.0);
    }
}

/// One connection that sends as much as it may, until this is dropped.
struct Traffic(Arc<AtomicBool>, Vec<JoinHandle<()>>);

impl Traffic {
    /// From a namespace to an address in another.
    fn start(from: &Namespace, to: &Namespace, address: &'static str) -> Traffic {
        let enter = |namespace: &Namespace| {
            let file = File::open(format!("/proc/{}/ns/net", namespace.pid())).unwrap();
            move || setns(file, CloneFlags::CLONE_NEWNET).unwrap()
        };
        let (enter_from, enter_to) = (enter(from), enter(to));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let (ready, go) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            enter_to();
            let listener = TcpListener::bind((address, 0)).unwrap();
            ready.send(listener.local_addr().unwrap()).unwrap();
            let mut stream = listener.accept().unwrap().0;
            let mut bytes = vec![0; 1 << 16];
            while stream.read(&mut bytes).is_ok_and(|length| length > 0) {}
        });
        let writer = std::thread::spawn(move || {
            enter_from();
            let mut stream = TcpStream::connect(go.recv().unwrap()).unwrap();
            // What is under way must not outlive the test by much.
            while !stopped.load(Ordering::Relaxed) && stream.write_all(&[0; 16 << 10]).is_ok() {}
        });
        Traffic(stop, vec![reader, writer])
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        for thread in self.1.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Bytes that the device in the calling thread's namespace received and sent.
fn carried(device: &str) -> [u64; 2] {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let words: Vec<u64> =
        line.unwrap().split_ascii_whitespace().map(|word| word.parse().unwrap()).collect();
    [words[0], words[8]]
}

/// Thousandths of a rate that goes over the wire in half a second or more.
fn permille(bits_per_s: u64, way: usize) -> u64 {
    let (start, before) = (Instant::now(), carried("near")[way]);
    std::thread::sleep(Duration::from_millis(500));
    let after = carried("near")[way];
    // Read before the clock: a pause in between makes it less, never more.
    let bits = u128::from(after - before) * 8 * 1000 * 1_000_000;
    (bits / start.elapsed().as_micros() / u128::from(bits_per_s)) as u64
}

/// What goes over the wire is the rate, less the headers that the device does not count: 54 of 1214
/// bytes; and never more, but for a packet that a window caught whole.
fn assert_paced(bits_per_s: u64, way: usize) {
    std::thread::sleep(Duration::from_millis(200));
    let mut seen = Vec::new();
    for _ in 0..WINDOWS_MAX {
        let window = permille(bits_per_s, way);
        let packet = 8 * PACKET_BYTES_MAX * 1000 * 2 / bits_per_s;
        assert!(window <= 1000 + packet, "{window} permille of {bits_per_s} bit/s");
        seen.push(window);
        // A machine that had no time for us says nothing about the rate.
        if window >= 880 {
            return;
        }
    }
    panic!("{seen:?} permille of {bits_per_s} bit/s");
}

const MBIT: u64 = 1_000_000;
const NOW_NS: u64 = 1_000_000_000_000;
const SECOND_NS: u64 = 1_000_000_000;

/// An instance in the far namespace, held by a host whose thread, the caller's, is in the near one.
fn instance(near: &Namespace, far: &Namespace) -> Option<(Host, Group)> {
    let made = || -> Result<(Host, Group), String> {
        let group = Group::make()?;
        let file = File::open(format!("/proc/{}/ns/net", near.pid())).map_err(|e| e.to_string())?;
        setns(file, CloneFlags::CLONE_NEWNET).map_err(|e| format!("setns: {e}"))?;
        let cgroup = CgroupHost::detect(group.0.to_str().unwrap(), &[Resource::Network]);
        let cgroup = cgroup.map_err(|error| error.to_string())?;
        let mut host = Host::new(Backend::Cgroup(cgroup), &[Resource::Network], Options::default());
        host.adopt(1, Home { account: 0, tier: 0 }, "", &[]).map_err(|error| error.to_string())?;
        let processes = Path::new(host.place(1).unwrap()).join("cgroup.procs");
        std::fs::write(processes, far.pid().to_string()).map_err(|error| error.to_string())?;
        Ok((host, group))
    };
    made().map_err(|why| println!("not run: no instance with a network here: {why}")).ok()
}

/// A process that holds a tap of this name in the namespace and reads what comes to the guest.
const GUEST: &str = "import fcntl, os, struct, sys
tap = os.open('/dev/net/tun', os.O_RDWR)
fcntl.ioctl(tap, 0x400454ca, struct.pack('16sH22x', sys.argv[1].encode(), 0x1002))
print(flush=True)
while os.read(tap, 65536): pass";

/// A VMM in the near namespace, which is the host's own there: what goes to its tap is paced, and it is
/// said that what comes from it is not.
#[test]
fn a_tap_in_the_hosts_own_network_is_limited() {
    let Some((near, far)) = wire() else { return };
    let Some((mut host, _group)) = instance(&near, &far) else { return };
    let mut guest = Command::new("python3");
    let guest = guest.args(["-c", GUEST, "tap0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut guest = match guest.spawn() {
        Ok(child) => Guest(child),
        Err(error) => return println!("not run: no python3 ({error})"),
    };
    let mut word = [0];
    if guest.0.stdout.as_mut().unwrap().read(&mut word).unwrap() == 0 {
        return println!("not run: no tap can be made here");
    }
    near.run(
        "ip link set tap0 mtu 1200 up
         ip address add 198.18.1.1/24 dev tap0
         ip neighbour add 198.18.1.9 lladdr 02:00:00:00:00:09 dev tap0",
    )
    .unwrap();
    let processes = Path::new(host.place(1).unwrap()).join("cgroup.procs");
    std::fs::write(processes, guest.0.id().to_string()).unwrap();
    // Whoever else is in there is in another namespace.
    let elsewhere = Path::new(host.place(1).unwrap()).ancestors().nth(3).unwrap();
    std::fs::write(elsewhere.join("cgroup.procs"), far.pid().to_string()).unwrap();

    host.want(1, Resource::Network, 8, MBIT, NOW_NS).unwrap();
    host.turn(NOW_NS);
    let faults = host.faults();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].text.contains("net.sent") && faults[0].text.contains("no queue"),
        "{faults:?}"
    );
    let received =
        host.limits(1).into_iter().find(|row| text(&row.file) == "net.received").unwrap();
    assert_eq!((received.state, text(&received.read_back)), (State::InForce as u8, "1000000"));

    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let flood = std::thread::spawn(move || {
        let socket = std::net::UdpSocket::bind("198.18.1.1:0").unwrap();
        while !stopped.load(Ordering::Relaxed) {
            // A full queue drops, and says so.
            let _ = socket.send_to(&[0; 1000], "198.18.1.9:9");
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let mut seen = Vec::new();
    for _ in 0..WINDOWS_MAX {
        let (start, before) = (Instant::now(), carried("tap0")[1]);
        std::thread::sleep(Duration::from_millis(500));
        let bits = (carried("tap0")[1] - before) * 8;
        let permille = bits * 1_000_000 / start.elapsed().as_micros() as u64 / 8_000;
        // A window may begin with what the queue's burst lets through.
        assert!(permille <= 1_250, "{permille} permille of 8 Mbit/s");
        seen.push(permille);
        if permille >= 880 {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    flood.join().unwrap();
    assert!(seen.last().is_some_and(|last| *last >= 880), "{seen:?} permille of 8 Mbit/s");
    // Taken off by somebody, it is put back; let go, it is lifted.
    near.run("tc qdisc del dev tap0 root").unwrap();
    host.verify(NOW_NS + SECOND_NS, 100);
    host.turn(NOW_NS + SECOND_NS);
    near.run("tc qdisc show dev tap0 | grep -q htb").unwrap();
    let _ = host.release(1);
    near.run("! tc qdisc show dev tap0 | grep -q htb").unwrap();
}

/// Ends with the test, also when that fails.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The sensors say what goes over the wire.
fn assert_sensed(host: &mut Host, bits_per_s: u64) {
    // The meter finds the network's counters.
    host.sample(1, NOW_NS).expect("a sample");
    let start = Instant::now();
    let mut sense =
        || host.sense(1, None, NOW_NS + start.elapsed().as_nanos() as u64).expect("a row");
    sense();
    let mut seen = 0;
    for _ in 0..WINDOWS_MAX {
        std::thread::sleep(Duration::from_millis(500));
        seen = sense().network_bytes_per_s.get() * 8 * 1000 / bits_per_s;
        if (880..=1100).contains(&seen) {
            return;
        }
    }
    panic!("{seen} permille of {bits_per_s} bit/s");
}

fn states(host: &Host) -> Vec<(u8, String)> {
    host.limits(1).iter().map(|row| (row.state, text(&row.read_back).to_owned())).collect()
}

#[test]
fn an_instances_traffic_keeps_to_its_rate_each_way_and_to_the_next_one() {
    let Some((near, far)) = wire() else { return };
    let Some((mut host, _group)) = instance(&near, &far) else { return };
    for (way, (from, to, address)) in
        [(&far, &near, "198.18.0.1"), (&near, &far, "198.18.0.2")].into_iter().enumerate()
    {
        let now_ns = NOW_NS + way as u64 * 100 * SECOND_NS;
        let _traffic = Traffic::start(from, to, address);
        std::thread::sleep(Duration::from_millis(300));
        let free = permille(40 * MBIT, way);
        assert!(free > 2000, "not held back yet, but {free} permille of what it will be");
        for (turn, rate) in [40, 8, 20].into_iter().enumerate() {
            let now_ns = now_ns + turn as u64 * SECOND_NS;
            host.want(1, Resource::Network, rate, MBIT, now_ns).unwrap();
            assert_eq!(host.turn(now_ns), None);
            let says = (rate * MBIT / 8).to_string();
            assert_eq!(states(&host), [(1, says.clone()), (1, says)], "in force and read back");
            assert_paced(rate * MBIT, way);
        }
        assert_sensed(&mut host, 20 * MBIT);
        let written = host.counters().written;
        host.want(1, Resource::Network, 20, MBIT, now_ns + 10 * SECOND_NS).unwrap();
        host.turn(now_ns + 10 * SECOND_NS);
        assert_eq!(host.counters().written, written, "what is in force is not written again");
        if way == 0 {
            host.want(1, Resource::Network, u64::MAX / MBIT, MBIT, now_ns + 20 * SECOND_NS)
                .unwrap();
            host.turn(now_ns + 20 * SECOND_NS);
        }
    }
}

#[test]
fn a_discipline_that_somebody_took_off_or_changed_is_put_back_and_lifted_in_the_end() {
    let Some((near, far)) = wire() else { return };
    let Some((mut host, _group)) = instance(&near, &far) else { return };
    let mut now_ns = NOW_NS;
    host.want(1, Resource::Network, 20, MBIT, now_ns).unwrap();
    host.turn(now_ns);
    let _traffic = Traffic::start(&far, &near, "198.18.0.1");
    assert_paced(20 * MBIT, 0);
    let meddling = [
        (&far, "tc qdisc del dev far root"),
        (&far, "tc qdisc replace dev far root handle 1: tbf rate 900mbit burst 1mb limit 1mb"),
        (&far, "tc class change dev far classid 5644:1 htb rate 900mbit"),
        (&far, "tc class del dev far classid 5644:1"),
        (&near, "tc qdisc del dev near root"),
    ];
    for (turn, (namespace, script)) in meddling.into_iter().enumerate() {
        now_ns += SECOND_NS;
        assert_eq!(host.verify(now_ns, 10), 0, "nobody changed anything before {script:?}");
        namespace.run(script).unwrap_or_else(|error| panic!("{script}: {error}"));
        if turn == 0 {
            let free = permille(20 * MBIT, 0);
            assert!(free > 2000, "it is off: {free} permille");
        }
        now_ns += SECOND_NS;
        assert_eq!(host.verify(now_ns, 10), 1, "{script:?} was seen");
        assert_eq!(host.sense(1, None, now_ns).expect("a row").network_drops.get(), 0);
        assert_eq!(host.faults().len(), 1, "and is reported");
        host.turn(now_ns);
        assert!(states(&host).iter().all(|(state, says)| *state == 1 && says == "2500000"));
        if turn == 0 {
            assert_paced(20 * MBIT, 0);
        }
    }
    host.verify(now_ns + SECOND_NS, 10);
    assert_eq!(host.faults(), [], "kept since, so no fault stands");
    let _ = host.release(1);
    for (namespace, device) in [(&near, "near"), (&far, "far")] {
        namespace.run(&format!("! tc qdisc show dev {device} | grep -q htb")).expect("lifted");
    }
}

#[test]
fn an_instance_without_a_network_of_its_own_is_told_so_until_it_has_one() {
    let Some((near, far)) = wire() else { return };
    let Some((mut host, group)) = instance(&near, &far) else { return };
    let out = group.0.join("out");
    std::fs::create_dir(&out).unwrap();
    std::fs::write(out.join("cgroup.procs"), far.pid().to_string()).unwrap();
    host.want(1, Resource::Network, 20, MBIT, NOW_NS).unwrap();
    host.turn(NOW_NS);
    let faults = host.faults();
    assert!(faults.len() == 2 && faults[0].text.contains("network namespace"), "{faults:?}");
    let processes = Path::new(host.place(1).unwrap()).join("cgroup.procs");
    std::fs::write(processes, far.pid().to_string()).unwrap();
    host.verify(NOW_NS + SECOND_NS, 10);
    host.turn(NOW_NS + SECOND_NS);
    assert_eq!((host.faults(), states(&host)[0].0), (vec![], 1));
}
