//! One leaf part of the journaled message: its transfer encoding undone, hashed, searched for URLs.

use memchr::memchr;

use super::charset::Charset;
use super::hash::Sha256;
use super::header::{Parameterised, fields};
use super::text::Text;
use super::transfer::Transfer;
use super::url::Domains;

/// Octets decoded at a time: the decoded ones are still in the processor's cache when they are hashed.
const STEP: usize = 8192;
/// Longest file name that is kept, in characters.
const NAME_CHARACTERS: usize = 255;

/// What the header of a part says about it.
#[derive(Debug, Default)]
pub(super) struct PartHeader {
    /// `Content-Type`, or nothing if there is none or none that can be read (RFC 2045 §5.2).
    pub(super) content_type: Parameterised,
    /// `Content-Transfer-Encoding`, trimmed.
    pub(super) encoding: Vec<u8>,
    disposition: Parameterised,
}

impl PartHeader {
    /// Reads the fields of a part, the first of each name.
    pub(super) fn parse(block: &[u8]) -> Self {
        let (mut content_type, mut encoding, mut disposition) = (None, None, None);
        for field in fields(block) {
            // All three begin so; most fields of a journaled message do not.
            if field.name.len() < 12 || !matches!(field.name.first(), Some(b'C' | b'c')) {
                continue;
            }
            let parse = || Parameterised::parse(&field.unfolded());
            if field.is("Content-Type") {
                content_type.get_or_insert_with(parse);
            } else if field.is("Content-Disposition") {
                disposition.get_or_insert_with(parse);
            } else if field.is("Content-Transfer-Encoding") {
                encoding.get_or_insert_with(|| parse().value.into_bytes());
            }
        }
        let usable = |value: &Parameterised| value.value.contains('/');
        Self {
            content_type: content_type.filter(usable).unwrap_or_default(),
            encoding: encoding.unwrap_or_default(),
            disposition: disposition.unwrap_or_default(),
        }
    }

    /// Whether it is of that type; a part without a type is text/plain.
    pub(super) fn is(&self, content_type: &str) -> bool {
        self.content_type() == content_type
    }

    /// The type in lower case.
    pub(super) fn content_type(&self) -> &str {
        match self.content_type.value.as_str() {
            "" => "text/plain",
            value => value,
        }
    }

    /// The boundary of a multipart, if it can delimit anything.
    pub(super) fn boundary(&self) -> Option<Vec<u8>> {
        let boundary = match self.content_type.octets("boundary") {
            Some(boundary) => boundary.to_vec(),
            None => self.content_type.text("boundary")?.into_bytes(),
        };
        let boundary = boundary.trim_ascii_end();
        let usable = !boundary.is_empty() && boundary.len() < super::split::DELIMITER_LINE_OCTETS;
        usable.then(|| boundary.to_vec())
    }

    /// The character set that the type names.
    pub(super) fn charset(&self) -> Charset {
        Charset::named(self.content_type.octets("charset").unwrap_or_default())
    }

    /// The file name (RFC 2183 §2.3, else the older `name` of the type), without control characters.
    pub(super) fn file_name(&self) -> Option<String> {
        let name = self
            .disposition
            .text("filename")
            .or_else(|| self.content_type.text("name"))?;
        let visible = name.chars().filter(|c| !c.is_control());
        let name: String = visible.take(NAME_CHARACTERS).collect();
        Some(name).filter(|name| !name.trim().is_empty())
    }

    /// Whether it counts as an attachment: it has a file name or is marked as one.
    pub(super) fn is_attachment(&self) -> bool {
        self.disposition.value == "attachment" || self.file_name().is_some()
    }
}

/// A leaf part that streams by.
#[derive(Debug)]
pub(super) struct Leaf {
    transfer: Transfer,
    /// Attachments and other than text are hashed as they are; text without its accidents.
    lines: Option<Lines>,
    digest: Sha256,
    text: Option<Box<Text>>,
}

impl Leaf {
    /// A leaf part with this header.
    pub(super) fn new(header: &PartHeader) -> Self {
        let content_type = header.content_type();
        let html = content_type == "text/html";
        let searched = html || content_type == "text/plain";
        let text = content_type.starts_with("text/") && !header.is_attachment();
        Self {
            transfer: Transfer::named(&header.encoding).unwrap_or(Transfer::Identity),
            lines: text.then(Lines::default),
            digest: Sha256::new(),
            text: searched.then(|| Box::new(Text::new(header.charset(), html))),
        }
    }

