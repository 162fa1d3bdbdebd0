//! A receiver that runs inside the test, with all its parts in a directory of its own.

use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tempfile::TempDir;
use tokio::net::TcpListener;

use clawback::calendar::Calendar;
use clawback::certs::{Authority, Pair};
use clawback::config::Config;
use clawback::index::{Options, Record, Store};
use clawback::key::StoreKey;
use clawback::mail::{MessageId, TenantName};
use clawback::quarantine::{Item, Quarantine};
use clawback::server::{Feed, Parts, Receiver};

use super::Client;
use super::report::TENANT_ID;

/// The tenant's journal address.
pub(crate) const JOURNAL: &str = "k3v9q7x2m5t8w4z6r1y0@journal.example";

/// The journal address of the other tenant.
pub(crate) const OTHER_JOURNAL: &str = "p8d2n6c4r7f3h5j9b1v6@journal.example";

/// Two tenants, loopback for a peer, everything else as it is by default.
pub(crate) fn config_text() -> String {
    format!(
        r#"
[smtp]
listen = ["127.0.0.1:0"]
hostname = "localhost"
certificate = "certificate.pem"
private_key = "key.pem"

[store]
path = "data"
key_file = "store.key"

[admin]
socket = "admin.sock"

[[tenant]]
name = "contoso"
tenant_id = "{TENANT_ID}"
domains = ["contoso.onmicrosoft.example", "contoso.example"]
peers = ["127.0.0.0/8"]
journal_address = ["{JOURNAL}"]

[[tenant]]
name = "fabrikam"
tenant_id = "99999999-2222-4333-8444-555555555555"
domains = ["fabrikam.example"]
peers = ["192.0.2.0/24"]
journal_address = ["{OTHER_JOURNAL}"]
"#
    )
}

/// The configuration, changed: each of `changes` replaces its first text by its second.
pub(crate) fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(config_text(), |text, (from, to)| {
        assert!(text.contains(from), "{from} is not in the configuration");
        text.replacen(from, to, 1)
    })
}

/// The service under test.
pub(crate) struct Service {
    pub(crate) receiver: Receiver,
    pub(crate) config: Arc<Config>,
    pub(crate) parts: Parts,
    pub(crate) directory: TempDir,
    pub(crate) authority: Authority,
}

impl Service {
    /// With the configuration of [`config_text`].
    pub(crate) async fn start() -> Self {
        Self::with(&config_text()).await
    }

    /// With this configuration.
    pub(crate) async fn with(config: &str) -> Self {
        Self::prepared(config, |_| {}).await
    }

    /// With this configuration, after something was put into its directory.
    pub(crate) async fn prepared(config: &str, prepare: impl FnOnce(&Path)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::new("test authority", now(), 30).expect("an authority");
        let pair = authority
            .issue("localhost", now(), 30)
            .expect("a certificate");
        place_certificate(directory.path(), &pair);
        prepare(directory.path());
        let config = parse(config, directory.path());
        let parts = parts(&config);
        let receiver = receive(&config, &parts).await;
        Self {
            receiver,
            config,
            parts,
            directory,
            authority,
        }
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        *self.receiver.addresses().first().expect("a socket")
    }

    /// What clients are to trust.
    pub(crate) fn ca(&self) -> String {
        self.authority.certificate()
    }

    /// A client after STARTTLS and EHLO.
    pub(crate) async fn client(&self) -> Client {
        Client::encrypted(self.address(), &self.ca()).await
    }

    /// The same service after a stop and a start, on the same port, with the same parts. Running
    /// transactions are cut off.
    pub(crate) async fn restart(self) -> Self {
        let address = self.address();
        self.receiver.shutdown_within(Duration::ZERO).await;
        let listeners = clawback::server::listen(&[address]).expect("the port is free again");
        let config = Arc::clone(&self.config);
        let receiver = Receiver::start(config, self.parts.clone(), listeners).expect("it starts");
        Self { receiver, ..self }
    }

