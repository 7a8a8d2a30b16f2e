//! The n-grams of evaluation sets.

use serde_json::Value;

use super::Settings;
use super::words::Words;

/// Bytes that an occurrence of an n-gram takes while the index is built, its filter and table among them.
const OCCURRENCE: usize = 96;

/// Why an index cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// A setting is out of its bounds.
    #[error("{0}")]
    Settings(String),
    /// A line is no item.
    #[error("set {set}, line {line}: {reason}")]
    Item {
        /// The set.
        set: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        reason: String,
    },
    /// The sets are too large.
    #[error(
        "set {set}, line {line}: the index takes more than max_index_bytes = {max_index_bytes}; raise it, or give fewer sets"
    )]
    TooLarge {
        /// The set.
        set: String,
        /// The line, from 1.
        line: u64,
        /// The bound.
        max_index_bytes: usize,
    },
}

/// Takes evaluation sets in, one item at a time.
pub struct IndexBuilder {
    settings: Settings,
    sets: Vec<Set>,
    items: Vec<Item>,
    /// Runs of words of all items, back to back.
    arena: String,
    occurrences: Vec<Occurrence>,
    words: Words,
}

/// A set.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) name: String,
    /// Items, and those of them that are too short to be looked for.
    pub(super) items: u64,
    pub(super) too_short: u64,
}

/// An item.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) set: u32,
    /// Its line, from 0.
    pub(super) line: u64,
    /// Its different n-grams.
    pub(super) ngrams: u32,
}

/// A run of words that an item has.
#[derive(Clone, Copy)]
struct Occurrence {
    hash: u64,
    /// Where it stands in the arena.
    start: usize,
    length: u32,
    words: u32,
    item: u32,
}

/// The n-grams of evaluation sets. Shared between threads.
pub struct Index {
    pub(super) settings: Settings,
    pub(super) sets: Vec<Set>,
    pub(super) items: Vec<Item>,
    arena: String,
    ngrams: Vec<Ngram>,
    /// The items of all n-grams, back to back.
    holders: Vec<u32>,
    /// A bit for each value of a hash's upper bits: whether some n-gram has it.
    filter: Vec<u64>,
    filter_shift: u32,
    /// The lengths that n-grams have, in words.
    pub(super) lengths: Vec<usize>,
    /// N-grams that too many items have.
    pub(super) common: u64,
}

/// A run of words that items have. Sorted by hash.
struct Ngram {
    hash: u64,
    start: usize,
    length: u32,
    words: u32,
    /// Its items, among all holders.
    holders: (u32, u32),
}

impl IndexBuilder {
    /// A builder without sets.
    ///
    /// # Errors
    /// If a setting is out of its bounds.
    pub fn new(settings: &Settings) -> Result<Self, IndexError> {
        settings.check().map_err(IndexError::Settings)?;
        Ok(Self {
            settings: settings.clone(),
            sets: Vec::new(),
            items: Vec::new(),
            arena: String::new(),
            occurrences: Vec::new(),
            words: Words::default(),
        })
    }

    /// Takes in the next line of a set, a JSON object; an empty line is passed over, and counts as a line.
    ///
    /// # Errors
    /// If the line is no object, has none of the fields as text, or the index grows past its bound.
    pub fn add(&mut self, set: &str, line: u64, json: &str) -> Result<(), IndexError> {
        if json.trim().is_empty() {
            return Ok(());
        }
        let wrong = |reason: String| IndexError::Item {
            set: set.to_owned(),
            line: line + 1,
            reason,
        };
        let value: Value = serde_json::from_str(json).map_err(|error| wrong(format!("not JSON: {error}")))?;
        let fields = self.settings.fields.iter();
        let texts: Vec<&str> = fields
            .filter_map(|field| value.get(field))
            .flat_map(texts)
            .collect();
        if texts.is_empty() {
            let fields = self.settings.fields.join(", ");
            return Err(wrong(format!(
                "none of the fields {fields} holds text; name its fields in `fields`"
            )));
        }
        let number = self
            .sets
            .iter()
            .position(|known| known.name == set)
            .unwrap_or_else(|| {
                self.sets.push(Set {
                    name: set.to_owned(),
                    items: 0,
                    too_short: 0,
                });
                self.sets.len() - 1
            });
        let before = self.occurrences.len();
        for text in texts {
            self.text(text);
        }
        if let Some(set) = self.sets.get_mut(number) {
            set.items += 1;
            set.too_short += u64::from(self.occurrences.len() == before);
        }
        self.items.push(Item {
            set: number as u32,
            line,
            ngrams: 0,
        });
        let bytes = self.arena.len() + self.occurrences.len() * OCCURRENCE;
        if bytes > self.settings.max_index_bytes || self.items.len() > u32::MAX as usize / 2 {
            let max_index_bytes = self.settings.max_index_bytes;
            return Err(IndexError::TooLarge {
                set: set.to_owned(),
                line: line + 1,
                max_index_bytes,
            });
        }
        Ok(())
    }

