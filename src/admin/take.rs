//! Judges a report that did not come over SMTP: imported, or out of the quarantine.
//!
//! The same scanner and the same judgement of the stamps as the receiver's; what stands for journal
//! address and peer is the tenant that an operator named.

use crate::config::{self, Config, Tenant};
use crate::journal::{self, Belief, Expected, Kind, Limits, Origin, Report, Scanner};

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
    Scanner::new(Limits {
        max_recipients: config.smtp.max_recipients_per_report,
        ..Limits::default()
    })
}

/// Whether a report may be indexed for a tenant.
pub(super) fn judge(report: &Report, tenant: &Tenant, proof: Proof) -> Result<(), Refused> {
    match report.kind {
        Kind::NotReport => Err(Refused {
            outcome: "not_report",
            detail: "it has no X-MS-Journal-Report header".into(),
        }),
        Kind::Malformed => Err(Refused {
            outcome: "malformed",
            detail: report.problems.first().cloned().unwrap_or_default(),
        }),
        Kind::Report if proof == Proof::Waived => Ok(()),
        Kind::Report => {
            let expected = Expected {
                tenant_id: Some(&tenant.tenant_id),
                domains: &tenant.domains,
                origin: match tenant.origin {
                    config::Origin::ExchangeOnline => Origin::ExchangeOnline,
                    config::Origin::ExchangeServer => Origin::ExchangeServer,
                },
            };
            match journal::belief(&report.outer, &expected) {
                Belief::Proven => Ok(()),
                Belief::Unproven(detail) => Err(Refused {
                    outcome: "unproven",
                    detail,
                }),
            }
        }
    }
}
