//! The host library's own tests of cgroup v2, `hvctl/tests/cgroup_v2.rs`, where all of its
//! controllers are. Needs what `tests/vm/fetch` brings.

use std::time::Duration;

use vendue_tests::vm::{Vm, boot, tests_of};

/// Far beyond what a slow machine needs: only a guest that hangs takes as long.
const PATIENCE: Duration = Duration::from_secs(400);

#[test]
fn the_host_library_keeps_its_word_on_a_real_kernel() {
    let files = vec![tests_of("cgroup_v2").unwrap()];
    let scenario = "cgroup_v2 --test-threads 1 --nocapture 2>&1";
    let vm = Vm { memory_mib: 512, cpus: 2, files, scenario, timeout: PATIENCE };
    let outcome = boot(&vm).unwrap();
    println!("{}", outcome.console);
    assert_eq!(outcome.status, 0, "{}", outcome.console);
    // What its tests say where there is nothing to test.
    assert!(!outcome.console.contains("not run"), "{}", outcome.console);
    assert!(outcome.console.contains("test result: ok"), "{}", outcome.console);
}
