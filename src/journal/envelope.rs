//! The envelope part: lines of text that name sender, subject, Message-ID and recipients ([MS-XJRNL] 2.1).
//!
//! Transfer-decoded octets in, in any cut; an [`Envelope`] and [`Recipients`] out. Nothing fails: what
//! is no field is passed over, what is no address is dropped and noted. One field is held at a time.

use memchr::memchr;

use super::charset::Charset;
use super::hash::Sha256;
use super::problem::{Problems, excerpt};
use super::recipient::{self, BLANKS, Recipients, unbracketed};
use super::report::{Envelope, Field};
use super::time;
use crate::mail::{Address, MessageId};

/// Reads an envelope part.
#[derive(Debug)]
pub(super) struct Reader {
    charset: Charset,
    /// For character sets in which a line end is more than one octet.
    stream: Option<encoding_rs::Decoder>,
    digest: Sha256,
    line: Line,
    /// The field whose value may still be continued.
    field: Option<(Name, String)>,
    progress: Progress,
    envelope: Envelope,
    /// Which of the fields that count once were there.
    seen: Vec<Name>,
    recipients: Recipients,
    limit: usize,
}

/// How far the part is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// Only empty lines so far.
    Before,
    /// In the fields.
    Fields,
    /// An empty line ended them.
    Ended,
}

/// The beginning of a line whose end is not there yet, up to a bound.
#[derive(Debug, Default)]
struct Line {
    octets: Vec<u8>,
    over: bool,
}

/// The fields that mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Sender,
    OnBehalfOf,
    Subject,
    MessageId,
    Label,
    Mailbox,
    SentUtc,
    ReceivedUtc,
    Recipient(Field),
}

impl Name {
    const KNOWN: [(&'static str, Self); 12] = [
        ("Sender", Self::Sender),
        ("On-Behalf-Of", Self::OnBehalfOf),
        ("Subject", Self::Subject),
        ("Message-ID", Self::MessageId),
        ("Label", Self::Label),
        ("Mailbox", Self::Mailbox),
        ("SentUtc", Self::SentUtc),
        ("ReceivedUtc", Self::ReceivedUtc),
        ("To", Self::Recipient(Field::To)),
        ("Cc", Self::Recipient(Field::Cc)),
        ("Bcc", Self::Recipient(Field::Bcc)),
        ("Recipient", Self::Recipient(Field::Recipient)),
    ];

    fn known(name: &str) -> Option<Self> {
        let is = |(known, _): &&(&str, Self)| name.eq_ignore_ascii_case(known);
        Self::KNOWN.iter().find(is).map(|&(_, name)| name)
    }

    fn label(self) -> &'static str {
        let is = |(_, name): &&(&'static str, Self)| *name == self;
        Self::KNOWN.iter().find(is).map_or("", |&(label, _)| label)
    }
}

impl Reader {
    /// A reader for a part in this character set; no line or field is kept beyond `limit` octets.
    pub(super) fn new(charset: Charset, limit: usize) -> Self {
        let stream = if charset.has_octet_lines() {
            None
        } else {
            charset.stream()
        };
        Self {
            charset: if stream.is_some() {
                Charset::Utf8
            } else {
                charset
            },
            stream,
            digest: Sha256::new(),
            line: Line::default(),
            field: None,
            progress: Progress::Before,
            envelope: Envelope::default(),
            seen: Vec::new(),
            recipients: Recipients::default(),
            limit,
        }
    }

    /// Takes the next octets of the part, transfer-decoded.
    pub(super) fn feed(&mut self, octets: &[u8], problems: &mut Problems) {
        self.digest.update(octets);
        if self.progress == Progress::Ended {
            return;
        }
        if let Some(mut decoder) = self.stream.take() {
            let mut text = String::new();
            let mut rest = octets;
            while !rest.is_empty() {
                let room = decoder.max_utf8_buffer_length(rest.len());
                text.reserve(room.unwrap_or(rest.len() * 3 + 16));
                let (_, read, _) = decoder.decode_to_string(rest, &mut text, false);
                rest = rest.get(read..).unwrap_or_default();
            }
            self.lines(text.as_bytes(), problems);
            self.stream = Some(decoder);
        } else {
            self.lines(octets, problems);
        }
    }

    /// The part has ended.
    pub(super) fn finish(&mut self, problems: &mut Problems) {
        let line = std::mem::take(&mut self.line);
        if self.progress != Progress::Ended && !line.octets.is_empty() {
            self.line(&line.octets, line.over, problems);
        }
        self.end_field(problems);
        self.progress = Progress::Ended;
    }

    /// What the part said, and the SHA-256 of its octets. Call after [`finish`](Self::finish).
    pub(super) fn into_parts(self) -> (Envelope, Recipients, [u8; 32]) {
        (self.envelope, self.recipients, self.digest.finish())
    }

    /// The recipients read so far.
    pub(super) const fn recipients(&self) -> &Recipients {
        &self.recipients
    }

    /// The recipients read so far, to take them.
    pub(super) const fn recipients_mut(&mut self) -> &mut Recipients {
        &mut self.recipients
    }

    /// Octets of memory held, about.
    pub(super) fn memory(&self) -> usize {
        let field = self.field.as_ref().map_or(0, |(_, value)| value.capacity());
        let line = self.line.octets.capacity();
        line + field + self.envelope.memory() + self.recipients.memory()
    }

