//! The scanner: a report streams in, and only what counts is kept.

use super::Limits;
use super::envelope::Reader;
use super::header::Collector;
use super::leaf::PartHeader;
use super::origin;
use super::problem::{Problems, excerpt};
use super::recipient::Recipients;
use super::report::{Envelope, Inner, Kind, Outer, Recipient, Report};
use super::split::{Delimiter, Sink, Splitter, delimiter};
use super::transfer::Transfer;
use super::walk::Walker;

/// Octets that are decoded at a time.
const STEP: usize = 8192;

/// How far a report is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// In the outer header.
    OuterHeader,
    /// In the envelope part, or before it.
    Envelope,
    /// In the journaled message, or before it.
    Journaled,
    /// Behind the first journaled message.
    Rest,
    /// It is no report, or one that cannot be read: the rest changes nothing.
    Failed,
}

/// Reads a report in any number of pieces. Where they are cut changes nothing.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    header: Option<Collector>,
    splitter: Splitter,
    body: Body,
}

/// Reads a report that is in memory.
pub fn parse(octets: &[u8], limits: Limits) -> Report {
    let mut scanner = Scanner::new(limits);
    scanner.handle_octets(octets);
    scanner.finish()
}

impl Scanner {
    /// A scanner at the start of a message.
    pub fn new(limits: Limits) -> Self {
        Self {
            header: Some(Collector::new(limits.outer_header)),
            splitter: Splitter::new(),
            body: Body::new(limits.clone()),
            limits,
        }
    }

    /// The next octets of the content arrived.
    pub fn handle_octets(&mut self, octets: &[u8]) {
        let mut rest = octets;
        if let Some(header) = &mut self.header {
            let ended = header.push(octets);
            if ended.is_none() && !header.over() {
                return;
            }
            rest = octets.get(ended.unwrap_or_default()..).unwrap_or_default();
            self.end_header();
        }
        if self.body.failed.is_none() {
            self.splitter.feed(rest, &mut self.body);
        }
    }

    /// The message has ended: what it said.
    pub fn finish(mut self) -> Report {
        self.end_header();
        if self.body.failed.is_none() {
            self.splitter.finish(&mut self.body);
            self.body.end_part();
        }
        self.body.into_report()
    }

    /// Hands out the recipients read since the last call. If the report turns out to be malformed
    /// later, they are none.
    pub fn take_recipients(&mut self) -> Vec<Recipient> {
        self.body
            .recipients_mut()
            .map_or_else(Vec::new, Recipients::take)
    }

    /// How far the report is read.
    pub const fn stage(&self) -> Stage {
        if self.header.is_some() {
            Stage::OuterHeader
        } else if self.body.failed.is_some() {
            Stage::Failed
        } else if self.body.envelope.is_none() {
            Stage::Envelope
        } else if self.body.inner.is_none() {
            Stage::Journaled
        } else {
            Stage::Rest
        }
    }

    /// The outer header's facts, once it is read.
    pub const fn outer(&self) -> Option<&Outer> {
        match self.header {
            Some(_) => None,
            None => Some(&self.body.outer),
        }
    }

    /// How many recipients wait to be taken.
    pub fn pending_recipients(&self) -> usize {
        match (&self.body.part, &self.body.envelope) {
            (Part::Envelope(_, reader), _) => reader.recipients().pending(),
            (_, Some(envelope)) => envelope.recipients.pending(),
            _ => 0,
        }
    }

    /// Octets of memory held now, about.
    pub fn memory(&self) -> usize {
        let header = self.header.as_ref().map_or(0, Collector::memory);
        size_of::<Self>() + header + self.splitter.memory() + self.body.memory()
    }

    fn end_header(&mut self) {
        let Some(header) = self.header.take() else {
            return;
        };
        if header.over() {
            let limit = self.limits.outer_header;
            self.body.fail(
                Kind::Malformed,
                format!("the outer header is longer than {limit} octets"),
            );
        } else {
            self.body.begin(header.block());
        }
    }
}

/// The part of the outer multipart that is being read.
#[derive(Debug)]
enum Part {
    /// What counts for nothing: preamble, epilogue, parts that are neither.
    Skip,
    Header(Collector),
    Envelope(Transfer, Box<Reader>),
    Message(Transfer, Box<Walker>),
}

/// The envelope part, read whole.
#[derive(Debug)]
struct ReadEnvelope {
    envelope: Envelope,
    recipients: Recipients,
    digest: [u8; 32],
}

#[derive(Debug)]
struct Body {
    limits: Limits,
    outer: Outer,
    boundary: Vec<u8>,
    closed: bool,
    part: Part,
    envelope: Option<ReadEnvelope>,
    inner: Option<Inner>,
    failed: Option<Kind>,
    buffer: Vec<u8>,
    problems: Problems,
}

