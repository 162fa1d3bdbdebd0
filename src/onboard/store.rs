//! The data directory.

use std::io;
use std::path::Path;

use rustix::fs::Access;

use super::{Finding, Level, access};
use crate::config::{Config, Size};
use crate::key::{KeyError, StoreKey};

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
    if let Err(error) = rustix::fs::access(existing, Access::WRITE_OK | Access::EXEC_OK) {
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

/// The store key, as the start will find it.
pub(super) fn key(config: &Config, findings: &mut Vec<Finding>) {
    let (path, data) = (&config.store.key_file, &config.store.path);
    if access::handed_over(path, findings) {
        return;
    }
    let problem = match StoreKey::load(path) {
        Ok(_) => return,
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            if data.join("log").exists() {
                let what = format!(
                    "{} is missing, but {} holds data of that key",
                    path.display(),
                    data.display()
                );
                config.problem("store.key_file", what, "restore it from your backup")
            } else {
                let directory = path.parent().unwrap_or(path);
                let Err(error) = rustix::fs::access(directory, Access::WRITE_OK | Access::EXEC_OK)
                else {
                    return;
                };
                let what = format!(
                    "{} cannot be made at the first start: {error}",
                    path.display()
                );
                config.problem(
                    "store.key_file",
                    what,
                    "make its directory writable for the service, or put a key there",
                )
            }
        }
        Err(error) => {
            let (what, mend) = Finding::split(&error.to_string());
            config.problem("store.key_file", what, mend)
        }
    };
    findings.push(Finding::of_problem(SUBJECT, Level::Fail, problem));
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
