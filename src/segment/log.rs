//! A directory of segments: reading by position, replay in order, retention by partition.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::dir::fsync_dir;
use super::{
    Frame, Frames, HEADER_OCTETS, Header, Previous, Purpose, Scanned, Segment, SegmentError, Tail,
};

/// Segments kept open for reading.
const OPEN_SEGMENTS: usize = 64;

/// Where a frame stands in a log. Order is the order of writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Partition.
    pub partition: u32,
    /// Number of the segment in the partition.
    pub segment: u32,
    /// Octet of the segment file where the frame begins.
    pub offset: u64,
}

impl Position {
    /// Bits of [`packed`](Self::packed) that hold the offset: segments are far below 1 TiB.
    const OFFSET_BITS: u32 = 40;

    /// The first frame of a partition is here or after.
    pub const fn start_of(partition: u32) -> Self {
        Self {
            partition,
            segment: 0,
            offset: 0,
        }
    }

    /// Segment and offset in one number that orders like the position: the value of an index entry,
    /// whose partition is known.
    pub const fn packed(self) -> u64 {
        (self.segment as u64) << Self::OFFSET_BITS | self.offset
    }

    /// The position that [`packed`](Self::packed) gave this number in that partition.
    pub const fn from_packed(partition: u32, packed: u64) -> Self {
        let [a, b, c, ..] = packed.to_be_bytes();
        Self {
            partition,
            segment: u32::from_be_bytes([0, a, b, c]),
            offset: packed & ((1 << Self::OFFSET_BITS) - 1),
        }
    }
}

/// What replay finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole frame.
    Frame(Position, Frame),
    /// Octets that are no frame: the disk or a person changed them. What they held is lost; report it.
    Damage {
        /// The first of them.
        position: Position,
        /// How many.
        length: u64,
    },
    /// A segment none of whose frames can be read.
    Unreadable {
        /// Its first octet.
        position: Position,
        /// Why.
        reason: String,
    },
}

/// A row of segments in a directory, shared by one [`Writer`](super::Writer) and many readers.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    purpose: Purpose,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: BTreeMap<(u32, u32), Slot>,
    /// Used last at the back.
    open: VecDeque<((u32, u32), Arc<Segment>)>,
    torn: u64,
    /// The end of the newest segment could not be read: nothing is written there.
    end_damaged: bool,
}

/// One segment of the row.
#[derive(Debug, Clone)]
struct Slot {
    path: PathBuf,
    /// Octets that count.
    end: u64,
    header: Result<Header, String>,
}

impl Log {
    /// Reads the headers of all segments and the frames of the newest one, to find where it ends.
    /// Nothing is written: a directory that does not exist is an empty log.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NewerFormat`] or [`SegmentError::Foreign`]: refused, as another program's or
    /// version's data. Damage is no error: [`scan`](Self::scan) tells it.
    pub fn open(directory: &Path, purpose: Purpose) -> Result<Self, SegmentError> {
        let mut slots = BTreeMap::new();
        for key in segment_files(directory).map_err(SegmentError::io(directory))? {
            let path = directory.join(Segment::file_name(key.0, key.1));
            let slot = match Segment::open(&path, purpose) {
                Ok(segment) => Slot {
                    end: segment.length().map_err(SegmentError::io(&path))?,
                    header: Ok(*segment.header()),
                    path,
                },
                Err(error @ SegmentError::Header { .. }) => Slot {
                    end: fs::metadata(&path).map_err(SegmentError::io(&path))?.len(),
                    header: Err(error.to_string()),
                    path,
                },
                Err(other) => return Err(other),
            };
            slots.insert(key, slot);
        }
        apply_successors(&mut slots);
        let log = Self {
            directory: directory.to_owned(),
            purpose,
            inner: Mutex::new(Inner {
                slots,
                ..Inner::default()
            }),
        };
        log.find_end()?;
        Ok(log)
    }

    /// The frame at a position, its checksum right.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NoSegment`], [`SegmentError::NoFrame`], or I/O.
    pub fn read(&self, position: Position) -> Result<Frame, SegmentError> {
        self.segment(position)?.read_at(position.offset)
    }

    /// Replaces a frame by one of the same length, durably: erasure in place.
    ///
    /// # Errors
    ///
    /// As [`Segment::overwrite`].
    pub fn overwrite(&self, position: Position, frame: &Frame) -> Result<(), SegmentError> {
        self.segment(position)?.overwrite(position.offset, frame)
    }

    /// What stands in one partition from a position on, up to what is durable now. With
    /// `Position::start_of(partition)`: all of it.
    pub fn scan(&self, from: Position) -> LogFrames {
        let inner = self.lock();
        let first = (from.partition, from.segment);
        let last = (from.partition, u32::MAX);
        let parts = inner
            .slots
            .range(first..=last)
            .map(|(&key, slot)| {
                let start = if key == first { from.offset } else { 0 };
                (key, start.max(HEADER_OCTETS), slot.clone())
            })
            .collect();
        LogFrames {
            purpose: self.purpose,
            parts,
            current: None,
        }
    }

