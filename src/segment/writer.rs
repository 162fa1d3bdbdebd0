//! Appends groups of frames to the newest segment of a log, and survives what disks do.

use std::io;
use std::sync::Arc;

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use jiff::Timestamp;
use tracing::{error, warn};

use super::dir::create_dir_durable;
use super::frame::{MAX_PAYLOAD, octets};
use super::{Frame, HEADER_OCTETS, Header, Log, Position, Previous, Segment, is_full};

/// A segment that has reached this length is followed by another of the same partition, so that a
/// start reads no more than this to find the end of the log.
pub const SEGMENT_OCTETS: u64 = 64 << 20;

/// Why frames were not appended. None of them is in the log then, and the next append starts anew:
/// it succeeds as soon as the system lets it.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// The file system or the quota is full.
    #[error("no space left for the log: {0}")]
    Full(#[source] io::Error),
    /// Writing or syncing failed.
    #[error("the log could not be written: {0}")]
    Failed(#[source] io::Error),
    /// A payload is longer than a frame can hold.
    #[error("a frame of {octets} octets is over the limit of {MAX_PAYLOAD}")]
    TooLong {
        /// Octets of the payload.
        octets: usize,
    },
}

impl From<io::Error> for AppendError {
    fn from(error: io::Error) -> Self {
        if is_full(&error) {
            Self::Full(error)
        } else {
            Self::Failed(error)
        }
    }
}

/// The one writer of a [`Log`].
#[derive(Debug)]
pub struct Writer {
    log: Arc<Log>,
    partition: u32,
    segment_octets: u64,
    state: State,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// The newest segment as a start found it: its torn tail is still in the file.
    Found {
        partition: u32,
        number: u32,
        end: u64,
    },
    /// Frames go here.
    Open { segment: Arc<Segment>, end: u64 },
    /// The next append makes a segment with a number above `number`.
    Closed {
        previous: Option<Previous>,
        number: u32,
    },
}

impl Writer {
    /// A writer that goes on where the log ends, in `partition` or a later one that is there
    /// already. Touches nothing yet: on a full disk the service starts all the same.
    pub fn new(log: Arc<Log>, partition: u32) -> Self {
        let newest = log.newest();
        let state = match newest {
            Some(((partition, number), end, true)) => State::Found {
                partition,
                number,
                end,
            },
            Some(((_, number), _, false)) => State::Closed {
                previous: None,
                number,
            },
            None => State::Closed {
                previous: None,
                number: 0,
            },
        };
        let mut writer = Self {
            log,
            partition: newest.map_or(partition, |((newest, _), ..)| newest),
            segment_octets: SEGMENT_OCTETS,
            state,
            buffer: Vec::new(),
        };
        writer.rotate(partition);
        writer
    }

    /// Segments are closed at this length.
    #[must_use]
    pub const fn segment_octets(mut self, octets: u64) -> Self {
        self.segment_octets = octets;
        self
    }

    /// Appends the frames behind each other and syncs them: one write, one `fdatasync`.
    ///
    /// # Errors
    ///
    /// [`AppendError`]: none of the frames counts.
    pub fn append<'a>(
        &mut self,
        frames: impl IntoIterator<Item = &'a Frame>,
    ) -> Result<Vec<Position>, AppendError> {
        let (segment, end) = self.ready()?;
        let key = key_of(&segment);
        let mut positions = Vec::new();
        self.buffer.clear();
        for frame in frames {
            if frame.payload.len() > MAX_PAYLOAD {
                return Err(AppendError::TooLong {
                    octets: frame.payload.len(),
                });
            }
            positions.push(Position {
                partition: key.0,
                segment: key.1,
                offset: segment.encode(&mut self.buffer, end, frame),
            });
        }
        if let Err(error) = segment.write_octets(end, &self.buffer) {
            // What was written of the group is not synced; cut off, it is as if never written.
            let cut = is_full(&error) && segment.truncate_to(end).is_ok();
            if !cut {
                self.give_up(&segment, end, &error);
            }
            return Err(error.into());
        }
        if let Err(error) = segment.sync() {
            self.give_up(&segment, end, &error);
            return Err(error.into());
        }
        let end = end + octets(self.buffer.len());
        self.log.grow(key, end);
        self.state = State::Open { segment, end };
        // One large group must not keep its memory for ever.
        self.buffer.shrink_to(1 << 20);
        Ok(positions)
    }

    /// The next append goes to this partition. Ignored if it is not above the current one.
    pub fn rotate(&mut self, partition: u32) {
        if partition > self.partition {
            self.partition = partition;
            if matches!(self.state, State::Open { .. }) {
                self.close();
            }
        }
    }

    /// The partition that the next append goes to.
    pub const fn partition(&self) -> u32 {
        self.partition
    }

    /// The log that is written.
    pub const fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// An open segment of the current partition with room, and where its next frame goes.
    fn ready(&mut self) -> Result<(Arc<Segment>, u64), AppendError> {
        if let State::Found { .. } = self.state {
            self.resume()?;
        }
        if let State::Open { end, .. } = &self.state
            && *end >= self.segment_octets
        {
            self.close();
        }
        if let State::Open { segment, end } = &self.state {
            return Ok((Arc::clone(segment), *end));
        }
        self.begin()
    }

    /// Takes the segment up that a start found: cuts its torn tail, or leaves it if it is of an older
    /// partition.
    fn resume(&mut self) -> Result<(), AppendError> {
        let State::Found {
            partition,
            number,
            end,
        } = self.state
        else {
            return Ok(());
        };
        let previous = Previous {
            partition,
            number,
            length: end.max(HEADER_OCTETS),
        };
        let closed = State::Closed {
            previous: Some(previous),
            number: if partition == self.partition {
                number
            } else {
                0
            },
        };
        let position = Position {
            partition,
            segment: number,
            offset: end,
        };
        self.state = match self.log.segment(position) {
            // Its header may never have reached the disk; there is nothing in it to keep.
            Ok(segment) if end <= HEADER_OCTETS => State::Closed {
                previous: segment.header().previous,
                number: if partition == self.partition {
                    number
                } else {
                    0
                },
            },
            Ok(segment) if partition == self.partition && cut_tail(&segment, end).is_ok() => {
                State::Open { segment, end }
            }
            Ok(_) => closed,
            Err(error) => {
                warn!(%error, "the newest segment cannot be opened for writing; a new one is begun");
                closed
            }
        };
        Ok(())
    }

    /// Makes the next segment.
    fn begin(&mut self) -> Result<(Arc<Segment>, u64), AppendError> {
        create_dir_durable(self.log.directory())?;
        let State::Closed { previous, number } = &mut self.state else {
            return Err(io::Error::other("a segment is open already").into());
        };
        let segment = loop {
            *number += 1;
            let header = Header {
                purpose: self.log.purpose(),
                partition: self.partition,
                number: *number,
                created: now(),
                salt: random()?,
                previous: *previous,
            };
            match Segment::create(self.log.directory(), header) {
                // Left by an attempt that failed and could not be removed: it holds nothing.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    *number -= 1;
                    return Err(error.into());
                }
                Ok(segment) => break Arc::new(segment),
            }
        };
        self.log.add(&segment);
        self.state = State::Open {
            segment: Arc::clone(&segment),
            end: HEADER_OCTETS,
        };
        Ok((segment, HEADER_OCTETS))
    }

    /// Leaves the open segment, all of which is synced.
    fn close(&mut self) {
        let State::Open { segment, end } = &self.state else {
            return;
        };
        let (partition, number) = key_of(segment);
        self.state = State::Closed {
            previous: Some(Previous {
                partition,
                number,
                length: *end,
            }),
            number: if partition == self.partition {
                number
            } else {
                0
            },
        };
    }

    /// Leaves a segment that failed: it counts up to `end` and is never written to again.
    fn give_up(&mut self, segment: &Segment, end: u64, reason: &io::Error) {
        let path = segment.path().display();
        error!(%path, error = %reason, "the log could not be written; a new segment is begun");
        // Best effort: if it fails, the successor's header says how much of the file counts.
        let _ = segment.truncate_to(end);
        let (partition, number) = key_of(segment);
        let empty = end <= HEADER_OCTETS;
        if empty {
            self.log.forget((partition, number));
            let _ = std::fs::remove_file(segment.path());
        }
        self.state = State::Closed {
            previous: if empty {
                segment.header().previous
            } else {
                Some(Previous {
                    partition,
                    number,
                    length: end,
                })
            },
            number: if partition == self.partition {
                number
            } else {
                0
            },
        };
    }
}

