//! What the demo plays on: a simulated tenant, a directory, and the service with a configuration.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clawback_tenant::{Company, SmartHost, Statistics, Story, Tenant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::certs::Authority;
use crate::cli::service::Running;
use crate::cli::{Exit, Failure, clock};
use crate::config::Config;

/// People of the company.
const PEOPLE: usize = 120;
/// Days over which its mail is spread.
const DAYS: i64 = 20;
/// Every run is the same story.
const SEED: u64 = 8841;
/// Sessions that journal at one time.
const CONNECTIONS: usize = 8;

/// Everything that runs.
pub(super) struct Stage {
    company: Company,
    tenant: Tenant,
    running: Running,
    directory: PathBuf,
    /// Removed at the end, unless the directory is kept.
    temporary: Option<TempDir>,
    journal_address: String,
    /// Whom the connector trusts.
    ca_pem: String,
}

/// What the tenant's own mailboxes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// Mailboxes that were looked into.
    pub(super) mailboxes: usize,
    /// Copies of the phish that their readers can open.
    pub(super) within_reach: usize,
    /// Copies of the phish that only "Recover deleted items" shows.
    pub(super) recoverable: usize,
    /// Copies of the message with the same subject, within reach.
    pub(super) decoys: usize,
}

impl Stage {
    /// Sets everything up and starts the service.
    pub(super) fn set(runtime: &Runtime, keep: Option<&Path>) -> Result<Self, Failure> {
        let (directory, temporary) = directory(keep)?;
        let company = Company::new(SEED, PEOPLE, DAYS, clock::now());
        let tenant = runtime
            .block_on(Tenant::start(company.settings()))
            .map_err(|error| refused(&error))?;
        let authority =
            Authority::new("clawback demo", clock::now(), 30).map_err(|error| refused(&error))?;
        let journal_address = format!("{}@localhost", uuid::Uuid::new_v4().simple());
        let config = directory.join("clawback.toml");
        write(
            &directory,
            &authority,
            &tenant,
            &configuration(&tenant, &company, &journal_address),
        )?;
        let running = runtime.block_on(Running::start(Config::load(&config)?))?;
        Ok(Self {
            company,
            tenant,
            running,
            directory,
            temporary,
            journal_address,
            ca_pem: authority.certificate(),
        })
    }

    /// Delivers the company's mail and journals it; returns once every report was acknowledged.
    pub(super) fn play(
        &self,
        runtime: &Runtime,
        messages: u32,
    ) -> Result<(Story, Statistics), Failure> {
        let _runtime = runtime.enter();
        let mut host = SmartHost::new(self.address(), &self.ca_pem, &self.journal_address);
        host.connections = CONNECTIONS;
        let connector = self
            .tenant
            .connector(host)
            .map_err(|error| refused(&error))?;
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        let story = self.tenant.play(&self.company, messages);
        let statistics = runtime.block_on(async {
            connector.drain().await;
            let statistics = connector.statistics();
            connector.stop().await;
            statistics
        });
        match statistics.refused {
            0 => Ok((story, statistics)),
            refused => Err(Failure::new(
                Exit::Finding,
                format!(
                    "{refused} reports were refused: {}",
                    statistics.last_failure.unwrap_or_default()
                ),
            )),
        }
    }

    /// Looks into the tenant's own mailboxes, past clawback.
    pub(super) fn count(&self, story: &Story) -> Counted {
        let decoy = self.company.decoy().message_id.unwrap_or_default();
        let addresses = self.tenant.addresses();
        let mut counted = Counted {
            mailboxes: addresses.len(),
            within_reach: 0,
            recoverable: 0,
            decoys: 0,
        };
        for mailbox in addresses
            .iter()
            .filter_map(|address| self.tenant.mailbox(address))
        {
            for copy in mailbox.copies(&story.phish.message_id) {
                match copy.folder.as_str() {
                    "recoverableitemsdeletions" => counted.recoverable += 1,
                    "recoverableitemspurges" => {}
                    _ => counted.within_reach += 1,
                }
            }
            let decoys = mailbox.copies(&decoy).into_iter();
            counted.decoys += decoys
                .filter(|copy| !copy.folder.starts_with("recoverable"))
                .count();
        }
        counted
    }

