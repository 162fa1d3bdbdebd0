//! How fast Graph may be asked. Pure: `now` is passed, waiting is the driver's.
//!
//! Graph runs 4 requests at once for a mailbox (by another page, for the whole application), refuses the
//! fifth with 429, and says how long to wait. A batch of 20 runs 4 wide, so it counts as 4 against the
//! application's ceiling; against a mailbox every request of a batch counts.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::api::{BATCH_REQUESTS, MailboxId};

/// Requests at once that Graph allows for one mailbox.
pub const MAILBOX_REQUESTS: usize = 4;

/// Requests of one batch that Graph runs at once.
pub const BATCH_WIDTH: usize = 4;

/// Whose allowance a request uses: a mailbox's, or (`None`) the directory's.
pub type Key = Option<MailboxId>;

/// The gate of one application in one tenant, for all jobs together.
#[derive(Debug)]
pub struct Gate {
    limit: usize,
    running: usize,
    not_before: Option<Instant>,
    places: HashMap<Key, Place>,
}

#[derive(Debug, Default)]
struct Place {
    running: usize,
    not_before: Option<Instant>,
}

impl Place {
    fn wait(&mut self, until: Instant) {
        self.not_before = Some(self.not_before.map_or(until, |old| old.max(until)));
    }
}

/// What may be sent now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The candidates at these positions, as one batch; give `width` back to [`Gate::finish`].
    Go {
        /// Positions among the candidates.
        chosen: Vec<usize>,
        /// What the batch takes of the application's ceiling.
        width: usize,
    },
    /// Nothing before this instant.
    Until(Instant),
    /// Nothing before something that is running ends.
    Busy,
}

/// How a request ended, as far as pacing cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Answered, well or not.
    Answered,
    /// Refused with 429: this long nothing for this mailbox.
    Throttled(Duration),
    /// 503 or 504 with a wait: this long nothing for this mailbox.
    Unavailable(Duration),
}

impl Gate {
    /// A gate with a ceiling of requests at once over all mailboxes (at least 1).
    pub fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            running: 0,
            not_before: None,
            places: HashMap::new(),
        }
    }

    /// Chooses a batch among candidates, most urgent first, and counts it as running.
    ///
    /// What is chosen: no mailbox has more than [`MAILBOX_REQUESTS`] running, none that was asked to wait is
    /// asked again before, and the ceiling holds. One throttled mailbox does not hold up the others.
    pub fn admit<'a>(
        &mut self,
        candidates: impl IntoIterator<Item = &'a Key>,
        now: Instant,
    ) -> Admission {
        if let Some(until) = self.not_before.filter(|until| *until > now) {
            return Admission::Until(until);
        }
        let free = self.limit.saturating_sub(self.running);
        if free == 0 {
            return Admission::Busy;
        }
        // With less than a batch's width free, only as many requests go as may run.
        let most = if free >= BATCH_WIDTH {
            BATCH_REQUESTS
        } else {
            free
        };
        let (mut chosen, mut wake) = (Vec::new(), None::<Instant>);
        for (position, key) in candidates.into_iter().enumerate() {
            if chosen.len() == most {
                break;
            }
            let place = self.places.entry(key.clone()).or_default();
            if let Some(until) = place.not_before.filter(|until| *until > now) {
                wake = Some(wake.map_or(until, |wake| wake.min(until)));
            } else if key.is_none() || place.running < MAILBOX_REQUESTS {
                place.running += 1;
                chosen.push(position);
            }
        }
        if chosen.is_empty() {
            return wake.map_or(Admission::Busy, Admission::Until);
        }
        let width = chosen.len().min(BATCH_WIDTH);
        self.running += width;
        Admission::Go { chosen, width }
    }

    /// A batch ended: `width` as given by [`admit`](Self::admit), and each of its requests.
    pub fn finish<'a>(
        &mut self,
        width: usize,
        requests: impl IntoIterator<Item = (&'a Key, Ended)>,
        now: Instant,
    ) {
        self.running = self.running.saturating_sub(width);
        let (mut mailboxes, mut throttled) = (HashSet::new(), Vec::new());
        let mut all = true;
        for (key, ended) in requests {
            let place = self.places.entry(key.clone()).or_default();
            place.running = place.running.saturating_sub(1);
            mailboxes.insert(key);
            match ended {
                Ended::Answered => all = false,
                Ended::Throttled(wait) => {
                    place.wait(now + wait);
                    throttled.push(wait);
                }
                Ended::Unavailable(wait) => {
                    place.wait(now + wait);
                    all = false;
                }
            }
        }
        // Nothing of a whole batch was let through: it is the application that asks too much.
        if all
            && mailboxes.len() >= BATCH_WIDTH
            && let Some(shortest) = throttled.into_iter().min()
        {
            self.hold(shortest, now);
        }
        self.places.retain(|_, place| {
            place.running > 0 || place.not_before.is_some_and(|until| until > now)
        });
    }

    /// The application as a whole was asked to wait.
    pub fn hold(&mut self, wait: Duration, now: Instant) {
        let until = now + wait;
        self.not_before = Some(self.not_before.map_or(until, |old| old.max(until)));
    }

    /// When the application may ask again, if it has to wait.
    pub fn held_until(&self, now: Instant) -> Option<Instant> {
        self.not_before.filter(|until| *until > now)
    }

    /// The ceiling of requests at once over all mailboxes.
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// Requests that run now, as they count against the ceiling.
    pub fn running(&self) -> usize {
        self.running
    }
}

