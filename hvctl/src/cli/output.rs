//! What goes to standard output: tables for people, or one JSON object a line for programs.

use super::table::{Column, Table};
use serde_json::Value;
use std::io::{self, Write};

/// Standard output and the form it was asked for in.
#[derive(Debug)]
pub struct Output {
    out: io::BufWriter<io::Stdout>,
    json: bool,
}

impl Output {
    /// Standard output, with JSON if `json`.
    pub fn new(json: bool) -> Output {
        Output { out: io::BufWriter::new(io::stdout()), json }
    }

    /// True if JSON was asked for.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one result: the object, or the text and a line's end. Shown at once.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn say(&mut self, object: &Value, text: &str) -> io::Result<()> {
        match self.json {
            true => writeln!(self.out, "{object}")?,
            false => writeln!(self.out, "{text}")?,
        }
        self.out.flush()
    }

    /// Prints text as it is. Shown at once.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn print(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.write_all(text)?;
        self.out.flush()
    }

    /// Begins a list: rows of a table, or one object a line.
    pub fn list(&mut self, columns: &[Column]) -> List<'_> {
        List { output: self, table: Table::new(columns), headed: false }
    }
}

/// A list being printed.
#[derive(Debug)]
pub struct List<'a> {
    output: &'a mut Output,
    table: Table,
    headed: bool,
}

impl List<'_> {
    /// Adds an entry as JSON; the same entry for people is added with [`List::cells`].
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn object(&mut self, object: &Value) -> io::Result<()> {
        if self.output.json {
            writeln!(self.output.out, "{object}")?;
        }
        Ok(())
    }

    /// Adds a row for people.
    pub fn cells(&mut self, cells: Vec<String>) {
        if !self.output.json {
            self.table.row(cells);
        }
    }

    /// Shows what was added since the last time, with headings the first time.
    ///
    /// # Errors
    /// Standard output cannot be written.
    pub fn show(&mut self) -> io::Result<()> {
        if !self.output.json {
            let text = self.table.take(!self.headed);
            self.headed = true;
            self.output.out.write_all(text.as_bytes())?;
        }
        self.output.out.flush()
    }
}
