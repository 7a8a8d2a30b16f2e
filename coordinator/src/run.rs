//! One job in the coordinator: its machine, the streams of its processes, and the people who watch.
//!
//! | module | what it does |
//! |---|---|
//! | `training` | a job that trains: the engine's machine for it, and what is done of what it commands |
//! | `build` | a job that builds a dataset: likewise |
//! | `board` | what people see of a job |
//! | `tail` | what they read line by line |
//! | `ranks` | the streams down to its processes |

mod board;
mod build;
mod ranks;
mod tail;
mod training;

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step, WorkerId};
use lockstep_engine::job::{self, NoteKind};
use lockstep_engine::placement::{Demand, Slot};
use lockstep_engine::tasks;
use lockstep_engine::time::Instant;
use lockstep_proto::wire;
use tokio::sync::{broadcast, mpsc};
use tonic::Status;

use crate::recorder::Recorder;
use crate::summary::Evaluation;
use board::Board;
pub(crate) use board::unix_ms;
pub(crate) use build::{Build, log_folder};
use ranks::Ranks;
pub(crate) use tail::Tail;
pub(crate) use training::Training;

/// Down to a process of a job.
pub(crate) type RankSender = mpsc::Sender<Result<wire::RankDown, Status>>;

/// A job that has not been forgotten yet.
pub(crate) enum Run {
    Training(Box<Training>),
    Build(Box<Build>),
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

/// What a process of a job says.
#[derive(Debug)]
pub(crate) enum Heard {
    /// It is alive.
    Heartbeat(WorkerId),
    /// It cannot go on, for a reason that another process would meet as well.
    Fatal { worker: WorkerId, reason: String },
    /// Something of training.
    Training {
        event: job::Event,
        evaluation: Option<Evaluation>,
    },
    /// Something of a build.
    Build(tasks::Event),
}

impl Heard {
    /// Who takes part from now on, if that is what it says.
    pub(crate) fn came(&self) -> Option<&WorkerId> {
        match self {
            Self::Training {
                event: job::Event::Joined { worker, .. },
                ..
            }
            | Self::Build(tasks::Event::Entered { worker, .. }) => Some(worker),
            _ => None,
        }
    }
}

impl Run {
    fn parts(&self) -> (&Board, &Ranks) {
        match self {
            Self::Training(run) => (&run.board, &run.ranks),
            Self::Build(run) => (&run.board, &run.ranks),
        }
    }

    fn parts_mut(&mut self) -> (&mut Board, &mut Ranks) {
        match self {
            Self::Training(run) => (&mut run.board, &mut run.ranks),
            Self::Build(run) => (&mut run.board, &mut run.ranks),
        }
    }

    pub(crate) fn board(&self) -> &Board {
        self.parts().0
    }

    fn board_mut(&mut self) -> &mut Board {
        self.parts_mut().0
    }

    pub(crate) fn name(&self) -> &JobId {
        self.board().name()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.board().is_over()
    }

    /// Changes to come, unless there are none.
    pub(crate) fn subscribe(&self) -> Option<broadcast::Receiver<wire::Update>> {
        let awaits_summary = matches!(self, Self::Training(run) if run.awaits_summary());
        (!self.is_over() || awaits_summary).then(|| self.board().subscribe())
    }

    pub(crate) fn tail(&self, logs: bool) -> &Tail {
        self.board().tail(logs)
    }

    pub(crate) fn log_line(&mut self, tools: &Tools<'_>, worker: &str, text: &str) {
        self.board_mut().log_line(tools, worker, text);
    }

    pub(crate) fn note(&mut self, tools: &Tools<'_>, kind: NoteKind, text: String) {
        self.board_mut().note(tools, kind, text);
    }

    /// The job as people see it.
    pub(crate) fn describe(&self) -> wire::Job {
        match self {
            Self::Training(run) => run.describe(),
            Self::Build(run) => run.describe(),
        }
    }

    pub(crate) fn demand(&self, placed: u32) -> Demand {
        match self {
            Self::Training(run) => run.demand(placed),
            Self::Build(run) => run.demand(placed),
        }
    }

    /// Its processes on this machine whose streams are open.
    pub(crate) fn ranks_of(&self, node: &NodeId) -> Vec<WorkerId> {
        self.parts().1.on(node)
    }

    /// Whether the stream of a process in this slot is open.
    pub(crate) fn has_rank_in(&self, slot: &Slot) -> bool {
        self.parts().1.any_in(slot)
    }

    /// Whether this is the stream that counts of a process.
    pub(crate) fn is_connected(&self, worker: &WorkerId, connection: u64) -> bool {
        self.parts().1.counts(worker, connection)
    }

    /// A process's stream is open: tell it what to do.
    pub(crate) fn connect(
        &mut self,
        tools: &Tools<'_>,
        worker: WorkerId,
        connection: u64,
        down: RankSender,
    ) -> Vec<Effect> {
        use wire::rank_down::What;
        let builds = matches!(self, Self::Build(_));
        let (board, ranks) = self.parts_mut();
        let what = if board.is_over() {
            let how = board.record.reason.clone();
            What::Ended(wire::Ended { how })
        } else {
            What::Welcome(wire::Welcome {
                spec: board.record.spec.clone(),
                out: board.record.out.display().to_string(),
                builds,
            })
        };
        ranks.insert(worker.clone(), connection, down);
        ranks.send(&worker, what);
        match self {
            Self::Training(_) => Vec::new(),
            Self::Build(run) => run.give(tools, tasks::Event::Joined(worker)),
        }
    }

