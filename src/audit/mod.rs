//! The audit log: what was done is on it before it is done, and after.
//!
//! Entries form a chain: each holds the hash of the one before, and its own hash is an HMAC under a
//! key that is kept outside the data directory. Whoever can write the files but has no key cannot
//! change, remove, insert or reorder an entry without [`verify()`] naming the place; a small file
//! beside them says where the chain ends, so that a cut tail shows as well. What remains possible is
//! to put the whole directory back to an earlier state: for that the caller sends
//! [`tell_head`](Audit::tell_head) at intervals, which sends the end of the chain to the journal of the
//! system.
//!
//! If an append fails, the caller does nothing of what it wanted to tell (invariant 6).

mod entry;
mod head;
#[cfg(test)]
mod tests;
mod verify;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use aws_lc_rs::hmac;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use tracing::{error, info, warn};

use crate::key::StoreKey;
use crate::segment::{AppendError, Event, Frame, Log, Position, Purpose, SegmentError, Writer};

pub use entry::{Action, Entry, Hash, HashError, Recorded};
use head::{Head, HeadFile};
pub use verify::{Broken, Verification, parse_known, verify};

/// The only kind of frame.
const ENTRY: u8 = 1;
/// A start reads one file of this length at most.
const SEGMENT_OCTETS: u64 = 16 << 20;
/// Most octets that the texts of one entry may have together.
pub const ENTRY_OCTETS: usize = 64 << 10;
/// Entries that one sync covers at most.
const GROUP_ENTRIES: usize = 8192;
const PURPOSE: Purpose = Purpose {
    tag: *b"audi",
    version: 1,
};

/// Why the audit log cannot be read or written. Nothing may be done then that it should tell.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AuditError {
    /// The entries were not written.
    #[error("the audit log could not be written, so nothing is done: {0}")]
    Append(#[source] Arc<AppendError>),
    /// The files cannot be read.
    #[error("{0}")]
    Segment(#[source] Arc<SegmentError>),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: Arc<io::Error>,
    },
    /// A whole frame is no entry.
    #[error("the audit log holds something else at {0:?}; run `clawback audit verify`")]
    Entry(Position),
}

impl From<SegmentError> for AuditError {
    fn from(error: SegmentError) -> Self {
        Self::Segment(Arc::new(error))
    }
}

/// The audit log of a running service. Shared by reference; appends of several threads share a sync.
#[derive(Debug)]
pub struct Audit {
    log: Arc<Log>,
    queue: Mutex<Queue>,
    /// A group was written.
    written: Condvar,
    chain: Mutex<Chain>,
    finding: Option<Broken>,
}

/// The appends that wait for a thread to write them.
#[derive(Debug, Default)]
struct Queue {
    tickets: VecDeque<Arc<Ticket>>,
    /// A thread writes a group; whoever comes meanwhile waits for the next one.
    writing: bool,
}

/// An append.
#[derive(Debug)]
struct Ticket {
    entries: Mutex<Vec<Entry>>,
    result: OnceLock<Result<(), AuditError>>,
}

/// The end of the chain and what writes it.
struct Chain {
    key: hmac::Key,
    directory: PathBuf,
    writer: Writer,
    head: Head,
    file: Option<HeadFile>,
    /// The file does not name the last entry: writing it failed.
    behind: bool,
    /// The seq that the system's journal was told last.
    told: Option<u64>,
    /// To be told with the next append.
    finding: Option<String>,
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chain")
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// The key of the audit log, from the store's.
fn audit_key(key: &StoreKey) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &key.derive("clawback audit log 1"))
}

impl Audit {
    /// Opens the log where its chain ends. Nothing is written before the first append.
    ///
    /// A log whose end was tampered with is opened all the same, or whoever cut it could also stop
    /// the service: [`finding`](Self::finding) says what was found, and the next append tells it in
    /// the chain, for good.
    ///
    /// # Errors
    ///
    /// The files cannot be read, or a newer version wrote them.
    pub fn open(directory: &Path, key: &StoreKey) -> Result<Self, AuditError> {
        Self::open_with(directory, key, SEGMENT_OCTETS)
    }

