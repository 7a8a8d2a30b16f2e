//! The build of a dataset: the engine's machine for its tasks, and what is done of what it commands.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_engine::ids::Step;
use lockstep_engine::placement::Demand;
use lockstep_engine::tasks::{Command, Event, Outcome, Tasks};
use lockstep_engine::time::Instant;
use lockstep_proto::wire;
use lockstep_proto::wire::rank_down::What;

use super::board::{Board, shown_state};
use super::ranks::Ranks;
use super::{Effect, Tools};
use crate::store::{JobRecord, State};

/// A worker silent for so long is given up. It says something every [`lockstep_proto::DAEMON_HEARTBEAT`].
const LEASE: Duration = Duration::from_secs(10);
/// So many processes may end one after the other without a task being done, and so many more for each slot that it had:
/// those of a drained node, or of a job of its name before it, are no fault of it.
const DEATHS: u32 = 16;
const DEATHS_A_SLOT: u32 = 4;

/// A build that has not been forgotten yet.
pub(crate) struct Build {
    pub(super) board: Board,
    pub(super) ranks: Ranks,
    machine: Tasks,
    max_workers: u32,
    /// The most slots that it had at once.
    most_slots: u32,
    deaths_since_progress: u32,
    pace: Option<Pace>,
}

/// How fast the tasks of a phase are done.
struct Pace {
    phase: String,
    /// When it was first heard of, with so many tasks done.
    since: Instant,
    from: u32,
    /// When it was heard of last, with so many tasks done.
    heard: Instant,
    done: u32,
}

impl Pace {
    /// What is known once `phase` has so many tasks done.
    fn next(before: Option<Self>, phase: &str, done: u32, now: Instant) -> Self {
        match before {
            Some(pace) if pace.phase == phase => Self {
                heard: now,
                done,
                ..pace
            },
            _ => Self {
                phase: phase.to_owned(),
                since: now,
                from: done,
                heard: now,
                done,
            },
        }
    }

    /// Seconds until all `tasks` are done; none before one is, or when all are.
    fn seconds_left(&self, tasks: u32) -> Option<f64> {
        let (more, left) = (self.done.checked_sub(self.from)?, tasks.checked_sub(self.done)?);
        let seconds = self.heard.since(self.since).as_secs_f64();
        (more > 0 && left > 0).then(|| f64::from(left) * seconds / f64::from(more))
    }
}

/// Where the notes and logs of the build of `out` are: beside it, as it must be empty.
pub(crate) fn log_folder(out: &Path) -> PathBuf {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".job");
    out.with_file_name(name)
}

impl Build {
    /// One that has no workers yet; no more than `max_workers` take part.
    pub(crate) fn new(record: JobRecord, max_workers: u32) -> Self {
        let folder = log_folder(&record.out);
        Self {
            board: Board::new(record, folder),
            ranks: Ranks::default(),
            machine: Tasks::new(LEASE),
            max_workers,
            most_slots: 0,
            deaths_since_progress: 0,
            pace: None,
        }
    }

    pub(super) fn demand(&self, placed: u32) -> Demand {
        Demand {
            job: self.board.name().clone(),
            placed,
            min_workers: 1,
            max_workers: self.max_workers,
        }
    }

    /// It has so many slots now.
    pub(super) fn expect(&mut self, slots: u32) {
        self.most_slots = self.most_slots.max(slots);
    }

    /// A process ended; says why if that has happened too often.
    pub(super) fn exited(&mut self, worker: &str, how: &str) -> Option<String> {
        self.deaths_since_progress += 1;
        let deaths = self.deaths_since_progress;
        (deaths > DEATHS + DEATHS_A_SLOT * self.most_slots).then(|| {
            format!(
                "{deaths} processes ended without a task being done, the last ({worker}) with {how}; see `lockstep logs {}`",
                self.board.name()
            )
        })
    }

