//! A value that survives: every change is on stable storage before it counts.
//!
//! The value lives in memory. Changes are appended to a log as JSON, one frame an append; when the log
//! has outgrown the value, the whole value is written as a snapshot and the log before it is removed.
//!
//! ```text
//! 00000003.snapshot     everything that partitions below 3 of the log said
//! 00000003-0001.log     the changes since
//! ```
//!
//! A snapshot is taken in this order: the log goes on in a new partition, the snapshot gets its name
//! durably, what it covers is removed. A crash, or a full disk, after any step leaves a snapshot and
//! all changes after it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tracing::warn;

use crate::segment::{
    AppendError, Event, Frame, Log, MAX_PAYLOAD, Position, Purpose, SegmentError, Writer,
    create_dir_durable, fsync_dir, write_file_durable,
};

/// The only kind of frame: a JSON array of changes.
const CHANGES: u8 = 1;
/// Before the log has this many octets no snapshot is taken by itself.
const SNAPSHOT_FLOOR: u64 = 1 << 20;
const SNAPSHOT_MAGIC: &[u8; 8] = b"CLAWSNAP";

/// A value that is the sum of its changes.
pub trait Fold: Default {
    /// Tag and version in the header of the files.
    const PURPOSE: Purpose;
    /// One change.
    type Change: Serialize + DeserializeOwned;
    /// The whole value, as it is written to a snapshot.
    type Snapshot: Serialize + DeserializeOwned;

    /// Applies a change. The same changes in the same order always give the same value.
    fn apply(&mut self, change: Self::Change);

    /// The value, for a snapshot.
    fn snapshot(&self) -> Self::Snapshot;

    /// The value that a snapshot holds.
    fn restore(snapshot: Self::Snapshot) -> Self;
}

/// Why state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A change was not written; the value is as before.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later version of clawback wrote the snapshot.
    #[error(
        "{}: written in format {found}, this version reads up to {known}; \
         run the version that wrote it (nothing was changed)",
        path.display()
    )]
    NewerFormat {
        /// The snapshot.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The highest version that this program reads.
        known: u32,
    },
    /// The snapshot is damaged: what it covers is gone from the log.
    #[error("{}: damaged; restore the state directory from a backup", path.display())]
    Snapshot {
        /// The snapshot.
        path: PathBuf,
    },
    /// A whole frame or snapshot does not hold what it should.
    #[error("{}: {what} cannot be read: {source}", path.display())]
    Decode {
        /// File or directory.
        path: PathBuf,
        /// `snapshot`, or the place of the change.
        what: String,
        /// What the decoder said.
        source: serde_json::Error,
    },
}

/// A [`Fold`] in memory, with its log.
#[derive(Debug)]
pub struct StateLog<T> {
    value: T,
    writer: Writer,
    since_snapshot: u64,
    snapshot_octets: u64,
    damage: Vec<String>,
}

impl<T: Fold> StateLog<T> {
    /// Reads snapshot and log. Nothing is written, so that a start on a full disk succeeds.
    ///
    /// # Errors
    ///
    /// [`StateError`]: better no start than one without a hold or a job. Damage of the log is none:
    /// see [`damage`](Self::damage).
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let (generation, value, snapshot_octets) = match newest_snapshot(directory)? {
            Some(generation) => read_snapshot::<T>(directory, generation)?,
            None => (1, T::default(), 0),
        };
        let log = Arc::new(Log::open(directory, T::PURPOSE)?);
        let mut opened = Self {
            value,
            writer: Writer::new(Arc::clone(&log), generation),
            since_snapshot: 0,
            snapshot_octets,
            damage: Vec::new(),
        };
        for partition in log.partitions() {
            if partition >= generation {
                opened.replay(partition)?;
            }
        }
        Ok(opened)
    }

    /// Writes the changes, then applies them. They are on stable storage when this returns, and after
    /// a crash all of them are there or none (unless together they are over 16 MiB).
    ///
    /// # Errors
    ///
    /// [`StateError`]: nothing changed. The next append tries anew.
    pub fn append(&mut self, changes: Vec<T::Change>) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        let mut frames = Vec::with_capacity(1);
        encode(&changes, &mut frames).map_err(|source| StateError::Decode {
            path: self.directory().to_owned(),
            what: "a change".to_owned(),
            source,
        })?;
        self.writer.append(&frames)?;
        for change in changes {
            self.value.apply(change);
        }
        self.since_snapshot += frames.iter().map(octets).sum::<u64>();
        if self.since_snapshot > SNAPSHOT_FLOOR.max(self.snapshot_octets.saturating_mul(2)) {
            // The changes are safe; only the log grows for longer than it should.
            if let Err(error) = self.snapshot() {
                warn!(%error, "no snapshot of the state was taken");
            }
        }
        Ok(())
    }

    /// Writes the whole value and removes the log before it. [`append`](Self::append) does it when
    /// it pays.
    ///
    /// # Errors
    ///
    /// [`StateError`]; value and log are as they were.
    pub fn snapshot(&mut self) -> Result<(), StateError> {
        let generation = self.writer.partition() + 1;
        let path = snapshot_path(self.directory(), generation);
        let content = encode_snapshot(&self.value).map_err(|source| StateError::Decode {
            path: path.clone(),
            what: "the snapshot".to_owned(),
            source,
        })?;
        // From here on changes go behind the snapshot, whether it gets its name or not.
        self.writer.rotate(generation);
        self.since_snapshot = 0;
        self.snapshot_octets = u64::try_from(content.len()).unwrap_or(u64::MAX);
        create_dir_durable(self.directory())
            .and_then(|()| write_file_durable(&path, &content))
            .map_err(|source| StateError::Io { path, source })?;
        self.remove_before(generation)
    }

    /// The value.
    pub const fn value(&self) -> &T {
        &self.value
    }

    /// What could not be read of the log: for a warning at the start, and for `store verify`.
    pub fn damage(&self) -> &[String] {
        &self.damage
    }

    fn replay(&mut self, partition: u32) -> Result<(), StateError> {
        for event in self.writer.log().scan(Position::start_of(partition)) {
            match event? {
                Event::Frame(position, frame) => {
                    self.since_snapshot += octets(&frame);
                    for change in decode::<T>(self.directory(), position, &frame)? {
                        self.value.apply(change);
                    }
                }
                Event::Damage { position, length } => self.damage.push(format!(
                    "{} octets at {} of segment {}-{}",
                    length, position.offset, position.partition, position.segment
                )),
                Event::Unreadable { reason, .. } => self.damage.push(reason),
            }
        }
        Ok(())
    }

    /// Removes what the snapshot of this generation covers.
    fn remove_before(&self, generation: u32) -> Result<(), StateError> {
        let log = self.writer.log();
        for partition in log.partitions() {
            if partition < generation {
                log.drop_partition(partition)?;
            }
        }
        let directory = self.directory();
        let io = |source| StateError::Io {
            path: directory.to_owned(),
            source,
        };
        for old in snapshots(directory)? {
            if old < generation {
                fs::remove_file(snapshot_path(directory, old)).map_err(io)?;
            }
        }
        fsync_dir(directory).map_err(io)
    }

    fn directory(&self) -> &Path {
        self.writer.log().directory()
    }
}

