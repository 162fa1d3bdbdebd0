//! `certs`: the SMTP certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, chown};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use super::later::{self, Later};
use super::owner::Owner;
use super::{Context, Exit, Failure, Outcome, clock};
use crate::certs::{Identity, Pair};

/// Look after the SMTP certificate
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Names, end and trust of the certificate that the configuration names (the default)
    Status,
    /// Make a certificate that signs itself, for trials and for connectors that do not verify
    SelfSigned(SelfSigned),
    #[command(hide = true)]
    Issue(Later),
}

#[derive(Debug, Args)]
struct SelfSigned {
    /// The name in it; default: smtp.hostname
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// Write fullchain.pem and privkey.pem here; default: where smtp.certificate and smtp.private_key are
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// How long it is valid
    #[arg(long, value_name = "NUMBER", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: u32,
    /// Replace existing files
    #[arg(long)]
    force: bool,
}

pub(super) fn run(context: &mut Context, arguments: Arguments) -> Outcome {
    match arguments.command.unwrap_or(Command::Status) {
        Command::Status => status(context),
        Command::SelfSigned(arguments) => self_signed(context, &arguments),
        Command::Issue(_) => later::refuse("certs issue"),
    }
}

fn status(context: &mut Context) -> Outcome {
    let config = context.config()?;
    let (now, smtp) = (clock::now(), &config.smtp);
    let identity = Identity::load(&smtp.certificate, &smtp.private_key, now)
        .map_err(|error| Failure::new(Exit::Finding, error.to_string()))?;
    let trust = identity.check_public_trust(&smtp.hostname, now);
    let out = &mut context.out;
    if out.is_json() {
        out.document(&json!({
            "certificate": smtp.certificate,
            "names": identity.names,
            "not_before": identity.not_before,
            "not_after": identity.not_after,
            "days_left": identity.days_left(now),
            "covers_hostname": identity.covers(&smtp.hostname),
            "publicly_trusted": trust.is_ok(),
        }))?;
    } else {
        out.fact("certificate", smtp.certificate.display())?;
        out.fact("names", identity.names.join(" "))?;
        out.fact(
            "valid",
            format_args!("{} to {}", identity.not_before, identity.not_after),
        )?;
        out.fact("days left", identity.days_left(now))?;
        let trust = trust.map_or_else(|why| format!("not public: {why}"), |()| "public".into());
        out.fact("trust", trust)?;
    }
    Ok(Exit::Done)
}

fn self_signed(context: &mut Context, arguments: &SelfSigned) -> Outcome {
    let (certificate, private_key, hostname) = match (&arguments.out, &arguments.hostname) {
        (Some(directory), Some(name)) => (
            directory.join("fullchain.pem"),
            directory.join("privkey.pem"),
            name.clone(),
        ),
        (directory, name) => {
            let smtp = context.config()?.smtp;
            let name = name.clone().unwrap_or(smtp.hostname);
            match directory {
                Some(directory) => (
                    directory.join("fullchain.pem"),
                    directory.join("privkey.pem"),
                    name,
                ),
                None => (smtp.certificate, smtp.private_key, name),
            }
        }
    };
    for path in [&certificate, &private_key] {
        if path.exists() && !arguments.force {
            return Err(Failure::usage(format!(
                "{} exists; say --force to replace it",
                path.display()
            )));
        }
    }
    let pair = Pair::self_signed(&hostname, clock::now(), arguments.days)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let owner = context
        .config()
        .ok()
        .and_then(|config| Owner::under_root(&config.store.path));
    write(&private_key, &pair.private_key, 0o600, owner)?;
    write(&certificate, &pair.certificate, 0o644, owner)?;
    if context.out.is_json() {
        context.out.document(
            &json!({ "certificate": certificate, "private_key": private_key, "names": [hostname] }),
        )?;
    } else {
        context.out.line(certificate.display())?;
        context.out.line(private_key.display())?;
        match owner {
            Some(owner) => context.note(format!("they belong to user {}, as the data does", owner.name())),
            None if rustix::process::geteuid().is_root() => context.note(
                "they belong to root; if the service runs as another user, give them to it: chown clawback: FILE…",
            ),
            None => {}
        }
        context.note("nobody trusts this certificate: the connector must use \"any digital certificate, including self-signed\"");
    }
    Ok(Exit::Done)
}

/// Writes a file for its owner.
fn write(path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> Result<(), Failure> {
    replace(path, text, mode, owner).map_err(|error| {
        Failure::usage(format!(
            "{}: {error}; choose a place that this user may write",
            path.display()
        ))
    })
}

/// Writes a file beside its place and renames it, so that a running service never reads half of it.
fn replace(path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.exists());
    if let Some(directory) = directory {
        fs::create_dir_all(directory)?;
        give(directory, owner)?;
    }
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&beside)?;
    give(&beside, owner)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

/// Lets the service have what root made for it.
fn give(path: &Path, owner: Option<Owner>) -> io::Result<()> {
    match owner {
        Some(owner) => chown(path, Some(owner.uid), Some(owner.gid)),
        None => Ok(()),
    }
}
