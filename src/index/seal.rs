//! From the open partition's index to a run.
//!
//! The run is written beside its place, synced and renamed; then it answers, and sled's directory goes.
//! A crash at any point is safe: a run that exists wins, and without one the partition is indexed
//! again from the log.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::error::StoreError;
use super::guard::caught;
use super::open::{OpenError, OpenIndex};
use super::partition::{Partition, Source};
use super::run::{self, Run, RunError};
use super::shared::Shared;

/// Why a partition could not be sealed from sled.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error("sled panicked: {0}")]
    Panicked(String),
}

/// Makes the run of a partition that gets no more frames, and removes its sled.
pub(crate) fn seal(shared: &Shared, partition: &Partition, open: Arc<OpenIndex>) {
    let upkeep = shared.upkeep();
    let sealed = caught(|| from_sled(shared, partition, &open));
    let sealed = sealed
        .unwrap_or_else(|text| Err(SealError::Panicked(text)))
        .or_else(|error| {
            warn!(partition = %partition.name, %error, "sealing from the log instead of sled");
            shared.build_run(partition)
        });
    match sealed {
        Ok(run) => {
            let (reports, octets) = (run.summary().reports, run.octets());
            partition.set_source(Some(Source::Run(Arc::new(run))));
            info!(partition = %partition.name, reports, octets, "partition sealed");
            drop((open, upkeep));
            if let Err(error) = remove_open(&shared.layout.open(partition.name)) {
                warn!(%error, "the sealed partition's sled could not be removed; the next start does");
            }
        }
        // sled goes on answering; retention tries again.
        Err(error) => {
            error!(partition = %partition.name, %error, "the partition could not be sealed")
        }
    }
}

/// Tries again what [`seal`] could not do.
pub(crate) fn retry(shared: &Shared, partition: &Partition) -> Result<(), StoreError> {
    if let Some(source @ Source::Open(_)) = partition.source() {
        shared.mend(partition, &source)?;
        info!(partition = %partition.name, "partition sealed, after an earlier attempt failed");
        drop(source);
        remove_open(&shared.layout.open(partition.name))?;
    }
    Ok(())
}

fn from_sled(shared: &Shared, partition: &Partition, open: &OpenIndex) -> Result<Run, SealError> {
    open.flush()?;
    let summary = open.summary();
    let path = shared.layout.run(partition.name);
    let entries = open.sorted()?.map(|entry| entry.map_err(SealError::from));
    let rows = open.all_rows().map(|row| row.map_err(SealError::from));
    run::write(&path, entries, rows, &summary)?;
    let run = Run::open(&path)?;
    Ok(run)
}

/// Removes a sled directory. It is renamed first: sled may still hold files of the old name for a
/// moment, and the name may be wanted again.
pub(crate) fn remove_open(path: &Path) -> Result<(), StoreError> {
    let gone = path.with_added_extension("gone");
    remove_tree(&gone)?;
    match fs::rename(path, &gone) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(StoreError::io(path)(error)),
        Ok(()) => remove_tree(&gone),
    }
}

