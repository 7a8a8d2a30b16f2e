//! What the actor is asked and told.

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step, WorkerId};
use lockstep_proto::wire;
use tokio::sync::{broadcast, oneshot};
use tonic::Status;

use crate::nodes::Daemon;
use crate::run::{Heard, RankSender, Run};
use crate::store::StoreError;
use crate::submission::Submission;

/// A job's lines so far, and those to come unless it is over.
pub(crate) type TailParts = (Vec<String>, Option<broadcast::Receiver<String>>);

/// A job now, and its changes unless it is over.
pub(crate) type WatchParts = (wire::Job, Option<broadcast::Receiver<wire::Update>>);

/// What the actor is asked or told.
pub(crate) enum Message {
    Submit(Box<Submission>, oneshot::Sender<Result<wire::Job, Status>>),
    /// A submission is stored, or refused.
    Submitted {
        job: JobId,
        result: Result<Run, Status>,
        reply: oneshot::Sender<Result<wire::Job, Status>>,
    },
    Get(JobId, oneshot::Sender<Option<wire::Job>>),
    List(oneshot::Sender<Vec<wire::Job>>),
    Watch(JobId, oneshot::Sender<Option<WatchParts>>),
    Tail {
        job: JobId,
        logs: bool,
        reply: oneshot::Sender<Option<TailParts>>,
    },
    Cancel(JobId, oneshot::Sender<Option<wire::Job>>),
    Nodes(oneshot::Sender<Vec<wire::Node>>),
    Drain {
        node: NodeId,
        drained: bool,
        reply: oneshot::Sender<Result<wire::Node, Status>>,
    },
    /// It is stored whether a node is drained.
    Drained {
        node: NodeId,
        drained: bool,
        result: Result<(), StoreError>,
        reply: oneshot::Sender<Result<wire::Node, Status>>,
    },
    DaemonConnected {
        node: NodeId,
        daemon: Daemon,
        /// The ranks that it runs.
        running: Vec<(JobId, WorkerId)>,
        reply: oneshot::Sender<Result<(), String>>,
    },
    DaemonHeard {
        node: NodeId,
        connection: u64,
    },
    DaemonGone {
        node: NodeId,
        connection: u64,
    },
    RankExited {
        job: JobId,
        worker: WorkerId,
        how: String,
    },
    LogLine {
        job: JobId,
        worker: String,
        text: String,
    },
    RankConnected {
        job: JobId,
        worker: WorkerId,
        connection: u64,
        down: RankSender,
        reply: oneshot::Sender<Result<(), String>>,
    },
    Heard {
        job: JobId,
        heard: Heard,
    },
    RankGone {
        job: JobId,
        worker: WorkerId,
        connection: u64,
        reason: String,
    },
    /// An epoch is stored, or cannot be.
    Persisted {
        job: JobId,
        epoch: Epoch,
        result: Result<(), StoreError>,
    },
    /// All ledger entries up to this one are safe.
    Recorded {
        job: JobId,
        epoch: Epoch,
        step: Step,
    },
    RecordsFailed {
        job: JobId,
        reason: String,
    },
    /// The store takes nothing for now, and why; or it takes it again.
    StoreAway(Option<String>),
    /// What people want to know of the files in the job's folder.
    StorageNote {
        job: JobId,
        text: String,
    },
    Summarized {
        job: JobId,
        result: Result<serde_json::Value, String>,
    },
}
