//! The store's handle: opening, committing, asking, retention.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::commit::{CommitError, Committer, Pending};
use super::error::StoreError;
use super::frame::{KIND_RECIPIENTS, KIND_REPORT, Kept, encode_spilled};
use super::identity::record_id;
use super::indexer::{Indexer, current_partition};
use super::key::TermHasher;
use super::log::{self, Frame, Position};
use super::marker::Marker;
use super::partition::{Layout, PartitionName};
use super::query::Query;
use super::record::Record;
use super::search::Search;
use super::shared::Shared;
use crate::journal::{Recipient, Report};
use crate::key::StoreKey;
use crate::mail::{MessageId, RecordId, TenantName};
use crate::segment::{DirectoryLock, create_dir_durable};

/// Recipients in one frame; more are spilled.
const RECIPIENTS_PER_FRAME: usize = 1000;

/// Where a store is and how it keeps things.
#[derive(Debug, Clone)]
pub struct Options {
    /// Its directory; `log/` and `index/` below it belong to the store.
    pub path: PathBuf,
    /// The key from which that of the index is derived.
    pub key: StoreKey,
    /// Reports older than this are dropped, partition by partition.
    pub retention: Duration,
    /// A partition of so many reports is closed.
    pub partition_reports: u64,
    /// A partition whose first report is so old is closed.
    pub partition_age: Duration,
}

impl Options {
    /// With 90 days of retention, and partitions of 100,000 reports or a day.
    pub fn new(path: PathBuf, key: StoreKey) -> Self {
        Self {
            path,
            key,
            retention: Duration::from_secs(90 * 86_400),
            partition_reports: 100_000,
            partition_age: Duration::from_secs(86_400),
        }
    }
}

/// A report that is to be kept. Its recipients may have been given before ([`Draft::recipients`]).
#[derive(Debug, Clone)]
pub struct NewReport {
    /// Whose it is.
    pub tenant: TenantName,
    /// The region of its journal address.
    pub region: Option<String>,
    /// When it arrived; of an imported report its own date.
    pub arrived: Timestamp,
    /// Who delivered it.
    pub peer: String,
    /// The report, of kind `Report`.
    pub report: Report,
}

/// A report is on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The record it belongs to.
    pub record: RecordId,
    /// How many recipients it names.
    pub recipients: u64,
}

/// What was journaled, and where to find it. Clones share it; when the last is dropped, what was
/// committed is indexed in the background and the threads end. [`Store::close`] waits for that.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) shared: Arc<Shared>,
    pub(crate) committer: Committer,
    pub(crate) options: Arc<Options>,
    pub(crate) upkeep: Arc<Upkeep>,
}

/// What only the handles need.
#[derive(Debug)]
pub(crate) struct Upkeep {
    thread: Mutex<Option<JoinHandle<()>>>,
    lock: Mutex<Option<DirectoryLock>>,
    filling: Mutex<Filling>,
}

/// How full the open partition is.
#[derive(Debug, Clone, Copy)]
struct Filling {
    partition: u32,
    /// Taken since the start.
    reports: u64,
    /// When its first report came.
    first: Option<Timestamp>,
    /// The latest arrival of all: a report from the quarantine may have arrived long before.
    latest: Timestamp,
}

