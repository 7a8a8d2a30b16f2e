//! Every sample is used exactly once along the committed steps, those that were skipped among them.

use lockstep_engine::ledger::{self, Entry};

use crate::cluster::World;

impl World {
    pub(crate) fn check_samples(&mut self, entry: &Entry) {
        let samples = self.plan.rules.geometry.samples();
        let mut reached = (entry.step.0 - 1) * samples;
        for span in &entry.spans {
            if span.positions.start != reached {
                self.violated(format!(
                    "step {} is recorded with samples {:?}",
                    entry.step, entry.spans
                ));
                return;
            }
            reached = span.positions.end;
        }
        if reached != entry.step.0 * samples {
            self.violated(format!(
                "step {} is recorded with samples up to {reached}",
                entry.step
            ));
        }
    }

    pub(crate) fn check_all_samples(&mut self) {
        let expected = self.plan.rules.steps.0 * self.plan.rules.geometry.samples();
        let audit = ledger::audit(&self.store.ledger, expected);
        if (audit.used, audit.missed, audit.repeated) != (expected, 0, 0) {
            self.violated(format!("of {expected} samples: {audit:?}"));
        }
    }
}
