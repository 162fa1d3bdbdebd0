//! Re-computes the chain, from the files alone.

use std::fmt;
use std::path::Path;

use aws_lc_rs::hmac;

use super::entry::{Hash, HashError, Link, check, link};
use super::head::{self, Head};
use super::{AuditError, ENTRY, PURPOSE, audit_key};
use crate::key::StoreKey;
use crate::segment::{Event, Log, Position, Segment};

/// The first place where the chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Broken {
    /// An entry's octets are not those that were written, or the key is another.
    Changed {
        /// Seq that the entry claims.
        seq: u64,
        /// Where it stands.
        at: Position,
    },
    /// Octets that are no entry at all.
    Damaged {
        /// Last entry before them.
        after: u64,
        /// Where they stand.
        at: Position,
    },
    /// The entry that should follow is not there.
    Missing {
        /// Seq of the first missing entry.
        seq: u64,
        /// Seq of the entry found in its place.
        found: u64,
        /// Where that one stands.
        at: Position,
    },
    /// An entry stands where it was not written.
    Moved {
        /// Its seq.
        seq: u64,
        /// Last entry before it.
        after: u64,
        /// Where it stands.
        at: Position,
    },
    /// The log ends before the entry that the head names.
    Cut {
        /// Last entry found.
        last: u64,
        /// Last entry written.
        head: u64,
    },
    /// The log does not begin with the entry that retention left as the first.
    Beginning {
        /// First entry found.
        found: u64,
        /// First entry that should be there.
        first: u64,
    },
    /// The file that says where the log ends is missing, or not as it was written.
    Head,
    /// A file's header is not as it was written; its entries are.
    Header {
        /// Partition and number of the file.
        file: (u32, u32),
    },
    /// A start of the service found the log broken and went on behind it.
    Finding {
        /// The entry that tells it.
        seq: u64,
    },
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = |at: &Position| {
            let name = Segment::file_name(at.partition, at.segment);
            format!("{name}, offset {}", at.offset)
        };
        match self {
            Self::Changed { seq, at } => write!(
                f,
                "entry {seq} was changed, or the key is another ({})",
                file(at)
            ),
            Self::Damaged { after, at } => {
                write!(f, "after entry {after} stands no entry ({})", file(at))
            }
            Self::Missing { seq, found, at } => {
                write!(
                    f,
                    "entry {seq} is missing: entry {found} stands in its place ({})",
                    file(at)
                )
            }
            Self::Moved { seq, after, at } => {
                write!(
                    f,
                    "entry {seq} stands after entry {after}, where it was not written ({})",
                    file(at)
                )
            }
            Self::Cut { last, head } => write!(
                f,
                "the log ends with entry {last}, it was written up to {head}"
            ),
            Self::Beginning { found, first } => {
                write!(
                    f,
                    "the log begins with entry {found}, retention left it from {first} on"
                )
            }
            Self::Head => f.write_str(
                "the head file is missing or was changed: entries may have been cut off the end",
            ),
            Self::Header { file } => {
                write!(
                    f,
                    "the header of {} was changed",
                    Segment::file_name(file.0, file.1)
                )
            }
            Self::Finding { seq } => write!(
                f,
                "entry {seq} tells that the log was found broken at a start"
            ),
        }
    }
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// Entries whose hash and place are right.
    pub entries: u64,
    /// Seq and hash of the last of them.
    pub head: (u64, Hash),
    /// The first broken link; `None`: the log is as it was written.
    pub broken: Option<Broken>,
    /// Octets of an append that a crash interrupted, at the end: nobody was told that it succeeded.
    pub torn_octets: u64,
}

/// `SEQ:HASH`, as "audit log head" in the system's journal gives them: what [`verify`] takes as known.
///
/// # Errors
///
/// What is wrong with the text.
pub fn parse_known(text: &str) -> Result<(u64, Hash), String> {
    let (seq, hash) = text.split_once(':').ok_or("it is not SEQ:HASH")?;
    let seq = seq.parse().map_err(|_| format!("{seq:?} is no seq"))?;
    let hash = hash.parse().map_err(|error: HashError| error.to_string())?;
    Ok((seq, hash))
}

/// Re-computes the chain of the log in a directory, whether a service runs or not, and stops at the
/// first broken link. `known`: seqs and hashes from elsewhere (the system's journal) that must be
/// found in it, which a log that was put back to an earlier state does not.
///
/// # Errors
///
/// The files cannot be read. A broken chain is no error.
pub fn verify(
    directory: &Path,
    key: &StoreKey,
    known: &[(u64, Hash)],
) -> Result<Verification, AuditError> {
    let key = audit_key(key);
    // The head first: entries that a running service appends meanwhile are then simply behind it.
    let found = head::read(directory, &key)?;
    let log = Log::open(directory, PURPOSE)?;
    let empty = found.is_none() && log.end().is_none();
    let head = found.map_or(Head::EMPTY, |found| found.head);
    let mut walk = Walk::new(key, &head, known);
    let broken = if empty {
        None
    } else {
        walk.run(&log)?
            .or_else(|| (!found.is_some_and(|found| found.whole)).then_some(Broken::Head))
    };
    Ok(Verification {
        entries: walk.entries,
        head: (walk.seq, walk.hash),
        broken: broken.or_else(|| walk.end(&head, known)),
        torn_octets: log.torn_octets(),
    })
}

