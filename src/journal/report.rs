//! What a journal report says, as plain values.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mail::{Address, MessageId};

/// What a message on the journal address turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A journal report whose envelope part could be read.
    Report,
    /// No journal report: the top level has no `X-MS-Journal-Report` header.
    NotReport,
    /// Marked as a journal report, but its envelope part cannot be read.
    Malformed,
}

impl Kind {
    /// The kind as `parse`, quarantine and metrics name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::NotReport => "not_report",
            Self::Malformed => "malformed",
        }
    }
}

/// The field of the envelope part that named a recipient ([MS-XJRNL] 2.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    /// `To:`, from mail whose addressing Exchange trusts.
    To,
    /// `Cc:`.
    Cc,
    /// `Bcc:`.
    Bcc,
    /// `Recipient:`, from outside mail, Bcc included.
    Recipient,
}

/// One recipient line. Exact duplicates of a report are given once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Recipient {
    /// Whose mailbox the message went to.
    pub address: Address,
    /// How the recipient, or the group it came from, was addressed.
    pub field: Field,
    /// The distribution group that the recipient is a member of.
    pub expanded_from: Option<Address>,
    /// The mailbox that forwarded to this recipient.
    pub forwarded_from: Option<Address>,
}

/// The envelope part without its recipients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `Sender`; `None` for `<>`, an empty value or a missing line.
    pub sender: Option<Address>,
    /// `On-Behalf-Of`.
    pub on_behalf_of: Option<Address>,
    /// What `Sender` says if that is no valid address; for people, not kept in the index.
    pub sender_text: Option<String>,
    /// What `On-Behalf-Of` says if that is no valid address; for people, not kept in the index.
    pub on_behalf_of_text: Option<String>,
    /// `Subject`, decoded, never RFC 2047 decoded.
    pub subject: Option<String>,
    /// `Message-Id`, or its fallbacks (outer `X-MS-Exchange-Parent-Message-Id`, then the journaled message's own).
    pub message_id: Option<MessageId>,
    /// `Label`: message classification.
    pub label: Option<String>,
    /// `Mailbox`: owner of the mailbox (legacy archive ingestion).
    pub mailbox: Option<Address>,
    /// `SentUtc`.
    pub sent: Option<Timestamp>,
    /// `ReceivedUtc`.
    pub received: Option<Timestamp>,
}

impl Recipient {
    /// Octets of memory held, about.
    pub fn memory(&self) -> usize {
        let texts = [
            Some(&self.address),
            self.expanded_from.as_ref(),
            self.forwarded_from.as_ref(),
        ];
        let text = |address: &Address| address.as_str().len() + ALLOCATION;
        size_of::<Self>() + texts.into_iter().flatten().map(text).sum::<usize>()
    }
}

impl Envelope {
    /// Octets of memory that its texts hold, about.
    pub(super) fn memory(&self) -> usize {
        let addresses = [&self.sender, &self.on_behalf_of, &self.mailbox];
        let texts = [
            &self.sender_text,
            &self.on_behalf_of_text,
            &self.subject,
            &self.label,
        ];
        let addresses = addresses.into_iter().flatten().map(Address::as_str);
        let texts = texts.into_iter().flatten().map(String::as_str);
        let id = self.message_id.iter().map(MessageId::as_str);
        addresses.chain(texts).chain(id).map(str::len).sum()
    }
}

impl Outer {
    /// Octets of memory that its texts hold, about.
    pub(super) fn memory(&self) -> usize {
        let ids = [&self.message_id, &self.parent_message_id];
        let ids = ids.into_iter().flatten().map(MessageId::as_str);
        let texts = [&self.from, &self.subject].into_iter().flatten();
        let texts = texts.chain(&self.originator_org).chain(&self.tenant_ids);
        ids.chain(texts.map(String::as_str)).map(str::len).sum()
    }
}

impl Inner {
    /// Octets of memory that its texts and lists hold, about; URL domains not, which are added at its end.
    pub(super) fn memory(&self) -> usize {
        let texts = [&self.subject, &self.network_message_id];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let ids = self.message_id.iter().chain(&self.references);
        let ids: usize = ids
            .map(|id| id.as_str().len() + ALLOCATION + size_of::<MessageId>())
            .sum();
        let name = |attachment: &Attachment| attachment.name.as_ref().map_or(0, String::len);
        let attachments = self.attachments.iter();
        let attachments: usize = attachments
            .map(|attachment| name(attachment) + ALLOCATION + size_of::<Attachment>())
            .sum();
        texts + ids + attachments
    }
}

