//! Finds URLs in the text and HTML of a message while it streams by.
//!
//! Decoded octets of a leaf part in, in any cut; the URLs go to [`Domains`]. Text is gathered until
//! [`STEP`] octets of it are there, so that a URL cut by the network is whole when it is looked at; a
//! URL is held until the text says where it ends, or for [`URL_OCTETS`].
//!
//! A URL begins at `http`, `https` or `ftp` and a colon, at `www.`, and in HTML at `//` after a quote,
//! `=` or `(`. Slashes may be missing, doubled or turned round, as browsers forgive that. It ends at a
//! blank, a control character, `<`, `>`, `"` or a back-quote.

use std::sync::LazyLock;

use memchr::memchr;
use memchr::memmem::Finder;

use super::charset::Charset;
use super::url::{Domains, ends_authority};

/// Octets that are gathered before they are searched.
const STEP: usize = 4096;
/// Longest URL that is read, in octets; Safe Links make them long.
const URL_OCTETS: usize = 8192;
/// Longest part of a URL that is searched for the end of its authority, in octets.
const AUTHORITY_OCTETS: usize = 2048;
/// Most slashes that are skipped after a scheme.
const SLASHES: usize = 64;
/// Octets before a colon or a dot that tell whether a URL begins there.
const BEFORE: usize = 8;
/// Octets after the beginning of `www.`, `//` or a colon that must be there to tell.
const AFTER: usize = 4;
/// Longest character reference of HTML, in octets.
const REFERENCE_OCTETS: usize = 16;

/// Searches one leaf part.
#[derive(Debug)]
pub(super) struct Text {
    decoder: Option<encoding_rs::Decoder>,
    html: bool,
    /// HTML whose last character reference may not be complete.
    reference: Vec<u8>,
    /// Text that is not searched yet, and a few octets before it.
    text: Vec<u8>,
    /// Where in `text` the search goes on.
    next: usize,
}

impl Text {
    /// A search of plain text or HTML in that character set.
    pub(super) fn new(charset: Charset, html: bool) -> Self {
        Self {
            decoder: charset.stream(),
            html,
            reference: Vec::new(),
            text: Vec::new(),
            next: 0,
        }
    }

    /// Takes the next octets of the part.
    pub(super) fn feed(&mut self, octets: &[u8], domains: &mut Domains) {
        let Some(mut decoder) = self.decoder.take() else {
            self.utf8(octets, domains);
            return;
        };
        let mut buffer = [0; STEP];
        let mut rest = octets;
        while !rest.is_empty() {
            let (_, read, written, _) = decoder.decode_to_utf8(rest, &mut buffer, false);
            rest = rest.get(read..).unwrap_or_default();
            self.utf8(buffer.get(..written).unwrap_or_default(), domains);
        }
        self.decoder = Some(decoder);
    }

    /// The part has ended.
    pub(super) fn finish(&mut self, domains: &mut Domains) {
        let reference = std::mem::take(&mut self.reference);
        self.text.extend_from_slice(&reference);
        self.search(domains, true);
    }

    /// Octets of memory held.
    pub(super) fn memory(&self) -> usize {
        self.text.capacity() + self.reference.capacity()
    }

    fn utf8(&mut self, octets: &[u8], domains: &mut Domains) {
        for piece in octets.chunks(STEP) {
            if self.html {
                self.dereference(piece);
            } else {
                self.text.extend_from_slice(piece);
            }
            if self.text.len() >= self.next + STEP + AFTER {
                self.search(domains, false);
            }
        }
    }

    /// Appends HTML with its character references replaced.
    fn dereference(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            if self.reference.is_empty() {
                let plain = memchr(b'&', rest).unwrap_or(rest.len());
                let (text, behind) = rest.split_at_checked(plain).unwrap_or((rest, &[]));
                self.text.extend_from_slice(text);
                let Some((first, after)) = behind.split_first() else {
                    return;
                };
                self.reference.push(*first);
                rest = after;
                continue;
            }
            let Some((&octet, after)) = rest.split_first() else {
                return;
            };
            if in_reference(&self.reference, octet) && self.reference.len() < REFERENCE_OCTETS {
                self.reference.push(octet);
                rest = after;
                continue;
            }
            let name = self.reference.get(1..).unwrap_or_default();
            match referenced(name, octet == b';') {
                Some(character) => {
                    let mut buffer = [0; 4];
                    let utf8 = character.encode_utf8(&mut buffer);
                    self.text.extend_from_slice(utf8.as_bytes());
                    if octet == b';' {
                        rest = after;
                    }
                }
                None => self.text.extend_from_slice(&self.reference),
            }
            self.reference.clear();
        }
    }

    /// Looks at what was gathered; at the end of the part, at all of it.
    fn search(&mut self, domains: &mut Domains, last: bool) {
        let limit = if last {
            self.text.len()
        } else {
            self.text.len().saturating_sub(AFTER)
        };
        let mut triggers = Triggers::new(&self.text, self.next, self.html);
        let mut ends = Ends::new(&self.text, last);
        self.next = limit;
        while let Some(at) = triggers.next().filter(|&at| at < limit) {
            let Some(start) = url_start(&self.text, at, self.html) else {
                continue;
            };
            match ends.of(start, domains) {
                Some((authority, url)) => domains.add(authority, url),
                None => {
                    self.next = at;
                    break;
                }
            }
        }
        let done = self.next.saturating_sub(BEFORE);
        self.text.drain(..done);
        self.next -= done;
    }
}

