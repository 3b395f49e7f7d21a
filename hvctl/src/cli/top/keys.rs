//! What each key does.

use super::sheet::{Order, Sheet};
use super::state::{FILTER_MAX, INTERVAL, State, View};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key asks for beyond the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nothing.
    Draw,
    /// Something is shown that was not: ask at once.
    Ask,
    /// Give the terminal back to the shell, to be taken up again.
    Suspend,
    /// End.
    Quit,
}

/// The keys, as they are explained.
pub const HELP: [(&str, &str); 13] = [
    ("1 2 3 4, Tab", "instances, market, leases, tasks"),
    ("Up Down j k", "mark a row (PgUp, PgDn, Home, End too)"),
    ("Enter", "look into the marked instance; Esc: back"),
    ("< > Left Right", "sort by the column before, by the next"),
    ("r", "turn the order around"),
    ("/", "show only rows with a text; Enter: keep it, Esc: all rows"),
    ("Space", "pause, go on"),
    ("+ -", "look more often, less often"),
    ("R", "look now"),
    ("?", "these keys"),
    ("q Ctrl-C", "quit (Ctrl-Z: to the shell for a while)"),
    ("", ""),
    ("", "hvctl --json says the same to programs: instance list, limits, market..."),
];

/// Changes the state as the key says.
pub fn press(key: KeyEvent, state: &mut State, sheet: &Sheet) -> Act {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return match key.code {
            KeyCode::Char('c') => Act::Quit,
            KeyCode::Char('z') => Act::Suspend,
            _ => Act::Draw,
        };
    }
    if state.typing {
        return typed(key.code, state);
    }
    if state.help {
        state.help = false;
        return Act::Draw;
    }
    match key.code {
        KeyCode::Char('q') => Act::Quit,
        KeyCode::Char('?' | 'h') => drawn(|| state.help = true),
        KeyCode::Char(' ') => {
            state.paused = !state.paused;
            if state.paused { Act::Draw } else { Act::Ask }
        }
        KeyCode::Char('R') | KeyCode::F(5) => Act::Ask,
        KeyCode::Char('+') => drawn(|| state.interval = (state.interval / 2).max(INTERVAL[0])),
        KeyCode::Char('-') => drawn(|| state.interval = (state.interval * 2).min(INTERVAL[1])),
        KeyCode::Char(digit @ '1'..='4') => show(View::ALL[digit as usize - '1' as usize], state),
        KeyCode::Tab => show(View::ALL[(state.view as usize + 1) % View::ALL.len()], state),
        KeyCode::BackTab => show(View::ALL[(state.view as usize + 3) % View::ALL.len()], state),
        code if state.one.is_some() => in_one(code, state),
        code => in_table(code, state, sheet),
    }
}

fn drawn(change: impl FnOnce()) -> Act {
    change();
    Act::Draw
}

fn show(view: View, state: &mut State) -> Act {
    (state.view, state.one) = (view, None);
    Act::Ask
}

/// While a filter is typed.
fn typed(code: KeyCode, state: &mut State) -> Act {
    let filter = &mut state.place_mut().filter;
    match code {
        KeyCode::Char(c) if filter.chars().count() < FILTER_MAX => filter.push(c),
        KeyCode::Backspace => drop(filter.pop()),
        KeyCode::Enter => state.typing = false,
        KeyCode::Esc => {
            filter.clear();
            state.typing = false;
        }
        _ => {}
    }
    Act::Draw
}

/// While one instance is shown.
fn in_one(code: KeyCode, state: &mut State) -> Act {
    let page = u16::try_from(state.page).unwrap_or(u16::MAX);
    state.line = match code {
        KeyCode::Esc | KeyCode::Backspace | KeyCode::Enter => {
            state.one = None;
            return Act::Ask;
        }
        KeyCode::Down | KeyCode::Char('j') => state.line.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => state.line.saturating_sub(1),
        KeyCode::PageDown => state.line.saturating_add(page),
        KeyCode::PageUp => state.line.saturating_sub(page),
        KeyCode::Home => 0,
        KeyCode::End => u16::MAX,
        _ => state.line,
    };
    Act::Draw
}

/// While a table is shown.
fn in_table(code: KeyCode, state: &mut State, sheet: &Sheet) -> Act {
    let page = isize::try_from(state.page).unwrap_or(1);
    let (view, place) = (state.view, state.place_mut());
    let by = match code {
        KeyCode::Down | KeyCode::Char('j') => 1,
        KeyCode::Up | KeyCode::Char('k') => -1,
        KeyCode::PageDown => page,
        KeyCode::PageUp => -page,
        KeyCode::Home => isize::MIN,
        KeyCode::End => isize::MAX,
        KeyCode::Char('>') | KeyCode::Right => return drawn(|| sort(1, state)),
        KeyCode::Char('<') | KeyCode::Left => return drawn(|| sort(-1, state)),
        KeyCode::Char('r') => {
            return drawn(|| place.order.descending = !place.order.descending);
        }
        KeyCode::Char('/') => return drawn(|| state.typing = true),
        KeyCode::Esc => return drawn(|| place.filter.clear()),
        KeyCode::Enter => {
            let marked = sheet.entries.get(place.at).and_then(|row| row.instance);
            if marked.is_some() {
                (state.one, state.line) = (marked, 0);
            }
            return Act::Ask;
        }
        _ => return Act::Draw,
    };
    place.go(by, sheet);
    // The depth that is shown is of another book now.
    if view == View::Market { Act::Ask } else { Act::Draw }
}

/// Sorts by a column further on, numbers from the greatest down.
fn sort(by: isize, state: &mut State) {
    let columns = state.view.columns();
    let last = columns.len() - 1;
    let place = state.place_mut();
    let column = place.order.column.saturating_add_signed(by).min(last);
    if column != place.order.column {
        place.order = Order { column, descending: columns[column].number };
        // What is shown is the top of the new order.
        (place.marked, place.at) = (None, 0);
    }
}
