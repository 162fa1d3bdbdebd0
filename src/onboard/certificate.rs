//! The SMTP certificate and its key.

use jiff::Timestamp;

use super::{Finding, Level, access};
use crate::certs::Identity;
use crate::config::Config;

const SUBJECT: &str = "certificate";

/// Fewer days left than this are a warning.
const SOON_DAYS: u64 = 14;

pub(super) fn check(config: &Config, now: Timestamp, findings: &mut Vec<Finding>) {
    let smtp = &config.smtp;
    if access::handed_over(&smtp.private_key, findings) {
        let what =
            "the key is a credential, so whether the certificate fits it is seen at the start";
        let problem = config.problem("smtp.private_key", what, "look into the log after a start");
        findings.push(Finding::of_problem(SUBJECT, Level::Warn, problem));
        return;
    }
    let identity = match Identity::load(&smtp.certificate, &smtp.private_key, now) {
        Ok(identity) => identity,
        Err(error) => {
            let (what, mend) = Finding::split(&error.to_string());
            let problem = config.problem("smtp.certificate", what, mend);
            findings.push(Finding::of_problem(SUBJECT, Level::Fail, problem));
            return;
        }
    };
    let days = identity.days_left(now);
    findings.push(Finding::ok(
        SUBJECT,
        format!(
            "{}: {}, {days} days left",
            smtp.certificate.display(),
            identity.names.join(" ")
        ),
    ));
    if days < SOON_DAYS {
        let what = format!("it expires in {days} days");
        let mend = "renew it; the service takes the new file by itself";
        findings.push(Finding::of_problem(
            SUBJECT,
            Level::Warn,
            config.problem("smtp.certificate", what, mend),
        ));
    }
    if !identity.covers(&smtp.hostname) {
        let what = format!(
            "it is for {}, not for {}",
            identity.names.join(" "),
            smtp.hostname
        );
        let mend = "get one for smtp.hostname, or the connector must not compare the name";
        findings.push(Finding::of_problem(
            SUBJECT,
            Level::Warn,
            config.problem("smtp.certificate", what, mend),
        ));
    }
    if let Err(why) = identity.check_public_trust(&smtp.hostname, now) {
        let what = format!("no public trust: {why}");
        let mend = "in the connector choose \"any digital certificate, including self-signed\", or get a public certificate";
        findings.push(Finding::of_problem(
            SUBJECT,
            Level::Warn,
            config.problem("smtp.certificate", what, mend),
        ));
    }
}
