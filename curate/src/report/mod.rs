//! What a dataset was made of, for people and for programs: `report.html` and `report.json`.

mod bias;
mod chart;
mod html;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub(crate) use html::SCORE_BIN;
pub use html::{count, page};

use crate::build::Share;
use crate::counts::Counts;

/// Everything that the report tells.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The dataset's name.
    pub name: String,
    /// The digest of the dataset, if one was written.
    pub digest: Option<String>,
    /// Stages that ran, in order.
    pub stages: Vec<String>,
    /// What was counted.
    pub counts: Counts,
    /// What the bias audit found.
    pub bias: Option<crate::bias::Report>,
    /// What was found of evaluation sets, if there are any.
    pub contamination: Option<crate::decontaminate::Report>,
    /// Of the dataset, if one was written: documents, bytes and tokens of each split.
    pub splits: Vec<SplitReport>,
    /// How often sources or languages are used, if they are weighed.
    pub epochs: BTreeMap<String, Share>,
    /// What each phase took. Of all that is told, this alone differs from run to run.
    pub phases: Vec<PhaseReport>,
}

/// A split of the dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitReport {
    /// `train` or `validation`.
    pub name: String,
    /// Documents.
    pub documents: u64,
    /// Bytes of text.
    pub bytes: u64,
    /// Tokens, ends of documents among them.
    pub tokens: u64,
}

/// A phase of the build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseReport {
    /// In words.
    pub name: String,
    /// How long it took in the process that ended the build.
    pub seconds: f64,
    /// Bytes of text that it went through; 0 if all was done before.
    pub bytes: u64,
    /// Seconds of work by stage, of all threads, processes and attempts together.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stages: BTreeMap<String, f64>,
}

impl PhaseReport {
    /// MB/s.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.seconds > 0.0 {
            self.bytes as f64 / 1e6 / self.seconds
        } else {
            0.0
        }
    }
}
