//! What reaches a tenant's services: what runs now, what ran, what is throttled, who meets a fault.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::random;
use crate::settings::{Concurrency, Conduct, Fault, FaultKind, Scope, Throttle};
use crate::world::{World, locked};

/// A request that was answered, or was not.
#[derive(Debug, Clone)]
pub struct Request {
    /// When it came.
    pub at: Timestamp,
    /// The method.
    pub method: String,
    /// The path below the version, decoded: `/users/ID/messages`.
    pub path: String,
    /// The query, decoded.
    pub query: String,
    /// Primary address of the mailbox that it was for.
    pub mailbox: Option<String>,
    /// Status of the answer; 0 if there was none.
    pub status: u16,
    /// The batch that it was part of.
    pub batch: Option<u64>,
    /// Whether it asked for immutable ids.
    pub immutable: bool,
}

/// How many there were of what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Graph requests, those within batches included, batches themselves not.
    pub requests: u64,
    /// Requests for mailboxes among them.
    pub outlook: u64,
    /// `$batch` calls.
    pub batches: u64,
    /// Token requests.
    pub tokens: u64,
    /// Answers 429.
    pub throttled: u64,
    /// Faults met.
    pub faults: u64,
    /// Messages moved, `permanentDelete` included.
    pub moves: u64,
    /// Most Outlook requests that ran at once.
    pub peak: u32,
    /// Most that ran at once for one mailbox.
    pub peak_mailbox: u32,
    /// Requests that named a user or an id of another tenant of the same cloud.
    pub foreign: u64,
}

/// The traffic of one tenant.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    running: u32,
    running_mailbox: HashMap<u32, u32>,
    recent: HashMap<u32, VecDeque<Instant>>,
    attempts: HashMap<u64, u32>,
    uses: Vec<u32>,
    next_batch: u64,
    /// Requests in the order of their ends.
    pub(crate) log: Vec<Request>,
    /// Sums.
    pub(crate) counts: Counts,
}

/// What a request is, for throttling and faults.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    /// What tells it from other requests: path and query as sent.
    pub(crate) key: &'a str,
    pub(crate) scope: Scope,
    pub(crate) mailbox: Option<u32>,
}

/// A place among the running requests; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    world: Arc<World>,
    mailbox: Option<u32>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut traffic = locked(&self.world.traffic);
        let Some(mailbox) = self.mailbox else { return };
        traffic.running = traffic.running.saturating_sub(1);
        if let Some(count) = traffic.running_mailbox.get_mut(&mailbox) {
            *count -= 1;
            if *count == 0 {
                traffic.running_mailbox.remove(&mailbox);
            }
        }
    }
}

/// Lets a request run, or says after how many seconds to come again.
pub(crate) fn admit(
    world: &Arc<World>,
    subject: &Subject<'_>,
    throttle: &Throttle,
    now: Instant,
) -> Result<Place, u32> {
    let mut traffic = locked(&world.traffic);
    traffic.counts.requests += 1;
    if let Some(mailbox) = subject.mailbox {
        traffic.counts.outlook += 1;
        if !traffic.admits(mailbox, throttle, now) {
            return Err(throttle.retry_after);
        }
        traffic.running += 1;
        let count = traffic.running_mailbox.entry(mailbox).or_default();
        *count += 1;
        let count = *count;
        traffic.counts.peak_mailbox = traffic.counts.peak_mailbox.max(count);
        traffic.counts.peak = traffic.counts.peak.max(traffic.running);
    }
    Ok(Place {
        world: Arc::clone(world),
        mailbox: subject.mailbox,
    })
}

impl Traffic {
    /// Whether the limits leave room. A refused request counts for the ten minutes as well.
    fn admits(&mut self, mailbox: u32, throttle: &Throttle, now: Instant) -> bool {
        let within = throttle.per_ten_minutes.is_none_or(|limit| {
            let recent = self.recent.entry(mailbox).or_default();
            while recent
                .front()
                .is_some_and(|at| now.duration_since(*at) > Duration::from_secs(600))
            {
                recent.pop_front();
            }
            recent.push_back(now);
            recent.len() <= limit as usize
        });
        let room = match throttle.concurrency {
            Concurrency::Unlimited => true,
            Concurrency::App(limit) => self.running < limit,
            Concurrency::Mailbox(limit) => self
                .running_mailbox
                .get(&mailbox)
                .is_none_or(|count| *count < limit),
        };
        within && room
    }

