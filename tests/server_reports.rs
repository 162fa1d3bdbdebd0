//! What becomes of a message: index, quarantine, or try again.

use clawback::calendar::Calendar;
use clawback::mail::TenantName;
use jiff::{SignedDuration, Timestamp};

use crate::support::service::{JOURNAL, OTHER_JOURNAL, changed, config_text};
use crate::support::{Mail, Service};

#[tokio::test]
async fn a_report_is_recorded_then_acknowledged() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let id = "recorded@tailspin.example";
    let reply = client
        .deliver("", JOURNAL, &Mail::new(id).with_recipients(3).report())
        .await;
    assert_eq!(reply.text(), "250 2.0.0 report recorded, 3 recipients");
    let records = service.records(id).await;
    assert_eq!(records.len(), 1);
    let addresses: Vec<_> = records[0]
        .recipients
        .iter()
        .map(|one| one.address.as_str())
        .collect();
    assert_eq!(
        addresses,
        [
            "user0@contoso.example",
            "user1@contoso.example",
            "user2@contoso.example"
        ]
    );
    let feeds = service.receiver.feeds();
    assert!(
        feeds[0].last_report.is_some() && feeds[0].rate_1m > 0.0,
        "{feeds:?}"
    );
    assert_eq!(
        feeds[1].last_report, None,
        "the other tenant's feed is silent"
    );
}

/// Both reverse-paths that Exchange uses, DATA and BDAT, any cut.
#[tokio::test]
async fn every_way_of_sending_records_the_same() {
    let service = Service::start().await;
    let mut client = service.client().await;
    for (number, chunk) in [1000, 7, 100_000].into_iter().enumerate() {
        let id = format!("bdat-{number}@tailspin.example");
        let content = Mail::new(&id).with_recipients(5).report();
        let from = "journal-ndr@contoso.example";
        let reply = client
            .deliver_chunked(from, JOURNAL, content.as_bytes(), chunk)
            .await;
        assert_eq!(reply.text(), "250 2.0.0 report recorded, 5 recipients");
        assert_eq!(service.records(&id).await.len(), 1, "chunks of {chunk}");
    }
}

/// Exchange Online sends messages that hold bare LF by BDAT only; they must not be lost.
#[tokio::test]
async fn bare_line_feeds_in_the_content_lose_nothing() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let id = "bare-lf@tailspin.example";
    let mut mail = Mail::new(id);
    mail.body = "a line\nanother\n.\nand\r.\r\n".to_owned();
    let reply = client
        .deliver_chunked("", JOURNAL, mail.report().as_bytes(), 500)
        .await;
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(service.records(id).await.len(), 1);
}

/// What is not proven to come from the tenant is acknowledged, kept aside, and never found.
#[tokio::test]
async fn what_is_not_believed_is_quarantined() {
    let service = Service::start().await;
    let mail = |name: &str| Mail::new(&format!("{name}@tailspin.example"));
    let cases: Vec<(&str, &str, Mail, &str)> = vec![
        (
            "no-stamp",
            JOURNAL,
            Mail {
                originator_org: None,
                tenant_id: None,
                ..mail("no-stamp")
            },
            "report",
        ),
        (
            "foreign-org",
            JOURNAL,
            Mail {
                originator_org: Some("attacker.example".into()),
                tenant_id: None,
                ..mail("foreign-org")
            },
            "report",
        ),
        (
            "foreign-tenant",
            JOURNAL,
            Mail {
                tenant_id: Some("00000000-2222-4333-8444-555555555555".into()),
                ..mail("foreign-tenant")
            },
            "report",
        ),
        (
            "unlisted-peer",
            OTHER_JOURNAL,
            Mail {
                originator_org: Some("fabrikam.example".into()),
                tenant_id: None,
                ..mail("unlisted-peer")
            },
            "report",
        ),
        (
            "other-tenants-address",
            OTHER_JOURNAL,
            mail("other-tenants-address"),
            "report",
        ),
        (
            "no-report",
            JOURNAL,
            Mail {
                marked: false,
                ..mail("no-report")
            },
            "not_report",
        ),
    ];
    for (number, (name, to, mail, kind)) in cases.into_iter().enumerate() {
        let mut client = service.client().await;
        let content = mail.report();
        let reply = client.deliver("", to, &content).await;
        assert_eq!(reply.code, 250, "{name}: {reply:?}");
        assert!(
            service.records(&mail.message_id).await.is_empty(),
            "{name}: found by its Message-ID"
        );
        let kept = service.quarantined();
        assert_eq!(kept.len(), number + 1, "{name}");
        let entry = kept.iter().find(|entry| {
            entry
                .meta
                .message_id
                .as_ref()
                .is_some_and(|id| id.contains(name))
        });
        let entry = entry.unwrap_or_else(|| panic!("{name}: {kept:?}"));
        assert_eq!(entry.meta.kind, kind, "{name}");
        assert_eq!(entry.size, content.len() as u64, "{name}: whole");
        assert_eq!(
            service.quarantined_octets(entry),
            content.as_bytes(),
            "{name}: octet for octet"
        );
    }
}

