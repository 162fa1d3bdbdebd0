//! The index of the open partition: the newest entries in memory, the rest in sled.
//!
//! Some thousand reports are gathered in memory, sorted, packed into the blocks that runs are made of,
//! and put into sled as one batch; then the watermark says how far the log is indexed. So sled takes
//! a few hundred values for a batch instead of some twenty keys for every report, and a crash costs
//! reading at most one batch from the log again. Nothing here is the truth: in any doubt the directory
//! is removed and made again from the log.
//!
//! ```text
//! w3                                           watermark: number of batches, summary
//! e · batch u32 · kind u8 · hash u64 · ordinal u32     a block, under its first entry
//! r · first ordinal u32                                a chunk of rows
//! ```
//! Numbers in keys are big endian, so that they order as they count.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use sled::Tree;

use super::block::{Packer, checked, unpack};
use super::bloom::{Bloom, mix};
use super::codec::{DecodeError, Reader};
use super::frame::Kept;
use super::key::{Entry, Kind, TermHasher};
use super::rows::{self, CHUNK_ROWS, Chunk, Row, Span};
use super::summary::Summary;
use crate::segment::Position;

/// Cache of sled, in octets. A partition's blocks take about 20 MB.
const CACHE_OCTETS: u64 = 32 << 20;
/// How often sled writes by itself, in milliseconds. Only shortens the replay after a crash.
const FLUSH_EVERY_MS: u64 = 500;
/// The number is that of the layout: what another one left has no watermark and is removed.
const WATERMARK: &[u8] = b"w3";

