//! A retraction among throttling, trouble, lost answers and crashes stays truthful and acts once.

use std::time::Duration;

use clawback::retract::Action;
use clawback_tenant::{Concurrency, Fault, FaultKind, Mail, Scope, Settings, SignIn, UserAction};
use serde_json::{Value, json};

use super::retract_support::{Bench, answered_intents, outcomes, request};
use clawback::worker::Started;

const GONE: &str = "recoverableitemsdeletions";

fn addresses(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("u{n}@contoso.example"))
        .collect()
}

async fn bench(count: usize) -> (Bench, String, clawback::mail::RecordId) {
    let addresses = addresses(count);
    let bench = Bench::new(Settings::with_users(&addresses)).await;
    let mail = Mail::new("x@evil.example", &addresses, "s");
    let (delivered, record) = bench.deliver(&mail).await;
    (bench, delivered.message_id, record)
}

/// Every copy is where it was asked to be, was moved once, and is told as `verified`.
fn all_verified(bench: &Bench, document: &Value, message_id: &str, count: usize) {
    assert_eq!(
        document["counts"],
        json!({"verified": count}),
        "{:#?}",
        document["items"]
    );
    for address in addresses(count) {
        assert_eq!(bench.folders(&address, message_id), [GONE], "{address}");
    }
    assert_eq!(bench.most_moves(message_id), 1);
}

#[tokio::test]
async fn throttling_within_batches_is_honoured() {
    let (bench, message_id, record) = bench(12).await;
    bench.tenant.change(|conduct| {
        conduct.faults = vec![
            Fault::new(FaultKind::Status(429, Some(1)), 0.3).times(5),
            Fault::new(FaultKind::Status(503, Some(1)), 0.2).times(3),
            Fault::new(FaultKind::Status(504, None), 0.1).times(5),
        ];
    });
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    all_verified(&bench, &document, &message_id, 12);
    assert!(bench.tenant.counts().faults > 5);
    let requests = bench.tenant.requests();
    let mut waits = 0;
    for address in addresses(12) {
        let of_mailbox = requests
            .iter()
            .filter(|r| r.mailbox.as_ref() == Some(&address));
        let of_mailbox: Vec<_> = of_mailbox.collect();
        for pair in of_mailbox
            .windows(2)
            .filter(|pair| [429, 503].contains(&pair[0].status))
        {
            let waited = pair[1].at.duration_since(pair[0].at);
            assert!(waited.as_millis() >= 1000, "{address}: {waited:?}");
            waits += 1;
        }
    }
    assert!(waits > 3, "{waits}");
}

