//! Cuts a stream of octets at the lines that may be boundary delimiters (RFC 2046 §5.1.1).
//!
//! Octets in, in any cut; out to a [`Sink`] come runs of data and, one at a time, the lines that
//! begin with `--`. Nothing else is ever held: at most one line break and one such line, which is no
//! delimiter any more when it is longer than [`DELIMITER_LINE_OCTETS`]. A line ends at LF; a CR before
//! it belongs to the line break, and a CR anywhere else is data.

use std::sync::LazyLock;

use memchr::{memchr, memmem};

/// Longest line that is looked at as a delimiter, in octets without its end. RFC 2046 allows a
/// boundary of 70 octets; real ones are longer at times, and blanks may follow.
pub(super) const DELIMITER_LINE_OCTETS: usize = 2048;

/// Where the pieces go.
pub(super) trait Sink {
    /// The next octets of what is between delimiters.
    fn data(&mut self, octets: &[u8]);

    /// A line that begins with `--`, the line break before it (empty at the start of the stream or
    /// after a delimiter) and the line break that ends it (empty at the end of the stream).
    ///
    /// Returns whether it is a delimiter. If it is, both line breaks belong to it (RFC 2046 §5.1.1);
    /// if not, the sink has taken `before` and `line` as data, and `end` comes as data later.
    fn dash_line(&mut self, before: &[u8], line: &[u8], end: &[u8]) -> bool;
}

/// What `held` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing; within a line.
    Middle,
    /// A CR that may become a line break.
    Cr,
    /// A line break of so many octets and the first octets of the next line: nothing, `-` or `--…`.
    Start(usize),
}

/// The cutter. Feed it everything, then [`finish`](Self::finish).
#[derive(Debug)]
pub(super) struct Splitter {
    state: State,
    held: Vec<u8>,
}

static DASHES: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"\n--"));

impl Splitter {
    /// A splitter at the start of a line.
    pub(super) fn new() -> Self {
        Self {
            state: State::Start(0),
            held: Vec::new(),
        }
    }

    /// Octets of memory held.
    pub(super) fn memory(&self) -> usize {
        self.held.capacity()
    }

    /// Takes the next octets, all of them.
    pub(super) fn feed(&mut self, mut octets: &[u8], sink: &mut impl Sink) {
        while !octets.is_empty() {
            octets = match self.state {
                State::Middle => self.middle(octets, sink),
                State::Cr | State::Start(_) => self.resume(octets, sink),
            };
        }
    }

