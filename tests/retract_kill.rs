//! The service is killed in the middle of a retraction, or its logs cannot be written for a while,
//! and the job ends as if nothing had been.

use std::time::Duration;

use clawback_tenant::{Mail, Settings, Tenant};
use serde_json::{Value, json};

use super::cli_serving::{Serving, Site};
use super::preload::Disk;
use super::retract_support::{open_store, store_reports, tenant_section};

const COPIES: usize = 40;

/// A message in the mailboxes of a tenant, and a service that knows of it.
struct Phish {
    tenant: Tenant,
    site: Site,
    addresses: Vec<String>,
    message_id: String,
}

impl Phish {
    /// The logs of jobs are where the link `data` leads, if there is a disk.
    async fn deliver(disk: Option<&Disk>) -> Self {
        let addresses: Vec<String> = (0..COPIES)
            .map(|n| format!("u{n}@contoso.example"))
            .collect();
        let tenant = Tenant::start(Settings::with_users(&addresses))
            .await
            .unwrap();
        let site = Site::new("");
        let root = site.directory.path();
        if let Some(disk) = disk {
            std::os::unix::fs::symlink(disk.path(), site.path("data")).unwrap();
        }
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
        Self {
            tenant,
            site,
            addresses,
            message_id: delivered.message_id,
        }
    }

    /// Starts to retract it; the job, or why not.
    fn try_retract(&self, service: &Serving<'_>) -> Result<String, String> {
        let started = service.run(&["--json", "retract", "--yes", &self.message_id]);
        if started.code != 0 {
            return Err(started.stderr);
        }
        let started: Value = serde_json::from_str(&started.stdout).unwrap();
        Ok(started["job"].as_str().unwrap().to_owned())
    }

    fn retract(&self, service: &Serving<'_>) -> String {
        self.try_retract(service).unwrap()
    }

    async fn wait_for_moves(&self, moves: u64) {
        while self.tenant.counts().moves < moves {
            tokio::task::yield_now().await;
        }
    }

    /// The job ends, each copy was moved once, and the audit log is whole.
    fn check(&self, service: &Serving<'_>, job: &str) {
        let show = ["--json", "jobs", "show", job];
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
        for address in &self.addresses {
            let view = self.tenant.mailbox(address).unwrap();
            let copies = view.copies(&self.message_id);
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
}

/// Entries of the audit log that tell of a mailbox, by `action`.
fn entries(service: &Serving<'_>, action: &str) -> Vec<Value> {
    let mut entries = service.run(&["--json", "audit", "show"]).documents();
    entries.retain(|entry| entry["action"] == action && entry["mailbox"].is_string());
    entries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_several_instants_a_job_ends_whole() {
    let phish = Phish::deliver(None).await;
    let service = phish.site.serve();
    let job = phish.retract(&service);
    let mut service = Some(service);
    for moves in [1, COPIES as u64 / 3, COPIES as u64 / 2] {
        phish.wait_for_moves(moves).await;
        // Dropping it is SIGKILL.
        drop(service.take());
        service = Some(phish.site.serve());
    }
    phish.check(&service.unwrap(), &job);
}

/// When a log begins to fail.
enum Fault {
    /// The audit log takes that the job was asked for, and then nothing.
    AtFirstIntent,
    /// With this fault, when copies are being moved.
    AfterOneMove(&'static str),
}

/// While a log of the job cannot be written nothing is moved that the audit log does not announce;
/// when it can be written again, the job goes on.
async fn logs_fail(fault: Fault, kill: bool) {
    let disk = Disk::new();
    let phish = Phish::deliver(Some(&disk)).await;
    let serve = || {
        let mut command = phish.site.command();
        disk.attach(command.arg("serve"));
        phish.site.started(command)
    };
    let mut service = serve();
    let (job, fault) = match fault {
        Fault::AtFirstIntent => {
            let faults = (1..50).map(|nth| format!("write {nth} ENOSPC 0 /audit/"));
            let started = faults.map(|fault| {
                disk.fail(&fault);
                Some((phish.try_retract(&service).ok()?, fault))
            });
            started.flatten().next().expect("a job begins")
        }
        Fault::AfterOneMove(fault) => {
            let job = phish.retract(&service);
            phish.wait_for_moves(1).await;
            disk.fail(fault);
            (job, fault.to_owned())
        }
    };
    service.wait_for("a retraction job waits for its logs");
    if kill {
        drop(service);
        disk.fail("");
        service = serve();
    } else {
        // The second time nothing is under way any more.
        service.wait_for("a retraction job waits for its logs");
        let moves = phish.tenant.counts().moves;
        assert!(moves < COPIES as u64, "{fault}: too late");
        let announced = entries(&service, "intent").len();
        assert!(moves <= announced as u64, "{fault}: {moves} of {announced}");
        disk.fail("");
    }
    phish.check(&service, &job);
    let intents = entries(&service, "intent");
    for outcome in entries(&service, "outcome") {
        let announced = intents.iter().any(|intent| {
            intent["mailbox"] == outcome["mailbox"]
                && intent["seq"].as_u64() < outcome["seq"].as_u64()
        });
        assert!(announced, "{fault}: {outcome}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_log_that_fails_in_mid_job_stops_the_moves() {
    for fault in [
        Fault::AtFirstIntent,
        Fault::AfterOneMove("write 1 ENOSPC 0 /audit/"),
    ] {
        logs_fail(fault, false).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_log_that_fails_in_mid_job_stops_the_moves() {
    logs_fail(Fault::AfterOneMove("sync 1 EIO 0 /state/"), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_audit_log_fails_a_job_ends_whole() {
    logs_fail(Fault::AfterOneMove("sync 1 EIO 0 /audit/"), true).await;
}
