//! Runs the real binary and looks at what it prints and how it ends.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

/// The binary, without anything of the caller's environment that it would read.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clawback"));
    for name in [
        "CLAWBACK_CONFIG",
        "CREDENTIALS_DIRECTORY",
        "NO_COLOR",
        "NOTIFY_SOCKET",
    ] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// What a command printed, and its exit code.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).expect("UTF-8 alone"),
            stderr: String::from_utf8(output.stderr).expect("UTF-8 alone"),
        }
    }
}

impl Ended {
    /// The documents of `--json`, one a line.
    pub(crate) fn documents(&self) -> Vec<serde_json::Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }
}

/// Runs it to its end.
pub(crate) fn run<A: AsRef<OsStr>>(arguments: &[A]) -> Ended {
    command().args(arguments).output().unwrap().into()
}
