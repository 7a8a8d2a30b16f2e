//! Whom the text speaks of, and whom a filter drops.
//!
//! [`Auditor::observe`] counts a document, kept or dropped, into [`Counts`], which are whole numbers in bounded memory: parts
//! of a corpus may be counted apart and merged in any order. [`Auditor::report`] makes of them
//!
//! - **representation**: documents and bytes by language, script, source, domain of the address, and by group, where a
//!   document speaks of a group if one of the words is in it that a [`Lexicon`] gives for the group;
//! - **association** of each group with each attribute: how often a mention of the group has a word of the attribute within
//!   some words, against mentions of the other groups of its axis, as a [log odds ratio](log_odds) with its interval;
//! - **disparate effect** of each filter: the share of a language's, group's … documents that it drops, with
//!   [Wilson's interval](wilson), and how many times the share of all documents that is.
//!
//! Intervals treat mentions, and documents, as independent. Mentions within a document are not, so that the true
//! intervals of associations are wider. A word has several meanings and a group has more words than a lexicon: figures say
//! where to look, not what is just.

mod bounded;
mod counts;
mod interval;
mod lexicon;
mod report;
mod words;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use bounded::Bounded;
pub use counts::{Counts, Dimension, GroupCounts, LanguageCounts, Names, Tally};
pub use interval::{log_odds, wilson};
pub use lexicon::{Lexicon, LexiconError};
pub use report::{Association, Effect, Report, Row};

use lexicon::Compiled;

/// How an audit counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Files with lexicons, one a language, in place of those that come with the program. Default: none.
    pub lexicons: Vec<PathBuf>,
    /// How many words before and after the mention of a group are near it. Default: 10, as in Bordia and Bowman, "Identifying
    /// and reducing gender bias in word-level language models" (2019), who count within 10 words too.
    pub window_words: u64,
    /// Names with fewer documents than this are left out of the effects of filters. Default: 30, our choice: below that
    /// intervals are too wide to say anything.
    pub min_documents: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            lexicons: Vec::new(),
            window_words: 10,
            min_documents: 30,
        }
    }
}

impl Settings {
    /// Whether every value is within its bounds.
    ///
    /// # Errors
    /// Names the field, its value and the bound.
    pub fn check(&self) -> Result<(), String> {
        if (1..=100).contains(&self.window_words) {
            return Ok(());
        }
        Err(format!(
            "window_words = {}: must be from 1 to 100",
            self.window_words
        ))
    }
}

/// A document as an audit sees it.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The text.
    pub text: &'a str,
    /// The language that was identified, in ISO 639-3.
    pub language: Option<&'a str>,
    /// The script of most of its letters, in ISO 15924.
    pub script: Option<&'a str>,
    /// The source's name in the spec.
    pub source: &'a str,
    /// Its address, if it has one.
    pub url: Option<&'a str>,
    /// The reason's code, if a filter dropped it.
    pub dropped: Option<&'a str>,
}

/// Counts documents by the words of lexicons.
#[derive(Clone, Debug)]
pub struct Auditor {
    settings: Settings,
    lexicons: BTreeMap<&'static str, Compiled>,
}

impl Auditor {
    /// An auditor with these lexicons, each with a name for errors, one a language.
    ///
    /// # Errors
    /// If a lexicon cannot be used.
    pub fn new(settings: Settings, given: &[(String, Lexicon)]) -> Result<Self, LexiconError> {
        let mut lexicons = BTreeMap::new();
        for (name, lexicon) in given {
            let compiled = Compiled::new(name, lexicon)?;
            let language = compiled.language;
            if lexicons.insert(language, compiled).is_some() {
                return Err(LexiconError::Twice {
                    name: name.clone(),
                    language: language.to_owned(),
                });
            }
        }
        Ok(Self { settings, lexicons })
    }
}
