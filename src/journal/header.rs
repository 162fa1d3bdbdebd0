//! Header blocks: where one ends, its fields, unfolding, parameters (RFC 5322 §2.2, RFC 2045 §5.1).
//!
//! Octets in; fields and values out. Nothing fails: what is no field is passed over.

use std::borrow::Cow;

use memchr::memchr;

use super::word;

/// Most parameters that are read of one field: RFC 2231 cuts a long file name into many.
const PARAMETERS: usize = 256;

/// Gathers a header block until its empty line, up to a bound.
#[derive(Debug)]
pub(super) struct Collector {
    block: Vec<u8>,
    limit: usize,
    over: bool,
    /// The line that is being read has nothing but CRs so far.
    blank: bool,
}

impl Collector {
    /// A collector that keeps no more than `limit` octets.
    pub(super) const fn new(limit: usize) -> Self {
        Self {
            block: Vec::new(),
            limit,
            over: false,
            blank: true,
        }
    }

    /// Takes octets until the block ends; then says how many of them belong to it.
    pub(super) fn push(&mut self, octets: &[u8]) -> Option<usize> {
        let mut rest = octets;
        while let Some(length) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after.get(1..).unwrap_or_default();
            if self.blank && line.iter().all(|&octet| octet == b'\r') {
                let used = octets.len() - rest.len();
                self.keep(octets.get(..used).unwrap_or_default());
                return Some(used);
            }
            self.blank = true;
        }
        self.blank = self.blank && rest.iter().all(|&octet| octet == b'\r');
        self.keep(octets);
        None
    }

    /// Whether the bound was passed. The block is then dropped.
    pub(super) const fn over(&self) -> bool {
        self.over
    }

    /// The block, its empty line included.
    pub(super) fn block(&self) -> &[u8] {
        &self.block
    }

    /// Octets of memory held.
    pub(super) fn memory(&self) -> usize {
        self.block.capacity()
    }

    fn keep(&mut self, octets: &[u8]) {
        if self.over {
            return;
        }
        if self.block.len() + octets.len() > self.limit {
            self.over = true;
            self.block = Vec::new();
        } else {
            self.block.extend_from_slice(octets);
        }
    }
}

/// One header field, still folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Field<'a> {
    /// Field name as it stands.
    pub(super) name: &'a [u8],
    /// What follows the colon, line breaks included.
    pub(super) value: &'a [u8],
}

impl<'a> Field<'a> {
    /// Whether this is the field of that name (without regard to case).
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value unfolded (RFC 5322 §2.2.3) and trimmed.
    pub(super) fn unfolded(&self) -> Cow<'a, [u8]> {
        let value = self.value.trim_ascii();
        if memchr(b'\n', value).is_none() {
            return Cow::Borrowed(value);
        }
        let mut unfolded = Vec::with_capacity(value.len());
        for line in value.split(|&octet| octet == b'\n') {
            let end = line.iter().rposition(|&octet| octet != b'\r');
            unfolded.extend_from_slice(end.and_then(|end| line.get(..=end)).unwrap_or_default());
        }
        Cow::Owned(unfolded.trim_ascii().to_vec())
    }

    /// The value as text: unfolded, RFC 2047 decoded, eight-bit octets as UTF-8 or else Windows-1252.
    pub(super) fn text(&self) -> String {
        word::decode(&self.unfolded())
    }
}

/// The fields of a header block, in order.
pub(super) fn fields(block: &[u8]) -> Fields<'_> {
    Fields { rest: block }
}

/// See [`fields`].
#[derive(Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        while !self.rest.is_empty() {
            let mut length = 0;
            loop {
                let rest = self.rest.get(length..).unwrap_or_default();
                length += memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
                if !matches!(self.rest.get(length), Some(b' ' | b'\t')) {
                    break;
                }
            }
            let (line, rest) = self
                .rest
                .split_at_checked(length)
                .unwrap_or((self.rest, &[]));
            self.rest = rest;
            if let Some(field) = field(line) {
                return Some(field);
            }
        }
        None
    }
}

