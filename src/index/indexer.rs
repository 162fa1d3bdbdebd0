//! The thread that indexes: first what the log holds at the start, then what the committer hands on.
//!
//! It alone writes to the index of the open partition. If sled fails there, or holds what was not
//! written, its directory is removed and the partition is indexed again from the log; queries wait.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tracing::{error, info, warn};

use super::commit::{Committed, Feed};
use super::error::StoreError;
use super::frame::{KIND_REPORT, Kept};
use super::log::{self, Event, Frame, Log, Position};
use super::marker::Marker;
use super::open::{OpenError, OpenIndex};
use super::partition::{Partition, PartitionName, Source, read_spilled};
use super::run::Run;
use super::seal;
use super::shared::{Known, Shared, after, look_up_open};

/// Reports that are gathered in memory before they go into sled as one batch; a crash costs reading
/// so many again.
const BATCH_REPORTS: usize = 16_384;
/// Reports more after which a failed batch is tried again.
const RETRY_REPORTS: usize = 4096;
/// What is taken from the committer at once.
const TAKEN_AT_ONCE: usize = 1024;

/// The state of the indexing thread.
pub(crate) struct Indexer {
    shared: Arc<Shared>,
    log: Arc<Log>,
    marker: Marker,
    open: Option<(Arc<Partition>, Arc<OpenIndex>)>,
    sealing: Option<JoinHandle<()>>,
    failed_batch: bool,
    starting_over: bool,
}

impl Indexer {
    pub(crate) fn new(shared: Arc<Shared>, log: Arc<Log>, marker: Marker) -> Self {
        Self {
            shared,
            log,
            marker,
            open: None,
            sealing: None,
            failed_batch: false,
            starting_over: false,
        }
    }

    /// Indexes the log up to `end`, which was its end before the committer started; then what `feed`
    /// brings, until the committer ends.
    pub(crate) fn run(mut self, current: u32, end: Option<Position>, feed: &Feed) {
        let outcome = self.recover(current, end).and_then(|()| {
            self.shared.progress.change(|applied| applied.ready = true);
            self.follow(feed)
        });
        let stopped = outcome.and_then(|()| self.stop());
        if let Err(error) = &stopped {
            error!(%error, "the index has stopped; reports are still kept, restart the service to index them");
        }
        let why = stopped.map_or_else(
            |error| error.to_string(),
            |()| "it was shut down".to_owned(),
        );
        self.shared
            .progress
            .change(|applied| applied.ended = Some(why));
        // Reports are kept even without an index: whoever waits for room in the feed goes on.
        while feed.recv(TAKEN_AT_ONCE).is_some() {}
    }

    /// Brings the index of everything that is in the log.
    fn recover(&mut self, current: u32, end: Option<Position>) -> Result<(), StoreError> {
        self.remove_strangers()?;
        let mut missing = Vec::new();
        for partition in self.closed_partitions(current)? {
            if !self.load_run(&partition) {
                missing.push(partition);
            }
        }
        for partition in missing {
            info!(partition = %partition.name, "indexing a closed partition again from the log");
            let run = self.shared.build_run(&partition)?;
            partition.set_source(Some(Source::Run(Arc::new(run))));
            self.shared.put(partition);
        }
        self.open_partition(current, end)
    }