impl Store {
    /// Opens or makes a store. Fast: what has to be indexed again is indexed by a thread, while
    /// reports are committed already and queries wait.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the directory is in use, cannot be written, or is of a newer version.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        // On a full disk only a directory that is not there yet is in the way.
        if !options.path.is_dir() {
            create_dir_durable(&options.path).map_err(StoreError::io(&options.path))?;
        }
        let lock = DirectoryLock::acquire(&options.path)?;
        Self::open_locked(options, lock)
    }

    /// Writes nothing: that is for the threads, which try as long as the disk is full.
    fn open_locked(options: Options, lock: DirectoryLock) -> Result<Self, StoreError> {
        let layout = Layout::new(&options.path);
        let hasher = TermHasher::new(&options.key.derive("index terms"));
        let marker = Marker::new(&hasher);
        let log = Arc::new(log::open(&layout.log())?);
        let current = current_partition(log.end(), &layout);
        let (committer, feed) =
            Committer::start(Arc::clone(&log), current).map_err(StoreError::io(&options.path))?;
        let shared = Arc::new(Shared::new(layout, hasher));
        let indexer = Indexer::new(Arc::clone(&shared), Arc::clone(&log), marker);
        let thread = std::thread::Builder::new()
            .name("index".to_owned())
            .spawn(move || indexer.run(&feed))
            .map_err(StoreError::io(&options.path))?;
        Ok(Self {
            shared,
            committer,
            options: Arc::new(options),
            upkeep: Arc::new(Upkeep {
                thread: Mutex::new(Some(thread)),
                lock: Mutex::new(Some(lock)),
                filling: Mutex::new(Filling {
                    partition: current,
                    reports: 0,
                    first: None,
                    latest: Timestamp::MIN,
                }),
            }),
        })
    }

    /// Commits and indexes what is under way, leaves the index in order, and lets go of the directory.
    /// Blocks: not to be called from an async task. Later commits fail with [`CommitError::Closed`].
    pub fn close(&self) {
        self.committer.shut_down();
        let thread = lock(&self.upkeep.thread).take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!(
                "the indexing thread panicked; the index is made again at the next start"
            );
        }
        lock(&self.upkeep.lock).take();
    }

    /// Begins to keep a report.
    pub fn begin(&self) -> Draft {
        Draft {
            store: self.clone(),
            spilled: Vec::new(),
            partial: Vec::new(),
            memory: 0,
        }
    }

    /// Waits until every report acknowledged before is visible to queries, or the index has ended: then
    /// each query says so.
    pub async fn settled(&self) {
        let frames = self.committer.committed();
        // Whoever asks next is told.
        let _ = self.shared.progress.wait_async(frames).await;
    }

    /// As [`settled`](Self::settled), blocking.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`]: the indexing thread has ended.
    pub fn settle(&self) -> Result<(), StoreError> {
        self.shared.progress.wait(self.committer.committed())
    }

    /// The records for which all terms hold, newest `received` first, of everything acknowledged
    /// before. Blocks, at the start until that is indexed: to be called on a blocking thread. An error
    /// in the middle costs the record it tells of, the next ones still come.
    pub fn search(&self, query: &Query) -> Search {
        let shared = Arc::clone(&self.shared);
        match self.settle() {
            Ok(()) => Search::new(shared, query.clone()),
            Err(error) => Search::failed(shared, error),
        }
    }

    /// The record of this name. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the index has ended or cannot be read.
    pub fn record(&self, id: RecordId) -> Result<Option<Record>, StoreError> {
        let query = Query {
            record: Some(id),
            limit: Some(1),
            ..Query::default()
        };
        self.search(&query).next().transpose()
    }

    /// The records with this Message-ID, newest first. Blocks. A report that cannot be read is a problem
    /// of the records that were found without it.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the index has ended or cannot be read, or nothing of the message can.
    pub fn by_message_id(
        &self,
        tenant: Option<&TenantName>,
        id: &MessageId,
    ) -> Result<Vec<Record>, StoreError> {
        let query = Query {
            tenant: tenant.cloned(),
            message_id: Some(id.clone()),
            ..Query::default()
        };
        let (mut records, mut errors) = (Vec::new(), Vec::new());
        for found in self.search(&query) {
            match found {
                Ok(record) => records.push(record),
                Err(error) => errors.push(error),
            }
        }
        match errors.pop() {
            Some(error) if records.is_empty() => Err(error),
            None => Ok(records),
            Some(error) => {
                let problem = format!("a report with this Message-ID cannot be read: {error}");
                for record in &mut records {
                    record.problems.push(problem.clone());
                }
                Ok(records)
            }
        }
    }

    /// Takes note of a committed report, and closes the partition if it is full or old.
    fn count(&self, position: Position, arrived: Timestamp) {
        let mut filling = lock(&self.upkeep.filling);
        filling.latest = filling.latest.max(arrived);
        if position.partition > filling.partition {
            filling.partition = position.partition;
            filling.reports = 0;
            filling.first = None;
        }
        if position.partition == filling.partition {
            filling.reports += 1;
            filling.first = filling.first.or(Some(filling.latest));
            self.close_full_partition(&mut filling);
        }
    }

    /// Closes the open partition if its first report is old: for a feed that is silent.
    pub(crate) fn close_old_partition(&self, now: Timestamp) {
        let mut filling = lock(&self.upkeep.filling);
        filling.latest = filling.latest.max(now);
        self.close_full_partition(&mut filling);
    }

    fn close_full_partition(&self, filling: &mut Filling) {
        // What was there at the start is known once it is indexed.
        let (before, first) = self.indexed(filling.partition);
        filling.first = filling.first.into_iter().chain(first).min();
        let age = filling.first.map_or(SignedDuration::ZERO, |first| {
            filling.latest.duration_since(first)
        });
        let old = age.is_positive() && age.unsigned_abs() >= self.options.partition_age;
        if filling.reports.max(before) >= self.options.partition_reports || old {
            self.committer.rotate(filling.partition + 1);
        }
    }

    /// How many reports of a partition are indexed, and when the first of them came at the earliest.
    fn indexed(&self, number: u32) -> (u64, Option<Timestamp>) {
        let Some(partition) = self.shared.partition(PartitionName::Live(number)) else {
            return (0, None);
        };
        let Some(source) = partition.source() else {
            return (0, None);
        };
        let (reports, arrived) = source.with_summary(|s| (s.reports, s.arrived));
        let first = arrived.and_then(|(first, last)| {
            // None came before the partition was made; some only arrived elsewhere before.
            let made = partition.first_segment()?.as_millisecond();
            Timestamp::from_millisecond(made.min(last).max(first)).ok()
        });
        (reports.into(), first)
    }

    /// Frames that are committed and not yet indexed.
    pub fn lag(&self) -> u64 {
        let applied = self.shared.progress.now();
        self.committer.committed().saturating_sub(applied.frames)
    }

    /// Is everything that the log held at the start indexed?
    pub fn is_ready(&self) -> bool {
        self.shared.progress.now().ready
    }

    /// Removes the index of a store that no process has open, and makes it again from the log. Blocks.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and what went wrong on the way.
    pub fn reindex(options: Options) -> Result<super::Stats, StoreError> {
        let lock = DirectoryLock::acquire(&options.path)?;
        super::seal::remove_open(&Layout::new(&options.path).index())?;
        let store = Self::open_locked(options, lock)?;
        store.shared.progress.wait(0)?;
        let stats = store.stats();
        store.close();
        Ok(stats)
    }
}

