//! Figures of the store, and the check that what is kept can be found.

use jiff::Timestamp;

use super::error::StoreError;
use super::frame::{KIND_RECIPIENTS, KIND_REPORT, Kept, decode_spilled};
use super::key::{Entry, Kind};
use super::log::{Event, Position};
use super::partition::{Partition, Source, read_spilled};
use super::rows::EVER;
use super::store::Store;
use crate::telemetry::metric;

/// Figures of a store.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Stats {
    /// Reports, retries not counted.
    pub reports: u64,
    /// Recipients of all reports.
    pub recipients: u64,
    /// Octets of log and index.
    pub octets: u64,
    /// Committed and not yet indexed.
    pub lag: u64,
    /// Its partitions, the newest last.
    pub partitions: Vec<PartitionStats>,
}

/// Figures of a partition.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct PartitionStats {
    /// Its name.
    pub partition: String,
    /// `open` or `sealed`.
    pub state: &'static str,
    /// Reports, retries not counted.
    pub reports: u64,
    /// Retries.
    pub repeated: u64,
    /// Recipients of all reports.
    pub recipients: u64,
    /// Octets of its log.
    pub log_octets: u64,
    /// Octets of its index.
    pub index_octets: u64,
    /// The earliest `received`.
    pub first: Option<Timestamp>,
    /// The latest `received`.
    pub last: Option<Timestamp>,
}

/// What a check found.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Verified {
    /// Partitions looked at.
    pub partitions: u64,
    /// Frames whose checksums are right.
    pub frames: u64,
    /// Reports that were compared with the index.
    pub compared: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Finding {
    /// The partition.
    pub partition: String,
    /// What is wrong, and where.
    pub what: String,
}

