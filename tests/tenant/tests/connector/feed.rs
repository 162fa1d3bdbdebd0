//! The connector against a smart host.

use clawback_tenant::{Journaling, Mail, Settings, SmartHost, Tenant, Tls};

use crate::host::Host;

const EVERYTHING: &[&str] = &["SIZE 157286400", "PIPELINING", "8BITMIME", "CHUNKING"];

fn settings() -> Settings {
    Settings::with_users(["ana@contoso.example", "bo@contoso.example"])
}

fn smart_host(host: &Host) -> SmartHost {
    SmartHost::new(host.addr, &host.ca_pem, "k3v9@journal.example.com")
}

fn invoice(number: usize) -> Mail {
    Mail::new(
        "billing@tailspin.example",
        ["ana@contoso.example"],
        &format!("Invoice {number}"),
    )
}

#[tokio::test]
async fn every_report_arrives_once_whatever_is_offered() {
    for (name, extensions, change) in [
        (
            "BDAT in chunks",
            EVERYTHING,
            (|host| host.chunk = 100) as fn(&mut SmartHost),
        ),
        ("DATA", EVERYTHING, |host| host.bdat = false),
        ("nothing but STARTTLS", &[], |_| {}),
        ("no groups", EVERYTHING, |host| host.pipelining = false),
        ("a connection for each message", EVERYTHING, |host| {
            host.messages_per_connection = 1
        }),
    ] {
        let (tenant, host) = (
            Tenant::start(settings()).await.unwrap(),
            Host::start(extensions).await,
        );
        for number in 0..10 {
            tenant.deliver(&invoice(number));
        }
        let mut smart_host = smart_host(&host);
        change(&mut smart_host);
        let connector = tenant.connector(smart_host).unwrap();
        tenant.deliver(&invoice(10));
        connector.drain().await;
        let statistics = connector.statistics();
        assert_eq!(
            (statistics.sent, statistics.retried, statistics.refused),
            (11, 0, 0),
            "{name}: {statistics:?}"
        );
        assert_eq!(
            statistics.bdat > 0,
            name != "DATA" && name != "nothing but STARTTLS",
            "{name}"
        );
        let mut subjects = host.seen(|seen| {
            seen.messages
                .iter()
                .map(|(_, octets)| subject(octets))
                .collect::<Vec<_>>()
        });
        subjects.sort();
        subjects.dedup();
        assert_eq!(subjects.len(), 11, "{name}");
    }
}

