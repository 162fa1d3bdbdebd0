//! Which copies jobs moved, or are about to move: two jobs at a time never move one copy twice, and none calls a
//! copy gone that another one moved.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::retract::item::Item;
use crate::retract::job::{CopyId, Others};

/// The claims of all jobs.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<All>);

#[derive(Debug, Default)]
struct All {
    copies: HashMap<CopyId, Claim>,
    /// Jobs that run: only these are waited for.
    running: HashSet<Arc<str>>,
}

#[derive(Debug, Default)]
struct Claim {
    /// The job that has a move under way, or in doubt.
    holder: Option<Arc<str>>,
    /// Jobs that sent a move.
    movers: Vec<Arc<str>>,
    /// Counts the moves.
    generation: u32,
}

/// Whether a job may move a copy now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// It may; the claim counts so many moves with this one.
    Granted(u32),
    /// Another job moved it, so many times in all; it may be elsewhere now.
    Moved(u32),
    /// Another job is at it.
    Busy,
}

impl Claims {
    /// A job is about to move a copy; `seen`: the moves that it knows of.
    pub(super) fn hold(&self, copy: &CopyId, job: &str, seen: u32) -> Hold {
        let mut all = self.lock();
        let All { copies, running } = &mut *all;
        let claim = copies.entry(copy.clone()).or_default();
        let holder = claim.holder.as_ref().filter(|holder| &***holder != job);
        if holder.is_some_and(|holder| running.contains(holder)) {
            return Hold::Busy;
        }
        if claim.generation != seen && claim.of_others(job) {
            return Hold::Moved(claim.generation);
        }
        claim.note(job, true);
        claim.generation += 1;
        Hold::Granted(claim.generation)
    }

    /// Takes note of what is stored about an item.
    pub(super) fn note(&self, job: &str, item: &Item) {
        let (Some(mailbox), Some(message)) = (&item.mailbox, &item.message) else {
            return;
        };
        let copy = (mailbox.id.clone(), message.clone());
        let mut all = self.lock();
        if item.asked_at.is_some() {
            let claim = all.copies.entry(copy).or_default();
            if claim.note(job, item.state.under_way()) {
                claim.generation += 1;
            }
        } else if let Some(claim) = all.copies.get_mut(&copy) {
            claim.movers.retain(|mover| &**mover != job);
            claim.holder.take_if(|holder| &**holder == job);
        }
    }

    /// A job begins to run.
    pub(super) fn begins(&self, job: &str) {
        self.lock().running.insert(job.into());
    }

    /// A job runs no more.
    pub(super) fn ends(&self, job: &str) {
        self.lock().running.remove(job);
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The job sent a move, which may be under way still. Returns whether it is the first of this job.
    fn note(&mut self, job: &str, under_way: bool) -> bool {
        let known = self.movers.iter().find(|mover| &***mover == job).cloned();
        let name = known.clone().unwrap_or_else(|| job.into());
        if known.is_none() {
            self.movers.push(Arc::clone(&name));
        }
        if under_way {
            self.holder = Some(name);
        } else {
            self.holder.take_if(|holder| &**holder == job);
        }
        known.is_none()
    }

    fn of_others(&self, job: &str) -> bool {
        let mut others = self.movers.iter().chain(&self.holder);
        others.any(|mover| &**mover != job)
    }
}

/// The claims of the jobs beside this one.
#[derive(Debug)]
pub(super) struct Beside {
    pub(super) claims: Arc<Claims>,
    pub(super) job: String,
}

impl Others for Beside {
    fn moved(&self, copy: &CopyId) -> bool {
        let all = self.claims.lock();
        let claim = all.copies.get(copy);
        claim.is_some_and(|claim| claim.of_others(&self.job))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Absent, Mailbox};
    use crate::graph::api::{ImmutableId, MailboxId};
    use crate::mail::TenantName;
    use crate::retract::item::State;

    fn item(state: State, asked: bool) -> Item {
        let mailbox = Mailbox {
            id: copy().0,
            address: "a@x".parse().unwrap(),
            without: Absent::Unknown,
        };
        let mut item = Item::new(0, "a@x".parse().unwrap(), Some(mailbox));
        item.message = Some(copy().1);
        item.state = state;
        item.asked_at = asked.then(|| "2026-01-31T10:00:00Z".parse().unwrap());
        item
    }

    fn copy() -> CopyId {
        let mailbox = MailboxId {
            tenant: TenantName::new("t"),
            user: "a".into(),
        };
        (mailbox, ImmutableId("c".into()))
    }

    #[test]
    fn a_copy_is_moved_by_one_job_at_a_time() {
        let claims = Claims::default();
        let (one, two) = ("job_1", "job_2");
        claims.begins(one);
        claims.begins(two);
        assert_eq!(claims.hold(&copy(), one, 0), Hold::Granted(1));
        assert_eq!(claims.hold(&copy(), two, 0), Hold::Busy);
        assert_eq!(claims.hold(&copy(), one, 1), Hold::Granted(2), "again");
        claims.note(one, &item(State::Verified, true));
        assert_eq!(claims.hold(&copy(), two, 0), Hold::Moved(2), "look first");
        assert_eq!(claims.hold(&copy(), two, 2), Hold::Granted(3));
    }

    #[test]
    fn what_another_job_moved_is_known_and_what_it_did_not_is_free() {
        let claims = Arc::new(Claims::default());
        let beside = |job: &str| Beside {
            claims: Arc::clone(&claims),
            job: job.to_owned(),
        };
        claims.begins("job_1");
        claims.hold(&copy(), "job_1", 0);
        assert!(beside("job_2").moved(&copy()), "its move may have run");
        assert!(!beside("job_1").moved(&copy()), "its own");
        claims.note("job_1", &item(State::Located, false));
        assert!(!beside("job_2").moved(&copy()), "it did not run");
        assert_eq!(claims.hold(&copy(), "job_2", 0), Hold::Granted(2));
    }

    #[test]
    fn nobody_waits_for_a_job_that_does_not_run() {
        let claims = Claims::default();
        claims.note("job_1", &item(State::Located, true));
        assert_eq!(claims.hold(&copy(), "job_2", 0), Hold::Moved(1));
        assert_eq!(claims.hold(&copy(), "job_2", 1), Hold::Granted(2));
        claims.begins("job_1");
        assert_eq!(claims.hold(&copy(), "job_1", 2), Hold::Granted(3));
    }
}
