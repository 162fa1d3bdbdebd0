//! Why a job was not started. Nothing was done then.

use std::sync::Arc;

use crate::audit::AuditError;
use crate::graph::client::{ClientError, TokenError};
use crate::mail::{RecordId, TenantName};

/// Why a request was refused.
#[derive(Debug, thiserror::Error)]
pub enum RetractError {
    /// No record is named.
    #[error("no message was named")]
    NoRecords,
    /// There is no such record.
    #[error("there is no record {0}; it may have passed its retention")]
    UnknownRecord(RecordId),
    /// The records are of several tenants.
    #[error("the messages are of several tenants ({}); start one job for each", names(.0))]
    SeveralTenants(Vec<TenantName>),
    /// A record cannot be looked for.
    #[error("record {0} has no Message-ID to look for; retracting such messages comes later")]
    NoMessageId(RecordId),
    /// None of the wanted recipients got the message.
    #[error("none of the named recipients is a recipient of the message")]
    NoRecipients,
    /// The action is not built yet.
    #[error("hard-delete comes later; soft-delete moves the copies to Recoverable Items")]
    HardDelete,
    /// The tenant has no connection to Graph.
    #[error("tenant {tenant} cannot be reached through Graph: {why}")]
    NotConnected {
        /// Which tenant.
        tenant: TenantName,
        /// Why.
        why: String,
    },
    /// The application lacks permissions.
    #[error(
        "tenant {tenant}: the application lacks {}; grant it (application permission, admin consent) \
         and try again: nothing was done", missing.join(" and ")
    )]
    Permission {
        /// Which tenant.
        tenant: TenantName,
        /// Names of the permissions.
        missing: Vec<String>,
    },
    /// No token, or Graph cannot be used.
    #[error("{0}; nothing was done")]
    Graph(#[from] ClientError),
    /// The directory answered with an error.
    #[error("tenant {tenant}: the directory refused: {why}; nothing was done")]
    Directory {
        /// Which tenant.
        tenant: TenantName,
        /// What Graph said.
        why: String,
    },
    /// The index cannot be read.
    #[error("the index cannot be read: {0}")]
    Index(String),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The state cannot be written.
    #[error("the job cannot be stored, so nothing is done: {0}")]
    State(String),
}

/// What kind of refusal, for an exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// Nothing matched (1).
    Nothing,
    /// The request is wrong (2).
    Usage,
    /// Refused by policy (4).
    Policy,
    /// Graph refused, or was not reached (5).
    Graph,
    /// Our own storage failed: the service is in trouble (3).
    Storage,
}

impl RetractError {
    /// What kind it is.
    pub const fn kind(&self) -> ErrorKind {
        match self {
            Self::NoRecords | Self::UnknownRecord(_) | Self::NoRecipients => ErrorKind::Nothing,
            Self::SeveralTenants(_) | Self::NoMessageId(_) | Self::HardDelete => ErrorKind::Usage,
            Self::NotConnected { .. } => ErrorKind::Usage,
            Self::Permission { .. } | Self::Graph(_) | Self::Directory { .. } => ErrorKind::Graph,
            Self::Index(_) | Self::Audit(_) | Self::State(_) => ErrorKind::Storage,
        }
    }

    /// The exit code that it stands for.
    pub const fn exit_code(&self) -> u8 {
        match self.kind() {
            ErrorKind::Nothing => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Storage => 3,
            ErrorKind::Policy => 4,
            ErrorKind::Graph => 5,
        }
    }
}

impl From<Arc<TokenError>> for RetractError {
    fn from(error: Arc<TokenError>) -> Self {
        Self::Graph(error.into())
    }
}

fn names(tenants: &[TenantName]) -> String {
    let names: Vec<&str> = tenants.iter().map(TenantName::as_str).collect();
    names.join(", ")
}
