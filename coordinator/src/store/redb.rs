//! The embedded store: one file, one process. Each write is one transaction, on disk when it is answered.
//!
//! After a failed write the database takes no other before it is opened anew: the next call does that. So a disk that
//! was full is used again as soon as it has room.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step};
use lockstep_engine::job::Past;
use lockstep_engine::ledger::Entry;
use redb::{
    AccessGuard, Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, WriteTransaction,
};

use super::{Change, JobRecord, Store, StoreError, decode, encode, is_full};

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const EPOCHS: TableDefinition<'_, &str, u64> = TableDefinition::new("epochs");
const LEDGER: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("ledger");
const CHECKPOINTS: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("checkpoints");
const DRAINED: TableDefinition<'_, &str, ()> = TableDefinition::new("drained");

fn failed<E: Into<redb::Error>>(action: &'static str) -> impl Fn(E) -> StoreError {
    move |source| match source.into() {
        redb::Error::Io(error) if is_full(&error) => StoreError::Full {
            action,
            source: error,
        },
        source => StoreError::Database { action, source },
    }
}

/// The embedded store. Clones share it.
#[derive(Clone, Debug)]
pub struct Redb {
    file: Arc<File>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    /// None from a failure until it is open again.
    database: RwLock<Option<Database>>,
}

impl File {
    fn open(&self) -> Result<Database, StoreError> {
        Database::create(&self.path).map_err(|source| match source {
            DatabaseError::Storage(StorageError::Io(error)) if is_full(&error) => StoreError::Full {
                action: "open the store",
                source: error,
            },
            source => StoreError::Open {
                path: self.path.clone(),
                source,
            },
        })
    }

    /// Does something with the database, which is opened before if need be, and closed if it takes no more calls.
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let result = if let Some(database) = open.as_ref() {
            let result = work(database);
            drop(open);
            result
        } else {
            drop(open);
            let mut closed = self.database.write().unwrap_or_else(PoisonError::into_inner);
            let database = match closed.take() {
                Some(database) => database,
                None => self.open()?,
            };
            work(closed.insert(database))
        };
        if result.as_ref().is_err_and(StoreError::broke_the_file) {
            // All that read or write have ended when this is had, so that nothing keeps the file's lock.
            let mut broken = self.database.write().unwrap_or_else(PoisonError::into_inner);
            drop(broken.take());
        }
        result
    }
}

impl Redb {
    /// Opens or creates `coordinator.redb` in `folder`.
    ///
    /// # Errors
    /// When the folder or file cannot be made or read, or another process holds it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(folder).map_err(|source| StoreError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let file = File {
            path: folder.join("coordinator.redb"),
            database: RwLock::new(None),
        };
        let create = "create the store's tables";
        file.with(|database| {
            let write = database.begin_write().map_err(failed(create))?;
            write.open_table(JOBS).map_err(failed(create))?;
            write.open_table(EPOCHS).map_err(failed(create))?;
            write.open_table(LEDGER).map_err(failed(create))?;
            write.open_table(CHECKPOINTS).map_err(failed(create))?;
            write.open_table(DRAINED).map_err(failed(create))?;
            write.commit().map_err(failed(create))
        })?;
        Ok(Self { file: Arc::new(file) })
    }

    /// Reads on a thread that may wait for the disk.
    async fn read<T: Send + 'static>(
        &self,
        action: &'static str,
        read: impl FnOnce(&ReadTransaction) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        let work = move || file.with(|database| read(&database.begin_read().map_err(failed(action))?));
        on_a_thread(action, work).await
    }

    /// Writes all or nothing, likewise.
    async fn write(
        &self,
        action: &'static str,
        write: impl FnOnce(&WriteTransaction) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let file = Arc::clone(&self.file);
        let work = move || {
            file.with(|database| {
                let transaction = database.begin_write().map_err(failed(action))?;
                write(&transaction)?;
                transaction.commit().map_err(failed(action))
            })
        };
        on_a_thread(action, work).await
    }
}

async fn on_a_thread<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let stopped = |error: tokio::task::JoinError| StoreError::Unavailable {
        action,
        problem: error.to_string(),
    };
    tokio::task::spawn_blocking(work).await.map_err(stopped)?
}

