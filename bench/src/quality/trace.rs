//! Demand traces: wide CSV, plain or gzipped.
//!
//! Two layouts are understood. A first column of times (`t`): every further column is a VM, every
//! row a quantum of five minutes; cut into windows of [`WINDOW_QUANTA`]. A first column `date`, a
//! second `vm`: every row is the day of a VM, every further column a quantum; a day is a window.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

/// Quanta of a window of the first layout: 75 hours, as in Karma's evaluation.
pub const WINDOW_QUANTA: usize = 900;
/// Bytes of an unpacked trace that are read at most.
const TRACE_BYTES_MAX: u64 = 1 << 30;
/// What is above this share of a VM's quanta counts as its own capacity if that is more than what
/// it was sold: some sources say too little.
const CAPACITY_PERCENTILE: f64 = 99.9;

/// Why there is no trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It could not be read.
    #[error("{path}: {source}")]
    Read {
        /// Of the file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is not such a table.
    #[error("{path}: line {line}: {why}")]
    Garbled {
        /// Of the file.
        path: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// Some hours of some VMs.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Number of the window, or the day.
    pub label: String,
    /// Use of each VM in each quantum, percent of its own capacity.
    pub percent: Vec<Vec<f64>>,
}

/// Reads the windows of the trace at `path`, in order. `capacities` may name a CSV of `vm,capacity`
/// in the trace's unit, for the first layout; the second is in percent already.
///
/// # Errors
/// A file cannot be read, or is no such table.
pub fn read(path: &Path, capacities: Option<&Path>) -> Result<Vec<Window>, TraceError> {
    let table = Table::read(path)?;
    if table.names.first().is_some_and(|name| name == "date") {
        return Ok(days(table));
    }
    let sold = match capacities {
        Some(path) => Table::read(path)?.capacities(&table)?,
        None => vec![0.0; table.names.len() - 1],
    };
    Ok(columns(&table, &sold))
}

struct Table {
    path: String,
    names: Vec<String>,
    /// Cells that stand before the numbers of a row.
    heads: Vec<[String; 2]>,
    rows: Vec<Vec<f64>>,
}

impl Table {
    fn read(path: &Path) -> Result<Table, TraceError> {
        let shown = path.display().to_string();
        let failed = |source| TraceError::Read { path: shown.clone(), source };
        let file = File::open(path).map_err(failed)?;
        let packed = path.extension().is_some_and(|extension| extension == "gz");
        let text: Box<dyn Read> =
            if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
        let mut lines = BufReader::new(text.take(TRACE_BYTES_MAX)).lines();
        let header = lines.next().transpose().map_err(failed)?.unwrap_or_default();
        let names: Vec<String> = header.split(',').map(str::to_owned).collect();
        let mut table = Table { path: shown.clone(), names, heads: Vec::new(), rows: Vec::new() };
        // A day's row begins with its date and VM, others with a time or a name.
        let heads = if table.names[0] == "date" { 2 } else { 1 };
        if table.names.len() <= heads {
            return Err(table.garbled(1, "a header with at least two columns is missing"));
        }
        for (line, text) in (2..).zip(lines) {
            let text = text.map_err(failed)?;
            table.add(line, &text, heads)?;
        }
        if table.rows.is_empty() {
            return Err(table.garbled(2, "there are no rows"));
        }
        Ok(table)
    }

    fn add(&mut self, line: usize, text: &str, heads: usize) -> Result<(), TraceError> {
        let cells: Vec<&str> = text.split(',').collect();
        if cells.len() != self.names.len() {
            let why = format!("{} cells where the header has {}", cells.len(), self.names.len());
            return Err(self.garbled(line, &why));
        }
        let mut row = Vec::with_capacity(cells.len() - heads);
        for cell in &cells[heads..] {
            // An empty cell was not measured: nothing is known of that quantum.
            let value = if cell.is_empty() { Some(0.0) } else { cell.trim().parse().ok() };
            let value = value.filter(|value: &f64| value.is_finite() && *value >= 0.0);
            row.push(value.ok_or_else(|| self.garbled(line, &format!("{cell:?} is no use")))?);
        }
        self.heads.push([cells[0].to_owned(), cells[heads - 1].to_owned()]);
        self.rows.push(row);
        Ok(())
    }

    fn garbled(&self, line: usize, why: &str) -> TraceError {
        TraceError::Garbled { path: self.path.clone(), line, why: why.to_owned() }
    }

    /// What each VM of `trace` was sold; 0 where this table does not say.
    fn capacities(&self, trace: &Table) -> Result<Vec<f64>, TraceError> {
        let sold = |name: &String| {
            let row = self.heads.iter().position(|head| head[0] == *name);
            row.map_or(0.0, |row| self.rows[row][0])
        };
        let sold: Vec<f64> = trace.names[1..].iter().map(sold).collect();
        if sold.iter().all(|&capacity| capacity == 0.0) {
            return Err(self.garbled(1, "none of the trace's VMs is named here"));
        }
        Ok(sold)
    }
}

fn days(table: Table) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for ([date, _], row) in table.heads.into_iter().zip(table.rows) {
        match windows.iter_mut().find(|window| window.label == date) {
            Some(window) => window.percent.push(row),
            None => windows.push(Window { label: date, percent: vec![row] }),
        }
    }
    windows
}

