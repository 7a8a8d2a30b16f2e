//! Scores computed slowly, as their definitions read, to hold the fast ones against.

use std::collections::HashMap;

use proptest::prelude::*;

use super::repetition::{Repeated, Repetition};
use super::table::fingerprint;
use super::{Rules, Scorer, Scores, Settings};

/// Characters in all occurrences of the n-gram that occurs most often, the first of equal ones.
fn top(words: &[&str], n: usize) -> u64 {
    let grams: Vec<&[&str]> = words.windows(n).collect();
    let count = |gram: &&[&str]| grams.iter().filter(|other| *other == gram).count();
    let most = grams.iter().map(count).max().unwrap_or(0);
    let first = grams.iter().find(|gram| count(gram) == most);
    first.map_or(0, |gram| most * length(gram)) as u64
}

/// Characters in n-grams that were seen before, from the left, skipping what was counted.
fn duplicate(words: &[&str], n: usize) -> u64 {
    let mut seen: Vec<&[&str]> = Vec::new();
    let (mut at, mut chars) = (0, 0);
    while at + n <= words.len() {
        let gram = &words[at..at + n];
        if seen.contains(&gram) {
            chars += length(gram);
            at += n;
        } else {
            seen.push(gram);
            at += 1;
        }
    }
    chars as u64
}

fn length(gram: &[&str]) -> usize {
    gram.iter().map(|word| word.chars().count()).sum()
}

fn naive(words: &[&str], units: usize) -> Repeated {
    Repeated {
        top: [2, 3, 4].map(|n| top(words, n * units)),
        duplicate: [5, 6, 7, 8, 9, 10].map(|n| duplicate(words, n * units)),
        all: length(words) as u64,
    }
}

/// How many elements were there before, and their characters.
fn repeats(elements: &[&str]) -> (f64, f64) {
    let again = |(at, element): &(usize, &&str)| elements[..*at].contains(element);
    let repeated = elements.iter().enumerate().filter(again);
    let chars = repeated
        .clone()
        .map(|(_, element)| element.chars().count())
        .sum::<usize>();
    (repeated.count() as f64, chars as f64)
}

fn score(text: &str) -> Scores {
    let rules = Rules::new(&Settings::default()).unwrap();
    rules.scorer().score(text, Some("eng"))
}

fn close(a: f32, b: f64) -> bool {
    (f64::from(a) - b).abs() < 1e-6
}

/// Words over a small alphabet, so that all kinds of repeats are common.
fn words_of_few() -> impl Strategy<Value = Vec<&'static str>> {
    let word = |choices: usize| prop::sample::select(&["a", "bb", "ñ", "d.", "eee", "a,"][..choices]);
    prop_oneof![
        prop::collection::vec(word(2), 0..60),
        prop::collection::vec(word(3), 0..120),
        prop::collection::vec(word(6), 0..200),
        (prop::collection::vec(word(6), 1..30), 1..6_usize).prop_map(|(words, times)| words.repeat(times)),
    ]
}

/// Every fraction that is of a whole.
fn fractions(scores: &Scores) -> Vec<(String, f64)> {
    let per_word_or_lengths = [
        "mean_word_length",
        "median_word_length",
        "hashes_per_word",
        "ellipses_per_word",
        "newlines_per_word",
        "mean_line_length",
    ];
    let serde_json::Value::Object(fields) = serde_json::to_value(scores).unwrap() else {
        panic!()
    };
    let of_whole = |name: &String| !per_word_or_lengths.contains(&name.as_str());
    let values = fields
        .into_iter()
        .filter(|(name, value)| value.is_f64() && of_whole(name));
    values
        .map(|(name, value)| (name, value.as_f64().unwrap()))
        .collect()
}

