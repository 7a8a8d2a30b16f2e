//! What is counted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::bounded::Bounded;
use super::lexicon::{Compiled, Marks};
use super::words::lower_words;
use super::{Auditor, Observed};

/// The most names that are counted in a dimension; of more, a sample. Domains may be that many, some 50 MB.
const MOST_NAMES: usize = 1 << 18;

/// The longest name of a domain, by RFC 1035.
const DOMAIN_BYTES: usize = 253;

/// By what documents are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// The identified language; `unknown` if there is none.
    Language,
    /// The script of most letters; `none` if there are no letters.
    Script,
    /// The source in the spec.
    Source,
    /// The domain of the address, without `www.`; documents without an address have none.
    Domain,
    /// Axis and group, as in `gender/female`. A document may speak of several groups, or of none.
    Group,
}

impl Dimension {
    /// As it is written in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Language => "language",
            Self::Script => "script",
            Self::Source => "source",
            Self::Domain => "domain",
            Self::Group => "group",
        }
    }
}

/// Counts by name.
pub type Names = Bounded<Tally, MOST_NAMES>;

/// Documents, kept or dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    /// Documents seen.
    pub documents: u64,
    /// Their text in bytes.
    pub bytes: u64,
    /// Documents kept.
    pub kept_documents: u64,
    /// Their text in bytes.
    pub kept_bytes: u64,
    /// Documents dropped, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub dropped: BTreeMap<String, u64>,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.documents += other.documents;
        self.bytes += other.bytes;
        self.kept_documents += other.kept_documents;
        self.kept_bytes += other.kept_bytes;
        for (reason, documents) in other.dropped {
            *self.dropped.entry(reason).or_default() += documents;
        }
    }
}

/// Mentions of a group in kept documents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupCounts {
    /// Words of the group.
    pub mentions: u64,
    /// Those of them that have a word of an attribute near, by attribute.
    pub near: BTreeMap<String, u64>,
}

/// Mentions in kept documents of one language.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanguageCounts {
    /// Words of any kind.
    pub words: u64,
    /// By axis, then by group.
    pub groups: BTreeMap<String, BTreeMap<String, GroupCounts>>,
    /// Words of an attribute.
    pub attributes: BTreeMap<String, u64>,
}

/// Everything that an audit has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All documents.
    pub all: Tally,
    /// Documents by what tells them apart.
    pub names: BTreeMap<Dimension, Names>,
    /// Mentions by language.
    pub languages: BTreeMap<String, LanguageCounts>,
}

impl Counts {
    /// Adds what another part of the corpus has, counted by the same auditor.
    pub fn merge(&mut self, other: Self) {
        self.all += other.all;
        for (dimension, names) in other.names {
            self.names.entry(dimension).or_default().merge(names);
        }
        for (language, counts) in other.languages {
            let language = self.languages.entry(language).or_default();
            language.words += counts.words;
            for (attribute, words) in counts.attributes {
                *language.attributes.entry(attribute).or_default() += words;
            }
            for (axis, groups) in counts.groups {
                let axis = language.groups.entry(axis).or_default();
                for (group, counts) in groups {
                    let group = axis.entry(group).or_default();
                    group.mentions += counts.mentions;
                    for (attribute, near) in counts.near {
                        *group.near.entry(attribute).or_default() += near;
                    }
                }
            }
        }
    }
}

impl Auditor {
    /// Counts one document.
    pub fn observe(&self, counts: &mut Counts, document: &Observed<'_>) {
        let bytes = document.text.len() as u64;
        let is_kept = document.dropped.is_none();
        let tally = Tally {
            documents: 1,
            bytes,
            kept_documents: u64::from(is_kept),
            kept_bytes: if is_kept { bytes } else { 0 },
            dropped: document
                .dropped
                .iter()
                .map(|reason| ((*reason).to_owned(), 1))
                .collect(),
        };
        let mut count = |dimension, name: &str| {
            counts
                .names
                .entry(dimension)
                .or_default()
                .add(name, tally.clone());
        };
        count(Dimension::Language, document.language.unwrap_or("unknown"));
        count(Dimension::Script, document.script.unwrap_or("none"));
        count(Dimension::Source, document.source);
        if let Some(domain) = document.url.and_then(domain) {
            count(Dimension::Domain, &domain);
        }
        if let Some(lexicon) = document.language.and_then(|language| self.lexicons.get(language)) {
            let mentions = Mentions::of(document.text, lexicon, self.settings.window_words);
            for ((axis, group), of_group) in lexicon.groups.iter().zip(&mentions.groups) {
                if of_group.mentions > 0 {
                    count(Dimension::Group, &format!("{axis}/{group}"));
                }
            }
            if is_kept {
                let language = counts.languages.entry(lexicon.language.to_owned()).or_default();
                mentions.add_to(language, lexicon);
            }
        }
        counts.all += tally;
    }
}

