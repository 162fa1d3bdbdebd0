//! Whatever happens to the index, everything acknowledged is found; the log is the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clawback::index::{Options, Query, Store};
use clawback::mail::MessageId;
use proptest::prelude::*;

use crate::store_support::{address, addresses, close, find, keep, options, report};

/// A store whose partitions are closed after a few reports.
fn small(root: &Path) -> Options {
    Options {
        partition_reports: 4,
        ..options(root)
    }
}

async fn open_small(root: &Path) -> Store {
    let options = small(root);
    tokio::task::spawn_blocking(move || Store::open(options).unwrap())
        .await
        .unwrap()
}

fn index(root: &Path) -> PathBuf {
    root.join("data/index")
}

fn runs(root: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<_> = fs::read_dir(index(root).join("run"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "run"))
        .collect();
    runs.sort();
    runs
}

fn change_octet(path: &Path, place: usize) {
    let mut octets = fs::read(path).unwrap();
    let place = place % octets.len();
    octets[place] ^= 0x40;
    fs::write(path, octets).unwrap();
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else if fs::copy(entry.path(), &target).is_err() {
            // A file that sealing removed in the meantime is one that a crash may find gone.
            assert!(!entry.path().exists());
        }
    }
}

/// What may happen between two reports.
#[derive(Debug, Clone)]
enum Step {
    /// A report of a message, to some recipients, each once.
    Keep {
        message: u64,
        report: u64,
        recipients: BTreeSet<u8>,
    },
    /// An orderly stop and a start.
    Reopen,
    /// The process is killed: the files stay as they are in this moment.
    Kill,
    /// The machine loses power: sled may be anything.
    PowerLoss,
    /// The disk changes an octet of a sealed run.
    DamageRun(usize),
    /// Somebody removes the sealed runs.
    RemoveRuns,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0u64..6, 0u64..4, proptest::collection::btree_set(0u8..5, 0..4))
            .prop_map(|(message, report, recipients)| Step::Keep { message, report, recipients }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        1 => Just(Step::PowerLoss),
        1 => any::<usize>().prop_map(Step::DamageRun),
        1 => Just(Step::RemoveRuns),
    ]
}

async fn reopen(root: &Path, store: Store, between: impl FnOnce()) -> Store {
    close(store).await;
    between();
    open_small(root).await
}

async fn run(steps: Vec<Step>) {
    let home = tempfile::tempdir().unwrap();
    let mut root = home.path().join("0");
    fs::create_dir(&root).unwrap();
    let mut store = open_small(&root).await;
    let mut reports = BTreeSet::new();
    let mut expected: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (number, step) in steps.iter().enumerate() {
        match step {
            Step::Keep {
                message,
                report: own,
                recipients,
            } => {
                let who: Vec<String> = recipients
                    .iter()
                    .map(|n| format!("u{n}@x.example"))
                    .collect();
                let who: Vec<&str> = who.iter().map(String::as_str).collect();
                keep(&store, report(*message, *own, &who)).await;
                // The same report key again adds nothing, whatever it says.
                if reports.insert((*message, *own)) {
                    let all = expected.entry(*message).or_default();
                    all.extend(who.into_iter().map(str::to_owned));
                }
            }
            Step::Reopen => store = reopen(&root, store, || {}).await,
            Step::Kill => {
                let next = home.path().join(format!("{}", number + 1));
                copy_tree(&root, &next);
                close(store).await;
                root = next;
                store = open_small(&root).await;
            }
            Step::PowerLoss => {
                store = reopen(&root, store, || {
                    let marker = index(&root).join("marker");
                    let text = fs::read_to_string(&marker).unwrap();
                    let head = text.lines().next().unwrap();
                    fs::write(&marker, format!("{head}\nanother-boot\nopen\n")).unwrap();
                    for entry in fs::read_dir(index(&root).join("open")).unwrap() {
                        fs::remove_file(entry.unwrap().path().join("db")).unwrap();
                    }
                })
                .await;
            }
            Step::DamageRun(place) => {
                store.settled().await;
                if let Some(path) = runs(&root).first() {
                    change_octet(path, *place);
                }
            }
            Step::RemoveRuns => {
                store = reopen(&root, store, || {
                    runs(&root)
                        .iter()
                        .for_each(|path| fs::remove_file(path).unwrap());
                })
                .await;
            }
        }
    }
    check(&store, &expected, reports.len()).await;
    close(store).await;
    let store = open_small(&root).await;
    check(&store, &expected, reports.len()).await;
    // Damage that no query met is found, and mended.
    let damaged = steps.iter().any(|step| matches!(step, Step::DamageRun(_)));
    assert!(verify(&store).await == 0 || damaged);
    assert_eq!(verify(&store).await, 0);
    close(store).await;
}