proptest! {
    #[test]
    fn repeated_words_are_those_of_the_definition(
        documents in prop::collection::vec(words_of_few(), 1..3), units in 1..4_usize,
    ) {
        let mut repetition = Repetition::default();
        for words in documents {
            repetition.reset(100);
            for word in &words {
                repetition.push(fingerprint(word.as_bytes(), 0, word.len()), word.chars().count() as u32);
            }
            prop_assert_eq!(repetition.finish(units), naive(&words, units));
        }
    }

    #[test]
    fn scores_of_words_are_those_of_the_definition(words in words_of_few(), newline in any::<bool>()) {
        let separator = if newline { "\n" } else { "  " };
        let text = words.join(separator);
        let scores = score(&text);
        let naive = naive(&words, 1);
        let chars = text.chars().count().max(1) as f64;
        let all = naive.all.max(1) as f64;
        let [top_2, top_3, top_4] = naive.top.map(|top| (top as f64 / all).min(1.0));
        prop_assert!(close(scores.top_2gram, top_2) && close(scores.top_3gram, top_3) && close(scores.top_4gram, top_4));
        prop_assert!(close(scores.duplicate_5gram, naive.duplicate[0] as f64 / chars));
        prop_assert!(close(scores.duplicate_10gram, naive.duplicate[5] as f64 / chars));
        let mut lengths: Vec<usize> = words.iter().map(|word| word.chars().count()).collect();
        lengths.sort_unstable();
        let n = lengths.len();
        let median = if n == 0 { 0.0 } else { (lengths[(n - 1) / 2] + lengths[n / 2]) as f64 / 2.0 };
        prop_assert!(close(scores.median_word_length, median));
        prop_assert_eq!(scores.words as usize, n);
    }

    #[test]
    fn scores_of_lines_are_those_of_the_definition(
        lines in prop::collection::vec(prop::sample::select(&["", "a", "ñandú.", " a", "- b…", "Yes!", "The end..."][..]), 0..40),
    ) {
        let text = lines.join("\n");
        let chars = text.chars().count().max(1) as f64;
        let scores = score(&text);
        let filled: Vec<&str> = lines.iter().copied().filter(|line| !line.is_empty()).collect();
        let paragraphs: Vec<&str> = text.split("\n\n").map(|part| part.trim_matches('\n')).filter(|part| !part.is_empty()).collect();
        let (again, again_chars) = repeats(&filled);
        prop_assert!(close(scores.duplicate_lines, again / filled.len().max(1) as f64));
        prop_assert!(close(scores.duplicate_line_chars, again_chars / chars));
        let (again, again_chars) = repeats(&paragraphs);
        prop_assert!(close(scores.duplicate_paragraphs, again / paragraphs.len().max(1) as f64));
        prop_assert!(close(scores.duplicate_paragraph_chars, again_chars / chars));
        prop_assert_eq!(scores.lines as usize, text.lines().count());
        prop_assert_eq!(scores.text_lines as usize, filled.len());
        let count = |is: fn(&&&str) -> bool| filled.iter().filter(is).count() as f64;
        let all = text.lines().count().max(1) as f64;
        prop_assert!(close(scores.bullet_lines, count(|line| line.starts_with('-')) / all));
        prop_assert!(close(scores.ellipsis_lines, count(|line| line.ends_with("...") || line.ends_with('…')) / all));
        let punctuated = count(|line| line.ends_with(['.', '!'])) / filled.len().max(1) as f64;
        prop_assert!(close(scores.punctuated_lines, punctuated));
    }

    #[test]
    fn scores_do_not_depend_on_what_was_scored_before(texts in prop::collection::vec("([ab]{1,3}[ .\n]{1,2}){0,80}|\\PC{0,60}", 2..5)) {
        let rules = Rules::new(&Settings::default()).unwrap();
        let mut scorer = rules.scorer();
        for text in &texts {
            for language in [Some("eng"), Some("cmn"), None] {
                prop_assert_eq!(scorer.score(text, language), rules.scorer().score(text, language));
            }
            prop_assert_eq!(scorer.clean(text, None), rules.scorer().clean(text, None));
        }
    }

    #[test]
    fn fractions_are_fractions(text in "([ab#•-]{1,3}(\\.\\.\\.)?[ .\n]{1,2}){0,80}|\\PC{0,60}|(ab ){0,50}|[0-9a-f\\\\ux, \n]{0,300}") {
        for (name, value) in fractions(&score(&text)) {
            prop_assert!((0.0..=1.0).contains(&value), "{name} is {value}");
        }
    }

    #[test]
    fn text_repeated_k_times_is_a_duplicate_but_for_the_first_time(
        lines in prop::collection::hash_set("[a-z]{2,9}( [a-z]{2,9}){11}", 1..8), k in 1..9_usize,
    ) {
        // Lines of 12 random words each, all different; k copies, each followed by a blank line.
        let copy: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let scores = score(&vec![copy; k].join("\n"));
        let expected = (k - 1) as f64 / k as f64;
        prop_assert!(close(scores.duplicate_lines, expected));
        prop_assert!(close(scores.duplicate_paragraphs, expected));
        // Of the characters of words, n-grams that divide a copy evenly cover all that is repeated.
        let words = f64::from(scores.word_chars) / f64::from(scores.chars);
        prop_assert!(close(scores.duplicate_6gram, expected * words), "{} {}", scores.duplicate_6gram, expected * words);
    }

    #[test]
    fn a_repeated_line_at_the_end_raises_scores_of_lines(lines in prop::collection::vec("[a-c]{1,3}\\.", 1..20)) {
        let before = score(&lines.join("\n"));
        let mut longer = lines.clone();
        longer.push(lines[0].clone());
        let after = score(&longer.join("\n"));
        prop_assert!(after.duplicate_lines >= before.duplicate_lines);
        prop_assert!(after.text_lines == before.text_lines + 1 && after.words == before.words + 1);
        prop_assert!(after.c4_sentences >= before.c4_sentences);
    }

    #[test]
    fn longer_repeats_are_repeats_of_shorter_ones(words in words_of_few()) {
        let scores = score(&words.join(" "));
        let repeats = [
            scores.duplicate_5gram, scores.duplicate_6gram, scores.duplicate_7gram,
            scores.duplicate_8gram, scores.duplicate_9gram, scores.duplicate_10gram,
        ];
        // Where there is a longer repeat there is a shorter one. How much both cover depends on where they begin.
        prop_assert!(repeats.windows(2).all(|pair| pair[1] == 0.0 || pair[0] > 0.0));
    }
}

