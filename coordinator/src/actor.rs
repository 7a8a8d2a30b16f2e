//! One task owns all jobs and nodes; streams and people send it messages. Nothing else holds state.
//!
//! It never waits: what takes time, such as the store, is a task of its own that reports by a message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use lockstep_engine::ids::{Epoch, JobId, NodeId, WorkerId};
use lockstep_engine::job::{NoteKind, Past};
use lockstep_engine::placement::place;
use lockstep_engine::spec::Spec;
use lockstep_engine::time::Instant;
use lockstep_proto::wire;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::ledger_log;
use crate::message::Message;
use crate::nodes::Nodes;
use crate::recorder::{RETRY, Recorder, insist};
use crate::run::{Build, Effect, Run, Tools, Training};
use crate::store::{JobRecord, Kind, State, Store, StoreError};
use crate::submission::{self, Submission};
use crate::summary;

/// How often jobs look at their clocks.
const TICK: Duration = Duration::from_millis(100);

/// What the actor works with: all of it ends with the leadership.
#[derive(Clone, Debug)]
pub(crate) struct Office {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) recorder: Recorder,
    /// The actor's own inbox.
    pub(crate) inbox: mpsc::Sender<Message>,
    /// Cancelled when this coordinator does not lead any more.
    pub(crate) over: CancellationToken,
    /// To whom it reports that the store knows another leader.
    pub(crate) deposed: mpsc::Sender<StoreError>,
}

impl Office {
    /// Does what takes time, and gives the actor the message that comes of it.
    fn spawn(&self, work: impl Future<Output = Message> + Send + 'static) {
        let (inbox, over) = (self.inbox.clone(), self.over.clone());
        tokio::spawn(async move {
            if let Some(message) = over.run_until_cancelled(work).await {
                inbox.send(message).await.ok();
            }
        });
    }
}

/// Stores an epoch, however often it takes. `wait` does something about each try that failed.
async fn persist(
    store: &dyn Store,
    job: &JobId,
    epoch: Epoch,
    wait: impl Fn(StoreError),
) -> Result<(), StoreError> {
    let mut answer_lost = false;
    loop {
        match store.raise_epoch(job, Epoch(epoch.0 - 1), epoch).await {
            Err(error) if error.is_retryable() => {
                answer_lost = true;
                wait(error);
                tokio::time::sleep(RETRY).await;
            }
            // An earlier try was carried out after all: nobody else can write while this coordinator leads.
            Err(StoreError::Fenced { found, .. }) if found == epoch && answer_lost => return Ok(()),
            result => return result,
        }
    }
}

/// A training as the store knows it; none if its spec cannot be read.
async fn take_up_training(store: &dyn Store, record: JobRecord) -> Result<Option<Training>, StoreError> {
    let Ok(spec) = Spec::parse(&record.spec) else {
        tracing::error!(job = %record.name, "the stored spec does not parse with this version; job skipped");
        return Ok(None);
    };
    let epoch = insist(|| store.epoch(&record.name)).await?;
    // What was stored of a job that is over says all that is shown of it.
    let past = if record.state.is_over() {
        Past::default()
    } else {
        let entries = insist(|| store.ledger(&record.name)).await?;
        let past = Past::of(&entries);
        let checkpoints = insist(|| store.checkpoints(&record.name)).await?;
        ledger_log::catch_up(record.out.clone(), entries, checkpoints).await;
        past
    };
    Ok(Some(Training::new(record, spec, Vec::new(), (epoch, past))))
}

/// The coordinator's whole state.
pub(crate) struct Actor {
    office: Office,
    origin: tokio::time::Instant,
    nodes: Nodes,
    runs: BTreeMap<JobId, Run>,
    /// Names that are about to be taken.
    submitting: BTreeSet<JobId>,
}

