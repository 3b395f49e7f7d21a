//! Tokens: a million that are not what they say are refused, and one that is goes through many hands.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use vendue_engine::gateway::seal::{KEY_BYTES, Seals};
use vendue_engine::machine::command::{Command, Genesis};
use vendue_tests::chance::Chance;
use vendue_tests::daemon::{Daemon, Setup, eventually};
use vendue_tests::market::{Market, audit, instance_row, token_row};
use vendue_tests::room::{Room, small_book, small_genesis};
use vendue_wire::client::{Client, ClientError, Identity};
use vendue_wire::code::{LeaseClass, LeaseOutcome, Reject, Resource, Role};
use vendue_wire::frame::{FRAME_BYTES_MAX, HEADER_BYTES};
use vendue_wire::message::*;
use zerocopy::IntoBytes;

type Sealed = [u8; TOKEN_BYTES];

// ---- the machine -------------------------------------------------------------------------

/// A room with one book of 100 processors' VRUs, an operator, and two accounts with an instance each.
fn room() -> Room {
    let genesis = Genesis {
        instances_max: 4.into(),
        reversible_trades: 1.into(),
        leases_max: 16.into(),
        ..small_genesis()
    };
    let book = small_book();
    let mut room = Room::new(&genesis, &[book]);
    room.open(1, Role::Operator, ANY, false);
    for at in 0..2 {
        let account = room.account(0, &format!("account {at}"), 0, (u64::MAX, u64::MAX));
        room.deposit(0, account, 1_000_000);
        room.instance(0, account, &format!("instance {at}"), [10, 0, 0, 0, 0]);
        room.open(2 + u64::from(account), Role::Tenant, account, false);
    }
    room.tick(0);
    room
}

/// Issues a token to an account for a window that begins and ends so many milliseconds from now.
fn issue(room: &mut Room, account: u32, vru: u32, (from, until): (u64, u64)) -> Option<u64> {
    let now_ms = room.time_ns / 1_000_000;
    let m = IssueToken {
        client_id: room.next_id(),
        from_ms: (now_ms + from).into(),
        until_ms: (now_ms + until).into(),
        account: account.into(),
        instance: ANY.into(),
        vru: vru.into(),
        profile: u8::MAX,
        ..IssueToken::zeroed()
    };
    room.apply(0, &m);
    room.refusal().is_none().then(|| room.value())
}

/// A token as it is now.
fn token(room: &mut Room, id: u64) -> Token {
    room.apply(0, &QueryTokens { from: id.into() });
    let row = room.said::<TokenRow>().first().map(|(_, row)| *row).expect("a row");
    assert_eq!(row.id.get(), id);
    *Token::of(row.token())
}

fn bytes(token: &Token) -> Sealed {
    zerocopy::transmute!(*token)
}

fn redeem(room: &mut Room, session: u32, instance: u32, id: u64) -> Option<Reject> {
    let token = bytes(&token(room, id));
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(session, &RedeemToken { client_id, instance: instance.into(), reserved, token });
    room.refusal()
}

fn entitled(room: &Room, instance: u16) -> u64 {
    room.machine.entitlement(instance, Resource::Cpu).expect("a tier with processors").0
}

