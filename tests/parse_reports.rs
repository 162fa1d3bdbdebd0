//! Journal reports as Exchange writes them, and as nobody should: `tests/reports/NAME.eml` and what is
//! expected of it in `NAME.json`.

use std::fs;
use std::path::{Path, PathBuf};

use clawback::journal::{Kind, Limits, Report, Scanner, Stage, json, parse};
use proptest::prelude::*;
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

/// What happens to reports on the way and in the hands of those who mean harm.
#[derive(Clone, Debug)]
enum Damage {
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Insert(prop::sample::Index, &'static str),
    Overwrite(prop::sample::Index, u8),
}

fn damage() -> impl Strategy<Value = Damage> {
    let piece = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r",
        "--",
        "\r\n--",
        "\r\n\r\n",
        "=",
        "=\r\n",
        "=?utf-8?Q?",
        "\"",
        "(",
        ",",
        ":",
        "<",
        ">",
        ", Expanded: ",
        "Content-Type: message/rfc822\r\n\r\n",
        "\0",
        "\u{e9}",
        "http://",
        "&#",
        "--p\r\n",
        "--p--\r\n",
        "\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        "Content-Type: multipart/mixed; boundary=p\r\n\r\n",
    ]);
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 1usize..200).prop_map(|(at, length)| Damage::Remove(at, length)),
        (at(), 1usize..200).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (at(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece)),
        (at(), any::<u8>()).prop_map(|(at, octet)| Damage::Overwrite(at, octet)),
    ]
}

fn apply(octets: &mut Vec<u8>, damage: &Damage) {
    let end = |at: usize, length: usize| (at + length).min(octets.len());
    match *damage {
        _ if octets.is_empty() => {}
        Damage::Remove(at, length) => {
            let at = at.index(octets.len());
            octets.drain(at..end(at, length));
        }
        Damage::Repeat(at, length) => {
            let at = at.index(octets.len());
            let piece = octets[at..end(at, length)].to_vec();
            octets.splice(at..at, piece);
        }
        Damage::Insert(at, piece) => {
            let at = at.index(octets.len());
            octets.splice(at..at, piece.bytes());
        }
        Damage::Overwrite(at, octet) => {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
    }
}

proptest! {
    /// A damaged report is read without a panic, and where it is cut still changes nothing.
    #[test]
    fn damaged_reports_are_read_all_the_same(
        which: prop::sample::Index,
        damages in prop::collection::vec(damage(), 1..6),
        size in 1usize..100,
    ) {
        let mut all = reports();
        let (name, mut octets, _) = all.swap_remove(which.index(all.len()));
        for damage in &damages {
            apply(&mut octets, damage);
        }
        let whole = parse(&octets, Limits::default());
        let text = String::from_utf8_lossy(&octets);
        prop_assert_eq!(parse_in_pieces(&octets, size), whole, "{}: {}", name, text);
    }
}
