//! Content-Transfer-Encoding undone while octets stream by (RFC 2045 §6).
//!
//! Lenient, as mail readers are: octets outside the base64 alphabet are passed over, padding may be
//! missing or stand in the middle, and what is no quoted-printable escape stays as it is.

use memchr::memchr;

use super::word::hex;

/// Blanks that may stand between the `=` of a soft line break and the line end.
const SOFT_BREAK_BLANKS: usize = 64;

/// A decoder with the state between two runs of octets.
#[derive(Debug)]
pub(super) enum Transfer {
    /// 7bit, 8bit, binary: as it stands.
    Identity,
    /// RFC 2045 §6.8.
    Base64(Base64),
    /// RFC 2045 §6.7.
    QuotedPrintable(QuotedPrintable),
}

impl Transfer {
    /// The decoder for a Content-Transfer-Encoding; `None` for one that nobody knows.
    pub(super) fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("base64") {
            Some(Self::base64())
        } else if is("quoted-printable") {
            Some(Self::QuotedPrintable(QuotedPrintable::default()))
        } else if name.is_empty() || is("7bit") || is("8bit") || is("binary") {
            Some(Self::Identity)
        } else {
            None
        }
    }

    /// A base64 decoder.
    pub(super) fn base64() -> Self {
        Self::Base64(Base64::default())
    }

    /// Whether octets pass as they stand.
    pub(super) const fn is_identity(&self) -> bool {
        matches!(self, Self::Identity)
    }

    /// Decodes the next octets; `buffer` is room that may be reused for the next call.
    pub(super) fn decode<'a>(&mut self, octets: &'a [u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Identity => octets,
            Self::Base64(base64) => base64.decode(octets, buffer),
            Self::QuotedPrintable(quoted) => {
                buffer.clear();
                quoted.decode(octets, buffer);
                buffer
            }
        }
    }

    /// The stream has ended: the octets that were still held back.
    pub(super) fn finish<'a>(&mut self, buffer: &'a mut Vec<u8>) -> &'a [u8] {
        buffer.clear();
        match self {
            Self::Identity => {}
            Self::Base64(base64) => base64.flush(buffer),
            Self::QuotedPrintable(quoted) => quoted.finish(buffer),
        }
        buffer
    }
}

/// Marks an octet outside the alphabet; above the 24 bits of a group.
const INVALID: u32 = 1 << 31;

/// Value of each octet in the base64 alphabet, shifted to its place in a group of four.
const fn alphabet(shift: u32) -> [u32; 256] {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut table = [INVALID; 256];
    let mut value = 0_u32;
    while value < 64 {
        #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        {
            table[LETTERS[value as usize] as usize] = value << shift;
        }
        value += 1;
    }
    table
}

static FIRST: [u32; 256] = alphabet(18);
static SECOND: [u32; 256] = alphabet(12);
static THIRD: [u32; 256] = alphabet(6);
static FOURTH: [u32; 256] = alphabet(0);

#[inline]
#[expect(
    clippy::indexing_slicing,
    reason = "a table of 256 entries indexed by an octet"
)]
fn group(&[a, b, c, d]: &[u8; 4]) -> u32 {
    FIRST[usize::from(a)] | SECOND[usize::from(b)] | THIRD[usize::from(c)] | FOURTH[usize::from(d)]
}

/// Base64 between two runs of octets.
#[derive(Debug, Default)]
pub(super) struct Base64 {
    bits: u32,
    /// Characters of the group that is being read: 0 to 3.
    count: u8,
}

impl Base64 {
    fn decode<'a>(&mut self, octets: &[u8], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        // Never less than what comes out: three octets for four, and a group held from before.
        let room = octets.len() / 4 * 3 + 6;
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let (mut written, mut rest) = (0, octets);
        while !rest.is_empty() {
            if self.count == 0 {
                let out = buffer.get_mut(written..).unwrap_or_default();
                let groups = whole_groups(rest, out);
                written += groups * 3;
                rest = rest.get(groups * 4..).unwrap_or_default();
            }
            let Some((&octet, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            let (octets, count) = self.push(octet);
            for (from, to) in octets
                .iter()
                .take(count)
                .zip(buffer.get_mut(written..).unwrap_or_default())
            {
                *to = *from;
            }
            written += count;
        }
        buffer.get(..written).unwrap_or_default()
    }

    /// One octet that is not part of a whole valid group in one piece.
    fn push(&mut self, octet: u8) -> ([u8; 3], usize) {
        let value = group(&[b'A', b'A', b'A', octet]);
        if value & INVALID == 0 {
            self.bits = self.bits << 6 | value;
            self.count += 1;
            if self.count == 4 {
                let [_, a, b, c] = self.bits.to_be_bytes();
                *self = Self::default();
                return ([a, b, c], 3);
            }
        } else if octet == b'=' {
            return self.take();
        }
        ([0; 3], 0)
    }

    /// What a group that ended early says.
    fn take(&mut self) -> ([u8; 3], usize) {
        let (bits, count) = (self.bits, self.count);
        *self = Self::default();
        match count {
            2 => {
                let [.., a] = (bits >> 4).to_be_bytes();
                ([a, 0, 0], 1)
            }
            3 => {
                let [_, _, a, b] = (bits >> 2).to_be_bytes();
                ([a, b, 0], 2)
            }
            _ => ([0; 3], 0),
        }
    }

    fn flush(&mut self, buffer: &mut Vec<u8>) {
        let (octets, count) = self.take();
        buffer.extend(octets.iter().take(count));
    }
}

/// Decodes groups of four from the start of `octets` until one is not whole; how many.
fn whole_groups(octets: &[u8], out: &mut [u8]) -> usize {
    let (groups, _) = octets.as_chunks::<4>();
    let (triples, _) = out.as_chunks_mut::<3>();
    let mut decoded = 0;
    for (four, three) in groups.iter().zip(triples) {
        let bits = group(four);
        if bits & INVALID != 0 {
            break;
        }
        let [_, a, b, c] = bits.to_be_bytes();
        *three = [a, b, c];
        decoded += 1;
    }
    decoded
}

/// Quoted-printable between two runs of octets: an escape that is not complete yet.
#[derive(Debug, Default)]
pub(super) struct QuotedPrintable {
    /// `=` and what followed it.
    held: Vec<u8>,
}

impl QuotedPrintable {
    fn decode(&mut self, octets: &[u8], out: &mut Vec<u8>) {
        let mut rest = octets;
        while !rest.is_empty() {
            if self.held.is_empty() {
                let plain = memchr(b'=', rest).unwrap_or(rest.len());
                let (text, escape) = rest.split_at_checked(plain).unwrap_or((rest, &[]));
                out.extend_from_slice(text);
                rest = match escape {
                    [] => return,
                    // The two that nearly all escapes are, in one piece.
                    [_, b'\r', b'\n', after @ ..] => after,
                    [_, a, b, after @ ..] if hex(&[*a, *b]).is_some() => {
                        out.extend(hex(&[*a, *b]));
                        after
                    }
                    [equals, after @ ..] => {
                        self.held.push(*equals);
                        after
                    }
                };
                continue;
            }
            let Some((&octet, after)) = rest.split_first() else {
                return;
            };
            if self.push(octet, out) {
                rest = after;
            }
        }
    }

