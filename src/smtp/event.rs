//! What the session tells its driver, and what the driver answers.

use crate::mail::{ForwardPath, ReversePath};

/// The next thing for the driver to do, from [`Session::poll_event`](super::Session::poll_event).
///
/// Three events are questions: the session does nothing more, and `poll_event` gives `None`, until
/// they are answered. What the peer has pipelined behind them waits meanwhile.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// Write these octets to the peer, in one write: all replies of a pipelined group (RFC 2920).
    Reply(Vec<u8>),
    /// Start the TLS handshake; everything that was to be written has been handed out before.
    /// Go on with [`tls_started`](super::Session::tls_started), or drop the connection.
    StartTls,
    /// May a message be for this forward-path? A question: answer with
    /// [`recipient_answer`](super::Session::recipient_answer).
    Recipient {
        /// The path of the RCPT command, source route removed, quotes and case as sent.
        forward_path: ForwardPath,
        /// RCPT commands that were accepted before in this transaction. At 0, forget what you knew
        /// of an earlier transaction.
        accepted: usize,
    },
    /// DATA or the first BDAT has come after at least one accepted RCPT. A question: answer with
    /// [`content_answer`](super::Session::content_answer). When content is accepted, the message
    /// is closed by exactly one [`End`](Self::End) or [`Abort`](Self::Abort).
    Begin(Transaction),
    /// The next octets of the message, dots unstuffed, not copied; never empty. They are cut where
    /// the network or the protocol cut them.
    Content(&'a [u8]),
    /// The message is whole. A question: answer with
    /// [`message_stored`](super::Session::message_stored) or
    /// [`message_deferred`](super::Session::message_deferred).
    End,
    /// Forget the message that [`Begin`](Self::Begin) began: RSET or a new EHLO, over the size,
    /// time-out, disconnect. The peer is answered by the session.
    Abort,
    /// A reply of class 4 or 5 was queued; for the metrics and the log, nothing to do.
    Refused(Reason),
    /// Close the connection; everything that was to be written has been handed out before. The last
    /// event of a session.
    Close,
}

/// What MAIL said of the message that begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Where the peer wants failures reported; proves nothing.
    pub reverse_path: ReversePath,
    /// RCPT commands that were accepted.
    pub recipients: usize,
    /// Octets that the peer declared with SIZE (RFC 1870), at most the limit; it may send fewer or
    /// more.
    pub declared_size: Option<u64>,
    /// Whether SMTPUTF8 was given (RFC 6531).
    pub smtputf8: bool,
}

/// The answer to [`Event::Recipient`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecipientAnswer {
    /// 250.
    Accept,
    /// 550 5.1.1: no journal address of ours. An error of the peer.
    Unknown,
    /// 452: the transaction is of another tenant; the peer sends the rest in one of its own.
    OtherTenant,
    /// 451: we cannot tell now.
    Defer,
}

/// The answer to [`Event::Begin`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentAnswer {
    /// 354 for DATA; a chunk is taken without a word until it ends.
    Accept,
    /// The deferral's reply; for BDAT after the chunk was read and dropped. The transaction is over.
    Defer(Deferral),
}

/// Why a message cannot be taken now; the peer keeps it and tries again (RFC 5321 §4.5.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deferral {
    /// 452 4.3.1: the sessions together hold all the memory that they may.
    Memory,
    /// 452 4.3.1: no space on the store's disk.
    StorageFull,
    /// 452 4.3.1: the quarantine is full.
    QuarantineFull,
    /// 451 4.3.0: writing failed; nothing is known to be kept.
    StorageFailed,
    /// 451 4.3.0: anything else on our side.
    Internal,
    /// 451 4.3.2: the service stops before the message could be kept.
    ShuttingDown,
}

impl Deferral {
    /// The `reason` label of its refusal.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Memory => Reason::Memory,
            Self::StorageFull => Reason::StorageFull,
            Self::QuarantineFull => Reason::QuarantineFull,
            Self::StorageFailed => Reason::StorageFailed,
            Self::Internal => Reason::Internal,
            Self::ShuttingDown => Reason::ShuttingDown,
        }
    }
}

/// Why a connection is turned away with 421.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Too many connections in all.
    TooManyConnections,
    /// Too many connections from this peer.
    TooManyFromPeer,
    /// The service is being stopped.
    ShuttingDown,
}

impl Refusal {
    /// The `reason` label of its refusal.
    pub const fn reason(self) -> Reason {
        match self {
            Self::TooManyConnections => Reason::TooManyConnections,
            Self::TooManyFromPeer => Reason::TooManyFromPeer,
            Self::ShuttingDown => Reason::ShuttingDown,
        }
    }
}

