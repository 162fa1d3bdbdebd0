//! Real mail programs send to the receiver: what they put on the wire nobody here has thought up.
//!
//! `tests/install-peers` installs them; a missing one is a failure that says so.

mod exim;
mod postfix;
mod scripts;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

/// A program that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a program is.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let extra = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(extra)
        .map(|directory| directory.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed; run tests/install-peers"))
}

/// Runs a program to its end with this input; the test fails if it does.
async fn run(program: &Path, arguments: &[impl AsRef<OsStr>], input: &[u8]) -> Output {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let mut stdin = child.stdin.take().expect("a pipe");
    let (written, output) = tokio::join!(
        async {
            // A program that has heard enough closes its end.
            drop(stdin.write_all(input).await);
            drop(stdin);
        },
        timeout(PATIENCE, child.wait_with_output())
    );
    let () = written;
    let output = output.expect("it ends in time").expect("it runs");
    assert!(
        output.status.success(),
        "{} failed: {}{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The user id of an account.
fn account(name: &str) -> u32 {
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap();
    let prefix = format!("{name}:");
    let line = accounts.lines().find(|line| line.starts_with(&prefix));
    let line = line.unwrap_or_else(|| panic!("no user {name}; run tests/install-peers"));
    line.split(':').nth(2).unwrap().parse().unwrap()
}
