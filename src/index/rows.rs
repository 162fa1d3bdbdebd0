//! The rows of a partition: for each ordinal where the report stands and when its message was received.
//!
//! They are kept in chunks of 64 with a CRC-32. The span of times of each chunk is in memory, so that
//! a query of some hours reads no chunk of other ones.

use super::block::checked;
use super::codec::DecodeError;

/// Rows in a chunk; the last one of a batch has fewer.
pub(crate) const CHUNK_ROWS: usize = 64;
/// Octets of a full chunk.
pub(crate) const CHUNK_OCTETS: usize = CHUNK_ROWS * ROW_OCTETS + 4;
/// Every time.
pub(crate) const EVER: Span = (i64::MIN, i64::MAX);

/// The earliest and the latest `received`, in milliseconds, both inclusive.
pub(crate) type Span = (i64, i64);

/// Where a report stands and when its message was received: the row of its ordinal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// [`Position::packed`](crate::segment::Position::packed) of its frame.
    pub(crate) place: u64,
    /// `received`, in milliseconds.
    pub(crate) received: i64,
    /// No other report of the partition is of its message. `false` may only mean that nobody looked.
    pub(crate) alone: bool,
}

/// Octets of a [`Row`].
pub(crate) const ROW_OCTETS: usize = 16;

impl Row {
    fn octets(&self) -> [u8; ROW_OCTETS] {
        let mut octets = [0; ROW_OCTETS];
        let (place, received) = octets.split_at_mut(8);
        place.copy_from_slice(&self.place.to_le_bytes());
        // Times that can be told take 49 bits.
        let received_and_flag = self.received << 1 | i64::from(self.alone);
        received.copy_from_slice(&received_and_flag.to_le_bytes());
        octets
    }

    fn from_octets(octets: &[u8]) -> Option<Self> {
        let (place, rest) = octets.split_first_chunk::<8>()?;
        let received = i64::from_le_bytes(*rest.first_chunk::<8>()?);
        Some(Self {
            place: u64::from_le_bytes(*place),
            received: received >> 1,
            alone: received & 1 == 1,
        })
    }
}

/// A chunk of these rows.
pub(crate) fn pack(rows: &[Row]) -> Vec<u8> {
    let mut octets: Vec<u8> = rows.iter().flat_map(Row::octets).collect();
    octets.extend_from_slice(&crc32fast::hash(&octets).to_le_bytes());
    octets
}

/// A chunk whose checksum is right; rows are decoded when they are asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk<'a>(&'a [u8]);

impl<'a> Chunk<'a> {
    pub(crate) fn new(octets: &'a [u8]) -> Result<Self, DecodeError> {
        checked(octets).map(Self)
    }

    pub(crate) fn row(&self, number: usize) -> Option<Row> {
        let row = self.0.get(number * ROW_OCTETS..)?;
        Row::from_octets(row.get(..ROW_OCTETS)?)
    }

    pub(crate) fn rows(self) -> impl Iterator<Item = Row> + 'a {
        self.0.chunks_exact(ROW_OCTETS).filter_map(Row::from_octets)
    }
}

/// The times of a chunk's rows.
pub(crate) fn span(rows: &[Row]) -> Span {
    let times = rows.iter().map(|row| row.received);
    times.fold((i64::MAX, i64::MIN), |(first, last), time| {
        (first.min(time), last.max(time))
    })
}

/// Do they have a time in common?
pub(crate) const fn overlap(a: Span, b: Span) -> bool {
    a.0 <= b.1 && b.0 <= a.1
}
