//! `check`: is the configuration right, and what it points at?

use clap::Args;

use super::output::Tone;
use super::owner::Owner;
use super::{Context, Exit, Outcome, clock};
use crate::config::Config;
use crate::escape;
use crate::onboard::{self, Level};

/// Validate configuration, certificate and DNS; changes nothing
///
/// Says every problem with file, line and mend. Exit 1 if something would fail.
#[derive(Debug, Args)]
pub(super) struct Arguments {}

pub(super) fn run(context: &mut Context, _: &Arguments) -> Outcome {
    if let Some(owner) = Config::load(&context.global.config)
        .ok()
        .and_then(|config| Owner::under_root(&config.store.path))
    {
        // Root can read everything; the service cannot.
        let name = owner.name();
        match owner.assume() {
            Ok(()) => context.note(format!(
                "judged as user {name}, whose the data directory is"
            )),
            Err(error) => context.note(format!("judged as root, not as user {name}: {error}")),
        }
    }
    let findings = onboard::check(&context.global.config, clock::now());
    let count = |level| {
        findings
            .iter()
            .filter(|finding| finding.level == level)
            .count()
    };
    let (failures, warnings) = (count(Level::Fail), count(Level::Warn));
    let quiet = context.global.quiet;
    let out = &mut context.out;
    for finding in &findings {
        if out.is_json() {
            out.document(finding)?;
            continue;
        }
        if quiet && finding.level == Level::Ok {
            continue;
        }
        let (word, tone) = match finding.level {
            Level::Ok => ("OK  ", Tone::Good),
            Level::Warn => ("WARN", Tone::Warning),
            Level::Fail => ("FAIL", Tone::Bad),
        };
        let word = out.toned(word, tone);
        out.line(format_args!(
            "{word}  {:<12} {}",
            finding.subject,
            escape::plain(&finding.found)
        ))?;
        if let Some(mend) = &finding.mend {
            out.line(format_args!("{:<19}fix: {}", "", escape::plain(mend)))?;
        }
    }
    if !out.is_json() && !quiet {
        out.line(format_args!(
            "{}, {}",
            number(failures, "failure"),
            number(warnings, "warning")
        ))?;
    }
    Ok(if failures > 0 {
        Exit::Finding
    } else {
        Exit::Done
    })
}

fn number(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
