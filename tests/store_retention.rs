//! Old partitions go as a whole; imported reports go by their own date.

use std::time::Duration;

use clawback::index::{Imported, NewReport, Options, Query, Store};
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

async fn open_for_30_days(root: &std::path::Path) -> Store {
    let options = Options {
        retention: Duration::from_secs(30 * 86_400),
        ..options(root)
    };
    blocking(move || Store::open(options).unwrap()).await
}

/// How many partitions went.
async fn expire(store: &Store, now: Timestamp) -> u64 {
    let store = store.clone();
    blocking(move || store.expire(now).unwrap().partitions).await
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
    let store = open_for_30_days(root.path()).await;
    for day in 0..3 {
        keep(&store, on_day(day, day as u64)).await;
    }
    store.settled().await;
    // A partition is closed by the report that is a day younger than its first.
    close(store).await;
    let store = open_for_30_days(root.path()).await;
    store.settled().await;
    assert_eq!(expire(&store, at(31 * DAY)).await, 0);
    assert_eq!(expire(&store, at(31 * DAY + 60)).await, 1);
    let left = find(&store, Query::default()).await;
    let first = MessageId::new("m0@sender.example");
    assert!(left.iter().all(|record| record.message_id != first));
    assert!(!left.is_empty() && left.len() < 3, "the last one stays");
    assert_eq!(store.stats().reports, left.len() as u64);
    close(store).await;
}

#[tokio::test]
async fn imports_are_idempotent_and_expire_by_their_own_date() {
    let root = tempfile::tempdir().unwrap();
    let store = open_for_30_days(root.path()).await;
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
    let store = open_for_30_days(root.path()).await;
    assert_eq!(find(&store, Query::default()).await.len(), 5);
    assert_eq!(expire(&store, at(3600)).await, 0);
    assert_eq!(expire(&store, at(60 * 3600)).await, 1);
    let left = find(&store, Query::default()).await;
    assert_eq!(left.len(), 4, "the one of 29 days before is gone");
    assert_eq!(left[0].received, noon() + SignedDuration::ZERO);
    close(store).await;
}

/// A report that waited in the quarantine arrived long before those that come in now.
#[tokio::test]
async fn reports_that_arrived_long_ago_close_no_partition() {
    let root = tempfile::tempdir().unwrap();
    let store = open_for_30_days(root.path()).await;
    for number in 0..6 {
        keep(&store, on_day(0, 2 * number)).await;
        keep(&store, on_day(-10, 2 * number + 1)).await;
        store.settled().await;
    }
    assert_eq!(store.stats().partitions.len(), 1);
    close(store).await;
}

/// Nobody knows what stood in a report that the disk lost: retention leaves its partition.
#[tokio::test]
async fn a_partition_with_damage_is_not_dropped() {
    let root = tempfile::tempdir().unwrap();
    let log = |number: u32| root.path().join(format!("data/log/{number:08}-0001.log"));
    let store = open_for_30_days(root.path()).await;
    for day in 0..5 {
        keep(&store, on_day(day, day as u64)).await;
    }
    close(store).await;
    let mut octets = std::fs::read(log(1)).unwrap();
    *octets.last_mut().unwrap() ^= 1;
    std::fs::write(log(1), octets).unwrap();
    let options = options(root.path());
    blocking(move || Store::reindex(options).unwrap()).await;
    let store = open_for_30_days(root.path()).await;
    expire(&store, at(400 * DAY)).await;
    assert!(log(1).exists() && !log(2).exists());
    close(store).await;
}
