//! A thread that owns device, data and data plane, and runs one task at a time.
//!
//! | module | what it does |
//! |---|---|
//! | `buckets` | the gradient in the buckets in which it is reduced |
//! | `followers` | who keeps up with this rank, and who asks for it |
//! | `reducer` | a thread that reduces buckets while others are computed |
//! | `state` | comes by the state, keeps up with a donor, feeds followers |
//! | `step` | computes lanes, reduces, applies, finishes |

mod buckets;
mod followers;
mod reducer;
mod state;
mod step;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender};

use lockstep_collective::{
    CollectiveError, Endpoint, FollowRequest, Following, Group, Options, Partials, Peer, PeerLost, Precision,
    Transport,
};
use lockstep_data::Dataset;
use lockstep_engine::geometry::Geometry;
use lockstep_engine::ids::{Lane, Rank, Step, WorkerId};
use lockstep_engine::membership::{Member, Membership};
use lockstep_engine::rank::{Task, TaskEnd};
use lockstep_engine::spec::{self, Spec};
use lockstep_trainer::checkpoint::About;
use lockstep_trainer::{Device, DeviceName, Network, Schedule, Trainer};

use crate::checkpoints::{Checkpoints, Told};
use crate::loader::Loader;
use crate::memory;
use crate::network::{MakeNetwork, is_decoder};
use buckets::Buckets;
use followers::Followers;
use reducer::Reducer;

/// What the executor is asked for.
#[derive(Debug)]
pub(crate) enum Work {
    /// A task of the rank machine; its end is told.
    Task(Task),
    /// Somebody wants to follow.
    Feed(FollowRequest),
    /// The state does not count any more.
    Forget,
    /// A reduction has ended.
    Wake,
    /// No more will come.
    Stop,
}

/// What a task gave besides its end.
#[derive(Clone, Debug)]
pub(crate) enum Gain {
    /// What the loader gave for each lane of a reduced step.
    Spans(BTreeMap<Lane, Range<u64>>),
    /// Digest of the final weights, and from the rank that evaluates: bits per byte, gzip's, bytes.
    Finished {
        weights: String,
        evaluation: Option<(f64, f64, u64)>,
    },
    /// Nothing: the checkpoint to begin from is damaged. No state is held.
    Damaged(String),
}

/// A task's end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) end: TaskEnd,
    pub(crate) gain: Option<Gain>,
}

impl From<TaskEnd> for Ending {
    fn from(end: TaskEnd) -> Self {
        Self { end, gain: None }
    }
}

/// How a task went wrong.
enum Failure {
    Superseded,
    PeerLost { rank: Rank, reason: String },
    DonorLost { donor: WorkerId, reason: String },
    Damaged(String),
    Fatal(String),
}

impl From<CollectiveError> for Failure {
    fn from(error: CollectiveError) -> Self {
        match error {
            CollectiveError::Superseded { .. } => Self::Superseded,
            CollectiveError::PeerLost { rank, reason, .. } => Self::PeerLost {
                rank,
                reason: reason.to_string(),
            },
            // Its lease has not run out, so it lives but hangs: the others go on without it.
            CollectiveError::TimedOut { after, ref waiting } if !waiting.is_empty() => Self::PeerLost {
                rank: waiting[0],
                reason: format!("it sent nothing for {} s", after.as_secs()),
            },
            other => Self::Fatal(other.to_string()),
        }
    }
}

impl From<lockstep_trainer::TrainerError> for Failure {
    fn from(error: lockstep_trainer::TrainerError) -> Self {
        Self::Fatal(error.to_string())
    }
}

impl From<lockstep_data::DataError> for Failure {
    fn from(error: lockstep_data::DataError) -> Self {
        Self::Fatal(error.to_string())
    }
}

type Outcome = Result<Ending, Failure>;

/// What an executor is made from.
pub(crate) struct Setup {
    pub(crate) spec: Spec,
    pub(crate) network: MakeNetwork,
    pub(crate) out: PathBuf,
    pub(crate) worker: WorkerId,
    /// The interface on which the data plane listens.
    pub(crate) interface: IpAddr,
    pub(crate) on_peer_lost: Box<dyn Fn(PeerLost) + Send + Sync>,
    /// Where it is asked for work; requests to follow come this way too.
    pub(crate) work: Sender<Work>,
    pub(crate) queue: Receiver<Work>,
    pub(crate) on_written: Told,
}

