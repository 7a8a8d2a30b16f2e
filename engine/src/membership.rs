//! Who takes part in an epoch, who computes what in its first step, and where each gets its state.

use std::net::SocketAddr;

use crate::geometry::Assignment;
use crate::ids::{Epoch, Rank, Step, WorkerId};

/// A worker and where its data plane listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub worker: WorkerId,
    /// Where peers send partials and results.
    pub address: SocketAddr,
}

/// How a member comes by the state of the epoch's base step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It holds it already.
    Held,
    /// From the seed: the base is step 0.
    Seed,
    /// From the checkpoint of the base step.
    Checkpoint,
    /// From the feed of the member of this rank, which holds it or reads it from the checkpoint.
    Peer(Rank),
}

/// One epoch of a job, as announced to its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The fence: whatever carries a lower one is void.
    pub epoch: Epoch,
    /// The last committed step. The epoch begins with the one after it.
    pub base: Step,
    /// The step whose state the members need. Those from the one after it to `base` were skipped: they change nothing
    /// but the step's number. Nearly always `base` itself.
    pub state: Step,
    /// Sorted by worker; a member's rank is its index.
    pub members: Vec<Member>,
    /// One source a member.
    pub sources: Vec<Source>,
    /// How fast each member is, relative to the others: one weight a member, at least 1.
    pub weights: Vec<u32>,
    /// Who computes which lane of the first step. Later steps of the epoch use [`Assignment::weighted`].
    pub first: Assignment,
    /// Whether partials of the step in flight are to be thrown away and computed again.
    pub recompute: bool,
    /// Whether the members are to take a snapshot of the base for a checkpoint.
    pub snapshot: bool,
}

impl Membership {
    /// The rank of `worker`, if it is a member.
    #[must_use]
    pub fn rank_of(&self, worker: &WorkerId) -> Option<Rank> {
        self.members
            .iter()
            .position(|member| member.worker == *worker)
            .map(|rank| Rank(rank as u32))
    }

    /// Who computes which lane of `step` in this epoch.
    #[must_use]
    pub fn assignment(&self, step: Step) -> Assignment {
        if step == self.base.next() {
            self.first.clone()
        } else {
            Assignment::weighted(self.first.owners().len() as u32, &self.weights)
        }
    }
}
