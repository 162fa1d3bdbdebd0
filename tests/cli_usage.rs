//! The command line itself: help, refusals, exit codes, completions, manual pages.

use std::io::Read as _;
use std::process::Stdio;

use crate::cli_command::{command, run};

#[test]
fn help_shows_what_there_is() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for name in [
        "serve",
        "demo",
        "check",
        "parse",
        "import",
        "search",
        "show",
        "status",
        "quarantine",
        "store",
        "certs",
        "completions",
        "man",
        "retract",
        "jobs",
        "audit",
    ] {
        assert!(help.stdout.contains(&format!("  {name} ")), "{name}");
        let own = run(&[name, "--help"]);
        assert_eq!(own.code, 0, "{name}");
        assert!(
            own.stdout.contains(&format!("clawback {name}")),
            "{name}: {}",
            own.stdout
        );
    }
    for name in ["doctor", "holds", "policy", "tokens"] {
        assert!(
            !help.stdout.contains(&format!("  {name} ")),
            "{name} is not there yet"
        );
    }
}

#[test]
fn what_a_later_version_brings_is_refused_plainly() {
    for (arguments, name) in [
        (&["doctor"][..], "doctor"),
        (&["setup", "--non-interactive", "--out", "x"], "setup"),
        (&["tenants", "list"], "tenants"),
        (&["domains"], "domains"),
        (&["authorize", "contoso", "--for", "mail"], "authorize"),
        (&["directory", "sync"], "directory"),
        (&["holds", "add", "a@x", "--reason", "x"], "holds"),
        (&["verdict", "<a@x>", "spam"], "verdict"),
        (&["policy", "show"], "policy"),
        (&["tokens", "add", "x"], "tokens"),
        (&["store", "backup", "/tmp/x"], "store backup"),
        (&["store", "erase", "a@x"], "store erase"),
        (&["jobs", "watch", "1"], "jobs watch"),
        (&["jobs", "cancel", "--all"], "jobs cancel"),
        (&["jobs", "undo", "1"], "jobs undo"),
        (&["jobs", "show", "1", "--csv"], "jobs show --csv"),
        (&["audit", "export"], "audit export"),
        (&["certs", "issue"], "certs issue"),
        (&["search", "--verdict", "spam"], "search --verdict"),
        (&["search", "--similar", "<a@x>"], "search --similar"),
        (&["retract", "--from-file", "-"], "retract --from-file"),
        (
            &["retract", "--from-search", "--sender", "x", "--yes"],
            "retract --from-search",
        ),
        (
            &["retract", "<a@x>", "--include-sender"],
            "retract --include-sender",
        ),
    ] {
        let ended = run(arguments);
        let expected =
            format!("clawback: {name} comes with a later version; this one does not have it\n");
        assert_eq!((ended.code, ended.stderr), (2, expected), "{arguments:?}");
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

#[test]
fn wrong_usage_is_exit_2() {
    for (arguments, words) in [
        (&["serch"][..], "search"),
        (&["search", "--sinse", "2d"], "--since"),
        (
            &["search", "--since", "20/11/2026"],
            "RFC 3339 (2026-11-20T08:30:00Z), a UTC date (2026-11-20), or how long ago (30min, 2h, 3d, 1w, \"2h ago\")",
        ),
        (&["search", "--until", "tomorrow"], "RFC 3339"),
        (&["search", "--limit", "many"], "--limit"),
        (&["search", "--limit", "0"], "--limit"),
        (&["--json", "search", "--csv"], "--csv"),
        (&["search", "--csv", "--json"], "--csv"),
        (&["retract"], "MESSAGE"),
        (&["retract", "<a@x>", "--to", "trsh"], "soft-delete"),
        (&["retract", "rec_abc"], "26 base32 characters"),
        (&["show", "<>"], "empty"),
        (&["parse"], "FILE"),
        (&["import", "x"], "--tenant NAME"),
        (&["--quiet", "-v", "status"], "cannot be used with"),
        (&["audit", "verify", "--dir", "/tmp"], "--key"),
    ] {
        let ended = run(arguments);
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(words),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}

#[test]
fn a_service_that_is_not_there_is_exit_3() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clawback.toml");
    std::fs::write(&path, "[admin]\nsocket = \"none.sock\"\n").unwrap();
    let config = path.to_str().unwrap();
    for arguments in [
        &["status"][..],
        &["search"],
        &["show", "<a@x>"],
        &["jobs"],
        &["quarantine"],
        &["store"],
        &["audit"],
    ] {
        let ended = command()
            .args(arguments)
            .env("CLAWBACK_CONFIG", config)
            .output()
            .unwrap();
        let stderr = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(3), "{arguments:?}: {stderr}");
        assert!(stderr.contains("none.sock"), "{stderr}");
        assert!(stderr.contains("systemctl start clawback"), "{stderr}");
    }
}

#[test]
fn a_configuration_that_is_wrong_is_exit_2() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("clawback.toml");
    std::fs::write(&path, "[admin]\nsockt = \"x\"\n").unwrap();
    let ended = run(&["--config", path.to_str().unwrap(), "status"]);
    assert_eq!(ended.code, 2);
    let expected = format!(
        "{}:2:1: unknown key \"sockt\" in [admin]; did you mean \"socket\"?",
        path.display()
    );
    assert!(ended.stderr.contains(&expected), "{}", ended.stderr);
}

#[test]
fn completions_and_manual_come_from_the_same_definition() {
    for shell in ["bash", "zsh", "fish"] {
        let ended = run(&["completions", shell]);
        assert_eq!(ended.code, 0, "{shell}");
        assert!(ended.stdout.contains("self-signed"), "{shell}");
        assert!(!ended.stdout.contains("doctor"), "{shell}");
    }
    let page = run(&["man"]).stdout;
    assert!(page.contains(".TH clawback 1"), "{page}");
    assert!(!page.contains("doctor"), "{page}");
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().to_str().unwrap();
    assert_eq!(run(&["man", "--dir", out]).code, 0);
    let page = std::fs::read_to_string(directory.path().join("clawback-search.1")).unwrap();
    assert!(page.contains("attachment\\-sha256"), "{page}");
}

/// `clawback … --json | head -1`: the reader goes away, and that is no error.
#[test]
fn a_closed_pipe_ends_quietly() {
    let report = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/reports/01_inbound.eml");
    let mut child = command()
        .args(["parse", "--json"])
        .args(std::iter::repeat_n(report, 1000))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 1];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), "");
    assert_eq!(ended.status.code(), Some(0));
}