    /// Closed partitions of the live log and of the imports.
    fn closed_partitions(&self, current: u32) -> Result<Vec<Arc<Partition>>, StoreError> {
        let live = self.log.partitions().into_iter().filter(|n| *n < current);
        let mut partitions: Vec<_> = live
            .map(|number| Partition::new(PartitionName::Live(number), Arc::clone(&self.log)))
            .map(Arc::new)
            .collect();
        for day in import_days(&self.shared.layout.imports())? {
            let log = log::open(&self.shared.layout.import(day))?;
            let name = PartitionName::Import(day);
            partitions.push(Arc::new(Partition::new(name, Arc::new(log))));
        }
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
                self.renew(&path, number)?
            }
        };
        let end = end.unwrap_or_else(|| Position::start_of(number));
        self.adopt(partition, open);
        self.replay(end)
    }

    /// An empty index for a partition.
    fn renew(&self, path: &Path, number: u32) -> Result<OpenIndex, StoreError> {
        seal::remove_open(path)?;
        OpenIndex::open(path, number).map_err(|error| self.failed(number, &error))
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
        let from = open.summary().end;
        for event in partition.log.scan(from) {
            match event? {
                Event::Frame(position, _) if position >= end => break,
                Event::Frame(position, frame) => self.apply(position, &frame)?,
                Event::Damage { position, length } => {
                    error!(
                        ?position,
                        length, "the report log is damaged; what stood there is lost"
                    );
                }
                Event::Unreadable { position, reason } => {
                    error!(
                        ?position,
                        reason, "a segment of the report log cannot be read"
                    );
                }
            }
        }
        Ok(())
    }

    fn follow(&mut self, feed: &Feed) -> Result<(), StoreError> {
        while let Some(entries) = feed.recv(TAKEN_AT_ONCE) {
            let mut frames = 0;
            if self.shared.open_damaged.swap(false, Ordering::AcqRel)
                && let Some(end) = self.open.as_ref().map(|(_, open)| open.summary().end)
            {
                self.start_over(end)?;
            }
            for entry in entries {
                match entry {
                    Committed::Frame(position, frame) => {
                        frames += 1;
                        self.arrive(position, &frame)?;
                    }
                    Committed::PartitionClosed(number) => self.close_partition(number)?,
                }
            }
            self.shared
                .progress
                .change(|applied| applied.frames += frames);
        }
        Ok(())
    }

    /// A frame from the committer. The first of a partition opens its index.
    fn arrive(&mut self, position: Position, frame: &Frame) -> Result<(), StoreError> {
        let number = self.open.as_ref().map(|(partition, _)| partition.number);
        if number.is_none_or(|number| number < position.partition) {
            if let Some(number) = number {
                self.close_partition(number)?;
            }
            self.begin_partition(position.partition)?;
        }
        self.apply(position, frame)
    }

    fn begin_partition(&mut self, number: u32) -> Result<(), StoreError> {
        let name = PartitionName::Live(number);
        let partition = Arc::new(Partition::new(name, Arc::clone(&self.log)));
        let open = self.renew(&self.shared.layout.open(name), number)?;
        self.adopt(partition, open);
        Ok(())
    }

    /// Indexes one frame.
    fn apply(&mut self, position: Position, frame: &Frame) -> Result<(), StoreError> {
        let Some((partition, open)) = &self.open else {
            return Ok(());
        };
        let end = after(position, frame.payload.len());
        if frame.kind != KIND_REPORT {
            open.pass(end, |_| {});
            return Ok(());
        }
        let mut kept = match Kept::decode(&frame.payload) {
            Ok(kept) => kept,
            Err(error) => {
                error!(?position, %error, "a frame that is no report is not indexed");
                open.pass(end, |_| {});
                return Ok(());
            }
        };
        read_spilled(&partition.log, &mut kept);
        let here = look_up_open(open, &kept, &self.shared.hasher);
        let elsewhere = match here {
            Known::Repeated => Known::Repeated,
            Known::New { .. } => self.shared.look_up(partition.name, &kept)?,
        };
        let (Known::New { apart: a }, Known::New { apart: b }) = (here, elsewhere) else {
            open.pass(end, |summary| summary.repeated += 1);
            return Ok(());
        };
        let apart = a.max(b);
        // Before the report can be found: a query that finds it knows how far to look for the others.
        self.shared.widen(apart);
        open.add(&kept, &self.shared.hasher, position, end);
        open.pass(end, |summary| summary.apart = summary.apart.max(apart));
        if open.unflushed() < BATCH_REPORTS {
            return Ok(());
        }
        self.flush(end)
    }

    /// Puts a batch into sled. If that fails, the partition is indexed again, after some more reports:
    /// a full disk has space again when more come in.
    fn flush(&mut self, end: Position) -> Result<(), StoreError> {
        let Some((partition, open)) = &self.open else {
            return Ok(());
        };
        if !self.failed_batch {
            let Err(error) = open.flush() else {
                return Ok(());
            };
            error!(%error, "sled refused a batch; the open partition is indexed again soon");
            if self.starting_over {
                return Err(self.failed(partition.number, &error));
            }
            self.failed_batch = true;
        }
        if open.unflushed() < BATCH_REPORTS + RETRY_REPORTS {
            return Ok(());
        }
        self.start_over(end)
    }

    /// Indexes the open partition from the beginning up to `end`.
    fn start_over(&mut self, end: Position) -> Result<(), StoreError> {
        let Some((partition, open)) = self.open.take() else {
            return Ok(());
        };
        self.shared.progress.change(|applied| applied.ready = false);
        partition.set_source(None);
        drop(open);
        let renewed = self.renew(&self.shared.layout.open(partition.name), partition.number)?;
        self.adopt(partition, renewed);
        self.failed_batch = false;
        self.starting_over = true;
        self.replay(end)?;
        self.starting_over = false;
        self.shared.progress.change(|applied| applied.ready = true);
        Ok(())
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
            error!("sealing a partition panicked; its index is made again at the next start");
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
    fn remove_strangers(&self) -> Result<(), StoreError> {
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
            let newest = named.is_some() && named == live.last().map(|n| PartitionName::Live(*n));
            if !newest || sealed {
                fs::remove_dir_all(entry.path()).map_err(StoreError::io(&entry.path()))?;
            }
        }
        Ok(())
    }

    fn failed(&self, number: u32, error: &OpenError) -> StoreError {
        StoreError::Index {
            partition: PartitionName::Live(number).to_string(),
            what: error.to_string(),
        }
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