/// Octets that an allocation costs beyond its content, about.
const ALLOCATION: usize = 16;

/// What the outer header says: the report's own identity, and the stamps that tell which tenant sent it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outer {
    /// The report's own Message-ID.
    pub message_id: Option<MessageId>,
    /// `X-MS-Exchange-Parent-Message-Id`: the Message-ID of the journaled message, as Exchange wrote it.
    pub parent_message_id: Option<MessageId>,
    /// Values of every `X-OriginatorOrg`, lower case.
    pub originator_org: Vec<String>,
    /// The tenant ids of every `X-LD-Processed` (what stands before the comma) and
    /// `X-MS-Exchange-CrossTenant-Id`, lower case; a value that is no GUID is kept as it stands, so
    /// that it names another tenant.
    pub tenant_ids: Vec<String>,
    /// `From`, for recognising connector validation mail.
    pub from: Option<String>,
    /// `Subject`, RFC 2047 decoded, for recognising connector validation mail.
    pub subject: Option<String>,
}

/// An attachment of the journaled message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// File name as the message gives it, decoded (RFC 2047 and RFC 2231).
    pub name: Option<String>,
    /// SHA-256 over the decoded content; printed as lower-case hex.
    #[serde(with = "hex32")]
    pub sha256: [u8; 32],
}

/// Facts of the journaled message. Everything in here was written by whoever sent that message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inner {
    /// A message/rfc822 part was there.
    pub present: bool,
    /// Address of the first mailbox of `From`.
    pub from: Option<Address>,
    /// `Date`.
    pub date: Option<Timestamp>,
    /// `Subject`, RFC 2047 decoded.
    pub subject: Option<String>,
    /// `Message-ID`.
    pub message_id: Option<MessageId>,
    /// `In-Reply-To` and `References` together, each id once, in order.
    pub references: Vec<MessageId>,
    /// `X-MS-Exchange-Organization-Network-Message-Id`, a lower-case GUID.
    pub network_message_id: Option<String>,
    /// Octets of the journaled message as it stands in the report.
    pub size: u64,
    /// Leaf parts that have a file name or are marked as attachment, and attached messages.
    pub attachments: Vec<Attachment>,
    /// Registrable domains (public suffix list, IDNA A-labels, lower case) of the URLs in its text parts, each once.
    pub url_domains: Vec<String>,
    /// SHA-256 over the SHA-256 of each decoded leaf part in order (the module docs of `journal::walk`
    /// say precisely over what); `None` if the journaled message is absent or its header is over the bound.
    pub content_digest: Option<[u8; 32]>,
    /// A bound (header size, depth, parts, URLs) was reached: what is given is right, but not all of it.
    pub partly_read: bool,
}

/// A journal report, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What it is. For the other kinds only `outer` and `problems` say something.
    pub kind: Kind,
    /// The outer header.
    pub outer: Outer,
    /// The envelope part.
    pub envelope: Envelope,
    /// SHA-256 over the envelope part's decoded octets: with the outer Message-ID, the report key.
    pub envelope_digest: [u8; 32],
    /// The recipients that were not yet taken from the scanner.
    pub recipients: Vec<Recipient>,
    /// How many recipients there are in all.
    pub recipient_count: u64,
    /// The journaled message.
    pub inner: Inner,
    /// What was odd, for people. If it is no report or malformed, the last says why.
    pub problems: Vec<String>,
}

impl Report {
    /// Why it is no report, or one that cannot be read.
    pub fn failure(&self) -> &str {
        let last = self.problems.last();
        last.map_or("it cannot be read", String::as_str)
    }
}

/// `[u8; 32]` as 64 lower-case hexadecimal digits.
pub(crate) mod hex32 {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(octets: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&data_encoding::HEXLOWER.encode(octets))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(d)?;
        let octets = data_encoding::HEXLOWER_PERMISSIVE
            .decode(text.as_bytes())
            .map_err(serde::de::Error::custom)?;
        octets
            .try_into()
            .map_err(|_| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}
