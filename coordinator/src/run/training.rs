//! A training: the engine's machine for it, and what is done of what it commands.
//!
//! | module | what it does |
//! |---|---|
//! | `shown` | the job as people see it |

mod shown;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::job::{Command, Event, Guard, Job, Outcome, Past, Rules};
use lockstep_engine::placement::Demand;
use lockstep_engine::spec::Spec;
use lockstep_faults::Point;
use lockstep_proto::wire;

use super::board::Board;
use super::ranks::Ranks;
use super::{Effect, Tools};
use crate::ledger_log;
use crate::lines::Log;
use crate::store::{Change, JobRecord, State};
use crate::summary::{Evaluation, Seen};

/// How long the first epoch waits for workers beyond the minimum.
const GATHER: Duration = Duration::from_secs(10);

/// A training that has not been forgotten yet.
pub(crate) struct Training {
    pub(super) board: Board,
    pub(super) ranks: Ranks,
    pub(super) spec: Spec,
    machine: Job,
    /// Commands that wait for the epoch before them to be stored.
    waiting: VecDeque<Command>,
    persisting: Option<Epoch>,
    seen: Seen,
    started: std::time::Instant,
    last_loss: f32,
    /// Mean milliseconds of a step, exponentially weighted.
    pace_ms: Option<f64>,
    /// The highest step that this coordinator has seen committed.
    furthest: Step,
    deaths_since_progress: u32,
}

impl Training {
    /// One that has no ranks yet; `epoch` and `past` are what the store knows.
    pub(crate) fn new(
        record: JobRecord,
        spec: Spec,
        kills: Vec<lockstep_engine::job::Kill>,
        (epoch, past): (Epoch, Past),
    ) -> Self {
        let committed = past.committed();
        let rules = Rules {
            steps: Step(spec.train.steps),
            geometry: spec.geometry(),
            min_workers: spec.elastic.min_workers,
            max_workers: spec.elastic.max_workers,
            spares: spec.elastic.spares,
            lease: spec.elastic.lease(),
            gather: GATHER,
            checkpoint_every: spec.checkpoint.every,
            guard: Guard {
                policy: spec.guard.bad_step,
                spike_factor: spec.guard.spike_factor as f32,
            },
            kills,
        };
        let folder = record.out.clone();
        Self {
            board: Board::new(record, folder),
            ranks: Ranks::default(),
            spec,
            machine: Job::new(rules, epoch, past),
            waiting: VecDeque::new(),
            persisting: None,
            seen: Seen::default(),
            started: std::time::Instant::now(),
            last_loss: f32::NAN,
            pace_ms: None,
            furthest: committed,
            deaths_since_progress: 0,
        }
    }

    /// Whether it is done but for its summary.
    pub(crate) fn awaits_summary(&self) -> bool {
        self.board.record.state == State::Done && self.board.record.summary.is_none()
    }

    pub(crate) fn demand(&self, placed: u32) -> Demand {
        let elastic = &self.spec.elastic;
        let (min_workers, max_workers) = (elastic.min_workers, elastic.max_workers + elastic.spares);
        Demand {
            job: self.board.name().clone(),
            placed,
            min_workers,
            max_workers,
        }
    }

    /// A rank's process ended; says why if that has happened too often.
    pub(crate) fn exited(&mut self, worker: &str, how: &str) -> Option<String> {
        self.deaths_since_progress += 1;
        let limit = 8 + 4 * self.spec.elastic.max_workers;
        (self.deaths_since_progress > limit).then(|| {
            format!(
                "{} rank processes died without a new step being committed, the last ({worker}) with {how}; see `lockstep logs {}`",
                self.deaths_since_progress,
                self.board.name()
            )
        })
    }

    pub(crate) fn evaluated(&mut self, evaluation: Evaluation) {
        self.seen.evaluation = Some(evaluation);
    }

