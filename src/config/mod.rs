//! The configuration file: one struct a section, all defaults here.
//!
//! In comes a TOML file, out goes a [`Config`] whose every value was checked, or a [`ConfigError`]
//! with *all* problems, each with file, line, column and mend. Unknown keys are refused with the
//! nearest known one. Secrets are never in the file: a key names the file that holds one, and the
//! directory of systemd credentials is searched first. Whether those files exist is not looked at
//! here; that is the business of whoever opens them, and of `check`.

mod reader;
mod secret;
mod sections;
mod tenant;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use crate::journal::Limits;

pub use reader::Problem;
pub use secret::{Secret, SecretError, located};
pub use tenant::{Cloud, Credential, Journal, Tenant};
pub use value::{Peer, Size, Span, exchange_online};

use reader::Reader;
use value::is_host_name;

/// Where the configuration is looked for when nothing says otherwise.
pub const DEFAULT_PATH: &str = "/etc/clawback/clawback.toml";

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[smtp]`
    pub smtp: Smtp,
    /// `[store]`
    pub store: Store,
    /// `[admin]`
    pub admin: Admin,
    /// `[retraction]`
    pub retraction: Retraction,
    /// `[auto_retraction]`
    pub auto_retraction: AutoRetraction,
    /// `[network]`
    pub network: Network,
    /// `[[tenant]]`
    pub tenants: Vec<Tenant>,
    /// The file that this was read from; empty for defaults.
    pub path: PathBuf,
    /// What is allowed but probably not meant.
    pub warnings: Vec<Problem>,
    /// Line and column of each value that the file gives: `smtp.listen`, `tenant.contoso.peers`.
    positions: BTreeMap<String, (usize, usize)>,
}

/// `[smtp]`: the receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Smtp {
    /// Addresses to listen on, unless systemd passes sockets.
    pub listen: Vec<SocketAddr>,
    /// The name in the banner and in replies; the system's own unless set.
    pub hostname: String,
    /// Whether MAIL before STARTTLS is refused (530 5.7.0).
    pub tls: Tls,
    /// Certificate chain, PEM; reloaded when the file changes.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub private_key: PathBuf,
    /// Largest message, announced as SIZE (RFC 1870).
    pub max_message: Size,
    /// A report with more recipients is quarantined whole.
    pub max_recipients_per_report: u64,
    /// Sessions at one time; at 80 % the oldest ones without a transaction are closed (421).
    pub max_connections: usize,
    /// Sessions at one time from one address.
    pub max_connections_per_peer: usize,
    /// RCPTs in one transaction, repeats counted; then 452 4.5.3.
    pub max_recipients: usize,
    /// Errors in one session, a refused RCPT counted; then 421.
    pub max_errors: usize,
    /// Silence after which a session is closed (421).
    pub idle_timeout: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
    /// Memory of all sessions together; beyond it new DATA gets 452.
    pub max_memory: Size,
}

/// When TLS is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// No mail without STARTTLS.
    Required,
    /// Mail in the clear is taken too.
    Optional,
}

/// `[store]`: what is kept, where and how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Store {
    /// The data directory: `log/ index/ state/ audit/ quarantine/`.
    pub path: PathBuf,
    /// The key of audit chain, quarantine and index; made (0600) at the first start.
    pub key_file: PathBuf,
    /// How long a report is found.
    pub retention: Duration,
    /// Room for the quarantine; when it is full, mail that belongs there gets 452.
    pub quarantine: Size,
    /// How long the quarantine keeps a message.
    pub quarantine_retention: Duration,
    /// How long the audit log is kept.
    pub audit_retention: Duration,
}

/// `[admin]`: who may command the service, and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// The Unix socket that the commands use.
    pub socket: PathBuf,
    /// Unix groups that may look.
    pub viewers: Vec<String>,
    /// Unix groups that may look and act.
    pub operators: Vec<String>,
    /// Unix groups that may approve what needs a second person.
    pub approvers: Vec<String>,
    /// Where `GET /metrics`, `/healthz` and `/readyz` are answered; nowhere unless set.
    pub metrics: Option<SocketAddr>,
}

/// `[retraction]`: limits of retraction jobs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retraction {
    /// A job of more copies waits for approval.
    pub max_copies_without_approval: u64,
    /// Whether a hard delete waits for approval.
    pub hard_delete_needs_approval: bool,
    /// Whether the one who approves must be another than the one who asked.
    pub two_person: bool,
    /// Items of all jobs that are worked on at one time.
    pub concurrency: usize,
    /// How long a job goes on looking for late copies.
    pub watch: Duration,
}

/// `[auto_retraction]`: what a verdict does by itself. Nothing but `observe` exists in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoRetraction {
    /// Whether verdicts act.
    pub mode: AutoMode,
}

/// `auto_retraction.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AutoMode {
    /// Verdicts are recorded; nothing is retracted by itself.
    Observe,
    /// Verdicts retract.
    Act,
}

/// `[network]`: the way to Microsoft Graph.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// HTTP proxy; `HTTPS_PROXY` and `NO_PROXY` are honoured too.
    pub proxy: Option<Url>,
    /// Certificate authorities to trust beside the system's, PEM.
    pub ca_file: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        let base = Path::new(DEFAULT_PATH)
            .parent()
            .unwrap_or_else(|| Path::new("/"));
        Self {
            smtp: Smtp::defaults(base),
            store: Store::defaults(base),
            admin: Admin::default(),
            retraction: Retraction::default(),
            auto_retraction: AutoRetraction::default(),
            network: Network::default(),
            tenants: Vec::new(),
            path: PathBuf::new(),
            warnings: Vec::new(),
            positions: BTreeMap::new(),
        }
    }
}

