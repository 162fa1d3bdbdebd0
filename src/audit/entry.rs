//! One entry of the audit log, as a value and as octets.
//!
//! ```text
//! hash (32) | previous hash (32) | seq u64 | at (µs) i64 | flags u8 | action u8 | uid u64 |
//! who | job | message_id | mailbox | detail        each: length u32, UTF-8; length ffffffff: none
//! ```
//!
//! Little endian. The hash is HMAC-SHA256 over all octets behind it, the previous hash included.

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// Octets of a hash.
pub(super) const HASH_OCTETS: usize = 32;
/// What stands for a missing text or uid.
const NONE: u32 = u32::MAX;
/// Flag: the log itself was found broken at a start.
const FINDING: u8 = 1;

/// HMAC-SHA256 that names an entry and all before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Hash(pub [u8; HASH_OCTETS]);

/// A text that is no hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 hexadecimal characters")]
pub struct HashError;

impl std::str::FromStr for Hash {
    type Err = HashError;

    fn from_str(text: &str) -> Result<Self, HashError> {
        let octets = data_encoding::HEXLOWER_PERMISSIVE.decode(text.as_bytes());
        let octets = octets.map_err(|_| HashError)?;
        octets.try_into().map(Self).map_err(|_| HashError)
    }
}

impl std::fmt::Display for Hash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What kind of thing is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Something is about to be done.
    Intent,
    /// It was done, or failed.
    Outcome,
    /// A setting, hold, policy or verdict was changed.
    Change,
    /// Somebody began to use the service.
    Login,
}

impl Action {
    const fn code(self) -> u8 {
        match self {
            Self::Intent => 1,
            Self::Outcome => 2,
            Self::Change => 3,
            Self::Login => 4,
        }
    }

    const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Intent),
            2 => Some(Self::Outcome),
            3 => Some(Self::Change),
            4 => Some(Self::Login),
            _ => None,
        }
    }
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When it happened.
    pub at: Timestamp,
    /// Who did it: a user's name, an API token's, or the service's.
    pub who: String,
    /// The login uid, where there is one.
    pub uid: Option<u32>,
    /// What kind of thing.
    pub action: Action,
    /// The job that it belongs to.
    pub job: Option<String>,
    /// Message-ID of the message.
    pub message_id: Option<String>,
    /// Primary address of the mailbox.
    pub mailbox: Option<String>,
    /// The rest, for people.
    pub detail: Option<String>,
}

impl Entry {
    /// Octets of its texts.
    pub(super) fn octets(&self) -> usize {
        let texts = [&self.job, &self.message_id, &self.mailbox, &self.detail];
        let rest: usize = texts.into_iter().flatten().map(String::len).sum();
        self.who.len() + rest
    }
}

/// An entry in its place in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// Counts from 1 without gaps.
    pub seq: u64,
    /// What is told.
    #[serde(flatten)]
    pub entry: Entry,
    /// Names this entry and all before it.
    pub hash: Hash,
    /// Hash of the entry before.
    #[serde(skip)]
    pub previous: Hash,
    /// Whether the entry tells that the log was found broken at a start.
    #[serde(skip)]
    pub finding: bool,
}

/// Place of an entry, read without its texts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) seq: u64,
    pub(super) hash: Hash,
    pub(super) previous: Hash,
    pub(super) finding: bool,
}

/// Encodes an entry behind `previous`; also its hash.
pub(super) fn encode(
    key: &hmac::Key,
    previous: Hash,
    seq: u64,
    entry: &Entry,
    finding: bool,
) -> (Vec<u8>, Hash) {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(&[0; HASH_OCTETS]);
    out.extend_from_slice(&previous.0);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&entry.at.as_microsecond().to_le_bytes());
    out.push(if finding { FINDING } else { 0 });
    out.push(entry.action.code());
    out.extend_from_slice(&entry.uid.map_or(u64::MAX, u64::from).to_le_bytes());
    put(&mut out, Some(&entry.who));
    for text in [&entry.job, &entry.message_id, &entry.mailbox, &entry.detail] {
        put(&mut out, text.as_deref());
    }
    let (place, body) = out.split_at_mut(HASH_OCTETS);
    let hash = sign(key, body);
    place.copy_from_slice(&hash.0);
    (out, hash)
}