impl Body {
    fn new(limits: Limits) -> Self {
        Self {
            limits,
            outer: Outer::default(),
            boundary: Vec::new(),
            closed: false,
            part: Part::Skip,
            envelope: None,
            inner: None,
            failed: None,
            buffer: Vec::new(),
            problems: Problems::default(),
        }
    }

    fn fail(&mut self, kind: Kind, problem: impl Into<String>) {
        self.failed = Some(kind);
        self.part = Part::Skip;
        self.problems.conclude(problem);
    }

    /// The outer header is read.
    fn begin(&mut self, block: &[u8]) {
        let (outer, marked) = origin::outer(block);
        self.outer = outer;
        if !marked {
            return self.fail(Kind::NotReport, "no X-MS-Journal-Report header");
        }
        let header = PartHeader::parse(block);
        if !header.is("multipart/mixed") {
            let found = excerpt(header.content_type());
            let problem = format!("the content type is {found}, not multipart/mixed");
            return self.fail(Kind::Malformed, problem);
        }
        match header.boundary() {
            Some(boundary) => self.boundary = boundary,
            None => self.fail(Kind::Malformed, "multipart/mixed without a usable boundary"),
        }
    }

    fn recipients_mut(&mut self) -> Option<&mut Recipients> {
        match (&mut self.part, &mut self.envelope) {
            (Part::Envelope(_, reader), _) => Some(reader.recipients_mut()),
            (_, Some(envelope)) => Some(&mut envelope.recipients),
            _ => None,
        }
    }

    fn memory(&self) -> usize {
        let part = match &self.part {
            Part::Skip => 0,
            Part::Header(header) => header.memory(),
            Part::Envelope(_, reader) => reader.memory(),
            Part::Message(_, walker) => walker.memory(),
        };
        let envelope = self
            .envelope
            .as_ref()
            .map_or(0, |read| read.envelope.memory() + read.recipients.memory());
        let inner = self.inner.as_ref().map_or(0, Inner::memory);
        self.outer.memory()
            + envelope
            + inner
            + part
            + self.problems.memory()
            + self.buffer.capacity()
    }

    /// Octets of the part that is being read.
    fn read(&mut self, octets: &[u8]) {
        let mut rest = octets;
        if let Part::Header(header) = &mut self.part {
            let Some(used) = header.push(rest) else {
                return;
            };
            rest = rest.get(used..).unwrap_or_default();
            self.end_header();
        }
        match &mut self.part {
            Part::Skip | Part::Header(_) => {}
            Part::Message(Transfer::Identity, walker) => walker.feed(rest),
            Part::Message(transfer, walker) => {
                for piece in rest.chunks(STEP) {
                    walker.feed(transfer.decode(piece, &mut self.buffer));
                }
            }
            Part::Envelope(transfer, reader) => {
                for piece in rest.chunks(STEP) {
                    let decoded = transfer.decode(piece, &mut self.buffer);
                    reader.feed(decoded, &mut self.problems);
                }
                let count = reader.recipients().count();
                self.check_count(count);
            }
        }
    }

    fn check_count(&mut self, count: usize) {
        let limit = self.limits.max_recipients;
        if count as u64 > limit {
            self.fail(Kind::Malformed, format!("more than {limit} recipients"));
        }
    }

    /// The header of a part is read.
    fn end_header(&mut self) {
        let Part::Header(collector) = std::mem::replace(&mut self.part, Part::Skip) else {
            return;
        };
        let header = PartHeader::parse(collector.block());
        let transfer = Transfer::named(&header.encoding).unwrap_or_else(|| {
            let encoding = excerpt(&String::from_utf8_lossy(&header.encoding));
            self.problems
                .add(format!("the transfer encoding {encoding} is not known"));
            Transfer::Identity
        });
        if self.envelope.is_some() {
            if collector.over() {
                self.problems
                    .add("the header of a part is too long; the part was not looked into");
            }
            if matches!(header.content_type(), "message/rfc822" | "message/global") {
                self.part = Part::Message(transfer, Box::new(Walker::new(&self.limits)));
            }
        } else if collector.over() {
            self.fail(
                Kind::Malformed,
                "the header of the envelope part is too long",
            );
        } else if header.is("text/plain") {
            let reader = Reader::new(header.charset(), self.limits.field);
            self.part = Part::Envelope(transfer, Box::new(reader));
        } else {
            let found = excerpt(header.content_type());
            let problem = format!("the first part is {found}, not text/plain");
            self.fail(Kind::Malformed, problem);
        }
    }

