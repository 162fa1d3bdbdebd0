//! Character sets by name, and text that never fails to decode.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};
use mail_parser::decoders::charsets::{DecoderFnc, map::charset_decoder};

/// How octets become text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Charset {
    /// UTF-8, US-ASCII, none given or one that nobody knows: UTF-8, else Windows-1252.
    Utf8,
    /// One that the WHATWG Encoding Standard knows, the Asian ones included.
    Known(&'static Encoding),
    /// ISO-2022-KR (RFC 1557): EUC-KR between SO and SI.
    Iso2022Kr,
    /// HZ-GB-2312 (RFC 1843): GB 2312 between `~{` and `~}`.
    Hz,
    /// One that mail-parser knows besides: UTF-7, IBM code pages.
    Other(DecoderFnc),
}

impl Charset {
    /// The character set of that name (IANA names and aliases, any case).
    pub(super) fn named(name: &[u8]) -> Self {
        let name = name.trim_ascii();
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if name.is_empty() || is("utf-8") || is("us-ascii") || is("utf8") || is("ascii") {
            return Self::Utf8;
        }
        if is("iso-2022-kr") || is("csiso2022kr") {
            return Self::Iso2022Kr;
        }
        if is("hz-gb-2312") {
            return Self::Hz;
        }
        match Encoding::for_label_no_replacement(name) {
            Some(encoding) if encoding == UTF_8 => Self::Utf8,
            Some(encoding) => Self::Known(encoding),
            None => charset_decoder(name).map_or(Self::Utf8, Self::Other),
        }
    }

    /// Whether an ASCII octet always stands for itself, so that lines can be cut before decoding.
    pub(super) fn has_octet_lines(self) -> bool {
        !matches!(self, Self::Known(encoding) if encoding == UTF_16LE || encoding == UTF_16BE)
    }

    /// A decoder for a stream; `None` if its octets can be read as UTF-8 as they are.
    pub(super) fn stream(self) -> Option<encoding_rs::Decoder> {
        match self {
            Self::Known(encoding) => Some(encoding.new_decoder()),
            Self::Utf8 | Self::Iso2022Kr | Self::Hz | Self::Other(_) => None,
        }
    }

    /// Text in this character set; what is not valid in it is tried as UTF-8, then Windows-1252.
    pub(super) fn decode(self, octets: &[u8]) -> Cow<'_, str> {
        let decoded = match self {
            Self::Utf8 => None,
            Self::Known(encoding) => {
                encoding.decode_without_bom_handling_and_without_replacement(octets)
            }
            Self::Iso2022Kr => shifted(octets, encoding_rs::EUC_KR, (b"\x0e", b"\x0f")),
            Self::Hz => shifted(octets, encoding_rs::GB18030, (b"~{", b"~}")),
            Self::Other(decode) => Some(Cow::Owned(decode(octets))),
        };
        decoded.unwrap_or_else(|| utf8_or_windows_1252(octets))
    }
}

/// UTF-8 if it is valid, else Windows-1252, in which every octet is a character.
pub(super) fn utf8_or_windows_1252(octets: &[u8]) -> Cow<'_, str> {
    str::from_utf8(octets).map_or_else(
        |_| WINDOWS_1252.decode_without_bom_handling(octets).0,
        Cow::Borrowed,
    )
}

/// Seven-bit text that shifts between ASCII and a double-octet set whose eight-bit form is `set`.
fn shifted<'a>(
    octets: &'a [u8],
    set: &'static Encoding,
    (open, close): (&[u8], &[u8]),
) -> Option<Cow<'a, str>> {
    let (mut raised, mut rest, mut raise) = (Vec::with_capacity(octets.len()), octets, false);
    while let Some((&octet, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(if raise { close } else { open }) {
            raise = !raise;
            rest = after;
        } else if rest.starts_with(b"\x1b$)C") {
            // The designation that begins an ISO-2022-KR text.
            rest = rest.get(4..).unwrap_or_default();
        } else {
            raised.push(if raise && octet.is_ascii_graphic() {
                octet | 0x80
            } else {
                octet
            });
            rest = after;
        }
    }
    let decoded = set.decode_without_bom_handling_and_without_replacement(&raised)?;
    Some(Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets() {
        for (charset, octets, expected) in [
            ("", &b"caf\xc3\xa9"[..], "café"),
            ("us-ascii", b"caf\xc3\xa9", "café"),
            ("us-ascii", b"caf\xe9", "café"),
            ("UTF-8", b"caf\xe9", "café"),
            ("iso-8859-1", b"\x80 \xe9", "€ é"),
            ("windows-1251", b"\xcf\xf0\xe8\xe2\xe5\xf2", "Привет"),
            ("koi8-r", b"\xf0\xd2\xc9\xd7\xc5\xd4", "Привет"),
            ("iso-2022-jp", b"\x1b$B4A;z\x1b(B", "漢字"),
            ("shift_jis", b"\x8a\xbf\x8e\x9a", "漢字"),
            ("gb18030", b"\xba\xba\xd7\xd6", "汉字"),
            ("gb2312", b"\xba\xba\xd7\xd6", "汉字"),
            ("big5", b"\xba\x7e\xa6\x72", "漢字"),
            ("ks_c_5601-1987", b"\xc7\xd1\xb1\xdb", "한글"),
            ("iso-2022-kr", b"\x1b$)C\x0eGQ1[\x0f!", "한글!"),
            ("hz-gb-2312", b"a~{::WV~}b", "a汉字b"),
            ("utf-7", b"+ZYeB9FH6ckh5Pg-!", "文致出版社!"),
            ("ibm850", b"\x9b", "ø"),
            ("gb18030 broken", b"\xff", "ÿ"),
            ("big5", b"caf\xc3\xa9!", "caf矇!"),
            ("windows-1253", b"\xd2", "Ò"),
            ("no-such-charset", b"\xe9", "é"),
        ] {
            assert_eq!(
                Charset::named(charset.as_bytes()).decode(octets),
                expected,
                "{charset}"
            );
        }
    }
}