/// Where URLs in a text end. What was searched for one need not be searched for the next, which may
/// begin within it.
struct Ends<'a> {
    text: &'a [u8],
    /// No more text follows.
    last: bool,
    /// No authority ends from the start of the latest URL to here.
    searched: usize,
}

impl<'a> Ends<'a> {
    const fn new(text: &'a [u8], last: bool) -> Self {
        Self {
            text,
            last,
            searched: 0,
        }
    }

    /// The URL that begins, without its scheme, at `start`: its authority and what counts of it, which
    /// is all of it where a wrapper holds another URL in its query. `None` if that cannot be told before
    /// more text is there. Starts only grow.
    fn of(&mut self, start: usize, domains: &Domains) -> Option<(&'a [u8], &'a [u8])> {
        let ends = |octet: &u8| ends_url(*octet) || ends_authority(*octet);
        let from = start.max(self.searched);
        let (found, end) = self.search(from, start + AUTHORITY_OCTETS, ends);
        self.searched = end;
        let authority = self.text.get(start..found?)?;
        if !domains.is_wrapper(authority) {
            return Some((authority, authority));
        }
        let (found, _) = self.search(end, start + URL_OCTETS, |octet| ends_url(*octet));
        Some((authority, self.text.get(start..found?)?))
    }

    /// The first position where `ends` holds, else `limit` or, at the end of the text, that; and how
    /// far the search went.
    fn search(
        &self,
        from: usize,
        limit: usize,
        ends: impl Fn(&u8) -> bool,
    ) -> (Option<usize>, usize) {
        let limit = limit.min(self.text.len()).max(from);
        let window = self.text.get(from..limit).unwrap_or_default();
        match window.iter().position(ends) {
            Some(length) => (Some(from + length), from + length),
            None if limit < self.text.len() || self.last => (Some(limit), limit),
            None => (None, limit),
        }
    }
}

/// Whether a URL in text cannot go on with this octet.
const fn ends_url(octet: u8) -> bool {
    octet <= b' ' || matches!(octet, b'<' | b'>' | b'"' | b'`' | 0x7f)
}

/// Looks from a position on for a place where a URL may begin.
type Trigger = fn(&[u8], usize) -> Option<usize>;

/// Colons after a scheme; `www.` in either case, at its third letter from the end; slashes in HTML.
const TRIGGERS: [Trigger; 4] = [
    colon,
    |text, from| find(text, from, &LOWER_WWW),
    |text, from| find(text, from, &UPPER_WWW),
    |text, from| find(text, from, &SLASHES_OF_HTML),
];

static LOWER_WWW: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("ww."));
static UPPER_WWW: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("WW."));
static SLASHES_OF_HTML: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("//"));

/// The places where a URL may begin, in order.
struct Triggers<'a> {
    text: &'a [u8],
    found: [Option<usize>; 4],
}

impl<'a> Triggers<'a> {
    fn new(text: &'a [u8], from: usize, html: bool) -> Self {
        let used = if html { 4 } else { 3 };
        let mut found = [None; 4];
        for (found, find) in found.iter_mut().zip(TRIGGERS).take(used) {
            *found = find(text, from);
        }
        Self { text, found }
    }

    fn next(&mut self) -> Option<usize> {
        let first = self.found.into_iter().flatten().min()?;
        for (found, find) in self.found.iter_mut().zip(TRIGGERS) {
            if *found == Some(first) {
                *found = find(self.text, first + 1);
            }
        }
        Some(first)
    }
}

fn find(text: &[u8], from: usize, needle: &Finder<'_>) -> Option<usize> {
    Some(from + needle.find(text.get(from..)?)?)
}

