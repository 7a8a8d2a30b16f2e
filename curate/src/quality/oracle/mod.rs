//! Scores held against those of other tools: datatrove 0.10.1 over texts that we wrote (`expect.py` computed the values),
//! and dolma's published ones.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Rules, Scores, Settings};

#[derive(Deserialize)]
struct Expected {
    scores: BTreeMap<String, f64>,
    spacy: Spacy,
    cleaned: String,
}

/// What datatrove makes of the text with its own tokenizer.
#[derive(Deserialize)]
struct Spacy {
    non_symbol_words: f64,
    mean_word_length: f64,
    /// Of Gopher's quality, Gopher's repetition, C4 and FineWeb: the first rule that fails.
    reasons: [Option<String>; 4],
}

fn each(mut judge: impl FnMut(&str, &str, &Scores, Expected)) {
    let texts: BTreeMap<String, String> = serde_json::from_str(include_str!("texts.json")).unwrap();
    let mut expected: BTreeMap<String, Expected> =
        serde_json::from_str(include_str!("expected.json")).unwrap();
    let rules = Rules::new(&Settings::default()).unwrap();
    let mut scorer = rules.scorer();
    assert_eq!(texts.len(), 12);
    for (name, text) in &texts {
        judge(
            name,
            text,
            &scorer.score(text, Some("eng")),
            expected.remove(name).unwrap(),
        );
    }
}

#[test]
fn scores_on_the_same_words_are_those_of_datatrove() {
    each(|name, _, scores, expected| {
        let ours = serde_json::to_value(scores).unwrap();
        assert_eq!(expected.scores.len(), 21);
        for (score, value) in expected.scores {
            let ours = ours[&score].as_f64().unwrap();
            assert!(
                (ours - value).abs() < 1e-6,
                "{name}, {score}: {ours}, datatrove {value}"
            );
        }
    });
}

#[test]
fn words_are_about_those_of_its_own_tokenizer() {
    each(|name, _, scores, expected| {
        // It takes "didn't" for two words, and "#one" and "1804." for one and punctuation.
        let words = f64::from(scores.non_symbol_words) / expected.spacy.non_symbol_words;
        assert!((0.9..=1.02).contains(&words), "{name}: {words}");
        let length = f64::from(scores.mean_word_length) / expected.spacy.mean_word_length;
        assert!((0.98..=1.12).contains(&length), "{name}: {length}");
    });
}

#[test]
fn documents_are_dropped_for_the_same_reasons() {
    let rules = Rules::new(&Settings::default()).unwrap();
    // datatrove's names of rules.
    let names: BTreeMap<&str, &str> = BTreeMap::from([
        ("gopher.words", "gopher_short_doc"),
        ("gopher.bullets", "gopher_too_many_bullets"),
        ("gopher.hashes", "gopher_too_many_hashes"),
        ("gopher.ellipses", "gopher_too_many_ellipsis"),
        ("gopher.ellipsis_lines", "gopher_too_many_end_ellipsis"),
        ("gopher.letters", "gopher_below_alpha_threshold"),
        ("gopher.word_length", "gopher_below_avg_threshold"),
        ("gopher.stop_words", "gopher_enough_stop_words"),
        ("gopher.duplicate_paragraphs", "dup_para_frac"),
        ("gopher.duplicate_paragraph_chars", "dup_para_char_frac"),
        ("gopher.duplicate_lines", "dup_line_frac"),
        ("gopher.duplicate_line_chars", "dup_line_char_frac"),
        ("gopher.top_2gram", "top_2_gram"),
        ("gopher.top_3gram", "top_3_gram"),
        ("gopher.top_4gram", "top_4_gram"),
        ("gopher.duplicate_5gram", "duplicated_5_n_grams"),
        ("c4.lorem_ipsum", "lorem_ipsum"),
        ("c4.curly_brackets", "curly_bracket"),
        ("c4.sentences", "too_few_sentences"),
        ("fineweb.punctuation", "line_punct_ratio"),
        ("fineweb.short_lines", "short_line_ratio"),
        ("fineweb.duplicate_line_chars", "char_dup_ratio"),
        ("fineweb.newlines", "list_ratio"),
    ]);
    each(|name, _, scores, expected| {
        let mut first: [Option<String>; 4] = Default::default();
        for reason in rules.failures(scores, Some("eng"), false) {
            let rule = super::rules()
                .iter()
                .find(|rule| rule.code == reason.code)
                .unwrap();
            let slot = &mut first[rule.group as usize];
            slot.get_or_insert_with(|| names.get(reason.code).unwrap_or(&reason.code).to_string());
        }
        assert_eq!(first, expected.spacy.reasons, "{name}");
    });
}

#[test]
fn lines_are_cleaned_as_datatrove_does() {
    let settings: Settings = toml::from_str("[c4]\nmin_sentences = 0").unwrap();
    let rules = Rules::new(&settings).unwrap();
    let mut scorer = rules.scorer();
    each(|name, text, scores, expected| {
        let cleaned = scorer.clean(text, Some("eng"));
        assert_eq!(cleaned.text, expected.cleaned, "{name}");
        let lines = cleaned.lines;
        assert_eq!(lines.kept, scores.c4_kept_lines);
        assert_eq!(lines.kept + lines.dropped(), scores.lines);
        assert_eq!(lines.unterminated, scores.c4_unterminated_lines);
        if name == "page" {
            let others = (
                lines.javascript,
                lines.policy,
                lines.few_words,
                lines.unterminated,
                lines.blank,
            );
            assert_eq!(others, (1, 1, 1, 3, 1));
            assert_eq!((lines.citations, lines.trimmed), (4, 1));
        }
        // What is clean stays as it is.
        let again = scorer.clean(&expected.cleaned, Some("eng"));
        assert!(matches!(again.text, std::borrow::Cow::Borrowed(_)), "{name}");
    });
}

#[test]
fn the_published_values_of_dolma_hold() {
    let rules = Rules::new(&Settings::default()).unwrap();
    let mut scorer = rules.scorer();
    let scores = scorer.score("This is a test.", Some("eng"));
    assert_eq!(
        (scores.top_2gram, scores.top_3gram, scores.top_4gram),
        (0.5, 7.0 / 12.0, 1.0)
    );
    assert_eq!(
        (scores.chars, scores.words, scores.median_word_length),
        (15, 4, 3.0)
    );
    assert_eq!(
        (
            scores.hashes_per_word,
            scores.words_with_letter,
            scores.bullet_lines
        ),
        (0.0, 1.0, 0.0)
    );

    let text = "This is a sentence. \n  \n This is another sentence.\n\n  This is a third sentence.";
    let scores = scorer.score(text, Some("eng"));
    assert_eq!(
        (scores.chars, scores.words, scores.median_word_length),
        (79, 13, 4.0)
    );
    let top = [scores.top_2gram, scores.top_3gram, scores.top_4gram];
    assert_eq!(top, [18.0 / 59.0, 14.0 / 59.0, 16.0 / 59.0]);

    let scores = scorer.score("T h i s \n    \n\n\n    isoneword !!!", Some("eng"));
    assert_eq!(scores.words, 6);
    // dolma takes `and` for no stop word here, since it looks at words between spaces; so do we but for their ends.
    assert_eq!(scorer.score("The.and.that", Some("eng")).stop_words, 0);
    assert_eq!(scorer.score("The and that", Some("eng")).stop_words, 2);
}
