//! The job spec: one TOML file, every field optional but the source of data.
//!
//! [`Spec::parse`] is the only way in: what it returns holds every bound, so nobody checks again.

mod model;
mod reader;
mod target;

pub use model::{ModelSpec, Preset, presets};
pub use reader::{SpecError, nearest};
pub use target::{InvalidTarget, Target};

use std::path::PathBuf;
use std::time::Duration;

use crate::geometry::Geometry;
use crate::ids::JobId;
use crate::job::BadStep;
use reader::Reader;

/// A validated job spec.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Spec {
    /// `[job]`
    pub job: JobSpec,
    /// `[data]`
    pub data: DataSpec,
    /// `[model]`
    pub model: ModelSpec,
    /// `[train]`
    pub train: TrainSpec,
    /// `[memory]`
    pub memory: MemorySpec,
    /// `[batch]`
    pub batch: BatchSpec,
    /// `[optim]`
    pub optim: OptimSpec,
    /// `[schedule]`
    pub schedule: ScheduleSpec,
    /// `[checkpoint]`
    pub checkpoint: CheckpointSpec,
    /// `[elastic]`
    pub elastic: ElasticSpec,
    /// `[guard]`
    pub guard: GuardSpec,
    /// `[collective]`
    pub collective: CollectiveSpec,
}

/// `[job]`: what it is called.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct JobSpec {
    /// Name of the job and of its run folder.
    pub name: JobId,
}

/// `[data]`: where tokens come from. Exactly one of the two is set.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct DataSpec {
    /// A folder of text, built into a dataset before the run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corpus: Option<PathBuf>,
    /// A built dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dataset: Option<PathBuf>,
}

/// `[train]`: how long, and from which seed.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TrainSpec {
    /// Optimizer steps.
    pub steps: u64,
    /// Seed of weights and sample order.
    pub seed: u64,
}

/// What of the forward is computed again in the backward, instead of being kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Nothing.
    #[default]
    None,
    /// All of a block but its argument: a third more time, a fraction of the memory.
    Block,
}

/// `[memory]`: what a rank may use. It decides no bits.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct MemorySpec {
    /// What the backward computes again.
    pub recompute: Recompute,
}

/// `[batch]`: the geometry of a step.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct BatchSpec {
    /// Microbatches of every step (`M`), whatever the number of workers.
    pub microbatches: u32,
    /// Sequences in a microbatch.
    pub sequences: u32,
    /// Tokens in a sequence; at most the model's `max_position_embeddings`.
    pub sequence_length: usize,
    /// Lanes (`L`): a power of two that divides `microbatches`.
    pub lanes: u32,
}

/// `[optim]`: AdamW with decoupled decay (Loshchilov and Hutter, 2019).
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct OptimSpec {
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// Decoupled decay; norms and embeddings are excluded.
    pub weight_decay: f64,
    /// Largest global norm of a gradient; 0 turns clipping off.
    pub clip: f64,
}

/// The shape of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Decay {
    /// Half a cosine from the peak to the floor at the last step.
    Cosine,
    /// Warm-up, stable, decay: the peak, then a straight line to the floor over the last `decay_fraction`.
    Wsd,
    /// The peak for ever.
    Constant,
}

/// `[schedule]`: the learning rate over the steps.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ScheduleSpec {
    /// Steps of linear warm-up from 0.
    pub warmup_steps: u64,
    /// What follows.
    pub decay: Decay,
    /// The floor, as a fraction of the peak.
    pub min_ratio: f64,
    /// For `wsd`: the fraction of all steps that decays.
    pub decay_fraction: f64,
}

/// `[checkpoint]`: when the state is written, which of them stay, and where copies go.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct CheckpointSpec {
    /// Every so many steps, and at the end; 0 means only at the end.
    pub every: u64,
    /// Checkpoints kept, newest first; 0 keeps all.
    pub keep: u64,
    /// Beside those, each whose step is a multiple of this; 0 for none.
    pub keep_every: u64,
    /// Beside those, so many with the fewest validation bits per byte; 0 for none.
    pub keep_best: u64,
    /// Where each is copied to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
}

/// `[elastic]`: how many workers, and when one is given up.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ElasticSpec {
    /// Below this the job pauses.
    pub min_workers: u32,
    /// No more than this take part.
    pub max_workers: u32,
    /// So many beyond them follow along with the current state, to step in at once.
    pub spares: u32,
    /// Each worker says so often that it is alive.
    pub heartbeat_ms: u64,
    /// A worker silent for so long is given up. A closed connection is noticed at once, without it.
    pub lease_ms: u64,
    /// The data plane gives up on a member that is alive but sends nothing for so long.
    pub silence_ms: u64,
}

