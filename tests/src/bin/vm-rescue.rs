//! `vm-rescue`: a server that is slow for want of processor time beside a batch job that has leased the
//! rest, in windows with its objective and without, in turns, in a guest. Prints of each window's second
//! half what requests took, and how far the job came in all of it. Its processors are emulated: only
//! windows of one run compare. Needs `tests/vm/fetch` and `cargo build --workspace --bins`.

use std::process::ExitCode;
use std::time::Duration;

use vendue_tests::vm::{Vm, VmError, binaries, boot};

/// Far beyond what a slow machine needs: only a guest that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(900);

/// One processor, all of it reserved or leased: 20 VRUs are the server's, which needs 35; 40 are the
/// job's, which leases the other 40 as long as nobody pays more.
const SCENARIO: &str = r#"
    cg=/sys/fs/cgroup
    export VENDUE_CONNECT=unix:/run/vendued.sock
    trap 'sed "s/^/vendued: /" /tmp/vendued.log' EXIT
    mkdir -p /etc
    vendued defaults | sed -e '/^# Tiers, in order/,$d' \
        -e 's|^data_dir = .*|data_dir = "/data/vendued"|' -e 's|^unix = .*|unix = "/run/vendued.sock"|' \
        -e 's|^segment_bytes = .*|segment_bytes = 1048576|' \
        -e 's|^buffer_bytes = .*|buffer_bytes = 262144|' >/etc/vendued.toml
    cat >>/etc/vendued.toml <<END
[[tier]]
name = "bronze"
cpu = { capacity_vru = 100, burst_percent = 100 }
END
    vendued run --config /etc/vendued.toml 2>>/tmp/vendued.log &
    vendued=$!
    wait_for 60 hvctl tier list >/dev/null 2>&1
    for name in server batch; do
        hvctl account create $name --sells-to all --buys-from all
        hvctl account deposit $name 1000
        mkdir $cg/$name
    done
    hvctl instance adopt server --account server --tier bronze --cpu 20 --cgroup $cg/server
    hvctl instance adopt batch --account batch --tier bronze --cpu 40 --cgroup $cg/batch
    hvctl lease bid batch cpu 40 --rent 1 --class speculative
    for turn in 1 2 3; do
        for rescue in off on; do
            if [ $rescue = on ]; then
                hvctl objective set server latency --above 60000 --recover 30000 --for 1 --calm 30 \
                    --step 20 --most 40 --rent 5 --budget 100 >/dev/null
            fi
            vm-burn 20 $cg/batch >/tmp/batch &
            job=$!
            vm-serve $VENDUE_CONNECT 0 20 20 7 $cg/server >/tmp/server
            wait $job
            [ $rescue = off ] || {
                hvctl objective list
                hvctl objective remove server latency
            }
            echo "window $rescue $(cat /tmp/server) $(cat /tmp/batch)"
        done
    done
    hvctl audit | grep -E 'latency (objective|breached|raised|at|recovered|removed|budget)|lease ' || true
    kill -TERM $vendued
    wait $vendued
"#;

fn main() -> ExitCode {
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-rescue: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False if the scenario failed, which the console then tells.
fn measure() -> Result<bool, VmError> {
    let files = binaries(&["vendued", "hvctl", "vm-burn", "vm-serve"])?;
    let vm = Vm { memory_mib: 512, cpus: 1, files, scenario: SCENARIO, timeout: PATIENCE };
    let outcome = boot(&vm)?;
    if outcome.status != 0 {
        eprintln!("{}", outcome.console);
        return Ok(false);
    }
    println!(
        "{:<8}{:>10}{:>12}{:>12}{:>14}",
        "rescue", "requests", "p50 ms", "p99 ms", "batch primes"
    );
    for line in outcome.console.lines() {
        // window on latency COUNT P50_US P99_US primes COUNT
        let words: Vec<&str> = line.split(' ').collect();
        let ["window", rescue, "latency", count, p50, p99, "primes", primes] = words[..] else {
            continue;
        };
        let ms = |us: &str| {
            us.parse::<u64>().map_or_else(|_| us.to_owned(), |us| (us / 1000).to_string())
        };
        println!("{rescue:<8}{count:>10}{:>12}{:>12}{primes:>14}", ms(p50), ms(p99));
    }
    Ok(true)
}
