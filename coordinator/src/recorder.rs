//! A thread that writes what a run leaves behind: the ledger in the store, `events.jsonl` and `metrics.jsonl` in
//! the run's folder. No write is on a step's path; order is kept, so a checkpoint is never recorded before the
//! steps that it contains.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use lockstep_engine::ids::JobId;
use tokio::sync::oneshot;

use crate::store::{Change, Store};

/// A file of a run's folder to which lines are appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Log {
    Events,
    Metrics,
    Workers,
}

impl Log {
    pub(crate) const ALL: [Self; 3] = [Self::Events, Self::Metrics, Self::Workers];

    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Events => "events.jsonl",
            Self::Metrics => "metrics.jsonl",
            Self::Workers => "workers.log",
        }
    }
}

#[derive(Debug)]
enum Work {
    Ledger(JobId, Change),
    Line {
        job: JobId,
        out: PathBuf,
        log: Log,
        text: String,
    },
    Close(JobId),
    Flush(oneshot::Sender<()>),
}

/// Where to send work; the thread ends when all are gone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    work: Sender<Work>,
}

impl Recorder {
    /// Starts the thread. `failed` is told once a job, with a reason, when its records cannot be written.
    pub(crate) fn start(
        store: Arc<Store>,
        failed: impl Fn(JobId, String) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (work, queue) = channel();
        std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || record(&store, &queue, failed))?;
        Ok(Self { work })
    }

    fn send(&self, work: Work) {
        if self.work.send(work).is_err() {
            tracing::error!("the recorder is gone; nothing more is written");
        }
    }

    pub(crate) fn change(&self, job: &JobId, change: Change) {
        self.send(Work::Ledger(job.clone(), change));
    }

    pub(crate) fn line(&self, job: &JobId, out: &Path, log: Log, text: String) {
        self.send(Work::Line {
            job: job.clone(),
            out: out.to_owned(),
            log,
            text,
        });
    }

    pub(crate) fn close(&self, job: &JobId) {
        self.send(Work::Close(job.clone()));
    }

    /// Waits until all that was sent before is written.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        self.send(Work::Flush(done));
        wait.await.ok();
    }
}

fn record(store: &Store, queue: &Receiver<Work>, failed: impl Fn(JobId, String)) {
    let mut files: HashMap<(JobId, Log), File> = HashMap::new();
    let mut broken: Vec<JobId> = Vec::new();
    while let Ok(first) = queue.recv() {
        // All that has piled up goes into one transaction a job.
        let batch: Vec<Work> = std::iter::once(first).chain(queue.try_iter()).collect();
        let mut changes: HashMap<JobId, Vec<Change>> = HashMap::new();
        let mut waiting = Vec::new();
        let mut problems: Vec<(JobId, String)> = Vec::new();
        for work in batch {
            match work {
                Work::Ledger(job, change) => changes.entry(job).or_default().push(change),
                Work::Line { job, out, log, text } => {
                    if let Err(error) = append(&mut files, &job, &out, log, &text) {
                        let path = out.join(log.file_name());
                        problems.push((job, format!("write {}: {error}", path.display())));
                    }
                }
                Work::Close(job) => files.retain(|(of, _), _| *of != job),
                Work::Flush(done) => waiting.push(done),
            }
        }
        for (job, changes) in changes {
            if let Err(error) = store.change(&job, &changes) {
                problems.push((job, error.to_string()));
            }
        }
        for (job, problem) in problems {
            if !broken.contains(&job) {
                broken.push(job.clone());
                failed(job, problem);
            }
        }
        for done in waiting {
            done.send(()).ok();
        }
    }
}

fn append(
    files: &mut HashMap<(JobId, Log), File>,
    job: &JobId,
    out: &Path,
    log: Log,
    text: &str,
) -> std::io::Result<()> {
    let key = (job.clone(), log);
    if !files.contains_key(&key) {
        let file = File::options()
            .create(true)
            .append(true)
            .open(out.join(log.file_name()))?;
        files.insert(key.clone(), file);
    }
    match files.get_mut(&key) {
        Some(file) => file.write_all(format!("{text}\n").as_bytes()),
        None => Ok(()),
    }
}
