//! Commands and options that a later version brings: known, refused plainly, not in the help.

use std::ffi::OsString;

use clap::Args;

use super::{Failure, Outcome};

/// Whatever follows such a command.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(super) struct Later {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    rest: Vec<OsString>,
}

/// The answer to a command or option of a later version.
pub(super) fn refuse(name: &str) -> Outcome {
    Err(refusal(name))
}

/// Like [`refuse`], as a failure.
pub(super) fn refusal(name: &str) -> Failure {
    Failure::usage(format!(
        "{name} comes with a later version; this one does not have it"
    ))
}