    /// Gives the machine an event and carries out its commands.
    pub(crate) fn give(&mut self, tools: &Tools<'_>, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.board.is_over() {
            return effects;
        }
        self.waiting.extend(self.machine.step(tools.now, event));
        self.carry_on(tools, &mut effects);
        effects
    }

    /// The epoch is stored: what waited for it goes on.
    pub(crate) fn persisted(&mut self, tools: &Tools<'_>, epoch: Epoch) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.persisting == Some(epoch) {
            self.persisting = None;
            self.seen.epochs = epoch.0;
            self.carry_on(tools, &mut effects);
        }
        effects
    }

    /// The store takes nothing for now, for this reason, or takes it again.
    pub(crate) fn store_away(&mut self, tools: &Tools<'_>, problem: Option<&str>) {
        if (self.board.is_over() && !self.awaits_summary()) || !self.board.store_away(tools, problem) {
            return;
        }
        self.follow_phase(tools);
        if self.awaits_summary() {
            self.show();
        }
    }

    /// Carries out commands up to the next epoch that is not stored yet.
    fn carry_on(&mut self, tools: &Tools<'_>, effects: &mut Vec<Effect>) {
        while self.persisting.is_none() && !self.board.is_over() {
            match self.waiting.pop_front() {
                Some(Command::PersistEpoch(epoch)) => {
                    self.persisting = Some(epoch);
                    effects.push(Effect::Persist(epoch));
                }
                Some(command) => self.carry_out(tools, command, effects),
                None => break,
            }
        }
        self.follow_phase(tools);
    }

    /// Ends the job for a reason that the machine did not see.
    pub(crate) fn fail(&mut self, tools: &Tools<'_>, reason: String) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.end(tools, Outcome::Failed(reason), &mut effects);
        effects
    }

    fn carry_out(&mut self, tools: &Tools<'_>, command: Command, effects: &mut Vec<Effect>) {
        use wire::rank_down::What;
        match command {
            Command::PersistEpoch(_) => {} // the queue's affair
            Command::Announce(membership) => {
                let message = wire::Membership::from(&membership);
                for member in &membership.members {
                    self.ranks.send(&member.worker, What::Membership(message.clone()));
                }
            }
            Command::Hold {
                workers,
                epoch,
                forget,
                reason,
            } => {
                for worker in &workers {
                    let (epoch, reason) = (epoch.0, reason.clone());
                    self.ranks.send(
                        worker,
                        What::Hold(wire::Hold {
                            epoch,
                            forget,
                            reason,
                        }),
                    );
                }
            }
            Command::Commit { workers, verdict } => {
                let step = verdict.step;
                lockstep_faults::reach(Point::LeaderBeforeCommit, step.0);
                let commit = wire::StepCommitted::from(verdict);
                for worker in &workers {
                    self.ranks.send(worker, What::Committed(commit));
                }
                lockstep_faults::reach(Point::LeaderAfterCommit, step.0);
            }
            Command::Follow { worker, epoch, donor } => {
                let (epoch, donor) = (epoch.0, Some((&donor).into()));
                self.ranks
                    .send(&worker, What::Follow(wire::Follow { epoch, donor }));
            }
            Command::Seal {
                worker,
                step,
                epoch,
                shards,
            } => {
                let (step, epoch) = (step.0, epoch.0);
                self.ranks
                    .send(&worker, What::Seal(wire::Seal { step, epoch, shards }));
            }
            Command::Quarantine { worker, reason } => effects.push(Effect::Quarantine(worker, reason)),
            Command::Evict { worker, reason } => {
                self.ranks.send(&worker, What::Evicted(wire::Rejected { reason }));
                self.ranks.remove(&worker);
            }
            Command::Kill(worker) => {
                self.seen.kills += 1;
                effects.push(Effect::Kill(worker));
            }
            Command::Record(entry) => self.record_step(tools, entry),
            Command::Truncate(step) => self.change(tools, Change::Truncate(step)),
            Command::RecordCheckpoint { step, weights } => {
                self.change(tools, Change::Checkpoint(step, weights));
            }
            Command::Recovered { took } => self.seen.recoveries_ms.push(took.as_secs_f64() * 1e3),
            Command::Note { kind, text } => self.board.note(tools, kind, text),
            Command::End { outcome, .. } => self.end(tools, outcome, effects),
        }
    }

    fn record_step(&mut self, tools: &Tools<'_>, entry: lockstep_engine::ledger::Entry) {
        // A step that is committed again, after a return to a checkpoint, is no progress.
        if entry.step > self.furthest {
            self.furthest = entry.step;
            self.deaths_since_progress = 0;
        }
        self.last_loss = entry.loss;
        let pace = self
            .pace_ms
            .map_or(entry.milliseconds, |pace| 0.9 * pace + 0.1 * entry.milliseconds);
        self.pace_ms = Some(pace);
        let line = serde_json::json!({
            "step": entry.step,
            "loss": entry.loss,
            "milliseconds": entry.milliseconds,
            "tokens_per_second": self.tokens_per_step() / entry.milliseconds * 1e3,
            "workers": entry.workers,
            "epoch": entry.epoch,
        });
        self.board.line(tools, Log::Metrics, line.to_string());
        let commit = wire::Commit {
            step: entry.step.0,
            loss: entry.loss,
            milliseconds: entry.milliseconds,
            workers: entry.workers,
        };
        self.board.show(wire::update::What::Commit(commit));
        self.change(tools, Change::Append(entry));
    }

    /// Changes the ledger: in the store, which counts, and in the history that stays with the run.
    fn change(&self, tools: &Tools<'_>, change: Change) {
        match ledger_log::line(&change) {
            Ok(line) => self.board.line(tools, Log::Ledger, line),
            Err(error) => {
                tracing::error!(job = %self.board.name(), %error, "a change is missing in the run's ledger.jsonl")
            }
        }
        tools.recorder.change(self.board.name(), change);
    }

    fn tokens_per_step(&self) -> f64 {
        (self.spec.samples_per_step() * self.spec.batch.sequence_length as u64) as f64
    }

    fn set_state(&mut self, tools: &Tools<'_>, state: State, reason: String) {
        if (self.board.record.state, &self.board.record.reason) == (state, &reason) {
            return;
        }
        self.board.record.state = state;
        self.board.record.reason = reason;
        self.save(tools);
    }

    /// Stores the record and shows it to whoever watches.
    pub(crate) fn save(&mut self, tools: &Tools<'_>) {
        if !self.board.is_over() {
            self.board.record.step = self.machine.committed();
        }
        tools.recorder.job(self.board.record.clone());
        self.show();
    }

    fn show(&self) {
        self.board.show(wire::update::What::Job(self.describe()));
    }

    fn end(&mut self, tools: &Tools<'_>, outcome: Outcome, effects: &mut Vec<Effect>) {
        let (state, reason) = match outcome {
            Outcome::Done { weights } => {
                self.seen.weights = weights;
                self.seen.wall_seconds = self.started.elapsed().as_secs_f64();
                effects.push(Effect::Summarize);
                (State::Done, "all steps are committed".to_owned())
            }
            Outcome::Failed(reason) => (State::Failed, reason),
            Outcome::Cancelled => (
                State::Cancelled,
                format!("cancelled after step {}", self.machine.committed()),
            ),
        };
        self.board.record.reason = reason;
        self.board.record.state = state;
        self.board.record.step = self.machine.committed();
        // A finished job is shown as such, and its ranks leave, once all is written: until then another coordinator
        // may have to take it up.
        if state != State::Done {
            self.close(tools);
        }
    }

    /// Stores how the job ended, and lets its ranks go.
    fn close(&mut self, tools: &Tools<'_>) {
        self.save(tools);
        tools.recorder.close(self.board.name());
        let how = self.board.record.reason.clone();
        let ended = wire::rank_down::What::Ended(wire::Ended { how });
        self.ranks.send_all(&ended);
    }

    /// What the summary needs besides the ledger: the spec, the folder and what was seen.
    pub(crate) fn to_summarize(&self) -> (Spec, PathBuf, Seen) {
        (
            self.spec.clone(),
            self.board.record.out.clone(),
            self.seen.clone(),
        )
    }

    /// The summary is written, or cannot be.
    pub(crate) fn summarized(&mut self, tools: &Tools<'_>, result: Result<serde_json::Value, String>) {
        match result {
            Ok(value) => self.board.record.summary = Some(value),
            Err(error) => {
                self.board.record.state = State::Failed;
                self.board.record.reason = format!("write the summary: {error}");
            }
        }
        self.close(tools);
    }
}

#[cfg(test)]
mod tests;
