//! The thread that indexes: first what the log holds at the start, then what the committer hands on.
//!
//! It alone writes to the index of the open partition. If sled fails there, panics, or holds what was
//! not written, its directory is removed and the partition is indexed again from the log. Meanwhile the
//! feed is passed over, so that commits go on, and queries wait, or are told why they cannot be answered.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use tracing::{error, info, warn};

use super::commit::{Committed, Feed};
use super::error::StoreError;
use super::frame::Kept;
use super::guard::guarded;
use super::log::{self, Frame, Log, Position};
use super::logged::{Logged, reports};
use super::marker::Marker;
use super::open::{OpenError, OpenIndex};
use super::partition::{Layout, Partition, PartitionName, Source};
use super::run::Run;
use super::seal;
use super::shared::{Known, OnDamage, Shared, after, look_up_open};

/// Reports that are gathered in memory before they go into sled as one batch; a crash costs reading
/// so many again.
const BATCH_REPORTS: usize = 16_384;
/// Reports more after which a failed batch is tried again.
const RETRY_REPORTS: usize = 4096;
/// What is taken from the committer at once.
const TAKEN_AT_ONCE: usize = 1024;

/// Before the second attempt after a failure; doubled for each one more.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Between attempts at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The state of the indexing thread.
pub(crate) struct Indexer {
    shared: Arc<Shared>,
    log: Arc<Log>,
    marker: Marker,
    open: Option<(Arc<Partition>, Arc<OpenIndex>)>,
    sealing: Option<JoinHandle<()>>,
    /// What the last process left was looked through.
    tidy: bool,
    /// Frames before this are indexed, whether the feed brings them or not.
    replayed: Option<Position>,
    /// A partition that was closed while the feed was passed over.
    closed: Option<u32>,
    failed_batch: bool,
    /// Attempts in a row that failed.
    failures: u32,
}

impl Indexer {
    pub(crate) fn new(shared: Arc<Shared>, log: Arc<Log>, marker: Marker) -> Self {
        Self {
            shared,
            log,
            marker,
            open: None,
            sealing: None,
            tidy: false,
            replayed: None,
            closed: None,
            failed_batch: false,
            failures: 0,
        }
    }

    /// Indexes what the log holds, then what `feed` brings, until the committer ends. After an error,
    /// or a panic of sled, the open partition is indexed again from the log, as often as it takes.
    pub(crate) fn run(mut self, feed: &Feed) {
        while let Err(error) = self.work(feed) {
            error!(%error, "indexing failed and is tried again; reports are still kept");
            feed.skip();
            self.failures += 1;
            let tell = error.to_string();
            self.shared.progress.change(|applied| {
                applied.ready = false;
                // What passes at once is worth waiting for.
                applied.trouble = (self.failures > 1).then_some(tell);
            });
            if let Err(error) = guarded(|| self.let_go()) {
                warn!(%error, "what is left of the open partition's index is removed later");
            }
            if feed.ends_within(self.pause()) {
                break;
            }
        }
        self.shared
            .progress
            .change(|applied| applied.ended = Some("it was shut down".to_owned()));
    }

    fn pause(&self) -> Duration {
        match self.failures {
            0 | 1 => Duration::ZERO,
            more => (FIRST_PAUSE * (1 << (more - 2).min(16))).min(LONGEST_PAUSE),
        }
    }

    /// One attempt.
    fn work(&mut self, feed: &Feed) -> Result<(), StoreError> {
        let skipped = feed.resume();
        self.closed = self.closed.max(skipped.closed);
        self.shared
            .progress
            .change(|applied| applied.frames += skipped.frames);
        // Everything that the feed does not bring from now on stands before this.
        let end = self.log.end();
        guarded(|| self.recover(end))?;
        self.replayed = end;
        self.failures = 0;
        self.shared.progress.change(|applied| {
            applied.ready = true;
            applied.trouble = None;
        });
        if let Some(number) = self.closed.take() {
            guarded(|| self.close_partition(number))?;
        }
        self.follow(feed)?;
        if let Err(error) = guarded(|| self.stop()) {
            warn!(%error, "the index was not left in order; the next start reads more of the log");
        }
        Ok(())
    }

