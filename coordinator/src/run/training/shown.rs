//! A job as people see it.

use lockstep_engine::ids::Step;
use lockstep_engine::job::Phase;
use lockstep_proto::wire;

use super::Training;
use crate::run::Tools;
use crate::run::board::shown_state;
use crate::store::State;

impl Training {
    /// Shows people the machine's phase as the job's state.
    pub(super) fn follow_phase(&mut self, tools: &Tools<'_>) {
        let (state, reason) = match self.machine.phase() {
            _ if self.board.is_over() => return,
            Phase::Gathering if self.ranks.is_empty() && self.machine.committed() == Step(0) => {
                (State::Queued, "waiting for workers".to_owned())
            }
            Phase::Gathering => (State::Running, "waiting for workers to be ready".to_owned()),
            Phase::Stepping => (State::Running, "training".to_owned()),
            Phase::Finishing => {
                let reason = match self.machine.last_checkpoint_problem() {
                    Some(problem) => format!(
                        "the last checkpoint cannot be written: {problem}; free space if there is none, it is tried again"
                    ),
                    None => "writing the final checkpoint and evaluating".to_owned(),
                };
                (State::Running, reason)
            }
            Phase::Paused => {
                let need = self.spec.elastic.min_workers;
                (
                    State::Paused,
                    format!(
                        "{} workers, at least {need} are needed",
                        self.machine.workers().len()
                    ),
                )
            }
            Phase::Ended(_) => return,
        };
        let reason = match &self.board.away {
            None => reason,
            Some(problem) if self.persisting.is_some() => format!("waits for its store: {problem}"),
            Some(problem) => format!("{reason}; records are kept: {problem}"),
        };
        self.set_state(tools, state, reason);
    }

    /// The job as people see it.
    pub(crate) fn describe(&self) -> wire::Job {
        let steps = self.spec.train.steps;
        let step = match self.board.record.state {
            State::Done => steps,
            // It may have been over before this coordinator began, which then knows no more of it.
            State::Failed | State::Cancelled => self.board.record.step.0,
            State::Queued | State::Running | State::Paused => self.machine.committed().0,
        };
        let pace = self.pace_ms.filter(|pace| *pace > 0.0);
        let record = &self.board.record;
        // It is shown as done once that is stored.
        let (shown, reason) = match &self.board.away {
            _ if !self.awaits_summary() => (record.state, record.reason.clone()),
            None => (State::Running, "writing the summary".to_owned()),
            Some(problem) => (State::Running, format!("waits for its store: {problem}")),
        };
        wire::Job {
            state: shown_state(shown).into(),
            reason,
            step,
            steps,
            epoch: self.machine.epoch().0,
            workers: self.machine.members().iter().map(ToString::to_string).collect(),
            loss: f64::from(self.last_loss),
            tokens_per_second: pace.map_or(0.0, |pace| self.tokens_per_step() / pace * 1e3),
            seconds_left: pace.map_or(-1.0, |pace| (steps - step.min(steps)) as f64 * pace / 1e3),
            slow: self
                .machine
                .slowest()
                .map_or_else(String::new, |(worker, at)| format!("{worker}, {at}")),
            ..self.board.shown()
        }
    }
}
