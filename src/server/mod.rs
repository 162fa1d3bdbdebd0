//! Receives journal reports: connections, TLS, the content's way into the index or the quarantine.
//!
//! In come connections; out goes, for each message, one answer. 250 is given only after what the
//! message told is on stable storage: in the index if it is a report that is believed, else, whole,
//! in the quarantine. Trouble on our side is 451 or 452, and the peer tries again.
//!
//! ```text
//! listener   accepts; register: who is connected and who gives way; memory: what content may hold;
//!            complaint: trouble that comes often is told seldom
//! connection one task a connection: octets → session → replies; tls: certificates, names of peers
//! content    what becomes of a message; spool: its octets, as long as they may be needed
//! book       whose journal address; feed: is each tenant's feed alive
//! systemd    sockets, readiness and watchdog; health: the metrics listener
//! ```

mod book;
mod clock;
mod complaint;
mod connection;
mod content;
mod feed;
mod health;
mod listener;
mod memory;
mod register;
mod spool;
pub mod systemd;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use metrics::{counter, gauge};
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

pub use feed::{Feed, FeedStatus, SILENCE};
pub use health::serve as serve_health;
pub use listener::{ListenError, listen};
pub use tls::TlsError;

use crate::calendar::Calendar;
use crate::config::{self, Config};
use crate::index::Store;
use crate::mail::TenantName;
use crate::quarantine::Quarantine;
use crate::smtp::{self, Reason, TlsPolicy};
use crate::telemetry::metric;
use book::Book;
use complaint::Complaints;
use memory::Budget;
use register::{Limits, Register};
use tls::Tls;

/// How long running transactions may take to end when the service stops.
pub const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(30);

/// How long connections that are cut off may take to notice.
const CUT_OFF_PATIENCE: Duration = Duration::from_secs(3);

/// How often certificate files, feeds and the numbers that nobody pushes are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(10);

/// What the receiver works with.
#[derive(Clone)]
pub struct Parts {
    /// Where believed reports go.
    pub store: Store,
    /// Where everything else goes.
    pub quarantine: Quarantine,
    /// The time to record of what arrives.
    pub calendar: Calendar,
    /// The state of the feeds.
    pub feed: Feed,
}

/// Why the receiver does not start or does not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A socket does not say where it listens.
    #[error("a listening socket cannot be used: {0}")]
    Socket(#[from] std::io::Error),
}

/// A receiver whose certificate and settings are found good: nothing of it runs yet.
pub struct Prepared {
    settings: Settings,
    tls: Tls,
}

/// The running receiver.
pub struct Receiver {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
}

/// What all connections share.
struct Shared {
    settings: ArcSwap<Settings>,
    tls: Tls,
    register: Arc<Register>,
    budget: Budget,
    complaints: Complaints,
    parts: Parts,
    tasks: TaskTracker,
    /// The service stops: no new connections and transactions.
    stop: CancellationToken,
    /// Patience is over.
    abort: CancellationToken,
}

/// What the configuration says, in the form that sessions use. A session keeps what it began with.
struct Settings {
    config: Arc<Config>,
    smtp: Arc<smtp::Settings>,
    book: Book,
    limits: Limits,
    journal: crate::journal::Limits,
}

impl Settings {
    fn new(config: Arc<Config>) -> Self {
        let section = &config.smtp;
        let fit = listener::connections_that_fit();
        if fit < section.max_connections {
            warn!(
                "smtp.max_connections is {}, but the limit of file descriptors allows {fit}; \
                 raise LimitNOFILE",
                section.max_connections
            );
        }
        let smtp = smtp::Settings {
            hostname: section.hostname.clone(),
            tls: match section.tls {
                config::Tls::Required => TlsPolicy::Required,
                config::Tls::Optional => TlsPolicy::Optional,
            },
            max_message: section.max_message.octets(),
            max_recipients: section.max_recipients,
            max_errors: section.max_errors,
            idle_timeout: section.idle_timeout,
            handshake_timeout: section.handshake_timeout,
        };
        Self {
            smtp: Arc::new(smtp),
            book: Book::new(&config),
            limits: Limits {
                connections: section.max_connections.min(fit),
                per_peer: section.max_connections_per_peer,
            },
            journal: config.journal_limits(),
            config,
        }
    }
}

impl Receiver {
    /// Starts to serve on these sockets. To be called inside a runtime.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the administrator must change something.
    pub fn start(
        config: Arc<Config>,
        parts: Parts,
        listeners: Vec<TcpListener>,
    ) -> Result<Self, StartError> {
        Self::prepare(config)?.start(parts, listeners)
    }

    /// Reads certificate and key, and leaves no trace: what can be refused is refused here.
    ///
    /// # Errors
    ///
    /// [`StartError`]: the administrator must change something.
    pub fn prepare(config: Arc<Config>) -> Result<Prepared, StartError> {
        let settings = Settings::new(config);
        let tls = Tls::start(&settings.config, settings.book.asks_certificates())?;
        Ok(Prepared { settings, tls })
    }
}

impl Prepared {
    /// Starts to serve on these sockets. To be called inside a runtime.
    ///
    /// # Errors
    ///
    /// [`StartError::Socket`].
    pub fn start(self, parts: Parts, listeners: Vec<TcpListener>) -> Result<Receiver, StartError> {
        crate::telemetry::metrics();
        for reason in Reason::ALL {
            counter!(metric::REFUSALS_TOTAL, "reason" => reason.as_str()).absolute(0);
        }
        let max_memory = self.settings.config.smtp.max_memory;
        let shared = Arc::new(Shared {
            tls: self.tls,
            settings: ArcSwap::from_pointee(self.settings),
            register: Arc::default(),
            budget: Budget::new(max_memory.octets()),
            complaints: Complaints::default(),
            parts,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            abort: CancellationToken::new(),
        });
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()?;
        for listener in listeners {
            shared
                .tasks
                .spawn(listener::accept(Arc::clone(&shared), listener));
        }
        shared.tasks.spawn(watch(Arc::clone(&shared)));
        for address in &addresses {
            info!(%address, "listening for journal reports");
        }
        Ok(Receiver { shared, addresses })
    }
}

