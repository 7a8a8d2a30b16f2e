//! The machines' side: a daemon for each node, a rank process for each device.
//!
//! | module | what it does |
//! |---|---|
//! | [`daemon`] | registers the node, starts a rank process for each slot that the coordinator fills, relays logs |
//! | [`endpoints`] | finds the coordinator that leads, among those there are |
//! | [`rank`] | the rank process: joins its job, runs until it is told to leave |
//! | `build` | a process's part in the build of a dataset |
//! | `link` | a rank's stream to the coordinator, opened again when it breaks |
//! | `session` | carries the engine's rank machine between the coordinator's stream and the executor |
//! | `executor` | a thread that owns device, data and data plane, and runs one task at a time |
//! | `checkpoints` | writes a rank's part of each checkpoint while training goes on |
//! | [`network`] | what is trained: the built-in model, or one that is brought |
//! | `memory` | whether a rank's memory is there |
//! | `processor` | which instructions the kernels use, in the log |
//! | `loader` | positions of the sample order to batches |
//! | `validation` | how well the final weights predict the held-out text |
//! | [`lifeline`] | ends a process with its parent, whatever happened to the parent |

mod build;
mod checkpoints;
pub mod daemon;
pub mod endpoints;
mod executor;
pub mod lifeline;
mod link;
mod loader;
mod memory;
pub mod network;
mod processor;
pub mod rank;
mod session;
mod validation;

/// Why a daemon or a rank process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator's address cannot be read.
    #[error("coordinator `{address}`: {problem}; give it as http://HOST:PORT, several with commas")]
    Address {
        /// As given.
        address: String,
        /// Why.
        problem: String,
    },
    /// Nobody answers there.
    #[error(
        "no coordinator at {address}: {problem}; start one with `lockstep coordinator`, or check --coordinator"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        problem: String,
    },
    /// A checkpoint verified, or seemed to, and does not any more. The process that is started next passes it over.
    #[error("{0}; looking for another one")]
    Damaged(String),
    /// Somebody answers, but nobody leads.
    #[error("no coordinator leads: {0}; see the coordinators' logs for why")]
    Leaderless(String),
    /// The coordinator would not have us.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The coordinator's versions and ours differ.
    #[error("{0}")]
    Version(String),
    /// The stream to the coordinator broke.
    #[error("lost the coordinator: {0}")]
    Lost(String),
    /// The coordinator sent this rank away.
    #[error("evicted: {0}")]
    Evicted(String),
    /// The rank cannot go on; the coordinator was told.
    #[error("{0}")]
    Fatal(String),
    /// The system refused something.
    #[error("{action}: {source}")]
    System {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}
