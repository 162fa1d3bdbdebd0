//! Throttling, faults, cut connections, transport.

use std::time::Duration;

use clawback_tenant::{Concurrency, Fault, FaultKind, Tenant, Throttle};
use reqwest::{Method, Version};
use serde_json::json;

use crate::client::{Client, inbound, people};

/// Sends `count` requests at once, in turn for each of these users; gives the statuses.
async fn at_once(client: &Client, users: &[String], count: usize) -> Vec<u16> {
    let targets =
        (0..count).map(|number| format!("{}/messages?$top=1", users[number % users.len()]));
    let requests: Vec<_> = targets
        .map(|target| {
            let request = client
                .http
                .get(format!("{}{target}", client.tenant.graph_url()))
                .bearer_auth(&client.token);
            tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for request in requests {
        statuses.push(request.await.unwrap());
    }
    statuses
}

#[tokio::test]
async fn both_readings_of_the_throttle() {
    let client = Client::start(people()).await;
    let users = [
        client.user("ana@contoso.example"),
        client.user("bo@contoso.example"),
    ];
    for (concurrency, passed, peak) in [
        (Concurrency::App(4), 4, 4),
        (Concurrency::Mailbox(4), 8, 8),
        (Concurrency::Unlimited, 12, 12),
    ] {
        client.tenant.forget_requests();
        client.tenant.change(|conduct| {
            conduct.service_time = Duration::from_millis(300);
            conduct.throttle = Throttle {
                concurrency,
                retry_after: 1,
                ..Throttle::default()
            };
        });
        let statuses = at_once(&client, &users, 12).await;
        assert_eq!(
            statuses.iter().filter(|status| **status == 200).count(),
            passed,
            "{concurrency:?}: {statuses:?}"
        );
        let counts = client.tenant.counts();
        assert_eq!(
            (counts.peak, counts.throttled),
            (peak, 12 - passed as u64),
            "{concurrency:?}"
        );
    }
}

#[tokio::test]
async fn answers_are_lost_before_and_after_the_effect() {
    let client = Client::start(people()).await;
    let user = client.user("ana@contoso.example");
    for (kind, folder) in [
        (FaultKind::Dropped, "inbox"),
        (FaultKind::Disconnected, "inbox"),
        (FaultKind::Status(503, Some(1)), "inbox"),
        (FaultKind::Unauthorized, "inbox"),
        (FaultKind::DroppedAfter, "junkemail"),
        (FaultKind::StatusAfter(504), "junkemail"),
        (FaultKind::Slow(Duration::from_millis(1)), "junkemail"),
    ] {
        let delivered = client
            .tenant
            .deliver(&inbound(&["ana@contoso.example"], "Invoice"));
        let view = client.tenant.mailbox("ana@contoso.example").unwrap();
        let id = view.copies(&delivered.message_id)[0]
            .immutable_id
            .replace('=', "%3D");
        client.tenant.change(|conduct| {
            conduct.faults = vec![Fault::new(kind.clone(), 1.0).method("POST").times(1)]
        });
        let target = format!("{user}/messages/{id}/move");
        let answer = client
            .try_send(
                Method::POST,
                &target,
                &[],
                Some(json!({ "destinationId": "junkemail" })),
            )
            .await;
        let cut = matches!(
            kind,
            FaultKind::Dropped | FaultKind::DroppedAfter | FaultKind::Disconnected
        );
        assert_eq!(answer.is_err(), cut, "{kind:?}: {answer:?}");
        let view = client.tenant.mailbox("ana@contoso.example").unwrap();
        assert_eq!(
            view.copies(&delivered.message_id)[0].folder,
            folder,
            "{kind:?}"
        );
        assert_eq!(
            client.get(&format!("{user}/messages?$top=1")).await.status,
            200,
            "{kind:?}: the next request is served"
        );
    }
}

#[tokio::test]
async fn requests_are_remembered() {
    let client = Client::start(people()).await;
    let user = client.user("ana@contoso.example");
    let answer = client
        .send(
            Method::GET,
            &format!("{user}/messages?$filter=isRead%20eq%20true"),
            &[("client-request-id", "mine")],
            None,
        )
        .await;
    assert_eq!(answer.headers["client-request-id"], "mine");
    assert!(answer.headers.contains_key("request-id"));
    let requests = client.tenant.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!(
        (
            requests[0].method.as_str(),
            requests[0].status,
            requests[0].immutable
        ),
        ("GET", 200, false)
    );
    assert_eq!(requests[0].mailbox.as_deref(), Some("ana@contoso.example"));
    assert_eq!(requests[0].query, "$filter=isRead eq true");
}

#[tokio::test]
async fn http_versions_and_transports() {
    let client = Client::start(people()).await;
    let response = client
        .try_send(Method::GET, "/organization", &[], None)
        .await
        .unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let plain = Client::of(Tenant::start_plain(people()).await.unwrap()).await;
    let response = plain
        .try_send(Method::GET, "/organization", &[], None)
        .await
        .unwrap();
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (Version::HTTP_11, 200)
    );
    plain
        .tenant
        .deliver(&inbound(&["ana@contoso.example"], "Invoice"));
    let view = plain.tenant.mailbox("ana@contoso.example").unwrap();
    let id = view.messages[0].immutable_id.replace('=', "%3D");
    let target = format!(
        "{}/messages/{id}/permanentDelete",
        plain.user("ana@contoso.example")
    );
    // A front end wants a length even for nothing; reqwest sends none of its own accord.
    assert_eq!(plain.post(&target, None).await.status, 411);
    let empty = [("Content-Length", "0")];
    let purged = plain.send(Method::POST, &target, &empty, None).await;
    assert_eq!(purged.status, 204);
    let untrusting = reqwest::Client::builder().no_proxy().build().unwrap();
    assert!(
        untrusting
            .get(client.tenant.graph_url())
            .send()
            .await
            .is_err(),
        "the authority is private"
    );
}