impl Smtp {
    /// The defaults, with relative paths beside the configuration file in `base`.
    fn defaults(base: &Path) -> Self {
        Self {
            listen: vec![SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 25))],
            hostname: system_name(),
            tls: Tls::Required,
            certificate: base.join("certs/fullchain.pem"),
            private_key: base.join("certs/privkey.pem"),
            max_message: Size::mib(200),
            max_recipients_per_report: 100_000,
            max_connections: 1000,
            max_connections_per_peer: 200,
            max_recipients: 1000,
            max_errors: 10,
            idle_timeout: Duration::from_mins(5),
            handshake_timeout: Duration::from_secs(30),
            max_memory: Size::mib(256),
        }
    }
}

impl Store {
    fn defaults(base: &Path) -> Self {
        Self {
            path: PathBuf::from("/var/lib/clawback"),
            key_file: base.join("store.key"),
            retention: DAY * 90,
            quarantine: Size::mib(1024),
            quarantine_retention: DAY * 30,
            audit_retention: DAY * 730,
        }
    }
}

/// 24 hours.
const DAY: Duration = Duration::from_hours(24);

impl Default for Admin {
    fn default() -> Self {
        Self {
            socket: PathBuf::from("/run/clawback/admin.sock"),
            viewers: vec!["clawback".into()],
            operators: vec!["clawback".into()],
            approvers: Vec::new(),
            metrics: None,
        }
    }
}

impl Default for Retraction {
    fn default() -> Self {
        Self {
            max_copies_without_approval: 5000,
            hard_delete_needs_approval: true,
            two_person: true,
            concurrency: 64,
            watch: DAY,
        }
    }
}

impl Default for AutoRetraction {
    fn default() -> Self {
        Self {
            mode: AutoMode::Observe,
        }
    }
}

/// The host's name, for the SMTP banner.
fn system_name() -> String {
    let name = rustix::system::uname();
    let name = name.nodename().to_string_lossy().into_owned();
    if is_host_name(&name) {
        name
    } else {
        "localhost".into()
    }
}

/// A configuration that cannot be used: every problem of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.problems.iter().enumerate() {
            if number > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl Config {
    /// What a report may hold at most.
    pub fn journal_limits(&self) -> Limits {
        Limits {
            max_recipients: self.smtp.max_recipients_per_report,
            ..Limits::default()
        }
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem found; a file that cannot be read is one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) => {
                let mend = match error.kind() {
                    std::io::ErrorKind::NotFound => {
                        "name the file with --config or CLAWBACK_CONFIG, or write it"
                    }
                    std::io::ErrorKind::InvalidData => "save it as UTF-8",
                    _ => "make it readable for this user",
                };
                Err(ConfigError {
                    problems: vec![Problem {
                        path: path.to_path_buf(),
                        line: 0,
                        column: 0,
                        what: format!("the configuration cannot be read: {error}"),
                        mend: mend.into(),
                    }],
                })
            }
        }
    }

    /// Reads the text of a configuration file; `path` is named in problems, and relative paths are
    /// relative to its directory.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] with every problem found.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut reader = Reader::new(path, text);
        let config = Self::read(&mut reader, path);
        if reader.problems.is_empty() {
            Ok(Self {
                warnings: reader.warnings,
                positions: reader.positions,
                ..config
            })
        } else {
            let mut problems = reader.problems;
            problems.sort_by_key(|problem| (problem.line, problem.column));
            Err(ConfigError { problems })
        }
    }

    /// The tenant of that name.
    pub fn tenant(&self, name: &str) -> Option<&Tenant> {
        self.tenants
            .iter()
            .find(|tenant| tenant.name.as_str() == name)
    }

    /// Line and column of a value, such as `smtp.certificate` or `tenant.contoso.ca_file`, if the
    /// file gives it.
    pub fn position(&self, key: &str) -> Option<(usize, usize)> {
        self.positions.get(key).copied()
    }

    /// A problem with the value of a key: the file is named, and the place if it gives the key.
    pub fn problem(&self, key: &str, what: impl Into<String>, mend: impl Into<String>) -> Problem {
        let (line, column) = self.position(key).unwrap_or_default();
        Problem {
            path: self.path.clone(),
            line,
            column,
            what: format!("{key}: {}", what.into()),
            mend: mend.into(),
        }
    }

    /// Every key that a file may have, as `section.key`.
    pub fn known_keys() -> Vec<String> {
        let text = "[[tenant]]\n[[tenant.journal]]\n";
        let mut reader = Reader::new(Path::new(""), text);
        Self::read(&mut reader, Path::new(""));
        reader.known.retain(|key| !key.starts_with('.'));
        reader.known
    }

    fn read(reader: &mut Reader<'_>, path: &Path) -> Self {
        let base = path.parent().unwrap_or_else(|| Path::new(""));
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
        let mut config = Self {
            smtp: Smtp::defaults(&base),
            store: Store::defaults(&base),
            path: path.to_path_buf(),
            ..Self::default()
        };
        let Some(root) = reader.root() else {
            return config;
        };
        let mut top = reader.section("", root.get_ref(), 0..0);
        config.smtp.read(top.table("smtp"));
        config.store.read(top.table("store"));
        config.admin.read(top.table("admin"));
        config.retraction.read(top.table("retraction"));
        config.auto_retraction.read(top.table("auto_retraction"));
        config.network.read(top.table("network"));
        config.tenants = tenant::read_all(&mut top);
        top.finish();
        config
    }
}
