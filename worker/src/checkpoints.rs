//! A rank's checkpoints: its part of each is written while training goes on, and one rank seals.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::rank::Snapshot;
use lockstep_engine::spec::{Spec, Target};
use lockstep_trainer::checkpoint::{self, About, Attempt, Background, Done, Job, Piece, Policy, Report};
use lockstep_trainer::{Layout, State, TrainerError};

/// How long the last checkpoint waits for those before it: without it the job would fail.
const LAST_PATIENCE: Duration = Duration::from_secs(120);

/// What the writing threads did.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// This rank's part is on disk.
    Shard { snapshot: Snapshot, record: String },
    /// A checkpoint is complete.
    Sealed { step: Step, weights: String },
    /// A part or a manifest could not be written.
    Failed { step: Step, reason: String },
}

/// What the coordinator carries from each writer to the one that seals.
#[derive(serde::Serialize, serde::Deserialize)]
struct Record {
    report: Report,
    /// Bits per byte of the held-out text, from the one that found it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

pub(crate) struct Checkpoints {
    folder: PathBuf,
    about: About,
    layout: Arc<Layout>,
    policy: Policy,
    target: Option<Target>,
    samples_per_step: u64,
    last: Step,
    writer: Background,
    /// What shares the state until it is written.
    lent: Mutex<Vec<Piece>>,
    /// What was handed to the writer, so that its answer can be told by part.
    asked: Arc<Asked>,
    told: Told,
}

/// Who hears of what was written.
pub(crate) type Told = Arc<dyn Fn(Written) + Send + Sync>;

impl Checkpoints {
    /// Starts the threads; `told` hears of what they did.
    pub(crate) fn start(
        spec: &Spec,
        folder: PathBuf,
        about: About,
        layout: &Layout,
        told: Told,
    ) -> std::io::Result<Self> {
        let target = spec.checkpoint.target.clone();
        let policy = Policy::from(&spec.checkpoint);
        let copier = match &target {
            // It may take long, and so has a thread of its own.
            Some(_) => Some(Background::start("checkpoint-copy", warn_of_copies)?),
            None => None,
        };
        let asked: Arc<Asked> = Arc::default();
        let (of, tell) = (asked.clone(), told.clone());
        let copy = copier.zip(target.clone());
        let dir = folder.clone();
        let done = move |done| match done {
            Done::Wrote { attempt, result } => {
                let Some((snapshot, score)) = of.take(&attempt) else {
                    return;
                };
                tell(match result.and_then(|report| record(report, score)) {
                    Ok(record) => Written::Shard { snapshot, record },
                    Err(error) => failed(snapshot.step, &error),
                });
            }
            Done::Sealed { attempt, result } => {
                let step = attempt.step();
                let sealed = result.and_then(|path| checkpoint::read_manifest(&path));
                tell(match sealed {
                    Ok(manifest) => Written::Sealed {
                        step,
                        weights: manifest.weights_digest,
                    },
                    Err(error) => failed(step, &error),
                });
                if let Some((copier, target)) = &copy {
                    let (dir, target) = (dir.clone(), target.clone());
                    if let Err(refused) = copier.submit(Job::Mirror { dir, target, policy }) {
                        tracing::warn!("the checkpoint of step {step} is not copied now: {refused}");
                    }
                }
            }
            Done::Pruned { result } => match result {
                Ok(steps) if !steps.is_empty() => {
                    let steps: Vec<String> = steps.iter().map(ToString::to_string).collect();
                    tracing::info!("removed the checkpoints of steps {}", steps.join(", "));
                }
                Ok(_) => {}
                Err(error) => tracing::warn!("old checkpoints stay: {error}"),
            },
            Done::Mirrored { result } => warn_of_copies(Done::Mirrored { result }),
        };
        Ok(Self {
            writer: Background::start("checkpoint-write", done)?,
            lent: Mutex::default(),
            folder,
            about,
            layout: Arc::new(layout.clone()),
            policy,
            target,
            samples_per_step: spec.samples_per_step(),
            last: Step(spec.train.steps),
            asked,
            told,
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// Sees to it that nothing that is to be written is shared with the state, which is about to change. Of what is not
    /// written in the time of `patience`, for all of it together, there is a copy from then on: so it is waited for once.
    pub(crate) fn let_go(&self, patience: Duration) {
        let lent = std::mem::take(&mut *self.lent.lock().unwrap_or_else(PoisonError::into_inner));
        let until = Instant::now() + patience;
        for piece in lent {
            if !piece.let_go(until.saturating_duration_since(Instant::now())) {
                let step = piece.step();
                tracing::warn!(
                    "the checkpoint of step {step} is not written yet: training goes on, with a copy of it"
                );
            }
        }
    }

    /// Takes this rank's part of `state` and has it written. Does not wait for that, only the last one for those before
    /// it: where there is no room, any other can be done without.
    pub(crate) fn write(
        &self,
        state: &State,
        snapshot: Snapshot,
        score: Option<f64>,
    ) -> Result<(), TrainerError> {
        let piece = Piece::of(state, snapshot.shard as usize, snapshot.of as usize)?;
        let attempt = self.attempt(snapshot.step, snapshot.epoch);
        if snapshot.step == self.last {
            self.asked.await_none();
        }
        self.asked.lock().push((snapshot, score));
        let lent = piece.clone();
        match self.writer.submit(Job::Write { attempt, piece }) {
            Ok(()) => self
                .lent
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(lent),
            Err(refused) => {
                self.asked.lock().retain(|(of, _)| *of != snapshot);
                let (step, reason) = (snapshot.step, refused.to_string());
                (self.told)(Written::Failed { step, reason });
            }
        }
        Ok(())
    }

    /// Makes a checkpoint of what all members wrote, deletes what is not to be kept, and copies it if there is a target.
    pub(crate) fn seal(&self, step: Step, epoch: Epoch, records: &[String]) -> Result<(), String> {
        let records: Vec<Record> = records
            .iter()
            .map(|record| {
                serde_json::from_str(record).map_err(|error| format!("read the parts' records: {error}"))
            })
            .collect::<Result<_, _>>()?;
        let before = checkpoint::list(&self.folder).map_err(|error| error.to_string())?;
        let about = About {
            cursor: step.0 * self.samples_per_step,
            parent: before.iter().map(|(of, _)| *of).filter(|of| *of < step).max(),
            validation_bits_per_byte: records.iter().find_map(|record| record.score),
            ..self.about.clone()
        };
        let seal = Job::Seal {
            attempt: self.attempt(step, epoch),
            reports: records.into_iter().map(|record| record.report).collect(),
            layout: self.layout.clone(),
            about,
        };
        let (dir, policy) = (self.folder.clone(), self.policy);
        self.writer
            .submit(seal)
            .and_then(|()| self.writer.submit(Job::Prune { dir, policy }))
            .map_err(|refused| refused.to_string())
    }

    /// Looks for this run's checkpoints: the steps of those that verify. Others are named in the log; one that verifies
    /// but is of another run is an error, as the folder is not this run's. Where there are none, a copy is fetched.
    ///
    /// Who `holds` a state is not likely to need any, and others wait for its word: then their bytes are not read now.
    pub(crate) fn scout(&self, holds: bool) -> Result<Vec<Step>, String> {
        if let Some(target) = self.target.as_ref().filter(|_| !holds) {
            let fetched = checkpoint::fetch(target, &self.folder).map_err(|error| error.to_string())?;
            if let Some(found) = fetched.found {
                tracing::info!(
                    "brought the checkpoint of step {} from {target}",
                    found.manifest.step
                );
            }
        }
        let mut steps = Vec::new();
        for (step, path) in checkpoint::list(&self.folder).map_err(|error| error.to_string())? {
            let checked = if holds {
                checkpoint::glance(&path)
            } else {
                checkpoint::verify(&path)
            };
            match checked {
                Ok(manifest) => {
                    manifest
                        .check_run(&path, &self.layout, &self.about)
                        .map_err(|error| error.to_string())?;
                    steps.push(step);
                }
                Err(error) => tracing::warn!("skipped: {error}"),
            }
        }
        Ok(steps)
    }

    fn attempt(&self, step: Step, epoch: Epoch) -> Attempt {
        Attempt::new(&self.folder, step, epoch)
    }
}

impl std::fmt::Debug for Checkpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkpoints")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Parts that are being written, and a bell that rings when one is done.
#[derive(Default)]
struct Asked {
    parts: Mutex<Vec<(Snapshot, Option<f64>)>>,
    done: Condvar,
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, Vec<(Snapshot, Option<f64>)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the part that was written in this attempt.
    fn take(&self, attempt: &Attempt) -> Option<(Snapshot, Option<f64>)> {
        let mut parts = self.lock();
        let index = parts
            .iter()
            .position(|(of, _)| (of.step, of.epoch) == (attempt.step(), attempt.epoch()))?;
        self.done.notify_all();
        Some(parts.swap_remove(index))
    }

    /// Waits until nothing is being written, within [`LAST_PATIENCE`].
    fn await_none(&self) {
        let waited = self
            .done
            .wait_timeout_while(self.lock(), LAST_PATIENCE, |parts| !parts.is_empty());
        drop(waited);
    }
}

fn record(report: Report, score: Option<f64>) -> Result<String, TrainerError> {
    serde_json::to_string(&Record { report, score }).map_err(|error| TrainerError::Setting {
        field: "the record of a part",
        value: error.to_string(),
        bound: "what JSON can hold",
    })
}

fn failed(step: Step, error: &TrainerError) -> Written {
    let reason = error.to_string();
    Written::Failed { step, reason }
}

fn warn_of_copies(done: Done) {
    let Done::Mirrored { result } = done else { return };
    match result {
        Ok(mirrored) => {
            for failure in mirrored.failed {
                let after = if failure.retried {
                    "it is tried again with the next one"
                } else {
                    "it is given up"
                };
                tracing::warn!(
                    "the checkpoint of step {} is not copied: {}; {after}",
                    failure.step,
                    failure.reason
                );
            }
        }
        Err(error) => tracing::warn!("checkpoints are not copied: {error}"),
    }
}
