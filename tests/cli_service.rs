//! The commands against a running service: import, search, show, status, quarantine, store, audit;
//! and the service's own life: refused starts, reload, stop.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use rustix::process::Signal;
use serde_json::Value;

use crate::cli_serving::{Site, TENANT, parsed, sample};
use crate::support::Client;

const SAMPLES: [&str; 5] = [
    "01_inbound.eml",
    "02_internal_to_cc_bcc.eml",
    "03_group_and_forwarding.eml",
    "04_on_behalf_of_utf8.eml",
    "05_protected_two_attachments.eml",
];

fn imported(site: &Site, more: &[&str]) -> Value {
    let paths: Vec<String> = SAMPLES
        .iter()
        .map(|name| sample(name).display().to_string())
        .collect();
    let mut arguments = vec!["--tenant", "northwind", "--json", "import"];
    arguments.extend(paths.iter().map(String::as_str));
    arguments.extend(more);
    let ended = site.run(&arguments);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    ended.documents().remove(0)
}

#[test]
fn what_is_imported_is_found() {
    let site = Site::new(TENANT);
    let service = site.serve();
    let counts = imported(&site, &[]);
    assert_eq!(
        (&counts["read"], &counts["proven"], &counts["new"]),
        (&5.into(), &5.into(), &5.into())
    );
    let again = imported(&site, &[]);
    assert_eq!(
        (&again["proven"], &again["new"], &again["known"]),
        (&5.into(), &0.into(), &5.into())
    );

    for name in SAMPLES {
        let expected = parsed(name);
        let id = expected["message_id"].as_str().unwrap();
        let found = service.run(&["--json", "search", "--message-id", id]);
        assert_eq!(found.code, 0, "{name}: {}", found.stderr);
        let record = &found.documents()[0];
        for key in ["sender", "on_behalf_of", "subject", "message_id", "label"] {
            assert_eq!(record[key], expected[key], "{name}: {key}");
        }
        assert_eq!(record["tenant"], "northwind", "{name}");
        assert_eq!(record["reports"], 1, "{name}");
        assert!(
            record["received"].is_string() && record["sent"].is_string(),
            "{name}"
        );
        let recipients = record["recipients"].as_array().unwrap();
        assert_eq!(
            recipients.len(),
            expected["recipients"].as_array().unwrap().len(),
            "{name}"
        );
        for recipient in expected["recipients"].as_array().unwrap() {
            assert!(recipients.contains(recipient), "{name}: {recipient}");
            let address = recipient["address"].as_str().unwrap();
            let found = service.run(&[
                "--json",
                "search",
                "--since",
                "2026-01-01",
                "--recipient",
                address,
            ]);
            assert!(
                found.stdout.contains(record["id"].as_str().unwrap()),
                "{name}: {address}"
            );
        }
        let shown = service.run(&["--json", "show", &format!("<{id}>")]);
        assert_eq!(shown.documents(), found.documents(), "{name}");
        let shown = service.run(&["show", record["id"].as_str().unwrap()]);
        assert!(shown.stdout.contains(id), "{name}: {}", shown.stdout);
    }
    assert!(service.stop().success());
}

#[test]
fn searches_that_find_nothing_are_exit_1() {
    let site = Site::new(TENANT);
    let service = site.serve();
    imported(&site, &[]);
    for (arguments, code) in [
        (&["search", "--message-id", "nobody@x"][..], 1),
        (&["search", "--recipient", "nobody@x"], 1),
        // The samples are of July; without a time the last 30 days are searched.
        (&["search"], 1),
        (&["search", "--since", "2026-07-01"], 0),
        (
            &["search", "--since", "2026-07-01", "--until", "2026-07-01"],
            1,
        ),
        (
            &[
                "search",
                "--since",
                "2026-07-01",
                "--csv",
                "--recipient",
                "nobody@x",
            ],
            1,
        ),
        (&["show", "nobody@x"], 1),
        (&["search", "--recipient", "nobody"], 2),
        (&["search", "--attachment-sha256", "abc"], 2),
        (&["search", "--tenant", "fabrikam"], 2),
    ] {
        let ended = service.run(arguments);
        assert_eq!(
            ended.code, code,
            "{arguments:?}: {} {}",
            ended.stdout, ended.stderr
        );
    }
}

