//! When two reports are the same report, and when two reports are of the same message.
//!
//! *Report key*: tenant, the report's own Message-ID, digest of its envelope part. Exchange Online sends
//! a report again when the 250 was lost: the second adds nothing.
//!
//! *Record key*: tenant, Message-ID, journaled From, Date and content digest. An outsider can copy every
//! header of a message but not its content, so a forged look-alike is a record of its own. A report
//! without a content digest (no journaled message, or one read in part: then the digest of what was
//! read would be the same for two messages that differ further on) is keyed by Message-ID, envelope
//! Sender and network message id, which Exchange stamps and strips from outside mail. If it has neither
//! Message-ID nor network message id, nothing tells which message it is of: it is a record of its own.
//!
//! Both are hashed with the length before each part, so that no text can reach into the next.

use aws_lc_rs::digest::{Context, SHA256};

use super::frame::Kept;
use crate::mail::{Address, MessageId, RecordId};

/// Names a report: the first 128 bits of SHA-256 over its report key.
pub type ReportKey = [u8; 16];

/// The name of the report itself.
pub fn report_key(kept: &Kept) -> ReportKey {
    let mut hash = Parts::new("report");
    hash.part(Some(kept.tenant.as_str().as_bytes()));
    hash.part(id(kept.outer_message_id.as_ref()));
    hash.part(Some(&kept.envelope_digest));
    hash.finish()
}

/// The record that the report belongs to.
pub fn record_id(kept: &Kept) -> RecordId {
    let (envelope, inner) = (&kept.envelope, &kept.inner);
    let tenant = Some(kept.tenant.as_str().as_bytes());
    let message_id = envelope.message_id.as_ref().or(inner.message_id.as_ref());
    if let (true, Some(digest)) = (inner.present, &inner.content_digest) {
        let mut hash = Parts::new("content");
        hash.part(tenant);
        hash.part(id(message_id));
        hash.part(folded(inner.from.as_ref()).as_deref());
        let date = inner.date.map(|date| date.as_millisecond().to_be_bytes());
        hash.part(date.as_ref().map(|date| &date[..]));
        hash.part(Some(digest));
        return RecordId::from_octets(hash.finish());
    }
    let mut hash = Parts::new("envelope");
    hash.part(tenant);
    hash.part(id(message_id));
    hash.part(folded(envelope.sender.as_ref()).as_deref());
    hash.part(inner.network_message_id.as_deref().map(str::as_bytes));
    if message_id.is_none() && inner.network_message_id.is_none() {
        hash.part(Some(&report_key(kept)));
    }
    RecordId::from_octets(hash.finish())
}

fn id(id: Option<&MessageId>) -> Option<&[u8]> {
    id.map(|id| id.as_str().as_bytes())
}

fn folded(address: Option<&Address>) -> Option<Vec<u8>> {
    address.map(|address| address.folded().into_bytes())
}

/// SHA-256 over parts that cannot run into each other.
struct Parts(Context);

impl Parts {
    fn new(purpose: &str) -> Self {
        let mut parts = Self(Context::new(&SHA256));
        parts.part(Some(purpose.as_bytes()));
        parts
    }

    /// Length plus one, big endian, then the octets; an absent part is length zero.
    fn part(&mut self, part: Option<&[u8]>) {
        let length = part.map_or(0, |part| part.len() as u64 + 1);
        self.0.update(&length.to_be_bytes());
        self.0.update(part.unwrap_or_default());
    }

    fn finish(self) -> [u8; 16] {
        let digest = self.0.finish();
        let mut octets = [0; 16];
        for (to, from) in octets.iter_mut().zip(digest.as_ref()) {
            *to = *from;
        }
        octets
    }
}