impl ElasticSpec {
    /// The lease as a duration.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// The time between heartbeats.
    #[must_use]
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms)
    }

    /// How long the data plane waits for a member that is alive.
    #[must_use]
    pub fn silence(&self) -> Duration {
        Duration::from_millis(self.silence_ms)
    }
}

/// `[guard]`: steps that would do harm, and corruption.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct GuardSpec {
    /// What to do about a step whose loss or gradient is not finite, or whose loss is a spike.
    pub bad_step: BadStep,
    /// A loss above so many times the median of the last 32 good steps is a spike; 0: never.
    pub spike_factor: f64,
    /// Members compare digests of their weights every so many steps; 0: never.
    pub compare_weights_every: u64,
}

/// `[collective]`: how members exchange gradients. Of it, only `precision` decides bits.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct CollectiveSpec {
    /// The way that they take.
    pub transport: Transport,
    /// Connections to each member.
    pub streams: usize,
    /// Whether a bucket leaves as soon as its backward has ended, or all leave at the end.
    pub overlap: bool,
    /// Neighbouring buckets are put together until they have so many bytes.
    pub bucket_bytes: usize,
    /// How precise gradients are between lanes.
    pub precision: Precision,
}

/// How precise gradients are between lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    /// As they are computed.
    F32,
    /// 8 bits of precision, in half the bytes.
    Bf16,
}

/// The way that gradients take between members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// Shared memory where all members are of one host, or else TCP.
    Auto,
    /// TCP.
    Tcp,
}

