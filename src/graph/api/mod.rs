//! Requests to Microsoft Graph and its answers, as plain values.
//!
//! In: what is wanted, in our types. Out: method, target and body, encoded; and the other way, what an
//! answer's JSON says. Nothing here sends anything. Decoding is tolerant where Graph varies (unknown
//! fields, missing ones) and explicit where we depend on it (an id that is not there is an error).
#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod answer;
mod batch;
mod link;
mod odata;
mod request;
mod trouble;

pub use answer::{
    Answer, Folder, Group, ImmutableId, MalformedAnswer, Message, Page, User, retry_after,
};
pub use batch::{BATCH_REQUESTS, decode_batch, encode_batch};
pub use link::{LinkError, NextLink};
pub use odata::{ControlCharacter, quoted, segment};
pub use request::{IMMUTABLE_IDS, MailboxId, Method, OR_CLAUSES, Request, Scope};
pub use trouble::{Failure, Trouble, classify};
