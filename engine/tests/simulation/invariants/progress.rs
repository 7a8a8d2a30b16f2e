//! Once faults are over, it makes progress within [`BOUND`].

use crate::cluster::{What, World};
use crate::faults::CALM;
use crate::plan::MS;

/// The last fault that lasts is over by then.
const OVER: u64 = CALM + 1000 * MS;
/// Without faults, a step is recorded within so long: several leases, a restart, and some slow lanes.
const BOUND: u64 = 5000 * MS;
/// No run takes longer.
const END: u64 = 90_000 * MS;

#[derive(Default)]
pub(crate) struct Progress {
    last: u64,
}

impl World {
    /// A step was recorded.
    pub(crate) fn progressed(&mut self) {
        self.watch.progress.last = self.now;
    }

    pub(crate) fn check_progress(&mut self) {
        let since = self.watch.progress.last.max(OVER);
        if self.now > since + BOUND || self.now > END {
            let phases: Vec<String> = (0..self.coordinators.len())
                .filter_map(|index| self.leader(index).map(|leader| format!("{:?}", leader.job)))
                .collect();
            self.violated(format!("no progress since {} ms: {phases:?}", since / MS));
        }
        self.at(self.now + 250 * MS, What::Progress);
    }
}
