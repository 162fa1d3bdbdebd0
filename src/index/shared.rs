//! What the store's handles, its indexing thread and its queries share.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::watch;
use tracing::warn;

use super::error::{IndexError, StoreError};
use super::frame::Kept;
use super::guard::caught;
use super::identity::{ReportKey, record_id, report_key};
use super::key::{Entry, Kind, TermHasher};
use super::log::Position;
use super::logged::{Logged, reports};
use super::partition::{Layout, Partition, PartitionName, Source};
use super::rows::{EVER, Row};
use super::run::{self, Run};
use super::summary::Summary;
use crate::segment::FRAME_OVERHEAD;

/// Partitions by name, with what is known of all of them.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) layout: Layout,
    pub(crate) hasher: TermHasher,
    pub(crate) partitions: RwLock<BTreeMap<PartitionName, Arc<Partition>>>,
    pub(crate) progress: Progress,
    /// The furthest that two reports of one message were ever found apart, in milliseconds.
    pub(crate) apart: AtomicI64,
    /// A query found the open partition's index damaged.
    pub(crate) open_damaged: AtomicBool,
    /// Taken while a run is made, or partitions are put in or taken out. Who has it mends nothing.
    pub(crate) upkeep: Mutex<()>,
}

/// Whether a report adds something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// It is a retry of one that is indexed.
    Repeated,
    /// It is new; the reports of the same message are at most so far apart, in milliseconds.
    New { apart: i64 },
}

impl Shared {
    pub(crate) fn new(layout: Layout, hasher: TermHasher) -> Self {
        Self {
            layout,
            hasher,
            partitions: RwLock::default(),
            progress: Progress::default(),
            apart: AtomicI64::new(0),
            open_damaged: AtomicBool::new(false),
            upkeep: Mutex::default(),
        }
    }

    /// All partitions, the newest last.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        let partitions = self
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.values().cloned().collect()
    }

    pub(crate) fn partition(&self, name: PartitionName) -> Option<Arc<Partition>> {
        let partitions = self
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.get(&name).cloned()
    }

    pub(crate) fn put(&self, partition: Arc<Partition>) {
        if let Some(source) = partition.source() {
            self.widen(source.summary().apart);
        }
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.insert(partition.name, partition);
    }

    pub(crate) fn remove(&self, name: PartitionName) -> Option<Arc<Partition>> {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.remove(&name)
    }

    /// Two reports of one message may be so far apart.
    pub(crate) fn widen(&self, apart: i64) {
        self.apart.fetch_max(apart, Ordering::AcqRel);
    }

    pub(crate) fn upkeep(&self) -> MutexGuard<'_, ()> {
        self.upkeep.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `ask` with the partition's index; if that is damaged, once more with a new one.
    /// `None` if the partition is gone.
    pub(crate) fn ask<T>(
        &self,
        partition: &Partition,
        ask: impl Fn(&Source) -> Result<T, IndexError>,
    ) -> Result<Option<T>, StoreError> {
        let Some(source) = partition.source() else {
            return Ok(None);
        };
        let error = match ask_once(partition, &source, &ask) {
            Ok(answer) => return Ok(Some(answer)),
            Err(error) => error,
        };
        if let Source::Open(_) = source
            && !partition.is_closed()
        {
            // The indexing thread owns it and makes it again.
            self.open_damaged.store(true, Ordering::Release);
            return Err(error);
        }
        warn!(%error, "damaged index; making it again from the log");
        self.mend(partition, &source)?;
        match partition.source() {
            Some(source) => ask_once(partition, &source, ask).map(Some),
            None => Ok(None),
        }
    }

    /// Makes the run of a closed partition again, unless someone else just did.
    pub(crate) fn mend(&self, partition: &Partition, damaged: &Source) -> Result<(), StoreError> {
        let _upkeep = self.upkeep();
        if partition.source().is_some_and(|now| now.is(damaged)) {
            let run = self.build_run(partition)?;
            partition.set_source(Some(Source::Run(Arc::new(run))));
        }
        Ok(())
    }

    /// Is this report known in a partition other than `own`? One that cannot be read is taken as not
    /// known: kept twice, it is found once, as reports of one key are merged.
    pub(crate) fn look_up(&self, own: PartitionName, kept: &Kept, on_damage: OnDamage) -> Known {
        let others = self.all().into_iter().filter(|p| p.name != own);
        let identity = Identity::of(kept, &self.hasher);
        let received = kept.received().as_millisecond();
        let mut apart = 0;
        for partition in others {
            match self.look_up_in(&partition, &identity, received, on_damage) {
                Ok(Known::Repeated) => return Known::Repeated,
                Ok(Known::New { apart: further }) => apart = apart.max(further),
                Err(error) => {
                    warn!(partition = %partition.name, %error, "not known whether a report is a retry; it is indexed");
                }
            }
        }
        Known::New { apart }
    }

    fn look_up_in(
        &self,
        partition: &Partition,
        identity: &Identity,
        received: i64,
        on_damage: OnDamage,
    ) -> Result<Known, StoreError> {
        let rows = |kind: u8, hash: u64| {
            let ask = |source: &Source| source.find_rows([(kind, (hash, hash))], EVER);
            let rows = match (on_damage, partition.source()) {
                (OnDamage::Mend, _) => self.ask(partition, ask)?,
                (OnDamage::PassOver, Some(source)) => Some(ask_once(partition, &source, ask)?),
                (OnDamage::PassOver, None) => None,
            };
            Ok::<_, StoreError>(rows.unwrap_or_default())
        };
        for (_, row) in rows(Kind::Report as u8, identity.report)? {
            match partition.read(row.place) {
                Ok(Some(found)) if report_key(&found) == identity.key => {
                    return Ok(Known::Repeated);
                }
                Ok(_) => {}
                Err(error) => {
                    warn!(%error, "a report of the same key cannot be read; this one is indexed");
                }
            }
        }
        let mut apart = 0;
        for (kind, hash) in identity.messages() {
            for (_, row) in rows(kind, hash)? {
                apart = apart.max((row.received - received).abs());
            }
        }
        Ok(Known::New { apart })
    }

    /// Makes the run of a closed partition from its log, without sled. Under [`upkeep`](Self::upkeep):
    /// two that make the same run would write the same file. So it mends no other run on its way.
    pub(crate) fn build_run(&self, partition: &Partition) -> Result<Run, StoreError> {
        let start = Position::start_of(partition.number);
        let end = partition.end();
        let mut built = Built::new(start);
        for logged in reports(partition, start, end) {
            match logged? {
                Logged::Report(position, kept, _) => {
                    built.add(self, partition.name, &kept, position)
                }
                Logged::Other(_) => {}
                Logged::Damaged => built.summary.damaged = true,
            }
        }
        built.summary.end = end;
        let path = self.layout.run(partition.name);
        built.write(&path)?;
        self.widen(built.summary.apart);
        Run::open(&path).map_err(|error| StoreError::Index {
            partition: partition.name.to_string(),
            what: error.to_string(),
        })
    }
}

