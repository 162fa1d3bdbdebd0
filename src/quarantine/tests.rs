//! Items come back as they were, changed ones do not, and the bound holds.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::mail::TenantName;

const MIB: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);

fn key() -> StoreKey {
    StoreKey::from_octets([5; 32])
}

fn open(root: &Path, capacity: u64) -> Quarantine {
    Quarantine::open(root, &key(), capacity, 30 * DAY).unwrap()
}

fn meta(second: i64) -> Meta {
    Meta {
        tenant: TenantName::new("contoso"),
        received: Timestamp::from_second(second).unwrap(),
        peer: "192.0.2.1".to_owned(),
        kind: "malformed".to_owned(),
        reason: "no envelope".to_owned(),
        message_id: Some("a@x.example".to_owned()),
        facts: BTreeMap::new(),
    }
}

fn content(octets: usize) -> Vec<u8> {
    (0..octets).map(|n| (n % 251).to_le_bytes()[0]).collect()
}

fn put(quarantine: &Quarantine, second: i64, octets: &[u8]) -> Result<ItemId, QuarantineError> {
    let mut writer = quarantine.begin(meta(second))?;
    for piece in octets.chunks(10_000) {
        writer.write(piece)?;
    }
    writer.finish()
}

fn take(quarantine: &Quarantine, id: ItemId) -> io::Result<Vec<u8>> {
    let mut read = Vec::new();
    let mut content = quarantine.read(id).map_err(io::Error::other)?;
    content.read_to_end(&mut read)?;
    Ok(read)
}

#[test]
fn items_come_back_whatever_their_size() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("quarantine");
    let quarantine = open(&root, MIB);
    let sizes = [
        0,
        1,
        CHUNK_OCTETS - 1,
        CHUNK_OCTETS,
        CHUNK_OCTETS + 1,
        3 * CHUNK_OCTETS,
    ];
    let ids = sizes.map(|size| put(&quarantine, 1, &content(size)).unwrap());
    for quarantine in [quarantine, open(&root, MIB)] {
        for (id, size) in ids.into_iter().zip(sizes) {
            assert_eq!(take(&quarantine, id).unwrap(), content(size), "{size}");
            assert_eq!(quarantine.show(id).unwrap().size, count(size));
        }
        let on_disk: u64 = fs::read_dir(&root)
            .unwrap()
            .map(|f| f.unwrap().metadata().unwrap().len())
            .sum();
        assert_eq!(quarantine.bytes(), on_disk);
    }
}

#[test]
fn an_item_is_listed_with_its_facts_and_its_file_tells_nothing() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().join("quarantine");
    let quarantine = open(&root, MIB);
    let later = put(&quarantine, 2, b"the content").unwrap();
    let first = put(&quarantine, 1, b"the content").unwrap();
    let listed: Vec<_> = quarantine.list().iter().map(|item| item.id).collect();
    assert_eq!(listed, [first, later]);
    let document = serde_json::to_value(quarantine.show(first).unwrap()).unwrap();
    assert_eq!(
        document,
        serde_json::json!({"id": first.to_string(), "tenant": "contoso", "received": "1970-01-01T00:00:01Z",
            "peer": "192.0.2.1", "kind": "malformed", "reason": "no envelope", "size": 11,
            "message_id": "a@x.example", "facts": {}})
    );
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&root), 0o700);
    for file in fs::read_dir(&root).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600);
        let octets = fs::read(&path).unwrap();
        for secret in [&b"the content"[..], b"contoso", b"a@x.example"] {
            assert!(!octets.windows(secret.len()).any(|window| window == secret));
        }
    }
}

#[test]
fn names_are_safe_and_read_what_they_say() {
    let id = ItemId::from_octets([0xff; 10]);
    assert_eq!(id.to_string(), "q_7777777777777777");
    assert_eq!(id.to_string().parse(), Ok(id));
    for text in [
        "q_",
        "7777777777777777",
        "q_77777777777777777",
        "q_../../etc/passwd",
    ] {
        assert_eq!(text.parse::<ItemId>(), Err(ItemIdError), "{text}");
    }
}

