//! The rank processes of a node.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lockstep_engine::ids::{JobId, WorkerId};
use lockstep_proto::wire;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Options;

/// How long killed ranks may take to be gone.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// What this process runs, whatever is by now in the place of the file that it was started from: a rank of another build
/// could compute other bits than those that the daemon's fingerprint stands for.
const PROGRAM: &str = "/proc/self/exe";

type Words = mpsc::Sender<wire::daemon_up::What>;

/// All ranks that were started and whose end was not reported yet.
pub(super) struct Children {
    options: Options,
    words: Words,
    running: BTreeMap<WorkerId, (JobId, CancellationToken)>,
    watches: JoinSet<()>,
}

impl Children {
    /// `words` is where they speak.
    pub(super) fn new(options: Options, words: Words) -> Self {
        Self {
            options,
            words,
            running: BTreeMap::new(),
            watches: JoinSet::new(),
        }
    }

    /// Starts a rank; if that fails, its end is told like any other.
    pub(super) fn start(&mut self, job: JobId, worker: WorkerId) {
        let doom = CancellationToken::new();
        self.running.insert(worker.clone(), (job.clone(), doom.clone()));
        while self.watches.try_join_next().is_some() {}
        let (options, words) = (self.options.clone(), self.words.clone());
        self.watches.spawn(watch(options, job, worker, words, doom));
    }

    /// Sends SIGKILL, if it is there.
    pub(super) fn kill(&self, worker: &WorkerId) {
        if let Some((_, doom)) = self.running.get(worker) {
            doom.cancel();
        }
    }

    /// What a coordinator is to know of.
    pub(super) fn running(&self) -> Vec<wire::RunningRank> {
        let shown = |(worker, (job, _)): (&WorkerId, &(JobId, _))| wire::RunningRank {
            worker: Some(worker.into()),
            job: job.to_string(),
        };
        self.running.iter().map(shown).collect()
    }

    /// The end of a rank is about to be told.
    pub(super) fn reported(&mut self, exited: &wire::RankExited) {
        self.running
            .retain(|worker, _| exited.worker.as_ref() != Some(&worker.into()));
    }

    /// Kills all and waits until they are gone.
    pub(super) async fn end(mut self) {
        for (_, doom) in self.running.values() {
            doom.cancel();
        }
        let all_gone = async { while self.watches.join_next().await.is_some() {} };
        tokio::time::timeout(LAST_PATIENCE, all_gone).await.ok();
    }
}

/// Watches a rank process: starts it, relays what it writes, kills it when it is doomed, and tells of its end.
async fn watch(options: Options, job: JobId, worker: WorkerId, words: Words, doom: CancellationToken) {
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
                    .map(|out| tokio::spawn(relay(out, job.to_string(), name.clone(), words.clone()))),
                child
                    .stderr
                    .take()
                    .map(|err| tokio::spawn(relay(err, job.to_string(), name, words.clone()))),
            ];
            let status = match doom.run_until_cancelled(child.wait()).await {
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
    words.send(wire::daemon_up::What::Exited(exited)).await.ok();
}

fn start(options: &Options, job: &JobId, worker: &WorkerId) -> std::io::Result<Child> {
    // Ranks share the machine's processors; a pool larger than its share only gets in the others' way.
    let share = || {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (cores / options.slots.max(1) as usize).max(1)
    };
    let threads = options
        .threads
        .map_or_else(share, |threads| threads as usize)
        .to_string();
    let mut command = Command::new(PROGRAM);
    command
        .arg0(std::env::args_os().next().unwrap_or_default())
        .arg("rank")
        .args(["--coordinator", &options.coordinators.to_string()])
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

async fn relay(pipe: impl AsyncRead + Unpin, job: String, worker: String, words: Words) {
    let mut lines = BufReader::new(pipe).lines();
    while let Ok(Some(text)) = lines.next_line().await {
        let line = wire::LogLine {
            job: job.clone(),
            worker: worker.clone(),
            text,
        };
        if words.send(wire::daemon_up::What::Log(line)).await.is_err() {
            return;
        }
    }
}