/// A captured report that is sent again adds nothing.
#[tokio::test]
async fn a_replayed_report_adds_nothing() {
    let service = Service::start().await;
    let id = "replay@tailspin.example";
    let content = Mail::new(id).with_recipients(4).report();
    for _ in 0..3 {
        let mut client = service.client().await;
        let reply = client.deliver("", JOURNAL, &content).await;
        assert_eq!(reply.code, 250, "{reply:?}");
    }
    let records = service.records(id).await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].recipients.len(), 4);
    assert_eq!(records[0].reports, 1);
}

/// Two reports of one message are one record with the recipients of both.
#[tokio::test]
async fn forks_are_merged() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let id = "fork@tailspin.example";
    for (number, recipient) in ["dana", "eli"].into_iter().enumerate() {
        let mut mail = Mail::new(id);
        mail.report_id = format!("fork-{number}@journal.report.generator");
        mail.recipients = vec![format!("Recipient: {recipient}@contoso.example")];
        assert_eq!(client.deliver("", JOURNAL, &mail.report()).await.code, 250);
    }
    let records = service.records(id).await;
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].recipients.len(), records[0].reports), (2, 2));
}

#[tokio::test]
async fn many_recipients_are_recorded_and_too_many_are_quarantined() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nmax_recipients_per_report = 5000",
    )]);
    let service = Service::with(&config).await;
    let mut client = service.client().await;
    for (id, count, found) in [("most@x.example", 5000, 1), ("too-many@x.example", 5001, 0)] {
        let content = Mail::new(id).with_recipients(count).report();
        let reply = client.deliver("", JOURNAL, &content).await;
        assert_eq!(reply.code, 250, "{id}: {reply:?}");
        let records = service.records(id).await;
        assert_eq!(records.len(), found, "{id}");
        if let Some(record) = records.first() {
            assert_eq!(record.recipients.len(), count, "{id}");
        }
    }
    let kept = service.quarantined();
    assert_eq!(kept.len(), 1);
    let content = Mail::new("too-many@x.example")
        .with_recipients(5001)
        .report();
    assert_eq!(
        service.quarantined_octets(&kept[0]),
        content.as_bytes(),
        "whole"
    );
}

/// Headers over the bound and nesting without end: the outer header decides what it is, so the report
/// is kept whole; within the journaled message they cost what is read of that, and nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bombs_cost_what_is_read_of_them() {
    let filler = format!("X-Filler: {}\r\n", "x".repeat(52)).repeat((10 << 20) / 64);
    let service = Service::start().await;
    let mut client = service.client().await;

    let content = filler.clone() + &Mail::new("outer@tailspin.example").report();
    let reply = client.deliver("", JOURNAL, &content).await;
    assert_eq!(reply.text(), "250 2.0.0 message quarantined");
    assert!(service.records("outer@tailspin.example").await.is_empty());
    let kept = service.quarantined();
    assert_eq!(kept.len(), 1);
    assert_eq!(kept[0].meta.kind, "malformed");
    assert!(kept[0].meta.reason.contains("outer header"), "{kept:?}");
    assert!(
        service.quarantined_octets(&kept[0]) == content.as_bytes(),
        "octet for octet"
    );

    let mut header = Mail::new("header@tailspin.example");
    header.inner_header = filler;
    let mut nested = Mail::new("nested@tailspin.example");
    let multipart = |level| format!("Content-Type: multipart/mixed; boundary=b{level}x\r\n");
    nested.inner_header = multipart(0);
    nested.body = (0..100_000)
        .map(|level| format!("--b{level}x\r\n{}\r\n", multipart(level + 1)))
        .collect();
    for mail in [header, nested] {
        let id = &mail.message_id;
        let reply = client.deliver("", JOURNAL, &mail.report()).await;
        assert_eq!(reply.text(), "250 2.0.0 report recorded, 1 recipients");
        let records = service.records(id).await;
        assert_eq!(records.len(), 1, "{id}");
        let record = &records[0];
        assert!(record.inner.present && record.inner.partly_read, "{id}");
        assert_eq!(record.subject.as_deref(), Some("Invoice 4711"), "{id}");
        assert_eq!(record.recipients.len(), 1, "{id}");
    }
}

