//! What is a near-duplicate, which document of a cluster stays, and how much memory a sort takes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// How near-duplicates are found. The defaults are datatrove's and FineWeb's: word 5-grams, 14 bands of 8 rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NearSettings {
    /// Words in a shingle. 5.
    pub ngram: usize,
    /// Bands of a signature: documents that agree in all rows of one band are candidates. 14.
    pub bands: usize,
    /// Rows of a band. 8.
    pub rows: usize,
    /// Which family of hashes is drawn. 1.
    pub seed: u32,
    /// If given, candidates are joined only if their signatures say that they are at least this similar (Jaccard
    /// similarity of their shingles, 0 to 1). It needs a byte more for each hash in every part. Not given: every
    /// candidate is joined, as datatrove does.
    pub verify: Option<f64>,
    /// Which document of a cluster stays. The longest.
    pub keep: Keep,
}

impl Default for NearSettings {
    fn default() -> Self {
        Self {
            ngram: 5,
            bands: 14,
            rows: 8,
            seed: 1,
            verify: None,
            keep: Keep::Longest,
        }
    }
}

impl NearSettings {
    /// Whether the values are within their bounds.
    ///
    /// # Errors
    /// Names the field, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        let bounded = |name: &str, value: usize, most: usize| {
            let fits = (1..=most).contains(&value);
            fits.then_some(())
                .ok_or_else(|| format!("{name} = {value}: must be from 1 to {most}"))
        };
        bounded("ngram", self.ngram, 64)?;
        bounded("bands", self.bands, 256)?;
        bounded("rows", self.rows, 256)?;
        bounded("bands * rows", self.hashes(), 4096)?;
        match self.verify {
            Some(verify) if !(0.0..=1.0).contains(&verify) => {
                Err(format!("verify = {verify}: must be from 0 to 1"))
            }
            _ => Ok(()),
        }
    }

    /// Hashes of a signature.
    #[must_use]
    pub fn hashes(&self) -> usize {
        self.bands.saturating_mul(self.rows)
    }

    /// The probability that two documents of this Jaccard similarity share a bucket: 1 − (1 − sʳ)ᵇ with b bands of r
    /// rows (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, 3.4.2). `verify` is not in it.
    #[must_use]
    pub fn probability_of_match(&self, similarity: f64) -> f64 {
        1.0 - (1.0 - similarity.powi(self.rows as i32)).powi(self.bands as i32)
    }

    /// Where that probability rises most steeply, about: (1/b)^(1/r) (same source).
    #[must_use]
    pub fn threshold(&self) -> f64 {
        (1.0 / self.bands as f64).powf(1.0 / self.rows as f64)
    }
}

/// Which document of a cluster stays. Among equals, the first does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// The one with the most bytes.
    #[default]
    Longest,
    /// The one with the smallest ordinal.
    First,
    /// The one with the highest score of quality.
    BestQuality,
}

impl Keep {
    /// What a document weighs under this rule; the one of a cluster that weighs most stays. Lengths from 4 GiB on
    /// weigh the same, and a score that is not a number weighs least.
    #[must_use]
    pub fn rank(self, bytes: usize, quality: f32) -> u32 {
        match self {
            Self::Longest => u32::try_from(bytes).unwrap_or(u32::MAX),
            Self::First => 0,
            Self::BestQuality if quality.is_nan() => 0,
            // The bits of floats, so turned that they sort as the numbers do (-0 as 0).
            Self::BestQuality => match (quality + 0.0).to_bits() {
                bits if bits >> 31 == 0 => bits | 1 << 31,
                bits => !bits,
            },
        }
    }
}

/// A share of the work that needs nothing of the other shares: the keys that leave `index` when divided by `of`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Which share, from 0.
    pub index: u64,
    /// How many there are.
    pub of: u64,
}

impl Slice {
    /// One of `of`.
    #[must_use]
    pub fn new(index: usize, of: usize) -> Self {
        Self {
            index: index as u64,
            of: of as u64,
        }
    }

    pub(crate) fn holds(self, key: u64) -> bool {
        key % self.of.max(1) == self.index
    }
}

/// Where and in how much memory a sort takes place.
#[derive(Clone, Debug)]
pub struct SortSettings {
    /// The folder for runs that do not fit in memory. They have no name and vanish with the process.
    pub scratch: PathBuf,
    /// Bytes of a run, which is held in memory until it is full.
    pub memory_bytes: usize,
}

impl SortSettings {
    /// Runs of 32 MiB.
    #[must_use]
    pub fn new(scratch: &Path) -> Self {
        Self {
            scratch: scratch.to_owned(),
            memory_bytes: 32 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_probability_of_a_match_is_the_published_one() {
        let settings = NearSettings::default();
        for (similarity, published) in [(0.7, 0.5645), (0.75, 0.7716), (0.8, 0.9235), (0.85, 0.9884)] {
            let probability = settings.probability_of_match(similarity);
            assert!(
                (probability - published).abs() < 5e-5,
                "{similarity}: {probability}"
            );
        }
        assert!((settings.threshold() - 0.719).abs() < 5e-4);
    }

    #[test]
    fn settings_read_as_a_table_and_are_checked() {
        let settings: NearSettings = toml::from_str("verify = 0.7\nkeep = \"best-quality\"").unwrap();
        assert_eq!((settings.ngram, settings.keep), (5, Keep::BestQuality));
        let back = toml::to_string(&settings).unwrap();
        assert_eq!(toml::from_str::<NearSettings>(&back).unwrap(), settings);
        assert!(toml::from_str::<NearSettings>("band = 3").is_err());
        for (table, said) in [
            ("bands = 0", "bands = 0: must be from 1 to 256"),
            ("ngram = 65", "ngram = 65: must be from 1 to 64"),
            (
                "bands = 200\nrows = 100",
                "bands * rows = 20000: must be from 1 to 4096",
            ),
            ("verify = 1.5", "verify = 1.5: must be from 0 to 1"),
        ] {
            let settings: NearSettings = toml::from_str(table).unwrap();
            assert_eq!(settings.check().unwrap_err(), said);
        }
        assert_eq!(NearSettings::default().check(), Ok(()));
    }

    proptest! {
        #[test]
        fn ranks_sort_as_scores_do(a in any::<f32>(), b in any::<f32>()) {
            let rank = |quality| Keep::BestQuality.rank(7, quality);
            match a.partial_cmp(&b) {
                Some(order) => prop_assert_eq!(rank(a).cmp(&rank(b)), order),
                None => prop_assert!(rank(f32::NAN) <= rank(a).min(rank(b))),
            }
            prop_assert_eq!(rank(-0.0), rank(0.0));
            prop_assert!(rank(f32::NAN) < rank(f32::NEG_INFINITY));
        }
    }
}
