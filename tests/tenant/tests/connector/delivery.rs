//! Who gets a copy, and what the reports about it say.

use clawback_tenant::{
    Attachment, Contact, Forks, Group, Journaling, Mail, Settings, Tenant, User, UserAction,
    UserKind,
};

/// A tenant over plain HTTP (nothing is asked of it) with every kind of recipient.
async fn tenant() -> Tenant {
    let users = vec![
        User::new("ana@contoso.example").alias("a.smith@contoso.example"),
        User::new("bo@contoso.example").rule("invoice", "Invoices"),
        User::new("chi@contoso.example").forwarding("dee@contoso.example", false),
        User::new("dee@contoso.example"),
        User::new("eve@contoso.example").forwarding("eve@outside.example", true),
        User::new("prem@contoso.example").kind(UserKind::OnPremises),
    ];
    let groups = vec![
        Group::new(
            "staff@contoso.example",
            ["team@contoso.example", "ana@contoso.example"],
        ),
        Group::new(
            "team@contoso.example",
            ["bo@contoso.example", "partner@outside.example"],
        ),
    ];
    let contacts = vec![Contact {
        address: "partner@outside.example".into(),
        name: "Partner".into(),
    }];
    Tenant::start_plain(Settings {
        users,
        groups,
        contacts,
        ..Settings::default()
    })
    .await
    .unwrap()
}

