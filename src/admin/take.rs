//! Judges a report that did not come over SMTP: imported, or out of the quarantine.
//!
//! The same scanner and the same judgement of the stamps as the receiver's; what stands for journal
//! address and peer is the tenant that an operator named.

use crate::config::{Config, Tenant};
use crate::journal::{Kind, Report, Scanner};

/// Whether stamps must prove a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// As for the receiver.
    Needed,
    /// An operator answers for it.
    Waived,
}

/// Why a message does not go into the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    /// `not_report`, `malformed` or `unproven`.
    pub(super) outcome: &'static str,
    /// For people.
    pub(super) detail: String,
}

/// A scanner with the configured limits.
pub(super) fn scanner(config: &Config) -> Scanner {
    Scanner::new(config.journal_limits())
}

/// Whether a report may be indexed for a tenant.
pub(super) fn judge(report: &Report, tenant: &Tenant, proof: Proof) -> Result<(), Refused> {
    match report.kind {
        Kind::NotReport | Kind::Malformed => Err(Refused {
            outcome: report.kind.as_str(),
            detail: report.failure().to_owned(),
        }),
        Kind::Report if proof == Proof::Waived => Ok(()),
        Kind::Report => match tenant.doubt(&report.outer) {
            None => Ok(()),
            Some(detail) => Err(Refused {
                outcome: "unproven",
                detail,
            }),
        },
    }
}