    fn open_with(
        directory: &Path,
        key: &StoreKey,
        segment_octets: u64,
    ) -> Result<Self, AuditError> {
        let key = audit_key(key);
        let log = Arc::new(Log::open(directory, PURPOSE)?);
        let io = |source| AuditError::Io {
            path: directory.to_owned(),
            source: Arc::new(source),
        };
        let found = head::read(directory, &key)?;
        let (head, finding) = verify::find_end(&log, &key, found.as_ref().map(|f| f.head))?;
        let file = match &found {
            Some(found) => Some(HeadFile::open(directory, found).map_err(io)?),
            None => None,
        };
        if let Some(finding) = &finding {
            error!(directory = %directory.display(), %finding, "the audit log is broken; run `clawback audit verify`");
        }
        let newest = log.partitions().last().copied().unwrap_or(1);
        let chain = Chain {
            key,
            directory: directory.to_owned(),
            writer: Writer::new(Arc::clone(&log), newest).segment_octets(segment_octets),
            head,
            file,
            behind: false,
            told: None,
            finding: finding.as_ref().map(Broken::to_string),
        };
        Ok(Self {
            log,
            queue: Mutex::default(),
            written: Condvar::new(),
            chain: Mutex::new(chain),
            finding,
        })
    }

    /// Appends the entries in their order. They are on stable storage when this returns; threads that
    /// append at the same time share one sync. Blocks: not to be called from an async task.
    ///
    /// # Errors
    ///
    /// None of the entries counts, and what they tell must not be done.
    pub fn append(&self, entries: Vec<Entry>) -> Result<(), AuditError> {
        if entries.is_empty() {
            return Ok(());
        }
        // One that cannot be written must not take others with it.
        if let Some(octets) = entries.iter().map(Entry::octets).max()
            && octets > ENTRY_OCTETS
        {
            let error = AppendError::TooLong { octets };
            return Err(AuditError::Append(Arc::new(error)));
        }
        let ticket = Arc::new(Ticket {
            entries: Mutex::new(entries),
            result: OnceLock::new(),
        });
        let mut queue = lock(&self.queue);
        queue.tickets.push_back(Arc::clone(&ticket));
        loop {
            if let Some(result) = ticket.result.get() {
                return result.clone();
            }
            if queue.writing {
                let waited = self.written.wait(queue);
                queue = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Whoever finds nobody writing writes for all who wait.
            queue.writing = true;
            let group = queue.take_group();
            drop(queue);
            self.write(&group);
            queue = lock(&self.queue);
            queue.writing = false;
            self.written.notify_all();
        }
    }

    /// Removes the files whose entries are all older than `before`, by whole months. What was first
    /// is recorded, so that only retention can cut the chain's beginning.
    ///
    /// # Errors
    ///
    /// I/O; nothing, or some of the files, were removed.
    pub fn expire(&self, before: Timestamp) -> Result<u64, AuditError> {
        let mut chain = lock(&self.chain);
        let current = chain.writer.partition();
        let partitions = self.log.partitions();
        let mut removed = 0;
        for (&old, &next) in partitions.iter().zip(partitions.iter().skip(1)) {
            if old >= month(before) || old >= current {
                break;
            }
            let first = verify::first_link(&self.log, next)?;
            let Some(first) = first else {
                break;
            };
            chain.head.first = first.seq;
            chain.head.before_first = first.previous;
            let head = chain.head;
            chain.write_head(&head)?;
            chain.sync_head()?;
            self.log.drop_partition(old)?;
            removed += 1;
        }
        Ok(removed)
    }

    /// Sends seq and hash of the last entry to the journal of the system, unless that knows them, and syncs
    /// the file that holds them. `clawback audit verify --known` compares the log with them.
    ///
    /// # Errors
    ///
    /// I/O; the journal was told all the same.
    pub fn tell_head(&self) -> Result<(), AuditError> {
        let mut chain = lock(&self.chain);
        let Head { seq, hash, .. } = chain.head;
        if chain.told == Some(seq) && !chain.behind {
            return Ok(());
        }
        if chain.told.replace(seq) != Some(seq) {
            info!(seq, %hash, "audit log head");
        }
        chain.catch_up()?;
        chain.sync_head()
    }

    /// Seq and hash of the last entry.
    pub fn head(&self) -> (u64, Hash) {
        let chain = lock(&self.chain);
        (chain.head.seq, chain.head.hash)
    }

    /// What was wrong with the log when it was opened.
    pub const fn finding(&self) -> Option<&Broken> {
        self.finding.as_ref()
    }

    /// All entries, oldest first; what is damaged is left out ([`verify()`] tells it).
    pub fn show(&self) -> impl Iterator<Item = Result<Recorded, AuditError>> + Send + use<> {
        entries(Arc::clone(&self.log))
    }

    fn write(&self, group: &[Arc<Ticket>]) {
        let mut entries = Vec::new();
        for ticket in group {
            entries.append(&mut lock(&ticket.entries));
        }
        let result = lock(&self.chain).append(&entries);
        for ticket in group {
            // Each ticket is taken once.
            let _ = ticket.result.set(result.clone());
        }
    }
}

impl Queue {
    /// The tickets that wait longest, as many as one sync covers.
    fn take_group(&mut self) -> Vec<Arc<Ticket>> {
        let (mut group, mut entries) = (Vec::new(), 0);
        while entries < GROUP_ENTRIES
            && let Some(ticket) = self.tickets.pop_front()
        {
            entries += lock(&ticket.entries).len();
            group.push(ticket);
        }
        group
    }
}

/// The entries in a directory, without a running service; oldest first.
///
/// # Errors
///
/// The files cannot be read.
pub fn show(
    directory: &Path,
) -> Result<impl Iterator<Item = Result<Recorded, AuditError>> + Send, AuditError> {
    Ok(entries(Arc::new(Log::open(directory, PURPOSE)?)))
}

fn entries(log: Arc<Log>) -> impl Iterator<Item = Result<Recorded, AuditError>> + Send {
    let partitions = log.partitions().into_iter();
    partitions
        .flat_map(move |partition| log.scan(Position::start_of(partition)))
        .filter_map(|event| match event {
            Ok(Event::Frame(position, frame)) => {
                Some(entry::decode(&frame.payload).ok_or(AuditError::Entry(position)))
            }
            Ok(_) => None,
            Err(error) => Some(Err(error.into())),
        })
}

impl Chain {
    fn append(&mut self, entries: &[Entry]) -> Result<(), AuditError> {
        // The first entry of all: from now on a missing head means that somebody removed it. Once
        // that has happened, no new head hides it before it is told.
        if self.finding.is_none() {
            self.make_head()?;
        }
        if let Some(newest) = entries.last() {
            self.writer.rotate(month(newest.at));
        }
        let mut end = self.head;
        let mut frames = Vec::with_capacity(entries.len());
        let finding = self.finding.as_ref().zip(entries.first());
        let finding = finding.map(|(text, first)| finding_entry(text, first.at));
        let own = finding.iter().map(|entry| (entry, true));
        for (entry, finding) in own.chain(entries.iter().map(|entry| (entry, false))) {
            let seq = end.seq + 1;
            let (payload, hash) = entry::encode(&self.key, end.hash, seq, entry, finding);
            end = Head { seq, hash, ..end };
            frames.push(Frame::new(ENTRY, payload));
        }
        self.writer
            .append(&frames)
            .map_err(|error| AuditError::Append(Arc::new(error)))?;
        // The entries are there for good: to fail now would have the caller tell them once more. A head file
        // that is behind the log is no sign of tampering, and the next append or look mends it.
        self.head = end;
        self.finding = None;
        self.behind = true;
        if let Err(error) = self.catch_up() {
            warn!(directory = %self.directory.display(), %error, "the head of the audit log cannot be written; it is tried again");
        }
        Ok(())
    }

