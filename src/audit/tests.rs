//! What is done to the files shows.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::segment::{HEADER_OCTETS, Segment};

fn key() -> StoreKey {
    StoreKey::from_octets([3; 32])
}

fn entry(number: u32) -> Entry {
    Entry {
        at: Timestamp::from_second(1_700_000_000 + i64::from(number) * 86_400).unwrap(),
        who: "ana".to_owned(),
        uid: Some(1000),
        action: Action::Intent,
        job: Some("job_1".to_owned()),
        message_id: Some(format!("{number}@x.example")),
        mailbox: None,
        detail: None,
    }
}

fn append(audit: &Audit, numbers: std::ops::Range<u32>) {
    for number in numbers {
        audit.append(vec![entry(number)]).unwrap();
    }
}

fn broken(root: &Path) -> Option<Broken> {
    verify(root, &key(), &[]).unwrap().broken
}

fn seqs(root: &Path) -> Vec<u64> {
    show(root).unwrap().map(|r| r.unwrap().seq).collect()
}

/// 60 days in files of a few entries.
fn sample(root: &Path) {
    let audit = Audit::open_with(root, &key(), 6600).unwrap();
    append(&audit, 0..60);
}

fn files(root: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    paths.sort();
    paths
}

#[test]
fn entries_come_back_in_order_and_the_chain_holds() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("audit");
    assert_eq!(broken(&root), None);
    sample(&root);
    let audit = Audit::open(&root, &key()).unwrap();
    append(&audit, 60..70);
    let shown: Vec<_> = audit.show().map(Result::unwrap).collect();
    assert_eq!(seqs(&root), (1..=70).collect::<Vec<_>>());
    let entries: Vec<_> = shown.iter().map(|r| r.entry.clone()).collect();
    assert_eq!(entries, (0..70).map(entry).collect::<Vec<_>>());
    let verified = verify(&root, &key(), &[]).unwrap();
    assert_eq!((verified.entries, &verified.broken), (70, &None));
    assert_eq!(verified.head, audit.head());
    let document = serde_json::to_value(&shown[0]).unwrap();
    assert_eq!(
        document,
        serde_json::json!({"seq": 1, "at": "2023-11-14T22:13:20Z", "who": "ana", "uid": 1000,
            "action": "intent", "job": "job_1", "message_id": "0@x.example", "mailbox": null,
            "detail": null, "hash": shown[0].hash.to_string()})
    );
}

#[test]
fn threads_share_the_chain() {
    let root = tempfile::tempdir().unwrap();
    let audit = Audit::open(root.path(), &key()).unwrap();
    thread::scope(|scope| {
        for worker in 0..8 {
            let audit = &audit;
            scope.spawn(move || append(audit, worker * 100..worker * 100 + 50));
        }
    });
    assert_eq!(verify(root.path(), &key(), &[]).unwrap().entries, 400);
    assert_eq!(broken(root.path()), None);
}

#[test]
fn a_cut_tail_shows_for_good() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let audit = Audit::open(root, &key()).unwrap();
    append(&audit, 0..3);
    let path = files(root)[0].clone();
    let short = fs::read(&path).unwrap();
    append(&audit, 3..5);
    drop(audit);
    fs::write(&path, short).unwrap();
    let cut = Broken::Cut { last: 3, head: 5 };
    assert_eq!(broken(root), Some(cut.clone()));

    let audit = Audit::open(root, &key()).unwrap();
    assert_eq!(audit.finding(), Some(&cut));
    append(&audit, 5..6);
    let Some(Broken::Missing {
        seq: 4, found: 6, ..
    }) = broken(root)
    else {
        panic!("{:?}", broken(root));
    };
    assert_eq!(seqs(root), [1, 2, 3, 6, 7]);
}

#[test]
fn a_removed_head_shows_for_good() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    append(&Audit::open(root, &key()).unwrap(), 0..3);
    fs::remove_file(root.join("head")).unwrap();
    assert_eq!(broken(root), Some(Broken::Head));
    append(&Audit::open(root, &key()).unwrap(), 3..4);
    assert_eq!(broken(root), Some(Broken::Finding { seq: 4 }));
}

