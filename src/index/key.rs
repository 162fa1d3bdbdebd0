//! Index entries: under which terms a report is found.
//!
//! An entry is a kind, a 64-bit hash of tenant and value, and the report's ordinal: its number within
//! the partition, in the order of the log. Entries of one term are neighbours, oldest first. The hash
//! is SipHash-2-4 with a key derived from the store's, so that senders of mail cannot make values that
//! collide; whatever is found is compared with the record itself before it is believed.
//!
//! Entries of kind [`Kind::Time`] have the report's `received` in place of the hash.

use super::frame::Kept;
use super::identity::{record_id, report_key};
use super::words::{INDEXED_WORDS, words};
use crate::journal::Recipient;
use crate::mail::TenantName;

/// What an entry's hash is of. The numbers are part of the run format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// When the message was received; no hash.
    Time = 1,
    /// Record id, 16 octets.
    Record = 2,
    /// Report key, 16 octets.
    Report = 3,
    /// Message-ID of the envelope part and of the journaled message, verbatim.
    MessageId = 4,
    /// Network message id, lower case.
    NetworkMessageId = 5,
    /// SHA-256 of an attachment, 32 octets.
    Attachment = 6,
    /// Recipient address, lower case.
    Recipient = 7,
    /// Envelope sender, on-behalf-of and journaled From, lower case.
    Sender = 8,
    /// Domain of these, lower case.
    Domain = 9,
    /// An id of In-Reply-To or References, verbatim.
    Reference = 10,
    /// Registrable domain of a URL.
    UrlDomain = 11,
    /// A word of the subject, lower case.
    Word = 12,
}

impl Kind {
    /// Kinds of which a term usually has one entry in the store or none: they are in the Bloom
    /// filter of a run.
    pub(crate) const fn is_rare(kind: u8) -> bool {
        kind >= Self::Record as u8 && kind <= Self::Attachment as u8
    }

    /// Kinds that reports of one message share.
    pub(crate) const fn is_of_message(kind: u8) -> bool {
        kind == Self::Record as u8 || kind == Self::NetworkMessageId as u8
    }
}

/// One entry. The order is that of kind, hash, ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) kind: u8,
    pub(crate) hash: u64,
    pub(crate) ordinal: u32,
}

/// The hash under which a time is indexed: orders like the time.
pub(crate) const fn time_hash(milliseconds: i64) -> u64 {
    (milliseconds as u64) ^ (1 << 63)
}

/// Hashes terms with the store's key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TermHasher {
    key: (u64, u64),
}

impl TermHasher {
    /// With the first 16 octets of a derived key.
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        let half = |from: usize| {
            key.iter()
                .skip(from)
                .take(8)
                .fold(0u64, |word, octet| word << 8 | u64::from(*octet))
        };
        Self {
            key: (half(0), half(8)),
        }
    }

    /// The hash of a tenant's value.
    pub(crate) fn hash(&self, tenant: &TenantName, value: &[u8]) -> u64 {
        let mut sip = SipHasher::new(self.key);
        let tenant = tenant.as_str().as_bytes();
        sip.write(&(tenant.len() as u64).to_le_bytes());
        sip.write(tenant);
        sip.write(value);
        sip.finish()
    }

    /// Calls `give` for every term of a report, recipients apart; some terms may be given twice.
    pub(crate) fn terms(&self, kept: &Kept, mut give: impl FnMut(Kind, u64)) {
        let received = kept.received().as_millisecond();
        give(Kind::Time, time_hash(received));
        let mut term = |kind, value: &[u8]| give(kind, self.hash(&kept.tenant, value));
        term(Kind::Record, record_id(kept).octets());
        term(Kind::Report, &report_key(kept));
        for id in [&kept.envelope.message_id, &kept.inner.message_id]
            .into_iter()
            .flatten()
        {
            term(Kind::MessageId, id.as_str().as_bytes());
        }
        if let Some(id) = &kept.inner.network_message_id {
            term(Kind::NetworkMessageId, id.to_lowercase().as_bytes());
        }
        for sender in kept.senders() {
            term(Kind::Sender, sender.folded().as_bytes());
            term(Kind::Domain, sender.domain().to_lowercase().as_bytes());
        }
        for id in &kept.inner.references {
            term(Kind::Reference, id.as_str().as_bytes());
        }
        for attachment in &kept.inner.attachments {
            term(Kind::Attachment, &attachment.sha256);
        }
        for domain in &kept.inner.url_domains {
            term(Kind::UrlDomain, domain.to_lowercase().as_bytes());
        }
        for word in subject_words(kept) {
            term(Kind::Word, word.as_bytes());
        }
    }

    /// The term of a recipient.
    pub(crate) fn recipient(&self, tenant: &TenantName, recipient: &Recipient) -> u64 {
        self.hash(tenant, recipient.address.folded().as_bytes())
    }
}

