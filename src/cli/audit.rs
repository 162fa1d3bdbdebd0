//! `audit`: the log of what was done, and the proof that nobody changed it.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::later::{self, Later};
use super::output::Output;
use super::show::text;
use super::{Context, Exit, Failure, Outcome};
use crate::escape;
use crate::key::StoreKey;

/// Read the audit log
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the entries, the oldest first
    Show(Place),
    /// Compute the chain again; exit 1 if an entry was changed, removed or moved
    Verify(Place),
    #[command(hide = true)]
    Export(Later),
}

/// Where the log is, if the service is not to be asked.
#[derive(Debug, Args)]
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
    match arguments.command {
        Command::Show(place) => show(context, &place),
        Command::Verify(place) => verify(context, &place),
        Command::Export(_) => later::refuse("audit export"),
    }
}

fn show(context: &mut Context, place: &Place) -> Outcome {
    if place.offline()?.is_some() {
        return later::refuse("audit show --dir");
    }
    let mut client = context.client()?;
    let answer = client.get("/v1/audit", &[])?;
    if context.out.is_json() {
        answer.copy_to(&mut context.out)?;
    } else {
        let out = &mut context.out;
        answer.each(|entry| Ok(line(out, &entry)?))?;
    }
    Ok(Exit::Done)
}

fn verify(context: &mut Context, place: &Place) -> Outcome {
    if place.offline()?.is_some() {
        return later::refuse("audit verify --dir");
    }
    let mut client = context.client()?;
    let answer = client.post("/v1/audit/verify", &json!({}))?.document()?;
    context.out.document(&answer)?;
    Ok(Exit::Done)
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
