//! What was kept is found, by every term, as one record a message.

use clawback::index::{Query, SubjectTerm};
use clawback::journal::Attachment;
use clawback::mail::{MessageId, TenantName};

use crate::store_support::{address, addresses, at, close, find, keep, open, report};

#[tokio::test]
async fn every_term_finds_the_record_and_its_opposite_does_not() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut new = report(1, 1, &["Ana@x.example", "bo@x.example"]);
    new.report.envelope.on_behalf_of = Some(address("boss@other.example"));
    new.report.inner.references = vec![MessageId::new("<thread@sender.example>").unwrap()];
    new.report.inner.url_domains = vec!["evil.example".to_owned()];
    new.report.inner.attachments = vec![Attachment {
        name: Some("invoice.zip".to_owned()),
        sha256: [9; 32],
    }];
    let kept = keep(&store, new).await;
    keep(&store, report(2, 1, &["chi@x.example"])).await;

    let some = |text: &str| Some(text.to_owned());
    let words = |text: &str| SubjectTerm::parse(text);
    let id = |text: &str| MessageId::new(text);
    for (name, query, found) in [
        (
            "record",
            Query {
                record: Some(kept.record),
                ..Query::default()
            },
            1,
        ),
        (
            "Message-ID",
            Query {
                message_id: id("m1@sender.example"),
                ..Query::default()
            },
            1,
        ),
        (
            "another Message-ID",
            Query {
                message_id: id("M1@sender.example"),
                ..Query::default()
            },
            0,
        ),
        (
            "recipient, any case",
            Query {
                recipient: Some(address("ana@X.example")),
                ..Query::default()
            },
            1,
        ),
        (
            "no recipient",
            Query {
                recipient: Some(address("dan@x.example")),
                ..Query::default()
            },
            0,
        ),
        (
            "sender",
            Query {
                sender: Some(address("ceo@sender.example")),
                ..Query::default()
            },
            2,
        ),
        (
            "on behalf of",
            Query {
                sender: Some(address("boss@other.example")),
                ..Query::default()
            },
            1,
        ),
        (
            "domain",
            Query {
                domain: some("OTHER.example"),
                ..Query::default()
            },
            1,
        ),
        (
            "reference",
            Query {
                references: id("thread@sender.example"),
                ..Query::default()
            },
            1,
        ),
        (
            "URL",
            Query {
                url_domain: some("evil.example"),
                ..Query::default()
            },
            1,
        ),
        (
            "attachment",
            Query {
                attachment_sha256: Some([9; 32]),
                ..Query::default()
            },
            1,
        ),
        (
            "no attachment",
            Query {
                attachment_sha256: Some([8; 32]),
                ..Query::default()
            },
            0,
        ),
        (
            "network message id",
            Query {
                network_message_id: some("00000000-0000-4000-8000-000000000001"),
                ..Query::default()
            },
            1,
        ),
        (
            "words in any order",
            Query {
                subject: words("überfällig 1"),
                ..Query::default()
            },
            1,
        ),
        (
            "words of all",
            Query {
                subject: words("INVOICE is"),
                ..Query::default()
            },
            2,
        ),
        (
            "phrase",
            Query {
                subject: words("\"invoice 2 is\""),
                ..Query::default()
            },
            1,
        ),
        (
            "no phrase",
            Query {
                subject: words("\"is invoice\""),
                ..Query::default()
            },
            0,
        ),
        (
            "since",
            Query {
                since: Some(at(3)),
                ..Query::default()
            },
            1,
        ),
        (
            "until is exclusive",
            Query {
                until: Some(at(3)),
                ..Query::default()
            },
            1,
        ),
        (
            "since is inclusive",
            Query {
                since: Some(at(2)),
                until: Some(at(4)),
                ..Query::default()
            },
            2,
        ),
        (
            "recipient and time",
            Query {
                recipient: Some(address("ana@x.example")),
                since: Some(at(3)),
                ..Query::default()
            },
            0,
        ),
        ("everything", Query::default(), 2),
        (
            "limit",
            Query {
                limit: Some(1),
                ..Query::default()
            },
            1,
        ),
        (
            "tenant",
            Query {
                tenant: Some(TenantName::new("contoso")),
                ..Query::default()
            },
            2,
        ),
        (
            "another tenant",
            Query {
                tenant: Some(TenantName::new("fabrikam")),
                ..Query::default()
            },
            0,
        ),
        (
            "another tenant's recipient",
            Query {
                tenant: Some(TenantName::new("fabrikam")),
                recipient: Some(address("ana@x.example")),
                ..Query::default()
            },
            0,
        ),
        (
            "terms of two records",
            Query {
                recipient: Some(address("ana@x.example")),
                subject: words("2"),
                ..Query::default()
            },
            0,
        ),
    ] {
        assert_eq!(find(&store, query).await.len(), found, "{name}");
    }
    let all = find(&store, Query::default()).await;
    assert_eq!(
        all[0].message_id,
        MessageId::new("m2@sender.example"),
        "newest first"
    );
    let json = all[1].json();
    assert_eq!(json["received"], "2026-03-02T12:00:02Z");
    assert_eq!(json["recipients"][0]["address"], "Ana@x.example");
    assert_eq!(json["inner"]["attachments"][0]["sha256"], "09".repeat(32));
    assert_eq!(json["verdict"], serde_json::Value::Null);
    close(store).await;
}

