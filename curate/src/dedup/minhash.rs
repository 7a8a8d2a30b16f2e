//! Signatures: how similar two documents are, from a few numbers of each.
//!
//! A signature holds, for each of its hash functions, the least value over a document's shingles. Two documents agree
//! in one of them with the probability of their Jaccard similarity: shingles in both, over shingles in either (Broder
//! 1997, On the resemblance and containment of documents).
//!
//! The functions are multilinear (Carter, Wegman 1979; Lemire, Kaser 2014, Strongly universal string hashing is fast) in
//! the two halves of a shingle's 64-bit hash x: h(x) = (a·lo(x) + c·hi(x) + b) mod 2³², a odd, with a, b and c drawn
//! by SplitMix64 from the seed. 32 bits are enough, as a value only ties with another shingle's by chance: n shingles
//! make an estimate too high by about n / 2³², 2·10⁻⁷ for a thousand words and 2·10⁻⁴ for a million. All 64 bits of the
//! shingle decide, so documents of one shingle collide no sooner than by 64-bit hashes.

use pulp::{Arch, Simd, WithSimd};
use xxhash_rust::xxh3::xxh3_64;

use crate::dedup::shingles::{Shingler, mix};
use crate::dedup::{DedupError, NearSettings};

/// Functions that shingles pass by together: seven vectors of eight, and two passes for 112. The loop over fewer is
/// unrolled before it can become vectors, which takes twice the time (8 against 4 µs for 620 shingles).
const LANES: usize = 56;

/// The least values of a document, function by function; those of one band stand together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signature {
    values: Vec<u32>,
}

impl Signature {
    /// The values.
    #[must_use]
    pub fn values(&self) -> &[u32] {
        &self.values
    }

    /// The estimate of the Jaccard similarity: the fraction of values that agree. Its standard deviation is
    /// √(s(1 − s)/k) at similarity s with k values: 0.04 at 0.75 with 112.
    #[must_use]
    pub fn similarity(&self, other: &Self) -> f64 {
        let pairs = self.values.iter().zip(&other.values);
        let equal = pairs.filter(|(a, b)| a == b).count();
        equal as f64 / self.values.len().max(1) as f64
    }

    /// The buckets of the document, one a band: an XXH3 of the band's values, never 0.
    pub fn bands(&self, rows: usize) -> impl Iterator<Item = u64> {
        let mut bytes = Vec::with_capacity(4 * rows);
        self.values.chunks_exact(rows.max(1)).map(move |band| {
            bytes.clear();
            band.iter()
                .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
            xxh3_64(&bytes).max(1)
        })
    }

    /// One byte a value, by which to estimate the similarity in a quarter of the space (b-bit minwise hashing, Li and
    /// König 2010, with b = 8).
    pub fn sketch(&self) -> impl Iterator<Item = u8> {
        // Multiplied, so that all bits of the value decide, not only the lowest.
        self.values
            .iter()
            .map(|value| (value.wrapping_mul(0x9E37_79B1) >> 24) as u8)
    }
}

/// The estimate of the Jaccard similarity from two sketches of equal length: (p − 2⁻⁸) / (1 − 2⁻⁸) where a fraction p
/// of the bytes agrees, as bytes agree by chance once in 256.
#[must_use]
pub fn similarity_of_sketches(a: &[u8], b: &[u8]) -> f64 {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    let p = equal as f64 / a.len().max(1) as f64;
    ((p - 1.0 / 256.0) / (1.0 - 1.0 / 256.0)).max(0.0)
}

/// `LANES` functions, and the least values that they have seen.
#[derive(Clone, Copy, Debug)]
struct Functions {
    a: [u32; LANES],
    b: [u32; LANES],
    c: [u32; LANES],
    least: [u32; LANES],
}

/// Makes signatures, one after the other, in the same buffers.
#[derive(Clone, Debug)]
pub struct Signer {
    shingler: Shingler,
    functions: Vec<Functions>,
    hashes: usize,
    arch: Arch,
    signature: Signature,
}