impl Spec {
    /// Parses and checks a spec.
    ///
    /// # Errors
    /// All problems at once, each with its line, field, value and bound.
    pub fn parse(source: &str) -> Result<Self, SpecError> {
        let mut reader = Reader::new(source);
        let file = reader.parse()?;
        let root = file.get_ref();
        let r = &mut reader;

        let mut s = r.section(root, "job");
        let expected =
            "a name of at most 63 of a-z, 0-9, `-`, `.` and `_` that starts with a letter or digit";
        let name = s.text(r, "name", expected, |text| text.parse::<JobId>().ok());
        let job = JobSpec {
            name: name.or_else(|| "job".parse().ok()).ok_or_else(empty)?,
        };
        s.finish(r);

        let mut s = r.section(root, "data");
        let path = |text: &str| (!text.is_empty()).then(|| PathBuf::from(text));
        let data = DataSpec {
            corpus: s.text(r, "corpus", "the path of a folder of text", path),
            dataset: s.text(r, "dataset", "the path of a built dataset", path),
        };
        if data.corpus.is_some() && data.dataset.is_some() {
            r.reject("data: `corpus` and `dataset` are both given; keep one".to_owned());
        }
        s.finish(r);

        let mut s = r.section(root, "model");
        let model = ModelSpec::read(r, &mut s);
        s.finish(r);

        let mut s = r.section(root, "train");
        let train = TrainSpec {
            steps: s.integer(r, "steps", 1..=1_000_000_000).unwrap_or(100),
            seed: s.integer(r, "seed", 0..=i64::MAX as u64).unwrap_or(0),
        };
        s.finish(r);

        let mut s = r.section(root, "memory");
        let recompute = |text: &str| match text {
            "none" => Some(Recompute::None),
            "block" => Some(Recompute::Block),
            _ => None,
        };
        let memory = MemorySpec {
            recompute: s
                .text(r, "recompute", "none or block", recompute)
                .unwrap_or_default(),
        };
        s.finish(r);

        let mut s = r.section(root, "elastic");
        let lease_ms = s.integer(r, "lease_ms", 100..=3_600_000).unwrap_or(2_000);
        let elastic = ElasticSpec {
            min_workers: s.integer(r, "min_workers", 1..=4096).unwrap_or(1) as u32,
            max_workers: s.integer(r, "max_workers", 1..=4096).unwrap_or(4) as u32,
            spares: s.integer(r, "spares", 0..=4096).unwrap_or(0) as u32,
            heartbeat_ms: s.integer(r, "heartbeat_ms", 10..=900_000).unwrap_or(lease_ms / 8),
            lease_ms,
            silence_ms: s
                .integer(r, "silence_ms", 1_000..=86_400_000)
                .unwrap_or(600_000.max(lease_ms * 10)),
        };
        let ElasticSpec {
            heartbeat_ms,
            silence_ms,
            ..
        } = elastic;
        if heartbeat_ms > lease_ms / 4 {
            r.reject(format!(
                "elastic.heartbeat_ms = {heartbeat_ms}: must be at most a quarter of lease_ms = {lease_ms}, so that a \
                 lost beat ends nobody's lease"
            ));
        }
        if silence_ms < lease_ms * 2 {
            r.reject(format!(
                "elastic.silence_ms = {silence_ms}: must be at least twice lease_ms = {lease_ms}: a dead member is the \
                 coordinator's to find"
            ));
        }
        let (min, max) = (elastic.min_workers, elastic.max_workers);
        if min > max {
            r.reject(format!(
                "elastic.min_workers = {min}: must be at most max_workers = {max}"
            ));
        }
        s.finish(r);

        let mut s = r.section(root, "batch");
        let microbatches = s.integer(r, "microbatches", 1..=1 << 16).unwrap_or(8) as u32;
        let sequences = s.integer(r, "sequences", 1..=1 << 16).unwrap_or(2) as u32;
        let length = s.integer(r, "sequence_length", 8..=1 << 20).map(|n| n as usize);
        let lanes = s.integer(r, "lanes", 1..=1 << 16).map(|n| n as u32);
        let batch = BatchSpec {
            microbatches,
            sequences,
            sequence_length: length.unwrap_or(model.max_position_embeddings),
            lanes: lanes.unwrap_or_else(|| Geometry::default_lanes(microbatches, max)),
        };
        if batch.sequence_length > model.max_position_embeddings {
            let (length, bound) = (batch.sequence_length, model.max_position_embeddings);
            r.reject(format!(
                "batch.sequence_length = {length}: must be at most model.max_position_embeddings = {bound}"
            ));
        }
        if !batch.lanes.is_power_of_two() || !microbatches.is_multiple_of(batch.lanes) {
            let lanes = batch.lanes;
            r.reject(format!(
                "batch.lanes = {lanes}: must be a power of two that divides microbatches = {microbatches}"
            ));
        } else if batch.lanes < max {
            let most = batch.lanes;
            r.reject(format!(
                "elastic.max_workers = {max}: must be at most {most}, the lanes that batch.microbatches = \
                 {microbatches} allows; a multiple of {} gives every worker a lane",
                max.next_power_of_two()
            ));
        }
        s.finish(r);

        let mut s = r.section(root, "optim");
        let optim = OptimSpec {
            learning_rate: s.number(r, "learning_rate", 0.0..=10.0).unwrap_or(1e-3),
            beta1: s.number(r, "beta1", 0.0..=0.999_999).unwrap_or(0.9),
            beta2: s.number(r, "beta2", 0.0..=0.999_999).unwrap_or(0.95),
            eps: s.number(r, "eps", 1e-16..=1.0).unwrap_or(1e-8),
            weight_decay: s.number(r, "weight_decay", 0.0..=10.0).unwrap_or(0.1),
            clip: s.number(r, "clip", 0.0..=1e6).unwrap_or(1.0),
        };
        s.finish(r);

        let mut s = r.section(root, "schedule");
        let decay = |text: &str| match text {
            "cosine" => Some(Decay::Cosine),
            "wsd" => Some(Decay::Wsd),
            "constant" => Some(Decay::Constant),
            _ => None,
        };
        let schedule = ScheduleSpec {
            warmup_steps: s
                .integer(r, "warmup_steps", 0..=train.steps)
                .unwrap_or(train.steps.div_ceil(20).min(1000)),
            decay: s
                .text(r, "decay", "one of cosine, wsd, constant", decay)
                .unwrap_or(Decay::Cosine),
            min_ratio: s.number(r, "min_ratio", 0.0..=1.0).unwrap_or(0.1),
            decay_fraction: s.number(r, "decay_fraction", 0.0..=1.0).unwrap_or(0.2),
        };
        s.finish(r);

        let mut s = r.section(root, "checkpoint");
        let checkpoint = CheckpointSpec {
            every: s.integer(r, "every", 0..=1_000_000_000).unwrap_or(100),
            keep: s.integer(r, "keep", 0..=1_000_000).unwrap_or(3),
            keep_every: s.integer(r, "keep_every", 0..=1_000_000_000).unwrap_or(0),
            keep_best: s.integer(r, "keep_best", 0..=1_000_000).unwrap_or(0),
            target: s.text(r, "target", Target::EXPECTED, |text| text.parse().ok()),
        };
        let (every, multiple) = (checkpoint.every, checkpoint.keep_every);
        if multiple > 0 && (every == 0 || !multiple.is_multiple_of(every)) {
            r.reject(format!(
                "checkpoint.keep_every = {multiple}: must be 0 or a multiple of every = {every}, as only those \
                 steps have checkpoints"
            ));
        }
        s.finish(r);

        let mut s = r.section(root, "guard");
        let bad_step = |text: &str| match text {
            "stop" => Some(BadStep::Stop),
            "skip" => Some(BadStep::Skip),
            "rollback" => Some(BadStep::Rollback),
            _ => None,
        };
        let guard = GuardSpec {
            bad_step: s
                .text(r, "bad_step", "one of stop, skip, rollback", bad_step)
                .unwrap_or(BadStep::Stop),
            spike_factor: s.number(r, "spike_factor", 0.0..=1e6).unwrap_or(0.0),
            compare_weights_every: s
                .integer(r, "compare_weights_every", 0..=1_000_000_000)
                .unwrap_or(100),
        };
        if guard.spike_factor > 0.0 && guard.spike_factor <= 1.0 {
            r.reject(format!(
                "guard.spike_factor = {}: must be 0, for never, or above 1",
                guard.spike_factor
            ));
        }
        s.finish(r);

        let mut s = r.section(root, "collective");
        let transport = |text: &str| match text {
            "auto" => Some(Transport::Auto),
            "tcp" => Some(Transport::Tcp),
            _ => None,
        };
        let precision = |text: &str| match text {
            "f32" => Some(Precision::F32),
            "bf16" => Some(Precision::Bf16),
            _ => None,
        };
        let collective = CollectiveSpec {
            transport: s
                .text(r, "transport", "one of auto, tcp", transport)
                .unwrap_or(Transport::Auto),
            streams: s.integer(r, "streams", 1..=16).unwrap_or(1) as usize,
            overlap: s.flag(r, "overlap").unwrap_or(true),
            bucket_bytes: s.integer(r, "bucket_bytes", 4..=1 << 40).unwrap_or(1 << 20) as usize,
            precision: s
                .text(r, "precision", "one of f32, bf16", precision)
                .unwrap_or(Precision::F32),
        };
        s.finish(r);

        reader.finish(root)?;
        Ok(Self {
            job,
            data,
            model,
            train,
            memory,
            batch,
            optim,
            schedule,
            checkpoint,
            elastic,
            guard,
            collective,
        })
    }

