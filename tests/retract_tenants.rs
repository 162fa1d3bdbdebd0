//! Two tenants of one cloud are never mixed up, and the secret is nowhere but in its file.

use std::sync::Arc;
use std::time::Duration;

use clawback::audit::Audit;
use clawback::graph::api::{MailboxId, Request, Scope};
use clawback::graph::client::ClientError;
use clawback::key::StoreKey;
use clawback::mail::{MessageId, TenantName};
use clawback::retract::Action;
use clawback::state::log::StateLog;
use clawback::worker::{Started, Worker};
use clawback_tenant::{Cloud, Mail, Settings, Tenant, Transport};

use super::retract_support::{config, open_store, request, store_reports, tenant_section, timing};

async fn tenants() -> [Tenant; 2] {
    let cloud = Cloud::start(Transport::Https).await.unwrap();
    [1, 2].map(|seed| {
        let settings = Settings::with_users(["a@contoso.example", "b@contoso.example"]);
        cloud.add(Settings { seed, ..settings })
    })
}

#[tokio::test]
async fn jobs_of_two_tenants_keep_apart() {
    let root = tempfile::tempdir().unwrap();
    let [one, two] = tenants().await;
    let store = open_store(root.path());
    let mut mail = Mail::new(
        "x@evil.example",
        ["a@contoso.example", "b@contoso.example"],
        "s",
    );
    mail.message_id = Some("<same@evil.example>".into());
    for (tenant, name) in [(&one, "one"), (&two, "two")] {
        tenant.deliver(&mail);
        store_reports(tenant, name, &store).await;
    }
    let sections = ["one", "two"].into_iter().zip([&one, &two]);
    let sections: String = sections
        .map(|(name, tenant)| tenant_section(tenant, name, root.path()))
        .collect();
    let key = StoreKey::load(&root.path().join("store.key")).unwrap();
    let audit = Arc::new(Audit::open(&root.path().join("audit"), &key).unwrap());
    let state = StateLog::open(&root.path().join("state")).unwrap();
    let worker = Worker::start_with(
        config(root.path(), &sections),
        store.clone(),
        state,
        audit,
        timing(),
    );
    let id = MessageId::new("<same@evil.example>").unwrap();
    let record = |name: &str| {
        store
            .by_message_id(Some(&TenantName::new(name)), &id)
            .unwrap()[0]
            .id
    };
    assert_ne!(record("one"), record("two"));
    let Started::Job { id: job, .. } = worker
        .retract(request(record("one"), Action::SoftDelete))
        .await
        .unwrap()
    else {
        panic!("a job");
    };
    worker.wait(&job).await.unwrap();
    assert_eq!((one.counts().moves, two.counts().moves), (2, 0));
    let mut both = request(record("one"), Action::SoftDelete);
    both.records.push(record("two"));
    let error = worker.retract(both).await.unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    // Both at once, each of its copies at an instant of its own.
    for (tenant, wait) in [(&one, 3), (&two, 2)] {
        tenant.change(|conduct| conduct.service_time = Duration::from_millis(wait));
    }
    let run = async |name: &str, action| {
        let started = worker.retract(request(record(name), action)).await.unwrap();
        let Started::Job { id, .. } = started else {
            panic!("a job");
        };
        worker.wait(&id).await.unwrap()
    };
    let (first, second) = tokio::join!(run("one", Action::Inbox), run("two", Action::SoftDelete));
    for (document, name) in [(first, "one"), (second, "two")] {
        assert_eq!(document["tenant"], name);
        assert_eq!(document["counts"], serde_json::json!({"verified": 2}));
    }
    assert_eq!((one.counts().moves, two.counts().moves), (4, 2));
    assert_eq!((one.counts().foreign, two.counts().foreign), (0, 0));
    worker.shut_down().await;
    for tenant in [&one, &two] {
        secret_is_nowhere(root.path(), tenant.client_secret());
    }
}

/// No file of the data, state and audit directories holds the secret.
fn secret_is_nowhere(root: &std::path::Path, secret: &str) {
    let mut open = vec![root.join("data"), root.join("state"), root.join("audit")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                std::fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        files += 1;
        let octets = std::fs::read(&path).unwrap();
        let found = octets
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "{}", path.display());
    }
    assert!(files > 3);
}

#[tokio::test]
async fn a_client_refuses_another_tenants_request() {
    let [one, _] = tenants().await;
    let client = super::graph_client::client(&one, "one");
    let foreign = MailboxId {
        tenant: TenantName::new("two"),
        user: one.user_id("a@contoso.example").unwrap(),
    };
    let request = Request::locate(&foreign, Scope::AllFolders, "<a@x>").unwrap();
    let error = client.call(&request).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherTenant { .. }), "{error}");
    let (_, permit) = client.admit(&[Some(foreign)]).unwrap();
    let error = client.batch(&[request], permit).await.unwrap_err();
    assert!(matches!(error, ClientError::OtherTenant { .. }), "{error}");
    assert_eq!((one.counts().requests, one.counts().tokens), (0, 0));
}
