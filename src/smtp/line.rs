//! Octets in, command lines out.
//!
//! A line ends with CRLF and nothing else (RFC 5321 §2.3.8). A peer that means another line end sees
//! another dialogue than we do (SMTP smuggling), so a lone CR, a lone LF or a NUL ends the session.

use memchr::{memchr3, memmem};

use super::COMMAND_LINE_OCTETS;

/// Cuts command lines out of the stream, and skips the rest of one that is too long.
#[derive(Debug, Default)]
pub(super) struct Lines {
    skipping: Option<Skip>,
}

/// Within a line that was already refused as too long.
#[derive(Debug, Default)]
struct Skip {
    /// The last octet was a CR, so that LF may end the line.
    after_cr: bool,
}

/// What the octets begin with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cut<'a> {
    /// A line, without its CRLF.
    Line(&'a [u8]),
    /// No whole line yet.
    Incomplete,
    /// A line over [`COMMAND_LINE_OCTETS`]; said once for a line, whose rest is skipped unread.
    TooLong,
    /// A CR or an LF of its own, or a NUL: where the next line starts is unknown.
    Malformed,
}

impl Lines {
    /// What `octets` begin with, and how many of them are done with. The octets that were not are
    /// to be given again, with what has come since.
    pub(super) fn cut<'a>(&mut self, octets: &'a [u8]) -> (usize, Cut<'a>) {
        let mut used = 0;
        if let Some(skip) = &mut self.skipping {
            let (skipped, ended) = skip.over(octets);
            used = skipped;
            if !ended {
                return (used, Cut::Incomplete);
            }
            self.skipping = None;
        }
        let (line, cut) = first_line(octets.get(used..).unwrap_or_default());
        if cut == Cut::TooLong {
            self.skipping = Some(Skip::default());
        }
        (used + line, cut)
    }
}

impl Skip {
    /// How many octets belong to the line, and whether it ends with them.
    fn over(&mut self, octets: &[u8]) -> (usize, bool) {
        if self.after_cr && octets.first() == Some(&b'\n') {
            return (1, true);
        }
        match memmem::find(octets, b"\r\n") {
            Some(at) => (at + 2, true),
            None => {
                if let Some(last) = octets.last() {
                    self.after_cr = *last == b'\r';
                }
                (octets.len(), false)
            }
        }
    }
}

fn first_line(octets: &[u8]) -> (usize, Cut<'_>) {
    let window = octets.get(..COMMAND_LINE_OCTETS).unwrap_or(octets);
    let Some(at) = memchr3(b'\r', b'\n', 0, window) else {
        return match window.len() {
            COMMAND_LINE_OCTETS => (0, Cut::TooLong),
            _ => (0, Cut::Incomplete),
        };
    };
    if at + 1 == COMMAND_LINE_OCTETS && window.get(at) == Some(&b'\r') {
        return (0, Cut::TooLong);
    }
    match (window.get(at), window.get(at + 1)) {
        (Some(b'\r'), Some(b'\n')) => (at + 2, Cut::Line(octets.get(..at).unwrap_or_default())),
        (Some(b'\r'), None) => (0, Cut::Incomplete),
        _ => (0, Cut::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// All lines of a stream that arrives in these pieces; `Err` with what stopped it.
    fn lines(pieces: &[&[u8]]) -> (Vec<String>, usize, bool) {
        let (mut lines, mut too_long) = (Vec::new(), 0);
        let (mut framer, mut pending) = (Lines::default(), Vec::new());
        for piece in pieces {
            pending.extend_from_slice(piece);
            loop {
                let (used, cut) = framer.cut(&pending);
                match cut {
                    Cut::Line(line) => lines.push(String::from_utf8_lossy(line).into_owned()),
                    Cut::TooLong => too_long += 1,
                    Cut::Malformed => return (lines, too_long, true),
                    Cut::Incomplete => {
                        pending.drain(..used);
                        break;
                    }
                }
                pending.drain(..used);
            }
            assert!(pending.len() < COMMAND_LINE_OCTETS, "memory is bounded");
        }
        (lines, too_long, false)
    }

    #[test]
    fn only_crlf_ends_a_line() {
        for (name, octets, expected, malformed) in [
            ("pipelined", "RSET\r\nQUIT\r\n", vec!["RSET", "QUIT"], false),
            ("empty line", "\r\n", vec![""], false),
            ("CR may still get its LF", "NOOP\r", vec![], false),
            ("LF alone", "RSET\r\nNOOP\nQUIT\r\n", vec!["RSET"], true),
            ("LF alone at once", "NOOP\n", vec![], true),
            ("LF first", "\nNOOP\r\n", vec![], true),
            ("CR within", "NO\rOP\r\n", vec![], true),
            ("CR twice", "NOOP\r\r\n", vec![], true),
            ("NUL", "NOOP\0\r\n", vec![], true),
        ] {
            let (lines, too_long, stopped) = lines(&[octets.as_bytes()]);
            assert_eq!(lines, expected, "{name}");
            assert_eq!((too_long, stopped), (0, malformed), "{name}");
        }
    }

    #[test]
    fn long_lines_are_skipped_to_their_end() {
        for (name, text_octets, expected) in [
            ("as long as allowed", COMMAND_LINE_OCTETS - 2, 0),
            ("one too long", COMMAND_LINE_OCTETS - 1, 1),
            ("two too long", COMMAND_LINE_OCTETS, 1),
            ("far too long", 1 << 20, 1),
        ] {
            let stream = ["x".repeat(text_octets).as_str(), "\r\nQUIT\r\n"].concat();
            for step in [stream.len(), 1000, 1] {
                let pieces: Vec<&[u8]> = stream.as_bytes().chunks(step).collect();
                let (lines, too_long, malformed) = lines(&pieces);
                assert_eq!(too_long, expected, "{name} in steps of {step}");
                assert_eq!(lines.last().unwrap(), "QUIT", "{name} in steps of {step}");
                assert_eq!(lines.len(), 2 - expected, "{name} in steps of {step}");
                assert!(!malformed, "{name} in steps of {step}");
            }
        }
    }

    proptest! {
        /// Where the network cuts the stream changes nothing.
        #[test]
        fn chunking_is_invisible(octets in "[a-c\r\n\0]{0,60}", cut in 0usize..60) {
            let octets = octets.as_bytes();
            let (head, tail) = octets.split_at(cut.min(octets.len()));
            prop_assert_eq!(lines(&[octets]), lines(&[head, tail]));
        }
    }
}
