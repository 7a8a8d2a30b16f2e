//! The tokenizer's ids are those of the `tokenizers` crate, for any text and any `tokenizer.json`.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use lockstep_data::Tokenizer;
use lockstep_data::tokenizer::{Counts, Cuts, END_OF_TEXT, Engine, Pattern};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, SplitDelimiterBehavior,
    TokenizerImpl,
};

/// A tokenizer of ours and the crate's, of one `tokenizer.json`.
struct Pair {
    name: String,
    ours: Tokenizer,
    theirs: tokenizers::Tokenizer,
}

impl Pair {
    fn new(name: impl Into<String>, json: &Value) -> Self {
        let json = json.to_string();
        let mut theirs: tokenizers::Tokenizer = json.parse().unwrap();
        theirs.set_encode_special_tokens(true);
        Self {
            name: name.into(),
            ours: Tokenizer::from_hugging_face(&json).unwrap(),
            theirs,
        }
    }

    fn encoded_by_us(self) -> Self {
        assert!(
            matches!(self.ours.engine(), Engine::Own(_)),
            "{}: {:?}",
            self.name,
            self.ours.engine()
        );
        self
    }

    fn wanted(&self, text: &str) -> Vec<u32> {
        self.theirs.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    fn agree(&self, text: &str) -> Result<(), String> {
        let found = self.ours.encode(text).unwrap();
        let wanted = self.wanted(text);
        let at = found.iter().zip(&wanted).take_while(|(a, b)| a == b).count();
        if found != wanted {
            let around = |ids: &[u32]| {
                self.theirs
                    .decode(ids.get(at..).unwrap_or_default(), false)
                    .unwrap()
            };
            return Err(format!(
                "{}: token {at} of {text:.200?} begins {:.40?}, not {:.40?}",
                self.name,
                around(&found),
                around(&wanted)
            ));
        }
        Ok(())
    }
}

/// Text of this repository: Rust, Markdown, TOML.
static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folders = ["data/src", "engine/src", "docs", "examples"];
    let texts: Vec<String> = folders
        .iter()
        .flat_map(|folder| files(&root.join(folder)))
        .collect();
    assert!(texts.len() > 30);
    texts
});

/// The texts of a folder's files, and those in it.
fn files(folder: &Path) -> Vec<String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let texts = |path: PathBuf| match path.is_dir() {
        true => files(&path),
        false => fs::read_to_string(&path).into_iter().collect(),
    };
    paths.into_iter().flat_map(texts).collect()
}

fn trained(texts: &[String], vocab_size: usize) -> Value {
    let tokenizer = Tokenizer::train(texts, vocab_size).unwrap();
    serde_json::from_str(&tokenizer.to_json().unwrap()).unwrap()
}

