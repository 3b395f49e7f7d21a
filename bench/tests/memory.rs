//! Memory is measured for the whole process, so this test has a process of its own.

use vendue_bench::generate::generate;
use vendue_bench::run;

#[test]
fn a_contender_s_memory_is_seen_each_time_it_is_measured() {
    let flow = generate(11, 1, 200_000, 200_000);
    let nodes_bytes = 16 * (flow.expected.live_max as u64 + 2 * 1024);
    let around = nodes_bytes * 95 / 100..nodes_bytes * 120 / 100;
    // The second time, what the first one freed must not hide what the floor takes.
    for _ in 0..2 {
        let found = run::book("book.memory", &flow, 1).expect("measured");
        assert!(
            around.contains(&found.floor.memory_bytes),
            "{} of {around:?}",
            found.floor.memory_bytes
        );
        assert!(found.empty.memory_bytes < nodes_bytes / 10);
    }
}
