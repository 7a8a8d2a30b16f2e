//! What went in, what came out, and why the rest did not: counts that add up in any order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Documents and their bytes of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Documents.
    pub documents: u64,
    /// Bytes of their text.
    pub bytes: u64,
}

impl Tally {
    /// One document of so many bytes.
    #[must_use]
    pub fn one(bytes: usize) -> Self {
        Self {
            documents: 1,
            bytes: bytes as u64,
        }
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
    }
}

/// Tallies by name.
pub type Tallies = BTreeMap<String, Tally>;

/// What a stage let through and what it did not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flow {
    /// What it was given.
    pub given: Tally,
    /// What it passed on, as it was then.
    pub passed: Tally,
    /// What it dropped, by reason.
    pub dropped: Tallies,
    /// What it dropped, by language and then by reason; `unknown` where none was identified yet.
    pub dropped_by_language: BTreeMap<String, BTreeMap<String, u64>>,
    /// What it altered, by kind of change: how many times.
    pub altered: BTreeMap<String, u64>,
    /// Documents that it altered.
    pub documents_altered: u64,
}

impl Flow {
    /// A document came in and went on.
    pub fn pass(&mut self, given: usize, passed: usize) {
        self.given += Tally::one(given);
        self.passed += Tally::one(passed);
    }

    /// A document came in and was dropped.
    pub fn drop(&mut self, bytes: usize, reason: &str, language: Option<&str>) {
        self.given += Tally::one(bytes);
        *entry(&mut self.dropped, reason) += Tally::one(bytes);
        let by_reason = entry(&mut self.dropped_by_language, language.unwrap_or("unknown"));
        *entry(by_reason, reason) += 1;
    }

    /// A document was altered: how many times, by kind.
    pub fn alter<'k>(&mut self, changes: impl IntoIterator<Item = (&'k str, u64)>) {
        let mut any = false;
        for (kind, count) in changes {
            if count > 0 {
                any = true;
                *entry(&mut self.altered, kind) += count;
            }
        }
        self.documents_altered += u64::from(any);
    }

    fn add(&mut self, other: &Self) {
        self.given += other.given;
        self.passed += other.passed;
        merge(&mut self.dropped, &other.dropped, |a, b| *a += *b);
        merge(
            &mut self.dropped_by_language,
            &other.dropped_by_language,
            |a, b| {
                merge(a, b, |a, b| *a += b);
            },
        );
        merge(&mut self.altered, &other.altered, |a, b| *a += b);
        self.documents_altered += other.documents_altered;
    }
}

/// How often a value fell between bounds that are the same for all documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// By number of the bin.
    pub bins: BTreeMap<i32, u64>,
}

impl Histogram {
    /// A value whose bins are powers of two: bin `n` holds 2ⁿ to 2ⁿ⁺¹; zero is in bin -1.
    pub fn add_log2(&mut self, value: u64) {
        let bin = value.checked_ilog2().map_or(-1, |bin| bin as i32);
        *self.bins.entry(bin).or_default() += 1;
    }

    /// A value whose bins are `width` wide: bin `n` holds `n × width` to `(n + 1) × width`. What is not finite counts nowhere.
    pub fn add_linear(&mut self, value: f32, width: f32) {
        if value.is_finite() {
            let bin = (f64::from(value) / f64::from(width)).floor();
            *self.bins.entry(bin.clamp(-1000.0, 1000.0) as i32).or_default() += 1;
        }
    }

    fn add(&mut self, other: &Self) {
        merge(&mut self.bins, &other.bins, |a, b| *a += b);
    }
}

/// Text and the tokens that it takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fertility {
    /// Bytes of text.
    pub bytes: u64,
    /// Words.
    pub words: u64,
    /// Tokens, without ends of documents.
    pub tokens: u64,
}

impl Fertility {
    /// Adds that of other text.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.words += other.words;
        self.tokens += other.tokens;
    }
}

/// All that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// By stage.
    pub stages: BTreeMap<String, Flow>,
    /// What is kept, by source.
    pub sources: Tallies,
    /// What is kept, by language.
    pub languages: Tallies,
    /// What was read, by language.
    pub languages_read: Tallies,
    /// What is kept, by script.
    pub scripts: Tallies,
    /// What is kept, by licence.
    pub licences: Tallies,
    /// Kept documents whose text is in several languages.
    pub mixed_language: Tally,
    /// Bytes of kept documents, by powers of two.
    pub lengths: Histogram,
    /// Scores of all documents that were scored, dropped or not.
    pub scores: BTreeMap<String, Histogram>,
    /// Private data found, by kind and then by language.
    pub pii: BTreeMap<String, BTreeMap<String, u64>>,
    /// Sizes of clusters of near-duplicates, by powers of two.
    pub clusters: Histogram,
    /// By language.
    pub fertility: BTreeMap<String, Fertility>,
    /// By source.
    pub tokens: BTreeMap<String, Fertility>,
}

