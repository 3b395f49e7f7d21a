//! The house rules that sources can break, each as a test that names file and line. What they are
//! for is in the README's code map and in the docstrings of the parts they protect.

mod source;

use serde_json::Value;
use source::{Source, all, has_word, paths, root, words};
use std::process::Command;

/// Fails with every finding.
fn assert_none(rule: &str, findings: Vec<String>) {
    assert!(findings.is_empty(), "{rule}\n  {}", findings.join("\n  "));
}

/// Every Rust file that is built into a library or a program, without its tests.
fn shipped_rust() -> Vec<Source> {
    let shipped = all().into_iter().filter(Source::is_shipped_rust);
    shipped.map(|source| source.without_tests()).collect()
}

/// Runs a check on every shipped Rust file and collects its findings.
fn in_shipped_rust(check: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    shipped_rust().iter().flat_map(check).collect()
}

// ---- the machine is pure -------------------------------------------------------------------

const MACHINE: &str = "engine/src/machine/";

/// Modules of `std` through which a clock, a thread, a file, a socket or the environment comes in.
const IMPURE_MODULES: [&str; 9] =
    ["env", "fs", "io", "net", "os", "process", "sync", "thread", "time"];
/// Names that bring in hash order, floats, randomness, time or output, however they are reached.
const IMPURE_NAMES: [&str; 15] = [
    "HashMap",
    "HashSet",
    "RandomState",
    "SystemTime",
    "Instant",
    "f32",
    "f64",
    "rand",
    "print",
    "println",
    "eprint",
    "eprintln",
    "dbg",
    "Mutex",
    "unsafe",
];
/// Where the machine's names come from: nothing else of the daemon, and of the protocol only what
/// has no I/O.
const PURE_ROOTS: [&str; 6] = ["std", "core", "super", "self", "zerocopy", "thiserror"];
const PURE_PATHS: [&str; 6] = [
    "crate::machine",
    "vendue_wire::code",
    "vendue_wire::message",
    "vendue_wire::messages",
    "vendue_wire::frame",
    // A hint to the processor: no result depends on it.
    "vendue_wire::memory::prefetch",
];

fn impurities(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (line, code) in source.code_lines() {
        for name in IMPURE_NAMES.iter().filter(|name| has_word(code, name)) {
            found.push(source.finding(line, format_args!("`{name}` has no place in the machine")));
        }
    }
    for (line, path) in mentioned_paths(source) {
        let pure =
            PURE_PATHS.iter().any(|pure| path == *pure || path.starts_with(&format!("{pure}::")));
        let (first, rest) = path.split_once("::").unwrap_or((&path, ""));
        let outside = matches!(first, "crate" | "vendue_wire") && !pure;
        let module = rest.split("::").next().unwrap_or("");
        let impure = matches!(first, "std" | "core") && IMPURE_MODULES.contains(&module);
        if outside || impure {
            found.push(
                source.finding(line, format_args!("`{path}` is not reachable from a pure machine")),
            );
        }
    }
    for (line, code) in source.code_lines() {
        let Some(used) = code.trim_start().strip_prefix("use ") else { continue };
        let Some((_, first)) = words(used).next() else { continue };
        let sibling = source.code.contains(&format!("mod {first};")) || !used.contains("::");
        let known = ["crate", "vendue_wire"].contains(&first) || PURE_ROOTS.contains(&first);
        if !known && !sibling {
            found.push(
                source.finding(line, format_args!("the crate `{first}` is not for the machine")),
            );
        }
    }
    found
}