    /// One octet after an `=`; false if the escape ended before it.
    fn push(&mut self, octet: u8, out: &mut Vec<u8>) -> bool {
        match (self.held.as_slice(), octet) {
            ([b'='], _) if octet.is_ascii_hexdigit() => self.held.push(octet),
            ([b'=', first], _) if first.is_ascii_hexdigit() => {
                match hex(&[*first, octet]) {
                    Some(value) => out.push(value),
                    None => {
                        out.append(&mut self.held);
                        return false;
                    }
                }
                self.held.clear();
            }
            (_, b'\n') => self.held.clear(),
            ([.., last], b' ' | b'\t')
                if *last != b'\r' && self.held.len() <= SOFT_BREAK_BLANKS =>
            {
                self.held.push(octet);
            }
            (_, b'\r') if self.held.len() <= SOFT_BREAK_BLANKS => self.held.push(octet),
            _ => {
                out.append(&mut self.held);
                return false;
            }
        }
        true
    }

    fn finish(&mut self, out: &mut Vec<u8>) {
        // A soft line break at the very end: its line break belongs to the delimiter.
        let soft = self.held.iter().skip(1).all(u8::is_ascii_whitespace);
        if !soft {
            out.append(&mut self.held);
        }
        self.held.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(name: &str, pieces: &[&[u8]]) -> Vec<u8> {
        let mut transfer = Transfer::named(name.as_bytes()).unwrap();
        let (mut buffer, mut decoded) = (Vec::new(), Vec::new());
        for piece in pieces {
            decoded.extend_from_slice(transfer.decode(piece, &mut buffer));
        }
        decoded.extend_from_slice(transfer.finish(&mut buffer));
        decoded
    }

    #[test]
    fn decoders() {
        for (name, octets, expected) in [
            ("7bit", "a=3D", "a=3D"),
            ("base64", "aGVsbG8=", "hello"),
            ("BASE64", "aGVs\r\nbG8=\r\n", "hello"),
            ("base64", "aGVsbG8", "hello"),
            ("base64", "aGk=aGk=", "hihi"),
            ("base64", "a*G\u{e9}Vs", "hel"),
            ("base64", "a", ""),
            ("quoted-printable", "a=3D=\r\nb=\nc", "a=bc"),
            ("quoted-printable", "a= \t\r\nb", "ab"),
            ("quoted-printable", "a=\r\r\nb", "ab"),
            ("quoted-printable", "=e9=E", "\u{fffd}=E"),
            ("quoted-printable", "a=b=zz=", "a=b=zz"),
            ("quoted-printable", "= a", "= a"),
            ("quoted-printable", "=4=41", "=4A"),
        ] {
            let decoded = decode(name, &[octets.as_bytes()]);
            assert_eq!(String::from_utf8_lossy(&decoded), expected, "{octets}");
        }
        assert!(Transfer::named(b"x-uuencode").is_none());
    }

    proptest! {
        /// Where the network cuts the stream changes nothing.
        #[test]
        fn chunking_is_invisible(octets in "[A-D=\r\n 3z]{0,60}", cut in 0usize..60, name in "base64|quoted-printable") {
            let octets = octets.as_bytes();
            let (head, tail) = octets.split_at(cut.min(octets.len()));
            prop_assert_eq!(decode(&name, &[head, tail]), decode(&name, &[octets]));
        }

        /// Decoding undoes encoding.
        #[test]
        fn base64_reads_what_others_write(octets: Vec<u8>) {
            let text = data_encoding::BASE64_MIME.encode(&octets);
            prop_assert_eq!(decode("base64", &[text.as_bytes()]), octets);
        }
    }
}
