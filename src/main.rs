//! The command line: parse, run, turn the error into an exit code; nothing else.

use std::process::ExitCode;

fn main() -> ExitCode {
    clawback::cli::main()
}
