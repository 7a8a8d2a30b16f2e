//! `coordinator`, `worker` and the hidden `rank`: the processes of a cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use lockstep_coordinator::{Coordinator, Options, StoreOptions};
use lockstep_engine::ids::{JobId, NodeId, WorkerId};
use lockstep_worker::endpoints::Endpoints;
use lockstep_worker::network::MakeNetwork;
use lockstep_worker::{daemon, lifeline, rank};
use tokio_util::sync::CancellationToken;

use super::log_to_stderr;
use crate::client::At;
use crate::failure::Failure;
use crate::interrupt;
use crate::output::line;

/// Run a coordinator: the process that jobs are submitted to and workers connect to.
///
/// It prints the address that workers and people use, then serves until Ctrl-C or SIGTERM. Jobs survive it: started
/// again with the same --state, it goes on with them.
///
/// For jobs that go on when the coordinator's machine is lost, run three on different machines over one etcd cluster,
/// with --etcd instead of --state. One leads; when it is gone another one takes over within --lease-ms and a second.
/// Give workers and people the URLs of all: --coordinator http://a:7070,http://b:7070,http://c:7070.
#[derive(Debug, clap::Args)]
pub(crate) struct CoordinatorArgs {
    /// Where to listen; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// The folder of its store: jobs, epochs, the ledger of committed steps.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "lockstep-state",
        conflicts_with = "etcd"
    )]
    state: PathBuf,
    /// Keep them in etcd instead, which several coordinators share: URLs of its members.
    #[arg(long, value_name = "URL,…", value_delimiter = ',')]
    etcd: Vec<String>,
    /// Before each key in etcd: coordinators of one cluster share it, those of another have their own.
    #[arg(long, value_name = "PREFIX", default_value = "/lockstep", requires = "etcd")]
    etcd_prefix: String,
    /// How long the leader may be silent before another takes over, in whole seconds; etcd gives no less than one and a
    /// half of its own election time-out, by default 2 s.
    #[arg(long, value_name = "MS", default_value_t = 2000, requires = "etcd", value_parser = clap::value_parser!(u64).range(1000..=60_000))]
    lease_ms: u64,
    /// The URL at which workers, people and other coordinators find this one; by default where it listens.
    #[arg(long, value_name = "URL")]
    advertise: Option<Endpoints>,
    /// Leave when standard input ends.
    #[arg(long, hide = true)]
    lifeline: bool,
}

/// Run a node daemon: it offers this machine's slots to a coordinator.
///
/// It registers this machine and starts one rank process for each slot that the coordinator fills.
#[derive(Debug, clap::Args)]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    at: At,
    /// This machine's name, unlike any other's; by default its host name.
    #[arg(long, value_name = "NAME")]
    name: Option<NodeId>,
    /// Ranks that it can run at once.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    slots: u32,
    /// Threads of each rank; by default cores / slots. Fewer where the machine does other things too.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    threads: Option<u32>,
    /// The address on which ranks exchange gradients; by default the one that leads to the coordinator.
    #[arg(long, value_name = "IP")]
    interface: Option<IpAddr>,
    /// Leave when standard input ends.
    #[arg(long, hide = true)]
    lifeline: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct RankArgs {
    #[arg(long = "coordinator")]
    coordinators: Endpoints,
    #[arg(long)]
    job: JobId,
    #[arg(long)]
    node: NodeId,
    #[arg(long)]
    slot: u32,
    #[arg(long, value_parser = |text: &str| u128::from_str_radix(text, 16))]
    incarnation: u128,
    #[arg(long)]
    interface: Option<IpAddr>,
}

/// A token that is cancelled by Ctrl-C, SIGTERM or the parent's end.
fn shutdown(with_lifeline: bool) -> anyhow::Result<CancellationToken> {
    let token = interrupt::heed()?.token().child_token();
    if with_lifeline {
        let cancel = token.clone();
        lifeline::watch(move || cancel.cancel()).context("watch standard input")?;
    }
    Ok(token)
}

pub(crate) async fn coordinator(args: CoordinatorArgs) -> anyhow::Result<()> {
    log_to_stderr("info");
    arm("coordinator")?;
    let options = Options {
        listen: args.listen,
        store: store_options(&args)?,
        advertise: args.advertise.map(|url| url.to_string()),
    };
    let shutdown = shutdown(args.lifeline)?;
    let coordinator = Coordinator::bind(&options).await?;
    line(&format!(
        "listening on http://{}",
        coordinator.address().context("read the bound address")?
    ))?;
    coordinator.run(shutdown).await?;
    Ok(())
}

#[cfg(feature = "etcd")]
fn store_options(args: &CoordinatorArgs) -> anyhow::Result<StoreOptions> {
    if args.etcd.is_empty() {
        return Ok(StoreOptions::Redb(args.state.clone()));
    }
    Ok(StoreOptions::Etcd(lockstep_coordinator::store::etcd::Options {
        endpoints: args.etcd.clone(),
        prefix: args.etcd_prefix.clone(),
        lease: std::time::Duration::from_millis(args.lease_ms),
    }))
}

#[cfg(not(feature = "etcd"))]
fn store_options(args: &CoordinatorArgs) -> anyhow::Result<StoreOptions> {
    if args.etcd.is_empty() {
        return Ok(StoreOptions::Redb(args.state.clone()));
    }
    let message =
        "--etcd: this `lockstep` was built without it; build with `cargo build --release --features etcd`";
    Err(Failure::Usage(message.to_owned()).into())
}

pub(crate) async fn worker(args: WorkerArgs) -> anyhow::Result<()> {
    log_to_stderr("info");
    // For its ranks: a variable that they cannot read would stop each of them.
    arm("daemon")?;
    let node = match args.name {
        Some(name) => name,
        None => host_name()?,
    };
    let options = daemon::Options {
        coordinators: args.at.coordinators,
        node,
        slots: args.slots,
        threads: args.threads,
        interface: args.interface,
    };
    daemon::run(options, shutdown(args.lifeline)?).await?;
    Ok(())
}

pub(crate) async fn rank(args: RankArgs, network: MakeNetwork) -> anyhow::Result<()> {
    log_to_stderr("info");
    take_name();
    lifeline::watch(|| std::process::exit(1)).context("watch standard input")?;
    let worker = WorkerId {
        node: args.node,
        slot: args.slot,
        incarnation: args.incarnation,
    };
    arm(&worker.to_string())?;
    let options = rank::Options {
        coordinators: args.coordinators,
        job: args.job,
        worker,
        interface: args.interface,
        network,
    };
    rank::run(options).await?;
    Ok(())
}

/// Has `ps` and `top` call this process by its program's name: it was started as `/proc/self/exe`, and is `exe` to them.
fn take_name() {
    let program = std::env::args_os().next().map(PathBuf::from);
    if let Some(name) = program.as_deref().and_then(Path::file_name) {
        std::fs::write("/proc/self/comm", name.as_encoded_bytes()).ok();
    }
}

/// Arms the fault that the environment names for this process, for tests and drills.
fn arm(me: &str) -> Result<(), Failure> {
    lockstep_faults::arm(me).map_err(|error| Failure::Usage(error.to_string()))
}

fn host_name() -> anyhow::Result<NodeId> {
    let raw = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = raw.trim().to_ascii_lowercase();
    name.parse()
        .map_err(|error| Failure::Usage(format!("{error}; give this machine a --name")).into())
}
