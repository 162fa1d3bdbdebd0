//! Mail: what a test sends, how it is written, where it is delivered, how it is journaled.

pub(crate) mod compose;
pub(crate) mod deliver;
pub(crate) mod journal;

use jiff::Timestamp;

/// A message to be sent by or to the tenant.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// `Name <a@x>` or `a@x`. Inside the tenant: sent from a mailbox; otherwise: inbound.
    pub from: String,
    /// Who sends on behalf of [`from`](Self::from).
    pub sender: Option<String>,
    /// Visible recipients.
    pub to: Vec<String>,
    /// Visible recipients of a copy.
    pub cc: Vec<String>,
    /// Recipients that only the envelope knows.
    pub bcc: Vec<String>,
    /// Subject, as people read it.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// HTML beside the plain text.
    pub html: Option<String>,
    /// Files.
    pub attachments: Vec<Attachment>,
    /// With or without brackets; `None` makes one. Written as it stands.
    pub message_id: Option<String>,
    /// Message-IDs of `References`; the last is also `In-Reply-To`.
    pub references: Vec<String>,
    /// `Date`; `None`: the time of delivery.
    pub date: Option<Timestamp>,
    /// When the mailboxes got it; `None`: two seconds after the date.
    pub received: Option<Timestamp>,
    /// Further header fields.
    pub headers: Vec<(String, String)>,
    /// How it is split on its way.
    pub forks: Forks,
    /// Rights-protected: the report carries the protected message and a decrypted one.
    pub protected: bool,
    /// A message as octets, taken as it is instead of being written from the fields above.
    pub raw: Option<Vec<u8>>,
    /// The mailboxes get it only on [`Tenant::arrive`](crate::Tenant::arrive); the journal at once.
    pub late: bool,
}

impl Mail {
    /// A plain message.
    pub fn new<S: AsRef<str>>(from: &str, to: impl IntoIterator<Item = S>, subject: &str) -> Self {
        Self {
            from: from.into(),
            to: to
                .into_iter()
                .map(|address| address.as_ref().to_owned())
                .collect(),
            subject: subject.into(),
            body: format!("{subject}.\r\n"),
            ..Self::default()
        }
    }
}

/// A file.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// File name.
    pub name: String,
    /// Media type.
    pub content_type: String,
    /// Content.
    pub octets: Vec<u8>,
}

/// How transport splits a message; each fork has a network message id and a journal report of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Forks {
    /// One for direct recipients inside, one for outsiders, one for each group.
    #[default]
    Natural,
    /// One for all.
    One,
    /// A new one after so many recipients.
    Every(usize),
}

/// What became of a delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Its Message-ID, with the brackets if it has any.
    pub message_id: String,
    /// Network message ids, one a fork.
    pub network_message_ids: Vec<String>,
    /// Primary addresses of the mailboxes that got a copy; the sender's own is not among them.
    pub mailboxes: Vec<String>,
    /// Recipient lines of all its reports.
    pub recipients: usize,
    /// How many journal reports were queued.
    pub reports: usize,
}

/// A name and an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Person {
    /// Display name; the address if there is none.
    pub(crate) name: Box<str>,
    /// Address.
    pub(crate) address: Box<str>,
}

impl Person {
    /// Reads `Name <a@x>` or `a@x`.
    pub(crate) fn parse(text: &str) -> Self {
        let (name, address) = match text.rsplit_once('<') {
            Some((name, rest)) => (name.trim().trim_matches('"'), rest.trim_end_matches('>')),
            None => (text.trim(), text.trim()),
        };
        let name = if name.is_empty() { address } else { name };
        Self {
            name: name.into(),
            address: address.trim().into(),
        }
    }
}
