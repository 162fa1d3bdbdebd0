//! A retraction finds every copy, moves it, proves it, and says what happened for everybody.

use clawback::retract::Action;
use clawback_tenant::{Group, Mail, Settings, User, UserAction, UserKind};
use serde_json::json;

use super::retract_support::{Bench, config, outcomes, request, tenant_section, timing};
use clawback::retract::job::Timing;
use clawback::worker::Started;

const GONE: &str = "recoverableitemsdeletions";

fn people() -> Settings {
    let user = |name: &str| User::new(&format!("{name}@contoso.example"));
    Settings {
        users: vec![
            user("to"),
            user("cc"),
            user("bcc"),
            user("aliased").alias("sales@contoso.example"),
            user("member"),
            user("second"),
            user("keeper").forwarding("target@contoso.example", true),
            user("passer").forwarding("outside@elsewhere.example", false),
            user("target"),
            user("shared").kind(UserKind::Shared),
            user("guest").kind(UserKind::Guest),
            user("onprem").kind(UserKind::OnPremises),
            user("unlicensed").kind(UserKind::Unlicensed),
            user("left").kind(UserKind::Deleted),
        ],
        groups: vec![Group::new(
            "list@contoso.example",
            [
                "member@contoso.example",
                "second@contoso.example",
                "to@contoso.example",
            ],
        )],
        ..Settings::default()
    }
}

fn phish() -> Mail {
    let to = |name: &str| format!("{name}@contoso.example");
    let mut mail = Mail::new(
        "Boss <boss@evil.example>",
        [to("to"), to("list")],
        "Invoice",
    );
    mail.cc = ["cc", "sales", "keeper", "passer", "shared"].map(to).into();
    mail.bcc = ["bcc", "guest", "onprem", "unlicensed", "left"]
        .map(to)
        .into();
    mail.cc.push("someone@elsewhere.example".into());
    mail
}

#[tokio::test]
async fn every_recipient_is_accounted_for() {
    let bench = Bench::new(people()).await;
    let (delivered, record) = bench.deliver(&phish()).await;
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    for mailbox in &delivered.mailboxes {
        assert_eq!(
            bench.folders(mailbox, &delivered.message_id),
            [GONE],
            "{mailbox}"
        );
    }
    assert_eq!(bench.most_moves(&delivered.message_id), 1);
    let told = outcomes(&document);
    let stored = bench.store.record(record).unwrap().unwrap();
    assert_eq!(told.len(), stored.recipients.len());
    for expected in [
        "to@contoso.example verified -",
        "cc@contoso.example verified -",
        "bcc@contoso.example verified -",
        "member@contoso.example verified -",
        "second@contoso.example verified -",
        "target@contoso.example verified -",
        "shared@contoso.example verified -",
        "someone@elsewhere.example external other_domain",
        "onprem@contoso.example no_mailbox on_premises",
        "left@contoso.example no_mailbox deleted_user",
    ] {
        assert!(
            told.iter().any(|line| line == expected),
            "{expected}: {told:#?}"
        );
    }
    assert!(
        !told.iter().any(|line| line.contains("pending")),
        "{told:#?}"
    );
    let items = document["items"].as_array().unwrap();
    let verified = items.iter().filter(|item| item["state"] == "verified");
    for item in verified.clone() {
        assert_eq!(item["attempts"], 1, "{item}");
        assert!(item["folder_after"]["name"].is_string(), "{item}");
        assert!(item["folder_before"]["name"].is_string(), "{item}");
        assert!(
            item["verified_at"].is_string() && item["mailbox_id"].is_string(),
            "{item}"
        );
    }
    assert_eq!(verified.count(), delivered.mailboxes.len());
    assert_eq!(document["state"], "done");
    assert_eq!(document["action"], "soft-delete");
    assert_eq!(document["by"], "ana");
    assert!(document["id"].as_str().unwrap().starts_with("job_"));
}

