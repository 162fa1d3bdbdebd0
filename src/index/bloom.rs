//! Which rare terms a run certainly does not hold.
//!
//! A blocked Bloom filter: all bits of a term are in one block of 64 octets, one memory access a
//! question. Ten bits a term give about 1 % of false answers, each of which costs reading one block.

/// Words of 64 bits in a block.
const BLOCK_WORDS: usize = 8;
/// Bits of the filter for each term.
const BITS_PER_TERM: usize = 10;
/// Bits set for a term.
const PROBES: u32 = 6;

/// The filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bloom {
    words: Vec<u64>,
}

impl Bloom {
    /// A filter of these terms, as [`mix`] gives them.
    pub(crate) fn new(terms: &[u64]) -> Self {
        let blocks = (terms.len() * BITS_PER_TERM).div_ceil(64 * BLOCK_WORDS);
        let mut words = vec![0; blocks * BLOCK_WORDS];
        for term in terms {
            let (start, bits) = place(*term, blocks);
            for (word, bit) in bits {
                if let Some(word) = words.get_mut(start + word) {
                    *word |= bit;
                }
            }
        }
        Self { words }
    }

    /// What [`octets`](Self::octets) gave; whole blocks only.
    pub(crate) fn from_octets(octets: &[u8]) -> Self {
        let words = octets
            .chunks_exact(8)
            .map(|word| word.iter().rev().fold(0, |sum, o| sum << 8 | u64::from(*o)))
            .collect();
        Self { words }
    }

    pub(crate) fn octets(&self) -> Vec<u8> {
        self.words
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect()
    }

    /// `false`: the term is not there.
    pub(crate) fn may_hold(&self, term: u64) -> bool {
        let (start, mut bits) = place(term, self.words.len() / BLOCK_WORDS);
        bits.all(|(word, bit)| self.words.get(start + word).is_some_and(|w| w & bit != 0))
    }
}

/// A term of a kind, as the filter takes it.
pub(crate) fn mix(kind: u8, hash: u64) -> u64 {
    (hash ^ u64::from(kind)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The first word of the term's block, and its words and bits within.
fn place(term: u64, blocks: usize) -> (usize, impl Iterator<Item = (usize, u64)>) {
    let block = ((u128::from(term) * blocks as u128) >> 64) as usize;
    let spread = term.wrapping_mul(0xd6e8_feb8_6659_fd93) ^ (term >> 29);
    let bits = (0..PROBES).map(move |probe| {
        let nine = (spread >> (9 * probe + 5)) as usize & 0x1ff;
        (nine >> 6, 1 << (nine & 63))
    });
    (block * BLOCK_WORDS, bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_its_terms_and_few_others() {
        let term = |n: u64| mix(4, n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x1234_5678);
        let terms: Vec<_> = (0..20_000).map(term).collect();
        let bloom = Bloom::new(&terms);
        assert!(terms.iter().all(|term| bloom.may_hold(*term)));
        let wrong = (20_000..120_000)
            .filter(|n| bloom.may_hold(term(*n)))
            .count();
        assert!(wrong < 3_000, "{wrong} of 100,000 absent terms");
        assert_eq!(Bloom::from_octets(&bloom.octets()), bloom);
        assert!(!Bloom::new(&[]).may_hold(1));
    }
}