impl Actor {
    /// Takes up where the store left off: jobs that are not over wait for their workers.
    pub(crate) async fn take_up(office: Office) -> Result<Self, StoreError> {
        let store = office.store.as_ref();
        let mut runs = BTreeMap::new();
        for mut record in insist(|| store.jobs()).await? {
            if !record.state.is_over() {
                record.state = State::Queued;
                record.reason = "the coordinator has just begun; waiting for workers".to_owned();
            }
            let run = match record.kind {
                Kind::Build { max_workers } => Run::Build(Box::new(Build::new(record, max_workers))),
                Kind::Training => match take_up_training(store, record).await? {
                    Some(training) => Run::Training(Box::new(training)),
                    None => continue,
                },
            };
            runs.insert(run.name().clone(), run);
        }
        let nodes = Nodes::new(insist(|| store.drained()).await?);
        Ok(Self {
            office,
            origin: tokio::time::Instant::now(),
            nodes,
            runs,
            submitting: BTreeSet::new(),
        })
    }

    /// Handles messages until all senders are gone.
    pub(crate) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Some(message) => self.handle(message),
                    None => return,
                },
                _ = ticks.tick() => {
                    for job in self.runs.keys().cloned().collect::<Vec<_>>() {
                        self.with_run(&job, Run::tick);
                    }
                }
            }
        }
    }

    fn now(&self) -> Instant {
        Instant(self.origin.elapsed())
    }

    /// Runs `act` on a job with the tools that it needs, then carries out what only the actor can.
    fn with_run(&mut self, job: &JobId, act: impl FnOnce(&mut Run, &Tools<'_>) -> Vec<Effect>) {
        let tools = Tools {
            recorder: &self.office.recorder,
            now: self.now(),
        };
        let Some(run) = self.runs.get_mut(job) else { return };
        for effect in act(run, &tools) {
            match effect {
                Effect::Kill(worker) => self.nodes.kill(&worker),
                Effect::Persist(epoch) => {
                    let (store, job) = (Arc::clone(&self.office.store), job.clone());
                    let inbox = self.office.inbox.clone();
                    self.office.spawn(async move {
                        // A full inbox hears of the next try.
                        let away = |error: StoreError| {
                            let message = Message::StoreAway(Some(error.to_string()));
                            inbox.try_send(message).ok();
                        };
                        let result = persist(store.as_ref(), &job, epoch, away).await;
                        Message::Persisted { job, epoch, result }
                    });
                }
                Effect::Quarantine(worker, reason) => {
                    tracing::warn!(%worker, %job, "quarantined: {reason}");
                    self.nodes.quarantine(&worker);
                }
                Effect::Summarize => {
                    let Run::Training(run) = run else { continue };
                    let (store, recorder) = (Arc::clone(&self.office.store), self.office.recorder.clone());
                    let (spec, out, seen) = run.to_summarize();
                    self.office.spawn(async move {
                        recorder.flush().await;
                        let result = summary::write(store.as_ref(), &spec, &out, seen).await;
                        let job = spec.job.name;
                        Message::Summarized { job, result }
                    });
                }
            }
        }
    }

    fn depose(&self, error: StoreError) {
        self.office.deposed.try_send(error).ok();
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit(submission, reply) => self.submit(*submission, reply),
            Message::Submitted { job, result, reply } => {
                self.submitting.remove(&job);
                let result = result.map(|run| self.submitted(run));
                drop(reply.send(result));
            }
            Message::Get(job, reply) => drop(reply.send(self.runs.get(&job).map(Run::describe))),
            Message::List(reply) => {
                let mut jobs: Vec<wire::Job> = self.runs.values().map(Run::describe).collect();
                jobs.sort_by_key(|job| job.submitted_ms);
                drop(reply.send(jobs));
            }
            Message::Watch(job, reply) => {
                let parts = self.runs.get(&job).map(|run| (run.describe(), run.subscribe()));
                drop(reply.send(parts));
            }
            Message::Tail { job, logs, reply } => {
                let parts = self.runs.get(&job).map(|run| {
                    let (lines, live) = run.tail(logs).read();
                    (lines, (!run.is_over()).then_some(live))
                });
                drop(reply.send(parts));
            }
            Message::Cancel(job, reply) => {
                self.with_run(&job, Run::cancel);
                drop(reply.send(self.runs.get(&job).map(Run::describe)));
                self.place();
            }
            Message::Nodes(reply) => drop(reply.send(self.nodes.list(self.now()))),
            Message::Drain { node, drained, reply } => self.drain(node, drained, reply),
            Message::Drained {
                node,
                drained,
                result,
                reply,
            } => self.drained(&node, drained, result, reply),
            Message::DaemonConnected {
                node,
                daemon,
                running,
                reply,
            } => {
                let wanted = |job: &JobId| self.runs.get(job).is_some_and(|run| !run.is_over());
                let slots = daemon.slots;
                let result = self.nodes.connect(self.now(), &node, daemon, running, wanted);
                if result.is_ok() {
                    tracing::info!(%node, slots, "node connected");
                }
                drop(reply.send(result));
                self.place();
            }
            Message::DaemonHeard { node, connection } => self.nodes.heard(self.now(), &node, connection),
            Message::DaemonGone { node, connection } => {
                let lives =
                    |job: &JobId, slot: &_| self.runs.get(job).is_some_and(|run| run.has_rank_in(slot));
                if self.nodes.gone(&node, connection, lives) {
                    tracing::warn!(%node, "the node's daemon is gone");
                    self.place();
                }
            }
            Message::RankExited { job, worker, how } => {
                self.nodes.exited(&worker);
                self.with_run(&job, |run, tools| run.exited(tools, worker, &how));
                self.place();
            }
            Message::LogLine { job, worker, text } => self.with_run(&job, |run, tools| {
                run.log_line(tools, &worker, &text);
                Vec::new()
            }),
            Message::RankConnected {
                job,
                worker,
                connection,
                down,
                reply,
            } => {
                let result = if self.runs.contains_key(&job) {
                    self.nodes.rank_came(&job, &worker);
                    self.with_run(&job, |run, tools| run.connect(tools, worker, connection, down));
                    Ok(())
                } else {
                    Err(format!("this coordinator has no job `{job}`"))
                };
                drop(reply.send(result));
            }
            Message::Heard { job, heard } => {
                let came = heard.came().cloned();
                self.with_run(&job, |run, tools| run.hear(tools, heard));
                // It was away, or under another coordinator, when its node was drained.
                if let Some(worker) = came.filter(|worker| self.nodes.is_drained(&worker.node)) {
                    self.with_run(&job, |run, tools| run.drain(tools, worker));
                }
            }
            Message::RankGone {
                job,
                worker,
                connection,
                reason,
            } => {
                let counts = |run: &Run| run.is_connected(&worker, connection);
                if self.runs.get(&job).is_some_and(counts) {
                    self.nodes.rank_went(&worker);
                    self.with_run(&job, |run, tools| run.disconnect(tools, worker, reason));
                }
            }
            Message::Persisted { job, epoch, result } => match result {
                Ok(()) => {
                    self.store_away(None);
                    self.with_run(&job, |run, tools| run.persisted(tools, epoch));
                }
                Err(error) if error.is_deposition() => self.depose(error),
                Err(error) => self.fail(&job, error.to_string()),
            },
            Message::Recorded { job, epoch, step } => {
                self.with_run(&job, |run, tools| run.recorded(tools, epoch, step));
            }
            Message::RecordsFailed { job, reason } => self.fail(&job, reason),
            Message::StoreAway(problem) => self.store_away(problem),
            Message::StorageNote { job, text } => self.with_run(&job, |run, tools| {
                run.note(tools, NoteKind::Storage, text);
                Vec::new()
            }),
            Message::Summarized { job, result } => self.with_run(&job, |run, tools| {
                run.summarized(tools, result);
                Vec::new()
            }),
        }
    }

    /// Shows in all jobs that the store takes nothing for now, or that it does again.
    fn store_away(&mut self, problem: Option<String>) {
        let tools = Tools {
            recorder: &self.office.recorder,
            now: self.now(),
        };
        for run in self.runs.values_mut() {
            run.store_away(&tools, problem.as_deref());
        }
    }

    fn fail(&mut self, job: &JobId, reason: String) {
        self.with_run(job, |run, tools| run.fail(tools, reason));
    }

    fn submit(&mut self, submission: Submission, reply: oneshot::Sender<Result<wire::Job, Status>>) {
        let job = submission.name.clone();
        let under_way = || self.runs.values().filter(|run| !run.is_over());
        if let Some(other) =
            under_way().find(|run| *run.name() != job && run.board().record.out == submission.out)
        {
            let (out, other) = (submission.out.display(), other.name());
            let message = format!(
                "the job `{other}`, which is not over yet, has the folder {out}; choose another --out"
            );
            return drop(reply.send(Err(Status::already_exists(message))));
        }
        let is_taken = self.runs.get(&job).is_some_and(|run| !run.is_over());
        if is_taken || !self.submitting.insert(job.clone()) {
            let message = format!(
                "a job named `{job}` is not over yet; choose another name, or `lockstep cancel {job}` first"
            );
            return drop(reply.send(Err(Status::already_exists(message))));
        }
        let (store, recorder) = (Arc::clone(&self.office.store), self.office.recorder.clone());
        self.office.spawn(async move {
            let result = submission::accept(store.as_ref(), &recorder, submission).await;
            Message::Submitted { job, result, reply }
        });
    }

    fn submitted(&mut self, run: Run) -> wire::Job {
        let job = run.describe();
        self.runs.insert(run.name().clone(), run);
        self.place();
        job
    }

    fn drain(&mut self, node: NodeId, drained: bool, reply: oneshot::Sender<Result<wire::Node, Status>>) {
        if !self.nodes.is_known(&node) {
            let message = format!("no node named `{node}`; `lockstep nodes` shows those there are");
            return drop(reply.send(Err(Status::not_found(message))));
        }
        let store = Arc::clone(&self.office.store);
        self.office.spawn(async move {
            let result = insist(|| store.set_drained(&node, drained)).await;
            Message::Drained {
                node,
                drained,
                result,
                reply,
            }
        });
    }

    fn drained(
        &mut self,
        node: &NodeId,
        drained: bool,
        result: Result<(), StoreError>,
        reply: oneshot::Sender<Result<wire::Node, Status>>,
    ) {
        if let Err(error) = result {
            drop(reply.send(Err(Status::internal(error.to_string()))));
            if error.is_deposition() {
                self.depose(error);
            }
            return;
        }
        self.nodes.set_drained(node, drained);
        tracing::info!(%node, drained, "drain");
        if drained {
            let ranks = |(job, run): (&JobId, &Run)| {
                run.ranks_of(node)
                    .into_iter()
                    .map(|worker| (job.clone(), worker))
                    .collect()
            };
            let ranks: Vec<Vec<(JobId, WorkerId)>> = self.runs.iter().map(ranks).collect();
            for (job, worker) in ranks.into_iter().flatten() {
                self.with_run(&job, |run, tools| run.drain(tools, worker));
            }
        }
        drop(reply.send(Ok(self.nodes.describe(self.now(), node))));
        self.place();
    }

    /// Fills free slots, and tells jobs how many workers to expect.
    fn place(&mut self) {
        let mut waiting: Vec<&Run> = self.runs.values().filter(|run| !run.is_over()).collect();
        waiting.sort_by_key(|run| run.board().record.submitted_ms);
        let demand = |run: &&Run| run.demand(self.nodes.placed(run.name()));
        let demands: Vec<_> = waiting.iter().map(demand).collect();
        for (job, slot) in place(&demands, &self.nodes.free()) {
            self.nodes.start(&job, slot);
        }
        for job in demands.into_iter().map(|demand| demand.job) {
            let count = self.nodes.placed(&job);
            self.with_run(&job, |run, tools| run.expect(tools, count));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::{Failure, Flaky, job};

    #[tokio::test]
    async fn an_epoch_whose_answer_was_lost_is_not_somebody_else_s() {
        let store = Flaky::new();
        for (epoch, failure) in [(1, Failure::AnswerLost), (2, Failure::Unavailable)] {
            store.fail(1, failure);
            persist(&store, &job("a"), Epoch(epoch), |_| ()).await.unwrap();
            assert_eq!(store.epoch(&job("a")).await.unwrap(), Epoch(epoch));
        }
        let stolen = persist(&store, &job("a"), Epoch(2), |_| ()).await;
        assert!(matches!(stolen, Err(StoreError::Fenced { .. })), "{stolen:?}");
        store.fail(1, Failure::Deposed);
        let deposed = persist(&store, &job("a"), Epoch(3), |_| ()).await;
        assert!(matches!(deposed, Err(StoreError::Deposed { .. })), "{deposed:?}");
    }
}
