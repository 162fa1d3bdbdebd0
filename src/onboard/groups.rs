//! The Unix groups that give authority.

use super::{Finding, Level};
use crate::config::Config;

const SUBJECT: &str = "admin";

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let Ok(known) = std::fs::read_to_string("/etc/group") else {
        return;
    };
    let admin = &config.admin;
    let mut missing = false;
    for (key, groups) in [
        ("admin.viewers", &admin.viewers),
        ("admin.operators", &admin.operators),
        ("admin.approvers", &admin.approvers),
    ] {
        for group in groups.iter().filter(|group| !exists(&known, group)) {
            missing = true;
            let problem = config.problem(
                key,
                format!("there is no group {group:?}"),
                format!("groupadd --system {group}, or correct the name; root and the service's user may act meanwhile"),
            );
            findings.push(Finding::of_problem(SUBJECT, Level::Warn, problem));
        }
    }
    if !missing {
        findings.push(Finding::ok(
            SUBJECT,
            format!("{}, groups known", admin.socket.display()),
        ));
    }
}

fn exists(known: &str, group: &str) -> bool {
    known
        .lines()
        .any(|line| line.split(':').next() == Some(group))
}
