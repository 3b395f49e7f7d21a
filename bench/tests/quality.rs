//! The allocators that stand beside the product do what a reference says they do, and a trace goes
//! all the way through.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use vendue_bench::quality::allocators::{ALLOCATORS, Allocator, priority};
use vendue_bench::quality::metrics::Metrics;
use vendue_bench::quality::setup::Case;
use vendue_bench::quality::{Grants, measure};

/// Small cases with what reference allocators, written in Python on numpy floats, made of them.
const REFERENCE: &str = include_str!("quality/reference.json");
/// Slices: the reference is rounded to four digits and bisects.
const SLICES_ERROR: f64 = 0.001;

#[derive(Deserialize)]
struct Reference {
    name: String,
    fair: Vec<u32>,
    demand: Vec<Vec<u32>>,
    value: Vec<Vec<u32>>,
    allocators: BTreeMap<String, Expected>,
}

#[derive(Deserialize)]
struct Expected {
    grants: Grants,
    util: f64,
    opt: f64,
    fair: f64,
    p1: f64,
    churn: f64,
    value: f64,
    violation: f64,
}

#[test]
fn allocators_and_metrics_agree_with_the_reference() {
    let references: Vec<Reference> = serde_json::from_str(REFERENCE).expect("the reference");
    assert!(!references.is_empty());
    for Reference { name, fair, demand, value, allocators } in references {
        let case = Case { demand, fair, value };
        let ours = ALLOCATORS.into_iter().chain([("bound", priority as fn(&Case) -> Grants)]);
        let ours: Vec<Allocator> = ours.collect();
        assert_eq!(ours.len(), allocators.len());
        for (allocator, allocate) in ours {
            let grants = allocate(&case);
            let expected = &allocators[allocator];
            for (tenant, (ours, theirs)) in grants.iter().zip(&expected.grants).enumerate() {
                for (t, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                    assert!(
                        (ours - theirs).abs() < SLICES_ERROR,
                        "{name}: {allocator} grants tenant {tenant} {ours} in quantum {t}, the \
                         reference {theirs}"
                    );
                }
            }
            let Metrics { util, opt, fair, p1, churn, value, violation, .. } =
                Metrics::of(&case, &grants);
            let e = expected;
            let pairs = [
                ("util", util, e.util),
                ("opt", opt, e.opt),
                ("fair", fair, e.fair),
                ("p1", p1, e.p1),
                ("churn", churn, e.churn),
                ("value", value, e.value),
                ("violation", violation, e.violation),
            ];
            for (metric, ours, theirs) in pairs {
                assert!(
                    (ours - theirs).abs() < 1e-5,
                    "{name} {allocator} {metric}: {ours} {theirs}"
                );
            }
        }
    }
}

/// 120 VMs over 96 quanta: some steady, some in bursts of their own rhythm.
fn synthetic() -> String {
    let mut text = (0..120).fold("t".to_owned(), |text, vm| format!("{text},vm{vm}"));
    for t in 0..96_u32 {
        write!(text, "\n{}", t * 300).expect("in memory");
        for vm in 0..120_u32 {
            let burst = (t + vm * 5) % (6 + vm % 17) == 0;
            let used = if burst { 900 + vm } else { 100 + (t * vm) % 90 };
            write!(text, ",{used}").expect("in memory");
        }
    }
    text
}

#[test]
fn a_trace_becomes_a_row_for_every_set_up_and_allocator() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trace.csv");
    std::fs::write(&path, synthetic()).expect("a file");
    let mut rows = BTreeMap::new();
    measure(&path, None, &mut |row| {
        let line: serde_json::Value = serde_json::from_str(&row.to_json()).expect("JSON");
        rows.insert(line["name"].as_str().expect("a name").to_owned(), line);
    })
    .expect("a trace");
    for setup in ["s1", "s2"] {
        for (allocator, _) in ALLOCATORS {
            let row = &rows[&format!("quality.{setup}.{allocator}")];
            let metric = |name: &str| row[name].as_f64().expect(name);
            assert!(metric("util") <= metric("opt") && metric("fair") <= 1.0, "{row}");
            assert_eq!(row["windows"], 1);
        }
        let wasted = |allocator: &str| {
            let row = &rows[&format!("quality.{setup}.{allocator}")];
            row["opt"].as_f64().expect("opt") - row["util"].as_f64().expect("util")
        };
        assert!(wasted("max-min") < 1e-3 && wasted("karma") < 1e-3 && wasted("static") > 0.02);
    }
    assert_eq!(rows["quality.v2.bound"]["captured"]["mean"], 1.0);
    assert_eq!(rows["quality.v2.max-min"]["captured"]["mean"], 0.0);
    lies_and_leases(&rows);
}

/// What tenants say of their urgency is nothing to max-min, and something to markets; whoever asks for
/// less than it needs gets less everywhere; with leases, who is critical is served before others.
fn lies_and_leases(rows: &BTreeMap<String, serde_json::Value>) {
    let effect = |market: &str, strategy: &str| {
        let name = format!("quality.plays.{market}.{strategy}");
        rows[&name]["effect"]["mean"].as_f64().expect("a mean")
    };
    for market in ["max-min", "karma", "vendue", "vendue-leases"] {
        assert!(effect(market, "needs-a-fifth-less") < -0.05, "{market}");
        assert!((-0.05..0.5).contains(&effect(market, "saves-and-grabs")), "{market}");
        let urgency = effect(market, "always-urgent");
        assert_eq!(urgency == 0.0, !market.starts_with("vendue"), "{market}: {urgency}");
    }
    // It burns its credits or pays rent for nothing.
    assert!(effect("vendue-leases", "needs-half-more") < 0.0);
    for setup in ["v2", "critical", "pressed"] {
        let missed = |allocator: &str| {
            rows[&format!("quality.{setup}.{allocator}")]["violation"].as_f64().expect("a share")
        };
        assert!(missed("vendue-leases") < missed("max-min"), "{setup}");
        assert!(missed("vendue-entitled") <= missed("vendue-leases"), "{setup}");
    }
    for goal in ["misreport", "urgency", "cornering"] {
        assert!(rows[&format!("quality.plays.vendue-leases.{goal}")]["met"].is_boolean());
    }
}

#[test]
fn a_trace_with_too_few_tenants_is_refused_in_words() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("trace.csv");
    std::fs::write(&path, "t,a\n0,1\n300,2\n").expect("a file");
    let error = measure(&path, None, &mut |_| {}).expect_err("one VM").to_string();
    assert!(error.contains("100 active VMs"), "{error}");
}
