//! What the log holds of a journal report: the payloads of its two kinds of frames.
//!
//! A report is one [`Kept`] frame. One with very many recipients spills them first, in
//! frames of [`KIND_RECIPIENTS`] of about a thousand; the report's own frame comes last and names their
//! positions, so that spilled recipients without a report (a crash in between) are never read.
//!
//! A payload begins with its format version. Optional facts have a bit each; texts that repeat an
//! envelope fact are one bit; times are milliseconds. A typical report takes about 500 octets.

use jiff::Timestamp;

use super::codec::{DecodeError, Reader, Writer};
use crate::journal::{Attachment, Envelope, Field, Inner, Recipient, Report};
use crate::mail::{Address, MessageId, TenantName};
use crate::segment::Position;

/// Kind octet of a frame that holds a [`Kept`] report.
pub const KIND_REPORT: u8 = 1;
/// Kind octet of a frame that holds spilled recipients of a report still to come.
pub const KIND_RECIPIENTS: u8 = 2;

/// The format that this version writes. It reads this one and all before it.
pub const FORMAT: u8 = 1;

/// A journal report as it is kept: everything the parser said of it, except the tenant stamps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Whose report it is.
    pub tenant: TenantName,
    /// The region of the journal address it came to.
    pub region: Option<String>,
    /// When it arrived, or for an imported report its own date.
    pub arrived: Timestamp,
    /// Who delivered it: an IP address, or where it was imported from.
    pub peer: String,
    /// The report's own Message-ID.
    pub outer_message_id: Option<MessageId>,
    /// The envelope part without recipients.
    pub envelope: Envelope,
    /// SHA-256 of the envelope part.
    pub envelope_digest: [u8; 32],
    /// The recipients that are in this frame.
    pub recipients: Vec<Recipient>,
    /// How many recipients there are in all.
    pub recipient_count: u64,
    /// Where the other recipients are.
    pub spilled: Vec<Position>,
    /// The journaled message.
    pub inner: Inner,
    /// What was odd.
    pub problems: Vec<String>,
}

impl Kept {
    /// A report to be kept, of which `spilled` recipients are written already.
    pub fn new(
        tenant: TenantName,
        region: Option<String>,
        arrived: Timestamp,
        peer: String,
        report: Report,
        spilled: Vec<Position>,
    ) -> Self {
        Self {
            tenant,
            region,
            arrived: whole_milliseconds(arrived),
            peer,
            outer_message_id: report.outer.message_id,
            envelope: report.envelope,
            envelope_digest: report.envelope_digest,
            recipients: report.recipients,
            recipient_count: report.recipient_count,
            spilled,
            inner: report.inner,
            problems: report.problems,
        }
    }

    /// ReceivedUtc, else the arrival: what a report says of when its message was received.
    pub fn received(&self) -> Timestamp {
        self.envelope.received.unwrap_or(self.arrived)
    }

    /// Senders by which the message is found: envelope Sender, On-Behalf-Of, and the journaled From.
    pub fn senders(&self) -> impl Iterator<Item = &Address> {
        [
            self.envelope.sender.as_ref(),
            self.envelope.on_behalf_of.as_ref(),
            self.inner.from.as_ref(),
        ]
        .into_iter()
        .flatten()
    }

    /// The envelope's subject, else the journaled message's.
    pub fn subject(&self) -> Option<&str> {
        let own = self.inner.subject.as_deref();
        self.envelope.subject.as_deref().or(own)
    }

