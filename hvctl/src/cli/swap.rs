//! `hvctl swap`: VRUs of a token lent to another for a time, and what accounts think of that.

use super::amount::{funds, parse_funds};
use super::door::{Reach, Trouble};
use super::json;
use super::lease::Acting;
use super::names::{Directory, accounts, find_account};
use super::output::Output;
use super::table::{left, right};
use super::time::rfc3339;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};
use vendue_wire::code::{SwapAnswer, SwapReason, SwapState};
use vendue_wire::message::*;

/// What to do with swaps of tokens.
#[derive(Debug, clap::Subcommand)]
pub enum SwapCommand {
    /// Ask for VRUs of a token for another of the same tier and resource
    #[command(after_help = "\
Both tokens have to be issued with --swap-eligible, and their windows to last until the deadline, the swap and its \
boost are over. The incentive is held at once; the source's account earns it evenly while the swap lasts. `hvctl \
token list` shows your tokens; ask `any` for a source that the daemon picks.")]
    Request(RequestArgs),
    /// Approve a swap of your token: it begins at once
    Approve {
        /// The swap
        id: u64,
        #[command(flatten)]
        acting: Acting,
    },
    /// Reject a swap of your token, or take back one that you asked for
    Reject {
        /// The swap
        id: u64,
        /// Why, in up to 32 bytes
        #[arg(long, default_value = "", value_parser = parse_words)]
        because: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// Show swaps: those that wait, those under way, and the newest that are over
    List,
    /// Show a swap
    Show {
        /// The swap
        id: u64,
    },
    /// Say what an account thinks of swaps of its tokens; --list shows what accounts said
    #[command(after_help = "\
What is not said is as usual: people decide, and the daemon does not ask. A limit is moved under a \
running instance; that takes up to 100 ms of processors and block I/O, 1000 ms of memory, 0 ms of networks: who \
accepts less is not swapped with. A workload that reports its token's profile KPI worse than its limit by more than \
--degradation percent three times in a row has its VRUs back.")]
    Policy(PolicyArgs),
}

/// A request.
#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    /// Token whose VRUs are lent, by id; or any
    #[arg(value_parser = parse_source)]
    source: Source,
    /// Token that has them meanwhile, by id
    destination: u64,
    /// VRUs
    vru: u32,
    /// For so many seconds from its approval
    #[arg(long, value_name = "SECONDS")]
    lasts: u32,
    /// It expires unless it is approved within so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    within: u32,
    /// Funds for the source's account
    #[arg(long, default_value = "0", value_parser = parse_funds)]
    incentive: u64,
    /// VRUs that go the other way afterwards
    #[arg(long, value_name = "VRUS", default_value_t = 0, requires = "boost_lasts")]
    boost: u32,
    /// For so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 0, requires = "boost")]
    boost_lasts: u32,
    /// Generation of the source that you saw; needed where you may not see it [default: as it is]
    #[arg(long)]
    source_generation: Option<u32>,
    #[command(flatten)]
    acting: Acting,
}

/// A policy.
#[derive(Debug, clap::Args)]
pub struct PolicyArgs {
    /// Account, by name or number; a tenant's own by number
    #[arg(required_unless_present = "list", value_name = "ACCOUNT")]
    of: Option<String>,
    /// Show what accounts said
    #[arg(long, conflicts_with = "of")]
    list: bool,
    /// ask: people decide; accept: yes, for --least; refuse: no
    #[arg(long, default_value = "ask", value_parser = parse_answer)]
    answer: SwapAnswer,
    /// Funds a VRU-hour that it lends for at least
    #[arg(long, default_value = "0", value_parser = parse_funds)]
    least: u64,
    /// The daemon asks for swaps on its behalf when a forecast says that it will lack VRUs
    #[arg(long)]
    seek: bool,
    /// Funds a VRU-hour that the daemon may offer
    #[arg(long, default_value = "0", value_parser = parse_funds)]
    pay: u64,
    /// Its workloads may stand still for so long while a limit is moved [default: as long as it takes]
    #[arg(long, value_name = "MS")]
    downtime: Option<u32>,
    /// The KPI of its token's profile may be worse than its limit by so much while it lends
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    degradation: u16,
    #[command(flatten)]
    acting: Acting,
}

/// A token, or any.
#[derive(Clone, Copy, Debug)]
enum Source {
    Token(u64),
    Any,
}