#[test]
fn redeeming_takes_vrus_back_from_leases_at_once_until_the_window_ends() {
    let mut room = room();
    let bid = BidLease {
        client_id: room.next_id(),
        instance: 1.into(),
        amount: 80.into(),
        rent_ticks: 5.into(),
        hold_ms: 60_000.into(),
        class: LeaseClass::Sla as u8,
        ..BidLease::zeroed()
    };
    let entitle = EntitleInstance {
        client_id: room.next_id(),
        instance: 1.into(),
        vru: 80.into(),
        ..EntitleInstance::zeroed()
    };
    room.apply(0, &entitle);
    room.apply(0, &BidLease { client_id: room.next_id(), ..bid });
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (10, 90));
    // All that is not reserved can be promised, though it is leased.
    assert_eq!(issue(&mut room, 0, 81, (0, 5000)), None);
    let id = issue(&mut room, 0, 60, (0, 5000)).expect("a token");
    assert_eq!(entitled(&room, 1), 90, "nobody redeemed it yet");
    assert_eq!(redeem(&mut room, 1, 0, id), None);
    let lost = room.said::<LeaseMoved>();
    assert_eq!(lost.len(), 1);
    assert_eq!(lost[0].1.outcome, LeaseOutcome::Withdrawn as u8);
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (70, 30));
    // Used within what the token gives: no credits go.
    room.tick(1000);
    let before = room.machine.ledger().credit(0, Resource::Cpu).free;
    room.use_credits(0, 0, 60 * 1000);
    assert_eq!(room.machine.ledger().credit(0, Resource::Cpu).free, before);
    room.use_credits(0, 0, 1000);
    assert_eq!(room.machine.ledger().credit(0, Resource::Cpu).free, before - 1000);
    room.tick(4000);
    assert_eq!((entitled(&room, 0), entitled(&room, 1)), (10, 90));
    assert_eq!(room.machine.tokens().rows().len(), 0);
}

#[test]
fn promises_are_kept_against_all_that_could_take_their_capacity() {
    let mut room = room();
    // 80 are free: now 50, later 80, and nothing in between.
    issue(&mut room, 0, 50, (0, 1000)).expect("room now");
    issue(&mut room, 1, 80, (2000, 3000)).expect("room later");
    assert_eq!(issue(&mut room, 0, 1, (2999, 4000)), None, "full when it begins");
    assert_eq!(issue(&mut room, 0, 31, (0, 1000)), None, "full now");
    assert_eq!(issue(&mut room, 0, 31, (1000, 2001)), None, "full when it ends");
    issue(&mut room, 0, 80, (1000, 2000)).expect("between the two");
    room.instance(0, 0, "more", [1, 0, 0, 0, 0]);
    assert_eq!(room.refusal(), Some(Reject::InsufficientCapacity));
    let mut shrink = SetTier { act: TIER_CHANGE, ..SetTier::zeroed() };
    shrink.capacity_vru[0] = 99.into();
    room.apply(0, &SetTier { client_id: room.next_id(), ..shrink });
    assert_eq!(room.refusal(), Some(Reject::InsufficientCapacity));
    room.tick(3000);
    room.instance(0, 0, "more", [80, 0, 0, 0, 0]);
    assert_eq!(room.refusal(), None, "every window is over");
    assert_eq!(room.machine.spoken_for(0), 100);
}

#[test]
fn an_instance_that_goes_leaves_its_tokens_to_its_account() {
    let mut room = room();
    let id = issue(&mut room, 0, 30, (0, 60_000)).expect("a token");
    room.instance(0, 0, "second", [10, 0, 0, 0, 0]);
    let second = room.value() as u32;
    assert_eq!(redeem(&mut room, 1, 0, id), None);
    assert_eq!(redeem(&mut room, 1, second, id), Some(Reject::TokenRedeemed));
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(0, &RemoveInstance { client_id, instance: 0.into(), reserved });
    assert_eq!(token(&mut room, id).instance.get(), ANY);
    assert_eq!(redeem(&mut room, 1, second, id), None);
    assert_eq!(entitled(&room, second as u16), 40);
    let mut room = room.recovered();
    assert_eq!(entitled(&room, second as u16), 40, "a snapshot keeps it");
    assert_eq!(redeem(&mut room, 1, second, id), Some(Reject::TokenRedeemed));
}

#[test]
fn tokens_are_redeemed_by_whom_and_when_they_say() {
    let mut room = room();
    let later = issue(&mut room, 0, 5, (1000, 5000)).expect("a token");
    assert_eq!(redeem(&mut room, 1, 0, later), Some(Reject::TokenNotOpen));
    assert_eq!(redeem(&mut room, 0, 1, later), Some(Reject::UnknownToken), "another account's");
    room.instance(0, 0, "second", [1, 0, 0, 0, 0]);
    let (client_id, until_ms) = (room.next_id(), (room.time_ns / 1_000_000 + 5000).into());
    let bound = IssueToken {
        client_id,
        until_ms,
        instance: 0.into(),
        vru: 5.into(),
        profile: u8::MAX,
        ..IssueToken::zeroed()
    };
    room.apply(0, &bound);
    let bound = room.value();
    assert_eq!(redeem(&mut room, 1, 2, bound), Some(Reject::TokenBound));
    // Given away it is bound to nobody.
    let given = bytes(&token(&mut room, bound));
    let (client_id, reserved) = (room.next_id(), 0.into());
    room.apply(1, &TransferToken { client_id, account: 1.into(), reserved, token: given });
    assert_eq!(token(&mut room, bound).instance.get(), ANY);
    assert_eq!(redeem(&mut room, 2, 1, bound), None);
}

