//! A Bloom filter: which digests were seen, in a fixed amount of memory, at a known rate of error.

use std::path::Path;

use crate::dedup::DedupError;
use crate::dedup::exact::Digest128;
use crate::dedup::table::{Kind, TableReader, TableWriter};

const KIND: Kind = *b"bloom\0\0\x01";

/// A Bloom filter (Bloom 1970). It never takes a seen digest for a new one; a new one for seen at
/// [`Bloom::false_positive_rate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bloom {
    bits: Vec<u64>,
    hashers: u32,
}

impl Bloom {
    /// A filter of `bytes` bytes (rounded up to a multiple of 8) for `items` digests, with the optimal hashers.
    #[must_use]
    pub fn new(bytes: u64, items: u64) -> Self {
        Self {
            bits: vec![0; bytes.div_ceil(8).max(1) as usize],
            hashers: Self::optimal_hashers(bytes, items),
        }
    }

    /// The smallest filter for `items` digests whose rate of false positives is at most about `rate`:
    /// −n·ln p / (ln 2)² bits.
    #[must_use]
    pub fn for_rate(items: u64, rate: f64) -> Self {
        let per_item = -rate.clamp(1e-18, 0.5).ln() / (std::f64::consts::LN_2 * std::f64::consts::LN_2);
        Self::new((items.max(1) as f64 * per_item / 8.0).ceil() as u64, items)
    }

    /// How many bits of a filter of `bytes` bytes should be set for each of `items` items, so that false positives are
    /// fewest: m/n · ln 2, rounded up as dolma does, with m bits and n items; at least 1.
    #[must_use]
    pub fn optimal_hashers(bytes: u64, items: u64) -> u32 {
        let bits_per_item = bytes as f64 * 8.0 / items.max(1) as f64;
        ((bits_per_item * std::f64::consts::LN_2).ceil() as u32).clamp(1, 64)
    }

    /// The rate at which a filter of `bytes` bytes that holds `items` items takes a new one for seen:
    /// (1 − (1 − 1/m)^(k·n))^k with m bits, n items and k hashers, computed in doubles as dolma does.
    #[must_use]
    pub fn false_positive_rate(bytes: u64, items: u64, hashers: u32) -> f64 {
        let (m, n, k) = (bytes as f64 * 8.0, items as f64, f64::from(hashers));
        (1.0 - (1.0 - 1.0 / m).powf(k * n)).powf(k)
    }

    /// Takes a digest in; whether it was seen before.
    pub fn insert(&mut self, digest: Digest128) -> bool {
        let mut seen = true;
        for bit in self.places(digest) {
            if let Some(bits) = self.bits.get_mut(bit / 64) {
                seen &= *bits >> (bit % 64) & 1 == 1;
                *bits |= 1 << (bit % 64);
            }
        }
        seen
    }

    /// Whether a digest was seen before.
    #[must_use]
    pub fn contains(&self, digest: Digest128) -> bool {
        let bits = |bit: usize| {
            self.bits
                .get(bit / 64)
                .is_some_and(|bits| bits >> (bit % 64) & 1 == 1)
        };
        self.places(digest).all(bits)
    }

    /// A digest's bits, by enhanced double hashing (Dillinger, Manolios 2004) of its two words.
    fn places(&self, Digest128([mut place, mut step]): Digest128) -> impl Iterator<Item = usize> + use<> {
        let size = self.bits.len() as u128 * 64;
        (0..u64::from(self.hashers)).map(move |i| {
            let bit = ((u128::from(place) * size) >> 64) as usize;
            (place, step) = (place.wrapping_add(step), step.wrapping_add(i));
            bit
        })
    }

    /// Writes the filter, for [`Bloom::open`].
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), DedupError> {
        let mut writer = TableWriter::create(path)?;
        for &bits in &self.bits {
            writer.push(&[bits])?;
        }
        writer.commit(KIND, [u64::from(self.hashers), 0, 0, 0])
    }

    /// Reads a filter.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn open(path: &Path) -> Result<Self, DedupError> {
        let reader = TableReader::<1>::open(path, KIND)?;
        let [hashers, ..] = reader.parameters();
        let bits = reader
            .map(|word| word.map(|[bits]| bits))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            bits,
            hashers: hashers as u32,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_dolmas() {
        assert_eq!(Bloom::optimal_hashers(1_000_000_000, 1_000_000_000), 6);
        assert_eq!(Bloom::optimal_hashers(1_000_000, 500_000), 12);
        let rate = Bloom::false_positive_rate(1_000_000_000, 1_000_000_000, 8);
        assert_eq!(rate, 0.025_491_740_593_406_025);
    }

    #[test]
    fn false_positives_are_as_many_as_predicted() {
        for (items, rate) in [(20_000, 0.1), (20_000, 0.01), (100_000, 0.001)] {
            let mut filter = Bloom::for_rate(items, rate);
            let digest = |kind: &str, i: u64| Digest128::of(&format!("{kind} {i}"));
            for i in 0..items {
                filter.insert(digest("in", i));
            }
            let predicted = Bloom::false_positive_rate(filter.bits.len() as u64 * 8, items, filter.hashers);
            assert!(predicted < rate * 1.1 && predicted > rate * 0.8, "{predicted}");
            let tries = 50_000;
            let hits = (0..tries).filter(|&i| filter.contains(digest("out", i))).count();
            let expected = tries as f64 * predicted;
            assert!(
                (hits as f64 - expected).abs() < 5.0 * expected.sqrt(),
                "{hits}, not {expected}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_was_seen_is_never_new(texts in prop::collection::vec("[a-z]{0,5}", 1..50), bytes in 1u64..2000) {
            let mut filter = Bloom::new(bytes, texts.len() as u64);
            texts.iter().for_each(|text| { filter.insert(Digest128::of(text)); });
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("filter");
            filter.save(&path).unwrap();
            let mut read = Bloom::open(&path).unwrap();
            prop_assert_eq!(&read, &filter);
            prop_assert!(texts.iter().all(|text| read.insert(Digest128::of(text))));
        }
    }
}