#[test]
fn csv_has_one_row_a_recipient() {
    let site = Site::new(TENANT);
    let service = site.serve();
    imported(&site, &[]);
    let ended = service.run(&["search", "--since", "2026-07-01", "--csv"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut lines = ended.stdout.lines();
    assert_eq!(
        lines.next(),
        Some(
            "id,tenant,region,received,sent,message_id,sender,on_behalf_of,subject,recipient,field,expanded_from,forwarded_from,size,verdict"
        )
    );
    let recipients: usize = SAMPLES
        .iter()
        .map(|name| parsed(name)["recipients"].as_array().unwrap().len())
        .sum();
    assert_eq!(lines.count(), recipients);
    let mut reader = csv::Reader::from_reader(ended.stdout.as_bytes());
    for row in reader.records() {
        let row = row.unwrap();
        assert_eq!(row.len(), 15);
        assert_eq!((&row[1], &row[2]), ("northwind", ""));
        assert!(row[9].contains('@'), "{row:?}");
    }
}

/// `clawback search --json | head -1`.
#[test]
fn a_reader_that_goes_away_ends_a_search_quietly() {
    let site = Site::new(TENANT);
    let _service = site.serve();
    imported(&site, &[]);
    let mut child = site
        .command()
        .args(["search", "--since", "2026-07-01", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(
        (
            ended.status.code(),
            String::from_utf8(ended.stderr).unwrap().as_str()
        ),
        (Some(0), "")
    );
}

#[test]
fn imports_read_mbox_maildir_standard_input_and_ndrs() {
    let site = Site::new(TENANT);
    let service = site.serve();
    let text = |name| fs::read_to_string(sample(name)).unwrap();
    let mbox = site.path("journal.mbox");
    let quoted = text(SAMPLES[0]).replace("\r\n", "\n");
    fs::write(
        &mbox,
        format!(
            "From x Mon Jul  6 2026\n{quoted}\nFrom y Mon Jul  6 2026\n{}",
            text(SAMPLES[1]).replace("\r\n", "\n")
        ),
    )
    .unwrap();
    let maildir = site.path("maildir");
    for place in ["cur", "new", "tmp"] {
        fs::create_dir_all(maildir.join(place)).unwrap();
    }
    fs::write(maildir.join("new/1"), text(SAMPLES[2])).unwrap();
    let ndr = format!(
        "From: postmaster@x\r\nContent-Type: multipart/report; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nno\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\n{}\r\n--b--\r\n",
        text(SAMPLES[3])
    );
    fs::write(maildir.join("cur/2:2,S"), ndr).unwrap();
    fs::write(site.path("ordinary.eml"), text("06_ordinary_mail.eml")).unwrap();
    let mut child = site
        .command()
        .args(["--json", "--tenant", "northwind", "import"])
        .args([&mbox, &maildir, &site.path("ordinary.eml")])
        .arg("-")
        .stdin(Stdio::from(fs::File::open(sample(SAMPLES[4])).unwrap()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.wait().unwrap();
    let ended = child.wait_with_output().unwrap();
    let counts: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(
        (&counts["read"], &counts["new"], &counts["not_report"]),
        (&6.into(), &5.into(), &1.into()),
        "{counts}"
    );
    for name in SAMPLES {
        let id = parsed(name)["message_id"].as_str().unwrap().to_owned();
        assert_eq!(
            service.run(&["search", "--message-id", &id]).code,
            0,
            "{name}"
        );
    }
}

/// The stamps decide, whoever imports.
#[test]
fn imports_of_another_tenants_reports_prove_nothing() {
    let other = TENANT
        .replace("9f8e7d6c", "00000000")
        .replace("northwind.", "fabrikam.");
    let site = Site::new(&other);
    let service = site.serve();
    let ended = service.run(&[
        "--json",
        "--tenant",
        "northwind",
        "import",
        sample(SAMPLES[0]).to_str().unwrap(),
    ]);
    let counts = &ended.documents()[0];
    assert_eq!(
        (ended.code, &counts["proven"], &counts["unproven"]),
        (1, &0.into(), &1.into())
    );
    assert_eq!(service.run(&["search", "--since", "2026-07-01"]).code, 1);
}

#[test]
fn status_store_and_audit_answer() {
    let site = Site::new(TENANT);
    let service = site.serve();
    imported(&site, &[]);
    let status = service.run(&["--json", "status"]).documents().remove(0);
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["index"]["reports"], 5);
    assert_eq!(status["quarantine"], 0);
    assert_eq!(
        status["certificate"]["names"],
        serde_json::json!(["localhost"])
    );
    for key in ["uptime", "feed", "jobs", "disk", "graph"] {
        assert!(status.get(key).is_some(), "{key}");
    }
    assert!(service.run(&["status"]).stdout.contains("5 reports"));
    let stats = service
        .run(&["--json", "store", "stats"])
        .documents()
        .remove(0);
    assert_eq!(stats["reports"], 5);
    let verified = service.run(&["--json", "store", "verify"]);
    assert_eq!(
        (verified.code, &verified.documents()[0]["findings"]),
        (0, &Value::Array(vec![]))
    );
    let audit = service.run(&["--json", "audit", "verify"]);
    assert_eq!(
        (audit.code, &audit.documents()[0]["broken"]),
        (0, &Value::Null)
    );
    assert!(service.stop().success());
    // Offline, with directory and key.
    let (dir, key) = (site.path("data/audit"), site.path("store.key"));
    let audit = site.run(&[
        "audit",
        "verify",
        "--dir",
        dir.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ]);
    assert_eq!(audit.code, 0, "{}", audit.stderr);
}

#[test]
fn the_index_is_made_anew_while_the_service_is_stopped() {
    let site = Site::new(TENANT);
    let service = site.serve();
    imported(&site, &[]);
    let busy = site.run(&["store", "reindex"]);
    assert_eq!(busy.code, 2, "{}", busy.stdout);
    assert!(busy.stderr.contains("in use by process"), "{}", busy.stderr);
    assert!(service.stop().success());
    let made = site.run(&["--json", "store", "reindex"]);
    assert_eq!(
        (made.code, &made.documents()[0]["reports"]),
        (0, &5.into()),
        "{}",
        made.stderr
    );
    let service = site.serve();
    assert_eq!(service.run(&["search", "--since", "2026-07-01"]).code, 0);
}

/// A start that cannot be is refused with exit 2, naming file or address and what to do.
#[test]
fn refused_starts_say_why() {
    type Spoil = fn(&Site) -> Option<Box<dyn std::any::Any>>;
    let cases: [(&str, Spoil, &str); 12] = [
        (
            "port in use",
            |site| {
                let taken = TcpListener::bind("127.0.0.1:0").unwrap();
                change(
                    site,
                    "127.0.0.1:0",
                    &taken.local_addr().unwrap().to_string(),
                );
                Some(Box::new(taken))
            },
            "the port is in use",
        ),
        (
            "no such address",
            |site| {
                change(site, "127.0.0.1:0", "192.0.2.1:2525");
                None
            },
            "192.0.2.1:2525",
        ),
        (
            "no certificate",
            |site| {
                fs::remove_file(site.path("certs/fullchain.pem")).unwrap();
                None
            },
            "certs/fullchain.pem",
        ),
        (
            "no key",
            |site| {
                fs::remove_file(site.path("certs/privkey.pem")).unwrap();
                None
            },
            "certs/privkey.pem",
        ),
        (
            "key of another",
            |site| {
                let out = site.path("other");
                site.run(&["certs", "self-signed", "--out", out.to_str().unwrap()]);
                fs::copy(out.join("privkey.pem"), site.path("certs/privkey.pem")).unwrap();
                None
            },
            "certs/privkey.pem",
        ),
        (
            "no certificate in the file",
            |site| {
                fs::write(site.path("certs/fullchain.pem"), "nothing").unwrap();
                None
            },
            "certs/fullchain.pem",
        ),
        (
            "data directory is a file",
            |site| {
                fs::write(site.path("data"), "").unwrap();
                None
            },
            "store.path",
        ),
        (
            "store key missing beside data",
            |site| {
                fs::create_dir_all(site.path("data/log")).unwrap();
                None
            },
            "restore it from your backup",
        ),
        (
            "store key is none",
            |site| {
                fs::write(site.path("store.key"), "short\n").unwrap();
                None
            },
            "store.key: not a store key",
        ),
        (
            "something else at the socket",
            |site| {
                fs::write(site.path("admin.sock"), "").unwrap();
                None
            },
            "admin.sock",
        ),
        (
            "another service at the socket",
            |site| {
                Some(Box::new(
                    UnixListener::bind(site.path("admin.sock")).unwrap(),
                ))
            },
            "another clawback answers there",
        ),
        (
            "unknown key",
            |site| {
                change(site, "hostname", "hostnam");
                None
            },
            "clawback.toml:3:1: unknown key \"hostnam\" in [smtp]; did you mean \"hostname\"?",
        ),
    ];
    for (name, spoil, words) in cases {
        let site = Site::new(TENANT);
        let _held = spoil(&site);
        let ended = site.run(&["serve"]);
        assert_eq!(ended.code, 2, "{name}: {}", ended.stderr);
        let last = ended.stderr.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("clawback: ") && last.contains(words),
            "{name}: {last}"
        );
        assert_eq!(ended.stdout, "", "{name}");
    }
}

fn change(site: &Site, from: &str, to: &str) {
    let text = fs::read_to_string(&site.config).unwrap();
    assert!(text.contains(from));
    fs::write(&site.config, text.replace(from, to)).unwrap();
}

#[test]
fn one_data_directory_has_one_service() {
    let site = Site::new(TENANT);
    let _service = site.serve();
    change(&site, "admin.sock", "other.sock");
    let ended = site.run(&["serve"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("in use by process"),
        "{}",
        ended.stderr
    );
}

#[test]
fn a_new_configuration_is_taken_and_a_bad_one_refused() {
    let site = Site::new(TENANT);
    let mut service = site.serve();
    let fabrikam = TENANT
        .replace("northwind", "fabrikam")
        .replace("k3v9", "other")
        .replace("9f8e7d6c", "00000000");
    let good = fs::read_to_string(&site.config).unwrap();
    fs::write(&site.config, format!("{good}{fabrikam}")).unwrap();
    service.signal(Signal::HUP);
    service.wait_for("the new configuration is in use");
    assert_eq!(
        site.run(&["--tenant", "fabrikam", "search"]).code,
        1,
        "the new tenant is known"
    );
    fs::write(&site.config, format!("{good}[smpt]\n")).unwrap();
    service.signal(Signal::HUP);
    let line = service.wait_for("new configuration refused, the old one stays");
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("did you mean \"smtp\"?"),
        "{line}"
    );
    fs::write(&site.config, &good).unwrap();
    assert_eq!(
        site.run(&["--tenant", "fabrikam", "search"]).code,
        1,
        "the old configuration stays"
    );
    fs::write(site.path("certs/privkey.pem"), "nothing").unwrap();
    service.signal(Signal::HUP);
    let line = service.wait_for("new configuration refused, the old one stays");
    assert!(
        line["message"].as_str().unwrap().contains("privkey.pem"),
        "{line}"
    );
    assert_eq!(
        site.run(&["--tenant", "fabrikam", "search"]).code,
        1,
        "the old configuration stays"
    );
}

#[test]
fn the_service_keeps_to_itself() {
    let site = Site::new(TENANT);
    fs::create_dir(site.path("data")).unwrap();
    fs::set_permissions(site.path("data"), fs::Permissions::from_mode(0o755)).unwrap();
    let service = site.serve();
    let mode = |name: &str| fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("admin.sock"), 0o660);
    assert_eq!(mode("store.key"), 0o600);
    assert_eq!(mode("data"), 0o700);
    assert!(service.stop().success());
    assert!(
        !site.path("admin.sock").exists(),
        "the socket goes with the service"
    );
}

/// After a kill the old socket is in the way of nobody.
#[test]
fn a_stale_socket_is_replaced() {
    let site = Site::new(TENANT);
    drop(site.serve());
    assert!(site.path("admin.sock").exists());
    let service = site.serve();
    assert_eq!(service.run(&["status"]).code, 0);
}

/// Sends messages to the service over STARTTLS; the replies to their ends.
fn deliver(site: &Site, address: std::net::SocketAddr, contents: &[String]) -> Vec<u16> {
    let ca = fs::read_to_string(site.path("certs/fullchain.pem")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut client = Client::encrypted(address, &ca).await;
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

/// A tenant whose configuration was wrong gets its reports with `retry`, once it is mended.
#[test]
fn a_mended_configuration_frees_what_was_held() {
    let site = Site::new(
        &TENANT
            .replace("9f8e7d6c", "deadbeef")
            .replace("northwind.onmicrosoft.example", "x.example"),
    );
    let mut service = site.serve();
    let report = fs::read_to_string(sample(SAMPLES[0])).unwrap();
    assert_eq!(deliver(&site, service.address(), &[report]), [250]);
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
    assert_eq!(
        retried.documents()[0]["outcome"],
        "indexed",
        "{}",
        retried.stdout
    );
    assert_eq!(service.run(&["search", "--message-id", &id]).code, 0);
}
