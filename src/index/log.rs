//! The report log: the truth about what was journaled. The index can always be rebuilt from it.
//!
//! It is a [`Log`] of its own: one partition is what retention drops as a whole, a frame's payload is
//! a record as [`Kept`](super::Kept) encodes it.

use std::path::Path;

pub use crate::segment::{Event, Frame, Log, LogFrames, Position, Purpose, SegmentError};

/// Purpose and payload version in the header of every report segment.
pub const PURPOSE: Purpose = Purpose {
    tag: *b"rept",
    version: 1,
};

/// Opens the report log in a directory; one that does not exist is an empty log.
///
/// # Errors
///
/// As [`Log::open`].
pub fn open(directory: &Path) -> Result<Log, SegmentError> {
    Log::open(directory, PURPOSE)
}
