//! A whole cluster on this machine: a coordinator, a node daemon and its ranks as real processes over loopback.
//! The same programs as on a cluster; only the addresses differ.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::failure::Failure;

/// The processes. Dropping them kills them; if this process dies, they see their standard input end and leave.
#[derive(Debug)]
pub(crate) struct Cluster {
    address: String,
    coordinator: Process,
    daemon: Process,
    logs: PathBuf,
}

/// A child, and the pipe that it lives by: waiting for a child closes the pipe unless it is kept apart.
#[derive(Debug)]
struct Process {
    child: Child,
    lifeline: Option<ChildStdin>,
}

impl Process {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        let mut child = command.spawn()?;
        let lifeline = child.stdin.take();
        Ok(Self { child, lifeline })
    }

    async fn stop(mut self) {
        drop(self.lifeline.take());
        if tokio::time::timeout(PATIENCE, self.child.wait()).await.is_err() {
            self.child.kill().await.ok();
        }
    }
}

/// How long a child may take to come up or to leave.
const PATIENCE: Duration = Duration::from_secs(20);

impl Cluster {
    /// Starts a coordinator with its store in `out/coordinator`, and a daemon with `workers` slots, whose ranks have
    /// `threads` threads each; by default their share of the cores.
    pub(crate) async fn start(out: &Path, workers: u32, threads: Option<u32>) -> anyhow::Result<Self> {
        let logs = out.join("logs");
        std::fs::create_dir_all(&logs).map_err(Failure::storage(format!("create {}", logs.display())))?;
        let program = std::env::current_exe().context("find this program")?;
        let log = |name: &str| {
            let path = logs.join(name);
            File::create(&path).map_err(Failure::storage(format!("create {}", path.display())))
        };
        let child = |log: File| {
            let mut command = Command::new(&program);
            // Ctrl-C is for this process, which then stops its children in order.
            command
                .stdin(Stdio::piped())
                .stderr(log)
                .process_group(0)
                .kill_on_drop(true);
            command
        };
        let mut command = child(log("coordinator.log")?);
        command.args(["coordinator", "--listen", "127.0.0.1:0", "--lifeline", "--state"]);
        command.arg(out.join("coordinator")).stdout(Stdio::piped());
        let mut coordinator = Process::start(&mut command).context("start the coordinator")?;
        let address = match coordinator.child.stdout.take() {
            Some(stdout) => first_line(stdout).await,
            None => None,
        };
        let Some(address) = address.and_then(|line| line.strip_prefix("listening on ").map(str::to_owned))
        else {
            let status = tokio::time::timeout(PATIENCE, coordinator.child.wait()).await;
            let log = std::fs::read_to_string(logs.join("coordinator.log")).unwrap_or_default();
            let status = status.map_or("hangs".to_owned(), |s| {
                s.map_or_else(|e| e.to_string(), |s| s.to_string())
            });
            return Err(Failure::Job(format!(
                "the coordinator did not start ({status}): {}",
                log.trim()
            ))
            .into());
        };
        let mut command = child(log("daemon.log")?);
        command.args([
            "worker",
            "--name",
            "local",
            "--lifeline",
            "--coordinator",
            &address,
        ]);
        command
            .args(["--slots", &workers.to_string()])
            .stdout(Stdio::null());
        if let Some(threads) = threads {
            command.args(["--threads", &threads.to_string()]);
        }
        let daemon = Process::start(&mut command).context("start the node daemon")?;
        Ok(Self {
            address,
            coordinator,
            daemon,
            logs,
        })
    }

    /// The coordinator's URL.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Waits until one of the processes ends, which neither should; says which and where its log is.
    pub(crate) async fn failed(&mut self) -> Failure {
        let (who, status) = tokio::select! {
            status = self.coordinator.child.wait() => ("coordinator", status),
            status = self.daemon.child.wait() => ("daemon", status),
        };
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let log = self.logs.join(format!("{who}.log"));
        Failure::Job(format!(
            "the {who} process ended ({status}); see {}",
            log.display()
        ))
    }

    /// Stops the daemon and its ranks, then the coordinator, which writes what it has.
    pub(crate) async fn stop(self) {
        self.daemon.stop().await;
        self.coordinator.stop().await;
    }
}

async fn first_line(pipe: impl tokio::io::AsyncRead + Unpin) -> Option<String> {
    let mut lines = BufReader::new(pipe).lines();
    tokio::time::timeout(PATIENCE, lines.next_line())
        .await
        .ok()?
        .ok()?
}
