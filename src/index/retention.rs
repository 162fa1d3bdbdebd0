//! Retention: whole partitions are dropped when the newest report in them is old enough.
//!
//! The clock is not believed blindly: one that went a day ahead would have everything dropped. After
//! such a jump nothing is dropped until the clock has run on for a day.

use std::fs;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{info, warn};

use super::error::StoreError;
use super::partition::{Layout, Partition, PartitionName, Source};
use super::store::{Store, lock};
use crate::segment::{remove_file_durable, write_file_durable};

/// A clock that differs by more than this from the time known before has jumped.
const JUMP: Duration = Duration::from_secs(86_400);

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

/// The time as it was known last.
#[derive(Debug)]
pub(crate) struct Clock {
    last: Timestamp,
    /// Before this nothing is dropped, because the clock went from the first to the second time.
    doubt: Option<(Timestamp, Timestamp, Timestamp)>,
}

impl Clock {
    /// The time that the store was used last, as it says itself; `now` if it is new.
    pub(crate) fn load(layout: &Layout, now: Timestamp) -> Self {
        let known = fs::read_to_string(layout.clock()).ok();
        let mut clock = Self {
            last: known
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(now),
            doubt: None,
        };
        clock.tick(now);
        clock
    }

    /// The clock says `now`.
    fn tick(&mut self, now: Timestamp) {
        let jump = now.duration_since(self.last).unsigned_abs();
        if jump > JUMP {
            let until = now.saturating_add(JUMP).unwrap_or(Timestamp::MAX);
            self.doubt = Some((self.last, now, until));
        }
        self.last = now;
    }

    /// May things be dropped by age?
    fn check(&mut self, now: Timestamp) -> Result<(), StoreError> {
        self.tick(now);
        match self.doubt {
            Some((from, to, until)) if now < until => {
                Err(StoreError::ClockJumped { from, to, until })
            }
            _ => {
                self.doubt = None;
                Ok(())
            }
        }
    }
}

impl Store {
    /// Closes the open partition if it is old, and drops every partition whose newest report is older
    /// than the retention. To be called at least every few hours. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError::ClockJumped`]: nothing was dropped; or what the system said.
    pub fn expire(&self, now: Timestamp) -> Result<Expired, StoreError> {
        self.shared.progress.wait(0)?;
        let believed = lock(&self.upkeep.clock).check(now);
        let clock = self.shared.layout.clock();
        write_file_durable(&clock, now.to_string().as_bytes()).map_err(StoreError::io(&clock))?;
        believed?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_believed_after_a_day() {
        let hour = |n: i64| Timestamp::from_second(1_700_000_000 + n * 3600).unwrap();
        let mut clock = Clock {
            last: hour(0),
            doubt: None,
        };
        for (name, now, believed) in [
            ("an hour later", 1, true),
            ("a day later", 25, true),
            ("two days ahead", 74, false),
            ("still in doubt", 97, false),
            ("a day after the jump", 98, true),
            ("back by three days", 26, false),
            ("a day after that", 50, true),
        ] {
            assert_eq!(clock.check(hour(now)).is_ok(), believed, "{name}");
        }
    }
}