    /// The payload of a [`KIND_REPORT`] frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::with_capacity(512 + 32 * self.recipients.len());
        out.octet(FORMAT);
        out.text(self.tenant.as_str());
        out.time(self.arrived);
        out.text(&self.peer);
        out.number(self.facts().into());
        if let Some(region) = &self.region {
            out.text(region);
        }
        self.encode_envelope(&mut out);
        self.encode_inner(&mut out);
        encode_recipients(&self.recipients, &mut out);
        let here = self.recipients.len() as u64;
        out.number(self.recipient_count.saturating_sub(here));
        out.number(self.spilled.len() as u64);
        for place in &self.spilled {
            out.number(place.partition.into());
            out.number(place.segment.into());
            out.number(place.offset);
        }
        out.number(self.problems.len() as u64);
        for problem in &self.problems {
            out.text(problem);
        }
        out.into_octets()
    }

    /// The report in the payload of a [`KIND_REPORT`] frame.
    ///
    /// # Errors
    ///
    /// [`DecodeError`]: the payload is damaged or of a newer format.
    pub fn decode(octets: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Reader::new(octets);
        version(&mut from)?;
        let tenant = TenantName::new(&from.text("tenant")?);
        let arrived = from.time("arrived")?;
        let peer = from.text("peer")?;
        let facts = Facts(from.number("facts")?);
        let region = facts.then(REGION, || from.text("region"))?;
        let (outer_message_id, envelope_digest, envelope) = decode_envelope(facts, &mut from)?;
        let inner = decode_inner(facts, &envelope, &mut from)?;
        let recipients = decode_recipients(&mut from)?;
        let recipient_count = from
            .number("recipient count")?
            .saturating_add(recipients.len() as u64);
        let mut spilled = Vec::new();
        for _ in 0..from.count(3, "spilled")? {
            let partition = from.number("partition")?;
            let segment = from.number("segment")?;
            let offset = from.number("offset")?;
            let narrow = |n| u32::try_from(n).map_err(|_| DecodeError::Value("place"));
            spilled.push(Position {
                partition: narrow(partition)?,
                segment: narrow(segment)?,
                offset,
            });
        }
        let mut problems = Vec::new();
        for _ in 0..from.count(1, "problems")? {
            problems.push(from.text("problem")?);
        }
        Ok(Self {
            tenant,
            region,
            arrived,
            peer,
            outer_message_id,
            envelope,
            envelope_digest,
            recipients,
            recipient_count,
            spilled,
            inner,
            problems,
        })
    }

    /// Which facts are there, and which repeat another.
    fn facts(&self) -> u32 {
        let (envelope, inner) = (&self.envelope, &self.inner);
        let same = |a: Option<&str>, b: Option<&str>| a.is_some() && a == b;
        let verbatim = Address::as_str;
        [
            (REGION, self.region.is_some()),
            (OUTER_ID, self.outer_message_id.is_some()),
            (SENDER, envelope.sender.is_some()),
            (ON_BEHALF_OF, envelope.on_behalf_of.is_some()),
            (SUBJECT, envelope.subject.is_some()),
            (MESSAGE_ID, envelope.message_id.is_some()),
            (LABEL, envelope.label.is_some()),
            (MAILBOX, envelope.mailbox.is_some()),
            (SENT, envelope.sent.is_some()),
            (RECEIVED, envelope.received.is_some()),
            (INNER, inner.present),
            (FROM, inner.from.is_some()),
            (
                FROM_IS_SENDER,
                same(
                    inner.from.as_ref().map(verbatim),
                    envelope.sender.as_ref().map(verbatim),
                ),
            ),
            (DATE, inner.date.is_some()),
            (INNER_SUBJECT, inner.subject.is_some()),
            (
                SUBJECT_IS_SAME,
                same(inner.subject.as_deref(), envelope.subject.as_deref()),
            ),
            (INNER_ID, inner.message_id.is_some()),
            (
                ID_IS_SAME,
                inner.message_id.is_some() && inner.message_id == envelope.message_id,
            ),
            (NETWORK_ID, inner.network_message_id.is_some()),
            (DIGEST, inner.content_digest.is_some()),
            (PARTLY_READ, inner.partly_read),
        ]
        .into_iter()
        .filter(|(_, there)| *there)
        .fold(0, |bits, (bit, _)| bits | 1 << bit)
    }

    fn encode_envelope(&self, out: &mut Writer) {
        let envelope = &self.envelope;
        if let Some(id) = &self.outer_message_id {
            out.text(id.as_str());
        }
        out.raw(&self.envelope_digest);
        let addresses = [&envelope.sender, &envelope.on_behalf_of, &envelope.mailbox];
        for address in addresses.into_iter().flatten() {
            out.address(address);
        }
        for text in [&envelope.subject, &envelope.label].into_iter().flatten() {
            out.text(text);
        }
        if let Some(id) = &envelope.message_id {
            out.text(id.as_str());
        }
        for time in [envelope.sent, envelope.received].into_iter().flatten() {
            out.time(time);
        }
    }

    fn encode_inner(&self, out: &mut Writer) {
        let inner = &self.inner;
        let facts = Facts(self.facts().into());
        if let Some(from) = inner.from.as_ref().filter(|_| !facts.has(FROM_IS_SENDER)) {
            out.address(from);
        }
        if let Some(date) = inner.date {
            out.time(date);
        }
        if let Some(subject) = inner.subject.as_ref()
            && !facts.has(SUBJECT_IS_SAME)
        {
            out.text(subject);
        }
        if let Some(id) = inner.message_id.as_ref().filter(|_| !facts.has(ID_IS_SAME)) {
            out.text(id.as_str());
        }
        if let Some(id) = &inner.network_message_id {
            out.text(id);
        }
        if let Some(digest) = &inner.content_digest {
            out.raw(digest);
        }
        out.number(inner.size);
        out.number(inner.references.len() as u64);
        for id in &inner.references {
            out.text(id.as_str());
        }
        out.number(inner.attachments.len() as u64);
        for attachment in &inner.attachments {
            out.octet(attachment.name.is_some().into());
            if let Some(name) = &attachment.name {
                out.text(name);
            }
            out.raw(&attachment.sha256);
        }
        out.number(inner.url_domains.len() as u64);
        for domain in &inner.url_domains {
            out.text(domain);
        }
    }
}

