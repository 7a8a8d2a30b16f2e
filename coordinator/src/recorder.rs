//! A thread that writes what a run leaves behind: the ledger and the job's state in the store, `events.jsonl` and
//! `metrics.jsonl` in the run's folder. No write is on a step's path; order is kept, so a checkpoint is never
//! recorded before the steps that it contains.
//!
//! While the store is unavailable it tries again and again: for as long as its coordinator leads.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use lockstep_engine::ids::{Epoch, JobId, Step};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::store::{Change, JobRecord, Store, StoreError};

/// Between two tries while the store is unavailable.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

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
    Job(Box<JobRecord>),
    Line {
        job: JobId,
        out: PathBuf,
        log: Log,
        text: String,
    },
    Close(JobId),
    Flush(oneshot::Sender<()>),
}

/// What the recorder has to say.
#[derive(Debug)]
pub(crate) enum Word {
    /// All ledger entries of the job up to this one are safe.
    Recorded { job: JobId, epoch: Epoch, step: Step },
    /// The job's records cannot be written, and why. Said once a job.
    Failed { job: JobId, reason: String },
    /// Somebody else leads.
    Deposed(StoreError),
}

/// Where to send work; the thread ends when all are gone.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    work: Sender<Work>,
}

impl Recorder {
    /// Starts the thread, which says through `tell` what became of its work. Once `over`, it writes nothing more.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        over: CancellationToken,
        tell: impl Fn(Word) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (work, queue) = channel();
        let runtime = tokio::runtime::Handle::current();
        let desk = Desk {
            store,
            over,
            runtime,
            tell,
            files: HashMap::new(),
            broken: Vec::new(),
        };
        std::thread::Builder::new()
            .name("recorder".into())
            .spawn(move || desk.work(&queue))?;
        Ok(Self { work })
    }

    fn send(&self, work: Work) {
        if self.work.send(work).is_err() {
            tracing::debug!("the recorder has ended; nothing more is written");
        }
    }

    pub(crate) fn change(&self, job: &JobId, change: Change) {
        self.send(Work::Ledger(job.clone(), change));
    }

    /// Stores the job's record, after what was sent before.
    pub(crate) fn job(&self, record: JobRecord) {
        self.send(Work::Job(Box::new(record)));
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

/// The thread's own state.
struct Desk<Tell> {
    store: Arc<dyn Store>,
    over: CancellationToken,
    runtime: tokio::runtime::Handle,
    tell: Tell,
    files: HashMap<(JobId, Log), File>,
    /// Jobs whose failure was told.
    broken: Vec<JobId>,
}

impl<Tell: Fn(Word)> Desk<Tell> {
    fn work(mut self, queue: &Receiver<Work>) {
        while let Ok(first) = queue.recv() {
            // All that has piled up goes into one transaction a job.
            let batch: Vec<Work> = std::iter::once(first).chain(queue.try_iter()).collect();
            let mut changes: HashMap<JobId, Vec<Change>> = HashMap::new();
            let mut records: HashMap<JobId, Box<JobRecord>> = HashMap::new();
            let mut waiting = Vec::new();
            for work in batch {
                match work {
                    Work::Ledger(job, change) => changes.entry(job).or_default().push(change),
                    // Only the last one of a name counts.
                    Work::Job(record) => drop(records.insert(record.name.clone(), record)),
                    Work::Line { job, out, log, text } => {
                        if let Err(error) = append(&mut self.files, &job, &out, log, &text) {
                            let path = out.join(log.file_name());
                            self.failed(job, format!("write {}: {error}", path.display()));
                        }
                    }
                    Work::Close(job) => self.files.retain(|(of, _), _| *of != job),
                    Work::Flush(done) => waiting.push(done),
                }
            }
            for (job, changes) in changes {
                let written = self.insist(|| self.store.change(&job, &changes));
                if self.is_done(&job, written) {
                    let appended = changes.iter().rev().find_map(|change| match change {
                        Change::Append(entry) => Some((entry.epoch, entry.step)),
                        _ => None,
                    });
                    if let Some((epoch, step)) = appended {
                        (self.tell)(Word::Recorded { job, epoch, step });
                    }
                }
            }
            for (job, record) in records {
                let written = self.insist(|| self.store.put_job(&record));
                self.is_done(&job, written);
            }
            if self.over.is_cancelled() {
                return;
            }
            for done in waiting {
                done.send(()).ok();
            }
        }
    }

    /// Writes, however often it takes; `None` when the leadership ended before.
    fn insist<Call>(&self, write: impl Fn() -> Call) -> Option<Result<(), StoreError>>
    where
        Call: Future<Output = Result<(), StoreError>>,
    {
        self.runtime
            .block_on(self.over.run_until_cancelled(insist(write)))
    }

    /// Tells of a write that failed.
    fn is_done(&mut self, job: &JobId, written: Option<Result<(), StoreError>>) -> bool {
        match written {
            Some(Ok(())) => return true,
            Some(Err(error)) if error.is_deposition() => (self.tell)(Word::Deposed(error)),
            Some(Err(error)) => self.failed(job.clone(), error.to_string()),
            None => {}
        }
        false
    }

    fn failed(&mut self, job: JobId, reason: String) {
        if !self.broken.contains(&job) {
            self.broken.push(job.clone());
            (self.tell)(Word::Failed { job, reason });
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

/// Repeats a call to the store while it is unavailable.
pub(crate) async fn insist<T, Call>(call: impl Fn() -> Call) -> Result<T, StoreError>
where
    Call: Future<Output = Result<T, StoreError>>,
{
    let mut told = false;
    loop {
        match call().await {
            Err(error) if error.is_retryable() => {
                if !told {
                    tracing::warn!("{error}; trying again");
                    told = true;
                }
                tokio::time::sleep(RETRY).await;
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Failure, Flaky, entry, job};
    use tokio::sync::mpsc;

    fn start(store: &Arc<Flaky>, over: &CancellationToken) -> (Recorder, mpsc::UnboundedReceiver<Word>) {
        let (tell, words) = mpsc::unbounded_channel();
        let store: Arc<dyn Store> = Arc::<Flaky>::clone(store);
        let recorder = Recorder::start(store, over.clone(), move |word| drop(tell.send(word))).unwrap();
        (recorder, words)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn order_is_kept_while_the_store_is_away_and_what_is_safe_is_told() {
        for failure in [Failure::Unavailable, Failure::AnswerLost] {
            let store = Arc::new(Flaky::new());
            let (recorder, mut words) = start(&store, &CancellationToken::new());
            store.fail(3, failure);
            for step in 1..=5 {
                recorder.change(&job("a"), Change::Append(entry(step)));
            }
            recorder.change(&job("a"), Change::Truncate(Step(3)));
            recorder.change(&job("a"), Change::Checkpoint(Step(2), "w2".into()));
            recorder.change(&job("a"), Change::Append(entry(4)));
            recorder.flush().await;
            let ledger = store.ledger(&job("a")).await.unwrap();
            assert_eq!(ledger, (1..=4).map(entry).collect::<Vec<_>>(), "{failure:?}");
            assert_eq!(store.checkpoints(&job("a")).await.unwrap().len(), 1);
            let mut last = Step(0);
            while let Ok(word) = words.try_recv() {
                let Word::Recorded { step, epoch, .. } = word else {
                    panic!("{word:?}");
                };
                assert_eq!(epoch, Epoch(1));
                last = step;
            }
            assert_eq!(last, Step(4), "{failure:?}");
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_deposed_leader_s_recorder_says_so_and_writes_nothing_once_it_is_over() {
        let store = Arc::new(Flaky::new());
        let over = CancellationToken::new();
        let (recorder, mut words) = start(&store, &over);
        store.fail(1, Failure::Deposed);
        recorder.change(&job("a"), Change::Append(entry(1)));
        assert!(matches!(words.recv().await, Some(Word::Deposed(_))));
        // It would try for ever.
        store.fail(u32::MAX, Failure::Unavailable);
        recorder.change(&job("a"), Change::Append(entry(2)));
        over.cancel();
        recorder.flush().await;
        store.fail(0, Failure::Unavailable);
        recorder.change(&job("a"), Change::Append(entry(3)));
        recorder.flush().await;
        assert!(words.recv().await.is_none(), "the thread has ended");
        assert!(store.ledger(&job("a")).await.unwrap().is_empty());
    }
}
