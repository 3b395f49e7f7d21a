//! The screen, from what is known and what the user has chosen. Nothing else comes in.

use super::header;
use super::keys::HELP;
use super::known::Known;
use super::market;
use super::one;
use super::sheet::{Column, Sheet, Tone};
use super::state::{State, View};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

/// Columns between two columns of a table.
const GAP: u16 = 1;
/// The last column takes what is left; with less than that it is left out.
const REST_MIN: u16 = 6;
/// From this many lines on there is room for a book's depth below the books.
const DEPTH_LINES_MIN: u16 = 12;

/// Draws everything.
pub fn screen(frame: &mut Frame<'_>, known: &Known, sheet: &Sheet, state: &mut State) {
    let paint = Paint { colours: state.colours };
    let mut above = header::lines(known, state);
    // Tables come first where there is little room.
    above.truncate(usize::from(frame.area().height / 3));
    let [top, tabs, body, foot] = Layout::vertical([
        Constraint::Length(above.len() as u16),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(paint.lines(above), top);
    frame.render_widget(paint.tabs(sheet, state), tabs);
    frame.render_widget(footer(state), foot);
    if state.help {
        let key = |(key, what): &(&str, &str)| (format!("{key:<17}{what}"), Tone::Plain);
        return frame.render_widget(paint.lines(HELP.iter().map(key).collect()), body);
    }
    if let Some(instance) = state.one {
        let lines = one::lines(known, instance, body.width.into());
        state.page = body.height.into();
        let last = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(body.height);
        state.line = state.line.min(last);
        return frame.render_widget(paint.lines(lines).scroll((state.line, 0)), body);
    }
    match state.view {
        View::Market => books(frame, known, sheet, state, body),
        _ => table(frame, sheet, state, body),
    }
}

/// The books, and below them the depth of the marked one.
fn books(frame: &mut Frame<'_>, known: &Known, sheet: &Sheet, state: &mut State, area: Rect) {
    let marked = state.book(sheet);
    let depth = known.depth.as_ref().filter(|row| Some(row.book.get()) == marked);
    let Some(depth) = depth.filter(|_| area.height >= DEPTH_LINES_MIN) else {
        return table(frame, sheet, state, area);
    };
    let paint = Paint { colours: state.colours };
    let title = format!("depth of {}", known.book(depth.book.get()));
    let mut lines = vec![(title, Tone::Heading)];
    lines.extend(market::depth(depth).into_iter().map(|line| (line, Tone::Plain)));
    let height = (lines.len() as u16).min(area.height / 2);
    let [above, below] =
        Layout::vertical([Constraint::Min(0), Constraint::Length(height)]).areas(area);
    table(frame, sheet, state, above);
    frame.render_widget(paint.lines(lines), below);
}

fn table(frame: &mut Frame<'_>, sheet: &Sheet, state: &mut State, area: Rect) {
    let paint = Paint { colours: state.colours };
    let rows = usize::from(area.height.saturating_sub(1));
    state.page = rows.max(1);
    state.place_mut().scroll(rows);
    let place = state.place();
    let order = place.order;
    let columns = fitting(sheet.columns, order.column, area.width);
    let heading = |&(at, _): &(usize, u16)| {
        let Column { heading, number, .. } = sheet.columns[at];
        let sign = if order.descending { "▼" } else { "▲" };
        let shown = match at == order.column {
            true => format!("{heading}{sign}"),
            false => heading.to_owned(),
        };
        Cell::new(sided(shown, number))
    };
    let row = |(at, entry): (usize, &super::sheet::Entry)| {
        let cells = columns.iter().map(|&(column, _)| {
            let cell = &entry.cells[column];
            let number = sheet.columns[column].number;
            Cell::new(sided(cell.text.clone(), number)).style(paint.style(cell.tone))
        });
        let row = Row::new(cells.collect::<Vec<_>>());
        if at == place.at { row.style(Modifier::REVERSED) } else { row }
    };
    let shown = sheet.entries.iter().enumerate().skip(place.first).take(rows);
    let widths = columns.iter().map(|&(_, width)| Constraint::Length(width));
    let table = Table::new(shown.map(row), widths)
        .column_spacing(GAP)
        .header(Row::new(columns.iter().map(heading)).style(Modifier::UNDERLINED));
    frame.render_widget(table, area);
}

fn sided(text: String, number: bool) -> Text<'static> {
    Text::from(text).alignment(if number { Alignment::Right } else { Alignment::Left })
}

/// The columns that are shown, with their widths: the first, then as many as fit around the one
/// that the table is sorted by.
fn fitting(columns: &[Column], by: usize, width: u16) -> Vec<(usize, u16)> {
    let space = |range: std::ops::RangeInclusive<usize>| -> u16 {
        columns[range].iter().map(|column| column.width + GAP).sum()
    };
    let first = columns[0].width;
    let start = (1..=by).find(|&start| first + space(start..=by) <= width);
    let mut shown = vec![(0, first.min(width))];
    let mut left = width.saturating_sub(first);
    for (at, column) in columns.iter().enumerate().skip(start.unwrap_or(by.max(1))) {
        let last = at + 1 == columns.len();
        let fits = left >= column.width + GAP;
        if !fits && (!last || left < REST_MIN + GAP) {
            break;
        }
        let width = if last { left - GAP } else { column.width };
        shown.push((at, width));
        left -= width + GAP;
    }
    shown
}

/// What the keys do now, or the filter that is being typed.
fn footer(state: &State) -> Line<'static> {
    let place = state.place();
    if state.typing {
        return Line::from(format!("/{}_   Enter: keep it, Esc: all rows", place.filter));
    }
    Line::from(match (state.help, state.one) {
        (true, _) => "any key: back",
        (_, Some(_)) => "Esc back  Up Down scroll  Space pause  R now  ? keys  q quit",
        _ => "Enter look into  / filter  < > sort  r reverse  Space pause  ? keys  q quit",
    })
}

/// Colours, if there are to be any.
#[derive(Clone, Copy)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn style(self, tone: Tone) -> Style {
        let coloured = |colour: Color, otherwise: Modifier| match self.colours {
            true => Style::new().fg(colour),
            false => Style::new().add_modifier(otherwise),
        };
        match tone {
            Tone::Plain => Style::new(),
            Tone::Heading => Style::new().add_modifier(Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
            Tone::Good => coloured(Color::Green, Modifier::empty()),
            Tone::Warning => coloured(Color::Yellow, Modifier::BOLD),
            Tone::Bad => coloured(Color::Red, Modifier::BOLD).add_modifier(Modifier::BOLD),
        }
    }

    fn lines(self, lines: Vec<one::Line>) -> Paragraph<'static> {
        let line = |(text, tone)| Line::from(Span::styled(text, self.style(tone)));
        Paragraph::new(lines.into_iter().map(line).collect::<Vec<_>>())
    }

    /// The views, and how much of this one is shown.
    fn tabs(self, sheet: &Sheet, state: &State) -> Line<'static> {
        let mut spans = Vec::new();
        for (at, view) in View::ALL.into_iter().enumerate() {
            let style = match view == state.view {
                true => Style::new().add_modifier(Modifier::REVERSED),
                false => Style::new(),
            };
            spans.push(Span::styled(format!(" {} {} ", at + 1, view.name()), style));
        }
        let place = state.place();
        let filter = match place.filter.as_str() {
            "" => String::new(),
            filter => format!(" with \"{filter}\""),
        };
        spans.push(Span::styled(
            format!("  {} of {} rows{filter}", sheet.entries.len(), sheet.all),
            self.style(Tone::Dim),
        ));
        Line::from(spans)
    }
}