#[test]
fn parts_are_together_what_was_split_and_only_what_fits_is_merged() {
    let mut room = room();
    let id = issue(&mut room, 0, 10, (0, 9000)).expect("a token");
    let said = |room: &mut Room, id: u64| {
        let token = token(room, id);
        (token.vru.get(), token.until_ms.get() - token.from_ms.get())
    };
    let split = |room: &mut Room, vru: u32, at_ms: u64| {
        let (client_id, token) = (room.next_id(), bytes(&token(room, id)));
        let (vru, reserved, at_ms) = (vru.into(), 0.into(), at_ms.into());
        room.apply(1, &SplitToken { client_id, at_ms, vru, reserved, token });
        assert_eq!(room.refusal(), None);
        room.value()
    };
    let merge = |room: &mut Room, other: u64| {
        let [token, other] = [id, other].map(|id| bytes(&token(room, id)));
        room.apply(1, &MergeTokens { client_id: room.next_id(), token, other });
        room.refusal()
    };
    let part = split(&mut room, 4, 0);
    assert_eq!((said(&mut room, id), said(&mut room, part)), ((6, 9000), (4, 9000)));
    let at_ms = room.time_ns / 1_000_000 + 3000;
    let second = split(&mut room, 0, at_ms);
    assert_eq!((said(&mut room, id), said(&mut room, second)), ((6, 3000), (6, 6000)));
    let apart = issue(&mut room, 0, 6, (4000, 9000)).expect("a token");
    for other in [part, apart, id] {
        assert_eq!(merge(&mut room, other), Some(Reject::TokensDiffer));
    }
    assert_eq!(merge(&mut room, second), None);
    assert_eq!(merge(&mut room, part), None);
    assert_eq!(said(&mut room, id), (10, 9000));
}

#[test]
fn the_table_is_bounded_and_its_fullest_takes_no_more() {
    let mut room = room();
    for _ in 0..TOKENS_MAX {
        // One after the other, so that the capacity is no bound.
        let from = room.machine.tokens().rows().len() as u64 * 10;
        issue(&mut room, 0, 80, (from, from + 10)).expect("a token");
    }
    assert_eq!(issue(&mut room, 0, 1, (99_999_999, 100_000_000)), None);
    assert_eq!(room.refusal(), Some(Reject::TokensFull));
    // All end in one tick, which must have room to say so.
    room.tick(100_000_000);
    assert_eq!(room.said::<TokenMoved>().len(), TOKENS_MAX);
    assert_eq!(room.machine.spoken_for(0), 20);
}

// ---- a million ---------------------------------------------------------------------------

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// Made up: a seal of chance, under a key that there is.
    Forged,
    /// Made up: a seal under a key that there is not.
    UnknownKey,
    /// A bit of what is sealed is another.
    Altered,
    /// A bit of the seal is another.
    Torn,
    /// Sealed by another daemon, with a key of the same number.
    Foreign,
    /// Another daemon's, though both have the same keys.
    OtherHouse,
    /// Sealed with a key that was taken away.
    OldKey,
    /// Its window is over.
    Expired,
    /// As it was before its last change.
    Replayed,
    /// Redeemed before.
    Used,
    /// Another account's.
    Others,
}

const WRONGS: [Wrong; 11] = [
    Wrong::Forged,
    Wrong::UnknownKey,
    Wrong::Altered,
    Wrong::Torn,
    Wrong::Foreign,
    Wrong::OtherHouse,
    Wrong::OldKey,
    Wrong::Expired,
    Wrong::Replayed,
    Wrong::Used,
    Wrong::Others,
];

