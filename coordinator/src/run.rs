//! One job in the coordinator: its machine, the streams of its ranks, and the people who watch.
//!
//! | module | what it does |
//! |---|---|
//! | `shown` | the job as people see it |
//! | `tail` | what they read line by line |

mod shown;
mod tail;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step, WorkerId};
use lockstep_engine::job::{Command, Event, Guard, Job, NoteKind, Outcome, Past, Rules};
use lockstep_engine::placement::{Demand, Slot};
use lockstep_engine::spec::Spec;
use lockstep_engine::time::Instant;
use lockstep_faults::Point;
use lockstep_proto::wire;
use tokio::sync::{broadcast, mpsc};
use tonic::Status;

use crate::ledger_log;
use crate::lines::Log;
use crate::recorder::Recorder;
use crate::store::{Change, JobRecord, State};
use crate::summary::{Evaluation, Seen};
pub(crate) use tail::Tail;

/// Down to a rank.
pub(crate) type RankSender = mpsc::Sender<Result<wire::RankDown, Status>>;

/// How long the first epoch waits for workers beyond the minimum.
const GATHER: Duration = Duration::from_secs(10);

/// A job that has not been forgotten yet.
pub(crate) struct Run {
    pub(crate) record: JobRecord,
    pub(crate) spec: Spec,
    machine: Job,
    /// Commands that wait for the epoch before them to be stored.
    waiting: VecDeque<Command>,
    persisting: Option<Epoch>,
    /// Why the store takes nothing for now.
    away: Option<String>,
    /// With the number of the stream that counts.
    ranks: BTreeMap<WorkerId, (u64, RankSender)>,
    updates: broadcast::Sender<wire::Update>,
    notes: Tail,
    logs: Tail,
    seen: Seen,
    started: std::time::Instant,
    last_loss: f32,
    /// Mean milliseconds of a step, exponentially weighted.
    pace_ms: Option<f64>,
    /// The highest step that this coordinator has seen committed.
    furthest: Step,
    deaths_since_progress: u32,
}

/// What only the coordinator as a whole can do for a run.
#[derive(Debug, PartialEq)]
pub(crate) enum Effect {
    /// Have the worker's daemon send SIGKILL.
    Kill(WorkerId),
    /// Place no worker of this job in the worker's slot again, for this reason.
    Quarantine(WorkerId, String),
    /// Store the epoch, then say [`Run::persisted`].
    Persist(Epoch),
    /// The job is done; its summary is due once all records are written.
    Summarize,
}

/// The tools that a run works with.
pub(crate) struct Tools<'a> {
    pub(crate) recorder: &'a Recorder,
    pub(crate) now: Instant,
}

