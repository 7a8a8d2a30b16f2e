//! Whoever is quarantined really gave wrong results.

use lockstep_engine::ids::WorkerId;

use crate::cluster::World;

impl World {
    pub(crate) fn check_quarantine(&mut self, worker: &WorkerId) {
        if !self.watch.really_wrong.contains(&(worker.slot as usize)) {
            self.violated(format!("{worker} is quarantined and was never wrong"));
        }
        self.count("quarantines");
    }
}