/// `json` with its text cut as `pattern` says.
fn with_pattern(mut json: Value, pattern: Pattern) -> Value {
    json["pre_tokenizer"] = json!({
        "type": "Sequence",
        "pretokenizers": [
            { "type": "Split", "pattern": { "Regex": pattern.regex() }, "behavior": "Isolated", "invert": false },
            { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        ],
    });
    json
}

/// `json` with its merges in another order, which no training finds: tokens that cannot be reached, merges
/// that wait for later ones.
fn shuffled(mut json: Value, seed: u64) -> Value {
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    let mut state = seed;
    for i in (1..merges.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        merges.swap(i, (state >> 33) as usize % (i + 1));
    }
    json
}

static PAIRS: LazyLock<Vec<Pair>> = LazyLock::new(|| {
    let large = trained(&TEXTS, 3000);
    let mut pairs = vec![
        Pair::new("bytes", &trained(&TEXTS, 257)),
        Pair::new("small", &trained(&TEXTS, 400)),
        Pair::new("large", &large),
        Pair::new("shuffled", &shuffled(large.clone(), 1)),
    ];
    for pattern in Pattern::ALL {
        let mut json = with_pattern(large.clone(), pattern);
        pairs.push(Pair::new(format!("{pattern:?}"), &json));
        json["model"]["ignore_merges"] = json!(true);
        json = shuffled(json, 2);
        pairs.push(Pair::new(format!("{pattern:?}, words first"), &json));
    }
    pairs.into_iter().map(Pair::encoded_by_us).collect()
});

/// Each pattern as the crate compiles it.
static SPLITS: LazyLock<Vec<(Pattern, Split)>> = LazyLock::new(|| {
    let split = |pattern: Pattern| {
        let regex = SplitPattern::Regex(pattern.regex().to_owned());
        Split::new(regex, SplitDelimiterBehavior::Isolated, false).unwrap()
    };
    Pattern::ALL.map(|pattern| (pattern, split(pattern))).into()
});

/// Whether the words of a text are those that the crate's regular expressions find.
fn cut_alike(text: &str) -> Result<(), String> {
    for (pattern, split) in &*SPLITS {
        let mut wanted = PreTokenizedString::from(text);
        split.pre_tokenize(&mut wanted).unwrap();
        let wanted = wanted.get_splits(OffsetReferential::Original, OffsetType::None);
        let wanted = wanted
            .into_iter()
            .map(|(word, _, _)| word)
            .filter(|word| !word.is_empty());
        let mut found = pattern.words(text);
        for wanted in wanted {
            let found = found.next();
            if found != Some(wanted) {
                return Err(format!("{pattern:?}: {found:?}, not {wanted:?}"));
            }
        }
        assert_eq!(found.next(), None);
    }
    Ok(())
}

/// Text of what patterns treat in their own ways.
fn any_text() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => "[ \t\n\r\u{b}\u{c}\u{85}\u{a0}\u{1680}\u{2003}\u{2028}\u{2029}\u{202f}\u{3000}]{1,4}",
        2 => " {1,3}",
        3 => "['’]([sStTmMdDſ]|[rRvV][eE]|[lL]{2}|[a-z]{0,3})",
        4 => "[a-zA-Z]{1,8}",
        1 => "[a-z]{40,130}",
        2 => "[0-9]{1,7}",
        1 => "[²½٣Ⅷ𝟛०\u{3007}]{1,4}",
        2 => "[.,;:!?(){}<>=+*/_#\"-]{1,5}",
        2 => "[éßñøłçÀŽ]{1,5}",
        2 => "[а-яЁ]{1,12}",
        2 => "[一-龥ぁ-ん가-힣]{1,20}",
        1 => "[\u{300}\u{301}\u{20e3}\u{fe0f}\u{200d}\u{200b}\u{ad}\u{feff}]{1,3}",
        1 => "(👩‍👩‍👧|🏳️‍🌈|😀|🇩🇪|1️⃣){1,3}",
        1 => "[\0\x01\x1b\x7f\u{1c}\u{1f}]{1,3}",
        1 => Just("\r\n".to_owned()),
        1 => Just(END_OF_TEXT.to_owned()),
        2 => "\\PC{1,4}",
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(part, 0..24).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn words_are_those_that_the_crate_finds(text in any_text()) {
        if let Err(difference) = cut_alike(&text) {
            prop_assert!(false, "{}", difference);
        }
    }

    #[test]
    fn ids_are_those_of_the_crate_and_lead_back_to_the_text(text in any_text()) {
        for pair in &*PAIRS {
            if let Err(difference) = pair.agree(&text) {
                prop_assert!(false, "{}", difference);
            }
            let tokens = pair.ours.encode(&text).unwrap();
            prop_assert_eq!(pair.ours.decode(&tokens).unwrap(), text.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Texts that are cut: whatever stands around a cut, it changes nothing.
    #[test]
    fn long_texts_have_the_ids_of_the_crate(text in any_text(), long in "[a-z \n]{1,3}|\\PC{3}", pair in 0..PAIRS.len()) {
        prop_assume!(!text.is_empty());
        let pair = &PAIRS[pair];
        let text = (text + &long).repeat(40_000 / long.len().max(20));
        if let Err(difference) = pair.agree(&text) {
            prop_assert!(false, "{}", difference);
        }
    }

    /// Many ties, tokens that are made in several ways, in words that are looked through and words that queue.
    #[test]
    fn words_of_few_letters_merge_as_in_the_crate(
        seed: u64,
        words in proptest::collection::vec("[ab]{1,12}|[a-c]{60,300}|[ab]{252,258}", 1..20),
    ) {
        let mut state = seed;
        let mut letter = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            ['a', 'b', 'c', ' '][(state >> 33) as usize % 4]
        };
        let sample: String = (0..2000).map(|_| letter()).collect();
        let json = trained(&[sample], 257 + 40);
        for json in [shuffled(json.clone(), seed), json] {
            let pair = Pair::new("few letters", &json).encoded_by_us();
            if let Err(difference) = pair.agree(&words.join(" ")) {
                prop_assert!(false, "{}", difference);
            }
        }
    }
}

#[test]
fn every_character_is_cut_as_the_crate_cuts_it() {
    // Above, there is nothing but private use and a few tags.
    let all: Vec<char> = (0..0x3_4000)
        .chain(0xe_0000..0xe_0200)
        .filter_map(char::from_u32)
        .collect();
    for chars in all.chunks(20_000) {
        let text: String = chars
            .iter()
            .flat_map(|c| ['a', *c, ' ', *c, '1', '!', *c, '\'', *c, 's'])
            .collect();
        cut_alike(&text).unwrap();
    }
}

#[test]
fn real_text_has_the_ids_of_the_crate() {
    for text in &*TEXTS {
        for pair in &*PAIRS {
            pair.agree(text).unwrap();
        }
    }
}

/// Words of a quarter of a million bytes have the crate's ids, and ones of two million take no time with
/// their square.
#[test]
fn hostile_text_takes_its_time_and_has_the_ids_of_the_crate() {
    let mut state = 1u64;
    let base64: String = (0..1 << 18)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"[(state >> 33) as usize % 52] as char
        })
        .collect();
    let texts = [
        base64,
        "a".repeat(1 << 18),
        "😀".repeat(1 << 16),
        "\u{301}".repeat(1 << 17),
        "漢".repeat(1 << 16),
        "7".repeat(1 << 18),
        "a\u{301}".repeat(1 << 16),
        // More white space in a row is too much for the crate's regular expressions.
        " ".repeat(200_000),
        "\n".repeat(200_000) + "x",
        " \n\r\t".repeat(50_000) + "x",
    ];
    for pair in PAIRS
        .iter()
        .filter(|pair| ["large", "Llama3"].contains(&pair.name.as_str()))
    {
        for text in &texts {
            pair.agree(text).unwrap();
        }
    }
    let white = " \n".repeat(8 << 20);
    for pair in &*PAIRS {
        assert_eq!(
            pair.ours.decode(&pair.ours.encode(&white).unwrap()).unwrap(),
            white
        );
    }
}