/// The words under which a report is found: those of the envelope's subject and of the journaled one.
fn subject_words(kept: &Kept) -> Vec<String> {
    let mut found = Vec::new();
    for subject in [&kept.envelope.subject, &kept.inner.subject]
        .into_iter()
        .flatten()
    {
        found.extend(words(subject));
    }
    found.sort_unstable();
    found.dedup();
    found.truncate(INDEXED_WORDS);
    found
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012).
struct SipHasher {
    v: [u64; 4],
    tail: u64,
    length: usize,
}

impl SipHasher {
    fn new(key: (u64, u64)) -> Self {
        Self {
            v: [
                key.0 ^ 0x736f_6d65_7073_6575,
                key.1 ^ 0x646f_7261_6e64_6f6d,
                key.0 ^ 0x6c79_6765_6e65_7261,
                key.1 ^ 0x7465_6462_7974_6573,
            ],
            tail: 0,
            length: 0,
        }
    }

    fn round(&mut self) {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32).wrapping_add(d);
        c = c.wrapping_add(b);
        d = d.rotate_left(21) ^ a;
        b = b.rotate_left(17) ^ c;
        self.v = [a, b, c.rotate_left(32), d];
    }

    fn word(&mut self, word: u64) {
        self.v[3] ^= word;
        self.round();
        self.round();
        self.v[0] ^= word;
    }

    fn write(&mut self, octets: &[u8]) {
        let mut octets = octets;
        while !self.length.is_multiple_of(8)
            && let Some((first, rest)) = octets.split_first()
        {
            self.push(*first);
            octets = rest;
        }
        let mut words = octets.chunks_exact(8);
        for chunk in &mut words {
            let word = chunk
                .iter()
                .rev()
                .fold(0u64, |word, octet| word << 8 | u64::from(*octet));
            self.word(word);
            self.length += 8;
        }
        for octet in words.remainder() {
            self.push(*octet);
        }
    }

    fn push(&mut self, octet: u8) {
        self.tail |= u64::from(octet) << (8 * (self.length % 8));
        self.length += 1;
        if self.length.is_multiple_of(8) {
            let word = std::mem::take(&mut self.tail);
            self.word(word);
        }
    }

    fn finish(mut self) -> u64 {
        let last = self.tail | (self.length as u64 & 0xff) << 56;
        self.word(last);
        self.v[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.v.iter().fold(0, |hash, word| hash ^ word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of the reference implementation: key 00..0f, input 00..length.
    #[test]
    fn siphash_reference_vectors() {
        let key = (0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        for (length, expected) in [
            (0u8, 0x726f_db47_dd0e_0e31_u64),
            (1, 0x74f8_39c5_93dc_67fd),
            (7, 0xab02_00f5_8b01_d137),
            (8, 0x93f5_f579_9a93_2462),
            (15, 0xa129_ca61_49be_45e5),
        ] {
            let input: Vec<u8> = (0..length).collect();
            for cut in 0..=input.len() {
                let mut sip = SipHasher::new(key);
                sip.write(&input[..cut]);
                sip.write(&input[cut..]);
                assert_eq!(sip.finish(), expected, "{length} octets cut at {cut}");
            }
        }
    }

    #[test]
    fn times_keep_their_order() {
        for pair in [i64::MIN, -1, 0, 1, 1_700_000_000_000].windows(2) {
            assert!(time_hash(pair[0]) < time_hash(pair[1]));
        }
    }
}