    /// Makes the file name the last entry.
    fn catch_up(&mut self) -> Result<(), AuditError> {
        if self.behind {
            self.make_head()?;
            let head = self.head;
            self.write_head(&head)?;
            self.behind = false;
        }
        Ok(())
    }

    fn make_head(&mut self) -> Result<(), AuditError> {
        if self.file.is_none() {
            let created = HeadFile::create(&self.directory, &self.key, &self.head);
            self.file = Some(created.map_err(append_error)?);
        }
        Ok(())
    }

    fn write_head(&mut self, head: &Head) -> Result<(), AuditError> {
        match &mut self.file {
            Some(file) => file.write(&self.key, head).map_err(append_error),
            None => Ok(()),
        }
    }

    fn sync_head(&self) -> Result<(), AuditError> {
        match &self.file {
            Some(file) => file.sync().map_err(append_error),
            None => Ok(()),
        }
    }
}

fn append_error(error: io::Error) -> AuditError {
    AuditError::Append(Arc::new(error.into()))
}

fn finding_entry(text: &str, at: Timestamp) -> Entry {
    Entry {
        at,
        who: "clawback".to_owned(),
        uid: None,
        action: Action::Change,
        job: None,
        message_id: None,
        mailbox: None,
        detail: Some(format!("the audit log was found broken: {text}")),
    }
}

/// The partition of a time: months since 1970, from 1.
fn month(at: Timestamp) -> u32 {
    let date = at.to_zoned(TimeZone::UTC);
    let months = (i32::from(date.year()) - 1970) * 12 + i32::from(date.month());
    u32::try_from(months).unwrap_or(1).max(1)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under the lock is complete before anything can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
