//! What the user has chosen: view, order, filter, selection, pace.

use super::sheet::{Column, Entry, Order, Sheet};
use super::{instances, leases, market, tasks};
use crate::cli::top::known::Known;
use std::time::Duration;

/// Shortest and longest time between two looks.
pub const INTERVAL: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(60)];
/// Longest filter, in characters.
pub const FILTER_MAX: usize = 40;

/// A table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Instances.
    Instances,
    /// Books, and the depth of one.
    Market,
    /// Leases.
    Leases,
    /// Tasks.
    Tasks,
}

impl View {
    /// All, in the order of their keys.
    pub const ALL: [View; 4] = [View::Instances, View::Market, View::Leases, View::Tasks];

    /// What it is called.
    pub fn name(self) -> &'static str {
        ["instances", "market", "leases", "tasks"][self as usize]
    }

    /// Its columns.
    pub fn columns(self) -> &'static [Column] {
        match self {
            View::Instances => &instances::COLUMNS,
            View::Market => &market::COLUMNS,
            View::Leases => &leases::COLUMNS,
            View::Tasks => &tasks::COLUMNS,
        }
    }

    fn entries(self, known: &Known) -> Vec<Entry> {
        match self {
            View::Instances => instances::entries(known),
            View::Market => market::entries(known),
            View::Leases => leases::entries(known),
            View::Tasks => tasks::entries(known),
        }
    }
}

/// Where the user is in a table.
#[derive(Clone, Debug)]
pub struct Place {
    /// Order of its rows.
    pub order: Order,
    /// Only rows with this text.
    pub filter: String,
    /// The row that is marked; `None`: the one at the same place, whichever it is.
    pub marked: Option<u64>,
    /// Where the marked row was.
    pub at: usize,
    /// First row that is shown.
    pub first: usize,
}

impl Place {
    fn by(column: usize, descending: bool) -> Place {
        let order = Order { column, descending };
        Place { order, filter: String::new(), marked: None, at: 0, first: 0 }
    }

    /// Finds the marked row again; one that is gone leaves the mark where it was.
    pub fn settle(&mut self, sheet: &Sheet) {
        let found = self.marked.and_then(|id| sheet.entries.iter().position(|row| row.id == id));
        let last = sheet.entries.len().saturating_sub(1);
        if found.is_none() {
            self.marked = None;
        }
        self.at = found.unwrap_or(self.at).min(last);
    }

    /// Marks the row that is `by` rows further.
    pub fn go(&mut self, by: isize, sheet: &Sheet) {
        let last = sheet.entries.len().saturating_sub(1);
        self.at = self.at.saturating_add_signed(by).min(last);
        self.marked = sheet.entries.get(self.at).map(|row| row.id);
    }

    /// Shows the marked row among `rows` rows.
    pub fn scroll(&mut self, rows: usize) {
        let least = (self.at + 1).saturating_sub(rows.max(1));
        self.first = self.first.clamp(least, self.at);
    }
}

/// Why nothing new comes, and what is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away {
    /// What went wrong.
    pub why: String,
    /// How often it was tried to connect again.
    pub tries: u32,
    /// When it is tried again.
    pub again_in: Duration,
}

/// All that the user has chosen, and what is told of the connection.
#[derive(Clone, Debug)]
pub struct State {
    /// Where the daemon is.
    pub endpoint: String,
    /// Table that is shown.
    pub view: View,
    /// A place for each view.
    places: [Place; 4],
    /// Instance that is shown alone.
    pub one: Option<u32>,
    /// First line of it that is shown.
    pub line: u16,
    /// Rows that a page has, as last drawn.
    pub page: usize,
    /// The filter is being typed.
    pub typing: bool,
    /// The keys are explained.
    pub help: bool,
    /// Nothing is asked for.
    pub paused: bool,
    /// Between two looks.
    pub interval: Duration,
    /// The daemon is away.
    pub away: Option<Away>,
    /// Colours are wanted.
    pub colours: bool,
}

impl State {
    /// At the start.
    pub fn new(endpoint: String, interval: Duration, colours: bool) -> State {
        State {
            endpoint,
            view: View::Instances,
            places: [
                Place::by(instances::CPU, true),
                Place::by(0, false),
                Place::by(0, false),
                Place::by(0, false),
            ],
            one: None,
            line: 0,
            page: 1,
            typing: false,
            help: false,
            paused: false,
            interval,
            away: None,
            colours,
        }
    }

    /// Where the user is in the table that is shown.
    pub fn place(&self) -> &Place {
        &self.places[self.view as usize]
    }

    /// The same, to be changed.
    pub fn place_mut(&mut self) -> &mut Place {
        &mut self.places[self.view as usize]
    }

    /// The table that is shown, with the mark settled in it.
    pub fn sheet(&mut self, known: &Known) -> Sheet {
        let place = self.place();
        let entries = self.view.entries(known);
        let sheet = Sheet::arranged(self.view.columns(), entries, place.order, &place.filter);
        self.place_mut().settle(&sheet);
        sheet
    }

    /// The book whose depth is shown.
    pub fn book(&self, sheet: &Sheet) -> Option<u16> {
        let row = sheet.entries.get(self.place().at).filter(|_| self.view == View::Market);
        row.and_then(|row| u16::try_from(row.id).ok())
    }
}
