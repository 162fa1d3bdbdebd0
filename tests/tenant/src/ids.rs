//! Ids of messages and folders, in the look of Exchange: base64 text that says nothing to a client.
//!
//! An id names its tenant, mailbox and item, so that no table is needed to find what it means, and it
//! carries a check sum, so that a mangled one is found out. A *default* id also holds the generation of
//! the item, which each move raises; an *immutable* id does not, so it survives moves.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use crate::random;

/// What kind of thing an id names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A message by the id that changes when it moves.
    Default,
    /// A message by the id that stays.
    Immutable,
    /// A folder.
    Folder,
    /// An attachment; `item` is the message, `generation` the position.
    Attachment,
}

/// An id, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id {
    /// What it names.
    pub(crate) kind: Kind,
    /// Which tenant ([`tenant_tag`]).
    pub(crate) tenant: u64,
    /// Number of the mailbox in its tenant.
    pub(crate) mailbox: u32,
    /// Number of the item or folder in its mailbox.
    pub(crate) item: u32,
    /// How often the item had moved; 0 for the other kinds.
    pub(crate) generation: u16,
}

/// Octets of an id: 53, so that the text ends with "=".
const LENGTH: usize = 53;
/// Octets at the front that carry something: kind, check sum, then masked fields.
const FIELDS: std::ops::Range<usize> = 7..25;

/// The number that ids of a tenant carry.
pub(crate) fn tenant_tag(tenant_id: &str) -> u64 {
    random::hash(1, &[tenant_id.as_bytes()])
}

impl Id {
    /// The id as text; `slashes` takes the alphabet with "+" and "/" that older ids show.
    pub(crate) fn text(&self, slashes: bool) -> String {
        let mut octets = [0_u8; LENGTH];
        octets[..3].copy_from_slice(&self.kind.prefix());
        let fields = self.fields();
        let check = check(self.kind, &fields);
        octets[3..7].copy_from_slice(&check);
        octets[FIELDS].copy_from_slice(&fields);
        let mask = mask(check);
        for (octet, mask) in octets[FIELDS.start..].iter_mut().zip(mask) {
            *octet ^= mask;
        }
        if slashes {
            STANDARD.encode(octets)
        } else {
            URL_SAFE.encode(octets)
        }
    }

    /// Reads an id in either alphabet; `None` if it is malformed.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let octets = URL_SAFE
            .decode(text)
            .or_else(|_| STANDARD.decode(text))
            .ok()?;
        let mut octets: [u8; LENGTH] = octets.try_into().ok()?;
        let kind = Kind::of([octets[0], octets[1], octets[2]])?;
        let sum: [u8; 4] = octets[3..7].try_into().ok()?;
        for (octet, mask) in octets[FIELDS.start..].iter_mut().zip(mask(sum)) {
            *octet ^= mask;
        }
        let fields: [u8; 18] = octets[FIELDS].try_into().ok()?;
        let padded = octets[FIELDS.end..].iter().any(|octet| *octet != 0);
        (check(kind, &fields) == sum && !padded).then(|| Self {
            kind,
            tenant: u64::from_be_bytes(fields[..8].try_into().unwrap_or_default()),
            mailbox: u32::from_be_bytes(fields[8..12].try_into().unwrap_or_default()),
            item: u32::from_be_bytes(fields[12..16].try_into().unwrap_or_default()),
            generation: u16::from_be_bytes(fields[16..].try_into().unwrap_or_default()),
        })
    }

    fn fields(&self) -> [u8; 18] {
        let mut fields = [0; 18];
        fields[..8].copy_from_slice(&self.tenant.to_be_bytes());
        fields[8..12].copy_from_slice(&self.mailbox.to_be_bytes());
        fields[12..16].copy_from_slice(&self.item.to_be_bytes());
        fields[16..].copy_from_slice(&self.generation.to_be_bytes());
        fields
    }
}

impl Kind {
    /// The first three octets, which give "AAMk", "AAkA", "AQMk" and "AAMl".
    const fn prefix(self) -> [u8; 3] {
        match self {
            Self::Default => [0, 3, 0x24],
            Self::Immutable => [0, 9, 0],
            Self::Folder => [1, 3, 0x24],
            Self::Attachment => [0, 3, 0x25],
        }
    }

    fn of(prefix: [u8; 3]) -> Option<Self> {
        [
            Self::Default,
            Self::Immutable,
            Self::Folder,
            Self::Attachment,
        ]
        .into_iter()
        .find(|kind| kind.prefix() == prefix)
    }
}

fn check(kind: Kind, fields: &[u8]) -> [u8; 4] {
    let sum = random::hash(2, &[&kind.prefix(), fields]);
    let octets = sum.to_be_bytes();
    [octets[0], octets[1], octets[2], octets[3]]
}

/// Octets that hide the fields, so that ids of neighbours look nothing alike.
fn mask(check: [u8; 4]) -> impl Iterator<Item = u8> {
    let mut random = random::Random::new(u64::from(u32::from_be_bytes(check)));
    std::iter::from_fn(move || Some(random.next().to_be_bytes())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        for kind in [Kind::Default, Kind::Immutable, Kind::Folder] {
            for item in 0..500 {
                let id = Id {
                    kind,
                    tenant: tenant_tag("t"),
                    mailbox: 70_000,
                    item,
                    generation: 3,
                };
                for slashes in [false, true] {
                    let text = id.text(slashes);
                    assert_eq!(Id::parse(&text), Some(id), "{text}");
                    assert_eq!(
                        Id::parse(&text.to_lowercase()),
                        None,
                        "case matters in {text}"
                    );
                    assert!(text.ends_with('='), "{text}");
                }
            }
        }
    }

    #[test]
    fn mangled_ids_are_refused() {
        let id = Id {
            kind: Kind::Default,
            tenant: 1,
            mailbox: 2,
            item: 3,
            generation: 4,
        };
        let text = id.text(false);
        for (name, mangled) in [
            ("empty", String::new()),
            ("cut", text[..40].to_owned()),
            (
                "one character changed",
                text.replacen(
                    &text[30..31],
                    if &text[30..31] == "x" { "y" } else { "x" },
                    1,
                ),
            ),
            ("blank for plus", text.replace('-', " ") + " "),
        ] {
            assert_eq!(Id::parse(&mangled), None, "{name}");
        }
    }
}
