//! `parse`: what the receiver would make of journal reports, offline.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::output::{Output, Tone};
use super::{Context, Exit, Outcome, complain};
use crate::journal::{self, Kind, Limits, Report, Scanner};

/// Octets read at a time.
const CHUNK: usize = 1 << 16;

/// Parse journal reports with the receiver's own parser
///
/// Needs neither the service nor a configuration. Exit 1 if one is no readable journal report.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Files with one message each; "-" is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) fn run(context: &mut Context, arguments: &Arguments) -> Outcome {
    let mut exit = Exit::Done;
    for (number, path) in arguments.files.iter().enumerate() {
        let report = match scan(path) {
            Ok(report) => report,
            Err(error) => {
                complain(&format!("{}: {error}", path.display()));
                exit = Exit::Usage;
                continue;
            }
        };
        if report.kind != Kind::Report && exit == Exit::Done {
            exit = Exit::Finding;
        }
        if context.out.is_json() {
            let mut document = journal::json(&report);
            document["file"] = path.to_string_lossy().into();
            context.out.document(&document)?;
        } else {
            if number > 0 {
                context.out.line("")?;
            }
            print(&mut context.out, path, &report)?;
        }
    }
    Ok(exit)
}

fn scan(path: &Path) -> io::Result<Report> {
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path)?)
    };
    let mut scanner = Scanner::new(Limits::default());
    let mut chunk = vec![0; CHUNK];
    loop {
        match input.read(&mut chunk) {
            Ok(0) => return Ok(scanner.finish()),
            Ok(length) => scanner.handle_octets(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn print(out: &mut Output, path: &Path, report: &Report) -> io::Result<()> {
    let (word, tone) = match report.kind {
        Kind::Report => ("journal report", Tone::Good),
        Kind::NotReport => ("no journal report", Tone::Warning),
        Kind::Malformed => ("journal report that cannot be read", Tone::Bad),
    };
    let word = out.toned(word, tone);
    let name = path.display().to_string();
    out.line(format_args!("{}: {word}", crate::escape::plain(&name)))?;
    let document = journal::json(report);
    super::show::envelope(out, &document)?;
    Ok(())
}
