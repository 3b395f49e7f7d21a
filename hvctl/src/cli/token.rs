//! `hvctl token`: reservations of VRUs over a window of time, and the keys that seal them.

use super::door::{Door, Reach, Trouble};
use super::json;
use super::lease::Acting;
use super::names::{
    Directory, accounts, find_account, find_instance, find_tier, instances, parse_resource, tiers,
};
use super::objective::parse_kpi;
use super::output::Output;
use super::table::{left, right};
use super::time::{parse_ms, rfc3339};
use serde_json::json;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};
use vendue_wire::code::{Kpi, Resource};
use vendue_wire::message::*;

/// Of [`Token::profile`]: none.
const NO_PROFILE: u8 = u8::MAX;

/// What to do with tokens.
#[derive(Debug, clap::Subcommand)]
pub enum TokenCommand {
    /// Reserve VRUs of a tier for an account over a window of time
    #[command(after_help = "\
Refused where baselines and the tokens of that window leave no room. Until an instance redeems it, a token's \
VRUs are for rent like others; then leases lose them at once. `hvctl token show ID` prints the sealed token.")]
    Issue(Box<IssueArgs>),
    /// Show tokens
    List,
    /// Show a token, and the sealed token itself, to be handed on
    Show {
        /// Its id
        id: u64,
        #[command(flatten)]
        acting: Acting,
    },
    /// Give an instance a token's VRUs until its window ends
    Redeem {
        /// The sealed token, or the id of one that you may see
        token: String,
        /// Instance, by name or number
        instance: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// Take a part of a token off as a new one
    Split {
        /// The sealed token, or the id of one that you may see
        token: String,
        /// So many VRUs
        #[arg(long, conflicts_with = "at", required_unless_present = "at")]
        vru: Option<u32>,
        /// The window from this time on, in UTC: 2026-01-31T12:00:00Z
        #[arg(long, value_name = "TIME", value_parser = parse_ms)]
        at: Option<u64>,
        #[command(flatten)]
        acting: Acting,
    },
    /// Make one token of two of the same window, or of the same VRUs in windows that meet
    Merge {
        /// The one that stays: sealed, or its id
        token: String,
        /// The one that goes: sealed, or its id
        other: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// Give a token to another account
    Transfer {
        /// The sealed token, or the id of one that you may see
        token: String,
        /// Account, by number; by name for who may see it
        to: String,
        #[command(flatten)]
        acting: Acting,
    },
    /// End a token, redeemed or not
    Revoke {
        /// Its id
        id: u64,
    },
    /// Make a new key in the daemon's gateway.token_keys; it seals once the daemon got SIGHUP
    #[command(after_help = "\
The newest key seals, every key that is there is good for checking. Delete the file of an old key and send SIGHUP \
again to end what is sealed with it; holders then ask for their tokens anew.")]
    Rotate {
        /// Directory of keys; made if it is not there
        dir: PathBuf,
    },
}

/// A token.
#[derive(Debug, clap::Args)]
pub struct IssueArgs {
    /// Account that it is for, by name or number
    account: String,
    /// Tier, by name or number
    tier: String,
    /// Resource
    #[arg(value_parser = parse_resource)]
    resource: Resource,
    /// VRUs
    vru: u32,
    /// Its window begins at this time, in UTC: 2026-01-31T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_ms)]
    from: Option<u64>,
    /// The window ends at this time, in UTC
    #[arg(long, value_name = "TIME", value_parser = parse_ms, conflicts_with = "lasts", required_unless_present = "lasts")]
    until: Option<u64>,
    /// The window lasts so many seconds
    #[arg(long, value_name = "SECONDS")]
    lasts: Option<u64>,
    /// Only this instance may redeem it, by name or number
    #[arg(long)]
    instance: Option<String>,
    /// Greater goes first
    #[arg(long, default_value_t = 0)]
    priority: u8,
    /// It may be swapped for another
    #[arg(long)]
    swap_eligible: bool,
    /// What runs on it is not to be moved while it runs
    #[arg(long)]
    sticky: bool,
    /// KPI that its workload is to reach, and the value: latency=20000
    #[arg(long, value_name = "KPI=VALUE", value_parser = parse_profile)]
    profile: Option<(Kpi, u64)>,
}

fn parse_profile(text: &str) -> Result<(Kpi, u64), String> {
    let parsed = text
        .split_once('=')
        .and_then(|(name, value)| Some((parse_kpi(name).ok()?, value.parse().ok()?)));
    parsed.ok_or_else(|| "give a KPI of an objective and its value: latency=20000".to_owned())
}

/// Runs the command.
pub fn run(command: &TokenCommand, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    match command {
        TokenCommand::Issue(args) => issue(args, reach, out),
        TokenCommand::List => list(reach, out),
        TokenCommand::Show { id, acting } => show(*id, &mut acting.door(reach)?, out),
        TokenCommand::Redeem { token, instance, acting } => {
            let mut door = acting.door(reach)?;
            let token = presented(token, &mut door)?;
            let number = find_instance(instance, &instances(&mut door)?)?;
            let client_id = door.next_client_id().into();
            let (instance_number, reserved) = (number.into(), U32::ZERO);
            let message = RedeemToken { client_id, instance: instance_number, reserved, token };
            let generation = door.call(&message)?.value.get();
            let object =
                json!({ "id": id_of(&token), "instance": number, "generation": generation });
            let text = format!("instance {instance} has the VRUs of token {}", id_of(&token));
            Ok(out.say(&object, &text)?)
        }
        TokenCommand::Split { token, vru, at, acting } => {
            split(token, (*vru, *at), &mut acting.door(reach)?, out)
        }
        TokenCommand::Merge { token, other, acting } => {
            let mut door = acting.door(reach)?;
            let (token, other) = (presented(token, &mut door)?, presented(other, &mut door)?);
            let client_id = door.next_client_id().into();
            let generation = door.call(&MergeTokens { client_id, token, other })?.value.get();
            let (id, gone) = (id_of(&token), id_of(&other));
            let object = json!({ "id": id, "merged": gone, "generation": generation });
            Ok(out.say(&object, &format!("token {gone} is part of token {id}"))?)
        }
        TokenCommand::Transfer { token, to, acting } => {
            let mut door = acting.door(reach)?;
            let token = presented(token, &mut door)?;
            // A tenant is not shown whom else there is.
            let account = match to.parse() {
                Ok(number) => number,
                Err(_) => find_account(to, &accounts(&mut door)?)?,
            };
            let client_id = door.next_client_id().into();
            let (number, reserved) = (account.into(), U32::ZERO);
            let message = TransferToken { client_id, account: number, reserved, token };
            let generation = door.call(&message)?.value.get();
            let id = id_of(&token);
            let object = json!({ "id": id, "account": account, "generation": generation });
            Ok(out.say(&object, &format!("token {id} is account {to}'s"))?)
        }
        TokenCommand::Revoke { id } => {
            let mut door = reach.acting(super::door::Who::OPERATOR)?;
            let client_id = door.next_client_id().into();
            let vru = door.call(&RevokeToken { client_id, id: (*id).into() })?.value.get();
            Ok(out.say(&json!({ "id": id, "vru": vru }), &format!("token {id} is over"))?)
        }
        TokenCommand::Rotate { dir } => rotate(dir, out),
    }
}

fn issue(args: &IssueArgs, reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.acting(super::door::Who::OPERATOR)?;
    let account = find_account(&args.account, &accounts(&mut door)?)?;
    let tier = find_tier(&args.tier, &tiers(&mut door)?)?;
    let instance = match &args.instance {
        Some(name) => find_instance(name, &instances(&mut door)?)?,
        None => ANY,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let lasts_ms = args.lasts.unwrap_or(0).saturating_mul(1000);
    let until = args.until.unwrap_or_else(|| args.from.unwrap_or(now).saturating_add(lasts_ms));
    let (profile, profile_limit) =
        args.profile.map_or((NO_PROFILE, 0), |(kpi, value)| (kpi as u8, value));
    let message = IssueToken {
        client_id: door.next_client_id().into(),
        from_ms: args.from.unwrap_or(0).into(),
        until_ms: until.into(),
        profile_limit: profile_limit.into(),
        account: account.into(),
        instance: instance.into(),
        vru: args.vru.into(),
        tier: tier.into(),
        resource: args.resource as u8,
        priority: args.priority,
        profile,
        swap_eligible: args.swap_eligible.into(),
        sticky: args.sticky.into(),
        reserved: 0,
    };
    let id = door.call(&message)?.value.get();
    let (vru, resource, until) = (args.vru, args.resource, rfc3339(until * 1_000_000));
    let text = format!("token {id}: {vru} VRUs of {resource} for {} until {until}", args.account);
    Ok(out.say(&json!({ "id": id, "account": account, "vru": vru }), &text)?)
}

fn split(
    token: &str,
    (vru, at): (Option<u32>, Option<u64>),
    door: &mut Door,
    out: &mut Output,
) -> Result<(), Trouble> {
    let token = presented(token, door)?;
    let message = SplitToken {
        client_id: door.next_client_id().into(),
        at_ms: at.unwrap_or(0).into(),
        vru: vru.unwrap_or(0).into(),
        reserved: U32::ZERO,
        token,
    };
    let (id, part) = (id_of(&token), door.call(&message)?.value.get());
    let object = json!({ "id": id, "part": part });
    Ok(out.say(&object, &format!("token {part} was part of token {id}"))?)
}

/// The token itself, or the one with this id as the daemon seals it.
fn presented(text: &str, door: &mut Door) -> Result<[u8; TOKEN_BYTES], Trouble> {
    if let Some(bytes) = json::from_hex(text) {
        return Ok(bytes);
    }
    let id = text.parse().map_err(|_| {
        let digits = 2 * TOKEN_BYTES;
        Trouble::Usage(format!("give a token's id, or the {digits} digits of a sealed token"))
    })?;
    Ok(*find(id, door)?.token())
}

fn find(id: u64, door: &mut Door) -> Result<TokenRow, Trouble> {
    let rows = door.rows::<TokenRow>(&QueryTokens { from: id.into() })?;
    let row = rows.into_iter().find(|row| row.id.get() == id);
    row.ok_or_else(|| Trouble::Refused(format!("no token {id} that you may see")))
}

fn id_of(token: &[u8; TOKEN_BYTES]) -> u64 {
    Token::of(token).id.get()
}

fn show(id: u64, door: &mut Door, out: &mut Output) -> Result<(), Trouble> {
    let row = find(id, door)?;
    Ok(out.say(&json::token(&row), &json::hex(row.token()))?)
}

fn list(reach: &Reach, out: &mut Output) -> Result<(), Trouble> {
    let mut door = reach.reader()?;
    let names = Directory::read(&mut door)?;
    let mut list = out.list(&[
        right("TOKEN"),
        left("ACCOUNT"),
        left("TIER"),
        left("RESOURCE"),
        right("VRUS"),
        left("FROM"),
        left("UNTIL"),
        left("INSTANCE"),
        left("STATE"),
        right("CHANGES"),
    ]);
    for row in door.pages_by_id::<TokenRow, _>(|from| QueryTokens { from: from.into() })? {
        list.object(&json::token(&row))?;
        list.cells(vec![
            row.id.to_string(),
            names.account(row.account.get()),
            names.tier(row.tier.get()),
            Resource::text_of(row.resource).to_owned(),
            row.vru.to_string(),
            rfc3339(row.from_ms.get().saturating_mul(1_000_000)),
            rfc3339(row.until_ms.get().saturating_mul(1_000_000)),
            names.instance(row.instance.get()),
            if row.redeemed == 1 { "redeemed" } else { "held" }.to_owned(),
            (row.generation.get() - 1).to_string(),
        ]);
    }
    Ok(list.show()?)
}

/// Makes the next key of a directory.
fn rotate(dir: &Path, out: &mut Output) -> Result<(), Trouble> {
    let host = |what: &str, path: &Path, error: &std::io::Error| {
        Trouble::Host(format!("cannot {what} {}: {error}", path.display()))
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| host("make", dir, &error))?;
    let mut newest = 0;
    for entry in std::fs::read_dir(dir).map_err(|error| host("read", dir, &error))? {
        let path = entry.map_err(|error| host("read", dir, &error))?.path();
        let number =
            path.file_name().and_then(|name| name.to_str()?.strip_suffix(".key")?.parse().ok());
        newest = newest.max(number.unwrap_or(0_u64));
    }
    let mut key = [0_u8; 32];
    let random = Path::new("/dev/urandom");
    File::open(random)
        .and_then(|mut file| file.read_exact(&mut key))
        .map_err(|error| host("read", random, &error))?;
    let (number, path) = (newest + 1, dir.join(format!("{}.key", newest + 1)));
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(&key).and_then(|()| file.sync_all()))
        .map_err(|error| host("make", &path, &error))?;
    let text = format!("{} seals once the daemon got SIGHUP", path.display());
    Ok(out.say(&json!({ "key": number, "path": path }), &text)?)
}
