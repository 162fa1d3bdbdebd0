//! `quarantine`: mail that is doubted waits, and what an operator makes of it.

use std::fs;

use clawback::certs::{Authority, Pair};
use rustix::process::Signal;
use serde_json::Value;

use crate::cli_serving::{SAMPLES, Site, TENANT, change, parsed, sample};
use crate::support::Client;
use crate::support::service::now;

/// Sends messages to the service over STARTTLS; the replies to their ends.
fn deliver(site: &Site, address: std::net::SocketAddr, contents: &[String]) -> Vec<u16> {
    deliver_as(site, address, contents, None)
}

/// The same from a client that has a certificate.
fn deliver_as(
    site: &Site,
    address: std::net::SocketAddr,
    contents: &[String],
    identity: Option<&Pair>,
) -> Vec<u16> {
    let ca = fs::read_to_string(site.path("certs/fullchain.pem")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let client = Client::connect(address).await;
        let mut client = client.into_encrypted(&ca, identity).await;
        let mut codes = Vec::new();
        for content in contents {
            codes.push(
                client
                    .deliver("ndr@northwind.example", "k3v9@journal.example.com", content)
                    .await
                    .code,
            );
        }
        codes
    })
}

#[test]
fn doubtful_mail_waits_in_the_quarantine() {
    let site = Site::new(TENANT);
    let service = site.serve();
    let report = fs::read_to_string(sample(SAMPLES[0])).unwrap();
    let foreign = report.replace("9f8e7d6c", "deadbeef");
    let ordinary = fs::read_to_string(sample("06_ordinary_mail.eml")).unwrap();
    assert_eq!(
        deliver(
            &site,
            service.address(),
            &[report, foreign.clone(), ordinary]
        ),
        [250; 3]
    );
    let id = parsed(SAMPLES[0])["message_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let found = service
        .run(&["--json", "search", "--message-id", &id])
        .documents();
    assert_eq!(
        (found.len(), &found[0]["reports"]),
        (1, &1.into()),
        "the foreign one is not believed"
    );

    let held = service.run(&["--json", "quarantine"]).documents();
    assert_eq!(held.len(), 2, "{held:?}");
    for key in [
        "id",
        "tenant",
        "received",
        "peer",
        "kind",
        "reason",
        "size",
        "message_id",
    ] {
        assert!(held[0].get(key).is_some(), "{key}");
    }
    let name = |kind: &str| {
        held.iter().find(|held| held["kind"] == kind).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (unproven, other) = (name("report"), name("not_report"));
    let shown = service.run(&["quarantine", "show", &unproven]);
    assert_eq!(shown.stdout.replace('\r', ""), foreign.replace('\r', ""));
    assert!(service.run(&["quarantine", "list"]).stdout.contains(&other));

    // Nothing changed, so a second look changes nothing.
    let retried = service.run(&["--json", "quarantine", "retry"]);
    let outcomes: Vec<Value> = retried
        .documents()
        .iter()
        .map(|told| told["outcome"].clone())
        .collect();
    assert_eq!(outcomes, ["kept", "kept"]);
    // Without a terminal nobody is asked.
    for verb in ["accept", "drop"] {
        let ended = service.run(&["quarantine", verb, &unproven]);
        assert_eq!(ended.code, 2);
        assert!(ended.stderr.contains("--yes"), "{}", ended.stderr);
    }
    // What was not done is no success, and a quiet command still says so.
    let kept = service.run(&["--quiet", "quarantine", "accept", &other, "--yes"]);
    assert_eq!(kept.code, 1, "{}", kept.stderr);
    assert!(kept.stdout.contains("kept"), "{}", kept.stdout);
    let accepted = service.run(&["--json", "quarantine", "accept", &unproven, "--yes"]);
    assert_eq!(
        accepted.documents()[0]["outcome"],
        "indexed",
        "{}",
        accepted.stderr
    );
    let dropped = service.run(&["--json", "quarantine", "drop", &other, "--yes"]);
    assert_eq!(dropped.documents()[0]["outcome"], "dropped");
    assert_eq!(
        service.run(&["quarantine", "drop", &other, "--yes"]).code,
        1,
        "it is gone"
    );
    assert_eq!(service.run(&["quarantine", "list"]).stdout, "");
    let entries = service.run(&["--json", "audit", "show"]).documents();
    let told: Vec<&str> = entries
        .iter()
        .map(|entry| entry["detail"].as_str().unwrap())
        .collect();
    assert_eq!(
        told,
        [
            format!("quarantine accept {unproven}"),
            format!("quarantine drop {other}")
        ]
    );
    for key in [
        "seq",
        "at",
        "who",
        "uid",
        "action",
        "job",
        "message_id",
        "mailbox",
        "detail",
        "hash",
    ] {
        assert!(entries[0].get(key).is_some(), "{key}");
    }
}

/// A tenant whose configuration was wrong gets its reports with `retry`, once it is mended: from a peer that
/// is known by its address, and from one that is known by its certificate.
#[test]
fn a_mended_configuration_frees_what_was_held() {
    let authority = Authority::new("clients", now(), 30).unwrap();
    let identity = authority.issue("peer.example", now(), 30).unwrap();
    let wrong = TENANT
        .replace("9f8e7d6c", "deadbeef")
        .replace("northwind.onmicrosoft.example", "x.example");
    let by_certificate = wrong.replace("127.0.0.0/8", "certificate:peer.example");
    for (name, tenant, identity) in [
        ("address", &wrong, None),
        ("certificate", &by_certificate, Some(&identity)),
    ] {
        let site = Site::new(&format!("[network]\nca_file = \"clients.pem\"\n{tenant}"));
        fs::write(site.path("clients.pem"), authority.certificate()).unwrap();
        let mut service = site.serve();
        let report = fs::read_to_string(sample(SAMPLES[0])).unwrap();
        let replies = deliver_as(&site, service.address(), &[report], identity);
        assert_eq!(replies, [250], "{name}");
        let id = parsed(SAMPLES[0])["message_id"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(service.run(&["search", "--message-id", &id]).code, 1);
        change(&site, "deadbeef", "9f8e7d6c");
        change(&site, "x.example", "northwind.onmicrosoft.example");
        service.signal(Signal::HUP);
        service.wait_for("the new configuration is in use");
        let retried = service.run(&["--json", "quarantine", "retry"]);
        let outcome = &retried.documents()[0]["outcome"];
        assert_eq!(outcome, "indexed", "{name}: {}", retried.stdout);
        assert_eq!(service.run(&["search", "--message-id", &id]).code, 0);
    }
}

/// An item whose file is damaged is listed and told, not taken for a report, and can be dropped.
#[test]
fn a_damaged_item_is_told_and_can_be_dropped() {
    let site = Site::new(TENANT);
    let service = site.serve();
    let ordinary = fs::read_to_string(sample("06_ordinary_mail.eml")).unwrap();
    assert_eq!(deliver(&site, service.address(), &[ordinary]), [250]);
    assert!(service.stop().success());
    let mut items = fs::read_dir(site.path("data/quarantine")).unwrap();
    fs::write(items.next().unwrap().unwrap().path(), "damaged").unwrap();

    let service = site.serve();
    let held = service.run(&["--json", "quarantine"]).documents();
    assert_eq!((held.len(), &held[0]["kind"]), (1, &"unreadable".into()));
    let id = held[0]["id"].as_str().unwrap();
    let verified = service.run(&["--json", "store", "verify"]);
    let findings = verified.documents()[0]["findings"].clone();
    assert_eq!(
        (verified.code, &findings[0]["partition"]),
        (1, &"quarantine".into())
    );
    let accepted = service.run(&["--json", "quarantine", "accept", id, "--yes"]);
    assert_eq!(accepted.documents()[0]["outcome"], "kept");
    let dropped = service.run(&["--json", "quarantine", "drop", id, "--yes"]);
    assert_eq!(dropped.documents()[0]["outcome"], "dropped");
    assert_eq!(service.run(&["quarantine", "list"]).stdout, "");

    // What was dropped stands on the audit log, and on the log as it was told by its head.
    let audit = service
        .run(&["--json", "audit", "verify"])
        .documents()
        .remove(0);
    let head = |seq: u64| format!("{seq}:{}", audit["head"]["hash"].as_str().unwrap());
    for (known, code) in [(head(1), 0), (head(2), 1), ("1:abc".to_owned(), 2)] {
        let ended = service.run(&["audit", "verify", "--known", &known]);
        assert_eq!(ended.code, code, "{known}: {}", ended.stderr);
    }
}
