//! Retraction jobs as they survive: each with its records' facts and its items, so that it can go on
//! after any crash and outlives the records.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::log::Fold;
use crate::retract::item::Item;
use crate::retract::job::{Job, JobState};
use crate::segment::Purpose;

/// Every job, by id.
#[derive(Debug, Clone, Default)]
pub struct Jobs(BTreeMap<String, Job>);

/// A change of the jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// A job was asked for.
    Created(Box<Job>),
    /// Items changed, or came to be at the end of the list. What one step changed is one change, so that a
    /// crash never leaves a mailbox with some of its copies.
    Items {
        /// The job.
        job: String,
        /// Positions and the items that are there now.
        items: Vec<(usize, Item)>,
    },
    /// A job got further.
    State {
        /// The job.
        job: String,
        /// How far it is now.
        state: JobState,
    },
}

impl Fold for Jobs {
    const PURPOSE: Purpose = Purpose {
        tag: *b"jobs",
        version: 1,
    };
    type Change = Change;
    type Snapshot = Vec<Job>;

    fn apply(&mut self, change: Change) {
        match change {
            Change::Created(job) => {
                if let Some(id) = job.id.clone() {
                    self.0.insert(id, *job);
                }
            }
            Change::Items { job: id, items } => {
                let Some(job) = self.0.get_mut(&id) else {
                    warn!(job = id, "a change of a job that was never made");
                    return;
                };
                for (position, item) in items {
                    match job.items.get_mut(position) {
                        Some(slot) => *slot = item,
                        // Positions grow one by one, so the next is the end.
                        None => job.items.push(item),
                    }
                }
            }
            Change::State { job, state } => {
                if let Some(job) = self.0.get_mut(&job) {
                    job.state = state;
                }
            }
        }
    }

    fn snapshot(&self) -> Vec<Job> {
        self.whole().cloned().collect()
    }

    fn restore(jobs: Vec<Job>) -> Self {
        Self(
            jobs.into_iter()
                .filter_map(|job| Some((job.id.clone()?, job)))
                .collect(),
        )
    }
}

impl Jobs {
    /// A job.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.0.get(id).filter(|job| is_whole(job))
    }

    /// Every job, the newest first.
    pub fn newest_first(&self) -> Vec<&Job> {
        let mut jobs: Vec<&Job> = self.whole().collect();
        jobs.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| b.id.cmp(&a.id)));
        jobs
    }

    fn whole(&self) -> impl Iterator<Item = &Job> {
        self.0.values().filter(|job| is_whole(job))
    }
}

/// A job is stored as planned until all of its items are: the rest of a crash before that is none.
fn is_whole(job: &Job) -> bool {
    job.state != JobState::Planned
}
