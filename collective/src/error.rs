//! What can go wrong, and what to do about it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::{Epoch, Rank, Step};

use crate::frame::FrameError;

/// Why an operation gave no result. What it had written to its output is then to be thrown away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CollectiveError {
    /// A newer epoch was raised.
    #[error("epoch {epoch} was superseded by epoch {by}: enter it and run the operation again")]
    Superseded {
        /// The epoch of the operation.
        epoch: Epoch,
        /// The epoch raised.
        by: Epoch,
    },
    /// A connection to or from a member broke.
    #[error("lost rank {rank} (`{identity}`): {reason}; wait for the next epoch and enter it")]
    PeerLost {
        /// Its rank in the epoch of the operation.
        rank: Rank,
        /// Who it was.
        identity: String,
        /// What was seen.
        reason: LossReason,
    },
    /// What one follows came to an end.
    #[error("lost the donor `{donor}`: {reason}; follow another member, or this one again")]
    DonorLost {
        /// Who it was.
        donor: String,
        /// What was seen.
        reason: LossReason,
    },
    /// Members neither answered nor broke their connections for too long.
    #[error("nothing from ranks {waiting:?} for {after:?}: see whether they hang, or raise the time-out")]
    TimedOut {
        /// How long nothing came.
        after: Duration,
        /// The ranks of which something is missing.
        waiting: Vec<Rank>,
    },
    /// A member sent what cannot be part of this operation.
    #[error("rank {rank} is running another operation: {what}; all members must pass the same arguments")]
    Disagreement {
        /// The member.
        rank: Rank,
        /// What it sent.
        what: String,
    },
    /// No group was entered yet.
    #[error("no group was entered: call `enter` first")]
    NotEntered,
    /// The group cannot be entered.
    #[error("cannot enter epoch {epoch}: {problem}")]
    InvalidGroup {
        /// The epoch of the group.
        epoch: Epoch,
        /// What is wrong with it.
        problem: String,
    },
    /// The operation was run before in this epoch; frames of the two could be taken for each other.
    #[error(
        "bucket {bucket} of step {step} of epoch {epoch} was reduced before, or a later one was: enter a new epoch to run it again"
    )]
    AlreadyRun {
        /// The epoch of the operation.
        epoch: Epoch,
        /// The step given.
        step: Step,
        /// The bucket given.
        bucket: u32,
    },
    /// The partials are not those of the assignment.
    #[error(
        "partials at {held:?} where the assignment has {expected:?}: compute the missing lanes, or clear"
    )]
    WrongPartials {
        /// The nodes held.
        held: Vec<Node>,
        /// The nodes that the assignment gives to this rank.
        expected: Vec<Node>,
    },
    /// Arguments that do not fit together.
    #[error("{argument}: {problem}")]
    Argument {
        /// The argument.
        argument: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The endpoint is being closed.
    #[error("the endpoint is closed")]
    Closed,
    /// The system refused a socket or a thread.
    #[error("{verb}: {kind}")]
    System {
        /// What was tried.
        verb: String,
        /// The system's answer.
        kind: io::ErrorKind,
    },
}

/// What was seen of a member that was lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LossReason {
    /// It could not be connected to.
    #[error("connect to {address}: {kind}")]
    Connect {
        /// Where it should listen.
        address: SocketAddr,
        /// The system's answer.
        kind: io::ErrorKind,
    },
    /// It closed the connection between two frames.
    #[error("it closed the connection")]
    Closed,
    /// The connection ended within a frame.
    #[error("the connection ended within a frame")]
    Truncated,
    /// The connection failed.
    #[error("the connection failed: {0}")]
    Io(io::ErrorKind),
    /// It sent a frame that fails its checks.
    #[error("it sent a bad frame: {0}")]
    Frame(#[from] FrameError),
    /// It wrote to a connection on which it only reads.
    #[error("it wrote to a one-way connection")]
    Talkback,
    /// It gave no sign of life.
    #[error("it said nothing for {after:?}")]
    Silent {
        /// How long.
        after: Duration,
    },
    /// It takes no follower, or not this one.
    #[error("it refused: {0}")]
    Refused(String),
    /// It has entered a newer epoch, of which this endpoint is no member.
    #[error("it went on to epoch {0} without us")]
    Left(Epoch),
}

/// A member of the current group was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLost {
    /// The epoch in which it was noticed.
    pub epoch: Epoch,
    /// Its rank in that epoch.
    pub rank: Rank,
    /// Who it was.
    pub identity: String,
    /// What was seen.
    pub reason: LossReason,
}

impl From<PeerLost> for CollectiveError {
    fn from(
        PeerLost {
            rank,
            identity,
            reason,
            ..
        }: PeerLost,
    ) -> Self {
        Self::PeerLost {
            rank,
            identity,
            reason,
        }
    }
}
