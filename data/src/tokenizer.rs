//! Byte-level BPE: trained, written, read, applied.
//!
//! Text is cut into words by GPT-2's pattern (Radford et al., 2019), each word's bytes are merged by learned
//! pairs (Sennrich, Haddow, Birch, 2016). Every byte has a token, so any text encodes and decodes back to
//! itself. `<|endoftext|>` is token 0 and never comes out of text, not even out of text that spells it.

use std::fs;
use std::path::Path;

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerImpl};

use crate::error::DataError;
use crate::progress::Stop;

/// What ends a document.
pub const END_OF_TEXT: &str = "<|endoftext|>";
/// The token of [`END_OF_TEXT`].
pub const END_OF_TEXT_ID: u32 = 0;
/// The smallest vocabulary: 256 bytes and [`END_OF_TEXT`].
pub const MIN_VOCAB_SIZE: usize = 257;
/// The largest vocabulary.
pub const MAX_VOCAB_SIZE: usize = 1 << 24;

/// A pair is merged only if it occurs so often: one that occurs once teaches nothing.
const MIN_FREQUENCY: u64 = 2;
/// Text is encoded in pieces of about this size, which bounds memory and lets a long document use all cores.
const PIECE_BYTES: usize = 32 << 10;
/// Where no harmless place to cut turns up, a piece ends here anyway.
const LONGEST_PIECE_BYTES: usize = 4 * PIECE_BYTES;

/// A trained tokenizer.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// Learns exactly `vocab_size` tokens from `texts`. The same texts, in any order, give the same
    /// tokenizer.
    ///
    /// # Errors
    /// If the texts do not yield so many tokens.
    pub fn train(texts: &[String], vocab_size: usize) -> Result<Self, DataError> {
        let failed = failed("train the tokenizer");
        let byte_level = ByteLevel::new(false, false, true);
        let mut tokenizer: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, ByteLevel, ByteLevel> =
            TokenizerImpl::new(BPE::default());
        tokenizer
            .with_pre_tokenizer(Some(byte_level))
            .with_decoder(Some(byte_level));
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .min_frequency(MIN_FREQUENCY)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
            .build();
        let all: Vec<&str> = texts.iter().flat_map(|text| pieces(text)).collect();
        tokenizer.train(&mut trainer, all.into_iter()).map_err(&failed)?;
        let tokenizer = Self::from_json(&tokenizer.to_string(false).map_err(&failed)?)?;
        let reached = tokenizer.vocab_size();
        if reached != vocab_size {
            let sample_bytes = texts.iter().map(|text| text.len() as u64).sum();
            return Err(DataError::CorpusTooSmall {
                vocab_size,
                reached,
                sample_bytes,
            });
        }
        Ok(tokenizer)
    }

    /// Reads Hugging Face's `tokenizer.json`.
    ///
    /// # Errors
    /// If it is none, or its token 0 is not [`END_OF_TEXT`].
    pub fn from_json(json: &str) -> Result<Self, DataError> {
        let failed = failed("read the tokenizer");
        let mut inner: tokenizers::Tokenizer = json.parse().map_err(&failed)?;
        if inner.token_to_id(END_OF_TEXT) != Some(END_OF_TEXT_ID) {
            return Err(failed(
                format!("token {END_OF_TEXT_ID} is not {END_OF_TEXT}").into(),
            ));
        }
        inner.set_encode_special_tokens(true);
        Ok(Self { inner })
    }

    /// Reads a `tokenizer.json` file.
    ///
    /// # Errors
    /// If there is none, or as [`Tokenizer::from_json`].
    pub fn open(path: &Path) -> Result<Self, DataError> {
        let json = fs::read_to_string(path).map_err(|error| DataError::io("read", path, error))?;
        Self::from_json(&json)
    }

    /// The content of `tokenizer.json`.
    ///
    /// # Errors
    /// None that is known of.
    pub fn to_json(&self) -> Result<String, DataError> {
        self.inner.to_string(true).map_err(failed("write the tokenizer"))
    }

    /// Tokens in the vocabulary.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The tokens of a text, without an end.
    ///
    /// # Errors
    /// None that is known of.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let mut tokens = Vec::with_capacity(text.len() / 2);
        for piece in pieces(text) {
            tokens.extend(self.encode_piece(piece)?);
        }
        Ok(tokens)
    }

    /// The tokens of many texts, in parallel, each as one or more runs to be read one after the other.
    pub(crate) fn encode_all(
        &self,
        texts: &[String],
        stop: Stop<'_>,
    ) -> Result<Vec<Vec<Vec<u32>>>, DataError> {
        let all: Vec<(usize, &str)> = texts
            .iter()
            .enumerate()
            .flat_map(|(i, text)| pieces(text).map(move |piece| (i, piece)))
            .collect();
        let encode = |(_, piece): &(usize, &str)| stop.check().and_then(|()| self.encode_piece(piece));
        let encoded: Vec<Vec<u32>> = all.par_iter().map(encode).collect::<Result<_, _>>()?;
        let mut runs = vec![Vec::new(); texts.len()];
        for ((i, _), tokens) in all.iter().zip(encoded) {
            runs[*i].push(tokens);
        }
        Ok(runs)
    }

    fn encode_piece(&self, piece: &str) -> Result<Vec<u32>, DataError> {
        let encoding = self.inner.encode_fast(piece, false).map_err(failed("tokenize"))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `tokens`. Bytes that are not UTF-8, as where a character is cut in two, become U+FFFD.
    ///
    /// # Errors
    /// None that is known of.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, DataError> {
        self.inner.decode(tokens, false).map_err(failed("decode tokens"))
    }
}

fn failed(action: &'static str) -> impl Fn(tokenizers::Error) -> DataError {
    move |error| DataError::Tokenizer {
        action,
        problem: error.to_string(),
    }
}

/// Cuts a text in pieces that tokenize, one after the other, as the whole does: it is cut only behind a line
/// break that stands alone between two characters that are not white space, where no word of the pattern can
/// reach across. Only a text without such a place for a long while is cut elsewhere.
fn pieces(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let (piece, after) = rest.split_at(piece_len(rest));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

fn piece_len(text: &str) -> usize {
    if text.len() <= PIECE_BYTES {
        return text.len();
    }
    let bytes = text.as_bytes();
    let end = LONGEST_PIECE_BYTES.min(bytes.len() - 1);
    let solid = |byte: u8| byte.is_ascii_graphic();
    (PIECE_BYTES..end)
        .find(|&i| bytes[i - 1] == b'\n' && solid(bytes[i - 2]) && solid(bytes[i]))
        .unwrap_or_else(|| text.floor_char_boundary(LONGEST_PIECE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::LazyLock;

    static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(|| {
        let text = "fn main() {\n    println!(\"it's 12 o'clock\");\n}\n\n\n\tlet harmless = capture(5);\n"
            .repeat(50);
        Tokenizer::train(&[text], 300).unwrap()
    });

    fn whole(text: &str) -> Vec<u32> {
        TOKENIZER.encode_piece(text).unwrap()
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
    fn a_tokenizer_without_our_end_is_refused() {
        let json = TOKENIZER.to_json().unwrap().replace(END_OF_TEXT, "<eos>");
        assert!(matches!(
            Tokenizer::from_json(&json),
            Err(DataError::Tokenizer { .. })
        ));
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