/// Paths that start at a crate's root, groups in braces spelt out one level deep, and their lines.
fn mentioned_paths(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let mut found = Vec::new();
    for (at, first) in words(code) {
        let inside = code[..at].ends_with("::") || code[..at].ends_with("$");
        if inside || !["std", "core", "crate", "vendue_wire"].contains(&first) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at..];
        let in_path = |char: char| char == '_' || char == ':' || char.is_ascii_alphanumeric();
        let path = &rest[..rest.find(|char| !in_path(char)).unwrap_or(rest.len())];
        match path.strip_suffix("::").filter(|_| rest[path.len()..].starts_with('{')) {
            Some(prefix) => {
                let group = &rest[path.len() + 1..rest.find('}').unwrap_or(rest.len())];
                let members = group.split(',').map(str::trim).filter(|member| !member.is_empty());
                found.extend(members.map(|member| (line, format!("{prefix}::{member}"))));
            }
            None => found.push((line, path.trim_end_matches(':').to_owned())),
        }
    }
    found
}

#[test]
fn the_machine_is_pure() {
    let findings = in_shipped_rust(|source| {
        if source.path.starts_with(MACHINE) { impurities(source) } else { Vec::new() }
    });
    assert_none("no clock, chance, float, hash order, file or socket in the machine:", findings);
}

#[test]
fn impurities_are_found() {
    for bad in [
        "use std::time::Duration;",
        "use std::{\n    fmt,\n    io,\n};",
        "fn f() { std::thread::yield_now(); }",
        "use std::collections::HashMap;",
        "fn f(x: f64) {}",
        "use crate::health::Health;",
        "use vendue_wire::ring::Memory;",
        "use vendue_wire::{code, client::Client};",
        "use mio::Poll;",
        "fn f() { println!(); }",
    ] {
        assert!(!impurities(&Source::new("x.rs", bad)).is_empty(), "{bad}");
    }
    let good = "//! std::time f64\nuse super::Machine;\nuse vendue_wire::message::{ANY, Body};\n\
                use std::collections::BTreeMap;\nfn f() { \"println!\"; std::iter::once(1); }\n\
                #[cfg(test)]\nmod tests { use std::time::Instant; }";
    let good = Source::new("x.rs", good).without_tests();
    assert_eq!(impurities(&good), Vec::<String>::new());
}

/// Functions of the machine that may allocate, and why.
const MAY_ALLOCATE: &[(&str, &str, &str)] = &[
    ("auction.rs", "new", "start-up: room for the largest auction"),
    ("mod.rs", "new", "start-up: makes every table"),
    ("mod.rs", "define_book", "start-up: books come from the configuration, before any request"),
    ("exchange.rs", "define_exchange", "start-up: rules come from the configuration"),
    ("event.rs", "new", "start-up: makes the outbox"),
    ("expiry.rs", "new", "start-up"),
    ("ladder.rs", "new", "start-up"),
    ("ledger.rs", "new", "start-up"),
    ("rental.rs", "new", "start-up"),
    ("rental.rs", "define", "start-up: with each book"),
    ("token.rs", "new", "start-up"),
    ("token.rs", "define", "start-up: with each book"),
    ("token.rs", "promised", "pushes two for each token, onto what start-up made for all"),
    ("token.rs", "add_token", "pushes onto what start-up made, within an asserted bound"),
    ("token.rs", "tokens_are_whole", "snapshots, read outside the core thread"),
    ("rental.rs", "wait_at_rank", "pushes onto what start-up made, within an asserted bound"),
    ("rental.rs", "touch", "pushes onto what start-up made, within an asserted bound"),
    ("rental.rs", "arm", "pushes onto what start-up made, within an asserted bound"),
    ("rental.rs", "shift", "pushes each holding once, onto what start-up made for all"),
    ("rental.rs", "restore", "snapshots, read outside the core thread"),
    ("rental.rs", "are_sound", "snapshots, read outside the core thread"),
    ("swap.rs", "new", "start-up"),
    ("swap.rs", "propose_swap", "pushes onto what start-up made, after room was made for it"),
    ("rescue.rs", "new", "start-up"),
    ("slab.rs", "new", "start-up"),
    ("slab.rs", "add_queues", "start-up: with each book"),
    ("ledger.rs", "imbalance", "the audit of the whole ledger, outside the core thread"),
    ("swarm.rs", "new", "start-up"),
    ("forecast.rs", "none", "start-up"),
    ("experiment.rs", "new", "start-up"),
    ("plan.rs", "new", "start-up"),
    ("policy.rs", "new", "start-up"),
    ("policy.rs", "places_for_sessions", "start-up"),
    ("handover.rs", "new", "start-up"),
    ("state.rs", "*", "snapshots, made and read outside the core thread"),
];
/// Names that allocate, or hold what was allocated.
const ALLOCATING: [&str; 18] = [
    "vec",
    "Vec",
    "VecDeque",
    "String",
    "Rc",
    "Arc",
    "BTreeMap",
    "BTreeSet",
    "format",
    "collect",
    "to_vec",
    "to_owned",
    "to_string",
    "with_capacity",
    "into_boxed_slice",
    "concat",
    "extend",
    "push_str",
];

