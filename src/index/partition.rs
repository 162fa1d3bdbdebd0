//! A partition: what retention drops as one. Its part of the log, and its index.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;

use super::error::{IndexError, StoreError};
use super::frame::{KIND_REPORT, Kept, decode_spilled};
use super::log::{Log, Position, SegmentError};
use super::open::OpenIndex;
use super::rows::{Row, Span};
use super::run::Run;
use super::summary::Summary;

/// Names a partition. Imported ones come first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PartitionName {
    /// Imported reports of one day, counted from 1970-01-01 (UTC).
    Import(i64),
    /// Reports that came in by SMTP, in the order of their arrival.
    Live(u32),
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Import(day) => write!(f, "import{day}"),
            Self::Live(number) => write!(f, "{number:08}"),
        }
    }
}

impl FromStr for PartitionName {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("import") {
            Some(day) => day.parse().map(Self::Import),
            None => text.parse().map(Self::Live),
        }
    }
}

/// The one partition of a log of imported reports.
pub(crate) const IMPORT_PARTITION: u32 = 1;

/// A partition with its log and its index.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) name: PartitionName,
    pub(crate) log: Arc<Log>,
    /// Its number in the log.
    pub(crate) number: u32,
    source: RwLock<Option<Source>>,
    closed: AtomicBool,
}

/// Where the entries of a partition are.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    Open(Arc<OpenIndex>),
    Run(Arc<Run>),
}

impl Partition {
    pub(crate) fn new(name: PartitionName, log: Arc<Log>) -> Self {
        let number = match name {
            PartitionName::Live(number) => number,
            PartitionName::Import(_) => IMPORT_PARTITION,
        };
        Self {
            name,
            log,
            number,
            source: RwLock::new(None),
            closed: AtomicBool::new(false),
        }
    }

    /// No frame comes for it any more: it is sealed, or can be.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// When its first segment was made, if that can be told.
    pub(crate) fn first_segment(&self) -> Option<Timestamp> {
        let segments = self.log.segments(self.number);
        segments
            .first()
            .and_then(|(_, header, _)| header.map(|header| header.created))
    }

    /// When its newest segment was made, if that can be told.
    pub(crate) fn newest_segment(&self) -> Option<Timestamp> {
        let segments = self.log.segments(self.number);
        segments
            .last()
            .and_then(|(_, header, _)| header.map(|header| header.created))
    }

    /// The index, once there is one.
    pub(crate) fn source(&self) -> Option<Source> {
        let source = self.source.read().unwrap_or_else(PoisonError::into_inner);
        source.clone()
    }

    pub(crate) fn set_source(&self, source: Option<Source>) {
        *self.source.write().unwrap_or_else(PoisonError::into_inner) = source;
    }

    /// Where its next frame would stand: all before is durable.
    pub(crate) fn end(&self) -> Position {
        match self.log.segments(self.number).last() {
            Some((segment, _, offset)) => Position {
                partition: self.number,
                segment: *segment,
                offset: *offset,
            },
            None => Position::start_of(self.number),
        }
    }