    /// Whether a part with this header is not encoded.
    pub(super) fn is_identity(header: &PartHeader) -> bool {
        Transfer::named(&header.encoding).is_none_or(|transfer| transfer.is_identity())
    }

    /// Octets that nobody looks into: hashed as they stand.
    pub(super) fn opaque() -> Self {
        Self {
            transfer: Transfer::Identity,
            lines: None,
            digest: Sha256::new(),
            text: None,
        }
    }

    /// Takes the next octets of the part, still encoded.
    pub(super) fn feed(&mut self, octets: &[u8], domains: &mut Domains, buffers: &mut Buffers) {
        for piece in octets.chunks(STEP) {
            let decoded = self.transfer.decode(piece, &mut buffers.decoded);
            Self::take(
                decoded,
                (&mut self.lines, &mut self.digest, &mut self.text),
                domains,
                &mut buffers.lines,
            );
        }
    }

    /// The part has ended: the SHA-256 of its content.
    pub(super) fn finish(mut self, domains: &mut Domains, buffers: &mut Buffers) -> [u8; 32] {
        let decoded = self.transfer.finish(&mut buffers.decoded);
        let parts = (&mut self.lines, &mut self.digest, &mut self.text);
        Self::take(decoded, parts, domains, &mut buffers.lines);
        if let Some(text) = &mut self.text {
            text.finish(domains);
        }
        self.digest.finish()
    }

    /// Octets of memory held.
    pub(super) fn memory(&self) -> usize {
        self.text.as_ref().map_or(0, |text| text.memory())
    }

    fn take(
        decoded: &[u8],
        (lines, digest, text): (&mut Option<Lines>, &mut Sha256, &mut Option<Box<Text>>),
        domains: &mut Domains,
        buffer: &mut Vec<u8>,
    ) {
        match lines {
            Some(lines) => lines.update(decoded, digest, buffer),
            None => digest.update(decoded),
        }
        if let Some(text) = text {
            text.feed(decoded, domains);
        }
    }
}

/// Room that all leaf parts of a message use in turn.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    decoded: Vec<u8>,
    lines: Vec<u8>,
}

impl Buffers {
    /// Octets of memory held.
    pub(super) fn memory(&self) -> usize {
        self.decoded.capacity() + self.lines.capacity()
    }
}

/// Text as it is hashed: CRs before an LF are dropped, and so are the line ends at the end of the part,
/// because relays that choose another transfer encoding change these and nothing else.
#[derive(Debug, Default)]
struct Lines {
    /// CRs seen last.
    returns: u64,
    /// LFs seen before them that more text may follow.
    feeds: u64,
}

impl Lines {
    fn update(&mut self, octets: &[u8], digest: &mut Sha256, buffer: &mut Vec<u8>) {
        buffer.clear();
        let mut rest = octets;
        while let Some(&first) = rest.first() {
            match first {
                b'\r' => {
                    self.returns += 1;
                    rest = rest.get(1..).unwrap_or_default();
                }
                b'\n' => {
                    self.returns = 0;
                    self.feeds += 1;
                    rest = rest.get(1..).unwrap_or_default();
                }
                _ => {
                    self.release(digest, buffer);
                    // Up to the end of the line; the LF there is not yet certain to count.
                    let line = memchr(b'\n', rest).unwrap_or(rest.len());
                    let (line, after) = rest.split_at_checked(line).unwrap_or((rest, &[]));
                    let content = line.iter().rposition(|&octet| octet != b'\r');
                    let content = content.map_or(0, |end| end + 1);
                    let (content, returns) = line.split_at_checked(content).unwrap_or((line, &[]));
                    buffer.extend_from_slice(content);
                    self.returns = returns.len() as u64;
                    rest = after;
                }
            }
        }
        if !buffer.is_empty() {
            digest.update(buffer);
        }
    }