impl Counts {
    /// The flow through a stage.
    pub fn stage(&mut self, name: &str) -> &mut Flow {
        entry(&mut self.stages, name)
    }

    /// Adds those of other documents.
    pub fn add(&mut self, other: &Self) {
        let Self {
            stages,
            sources,
            languages,
            languages_read,
            scripts,
            licences,
            mixed_language,
            lengths,
            scores,
            pii,
            clusters,
            fertility,
            tokens,
        } = other;
        merge(&mut self.stages, stages, Flow::add);
        for (ours, theirs) in [
            (&mut self.sources, sources),
            (&mut self.languages, languages),
            (&mut self.languages_read, languages_read),
            (&mut self.scripts, scripts),
            (&mut self.licences, licences),
        ] {
            merge(ours, theirs, |a, b| *a += *b);
        }
        self.mixed_language += *mixed_language;
        self.lengths.add(lengths);
        merge(&mut self.scores, scores, Histogram::add);
        merge(&mut self.pii, pii, |a, b| merge(a, b, |a, b| *a += b));
        self.clusters.add(clusters);
        merge(&mut self.fertility, fertility, Fertility::add);
        merge(&mut self.tokens, tokens, Fertility::add);
    }

    /// The stage and reason that dropped most documents, and how many; none if nothing was dropped.
    #[must_use]
    pub fn worst(&self) -> Option<(String, u64)> {
        let all = self.stages.iter().flat_map(|(stage, flow)| {
            let dropped = flow.dropped.iter();
            dropped.map(move |(reason, tally)| (format!("{stage} ({reason})"), tally.documents))
        });
        all.max_by(|a, b| a.1.cmp(&b.1).then_with(|| b.0.cmp(&a.0)))
    }
}

/// The value of a name, made where it is missing.
pub(crate) fn entry<'m, V: Default>(map: &'m mut BTreeMap<String, V>, name: &str) -> &'m mut V {
    map.entry(name.to_owned()).or_default()
}

fn merge<K: Ord + Clone, V: Clone + Default>(
    ours: &mut BTreeMap<K, V>,
    theirs: &BTreeMap<K, V>,
    add: impl Fn(&mut V, &V),
) {
    for (key, value) in theirs {
        add(ours.entry(key.clone()).or_default(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Counts of some documents, each drawn as a number.
    fn counts(documents: &[u32]) -> Counts {
        let mut counts = Counts::default();
        for &draw in documents {
            let (bytes, name) = (draw as usize % 1000, format!("n{}", draw % 7));
            let flow = counts.stage(["read", "quality"][draw as usize % 2]);
            if draw % 3 == 0 {
                flow.drop(bytes, &name, Some("eng").filter(|_| draw % 2 == 0));
            } else {
                flow.pass(bytes, bytes / 2);
                flow.alter([("nfc", u64::from(draw % 5)), ("bom", 0)]);
            }
            *entry(&mut counts.languages, &name) += Tally::one(bytes);
            *entry(entry(&mut counts.pii, "email"), &name) += 1;
            counts.lengths.add_log2(bytes as u64);
            entry(&mut counts.scores, &name).add_linear(draw as f32 / 100.0, 0.05);
            entry(&mut counts.fertility, &name).tokens += u64::from(draw);
            counts.clusters.add_log2(u64::from(draw));
        }
        counts
    }

    proptest! {
        #[test]
        fn parts_add_up_to_the_whole_in_any_order(
            documents in prop::collection::vec(0u32..100_000, 0..60), cut: prop::sample::Index,
        ) {
            let (left, right) = documents.split_at(cut.index(documents.len() + 1));
            let whole = counts(&documents);
            for parts in [[left, right], [right, left]] {
                let mut sum = Counts::default();
                for part in parts {
                    sum.add(&counts(part));
                }
                prop_assert_eq!(&sum, &whole);
            }
            let json = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), whole);
        }
    }

    #[test]
    fn the_worst_reason_is_named_with_its_stage() {
        let mut counts = Counts::default();
        assert_eq!(counts.worst(), None);
        counts.stage("quality").drop(1, "gopher.words", None);
        counts.stage("dedup").drop(1, "near", None);
        counts.stage("dedup").drop(1, "near", None);
        assert_eq!(counts.worst(), Some(("dedup (near)".to_owned(), 2)));
    }
}
