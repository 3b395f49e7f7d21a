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
    pub ours: Row,
    /// The least it could cost.
    pub floor: Row,
    /// What the measurement itself costs.
    pub empty: Row,
    /// Median over the runs of ours / floor of the same run.
    pub ratio: f64,
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
    ours: f64,
    #[serde(serialize_with = "rounded")]
    floor: f64,
    #[serde(serialize_with = "rounded")]
    ratio: f64,
    runs: usize,
    #[serde(serialize_with = "rounded")]
    empty: f64,
    #[serde(serialize_with = "rounded")]
    floor_to_empty: f64,
    ours_detail: &'a Row,
    floor_detail: &'a Row,
    empty_detail: &'a Row,
    #[serde(flatten)]
    facts: &'a Map<String, Value>,
    method: &'a str,
}

/// Three decimals: more would be noise.
fn rounded<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 1000.0).round() / 1000.0)
}

impl Comparison {
    /// The comparison as one JSON object without line breaks.
    #[must_use]
    pub fn to_json(&self) -> String {
        let line = Line {
            name: &self.name,
            unit: self.unit,
            ours: self.ours.median,
            floor: self.floor.median,
            ratio: self.ratio,
            runs: self.runs,
            empty: self.empty.median,
            floor_to_empty: self.floor_to_empty,
            ours_detail: &self.ours,
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
        show_row(out, &self.empty, 1.0 / self.floor_to_empty)?;
        show_row(out, &self.floor, 1.0)?;
        show_row(out, &self.ours, self.ratio)?;
        writeln!(out, "  {}", self.method)
    }
}

fn show_row(out: &mut fmt::Formatter<'_>, row: &Row, ratio: f64) -> fmt::Result {
    let Row { label, median, min, latency, memory_bytes } = row;
    let memory = memory_bytes / 1024;
    let Latency { p50, p99, p999, max } = latency;
    writeln!(
        out,
        "  {label:<12}{median:>9.1} {min:>9.1} {ratio:>8.2}{p50:>9.0}{p99:>9.0}{p999:>9.0}{max:>11.0}{memory:>11}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn comparison() -> Comparison {
        let latency = Latency { p50: 20.0, p99: 80.0, p999: 130.0, max: 700.0 };
        let row =
            |label, median| Row { label, median, min: median - 1.0, latency, memory_bytes: 2048 };
        let Value::Object(facts) = json!({"ops": 10, "hash": "00ff"}) else { unreachable!() };
        Comparison {
            name: "book.flow-a".to_owned(),
            unit: "ns/op",
            runs: 5,
            ours: row("ours", 22.0),
            floor: row("floor", 11.0),
            empty: row("empty loop", 2.5),
            ratio: 2.000_04,
            floor_to_empty: 4.4,
            facts,
            method: "how".to_owned(),
        }
    }

    #[test]
    fn json_is_one_line_with_the_fields_that_programs_rely_on() {
        let text = comparison().to_json();
        assert!(!text.contains('\n'));
        let line: Value = serde_json::from_str(&text).expect("valid JSON");
        let fields = ["name", "unit", "ours", "floor", "ratio", "runs", "hash", "ops"]
            .map(|field| &line[field]);
        let expected = [
            json!("book.flow-a"),
            json!("ns/op"),
            json!(22.0),
            json!(11.0),
            json!(2.0),
            json!(5),
            json!("00ff"),
            json!(10),
        ];
        assert_eq!(fields, expected.each_ref());
        assert_eq!(line["ours_detail"]["latency"]["p99.9"], json!(130.0));
    }

    #[test]
    fn the_table_shows_every_contender() {
        let comparison = comparison();
        let table = comparison.to_string();
        let row = table.lines().find(|line| line.trim_start().starts_with("ours")).expect("a row");
        assert_eq!(
            row.split_whitespace().collect::<Vec<_>>(),
            ["ours", "22.0", "21.0", "2.00", "20", "80", "130", "700", "2"]
        );
    }
}
