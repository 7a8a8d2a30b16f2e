//! What was found of which set.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Contamination, Index};

/// What was found of all sets. Whole numbers, so that reports of parts add up to the same whatever their order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Documents that were scanned.
    pub documents: u64,
    /// Those of them that hold an item.
    pub contaminated: u64,
    /// Bytes of text that overlap.
    pub overlapping_bytes: u64,
    /// N-grams that were not looked for, as too many items have them.
    pub common_ngrams: u64,
    /// By set.
    pub sets: BTreeMap<String, SetReport>,
}

/// What was found of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetReport {
    /// Items of the set.
    pub items: u64,
    /// Those of them that are too short to be looked for.
    pub too_short: u64,
    /// Documents that hold an item of it.
    pub documents: u64,
    /// The items that were found, by line, from 0.
    pub found: BTreeMap<u64, ItemReport>,
}

/// What was found of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItemReport {
    /// Documents that hold it.
    pub documents: u64,
    /// The most of its n-grams that one document has.
    pub found: u32,
    /// Its different n-grams: `found` of these is the share.
    pub ngrams: u32,
}

impl Report {
    /// A report of no document on the sets of `index`.
    #[must_use]
    pub fn new(index: &Index) -> Self {
        let set = |set: &super::index::Set| SetReport {
            items: set.items,
            too_short: set.too_short,
            ..SetReport::default()
        };
        Self {
            common_ngrams: index.common,
            sets: index
                .sets
                .iter()
                .map(|known| (known.name.clone(), set(known)))
                .collect(),
            ..Self::default()
        }
    }

    /// Counts a document in.
    pub fn add(&mut self, index: &Index, contamination: &Contamination) {
        self.documents += 1;
        self.contaminated += u64::from(!contamination.is_empty());
        self.overlapping_bytes += contamination
            .ranges
            .iter()
            .map(|range| range.len() as u64)
            .sum::<u64>();
        for of_set in contamination.matches.chunk_by(|a, b| a.set == b.set) {
            let name = of_set
                .first()
                .and_then(|found| index.sets.get(found.set as usize))
                .map(|set| &set.name);
            let Some(set) = name.and_then(|name| self.sets.get_mut(name)) else {
                continue;
            };
            set.documents += 1;
            for found in of_set {
                let item = ItemReport {
                    documents: 1,
                    found: found.found,
                    ngrams: found.ngrams,
                };
                set.found.entry(found.line).or_default().merge(item);
            }
        }
    }

    /// Counts in what others counted with the same index.
    pub fn merge(&mut self, other: &Self) {
        self.documents += other.documents;
        self.contaminated += other.contaminated;
        self.overlapping_bytes += other.overlapping_bytes;
        self.common_ngrams = self.common_ngrams.max(other.common_ngrams);
        for (name, theirs) in &other.sets {
            let ours = self.sets.entry(name.clone()).or_default();
            ours.items = ours.items.max(theirs.items);
            ours.too_short = ours.too_short.max(theirs.too_short);
            ours.documents += theirs.documents;
            for (&line, &item) in &theirs.found {
                ours.found.entry(line).or_default().merge(item);
            }
        }
    }
}

impl ItemReport {
    fn merge(&mut self, other: Self) {
        self.documents += other.documents;
        self.found = self.found.max(other.found);
        self.ngrams = self.ngrams.max(other.ngrams);
    }
}