/// Waits between repetitions of one request: doubling, with jitter, so that many do not return at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, before jitter.
    pub first: Duration,
    /// The longest one.
    pub longest: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(120),
        }
    }
}

impl Backoff {
    /// The wait before repetition `attempt` (from 0): between half and all of the doubled first wait, chosen by
    /// `seed`.
    pub fn wait(&self, attempt: u32, seed: u64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(2u32.saturating_pow(attempt.min(30)));
        let full = doubled.min(self.longest);
        // 53 bits: an exact fraction of 1.
        let fraction = (mix(seed ^ u64::from(attempt)) >> 11) as f64 / (1u64 << 53) as f64;
        full.mul_f64(0.5 + fraction / 2.0)
    }
}

/// SplitMix64: one number, well mixed.
fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "an instant to count from")]

    use super::*;
    use crate::mail::TenantName;
    use proptest::prelude::*;

    fn key(name: &str) -> Key {
        Some(MailboxId {
            tenant: TenantName::new("t"),
            user: name.into(),
        })
    }

    fn go(gate: &mut Gate, keys: &[Key], now: Instant) -> (Vec<usize>, usize) {
        match gate.admit(keys, now) {
            Admission::Go { chosen, width } => (chosen, width),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_mailbox_never_has_more_than_four() {
        let (mut gate, now) = (Gate::new(16), Instant::now());
        let keys: Vec<Key> = ["a", "a", "a", "b", "a", "a", "b"].map(key).into();
        assert_eq!(go(&mut gate, &keys, now), (vec![0, 1, 2, 3, 4, 6], 4));
        let again = [key("a")];
        assert_eq!(gate.admit(&again, now), Admission::Busy);
        gate.finish(4, [(&key("a"), Ended::Answered)], now);
        assert_eq!(go(&mut gate, &again, now), (vec![0], 1));
    }

    #[test]
    fn a_batch_counts_four_of_the_ceiling() {
        let (mut gate, now) = (Gate::new(6), Instant::now());
        let keys: Vec<Key> = (0..30).map(|n| key(&n.to_string())).collect();
        let (first, width) = go(&mut gate, &keys, now);
        assert_eq!((first.len(), width), (BATCH_REQUESTS, 4));
        let (second, width) = go(&mut gate, &keys, now);
        assert_eq!((second.len(), width), (2, 2));
        assert_eq!(gate.admit(&keys, now), Admission::Busy);
    }

    #[test]
    fn a_throttled_mailbox_waits_and_the_others_do_not() {
        let (mut gate, now) = (Gate::new(4), Instant::now());
        let (a, b) = (key("a"), key("b"));
        let wait = Duration::from_secs(7);
        let (_, width) = go(&mut gate, std::slice::from_ref(&a), now);
        gate.finish(width, [(&a, Ended::Throttled(wait))], now);
        assert_eq!(gate.admit([&a], now), Admission::Until(now + wait));
        assert_eq!(go(&mut gate, &[a.clone(), b], now), (vec![1], 1));
        assert_eq!(go(&mut gate, &[a], now + wait), (vec![0], 1));
    }

    #[test]
    fn a_batch_that_is_throttled_whole_holds_the_application() {
        use Ended::{Answered, Throttled, Unavailable};
        let seconds = Duration::from_secs;
        let (short, long) = (Throttled(seconds(3)), Throttled(seconds(600)));
        for (name, ended, held) in [
            ("all", [short, long, long, long], Some(seconds(3))),
            ("two of four", [long, long, Answered, Answered], None),
            ("all but one", [long, long, long, Answered], None),
            ("busy mailboxes", [Unavailable(seconds(9)); 4], None),
        ] {
            let (mut gate, now) = (Gate::new(4), Instant::now());
            let keys = ["a", "b", "c", "d"].map(key);
            let (_, width) = go(&mut gate, &keys, now);
            gate.finish(width, keys.iter().zip(ended), now);
            let held = held.map(|wait| now + wait);
            assert_eq!(gate.held_until(now), held, "{name}");
            let until = held.unwrap_or(now);
            assert_eq!(go(&mut gate, &[key("e")], until), (vec![0], 1), "{name}");
            let first = gate.admit(&keys[..1], now);
            assert_ne!(first, Admission::Busy, "{name}: it waits by itself");
            assert!(matches!(first, Admission::Until(_)), "{name}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = Backoff {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(10),
        };
        for (attempt, full) in [
            (0, 1.0),
            (1, 2.0),
            (2, 4.0),
            (3, 8.0),
            (4, 10.0),
            (99, 10.0),
        ] {
            for seed in 0..50 {
                let wait = backoff.wait(attempt, seed).as_secs_f64();
                assert!((full / 2.0..=full).contains(&wait), "{attempt}: {wait}");
            }
        }
        assert_eq!(backoff.wait(2, 7), backoff.wait(2, 7));
        assert_ne!(backoff.wait(2, 7), backoff.wait(2, 8));
    }

    proptest! {
        /// Whatever is asked and however it ends, no limit is ever exceeded.
        #[test]
        fn limits_hold(limit in 1usize..30, asks in prop::collection::vec((0u8..6, 1usize..30, any::<bool>()), 1..60)) {
            let (mut gate, now) = (Gate::new(limit), Instant::now());
            let mut running: Vec<(usize, Vec<Key>)> = Vec::new();
            for (mailbox, count, finish) in asks {
                let keys: Vec<Key> = (0..count).map(|n| key(&((usize::from(mailbox) + n % 3) % 6).to_string())).collect();
                if let Admission::Go { chosen, width } = gate.admit(&keys, now) {
                    prop_assert!(chosen.len() <= BATCH_REQUESTS);
                    running.push((width, chosen.into_iter().map(|n| keys[n].clone()).collect()));
                }
                prop_assert!(gate.running() <= limit);
                let mut counts: HashMap<&Key, usize> = HashMap::new();
                for key in running.iter().flat_map(|(_, keys)| keys) {
                    *counts.entry(key).or_default() += 1;
                }
                prop_assert!(counts.values().all(|count| *count <= MAILBOX_REQUESTS));
                if finish && let Some((width, keys)) = running.pop() {
                    gate.finish(width, keys.iter().map(|key| (key, Ended::Answered)), now);
                }
            }
            while let Some((width, keys)) = running.pop() {
                gate.finish(width, keys.iter().map(|key| (key, Ended::Answered)), now);
            }
            prop_assert_eq!(gate.running(), 0);
        }
    }
}
