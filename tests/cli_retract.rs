//! `retract` and `jobs` against a running service and a simulated tenant.

use std::fs;

use clawback_tenant::{Fault, FaultKind, Mail, Settings, SmartHost, Tenant, UserAction};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cli_serving::{Serving, Site};

const JOURNAL: &str = "k3v9q7@journal.example";
const USERS: [&str; 3] = [
    "ana@contoso.example",
    "bo@contoso.example",
    "chi@contoso.example",
];

/// A simulated tenant and a site that is configured for it.
struct Scene {
    runtime: Runtime,
    tenant: Tenant,
    site: Site,
}

impl Scene {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let tenant = runtime
            .block_on(Tenant::start(Settings::with_users(USERS)))
            .unwrap();
        let site = Site::new(&format!(
            "[[tenant]]\nname = \"contoso\"\ntenant_id = \"{}\"\ndomains = [\"contoso.example\", \"{}\"]\n\
             client_id = \"{}\"\nclient_secret_file = \"contoso.secret\"\nca_file = \"graph.pem\"\n\
             peers = [\"127.0.0.0/8\"]\njournal_address = [\"{JOURNAL}\"]\ngraph_url = \"{}\"\nlogin_url = \"{}\"\n",
            tenant.tenant_id(),
            tenant.initial_domain(),
            tenant.client_id(),
            tenant.graph_url(),
            tenant.login_url(),
        ));
        fs::write(site.path("contoso.secret"), tenant.client_secret()).unwrap();
        fs::write(site.path("graph.pem"), tenant.ca_pem()).unwrap();
        Self {
            runtime,
            tenant,
            site,
        }
    }

    /// Delivers mail into the mailboxes and journals it.
    fn deliver(&self, service: &Serving<'_>, mails: &[Mail]) {
        let ca = fs::read_to_string(self.site.path("certs/fullchain.pem")).unwrap();
        let _runtime = self.runtime.enter();
        for mail in mails {
            self.tenant.deliver(mail);
        }
        let connector = self
            .tenant
            .connector(SmartHost::new(service.address(), &ca, JOURNAL))
            .unwrap();
        self.runtime.block_on(async {
            connector.drain().await;
            assert_eq!(
                connector.statistics().refused,
                0,
                "{:?}",
                connector.statistics()
            );
            connector.stop().await;
        });
    }

    /// The folder of each user's copy.
    fn folders(&self, message_id: &str) -> Vec<String> {
        let copies = USERS.iter().flat_map(|user| {
            let mailbox = self.tenant.mailbox(user).unwrap();
            mailbox
                .copies(message_id)
                .into_iter()
                .map(|copy| copy.folder.clone())
                .collect::<Vec<_>>()
        });
        copies.collect()
    }
}

fn phish(id: &str, subject: &str) -> Mail {
    Mail {
        message_id: Some(format!("<{id}>")),
        ..Mail::new("eve@evil.example", USERS, subject)
    }
}

