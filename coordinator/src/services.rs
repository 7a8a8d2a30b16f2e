//! The gRPC services: wire in, messages to the actor, wire out. No decision is made here.
//!
//! A coordinator that does not lead has no actor: it answers every call with where the leader is.
//!
//! | module | what it does |
//! |---|---|
//! | `heard` | what a job's process says, as its machine hears it |

mod heard;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use lockstep_engine::ids::{JobId, NodeId, WorkerId};
use lockstep_engine::spec::Spec;
use lockstep_proto::convert::required;
use lockstep_proto::{LEADER_KEY, WireError, check_version, wire};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::{BroadcastStream, ReceiverStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

use crate::message::Message;
use crate::nodes::Daemon;
use crate::submission::{self, Submission};
use heard::heard;

/// A stream of replies.
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages that may wait for a rank or daemon before it counts as dead.
const DOWN_QUEUE: usize = 256;

/// Said to those who ask a coordinator on its way out.
const STOPPING: &str = "the coordinator is stopping";

/// Numbers streams: each gets one unlike any other.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// Whether this coordinator leads.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// It is about to: it reads what the last leader left. Callers wait for the end of that.
    Rising,
    /// Its actor decides.
    Leading(mpsc::Sender<Message>),
    /// Another one leads, at this URL if it is known.
    Standby { leader: Option<String> },
}

impl Standing {
    /// The answer of a coordinator that does not lead.
    fn redirect(&self) -> Status {
        let Self::Standby { leader: Some(leader) } = self else {
            return Status::unavailable(
                "this coordinator does not lead, and knows of none that does; try again",
            );
        };
        let mut status =
            Status::unavailable(format!("this coordinator does not lead; the leader is {leader}"));
        if let Ok(value) = leader.parse() {
            status.metadata_mut().insert(LEADER_KEY, value);
        }
        status
    }
}

/// Both actor.
#[derive(Clone)]
pub(crate) struct Services {
    standing: watch::Receiver<Standing>,
    /// The URL at which this coordinator is found.
    advertise: String,
}

/// One actor, which one call speaks to from its beginning to its end.
#[derive(Clone)]
struct Desk {
    actor: mpsc::Sender<Message>,
    standing: watch::Receiver<Standing>,
}

impl Services {
    pub(crate) fn new(standing: watch::Receiver<Standing>, advertise: String) -> Self {
        Self { standing, advertise }
    }

    /// The actor, if this coordinator leads.
    async fn desk(&self) -> Result<Desk, Status> {
        let mut settled = self.standing.clone();
        let standing = settled
            .wait_for(|standing| !matches!(standing, Standing::Rising))
            .await
            .map_err(|_| Status::unavailable(STOPPING))?;
        match &*standing {
            Standing::Leading(actor) => Ok(Desk {
                actor: actor.clone(),
                standing: self.standing.clone(),
            }),
            Standing::Rising | Standing::Standby { .. } => Err(standing.redirect()),
        }
    }
}

impl Desk {
    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        self.tell(message(reply)).await?;
        answer.await.map_err(|_| self.closed())
    }

    async fn tell(&self, message: Message) -> Result<(), Status> {
        self.actor.send(message).await.map_err(|_| self.closed())
    }

    /// Whether its actor does not lead any more.
    fn is_over(&self) -> bool {
        !matches!(&*self.standing.borrow(), Standing::Leading(actor) if actor.same_channel(&self.actor))
    }

    fn closed(&self) -> Status {
        if self.is_over() {
            self.standing.borrow().redirect()
        } else {
            Status::unavailable(STOPPING)
        }
    }

    /// These replies, and when they end because the actor leads no more, where the leader is.
    fn replies<T: Send + 'static>(
        self,
        replies: impl Stream<Item = Result<T, Status>> + Send + 'static,
    ) -> Replies<T> {
        let why = move |()| self.is_over().then(|| Err(self.closed()));
        Box::pin(replies.chain(tokio_stream::once(()).filter_map(why)))
    }
}

fn job_name(text: &str) -> Result<JobId, Status> {
    text.parse()
        .map_err(|error: lockstep_engine::ids::InvalidId| Status::invalid_argument(error.to_string()))
}

