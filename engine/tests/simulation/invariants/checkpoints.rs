//! A checkpoint that was recorded can be read back, and is the state of its step.

use lockstep_engine::ids::Step;

use crate::cluster::World;

impl World {
    pub(crate) fn check_checkpoint(&mut self, step: Step, weights: &str) {
        let state = self.watch.lineage.state(step);
        match (self.sealed.get(&step), state) {
            (Some(sealed), Some(state)) if *sealed == state && format!("{state:x}") == weights => {}
            (sealed, state) => self.violated(format!(
                "the checkpoint of {step} is recorded as {weights}; on disk {sealed:x?}, by the ledger {state:x?}"
            )),
        }
        self.count("checkpoints recorded");
    }

    pub(crate) fn check_all_checkpoints(&mut self) {
        let recorded: Vec<(Step, String)> = self.store.checkpoints.clone().into_iter().collect();
        for (step, weights) in recorded {
            self.check_checkpoint(step, &weights);
        }
        if !self.store.checkpoints.contains_key(&self.plan.rules.steps) {
            self.violated("it is done without its last checkpoint");
        }
    }
}