    /// The stream has ended: what is held is complete.
    pub(super) fn finish(&mut self, sink: &mut impl Sink) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Start(cut) if held.len() >= cut + 2 => {
                let (before, line) = held.split_at_checked(cut).unwrap_or((&[], &held));
                let (line, end) = without_cr(line);
                if !sink.dash_line(before, line, end) && !end.is_empty() {
                    sink.data(end);
                }
            }
            _ if !held.is_empty() => sink.data(&held),
            _ => {}
        }
        self.state = State::Middle;
    }

    /// Within a line with nothing held: hands out data up to the next line that begins with `--`.
    fn middle<'a>(&mut self, octets: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let Some(found) = DASHES.find(octets) else {
            return self.keep_tail(octets, sink);
        };
        let (data, rest) = octets.split_at_checked(found).unwrap_or((octets, &[]));
        let (data, cr) = without_cr(data);
        if !data.is_empty() {
            sink.data(data);
        }
        let break_len = cr.len() + 1;
        let start = data.len();
        // `rest` begins at the LF: the line itself one octet later.
        let line = rest.get(1..).unwrap_or_default();
        let window = line.get(..=DELIMITER_LINE_OCTETS).unwrap_or(line);
        let taken = octets.get(start..).unwrap_or_default();
        if let Some(length) = memchr(b'\n', window) {
            let before = taken.get(..break_len).unwrap_or_default();
            let (line, _) = line.split_at_checked(length).unwrap_or((line, &[]));
            let (line, cr) = without_cr(line);
            let after = break_len + line.len();
            let end = taken.get(after..=after + cr.len()).unwrap_or_default();
            if sink.dash_line(before, line, end) {
                self.state = State::Start(0);
                return taken.get(after + end.len()..).unwrap_or_default();
            }
            // The line break may precede the next such line.
            return taken.get(after..).unwrap_or_default();
        }
        if line.len() > DELIMITER_LINE_OCTETS {
            // Too long for a delimiter; everything up to its end is data.
            let long = break_len + DELIMITER_LINE_OCTETS;
            let (data, rest) = taken.split_at_checked(long).unwrap_or((taken, &[]));
            sink.data(data);
            return rest;
        }
        self.held.clear();
        self.held.extend_from_slice(taken);
        self.state = State::Start(break_len);
        &[]
    }

    /// No such line begins in `octets`; its last octets may still be the beginning of one.
    fn keep_tail(&mut self, octets: &[u8], sink: &mut impl Sink) -> &'static [u8] {
        let body = octets.strip_suffix(b"-").unwrap_or(octets);
        let (data, break_len) = match body {
            [data @ .., b'\r', b'\n'] => (data, 2),
            [data @ .., b'\n'] => (data, 1),
            _ => match octets {
                [data @ .., b'\r'] => (data, 0),
                _ => {
                    sink.data(octets);
                    return &[];
                }
            },
        };
        if !data.is_empty() {
            sink.data(data);
        }
        self.state = match break_len {
            0 => State::Cr,
            length => State::Start(length),
        };
        self.held.clear();
        self.held
            .extend_from_slice(octets.get(data.len()..).unwrap_or_default());
        &[]
    }

    /// Something is held: adds octets to it until it is decided what it is.
    fn resume<'a>(&mut self, octets: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        let Some((&first, after_first)) = octets.split_first() else {
            return octets;
        };
        let cut = match self.state {
            State::Cr if first == b'\n' => {
                self.held.push(first);
                self.state = State::Start(self.held.len());
                return after_first;
            }
            State::Start(cut) => cut,
            State::Cr | State::Middle => return self.give_up(octets, sink),
        };
        if self.held.len() < cut + 2 {
            if first != b'-' {
                return self.give_up(octets, sink);
            }
            self.held.push(first);
            return after_first;
        }
        let room = (cut + DELIMITER_LINE_OCTETS + 1).saturating_sub(self.held.len());
        let window = octets.get(..room).unwrap_or(octets);
        let Some(length) = memchr(b'\n', window) else {
            if octets.len() >= room {
                return self.give_up(octets, sink);
            }
            self.held.extend_from_slice(octets);
            return &[];
        };
        let (line, rest) = octets.split_at_checked(length + 1).unwrap_or((octets, &[]));
        self.held.extend_from_slice(line);
        self.complete(cut, sink);
        rest
    }

    /// `held` is a line break of `cut` octets and a whole line with its LF.
    fn complete(&mut self, cut: usize, sink: &mut impl Sink) {
        let held = std::mem::take(&mut self.held);
        let (before, line) = held.split_at_checked(cut).unwrap_or((&[], &held));
        let content = line.strip_suffix(b"\n").unwrap_or(line);
        let (content, _) = without_cr(content);
        let end = line.get(content.len()..).unwrap_or_default();
        if sink.dash_line(before, content, end) {
            self.state = State::Start(0);
        } else {
            self.held.extend_from_slice(end);
            self.state = State::Start(end.len());
        }
    }

    /// What is held is data after all.
    fn give_up<'a>(&mut self, octets: &'a [u8], sink: &mut impl Sink) -> &'a [u8] {
        if !self.held.is_empty() {
            sink.data(&self.held);
            self.held.clear();
        }
        self.state = State::Middle;
        octets
    }
}

/// A slice without one CR at its end, and that CR.
fn without_cr(octets: &[u8]) -> (&[u8], &[u8]) {
    match octets.strip_suffix(b"\r") {
        Some(content) => (content, b"\r"),
        None => (octets, b""),
    }
}

/// What a line that begins with `--` says about a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// Another part begins.
    Part,
    /// The multipart ends.
    Close,
}

