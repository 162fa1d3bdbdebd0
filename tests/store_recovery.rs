//! Whatever happens to the index, everything acknowledged is found; the log is the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clawback::index::{Options, Query, Store};
use clawback::mail::MessageId;
use proptest::prelude::*;

use crate::store_support::{address, addresses, close, find, keep, noon, options, report};

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
    /// The machine loses power: sled opens, its watermark is there, and some of its blocks are not.
    PowerLoss,
    /// The disk changes an octet of all sealed runs.
    DamageRuns(usize),
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
        1 => any::<usize>().prop_map(Step::DamageRuns),
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
                // The start has removed what it does not trust: a copy is not made in an instant.
                store.settled().await;
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
                        let sled = sled::open(entry.unwrap().path()).unwrap();
                        for block in sled.scan_prefix(b"e").keys() {
                            sled.remove(block.unwrap()).unwrap();
                        }
                        sled.flush().unwrap();
                    }
                })
                .await;
            }
            Step::DamageRuns(place) => {
                store.settled().await;
                runs(&root)
                    .iter()
                    .for_each(|path| change_octet(path, *place));
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
    let damaged = steps.iter().any(|step| matches!(step, Step::DamageRuns(_)));
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

/// All runs hold reports of one message: making one again asks the others, which are damaged too.
#[tokio::test]
async fn damage_in_all_runs_at_once_is_mended() {
    let root = tempfile::tempdir().unwrap();
    let store = open_small(root.path()).await;
    for number in 0..12 {
        keep(&store, report(0, number, &["ana@x.example"])).await;
    }
    let store = reopen(root.path(), store, || {}).await;
    store.settled().await;
    let sealed = runs(root.path());
    assert!(sealed.len() >= 2, "{sealed:?}");
    sealed.iter().for_each(|path| change_octet(path, 20));
    let found = find(&store, Query::default()).await;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].reports, 12);
    assert_eq!(verify(&store).await, 0);
    close(store).await;
}

/// Puts a file where the index wants to write, for as long as the returned value is kept.
struct Obstacle {
    path: PathBuf,
    aside: PathBuf,
}

impl Obstacle {
    fn new(path: PathBuf) -> Self {
        let aside = path.with_extension("aside");
        let _ = fs::rename(&path, &aside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "no directory").unwrap();
        Self { path, aside }
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        fs::remove_file(&self.path).unwrap();
        let _ = fs::rename(&self.aside, &self.path);
    }
}

/// Waits until the index answers.
async fn recovered(store: &Store) {
    let store = store.clone();
    let settled = tokio::task::spawn_blocking(move || {
        while store.settle().is_err() {
            std::thread::yield_now();
        }
    });
    settled.await.unwrap();
}

/// Waits until the index says why it does not answer.
async fn in_trouble(store: &Store) {
    let store = store.clone();
    let settled = tokio::task::spawn_blocking(move || {
        while store.settle().is_ok() {
            std::thread::yield_now();
        }
        store.search(&Query::default()).next().unwrap().unwrap_err()
    });
    let error = settled.await.unwrap().to_string();
    assert!(error.contains("made again as soon as possible"), "{error}");
}

/// An index that cannot be written, at the start or later, costs no report: all are kept meanwhile,
/// and found as soon as it can be written, without a restart.
#[tokio::test]
async fn an_index_that_cannot_be_written_recovers_by_itself() {
    let root = tempfile::tempdir().unwrap();
    let obstacle = Obstacle::new(index(root.path()));
    let store = open_small(root.path()).await;
    keep(&store, report(0, 1, &["ana@x.example"])).await;
    in_trouble(&store).await;
    keep(&store, report(1, 1, &["ana@x.example"])).await;
    drop(obstacle);
    recovered(&store).await;
    assert_eq!(find(&store, Query::default()).await.len(), 2);

    let obstacle = Obstacle::new(index(root.path()).join("open"));
    for message in 2..13 {
        keep(&store, report(message, 1, &["ana@x.example"])).await;
    }
    in_trouble(&store).await;
    keep(&store, report(13, 1, &["ana@x.example"])).await;
    drop(obstacle);
    recovered(&store).await;
    keep(&store, report(14, 1, &["ana@x.example"])).await;
    assert_eq!(find(&store, Query::default()).await.len(), 15);
    assert_eq!(verify(&store).await, 0);
    close(store).await;
}

