//! A command line in, a command with its parameters out (RFC 5321 §4.1.1 and the extensions).

use super::path::{forward_path, reverse_path};
use super::reply::{self, Reply};
use crate::mail::{ForwardPath, ReversePath};

/// The largest chunk that we count (RFC 3030 §2 sets no bound).
const CHUNK_OCTETS: u64 = 1 << 63;

/// The first word of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Ehlo,
    Helo,
    Mail,
    Rcpt,
    Data,
    Bdat,
    Rset,
    Noop,
    Vrfy,
    Help,
    Quit,
    StartTls,
    /// Known to the standard, and not to us.
    NotImplemented,
    /// Anything else.
    Unknown,
}

/// What a command says, apart from its verb.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Arguments {
    /// Nothing that matters here.
    None,
    Mail(Mail),
    Rcpt(Rcpt),
    Bdat(Chunk),
}

/// The arguments of MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mail {
    pub(super) reverse_path: ReversePath,
    /// SIZE (RFC 1870); `u64::MAX` for more than that.
    pub(super) size: Option<u64>,
    /// BODY=BINARYMIME (RFC 3030 §3).
    pub(super) binary: bool,
    pub(super) smtputf8: bool,
}

/// The arguments of RCPT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rcpt {
    pub(super) forward_path: ForwardPath,
    /// Octets outside ASCII are in the command, so the transaction must have SMTPUTF8.
    pub(super) utf8: bool,
}

/// The arguments of BDAT (RFC 3030 §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) octets: u64,
    pub(super) last: bool,
}

/// A command line, read. Who may say the verb now is asked before what is wrong with the rest, so
/// both are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) verb: Verb,
    pub(super) arguments: Result<Arguments, &'static Reply>,
}

impl Command {
    /// Reads a line without its CRLF.
    pub(super) fn parse(line: &[u8]) -> Self {
        // Blanks before the CRLF are tolerated (RFC 5321 §4.1.1).
        let line = line.trim_ascii_end();
        let (word, rest) = match line.iter().position(|octet| *octet == b' ') {
            Some(at) => line.split_at(at),
            None => (line, &b""[..]),
        };
        let verb = Verb::of(word);
        Self {
            verb,
            arguments: verb.arguments(rest.trim_ascii_start()),
        }
    }
}

impl Verb {
    fn of(word: &[u8]) -> Self {
        const VERBS: [(&str, Verb); 20] = [
            ("EHLO", Verb::Ehlo),
            ("HELO", Verb::Helo),
            ("MAIL", Verb::Mail),
            ("RCPT", Verb::Rcpt),
            ("DATA", Verb::Data),
            ("BDAT", Verb::Bdat),
            ("RSET", Verb::Rset),
            ("NOOP", Verb::Noop),
            ("VRFY", Verb::Vrfy),
            ("HELP", Verb::Help),
            ("QUIT", Verb::Quit),
            ("STARTTLS", Verb::StartTls),
            ("EXPN", Verb::NotImplemented),
            ("AUTH", Verb::NotImplemented),
            ("ETRN", Verb::NotImplemented),
            ("TURN", Verb::NotImplemented),
            ("SEND", Verb::NotImplemented),
            ("SOML", Verb::NotImplemented),
            ("SAML", Verb::NotImplemented),
            ("BURL", Verb::NotImplemented),
        ];
        let known = VERBS
            .iter()
            .find(|(name, _)| name.as_bytes().eq_ignore_ascii_case(word));
        known.map_or(Self::Unknown, |(_, verb)| *verb)
    }

    fn arguments(self, rest: &[u8]) -> Result<Arguments, &'static Reply> {
        match self {
            Self::Ehlo | Self::Helo => greeting(rest),
            Self::Mail => mail(rest).map(Arguments::Mail),
            Self::Rcpt => rcpt(rest).map(Arguments::Rcpt),
            Self::Bdat => chunk(rest).map(Arguments::Bdat),
            Self::Vrfy if rest.is_empty() => Err(&reply::ARGUMENT_MISSING),
            Self::Data | Self::Rset | Self::Quit | Self::StartTls if !rest.is_empty() => {
                Err(&reply::ARGUMENT_UNEXPECTED)
            }
            Self::NotImplemented => Err(&reply::NOT_IMPLEMENTED),
            Self::Unknown => Err(&reply::UNKNOWN_COMMAND),
            _ => Ok(Arguments::None),
        }
    }
}

/// One word, whatever it is: many peers have no proper name, and it decides nothing (RFC 5321 §4.1.4).
fn greeting(rest: &[u8]) -> Result<Arguments, &'static Reply> {
    match rest {
        [] => Err(&reply::ARGUMENT_MISSING),
        _ if rest.iter().any(u8::is_ascii_whitespace) => Err(&reply::ARGUMENT_UNEXPECTED),
        _ => Ok(Arguments::None),
    }
}

