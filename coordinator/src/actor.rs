//! One task owns all jobs and nodes; streams and people send it messages. Nothing else holds state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_engine::ids::{Epoch, JobId, NodeId, Step, WorkerId};
use lockstep_engine::job::{Event, Kill, Past};
use lockstep_engine::placement::{Slot, place};
use lockstep_engine::spec::Spec;
use lockstep_engine::time::Instant;
use lockstep_proto::wire;
use tokio::sync::{broadcast, mpsc, oneshot};
use tonic::Status;

use crate::recorder::{Log, Recorder};
use crate::run::{Effect, RankSender, Run, Tools, unix_ms};
use crate::store::{Change, JobRecord, State, Store, StoreError};
use crate::summary::Evaluation;

/// Down to a node daemon.
pub(crate) type DaemonSender = mpsc::Sender<Result<wire::DaemonDown, Status>>;

/// A job's lines so far, and those to come unless it is over.
pub(crate) type TailParts = (Vec<String>, Option<broadcast::Receiver<String>>);

/// A job now, and its changes unless it is over.
pub(crate) type WatchParts = (wire::Job, Option<broadcast::Receiver<wire::Update>>);

/// A checked submission.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) source: String,
    pub(crate) spec: Spec,
    pub(crate) out: PathBuf,
    pub(crate) resume: bool,
    pub(crate) kills: Vec<Kill>,
}

/// What the actor is asked or told.
pub(crate) enum Message {
    Submit(Box<Submission>, oneshot::Sender<Result<wire::Job, Status>>),
    Get(JobId, oneshot::Sender<Option<wire::Job>>),
    List(oneshot::Sender<Vec<wire::Job>>),
    Watch(JobId, oneshot::Sender<Option<WatchParts>>),
    Tail {
        job: JobId,
        logs: bool,
        reply: oneshot::Sender<Option<TailParts>>,
    },
    Cancel(JobId, oneshot::Sender<Option<wire::Job>>),
    DaemonConnected {
        node: NodeId,
        slots: u32,
        connection: u64,
        down: DaemonSender,
        reply: oneshot::Sender<Result<(), String>>,
    },
    DaemonGone {
        node: NodeId,
        connection: u64,
    },
    RankExited {
        job: JobId,
        worker: WorkerId,
        how: String,
    },
    LogLine {
        job: JobId,
        worker: String,
        text: String,
    },
    RankConnected {
        job: JobId,
        worker: WorkerId,
        down: RankSender,
        reply: oneshot::Sender<Result<(), String>>,
    },
    RankEvent {
        job: JobId,
        event: Event,
        evaluation: Option<Evaluation>,
    },
    RankGone {
        job: JobId,
        worker: WorkerId,
        reason: String,
    },
    RecordsFailed {
        job: JobId,
        reason: String,
    },
    RecordsWritten(JobId),
}

struct Node {
    connection: u64,
    slots: u32,
    down: DaemonSender,
}

/// The coordinator's whole state.
pub(crate) struct Actor {
    store: Arc<Store>,
    recorder: Recorder,
    inbox: mpsc::Sender<Message>,
    origin: tokio::time::Instant,
    nodes: BTreeMap<NodeId, Node>,
    occupied: BTreeMap<Slot, JobId>,
    runs: BTreeMap<JobId, Run>,
    /// Slots whose results were wrong.
    quarantined: BTreeSet<Slot>,
}

impl Actor {
    /// Takes up where the store left off: jobs that are not over wait for workers again.
    pub(crate) fn new(
        store: Arc<Store>,
        recorder: Recorder,
        inbox: mpsc::Sender<Message>,
    ) -> Result<Self, StoreError> {
        let mut runs = BTreeMap::new();
        for mut record in store.jobs()? {
            let Ok(spec) = Spec::parse(&record.spec) else {
                tracing::error!(job = %record.name, "the stored spec does not parse with this version; job skipped");
                continue;
            };
            if !record.state.is_over() {
                record.state = State::Queued;
                record.reason = "the coordinator was restarted; waiting for workers".to_owned();
            }
            let known = known(&store, &record.name)?;
            runs.insert(record.name.clone(), Run::new(record, spec, Vec::new(), known));
        }
        let origin = tokio::time::Instant::now();
        Ok(Self {
            store,
            recorder,
            inbox,
            origin,
            nodes: BTreeMap::new(),
            occupied: BTreeMap::new(),
            runs,
            quarantined: BTreeSet::new(),
        })
    }

