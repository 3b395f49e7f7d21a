//! A guest that a test talks to while it runs: a shell on its console, and a QEMU whose monitor can
//! change its processors, memory and disk, and that can be sent to a second QEMU.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{ONE_GUEST, Qemu, Vm, VmError, at, end, host, initramfs, read_chunks, text};

/// Drivers of what can be changed, in the order in which they load; Debian's kernel has none of
/// them built in. What takes processors is.
const MODULES: [&str; 8] = [
    "virtio",
    "virtio_ring",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "virtio_blk",
    "virtio_balloon",
    "virtio_mem",
];

/// Runs each line of the console as a command and tells its status behind the line's number.
const SHELL: &str = r#"
    stty -echo </dev/ttyS0
    echo online_movable >/sys/devices/system/memory/auto_online_blocks
    for module in $(cat /modules/order); do insmod "/modules/$module.ko"; done
    echo ready
    while read -r number line; do
        status=0
        eval "$line" || status=$?
        echo "did $number $status"
    done </dev/ttyS0
"#;

/// What a live guest is made of. Its first processor and `memory_mib` are there from the start.
pub struct Machine<'a> {
    /// Memory at start, in MiB.
    pub memory_mib: u32,
    /// Places for processors.
    pub cpus_max: u32,
    /// Most that the virtio-mem device `plug` can hold, in MiB.
    pub plug_max_mib: u32,
    /// Raw image of the disk `data`, `/dev/vda` in the guest.
    pub disk: &'a Path,
    /// Longest time for the boot and for each command.
    pub patience: Duration,
}