    /// Takes another configuration, as SIGHUP does.
    pub(crate) fn reload(&self, config: &str) {
        let config = parse(config, self.directory.path());
        self.receiver.reload(config).expect("a good configuration");
    }

    /// Names of the records with this Message-ID, after all that is acknowledged was indexed.
    pub(crate) async fn records(&self, message_id: &str) -> Vec<Record> {
        records(&self.parts, message_id).await
    }

    /// What is in the quarantine.
    pub(crate) fn quarantined(&self) -> Vec<Item> {
        self.parts.quarantine.list()
    }

    /// The octets of a quarantined message.
    pub(crate) fn quarantined_octets(&self, item: &Item) -> Vec<u8> {
        {
            let mut octets = Vec::new();
            let mut content = self.parts.quarantine.read(item.id).expect("it is there");
            content.read_to_end(&mut octets).expect("it is whole");
            octets
        }
    }

    /// The value of a metric with these labels, as a scraper sees it; 0 if there is none.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        self.receiver.publish_metrics();
        metric(&clawback::telemetry::metrics().render(), name)
    }
}

/// The value of a metric with these labels on a page; 0 if it is not there.
pub(crate) fn metric(page: &str, name: &str) -> f64 {
    let values = page.lines().filter_map(|line| line.strip_prefix(name));
    values
        .filter_map(|value| value.strip_prefix(' '))
        .map(|value| value.parse().expect("a number"))
        .next()
        .unwrap_or_default()
}

/// Writes certificate and key where the configuration names them.
pub(crate) fn place_certificate(directory: &Path, pair: &Pair) {
    std::fs::write(directory.join("certificate.pem"), &pair.certificate).expect("written");
    std::fs::write(directory.join("key.pem"), pair.private_key.as_bytes()).expect("written");
}

/// The configuration that stands in this directory.
pub(crate) fn parse(text: &str, directory: &Path) -> Arc<Config> {
    let path = directory.join("clawback.toml");
    Arc::new(Config::parse(text, &path).expect("a good configuration"))
}

/// Starts to receive on a free port.
pub(crate) async fn receive(config: &Arc<Config>, parts: &Parts) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    Receiver::start(Arc::clone(config), parts.clone(), vec![listener]).expect("it starts")
}

/// The time now: certificates must be good when the service looks at its clock.
#[expect(
    clippy::disallowed_methods,
    reason = "certificates are judged by the real clock"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}

/// The parts that this configuration asks for, on the disk.
pub(crate) fn parts(config: &Config) -> Parts {
    let key = StoreKey::load(&config.store.key_file)
        .or_else(|_| StoreKey::create(&config.store.key_file))
        .expect("a key");
    parts_with(config, Options::new(config.store.path.clone(), key))
}

/// The parts that this configuration asks for, with a store of these options.
pub(crate) fn parts_with(config: &Config, options: Options) -> Parts {
    std::fs::create_dir_all(&config.store.path).expect("a directory");
    let quarantine = Quarantine::open(
        &config.store.path.join("quarantine"),
        &options.key,
        config.store.quarantine.octets(),
        config.store.quarantine_retention,
    );
    Parts {
        store: Store::open(options).expect("a store"),
        quarantine: quarantine.expect("a quarantine"),
        calendar: Calendar::open(&config.store.path.join("clock")),
        feed: Feed::open(&config.store.path, now()),
    }
}

/// The records with this Message-ID, after all that is acknowledged was indexed.
pub(crate) async fn records(parts: &Parts, message_id: &str) -> Vec<Record> {
    parts.store.settled().await;
    let message_id = MessageId::new(message_id).expect("a Message-ID");
    let mut records = Vec::new();
    for tenant in ["contoso", "fabrikam"] {
        records.extend(
            parts
                .store
                .by_message_id(Some(&TenantName::new(tenant)), &message_id)
                .expect("a look-up"),
        );
    }
    records
}
