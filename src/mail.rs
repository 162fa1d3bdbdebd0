//! The words that every module shares: addresses, paths, ids.
//!
//! Each is parsed once at the edge and cannot be wrong afterwards. Text is kept as it was received
//! and compared without regard to case where the mail standards allow it; no type here does I/O.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A mailbox address as received (RFC 5321 §4.1.2, `Mailbox`), UTF-8 allowed (RFC 6531).
///
/// Valid means: an `@` outside quotes, something on both sides, and no blanks or control characters
/// outside quotes, and at most [`MAX_OCTETS`](Self::MAX_OCTETS). Quoted local parts keep their quotes.
/// Two addresses are equal when their [`folded`](Self::folded) forms are.
#[derive(Clone)]
pub struct Address(Arc<str>);

/// Why a text is no [`Address`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// There is no `@` outside quotes.
    #[error("no \"@\" outside quotes")]
    NoAt,
    /// Nothing stands before or after the `@`.
    #[error("nothing on one side of the \"@\"")]
    EmptySide,
    /// A blank or a control character stands outside quotes.
    #[error("a blank or control character outside quotes")]
    Blank,
    /// A quoted string is not closed.
    #[error("a quoted string is not closed")]
    OpenQuote,
    /// It has more than [`Address::MAX_OCTETS`].
    #[error("longer than {} octets", Address::MAX_OCTETS)]
    TooLong,
}

impl Address {
    /// Octets of the longest address. RFC 5321 §4.5.3.1.3 has 256, but Exchange wraps addresses of other
    /// kinds into local parts (`IMCEAEX-…`) of up to about a thousand. Without a bound a report could
    /// name so much that it fits into no frame of the log, and would be refused for ever.
    pub const MAX_OCTETS: usize = 2048;

    /// The address as received.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The form that is compared and indexed: lower case in the Unicode sense.
    pub fn folded(&self) -> String {
        self.0.to_lowercase()
    }

    /// What stands before the last `@` outside quotes, quotes included.
    pub fn local_part(&self) -> &str {
        self.0.get(..self.at()).unwrap_or_default()
    }

    /// What stands after the last `@` outside quotes, as received.
    pub fn domain(&self) -> &str {
        self.0.get(self.at() + 1..).unwrap_or_default()
    }

    /// Position of the `@` that separates local part and domain.
    fn at(&self) -> usize {
        find_at(&self.0).unwrap_or(self.0.len())
    }
}

/// Position of the last `@` outside quotes.
fn find_at(text: &str) -> Option<usize> {
    let (mut quoted, mut escaped, mut found) = (false, false, None);
    for (position, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '@' if !quoted => found = Some(position),
            _ => {}
        }
    }
    found
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > Self::MAX_OCTETS {
            return Err(AddressError::TooLong);
        }
        // Nearly all are of this kind, and a report may name 100,000.
        // Without an early end, so that many octets are looked at together.
        let plain = |octet: u8| octet.is_ascii_graphic() & (octet != b'"');
        if text.bytes().fold(true, |all, octet| all & plain(octet)) {
            return match memchr::memrchr(b'@', text.as_bytes()) {
                None => Err(AddressError::NoAt),
                Some(at) if at == 0 || at + 1 == text.len() => Err(AddressError::EmptySide),
                Some(_) => Ok(Self(text.into())),
            };
        }
        let (mut quoted, mut escaped) = (false, false);
        for character in text.chars() {
            match character {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                c if !quoted && (c.is_whitespace() || c.is_control()) => {
                    return Err(AddressError::Blank);
                }
                _ => {}
            }
        }
        if quoted {
            return Err(AddressError::OpenQuote);
        }
        let at = find_at(text).ok_or(AddressError::NoAt)?;
        if at == 0 || at + 1 == text.len() {
            return Err(AddressError::EmptySide);
        }
        Ok(Self(text.into()))
    }
}

impl PartialEq for Address {
    fn eq(&self, other: &Self) -> bool {
        // Nearly all are ASCII; only then is nothing allocated.
        self.0.eq_ignore_ascii_case(&other.0)
            || !(self.0.is_ascii() && other.0.is_ascii()) && self.folded() == other.folded()
    }
}

impl Eq for Address {}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The octets of the folded form in pieces that depend on it alone, and nothing allocated for
        // nearly all addresses.
        if self.0.is_ascii() {
            let mut piece = [0; 64];
            for octets in self.0.as_bytes().chunks(piece.len()) {
                let folded = piece.iter_mut().zip(octets);
                folded.for_each(|(folded, octet)| *folded = octet.to_ascii_lowercase());
                state.write(piece.get(..octets.len()).unwrap_or_default());
            }
        } else {
            let folded = self.folded();
            folded
                .as_bytes()
                .chunks(64)
                .for_each(|octets| state.write(octets));
        }
        state.write_u8(0xff);
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| {
            serde::de::Error::custom(format_args!("{text:?} is no mail address: {error}"))
        })
    }
}

/// Where failures of a message are to be reported (RFC 5321 §4.1.2, `Reverse-path`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`: nowhere, as for reports about other mail (RFC 5321 §4.5.5).
    Null,
    /// A mailbox.
    Mailbox(Address),
}

