//! Retention: whole partitions are dropped when the newest report in them is old enough.

use std::fs;

use jiff::Timestamp;
use tracing::{info, warn};

use super::error::StoreError;
use super::partition::{Partition, PartitionName, Source};
use super::seal;
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
        match self.shared.progress.wait(0) {
            // Partitions that have their index can go: an index in trouble may need their space.
            Ok(()) | Err(StoreError::Unavailable(_)) => {}
            Err(error) => return Err(error),
        }
        self.close_old_partition(now);
        let mut expired = Expired::default();
        for partition in self.shared.all() {
            if partition.is_closed()
                && let Some(source) = partition.source()
                && self.is_old(&partition, &source, now)
            {
                let octets = self.drop_partition(&partition)?;
                let reports = u64::from(source.summary().reports);
                info!(partition = %partition.name, reports, octets, "partition dropped by age");
                expired.partitions += 1;
                expired.reports += reports;
                expired.octets += octets + source.octets();
            }
        }
        // After the dropping: what could not be sealed was mostly short of space.
        for partition in self.shared.all() {
            if partition.is_closed()
                && let Err(error) = seal::retry(&self.shared, &partition)
            {
                warn!(partition = %partition.name, %error, "the partition cannot be sealed yet");
            }
        }
        Ok(expired)
    }

    /// Is all that a partition holds older than the retention? A partition of which something cannot be
    /// read is kept: nobody knows what that was, and a backup may bring it back.
    fn is_old(&self, partition: &Partition, source: &Source, now: Timestamp) -> bool {
        let (arrived, damaged) = source.with_summary(|summary| (summary.arrived, summary.damaged));
        let newest = match arrived {
            Some((_, last)) => Timestamp::from_millisecond(last).ok(),
            None => partition.newest_segment(),
        };
        let old = newest.is_some_and(|newest| {
            let age = now.duration_since(newest);
            age.is_positive() && age.unsigned_abs() > self.options.retention
        });
        if old && damaged {
            warn!(
                partition = %partition.name, directory = %partition.log.directory().display(),
                "the partition is past its retention and kept, because some of it cannot be read; \
                 restore its segments from a backup and run `clawback store reindex`, or remove them"
            );
        }
        old && !damaged
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
