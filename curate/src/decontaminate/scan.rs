//! Looks for items in a document.

use std::borrow::Cow;
use std::ops::Range;

use super::words::Words;
use super::{Index, Policy};

/// How often a text is cut at most: what then stands next to each other may be an item's again.
const ROUNDS: usize = 4;

/// What a thread needs for scanning, kept from one document to the next.
#[derive(Default)]
pub struct Scratch {
    words: Words,
    /// N-grams that were found, with the range of each.
    hits: Vec<(u32, Range<usize>)>,
}

/// An item that a document holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The set's number, in the order that sets were added.
    pub set: u32,
    /// The item's line in its set, from 0.
    pub line: u64,
    /// How many of the item's n-grams were found.
    pub found: u32,
    /// How many different ones it has.
    pub ngrams: u32,
}

/// What a document has in common with evaluation sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contamination {
    /// The items that it holds, by set and line.
    pub matches: Vec<Match>,
    /// The bytes that overlap with them: sorted, apart, on borders of characters.
    pub ranges: Vec<Range<usize>>,
}

impl Contamination {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.matches.is_empty()
    }
}

impl Index {
    /// The items that `text` holds.
    #[must_use]
    pub fn scan(&self, text: &str, scratch: &mut Scratch) -> Contamination {
        let Scratch { words, hits } = scratch;
        words.read(text);
        hits.clear();
        for &length in &self.lengths {
            for (first, hash) in words.runs(length).enumerate() {
                if self.may_hold(hash)
                    && let Some(ngram) = self.find(hash, length, words.run(first, length))
                {
                    hits.push((ngram, words.range(first, length)));
                }
            }
        }
        if hits.is_empty() {
            return Contamination::default();
        }
        let mut different: Vec<u32> = hits.iter().map(|(ngram, _)| *ngram).collect();
        different.sort_unstable();
        different.dedup();
        // Each different n-gram counts once for each item that has it.
        let mut items: Vec<u32> = different
            .iter()
            .flat_map(|&ngram| self.holders(ngram))
            .copied()
            .collect();
        items.sort_unstable();
        let mut held = Vec::new();
        let mut matches = Vec::new();
        for same in items.chunk_by(|a, b| a == b) {
            let (Some(&number), found) = (same.first(), same.len() as u32) else {
                continue;
            };
            let Some(item) = self.items.get(number as usize) else {
                continue;
            };
            if f64::from(found) >= self.settings.min_share * f64::from(item.ngrams) {
                held.push(number);
                matches.push(Match {
                    set: item.set,
                    line: item.line,
                    found,
                    ngrams: item.ngrams,
                });
            }
        }
        matches.sort_unstable_by_key(|found| (found.set, found.line));
        different.retain(|&ngram| {
            self.holders(ngram)
                .iter()
                .any(|item| held.binary_search(item).is_ok())
        });
        let ranges = hits
            .iter()
            .filter(|(ngram, _)| different.binary_search(ngram).is_ok());
        let mut ranges: Vec<Range<usize>> = ranges.map(|(_, range)| range.clone()).collect();
        ranges.sort_unstable_by_key(|range| (range.start, range.end));
        Contamination {
            matches,
            ranges: merged(ranges),
        }
    }

    /// Why a document is dropped, if it is: a code, and the item of which most was found. A document that is to be cut
    /// is only dropped if nothing is left of it: see [`Index::cut`].
    #[must_use]
    pub fn verdict(&self, contamination: &Contamination) -> Option<(&'static str, String)> {
        (self.settings.policy == Policy::Drop)
            .then(|| self.describe(contamination))
            .flatten()
            .map(|detail| ("decontaminate.overlap", detail))
    }

    /// The set and item of which most was found, in words.
    fn describe(&self, contamination: &Contamination) -> Option<String> {
        let share = |m: &Match| u64::from(m.found) * 1_000_000 / u64::from(m.ngrams.max(1));
        // The first of the best.
        let best = contamination.matches.iter().rev().max_by_key(|m| share(m))?;
        let set = self.sets.get(best.set as usize).map_or("", |set| &set.name);
        let items = contamination.matches.len();
        Some(format!(
            "{} of {} n-grams of line {} of {set}; items: {items}",
            best.found,
            best.ngrams,
            best.line + 1
        ))
    }

    /// The text without what overlaps and the margin around it, a line break in its place; cut again until no item is
    /// left. `Err` if none of the text is, or not after four times.
    ///
    /// # Errors
    /// The code and detail that the document is dropped with.
    pub fn cut<'a>(
        &self,
        text: &'a str,
        scratch: &mut Scratch,
    ) -> Result<Cow<'a, str>, (&'static str, String)> {
        let mut text = Cow::Borrowed(text);
        let mut detail = String::new();
        for _ in 0..ROUNDS {
            let contamination = self.scan(&text, scratch);
            let Some(first) = self.describe(&contamination) else {
                return Ok(text);
            };
            detail = first;
            let left = without(&text, contamination.ranges, self.settings.margin_chars);
            if left.trim().is_empty() {
                return Err(("decontaminate.nothing_left", detail));
            }
            text = Cow::Owned(left);
        }
        if self.scan(&text, scratch).is_empty() {
            Ok(text)
        } else {
            Err(("decontaminate.unsettled", detail))
        }
    }
}

/// Ranges that touch or overlap as one. They are sorted.
fn merged(ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    let mut merged: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// The text without the ranges and `margin` characters on either side of each.
fn without(text: &str, ranges: Vec<Range<usize>>, margin: usize) -> String {
    let wide = ranges.into_iter().map(|range| {
        let before = text.get(..range.start).unwrap_or_default();
        let behind = text.get(range.end..).unwrap_or_default();
        let start = before
            .char_indices()
            .rev()
            .take(margin)
            .last()
            .map_or(range.start, |(at, _)| at);
        let end = behind
            .char_indices()
            .nth(margin)
            .map_or(text.len(), |(at, _)| range.end + at);
        start..end
    });
    let mut left = String::with_capacity(text.len());
    let mut from = 0;
    for range in merged(wide.collect()) {
        left.push_str(text.get(from..range.start).unwrap_or_default());
        left.push('\n');
        from = range.end;
    }
    left.push_str(text.get(from..).unwrap_or_default());
    left
}