    /// The report at a place, with all its recipients. `None` if retention has dropped it.
    pub(crate) fn read(&self, place: u64) -> Result<Option<Kept>, StoreError> {
        let position = Position::from_packed(self.number, place);
        let frame = match self.log.read(position) {
            Ok(frame) => frame,
            Err(SegmentError::NoSegment { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if frame.kind != KIND_REPORT {
            let source = super::DecodeError::Value("kind of frame");
            return Err(StoreError::Frame { position, source });
        }
        let kept = Kept::decode(&frame.payload);
        let mut kept = kept.map_err(|source| StoreError::Frame { position, source })?;
        read_spilled(&self.log, &mut kept);
        Ok(Some(kept))
    }
}

/// Takes in the recipients that were written before the report. If some cannot be read, that is one of
/// the record's problems: what is known of the others must still be found.
pub(crate) fn read_spilled(log: &Log, kept: &mut Kept) {
    let mut missing = None;
    for position in std::mem::take(&mut kept.spilled) {
        let frame = log.read(position).map_err(|error| error.to_string());
        let recipients = frame
            .and_then(|frame| decode_spilled(&frame.payload).map_err(|error| error.to_string()));
        match recipients {
            Ok(recipients) => kept.recipients.extend(recipients),
            Err(error) => missing = Some(error),
        }
        kept.spilled.push(position);
    }
    if let Some(error) = missing {
        kept.problems
            .push(format!("some recipients cannot be read: {error}"));
    }
}

impl Source {
    /// Gives `take` the entries of a kind with a hash in `from..=to`.
    pub(crate) fn find(
        &self,
        kind: u8,
        range: (u64, u64),
        take: impl FnMut(u64, u32),
    ) -> Result<(), IndexError> {
        match self {
            Self::Open(open) => Ok(open.find(kind, range, take)?),
            Self::Run(run) => Ok(run.find(kind, range, take)?),
        }
    }

    /// The reports under these terms whose `received` is in the span: ordinal and row, in order.
    pub(crate) fn find_rows(
        &self,
        terms: impl IntoIterator<Item = (u8, (u64, u64))>,
        received: Span,
    ) -> Result<Vec<(u32, Row)>, IndexError> {
        let mut ordinals = Vec::new();
        for (kind, range) in terms {
            self.find(kind, range, |_, ordinal| ordinals.push(ordinal))?;
        }
        ordinals.sort_unstable();
        ordinals.dedup();
        self.rows(&ordinals, received)
    }

    /// About how many entries [`find`](Self::find) would give.
    pub(crate) fn estimate(&self, kind: u8, range: (u64, u64)) -> Result<u64, IndexError> {
        match self {
            Self::Open(open) => Ok(open.estimate(kind, range)?),
            // Between one and all entries of the first and the last block.
            Self::Run(run) => Ok((run.block_count(kind, range) as u64).saturating_sub(1) * 512),
        }
    }

    /// The rows of those of these ordinals, which ascend, whose `received` is in the span.
    pub(crate) fn rows(
        &self,
        ordinals: &[u32],
        received: Span,
    ) -> Result<Vec<(u32, Row)>, IndexError> {
        match self {
            Self::Open(open) => Ok(open.rows(ordinals, received)?),
            Self::Run(run) => Ok(run.rows(ordinals, received)?),
        }
    }

    pub(crate) fn summary(&self) -> Summary {
        match self {
            Self::Open(open) => open.summary(),
            Self::Run(run) => run.summary().clone(),
        }
    }

    /// Looks at the summary without copying it.
    pub(crate) fn with_summary<T>(&self, look: impl FnOnce(&Summary) -> T) -> T {
        match self {
            Self::Open(open) => open.with_summary(look),
            Self::Run(run) => look(run.summary()),
        }
    }

    /// Octets of its files.
    pub(crate) fn octets(&self) -> u64 {
        match self {
            Self::Open(open) => open.octets(),
            Self::Run(run) => run.octets(),
        }
    }

    /// Are they the same file or database?
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Open(a), Self::Open(b)) => Arc::ptr_eq(a, b),
            (Self::Run(a), Self::Run(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// The files of a store.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// Segments of the reports that came in by SMTP.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// A directory for each day of imported reports.
    pub(crate) fn imports(&self) -> PathBuf {
        self.root.join("log").join("import")
    }

    pub(crate) fn import(&self, day: i64) -> PathBuf {
        self.imports().join(day.to_string())
    }

    /// All that can be made again.
    pub(crate) fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    pub(crate) fn runs(&self) -> PathBuf {
        self.index().join("run")
    }

    pub(crate) fn run(&self, name: PartitionName) -> PathBuf {
        self.runs().join(format!("{name}.run"))
    }

    pub(crate) fn opens(&self) -> PathBuf {
        self.index().join("open")
    }

    pub(crate) fn open(&self, name: PartitionName) -> PathBuf {
        self.opens().join(name.to_string())
    }

    /// Who used the index last, and whether it was left in order.
    pub(crate) fn marker(&self) -> PathBuf {
        self.index().join("marker")
    }
}
