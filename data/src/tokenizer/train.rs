//! Learns merges from text.

use std::collections::HashMap;

use rayon::prelude::*;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

use super::END_OF_TEXT;
use super::bytes::char_of;
use super::words::Pattern;

/// A pair is merged only if it occurs so often: one that occurs once teaches nothing.
const MIN_FREQUENCY: u64 = 2;

/// At most `vocab_size` tokens learned from the words of `pieces`, as the `tokenizers` crate learns them: words
/// are counted here, where that takes less time, and the merges are the crate's.
pub(super) fn train(pieces: &[&str], vocab_size: usize) -> tokenizers::Result<Tokenizer> {
    let counts = count_words(pieces);
    let trainer = BpeTrainer::builder()
        .vocab_size(vocab_size)
        .min_frequency(MIN_FREQUENCY)
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build();
    let counts = counts
        .into_iter()
        .map(|(word, count)| {
            let word: String = word.bytes().map(char_of).collect();
            (word.into(), count)
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

/// How often each word occurs.
fn count_words<'t>(pieces: &[&'t str]) -> HashMap<&'t str, u64> {
    pieces
        .par_iter()
        .fold(HashMap::new, |mut counts: HashMap<&str, u64>, piece| {
            for word in Pattern::Gpt2.words(piece) {
                *counts.entry(word).or_default() += 1;
            }
            counts
        })
        .reduce(HashMap::new, |mut all, counts| {
            for (word, count) in counts {
                *all.entry(word).or_default() += count;
            }
            all
        })
}