/// The payload of a [`KIND_RECIPIENTS`] frame.
pub fn encode_spilled(recipients: &[Recipient]) -> Vec<u8> {
    let mut out = Writer::with_capacity(32 * recipients.len());
    out.octet(FORMAT);
    encode_recipients(recipients, &mut out);
    out.into_octets()
}

/// The recipients in the payload of a [`KIND_RECIPIENTS`] frame.
///
/// # Errors
///
/// [`DecodeError`]: the payload is damaged or of a newer format.
pub fn decode_spilled(octets: &[u8]) -> Result<Vec<Recipient>, DecodeError> {
    let mut from = Reader::new(octets);
    version(&mut from)?;
    decode_recipients(&mut from)
}

/// Times are kept in milliseconds; what is in memory should say the same as what is read back.
fn whole_milliseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

fn version(from: &mut Reader<'_>) -> Result<(), DecodeError> {
    match from.octet("version")? {
        0 => Err(DecodeError::Value("version")),
        FORMAT => Ok(()),
        newer => Err(DecodeError::Newer(newer)),
    }
}

/// Bits of [`Kept::facts`]. Their numbers are part of the format.
const REGION: u32 = 0;
const OUTER_ID: u32 = 1;
const SENDER: u32 = 2;
const ON_BEHALF_OF: u32 = 3;
const SUBJECT: u32 = 4;
const MESSAGE_ID: u32 = 5;
const LABEL: u32 = 6;
const MAILBOX: u32 = 7;
const SENT: u32 = 8;
const RECEIVED: u32 = 9;
const INNER: u32 = 10;
const FROM: u32 = 11;
const FROM_IS_SENDER: u32 = 12;
const DATE: u32 = 13;
const INNER_SUBJECT: u32 = 14;
const SUBJECT_IS_SAME: u32 = 15;
const INNER_ID: u32 = 16;
const ID_IS_SAME: u32 = 17;
const NETWORK_ID: u32 = 18;
const DIGEST: u32 = 19;
const PARTLY_READ: u32 = 20;

#[derive(Clone, Copy)]
struct Facts(u64);

impl Facts {
    fn has(self, bit: u32) -> bool {
        self.0 >> bit & 1 == 1
    }

    /// The value that `read` takes, if it is there.
    fn then<T>(
        self,
        bit: u32,
        read: impl FnOnce() -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        self.has(bit).then(read).transpose()
    }
}

fn decode_envelope(
    facts: Facts,
    from: &mut Reader<'_>,
) -> Result<(Option<MessageId>, [u8; 32], Envelope), DecodeError> {
    let outer = facts.then(OUTER_ID, || from.message_id("outer Message-ID"))?;
    let digest = from.array("envelope digest")?;
    let sender = facts.then(SENDER, || from.address("sender"))?;
    let on_behalf_of = facts.then(ON_BEHALF_OF, || from.address("on behalf of"))?;
    let mailbox = facts.then(MAILBOX, || from.address("mailbox"))?;
    let subject = facts.then(SUBJECT, || from.text("subject"))?;
    let label = facts.then(LABEL, || from.text("label"))?;
    let message_id = facts.then(MESSAGE_ID, || from.message_id("Message-ID"))?;
    let sent = facts.then(SENT, || from.time("sent"))?;
    let received = facts.then(RECEIVED, || from.time("received"))?;
    let envelope = Envelope {
        sender,
        on_behalf_of,
        subject,
        message_id,
        label,
        mailbox,
        sent,
        received,
        ..Envelope::default()
    };
    Ok((outer, digest, envelope))
}