    /// More text follows: what was held back counts.
    fn release(&mut self, digest: &mut Sha256, buffer: &mut Vec<u8>) {
        for (count, octet) in [(&mut self.feeds, b'\n'), (&mut self.returns, b'\r')] {
            while *count > 0 {
                if buffer.len() >= STEP {
                    digest.update(buffer);
                    buffer.clear();
                }
                buffer.push(octet);
                *count -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(header: &str, pieces: &[&[u8]]) -> [u8; 32] {
        let mut leaf = Leaf::new(&PartHeader::parse(header.as_bytes()));
        let (mut domains, mut buffers) = (Domains::new(10), Buffers::default());
        for piece in pieces {
            leaf.feed(piece, &mut domains, &mut buffers);
        }
        leaf.finish(&mut domains, &mut buffers)
    }

    fn plain(octets: &[u8]) -> [u8; 32] {
        let mut context = Sha256::new();
        context.update(octets);
        context.finish()
    }

    #[test]
    fn text_is_hashed_without_the_accidents_of_its_encoding() {
        let same = plain("é = 1\n\nend".as_bytes());
        for (name, header, octets) in [
            (
                "8bit",
                "Content-Type: text/plain\n\n",
                "é = 1\r\n\r\nend\r\n",
            ),
            ("bare LF", "Content-Type: text/plain\n\n", "é = 1\n\nend"),
            ("no type", "\n", "é = 1\r\n\r\r\nend\r\n\r\n"),
            (
                "quoted-printable",
                "Content-Transfer-Encoding: quoted-printable\n\n",
                "=C3=A9 =\r\n=3D 1\r\n\r\nend",
            ),
            (
                "base64",
                "Content-Type: text/html\nContent-Transfer-Encoding: base64\n\n",
                "w6kgPSAxDQoNCmVuZA==\r\n",
            ),
        ] {
            assert_eq!(digest(header, &[octets.as_bytes()]), same, "{name}");
        }
        assert_ne!(digest("\n", &["é = 1\n\nEnd".as_bytes()]), same);
        assert_eq!(digest("\n", &[b"a\rb\r\r"]), plain(b"a\rb"));
    }

    #[test]
    fn attachments_are_hashed_as_they_are() {
        for (name, header, octets, expected) in [
            (
                "text",
                "Content-Type: text/csv; name=a.csv\n\n",
                &b"a;b\r\n"[..],
                &b"a;b\r\n"[..],
            ),
            (
                "marked",
                "Content-Disposition: attachment\n\n",
                b"a\r\n",
                b"a\r\n",
            ),
            (
                "other type",
                "Content-Type: application/pdf\nContent-Transfer-Encoding: BASE64 (x)\n\n",
                b"aGk\r\n",
                b"hi",
            ),
            (
                "unknown encoding",
                "Content-Type: a/b\nContent-Transfer-Encoding: x\n\n",
                b"aGk=",
                b"aGk=",
            ),
        ] {
            assert_eq!(digest(header, &[octets]), plain(expected), "{name}");
        }
    }

    #[test]
    fn file_names() {
        for (header, expected) in [
            (
                "Content-Disposition: attachment; filename=\"a b.pdf\"\n\n",
                Some("a b.pdf"),
            ),
            (
                "Content-Type: a/b; name=\"=?utf-8?B?w6kucGRm?=\"\nContent-Disposition: attachment\n\n",
                Some("é.pdf"),
            ),
            (
                "Content-Disposition: attachment;\r\n filename*0*=utf-8''%C3%A9;\r\n filename*1=.pdf\r\n\r\n",
                Some("é.pdf"),
            ),
            (
                "Content-Disposition: attachment; filename=\"a\u{7}b\"\n\n",
                Some("ab"),
            ),
            ("Content-Disposition: inline\n\n", None),
        ] {
            let header = PartHeader::parse(header.as_bytes());
            assert_eq!(header.file_name().as_deref(), expected);
        }
    }

    proptest! {
        /// Where the stream is cut changes nothing.
        #[test]
        fn chunking_is_invisible(octets in "[a\r\n]{0,30}", cut in 0usize..30) {
            let octets = octets.as_bytes();
            let (head, tail) = octets.split_at(cut.min(octets.len()));
            prop_assert_eq!(digest("\n", &[head, tail]), digest("\n", &[octets]));
        }
    }
}