    /// Handles messages until all senders are gone.
    pub(crate) async fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
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
                        self.give(&job, Event::Tick);
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
            store: &self.store,
            recorder: &self.recorder,
            now: self.now(),
        };
        let Some(run) = self.runs.get_mut(job) else { return };
        for effect in act(run, &tools) {
            match effect {
                Effect::Kill(worker) => {
                    let kill = wire::KillRank {
                        worker: Some((&worker).into()),
                    };
                    self.tell_daemon(&worker.node, wire::daemon_down::What::Kill(kill));
                }
                Effect::Quarantine(worker, reason) => {
                    tracing::warn!(%worker, %job, "quarantined: {reason}");
                    let (node, slot) = (worker.node, worker.slot);
                    self.quarantined.insert(Slot { node, slot });
                }
                Effect::Summarize => {
                    let (recorder, inbox, job) = (self.recorder.clone(), self.inbox.clone(), job.clone());
                    tokio::spawn(async move {
                        recorder.flush().await;
                        inbox.send(Message::RecordsWritten(job)).await.ok();
                    });
                }
            }
        }
    }

    fn give(&mut self, job: &JobId, event: Event) {
        self.with_run(job, |run, tools| run.give(tools, event));
    }

    fn tell_daemon(&mut self, node: &NodeId, what: wire::daemon_down::What) -> bool {
        let Some(daemon) = self.nodes.get(node) else {
            return false;
        };
        daemon
            .down
            .try_send(Ok(wire::DaemonDown { what: Some(what) }))
            .is_ok()
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit(submission, reply) => drop(reply.send(self.submit(*submission))),
            Message::Get(job, reply) => drop(reply.send(self.runs.get(&job).map(Run::describe))),
            Message::List(reply) => {
                let mut jobs: Vec<wire::Job> = self.runs.values().map(Run::describe).collect();
                jobs.sort_by_key(|job| job.submitted_ms);
                drop(reply.send(jobs));
            }
            Message::Watch(job, reply) => {
                let parts = self.runs.get(&job).map(|run| {
                    let live = (!run.is_over() || run.awaits_summary()).then(|| run.subscribe());
                    (run.describe(), live)
                });
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
                self.give(&job, Event::Cancel);
                drop(reply.send(self.runs.get(&job).map(Run::describe)));
                self.place();
            }
            Message::DaemonConnected {
                node,
                slots,
                connection,
                down,
                reply,
            } => {
                drop(reply.send(self.daemon_connected(node, slots, connection, down)));
                self.place();
            }
            Message::DaemonGone { node, connection } => {
                if self
                    .nodes
                    .get(&node)
                    .is_some_and(|daemon| daemon.connection == connection)
                {
                    tracing::warn!(%node, "the node's daemon is gone");
                    self.nodes.remove(&node);
                    self.occupied.retain(|slot, _| slot.node != node);
                    self.place();
                }
            }
            Message::RankExited { job, worker, how } => {
                self.occupied.remove(&Slot {
                    node: worker.node.clone(),
                    slot: worker.slot,
                });
                self.with_run(&job, |run, tools| {
                    if run.is_over() {
                        return Vec::new();
                    }
                    let mut effects =
                        run.disconnect(tools, worker.clone(), format!("its process ended: {how}"));
                    if let Some(reason) = run.exited(&worker.to_string(), &how) {
                        effects.extend(run.fail(tools, reason));
                    }
                    effects
                });
                self.place();
            }
            Message::LogLine { job, worker, text } => self.with_run(&job, |run, tools| {
                run.log_line(tools, &worker, &text);
                Vec::new()
            }),
            Message::RankConnected {
                job,
                worker,
                down,
                reply,
            } => {
                let result = match self.runs.get_mut(&job) {
                    Some(run) => {
                        run.connect(worker, down);
                        Ok(())
                    }
                    None => Err(format!("this coordinator has no job `{job}`")),
                };
                drop(reply.send(result));
            }
            Message::RankEvent {
                job,
                event,
                evaluation,
            } => self.with_run(&job, |run, tools| {
                if let Some(evaluation) = evaluation {
                    run.evaluated(evaluation);
                }
                run.give(tools, event)
            }),
            Message::RankGone { job, worker, reason } => {
                self.with_run(&job, |run, tools| run.disconnect(tools, worker, reason));
            }
            Message::RecordsFailed { job, reason } => {
                self.with_run(&job, |run, tools| {
                    if run.is_over() {
                        Vec::new()
                    } else {
                        run.fail(tools, reason)
                    }
                });
            }
            Message::RecordsWritten(job) => self.with_run(&job, |run, tools| {
                run.summarize(tools);
                Vec::new()
            }),
        }
    }

    fn submit(&mut self, submission: Submission) -> Result<wire::Job, Status> {
        let Submission {
            source,
            spec,
            out,
            resume,
            kills,
        } = submission;
        let name = spec.job.name.clone();
        if self.runs.get(&name).is_some_and(|run| !run.is_over()) {
            return Err(Status::already_exists(format!(
                "a job named `{name}` is not over yet; choose another job.name, or `lockstep cancel {name}` first"
            )));
        }
        let stored = |error: StoreError| Status::internal(error.to_string());
        let known = known(&self.store, &name).map_err(stored)?;
        let used =
            std::fs::read_dir(out.join("checkpoints")).is_ok_and(|mut entries| entries.next().is_some());
        if !resume && used {
            return Err(Status::failed_precondition(format!(
                "{} holds checkpoints of an earlier run; pass --resume to go on from them, or another --out",
                out.display()
            )));
        }
        if resume && known.1.committed() == Step(0) {
            return Err(Status::failed_precondition(format!(
                "nothing to resume: this coordinator's ledger has no committed step of `{name}`; start it without --resume"
            )));
        }
        std::fs::create_dir_all(&out).map_err(|error| {
            Status::failed_precondition(format!("create the run folder {}: {error}", out.display()))
        })?;
        let spec_file = out.join("spec.toml");
        std::fs::write(&spec_file, &source).map_err(|error| {
            Status::failed_precondition(format!("write {}: {error}", spec_file.display()))
        })?;
        let past = if resume { known.1 } else { Past::default() };
        if !resume {
            self.recorder.change(&name, Change::Truncate(Step(0)));
            // Of an attempt that never reached a checkpoint.
            for log in Log::ALL {
                std::fs::remove_file(out.join(log.file_name())).ok();
            }
        }
        let record = JobRecord {
            name: name.clone(),
            spec: source,
            out,
            submitted_ms: unix_ms(),
            state: State::Queued,
            reason: "waiting for workers".to_owned(),
            summary: None,
        };
        self.store.put_job(&record).map_err(stored)?;
        let run = Run::new(record, spec, kills, (known.0, past));
        let job = run.describe();
        self.runs.insert(name, run);
        self.place();
        Ok(job)
    }

    fn daemon_connected(
        &mut self,
        node: NodeId,
        slots: u32,
        connection: u64,
        down: DaemonSender,
    ) -> Result<(), String> {
        if self
            .nodes
            .get(&node)
            .is_some_and(|daemon| !daemon.down.is_closed())
        {
            return Err(format!(
                "a node named `{node}` is connected already; give each machine its own --name"
            ));
        }
        tracing::info!(%node, slots, "node connected");
        self.occupied.retain(|slot, _| slot.node != node);
        self.nodes.insert(
            node,
            Node {
                connection,
                slots,
                down,
            },
        );
        Ok(())
    }

    /// Fills free slots, and tells jobs how many workers to expect.
    fn place(&mut self) {
        let mut free = Vec::new();
        for (node, daemon) in &self.nodes {
            free.extend((0..daemon.slots).map(|slot| Slot {
                node: node.clone(),
                slot,
            }));
        }
        free.retain(|slot| !self.occupied.contains_key(slot) && !self.quarantined.contains(slot));
        let placed = |job: &JobId| self.occupied.values().filter(|of| *of == job).count() as u32;
        let mut waiting: Vec<&Run> = self.runs.values().filter(|run| !run.is_over()).collect();
        waiting.sort_by_key(|run| run.record.submitted_ms);
        let demands: Vec<_> = waiting.iter().map(|run| run.demand(placed(run.name()))).collect();
        let placements = place(&demands, &free);
        for (job, slot) in placements {
            let start = wire::StartRank {
                job: job.to_string(),
                slot: slot.slot,
            };
            if self.tell_daemon(&slot.node, wire::daemon_down::What::Start(start)) {
                self.occupied.insert(slot, job);
            }
        }
        for job in demands.into_iter().map(|demand| demand.job) {
            let count = self.occupied.values().filter(|of| **of == job).count() as u32;
            self.give(&job, Event::Expected(count));
        }
    }
}

/// The epoch and the last committed step that the store knows.
fn known(store: &Store, job: &JobId) -> Result<(Epoch, Past), StoreError> {
    let ledger = store.ledger(job)?;
    Ok((store.epoch(job)?, Past::of(&ledger)))
}
