//! Octets of the log's payloads: variable-length numbers, packed texts, addresses.
//!
//! Everything here is written by this program, but it is read back from a disk: decoding checks each
//! length against what is left, never panics, and never allocates more than a small multiple of the
//! input.

use jiff::Timestamp;

use crate::mail::{Address, MessageId};

/// Why octets are no payload of this program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload ends inside a value.
    #[error("the payload ends inside {0}")]
    Short(&'static str),
    /// A value is not one that this program writes.
    #[error("{0} has a value that this program does not write")]
    Value(&'static str),
    /// A newer version wrote it.
    #[error("written in format {0}, which this version does not know; use the newer version")]
    Newer(u8),
}

/// Appends values to a payload.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    octets: Vec<u8>,
    domains: Vec<Box<str>>,
}

impl Writer {
    pub(crate) fn with_capacity(octets: usize) -> Self {
        Self {
            octets: Vec::with_capacity(octets),
            domains: Vec::new(),
        }
    }

    pub(crate) fn into_octets(self) -> Vec<u8> {
        self.octets
    }

    pub(crate) fn octet(&mut self, octet: u8) {
        self.octets.push(octet);
    }

    pub(crate) fn raw(&mut self, octets: &[u8]) {
        self.octets.extend_from_slice(octets);
    }

    /// Seven bits an octet, least significant first (LEB128).
    pub(crate) fn number(&mut self, number: u64) {
        write_varint(&mut self.octets, number);
    }

    /// Milliseconds since 1970, zigzag coded; finer parts are dropped.
    pub(crate) fn time(&mut self, time: Timestamp) {
        let milliseconds = time.as_millisecond();
        self.number(((milliseconds << 1) ^ (milliseconds >> 63)) as u64);
    }

    /// A length and UTF-8; a text that begins with a GUID in lower case has 16 octets for it, as
    /// most ids of Exchange do.
    pub(crate) fn text(&mut self, text: &str) {
        if let Some((guid, rest)) = split_guid(text) {
            self.number((rest.len() as u64) << 1 | 1);
            self.raw(&guid);
            self.raw(rest.as_bytes());
        } else {
            self.number((text.len() as u64) << 1);
            self.raw(text.as_bytes());
        }
    }

    /// A domain is written once in a payload and named by its number after that.
    pub(crate) fn address(&mut self, address: &Address) {
        let domain = address.domain();
        match self.domains.iter().position(|known| &**known == domain) {
            Some(number) => self.number(number as u64 + 1),
            None => {
                self.number(0);
                self.number(domain.len() as u64);
                self.raw(domain.as_bytes());
                if self.domains.len() < KNOWN_DOMAINS {
                    self.domains.push(domain.into());
                }
            }
        }
        self.text(address.local_part());
    }
}

/// Domains that a payload remembers; more are written out each time.
const KNOWN_DOMAINS: usize = 64;

/// LEB128.
pub(crate) fn write_varint(octets: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        octets.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    octets.push(number as u8);
}