/// A line with its continuation lines as a field, if it has a name (RFC 5322 §2.2, §4.5: blanks may
/// stand before the colon).
fn field(line: &[u8]) -> Option<Field<'_>> {
    let (name, value) = line.split_at_checked(memchr(b':', line)?)?;
    let name = match name {
        [.., b' ' | b'\t'] => name.trim_ascii_end(),
        name => name,
    };
    let visible = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
    visible.then(|| Field {
        name,
        value: value.get(1..).unwrap_or_default(),
    })
}

/// A value with parameters: `Content-Type`, `Content-Disposition`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Parameterised {
    /// What stands before the first `;`, lower case, without blanks and comments.
    pub(super) value: String,
    parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Parameterised {
    /// Reads an unfolded value.
    pub(super) fn parse(text: &[u8]) -> Self {
        let mut rest = text;
        let value = token(&mut rest);
        let mut parsed = Self {
            value: String::from_utf8_lossy(&value).to_ascii_lowercase(),
            parameters: Vec::new(),
        };
        while let Some((b';', after)) = rest.split_first() {
            rest = after;
            let name_length = memchr::memchr2(b'=', b';', rest).unwrap_or(rest.len());
            let (name, after) = rest.split_at_checked(name_length).unwrap_or((rest, &[]));
            rest = after;
            let Some((b'=', after)) = rest.split_first() else {
                continue;
            };
            rest = after;
            let value = token(&mut rest);
            if parsed.parameters.len() < PARAMETERS {
                let name = name.trim_ascii().to_ascii_lowercase();
                parsed.parameters.push((name, value));
            }
        }
        parsed
    }

    /// A parameter as it stands, the first of its name.
    pub(super) fn octets(&self, name: &str) -> Option<&[u8]> {
        let named = |(parameter, _): &&(Vec<u8>, Vec<u8>)| parameter == name.as_bytes();
        let (_, value) = self.parameters.iter().find(named)?;
        Some(value)
    }

    /// A parameter as text, with RFC 2231 continuations and character sets, and with RFC 2047 words,
    /// which many mailers write in its place.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        word::extended(name, &self.parameters)
            .or_else(|| self.octets(name).map(word::decode))
            .filter(|text| !text.is_empty())
    }
}

/// A token or quoted string up to the next `;`, which is left in `rest`. Comments go, blanks around
/// go, blanks within an unquoted value stay: mailers forget the quotes around file names.
fn token(rest: &mut &[u8]) -> Vec<u8> {
    let mut value = Vec::new();
    let (mut quoted_once, mut comment_seen) = (false, false);
    let mut kept = 0;
    while let Some((&octet, after)) = rest.split_first() {
        match octet {
            b';' => break,
            b'"' => {
                *rest = after;
                quoted(rest, &mut value);
                quoted_once = true;
                kept = value.len();
            }
            b'(' if quoted_once || value.is_empty() => {
                *rest = after;
                comment(rest);
            }
            b'(' if value.len() > kept && !comment_seen => {
                comment_seen = true;
                let mut behind = after;
                comment(&mut behind);
                let last = matches!(behind.trim_ascii_start().first(), None | Some(b';'));
                *rest = if last { behind } else { after };
                if !last {
                    value.push(octet);
                    kept = value.len();
                }
            }
            b' ' | b'\t' | b'\r' | b'\n' => {
                *rest = after;
                if !value.is_empty() && !quoted_once {
                    value.push(b' ');
                }
            }
            _ => {
                *rest = after;
                if !quoted_once {
                    value.push(octet);
                    kept = value.len();
                }
            }
        }
    }
    value.truncate(kept);
    value
}

/// The rest of a quoted string, its opening quote already passed.
fn quoted(rest: &mut &[u8], value: &mut Vec<u8>) {
    while let Some((&octet, after)) = rest.split_first() {
        *rest = after;
        match octet {
            b'"' => return,
            // Windows paths are written with bare backslashes: only these two are escapes.
            b'\\' if matches!(after.first(), Some(b'"' | b'\\')) => {
                value.extend(after.first());
                *rest = after.get(1..).unwrap_or_default();
            }
            b'\r' | b'\n' => {}
            _ => value.push(octet),
        }
    }
}