#[test]
fn an_earlier_state_of_everything_shows_by_a_head_from_elsewhere() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let audit = Audit::open(root, &key()).unwrap();
    append(&audit, 0..3);
    let earlier: Vec<_> = files(root)
        .into_iter()
        .map(|p| (fs::read(&p).unwrap(), p))
        .collect();
    append(&audit, 3..5);
    let head = audit.head();
    assert_eq!(parse_known(&format!("{}:{}", head.0, head.1)), Ok(head));
    assert_eq!(verify(root, &key(), &[head]).unwrap().broken, None);
    drop(audit);
    for (content, path) in earlier {
        fs::write(path, content).unwrap();
    }
    assert_eq!(broken(root), None);
    assert_eq!(
        verify(root, &key(), &[head]).unwrap().broken,
        Some(Broken::Cut { last: 3, head: 5 })
    );
}

/// Whoever is told that durable entries failed would append them again, for as long as the head file's
/// sector is bad.
#[test]
fn a_head_that_cannot_be_written_fails_no_entry() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("audit");
    let audit = Audit::open(&root, &key()).unwrap();
    append(&audit, 0..1);
    let found = head::read(&root, &audit_key(&key())).unwrap().unwrap();
    let full = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", full.path().join("head")).unwrap();
    lock(&audit.chain).file = Some(HeadFile::open(full.path(), &found).unwrap());
    append(&audit, 1..3);
    assert!(audit.tell_head().is_err());
    let named = |root: &Path| head::read(root, &audit_key(&key())).unwrap().unwrap();
    assert_eq!(named(&root).head.seq, 1);
    assert_eq!((broken(&root), seqs(&root)), (None, vec![1, 2, 3]));
    lock(&audit.chain).file = Some(HeadFile::open(&root, &found).unwrap());
    audit.tell_head().unwrap();
    assert_eq!(named(&root).head.seq, 3);
}

#[test]
fn retention_may_cut_the_beginning_and_nobody_else() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    sample(root);
    let audit = Audit::open(root, &key()).unwrap();
    assert_eq!(audit.expire(entry(0).at).unwrap(), 0);
    assert_eq!(audit.expire(entry(30).at).unwrap(), 1);
    assert_eq!(seqs(root).first(), Some(&18));
    assert_eq!(broken(root), None);
    append(&audit, 60..61);
    assert_eq!(broken(root), None);
    fs::remove_file(&files(root)[0]).unwrap();
    let Some(Broken::Beginning { first: 18, .. }) = broken(root) else {
        panic!("{:?}", broken(root));
    };
}

#[test]
fn another_key_proves_nothing() {
    let root = tempfile::tempdir().unwrap();
    sample(root.path());
    let other = StoreKey::from_octets([4; 32]);
    let verified = verify(root.path(), &other, &[]).unwrap();
    assert!(matches!(
        verified.broken,
        Some(Broken::Changed { seq: 1, .. })
    ));
}

/// What somebody without the key may do.
#[derive(Debug, Clone)]
enum Tampering {
    /// One octet of a file.
    Octet {
        file: prop::sample::Index,
        at: prop::sample::Index,
        flip: u8,
    },
    /// One octet less.
    OctetRemoved {
        file: prop::sample::Index,
        at: prop::sample::Index,
    },
    /// The rest are done with the checksums of the frames set right.
    EntryChanged {
        entry: prop::sample::Index,
        at: prop::sample::Index,
        flip: u8,
    },
    EntryRemoved {
        entry: prop::sample::Index,
    },
    EntriesSwapped {
        one: prop::sample::Index,
        other: prop::sample::Index,
    },
    EntryRepeated {
        entry: prop::sample::Index,
        at: prop::sample::Index,
    },
    FileRemoved {
        file: prop::sample::Index,
    },
}

fn tamperings() -> impl Strategy<Value = Tampering> {
    use Tampering::*;
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => (index(), index(), 1u8..).prop_map(|(file, at, flip)| Octet { file, at, flip }),
        2 => (index(), index()).prop_map(|(file, at)| OctetRemoved { file, at }),
        8 => (index(), index(), 1u8..).prop_map(|(entry, at, flip)| EntryChanged { entry, at, flip }),
        2 => index().prop_map(|entry| EntryRemoved { entry }),
        2 => (index(), index()).prop_map(|(one, other)| EntriesSwapped { one, other }),
        2 => (index(), index()).prop_map(|(entry, at)| EntryRepeated { entry, at }),
        1 => index().prop_map(|file| FileRemoved { file }),
    ]
}