/// Why the session answered with a reply of class 4 or 5: the `reason` label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A bare CR, bare LF or NUL in a command line.
    BareLineEnding,
    /// A command line longer than [`COMMAND_LINE_OCTETS`](super::COMMAND_LINE_OCTETS).
    LineTooLong,
    /// An unknown command, or one that is not implemented.
    UnknownCommand,
    /// A command with wrong syntax.
    Syntax,
    /// A parameter of MAIL or RCPT that is unknown (555).
    UnknownParameter,
    /// An address outside ASCII without SMTPUTF8.
    NonAsciiAddress,
    /// A command out of sequence.
    Sequence,
    /// A mail transaction before STARTTLS.
    TlsRequired,
    /// Octets behind STARTTLS, before its reply.
    StartTlsInjection,
    /// A forward-path that is not ours.
    UnknownRecipient,
    /// A forward-path of another tenant than those before.
    OtherTenant,
    /// A forward-path about which the driver cannot tell now.
    RecipientDeferred,
    /// More RCPT commands than allowed.
    TooManyRecipients,
    /// Content after no accepted RCPT.
    NoRecipients,
    /// A message over the announced size, declared or sent.
    TooLarge,
    /// No memory, see [`Deferral::Memory`].
    Memory,
    /// No space, see [`Deferral::StorageFull`].
    StorageFull,
    /// No space, see [`Deferral::QuarantineFull`].
    QuarantineFull,
    /// Not written, see [`Deferral::StorageFailed`].
    StorageFailed,
    /// See [`Deferral::Internal`].
    Internal,
    /// Too many errors in the session.
    TooManyErrors,
    /// Nothing complete came in time, or too slowly.
    Timeout,
    /// See [`Refusal::TooManyConnections`].
    TooManyConnections,
    /// See [`Refusal::TooManyFromPeer`].
    TooManyFromPeer,
    /// The service is being stopped.
    ShuttingDown,
}

impl Reason {
    /// Every reason, so that each metric exists from the start.
    pub const ALL: [Self; 25] = [
        Self::BareLineEnding,
        Self::LineTooLong,
        Self::UnknownCommand,
        Self::Syntax,
        Self::UnknownParameter,
        Self::NonAsciiAddress,
        Self::Sequence,
        Self::TlsRequired,
        Self::StartTlsInjection,
        Self::UnknownRecipient,
        Self::OtherTenant,
        Self::RecipientDeferred,
        Self::TooManyRecipients,
        Self::NoRecipients,
        Self::TooLarge,
        Self::Memory,
        Self::StorageFull,
        Self::QuarantineFull,
        Self::StorageFailed,
        Self::Internal,
        Self::TooManyErrors,
        Self::Timeout,
        Self::TooManyConnections,
        Self::TooManyFromPeer,
        Self::ShuttingDown,
    ];

    /// Whether the peer did something wrong, so that it counts towards `max_errors`. Our own trouble
    /// does not, nor what a good peer cannot know before it asks.
    pub(super) const fn is_of_peer(self) -> bool {
        matches!(
            self,
            Self::BareLineEnding
                | Self::LineTooLong
                | Self::UnknownCommand
                | Self::Syntax
                | Self::UnknownParameter
                | Self::NonAsciiAddress
                | Self::Sequence
                | Self::TlsRequired
                | Self::StartTlsInjection
                | Self::UnknownRecipient
                | Self::NoRecipients
        )
    }

    /// The label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BareLineEnding => "bare_line_ending",
            Self::LineTooLong => "line_too_long",
            Self::UnknownCommand => "unknown_command",
            Self::Syntax => "syntax",
            Self::UnknownParameter => "unknown_parameter",
            Self::NonAsciiAddress => "non_ascii_address",
            Self::Sequence => "sequence",
            Self::TlsRequired => "tls_required",
            Self::StartTlsInjection => "starttls_injection",
            Self::UnknownRecipient => "unknown_recipient",
            Self::OtherTenant => "other_tenant",
            Self::RecipientDeferred => "recipient_deferred",
            Self::TooManyRecipients => "too_many_recipients",
            Self::NoRecipients => "no_recipients",
            Self::TooLarge => "too_large",
            Self::Memory => "memory",
            Self::StorageFull => "storage_full",
            Self::QuarantineFull => "quarantine_full",
            Self::StorageFailed => "storage_failed",
            Self::Internal => "internal",
            Self::TooManyErrors => "too_many_errors",
            Self::Timeout => "timeout",
            Self::TooManyConnections => "too_many_connections",
            Self::TooManyFromPeer => "too_many_from_peer",
            Self::ShuttingDown => "shutting_down",
        }
    }
}
