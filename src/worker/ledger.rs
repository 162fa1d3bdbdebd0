//! The two logs that a job lives in: what is done (audit) and how far it is (state).
//!
//! Both block on the disk, so they are written from blocking threads. The audit log comes first: what it does not
//! tell is not done, and what it tells too much of is looked up after a crash.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::Value;
use tracing::warn;

use super::RetractError;
use super::claims::Claims;
use crate::audit::{Action as AuditAction, Audit, Entry};
use crate::mail::RecordId;
use crate::retract::item::Item;
use crate::retract::job::{Job, JobState};
use crate::state::jobs::{Change, Jobs};
use crate::state::log::StateLog;

/// Items in one change of a new job: some megabytes, where a frame of the log holds 16.
const ITEMS: usize = 8_192;

/// Both logs.
#[derive(Debug)]
pub(super) struct Ledger {
    jobs: Arc<Mutex<StateLog<Jobs>>>,
    audit: Arc<Audit>,
    claims: Arc<Claims>,
}

impl Ledger {
    pub(super) fn new(jobs: StateLog<Jobs>, audit: Arc<Audit>) -> Self {
        let claims = Claims::default();
        for job in jobs.value().newest_first() {
            let id = job.id.as_deref().unwrap_or_default();
            for item in &job.items {
                claims.note(id, item);
            }
        }
        Self {
            jobs: Arc::new(Mutex::new(jobs)),
            audit,
            claims: Arc::new(claims),
        }
    }

    /// Which copies jobs moved, as far as it is stored.
    pub(super) fn claims(&self) -> &Arc<Claims> {
        &self.claims
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
        let claims = Arc::clone(&self.claims);
        let written = tokio::task::spawn_blocking(move || {
            audit.append(entries)?;
            let noted: Vec<(String, Vec<(usize, Item)>)> = changes
                .iter()
                .filter_map(|change| match change {
                    Change::Items { job, items } => Some((job.clone(), items.clone())),
                    _ => None,
                })
                .collect();
            let settled = changes.iter().any(is_settled);
            let appended = lock(&jobs).append(changes);
            appended.map_err(|error| RetractError::State(error.to_string()))?;
            if settled && let Err(error) = audit.tell_head() {
                // What was done is on the log all the same.
                warn!(%error, "the head of the audit log cannot be kept");
            }
            for (job, items) in &noted {
                for (_, item) in items {
                    claims.note(job, item);
                }
            }
            Ok(())
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
        self.write(entries.collect(), creation(job)).await
    }

    /// Jobs that are to go on, except those that `runs` knows.
    pub(super) fn under_way(&self, runs: impl Fn(&str) -> bool) -> Vec<Job> {
        let log = lock(&self.jobs);
        let jobs = log.value().newest_first().into_iter();
        jobs.filter(|job| matches!(job.state, JobState::Running | JobState::Waiting))
            .filter(|job| job.id.as_deref().is_some_and(|id| !runs(id)))
            .cloned()
            .collect()
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

/// The changes that store a new job. One of many items is stored in pieces, and counts with the last of them: a
/// job of which a crash left a part was never begun, and is not there.
fn creation(job: &Job) -> Vec<Change> {
    let id = job.id.clone().unwrap_or_default();
    if job.items.len() <= ITEMS {
        return vec![Change::Created(Box::new(job.clone()))];
    }
    let head = Job {
        state: JobState::Planned,
        items: Vec::new(),
        ..job.clone()
    };
    let mut changes = vec![Change::Created(Box::new(head))];
    let items: Vec<(usize, Item)> = job.items.iter().cloned().enumerate().collect();
    changes.extend(items.chunks(ITEMS).map(|items| Change::Items {
        job: id.clone(),
        items: items.to_vec(),
    }));
    changes.push(Change::State {
        job: id,
        state: job.state,
    });
    changes
}

/// Whether a job has done what it could: what it did should then not be taken off the audit log unseen.
fn is_settled(change: &Change) -> bool {
    let Change::State { state, .. } = change else {
        return false;
    };
    matches!(state, JobState::Waiting | JobState::Done)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Absent, Mailbox};
    use crate::graph::api::MailboxId;
    use crate::key::StoreKey;
    use crate::mail::{Address, MessageId, TenantName};
    use crate::retract::Action;
    use crate::retract::guard::Facts;
    use crate::retract::job::By;
    use crate::retract::plan::JobRecord;

    fn job(mailboxes: usize) -> Job {
        let address = |n: usize| -> Address { format!("user{n}@contoso.example").parse().unwrap() };
        let item = |n: usize| {
            let mailbox = Mailbox {
                id: MailboxId {
                    tenant: TenantName::new("t"),
                    user: format!("00000000-0000-0000-0000-{n:012}"),
                },
                address: address(n),
                without: Absent::OnPremises,
            };
            Item::new(0, address(n), Some(mailbox))
        };
        Job {
            id: Some("job_1".into()),
            tenant: TenantName::new("t"),
            state: JobState::Running,
            action: Action::SoftDelete,
            created: "2026-01-31T11:00:00Z".parse().unwrap(),
            by: By {
                who: "ana".into(),
                uid: None,
            },
            reason: None,
            records: vec![JobRecord {
                id: RecordId::from_octets([7; 16]),
                facts: Facts {
                    message_id: MessageId::new("<m@x>").unwrap(),
                    also: Vec::new(),
                    network_message_ids: Vec::new(),
                    times: Vec::new(),
                    from: None,
                    sender: None,
                },
                recipients: (0..mailboxes).map(address).collect(),
                siblings: Vec::new(),
            }],
            items: (0..mailboxes).map(item).collect(),
        }
    }

    #[tokio::test]
    async fn a_job_of_very_many_mailboxes_is_stored_whole() {
        let root = tempfile::tempdir().unwrap();
        let key = StoreKey::create(&root.path().join("key")).unwrap();
        let audit = Audit::open(&root.path().join("audit"), &key).unwrap();
        let open = || StateLog::<Jobs>::open(&root.path().join("state")).unwrap();
        let job = job(50_000);
        let ledger = Ledger::new(open(), Arc::new(audit));
        ledger.create(&job).await.unwrap();
        assert!(open().value().job("job_1") == Some(&job));
    }

    #[test]
    fn a_job_of_which_a_crash_left_a_part_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let open = || StateLog::<Jobs>::open(root.path()).unwrap();
        let changes = creation(&job(ITEMS + 1));
        let (_, part) = changes.split_last().unwrap();
        let mut log = open();
        log.append(part.to_vec()).unwrap();
        log.snapshot().unwrap();
        for log in [log, open()] {
            assert!(log.value().job("job_1").is_none());
            assert!(log.value().newest_first().is_empty());
        }
    }
}