    /// Gives up the open partition's index, which is in doubt.
    fn let_go(&mut self) -> Result<(), StoreError> {
        self.failed_batch = false;
        self.finish_sealing();
        let Some((partition, open)) = self.open.take() else {
            return Ok(());
        };
        partition.set_source(None);
        self.shared.remove(partition.name);
        drop(open);
        seal::remove_open(&self.shared.layout.open(partition.name))
    }

    /// Brings the index of everything that is in the log. Runs that are there answer before anything
    /// is written: on a full disk retention needs them to free space.
    fn recover(&mut self, end: Option<Position>) -> Result<(), StoreError> {
        let current = current_partition(end, &self.shared.layout);
        if !self.tidy {
            self.marker.remove_doubtful(&self.shared.layout)?;
            self.remove_strangers(current)?;
            self.tidy = true;
        }
        let mut missing = Vec::new();
        for partition in self.closed_partitions(current)? {
            if !self.load_run(&partition) {
                missing.push(partition);
            }
        }
        self.marker.take(&self.shared.layout)?;
        for partition in missing {
            info!(partition = %partition.name, "indexing a closed partition again from the log");
            let _upkeep = self.shared.upkeep();
            let run = self.shared.build_run(&partition)?;
            partition.set_source(Some(Source::Run(Arc::new(run))));
            self.shared.put(partition);
        }
        self.open_partition(current, end)
    }

    /// Closed partitions of the live log and of the imports, of which the index knows nothing yet.
    fn closed_partitions(&self, current: u32) -> Result<Vec<Arc<Partition>>, StoreError> {
        let live = self.log.partitions().into_iter().filter(|n| *n < current);
        let unknown = |name: &PartitionName| self.shared.partition(*name).is_none();
        let mut partitions: Vec<_> = live
            .map(PartitionName::Live)
            .filter(unknown)
            .map(|name| Arc::new(Partition::new(name, Arc::clone(&self.log))))
            .collect();
        for day in import_days(&self.shared.layout.imports())? {
            let name = PartitionName::Import(day);
            if !unknown(&name) {
                continue;
            }
            let log = log::open(&self.shared.layout.import(day))?;
            partitions.push(Arc::new(Partition::new(name, Arc::new(log))));
        }
        partitions.iter().for_each(|partition| partition.close());
        Ok(partitions)
    }

    /// Takes a run that is whole and covers all of the partition's log.
    fn load_run(&self, partition: &Arc<Partition>) -> bool {
        let path = self.shared.layout.run(partition.name);
        match Run::open(&path) {
            Ok(run) if run.summary().end == partition.end() => {
                partition.set_source(Some(Source::Run(Arc::new(run))));
                self.shared.put(Arc::clone(partition));
                true
            }
            Ok(_) => false,
            Err(error) => {
                if path.exists() {
                    warn!(path = %path.display(), %error, "this run is not usable");
                }
                false
            }
        }
    }

    /// Opens or makes the index of the open partition and reads the rest of its log.
    fn open_partition(&mut self, number: u32, end: Option<Position>) -> Result<(), StoreError> {
        let name = PartitionName::Live(number);
        let partition = Arc::new(Partition::new(name, Arc::clone(&self.log)));
        let path = self.shared.layout.open(name);
        let limit = partition.end();
        let opened = match OpenIndex::open(&path, number) {
            Ok(open) if open.summary().end <= limit => Ok(open),
            Ok(_) => Err(OpenError::Decode(super::DecodeError::Value("watermark"))),
            Err(error) => Err(error),
        };
        let open = match opened {
            Ok(open) => open,
            Err(error) => {
                warn!(path = %path.display(), %error, "removing the open partition's index; it is made again");
                Self::renew(&path, number)?
            }
        };
        let end = end.unwrap_or_else(|| Position::start_of(number));
        self.adopt(partition, open);
        self.replay(end)
    }

    /// An empty index for a partition.
    fn renew(path: &Path, number: u32) -> Result<OpenIndex, StoreError> {
        seal::remove_open(path)?;
        OpenIndex::open(path, number).map_err(|error| StoreError::Index {
            partition: PartitionName::Live(number).to_string(),
            what: error.to_string(),
        })
    }