/// A report on its way into the store. Dropping it leaves nothing that a reader would see.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    spilled: Vec<Pending>,
    partial: Vec<Recipient>,
    /// Octets of memory that `partial` holds.
    memory: usize,
}

impl Draft {
    /// Takes recipients of the report as they stream in, in any number; of very many it writes those
    /// that came first.
    ///
    /// # Errors
    ///
    /// [`CommitError`]: the report cannot be kept now.
    pub async fn recipients(&mut self, recipients: Vec<Recipient>) -> Result<(), CommitError> {
        self.partial.extend(recipients);
        while self.partial.len() > RECIPIENTS_PER_FRAME {
            let rest = self.partial.split_off(RECIPIENTS_PER_FRAME);
            let chunk = std::mem::replace(&mut self.partial, rest);
            let frame = Frame::new(KIND_RECIPIENTS, encode_spilled(&chunk));
            self.spilled
                .push(self.store.committer.enqueue(vec![frame]).await?);
        }
        self.memory = self.partial.iter().map(Recipient::memory).sum();
        Ok(())
    }

    /// Octets of memory held, about: recipients that are not written yet.
    pub const fn memory(&self) -> usize {
        self.memory
    }

    /// Keeps the report: on return it is on stable storage, and the peer may be told so.
    ///
    /// # Errors
    ///
    /// [`CommitError`]: it is not kept.
    pub async fn commit(mut self, new: NewReport) -> Result<Committed, CommitError> {
        let mut report = new.report;
        self.recipients(std::mem::take(&mut report.recipients))
            .await?;
        let mut spilled = Vec::with_capacity(self.spilled.len());
        for pending in self.spilled {
            spilled.extend(pending.await?);
        }
        report.recipients = self.partial;
        let kept = Kept::new(
            new.tenant,
            new.region,
            new.arrived,
            new.peer,
            report,
            spilled,
        );
        let (record, recipients) = (record_id(&kept), kept.recipient_count);
        let frame = Frame::new(KIND_REPORT, kept.encode());
        let positions = self.store.committer.append(vec![frame]).await?;
        if let Some(position) = positions.first() {
            self.store.count(*position, kept.arrived);
        }
        Ok(Committed { record, recipients })
    }
}

/// Nothing under these locks is left half done by a panic.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
