//! Encoded words (RFC 2047) and extended parameters (RFC 2231). Linear in the input, never fails.

use memchr::{memchr, memmem};

use super::charset::{Charset, utf8_or_windows_1252};

/// Longest name of a character set in an encoded word, with its language (RFC 2231 §5).
const CHARSET_OCTETS: usize = 64;

/// Unfolded text with its encoded words decoded. Words side by side in one character set are decoded
/// together, since mailers cut them in the middle of a character.
pub(super) fn decode(octets: &[u8]) -> String {
    if memmem::find(octets, b"=?").is_none() {
        return utf8_or_windows_1252(octets).into_owned();
    }
    let mut text = String::with_capacity(octets.len());
    let mut pending: Option<(&[u8], Vec<u8>)> = None;
    let (mut plain, mut rest) = (octets, octets);
    while let Some(at) = memmem::find(rest, b"=?") {
        let (_, candidate) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        let Some(word) = encoded_word(candidate) else {
            rest = candidate.get(2..).unwrap_or_default();
            continue;
        };
        let before = plain.len() - candidate.len();
        let before = plain.get(..before).unwrap_or_default();
        let adjacent = pending.is_some() && before.trim_ascii().is_empty();
        match &mut pending {
            Some((charset, decoded)) if adjacent && charset.eq_ignore_ascii_case(word.charset) => {
                decoded.extend_from_slice(&word.decoded);
            }
            _ => {
                flush(&mut pending, &mut text);
                if !adjacent {
                    text.push_str(&utf8_or_windows_1252(before));
                }
                pending = Some((word.charset, word.decoded));
            }
        }
        rest = candidate.get(word.length..).unwrap_or_default();
        plain = rest;
    }
    flush(&mut pending, &mut text);
    text.push_str(&utf8_or_windows_1252(plain));
    text
}

fn flush(pending: &mut Option<(&[u8], Vec<u8>)>, text: &mut String) {
    if let Some((charset, decoded)) = pending.take() {
        text.push_str(&Charset::named(charset).decode(&decoded));
    }
}

/// An encoded word at the start of some text.
struct Word<'a> {
    charset: &'a [u8],
    decoded: Vec<u8>,
    length: usize,
}

/// `=?charset?B?text?=` or `=?charset?Q?text?=` at the start of `octets`.
fn encoded_word(octets: &[u8]) -> Option<Word<'_>> {
    let body = octets.strip_prefix(b"=?")?;
    let window = body.get(..CHARSET_OCTETS).unwrap_or(body);
    let (charset, rest) = body.split_at_checked(memchr(b'?', window)?)?;
    if charset.is_empty() || !charset.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    let (method, rest) = rest.get(1..)?.split_first()?;
    let rest = rest.strip_prefix(b"?")?;
    let (text, rest) = rest.split_at_checked(memchr(b'?', rest)?)?;
    let rest = rest.strip_prefix(b"?=")?;
    let decoded = match method {
        b'B' | b'b' => base64(text),
        b'Q' | b'q' => quoted(text),
        _ => return None,
    };
    let language = memchr(b'*', charset).unwrap_or(charset.len());
    Some(Word {
        charset: charset.get(..language).unwrap_or(charset),
        decoded,
        length: octets.len() - rest.len(),
    })
}

/// The "B" encoding, leniently: padding may be missing, other octets are passed over.
fn base64(text: &[u8]) -> Vec<u8> {
    let mut transfer = super::transfer::Transfer::base64();
    let mut buffer = Vec::new();
    let mut decoded = transfer.decode(text, &mut buffer).to_vec();
    decoded.extend_from_slice(transfer.finish(&mut buffer));
    decoded
}

/// The "Q" encoding (RFC 2047 §4.2).
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        rest = after;
        match octet {
            b'_' => decoded.push(b' '),
            b'=' => match hex(after) {
                Some(value) => {
                    decoded.push(value);
                    rest = after.get(2..).unwrap_or_default();
                }
                None => decoded.push(octet),
            },
            _ => decoded.push(octet),
        }
    }
    decoded
}

/// The octet that two hexadecimal digits at the start of `digits` give.
pub(super) fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |octet: Option<&u8>| char::from(*octet?).to_digit(16);
    u8::try_from(digit(digits.first())? * 16 + digit(digits.get(1))?).ok()
}

/// Undoes percent-encoding; what is no escape stays.
pub(super) fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&octet, after)) = rest.split_first() {
        match (octet == b'%').then(|| hex(after)).flatten() {
            Some(value) => {
                decoded.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                decoded.push(octet);
                rest = after;
            }
        }
    }
    decoded
}

/// The RFC 2231 forms of a parameter (`name*`, `name*0`, `name*0*`, …), joined and decoded.
pub(super) fn extended(name: &str, parameters: &[(Vec<u8>, Vec<u8>)]) -> Option<String> {
    let mut pieces = Vec::new();
    for (parameter, value) in parameters {
        let Some(rest) = parameter.strip_prefix(name.as_bytes()) else {
            continue;
        };
        let Some(rest) = rest.strip_prefix(b"*") else {
            continue;
        };
        let (number, encoded) = match rest.strip_suffix(b"*") {
            _ if rest.is_empty() => (0, true),
            Some(number) => (number_of(number)?, true),
            None => (number_of(rest)?, false),
        };
        pieces.push((number, encoded, value));
    }
    pieces.sort_by_key(|&(number, ..)| number);
    let &(first, encoded, _) = pieces.first()?;
    if first != 0 {
        return None;
    }
    let (mut charset, mut octets) = (Charset::Utf8, Vec::new());
    for (index, (_, piece_encoded, value)) in pieces.into_iter().enumerate() {
        let mut value = value.as_slice();
        if index == 0 && encoded {
            let mut parts = value.splitn(3, |&octet| octet == b'\'');
            if let (Some(name), Some(_), Some(text)) = (parts.next(), parts.next(), parts.next()) {
                charset = Charset::named(name);
                value = text;
            }
        }
        if piece_encoded {
            octets.extend(percent_decoded(value));
        } else {
            octets.extend_from_slice(value);
        }
    }
    if !encoded && memmem::find(&octets, b"=?").is_some() {
        return Some(decode(&octets));
    }
    Some(charset.decode(&octets).into_owned())
}

fn number_of(digits: &[u8]) -> Option<u32> {
    str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encoded_words() {
        for (text, expected) in [
            ("plain", "plain"),
            ("=?utf-8?Q?R=C3=A9union_?= x", "Réunion  x"),
            ("a =?utf-8?B?w6k=?= b", "a é b"),
            ("=?utf-8?B?w6k?=", "é"),
            ("=?utf-8?Q?a?= \t =?utf-8?Q?b?=", "ab"),
            ("=?utf-8?Q?=C3?= =?UTF-8?Q?=A9?=", "é"),
            ("=?utf-8?Q?a?= =?iso-8859-1?Q?=e9?=", "aé"),
            ("=?iso-8859-1*fr?Q?=e9?=", "é"),
            ("=?utf-8?X?a?=", "=?utf-8?X?a?="),
            ("=?utf-8?Q?open", "=?utf-8?Q?open"),
            ("=?=?utf-8?Q?a?=", "=?a"),
            ("=?utf-8?Q?a?b?=", "=?utf-8?Q?a?b?="),
            ("=?iso-2022-jp?B?GyRCNEE7ehsoQg==?=", "漢字"),
        ] {
            assert_eq!(decode(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(decode(b"caf\xe9"), "café");
    }
}
