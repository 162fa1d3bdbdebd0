//! One segment file: its header, its frames by offset.
//!
//! The header stands at octets 0 and 4096 in the same words, so that one bad sector or page does not
//! cost the file. Little endian: magic `CLAWBACK`, purpose (4), format u32, content version u32, partition
//! u32, number u32, created (ms) i64, salt u64, previous segment: known u8, partition u32, number
//! u32, length u64; zeros; crc32 of the 508 octets before.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::dir::fsync_dir;
use super::frame::{Frames, Tail, decode_head, encode, is_bad_page, octets, payload_fits};
use super::{FRAME_OVERHEAD, Frame, SegmentError};

/// Octets before the first frame.
pub const HEADER_OCTETS: u64 = SECOND_COPY + COPY_OCTETS as u64;
/// Octets of one copy of the header.
const COPY_OCTETS: usize = 512;
/// Octets read for a frame before its length is known: most reports are shorter.
const FIRST_READ: usize = 4096;
/// Where the second copy stands: a disk reads and fails by pages of this many octets.
const SECOND_COPY: u64 = 4096;
/// Zeros between the two.
const BETWEEN_OCTETS: usize = SECOND_COPY as usize - COPY_OCTETS;
const MAGIC: &[u8; 8] = b"CLAWBACK";
/// Layout of header and frames that this version writes.
const FORMAT: u32 = 1;

/// What a log is for, and the version of its payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purpose {
    /// Four letters in the header: a segment of one log is refused by another.
    pub tag: [u8; 4],
    /// Version of the payloads that this program writes; a higher one is refused.
    pub version: u32,
}

/// The segment before this one, and how much of it counts.
///
/// After a failed sync a file may hold octets that nobody was told of, and the system may be unable
/// to cut them off: the successor's header says where the file ends. Segments with numbers between
/// the two hold nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// Its partition.
    pub partition: u32,
    /// Its number in the partition.
    pub number: u32,
    /// Octets of it that count.
    pub length: u64,
}

/// The facts at the head of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What the log is for.
    pub purpose: Purpose,
    /// Partition: what retention drops as one.
    pub partition: u32,
    /// Place in the partition, from 1.
    pub number: u32,
    /// When the file was made.
    pub created: Timestamp,
    /// Random number that the checksums of this file cover.
    pub salt: u64,
    /// The segment before, if there is one.
    pub previous: Option<Previous>,
}

impl Header {
    fn encode(&self) -> [u8; COPY_OCTETS] {
        let previous = self.previous.unwrap_or(Previous {
            partition: 0,
            number: 0,
            length: 0,
        });
        let mut out = Vec::with_capacity(COPY_OCTETS);
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&self.purpose.tag);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&self.purpose.version.to_le_bytes());
        out.extend_from_slice(&self.partition.to_le_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.extend_from_slice(&self.created.as_millisecond().to_le_bytes());
        out.extend_from_slice(&self.salt.to_le_bytes());
        out.push(u8::from(self.previous.is_some()));
        out.extend_from_slice(&previous.partition.to_le_bytes());
        out.extend_from_slice(&previous.number.to_le_bytes());
        out.extend_from_slice(&previous.length.to_le_bytes());
        out.resize(COPY_OCTETS - 4, 0);
        let crc = crc32fast::hash(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        let mut copy = [0; COPY_OCTETS];
        copy.copy_from_slice(&out);
        copy
    }

    /// The header in one copy, with the format that it claims; `None` if the copy is damaged.
    fn decode(copy: &[u8]) -> Option<(u32, Self)> {
        let (body, crc) = copy.split_last_chunk::<4>()?;
        if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
            return None;
        }
        let mut fields = Fields(body.strip_prefix(MAGIC)?);
        let tag = fields.take::<4>()?;
        let format = u32::from_le_bytes(fields.take()?);
        let version = u32::from_le_bytes(fields.take()?);
        let partition = u32::from_le_bytes(fields.take()?);
        let number = u32::from_le_bytes(fields.take()?);
        let created = Timestamp::from_millisecond(i64::from_le_bytes(fields.take()?)).ok()?;
        let salt = u64::from_le_bytes(fields.take()?);
        let known = fields.take::<1>()? == [1];
        let previous = Previous {
            partition: u32::from_le_bytes(fields.take()?),
            number: u32::from_le_bytes(fields.take()?),
            length: u64::from_le_bytes(fields.take()?),
        };
        let header = Self {
            purpose: Purpose { tag, version },
            partition,
            number,
            created,
            salt,
            previous: known.then_some(previous),
        };
        Some((format, header))
    }
}

