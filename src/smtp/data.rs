//! Octets after 354 in, content out: dots are unstuffed, and CRLF.CRLF ends it (RFC 5321 §4.5.2).
//!
//! No other sequence ends it, and a CR or an LF of its own is data: whoever takes `LF.LF`,
//! `LF.CRLF` or `CRLF.CR` for the end runs what follows as commands (SMTP smuggling). The CRLF of
//! the DATA line counts as the first of the end's two, so that an empty message is `.CRLF`.

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// The only place in content where something may have to be taken out.
static DOT_AFTER_CRLF: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\r\n."));

/// Reads the content of one message after DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Dots {
    /// After CRLF.
    #[default]
    LineStart,
    /// After a CRLF and a dot, which is content of neither a stuffed line nor the end.
    Dot,
    /// After a CRLF, a dot and a CR that is content unless LF follows.
    DotCr,
    /// After a CR that was handed out.
    Cr,
    /// Anywhere else.
    Text,
}

/// What the octets begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many octets of content, at least one.
    Content(usize),
    /// So many octets that are none.
    Dropped(usize),
    /// A CR of content that came before these octets.
    HeldCr,
    /// So many octets, with which the message ends.
    End(usize),
}

impl Dots {
    /// What `octets` begin with; they are not empty. The rest is to be given to the next call.
    pub(super) fn next(&mut self, octets: &[u8]) -> Piece {
        let first = octets.first().copied();
        match (*self, first) {
            (Self::LineStart, Some(b'.')) => {
                *self = Self::Dot;
                Piece::Dropped(1)
            }
            (Self::Dot, Some(b'\r')) => {
                *self = Self::DotCr;
                Piece::Dropped(1)
            }
            (Self::DotCr, Some(b'\n')) => Piece::End(1),
            (Self::DotCr, _) => {
                *self = Self::Text;
                Piece::HeldCr
            }
            (Self::Cr, Some(b'\n')) => {
                *self = Self::LineStart;
                Piece::Content(1)
            }
            _ => self.text(octets),
        }
    }

    /// Content up to the next dot at a line start, or all of it.
    fn text(&mut self, octets: &[u8]) -> Piece {
        if let Some(at) = DOT_AFTER_CRLF.find(octets) {
            *self = Self::LineStart;
            return Piece::Content(at + 2);
        }
        *self = match octets {
            [.., b'\r', b'\n'] => Self::LineStart,
            [.., b'\r'] => Self::Cr,
            _ => Self::Text,
        };
        Piece::Content(octets.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The content in these pieces, and what comes behind the end, if it is reached.
    fn read(pieces: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let (mut content, mut dots, mut ended) = (Vec::new(), Dots::default(), false);
        let mut behind = Vec::new();
        for mut rest in pieces.iter().copied() {
            while !rest.is_empty() && !ended {
                let used = match dots.next(rest) {
                    Piece::Content(octets) => {
                        content.extend_from_slice(&rest[..octets]);
                        octets
                    }
                    Piece::HeldCr => {
                        content.push(b'\r');
                        0
                    }
                    Piece::Dropped(octets) => octets,
                    Piece::End(octets) => {
                        ended = true;
                        octets
                    }
                };
                rest = &rest[used..];
            }
            behind.extend_from_slice(rest);
        }
        (content, ended.then_some(behind))
    }

    /// What a client does to content (RFC 5321 §4.5.2), octet by octet.
    fn stuffed(content: &[u8]) -> Vec<u8> {
        let mut octets = Vec::new();
        for (at, octet) in content.iter().enumerate() {
            if *octet == b'.' && (at == 0 || content[..at].ends_with(b"\r\n")) {
                octets.push(b'.');
            }
            octets.push(*octet);
        }
        octets
    }

    #[test]
    fn content_and_its_end() {
        for (name, octets, content, behind) in [
            ("a line", "a\r\n.\r\nQUIT", "a\r\n", Some("QUIT")),
            ("empty", ".\r\nQUIT", "", Some("QUIT")),
            ("first line stuffed", "..x\r\n.\r\n", ".x\r\n", Some("")),
            ("stuffed", "a\r\n..\r\n.\r\n", "a\r\n.\r\n", Some("")),
            ("dot and text", "a\r\n.b\r\n.\r\n", "a\r\nb\r\n", Some("")),
            ("CR CRLF before", "a\r\r\n.\r\n", "a\r\r\n", Some("")),
            ("not yet", "a\r\n.\r", "a\r\n", None),
            (
                "dots within",
                "a.\r\nb.c\r\n.\r\n",
                "a.\r\nb.c\r\n",
                Some(""),
            ),
        ] {
            let expected = (content.into(), behind.map(Into::into));
            assert_eq!(read(&[octets.as_bytes()]), expected, "{name}");
        }
    }

    /// Each of these ends a message for some server; for us only the last line does.
    #[test]
    fn nothing_else_ends_it() {
        for (odd, content) in SMUGGLING {
            let stream = ["a", odd, "b\r\n.\r\n"].concat();
            let expected = ["a", content, "b\r\n"].concat();
            let (read, behind) = read(&[stream.as_bytes()]);
            assert_eq!(String::from_utf8_lossy(&read), expected, "{odd:?}");
            assert_eq!(behind.as_deref(), Some(&b""[..]), "{odd:?}");
        }
    }

    /// Sequence within the stream, and the content that it is.
    const SMUGGLING: [(&str, &str); 18] = [
        ("\n.\n", "\n.\n"),
        ("\n.\r\n", "\n.\r\n"),
        ("\n.\r", "\n.\r"),
        ("\r.\r", "\r.\r"),
        ("\r.\r\n", "\r.\r\n"),
        ("\r.\n", "\r.\n"),
        ("\r\n.\n", "\r\n\n"),
        ("\r\n.\r", "\r\n\r"),
        ("\r\n.\r\r\n", "\r\n\r\r\n"),
        ("\r\n.\r\r\r\n", "\r\n\r\r\r\n"),
        ("\r\n.\0\r\n", "\r\n\0\r\n"),
        ("\r\n\0.\r\n", "\r\n\0.\r\n"),
        ("\r\0\n.\r\n", "\r\0\n.\r\n"),
        ("\r\n. \r\n", "\r\n \r\n"),
        ("\r\n.\n\r\n", "\r\n\n\r\n"),
        ("\n\r.\r\n", "\n\r.\r\n"),
        ("\n\n.\r\n", "\n\n.\r\n"),
        ("\r\n..\r\n", "\r\n.\r\n"),
    ];

    proptest! {
        /// What was sent arrives, wherever the network cuts it.
        #[test]
        fn content_arrives(content in "([.\r\n\0]|[ab]{0,3}|\r\n){0,40}", cut in 0usize..100) {
            let content = [content.as_bytes(), b"\r\n"].concat();
            let stream = [stuffed(&content).as_slice(), b".\r\nQUIT"].concat();
            let (head, tail) = stream.split_at(cut.min(stream.len()));
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            let expected = (content, Some(b"QUIT".to_vec()));
            prop_assert_eq!(&read(&[head, tail]), &expected);
            prop_assert_eq!(&read(&single), &expected);
        }

        /// Where the network cuts any stream changes nothing.
        #[test]
        fn chunking_is_invisible(octets in "[.a\r\n]{0,30}", cut in 0usize..30) {
            let octets = octets.as_bytes();
            let (head, tail) = octets.split_at(cut.min(octets.len()));
            prop_assert_eq!(read(&[octets]), read(&[head, tail]));
        }
    }
}
