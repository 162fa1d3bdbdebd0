//! One item: its name, its facts, its content.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::hmac;
use data_encoding::BASE32_NOPAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::QuarantineError;
use super::seal::{CHUNK_OCTETS, HEAD_OCTETS, Piece, Seal, TAG_OCTETS};
use crate::mail::TenantName;

/// Octets of facts that are read at most.
const FACTS_OCTETS: u64 = 1 << 20;

/// Name of an item: `q_` and 16 characters of lower-case base32. Safe in a path and a shell.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemId([u8; 10]);

impl ItemId {
    pub(super) const fn from_octets(octets: [u8; 10]) -> Self {
        Self(octets)
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = BASE32_NOPAD.encode(&self.0);
        write!(f, "q_{}", text.to_ascii_lowercase())
    }
}

impl fmt::Debug for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ItemId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that names no item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the name of a quarantined item is \"q_\" and 16 base32 characters")]
pub struct ItemIdError;

impl FromStr for ItemId {
    type Err = ItemIdError;

    fn from_str(text: &str) -> Result<Self, ItemIdError> {
        let text = text.strip_prefix("q_").ok_or(ItemIdError)?;
        let octets = BASE32_NOPAD
            .decode(text.to_ascii_uppercase().as_bytes())
            .map_err(|_| ItemIdError)?;
        octets.try_into().map(Self).map_err(|_| ItemIdError)
    }
}

/// Facts about an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Whose journal address it was sent to.
    pub tenant: TenantName,
    /// When it arrived.
    pub received: Timestamp,
    /// Address of the peer that sent it.
    pub peer: String,
    /// What it is: `report`, `malformed`, `not_report`, or [`UNREADABLE`].
    pub kind: String,
    /// Why it is here, for people.
    pub reason: String,
    /// Message-ID of the journaled message, else of the mail itself, where one is known.
    pub message_id: Option<String>,
    /// What the receiver needs to try again: forward-path, region, reverse-path and the like.
    #[serde(default)]
    pub facts: BTreeMap<String, String>,
}

/// The facts that a later judgement needs, by name.
pub mod fact {
    /// The region of the journal address.
    pub const REGION: &str = "region";
    /// The names that the peer's certificate proved, as [`join`] writes them.
    pub const PEER_NAMES: &str = "peer_names";

    /// Several names as one fact.
    pub fn join(names: &[String]) -> String {
        serde_json::Value::from(names).to_string()
    }

    /// What [`join`] wrote; nothing of anything else.
    pub fn split(joined: &str) -> Vec<String> {
        serde_json::from_str(joined).unwrap_or_default()
    }
}

/// The kind of an item whose facts cannot be read: its file is damaged, or of another key.
pub const UNREADABLE: &str = "unreadable";

impl Item {
    /// An item of which no more is known than its file. It can be dropped, and expires, like the others.
    pub(super) fn unreadable(id: ItemId, file: &Metadata, reason: String) -> Self {
        let modified = file.modified().ok();
        let received = modified.and_then(|time| Timestamp::try_from(time).ok());
        Self {
            id,
            meta: Meta {
                tenant: TenantName::new(""),
                received: received.unwrap_or(Timestamp::UNIX_EPOCH),
                peer: String::new(),
                kind: UNREADABLE.to_owned(),
                reason,
                message_id: None,
                facts: BTreeMap::new(),
            },
            size: 0,
            octets: file.len(),
        }
    }
}

/// An item as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// Its name.
    pub id: ItemId,
    /// Facts about it.
    #[serde(flatten)]
    pub meta: Meta,
    /// Octets of the message.
    pub size: u64,
    /// Octets of its file.
    #[serde(skip)]
    pub octets: u64,
}

#[derive(Serialize, Deserialize)]
struct Facts {
    #[serde(flatten)]
    meta: Meta,
    size: u64,
}

pub(super) fn encode_facts(meta: &Meta, size: u64) -> serde_json::Result<Vec<u8>> {
    let meta = meta.clone();
    serde_json::to_vec(&Facts { meta, size })
}