    /// Where the next frame would stand if the newest segment is written on; `None` in an empty log.
    /// Frames at and after this position were committed later than this call began.
    pub fn end(&self) -> Option<Position> {
        let inner = self.lock();
        let (&(partition, segment), slot) = inner.slots.last_key_value()?;
        Some(Position {
            partition,
            segment,
            offset: slot.end.max(HEADER_OCTETS),
        })
    }

    /// The partitions that have a file, oldest first.
    pub fn partitions(&self) -> Vec<u32> {
        let inner = self.lock();
        let mut partitions: Vec<u32> = inner
            .slots
            .keys()
            .map(|&(partition, _)| partition)
            .collect();
        partitions.dedup();
        partitions
    }

    /// Segments of a partition with their headers (`None`: damaged) and octets that count.
    pub fn segments(&self, partition: u32) -> Vec<(u32, Option<Header>, u64)> {
        let inner = self.lock();
        let range = inner.slots.range((partition, 0)..=(partition, u32::MAX));
        range
            .map(|(&(_, number), slot)| (number, slot.header.clone().ok(), slot.end))
            .collect()
    }

    /// Octets of the files of a partition.
    pub fn octets(&self, partition: u32) -> u64 {
        let inner = self.lock();
        let range = inner.slots.range((partition, 0)..=(partition, u32::MAX));
        range.map(|(_, slot)| slot.end).sum()
    }

    /// Octets that a crash had left unfinished at the end of the log and [`open`](Self::open) found.
    pub fn torn_octets(&self) -> u64 {
        self.lock().torn
    }

    /// Removes the files of a partition, durably. The caller sees to it that the writer has left the
    /// partition.
    ///
    /// # Errors
    ///
    /// I/O; the partition is gone from the log, some files may be back after the next start.
    pub fn drop_partition(&self, partition: u32) -> Result<(), SegmentError> {
        let mut paths = Vec::new();
        {
            let mut inner = self.lock();
            inner.open.retain(|((of, _), _)| *of != partition);
            let range = (partition, 0)..=(partition, u32::MAX);
            paths.extend(
                inner
                    .slots
                    .range(range.clone())
                    .map(|(_, s)| s.path.clone()),
            );
            inner.slots.retain(|key, _| !range.contains(key));
        }
        for path in &paths {
            fs::remove_file(path).map_err(SegmentError::io(path))?;
        }
        fsync_dir(&self.directory).map_err(SegmentError::io(&self.directory))
    }

    /// Whether both copies of the header of a position's segment are whole. One is enough to read it.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub fn header_whole(&self, position: Position) -> Result<bool, SegmentError> {
        Ok(self.segment(position)?.header_whole())
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What the log is for.
    pub const fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The newest segment, how much of it counts, and whether it can be written on: for the writer.
    pub(super) fn newest(&self) -> Option<((u32, u32), u64, bool)> {
        let inner = self.lock();
        let (&key, slot) = inner.slots.last_key_value()?;
        Some((key, slot.end, slot.header.is_ok() && !inner.end_damaged))
    }

    /// The writer made a segment.
    pub(super) fn add(&self, segment: &Arc<Segment>) {
        let header = *segment.header();
        let key = (header.partition, header.number);
        let mut inner = self.lock();
        let slot = Slot {
            path: segment.path().to_owned(),
            end: HEADER_OCTETS,
            header: Ok(header),
        };
        inner.slots.insert(key, slot);
        inner.end_damaged = false;
        remember(&mut inner.open, key, Arc::clone(segment));
    }

    /// The writer synced a segment up to here.
    pub(super) fn grow(&self, key: (u32, u32), end: u64) {
        if let Some(slot) = self.lock().slots.get_mut(&key) {
            slot.end = end;
        }
    }

    /// The writer gave up a segment that holds nothing.
    pub(super) fn forget(&self, key: (u32, u32)) {
        let mut inner = self.lock();
        inner.slots.remove(&key);
        inner.open.retain(|(of, _)| *of != key);
    }

    /// The open file of a position's segment.
    pub(super) fn segment(&self, position: Position) -> Result<Arc<Segment>, SegmentError> {
        let key = (position.partition, position.segment);
        let path = {
            let mut inner = self.lock();
            if let Some(at) = inner.open.iter().rposition(|(of, _)| *of == key)
                && let Some((_, segment)) = inner.open.remove(at)
            {
                inner.open.push_back((key, Arc::clone(&segment)));
                return Ok(segment);
            }
            let Some(slot) = inner.slots.get(&key) else {
                return Err(self.no_segment(key));
            };
            slot.path.clone()
        };
        let segment = match Segment::open(&path, self.purpose) {
            Err(SegmentError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(self.no_segment(key));
            }
            opened => Arc::new(opened?),
        };
        let mut inner = self.lock();
        // Dropped meanwhile: an open file would keep its space.
        if !inner.slots.contains_key(&key) {
            return Err(self.no_segment(key));
        }
        remember(&mut inner.open, key, Arc::clone(&segment));
        Ok(segment)
    }

