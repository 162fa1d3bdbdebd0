//! The OData of Microsoft Graph: a request's path and query in, typed options out.
//!
//! [`query`] decodes path segments and query options, [`filter`] parses `$filter`, [`evaluate`] checks
//! a filter against the properties of a type and applies it to a value. Nothing here knows mail.

pub(crate) mod evaluate;
pub(crate) mod filter;
pub(crate) mod query;

/// Why a query cannot be answered: always the caller's mistake, answered with 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QueryError {
    /// The `code` of the error body.
    pub(crate) code: &'static str,
    /// The `message` of the error body.
    pub(crate) message: String,
}

impl QueryError {
    /// An error with the code that Graph's front end uses for what it cannot parse.
    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self {
            code: "BadRequest",
            message: message.into(),
        }
    }

    /// An error with a code of its own.
    pub(crate) fn coded(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
