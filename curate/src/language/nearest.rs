//! The language that a text is nearest to, among those of its script.
//!
//! The method, its constants and its profiles are whatlang's (0.18), which is the oracle of the tests here, and is not used for
//! the work itself: it looks up all 300 trigrams of each of up to 37 profiles in a table of the text's. Here the
//! text's are looked up in a table of all profiles', which finds the same numbers in less than a tenth of the time.

use unicode_script::Script;

use super::profiles::{Profiles, TRIGRAMS, profiles, trigram};
use super::script::{Letters, only_language};

/// More trigrams of a text do not count, the rarest of them.
const MOST_TRIGRAMS: u32 = 2 * TRIGRAMS as u32;

/// How far a trigram is that a profile does not have, and how far a profile is at most that has none of the text.
const FAR: i32 = TRIGRAMS as i32;
const FARTHEST: i32 = FAR * FAR;

/// The language of a text with these letters, in ISO 639-3, and how sure it is, from 0 to 1; codes decide ties, of which none
/// is sure. None where the script of most letters is one that nothing is known of.
pub(super) fn language(text: &str, letters: &Letters) -> Option<(&'static str, f64)> {
    let script = letters.most_written()?;
    if let Some(profiles) = profiles(script) {
        return nearest(text, profiles);
    }
    match script {
        Script::Hiragana | Script::Katakana => Some(("jpn", 1.0)),
        Script::Han => {
            // The marks for long vowels and between words are of no script, but of these blocks.
            let kana = text
                .chars()
                .filter(|c| ('\u{3040}'..='\u{30FF}').contains(c))
                .count() as f64;
            let share = kana / (kana + letters.written(Script::Han) as f64);
            Some(match share {
                share if share > 0.2 => ("jpn", 1.0),
                share if share > 0.05 => ("jpn", 0.5),
                share if share > 0.02 => ("cmn", 0.5),
                _ => ("cmn", 1.0),
            })
        }
        script => only_language(script).map(|language| (language, 1.0)),
    }
}

/// The language that scores best by its alphabet and its trigrams.
fn nearest(text: &str, profiles: &Profiles) -> Option<(&'static str, f64)> {
    let text = text.to_lowercase();
    let (by_trigrams, trigrams) = by_trigrams(&text, profiles);
    let (by_alphabet, letters) = by_alphabet(&text, profiles);
    // The longer a text is, the less its alphabet tells.
    let alphabet_weight = (-(f64::from(letters) / 300.0) + 2.0 / 3.0).clamp(1.0 / 3.0, 2.0 / 3.0);
    let trigram_weight = 1.0 - alphabet_weight;
    let (mut best, mut best_score, mut second_score) = (None, -1.0, -1.0);
    for ((language, alphabet), trigrams) in profiles.languages.iter().zip(by_alphabet).zip(by_trigrams) {
        let score = alphabet * alphabet_weight + trigrams * trigram_weight;
        if score > best_score {
            (best, second_score, best_score) = (Some(*language), best_score, score);
        } else if score > second_score {
            second_score = score;
        }
    }
    Some((best?, confidence(best_score, second_score, trigrams)))
}

/// How sure it is that the first of two scores, of a text with so many different trigrams, is of the right language.
fn confidence(first: f64, second: f64, trigrams: u32) -> f64 {
    if first == 0.0 || second == 0.0 {
        return first;
    }
    let sure = 3.0 / f64::from(trigrams) + 0.015;
    let lead = (first - second) / second;
    if lead > sure { 1.0 } else { lead / sure }
}

/// The score of each language, from 0 to 1: that of the letters in its alphabet less that of others, and how many letters there
/// are. Where alphabets are not known all languages have all of one letter.
fn by_alphabet(text: &str, profiles: &Profiles) -> (Vec<f64>, u32) {
    let languages = profiles.languages.len();
    if !profiles.have_alphabets() {
        return (vec![1.0; languages], 1);
    }
    let mut ascii = [0_u32; 128];
    let (mut letters, mut hits) = (0, vec![0_u32; languages]);
    let mut hit = |languages: u64, times: u32| {
        for (number, hits) in hits.iter_mut().enumerate() {
            *hits += times * (languages >> number & 1) as u32;
        }
    };
    let mut last = ('\0', 0);
    for letter in text.chars().filter(|&c| !is_between_words(c)) {
        letters += 1;
        match ascii.get_mut(letter as usize) {
            Some(count) => *count += 1,
            None => {
                if letter != last.0 {
                    last = (letter, profiles.with_letter(letter));
                }
                hit(last.1, 1);
            }
        }
    }
    for (letter, &times) in ('\0'..).zip(&ascii).filter(|(_, times)| **times > 0) {
        hit(profiles.with_letter(letter), times);
    }
    let score = |hits: u32| f64::from((2 * hits).saturating_sub(letters)) / f64::from(letters);
    (hits.into_iter().map(score).collect(), letters)
}

