//! What survives the coordinator: job records, epochs, the ledger of committed steps, and checkpoints.
//!
//! Only what cannot be rebuilt is here. Membership, leases and who holds what are learned anew from the workers.
//! Embedded, one file, one process.

use std::path::{Path, PathBuf};

use lockstep_engine::ids::{Epoch, JobId, Step};
use lockstep_engine::ledger::Entry;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const EPOCHS: TableDefinition<'_, &str, u64> = TableDefinition::new("epochs");
const LEDGER: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("ledger");
const CHECKPOINTS: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("checkpoints");

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
}

/// What went wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened.
    #[error("open the store {}: {source}; is another coordinator using it?", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: redb::DatabaseError,
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
        source: redb::Error,
    },
    /// A row is not what this version writes.
    #[error("{action}: {source}; the store was written by another version")]
    Row {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: serde_json::Error,
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
}

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |source| StoreError::Database {
        action,
        source: source.into(),
    }
}

fn row(action: &'static str) -> impl Fn(serde_json::Error) -> StoreError {
    move |source| StoreError::Row { action, source }
}

/// A change to a job's ledger; changes are applied in the order they were made.
#[derive(Clone, Debug)]
pub enum Change {
    /// A step was committed.
    Append(Entry),
    /// Nothing after this step counts any more.
    Truncate(Step),
    /// A checkpoint is complete, its weights have this digest.
    Checkpoint(Step, String),
}

/// The embedded store.
#[derive(Debug)]
pub struct Store {
    database: Database,
}

