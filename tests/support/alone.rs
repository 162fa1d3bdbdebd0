//! A process for one test, and all that it logs.
//!
//! The subscriber of logs, the metrics and the memory are of a process, not of a test. A subscriber that is set
//! for one thread while others run misses lines: `tracing` asks once for each place that logs whether anyone
//! listens, and may ask on the thread of another test, where nobody does.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// Names the test that a process was started for.
const TEST: &str = "CLAWBACK_TEST_ALONE";

/// Whether this process runs the test `name` and no other. If not, runs it in one that does, and fails when it
/// fails: the caller has nothing left to do.
pub(crate) fn alone(name: &str) -> bool {
    if std::env::var_os(TEST).is_some_and(|test| test == name) {
        return true;
    }
    let ended = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(TEST, name)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&ended.stdout);
    // A name that no test has runs none, with success.
    let passed = ended.status.success() && told.contains("test result: ok. 1 passed");
    let errors = String::from_utf8_lossy(&ended.stderr);
    assert!(passed, "{name} in its own process: {told}{errors}");
    false
}

/// All that a process logs from the start of this, on every thread and at every level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Begins to log. The test is [`alone`], and nothing of it runs yet.
    pub(crate) fn start() -> Self {
        let log = Self::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || writer.clone())
            .init();
        log
    }

    /// As it was written.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    /// Line by line.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let text = self.text();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        lines.collect()
    }
}

impl Write for Log {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