fn allocations(source: &Source) -> Vec<String> {
    let file = source.path.rsplit('/').next().unwrap_or_default();
    let functions = source.functions();
    let mut found = Vec::new();
    for (line, code) in source.code_lines() {
        let Some((name, _)) = functions.iter().rfind(|(_, lines)| lines.contains(&line)) else {
            continue;
        };
        let allowed = |(of, function, _): &(&str, &str, &str)| {
            *of == file && (*function == "*" || function == name)
        };
        if MAY_ALLOCATE.iter().any(allowed) {
            continue;
        }
        let by_name = ALLOCATING.iter().find(|name| has_word(code, name));
        // The outbox is bounded and its `push` copies into what start-up made.
        let grows = code.contains(".push(") && !code.contains("out.push(");
        let boxes = code.contains("Box::");
        if by_name.is_some() || grows || boxes {
            found.push(source.finding(line, format_args!("`{name}` allocates: {}", code.trim())));
        }
    }
    found
}

#[test]
fn the_machine_does_not_allocate_after_start_up() {
    let findings = in_shipped_rust(|source| {
        if source.path.starts_with(MACHINE) { allocations(source) } else { Vec::new() }
    });
    assert_none("only functions in MAY_ALLOCATE may allocate in the machine:", findings);
}

#[test]
fn allocations_are_found() {
    for bad in [
        "fn f() { let x = vec![0; 4]; }",
        "fn f() { rows.push(1); }",
        "fn f() { Box::new(1); }",
        "fn f() {\n    rows.iter()\n        .collect::<Vec<_>>();\n}",
        "fn f() { format!(\"\"); }",
    ] {
        let source = Source::new("engine/src/machine/orders.rs", bad);
        assert!(!allocations(&source).is_empty(), "{bad}");
    }
    let start_up = Source::new("engine/src/machine/slab.rs", "fn new() { vec![0; 4]; }");
    assert_eq!(allocations(&start_up), Vec::<String>::new());
    let push = Source::new("engine/src/machine/orders.rs", "fn f() { out.push(ANY, &event); }");
    assert_eq!(allocations(&push), Vec::<String>::new());
}

// ---- unsafe ----------------------------------------------------------------------------------

/// Where `unsafe` may stand, and for what.
const UNSAFE_FILES: [(&str, &str); 13] = [
    ("wire/src/memory.rs", "the mapped memory under ring and board"),
    ("wire/src/loom_tests.rs", "cells that the model checker watches"),
    ("wire/src/descriptors.rs", "takes over descriptors that the kernel has just made"),
    ("engine/src/gateway/listen.rs", "takes over sockets that the service manager opened"),
    ("engine/src/storage/disk.rs", "the io_uring log: registered buffers, submissions"),
    (
        "hvctl/src/kvm/calls.rs",
        "KVM calls: memory slots, statistics, the signal that ends an entry",
    ),
    ("hvctl/src/kvm/memory.rs", "the mapped memory under a guest"),
    ("hvctl/tests/kvm.rs", "asks KVM from another process"),
    ("hvctl/src/cli/launch.rs", "joins a cgroup between fork and exec"),
    ("engine/tests/storage.rs", "a disk that fails on purpose"),
    ("bench/src/ring.rs", "the bare array between two threads, a floor"),
    ("bench/tests/allocations.rs", "an allocator that counts"),
    ("bench/src/run.rs", "binds memory and reads counters of the processor"),
];