/// What to do with a damaged run that is met on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDamage {
    /// Make it again. Not under [`Shared::upkeep`].
    Mend,
    /// Go on without; a query that meets it has it made again.
    PassOver,
}

/// Calls `ask`; a panic of sled counts as damage.
fn ask_once<T>(
    partition: &Partition,
    source: &Source,
    ask: impl Fn(&Source) -> Result<T, IndexError>,
) -> Result<T, StoreError> {
    let asked = caught(|| ask(source)).unwrap_or_else(|text| Err(IndexError::Panicked(text)));
    asked.map_err(|error| StoreError::Index {
        partition: partition.name.to_string(),
        what: error.to_string(),
    })
}

/// Hashes of what tells reports and messages apart.
struct Identity {
    key: ReportKey,
    report: u64,
    record: u64,
    network: Option<u64>,
}

impl Identity {
    fn of(kept: &Kept, hasher: &TermHasher) -> Self {
        let key = report_key(kept);
        let hash = |value: &[u8]| hasher.hash(&kept.tenant, value);
        let network = kept.inner.network_message_id.as_ref();
        Self {
            key,
            report: hash(&key),
            record: hash(record_id(kept).octets()),
            network: network.map(|id| hash(id.to_lowercase().as_bytes())),
        }
    }

    /// What reports of one message have in common.
    fn messages(&self) -> impl Iterator<Item = (u8, u64)> {
        let network = self
            .network
            .map(|hash| (Kind::NetworkMessageId as u8, hash));
        [(Kind::Record as u8, self.record)]
            .into_iter()
            .chain(network)
    }
}

/// Is it known in an open partition? A hash is as good as the value here: the key of the hash is
/// secret, and two reports of 100,000 have one by chance once in 10^9 partitions.
pub(crate) fn look_up_open(
    open: &super::open::OpenIndex,
    kept: &Kept,
    hasher: &TermHasher,
) -> Known {
    let identity = Identity::of(kept, hasher);
    if open.received(Kind::Report as u8, identity.report).is_some() {
        return Known::Repeated;
    }
    let received = kept.received().as_millisecond();
    let apart = identity
        .messages()
        .filter_map(|(kind, hash)| open.received(kind, hash))
        .map(|range| distance(range, received));
    Known::New {
        apart: apart.max().unwrap_or(0),
    }
}

