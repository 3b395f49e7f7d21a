//! What a guest sees of its own use: `/proc/stat` and `/proc/meminfo`. Good for the guest's own
//! decisions only: the daemon bills what the host measures.

use crate::meter::{MeterError, Usage, system_number, with_text};
use nix::unistd::SysconfVar;
use std::fs::File;

const MICROS_PER_SECOND: u64 = 1_000_000;

/// The counters of the machine that this runs in.
#[derive(Debug)]
pub struct Guest {
    stat: File,
    meminfo: File,
    ticks_per_second: u64,
    ticks: u64,
}

impl Guest {
    /// Opens the counters.
    ///
    /// # Errors
    /// They cannot be read, or are not as Linux writes them.
    pub fn open() -> Result<Guest, MeterError> {
        let mut guest = Guest {
            stat: File::open("/proc/stat")?,
            meminfo: File::open("/proc/meminfo")?,
            ticks_per_second: system_number(SysconfVar::CLK_TCK)?,
            ticks: 0,
        };
        guest.sample()?;
        Ok(guest)
    }

    /// What was used since the last sample; the memory, what is not available to others now. Block
    /// I/O is not counted.
    ///
    /// # Errors
    /// As for [`Guest::open`].
    pub fn sample(&mut self) -> Result<Usage, MeterError> {
        let ticks = with_text(&self.stat, parse_stat)?;
        let memory_bytes = with_text(&self.meminfo, parse_meminfo)?;
        let used = ticks.saturating_sub(self.ticks);
        self.ticks = ticks;
        let cpu_us = u128::from(used) * u128::from(MICROS_PER_SECOND);
        let cpu_us = cpu_us / u128::from(self.ticks_per_second);
        let cpu_us = u64::try_from(cpu_us).map_err(|_| MeterError::Garbled)?;
        Ok(Usage { cpu_us, memory_bytes, io_bytes: 0, network_bytes: 0 })
    }
}

/// Clock ticks in which the guest ran or wanted to: user, nice, system, irq, softirq and steal of
/// proc(5). Steal is what the host kept from it: demand, though not use.
fn parse_stat(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut fields = [0_u64; 8];
    let mut words = line.split_ascii_whitespace();
    for field in &mut fields {
        *field = words.next()?.parse().ok()?;
    }
    let [user, nice, system, _idle, _iowait, irq, softirq, steal] = fields;
    [user, nice, system, irq, softirq, steal].into_iter().try_fold(0_u64, u64::checked_add)
}

/// Bytes that are not available: `MemTotal` less `MemAvailable`.
fn parse_meminfo(text: &str) -> Option<u64> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(bytes("MemTotal:")?.saturating_sub(bytes("MemAvailable:")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_files_are_understood() {
        let stat = "cpu  100 20 30 4000 500 6 7 80 900 90\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        // 100 + 20 + 30 + 6 + 7 + 80; guest time is in user time already.
        assert_eq!(parse_stat(stat), Some(243));
        for wrong in ["", "cpu0 1 2 3 4 5 6 7 8\n", "cpu  1 2 3\n", "cpu  1 2 3 4 5 6 7 x\n"] {
            assert_eq!(parse_stat(wrong), None, "{wrong:?}");
        }
        let meminfo = "MemTotal:       2048 kB\nMemFree:   1 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(parse_meminfo(meminfo), Some(1 << 20));
        for wrong in ["", "MemTotal: 5 kB\n", "MemTotal: 5\nMemAvailable: 1 kB\n"] {
            assert_eq!(parse_meminfo(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn this_machine_is_sampled() {
        let mut guest = Guest::open().unwrap();
        let mut used_us = 0;
        // This thread runs all the while, so the counter must move.
        while used_us < 30_000 {
            let usage = guest.sample().unwrap();
            assert!(usage.memory_bytes > 1 << 20 && usage.io_bytes == 0, "{usage:?}");
            used_us += usage.cpu_us;
        }
    }
}