/// Every `unsafe` outside the list or without a reason written above it.
fn unsafe_findings(source: &Source) -> Vec<String> {
    let allowed = UNSAFE_FILES.iter().any(|(path, _)| *path == source.path);
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (line, _) in source.code_lines().filter(|(_, code)| has_word(code, "unsafe")) {
        if !allowed {
            found.push(source.finding(line, "`unsafe` in a file that UNSAFE_FILES does not name"));
        }
        if !has_reason(&lines, line) {
            found.push(source.finding(line, "`unsafe` without a SAFETY comment above it"));
        }
    }
    found
}

/// True if a comment that gives the reason stands above the statement of line `line`.
fn has_reason(lines: &[&str], line: usize) -> bool {
    for (at, text) in lines[..line].iter().map(|text| text.trim()).enumerate().rev() {
        if text.contains("SAFETY:") || text.contains("# Safety") {
            return true;
        }
        let statement_ends = text.is_empty() || text.ends_with([';', '}', '{']);
        if at + 1 < line && statement_ends && !text.starts_with("//") {
            return false;
        }
    }
    false
}

#[test]
fn unsafe_stands_where_it_may_and_says_why() {
    let sources = all();
    let rust = sources.iter().filter(|source| source.path.ends_with(".rs"));
    let mut findings: Vec<String> = rust.flat_map(unsafe_findings).collect();
    for (path, _) in UNSAFE_FILES {
        let source = sources.iter().find(|source| source.path == path);
        if !source.is_some_and(|source| has_word(&source.code, "unsafe")) {
            findings.push(format!("{path} has no `unsafe` any more: take it off UNSAFE_FILES"));
        }
    }
    assert_none("unsafe code:", findings);
}

#[test]
fn unsafe_without_place_or_reason_is_found() {
    let check = |path: &str, text: &str| unsafe_findings(&Source::new(path, text)).len();
    let reason =
        "fn f() {\n    // SAFETY: nobody else has it.\n    let x =\n        unsafe { g() };\n}";
    assert_eq!(check("wire/src/memory.rs", reason), 0);
    assert_eq!(check("engine/src/desk.rs", reason), 1);
    assert_eq!(check("wire/src/memory.rs", "fn f() {\n    unsafe { g() };\n}"), 1);
    let second = "// SAFETY: fine.\nunsafe { a() };\nunsafe { b() };";
    assert_eq!(check("wire/src/memory.rs", second), 1);
    assert_eq!(check("engine/src/desk.rs", "// unsafe\nlet x = \"unsafe\";"), 0);
}

// ---- names, debts, length --------------------------------------------------------------------

#[test]
fn long_functions_are_denied_everywhere() {
    let read = |path: &str| std::fs::read_to_string(root().join(path)).expect(path);
    assert!(read(".clippy.toml").contains("too-many-lines-threshold = 70"));
    let workspace = read("Cargo.toml");
    for lint in ["too_many_lines", "undocumented_unsafe_blocks", "todo", "unimplemented"] {
        assert!(workspace.contains(&format!("\n{lint} = ")), "Cargo.toml does not set {lint}");
    }
    let ci = read(".ci/run");
    let denied = ci.lines().any(|line| {
        line.contains("cargo clippy --workspace --all-targets") && line.contains("-D warnings")
    });
    assert!(denied, ".ci/run does not run clippy on everything with warnings denied");
    let mut findings = Vec::new();
    for source in all() {
        let member = source.path.ends_with("/Cargo.toml");
        if member && !source.text.contains("[lints]\nworkspace = true") {
            findings.push(source.finding(1, "does not take the workspace's lints"));
        }
        let exempt = source.code_lines().filter(|(_, code)| has_word(code, "too_many_lines"));
        findings.extend(
            exempt.map(|(line, _)| source.finding(line, "a function exempted from 70 lines")),
        );
    }
    assert_none("lints:", findings);
}

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 8] =
    ["util", "utils", "common", "helper", "helpers", "misc", "shared", "stuff"];

