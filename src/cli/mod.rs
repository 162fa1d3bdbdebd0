//! The command line: one file a command, one place for exit codes and global options.
//!
//! Standard output carries data alone, one JSON document a line with `--json`; messages go to
//! standard error. A reader that goes away ends the command quietly.

mod audit;
mod carried;
mod certs;
mod check;
mod client;
mod clock;
mod confirm;
mod demo;
mod documents;
mod import;
mod jobs;
mod later;
mod message;
mod output;
mod owner;
mod parse;
mod progress;
mod quarantine;
mod reload;
mod retract;
mod search;
mod serve;
mod service;
mod show;
mod sources;
mod status;
mod store;
mod upkeep;
mod when;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, ConfigError, DEFAULT_PATH};
use crate::escape;
use client::Client;
use later::Later;
use output::Output;

/// What a command's exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// Nothing matched; a finding; a report not parsed; or a job that ended with copies not where
    /// they were asked to be.
    Finding = 1,
    /// Usage, configuration, a refused start of `serve`, or a refused confirmation.
    Usage = 2,
    /// The service cannot be reached.
    Unreachable = 3,
    /// Refused by policy: authority, limits, a hold, approval needed.
    Policy = 4,
    /// Microsoft Graph refused: credentials, permission.
    Graph = 5,
}

impl Exit {
    /// The exit code of this number, as the service gives it; unknown ones are usage errors.
    pub const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Done,
            1 => Self::Finding,
            3 => Self::Unreachable,
            4 => Self::Policy,
            5 => Self::Graph,
            _ => Self::Usage,
        }
    }
}

/// Why a command ends early.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    /// For standard error; empty says nothing.
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // Whoever read the output has seen enough.
            return Self::new(Exit::Done, "");
        }
        Self::usage(format!("standard output: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::from(io::Error::from(error))
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

/// How a command ends.
type Outcome = Result<Exit, Failure>;

/// Takes delivered mail back.
///
/// clawback indexes the journal reports that Exchange Online sends over SMTP, and when a message
/// turns out to be bad, finds each copy through Microsoft Graph, moves it out of reach and proves it.
#[derive(Debug, Parser)]
#[command(
    name = "clawback",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
#[command(
    after_help = "Exit codes: 0 done; 1 nothing matched or a finding; 2 usage or configuration; \
    3 service not reached; 4 refused by policy; 5 Microsoft Graph refused."
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
struct Global {
    /// The configuration file
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "CLAWBACK_CONFIG",
        hide_env_values = true
    )]
    #[arg(default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// The tenant meant, by its name in the configuration
    #[arg(long, global = true, value_name = "NAME")]
    tenant: Option<String>,
    /// One JSON document a line
    #[arg(long, global = true)]
    json: bool,
    /// Errors alone on standard error
    #[arg(long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// More on standard error; twice: still more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Arguments),
    Demo(demo::Arguments),
    Check(check::Arguments),
    Parse(parse::Arguments),
    Import(import::Arguments),
    Search(search::Arguments),
    Show(show::Arguments),
    Retract(retract::Arguments),
    Jobs(jobs::Arguments),
    Quarantine(quarantine::Arguments),
    Status(status::Arguments),
    Store(store::Arguments),
    Audit(audit::Arguments),
    Certs(certs::Arguments),
    Completions(documents::CompletionsArguments),
    Man(documents::ManArguments),
    #[command(hide = true)]
    Doctor(Later),
    #[command(hide = true)]
    Holds(Later),
    #[command(hide = true)]
    Verdict(Later),
    #[command(hide = true)]
    Policy(Later),
    #[command(hide = true)]
    Setup(Later),
    #[command(hide = true)]
    Tenants(Later),
    #[command(hide = true)]
    Domains(Later),
    #[command(hide = true)]
    Authorize(Later),
    #[command(hide = true)]
    Directory(Later),
    #[command(hide = true)]
    Tokens(Later),
}

/// What a command has at hand.
struct Context {
    global: Global,
    out: Output,
}

impl Context {
    /// The configuration.
    fn config(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.global.config)?)
    }

    /// A client of the running service.
    ///
    /// Without a configuration file in the default place the default socket is tried: whoever may
    /// use the socket need not be allowed to read the file.
    fn client(&self) -> Result<Client, Failure> {
        let default = self.global.config.as_os_str() == DEFAULT_PATH;
        let socket = if default && std::fs::File::open(&self.global.config).is_err() {
            Config::default().admin.socket
        } else {
            self.config()?.admin.socket
        };
        Client::new(socket, self.global.tenant.clone())
    }

    /// A message for people, unless `--quiet`.
    fn note(&self, message: impl AsRef<str>) {
        if !self.global.quiet {
            complain(message.as_ref());
        }
    }
}

/// Writes a line to standard error; if nobody reads it, nothing is lost.
fn complain(message: &str) {
    let mut stderr = io::stderr().lock();
    for line in message.lines() {
        let _ = writeln!(stderr, "clawback: {}", escape::plain(line));
    }
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let exit = match Cli::try_parse_from(std::env::args_os()) {
        Ok(cli) => run(cli),
        Err(error) => {
            // Help and version are printed to standard output, and are no error.
            let _ = error.print();
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
        }
    };
    ExitCode::from(exit as u8)
}

fn run(cli: Cli) -> Exit {
    let mut context = Context {
        out: Output::new(cli.global.json),
        global: cli.global,
    };
    let outcome = dispatch(&mut context, cli.command)
        .and_then(|exit| context.out.flush().map(|()| exit).map_err(Failure::from));
    match outcome {
        Ok(exit) => exit,
        Err(failure) => {
            if failure.exit != Exit::Done {
                // What was found before the failure is still worth seeing.
                let _ = context.out.flush();
            }
            complain(&failure.message);
            failure.exit
        }
    }
}

fn dispatch(context: &mut Context, command: Command) -> Outcome {
    match command {
        Command::Serve(arguments) => serve::run(context, &arguments),
        Command::Demo(arguments) => demo::run(context, &arguments),
        Command::Check(arguments) => check::run(context, &arguments),
        Command::Parse(arguments) => parse::run(context, &arguments),
        Command::Import(arguments) => import::run(context, &arguments),
        Command::Search(arguments) => search::run(context, &arguments),
        Command::Show(arguments) => show::run(context, &arguments),
        Command::Retract(arguments) => retract::run(context, &arguments),
        Command::Jobs(arguments) => jobs::run(context, arguments),
        Command::Quarantine(arguments) => quarantine::run(context, arguments),
        Command::Status(arguments) => status::run(context, &arguments),
        Command::Store(arguments) => store::run(context, arguments),
        Command::Audit(arguments) => audit::run(context, arguments),
        Command::Certs(arguments) => certs::run(context, arguments),
        Command::Completions(arguments) => documents::completions(context, &arguments),
        Command::Man(arguments) => documents::man(context, &arguments),
        Command::Doctor(_) => later::refuse("doctor"),
        Command::Holds(_) => later::refuse("holds"),
        Command::Verdict(_) => later::refuse("verdict"),
        Command::Policy(_) => later::refuse("policy"),
        Command::Setup(_) => later::refuse("setup"),
        Command::Tenants(_) => later::refuse("tenants"),
        Command::Domains(_) => later::refuse("domains"),
        Command::Authorize(_) => later::refuse("authorize"),
        Command::Directory(_) => later::refuse("directory"),
        Command::Tokens(_) => later::refuse("tokens"),
    }
}

/// The definition that completions and manual pages are made from.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_holds_together() {
        definition().debug_assert();
    }
}