fn octets(frame: &Frame) -> u64 {
    u64::try_from(frame.octets()).unwrap_or(u64::MAX)
}

/// One frame for all changes, or as few as they fit in.
fn encode<C: Serialize>(changes: &[C], frames: &mut Vec<Frame>) -> serde_json::Result<()> {
    let payload = serde_json::to_vec(changes)?;
    if payload.len() > MAX_PAYLOAD && changes.len() > 1 {
        let (first, second) = changes.split_at(changes.len() / 2);
        encode(first, frames)?;
        return encode(second, frames);
    }
    frames.push(Frame::new(CHANGES, payload));
    Ok(())
}

fn decode<T: Fold>(
    directory: &Path,
    position: Position,
    frame: &Frame,
) -> Result<Vec<T::Change>, StateError> {
    serde_json::from_slice(&frame.payload).map_err(|source| StateError::Decode {
        path: directory.to_owned(),
        what: format!(
            "the change at {} of segment {}-{}",
            position.offset, position.partition, position.segment
        ),
        source,
    })
}

/// `CLAWSNAP`, version u32, crc32 u32 of the JSON, the JSON.
fn encode_snapshot<T: Fold>(value: &T) -> serde_json::Result<Vec<u8>> {
    let json = serde_json::to_vec(&value.snapshot())?;
    let mut content = Vec::with_capacity(json.len() + 16);
    content.extend_from_slice(SNAPSHOT_MAGIC);
    content.extend_from_slice(&T::PURPOSE.version.to_le_bytes());
    content.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
    content.extend_from_slice(&json);
    Ok(content)
}

/// Generation, value and octets of a snapshot.
fn read_snapshot<T: Fold>(directory: &Path, generation: u32) -> Result<(u32, T, u64), StateError> {
    let path = snapshot_path(directory, generation);
    let content = fs::read(&path).map_err(|source| StateError::Io {
        path: path.clone(),
        source,
    })?;
    let damaged = || StateError::Snapshot { path: path.clone() };
    let rest = content.strip_prefix(SNAPSHOT_MAGIC).ok_or_else(damaged)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (crc, json) = rest.split_first_chunk::<4>().ok_or_else(damaged)?;
    let (found, known) = (u32::from_le_bytes(*version), T::PURPOSE.version);
    if found > known {
        return Err(StateError::NewerFormat { path, found, known });
    }
    if crc32fast::hash(json) != u32::from_le_bytes(*crc) {
        return Err(damaged());
    }
    let snapshot = serde_json::from_slice(json).map_err(|source| StateError::Decode {
        path: path.clone(),
        what: "the snapshot".to_owned(),
        source,
    })?;
    let octets = u64::try_from(content.len()).unwrap_or(u64::MAX);
    Ok((generation, T::restore(snapshot), octets))
}

fn snapshot_path(directory: &Path, generation: u32) -> PathBuf {
    directory.join(format!("{generation:08}.snapshot"))
}

