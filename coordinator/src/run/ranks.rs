//! The streams down to a job's processes.

use std::collections::BTreeMap;

use lockstep_engine::ids::{NodeId, WorkerId};
use lockstep_engine::placement::Slot;
use lockstep_proto::wire;

use super::RankSender;

/// With the number of the stream that counts.
#[derive(Default)]
pub(super) struct Ranks(BTreeMap<WorkerId, (u64, RankSender)>);

impl Ranks {
    pub(super) fn insert(&mut self, worker: WorkerId, connection: u64, down: RankSender) {
        self.0.insert(worker, (connection, down));
    }

    pub(super) fn remove(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is the stream that counts of a worker.
    pub(super) fn counts(&self, worker: &WorkerId, connection: u64) -> bool {
        self.0.get(worker).is_none_or(|(counts, _)| *counts == connection)
    }

    /// Whether the stream of one in this slot is open.
    pub(super) fn any_in(&self, slot: &Slot) -> bool {
        let there = |worker: &WorkerId| worker.node == slot.node && worker.slot == slot.slot;
        self.0.keys().any(there)
    }

    /// Those on a machine whose streams are open.
    pub(super) fn on(&self, node: &NodeId) -> Vec<WorkerId> {
        let on_it = self.0.keys().filter(|worker| worker.node == *node);
        on_it.cloned().collect()
    }

    pub(super) fn send(&mut self, worker: &WorkerId, what: wire::rank_down::What) {
        let Some((_, down)) = self.0.get(worker) else {
            return;
        };
        if down.try_send(Ok(wire::RankDown { what: Some(what) })).is_err() {
            // Closed, or so far behind that it counts as dead: its stream ends, and the machine will hear of it.
            self.0.remove(worker);
        }
    }

    pub(super) fn send_all(&mut self, what: &wire::rank_down::What) {
        for worker in self.0.keys().cloned().collect::<Vec<_>>() {
            self.send(&worker, what.clone());
        }
    }
}
