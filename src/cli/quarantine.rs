//! `quarantine`: mail on a journal address that was not believed, or not understood.

use clap::{Args, Subcommand};
use serde_json::json;

use super::client::segment;
use super::confirm::ask;
use super::show::text;
use super::{Context, Exit, Failure, Outcome};

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
    Retry {
        /// As `list` gives it; all of them without one
        #[arg(value_name = "ID")]
        id: Option<String>,
    },
    /// Index reports although they are not proven
    Accept {
        /// As `list` gives them
        #[arg(value_name = "ID", required = true)]
        ids: Vec<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Remove messages for good
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
        Command::Retry { id } => act(context, "retry", id.as_slice()),
        Command::Accept { ids, yes } => {
            let question = format!(
                "Index {} as if proven? Whoever can reach port 25 may have written it.",
                messages(&ids)
            );
            ask(context, &question, yes)?;
            act(context, "accept", &ids)
        }
        Command::Drop { ids, yes } => {
            ask(
                context,
                &format!("Remove {} for good?", messages(&ids)),
                yes,
            )?;
            act(context, "drop", &ids)
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
    let tenant = context.global.tenant.clone();
    let query: Vec<(&str, &str)> = tenant
        .iter()
        .map(|name| ("tenant", name.as_str()))
        .collect();
    let mut client = context.client()?;
    let answer = client.get("/v1/quarantine", &query)?;
    if context.out.is_json() {
        answer.copy_to(&mut context.out)?;
        return Ok(Exit::Done);
    }
    let mut rows = Vec::new();
    answer.each(|held| {
        rows.push(COLUMNS.iter().map(|column| text(&held[*column])).collect());
        Ok(())
    })?;
    context.out.table(&COLUMNS, &rows)?;
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
    while let Some(chunk) = answer.chunk()? {
        if context.out.is_terminal() {
            for line in String::from_utf8_lossy(&chunk).lines() {
                context.out.line(crate::escape::plain(line))?;
            }
        } else {
            context.out.octets(&chunk)?;
        }
    }
    Ok(Exit::Done)
}

/// `retry`, `accept`, `drop`: one document a message says what became of it.
fn act(context: &mut Context, verb: &str, ids: &[String]) -> Outcome {
    let mut client = context.client()?;
    let answer = client.post(&format!("/v1/quarantine/{verb}"), &json!({ "ids": ids }))?;
    let mut missing = false;
    let (out, quiet) = (&mut context.out, context.global.quiet);
    answer.each(|outcome| {
        missing |= outcome["outcome"] == "unknown";
        if out.is_json() {
            out.document(&outcome)?;
        } else if !quiet {
            out.table(
                &["id", "outcome", "detail"],
                &[vec![
                    text(&outcome["id"]),
                    text(&outcome["outcome"]),
                    text(&outcome["detail"]),
                ]],
            )?;
        }
        Ok::<(), Failure>(())
    })?;
    Ok(if missing { Exit::Finding } else { Exit::Done })
}
