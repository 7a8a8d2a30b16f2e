//! Items of evaluations are found in documents, and nothing else is.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeSet;

use lockstep_curate::decontaminate::{Index, IndexBuilder, IndexError, Policy, Report, Scratch, Settings};
use proptest::prelude::*;

/// An item of GSM8K's kind, made up here: 22 words.
const ITEM: &str = "A baker sells 48 loaves on Monday and half as many on Tuesday; how many loaves does she sell altogether in both days?";

fn index(settings: &Settings, items: &[&str]) -> Index {
    let mut builder = IndexBuilder::new(settings).unwrap();
    for (line, item) in items.iter().enumerate() {
        builder
            .add(
                "set",
                line as u64,
                &serde_json::json!({ "question": item }).to_string(),
            )
            .unwrap();
    }
    builder.finish()
}

fn scan(index: &Index, text: &str) -> (Vec<(u64, u32, u32)>, Vec<String>) {
    let found = index.scan(text, &mut Scratch::default());
    let matches = found
        .matches
        .iter()
        .map(|m| (m.line, m.found, m.ngrams))
        .collect();
    (
        matches,
        found
            .ranges
            .into_iter()
            .map(|range| text[range].to_owned())
            .collect(),
    )
}

#[test]
fn an_item_is_found_whatever_its_case_and_punctuation() {
    let index = index(&Settings::default(), &["short one", ITEM]);
    // 23 words have 11 runs of 13.
    let words = ITEM.split_whitespace().count() as u32;
    let text = format!(
        "He wrote: {}! And more.",
        ITEM.to_uppercase().replace(';', " -- ")
    );
    let (matches, ranges) = scan(&index, &text);
    assert_eq!(matches, [(1, words - 12, words - 12)]);
    assert_eq!(ranges.len(), 1);
    assert!(
        ranges[0].starts_with("A BAKER") && ranges[0].ends_with("DAYS"),
        "{ranges:?}"
    );
    // Thirteen words of it are enough, and twelve are not.
    let part = |count: usize| {
        ITEM.split_whitespace()
            .skip(3)
            .take(count)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(scan(&index, &part(13)).0, [(1, 1, words - 12)]);
    assert_eq!(scan(&index, &part(12)).0, []);
    let (code, detail) = index
        .verdict(&index.scan(&part(13), &mut Scratch::default()))
        .unwrap();
    assert_eq!(
        (code, &*detail),
        (
            "decontaminate.overlap",
            "1 of 11 n-grams of line 2 of set; items: 1"
        )
    );
}

#[test]
fn short_items_are_found_whole() {
    let index = index(
        &Settings::default(),
        &["Who wrote the novel Middlemarch?", "Yes or no?"],
    );
    assert_eq!(
        scan(&index, "Tell me: who wrote the novel “Middlemarch”, then?").0,
        [(0, 1, 1)]
    );
    assert_eq!(scan(&index, "who wrote the novel").0, []);
    assert_eq!(scan(&index, "yes or no").0, []);
    assert_eq!(Report::new(&index).sets["set"].too_short, 1);
}

#[test]
fn a_share_may_be_asked_for_as_palm_does() {
    let settings = Settings {
        ngram: 8,
        min_share: 0.7,
        ..Settings::default()
    };
    let index = index(&settings, &[ITEM]);
    let words: Vec<&str> = ITEM.split_whitespace().collect();
    let ngrams = words.len() - 7;
    for count in 8..=words.len() {
        let found = count - 7;
        let expected = found as f64 >= 0.7 * ngrams as f64;
        assert_eq!(
            !scan(&index, &words[..count].join(" ")).0.is_empty(),
            expected,
            "{count}"
        );
    }
}

#[test]
fn cutting_takes_the_overlap_and_a_margin() {
    let settings = Settings {
        policy: Policy::Cut,
        margin_chars: 3,
        ..Settings::default()
    };
    let index = index(&settings, &[ITEM]);
    let mut scratch = Scratch::default();
    let text = format!("ééééé {ITEM} äääää");
    assert_eq!(
        index.cut(&text, &mut scratch).unwrap(),
        "ééé\näääa".replace("äääa", "ääää")
    );
    assert_eq!(index.cut("nothing here", &mut scratch).unwrap(), "nothing here");
    let (code, detail) = index.cut(ITEM, &mut scratch).unwrap_err();
    assert_eq!(code, "decontaminate.nothing_left");
    assert!(detail.contains("line 1 of set"));
    assert_eq!(index.verdict(&index.scan(ITEM, &mut scratch)), None);
}

#[test]
fn what_too_many_items_share_is_a_form() {
    let form = "The following is a question with four answers of which one is right so choose well:";
    let items: Vec<String> = (0..5).map(|i| format!("{form} {ITEM} {i}")).collect();
    let items: Vec<&str> = items.iter().map(String::as_str).collect();
    let strict = index(
        &Settings {
            max_items: 4,
            ..Settings::default()
        },
        &items,
    );
    assert_eq!(scan(&strict, form).0, []);
    assert_eq!(
        scan(&strict, items[2])
            .0
            .iter()
            .map(|m| (m.0, m.1 == m.2))
            .collect::<Vec<_>>(),
        [(2, true)]
    );
    assert!(Report::new(&strict).common_ngrams > 0);
    assert_eq!(scan(&index(&Settings::default(), &items), form).0.len(), 5);
}

#[test]
fn reports_add_up() {
    let index = index(&Settings::default(), &[ITEM, "Who wrote the novel Middlemarch?"]);
    let texts = [
        ITEM.to_owned(),
        "nothing".to_owned(),
        format!("{ITEM} Who wrote the novel Middlemarch?"),
        ITEM[..90].to_owned(),
    ];
    let report = |texts: &[String]| {
        let mut report = Report::new(&index);
        texts
            .iter()
            .for_each(|text| report.add(&index, &index.scan(text, &mut Scratch::default())));
        report
    };
    let whole = report(&texts);
    assert_eq!((whole.documents, whole.contaminated), (4, 3));
    assert_eq!(whole.sets["set"].found[&0].documents, 3);
    assert_eq!(
        whole.sets["set"].found[&0].found,
        whole.sets["set"].found[&0].ngrams
    );
    for cut in 0..=texts.len() {
        let (a, b) = (report(&texts[..cut]), report(&texts[cut..]));
        let merged = |a: &Report, b: &Report| {
            let mut a = a.clone();
            a.merge(b);
            a
        };
        assert_eq!(merged(&a, &b), whole);
        assert_eq!(merged(&b, &a), whole);
    }
    let json = serde_json::to_string(&whole).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), whole);
}