impl Store {
    /// Opens or creates `coordinator.redb` in `folder`.
    ///
    /// # Errors
    /// When the folder or file cannot be made or read, or another process holds it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let problem = |source| StoreError::Folder {
            path: folder.to_owned(),
            source,
        };
        std::fs::create_dir_all(folder).map_err(problem)?;
        let path = folder.join("coordinator.redb");
        let database = Database::create(&path).map_err(|source| StoreError::Open { path, source })?;
        let create = "create the store's tables";
        let write = database.begin_write().map_err(failed(create))?;
        write.open_table(JOBS).map_err(failed(create))?;
        write.open_table(EPOCHS).map_err(failed(create))?;
        write.open_table(LEDGER).map_err(failed(create))?;
        write.open_table(CHECKPOINTS).map_err(failed(create))?;
        write.commit().map_err(failed(create))?;
        Ok(Self { database })
    }

    /// All job records, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        let action = "read jobs";
        let read = self.database.begin_read().map_err(failed(action))?;
        let table = read.open_table(JOBS).map_err(failed(action))?;
        let mut jobs = Vec::new();
        for item in table.iter().map_err(failed(action))? {
            let (_, value) = item.map_err(failed(action))?;
            jobs.push(serde_json::from_slice(value.value()).map_err(row(action))?);
        }
        jobs.sort_by_key(|job: &JobRecord| job.submitted_ms);
        Ok(jobs)
    }

    /// Stores a job record over any of its name.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn put_job(&self, job: &JobRecord) -> Result<(), StoreError> {
        let action = "store the job";
        let value = serde_json::to_vec(job).map_err(row(action))?;
        let write = self.database.begin_write().map_err(failed(action))?;
        {
            let mut table = write.open_table(JOBS).map_err(failed(action))?;
            table
                .insert(job.name.as_str(), value.as_slice())
                .map_err(failed(action))?;
        }
        write.commit().map_err(failed(action))
    }

    /// The last epoch of `job`, zero if there was none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn epoch(&self, job: &JobId) -> Result<Epoch, StoreError> {
        let action = "read the epoch";
        let read = self.database.begin_read().map_err(failed(action))?;
        let table = read.open_table(EPOCHS).map_err(failed(action))?;
        let found = table.get(job.as_str()).map_err(failed(action))?;
        Ok(Epoch(found.map_or(0, |value| value.value())))
    }

    /// Raises the epoch of `job` from `expected` to `next`, unless somebody else has raised it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`], or when the store cannot be written.
    pub fn raise_epoch(&self, job: &JobId, expected: Epoch, next: Epoch) -> Result<(), StoreError> {
        let action = "store the epoch";
        let write = self.database.begin_write().map_err(failed(action))?;
        {
            let mut table = write.open_table(EPOCHS).map_err(failed(action))?;
            let found = table
                .get(job.as_str())
                .map_err(failed(action))?
                .map_or(0, |value| value.value());
            if found != expected.0 {
                return Err(StoreError::Fenced {
                    job: job.clone(),
                    expected,
                    found: Epoch(found),
                });
            }
            table.insert(job.as_str(), next.0).map_err(failed(action))?;
        }
        write.commit().map_err(failed(action))
    }

    /// Applies changes to the ledger of `job`, all or none.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn change(&self, job: &JobId, changes: &[Change]) -> Result<(), StoreError> {
        let action = "write the ledger";
        let write = self.database.begin_write().map_err(failed(action))?;
        {
            let mut ledger = write.open_table(LEDGER).map_err(failed(action))?;
            let mut checkpoints = write.open_table(CHECKPOINTS).map_err(failed(action))?;
            let name = job.as_str();
            for change in changes {
                match change {
                    Change::Append(entry) => {
                        let value = serde_json::to_vec(entry).map_err(row(action))?;
                        ledger
                            .insert((name, entry.step.0), value.as_slice())
                            .map_err(failed(action))?;
                    }
                    Change::Truncate(step) => {
                        let beyond = (name, step.0 + 1)..=(name, u64::MAX);
                        ledger
                            .retain_in(beyond.clone(), |_, _| false)
                            .map_err(failed(action))?;
                        checkpoints
                            .retain_in(beyond, |_, _| false)
                            .map_err(failed(action))?;
                    }
                    Change::Checkpoint(step, weights) => {
                        checkpoints
                            .insert((name, step.0), weights.as_str())
                            .map_err(failed(action))?;
                    }
                }
            }
        }
        write.commit().map_err(failed(action))
    }

    /// The committed steps of `job`, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn ledger(&self, job: &JobId) -> Result<Vec<Entry>, StoreError> {
        let action = "read the ledger";
        let read = self.database.begin_read().map_err(failed(action))?;
        let table = read.open_table(LEDGER).map_err(failed(action))?;
        let range = (job.as_str(), 0)..=(job.as_str(), u64::MAX);
        let mut entries = Vec::new();
        for item in table.range(range).map_err(failed(action))? {
            let (_, value) = item.map_err(failed(action))?;
            entries.push(serde_json::from_slice(value.value()).map_err(row(action))?);
        }
        Ok(entries)
    }

    /// The last committed step of `job`, zero if there is none.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn last_step(&self, job: &JobId) -> Result<Step, StoreError> {
        let action = "read the ledger";
        let read = self.database.begin_read().map_err(failed(action))?;
        let table = read.open_table(LEDGER).map_err(failed(action))?;
        let mut range = table
            .range((job.as_str(), 0)..=(job.as_str(), u64::MAX))
            .map_err(failed(action))?;
        let last = range.next_back().transpose().map_err(failed(action))?;
        Ok(Step(last.map_or(0, |(key, _)| key.value().1)))
    }

    /// The recorded checkpoints of `job`: step and digest of the weights.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn checkpoints(&self, job: &JobId) -> Result<Vec<(Step, String)>, StoreError> {
        let action = "read checkpoints";
        let read = self.database.begin_read().map_err(failed(action))?;
        let table = read.open_table(CHECKPOINTS).map_err(failed(action))?;
        let range = (job.as_str(), 0)..=(job.as_str(), u64::MAX);
        let mut found = Vec::new();
        for item in table.range(range).map_err(failed(action))? {
            let (key, value) = item.map_err(failed(action))?;
            found.push((Step(key.value().1), value.value().to_owned()));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::ids::WorkerId;
    use lockstep_engine::ledger::Span;

    fn entry(step: u64) -> Entry {
        let worker = WorkerId {
            node: "n".parse().unwrap(),
            slot: 0,
            incarnation: u128::MAX,
        };
        let spans = vec![Span {
            positions: step * 2..step * 2 + 2,
            worker,
        }];
        let (epoch, digest) = (Epoch(1), format!("d{step}"));
        Entry {
            step: Step(step),
            epoch,
            workers: 1,
            digest,
            loss: 0.1,
            spans,
            milliseconds: 1.5,
        }
    }

    #[test]
    fn what_was_stored_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b): (JobId, JobId) = ("a".parse().unwrap(), "b".parse().unwrap());
        let record = JobRecord {
            name: a.clone(),
            spec: "x".into(),
            out: "/tmp/a".into(),
            submitted_ms: 5,
            state: State::Running,
            reason: "why".into(),
            summary: None,
        };
        {
            let store = Store::open(folder.path()).unwrap();
            store.put_job(&record).unwrap();
            store.raise_epoch(&a, Epoch(0), Epoch(3)).unwrap();
            let changes: Vec<Change> = (1..=5).map(|step| Change::Append(entry(step))).collect();
            store.change(&a, &changes).unwrap();
            store.change(&b, &changes[..1]).unwrap();
            store
                .change(
                    &a,
                    &[
                        Change::Checkpoint(Step(2), "w2".into()),
                        Change::Checkpoint(Step(4), "w4".into()),
                    ],
                )
                .unwrap();
            store.change(&a, &[Change::Truncate(Step(3))]).unwrap();
            assert!(
                matches!(Store::open(folder.path()), Err(StoreError::Open { .. })),
                "one process at a time"
            );
        }
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.jobs().unwrap(), [record]);
        assert_eq!(store.ledger(&a).unwrap(), (1..=3).map(entry).collect::<Vec<_>>());
        assert_eq!(store.ledger(&b).unwrap().len(), 1);
        assert_eq!(store.checkpoints(&a).unwrap(), [(Step(2), "w2".to_owned())]);
        assert_eq!(
            (store.epoch(&a).unwrap(), store.epoch(&b).unwrap()),
            (Epoch(3), Epoch(0))
        );
    }

    #[test]
    fn an_epoch_is_raised_only_by_whoever_knows_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let job: JobId = "a".parse().unwrap();
        store.raise_epoch(&job, Epoch(0), Epoch(1)).unwrap();
        let late = store.raise_epoch(&job, Epoch(0), Epoch(1));
        assert!(
            matches!(late, Err(StoreError::Fenced { found: Epoch(1), .. })),
            "{late:?}"
        );
    }
}