fn empty_names(source: &Source) -> Vec<String> {
    let stem = |part: &str| part.split('.').next().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    if let Some(part) = source.path.split('/').find(|part| EMPTY_NAMES.contains(&&*stem(part))) {
        found.push(source.finding(1, format_args!("`{part}` does not say what is inside")));
    }
    for (line, code) in source.code_lines() {
        let names: Vec<&str> = words(code).map(|(_, word)| word).collect();
        let named =
            names.windows(2).find(|pair| pair[0] == "mod" && EMPTY_NAMES.contains(&pair[1]));
        if let Some(pair) = named {
            found.push(source.finding(line, format_args!("`mod {}` says nothing", pair[1])));
        }
    }
    found
}

/// Marks of work that was put off; spelt in two parts, so that this file has none.
const DEBTS: [&str; 8] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("HA", "CK"),
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
    concat!("db", "g!"),
];

fn debts(source: &Source) -> Vec<String> {
    let word = |char: char| char == '_' || char.is_ascii_alphanumeric();
    let mut found = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        for debt in DEBTS {
            let whole = text.match_indices(debt).any(|(at, _)| {
                let goes_on = debt.ends_with(word) && text[at + debt.len()..].starts_with(word);
                !text[..at].ends_with(word) && !goes_on
            });
            if whole {
                found.push(source.finding(line, debt));
            }
        }
    }
    found
}

#[test]
fn names_say_what_is_inside() {
    assert_none("names:", all().iter().flat_map(empty_names).collect());
}

#[test]
fn nothing_was_put_off() {
    assert_none("unfinished work:", all().iter().flat_map(debts).collect());
}

#[test]
fn empty_names_and_debts_are_found() {
    for bad in ["wire/src/utils.rs", "engine/src/common/mod.rs", "tests/helpers/a.sh"] {
        assert_eq!(empty_names(&Source::new(bad, "")).len(), 1, "{bad}");
    }
    assert_eq!(empty_names(&Source::new("a.rs", "pub mod misc { }")).len(), 1);
    assert_eq!(empty_names(&Source::new("wire/src/ring.rs", "use misc::x; // mod utils")).len(), 0);
    for debt in DEBTS {
        assert_eq!(
            debts(&Source::new("a.md", &format!("fine\n{debt} later"))),
            [format!("a.md:2: {debt}")]
        );
    }
    let fine = format!("mktemp {0}{0}; {1}S", DEBTS[2], DEBTS[0]);
    assert_eq!(debts(&Source::new("a.sh", &fine)), Vec::<String>::new());
}

// ---- traits ----------------------------------------------------------------------------------

/// Traits that seem to have one implementation, and why they have more.
const TRAITS_OF_MACROS: [(&str, &str); 1] =
    [("Body", "`messages!` implements it for every message of the protocol")];

/// Traits that fewer than two types implement.
fn lonely_traits(sources: &[Source]) -> Vec<String> {
    let mut implemented = Vec::new();
    for source in sources {
        for (at, _) in words(&source.code).filter(|(_, word)| *word == "impl") {
            let head = source.code[at..].split(['{', ';']).next().unwrap_or_default();
            // `for<'a>` is a bound, not the type that implements.
            let Some((of, _)) = head.split_once(" for ") else { continue };
            let plain = of.split('<').next().unwrap_or_default().trim();
            let generic = of.rsplit("> ").next().unwrap_or_default();
            let name = if plain == "impl" { generic } else { of };
            let name = name.split('<').next().unwrap_or_default();
            implemented.extend(words(name).last().map(|(_, word)| word.to_owned()));
        }
    }
    let mut found = Vec::new();
    for source in sources {
        for (line, code) in source.code_lines() {
            let names: Vec<&str> = words(code).map(|(_, word)| word).collect();
            let Some(pair) = names.windows(2).find(|pair| pair[0] == "trait") else { continue };
            let count = implemented.iter().filter(|name| *name == pair[1]).count();
            let excused = TRAITS_OF_MACROS.iter().any(|(name, _)| *name == pair[1]);
            if count < 2 && !excused {
                found.push(source.finding(
                    line,
                    format_args!("trait `{}` has {count} implementations", pair[1]),
                ));
            }
        }
    }
    found
}