fn columns(table: &Table, sold: &[f64]) -> Vec<Window> {
    let vms: Vec<Vec<f64>> = sold
        .iter()
        .enumerate()
        .map(|(vm, sold)| {
            let used: Vec<f64> = table.rows.iter().map(|row| row[vm]).collect();
            let capacity = super::metrics::percentile(used.clone(), CAPACITY_PERCENTILE);
            let capacity = capacity.max(*sold).max(1.0);
            used.iter().map(|use_| (100.0 * use_ / capacity).min(100.0)).collect()
        })
        .collect();
    let quanta = WINDOW_QUANTA.min(table.rows.len());
    let window = |at: usize| Window {
        label: at.to_string(),
        percent: vms.iter().map(|vm| vm[at * quanta..(at + 1) * quanta].to_vec()).collect(),
    };
    (0..table.rows.len() / quanta).map(window).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        (dir, path)
    }

    #[test]
    fn columns_are_vms_and_are_seen_beside_their_capacity() {
        let text = b"t,a,b\n0,10,5\n300,20,0\n600,40,\n";
        let (dir, path) = written("trace.csv", text);
        let windows = read(&path, None).expect("a trace");
        assert_eq!(windows.len(), 1);
        // The capacity is the 99.9th percentile: a hair below the peak.
        let [low, mid, high] = windows[0].percent[0][..] else { panic!("three quanta") };
        assert!((low - 25.0).abs() < 0.1 && (mid - 50.0).abs() < 0.1 && high == 100.0);
        assert_eq!(windows[0].percent[1][1..], [0.0, 0.0]);
        let sold = dir.path().join("sold.csv");
        std::fs::write(&sold, "vm,mhz\na,80\n").expect("a file");
        let windows = read(&path, Some(&sold)).expect("a trace");
        assert_eq!(windows[0].percent[0], [12.5, 25.0, 50.0]);
    }

    #[test]
    fn rows_may_be_days_and_the_file_may_be_packed() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"date,vm,s0,s1\n1,a,5,6\n1,b,7,8\n2,a,9,10\n").expect("in memory");
        let (_dir, path) = written("trace.csv.gz", &packed.finish().expect("in memory"));
        let windows = read(&path, None).expect("a trace");
        let labels: Vec<&str> = windows.iter().map(|window| window.label.as_str()).collect();
        assert_eq!(labels, ["1", "2"]);
        assert_eq!(windows[0].percent, [[5.0, 6.0], [7.0, 8.0]]);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        for (text, line) in [
            ("", 1),
            ("t,a\n", 2),
            ("t,a\n0,1\n300,x\n", 3),
            ("t,a\n0,1,2\n", 2),
            ("t,a\n0,-1\n", 2),
        ] {
            let (_dir, path) = written("trace.csv", text.as_bytes());
            let error = read(&path, None).expect_err(text).to_string();
            assert!(error.contains(&format!("line {line}:")), "{error}");
        }
    }
}