/// The domain of an address, in lower case, without `www.` and port.
fn domain(url: &str) -> Option<String> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#', '\\']).next()?;
    let host = authority.rsplit('@').next()?;
    let host = if host.starts_with('[') {
        host.split_inclusive(']').next()?
    } else {
        host.split(':').next()?
    };
    let host = host.trim_end_matches('.');
    if host.is_empty() || host.len() > DOMAIN_BYTES {
        return None;
    }
    let host = host.to_lowercase();
    Some(host.strip_prefix("www.").map(str::to_owned).unwrap_or(host))
}

/// Mentions of one group in a document.
#[derive(Clone)]
struct OfGroup {
    mentions: u64,
    /// Mentions that have an attribute near, by its bit.
    near: Vec<u64>,
}

/// Mentions in a document.
struct Mentions {
    words: u64,
    groups: Vec<OfGroup>,
    attributes: Vec<u64>,
}

impl Mentions {
    fn of(text: &str, lexicon: &Compiled, window_words: u64) -> Self {
        let none = OfGroup {
            mentions: 0,
            near: vec![0; lexicon.attributes.len()],
        };
        let mut mentions = Self {
            words: 0,
            groups: vec![none; lexicon.groups.len()],
            attributes: vec![0; lexicon.attributes.len()],
        };
        // Marked words no farther back than the window, with their places: at most one a word of it.
        let mut waiting: VecDeque<(u64, Marks)> = VecDeque::new();
        let mut attributes: VecDeque<(u64, u64)> = VecDeque::new();
        let mut at = 0;
        lower_words(text, |word| {
            at += 1;
            let Some(marks) = word.and_then(|word| lexicon.words.get(word).copied()) else {
                return;
            };
            let is_past = |place: u64| place + window_words < at;
            while let Some((_, mention)) = waiting.pop_front_if(|(place, _)| is_past(*place)) {
                mentions.count(mention);
            }
            while attributes.pop_front_if(|(place, _)| is_past(*place)).is_some() {}
            if marks.attributes != 0 {
                waiting
                    .iter_mut()
                    .for_each(|(_, mention)| mention.attributes |= marks.attributes);
                bits(marks.attributes, &mut mentions.attributes).for_each(|count| *count += 1);
            }
            if marks.groups != 0 {
                // Until it is counted, a mention's attributes are those seen near it so far.
                let near = attributes
                    .iter()
                    .fold(0, |near, (_, attributes)| near | attributes);
                let mention = Marks {
                    groups: marks.groups,
                    attributes: near,
                };
                waiting.push_back((at, mention));
            }
            if marks.attributes != 0 {
                attributes.push_back((at, marks.attributes));
            }
        });
        for (_, mention) in waiting {
            mentions.count(mention);
        }
        mentions.words = at;
        mentions
    }

    fn count(&mut self, mention: Marks) {
        for group in bits(mention.groups, &mut self.groups) {
            group.mentions += 1;
            bits(mention.attributes, &mut group.near).for_each(|near| *near += 1);
        }
    }

    fn add_to(&self, counts: &mut LanguageCounts, lexicon: &Compiled) {
        counts.words += self.words;
        for (attribute, words) in lexicon
            .attributes
            .iter()
            .zip(&self.attributes)
            .filter(|(_, words)| **words > 0)
        {
            *counts.attributes.entry(attribute.clone()).or_default() += words;
        }
        let spoken_of = lexicon
            .groups
            .iter()
            .zip(&self.groups)
            .filter(|(_, of_group)| of_group.mentions > 0);
        for ((axis, group), of_group) in spoken_of {
            let group = counts
                .groups
                .entry(axis.clone())
                .or_default()
                .entry(group.clone())
                .or_default();
            group.mentions += of_group.mentions;
            for (attribute, near) in lexicon
                .attributes
                .iter()
                .zip(&of_group.near)
                .filter(|(_, near)| **near > 0)
            {
                *group.near.entry(attribute.clone()).or_default() += near;
            }
        }
    }
}

/// The items whose bit is set.
fn bits<T>(bits: u64, items: &mut [T]) -> impl Iterator<Item = &mut T> {
    items
        .iter_mut()
        .enumerate()
        .filter(move |(bit, _)| bits >> bit & 1 == 1)
        .map(|(_, item)| item)
}

#[cfg(test)]
mod tests {
    use super::super::{Lexicon, Settings};
    use super::*;
    use proptest::prelude::*;

    fn auditor() -> Auditor {
        let lexicon = "language = 'en'\ngroups.gender = { female = ['she'], male = ['he'] }\n\
                       attributes = { career = ['job', 'boss'], family = ['home', 'she'] }";
        let lexicon = Lexicon::parse("test", lexicon).unwrap();
        let settings = Settings {
            window_words: 2,
            ..Settings::default()
        };
        Auditor::new(settings, &[("test".to_owned(), lexicon)]).unwrap()
    }

    fn document<'a>(text: &'a str, dropped: Option<&'a str>) -> Observed<'a> {
        Observed {
            text,
            language: Some("eng"),
            script: Some("Latn"),
            source: "web",
            url: Some("https://user@www.Example.org:8080/a?b"),
            dropped,
        }
    }

