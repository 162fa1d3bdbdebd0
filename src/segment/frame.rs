//! One frame, and the way from octets to frames and back.
//!
//! `len u32 | crc32 u32 | kind u8 | payload`, little endian. The low 24 bits of `len` are the
//! payload's octets, the high 8 bits a check of the length itself, so that a scan over damage does
//! not follow lengths that are noise. Both checks cover the frame's offset and its file's salt.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crc32fast::Hasher;

/// Octets of a frame besides its payload.
pub const FRAME_OVERHEAD: usize = 9;
/// Most octets in one payload.
pub const MAX_PAYLOAD: usize = (1 << 24) - 1;
/// Octets read at once by a scan.
const WINDOW_OCTETS: usize = 1 << 20;
/// A disk fails by pages: what cannot be read is passed over in steps of this many octets.
const PAGE_OCTETS: usize = 4096;

/// A payload and what it is; `kind` belongs to the log's owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is. The owner of the log gives the numbers.
    pub kind: u8,
    /// At most [`MAX_PAYLOAD`] octets.
    pub payload: Vec<u8>,
}

impl Frame {
    /// A frame of this kind.
    pub const fn new(kind: u8, payload: Vec<u8>) -> Self {
        Self { kind, payload }
    }

    /// Octets that it takes in a file.
    pub const fn octets(&self) -> usize {
        FRAME_OVERHEAD + self.payload.len()
    }
}

/// The fixed part of a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    crc: u32,
}

/// Puts `payload` as a frame that will stand at `offset` at the end of `out`.
///
/// The caller has checked that the payload is not over [`MAX_PAYLOAD`].
pub(super) fn encode(out: &mut Vec<u8>, salt: u64, offset: u64, kind: u8, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX) & 0x00ff_ffff;
    let word = length | u32::from(length_check(salt, offset, length, kind)) << 24;
    out.extend_from_slice(&word.to_le_bytes());
    out.extend_from_slice(&checksum(salt, offset, word, kind, payload).to_le_bytes());
    out.push(kind);
    out.extend_from_slice(payload);
}

/// The head of the frame at `offset`, if these can be its first octets.
pub(super) fn decode_head(octets: &[u8], salt: u64, offset: u64) -> Option<Head> {
    let (word, rest) = octets.split_first_chunk::<4>()?;
    let (crc, rest) = rest.split_first_chunk::<4>()?;
    let kind = *rest.first()?;
    let word = u32::from_le_bytes(*word);
    let length = word & 0x00ff_ffff;
    let check = word.to_le_bytes()[3];
    (length_check(salt, offset, length, kind) == check).then(|| Head {
        length: usize::try_from(length).unwrap_or(usize::MAX),
        kind,
        crc: u32::from_le_bytes(*crc),
    })
}

/// Whether this is the payload that was written behind this head at this offset.
pub(super) fn payload_fits(head: Head, salt: u64, offset: u64, payload: &[u8]) -> bool {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let word = length | u32::from(length_check(salt, offset, length, head.kind)) << 24;
    payload.len() == head.length && checksum(salt, offset, word, head.kind, payload) == head.crc
}

fn length_check(salt: u64, offset: u64, length: u32, kind: u8) -> u8 {
    let mut hasher = place(salt, offset);
    hasher.update(&length.to_le_bytes());
    hasher.update(&[kind]);
    hasher.finalize().to_le_bytes()[0]
}

fn checksum(salt: u64, offset: u64, word: u32, kind: u8, payload: &[u8]) -> u32 {
    let mut hasher = place(salt, offset);
    hasher.update(&word.to_le_bytes());
    hasher.update(&[kind]);
    hasher.update(payload);
    hasher.finalize()
}

fn place(salt: u64, offset: u64) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher
}

/// What a scan found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scanned {
    /// A whole frame.
    Frame {
        /// Its first octet.
        offset: u64,
        /// The frame.
        frame: Frame,
    },
    /// Nothing but an unfinished append follows: the file counts up to here. Only in the newest
    /// segment.
    TornTail {
        /// Octets that count.
        valid_length: u64,
    },
    /// Octets that are no frame, passed over. Never cut off: a later frame may be right.
    Damage {
        /// The first of them.
        offset: u64,
        /// How many.
        length: u64,
    },
}

/// What octets after the last whole frame are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// An append that a crash interrupted: nobody was told that it succeeded.
    Torn,
    /// Damage: the file was closed with whole frames up to its end.
    Damaged,
}

/// Walks over the frames of a file, from an offset up to a length.
///
/// Stops after the first I/O error that is not about a bad page of the disk.
#[derive(Debug)]
pub struct Frames {
    window: Window,
    salt: u64,
    offset: u64,
    tail: Tail,
    done: bool,
}