/// What a trained tokenizer does with a line of 128 KiB and more: datasets are written so.
#[test]
fn a_trained_tokenizer_cuts_lines_that_are_very_long() {
    let trained = Tokenizer::train(&TEXTS, 3000).unwrap();
    let line = "error ".repeat(60_000);
    let cut = line
        .as_bytes()
        .chunks(128 << 10)
        .map(|part| str::from_utf8(part).unwrap());
    let pair = &PAIRS[2];
    let whole = pair.wanted(&line);
    let wanted: Vec<u32> = cut.flat_map(|part| pair.wanted(part)).collect();
    assert!(wanted != whole);
    assert!(trained.encode(&line).unwrap() == wanted);
    assert!(trained.with_cuts(Cuts::BetweenWords).encode(&line).unwrap() == whole);
}

#[test]
fn training_learns_what_the_crate_learns() {
    for vocab_size in [257, 300, 1000, 2500] {
        let byte_level = ByteLevel::new(false, false, true);
        let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
            TokenizerImpl::new(BPE::default());
        tokenizer
            .with_pre_tokenizer(Some(byte_level))
            .with_decoder(Some(byte_level));
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(2)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        tokenizer.train(&mut trainer, TEXTS.iter()).unwrap();
        let ours = Tokenizer::train(&TEXTS, vocab_size).unwrap();
        assert!(
            ours.to_json().unwrap() == tokenizer.to_string(true).unwrap(),
            "{vocab_size}"
        );
    }
}

