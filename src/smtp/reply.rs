//! Every reply code, enhanced status code and text (RFC 5321 §4.2, RFC 2034, RFC 3463).
//!
//! A reply repeats nothing that the peer sent: whoever shows it to a person shows our words alone.

use super::{Deferral, Reason, Refusal};

/// A reply of one line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Reply {
    code: &'static str,
    /// Empty where RFC 2034 §4 has none: greeting, answers to EHLO and HELO, class 3.
    enhanced: &'static str,
    text: &'static str,
    /// Our name goes before the text (RFC 5321 §4.2.2: 220, 221, 421).
    named: bool,
    /// Why, for a reply of class 4 or 5.
    pub(super) reason: Option<Reason>,
}

const fn positive(code: &'static str, enhanced: &'static str, text: &'static str) -> Reply {
    Reply {
        code,
        enhanced,
        text,
        named: false,
        reason: None,
    }
}

const fn refused(
    reason: Reason,
    code: &'static str,
    enhanced: &'static str,
    text: &'static str,
) -> Reply {
    Reply {
        reason: Some(reason),
        ..positive(code, enhanced, text)
    }
}

/// A reply that names us.
const fn named(reply: Reply) -> Reply {
    Reply {
        named: true,
        ..reply
    }
}

pub(super) const GREETING: Reply = named(positive("220", "", "ESMTP clawback"));
pub(super) const STARTTLS: Reply = positive("220", "2.0.0", "ready to start TLS");
pub(super) const QUIT: Reply = named(positive("221", "2.0.0", "closing the connection"));
pub(super) const HELO: Reply = named(positive("250", "", "at your service"));
pub(super) const MAIL: Reply = positive("250", "2.1.0", "reverse-path accepted");
pub(super) const RCPT: Reply = positive("250", "2.1.5", "forward-path accepted");
pub(super) const CHUNK: Reply = positive("250", "2.0.0", "chunk received");
pub(super) const RSET: Reply = positive("250", "2.0.0", "transaction forgotten");
pub(super) const NOOP: Reply = positive("250", "2.0.0", "nothing done");
pub(super) const VRFY: Reply = positive(
    "252",
    "2.0.0",
    "addresses are not verified; send the message",
);
pub(super) const HELP: Reply = positive(
    "214",
    "2.0.0",
    "journal reports only; EHLO STARTTLS MAIL RCPT DATA BDAT RSET NOOP QUIT",
);
pub(super) const DATA: Reply = positive("354", "", "send the message, end it with CRLF.CRLF");
/// The text is the driver's.
const STORED: Reply = positive("250", "2.0.0", "");

pub(super) const BARE_LINE_ENDING: Reply = refused(
    Reason::BareLineEnding,
    "500",
    "5.5.2",
    "a command line ends with CRLF and holds no other CR, LF or NUL; closing",
);
pub(super) const LINE_TOO_LONG: Reply = refused(
    Reason::LineTooLong,
    "500",
    "5.5.2",
    "command line longer than 2048 octets",
);
pub(super) const UNKNOWN_COMMAND: Reply = refused(
    Reason::UnknownCommand,
    "500",
    "5.5.1",
    "command not recognized",
);
pub(super) const NOT_IMPLEMENTED: Reply = refused(
    Reason::UnknownCommand,
    "502",
    "5.5.1",
    "command not implemented",
);
pub(super) const ARGUMENT_MISSING: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.4",
    "the command needs an argument",
);
pub(super) const ARGUMENT_UNEXPECTED: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.4",
    "the command takes no such argument",
);
pub(super) const MAIL_SYNTAX: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.2",
    "syntax: MAIL FROM:<reverse-path> [parameters]",
);
pub(super) const RCPT_SYNTAX: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.2",
    "syntax: RCPT TO:<forward-path>",
);
pub(super) const REVERSE_PATH_SYNTAX: Reply = refused(
    Reason::Syntax,
    "501",
    "5.1.7",
    "the reverse-path is no valid path",
);
pub(super) const FORWARD_PATH_SYNTAX: Reply = refused(
    Reason::Syntax,
    "501",
    "5.1.3",
    "the forward-path is no valid path",
);
pub(super) const PARAMETER_SYNTAX: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.4",
    "a parameter has wrong syntax",
);
pub(super) const PARAMETER_VALUE: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.4",
    "a parameter is repeated or has a wrong value",
);
pub(super) const CHUNK_SYNTAX: Reply = refused(
    Reason::Syntax,
    "501",
    "5.5.4",
    "syntax: BDAT octets [LAST]; closing",
);
pub(super) const UNKNOWN_PARAMETER: Reply = refused(
    Reason::UnknownParameter,
    "555",
    "5.5.4",
    "a parameter is not implemented",
);
pub(super) const NON_ASCII_REVERSE_PATH: Reply = refused(
    Reason::NonAsciiAddress,
    "553",
    "5.6.7",
    "a reverse-path outside ASCII needs SMTPUTF8",
);
pub(super) const NON_ASCII_FORWARD_PATH: Reply = refused(
    Reason::NonAsciiAddress,
    "553",
    "5.6.7",
    "a forward-path outside ASCII needs SMTPUTF8",
);