fn key_of(segment: &Segment) -> (u32, u32) {
    (segment.header().partition, segment.header().number)
}

/// Cuts what a crash left behind the last whole frame, durably.
fn cut_tail(segment: &Segment, end: u64) -> io::Result<()> {
    if segment.length()? != end {
        segment.truncate_to(end)?;
        segment.sync()?;
    }
    Ok(())
}

/// When a file is made is a fact for people; nothing is decided by it.
#[expect(clippy::disallowed_methods, reason = "see above")]
fn now() -> Timestamp {
    Timestamp::now()
}

fn random() -> io::Result<u64> {
    let mut octets = [0; 8];
    SystemRandom::new()
        .fill(&mut octets)
        .map_err(|_| io::Error::other("no random numbers from the system"))?;
    Ok(u64::from_le_bytes(octets))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::path::Path;

    use super::*;
    use crate::segment::{Event, Purpose};

    const PURPOSE: Purpose = Purpose {
        tag: *b"test",
        version: 1,
    };

    fn frame(text: &str) -> Frame {
        Frame::new(1, text.as_bytes().to_vec())
    }

    fn open(root: &Path) -> Writer {
        Writer::new(Arc::new(Log::open(root, PURPOSE).unwrap()), 1)
    }

    fn append(writer: &mut Writer, text: &str) -> Position {
        writer.append(&[frame(text)]).unwrap()[0]
    }

    /// The texts in partition 1, damage as `!`.
    fn texts(log: &Log) -> Vec<String> {
        log.scan(Position::start_of(1))
            .map(|event| match event.unwrap() {
                Event::Frame(_, frame) => String::from_utf8(frame.payload).unwrap(),
                _ => "!".to_owned(),
            })
            .collect()
    }

    fn path(root: &Path, number: u32) -> std::path::PathBuf {
        root.join(Segment::file_name(1, number))
    }

    #[test]
    fn a_torn_tail_is_cut_and_written_over() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("log");
        let mut writer = open(&root);
        append(&mut writer, "kept");
        let end = append(&mut writer, "torn").offset;
        drop(writer);
        let file = OpenOptions::new().write(true).open(path(&root, 1)).unwrap();
        file.set_len(end + 5).unwrap();
        let mut writer = open(&root);
        assert_eq!(writer.log().torn_octets(), 5);
        assert_eq!(append(&mut writer, "x").offset, end);
        assert_eq!(texts(writer.log()), ["kept", "x"]);
        assert_eq!(texts(open(&root).log()), ["kept", "x"]);
    }

    #[test]
    fn damage_is_told_and_never_cut() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path());
        let positions = ["a", "b", "c"].map(|text| append(&mut writer, text));
        drop(writer);
        let mut octets = fs::read(path(root.path(), 1)).unwrap();
        octets[usize::try_from(positions[1].offset).unwrap()] ^= 1;
        fs::write(path(root.path(), 1), octets).unwrap();
        let mut writer = open(root.path());
        append(&mut writer, "d");
        assert_eq!(texts(writer.log()), ["a", "!", "c", "d"]);
        assert_eq!(texts(open(root.path()).log()), ["a", "!", "c", "d"]);
    }

    #[test]
    fn a_missing_end_of_a_closed_segment_is_damage() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path()).segment_octets(1);
        append(&mut writer, "first");
        append(&mut writer, "second");
        drop(writer);
        let file = OpenOptions::new()
            .write(true)
            .open(path(root.path(), 1))
            .unwrap();
        file.set_len(HEADER_OCTETS + 3).unwrap();
        assert_eq!(texts(open(root.path()).log()), ["!", "second"]);
    }

    #[test]
    fn octets_beyond_what_the_successor_says_do_not_count() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path()).segment_octets(1);
        append(&mut writer, "first");
        append(&mut writer, "second");
        drop(writer);
        let mut octets = fs::read(path(root.path(), 1)).unwrap();
        octets.extend_from_slice(b"what a failed sync left");
        fs::write(path(root.path(), 1), octets).unwrap();
        assert_eq!(texts(open(root.path()).log()), ["first", "second"]);
    }

    #[test]
    fn a_half_made_segment_is_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path());
        append(&mut writer, "first");
        drop(writer);
        fs::write(path(root.path(), 2), [0; 100]).unwrap();
        let mut writer = open(root.path()).segment_octets(1);
        append(&mut writer, "second");
        assert_eq!(texts(writer.log()), ["first", "second"]);
        assert_eq!(texts(open(root.path()).log()), ["first", "second"]);
    }

    #[test]
    fn a_damaged_header_does_not_hide_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let mut writer = open(root.path()).segment_octets(1);
        append(&mut writer, "first");
        append(&mut writer, "second");
        drop(writer);
        let mut octets = fs::read(path(root.path(), 1)).unwrap();
        octets[20] ^= 1;
        octets[4096 + 20] ^= 1;
        fs::write(path(root.path(), 1), octets).unwrap();
        let mut writer = open(root.path());
        append(&mut writer, "third");
        assert_eq!(texts(writer.log()), ["!", "second", "third"]);
    }
}