/// What the tokens of a room were, to lie with.
struct Hoard {
    /// Of account 0, as they are.
    good: Vec<Token>,
    expired: Vec<Token>,
    replayed: Vec<Token>,
    used: Vec<Token>,
    others: Vec<Token>,
}

impl Hoard {
    fn of(room: &mut Room) -> Hoard {
        let many = |room: &mut Room, account: u32, until: u64| -> Vec<Token> {
            let ids: Vec<_> =
                (0..8).map(|_| issue(room, account, 1, (0, until)).expect("room")).collect();
            ids.into_iter().map(|id| token(room, id)).collect()
        };
        let hour = 3_600_000;
        let expired = many(room, 0, 10);
        room.tick(20);
        let (good, replayed) = (many(room, 0, hour), many(room, 0, hour));
        let (used, others) = (many(room, 0, hour), many(room, 1, hour));
        for was in &replayed {
            // Every change makes it another.
            let (client_id, at_ms) = (room.next_id(), (was.until_ms.get() - 1).into());
            let (vru, reserved) = (0.into(), 0.into());
            room.apply(1, &SplitToken { client_id, at_ms, vru, reserved, token: bytes(was) });
            assert_eq!(room.refusal(), None);
        }
        for was in &used {
            assert_eq!(redeem(room, 1, 0, was.id.get()), None);
        }
        Hoard { good, expired, replayed, used, others }
    }

    /// A token that is wrong, and the refusals that this may meet.
    fn wrong(&self, wrong: Wrong, keys: &[Seals; 3], chance: &mut Chance) -> (Token, &[Reject]) {
        const FORGED: &[Reject] = &[Reject::TokenForged];
        let [own, foreign, old] = keys;
        let of =
            |tokens: &[Token], chance: &mut Chance| tokens[chance.draw() as usize % tokens.len()];
        let sealed = |mut token: Token, seals: &Seals| {
            seals.seal(&mut token);
            token
        };
        let mut token = sealed(of(&self.good, chance), own);
        let bit = chance.draw() as usize;
        match wrong {
            Wrong::Forged => {
                token.mac = std::array::from_fn(|_| chance.draw() as u8);
                (token, FORGED)
            }
            Wrong::UnknownKey => {
                token.key = (chance.draw() | 1 << 63).into();
                (token, FORGED)
            }
            Wrong::Altered => {
                let bits = 8 * TOKEN_SEALED_BYTES;
                token.as_mut_bytes()[bit % bits / 8] ^= 1 << (bit % 8);
                (token, FORGED)
            }
            Wrong::Torn => {
                token.mac[bit / 8 % 32] ^= 1 << (bit % 8);
                (token, FORGED)
            }
            Wrong::Foreign => (sealed(token, foreign), FORGED),
            Wrong::OldKey => (sealed(token, old), FORGED),
            Wrong::OtherHouse => {
                token.house = (token.house.get() ^ (1 + (chance.draw() >> 1))).into();
                (sealed(token, own), &[Reject::UnknownToken])
            }
            Wrong::Expired => (sealed(of(&self.expired, chance), own), &[Reject::UnknownToken]),
            Wrong::Replayed => (sealed(of(&self.replayed, chance), own), &[Reject::TokenStale]),
            Wrong::Used => (sealed(of(&self.used, chance), own), &[Reject::TokenStale]),
            Wrong::Others => (sealed(of(&self.others, chance), own), &[Reject::UnknownToken]),
        }
    }
}

/// A request of some kind that presents a token, as the gateway has it.
fn presenting(room: &Room, token: &Token, good: &Token, at: u64) -> (u8, Vec<u8>) {
    let (client_id, reserved, other) = (room.next_id(), 0.into(), bytes(good));
    let token = bytes(token);
    match at % 4 {
        0 => {
            let m = RedeemToken { client_id, instance: 0.into(), reserved, token };
            (RedeemToken::KIND, m.as_bytes().to_vec())
        }
        1 => {
            let m = SplitToken { client_id, at_ms: 0.into(), vru: 1.into(), reserved, token };
            (SplitToken::KIND, m.as_bytes().to_vec())
        }
        2 => (MergeTokens::KIND, MergeTokens { client_id, token, other }.as_bytes().to_vec()),
        _ => {
            let m = TransferToken { client_id, account: 0.into(), reserved, token };
            (TransferToken::KIND, m.as_bytes().to_vec())
        }
    }
}