/// Fixed-width fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

/// An open segment file.
#[derive(Debug)]
pub struct Segment {
    file: Arc<File>,
    path: PathBuf,
    header: Header,
    header_whole: bool,
}

impl Segment {
    /// File name of a segment: `00000007-0001.log`.
    pub fn file_name(partition: u32, number: u32) -> String {
        format!("{partition:08}-{number:04}.log")
    }

    /// Partition and number that a file name tells, if it is that of a segment.
    pub fn parse_file_name(name: &str) -> Option<(u32, u32)> {
        let (partition, number) = name.strip_suffix(".log")?.split_once('-')?;
        let key = (partition.parse().ok()?, number.parse().ok()?);
        (Self::file_name(key.0, key.1) == name).then_some(key)
    }

    /// Makes the file in `directory`, with its header and its directory entry on stable storage.
    ///
    /// # Errors
    ///
    /// What the system said; the file was removed again as far as the system let us.
    pub fn create(directory: &Path, header: Header) -> io::Result<Self> {
        let path = directory.join(Self::file_name(header.partition, header.number));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        let copy = header.encode();
        let written = file
            .write_all_at(&[&copy[..], &[0; BETWEEN_OCTETS], &copy].concat(), 0)
            .and_then(|()| file.sync_all())
            .and_then(|()| fsync_dir(directory));
        if let Err(error) = written {
            // The first error is the one to tell; a file without frames is passed over when read.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self {
            file: Arc::new(file),
            path,
            header,
            header_whole: true,
        })
    }

    /// Opens a segment for reading, and for writing if the system lets us.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NewerFormat`], [`SegmentError::Foreign`], [`SegmentError::Header`], or I/O.
    pub fn open(path: &Path, purpose: Purpose) -> Result<Self, SegmentError> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => File::open(path),
            other => other,
        }
        .map_err(SegmentError::io(path))?;
        let copy =
            |offset| read_or_zeros::<COPY_OCTETS>(&file, offset).map_err(SegmentError::io(path));
        let (first, second) = (copy(0)?, copy(SECOND_COPY)?);
        let between: [u8; BETWEEN_OCTETS] =
            read_or_zeros(&file, COPY_OCTETS as u64).map_err(SegmentError::io(path))?;
        let whole = first == second && between == [0; BETWEEN_OCTETS];
        let Some((format, header)) = [first, second].iter().find_map(|copy| Header::decode(copy))
        else {
            let path = path.to_owned();
            return Err(SegmentError::Header { path });
        };
        let foreign = |found: String| SegmentError::Foreign {
            path: path.to_owned(),
            found,
        };
        if header.purpose.tag != purpose.tag {
            let tag = String::from_utf8_lossy(&header.purpose.tag).into_owned();
            return Err(foreign(format!("it belongs to {tag:?}")));
        }
        for (found, known) in [(format, FORMAT), (header.purpose.version, purpose.version)] {
            if found > known {
                let path = path.to_owned();
                return Err(SegmentError::NewerFormat { path, found, known });
            }
        }
        let name = Self::file_name(header.partition, header.number);
        if path.file_name().is_none_or(|found| found != name.as_str()) {
            return Err(foreign(format!("its header says {name}")));
        }
        Ok(Self {
            file: Arc::new(file),
            path: path.to_owned(),
            header,
            header_whole: whole,
        })
    }

    /// Writes `frames` behind each other at `offset`, in one call to the system. Durable only after
    /// [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// What the system said; some of the octets may have been written.
    pub fn write(&self, offset: u64, frames: &[Frame]) -> io::Result<u64> {
        let mut buffer = Vec::with_capacity(frames.iter().map(Frame::octets).sum());
        for frame in frames {
            self.encode(&mut buffer, offset, frame);
        }
        self.write_octets(offset, &buffer)?;
        Ok(octets(buffer.len()))
    }

    /// Puts a frame at the end of `buffer`, whose first octet will stand at `start` in the file.
    /// Where the frame will begin.
    pub(super) fn encode(&self, buffer: &mut Vec<u8>, start: u64, frame: &Frame) -> u64 {
        let offset = start + octets(buffer.len());
        encode(buffer, self.header.salt, offset, frame.kind, &frame.payload);
        offset
    }

    pub(super) fn write_octets(&self, offset: u64, buffer: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buffer, offset)
    }

    /// `fdatasync`. After an error the file must not be written to again: the system may have
    /// dropped what it could not write and report success the next time.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Cuts the file to `length` octets; durable only after [`sync`](Self::sync).
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn truncate_to(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }

    /// The frame that begins at `offset`, its checksum right.
    ///
    /// # Errors
    ///
    /// [`SegmentError::NoFrame`] if there is none, or I/O.
    pub fn read_at(&self, offset: u64) -> Result<Frame, SegmentError> {
        let no_frame = || SegmentError::NoFrame {
            path: self.path.clone(),
            offset,
        };
        let exact = |buffer: &mut [u8], at| match self.file.read_exact_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(no_frame()),
            other => other.map_err(SegmentError::io(&self.path)),
        };
        // Nearly all frames are whole in the first read.
        let mut first = [0; FIRST_READ];
        let read = self.file.read_at(&mut first, offset);
        let read = read.map_err(SegmentError::io(&self.path))?;
        let (head, rest) = first
            .get(..read)
            .and_then(|first| first.split_at_checked(FRAME_OVERHEAD))
            .ok_or_else(no_frame)?;
        let head = decode_head(head, self.header.salt, offset).ok_or_else(no_frame)?;
        let mut payload = Vec::with_capacity(head.length);
        payload.extend_from_slice(rest.get(..head.length).unwrap_or(rest));
        let had = payload.len();
        payload.resize(head.length, 0);
        if let Some(missing) = payload.get_mut(had..).filter(|missing| !missing.is_empty()) {
            exact(missing, offset + octets(FRAME_OVERHEAD + had))?;
        }
        if !payload_fits(head, self.header.salt, offset, &payload) {
            return Err(no_frame());
        }
        Ok(Frame::new(head.kind, payload))
    }

    /// Replaces the frame at `offset` by one of the same length, durably. A crash in the middle
    /// leaves damage there: this is for what must not be read again.
    ///
    /// # Errors
    ///
    /// [`SegmentError::OtherLength`], [`SegmentError::NoFrame`] if no whole frame stands there, or I/O.
    pub fn overwrite(&self, offset: u64, frame: &Frame) -> Result<(), SegmentError> {
        let old = self.read_at(offset)?;
        if old.payload.len() != frame.payload.len() {
            return Err(SegmentError::OtherLength {
                path: self.path.clone(),
                offset,
                found: old.payload.len(),
                wanted: frame.payload.len(),
            });
        }
        self.write(offset, std::slice::from_ref(frame))
            .and_then(|_| self.sync())
            .map_err(SegmentError::io(&self.path))
    }

    /// The frames in `from..end`.
    pub fn frames(&self, from: u64, end: u64, tail: Tail) -> Frames {
        Frames::new(
            Arc::clone(&self.file),
            self.header.salt,
            from.max(HEADER_OCTETS),
            end,
            tail,
        )
    }

    /// Octets in the file now, header included.
    ///
    /// # Errors
    ///
    /// What the system said.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// The facts at its head.
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Whether all of the header is as it was written. One copy is enough to read it.
    pub const fn header_whole(&self) -> bool {
        self.header_whole
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A piece of the header; zeros if it is not there or cannot be read.
fn read_or_zeros<const N: usize>(file: &File, offset: u64) -> io::Result<[u8; N]> {
    let mut octets = [0; N];
    match file.read_exact_at(&mut octets, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof || is_bad_page(&error) => {
            Ok([0; N])
        }
        read => read.map(|()| octets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PURPOSE: Purpose = Purpose {
        tag: *b"test",
        version: 3,
    };

    fn header() -> Header {
        Header {
            purpose: PURPOSE,
            partition: 7,
            number: 2,
            created: Timestamp::from_second(1_700_000_000).unwrap(),
            salt: 42,
            previous: Some(Previous {
                partition: 7,
                number: 1,
                length: 4711,
            }),
        }
    }

    fn segment(root: &Path) -> Segment {
        Segment::create(root, header()).unwrap()
    }

    #[test]
    fn names_read_what_they_say() {
        assert_eq!(Segment::file_name(7, 1), "00000007-0001.log");
        for (name, expected) in [
            ("00000007-0001.log", Some((7, 1))),
            ("123456789-12345.log", Some((123_456_789, 12_345))),
            ("7-1.log", None),
            ("+0000007-0001.log", None),
            ("00000007-0001.log.tmp", None),
            ("lock", None),
        ] {
            assert_eq!(Segment::parse_file_name(name), expected, "{name}");
        }
    }

    #[test]
    fn a_header_comes_back_from_either_copy() {
        let root = tempfile::tempdir().unwrap();
        let path = segment(root.path()).path().to_owned();
        for damaged in [None, Some(3), Some(4100)] {
            let mut octets = fs::read(&path).unwrap();
            if let Some(at) = damaged {
                octets[at] ^= 1;
            }
            fs::write(&path, &octets).unwrap();
            let opened = Segment::open(&path, PURPOSE).unwrap();
            assert_eq!(opened.header(), &header(), "{damaged:?}");
            assert_eq!(opened.header_whole(), damaged.is_none(), "{damaged:?}");
            if let Some(at) = damaged {
                octets[at] ^= 1;
                fs::write(&path, &octets).unwrap();
            }
        }
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let path = segment(root.path()).path().to_owned();
        let original = fs::read(&path).unwrap();
        let open = |purpose| Segment::open(&path, purpose).unwrap_err();

        let older = Purpose {
            version: 2,
            ..PURPOSE
        };
        let text = open(older).to_string();
        assert!(
            text.contains("written in format 3, this version reads up to 2"),
            "{text}"
        );
        let other = Purpose {
            tag: *b"else",
            ..PURPOSE
        };
        let text = open(other).to_string();
        assert!(text.contains("belongs to \"test\""), "{text}");
        assert_eq!(fs::read(&path).unwrap(), original);

        // Zeros or noise may have been one of ours.
        for octets in [&[0; 100][..], &[0xa7; 9000]] {
            fs::write(&path, octets).unwrap();
            assert!(matches!(open(PURPOSE), SegmentError::Header { .. }));
        }
    }

    #[test]
    fn frames_are_read_and_overwritten_at_their_place() {
        let root = tempfile::tempdir().unwrap();
        let segment = segment(root.path());
        let frames = [
            Frame::new(1, b"first".to_vec()),
            Frame::new(2, b"second".to_vec()),
        ];
        segment.write(HEADER_OCTETS, &frames).unwrap();
        let second = HEADER_OCTETS + octets(frames[0].octets());
        assert_eq!(segment.read_at(second).unwrap(), frames[1]);
        assert!(matches!(
            segment.read_at(second + 1),
            Err(SegmentError::NoFrame { .. })
        ));

        let erased = Frame::new(9, vec![0; 5]);
        segment.overwrite(HEADER_OCTETS, &erased).unwrap();
        assert_eq!(segment.read_at(HEADER_OCTETS).unwrap(), erased);
        assert_eq!(segment.read_at(second).unwrap(), frames[1]);
        let longer = Frame::new(9, vec![0; 6]);
        let error = segment.overwrite(HEADER_OCTETS, &longer).unwrap_err();
        assert!(matches!(
            error,
            SegmentError::OtherLength {
                found: 5,
                wanted: 6,
                ..
            }
        ));
    }
}