fn absolute(out: String) -> Result<PathBuf, Status> {
    let out = PathBuf::from(out);
    if out.is_absolute() && out.file_name().is_some() {
        return Ok(out);
    }
    Err(Status::invalid_argument(format!(
        "out = `{}`: must be an absolute path that ends in a name",
        out.display()
    )))
}

fn no_job(name: &str) -> Status {
    Status::not_found(format!(
        "no job named `{name}`; `lockstep list` shows those there are"
    ))
}

fn node_name(text: &str) -> Result<NodeId, Status> {
    text.parse()
        .map_err(|error: lockstep_engine::ids::InvalidId| Status::invalid_argument(error.to_string()))
}

#[tonic::async_trait]
impl wire::jobs_server::Jobs for Services {
    async fn leader(&self, _: Request<wire::LeaderRequest>) -> Result<Response<wire::LeaderReply>, Status> {
        self.desk().await?;
        let url = self.advertise.clone();
        Ok(Response::new(wire::LeaderReply { url }))
    }

    async fn nodes(&self, _: Request<wire::NodesRequest>) -> Result<Response<wire::NodesReply>, Status> {
        let nodes = self.desk().await?.ask(Message::Nodes).await?;
        Ok(Response::new(wire::NodesReply { nodes }))
    }

    async fn drain(&self, request: Request<wire::DrainRequest>) -> Result<Response<wire::Node>, Status> {
        let wire::DrainRequest { node, drained } = request.into_inner();
        let node = node_name(&node)?;
        let ask = |reply| Message::Drain { node, drained, reply };
        Ok(Response::new(self.desk().await?.ask(ask).await??))
    }

    async fn submit(&self, request: Request<wire::SubmitRequest>) -> Result<Response<wire::Job>, Status> {
        let desk = self.desk().await?;
        let wire::SubmitRequest {
            spec: source,
            out,
            resume,
            kills,
        } = request.into_inner();
        let spec = Spec::parse(&source).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let out = absolute(out)?;
        match &spec.data.dataset {
            Some(dataset) if dataset.is_absolute() => {}
            _ => {
                return Err(Status::invalid_argument(
                    "data.dataset: must be an absolute path of a built dataset",
                ));
            }
        }
        let kills: Vec<lockstep_engine::job::Kill> = kills.into_iter().map(Into::into).collect();
        if let Some(kill) = kills
            .iter()
            .find(|kill| kill.step.0 == 0 || kill.step.0 > spec.train.steps)
        {
            let (slot, step, steps) = (kill.slot, kill.step, spec.train.steps);
            return Err(Status::invalid_argument(format!(
                "--kill {slot}@{step}: the step must be from 1 to {steps}"
            )));
        }
        let name = spec.job.name.clone();
        let spec = Box::new(spec);
        let submission = Box::new(Submission {
            name,
            source,
            out,
            what: submission::What::Train { spec, resume, kills },
        });
        Ok(Response::new(
            desk.ask(|reply| Message::Submit(submission, reply)).await??,
        ))
    }

    async fn build(&self, request: Request<wire::BuildRequest>) -> Result<Response<wire::Job>, Status> {
        let desk = self.desk().await?;
        let wire::BuildRequest {
            name,
            spec: source,
            out,
            max_workers,
        } = request.into_inner();
        let max_workers = if max_workers == 0 { u32::MAX } else { max_workers };
        let submission = Box::new(Submission {
            name: job_name(&name)?,
            source,
            out: absolute(out)?,
            what: submission::What::Build { max_workers },
        });
        Ok(Response::new(
            desk.ask(|reply| Message::Submit(submission, reply)).await??,
        ))
    }

    async fn get(&self, request: Request<wire::JobRequest>) -> Result<Response<wire::Job>, Status> {
        let name = request.into_inner().name;
        let job = job_name(&name)?;
        let found = self.desk().await?.ask(|reply| Message::Get(job, reply)).await?;
        found.map(Response::new).ok_or_else(|| no_job(&name))
    }

    async fn list(&self, _: Request<wire::ListRequest>) -> Result<Response<wire::ListReply>, Status> {
        let jobs = self.desk().await?.ask(Message::List).await?;
        Ok(Response::new(wire::ListReply { jobs }))
    }

