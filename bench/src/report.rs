//! How a comparison is shown: a table for people, one JSON object a line for programs.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::run::{median, ratio};

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

/// What every line of `--json` begins with; further fields differ by benchmark.
#[derive(Serialize)]
struct Head<'a> {
    name: &'a str,
    unit: &'a str,
    #[serde(serialize_with = "rounded")]
    ours: f64,
    #[serde(serialize_with = "rounded")]
    floor: f64,
    #[serde(serialize_with = "rounded")]
    ratio: f64,
    runs: usize,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    head: Head<'a>,
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
        let (ours, floor) = (self.ours.median, self.floor.median);
        let Comparison { ref name, unit, ratio, runs, .. } = *self;
        let line = Line {
            head: Head { name, unit, ours, floor, ratio, runs },
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

/// Quantiles of single operations, in the unit that the pair's name says: ns unless said otherwise.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50: u64,
    /// 99%.
    pub p99: u64,
    /// 99.9%.
    #[serde(rename = "p99.9")]
    pub p999: u64,
}

impl Quantiles {
    /// Of everything recorded.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Quantiles {
        let at = |quantile| histogram.value_at_quantile(quantile);
        Quantiles { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// One side of a [`Pair`].
#[derive(Clone, Debug, Serialize)]
pub struct Side {
    /// Median over the runs, in the pair's unit.
    pub median: f64,
    /// Least of the runs.
    pub min: f64,
    /// Greatest of the runs.
    pub max: f64,
    /// Of all runs together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quantiles_ns: Option<Quantiles>,
}

impl Side {
    fn of(runs: &[f64]) -> Side {
        let fold = |start, pick: fn(f64, f64) -> f64| runs.iter().copied().fold(start, pick);
        Side {
            median: median(runs.to_vec()),
            min: fold(f64::INFINITY, f64::min),
            max: fold(f64::NEG_INFINITY, f64::max),
            quantiles_ns: None,
        }
    }
}

/// Ours beside a floor where each is one number a run.
#[derive(Debug, Serialize)]
pub struct Pair {
    /// Such as `rtt.unix`.
    pub name: String,
    /// Of every number that names none itself.
    pub unit: &'static str,
    /// The real thing.
    pub ours: Side,
    /// The least it could cost, or the most it could give.
    pub floor: Side,
    /// Median over the runs of ours / floor of the same run.
    pub ratio: f64,
    /// Interleaved runs.
    pub runs: usize,
    /// What the ratio, or what the goal names, should be.
    pub goal: Option<Goal>,
    /// What else was found.
    pub facts: Map<String, Value>,
    /// How it was measured, one line.
    pub method: String,
}

/// A row that this machine could not fill.
#[derive(Clone, Debug, Serialize)]
pub struct NotMeasured {
    /// Such as `limit.cpu`.
    pub name: String,
    /// Why.
    #[serde(rename = "not_measured")]
    pub reason: String,
}

impl NotMeasured {
    /// As one JSON object without line breaks.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings always serialise")
    }
}

/// The table's entry.
impl fmt::Display for NotMeasured {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}\n  not measured: {}", self.name, self.reason)
    }
}

/// A goal and whether it was met.
#[derive(Clone, Debug, Serialize)]
pub struct Goal {
    /// In words.
    pub text: String,
    /// Whether this measurement met it.
    pub met: bool,
}

impl Pair {
    /// Runs that were made in turns: `ours[i]` beside `floor[i]`.
    ///
    /// # Panics
    /// There are no runs, or more of the one than of the other.
    #[must_use]
    pub fn new(name: impl Into<String>, unit: &'static str, ours: &[f64], floor: &[f64]) -> Pair {
        assert!(!ours.is_empty() && ours.len() == floor.len(), "runs come in pairs");
        Pair {
            name: name.into(),
            unit,
            ours: Side::of(ours),
            floor: Side::of(floor),
            ratio: ratio(ours, floor),
            runs: ours.len(),
            goal: None,
            facts: Map::new(),
            method: String::new(),
        }
    }

    /// Adds what single operations took.
    #[must_use]
    pub fn quantiles(mut self, ours: &Histogram<u64>, floor: &Histogram<u64>) -> Pair {
        self.ours.quantiles_ns = Some(Quantiles::of(ours));
        self.floor.quantiles_ns = Some(Quantiles::of(floor));
        self
    }

