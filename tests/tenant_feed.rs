//! The simulated tenant journals to the receiver: what it delivered is found, once, whatever happens on the way.

use std::collections::BTreeMap;

use clawback_tenant::{Company, Journaling, Settings, SmartHost, Tenant};

use crate::support::Service;
use crate::support::report::TENANT_ID;
use crate::support::service::{JOURNAL, changed};

fn company() -> Company {
    Company::new(11, 40, 7, "2026-07-20T12:00:00Z".parse().unwrap())
}

async fn service() -> Service {
    let ours = "\"contoso.onmicrosoft.example\", \"contoso.example\"";
    let theirs = "\"northwind.onmicrosoft.example\", \"northwind.example\"";
    Service::with(&changed(&[(ours, theirs)])).await
}

async fn tenant() -> Tenant {
    let journaling = Journaling {
        undeliverable: Some("journal-ndr@northwind.onmicrosoft.example".into()),
        header_octets: 4_000..20_000,
        ..Journaling::default()
    };
    let settings = Settings {
        tenant_id: Some(TENANT_ID.into()),
        journaling,
        ..company().settings()
    };
    Tenant::start_plain(settings).await.unwrap()
}

#[tokio::test]
async fn a_company_is_journaled_through_a_restart() {
    let (service, tenant) = (service().await, tenant().await);
    let mut expected = BTreeMap::new();
    for mail in company().mails(150).chain([company().phish()]) {
        let delivered = tenant.deliver(&mail);
        expected.insert(delivered.message_id.clone(), delivered);
    }
    let host = SmartHost {
        connections: 4,
        chunk: 3_000,
        messages_per_connection: 20,
        ..SmartHost::new(service.address(), &service.ca(), JOURNAL)
    };
    let connector = tenant.connector(host).unwrap();
    connector.send_validation();
    while connector.statistics().sent < 40 {
        tokio::task::yield_now().await;
    }
    let service = service.restart().await;
    connector.drain().await;
    let statistics = connector.statistics();
    assert_eq!(statistics.refused, 0, "{statistics:?}");
    let reports: usize = expected.values().map(|delivered| delivered.reports).sum();
    assert_eq!(statistics.sent, reports as u64 + 1, "{statistics:?}");
    assert_eq!(statistics.bdat, statistics.sent);
    assert!(
        service.quarantined().is_empty(),
        "{:?}",
        service.quarantined()
    );
    for (message_id, delivered) in expected {
        let records = service.records(&message_id).await;
        assert_eq!(records.len(), 1, "{message_id}");
        let mut found = records[0].network_message_ids.clone();
        found.sort();
        let mut sent = delivered.network_message_ids;
        sent.sort();
        assert_eq!(found, sent, "{message_id}");
        assert_eq!(
            records[0].recipients.len(),
            delivered.recipients,
            "{message_id}"
        );
    }
}
