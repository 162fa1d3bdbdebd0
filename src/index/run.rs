//! The index of a closed partition: one immutable file.
//!
//! ```text
//! magic, format          16 octets
//! blocks                 sorted entries, packed (see `block`)
//! rows                   chunks of 64 rows (see `rows`)
//! spans                  for each chunk: the earliest and the latest time in it
//! fences                 for each block: kind, hash of its first entry, offset
//! filter                 Bloom filter of the rare kinds
//! summary                counts, times, tenants, how far the log is indexed
//! footer                 offset, length and CRC-32 of the five; counts; its own CRC-32; magic
//! ```
//!
//! Spans, fences, filter and summary are in memory (about 8 octets a report); blocks and rows are read when
//! asked for, by position, from the page cache. The file is written beside its place, synced and
//! renamed, so one that exists is whole; should the disk change it, checksums tell, and it is made
//! again from the log.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::block::{Packer, unpack};
use super::bloom::{Bloom, mix};
use super::codec::DecodeError;
use super::key::{Entry, Kind};
use super::rows::{self, CHUNK_OCTETS, CHUNK_ROWS, Chunk, EVER, ROW_OCTETS, Row, Span};
use super::summary::Summary;
use crate::segment::fsync_dir;

const MAGIC: &[u8; 8] = b"CLAWBRUN";
/// Layout of a run that this version writes and reads. An older or newer run is made again.
const FORMAT: u32 = 3;
const HEAD_OCTETS: u64 = 16;
/// Offset, length and checksum of a part.
const PART_OCTETS: usize = 20;
const PARTS: usize = 5;
const FOOTER_OCTETS: usize = PARTS * PART_OCTETS + 8 + 4 + 4 + 8;
const SPAN_OCTETS: usize = 16;
const FENCE_OCTETS: usize = 17;

/// Why a run cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// A piece of it is not what was written.
    #[error("damaged: {0}")]
    Decode(#[from] DecodeError),
}

/// The first entry of a block, and where the block begins.
#[derive(Debug, Clone, Copy)]
struct Fence {
    kind: u8,
    hash: u64,
    offset: u64,
}

/// An open run.
#[derive(Debug)]
pub(crate) struct Run {
    path: PathBuf,
    file: File,
    fences: Vec<Fence>,
    blocks_end: u64,
    rows: u64,
    spans: Vec<Span>,
    entries: u64,
    octets: u64,
    bloom: Bloom,
    summary: Summary,
}

