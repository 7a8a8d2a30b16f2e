//! One per node: registers it, starts a rank process for each slot that the coordinator fills, relays logs.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lockstep_engine::ids::{JobId, NodeId, WorkerId};
use lockstep_proto::convert::required;
use lockstep_proto::{VERSION, wire};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::{Error, connect};

/// How to run a node's daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// The coordinator's URL.
    pub coordinator: String,
    /// This machine's name, unlike any other's.
    pub node: NodeId,
    /// Ranks that it can run at once: its devices, or shares of its processors.
    pub slots: u32,
    /// The interface of the data plane; by default the one that leads to the coordinator.
    pub interface: Option<IpAddr>,
    /// The program to start as `PROGRAM rank …`.
    pub program: PathBuf,
}

/// How long the coordinator may be missing at the start.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long killed ranks may take to be gone.
const LAST_PATIENCE: Duration = Duration::from_secs(5);
/// Between two tries to find it again.
const RETRY: Duration = Duration::from_millis(500);

/// Runs until `shutdown`. A coordinator that was there once is waited for, for ever.
///
/// # Errors
/// When the coordinator is not there at the start, or refuses this node.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    let started = tokio::time::Instant::now();
    let mut was_there = false;
    loop {
        let served = serve(&options, &mut was_there, &shutdown).await;
        if shutdown.is_cancelled() {
            return Ok(());
        }
        match served {
            Ok(()) => tracing::warn!("the coordinator closed the connection; waiting for it"),
            Err(Error::Lost(reason)) if was_there => {
                tracing::warn!("lost the coordinator: {reason}; waiting for it")
            }
            Err(Error::Unreachable { .. }) if was_there || started.elapsed() < FIRST_PATIENCE => {}
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return Ok(()),
        }
    }
}