/// The names by which the data plane knows workers: with their incarnation.
pub(crate) fn identity(worker: &WorkerId) -> String {
    format!("{worker}#{:032x}", worker.incarnation)
}

fn peer(member: &Member) -> Peer {
    Peer {
        identity: identity(&member.worker),
        address: member.address,
    }
}

/// A number that frames of different jobs do not share.
fn job_tag(spec: &Spec) -> u64 {
    let digest = blake3::hash(spec.job.name.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

pub(crate) struct Executor {
    spec: Spec,
    network: MakeNetwork,
    geometry: Geometry,
    device: Device,
    trainer: Trainer<Box<dyn Network>>,
    loader: Loader,
    endpoint: Arc<Endpoint>,
    reducer: Reducer,
    checkpoints: Arc<Checkpoints>,
    buckets: Buckets,
    worker: WorkerId,
    membership: Option<Membership>,
    /// What was computed of the step in flight, by bucket.
    partials: Vec<Partials>,
    spans: BTreeMap<Lane, Range<u64>>,
    /// The step that was applied with what was reduced last, if it is the last one; and whether it was thrown away.
    last: Option<(Step, bool)>,
    /// Whether there is a state that counts; and whether it is about to be forgotten, as is told to other threads.
    holds: bool,
    /// Whether there was one that does not count any more: the trainer may hold anything.
    has_trained: bool,
    void: Arc<AtomicBool>,
    /// Whether a snapshot was taken of this state: if it is right shows in the next step that is reduced.
    copied: bool,
    /// Whom it keeps up with.
    following: Option<Following>,
    followers: Followers,
    queue: Receiver<Work>,
    /// What came during a reduction.
    later: VecDeque<Work>,
}

impl Executor {
    pub(crate) fn new(setup: Setup) -> Result<Self, String> {
        let Setup {
            spec,
            network,
            out,
            worker,
            interface,
            on_peer_lost,
            work,
            queue,
            on_written,
        } = setup;
        if is_decoder(network) {
            memory::check(&spec)?;
        }
        let folder = spec.data.dataset.clone().ok_or("data.dataset is missing")?;
        let dataset = Dataset::open(&folder).map_err(|error| error.to_string())?;
        let (found, expected) = (dataset.manifest().vocab_size, spec.model.vocab_size);
        if found != expected {
            return Err(format!(
                "model.vocab_size = {expected}: the dataset {} has {found} tokens; set it to that, or build the dataset anew",
                folder.display()
            ));
        }
        let about = About {
            seed: spec.train.seed,
            config_digest: spec.numerics_digest().map_err(|error| error.to_string())?,
            dataset_digest: dataset.manifest().digest.to_string(),
            ..About::default()
        };
        let loader = Loader::new(dataset, &spec).map_err(|error| error.to_string())?;
        let device = DeviceName::Cpu.open().map_err(|error| error.to_string())?;
        let trainer = new_trainer(network, &spec, &device)?;
        let precision = match spec.collective.precision {
            spec::Precision::F32 => Precision::F32,
            spec::Precision::Bf16 => Precision::Bf16,
        };
        let buckets = Buckets::of(
            trainer.layout(),
            spec.collective.bucket_bytes / size_of::<f32>(),
            precision,
        );
        let wake = work.clone();
        let options = Options {
            on_peer_lost,
            on_follow: Box::new(move |request| drop(work.send(Work::Feed(request)))),
            transport: match spec.collective.transport {
                spec::Transport::Auto => Transport::Auto,
                spec::Transport::Tcp => Transport::Tcp,
            },
            streams: spec.collective.streams,
            timeout: spec.elastic.silence(),
            // A donor that hangs is given up after a lease; this is for a link between the two that is cut alone.
            feed_timeout: spec.elastic.lease() * 2,
            ..Options::new(SocketAddr::new(interface, 0), job_tag(&spec), identity(&worker))
        };
        let endpoint = Arc::new(Endpoint::bind(options).map_err(|error| error.to_string())?);
        let reducer = Reducer::start(endpoint.clone(), &buckets, wake)
            .map_err(|error| format!("start the thread that reduces: {error}"))?;
        let checkpoints = Checkpoints::start(
            &spec,
            out.join("checkpoints"),
            about,
            trainer.layout(),
            on_written,
        )
        .map_err(|error| format!("start the thread that writes checkpoints: {error}"))?;
        let geometry = spec.geometry();
        Ok(Self {
            network,
            geometry,
            device,
            trainer,
            loader,
            endpoint,
            checkpoints: Arc::new(checkpoints),
            reducer,
            partials: buckets.partials(geometry.lanes),
            buckets,
            worker,
            membership: None,
            spans: BTreeMap::new(),
            last: None,
            holds: false,
            has_trained: false,
            void: Arc::default(),
            copied: false,
            following: None,
            followers: Followers::default(),
            queue,
            later: VecDeque::new(),
            spec,
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// To be set before [`Work::Forget`] is sent: nobody is fed from then on.
    pub(crate) fn void(&self) -> Arc<AtomicBool> {
        self.void.clone()
    }

    pub(crate) fn checkpoints(&self) -> Arc<Checkpoints> {
        self.checkpoints.clone()
    }

    /// Works until nobody asks for more.
    pub(crate) fn run(mut self, mut ended: impl FnMut(Ending)) {
        while let Some(work) = self.later.pop_front().or_else(|| self.queue.recv().ok()) {
            match work {
                Work::Task(task) => {
                    tracing::debug!(?task, "begins");
                    let ending = self.execute(task).unwrap_or_else(|failure| self.end_of(failure));
                    tracing::debug!(end = ?ending.end, "ends");
                    ended(ending);
                }
                Work::Feed(request) => self.followers.ask(request),
                Work::Forget => self.forget(),
                Work::Wake => {}
                Work::Stop => return,
            }
            self.serve_followers();
        }
    }

    fn end_of(&self, failure: Failure) -> Ending {
        let end = match failure {
            Failure::Superseded => TaskEnd::Superseded,
            Failure::Damaged(reason) => {
                let gain = Some(Gain::Damaged(reason.clone()));
                let end = TaskEnd::Failed(reason);
                return Ending { end, gain };
            }
            Failure::Fatal(reason) => TaskEnd::Failed(reason),
            Failure::DonorLost { donor, reason } => TaskEnd::PeerLost { peer: donor, reason },
            Failure::PeerLost { rank, reason } => {
                let members = self.membership.as_ref().map(|membership| &membership.members);
                match members.and_then(|members| members.get(rank.index())) {
                    Some(member) => TaskEnd::PeerLost {
                        peer: member.worker.clone(),
                        reason,
                    },
                    None => TaskEnd::Failed(format!("lost rank {rank}, which is not a member: {reason}")),
                }
            }
        };
        end.into()
    }

    fn execute(&mut self, task: Task) -> Outcome {
        match task {
            Task::Enter { membership, keep } => self.enter(membership, &keep),
            Task::Acquire { step, source } => self.acquire(step, source),
            Task::Follow { epoch, donor } => self.follow(epoch, &donor),
            Task::Skip { to } => self.skip(to),
            Task::Compute { step, lane } => self.compute(step, lane),
            Task::Reduce { step, .. } => self.reduce(step),
            Task::Apply { step, skip } => self.apply(step, skip),
            Task::Snapshot(snapshot) => self.snapshot(snapshot),
            Task::Finish { evaluate } => self.finish(evaluate),
        }
    }

    fn enter(&mut self, membership: Membership, keep: &BTreeSet<Lane>) -> Outcome {
        let rank = membership
            .rank_of(&self.worker)
            .ok_or_else(|| Failure::Fatal("not a member of the epoch that was announced".to_owned()))?;
        // Before the new epoch is entered: a reduction of the old one must not go on in it.
        self.reducer.abandon();
        self.endpoint.enter(Group {
            epoch: membership.epoch,
            rank,
            members: membership.members.iter().map(peer).collect(),
        })?;
        for partials in &mut self.partials {
            partials.retain(|lane| keep.contains(&lane));
        }
        self.spans.retain(|lane, _| keep.contains(lane));
        tracing::debug!(epoch = %membership.epoch, "holds the epoch");
        self.membership = Some(membership);
        Ok(TaskEnd::Done.into())
    }

    fn forget_partials(&mut self) {
        self.reducer.abandon();
        self.partials.iter_mut().for_each(Partials::clear);
        self.spans.clear();
    }

    fn is_first(&self) -> bool {
        self.membership
            .as_ref()
            .and_then(|membership| membership.rank_of(&self.worker))
            == Some(Rank(0))
    }
}

fn new_trainer(
    network: MakeNetwork,
    spec: &Spec,
    device: &Device,
) -> Result<Trainer<Box<dyn Network>>, String> {
    Trainer::new(network(spec, device)?, &spec.optim, Schedule::of(spec)).map_err(|error| error.to_string())
}
