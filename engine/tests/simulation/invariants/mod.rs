//! What must hold whatever happens; one invariant a file.

mod checkpoints;
mod digests;
mod fences;
mod lineage;
mod minimum;
mod orphans;
mod progress;
pub(crate) mod promptness;
mod quarantine;
mod samples;
mod size;

use std::cell::Cell;
use std::collections::BTreeSet;

use crate::plan::Plan;

/// What the invariants remember.
pub(crate) struct Watch {
    pub(crate) digests: digests::Digests,
    pub(crate) lineage: lineage::Lineage,
    pub(crate) progress: progress::Progress,
    /// Slots whose results or weights were made wrong, and how often that happened.
    pub(crate) really_wrong: BTreeSet<usize>,
    pub(crate) wrongs: u64,
    /// Until then something else than a death may hold a coordinator up.
    trouble_until: u64,
}

impl Watch {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            digests: digests::Digests::default(),
            lineage: lineage::Lineage::new(plan),
            progress: progress::Progress::default(),
            really_wrong: BTreeSet::new(),
            wrongs: 0,
            trouble_until: 0,
        }
    }

    /// A coordinator, its store or its network is disturbed until then.
    pub(crate) fn trouble(&mut self, until: u64) {
        self.trouble_until = self.trouble_until.max(until);
    }
}

thread_local! {
    static PLANTED: Cell<&'static str> = const { Cell::new("") };
}

/// A bug of the simulated runtime, planted to see that it is found.
pub(crate) fn plant_here(bug: &'static str) {
    PLANTED.set(bug);
}

/// Whether this bug is planted.
pub(crate) fn planted_here(bug: &str) -> bool {
    PLANTED.get() == bug
}
