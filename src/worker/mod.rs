//! Runs retraction jobs: plan, resolve, locate, act, verify, watch.
//!
//! In: a [`Request`]. Out: a durable job, its document at any time, and its end. What is done stands in the audit
//! log before it is done and after; if that log or the state cannot be written, nothing is done. A job
//! goes on after any crash by looking first.

mod claims;
mod clock;
mod connect;
mod error;
mod ledger;
mod plan;
mod run;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::audit::Audit;
use crate::config::{Config, Tenant};
use crate::graph::client::Client;
use crate::graph::pace::Backoff;
use crate::index::Store;
use crate::mail::{Address, RecordId, TenantName};
use crate::retract::Action;
use crate::retract::job::{By, Job, JobState, Timing};
use crate::state::jobs::{Change, Jobs};
use crate::state::log::StateLog;
pub use error::{ErrorKind, RetractError};
use ledger::Ledger;
use run::Runner;

/// What is asked of the worker.
#[derive(Debug, Clone)]
pub struct Request {
    /// The messages.
    pub records: Vec<RecordId>,
    /// What to do with their copies.
    pub action: Action,
    /// Only for these recipients; `None`: for all.
    pub recipients: Option<Vec<Address>>,
    /// Why.
    pub reason: Option<String>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Who asks.
    pub by: By,
}

/// What came of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Started {
    /// A job, and how far it is: running, or waiting for approval.
    Job {
        /// Its id.
        id: String,
        /// How far it is.
        state: JobState,
    },
    /// A dry run: the document of `jobs show` without an id.
    Plan(Value),
}

/// Runs jobs. Clones are of the same worker; the last one that is dropped stops it where it stands.
#[derive(Debug, Clone)]
pub struct Worker(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    setup: ArcSwap<Setup>,
    store: Store,
    ledger: Arc<Ledger>,
    timing: Timing,
    progress: Mutex<HashMap<String, watch::Receiver<Progress>>>,
    tasks: Mutex<JoinSet<()>>,
    stop: CancellationToken,
}

/// What the configuration says, and the clients that it makes.
#[derive(Debug)]
struct Setup {
    config: Arc<Config>,
    /// A tenant's client; if there is none, why.
    clients: HashMap<TenantName, Result<Client, String>>,
}

/// A tenant's connection to Graph, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Whose.
    pub tenant: TenantName,
    /// Requests at once over all mailboxes; 0 without a connection.
    pub limit: usize,
    /// How long Graph told us to wait.
    pub throttled: Option<Duration>,
    /// Why there is no connection.
    pub problem: Option<String>,
}

/// How far a running job is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// The head of its document.
    pub head: Value,
    /// No item is pending, located or acted.
    pub settled: bool,
    /// The job has ended, the watch included.
    pub ended: bool,
}

impl Worker {
    /// Starts, and goes on with the jobs that were under way. Must be called within a tokio runtime.
    ///
    /// A tenant that cannot be connected is told when it is needed: the others go on.
    pub fn start(
        config: Arc<Config>,
        store: Store,
        state: StateLog<Jobs>,
        audit: Arc<Audit>,
    ) -> Self {
        let timing = Timing {
            watch: config.retraction.watch,
            ..Timing::default()
        };
        Self::start_with(config, store, state, audit, timing)
    }

    /// [`start`](Self::start) with other waits than the usual.
    pub fn start_with(
        config: Arc<Config>,
        store: Store,
        state: StateLog<Jobs>,
        audit: Arc<Audit>,
        timing: Timing,
    ) -> Self {
        let worker = Self(Arc::new(Inner {
            setup: ArcSwap::from_pointee(Setup::new(config, None, timing.backoff)),
            store,
            ledger: Arc::new(Ledger::new(state, audit)),
            timing,
            progress: Mutex::default(),
            tasks: Mutex::default(),
            stop: CancellationToken::new(),
        }));
        worker.go_on();
        worker
    }

    /// Runs the jobs that are under way and do not run.
    fn go_on(&self) {
        let runs: HashSet<String> = self.progress().keys().cloned().collect();
        for job in self.0.ledger.under_way(|id| runs.contains(id)) {
            let id = job.id.clone().unwrap_or_default();
            match self.client(&job.tenant) {
                Ok(client) => self.run(job, client),
                Err(why) => {
                    error!(job = id, %why, "a retraction job cannot go on; mend it and reload")
                }
            }
        }
    }

    /// Plans and starts a job, or says what it would do.
    ///
    /// # Errors
    ///
    /// [`RetractError`]: nothing was done.
    pub async fn retract(&self, request: Request) -> Result<Started, RetractError> {
        let (job, client) = plan::plan(&self.0, &request).await?;
        if request.dry_run {
            let now = clock::now();
            let runner = Runner::dry(job, client, self.0.timing, now);
            return runner
                .dry_run()
                .await
                .map(|job| Started::Plan(job.document()));
        }
        // From here on it is done whether or not whoever asked still waits: a job that is stored must run.
        let worker = self.clone();
        let begun = tokio::spawn(async move { worker.begin(job, client).await });
        begun
            .await
            .map_err(|error| RetractError::State(error.to_string()))?
    }