/// Words of a corpus of Zipf's law, from a seed.
fn zipf(seed: u64, words: usize) -> String {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    (0..words)
        .map(|_| format!("w{} ", (1000_f64.powf(next())) as u64))
        .collect()
}

#[test]
fn ordinary_text_agrees_with_the_definition_too() {
    for seed in 0..3 {
        let text = zipf(seed, 1500);
        let words: Vec<&str> = text.split_whitespace().collect();
        let naive = naive(&words, 1);
        let scores = score(&text);
        assert!(close(scores.top_2gram, naive.top[0] as f64 / naive.all as f64));
        assert!(close(
            scores.duplicate_5gram,
            naive.duplicate[0] as f64 / text.len() as f64
        ));
    }
}

#[test]
fn hostile_texts_take_linear_time() {
    let rules = Rules::new(&Settings::default()).unwrap();
    let mut scorer: Scorer<'_> = rules.scorer();
    let megabytes = 8;
    let length = megabytes << 20;
    let distinct: String = (0..length / 9).map(|n| format!("{n:08x} ")).collect();
    let texts: HashMap<&str, String> = HashMap::from([
        ("one word again and again", "word ".repeat(length / 5)),
        ("one line without a space", "x".repeat(length)),
        ("line breaks only", "\n".repeat(length)),
        ("dots", ".".repeat(length)),
        ("brackets", "[".repeat(length)),
        ("citations", "[1]".repeat(length / 3)),
        ("different words", distinct.clone()),
        ("different lines", distinct.replace(' ', "\n")),
        ("different paragraphs", distinct.replace(' ', "\n\n")),
        ("ideographs", "中".repeat(length / 3)),
        ("marks", "ก\u{e34}\u{e34}".repeat(length / 9)),
        ("escapes", "\\u".repeat(length / 2)),
        ("hexadecimal", "ff 0x".repeat(length / 5)),
        ("policies", "use cookies ".repeat(length / 12)),
    ]);
    for (name, text) in &texts {
        let start = std::time::Instant::now();
        let scores = scorer.score(text, Some("eng"));
        let cleaned = scorer.clean(text, Some("eng"));
        let seconds = start.elapsed().as_secs_f64();
        assert_eq!(
            scores.lines,
            cleaned.lines.kept + cleaned.lines.dropped(),
            "{name}"
        );
        // Quadratic time would take hours.
        assert!(seconds < 30.0, "{name}: {seconds} s");
    }
}