/// How much is wrong.
async fn verify(store: &Store) -> usize {
    let store = store.clone();
    let verified = tokio::task::spawn_blocking(move || store.verify(true).unwrap());
    verified.await.unwrap().findings.len()
}

async fn check(store: &Store, expected: &BTreeMap<u64, BTreeSet<String>>, reports: usize) {
    let all = find(store, Query::default()).await;
    assert_eq!(all.len(), expected.len());
    assert!(
        all.is_sorted_by(|a, b| a.received >= b.received),
        "newest first"
    );
    assert_eq!(
        all.iter().map(|record| record.reports).sum::<u64>(),
        reports as u64
    );
    for (message, recipients) in expected {
        let id = MessageId::new(&format!("m{message}@sender.example"));
        let by_id = find(
            store,
            Query {
                message_id: id.clone(),
                ..Query::default()
            },
        )
        .await;
        assert_eq!(by_id.len(), 1);
        assert_eq!(addresses(&by_id[0]), recipients.iter().collect::<Vec<_>>());
        for who in recipients {
            let by_recipient = find(
                store,
                Query {
                    recipient: Some(address(who)),
                    ..Query::default()
                },
            )
            .await;
            assert!(
                by_recipient.iter().any(|record| record.message_id == id),
                "{message} to {who}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]
    /// Any order of reports, stops, crashes and damage gives the same answers.
    #[test]
    fn everything_kept_is_found(steps in proptest::collection::vec(step(), 1..32)) {
        tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
    }
}

#[tokio::test]
async fn a_run_that_the_disk_changed_is_made_again_by_the_query_that_meets_it() {
    let root = tempfile::tempdir().unwrap();
    let store = open_small(root.path()).await;
    for message in 0..12 {
        keep(&store, report(message, 1, &["ana@x.example"])).await;
    }
    let store = reopen(root.path(), store, || {}).await;
    store.settled().await;
    let sealed = runs(root.path());
    assert!(sealed.len() >= 2, "{sealed:?}");
    // The first block begins after the head.
    change_octet(&sealed[0], 20);
    assert_eq!(find(&store, Query::default()).await.len(), 12);
    assert_eq!(verify(&store).await, 0, "it was made again");
    change_octet(&sealed[1], 20);
    assert_eq!(verify(&store).await, 1, "verify sees it");
    assert_eq!(verify(&store).await, 0, "and made it again");
    close(store).await;
}

#[tokio::test]
async fn an_index_of_another_key_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let store = open_small(root.path()).await;
    for message in 0..6 {
        keep(&store, report(message, 1, &["ana@x.example"])).await;
    }
    let store = reopen(root.path(), store, || {
        fs::remove_file(root.path().join("store.key")).unwrap();
    })
    .await;
    let query = Query {
        recipient: Some(address("ana@x.example")),
        ..Query::default()
    };
    assert_eq!(find(&store, query).await.len(), 6);
    close(store).await;
}

#[tokio::test]
async fn reindexing_makes_everything_from_the_log() {
    let root = tempfile::tempdir().unwrap();
    let store = open_small(root.path()).await;
    for message in 0..9 {
        keep(&store, report(message, 1, &["ana@x.example"])).await;
    }
    let options = small(root.path());
    let again = options.clone();
    let refused = tokio::task::spawn_blocking(move || Store::reindex(again))
        .await
        .unwrap();
    assert!(refused.unwrap_err().to_string().contains("in use"));
    close(store).await;
    let stats = tokio::task::spawn_blocking(move || Store::reindex(options))
        .await
        .unwrap();
    assert_eq!(stats.unwrap().reports, 9);
    let store = open_small(root.path()).await;
    assert_eq!(find(&store, Query::default()).await.len(), 9);
    close(store).await;
}