impl Signer {
    /// A signer for documents that are to be compared under these settings.
    ///
    /// # Errors
    /// If a setting is out of its bounds.
    pub fn new(settings: &NearSettings) -> Result<Self, DedupError> {
        settings.check().map_err(DedupError::Setting)?;
        let seed = u64::from(settings.seed);
        let mut state = mix(seed.wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mut draw = || {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            mix(state)
        };
        let hashes = settings.hashes();
        let mut functions = Vec::new();
        for _ in 0..hashes.div_ceil(LANES) {
            let mut group = Functions {
                a: [0; LANES],
                b: [0; LANES],
                c: [0; LANES],
                least: [u32::MAX; LANES],
            };
            for ((a, b), c) in group.a.iter_mut().zip(&mut group.b).zip(&mut group.c) {
                (*a, *b, *c) = (draw() as u32 | 1, draw() as u32, draw() as u32);
            }
            functions.push(group);
        }
        Ok(Self {
            shingler: Shingler::new(settings.ngram, seed),
            functions,
            hashes,
            arch: Arch::new(),
            signature: Signature::default(),
        })
    }

    /// The signature of a text; none for a text without words, which is like no other.
    pub fn sign(&mut self, text: &str) -> Option<&Signature> {
        self.forget();
        let (functions, arch) = (&mut self.functions, self.arch);
        let mut any = false;
        self.shingler.for_each_batch(text, |shingles| {
            any = true;
            arch.dispatch(Pass { functions, shingles });
        });
        any.then(|| self.collect())
    }

    /// The signature of a set of hashed shingles.
    pub fn sign_shingles(&mut self, shingles: &[u64]) -> Option<&Signature> {
        self.forget();
        let functions = &mut self.functions;
        self.arch.dispatch(Pass { functions, shingles });
        (!shingles.is_empty()).then(|| self.collect())
    }

    fn forget(&mut self) {
        self.functions
            .iter_mut()
            .for_each(|group| group.least = [u32::MAX; LANES]);
    }

    fn collect(&mut self) -> &Signature {
        let least = self.functions.iter().flat_map(|group| group.least);
        self.signature.values.clear();
        self.signature.values.extend(least.take(self.hashes));
        &self.signature
    }
}

/// Shingles that pass by all functions.
struct Pass<'a> {
    functions: &'a mut [Functions],
    shingles: &'a [u64],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    // Compiled once for each instruction set that pulp knows; the loop over lanes becomes vectors in each.
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for group in self.functions {
            let Functions { a, b, c, mut least } = *group;
            for &shingle in self.shingles {
                let (low, high) = (shingle as u32, (shingle >> 32) as u32);
                for lane in 0..LANES {
                    let value = a[lane]
                        .wrapping_mul(low)
                        .wrapping_add(c[lane].wrapping_mul(high))
                        .wrapping_add(b[lane]);
                    least[lane] = least[lane].min(value);
                }
            }
            group.least = least;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Distinct random shingles.
    fn shingles(seed: u64, range: std::ops::Range<u64>) -> Vec<u64> {
        range
            .map(|i| mix(mix(seed) ^ i.wrapping_mul(0xD134_2543_DE82_EF95)))
            .collect()
    }

    /// Signatures of two sets of random shingles, of which `common` of `either` are in both.
    fn pair(signer: &mut Signer, seed: u64, common: u64, either: u64) -> (Signature, Signature) {
        let lone = (either - common) / 2;
        let mut both = |from, to| {
            let mut set = shingles(seed, 0..common);
            set.extend(shingles(seed, from..to));
            signer.sign_shingles(&set).unwrap().clone()
        };
        (both(common, common + lone), both(common + lone, either))
    }

    #[test]
    fn values_are_what_the_formula_says() {
        let settings = NearSettings {
            bands: 3,
            rows: 7,
            ..NearSettings::default()
        };
        let mut signer = Signer::new(&settings).unwrap();
        let set = shingles(5, 0..333);
        let signature = signer.sign_shingles(&set).unwrap().clone();
        assert_eq!(signature.values().len(), 21);
        for (i, &value) in signature.values().iter().enumerate() {
            let group = &signer.functions[i / LANES];
            let (a, b, c) = (group.a[i % LANES], group.b[i % LANES], group.c[i % LANES]);
            let hash = |x: u64| {
                let sum = u128::from(a) * u128::from(x & 0xFFFF_FFFF) + u128::from(c) * u128::from(x >> 32);
                ((sum + u128::from(b)) % (1 << 32)) as u32
            };
            assert_eq!(value, set.iter().map(|&x| hash(x)).min().unwrap());
        }
        assert!(signer.sign_shingles(&[]).is_none() && signer.sign(" - ").is_none());
    }

    /// Over many pairs the count of equal values is binomial, in its mean and in its variance: the functions are as
    /// good as independent.
    #[test]
    fn equal_values_are_binomial() {
        for (common, either) in [(140, 200), (700, 1000), (10, 20), (4500, 6000), (60, 1000)] {
            let j = common as f64 / either as f64;
            let (k, pairs) = (112.0, 1500.0);
            let (mut sum, mut squares) = (0.0, 0.0);
            for seed in 0..pairs as u64 {
                // A family of functions for every ten pairs: neither one family nor one set decides.
                let settings = NearSettings {
                    seed: (seed / 10) as u32,
                    ..NearSettings::default()
                };
                let mut signer = Signer::new(&settings).unwrap();
                let (a, b) = pair(&mut signer, seed, common, either);
                let off = a.similarity(&b) - j;
                (sum, squares) = (sum + off, squares + off * off);
            }
            let variance = j * (1.0 - j) / k;
            // Five standard deviations of a mean, and of a variance (of a near-normal variable: √(2/n) of it).
            let mean = sum / pairs;
            assert!(mean.abs() < 5.0 * (variance / pairs).sqrt(), "{j}: off by {mean}");
            let ratio = squares / pairs / variance;
            assert!(
                (ratio - 1.0).abs() < 5.0 * (2.0 / pairs).sqrt(),
                "{j}: variance {ratio} of a binomial's"
            );
        }
    }

    #[test]
    fn pairs_match_as_often_as_the_formula_says() {
        let settings = NearSettings::default();
        for (common, published) in [(700, 0.5645), (750, 0.7716), (800, 0.9235), (850, 0.9884)] {
            let pairs = 2000;
            let mut matches = 0;
            for seed in 0..pairs {
                let settings = NearSettings {
                    seed: seed / 10,
                    ..settings.clone()
                };
                let mut signer = Signer::new(&settings).unwrap();
                let (a, b) = pair(&mut signer, u64::from(seed) | common << 32, common, 1000);
                matches += u32::from(a.bands(8).zip(b.bands(8)).any(|(a, b)| a == b));
            }
            let rate = f64::from(matches) / f64::from(pairs);
            // Five standard deviations of a binomial: 0.055 at 0.56, 0.012 at 0.99.
            let bound = 5.0 * (published * (1.0 - published) / f64::from(pairs)).sqrt();
            assert!(
                (rate - published).abs() < bound,
                "{common}: {rate}, not {published} ± {bound}"
            );
        }
    }

    #[test]
    fn a_quarter_of_a_signature_estimates_as_well() {
        let mut signer = Signer::new(&NearSettings::default()).unwrap();
        for common in [0, 500, 700, 900, 1000] {
            let (mut sum, pairs) = (0.0, 400.0);
            for seed in 0..pairs as u64 {
                let (a, b) = pair(&mut signer, seed | common << 32, common, 1000);
                let (a, b): (Vec<u8>, Vec<u8>) = (a.sketch().collect(), b.sketch().collect());
                sum += similarity_of_sketches(&a, &b);
            }
            let j = common as f64 / 1000.0;
            // Five standard deviations, and what cutting estimates off at zero adds.
            let bound = 5.0 * ((j * (1.0 - j) + 1.0 / 256.0) / 112.0 / pairs).sqrt() + 0.004;
            assert!((sum / pairs - j).abs() < bound, "{j}: {}", sum / pairs);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        /// The estimate against the true Jaccard similarity of two texts' shingles.
        #[test]
        fn the_estimate_of_texts_is_near_their_jaccard_similarity(
            words in prop::collection::vec(0u32..50, 5..400),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 50u32..90), 0..40),
            seed: u32,
        ) {
            let mut edited = words.clone();
            for (place, word) in edits {
                let place = place.index(edited.len());
                edited[place] = word;
            }
            let text = |words: &[u32]| words.iter().map(|word| format!("w{word}, ")).collect::<String>();
            let settings = NearSettings { seed, ..NearSettings::default() };
            let mut signer = Signer::new(&settings).unwrap();
            let a = signer.sign(&text(&words)).unwrap().clone();
            let b = signer.sign(&text(&edited)).unwrap().clone();
            let set = |words: &[u32]| words.windows(5).map(<[u32]>::to_vec).collect::<std::collections::BTreeSet<_>>();
            let (x, y) = (set(&words), set(&edited));
            let j = x.intersection(&y).count() as f64 / x.union(&y).count() as f64;
            prop_assert!((a.similarity(&b) - j).abs() <= 6.0 * (j * (1.0 - j) / 112.0).sqrt(), "{} {j}", a.similarity(&b));
        }
    }
}
