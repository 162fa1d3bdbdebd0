//! `jobs`: retraction jobs.

use std::io;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::client::segment;
use super::later::{self, Later};
use super::output::Output;
use super::show::{list as values, text};
use super::{Context, Exit, Outcome};

/// Look at retraction jobs
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List jobs, the newest first (the default)
    List,
    /// Show a job: what became of each recipient and each copy
    Show(ShowArguments),
    #[command(hide = true)]
    Watch(Later),
    #[command(hide = true)]
    Cancel(Later),
    #[command(hide = true)]
    Retry(Later),
    #[command(hide = true)]
    Undo(Later),
    #[command(hide = true)]
    Approve(Later),
}

#[derive(Debug, Args)]
struct ShowArguments {
    /// As `list` gives it
    #[arg(value_name = "ID")]
    id: String,
    #[arg(long, hide = true)]
    csv: bool,
    #[arg(long, hide = true)]
    html: bool,
}

pub(super) fn run(context: &mut Context, arguments: Arguments) -> Outcome {
    match arguments.command.unwrap_or(Command::List) {
        Command::List => list(context),
        Command::Show(arguments) => show(context, &arguments),
        Command::Watch(_) => later::refuse("jobs watch"),
        Command::Cancel(_) => later::refuse("jobs cancel"),
        Command::Retry(_) => later::refuse("jobs retry"),
        Command::Undo(_) => later::refuse("jobs undo"),
        Command::Approve(_) => later::refuse("jobs approve"),
    }
}

fn list(context: &mut Context) -> Outcome {
    let mut client = context.client()?;
    let answer = client.get("/v1/jobs", &[])?;
    answer.list(&mut context.out, &COLUMNS, |job| {
        let cell = |column: &&str| match *column {
            "copies" => counts(job),
            column => text(&job[column]),
        };
        COLUMNS.iter().map(cell).collect()
    })?;
    Ok(Exit::Done)
}

const COLUMNS: [&str; 7] = ["id", "created", "tenant", "action", "state", "by", "copies"];

fn show(context: &mut Context, arguments: &ShowArguments) -> Outcome {
    for (name, given) in [("--csv", arguments.csv), ("--html", arguments.html)] {
        if given {
            return later::refuse(&format!("jobs show {name}"));
        }
    }
    let mut client = context.client()?;
    let job = client
        .get(&format!("/v1/jobs/{}", segment(&arguments.id)), &[])?
        .document()?;
    if context.out.is_json() {
        context.out.document(&job)?;
    } else {
        screen(&mut context.out, &job)?;
    }
    Ok(Exit::Done)
}

/// A job as people read it; `retract` shows plans and results with it.
pub(super) fn screen(out: &mut Output, job: &Value) -> io::Result<()> {
    out.fact("job", text(&job["id"]))?;
    out.fact("tenant", text(&job["tenant"]))?;
    out.fact("action", text(&job["action"]))?;
    out.fact("state", text(&job["state"]))?;
    out.fact("created", text(&job["created"]))?;
    out.fact("by", text(&job["by"]))?;
    out.fact("reason", text(&job["reason"]))?;
    out.fact("copies", counts(job))?;
    let recipients: Vec<Vec<String>> = values(&job["recipients"])
        .iter()
        .map(|r| {
            ["address", "outcome", "reason", "mailbox"]
                .map(|key| text(&r[key]))
                .to_vec()
        })
        .collect();
    if !recipients.is_empty() {
        out.line("")?;
        out.table(&["recipient", "outcome", "reason", "mailbox"], &recipients)?;
    }
    let items: Vec<Vec<String>> = values(&job["items"])
        .iter()
        .map(|item| {
            vec![
                text(&item["mailbox"]),
                text(&item["state"]),
                text(&item["folder_before"]["name"]),
                text(&item["folder_after"]["name"]),
                text(&item["reason"]),
                text(&item["detail"]),
            ]
        })
        .collect();
    if !items.is_empty() {
        out.line("")?;
        out.table(
            &[
                "copy in mailbox",
                "state",
                "was in",
                "is in",
                "reason",
                "detail",
            ],
            &items,
        )?;
    }
    Ok(())
}

/// `3 verified, 1 external`.
pub(super) fn counts(job: &Value) -> String {
    let counts: Vec<String> = job["counts"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, count)| count.as_u64() != Some(0))
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    counts.join(", ")
}