/// Whoever left is in no list of users; without the permission to see groups, the address may be a group's.
#[tokio::test]
async fn without_sight_of_groups_the_users_copies_are_moved() {
    let bench = Bench::new(people()).await;
    bench.tenant.grant(&["Mail.ReadWrite", "User.Read.All"]);
    let mail = Mail::new(
        "x@evil.example",
        ["to@contoso.example", "left@contoso.example"],
        "s",
    );
    let (_, record) = bench.deliver(&mail).await;
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    assert_eq!(
        outcomes(&document),
        [
            "left@contoso.example denied permission",
            "to@contoso.example verified -",
        ]
    );
}

/// A role of Exchange that holds for some mailboxes only is in no token.
#[tokio::test]
async fn where_a_role_of_exchange_lets_us_copies_are_moved() {
    let users = ["a", "b", "c"].map(|name| format!("{name}@contoso.example"));
    for (allowed, expected) in [
        (
            vec![1],
            Some(["denied permission", "verified -", "denied permission"]),
        ),
        (vec![0, 1, 2], Some(["verified -"; 3])),
        (vec![], None),
    ] {
        let bench = Bench::with_users(&[&users[0], &users[1], &users[2]]).await;
        let (_, record) = bench
            .deliver(&Mail::new("x@evil.example", &users, "s"))
            .await;
        bench
            .tenant
            .grant(&["User.Read.All", "GroupMember.Read.All"]);
        bench
            .tenant
            .change(|conduct| conduct.exchange_role.clone_from(&allowed));
        let worker = bench.worker();
        let Some(expected) = expected else {
            let refused = worker.retract(request(record, Action::SoftDelete)).await;
            assert_eq!(refused.unwrap_err().exit_code(), 5);
            continue;
        };
        let document = bench.retract(&worker, record, Action::SoftDelete).await;
        let expected = users.iter().zip(expected);
        let expected: Vec<_> = expected
            .map(|(user, told)| format!("{user} {told}"))
            .collect();
        assert_eq!(outcomes(&document), expected, "{allowed:?}");
    }
}

#[tokio::test]
async fn what_is_done_is_on_the_audit_log_before_and_after() {
    let bench = Bench::with_users(&["a@contoso.example", "b@contoso.example"]).await;
    let mail = Mail::new(
        "x@evil.example",
        ["a@contoso.example", "b@contoso.example"],
        "s",
    );
    let (delivered, record) = bench.deliver(&mail).await;
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::Trash).await;
    worker.shut_down().await;
    let told: Vec<_> = bench
        .audit()
        .into_iter()
        .map(|recorded| {
            let entry = recorded.entry;
            assert_eq!((entry.who.as_str(), entry.uid), ("ana", Some(1000)));
            assert_eq!(entry.job.as_deref(), document["id"].as_str());
            assert_eq!(
                Some(format!("<{}>", entry.message_id.unwrap())),
                Some(delivered.message_id.clone())
            );
            (
                serde_json::to_value(entry.action)
                    .unwrap()
                    .as_str()
                    .unwrap()
                    .to_owned(),
                entry.mailbox,
            )
        })
        .collect();
    assert_eq!(told.first(), Some(&("intent".to_owned(), None)));
    for mailbox in ["a@contoso.example", "b@contoso.example"] {
        let of = |action: &str| {
            let entry = (action.to_owned(), Some(mailbox.to_owned()));
            told.iter().position(|told| *told == entry)
        };
        assert!(of("intent").unwrap() < of("outcome").unwrap(), "{told:?}");
    }
    assert_eq!(told.len(), 5);
}

