//! `/users`, `/groups`, `/organization`, `/domains`.

use clawback_tenant::{Group, GroupKind, Settings, User, UserKind};
use reqwest::Method;
use serde_json::Value;

use crate::client::{Answer, Client, people};

const EVENTUAL: [(&str, &str); 1] = [("ConsistencyLevel", "eventual")];

fn with_groups() -> Settings {
    let mut settings = people();
    settings
        .users
        .push(User::new("guest@outside.example").kind(UserKind::Guest));
    settings.groups = vec![
        Group::new(
            "all@contoso.example",
            ["team@contoso.example", "chi@contoso.example"],
        ),
        Group::new(
            "team@contoso.example",
            [
                "ana@contoso.example",
                "bo@contoso.example",
                "all@contoso.example",
            ],
        ),
        Group {
            kind: GroupKind::Dynamic,
            ..Group::new("dynamic@contoso.example", ["bo@contoso.example"])
        },
    ];
    settings
}

fn mails(answer: &Answer) -> Vec<&str> {
    let mut mails: Vec<&str> = answer
        .value()
        .iter()
        .filter_map(|entry| entry["mail"].as_str())
        .collect();
    mails.sort_unstable();
    mails
}

#[tokio::test]
async fn users_are_found_by_any_address() {
    let client = Client::start(with_groups()).await;
    for (name, filter, expected) in [
        (
            "primary",
            "proxyAddresses/any(p:p%20eq%20'smtp:ana@contoso.example')",
            &["ana@contoso.example"][..],
        ),
        (
            "alias, other case",
            "proxyAddresses/any(p:p+eq+%27SMTP:A.Smith@contoso.example%27)",
            &["ana@contoso.example"],
        ),
        (
            "several",
            "proxyAddresses/any(p:p%20eq%20'smtp:bo@contoso.example')%20or%20mail%20eq%20'chi@contoso.example'",
            &["bo@contoso.example", "chi@contoso.example"],
        ),
        ("nobody", "mail%20eq%20'nobody@contoso.example'", &[]),
        (
            "a plus read as blank",
            "mail%20eq%20'a+b@contoso.example'",
            &[],
        ),
        (
            "start",
            "startsWith(userPrincipalName,'bo')",
            &["bo@contoso.example"],
        ),
        (
            "list",
            "mail%20in%20('bo@contoso.example','chi@contoso.example')",
            &["bo@contoso.example", "chi@contoso.example"],
        ),
    ] {
        let answer = client
            .get(&format!(
                "/users?$select=id,mail,proxyAddresses&$filter={filter}"
            ))
            .await;
        assert_eq!(mails(&answer), expected, "{name}: {answer:?}");
    }
    let alias = client.get("/users/a.smith%40contoso.example").await;
    assert_eq!(
        (alias.status, alias.code()),
        (404, "Request_ResourceNotFound")
    );
    assert_eq!(client.get("/users/ANA%40contoso.example").await.status, 200);
    let guest = client
        .get(
            "/users?$filter=mail%20eq%20'guest@outside.example'&$select=userPrincipalName,userType",
        )
        .await;
    assert_eq!(guest.value()[0]["userType"], "Guest");
    let principal = guest.value()[0]["userPrincipalName"]
        .as_str()
        .unwrap()
        .replace('#', "%23")
        .replace('@', "%40");
    assert_eq!(client.get(&format!("/users/{principal}")).await.status, 200);
}

#[tokio::test]
async fn fields_come_when_selected() {
    let client = Client::start(with_groups()).await;
    let usual = client.get("/users/ana%40contoso.example").await;
    assert!(usual.body.get("proxyAddresses").is_none() && usual.body.get("id").is_some());
    let selected = client
        .get("/users/ana%40contoso.example?$select=proxyAddresses")
        .await;
    assert_eq!(
        selected.body["proxyAddresses"][1],
        "smtp:a.smith@contoso.example"
    );
    assert!(
        selected.body.get("id").is_none(),
        "the id of a user comes only when selected"
    );
    assert_eq!(
        client
            .get("/users/ana%40contoso.example?$select=proxyAdresses")
            .await
            .status,
        400
    );
}

