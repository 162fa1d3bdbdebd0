//! `store`: looking after the data.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::later::{self, Later};
use super::show::{list, text};
use super::{Context, Exit, Failure, Outcome, owner};
use crate::index::{Options, Store};
use crate::key::StoreKey;

/// Look after the data
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Octets and counts, by partition (the default)
    Stats,
    /// Read everything and compare it with its checksums; exit 1 if something is damaged
    Verify,
    /// Make the index anew from the report log, while the service is stopped and as its user
    Reindex,
    #[command(hide = true)]
    Backup(Later),
    #[command(hide = true)]
    Restore(Later),
    #[command(hide = true)]
    Export(Later),
    #[command(hide = true)]
    Import(Later),
    #[command(hide = true)]
    Erase(Later),
}

pub(super) fn run(context: &mut Context, arguments: Arguments) -> Outcome {
    match arguments.command.unwrap_or(Command::Stats) {
        Command::Stats => stats(context),
        Command::Verify => verify(context),
        Command::Reindex => reindex(context),
        Command::Backup(_) => later::refuse("store backup"),
        Command::Restore(_) => later::refuse("store restore"),
        Command::Export(_) => later::refuse("store export"),
        Command::Import(_) => later::refuse("store import"),
        Command::Erase(_) => later::refuse("store erase"),
    }
}

fn stats(context: &mut Context) -> Outcome {
    let mut client = context.client()?;
    let answer = client.get("/v1/store", &[])?;
    if context.out.is_json() {
        answer.copy_to(&mut context.out)?;
        return Ok(Exit::Done);
    }
    let stats = answer.document()?;
    let out = &mut context.out;
    for (name, value) in stats.as_object().into_iter().flatten() {
        if !value.is_array() {
            out.fact(name, text(value))?;
        }
    }
    let partitions = list(&stats["partitions"]);
    let header: Vec<&str> = partitions
        .first()
        .and_then(Value::as_object)
        .map(|first| first.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let rows: Vec<Vec<String>> = partitions
        .iter()
        .map(|partition| header.iter().map(|name| text(&partition[*name])).collect())
        .collect();
    if !rows.is_empty() {
        out.line("")?;
        out.table(&header, &rows)?;
    }
    Ok(Exit::Done)
}

fn verify(context: &mut Context) -> Outcome {
    let mut client = context.client()?;
    let answer = client.get("/v1/store/verify", &[])?.document()?;
    let damaged = !list(&answer["findings"]).is_empty();
    let out = &mut context.out;
    if out.is_json() {
        out.document(&answer)?;
    } else {
        for (name, value) in answer.as_object().into_iter().flatten() {
            if !value.is_array() {
                out.fact(name, text(value))?;
            }
        }
        for problem in list(&answer["findings"]) {
            out.fact(
                "damage",
                format_args!(
                    "{}: {}",
                    text(&problem["partition"]),
                    text(&problem["what"])
                ),
            )?;
        }
    }
    Ok(if damaged { Exit::Finding } else { Exit::Done })
}

fn reindex(context: &mut Context) -> Outcome {
    let config = context.config()?;
    owner::must_own(&config.store.path, "clawback store reindex")?;
    let failed = |error: &dyn std::fmt::Display| Failure::usage(error.to_string());
    let key = StoreKey::load(&config.store.key_file).map_err(|error| failed(&error))?;
    let options = Options {
        retention: config.store.retention,
        ..Options::new(config.store.path, key)
    };
    let stats = Store::reindex(options).map_err(|error| failed(&error))?;
    if context.out.is_json() {
        context.out.document(&stats)?;
    } else {
        context.out.line(format_args!(
            "{} reports indexed in {} partitions",
            stats.reports,
            stats.partitions.len()
        ))?;
    }
    Ok(Exit::Done)
}