fn newest_snapshot(directory: &Path) -> Result<Option<u32>, StateError> {
    Ok(snapshots(directory)?.into_iter().max())
}

/// Generations of the snapshots in a directory.
fn snapshots(directory: &Path) -> Result<Vec<u32>, StateError> {
    let io = |source| StateError::Io {
        path: directory.to_owned(),
        source,
    };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io)?,
    };
    let mut generations = Vec::new();
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let generation = name.to_str().and_then(|n| n.strip_suffix(".snapshot"));
        generations.extend(generation.and_then(|g| g.parse::<u32>().ok()));
    }
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps every number that was ever added.
    #[derive(Debug, Default, PartialEq)]
    struct Numbers(Vec<u64>);

    impl Fold for Numbers {
        const PURPOSE: Purpose = Purpose {
            tag: *b"numb",
            version: 1,
        };
        type Change = u64;
        type Snapshot = Vec<u64>;

        fn apply(&mut self, change: u64) {
            self.0.push(change);
        }
        fn snapshot(&self) -> Vec<u64> {
            self.0.clone()
        }
        fn restore(snapshot: Vec<u64>) -> Self {
            Self(snapshot)
        }
    }

    fn open(root: &Path) -> StateLog<Numbers> {
        StateLog::open(root).unwrap()
    }

    fn files(root: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn changes_survive_a_restart() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("state");
        let mut state = open(&root);
        state.append(vec![1, 2]).unwrap();
        state.append(vec![]).unwrap();
        state.append(vec![3]).unwrap();
        assert_eq!(open(&root).value(), &Numbers(vec![1, 2, 3]));
    }

    #[test]
    fn a_snapshot_replaces_the_log_before_it() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut state = open(root);
        state.append(vec![1]).unwrap();
        state.snapshot().unwrap();
        assert_eq!(files(root), ["00000002.snapshot"]);
        assert_eq!(open(root).value(), &Numbers(vec![1]));
        state.append(vec![2]).unwrap();
        state.snapshot().unwrap();
        state.append(vec![3]).unwrap();
        assert_eq!(files(root), ["00000003-0001.log", "00000003.snapshot"]);
        assert_eq!(open(root).value(), &Numbers(vec![1, 2, 3]));
    }

    #[test]
    fn a_crash_between_the_steps_of_a_snapshot_changes_nothing() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut state = open(root);
        state.append(vec![1]).unwrap();
        state.append(vec![2]).unwrap();
        let before = fs::read(root.join("00000001-0001.log")).unwrap();
        fs::write(root.join("00000002.snapshot.tmp"), "half").unwrap();
        assert_eq!(
            open(root).value(),
            &Numbers(vec![1, 2]),
            "before the rename"
        );

        state.snapshot().unwrap();
        state.append(vec![3]).unwrap();
        fs::write(root.join("00000001-0001.log"), before).unwrap();
        assert_eq!(
            open(root).value(),
            &Numbers(vec![1, 2, 3]),
            "before the removal"
        );
    }

    #[test]
    fn a_snapshot_without_its_name_loses_nothing() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut state = open(root);
        state.append(vec![1]).unwrap();
        // A directory in its place: the rename fails.
        fs::create_dir_all(root.join("00000002.snapshot/x")).unwrap();
        state.snapshot().unwrap_err();
        fs::remove_dir_all(root.join("00000002.snapshot")).unwrap();
        state.append(vec![2]).unwrap();
        assert_eq!(open(root).value(), &Numbers(vec![1, 2]));
    }

    #[test]
    fn a_large_log_is_folded_by_itself() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut state = open(root);
        let many: Vec<u64> = (0..100_000).map(|n| 1 << 60 | n).collect();
        state.append(many.clone()).unwrap();
        assert_eq!(files(root), ["00000002.snapshot"]);
        assert_eq!(open(root).value(), &Numbers(many));
    }

    #[test]
    fn damage_is_told_and_a_damaged_snapshot_refused() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let mut state = open(root);
        state.append(vec![1]).unwrap();
        state.append(vec![2]).unwrap();
        let log = root.join("00000001-0001.log");
        let mut octets = fs::read(&log).unwrap();
        octets[4608] ^= 1;
        fs::write(&log, octets).unwrap();
        let mut state = open(root);
        assert_eq!(state.value(), &Numbers(vec![2]));
        assert_eq!(state.damage(), ["12 octets at 4608 of segment 1-1"]);

        state.snapshot().unwrap();
        let path = root.join("00000002.snapshot");
        let mut octets = fs::read(&path).unwrap();
        octets[17] ^= 1;
        fs::write(&path, &octets).unwrap();
        let error = StateLog::<Numbers>::open(root).unwrap_err();
        assert!(matches!(error, StateError::Snapshot { .. }), "{error}");
        octets[17] ^= 1;
        octets[8] = 2;
        fs::write(&path, &octets).unwrap();
        let error = StateLog::<Numbers>::open(root).unwrap_err().to_string();
        assert!(error.contains("written in format 2"), "{error}");
    }
}