impl Receiver {
    /// Where it listens: the ports that were chosen when the configuration asked for port 0.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes a new configuration for new sessions; those under way keep theirs. Sockets and the
    /// store's directory are not changed: they need a restart.
    ///
    /// # Errors
    ///
    /// [`StartError`]: nothing was changed.
    pub fn reload(&self, config: Arc<Config>) -> Result<(), StartError> {
        let settings = Settings::new(Arc::clone(&config));
        self.shared
            .tls
            .reload(&config, settings.book.asks_certificates())?;
        self.shared
            .budget
            .set_limit(config.smtp.max_memory.octets());
        self.shared.settings.store(Arc::new(settings));
        info!("configuration and certificate reloaded");
        Ok(())
    }

    /// Takes the certificate files if they have changed and are good; else the old ones stay.
    pub fn refresh_certificate(&self) {
        self.shared.refresh_certificate();
    }

    /// Names and end of the certificate that is served.
    pub fn certificate(&self) -> (Vec<String>, Timestamp) {
        let served = self.shared.tls.served();
        (served.identity.names.clone(), served.identity.not_after)
    }

    /// The feeds of all tenants of the configuration.
    pub fn feeds(&self) -> Vec<FeedStatus> {
        let now = clock::wall();
        let settings = self.shared.settings.load();
        let tenants = settings.config.tenants.iter();
        tenants
            .map(|tenant| self.shared.parts.feed.status(&tenant.name, now))
            .collect()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.shared.register.len()
    }

    /// Octets of memory that content of all sessions holds.
    pub fn content_memory(&self) -> u64 {
        self.shared.budget.used()
    }

    /// Publishes the numbers that are looked at, not counted; to be called before metrics are rendered.
    pub fn publish_metrics(&self) {
        self.shared.publish();
    }

    /// Stops: no new connections; running transactions may end for half a minute, everybody else is
    /// told 421. What was acknowledged is on stable storage when this returns, and it always returns.
    pub async fn shutdown(self) {
        self.shutdown_within(SHUTDOWN_PATIENCE).await;
    }

    /// The same with another patience.
    pub async fn shutdown_within(self, patience: Duration) {
        let shared = self.shared;
        shared.stop.cancel();
        shared.tasks.close();
        let connections = shared.register.len();
        info!(connections, "stopping");
        if timeout(patience, shared.tasks.wait()).await.is_err() {
            let connections = shared.register.len();
            warn!(
                connections,
                "transactions were still running and are cut off; their senders try again"
            );
            shared.abort.cancel();
            if timeout(CUT_OFF_PATIENCE, shared.tasks.wait())
                .await
                .is_err()
            {
                // A write that nobody reads, or a disk that does not answer: neither holds the stop.
                let connections = shared.register.len();
                warn!(connections, "connections do not end and are left behind");
            }
        }
        shared.save_feed().await;
    }
}

impl Shared {
    /// Counts a refusal.
    fn count_refusal(&self, reason: Reason) {
        counter!(metric::REFUSALS_TOTAL, "reason" => reason.as_str()).increment(1);
    }

    fn refresh_certificate(&self) {
        let settings = self.settings.load();
        self.tls
            .refresh(&settings.config, settings.book.asks_certificates());
    }

    /// Names of all tenants that have a journal address.
    fn tenants(&self) -> Vec<TenantName> {
        let settings = self.settings.load();
        let tenants = settings.config.tenants.iter();
        tenants
            .filter(|tenant| !tenant.journal.is_empty())
            .map(|tenant| tenant.name.clone())
            .collect()
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "numbers for people, far below 2^52"
    )]
    fn publish(&self) {
        let now = clock::wall();
        self.tls.publish_expiry(now);
        self.parts.feed.watch(&self.tenants(), now);
        gauge!(metric::CONTENT_MEMORY_BYTES).set(self.budget.used() as f64);
        gauge!(metric::QUARANTINE_BYTES).set(self.parts.quarantine.bytes() as f64);
        self.parts.store.report_metrics();
        // Samples of histograms gather until they are put into their buckets, whether somebody asks or not.
        crate::telemetry::metrics().run_upkeep();
    }

    /// Writes the feed's state where it outlives a restart.
    async fn save_feed(&self) {
        let feed = self.parts.feed.clone();
        match tokio::task::spawn_blocking(move || feed.save()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                warn!(error = ?error.to_string(), "the feed's state cannot be written")
            }
            Err(error) => error!(%error, "the feed's state cannot be written"),
        }
    }
}

/// Looks at what changes by itself, until the service stops.
async fn watch(shared: Arc<Shared>) {
    let mut ticks = interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let _: Instant = tokio::select! {
            tick = ticks.tick() => tick,
            () = shared.stop.cancelled() => return,
        };
        let looking = Arc::clone(&shared);
        let looked = tokio::task::spawn_blocking(move || {
            looking.refresh_certificate();
            looking.publish();
        });
        if let Err(error) = looked.await {
            error!(%error, "looking after certificate and feeds failed");
        }
        shared.save_feed().await;
    }
}
