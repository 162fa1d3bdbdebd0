//! What a running service looks after by itself: removes what is past its retention, and sends the
//! audit log's head where its cutting would show.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::clock;
use crate::admin::Parts;
use crate::audit::Audit;

/// How often the head of the audit log goes to the system's journal, if it has changed.
const ROUND: Duration = Duration::from_mins(1);
/// Every so many rounds what is past its retention is removed.
const ROUNDS_AN_EXPIRY: u32 = 10;

/// Works until the service stops.
pub(super) async fn run(parts: Parts, stop: CancellationToken) {
    let mut ticks = interval(ROUND);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut round: u32 = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => return,
        }
        let (parts, expiry) = (parts.clone(), round.is_multiple_of(ROUNDS_AN_EXPIRY));
        round = round.wrapping_add(1);
        let done = tokio::task::spawn_blocking(move || {
            if expiry {
                expire(&parts, clock::now());
            }
            tell_head(&parts.audit);
        });
        if let Err(error) = done.await {
            error!(%error, "looking after the store failed");
        }
    }
}

/// Sends the head of the audit log to the system's journal, if it has changed.
pub(super) fn tell_head(audit: &Audit) {
    if let Err(error) = audit.tell_head() {
        error!(%error, "the head of the audit log cannot be kept");
    }
}

/// Removes what is past its retention; nothing while the clock is in doubt.
fn expire(parts: &Parts, now: Timestamp) {
    let Ok(now) = parts.calendar.check(now) else {
        return;
    };
    if let Err(error) = parts.store.expire(now) {
        error!(%error, "old reports cannot be dropped");
    }
    if let Err(error) = parts.quarantine.expire(now) {
        error!(%error, "old messages of the quarantine cannot be dropped");
    }
    let retention = SignedDuration::try_from(parts.config.load().store.audit_retention);
    if let Some(before) = retention
        .ok()
        .and_then(|retention| now.checked_sub(retention).ok())
        && let Err(error) = parts.audit.expire(before)
    {
        error!(%error, "old entries of the audit log cannot be dropped");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::audit::{Action, Entry};
    use crate::cli::service;
    use crate::config::Config;
    use crate::index::NewReport;
    use crate::journal::{Limits, Scanner};
    use crate::mail::TenantName;
    use crate::quarantine::Meta;

    fn hour(hours: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap()
    }

    fn open(root: &Path) -> Parts {
        let text = "[smtp]\nlisten = [\"127.0.0.1:0\"]\n[store]\npath = \"data\"\n";
        let config = Config::parse(text, &root.join("clawback.toml")).unwrap();
        service::open(Arc::new(config), hour(0)).unwrap()
    }

    /// What is there: reports, messages of the quarantine, entries of the audit log.
    fn held(parts: &Parts) -> (u64, usize, usize) {
        parts.store.settle().unwrap();
        let entries = parts.audit.show().count();
        (parts.store.stats().reports, parts.quarantine.len(), entries)
    }

    fn note(at: Timestamp) -> Entry {
        Entry {
            at,
            who: "test".to_owned(),
            uid: None,
            action: Action::Change,
            job: None,
            message_id: None,
            mailbox: None,
            detail: None,
        }
    }

    /// A report, a message of the quarantine and an entry of hour 0; another entry of 40 days later, as the
    /// newest month of the audit log always stays.
    fn fill(parts: &Parts) {
        let mut scanner = Scanner::new(Limits::default());
        scanner.handle_octets(include_bytes!("../../tests/reports/01_inbound.eml"));
        let new = NewReport {
            tenant: TenantName::new("northwind"),
            region: None,
            arrived: hour(0),
            peer: "192.0.2.1".to_owned(),
            report: scanner.finish(),
        };
        let mut importer = parts.store.import().unwrap();
        importer.add(new).unwrap();
        importer.finish().unwrap();
        let meta = Meta {
            tenant: TenantName::new("northwind"),
            received: hour(0),
            peer: "192.0.2.1".to_owned(),
            kind: "not_report".to_owned(),
            reason: "test".to_owned(),
            message_id: None,
            facts: Default::default(),
        };
        parts.quarantine.begin(meta).unwrap().finish().unwrap();
        for days in [0, 40] {
            parts.audit.append(vec![note(hour(days * 24))]).unwrap();
        }
    }

    /// Restarts while the clock is still wrong, looks of all kinds in between: nothing goes before the clock
    /// has run on for a day, and then everything does.
    #[test]
    fn nothing_is_dropped_while_the_clock_is_in_doubt() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _runtime = runtime.enter();
        let root = tempfile::tempdir().unwrap();
        let mut parts = open(root.path());
        fill(&parts);
        for half_hours in 0..=48 {
            expire(&parts, hour(0) + SignedDuration::from_mins(30 * half_hours));
        }
        assert_eq!(held(&parts), (1, 1, 2), "all of it is young");
        let jump = 900 * 24;
        for hours in jump..jump + 24 {
            expire(&parts, hour(hours));
            assert_eq!(
                held(&parts),
                (1, 1, 2),
                "{} hours after the jump",
                hours - jump
            );
            if hours % 5 == 0 {
                parts.store.close();
                drop(parts);
                parts = open(root.path());
            }
        }
        expire(&parts, hour(jump + 24));
        assert_eq!(held(&parts), (0, 0, 1));
        parts.store.close();
        assert!(fs::exists(root.path().join("data/clock")).unwrap());
    }
}
