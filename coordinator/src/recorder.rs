//! A thread that writes what a run leaves behind: the ledger and the job's state in the store, `events.jsonl` and
//! `metrics.jsonl` in the run's folder. No write is on a step's path; order is kept, so a checkpoint is never
//! recorded before the steps that it contains.
//!
//! While the store is unavailable, or a disk full, it tries again and again: for as long as its coordinator leads.
//! Meanwhile it takes down what is still to be written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use lockstep_engine::ids::{Epoch, JobId, Step};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::lines::{Lines, Log, Turn};
use crate::store::{Change, JobRecord, Store, StoreError};

/// Between two tries while the store is unavailable, or the run's disk full.
pub(crate) const RETRY: Duration = Duration::from_millis(100);

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
    /// The store takes nothing for now, and why; or it takes it again.
    Away(Option<String>),
    /// Something about the files in the job's folder that people want to know.
    Note { job: JobId, text: String },
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
            due: BTreeMap::new(),
            lines: Lines::default(),
            flushes: Vec::new(),
            away: false,
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
    /// What the store does not have yet.
    due: BTreeMap<JobId, Due>,
    lines: Lines,
    /// Who waits until all is written.
    flushes: Vec<oneshot::Sender<()>>,
    /// It was told that the store takes nothing.
    away: bool,
    /// Jobs whose failure was told.
    broken: Vec<JobId>,
}

/// What is to be stored of a job: first the changes to its ledger, then its record.
#[derive(Default)]
struct Due {
    changes: Vec<Change>,
    /// Only the last one counts.
    record: Option<Box<JobRecord>>,
}

impl<Tell: Fn(Word)> Desk<Tell> {
    fn work(mut self, queue: &Receiver<Work>) {
        loop {
            let first = if self.due.is_empty() && !self.lines.wait() {
                queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                queue.recv_timeout(RETRY)
            };
            // All that has piled up goes into one transaction a job.
            match first {
                Ok(first) => {
                    self.take(first);
                    queue.try_iter().for_each(|work| self.take(work));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) if self.due.is_empty() => return,
                Err(RecvTimeoutError::Disconnected) => std::thread::sleep(RETRY),
            }
            self.write_lines();
            self.store_all();
            if self.over.is_cancelled() {
                return;
            }
            // Lines that wait for room are no reason to keep anybody waiting.
            if self.due.is_empty() {
                for done in self.flushes.drain(..) {
                    done.send(()).ok();
                }
            }
        }
    }

    fn take(&mut self, work: Work) {
        match work {
            Work::Ledger(job, change) => self.due.entry(job).or_default().changes.push(change),
            Work::Job(record) => {
                let due = self.due.entry(record.name.clone()).or_default();
                due.record = Some(record);
            }
            Work::Line { job, out, log, text } => self.lines.push(job, &out, log, text),
            Work::Close(job) => self.lines.close(&job),
            Work::Flush(done) => self.flushes.push(done),
        }
    }

    fn write_lines(&mut self) {
        for (job, turn) in self.lines.write() {
            match turn {
                Turn::Full(text) | Turn::Over(text) => (self.tell)(Word::Note { job, text }),
                Turn::Failed(reason) => self.failed(job, reason),
            }
        }
    }

    /// Gives the store what it lacks, until it takes no more for now.
    fn store_all(&mut self) {
        while let Some((job, mut due)) = self.due.pop_first() {
            match self.store_one(&job, &mut due) {
                None => return,
                Some(Ok(())) => {
                    if std::mem::take(&mut self.away) {
                        (self.tell)(Word::Away(None));
                    }
                }
                Some(Err(error)) if error.is_retryable() => {
                    if !self.away {
                        tracing::warn!("{error}; trying again");
                    }
                    self.away = true;
                    self.due.insert(job, due);
                    (self.tell)(Word::Away(Some(error.to_string())));
                    return;
                }
                Some(Err(error)) if error.is_deposition() => (self.tell)(Word::Deposed(error)),
                Some(Err(error)) => self.failed(job, error.to_string()),
            }
        }
    }

    /// `None` when the leadership ended before.
    fn store_one(&self, job: &JobId, due: &mut Due) -> Option<Result<(), StoreError>> {
        let Due { changes, record } = due;
        if !changes.is_empty() {
            let changed = self.unless_over(self.store.change(job, changes))?;
            if changed.is_err() {
                return Some(changed);
            }
            let appended = changes.iter().rev().find_map(|change| match change {
                Change::Append(entry) => Some((entry.epoch, entry.step)),
                _ => None,
            });
            changes.clear();
            if let Some((epoch, step)) = appended {
                let job = job.clone();
                (self.tell)(Word::Recorded { job, epoch, step });
            }
        }
        match record {
            Some(record) => self.unless_over(self.store.put_job(record)),
            None => Some(Ok(())),
        }
    }

    fn unless_over<T>(&self, call: impl Future<Output = T>) -> Option<T> {
        self.runtime.block_on(self.over.run_until_cancelled(call))
    }

    fn failed(&mut self, job: JobId, reason: String) {
        if !self.broken.contains(&job) {
            self.broken.push(job.clone());
            (self.tell)(Word::Failed { job, reason });
        }
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
                let (step, epoch) = match word {
                    Word::Recorded { step, epoch, .. } => (step, epoch),
                    Word::Away(_) => continue,
                    word => panic!("{word:?}"),
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
        // Until the thread has ended. On a busy machine it has said that the store is away.
        while let Some(word) = words.recv().await {
            assert!(matches!(word, Word::Away(_)), "{word:?}");
        }
        assert!(store.ledger(&job("a")).await.unwrap().is_empty());
    }
}
