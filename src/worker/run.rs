//! Runs one job: asks Graph what the job wants to know, stores what comes of it, waits.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::ledger::{Ledger, item_entry};
use super::{Change, Inner, Progress, RetractError, clock};
use crate::audit::{Action as AuditAction, Entry};
use crate::graph::api::{Answer, BATCH_REQUESTS, Request};
use crate::graph::client::{Client, ClientError, Permit, Wait};
use crate::graph::pace::Key;
use crate::retract::item::Item;
use crate::retract::job::{Ask, CopyId, Engine, Job, JobState, Now, Outcome, Step, Timing};

/// Wait before a log that could not be written is tried again.
const LOG_AGAIN: Duration = Duration::from_secs(5);

/// How long answers that are due are waited for when the worker stops. What comes later is looked up at the next
/// start.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How many of the most urgent steps are offered to the gate: more than it can take in one batch, so that some
/// throttled mailboxes do not hide others.
const OFFERED: usize = BATCH_REQUESTS * 20;

/// A batch that came back.
type Answered = (Vec<Step>, Result<Vec<Option<Answer>>, ClientError>);

/// Runs one job.
pub(super) struct Runner {
    engine: Engine,
    client: Client,
    /// `None` for a dry run: nothing is written.
    ledger: Option<Arc<Ledger>>,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
    in_flight: JoinSet<Answered>,
    /// What happened and is not stored yet.
    entries: Vec<Entry>,
    items: BTreeMap<usize, Item>,
    stored: JobState,
}

impl Runner {
    pub(super) fn new(
        job: Job,
        client: Client,
        worker: &Inner,
        ours: HashSet<CopyId>,
        now: Now,
    ) -> (Self, watch::Receiver<Progress>) {
        let (progress, receiver) = watch::channel(Progress {
            head: job.head(),
            ..Progress::default()
        });
        let ledger = Some(Arc::clone(&worker.ledger));
        let stop = worker.stop.clone();
        let runner = Self::with(
            job,
            client,
            worker.timing,
            ours,
            now,
            ledger,
            progress,
            stop,
        );
        (runner, receiver)
    }

