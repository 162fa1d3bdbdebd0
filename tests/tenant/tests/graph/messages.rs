//! `/messages` and `/mailFolders`.

use clawback_tenant::{Guesses, Links, Mail, Settings, User, UserAction, UserKind};
use reqwest::Method;
use serde_json::json;

use crate::client::{Client, inbound, people};

const SELECT: &str = "id,internetMessageId,subject,from,receivedDateTime,parentFolderId,isRead,internetMessageHeaders";

/// A value for a query, encoded as a careful client does.
fn encoded(text: &str) -> String {
    text.bytes()
        .map(|octet| {
            if octet.is_ascii_alphanumeric() {
                char::from(octet).to_string()
            } else {
                format!("%{octet:02X}")
            }
        })
        .collect()
}

fn by_message_id(message_id: &str) -> String {
    encoded(&format!(
        "internetMessageId eq '{}'",
        message_id.replace('\'', "''")
    ))
}

#[tokio::test]
async fn a_copy_is_found_by_its_message_id() {
    let client = Client::start(people()).await;
    for (name, message_id) in [
        ("plain", "<CAKq1@mail.tailspin.example>"),
        ("quotes", "<O'Brien''s@x>"),
        (
            "plus, slash, hash, percent, ampersand",
            "<a+b/c#d%20e&f=g?@x>",
        ),
        ("blank", "<with blank@x>"),
        ("no brackets", "bare@x"),
        ("long", &format!("<{}@x>", "l".repeat(300))),
    ] {
        let mail = Mail {
            message_id: Some(message_id.into()),
            ..inbound(&["ana@contoso.example"], name)
        };
        let delivered = client.tenant.deliver(&mail);
        let user = client.user("ana@contoso.example");
        let answer = client
            .get(&format!(
                "{user}/messages?$filter={}&$select={SELECT}&$top=50",
                by_message_id(message_id)
            ))
            .await;
        assert_eq!(answer.value().len(), 1, "{name}: {answer:?}");
        let found = &answer.value()[0];
        assert_eq!(found["internetMessageId"], *message_id, "{name}");
        assert_eq!(found["subject"], name);
        let headers = found["internetMessageHeaders"].as_array().unwrap();
        let header = headers
            .iter()
            .find(|header| header["name"] == "X-MS-Exchange-Organization-Network-Message-Id")
            .unwrap();
        assert_eq!(
            header["value"],
            delivered.network_message_ids[0].as_str(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn headers_come_with_select_alone_and_not_for_sent_copies() {
    let client = Client::start(people()).await;
    client.tenant.deliver(&Mail::new(
        "ana@contoso.example",
        ["bo@contoso.example"],
        "Roadmap",
    ));
    let (ana, bo) = (
        client.user("ana@contoso.example"),
        client.user("bo@contoso.example"),
    );
    let usual = client.get(&format!("{bo}/messages")).await;
    assert!(usual.value()[0].get("internetMessageHeaders").is_none());
    assert!(usual.value()[0].get("body").is_some());
    let sent = client
        .get(&format!(
            "{ana}/mailFolders/sentitems/messages?$select={SELECT}"
        ))
        .await;
    assert_eq!(sent.value().len(), 1);
    assert!(sent.value()[0].get("internetMessageHeaders").is_none());
    client.tenant.change(|conduct| {
        conduct.guesses = Guesses {
            sent_without_headers: false,
            ..Guesses::default()
        }
    });
    let sent = client
        .get(&format!(
            "{ana}/mailFolders/sentitems/messages?$select={SELECT}"
        ))
        .await;
    assert!(sent.value()[0].get("internetMessageHeaders").is_some());
}

#[tokio::test]
async fn immutable_ids_survive_moves_and_default_ids_do_not() {
    let (client, _) = Client::with_invoice(&["ana@contoso.example"]).await;
    let user = client.user("ana@contoso.example");
    let immutable = client.get(&format!("{user}/messages")).await.value()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let plain = client
        .send(Method::GET, &format!("{user}/messages"), &[], None)
        .await;
    let default = plain.value()[0]["id"].as_str().unwrap().to_owned();
    assert_ne!(immutable, default);

    let moved = client
        .move_to(&user, &encoded(&immutable), "junkemail")
        .await;
    assert_eq!(moved.status, 201);
    assert_eq!(
        moved.body["id"],
        immutable.as_str(),
        "the immutable id stays"
    );
    let junk = client
        .get(&format!("{user}/mailFolders/junkemail?$select=id"))
        .await
        .body["id"]
        .clone();
    assert_eq!(moved.body["parentFolderId"], junk);
    let stale = client
        .send(
            Method::GET,
            &format!("{user}/messages/{}", encoded(&default)),
            &[],
            None,
        )
        .await;
    assert_eq!((stale.status, stale.code()), (404, "ErrorItemNotFound"));

    let body = Some(json!({ "destinationId": "deleteditems" }));
    let again = client
        .send(
            Method::POST,
            &format!("{user}/messages/{}/move", encoded(&immutable)),
            &[],
            body,
        )
        .await;
    assert_ne!(
        again.body["id"],
        immutable.as_str(),
        "without the preference the answer has a default id"
    );
    assert_ne!(again.body["id"], default.as_str());
    let view = client.tenant.mailbox("ana@contoso.example").unwrap();
    assert_eq!(
        (view.messages[0].folder.as_str(), view.messages[0].moves),
        ("deleteditems", 2)
    );
}

#[tokio::test]
async fn recoverable_items_are_a_tree_apart() {
    let (client, delivered) = Client::with_invoice(&["ana@contoso.example"]).await;
    let user = client.user("ana@contoso.example");
    let filter = by_message_id(&delivered.message_id);
    let id = encoded(
        client.get(&format!("{user}/messages")).await.value()[0]["id"]
            .as_str()
            .unwrap(),
    );
    let inbox = client.get(&format!("{user}/messages/{id}")).await.body["parentFolderId"].clone();
    assert_eq!(
        client
            .move_to(&user, &id, "recoverableitemsdeletions")
            .await
            .status,
        201
    );
    assert!(
        client
            .get(&format!("{user}/messages?$filter={filter}"))
            .await
            .value()
            .is_empty()
    );
    let deletions =
        format!("{user}/mailFolders/recoverableitemsdeletions/messages?$filter={filter}");
    assert_eq!(client.get(&deletions).await.value().len(), 1);
    // Back to where it was, by the id of the folder.
    assert_eq!(
        client
            .move_to(&user, &id, inbox.as_str().unwrap())
            .await
            .status,
        201
    );
    assert_eq!(
        client
            .get(&format!("{user}/messages?$filter={filter}"))
            .await
            .value()
            .len(),
        1
    );

    let purged = client
        .post(&format!("{user}/messages/{id}/permanentDelete"), None)
        .await;
    assert_eq!(purged.status, 204);
    assert!(
        client
            .get(&format!("{user}/messages?$filter={filter}"))
            .await
            .value()
            .is_empty()
    );
    assert!(client.get(&deletions).await.value().is_empty());
    assert_eq!(
        client
            .tenant
            .mailbox("ana@contoso.example")
            .unwrap()
            .in_folder("recoverableitemspurges")
            .len(),
        1
    );
    let again = client
        .post(&format!("{user}/messages/{id}/permanentDelete"), None)
        .await;
    assert_eq!((again.status, again.code()), (404, "ErrorItemNotFound"));
}

#[tokio::test]
async fn what_nobody_knows_can_be_switched() {
    let (client, _) = Client::with_invoice(&["ana@contoso.example"]).await;
    let user = client.user("ana@contoso.example");
    let id = encoded(
        client.get(&format!("{user}/messages")).await.value()[0]["id"]
            .as_str()
            .unwrap(),
    );
    assert_eq!(client.move_to(&user, &id, "junkemail").await.status, 201);
    assert_eq!(
        client.move_to(&user, &id, "junkemail").await.status,
        201,
        "again"
    );
    client.tenant.change(|conduct| {
        conduct.guesses = Guesses {
            move_again_succeeds: false,
            recoverable_names: false,
            purge_from_recoverable: false,
            recoverable_by_id: false,
            ..Guesses::default()
        };
    });
    assert_eq!(
        client.move_to(&user, &id, "junkemail").await.code(),
        "ErrorMoveCopyFailed"
    );
    assert_eq!(
        client
            .move_to(&user, &id, "recoverableitemspurges")
            .await
            .code(),
        "ErrorInvalidIdMalformed"
    );
    assert_eq!(
        client
            .move_to(&user, &id, "recoverableitemsdeletions")
            .await
            .status,
        201
    );
    assert_eq!(
        client.get(&format!("{user}/messages/{id}")).await.code(),
        "ErrorItemNotFound"
    );
    let inside = format!("{user}/mailFolders/recoverableitemsdeletions/messages/{id}");
    assert_eq!(client.get(&inside).await.status, 200);
    assert_eq!(
        client
            .post(&format!("{inside}/permanentDelete"), None)
            .await
            .code(),
        "ErrorCannotDeleteObject"
    );
}

#[tokio::test]
async fn requests_that_graph_refuses() {
    let (client, _) = Client::with_invoice(&["ana@contoso.example", "bo@contoso.example"]).await;
    let (ana, bo) = (
        client.user("ana@contoso.example"),
        client.user("bo@contoso.example"),
    );
    let of_bo = client.get(&format!("{bo}/messages")).await.value()[0]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let of_bo = encoded(&of_bo);
    for (name, target, status, code) in [
        (
            "unknown option",
            format!("{ana}/messages?$filtre=x"),
            400,
            "BadRequest",
        ),
        (
            "unknown property selected",
            format!("{ana}/messages?$select=internetMessageID"),
            400,
            "BadRequest",
        ),
        (
            "unknown property in filter",
            format!("{ana}/messages?$filter={}", encoded("messageId eq 'x'")),
            400,
            "BadRequest",
        ),
        (
            "quote not doubled",
            format!("{ana}/messages?$filter={}", encoded("subject eq 'O'Brien'")),
            400,
            "BadRequest",
        ),
        (
            "time in quotes",
            format!(
                "{ana}/messages?$filter={}",
                encoded("receivedDateTime ge '2026-01-01T00:00:00Z'")
            ),
            400,
            "BadRequest",
        ),
        (
            "filter by recipients",
            format!(
                "{ana}/messages?$filter={}",
                encoded("toRecipients/any(r:r eq 'x')")
            ),
            400,
            "ErrorInvalidUrlQueryFilter",
        ),
        (
            "order that the filter lacks",
            format!(
                "{ana}/messages?$orderby=receivedDateTime&$filter={}",
                encoded("isRead eq true")
            ),
            400,
            "InefficientFilter",
        ),
        (
            "top too high",
            format!("{ana}/messages?$top=1001"),
            400,
            "ErrorInvalidUrlQuery",
        ),
        (
            "top of none",
            format!("{ana}/messages?$top=0"),
            400,
            "ErrorInvalidUrlQuery",
        ),
        (
            "mangled id",
            format!("{ana}/messages/AAMk"),
            400,
            "ErrorInvalidIdMalformed",
        ),
        (
            "id of another mailbox",
            format!("{ana}/messages/{of_bo}"),
            404,
            "ErrorInvalidMailboxItemId",
        ),
        (
            "alias as user name",
            "/users/a.smith%40contoso.example/messages".into(),
            404,
            "ErrorInvalidUser",
        ),
        (
            "outsider",
            "/users/x%40tailspin.example/messages".into(),
            404,
            "ErrorInvalidUser",
        ),
        (
            "unknown folder",
            format!("{ana}/mailFolders/nowhere/messages"),
            400,
            "ErrorInvalidIdMalformed",
        ),
        (
            "archive mailbox",
            format!("{ana}/mailFolders/archivemsgfolderroot"),
            404,
            "ErrorInvalidMailboxItemId",
        ),
        (
            "unknown call",
            format!("{ana}/messages/{of_bo}/softDelete"),
            405,
            "Request_BadRequest",
        ),
    ] {
        let answer = client.get(&target).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code),
            "{name}: {answer:?}"
        );
        assert!(
            answer.body["error"]["innerError"]["request-id"].is_string(),
            "{name}"
        );
    }
    for (name, body, status) in [
        ("no body", None, 400),
        (
            "wrong member",
            Some(json!({ "destination": "junkemail" })),
            400,
        ),
        ("wrong type", Some(json!({ "destinationId": 1 })), 400),
        (
            "unknown folder",
            Some(json!({ "destinationId": "spam" })),
            400,
        ),
    ] {
        let answer = client
            .post(&format!("{bo}/messages/{of_bo}/move"), body)
            .await;
        assert_eq!(answer.status, status, "{name}: {answer:?}");
    }
    let body = [("Content-Type", "text/plain")];
    let url = format!("{}{bo}/messages/{of_bo}/move", client.tenant.graph_url());
    let request = client
        .http
        .post(url)
        .bearer_auth(&client.token)
        .header(body[0].0, body[0].1)
        .body("{}");
    assert_eq!(request.send().await.unwrap().status(), 415);
}

#[tokio::test]
async fn filters_that_find() {
    let client = Client::start(people()).await;
    let user = client.user("ana@contoso.example");
    for (subject, from, at) in [
        ("one", "x@tailspin.example", "2026-07-06T08:00:00Z"),
        ("two", "y@tailspin.example", "2026-07-06T09:00:00Z"),
        ("three", "x@tailspin.example", "2026-07-06T10:00:00Z"),
    ] {
        let received = Some(at.parse().unwrap());
        client.tenant.deliver(&Mail {
            received,
            ..Mail::new(from, ["ana@contoso.example"], subject)
        });
    }
    let two = client
        .get(&format!("{user}/messages?$filter=subject%20eq%20'two'"))
        .await;
    let message_id = two.value()[0]["internetMessageId"].as_str().unwrap();
    client
        .tenant
        .act("ana@contoso.example", message_id, &UserAction::Read);
    for (filter, expected) in [
        (
            "receivedDateTime ge 2026-07-06T09:00:00Z",
            &["three", "two"][..],
        ),
        (
            "receivedDateTime ge 2026-07-06T08:30:00Z and receivedDateTime lt 2026-07-06T10:00:00Z",
            &["two"],
        ),
        (
            "from/emailAddress/address eq 'X@tailspin.example'",
            &["three", "one"],
        ),
        ("isRead eq true", &["two"]),
        (
            "not (isRead eq true) and startsWith(subject,'t')",
            &["three"],
        ),
        ("subject eq 'one' or subject eq 'two'", &["two", "one"]),
        (
            "singleValueExtendedProperties/any(ep: ep/id eq 'String 0x1035' and ep/value eq 'nothing')",
            &[],
        ),
    ] {
        let answer = client
            .get(&format!(
                "{user}/messages?$select=subject&$filter={}",
                encoded(filter)
            ))
            .await;
        let subjects: Vec<&str> = answer
            .value()
            .iter()
            .map(|message| message["subject"].as_str().unwrap())
            .collect();
        assert_eq!(subjects, expected, "{filter}");
    }
}

#[tokio::test]
async fn pages_in_every_form_of_link_give_each_message_once() {
    let client = Client::start(people()).await;
    let user = client.user("ana@contoso.example");
    for number in 0..23 {
        client.tenant.deliver(&inbound(
            &["ana@contoso.example"],
            &format!("number {number}"),
        ));
    }
    for (name, links) in [
        ("slashes", Links::default()),
        (
            "keys in parentheses",
            Links {
                keys: true,
                ..Links::default()
            },
        ),
        (
            "empty pages",
            Links {
                empty_pages: true,
                ..Links::default()
            },
        ),
        (
            "ids with slashes",
            Links {
                slash_ids: true,
                keys: true,
                ..Links::default()
            },
        ),
        (
            "small pages",
            Links {
                page: 3,
                ..Links::default()
            },
        ),
    ] {
        client.tenant.change(|conduct| conduct.links = links);
        let inbox = client.get(&format!("{user}/mailFolders/inbox")).await.body["id"]
            .as_str()
            .unwrap()
            .to_owned();
        for collection in [
            format!("{user}/messages"),
            format!("{user}/mailFolders/{}/messages", encoded(&inbox)),
        ] {
            let mut target = format!(
                "{collection}?$select=subject&$filter={}",
                encoded("isRead eq false")
            );
            let (mut subjects, mut empty) = (Vec::new(), 0);
            loop {
                let answer = client.get(&target).await;
                empty += usize::from(answer.value().is_empty());
                subjects.extend(
                    answer
                        .value()
                        .iter()
                        .map(|message| message["subject"].to_string()),
                );
                let Some(link) = answer.body["@odata.nextLink"].as_str() else {
                    break;
                };
                assert_eq!(
                    link.contains("users('"),
                    name != "slashes" && link.contains("('"),
                    "{link}"
                );
                target = link
                    .strip_prefix(&client.tenant.graph_url())
                    .expect("an absolute link")
                    .to_owned();
            }
            assert_eq!(subjects.len(), 23, "{name}");
            subjects.sort();
            subjects.dedup();
            assert_eq!(subjects.len(), 23, "{name}: each once");
            assert_eq!(empty > 0, name == "empty pages", "{name}");
        }
    }
}

#[tokio::test]
async fn folders_are_listed_and_made() {
    let mut settings = people();
    settings.users[0].folders.push("Projects".into());
    let client = Client::start(settings).await;
    let user = client.user("ana@contoso.example");
    let top = client.get(&format!("{user}/mailFolders?$top=100")).await;
    let names: Vec<&str> = top
        .value()
        .iter()
        .map(|folder| folder["displayName"].as_str().unwrap())
        .collect();
    assert!(
        names.contains(&"Projects")
            && !names.contains(&"Sync Issues")
            && !names.contains(&"Recoverable Items"),
        "{names:?}"
    );
    let all = client
        .get(&format!(
            "{user}/mailFolders?includeHiddenFolders=true&$top=100"
        ))
        .await;
    assert!(all.value().len() > top.value().len());
    let made = client
        .post(
            &format!("{user}/mailFolders"),
            Some(json!({ "displayName": "Held", "isHidden": true })),
        )
        .await;
    assert_eq!(
        (made.status, made.body["isHidden"].as_bool()),
        (201, Some(true))
    );
    let below = client
        .get(&format!(
            "{user}/mailFolders/msgfolderroot/childFolders?includeHiddenFolders=true&$top=100"
        ))
        .await;
    assert!(
        below
            .value()
            .iter()
            .any(|folder| folder["id"] == made.body["id"])
    );
}

#[tokio::test]
async fn who_has_no_mailbox() {
    let kinds = [
        (
            "prem@contoso.example",
            UserKind::OnPremises,
            "MailboxNotEnabledForRESTAPI",
        ),
        (
            "none@contoso.example",
            UserKind::Unlicensed,
            "MailboxNotEnabledForRESTAPI",
        ),
        (
            "gone@contoso.example",
            UserKind::Deleted,
            "ErrorInvalidUser",
        ),
        ("room@contoso.example", UserKind::Room, ""),
        ("off@contoso.example", UserKind::Disabled, ""),
    ];
    let users = kinds
        .iter()
        .map(|(address, kind, _)| User::new(address).kind(*kind))
        .collect();
    let client = Client::start(Settings {
        users,
        ..Settings::default()
    })
    .await;
    for (address, kind, code) in kinds {
        let answer = client
            .get(&format!("/users/{}/messages", encoded(address)))
            .await;
        assert_eq!(answer.code(), code, "{kind:?}");
    }
}

#[tokio::test]
async fn users_act_and_state_is_written_back() {
    let (client, delivered) = Client::with_invoice(&["ana@contoso.example"]).await;
    let user = client.user("ana@contoso.example");
    let act = |action| {
        client
            .tenant
            .act("ana@contoso.example", &delivered.message_id, &action)
    };
    assert_eq!(act(UserAction::Read), 1);
    assert_eq!(act(UserAction::Copy("Projects".into())), 1);
    assert_eq!(act(UserAction::Move("archive".into())), 2);
    let found = client
        .get(&format!(
            "{user}/messages?$filter={}",
            by_message_id(&delivered.message_id)
        ))
        .await;
    assert_eq!(found.value().len(), 2);
    let id = encoded(found.value()[0]["id"].as_str().unwrap());
    let body = Some(json!({ "isRead": false, "flag": { "flagStatus": "flagged" } }));
    let patched = client
        .send(Method::PATCH, &format!("{user}/messages/{id}"), &[], body)
        .await;
    assert_eq!(
        (patched.status, patched.body["isRead"].as_bool()),
        (200, Some(false))
    );
    assert_eq!(patched.body["flag"]["flagStatus"], "flagged");
    assert_eq!(act(UserAction::Vanish), 2);
    assert_eq!(
        client.get(&format!("{user}/messages/{id}")).await.code(),
        "ErrorItemNotFound"
    );
}