#[test]
fn a_message_is_taken_out_of_every_mailbox() {
    let scene = Scene::new();
    let service = scene.site.serve();
    scene.deliver(
        &service,
        &[
            phish("bad@evil.example", "Invoice"),
            phish("good@evil.example", "Invoice"),
        ],
    );

    // Nobody is asked without a terminal.
    let refused = service.run(&["retract", "<bad@evil.example>"]);
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);

    let plan = service.run(&[
        "--json",
        "retract",
        "bad@evil.example",
        "--to",
        "trash",
        "--dry-run",
    ]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let plan = &plan.documents()[0];
    assert_eq!(
        (&plan["state"], plan.get("id")),
        (&"planned".into(), None),
        "{plan}"
    );
    assert_eq!(plan["recipients"].as_array().unwrap().len(), 3);
    assert_eq!(
        scene.folders("<bad@evil.example>"),
        ["inbox"; 3],
        "a dry run moves nothing"
    );

    let done = service.run(&[
        "--json",
        "retract",
        "bad@evil.example",
        "--to",
        "trash",
        "--reason",
        "phish",
        "--wait",
        "--yes",
    ]);
    assert_eq!(done.code, 0, "{}{}", done.stdout, done.stderr);
    let job = &done.documents()[0];
    assert_eq!(job["counts"]["verified"], 3, "{job}");
    for key in [
        "id", "tenant", "state", "action", "created", "by", "reason", "counts",
    ] {
        assert!(job.get(key).is_some(), "{key}");
    }
    for item in job["items"].as_array().unwrap() {
        assert_eq!(
            item["folder_after"]["name"].as_str().map(str::is_empty),
            Some(false),
            "{item}"
        );
    }
    assert_eq!(scene.folders("<bad@evil.example>"), ["deleteditems"; 3]);
    assert_eq!(
        scene.folders("<good@evil.example>"),
        ["inbox"; 3],
        "nothing else is touched"
    );

    let id = job["id"].as_str().unwrap();
    let listed = service.run(&["--json", "jobs"]).documents();
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &id.into()));
    let shown = service.run(&["--json", "jobs", "show", id]).documents();
    assert_eq!(shown[0]["items"], job["items"]);
    assert!(
        service
            .run(&["jobs", "show", id])
            .stdout
            .contains("ana@contoso.example")
    );
    assert!(service.run(&["jobs"]).stdout.contains("3 verified"));
    assert_eq!(service.run(&["jobs", "show", "job_none"]).code, 1);
    let record = service
        .run(&["--json", "show", "bad@evil.example"])
        .documents();
    assert_eq!(
        record[0]["jobs"],
        serde_json::json!([id]),
        "a record names its jobs"
    );
    let audit = service.run(&["--json", "audit", "show"]).documents();
    let of_job = |action: &str| {
        audit
            .iter()
            .filter(|e| e["job"] == id && e["action"] == action)
            .count()
    };
    assert!(
        of_job("intent") >= 3 && of_job("outcome") >= 3,
        "{audit:#?}"
    );

    // A second time there is nothing to do, and that is no failure.
    let again = service.run(&[
        "--json",
        "retract",
        "bad@evil.example",
        "--to",
        "trash",
        "--wait",
        "--yes",
    ]);
    assert_eq!(again.code, 0, "{}", again.stdout);
    // Without --wait the job's id is the answer.
    let started = service.run(&[
        "retract",
        "good@evil.example",
        "--recipient",
        USERS[0],
        "--yes",
    ]);
    assert!(started.stdout.starts_with("job_"), "{}", started.stdout);
}

#[test]
fn several_records_of_one_message_id_are_listed_and_refused() {
    let scene = Scene::new();
    let service = scene.site.serve();
    // The same Message-ID on two messages: somebody copied it.
    scene.deliver(
        &service,
        &[
            phish("twin@evil.example", "One"),
            phish("twin@evil.example", "Two"),
        ],
    );
    let refused = service.run(&["retract", "twin@evil.example", "--yes"]);
    assert_eq!(refused.code, 2, "{}", refused.stdout);
    assert!(
        refused.stderr.contains("has 2 records"),
        "{}",
        refused.stderr
    );
    assert!(
        refused.stdout.contains("One") && refused.stdout.contains("Two"),
        "{}",
        refused.stdout
    );
    assert_eq!(scene.folders("<twin@evil.example>"), ["inbox"; 6]);
    let records = service
        .run(&["--json", "show", "twin@evil.example"])
        .documents();
    assert_eq!(records.len(), 2);
    // One is named by its record id.
    let one = records
        .iter()
        .find(|record| record["subject"] == "One")
        .unwrap();
    let done = service.run(&[
        "--json",
        "retract",
        one["id"].as_str().unwrap(),
        "--to",
        "junk",
        "--wait",
        "--yes",
    ]);
    assert_eq!(done.code, 0, "{}", done.stdout);
    let job = &done.documents()[0];
    let counts = serde_json::json!({"verified": 3, "mismatch": 3});
    assert_eq!(job["counts"], counts, "{job}");
    let two = records.iter().find(|record| record["id"] != one["id"]);
    let items = job["items"].as_array().unwrap();
    for item in items.iter().filter(|item| item["state"] == "mismatch") {
        assert_eq!(item["other_record"], two.unwrap()["id"], "{item}");
    }
    let folders = scene.folders("<twin@evil.example>");
    assert_eq!(
        folders.iter().filter(|folder| *folder == "inbox").count(),
        3,
        "the other stays"
    );
    let all = service.run(&[
        "--json",
        "retract",
        "twin@evil.example",
        "--all-records",
        "--to",
        "soft-delete",
        "--wait",
        "--yes",
    ]);
    assert_eq!(all.code, 0, "{}", all.stdout);
    let job = &all.documents()[0];
    assert_eq!(job["counts"], serde_json::json!({"verified": 6}), "{job}");
    for recipient in job["recipients"].as_array().unwrap() {
        assert_eq!(recipient["outcome"], "verified", "{recipient}");
    }
    assert!(
        !scene
            .folders("<twin@evil.example>")
            .contains(&"inbox".to_owned())
    );
}

