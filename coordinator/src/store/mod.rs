//! What survives the coordinator: job records, epochs, the ledger of committed steps, checkpoints, drained nodes.
//!
//! Only what cannot be rebuilt is here. Membership, leases and who holds what are learned anew from the workers.
//!
//! | module | where it is kept |
//! |---|---|
//! | [`redb`] | in one file, for one coordinator |
//! | `etcd` | in an etcd cluster, for several coordinators of which one leads (cargo feature `etcd`) |

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod redb;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;
use std::path::PathBuf;

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step};
use lockstep_engine::ledger::Entry;
use serde::{Deserialize, Serialize};

/// Where a job stands, as people see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for slots.
    Queued,
    /// Has ranks.
    Running,
    /// Has too few workers to go on.
    Paused,
    /// All steps are committed.
    Done,
    /// Cannot go on.
    Failed,
    /// A person ended it.
    Cancelled,
}

impl State {
    /// Whether nothing more will happen.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// A job as it was submitted, and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its name.
    pub name: JobId,
    /// The spec, as TOML.
    pub spec: String,
    /// The run's folder.
    pub out: PathBuf,
    /// Milliseconds since 1970.
    pub submitted_ms: u64,
    /// Where it stands.
    pub state: State,
    /// Why.
    pub reason: String,
    /// `summary.json`, once it is done.
    pub summary: Option<serde_json::Value>,
    /// The last step that was committed when this was stored.
    #[serde(default)]
    pub step: Step,
    /// What it does.
    #[serde(default)]
    pub kind: Kind,
}

/// What a job does, and so what its spec and folder are of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// It trains a model.
    #[default]
    Training,
    /// It builds a dataset.
    Build {
        /// No more processes than so many.
        max_workers: u32,
    },
}

pub use lockstep_engine::ledger::Change;

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("open the store {}: {source}; is another coordinator using it?", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ::redb::DatabaseError,
    },
    /// The folder cannot be made.
    #[error("create the folder {}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A read or write failed.
    #[error("{action}: {source}")]
    Database {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: ::redb::Error,
    },
    /// A row is not what this version writes.
    #[error("{action}: {problem}; the store was written by another version")]
    Row {
        /// Verb and object.
        action: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The disk has no room: the write may have happened or not. Worth another try.
    #[error("{action}: the store has no space: {source}; free some, it is tried again until there is")]
    Full {
        /// Verb and object.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The store did not answer, or not in time: the write may have happened or not. Worth another try.
    #[error("{action}: the store is unavailable: {problem}")]
    Unavailable {
        /// Verb and object.
        action: &'static str,
        /// Why.
        problem: String,
    },
    /// The store will not do it, now or later.
    #[error("{action}: the store refused: {problem}")]
    Refused {
        /// Verb and object.
        action: &'static str,
        /// Why.
        problem: String,
    },
    /// Somebody else raised the epoch.
    #[error("epoch of {job} is {found}, expected {expected}; another coordinator leads this job")]
    Fenced {
        /// Whose.
        job: JobId,
        /// What this coordinator believed.
        expected: Epoch,
        /// What is stored.
        found: Epoch,
    },
    /// This coordinator is not the leader any more: nothing was written, and nothing will be.
    #[error("{action}: this coordinator does not lead any more")]
    Deposed {
        /// Verb and object.
        action: &'static str,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable { .. }
                | Self::Full { .. }
                | Self::Database {
                    source: ::redb::Error::PreviousIo,
                    ..
                }
        )
    }

    /// Whether the embedded store must be opened anew.
    fn broke_the_file(&self) -> bool {
        use ::redb::Error;
        match self {
            Self::Full { .. } => true,
            Self::Database { source, .. } => matches!(source, Error::Io(_) | Error::PreviousIo),
            _ => false,
        }
    }

    /// Whether somebody else leads: whoever gets this must stop.
    #[must_use]
    pub fn is_deposition(&self) -> bool {
        matches!(self, Self::Fenced { .. } | Self::Deposed { .. })
    }
}

/// A place that keeps what must survive.
///
/// Reads see all writes that were answered before. Errors are those of [`StoreError`]; a write that failed with a
/// retryable one may be repeated as it is.
#[tonic::async_trait]
pub trait Store: std::fmt::Debug + Send + Sync {
    /// All job records, oldest first.
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError>;

    /// Stores a job record over any of its name.
    async fn put_job(&self, job: &JobRecord) -> Result<(), StoreError>;

    /// The last epoch of `job`, zero if there was none.
    async fn epoch(&self, job: &JobId) -> Result<Epoch, StoreError>;

    /// Raises the epoch of `job` from `expected` to `next`; [`StoreError::Fenced`] if it is another.
    async fn raise_epoch(&self, job: &JobId, expected: Epoch, next: Epoch) -> Result<(), StoreError>;

    /// Applies changes to the ledger of `job`, in order. After an error some of the first may be applied;
    /// applying all again gives what one success would have given.
    async fn change(&self, job: &JobId, changes: &[Change]) -> Result<(), StoreError>;

    /// The committed steps of `job`, in order.
    async fn ledger(&self, job: &JobId) -> Result<Vec<Entry>, StoreError>;

    /// The last committed step of `job`, zero if there is none.
    async fn last_step(&self, job: &JobId) -> Result<Step, StoreError>;

    /// The recorded checkpoints of `job`, in order: step and digest of the weights.
    async fn checkpoints(&self, job: &JobId) -> Result<Vec<(Step, String)>, StoreError>;

    /// The nodes that are to get no new ranks.
    async fn drained(&self) -> Result<BTreeSet<NodeId>, StoreError>;

    /// Remembers whether a node is drained.
    async fn set_drained(&self, node: &NodeId, drained: bool) -> Result<(), StoreError>;
}

/// Whether an error says that the disk has no room, at all or for this user.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded)
}

fn encode(action: &'static str, value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Row {
        action,
        problem: error.to_string(),
    })
}

fn decode<T: serde::de::DeserializeOwned>(action: &'static str, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Row {
        action,
        problem: error.to_string(),
    })
}

fn node_of(action: &'static str, text: &str) -> Result<NodeId, StoreError> {
    text.parse()
        .map_err(|error: lockstep_engine::ids::InvalidId| StoreError::Row {
            action,
            problem: error.to_string(),
        })
}