fn remove_tree(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::index::frame::Kept;
    use crate::index::key::{Kind, TermHasher};
    use crate::index::open::OpenIndex;
    use crate::index::rows::{EVER, Row};
    use crate::journal::{Envelope, Field, Inner, Recipient};
    use crate::mail::{MessageId, TenantName};
    use crate::segment::Position;

    fn kept(number: i64) -> Kept {
        let recipient = |n: i64| Recipient {
            address: format!("user{n}@x.example").parse().unwrap(),
            field: Field::To,
            expanded_from: None,
            forwarded_from: None,
        };
        Kept {
            tenant: TenantName::new(if number % 7 == 0 {
                "fabrikam"
            } else {
                "contoso"
            }),
            region: None,
            arrived: Timestamp::from_second(1_700_000_000 + number).unwrap(),
            peer: "192.0.2.1".to_owned(),
            outer_message_id: MessageId::new(&format!("r{number}@x")),
            envelope: Envelope {
                subject: Some(format!("number {} of {}", number, number % 5)),
                message_id: MessageId::new(&format!("m{}@x", number / 2)),
                ..Envelope::default()
            },
            envelope_digest: [1; 32],
            recipients: (0..number % 6)
                .map(|n| recipient(n * number % 40))
                .collect(),
            recipient_count: 0,
            spilled: Vec::new(),
            inner: Inner::default(),
            problems: Vec::new(),
        }
    }

    /// A run answers as the sled that it was made from, for every kind, and has the same rows.
    #[test]
    fn a_run_equals_the_sled_it_came_from() {
        let root = tempfile::tempdir().unwrap();
        let hasher = TermHasher::new(&[7; 32]);
        let open = OpenIndex::open(&root.path().join("open"), 3).unwrap();
        for number in 0..900 {
            let place = Position {
                partition: 3,
                segment: 1,
                offset: 1024 + number as u64 * 10,
            };
            open.add(&kept(number), &hasher, place, place);
            // Batches of unequal size, the last one in memory only.
            if matches!(number, 0 | 299 | 640) {
                open.flush().unwrap();
            }
        }
        let in_memory = every_entry(&Source::Open(Arc::new(open)));
        let open = OpenIndex::open(&root.path().join("open2"), 3).unwrap();
        (0..900).for_each(|number| {
            let place = Position {
                partition: 3,
                segment: 1,
                offset: 1024 + number as u64 * 10,
            };
            open.add(&kept(number), &hasher, place, place);
        });
        open.flush().unwrap();
        let path = root.path().join("3.run");
        let entries = open
            .sorted()
            .unwrap()
            .map(|entry| entry.map_err(SealError::from));
        let rows = open.all_rows().map(|row| row.map_err(SealError::from));
        run::write(&path, entries, rows, &open.summary()).unwrap();
        let run = Run::open(&path).unwrap();
        assert_eq!(*run.summary(), open.summary());
        let mut count = 0;
        run.each(|_| count += 1).unwrap();
        assert!(count > 900 * 8, "{count} entries");
        let run = Source::Run(Arc::new(run));
        let sealed = every_entry(&run);
        assert!(sealed == every_entry(&Source::Open(Arc::new(open))));
        assert!(sealed == in_memory);

        // Only the run knows which reports are alone.
        let mut together = vec![0; 900];
        for kind in [Kind::Record, Kind::NetworkMessageId] {
            let entries: Vec<_> = sealed.0.iter().filter(|e| e.0 == kind as u8).collect();
            for chunk in entries.chunk_by(|a, b| a.1 == b.1) {
                chunk
                    .iter()
                    .for_each(|e| together[e.2 as usize] += chunk.len() - 1);
            }
        }
        let ordinals: Vec<u32> = (0..900).collect();
        let alone: Vec<bool> = run
            .rows(&ordinals, EVER)
            .unwrap()
            .iter()
            .map(|(_, row)| row.alone)
            .collect();
        assert_eq!(
            alone,
            together
                .iter()
                .map(|others| *others == 0)
                .collect::<Vec<_>>()
        );
        assert!(alone.contains(&true) && alone.contains(&false));
    }

    /// All entries, each kind sorted, and all rows, as if nobody knew which are alone.
    fn every_entry(source: &Source) -> (Vec<(u8, u64, u32)>, Vec<Row>) {
        let mut entries = Vec::new();
        for kind in 0..=13 {
            let all = (0, u64::MAX);
            source
                .find(kind, all, |hash, ordinal| {
                    entries.push((kind, hash, ordinal))
                })
                .unwrap();
        }
        // A term finds the same alone as in a range.
        for (kind, hash, ordinal) in entries.iter().step_by(97) {
            let mut found = Vec::new();
            source
                .find(*kind, (*hash, *hash), |_, ordinal| found.push(ordinal))
                .unwrap();
            assert!(found.contains(ordinal));
        }
        entries.sort_unstable();
        let ordinals: Vec<u32> = (0..source.summary().reports).collect();
        let rows = source.rows(&ordinals, EVER).unwrap();
        let unknown = |(_, row)| Row {
            alone: false,
            ..row
        };
        (entries, rows.into_iter().map(unknown).collect())
    }
}