    /// The part that was read has ended.
    fn end_part(&mut self) {
        if matches!(self.part, Part::Header(_)) {
            self.end_header();
        }
        match std::mem::replace(&mut self.part, Part::Skip) {
            Part::Skip | Part::Header(_) => {}
            Part::Envelope(mut transfer, mut reader) => {
                let decoded = transfer.finish(&mut self.buffer);
                reader.feed(decoded, &mut self.problems);
                reader.finish(&mut self.problems);
                self.end_envelope(*reader);
            }
            Part::Message(mut transfer, mut walker) => {
                walker.feed(transfer.finish(&mut self.buffer));
                self.end_message(walker.finish());
            }
        }
    }

    fn end_envelope(&mut self, reader: Reader) {
        let (envelope, recipients, digest) = reader.into_parts();
        let count = recipients.count();
        if count == 0 {
            return self.fail(
                Kind::Malformed,
                "the envelope part names no recipient with a valid address",
            );
        }
        self.envelope = Some(ReadEnvelope {
            envelope,
            recipients,
            digest,
        });
        self.check_count(count);
    }

    /// The first journaled message counts. The second, of rights-protected mail, is its decrypted
    /// copy: what is only visible there is added.
    fn end_message(&mut self, message: Inner) {
        let Some(inner) = &mut self.inner else {
            self.inner = Some(message);
            return;
        };
        for domain in message.url_domains {
            if inner.url_domains.len() >= self.limits.url_domains {
                inner.partly_read = true;
                break;
            }
            if !inner.url_domains.contains(&domain) {
                inner.url_domains.push(domain);
            }
        }
        for attachment in message.attachments {
            if inner.attachments.len() >= self.limits.parts {
                inner.partly_read = true;
                break;
            }
            if !inner.attachments.contains(&attachment) {
                inner.attachments.push(attachment);
            }
        }
        inner.partly_read |= message.partly_read;
    }

    fn into_report(mut self) -> Report {
        if self.failed.is_none() && self.envelope.is_none() {
            self.fail(Kind::Malformed, "no part stands between boundary lines");
        }
        let mut report = Report {
            kind: self.failed.unwrap_or(Kind::Report),
            outer: self.outer,
            envelope: Envelope::default(),
            envelope_digest: [0; 32],
            recipients: Vec::new(),
            recipient_count: 0,
            inner: Inner::default(),
            problems: Vec::new(),
        };
        if let (None, Some(mut read)) = (self.failed, self.envelope) {
            report.envelope_digest = read.digest;
            report.recipients = read.recipients.take();
            report.recipient_count = read.recipients.count() as u64;
            report.envelope = read.envelope;
            report.inner = self.inner.unwrap_or_default();
            complete(&mut report, &mut self.problems);
        }
        report.problems = self.problems.into_vec();
        report
    }
}

impl Sink for Body {
    fn data(&mut self, octets: &[u8]) {
        if !matches!(self.part, Part::Skip) {
            self.read(octets);
        }
    }

    fn dash_line(&mut self, before: &[u8], line: &[u8], _end: &[u8]) -> bool {
        let found =
            delimiter(line, &self.boundary).filter(|_| !self.closed && self.failed.is_none());
        let Some(found) = found else {
            self.data(before);
            self.data(line);
            return false;
        };
        if matches!(self.part, Part::Header(_)) {
            // It may be the empty line that ends the header.
            self.data(before);
        }
        self.end_part();
        if self.failed.is_none() {
            match found {
                Delimiter::Part => {
                    self.part = Part::Header(Collector::new(self.limits.part_header));
                }
                Delimiter::Close => self.closed = true,
            }
        }
        true
    }
}

/// The fallbacks for the Message-ID, and what the journaled message contradicts. The envelope wins.
fn complete(report: &mut Report, problems: &mut Problems) {
    let (envelope, inner) = (&mut report.envelope, &report.inner);
    let parent = &report.outer.parent_message_id;
    match &envelope.message_id {
        None => {
            problems.add("the envelope part has no Message-Id");
            envelope.message_id = parent.clone().or_else(|| inner.message_id.clone());
        }
        Some(id) => {
            for (other, place) in [
                (parent, "X-MS-Exchange-Parent-Message-Id"),
                (&inner.message_id, "the journaled message"),
            ] {
                if let Some(other) = other.as_ref().filter(|other| *other != id) {
                    let (id, other) = (excerpt(id.as_str()), excerpt(other.as_str()));
                    problems.add(format!("Message-Id is {id}, but {other} in {place}"));
                }
            }
        }
    }
    if !inner.present {
        problems.add("the journaled message is missing");
        return;
    }
    if inner.partly_read {
        problems.add("the journaled message is read in part: a bound was reached");
    }
    let envelope = envelope.subject.as_deref().unwrap_or_default();
    let journaled = inner.subject.as_deref().unwrap_or_default();
    if !envelope.split_whitespace().eq(journaled.split_whitespace()) {
        problems.add("Subject differs from that of the journaled message");
    }
}