#[tokio::test]
async fn copies_that_users_moved_are_found_wherever_they_are() {
    let users = [
        "kept",
        "filed",
        "junked",
        "trashed",
        "recoverable",
        "vanished",
        "doubled",
    ];
    let addresses = users.map(|user| format!("{user}@contoso.example"));
    let bench = Bench::new(Settings::with_users(&addresses)).await;
    let (delivered, record) = bench
        .deliver(&Mail::new("x@evil.example", &addresses, "s"))
        .await;
    let id = delivered.message_id.as_str();
    let act = |user: &str, action: UserAction| {
        let count = bench
            .tenant
            .act(&format!("{user}@contoso.example"), id, &action);
        assert_eq!(count, 1, "{user}");
    };
    act("filed", UserAction::Move("Projects".into()));
    act("junked", UserAction::Move("junkemail".into()));
    act("trashed", UserAction::Move("deleteditems".into()));
    act("recoverable", UserAction::Move(GONE.into()));
    act("vanished", UserAction::Vanish);
    act("doubled", UserAction::Copy("Projects".into()));
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::Trash).await;
    assert_eq!(
        outcomes(&document),
        [
            "doubled@contoso.example verified -",
            "filed@contoso.example verified -",
            "junked@contoso.example verified -",
            "kept@contoso.example verified -",
            "recoverable@contoso.example already_gone gone_before",
            "trashed@contoso.example already_gone gone_before",
            "vanished@contoso.example not_found never_seen",
        ]
    );
    assert_eq!(
        bench.folders("doubled@contoso.example", id),
        ["deleteditems", "deleteditems"]
    );
    assert_eq!(bench.folders("recoverable@contoso.example", id), [GONE]);
    assert_eq!(
        document["counts"],
        json!({"verified": 5, "already_gone": 2, "not_found": 1})
    );
}

#[tokio::test]
async fn a_second_job_knows_what_the_first_one_moved() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let mail = Mail::new("x@evil.example", ["a@contoso.example"], "s");
    let (_, record) = bench.deliver(&mail).await;
    let worker = bench.worker();
    bench.retract(&worker, record, Action::SoftDelete).await;
    let again = bench.retract(&worker, record, Action::SoftDelete).await;
    assert_eq!(outcomes(&again), ["a@contoso.example verified earlier_job"]);
    assert_eq!(worker.jobs().await.len(), 2);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_done_and_changes_nothing() {
    let bench = Bench::with_users(&["a@contoso.example", "b@contoso.example"]).await;
    let mail = Mail::new(
        "x@evil.example",
        ["a@contoso.example", "b@contoso.example"],
        "s",
    );
    let (delivered, record) = bench.deliver(&mail).await;
    bench.tenant.act(
        "b@contoso.example",
        &delivered.message_id,
        &UserAction::Move("deleteditems".into()),
    );
    let worker = bench.worker();
    let mut dry = request(record, Action::Trash);
    dry.dry_run = true;
    let Started::Plan(plan) = worker.retract(dry).await.unwrap() else {
        panic!("a plan");
    };
    assert_eq!(
        (plan["state"].as_str(), plan.get("id")),
        (Some("planned"), None)
    );
    assert_eq!(
        outcomes(&plan),
        [
            "a@contoso.example located -",
            "b@contoso.example already_gone gone_before"
        ]
    );
    assert_eq!(bench.tenant.counts().moves, 0);
    assert!(worker.jobs().await.is_empty());
    assert!(bench.audit().is_empty());
}