    type WatchStream = Replies<wire::Update>;

    async fn watch(&self, request: Request<wire::JobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().name;
        let job = job_name(&name)?;
        let desk = self.desk().await?;
        let (now, live) = desk
            .ask(|reply| Message::Watch(job, reply))
            .await?
            .ok_or_else(|| no_job(&name))?;
        let first = wire::Update {
            what: Some(wire::update::What::Job(now)),
        };
        let Some(live) = live else {
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)))));
        };
        // A slow watcher misses updates rather than slowing the job down.
        let mut over = false;
        let rest = BroadcastStream::new(live)
            .filter_map(Result::ok)
            .take_while(move |update| {
                let go_on = !over;
                over = matches!(&update.what, Some(wire::update::What::Job(job)) if is_over(job));
                go_on
            });
        let updates = tokio_stream::once(first).chain(rest).map(Ok);
        Ok(Response::new(desk.replies(updates)))
    }

    type TailStream = Replies<wire::Line>;

    async fn tail(&self, request: Request<wire::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let wire::TailRequest { name, follow, logs } = request.into_inner();
        let job = job_name(&name)?;
        let of = job.clone();
        let desk = self.desk().await?;
        let (lines, live) = desk
            .ask(|reply| Message::Tail { job: of, logs, reply })
            .await?
            .ok_or_else(|| no_job(&name))?;
        let (to, replies) = mpsc::channel(64);
        let actor = desk.clone();
        tokio::spawn(async move {
            for text in lines {
                if to.send(Ok(wire::Line { text })).await.is_err() {
                    return;
                }
            }
            let Some(mut live) = live.filter(|_| follow) else {
                return;
            };
            let Ok(Some((_, Some(mut updates)))) = actor.ask(|reply| Message::Watch(job, reply)).await else {
                return;
            };
            loop {
                tokio::select! {
                    biased;
                    line = live.recv() => match line {
                        Ok(text) => drop(to.send(Ok(wire::Line { text })).await),
                        Err(RecvError::Lagged(_)) => {}
                        Err(RecvError::Closed) => return,
                    },
                    update = updates.recv() => match update.map(|update| update.what) {
                        Ok(Some(wire::update::What::Job(job))) if is_over(&job) => return,
                        Err(RecvError::Closed) => return,
                        _ => {}
                    },
                    () = to.closed() => return,
                }
            }
        });
        Ok(Response::new(desk.replies(ReceiverStream::new(replies))))
    }

    async fn cancel(&self, request: Request<wire::JobRequest>) -> Result<Response<wire::Job>, Status> {
        let name = request.into_inner().name;
        let job = job_name(&name)?;
        let found = self
            .desk()
            .await?
            .ask(|reply| Message::Cancel(job, reply))
            .await?;
        found.map(Response::new).ok_or_else(|| no_job(&name))
    }
}

fn is_over(job: &wire::Job) -> bool {
    use wire::JobState;
    matches!(
        job.state(),
        JobState::Done | JobState::Failed | JobState::Cancelled
    )
}

#[tonic::async_trait]
impl wire::nodes_server::Nodes for Services {
    type DaemonStream = Replies<wire::DaemonDown>;

    async fn daemon(
        &self,
        request: Request<Streaming<wire::DaemonUp>>,
    ) -> Result<Response<Self::DaemonStream>, Status> {
        let desk = self.desk().await?;
        let address = request.remote_addr().map(|address| address.ip().to_string());
        let mut up = request.into_inner();
        let Some(wire::daemon_up::What::Hello(hello)) = next(&mut up).await?.and_then(|up| up.what) else {
            return Err(WireError::Missing("hello").into());
        };
        check_version(&hello.version).map_err(Status::failed_precondition)?;
        let node = node_name(&hello.node)?;
        let running = hello.running.into_iter().map(running_rank);
        let running = running.collect::<Result<Vec<_>, Status>>()?;
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        let (down, replies) = mpsc::channel(DOWN_QUEUE);
        let daemon = Daemon {
            connection,
            incarnation: incarnation("hello.incarnation", hello.incarnation)?,
            address: address.unwrap_or_default(),
            interface: hello.interface,
            numerics: hello.numerics,
            slots: hello.slots,
            down,
        };
        let connected = |reply| Message::DaemonConnected {
            node: node.clone(),
            daemon,
            running,
            reply,
        };
        desk.ask(connected).await?.map_err(Status::already_exists)?;
        let actor = desk.clone();
        tokio::spawn(async move {
            while let Ok(Some(message)) = up.message().await {
                if let Err(status) = actor.daemon_message(&node, connection, message).await {
                    tracing::warn!(%node, %status, "message from the daemon dropped");
                }
            }
            actor.tell(Message::DaemonGone { node, connection }).await.ok();
        });
        Ok(Response::new(desk.replies(ReceiverStream::new(replies))))
    }

