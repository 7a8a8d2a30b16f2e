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
pub struct WordCounts(HashMap<String, u64>);

impl WordCounts {
    /// Counts the words of one more text.
    pub fn add(&mut self, text: &str) {
        for piece in pieces(text, Cuts::AlsoWithinWords) {
            for word in Pattern::Gpt2.words(piece) {
                match self.0.get_mut(word) {
                    Some(count) => *count += 1,
                    None => drop(self.0.insert(word.to_owned(), 1)),
                }
            }
        }
    }

    /// With the words of other texts.
    #[must_use]
    pub fn merged(self, other: Self) -> Self {
        let (mut most, least) = if self.0.len() < other.0.len() {
            (other, self)
        } else {
            (self, other)
        };
        most.extend(least.0);
        most
    }

    /// The bytes of all texts: a text is its words, one after the other.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|(word, count)| word.len() as u64 * count).sum()
    }

    /// Each word with how often it occurs, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<(&str, u64)> {
        let mut words: Vec<(&str, u64)> = self
            .0
            .iter()
            .map(|(word, count)| (word.as_str(), *count))
            .collect();
        words.sort_unstable();
        words
    }
}

impl Extend<(String, u64)> for WordCounts {
    fn extend<I: IntoIterator<Item = (String, u64)>>(&mut self, words: I) {
        for (word, count) in words {
            *self.0.entry(word).or_default() += count;
        }
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
        .0
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
