//! Octets of a journal report in, its facts out ([MS-XJRNL] 2.1; no I/O).
//!
//! ```text
//! outer header --> is it a report? which tenant's?    origin
//! envelope part --> sender, recipients, Message-ID    envelope, recipient
//! journaled message --> header, hashes, URLs          walk, leaf, text, url
//! ```
//!
//! A [`Scanner`] takes the octets as they arrive and keeps no more of them than [`Limits`] allow, so
//! that a report of any size costs the same memory. It never fails: whatever arrives is a
//! [`Report`] of some [`Kind`], with what was odd in its `problems`.
//!
//! The envelope part was written by Exchange. The journaled message was written by whoever sent it:
//! nothing in it can change what the envelope says, and no recipient is ever read from it.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod charset;
mod envelope;
mod hash;
mod header;
mod json;
mod leaf;
mod origin;
mod problem;
mod recipient;
mod report;
mod scan;
mod split;
mod text;
mod time;
mod transfer;
mod url;
mod walk;
mod word;

pub use json::json;
pub use origin::{Belief, Expected, Origin, belief, is_connector_validation};
pub use report::{Attachment, Envelope, Field, Inner, Kind, Outer, Recipient, Report};
pub use scan::{Scanner, Stage, parse};
pub use url::registrable_domain;

/// What a report may hold at most; beyond it, it is quarantined whole or read in part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Octets of the outer header; beyond it the report is malformed. Real ones have about 1.3 kB.
    pub outer_header: usize,
    /// Octets of the journaled message's header; beyond it the message is not read. Real ones have up to 70 kB.
    pub inner_header: usize,
    /// Octets of the header of a part; beyond it the part is not looked into.
    pub part_header: usize,
    /// Octets of a line of the envelope part, or of a field with its continuation lines.
    pub field: usize,
    /// Recipients; beyond it the report is malformed.
    pub max_recipients: u64,
    /// Multiparts and messages within each other; deeper ones are not looked into.
    pub depth: usize,
    /// Parts of the journaled message; further ones are not looked into.
    pub parts: usize,
    /// Registrable domains of URLs that are kept.
    pub url_domains: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            outer_header: 256 << 10,
            inner_header: 1 << 20,
            part_header: 64 << 10,
            field: 256 << 10,
            max_recipients: 100_000,
            depth: 64,
            parts: 1000,
            url_domains: 1000,
        }
    }
}
