//! The journaled message, while it streams by: its header's facts, its parts' hashes, its URLs.
//!
//! Octets in, in any cut; an [`Inner`] out. There is no recursion and no tree: the open multiparts are
//! a stack of boundaries, bounded by [`Limits`], and each leaf part is decoded, hashed
//! and searched as it passes.
//!
//! # Content digest
//!
//! SHA-256 over the 32-octet SHA-256 of each leaf part, in order. A leaf part is hashed after its
//! transfer encoding is undone; one of type `text/*` that is no attachment is hashed without the CRs
//! before its LFs and without line ends at its end. Headers of parts, preambles, epilogues and
//! boundaries do not count. So a message has the same digest on every hop, whatever relays do to
//! its encodings and headers.
//!
//! An attached message (`message/rfc822`, `message/global`) is one leaf part: the octets as they stand. It
//! is walked nevertheless, so that its attachments and URLs are found.
//!
//! What lies beyond a bound is a leaf part too, as it stands: a multipart nested too deep, a part whose
//! header is too long, and everything from the first part too many to the end of the message. The digest
//! therefore always covers the whole content, and two messages with one digest have the same content; the
//! message is marked partly read because attachments and URLs in there are not found.

use std::collections::HashSet;

use super::hash::Sha256;
use super::header::{Collector, fields};
use super::leaf::{Buffers, Leaf, PartHeader};
use super::origin;
use super::report::{Attachment, Inner};
use super::split::{Delimiter, Sink, Splitter, delimiter};
use super::url::Domains;
use super::{Limits, time};
use crate::mail::MessageId;

/// Most ids that are kept of `In-Reply-To` and `References`.
const REFERENCES: usize = 1000;

/// Walks one journaled message.
#[derive(Debug)]
pub(super) struct Walker {
    splitter: Splitter,
    walk: Walk,
}

impl Walker {
    /// A walker at the start of a message.
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            splitter: Splitter::new(),
            walk: Walk::new(limits),
        }
    }

    /// Takes the next octets of the message.
    pub(super) fn feed(&mut self, octets: &[u8]) {
        self.walk.inner.size += octets.len() as u64;
        self.splitter.feed(octets, &mut self.walk);
    }

    /// The message has ended: what it said.
    pub(super) fn finish(mut self) -> Inner {
        self.splitter.finish(&mut self.walk);
        self.walk.finish()
    }

    /// Octets of memory held, about.
    pub(super) fn memory(&self) -> usize {
        self.splitter.memory() + self.walk.memory()
    }
}

/// What encloses the part that is being read.
#[derive(Debug)]
enum Level {
    /// A multipart with this boundary; in a digest the default type of a part is a message.
    Multipart { boundary: Vec<u8>, digest: bool },
    /// An attached message.
    Message,
}

/// What is being read.
#[derive(Debug)]
enum State {
    /// The header of the message or of a part.
    Header(Collector),
    /// The content of a leaf part; the place of its hash among the attachments, if it is one.
    Leaf(Box<Leaf>, Option<usize>),
    /// Preamble, epilogue, or a message whose header is over the bound.
    Skip,
}

/// The outermost attached message, which is hashed as it stands.
#[derive(Debug)]
struct Attached {
    /// Levels outside of it.
    outside: usize,
    digest: Sha256,
    attachment: usize,
}

#[derive(Debug)]
struct Walk {
    limits: Limits,
    stack: Vec<Level>,
    state: State,
    attached: Option<Attached>,
    /// SHA-256 over the hashes of the leaf parts.
    content: Sha256,
    parts: usize,
    /// The header of the journaled message itself was read.
    header_read: bool,
    /// That header was over the bound.
    header_over: bool,
    inner: Inner,
    domains: Domains,
    buffers: Buffers,
}

impl Walk {
    fn new(limits: &Limits) -> Self {
        Self {
            stack: Vec::new(),
            state: State::Header(Collector::new(limits.inner_header)),
            attached: None,
            content: Sha256::new(),
            parts: 0,
            header_read: false,
            header_over: false,
            inner: Inner {
                present: true,
                ..Inner::default()
            },
            domains: Domains::new(limits.url_domains),
            buffers: Buffers::default(),
            limits: limits.clone(),
        }
    }

    fn finish(mut self) -> Inner {
        self.end_parts(0);
        let (domains, over) = self.domains.into_parts();
        self.inner.url_domains = domains;
        self.inner.partly_read |= over;
        if !self.header_over {
            self.inner.content_digest = Some(self.content.finish());
        }
        self.inner
    }

