//! The service as a whole: store, quarantine, audit log, jobs, admin socket, port 25. `serve` runs
//! it until a signal comes, `demo` for the length of a story.
//!
//! Order of a start: what can be refused without a trace first (ports, certificate, admin socket), then
//! the data, and port 25 last, so that whoever sees it answer can already ask questions. A stop always
//! ends, and well before the service manager loses patience (`TimeoutStopSec` of the unit).

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::{TcpListener, UnixListener};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::reload::keep_fixed;
use super::{Exit, Failure, clock, upkeep};
use crate::admin::{self, Parts, log};
use crate::audit::Audit;
use crate::calendar::Calendar;
use crate::config::Config;
use crate::index::{Options, Store};
use crate::key::{KeyError, StoreKey};
use crate::quarantine::Quarantine;
use crate::segment::create_dir_durable;
use crate::server::{self, Feed, Prepared, Receiver};
use crate::state::jobs::Jobs;
use crate::state::log::StateLog;
use crate::worker::Worker;

/// How long requests that are being answered may go on when the service stops.
const REQUEST_PATIENCE: Duration = Duration::from_secs(3);
/// How long the receiver may take: as long as it is patient with transactions, and some seconds for what
/// is cut off and for a disk.
const RECEIVER_PATIENCE: Duration = Duration::from_secs(36);
/// How long calls to Microsoft Graph that are under way may.
const JOB_PATIENCE: Duration = Duration::from_secs(30);
/// How long the index may take to catch up.
const CLOSE_PATIENCE: Duration = Duration::from_secs(8);

/// The running service.
pub(super) struct Running {
    parts: Parts,
    addresses: Vec<SocketAddr>,
    socket: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Running {
    /// Starts everything. To be called inside a runtime.
    ///
    /// # Errors
    ///
    /// The start is refused (exit 2); the message names file or address, and what to do.
    pub(super) async fn start(config: Config) -> Result<Self, Failure> {
        let config = Arc::new(config);
        // Before anything is written or set going: what is most often the reason for a refusal.
        let listeners = server::listen(&config.smtp.listen).map_err(refused)?;
        let metrics = match config.admin.metrics {
            Some(address) => Some(bind_metrics(address).await?),
            None => None,
        };
        let receiver = Receiver::prepare(Arc::clone(&config)).map_err(refused)?;
        let groups = config.admin.viewers.iter().chain(&config.admin.operators);
        let groups: Vec<String> = groups.cloned().collect();
        let socket = admin::bind(&config.admin.socket, &groups).map_err(refused)?;
        let opened = {
            let config = Arc::clone(&config);
            tokio::task::spawn_blocking(move || open(config, clock::now())).await
        };
        let parts = match opened.map_err(refused).flatten() {
            Ok(parts) => parts,
            Err(failure) => {
                remove(&config.admin.socket);
                return Err(failure);
            }
        };
        let mut running = Self {
            parts,
            addresses: Vec::new(),
            socket: config.admin.socket.clone(),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        running.answer(socket, metrics);
        match running.receive(receiver, listeners) {
            Ok(()) => Ok(running),
            Err(failure) => {
                running.stop().await;
                Err(failure)
            }
        }
    }

    /// Answers commands and scrapes, and looks after the data.
    fn answer(&mut self, socket: UnixListener, metrics: Option<TcpListener>) {
        let answers = admin::serve(self.parts.clone(), socket, self.stop.clone());
        self.tasks.spawn(async move {
            if let Err(error) = answers.await {
                error!(%error, "the admin socket failed");
            }
        });
        if let Some(listener) = metrics {
            self.serve_metrics(listener);
        }
        self.tasks
            .spawn(upkeep::run(self.parts.clone(), self.stop.clone()));
    }

    /// Opens port 25.
    fn receive(&mut self, receiver: Prepared, listeners: Vec<TcpListener>) -> Result<(), Failure> {
        let parts = server::Parts {
            store: self.parts.store.clone(),
            quarantine: self.parts.quarantine.clone(),
            calendar: self.parts.calendar.clone(),
            feed: self.parts.feed.clone(),
        };
        let receiver = receiver.start(parts, listeners).map_err(refused)?;
        self.addresses = receiver.addresses().to_vec();
        let place = self.parts.receiver.write();
        *place.unwrap_or_else(PoisonError::into_inner) = Some(receiver);
        Ok(())
    }

    fn serve_metrics(&mut self, listener: TcpListener) {
        let (publish, ready) = (
            Arc::clone(&self.parts.receiver),
            Arc::clone(&self.parts.receiver),
        );
        let answers = server::serve_health(
            listener,
            move || {
                let receiver = publish.read().unwrap_or_else(PoisonError::into_inner);
                if let Some(receiver) = receiver.as_ref() {
                    receiver.publish_metrics();
                }
            },
            move || {
                ready
                    .read()
                    .unwrap_or_else(PoisonError::into_inner)
                    .is_some()
            },
            self.stop.clone().cancelled_owned(),
        );
        self.tasks.spawn(async move {
            if let Err(error) = answers.await {
                error!(%error, "the metrics listener failed");
            }
        });
    }

    /// Where port 25 is.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes a new configuration; what it cannot take, it says, and then the old one stays whole. Keys that
    /// need a restart are named and keep their old values.
    pub(super) fn reload(&self, mut config: Config) -> Result<(), String> {
        let kept = keep_fixed(&self.parts.config.load(), &mut config);
        let config = Arc::new(config);
        if let Some(receiver) = self
            .parts
            .receiver
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
        {
            receiver
                .reload(Arc::clone(&config))
                .map_err(|error| error.to_string())?;
        }
        self.parts.worker.reload(Arc::clone(&config));
        self.parts.config.store(config);
        for key in kept {
            warn!(
                key,
                "changed, which takes a restart; the old value is in use"
            );
        }
        info!("the new configuration is in use");
        Ok(())
    }

    /// Stops in the order that loses nothing: nobody asks for anything new; running transactions end, jobs
    /// rest; then what was acknowledged is indexed. Nobody outside can make that last: whoever does
    /// not end in time is left behind, and the store is closed.
    pub(super) async fn stop(mut self) {
        self.stop.cancel();
        let receiver = self
            .parts
            .receiver
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let received = async {
            if let Some(receiver) = receiver {
                receiver.shutdown().await;
            }
        };
        let answered = async {
            while let Some(ended) = self.tasks.join_next().await {
                if let Err(error) = ended {
                    error!(%error, "a part of the service failed");
                }
            }
        };
        tokio::join!(
            within("port 25", RECEIVER_PATIENCE, received),
            within("requests", REQUEST_PATIENCE, answered),
            within(
                "retraction jobs",
                JOB_PATIENCE,
                self.parts.worker.shut_down()
            ),
        );
        let parts = self.parts.clone();
        let closed = tokio::task::spawn_blocking(move || {
            upkeep::tell_head(&parts.audit);
            parts.store.close();
        });
        let closed = async {
            if let Err(error) = closed.await {
                error!(%error, "the store could not be closed; the next start indexes again");
            }
        };
        within("the store", CLOSE_PATIENCE, closed).await;
        remove(&self.socket);
    }
}

/// Waits for a part of the service to end, but not for long.
async fn within(part: &'static str, patience: Duration, ended: impl Future<Output = ()>) {
    if timeout(patience, ended).await.is_err() {
        let seconds = patience.as_secs();
        warn!(part, seconds, "does not end and is left behind");
    }
}

/// Removes the admin socket.
fn remove(socket: &Path) {
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, socket = %socket.display(), "the admin socket cannot be removed");
    }
}

