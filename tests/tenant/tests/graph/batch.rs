//! `$batch`.

use clawback_tenant::{Concurrency, Fault, FaultKind, Guesses, Scope, Throttle};
use serde_json::{Value, json};

use crate::client::{Client, people};

const PREFER: &str = "IdType=\"ImmutableId\"";

fn item(id: &str, method: &str, url: &str) -> Value {
    json!({ "id": id, "method": method, "url": url, "headers": { "Prefer": PREFER } })
}

fn move_item(id: &str, user: &str, message: &Value, folder: &str) -> Value {
    let message = message.as_str().unwrap().replace('=', "%3D");
    json!({
        "id": id, "method": "POST", "url": format!("{user}/messages/{message}/move"),
        "headers": { "Prefer": PREFER, "Content-Type": "application/json" }, "body": { "destinationId": folder },
    })
}

/// As many look-ups in one mailbox.
fn look_ups(user: &str, count: usize) -> Vec<Value> {
    let target = format!("{user}/messages?$top=1");
    let look_up = |number: usize| item(&number.to_string(), "GET", &target);
    (0..count).map(look_up).collect()
}

#[tokio::test]
async fn items_are_requests_of_their_own() {
    let (client, _) = Client::with_invoice(&["ana@contoso.example", "bo@contoso.example"]).await;
    let (ana, bo) = (
        client.user("ana@contoso.example"),
        client.user("bo@contoso.example"),
    );
    let found = client
        .batch(&[
            item("a", "GET", &format!("{ana}/messages?$select=subject")),
            item("b", "GET", &format!("{bo}/messages?$select=subject")),
            item("c", "GET", &format!("{bo}/messages?$selekt=subject")),
            item("d", "GET", &format!("{bo}/messages?$filter=subject eq 'x'")),
            item("e", "GET", "/users/nobody%40contoso.example"),
        ])
        .await;
    let status = |id: &str| found[id]["status"].as_u64().unwrap();
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(status),
        [200, 200, 400, 400, 404]
    );
    let id = &found["a"]["body"]["value"][0]["id"];
    let moved = client
        .batch(&[
            move_item("1", &ana, id, "junkemail"),
            move_item("2", &bo, id, "junkemail"),
        ])
        .await;
    assert_eq!(moved["1"]["status"], 201);
    assert_eq!(moved["1"]["body"]["id"], *id);
    assert_eq!(
        moved["2"]["body"]["error"]["code"],
        "ErrorInvalidMailboxItemId"
    );
    assert!(moved["2"]["body"]["error"]["innerError"]["request-id"].is_string());
}

#[tokio::test]
async fn answers_come_in_another_order() {
    let client = Client::start(people()).await;
    let requests: Vec<Value> = (0..20)
        .map(|number| item(&format!("{number:02}"), "GET", "/organization"))
        .collect();
    let mut orders = Vec::new();
    for _ in 0..3 {
        let answer = client
            .post("/$batch", Some(json!({ "requests": requests })))
            .await;
        let order: Vec<String> = answer.body["responses"]
            .as_array()
            .unwrap()
            .iter()
            .map(|response| response["id"].to_string())
            .collect();
        orders.push(order);
    }
    assert!(orders.iter().any(|order| !order.is_sorted()), "{orders:?}");
}

#[tokio::test]
async fn broken_envelopes() {
    let client = Client::start(people()).await;
    let get = |id: &str| item(id, "GET", "/organization");
    let many: Vec<Value> = (0..21).map(|number| get(&number.to_string())).collect();
    for (name, body) in [
        ("no requests", json!({})),
        ("none of them", json!({ "requests": [] })),
        ("too many", json!({ "requests": many })),
        (
            "ids that differ in case",
            json!({ "requests": [get("a"), get("A")] }),
        ),
        (
            "another member",
            json!({ "requests": [get("a")], "more": 1 }),
        ),
        (
            "absolute url",
            json!({ "requests": [item("a", "GET", "https://graph.microsoft.com/v1.0/organization")] }),
        ),
        (
            "url with version",
            json!({ "requests": [item("a", "GET", "/v1.0/organization")] }),
        ),
        (
            "batch in a batch",
            json!({ "requests": [item("a", "POST", "/$batch")] }),
        ),
        (
            "body without content type",
            json!({ "requests": [{ "id": "a", "method": "POST", "url": "/users/u/messages/m/move", "body": {} }] }),
        ),
        (
            "unknown dependency",
            json!({ "requests": [{ "id": "a", "method": "GET", "url": "/organization", "dependsOn": ["b"] }] }),
        ),
        (
            "dependency on itself",
            json!({ "requests": [{ "id": "a", "method": "GET", "url": "/organization", "dependsOn": ["a"] }] }),
        ),
    ] {
        let answer = client.post("/$batch", Some(body)).await;
        assert_eq!(
            (answer.status, answer.code()),
            (400, "BadRequest"),
            "{name}"
        );
    }
    assert_eq!(client.tenant.counts().requests, 0);
}