/// The way a request takes: the seal at the gateway, then the machine. Why it was refused.
fn present(room: &mut Room, seals: &Seals, (kind, body): (u8, &[u8])) -> Option<Reject> {
    Command::parse(kind, body).expect("a whole request");
    let mut plain = [0; FRAME_BYTES_MAX - HEADER_BYTES];
    let body = match seals.open(kind, body, &mut plain) {
        Ok(body) => body,
        Err(why) => return Some(why),
    };
    let env = room.envelope(1);
    let command = Command::parse(kind, body).expect("a request without seals");
    room.out.clear();
    room.machine.apply(&env, &command, &mut room.out).expect("a sound machine");
    room.refusal()
}

#[test]
fn a_million_tokens_that_are_not_what_they_say_are_refused() {
    let mut room = room();
    let hoard = Hoard::of(&mut room);
    let key = |byte: u8| [byte; KEY_BYTES];
    let seals = || Seals::of(vec![(2, key(2)), (3, key(3))]);
    let keys = [seals(), Seals::of(vec![(3, key(9))]), Seals::of(vec![(1, key(1))])];
    let before = room.machine.tokens().rows().to_vec();
    let mut chance = Chance::new(7);
    let mut met = BTreeMap::new();
    let mut good = hoard.good[0];
    keys[0].seal(&mut good);
    for at in 0..1_000_000_u64 {
        let wrong = WRONGS[at as usize % WRONGS.len()];
        let (token, allowed) = hoard.wrong(wrong, &keys, &mut chance);
        let (kind, body) = presenting(&room, &token, &good, chance.draw());
        let refused = present(&mut room, &keys[0], (kind, &body));
        let refused = refused.unwrap_or_else(|| panic!("{wrong:?} was taken: {token:?}"));
        assert!(allowed.contains(&refused), "{wrong:?}: {refused:?}");
        *met.entry(wrong).or_insert(0) += 1;
    }
    assert!(met.len() == WRONGS.len() && met.values().all(|&count| count > 90_000), "{met:?}");
    assert_eq!(room.machine.tokens().rows(), before, "a refused token changed one");
    // One that is right is taken, under either key.
    for (key_of, at) in [(seals(), 0), (Seals::of(vec![(2, key(2))]), 1)] {
        let mut token = hoard.good[at];
        key_of.seal(&mut token);
        let (kind, body) = presenting(&room, &token, &good, 0);
        assert_eq!(present(&mut room, &keys[0], (kind, &body)), None);
        assert_eq!(present(&mut room, &keys[0], (kind, &body)), Some(Reject::DuplicateClientId));
        let (kind, body) = presenting(&room, &token, &good, 0);
        assert_eq!(present(&mut room, &keys[0], (kind, &body)), Some(Reject::TokenStale));
    }
}

// ---- the whole system --------------------------------------------------------------------

fn redeemed(client: &mut Client, instance: u32, token: Sealed) -> Result<Done, ClientError> {
    let client_id = client.next_client_id().into();
    client.call(&RedeemToken { client_id, instance: instance.into(), reserved: 0.into(), token })
}

#[track_caller]
fn refusal(answer: Result<Done, ClientError>) -> Reject {
    let code = match answer {
        Err(ClientError::Rejected { code, .. } | ClientError::Refused { code, .. }) => code,
        other => panic!("not refused: {other:?}"),
    };
    Reject::from_u8(code).expect("a known code")
}

#[track_caller]
fn assert_refused(answer: Result<Done, ClientError>, why: Reject) {
    assert_eq!(refusal(answer), why);
}

/// True if a file of a directory holds these bytes.
fn holds(dir: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(dir).expect("a directory").any(|entry| {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            return holds(&path, bytes);
        }
        let held = std::fs::read(&path).expect("a file");
        held.windows(bytes.len()).any(|window| window == bytes)
    })
}