pub(super) const TLS_REQUIRED: Reply =
    refused(Reason::TlsRequired, "530", "5.7.0", "issue STARTTLS first");
pub(super) const TLS_RUNNING: Reply = refused(Reason::Sequence, "503", "5.5.1", "TLS is running");
pub(super) const STARTTLS_INJECTION: Reply = refused(
    Reason::StartTlsInjection,
    "501",
    "5.5.1",
    "octets came behind STARTTLS; closing",
);
pub(super) const NO_GREETING: Reply = refused(Reason::Sequence, "503", "5.5.1", "EHLO comes first");
pub(super) const NO_MAIL: Reply = refused(Reason::Sequence, "503", "5.5.1", "MAIL comes first");
pub(super) const NESTED_MAIL: Reply = refused(
    Reason::Sequence,
    "503",
    "5.5.1",
    "a transaction is running; RSET ends it",
);
pub(super) const CHUNKS_BEGUN: Reply = refused(
    Reason::Sequence,
    "503",
    "5.5.1",
    "the message has begun with BDAT; go on with it, or RSET",
);
pub(super) const BINARY_NEEDS_BDAT: Reply = refused(
    Reason::Sequence,
    "503",
    "5.5.1",
    "BODY=BINARYMIME needs BDAT",
);
pub(super) const NO_RECIPIENTS: Reply =
    refused(Reason::NoRecipients, "503", "5.5.1", "no valid recipients");
/// In place of [`NO_RECIPIENTS`] when a recipient was deferred: a peer that looks at this reply
/// alone must not give the message up.
pub(super) const RECIPIENTS_DEFERRED: Reply = refused(
    Reason::RecipientDeferred,
    "451",
    "4.5.1",
    "no recipients yet; try again later",
);

pub(super) const UNKNOWN_RECIPIENT: Reply = refused(
    Reason::UnknownRecipient,
    "550",
    "5.1.1",
    "no such mailbox here, and no relaying",
);
pub(super) const OTHER_TENANT: Reply = refused(
    Reason::OtherTenant,
    "452",
    "4.5.3",
    "recipients of one tenant in a transaction; send this one apart",
);
pub(super) const RECIPIENT_DEFERRED: Reply =
    refused(Reason::RecipientDeferred, "451", "4.3.0", "try again later");
pub(super) const TOO_MANY_RECIPIENTS: Reply = refused(
    Reason::TooManyRecipients,
    "452",
    "4.5.3",
    "too many recipients",
);
pub(super) const TOO_LARGE: Reply = refused(
    Reason::TooLarge,
    "552",
    "5.3.4",
    "message over the size that EHLO announces",
);