    fn memory(&self) -> usize {
        let state = match &self.state {
            State::Header(header) => header.memory(),
            State::Leaf(leaf, _) => leaf.memory(),
            State::Skip => 0,
        };
        let kept = self.inner.memory() + self.domains.memory();
        state + kept + self.stack.len() * 128 + self.buffers.memory()
    }

    /// Octets of the part that is being read, delimiters of parts within it never among them.
    fn read(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !rest.is_empty() {
            match &mut self.state {
                State::Header(header) => {
                    let Some(used) = header.push(rest) else {
                        return;
                    };
                    rest = rest.get(used..).unwrap_or_default();
                    self.end_header();
                }
                State::Leaf(leaf, _) => {
                    leaf.feed(rest, &mut self.domains, &mut self.buffers);
                    return;
                }
                State::Skip => return,
            }
        }
    }

    /// The header that was read is complete: what comes next?
    fn end_header(&mut self) {
        let State::Header(header) = std::mem::replace(&mut self.state, State::Skip) else {
            return;
        };
        if !self.header_read {
            self.header_read = true;
            if header.over() {
                self.header_over = true;
                self.inner.partly_read = true;
                return;
            }
            facts(header.block(), &mut self.inner);
        }
        if header.over() {
            self.opaque();
            return;
        }
        let header = PartHeader::parse(header.block());
        let content_type = match self.stack.last() {
            Some(Level::Multipart { digest: true, .. }) if header.content_type.value.is_empty() => {
                "message/rfc822"
            }
            _ => header.content_type(),
        };
        let identity = Leaf::is_identity(&header);
        if let Some(subtype) = content_type.strip_prefix("multipart/")
            && let Some(boundary) = header.boundary()
        {
            if self.stack.len() < self.limits.depth {
                let digest = subtype == "digest";
                self.stack.push(Level::Multipart { boundary, digest });
            } else {
                self.opaque();
            }
        } else if matches!(content_type, "message/rfc822" | "message/global") && identity {
            self.message(&header);
        } else {
            self.leaf(&header);
        }
    }

    fn leaf(&mut self, header: &PartHeader) {
        let place = header
            .is_attachment()
            .then(|| self.attach(header.file_name()));
        self.state = State::Leaf(Box::new(Leaf::new(header)), place);
    }

    /// What is beyond a bound: hashed as it stands, not looked into.
    fn opaque(&mut self) {
        self.inner.partly_read = true;
        self.state = State::Leaf(Box::new(Leaf::opaque()), None);
    }

    /// An attached message begins. Its own header comes next.
    fn message(&mut self, header: &PartHeader) {
        if self.stack.len() >= self.limits.depth {
            // The outermost attached message is still an attachment.
            if self.attached.is_none() {
                let place = self.attach(header.file_name());
                self.opaque();
                if let State::Leaf(_, attachment) = &mut self.state {
                    *attachment = Some(place);
                }
            } else {
                self.opaque();
            }
            return;
        }
        if self.attached.is_none() {
            self.attached = Some(Attached {
                outside: self.stack.len(),
                digest: Sha256::new(),
                attachment: self.attach(header.file_name()),
            });
        }
        self.stack.push(Level::Message);
        self.state = State::Header(Collector::new(self.limits.part_header));
    }

    /// Keeps a place for an attachment whose hash is known at its end.
    fn attach(&mut self, name: Option<String>) -> usize {
        let sha256 = [0; 32];
        self.inner.attachments.push(Attachment { name, sha256 });
        self.inner.attachments.len() - 1
    }

    fn set_hash(&mut self, attachment: usize, hash: [u8; 32]) {
        if let Some(attachment) = self.inner.attachments.get_mut(attachment) {
            attachment.sha256 = hash;
        }
    }

    /// Ends the part that is being read and all levels but the `kept` outermost.
    fn end_parts(&mut self, kept: usize) {
        if matches!(self.state, State::Header(_)) {
            // A header without an empty line: the part has no content.
            self.end_header();
            if matches!(self.state, State::Header(_)) {
                // An attached message without a header of its own.
                self.state = State::Skip;
            }
        }
        if let State::Leaf(leaf, attachment) = std::mem::replace(&mut self.state, State::Skip) {
            let hash = leaf.finish(&mut self.domains, &mut self.buffers);
            if let Some(attachment) = attachment {
                self.set_hash(attachment, hash);
            }
            if self.attached.is_none() {
                self.content.update(&hash);
            }
        }
        self.stack.truncate(kept);
        if let Some(attached) = self.attached.take_if(|attached| attached.outside >= kept) {
            let hash = attached.digest.finish();
            self.set_hash(attached.attachment, hash);
            self.content.update(&hash);
        }
    }

