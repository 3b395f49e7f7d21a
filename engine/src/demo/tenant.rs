//! A tenant's work: a real process that hashes data in bursts.

use std::time::{Duration, Instant};

/// Length of one slice of the duty cycle.
const SLICE: Duration = Duration::from_millis(20);

/// Works until killed: `busy_percent` of the time for `busy_s` seconds, then 3% for `idle_s`,
/// shifted by `offset_s`, so that tenants want capacity at different times.
pub fn work(busy_percent: u32, busy_s: u64, idle_s: u64, offset_s: u64) -> ! {
    let start = Instant::now();
    let mut data = vec![0x5a_u8; 64 << 10];
    loop {
        let at = (start.elapsed().as_secs() + offset_s) % (busy_s + idle_s).max(1);
        let percent = if at < busy_s { busy_percent } else { 3 };
        let slice = Instant::now();
        let busy = SLICE * percent.min(100) / 100;
        while slice.elapsed() < busy {
            let hash = blake3::hash(&data);
            data[..32].copy_from_slice(hash.as_bytes());
        }
        std::thread::sleep(SLICE.saturating_sub(slice.elapsed()));
    }
}