pub(super) const TOO_MANY_ERRORS: Reply = named(refused(
    Reason::TooManyErrors,
    "421",
    "4.7.0",
    "too many errors; closing",
));
pub(super) const TIMEOUT: Reply = named(refused(
    Reason::Timeout,
    "421",
    "4.4.2",
    "waited too long; closing",
));
const TOO_MANY_CONNECTIONS: Reply = named(refused(
    Reason::TooManyConnections,
    "421",
    "4.3.2",
    "too many connections; try again later",
));
const TOO_MANY_FROM_PEER: Reply = named(refused(
    Reason::TooManyFromPeer,
    "421",
    "4.7.0",
    "too many connections from your address; try again later",
));
const SHUTTING_DOWN: Reply = named(refused(
    Reason::ShuttingDown,
    "421",
    "4.3.2",
    "the service is stopping; try again later",
));

const NO_MEMORY: Reply = refused(Reason::Memory, "452", "4.3.1", "too busy; try again later");
const STORAGE_FULL: Reply = refused(
    Reason::StorageFull,
    "452",
    "4.3.1",
    "no space to store the message; try again later",
);
const QUARANTINE_FULL: Reply = refused(
    Reason::QuarantineFull,
    "452",
    "4.3.1",
    "no space to quarantine the message; try again later",
);
const STORAGE_FAILED: Reply = refused(
    Reason::StorageFailed,
    "451",
    "4.3.0",
    "storing the message failed; try again later",
);
const INTERNAL: Reply = refused(
    Reason::Internal,
    "451",
    "4.3.0",
    "the message was not kept; try again later",
);
const STOPPED: Reply = refused(
    Reason::ShuttingDown,
    "451",
    "4.3.2",
    "the service is stopping; try again later",
);

/// The extensions that EHLO lists after our name, and what each may depend on.
const EXTENSIONS: [&str; 6] = [
    "PIPELINING",
    "8BITMIME",
    "SMTPUTF8",
    "CHUNKING",
    "BINARYMIME",
    "ENHANCEDSTATUSCODES",
];

impl Reply {
    /// Appends the line.
    pub(super) fn write(&self, hostname: &str, out: &mut Vec<u8>) {
        self.write_text(hostname, self.text, out);
    }

