//! Byte-level BPE: trained, written, read, applied.
//!
//! Text is cut into words by GPT-2's pattern (Radford et al., 2019), each word's bytes are merged by learned
//! pairs (Sennrich, Haddow, Birch, 2016). Every byte has a token, so any text encodes and decodes back to
//! itself. `<|endoftext|>` is token 0 and never comes out of text, not even out of text that spells it.
//!
//! Other tokenizers are read from Hugging Face's `tokenizer.json`. Those that work alike encode here too, the
//! rest in the `tokenizers` crate. The ids are that crate's, whoever encodes: [`Tokenizer::engine`] tells. Only in
//! builds with a tokenizer trained here may a stretch of 128 KiB without a line break be cut inside a word (`pieces`).
//!
//! | module | concept |
//! |---|---|
//! | `pieces` | long text, cut for many cores |
//! | `class` | letters, numbers, white space |
//! | `words` | the patterns that cut text in words |
//! | `merges` | pairs of tokens that become one, applied to a word |
//! | `cache` | words whose tokens are known |
//! | `encoder` | text to tokens, with these |
//! | `bytes` | bytes as `tokenizer.json` writes them |
//! | `config` | whether the encoder does what a `tokenizer.json` asks for |
//! | `train` | merges, learned from text |

mod bytes;
mod cache;
mod class;
mod config;
mod encoder;
mod merges;
mod pieces;
mod train;
mod words;

use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use rayon::prelude::*;

use crate::error::DataError;
use crate::progress::Stop;
use encoder::Encoder;

pub use pieces::Cuts;
pub use train::WordCounts;
pub use words::Pattern;

/// What ends a document, unless a tokenizer that is brought has another token for it.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// The token of [`END_OF_TEXT`] in a tokenizer that was trained here.
pub const END_OF_TEXT_ID: u32 = 0;
/// The smallest vocabulary: 256 bytes and [`END_OF_TEXT`].
pub const MIN_VOCAB_SIZE: usize = 257;
/// The largest vocabulary.
pub const MAX_VOCAB_SIZE: usize = 1 << 24;

/// A tokenizer, trained or read.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    engine: Engine,
    cuts: Cuts,
    /// What ends a document, if it is known.
    end_of_text: Option<u32>,
}

/// Who turns text into tokens. The tokens are the same.
#[derive(Clone)]
pub enum Engine {
    /// The encoder of this crate.
    Own(OwnEngine),
    /// The `tokenizers` crate.
    Crate {
        /// What the tokenizer asks for that the encoder of this crate does not do.
        because: String,
    },
}

/// The encoder of this crate, and when not to use it.
#[derive(Clone)]
pub struct OwnEngine {
    encoder: Arc<Encoder>,
    /// Finds tokens that were added to the model's. A text with one is left to the `tokenizers` crate.
    added: Option<AhoCorasick>,
}

impl OwnEngine {
    /// How text is cut in words.
    #[must_use]
    pub fn pattern(&self) -> Pattern {
        self.encoder.pattern()
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(own) => write!(f, "own encoder, {:?}", own.pattern()),
            Self::Crate { because } => write!(f, "tokenizers crate, because {because}"),
        }
    }
}

/// How much a text is: what tokens per byte or per word are computed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Bytes of UTF-8.
    pub bytes: u64,
    /// Words between white space, as fertility is defined by (Ács, 2019).
    pub words: u64,
    /// Tokens, without an end.
    pub tokens: u64,
}

impl Tokenizer {
    /// Learns exactly `vocab_size` tokens from `texts`. The same texts, in any order, give the same
    /// tokenizer.
    ///
    /// # Errors
    /// If the texts do not yield so many tokens.
    pub fn train(texts: &[String], vocab_size: usize) -> Result<Self, DataError> {
        let counted = texts
            .par_iter()
            .fold(WordCounts::default, |mut counts, text| {
                counts.add(text);
                counts
            })
            .reduce(WordCounts::default, WordCounts::merged);
        Self::learn(&counted, vocab_size)
    }

    /// Likewise from the words of texts.
    ///
    /// # Errors
    /// Likewise.
    pub fn learn(counts: &WordCounts, vocab_size: usize) -> Result<Self, DataError> {
        let failed = failed("train the tokenizer");
        let tokenizer = train::train(counts, vocab_size).map_err(&failed)?;
        let tokenizer = Self::from_json(&tokenizer.to_string(false).map_err(&failed)?, END_OF_TEXT)?;
        let reached = tokenizer.vocab_size();
        if reached != vocab_size {
            return Err(DataError::CorpusTooSmall {
                vocab_size,
                reached,
                sample_bytes: counts.bytes(),
            });
        }
        Ok(tokenizer)
    }

