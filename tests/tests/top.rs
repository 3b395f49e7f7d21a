//! `hvctl top` beside the real daemon, in a real terminal: keys go in, and what a user sees comes out.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use vendue_tests::daemon::{Daemon, Setup, eventually, hvctl};
use vendue_tests::market::*;
use vendue_wire::client::Client;
use vendue_wire::code::Side;
use vendue_wire::message::*;

/// Between two looks at the screen.
const LOOK: Duration = Duration::from_millis(50);
/// What the shell says before it is asked for anything.
const PROMPT: &str = "shell>";

/// A program that ends with this test, whatever becomes of that.
fn bound(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// A process that does nothing, to be an instance.
struct Sleeper(Child);

impl Sleeper {
    fn start() -> Sleeper {
        Sleeper(bound("sleep").arg("1000").spawn().expect("start setpriv"))
    }

    fn place(&self) -> String {
        format!("pid:{}", self.0.id())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell in a terminal of a server of its own.
struct Terminal {
    socket: PathBuf,
    server: Child,
}

impl Terminal {
    fn open(daemon: &Daemon) -> Terminal {
        let socket = daemon.path("tmux");
        // In the foreground, so that it cannot outlive the test.
        let server = bound("tmux").arg("-S").arg(&socket).args(["-f", "/dev/null", "-D"]).spawn();
        let terminal = Terminal { socket, server: server.expect("start setpriv") };
        let shell = format!("env PS1='{PROMPT}' VENDUE_CONNECT={} bash --norc", daemon.unix());
        eventually("a terminal", || {
            std::thread::sleep(LOOK);
            let new = ["new-session", "-d", "-s", "t", "-x", "80", "-y", "24", &shell];
            terminal.tmux(&new).status.success().then_some(())
        });
        terminal.sees("a shell", |screen| screen.contains(PROMPT));
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("tmux");
        // Before the server is there it would start another, which nobody ends.
        command.args(["-N", "-S"]).arg(&self.socket).args(arguments).output().expect("run tmux")
    }

    /// What tmux knows of the terminal.
    fn told(&self, format: &str) -> String {
        let output = self.tmux(&["display-message", "-p", "-t", "t", format]);
        String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
    }

    fn keys(&self, keys: &[&str]) {
        let output = self.tmux(&[&["send-keys", "-t", "t"], keys].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn screen(&self) -> String {
        let output = self.tmux(&["capture-pane", "-p", "-t", "t"]);
        String::from_utf8(output.stdout).expect("text")
    }

    /// Waits until the screen is as `wanted`, and returns it.
    #[track_caller]
    fn sees(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        let mut screen = String::new();
        let deadline = std::time::Instant::now() + vendue_tests::daemon::PATIENCE;
        while std::time::Instant::now() < deadline {
            screen = self.screen();
            if wanted(&screen) {
                return screen;
            }
            std::thread::sleep(LOOK);
        }
        panic!("{what} was not seen; the screen is\n{screen}");
    }

    /// Waits until the rows of the table are these, by their first words.
    #[track_caller]
    fn rows(&self, names: &[&str]) {
        self.sees(&format!("{names:?}"), |screen| {
            let lines = screen.lines().skip_while(|line| !line.starts_with("NAME")).skip(1);
            let rows = lines.take_while(|line| !line.is_empty());
            rows.map(|line| line.split_whitespace().next().unwrap_or("")).eq(names.iter().copied())
        });
    }

    /// Starts `hvctl top`, and waits until it shows the daemon.
    fn top(&self) {
        let line =
            format!("clear; echo earlier; {} top --interval 0.25; echo code $?", hvctl().display());
        self.keys(&[&line, "Enter"]);
        self.sees("the daemon", |screen| screen.starts_with("vendued: DRY RUN"));
    }

    /// Waits until the program has ended so, and checks that the terminal is the shell's again.
    #[track_caller]
    fn restored(&self, code: u8) {
        let end = format!("code {code}");
        let again = format!("{end}\n{PROMPT}");
        let screen = self.sees("the end", |screen| screen.trim_end().ends_with(&again));
        let shown = screen.lines().map(str::trim_end).filter(|line| !line.is_empty());
        assert!(shown.eq(["earlier", &end, PROMPT]), "what was there before:\n{screen}");
        assert_eq!(self.told("#{alternate_on} #{cursor_flag}"), "0 1");
        self.keys(&[
            "stty -a | tr ' ' '\\n' | grep -e '^-*icanon' -e '^-*echo;*$' | xargs",
            "Enter",
        ]);
        self.sees("a cooked terminal", |screen| screen.contains("\nicanon echo\n"));
    }

    /// The process of `hvctl top`, which the shell has started.
    fn program(&self) -> String {
        let shell = self.told("#{pane_pid}");
        let children = fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        children.expect("the shell lives").trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Three instances: one with credits, one with orders and a lease, one that reserves as much.
fn open(daemon: &Daemon, sleepers: &[Sleeper; 3]) -> (Client, Party, Party) {
    let mut operator = daemon.client(&vendue_wire::client::Identity::operator());
    let [seller, buyer, _] = ["seller", "buyer", "other"].map(|name| {
        let at = ["seller", "buyer", "other"].iter().position(|known| *known == name);
        create_party(&mut operator, name, &sleepers[at.expect("one of them")].place())
    });
    deposit(&mut operator, buyer.account, FUNDS_MICRO);
    grant(&mut operator, seller.instance, CREDITS);
    enter(&mut operator, seller, Side::Sell, 12, 50);
    enter(&mut operator, buyer, Side::Buy, 12, 20);
    enter(&mut operator, buyer, Side::Buy, 9, 33);
    (operator, seller, buyer)
}

/// What the daemon says of an instance's limits.
fn limits(operator: &mut Client, instance: u32) -> Vec<LimitRow> {
    let rows = operator.ask::<LimitRow, _>(&QueryLimits { from: instance.into() });
    let of_it = |row: &LimitRow| row.instance.get() == instance && row.of_account == 0;
    rows.expect("limits").into_iter().filter(of_it).collect()
}

#[test]
fn an_operator_sorts_filters_and_looks_into_an_instance() {
    let daemon = Daemon::start(&Setup::small());
    let sleepers = [(); 3].map(|()| Sleeper::start());
    let (mut operator, seller, buyer) = open(&daemon, &sleepers);
    let terminal = Terminal::open(&daemon);
    terminal.top();

    let screen = terminal.sees("prices", |screen| screen.contains("bronze/cpu 9/12 last 12"));
    assert!(screen.contains("3 instances, 3 accounts, 2 orders, 1 trades"), "{screen}");
    terminal.keys(&["<", "<", "<", "<"]);
    terminal.rows(&["buyer", "other", "seller"]);
    terminal.keys(&["r"]);
    terminal.rows(&["seller", "other", "buyer"]);
    terminal.keys(&["/", "BUY"]);
    terminal.rows(&["buyer"]);
    terminal.keys(&["Enter"]);
    terminal.sees("a count", |screen| screen.contains("1 of 3 rows with \"BUY\""));
    terminal.keys(&["Escape"]);
    terminal.rows(&["seller", "other", "buyer"]);

    // What the daemon says of its limits is what is shown, and its order.
    terminal.keys(&["End", "Enter"]);
    let title = format!("buyer is instance {} of buyer, tier bronze", buyer.instance);
    terminal.sees("one instance", |screen| screen.contains(&title));
    terminal.sees("its limits and orders", |screen| {
        // There is more to see than at first, once the daemon has said it.
        terminal.keys(&["End"]);
        let says = |words: &[&str]| {
            screen.lines().any(|line| words.iter().all(|word| line.contains(word)))
        };
        let limits = limits(&mut operator, buyer.instance);
        let shown =
            |row: &LimitRow| says(&[text(&row.file), text(&row.wanted).trim_end(), "dry run"]);
        !limits.is_empty() && limits.iter().all(shown) && says(&["bronze/cpu", "buy", "9", "33"])
    });

    // A trade is seen without being asked for.
    terminal.keys(&["2"]);
    terminal.sees("depth", |screen| screen.contains("depth of "));
    terminal.keys(&["/", "bronze/cpu", "Enter"]);
    terminal.sees("a bid and an ask", |screen| {
        screen.contains("depth of bronze/cpu")
            && screen.lines().any(|line| line.split_whitespace().eq(["33", "9", "12", "30"]))
    });
    enter(&mut operator, buyer, Side::Buy, 12, 5);
    terminal.sees("a trade", |screen| {
        screen.lines().any(|line| line.split_whitespace().eq(["33", "9", "12", "25"]))
    });
    enter(&mut operator, seller, Side::Sell, 12, 1);

    terminal.keys(&["q"]);
    terminal.restored(0);
}

#[test]
fn a_daemon_that_goes_and_comes_back_is_told_of_and_found_again() {
    let mut daemon = Daemon::start(&Setup::small());
    let sleepers = [(); 3].map(|()| Sleeper::start());
    open(&daemon, &sleepers);
    let terminal = Terminal::open(&daemon);
    terminal.top();
    terminal.rows(&["seller", "buyer", "other"]);
    daemon.kill_9();
    terminal.sees("that it is away", |screen| screen.contains("vendued is away, next try in"));
    terminal.rows(&["seller", "buyer", "other"]);
    daemon.launch();
    terminal.sees("it again", |screen| !screen.contains("vendued is away"));
    terminal.rows(&["seller", "buyer", "other"]);

    // Sizes at which hardly anything fits.
    for (width, height) in [("30", "5"), ("1", "1"), ("80", "24")] {
        terminal.tmux(&["resize-window", "-t", "t", "-x", width, "-y", height]);
        std::thread::sleep(LOOK);
    }
    terminal.rows(&["seller", "buyer", "other"]);

    // The shell in between.
    terminal.keys(&["C-z"]);
    terminal.sees("the shell", |screen| screen.contains("Stopped"));
    assert_eq!(terminal.told("#{alternate_on}"), "0");
    terminal.keys(&["fg", "Enter"]);
    terminal.rows(&["seller", "buyer", "other"]);
    terminal.keys(&["q"]);
    terminal.sees("the end", |screen| screen.contains("code "));

    // A signal ends it as cleanly.
    terminal.top();
    let program = terminal.program();
    assert!(Command::new("kill").arg(&program).status().expect("run kill").success());
    terminal.restored(128 + 15);
}

#[test]
fn what_is_no_terminal_is_refused_with_what_serves_instead() {
    let daemon = Daemon::start(&Setup::small());
    let connect = daemon.unix().to_string();
    for arguments in [&["top"][..], &["--json", "top"]] {
        let all = [&["--connect", connect.as_str()], arguments].concat();
        let output = Command::new(hvctl()).args(all).output().expect("run hvctl");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("hvctl --json instance list"), "{said}");
        assert!(output.stdout.is_empty());
    }
}
