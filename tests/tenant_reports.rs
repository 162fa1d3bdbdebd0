//! The simulated tenant's mail, read by the receiver's own parser: what one writes the other understands.

use clawback::journal::{Belief, Expected, Kind, Limits, Origin, belief, parse};
use clawback_tenant::{Company, Delivered, Mail, Tenant};
use data_encoding::HEXLOWER;

fn company() -> Company {
    Company::new(3, 60, 7, "2026-07-20T12:00:00Z".parse().unwrap())
}

/// Every report of `delivered` against the mail that it is about.
fn check(tenant: &Tenant, mail: &Mail, delivered: &Delivered) {
    let domains = [
        tenant.initial_domain().to_owned(),
        "northwind.example".into(),
    ];
    let expected = Expected {
        tenant_id: Some(tenant.tenant_id()),
        domains: &domains,
        origin: Origin::ExchangeOnline,
    };
    let reports = tenant.take_reports();
    assert_eq!(reports.len(), delivered.reports);
    let mut recipients = 0;
    for octets in &reports {
        let name = format!("{mail:?}\n{}", String::from_utf8_lossy(octets));
        let report = parse(octets, Limits::default());
        assert_eq!(
            (report.kind, report.problems),
            (Kind::Report, Vec::<String>::new()),
            "{name}"
        );
        assert_eq!(belief(&report.outer, &expected), Belief::Proven, "{name}");
        let envelope = &report.envelope;
        assert_eq!(
            envelope.subject.as_deref(),
            Some(mail.subject.as_str()),
            "{name}"
        );
        let sender = mail.sender.as_ref().unwrap_or(&mail.from);
        assert!(
            sender.contains(envelope.sender.as_ref().unwrap().as_str()),
            "{name}"
        );
        assert_eq!(
            envelope.on_behalf_of.is_some(),
            mail.sender.is_some(),
            "{name}"
        );
        let id = envelope.message_id.as_ref().unwrap().as_str();
        assert_eq!(format!("<{id}>"), delivered.message_id, "{name}");
        recipients += report.recipients.len();
        let inner = &report.inner;
        assert!(
            inner.present && !inner.partly_read && inner.content_digest.is_some(),
            "{name}"
        );
        assert_eq!(
            inner.subject.as_deref(),
            Some(mail.subject.as_str()),
            "{name}"
        );
        assert_eq!(inner.date, mail.date, "{name}");
        assert!(
            mail.from.contains(inner.from.as_ref().unwrap().as_str()),
            "{name}"
        );
        assert_eq!(inner.references.len(), mail.references.len(), "{name}");
        let network_message_id = inner.network_message_id.as_ref().unwrap();
        assert!(
            delivered.network_message_ids.contains(network_message_id),
            "{name}"
        );
        let found: Vec<String> = inner
            .attachments
            .iter()
            .map(|one| HEXLOWER.encode(&one.sha256))
            .collect();
        let sent = mail.attachments.iter().map(|one| {
            HEXLOWER
                .encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &one.octets).as_ref())
        });
        assert_eq!(found, sent.collect::<Vec<_>>(), "{name}");
        let names = inner
            .attachments
            .iter()
            .map(|one| one.name.clone().unwrap());
        let sent: Vec<String> = mail
            .attachments
            .iter()
            .map(|one| one.name.clone())
            .collect();
        assert_eq!(names.collect::<Vec<_>>(), sent, "{name}");
        if mail
            .html
            .as_ref()
            .is_some_and(|html| html.contains("https://"))
        {
            assert!(!inner.url_domains.is_empty(), "{name}");
        }
    }
    assert_eq!(recipients, delivered.recipients, "{mail:?}");
}

#[tokio::test]
async fn what_the_tenant_journals_the_receiver_understands() {
    let company = company();
    let tenant = Tenant::start_plain(company.settings()).await.unwrap();
    for mail in company.mails(400).chain([company.phish(), company.decoy()]) {
        let delivered = tenant.deliver(&mail);
        check(&tenant, &mail, &delivered);
    }
}

#[tokio::test]
async fn the_phish_reaches_many_and_its_readers_act() {
    let company = company();
    let tenant = Tenant::start_plain(company.settings()).await.unwrap();
    let story = tenant.play(&company, 50);
    assert!(
        story.phish.mailboxes.len() > 20 && story.phish.network_message_ids.len() > 1,
        "{story:?}"
    );
    assert_eq!(story.reports, tenant.waiting_reports());
    let mut folders: Vec<String> = story
        .phish
        .mailboxes
        .iter()
        .flat_map(|address| tenant.mailbox(address).unwrap().messages)
        .filter(|message| message.message_id == story.phish.message_id)
        .map(|message| message.folder)
        .collect();
    folders.sort();
    folders.dedup();
    for folder in [
        "inbox",
        "archive",
        "deleteditems",
        "Important",
        "Urgent",
        "recoverableitemsdeletions",
    ] {
        assert!(
            folders.iter().any(|found| found == folder),
            "{folder} is not in {folders:?}"
        );
    }
}