    /// Reads a `tokenizer.json` in which the token `end` is to end documents.
    ///
    /// # Errors
    /// If it is none, has no such token, or two tokens have the same id.
    pub fn from_json(json: &str, end: &str) -> Result<Self, DataError> {
        let failed = |problem: String| failed("read the tokenizer")(problem.into());
        let mut tokenizer = Self::from_hugging_face(json)?;
        let Some(id) = tokenizer.token_id(end) else {
            return Err(failed(format!(
                "it has no token {end}, which is to end documents"
            )));
        };
        tokenizer.end_of_text = Some(id);
        let mut ids: Vec<u32> = tokenizer.inner.get_vocab(true).into_values().collect();
        ids.sort_unstable();
        if let Some([id, ..]) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(failed(format!("two tokens have the id {id}")));
        }
        if (end, id) == (END_OF_TEXT, END_OF_TEXT_ID) {
            tokenizer.cuts = Cuts::AlsoWithinWords;
        }
        Ok(tokenizer)
    }

    /// Reads any Hugging Face `tokenizer.json`. Limits of length, padding and special tokens around a text
    /// are left aside; text that spells a special token is text.
    ///
    /// # Errors
    /// If it is none.
    pub fn from_hugging_face(json: &str) -> Result<Self, DataError> {
        let failed = failed("read the tokenizer");
        // The crate panics on some text that is no JSON.
        let _: serde_json::Value = serde_json::from_str(json).map_err(|error| failed(error.into()))?;
        let mut inner: tokenizers::Tokenizer = json.parse().map_err(&failed)?;
        inner.set_encode_special_tokens(true);
        inner.with_truncation(None).map_err(&failed)?;
        inner.with_padding(None);
        let own = config::encoder(json, &inner).and_then(|encoder| {
            Ok(Engine::Own(OwnEngine {
                encoder: Arc::new(encoder),
                added: config::added_tokens(&inner)?,
            }))
        });
        Ok(Self {
            engine: own.unwrap_or_else(|because| Engine::Crate { because }),
            end_of_text: inner.token_to_id(END_OF_TEXT),
            inner,
            cuts: Cuts::BetweenWords,
        })
    }

    /// The same tokenizer, which cuts long text elsewhere. A tokenizer cuts [`Cuts::AlsoWithinWords`] if it
    /// is as those that are trained here, whose token 0 is [`END_OF_TEXT`], else [`Cuts::BetweenWords`].
    #[must_use]
    pub fn with_cuts(self, cuts: Cuts) -> Self {
        Self { cuts, ..self }
    }

    /// Who turns text into tokens.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Reads a `tokenizer.json` file, in which the token `end` is to end documents.
    ///
    /// # Errors
    /// If there is none, or as [`Tokenizer::from_json`].
    pub fn open(path: &Path, end: &str) -> Result<Self, DataError> {
        Self::from_json(&text_of(path)?, end)
    }

    /// Likewise by the id of the token.
    pub(crate) fn open_with_id(path: &Path, end: u32) -> Result<Self, DataError> {
        let json = text_of(path)?;
        let token = Self::from_hugging_face(&json)?.inner.id_to_token(end);
        let missing = || failed("read the tokenizer")(format!("it has no token {end}").into());
        Self::from_json(&json, &token.ok_or_else(missing)?)
    }

    /// The token that ends a document, if it is known.
    #[must_use]
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// The content of `tokenizer.json`.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(failed("write the tokenizer"))
    }

    /// Tokens in the vocabulary, those included that have no text: one more than the highest id.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        let ids = self.inner.get_vocab(true).into_values();
        ids.max().map_or(0, |id| id as usize + 1)
    }

    /// The id of a token, special ones included.
    #[must_use]
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokens of a text, without an end.
    ///
    /// # Errors
    /// None that is known of.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::with_capacity(text.len() / 3);
        for piece in self.pieces(text) {
            self.encode_piece(piece, &mut tokens)?;
        }
        Ok(tokens)
    }

    /// Counts the tokens of a text, and what they are compared with.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn count(&self, text: &str) -> Result<Counts, DataError> {
        let mut counts = Counts {
            bytes: text.len() as u64,
            words: text.split_whitespace().count() as u64,
            tokens: 0,
        };
        let mut tokens = Vec::new();
        for piece in self.pieces(text) {
            tokens.clear();
            self.encode_piece(piece, &mut tokens)?;
            counts.tokens += tokens.len() as u64;
        }
        Ok(counts)
    }

    /// The tokens of many texts, in parallel, each as one or more runs to be read one after the other.
    pub(crate) fn encode_all(
        &self,
        texts: &[String],
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<Vec<u32>>>, DataError> {
        let all: Vec<(usize, &str)> = texts
            .par_iter()
            .enumerate()
            .flat_map_iter(|(i, text)| self.pieces(text).map(move |piece| (i, piece)))
            .collect();
        let encode = |(_, piece): &(usize, &str)| {
            stop.check()?;
            let mut tokens = Vec::new();
            self.encode_piece(piece, &mut tokens)?;
            Ok(tokens)
        };
        let encoded: Vec<Vec<u32>> = all.par_iter().map(encode).collect::<Result<_, DataError>>()?;
        let mut runs = vec![Vec::new(); texts.len()];
        for ((i, _), tokens) in all.iter().zip(encoded) {
            runs[*i].push(tokens);
        }
        Ok(runs)
    }

    /// The pieces of a text that are tokenized one by one. A text that is left to the `tokenizers` crate is
    /// one, unless a trained tokenizer is: what a tokenizer that is not known does across a cut, none can say.
    fn pieces<'t>(&self, text: &'t str) -> impl Iterator<Item = &'t str> + use<'t> {
        let whole = self.cuts == Cuts::BetweenWords && self.own(text).is_none();
        let cut = (!whole).then(|| pieces::pieces(text, self.cuts));
        let uncut = (whole && !text.is_empty()).then_some(text);
        cut.into_iter().flatten().chain(uncut)
    }

    /// The encoder of this crate, if it gives the tokens of `text`.
    fn own(&self, text: &str) -> Option<&Encoder> {
        match &self.engine {
            Engine::Own(OwnEngine { encoder, added }) => {
                let fits = u32::try_from(text.len()).is_ok();
                let plain = added.as_ref().is_none_or(|added| !added.is_match(text));
                (fits && plain).then_some(encoder)
            }
            Engine::Crate { .. } => None,
        }
    }

    fn encode_piece(&self, piece: &str, tokens: &mut Vec<u32>) -> Result<(), DataError> {
        match self.own(piece) {
            Some(encoder) => encoder.encode(piece, tokens),
            None => {
                let encoding = self.inner.encode_fast(piece, false).map_err(failed("tokenize"))?;
                tokens.extend_from_slice(encoding.get_ids());
            }
        }
        Ok(())
    }

    /// The text of `tokens`. Bytes that are not UTF-8, as where a character is cut in two, become U+FFFD.
    ///
    /// # Errors
    /// None that is known of.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.inner.decode(tokens, false).map_err(failed("decode tokens"))
    }
}