    /// Stops the service. What is not kept is removed.
    pub(super) fn clear(self, runtime: &Runtime) -> Result<(), Failure> {
        runtime.block_on(self.running.stop());
        if let Some(temporary) = self.temporary {
            let path = temporary.path().to_path_buf();
            temporary.close().map_err(|error| {
                Failure::usage(format!("{}: {error}; remove it by hand", path.display()))
            })?;
        }
        Ok(())
    }

    pub(super) fn tenant(&self) -> &Tenant {
        &self.tenant
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.join("admin.sock")
    }

    /// Where the receiver listens.
    pub(super) fn address(&self) -> SocketAddr {
        let first = self.running.addresses().first().copied();
        first.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into())
    }
}

/// An empty directory: the one to keep, or one that goes away.
fn directory(keep: Option<&Path>) -> Result<(PathBuf, Option<TempDir>), Failure> {
    let Some(keep) = keep else {
        let temporary = tempfile::Builder::new()
            .prefix("clawback-demo-")
            .tempdir()
            .map_err(|error| refused(&error))?;
        return Ok((temporary.path().to_path_buf(), Some(temporary)));
    };
    let failed = |error: std::io::Error| Failure::usage(format!("{}: {error}", keep.display()));
    fs::create_dir_all(keep).map_err(failed)?;
    if fs::read_dir(keep).map_err(failed)?.next().is_some() {
        return Err(Failure::usage(format!(
            "{} is not empty; name a new directory",
            keep.display()
        )));
    }
    Ok((fs::canonicalize(keep).map_err(failed)?, None))
}

/// The configuration; it is complete, so that what is kept can be served again.
fn configuration(tenant: &Tenant, company: &Company, journal_address: &str) -> String {
    let domains: Vec<String> = company
        .settings()
        .domains
        .iter()
        .map(|domain| format!("{domain:?}"))
        .collect();
    format!(
        "# Written by clawback demo. The simulated tenant ends with the demo, the data stays.\n\
         [smtp]\nlisten = [\"127.0.0.1:0\"]\nhostname = \"localhost\"\n\
         certificate = \"fullchain.pem\"\nprivate_key = \"privkey.pem\"\n\n\
         [store]\npath = \"data\"\n\n\
         [admin]\nsocket = \"admin.sock\"\nviewers = []\noperators = []\n\n\
         [[tenant]]\nname = \"northwind\"\ntenant_id = {:?}\ndomains = [{}]\n\
         client_id = {:?}\nclient_secret_file = \"northwind.secret\"\n\
         peers = [\"127.0.0.0/8\"]\njournal_address = [{journal_address:?}]\n\
         graph_url = {:?}\nlogin_url = {:?}\nca_file = \"graph-ca.pem\"\n",
        tenant.tenant_id(),
        domains.join(", "),
        tenant.client_id(),
        tenant.graph_url(),
        tenant.login_url(),
    )
}

fn write(
    directory: &Path,
    authority: &Authority,
    tenant: &Tenant,
    configuration: &str,
) -> Result<(), Failure> {
    let pair = authority
        .issue("localhost", clock::now(), 30)
        .map_err(|error| refused(&error))?;
    for (name, text) in [
        ("clawback.toml", configuration),
        ("fullchain.pem", pair.certificate.as_str()),
        ("privkey.pem", pair.private_key.as_str()),
        ("northwind.secret", tenant.client_secret()),
        ("graph-ca.pem", tenant.ca_pem()),
    ] {
        let path = directory.join(name);
        crate::segment::write_file_durable(&path, text.as_bytes())
            .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
    }
    Ok(())
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(error.to_string())
}
