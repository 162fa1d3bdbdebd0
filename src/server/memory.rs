//! The memory that the content of all sessions together may hold (`smtp.max_memory`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A bound on octets, shared by all sessions.
#[derive(Debug, Clone)]
pub(crate) struct Budget(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self(Arc::new(Inner {
            limit: AtomicU64::new(limit),
            used: AtomicU64::new(0),
        }))
    }

    /// A new bound; what is held above it stays until it is given back.
    pub(crate) fn set_limit(&self, limit: u64) {
        self.0.limit.store(limit, Ordering::Relaxed);
    }

    /// Octets that are held now.
    pub(crate) fn used(&self) -> u64 {
        self.0.used.load(Ordering::Relaxed)
    }

    /// A share of the budget that holds nothing yet.
    pub(crate) fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            held: 0,
        }
    }
}

/// What one message holds of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Budget,
    held: u64,
}

impl Share {
    /// Holds `octets` from now on, more or less than before. `false`, and nothing changes, if that
    /// is more than the budget has left.
    #[must_use]
    pub(crate) fn hold(&mut self, octets: u64) -> bool {
        let inner = &self.budget.0;
        if octets <= self.held {
            inner.used.fetch_sub(self.held - octets, Ordering::Relaxed);
        } else {
            let more = octets - self.held;
            let limit = inner.limit.load(Ordering::Relaxed);
            let taken = inner
                .used
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                    used.checked_add(more).filter(|sum| *sum <= limit)
                });
            if taken.is_err() {
                return false;
            }
        }
        self.held = octets;
        true
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.0.used.fetch_sub(self.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stay_within_the_budget_and_give_back() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.share(), budget.share());
        assert!(one.hold(60));
        assert!(!two.hold(41), "over the limit");
        assert_eq!(budget.used(), 60, "a refused hold changes nothing");
        assert!(two.hold(40));
        assert!(one.hold(10));
        assert_eq!(budget.used(), 50);
        drop(one);
        drop(two);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_lower_limit_lets_shares_shrink() {
        let budget = Budget::new(100);
        let mut share = budget.share();
        assert!(share.hold(80));
        budget.set_limit(50);
        assert!(!share.hold(81));
        assert!(share.hold(70), "less than before is always granted");
    }
}
