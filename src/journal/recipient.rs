//! Recipient lines: `To: a@x, Expanded: dl@x`, `Cc: b@x, Forwarded: c@x` ([MS-XJRNL] 2.1).

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use super::report::{Field, Recipient};
use crate::mail::{Address, AddressError};

/// Blanks of the grammar.
pub(super) const BLANKS: [char; 2] = [' ', '\t'];

/// Reads the value of a recipient line. What names no valid address is no recipient.
///
/// The address ends at the first comma outside quotes that is followed by `Expanded:` or
/// `Forwarded:`; several of these may follow, the first of each counts. A group or mailbox there that
/// is no valid address is left out, and the recipient stays.
///
/// # Errors
///
/// [`AddressError`]: why the recipient's own address is none.
pub(super) fn parse(field: Field, value: &str) -> Result<Recipient, AddressError> {
    let (address, mut rest) = cut(value);
    let mut recipient = Recipient {
        address: unbracketed(address).parse()?,
        field,
        expanded_from: None,
        forwarded_from: None,
    };
    while let Some((redirection, after)) = rest {
        let (path, next) = cut(after);
        rest = next;
        let place = match redirection {
            Redirection::Expanded => &mut recipient.expanded_from,
            Redirection::Forwarded => &mut recipient.forwarded_from,
        };
        if place.is_none() {
            *place = unbracketed(path).parse().ok();
        }
    }
    Ok(recipient)
}

/// How a recipient came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Redirection {
    Expanded,
    Forwarded,
}

/// What stands before the first redirection, and the redirection with what follows it.
fn cut(text: &str) -> (&str, Option<(Redirection, &str)>) {
    if !text.contains(',') {
        return (text, None);
    }
    let (mut quoted, mut escaped) = (false, false);
    for (position, octet) in text.bytes().enumerate() {
        match octet {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                let after = text.get(position + 1..).unwrap_or_default();
                if let Some(found) = redirection(after) {
                    return (text.get(..position).unwrap_or_default(), Some(found));
                }
            }
            _ => {}
        }
    }
    (text, None)
}

/// `Expanded:` or `Forwarded:` after blanks, in any case, and what follows.
fn redirection(text: &str) -> Option<(Redirection, &str)> {
    let text = text.trim_start_matches(BLANKS);
    for (name, redirection) in [
        ("Expanded", Redirection::Expanded),
        ("Forwarded", Redirection::Forwarded),
    ] {
        let Some((word, rest)) = text.split_at_checked(name.len()) else {
            continue;
        };
        if word.eq_ignore_ascii_case(name)
            && let Some(rest) = rest.trim_start_matches(BLANKS).strip_prefix(':')
        {
            return Some((redirection, rest));
        }
    }
    None
}

/// A path without the blanks around it and without one pair of angle brackets.
pub(super) fn unbracketed(path: &str) -> &str {
    let path = path.trim_matches(BLANKS);
    path.strip_prefix('<')
        .and_then(|path| path.strip_suffix('>'))
        .map_or(path, |path| path.trim_matches(BLANKS))
}

/// The recipients of a report that nobody has taken yet, each once.
///
/// To know 100,000 of them again without keeping their text, a 128-bit hash of each is kept, under keys
/// that nobody outside knows: that two differ and have the same hash does not happen.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    pending: Vec<Recipient>,
    seen: HashSet<u128, Plain>,
    keys: (RandomState, RandomState),
    /// Room for what is hashed.
    key: Vec<u8>,
    text: usize,
}

impl Recipients {
    /// Adds a recipient unless the report named it before in the same way.
    pub(super) fn add(&mut self, recipient: Recipient) {
        self.key.clear();
        fold(&recipient, &mut self.key);
        let hash = |keys: &RandomState| {
            let mut hasher = keys.build_hasher();
            hasher.write(&self.key);
            u128::from(hasher.finish())
        };
        let (high, low) = (hash(&self.keys.0), hash(&self.keys.1));
        if self.seen.insert(high << 64 | low) {
            self.text += recipient.memory();
            self.pending.push(recipient);
        }
    }

    /// How many different ones there were, taken ones included.
    pub(super) fn count(&self) -> usize {
        self.seen.len()
    }

    /// How many wait to be taken.
    pub(super) const fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Hands out those that wait.
    pub(super) fn take(&mut self) -> Vec<Recipient> {
        self.text = 0;
        std::mem::take(&mut self.pending)
    }

    /// Octets of memory held, about.
    pub(super) fn memory(&self) -> usize {
        self.text + self.key.capacity() + self.seen.capacity() * (size_of::<u128>() + 1)
    }
}