/// What is said to a whole batch is meant for each of its requests.
#[tokio::test]
async fn a_batch_that_is_refused_whole_is_told_by_its_reason() {
    let whole = |kind| Fault::new(kind, 1.0).scope(Scope::Batch);
    for (name, fault, expected) in [
        (
            "no access",
            whole(FaultKind::Status(403, None)),
            "denied permission",
        ),
        (
            "the token is refused",
            whole(FaultKind::Unauthorized),
            "denied credentials",
        ),
        (
            "throttled for long",
            whole(FaultKind::Status(429, Some(0))).times(30),
            "verified -",
        ),
    ] {
        let (bench, _, record) = bench(2).await;
        bench.tenant.change(|conduct| conduct.faults = vec![fault]);
        let worker = bench.worker();
        let document = bench.retract(&worker, record, Action::SoftDelete).await;
        for outcome in outcomes(&document) {
            assert!(outcome.ends_with(expected), "{name}: {outcome}");
        }
    }
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_waited() {
    let (bench, message_id, record) = bench(1).await;
    bench.tenant.change(|conduct| {
        let refusal = FaultKind::Status(429, Some(1));
        conduct.faults = vec![Fault::new(refusal, 1.0).path("/move").times(1)];
    });
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    all_verified(&bench, &document, &message_id, 1);
    let requests = bench.tenant.requests();
    let moves: Vec<_> = requests
        .iter()
        .filter(|request| request.path.ends_with("/move"))
        .collect();
    let [refused, run] = &moves[..] else {
        panic!("{moves:?}");
    };
    let waited = run.at.duration_since(refused.at);
    assert!(waited.as_millis() >= 1000, "{waited:?}");
}

#[tokio::test]
async fn limits_of_both_readings_are_kept() {
    for reading in [Concurrency::App(4), Concurrency::Mailbox(4)] {
        let (bench, message_id, record) = bench(30).await;
        bench.tenant.act(
            "u0@contoso.example",
            &message_id,
            &UserAction::Copy("A".into()),
        );
        bench.tenant.act(
            "u0@contoso.example",
            &message_id,
            &UserAction::Copy("B".into()),
        );
        bench.tenant.act(
            "u0@contoso.example",
            &message_id,
            &UserAction::Copy("C".into()),
        );
        bench.tenant.change(|conduct| {
            conduct.throttle.concurrency = reading;
            conduct.service_time = Duration::from_millis(2);
        });
        let worker = bench.worker();
        let document = bench.retract(&worker, record, Action::SoftDelete).await;
        let copies = bench.folders("u0@contoso.example", &message_id).len();
        assert_eq!(document["counts"], json!({"verified": 29 + copies}));
        let counts = bench.tenant.counts();
        assert_eq!((counts.throttled, counts.foreign), (0, 0), "{reading:?}");
        assert!(counts.peak_mailbox <= 4 && counts.peak <= 4, "{counts:?}");
    }
}

#[tokio::test]
async fn every_mail_request_asks_for_immutable_ids() {
    let (bench, message_id, record) = bench(3).await;
    let worker = bench.worker();
    let document = bench.retract(&worker, record, Action::Junk).await;
    assert_eq!(document["counts"], json!({"verified": 3}));
    let requests = bench.tenant.requests();
    let mail = requests.iter().filter(|request| request.mailbox.is_some());
    assert!(mail.clone().count() >= 9);
    for request in mail {
        assert!(request.immutable, "{request:?}");
    }
    assert_eq!(
        bench.folders("u0@contoso.example", &message_id),
        ["junkemail"]
    );
}

#[tokio::test]
async fn an_answer_lost_after_its_effect_is_looked_up_and_not_repeated() {
    for (name, kind, scope) in [
        ("dropped", FaultKind::DroppedAfter, Scope::Outlook),
        ("dropped batch", FaultKind::DroppedAfter, Scope::Batch),
        ("status", FaultKind::StatusAfter(503), Scope::Outlook),
        ("before", FaultKind::Dropped, Scope::Outlook),
        ("batch before", FaultKind::Dropped, Scope::Batch),
        ("connection", FaultKind::Disconnected, Scope::Batch),
    ] {
        for by_id in [true, false] {
            let (bench, message_id, record) = bench(5).await;
            bench.tenant.change(|conduct| {
                conduct.guesses.recoverable_by_id = by_id;
                let fault = Fault::new(kind.clone(), 0.5).scope(scope).times(8);
                conduct.faults = vec![match scope {
                    Scope::Batch => fault,
                    _ => fault.path("/move"),
                }];
            });
            let worker = bench.worker();
            let document = bench.retract(&worker, record, Action::SoftDelete).await;
            all_verified(&bench, &document, &message_id, 5);
            assert!(bench.tenant.counts().faults > 0, "{name}");
            worker.shut_down().await;
            assert_eq!(answered_intents(&bench.audit()), 5, "{name}");
        }
    }
}

#[tokio::test]
async fn a_token_that_ends_is_renewed_once() {
    let (bench, message_id, record) = bench(4).await;
    bench.tenant.change(|conduct| {
        let fault = Fault::new(FaultKind::Unauthorized, 1.0)
            .path("/move")
            .times(1);
        conduct.faults = vec![fault];
    });
    let worker = bench.worker();
    let dry = clawback::worker::Request {
        dry_run: true,
        ..request(record, Action::SoftDelete)
    };
    worker.retract(dry).await.unwrap();
    bench.tenant.expire_tokens();
    let document = bench.retract(&worker, record, Action::SoftDelete).await;
    all_verified(&bench, &document, &message_id, 4);
    assert_eq!(bench.tenant.counts().tokens, 3);
}

#[tokio::test]
async fn a_worker_that_dies_at_any_moment_goes_on() {
    // After how many Graph requests it dies; each time another instant of the job.
    let mut under_way = 0;
    for after in 0..24 {
        let (bench, message_id, record) = bench(6).await;
        bench.tenant.change(|conduct| {
            conduct.service_time = Duration::from_millis(1);
            // A second move of the same copy shows.
            conduct.guesses.move_again_succeeds = false;
        });
        let worker = bench.worker();
        let Started::Job { id, .. } = worker
            .retract(request(record, Action::SoftDelete))
            .await
            .unwrap()
        else {
            panic!("a job");
        };
        let planned = bench.tenant.counts().requests;
        let mut ended = false;
        while bench.tenant.counts().requests < planned + after && !ended {
            tokio::task::yield_now().await;
            ended = worker
                .subscribe(&id)
                .is_none_or(|progress| progress.borrow().settled);
        }
        under_way += u32::from(!ended);
        drop(worker);
        // What was sent may still take effect after the worker is gone.
        let worker = bench.worker();
        let document = worker.wait(&id).await.unwrap();
        all_verified(&bench, &document, &message_id, 6);
        worker.shut_down().await;
        assert_eq!(answered_intents(&bench.audit()), 6, "{after}");
    }
    assert!(
        under_way >= 12,
        "it died within the job {under_way} times only"
    );
}

#[tokio::test]
async fn a_refusing_login_endpoint_is_told_without_the_secret() {
    let (bench, _, record) = bench(1).await;
    let worker = bench.worker();
    for (sign_in, expected) in [
        (SignIn::SecretExpired, "AADSTS7000222"),
        (SignIn::SecretEchoed, "AADSTS7000222"),
        (SignIn::NoApplication, "AADSTS700016"),
    ] {
        bench.tenant.change(|conduct| conduct.sign_in = sign_in);
        let error = worker
            .retract(request(record, Action::SoftDelete))
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), 5, "{error}");
        let text = format!("{error} {error:?}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains(bench.tenant.client_secret()), "{text}");
    }
    assert!(worker.jobs().await.is_empty());
    assert!(!format!("{worker:?}").contains(bench.tenant.client_secret()));
}