/// The rest of a comment, its opening parenthesis already passed (RFC 5322 §3.2.2).
fn comment(rest: &mut &[u8]) {
    let mut depth = 1_usize;
    while let Some((&octet, after)) = rest.split_first() {
        *rest = after;
        match octet {
            b'(' => depth += 1,
            b')' if depth == 1 => return,
            b')' => depth -= 1,
            b'\\' => *rest = after.get(1..).unwrap_or_default(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_blocks_end_at_an_empty_line() {
        for (name, octets, expected) in [
            ("CRLF", "A: b\r\n\r\nx", Some(8)),
            ("LF", "A: b\n\nx", Some(6)),
            ("CR CR LF", "A: b\r\r\n\r\r\nx", Some(10)),
            ("none", "\r\nx", Some(2)),
            ("blanks are a continuation", "A: b\r\n \r\nx", None),
            ("bare CR", "A: b\r\rx", None),
            ("not yet", "A: b\r\n", None),
        ] {
            for cut in 0..octets.len() {
                let mut collector = Collector::new(100);
                let (head, tail) = octets.as_bytes().split_at(cut);
                let used = collector
                    .push(head)
                    .or_else(|| collector.push(tail).map(|used| used + cut));
                assert_eq!(used, expected, "{name}, cut at {cut}");
                let kept = expected.unwrap_or(octets.len());
                assert_eq!(collector.block(), &octets.as_bytes()[..kept], "{name}");
            }
        }
    }

    #[test]
    fn a_block_over_the_bound_is_not_kept() {
        let mut collector = Collector::new(6);
        assert_eq!(collector.push(b"Aaaa: b\r\n"), None);
        assert!(collector.over());
        assert_eq!(collector.push(b"\r\nrest"), Some(2));
        assert_eq!(collector.block(), b"");
    }

    #[test]
    fn fields_of_a_block() {
        let block =
            b" lost\r\nFrom x Mon Jul 6 08:00:00\r\nA:1\r\nB : 2\r\n\t3\r\nno field\r\nC:\n\n";
        let found: Vec<_> = fields(block)
            .map(|field| {
                let name = String::from_utf8_lossy(field.name).into_owned();
                (name, field.text())
            })
            .collect();
        let expected = [("A", "1"), ("B", "2\t3"), ("C", "")];
        assert_eq!(found, expected.map(|(a, b)| (a.into(), b.into())));
    }

    #[test]
    fn parameters() {
        for (text, value, name, expected) in [
            (
                "multipart/Mixed; boundary=\"a b\"",
                "multipart/mixed",
                "boundary",
                Some("a b"),
            ),
            (
                "text/plain; charset=us-ascii (Plain)",
                "text/plain",
                "charset",
                Some("us-ascii"),
            ),
            ("text/plain (x;y=z) ;a=b", "text/plain", "a", Some("b")),
            (
                "x/y; NAME = my file (1).pdf ;b=c",
                "x/y",
                "name",
                Some("my file (1).pdf"),
            ),
            (
                r#"x/y; name="C:\tmp\\a\".pdf"; z=1"#,
                "x/y",
                "name",
                Some(r#"C:\tmp\a".pdf"#),
            ),
            ("x/y; name=\"a;b=c\"; b=d", "x/y", "b", Some("d")),
            ("x/y; flag; b=d", "x/y", "b", Some("d")),
            ("x/y; name=", "x/y", "name", None),
            ("x/y; name=\"open", "x/y", "name", Some("open")),
            (
                "x/y; name*=utf-8''%e2%82%ac.pdf",
                "x/y",
                "name",
                Some("€.pdf"),
            ),
            (
                "x/y; name*0=ab; name*1=\"cd.pdf\"",
                "x/y",
                "name",
                Some("abcd.pdf"),
            ),
            (
                "x/y; name*1*=%20b; name*0*=iso-8859-1'de'%e4; name=ignored",
                "x/y",
                "name",
                Some("ä b"),
            ),
            (
                "x/y; name=\"=?utf-8?Q?=C3=A4?=.pdf\"",
                "x/y",
                "name",
                Some("ä.pdf"),
            ),
            ("", "", "name", None),
        ] {
            let parsed = Parameterised::parse(text.as_bytes());
            assert_eq!(parsed.value, value, "{text}");
            assert_eq!(parsed.text(name).as_deref(), expected, "{text}");
        }
    }
}
