//! How a comparison is shown: a table for people, one JSON object a line for programs.

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

/// Latency of single operations, ns. The counter that measures it is included.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Median.
    pub p50: f64,
    /// 99%.
    pub p99: f64,
    /// 99.9%.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// Worst; on a shared machine, mostly preemption.
    pub max: f64,
}

/// One contender's result.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What ran.
    #[serde(skip)]
    pub label: &'static str,
    /// Median over the runs, in the comparison's unit.
    pub median: f64,
    /// Best run.
    pub min: f64,
    /// Measured in separate runs.
    pub latency: Latency,
    /// Resident memory that it added to the process, bytes.
    pub memory_bytes: u64,
}

/// Ours beside its floor.
#[derive(Debug)]
pub struct Comparison {
    /// Such as `book.flow-a`.
    pub name: String,
    /// Of every median and minimum.
    pub unit: &'static str,
    /// Interleaved runs.
    pub runs: usize,
    /// What is measured; `None` while there is nothing to measure.
    pub ours: Option<Row>,
    /// The least it could cost.
    pub floor: Row,
    /// What the measurement itself costs.
    pub empty: Row,
    /// Median over the runs of ours / floor of the same run.
    pub ratio: Option<f64>,
    /// Median over the runs of floor / empty loop of the same run.
    pub floor_to_empty: f64,
    /// What else was found.
    pub facts: Map<String, Value>,
    /// How it was measured, one line.
    pub method: String,
}

/// The layout that every line of `--json` shares; further fields differ by benchmark.
#[derive(Serialize)]
struct Line<'a> {
    name: &'a str,
    unit: &'a str,
    #[serde(serialize_with = "rounded")]
    ours: Option<f64>,
    #[serde(serialize_with = "rounded")]
    floor: Option<f64>,
    #[serde(serialize_with = "rounded")]
    ratio: Option<f64>,
    runs: usize,
    #[serde(serialize_with = "rounded")]
    empty: Option<f64>,
    #[serde(serialize_with = "rounded")]
    floor_to_empty: Option<f64>,
    ours_detail: Option<&'a Row>,
    floor_detail: &'a Row,
    empty_detail: &'a Row,
    #[serde(flatten)]
    facts: &'a Map<String, Value>,
    method: &'a str,
}

/// Three decimals: more would be noise.
fn rounded<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    value.map(|value| (value * 1000.0).round() / 1000.0).serialize(serializer)
}

impl Comparison {
    /// The comparison as one JSON object without line breaks.
    #[must_use]
    pub fn to_json(&self) -> String {
        let line = Line {
            name: &self.name,
            unit: self.unit,
            ours: self.ours.as_ref().map(|row| row.median),
            floor: Some(self.floor.median),
            ratio: self.ratio,
            runs: self.runs,
            empty: Some(self.empty.median),
            floor_to_empty: Some(self.floor_to_empty),
            ours_detail: self.ours.as_ref(),
            floor_detail: &self.floor,
            empty_detail: &self.empty,
            facts: &self.facts,
            method: &self.method,
        };
        serde_json::to_string(&line).expect("numbers and strings always serialise")
    }
}

/// The table.
impl fmt::Display for Comparison {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.name)?;
        for (fact, value) in &self.facts {
            match value {
                Value::String(text) => writeln!(out, "  {fact}: {text}")?,
                value => writeln!(out, "  {fact}: {value}")?,
            }
        }
        writeln!(
            out,
            "  {:<12}{:>9} {:>9} {:>8}{:>9}{:>9}{:>9}{:>11}{:>11}",
            self.unit,
            "median",
            "min",
            "x floor",
            "p50 ns",
            "p99 ns",
            "p99.9 ns",
            "max ns",
            "memory KiB"
        )?;
        let floor_ratio = Some(1.0);
        let empty_ratio = Some(1.0 / self.floor_to_empty);
        show_row(out, &self.empty, empty_ratio)?;
        show_row(out, &self.floor, floor_ratio)?;
        match &self.ours {
            Some(row) => show_row(out, row, self.ratio)?,
            None => writeln!(out, "  ours: nothing to measure in this build")?,
        }
        writeln!(out, "  {}", self.method)
    }
}

fn show_row(out: &mut fmt::Formatter<'_>, row: &Row, ratio: Option<f64>) -> fmt::Result {
    let Row { label, median, min, latency, memory_bytes } = row;
    let ratio = ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    let memory = memory_bytes / 1024;
    let Latency { p50, p99, p999, max } = latency;
    writeln!(
        out,
        "  {label:<12}{median:>9.1} {min:>9.1} {ratio:>8}{p50:>9.0}{p99:>9.0}{p999:>9.0}{max:>11.0}{memory:>11}"
    )
}
