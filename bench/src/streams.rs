//! How long a verdict takes when very many workers report: a real coordinator, real gRPC streams, and ranks that
//! live in this process and compute nothing.
//!
//! In each step all of them report the same digest at once. A verdict's latency at a worker is the time from the
//! last of the reports being handed to its stream to the commit's arrival at that worker.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lockstep_engine::ids::{JobId, NodeId, Step, WorkerId};
use lockstep_engine::membership::Membership;
use lockstep_engine::spec::Spec;
use lockstep_proto::wire::nodes_client::NodesClient;
use lockstep_proto::wire::{self, rank_down, rank_up};
use lockstep_proto::{VERSION, convert::required};
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::Error;
use crate::cluster::{Bench, Cluster};
use crate::machine::Machines;
use crate::spread::Spread;
use crate::work::{Job, MINUTE};

const COORDINATOR: &str = "coordinator";
/// Workers of a node.
const SLOTS: u32 = 8;
/// How long all workers may take to arrive at the same place.
const PATIENCE: Duration = Duration::from_secs(60);
/// Steps that do not count: connections and caches are cold.
const WARM_UP: u64 = 3;

/// What the coordinator took.
#[derive(Clone, Debug, Serialize)]
pub struct Streams {
    /// Workers, each with a connection of its own.
    pub workers: u32,
    /// Steps that were committed.
    pub steps: u64,
    /// From the last report to a commit's arrival, over all workers and steps, in milliseconds.
    pub verdict_ms: Spread,
    /// Processor time of the coordinator for a step and worker, in milliseconds, heartbeats included.
    pub coordinator_cpu_ms: f64,
}

