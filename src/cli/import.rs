//! `import`: indexes journal reports that lie in files.
//!
//! The messages stream through the socket to the service, which judges each by its stamps as if it
//! had come to the tenant's journal address from a listed peer. An import that is repeated adds nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use clap::Args;
use serde_json::{Value, json};

use super::carried::carried;
use super::progress::Progress;
use super::show::text;
use super::sources::{Message, messages};
use super::{Context, Exit, Failure, Outcome, complain};

/// Octets in one piece of the request.
const PIECE: usize = 1 << 18;

/// Index journal reports from .eml, mbox, Maildir or standard input
///
/// Undeliverable-report mails (NDRs) that carry journal reports are unpacked. --tenant says whose
/// the reports are; their stamps still decide whether they are believed. Exit 1 if none was, 2 if a
/// file could not be read; the others are indexed all the same.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files with one message, mbox files, Maildirs, directories of these; "-" is standard input
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Outcome {
    if context.global.tenant.is_none() {
        return Err(Failure::usage(
            "import needs --tenant NAME: whose reports these are",
        ));
    }
    for path in &arguments.paths {
        if path.as_os_str() != "-" && !path.exists() {
            return Err(Failure::usage(format!(
                "{}: no such file or directory",
                path.display()
            )));
        }
    }
    let progress = Progress::new(context);
    let unread: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&unread);
    let mut sent = 0_u64;
    let pieces = messages(arguments.paths.clone()).flat_map(move |message| match message {
        Ok(message) => {
            sent += 1;
            progress.say(format!("{sent} messages read"));
            framed(&message)
        }
        Err(error) => {
            // What the service was sent before stays good: the request goes on without this file.
            let mut unread = noted.lock().unwrap_or_else(PoisonError::into_inner);
            unread.push(error.to_string());
            Vec::new()
        }
    });
    let mut client = context.client()?;
    let answer = client.stream("/v1/import", pieces)?;
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut read = 0;
    let (quiet, json) = (context.global.quiet, context.out.is_json());
    answer.each(|outcome| {
        read += 1;
        let word = text(&outcome["outcome"]);
        if !matches!(word.as_str(), "new" | "known") && !quiet && !json {
            complain(&format!(
                "message {}: {word}: {}",
                text(&outcome["number"]),
                text(&outcome["detail"])
            ));
        }
        *counts.entry(word).or_default() += 1;
        Ok(())
    })?;
    let count = |word: &str| counts.get(word).copied().unwrap_or(0);
    let proven = count("new") + count("known");
    if json {
        let mut document = json!({ "read": read, "proven": proven });
        for word in OUTCOMES {
            document[word] = Value::from(count(word));
        }
        context.out.document(&document)?;
    } else {
        let others: Vec<String> = OUTCOMES
            .iter()
            .filter(|word| count(word) > 0)
            .map(|word| format!("{} {}", count(word), word.replace('_', " ")))
            .collect();
        context.out.line(format_args!(
            "{read} messages read, {proven} proven ({})",
            others.join(", ")
        ))?;
    }
    let unread = unread.lock().unwrap_or_else(PoisonError::into_inner);
    for error in unread.iter() {
        complain(error);
    }
    Ok(if !unread.is_empty() {
        Exit::Usage
    } else if proven == 0 || count("failed") > 0 {
        Exit::Finding
    } else {
        Exit::Done
    })
}

/// What can become of a message; the first two were proven.
const OUTCOMES: [&str; 6] = [
    "new",
    "known",
    "unproven",
    "not_report",
    "malformed",
    "failed",
];

/// A message as the service takes it: its length in 8 octets, big endian, then itself. An NDR gives
/// the reports that it carries instead.
fn framed(message: &Message) -> Vec<Bytes> {
    let reports = carried(&message.octets);
    let mut pieces = Vec::new();
    for report in reports {
        pieces.push(Bytes::copy_from_slice(&(report.len() as u64).to_be_bytes()));
        let whole = Bytes::copy_from_slice(report);
        let mut rest = whole.as_ref();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(PIECE.min(rest.len()));
            pieces.push(whole.slice_ref(piece));
            rest = after;
        }
    }
    pieces
}
