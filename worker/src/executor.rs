//! A thread that owns device, data and data plane, and runs one task at a time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use lockstep_collective::{CollectiveError, Endpoint, Group, Options, Partials, Peer, PeerLost};
use lockstep_data::Dataset;
use lockstep_engine::geometry::{Geometry, Node};
use lockstep_engine::ids::{Lane, Rank, Step, WorkerId};
use lockstep_engine::membership::{Membership, Source};
use lockstep_engine::rank::{Task, TaskEnd};
use lockstep_engine::spec::Spec;
use lockstep_trainer::checkpoint::{self, About};
use lockstep_trainer::{Batch, DType, Device, DeviceName, Llama, Schedule, State, Trainer};

use crate::loader::Loader;
use crate::validation;

/// How long the data plane waits for a member that is alive but sends nothing. Deaths are noticed by closed
/// connections and by the lease; this is longer than any lane should take.
const SILENCE: Duration = Duration::from_secs(3600);

/// What a task gave besides its end.
#[derive(Clone, Debug)]
pub(crate) enum Gain {
    /// A reduced gradient: its digest, the step's mean loss, and what the loader gave for each lane.
    Reduced {
        digest: String,
        loss: f32,
        spans: BTreeMap<Lane, Range<u64>>,
    },
    /// Digest of the weights in a checkpoint.
    Checkpoint { weights: String },
    /// Digest of the final weights, and from the rank that evaluates: bits per byte, gzip's, bytes.
    Finished {
        weights: String,
        evaluation: Option<(f64, f64, u64)>,
    },
}

/// A task's end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) end: TaskEnd,
    pub(crate) gain: Option<Gain>,
}