    #[test]
    fn near_is_within_the_window_on_either_side() {
        let mut counts = Counts::default();
        for text in ["job x she", "She x job", "she x x job", "boss he job", "x she"] {
            auditor().observe(&mut counts, &document(text, None));
        }
        let english = &counts.languages["eng"];
        assert_eq!(english.words, 3 + 3 + 4 + 3 + 2);
        let (female, male) = (
            &english.groups["gender"]["female"],
            &english.groups["gender"]["male"],
        );
        assert_eq!((female.mentions, male.mentions), (4, 1));
        // A mention with two near counts once; a word is not near itself.
        assert_eq!(
            (female.near.get("career"), male.near.get("career")),
            (Some(&2), Some(&1))
        );
        assert_eq!(female.near.get("family"), None);
        assert_eq!(english.attributes["career"], 5);
    }

    #[test]
    fn dropped_documents_count_for_effects_only() {
        let mut counts = Counts::default();
        auditor().observe(&mut counts, &document("she job", Some("gopher.words")));
        auditor().observe(&mut counts, &document("he", None));
        assert_eq!((counts.all.documents, counts.all.kept_documents), (2, 1));
        assert_eq!(counts.all.dropped["gopher.words"], 1);
        assert!(!counts.languages["eng"].groups["gender"].contains_key("female"));
        let group = |name| {
            counts.names[&Dimension::Group]
                .iter()
                .find(|(other, _)| *other == name)
                .unwrap()
                .1
                .clone()
        };
        assert_eq!(
            (
                group("gender/female").documents,
                group("gender/female").kept_documents
            ),
            (1, 0)
        );
        assert_eq!(group("gender/male").kept_bytes, 2);
        let (domain, _) = counts.names[&Dimension::Domain].iter().next().unwrap();
        assert_eq!(domain, "example.org");
    }

    #[test]
    fn domains_of_addresses() {
        for (url, expected) in [
            ("http://[::1]:80/", Some("[::1]")),
            ("https://a.b.", Some("a.b")),
            ("file:///x", None),
            ("no address", None),
        ] {
            assert_eq!(domain(url).as_deref(), expected, "{url}");
        }
    }

    /// By definition: every mention looks at every word.
    fn near_by_definition(words: &[&str], mention: &str, attribute: &[&str], window: usize) -> u64 {
        let is_near = |i: &usize| {
            let from = i.saturating_sub(window);
            (from..words.len().min(i + window + 1)).any(|j| j != *i && attribute.contains(&words[j]))
        };
        (0..words.len())
            .filter(|&i| words[i] == mention)
            .filter(is_near)
            .count() as u64
    }

    proptest! {
        #[test]
        fn mentions_are_what_the_definition_says(words in proptest::collection::vec(proptest::sample::select(vec!["she", "he", "job", "home", "x"]), 0..40)) {
            let mut counts = Counts::default();
            auditor().observe(&mut counts, &document(&words.join(" "), None));
            let english = &counts.languages["eng"];
            for (word, group) in [("she", "female"), ("he", "male")] {
                let of_group = english.groups.get("gender").and_then(|axis| axis.get(group)).cloned().unwrap_or_default();
                prop_assert_eq!(of_group.mentions, words.iter().filter(|other| **other == word).count() as u64);
                for (attribute, list) in [("career", ["job", "boss"]), ("family", ["home", "she"])] {
                    let near = of_group.near.get(attribute).copied().unwrap_or(0);
                    prop_assert_eq!(near, near_by_definition(&words, word, &list, 2));
                }
            }
        }

        #[test]
        fn parts_merge_in_any_order(texts in proptest::collection::vec(("(she|he|job|home|x| ){0,9}", 0..3_usize, 0..3_usize), 0..12), order in any::<u64>()) {
            let languages = ["eng", "deu", "rus"];
            let reasons = [None, Some("a"), Some("b")];
            let parts: Vec<Counts> = texts.iter().map(|(text, language, reason)| {
                let mut counts = Counts::default();
                let seen = Observed { language: languages.get(*language).copied(), ..document(text, reasons[*reason]) };
                auditor().observe(&mut counts, &seen);
                counts
            }).collect();
            let mut whole = Counts::default();
            parts.iter().for_each(|part| whole.merge(part.clone()));
            let mut shuffled = parts.clone();
            shuffled.sort_by_key(|part| xxhash_rust::xxh3::xxh3_64_with_seed(format!("{part:?}").as_bytes(), order));
            // Merged as a tree, over JSON.
            while shuffled.len() > 1 {
                let pairs = shuffled.chunks(2).map(|pair| {
                    let mut merged: Counts = serde_json::from_str(&serde_json::to_string(&pair[0]).unwrap()).unwrap();
                    pair.iter().skip(1).for_each(|other| merged.merge(other.clone()));
                    merged
                });
                shuffled = pairs.collect();
            }
            prop_assert_eq!(shuffled.pop().unwrap_or_default(), whole);
        }
    }
}
