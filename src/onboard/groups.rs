//! The Unix groups that give authority.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;

use super::{Finding, Level};
use crate::config::Config;

const SUBJECT: &str = "admin";

/// What is at the socket's place: a service that runs, or one that is gone, may be.
pub(super) fn socket(config: &Config, findings: &mut Vec<Finding>) {
    let path = &config.admin.socket;
    let occupied =
        fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket());
    if occupied {
        let what = format!("{} is no socket", path.display());
        let problem = config.problem("admin.socket", what, "move it away or choose another path");
        findings.push(Finding::of_problem(SUBJECT, Level::Fail, problem));
    }
}

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let Ok(known) = fs::read_to_string("/etc/group") else {
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
                format!("there is no group {group:?} in /etc/group, which alone is looked into"),
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