fn text_of(path: &Path) -> Result<String, DataError> {
    fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))
}

fn failed(action: &'static str) -> impl Fn(tokenizers::Error) -> DataError {
    move |error| DataError::Tokenizer {
        action,
        problem: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::pieces::{LONGEST_PIECE_BYTES, PIECE_BYTES};
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let text = "fn main() {\n    println!(\"it's 12 o'clock\");\n}\n\n\n\tlet harmless = capture(5);\n"
            .repeat(50);
        Tokenizer::train(&[text], 300).unwrap()
    });

    fn whole(text: &str) -> Vec<u32> {
        let mut tokens = Vec::new();
        TOKENIZER.encode_piece(text, &mut tokens).unwrap();
        tokens
    }

    fn pieces(text: &str) -> impl Iterator<Item = &str> {
        pieces::pieces(text, Cuts::AlsoWithinWords)
    }

    #[test]
    fn the_vocabulary_is_as_large_as_asked_or_says_how_large_it_can_be() {
        assert_eq!(TOKENIZER.vocab_size(), 300);
        let text = vec!["abab abab".to_owned()];
        let error = Tokenizer::train(&text, 5000).unwrap_err();
        let DataError::CorpusTooSmall {
            vocab_size: 5000,
            reached,
            sample_bytes: 9,
        } = error
        else {
            panic!("{error}");
        };
        assert!(
            error
                .to_string()
                .contains(&format!("lower model.vocab_size to at most {reached}")),
            "{error}"
        );
        assert_eq!(Tokenizer::train(&text, reached).unwrap().vocab_size(), reached);
    }

    #[test]
    fn text_that_spells_the_end_is_text() {
        let text = "a<|endoftext|>b";
        let tokens = TOKENIZER.encode(text).unwrap();
        assert!(!tokens.contains(&END_OF_TEXT_ID));
        assert_eq!(TOKENIZER.decode(&tokens).unwrap(), text);
        assert_eq!(TOKENIZER.decode(&[END_OF_TEXT_ID]).unwrap(), END_OF_TEXT);
    }

    #[test]
    fn documents_end_with_a_token_that_the_tokenizer_has() {
        let json = TOKENIZER.to_json().unwrap().replace(END_OF_TEXT, "<eos>");
        let error = Tokenizer::from_json(&json, END_OF_TEXT).unwrap_err().to_string();
        assert!(error.contains("no token <|endoftext|>"), "{error}");
        let other = Tokenizer::from_json(&json, "<eos>").unwrap();
        assert_eq!(other.end_of_text(), Some(0));
        assert_eq!(other.cuts, Cuts::BetweenWords, "it is not known to be ours");
        assert_eq!(TOKENIZER.cuts, Cuts::AlsoWithinWords);
    }

    #[test]
    fn long_text_without_a_line_break_is_cut_between_characters() {
        let text = "ä".repeat(LONGEST_PIECE_BYTES);
        assert!(pieces(&text).count() > 1);
        assert!(pieces(&text).all(|piece| piece.len() <= LONGEST_PIECE_BYTES));
        assert_eq!(TOKENIZER.decode(&TOKENIZER.encode(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn pieces_tokenize_as_the_whole_does() {
        let line = "let it's = 1;\n  \n\n\tfoo(bar);  \nx\n";
        let text = line.repeat(3 * PIECE_BYTES / line.len());
        assert!(pieces(&text).count() > 1);
        assert_eq!(TOKENIZER.encode(&text).unwrap(), whole(&text));
    }

    proptest! {
        #[test]
        fn any_text_survives(text in "\\PC{0,40}[ \n\t]{0,5}\\PC{0,40}") {
            prop_assert_eq!(TOKENIZER.decode(&TOKENIZER.encode(&text).unwrap()).unwrap(), text);
        }

        #[test]
        fn a_harmless_cut_changes_no_token(before in "[a-c1' \n\t.é]{0,12}[a-z.']", after in "[a-z.'(][a-c1' \n\t.é]{0,12}") {
            let before = before + "\n";
            let cut: Vec<u32> = [whole(&before), whole(&after)].concat();
            prop_assert_eq!(whole(&(before + &after)), cut);
        }

        /// Words of few letters: many pairs tie, many tokens can be made in two ways.
        #[test]
        fn training_twice_gives_the_same_tokenizer(
            words in proptest::collection::vec("[ab]{1,12}|[a-c]{1,6}", 200..600),
            vocab_size in 258usize..330,
        ) {
            let train = |words: &[String]| Tokenizer::train(&[words.join(" ")], vocab_size).map(|t| t.to_json().unwrap());
            let mut backward = words.clone();
            backward[1..].reverse();
            if let (Ok(first), Ok(again)) = (train(&words), train(&backward)) {
                prop_assert_eq!(first, again);
            }
        }

        #[test]
        fn words_counted_apart_are_those_of_all_texts(
            texts in proptest::collection::vec("[ab]{1,3}( [ab]{1,3}){0,20}", 1..20),
            at in 0usize..20,
        ) {
            let count = |texts: &[String]| {
                let mut counts = WordCounts::default();
                texts.iter().for_each(|text| counts.add(text));
                counts
            };
            let (some, more) = texts.split_at(at.min(texts.len()));
            let kept = |counts: WordCounts| {
                let mut again = WordCounts::default();
                again.extend(counts.sorted().into_iter().map(|(word, count)| (word.to_owned(), count)));
                again
            };
            let merged = kept(count(some)).merged(kept(count(more)));
            prop_assert_eq!(&merged, &count(&texts));
            let bytes: u64 = texts.iter().map(|text| text.len() as u64).sum();
            prop_assert_eq!(merged.bytes(), bytes);
        }

        #[test]
        fn pieces_are_the_text(seed: u64, len in 0usize..400_000) {
            let mut state = seed | 1;
            let text: String = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    ['a', 'é', '\n', ' ', '漢', 'z', 'b', '.'][(state >> 61) as usize]
                })
                .collect();
            prop_assert_eq!(pieces(&text).collect::<String>(), text.clone());
            prop_assert!(pieces(&text).all(|piece| piece.len() <= LONGEST_PIECE_BYTES));
        }
    }
}