/// Why the open partition's index cannot be used. It is then made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// sled refused.
    #[error(transparent)]
    Sled(#[from] sled::Error),
    /// Something is not what was written.
    #[error("damaged: {0}")]
    Decode(#[from] DecodeError),
}

/// Index of the open partition. One thread writes, many read.
#[derive(Debug)]
pub(crate) struct OpenIndex {
    db: sled::Db,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    /// What is in no batch yet.
    entries: BTreeSet<Entry>,
    rows: Vec<Row>,
    /// The chunks of rows in sled: first ordinal, times.
    chunks: Vec<(u32, Span)>,
    /// Batches that are whole in sled.
    batches: u32,
    summary: Summary,
    /// For each batch the rare terms in it: most batches need not be read for one.
    filters: Vec<Bloom>,
    /// The first report under each term that tells reports and messages apart.
    first: HashMap<(u8, u64), First>,
}

/// The first report under an identity.
#[derive(Debug, Clone, Copy)]
struct First {
    ordinal: u32,
    /// The earliest and the latest `received` under it.
    received: (i64, i64),
    /// Another one has it too.
    more: bool,
}

/// What two reports of one message, or a report and its retry, have in common.
pub(crate) const fn is_identity(kind: u8) -> bool {
    kind == Kind::Record as u8 || kind == Kind::Report as u8 || kind == Kind::NetworkMessageId as u8
}

impl State {
    /// Ordinals below are in sled.
    fn in_sled(&self) -> u32 {
        self.summary.reports - self.rows.len() as u32
    }

    /// What is in memory only, as it will be in sled, with the first ordinal of each chunk.
    fn row_chunks(&self) -> impl Iterator<Item = (u32, &[Row])> {
        let first = self.in_sled();
        let chunks = self.rows.chunks(CHUNK_ROWS).enumerate();
        chunks.map(move |(number, rows)| (first + (number * CHUNK_ROWS) as u32, rows))
    }
}

impl OpenIndex {
    /// Opens what is there, or begins anew for a partition.
    ///
    /// # Errors
    ///
    /// [`OpenError`]: the caller removes the directory and makes it again.
    pub(crate) fn open(path: &Path, partition: u32) -> Result<Self, OpenError> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_OCTETS)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()?;
        let (batches, summary) = match db.get(WATERMARK)? {
            None => (0, Summary::new(Position::start_of(partition))),
            Some(value) => {
                let mut from = Reader::new(checked(&value)?);
                let batches = u32::from_be_bytes(from.array("batches")?);
                (batches, Summary::decode(from.raw(from.left(), "summary")?)?)
            }
        };
        let state = State {
            entries: BTreeSet::new(),
            rows: Vec::new(),
            chunks: Vec::new(),
            batches,
            summary,
            filters: Vec::new(),
            first: HashMap::new(),
        };
        let open = Self {
            db,
            state: RwLock::new(state),
        };
        open.remove_unfinished()?;
        open.find_held()?;
        Ok(open)
    }

    /// Takes in a report that stands at `place`; the log is indexed up to `end` then.
    pub(crate) fn add(&self, kept: &Kept, hasher: &TermHasher, place: Position, end: Position) {
        let received = kept.received().as_millisecond();
        let mut terms = Vec::with_capacity(32);
        hasher.terms(kept, |kind, hash| terms.push((kind as u8, hash)));
        for recipient in &kept.recipients {
            let hash = hasher.recipient(&kept.tenant, recipient);
            terms.push((Kind::Recipient as u8, hash));
        }
        let state = &mut *self.write();
        let ordinal = state.summary.reports;
        for (kind, hash) in terms {
            if is_identity(kind) {
                meet(&mut state.first, (kind, hash), (ordinal, received));
            }
            state.entries.insert(Entry {
                kind,
                hash,
                ordinal,
            });
        }
        state.rows.push(Row {
            place: place.packed(),
            received,
            alone: false,
        });
        state.summary.add(kept);
        state.summary.end = end;
    }

    /// Takes note of a frame that adds no report.
    pub(crate) fn pass(&self, end: Position, note: impl FnOnce(&mut Summary)) {
        let state = &mut *self.write();
        state.summary.end = end;
        note(&mut state.summary);
    }

    /// Takes note of something that is no frame.
    pub(crate) fn note(&self, note: impl FnOnce(&mut Summary)) {
        note(&mut self.write().summary);
    }

    /// Puts what is in memory into sled as a batch, and the watermark after it.
    pub(crate) fn flush(&self) -> Result<(), OpenError> {
        {
            let state = self.read();
            self.write_batch(&state)?;
            let watermark = sealed(state.batches + 1, &state.summary);
            self.db.insert(WATERMARK, watermark)?;
        }
        let state = &mut *self.write();
        state.batches += 1;
        let rare = state
            .entries
            .iter()
            .filter(|entry| Kind::is_rare(entry.kind));
        let rare: Vec<_> = rare.map(|entry| mix(entry.kind, entry.hash)).collect();
        state.filters.push(Bloom::new(&rare));
        let chunks = state.row_chunks();
        let spans: Vec<_> = chunks
            .map(|(first, rows)| (first, rows::span(rows)))
            .collect();
        state.chunks.extend(spans);
        state.entries.clear();
        state.rows.clear();
        Ok(())
    }

    /// Makes sled write to its files what it holds in memory: for an orderly stop, never while a
    /// peer waits.
    pub(crate) fn close(&self) -> Result<(), OpenError> {
        self.flush()?;
        self.db.flush()?;
        Ok(())
    }

    pub(crate) fn summary(&self) -> Summary {
        self.read().summary.clone()
    }

    pub(crate) fn with_summary<T>(&self, look: impl FnOnce(&Summary) -> T) -> T {
        look(&self.read().summary)
    }

    /// The summary's number of reports and the furthest that two of one message are apart.
    pub(crate) fn reports_and_apart(&self) -> (u32, i64) {
        let state = self.read();
        (state.summary.reports, state.summary.apart)
    }

    /// Octets of its files.
    pub(crate) fn octets(&self) -> u64 {
        self.db.size_on_disk().unwrap_or(0)
    }

    /// Reports that are in memory only.
    pub(crate) fn unflushed(&self) -> usize {
        self.read().rows.len()
    }

    /// The earliest and the latest `received` of the reports under an identity.
    pub(crate) fn received(&self, kind: u8, hash: u64) -> Option<(i64, i64)> {
        let state = self.read();
        let first = state.first.get(&(kind, hash))?;
        Some(first.received)
    }

    /// Gives `take` the entries of a kind with a hash in `from..=to`; those of one term are in order.
    pub(crate) fn find(
        &self,
        kind: u8,
        (from, to): (u64, u64),
        mut take: impl FnMut(u64, u32),
    ) -> Result<(), OpenError> {
        let state = self.read();
        let rare = from == to && Kind::is_rare(kind);
        if from == to && is_identity(kind) {
            match state.first.get(&(kind, from)) {
                None => return Ok(()),
                Some(first) if !first.more => {
                    take(from, first.ordinal);
                    return Ok(());
                }
                Some(_) => {}
            }
        }
        for (batch, filter) in (0..state.batches).zip(&state.filters) {
            if rare && !filter.may_hold(mix(kind, from)) {
                continue;
            }
            for value in self.blocks(batch, kind, (from, to))? {
                unpack(&value?.1, |entry| {
                    if entry.kind == kind && entry.hash >= from && entry.hash <= to {
                        take(entry.hash, entry.ordinal);
                    }
                    entry.hash <= to
                })?;
            }
        }
        for entry in state.entries.range(bounds(kind, (from, to))) {
            take(entry.hash, entry.ordinal);
        }
        Ok(())
    }

    /// About how many entries [`find`](Self::find) would give.
    pub(crate) fn estimate(&self, kind: u8, range: (u64, u64)) -> Result<u64, OpenError> {
        let state = self.read();
        let mut count = state.entries.range(bounds(kind, range)).take(512).count() as u64;
        for batch in 0..state.batches {
            let blocks = self.blocks(batch, kind, range)?.take(64).count() as u64;
            count += blocks.saturating_sub(1) * 512;
        }
        Ok(count)
    }

    /// The rows of those of these ordinals, which ascend, whose `received` is in the span.
    pub(crate) fn rows(
        &self,
        ordinals: &[u32],
        received: Span,
    ) -> Result<Vec<(u32, Row)>, OpenError> {
        let state = self.read();
        let (in_sled, in_memory) =
            ordinals.split_at(ordinals.partition_point(|ordinal| *ordinal < state.in_sled()));
        let mut found = Vec::new();
        let mut take = |ordinal: u32, row: Option<Row>| {
            let row = row.ok_or(DecodeError::Value("ordinal"))?;
            if row.received >= received.0 && row.received <= received.1 {
                found.push((ordinal, row));
            }
            Ok::<_, OpenError>(())
        };
        let chunk_of = |ordinal: &u32| state.chunks.partition_point(|(first, _)| first <= ordinal);
        for ordinals in in_sled.chunk_by(|a, b| chunk_of(a) == chunk_of(b)) {
            let chunk = ordinals.first().map_or(0, chunk_of);
            let chunk = chunk
                .checked_sub(1)
                .and_then(|chunk| state.chunks.get(chunk));
            let (first, span) = *chunk.ok_or(DecodeError::Value("ordinal"))?;
            if rows::overlap(span, received) {
                let chunk = self.db.get(row_key(first))?;
                let chunk = chunk.ok_or(DecodeError::Value("ordinal"))?;
                let rows = Chunk::new(&chunk)?;
                let row = |ordinal: u32| rows.row((ordinal - first) as usize);
                ordinals.iter().try_for_each(|o| take(*o, row(*o)))?;
            }
        }
        let row = |ordinal: u32| state.rows.get((ordinal - state.in_sled()) as usize);
        in_memory
            .iter()
            .try_for_each(|o| take(*o, row(*o).copied()))?;
        Ok(found)
    }

    /// Every entry of the batches in order, and every row, for the run. Nothing may be in memory only.
    pub(crate) fn sorted(&self) -> Result<Merge<'_>, OpenError> {
        let batches = self.read().batches;
        let mut merge = Merge {
            sources: (0..batches)
                .map(|batch| Source::new(&self.db, batch))
                .collect(),
        };
        for source in &mut merge.sources {
            source.refill()?;
        }
        Ok(merge)
    }

    /// Every row in order, for the run.
    pub(crate) fn all_rows(&self) -> impl Iterator<Item = Result<Row, OpenError>> + '_ {
        self.db.scan_prefix(b"r").flat_map(|pair| {
            let rows = pair
                .map_err(OpenError::from)
                .and_then(|(_, value)| Ok(Chunk::new(&value)?.rows().collect()));
            let (rows, error) = match rows {
                Ok(rows) => (rows, None),
                Err(error) => (Vec::new(), Some(Err(error))),
            };
            rows.into_iter().map(Ok).chain(error)
        })
    }

    fn write_batch(&self, state: &State) -> Result<(), OpenError> {
        let mut packer = Packer::default();
        let put = |(first, block): (Entry, Vec<u8>)| {
            self.db
                .insert(block_key(state.batches, first), block)
                .map(drop)
        };
        for entry in &state.entries {
            if let Some(done) = packer.push(*entry) {
                put(done)?;
            }
        }
        if let Some(done) = packer.finish() {
            put(done)?;
        }
        for (first, rows) in state.row_chunks() {
            self.db.insert(row_key(first), rows::pack(rows))?;
        }
        Ok(())
    }

    /// The blocks of a batch that may hold entries of a kind with a hash in `from..=to`.
    fn blocks(
        &self,
        batch: u32,
        kind: u8,
        (from, to): (u64, u64),
    ) -> Result<impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>, OpenError> {
        let key = |hash, ordinal| {
            block_key(
                batch,
                Entry {
                    kind,
                    hash,
                    ordinal,
                },
            )
        };
        let (lowest, start, end) = (key(0, 0), key(from, 0), key(to, u32::MAX));
        let before = self
            .db
            .range(lowest..start.clone())
            .next_back()
            .transpose()?;
        let start = before.map_or(start, |(key, _)| key.to_vec());
        Ok(self.db.range(start..=end))
    }

    /// Removes what a crash left of a batch that the watermark does not know.
    fn remove_unfinished(&self) -> Result<(), OpenError> {
        let (batches, reports) = {
            let state = self.read();
            (state.batches, state.summary.reports)
        };
        let mut left = Vec::new();
        let mut first = b"e".to_vec();
        first.extend_from_slice(&batches.to_be_bytes());
        for pair in self.db.range(first..b"f".to_vec()) {
            left.push(pair?.0);
        }
        for pair in self.db.range(row_key(reports)..b"s".to_vec()) {
            left.push(pair?.0);
        }
        for key in left {
            self.db.remove(key)?;
        }
        Ok(())
    }

    /// Makes what is held in memory: the times of the chunks, the rare terms.
    fn find_held(&self) -> Result<(), OpenError> {
        let batches = self.read().batches;
        let (mut rows, mut chunks) = (Vec::new(), Vec::new());
        for pair in self.db.scan_prefix(b"r") {
            let first = rows.len();
            rows.extend(Chunk::new(&pair?.1)?.rows());
            let span = rows::span(rows.get(first..).unwrap_or_default());
            chunks.push((first as u32, span));
        }
        let (mut filters, mut identities) = (Vec::new(), HashMap::new());
        for batch in 0..batches {
            let mut rare = Vec::new();
            for kind in (0..=u8::MAX).filter(|kind| Kind::is_rare(*kind)) {
                for pair in self.blocks(batch, kind, (0, u64::MAX))? {
                    let mut unknown = false;
                    unpack(&pair?.1, |entry| {
                        rare.push(mix(kind, entry.hash));
                        let row = rows.get(entry.ordinal as usize);
                        unknown |= row.is_none();
                        if let Some(row) = row.filter(|_| is_identity(kind)) {
                            let report = (entry.ordinal, row.received);
                            meet(&mut identities, (kind, entry.hash), report);
                        }
                        true
                    })?;
                    if unknown {
                        return Err(DecodeError::Value("ordinal").into());
                    }
                }
            }
            filters.push(Bloom::new(&rare));
        }
        let state = &mut *self.write();
        state.chunks = chunks;
        state.filters = filters;
        state.first = identities;
        Ok(())
    }

    // A writer that panicked leaves a state that is behind at worst; the log has everything.
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes note that a report has an identity. Reports come in the order of their ordinals.
fn meet(first: &mut HashMap<(u8, u64), First>, term: (u8, u64), (ordinal, received): (u32, i64)) {
    let new = First {
        ordinal,
        received: (received, received),
        more: false,
    };
    let known = first.entry(term).or_insert(new);
    known.more |= known.ordinal != ordinal;
    known.received = (
        known.received.0.min(received),
        known.received.1.max(received),
    );
}