#[tokio::test]
async fn reports_of_a_message_are_one_record_whatever_comes_first() {
    let forks = [
        report(1, 1, &["ana@x.example", "bo@x.example"]),
        {
            let mut late = report(1, 2, &["bo@x.example", "chi@x.example"]);
            late.report.envelope.received = Some(at(60));
            late.report.inner.network_message_id =
                Some("0f8fad5b-d9cb-469f-a165-70867728950e".to_owned());
            late
        },
        report(1, 1, &["ana@x.example", "bo@x.example"]),
    ];
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        let root = tempfile::tempdir().unwrap();
        let store = open(root.path());
        for number in order {
            keep(&store, forks[number].clone()).await;
        }
        for query in [
            Query::default(),
            Query {
                recipient: Some(address("chi@x.example")),
                ..Query::default()
            },
            Query {
                recipient: Some(address("ana@x.example")),
                until: Some(at(3)),
                ..Query::default()
            },
            Query {
                recipient: Some(address("chi@x.example")),
                until: Some(at(3)),
                ..Query::default()
            },
            Query {
                sender: Some(address("ceo@sender.example")),
                since: Some(at(2)),
                ..Query::default()
            },
        ] {
            let found = find(&store, query.clone()).await;
            assert_eq!(found.len(), 1, "{order:?} {query:?}");
            let record = &found[0];
            assert_eq!(
                addresses(record),
                ["ana@x.example", "bo@x.example", "chi@x.example"]
            );
            assert_eq!((record.reports, record.received), (2, at(2)), "{order:?}");
            assert_eq!(record.network_message_ids.len(), 2);
            let chi = record
                .recipients
                .iter()
                .position(|r| r.address == address("chi@x.example"));
            let routes: Vec<_> = record.routes_of(chi.unwrap()).collect();
            assert_eq!(routes, ["0f8fad5b-d9cb-469f-a165-70867728950e"]);
        }
        let late = Query {
            since: Some(at(3)),
            ..Query::default()
        };
        assert_eq!(
            find(&store, late).await.len(),
            0,
            "received is that of the earliest report"
        );
        close(store).await;
    }
}

/// A stranger copies every header of a message: the content differs, so it is a record of its own (T4).
#[tokio::test]
async fn a_copied_header_does_not_join_records() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut forged = report(1, 9, &["victim@x.example"]);
    forged.report.inner.content_digest = Some([1; 32]);
    forged.report.inner.network_message_id =
        Some("11111111-0000-4000-8000-000000000001".to_owned());
    let honest = keep(&store, report(1, 1, &["ana@x.example"])).await;
    let other = keep(&store, forged).await;
    assert_ne!(honest.record, other.record);
    let query = Query {
        message_id: MessageId::new("m1@sender.example"),
        ..Query::default()
    };
    let found = find(&store, query).await;
    assert_eq!(
        found.iter().map(|r| r.recipients.len()).collect::<Vec<_>>(),
        [1, 1]
    );
    close(store).await;
}