    async fn begin(&self, job: Job, client: Client) -> Result<Started, RetractError> {
        self.0.ledger.create(&job).await?;
        let (id, state) = (job.id.clone().unwrap_or_default(), job.state);
        info!(job = id, tenant = %job.tenant, action = %job.action, state = state.name(), items = job.items.len(), "retraction job");
        if state == JobState::Running {
            self.run(job, client);
        }
        Ok(Started::Job { id, state })
    }

    /// The document of a job.
    pub async fn job(&self, id: &str) -> Option<Value> {
        self.0.ledger.read(id, Job::document).await
    }

    /// The heads of all jobs, the newest first.
    pub async fn jobs(&self) -> Vec<Value> {
        self.0.ledger.heads().await
    }

    /// The ids of the jobs that act on each record, the newest first.
    pub async fn jobs_by_record(&self) -> HashMap<RecordId, Vec<String>> {
        self.0.ledger.by_record().await
    }

    /// How far a job is, now and whenever that changes; `None` for a job that is not running.
    pub fn subscribe(&self, id: &str) -> Option<watch::Receiver<Progress>> {
        self.progress().get(id).cloned()
    }

    /// Waits until no item of the job is pending, located or acted, whatever the watch still does, and returns
    /// its document; at once if it is not running or waits for approval. `None`: there is no such job.
    pub async fn wait(&self, id: &str) -> Option<Value> {
        if let Some(mut progress) = self.subscribe(id) {
            // An error means that the job's task has ended: its document tells how.
            let _ = progress.wait_for(|progress| progress.settled).await;
        }
        self.job(id).await
    }

    /// Asks nothing more of Graph, waits for the answers that are due, and stores them.
    pub async fn shut_down(&self) {
        self.0.stop.cancel();
        let mut tasks =
            std::mem::take(&mut *self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        while tasks.join_next().await.is_some() {}
    }

    /// Takes up another configuration. Clients of tenants that did not change are kept, with token and pace; jobs
    /// that run go on with the client that they have, and those that could not go on before are tried again. Must
    /// be called within a tokio runtime.
    pub fn reload(&self, config: Arc<Config>) {
        let old = self.0.setup.load();
        let setup = Setup::new(config, Some(&old), self.0.timing.backoff);
        self.0.setup.store(Arc::new(setup));
        self.go_on();
    }

    /// How the tenants' connections to Graph are, in the order of the configuration.
    pub fn connections(&self) -> Vec<Connection> {
        let (setup, now) = (self.0.setup.load(), clock::now().monotonic);
        let tenants = setup.config.tenants.iter();
        tenants
            .filter_map(|tenant| Some((&tenant.name, setup.clients.get(&tenant.name)?)))
            .map(|(name, client)| match client {
                Ok(client) => {
                    let (limit, held) = client.pace();
                    Connection {
                        tenant: name.clone(),
                        limit,
                        throttled: held.map(|until| until.saturating_duration_since(now)),
                        problem: None,
                    }
                }
                Err(why) => Connection {
                    tenant: name.clone(),
                    limit: 0,
                    throttled: None,
                    problem: Some(why.clone()),
                },
            })
            .collect()
    }

    fn client(&self, tenant: &TenantName) -> Result<Client, RetractError> {
        self.0.client(tenant)
    }

    fn run(&self, job: Job, client: Client) {
        let Some(id) = job.id.clone() else {
            return;
        };
        let claims = Arc::clone(self.0.ledger.claims());
        {
            let mut running = self.progress();
            // It was stored a moment ago, and a reload has begun it.
            if running.contains_key(&id) {
                return;
            }
            claims.begins(&id);
            let (runner, progress) = Runner::new(job, client, &self.0, clock::now());
            running.insert(id.clone(), progress);
            let mut tasks = self.0.tasks.lock().unwrap_or_else(PoisonError::into_inner);
            // Tasks that have ended are forgotten here, so that the set does not grow.
            while tasks.try_join_next().is_some() {}
            tasks.spawn(async move {
                runner.run().await;
                claims.ends(&id);
            });
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, HashMap<String, watch::Receiver<Progress>>> {
        self.0
            .progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Setup {
    fn new(config: Arc<Config>, old: Option<&Self>, backoff: Backoff) -> Self {
        let kept = |tenant: &Tenant| {
            let old = old.filter(|old| old.config.network == config.network)?;
            let same = old.config.tenant(tenant.name.as_str()) == Some(tenant);
            old.clients
                .get(&tenant.name)
                .filter(|client| same && client.is_ok())
                .cloned()
        };
        let client = |tenant: &Tenant| {
            kept(tenant).unwrap_or_else(|| connect::client(&config, tenant, backoff))
        };
        let clients = config
            .tenants
            .iter()
            .map(|tenant| (tenant.name.clone(), client(tenant)));
        Self {
            clients: clients.collect(),
            config: Arc::clone(&config),
        }
    }
}

impl Inner {
    fn client(&self, tenant: &TenantName) -> Result<Client, RetractError> {
        match self.setup.load().clients.get(tenant) {
            Some(Ok(client)) => Ok(client.clone()),
            Some(Err(why)) => Err(RetractError::NotConnected {
                tenant: tenant.clone(),
                why: why.clone(),
            }),
            None => Err(RetractError::NotConnected {
                tenant: tenant.clone(),
                why: "the configuration has no such tenant".to_owned(),
            }),
        }
    }
}
