//! Repeated words: which n-grams occur again, and how many characters they cover.
//!
//! An n-gram repeats only if the (n-1)-grams at its first and at its second word repeat, and two n-grams are the same
//! exactly if these are. So each length looks only at the places that the length before found repeated, and names an
//! n-gram by the pair of their numbers. In ordinary text a few percent of the places are left from four words on.

use super::table::Table;

/// Words of a document that are looked at: ten times as many as Gopher lets a document have.
pub(crate) const MOST_WORDS: usize = 1 << 20;

/// The longest n-gram.
const LONGEST: usize = 10;

/// Characters in repeated n-grams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Repeated {
    /// In all occurrences, overlapping ones too, of the most frequent n-gram (the first of equal ones), n from 2 to 4.
    pub(crate) top: [u64; 3],
    /// In every n-gram, from the left, that occurred before; after a repeat the next n-gram begins behind it. n from 5 to 10.
    pub(crate) duplicate: [u64; 6],
    /// In all words looked at.
    pub(crate) all: u64,
}

#[derive(Clone, Copy)]
struct Place {
    word: u32,
    id: u32,
}

/// The words of a document, and buffers.
#[derive(Default)]
pub(crate) struct Repetition {
    words: Table,
    pairs: Table,
    /// The number of each word.
    ids: Vec<u32>,
    /// Characters up to and with each word.
    chars: Vec<u64>,
    counts: Vec<u32>,
    places: Vec<Place>,
    seen: Vec<bool>,
}

impl Repetition {
    /// Begins a document of so many bytes.
    pub(crate) fn reset(&mut self, bytes: usize) {
        self.words.reset(bytes / 8);
        self.ids.clear();
        self.chars.clear();
        self.counts.clear();
    }

    /// Adds a word. Tells whether it is new.
    #[inline]
    pub(crate) fn push(&mut self, fingerprint: u64, chars: u32) -> bool {
        let Some(id) = self.words.id_of(fingerprint) else {
            return false;
        };
        let is_new = id as usize == self.counts.len();
        match self.counts.get_mut(id as usize) {
            Some(count) => *count += 1,
            None => self.counts.push(1),
        }
        self.ids.push(id);
        self.chars
            .push(self.chars.last().unwrap_or(&0) + u64::from(chars));
        is_new
    }

    /// Whether no more words are taken.
    pub(crate) fn is_full(&self) -> bool {
        self.ids.len() >= MOST_WORDS
    }

    /// What is repeated of the words that were added, of which so many count as one in an n-gram.
    pub(crate) fn finish(&mut self, units_per_word: usize) -> Repeated {
        let mut repeated = Repeated {
            all: self.chars.last().copied().unwrap_or(0),
            ..Repeated::default()
        };
        self.places.clear();
        for (word, &id) in self.ids.iter().enumerate() {
            if self.counts.get(id as usize).is_some_and(|&count| count > 1) {
                self.places.push(Place {
                    word: word as u32,
                    id,
                });
            }
        }
        for units in 2..=LONGEST * units_per_word {
            if self.ids.len() < units {
                break;
            }
            self.pair_up();
            // The n of n-grams, where so many units are whole words.
            let n = if units % units_per_word == 0 {
                units / units_per_word
            } else {
                0
            };
            if let Some(top) = n.checked_sub(2).and_then(|at| repeated.top.get_mut(at)) {
                *top = self.top(units);
            }
            self.keep_repeated();
            if let Some(duplicate) = n.checked_sub(5).and_then(|at| repeated.duplicate.get_mut(at)) {
                *duplicate = self.duplicate(units);
            }
            if self.places.is_empty() && n >= 4 {
                break;
            }
        }
        repeated
    }

    /// From places of (n-1)-grams to those of n-grams.
    fn pair_up(&mut self) {
        self.pairs.reset(self.places.len());
        self.counts.clear();
        let mut kept = 0;
        let mut before: Option<Place> = None;
        for at in 0..self.places.len() {
            let Some(&place) = self.places.get(at) else { break };
            if let Some(first) = before
                && first.word + 1 == place.word
                && let Some(id) = self.pairs.id_of(u64::from(first.id) << 32 | u64::from(place.id))
            {
                match self.counts.get_mut(id as usize) {
                    Some(count) => *count += 1,
                    None => self.counts.push(1),
                }
                if let Some(slot) = self.places.get_mut(kept) {
                    *slot = Place { word: first.word, id };
                    kept += 1;
                }
            }
            before = Some(place);
        }
        self.places.truncate(kept);
    }

    /// Characters in all occurrences of the most frequent n-gram.
    fn top(&self, n: usize) -> u64 {
        let mut most = 1;
        let mut id = None;
        for (at, &count) in self.counts.iter().enumerate() {
            if count > most {
                (most, id) = (count, Some(at as u32));
            }
        }
        // If none repeats, the first n-gram is as frequent as any.
        let first = id.and_then(|id| self.places.iter().find(|place| place.id == id));
        let word = first.map_or(0, |place| place.word as usize);
        u64::from(most) * self.chars_of(word, n)
    }

    fn keep_repeated(&mut self) {
        let counts = &self.counts;
        let repeats = |place: &Place| counts.get(place.id as usize).is_some_and(|&count| count > 1);
        self.places.retain(repeats);
    }

    /// Characters in repeats that do not overlap.
    fn duplicate(&mut self, n: usize) -> u64 {
        self.seen.clear();
        self.seen.resize(self.counts.len(), false);
        let mut chars = 0;
        let mut next = 0;
        for place in &self.places {
            let word = place.word as usize;
            if word < next {
                continue;
            }
            let seen = self
                .seen
                .get_mut(place.id as usize)
                .map(|seen| std::mem::replace(seen, true));
            if seen == Some(true) {
                chars += self.chars_of(word, n);
                next = word + n;
            }
        }
        chars
    }

    fn chars_of(&self, word: usize, n: usize) -> u64 {
        let up_to = |word: usize| match word.checked_sub(1) {
            Some(last) => self.chars.get(last).copied().unwrap_or(0),
            None => 0,
        };
        up_to(word + n) - up_to(word)
    }
}