    type RankStream = Replies<wire::RankDown>;

    async fn rank(
        &self,
        request: Request<Streaming<wire::RankUp>>,
    ) -> Result<Response<Self::RankStream>, Status> {
        let desk = self.desk().await?;
        let mut up = request.into_inner();
        let Some(wire::rank_up::What::Hello(hello)) = next(&mut up).await?.and_then(|up| up.what) else {
            return Err(WireError::Missing("hello").into());
        };
        check_version(&hello.version).map_err(Status::failed_precondition)?;
        let job = job_name(&hello.job)?;
        let worker: WorkerId = required("hello.worker", hello.worker)?.try_into()?;
        let (down, replies) = mpsc::channel(DOWN_QUEUE);
        let (of, who) = (job.clone(), worker.clone());
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        desk.ask(|reply| Message::RankConnected {
            job: of,
            worker: who,
            connection,
            down,
            reply,
        })
        .await?
        .map_err(Status::not_found)?;
        let actor = desk.clone();
        tokio::spawn(async move {
            let reason = loop {
                match up.message().await {
                    Ok(Some(message)) => match heard(&worker, message) {
                        Ok(heard) => {
                            let job = job.clone();
                            if actor.tell(Message::Heard { job, heard }).await.is_err() {
                                return;
                            }
                        }
                        Err(error) => break format!("it sent a message that is not understood: {error}"),
                    },
                    Ok(None) => break "it closed its connection".to_owned(),
                    Err(status) => break format!("its connection broke: {}", status.message()),
                }
            };
            actor
                .tell(Message::RankGone {
                    job,
                    worker,
                    connection,
                    reason,
                })
                .await
                .ok();
        });
        Ok(Response::new(desk.replies(ReceiverStream::new(replies))))
    }
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<Option<T>, Status> {
    let patience = std::time::Duration::from_secs(10);
    tokio::time::timeout(patience, stream.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello within 10 s"))?
}

fn incarnation(field: &'static str, bytes: Vec<u8>) -> Result<u128, Status> {
    let bytes: [u8; 16] = bytes.try_into().map_err(|bytes: Vec<u8>| WireError::Invalid {
        field,
        problem: format!("{} bytes, not 16", bytes.len()),
    })?;
    Ok(u128::from_be_bytes(bytes))
}

fn running_rank(rank: wire::RunningRank) -> Result<(JobId, WorkerId), Status> {
    let worker = required("running.worker", rank.worker)?.try_into()?;
    Ok((job_name(&rank.job)?, worker))
}

impl Desk {
    async fn daemon_message(
        &self,
        node: &NodeId,
        connection: u64,
        message: wire::DaemonUp,
    ) -> Result<(), Status> {
        use wire::daemon_up::What;
        match required("message", message.what)? {
            What::Hello(_) => Err(Status::invalid_argument("a second hello")),
            What::Heartbeat(_) => {
                self.tell(Message::DaemonHeard {
                    node: node.clone(),
                    connection,
                })
                .await
            }
            What::Exited(exited) => {
                let job = job_name(&exited.job)?;
                let worker = required("exited.worker", exited.worker)?.try_into()?;
                self.tell(Message::RankExited {
                    job,
                    worker,
                    how: exited.how,
                })
                .await
            }
            What::Log(line) => {
                let job = job_name(&line.job)?;
                self.tell(Message::LogLine {
                    job,
                    worker: line.worker,
                    text: line.text,
                })
                .await
            }
        }
    }
}