impl ReversePath {
    /// The address, unless the path is null.
    pub const fn address(&self) -> Option<&Address> {
        match self {
            Self::Null => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

/// Whom a message is for (RFC 5321 §4.1.2, `Forward-path`).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<postmaster>`, the one path without a domain (RFC 5321 §4.5.1).
    Postmaster,
    /// A mailbox.
    Mailbox(Address),
}

impl ForwardPath {
    /// The address, unless the path is `<postmaster>` alone.
    pub const fn address(&self) -> Option<&Address> {
        match self {
            Self::Postmaster => None,
            Self::Mailbox(address) => Some(address),
        }
    }
}

/// A Message-ID without its angle brackets, otherwise verbatim (RFC 5322 §3.6.4 is often violated).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(Box<str>);

impl MessageId {
    /// Blanks trimmed, one leading `<` and one trailing `>` removed; `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        let text = text.strip_prefix('<').unwrap_or(text);
        let text = text.strip_suffix('>').unwrap_or(text);
        (!text.is_empty()).then(|| Self(text.into()))
    }

    /// The text between the brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// The name that the configuration gives a tenant. Every key and every record carries it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TenantName(Arc<str>);

impl TenantName {
    /// Any text names a tenant; the configuration checks which it accepts.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Name of a record: one message as journaled. Derived from the record's identity, so that the same
/// message has the same name after a rebuild. Printed as `rec_` and 26 characters of lower-case
/// base32 (RFC 4648, no padding).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordId([u8; 16]);

impl RecordId {
    /// The id with these octets.
    pub const fn from_octets(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// The octets that [`from_octets`](Self::from_octets) takes.
    pub const fn octets(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = data_encoding::BASE32_NOPAD.encode(&self.0);
        write!(f, "rec_{}", text.to_ascii_lowercase())
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no record id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a record id is \"rec_\" and 26 base32 characters")]
pub struct RecordIdError;

impl FromStr for RecordId {
    type Err = RecordIdError;

    fn from_str(text: &str) -> Result<Self, RecordIdError> {
        let text = text.strip_prefix("rec_").ok_or(RecordIdError)?;
        let octets = data_encoding::BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| RecordIdError)?;
        octets.try_into().map(Self).map_err(|_| RecordIdError)
    }
}

impl Serialize for RecordId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RecordId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        /// Equal means equal when folded, and equal addresses have equal hashes; the Kelvin sign folds
        /// to an ASCII letter.
        #[test]
        fn equality_and_hash_are_of_the_folded_form(
            [a, b] in proptest::array::uniform2("[aAkK\u{212a}]{1,2}[x]{0,70}@[éÉ]{0,1}[bB]"),
        ) {
            use std::hash::BuildHasher as _;
            let [a, b] = [a, b].map(|text| text.parse::<Address>().unwrap());
            proptest::prop_assert_eq!(a == b, a.folded() == b.folded());
            if a == b {
                let state = std::hash::RandomState::new();
                proptest::prop_assert_eq!(state.hash_one(&a), state.hash_one(&b));
            }
        }
    }

    #[test]
    fn addresses() {
        for (name, text, expected) in [
            ("plain", "a@x.example", Ok(("a", "x.example"))),
            ("quoted at", "\"a@b\"@x", Ok(("\"a@b\"", "x"))),
            ("quoted blank", "\"a b\"@x", Ok(("\"a b\"", "x"))),
            ("escaped quote", r#""a\"b"@x"#, Ok((r#""a\"b""#, "x"))),
            ("Unicode", "ünï@exämple", Ok(("ünï", "exämple"))),
            ("no at", "a.example", Err(AddressError::NoAt)),
            ("at in quotes only", "\"a@b\"", Err(AddressError::NoAt)),
            ("nothing before", "@x", Err(AddressError::EmptySide)),
            ("nothing after", "a@", Err(AddressError::EmptySide)),
            ("blank", "a b@x", Err(AddressError::Blank)),
            ("control", "a\u{7}@x", Err(AddressError::Blank)),
            ("open quote", "\"a@x", Err(AddressError::OpenQuote)),
        ] {
            let address = text.parse::<Address>();
            let parts = address.as_ref().map(|a| (a.local_part(), a.domain()));
            assert_eq!(parts, expected.as_ref().copied(), "{name}");
        }
        let longest = "a".repeat(Address::MAX_OCTETS - 2) + "@x";
        assert!(longest.parse::<Address>().is_ok());
        let longer = longest + "y";
        assert_eq!(longer.parse::<Address>(), Err(AddressError::TooLong));
    }

    #[test]
    fn addresses_compare_without_case() {
        let (a, b) = ("Ana@X.example", "ana@x.EXAMPLE");
        assert_eq!(a.parse::<Address>(), b.parse::<Address>());
        assert_eq!(a.parse::<Address>().unwrap().as_str(), a);
    }

    #[test]
    fn message_ids_lose_one_pair_of_brackets() {
        for (text, expected) in [
            (" <a@x> ", Some("a@x")),
            ("a@x", Some("a@x")),
            ("<<a@x>>", Some("<a@x>")),
            ("<>", None),
            ("", None),
        ] {
            assert_eq!(
                MessageId::new(text).as_ref().map(MessageId::as_str),
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn record_ids_read_what_they_print() {
        let id = RecordId::from_octets([0xa5; 16]);
        let text = id.to_string();
        assert_eq!(text.len(), 30);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!("rec_short".parse::<RecordId>(), Err(RecordIdError));
    }
}
