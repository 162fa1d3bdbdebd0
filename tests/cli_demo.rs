//! `demo`: the whole job on this machine, and what it leaves behind.

use std::fs;

use crate::cli_command::run;

#[test]
fn the_demo_retracts_the_phish_and_nothing_else() {
    let ended = run(&["demo", "--json", "--messages", "60"]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (0, ""),
        "{}",
        ended.stdout
    );
    let summary = &ended.documents()[0];
    assert_eq!(summary["messages"], 62);
    assert!(summary["reports"].as_u64() >= Some(62), "{summary}");
    assert!(summary["copies_before"].as_u64() >= Some(20), "{summary}");
    assert_eq!(summary["copies_left"], 0, "{summary}");
    assert_eq!(summary["others_moved"], 0, "{summary}");
    assert_eq!(
        summary["counts"]["verified"], summary["copies_before"],
        "{summary}"
    );
    assert!(summary["counts"].get("failed").is_none(), "{summary}");
    assert!(summary["audit_broken"].is_null(), "{summary}");
}

#[test]
fn what_is_kept_can_be_explored() {
    let directory = tempfile::tempdir().unwrap();
    let keep = directory.path().join("kept");
    let ended = run(&["demo", "--messages", "20", "--keep", keep.to_str().unwrap()]);
    assert_eq!(
        (ended.code, ended.stderr.as_str()),
        (0, ""),
        "{}",
        ended.stdout
    );
    for words in [
        "retract rec_",
        "within reach before, 0 now",
        "jobs show job_",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    let config = keep.join("clawback.toml");
    let config = config.to_str().unwrap();
    let checked = run(&["--config", config, "check", "--json"]);
    assert_eq!(checked.code, 0, "{}", checked.stdout);
    let (audit, key) = (keep.join("data/audit"), keep.join("store.key"));
    let audit = run(&[
        "audit",
        "verify",
        "--dir",
        audit.to_str().unwrap(),
        "--key",
        key.to_str().unwrap(),
    ]);
    assert_eq!(audit.code, 0, "{}", audit.stderr);
    let again = run(&["demo", "--keep", keep.to_str().unwrap()]);
    assert_eq!(again.code, 2);
    assert!(again.stderr.contains("is not empty"), "{}", again.stderr);
}

#[test]
fn nothing_else_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let ended = crate::cli_command::command()
        .args(["demo", "--messages", "1"])
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    assert!(
        ended.status.success(),
        "{}",
        String::from_utf8_lossy(&ended.stderr)
    );
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
