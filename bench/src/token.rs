//! Checking tokens' seals, beside the bare keyed hash of the same bytes.

use std::hint::black_box;
use std::time::Instant;

use vendue_engine::gateway::seal::{KEY_BYTES, Seals};
use vendue_wire::message::{TOKEN_BYTES, Token};

use crate::pin::{Processors, pin};
use crate::report::Pair;

/// Checks of one run.
const CHECKS: usize = 2_000_000;
/// Tokens that are checked in turn.
const TOKENS: usize = 1024;
/// Keys that a daemon has: as after some rotations.
const KEYS: u8 = 4;

/// Measures `token.check`: a seal under the newest of some keys.
///
/// # Errors
/// The thread cannot be pinned.
pub fn measure(
    processors: Processors,
    runs: usize,
    show: &mut dyn FnMut(Pair),
) -> Result<(), nix::Error> {
    pin(processors.asking)?;
    let keys = (1..=KEYS).map(|at| (u64::from(at), [at; KEY_BYTES])).collect();
    let seals = Seals::of(keys);
    let tokens: Vec<Token> = (0..TOKENS).map(|at| token(&seals, at as u64)).collect();
    let (mut checking, mut hashing) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        hashing.push(each(&tokens, |token| {
            let hash = blake3::keyed_hash(&[KEYS; KEY_BYTES], black_box(token).sealed());
            black_box(hash);
        }));
        checking.push(each(&tokens, |token| {
            assert_eq!(black_box(seals.check(black_box(token))), Ok(()));
        }));
    }
    let method = format!(
        "{runs} interleaved runs of {CHECKS} on CPU {}; the floor is keyed BLAKE3 of the same bytes",
        processors.asking
    );
    show(
        Pair::new("token.check".to_owned(), "ns/token", &checking, &hashing)
            .fact("keys", usize::from(KEYS))
            .method(method),
    );
    Ok(())
}

fn token(seals: &Seals, id: u64) -> Token {
    let mut token = *Token::of(&[0; TOKEN_BYTES]);
    (token.id, token.vru) = (id.into(), 1.into());
    seals.seal(&mut token);
    token
}

fn each(tokens: &[Token], mut one: impl FnMut(&Token)) -> f64 {
    let start = Instant::now();
    for at in 0..CHECKS {
        one(&tokens[at % TOKENS]);
    }
    start.elapsed().as_nanos() as f64 / CHECKS as f64
}
