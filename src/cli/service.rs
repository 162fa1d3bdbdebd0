//! The service as a whole: store, quarantine, audit log, jobs, admin socket, port 25. `serve` runs
//! it until a signal comes, `demo` for the length of a story.
//!
//! Order of a start: what can be refused without a trace first, then the data, then the admin
//! socket, and port 25 last, so that whoever sees it answer can already ask questions.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{Exit, Failure, clock, upkeep};
use crate::admin::{self, Parts, log};
use crate::audit::Audit;
use crate::calendar::Calendar;
use crate::config::Config;
use crate::index::{Options, Store};
use crate::key::{KeyError, StoreKey};
use crate::quarantine::Quarantine;
use crate::segment::create_dir_durable;
use crate::server::{self, Feed, Receiver};
use crate::state::jobs::Jobs;
use crate::state::log::StateLog;
use crate::worker::Worker;

/// The running service.
pub(super) struct Running {
    parts: Parts,
    addresses: Vec<SocketAddr>,
    socket: PathBuf,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts everything. To be called inside a runtime.
    ///
    /// # Errors
    ///
    /// The start is refused (exit 2); the message names file or address, and what to do.
    pub(super) async fn start(config: Config) -> Result<Self, Failure> {
        let config = Arc::new(config);
        let started = clock::now();
        // Before anything is written: a taken port is the most common reason for a refusal.
        let listeners = server::listen(&config.smtp.listen).map_err(refused)?;
        let parts = {
            let config = Arc::clone(&config);
            let opened = tokio::task::spawn_blocking(move || open(config, started));
            opened.await.map_err(refused)??
        };
        let stop = CancellationToken::new();
        let groups = config.admin.viewers.iter().chain(&config.admin.operators);
        let groups: Vec<String> = groups.cloned().collect();
        let socket = admin::bind(&config.admin.socket, &groups).map_err(refused)?;
        let mut running = Self {
            parts,
            addresses: Vec::new(),
            socket: config.admin.socket.clone(),
            stop,
            tasks: Vec::new(),
        };
        match running.answer(config, socket, listeners).await {
            Ok(()) => Ok(running),
            Err(failure) => {
                running.stop().await;
                Err(failure)
            }
        }
    }

    async fn answer(
        &mut self,
        config: Arc<Config>,
        socket: tokio::net::UnixListener,
        listeners: Vec<TcpListener>,
    ) -> Result<(), Failure> {
        let answers = admin::serve(self.parts.clone(), socket, self.stop.clone());
        self.spawn(async move {
            if let Err(error) = answers.await {
                error!(%error, "the admin socket failed");
            }
        });
        let receiver_parts = server::Parts {
            store: self.parts.store.clone(),
            quarantine: self.parts.quarantine.clone(),
            calendar: self.parts.calendar.clone(),
            feed: self.parts.feed.clone(),
        };
        if let Some(address) = config.admin.metrics {
            self.serve_metrics(address).await?;
        }
        let receiver = Receiver::start(config, receiver_parts, listeners).map_err(refused)?;
        self.addresses = receiver.addresses().to_vec();
        *self
            .parts
            .receiver
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Some(receiver);
        self.spawn(upkeep::run(self.parts.clone(), self.stop.clone()));
        Ok(())
    }

    async fn serve_metrics(&mut self, address: SocketAddr) -> Result<(), Failure> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            Failure::usage(format!(
                "admin.metrics {address}: {error}; give it another address"
            ))
        })?;
        info!(%address, "metrics and health are answered");
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
        self.spawn(async move {
            if let Err(error) = answers.await {
                error!(%error, "the metrics listener failed");
            }
        });
        Ok(())
    }

    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.push(tokio::spawn(task));
    }

    /// Where port 25 is.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Takes a new configuration; what it cannot take, it says, and then the old one stays whole.
    pub(super) fn reload(&self, config: Config) -> Result<(), String> {
        let old = self.parts.config.load();
        for (key, same) in [
            ("smtp.listen", old.smtp.listen == config.smtp.listen),
            ("store.path", old.store.path == config.store.path),
            (
                "store.key_file",
                old.store.key_file == config.store.key_file,
            ),
            ("admin.socket", old.admin.socket == config.admin.socket),
            ("admin.metrics", old.admin.metrics == config.admin.metrics),
        ] {
            if !same {
                warn!(
                    key,
                    "changed, which takes a restart; the old value is in use"
                );
            }
        }
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
        info!("the new configuration is in use");
        Ok(())
    }

    /// Stops in the order that loses nothing: no new reports, running transactions end, jobs rest,
    /// what was acknowledged is indexed.
    pub(super) async fn stop(self) {
        let receiver = self
            .parts
            .receiver
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(receiver) = receiver {
            receiver.shutdown().await;
        }
        self.parts.worker.shut_down().await;
        self.stop.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                error!(%error, "a part of the service failed");
            }
        }
        let store = self.parts.store.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || store.close()).await {
            error!(%error, "the store could not be closed; the next start indexes again");
        }
        if let Err(error) = fs::remove_file(&self.socket)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, socket = %self.socket.display(), "the admin socket cannot be removed");
        }
    }
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
    for damage in state.damage() {
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