/// Runs `steps` steps with `workers` simulated workers.
///
/// # Errors
/// When the coordinator or a stream fails, or somebody asks for the end.
pub fn measure(bench: &Bench, workers: u32, steps: u64) -> Result<Streams, Error> {
    check_file_limit(u64::from(workers) * 2 + 200)?;
    let folder = tempfile::Builder::new().prefix("lockstep-drill-").tempdir();
    let folder = folder.map_err(Error::system("make a temporary folder"))?;
    let machines = Machines::together(&[COORDINATOR]);
    let mut cluster = Cluster::new(bench, &machines, folder.path())?;
    cluster.start_coordinator(COORDINATOR, &folder.path().join("state"), None)?;
    let job = Job {
        name: "streams",
        steps: steps + WARM_UP + 1,
        every: 0,
        max_workers: workers,
        spares: 0,
        microbatches: workers.next_power_of_two(),
        lanes: workers.next_power_of_two(), // every worker has one
        lease_ms: 10_000,
        model: MINUTE,
        length: 32,
        collective: "",
    };
    let source = job.toml(&folder.path().join("no-dataset-is-read"));
    let source = source.replace("min_workers = 1", &format!("min_workers = {workers}"));
    let spec = Spec::parse(&source).map_err(|error| Error::Usage(error.to_string()))?;
    let driver = Driver {
        url: cluster.urls().concat(),
        out: folder.path().join("out").display().to_string(),
        pid: cluster.coordinator(COORDINATOR)?.as_raw_nonzero().get(),
        source,
        spec,
        workers,
        steps,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.map_err(Error::system("start a runtime"))?;
    let result = runtime.block_on(async {
        tokio::select! {
            result = driver.run() => result,
            () = bench.stop.cancelled() => Err(Error::Interrupted),
        }
    });
    runtime.shutdown_background();
    let result = result?;
    cluster.stop()?;
    Ok(result)
}

/// A file each for both ends of a connection, here and in the coordinator, which inherits the limit.
fn check_file_limit(wanted: u64) -> Result<(), Error> {
    use rustix::process::{Resource, getrlimit};
    match getrlimit(Resource::Nofile).current {
        Some(allowed) if allowed < wanted => Err(Error::Usage(format!(
            "so many workers take {wanted} open files, and the system allows {allowed}: raise its hard limit (`ulimit -Hn`), or lower --workers"
        ))),
        _ => Ok(()),
    }
}

/// The milliseconds of processor time that a process has used.
pub(crate) fn cpu_ms(pid: i32) -> Result<f64, Error> {
    let path = format!("/proc/{pid}/stat");
    let text = std::fs::read_to_string(&path).map_err(Error::system(format!("read {path}")))?;
    // After the name, which may hold anything: state is field 3, user and system time are 14 and 15.
    let fields: Vec<&str> = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    match (ticks(14), ticks(15)) {
        (Some(user), Some(system)) => {
            Ok((user + system) * 1e3 / rustix::param::clock_ticks_per_second() as f64)
        }
        _ => Err(Error::Drill(format!("{path} is not as expected: {text}"))),
    }
}

struct Driver {
    url: String,
    out: String,
    pid: i32,
    source: String,
    spec: Spec,
    workers: u32,
    steps: u64,
}

/// What a simulated worker tells its driver.
enum Word {
    /// It could report this step.
    Waits(u64),
    /// It has reported.
    Reported(Instant),
    /// It heard of the commit.
    Heard(Instant),
}

impl Driver {
    async fn run(&self) -> Result<Streams, Error> {
        let (words, heard) = mpsc::channel(4 * self.workers as usize);
        let (open, gate) = watch::channel(0);
        let mut tasks = JoinSet::new();
        for node in 0..self.workers.div_ceil(SLOTS) {
            let slots = SLOTS.min(self.workers - node * SLOTS);
            let node = node_name(node)?;
            let down = register(&self.url, &node, slots).await?;
            tasks.spawn(fill(
                down,
                self.url.clone(),
                self.spec.clone(),
                words.clone(),
                gate.clone(),
            ));
        }
        drop(words);
        let mut jobs = wire::jobs_client::JobsClient::new(connect(&self.url).await?);
        let request = wire::SubmitRequest {
            spec: self.source.clone(),
            out: self.out.clone(),
            resume: false,
            kills: Vec::new(),
        };
        jobs.submit(request)
            .await
            .map_err(|status| failed("submit", &status))?;
        tokio::select! {
            result = self.steps(&open, Ears::new(heard, self.workers)) => result,
            Some(ended) = tasks.join_next() => {
                ended.map_err(|error| Error::Drill(error.to_string()))??;
                Err(Error::Drill("a simulated daemon's stream ended".to_owned()))
            }
        }
    }

    async fn steps(&self, open: &watch::Sender<u64>, mut ears: Ears) -> Result<Streams, Error> {
        let mut latencies = Vec::new();
        let mut cpu_before = 0.0;
        for step in 1..=self.steps + WARM_UP {
            ears.await_waiting(step).await?;
            if step == WARM_UP + 1 {
                cpu_before = cpu_ms(self.pid)?;
            }
            open.send_replace(step);
            let latency = ears.await_verdict(step).await?;
            if step > WARM_UP {
                latencies.extend(latency);
            }
        }
        let cpu = cpu_ms(self.pid)? - cpu_before;
        Ok(Streams {
            workers: self.workers,
            steps: self.steps,
            verdict_ms: Spread::of(latencies),
            coordinator_cpu_ms: cpu / (self.steps * u64::from(self.workers)) as f64,
        })
    }
}

/// What the driver has heard of its workers.
struct Ears {
    words: mpsc::Receiver<Word>,
    workers: usize,
    waiting: BTreeMap<u64, usize>,
    reported: Vec<Instant>,
    arrivals: Vec<Instant>,
}

impl Ears {
    fn new(words: mpsc::Receiver<Word>, workers: u32) -> Self {
        Self {
            words,
            workers: workers as usize,
            waiting: BTreeMap::new(),
            reported: Vec::new(),
            arrivals: Vec::new(),
        }
    }

    async fn listen(&mut self, until: impl Fn(&Self) -> bool) -> Result<(), ()> {
        let all = async {
            while !until(self) {
                match self.words.recv().await {
                    Some(Word::Waits(step)) => *self.waiting.entry(step).or_default() += 1,
                    Some(Word::Reported(at)) => self.reported.push(at),
                    Some(Word::Heard(at)) => self.arrivals.push(at),
                    None => return,
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.map_err(drop)
    }

    /// Waits until every worker could report `step`.
    async fn await_waiting(&mut self, step: u64) -> Result<(), Error> {
        let waiting = |ears: &Self| ears.waiting.get(&step).copied().unwrap_or(0);
        let heard = self.listen(|ears| waiting(ears) >= ears.workers).await;
        let (now, all) = (waiting(self), self.workers);
        heard.map_err(|()| too_late(&format!("workers at step {step}: {now} of {all}")))
    }

    /// Waits until every worker has reported and heard of the commit; the latencies in milliseconds.
    async fn await_verdict(&mut self, step: u64) -> Result<Vec<f64>, Error> {
        let heard = self
            .listen(|ears| ears.reported.len() >= ears.workers && ears.arrivals.len() >= ears.workers)
            .await;
        let (now, all) = (self.arrivals.len(), self.workers);
        heard.map_err(|()| {
            too_late(&format!(
                "the verdict on step {step} at all workers: {now} of {all}"
            ))
        })?;
        let last = self.reported.drain(..).max();
        let since = |at: Instant| last.map_or(Duration::ZERO, |last| at.saturating_duration_since(last));
        Ok(self
            .arrivals
            .drain(..)
            .map(|at| since(at).as_secs_f64() * 1e3)
            .collect())
    }
}

fn node_name(index: u32) -> Result<NodeId, Error> {
    let name = format!("simulated-{index}").parse();
    name.map_err(|error: lockstep_engine::ids::InvalidId| Error::Usage(error.to_string()))
}

fn too_late(what: &str) -> Error {
    Error::Drill(format!("{what}: not within {} s", PATIENCE.as_secs()))
}

fn failed(what: &str, status: &tonic::Status) -> Error {
    Error::Drill(format!("{what}: {}", status.message()))
}

async fn connect(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| Error::Usage(error.to_string()))?;
    let channel = endpoint.tcp_nodelay(true).connect().await;
    channel.map_err(|error| Error::Drill(format!("connect to {url}: {error}")))
}

/// Registers a node.
async fn register(url: &str, node: &NodeId, slots: u32) -> Result<Down, Error> {
    let mut client = NodesClient::new(connect(url).await?);
    let (up, messages) = mpsc::channel(16);
    let hello = wire::DaemonHello {
        version: VERSION.to_owned(),
        node: node.to_string(),
        slots,
        incarnation: 1u128.to_be_bytes().to_vec(),
        interface: String::new(),
        running: Vec::new(),
        numerics: String::new(),
    };
    let what = Some(wire::daemon_up::What::Hello(hello));
    up.send(wire::DaemonUp { what }).await.ok();
    let reply = client.daemon(ReceiverStream::new(messages)).await;
    let messages = reply.map_err(|status| failed("register", &status))?.into_inner();
    Ok(Down { messages, _up: up })
}

/// A daemon's stream, which ends with the sender.
struct Down {
    messages: tonic::Streaming<wire::DaemonDown>,
    _up: mpsc::Sender<wire::DaemonUp>,
}

/// Fills the slots of a node that the coordinator asks for.
async fn fill(
    mut down: Down,
    url: String,
    spec: Spec,
    words: mpsc::Sender<Word>,
    gate: watch::Receiver<u64>,
) -> Result<(), Error> {
    let mut ranks = JoinSet::new();
    loop {
        tokio::select! {
            message = down.messages.message() => {
                let message = message.map_err(|status| failed("the daemon's stream", &status))?;
                let Some(message) = message else { return Ok(()) };
                if let Some(wire::daemon_down::What::Start(start)) = message.what {
                    let me = start.worker.ok_or_else(|| Error::Drill("a start names no worker".to_owned()))?;
                    let me = WorkerId::try_from(me).map_err(|error| Error::Drill(error.to_string()))?;
                    let rank = Rank::new(&spec, me, words.clone());
                    ranks.spawn(rank.run(url.clone(), gate.clone()));
                }
            }
            Some(ended) = ranks.join_next() => ended.map_err(|error| Error::Drill(error.to_string()))??,
        }
    }
}

/// A worker that computes nothing.
struct Rank {
    spec: Spec,
    job: JobId,
    me: WorkerId,
    words: mpsc::Sender<Word>,
    membership: Option<Membership>,
    /// The step to report next, until it is reported.
    due: Option<Step>,
}

impl Rank {
    fn new(spec: &Spec, me: WorkerId, words: mpsc::Sender<Word>) -> Self {
        Self {
            spec: spec.clone(),
            job: spec.job.name.clone(),
            me,
            words,
            membership: None,
            due: None,
        }
    }

    async fn run(mut self, url: String, mut gate: watch::Receiver<u64>) -> Result<(), Error> {
        let mut client = NodesClient::new(connect(&url).await?);
        let (up, messages) = mpsc::channel(16);
        let hello = wire::RankHello {
            version: VERSION.to_owned(),
            job: self.job.to_string(),
            worker: Some((&self.me).into()),
        };
        send(&up, rank_up::What::Hello(hello)).await?;
        let reply = client.rank(ReceiverStream::new(messages)).await;
        let mut down = reply
            .map_err(|status| failed("open a rank's stream", &status))?
            .into_inner();
        let ready = wire::RankReady {
            address: format!("127.0.0.1:{}", self.me.slot % 60_000 + 1),
            checkpoints: Vec::new(),
            offer: None,
        };
        send(&up, rank_up::What::Ready(ready)).await?;
        let mut beats = tokio::time::interval(self.spec.elastic.lease() / 8);
        loop {
            tokio::select! {
                biased;
                message = down.message() => {
                    let at = Instant::now();
                    let message = message.map_err(|status| failed("a rank's stream", &status))?;
                    let Some(message) = message else { return Ok(()) };
                    if !self.take(message, at, &up).await? {
                        return Ok(());
                    }
                }
                Ok(()) = gate.changed(), if self.due.is_some() => {
                    let open = *gate.borrow_and_update();
                    self.report(open, &up).await?;
                }
                _ = beats.tick() => send(&up, rank_up::What::Heartbeat(wire::Heartbeat {})).await?,
            }
        }
    }

    /// Handles a message; whether the job goes on.
    async fn take(
        &mut self,
        message: wire::RankDown,
        at: Instant,
        up: &mpsc::Sender<wire::RankUp>,
    ) -> Result<bool, Error> {
        use rank_down::What;
        let malformed = |error: lockstep_proto::WireError| Error::Drill(error.to_string());
        match required("message", message.what).map_err(malformed)? {
            What::Welcome(_) | What::Hold(_) | What::Follow(_) | What::Seal(_) => {}
            What::Membership(message) => {
                let membership = Membership::try_from(message).map_err(malformed)?;
                let epoch = membership.epoch.0;
                self.due = Some(Step(membership.base.0 + 1));
                self.membership = Some(membership);
                send(up, rank_up::What::Holding(wire::Holding { epoch })).await?;
                self.wait().await?;
            }
            What::Committed(commit) => {
                self.say(Word::Heard(at)).await?;
                if !commit.ends_epoch {
                    self.due = Some(Step(commit.step + 1));
                    self.wait().await?;
                }
            }
            What::Evicted(rejected) => return Err(Error::Drill(format!("evicted: {}", rejected.reason))),
            What::Ended(_) => return Ok(false),
            What::Give(_) | What::Over(_) => {
                return Err(Error::Drill("a message of a build, not of training".to_owned()));
            }
        }
        Ok(true)
    }

    async fn wait(&self) -> Result<(), Error> {
        match self.due {
            Some(step) => self.say(Word::Waits(step.0)).await,
            None => Ok(()),
        }
    }

    async fn say(&self, word: Word) -> Result<(), Error> {
        let sent = self.words.send(word).await;
        sent.map_err(|_| Error::Drill("the driver is gone".to_owned()))
    }

    /// Reports the step that is due, if the gate is open that far.
    async fn report(&mut self, open: u64, up: &mpsc::Sender<wire::RankUp>) -> Result<(), Error> {
        let (Some(step), Some(membership)) = (self.due, &self.membership) else {
            return Ok(());
        };
        if step.0 > open {
            return Ok(());
        }
        let geometry = self.spec.geometry();
        let assignment = membership.assignment(step);
        let rank = membership.rank_of(&self.me).unwrap_or_default();
        let span = |lane| {
            let positions = geometry.span(step, lane);
            wire::Span {
                from: positions.start,
                to: positions.end,
            }
        };
        let computed = wire::Computed {
            epoch: membership.epoch.0,
            step: step.0,
            lanes: assignment.lanes_of(rank).count() as u32,
            microseconds: 1000,
        };
        send(up, rank_up::What::Computed(computed)).await?;
        let reduced = wire::Reduced {
            epoch: membership.epoch.0,
            step: step.0,
            digest: step.to_string(),
            loss: 1.0,
            spans: assignment.lanes_of(rank).map(span).collect(),
            finite: true,
            weights: None,
        };
        self.due = None;
        send(up, rank_up::What::Reduced(reduced)).await?;
        self.say(Word::Reported(Instant::now())).await
    }
}

async fn send(up: &mpsc::Sender<wire::RankUp>, what: rank_up::What) -> Result<(), Error> {
    let sent = up.send(wire::RankUp { what: Some(what) }).await;
    sent.map_err(|_| Error::Drill("a rank's stream is closed".to_owned()))
}
