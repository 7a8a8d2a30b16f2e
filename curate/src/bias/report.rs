//! What the counts say.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::counts::{Counts, Dimension, LanguageCounts, Tally};
use super::interval::{log_odds, wilson};
use super::{Auditor, Settings};

/// How much of the corpus one name has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The language, script, source, domain or group.
    pub name: String,
    /// Documents seen.
    pub documents: u64,
    /// Documents kept.
    pub kept_documents: u64,
    /// Their text in bytes.
    pub kept_bytes: u64,
    /// Their share of all bytes kept, from 0 to 1; 0 if none are kept.
    pub share: f64,
}

/// How a group is associated with an attribute, against the other groups of its axis.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Association {
    /// The language of the text.
    pub language: String,
    /// The groups that are compared.
    pub axis: String,
    /// The group.
    pub group: String,
    /// The attribute.
    pub attribute: String,
    /// Mentions of the group.
    pub mentions: u64,
    /// Those with a word of the attribute near.
    pub near: u64,
    /// Mentions of the other groups of the axis.
    pub other_mentions: u64,
    /// Those with a word of the attribute near.
    pub other_near: u64,
    /// The log odds ratio of being near: above 0 if the group is nearer to the attribute than the others are.
    pub log_odds: f64,
    /// Its interval of 95%. See [`log_odds`].
    pub interval: (f64, f64),
}

/// How a filter treats the documents of one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// By what documents are told apart.
    pub dimension: Dimension,
    /// The language, script, source or group.
    pub name: String,
    /// The filter, by its reason's code.
    pub reason: String,
    /// Documents of the name.
    pub documents: u64,
    /// Those that the filter dropped.
    pub dropped: u64,
    /// Their share.
    pub rate: f64,
    /// Its interval of 95%. See [`wilson`].
    pub interval: (f64, f64),
    /// The share over that of all documents: 2 if the filter drops twice as many as of all.
    pub ratio: f64,
    /// The interval over the share of all documents, which is taken as known.
    pub ratio_interval: (f64, f64),
}

/// An audit's report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// All documents.
    pub all: Tally,
    /// What each name has, the most bytes first.
    pub representation: BTreeMap<Dimension, Vec<Row>>,
    /// Dimensions with so many names that only a sample of names is listed.
    pub sampled: Vec<Dimension>,
    /// By language, axis, group and attribute.
    pub associations: Vec<Association>,
    /// By dimension and reason, the greatest ratio first.
    pub effects: Vec<Effect>,
}

impl Auditor {
    /// What `counts` say.
    #[must_use]
    pub fn report(&self, counts: &Counts) -> Report {
        let rows = counts.names.iter().map(|(dimension, names)| {
            let mut rows: Vec<Row> = names
                .iter()
                .map(|(name, tally)| row(name, tally, &counts.all))
                .collect();
            rows.sort_by(|a, b| b.kept_bytes.cmp(&a.kept_bytes).then_with(|| a.name.cmp(&b.name)));
            (*dimension, rows)
        });
        let sampled = counts.names.iter().filter(|(_, names)| names.is_full());
        Report {
            all: counts.all.clone(),
            representation: rows.collect(),
            sampled: sampled.map(|(dimension, _)| *dimension).collect(),
            associations: counts
                .languages
                .iter()
                .flat_map(|(name, counts)| associations(name, counts))
                .collect(),
            effects: effects(counts, &self.settings),
        }
    }
}

fn row(name: &str, tally: &Tally, all: &Tally) -> Row {
    Row {
        name: name.to_owned(),
        documents: tally.documents,
        kept_documents: tally.kept_documents,
        kept_bytes: tally.kept_bytes,
        share: tally.kept_bytes as f64 / all.kept_bytes.max(1) as f64,
    }
}

fn associations(language: &str, counts: &LanguageCounts) -> Vec<Association> {
    let mut associations = Vec::new();
    for (axis, groups) in &counts.groups {
        let all_mentions: u64 = groups.values().map(|group| group.mentions).sum();
        for (name, group) in groups {
            for attribute in counts.attributes.keys() {
                let near_of = |near: &BTreeMap<String, u64>| near.get(attribute).copied().unwrap_or(0);
                let near = near_of(&group.near);
                let other_near = groups.values().map(|group| near_of(&group.near)).sum::<u64>() - near;
                let other_mentions = all_mentions - group.mentions;
                let table = [
                    near,
                    group.mentions.saturating_sub(near),
                    other_near,
                    other_mentions.saturating_sub(other_near),
                ];
                let (log_odds, interval) = log_odds(table);
                associations.push(Association {
                    language: language.to_owned(),
                    axis: axis.clone(),
                    group: name.clone(),
                    attribute: attribute.clone(),
                    mentions: group.mentions,
                    near,
                    other_mentions,
                    other_near,
                    log_odds,
                    interval,
                });
            }
        }
    }
    associations
}

