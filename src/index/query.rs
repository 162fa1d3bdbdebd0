//! What is asked of the store.

use std::str::FromStr;

use jiff::Timestamp;

use super::key::{Kind, TermHasher};
use super::record::Record;
use super::words::{holds_phrase, words};
use crate::mail::{Address, MessageId, RecordId, TenantName};

/// A term of a subject search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubjectTerm {
    /// A word that the subject holds; punctuation inside makes it a phrase.
    Word(String),
    /// Words that follow each other.
    Phrase(String),
}

impl SubjectTerm {
    /// Reads `one two "three four"`: words, and phrases in quotes. A quote left open ends at the end.
    pub fn parse(text: &str) -> Vec<Self> {
        let mut terms = Vec::new();
        for (number, piece) in text
            .split(['"', '\u{201c}', '\u{201d}', '\u{201e}'])
            .enumerate()
        {
            if number % 2 == 1 {
                terms.push(Self::Phrase(piece.to_owned()));
            } else {
                terms.extend(piece.split_whitespace().map(|w| Self::Word(w.to_owned())));
            }
        }
        terms.retain(|term| !term.words().is_empty());
        terms
    }

    /// Its words as they are indexed.
    pub fn words(&self) -> Vec<String> {
        let (Self::Word(text) | Self::Phrase(text)) = self;
        words(text)
    }
}

/// Terms that must all hold. One without any finds everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Records of this tenant only.
    pub tenant: Option<TenantName>,
    /// The record of this name.
    pub record: Option<RecordId>,
    /// Verbatim Message-ID.
    pub message_id: Option<MessageId>,
    /// One of the recipients.
    pub recipient: Option<Address>,
    /// Envelope sender, on-behalf-of or journaled From.
    pub sender: Option<Address>,
    /// Domain of one of these.
    pub domain: Option<String>,
    /// All of them, in any order.
    pub subject: Vec<SubjectTerm>,
    /// SHA-256 of an attachment's decoded content.
    pub attachment_sha256: Option<[u8; 32]>,
    /// Registrable domain of a URL in the text.
    pub url_domain: Option<String>,
    /// Exchange's id of one fork of the message.
    pub network_message_id: Option<String>,
    /// An id that In-Reply-To or References names.
    pub references: Option<MessageId>,
    /// `received` is this or later.
    pub since: Option<Timestamp>,
    /// `received` is before this.
    pub until: Option<Timestamp>,
    /// At most so many records.
    pub limit: Option<u64>,
}

impl Query {
    /// Do all terms hold of this record?
    pub fn matches(&self, record: &Record) -> bool {
        self.matches_time(record)
            && holds(self.tenant.as_ref(), |name| record.tenant == *name)
            && holds(self.record.as_ref(), |id| record.ids.contains(id))
            && holds(self.message_id.as_ref(), |id| {
                record.message_ids.contains(id)
            })
            && holds(self.sender.as_ref(), |who| record.senders.contains(who))
            && holds(self.domain.as_ref(), |domain| has_domain(record, domain))
            && holds(self.attachment_sha256.as_ref(), |hash| {
                let mut attachments = record.inner.attachments.iter();
                attachments.any(|attachment| attachment.sha256 == *hash)
            })
            && holds(self.url_domain.as_ref(), |domain| {
                let domain = domain.to_lowercase();
                let mut domains = record.inner.url_domains.iter();
                domains.any(|had| had.to_lowercase() == domain)
            })
            && holds(self.network_message_id.as_ref(), |id| {
                let mut ids = record.network_message_ids.iter();
                ids.any(|had| had.eq_ignore_ascii_case(id))
            })
            && holds(self.references.as_ref(), |id| {
                record.inner.references.contains(id)
            })
            && self.matches_subject(record)
            && self.matches_recipient(record)
    }

    fn matches_time(&self, record: &Record) -> bool {
        holds(self.since, |since| record.received >= since)
            && holds(self.until, |until| record.received < until)
    }

    fn matches_subject(&self, record: &Record) -> bool {
        if self.subject.is_empty() {
            return true;
        }
        let subjects: Vec<_> = record.subjects.iter().map(|text| words(text)).collect();
        self.subject.iter().all(|term| {
            let wanted = term.words();
            subjects.iter().any(|have| holds_phrase(have, &wanted)) || wanted.is_empty()
        })
    }

    fn matches_recipient(&self, record: &Record) -> bool {
        holds(self.recipient.as_ref(), |who| {
            let mut recipients = record.recipients.iter();
            recipients.any(|recipient| recipient.address == *who)
        })
    }

    /// The index terms that every match must have in at least one of its reports, most selective
    /// first as far as the kind tells.
    pub(crate) fn terms(&self, hasher: &TermHasher, tenant: &TenantName) -> Vec<(Kind, u64)> {
        let mut terms = Vec::new();
        let mut term = |kind, value: &[u8]| terms.push((kind, hasher.hash(tenant, value)));
        if let Some(id) = &self.record {
            term(Kind::Record, id.octets());
        }
        if let Some(id) = &self.network_message_id {
            term(Kind::NetworkMessageId, id.to_lowercase().as_bytes());
        }
        if let Some(id) = &self.message_id {
            term(Kind::MessageId, id.as_str().as_bytes());
        }
        if let Some(hash) = &self.attachment_sha256 {
            term(Kind::Attachment, hash);
        }
        if let Some(id) = &self.references {
            term(Kind::Reference, id.as_str().as_bytes());
        }
        if let Some(address) = &self.recipient {
            term(Kind::Recipient, address.folded().as_bytes());
        }
        if let Some(address) = &self.sender {
            term(Kind::Sender, address.folded().as_bytes());
        }
        if let Some(domain) = &self.url_domain {
            term(Kind::UrlDomain, domain.to_lowercase().as_bytes());
        }
        if let Some(domain) = &self.domain {
            term(Kind::Domain, domain.to_lowercase().as_bytes());
        }
        for word in self.subject.iter().flat_map(SubjectTerm::words) {
            term(Kind::Word, word.as_bytes());
        }
        terms
    }
}

fn holds<T>(term: Option<T>, test: impl FnOnce(T) -> bool) -> bool {
    term.is_none_or(test)
}

fn has_domain(record: &Record, domain: &str) -> bool {
    let domain = domain.to_lowercase();
    let mut senders = record.senders.iter();
    senders.any(|sender| sender.domain().to_lowercase() == domain)
}

/// `one two "three four"`; see [`SubjectTerm::parse`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubjectTerms(pub Vec<SubjectTerm>);

impl FromStr for SubjectTerms {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(SubjectTerm::parse(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subject_terms_as_people_type_them() {
        let word = |text: &str| SubjectTerm::Word(text.to_owned());
        let phrase = |text: &str| SubjectTerm::Phrase(text.to_owned());
        for (text, expected) in [
            ("", vec![]),
            ("open invoice", vec![word("open"), word("invoice")]),
            (
                "pay \"open invoice\" now",
                vec![word("pay"), phrase("open invoice"), word("now")],
            ),
            ("\"open invoice", vec![phrase("open invoice")]),
            ("- \"\" a", vec![word("a")]),
        ] {
            assert_eq!(SubjectTerm::parse(text), expected, "{text}");
        }
        assert_eq!(word("foo-bar").words(), ["foo", "bar"]);
    }
}
