//! Tokens: promised, handed on, used.

use super::numbers;
use crate::admin::problem::Problem;
use crate::admin::route::{Route, post};
use crate::admin::words::Word;
use axum::http::StatusCode;
use hvctl::json as show;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use vendue_wire::client::Client;
use vendue_wire::code::*;
use vendue_wire::message::*;

/// The endpoints.
pub fn routes() -> Vec<Route> {
    vec![
        post(
            "/token_issue",
            "Promise VRUs of a tier over a window of time",
            numbers(&["id", "account", "vru"]),
            token_issue,
        ),
        post(
            "/token_redeem",
            "Give an instance a token's VRUs until its window ends",
            numbers(&["id", "instance", "generation"]),
            token_redeem,
        ),
        post(
            "/token_split",
            "Take a part of a token off as a new one",
            numbers(&["id", "part"]),
            token_split,
        ),
        post(
            "/token_merge",
            "Make one token of two",
            numbers(&["id", "merged", "generation"]),
            token_merge,
        ),
        post(
            "/token_transfer",
            "Give a token to another account",
            numbers(&["id", "account", "generation"]),
            token_transfer,
        ),
        post("/token_revoke", "End a token", numbers(&["id", "vru"]), token_revoke),
    ]
}

/// A token: its id, of one that the caller may see, or itself as it was handed on.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Presented {
    /// Its id.
    Id(u64),
    /// The hexadecimal digits of the sealed token.
    Sealed(#[schemars(regex(pattern = r"^[0-9a-fA-F]+$"))] String),
}

impl Presented {
    fn token(&self, client: &mut Client) -> Result<[u8; TOKEN_BYTES], Problem> {
        match self {
            Presented::Sealed(digits) => show::from_hex(digits).ok_or_else(|| {
                let digits = 2 * TOKEN_BYTES;
                let why = format!("a sealed token is {digits} hexadecimal digits");
                Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)
            }),
            Presented::Id(id) => {
                let rows: Vec<TokenRow> = client.ask(&QueryTokens { from: (*id).into() })?;
                let row = rows.iter().find(|row| row.id == *id);
                let found = row.map(|row| *row.token());
                found.ok_or_else(|| Problem::absent(format!("no token {id} that you may see")))
            }
        }
    }
}

fn id_of(token: &[u8; TOKEN_BYTES]) -> u64 {
    Token::of(token).id.get()
}

/// A reservation.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenIssue {
    /// Account that it is for.
    account: u32,
    /// Tier.
    tier: u16,
    /// Resource.
    resource: Word<Resource>,
    /// VRUs.
    vru: u32,
    /// Its window begins, milliseconds since 1970 UTC; what is past is now.
    #[serde(default)]
    from_ms: u64,
    /// It ends.
    until_ms: u64,
    /// Only this instance may redeem it.
    instance: Option<u32>,
    /// Greater goes first.
    #[serde(default)]
    priority: u8,
    /// It may be swapped for another.
    #[serde(default)]
    swap_eligible: bool,
    /// What runs on it is not to be moved while it runs.
    #[serde(default)]
    sticky: bool,
    /// KPI that its workload is to reach.
    profile: Option<Word<Kpi>>,
    /// The KPI's value.
    #[serde(default)]
    profile_limit: u64,
}

fn token_issue(client: &mut Client, asked: TokenIssue) -> Result<Value, Problem> {
    let message = IssueToken {
        client_id: client.next_client_id().into(),
        from_ms: asked.from_ms.into(),
        until_ms: asked.until_ms.into(),
        profile_limit: asked.profile_limit.into(),
        account: asked.account.into(),
        instance: asked.instance.unwrap_or(ANY).into(),
        vru: asked.vru.into(),
        tier: asked.tier.into(),
        resource: asked.resource.0 as u8,
        priority: asked.priority,
        profile: asked.profile.map_or(u8::MAX, |kpi| kpi.0 as u8),
        swap_eligible: asked.swap_eligible.into(),
        sticky: asked.sticky.into(),
        reserved: 0,
    };
    let id = client.call(&message)?.value.get();
    Ok(json!({ "id": id, "account": asked.account, "vru": asked.vru }))
}

/// A token for an instance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenRedeem {
    /// The token.
    token: Presented,
    /// Instance of its account and tier.
    instance: u32,
}

fn token_redeem(client: &mut Client, asked: TokenRedeem) -> Result<Value, Problem> {
    let token = asked.token.token(client)?;
    let client_id = client.next_client_id().into();
    let (instance, reserved) = (asked.instance.into(), U32::ZERO);
    let done = client.call(&RedeemToken { client_id, instance, reserved, token })?;
    let generation = done.value.get();
    Ok(json!({ "id": id_of(&token), "instance": asked.instance, "generation": generation }))
}

/// Which part: VRUs, or the window from a time on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenSplit {
    /// The token.
    token: Presented,
    /// So many VRUs.
    #[serde(default)]
    vru: u32,
    /// The window from this time on, milliseconds since 1970 UTC.
    #[serde(default)]
    at_ms: u64,
}

fn token_split(client: &mut Client, asked: TokenSplit) -> Result<Value, Problem> {
    let token = asked.token.token(client)?;
    let message = SplitToken {
        client_id: client.next_client_id().into(),
        at_ms: asked.at_ms.into(),
        vru: asked.vru.into(),
        reserved: U32::ZERO,
        token,
    };
    Ok(json!({ "id": id_of(&token), "part": client.call(&message)?.value.get() }))
}

/// Two tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenMerge {
    /// The one that stays.
    token: Presented,
    /// The one that goes.
    other: Presented,
}

fn token_merge(client: &mut Client, asked: TokenMerge) -> Result<Value, Problem> {
    let (token, other) = (asked.token.token(client)?, asked.other.token(client)?);
    let client_id = client.next_client_id().into();
    let generation = client.call(&MergeTokens { client_id, token, other })?.value.get();
    Ok(json!({ "id": id_of(&token), "merged": id_of(&other), "generation": generation }))
}

/// A token for an account.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenTransfer {
    /// The token.
    token: Presented,
    /// Whose it is from now on.
    account: u32,
}

fn token_transfer(client: &mut Client, asked: TokenTransfer) -> Result<Value, Problem> {
    let token = asked.token.token(client)?;
    let client_id = client.next_client_id().into();
    let (account, reserved) = (asked.account.into(), U32::ZERO);
    let done = client.call(&TransferToken { client_id, account, reserved, token })?;
    let generation = done.value.get();
    Ok(json!({ "id": id_of(&token), "account": asked.account, "generation": generation }))
}

/// A token.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TokenRevoke {
    /// Its id.
    id: u64,
}

fn token_revoke(client: &mut Client, asked: TokenRevoke) -> Result<Value, Problem> {
    let client_id = client.next_client_id().into();
    let vru = client.call(&RevokeToken { client_id, id: asked.id.into() })?.value.get();
    Ok(json!({ "id": asked.id, "vru": vru }))
}
