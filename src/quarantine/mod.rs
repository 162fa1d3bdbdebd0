//! Reports that were not understood or not proven, and mail that is no report: kept whole, encrypted,
//! within a capacity, until somebody looks or they expire.
//!
//! One file an item. It is written under a temporary name while the message streams in; when
//! [`Writer::finish`] returns, its content and its name are on stable storage (the message may be
//! answered with 250). Facts about all items are in memory, so that listing reads no file.

mod item;
mod seal;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use jiff::Timestamp;
use tracing::warn;

use crate::key::StoreKey;
use crate::segment::{create_dir_durable, fsync_dir, is_full, remove_file_durable};

pub use item::{Content, Item, ItemId, ItemIdError, Meta, UNREADABLE, fact};
use seal::{CHUNK_OCTETS, Piece, Seal, TAG_OCTETS};

/// End of the name of an item's file.
const ITEM_SUFFIX: &str = ".item";
/// End of the name of a file that is being written.
const PART_SUFFIX: &str = ".part";

/// Why the quarantine cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum QuarantineError {
    /// The capacity is used up, or the disk: answer 452.
    #[error(
        "the quarantine is full ({0}); look at `clawback quarantine list` or raise store.quarantine"
    )]
    Full(String),
    /// There is no such item (any more).
    #[error("no item {0} in the quarantine")]
    Unknown(ItemId),
    /// The item's file is damaged, or the key is another.
    #[error("{}: {reason}", path.display())]
    Unreadable {
        /// The item's file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The system refused: answer 451.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl QuarantineError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| {
            if is_full(&source) {
                return Self::Full(source.to_string());
            }
            Self::Io {
                path: path.to_owned(),
                source,
            }
        }
    }
}

/// The quarantine; clones share it.
#[derive(Debug, Clone)]
pub struct Quarantine(Arc<Shared>);