impl Frames {
    /// The frames of `file` in `from..end`; `end` may be beyond the file's last octet, what is
    /// missing there is then damage or a torn tail too.
    pub(super) const fn new(file: Arc<File>, salt: u64, from: u64, end: u64, tail: Tail) -> Self {
        Self {
            window: Window::new(file, end),
            salt,
            offset: from,
            tail,
            done: from >= end,
        }
    }

    /// The frame at `offset`, if a whole one stands there.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<Frame>> {
        let salt = self.salt;
        let Some(head) = decode_head(self.window.at(offset, FRAME_OVERHEAD)?, salt, offset) else {
            return Ok(None);
        };
        let octets = self.window.at(offset, FRAME_OVERHEAD + head.length)?;
        let payload = octets.get(FRAME_OVERHEAD..).unwrap_or_default();
        Ok(payload_fits(head, salt, offset, payload)
            .then(|| Frame::new(head.kind, payload.to_vec())))
    }

    /// Where the next whole frame begins after a bad one at `offset`.
    fn next_good(&mut self, offset: u64) -> io::Result<Option<u64>> {
        // Mostly the payload is bad and the length is right: then the neighbour is whole.
        let head = decode_head(self.window.at(offset, FRAME_OVERHEAD)?, self.salt, offset);
        if let Some(head) = head {
            let neighbour = offset + octets(FRAME_OVERHEAD + head.length);
            if self.frame_at(neighbour)?.is_some() {
                return Ok(Some(neighbour));
            }
        }
        for candidate in offset + 1..self.window.end {
            if self.frame_at(candidate)?.is_some() {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }

    fn step(&mut self) -> io::Result<Scanned> {
        let offset = self.offset;
        if let Some(frame) = self.frame_at(offset)? {
            self.offset += octets(frame.octets());
            return Ok(Scanned::Frame { offset, frame });
        }
        let next = self.next_good(offset)?;
        self.offset = next.unwrap_or(self.window.end);
        Ok(match (next, self.tail) {
            // What cannot be read may be frames that were acknowledged.
            (None, Tail::Torn) if !self.window.unreadable => Scanned::TornTail {
                valid_length: offset,
            },
            _ => Scanned::Damage {
                offset,
                length: self.offset - offset,
            },
        })
    }
}

impl Iterator for Frames {
    type Item = io::Result<Scanned>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let step = self.step();
        self.done = step.is_err() || self.offset >= self.window.end;
        Some(step)
    }
}

/// A piece of the file in memory.
#[derive(Debug)]
struct Window {
    file: Arc<File>,
    end: u64,
    start: u64,
    octets: Vec<u8>,
    /// Some of the file could not be read.
    unreadable: bool,
}

impl Window {
    const fn new(file: Arc<File>, end: u64) -> Self {
        Self {
            file,
            end,
            start: 0,
            octets: Vec::new(),
            unreadable: false,
        }
    }

    /// `wanted` octets from `offset` on; fewer at the end.
    fn at(&mut self, offset: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(usize::try_from(self.end.saturating_sub(offset)).unwrap_or(wanted));
        let held = self.start..self.start + octets(self.octets.len());
        if !(held.contains(&offset) && offset + octets(wanted) <= held.end) && wanted > 0 {
            self.load(offset, wanted)?;
        }
        let begin = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let rest = self.octets.get(begin..).unwrap_or_default();
        Ok(rest.get(..wanted).unwrap_or(rest))
    }

    fn load(&mut self, offset: u64, wanted: usize) -> io::Result<()> {
        let left = usize::try_from(self.end - offset).unwrap_or(usize::MAX);
        self.octets.resize(wanted.max(WINDOW_OCTETS).min(left), 0);
        self.start = offset;
        let read = match read_full(&self.file, &mut self.octets, offset) {
            Err(error) if is_bad_page(&error) => {
                self.unreadable = true;
                read_by_page(&self.file, &mut self.octets, offset)?
            }
            other => other?,
        };
        self.octets.truncate(read);
        Ok(())
    }
}

/// Whether the disk could not give back this place of the file (EIO).
pub(super) fn is_bad_page(error: &io::Error) -> bool {
    const EIO: i32 = 5;
    error.raw_os_error() == Some(EIO)
}