    fn write_text(&self, hostname: &str, text: &str, out: &mut Vec<u8>) {
        let name = if self.named { hostname } else { "" };
        out.extend_from_slice(self.code.as_bytes());
        for word in [self.enhanced, name, text] {
            if !word.is_empty() {
                out.push(b' ');
                out.extend_from_slice(word.as_bytes());
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// The answer to EHLO (RFC 5321 §4.1.1.1): our name, then an extension a line.
pub(super) fn write_ehlo(hostname: &str, size: u64, starttls: bool, out: &mut Vec<u8>) {
    let mut lines = vec![format!("{hostname} greets you"), format!("SIZE {size}")];
    lines.extend(EXTENSIONS.map(str::to_owned));
    if starttls {
        lines.push("STARTTLS".to_owned());
    }
    let last = lines.len();
    for (number, line) in (1..).zip(lines) {
        let separator = if number == last { ' ' } else { '-' };
        out.extend_from_slice(format!("250{separator}{line}\r\n").as_bytes());
    }
}

/// 250 2.0.0 with the driver's text, without what could break the line.
pub(super) fn write_stored(text: &str, out: &mut Vec<u8>) {
    let text: String = text.chars().filter(|c| matches!(c, ' '..='~')).collect();
    STORED.write_text("", &text, out);
}

impl Deferral {
    pub(super) const fn reply(self) -> &'static Reply {
        match self {
            Self::Memory => &NO_MEMORY,
            Self::StorageFull => &STORAGE_FULL,
            Self::QuarantineFull => &QUARANTINE_FULL,
            Self::StorageFailed => &STORAGE_FAILED,
            Self::Internal => &INTERNAL,
            Self::ShuttingDown => &STOPPED,
        }
    }
}

impl Refusal {
    pub(super) const fn reply(self) -> &'static Reply {
        match self {
            Self::TooManyConnections => &TOO_MANY_CONNECTIONS,
            Self::TooManyFromPeer => &TOO_MANY_FROM_PEER,
            Self::ShuttingDown => &SHUTTING_DOWN,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&Reply; 47] = [
        &GREETING,
        &STARTTLS,
        &QUIT,
        &HELO,
        &MAIL,
        &RCPT,
        &CHUNK,
        &RSET,
        &NOOP,
        &VRFY,
        &HELP,
        &DATA,
        &STORED,
        &BARE_LINE_ENDING,
        &LINE_TOO_LONG,
        &UNKNOWN_COMMAND,
        &NOT_IMPLEMENTED,
        &ARGUMENT_MISSING,
        &ARGUMENT_UNEXPECTED,
        &MAIL_SYNTAX,
        &RCPT_SYNTAX,
        &REVERSE_PATH_SYNTAX,
        &FORWARD_PATH_SYNTAX,
        &PARAMETER_SYNTAX,
        &PARAMETER_VALUE,
        &CHUNK_SYNTAX,
        &UNKNOWN_PARAMETER,
        &NON_ASCII_REVERSE_PATH,
        &NON_ASCII_FORWARD_PATH,
        &TLS_REQUIRED,
        &TLS_RUNNING,
        &STARTTLS_INJECTION,
        &NO_GREETING,
        &NO_MAIL,
        &NESTED_MAIL,
        &CHUNKS_BEGUN,
        &BINARY_NEEDS_BDAT,
        &NO_RECIPIENTS,
        &RECIPIENTS_DEFERRED,
        &UNKNOWN_RECIPIENT,
        &OTHER_TENANT,
        &RECIPIENT_DEFERRED,
        &TOO_MANY_RECIPIENTS,
        &TOO_LARGE,
        &TOO_MANY_ERRORS,
        &TIMEOUT,
        &INTERNAL,
    ];

    const REFUSALS: [Refusal; 3] = [
        Refusal::TooManyConnections,
        Refusal::TooManyFromPeer,
        Refusal::ShuttingDown,
    ];

    const DEFERRALS: [Deferral; 6] = [
        Deferral::Memory,
        Deferral::StorageFull,
        Deferral::QuarantineFull,
        Deferral::StorageFailed,
        Deferral::Internal,
        Deferral::ShuttingDown,
    ];

    #[test]
    fn codes_agree_with_each_other() {
        let replies = ALL.into_iter().chain(REFUSALS.map(Refusal::reply));
        for reply in replies.chain(DEFERRALS.map(Deferral::reply)) {
            let mut line = Vec::new();
            reply.write("mx.example", &mut line);
            let line = String::from_utf8(line).unwrap();
            // RFC 5321 §4.5.3.1.5: a reply line has 512 octets at most.
            assert!(line.is_ascii() && line.len() <= 512, "{line:?}");
            let (class, enhanced) = (&reply.code[..1], reply.enhanced);
            let bare = ["220", "250", "354"].contains(&reply.code) && enhanced.is_empty();
            assert!(bare || enhanced.starts_with(class), "{line:?}");
            assert!(bare || enhanced.split('.').count() == 3, "{line:?}");
            let refuses = class == "4" || class == "5";
            assert_eq!(reply.reason.is_some(), refuses, "{line:?}");
            let named = line.contains(" mx.example ");
            let names = ["421", "221"].contains(&reply.code) || bare && reply.code != "354";
            assert_eq!(named, names, "{line:?}");
        }
    }

    #[test]
    fn deferrals_are_never_for_good() {
        for reply in DEFERRALS.map(Deferral::reply) {
            assert!(reply.code.starts_with('4'), "{reply:?}");
            let reason = reply.reason.unwrap();
            assert!(!reason.is_of_peer(), "{reply:?}");
        }
    }

    #[test]
    fn the_text_of_the_driver_stays_in_its_line() {
        let mut line = Vec::new();
        write_stored("3 recipients\r\n250 \u{1b}ü", &mut line);
        assert_eq!(line, b"250 2.0.0 3 recipients250 \r\n");
    }
}
