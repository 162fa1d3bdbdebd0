//! The two logs that a job lives in: what is done (audit) and how far it is (state).
//!
//! Both block on the disk, so they are written from blocking threads. The audit log comes first: what it does not
//! tell is not done, and what it tells too much of is looked up after a crash.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value;

use super::RetractError;
use crate::audit::{Action as AuditAction, Audit, Entry};
use crate::mail::{RecordId, TenantName};
use crate::retract::item::Item;
use crate::retract::job::{CopyId, Job, JobState};
use crate::state::jobs::{Change, Jobs};
use crate::state::log::StateLog;

/// Both logs.
#[derive(Debug)]
pub(super) struct Ledger {
    jobs: Arc<Mutex<StateLog<Jobs>>>,
    audit: Arc<Audit>,
}

impl Ledger {
    pub(super) fn new(jobs: StateLog<Jobs>, audit: Arc<Audit>) -> Self {
        Self {
            jobs: Arc::new(Mutex::new(jobs)),
            audit,
        }
    }

    /// Tells the audit log, then changes the state. Both are on stable storage when this returns.
    ///
    /// # Errors
    ///
    /// What is told must not be done.
    pub(super) async fn write(
        &self,
        entries: Vec<Entry>,
        changes: Vec<Change>,
    ) -> Result<(), RetractError> {
        let (jobs, audit) = (Arc::clone(&self.jobs), Arc::clone(&self.audit));
        let written = tokio::task::spawn_blocking(move || {
            audit.append(entries)?;
            let appended = lock(&jobs).append(changes);
            appended.map_err(|error| RetractError::State(error.to_string()))
        });
        written
            .await
            .map_err(|error| RetractError::State(error.to_string()))?
    }

    /// Stores a new job, and who asked for it.
    ///
    /// # Errors
    ///
    /// There is no such job then.
    pub(super) async fn create(&self, job: &Job) -> Result<(), RetractError> {
        let entries = job.records.iter().map(|record| Entry {
            message_id: Some(record.facts.message_id.to_string()),
            detail: Some(format!(
                "{} asked for, {} recipients, reason: {}",
                job.action,
                record.recipients.len(),
                job.reason.as_deref().unwrap_or("none given"),
            )),
            ..entry(job, AuditAction::Intent, job.created)
        });
        let change = Change::Created(Box::new(job.clone()));
        self.write(entries.collect(), vec![change]).await
    }

    /// Jobs that are to go on after a start.
    pub(super) fn under_way(&self) -> Vec<Job> {
        let log = lock(&self.jobs);
        let jobs = log.value().newest_first().into_iter();
        jobs.filter(|job| matches!(job.state, JobState::Running | JobState::Waiting))
            .cloned()
            .collect()
    }

    /// Copies of a tenant that other jobs than this one moved.
    pub(super) fn moved(&self, tenant: &TenantName, except: &str) -> HashSet<CopyId> {
        lock(&self.jobs).value().moved(tenant, Some(except))
    }

    /// Reads from a job.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        id: &str,
        read: impl FnOnce(&Job) -> T + Send + 'static,
    ) -> Option<T> {
        let (jobs, id) = (Arc::clone(&self.jobs), id.to_owned());
        let task = tokio::task::spawn_blocking(move || lock(&jobs).value().job(&id).map(read));
        task.await.ok().flatten()
    }

    /// The heads of all jobs, the newest first.
    pub(super) async fn heads(&self) -> Vec<Value> {
        let jobs = Arc::clone(&self.jobs);
        let task = tokio::task::spawn_blocking(move || {
            let log = lock(&jobs);
            log.value()
                .newest_first()
                .into_iter()
                .map(Job::head)
                .collect()
        });
        task.await.unwrap_or_default()
    }

    /// The ids of the jobs that act on each record, the newest first.
    pub(super) async fn by_record(&self) -> HashMap<RecordId, Vec<String>> {
        let jobs = Arc::clone(&self.jobs);
        let task = tokio::task::spawn_blocking(move || {
            let mut found: HashMap<RecordId, Vec<String>> = HashMap::new();
            for job in lock(&jobs).value().newest_first() {
                for record in &job.records {
                    found.entry(record.id).or_default().extend(job.id.clone());
                }
            }
            found
        });
        task.await.unwrap_or_default()
    }
}

/// An audit entry about a job.
pub(super) fn entry(job: &Job, action: AuditAction, at: Timestamp) -> Entry {
    Entry {
        at,
        who: job.by.who.clone(),
        uid: job.by.uid,
        action,
        job: job.id.clone(),
        message_id: None,
        mailbox: None,
        detail: None,
    }
}

/// An audit entry about an item.
pub(super) fn item_entry(
    job: &Job,
    item: &Item,
    action: AuditAction,
    at: Timestamp,
    detail: String,
) -> Entry {
    let record = job.records.get(item.record);
    Entry {
        message_id: record.map(|record| record.facts.message_id.to_string()),
        mailbox: item
            .mailbox
            .as_ref()
            .map(|mailbox| mailbox.address.to_string()),
        detail: Some(detail),
        ..entry(job, action, at)
    }
}

fn lock(jobs: &Mutex<StateLog<Jobs>>) -> MutexGuard<'_, StateLog<Jobs>> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner)
}
