//! A simulated tenant whose reports are in a store, and a worker that retracts from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clawback::audit::{self, Audit, Recorded};
use clawback::config::Config;
use clawback::graph::pace::Backoff;
use clawback::index::{NewReport, Options, Store};
use clawback::journal;
use clawback::key::StoreKey;
use clawback::mail::{MessageId, RecordId, TenantName};
use clawback::retract::Action;
use clawback::retract::job::{By, Timing};
use clawback::state::jobs::Jobs;
use clawback::state::log::StateLog;
use clawback::worker::{Request, Started, Worker};
use clawback_tenant::{Delivered, Mail, Settings, Tenant};
use serde_json::Value;
use tempfile::TempDir;

/// A tenant named `contoso`, and everything that retracts from it.
pub(crate) struct Bench {
    pub(crate) tenant: Tenant,
    pub(crate) store: Store,
    pub(crate) root: TempDir,
    /// Keys of `[retraction]` beside the defaults.
    pub(crate) retraction: &'static str,
}

/// Fast waits: the simulated tenant never needs long ones.
pub(crate) fn timing() -> Timing {
    Timing {
        backoff: Backoff {
            first: Duration::from_millis(10),
            longest: Duration::from_millis(100),
        },
        watch: Duration::ZERO,
        ..Timing::default()
    }
}

fn now() -> jiff::Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the simulated tenant lives now")]
    jiff::Timestamp::now()
}

pub(crate) fn open_store(root: &Path) -> Store {
    let key = key(root);
    Store::open(Options::new(root.join("data"), key)).unwrap()
}

fn key(root: &Path) -> StoreKey {
    let path = root.join("store.key");
    StoreKey::load(&path)
        .or_else(|_| StoreKey::create(&path))
        .unwrap()
}

/// The `[[tenant]]` of a simulated tenant; its files are in `root`.
pub(crate) fn tenant_section(tenant: &Tenant, name: &str, root: &Path) -> String {
    let path = |what: &str| root.join(format!("{name}.{what}"));
    std::fs::write(path("secret"), tenant.client_secret()).unwrap();
    std::fs::write(path("pem"), tenant.ca_pem()).unwrap();
    format!(
        "[[tenant]]\nname = \"{name}\"\ntenant_id = \"{}\"\ndomains = [\"contoso.example\", \"{}\"]\n\
         client_id = \"{}\"\nclient_secret_file = \"{name}.secret\"\nca_file = \"{name}.pem\"\n\
         journal_address = [\"{name}-k3v9@journal.example\"]\ngraph_url = \"{}\"\nlogin_url = \"{}\"\n",
        tenant.tenant_id(),
        tenant.initial_domain(),
        tenant.client_id(),
        tenant.graph_url(),
        tenant.login_url(),
    )
}

/// Reads a configuration that has what it must have, and these sections.
pub(crate) fn config(root: &Path, sections: &str) -> Arc<Config> {
    let path = root.join("clawback.toml");
    let text = format!(
        "[smtp]\nhostname = \"journal.example\"\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\n\
         [store]\npath = \"data\"\n{sections}"
    );
    Arc::new(Config::parse(&text, &path).unwrap())
}

impl Bench {
    pub(crate) async fn new(settings: Settings) -> Self {
        let root = tempfile::tempdir().unwrap();
        Self {
            tenant: Tenant::start(settings).await.unwrap(),
            store: open_store(root.path()),
            root,
            retraction: "",
        }
    }

    pub(crate) async fn with_users(users: &[&str]) -> Self {
        Self::new(Settings::with_users(users)).await
    }

    pub(crate) fn worker(&self) -> Worker {
        self.worker_with(timing())
    }

    pub(crate) fn worker_with(&self, timing: Timing) -> Worker {
        self.worker_of(self.config(), timing)
    }

    /// A worker whose configuration has no tenant.
    pub(crate) fn worker_without_tenant(&self) -> Worker {
        self.worker_of(config(self.root.path(), ""), timing())
    }

    pub(crate) fn config(&self) -> Arc<Config> {
        let root = self.root.path();
        let section = tenant_section(&self.tenant, "contoso", root);
        config(
            root,
            &format!("[retraction]\n{}\n{section}", self.retraction),
        )
    }

    fn worker_of(&self, config: Arc<Config>, timing: Timing) -> Worker {
        let root = self.root.path();
        let state = StateLog::<Jobs>::open(&self.state()).unwrap();
        let audit = Arc::new(Audit::open(&root.join("audit"), &key(root)).unwrap());
        Worker::start_with(config, self.store.clone(), state, audit, timing)
    }

