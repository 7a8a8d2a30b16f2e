//! The encoder for byte-level BPE: cut in words, look each up, merge what is not known.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::cache::{Cache, Key};
use super::class::Characters;
use super::merges::{Merges, Scratch};
use super::words::Pattern;

/// Encodes text to the ids that the `tokenizers` crate gives it.
pub(super) struct Encoder {
    pattern: Pattern,
    merges: Merges,
    /// Words that are tokens whatever the merges say, where the model ignores merges for those.
    whole: HashMap<Box<[u8]>, u32>,
    /// What threads work with, one for each that has ever encoded at the same time as others.
    desks: Mutex<Vec<Desk>>,
}

/// What one thread works with.
#[derive(Default)]
struct Desk {
    cache: Cache,
    scratch: Scratch,
}

impl Encoder {
    pub(super) fn new(pattern: Pattern, merges: Merges, whole: HashMap<Box<[u8]>, u32>) -> Self {
        Self {
            pattern,
            merges,
            whole,
            desks: Mutex::default(),
        }
    }

    pub(super) fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// Appends the tokens of `text`, of less than 4 GiB.
    pub(super) fn encode(&self, text: &str, tokens: &mut Vec<u32>) {
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        let desk = desks.pop();
        drop(desks);
        let mut desk = desk.unwrap_or_default();
        self.encode_at(&mut desk, text, tokens);
        let mut desks = self.desks.lock().unwrap_or_else(PoisonError::into_inner);
        desks.push(desk);
    }

    fn encode_at(&self, desk: &mut Desk, text: &str, tokens: &mut Vec<u32>) {
        let text = Characters::new(text);
        let bytes = text.bytes();
        let mut start = 0;
        while start < bytes.len() {
            let end = self.pattern.word_end(text, start);
            let key = Key::of(bytes, start, end);
            if !key.as_ref().is_some_and(|key| desk.cache.recall(key, tokens)) {
                let before = tokens.len();
                self.encode_word(&bytes[start..end], &mut desk.scratch, tokens);
                if let Some(key) = &key {
                    desk.cache.keep(key, &tokens[before..]);
                }
            }
            start = end;
        }
    }

    #[cold]
    fn encode_word(&self, word: &[u8], scratch: &mut Scratch, tokens: &mut Vec<u32>) {
        match self.whole.get(word) {
            Some(token) => tokens.push(*token),
            None => self.merges.apply(word, scratch, tokens),
        }
    }
}