fn parse_source(text: &str) -> Result<Source, String> {
    match text {
        "any" => Ok(Source::Any),
        id => match id.parse() {
            Ok(id) if id > 0 => Ok(Source::Token(id)),
            _ => Err("give a token's id, or any".to_owned()),
        },
    }
}

fn parse_answer(text: &str) -> Result<SwapAnswer, String> {
    let found = SwapAnswer::ALL.iter().find(|answer| answer.text() == text);
    found.copied().ok_or_else(|| "give ask, accept or refuse".to_owned())
}

fn parse_words(text: &str) -> Result<String, String> {
    match field::<NAME_BYTES>(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err(format!("at most {NAME_BYTES} bytes")),
    }
}

/// Micro-units a VRU-second of those a VRU-hour, rounded up.
fn a_second(micro: u64) -> u64 {
    micro.div_ceil(3600)
}

/// Runs the command.
pub fn run(command: &SwapCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        SwapCommand::Request(args) => request(args, reach, out),
        SwapCommand::Approve { id, acting } => {
            let mut door = acting.door(reach)?;
            let client_id = door.next_client_id().into();
            let message = SwapApprove { client_id, id: (*id).into() };
            let generation = door.call(&message)?.value.get();
            let object = json!({ "id": id, "generation": generation });
            Ok(out.say(&object, &format!("swap {id} is under way"))?)
        }
        SwapCommand::Reject { id, because, acting } => {
            let mut door = acting.door(reach)?;
            let (client_id, words) = (door.next_client_id().into(), field_cut(because));
            let micro = door.call(&SwapReject { client_id, id: (*id).into(), words })?.value.get();
            let object = json!({ "id": id, "freed_micro": micro });
            let text = format!("swap {id} will not be; {} are free again", funds(micro));
            Ok(out.say(&object, &text)?)
        }
        SwapCommand::List => list(reach, out),
        SwapCommand::Show { id } => show(*id, reach, out),
        SwapCommand::Policy(args) if args.list => policies(reach, out),
        SwapCommand::Policy(args) => policy(args, reach, out),
    }
}

fn request(args: &RequestArgs, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = args.acting.door(reach)?;
    let mut seen = |id: u64| {
        let rows = door.rows::<TokenRow>(&QueryTokens { from: id.into() })?;
        let row = rows.into_iter().find(|row| row.id.get() == id);
        Ok::<_, Trouble>(row.map(|row| row.generation.get()))
    };
    let unseen = |id: u64| Trouble::Refused(format!("no token {id} that you may see"));
    let (source, source_generation) = match (args.source, args.source_generation) {
        (Source::Any, _) => (0, 0),
        (Source::Token(id), Some(generation)) => (id, generation),
        (Source::Token(id), None) => {
            let hint = "; if it is another's, give --source-generation";
            let generation = seen(id)?;
            let why = || Trouble::Refused(format!("no token {id} that you may see{hint}"));
            (id, generation.ok_or_else(why)?)
        }
    };
    let destination = args.destination;
    let destination_generation = seen(destination)?.ok_or_else(|| unseen(destination))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let message = SwapRequest {
        client_id: door.next_client_id().into(),
        source: source.into(),
        destination: destination.into(),
        deadline_ms: (now + u64::from(args.within) * 1000).into(),
        incentive_micro: args.incentive.into(),
        source_generation: source_generation.into(),
        destination_generation: destination_generation.into(),
        vru: args.vru.into(),
        lasts_ms: args.lasts.saturating_mul(1000).into(),
        boost_vru: args.boost.into(),
        boost_ms: args.boost_lasts.saturating_mul(1000).into(),
    };
    let id = door.call(&message)?.value.get();
    let row = find(id, &mut door)?;
    let text = format!(
        "swap {id}: {} VRUs of token {} for token {destination}, {}",
        args.vru,
        row.source.get(),
        standing(&row)
    );
    Ok(out.say(&json::swap(&row), &text)?)
}

fn find(id: u64, door: &mut super::door::Door) -> Result<SwapRow, Trouble> {
    let rows = door.rows::<SwapRow>(&SwapList { from: id.into() })?;
    let row = rows.into_iter().find(|row| row.id.get() == id);
    row.ok_or_else(|| Trouble::Refused(format!("no swap {id} that you may see")))
}