/// The envelope lines of each report, sorted, without Sender, Subject and Message-Id.
fn envelopes(tenant: &Tenant) -> Vec<Vec<String>> {
    let reports = tenant.take_reports();
    let lines = reports.iter().map(|report| {
        let text = String::from_utf8_lossy(report);
        let envelope = text.split("\r\n\r\n").nth(2).unwrap();
        let mut lines: Vec<String> = envelope
            .lines()
            .filter(|line| {
                !["Sender", "Subject", "Message-Id", "On-Behalf-Of"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .map(ToOwned::to_owned)
            .collect();
        lines.sort();
        lines
    });
    lines.collect()
}

#[tokio::test]
async fn mail_from_inside_names_its_fields() {
    let tenant = tenant().await;
    let mail = Mail {
        to: vec![
            "A Smith <a.smith@contoso.example>".into(),
            "staff@contoso.example".into(),
        ],
        cc: vec!["chi@contoso.example".into()],
        bcc: vec![
            "eve@contoso.example".into(),
            "friend@elsewhere.example".into(),
        ],
        ..Mail::new("dee@contoso.example", [""; 0], "Plans")
    };
    let delivered = tenant.deliver(&mail);
    assert_eq!(
        envelopes(&tenant),
        [
            vec![
                "Bcc: eve@contoso.example",
                "Cc: dee@contoso.example, Forwarded: chi@contoso.example",
                "To: a.smith@contoso.example",
            ],
            vec![
                "To: ana@contoso.example, Expanded: staff@contoso.example",
                "To: bo@contoso.example, Expanded: staff@contoso.example",
                "To: partner@outside.example, Expanded: staff@contoso.example",
            ],
            vec![
                "Bcc: eve@outside.example, Forwarded: eve@contoso.example",
                "Bcc: friend@elsewhere.example"
            ],
        ]
    );
    assert_eq!(delivered.reports, 3);
    assert_eq!(delivered.network_message_ids.len(), 3);
    let mut mailboxes = delivered.mailboxes.clone();
    mailboxes.sort();
    assert_eq!(
        mailboxes,
        [
            "ana@contoso.example",
            "bo@contoso.example",
            "dee@contoso.example",
            "eve@contoso.example"
        ]
    );
    let ana = tenant.mailbox("ana@contoso.example").unwrap();
    assert_eq!(
        ana.copies(&delivered.message_id).len(),
        1,
        "an alias and a group give one copy"
    );
    let dee = tenant.mailbox("dee@contoso.example").unwrap();
    assert_eq!(
        (
            dee.in_folder("sentitems").len(),
            dee.in_folder("inbox").len()
        ),
        (1, 1)
    );
    assert_eq!(dee.in_folder("sentitems")[0].network_message_id, None);
    assert!(
        tenant
            .mailbox("chi@contoso.example")
            .unwrap()
            .messages
            .is_empty()
    );
}

#[tokio::test]
async fn mail_from_outside_has_recipients_only() {
    let tenant = tenant().await;
    let mail = Mail {
        cc: vec!["prem@contoso.example".into()],
        bcc: vec!["dee@contoso.example".into()],
        ..Mail::new(
            "Billing <billing@tailspin.example>",
            ["bo@contoso.example", "nobody@contoso.example"],
            "Your invoice",
        )
    };
    let delivered = tenant.deliver(&mail);
    let envelopes = envelopes(&tenant);
    assert!(
        envelopes
            .iter()
            .flatten()
            .all(|line| line.starts_with("Recipient: ")),
        "{envelopes:?}"
    );
    assert_eq!(envelopes.iter().flatten().count(), 4);
    assert_eq!(
        delivered.mailboxes,
        ["bo@contoso.example", "dee@contoso.example"]
    );
    assert_eq!(
        tenant.mailbox("bo@contoso.example").unwrap().messages[0].folder,
        "Invoices",
        "the rule moved it"
    );
}

#[tokio::test]
async fn forks_have_their_own_network_message_ids() {
    let tenant = tenant().await;
    let to = [
        "ana@contoso.example",
        "bo@contoso.example",
        "dee@contoso.example",
        "eve@contoso.example",
    ];
    for (forks, expected) in [(Forks::One, 1), (Forks::Every(2), 3), (Forks::Natural, 2)] {
        let delivered = tenant.deliver(&Mail {
            forks,
            ..Mail::new("x@tailspin.example", to, "Offer")
        });
        assert_eq!(delivered.network_message_ids.len(), expected, "{forks:?}");
        for address in to {
            let view = tenant.mailbox(address).unwrap();
            let id = view.copies(&delivered.message_id)[0]
                .network_message_id
                .clone()
                .unwrap();
            assert!(delivered.network_message_ids.contains(&id), "{forks:?}");
        }
    }
}

#[tokio::test]
async fn a_report_is_built_as_exchange_online_builds_it() {
    let tenant = tenant().await;
    let mail = Mail {
        sender: Some("bo@contoso.example".into()),
        attachments: vec![Attachment {
            name: "plan.pdf".into(),
            content_type: "application/pdf".into(),
            octets: vec![7; 300],
        }],
        message_id: Some("<m@contoso.example>".into()),
        date: Some("2026-07-06T08:00:00Z".parse().unwrap()),
        ..Mail::new(
            "CEO <ana@contoso.example>",
            ["dee@contoso.example"],
            "Réunion à 9 h",
        )
    };
    let delivered = tenant.deliver(&mail);
    let report = String::from_utf8(tenant.take_reports().remove(0)).unwrap();
    for line in [
        "X-MS-Journal-Report: \r\n".to_owned(),
        "X-MS-Exchange-Parent-Message-Id:\r\n\t<m@contoso.example>\r\n".into(),
        format!("X-LD-Processed: {},ExtAddr\r\n", tenant.tenant_id()),
        "X-OriginatorOrg: contoso.onmicrosoft.example\r\n".into(),
        "@journal.report.generator>\r\n".into(),
        "Content-Type: text/plain; charset=\"iso-8859-1\"\r\nContent-Transfer-Encoding: quoted-printable\r\n".into(),
        "Sender: bo@contoso.example\r\nOn-Behalf-Of: ana@contoso.example\r\nSubject: R=E9union =E0 9 h\r\nMessage-Id: <m@contoso.example>\r\n".into(),
        "To: dee@contoso.example\r\n\r\n".into(),
        "\r\nContent-Type: message/rfc822\r\n\r\n".into(),
        format!("X-MS-Exchange-Organization-Network-Message-Id: {}\r\n", delivered.network_message_ids[0]),
    ] {
        assert!(report.contains(&line), "{line:?} is missing in\n{report}");
    }
    let date = report
        .lines()
        .filter(|line| line.starts_with("Date: Mon, 06 Jul 2026 08:00:0"))
        .count();
    assert_eq!(date, 2, "the report's and the message's");
}

#[tokio::test]
async fn headers_grow_to_the_size_of_real_ones() {
    let journaling = Journaling {
        header_octets: 19_000..69_000,
        ..Journaling::default()
    };
    let settings = Settings {
        journaling,
        ..Settings::with_users(["ana@contoso.example"])
    };
    let tenant = Tenant::start_plain(settings).await.unwrap();
    for number in 0..20 {
        tenant.deliver(&Mail::new(
            "x@tailspin.example",
            ["ana@contoso.example"],
            &number.to_string(),
        ));
    }
    for report in tenant.take_reports() {
        assert!((19_000..72_000).contains(&report.len()), "{}", report.len());
        let longest = report
            .split(|octet| *octet == b'\n')
            .map(<[u8]>::len)
            .max()
            .unwrap();
        assert!(longest < 998, "{longest}");
    }
}

#[tokio::test]
async fn protected_mail_is_attached_twice() {
    let tenant = tenant().await;
    tenant.deliver(&Mail {
        protected: true,
        ..Mail::new("ana@contoso.example", ["dee@contoso.example"], "Salaries")
    });
    let report = String::from_utf8(tenant.take_reports().remove(0)).unwrap();
    assert_eq!(
        report
            .matches("\r\nContent-Type: message/rfc822\r\n")
            .count(),
        2
    );
    assert!(report.find("rpmsg.message").unwrap() < report.rfind("Salaries.\r\n").unwrap());
}

#[tokio::test]
async fn late_copies_arrive_when_told() {
    let tenant = tenant().await;
    let delivered = tenant.deliver(&Mail {
        late: true,
        ..Mail::new(
            "x@tailspin.example",
            ["ana@contoso.example", "dee@contoso.example"],
            "Late",
        )
    });
    assert_eq!(tenant.waiting_reports(), 1, "the journal does not wait");
    assert!(
        tenant
            .mailbox("ana@contoso.example")
            .unwrap()
            .messages
            .is_empty()
    );
    assert_eq!(tenant.arrive(&delivered.message_id), 2);
    assert_eq!(tenant.arrive(&delivered.message_id), 0);
    assert_eq!(
        tenant.act(
            "ana@contoso.example",
            &delivered.message_id,
            &UserAction::Move("archive".into())
        ),
        1
    );
    assert_eq!(
        tenant.mailbox("ana@contoso.example").unwrap().messages[0].folder,
        "archive"
    );
}