/// Goes along the chain.
struct Walk {
    key: hmac::Key,
    seq: u64,
    hash: Hash,
    entries: u64,
    first: u64,
    before_first: Hash,
    /// Hashes that entries must have, by seq.
    expected: Vec<(u64, Hash)>,
}

impl Walk {
    fn new(key: hmac::Key, head: &Head, known: &[(u64, Hash)]) -> Self {
        let mut expected = known.to_vec();
        expected.push((head.seq, head.hash));
        Self {
            key,
            seq: 0,
            hash: Hash::default(),
            entries: 0,
            first: head.first,
            before_first: head.before_first,
            expected,
        }
    }

    fn run(&mut self, log: &Log) -> Result<Option<Broken>, AuditError> {
        for partition in log.partitions() {
            for event in log.scan(Position::start_of(partition)) {
                let broken = match event? {
                    Event::Frame(at, frame) => {
                        let kind = (frame.kind != ENTRY).then_some(Broken::Damaged {
                            after: self.seq,
                            at,
                        });
                        kind.or_else(|| self.step(at, &frame.payload))
                    }
                    Event::Damage { position: at, .. } | Event::Unreadable { position: at, .. } => {
                        Some(Broken::Damaged {
                            after: self.seq,
                            at,
                        })
                    }
                };
                if broken.is_some() {
                    return Ok(broken);
                }
            }
            for file in log.segments(partition) {
                let number = file.0;
                let position = Position {
                    partition,
                    segment: number,
                    offset: 0,
                };
                if !log.header_whole(position)? {
                    let file = (partition, number);
                    return Ok(Some(Broken::Header { file }));
                }
            }
        }
        Ok(None)
    }

    fn step(&mut self, at: Position, octets: &[u8]) -> Option<Broken> {
        let Some(link) = check(&self.key, octets) else {
            let seq = link(octets).map_or(0, |link| link.seq);
            return Some(Broken::Changed { seq, at });
        };
        let Link { seq, previous, .. } = link;
        if self.entries == 0 {
            // What retention was about to remove when it was interrupted may still be there.
            let right = seq < self.first || (seq == self.first && previous == self.before_first);
            if !right {
                let (found, first) = (seq, self.first);
                return Some(Broken::Beginning { found, first });
            }
        } else if seq > self.seq + 1 {
            let (seq, found) = (self.seq + 1, seq);
            return Some(Broken::Missing { seq, found, at });
        } else if seq != self.seq + 1 || previous != self.hash {
            let after = self.seq;
            return Some(Broken::Moved { seq, after, at });
        }
        let other = |(of, hash): &(u64, Hash)| *of == seq && *hash != link.hash;
        if self.expected.iter().any(other) {
            return Some(Broken::Changed { seq, at });
        }
        self.seq = seq;
        self.hash = link.hash;
        self.entries += 1;
        link.finding.then_some(Broken::Finding { seq })
    }

    /// Whether the end is where it should be.
    fn end(&self, head: &Head, known: &[(u64, Hash)]) -> Option<Broken> {
        let known = known.iter().map(|(seq, _)| *seq).max().unwrap_or(0);
        let head = head.seq.max(known);
        let last = self.seq;
        (last < head).then_some(Broken::Cut { last, head })
    }
}

/// Where the chain goes on when the service starts, and what is wrong with its end.
pub(super) fn find_end(
    log: &Log,
    key: &hmac::Key,
    head: Option<Head>,
) -> Result<(Head, Option<Broken>), AuditError> {
    let last = last_link(log, key)?;
    Ok(match (head, last) {
        (None, None) if log.end().is_none() => (Head::EMPTY, None),
        (None, None) => (Head::EMPTY, Some(Broken::Head)),
        (None, Some(last)) => {
            let end = Head {
                seq: last.seq,
                hash: last.hash,
                ..Head::EMPTY
            };
            (end, Some(Broken::Head))
        }
        (Some(head), last) => {
            let found = last.map_or(0, |last| last.seq);
            match last {
                Some(last) if last.seq >= head.seq => {
                    let end = Head {
                        seq: last.seq,
                        hash: last.hash,
                        ..head
                    };
                    (end, None)
                }
                _ if head.seq == 0 => (head, None),
                // The gap stays in the chain: it goes on behind what was cut off.
                _ => {
                    let cut = Broken::Cut {
                        last: found,
                        head: head.seq,
                    };
                    (head, Some(cut))
                }
            }
        }
    })
}

/// The last entry with a right hash, from the newest file that has one.
fn last_link(log: &Log, key: &hmac::Key) -> Result<Option<Link>, AuditError> {
    for partition in log.partitions().into_iter().rev() {
        for (segment, ..) in log.segments(partition).into_iter().rev() {
            let from = Position {
                partition,
                segment,
                offset: 0,
            };
            let mut last = None;
            for event in log.scan(from) {
                if let Event::Frame(_, frame) = event? {
                    last = check(key, &frame.payload).or(last);
                }
            }
            if last.is_some() {
                return Ok(last);
            }
        }
    }
    Ok(None)
}

/// The first entry of a partition.
pub(super) fn first_link(log: &Log, partition: u32) -> Result<Option<Link>, AuditError> {
    match log.scan(Position::start_of(partition)).next() {
        Some(Ok(Event::Frame(_, frame))) => Ok(link(&frame.payload)),
        Some(Err(error)) => Err(error.into()),
        _ => Ok(None),
    }
}
