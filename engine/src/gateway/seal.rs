//! Seals of tokens: a keyed BLAKE3 over what a token says, made and checked at the daemon's edge.
//!
//! The core never sees a key and the journal never holds a seal: rows of tokens are sealed on their way
//! out to who may present them, and what is presented is checked, and its seal taken off, on its way in.
//! The newest key seals; all keys that are there are good for checking, so that a key is changed by
//! adding one, and its tokens end by taking the old one away.

use crate::config::ConfigError;
use rustls::crypto::ring;
use std::fmt::Display;
use std::io;
use std::mem::offset_of;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use vendue_wire::code::Reject;
use vendue_wire::frame::{FRAME_BYTES_MAX, HEADER_BYTES};
use vendue_wire::message::{
    Body, Header, MergeTokens, RedeemToken, SplitToken, TOKEN_BYTES, Token, TokenRow, TransferToken,
};
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of a key.
pub const KEY_BYTES: usize = 32;
/// Keys of a directory at most.
pub const KEYS_MAX: usize = 64;

/// Where the requests that present tokens have them.
const PRESENTED: [(u8, &[usize]); 4] = [
    (RedeemToken::KIND, &[offset_of!(RedeemToken, token)]),
    (SplitToken::KIND, &[offset_of!(SplitToken, token)]),
    (MergeTokens::KIND, &[offset_of!(MergeTokens, token), offset_of!(MergeTokens, other)]),
    (TransferToken::KIND, &[offset_of!(TransferToken, token)]),
];

/// The keys.
pub struct Seals {
    /// By number; the last one seals. Never empty.
    keys: Vec<(u64, [u8; KEY_BYTES])>,
}

/// True for requests that present tokens.
#[inline]
pub fn presents(kind: u8) -> bool {
    (RedeemToken::KIND..=TransferToken::KIND).contains(&kind)
}

impl Seals {
    /// The keys in a directory; without one a key of this daemon's own, which ends with it.
    ///
    /// # Errors
    /// As for [`Seals::load`]; or the system has no randomness.
    pub fn new(dir: Option<&Path>) -> Result<Seals, ConfigError> {
        if let Some(dir) = dir {
            return Seals::load(dir);
        }
        let (mut number, mut key) = ([0; 8], [0; KEY_BYTES]);
        let random = ring::default_provider().secure_random;
        let filled = random.fill(&mut number).and_then(|()| random.fill(&mut key));
        filled.map_err(|_| unusable(Path::new("gateway.token_keys"), "no randomness for a key"))?;
        Ok(Seals { keys: vec![(u64::from_le_bytes(number) | 1, key)] })
    }

    /// Keys that a test chose, at least one, by number.
    ///
    /// # Panics
    /// If there are none.
    pub fn of(keys: Vec<(u64, [u8; KEY_BYTES])>) -> Seals {
        assert!(!keys.is_empty() && keys.is_sorted_by(|a, b| a.0 < b.0), "keys by number");
        Seals { keys }
    }

    /// Reads every `NUMBER.key` of a directory.
    ///
    /// # Errors
    /// There is none, or one is not 32 bytes, or others than its owner may read it.
    pub fn load(dir: &Path) -> Result<Seals, ConfigError> {
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(|error| unusable(dir, error))? {
            let path = entry.map_err(|error| unusable(dir, error))?.path();
            if path.extension().is_none_or(|extension| extension != "key") {
                continue;
            }
            let name = path.file_stem().and_then(|name| name.to_str());
            let number = name.and_then(|name| name.parse().ok()).filter(|&number| number > 0);
            let number: u64 = number.ok_or_else(|| unusable(&path, "its name is no number"))?;
            keys.push((number, read_key(&path)?));
        }
        if keys.is_empty() || keys.len() > KEYS_MAX {
            let count = keys.len();
            return Err(unusable(dir, format!("it holds {count} keys, not 1 to {KEYS_MAX}")));
        }
        keys.sort_unstable();
        Ok(Seals { keys })
    }

    /// Seals a token with the newest key.
    pub fn seal(&self, token: &mut Token) {
        let (number, key) = self.keys.last().expect("never empty");
        let hash = blake3::keyed_hash(key, token.sealed());
        (token.key, token.mac) = ((*number).into(), *hash.as_bytes());
    }

    /// Checks a seal, in the same time wherever it differs.
    ///
    /// # Errors
    /// [`Reject::TokenForged`].
    #[inline]
    pub fn check(&self, token: &Token) -> Result<(), Reject> {
        let key = self.keys.iter().find(|(number, _)| *number == token.key.get());
        let (_, key) = key.ok_or(Reject::TokenForged)?;
        // Hashes compare in constant time.
        let holds = blake3::keyed_hash(key, token.sealed()) == blake3::Hash::from(token.mac);
        if holds { Ok(()) } else { Err(Reject::TokenForged) }
    }

    /// Seals the token of an answer's frame, if it is one that is to be sealed.
    pub fn seal_answer(&self, frame: &mut [u8]) {
        let Ok((header, body)) = Header::mut_from_prefix(frame) else { return };
        if header.kind != TokenRow::KIND {
            return;
        }
        let Ok(row) = TokenRow::mut_from_bytes(body) else { return };
        if row.sealed == 1
            && let Ok((token, _)) = Token::mut_from_prefix(row.as_mut_bytes())
        {
            self.seal(token);
        }
    }

    /// Checks the seals of all tokens that a request presents. What the core gets of it: the same
    /// without them, put together in `room`. The length is that of its kind.
    ///
    /// # Errors
    /// [`Reject::TokenForged`].
    pub fn open<'a>(
        &self,
        kind: u8,
        body: &'a [u8],
        room: &'a mut [u8; FRAME_BYTES_MAX - HEADER_BYTES],
    ) -> Result<&'a [u8], Reject> {
        let Some((_, places)) = PRESENTED.iter().find(|(presents, _)| *presents == kind) else {
            return Ok(body);
        };
        let bare = room.get_mut(..body.len()).ok_or(Reject::BadLength)?;
        bare.copy_from_slice(body);
        for &at in *places {
            let bytes = bare.get_mut(at..at + TOKEN_BYTES).ok_or(Reject::BadLength)?;
            let token = Token::mut_from_bytes(bytes).map_err(|_| Reject::BadLength)?;
            self.check(token)?;
            *token = token.bare();
        }
        Ok(bare)
    }
}

fn read_key(path: &Path) -> Result<[u8; KEY_BYTES], ConfigError> {
    let meta = std::fs::metadata(path).map_err(|error| unusable(path, error))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(unusable(path, "others may read it; chmod 600"));
    }
    let bytes = std::fs::read(path).map_err(|error| unusable(path, error))?;
    let count = bytes.len();
    bytes.try_into().map_err(|_| unusable(path, format!("a key is {KEY_BYTES} bytes, not {count}")))
}

fn unusable(path: &Path, why: impl Display) -> ConfigError {
    let why = format!("{why}; `hvctl token rotate` makes a directory for gateway.token_keys");
    ConfigError::Read { path: path.to_owned(), source: io::Error::other(why) }
}
