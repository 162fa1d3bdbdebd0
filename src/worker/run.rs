//! Runs one job: asks Graph what the job wants to know, stores what comes of it, waits.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::claims::{Beside, Hold};
use super::ledger::{Ledger, item_entry};
use super::{Change, Inner, Progress, RetractError, clock};
use crate::audit::{Action as AuditAction, Entry};
use crate::graph::api::{Answer, BATCH_REQUESTS, ImmutableId, Request};
use crate::graph::client::{Client, ClientError, Permit, Wait};
use crate::graph::folder::WellKnown;
use crate::graph::pace::{Key, MAILBOX_REQUESTS};
use crate::retract::item::Item;
use crate::retract::job::{Ask, CopyId, Engine, Job, JobState, Now, Others, Outcome, Step, Timing};

/// Wait before a log that could not be written is tried again.
const LOG_AGAIN: Duration = Duration::from_secs(5);

/// How long answers that are due are waited for when the worker stops. What comes later is looked up at the next
/// start.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// How many of the most urgent steps are offered to the gate: more than it can take in one batch, so that some
/// throttled mailboxes do not hide others.
const OFFERED: usize = BATCH_REQUESTS * 20;

/// What a batch came back with.
type Answers = Result<Vec<Option<Answer>>, ClientError>;