    fn adopt(&mut self, partition: Arc<Partition>, open: OpenIndex) {
        let open = Arc::new(open);
        partition.set_source(Some(Source::Open(Arc::clone(&open))));
        self.shared.put(Arc::clone(&partition));
        self.open = Some((partition, open));
    }

    /// Indexes what the log of the open partition holds from the watermark to `end`.
    fn replay(&mut self, end: Position) -> Result<(), StoreError> {
        let Some((partition, open)) = self.open.clone() else {
            return Ok(());
        };
        for logged in reports(&partition, open.summary().end, end) {
            match logged? {
                Logged::Report(position, kept, end) => self.add(position, &kept, end)?,
                Logged::Other(end) => open.pass(end, |_| {}),
                Logged::Damaged => open.note(|summary| summary.damaged = true),
            }
        }
        Ok(())
    }

    fn follow(&mut self, feed: &Feed) -> Result<(), StoreError> {
        while let Some(entries) = feed.recv(TAKEN_AT_ONCE) {
            let frames = entries
                .iter()
                .filter(|entry| matches!(entry, Committed::Frame(..)))
                .count() as u64;
            let taken = guarded(|| self.take(entries));
            self.shared.progress.change(|applied| {
                applied.ready &= taken.is_ok();
                applied.frames += frames;
            });
            taken?;
        }
        Ok(())
    }

    fn take(&mut self, entries: Vec<Committed>) -> Result<(), StoreError> {
        if self.shared.open_damaged.swap(false, Ordering::AcqRel) {
            return Err(self.failed("a query found damage"));
        }
        for entry in entries {
            match entry {
                Committed::Frame(position, frame) => self.arrive(position, &frame)?,
                Committed::PartitionClosed(number) => self.close_partition(number)?,
            }
        }
        Ok(())
    }

    /// A frame from the committer. The first of a partition opens its index.
    fn arrive(&mut self, position: Position, frame: &Frame) -> Result<(), StoreError> {
        if self.replayed.is_some_and(|replayed| position < replayed) {
            return Ok(());
        }
        let number = self.open.as_ref().map(|(partition, _)| partition.number);
        if number.is_none_or(|number| number < position.partition) {
            if let Some(number) = number {
                self.close_partition(number)?;
            }
            self.begin_partition(position.partition)?;
        }
        let Some((partition, open)) = &self.open else {
            return Ok(());
        };
        match Logged::of(partition, position, frame) {
            Logged::Report(position, kept, end) => self.add(position, &kept, end),
            Logged::Other(end) => {
                open.pass(end, |_| {});
                Ok(())
            }
            Logged::Damaged => {
                open.pass(after(position, frame.payload.len()), |summary| {
                    summary.damaged = true
                });
                Ok(())
            }
        }
    }

    fn begin_partition(&mut self, number: u32) -> Result<(), StoreError> {
        let name = PartitionName::Live(number);
        let partition = Arc::new(Partition::new(name, Arc::clone(&self.log)));
        let open = Self::renew(&self.shared.layout.open(name), number)?;
        self.adopt(partition, open);
        Ok(())
    }

    /// Indexes a report; the log is indexed up to `end` then.
    fn add(&mut self, position: Position, kept: &Kept, end: Position) -> Result<(), StoreError> {
        let Some((partition, open)) = &self.open else {
            return Ok(());
        };
        let here = look_up_open(open, kept, &self.shared.hasher);
        let elsewhere = match here {
            Known::Repeated => Known::Repeated,
            Known::New { .. } => self.shared.look_up(partition.name, kept, OnDamage::Mend),
        };
        let (Known::New { apart: a }, Known::New { apart: b }) = (here, elsewhere) else {
            open.pass(end, |summary| summary.repeated += 1);
            return Ok(());
        };
        let apart = a.max(b);
        // Before the report can be found: a query that finds it knows how far to look for the others.
        self.shared.widen(apart);
        open.add(kept, &self.shared.hasher, position, end);
        open.pass(end, |summary| summary.apart = summary.apart.max(apart));
        if open.unflushed() < BATCH_REPORTS {
            return Ok(());
        }
        self.flush()
    }

