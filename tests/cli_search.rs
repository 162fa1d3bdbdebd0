//! `import`, `search`, `show`, `status`, `store` and `audit` against a running service.

use std::fs;
use std::process::Stdio;

use serde_json::Value;

use crate::cli_serving::{SAMPLES, Site, TENANT, imported, parsed, sample};

#[test]
fn what_is_imported_is_found() {
    let site = Site::new(TENANT);
    let service = site.serve();
    let counts = imported(&site);
    assert_eq!(
        (&counts["read"], &counts["proven"], &counts["new"]),
        (&5.into(), &5.into(), &5.into())
    );
    let again = imported(&site);
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
    imported(&site);
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
        (&["status", "--tenant", "fabrikam"], 2),
        (&["store", "--tenant", "fabrikam"], 2),
        (&["audit", "--tenant", "fabrikam"], 2),
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
    imported(&site);
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
    imported(&site);
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
    imported(&site);
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
    imported(&site);
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
