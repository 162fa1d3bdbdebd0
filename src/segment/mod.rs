//! Append-only files that survive a crash: frames with checksums, in rows of segment files.
//!
//! ```text
//! frame     octets <-> len u32 | crc32 u32 | kind u8 | payload
//! file      one segment: a header written twice, then frames
//! log       a directory of segments, by partition and number: reading, replay, retention
//! writer    appends groups of frames durably; survives a full disk and a failed sync
//! dir       directories whose entries are durable; lock: one process for one directory
//! ```
//!
//! The report log, the state log and the audit log are all such rows. What may be relied on:
//!
//! - [`Writer::append`] returned `Ok`: the frames are on stable storage (`fdatasync` returned 0 on
//!   a file whose header and directory entry were synced before).
//! - An append that failed leaves nothing behind that a later reader would take for damage: what was
//!   written is cut off, or the next segment's header says how much of this one counts.
//! - A frame is found again only with its checksum right. The checksum covers the frame's place in
//!   the file and a random number of the file, so that octets which a stranger put into a payload,
//!   or an old block that the disk brought back, never pass for a frame.
//!
//! All calls go through the C library (`std`), not straight to the kernel: the power-cut and fault
//! tests preload a library between the two.

mod dir;
mod file;
mod frame;
mod lock;
mod log;
mod writer;

use std::io;
use std::path::{Path, PathBuf};

pub use dir::{create_dir_durable, fsync_dir, remove_file_durable, write_file_durable};
pub use file::{HEADER_OCTETS, Header, Previous, Purpose, Segment};
pub use frame::{FRAME_OVERHEAD, Frame, Frames, MAX_PAYLOAD, Scanned, Tail};
pub use lock::{DirectoryLock, LockError};
pub use log::{Event, Log, LogFrames, Position};
pub use writer::{AppendError, SEGMENT_OCTETS, Writer};

/// Why a segment cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SegmentError {
    /// The system refused to read or write.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later version of clawback wrote the file.
    #[error(
        "{}: written in format {found}, this version reads up to {known}; \
         run the version that wrote it (nothing was changed)",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The highest format version that this program reads.
        known: u32,
    },
    /// The file is no segment, or a segment of something else.
    #[error("{}: not a segment of this log ({found}); was a file put there by hand?", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was found instead.
        found: String,
    },
    /// Both copies of the header are damaged.
    #[error("{}: the header is damaged; its frames cannot be read, restore the file from a backup", path.display())]
    Header {
        /// The file.
        path: PathBuf,
    },
    /// No whole frame stands at an offset that should have one.
    #[error("{}: no whole frame at offset {offset}; run `clawback store verify`", path.display())]
    NoFrame {
        /// The file.
        path: PathBuf,
        /// The octet where the frame should begin.
        offset: u64,
    },
    /// The log has no segment of this number: dropped by retention, or never written.
    #[error("{}: no segment {segment} of partition {partition}", path.display())]
    NoSegment {
        /// The log's directory.
        path: PathBuf,
        /// Partition asked for.
        partition: u32,
        /// Segment asked for.
        segment: u32,
    },
    /// A frame can be overwritten only by one of the same length.
    #[error(
        "{}: the frame at offset {offset} holds {found} octets, its replacement {wanted}",
        path.display()
    )]
    OtherLength {
        /// The file.
        path: PathBuf,
        /// The frame's first octet.
        offset: u64,
        /// Octets of payload in the file.
        found: usize,
        /// Octets of payload in the replacement.
        wanted: usize,
    },
}

impl SegmentError {
    /// An I/O error at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// Whether a system's error says that the file system or the quota is full: the peer is told to
/// come back later (452) and nothing else is wrong.
pub fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