/// What a holder does to a token, which must go well: the new one's id.
fn split(client: &mut Client, token: Sealed, vru: u32) -> u64 {
    let (client_id, at_ms) = (client.next_client_id().into(), 0.into());
    let m = SplitToken { client_id, at_ms, vru: vru.into(), reserved: 0.into(), token };
    client.call(&m).expect("a part").value.get()
}

/// Issues a token to the seller for some seconds; its id.
fn promise(daemon: &Daemon, vru: &str, lasts: &str) -> u64 {
    let issue = ["token", "issue", "seller", "bronze", "cpu", vru, "--lasts", lasts];
    daemon.said_one(&[&issue[..], &["--priority", "3"]].concat())["id"].as_u64().expect("an id")
}

#[test]
fn a_token_goes_through_many_hands_over_sockets() {
    let daemon = Daemon::start(&Setup::small().key("tick_ms", "100"));
    let mut market = Market::open(&daemon);
    let (operator, seller, buyer) = (&mut market.operator, market.seller, market.buyer);
    let id = promise(&daemon, "100", "3600");
    let mut holder = daemon.client(&Identity::tenant(seller.account));
    let mut taker = daemon.client(&Identity::tenant(buyer.account));

    // Who may not present it is not shown the seal; whose it is not, nothing.
    let mut observer = daemon.client(&Identity::observer());
    let unsealed = token_row(&mut observer, id);
    assert_eq!((unsealed.sealed, unsealed.mac), (0, [0; 32]));
    let rows = taker.ask::<TokenRow, _>(&QueryTokens { from: 0.into() }).expect("an answer");
    assert!(rows.is_empty(), "{rows:?}");
    let first = token_row(&mut holder, id);
    assert_eq!((first.sealed, first.priority), (1, 3));
    assert_refused(redeemed(&mut holder, seller.instance, *unsealed.token()), Reject::TokenForged);
    let more = TokenRow { vru: 101.into(), ..first };
    assert_refused(redeemed(&mut holder, seller.instance, *more.token()), Reject::TokenForged);
    assert_refused(redeemed(&mut taker, buyer.instance, *first.token()), Reject::UnknownToken);

    // Part of it is given away; what it was is over with that.
    let (whole, account) = (id.to_string(), seller.account.to_string());
    let parted = ["token", "split", &whole, "--vru", "40", "--account", &account];
    let part = daemon.said_one(&parted)["part"].as_u64().expect("an id");
    assert_refused(redeemed(&mut holder, seller.instance, *first.token()), Reject::TokenStale);
    let handed = daemon.said_one(&["token", "show", &part.to_string(), "--account", &account]);
    let handed = handed["token"].as_str().expect("a sealed token").to_owned();
    let to = buyer.account.to_string();
    daemon.said_one(&["token", "transfer", &handed, &to, "--account", &account]);
    let before = instance_row(operator, buyer.instance).entitled_vru[0].get();
    let given = token_row(&mut taker, part);
    assert_eq!(redeemed(&mut taker, buyer.instance, *given.token()).expect("his").value.get(), 3);
    assert_eq!(instance_row(operator, buyer.instance).entitled_vru[0].get(), before + 40);
    assert_refused(redeemed(&mut taker, buyer.instance, *given.token()), Reject::TokenStale);
    daemon.said_one(&["token", "revoke", &part.to_string()]);
    assert_eq!(instance_row(operator, buyer.instance).entitled_vru[0].get(), before);

    // What ends by itself, and what is told of all that.
    let short = promise(&daemon, "1", "1");
    let whats = eventually("the end of its window", || {
        let rows = audit(operator);
        let whats: Vec<_> = rows.iter().map(|row| text(&row.what).to_owned()).collect();
        whats.contains(&format!("token {short} expired")).then_some(whats)
    });
    let told = |what: &str, id: u64| whats.contains(&format!("token {id} {what}"));
    assert!(told("issued", id) && told("split", part), "{whats:?}");
    assert!(told("transferred", part) && told("redeemed", part) && told("revoked", part));
}