impl Store {
    /// Figures of now. While the store indexes again what it held at the start, partitions are missing.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats {
            lag: self.lag(),
            ..Stats::default()
        };
        for partition in self.shared.all() {
            let Some(source) = partition.source() else {
                continue;
            };
            let summary = source.summary();
            let state = match &source {
                Source::Open(_) => "open",
                Source::Run(_) => "sealed",
            };
            let index_octets = source.octets();
            let time = |ms| Timestamp::from_millisecond(ms).ok();
            let log_octets = partition.log.octets(partition.number);
            stats.reports += u64::from(summary.reports);
            stats.recipients += summary.recipients;
            stats.octets += log_octets + index_octets;
            stats.partitions.push(PartitionStats {
                partition: partition.name.to_string(),
                state,
                reports: summary.reports.into(),
                repeated: summary.repeated,
                recipients: summary.recipients,
                log_octets,
                index_octets,
                first: summary.received.and_then(|(first, _)| time(first)),
                last: summary.received.and_then(|(_, last)| time(last)),
            });
        }
        stats
    }

    /// Reads all of the log and the runs, and looks every report up (with `deep`), or every hundredth.
    /// A damaged run is a finding and is made again at once. Blocks, for a minute in a million reports.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the store cannot be read at all. Damage is a finding.
    pub fn verify(&self, deep: bool) -> Result<Verified, StoreError> {
        self.settle()?;
        let mut verified = Verified::default();
        for partition in self.shared.all() {
            let Some(mut source) = partition.source() else {
                continue;
            };
            verified.partitions += 1;
            if let Source::Run(run) = &source
                && let Err(error) = run.each(|_| {}).and_then(|()| run.check_rows())
            {
                let path = run.path().display().to_string();
                self.shared.mend(&partition, &source)?;
                verified.findings.push(Finding {
                    partition: partition.name.to_string(),
                    what: format!("{path}: {error}; it was made again from the log"),
                });
                source = partition.source().unwrap_or(source);
            }
            self.verify_partition(&partition, &source, deep, &mut verified);
        }
        Ok(verified)
    }

    fn verify_partition(
        &self,
        partition: &Partition,
        source: &Source,
        deep: bool,
        verified: &mut Verified,
    ) {
        let mut found = |what: String| {
            verified.findings.push(Finding {
                partition: partition.name.to_string(),
                what,
            });
        };
        let summary = source.summary();
        let ordinals: Vec<u32> = (0..summary.reports).collect();
        let rows = source.rows(&ordinals, EVER).unwrap_or_else(|error| {
            found(format!("rows of the index: {error}"));
            Vec::new()
        });
        let places: std::collections::HashMap<u64, u32> = rows
            .iter()
            .map(|(ordinal, row)| (row.place, *ordinal))
            .collect();
        let mut frames = 0;
        let mut compared = 0;
        let mut repeated = 0;
        for event in partition.log.scan(Position::start_of(partition.number)) {
            match event {
                Ok(Event::Frame(position, _)) if position >= summary.end => break,
                Ok(Event::Frame(position, frame)) => {
                    frames += 1;
                    let step = if deep { 1 } else { 100 };
                    let kept = match frame.kind {
                        KIND_REPORT => Kept::decode(&frame.payload).map(Some),
                        KIND_RECIPIENTS => decode_spilled(&frame.payload).map(|_| None),
                        _ => Ok(None),
                    };
                    match kept {
                        Ok(Some(mut kept)) => match places.get(&position.packed()) {
                            None => repeated += 1,
                            Some(ordinal) if ordinal % step == 0 => {
                                compared += 1;
                                read_spilled(&partition.log, &mut kept);
                                for what in self.missing(source, &kept, *ordinal) {
                                    found(format!("{}: {what}", place(position)));
                                }
                            }
                            Some(_) => {}
                        },
                        Ok(None) => {}
                        Err(error) => found(format!("{}: {error}", place(position))),
                    }
                }
                Ok(Event::Damage { position, length }) => {
                    found(format!("{}: {length} octets are no frame", place(position)));
                }
                Ok(Event::Unreadable { position, reason }) => {
                    found(format!("{}: {reason}", place(position)));
                }
                Err(error) => found(error.to_string()),
            }
        }
        if repeated != summary.repeated {
            let known = summary.repeated;
            found(format!(
                "{repeated} reports are not in the index, but only {known} are retries"
            ));
        }
        verified.frames += frames;
        verified.compared += compared;
    }

    /// Terms of a report under which the index does not have it.
    fn missing(&self, source: &Source, kept: &Kept, ordinal: u32) -> Vec<String> {
        let mut wanted = Vec::new();
        self.shared
            .hasher
            .terms(kept, |kind, hash| wanted.push((kind as u8, hash)));
        for recipient in &kept.recipients {
            let hash = self.shared.hasher.recipient(&kept.tenant, recipient);
            wanted.push((Kind::Recipient as u8, hash));
        }
        wanted.sort_unstable();
        wanted.dedup();
        let mut missing = Vec::new();
        for (kind, hash) in wanted {
            let entry = Entry {
                kind,
                hash,
                ordinal,
            };
            let mut there = false;
            let asked = source.find(kind, (hash, hash), |_, found| there |= found == ordinal);
            match asked {
                Err(error) => missing.push(format!("index: {error}")),
                Ok(()) if !there => missing.push(format!("the index lacks {entry:?}")),
                Ok(()) => {}
            }
        }
        missing
    }

    /// Sets the gauges of the index: lag, partitions, reports, octets.
    pub fn report_metrics(&self) {
        let stats = self.stats();
        metrics::gauge!(metric::INDEX_LAG).set(stats.lag as f64);
        metrics::gauge!(metric::INDEX_PARTITIONS).set(stats.partitions.len() as f64);
        metrics::gauge!(metric::INDEX_REPORTS).set(stats.reports as f64);
        metrics::gauge!(metric::INDEX_OCTETS).set(stats.octets as f64);
    }
}

fn place(position: Position) -> String {
    let Position {
        partition,
        segment,
        offset,
    } = position;
    format!("segment {partition:08}-{segment:04}, offset {offset}")
}