/// What the encoder does not do, and that it is done all the same.
#[test]
fn other_tokenizers_are_left_to_the_crate() {
    let json = trained(&TEXTS, 400);
    let llama = with_pattern(json.clone(), Pattern::Llama3);
    let with = |json: &Value, pointer: &str, value: Value| {
        let mut json = json.clone();
        *json.pointer_mut(pointer).unwrap() = value;
        json
    };
    let mut words = json!({ "type": "WordLevel", "vocab": { "the": 0, "a": 1, "?": 2 }, "unk_token": "?" });
    let word_level = with(&json, "/model", words.take());
    let word_level = with(&word_level, "/pre_tokenizer", json!({ "type": "Whitespace" }));
    let mut no_byte = json.clone();
    no_byte["model"]["vocab"]
        .as_object_mut()
        .unwrap()
        .remove("Ā")
        .unwrap();
    let cases = [
        (
            "it normalizes",
            with(&json, "/normalizer", json!({ "type": "NFC" })),
        ),
        ("its model is not BPE", word_level),
        (
            "it does not cut",
            with(&json, "/pre_tokenizer/add_prefix_space", json!(true)),
        ),
        (
            "it does not cut",
            with(&json, "/pre_tokenizer/use_regex", json!(false)),
        ),
        ("it does not cut", with(&json, "/pre_tokenizer", Value::Null)),
        (
            "it does not cut",
            with(
                &llama,
                "/pre_tokenizer/pretokenizers/0/behavior",
                json!("Removed"),
            ),
        ),
        (
            "it does not cut",
            with(&llama, "/pre_tokenizer/pretokenizers/0/invert", json!(true)),
        ),
        (
            "it does not cut",
            with(
                &llama,
                "/pre_tokenizer/pretokenizers/0/pattern",
                json!({ "Regex": r"\w+" }),
            ),
        ),
        (
            "its model marks",
            with(&json, "/model/end_of_word_suffix", json!("a")),
        ),
        ("byte 0 has no token", no_byte),
    ];
    let text = "A  line\u{301} of text, it's 3 o'clock:\n\tand\u{a0}another…\n".repeat(1000);
    for (because, json) in cases {
        let pair = Pair::new(because, &json);
        let Engine::Crate { because: found } = pair.ours.engine() else {
            panic!("{because}");
        };
        assert!(found.starts_with(because), "{found}, not {because}");
        pair.agree(&text).unwrap();
    }
}

#[test]
fn added_tokens_are_found_as_the_crate_finds_them() {
    let mut json = trained(&TEXTS, 400);
    let added = |id: u32, content: &str, flags: &[&str]| {
        let flag = |name| flags.contains(&name);
        json!({
            "id": id, "content": content, "special": flag("special"), "lstrip": flag("lstrip"),
            "rstrip": flag("rstrip"), "single_word": flag("single_word"), "normalized": flag("normalized"),
        })
    };
    json["added_tokens"].as_array_mut().unwrap().extend([
        added(400, "<tool>", &[]),
        added(401, "<left>", &["lstrip"]),
        added(402, "<right>", &["rstrip", "normalized"]),
        added(403, "word", &["single_word"]),
        added(404, "<special>", &["special", "lstrip"]),
        added(405, "<special>x", &[]),
    ]);
    let pair = Pair::new("added", &json).encoded_by_us();
    let line = "plain text, <|endoftext|> and <special> spelled\n";
    for text in [
        line.to_owned(),
        "a <tool>b".to_owned(),
        "a \n <left> b".to_owned(),
        "a <right>\n\n b".to_owned(),
        "sword word words".to_owned(),
        "<special>xx".to_owned(),
        line.repeat(2000) + "\n<left>" + &line.repeat(2000) + "<right>\n",
    ] {
        pair.agree(&text).unwrap();
    }
    assert!(pair.ours.encode("a <tool>").unwrap().contains(&400));
    assert!(!pair.ours.encode(line).unwrap().contains(&404));
    assert_eq!(pair.ours.token_id("<tool>"), Some(400));
}

