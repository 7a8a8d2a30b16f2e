//! A rank's machine: what it holds, what it was told, and therefore what it does next.
//!
//! The runtime executes one [`Task`] at a time and reports its end; messages from the coordinator may come at
//! any moment. After each, [`RankMachine::step`] compares what is wanted with what is there and says what to do.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::RankMachine;

use std::collections::BTreeSet;

use crate::ids::{Epoch, Lane, Rank, Step, WorkerId};
use crate::membership::{Membership, Source};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The coordinator announced an epoch.
    Announced(Membership),
    /// The coordinator raised the epoch, but there are too few workers to go on.
    Held {
        /// The new fence.
        epoch: Epoch,
        /// Whether the state counts as lost everywhere, so that all begin again from checkpoints.
        forget: bool,
    },
    /// The coordinator committed a step.
    Committed {
        /// In which epoch.
        epoch: Epoch,
        /// Which.
        step: Step,
        /// Whether the next step begins in another epoch, which is about to be announced.
        ends_epoch: bool,
        /// The ledger is safe on disk up to here.
        recorded: Step,
    },
    /// The task that was under way ended.
    Ended(TaskEnd),
    /// The data plane lost a member while nothing waited for it.
    PeerLost {
        /// In which epoch.
        epoch: Epoch,
        /// Whom.
        peer: WorkerId,
        /// How it is known.
        reason: String,
    },
}

/// Work for the runtime; one at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Task {
    /// Connect the data plane to the members of this epoch, and throw away all partials but those of these lanes.
    Enter {
        /// The epoch.
        membership: Membership,
        /// Lanes that are computed and stay this rank's.
        keep: BTreeSet<Lane>,
    },
    /// Come by the state of `step` from `source`.
    Acquire {
        /// The epoch's base.
        step: Step,
        /// From where.
        source: Source,
    },
    /// Send the state of `step` to these ranks.
    Donate {
        /// The epoch's base.
        step: Step,
        /// To whom.
        to: Vec<Rank>,
    },
    /// Run the microbatches of one lane and fold its gradient into the partials.
    Compute {
        /// Of which step.
        step: Step,
        /// Which.
        lane: Lane,
    },
    /// Exchange partials until the whole reduced gradient of `step` is here.
    Reduce {
        /// In which epoch.
        epoch: Epoch,
        /// Of which step.
        step: Step,
    },
    /// Apply the reduced gradient, which is committed, and forget the partials.
    Apply {
        /// Which step.
        step: Step,
    },
    /// Write the state as a checkpoint.
    Checkpoint {
        /// Which step it is of.
        step: Step,
    },
    /// The last step is applied: digest the weights; the first rank also evaluates.
    Finish {
        /// Whether to evaluate.
        evaluate: bool,
    },
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq)]
pub enum TaskEnd {
    /// As it should.
    Done,
    /// The reduced gradient is here; it waits for the verdict.
    Reduced {
        /// Digest of the reduced gradient and loss.
        digest: String,
        /// The step's mean loss.
        loss: f32,
    },
    /// A newer epoch overtook it.
    Superseded,
    /// A peer was lost on the way.
    PeerLost {
        /// Whom.
        peer: WorkerId,
        /// How it is known.
        reason: String,
    },
    /// It failed for good; another process would fail as well.
    Failed(String),
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// At once, while a task may be running: void everything below this epoch on the data plane.
    Raise(Epoch),
    /// Begin this task.
    Run(Task),
    /// Say anew that this worker is ready, after looking for checkpoints.
    Ready,
    /// Tell the coordinator.
    Tell(Word),
}

/// A rank's word to the coordinator; the runtime adds results that the machine does not need.
#[derive(Clone, Debug, PartialEq)]
pub enum Word {
    /// It has the state of the epoch's base.
    Holding {
        /// In which epoch.
        epoch: Epoch,
    },
    /// It holds the reduced gradient of a step, computed with these lanes of its own.
    Reduced {
        /// In which epoch.
        epoch: Epoch,
        /// Which step.
        step: Step,
        /// As the task's end said.
        digest: String,
        /// As the task's end said.
        loss: f32,
        /// The lanes that it computed.
        lanes: Vec<Lane>,
    },
    /// It lost a member.
    PeerLost {
        /// In which epoch.
        epoch: Epoch,
        /// Whom.
        peer: WorkerId,
        /// How it is known.
        reason: String,
    },
    /// A checkpoint is complete.
    CheckpointWritten {
        /// Of which step.
        step: Step,
    },
    /// It has done its part of the ending.
    Finished {
        /// In which epoch.
        epoch: Epoch,
    },
    /// It cannot go on.
    Fatal(String),
}
