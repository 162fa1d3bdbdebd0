//! How an item's file is encrypted.
//!
//! ```text
//! magic "CLAWQUAR" | version u32 | salt (32)
//! chunks: AES-256-GCM of 64 KiB of content each, the last one shorter or empty, tag (16) behind each
//! facts: AES-256-GCM of a JSON object, tag (16)
//! octets of the facts with their tag, u32
//! ```
//!
//! The key of a file is HMAC-SHA256(quarantine key, salt), so a nonce needs to be unique in its file
//! only: counter u64, big endian, three zeros, and what it is: 0 chunk, 1 last chunk, 2 facts. A chunk that was
//! moved, removed or cut off does not open. The head of the file is authenticated with each.

use std::io;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};

/// Octets of content in a chunk.
pub(super) const CHUNK_OCTETS: usize = 64 << 10;
/// Octets that encryption adds to a chunk.
pub(super) const TAG_OCTETS: usize = 16;
/// Octets before the first chunk.
pub(super) const HEAD_OCTETS: usize = 8 + 4 + SALT_OCTETS;
const SALT_OCTETS: usize = 32;
const MAGIC: &[u8; 8] = b"CLAWQUAR";
/// Version of the layout.
pub(super) const VERSION: u32 = 1;

/// What a piece of the file is.
#[derive(Debug, Clone, Copy)]
pub(super) enum Piece {
    Chunk(u64),
    LastChunk(u64),
    Facts,
}

impl Piece {
    fn nonce(self) -> Nonce {
        let (counter, what) = match self {
            Self::Chunk(counter) => (counter, 0),
            Self::LastChunk(counter) => (counter, 1),
            Self::Facts => (0, 2),
        };
        let [a, b, c, d, e, f, g, h] = counter.to_be_bytes();
        Nonce::assume_unique_for_key([a, b, c, d, e, f, g, h, 0, 0, 0, what])
    }
}

/// The head of a file and its key.
pub(super) struct Seal {
    key: LessSafeKey,
    head: [u8; HEAD_OCTETS],
}

impl Seal {
    /// For a new file.
    pub(super) fn new(key: &hmac::Key) -> io::Result<Self> {
        let mut head = [0; HEAD_OCTETS];
        let (magic, rest) = head.split_at_mut(MAGIC.len());
        let (version, salt) = rest.split_at_mut(4);
        magic.copy_from_slice(MAGIC);
        version.copy_from_slice(&VERSION.to_le_bytes());
        SystemRandom::new()
            .fill(salt)
            .map_err(|_| io::Error::other("no random numbers from the system"))?;
        Self::of(key, head)
    }

    /// For a file that begins like this; the version that it was written in if that is not ours.
    pub(super) fn read(key: &hmac::Key, head: [u8; HEAD_OCTETS]) -> Result<Self, SealError> {
        let rest = head.strip_prefix(MAGIC).ok_or(SealError::Changed)?;
        let (version, _) = rest.split_first_chunk::<4>().ok_or(SealError::Changed)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(SealError::Version(version));
        }
        Self::of(key, head).map_err(|_| SealError::Changed)
    }

    fn of(key: &hmac::Key, head: [u8; HEAD_OCTETS]) -> io::Result<Self> {
        let (_, salt) = head.split_at(HEAD_OCTETS - SALT_OCTETS);
        let derived = hmac::sign(key, salt);
        let key = UnboundKey::new(&AES_256_GCM, derived.as_ref())
            .map_err(|_| io::Error::other("the cryptographic library refused a key"))?;
        let key = LessSafeKey::new(key);
        Ok(Self { key, head })
    }

    pub(super) const fn head(&self) -> &[u8; HEAD_OCTETS] {
        &self.head
    }

    /// Encrypts in place and adds the tag.
    pub(super) fn seal(&self, piece: Piece, octets: &mut Vec<u8>) -> io::Result<()> {
        self.key
            .seal_in_place_append_tag(piece.nonce(), Aad::from(&self.head), octets)
            .map_err(|_| io::Error::other("the cryptographic library refused to encrypt"))
    }

    /// Decrypts in place and takes the tag off.
    pub(super) fn open(&self, piece: Piece, octets: &mut Vec<u8>) -> Result<(), SealError> {
        let length = self
            .key
            .open_in_place(piece.nonce(), Aad::from(&self.head), octets)
            .map_err(|_| SealError::Changed)?
            .len();
        octets.truncate(length);
        Ok(())
    }
}

/// Why a file cannot be decrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    #[error("it was changed, or the key is another")]
    Changed,
    #[error("it is of format {0}, this version knows {VERSION}")]
    Version(u32),
}