    fn no_segment(&self, (partition, segment): (u32, u32)) -> SegmentError {
        SegmentError::NoSegment {
            path: self.directory.clone(),
            partition,
            segment,
        }
    }

    /// Cuts the newest segment, in memory, to its last whole frame.
    fn find_end(&self) -> Result<(), SegmentError> {
        let Some((key, end, true)) = self.newest() else {
            return Ok(());
        };
        let segment = self.segment(Position {
            partition: key.0,
            segment: key.1,
            offset: 0,
        })?;
        for scanned in segment.frames(0, end, Tail::Torn) {
            match scanned.map_err(SegmentError::io(segment.path()))? {
                Scanned::TornTail { valid_length } => {
                    self.grow(key, valid_length);
                    self.lock().torn = end - valid_length;
                }
                Scanned::Damage { offset, length } if offset + length >= end => {
                    self.lock().end_damaged = true;
                }
                Scanned::Damage { .. } | Scanned::Frame { .. } => {}
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remember(
    open: &mut VecDeque<((u32, u32), Arc<Segment>)>,
    key: (u32, u32),
    segment: Arc<Segment>,
) {
    open.retain(|(of, _)| *of != key);
    open.push_back((key, segment));
    if open.len() > OPEN_SEGMENTS {
        open.pop_front();
    }
}

/// The segments in a directory by their names, in order.
fn segment_files(directory: &Path) -> io::Result<Vec<(u32, u32)>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut keys = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        keys.extend(name.to_str().and_then(Segment::parse_file_name));
    }
    keys.sort_unstable();
    Ok(keys)
}

/// What each header says about the segments before it.
fn apply_successors(slots: &mut BTreeMap<(u32, u32), Slot>) {
    let newest = slots.last_key_value().map(|(&key, _)| key);
    let said: Vec<((u32, u32), Option<Previous>)> = slots
        .iter()
        .filter_map(|(&key, slot)| Some((key, slot.header.as_ref().ok()?.previous)))
        .collect();
    for (key, previous) in said {
        let Some(previous) = previous else {
            continue;
        };
        // Nothing between the two was ever acknowledged.
        let before = (previous.partition, previous.number);
        slots.retain(|&other, _| other >= key || other <= before);
        if let Some(slot) = slots.get_mut(&before) {
            slot.end = previous.length;
        }
    }
    // A crash while the newest was made: its header was not yet durable, so nothing in it counts.
    if let Some(key) = newest
        && slots
            .get(&key)
            .is_some_and(|s| s.header.is_err() && !holds_frames(s))
    {
        slots.remove(&key);
    }
}

/// Whether a file is long enough to hold a frame.
const fn holds_frames(slot: &Slot) -> bool {
    slot.end > HEADER_OCTETS
}

/// What stands in one partition, in order. After an I/O error the rest of that segment is left out.
#[derive(Debug)]
pub struct LogFrames {
    purpose: Purpose,
    parts: VecDeque<((u32, u32), u64, Slot)>,
    current: Option<((u32, u32), Frames)>,
}

impl LogFrames {
    /// Opens the next segment; `None` after the last one.
    fn open_next(&mut self) -> Option<Result<Option<Event>, SegmentError>> {
        let (key, start, slot) = self.parts.pop_front()?;
        if let Err(reason) = slot.header {
            let position = at(key, start);
            return Some(Ok(Some(Event::Unreadable { position, reason })));
        }
        Some(match Segment::open(&slot.path, self.purpose) {
            Ok(segment) => {
                // What a slot says to count was durable: what is no frame there is damage.
                self.current = Some((key, segment.frames(start, slot.end, Tail::Damaged)));
                Ok(None)
            }
            Err(error @ SegmentError::Header { .. }) => Ok(Some(Event::Unreadable {
                position: at(key, start),
                reason: error.to_string(),
            })),
            Err(error) => Err(error),
        })
    }
}

impl Iterator for LogFrames {
    type Item = Result<Event, SegmentError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((key, frames)) = &mut self.current
                && let Some(scanned) = frames.next()
            {
                let key = *key;
                return Some(match scanned {
                    Ok(Scanned::Frame { offset, frame }) => {
                        Ok(Event::Frame(at(key, offset), frame))
                    }
                    Ok(Scanned::Damage { offset, length }) => Ok(Event::Damage {
                        position: at(key, offset),
                        length,
                    }),
                    // Not given for `Tail::Damaged`.
                    Ok(Scanned::TornTail { .. }) => continue,
                    Err(source) => Err(SegmentError::Io {
                        path: Segment::file_name(key.0, key.1).into(),
                        source,
                    }),
                });
            }
            match self.open_next()? {
                Ok(Some(event)) => return Some(Ok(event)),
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

const fn at(key: (u32, u32), offset: u64) -> Position {
    Position {
        partition: key.0,
        segment: key.1,
        offset,
    }
}