    /// The number of a new batch.
    pub(crate) fn batch(&mut self) -> u64 {
        self.counts.batches += 1;
        self.next_batch += 1;
        self.next_batch
    }

    /// The fault that a request meets. The same seed gives the same faults, however requests overlap.
    pub(crate) fn fault(
        &mut self,
        seed: u64,
        conduct: &Conduct,
        subject: &Subject<'_>,
    ) -> Option<FaultKind> {
        if conduct.faults.is_empty() {
            return None;
        }
        let key = random::hash(seed, &[subject.method.as_bytes(), subject.key.as_bytes()]);
        let attempt = self.attempts.entry(key).or_default();
        *attempt += 1;
        let attempt = *attempt;
        self.uses.resize(conduct.faults.len(), 0);
        for (number, (fault, uses)) in conduct.faults.iter().zip(&mut self.uses).enumerate() {
            let lot = random::hash(key, &[&number.to_be_bytes(), &attempt.to_be_bytes()]);
            let left = fault.limit.is_none_or(|limit| *uses < limit);
            if applies(fault, subject) && left && random::fraction(lot) < fault.share {
                *uses += 1;
                self.counts.faults += 1;
                return Some(fault.kind.clone());
            }
        }
        None
    }

    /// Forgets how often faults were met: their list has changed.
    pub(crate) fn forget_faults(&mut self) {
        self.uses.clear();
        self.attempts.clear();
    }
}

fn applies(fault: &Fault, subject: &Subject<'_>) -> bool {
    let on = &fault.on;
    (on.scope == Scope::Any || on.scope == subject.scope)
        && on
            .method
            .as_deref()
            .is_none_or(|method| method.eq_ignore_ascii_case(subject.method))
        && subject
            .path
            .to_lowercase()
            .contains(&on.path.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject<'a>(path: &'a str) -> Subject<'a> {
        Subject {
            method: "GET",
            path,
            key: path,
            scope: Scope::Outlook,
            mailbox: Some(0),
        }
    }

    #[test]
    fn faults_follow_from_the_seed_not_from_the_order() {
        let conduct = Conduct {
            faults: vec![Fault::new(FaultKind::Dropped, 0.3)],
            ..Conduct::default()
        };
        let paths: Vec<String> = (0..50)
            .map(|number| format!("/users/{number}/messages"))
            .collect();
        let met = |order: Vec<&String>| {
            let mut traffic = Traffic::default();
            let mut met: Vec<String> = order
                .into_iter()
                .filter(|path| traffic.fault(9, &conduct, &subject(path)).is_some())
                .cloned()
                .collect();
            met.sort();
            met
        };
        let forth = met(paths.iter().collect());
        assert_eq!(forth, met(paths.iter().rev().collect()));
        assert!(
            (5..25).contains(&forth.len()),
            "{} of 50 at 30 %",
            forth.len()
        );
    }

    #[test]
    fn faults_have_limits_and_scopes() {
        let fault = Fault::new(FaultKind::Status(503, Some(1)), 1.0)
            .times(2)
            .path("/move");
        let conduct = Conduct {
            faults: vec![fault],
            ..Conduct::default()
        };
        let mut traffic = Traffic::default();
        assert_eq!(
            traffic.fault(1, &conduct, &subject("/users/1/messages")),
            None
        );
        for expected in [true, true, false] {
            assert_eq!(
                traffic
                    .fault(1, &conduct, &subject("/users/1/messages/2/MOVE"))
                    .is_some(),
                expected
            );
        }
        let directory = Subject {
            scope: Scope::Directory,
            ..subject("/users/1/move")
        };
        assert_eq!(Traffic::default().fault(1, &conduct, &directory), None);
    }
}
