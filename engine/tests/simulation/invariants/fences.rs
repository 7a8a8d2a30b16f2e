//! Nothing from an old epoch or an old leader has an effect.

use lockstep_engine::membership::Membership;
use lockstep_engine::rank::Task;

use crate::cluster::World;

impl World {
    /// An epoch is announced once, and only when it is stored.
    pub(crate) fn check_announced(&mut self, membership: &Membership) {
        let epoch = membership.epoch;
        if epoch > self.store.epoch() {
            self.violated(format!("epoch {epoch} is announced before it is stored"));
        }
        if !self.watch.digests.announced(membership) {
            self.violated(format!("epoch {epoch} is announced twice"));
        }
        self.check_size(membership);
        self.watch.lineage.skipped(membership);
    }

    /// A rank begins nothing for an epoch lower than the highest that it has heard of.
    pub(crate) fn check_task(&mut self, slot: usize, task: &Task) {
        let Some(run) = self.run_of(slot) else { return };
        let fence = run.fence;
        let epoch = match task {
            Task::Enter { membership, .. } => membership.epoch,
            Task::Follow { epoch, .. } | Task::Reduce { epoch, .. } => *epoch,
            _ => return,
        };
        if epoch < fence {
            self.violated(format!(
                "slot {slot} begins {task:?}, but has heard of epoch {fence}"
            ));
        }
    }
}