fn effects(counts: &Counts, settings: &Settings) -> Vec<Effect> {
    let mut effects = Vec::new();
    let dimensions = counts
        .names
        .iter()
        .filter(|(dimension, _)| **dimension != Dimension::Domain);
    for (&dimension, names) in dimensions {
        for (reason, all_dropped) in &counts.all.dropped {
            let overall = *all_dropped as f64 / counts.all.documents.max(1) as f64;
            for (name, tally) in names
                .iter()
                .filter(|(_, tally)| tally.documents >= settings.min_documents.max(1))
            {
                let dropped = tally.dropped.get(reason).copied().unwrap_or(0);
                let rate = dropped as f64 / tally.documents as f64;
                let (low, high) = wilson(dropped, tally.documents);
                effects.push(Effect {
                    dimension,
                    name: name.to_owned(),
                    reason: reason.clone(),
                    documents: tally.documents,
                    dropped,
                    rate,
                    interval: (low, high),
                    ratio: rate / overall,
                    ratio_interval: (low / overall, high / overall),
                });
            }
        }
    }
    effects.sort_by(|a, b| {
        let by_filter = a
            .dimension
            .cmp(&b.dimension)
            .then_with(|| a.reason.cmp(&b.reason));
        by_filter
            .then_with(|| b.ratio.total_cmp(&a.ratio))
            .then_with(|| a.name.cmp(&b.name))
    });
    effects
}

#[cfg(test)]
mod tests {
    use super::super::{Lexicon, Observed};
    use super::*;

    fn audited(documents: &[(&str, &str, Option<&str>, usize)]) -> Report {
        let auditor = Auditor::new(Settings::default(), &Lexicon::built_in().unwrap()).unwrap();
        let mut counts = Counts::default();
        for &(text, language, dropped, times) in documents {
            let document = Observed {
                text,
                language: Some(language),
                script: Some("Latn"),
                source: "web",
                url: None,
                dropped,
            };
            (0..times).for_each(|_| auditor.observe(&mut counts, &document));
        }
        auditor.report(&counts)
    }

    #[test]
    fn a_biased_corpus_shows() {
        let report = audited(&[
            ("He is an engineer. ", "eng", None, 40),
            ("She is in the kitchen. ", "eng", None, 30),
            ("She is an engineer. ", "eng", None, 10),
        ]);
        let find = |group: &str, attribute: &str| {
            let mut all = report.associations.iter();
            all.find(|one| one.group == group && one.attribute == attribute)
                .unwrap()
        };
        let (his, hers) = (find("male", "career"), find("female", "career"));
        assert_eq!(
            (his.near, his.mentions, his.other_near, his.other_mentions),
            (40, 40, 10, 40)
        );
        assert!(his.interval.0 > 0.0 && hers.interval.1 < 0.0);
        assert!((his.log_odds + hers.log_odds).abs() < 1e-12);
        assert!(find("female", "family").interval.0 > 0.0);
        assert_eq!(report.representation[&Dimension::Language][0].share, 1.0);
    }

    #[test]
    fn a_filter_that_drops_one_language_shows() {
        let report = audited(&[
            ("Ein Text.", "deu", Some("gopher.stop_words"), 90),
            ("Ein Text.", "deu", None, 10),
            ("A text.", "eng", Some("gopher.stop_words"), 10),
            ("A text.", "eng", None, 90),
            ("Un texte.", "fra", None, 5),
        ]);
        let languages = report
            .effects
            .iter()
            .filter(|effect| effect.dimension == Dimension::Language);
        let languages: Vec<_> = languages.collect();
        // French has too few documents to say anything.
        assert_eq!(
            languages
                .iter()
                .map(|effect| effect.name.as_str())
                .collect::<Vec<_>>(),
            ["deu", "eng"]
        );
        let overall = 100.0 / 205.0;
        assert!((languages[0].ratio - 0.9 / overall).abs() < 1e-12);
        assert!(languages[0].ratio_interval.0 > 1.0 && languages[1].ratio_interval.1 < 1.0);
    }
}
