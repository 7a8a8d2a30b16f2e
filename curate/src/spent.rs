//! What time the stages took.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::counts::entry;
use crate::spec::Stage;

/// Seconds of work by stage, in all threads together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Spent(pub(crate) BTreeMap<String, f64>);

impl Spent {
    /// A stage worked since then.
    pub(crate) fn on(&mut self, stage: Stage, since: Instant) {
        *entry(&mut self.0, stage.name()) += since.elapsed().as_secs_f64();
    }

    /// What is left of the time since then counts for this stage.
    pub(crate) fn rest_on(&mut self, stage: Stage, since: Instant) {
        let others: f64 = self.0.values().sum();
        *entry(&mut self.0, stage.name()) += (since.elapsed().as_secs_f64() - others).max(0.0);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (stage, seconds) in &other.0 {
            *entry(&mut self.0, stage) += seconds;
        }
    }
}