/// The next colon that a scheme may stand before: `http:`, `https:`, `ftp:`.
fn colon(text: &[u8], from: usize) -> Option<usize> {
    let found = memchr::memchr_iter(b':', text.get(from..)?).find(|&at| {
        let before = text.get(..from + at).unwrap_or_default();
        matches!(before.last(), Some(b'p' | b'P' | b's' | b'S'))
    });
    Some(from + found?)
}

/// Where the authority of the URL begins that the position `at` tells of.
fn url_start(text: &[u8], at: usize, html: bool) -> Option<usize> {
    let (before, behind) = text.split_at_checked(at)?;
    match behind.first()? {
        b':' => {
            let scheme = [&b"https"[..], b"http", b"ftp"].into_iter().any(|scheme| {
                let start = before.len().checked_sub(scheme.len());
                let word = start.and_then(|start| before.get(start..));
                word.is_some_and(|word| word.eq_ignore_ascii_case(scheme))
            });
            let rest = behind.get(1..)?;
            let slash = |octet: &&u8| matches!(octet, b'/' | b'\\');
            let slashes = rest.iter().take(SLASHES).take_while(slash).count();
            // In text a colon without a slash is just a colon.
            (scheme && (slashes > 0 || html)).then_some(at + 1 + slashes)
        }
        b'/' => matches!(before.last()?, b'"' | b'\'' | b'=' | b'(').then_some(at + 2),
        _ => {
            let (first, before) = before.split_last()?;
            let word = |octet: &u8| octet.is_ascii_alphanumeric() || b"/.-_@%&=:".contains(octet);
            let begins = first.eq_ignore_ascii_case(&b'w') && !before.last().is_some_and(word);
            begins.then_some(at - 1)
        }
    }
}

/// Whether a character reference that begins with these octets may go on with that one.
fn in_reference(reference: &[u8], octet: u8) -> bool {
    match reference {
        [_] => octet == b'#' || octet.is_ascii_alphanumeric(),
        [_, b'#'] => octet.is_ascii_digit() || matches!(octet, b'x' | b'X'),
        [_, b'#', b'x' | b'X', ..] => octet.is_ascii_hexdigit(),
        [_, b'#', ..] => octet.is_ascii_digit(),
        _ => octet.is_ascii_alphanumeric(),
    }
}

