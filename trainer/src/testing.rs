//! A tokenizer that unit tests and black-box tests share.

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, Tokenizer};

/// Byte-level, one token a byte: `<|endoftext|>` is 0, the bytes follow.
pub(crate) fn byte_tokenizer() -> Tokenizer {
    let mut alphabet: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    alphabet.sort();
    let vocabulary = std::iter::once("<|endoftext|>".to_owned())
        .chain(alphabet)
        .zip(0..);
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.collect::<Vocab>(), vec![])
        .build()
        .unwrap();
    let mut tokenizer = Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    tokenizer
        .add_special_tokens([AddedToken::from("<|endoftext|>", true)])
        .unwrap();
    tokenizer
}