    fn state(&self) -> PathBuf {
        self.root.path().join("state")
    }

    /// Delivers a message and takes its reports into the store.
    pub(crate) async fn deliver(&self, mail: &Mail) -> (Delivered, RecordId) {
        let delivered = self.tenant.deliver(mail);
        store_reports(&self.tenant, "contoso", &self.store).await;
        let id = MessageId::new(&delivered.message_id).unwrap();
        let records = self
            .store
            .by_message_id(Some(&TenantName::new("contoso")), &id)
            .unwrap();
        (delivered, records.first().unwrap().id)
    }

    /// Retracts and waits; the document.
    pub(crate) async fn retract(&self, worker: &Worker, record: RecordId, action: Action) -> Value {
        match worker.retract(request(record, action)).await.unwrap() {
            Started::Job { id, .. } => worker.wait(&id).await.unwrap(),
            Started::Plan(_) => unreachable!("no dry run was asked for"),
        }
    }

    /// The folders of all copies in a mailbox.
    pub(crate) fn folders(&self, address: &str, message_id: &str) -> Vec<String> {
        let view = self.tenant.mailbox(address).unwrap();
        let copies = view.copies(message_id).into_iter();
        copies.map(|copy| copy.folder.clone()).collect()
    }

    /// The most that any copy was moved.
    pub(crate) fn most_moves(&self, message_id: &str) -> u16 {
        let addresses = self.tenant.addresses().into_iter();
        let views = addresses.filter_map(|address| self.tenant.mailbox(&address));
        let moves = views.flat_map(|view| {
            view.copies(message_id)
                .into_iter()
                .map(|copy| copy.moves)
                .collect::<Vec<_>>()
        });
        moves.max().unwrap_or_default()
    }

    /// Nothing can be written to the audit log of a worker that has written nothing yet: its folder is
    /// made by the first entry.
    pub(crate) fn break_audit(&self) {
        std::fs::write(self.root.path().join("audit"), "no folder").unwrap();
    }

    pub(crate) fn audit(&self) -> Vec<Recorded> {
        let root = self.root.path();
        let audit = Audit::open(&root.join("audit"), &key(root)).unwrap();
        audit.show().map(Result::unwrap).collect()
    }
}

/// How many copies the audit log tells of. Each has an intent, then an outcome, and the last one tells
/// what became of it.
pub(crate) fn answered_intents(audit: &[Recorded]) -> usize {
    let mut copies: HashMap<String, Vec<(audit::Action, String)>> = HashMap::new();
    for Recorded { entry, .. } in audit {
        let detail = entry.detail.clone().unwrap_or_default();
        if let Some((_, copy)) = detail.split_once(", copy ") {
            let end = copy.find([',', ':']).unwrap();
            let told = copies.entry(copy[..end].to_owned()).or_default();
            told.push((entry.action, detail));
        }
    }
    for (copy, told) in &copies {
        assert_eq!(told[0].0, audit::Action::Intent, "{copy}: {told:#?}");
        let (action, detail) = told.last().unwrap();
        assert_eq!(*action, audit::Action::Outcome, "{copy}: {told:#?}");
        assert!(detail.ends_with("moved"), "{copy}: {told:#?}");
    }
    copies.len()
}

/// Takes the waiting reports of a tenant into a store.
pub(crate) async fn store_reports(tenant: &Tenant, name: &str, store: &Store) {
    for octets in tenant.take_reports() {
        let report = journal::parse(&octets, journal::Limits::default());
        assert_eq!(report.kind, journal::Kind::Report, "{:?}", report.problems);
        let new = NewReport {
            tenant: TenantName::new(name),
            region: None,
            arrived: now(),
            peer: "127.0.0.1".into(),
            report,
        };
        store.begin().commit(new).await.unwrap();
    }
}

pub(crate) fn request(record: RecordId, action: Action) -> Request {
    Request {
        records: vec![record],
        action,
        recipients: None,
        reason: Some("phish".into()),
        dry_run: false,
        by: By {
            who: "ana".into(),
            uid: Some(1000),
        },
    }
}

/// `address outcome reason` of every recipient, sorted.
pub(crate) fn outcomes(document: &Value) -> Vec<String> {
    let mut lines: Vec<String> = document["recipients"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| {
            let text = |key: &str| r[key].as_str().unwrap_or("-").to_owned();
            format!("{} {} {}", text("address"), text("outcome"), text("reason"))
        })
        .collect();
    lines.sort();
    lines
}