fn bounds(kind: u8, (from, to): (u64, u64)) -> std::ops::RangeInclusive<Entry> {
    let entry = |hash, ordinal| Entry {
        kind,
        hash,
        ordinal,
    };
    entry(from, 0)..=entry(to, u32::MAX)
}

fn block_key(batch: u32, first: Entry) -> Vec<u8> {
    let mut key = Vec::with_capacity(18);
    key.push(b'e');
    key.extend_from_slice(&batch.to_be_bytes());
    key.push(first.kind);
    key.extend_from_slice(&first.hash.to_be_bytes());
    key.extend_from_slice(&first.ordinal.to_be_bytes());
    key
}

fn row_key(ordinal: u32) -> Vec<u8> {
    let mut key = vec![b'r'];
    key.extend_from_slice(&ordinal.to_be_bytes());
    key
}

/// The watermark's value.
fn sealed(batches: u32, summary: &Summary) -> Vec<u8> {
    let mut value = batches.to_be_bytes().to_vec();
    value.extend_from_slice(&summary.encode());
    value.extend_from_slice(&crc32fast::hash(&value).to_le_bytes());
    value
}

/// The entries of all batches, merged.
pub(crate) struct Merge<'a> {
    sources: Vec<Source<'a>>,
}

impl Iterator for Merge<'_> {
    type Item = Result<Entry, OpenError>;

    fn next(&mut self) -> Option<Self::Item> {
        let ready = self
            .sources
            .iter_mut()
            .filter(|source| source.next.is_some());
        let least = ready.min_by_key(|source| source.next)?;
        let entry = least.next?;
        match least.refill() {
            Ok(()) => Some(Ok(entry)),
            Err(error) => {
                self.sources.clear();
                Some(Err(error))
            }
        }
    }
}