/// Addresses of any length: those that are too long are none, and the report is taken. It is not put
/// off for ever because it fits into no frame of the log.
#[tokio::test]
async fn overlong_addresses_do_not_keep_a_report_out() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let mut mail = Mail::new("overlong@x.example").with_recipients(2);
    let long = "a".repeat(250_000);
    for number in 0..70 {
        let line = format!("To: g{number}@contoso.example, Expanded: {long}@x.example");
        mail.recipients.push(line);
    }
    mail.recipients.push(format!("To: {long}@contoso.example"));
    let reply = client.deliver("", JOURNAL, &mail.report()).await;
    assert_eq!(reply.text(), "250 2.0.0 report recorded, 72 recipients");
    let records = service.records("overlong@x.example").await;
    assert_eq!(records[0].recipients.len(), 72);
}

/// Recipients that wait for their frame are within the memory that all sessions share.
#[tokio::test]
async fn recipients_under_way_are_accounted_for() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let mut mail = Mail::new("accounted@x.example");
    let long = "a".repeat(1900);
    let line = |number| format!("To: g{number}@contoso.example, Expanded: {long}@x.example");
    mail.recipients = (0..1000).map(line).collect();
    let content = mail.report();
    // As far as the thousandth recipient: they are handed on, and fill no frame yet.
    let (head, _) = content.split_at(content.find("To: g999@").unwrap() + 2000);
    let commands = format!(
        "MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nBDAT {}\r\n",
        head.len()
    );
    client.send(commands.as_bytes()).await;
    client.send(head.as_bytes()).await;
    for _ in 0..3 {
        assert_eq!(client.reply().await.code, 250);
    }
    let held = service.receiver.content_memory();
    assert!(held >= 1000 * 1900, "{held} octets");
}

/// Exchange Online validates a connector with a mail of its own: seen, not quarantined.
#[tokio::test]
async fn connector_validation_is_seen() {
    let service = Service::start().await;
    let mut client = service.client().await;
    let content = "From: <O365ConnectorValidation@contoso.onmicrosoft.example>\r\n\
                   Subject: Test email for connector validation\r\n\
                   Message-ID: <validation@x.example>\r\n\r\nThis test email\r\n";
    let from = "O365ConnectorValidation@contoso.onmicrosoft.example";
    let reply = client.deliver(from, JOURNAL, content).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    assert!(service.quarantined().is_empty());
    let contoso = &service.receiver.feeds()[0];
    assert_eq!(contoso.tenant, TenantName::new("contoso"));
    assert!(contoso.connector_validated_at.is_some());
}

/// A large message takes no more memory than a small one, whether it is believed or not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_flat_however_large_the_message() {
    const PIECE: usize = 64 * 1024;
    const PIECES: usize = 256;
    let service = Service::start().await;
    for (name, marked, bound) in [("report", true, 128 * 1024), ("other", false, 512 * 1024)] {
        let mut client = service.client().await;
        let mut mail = Mail::new(&format!("large-{name}@x.example"));
        mail.marked = marked;
        let report = mail.report();
        let (head, tail) = report.split_at(report.find("Please pay").unwrap());
        client
            .send(format!("MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nDATA\r\n").as_bytes())
            .await;
        for expected in [250, 250, 354] {
            assert_eq!(client.reply().await.code, expected);
        }
        client.send(head.as_bytes()).await;
        let piece = format!("{}\r\n", "x".repeat(62)).repeat(PIECE / 64);
        let mut most = 0;
        for _ in 0..PIECES {
            client.send(piece.as_bytes()).await;
            most = most.max(service.receiver.content_memory());
        }
        client.send(format!("{tail}.\r\n").as_bytes()).await;
        assert_eq!(client.reply().await.code, 250, "{name}");
        assert!(most <= bound, "{name}: {most} octets");
        assert_eq!(
            service.receiver.content_memory(),
            0,
            "{name}: all given back"
        );
    }
}