/// Takes values from a payload.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    left: &'a [u8],
    domains: Vec<&'a str>,
    /// An address being put together.
    scratch: String,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Self {
        Self {
            left: octets,
            domains: Vec::new(),
            scratch: String::new(),
        }
    }

    /// Octets not yet taken.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    pub(crate) fn octet(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        let (first, rest) = self.left.split_first().ok_or(DecodeError::Short(what))?;
        self.left = rest;
        Ok(*first)
    }

    pub(crate) fn raw(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self
            .left
            .split_at_checked(length)
            .ok_or(DecodeError::Short(what))?;
        self.left = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        what: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let raw = self.raw(N, what)?;
        raw.try_into().map_err(|_| DecodeError::Short(what))
    }

    /// A number in so many octets, at most eight.
    pub(crate) fn little_endian(
        &mut self,
        length: usize,
        what: &'static str,
    ) -> Result<u64, DecodeError> {
        // Nearly always more follows, and a fixed read and a mask are the quickest.
        if let (Some(eight), true) = (self.left.first_chunk::<8>(), length < 8) {
            let rest = self.left.get(length..);
            self.left = rest.ok_or(DecodeError::Short(what))?;
            return Ok(u64::from_le_bytes(*eight) & ((1 << (8 * length)) - 1));
        }
        let raw = self.raw(length, what)?;
        let mut eight = [0; 8];
        eight
            .get_mut(..length)
            .ok_or(DecodeError::Value(what))?
            .copy_from_slice(raw);
        Ok(u64::from_le_bytes(eight))
    }

    pub(crate) fn number(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let octet = self.octet(what)?;
            let bits = u64::from(octet & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(DecodeError::Value(what));
            }
            number |= bits << shift;
            if octet & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(DecodeError::Value(what))
    }

    /// How many values follow, each of at least `smallest` octets: more than can be there is refused.
    pub(crate) fn count(
        &mut self,
        smallest: usize,
        what: &'static str,
    ) -> Result<usize, DecodeError> {
        let count = usize::try_from(self.number(what)?).map_err(|_| DecodeError::Value(what))?;
        if count > self.left.len() / smallest.max(1) {
            return Err(DecodeError::Short(what));
        }
        Ok(count)
    }

    pub(crate) fn time(&mut self, what: &'static str) -> Result<Timestamp, DecodeError> {
        let coded = self.number(what)?;
        let milliseconds = (coded >> 1) as i64 ^ -((coded & 1) as i64);
        Timestamp::from_millisecond(milliseconds).map_err(|_| DecodeError::Value(what))
    }

    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, DecodeError> {
        let (guid, rest) = self.text_parts(what)?;
        Ok(guid.map_or_else(|| rest.to_owned(), |guid| join_guid(&guid, rest)))
    }

    /// The GUID that a text begins with, and the rest of it.
    fn text_parts(
        &mut self,
        what: &'static str,
    ) -> Result<(Option<[u8; 16]>, &'a str), DecodeError> {
        let tagged = self.number(what)?;
        let length = usize::try_from(tagged >> 1).map_err(|_| DecodeError::Value(what))?;
        let guid = (tagged & 1 == 1).then(|| self.array::<16>(what));
        let guid = guid.transpose()?;
        let rest = std::str::from_utf8(self.raw(length, what)?);
        Ok((guid, rest.map_err(|_| DecodeError::Value(what))?))
    }

    pub(crate) fn message_id(&mut self, what: &'static str) -> Result<MessageId, DecodeError> {
        // The id is verbatim: brackets that were kept inside must not be taken off a second time.
        let text = self.text(what)?;
        MessageId::new(&format!("<{text}>")).ok_or(DecodeError::Value(what))
    }

    pub(crate) fn address(&mut self, what: &'static str) -> Result<Address, DecodeError> {
        let number = self.number(what)?;
        let domain = match number.checked_sub(1) {
            Some(known) => {
                let known = usize::try_from(known).map_err(|_| DecodeError::Value(what))?;
                *self.domains.get(known).ok_or(DecodeError::Value(what))?
            }
            None => self.domain(what)?,
        };
        let (guid, rest) = self.text_parts(what)?;
        self.scratch.clear();
        if let Some(guid) = guid {
            self.scratch.push_str(&join_guid(&guid, ""));
        }
        self.scratch.push_str(rest);
        self.scratch.push('@');
        self.scratch.push_str(domain);
        let address = self.scratch.parse();
        address.map_err(|_| DecodeError::Value(what))
    }

    /// A domain written out; it is known from now on.
    fn domain(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let length = usize::try_from(self.number(what)?).map_err(|_| DecodeError::Value(what))?;
        let raw = self.raw(length, what)?;
        let domain = std::str::from_utf8(raw).map_err(|_| DecodeError::Value(what))?;
        if self.domains.len() < KNOWN_DOMAINS {
            self.domains.push(domain);
        }
        Ok(domain)
    }
}

/// Positions of the hyphens in a GUID of 36 characters.
const HYPHENS: [usize; 4] = [8, 13, 18, 23];

/// The octets of a GUID in lower case at the start of `text`, and what follows.
fn split_guid(text: &str) -> Option<([u8; 16], &str)> {
    let (head, rest) = text.split_at_checked(36)?;
    let mut digits = [0u8; 32];
    let mut filled = 0;
    for (position, octet) in head.bytes().enumerate() {
        let hyphen = HYPHENS.contains(&position);
        match octet {
            b'-' if hyphen => {}
            b'0'..=b'9' | b'a'..=b'f' if !hyphen => {
                *digits.get_mut(filled)? = octet;
                filled += 1;
            }
            _ => return None,
        }
    }
    let mut guid = [0u8; 16];
    data_encoding::HEXLOWER
        .decode_mut(&digits, &mut guid)
        .ok()?;
    Some((guid, rest))
}

fn join_guid(guid: &[u8; 16], rest: &str) -> String {
    let digits = data_encoding::HEXLOWER.encode(guid);
    let mut text = String::with_capacity(36 + rest.len());
    for (position, digit) in digits.chars().enumerate() {
        if matches!(position, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_addresses_read_back() {
        for text in [
            "",
            "a",
            "0f8fad5b-d9cb-469f-a165-70867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950e@journal.report.generator",
            "0F8FAD5B-d9cb-469f-a165-70867728950e",
            "0f8fad5b-d9cb-469f-a165-70867728950",
            "ünï-aaaa-bbbb-cccc-dddd-eeee-ffff-gggg-hhhh",
        ] {
            let mut out = Writer::default();
            out.text(text);
            let octets = out.into_octets();
            assert_eq!(Reader::new(&octets).text("text").as_deref(), Ok(text));
        }
        let guid_domain = "a@0f8fad5b-d9cb-469f-a165-70867728950e.example";
        let addresses = ["a@x", "b@x", "c@X", "\"d@x\"@y", guid_domain, guid_domain];
        let mut out = Writer::default();
        for address in addresses {
            out.address(&address.parse().unwrap());
        }
        let octets = out.into_octets();
        let mut reader = Reader::new(&octets);
        for address in addresses {
            assert_eq!(reader.address("address").unwrap().as_str(), address);
        }
    }

    #[test]
    fn numbers_at_the_borders() {
        for number in [0, 127, 128, u64::from(u32::MAX), u64::MAX] {
            let mut octets = Vec::new();
            write_varint(&mut octets, number);
            assert_eq!(Reader::new(&octets).number("n"), Ok(number));
        }
        assert_eq!(
            Reader::new(&[0xff; 11]).number("n"),
            Err(DecodeError::Value("n"))
        );
        assert_eq!(
            Reader::new(&[0x80]).number("n"),
            Err(DecodeError::Short("n"))
        );
    }
}
