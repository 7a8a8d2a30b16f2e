//! What a build reports while it works, and how it is told to stop.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::DataError;

/// A stage of a build, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Every file is read and digested.
    Read,
    /// The tokenizer learns from a sample.
    Tokenizer,
    /// The chosen documents are tokenized and written.
    Tokenize,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Tokenizer => "train the tokenizer",
            Self::Tokenize => "tokenize",
        })
    }
}

/// How far a stage has come. The first report of a stage has 0 done, the last has all done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The stage.
    pub stage: Stage,
    /// Bytes of text done.
    pub done_bytes: u64,
    /// Bytes of text that the stage will have done.
    pub total_bytes: u64,
}

/// Carries progress out of a build and the wish to stop into it.
pub(crate) struct Monitor<'a> {
    report: &'a mut dyn FnMut(Progress),
    cancelled: &'a AtomicBool,
    now: Progress,
}

impl<'a> Monitor<'a> {
    pub(crate) fn new(report: &'a mut dyn FnMut(Progress), cancelled: &'a AtomicBool) -> Self {
        Self {
            report,
            cancelled,
            now: Progress {
                stage: Stage::Read,
                done_bytes: 0,
                total_bytes: 0,
            },
        }
    }

    /// Enters `stage`.
    pub(crate) fn enter(&mut self, stage: Stage, total_bytes: u64) {
        self.now = Progress {
            stage,
            done_bytes: 0,
            total_bytes,
        };
        (self.report)(self.now);
    }

    /// Reports `bytes` more done.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.now.done_bytes += bytes;
        (self.report)(self.now);
    }

    /// What worker threads look at between documents.
    pub(crate) fn stop(&self) -> Stop<'a> {
        Stop(self.cancelled)
    }
}

/// Whether the build was told to stop.
#[derive(Clone, Copy)]
pub(crate) struct Stop<'a>(&'a AtomicBool);

impl Stop<'_> {
    /// An error once the build was told to stop.
    pub(crate) fn check(self) -> Result<(), DataError> {
        if self.0.load(Ordering::Relaxed) {
            Err(DataError::Interrupted)
        } else {
            Ok(())
        }
    }
}