/// Whether `line` (without its line break) delimits the parts of a multipart with this boundary:
/// `--boundary`, or `--boundary--`, then blanks or nothing. More CRs before the LF count as blanks.
pub(super) fn delimiter(line: &[u8], boundary: &[u8]) -> Option<Delimiter> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?;
    let blank = |rest: &[u8]| {
        rest.iter()
            .all(|octet| matches!(octet, b' ' | b'\t' | b'\r'))
    };
    if blank(rest) {
        Some(Delimiter::Part)
    } else if rest.strip_prefix(b"--").is_some_and(blank) {
        Some(Delimiter::Close)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Writes down what it is told; lines with `b` are delimiters.
    #[derive(Default, Debug, PartialEq)]
    struct Notes(Vec<String>);

    impl Notes {
        fn add(&mut self, kind: &str, text: &[u8]) {
            let text = String::from_utf8_lossy(text);
            match self.0.last_mut() {
                Some(last) if last.starts_with("data ") && kind == "data" => last.push_str(&text),
                _ => self.0.push(format!("{kind} {text}")),
            }
        }
    }

    impl Sink for Notes {
        fn data(&mut self, octets: &[u8]) {
            self.add("data", octets);
        }

        fn dash_line(&mut self, before: &[u8], line: &[u8], end: &[u8]) -> bool {
            if delimiter(line, b"b").is_some() {
                self.add("line", &[before, b"|", line, b"|", end].concat());
                return true;
            }
            self.add("data", before);
            self.add("data", line);
            false
        }
    }

    fn notes(pieces: &[&[u8]]) -> Vec<String> {
        let (mut splitter, mut notes) = (Splitter::new(), Notes::default());
        for piece in pieces {
            splitter.feed(piece, &mut notes);
        }
        splitter.finish(&mut notes);
        notes.0.retain(|note| note != "data ");
        notes.0
    }

    #[test]
    fn delimiters() {
        for (name, octets, expected) in [
            ("first line", "--b\r\nx", vec!["line |--b|\r\n", "data x"]),
            (
                "bare LF",
                "a\n--b\nx",
                vec!["data a", "line \n|--b|\n", "data x"],
            ),
            (
                "line breaks belong to delimiters",
                "a\r\n\r\n--b\r\n--b--\r\n",
                vec!["data a\r\n", "line \r\n|--b|\r\n", "line |--b--|\r\n"],
            ),
            (
                "at the end",
                "a\r\n--b--",
                vec!["data a", "line \r\n|--b--|"],
            ),
            (
                "CR at the end",
                "a\r\n--b--\r",
                vec!["data a", "line \r\n|--b--|\r"],
            ),
            (
                "trailing blanks",
                "a\n--b \t\n",
                vec!["data a", "line \n|--b \t|\n"],
            ),
            ("longer token", "a\n--bc\nx", vec!["data a\n--bc\nx"]),
            (
                "bare CR is no line end",
                "a\r--b\r\n",
                vec!["data a\r--b\r\n"],
            ),
            (
                "look-alike, then one",
                "\n--c\n--b\n",
                vec!["data \n--c", "line \n|--b|\n"],
            ),
            ("dashes at the end", "a\r\n-", vec!["data a\r\n-"]),
        ] {
            assert_eq!(notes(&[octets.as_bytes()]), expected, "{name}");
        }
    }

    #[test]
    fn endless_lines_are_no_delimiters() {
        let blanks = " ".repeat(DELIMITER_LINE_OCTETS + 1);
        let octets = format!("a\r\n--b{blanks}\r\n--b\r\n");
        let expected = notes(&[octets.as_bytes()]);
        assert_eq!(expected.len(), 2);
        assert_eq!(expected.last().unwrap(), "line \r\n|--b|\r\n");
        for cut in 0..octets.len() {
            let (head, tail) = octets.as_bytes().split_at(cut);
            assert_eq!(notes(&[head, tail]), expected, "cut at {cut}");
        }
    }

    proptest! {
        /// Where the network cuts the stream changes nothing.
        #[test]
        fn chunking_is_invisible(octets in "[ab\\-\r\n ]{0,40}", cuts in proptest::collection::vec(1usize..6, 0..40)) {
            let octets = octets.as_bytes();
            let (mut pieces, mut rest) = (Vec::new(), octets);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                pieces.push(head);
                rest = tail;
            }
            pieces.push(rest);
            prop_assert_eq!(notes(&pieces), notes(&[octets]));
        }
    }
}
