//! The token endpoint, permissions, and whose token is whose.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use clawback_tenant::{Cloud, Settings, SignIn, Tenant, Transport, User};
use serde_json::Value;

use crate::client::{Client, http, people, sign_in, token};

#[tokio::test]
async fn refusals_have_their_numbers() {
    let tenant = Tenant::start(people()).await.unwrap();
    let http = http(&tenant);
    let (id, secret) = (tenant.client_id(), tenant.client_secret());
    for (name, fields, status, number) in [
        (
            "wrong secret",
            vec![("client_id", id), ("client_secret", "wrong")],
            401,
            7_000_215,
        ),
        (
            "unknown application",
            vec![("client_id", "x"), ("client_secret", secret)],
            400,
            700_016,
        ),
        ("no credentials", vec![("client_id", id)], 401, 7_000_216),
        (
            "scope without .default",
            vec![
                ("client_id", id),
                ("client_secret", secret),
                ("scope", "Mail.Read"),
            ],
            400,
            70_011,
        ),
        (
            "no scope",
            vec![("client_id", id), ("client_secret", secret), ("scope", "")],
            400,
            900_144,
        ),
        (
            "another grant",
            vec![
                ("client_id", id),
                ("client_secret", secret),
                ("grant_type", "password"),
            ],
            400,
            70_003,
        ),
        (
            "an assertion nobody registered",
            vec![("client_id", id), ("client_assertion", "a.b.c")],
            401,
            700_027,
        ),
    ] {
        let answer = token(&tenant, &http, &fields).await;
        assert_eq!(
            (answer.status, &answer.body["error_codes"][0]),
            (status, &Value::from(number)),
            "{name}: {answer:?}"
        );
        assert!(
            answer.body["error_description"]
                .as_str()
                .unwrap()
                .starts_with(&format!("AADSTS{number}: ")),
            "{name}"
        );
    }
    for (sign_in_as, number) in [
        (SignIn::SecretExpired, 7_000_222),
        (SignIn::NoApplication, 700_016),
    ] {
        tenant.change(|conduct| conduct.sign_in = sign_in_as);
        assert_eq!(sign_in(&tenant, &http).await.body["error_codes"][0], number);
    }
    let elsewhere = format!("{}/nowhere.example/oauth2/v2.0/token", tenant.login_url());
    let answer = http
        .post(elsewhere)
        .form(&[("client_id", id)])
        .send()
        .await
        .unwrap();
    assert_eq!(
        answer.json::<Value>().await.unwrap()["error_codes"][0],
        90_002
    );
}

#[tokio::test]
async fn secrets_may_come_in_the_form_or_as_basic() {
    let tenant = Tenant::start(people()).await.unwrap();
    let http = http(&tenant);
    let answer = sign_in(&tenant, &http).await;
    let jwt = answer.body["access_token"].as_str().unwrap();
    let payload: Value = serde_json::from_slice(
        &URL_SAFE_NO_PAD
            .decode(jwt.split('.').nth(1).unwrap())
            .unwrap(),
    )
    .unwrap();
    assert_eq!(payload["tid"], tenant.tenant_id());
    assert!(
        payload["roles"]
            .as_array()
            .unwrap()
            .contains(&"Mail.ReadWrite".into())
    );
    let secret: String = tenant
        .client_secret()
        .bytes()
        .map(|octet| format!("%{octet:02X}"))
        .collect();
    let basic = STANDARD.encode(format!("{}:{secret}", tenant.client_id()));
    let url = format!(
        "{}/{}/oauth2/v2.0/token",
        tenant.login_url(),
        tenant.tenant_id()
    );
    let form = [
        ("grant_type", "client_credentials"),
        ("scope", "https://graph.microsoft.com/.default"),
    ];
    let answer = http
        .post(url)
        .header("Authorization", format!("Basic {basic}"))
        .form(&form)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn permissions_decide() {
    let client = Client::start(people()).await;
    let tenant = client.tenant.clone();
    let user = client.user("ana@contoso.example");
    tenant.grant(&[]);
    let bare = Client::of(tenant.clone()).await;
    let answer = bare.get(&format!("{user}/messages")).await;
    assert_eq!((answer.status, answer.code()), (403, "ErrorAccessDenied"));
    assert_eq!(
        bare.get("/users").await.code(),
        "Authorization_RequestDenied"
    );
    tenant.grant(&["Mail.ReadBasic.All"]);
    tenant.deliver(&crate::client::inbound(&["ana@contoso.example"], "Invoice"));
    let basic = Client::of(tenant).await;
    let answer = basic.get(&format!("{user}/messages")).await;
    assert!(
        answer.value()[0].get("body").is_none() && answer.value()[0].get("bodyPreview").is_none()
    );
    let id = answer.value()[0]["id"]
        .as_str()
        .unwrap()
        .replace('=', "%3D");
    assert_eq!(
        basic.move_to(&user, &id, "junkemail").await.code(),
        "ErrorAccessDenied"
    );
    assert_eq!(
        client.move_to(&user, &id, "junkemail").await.status,
        201,
        "an older token keeps its roles"
    );
}

#[tokio::test]
async fn tokens_end() {
    let client = Client::start(people()).await;
    assert_eq!(client.get("/users").await.status, 200);
    client.tenant.expire_tokens();
    let answer = client.get("/users").await;
    assert_eq!(
        (answer.status, answer.code()),
        (401, "InvalidAuthenticationToken")
    );
    assert!(answer.headers["www-authenticate"].starts_with("Bearer "));
    assert_eq!(client.tenant.cloud().unauthorized(), 1);
}

#[tokio::test]
async fn a_token_is_good_for_its_tenant_alone() {
    let cloud = Cloud::start(Transport::Https).await.unwrap();
    let other = Settings {
        name: "Fabrikam".into(),
        domains: vec!["fabrikam.example".into()],
        users: vec![User::new("dee@fabrikam.example")],
        ..Settings::default()
    };
    let (ours, theirs) = (
        Client::of(cloud.add(people())).await,
        Client::of(cloud.add(other)).await,
    );
    theirs.tenant.deliver(&crate::client::inbound(
        &["dee@fabrikam.example"],
        "Invoice",
    ));
    let dee = theirs.user("dee@fabrikam.example");
    assert_eq!(
        theirs.get(&format!("{dee}/messages")).await.value().len(),
        1
    );
    let answer = ours.get("/users/dee%40fabrikam.example/messages").await;
    assert_eq!((answer.status, answer.code()), (404, "ErrorInvalidUser"));
    assert_eq!(ours.tenant.counts().foreign, 1);
    assert_eq!(theirs.tenant.counts().foreign, 0);
    ours.tenant
        .deliver(&crate::client::inbound(&["ana@contoso.example"], "Invoice"));
    let id = theirs.get(&format!("{dee}/messages")).await.value()[0]["id"]
        .as_str()
        .unwrap()
        .replace('=', "%3D");
    let answer = ours
        .get(&format!(
            "{}/messages/{id}",
            ours.user("ana@contoso.example")
        ))
        .await;
    assert_eq!(
        (answer.status, answer.code()),
        (404, "ErrorInvalidMailboxItemId")
    );
    assert_eq!(ours.tenant.counts().foreign, 2);
}
