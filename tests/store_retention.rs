//! Old partitions go as a whole; imported reports go by their own date.

use std::time::Duration;

use clawback::index::{Imported, NewReport, Options, Query, Store, StoreError};
use clawback::mail::MessageId;
use jiff::{SignedDuration, Timestamp};

use crate::store_support::{at, close, find, keep, noon, options, report};

const DAY: i64 = 86_400;

/// A report of so many days after [`noon`].
fn on_day(day: i64, message: u64) -> NewReport {
    let mut new = report(message, 1, &["ana@x.example"]);
    new.arrived = at(day * DAY);
    new.report.envelope.received = Some(at(day * DAY));
    new.report.envelope.sent = Some(at(day * DAY));
    new
}

async fn blocking<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(task).await.unwrap()
}

async fn open_until(root: &std::path::Path, now: Timestamp) -> Store {
    let options = Options {
        retention: Duration::from_secs(30 * 86_400),
        ..options(root)
    };
    blocking(move || Store::open(options, now).unwrap()).await
}

async fn expire(store: &Store, now: Timestamp) -> Result<u64, StoreError> {
    let store = store.clone();
    blocking(move || store.expire(now).map(|expired| expired.partitions)).await
}

async fn import(store: &Store, reports: Vec<NewReport>) -> Vec<bool> {
    let store = store.clone();
    blocking(move || {
        let mut importer = store.import().unwrap();
        let new = reports
            .into_iter()
            .map(|report| matches!(importer.add(report).unwrap(), Imported::New(_)))
            .collect();
        importer.finish().unwrap();
        new
    })
    .await
}

#[tokio::test]
async fn partitions_go_when_their_newest_report_is_old() {
    let root = tempfile::tempdir().unwrap();
    let store = open_until(root.path(), noon()).await;
    for day in 0..3 {
        keep(&store, on_day(day, day as u64)).await;
    }
    store.settled().await;
    // A partition is closed by the report that is a day younger than its first.
    close(store).await;
    let store = open_until(root.path(), at(3 * DAY - 60)).await;
    store.settled().await;
    // The clock runs on, an hour at a time.
    let mut dropped = 0;
    for hour in 0..(28 * 24 + 12) {
        dropped += expire(&store, at(3 * DAY + hour * 3600)).await.unwrap_or(0);
    }
    assert!(dropped >= 1, "the first partition is gone");
    let left = find(&store, Query::default()).await;
    let first = MessageId::new("m0@sender.example");
    assert!(left.iter().all(|record| record.message_id != first));
    assert!(!left.is_empty() && left.len() < 3, "the last one stays");
    assert_eq!(store.stats().reports, left.len() as u64);
    close(store).await;
}

/// A clock that is days ahead must not empty the store (T22).
#[tokio::test]
async fn a_clock_that_jumped_drops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open_until(root.path(), noon()).await;
    import(&store, vec![on_day(0, 1)]).await;
    let jumped = expire(&store, at(400 * DAY)).await;
    assert!(
        matches!(jumped, Err(StoreError::ClockJumped { .. })),
        "{jumped:?}"
    );
    assert_eq!(find(&store, Query::default()).await.len(), 1);
    close(store).await;
    // A restart does not make it believed.
    let store = open_until(root.path(), noon()).await;
    let jumped = expire(&store, at(400 * DAY)).await;
    assert!(
        matches!(jumped, Err(StoreError::ClockJumped { .. })),
        "{jumped:?}"
    );
    close(store).await;
}

#[tokio::test]
async fn imports_are_idempotent_and_expire_by_their_own_date() {
    let root = tempfile::tempdir().unwrap();
    let store = open_until(root.path(), noon()).await;
    keep(&store, on_day(0, 1)).await;
    let reports = || {
        vec![
            on_day(0, 1),
            on_day(-20, 2),
            on_day(-29, 3),
            on_day(-20, 2),
            on_day(-20, 4),
        ]
    };
    assert_eq!(
        import(&store, reports()).await,
        [false, true, true, false, true]
    );
    assert_eq!(import(&store, reports()).await, [false; 5]);
    assert_eq!(find(&store, Query::default()).await.len(), 4);
    // More of a day that is there already.
    assert_eq!(import(&store, vec![on_day(-20, 5)]).await, [true]);
    close(store).await;
    let store = open_until(root.path(), at(60)).await;
    assert_eq!(find(&store, Query::default()).await.len(), 5);
    assert_eq!(expire(&store, at(3600)).await.unwrap(), 0);
    for hour in 1..60 {
        expire(&store, at(hour * 3600)).await.unwrap();
    }
    let left = find(&store, Query::default()).await;
    assert_eq!(left.len(), 4, "the one of 29 days before is gone");
    assert_eq!(left[0].received, noon() + SignedDuration::ZERO);
    close(store).await;
}
