//! `parse`: what the receiver would make of a report, without a service or a configuration.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::cli_command::{Ended, command, run};

fn reports() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports");
    let entries = std::fs::read_dir(directory).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "eml"));
    paths.sort();
    paths
}

/// Every key that the expected document has, the printed one has with the same value.
fn assert_holds(printed: &Value, expected: &Value, place: &str) {
    match (printed, expected) {
        (Value::Object(printed), Value::Object(expected)) => {
            for (key, value) in expected {
                let found = printed
                    .get(key)
                    .unwrap_or_else(|| panic!("{place}.{key} is missing"));
                assert_holds(found, value, &format!("{place}.{key}"));
            }
        }
        // Problems are for people: what is expected of one is a word that it holds.
        (Value::Array(printed), Value::Array(expected)) if place.ends_with(".problems") => {
            for word in expected {
                let word = word.as_str().unwrap();
                let told = printed
                    .iter()
                    .any(|text| text.as_str().unwrap().contains(word));
                assert!(told, "{place}: {word} is not told in {printed:?}");
            }
        }
        _ => assert_eq!(printed, expected, "{place}"),
    }
}

#[test]
fn every_sample_gives_its_document() {
    assert!(reports().len() >= 6);
    for path in reports() {
        let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
        let expected: Value = serde_json::from_str(&expected).unwrap();
        let ended = run(&["parse".as_ref(), "--json".as_ref(), path.as_os_str()]);
        assert_holds(
            &ended.documents()[0],
            &expected,
            &path.display().to_string(),
        );
        let code = i32::from(expected["kind"] != "report");
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (code, ""),
            "{}",
            path.display()
        );
    }
}

#[test]
fn all_keys_of_the_document_are_there() {
    let document = &run(&[
        "parse".as_ref(),
        "--json".as_ref(),
        reports()[2].as_os_str(),
    ])
    .documents()[0];
    for key in [
        "kind",
        "sender",
        "on_behalf_of",
        "subject",
        "message_id",
        "label",
        "sent",
        "received",
        "recipients",
        "inner",
        "problems",
    ] {
        assert!(document.get(key).is_some(), "{key}");
    }
    for key in ["address", "field", "expanded_from", "forwarded_from"] {
        assert!(document["recipients"][0].get(key).is_some(), "{key}");
    }
    for key in [
        "present",
        "from",
        "date",
        "references",
        "size",
        "attachments",
        "url_domains",
    ] {
        assert!(document["inner"].get(key).is_some(), "{key}");
    }
}

#[test]
fn people_get_a_screen() {
    let paths = reports();
    let ended = run(&["parse".as_ref(), paths[2].as_os_str()]);
    assert_eq!(ended.code, 0);
    for words in [
        "03_group_and_forwarding.eml: journal report",
        "Message-ID",
        "member of",
        "forwarded by",
    ] {
        assert!(ended.stdout.contains(words), "{words}: {}", ended.stdout);
    }
    assert!(
        !ended.stdout.contains('\u{1b}'),
        "no colour outside a terminal"
    );
}

#[test]
fn files_that_cannot_be_read_are_named_and_the_others_are_read() {
    let paths = reports();
    let ended = run(&[
        "parse".as_ref(),
        "--json".as_ref(),
        "/nonexistent.eml".as_ref(),
        paths[0].as_os_str(),
    ]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("/nonexistent.eml: No such file"),
        "{}",
        ended.stderr
    );
    let documents = ended.documents();
    assert_eq!(documents.len(), 1);
    assert_eq!(documents[0]["file"], paths[0].to_str().unwrap());
}

/// What a sender wrote does not reach the terminal as more than text.
#[test]
fn nothing_a_sender_wrote_acts() {
    let evil = "\u{1b}]0;owned\u{7}\u{9b}2J\u{202e}gpj.exe";
    let report = std::fs::read_to_string(&reports()[0]).unwrap();
    let report = report.replace("\r\nSubject: ", &format!("\r\nSubject: {evil} "));
    assert!(report.contains(evil));
    for json in [false, true] {
        let mut child = command()
            .args(if json {
                &["parse", "--json", "-"][..]
            } else {
                &["parse", "-"]
            })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(report.as_bytes())
            .unwrap();
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert!(ended.stdout.contains("gpj.exe"), "{}", ended.stdout);
        for acting in ['\u{1b}', '\u{7}', '\u{9b}', '\u{202e}'] {
            assert!(
                !ended.stdout.contains(acting),
                "json {json}: {:?}",
                ended.stdout
            );
        }
    }
}
