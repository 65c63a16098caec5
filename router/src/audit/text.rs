//! Fingerprints of texts that can be joined: the fingerprint of a line is made from those of its pieces, however it was cut.
//!
//! Two polynomials modulo 2^61 - 1 at random points: who does not know the points cannot make two texts with one fingerprint, and by chance two
//! texts of a MiB have one with a probability below 2^-80.

use std::hash::{BuildHasher, Hasher, RandomState};

const PRIME: u64 = (1 << 61) - 1;

/// The fingerprint of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text {
    hash: [u64; 2],
    bytes: u64,
    /// Whether it begins, and whether it ends, with a replaced character: bytes that are no text may read otherwise when they are joined.
    broken: [bool; 2],
}

/// The random points, drawn once for a run.
#[derive(Clone, Debug)]
pub struct Fingerprints {
    /// The powers 1 to 8 of each point.
    powers: [[u64; 8]; 2],
    stamps: RandomState,
}

impl Fingerprints {
    /// Draws new points.
    pub fn drawn() -> Self {
        let points = [0, 1].map(|_| 256 + RandomState::new().build_hasher().finish() % (PRIME - 256));
        let powers = points.map(|point| {
            let mut power = 1;
            [(); 8].map(|()| {
                power = multiply(power, point);
                power
            })
        });
        Self { powers, stamps: RandomState::new() }
    }

    /// The fingerprint of a text.
    pub fn of(&self, text: &str) -> Text {
        let hash = self.powers.map(|powers| {
            let mut words = text.as_bytes().chunks_exact(8);
            let mut hash = 0;
            for word in words.by_ref() {
                let mut sum = u128::from(hash) * u128::from(powers[7]) + u128::from(word[7]);
                for place in 0..7 {
                    sum += u128::from(word[place]) * u128::from(powers[6 - place]);
                }
                hash = reduce(sum);
            }
            for byte in words.remainder() {
                hash = reduce(u128::from(hash) * u128::from(powers[0]) + u128::from(*byte));
            }
            hash
        });
        let broken = [text.starts_with('\u{fffd}'), text.ends_with('\u{fffd}')];
        Text { hash, bytes: text.len() as u64, broken }
    }

    /// The fingerprint of one text behind another.
    pub fn join(&self, first: &Text, second: &Text) -> Text {
        let mut hash = [0; 2];
        for (place, hash) in hash.iter_mut().enumerate() {
            let shift = power(self.powers[place][0], second.bytes);
            *hash = reduce(u128::from(first.hash[place]) * u128::from(shift) + u128::from(second.hash[place]));
        }
        Text { hash, bytes: first.bytes.saturating_add(second.bytes), broken: [first.broken[0], second.broken[1]] }
    }

    /// A number for a stamp; equal for equal ones.
    pub fn stamp(&self, time: &str) -> u64 {
        self.stamps.hash_one(time)
    }
}

impl Text {
    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the texts are equal.
    pub fn equals(&self, other: &Text) -> bool {
        self.hash == other.hash && self.bytes == other.bytes
    }

    /// Whether two texts that were parts of one line read the same apart as joined.
    pub fn joins(&self, next: &Text) -> bool {
        !self.broken[1] && !next.broken[0]
    }
}

fn reduce(value: u128) -> u64 {
    let folded = (value & u128::from(PRIME)) + (value >> 61);
    let folded = (folded & u128::from(PRIME)) as u64 + (folded >> 61) as u64;
    if folded >= PRIME { folded - PRIME } else { folded }
}

fn multiply(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b))
}

fn power(mut base: u64, mut exponent: u64) -> u64 {
    let mut result = 1;
    while exponent > 0 {
        if exponent & 1 == 1 {
            result = multiply(result, base);
        }
        base = multiply(base, base);
        exponent >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_largest_values_do_not_overflow() {
        assert_eq!(reduce(u128::from(PRIME)), 0);
        assert_eq!(multiply(PRIME - 1, PRIME - 1), 1);
        assert_eq!(power(PRIME - 1, u64::MAX), PRIME - 1);
        assert!(reduce(u128::from(PRIME - 1) * u128::from(PRIME - 1) + 255 * 8 * u128::from(PRIME)) < PRIME);
    }

    proptest! {
        #[test]
        fn a_text_is_its_pieces_joined(text in "[a-c\u{0}é\u{1f6a2}]{0,60}", cuts in (0_usize..100, 0_usize..100)) {
            let prints = Fingerprints::drawn();
            let boundary = |at: usize| (0..=at.min(text.len())).rev().find(|place| text.is_char_boundary(*place)).unwrap();
            let (a, b) = (boundary(cuts.0.min(cuts.1)), boundary(cuts.0.max(cuts.1)));
            let parts = [&text[..a], &text[a..b], &text[b..]].map(|part| prints.of(part));
            let joined = prints.join(&prints.join(&parts[0], &parts[1]), &parts[2]);
            let other = prints.join(&parts[0], &prints.join(&parts[1], &parts[2]));
            prop_assert_eq!(joined, other);
            prop_assert!(joined.equals(&prints.of(&text)));
            let mut changed = text.clone();
            changed.push('x');
            prop_assert!(!joined.equals(&prints.of(&changed)));
        }
    }
}
