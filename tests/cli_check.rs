//! `check` and `certs`: what is wrong, where, and what to do.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use crate::cli_command::{Ended, run};

const TENANT: &str = r#"[[tenant]]
name = "contoso"
tenant_id = "8b1b0ae4-2b1d-4d2e-9a3c-1c2b3a4d5e6f"
domains = ["contoso.example"]
client_id = "app"
client_secret_file = "contoso.secret"
journal_address = ["k3v9w2m8q7x4t6r1p5z0@journal.example.com"]
"#;

/// A directory with a configuration that is right in all but public trust.
fn good(directory: &Path) -> String {
    let text = format!(
        "[smtp]\nhostname = \"localhost\"\n[store]\npath = \"data\"\n[admin]\nviewers = [\"root\"]\noperators = [\"root\"]\n{TENANT}"
    );
    let path = directory.join("clawback.toml");
    fs::write(&path, text).unwrap();
    fs::write(directory.join("contoso.secret"), "s3cret-canary").unwrap();
    fs::set_permissions(
        directory.join("contoso.secret"),
        fs::Permissions::from_mode(0o600),
    )
    .unwrap();
    let path = path.to_str().unwrap().to_owned();
    let made = run(&["--config", &path, "certs", "self-signed"]);
    assert_eq!(made.code, 0, "{}", made.stderr);
    path
}

fn findings(ended: &Ended, level: &str) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    ended
        .documents()
        .iter()
        .filter(|finding| finding["level"] == level)
        .map(|finding| {
            (
                text(&finding["subject"]),
                text(&finding["found"]),
                text(&finding["mend"]),
            )
        })
        .collect()
}

#[test]
fn a_good_configuration_passes() {
    let directory = tempfile::tempdir().unwrap();
    let config = good(directory.path());
    let ended = run(&["--config", &config, "check", "--json"]);
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    let warnings = findings(&ended, "warn");
    let subjects: Vec<&str> = warnings
        .iter()
        .map(|(subject, _, _)| subject.as_str())
        .collect();
    assert_eq!(
        subjects,
        ["certificate"],
        "no public trust is a warning: {warnings:?}"
    );
    assert!(warnings[0].2.contains("self-signed"), "{warnings:?}");
    assert!(
        !directory.path().join("data").exists(),
        "a check makes nothing"
    );
    assert!(!ended.stdout.contains("s3cret-canary"));
}

#[test]
fn every_problem_has_its_place_and_its_mend() {
    for (name, spoil, level, subject, found, mend) in [
        (
            "configuration",
            (|directory: &Path| {
                let path = directory.join("clawback.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replace("hostname", "hostnam")).unwrap();
            }) as fn(&Path),
            "fail",
            "config",
            "clawback.toml:2:1: unknown key \"hostnam\" in [smtp]",
            "did you mean \"hostname\"?",
        ),
        (
            "no certificate",
            |directory| fs::remove_file(directory.join("certs/fullchain.pem")).unwrap(),
            "fail",
            "certificate",
            "certs/fullchain.pem",
            "certs self-signed",
        ),
        (
            "no key",
            |directory| fs::remove_file(directory.join("certs/privkey.pem")).unwrap(),
            "fail",
            "certificate",
            "certs/privkey.pem",
            "",
        ),
        (
            "another's key",
            |directory| {
                let out = directory.join("other");
                let made = run(&[
                    "certs",
                    "self-signed",
                    "--hostname",
                    "x",
                    "--out",
                    out.to_str().unwrap(),
                ]);
                assert_eq!(made.code, 0);
                fs::copy(out.join("privkey.pem"), directory.join("certs/privkey.pem")).unwrap();
            },
            "fail",
            "certificate",
            "certs/privkey.pem",
            "",
        ),
        (
            "no secret",
            |directory| fs::remove_file(directory.join("contoso.secret")).unwrap(),
            "fail",
            "secrets",
            "clawback.toml:13:22: tenant.contoso.client_secret_file",
            "write the secret there",
        ),
        (
            "store key is none",
            |directory| fs::write(directory.join("store.key"), "short\n").unwrap(),
            "fail",
            "store",
            "store.key: not a store key",
            "backup",
        ),
        (
            "store key missing beside data",
            |directory| fs::create_dir_all(directory.join("data/log")).unwrap(),
            "fail",
            "store",
            "store.key is missing",
            "restore it from your backup",
        ),
        (
            "no authorities",
            |directory| {
                let path = directory.join("clawback.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text + "ca_file = \"ca.pem\"\n").unwrap();
            },
            "fail",
            "network",
            "clawback.toml:15:11: tenant.contoso.ca_file",
            "remove the line",
        ),
        (
            "something else at the socket",
            |directory| {
                let path = directory.join("clawback.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(
                    path,
                    text.replace("[admin]\n", "[admin]\nsocket = \"contoso.secret\"\n"),
                )
                .unwrap();
            },
            "fail",
            "admin",
            "contoso.secret is no socket",
            "move it away",
        ),
        (
            "open secret",
            |directory| {
                let path = directory.join("contoso.secret");
                fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
            },
            "warn",
            "secrets",
            "has mode 0644, open to others",
            "chmod 0600",
        ),
        (
            "data directory is a file",
            |directory| fs::write(directory.join("data"), "").unwrap(),
            "fail",
            "store",
            "clawback.toml:4:8: store.path",
            "choose another place",
        ),
        (
            "no such group",
            |directory| {
                let path = directory.join("clawback.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(
                    path,
                    text.replace("operators = [\"root\"]", "operators = [\"no-such-group\"]"),
                )
                .unwrap();
            },
            "warn",
            "admin",
            "clawback.toml:7:13: admin.operators: there is no group \"no-such-group\"",
            "groupadd",
        ),
        (
            "name does not resolve",
            |directory| {
                let path = directory.join("clawback.toml");
                let text = fs::read_to_string(&path).unwrap();
                fs::write(path, text.replace("\"localhost\"", "\"journal.invalid\"")).unwrap();
            },
            "warn",
            "names",
            "clawback.toml:2:12: smtp.hostname: journal.invalid does not resolve",
            "DNS",
        ),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let config = good(directory.path());
        spoil(directory.path());
        let ended = run(&["--config", &config, "check", "--json"]);
        assert_eq!(
            ended.code,
            i32::from(level == "fail"),
            "{name}: {}",
            ended.stdout
        );
        let findings = findings(&ended, level);
        let told = findings
            .iter()
            .any(|(s, f, m)| s == subject && f.contains(found) && m.contains(mend));
        assert!(told, "{name}: {findings:?}");
        let screen = run(&["--config", &config, "check"]);
        assert!(
            screen
                .stdout
                .contains(if level == "fail" { "FAIL" } else { "WARN" }),
            "{name}"
        );
        assert_eq!(screen.code, ended.code, "{name}");
    }
}

#[test]
fn certificates_are_made_and_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let config = good(directory.path());
    let key = directory.path().join("certs/privkey.pem");
    let mode = fs::metadata(&key).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let before = fs::read(&key).unwrap();
    let again = run(&["--config", &config, "certs", "self-signed"]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("--force"), "{}", again.stderr);
    assert_eq!(fs::read(&key).unwrap(), before);
    let status = run(&["--config", &config, "certs", "status", "--json"]);
    assert_eq!(status.code, 0, "{}", status.stderr);
    let status = &status.documents()[0];
    assert_eq!(status["names"], serde_json::json!(["localhost"]));
    assert_eq!(status["days_left"], 364);
    assert_eq!(status["publicly_trusted"], false);
}
