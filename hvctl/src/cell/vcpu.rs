//! A vCPU's thread: in and out of the guest until the cell ends.

use super::guest::{Mode, registers, special_registers};
use super::{End, Voice, groups::Groups};
use crate::kvm::gate::{Gate, Seat};
use crate::kvm::port::NewVcpu;
use kvm_bindings::{CpuId, KVM_MP_STATE_RUNNABLE, kvm_mp_state};
use kvm_ioctls::{VcpuExit, VcpuFd};
use nix::errno::Errno;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;

/// The first serial port of a PC: data, and five above it the state of the line.
const SERIAL: u16 = 0x3f8;
const SERIAL_STATE: u16 = SERIAL + 5;
/// Nothing waits to be sent.
const LINE_IS_FREE: u8 = 0x60;
/// A byte written here ends the cell.
const EXIT: u16 = 0xf4;
/// What nothing answers reads as this.
const NOTHING: u8 = 0xff;

/// What every vCPU of a cell is started with.
#[derive(Debug)]
pub(super) struct Seats {
    pub(super) mode: Mode,
    pub(super) memory_bytes: u64,
    pub(super) cpuid: CpuId,
    pub(super) groups: Arc<Groups>,
    pub(super) voice: Voice,
    pub(super) ends: Sender<End>,
}

impl Seats {
    /// Sets a vCPU up and starts its thread.
    pub(super) fn start(&self, new: NewVcpu) -> io::Result<()> {
        let NewVcpu { number, fd, gate } = new;
        self.set_up(number, &fd)?;
        let (groups, voice, ends) = (self.groups.clone(), self.voice.clone(), self.ends.clone());
        let run = move || {
            let end = groups.join(number).and_then(|()| run(fd, gate, &voice));
            let end = end.unwrap_or_else(|error| End::Failed(format!("vCPU {number}: {error}")));
            // Another vCPU may have ended the cell before.
            let _ = ends.send(end);
        };
        std::thread::Builder::new().name(format!("vcpu-{number}")).spawn(run)?;
        Ok(())
    }

    fn set_up(&self, number: u32, fd: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        let mut cpuid = self.cpuid.clone();
        for entry in cpuid.as_mut_slice() {
            if entry.function == 1 {
                // The processor's own number stands in the high byte.
                entry.ebx = entry.ebx & 0x00ff_ffff | number << 24;
            }
        }
        fd.set_cpuid2(&cpuid)?;
        fd.set_sregs(&special_registers(self.mode, fd.get_sregs()?))?;
        fd.set_regs(&registers(number, self.memory_bytes))?;
        // All but the first would wait for an interrupt of the first to start them.
        fd.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE })
    }
}

fn run(mut fd: VcpuFd, gate: Arc<Gate>, voice: &Voice) -> io::Result<End> {
    let seat = Seat::take(gate, &fd)?;
    loop {
        seat.pass();
        match fd.run() {
            Ok(exit) => {
                if let Some(end) = answer(exit, voice) {
                    return Ok(end);
                }
            }
            Err(error) => match Errno::from_raw(error.errno()) {
                Errno::EINTR => seat.kicked()?,
                Errno::EAGAIN => {}
                errno => return Err(errno.into()),
            },
        }
    }
}

/// Does what the guest asks for by leaving; its end, if it is that.
fn answer(exit: VcpuExit<'_>, voice: &Voice) -> Option<End> {
    match exit {
        VcpuExit::IoOut(SERIAL, bytes) => bytes.iter().for_each(|&byte| voice.say(byte)),
        VcpuExit::IoOut(EXIT, bytes) => {
            return Some(End::Code(bytes.first().copied().unwrap_or(0)));
        }
        VcpuExit::IoIn(SERIAL_STATE, bytes) => bytes.fill(LINE_IS_FREE),
        VcpuExit::IoIn(_, bytes) | VcpuExit::MmioRead(_, bytes) => bytes.fill(NOTHING),
        VcpuExit::IoOut(..)
        | VcpuExit::MmioWrite(..)
        | VcpuExit::Hlt
        | VcpuExit::Intr
        | VcpuExit::IoapicEoi(_) => {}
        VcpuExit::Shutdown => return Some(End::Failed("a fault that it could not handle".into())),
        other => return Some(End::Failed(format!("KVM cannot go on: {other:?}"))),
    }
    None
}