    fn lines(&mut self, octets: &[u8], problems: &mut Problems) {
        let mut rest = octets;
        while let Some(length) = memchr(b'\n', rest) {
            let (line, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = after.get(1..).unwrap_or_default();
            if self.line.octets.is_empty() {
                self.whole_line(line, problems);
            } else {
                self.hold(line);
                let mut held = std::mem::take(&mut self.line);
                self.line(&held.octets, held.over, problems);
                held.octets.clear();
                self.line.octets = held.octets;
            }
            if self.progress == Progress::Ended {
                self.line = Line::default();
                return;
            }
        }
        self.hold(rest);
    }

    fn whole_line(&mut self, line: &[u8], problems: &mut Problems) {
        let kept = line.get(..self.limit).unwrap_or(line);
        self.line(kept, kept.len() < line.len(), problems);
    }

    fn hold(&mut self, octets: &[u8]) {
        let room = self.limit.saturating_sub(self.line.octets.len());
        let kept = octets.get(..room).unwrap_or(octets);
        self.line.octets.extend_from_slice(kept);
        self.line.over |= kept.len() < octets.len();
    }

    /// One line without its LF.
    fn line(&mut self, octets: &[u8], over: bool, problems: &mut Problems) {
        let end = octets.iter().rposition(|&octet| octet != b'\r');
        let octets = end.and_then(|end| octets.get(..=end)).unwrap_or_default();
        let mut text = self.charset.decode(octets);
        if text.contains('\0') {
            text = text.replace('\0', "").into();
        }
        let text: &str = match self.progress {
            Progress::Before => text.trim_start_matches('\u{feff}'),
            _ => &text,
        };
        if over {
            problems.add("a line of the envelope part is too long; its end was not read");
        }
        let value = text.trim_matches(BLANKS);
        if value.is_empty() {
            if self.progress == Progress::Fields {
                self.end_field(problems);
                self.progress = Progress::Ended;
            }
        } else if text.starts_with(BLANKS) {
            self.continuation(value, problems);
        } else {
            self.end_field(problems);
            self.start_field(text, over);
        }
    }

    fn start_field(&mut self, text: &str, over: bool) {
        let Some((name, value)) = text.split_once(':') else {
            return;
        };
        let name = name.trim_end_matches(BLANKS);
        if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return;
        }
        self.progress = Progress::Fields;
        match Name::known(name) {
            // Half a recipient is none.
            Some(Name::Recipient(_)) if over => {}
            Some(name) => self.field = Some((name, value.trim_matches(BLANKS).to_owned())),
            None => {}
        }
    }

    fn continuation(&mut self, text: &str, problems: &mut Problems) {
        let Some((_, value)) = &mut self.field else {
            return;
        };
        if value.len() + text.len() < self.limit {
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str(text);
        } else {
            problems.add("a field of the envelope part is too long; its end was not read");
        }
    }

    /// The field that was read is complete.
    fn end_field(&mut self, problems: &mut Problems) {
        let Some((name, value)) = self.field.take() else {
            return;
        };
        if let Name::Recipient(field) = name {
            match recipient::parse(field, &value) {
                Ok(recipient) => self.recipients.add(recipient),
                Err(error) => problems.add(format!(
                    "{}: {} is no address: {error}",
                    name.label(),
                    excerpt(&value)
                )),
            }
            return;
        }
        if self.seen.contains(&name) {
            problems.add(format!("{} is there twice; the first counts", name.label()));
            return;
        }
        self.seen.push(name);
        self.set(name, value, problems);
    }

    fn set(&mut self, name: Name, value: String, problems: &mut Problems) {
        let envelope = &mut self.envelope;
        match name {
            Name::Sender => {
                (envelope.sender, envelope.sender_text) = path(name, &value, problems);
            }
            Name::OnBehalfOf => {
                (envelope.on_behalf_of, envelope.on_behalf_of_text) = path(name, &value, problems);
            }
            Name::Mailbox => envelope.mailbox = path(name, &value, problems).0,
            Name::Subject => envelope.subject = Some(value).filter(|text| !text.is_empty()),
            Name::Label => envelope.label = Some(value).filter(|label| !label.is_empty()),
            Name::MessageId => envelope.message_id = MessageId::new(&value),
            Name::SentUtc => envelope.sent = instant(name, &value, problems),
            Name::ReceivedUtc => envelope.received = instant(name, &value, problems),
            Name::Recipient(_) => {}
        }
    }
}

/// An address, or else the text that is none; `<>` and nothing are the null path.
fn path(name: Name, value: &str, problems: &mut Problems) -> (Option<Address>, Option<String>) {
    let text = unbracketed(value);
    if text.is_empty() {
        return (None, None);
    }
    match text.parse() {
        Ok(address) => (Some(address), None),
        Err(error) => {
            let (label, shown) = (name.label(), excerpt(value));
            problems.add(format!("{label}: {shown} is no address: {error}"));
            (None, Some(text.to_owned()))
        }
    }
}

fn instant(name: Name, value: &str, problems: &mut Problems) -> Option<jiff::Timestamp> {
    let time = time::envelope(value);
    if time.is_none() && !value.is_empty() {
        let (label, value) = (name.label(), excerpt(value));
        problems.add(format!("{label}: {value} is no time"));
    }
    time
}
