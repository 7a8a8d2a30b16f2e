//! A rank's machine: what it holds, what it was told, and therefore what it does next.
//!
//! The runtime executes one [`Task`] at a time and reports its end; messages from the coordinator may come at
//! any moment. After each, [`RankMachine::step`] compares what is wanted with what is there and says what to do.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::RankMachine;

use std::collections::BTreeSet;
use std::time::Duration;

use crate::ids::{Epoch, Lane, Step, WorkerId};
use crate::membership::{Member, Membership, Source};

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
    Committed(Verdict),
    /// Not a member yet, or no longer: be where `donor` is, and stay there.
    Follow {
        /// The epoch in which it was said.
        epoch: Epoch,
        /// Whose feed to take.
        donor: Member,
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

/// A committed step, as a member hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// In which epoch.
    pub epoch: Epoch,
    /// Which.
    pub step: Step,
    /// Whether its gradient is thrown away: the step counts, the weights stay.
    pub skip: bool,
    /// Whether the next step begins in another epoch, which is about to be announced.
    pub ends_epoch: bool,
    /// Whether to take a snapshot for a checkpoint once it is applied.
    pub snapshot: bool,
    /// The ledger is safe on disk up to here: what is known of these steps need not be kept.
    pub recorded: Step,
}

/// One member's part of a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Of which step.
    pub step: Step,
    /// In which epoch the parts were given out: two attempts at one step do not mix.
    pub epoch: Epoch,
    /// Which part, counted from 0: the member's rank in that epoch.
    pub shard: u32,
    /// Of how many.
    pub of: u32,
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
    /// Come by the state of `step` from the seed or a checkpoint.
    Acquire {
        /// Which.
        step: Step,
        /// From where; never from a peer.
        source: Source,
    },
    /// Take the next thing that the donor's feed gives, its state or a step's reduced gradient, and be one step or more
    /// further. The feed stays open over several of these, and over epochs.
    Follow {
        /// The epoch in which it was begun; a higher one overtakes it.
        epoch: Epoch,
        /// Whose feed.
        donor: Member,
    },
    /// All steps up to this one were skipped: the state is the same under a new number.
    Skip {
        /// The last of them.
        to: Step,
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
    /// Apply the reduced gradient, which is committed, unless it is to be thrown away; and forget the partials.
    Apply {
        /// Which step.
        step: Step,
        /// Whether to throw the gradient away.
        skip: bool,
    },
    /// Copy this member's part of the state for a checkpoint, and have it written while training goes on.
    Snapshot(Snapshot),
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
    /// A lane is computed.
    Computed {
        /// What it took.
        took: Duration,
    },
    /// The state is the donor's of this step.
    Followed {
        /// Which.
        step: Step,
    },
    /// The reduced gradient is here; it waits for the verdict.
    Reduced(Reduced),
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

/// What a member knows of a step that it has reduced.
#[derive(Clone, Debug, PartialEq)]
pub struct Reduced {
    /// Digest of the reduced gradient and loss.
    pub digest: String,
    /// The step's mean loss, in nats a token.
    pub loss: f32,
    /// Whether the gradient has neither infinities nor NaNs.
    pub finite: bool,
    /// Digest of the weights before the step, in steps in which members compare them.
    pub weights: Option<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// At once, while a task may be running: void everything below this epoch on the data plane, and end a task of a
    /// lower one that waits for others.
    Raise(Epoch),
    /// Begin this task.
    Run(Task),
    /// Say anew that this worker is ready, after looking for checkpoints. If it holds nothing any more, the runtime
    /// forgets the state too, and with it what the task under way will bring.
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
    /// Not a member, it has the state of this step, and stays with its donor.
    Following {
        /// Which.
        step: Step,
    },
    /// All its lanes of a step are computed.
    Computed {
        /// In which epoch.
        epoch: Epoch,
        /// Which step.
        step: Step,
        /// Lanes that it computed in this epoch, and what they took.
        lanes: u32,
        /// The sum over those lanes.
        took: Duration,
    },
    /// It holds the reduced gradient of a step, computed with these lanes of its own.
    Reduced {
        /// In which epoch.
        epoch: Epoch,
        /// Which step.
        step: Step,
        /// What came out.
        result: Reduced,
        /// The lanes that it computed.
        lanes: Vec<Lane>,
    },
    /// It lost a member, or its donor.
    PeerLost {
        /// In which epoch.
        epoch: Epoch,
        /// Whom.
        peer: WorkerId,
        /// How it is known.
        reason: String,
    },
    /// It has done its part of the ending.
    Finished {
        /// In which epoch.
        epoch: Epoch,
    },
    /// It cannot go on.
    Fatal(String),
}
