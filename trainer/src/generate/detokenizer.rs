//! Tokens to text, piece by piece.

use tokenizers::Tokenizer;

/// Turns tokens into text as they come.
///
/// A byte-level token can end in the middle of a character; such a tail is held back until the character is
/// whole. Pieces are differences of two decoded texts, so that decoders that look at neighbours come out right.
pub(super) struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    /// The tokens of the last piece, then those not yet turned into text.
    tokens: Vec<u32>,
    told: usize,
}

impl<'a> Detokenizer<'a> {
    pub(super) fn new(tokenizer: &'a Tokenizer) -> Self {
        Self {
            tokenizer,
            tokens: Vec::new(),
            told: 0,
        }
    }

    /// The text that `token` completes; empty while a character is open.
    pub(super) fn push(&mut self, token: u32) -> Result<String, String> {
        self.tokens.push(token);
        let piece = self.pending()?;
        if piece.is_empty() || piece.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.tokens.drain(..self.told);
        self.told = self.tokens.len();
        Ok(piece)
    }

    /// What is still held back, with replacement characters for what stays open.
    pub(super) fn finish(&mut self) -> Result<String, String> {
        let piece = self.pending()?;
        self.told = self.tokens.len();
        Ok(piece)
    }

    fn pending(&self) -> Result<String, String> {
        let before = self.decode(&self.tokens[..self.told])?;
        let all = self.decode(&self.tokens)?;
        Ok(all.get(before.len()..).unwrap_or_default().to_owned())
    }

    fn decode(&self, tokens: &[u32]) -> Result<String, String> {
        self.tokenizer
            .decode(tokens, true)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::byte_tokenizer;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_are_whole_characters_and_add_up(text in "\\PC{0,40}") {
            let tokenizer = byte_tokenizer();
            let tokens = tokenizer.encode(text.as_str(), false).unwrap().get_ids().to_vec();
            let mut detokenizer = Detokenizer::new(&tokenizer);
            let mut pieces = String::new();
            for token in tokens {
                let piece = detokenizer.push(token).unwrap();
                prop_assert!(!piece.ends_with(char::REPLACEMENT_CHARACTER));
                pieces.push_str(&piece);
            }
            pieces.push_str(&detokenizer.finish().unwrap());
            prop_assert_eq!(pieces, text);
        }
    }

    #[test]
    fn an_open_character_is_held_back_and_replaced_at_the_end() {
        let tokenizer = byte_tokenizer();
        let tokens = tokenizer.encode("aé", false).unwrap().get_ids().to_vec();
        let mut detokenizer = Detokenizer::new(&tokenizer);
        assert_eq!(detokenizer.push(tokens[0]).unwrap(), "a");
        assert_eq!(detokenizer.push(tokens[1]).unwrap(), "");
        assert_eq!(detokenizer.finish().unwrap(), "\u{fffd}");
    }
}