    /// Sets the goal.
    #[must_use]
    pub fn goal(mut self, text: impl Into<String>, met: bool) -> Pair {
        self.goal = Some(Goal { text: text.into(), met });
        self
    }

    /// Sets a ratio that must not be exceeded.
    #[must_use]
    pub fn at_most(self, most: f64) -> Pair {
        let met = self.ratio <= most;
        self.goal(format!("ratio <= {most}"), met)
    }

    /// Adds something that was found.
    #[must_use]
    pub fn fact(mut self, name: &str, value: impl Into<Value>) -> Pair {
        self.facts.insert(name.to_owned(), value.into());
        self
    }

    /// Says how it was measured.
    #[must_use]
    pub fn method(mut self, text: impl Into<String>) -> Pair {
        self.method = text.into();
        self
    }

    /// The pair as one JSON object without line breaks.
    #[must_use]
    pub fn to_json(&self) -> String {
        let (ours, floor) = (self.ours.median, self.floor.median);
        let Pair { ref name, unit, ratio, runs, .. } = *self;
        let line = PairLine {
            head: Head { name, unit, ours, floor, ratio, runs },
            goal: self.goal.as_ref().map(|goal| goal.text.as_str()),
            met: self.goal.as_ref().map(|goal| goal.met),
            ours_detail: &self.ours,
            floor_detail: &self.floor,
            facts: &self.facts,
            method: &self.method,
        };
        serde_json::to_string(&line).expect("numbers and strings always serialise")
    }
}

#[derive(Serialize)]
struct PairLine<'a> {
    #[serde(flatten)]
    head: Head<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
    ours_detail: &'a Side,
    floor_detail: &'a Side,
    #[serde(flatten)]
    facts: &'a Map<String, Value>,
    method: &'a str,
}

/// The table.
impl fmt::Display for Pair {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let titles = ["median", "min", "max", "x floor", "p50 ns", "p99 ns", "p99.9 ns"];
        write!(out, "{}\n  {:<12}", self.name, self.unit)?;
        titles.iter().try_for_each(|title| write!(out, "{title:>12}"))?;
        for (label, side, ratio) in [("floor", &self.floor, 1.0), ("ours", &self.ours, self.ratio)]
        {
            let Side { median, min, max, quantiles_ns } = side;
            write!(out, "\n  {label:<12}{median:>12.1}{min:>12.1}{max:>12.1}{ratio:>12.2}")?;
            if let Some(Quantiles { p50, p99, p999 }) = quantiles_ns {
                write!(out, "{p50:>12}{p99:>12}{p999:>12}")?;
            }
        }
        writeln!(out)?;
        if let Some(Goal { text, met }) = &self.goal {
            writeln!(out, "  goal: {text}: {}", if *met { "met" } else { "MISSED" })?;
        }
        for (fact, value) in &self.facts {
            match value {
                Value::String(text) => writeln!(out, "  {fact}: {text}")?,
                value => writeln!(out, "  {fact}: {value}")?,
            }
        }
        writeln!(out, "  {}", self.method)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pair_says_what_programs_rely_on_and_whether_its_goal_was_met() {
        let pair = Pair::new("rtt.unix", "ns", &[12.0, 30.0, 11.0], &[10.0, 10.0, 10.0])
            .at_most(1.3)
            .fact("depth", 16)
            .method("how");
        let line: Value = serde_json::from_str(&pair.to_json()).expect("valid JSON");
        let fields =
            ["name", "unit", "ours", "floor", "ratio", "runs", "met", "depth"].map(|at| &line[at]);
        let expected = [
            json!("rtt.unix"),
            json!("ns"),
            json!(12.0),
            json!(10.0),
            json!(1.2),
            json!(3),
            json!(true),
            json!(16),
        ];
        assert_eq!(fields, expected.each_ref());
        assert!(pair.to_string().contains("goal: ratio <= 1.3: met"), "{pair}");
        let pair = pair.at_most(1.1);
        assert!(pair.to_string().contains("MISSED") && pair.to_json().contains("\"met\":false"));
    }

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