/// A report without the journaled message, or with one read in part, joins by the network message id.
#[tokio::test]
async fn a_network_message_id_joins_records() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut partly = report(1, 2, &["bo@x.example"]);
    partly.report.inner.content_digest = None;
    partly.report.inner.partly_read = true;
    let whole = keep(&store, report(1, 1, &["ana@x.example"])).await;
    let part = keep(&store, partly).await;
    assert_ne!(whole.record, part.record);
    for id in [whole.record, part.record] {
        let found = find(
            &store,
            Query {
                record: Some(id),
                ..Query::default()
            },
        )
        .await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].id, found[0].ids.len()), (whole.record, 2));
        assert_eq!(addresses(&found[0]), ["ana@x.example", "bo@x.example"]);
    }
    close(store).await;
}

/// The same report again, even with another message in it, adds nothing (T3).
#[tokio::test]
async fn a_replay_adds_nothing() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut replay = report(1, 1, &["ana@x.example"]);
    replay.report.inner.content_digest = Some([5; 32]);
    replay.report.inner.size = 1;
    for new in [
        report(1, 1, &["ana@x.example"]),
        replay,
        report(1, 1, &["ana@x.example"]),
    ] {
        keep(&store, new).await;
    }
    let found = find(&store, Query::default()).await;
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].reports, found[0].size), (1, 4096));
    assert_eq!(store.stats().partitions[0].repeated, 2);
    close(store).await;
}

#[tokio::test]
async fn tenants_are_never_mixed() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut other = report(1, 1, &["ana@x.example"]);
    other.tenant = TenantName::new("fabrikam");
    keep(&store, report(1, 1, &["ana@x.example"])).await;
    keep(&store, other).await;
    let query = Query {
        recipient: Some(address("ana@x.example")),
        ..Query::default()
    };
    assert_eq!(
        find(&store, query.clone()).await.len(),
        2,
        "all tenants, each its own record"
    );
    for tenant in ["contoso", "fabrikam"] {
        let query = Query {
            tenant: Some(TenantName::new(tenant)),
            ..query.clone()
        };
        let found = find(&store, query).await;
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].tenant.as_str(), found[0].reports), (tenant, 1));
    }
    close(store).await;
}

#[tokio::test]
async fn a_hundred_thousand_recipients_stream_in() {
    let root = tempfile::tempdir().unwrap();
    let store = open(root.path());
    let mut draft = store.begin();
    let all: Vec<String> = (0..100_000).map(|n| format!("user{n}@x.example")).collect();
    for chunk in all.chunks(700) {
        let recipients = chunk
            .iter()
            .map(|a| crate::store_support::recipient(a))
            .collect();
        draft.recipients(recipients).await.unwrap();
    }
    // Recipients whose report never came are not there.
    let mut lost = store.begin();
    let strangers =
        (0..3000).map(|n| crate::store_support::recipient(&format!("lost{n}@x.example")));
    lost.recipients(strangers.collect()).await.unwrap();
    drop(lost);
    let mut new = report(1, 1, &[]);
    new.report.recipient_count = 100_000;
    assert_eq!(draft.commit(new).await.unwrap().recipients, 100_000);
    for number in [0, 999, 1000, 99_999] {
        let who = Some(address(&all[number]));
        let found = find(
            &store,
            Query {
                recipient: who,
                ..Query::default()
            },
        )
        .await;
        assert_eq!(found.len(), 1, "user{number}");
        assert_eq!(found[0].recipients.len(), 100_000);
    }
    let lost = Query {
        recipient: Some(address("lost1@x.example")),
        ..Query::default()
    };
    assert_eq!(find(&store, lost).await.len(), 0);
    assert_eq!(store.stats().recipients, 100_000);
    close(store).await;
}
