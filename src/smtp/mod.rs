//! The server's side of an SMTP session (RFC 5321): octets in, events and replies out; no I/O and no clock.
//!
//! The driver reads from the peer into [`Session::space`] and carries out what
//! [`Session::poll_event`] hands it. Time is an argument, so ten minutes of silence take a test no
//! time and a message of 150 MB no memory. What can fail is the peer: it gets a reply, is counted,
//! and in the end it is sent away with 421. Nothing that it sends makes the session panic.
//!
//! Offered besides RFC 5321: STARTTLS (3207), SIZE (1870), 8BITMIME (6152), PIPELINING (2920),
//! CHUNKING and BINARYMIME (3030), ENHANCEDSTATUSCODES (2034), SMTPUTF8 (6531).
//!
//! ```text
//! line      octets → command lines, each ended by CRLF and nothing else
//! command   a line → a command with its parameters; path: the addresses in it
//! data      octets after 354 → content, dots unstuffed; ended by CRLF.CRLF and nothing else
//! session   the state machine: who may say what when, and what is answered
//! times     when a peer is too slow
//! reply     every reply code, enhanced status code and text
//! ```

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation)]

mod command;
mod data;
mod event;
mod input;
mod line;
mod path;
mod reply;
mod session;
mod times;

use std::time::Duration;

pub use event::{ContentAnswer, Deferral, Event, Reason, RecipientAnswer, Refusal, Transaction};
pub use session::Session;

/// Octets in a command line, CRLF included: the 512 of RFC 5321 §4.5.3.1.4 and room for the paths
/// of RFC 6531 and the parameters of every extension.
pub const COMMAND_LINE_OCTETS: usize = 2048;

/// What a session without a message may take in all, and so may each message after the one before.
///
/// RFC 5321 §4.5.3.2 sets time-outs for one step only, so a peer that says NOOP now and then could
/// keep its place for ever. A message of 150 MB fits in at 42 kB a second.
pub const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Content octets a second that a peer must send on average over each idle time-out.
///
/// An idle time-out alone is satisfied by one octet now and then.
pub const CONTENT_OCTETS_PER_SECOND: u64 = 1024;

/// Whether mail is taken in clear text (RFC 3207 §4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsPolicy {
    /// Only after STARTTLS; before it, commands of a mail transaction are answered 530 5.7.0.
    Required,
    /// STARTTLS is offered and may be left alone.
    Optional,
}

/// The bounds of a session; the defaults stand in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Our name in the greeting and in the answer to EHLO.
    pub hostname: String,
    /// Whether mail is taken before STARTTLS.
    pub tls: TlsPolicy,
    /// Octets of content in a message, announced as SIZE (RFC 1870).
    pub max_message: u64,
    /// RCPT commands in a transaction, repeats counted (RFC 5321 §4.5.3.1.8 asks for at least 100).
    pub max_recipients: usize,
    /// Errors of the peer in a session, refused RCPTs counted; the last of them is followed by 421.
    pub max_errors: usize,
    /// How long the next command may take to be complete, and the unit in which
    /// [`CONTENT_OCTETS_PER_SECOND`] is judged (RFC 5321 §4.5.3.2.7: at least 5 minutes).
    pub idle_timeout: Duration,
    /// How long the TLS handshake may take.
    pub handshake_timeout: Duration,
}
