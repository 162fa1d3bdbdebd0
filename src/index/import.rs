//! Reports that are imported: kept by their own date.
//!
//! Each day (UTC) of imported reports is a partition with a log of its own, so that retention counts
//! from the reports' own dates and the feed's partitions stay in order. Frames are appended a batch at a
//! time; when the import is finished, or dropped, each day's run is made from its log, the whole of
//! it. A crash before that costs nothing: a run that does not cover its log is made again at the next
//! start. A report that the store has, from the feed or an import, is not kept again.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::error::StoreError;
use super::frame::{KIND_RECIPIENTS, KIND_REPORT, Kept, encode_spilled};
use super::identity::{ReportKey, record_id, report_key};
use super::log::{self, Frame};
use super::partition::{IMPORT_PARTITION, Partition, PartitionName, Source};
use super::shared::{Known, OnDamage};
use super::store::{Committed, NewReport, Store};
use crate::segment::{AppendError, Writer, create_dir_durable};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;
/// Octets of frames that are written and synced at once.
const BATCH_OCTETS: usize = 1 << 20;
/// Recipients in one frame.
const RECIPIENTS_PER_FRAME: usize = 1000;

/// What became of an imported report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Imported {
    /// It is new.
    New(Committed),
    /// The store has it.
    Known(Committed),
}

/// Why an import cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The log cannot be written.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An import under way. Blocking: for a thread of its own. One at a time.
#[derive(Debug)]
pub struct Importer {
    store: Store,
    days: BTreeMap<i64, Day>,
    seen: HashSet<ReportKey>,
}

/// The log of a day, and what is not yet written.
#[derive(Debug)]
struct Day {
    partition: Arc<Partition>,
    writer: Writer,
    batch: Vec<Frame>,
    octets: usize,
}

impl Store {
    /// Begins an import.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the index is closed.
    pub fn import(&self) -> Result<Importer, StoreError> {
        self.settle()?;
        Ok(Importer {
            store: self.clone(),
            days: BTreeMap::new(),
            seen: HashSet::new(),
        })
    }
}

impl Importer {
    /// Takes a report with all its recipients; `arrived` is its own date. It is durable and visible
    /// after [`finish`](Self::finish).
    ///
    /// # Errors
    ///
    /// [`ImportError`]: the report is not taken.
    pub fn add(&mut self, new: NewReport) -> Result<Imported, ImportError> {
        let day = new.arrived.as_millisecond().div_euclid(DAY_MS);
        let name = PartitionName::Import(day);
        let mut kept = Kept::new(
            new.tenant,
            new.region,
            new.arrived,
            new.peer,
            new.report,
            Vec::new(),
        );
        let committed = Committed {
            record: record_id(&kept),
            recipients: kept.recipient_count,
        };
        // No partition has this name: all of them are asked.
        let nowhere = PartitionName::Import(i64::MIN);
        let known = self.store.shared.look_up(nowhere, &kept, OnDamage::Mend);
        if known == Known::Repeated || !self.seen.insert(report_key(&kept)) {
            return Ok(Imported::Known(committed));
        }
        let entry = match self.days.entry(day) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Day::open(&self.store, name, day)?)
            }
        };
        while kept.recipients.len() > RECIPIENTS_PER_FRAME {
            let rest = kept.recipients.split_off(RECIPIENTS_PER_FRAME);
            let chunk = std::mem::replace(&mut kept.recipients, rest);
            // Positions are known only once it is written.
            let frame = Frame::new(KIND_RECIPIENTS, encode_spilled(&chunk));
            entry.write()?;
            kept.spilled.extend(entry.writer.append([&frame])?);
        }
        entry.push(Frame::new(KIND_REPORT, kept.encode()))?;
        Ok(Imported::New(committed))
    }

    /// Writes what is left and makes it visible.
    ///
    /// # Errors
    ///
    /// [`ImportError`]: some days of the import are not visible before the next start.
    pub fn finish(mut self) -> Result<(), ImportError> {
        let days = std::mem::take(&mut self.days);
        for (_, mut day) in days {
            day.write()?;
            let shared = &self.store.shared;
            let _upkeep = shared.upkeep();
            let run = shared.build_run(&day.partition)?;
            let source = Some(Source::Run(Arc::new(run)));
            day.partition.set_source(source);
            day.partition.close();
            shared.put(day.partition);
        }
        Ok(())
    }
}

impl Day {
    fn open(store: &Store, name: PartitionName, day: i64) -> Result<Self, ImportError> {
        let shared = &store.shared;
        let partition = match shared.partition(name) {
            Some(partition) => partition,
            None => {
                let directory = shared.layout.import(day);
                create_dir_durable(&directory).map_err(StoreError::io(&directory))?;
                let log = log::open(&directory).map_err(StoreError::from)?;
                Arc::new(Partition::new(name, Arc::new(log)))
            }
        };
        let writer = Writer::new(Arc::clone(&partition.log), IMPORT_PARTITION);
        Ok(Self {
            partition,
            writer,
            batch: Vec::new(),
            octets: 0,
        })
    }

    fn push(&mut self, frame: Frame) -> Result<(), AppendError> {
        self.octets += frame.octets();
        self.batch.push(frame);
        if self.octets < BATCH_OCTETS {
            return Ok(());
        }
        self.write()
    }

    fn write(&mut self) -> Result<(), AppendError> {
        if !self.batch.is_empty() {
            self.writer.append(&self.batch)?;
            self.batch.clear();
            self.octets = 0;
        }
        Ok(())
    }
}