#[test]
fn a_changed_or_cut_file_gives_nothing_false() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let quarantine = open(root, 10 * MIB);
    let original = content(3 * CHUNK_OCTETS);
    let id = put(&quarantine, 1, &original).unwrap();
    let path = root.join(format!("{id}.item"));
    let file = fs::read(&path).unwrap();
    let chunk = CHUNK_OCTETS + TAG_OCTETS;
    let mut swapped = file.clone();
    swapped[44..44 + 2 * chunk].rotate_left(chunk);
    let mut without_last = file.clone();
    without_last.drain(44 + 2 * chunk..44 + 3 * chunk);
    let mut cases = vec![
        ("chunks swapped", swapped),
        ("last chunk removed", without_last),
        ("end cut", file[..file.len() - 1].to_vec()),
        ("empty", Vec::new()),
    ];
    for at in [0, 9, 20, 44, 44 + chunk, file.len() - 100, file.len() - 1] {
        let mut changed = file.clone();
        changed[at] ^= 1;
        cases.push(("octet changed", changed));
    }
    for (name, octets) in cases {
        fs::write(&path, octets).unwrap();
        let mut read = Vec::new();
        let failed = match quarantine.read(id) {
            Ok(mut content) => content.read_to_end(&mut read).is_err(),
            Err(_) => true,
        };
        assert!(failed && original.starts_with(&read), "{name}");
    }
    fs::write(&path, &file[..10]).unwrap();
    let again = open(root, MIB);
    assert_eq!((again.unreadable().len(), again.bytes()), (1, 10));
    let other = StoreKey::from_octets([6; 32]);
    fs::write(&path, &file).unwrap();
    let other = Quarantine::open(root, &other, MIB, DAY).unwrap();
    assert_eq!(other.unreadable().len(), 1);
}

/// After a key was lost its items must not fill the quarantine for good.
#[test]
fn what_cannot_be_read_is_listed_dropped_and_expires() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for number in 0..2 {
        put(&open(root, MIB), number, b"of a key that is lost").unwrap();
    }
    let other = StoreKey::from_octets([6; 32]);
    let quarantine = Quarantine::open(root, &other, MIB, DAY).unwrap();
    let listed = quarantine.list();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|item| item.meta.kind == UNREADABLE));
    assert!(quarantine.read(listed[0].id).is_err());
    quarantine.drop(listed[0].id).unwrap();
    let written = listed[1].meta.received;
    assert_eq!(quarantine.expire(written).unwrap(), 0);
    let later = written.saturating_add(DAY * 2).unwrap();
    assert_eq!(quarantine.expire(later).unwrap(), 1);
    assert_eq!(
        (quarantine.bytes(), fs::read_dir(root).unwrap().count()),
        (0, 0)
    );
}

#[test]
fn the_capacity_is_a_bound_and_space_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let quarantine = open(root, 200_000);
    let id = put(&quarantine, 1, &content(100_000)).unwrap();
    let used = quarantine.bytes();
    let mut waiting = quarantine.begin(meta(2)).unwrap();
    waiting.write(&content(70_000)).unwrap();
    let error = put(&quarantine, 3, &content(100_000)).unwrap_err();
    assert!(matches!(error, QuarantineError::Full(_)), "{error}");
    assert!(quarantine.bytes() <= 200_000);
    drop(waiting);
    assert_eq!(quarantine.bytes(), used);
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
    quarantine.drop(id).unwrap();
    assert!(matches!(
        quarantine.drop(id),
        Err(QuarantineError::Unknown(_))
    ));
    assert_eq!(quarantine.bytes(), 0);
    put(&quarantine, 4, &content(100_000)).unwrap();
}

#[test]
fn old_items_expire_and_half_written_ones_vanish() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let quarantine = open(root, MIB);
    let day = 86_400;
    put(&quarantine, 0, b"old").unwrap();
    let young = put(&quarantine, 2 * day, b"young").unwrap();
    let now = Timestamp::from_second(31 * day).unwrap();
    assert_eq!(quarantine.expire(now).unwrap(), 1);
    fs::write(root.join("q_7777777777777777.part"), "half").unwrap();
    let again = open(root, MIB);
    assert_eq!(again.list(), quarantine.list());
    assert_eq!(again.list()[0].id, young);
    assert_eq!(fs::read_dir(root).unwrap().count(), 1);
}
