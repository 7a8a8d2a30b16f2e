//! Learns merges from text.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::END_OF_TEXT;
use super::bytes::char_of;
use super::pieces::{Cuts, pieces};
use super::words::Pattern;

/// A pair is merged only if it occurs so often: one that occurs once teaches nothing.
const MIN_FREQUENCY: u64 = 2;

/// How often each word of a text occurs: what a tokenizer learns from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WordCounts {
    words: HashMap<String, u64>,
    /// Of the text.
    bytes: u64,
}

impl WordCounts {
    /// Counts the words of one more text.
    pub fn add(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        for piece in pieces(text, Cuts::AlsoWithinWords) {
            for word in Pattern::Gpt2.words(piece) {
                self.add_word(word, 1);
            }
        }
    }

    fn add_word(&mut self, word: &str, times: u64) {
        match self.words.get_mut(word) {
            Some(count) => *count += times,
            None => drop(self.words.insert(word.to_owned(), times)),
        }
    }

    /// With the words of other texts.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let (mut most, least) = if self.words.len() < other.words.len() {
            (other, self)
        } else {
            (self, other)
        };
        most.bytes += least.bytes;
        for (word, count) in least.words {
            *most.words.entry(word).or_default() += count;
        }
        most
    }

    /// The bytes of all texts.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Each word with how often it occurs, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let mut words: Vec<(&str, u64)> = self
            .words
            .iter()
            .map(|(word, count)| (word.as_str(), *count))
            .collect();
        words.sort_unstable();
        words
    }

    /// From what [`Self::bytes`] and [`Self::sorted`] gave.
    #[must_use]
    pub fn from_parts(bytes: u64, words: impl IntoIterator<Item = (String, u64)>) -> Self {
        let words = words.into_iter().collect();
        Self { words, bytes }
    }
}

/// At most `vocab_size` tokens learned from the words of a text, as the `tokenizers` crate learns them: words
/// are counted here, where that takes less time, and the merges are the crate's.
pub(super) fn train(counts: &WordCounts, vocab_size: usize) -> tokenizers::Result<Tokenizer> {
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(MIN_FREQUENCY)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build();
    let counts = counts
        .words
        .iter()
        .map(|(word, count)| {
            let word: String = word.bytes().map(char_of).collect();
            (word.into(), *count)
        })
        .collect();
    let mut model = BPE::default();
    let special = trainer.do_train(&counts, &mut model)?;
    let byte_level = ByteLevel::new(false, false, true);
    let mut tokenizer = Tokenizer::new(model);
    tokenizer
        .with_pre_tokenizer(Some(byte_level))
        .with_decoder(Some(byte_level));
    tokenizer.add_special_tokens(special)?;
    Ok(tokenizer)
}
