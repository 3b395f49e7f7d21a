//! The demo's live view: once a second prices, trades, limits and latency; at the end a summary.

use super::agent::{BOOK, Seen};
use super::stage::Stage;
use super::{Failure, Shared};
use std::io::{self, IsTerminal, Write};
use std::sync::PoisonError;
use std::time::Instant;
use vendue_wire::board::BoardReader;
use vendue_wire::client::{Client, Identity};
use vendue_wire::code::Side;
use vendue_wire::message::{
    LedgerRow, LimitRow, QueryLedger, QueryLimits, QueryStatus, StatusRow, text,
};

/// The view.
pub struct View {
    board: BoardReader,
    terminal: bool,
    started: Instant,
    /// Trades when the view was last shown.
    trades: u64,
    /// Lines drawn last, to draw over.
    lines: usize,
}

impl View {
    /// Attaches to the board and says what is shown.
    ///
    /// # Errors
    /// The board cannot be attached.
    pub fn open(stage: &Stage) -> Result<View, Failure> {
        let board = Client::connect(&stage.endpoint, &Identity::observer())?.attach_board()?;
        println!(
            "vendued runs at {}; {} tenants, each a real process",
            stage.endpoint,
            stage.tenants.len()
        );
        match &stage.dry_run {
            None => println!("host: cgroup v2 - limits below are in the kernel's files"),
            Some(why) => {
                println!("host: DRY RUN - limits below are decided and metered, not enforced");
                println!("      ({why})");
            }
        }
        let terminal = io::stdout().is_terminal();
        Ok(View { board, terminal, started: Instant::now(), trades: 0, lines: 0 })
    }

    /// Shows the state of things.
    ///
    /// # Errors
    /// The daemon does not answer, or nobody reads.
    pub fn show(
        &mut self,
        stage: &mut Stage,
        shared: &Shared,
        end: Instant,
    ) -> Result<(), Failure> {
        let mut out = String::new();
        let left = end.saturating_duration_since(Instant::now()).as_secs();
        let book = self.board.read(usize::from(BOOK)).unwrap_or_default();
        let ([p50, p99, p999], answered) = shared.percentiles();
        let fresh = book.trades - self.trades;
        self.trades = book.trades;
        let best = |level: vendue_wire::board::Level| match level.price_ticks {
            0 => "-".to_owned(),
            price => format!("{price}x{}", level.quantity),
        };
        out += &format!(
            "{:>4} s  cpu book: bid {} ask {} last {}   {} trades (+{fresh}), {} credits\n",
            self.started.elapsed().as_secs(),
            best(book.bids[0]),
            best(book.asks[0]),
            book.last_ticks,
            book.trades,
            book.volume,
        );
        out += &format!(
            "        order to answer: p50 {} us, p99 {} us, p99.9 {} us over {answered} orders; {left} s left\n",
            p50 / 1000,
            p99 / 1000,
            p999 / 1000,
        );
        out += "        tenant   used   may use  cpu.max           credits  market\n";
        let limits: Vec<LimitRow> = stage.operator.ask(&QueryLimits { from: 0.into() })?;
        let seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (tenant, seen) in stage.tenants.iter().zip(&seen) {
            let limit = limits
                .iter()
                .find(|row| row.instance.get() == tenant.instance && text(&row.file) == "cpu.max");
            out += &tenant_line(tenant.name, seen, limit);
        }
        self.draw(&out)
    }

    fn draw(&mut self, text: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        if self.terminal && self.lines > 0 {
            write!(out, "\x1b[{}A\x1b[J", self.lines)?;
        }
        self.lines = text.lines().count();
        out.write_all(text.as_bytes())?;
        out.flush()?;
        Ok(())
    }

    /// The summary: what happened, and whether the books balance.
    ///
    /// # Errors
    /// The daemon does not answer, its ledger does not balance, or nothing was traded.
    pub fn summary(&mut self, stage: &mut Stage, shared: &Shared) -> Result<(), Failure> {
        let status: Vec<StatusRow> = stage.operator.ask(&QueryStatus {})?;
        let status = status.first().ok_or("the daemon has no status")?;
        let ledger: Vec<LedgerRow> = stage.operator.ask(&QueryLedger {})?;
        let sums = ledger.iter().map(|row| row.balance.get() as i64 as i128).sum::<i128>();
        let book = self.board.read(usize::from(BOOK)).unwrap_or_default();
        let ([p50, p99, p999], answered) = shared.percentiles();
        println!();
        println!("summary");
        println!("  trades          {}", status.trades.get());
        println!("  credits traded  {}, last price {} ticks", book.volume, book.last_ticks);
        println!(
            "  limits written  {}{}",
            status.limits_written.get(),
            if status.host == 1 { " (dry run: into memory only)" } else { " (cgroup v2)" }
        );
        println!(
            "  order to answer p50 {} us, p99 {} us, p99.9 {} us over {answered} orders, each on stable storage",
            p50 / 1000,
            p99 / 1000,
            p999 / 1000
        );
        println!("  journal         {} records, all durable", status.durable.get());
        println!("  ledger          {}", if sums == 0 { "balances" } else { "DOES NOT BALANCE" });
        if sums != 0 {
            return Err("the ledger does not balance".into());
        }
        if status.trades.get() == 0 {
            return Err("nothing was traded".into());
        }
        Ok(())
    }
}

fn tenant_line(name: &str, seen: &Seen, limit: Option<&LimitRow>) -> String {
    let market = match seen.side {
        Some(Side::Buy) => "bids",
        Some(Side::Sell) => "offers",
        None => "holds",
    };
    let written = limit.map_or("-", |row| text(&row.written));
    format!(
        "        {name:<8} {:>3} %   {:>4} %   {written:<16} {:>8}  {market}\n",
        seen.used_percent, seen.entitled_vru, seen.credits
    )
}