    /// A process's stream is closed.
    pub(crate) fn disconnect(&mut self, tools: &Tools<'_>, worker: WorkerId, reason: String) -> Vec<Effect> {
        self.parts_mut().1.remove(&worker);
        match self {
            Self::Training(run) => run.give(tools, job::Event::Left { worker, reason }),
            Self::Build(run) => run.give(tools, tasks::Event::Left { worker, reason }),
        }
    }

    /// A process ended. If that has happened too often, the job fails.
    pub(crate) fn exited(&mut self, tools: &Tools<'_>, worker: WorkerId, how: &str) -> Vec<Effect> {
        if self.is_over() {
            return Vec::new();
        }
        let name = worker.to_string();
        let mut effects = self.disconnect(tools, worker, format!("its process ended: {how}"));
        let too_often = match self {
            Self::Training(run) => run.exited(&name, how),
            Self::Build(run) => run.exited(&name, how),
        };
        if let Some(reason) = too_often {
            effects.extend(self.fail(tools, reason));
        }
        effects
    }

    /// A process says something.
    pub(crate) fn hear(&mut self, tools: &Tools<'_>, heard: Heard) -> Vec<Effect> {
        match (self, heard) {
            (Self::Training(run), Heard::Heartbeat(worker)) => run.give(tools, job::Event::Heartbeat(worker)),
            (Self::Training(run), Heard::Fatal { worker, reason }) => {
                run.give(tools, job::Event::Fatal { worker, reason })
            }
            (Self::Training(run), Heard::Training { event, evaluation }) => {
                if let Some(evaluation) = evaluation {
                    run.evaluated(evaluation);
                }
                run.give(tools, event)
            }
            (Self::Build(run), Heard::Heartbeat(worker)) => run.give(tools, tasks::Event::Heartbeat(worker)),
            (Self::Build(run), Heard::Fatal { worker, reason }) => {
                run.give(tools, tasks::Event::Fatal { worker, reason })
            }
            (Self::Build(run), Heard::Build(event)) => run.give(tools, event),
            (Self::Training(_), Heard::Build(_)) | (Self::Build(_), Heard::Training { .. }) => {
                tracing::warn!("a word that is not of this kind of job; passed over");
                Vec::new()
            }
        }
    }

    pub(crate) fn tick(&mut self, tools: &Tools<'_>) -> Vec<Effect> {
        match self {
            Self::Training(run) => run.give(tools, job::Event::Tick),
            Self::Build(run) => run.give(tools, tasks::Event::Tick),
        }
    }

    pub(crate) fn cancel(&mut self, tools: &Tools<'_>) -> Vec<Effect> {
        match self {
            Self::Training(run) => run.give(tools, job::Event::Cancel),
            Self::Build(run) => run.give(tools, tasks::Event::Cancel),
        }
    }

    /// The worker's node is wanted for something else.
    pub(crate) fn drain(&mut self, tools: &Tools<'_>, worker: WorkerId) -> Vec<Effect> {
        match self {
            Self::Training(run) => run.give(tools, job::Event::Drain(worker)),
            Self::Build(run) => run.give(tools, tasks::Event::Drain(worker)),
        }
    }

    /// How many processes have been asked for and may be expected soon.
    pub(crate) fn expect(&mut self, tools: &Tools<'_>, count: u32) -> Vec<Effect> {
        match self {
            Self::Training(run) => run.give(tools, job::Event::Expected(count)),
            Self::Build(run) => {
                run.expect(count);
                Vec::new()
            }
        }
    }

    /// All ledger entries up to this step are safe on disk.
    pub(crate) fn recorded(&mut self, tools: &Tools<'_>, epoch: Epoch, step: Step) -> Vec<Effect> {
        match self {
            Self::Training(run) => run.give(tools, job::Event::Recorded { epoch, step }),
            Self::Build(_) => Vec::new(),
        }
    }

    /// The epoch is stored: what waited for it goes on.
    pub(crate) fn persisted(&mut self, tools: &Tools<'_>, epoch: Epoch) -> Vec<Effect> {
        match self {
            Self::Training(run) => run.persisted(tools, epoch),
            Self::Build(_) => Vec::new(),
        }
    }

    /// The summary is written, or cannot be.
    pub(crate) fn summarized(&mut self, tools: &Tools<'_>, result: Result<serde_json::Value, String>) {
        if let Self::Training(run) = self {
            run.summarized(tools, result);
        }
    }

    /// The store takes nothing for now, for this reason, or takes it again.
    pub(crate) fn store_away(&mut self, tools: &Tools<'_>, problem: Option<&str>) {
        match self {
            Self::Training(run) => run.store_away(tools, problem),
            Self::Build(run) => run.store_away(tools, problem),
        }
    }

    /// Ends the job for a reason that its machine did not see.
    pub(crate) fn fail(&mut self, tools: &Tools<'_>, reason: String) -> Vec<Effect> {
        if self.is_over() {
            return Vec::new();
        }
        tracing::error!(job = %self.name(), %reason, "job fails");
        self.note(tools, NoteKind::Ended, format!("failed: {reason}"));
        match self {
            Self::Training(run) => run.fail(tools, reason),
            Self::Build(run) => {
                run.fail(tools, reason);
                Vec::new()
            }
        }
    }
}