/// The frames of one segment file.
fn frames(path: &Path) -> Vec<Frame> {
    let segment = Segment::open(path, PURPOSE).unwrap();
    let end = segment.length().unwrap();
    let scanned = segment.frames(0, end, crate::segment::Tail::Damaged);
    scanned
        .map(|s| match s.unwrap() {
            crate::segment::Scanned::Frame { frame, .. } => frame,
            other => panic!("{other:?}"),
        })
        .collect()
}

/// Writes the frames anew, in as many files and with as many in each as before.
fn put_frames(root: &Path, mut all: Vec<Frame>) {
    let logs: Vec<_> = files(root)
        .into_iter()
        .filter(|p| p.extension().is_some())
        .collect();
    for (index, path) in logs.iter().enumerate() {
        let last = index + 1 == logs.len();
        let count = if last {
            all.len()
        } else {
            frames(path).len().min(all.len())
        };
        let own: Vec<_> = all.drain(..count).collect();
        let segment = Segment::open(path, PURPOSE).unwrap();
        segment.truncate_to(HEADER_OCTETS).unwrap();
        segment.write(HEADER_OCTETS, &own).unwrap();
    }
}

/// Does it; `false` if it changed nothing.
fn tamper(root: &Path, tampering: &Tampering) -> bool {
    let logs: Vec<_> = files(root);
    let mut all: Vec<Frame> = logs
        .iter()
        .filter(|p| p.extension().is_some())
        .flat_map(|p| frames(p))
        .collect();
    let before = all.clone();
    match tampering {
        Tampering::Octet { file, at, flip } => {
            let path = &logs[file.index(logs.len())];
            let mut octets = fs::read(path).unwrap();
            let at = at.index(octets.len());
            octets[at] ^= flip;
            fs::write(path, octets).unwrap();
            return true;
        }
        Tampering::OctetRemoved { file, at } => {
            let path = &logs[file.index(logs.len())];
            let mut octets = fs::read(path).unwrap();
            octets.remove(at.index(octets.len()));
            fs::write(path, octets).unwrap();
            return true;
        }
        Tampering::FileRemoved { file } => {
            fs::remove_file(&logs[file.index(logs.len())]).unwrap();
            return true;
        }
        Tampering::EntryChanged { entry, at, flip } => {
            let entry = entry.index(all.len());
            let payload = &mut all[entry].payload;
            let at = at.index(payload.len());
            payload[at] ^= flip;
        }
        Tampering::EntryRemoved { entry } => {
            all.remove(entry.index(all.len()));
        }
        Tampering::EntriesSwapped { one, other } => {
            let (one, other) = (one.index(all.len()), other.index(all.len()));
            all.swap(one, other);
        }
        Tampering::EntryRepeated { entry, at } => {
            let frame = all[entry.index(all.len())].clone();
            all.insert(at.index(all.len()), frame);
        }
    }
    let changed = all != before;
    put_frames(root, all);
    changed
}

#[test]
fn ten_thousand_tamperings_are_all_found() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let audit = Audit::open_with(root, &key(), 5600).unwrap();
    append(&audit, 0..20);
    drop(audit);
    assert!(
        files(root).len() >= 4,
        "two months, the first in several files, and the head"
    );
    let original: Vec<_> = files(root)
        .into_iter()
        .map(|p| (fs::read(&p).unwrap(), p))
        .collect();
    let config = Config {
        cases: 10_000,
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&tamperings(), |tampering| {
        let changed = tamper(root, &tampering);
        let verified = verify(root, &key(), &[]);
        let shows = verified.as_ref().map_or(true, |v| v.broken.is_some());
        for (content, path) in &original {
            if fs::read(path).ok().as_ref() != Some(content) {
                fs::write(path, content).unwrap();
            }
        }
        prop_assert_eq!(shows, changed, "{:?}", verified);
        Ok(())
    });
    result.unwrap();
    assert_eq!(broken(root), None, "restored");
}
