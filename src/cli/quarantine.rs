//! `quarantine`: mail on a journal address that was not believed, or not understood.

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::segment;
use super::confirm::ask;
use super::output::Table;
use super::show::text;
use super::{Context, Exit, Outcome};

/// Look after reports that were not understood or not proven, and mail that is no report
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List what is held (the default)
    List,
    /// Print a held message as it was received
    Show {
        /// As `list` gives it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Judge again, with the configuration and parser of now: what is proven goes into the index
    ///
    /// What is not proven stays held. Exit 1 if a message could not be judged.
    Retry {
        /// As `list` gives it; all of them without one
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Index reports although they are not proven; exit 1 unless all were
    Accept {
        /// As `list` gives them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Remove messages for good; exit 1 unless all were
    Drop {
        /// As `list` gives them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(super) fn run(context: &mut Context, arguments: Arguments) -> Outcome {
    match arguments.command.unwrap_or(Command::List) {
        Command::List => list(context),
        Command::Show { id } => show(context, &id),
        // What is still not proven stays, which is an answer and no failure.
        Command::Retry { id } => act(context, "retry", id.as_slice(), &["indexed", "kept"]),
        Command::Accept { ids, yes } => {
            let question = format!(
                "Index {} as if proven? Whoever can reach port 25 may have written it.",
                messages(&ids)
            );
            ask(context, &question, yes)?;
            act(context, "accept", &ids, &["indexed"])
        }
        Command::Drop { ids, yes } => {
            ask(
                context,
                &format!("Remove {} for good?", messages(&ids)),
                yes,
            )?;
            act(context, "drop", &ids, &["dropped"])
        }
    }
}

fn messages(ids: &[String]) -> String {
    match ids {
        [one] => one.clone(),
        many => format!("{} messages", many.len()),
    }
}

fn list(context: &mut Context) -> Outcome {
    let mut client = context.client()?;
    let answer = client.get("/v1/quarantine", &[])?;
    answer.list(&mut context.out, &COLUMNS, |held| {
        COLUMNS.iter().map(|column| text(&held[*column])).collect()
    })?;
    Ok(Exit::Done)
}

const COLUMNS: [&str; 8] = [
    "id",
    "received",
    "tenant",
    "peer",
    "kind",
    "size",
    "message_id",
    "reason",
];

/// The message itself on standard output, as it came; on a terminal, without what could act there.
fn show(context: &mut Context, id: &str) -> Outcome {
    let path = format!("/v1/quarantine/{}", segment(id));
    let mut client = context.client()?;
    if context.out.is_json() {
        let document = client.get(&path, &[])?.document()?;
        context.out.document(&document)?;
        return Ok(Exit::Done);
    }
    let mut answer = client.get(&format!("{path}/content"), &[])?;
    let terminal = context.out.is_terminal();
    let mut rest: Vec<u8> = Vec::new();
    while let Some(chunk) = answer.chunk()? {
        if !terminal {
            context.out.octets(&chunk)?;
            continue;
        }
        // Pieces end anywhere; what is shown ends with a line.
        rest.extend_from_slice(&chunk);
        if let Some(end) = memchr::memrchr(b'\n', &rest) {
            let after = rest.split_off(end + 1);
            screen(context, &rest)?;
            rest = after;
        }
    }
    screen(context, &rest)?;
    Ok(Exit::Done)
}

/// Text that a stranger wrote, for the terminal.
fn screen(context: &mut Context, octets: &[u8]) -> std::io::Result<()> {
    for line in String::from_utf8_lossy(octets).lines() {
        context.out.line(crate::escape::plain(line))?;
    }
    Ok(())
}

/// `retry`, `accept`, `drop`: one document a message says what became of it. Exit 0 only if each
/// message ended as the command promises.
fn act(context: &mut Context, verb: &str, ids: &[String], promised: &[&str]) -> Outcome {
    let mut client = context.client()?;
    let answer = client.post(&format!("/v1/quarantine/{verb}"), &json!({ "ids": ids }))?;
    let mut kept_promise = true;
    let mut table = Table::new(&["id", "outcome", "detail"]);
    let out = &mut context.out;
    answer.each(|outcome| {
        kept_promise &= promised.iter().any(|word| outcome["outcome"] == *word);
        if out.is_json() {
            out.document(&outcome)?;
        } else {
            let row = ["id", "outcome", "detail"].map(|key| text(&outcome[key]));
            table.row(out, row.to_vec())?;
        }
        Ok(())
    })?;
    table.end(&mut context.out)?;
    Ok(if kept_promise {
        Exit::Done
    } else {
        Exit::Finding
    })
}