#[tokio::test]
async fn missing_permissions_are_named_before_anything_is_done() {
    for (granted, missing) in [
        (vec!["User.Read.All"], "Mail.ReadWrite"),
        (vec!["User.Read.All", "Mail.Read"], "Mail.ReadWrite"),
        (vec!["Mail.ReadWrite"], "User.Read.All"),
        (vec![], "Mail.ReadWrite and User.Read.All"),
    ] {
        let (bench, _, record) = bench(2).await;
        bench.tenant.grant(&granted);
        let worker = bench.worker();
        let error = worker
            .retract(request(record, Action::SoftDelete))
            .await
            .unwrap_err();
        assert_eq!(error.exit_code(), 5, "{granted:?}: {error}");
        assert!(error.to_string().contains(missing), "{granted:?}: {error}");
        assert_eq!(bench.tenant.counts().moves, 0);
        assert!(worker.jobs().await.is_empty());
    }
}

#[tokio::test]
async fn nothing_is_done_that_cannot_be_put_on_the_audit_log() {
    let (bench, _, record) = bench(2).await;
    let worker = bench.worker();
    bench.break_audit();
    let error = worker
        .retract(request(record, Action::SoftDelete))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("audit"), "{error}");
    assert_eq!(error.exit_code(), 3, "the service is in trouble: {error}");
    assert_eq!(bench.tenant.counts().moves, 0);
    assert!(worker.jobs().await.is_empty());
}

/// Two people retract the same message at the same time.
#[tokio::test]
async fn two_jobs_at_once_move_each_copy_once() {
    for action in [Action::SoftDelete, Action::Trash] {
        let (bench, message_id, record) = bench(12).await;
        bench
            .tenant
            .change(|conduct| conduct.service_time = Duration::from_millis(5));
        let worker = bench.worker();
        let (first, second) = tokio::join!(
            bench.retract(&worker, record, Action::SoftDelete),
            bench.retract(&worker, record, action),
        );
        // What was put into the trash first is moved on from there.
        let most = if action == Action::Trash { 2 } else { 1 };
        assert!(bench.most_moves(&message_id) <= most, "{action}");
        for address in addresses(12) {
            assert_eq!(bench.folders(&address, &message_id), [GONE], "{action}");
        }
        for document in [first, second] {
            assert_eq!(document["counts"], json!({"verified": 12}), "{action}");
        }
        worker.shut_down().await;
        assert_eq!(answered_intents(&bench.audit()), 12, "{action}");
    }
}

/// The configuration was wrong when the service started: mended and reloaded, the job goes on.
#[tokio::test]
async fn a_job_that_could_not_go_on_goes_on_after_a_reload() {
    let (bench, message_id, record) = bench(3).await;
    let worker = bench.worker();
    bench
        .tenant
        .change(|conduct| conduct.service_time = Duration::from_millis(50));
    let started = worker.retract(request(record, Action::SoftDelete)).await;
    let Ok(Started::Job { id, .. }) = started else {
        panic!("{started:?}");
    };
    drop(worker);
    let worker = bench.worker_without_tenant();
    assert!(worker.subscribe(&id).is_none());
    worker.reload(bench.config());
    let document = worker.wait(&id).await.unwrap();
    all_verified(&bench, &document, &message_id, 3);
}

#[tokio::test]
async fn one_throttled_mailbox_does_not_hold_up_the_others() {
    let (bench, message_id, record) = bench(30).await;
    let worker = bench.worker();
    let dry = clawback::worker::Request {
        dry_run: true,
        recipients: Some(vec!["u0@contoso.example".parse().unwrap()]),
        ..request(record, Action::SoftDelete)
    };
    let Started::Plan(plan) = worker.retract(dry).await.unwrap() else {
        panic!("a plan");
    };
    let slow = plan["items"][0]["mailbox_id"].as_str().unwrap();
    bench.tenant.change(|conduct| {
        let refusal = FaultKind::Status(429, Some(3600));
        conduct.faults = vec![Fault::new(refusal, 1.0).path(slow)];
    });
    let started = worker.retract(request(record, Action::SoftDelete)).await;
    let Ok(Started::Job { id, .. }) = started else {
        panic!("{started:?}");
    };
    let mut progress = worker.subscribe(&id).unwrap();
    let others = progress.wait_for(|progress| progress.head["counts"]["verified"] == 29);
    others.await.unwrap();
    assert_eq!(bench.folders("u0@contoso.example", &message_id), ["inbox"]);
}
