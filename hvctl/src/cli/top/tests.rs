//! What a user reads on the screen, and what the keys change about it.

use super::draw;
use super::keys::{Act, press};
use super::known::{Known, Page, Stretch};
use super::state::{Away, INTERVAL, State, View};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::{Color, Modifier};
use std::time::Duration;
use vendue_wire::code::Lag;
use vendue_wire::message::*;

fn stretch<Row>(rows: Vec<Row>) -> Stretch<Row> {
    Stretch { from: 0, next: None, rows }
}

fn instance(number: u32, name: &str, millicredits: u64) -> InstanceRow {
    let mut row = InstanceRow {
        instance: number.into(),
        account: 1.into(),
        name: field(name).unwrap(),
        ..InstanceRow::zeroed()
    };
    row.baseline_vru[0] = 20.into();
    row.entitled_vru[0] = 40.into();
    row.free_millicredits[0] = millicredits.into();
    row
}

fn sensors(number: u32, cpu_millicores: u32, cpu_wait_permille: u32) -> SensorRow {
    SensorRow {
        instance: number.into(),
        time_ns: 1.into(),
        cpu_millicores: cpu_millicores.into(),
        cpu_wait_permille: cpu_wait_permille.into(),
        memory_bytes: (3 << 29).into(),
        io_some_permille: u32::MAX.into(),
        ..SensorRow::zeroed()
    }
}

/// A lease of 3 VRUs that wants 5, at 12 ticks of 10 micro-units.
fn market() -> [Page; 4] {
    let book = BookRow {
        book: 0.into(),
        tick_micro: 10.into(),
        bid_ticks: 40.into(),
        ask_ticks: 42.into(),
        last_ticks: 41.into(),
        tier_name: field("bronze").unwrap(),
        ..BookRow::zeroed()
    };
    let lease = LeaseRow {
        instance: 2.into(),
        wanted_vru: 5.into(),
        granted_vru: 3.into(),
        class: 1,
        ..LeaseRow::zeroed()
    };
    let rents = RentRow { rent_ticks: [9.into(), 12.into(), 1.into()], ..RentRow::zeroed() };
    let mut depth = DepthRow::zeroed();
    (depth.bid_ticks[0], depth.bid_quantity[0]) = (40.into(), 77.into());
    [
        Page::Books(stretch(vec![book])),
        Page::Leases(stretch(vec![lease])),
        Page::Rents(stretch(vec![rents])),
        Page::Depth(depth),
    ]
}

/// Three instances of one account: `web` is busy, `db` waits for a limit, `idle` is not measured.
fn known() -> Known {
    let limit = |state, reason| LimitRow {
        instance: 2.into(),
        state,
        reason,
        file: field("cpu.max").unwrap(),
        wanted: field("40000 100000").unwrap(),
        ..LimitRow::zeroed()
    };
    let status = StatusRow {
        accepting: 1,
        host: 1,
        instances: 5.into(),
        executed: 30.into(),
        ..StatusRow::zeroed()
    };
    let tier = TierRow { vru_size: 10.into(), name: field("bronze").unwrap(), ..TierRow::zeroed() };
    let account =
        AccountRow { account: 1.into(), name: field("acme").unwrap(), ..AccountRow::zeroed() };
    let rows = vec![
        instance(1, "web", 5_000),
        instance(2, "db", 70_000),
        instance(3, "\x1b[2Jidle", 60_000),
    ];
    let mut known = Known::default();
    for page in [
        Page::Status(status, vec![]),
        Page::Tiers(vec![tier]),
        Page::Accounts(stretch(vec![account])),
        Page::Instances(stretch(rows)),
        Page::Sensors(stretch(vec![sensors(1, 900, 450), sensors(2, 100, 5)])),
        Page::Limits(stretch(vec![limit(1, 0), limit(0, Lag::Refills as u8)])),
    ]
    .into_iter()
    .chain(market())
    {
        known.learn(page);
    }
    known
}

struct User {
    known: Known,
    state: State,
    terminal: Terminal<TestBackend>,
}

impl User {
    fn of(width: u16, height: u16, colours: bool) -> User {
        let state = State::new("unix:/s".to_owned(), Duration::from_secs(1), colours);
        let terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        User { known: known(), state, terminal }
    }

