//! Aligned tables of text.

/// Spaces between columns.
const GAP: usize = 2;

/// A column's heading and the side its cells keep to.
#[derive(Clone, Debug)]
pub struct Column {
    heading: String,
    right: bool,
    width_min: usize,
}

/// A column of text.
pub fn left(heading: &str) -> Column {
    Column { heading: printable(heading), right: false, width_min: 0 }
}

/// A column of numbers.
pub fn right(heading: &str) -> Column {
    Column { heading: printable(heading), right: true, width_min: 0 }
}

impl Column {
    /// The column, never narrower than this: keeps pages of one listing aligned.
    pub fn at_least(self, width_min: usize) -> Column {
        Column { width_min, ..self }
    }
}

/// Rows of cells under headings.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[Column]) -> Table {
        Table { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row. Control characters, which a name could smuggle to the terminal, become `?`.
    ///
    /// # Panics
    /// If there are not as many cells as columns.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells.iter().map(|cell| printable(cell)).collect());
    }

    /// The table as lines without blanks at their ends; takes the rows out.
    pub fn take(&mut self, with_headings: bool) -> String {
        let headings = self.columns.iter().map(|column| column.heading.clone()).collect();
        let heading: Option<Vec<String>> = with_headings.then_some(headings);
        let rows: Vec<_> = heading.into_iter().chain(std::mem::take(&mut self.rows)).collect();
        let widths: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let widest = rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
                widest.max(column.width_min).max(column.heading.chars().count())
            })
            .collect();
        let mut out = String::new();
        for row in &rows {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                let width = *width;
                match column.right {
                    true => line.push_str(&format!("{cell:>width$}")),
                    false => line.push_str(&format!("{cell:<width$}")),
                }
                line.extend(std::iter::repeat_n(' ', GAP));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// The text with `?` for each control character.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells<const N: usize>(cells: [&str; N]) -> Vec<String> {
        cells.map(str::to_owned).to_vec()
    }

    #[test]
    fn columns_line_up_with_text_left_and_numbers_right() {
        let mut table = Table::new(&[left("NAME"), right("FREE"), left("GROUP")]);
        table.row(cells(["a", "1.500", "0"]));
        table.row(cells(["bücher", "12345.000", ""]));
        let expected = "\
NAME         FREE  GROUP
a           1.500  0
bücher  12345.000
";
        assert_eq!(table.take(true), expected);
        assert_eq!(table.take(true), "NAME  FREE  GROUP\n");
    }

    #[test]
    fn pages_of_one_listing_keep_their_columns() {
        let mut table = Table::new(&[right("N").at_least(4), left("WHAT")]);
        table.row(cells(["1", "x"]));
        assert_eq!(table.take(true), "   N  WHAT\n   1  x\n");
        table.row(cells(["1000", "y"]));
        assert_eq!(table.take(false), "1000  y\n");
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        let mut table = Table::new(&[left("NAME")]);
        table.row(cells(["\x1b[2Jx\ny"]));
        assert_eq!(table.take(false), "?[2Jx?y\n");
    }
}