#[test]
fn every_trait_has_more_than_one_implementation() {
    let sources: Vec<Source> =
        all().into_iter().filter(|source| source.path.ends_with(".rs")).collect();
    assert_none("traits:", lonely_traits(&sources));
}

#[test]
fn lonely_traits_are_found() {
    let count = |text: &str| lonely_traits(&[Source::new("a.rs", text)]).len();
    assert_eq!(count("pub trait A { }\nimpl A for X { }"), 1);
    assert_eq!(count("trait A { }\nimpl A for X { }\nimpl<T: B> m::A for Y<T> { }"), 0);
    assert_eq!(count("trait A<T> { }\nimpl A<u8> for X { }\nimpl<'a, T> A<T> for Y<'a> { }"), 0);
    assert_eq!(count("// trait A\nlet x = \"trait A\";"), 0);
}

// ---- the house -------------------------------------------------------------------------------

#[test]
fn the_top_level_is_as_designed() {
    const TOP: [&str; 10] = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE",
        "README.md",
        "bench",
        "engine",
        "hvctl",
        "loadgen",
        "tests",
        "wire",
    ];
    let mut found: Vec<String> =
        paths().iter().filter_map(|path| path.split('/').next()).map(str::to_owned).collect();
    found.retain(|name| !name.starts_with('.'));
    found.sort();
    found.dedup();
    assert_eq!(found, TOP, "top level of the repository");
}

/// What must not stand in a public repository; spelt in two parts, so that this file has none.
const PRIVATE: [&str; 14] = [
    concat!("/tm", "p/w"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("index.", "crates"),
    concat!("static.", "crates"),
    concat!("artif", "actory"),
    concat!("pypi", ".org"),
    concat!("python", "hosted"),
    concat!("registry.", "npmjs"),
    concat!("debian", ".org"),
    concat!("PRIVATE ", "KEY--"),
    concat!("AK", "IA"),
    concat!("gh", "p_"),
];

fn private_text(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (line, text) in (1..).zip(source.text.lines()) {
        for private in PRIVATE {
            let starts = |(at, _)| !text[..at].ends_with(|char: char| char.is_ascii_alphanumeric());
            if text.match_indices(private).any(starts) {
                found.push(
                    source.finding(line, format_args!("`{private}` says where it was written")),
                );
            }
        }
    }
    found
}

#[test]
fn no_machine_paths_hosts_or_secrets() {
    assert_none("private text:", all().iter().flat_map(private_text).collect());
}

#[test]
fn private_text_is_found() {
    for private in PRIVATE {
        assert_eq!(
            private_text(&Source::new("a", &format!("x\n cd {private}"))).len(),
            1,
            "{private}"
        );
    }
    assert_eq!(private_text(&Source::new("a", "/sys/fs/cgroup frame/work/x")).len(), 0);
}

// ---- packages --------------------------------------------------------------------------------

/// `cargo metadata` of the workspace's own packages.
fn packages() -> Vec<Value> {
    let arguments = ["metadata", "--no-deps", "--offline", "--format-version", "1"];
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo prints JSON");
    metadata["packages"].as_array().expect("packages").clone()
}

/// Names of a package's dependencies, of those kinds that `kinds` has (`normal`, `dev`, `build`).
fn dependencies<'a>(package: &'a Value, kinds: &[&str]) -> Vec<&'a str> {
    let listed = package["dependencies"].as_array().expect("dependencies");
    let wanted =
        |dependency: &&Value| kinds.contains(&dependency["kind"].as_str().unwrap_or("normal"));
    listed.iter().filter(wanted).filter_map(|dependency| dependency["name"].as_str()).collect()
}

