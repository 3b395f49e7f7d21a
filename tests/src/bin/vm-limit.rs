//! `vm-limit`: prints the rows of `bench limit` that need a `cpu` controller on cgroup v2 and systemd,
//! measured in a guest that has both. Its processors are emulated: only ratios mean something, and
//! those of programs and kernel together. Needs `tests/vm/fetch` and `cargo bench -p vendue-bench
//! --no-run`.

use std::process::ExitCode;
use std::time::Duration;

use vendue_tests::vm::service::boot_host;
use vendue_tests::vm::{VmError, bench};

/// Far beyond what a slow machine needs: only a guest that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(900);

const SCENARIO: &str = r#"
export PATH=/usr/sbin:/usr/bin
end() {
    status=$?
    sync
    echo "vm-exit $status"
    stty -echo </dev/ttyS0
    poweroff -f
}
trap end EXIT
set -eu
for part in cpu managers; do
    bench limit --only $part --runs 3 --json
done
"#;

fn main() -> ExitCode {
    match measure() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("vm-limit: {error}");
            ExitCode::FAILURE
        }
    }
}

/// False if the measurement failed, which the console then tells.
fn measure() -> Result<bool, VmError> {
    let outcome = boot_host([bench()?], SCENARIO, PATIENCE)?;
    for row in outcome.console.lines().filter(|line| line.starts_with(r#"{"name":"limit."#)) {
        println!("{row}");
    }
    if outcome.status != 0 {
        eprintln!("{}", outcome.console);
    }
    Ok(outcome.status == 0)
}