#[tokio::test]
async fn a_failed_dependency_fails_what_follows() {
    let client = Client::start(people()).await;
    let after = |id: &str, url: &str, on: &str| json!({ "id": id, "method": "GET", "url": url, "dependsOn": [on] });
    let found = client
        .batch(&[
            after("3", "/organization", "2"),
            after("2", "/users/nobody%40contoso.example", "1"),
            item("1", "GET", "/organization"),
            after("4", "/organization", "3"),
        ])
        .await;
    let status = |id: &str| found[id]["status"].as_u64().unwrap();
    assert_eq!(["1", "2", "3", "4"].map(status), [200, 404, 424, 424]);
}

#[tokio::test]
async fn the_preference_of_the_envelope_is_not_that_of_its_items() {
    let (client, _) = Client::with_invoice(&["ana@contoso.example"]).await;
    let user = client.user("ana@contoso.example");
    let immutable = client
        .tenant
        .mailbox("ana@contoso.example")
        .unwrap()
        .messages[0]
        .immutable_id
        .clone();
    let plain = [json!({ "id": "1", "method": "GET", "url": format!("{user}/messages") })];
    let id = |found: std::collections::HashMap<String, Value>| {
        found["1"]["body"]["value"][0]["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_ne!(id(client.batch(&plain).await), immutable);
    client.tenant.change(|conduct| {
        conduct.guesses = Guesses {
            batch_inherits_prefer: true,
            ..Guesses::default()
        }
    });
    assert_eq!(id(client.batch(&plain).await), immutable);
}

#[tokio::test]
async fn items_are_throttled_each() {
    let client = Client::start(people()).await;
    client.tenant.change(|conduct| {
        conduct.throttle = Throttle {
            per_ten_minutes: Some(3),
            retry_after: 7,
            ..Throttle::default()
        };
    });
    let user = client.user("ana@contoso.example");
    let found = client.batch(&look_ups(&user, 5)).await;
    let throttled: Vec<&Value> = found
        .values()
        .filter(|response| response["status"] == 429)
        .collect();
    assert_eq!(throttled.len(), 2);
    assert!(
        throttled
            .iter()
            .all(|response| response["headers"]["Retry-After"] == "7"),
        "{throttled:?}"
    );
}

#[tokio::test]
async fn outlook_items_run_four_wide() {
    let client = Client::start(people()).await;
    client.tenant.change(|conduct| {
        conduct.service_time = std::time::Duration::from_millis(5);
        conduct.throttle = Throttle {
            concurrency: Concurrency::App(4),
            retry_after: 1,
            ..Throttle::default()
        };
    });
    let user = client.user("ana@contoso.example");
    let found = client.batch(&look_ups(&user, 20)).await;
    assert!(found.values().all(|response| response["status"] == 200));
    assert_eq!(client.tenant.counts().peak, 4);
}

#[tokio::test]
async fn faults_of_items_and_of_the_envelope() {
    let (client, _) = Client::with_invoice(&["ana@contoso.example"]).await;
    let user = client.user("ana@contoso.example");
    let id = client.get(&format!("{user}/messages")).await.value()[0]["id"].clone();
    client.tenant.change(|conduct| {
        conduct.faults = vec![
            Fault::new(FaultKind::DroppedAfter, 1.0)
                .path("/move")
                .times(1),
        ]
    });
    let found = client
        .batch(&[move_item("1", &user, &id, "junkemail")])
        .await;
    assert_eq!(found["1"]["status"], 504, "the answer was lost");
    assert_eq!(
        client
            .tenant
            .mailbox("ana@contoso.example")
            .unwrap()
            .messages[0]
            .folder,
        "junkemail",
        "the effect was not"
    );
    let outer = Fault::new(FaultKind::Status(503, Some(2)), 1.0)
        .scope(Scope::Batch)
        .times(1);
    client.tenant.change(|conduct| conduct.faults = vec![outer]);
    let answer = client
        .post(
            "/$batch",
            Some(json!({ "requests": [item("1", "GET", "/organization")] })),
        )
        .await;
    assert_eq!(
        (answer.status, answer.headers["retry-after"].as_str()),
        (503, "2")
    );
}
