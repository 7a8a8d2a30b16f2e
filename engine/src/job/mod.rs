//! The coordinator's machine for one job: who is in, which step is in flight, what is committed.
//!
//! [`Job::step`] takes what happened and returns what to do. Commands are to be carried out in order; in
//! particular an epoch is persisted before it is announced. Every decision comes with a [`Command::Note`]
//! that says why, for logs and people.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::Job;

use std::net::SocketAddr;
use std::time::Duration;

use crate::geometry::Geometry;
use crate::ids::{Epoch, Lane, Step, WorkerId};
use crate::ledger::{Entry, Span};
use crate::membership::{Member, Membership};
use crate::plants::{Plant, planted};
use crate::rank::{Reduced, Snapshot, Verdict};

/// What a job's spec fixes for its machine.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Steps to commit.
    pub steps: Step,
    /// How a step is divided.
    pub geometry: Geometry,
    /// Below this the job pauses.
    pub min_workers: u32,
    /// No more than this take part at once.
    pub max_workers: u32,
    /// So many beyond them follow along, to step in at once.
    pub spares: u32,
    /// A worker silent for so long is given up.
    pub lease: Duration,
    /// How long to wait for the rest once `min_workers` are there, before the first epoch.
    pub gather: Duration,
    /// A checkpoint is due every so many steps, besides at the end; 0: only then.
    pub checkpoint_every: u64,
    /// What to do about a step that would do harm.
    pub guard: Guard,
    /// Faults to inject.
    pub kills: Vec<Kill>,
}

/// When a step is bad, and what is done about it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Guard {
    /// The policy.
    pub policy: BadStep,
    /// A loss above so many times the median of those of the last good steps is a spike; 0: never.
    pub spike_factor: f32,
}

/// What to do about a step whose loss or gradient is not finite, or whose loss is a spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BadStep {
    /// End the job.
    Stop,
    /// Throw its gradient away, and go on with the next one.
    Skip,
    /// Go back to the last state for which a checkpoint was due, and go on after the bad step without the steps between.
    Rollback,
}

/// What the ledger says of the steps so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Past {
    /// The loss of each committed step, from the first on; NaN for those that were skipped.
    pub losses: Vec<f32>,
    /// The last epoch in which the job went back and steps were skipped unseen: states from before it are of steps that
    /// do not count any more, though their numbers do.
    pub fence: Epoch,
}

impl Past {
    /// From the ledger's entries, in order. Of a run of steps that were skipped unseen, of which the last is not there,
    /// none counts: whoever wrote them died on the way, and others will come to the same end.
    #[must_use]
    pub fn of<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> Self {
        let mut past = Self::default();
        let mut whole = 0;
        for entry in entries {
            past.losses
                .push(if entry.skipped { f32::NAN } else { entry.loss });
            match entry.unseen_to {
                Some(to) if to > entry.step && !planted(Plant::TornRun) => continue,
                Some(_) => past.fence = past.fence.max(entry.epoch),
                None => {}
            }
            whole = past.losses.len();
        }
        past.losses.truncate(whole);
        past
    }

    /// The last committed step.
    #[must_use]
    pub fn committed(&self) -> Step {
        Step(self.losses.len() as u64)
    }
}

/// A fault to inject: SIGKILL for whoever holds `slot` while `step` is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// The slot, as in `--kill SLOT@STEP`.
    pub slot: u32,
    /// The step that is to be in flight.
    pub step: Step,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// How many workers have been asked for and may be expected soon.
    Expected(u32),
    /// A worker is ready to take part.
    Joined {
        /// Who.
        worker: WorkerId,
        /// Its data plane.
        address: SocketAddr,
        /// The steps whose checkpoints it can read and has verified.
        checkpoints: Vec<Step>,
        /// What it brings along from before it lost its coordinator.
        offer: Option<Offer>,
    },
    /// A worker's connection closed, or its process ended.
    Left {
        /// Who.
        worker: WorkerId,
        /// How it is known.
        reason: String,
    },
    /// A worker says that it is alive.
    Heartbeat(WorkerId),
    /// A member has the state of its epoch's base step.
    Holding {
        /// Who.
        worker: WorkerId,
        /// In which epoch.
        epoch: Epoch,
    },
    /// A worker that is no member has the state of a step, from its donor.
    Following {
        /// Who.
        worker: WorkerId,
        /// Which step.
        step: Step,
    },
    /// A member has computed all its lanes of a step.
    Computed {
        /// Who.
        worker: WorkerId,
        /// In which epoch.
        epoch: Epoch,
        /// Which step.
        step: Step,
        /// Lanes that it computed in this epoch; 0 when it had them all from before.
        lanes: u32,
        /// What they took.
        took: Duration,
    },
    /// A member holds the whole reduced gradient of a step.
    Reduced(Report),
    /// A member lost its connection to another one, or a follower that to its donor.
    PeerLost {
        /// Who says so.
        by: WorkerId,
        /// In which epoch.
        epoch: Epoch,
        /// Of whom.
        peer: WorkerId,
        /// How it is known.
        reason: String,
    },
    /// A member's part of a checkpoint is on disk.
    ShardWritten {
        /// Who wrote it.
        worker: WorkerId,
        /// Which step, attempt and part.
        snapshot: Snapshot,
        /// What the manifest is to say of it; only ranks read it.
        record: String,
    },
    /// A member's part of a checkpoint, or its manifest, cannot be written.
    CheckpointFailed {
        /// Who.
        worker: WorkerId,
        /// Of which step.
        step: Step,
        /// Why, and what to do.
        reason: String,
    },
    /// A checkpoint is complete on disk.
    CheckpointWritten {
        /// Who sealed it.
        worker: WorkerId,
        /// Of which step.
        step: Step,
        /// Digest of its weights.
        weights: String,
    },
    /// All ledger entries up to this step are safe on disk.
    Recorded {
        /// Of the step's entry.
        epoch: Epoch,
        /// Which.
        step: Step,
    },
    /// A member has applied the last step and done its part of the ending.
    Finished {
        /// Who.
        worker: WorkerId,
        /// In which epoch.
        epoch: Epoch,
        /// Digest of its final weights.
        weights: String,
    },
    /// A worker cannot go on, for a reason that another process would meet as well.
    Fatal {
        /// Who.
        worker: WorkerId,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The worker's node is wanted for something else: it is to leave at the next boundary at which it can be spared.
    Drain(WorkerId),
    /// A person asked for the end.
    Cancel,
    /// Nothing but time passed.
    Tick,
}