#[test]
fn refusals_have_their_exit_codes() {
    let scene = Scene::new();
    let service = scene.site.serve();
    scene.deliver(&service, &[phish("bad@evil.example", "Invoice")]);
    for (arguments, code, words) in [
        (&["retract", "nobody@x", "--yes"][..], 1, "not in the index"),
        (
            &[
                "retract",
                "bad@evil.example",
                "--recipient",
                "dan@contoso.example",
                "--yes",
            ],
            1,
            "recipient",
        ),
        (
            &[
                "retract",
                "bad@evil.example",
                "--to",
                "hard-delete",
                "--reason",
                "x",
                "--yes",
            ],
            2,
            "hard-delete",
        ),
        (
            &[
                "--tenant",
                "fabrikam",
                "retract",
                "bad@evil.example",
                "--yes",
            ],
            2,
            "no tenant",
        ),
    ] {
        let ended = service.run(arguments);
        assert_eq!(ended.code, code, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(words),
            "{arguments:?}: {}",
            ended.stderr
        );
    }
    scene.tenant.grant(&["User.Read.All"]);
    scene.tenant.expire_tokens();
    let ended = service.run(&["retract", "bad@evil.example", "--wait", "--yes"]);
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("Mail.ReadWrite"),
        "the missing role is named: {}",
        ended.stderr
    );
    assert_eq!(scene.folders("<bad@evil.example>"), ["inbox"; 3]);
}

/// How a job ends is the exit code: what Graph refuses outranks what was not found.
#[test]
fn jobs_that_end_badly_have_their_exit_codes() {
    let scene = Scene::new();
    let service = scene.site.serve();
    scene.deliver(&service, &[phish("bad@evil.example", "Invoice")]);
    let id = "<bad@evil.example>";
    assert_eq!(scene.tenant.act(USERS[0], id, &UserAction::Vanish), 1);
    let retract = |to: &str| {
        let arguments = [
            "--json",
            "retract",
            "bad@evil.example",
            "--to",
            to,
            "--wait",
            "--yes",
        ];
        service.run(&arguments)
    };
    let ended = retract("junk");
    assert_eq!(ended.code, 1, "{}{}", ended.stdout, ended.stderr);
    let job = &ended.documents()[0];
    let counts = serde_json::json!({"verified": 2, "not_found": 1});
    assert_eq!(job["counts"], counts, "{job}");
    scene.tenant.change(|conduct| {
        let refusal = Fault::new(FaultKind::Status(403, None), 1.0);
        conduct.faults = vec![refusal.path("/move")];
    });
    let ended = retract("trash");
    assert_eq!(ended.code, 5, "{}{}", ended.stdout, ended.stderr);
    let job = &ended.documents()[0];
    let counts = serde_json::json!({"denied": 2, "not_found": 1});
    assert_eq!(job["counts"], counts, "{job}");
}

/// The tenant's secret is nowhere but in its file.
#[test]
fn secrets_do_not_leak() {
    let scene = Scene::new();
    let service = scene.site.serve();
    scene.deliver(&service, &[phish("bad@evil.example", "Invoice")]);
    let secret = scene.tenant.client_secret();
    let mut printed = String::new();
    for arguments in [
        &["--json", "retract", "bad@evil.example", "--wait", "--yes"][..],
        &["--json", "status"],
        &["--json", "audit", "show"],
        &["--json", "jobs"],
        &["check", "--json"],
    ] {
        let ended = service.run(arguments);
        printed += &(ended.stdout + &ended.stderr);
    }
    assert!(service.stop().success());
    assert!(!printed.contains(secret));
    let mut waiting = vec![scene.site.path("data")];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            continue;
        }
        let octets = fs::read(&path).unwrap();
        let found = octets
            .windows(secret.len())
            .any(|window| window == secret.as_bytes());
        assert!(!found, "{}", path.display());
    }
}

/// `jobs show` of nothing is empty, not an error.
#[test]
fn no_jobs_are_no_error() {
    let scene = Scene::new();
    let service = scene.site.serve();
    let listed = service.run(&["--json", "jobs", "list"]);
    assert_eq!((listed.code, listed.documents()), (0, Vec::<Value>::new()));
}