    /// The innermost open multipart that a line delimits.
    fn delimits(&self, line: &[u8]) -> Option<(usize, Delimiter)> {
        let levels = self.stack.iter().enumerate().rev();
        levels
            .filter_map(|(index, level)| match level {
                Level::Multipart { boundary, .. } => Some((index, delimiter(line, boundary)?)),
                Level::Message => None,
            })
            .next()
    }

    /// Another part begins in the multipart at `level`.
    fn begin_part(&mut self, level: usize) {
        self.end_parts(level + 1);
        self.parts += 1;
        if self.parts > self.limits.parts {
            // Without boundaries nothing is a delimiter any more: all the rest is one part.
            self.stack.clear();
            self.opaque();
        } else {
            self.state = State::Header(Collector::new(self.limits.part_header));
        }
    }
}

impl Sink for Walk {
    fn data(&mut self, octets: &[u8]) {
        if let Some(attached) = &mut self.attached {
            attached.digest.update(octets);
            self.read(octets);
            return;
        }
        // An attached message may begin in here: what follows its part's header is hashed.
        let mut rest = octets;
        while !rest.is_empty() {
            let State::Header(header) = &mut self.state else {
                self.read(rest);
                return;
            };
            let Some(used) = header.push(rest) else {
                return;
            };
            rest = rest.get(used..).unwrap_or_default();
            self.end_header();
            if let Some(attached) = &mut self.attached {
                attached.digest.update(rest);
                self.read(rest);
                return;
            }
        }
    }

    fn dash_line(&mut self, before: &[u8], line: &[u8], end: &[u8]) -> bool {
        // The line break before may be the empty line that ends a header, which may be that of the
        // multipart which this line delimits.
        let was_attached = self.attached.is_some();
        let in_header = matches!(self.state, State::Header(_));
        if in_header {
            self.read(before);
        }
        let found = self.delimits(line);
        let Some((level, kind)) = found else {
            if in_header {
                if let (Some(attached), true) = (&mut self.attached, was_attached) {
                    attached.digest.update(before);
                }
            } else {
                self.data(before);
            }
            self.data(line);
            return false;
        };
        if let Some(attached) = &mut self.attached
            && attached.outside <= level
        {
            if was_attached {
                attached.digest.update(before);
            }
            attached.digest.update(line);
            attached.digest.update(end);
        }
        match kind {
            Delimiter::Part => self.begin_part(level),
            Delimiter::Close => {
                self.end_parts(level + 1);
                self.stack.truncate(level);
            }
        }
        true
    }
}

/// The facts of the header of the journaled message.
fn facts(block: &[u8], inner: &mut Inner) {
    let mut known = HashSet::new();
    for field in fields(block) {
        match field.name.first().map(u8::to_ascii_lowercase) {
            Some(b'f') if field.is("From") && inner.from.is_none() => {
                inner.from = origin::from(field);
            }
            Some(b'd') if field.is("Date") && inner.date.is_none() => {
                inner.date = time::header(&field.text());
            }
            Some(b's') if field.is("Subject") && inner.subject.is_none() => {
                inner.subject = Some(field.text());
            }
            Some(b'm') if field.is("Message-ID") && inner.message_id.is_none() => {
                inner.message_id = origin::message_id(field);
            }
            Some(b'i') if field.is("In-Reply-To") => {
                references(&field.unfolded(), inner, &mut known)
            }
            Some(b'r') if field.is("References") => {
                references(&field.unfolded(), inner, &mut known)
            }
            Some(b'x')
                if field.is("X-MS-Exchange-Organization-Network-Message-Id")
                    && inner.network_message_id.is_none() =>
            {
                inner.network_message_id = guid(&field.unfolded());
            }
            _ => {}
        }
    }
}

/// Adds the ids in angle brackets (RFC 5322 §3.6.4), or the words if there are no brackets.
fn references(value: &[u8], inner: &mut Inner, known: &mut HashSet<MessageId>) {
    let text = super::charset::utf8_or_windows_1252(value);
    let bracketed = text.contains('<');
    let ids = text.split(|c: char| {
        if bracketed {
            c == '<'
        } else {
            c.is_whitespace()
        }
    });
    for id in ids.skip(usize::from(bracketed)) {
        let id = id.split('>').next().unwrap_or_default();
        let Some(id) = MessageId::new(id) else {
            continue;
        };
        if inner.references.len() >= REFERENCES {
            return;
        }
        if known.insert(id.clone()) {
            inner.references.push(id);
        }
    }
}

/// A GUID in lower case without braces.
fn guid(value: &[u8]) -> Option<String> {
    let text = str::from_utf8(value).ok()?.trim_matches(['{', '}', ' ']);
    let guid = uuid::Uuid::try_parse(text).ok()?;
    Some(guid.hyphenated().to_string())
}
