//! Who may import whom: `docs/ARCHITECTURE.md` as a test.
//!
//! The receive path and the retract path are straight lines; no module calls back up the line. The test
//! reads every `crate::` path in `src/` and compares it with [`MAY_IMPORT`], and checks that the modules
//! that promise to do no I/O name nothing that does.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module (the longest matching prefix counts) and the modules of this crate that it may name.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("escape", &[]),
    ("proc", &[]),
    ("key", &["segment"]),
    ("segment", &[]),
    ("calendar", &[]),
    ("smtp", &["mail"]),
    ("journal", &["mail"]),
    ("index::record", &["mail", "journal", "index"]),
    ("index::query", &["mail", "journal", "index"]),
    (
        "index",
        &["mail", "journal", "segment", "key", "telemetry", "proc"],
    ),
    ("state", &["mail", "journal", "retract", "segment", "key"]),
    ("audit", &["mail", "segment", "key"]),
    ("quarantine", &["mail", "segment", "key"]),
    ("graph", &["mail"]),
    ("directory", &["mail", "index", "graph"]),
    (
        "retract",
        &["mail", "index", "graph", "directory", "journal"],
    ),
    ("config", &["mail", "journal"]),
    ("certs", &[]),
    ("telemetry", &["config", "escape", "mail"]),
    (
        "server",
        &[
            "mail",
            "smtp",
            "journal",
            "index",
            "quarantine",
            "calendar",
            "state",
            "config",
            "certs",
            "telemetry",
            "escape",
            "segment",
            "key",
        ],
    ),
    (
        "worker",
        &[
            "mail",
            "journal",
            "index",
            "state",
            "directory",
            "retract",
            "audit",
            "graph",
            "config",
            "escape",
            "telemetry",
        ],
    ),
    (
        "onboard",
        &[
            "mail",
            "config",
            "certs",
            "graph",
            "index",
            "key",
            "segment",
            "directory",
        ],
    ),
];

/// Modules that see everything: the drivers at the end of both paths.
const SEE_ALL: &[&str] = &["admin", "cli", "main", "lib"];

/// Modules without I/O and clock: what they must not name.
const PURE: &[&str] = &[
    "mail",
    "escape",
    "smtp",
    "journal",
    "index::record",
    "index::query",
    "index::key",
    "graph::api",
    "graph::folder",
    "graph::pace",
    "retract",
];

const IMPURE_WORDS: &[&str] = &[
    "std::fs",
    "std::net::Tcp",
    "std::thread",
    "tokio::",
    "reqwest::",
    "rustix::",
    "Timestamp::now",
    "Instant::now",
    "SystemTime",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// `src/index/record.rs` is `index::record`; `src/index/mod.rs` is `index`.
fn module(path: &Path) -> String {
    let text = path.with_extension("").to_string_lossy().replace('/', "::");
    text.strip_suffix("::mod").unwrap_or(&text).to_owned()
}

/// The source without comments and without its unit tests, which may reach anywhere.
fn code(path: &Path) -> String {
    if path.file_stem().is_some_and(|stem| stem == "tests") {
        return String::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let end = text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len());
    text[..end]
        .lines()
        .map(|line| line.find("//").map_or(line, |at| &line[..at]))
        .collect::<Vec<_>>()
        .join("\n")
}

/// First segments after every `crate::`, groups (`crate::{a, b::c}`) included.
fn imported(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let name = |text: &str| {
            text.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            for part in group.split_inclusive([',', '{', '}']) {
                if depth == 0 {
                    found.insert(name(part.trim()));
                }
                match part.chars().last() {
                    Some('{') => depth += 1,
                    Some('}') if depth == 0 => break,
                    Some('}') => depth -= 1,
                    _ => {}
                }
            }
        } else {
            found.insert(name(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

fn is_or_under(module: &str, prefix: &str) -> bool {
    module == prefix
        || module
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn imports_go_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let name = module(file.strip_prefix(&root).unwrap());
        if SEE_ALL.iter().any(|all| is_or_under(&name, all)) {
            continue;
        }
        let row = MAY_IMPORT
            .iter()
            .filter(|(prefix, _)| is_or_under(&name, prefix))
            .max_by_key(|(prefix, _)| prefix.len());
        let Some((prefix, allowed)) = row else {
            wrong.push(format!(
                "{name}: no row in MAY_IMPORT says what it may import"
            ));
            continue;
        };
        let own = prefix.split("::").next().unwrap();
        for import in imported(&code(file)) {
            if import != own && !allowed.contains(&import.as_str()) {
                wrong.push(format!(
                    "{name} imports {import}; it may import {allowed:?}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_modules_name_nothing_that_does_io() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut wrong = Vec::new();
    for file in &files {
        let name = module(file.strip_prefix(&root).unwrap());
        if !PURE.iter().any(|pure| is_or_under(&name, pure)) {
            continue;
        }
        let code = code(file);
        for word in IMPURE_WORDS {
            if code.contains(word) {
                wrong.push(format!("{name} names {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_scanner_sees_groups_and_single_paths() {
    let code = "use crate::{a, b::{c, d}, e};\nuse crate::f::g;\nlet x = crate::h();\n";
    let found: Vec<String> = imported(code).into_iter().collect();
    assert_eq!(found, ["a", "b", "e", "f", "h"]);
}