impl Run {
    /// A run that has no ranks yet; `epoch` and `committed` are what the store knows.
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
        let tail = |log: Log| Tail::of(&record.out.join(log.file_name()));
        let (notes, logs) = (tail(Log::Events), tail(Log::Workers));
        Self {
            record,
            spec,
            machine: Job::new(rules, epoch, past),
            waiting: VecDeque::new(),
            persisting: None,
            away: None,
            ranks: BTreeMap::new(),
            updates: broadcast::channel(4096).0,
            notes,
            logs,
            seen: Seen::default(),
            started: std::time::Instant::now(),
            last_loss: f32::NAN,
            pace_ms: None,
            furthest: committed,
            deaths_since_progress: 0,
        }
    }

    pub(crate) fn name(&self) -> &JobId {
        &self.record.name
    }

    pub(crate) fn is_over(&self) -> bool {
        self.record.state.is_over()
    }

    /// Whether it is done but for its summary.
    pub(crate) fn awaits_summary(&self) -> bool {
        self.record.state == State::Done && self.record.summary.is_none()
    }

    pub(crate) fn demand(&self, placed: u32) -> Demand {
        let elastic = &self.spec.elastic;
        let (min_workers, max_workers) = (elastic.min_workers, elastic.max_workers + elastic.spares);
        Demand {
            job: self.name().clone(),
            placed,
            min_workers,
            max_workers,
        }
    }

    /// Ranks on this machine whose streams are open.
    pub(crate) fn ranks_of(&self, node: &NodeId) -> Vec<WorkerId> {
        self.ranks
            .keys()
            .filter(|worker| worker.node == *node)
            .cloned()
            .collect()
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<wire::Update> {
        self.updates.subscribe()
    }

    pub(crate) fn tail(&self, logs: bool) -> &Tail {
        if logs { &self.logs } else { &self.notes }
    }

    pub(crate) fn log_line(&mut self, tools: &Tools<'_>, worker: &str, text: &str) {
        let line = format!("{worker} {text}");
        tools
            .recorder
            .line(self.name(), &self.record.out, Log::Workers, line.clone());
        self.logs.push(line);
    }

    /// A rank's stream is open: tell it what to do.
    pub(crate) fn connect(&mut self, worker: WorkerId, connection: u64, down: RankSender) {
        let what = if self.is_over() {
            wire::rank_down::What::Ended(wire::Ended {
                how: self.record.reason.clone(),
            })
        } else {
            wire::rank_down::What::Welcome(wire::Welcome {
                spec: self.record.spec.clone(),
                out: self.record.out.display().to_string(),
            })
        };
        self.ranks.insert(worker.clone(), (connection, down));
        self.send(&worker, what);
    }

    /// Whether this is the stream that counts of a rank.
    pub(crate) fn is_connected(&self, worker: &WorkerId, connection: u64) -> bool {
        self.ranks
            .get(worker)
            .is_none_or(|(counts, _)| *counts == connection)
    }

    /// Whether the stream of a rank in this slot is open.
    pub(crate) fn has_rank_in(&self, slot: &Slot) -> bool {
        let there = |worker: &WorkerId| worker.node == slot.node && worker.slot == slot.slot;
        self.ranks.keys().any(there)
    }

    /// A rank's stream is closed.
    pub(crate) fn disconnect(&mut self, tools: &Tools<'_>, worker: WorkerId, reason: String) -> Vec<Effect> {
        self.ranks.remove(&worker);
        self.give(tools, Event::Left { worker, reason })
    }

    /// A rank's process ended; says why if that has happened too often.
    pub(crate) fn exited(&mut self, worker: &str, how: &str) -> Option<String> {
        self.deaths_since_progress += 1;
        let limit = 8 + 4 * self.spec.elastic.max_workers;
        (self.deaths_since_progress > limit).then(|| {
            format!(
                "{} rank processes died without a new step being committed, the last ({worker}) with {how}; see `lockstep logs {}`",
                self.deaths_since_progress,
                self.name()
            )
        })
    }

    pub(crate) fn evaluated(&mut self, evaluation: Evaluation) {
        self.seen.evaluation = Some(evaluation);
    }

    fn send(&mut self, worker: &WorkerId, what: wire::rank_down::What) {
        let Some((_, down)) = self.ranks.get(worker) else {
            return;
        };
        if down.try_send(Ok(wire::RankDown { what: Some(what) })).is_err() {
            // Closed, or so far behind that it counts as dead: its stream ends, and the machine will hear of it.
            self.ranks.remove(worker);
        }
    }

    /// Gives the machine an event and carries out its commands.
    pub(crate) fn give(&mut self, tools: &Tools<'_>, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.is_over() {
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
        if (self.is_over() && !self.awaits_summary()) || self.away.as_deref() == problem {
            return;
        }
        match (&self.away, problem) {
            (None, Some(problem)) => self.note(tools, NoteKind::Storage, problem.to_owned()),
            (Some(_), None) => {
                let text = "the store takes records again".to_owned();
                self.note(tools, NoteKind::Storage, text);
            }
            _ => {}
        }
        self.away = problem.map(str::to_owned);
        self.follow_phase(tools);
        if self.awaits_summary() {
            self.show();
        }
    }

    /// Carries out commands up to the next epoch that is not stored yet.
    fn carry_on(&mut self, tools: &Tools<'_>, effects: &mut Vec<Effect>) {
        while self.persisting.is_none() && !self.is_over() {
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
        self.note(tools, NoteKind::Ended, format!("failed: {reason}"));
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
                    self.send(&member.worker, What::Membership(message.clone()));
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
                    self.send(
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
                    self.send(worker, What::Committed(commit));
                }
                lockstep_faults::reach(Point::LeaderAfterCommit, step.0);
            }
            Command::Follow { worker, epoch, donor } => {
                let (epoch, donor) = (epoch.0, Some((&donor).into()));
                self.send(&worker, What::Follow(wire::Follow { epoch, donor }));
            }
            Command::Seal {
                worker,
                step,
                epoch,
                shards,
            } => {
                let (step, epoch) = (step.0, epoch.0);
                self.send(&worker, What::Seal(wire::Seal { step, epoch, shards }));
            }
            Command::Quarantine { worker, reason } => effects.push(Effect::Quarantine(worker, reason)),
            Command::Evict { worker, reason } => {
                self.send(&worker, What::Evicted(wire::Rejected { reason }));
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
            Command::Note { kind, text } => self.note(tools, kind, text),
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
        tools
            .recorder
            .line(self.name(), &self.record.out, Log::Metrics, line.to_string());
        let commit = wire::Commit {
            step: entry.step.0,
            loss: entry.loss,
            milliseconds: entry.milliseconds,
            workers: entry.workers,
        };
        self.updates
            .send(wire::Update {
                what: Some(wire::update::What::Commit(commit)),
            })
            .ok();
        self.change(tools, Change::Append(entry));
    }

    /// Changes the ledger: in the store, which counts, and in the history that stays with the run.
    fn change(&self, tools: &Tools<'_>, change: Change) {
        match ledger_log::line(&change) {
            Ok(line) => tools
                .recorder
                .line(self.name(), &self.record.out, Log::Ledger, line),
            Err(error) => {
                tracing::error!(job = %self.name(), %error, "a change is missing in the run's ledger.jsonl")
            }
        }
        tools.recorder.change(self.name(), change);
    }

    fn tokens_per_step(&self) -> f64 {
        (self.spec.samples_per_step() * self.spec.batch.sequence_length as u64) as f64
    }

    pub(crate) fn note(&mut self, tools: &Tools<'_>, kind: NoteKind, text: String) {
        tracing::info!(job = %self.name(), ?kind, "{text}");
        let kind = serde_json::to_value(kind)
            .ok()
            .and_then(|v| v.as_str().map(str::to_owned))
            .unwrap_or_default();
        let time_ms = unix_ms();
        let line = serde_json::json!({ "time_ms": time_ms, "kind": kind, "text": text }).to_string();
        tools
            .recorder
            .line(self.name(), &self.record.out, Log::Events, line.clone());
        self.notes.push(line);
        let note = wire::Note { time_ms, kind, text };
        self.updates
            .send(wire::Update {
                what: Some(wire::update::What::Note(note)),
            })
            .ok();
    }

    fn set_state(&mut self, tools: &Tools<'_>, state: State, reason: String) {
        if (self.record.state, &self.record.reason) == (state, &reason) {
            return;
        }
        self.record.state = state;
        self.record.reason = reason;
        self.save(tools);
    }

    /// Stores the record and shows it to whoever watches.
    pub(crate) fn save(&mut self, tools: &Tools<'_>) {
        if !self.is_over() {
            self.record.step = self.machine.committed();
        }
        tools.recorder.job(self.record.clone());
        self.show();
    }

    fn show(&self) {
        let job = self.describe();
        self.updates
            .send(wire::Update {
                what: Some(wire::update::What::Job(job)),
            })
            .ok();
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
        self.record.reason = reason;
        self.record.state = state;
        self.record.step = self.machine.committed();
        // A finished job is shown as such, and its ranks leave, once all is written: until then another coordinator
        // may have to take it up.
        if state != State::Done {
            self.close(tools);
        }
    }

    /// Stores how the job ended, and lets its ranks go.
    fn close(&mut self, tools: &Tools<'_>) {
        self.save(tools);
        tools.recorder.close(self.name());
        let how = self.record.reason.clone();
        for worker in self.ranks.keys().cloned().collect::<Vec<_>>() {
            self.send(
                &worker,
                wire::rank_down::What::Ended(wire::Ended { how: how.clone() }),
            );
        }
    }

    /// What the summary needs besides the ledger.
    pub(crate) fn seen(&self) -> Seen {
        self.seen.clone()
    }

    /// The summary is written, or cannot be.
    pub(crate) fn summarized(&mut self, tools: &Tools<'_>, result: Result<serde_json::Value, String>) {
        match result {
            Ok(value) => self.record.summary = Some(value),
            Err(error) => {
                self.record.state = State::Failed;
                self.record.reason = format!("write the summary: {error}");
            }
        }
        self.close(tools);
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as u64)
}

#[cfg(test)]
mod tests;
