//! Sorted entries, packed: what both the open partition and the runs are made of.
//!
//! A block holds entries of one kind. Each entry is the distance of its hash from the one before, and
//! its ordinal, or under the same hash the distance of that: an octet that says how many octets each
//! takes (the distance in the low four bits), then both, little endian. Hashes are spread evenly, so
//! that this is no longer than a variable-length code, and a look-up reads hundreds of them. A CRC-32
//! ends the block.

use super::codec::{DecodeError, Reader};
use super::key::Entry;

/// A block is closed when it has this many octets.
const BLOCK_OCTETS: usize = 4096;

/// Octets of the checksum.
const CRC_OCTETS: usize = 4;

/// Packs a sorted stream of entries into blocks.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    first: Option<Entry>,
    last: Option<Entry>,
    octets: Vec<u8>,
}

impl Packer {
    /// Takes the next entry, which is above the one before. If a block is full, or of another kind, it
    /// is given out with its first entry.
    pub(crate) fn push(&mut self, entry: Entry) -> Option<(Entry, Vec<u8>)> {
        let full = self
            .last
            .is_some_and(|last| last.kind != entry.kind || self.octets.len() >= BLOCK_OCTETS);
        let done = if full { self.finish() } else { None };
        match self.last {
            Some(last) => {
                let distance = entry.hash.wrapping_sub(last.hash);
                let ordinal = if distance == 0 {
                    entry.ordinal.wrapping_sub(last.ordinal)
                } else {
                    entry.ordinal
                };
                self.pair(distance, ordinal);
            }
            None => {
                self.first = Some(entry);
                self.octets.push(entry.kind);
                self.pair(entry.hash, entry.ordinal);
            }
        }
        self.last = Some(entry);
        done
    }

    fn pair(&mut self, distance: u64, ordinal: u32) {
        let length = |number: u64| (64 - number.leading_zeros() as usize).div_ceil(8);
        let lengths = (length(distance), length(ordinal.into()));
        self.octets.push((lengths.0 | lengths.1 << 4) as u8);
        let (distance, ordinal) = (distance.to_le_bytes(), ordinal.to_le_bytes());
        self.octets.extend(distance.iter().take(lengths.0));
        self.octets.extend(ordinal.iter().take(lengths.1));
    }

    /// The block that is not full, if there is one.
    pub(crate) fn finish(&mut self) -> Option<(Entry, Vec<u8>)> {
        self.last = None;
        let first = self.first.take()?;
        let mut octets = std::mem::take(&mut self.octets);
        let crc = crc32fast::hash(&octets);
        octets.extend_from_slice(&crc.to_le_bytes());
        Some((first, octets))
    }
}

/// The payload of a block or another checked piece, if its checksum is right.
pub(crate) fn checked(octets: &[u8]) -> Result<&[u8], DecodeError> {
    let (payload, crc) = octets
        .split_last_chunk::<CRC_OCTETS>()
        .ok_or(DecodeError::Short("block"))?;
    if crc32fast::hash(payload) != u32::from_le_bytes(*crc) {
        return Err(DecodeError::Value("block checksum"));
    }
    Ok(payload)
}

/// The entries of a block, in order, each given to `take` until it says `false`.
pub(crate) fn unpack(
    octets: &[u8],
    mut take: impl FnMut(Entry) -> bool,
) -> Result<(), DecodeError> {
    let mut from = Reader::new(checked(octets)?);
    let kind = from.octet("kind")?;
    let (hash, ordinal) = pair(&mut from)?;
    let mut entry = Entry {
        kind,
        hash,
        ordinal,
    };
    while take(entry) && from.left() > 0 {
        let (distance, ordinal) = pair(&mut from)?;
        entry.hash = entry.hash.wrapping_add(distance);
        entry.ordinal = if distance == 0 {
            entry.ordinal.wrapping_add(ordinal)
        } else {
            ordinal
        };
    }
    Ok(())
}

/// What [`Packer::pair`] wrote.
fn pair(from: &mut Reader<'_>) -> Result<(u64, u32), DecodeError> {
    let lengths = usize::from(from.octet("lengths")?);
    let distance = from.little_endian(lengths & 15, "distance")?;
    let ordinal = from.little_endian(lengths >> 4, "ordinal")?;
    let ordinal = u32::try_from(ordinal).map_err(|_| DecodeError::Value("ordinal"))?;
    Ok((distance, ordinal))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Blocks give back what was packed, and know when an octet changed.
        #[test]
        fn packed_entries_come_back(
            raw in proptest::collection::btree_set((1u8..4, 0u64..9, 0u32..5000), 1..3000),
            changed in any::<proptest::sample::Index>(),
        ) {
            let entries: Vec<_> = raw.into_iter()
                .map(|(kind, hash, ordinal)| Entry { kind, hash: hash << 60, ordinal })
                .collect();
            let mut packer = Packer::default();
            let mut blocks: Vec<_> = entries.iter().filter_map(|e| packer.push(*e)).collect();
            blocks.extend(packer.finish());
            let mut found = Vec::new();
            for (first, octets) in &blocks {
                let start = found.len();
                unpack(octets, |entry| { found.push(entry); true }).unwrap();
                prop_assert_eq!(found[start], *first);
            }
            prop_assert_eq!(found, entries);
            let mut octets = blocks[0].1.clone();
            let at = changed.index(octets.len());
            octets[at] ^= 0x10;
            prop_assert!(unpack(&octets, |_| true).is_err());
        }
    }
}