async fn bind_metrics(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::usage(format!(
            "admin.metrics {address}: {error}; give it another address"
        ))
    })?;
    let address = listener.local_addr().map_err(refused)?;
    info!(%address, "metrics and health are answered");
    Ok(listener)
}

/// A start that is refused.
fn refused(error: impl std::fmt::Display) -> Failure {
    Failure::new(Exit::Usage, error.to_string())
}

/// Opens what is on disk. Blocks.
pub(super) fn open(config: Arc<Config>, now: Timestamp) -> Result<Parts, Failure> {
    let section = &config.store;
    let path = &section.path;
    make(path)?;
    let key = key(&section.key_file, path)?;
    let options = Options {
        retention: section.retention,
        ..Options::new(path.clone(), key.clone())
    };
    let store = Store::open(options).map_err(refused)?;
    let quarantine = Quarantine::open(
        &path.join("quarantine"),
        &key,
        section.quarantine.octets(),
        section.quarantine_retention,
    );
    let audit = Arc::new(Audit::open(&path.join(log::DIRECTORY), &key).map_err(refused)?);
    let feed = Feed::open(path, now);
    let state = StateLog::<Jobs>::open(&path.join("state")).map_err(refused)?;
    let state_damage: Arc<[String]> = state.damage().into();
    for damage in state_damage.iter() {
        error!(damage, "the state of jobs is damaged");
    }
    let worker = Worker::start(
        Arc::clone(&config),
        store.clone(),
        state,
        Arc::clone(&audit),
    );
    Ok(Parts {
        store,
        quarantine: quarantine.map_err(refused)?,
        calendar: Calendar::open(&path.join("clock")),
        state_damage,
        audit,
        worker,
        feed,
        receiver: Arc::new(RwLock::new(None)),
        key: Arc::new(key),
        started: now,
        config: Arc::new(ArcSwap::new(config)),
    })
}

/// Makes the data directory, and keeps others out of it.
fn make(path: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| {
        refused(format!(
            "store.path {}: {error}; make the directory writable for this user, or name another",
            path.display()
        ))
    };
    create_dir_durable(path).map_err(failed)?;
    if !path.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0
        && let Err(error) = fs::set_permissions(path, Permissions::from_mode(0o700))
    {
        warn!(path = %path.display(), %error, "others can look into the data directory; chmod 0700 it");
    }
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK).map_err(|error| failed(error.into()))
}

/// The store key, made at the first start. A key that is missing beside data is not made anew: what
/// it protected could then never be read or proven again.
fn key(path: &Path, data: &Path) -> Result<StoreKey, Failure> {
    match StoreKey::load(path) {
        Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other.map_err(refused),
    }
    if data.join("log").exists() {
        return Err(refused(format!(
            "store.key_file {} is missing, but {} holds data of that key; restore it from your backup",
            path.display(),
            data.display()
        )));
    }
    let key = StoreKey::create(path).map_err(refused)?;
    info!(file = %path.display(), "store key made; keep a copy of it outside this machine");
    Ok(key)
}
