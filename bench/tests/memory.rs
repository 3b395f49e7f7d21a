//! A contender's memory is seen whatever was freed before it.
//!
//! Memory is measured for the whole process, so this test has a process of its own; and on its main
//! thread, like the bench, because the allocator gives back free memory only there.

use vendue_bench::generate::generate;
use vendue_bench::run;

fn main() {
    for live in [400_000, 100_000, 50_000] {
        let flow = generate(11, 1, live, live);
        let nodes_bytes = 16 * (flow.expected.live_max as u64 + 2 * 1024);
        let around = nodes_bytes * 95 / 100..nodes_bytes * 120 / 100;
        let found = run::book("book.memory", &flow, 1).expect("measured");
        assert!(
            around.contains(&found.floor.memory_bytes),
            "{} of {around:?}",
            found.floor.memory_bytes
        );
        assert!(found.empty.memory_bytes < nodes_bytes / 10);
    }
}