/// The score of each language, from 0 to 1: how near the places of the text's trigrams, by their frequency, are to their places
/// in the language's profile; and how many trigrams there are. The distance of Cavnar and Trenkle, 1994.
fn by_trigrams(text: &str, profiles: &Profiles) -> (Vec<f64>, u32) {
    let mut all = trigrams(text);
    all.sort_unstable();
    let runs: Vec<(u64, usize)> = all
        .chunk_by(|a, b| a == b)
        .filter_map(|run| Some((*run.first()?, run.len())))
        .collect();
    // For each count, the place of the next trigram that occurs so often: after all that occur more often.
    let most = runs.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let mut places = vec![0_u32; most + 1];
    for (_, count) in &runs {
        if let Some(place) = places.get_mut(count - 1) {
            *place += 1;
        }
    }
    let mut before = 0;
    for place in places.iter_mut().rev() {
        before += std::mem::replace(place, before);
    }
    let mut distances = vec![FARTHEST; profiles.languages.len()];
    // Of those that occur equally often, the last in the order of letters comes first.
    for (trigram, count) in runs.iter().rev() {
        let Some(next) = places.get_mut(count - 1) else {
            continue;
        };
        let place = *next;
        *next += 1;
        if place >= MOST_TRIGRAMS {
            continue;
        }
        for entry in profiles.with(*trigram) {
            if let Some(distance) = distances.get_mut(usize::from(entry.language)) {
                *distance += (place as i32 - i32::from(entry.rank)).abs() - FAR;
            }
        }
    }
    let count = (runs.len() as u32).min(MOST_TRIGRAMS);
    let missing = (FAR - count as i32).max(0);
    let most = count as i32 * FAR;
    let score = |distance: i32| {
        let distance = (distance - missing * FAR).clamp(0, FARTHEST);
        f64::from(most - distance) / f64::from(most)
    };
    (distances.into_iter().map(score).collect(), count)
}

/// The trigrams of a text in lower case, as often as they occur; what is between words is one space.
fn trigrams(text: &str) -> Vec<u64> {
    let mut trigrams = Vec::with_capacity(text.len() + 1);
    let letters = text.chars().map(|c| if is_between_words(c) { ' ' } else { c });
    let (mut a, mut b) = (' ', None);
    for c in letters.chain([' ']) {
        if let Some(b) = b.replace(c) {
            if b != ' ' || (a != ' ' && c != ' ') {
                trigrams.push(trigram(a, b, c));
            }
            a = b;
        }
    }
    trigrams
}

/// Whether a character is a space, a digit, or ASCII's punctuation.
fn is_between_words(c: char) -> bool {
    c.is_ascii() && !c.is_ascii_alphabetic() && c != '\u{7F}'
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As whatlang says; of languages that score equally, which it says is a matter of chance.
    fn check(text: &str) {
        let ours = language(text, &Letters::of(text));
        let theirs = whatlang::detect(text).map(|info| (info.lang().code(), info.confidence()));
        let confidence = |found: Option<(&str, f64)>| found.map(|(_, confidence)| confidence);
        assert_eq!(confidence(ours), confidence(theirs), "{text}");
        if confidence(ours) > Some(0.0) {
            assert_eq!(ours, theirs, "{text}");
        }
    }

    #[test]
    fn one_letter_and_many() {
        for text in [
            "a",
            "ß",
            "ж",
            "ا",
            "अ",
            "א",
            "x y z",
            "İ",
            "the the the the",
            "İİ ΣΣ Aa",
        ] {
            check(text);
        }
        check(&"Größe, naïve; don't STOP at 1 line. ".repeat(40));
        // More trigrams than count.
        let many: String = ('a'..='z')
            .flat_map(|a| ('a'..='z').flat_map(move |b| [a, b, 'q', ' ']))
            .collect();
        check(&many);
    }

    proptest! {
        #[test]
        fn what_whatlang_says(
            script in prop::sample::select(vec!["[a-zA-Zàéöşžßıŵ]", "[а-яА-Яёіїђќ]", "[ا-ی]", "[अ-ह]", "[א-ת]", "[一-丿あ-ん]"]),
            words in prop::collection::vec((0..12_usize, "[ ,.0-9\n]{1,3}"), 1..60),
            seed: u64,
        ) {
            let letters: Vec<char> = letters_of(script);
            let mut state = seed;
            let mut text = String::new();
            for (length, between) in words {
                for _ in 0..length {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    text.push(letters[(state >> 33) as usize % letters.len()]);
                }
                text.push_str(&between);
            }
            prop_assume!(text.chars().any(char::is_alphabetic));
            check(&text);
        }
    }

    /// The characters of a class in square brackets, with ranges.
    fn letters_of(class: &str) -> Vec<char> {
        let inner: Vec<char> = class.trim_matches(['[', ']']).chars().collect();
        let (mut letters, mut at) = (Vec::new(), 0);
        while at < inner.len() {
            if inner.get(at + 1) == Some(&'-') {
                letters.extend(inner[at]..=inner[at + 2]);
                at += 3;
            } else {
                letters.push(inner[at]);
                at += 1;
            }
        }
        letters
    }
}
