//! The data directory.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Finding, Level};
use crate::config::{Config, Size};

const SUBJECT: &str = "store";

/// Less free space than this is a warning.
const LOW: Size = Size::mib(1024);

pub(super) fn check(config: &Config, findings: &mut Vec<Finding>) {
    let path = &config.store.path;
    // What does not exist yet is made at the first start, below the nearest directory that does.
    let Some(existing) = path.ancestors().find(|ancestor| ancestor.exists()) else {
        return;
    };
    if !existing.is_dir() {
        let what = format!("{} is no directory", existing.display());
        findings.push(fail(config, &what, "choose another place"));
        return;
    }
    if let Err(error) = access(existing, Access::WRITE_OK | Access::EXEC_OK) {
        let what = format!(
            "{} cannot be written by this user: {error}",
            existing.display()
        );
        findings.push(fail(
            config,
            &what,
            "make the directory belong to the service's user",
        ));
        return;
    }
    match free(existing) {
        Some(free) if free < LOW => {
            let what = format!("{} has {free} left", existing.display());
            let problem = config.problem(
                "store.path",
                what,
                "make room, or reports will be deferred with 452",
            );
            findings.push(Finding::of_problem(SUBJECT, Level::Warn, problem));
        }
        _ => findings.push(Finding::ok(SUBJECT, path.display().to_string())),
    }
}

fn fail(config: &Config, what: &str, mend: &str) -> Finding {
    Finding::of_problem(
        SUBJECT,
        Level::Fail,
        config.problem("store.path", what, mend),
    )
}

/// Free space for ordinary users, in whole mebibytes.
fn free(path: &Path) -> Option<Size> {
    let system = rustix::fs::statvfs(path).ok()?;
    Some(Size::mib(
        system.f_bavail.saturating_mul(system.f_frsize) >> 20,
    ))
}