    /// The spec with every default written out, as TOML that [`Spec::parse`] reads back to the same value.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, SpecError> {
        toml::to_string(self).map_err(|error| SpecError {
            problems: vec![format!("write the spec as TOML: {error}")],
        })
    }

    /// How a step is divided.
    #[must_use]
    pub fn geometry(&self) -> Geometry {
        Geometry {
            microbatches: self.batch.microbatches,
            lanes: self.batch.lanes,
            sequences: self.batch.sequences,
        }
    }

    /// Samples, that is sequences, that one step uses.
    #[must_use]
    pub fn samples_per_step(&self) -> u64 {
        u64::from(self.batch.microbatches) * u64::from(self.batch.sequences)
    }

    /// Digest of everything that decides the bits of the result besides the data itself: a checkpoint is
    /// resumed only under the same one. Names, paths, elasticity and checkpointing are left out.
    ///
    /// # Errors
    /// As [`Spec::to_toml`].
    pub fn numerics_digest(&self) -> Result<String, SpecError> {
        #[derive(serde::Serialize)]
        struct Numerics<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            precision: Option<Precision>,
            model: &'a ModelSpec,
            train: &'a TrainSpec,
            batch: &'a BatchSpec,
            optim: &'a OptimSpec,
            schedule: &'a ScheduleSpec,
            #[serde(skip_serializing_if = "Option::is_none")]
            guard: Option<Guarded>,
        }
        /// A policy that ends the job decides no bits.
        #[derive(serde::Serialize)]
        struct Guarded {
            bad_step: BadStep,
            spike_factor: f64,
            back_to_every: u64,
        }
        let Self {
            model,
            train,
            batch,
            optim,
            schedule,
            guard,
            collective,
            ..
        } = self;
        let precision = Some(collective.precision).filter(|&precision| precision != Precision::F32);
        let guard = (guard.bad_step != BadStep::Stop).then_some(Guarded {
            bad_step: guard.bad_step,
            spike_factor: guard.spike_factor,
            back_to_every: match guard.bad_step {
                BadStep::Rollback => self.checkpoint.every,
                BadStep::Stop | BadStep::Skip => 0,
            },
        });
        let text = toml::to_string(&Numerics {
            precision,
            model,
            train,
            batch,
            optim,
            schedule,
            guard,
        })
        .map_err(|error| SpecError {
            problems: vec![format!("digest the spec: {error}")],
        })?;
        Ok(blake3::hash(text.as_bytes()).to_hex().to_string())
    }
}

fn empty() -> SpecError {
    SpecError {
        problems: vec!["job.name is missing".to_owned()],
    }
}

#[cfg(test)]
mod tests;
