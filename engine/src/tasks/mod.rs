//! The coordinator's machine for a build: which worker does which task, until each is done, whoever dies.
//!
//! A build is phases, one after the other, and a phase is tasks that know nothing of each other. All workers walk through
//! the same phases; which they are, they know, and the machine learns it from them. What a task makes is committed
//! by a rename, so a task that two have done is done all the same: the machine's part is that none is left out, and
//! that none is given to two who are both alive. Nothing of it is stored: what is done can be seen in the work folder.

mod machine;
#[cfg(test)]
mod tests;

pub use machine::Tasks;

use crate::ids::WorkerId;
use crate::job::NoteKind;

/// A worker enters a phase, or says again where it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The phase, by a name that no other phase of the build has.
    pub phase: String,
    /// How many tasks it has.
    pub tasks: u32,
    /// Those that were not done when the worker looked.
    pub open: Vec<u32>,
    /// Those that the worker is at.
    pub holds: Vec<u32>,
    /// How many more it can do at once.
    pub room: u32,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A worker is connected.
    Joined(WorkerId),
    /// It has come to a phase.
    Entered {
        /// Who.
        worker: WorkerId,
        /// Where.
        entry: Entry,
    },
    /// A task's files are in their place. It has room for another one.
    Done {
        /// Who did it.
        worker: WorkerId,
        /// In which phase.
        phase: String,
        /// Which.
        task: u32,
    },
    /// All phases are over: the dataset is in its place.
    Built {
        /// Who has seen it there.
        worker: WorkerId,
        /// What there is to say of it, as JSON.
        summary: String,
    },
    /// A worker says that it is alive.
    Heartbeat(WorkerId),
    /// A worker's connection closed, or its process ended.
    Left {
        /// Who.
        worker: WorkerId,
        /// How it is known.
        reason: String,
    },
    /// A worker cannot go on, for a reason that another process would meet as well.
    Fatal {
        /// Who.
        worker: WorkerId,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The worker's node is wanted for something else: it is to leave once it has done what it is at.
    Drain(WorkerId),
    /// A person asked for the end.
    Cancel,
    /// Nothing but time passed.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Tell this worker to do a task of the phase that it is in.
    Give {
        /// Whom.
        worker: WorkerId,
        /// In which phase.
        phase: String,
        /// Which.
        task: u32,
    },
    /// Tell this worker that all tasks of the phase are done.
    Over {
        /// Whom.
        worker: WorkerId,
        /// Which.
        phase: String,
    },
    /// Tell this worker that it is out, and close its connection.
    Evict {
        /// Whom.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// Send SIGKILL to this worker's process.
    Kill(WorkerId),
    /// Something that people want to know, with its reason.
    Note {
        /// What it is about.
        kind: NoteKind,
        /// In words.
        text: String,
    },
    /// The build is over.
    End(Outcome),
}

/// How a build ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The dataset is in its place; what there is to say of it, as JSON.
    Built(String),
    /// It cannot go on.
    Failed(String),
    /// A person ended it.
    Cancelled,
}
