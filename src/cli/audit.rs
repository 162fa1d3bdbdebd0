//! `audit`: the log of what was done, and the proof that nobody changed it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::later::{self, Later};
use super::output::Output;
use super::show::text;
use super::{Context, Exit, Failure, Outcome};
use crate::admin::log;
use crate::audit::{self, AuditError, Hash};
use crate::escape;
use crate::key::StoreKey;

/// Read the audit log
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the entries, the oldest first (the default)
    Show(Place),
    /// Compute the chain again; exit 1 if an entry was changed, removed or moved
    Verify {
        #[command(flatten)]
        place: Place,
        /// An entry that the log must hold, as "audit log head" in the system's journal names it
        #[arg(long, value_name = "SEQ:HASH", value_parser = audit::parse_known)]
        known: Vec<(u64, Hash)>,
    },
    #[command(hide = true)]
    Export(Later),
}

/// Where the log is, if the service is not to be asked.
#[derive(Debug, Default, Args)]
struct Place {
    /// The log's directory (store.path/audit): reads it without the service
    #[arg(long, value_name = "DIR", requires = "key")]
    dir: Option<PathBuf>,
    /// The store key (store.key_file)
    #[arg(long, value_name = "FILE", requires = "dir")]
    key: Option<PathBuf>,
}

impl Place {
    /// Directory and key, if both were given.
    fn offline(&self) -> Result<Option<(&PathBuf, StoreKey)>, Failure> {
        let Some((dir, key)) = self.dir.as_ref().zip(self.key.as_ref()) else {
            return Ok(None);
        };
        let key = StoreKey::load(key).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Some((dir, key)))
    }
}

pub(super) fn run(context: &mut Context, arguments: Arguments) -> Outcome {
    match arguments
        .command
        .unwrap_or_else(|| Command::Show(Place::default()))
    {
        Command::Show(place) => show(context, &place),
        Command::Verify { place, known } => verify(context, &place, &known),
        Command::Export(_) => later::refuse("audit export"),
    }
}

fn show(context: &mut Context, place: &Place) -> Outcome {
    if let Some(dir) = &place.dir {
        for entry in audit::show(dir).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            print(&mut context.out, &serde_json::to_value(&entry)?)?;
        }
        return Ok(Exit::Done);
    }
    let mut client = context.client()?;
    let answer = client.get("/v1/audit", &[])?;
    if context.out.is_json() {
        answer.copy_to(&mut context.out)?;
    } else {
        let out = &mut context.out;
        answer.each(|entry| Ok(print(out, &entry)?))?;
    }
    Ok(Exit::Done)
}

fn verify(context: &mut Context, place: &Place, known: &[(u64, Hash)]) -> Outcome {
    let verdict = match place.offline()? {
        Some((dir, key)) => log::verdict(&audit::verify(dir, &key, known).map_err(failed)?),
        None => {
            let known: Vec<String> = known
                .iter()
                .map(|(seq, hash)| format!("{seq}:{hash}"))
                .collect();
            let known = known.join(",");
            let query: &[_] = if known.is_empty() {
                &[]
            } else {
                &[("known", &*known)]
            };
            context
                .client()?
                .get("/v1/audit/verify", query)?
                .document()?
        }
    };
    let broken = verdict["broken"].as_str();
    let out = &mut context.out;
    if out.is_json() {
        out.document(&verdict)?;
    } else if let Some(broken) = broken {
        out.line(escape::plain(broken))?;
    } else {
        out.line(format_args!(
            "{} entries, unbroken",
            text(&verdict["entries"])
        ))?;
    }
    Ok(if broken.is_some() {
        Exit::Finding
    } else {
        Exit::Done
    })
}

fn failed(error: AuditError) -> Failure {
    Failure::usage(error.to_string())
}

/// One entry: a document, or a line for people.
fn print(out: &mut Output, entry: &Value) -> std::io::Result<()> {
    if out.is_json() {
        out.document(entry)
    } else {
        line(out, entry)
    }
}

/// One entry on one line.
fn line(out: &mut Output, entry: &Value) -> std::io::Result<()> {
    let fields = [
        "seq",
        "at",
        "who",
        "action",
        "job",
        "message_id",
        "mailbox",
        "detail",
    ];
    let words: Vec<String> = fields
        .iter()
        .map(|field| text(&entry[*field]))
        .filter(|word| !word.is_empty())
        .collect();
    out.line(escape::plain(&words.join("  ")))
}