    /// For a dry run.
    pub(super) fn dry(job: Job, client: Client, timing: Timing, now: Now) -> Self {
        let (progress, _) = watch::channel(Progress::default());
        let stop = CancellationToken::new();
        Self::with(
            job,
            client,
            timing,
            HashSet::new(),
            now,
            None,
            progress,
            stop,
        )
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the one place where a runner is put together"
    )]
    fn with(
        job: Job,
        client: Client,
        timing: Timing,
        ours: HashSet<CopyId>,
        now: Now,
        ledger: Option<Arc<Ledger>>,
        progress: watch::Sender<Progress>,
        stop: CancellationToken,
    ) -> Self {
        let stored = job.state;
        // Any number does: it keeps jobs from repeating in step.
        let seed = now.wall.as_nanosecond() as u64;
        Self {
            engine: Engine::new(job, client.base().clone(), timing, seed, ours, now),
            client,
            ledger,
            progress,
            stop,
            in_flight: JoinSet::new(),
            entries: Vec::new(),
            items: BTreeMap::new(),
            stored,
        }
    }

    /// Runs until the job has ended, or the worker stops.
    pub(super) async fn run(mut self) {
        loop {
            self.note_state();
            if !self.store().await {
                // Nothing is asked while what happened cannot be told.
                let until = clock::now().monotonic + LOG_AGAIN;
                tokio::select! {
                    () = tokio::time::sleep_until(until.into()) => continue,
                    () = self.stop.cancelled() => break,
                }
            }
            self.tell();
            if self.engine.finished() && self.in_flight.is_empty() {
                let job = self.engine.job();
                let counts = json!(job.counts());
                info!(job = job.id, tenant = %job.tenant, %counts, "retraction job is done");
                return;
            }
            if self.stop.is_cancelled() {
                break;
            }
            self.turn().await;
        }
        self.drain().await;
    }

    /// Reads until all that can be planned is planned.
    ///
    /// # Errors
    ///
    /// [`RetractError`]: Graph refused the application as a whole.
    pub(super) async fn dry_run(mut self) -> Result<Job, RetractError> {
        while !(self.engine.settled() && self.in_flight.is_empty()) {
            self.turn().await;
            self.engine.take_changed();
        }
        Ok(self.engine.job().clone())
    }

    /// Sends what may be sent, then waits for something to happen.
    async fn turn(&mut self) {
        let client = self.client.clone();
        let changed = client.changed();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let held = self.fill().await;
        let timer = self.engine.next_timer(clock::now());
        let timer = [timer, held].into_iter().flatten().min();
        if self.in_flight.is_empty() && timer.is_none() && self.engine.finished() {
            return;
        }
        tokio::select! {
            Some(answered) = self.in_flight.join_next() => {
                self.take(answered);
                // Whatever else is there already is stored with it.
                while let Some(answered) = self.in_flight.try_join_next() {
                    self.take(answered);
                }
            }
            () = &mut changed => {}
            () = until(timer) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Sends batches for as long as the gate lets any through. Returns until when it is held, if it is.
    async fn fill(&mut self) -> Option<Instant> {
        loop {
            let now = clock::now();
            let mut steps = self.engine.ready(now);
            steps.truncate(OFFERED);
            if steps.is_empty() {
                return None;
            }
            let keys: Vec<Key> = steps
                .iter()
                .map(|step| self.engine.mailbox_of(step.item).cloned())
                .collect();
            let (chosen, permit) = match self.client.admit(&keys) {
                Ok(admitted) => admitted,
                Err(Wait::Until(until)) => return Some(until),
                Err(Wait::Busy) => return None,
            };
            let chosen = chosen
                .into_iter()
                .filter_map(|position| steps.get(position).cloned())
                .collect();
            if !self.send(chosen, permit, now).await {
                return Some(now.monotonic + LOG_AGAIN);
            }
        }
    }

    /// Sends one batch. Moves are in both logs first; `false`: the logs cannot be written, nothing was sent.
    async fn send(&mut self, chosen: Vec<Step>, permit: Permit, now: Now) -> bool {
        let (mut steps, mut requests): (Vec<Step>, Vec<Request>) = (Vec::new(), Vec::new());
        for step in chosen {
            match self.engine.request(&step) {
                Ok(Some(request)) => {
                    self.engine.start(&step, now);
                    requests.push(request);
                    steps.push(step);
                }
                Ok(None) => {}
                Err(error) => self.engine.refuse(&step, &error),
            }
        }
        let moves: Vec<&Step> = steps.iter().filter(|step| is_move(step)).collect();
        if !moves.is_empty() {
            let job = self.engine.job();
            let intents = moves.iter().filter_map(|step| {
                let item = job.items.get(step.item)?;
                let detail = format!("move to {}", target(step));
                Some(item_entry(job, item, AuditAction::Intent, now.wall, detail))
            });
            self.entries.extend(intents);
            if !self.store().await {
                self.entries.clear();
                for step in &steps {
                    self.engine.postpone(step, now.monotonic + LOG_AGAIN);
                }
                return false;
            }
        }
        if requests.is_empty() {
            return true;
        }
        let client = self.client.clone();
        self.in_flight.spawn(async move {
            let answers = client.batch(&requests, permit).await;
            (steps, answers)
        });
        true
    }

    /// Takes the answers of a batch.
    fn take(&mut self, answered: Result<Answered, tokio::task::JoinError>) {
        let now = clock::now();
        let Ok((steps, result)) = answered else {
            // A task of ours panicked. Its steps stay in flight until a restart looks them up.
            error!(
                job = self.engine.job().id,
                "a batch was lost; its copies are looked up at the next start"
            );
            return;
        };
        if let Err(error) = &result {
            warn!(job = self.engine.job().id, %error, "a batch was not answered");
        }
        for (position, step) in steps.iter().enumerate() {
            let outcome = outcome(&result, position);
            let told = is_move(step).then(|| describe(&outcome));
            self.engine.answer(step, outcome, now);
            let job = self.engine.job();
            if let (Some(told), Some(item)) = (told, job.items.get(step.item)) {
                let detail = format!("move to {}: {told}", target(step));
                self.entries.push(item_entry(
                    job,
                    item,
                    AuditAction::Outcome,
                    now.wall,
                    detail,
                ));
            }
        }
    }

    /// Stores what happened: the audit log first.
    async fn store(&mut self) -> bool {
        let Some(ledger) = self.ledger.clone() else {
            return true;
        };
        self.items.extend(self.engine.take_changed());
        let Some(id) = self.engine.job().id.clone() else {
            return true;
        };
        let mut changes = Vec::new();
        if !self.items.is_empty() {
            let items = self
                .items
                .iter()
                .map(|(position, item)| (*position, item.clone()));
            changes.push(Change::Items {
                job: id.clone(),
                items: items.collect(),
            });
        }
        let state = self.engine.job().state;
        if state != self.stored {
            changes.push(Change::State {
                job: id.clone(),
                state,
            });
        }
        if changes.is_empty() && self.entries.is_empty() {
            return true;
        }
        match ledger.write(self.entries.clone(), changes).await {
            Ok(()) => {
                self.entries.clear();
                self.items.clear();
                self.stored = state;
                true
            }
            Err(error) => {
                error!(job = id, %error, "a retraction job waits for its logs");
                false
            }
        }
    }

    /// Sets how far the job is.
    fn note_state(&mut self) {
        let state = if self.engine.finished() {
            JobState::Done
        } else if self.engine.settled() {
            JobState::Waiting
        } else {
            JobState::Running
        };
        self.engine.set_state(state);
    }

    /// Tells those who watch.
    fn tell(&self) {
        let progress = Progress {
            head: self.engine.job().head(),
            settled: self.engine.settled(),
            ended: self.engine.finished(),
        };
        self.progress.send_if_modified(|old| {
            let changed = *old != progress;
            *old = progress;
            changed
        });
    }

    /// The worker stops: what is under way is waited for and stored.
    async fn drain(&mut self) {
        let until = clock::now().monotonic + LAST_ANSWERS;
        while let Ok(Some(answered)) =
            tokio::time::timeout_at(until.into(), self.in_flight.join_next()).await
        {
            self.take(answered);
        }
        self.note_state();
        // If it cannot be stored, the next start looks.
        self.store().await;
    }
}

/// What became of the step at this position of a batch.
fn outcome(result: &Result<Vec<Option<Answer>>, ClientError>, position: usize) -> Outcome {
    match result {
        Ok(answers) => match answers.get(position).cloned().flatten() {
            Some(answer) => Outcome::Answer(answer),
            None => Outcome::Lost("the batch came back without this answer".to_owned()),
        },
        Err(ClientError::Token(error)) if error.is_refusal() => Outcome::Answer(Answer {
            status: 401,
            retry_after: None,
            body: json!({"error": {"code": "token", "message": error.to_string()}}),
        }),
        Err(error) if error.may_have_run() => Outcome::Lost(error.to_string()),
        Err(error) => Outcome::NotRun(error.to_string()),
    }
}

/// An outcome for the audit log.
fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Answer(answer) => match answer.success() {
            Ok(_) => format!("{} moved", answer.status),
            Err(failure) => failure.to_string(),
        },
        Outcome::NotRun(why) => format!("not run: {why}"),
        Outcome::Lost(why) => format!("outcome unknown: {why}"),
    }
}

fn is_move(step: &Step) -> bool {
    matches!(step.ask, Ask::Move(..))
}

fn target(step: &Step) -> &'static str {
    match &step.ask {
        Ask::Move(_, to) => to.name(),
        _ => "",
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
