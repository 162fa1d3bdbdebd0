//! Reports and stores for the tests of the store.

use std::path::Path;

use clawback::index::{Committed, NewReport, Options, Query, Record, Store};
use clawback::journal::{Envelope, Field, Inner, Kind, Outer, Recipient, Report};
use clawback::key::StoreKey;
use clawback::mail::{Address, MessageId, TenantName};
use jiff::{SignedDuration, Timestamp};

/// Midday of a day in 2026.
pub(crate) fn noon() -> Timestamp {
    "2026-03-02T12:00:00Z".parse().unwrap()
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    noon() + SignedDuration::from_secs(seconds)
}

pub(crate) fn address(text: &str) -> Address {
    text.parse().unwrap()
}

pub(crate) fn recipient(text: &str) -> Recipient {
    Recipient {
        address: address(text),
        field: Field::To,
        expanded_from: None,
        forwarded_from: None,
    }
}

/// Options of a store in a directory that also has the key.
pub(crate) fn options(root: &Path) -> Options {
    let path = root.join("store.key");
    let key = StoreKey::load(&path)
        .or_else(|_| StoreKey::create(&path))
        .unwrap();
    Options::new(root.join("data"), key)
}

pub(crate) fn open(root: &Path) -> Store {
    Store::open(options(root)).unwrap()
}

/// Report number `report` of message `message`: other reports of the same message differ in their own
/// Message-ID and envelope only.
pub(crate) fn report(message: u64, report: u64, recipients: &[&str]) -> NewReport {
    let [a, b, ..] = message.to_be_bytes();
    let mut digest = [a ^ b; 32];
    digest[..8].copy_from_slice(&message.to_be_bytes());
    let mut envelope_digest = [7; 32];
    envelope_digest[..8].copy_from_slice(&report.to_be_bytes());
    envelope_digest[8..16].copy_from_slice(&message.to_be_bytes());
    let sent = at(i64::try_from(message).unwrap());
    let id = MessageId::new(&format!("<m{message}@sender.example>"));
    let subject = Some(format!("Invoice {message} is \u{dc}berf\u{e4}llig"));
    let recipients: Vec<_> = recipients.iter().map(|text| recipient(text)).collect();
    NewReport {
        tenant: TenantName::new("contoso"),
        region: None,
        arrived: sent + SignedDuration::from_secs(2),
        peer: "192.0.2.1".to_owned(),
        report: Report {
            kind: Kind::Report,
            outer: Outer {
                message_id: MessageId::new(&format!(
                    "<r{message}-{report}@journal.report.generator>"
                )),
                ..Outer::default()
            },
            envelope: Envelope {
                sender: Some(address("ceo@sender.example")),
                subject: subject.clone(),
                message_id: id.clone(),
                sent: Some(sent),
                received: Some(sent + SignedDuration::from_secs(1)),
                ..Envelope::default()
            },
            envelope_digest,
            recipient_count: recipients.len() as u64,
            recipients,
            inner: Inner {
                present: true,
                from: Some(address("ceo@sender.example")),
                date: Some(sent),
                subject,
                message_id: id,
                network_message_id: Some(format!("00000000-0000-4000-8000-{message:012x}")),
                size: 4096,
                content_digest: Some(digest),
                ..Inner::default()
            },
            problems: Vec::new(),
        },
    }
}

pub(crate) async fn keep(store: &Store, new: NewReport) -> Committed {
    store.begin().commit(new).await.unwrap()
}

/// What a query finds, read on a blocking thread as callers do.
pub(crate) async fn find(store: &Store, query: Query) -> Vec<Record> {
    let store = store.clone();
    let search = move || store.search(&query).collect::<Result<Vec<_>, _>>();
    tokio::task::spawn_blocking(search).await.unwrap().unwrap()
}

pub(crate) async fn close(store: Store) {
    tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
}

pub(crate) fn addresses(record: &Record) -> Vec<&str> {
    let mut addresses: Vec<_> = record
        .recipients
        .iter()
        .map(|r| r.address.as_str())
        .collect();
    addresses.sort_unstable();
    addresses
}