impl Run {
    /// Opens a run and checks all of it that stays in memory.
    pub(crate) fn open(path: &Path) -> Result<Self, RunError> {
        let file = File::open(path)?;
        let octets = file.metadata()?.len();
        let mut head = [0; HEAD_OCTETS as usize];
        read_exact(&file, &mut head, 0)?;
        if head.first_chunk::<8>() != Some(MAGIC) {
            return Err(RunError::Damaged("no run"));
        }
        if head.get(8..12) != Some(&FORMAT.to_le_bytes()[..]) {
            return Err(RunError::Damaged("another format"));
        }
        let footer = Footer::read(&file, octets)?;
        let [rows, spans, fences, bloom, summary] = footer.parts;
        let spans = read_part(&file, spans, octets)?;
        let spans = spans.chunks_exact(SPAN_OCTETS).filter_map(span_from_octets);
        let spans: Vec<_> = spans.collect();
        let fences = read_part(&file, fences, octets)?;
        let fences = fences
            .chunks_exact(FENCE_OCTETS)
            .map(|fence| Fence::from_octets(fence).ok_or(RunError::Damaged("fence")))
            .collect::<Result<Vec<_>, _>>()?;
        let bloom = Bloom::from_octets(&read_part(&file, bloom, octets)?);
        let summary = Summary::decode(&read_part(&file, summary, octets)?)?;
        if spans.len() != (summary.reports as usize).div_ceil(CHUNK_ROWS) {
            return Err(RunError::Damaged("rows"));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            fences,
            blocks_end: rows.offset,
            rows: rows.offset,
            spans,
            entries: footer.entries,
            octets,
            bloom,
            summary,
        })
    }

    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }

    /// Octets of the file.
    pub(crate) fn octets(&self) -> u64 {
        self.octets
    }

    /// Gives `take` the entries of a kind with a hash in `from..=to`, in order.
    pub(crate) fn find(
        &self,
        kind: u8,
        (from, to): (u64, u64),
        mut take: impl FnMut(u64, u32),
    ) -> Result<(), RunError> {
        if from == to && Kind::is_rare(kind) && !self.bloom.may_hold(mix(kind, from)) {
            return Ok(());
        }
        let mut block = Vec::new();
        for place in self.blocks_of(kind, (from, to)) {
            self.read_block(place, &mut block)?;
            unpack(&block, |entry| {
                if entry.hash >= from && entry.hash <= to {
                    take(entry.hash, entry.ordinal);
                }
                entry.hash <= to
            })?;
        }
        Ok(())
    }

    /// How many blocks may hold entries of a kind with a hash in `from..=to`.
    pub(crate) fn block_count(&self, kind: u8, (from, to): (u64, u64)) -> usize {
        if from == to && Kind::is_rare(kind) && !self.bloom.may_hold(mix(kind, from)) {
            return 0;
        }
        self.blocks_of(kind, (from, to)).len()
    }

    /// The rows of those of these ordinals, which ascend, whose `received` is in the span.
    pub(crate) fn rows(
        &self,
        ordinals: &[u32],
        received: Span,
    ) -> Result<Vec<(u32, Row)>, RunError> {
        let mut found = Vec::new();
        let of_a_chunk = |a: &u32, b: &u32| *a as usize / CHUNK_ROWS == *b as usize / CHUNK_ROWS;
        for ordinals in ordinals.chunk_by(of_a_chunk) {
            let Some(chunk) = ordinals.first().map(|first| *first as usize / CHUNK_ROWS) else {
                continue;
            };
            let beyond = RunError::Damaged("an ordinal beyond the rows");
            let span = self.spans.get(chunk).ok_or(beyond)?;
            if !rows::overlap(*span, received) {
                continue;
            }
            let mut octets = [0; CHUNK_OCTETS];
            let rows = self.chunk(chunk, &mut octets)?;
            for ordinal in ordinals {
                let row = rows.row(*ordinal as usize % CHUNK_ROWS);
                let row = row.ok_or(RunError::Damaged("an ordinal beyond the rows"))?;
                if row.received >= received.0 && row.received <= received.1 {
                    found.push((*ordinal, row));
                }
            }
        }
        Ok(found)
    }

    /// A check of every row.
    pub(crate) fn check_rows(&self) -> Result<(), RunError> {
        let ordinals: Vec<u32> = (0..self.summary.reports).collect();
        self.rows(&ordinals, EVER).map(drop)
    }

    fn chunk<'a>(
        &self,
        chunk: usize,
        octets: &'a mut [u8; CHUNK_OCTETS],
    ) -> Result<Chunk<'a>, RunError> {
        let rows = (self.summary.reports as usize).saturating_sub(chunk * CHUNK_ROWS);
        let missing = CHUNK_ROWS.saturating_sub(rows) * ROW_OCTETS;
        let octets = octets.split_at_mut(CHUNK_OCTETS - missing).0;
        let offset = self.rows + (chunk * CHUNK_OCTETS) as u64;
        read_exact(&self.file, octets, offset)?;
        Ok(Chunk::new(octets)?)
    }

    /// Gives `take` every entry in order: also a check of every block.
    pub(crate) fn each(&self, mut take: impl FnMut(Entry)) -> Result<(), RunError> {
        let (mut block, mut count, mut last) = (Vec::new(), 0, None);
        for place in 0..self.fences.len() {
            self.read_block(place, &mut block)?;
            let mut sorted = true;
            unpack(&block, |entry| {
                sorted &= last.is_none_or(|last| last < entry);
                last = Some(entry);
                count += 1;
                take(entry);
                true
            })?;
            if !sorted {
                return Err(RunError::Damaged("entries out of order"));
            }
        }
        if count == self.entries {
            Ok(())
        } else {
            Err(RunError::Damaged("number of entries"))
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Numbers of the blocks that may hold these.
    fn blocks_of(&self, kind: u8, (from, to): (u64, u64)) -> std::ops::Range<usize> {
        let start = self
            .fences
            .partition_point(|f| (f.kind, f.hash) < (kind, from));
        let end = self
            .fences
            .partition_point(|f| (f.kind, f.hash) <= (kind, to));
        let before = start
            .checked_sub(1)
            .and_then(|before| self.fences.get(before))
            .is_some_and(|fence| fence.kind == kind);
        start - usize::from(before)..end
    }

    fn read_block(&self, place: usize, block: &mut Vec<u8>) -> Result<(), RunError> {
        let start = self
            .fences
            .get(place)
            .ok_or(RunError::Damaged("fence"))?
            .offset;
        let end = self
            .fences
            .get(place + 1)
            .map_or(self.blocks_end, |f| f.offset);
        let length = end
            .checked_sub(start)
            .filter(|length| *length <= MAX_BLOCK)
            .ok_or(RunError::Damaged("fences out of order"))?;
        block.resize(length as usize, 0);
        read_exact(&self.file, block, start)
    }
}

/// No block is near this size.
const MAX_BLOCK: u64 = 1 << 20;

/// Writes a run beside its place, syncs it, and puts it there.
///
/// `entries` are sorted and without repeats, `rows` in the order of the ordinals. Which reports are
/// [`alone`](Row::alone) is found here: the entries of one message are neighbours.
pub(crate) fn write<E: From<io::Error>>(
    path: &Path,
    entries: impl Iterator<Item = Result<Entry, E>>,
    rows: impl Iterator<Item = Result<Row, E>>,
    summary: &Summary,
) -> Result<(), E> {
    let temporary = path.with_added_extension("tmp");
    let file = File::create(&temporary)?;
    let mut out = Output {
        file: BufWriter::with_capacity(1 << 16, file),
        offset: 0,
        crc: crc32fast::Hasher::new(),
        part_start: 0,
    };
    out.put(MAGIC)?;
    out.put(&FORMAT.to_le_bytes())?;
    out.put(&[0; 4])?;
    let (mut fences, mut rare, mut count) = (Vec::new(), Vec::new(), 0u64);
    let mut packer = Packer::default();
    let mut block = |out: &mut Output, (first, octets): (Entry, Vec<u8>)| {
        fences.push(first.kind);
        fences.extend_from_slice(&first.hash.to_le_bytes());
        fences.extend_from_slice(&out.offset.to_le_bytes());
        out.put(&octets)
    };
    let mut last: Option<Entry> = None;
    let mut together = HashSet::new();
    for entry in entries {
        let entry = entry?;
        count += 1;
        let same = last.filter(|last| (last.kind, last.hash) == (entry.kind, entry.hash));
        if same.is_none() && Kind::is_rare(entry.kind) {
            rare.push(mix(entry.kind, entry.hash));
        }
        if let Some(last) = same.filter(|last| Kind::is_of_message(last.kind)) {
            together.extend([last.ordinal, entry.ordinal]);
        }
        last = Some(entry);
        if let Some(done) = packer.push(entry) {
            block(&mut out, done)?;
        }
    }
    if let Some(done) = packer.finish() {
        block(&mut out, done)?;
    }
    out.begin_part();
    let (mut chunk, mut spans) = (Vec::with_capacity(CHUNK_ROWS), Vec::new());
    let mut put = |out: &mut Output, chunk: &mut Vec<Row>| {
        let (first, last) = rows::span(chunk);
        spans.extend_from_slice(&first.to_le_bytes());
        spans.extend_from_slice(&last.to_le_bytes());
        out.put(&rows::pack(chunk))?;
        chunk.clear();
        io::Result::Ok(())
    };
    for (ordinal, row) in (0u32..).zip(rows) {
        let alone = !together.contains(&ordinal);
        chunk.push(Row { alone, ..row? });
        if chunk.len() == CHUNK_ROWS {
            put(&mut out, &mut chunk)?;
        }
    }
    if !chunk.is_empty() {
        put(&mut out, &mut chunk)?;
    }
    let mut footer = out.end_part();
    for part in [spans, fences, Bloom::new(&rare).octets(), summary.encode()] {
        out.begin_part();
        out.put(&part)?;
        footer.extend_from_slice(&out.end_part());
    }
    footer.extend_from_slice(&count.to_le_bytes());
    footer.extend_from_slice(&FORMAT.to_le_bytes());
    let crc = crc32fast::hash(&footer);
    footer.extend_from_slice(&crc.to_le_bytes());
    footer.extend_from_slice(MAGIC);
    out.put(&footer)?;
    let file = out
        .file
        .into_inner()
        .map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    fsync_dir(path.parent().unwrap_or_else(|| Path::new(".")))?;
    Ok(())
}

/// The file being written, and the part of it that a checksum is taken of.
struct Output {
    file: BufWriter<File>,
    offset: u64,
    crc: crc32fast::Hasher,
    part_start: u64,
}

impl Output {
    fn put(&mut self, octets: &[u8]) -> io::Result<()> {
        self.file.write_all(octets)?;
        self.offset += octets.len() as u64;
        self.crc.update(octets);
        Ok(())
    }

    fn begin_part(&mut self) {
        self.crc = crc32fast::Hasher::new();
        self.part_start = self.offset;
    }

    /// Offset, length and checksum of what was put since.
    fn end_part(&mut self) -> Vec<u8> {
        let crc = std::mem::take(&mut self.crc).finalize();
        let mut part = Vec::with_capacity(PART_OCTETS);
        part.extend_from_slice(&self.part_start.to_le_bytes());
        part.extend_from_slice(&(self.offset - self.part_start).to_le_bytes());
        part.extend_from_slice(&crc.to_le_bytes());
        part
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Part {
    offset: u64,
    length: u64,
    crc: u32,
}

struct Footer {
    parts: [Part; PARTS],
    entries: u64,
}

impl Footer {
    fn read(file: &File, octets: u64) -> Result<Self, RunError> {
        let short = RunError::Damaged("cut off");
        let offset = octets.checked_sub(FOOTER_OCTETS as u64).ok_or(short)?;
        let mut footer = [0; FOOTER_OCTETS];
        read_exact(file, &mut footer, offset)?;
        let (body, magic) = footer.split_at(FOOTER_OCTETS - MAGIC.len());
        let (body, crc) = body.split_at(body.len() - 4);
        if magic != MAGIC || crc != crc32fast::hash(body).to_le_bytes() {
            return Err(RunError::Damaged("footer"));
        }
        let mut from = super::codec::Reader::new(body);
        let mut parts = [Part::default(); PARTS];
        for part in &mut parts {
            *part = Part {
                offset: u64::from_le_bytes(from.array("part")?),
                length: u64::from_le_bytes(from.array("part")?),
                crc: u32::from_le_bytes(from.array("part")?),
            };
        }
        let entries = u64::from_le_bytes(from.array("entries")?);
        Ok(Self { parts, entries })
    }
}

impl Fence {
    fn from_octets(octets: &[u8]) -> Option<Self> {
        let (kind, rest) = octets.split_first()?;
        let (hash, rest) = rest.split_first_chunk::<8>()?;
        Some(Self {
            kind: *kind,
            hash: u64::from_le_bytes(*hash),
            offset: u64::from_le_bytes(*rest.first_chunk::<8>()?),
        })
    }
}

fn span_from_octets(octets: &[u8]) -> Option<Span> {
    let (first, rest) = octets.split_first_chunk::<8>()?;
    let last = rest.first_chunk::<8>()?;
    Some((i64::from_le_bytes(*first), i64::from_le_bytes(*last)))
}

/// A part whose checksum is right.
fn read_part(file: &File, part: Part, octets: u64) -> Result<Vec<u8>, RunError> {
    if part
        .offset
        .checked_add(part.length)
        .is_none_or(|end| end > octets)
    {
        return Err(RunError::Damaged("a part beyond the end"));
    }
    let length = usize::try_from(part.length).map_err(|_| RunError::Damaged("part"))?;
    let mut read = vec![0; length];
    read_exact(file, &mut read, part.offset)?;
    if crc32fast::hash(&read) == part.crc {
        Ok(read)
    } else {
        Err(RunError::Damaged("checksum of a part"))
    }
}

/// A file that ends too early is damaged, not unreadable.
fn read_exact(file: &File, octets: &mut [u8], offset: u64) -> Result<(), RunError> {
    file.read_exact_at(octets, offset)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => RunError::Damaged("cut off"),
            _ => error.into(),
        })
}