/// How far a time is at most from others between these.
fn distance((earliest, latest): (i64, i64), time: i64) -> i64 {
    (time - earliest).abs().max((time - latest).abs())
}

/// A run in the making, in memory: about 400 octets a report.
struct Built {
    entries: Vec<Entry>,
    rows: Vec<Row>,
    seen: HashSet<ReportKey>,
    /// The earliest and the latest `received` under what reports of a message have in common.
    messages: HashMap<(u8, u64), (i64, i64)>,
    summary: Summary,
}

impl Built {
    fn new(start: Position) -> Self {
        Self {
            entries: Vec::new(),
            rows: Vec::new(),
            seen: HashSet::new(),
            messages: HashMap::new(),
            summary: Summary::new(start),
        }
    }

    fn add(&mut self, shared: &Shared, name: PartitionName, kept: &Kept, position: Position) {
        let known = shared.look_up(name, kept, OnDamage::PassOver);
        let Known::New { apart } = known else {
            self.summary.repeated += 1;
            return;
        };
        if !self.seen.insert(report_key(kept)) {
            self.summary.repeated += 1;
            return;
        }
        self.summary.apart = self.summary.apart.max(apart);
        let ordinal = self.summary.reports;
        let received = kept.received().as_millisecond();
        let mut push = |kind: Kind, hash| {
            self.entries.push(Entry {
                kind: kind as u8,
                hash,
                ordinal,
            });
        };
        for recipient in &kept.recipients {
            push(
                Kind::Recipient,
                shared.hasher.recipient(&kept.tenant, recipient),
            );
        }
        shared.hasher.terms(kept, push);
        for message in Identity::of(kept, &shared.hasher).messages() {
            let range = self.messages.entry(message).or_insert((received, received));
            self.summary.apart = self.summary.apart.max(distance(*range, received));
            *range = (range.0.min(received), range.1.max(received));
        }
        self.rows.push(Row {
            place: position.packed(),
            received,
            alone: false,
        });
        self.summary.add(kept);
    }

    fn write(&mut self, path: &std::path::Path) -> Result<(), StoreError> {
        self.entries.sort_unstable();
        self.entries.dedup();
        let entries = self
            .entries
            .iter()
            .map(|entry| Ok::<_, std::io::Error>(*entry));
        let rows = self.rows.iter().map(|row| Ok(*row));
        run::write(path, entries, rows, &self.summary).map_err(StoreError::io(path))
    }
}

/// How far the indexing thread is.
#[derive(Debug)]
pub(crate) struct Progress {
    state: Mutex<Applied>,
    changed: Condvar,
    watch: watch::Sender<Applied>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Applied {
    /// What the log held at the start is indexed.
    pub(crate) ready: bool,
    /// Frames taken from the committer since the start.
    pub(crate) frames: u64,
    /// Why the index cannot be made for now. It is tried again.
    pub(crate) trouble: Option<String>,
    /// The thread has ended, and why.
    pub(crate) ended: Option<String>,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            watch: watch::Sender::new(Applied::default()),
        }
    }
}

impl Progress {
    pub(crate) fn change(&self, change: impl FnOnce(&mut Applied)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        self.watch.send_replace(state.clone());
        drop(state);
        self.changed.notify_all();
    }

    pub(crate) fn now(&self) -> Applied {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Blocks until so many frames are indexed.
    pub(crate) fn wait(&self, frames: u64) -> Result<(), StoreError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        while !state.has(frames)? {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }

    /// Waits until so many frames are indexed.
    pub(crate) async fn wait_async(&self, frames: u64) -> Result<(), StoreError> {
        let mut receiver = self.watch.subscribe();
        loop {
            if receiver.borrow_and_update().has(frames)? {
                return Ok(());
            }
            if receiver.changed().await.is_err() {
                return Err(StoreError::Closed("the store was dropped".to_owned()));
            }
        }
    }
}

impl Applied {
    fn has(&self, frames: u64) -> Result<bool, StoreError> {
        if self.ready && self.frames >= frames {
            return Ok(true);
        }
        match (&self.ended, &self.trouble) {
            (Some(why), _) => Err(StoreError::Closed(why.clone())),
            (None, Some(why)) => Err(StoreError::Unavailable(why.clone())),
            (None, None) => Ok(false),
        }
    }
}

/// Where the frame after this one would stand.
pub(crate) fn after(position: Position, payload: usize) -> Position {
    Position {
        offset: position.offset + (FRAME_OVERHEAD + payload) as u64,
        ..position
    }
}