#[tonic::async_trait]
impl Store for Redb {
    async fn jobs(&self) -> Result<Vec<JobRecord>, StoreError> {
        let action = "read jobs";
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(JOBS).map_err(failed(action))?;
            let mut jobs = Vec::new();
            for item in table.iter().map_err(failed(action))? {
                let (_, value) = item.map_err(failed(action))?;
                jobs.push(decode(action, value.value())?);
            }
            jobs.sort_by_key(|job: &JobRecord| job.submitted_ms);
            Ok(jobs)
        };
        self.read(action, read).await
    }

    async fn put_job(&self, job: &JobRecord) -> Result<(), StoreError> {
        let action = "store the job";
        let (name, value) = (job.name.clone(), encode(action, job)?);
        let write = move |write: &WriteTransaction| {
            let mut table = write.open_table(JOBS).map_err(failed(action))?;
            table
                .insert(name.as_str(), value.as_slice())
                .map_err(failed(action))?;
            Ok(())
        };
        self.write(action, write).await
    }

    async fn epoch(&self, job: &JobId) -> Result<Epoch, StoreError> {
        let action = "read the epoch";
        let job = job.clone();
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(EPOCHS).map_err(failed(action))?;
            let found = table.get(job.as_str()).map_err(failed(action))?;
            Ok(Epoch(found.map_or(0, |value| value.value())))
        };
        self.read(action, read).await
    }

    async fn raise_epoch(&self, job: &JobId, expected: Epoch, next: Epoch) -> Result<(), StoreError> {
        let action = "store the epoch";
        let job = job.clone();
        let write = move |write: &WriteTransaction| {
            let mut table = write.open_table(EPOCHS).map_err(failed(action))?;
            let found = table
                .get(job.as_str())
                .map_err(failed(action))?
                .map_or(Epoch(0), |value| Epoch(value.value()));
            if found != expected {
                return Err(StoreError::Fenced {
                    job: job.clone(),
                    expected,
                    found,
                });
            }
            table.insert(job.as_str(), next.0).map_err(failed(action))?;
            Ok(())
        };
        self.write(action, write).await
    }

    async fn change(&self, job: &JobId, changes: &[Change]) -> Result<(), StoreError> {
        let action = "write the ledger";
        let (job, changes) = (job.clone(), changes.to_vec());
        let write = move |write: &WriteTransaction| {
            let mut ledger = write.open_table(LEDGER).map_err(failed(action))?;
            let mut checkpoints = write.open_table(CHECKPOINTS).map_err(failed(action))?;
            let name = job.as_str();
            for change in &changes {
                match change {
                    Change::Append(entry) => {
                        let value = encode(action, entry)?;
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
            Ok(())
        };
        self.write(action, write).await
    }

    async fn ledger(&self, job: &JobId) -> Result<Vec<Entry>, StoreError> {
        let action = "read the ledger";
        let job = job.clone();
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(LEDGER).map_err(failed(action))?;
            let range = (job.as_str(), 0)..=(job.as_str(), u64::MAX);
            let mut entries = Vec::new();
            for item in table.range(range).map_err(failed(action))? {
                let (_, value) = item.map_err(failed(action))?;
                entries.push(decode(action, value.value())?);
            }
            Ok(entries)
        };
        self.read(action, read).await
    }

    async fn past(&self, job: &JobId) -> Result<Past, StoreError> {
        let action = "read the ledger";
        let job = job.clone();
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(LEDGER).map_err(failed(action))?;
            let range = (job.as_str(), 0)..=(job.as_str(), u64::MAX);
            let rows = table.range(range).map_err(failed(action))?;
            let row = |item: Result<(_, AccessGuard<'_, &[u8]>), StorageError>| {
                item.map(|(_, value)| value.value().to_vec())
                    .map_err(failed(action))
            };
            super::past_of(action, rows.map(row))
        };
        self.read(action, read).await
    }

    async fn last_step(&self, job: &JobId) -> Result<Step, StoreError> {
        let action = "read the ledger";
        let job = job.clone();
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(LEDGER).map_err(failed(action))?;
            let mut range = table
                .range((job.as_str(), 0)..=(job.as_str(), u64::MAX))
                .map_err(failed(action))?;
            let last = range.next_back().transpose().map_err(failed(action))?;
            Ok(Step(last.map_or(0, |(key, _)| key.value().1)))
        };
        self.read(action, read).await
    }

    async fn checkpoints(&self, job: &JobId) -> Result<Vec<(Step, String)>, StoreError> {
        let action = "read checkpoints";
        let job = job.clone();
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(CHECKPOINTS).map_err(failed(action))?;
            let range = (job.as_str(), 0)..=(job.as_str(), u64::MAX);
            let mut found = Vec::new();
            for item in table.range(range).map_err(failed(action))? {
                let (key, value) = item.map_err(failed(action))?;
                found.push((Step(key.value().1), value.value().to_owned()));
            }
            Ok(found)
        };
        self.read(action, read).await
    }

    async fn drained(&self) -> Result<BTreeSet<NodeId>, StoreError> {
        let action = "read drained nodes";
        let read = move |read: &ReadTransaction| {
            let table = read.open_table(DRAINED).map_err(failed(action))?;
            let mut nodes = BTreeSet::new();
            for item in table.iter().map_err(failed(action))? {
                let (key, _) = item.map_err(failed(action))?;
                nodes.insert(super::node_of(action, key.value())?);
            }
            Ok(nodes)
        };
        self.read(action, read).await
    }

    async fn set_drained(&self, node: &NodeId, drained: bool) -> Result<(), StoreError> {
        let action = "store the drained node";
        let node = node.clone();
        let write = move |write: &WriteTransaction| {
            let mut table = write.open_table(DRAINED).map_err(failed(action))?;
            if drained {
                table.insert(node.as_str(), ()).map_err(failed(action))?;
            } else {
                table.remove(node.as_str()).map_err(failed(action))?;
            }
            Ok(())
        };
        self.write(action, write).await
    }
}