/// One connection's life. Its ranks die with it, and are gone when this returns.
async fn serve(options: &Options, was_there: &mut bool, shutdown: &CancellationToken) -> Result<(), Error> {
    let mut client = tokio::select! {
        client = connect(&options.coordinator) => client?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let (up, messages) = mpsc::channel(1024);
    let hello = wire::DaemonHello {
        version: VERSION.to_owned(),
        node: options.node.to_string(),
        slots: options.slots,
    };
    send(&up, wire::daemon_up::What::Hello(hello)).await?;
    let reply = client
        .daemon(ReceiverStream::new(messages))
        .await
        .map_err(|status| Error::refused(&status))?;
    let mut down = reply.into_inner();
    *was_there = true;
    tracing::info!(node = %options.node, slots = options.slots, "registered with {}", options.coordinator);
    let mut ranks = JoinSet::new();
    let (kills, _) = broadcast::channel(64);
    let ended = tokio::select! {
        ended = obey(options, &mut down, &up, &mut ranks, &kills) => ended,
        () = shutdown.cancelled() => Ok(()),
    };
    // Without anybody who could spare them, all are killed.
    drop(kills);
    let all_gone = async { while ranks.join_next().await.is_some() {} };
    tokio::time::timeout(LAST_PATIENCE, all_gone).await.ok();
    ended
}

/// Starts and kills ranks as the coordinator says, until its stream ends.
async fn obey(
    options: &Options,
    down: &mut Streaming<wire::DaemonDown>,
    up: &mpsc::Sender<wire::DaemonUp>,
    ranks: &mut JoinSet<()>,
    kills: &broadcast::Sender<WorkerId>,
) -> Result<(), Error> {
    loop {
        tokio::select! {
            message = down.message() => {
                use wire::daemon_down::What;
                let message = message.map_err(|status| Error::Lost(status.message().to_owned()))?;
                let Some(message) = message else { return Ok(()) };
                let invalid = |error: lockstep_proto::WireError| Error::Lost(error.to_string());
                match required("message", message.what).map_err(invalid)? {
                    What::Start(start) => {
                        let job: JobId = start.job.parse().map_err(|e: lockstep_engine::ids::InvalidId| Error::Lost(e.to_string()))?;
                        let incarnation = uuid::Uuid::new_v4().as_u128();
                        let worker = WorkerId { node: options.node.clone(), slot: start.slot, incarnation };
                        ranks.spawn(watch(options.clone(), job, worker, up.clone(), kills.subscribe()));
                    }
                    What::Kill(kill) => {
                        let worker = required("kill.worker", kill.worker).and_then(WorkerId::try_from).map_err(invalid)?;
                        kills.send(worker).ok();
                    }
                    What::Rejected(rejected) => return Err(Error::Refused(rejected.reason)),
                }
            }
            Some(_) = ranks.join_next() => {}
        }
    }
}

async fn send(up: &mpsc::Sender<wire::DaemonUp>, what: wire::daemon_up::What) -> Result<(), Error> {
    let message = wire::DaemonUp { what: Some(what) };
    up.send(message)
        .await
        .map_err(|_| Error::Lost("its stream is closed".to_owned()))
}

/// Starts a rank process, relays what it writes, kills it when told to, and reports its end.
async fn watch(
    options: Options,
    job: JobId,
    worker: WorkerId,
    up: mpsc::Sender<wire::DaemonUp>,
    mut kills: broadcast::Receiver<WorkerId>,
) {
    let how = match start(&options, &job, &worker) {
        Err(error) => format!("it could not be started: {error}"),
        Ok(mut child) => {
            let name = worker.to_string();
            // The rank lives by this pipe; waiting for the child would close it.
            let lifeline = child.stdin.take();
            let relays = [
                child
                    .stdout
                    .take()
                    .map(|out| tokio::spawn(relay(out, job.to_string(), name.clone(), up.clone()))),
                child
                    .stderr
                    .take()
                    .map(|err| tokio::spawn(relay(err, job.to_string(), name, up.clone()))),
            ];
            let doomed = async {
                loop {
                    match kills.recv().await {
                        Ok(victim) if victim == worker => return,
                        Err(broadcast::error::RecvError::Closed) => return,
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    }
                }
            };
            let ended = tokio::select! {
                status = child.wait() => Some(status),
                () = doomed => None,
            };
            let status = match ended {
                Some(status) => status,
                None => {
                    // SIGKILL; it may have ended by itself just now.
                    child.start_kill().ok();
                    child.wait().await
                }
            };
            drop(lifeline);
            for relay in relays.into_iter().flatten() {
                relay.await.ok();
            }
            status.map_or_else(|error| error.to_string(), describe)
        }
    };
    tracing::info!(%worker, %job, "rank process ended: {how}");
    let exited = wire::RankExited {
        worker: Some((&worker).into()),
        job: job.to_string(),
        how,
    };
    send(&up, wire::daemon_up::What::Exited(exited)).await.ok();
}

fn start(options: &Options, job: &JobId, worker: &WorkerId) -> std::io::Result<Child> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // Ranks share the machine's processors; a pool larger than its share only gets in the others' way.
    let threads = (cores / options.slots.max(1) as usize).max(1).to_string();
    let mut command = Command::new(&options.program);
    command
        .arg("rank")
        .args(["--coordinator", &options.coordinator])
        .args(["--job", job.as_str()])
        .args(["--node", worker.node.as_str()])
        .args(["--slot", &worker.slot.to_string()])
        .args(["--incarnation", &format!("{:032x}", worker.incarnation)])
        .env("RAYON_NUM_THREADS", &threads)
        .env("CANDLE_NUM_THREADS", &threads)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    if let Some(interface) = options.interface {
        command.args(["--interface", &interface.to_string()]);
    }
    command.spawn()
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal 9 (SIGKILL)".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

async fn relay(pipe: impl AsyncRead + Unpin, job: String, worker: String, up: mpsc::Sender<wire::DaemonUp>) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let line = wire::LogLine {
            job: job.clone(),
            worker: worker.clone(),
            text,
        };
        if send(&up, wire::daemon_up::What::Log(line)).await.is_err() {
            return;
        }
    }
}