fn decode_inner(
    facts: Facts,
    envelope: &Envelope,
    from: &mut Reader<'_>,
) -> Result<Inner, DecodeError> {
    let sender = if facts.has(FROM_IS_SENDER) {
        envelope.sender.clone()
    } else {
        facts.then(FROM, || from.address("from"))?
    };
    let date = facts.then(DATE, || from.time("date"))?;
    let subject = if facts.has(SUBJECT_IS_SAME) {
        envelope.subject.clone()
    } else {
        facts.then(INNER_SUBJECT, || from.text("inner subject"))?
    };
    let message_id = if facts.has(ID_IS_SAME) {
        envelope.message_id.clone()
    } else {
        facts.then(INNER_ID, || from.message_id("inner Message-ID"))?
    };
    let network_message_id = facts.then(NETWORK_ID, || from.text("network message id"))?;
    let content_digest = facts.then(DIGEST, || from.array("content digest"))?;
    let size = from.number("size")?;
    let mut references = Vec::new();
    for _ in 0..from.count(1, "references")? {
        references.push(from.message_id("reference")?);
    }
    let mut attachments = Vec::new();
    for _ in 0..from.count(33, "attachments")? {
        let named = from.octet("attachment")? == 1;
        attachments.push(Attachment {
            name: named.then(|| from.text("attachment name")).transpose()?,
            sha256: from.array("attachment hash")?,
        });
    }
    let mut url_domains = Vec::new();
    for _ in 0..from.count(1, "url domains")? {
        url_domains.push(from.text("url domain")?);
    }
    Ok(Inner {
        present: facts.has(INNER),
        from: sender,
        date,
        subject,
        message_id,
        references,
        network_message_id,
        size,
        attachments,
        url_domains,
        content_digest,
        partly_read: facts.has(PARTLY_READ),
    })
}

/// The recipient's group, or whom it was forwarded from, is the one before it.
const SAME_EXPANDED: u8 = 1 << 4;
const SAME_FORWARDED: u8 = 1 << 5;
const EXPANDED: u8 = 1 << 2;
const FORWARDED: u8 = 1 << 3;

fn encode_recipients(recipients: &[Recipient], out: &mut Writer) {
    out.number(recipients.len() as u64);
    let (mut group, mut forwarder): (Option<&Address>, Option<&Address>) = (None, None);
    let same = |a: &Address, b: Option<&Address>| b.is_some_and(|b| a.as_str() == b.as_str());
    for recipient in recipients {
        let mut flags = match recipient.field {
            Field::To => 0,
            Field::Cc => 1,
            Field::Bcc => 2,
            Field::Recipient => 3,
        };
        let expanded = recipient.expanded_from.as_ref();
        let forwarded = recipient.forwarded_from.as_ref();
        if let Some(from) = expanded {
            flags |= if same(from, group) {
                SAME_EXPANDED
            } else {
                EXPANDED
            };
        }
        if let Some(from) = forwarded {
            flags |= if same(from, forwarder) {
                SAME_FORWARDED
            } else {
                FORWARDED
            };
        }
        out.octet(flags);
        out.address(&recipient.address);
        if let Some(from) = expanded.filter(|_| flags & EXPANDED != 0) {
            out.address(from);
            group = Some(from);
        }
        if let Some(from) = forwarded.filter(|_| flags & FORWARDED != 0) {
            out.address(from);
            forwarder = Some(from);
        }
    }
}