    /// The lines of the screen.
    fn sees(&mut self) -> Vec<String> {
        let sheet = self.state.sheet(&self.known);
        let User { known, state, terminal } = self;
        terminal.draw(|frame| draw::screen(frame, known, &sheet, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let width = usize::from(buffer.area.width).max(1);
        let line = |cells: &[ratatui::buffer::Cell]| {
            cells.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()
        };
        buffer.content.chunks(width).map(line).collect()
    }

    fn press(&mut self, code: KeyCode) -> Act {
        let sheet = self.state.sheet(&self.known);
        press(KeyEvent::new(code, KeyModifiers::NONE), &mut self.state, &sheet)
    }

    fn types(&mut self, keys: &str) -> Act {
        keys.chars().map(|c| self.press(KeyCode::Char(c))).last().expect("a key")
    }

    /// The names of the instances from above down.
    fn names(&mut self) -> Vec<String> {
        let lines = self.sees();
        let below = lines.iter().skip_while(|line| !line.starts_with("NAME")).skip(1);
        let rows = below.take_while(|line| !line.is_empty());
        rows.map(|line| line.split_whitespace().next().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn line(&mut self, with: &str) -> String {
        let lines = self.sees();
        let found = lines.iter().find(|line| line.contains(with));
        found.unwrap_or_else(|| panic!("no {with:?} in\n{}", lines.join("\n"))).clone()
    }
}

#[test]
fn headings_have_room_for_the_sign_of_the_order() {
    for column in View::ALL.iter().flat_map(|view| view.columns()) {
        assert!(column.heading.len() < column.width.into(), "{column:?}");
    }
}

#[test]
fn a_wide_screen_shows_each_instance_with_what_it_uses_may_and_waits_for() {
    let mut user = User::of(230, 20, true);
    assert!(user.line("vendued").contains("DRY RUN, up 0 s, every 1s, sequence 30"));
    assert_eq!(user.line("bid/ask"), "bid/ask: bronze/cpu 40/42 last 41");
    assert!(user.line("credits").contains("credits cpu 135.000"));
    // Two are still to be asked for; the daemon has not counted the account yet.
    assert!(user.line("trades").starts_with("3 of 5 instances, 1 accounts, 0 orders"));
    let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let web = words(user.line("web "));
    let expected = "web acme bronze runs 900m 400m 200m 45.0% 1.5G - 0.0% 0 - 0 5.000 - - 0 - -";
    assert_eq!(web.join(" "), expected);
    let db = words(user.line("db "));
    assert_eq!(db[14..].join(" "), "70.000 30m 0.000360 0 1 cpu.max: refills");
    // Nothing of a name reaches the terminal but its letters.
    assert!(user.line("idle").starts_with("?[2Jidle"));
}

#[test]
fn keys_change_the_order_and_keep_the_mark_on_its_row() {
    let mut user = User::of(80, 24, true);
    assert_eq!(user.names(), ["web", "db", "?[2Jidle"], "the busiest first, the unknown last");
    assert!(user.line("NAME").contains("CPU▼"));
    user.types("r");
    assert_eq!(user.names(), ["db", "web", "?[2Jidle"]);
    user.press(KeyCode::Down);
    user.types("r");
    assert_eq!(user.names(), ["web", "db", "?[2Jidle"]);
    assert_eq!(user.state.place().at, 0, "the mark stays on web");
    user.types("<<<<");
    assert_eq!(user.names(), ["?[2Jidle", "db", "web"]);
    assert!(user.line("NAME").contains("NAME▲"));
    user.types(&">".repeat(14));
    assert!(user.line("NAME").contains("CPU CREDITS▼"), "what it is sorted by is shown");
    assert_eq!(user.names(), ["db", "?[2Jidle", "web"]);
}

#[test]
fn a_filter_hides_rows_until_it_is_cleared() {
    let mut user = User::of(80, 24, true);
    user.types("/WE");
    assert_eq!(user.names(), ["web"]);
    assert!(user.line("/WE_").contains("Esc: all rows"));
    user.press(KeyCode::Backspace);
    user.types("q");
    assert_eq!(user.names(), [] as [&str; 0]);
    user.press(KeyCode::Esc);
    assert_eq!(user.names().len(), 3);
    user.types("/db");
    user.press(KeyCode::Enter);
    assert!(user.line("market").contains("1 of 3 rows with \"db\""));
    assert_eq!(user.types("q"), Act::Quit, "q is a letter only in a filter");
    user.press(KeyCode::Esc);
    assert_eq!(user.names().len(), 3);
}

#[test]
fn an_instance_alone_tells_why_a_limit_stands_as_it_does() {
    let mut user = User::of(100, 50, true);
    user.press(KeyCode::Down);
    assert_eq!(user.press(KeyCode::Enter), Act::Ask);
    assert_eq!(user.line(" is instance "), "db is instance 2 of acme, tier bronze; it runs");
    let limit = user.line("pending");
    assert_eq!(limit.split_whitespace().nth(6), Some("refills"), "{limit}");
    let cpu = user.line("cpu  ");
    assert!(cpu.contains("200m") && cpu.contains("70.000"), "{cpu}");
    assert!(user.line("CPU  ").contains("100m  █"));
    assert!(user.line("I/O PSI").contains("·"));
    assert!(user.line("bounded").contains("0.000360"));
    assert_eq!(user.line("objectives"), "objectives: none");
    user.press(KeyCode::Esc);
    assert_eq!(user.names().len(), 3);
    // It is removed while it is looked at.
    user.press(KeyCode::Enter);
    user.known.learn(Page::Instances(stretch(vec![])));
    assert!(user.line("there is no instance 2").contains("any more"));
}

#[test]
fn the_other_views_show_books_with_depth_leases_and_tasks() {
    let mut user = User::of(120, 24, true);
    assert_eq!(user.types("2"), Act::Ask);
    assert!(user.line("bronze/cpu  ").contains("40      42      41 continuous"));
    assert!(user.line("depth of bronze/cpu").len() < 30 && user.line("77").contains("40"));
    user.types("3");
    assert!(user.line("bounded").starts_with("db"));
    user.types("4");
    assert!(user.line("market").contains("0 of 0 rows"));
    assert_eq!((user.types("1"), user.names().len()), (Act::Ask, 3));
    user.types("?");
    assert!(user.line("Space").contains("pause"));
    user.types("x");
    assert_eq!(user.names().len(), 3);
}

#[test]
fn pace_and_pause_are_bounded_and_shown() {
    let mut user = User::of(80, 24, true);
    user.types("--------");
    assert_eq!(user.state.interval, INTERVAL[1]);
    user.types("++++++++++");
    assert_eq!(user.state.interval, INTERVAL[0]);
    assert_eq!(user.types(" "), Act::Draw);
    assert!(user.line("vendued").contains("PAUSED"));
    assert_eq!(user.types(" "), Act::Ask);
    let control = |c| KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL);
    let sheet = user.state.sheet(&user.known);
    let acts = ['c', 'z', 'x'].map(|c| press(control(c), &mut user.state, &sheet));
    assert_eq!(acts, [Act::Quit, Act::Suspend, Act::Draw]);
}

#[test]
fn what_is_wrong_is_said_above_everything_else() {
    let mut user = User::of(80, 6, true);
    let fault = FaultRow {
        source: field("actuate").unwrap(),
        text: field("cpu.max\x07 vanished").unwrap(),
        ..FaultRow::zeroed()
    };
    let again_in = Duration::from_millis(2100);
    user.state.away = Some(Away { why: "nobody listens".to_owned(), tries: 3, again_in });
    assert_eq!(user.sees()[1], "vendued is away, next try in 3 s (3 so far): nobody listens");
    user.state.away = None;
    let status = user.known.status.unwrap();
    user.known.learn(Page::Status(status, vec![fault, fault]));
    assert_eq!(user.sees()[1], "fault: actuate: cpu.max? vanished (and 1 more: hvctl status)");
}

#[test]
fn without_colours_only_the_letters_change() {
    let colours = |wanted| {
        let mut user = User::of(230, 20, wanted);
        user.sees();
        let cells = user.terminal.backend().buffer().content.clone();
        assert!(cells.iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)), "the mark");
        cells.iter().filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset).count()
    };
    assert!(colours(true) > 0);
    assert_eq!(colours(false), 0);
}

#[test]
fn no_size_is_too_small() {
    for (width, height) in (0..=90).step_by(9).flat_map(|w| (0..=26).map(move |h| (w, h))) {
        let mut user = User::of(width, height, true);
        user.press(KeyCode::End);
        for key in ["1", "\n", "2", "3", "4", "?"] {
            match key {
                "\n" => drop(user.press(KeyCode::Enter)),
                key => drop(user.types(key)),
            }
            user.sees();
        }
    }
}