#[test]
fn keys_rotate_under_tokens_and_no_seal_is_kept() {
    let setup = Setup::small().key("token_keys", "\"{dir}/keys\"");
    let mut daemon = Daemon::prepare(&setup);
    let keys = daemon.path("keys");
    let keys = keys.to_str().expect("a path").to_owned();
    let (_, why) = daemon.launch_refused();
    assert!(why.contains("hvctl token rotate"), "{why}");
    assert_eq!(daemon.said_one(&["token", "rotate", &keys])["key"], 1);
    daemon.launch();
    let seller = Market::open(&daemon).seller;
    let id = promise(&daemon, "100", "3600");
    let mut holder = daemon.client(&Identity::tenant(seller.account));
    let first = token_row(&mut holder, id);
    assert_eq!(first.key.get(), 1);

    // A new key seals; the old one is good until it is taken away.
    assert_eq!(daemon.said_one(&["token", "rotate", &keys])["key"], 2);
    daemon.reload();
    eventually("the new key", || (token_row(&mut holder, id).key.get() == 2).then_some(()));
    let other = split(&mut holder, *first.token(), 20);
    let second = token_row(&mut holder, id);
    std::fs::remove_file(daemon.path("keys/1.key")).expect("the old key");
    daemon.reload();
    eventually("the end of the old key", || {
        let why = refusal(redeemed(&mut holder, seller.instance, *first.token()));
        (why == Reject::TokenForged).then_some(())
    });
    let (client_id, part) = (holder.next_client_id().into(), token_row(&mut holder, other));
    let merge = MergeTokens { client_id, token: *second.token(), other: *part.token() };
    holder.call(&merge).expect("the two go together");
    assert_eq!(token_row(&mut holder, id).vru.get(), 100);

    // A key that others may read is refused, and what was stays.
    let set_mode = |mode| {
        let mode = Permissions::from_mode(mode);
        std::fs::set_permissions(daemon.path("keys/2.key"), mode).expect("its mode");
    };
    set_mode(0o644);
    assert!(daemon.reload().contains("chmod 600"));
    set_mode(0o600);

    // Seals are in no file of the daemon's; tokens are there after a restart, and good.
    let last = token_row(&mut holder, id);
    assert!(daemon.terminate().success());
    for row in [first, second, part, last] {
        assert!(!holds(daemon.data_dir(), &row.mac), "a seal was kept");
        assert!(!holds(daemon.data_dir(), &row.mac[..8]), "part of a seal was kept");
    }
    daemon.launch();
    let mut holder = daemon.client(&Identity { session: 78, ..Identity::tenant(seller.account) });
    redeemed(&mut holder, seller.instance, *last.token()).expect("as good as before");
    daemon.kill_9();
    daemon.launch();
    let mut operator = daemon.client(&Identity { session: 79, ..Identity::operator() });
    let row = token_row(&mut operator, id);
    assert_eq!((row.redeemed, row.instance.get()), (1, seller.instance));
    daemon.said_one(&["token", "revoke", &id.to_string()]);
    let rows = operator.ask::<TokenRow, _>(&QueryTokens { from: 0.into() }).expect("an answer");
    assert!(rows.is_empty(), "{rows:?}");
}

#[test]
fn without_a_directory_of_keys_seals_end_with_the_daemon() {
    let mut daemon = Daemon::start(&Setup::small());
    let market = Market::open(&daemon);
    let issue = ["token", "issue", "seller", "bronze", "cpu", "10", "--lasts", "3600"];
    let id = daemon.said_one(&issue)["id"].as_u64().expect("an id");
    let identity = |session| Identity { session, ..Identity::tenant(market.seller.account) };
    let before = token_row(&mut daemon.client(&identity(5)), id);
    daemon.kill_9();
    daemon.launch();
    let mut holder = daemon.client(&identity(6));
    let instance = market.seller.instance;
    assert_refused(redeemed(&mut holder, instance, *before.token()), Reject::TokenForged);
    let anew = token_row(&mut holder, id);
    redeemed(&mut holder, instance, *anew.token()).expect("sealed anew");
}
