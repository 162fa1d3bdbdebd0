//! Retention: whole partitions are dropped when the newest report in them is old enough.

use std::fs;

use jiff::Timestamp;
use tracing::{info, warn};

use super::error::StoreError;
use super::partition::{Partition, PartitionName, Source};
use super::store::Store;
use crate::segment::remove_file_durable;

/// What was dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Partitions.
    pub partitions: u64,
    /// Reports that were in them.
    pub reports: u64,
    /// Octets of their files.
    pub octets: u64,
}

impl Store {
    /// Closes the open partition if it is old, and drops every partition whose newest report is older
    /// than the retention. `now` must be a time that is believed. To be called at least every few hours. Blocks.
    ///
    /// # Errors
    ///
    /// The index has ended, or what the system said.
    pub fn expire(&self, now: Timestamp) -> Result<Expired, StoreError> {
        self.shared.progress.wait(0)?;
        self.close_old_partition(now);
        let mut expired = Expired::default();
        for partition in self.shared.all() {
            let Some(Source::Run(run)) = partition.source() else {
                continue;
            };
            let newest = run.summary().arrived.map(|(_, last)| last);
            let old = newest
                .and_then(|last| Timestamp::from_millisecond(last).ok())
                .is_none_or(|last| {
                    let age = now.duration_since(last);
                    age.is_positive() && age.unsigned_abs() > self.options.retention
                });
            if old {
                let octets = self.drop_partition(&partition)?;
                let reports = u64::from(run.summary().reports);
                info!(partition = %partition.name, reports, octets, "partition dropped by age");
                expired.partitions += 1;
                expired.reports += reports;
                expired.octets += octets + run.octets();
            }
        }
        Ok(expired)
    }

    /// Removes a closed partition: its index first, so that a crash in between leaves what the next
    /// start indexes again. The octets of its log.
    fn drop_partition(&self, partition: &Partition) -> Result<u64, StoreError> {
        let _upkeep = self.shared.upkeep();
        self.shared.remove(partition.name);
        partition.set_source(None);
        let run = self.shared.layout.run(partition.name);
        remove_file_durable(&run).map_err(StoreError::io(&run))?;
        let octets = partition.log.octets(partition.number);
        partition.log.drop_partition(partition.number)?;
        if let PartitionName::Import(day) = partition.name {
            let directory = self.shared.layout.import(day);
            if let Err(error) = fs::remove_dir_all(&directory) {
                warn!(path = %directory.display(), %error, "the directory of a dropped import stays");
            }
        }
        Ok(octets)
    }
}