/// The place that these octets claim, if their hash is right.
pub(super) fn check(key: &hmac::Key, octets: &[u8]) -> Option<Link> {
    let (hash, body) = octets.split_first_chunk::<HASH_OCTETS>()?;
    if sign(key, body).0 != *hash {
        return None;
    }
    link(octets)
}

/// The place that these octets claim.
pub(super) fn link(octets: &[u8]) -> Option<Link> {
    let mut fields = Fields(octets);
    let hash = Hash(fields.take()?);
    let previous = Hash(fields.take()?);
    let seq = u64::from_le_bytes(fields.take()?);
    let _at = fields.take::<8>()?;
    let [flags] = fields.take()?;
    Some(Link {
        seq,
        hash,
        previous,
        finding: flags & FINDING != 0,
    })
}

/// The entry in these octets.
pub(super) fn decode(octets: &[u8]) -> Option<Recorded> {
    let Link {
        seq,
        hash,
        previous,
        finding,
    } = link(octets)?;
    let mut fields = Fields(octets.get(2 * HASH_OCTETS + 8..)?);
    let at = Timestamp::from_microsecond(i64::from_le_bytes(fields.take()?)).ok()?;
    let [_flags, action] = fields.take()?;
    let action = Action::from_code(action)?;
    let uid = u32::try_from(u64::from_le_bytes(fields.take()?)).ok();
    let entry = Entry {
        at,
        who: fields.text()?.unwrap_or_default(),
        uid,
        action,
        job: fields.text()?,
        message_id: fields.text()?,
        mailbox: fields.text()?,
        detail: fields.text()?,
    };
    fields.0.is_empty().then_some(Recorded {
        seq,
        entry,
        hash,
        previous,
        finding,
    })
}

/// HMAC-SHA256.
pub(super) fn sign(key: &hmac::Key, octets: &[u8]) -> Hash {
    let mut hash = Hash::default();
    hash.0.copy_from_slice(hmac::sign(key, octets).as_ref());
    hash
}

fn put(out: &mut Vec<u8>, text: Option<&str>) {
    match text.map(|text| (text, u32::try_from(text.len()))) {
        Some((text, Ok(length))) if length != NONE => {
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        _ => out.extend_from_slice(&NONE.to_le_bytes()),
    }
}

struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    /// `None`: malformed; `Some(None)`: none.
    #[expect(clippy::option_option, reason = "malformed and missing are different")]
    fn text(&mut self) -> Option<Option<String>> {
        let length = u32::from_le_bytes(self.take()?);
        if length == NONE {
            return Some(None);
        }
        let (text, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(Some(String::from_utf8(text.to_vec()).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    prop_compose! {
        fn entries()(
            at in 0i64..4_000_000_000_000_000, who in ".{0,20}", uid in any::<Option<u32>>(), action in 1u8..5,
            texts in proptest::collection::vec(proptest::option::of(".{0,40}"), 4),
        ) -> Entry {
            let [job, message_id, mailbox, detail] = texts.try_into().unwrap();
            let at = Timestamp::from_microsecond(at).unwrap();
            Entry { at, who, uid, action: Action::from_code(action).unwrap(), job, message_id, mailbox, detail }
        }
    }

    proptest! {
        #[test]
        fn an_entry_comes_back(entry in entries(), seq: u64, finding: bool, previous: [u8; 32]) {
            let (octets, hash) = encode(&key(), Hash(previous), seq, &entry, finding);
            let expected = Recorded { seq, entry, hash, previous: Hash(previous), finding };
            prop_assert_eq!(decode(&octets), Some(expected));
            prop_assert!(check(&key(), &octets).is_some());
        }

        #[test]
        fn no_octet_changes_unnoticed(entry in entries(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (mut octets, _) = encode(&key(), Hash::default(), 1, &entry, false);
            let at = at.index(octets.len());
            octets[at] ^= flip;
            prop_assert!(check(&key(), &octets).is_none());
        }
    }
}