#[test]
fn post_processors_and_limits_change_no_token_of_a_text() {
    let json = trained(&TEXTS, 400);
    let plain = Pair::new("plain", &json);
    let text = "a text that is longer than its limit";
    let template = |single: Value| {
        let mut json = json.clone();
        json["post_processor"] = json!({
            "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": { END_OF_TEXT: { "id": END_OF_TEXT, "ids": [0], "tokens": [END_OF_TEXT] } },
        });
        json["truncation"] =
            json!({ "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0 });
        Tokenizer::from_hugging_face(&json.to_string()).unwrap()
    };
    let special = json!({ "SpecialToken": { "id": END_OF_TEXT, "type_id": 0 } });
    let sequence = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let usual = template(json!([special, sequence]));
    assert!(matches!(usual.engine(), Engine::Own(_)));
    assert_eq!(usual.encode(text).unwrap(), plain.wanted(text));
    let twice = template(json!([sequence, sequence]));
    assert!(matches!(twice.engine(), Engine::Crate { .. }));
}

#[test]
fn counts_are_bytes_words_and_tokens() {
    let pair = &PAIRS[2];
    let text = "Wörter,  zwei\n".repeat(4000);
    let counts = pair.ours.count(&text).unwrap();
    let tokens = pair.wanted(&text).len() as u64;
    assert_eq!(
        counts,
        Counts {
            bytes: 15 * 4000,
            words: 2 * 4000,
            tokens
        }
    );
}

#[test]
fn a_damaged_tokenizer_is_an_error() {
    let texts = ["the cat and the dog ate the rat in the hat; that is what they say. ".repeat(3)];
    let whole = Tokenizer::train(&texts, 265).unwrap().to_json().unwrap();
    Tokenizer::from_json(&whole, END_OF_TEXT).unwrap();
    for (from, to, words) in [
        ("\"decoder\": {", "\"decoder\": {{", "key must be a string"),
        ("}", "", "expected"),
        ("\"!\": 1,", "\"!\": 2,", "two tokens have the id 2"),
    ] {
        let damaged = whole.replacen(from, to, 1);
        assert_ne!(damaged, whole, "{from}");
        let error = Tokenizer::from_json(&damaged, END_OF_TEXT)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// GPT-2's own vocabulary, its published ids for a few words, and the crate's for much text.
#[test]
fn gpt2_has_its_ids() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fetch/gpt2.sh");
    let output = Command::new("sh").arg(script).output().unwrap();
    if !output.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let folder = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let vocabulary = fs::read_to_string(folder.join("encoder.json")).unwrap();
    let merges = fs::read_to_string(folder.join("vocab.bpe")).unwrap();
    let json = json!({
        "version": "1.0",
        "added_tokens": [{
            "id": 50256, "content": END_OF_TEXT, "special": true, "lstrip": false, "rstrip": false,
            "single_word": false, "normalized": false,
        }],
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "decoder": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true },
        "model": {
            "type": "BPE", "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "vocab": serde_json::from_str::<Value>(&vocabulary).unwrap(),
            "merges": merges.lines().collect::<Vec<_>>(),
        },
    });
    let gpt2 = Pair::new("GPT-2", &json).encoded_by_us();
    assert_eq!(gpt2.ours.vocab_size(), 50257);
    assert_eq!(gpt2.ours.token_id(END_OF_TEXT), Some(50256));
    assert_eq!(gpt2.ours.encode("Hello world").unwrap(), [15496, 995]);
    for text in &*TEXTS {
        gpt2.agree(text).unwrap();
    }
    let pairs = [
        gpt2,
        Pair::new("GPT-2, Llama 3's words", &with_pattern(json, Pattern::Llama3)).encoded_by_us(),
    ];
    let mut runner = proptest::test_runner::TestRunner::default();
    runner
        .run(&any_text(), |text| {
            for pair in &pairs {
                prop_assert!(pair.agree(&text).is_ok(), "{:?}", pair.agree(&text));
            }
            Ok(())
        })
        .unwrap();
}
