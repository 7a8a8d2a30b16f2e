//! What counts as contaminated, and what happens to it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What happens to a document that holds an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// The document is dropped.
    Drop,
    /// What overlaps is cut out, with a margin.
    Cut,
    /// It is counted, and stays.
    Tag,
}

/// The table `decontaminate` of a spec.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Words of an n-gram. Default: 13 (GPT-3, arXiv:2005.14165, appendix C). PaLM (arXiv:2204.02311, section 8) takes 8
    /// together with `min_share = 0.7`.
    pub ngram: usize,
    /// The share of an item's n-grams from which on a document holds it, from 0 to 1; one n-gram is always needed.
    /// Default: 0, one is enough (GPT-3).
    pub min_share: f64,
    /// Items of fewer words than `ngram` are looked for whole, if they have at least this many: shorter ones stand
    /// everywhere. Default: 5.
    pub min_words: usize,
    /// An n-gram that more items have than this is a form that questions are put in, and is not looked for. Default: 100.
    pub max_items: u32,
    /// What happens to a document that holds an item. Default: `drop`.
    pub policy: Policy,
    /// Characters that `cut` takes on either side of what overlaps. Default: 200 (GPT-3).
    pub margin_chars: usize,
    /// Fields of an item that are looked for, each on its own. Default: the usual names of questions and their texts.
    pub fields: Vec<String>,
    /// Bytes of memory that the index may take. Default: 1 GiB.
    pub max_index_bytes: usize,
    /// The sets by name: a file of JSON lines each.
    pub sets: BTreeMap<String, PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        let fields = [
            "question",
            "text",
            "prompt",
            "query",
            "input",
            "instruction",
            "problem",
            "passage",
            "sentence",
            "ctx",
        ];
        Self {
            ngram: 13,
            min_share: 0.0,
            min_words: 5,
            max_items: 100,
            policy: Policy::Drop,
            margin_chars: 200,
            fields: fields.map(str::to_owned).to_vec(),
            max_index_bytes: 1 << 30,
            sets: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// Names the field, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        if !(2..=64).contains(&self.ngram) {
            return Err(format!(
                "decontaminate.ngram = {}: must be from 2 to 64",
                self.ngram
            ));
        }
        if !(0.0..=1.0).contains(&self.min_share) {
            return Err(format!(
                "decontaminate.min_share = {}: must be from 0 to 1",
                self.min_share
            ));
        }
        if !(1..=self.ngram).contains(&self.min_words) {
            return Err(format!(
                "decontaminate.min_words = {}: must be from 1 to ngram = {}",
                self.min_words, self.ngram
            ));
        }
        if self.max_items == 0 {
            return Err("decontaminate.max_items = 0: must be at least 1".to_owned());
        }
        if self.fields.is_empty() {
            return Err("decontaminate.fields = []: must name at least one field".to_owned());
        }
        Ok(())
    }
}