/// Names of a package's targets of kind `kind`.
fn targets<'a>(package: &'a Value, kind: &str) -> Vec<&'a str> {
    let of_kind = |target: &&Value| target["kind"][0] == *kind;
    let listed = package["targets"].as_array().expect("targets");
    listed.iter().filter(of_kind).filter_map(|target| target["name"].as_str()).collect()
}

#[test]
fn packages_and_programs_are_named_as_designed() {
    let mut found = Vec::new();
    for package in packages() {
        let manifest = package["manifest_path"].as_str().expect("a path");
        let directory = manifest.rsplit('/').nth(1).expect("a directory");
        let name = package["name"].as_str().expect("a name");
        found.push((directory.to_owned(), name.to_owned()));
        let program = match name {
            "vendue-engine" => "vendued",
            "hvctl" => "hvctl",
            _ => continue,
        };
        assert_eq!(targets(&package, "bin"), [program], "programs of {name}");
    }
    found.sort();
    let expected = [
        ("bench", "vendue-bench"),
        ("engine", "vendue-engine"),
        ("fuzz", "vendue-fuzz"),
        ("hvctl", "hvctl"),
        ("loadgen", "vendue-loadgen"),
        ("tests", "vendue-tests"),
        ("wire", "vendue-wire"),
    ];
    assert_eq!(found, expected.map(|(path, name)| (path.to_owned(), name.to_owned())));
    let workspace = std::fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    assert!(workspace.contains("\ndefault-members = [\"engine\"]\n"), "`cargo run` is the daemon");
}

#[test]
fn packages_depend_on_one_another_as_designed() {
    /// Package, and the only packages of the workspace that it may build on.
    const MAY_USE: [(&str, &[&str]); 7] = [
        ("vendue-wire", &[]),
        ("hvctl", &["vendue-wire"]),
        ("vendue-engine", &["vendue-wire", "hvctl"]),
        ("vendue-loadgen", &["vendue-wire"]),
        ("vendue-bench", &["vendue-wire", "vendue-engine", "hvctl", "vendue-loadgen"]),
        ("vendue-tests", &["vendue-wire", "vendue-engine", "hvctl", "vendue-loadgen"]),
        ("vendue-fuzz", &["vendue-wire", "vendue-engine", "hvctl", "vendue-tests"]),
    ];
    let mut findings = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().expect("a name");
        let (_, may_use) = MAY_USE.iter().find(|(member, _)| *member == name).expect(name);
        let used = dependencies(&package, &["normal", "dev", "build"]).into_iter();
        let own = used.filter(|used| MAY_USE.iter().any(|(member, _)| member == used));
        findings.extend(
            own.filter(|used| !may_use.contains(used)).map(|used| format!("{name} uses {used}")),
        );
    }
    assert_none("dependencies between members:", findings);
}

#[test]
fn the_card_does_real_work() {
    const CARD: [&str; 7] =
        ["crossbeam", "hdrhistogram", "io-uring", "mimalloc", "mio", "nix", "zerocopy"];
    let packages = packages();
    let depended: Vec<&str> =
        packages.iter().flat_map(|package| dependencies(package, &["normal"])).collect();
    let shipped = shipped_rust();
    let mut findings = Vec::new();
    for name in CARD {
        if !depended.contains(&name) {
            findings.push(format!("{name} is no member's dependency"));
        }
        let path = format!("{}::", name.replace('-', "_"));
        if !shipped.iter().any(|source| source.code.contains(&path)) {
            findings.push(format!("{name} is used by no shipped source"));
        }
    }
    assert_none("crates of the card:", findings);
}