/// A recipient as one compares it, addresses without regard to case, as octets. UTF-8 has no 0xFF.
fn fold(recipient: &Recipient, key: &mut Vec<u8>) {
    let field = match recipient.field {
        Field::To => b't',
        Field::Cc => b'c',
        Field::Bcc => b'b',
        Field::Recipient => b'r',
    };
    key.push(field);
    for address in [
        Some(&recipient.address),
        recipient.expanded_from.as_ref(),
        recipient.forwarded_from.as_ref(),
    ] {
        key.push(0xff);
        let text = address.map_or("", Address::as_str);
        if text.is_ascii() {
            let start = key.len();
            key.extend_from_slice(text.as_bytes());
            key.get_mut(start..)
                .unwrap_or_default()
                .make_ascii_lowercase();
        } else {
            key.extend_from_slice(text.to_lowercase().as_bytes());
        }
    }
}

/// The keys of [`Recipients::seen`] are hashes already.
#[derive(Debug, Default, Clone, Copy)]
struct Plain;

impl BuildHasher for Plain {
    type Hasher = PlainHasher;

    fn build_hasher(&self) -> PlainHasher {
        PlainHasher(0)
    }
}

/// See [`Plain`].
#[derive(Debug)]
struct PlainHasher(u64);

impl Hasher for PlainHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for octet in octets {
            self.0 = self.0.rotate_left(8) ^ u64::from(*octet);
        }
    }

    fn write_u128(&mut self, value: u128) {
        #[expect(clippy::cast_possible_truncation, reason = "one half of a hash")]
        {
            self.0 = value as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recipient_lines() {
        for (value, expected) in [
            ("a@x", Ok(("a@x", None, None))),
            (" <a@x> ", Ok(("a@x", None, None))),
            ("a@x, Expanded: dl@x", Ok(("a@x", Some("dl@x"), None))),
            ("a@x, Forwarded: <f@x>", Ok(("a@x", None, Some("f@x")))),
            ("a@x,\t EXPANDED : dl@x", Ok(("a@x", Some("dl@x"), None))),
            (
                "a@x, Expanded: dl@x, forwarded: f@x, Expanded: second@x",
                Ok(("a@x", Some("dl@x"), Some("f@x"))),
            ),
            (
                r#""Doe, Expanded: no"@x, Expanded: "d, Forwarded: l"@x"#,
                Ok((
                    r#""Doe, Expanded: no"@x"#,
                    Some(r#""d, Forwarded: l"@x"#),
                    None,
                )),
            ),
            (
                r#""a\", Expanded: b"@x"#,
                Ok((r#""a\", Expanded: b"@x"#, None, None)),
            ),
            ("a@x, Expanded: nobody", Ok(("a@x", None, None))),
            ("a,b@x, Expanded: dl@x", Ok(("a,b@x", Some("dl@x"), None))),
            ("ünï@exämple", Ok(("ünï@exämple", None, None))),
            (
                "IMCEAEX-_O=ORG_CN=A@x",
                Ok(("IMCEAEX-_O=ORG_CN=A@x", None, None)),
            ),
            ("Ana <a@x>", Err(AddressError::Blank)),
            ("a@x, Ana", Err(AddressError::Blank)),
            ("\"a@x, Expanded: dl@x", Err(AddressError::OpenQuote)),
            ("", Err(AddressError::NoAt)),
            ("<>", Err(AddressError::NoAt)),
        ] {
            let found = parse(Field::To, value);
            let parts = found.as_ref().map(|r| {
                (
                    r.address.as_str(),
                    r.expanded_from.as_ref().map(Address::as_str),
                    r.forwarded_from.as_ref().map(Address::as_str),
                )
            });
            assert_eq!(parts, expected.as_ref().copied(), "{value}");
        }
    }

    #[test]
    fn each_once() {
        let mut recipients = Recipients::default();
        for (field, value) in [
            (Field::To, "a@x"),
            (Field::To, "A@X"),
            (Field::Cc, "a@x"),
            (Field::To, "a@x, Expanded: dl@x"),
            (Field::To, "a@x, Expanded: DL@x"),
            (Field::To, "a@x, Forwarded: dl@x"),
            (Field::To, "É@x"),
            (Field::To, "é@x"),
        ] {
            recipients.add(parse(field, value).unwrap());
        }
        assert_eq!(recipients.count(), 5);
        assert_eq!(recipients.take().len(), 5);
        recipients.add(parse(Field::To, "a@x").unwrap());
        assert_eq!((recipients.count(), recipients.pending()), (5, 0));
    }
}