#[tokio::test]
async fn an_innocent_message_with_the_same_header_facts_is_never_touched() {
    let bench = Bench::with_users(&["victim@contoso.example", "other@contoso.example"]).await;
    let innocent = Mail::new(
        "Bank <bank@good.example>",
        ["victim@contoso.example"],
        "Statement",
    );
    let (good, _) = bench.deliver(&innocent).await;
    // The attacker copies every fact of its header, and reaches one more.
    let mut copied = innocent.clone();
    copied.message_id = Some(good.message_id.clone());
    copied.to.push("other@contoso.example".into());
    copied.body = "Click here.\r\n".into();
    copied.headers.push((
        "X-MS-Exchange-Organization-Network-Message-Id".into(),
        good.network_message_ids[0].clone(),
    ));
    let bad = bench.tenant.deliver(&copied);
    super::retract_support::store_reports(&bench.tenant, "contoso", &bench.store).await;
    let id = clawback::mail::MessageId::new(&good.message_id).unwrap();
    let records = bench
        .store
        .by_message_id(Some(&clawback::mail::TenantName::new("contoso")), &id)
        .unwrap();
    let record = records
        .iter()
        .find(|r| r.network_message_ids == bad.network_message_ids)
        .unwrap();
    assert_eq!(records.len(), 2);
    let worker = bench.worker();
    let document = bench.retract(&worker, record.id, Action::SoftDelete).await;
    let view = bench.tenant.mailbox("victim@contoso.example").unwrap();
    for copy in view.copies(&good.message_id) {
        let innocent = copy.network_message_id.as_ref() == good.network_message_ids.first();
        let expected = if innocent { ("inbox", 0) } else { (GONE, 1) };
        assert_eq!((copy.folder.as_str(), copy.moves), expected, "{copy:?}");
    }
    assert_eq!(document["counts"], json!({"verified": 2, "mismatch": 1}));
    let mismatch = document["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|i| i["state"] == "mismatch");
    assert_eq!(mismatch.unwrap()["reason"], "other_network_message_id");
}

#[tokio::test]
async fn message_ids_that_need_quoting_are_found() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let worker = bench.worker();
    for id in [
        "<o'brien'@x.example>",
        "<a+b/c=d#e%f&g@x.example>",
        "<with space@x.example>",
        "no-brackets@x.example",
        "<%27 or 1 eq 1@x.example>",
        &format!("<{}@x.example>", "l".repeat(300)),
    ] {
        let mut mail = Mail::new("x@evil.example", ["a@contoso.example"], "s");
        mail.message_id = Some(id.to_owned());
        let (delivered, record) = bench.deliver(&mail).await;
        let document = bench.retract(&worker, record, Action::SoftDelete).await;
        assert_eq!(
            outcomes(&document),
            ["a@contoso.example verified -"],
            "{id}"
        );
        assert_eq!(
            bench.folders("a@contoso.example", &delivered.message_id),
            [GONE],
            "{id}"
        );
    }
}

#[tokio::test]
async fn pages_in_every_form_are_followed() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let (delivered, record) = bench
        .deliver(&Mail::new("x@evil.example", ["a@contoso.example"], "s"))
        .await;
    for n in 0..6 {
        let copy = UserAction::Copy(format!("Folder {n}"));
        let view = bench.tenant.mailbox("a@contoso.example").unwrap();
        let before = view.copies(&delivered.message_id).len();
        assert_eq!(
            bench
                .tenant
                .act("a@contoso.example", &delivered.message_id, &copy),
            before
        );
        if before > 8 {
            break;
        }
    }
    let copies = bench
        .folders("a@contoso.example", &delivered.message_id)
        .len();
    bench.tenant.change(|conduct| {
        conduct.links.keys = true;
        conduct.links.empty_pages = true;
        conduct.links.slash_ids = true;
        conduct.links.page = 2;
    });
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    assert_eq!(document["counts"], json!({"verified": copies}));
    assert!(copies > 8);
}

/// Nobody but the configured host is asked, whatever an answer says.
#[tokio::test]
async fn next_links_to_another_host_are_not_followed() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let other = clawback_tenant::Tenant::start(Settings::default())
        .await
        .unwrap();
    let mail = Mail::new("x@evil.example", ["a@contoso.example"], "s");
    let (_, record) = bench.deliver(&mail).await;
    bench.tenant.change(|conduct| {
        conduct.links.empty_pages = true;
        conduct.links.page = 1;
        conduct.links.base = Some(other.graph_url());
    });
    bench.tenant.act(
        "a@contoso.example",
        &mail_id(&bench, record),
        &UserAction::Copy("Second".into()),
    );
    let worker = bench.worker();
    let ended = worker.retract(request(record, Action::SoftDelete)).await;
    if let Ok(Started::Job { id, .. }) = ended {
        let document = worker.wait(&id).await.unwrap();
        assert_eq!(
            outcomes(&document),
            ["a@contoso.example failed unavailable"]
        );
    }
    assert!(bench.tenant.counts().requests > 0);
    assert_eq!((other.counts().requests, other.counts().outlook), (0, 0));
}

fn mail_id(bench: &Bench, record: clawback::mail::RecordId) -> String {
    let record = bench.store.record(record).unwrap().unwrap();
    format!("<{}>", record.message_id.unwrap())
}