    /// Puts a batch into sled. If that fails, the reports answer from memory until there are some more:
    /// a full disk has space again when more come in. Then the partition is indexed again.
    fn flush(&mut self) -> Result<(), StoreError> {
        let Some((_, open)) = &self.open else {
            return Ok(());
        };
        if !self.failed_batch {
            let Err(error) = open.flush() else {
                return Ok(());
            };
            error!(%error, "sled refused a batch; the open partition is indexed again soon");
            self.failed_batch = true;
        }
        if open.unflushed() < BATCH_REPORTS + RETRY_REPORTS {
            return Ok(());
        }
        Err(self.failed("sled refused a batch"))
    }

    /// No frame comes for this partition any more: its run is made in the background.
    fn close_partition(&mut self, number: u32) -> Result<(), StoreError> {
        let Some((partition, open)) = self.open.take_if(|(p, _)| p.number <= number) else {
            return Ok(());
        };
        if open.reports_and_apart().0 == 0 && self.log.octets(partition.number) == 0 {
            self.shared.remove(partition.name);
            drop(open);
            return seal::remove_open(&self.shared.layout.open(partition.name));
        }
        let end = partition.end();
        open.pass(end, |_| {});
        partition.close();
        self.finish_sealing();
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("seal".to_owned());
        let sealing = thread.spawn(move || seal::seal(&shared, &partition, open));
        self.sealing = Some(sealing.map_err(StoreError::io(&self.shared.layout.index()))?);
        Ok(())
    }

    fn finish_sealing(&mut self) {
        if let Some(sealing) = self.sealing.take()
            && sealing.join().is_err()
        {
            error!(
                "sealing a partition panicked; it is sealed from the log when retention looks next"
            );
        }
    }

    /// Leaves everything in order.
    fn stop(&mut self) -> Result<(), StoreError> {
        self.finish_sealing();
        if let Some((partition, open)) = self.open.take() {
            let closed = open.close();
            partition.set_source(None);
            drop(open);
            if let Err(error) = closed {
                warn!(%error, "sled did not take the last batch; the next start reads more of the log");
                return Ok(());
            }
        }
        self.marker.leave_in_order(&self.shared.layout)
    }

    /// Runs and sled directories of partitions that the log does not have.
    fn remove_strangers(&self, current: u32) -> Result<(), StoreError> {
        let layout = &self.shared.layout;
        let live = self.log.partitions();
        let imports = import_days(&layout.imports())?;
        let known = |name| match name {
            PartitionName::Live(number) => live.contains(&number),
            PartitionName::Import(day) => imports.contains(&day),
        };
        for entry in read_dir(&layout.runs())? {
            let name = entry.file_name().into_string().unwrap_or_default();
            let named = name.strip_suffix(".run").and_then(|name| name.parse().ok());
            if !named.is_some_and(known) {
                fs::remove_file(entry.path()).map_err(StoreError::io(&entry.path()))?;
            }
        }
        for entry in read_dir(&layout.opens())? {
            let name = entry.file_name().into_string().unwrap_or_default();
            let named = name.parse().ok().filter(|name| known(*name));
            let sealed = named.is_some_and(|name| layout.run(name).exists());
            if named != Some(PartitionName::Live(current)) || sealed {
                fs::remove_dir_all(entry.path()).map_err(StoreError::io(&entry.path()))?;
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str) -> StoreError {
        let open = self.open.as_ref().map(|(partition, _)| partition.name);
        StoreError::Index {
            partition: open.map_or_else(String::new, |name| name.to_string()),
            what: what.to_owned(),
        }
    }
}

/// Where frames go: the newest partition, or the one after it if that was sealed.
pub(crate) fn current_partition(end: Option<Position>, layout: &Layout) -> u32 {
    match end.map(|end| end.partition) {
        None => 1,
        Some(newest) if layout.run(PartitionName::Live(newest)).exists() => newest + 1,
        Some(newest) => newest,
    }
}

/// The days of which imported reports are there, in order.
pub(crate) fn import_days(path: &Path) -> Result<Vec<i64>, StoreError> {
    let mut days: Vec<i64> = read_dir(path)?
        .into_iter()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    days.sort_unstable();
    Ok(days)
}

/// The entries of a directory; one that does not exist has none.
fn read_dir(path: &Path) -> Result<Vec<fs::DirEntry>, StoreError> {
    match fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read
            .and_then(Iterator::collect)
            .map_err(StoreError::io(path)),
    }
}
