//! `docs/SECURITY.md` names a test for each defence; this checks that they exist.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn test_names(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            test_names(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            for (at, _) in text.match_indices("fn ") {
                let name = text[at + 3..].split(['(', '<']).next().unwrap_or_default();
                found.insert(name.trim().to_owned());
            }
        }
    }
}

#[test]
fn every_test_that_the_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    test_names(&root.join("src"), &mut tests);
    test_names(&root.join("tests"), &mut tests);
    let page = fs::read_to_string(root.join("docs/SECURITY.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| T"));
    let mut missing = Vec::new();
    for row in rows {
        let held_by = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let named: Vec<&str> = held_by.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "no test holds: {row}");
        missing.extend(
            named
                .into_iter()
                .filter(|name| !tests.contains(*name))
                .map(str::to_owned),
        );
    }
    assert!(missing.is_empty(), "no such test: {}", missing.join(", "));
}