fn mail(rest: &[u8]) -> Result<Mail, &'static Reply> {
    let text = after_keyword(rest, "FROM:").ok_or(&reply::MAIL_SYNTAX)?;
    let (reverse_path, parameters) = reverse_path(text).ok_or(&reply::REVERSE_PATH_SYNTAX)?;
    let mut mail = Mail {
        reverse_path,
        size: None,
        binary: false,
        smtputf8: false,
    };
    let mut body = false;
    for parameter in self::parameters(parameters)? {
        let (keyword, value) = parameter?;
        let repeated = if keyword.eq_ignore_ascii_case("SIZE") {
            mail.size.replace(size(value)?).is_some()
        } else if keyword.eq_ignore_ascii_case("BODY") {
            mail.binary = is_binary(value)?;
            std::mem::replace(&mut body, true)
        } else if keyword.eq_ignore_ascii_case("SMTPUTF8") {
            if value.is_some() {
                return Err(&reply::PARAMETER_VALUE);
            }
            std::mem::replace(&mut mail.smtputf8, true)
        } else {
            return Err(&reply::UNKNOWN_PARAMETER);
        };
        if repeated {
            return Err(&reply::PARAMETER_VALUE);
        }
    }
    if !text.is_ascii() && !mail.smtputf8 {
        return Err(&reply::NON_ASCII_REVERSE_PATH);
    }
    Ok(mail)
}

fn rcpt(rest: &[u8]) -> Result<Rcpt, &'static Reply> {
    let text = after_keyword(rest, "TO:").ok_or(&reply::RCPT_SYNTAX)?;
    let (forward_path, parameters) = forward_path(text).ok_or(&reply::FORWARD_PATH_SYNTAX)?;
    // No extension that we offer adds a parameter to RCPT (DSN would).
    match self::parameters(parameters)?.next() {
        None => Ok(Rcpt {
            forward_path,
            utf8: !text.is_ascii(),
        }),
        Some(parameter) => Err(parameter.map_or_else(|error| error, |_| &reply::UNKNOWN_PARAMETER)),
    }
}

/// The text behind the keyword; blanks there are wrong (RFC 5321 §3.3) and common.
fn after_keyword<'a>(rest: &'a [u8], keyword: &str) -> Option<&'a str> {
    let (found, text) = rest.split_at_checked(keyword.len())?;
    let text = std::str::from_utf8(text).ok()?;
    found
        .eq_ignore_ascii_case(keyword.as_bytes())
        .then(|| text.trim_start_matches(' '))
}

/// `KEYWORD` or `KEYWORD=value`, each behind a blank (RFC 5321 §4.1.2, `esmtp-param`).
fn parameters(
    text: &str,
) -> Result<impl Iterator<Item = Result<(&str, Option<&str>), &'static Reply>>, &'static Reply> {
    if !text.is_empty() && !text.starts_with(' ') {
        return Err(&reply::PARAMETER_SYNTAX);
    }
    let words = text.split(' ').filter(|word| !word.is_empty());
    Ok(words.map(|word| {
        let (keyword, value) = match word.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (word, None),
        };
        let is_keyword = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
            && keyword
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-');
        let is_value = |value: &str| {
            let is_part = |c: char| !c.is_ascii() || (c.is_ascii_graphic() && c != '=');
            !value.is_empty() && value.chars().all(is_part)
        };
        match is_keyword && value.is_none_or(is_value) {
            true => Ok((keyword, value)),
            false => Err(&reply::PARAMETER_SYNTAX),
        }
    }))
}

/// The octets that SIZE declares. More than fit in 64 bits is only more than anyone allows: it must
/// neither wrap around nor be taken for a smaller number.
fn size(value: Option<&str>) -> Result<u64, &'static Reply> {
    let value = value.ok_or(&reply::PARAMETER_VALUE)?;
    if value.is_empty() || !value.bytes().all(|octet| octet.is_ascii_digit()) {
        return Err(&reply::PARAMETER_VALUE);
    }
    Ok(value.parse().unwrap_or(u64::MAX))
}

fn is_binary(value: Option<&str>) -> Result<bool, &'static Reply> {
    let value = value.ok_or(&reply::PARAMETER_VALUE)?;
    let is = |name: &str| value.eq_ignore_ascii_case(name);
    match () {
        () if is("7BIT") || is("8BITMIME") => Ok(false),
        () if is("BINARYMIME") => Ok(true),
        () => Err(&reply::PARAMETER_VALUE),
    }
}

/// How many octets follow. If that cannot be told, what follows would run as commands, so the caller
/// closes on every error.
fn chunk(rest: &[u8]) -> Result<Chunk, &'static Reply> {
    let text = std::str::from_utf8(rest).map_err(|_| &reply::CHUNK_SYNTAX)?;
    let mut words = text.split(' ').filter(|word| !word.is_empty());
    let digits = words.next().unwrap_or_default();
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(&reply::CHUNK_SYNTAX),
    };
    if digits.is_empty()
        || !digits.bytes().all(|octet| octet.is_ascii_digit())
        || words.next().is_some()
    {
        return Err(&reply::CHUNK_SYNTAX);
    }
    match digits.parse() {
        Ok(octets) if octets <= CHUNK_OCTETS => Ok(Chunk { octets, last }),
        _ => Err(&reply::CHUNK_SYNTAX),
    }
}
