//! Before the first report: is everything as it must be? One file a subject.
//!
//! A check looks and changes nothing. Each finding says what was seen and, unless it is good, what
//! to do; problems of the configuration carry file, line and column.

mod access;
mod certificate;
mod credential;
mod groups;
mod names;
mod store;

use std::path::Path;

use jiff::Timestamp;
use serde::Serialize;

use crate::config::{Config, Problem};

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: `config`, `certificate`, `names`, …
    pub subject: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was seen.
    pub found: String,
    /// What to do about it; `None` if nothing.
    pub mend: Option<String>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it must be.
    Ok,
    /// It works, but probably not as meant.
    Warn,
    /// It does not work.
    Fail,
}

impl Finding {
    fn ok(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            subject,
            level: Level::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn new(
        subject: &'static str,
        level: Level,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Self {
            subject,
            level,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    /// Splits a text whose mend follows the last semicolon.
    fn split(text: &str) -> (String, String) {
        match text.rsplit_once("; ") {
            Some((what, mend)) => (what.to_owned(), mend.to_owned()),
            None => (text.to_owned(), String::new()),
        }
    }

    /// A problem with the value of a key, at its place in the file.
    fn of_problem(subject: &'static str, level: Level, problem: Problem) -> Self {
        let mend = problem.mend.clone();
        let text = problem.to_string();
        // The problem's own text ends with the mend, which stands apart here.
        let found = text.strip_suffix(&format!("; {mend}")).unwrap_or(&text);
        Self::new(subject, level, found, mend)
    }
}

/// Files with secrets that too many can read: worth a warning at each start.
pub fn open_modes(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    access::open_modes(config, &mut findings);
    findings
}

/// Looks at a configuration file and what it names.
pub fn check(path: &Path, now: Timestamp) -> Vec<Finding> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            let problems = error.problems.into_iter();
            return problems
                .map(|problem| Finding::of_problem("config", Level::Fail, problem))
                .collect();
        }
    };
    let mut findings = vec![Finding::ok(
        "config",
        format!(
            "{}, {} tenants, {} warnings",
            path.display(),
            config.tenants.len(),
            config.warnings.len()
        ),
    )];
    if config.tenants.is_empty() {
        findings.push(Finding::new(
            "config",
            Level::Warn,
            format!(
                "{}: there is no [[tenant]], so no report is accepted",
                path.display()
            ),
            "add one",
        ));
    }
    let warnings = config.warnings.iter().cloned();
    findings.extend(warnings.map(|warning| Finding::of_problem("config", Level::Warn, warning)));
    certificate::check(&config, now, &mut findings);
    access::check(&config, &mut findings);
    access::authorities(&config, &mut findings);
    store::check(&config, &mut findings);
    store::key(&config, &mut findings);
    groups::socket(&config, &mut findings);
    groups::check(&config, &mut findings);
    names::check(&config, &mut findings);
    findings
}
