//! `docs/STANDARDS.md` names code and tests that are there.

use std::fs;
use std::path::Path;

#[test]
fn every_place_and_test_in_the_table_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/STANDARDS.md")).unwrap();
    let mut tests = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let (Some(_), Some(_), Some(_), Some(code), Some(named)) = (
            cells.next(),
            cells.next(),
            cells.next(),
            cells.next(),
            cells.next(),
        ) else {
            continue;
        };
        if ["code", "---"].contains(&code) {
            continue;
        }
        for place in quoted(code) {
            let path = root.join("src").join(place);
            assert!(path.exists(), "line {number}: {place} is not in src/");
        }
        assert!(!quoted(named).is_empty(), "line {number}: no test");
        for test in quoted(named) {
            assert!(exists(root, test), "line {number}: no test {test:?}");
            tests += 1;
        }
    }
    assert!(tests > 50, "only {tests} tests were found in the tables");
}

/// What stands between backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn exists(root: &Path, test: &str) -> bool {
    let (file, what, folders) = match test.split_once("::") {
        Some((file, function)) => (file, format!("fn {function}("), ["src", "tests"].as_slice()),
        None => match test.split_once(": ") {
            Some((file, title)) => (
                file,
                format!("== {title}\n"),
                ["tests/dialogues"].as_slice(),
            ),
            None => return false,
        },
    };
    folders.iter().any(|folder| {
        let text = fs::read_to_string(root.join(folder).join(file));
        text.is_ok_and(|text| text.contains(&what))
    })
}