#[tokio::test]
async fn a_partition_that_could_not_be_sealed_is_sealed_later() {
    let root = tempfile::tempdir().unwrap();
    let store = open_small(root.path()).await;
    keep(&store, report(0, 1, &["ana@x.example"])).await;
    store.settled().await;
    let obstacle = Obstacle::new(index(root.path()).join("run"));
    // The second partition that is closed waits for the sealing of the first.
    for message in 1..10 {
        keep(&store, report(message, 1, &["ana@x.example"])).await;
    }
    store.settled().await;
    drop(obstacle);
    let again = store.clone();
    let expired = tokio::task::spawn_blocking(move || again.expire(noon()).unwrap());
    assert_eq!(expired.await.unwrap().partitions, 0);
    let stats = store.stats();
    let sealed = stats.partitions.iter().filter(|p| p.state == "sealed");
    assert_eq!(sealed.count(), 2, "{stats:?}");
    assert_eq!(find(&store, Query::default()).await.len(), 10);
    close(store).await;
}

/// Changes an octet of the frame that holds this text.
fn damage_frame(segment: &Path, text: &str) {
    let octets = fs::read(segment).unwrap();
    let found = octets
        .windows(text.len())
        .position(|window| window == text.as_bytes());
    change_octet(segment, found.unwrap());
}

/// A report that the disk lost costs neither the message's other reports nor the index, and a retry of
/// it is taken.
#[tokio::test]
async fn an_unreadable_report_costs_nothing_but_itself() {
    let root = tempfile::tempdir().unwrap();
    let store = open_small(root.path()).await;
    for message in 0..4 {
        keep(&store, report(message, 1, &["ana@x.example"])).await;
    }
    keep(&store, report(0, 2, &["bo@x.example"])).await;
    let store = reopen(root.path(), store, || {
        let segment = root.path().join("data/log/00000001-0001.log");
        damage_frame(&segment, "r0-1@journal");
    })
    .await;
    let m0 = || MessageId::new("m0@sender.example").unwrap();
    let by_id = |store: &Store| {
        let store = store.clone();
        tokio::task::spawn_blocking(move || store.by_message_id(None, &m0()).unwrap())
    };
    let found = by_id(&store).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(addresses(&found[0]), ["bo@x.example"]);
    let problems = found[0].problems.join(" ");
    assert!(problems.contains("cannot be read"), "{problems}");

    keep(&store, report(0, 1, &["ana@x.example"])).await;
    let store = reopen(root.path(), store, || {}).await;
    let found = by_id(&store).await.unwrap();
    assert_eq!(addresses(&found[0]), ["ana@x.example", "bo@x.example"]);
    close(store).await;
}

/// What sled makes of noise, an error or a panic, the store makes its index again.
#[tokio::test]
async fn an_open_index_of_noise_is_made_again() {
    let root = tempfile::tempdir().unwrap();
    let mut store = open_small(root.path()).await;
    keep(&store, report(0, 1, &["ana@x.example"])).await;
    for (name, at) in [
        ("db", 0),
        ("db", 600),
        ("conf", 0),
        ("snap", 0),
        ("snap", 20),
    ] {
        store = reopen(root.path(), store, || {
            let open = index(root.path()).join("open/00000001");
            let mut files = fs::read_dir(open)
                .unwrap()
                .map(|entry| entry.unwrap().path());
            let is = |path: &PathBuf| {
                path.file_name()
                    .unwrap()
                    .to_str()
                    .unwrap()
                    .starts_with(name)
            };
            let Some(file) = files.find(is) else { return };
            let mut octets = fs::read(&file).unwrap();
            octets
                .iter_mut()
                .skip(at)
                .take(4096)
                .for_each(|octet| *octet ^= 0x5a);
            fs::write(file, octets).unwrap();
        })
        .await;
        assert_eq!(find(&store, Query::default()).await.len(), 1, "{name} {at}");
    }
    close(store).await;
}
