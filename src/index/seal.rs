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
}

/// Makes the run of a partition that gets no more frames, and removes its sled.
pub(crate) fn seal(shared: &Shared, partition: &Partition, open: Arc<OpenIndex>) {
    let sealed = from_sled(shared, partition, &open).or_else(|error| {
        warn!(partition = %partition.name, %error, "sealing from the log instead of sled");
        shared.build_run(partition)
    });
    match sealed {
        Ok(run) => {
            let (reports, octets) = (run.summary().reports, run.octets());
            partition.set_source(Some(Source::Run(Arc::new(run))));
            info!(partition = %partition.name, reports, octets, "partition sealed");
            drop(open);
            if let Err(error) = remove_open(&shared.layout.open(partition.name)) {
                warn!(%error, "the sealed partition's sled could not be removed; the next start does");
            }
        }
        // sled goes on answering; the next start tries again.
        Err(error) => {
            error!(partition = %partition.name, %error, "the partition could not be sealed")
        }
    }
}

fn from_sled(shared: &Shared, partition: &Partition, open: &OpenIndex) -> Result<Run, SealError> {
    let _upkeep = shared.upkeep();
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