/// The character that a reference without its `&` names. Only those matter that can stand in a URL or
/// end one. The numeric ones, and these four, need no semicolon (HTML Living Standard §13.2.5.73).
fn referenced(name: &[u8], terminated: bool) -> Option<char> {
    if let Some(number) = name.strip_prefix(b"#") {
        let number = str::from_utf8(number).ok()?;
        let code = match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok()?,
            None => number.parse().ok()?,
        };
        return char::from_u32(code);
    }
    let character = match name {
        b"amp" | b"AMP" => '&',
        b"lt" | b"LT" => '<',
        b"gt" | b"GT" => '>',
        b"quot" | b"QUOT" => '"',
        _ if !terminated => return None,
        b"apos" => '\'',
        b"nbsp" => ' ',
        b"colon" => ':',
        b"sol" => '/',
        b"bsol" => '\\',
        b"period" => '.',
        b"commat" => '@',
        b"num" => '#',
        b"quest" => '?',
        b"equals" => '=',
        b"percnt" => '%',
        b"plus" => '+',
        b"comma" => ',',
        b"semi" => ';',
        b"lowbar" => '_',
        b"hyphen" | b"dash" => '-',
        b"Tab" => '\t',
        b"NewLine" => '\n',
        _ => return None,
    };
    Some(character)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(charset: &str, html: bool, pieces: &[&[u8]]) -> String {
        let mut text = Text::new(Charset::named(charset.as_bytes()), html);
        let mut domains = Domains::new(100);
        for piece in pieces {
            text.feed(piece, &mut domains);
        }
        text.finish(&mut domains);
        domains.into_parts().0.join(" ")
    }

    const ROWS: [(&str, bool, &str, &str); 26] = [
        (
            "bare",
            false,
            "see http://a.example/x, and HTTPS://B.example.",
            "a.example b.example",
        ),
        (
            "www",
            false,
            "www.a.example Www.b.example (WWW.c.example)",
            "a.example b.example c.example",
        ),
        (
            "no www",
            false,
            "awww.a.example x@www.b.example wwww.c.example ww.d.example",
            "",
        ),
        (
            "at the ends",
            false,
            "www.a.example\nhttp://b.example",
            "a.example b.example",
        ),
        ("ftp", false, "ftp://a.example/", "a.example"),
        ("in brackets", false, "<http://a.example>", "a.example"),
        (
            "no URL",
            false,
            "http: //a.example https:b.example 10:30 //c.example",
            "",
        ),
        (
            "turned slashes",
            false,
            "https:\\\\a.example\\x",
            "a.example",
        ),
        ("one slash", false, "https:/a.example", "a.example"),
        (
            "userinfo",
            false,
            "https://www.a.example:pw@b.example/",
            "b.example",
        ),
        (
            "inside a query",
            false,
            "http://a.example/?u=http://b.example",
            "a.example b.example",
        ),
        (
            "href",
            true,
            r#"<a href="https://a.example/x?a=1&amp;b=2">b.example</a>"#,
            "a.example",
        ),
        (
            "single quotes",
            true,
            "<a href='https://a.example'>",
            "a.example",
        ),
        (
            "no quotes",
            true,
            "<a href=https://a.example>x</a>",
            "a.example",
        ),
        (
            "scheme relative",
            true,
            r#"<img src="//a.example/x.png"> // b.example"#,
            "a.example",
        ),
        ("css", true, "background:url(//a.example/b)", "a.example"),
        (
            "no slashes",
            true,
            r#"<a href="https:a.example">"#,
            "a.example",
        ),
        (
            "decimal references",
            true,
            r#"<a href="&#104;ttps&#58;//a&#46;example">"#,
            "a.example",
        ),
        (
            "hexadecimal reference",
            true,
            r#"<a href="https:&#x2F;&#X2f;a.example">"#,
            "a.example",
        ),
        (
            "no semicolon",
            true,
            r#"<a href="https:&#47&#47a.example">"#,
            "a.example",
        ),
        (
            "named references",
            true,
            r#"<a href="https&colon;&sol;&sol;a&period;example&quest;b">"#,
            "a.example",
        ),
        (
            "quote as reference",
            true,
            "url(&quot;https://a.example&quot;)",
            "a.example",
        ),
        (
            "unknown reference",
            true,
            "&foo;https://a.example &",
            "a.example",
        ),
        ("text in HTML", true, "<p>www.a.example</p>", "a.example"),
        (
            "references in plain text",
            false,
            "https&#58;//a.example",
            "",
        ),
        (
            "percent-encoded dot",
            false,
            "http://a%2Eexample/",
            "a.example",
        ),
    ];

    #[test]
    fn urls() {
        for (name, html, text, expected) in ROWS {
            assert_eq!(found("utf-8", html, &[text.as_bytes()]), expected, "{name}");
        }
    }

    #[test]
    fn other_character_sets() {
        let utf16: Vec<u8> = "http://bücher.de/"
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        for (charset, octets) in [
            ("iso-8859-1", &b"http://b\xfccher.de/"[..]),
            ("utf-16le", &utf16),
            ("utf-8", "http://bücher.de/".as_bytes()),
            ("us-ascii", b"http://b\xfccher.de/"),
        ] {
            let halves = octets.split_at(octets.len() / 2);
            assert_eq!(
                found(charset, false, &[halves.0, halves.1]),
                "xn--bcher-kva.de",
                "{charset}"
            );
        }
    }

    #[test]
    fn a_url_at_any_place_in_a_long_text_is_found() {
        for place in (STEP - 40..STEP + 40).chain(2 * STEP - 30..2 * STEP + 30) {
            let mut text = "x".repeat(place);
            text.push_str(" https://a.example/ www.b.example ");
            text.push_str(&"y".repeat(STEP));
            assert_eq!(
                found("", false, &[text.as_bytes()]),
                "a.example b.example",
                "{place}"
            );
        }
    }

    #[test]
    fn endless_urls() {
        let text = format!(
            "http://a.example/{}http://b.example",
            "x".repeat(5 * URL_OCTETS)
        );
        assert_eq!(found("", false, &[text.as_bytes()]), "a.example b.example");
        let text = "http://".repeat(200_000);
        assert_eq!(found("", true, &[text.as_bytes()]), "");
    }

    proptest! {
        /// Where the stream is cut changes nothing.
        #[test]
        fn chunking_is_invisible(row in 0..ROWS.len(), cut in 0usize..80, step in 1usize..5) {
            let (name, html, text, expected) = ROWS[row];
            let (head, tail) = text.as_bytes().split_at(cut.min(text.len()));
            let mut pieces = vec![head];
            pieces.extend(tail.chunks(step));
            prop_assert_eq!(found("", html, &pieces), expected, "{}", name);
        }
    }
}
