//! A running service for the tests: the real binary with a configuration of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cli_command::{Ended, command, run};

/// How long a test waits for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// The tenant of the sample reports.
pub(crate) const TENANT: &str = r#"[[tenant]]
name = "northwind"
tenant_id = "9f8e7d6c-0000-4000-8000-000000000001"
domains = ["northwind.onmicrosoft.example", "northwind.example"]
peers = ["127.0.0.0/8"]
journal_address = ["k3v9@journal.example.com"]
"#;

/// A directory with a configuration and a certificate.
pub(crate) struct Site {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: PathBuf,
}

impl Site {
    /// Writes a configuration: ephemeral ports, everything below a directory of its own.
    pub(crate) fn new(more: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("clawback.toml");
        let text = format!(
            "[smtp]\nlisten = [\"127.0.0.1:0\"]\nhostname = \"localhost\"\n\
             [store]\npath = \"data\"\nretention = \"2 years\"\n[admin]\nsocket = \"admin.sock\"\n{more}"
        );
        fs::write(&config, text).unwrap();
        let site = Self { directory, config };
        let made = site.run(&["certs", "self-signed"]);
        assert_eq!(made.code, 0, "{}", made.stderr);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A command with this configuration.
    pub(crate) fn command(&self) -> Command {
        let mut command = command();
        command.arg("--config").arg(&self.config);
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.command().args(arguments).output().unwrap().into()
    }

    /// Starts the service and waits until it says so.
    pub(crate) fn serve(&self) -> Serving<'_> {
        let mut command = self.command();
        command.arg("serve");
        self.started(command)
    }

    /// The service that this command starts, once it says that it runs.
    pub(crate) fn started(&self, command: Command) -> Serving<'_> {
        match self.try_started(command) {
            Ok(serving) => serving,
            Err(EndedEarly { status, lines }) => panic!("{status} at the start: {lines:#?}"),
        }
    }

    /// As [`started`](Self::started), or how it ended before.
    pub(crate) fn try_started(&self, mut command: Command) -> Result<Serving<'_>, EndedEarly> {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut serving = Serving {
            site: self,
            child,
            lines,
            seen: Vec::new(),
            address: None,
        };
        let listening = serving.find("listening for journal reports");
        if let Some(line) = &listening
            && serving.find("started").is_some()
        {
            serving.address = Some(line["address"].as_str().unwrap().parse().unwrap());
            return Ok(serving);
        }
        let lines = std::mem::take(&mut serving.seen);
        let status = serving.end();
        Err(EndedEarly { status, lines })
    }
}

/// A service that ended before it ran: how, and what it had said.
#[derive(Debug)]
pub(crate) struct EndedEarly {
    pub(crate) status: ExitStatus,
    pub(crate) lines: Vec<Value>,
}

/// The service of a [`Site`]; killed if the test ends without stopping it.
pub(crate) struct Serving<'a> {
    site: &'a Site,
    child: Child,
    lines: Receiver<String>,
    seen: Vec<Value>,
    address: Option<SocketAddr>,
}

impl Serving<'_> {
    /// Where port 25 is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address.unwrap()
    }

    /// Waits for a line of the log with this message, and gives it.
    pub(crate) fn wait_for(&mut self, message: &str) -> Value {
        self.find(message).unwrap_or_else(|| {
            let seen = &self.seen;
            panic!("the service never said {message:?}, but: {seen:#?}");
        })
    }

    /// As [`wait_for`](Self::wait_for); `None` if the service ended before.
    fn find(&mut self, message: &str) -> Option<Value> {
        loop {
            let line = match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => line,
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let seen = &self.seen;
                    panic!("the service does not say {message:?}, but: {seen:#?}")
                }
            };
            let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| line.into());
            self.seen.push(value.clone());
            if says(&value, message) {
                return Some(value);
            }
        }
    }

    /// A line of the log that was there before what was waited for last.
    pub(crate) fn said(&self, message: &str) -> &Value {
        let line = self.seen.iter().find(|line| says(line, message));
        line.unwrap_or_else(|| panic!("the service never said {message:?}"))
    }

    /// What it has said and nobody has read.
    pub(crate) fn unread(&self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Waits until it has ended by itself, or was ended.
    pub(crate) fn end(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Stops it as systemd does.
    pub(crate) fn stop(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.child.wait().unwrap()
    }

    /// Runs a command against it.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.site.run(arguments)
    }
}

/// Whether a line of the log has this message.
fn says(line: &Value, message: &str) -> bool {
    let text = line["message"].as_str();
    text.is_some_and(|text| text.contains(message))
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and need not be.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of the samples.
pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/reports")
        .join(name)
}

/// What a sample says without a configuration.
pub(crate) fn parsed(name: &str) -> Value {
    let path = sample(name);
    run(&["parse".as_ref(), "--json".as_ref(), path.as_os_str()])
        .documents()
        .remove(0)
}

/// Reports of [`TENANT`].
pub(crate) const SAMPLES: [&str; 5] = [
    "01_inbound.eml",
    "02_internal_to_cc_bcc.eml",
    "03_group_and_forwarding.eml",
    "04_on_behalf_of_utf8.eml",
    "05_protected_two_attachments.eml",
];

/// Imports [`SAMPLES`]; the counts.
pub(crate) fn imported(site: &Site) -> Value {
    let paths: Vec<String> = SAMPLES
        .iter()
        .map(|name| sample(name).display().to_string())
        .collect();
    let mut arguments = vec!["--tenant", "northwind", "--json", "import"];
    arguments.extend(paths.iter().map(String::as_str));
    let ended = site.run(&arguments);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    ended.documents().remove(0)
}

/// Changes the configuration.
pub(crate) fn change(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(&site.config).unwrap();
    assert!(text.contains(from));
    fs::write(&site.config, text.replace(from, to)).unwrap();
}
