//! Journal reports as Exchange writes them, and as nobody should: `tests/reports/NAME.eml` and what is
//! expected of it in `NAME.json`.

use std::fs;
use std::path::{Path, PathBuf};

use clawback::journal::{Kind, Limits, Report, Scanner, Stage, json, parse};
use serde_json::Value;

fn reports() -> Vec<(String, Vec<u8>, Value)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reports");
    let mut paths: Vec<PathBuf> = fs::read_dir(&directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
        .collect();
    paths.sort();
    assert!(paths.len() > 5, "no reports in {}", directory.display());
    paths
        .into_iter()
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let expected = fs::read(path.with_extension("json")).expect(&name);
            let expected = serde_json::from_slice(&expected).expect(&name);
            (name, fs::read(path).unwrap(), expected)
        })
        .collect()
}

/// Compares every key that `expected` has; what it does not name does not matter. Of `problems` it
/// names a part each.
fn compare(name: &str, found: &Value, expected: &Value) {
    match expected {
        Value::Object(expected) => {
            for (key, value) in expected {
                let name = format!("{name}: {key}");
                let found = found.get(key).unwrap_or(&Value::Null);
                if key == "problems" {
                    problems(&name, found, value);
                } else {
                    compare(&name, found, value);
                }
            }
        }
        Value::Array(expected) => {
            let found = found.as_array().expect(name);
            assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
            for (found, expected) in found.iter().zip(expected) {
                compare(name, found, expected);
            }
        }
        _ => assert_eq!(found, expected, "{name}"),
    }
}

fn problems(name: &str, found: &Value, expected: &Value) {
    let texts = |value: &Value| -> Vec<String> {
        let texts = value.as_array().expect(name).iter();
        texts
            .map(|text| text.as_str().unwrap().to_owned())
            .collect()
    };
    let (found, expected) = (texts(found), texts(expected));
    assert_eq!(found.len(), expected.len(), "{name}: {found:?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            found.contains(&expected),
            "{name}: {found:?} without {expected:?}"
        );
    }
}

#[test]
fn every_report_says_what_is_expected_of_it() {
    for (name, octets, expected) in reports() {
        let report = parse(&octets, Limits::default());
        compare(&name, &json(&report), &expected);
    }
}

/// Reads a report in pieces of that size, taking recipients as they come.
fn parse_in_pieces(octets: &[u8], size: usize) -> Report {
    let mut scanner = Scanner::new(Limits::default());
    let mut recipients = Vec::new();
    for piece in octets.chunks(size) {
        scanner.handle_octets(piece);
        recipients.extend(scanner.take_recipients());
        assert_eq!(scanner.pending_recipients(), 0);
    }
    let failed = scanner.stage() == Stage::Failed;
    let mut report = scanner.finish();
    assert!(!failed || report.kind != Kind::Report);
    if report.kind == Kind::Report {
        recipients.append(&mut report.recipients);
        report.recipients = recipients;
    }
    report
}

#[test]
fn where_a_report_is_cut_changes_nothing() {
    for (name, octets, _) in reports() {
        let whole = parse(&octets, Limits::default());
        for size in [1, 3, 64, 1021] {
            assert_eq!(
                parse_in_pieces(&octets, size),
                whole,
                "{name} in pieces of {size}"
            );
        }
        for cut in (0..octets.len()).step_by(101) {
            let mut scanner = Scanner::new(Limits::default());
            let (head, tail) = octets.split_at(cut);
            scanner.handle_octets(head);
            scanner.handle_octets(tail);
            assert_eq!(scanner.finish(), whole, "{name} cut at {cut}");
        }
    }
}