struct Shared {
    directory: PathBuf,
    key: hmac::Key,
    capacity: u64,
    retention: Duration,
    /// The directory is there, durably.
    made: AtomicBool,
    held: Mutex<Held>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Held {
    items: BTreeMap<ItemId, Item>,
    /// Octets of all files, those included that are being written.
    octets: u64,
}

impl Quarantine {
    /// Reads the facts of all items. What a crash left half written is removed. Nothing else is
    /// written: the directory is made with the first item.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Io`]: the directory cannot be read. An unreadable item is no error: it is listed as
    /// such ([`UNREADABLE`]), or it would take its room for ever.
    pub fn open(
        directory: &Path,
        key: &StoreKey,
        capacity: u64,
        retention: Duration,
    ) -> Result<Self, QuarantineError> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key.derive("clawback quarantine 1"));
        let mut held = Held::default();
        let entries = match fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(QuarantineError::io(directory))?),
        };
        for entry in entries.into_iter().flatten() {
            let path = entry.map_err(QuarantineError::io(directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.ends_with(PART_SUFFIX)) {
                // Nobody was told that it was kept.
                fs::remove_file(&path).map_err(QuarantineError::io(&path))?;
                continue;
            }
            let id = name.and_then(|name| name.strip_suffix(ITEM_SUFFIX));
            let Some(Ok(id)) = id.map(str::parse::<ItemId>) else {
                continue;
            };
            let file = fs::metadata(&path).map_err(QuarantineError::io(&path))?;
            let item = match item::read_facts(&path, &key) {
                Ok((meta, size)) => Item {
                    id,
                    meta,
                    size,
                    octets: file.len(),
                },
                Err(error) => {
                    warn!(%error, "an item of the quarantine cannot be read");
                    Item::unreadable(id, &file, error.to_string())
                }
            };
            held.octets += item.octets;
            held.items.insert(id, item);
        }
        Ok(Self(Arc::new(Shared {
            directory: directory.to_owned(),
            key,
            capacity,
            retention,
            made: AtomicBool::new(false),
            held: Mutex::new(held),
        })))
    }

    /// Begins an item. Its facts may be changed until [`Writer::finish`].
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Full`] (452) or [`QuarantineError::Io`] (451).
    pub fn begin(&self, meta: Meta) -> Result<Writer, QuarantineError> {
        let shared = &self.0;
        if !shared.made.load(Ordering::Acquire) {
            create_dir_durable(&shared.directory)
                .map_err(QuarantineError::io(&shared.directory))?;
            shared.made.store(true, Ordering::Release);
        }
        let id = ItemId::from_octets(random().map_err(QuarantineError::io(&shared.directory))?);
        let path = shared.directory.join(format!("{id}{PART_SUFFIX}"));
        let seal = Seal::new(&shared.key).map_err(QuarantineError::io(&path))?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(QuarantineError::io(&path))?;
        let mut writer = Writer {
            shared: Arc::clone(shared),
            meta,
            id,
            path,
            file,
            seal,
            buffer: Vec::with_capacity(CHUNK_OCTETS + TAG_OCTETS),
            chunks: 0,
            size: 0,
            octets: 0,
            finished: false,
        };
        let head = *writer.seal.head();
        writer.put(&head)?;
        Ok(writer)
    }

    /// Facts of all items, the oldest first.
    pub fn list(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self.0.lock().items.values().cloned().collect();
        items.sort_by_key(|item| (item.meta.received, item.id));
        items
    }

    /// Facts of one item.
    pub fn show(&self, id: ItemId) -> Option<Item> {
        self.0.lock().items.get(&id).cloned()
    }

    /// The message as it was received. Each piece is checked before it is given out; a read error of
    /// kind `InvalidData` means that the rest was changed.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Unknown`], [`QuarantineError::Unreadable`] or I/O.
    pub fn read(&self, id: ItemId) -> Result<Content, QuarantineError> {
        if !self.0.lock().items.contains_key(&id) {
            return Err(QuarantineError::Unknown(id));
        }
        Content::open(&self.0.path(id), &self.0.key)
    }

    /// Removes an item, durably.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Unknown`] or I/O.
    pub fn drop(&self, id: ItemId) -> Result<(), QuarantineError> {
        let path = self.0.path(id);
        let Some(item) = self.0.lock().items.remove(&id) else {
            return Err(QuarantineError::Unknown(id));
        };
        if let Err(source) = remove_file_durable(&path) {
            self.0.lock().items.insert(id, item);
            return Err(QuarantineError::io(&path)(source));
        }
        self.0.lock().octets -= item.octets;
        Ok(())
    }

    /// Removes what is older than the retention; how many items that were.
    ///
    /// # Errors
    ///
    /// I/O; some may have been removed.
    pub fn expire(&self, now: Timestamp) -> Result<usize, QuarantineError> {
        let retention = jiff::SignedDuration::try_from(self.0.retention);
        let Some(before) = retention.ok().and_then(|r| now.checked_sub(r).ok()) else {
            return Ok(0);
        };
        let expired: Vec<ItemId> = {
            let held = self.0.lock();
            let old = held.items.values().filter(|i| i.meta.received < before);
            old.map(|item| item.id).collect()
        };
        for &id in &expired {
            match self.drop(id) {
                // Somebody was faster.
                Ok(()) | Err(QuarantineError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(expired.len())
    }

    /// Octets of all files, those included that are being written.
    pub fn bytes(&self) -> u64 {
        self.0.lock().octets
    }

    /// Octets that it may hold.
    pub fn capacity(&self) -> u64 {
        self.0.capacity
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.0.lock().items.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why items could not be read when it was opened, one line an item.
    pub fn unreadable(&self) -> Vec<String> {
        let held = self.0.lock();
        let items = held.items.values();
        items
            .filter(|item| item.meta.kind == UNREADABLE)
            .map(|item| item.meta.reason.clone())
            .collect()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Held> {
        // Every change under the lock is complete before anything can panic.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: ItemId) -> PathBuf {
        self.directory.join(format!("{id}{ITEM_SUFFIX}"))
    }
}

/// An item that is being written. Dropped before [`finish`](Self::finish), it leaves nothing.
pub struct Writer {
    shared: Arc<Shared>,
    meta: Meta,
    id: ItemId,
    path: PathBuf,
    file: File,
    seal: Seal,
    buffer: Vec<u8>,
    chunks: u64,
    size: u64,
    octets: u64,
    finished: bool,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Adds content. Blocks for the disk once every 64 KiB.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Full`] (452) or [`QuarantineError::Io`] (451); the item is lost then.
    pub fn write(&mut self, mut octets: &[u8]) -> Result<(), QuarantineError> {
        self.size += count(octets.len());
        while !octets.is_empty() {
            // A full chunk waits for the octet after it: only then is it known not to be the last.
            if self.buffer.len() == CHUNK_OCTETS {
                self.put_chunk(Piece::Chunk(self.chunks))?;
            }
            let room = CHUNK_OCTETS - self.buffer.len();
            let (now, later) = octets.split_at(room.min(octets.len()));
            self.buffer.extend_from_slice(now);
            octets = later;
        }
        Ok(())
    }

    /// The facts as they will be kept.
    pub const fn meta_mut(&mut self) -> &mut Meta {
        &mut self.meta
    }

    /// Octets of content so far.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Ends the item: when this returns it is on stable storage and listed.
    ///
    /// # Errors
    ///
    /// [`QuarantineError::Full`] (452) or [`QuarantineError::Io`] (451); the item is lost then.
    pub fn finish(mut self) -> Result<ItemId, QuarantineError> {
        self.put_chunk(Piece::LastChunk(self.chunks))?;
        let mut facts = item::encode_facts(&self.meta, self.size)
            .map_err(|error| QuarantineError::io(&self.path)(error.into()))?;
        self.seal
            .seal(Piece::Facts, &mut facts)
            .map_err(QuarantineError::io(&self.path))?;
        let length = u32::try_from(facts.len()).unwrap_or(u32::MAX);
        facts.extend_from_slice(&length.to_le_bytes());
        self.put(&facts)?;
        let path = self.shared.path(self.id);
        self.file
            .sync_data()
            .and_then(|()| fs::rename(&self.path, &path))
            .map_err(QuarantineError::io(&self.path))?;
        // From here on the file has its name; if that is not durable, the item is taken back.
        self.path = path;
        fsync_dir(&self.shared.directory).map_err(QuarantineError::io(&self.path))?;
        self.finished = true;
        let item = Item {
            id: self.id,
            meta: self.meta.clone(),
            size: self.size,
            octets: self.octets,
        };
        self.shared.lock().items.insert(self.id, item);
        Ok(self.id)
    }

    fn put_chunk(&mut self, piece: Piece) -> Result<(), QuarantineError> {
        self.seal
            .seal(piece, &mut self.buffer)
            .map_err(QuarantineError::io(&self.path))?;
        let mut chunk = std::mem::take(&mut self.buffer);
        self.put(&chunk)?;
        chunk.clear();
        self.buffer = chunk;
        self.chunks += 1;
        Ok(())
    }

    /// Writes octets that the capacity has room for.
    fn put(&mut self, octets: &[u8]) -> Result<(), QuarantineError> {
        let more = count(octets.len());
        {
            let mut held = self.shared.lock();
            if held.octets + more > self.shared.capacity {
                let (octets, capacity) = (held.octets, self.shared.capacity);
                return Err(QuarantineError::Full(format!(
                    "{octets} of {capacity} octets are used"
                )));
            }
            held.octets += more;
        }
        self.octets += more;
        self.file
            .write_all(octets)
            .map_err(QuarantineError::io(&self.path))
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // If this fails the next start removes it.
            let _ = fs::remove_file(&self.path);
            self.shared.lock().octets -= self.octets;
        }
    }
}

fn random() -> io::Result<[u8; 10]> {
    let mut octets = [0; 10];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| io::Error::other("no random numbers from the system"))?;
    Ok(octets)
}

fn count(octets: usize) -> u64 {
    u64::try_from(octets).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