/// What a worker kept while it had no coordinator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// The highest epoch that it has heard of.
    pub epoch: Epoch,
    /// The step whose state it has, or is about to have because its commit was already told.
    pub held: Step,
    /// The lanes of the step after it that are computed.
    pub lanes: Vec<Lane>,
    /// The members that it knew last: whom to wait for.
    pub members: Vec<WorkerId>,
    /// Committed steps that no coordinator has confirmed as recorded, in order.
    pub entries: Vec<Entry>,
}

/// A member's word on a reduced step.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Who.
    pub worker: WorkerId,
    /// In which epoch.
    pub epoch: Epoch,
    /// Which step.
    pub step: Step,
    /// What came out.
    pub result: Reduced,
    /// What this member's loader gave for the step.
    pub spans: Vec<Span>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Store the epoch, by compare-and-swap, before anything that follows.
    PersistEpoch(Epoch),
    /// Tell every member of it.
    Announce(Membership),
    /// Tell these workers to stop what they do for lower epochs, keep what they have, and wait.
    Hold {
        /// Whom.
        workers: Vec<WorkerId>,
        /// The new fence.
        epoch: Epoch,
        /// Nobody is known to hold the state: forget it, look for checkpoints, and say anew that you are ready.
        forget: bool,
        /// Why.
        reason: String,
    },
    /// Tell these members that the step is committed.
    Commit {
        /// Whom.
        workers: Vec<WorkerId>,
        /// What.
        verdict: Verdict,
    },
    /// Tell this worker, which is no member, to be where `donor` is, and to stay there.
    Follow {
        /// Whom.
        worker: WorkerId,
        /// The epoch in which that is said.
        epoch: Epoch,
        /// Whose feed to take.
        donor: Member,
    },
    /// Tell this worker that all parts of a checkpoint are written: it is to write the manifest.
    Seal {
        /// Whom.
        worker: WorkerId,
        /// Of which step.
        step: Step,
        /// In which epoch the parts were given out.
        epoch: Epoch,
        /// What the manifest is to say of each part, in order.
        shards: Vec<String>,
    },
    /// Tell this worker that it is out, and close its connection.
    Evict {
        /// Whom.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// Its results were wrong twice: place no worker of this job there again.
    Quarantine {
        /// The worker, which stands for its slot.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// Send SIGKILL to this worker's process.
    Kill(WorkerId),
    /// Append to the ledger.
    Record(Entry),
    /// Cut the ledger back: nothing after this step counts any more.
    Truncate(Step),
    /// Store that this checkpoint exists.
    RecordCheckpoint {
        /// Of which step.
        step: Step,
        /// Digest of its weights.
        weights: String,
    },
    /// A recovery is over: the first commit after members were lost.
    Recovered {
        /// From the kill, or else from the moment that the loss was noticed, to the commit.
        took: Duration,
    },
    /// Something that people want to know, with its reason.
    Note {
        /// What it is about.
        kind: NoteKind,
        /// In words.
        text: String,
    },
    /// The job is over; tell these workers to leave.
    End {
        /// Whom.
        workers: Vec<WorkerId>,
        /// How it ended.
        outcome: Outcome,
    },
}

/// What a note is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// A worker came.
    Joined,
    /// A worker went.
    Lost,
    /// The membership changed.
    Epoch,
    /// The job waits for workers.
    Paused,
    /// A fault was injected.
    Killed,
    /// A checkpoint was written.
    Checkpoint,
    /// Training goes on after a loss.
    Recovered,
    /// Members disagreed on a digest.
    Corruption,
    /// A worker is slow.
    Slow,
    /// A step would have done harm.
    BadStep,
    /// A worker leaves because its node is drained.
    Drained,
    /// A build has come to its next phase.
    Phase,
    /// A file cannot be written for now.
    Storage,
    /// The job ended.
    Ended,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are committed; the digest is of the final weights.
    Done {
        /// Over the f32 weights in parameter order.
        weights: String,
    },
    /// It cannot go on.
    Failed(String),
    /// A person ended it.
    Cancelled,
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No worker holds state; waiting for enough of them.
    Gathering,
    /// The step after the last committed one is in flight.
    Stepping,
    /// Too few workers; those there are hold their state.
    Paused,
    /// All steps are committed; members apply the last one, checkpoint and evaluate.
    Finishing,
    /// Over.
    Ended(Outcome),
}