/// One batch, read block by block.
struct Source<'a> {
    db: &'a Tree,
    batch: u32,
    after: Option<Vec<u8>>,
    block: std::vec::IntoIter<Entry>,
    next: Option<Entry>,
}

impl<'a> Source<'a> {
    fn new(db: &'a Tree, batch: u32) -> Self {
        Self {
            db,
            batch,
            after: None,
            block: Vec::new().into_iter(),
            next: None,
        }
    }

    /// Puts the next entry of the batch in `next`.
    fn refill(&mut self) -> Result<(), OpenError> {
        self.next = self.block.next();
        if self.next.is_some() {
            return Ok(());
        }
        let mut prefix = vec![b'e'];
        prefix.extend_from_slice(&self.batch.to_be_bytes());
        let found = match &self.after {
            // No key is that of the block with an octet more.
            Some(after) => self.db.get_gt(after)?,
            None => self.db.scan_prefix(&prefix).next().transpose()?,
        };
        let Some((key, value)) = found.filter(|(key, _)| key.starts_with(&prefix)) else {
            return Ok(());
        };
        let mut entries = Vec::with_capacity(1024);
        unpack(&value, |entry| {
            entries.push(entry);
            true
        })?;
        self.after = Some(key.to_vec());
        self.block = entries.into_iter();
        self.next = self.block.next();
        Ok(())
    }
}