/// Reads until `octets` is full or the file ends; how many were read.
fn read_full(file: &File, octets: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = octets.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + self::octets(filled)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Like [`read_full`], with zeros for the pages that the disk cannot read: they become damage.
fn read_by_page(file: &File, octets: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    for page in octets.chunks_mut(PAGE_OCTETS) {
        let size = page.len();
        let read = match read_full(file, page, offset + self::octets(filled)) {
            Err(error) if is_bad_page(&error) => {
                page.fill(0);
                size
            }
            other => other?,
        };
        filled += read;
        if read < size {
            break;
        }
    }
    Ok(filled)
}

/// A count of octets in memory as one of octets in a file.
pub(super) fn octets(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const SALT: u64 = 0x1234_5678_9abc_def0;

    fn file_of(octets: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(octets).unwrap();
        Arc::new(file)
    }

    fn encoded(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<u64>) {
        let mut out = Vec::new();
        let mut offsets = Vec::new();
        for payload in payloads {
            let offset = octets(out.len());
            offsets.push(offset);
            encode(&mut out, SALT, offset, 7, payload);
        }
        (out, offsets)
    }

    fn scan(content: &[u8], tail: Tail) -> Vec<Scanned> {
        Frames::new(file_of(content), SALT, 0, octets(content.len()), tail)
            .collect::<io::Result<_>>()
            .unwrap()
    }

    #[test]
    fn a_strangers_frame_in_a_payload_is_never_found() {
        // The stranger knows the layout and the place, not the salt.
        let mut forged = Vec::new();
        encode(&mut forged, 0, octets(FRAME_OVERHEAD), 7, b"forged");
        let (mut content, offsets) = encoded(&[forged, b"after".to_vec()]);
        content[4] ^= 1; // the first frame's checksum
        assert_eq!(
            scan(&content, Tail::Damaged),
            [
                Scanned::Damage {
                    offset: 0,
                    length: offsets[1]
                },
                Scanned::Frame {
                    offset: offsets[1],
                    frame: Frame::new(7, b"after".to_vec())
                },
            ]
        );
    }

    #[test]
    fn zeros_are_no_frames() {
        assert_eq!(
            scan(&[0; 5000], Tail::Torn),
            [Scanned::TornTail { valid_length: 0 }]
        );
    }

    proptest! {
        /// What was encoded is found again, at its place.
        #[test]
        fn frames_come_back(payloads in proptest::collection::vec(any::<Vec<u8>>(), 1..20)) {
            let (content, offsets) = encoded(&payloads);
            let expected: Vec<_> = offsets.iter().zip(&payloads)
                .map(|(&offset, payload)| Scanned::Frame { offset, frame: Frame::new(7, payload.clone()) })
                .collect();
            prop_assert_eq!(scan(&content, Tail::Torn), expected);
        }

        /// A cut loses the frame that it goes through and those after, and says where.
        #[test]
        fn a_cut_is_a_torn_tail(payloads in proptest::collection::vec(any::<Vec<u8>>(), 1..10), cut in any::<prop::sample::Index>()) {
            let (content, mut offsets) = encoded(&payloads);
            let cut = cut.index(content.len());
            offsets.push(octets(content.len()));
            let whole = offsets.iter().filter(|&&end| end > 0 && end <= octets(cut)).count();
            let found = scan(&content[..cut], Tail::Torn);
            let frames = found.iter().filter(|s| matches!(s, Scanned::Frame { .. })).count();
            prop_assert_eq!(frames, whole);
            if offsets[whole] < octets(cut) {
                prop_assert_eq!(found.last(), Some(&Scanned::TornTail { valid_length: offsets[whole] }));
            }
        }

        /// One changed octet costs one frame, and only it.
        #[test]
        fn one_bad_octet_costs_one_frame(payloads in proptest::collection::vec(any::<Vec<u8>>(), 2..10), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (mut content, offsets) = encoded(&payloads);
            let at = at.index(content.len());
            content[at] ^= flip;
            let hit = offsets.iter().rposition(|&o| o <= octets(at)).unwrap();
            let found: Vec<_> = scan(&content, Tail::Damaged).into_iter().filter_map(|s| match s {
                Scanned::Frame { offset, .. } => Some(offset),
                _ => None,
            }).collect();
            let expected: Vec<_> = offsets.iter().enumerate().filter(|(i, _)| *i != hit).map(|(_, o)| *o).collect();
            prop_assert_eq!(found, expected);
        }
    }

    /// Nobody knows what stands in a page that cannot be read: it is never cut off as torn. No address
    /// of the first pages is mapped, so reading them from this process's memory is such an error.
    #[test]
    fn what_cannot_be_read_is_damage_and_no_torn_tail() {
        let memory = Arc::new(File::open("/proc/self/mem").unwrap());
        let scanned: Vec<_> = Frames::new(memory, SALT, 4096, 16_384, Tail::Torn)
            .map(Result::unwrap)
            .collect();
        let damage = Scanned::Damage {
            offset: 4096,
            length: 12_288,
        };
        assert_eq!(scanned, [damage]);
    }
}
