//! Trouble that may come a thousand times a second is told once a minute, with how often it came.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{debug, error, warn};

use crate::smtp::{Deferral, Reason, Refusal};

/// Not more often than this is the same trouble told.
const INTERVAL: Duration = Duration::from_secs(60);

/// What was told when, by the kind of trouble.
#[derive(Debug, Default)]
pub(super) struct Complaints(Mutex<BTreeMap<Reason, Told>>);

#[derive(Debug)]
struct Told {
    at: Instant,
    /// How often it came since then.
    since: u64,
}

impl Complaints {
    /// A message cannot be taken now.
    pub(super) fn deferred(
        &self,
        why: Deferral,
        tenant: &str,
        session: u64,
        error: &str,
        now: Instant,
    ) {
        let reason = why.reason();
        debug!(tenant, session, reason = reason.as_str(), error = ?error, "message deferred");
        let Some(times) = self.due(reason, now) else {
            return;
        };
        let reason = reason.as_str();
        let mend = match why {
            Deferral::Memory => "raise smtp.max_memory if this lasts",
            Deferral::QuarantineFull => {
                "look at \"clawback quarantine list\", drop what nobody needs or raise store.quarantine"
            }
            Deferral::StorageFull => "free space on the disk of store.path",
            Deferral::StorageFailed => "look at the disk of store.path",
            Deferral::ShuttingDown => "it comes again after the start",
            Deferral::Internal => "this is a defect of the program",
        };
        let text = format!("a message is put off and its sender tries again; {mend}");
        match why {
            Deferral::Memory | Deferral::QuarantineFull | Deferral::ShuttingDown => {
                warn!(tenant, session, reason, times, error = ?error, "{text}");
            }
            Deferral::StorageFull | Deferral::StorageFailed | Deferral::Internal => {
                error!(tenant, session, reason, times, error = ?error, "{text}");
            }
        }
    }

    /// A connection was turned away.
    pub(super) fn refused(
        &self,
        why: Refusal,
        peer: std::net::IpAddr,
        connections: usize,
        now: Instant,
    ) {
        debug!(%peer, reason = ?why, "connection refused");
        if let Some(times) = self.due(why.reason(), now) {
            let reason = why.reason().as_str();
            warn!(%peer, reason, times, connections, "a connection is turned away; raise \
                  smtp.max_connections or smtp.max_connections_per_peer if Exchange Online's are");
        }
    }

    /// Whether to tell of this trouble now: how often it came since it was told last, this time
    /// included.
    fn due(&self, reason: Reason, now: Instant) -> Option<u64> {
        // Nothing panics while it is held, and if it did, what it guards would still be right.
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = told.get_mut(&reason);
        let mut since = 1;
        if let Some(known) = known {
            known.since += 1;
            if now.saturating_duration_since(known.at) < INTERVAL {
                return None;
            }
            since = known.since;
        }
        told.insert(reason, Told { at: now, since: 0 });
        Some(since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::clock;

    #[test]
    fn the_same_trouble_is_told_once_a_minute() {
        let complaints = Complaints::default();
        let start = clock::now();
        for (name, second, reason, expected) in [
            ("the first", 0, Reason::Memory, Some(1)),
            ("again", 1, Reason::Memory, None),
            ("another trouble", 1, Reason::StorageFull, Some(1)),
            ("still", 59, Reason::Memory, None),
            ("a minute later", 60, Reason::Memory, Some(3)),
            ("then again", 61, Reason::Memory, None),
            ("after a long time", 600, Reason::Memory, Some(2)),
        ] {
            let now = start + Duration::from_secs(second);
            assert_eq!(complaints.due(reason, now), expected, "{name}");
        }
    }
}
