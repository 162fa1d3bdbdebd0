//! Why the store cannot do what it was asked.

use std::io;
use std::path::{Path, PathBuf};

use super::codec::DecodeError;
use super::log::{Position, SegmentError};
use super::open::OpenError;
use super::run::RunError;
use crate::segment::LockError;

/// Why the store cannot do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The report log cannot be read.
    #[error(transparent)]
    Log(#[from] SegmentError),
    /// Another process has the store.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A frame with its checksum right is no report.
    #[error("segment {}-{}, offset {}: {source}", position.partition, position.segment, position.offset)]
    Frame {
        /// Where it stands.
        position: Position,
        /// What is wrong.
        source: DecodeError,
    },
    /// The index of a partition cannot be read, and could not be made again.
    #[error("index of partition {partition}: {what}; run `clawback store reindex`")]
    Index {
        /// The partition.
        partition: String,
        /// What is wrong.
        what: String,
    },
    /// A library that the index rests on panicked. Its files are made again.
    #[error("the index panicked: {0}")]
    Panicked(String),
    /// The index cannot be made now; it is tried again until it can.
    #[error("the index cannot be read now, and is made again as soon as possible: {0}")]
    Unavailable(String),
    /// The indexing thread has ended.
    #[error("the index is closed: {0}")]
    Closed(String),
}

impl StoreError {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Why the index of one partition cannot be used. It is then made again from the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IndexError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("panicked: {0}")]
    Panicked(String),
}
