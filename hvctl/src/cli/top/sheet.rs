//! A table that can be sorted and filtered by what it says.

use std::cmp::Ordering;

/// How a cell is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    #[default]
    Plain,
    /// Above others.
    Heading,
    /// Of less interest.
    Dim,
    /// As wanted.
    Good,
    /// Worth a look.
    Warning,
    /// Wrong.
    Bad,
}

/// A column: its heading, the width of its cells and the side they keep to.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub heading: &'static str,
    /// Width of its cells, at least the heading's and one for the sign of the order.
    pub width: u16,
    /// Numbers keep right; the first sorting by them is from the greatest down.
    pub number: bool,
}

/// A column of text.
pub const fn words(heading: &'static str, width: u16) -> Column {
    Column { heading, width, number: false }
}

/// A column of numbers.
pub const fn numbers(heading: &'static str, width: u16) -> Column {
    Column { heading, width, number: true }
}

/// What a cell is sorted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(i128),
    Text(String),
}

/// A cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What it says.
    pub text: String,
    /// How it is meant.
    pub tone: Tone,
    /// `None` comes last in any order.
    key: Option<Key>,
}

impl Cell {
    /// A text, sorted as it is.
    pub fn text(text: impl Into<String>) -> Cell {
        let text = text.into();
        Cell { key: Some(Key::Text(text.to_lowercase())), text, tone: Tone::Plain }
    }

    /// A number as `text` shows it.
    pub fn number(number: impl Into<i128>, text: impl Into<String>) -> Cell {
        Cell { key: Some(Key::Number(number.into())), text: text.into(), tone: Tone::Plain }
    }

    /// A number as `text` shows it, or `-` for none.
    pub fn maybe<N: Into<i128> + Copy>(number: Option<N>, text: impl Fn(N) -> String) -> Cell {
        match number {
            Some(number) => Cell::number(number, text(number)),
            None => Cell { text: "-".to_owned(), key: None, tone: Tone::Dim },
        }
    }

    /// The cell, meant so.
    pub fn toned(self, tone: Tone) -> Cell {
        Cell { tone, ..self }
    }
}

/// A row.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What stays the same while the row changes and moves.
    pub id: u64,
    /// The instance it is about, if it is about one.
    pub instance: Option<u32>,
    /// A cell for each column.
    pub cells: Vec<Cell>,
}

/// By which column, and which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Column.
    pub column: usize,
    /// From the greatest down.
    pub descending: bool,
}

/// A table.
#[derive(Clone, Debug)]
pub struct Sheet {
    /// Columns.
    pub columns: &'static [Column],
    /// Rows that passed the filter, in order.
    pub entries: Vec<Entry>,
    /// Rows there are.
    pub all: usize,
}

impl Sheet {
    /// The rows of which some cell contains `filter`, in `order`; rows that are equal in it keep theirs.
    ///
    /// # Panics
    /// If a row has not a cell for each column.
    pub fn arranged(
        columns: &'static [Column],
        mut entries: Vec<Entry>,
        order: Order,
        filter: &str,
    ) -> Sheet {
        let all = entries.len();
        assert!(entries.iter().all(|entry| entry.cells.len() == columns.len()), "a cell a column");
        let wanted = filter.to_lowercase();
        let says = |cell: &Cell| cell.text.to_lowercase().contains(&wanted);
        entries.retain(|entry| wanted.is_empty() || entry.cells.iter().any(says));
        entries.sort_by(|a, b| match (&a.cells[order.column].key, &b.cells[order.column].key) {
            (Some(a), Some(b)) if order.descending => b.cmp(a),
            (Some(a), Some(b)) => a.cmp(b),
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (None, None) => Ordering::Equal,
        });
        Sheet { columns, entries, all }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 2] = [words("NAME", 8), numbers("CPU", 6)];

    fn entries() -> Vec<Entry> {
        let row = |id, name: &str, cpu: Option<u32>| Entry {
            id,
            instance: None,
            cells: vec![Cell::text(name), Cell::maybe(cpu, |cpu| format!("{cpu}m"))],
        };
        vec![row(0, "web", Some(9)), row(1, "Batch", None), row(2, "db", Some(100))]
    }

    fn ids(column: usize, descending: bool, filter: &str) -> Vec<u64> {
        let order = Order { column, descending };
        let sheet = Sheet::arranged(&COLUMNS, entries(), order, filter);
        assert_eq!(sheet.all, 3);
        sheet.entries.iter().map(|entry| entry.id).collect()
    }

    #[test]
    fn rows_are_sorted_by_value_and_what_is_unknown_comes_last_both_ways() {
        assert_eq!(ids(1, true, ""), [2, 0, 1]);
        assert_eq!(ids(1, false, ""), [0, 2, 1]);
        assert_eq!(ids(0, false, ""), [1, 2, 0]);
        assert_eq!(ids(0, true, ""), [0, 2, 1]);
    }

    #[test]
    fn a_filter_looks_at_every_cell_whatever_the_case() {
        assert_eq!(ids(0, false, "b"), [1, 2, 0]);
        assert_eq!(ids(0, false, "BATCH"), [1]);
        assert_eq!(ids(0, false, "100m"), [2]);
        assert_eq!(ids(0, false, "nothing"), [] as [u64; 0]);
    }
}
