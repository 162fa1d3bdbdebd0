//! The service is killed in the middle of a retraction, again and again, and the job ends as if it had not been.

use std::time::Duration;

use clawback_tenant::{Mail, Settings, Tenant};
use serde_json::{Value, json};

use super::cli_serving::Site;
use super::retract_support::{open_store, store_reports, tenant_section};

const COPIES: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_several_instants_a_job_ends_whole() {
    let addresses: Vec<String> = (0..COPIES)
        .map(|n| format!("u{n}@contoso.example"))
        .collect();
    let tenant = Tenant::start(Settings::with_users(&addresses))
        .await
        .unwrap();
    let site = Site::new("");
    let root = site.directory.path();
    let text = std::fs::read_to_string(&site.config).unwrap();
    let section = tenant_section(&tenant, "contoso", root);
    std::fs::write(&site.config, format!("{text}{section}")).unwrap();
    let delivered = tenant.deliver(&Mail::new("x@evil.example", &addresses, "s"));
    let store = open_store(root);
    store_reports(&tenant, "contoso", &store).await;
    // Closing blocks until its threads have ended.
    tokio::task::spawn_blocking(move || store.close())
        .await
        .unwrap();
    tenant.change(|conduct| conduct.service_time = Duration::from_millis(5));
    let service = site.serve();
    let started = service.run(&["--json", "retract", "--yes", &delivered.message_id]);
    assert_eq!(started.code, 0, "{}", started.stderr);
    let started: Value = serde_json::from_str(&started.stdout).unwrap();
    let id = started["job"].as_str().unwrap().to_owned();
    let mut service = Some(service);
    for moves in [1, COPIES as u64 / 3, COPIES as u64 / 2] {
        while tenant.counts().moves < moves {
            tokio::task::yield_now().await;
        }
        // Dropping it is SIGKILL.
        drop(service.take());
        service = Some(site.serve());
    }
    let service = service.unwrap();
    let show = ["--json", "jobs", "show", &id];
    let document = loop {
        let shown = service.run(&show);
        assert!(shown.stderr.is_empty(), "{}", shown.stderr);
        let document: Value = serde_json::from_str(&shown.stdout).unwrap();
        let counts = &document["counts"];
        if ["pending", "located", "acted"]
            .iter()
            .all(|state| counts[state].is_null())
        {
            break document;
        }
    };
    assert_eq!(
        document["counts"],
        json!({ "verified": COPIES }),
        "{:#}",
        document["items"]
    );
    for address in &addresses {
        let view = tenant.mailbox(address).unwrap();
        let copies = view.copies(&delivered.message_id);
        let [copy] = &copies[..] else {
            panic!("{address}: {copies:?}");
        };
        assert_eq!(
            (copy.folder.as_str(), copy.moves),
            ("recoverableitemsdeletions", 1),
            "{address}"
        );
    }
    let verified = service.run(&["audit", "verify"]);
    assert_eq!(verified.code, 0, "{}{}", verified.stdout, verified.stderr);
}