#[tokio::test]
async fn advanced_queries_need_their_header_and_count() {
    let client = Client::start(with_groups()).await;
    let advanced = "/users?$filter=not(startsWith(mail,'ana'))";
    assert_eq!(
        client.get(advanced).await.code(),
        "Request_UnsupportedQuery"
    );
    assert_eq!(
        client.get(&format!("{advanced}&$count=true")).await.code(),
        "Request_UnsupportedQuery"
    );
    let allowed = client
        .send(
            Method::GET,
            &format!("{advanced}&$count=true"),
            &EVENTUAL,
            None,
        )
        .await;
    assert_eq!(allowed.body["@odata.count"], 3);
    assert!(
        client
            .get("/users?$count=true")
            .await
            .body
            .get("@odata.count")
            .is_none(),
        "ignored without the header"
    );
    let many: Vec<String> = (0..16)
        .map(|number| format!("mail%20eq%20'{number}@x'"))
        .collect();
    assert_eq!(
        client
            .get(&format!("/users?$filter={}", many.join("%20or%20")))
            .await
            .code(),
        "Request_UnsupportedQuery"
    );
    assert_eq!(
        client
            .get(&format!("/users?$filter={}", many[..15].join("%20or%20")))
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn groups_and_their_members() {
    let client = Client::start(with_groups()).await;
    let found = client.get("/groups?$filter=proxyAddresses/any(p:p%20eq%20'smtp:all@contoso.example')&$select=id,mail,mailEnabled,securityEnabled,groupTypes").await;
    assert_eq!(mails(&found), ["all@contoso.example"]);
    let id = found.value()[0]["id"].as_str().unwrap();
    let mixed = client
        .get(&format!("/groups/{id}/transitiveMembers?$select=id,mail"))
        .await;
    let kinds: Vec<&Value> = mixed
        .value()
        .iter()
        .map(|member| &member["@odata.type"])
        .collect();
    assert!(
        kinds.contains(&&Value::from("#microsoft.graph.group")),
        "{kinds:?}"
    );
    let cast = format!(
        "/groups/{id}/transitiveMembers/microsoft.graph.user?$select=id,mail&$count=true&$top=999"
    );
    assert_eq!(
        client.get(&cast).await.code(),
        "Request_UnsupportedQuery",
        "a cast with options is advanced"
    );
    let users = client.send(Method::GET, &cast, &EVENTUAL, None).await;
    assert_eq!(
        mails(&users),
        [
            "ana@contoso.example",
            "bo@contoso.example",
            "chi@contoso.example"
        ]
    );
    let direct = client
        .get(&format!("/groups/{id}/members?$select=mail"))
        .await;
    assert_eq!(
        mails(&direct),
        ["chi@contoso.example", "team@contoso.example"]
    );
    let dynamic = client
        .get("/groups?$filter=mail%20eq%20'dynamic@contoso.example'")
        .await;
    assert!(
        dynamic.value().is_empty(),
        "Graph does not know dynamic distribution groups"
    );
}

#[tokio::test]
async fn pages_of_users() {
    let users = (0..250)
        .map(|number| User::new(&format!("u{number}@contoso.example")))
        .collect();
    let client = Client::start(Settings {
        users,
        ..Settings::default()
    })
    .await;
    let (mut target, mut seen, mut pages) = ("/users?$select=id".to_owned(), 0, 0);
    loop {
        let answer = client.get(&target).await;
        (seen, pages) = (seen + answer.value().len(), pages + 1);
        let Some(link) = answer.body["@odata.nextLink"].as_str() else {
            break;
        };
        target = link
            .strip_prefix(&client.tenant.graph_url())
            .unwrap()
            .to_owned();
    }
    assert_eq!((seen, pages), (250, 3));
}

#[tokio::test]
async fn the_tenant_and_its_domains() {
    let client = Client::start(people()).await;
    let organization = client
        .get("/organization?$select=id,displayName,verifiedDomains")
        .await;
    assert_eq!(organization.value()[0]["id"], client.tenant.tenant_id());
    assert_eq!(
        organization.value()[0]["verifiedDomains"][1]["isInitial"],
        true
    );
    let domains = client.get("/domains").await;
    assert_eq!(domains.value()[0]["id"], "contoso.example");
}
