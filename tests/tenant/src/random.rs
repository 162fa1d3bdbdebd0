//! Numbers that look random and follow from a seed, so that a failing case replays.

use uuid::{Builder, Uuid};

/// A SplitMix64 generator: small, fast, good enough for test data, and no secret of any kind.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator that `seed` starts.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    /// An index into something of `length`.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }

    /// True with probability `share` (0 to 1).
    pub(crate) fn chance(&mut self, share: f64) -> bool {
        fraction(self.next()) < share
    }

    /// One of `choices`, which is not empty.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.index(choices.len())]
    }

    /// A version 4 GUID.
    pub(crate) fn guid(&mut self) -> Uuid {
        guid_from(self.next(), self.next())
    }

    /// Brings `items` into another order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.index(last + 1));
        }
    }
}

/// The finalizer of SplitMix64.
const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A number in [0, 1) from 64 bits.
pub(crate) fn fraction(bits: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    let numerator = (bits >> 11) as f64;
    numerator / 9_007_199_254_740_992.0
}

/// 64 bits that follow from `seed` and `parts` (FNV-1a, then mixed). Where a part ends counts.
pub(crate) fn hash(seed: u64, parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325 ^ mix(seed);
    for part in parts {
        for octet in *part {
            state = (state ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        state = mix(state ^ part.len() as u64);
    }
    mix(state)
}

/// A version 4 GUID that follows from `seed`, a label and a number.
pub(crate) fn guid(seed: u64, label: &str, number: u64) -> Uuid {
    let high = hash(seed, &[label.as_bytes(), &number.to_be_bytes()]);
    guid_from(high, mix(high))
}

fn guid_from(high: u64, low: u64) -> Uuid {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&high.to_be_bytes());
    octets[8..].copy_from_slice(&low.to_be_bytes());
    Builder::from_random_bytes(octets).into_uuid()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let (mut one, mut two) = (Random::new(7), Random::new(7));
        let first: Vec<u64> = (0..100).map(|_| one.next()).collect();
        let second: Vec<u64> = (0..100).map(|_| two.next()).collect();
        assert_eq!(first, second);
        assert_ne!(first[0], Random::new(8).next());
        assert_ne!(hash(1, &[b"ab", b"c"]), hash(1, &[b"a", b"bc"]));
        assert_eq!(guid(1, "user", 3).get_version_num(), 4);
    }

    #[test]
    fn chances_are_shares() {
        let mut random = Random::new(42);
        let hits = (0..10_000).filter(|_| random.chance(0.05)).count();
        assert!((400..600).contains(&hits), "{hits} of 10000 at 5 %");
    }
}