/// Runs one job.
pub(super) struct Runner {
    engine: Engine,
    client: Client,
    /// `None` for a dry run: nothing is written.
    ledger: Option<Arc<Ledger>>,
    progress: watch::Sender<Progress>,
    stop: CancellationToken,
    in_flight: JoinSet<Answers>,
    /// The steps of each batch that is under way.
    batches: HashMap<Id, Vec<Step>>,
    /// How many moves of a copy, by whichever job, are known here.
    moves: HashMap<CopyId, u32>,
    timing: Timing,
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
        now: Now,
    ) -> (Self, watch::Receiver<Progress>) {
        let (progress, receiver) = watch::channel(Progress {
            head: job.head(),
            ..Progress::default()
        });
        let ledger = Some(Arc::clone(&worker.ledger));
        let stop = worker.stop.clone();
        let others = Box::new(Beside {
            claims: Arc::clone(worker.ledger.claims()),
            job: job.id.clone().unwrap_or_default(),
        });
        let runner = Self::with(
            job,
            client,
            worker.timing,
            others,
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
            Box::new(HashSet::new()),
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
        others: Box<dyn Others>,
        now: Now,
        ledger: Option<Arc<Ledger>>,
        progress: watch::Sender<Progress>,
        stop: CancellationToken,
    ) -> Self {
        let stored = job.state;
        // Any number does: it keeps jobs from repeating in step.
        let seed = now.wall.as_nanosecond() as u64;
        Self {
            engine: Engine::new(job, client.base().clone(), timing, seed, others, now),
            client,
            ledger,
            progress,
            stop,
            in_flight: JoinSet::new(),
            batches: HashMap::new(),
            moves: HashMap::new(),
            timing,
            entries: Vec::new(),
            items: BTreeMap::new(),
            stored,
        }
    }

    /// Runs until the job has ended, or the worker stops.
    pub(super) async fn run(mut self) {
        loop {
            self.note_state();
            if self.store().await.is_err() {
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
            Some(answered) = self.in_flight.join_next_with_id() => {
                self.take(answered);
                // Whatever else is there already is stored with it.
                while let Some(answered) = self.in_flight.try_join_next_with_id() {
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
            let steps = self.offer(now);
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

    /// The most urgent steps, of each mailbox no more than Graph runs at once: one with very many copies does not
    /// hide the others.
    fn offer(&self, now: Now) -> Vec<Step> {
        let mut of_mailbox: HashMap<Key, usize> = HashMap::new();
        let steps = self.engine.ready(now).into_iter();
        let few = steps.filter(|step| {
            let key = self.engine.mailbox_of(step.item).cloned();
            let count = of_mailbox.entry(key).or_default();
            *count += 1;
            *count <= MAILBOX_REQUESTS
        });
        few.take(OFFERED).collect()
    }

    /// Whether this step may be sent: no other job is moving the copy, or moved it since it was located.
    fn claim(&mut self, step: &Step) -> bool {
        let (Some(ledger), Some(id)) = (&self.ledger, &self.engine.job().id) else {
            return true;
        };
        let Some((copy, mailbox)) = moved(step).zip(self.engine.mailbox_of(step.item)) else {
            return true;
        };
        let copy = (mailbox.clone(), copy.clone());
        let seen = self.moves.get(&copy).copied().unwrap_or_default();
        match ledger.claims().hold(&copy, id, seen) {
            Hold::Granted(moves) => {
                self.moves.insert(copy, moves);
                true
            }
            Hold::Moved(moves) => {
                self.moves.insert(copy, moves);
                false
            }
            Hold::Busy => false,
        }
    }

    /// Sends one batch. Moves are in both logs first; `false`: the logs cannot be written, nothing was sent.
    async fn send(&mut self, chosen: Vec<Step>, permit: Permit, now: Now) -> bool {
        let (mut steps, mut requests): (Vec<Step>, Vec<Request>) = (Vec::new(), Vec::new());
        for step in chosen {
            if !self.claim(&step) {
                let until = now.monotonic + self.timing.backoff.first;
                self.engine.relocate(&step, until);
                continue;
            }
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
        if steps.iter().any(|step| moved(step).is_some()) {
            for step in &steps {
                self.entries.extend(self.intent(step, now));
            }
            if let Err(error) = self.store().await {
                self.entries.clear();
                if let RetractError::State(_) = error {
                    // The audit log has the intents, and is told that nothing came of them.
                    let told = "not sent: the state of the job could not be written";
                    self.tell_outcomes(&steps, told, now);
                }
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
        let batch = self
            .in_flight
            .spawn(async move { client.batch(&requests, permit).await });
        self.batches.insert(batch.id(), steps);
        true
    }

    /// Takes the answers of a batch.
    fn take(&mut self, answered: Result<(Id, Answers), JoinError>) {
        let now = clock::now();
        let (batch, result) = match answered {
            Ok(answered) => answered,
            // A task of ours panicked: whether its requests ran is looked up.
            Err(error) => (error.id(), Err(ClientError::Lost(error.to_string()))),
        };
        if let Err(error) = &result {
            warn!(job = self.engine.job().id, %error, "a batch was not answered");
        }
        let steps = self.batches.remove(&batch).unwrap_or_default();
        for (position, step) in steps.iter().enumerate() {
            let outcome = outcome(&result, position);
            if moved(step).is_some() {
                self.tell_outcomes(std::slice::from_ref(step), &describe(&outcome), now);
            }
            self.engine.answer(step, outcome, now);
        }
        let resolved = self.engine.take_resolved();
        let job = self.engine.job();
        let target = job.action.folder().map_or("", WellKnown::name);
        let resolved = resolved.into_iter().filter_map(|(number, told)| {
            let item = job.items.get(number)?;
            let copy = item.message.as_ref()?;
            let detail = format!("move to {target}, copy {}: looked up: {told}", copy.0);
            Some(item_entry(
                job,
                item,
                AuditAction::Outcome,
                now.wall,
                detail,
            ))
        });
        self.entries.extend(resolved);
    }

    /// What the audit log is told before a move.
    fn intent(&self, step: &Step, now: Now) -> Option<Entry> {
        let (job, Ask::Move(copy, to)) = (self.engine.job(), &step.ask) else {
            return None;
        };
        let item = job.items.get(step.item)?;
        let from = item
            .folder_before
            .as_ref()
            .map_or("", |folder| &folder.id.0);
        let detail = format!("move to {}, copy {}, from folder {from}", to.name(), copy.0);
        Some(item_entry(job, item, AuditAction::Intent, now.wall, detail))
    }

    /// Tells the audit log what became of moves.
    fn tell_outcomes(&mut self, steps: &[Step], told: &str, now: Now) {
        let job = self.engine.job();
        for step in steps {
            if let (Ask::Move(copy, to), Some(item)) = (&step.ask, job.items.get(step.item)) {
                let detail = format!("move to {}, copy {}: {told}", to.name(), copy.0);
                let entry = item_entry(job, item, AuditAction::Outcome, now.wall, detail);
                self.entries.push(entry);
            }
        }
    }

    /// Stores what happened: the audit log first.
    async fn store(&mut self) -> Result<(), RetractError> {
        let Some(ledger) = self.ledger.clone() else {
            return Ok(());
        };
        self.items.extend(self.engine.take_changed());
        let Some(id) = self.engine.job().id.clone() else {
            return Ok(());
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
            return Ok(());
        }
        match ledger.write(self.entries.clone(), changes).await {
            Ok(()) => {
                self.entries.clear();
                self.items.clear();
                self.stored = state;
                Ok(())
            }
            Err(error) => {
                error!(job = id, %error, "a retraction job waits for its logs");
                Err(error)
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
            tokio::time::timeout_at(until.into(), self.in_flight.join_next_with_id()).await
        {
            self.take(answered);
        }
        self.note_state();
        // If it cannot be stored, the next start looks, and tells what it found.
        let _ = self.store().await;
    }
}

/// What became of the step at this position of a batch.
fn outcome(result: &Answers, position: usize) -> Outcome {
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
        // What is said to the batch is said to each of its requests.
        Err(ClientError::Refused(failure)) if matches!(failure.status, 401 | 403 | 429) => {
            Outcome::Answer(Answer {
                status: failure.status,
                retry_after: failure.retry_after,
                body: json!({"error": {"code": failure.code, "message": failure.message}}),
            })
        }
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

/// The copy that a step moves.
fn moved(step: &Step) -> Option<&ImmutableId> {
    match &step.ask {
        Ask::Move(copy, _) => Some(copy),
        _ => None,
    }
}

async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
