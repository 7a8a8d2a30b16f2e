//! Whether [`Encoder`] gives the ids that a `tokenizer.json` asks for.

use std::collections::{HashMap, HashSet};

use aho_corasick::AhoCorasick;
use serde::Deserialize;
use tokenizers::pre_tokenizers::split::SplitPattern;
use tokenizers::{
    ModelWrapper, PostProcessorWrapper, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer,
};

use super::bytes::{bytes_of, char_of};
use super::encoder::Encoder;
use super::merges::{Merge, Merges};
use super::words::Pattern;

/// The encoder of a `tokenizer.json`, which the crate has read as `tokenizer`.
///
/// # Errors
/// In words, what it asks for that the encoder does not do.
pub(super) fn encoder(json: &str, tokenizer: &Tokenizer) -> Result<Encoder, String> {
    let ModelWrapper::BPE(model) = tokenizer.get_model() else {
        return Err("its model is not BPE".to_owned());
    };
    if tokenizer.get_normalizer().is_some() {
        return Err("it normalizes text".to_owned());
    }
    let pattern = pattern(tokenizer.get_pre_tokenizer())
        .ok_or("it does not cut text as GPT-2, Llama 3 or Qwen 2 do, with bytes as characters")?;
    if !tokenizer.get_post_processor().is_none_or(keeps_tokens) {
        return Err("its post-processor is not known".to_owned());
    }
    if model.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err("its model drops merges at random".to_owned());
    }
    let affixes = [&model.continuing_subword_prefix, &model.end_of_word_suffix];
    if affixes.into_iter().flatten().any(|affix| !affix.is_empty()) {
        return Err("its model marks the parts of words".to_owned());
    }
    let vocabulary = model.get_vocab();
    let ids: HashSet<u32> = vocabulary.values().copied().collect();
    if ids.len() != vocabulary.len() || ids.contains(&u32::MAX) {
        return Err("its tokens do not all have an id of their own".to_owned());
    }
    let merges = merges(json, &vocabulary)?;
    let whole = if model.ignore_merges {
        vocabulary
            .iter()
            .filter_map(|(token, id)| Some((bytes_of(token)?, *id)))
            .collect()
    } else {
        HashMap::new()
    };
    Ok(Encoder::new(pattern, merges, whole))
}

/// What finds the tokens that `tokenizer` adds to its model's and finds in text, if it does. Special tokens it
/// does not find: text that spells one is text.
///
/// # Errors
/// If they are too many.
pub(super) fn added_tokens(tokenizer: &Tokenizer) -> Result<Option<AhoCorasick>, String> {
    let added = tokenizer.get_added_tokens_decoder();
    let mut found: Vec<&str> = added
        .values()
        .filter(|token| !token.special)
        .map(|token| token.content.as_str())
        .collect();
    found.sort_unstable();
    if found.is_empty() {
        return Ok(None);
    }
    AhoCorasick::new(found)
        .map(Some)
        .map_err(|error| error.to_string())
}

fn pattern(step: Option<&PreTokenizerWrapper>) -> Option<Pattern> {
    match step? {
        PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex && !bytes.add_prefix_space => {
            Some(Pattern::Gpt2)
        }
        PreTokenizerWrapper::Sequence(steps) => {
            let [
                PreTokenizerWrapper::Split(split),
                PreTokenizerWrapper::ByteLevel(bytes),
            ] = steps.as_ref()
            else {
                return None;
            };
            let SplitPattern::Regex(regex) = &split.pattern else {
                return None;
            };
            let plain = split.behavior == SplitDelimiterBehavior::Isolated
                && !split.invert
                && !bytes.use_regex
                && !bytes.add_prefix_space;
            Pattern::ALL
                .into_iter()
                .find(|pattern| plain && pattern.regex() == regex)
        }
        _ => None,
    }
}

/// Whether a post-processor leaves tokens as they are where no special ones are asked for.
fn keeps_tokens(processor: &PostProcessorWrapper) -> bool {
    match processor {
        PostProcessorWrapper::ByteLevel(_)
        | PostProcessorWrapper::Bert(_)
        | PostProcessorWrapper::Roberta(_) => true,
        PostProcessorWrapper::Template(template) => {
            let template = serde_json::to_value(template).unwrap_or_default();
            let pieces = template["single"].as_array();
            let texts = pieces.map(|pieces| {
                pieces
                    .iter()
                    .filter_map(|piece| piece.get("Sequence"))
                    .map(|text| text["id"] == "A")
                    .collect()
            });
            texts == Some(vec![true])
        }
        PostProcessorWrapper::Sequence(processors) => processors.as_ref().iter().all(keeps_tokens),
    }
}

/// The merges, which the crate keeps to itself.
fn merges(json: &str, vocabulary: &HashMap<String, u32>) -> Result<Merges, String> {
    #[derive(Deserialize)]
    struct Config {
        model: Model,
    }
    #[derive(Deserialize)]
    struct Model {
        merges: Vec<Pair>,
    }
    /// A merge, in either way that it is written.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pair {
        Two(String, String),
        Spaced(String),
    }

    let config: Config = serde_json::from_str(json).map_err(|error| error.to_string())?;
    let merges = config
        .model
        .merges
        .iter()
        .filter_map(|pair| match pair {
            Pair::Two(left, right) => Some((left.as_str(), right.as_str())),
            Pair::Spaced(line) if line.starts_with("#version") => None,
            Pair::Spaced(line) => Some(line.split_once(' ').unwrap_or((line, ""))),
        })
        .map(|(left, right)| {
            Some(Merge {
                left: *vocabulary.get(left)?,
                right: *vocabulary.get(right)?,
                made: *vocabulary.get(&[left, right].concat())?,
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or("a merge has no token")?;
    let mut bytes = [0; 256];
    for (byte, id) in (0..=255).zip(&mut bytes) {
        let token = char_of(byte).to_string();
        *id = *vocabulary
            .get(&token)
            .ok_or_else(|| format!("byte {byte} has no token"))?;
    }
    Ok(Merges::new(bytes, &merges))
}