fn show(id: u64, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let row = find(id, &mut door)?;
    let time = |ms: u64| if ms == 0 { "-".to_owned() } else { rfc3339(ms * 1_000_000) };
    let mut lines = vec![
        format!("swap        {id}: {}", standing(&row)),
        format!("lends       {} VRUs of token {}", row.vru.get(), row.source.get()),
        format!("to          token {}", row.destination.get()),
        format!("asked       {}", time(row.asked_ms.get())),
        format!("deadline    {}", time(row.deadline_ms.get())),
        format!("lasts       {} s, until {}", row.lasts_ms.get() / 1000, time(row.ends_ms.get())),
        format!(
            "incentive   {}, {} of it earned",
            funds(row.incentive_micro.get()),
            funds(row.paid_micro.get())
        ),
    ];
    if row.boost_vru.get() > 0 {
        let seconds = row.boost_ms.get() / 1000;
        lines.push(format!("boost       {} VRUs for {seconds} s", row.boost_vru.get()));
    }
    Ok(out.say(&json::swap(&row), &lines.join("\n"))?)
}

/// How a swap stands, and why.
fn standing(row: &SwapRow) -> String {
    let state = SwapState::text_of(row.state);
    let reason = SwapReason::text_of(row.reason);
    match text(&row.words) {
        "" => format!("{state} ({reason})"),
        words => format!("{state} ({reason}: {words})"),
    }
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        right("ID"),
        left("STATE"),
        left("WHY"),
        right("VRUS"),
        right("SOURCE"),
        left("OF"),
        right("DESTINATION"),
        left("OF"),
        right("INCENTIVE"),
        right("EARNED"),
        left("UNTIL"),
    ]);
    for row in door.pages_by_id::<SwapRow, _>(|from| SwapList { from: from.into() })? {
        let waits = row.state == SwapState::Proposed as u8;
        let until_ms = if waits { row.deadline_ms.get() } else { row.ends_ms.get() };
        let reason = SwapReason::text_of(row.reason);
        let words = text(&row.words);
        list.object(&json::swap(&row))?;
        list.cells(vec![
            row.id.get().to_string(),
            SwapState::text_of(row.state).to_owned(),
            if words.is_empty() { reason.to_owned() } else { format!("{reason}: {words}") },
            row.vru.get().to_string(),
            row.source.get().to_string(),
            names.account(row.source_account.get()),
            row.destination.get().to_string(),
            names.account(row.destination_account.get()),
            funds(row.incentive_micro.get()),
            funds(row.paid_micro.get()),
            rfc3339(until_ms.saturating_mul(1_000_000)),
        ]);
    }
    Ok(list.show()?)
}

fn policy(args: &PolicyArgs, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = args.acting.door(reach)?;
    let of = args.of.as_deref().unwrap_or_default();
    // A tenant is not shown whom else there is.
    let account = match of.parse() {
        Ok(number) => number,
        Err(_) => find_account(of, &accounts(&mut door)?)?,
    };
    let message = SetSwapPolicy {
        client_id: door.next_client_id().into(),
        least_micro: a_second(args.least).into(),
        pay_micro: a_second(args.pay).into(),
        account: account.into(),
        downtime_ms: args.downtime.unwrap_or(u32::MAX).into(),
        degradation_percent: args.degradation.into(),
        answer: args.answer as u8,
        seek: args.seek.into(),
        reserved: U32::ZERO,
    };
    door.call(&message)?;
    let object = json!({ "account": account, "answer": args.answer.text(), "seek": args.seek });
    let seeks = if args.seek { ", and the daemon asks for it" } else { "" };
    Ok(out.say(&object, &format!("account {of} answers swaps with {}{seeks}", args.answer))?)
}

fn policies(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        left("ACCOUNT"),
        left("ANSWER"),
        right("LEAST"),
        left("SEEKS"),
        right("PAYS"),
        right("DOWNTIME"),
        right("DEGRADATION"),
    ]);
    for row in door.pages::<SwapPolicyRow, _>(|from| QuerySwapPolicies { from: from.into() })? {
        let downtime = Some(row.downtime_ms.get()).filter(|&ms| ms != u32::MAX);
        let hour = |micro: U64| micro.get().saturating_mul(3600);
        list.object(&json::swap_policy(&row))?;
        list.cells(vec![
            names.account(row.account.get()),
            SwapAnswer::text_of(row.answer).to_owned(),
            funds(hour(row.least_micro)),
            if row.seek == 1 { "yes" } else { "no" }.to_owned(),
            funds(hour(row.pay_micro)),
            downtime.map_or_else(|| "any".to_owned(), |ms| format!("{ms} ms")),
            format!("{}%", row.degradation_percent.get()),
        ]);
    }
    Ok(list.show()?)
}