    /// Gives the machine an event and carries out its commands.
    pub(super) fn give(&mut self, tools: &Tools<'_>, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.board.is_over() {
            return effects;
        }
        if matches!(event, Event::Done { .. }) {
            self.deaths_since_progress = 0;
        }
        let is_news = !matches!(event, Event::Tick | Event::Heartbeat(_));
        for command in self.machine.step(tools.now, event) {
            self.carry_out(tools, command, &mut effects);
        }
        if is_news && !self.board.is_over() {
            self.measure(tools.now);
            self.follow(tools);
        }
        effects
    }

    fn carry_out(&mut self, tools: &Tools<'_>, command: Command, effects: &mut Vec<Effect>) {
        match command {
            Command::Give { worker, phase, task } => {
                self.ranks.send(&worker, What::Give(wire::Task { phase, task }));
            }
            Command::Over { worker, phase } => {
                self.ranks.send(&worker, What::Over(wire::PhaseOver { phase }));
            }
            Command::Evict { worker, reason } => {
                self.ranks.send(&worker, What::Evicted(wire::Rejected { reason }));
                self.ranks.remove(&worker);
            }
            Command::Kill(worker) => effects.push(Effect::Kill(worker)),
            Command::Note { kind, text } => self.board.note(tools, kind, text),
            Command::End(Outcome::Built(summary)) => {
                self.board.record.summary = serde_json::from_str(&summary).ok();
                self.end(tools, State::Done, "the dataset is in its place".to_owned());
            }
            Command::End(Outcome::Failed(reason)) => self.fail(tools, reason),
            Command::End(Outcome::Cancelled) => {
                let reason = "cancelled; what is done is kept for another try".to_owned();
                self.end(tools, State::Cancelled, reason);
            }
        }
    }

    /// Notes how fast it goes on; from the beginning after there was nobody.
    fn measure(&mut self, now: Instant) {
        let before = self.pace.take();
        let at = self
            .machine
            .progress()
            .filter(|_| self.machine.workers().len() > 0);
        self.pace = at.map(|(phase, done, _)| Pace::next(before, phase, done, now));
    }

    /// Shows people where it stands; stores it when the state is another.
    fn follow(&mut self, tools: &Tools<'_>) {
        let (state, reason) = match self.machine.progress() {
            _ if self.machine.workers().len() == 0 => (State::Queued, "waiting for workers".to_owned()),
            None => (State::Running, "waiting for workers to be ready".to_owned()),
            Some((phase, done, tasks)) => {
                let phase = phase_name(phase);
                (
                    State::Running,
                    format!("{phase}: {done} of {tasks} tasks are done"),
                )
            }
        };
        let is_other = self.board.record.state != state;
        self.board.record.state = state;
        self.board.record.reason = reason;
        if is_other {
            tools.recorder.job(self.board.record.clone());
        }
        self.show();
    }

    pub(super) fn store_away(&mut self, tools: &Tools<'_>, problem: Option<&str>) {
        if !self.board.is_over() && self.board.store_away(tools, problem) {
            self.show();
        }
    }

    fn show(&self) {
        self.board.show(wire::update::What::Job(self.describe()));
    }

    pub(super) fn fail(&mut self, tools: &Tools<'_>, reason: String) {
        self.end(tools, State::Failed, reason);
    }

    /// Stores how it ended, and lets its processes go.
    fn end(&mut self, tools: &Tools<'_>, state: State, reason: String) {
        let record = &mut self.board.record;
        record.state = state;
        record.reason.clone_from(&reason);
        if let Some((_, done, _)) = self.machine.progress() {
            record.step = Step(u64::from(done));
        }
        tools.recorder.job(record.clone());
        tools.recorder.close(self.board.name());
        self.show();
        self.ranks.send_all(&What::Ended(wire::Ended { how: reason }));
    }

    /// The job as people see it.
    pub(super) fn describe(&self) -> wire::Job {
        let record = &self.board.record;
        let (phase, done, tasks) = self.machine.progress().unwrap_or_default();
        let pace = self.pace.as_ref().filter(|_| !self.board.is_over());
        let seconds_left = pace.and_then(|pace| pace.seconds_left(tasks));
        let reason = match &self.board.away {
            Some(problem) => format!("{}; records are kept: {problem}", record.reason),
            None => record.reason.clone(),
        };
        wire::Job {
            state: shown_state(record.state).into(),
            reason,
            step: u64::from(done),
            steps: u64::from(tasks),
            workers: self.machine.workers().map(ToString::to_string).collect(),
            loss: f64::NAN,
            seconds_left: seconds_left.unwrap_or(-1.0),
            phase: Some(phase_name(phase).to_owned()),
            ..self.board.shown()
        }
    }
}

/// The name of a phase without the key that tells it from others of its name.
fn phase_name(phase: &str) -> &str {
    phase.rsplit_once('-').map_or(phase, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_is_of_the_phase_and_of_what_was_done_since_it_was_heard_of() {
        let begin = Instant::default();
        let at = |seconds| begin.after(Duration::from_secs(seconds));
        let pace = Pace::next(None, "documents", 40, begin);
        assert_eq!(pace.seconds_left(100), None);
        let pace = Pace::next(Some(pace), "documents", 50, at(20));
        assert_eq!(pace.seconds_left(100), Some(100.0));
        let pace = Pace::next(Some(pace), "documents", 100, at(90));
        assert_eq!(pace.seconds_left(100), None);
        let pace = Pace::next(Some(pace), "sample", 0, at(91));
        assert_eq!(pace.seconds_left(100), None);
        let pace = Pace::next(Some(pace), "sample", 50, at(101));
        assert_eq!(pace.seconds_left(100), Some(10.0));
    }
}