#[test]
fn bad_items_and_settings_are_named() {
    let mut builder = IndexBuilder::new(&Settings::default()).unwrap();
    for (line, json) in ["{", "[]", "{\"answer\": \"x\"}", "{\"question\": 3}"]
        .into_iter()
        .enumerate()
    {
        let error = builder.add("gsm8k", line as u64, json).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("set gsm8k, line {}: ", line + 1)),
            "{error}"
        );
    }
    builder.add("gsm8k", 9, "  ").unwrap();
    let small = Settings {
        max_index_bytes: 1_000,
        ..Settings::default()
    };
    let mut builder = IndexBuilder::new(&small).unwrap();
    let item = serde_json::json!({ "text": ITEM }).to_string();
    assert!(matches!(
        builder.add("set", 0, &item),
        Err(IndexError::TooLarge { .. })
    ));
    for (settings, field) in [
        (
            Settings {
                ngram: 1,
                ..Settings::default()
            },
            "ngram",
        ),
        (
            Settings {
                min_share: 1.5,
                ..Settings::default()
            },
            "min_share",
        ),
        (
            Settings {
                min_words: 14,
                ..Settings::default()
            },
            "min_words",
        ),
        (
            Settings {
                max_items: 0,
                ..Settings::default()
            },
            "max_items",
        ),
        (
            Settings {
                fields: vec![],
                ..Settings::default()
            },
            "fields",
        ),
    ] {
        let error = IndexBuilder::new(&settings).err().unwrap().to_string();
        assert!(error.contains(&format!("decontaminate.{field} = ")), "{error}");
    }
}

/// Runs of `length` words of a text that has neither case nor punctuation.
fn runs(text: &str, length: usize) -> BTreeSet<Vec<&str>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.windows(length).map(<[&str]>::to_vec).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    // The oracle: sets of runs of words, compared as they are.
    #[test]
    fn matches_are_those_of_sets(
        items in prop::collection::vec(prop::collection::vec("[ab]", 0..9), 1..6),
        text in prop::collection::vec("[ab]", 0..40),
    ) {
        let settings = Settings { ngram: 5, min_words: 3, ..Settings::default() };
        let items: Vec<String> = items.iter().map(|words| words.join(" ")).collect();
        let text = text.join("\n");
        let index = index(&settings, &items.iter().map(String::as_str).collect::<Vec<_>>());
        let expected: Vec<(u64, u32, u32)> = items
            .iter()
            .enumerate()
            .filter_map(|(line, item)| {
                let length = item.split_whitespace().count().min(5);
                let all = if length < 3 { BTreeSet::new() } else { runs(item, length) };
                let found = if length < 3 { 0 } else { all.intersection(&runs(&text, length)).count() };
                (found > 0).then_some((line as u64, found as u32, all.len() as u32))
            })
            .collect();
        let (matches, ranges) = scan(&index, &text);
        prop_assert_eq!(&matches, &expected);
        prop_assert_eq!(ranges.is_empty(), matches.is_empty());
    }

    #[test]
    fn what_is_cut_holds_no_item(
        items in prop::collection::vec(prop::collection::vec("[abc]", 3..9), 1..4),
        text in prop::collection::vec("[abcé]", 0..60),
        margin_chars in 0usize..5,
    ) {
        let settings = Settings { ngram: 4, min_words: 3, margin_chars, policy: Policy::Cut, ..Settings::default() };
        let items: Vec<String> = items.iter().map(|words| words.join(" ")).collect();
        let index = index(&settings, &items.iter().map(String::as_str).collect::<Vec<_>>());
        let text = text.join(" ");
        let mut scratch = Scratch::default();
        if let Ok(cut) = index.cut(&text, &mut scratch) {
            prop_assert!(index.scan(&cut, &mut scratch).is_empty());
            prop_assert_eq!(index.cut(&cut, &mut scratch).unwrap(), cut.clone());
        }
    }
}
