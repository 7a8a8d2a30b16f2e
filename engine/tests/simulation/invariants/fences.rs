//! Nothing from an old epoch or an old leader has an effect.

use lockstep_engine::membership::{Membership, Source};
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
        let sources = &membership.sources;
        let peer = sources.iter().any(|source| matches!(source, Source::Peer(_)));
        let met = [
            ("epochs with a newcomer that follows", peer),
            ("epochs from a checkpoint", sources.contains(&Source::Checkpoint)),
            (
                "epochs with unequal weights",
                membership.weights.windows(2).any(|pair| pair[0] != pair[1]),
            ),
            ("epochs that compute a step anew", membership.recompute),
            ("epochs after skipped steps", membership.state < membership.base),
        ];
        for (what, _) in met.into_iter().filter(|(_, met)| *met) {
            self.count(what);
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