#[tokio::test]
async fn a_copy_that_arrives_late_is_moved_by_the_watch() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let mut mail = Mail::new("x@evil.example", ["a@contoso.example"], "s");
    mail.late = true;
    let (delivered, record) = bench.deliver(&mail).await;
    let worker = bench.worker_with(Timing {
        watch: std::time::Duration::from_secs(3600),
        watch_first: std::time::Duration::from_millis(50),
        watch_longest: std::time::Duration::from_millis(50),
        ..timing()
    });
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    assert_eq!(
        outcomes(&document),
        ["a@contoso.example not_found not_yet_arrived"]
    );
    assert_eq!(document["state"], "waiting");
    bench.tenant.arrive(&delivered.message_id);
    let id = document["id"].as_str().unwrap();
    let mut progress = worker.subscribe(id).unwrap();
    progress.wait_for(|progress| progress.ended).await.unwrap();
    let document = worker.job(id).await.unwrap();
    assert_eq!(outcomes(&document), ["a@contoso.example verified -"]);
    assert_eq!(document["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn many_copies_wait_for_approval() {
    let mut bench = Bench::with_users(&["a@contoso.example", "b@contoso.example"]).await;
    bench.retraction = "max_copies_without_approval = 1";
    let mail = Mail::new(
        "x@evil.example",
        ["a@contoso.example", "b@contoso.example"],
        "s",
    );
    let (_, record) = bench.deliver(&mail).await;
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    assert_eq!(document["state"], "awaiting_approval");
    assert_eq!(bench.tenant.counts().moves, 0);
    drop(worker);
    let worker = bench.worker();
    let document = worker.wait(document["id"].as_str().unwrap()).await.unwrap();
    assert_eq!(document["state"], "awaiting_approval");
}

#[tokio::test]
async fn the_senders_own_copy_is_moved_where_the_sender_is_a_recipient() {
    for without_headers in [true, false] {
        let bench = Bench::with_users(&["a@contoso.example", "b@contoso.example"]).await;
        bench
            .tenant
            .change(|conduct| conduct.guesses.sent_without_headers = without_headers);
        let both = ["a@contoso.example", "b@contoso.example"];
        let mail = Mail::new("a@contoso.example", both, "to myself");
        let (delivered, record) = bench.deliver(&mail).await;
        let worker = bench.worker();
        let document = bench.retract(&worker, record, Action::SoftDelete).await;
        assert_eq!(
            bench.folders("a@contoso.example", &delivered.message_id),
            [GONE, GONE]
        );
        assert_eq!(document["counts"], json!({"verified": 3}));
        assert_eq!(document["recipients"].as_array().unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_reloaded_configuration_is_taken_up() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let mail = Mail::new("x@evil.example", ["a@contoso.example"], "s");
    let (_, record) = bench.deliver(&mail).await;
    let worker = bench.worker();
    let root = bench.root.path();
    worker.reload(config(root, ""));
    let error = worker
        .retract(request(record, Action::SoftDelete))
        .await
        .unwrap_err();
    assert_eq!(
        (error.exit_code(), worker.connections().len()),
        (2, 0),
        "{error}"
    );
    worker.reload(config(
        root,
        &tenant_section(&bench.tenant, "contoso", root),
    ));
    assert_eq!(worker.connections()[0].problem, None);
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    assert_eq!(outcomes(&document), ["a@contoso.example verified -"]);
}

#[tokio::test]
async fn hard_delete_and_unknown_records_are_refused_plainly() {
    let bench = Bench::with_users(&["a@contoso.example"]).await;
    let mail = Mail::new("x@evil.example", ["a@contoso.example"], "s");
    let (_, record) = bench.deliver(&mail).await;
    let worker = bench.worker();
    let error = worker
        .retract(request(record, Action::HardDelete))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("comes later"), "{error}");
    let unknown = clawback::mail::RecordId::from_octets([9; 16]);
    let error = worker
        .retract(request(unknown, Action::SoftDelete))
        .await
        .unwrap_err();
    assert_eq!(error.exit_code(), 1);
    let mut nobody = request(record, Action::SoftDelete);
    nobody.recipients = Some(vec!["b@contoso.example".parse().unwrap()]);
    let error = worker.retract(nobody).await.unwrap_err();
    assert!(
        error.to_string().contains("none of the named recipients"),
        "{error}"
    );
    assert_eq!(bench.tenant.counts().tokens, 0);
}
