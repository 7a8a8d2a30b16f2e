//! What is known of languages that share a script: their letters, and their most frequent trigrams.

use std::sync::LazyLock;

use unicode_script::Script;

/// Script, language, alphabet and trigrams, a line a language.
const TABLE: &str = include_str!("profiles.tsv");

/// How many trigrams a profile has.
pub(super) const TRIGRAMS: usize = 300;

/// Trigrams are found by their hash in this many buckets, a power of two: about one for each of the Latin script.
const BUCKETS: usize = 1 << 14;

/// Three letters in one number, which are in the order of the letters.
pub(super) fn trigram(a: char, b: char, c: char) -> u64 {
    u64::from(a) << 42 | u64::from(b) << 21 | u64::from(c)
}

/// A trigram of a profile.
pub(super) struct Entry {
    trigram: u64,
    /// The language's place in [`Profiles::languages`].
    pub(super) language: u16,
    /// The trigram's place in the profile, from 0.
    pub(super) rank: u16,
}

/// The languages of a script.
pub(super) struct Profiles {
    /// As codes in ISO 639-3, sorted.
    pub(super) languages: Vec<&'static str>,
    /// Letters of alphabets, sorted, each with the languages that have it, as bits; none if alphabets are not known.
    letters: Vec<(char, u64)>,
    /// Where each bucket begins in `entries`, and at the end how many there are.
    buckets: Vec<u32>,
    entries: Vec<Entry>,
}

static LATIN: LazyLock<Profiles> = LazyLock::new(|| Profiles::of("Latn"));
static CYRILLIC: LazyLock<Profiles> = LazyLock::new(|| Profiles::of("Cyrl"));
static ARABIC: LazyLock<Profiles> = LazyLock::new(|| Profiles::of("Arab"));
static DEVANAGARI: LazyLock<Profiles> = LazyLock::new(|| Profiles::of("Deva"));
static HEBREW: LazyLock<Profiles> = LazyLock::new(|| Profiles::of("Hebr"));

/// The languages of a script, if it has several that are told apart by their profiles.
pub(super) fn profiles(script: Script) -> Option<&'static Profiles> {
    match script {
        Script::Latin => Some(&LATIN),
        Script::Cyrillic => Some(&CYRILLIC),
        Script::Arabic => Some(&ARABIC),
        Script::Devanagari => Some(&DEVANAGARI),
        Script::Hebrew => Some(&HEBREW),
        _ => None,
    }
}

impl Profiles {
    fn of(script: &str) -> Self {
        let (mut languages, mut letters, mut entries) = (Vec::new(), Vec::new(), Vec::new());
        for line in TABLE.lines() {
            let mut fields = line.split('\t');
            if fields.next() != Some(script) {
                continue;
            }
            let mut field = || fields.next().unwrap_or_default();
            let (language, alphabet, profile) = (field(), field(), field());
            let number = languages.len();
            letters.extend(alphabet.chars().map(|letter| (letter, 1_u64 << number)));
            let profile: Vec<char> = profile.chars().collect();
            let (trigrams, _) = profile.as_chunks::<3>();
            entries.extend((0..).zip(trigrams).map(|(rank, &[a, b, c])| Entry {
                trigram: trigram(a, b, c),
                language: number as u16,
                rank,
            }));
            languages.push(language);
        }
        letters.sort_unstable();
        letters.dedup_by(|again, first| {
            let same = again.0 == first.0;
            first.1 |= if same { again.1 } else { 0 };
            same
        });
        entries.sort_unstable_by_key(|entry| (bucket(entry.trigram), entry.trigram, entry.language));
        let begin = |number| entries.partition_point(|entry| bucket(entry.trigram) < number) as u32;
        let buckets = (0..=BUCKETS).map(begin).collect();
        Self {
            languages,
            letters,
            buckets,
            entries,
        }
    }

    /// The profiles that have a trigram, and where.
    pub(super) fn with(&self, trigram: u64) -> impl Iterator<Item = &Entry> {
        let at = |bucket: usize| self.buckets.get(bucket).map_or(0, |&begin| begin as usize);
        let bucket = bucket(trigram);
        let entries = self.entries.get(at(bucket)..at(bucket + 1));
        let entries = entries.unwrap_or_default().iter();
        entries.filter(move |entry| entry.trigram == trigram)
    }

    /// Whether alphabets are known.
    pub(super) fn have_alphabets(&self) -> bool {
        !self.letters.is_empty()
    }

    /// The languages whose alphabet has a letter, as bits in the order of [`Profiles::languages`].
    pub(super) fn with_letter(&self, letter: char) -> u64 {
        let found = self.letters.binary_search_by_key(&letter, |(letter, _)| *letter);
        found
            .ok()
            .and_then(|at| self.letters.get(at))
            .map_or(0, |(_, languages)| *languages)
    }
}

fn bucket(trigram: u64) -> usize {
    // The golden ratio's bits, as in Fibonacci hashing; the high ones are the best mixed.
    (trigram.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (u64::BITS - BUCKETS.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let scripts = [
            (Script::Latin, 37),
            (Script::Cyrillic, 6),
            (Script::Arabic, 3),
            (Script::Devanagari, 3),
            (Script::Hebrew, 2),
        ];
        for (script, languages) in scripts {
            let profiles = profiles(script).unwrap();
            assert_eq!(profiles.languages.len(), languages);
            assert!(profiles.languages.is_sorted());
            assert_eq!(profiles.entries.len(), languages * TRIGRAMS);
            // Every trigram is found, at the place that it has.
            for entry in &profiles.entries {
                let found = profiles
                    .with(entry.trigram)
                    .find(|found| found.language == entry.language);
                assert_eq!(found.map(|found| found.rank), Some(entry.rank));
            }
        }
        assert!(profiles(Script::Greek).is_none());
    }
}
