//! Where the audit log begins and ends, in a small file beside it, so that a cut shows.
//!
//! Two slots of 512 octets, written in turn: a crash while one is written leaves the other. Little
//! endian: magic `CLAWHEAD`, version u32, counter u64, seq u64 and hash (32) of the last entry, seq
//! u64 of the first entry and hash (32) of the one before it; zeros; HMAC-SHA256 (32) over the rest.
//!
//! The file is written after each sync of the log, so it is never ahead of it; its own sync may be
//! later, so after a power cut it may be behind, which is no sign of tampering.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::hmac;

use super::AuditError;
use super::entry::{HASH_OCTETS, Hash, sign};
use crate::segment::{SegmentError, create_dir_durable, fsync_dir};

const FILE_NAME: &str = "head";
const MAGIC: &[u8; 8] = b"CLAWHEAD";
const VERSION: u32 = 1;
const SLOT_OCTETS: usize = 512;

/// First and last entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Last entry; 0: there is none.
    pub(super) seq: u64,
    pub(super) hash: Hash,
    /// First entry that retention has left.
    pub(super) first: u64,
    /// Hash of the entry before it.
    pub(super) before_first: Hash,
}

impl Head {
    /// That of a log without entries.
    pub(super) const EMPTY: Self = Self {
        seq: 0,
        hash: Hash([0; HASH_OCTETS]),
        first: 1,
        before_first: Hash([0; HASH_OCTETS]),
    };
}

/// What the file says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) head: Head,
    counter: u64,
    /// Both slots are right.
    pub(super) whole: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
    counter: u64,
}

impl HeadFile {
    /// Makes the file, durably, in place of one that is missing or useless.
    pub(super) fn create(directory: &Path, key: &hmac::Key, head: &Head) -> io::Result<Self> {
        create_dir_durable(directory)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(directory.join(FILE_NAME))?;
        let slots = [encode(key, 0, head), encode(key, 1, head)].concat();
        file.write_all_at(&slots, 0)?;
        file.sync_all()?;
        fsync_dir(directory)?;
        Ok(Self { file, counter: 1 })
    }

    /// Opens the file that [`read`] found.
    pub(super) fn open(directory: &Path, found: &Found) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(directory.join(FILE_NAME))?;
        let counter = found.counter;
        Ok(Self { file, counter })
    }

    pub(super) fn write(&mut self, key: &hmac::Key, head: &Head) -> io::Result<()> {
        let counter = self.counter + 1;
        let slot = encode(key, counter, head);
        self.file.write_all_at(&slot, place(counter))?;
        self.counter = counter;
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The newest right slot; `None`: no file, or none of its slots is right.
///
/// # Errors
///
/// The file cannot be read, or a newer version wrote it: that is nothing to be mended.
pub(super) fn read(directory: &Path, key: &hmac::Key) -> Result<Option<Found>, AuditError> {
    let path = directory.join(FILE_NAME);
    let octets = match std::fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|source| AuditError::Io {
            path: path.clone(),
            source: Arc::new(source),
        })?,
    };
    let mut slots = Vec::new();
    for slot in octets.chunks(SLOT_OCTETS) {
        slots.push(match decode(key, slot) {
            Some(Slot::Head(counter, head)) => Some((counter, head)),
            Some(Slot::Newer(found)) => {
                let known = VERSION;
                return Err(SegmentError::NewerFormat { path, found, known }.into());
            }
            None => None,
        });
    }
    let in_place = |(at, slot): (u64, &Option<(u64, Head)>)| {
        slot.filter(|(counter, _)| place(*counter) == at * slot_octets())
    };
    let right: Vec<_> = (0..).zip(&slots).filter_map(in_place).collect();
    let whole = slots.len() == 2 && right.len() == 2;
    let newest = right.into_iter().max_by_key(|(counter, _)| *counter);
    Ok(newest.map(|(counter, head)| Found {
        head,
        counter,
        whole,
    }))
}

fn slot_octets() -> u64 {
    u64::try_from(SLOT_OCTETS).unwrap_or(u64::MAX)
}

fn place(counter: u64) -> u64 {
    (counter % 2) * slot_octets()
}

fn encode(key: &hmac::Key, counter: u64, head: &Head) -> Vec<u8> {
    let mut out = Vec::with_capacity(SLOT_OCTETS);
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&counter.to_le_bytes());
    out.extend_from_slice(&head.seq.to_le_bytes());
    out.extend_from_slice(&head.hash.0);
    out.extend_from_slice(&head.first.to_le_bytes());
    out.extend_from_slice(&head.before_first.0);
    out.resize(SLOT_OCTETS - HASH_OCTETS, 0);
    let hash = sign(key, &out);
    out.extend_from_slice(&hash.0);
    out
}

/// What stands in a slot whose HMAC is right. Magic, version and HMAC stand at the same place in every version.
enum Slot {
    Head(u64, Head),
    Newer(u32),
}

fn decode(key: &hmac::Key, slot: &[u8]) -> Option<Slot> {
    let (body, hash) = slot.split_last_chunk::<HASH_OCTETS>()?;
    if slot.len() != SLOT_OCTETS || sign(key, body).0 != *hash {
        return None;
    }
    let body = body.strip_prefix(MAGIC)?;
    let (version, body) = body.split_first_chunk::<4>()?;
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return (version > VERSION).then_some(Slot::Newer(version));
    }
    let (counter, body) = body.split_first_chunk::<8>()?;
    let (seq, body) = body.split_first_chunk::<8>()?;
    let (hash, body) = body.split_first_chunk::<HASH_OCTETS>()?;
    let (first, body) = body.split_first_chunk::<8>()?;
    let (before_first, _) = body.split_first_chunk::<HASH_OCTETS>()?;
    let head = Head {
        seq: u64::from_le_bytes(*seq),
        hash: Hash(*hash),
        first: u64::from_le_bytes(*first),
        before_first: Hash(*before_first),
    };
    Some(Slot::Head(u64::from_le_bytes(*counter), head))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A newer version's file is neither taken for a forgery nor written over.
    #[test]
    fn a_newer_head_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
        let newer = |signed: bool| {
            let mut slot = encode(&key, 0, &Head::EMPTY);
            slot[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
            if signed {
                slot.truncate(SLOT_OCTETS - HASH_OCTETS);
                let hash = sign(&key, &slot);
                slot.extend_from_slice(&hash.0);
            }
            std::fs::write(root.path().join(FILE_NAME), slot).unwrap();
            read(root.path(), &key)
        };
        let refused = newer(true).unwrap_err().to_string();
        assert!(refused.contains("format 2"), "{refused}");
        assert!(newer(false).unwrap().is_none(), "anybody could write this");
    }
}
