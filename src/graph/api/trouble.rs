//! What an error of Graph means for us. Decided by status class first, then by code, never by message.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::Answer;

/// What kind of trouble an answer tells of, and with it what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trouble {
    /// Our request was wrong: a bug, never repeated.
    Request,
    /// The token was refused: a new one, once.
    Token,
    /// The mailbox is closed to us: missing permission, access policy or scope. Not repeated.
    Denied,
    /// The directory is closed to us: the configuration must change.
    DirectoryDenied,
    /// A hold or retention protects the message from a hard delete.
    Held,
    /// The message is not there (any more): locate again, once.
    Missing,
    /// The id is of another mailbox: stop there.
    WrongMailbox,
    /// The destination folder is not there.
    NoFolder,
    /// The user has no mailbox that Graph reaches.
    NoMailbox,
    /// The tenant has no such user.
    NoUser,
    /// Changed by someone else at the same time: look, then try again.
    Conflict,
    /// A delta token is too old.
    Resync,
    /// No room in the mailbox or in its Recoverable Items.
    Full,
    /// Locked by a hold (drive items).
    Locked,
    /// Another request of the batch failed, so this one was not run.
    Dependency,
    /// Not run, because we asked too much: wait as told.
    Throttled,
    /// The service has a problem that passes. The request may have been run.
    Transient,
    /// An answer that is not understood.
    Unknown,
}

/// The trouble that a status and an error code tell of (Graph reference of this project, "Errors
/// and what to do"). `destroys`: the request was a hard delete.
pub fn classify(status: u16, code: &str, destroys: bool) -> Trouble {
    match status {
        400 => Trouble::Request,
        401 => Trouble::Token,
        403 => match code {
            "Authorization_RequestDenied" => Trouble::DirectoryDenied,
            "Forbidden" if destroys => Trouble::Held,
            _ => Trouble::Denied,
        },
        404 => match code {
            "ErrorInvalidMailboxItemId" => Trouble::WrongMailbox,
            "ErrorFolderNotFound" => Trouble::NoFolder,
            "ResourceNotFound" | "Request_ResourceNotFound" | "ErrorInvalidUser" => Trouble::NoUser,
            _ if code.starts_with("MailboxNot") => Trouble::NoMailbox,
            _ => Trouble::Missing,
        },
        408 => Trouble::Transient,
        409 | 412 => Trouble::Conflict,
        410 => Trouble::Resync,
        413 | 507 => Trouble::Full,
        423 => Trouble::Locked,
        424 => Trouble::Dependency,
        429 => Trouble::Throttled,
        405..=499 => Trouble::Request,
        500..=599 => match code {
            "ErrorMessageSizeExceeded" | "ErrorQuotaExceeded" => Trouble::Full,
            _ => Trouble::Transient,
        },
        _ => Trouble::Unknown,
    }
}

/// An answer that is an error, as far as we look at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// `error.code`; empty if the body has none.
    pub code: String,
    /// `error.message`, cut at 300 characters. For people: it may echo what was asked.
    pub message: String,
    /// What it means.
    pub trouble: Trouble,
    /// How long Graph asks us to wait.
    pub retry_after: Option<Duration>,
}

/// Characters of a message that are kept.
const MESSAGE_CHARACTERS: usize = 300;

impl Failure {
    /// Reads an answer whose status is no success. `destroys`: the request was a hard delete.
    pub fn read(answer: &Answer, destroys: bool) -> Self {
        let error = answer.body.get("error").unwrap_or(&Value::Null);
        let text = |value: &Value, name: &str| {
            let text = value.get(name).and_then(Value::as_str).unwrap_or_default();
            text.chars().take(MESSAGE_CHARACTERS).collect::<String>()
        };
        let code = text(error, "code");
        let inner = error.get("innerError").or_else(|| error.get("innererror"));
        let inner = inner.map(|inner| text(inner, "code")).unwrap_or_default();
        let outer = classify(answer.status, &code, destroys);
        let specific = classify(answer.status, &inner, destroys);
        let default = classify(answer.status, "", destroys);
        Self {
            status: answer.status,
            // The inner code says more only where the outer one says nothing.
            trouble: if outer == default { specific } else { outer },
            message: text(error, "message"),
            code,
            retry_after: answer.retry_after,
        }
    }

    /// A success whose body is not what was expected.
    pub fn unreadable(status: u16, what: impl fmt::Display) -> Self {
        Self {
            status,
            code: String::new(),
            message: what.to_string(),
            trouble: Trouble::Unknown,
            retry_after: None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn errors_and_what_they_mean() {
        for (status, code, expected) in [
            (400, "ErrorInvalidIdMalformed", Trouble::Request),
            (400, "InefficientFilter", Trouble::Request),
            (400, "Request_UnsupportedQuery", Trouble::Request),
            (401, "InvalidAuthenticationToken", Trouble::Token),
            (403, "ErrorAccessDenied", Trouble::Denied),
            (403, "Forbidden", Trouble::Denied),
            (403, "Authorization_RequestDenied", Trouble::DirectoryDenied),
            (404, "ErrorItemNotFound", Trouble::Missing),
            (404, "ErrorInvalidMailboxItemId", Trouble::WrongMailbox),
            (404, "ErrorFolderNotFound", Trouble::NoFolder),
            (404, "MailboxNotEnabledForRESTAPI", Trouble::NoMailbox),
            (404, "MailboxNotSupportedForRESTAPI", Trouble::NoMailbox),
            (404, "Request_ResourceNotFound", Trouble::NoUser),
            (404, "ErrorInvalidUser", Trouble::NoUser),
            (404, "SomethingNew", Trouble::Missing),
            (409, "ErrorIrresolvableConflict", Trouble::Conflict),
            (410, "SyncStateNotFound", Trouble::Resync),
            (412, "", Trouble::Conflict),
            (413, "ErrorMessageSizeExceeded", Trouble::Full),
            (507, "ErrorQuotaExceeded", Trouble::Full),
            (423, "locked", Trouble::Locked),
            (424, "", Trouble::Dependency),
            (429, "ApplicationThrottled", Trouble::Throttled),
            (429, "SomethingNew", Trouble::Throttled),
            (500, "ErrorInternalServerTransientError", Trouble::Transient),
            (502, "UnknownError", Trouble::Transient),
            (503, "ErrorServerBusy", Trouble::Transient),
            (504, "", Trouble::Transient),
            (302, "", Trouble::Unknown),
        ] {
            assert_eq!(classify(status, code, false), expected, "{status} {code}");
        }
        assert_eq!(classify(403, "Forbidden", true), Trouble::Held);
    }

    #[test]
    fn error_bodies() {
        for (name, body, code, trouble) in [
            (
                "usual",
                json!({"error": {"code": "ErrorAccessDenied", "message": "no"}}),
                "ErrorAccessDenied",
                Trouble::Denied,
            ),
            (
                "code inside",
                json!({"error": {"code": "x", "innererror": {"code": "Authorization_RequestDenied"}}}),
                "x",
                Trouble::DirectoryDenied,
            ),
            ("no body", Value::Null, "", Trouble::Denied),
            ("odd body", json!({"error": "no"}), "", Trouble::Denied),
        ] {
            let answer = Answer {
                status: 403,
                retry_after: None,
                body,
            };
            let failure = Failure::read(&answer, false);
            assert_eq!(
                (failure.code.as_str(), failure.trouble),
                (code, trouble),
                "{name}"
            );
        }
    }
}