fn decode_recipients(from: &mut Reader<'_>) -> Result<Vec<Recipient>, DecodeError> {
    let count = from.count(3, "recipients")?;
    // A recipient in memory is many times its three octets at least: the vector grows as they come.
    let mut recipients = Vec::with_capacity(count.min(1024));
    let (mut group, mut forwarder) = (None::<Address>, None::<Address>);
    for _ in 0..count {
        let flags = from.octet("recipient")?;
        let field = match flags & 3 {
            0 => Field::To,
            1 => Field::Cc,
            2 => Field::Bcc,
            _ => Field::Recipient,
        };
        let address = from.address("recipient")?;
        if flags & EXPANDED != 0 {
            group = Some(from.address("expanded from")?);
        }
        if flags & FORWARDED != 0 {
            forwarder = Some(from.address("forwarded from")?);
        }
        let expanded = flags & (EXPANDED | SAME_EXPANDED) != 0;
        let forwarded = flags & (FORWARDED | SAME_FORWARDED) != 0;
        recipients.push(Recipient {
            address,
            field,
            expanded_from: group.clone().filter(|_| expanded),
            forwarded_from: forwarder.clone().filter(|_| forwarded),
        });
    }
    Ok(recipients)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn some_address() -> impl Strategy<Value = Address> {
        "[a-cü]{1,3}(\\.x)?@[a-b]{1,2}\\.example".prop_map(|text| text.parse().unwrap())
    }

    fn some_id() -> impl Strategy<Value = MessageId> {
        let text = "<?[a-z]{1,8}@[a-z]{1,8}>?|0f8fad5b-d9cb-469f-a165-[0-9a-f]{12}@x";
        text.prop_map(|text| MessageId::new(&format!("<{text}>")).unwrap())
    }

    fn some_time() -> impl Strategy<Value = Timestamp> {
        (-4_000_000_000_000i64..40_000_000_000_000)
            .prop_map(|ms| Timestamp::from_millisecond(ms).unwrap())
    }

    fn some_recipient() -> impl Strategy<Value = Recipient> {
        let field = prop_oneof![
            Just(Field::To),
            Just(Field::Cc),
            Just(Field::Bcc),
            Just(Field::Recipient)
        ];
        let other = || proptest::option::of(some_address());
        (some_address(), field, other(), other()).prop_map(
            |(address, field, expanded_from, forwarded_from)| Recipient {
                address,
                field,
                expanded_from,
                forwarded_from,
            },
        )
    }

    fn some_envelope() -> impl Strategy<Value = Envelope> {
        let address = || proptest::option::of(some_address());
        let time = || proptest::option::of(some_time());
        let text = || proptest::option::of(".{0,12}");
        (
            (address(), address(), address()),
            (text(), text()),
            proptest::option::of(some_id()),
            (time(), time()),
        )
            .prop_map(|(addresses, texts, message_id, times)| Envelope {
                sender: addresses.0,
                on_behalf_of: addresses.1,
                mailbox: addresses.2,
                sender_text: None,
                on_behalf_of_text: None,
                subject: texts.0,
                label: texts.1,
                message_id,
                sent: times.0,
                received: times.1,
            })
    }

    fn some_kept() -> impl Strategy<Value = Kept> {
        let lists = (
            proptest::collection::vec(some_recipient(), 0..8),
            proptest::collection::vec(some_id(), 0..3),
            proptest::collection::vec(".{0,9}", 0..3),
        );
        let same = any::<(bool, bool, bool, bool)>();
        let digests = (any::<[u8; 32]>(), proptest::option::of(any::<[u8; 32]>()));
        (
            some_envelope(),
            some_envelope(),
            lists,
            same,
            digests,
            some_time(),
        )
            .prop_map(
                |(envelope, other, (recipients, references, texts), same, digests, arrived)| {
                    let pick = |same| if same { &envelope } else { &other };
                    let inner = Inner {
                        present: same.0,
                        from: pick(same.0).sender.clone(),
                        date: other.sent,
                        subject: pick(same.1).subject.clone(),
                        message_id: pick(same.2).message_id.clone(),
                        references,
                        network_message_id: other.label.clone(),
                        size: 77_000,
                        attachments: texts
                            .iter()
                            .map(|name| Attachment {
                                name: same.3.then(|| name.clone()),
                                sha256: digests.0,
                            })
                            .collect(),
                        url_domains: texts.clone(),
                        content_digest: digests.1,
                        partly_read: same.3,
                    };
                    Kept {
                        tenant: TenantName::new("contoso"),
                        region: other.subject.clone(),
                        arrived,
                        peer: "2001:db8::1".to_owned(),
                        outer_message_id: other.message_id.clone(),
                        envelope,
                        envelope_digest: digests.0,
                        recipient_count: recipients.len() as u64 + 7,
                        recipients,
                        spilled: vec![Position {
                            partition: 3,
                            segment: 2,
                            offset: 1 << 39,
                        }],
                        inner,
                        problems: texts,
                    }
                },
            )
    }

    proptest! {
        /// What is written is read back, whatever is there and whatever repeats.
        #[test]
        fn a_report_reads_back(kept in some_kept()) {
            prop_assert_eq!(Kept::decode(&kept.encode()), Ok(kept));
        }

        /// Damage is an error or another report, never a panic; a part is never a report.
        #[test]
        fn damage_is_told(kept in some_kept(), place in any::<proptest::sample::Index>(), octet in any::<u8>()) {
            let mut octets = kept.encode();
            let cut = place.index(octets.len());
            prop_assert!(Kept::decode(&octets[..cut]).is_err());
            octets[cut] = octet;
            let _ = Kept::decode(&octets);
            let _ = decode_spilled(&octets);
        }

        #[test]
        fn spilled_recipients_read_back(recipients in proptest::collection::vec(some_recipient(), 0..50)) {
            prop_assert_eq!(decode_spilled(&encode_spilled(&recipients)), Ok(recipients));
        }
    }

    #[test]
    fn versions_that_are_not_known_are_refused() {
        assert_eq!(
            Kept::decode(&[FORMAT + 1, 0, 0]),
            Err(DecodeError::Newer(FORMAT + 1))
        );
        assert_eq!(Kept::decode(&[0]), Err(DecodeError::Value("version")));
        assert_eq!(Kept::decode(&[]), Err(DecodeError::Short("version")));
    }
}
