//! `completions` and `man`: made from the definition that the command line is parsed with.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::Shell;

use super::{Context, Exit, Failure, Outcome, definition};

/// Print the completion script for a shell
#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

/// Print the manual page, or write one page a command
#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// Write clawback.1 and a page for each command into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn completions(context: &mut Context, arguments: &CompletionsArguments) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(
        arguments.shell,
        &mut visible(definition()),
        "clawback",
        &mut script,
    );
    context.out.octets(&script)?;
    Ok(Exit::Done)
}

pub(super) fn man(context: &mut Context, arguments: &ManArguments) -> Outcome {
    let mut definition = visible(definition());
    definition.build();
    match &arguments.dir {
        None => context.out.octets(&page(definition)?)?,
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(|error| unwritable(directory, &error))?;
            pages(&definition, "clawback", directory)?;
        }
    }
    Ok(Exit::Done)
}

/// One page for the command and one for each below it: `clawback-store-stats.1`.
fn pages(command: &clap::Command, name: &str, directory: &Path) -> Result<(), Failure> {
    let file = directory.join(format!("{name}.1"));
    let titled = command
        .clone()
        .name(name.to_owned())
        .display_name(name.to_owned());
    std::fs::write(&file, page(titled)?).map_err(|error| unwritable(&file, &error))?;
    for inner in command
        .get_subcommands()
        .filter(|inner| inner.get_name() != "help")
    {
        pages(inner, &format!("{name}-{}", inner.get_name()), directory)?;
    }
    Ok(())
}

fn page(command: clap::Command) -> Result<Vec<u8>, Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    Ok(page)
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::usage(format!(
        "{}: {error}; choose a directory that this user may write",
        path.display()
    ))
}

/// The definition without what a later version brings.
fn visible(command: clap::Command) -> clap::Command {
    let hidden: Vec<clap::Command> = command
        .get_subcommands()
        .filter(|inner| !inner.is_hide_set())
        .cloned()
        .map(visible)
        .collect();
    if hidden.len() == command.get_subcommands().count() {
        return command;
    }
    let mut bare = clap::Command::new(command.get_name().to_owned())
        .subcommand_required(command.is_subcommand_required_set())
        .subcommands(hidden);
    for argument in command.get_arguments() {
        bare = bare.arg(argument.clone());
    }
    if let Some(about) = command.get_about() {
        bare = bare.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        bare = bare.long_about(about.clone());
    }
    if let Some(after) = command.get_after_help() {
        bare = bare.after_help(after.clone());
    }
    if let Some(version) = command.get_version() {
        bare = bare.version(version.to_owned());
    }
    bare
}
