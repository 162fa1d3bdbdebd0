//! The resolver against a directory in memory.

use super::*;
use serde_json::{Value, json};

struct Directory {
    users: Vec<Value>,
    groups: Vec<(Value, Vec<usize>)>,
    log: Vec<String>,
}

fn user(id: &str, proxies: &[&str]) -> Value {
    json!({"id": id, "userPrincipalName": format!("{id}@corp.x"), "proxyAddresses": proxies,
        "accountEnabled": true, "userType": "Member"})
}

impl Directory {
    fn answer(&mut self, request: &Request) -> Answer {
        let target = percent_encoding::percent_decode_str(request.target())
            .decode_utf8()
            .unwrap()
            .to_lowercase();
        self.log.push(target.clone());
        let has = |entry: &Value| {
            let proxies = entry["proxyAddresses"].as_array().unwrap();
            proxies.iter().any(|p| {
                let literal = format!("'{}'", p.as_str().unwrap().to_lowercase());
                target.contains(&format!("p eq {literal}"))
            })
        };
        let page = |values: Vec<&Value>| json!({ "value": values });
        let body = if let Some(rest) = target.strip_prefix("/groups/") {
            let (id, _) = rest.split_once('/').unwrap();
            let (_, members) = self
                .groups
                .iter()
                .find(|(group, _)| group["id"] == id)
                .unwrap();
            page(members.iter().map(|n| &self.users[*n]).collect())
        } else if target.starts_with("/groups?") {
            page(
                self.groups
                    .iter()
                    .map(|(group, _)| group)
                    .filter(|g| has(g))
                    .collect(),
            )
        } else if target.starts_with("/users?") {
            page(self.users.iter().filter(|user| has(user)).collect())
        } else {
            let name = target
                .trim_start_matches("/users/")
                .split('?')
                .next()
                .unwrap();
            match self
                .users
                .iter()
                .find(|user| user["userPrincipalName"] == name)
            {
                Some(user) => user.clone(),
                None => {
                    return Answer {
                        status: 404,
                        retry_after: None,
                        body: json!({"error": {"code": "Request_ResourceNotFound"}}),
                    };
                }
            }
        };
        Answer {
            status: 200,
            retry_after: None,
            body,
        }
    }

    fn resolve(&mut self, domains: &[&str], addresses: &[&str]) -> HashMap<Address, Resolution> {
        let base = Base::parse("https://graph.example/v1.0").unwrap();
        let domains: Vec<String> = domains.iter().map(|d| (*d).into()).collect();
        let addresses: Vec<Address> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let mut resolver = Resolver::new(TenantName::new("t"), base, &domains, &addresses);
        loop {
            let requests = resolver.requests();
            if requests.is_empty() {
                return resolver.finish();
            }
            for (position, request) in requests.iter().enumerate() {
                let answer = self.answer(request);
                assert_eq!(resolver.answer(position, &answer).unwrap(), None);
            }
        }
    }
}

fn told(resolution: &Resolution) -> String {
    match resolution {
        Resolution::External => "external".into(),
        Resolution::None(absent) => format!("{absent:?}"),
        Resolution::Mailboxes { mailboxes, beside } => {
            let ids: Vec<_> = mailboxes
                .iter()
                .map(|m| format!("{}={}", m.id.user, m.address))
                .collect();
            format!("{} {beside:?}", ids.join(","))
        }
    }
}

#[test]
fn addresses_find_their_mailboxes() {
    let mut guest = user("g", &["SMTP:guest@x"]);
    guest["userType"] = "Guest".into();
    let mut directory = Directory {
        users: vec![
            user("a", &["SMTP:Ana@x", "smtp:alias@x", "SIP:ana@x"]),
            user("b", &["smtp:second@x", "SMTP:bo@x"]),
            guest,
            user("n", &[]),
        ],
        groups: vec![
            (
                json!({"id": "l", "proxyAddresses": ["SMTP:list@x"], "groupTypes": []}),
                vec![0, 1, 0, 2],
            ),
            (
                json!({"id": "o", "proxyAddresses": ["SMTP:team@x"], "groupTypes": ["Unified"]}),
                vec![],
            ),
            (
                json!({"id": "e", "proxyAddresses": ["SMTP:empty@x"]}),
                vec![],
            ),
        ],
        log: Vec::new(),
    };
    let rows = [
        ("ana@x", "a=Ana@x []"),
        ("ALIAS@x", "a=Ana@x []"),
        ("second@x", "b=bo@x []"),
        ("bo+news@x", "b=bo@x []"),
        ("list@x", "a=Ana@x,b=bo@x [Guest]"),
        ("team@x", "GroupMailbox"),
        ("empty@x", "EmptyGroup"),
        ("guest@x", "Guest"),
        ("n@corp.x", "n=n@corp.x []"),
        ("left@x", "DeletedUser"),
        ("out@y", "external"),
        ("o'brien+x@sub.x", "external"),
    ];
    let addresses: Vec<&str> = rows.iter().map(|(address, _)| *address).collect();
    let resolved = directory.resolve(&["X", "corp.x"], &addresses);
    assert_eq!(resolved.len(), rows.len());
    for (address, expected) in rows {
        let resolution = &resolved[&address.parse::<Address>().unwrap()];
        assert_eq!(told(resolution), expected, "{address}");
    }
    assert!(
        !directory.log.iter().any(|line| line.contains("@y")),
        "{:?}",
        directory.log
    );
}

#[test]
fn without_domains_nobody_is_external() {
    let mut directory = Directory {
        users: vec![],
        groups: vec![],
        log: vec![],
    };
    let resolved = directory.resolve(&[], &["a@y"]);
    assert_eq!(
        told(&resolved[&"a@y".parse::<Address>().unwrap()]),
        "DeletedUser"
    );
}

#[test]
fn many_addresses_take_few_requests() {
    let users: Vec<Value> = (0..31)
        .map(|n| user(&format!("u{n}"), &[&format!("SMTP:u{n}@x")]))
        .collect();
    let mut directory = Directory {
        users,
        groups: vec![],
        log: vec![],
    };
    let addresses: Vec<String> = (0..31).map(|n| format!("u{n}@x")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    assert_eq!(directory.resolve(&["x"], &addresses).len(), 31);
    assert_eq!(directory.log.len(), 3);
}

#[test]
fn why_a_mailbox_may_not_answer() {
    for (name, change, expected) in [
        ("nothing known", json!({}), Absent::OnPremises),
        ("no plan", json!({"assignedPlans": []}), Absent::NoLicence),
        (
            "synced, no plan",
            json!({"assignedPlans": [], "onPremisesSyncEnabled": true}),
            Absent::OnPremises,
        ),
        (
            "disabled",
            json!({"accountEnabled": false}),
            Absent::Disabled,
        ),
    ] {
        let mut value = user("a", &["SMTP:a@x"]);
        for (key, field) in change.as_object().unwrap() {
            value[key] = field.clone();
        }
        let mut directory = Directory {
            users: vec![value],
            groups: vec![],
            log: vec![],
        };
        let resolved = directory.resolve(&["x"], &["a@x"]);
        let Resolution::Mailboxes { mailboxes, .. } = &resolved[&"a@x".parse::<Address>().unwrap()]
        else {
            panic!("{name}");
        };
        assert_eq!(mailboxes[0].without, expected, "{name}");
    }
}