/// Facts and size, from the end of an item's file.
pub(super) fn read_facts(path: &Path, key: &hmac::Key) -> Result<(Meta, u64), QuarantineError> {
    let (_, facts, _) = open_file(path, key)?;
    Ok((facts.meta, facts.size))
}

/// Opens a file: its seal, its facts, and the octets of its chunks.
fn open_file(path: &Path, key: &hmac::Key) -> Result<(OpenItem, Facts, u64), QuarantineError> {
    let unreadable = |reason: String| QuarantineError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let cut = || unreadable("its end is missing".to_owned());
    let exact = |file: &File, buffer: &mut [u8], at| match file.read_exact_at(buffer, at) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(cut()),
        other => other.map_err(QuarantineError::io(path)),
    };
    let file = File::open(path).map_err(QuarantineError::io(path))?;
    let octets = file.metadata().map_err(QuarantineError::io(path))?.len();
    let mut head = [0; HEAD_OCTETS];
    exact(&file, &mut head, 0)?;
    let seal = Seal::read(key, head).map_err(|error| unreadable(error.to_string()))?;
    let end = octets.checked_sub(4).ok_or_else(cut)?;
    let mut length = [0; 4];
    exact(&file, &mut length, end)?;
    let length = u64::from(u32::from_le_bytes(length));
    let begin = end
        .checked_sub(length)
        .filter(|_| length <= FACTS_OCTETS)
        .ok_or_else(cut)?;
    let mut facts = vec![0; usize::try_from(length).unwrap_or_default()];
    exact(&file, &mut facts, begin)?;
    seal.open(Piece::Facts, &mut facts)
        .map_err(|error| unreadable(error.to_string()))?;
    let facts = serde_json::from_slice(&facts).map_err(|error| unreadable(error.to_string()))?;
    let head = u64::try_from(HEAD_OCTETS).unwrap_or(u64::MAX);
    let chunks = begin.checked_sub(head).ok_or_else(cut)?;
    Ok((OpenItem { file, seal }, facts, chunks))
}

struct OpenItem {
    file: File,
    seal: Seal,
}

/// The message in an item, decrypted and checked piece by piece.
pub struct Content {
    chunks: BufReader<io::Take<OffsetReader>>,
    seal: Seal,
    left: u64,
    counter: u64,
    piece: Vec<u8>,
    given: usize,
    /// Octets of content still to come.
    size: u64,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Reads a file from a place on.
struct OffsetReader {
    file: File,
    offset: u64,
}

impl Read for OffsetReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += u64::try_from(read).unwrap_or_default();
        Ok(read)
    }
}

impl Content {
    pub(super) fn open(path: &Path, key: &hmac::Key) -> Result<Self, QuarantineError> {
        let (OpenItem { file, seal }, facts, left) = open_file(path, key)?;
        let offset = u64::try_from(HEAD_OCTETS).unwrap_or(u64::MAX);
        let reader = OffsetReader { file, offset }.take(left);
        Ok(Self {
            chunks: BufReader::new(reader),
            seal,
            left,
            counter: 0,
            piece: Vec::new(),
            given: 0,
            size: facts.size,
        })
    }

    /// Decrypts the next chunk.
    fn next_piece(&mut self) -> io::Result<()> {
        let full = u64::try_from(CHUNK_OCTETS + TAG_OCTETS).unwrap_or(u64::MAX);
        let octets = self.left.min(full);
        self.piece.clear();
        self.given = 0;
        (&mut self.chunks)
            .take(octets)
            .read_to_end(&mut self.piece)?;
        self.left -= octets;
        let piece = if self.left == 0 {
            Piece::LastChunk(self.counter)
        } else {
            Piece::Chunk(self.counter)
        };
        self.counter += 1;
        let opened = self.seal.open(piece, &mut self.piece);
        if opened.is_err() {
            self.piece.clear();
            self.left = 0;
        }
        opened.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.given == self.piece.len() {
            if self.left == 0 {
                return Ok(0);
            }
            self.next_piece()?;
        }
        let rest = self.piece.get(self.given..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.given += count;
        Ok(count)
    }
}