    /// Takes in the n-grams of one text of the item that comes next.
    fn text(&mut self, text: &str) {
        self.words.read(text);
        let count = self.words.count();
        let length = count.min(self.settings.ngram);
        if length < self.settings.min_words {
            return;
        }
        // The whole text once: its n-grams are parts of it.
        let base = self.arena.len();
        let whole = self.words.run(0, count);
        self.arena.push_str(whole);
        let mut start = base;
        for (first, hash) in self.words.runs(length).enumerate() {
            let run = self.words.run(first, length);
            self.occurrences.push(Occurrence {
                hash,
                start,
                length: run.len() as u32,
                words: length as u32,
                item: self.items.len() as u32,
            });
            start += self.words.run(first, 1).len() + 1;
        }
    }

    /// The index of all that was taken in.
    #[must_use]
    pub fn finish(self) -> Index {
        let Self {
            settings,
            sets,
            mut items,
            arena,
            mut occurrences,
            ..
        } = self;
        let run = |o: &Occurrence| {
            arena
                .get(o.start..o.start + o.length as usize)
                .unwrap_or_default()
        };
        occurrences.sort_unstable_by(|a, b| {
            (a.hash, a.words)
                .cmp(&(b.hash, b.words))
                .then_with(|| run(a).cmp(run(b)))
                .then(a.item.cmp(&b.item))
        });
        let (mut ngrams, mut holders, mut common) = (Vec::new(), Vec::new(), 0);
        for same in occurrences.chunk_by(|a, b| a.hash == b.hash && a.words == b.words && run(a) == run(b)) {
            let first = holders.len();
            holders.extend(same.iter().map(|o| o.item));
            // An item may have it several times; equal ones are next to each other.
            let mut last = None;
            let mut kept = first;
            for i in first..holders.len() {
                if last != Some(holders[i]) {
                    last = Some(holders[i]);
                    holders[kept] = holders[i];
                    kept += 1;
                }
            }
            holders.truncate(kept);
            if kept - first > settings.max_items as usize {
                holders.truncate(first);
                common += 1;
                continue;
            }
            for &item in &holders[first..] {
                if let Some(item) = items.get_mut(item as usize) {
                    item.ngrams += 1;
                }
            }
            if let Some(o) = same.first() {
                ngrams.push(Ngram {
                    hash: o.hash,
                    start: o.start,
                    length: o.length,
                    words: o.words,
                    holders: (first as u32, kept as u32),
                });
            }
        }
        drop(occurrences);
        let mut lengths: Vec<usize> = ngrams.iter().map(|ngram| ngram.words as usize).collect();
        lengths.sort_unstable();
        lengths.dedup();
        // Sixteen bits an n-gram: one in sixteen words is looked at for nothing.
        let bits = (ngrams.len() * 16).next_power_of_two().clamp(64, 1 << 36);
        let filter_shift = 64 - bits.ilog2();
        let mut filter = vec![0u64; bits / 64];
        for ngram in &ngrams {
            let bit = (ngram.hash >> filter_shift) as usize;
            if let Some(word) = filter.get_mut(bit / 64) {
                *word |= 1 << (bit % 64);
            }
        }
        Index {
            settings,
            sets,
            items,
            arena,
            ngrams,
            holders,
            filter,
            filter_shift,
            lengths,
            common,
        }
    }
}

/// The texts of a field: a string, or those of a list.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

impl Index {
    /// The settings that it was made with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether an n-gram may have this hash.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let bit = (hash >> self.filter_shift) as usize;
        self.filter
            .get(bit / 64)
            .is_some_and(|word| word >> (bit % 64) & 1 == 1)
    }

    /// The number of the n-gram that is `run`, of that hash and as many words.
    pub(super) fn find(&self, hash: u64, words: usize, run: &str) -> Option<u32> {
        let first = self.ngrams.partition_point(|ngram| ngram.hash < hash);
        let same = self
            .ngrams
            .get(first..)?
            .iter()
            .take_while(|ngram| ngram.hash == hash);
        let (place, _) = same.enumerate().find(|(_, ngram)| {
            ngram.words as usize == words
                && self.arena.get(ngram.start..ngram.start + ngram.length as usize) == Some(run)
        })?;
        Some((first + place) as u32)
    }

    /// The items that have an n-gram.
    pub(super) fn holders(&self, ngram: u32) -> &[u32] {
        let range = self
            .ngrams
            .get(ngram as usize)
            .map(|ngram| ngram.holders.0 as usize..ngram.holders.1 as usize);
        range
            .and_then(|range| self.holders.get(range))
            .unwrap_or_default()
    }
}
