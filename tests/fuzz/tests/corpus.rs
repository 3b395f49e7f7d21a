//! What the fuzzers found worth keeping, and every input that once broke something, played again.

use std::path::Path;
use vendue_fuzz::TARGETS;

/// Plays the inputs of every target; the name of the one that fails is printed before it does.
#[test]
fn nothing_that_was_found_breaks_anything_any_more() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, run) in TARGETS {
        let entries = std::fs::read_dir(corpus.join(name)).expect(name);
        let mut inputs: Vec<_> = entries.map(|entry| entry.expect(name).path()).collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            println!("{name}: {}", input.display());
            run(&std::fs::read(&input).expect("an input"));
        }
    }
}