/// A QEMU and the guest that is in it, or will come.
pub struct Live {
    // Dropped first: with it QEMU ends.
    qemu: Qemu,
    input: ChildStdin,
    chunks: Receiver<Vec<u8>>,
    console: Vec<u8>,
    asked: u32,
    patience: Duration,
    directory: tempfile::TempDir,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Live {
    /// Boots a guest and waits for its shell.
    ///
    /// # Errors
    /// [`VmError`], when a part is missing or the shell does not come.
    pub fn boot(machine: &Machine<'_>) -> Result<Live, VmError> {
        let parts = host::Parts::find()?;
        let directory = tempfile::tempdir().map_err(|source| at(&std::env::temp_dir(), source))?;
        let order = directory.path().join("order");
        std::fs::write(&order, MODULES.join(" ")).map_err(|source| at(&order, source))?;
        let mut files = vec![(order, "/modules/order".to_owned())];
        for module in MODULES {
            files.push((host::module(module)?, format!("/modules/{module}.ko")));
        }
        let initrd = directory.path().join("initrd");
        let vm = Vm { memory_mib: 0, cpus: 0, files, scenario: SHELL, timeout: machine.patience };
        initramfs::write(&initrd, &parts, &vm)?;

        let turn = ONE_GUEST.lock().unwrap_or_else(PoisonError::into_inner);
        let mut command = command(&parts, machine, directory.path());
        command.arg("-kernel").arg(&parts.kernel).arg("-initrd").arg(&initrd);
        command.args(["-append", super::KERNEL_ARGUMENTS]);
        let mut live = Live::start(command, machine, directory, Some(turn))?;
        live.until("ready", 0)?;
        Ok(live)
    }

    /// Starts a QEMU that waits for the guest of another, with these devices more.
    ///
    /// # Errors
    /// [`VmError`], when a part is missing.
    pub fn await_guest(machine: &Machine<'_>, devices: &[&str]) -> Result<Live, VmError> {
        let parts = host::Parts::find()?;
        let directory = tempfile::tempdir().map_err(|source| at(&std::env::temp_dir(), source))?;
        let mut command = command(&parts, machine, directory.path());
        command.args(["-incoming", "defer"]);
        for device in devices {
            command.args(["-device", device]);
        }
        Live::start(command, machine, directory, None)
    }

    fn start(
        mut command: Command,
        machine: &Machine<'_>,
        directory: tempfile::TempDir,
        turn: Option<MutexGuard<'static, ()>>,
    ) -> Result<Live, VmError> {
        let stderr = directory.path().join("stderr");
        let errors = File::create(&stderr).map_err(|source| at(&stderr, source))?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let program = Path::new(command.get_program()).to_owned();
        let mut qemu = Qemu(command.spawn().map_err(|source| at(&program, source))?);
        let input = qemu.0.stdin.take().expect("stdin is piped");
        let chunks = read_chunks(qemu.0.stdout.take().expect("stdout is piped"));
        let patience = machine.patience;
        let (console, asked, _turn) = (Vec::new(), 0, turn);
        let live = Live { qemu, input, chunks, console, asked, patience, directory, _turn };
        let until = Instant::now() + patience;
        while !live.monitor().exists() {
            if Instant::now() >= until {
                return Err(live.gave_up());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(live)
    }

    /// QEMU's monitor.
    pub fn monitor(&self) -> PathBuf {
        self.directory.path().join("qmp")
    }

    /// QEMU's process.
    pub fn process(&self) -> u32 {
        self.qemu.0.id()
    }

    /// True if QEMU still runs.
    pub fn lives(&mut self) -> bool {
        matches!(self.qemu.0.try_wait(), Ok(None))
    }

    /// Has the guest's shell run a line and returns what it printed.
    ///
    /// # Errors
    /// [`VmError::TimedOut`], and [`VmError::Program`] when it ends with a status other than 0.
    pub fn run(&mut self, line: &str) -> Result<String, VmError> {
        self.ask(line)?;
        self.answer()
    }

    /// Gives the guest's shell a line to run. [`Live::answer`] waits for it.
    ///
    /// # Errors
    /// [`VmError::File`] when QEMU takes no input any more.
    pub fn ask(&mut self, line: &str) -> Result<(), VmError> {
        assert!(!line.contains('\n') && line.len() < 4000, "one line that a terminal takes");
        self.asked += 1;
        let line = format!("{} {line}\n", self.asked);
        self.input.write_all(line.as_bytes()).map_err(|source| at(Path::new("stdin"), source))
    }

    /// Waits for what the line that was asked last printed.
    ///
    /// # Errors
    /// As for [`Live::run`].
    pub fn answer(&mut self) -> Result<String, VmError> {
        let from = self.console.len();
        let mark = format!("did {} ", self.asked);
        let printed = self.until(&mark, from)?;
        let at = printed.find(&mark).expect("it was waited for");
        let status = printed[at + mark.len()..].trim_end();
        let output = printed[..at].to_owned();
        if status == "0" {
            return Ok(output);
        }
        let detail = format!("{status}; {output}");
        Err(VmError::Program { program: "the guest's shell", detail })
    }

    /// True if the guest prints anything within this time.
    pub fn prints_within(&mut self, time: Duration) -> bool {
        let chunk = self.chunks.recv_timeout(time);
        if let Ok(chunk) = &chunk {
            self.console.extend_from_slice(chunk);
        }
        chunk.is_ok()
    }

    /// The console from `from` on, up to the end of a line that has `mark` in it.
    fn until(&mut self, mark: &str, from: usize) -> Result<String, VmError> {
        let deadline = Instant::now() + self.patience;
        loop {
            let printed = text(&self.console[from..]);
            if let Some(at) = printed.find(mark)
                && let Some(line) = printed[at + mark.trim_end().len()..].find('\n')
            {
                return Ok(printed[..at + mark.trim_end().len() + line].to_owned());
            }
            match self.chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(chunk) => self.console.extend_from_slice(&chunk),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(self.gave_up());
                }
            }
        }
    }

    fn gave_up(&self) -> VmError {
        let stderr = std::fs::read_to_string(self.directory.path().join("stderr"));
        let console = text(&self.console);
        let detail = format!(
            "no answer in {} s, or it ended; QEMU says {:?}; the console ends:\n{}",
            self.patience.as_secs(),
            stderr.unwrap_or_default(),
            end(&console)
        );
        VmError::Program { program: "the guest", detail }
    }
}

/// The command that starts QEMU for this machine, without what it boots from.
fn command(parts: &host::Parts, machine: &Machine<'_>, directory: &Path) -> Command {
    let Machine { memory_mib, cpus_max, plug_max_mib, disk, .. } = machine;
    let mut command = super::emulator(parts);
    command
        .args(["-name", "guest,debug-threads=on"])
        .args(["-smp", &format!("1,maxcpus={cpus_max},sockets=1,cores={cpus_max},threads=1")])
        .args(["-m", &format!("{memory_mib}M,maxmem={}M", memory_mib + plug_max_mib)])
        .args(["-object", &format!("memory-backend-ram,id=plug-memory,size={plug_max_mib}M")])
        .args(["-device", "virtio-mem-pci,id=plug,memdev=plug-memory,requested-size=0"])
        .args(["-device", "virtio-balloon-pci,id=balloon"])
        .arg("-blockdev")
        .arg(format!("raw,node-name=disk,file.driver=file,file.filename={}", disk.display()))
        .args(["-device", "virtio-blk-pci,id=data,drive=disk"])
        .arg("-qmp")
        .arg(format!("unix:{},server=on,wait=off", directory.join("qmp").display()));
    command
}
