//! The question before something that cannot simply be taken back.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use super::{Context, Failure};
use crate::escape;

/// Asks on the terminal unless `yes`.
///
/// # Errors
///
/// The answer was no, or there is nobody to ask: exit 2.
pub(super) fn ask(_context: &Context, question: &str, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!(
            "{question} There is no terminal to ask on; say --yes if it is meant"
        )));
    }
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{} [y/N] ", escape::plain(question));
    let _ = stderr.flush();
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(|error| Failure::usage(format!("the answer cannot be read: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::usage("not confirmed; nothing was done")),
    }
}