fn subject(octets: &[u8]) -> String {
    let text = String::from_utf8_lossy(octets);
    text.lines()
        .find_map(|line| line.strip_prefix("Subject: "))
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn what_is_deferred_comes_again_and_what_is_refused_does_not() {
    let (tenant, host) = (
        Tenant::start(settings()).await.unwrap(),
        Host::start(EVERYTHING).await,
    );
    host.seen(|seen| {
        seen.answers = [
            "451 4.3.0 later",
            "421 4.3.2 closing",
            "",
            "554 5.6.0 never",
        ]
        .into();
        seen.recipients = ["452 4.5.3 not now"].into();
    });
    tenant.deliver(&invoice(1));
    tenant.deliver(&invoice(2));
    let connector = tenant
        .connector(SmartHost {
            connections: 1,
            ..smart_host(&host)
        })
        .unwrap();
    connector.drain().await;
    let statistics = connector.statistics();
    assert_eq!(
        (statistics.sent, statistics.retried, statistics.refused),
        (1, 4, 1),
        "{statistics:?}"
    );
    let undeliverable = connector.undeliverable();
    assert_eq!(undeliverable[0].reply, "554 5.6.0 never");
    assert!(!undeliverable[0].octets.is_empty());
    assert_eq!(host.seen(|seen| seen.messages.len()), 1);
}

#[tokio::test]
async fn a_host_that_is_not_there_is_waited_for() {
    let tenant = Tenant::start(settings()).await.unwrap();
    let host = Host::start(EVERYTHING).await;
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    tenant.deliver(&invoice(1));
    let connector = tenant
        .connector(SmartHost {
            addr: nobody,
            connections: 1,
            ..smart_host(&host)
        })
        .unwrap();
    while connector.statistics().retried < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(connector.waiting(), 1);
    connector.stop().await;
    assert_eq!(
        tenant.waiting_reports(),
        1,
        "what was not sent stays queued"
    );
    let connector = tenant.connector(smart_host(&host)).unwrap();
    connector.drain().await;
    assert_eq!(connector.statistics().sent, 1);
}

#[tokio::test]
async fn bare_line_feeds_go_by_bdat_or_not_at_all() {
    let raw = b"From: x@tailspin.example\r\nSubject: bare\r\nMessage-ID: <bare@x>\r\n\r\none\ntwo\n.\nthree".to_vec();
    let mail = Mail {
        raw: Some(raw.clone()),
        ..invoice(1)
    };
    for (name, extensions, sent) in [("CHUNKING", EVERYTHING, 1), ("none", &["PIPELINING"], 0)] {
        let (tenant, host) = (
            Tenant::start(settings()).await.unwrap(),
            Host::start(extensions).await,
        );
        tenant.deliver(&mail);
        let connector = tenant
            .connector(SmartHost {
                bdat: false,
                ..smart_host(&host)
            })
            .unwrap();
        connector.drain().await;
        assert_eq!(connector.statistics().sent, sent, "{name}");
        match sent {
            0 => assert!(
                connector.undeliverable()[0]
                    .reply
                    .contains("BareLinefeedsAreIllegal")
            ),
            _ => assert!(
                host.seen(|seen| contains(&seen.messages[0].1, &raw)),
                "not an octet differs"
            ),
        }
    }
}

fn contains(octets: &[u8], wanted: &[u8]) -> bool {
    octets.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn the_reverse_path_is_the_undeliverable_address_or_null() {
    for (undeliverable, expected) in [
        (None, ""),
        (
            Some("journal.ndr@contoso.onmicrosoft.example".to_owned()),
            "journal.ndr@contoso.onmicrosoft.example",
        ),
    ] {
        let journaling = Journaling {
            undeliverable,
            ..Journaling::default()
        };
        let (tenant, host) = (
            Tenant::start(Settings {
                journaling,
                ..settings()
            })
            .await
            .unwrap(),
            Host::start(EVERYTHING).await,
        );
        tenant.deliver(&invoice(1));
        let connector = tenant.connector(smart_host(&host)).unwrap();
        connector.send_validation();
        connector.drain().await;
        let mut paths = host.seen(|seen| {
            seen.messages
                .iter()
                .map(|(path, _)| path.clone())
                .collect::<Vec<_>>()
        });
        paths.sort();
        let mut wanted = [
            "O365ConnectorValidation@contoso.onmicrosoft.example",
            expected,
        ];
        wanted.sort_unstable();
        assert_eq!(paths, wanted);
        assert!(host.seen(|seen| {
            seen.commands
                .iter()
                .any(|line| line.starts_with("MAIL FROM:") && line.contains(" SIZE="))
        }));
    }
}

#[tokio::test]
async fn an_untrusted_host_gets_nothing() {
    let (tenant, host) = (
        Tenant::start(settings()).await.unwrap(),
        Host::start(EVERYTHING).await,
    );
    tenant.deliver(&invoice(1));
    let other = Host::start(EVERYTHING).await;
    let stranger = SmartHost {
        ca_pem: other.ca_pem,
        attempts: Some(2),
        ..smart_host(&host)
    };
    let connector = tenant.connector(stranger).unwrap();
    connector.drain().await;
    assert_eq!(
        (connector.statistics().sent, connector.statistics().refused),
        (0, 1)
    );
    let plain = SmartHost {
        tls: Tls::Off,
        ..smart_host(&host)
    };
    assert!(tenant.connector(plain).is_ok());
}