/// Sessions together hold no more than allowed: beyond it new content is put off.
#[tokio::test]
async fn content_beyond_the_memory_is_put_off() {
    let config = changed(&[(
        "hostname = \"localhost\"",
        "hostname = \"localhost\"\nmax_memory = \"16 KiB\"",
    )]);
    let service = Service::with(&config).await;
    let (mut first, mut second) = (service.client().await, service.client().await);
    let commands = format!("MAIL FROM:<>\r\nRCPT TO:<{JOURNAL}>\r\nDATA\r\n");
    for (client, expected) in [(&mut first, 354), (&mut second, 452)] {
        client.send(commands.as_bytes()).await;
        for expected in [250, 250, expected] {
            assert_eq!(client.reply().await.code, expected);
        }
    }
    first.send(b".\r\n").await;
    assert_eq!(first.reply().await.code, 250, "no report: quarantined");
    let reply = second.command("RSET").await;
    assert_eq!(reply.code, 250);
    second.send(commands.as_bytes()).await;
    for expected in [250, 250, 354] {
        assert_eq!(second.reply().await.code, expected, "there is memory again");
    }
}

/// 250 is said only after the commit: without it, 451, and nothing is found. When the disk is well
/// again, so is the service.
#[tokio::test]
async fn a_failed_commit_is_never_acknowledged() {
    let service = Service::start().await;
    service.parts.store.settled().await;
    let log = service.directory.path().join("data/log");
    // The first report makes the directory of the log: it cannot.
    std::fs::write(&log, "no directory").unwrap();
    let id = "disk-trouble@tailspin.example";
    let content = Mail::new(id).report();
    let mut client = service.client().await;
    let reply = client.deliver("", JOURNAL, &content).await;
    assert!(reply.text().starts_with("451 4.3.0"), "{reply:?}");
    std::fs::remove_file(&log).unwrap();
    assert!(service.records(id).await.is_empty());
    let reply = client.deliver("", JOURNAL, &content).await;
    assert_eq!(reply.code, 250, "{reply:?}");
    assert_eq!(service.records(id).await.len(), 1);
}

/// A full quarantine is told as 452: the sender keeps the message and tries again.
#[tokio::test]
async fn a_full_quarantine_puts_mail_off() {
    let config = changed(&[(
        "key_file = \"store.key\"",
        "key_file = \"store.key\"\nquarantine = \"4 KiB\"",
    )]);
    let service = Service::with(&config).await;
    let mut client = service.client().await;
    let mut mail = Mail::new("unwanted@x.example");
    mail.marked = false;
    mail.body = "some text\r\n".repeat(1000);
    let reply = client.deliver("", JOURNAL, &mail.report()).await;
    assert!(reply.text().starts_with("452 4.3.1"), "{reply:?}");
    assert!(service.quarantined().is_empty());
    // So many recipients that the octets are on their way to the disk before it is a report.
    let wanted = Mail::new("wanted@x.example").with_recipients(10_000);
    let reply = client.deliver("", JOURNAL, &wanted.report()).await;
    assert_eq!(reply.code, 250, "reports are taken all the same: {reply:?}");
    let records = service.records("wanted@x.example").await;
    assert_eq!(records[0].recipients.len(), 10_000);
}

/// A host whose clock fell back: what arrives then would be removed as too old once the clock is set right.
#[tokio::test]
async fn nothing_arrives_before_the_time_believed_last() {
    let believed: Timestamp = "2400-01-01T00:00:00Z".parse().unwrap();
    let service = Service::prepared(&config_text(), |directory| {
        std::fs::create_dir(directory.join("data")).unwrap();
        let calendar = Calendar::open(&directory.join("data/clock"));
        for half_hours in -48..=0 {
            // In doubt for a day, believed then.
            let _ = calendar.check(believed + SignedDuration::from_mins(30 * half_hours));
        }
    })
    .await;
    let mut client = service.client().await;
    let reply = client
        .deliver("", JOURNAL, "Subject: no report\r\n\r\n")
        .await;
    assert_eq!(reply.text(), "250 2.0.0 message quarantined");
    assert_eq!(service.quarantined()[0].meta.received, believed);
}