/// How a task went wrong.
enum Failure {
    Superseded,
    PeerLost { rank: Rank, reason: String },
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

type Outcome = Result<Option<Gain>, Failure>;

/// What an executor is made from.
pub(crate) struct Setup {
    pub(crate) spec: Spec,
    pub(crate) out: PathBuf,
    pub(crate) worker: WorkerId,
    /// The interface on which the data plane listens.
    pub(crate) interface: IpAddr,
    pub(crate) on_peer_lost: Box<dyn Fn(PeerLost) + Send + Sync>,
}

/// The names by which the data plane knows workers: with their incarnation.
pub(crate) fn identity(worker: &WorkerId) -> String {
    format!("{worker}#{:032x}", worker.incarnation)
}

/// A number that frames of different jobs do not share.
fn job_tag(spec: &Spec) -> u64 {
    let digest = blake3::hash(spec.job.name.as_str().as_bytes());
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

pub(crate) struct Executor {
    spec: Spec,
    geometry: Geometry,
    checkpoints: PathBuf,
    about: About,
    device: Device,
    trainer: Trainer<Llama>,
    loader: Loader,
    endpoint: Endpoint,
    buckets: Vec<Range<usize>>,
    worker: WorkerId,
    membership: Option<Membership>,
    partials: Partials,
    spans: BTreeMap<Lane, Range<u64>>,
    /// The reduced gradient; its last element is the sum of the microbatches' losses.
    reduced: Vec<f32>,
}

impl Executor {
    pub(crate) fn new(setup: Setup) -> Result<Self, String> {
        let Setup {
            spec,
            out,
            worker,
            interface,
            on_peer_lost,
        } = setup;
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
        let trainer = new_trainer(&spec, &device).map_err(|error| error.to_string())?;
        let len = trainer.layout().len() + 1;
        let mut buckets = trainer.layout().buckets().to_vec();
        if let Some(last) = buckets.last_mut() {
            last.end = len; // the loss rides behind the gradient
        }
        let options = Options {
            on_peer_lost,
            timeout: SILENCE,
            ..Options::new(SocketAddr::new(interface, 0), job_tag(&spec), identity(&worker))
        };
        let endpoint = Endpoint::bind(options).map_err(|error| error.to_string())?;
        let geometry = spec.geometry();
        Ok(Self {
            geometry,
            checkpoints: out.join("checkpoints"),
            about,
            device,
            trainer,
            loader,
            endpoint,
            buckets,
            worker,
            membership: None,
            partials: Partials::new(geometry.lanes, len),
            spans: BTreeMap::new(),
            reduced: vec![0.0; len],
            spec,
        })
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A way for another thread to look for this run's checkpoints: the steps of those that verify. Others are
    /// named in the log; one that verifies but is of another run is an error, as the folder is not this run's.
    pub(crate) fn scout(&self) -> impl Fn() -> Result<Vec<Step>, String> + Send + use<> {
        let (folder, layout, about) = (
            self.checkpoints.clone(),
            self.trainer.layout().clone(),
            self.about.clone(),
        );
        move || {
            let mut steps = Vec::new();
            for (step, path) in checkpoint::list(&folder).map_err(|error| error.to_string())? {
                match checkpoint::verify(&path) {
                    Ok(manifest) => {
                        manifest
                            .check_run(&path, &layout, &about)
                            .map_err(|error| error.to_string())?;
                        steps.push(step);
                    }
                    Err(error) => tracing::warn!("skipped: {error}"),
                }
            }
            Ok(steps)
        }
    }

    /// Runs tasks until no more can come.
    pub(crate) fn run(mut self, tasks: &Receiver<Task>, mut ended: impl FnMut(Ending)) {
        while let Ok(task) = tasks.recv() {
            tracing::debug!(?task, "begins");
            let ending = match self.execute(task) {
                Ok(gain) => Ending {
                    end: TaskEnd::Done,
                    gain,
                },
                Err(failure) => Ending {
                    end: self.end_of(failure),
                    gain: None,
                },
            };
            ended(ending);
        }
    }

    fn end_of(&self, failure: Failure) -> TaskEnd {
        match failure {
            Failure::Superseded => TaskEnd::Superseded,
            Failure::Fatal(reason) => TaskEnd::Failed(reason),
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
        }
    }

    fn execute(&mut self, task: Task) -> Outcome {
        match task {
            Task::Enter { membership, .. } => self.enter(membership),
            Task::Acquire { step, source } => self.acquire(step, source),
            Task::Donate { step, to } => self.donate(step, &to),
            Task::Compute { step, lane } => self.compute(step, lane),
            Task::Reduce { step, .. } => self.reduce(step),
            Task::Apply { step } => self.apply(step),
            Task::Checkpoint { step } => self.checkpoint(step),
            Task::Finish { evaluate } => self.finish(evaluate),
        }
    }

    fn enter(&mut self, membership: Membership) -> Outcome {
        let rank = membership
            .rank_of(&self.worker)
            .ok_or_else(|| Failure::Fatal("not a member of the epoch that was announced".to_owned()))?;
        let peer = |member: &lockstep_engine::membership::Member| Peer {
            identity: identity(&member.worker),
            address: member.address,
        };
        let members: Vec<Peer> = membership.members.iter().map(peer).collect();
        self.endpoint.enter(Group {
            epoch: membership.epoch,
            rank,
            members,
        })?;
        if membership.recompute {
            self.forget_partials();
        }
        self.membership = Some(membership);
        Ok(None)
    }

    fn forget_partials(&mut self) {
        self.partials.clear();
        self.spans.clear();
    }

    fn acquire(&mut self, step: Step, source: Source) -> Outcome {
        match source {
            Source::Held => return Err(Failure::Fatal("told to hold a state that is not here".to_owned())),
            Source::Seed if step == Step(0) => {
                // A new process has just been initialised; one that has trained begins anew.
                if self.trainer.state().step != step {
                    self.trainer = new_trainer(&self.spec, &self.device)?;
                }
            }
            Source::Seed => {
                return Err(Failure::Fatal(format!(
                    "the seed is not the state of step {step}"
                )));
            }
            Source::Checkpoint => {
                let path = checkpoint::folder(&self.checkpoints, step);
                let loaded = checkpoint::load(&path)?;
                loaded
                    .manifest
                    .check_run(&path, self.trainer.layout(), &self.about)?;
                self.trainer.restore(loaded.state)?;
                self.about.parent = Some(step);
            }
            Source::Peer(from) => {
                let zeros = || self.trainer.layout().zeros();
                let mut parts = [zeros(), zeros(), zeros()];
                self.endpoint.receive_state(from, step, &mut parts)?;
                let [weights, first, second] = parts;
                self.trainer.restore(State {
                    step,
                    weights,
                    first,
                    second,
                })?;
            }
        }
        self.forget_partials();
        Ok(None)
    }

    fn donate(&mut self, step: Step, to: &[Rank]) -> Outcome {
        let state = self.trainer.state();
        if state.step != step {
            return Err(Failure::Fatal(format!(
                "asked for the state of step {step}, holding {}",
                state.step
            )));
        }
        let parts = [&state.weights, &state.first, &state.second].map(|part| Arc::new(part.clone()));
        for &rank in to {
            self.endpoint.send_state(rank, step, &parts)?;
        }
        Ok(None)
    }

    /// The left fold of the lane's microbatches.
    fn compute(&mut self, step: Step, lane: Lane) -> Outcome {
        let mut buffer = self.partials.buffer();
        let (gradient, loss) = buffer.split_at_mut(self.trainer.layout().len());
        let mut consumed: Option<Range<u64>> = None;
        for positions in self.geometry.positions(step, lane) {
            let tokens = self.loader.read(positions.clone())?;
            let batch = Batch::new(&tokens, self.spec.batch.sequences as usize, &self.device)?;
            let mean = self.trainer.accumulate(&batch, gradient)?;
            loss.iter_mut().for_each(|sum| *sum += mean);
            consumed = Some(consumed.map_or(positions.clone(), |before| before.start..positions.end));
        }
        if let Some(positions) = consumed {
            self.spans.insert(lane, positions);
        }
        self.partials
            .insert(Node::leaf(lane), buffer)
            .map_err(|error| Failure::Fatal(format!("fold lane {lane}: {error}")))?;
        Ok(None)
    }

    fn reduce(&mut self, step: Step) -> Outcome {
        let membership = self
            .membership
            .as_ref()
            .ok_or_else(|| Failure::Fatal("no epoch was entered".to_owned()))?;
        let assignment = membership.assignment(step);
        self.endpoint.all_reduce(
            step,
            &self.buckets,
            &assignment,
            &self.partials,
            &mut self.reduced,
        )?;
        let digest = blake3::hash(bytemuck::cast_slice(&self.reduced))
            .to_hex()
            .to_string();
        let sum = self.reduced.last().copied().unwrap_or(f32::NAN);
        let loss = sum / self.geometry.microbatches as f32;
        Ok(Some(Gain::Reduced {
            digest,
            loss,
            spans: self.spans.clone(),
        }))
    }

    fn apply(&mut self, step: Step) -> Outcome {
        let gradient = &self.reduced[..self.trainer.layout().len()];
        let applied = self
            .trainer
            .apply(gradient, 1.0 / self.geometry.microbatches as f32)?;
        if self.is_first() {
            let sum = self.reduced.last().copied().unwrap_or(f32::NAN);
            let loss = sum / self.geometry.microbatches as f32;
            tracing::info!(
                "step: {step}  loss: {loss:.4}  grad_norm: {:.3}  lr: {:.2e}",
                applied.grad_norm,
                applied.learning_rate
            );
        }
        self.forget_partials();
        Ok(None)
    }

    fn is_first(&self) -> bool {
        self.membership
            .as_ref()
            .and_then(|membership| membership.rank_of(&self.worker))
            == Some(Rank(0))
    }

    fn checkpoint(&mut self, step: Step) -> Outcome {
        let about = About {
            cursor: step.0 * self.geometry.samples(),
            ..self.about.clone()
        };
        let state = self.trainer.state();
        checkpoint::write(&self.checkpoints, state, self.trainer.layout(), &about, 1)?;
        self.about.parent = Some(step);
        for step in checkpoint::prune(&self.checkpoints, self.spec.checkpoint.keep)? {
            tracing::info!("removed the checkpoint of step {step}");
        }
        Ok(Some(Gain::Checkpoint {
            weights: self.trainer.weights_digest(),
        }))
    }

    fn finish(&mut self, evaluate: bool) -> Outcome {
        let weights = self.trainer.weights_digest();
        let mut evaluation = None;
        if evaluate {
            let dataset = self.loader.dataset();
            let scored = validation::evaluate(&self.trainer, dataset, &self.spec, &self.device)
                .map_err(Failure::Fatal)?;
            let bytes = dataset.validation().bytes();
            let gzip = dataset.manifest().gzip_bits_per_byte.unwrap_or(f64::NAN);
            evaluation = scored.map(|scored| (scored.bits_per_byte(bytes), gzip, bytes));
        }
        Ok(Some(Gain::Finished { weights, evaluation }))
    }
}

fn new_trainer(spec: &Spec, device: &Device) -> Result<Trainer<Llama>, lockstep_trainer::TrainerError> {
    let model = Llama::new(&spec.model, spec.train.seed, DType::F32, device)?;
    Trainer::new(model, &spec.optim, Schedule::of(spec))
}
