//! Documents that hold questions of an evaluation.
//!
//! An [`IndexBuilder`] takes the items of evaluation sets, one JSON object each; the [`Index`] that it makes is shared
//! between threads and scans documents for runs of `ngram` words that an item has too. Words are what GPT-3's
//! decontamination compares: in lower case, without punctuation, split at white space; of scripts without spaces (Han,
//! Kana), each character is a word. Hashes only say where to look: what counts is compared word by word.

mod index;
mod report;
mod scan;
mod settings;
mod words;

pub use index::{Index, IndexBuilder, IndexError};
pub use report::{ItemReport, Report, SetReport};
pub use scan::{Contamination, Match, Scratch};
pub use settings::{Policy, Settings};
