//! The rank process: joins its job, runs until it is told to leave.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use lockstep_engine::ids::{JobId, Step, WorkerId};
use lockstep_engine::rank::RankMachine;
use lockstep_engine::spec::Spec;
use lockstep_proto::{VERSION, wire};
use tokio::sync::mpsc;
use tonic::Streaming;

use crate::Error;
use crate::endpoints::Endpoints;
use crate::executor::{Executor, Setup};
use crate::link::Link;
use crate::session::Session;

/// Which rank this is, and whose.
#[derive(Clone, Debug)]
pub struct Options {
    /// URLs of the coordinators.
    pub coordinators: Endpoints,
    /// The job.
    pub job: JobId,
    /// This process.
    pub worker: WorkerId,
    /// The interface of the data plane; by default the one that leads to the coordinator.
    pub interface: Option<IpAddr>,
}

/// Runs a rank to the end of its job.
///
/// # Errors
/// When the coordinator cannot be reached, refuses, is lost or evicts this rank; and when the rank cannot go on,
/// in which case the coordinator has been told why.
pub async fn run(options: Options) -> Result<(), Error> {
    let hello = wire::RankHello {
        version: VERSION.to_owned(),
        job: options.job.to_string(),
        worker: Some((&options.worker).into()),
    };
    let Some(link) = Link::open(&options.coordinators, hello).await? else {
        return Ok(());
    };
    let Link {
        up,
        mut down,
        welcome,
        leader,
        ..
    } = link;

    // Heartbeats go on while the executor starts: reading data and making weights may take a while.
    let (endings_in, endings) = mpsc::channel(4);
    let (losses_in, losses) = mpsc::unbounded_channel();
    let (tasks, queue) = std::sync::mpsc::channel();
    let (started, start) = tokio::sync::oneshot::channel();
    let spec =
        Spec::parse(&welcome.spec).map_err(|error| Error::Fatal(format!("the job's spec: {error}")))?;
    let setup = Setup {
        spec: spec.clone(),
        out: PathBuf::from(&welcome.out),
        worker: options.worker.clone(),
        interface: options.interface.unwrap_or_else(|| interface_towards(&leader)),
        on_peer_lost: Box::new(move |lost| drop(losses_in.send(lost))),
    };
    let work = move || {
        let executor = match Executor::new(setup) {
            Ok(executor) => executor,
            Err(reason) => return drop(started.send(Err(reason))),
        };
        let parts = (
            executor.endpoint().handle(),
            executor.endpoint().local_addr(),
            executor.scout(),
        );
        if started.send(Ok(parts)).is_ok() {
            executor.run(&queue, |ending| drop(endings_in.blocking_send(ending)));
        }
    };
    std::thread::Builder::new()
        .name("executor".into())
        .spawn(work)
        .map_err(|source| Error::System {
            action: "start the executor thread",
            source,
        })?;
    let started = start
        .await
        .map_err(|_| Error::Fatal("the executor thread ended while starting".to_owned()))?;
    let (plane, address, scout) = match started {
        Ok(parts) => parts,
        Err(reason) => return Err(last_words(&up, &mut down, reason).await),
    };
    let session = Session {
        machine: RankMachine::new(
            options.worker.clone(),
            spec.geometry(),
            Step(spec.train.steps),
            spec.checkpoint.every,
        ),
        worker: options.worker,
        address,
        up: up.clone(),
        tasks,
        plane,
        scout,
        members: BTreeMap::new(),
        reduced: None,
        checkpoint: String::new(),
        finished: None,
    };
    tracing::info!("ready; data plane at {address}");
    let heartbeat = spec.elastic.lease() / 8;
    match session.run(&mut down, endings, losses, heartbeat).await {
        Err(Error::Fatal(reason)) => Err(last_words(&up, &mut down, reason).await),
        result => result,
    }
}

/// Tells the coordinator why this rank cannot go on, and waits until it has answered with the job's end: leaving
/// earlier could cut the message off, and the next process would meet the same problem.
async fn last_words(
    up: &mpsc::Sender<wire::RankUp>,
    down: &mut Streaming<wire::RankDown>,
    reason: String,
) -> Error {
    let fatal = wire::rank_up::What::Fatal(wire::Fatal {
        reason: reason.clone(),
    });
    let said = async {
        up.send(wire::RankUp { what: Some(fatal) }).await.ok();
        while let Ok(Some(message)) = down.message().await {
            if matches!(message.what, Some(wire::rank_down::What::Ended(_))) {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), said).await.ok();
    Error::Fatal(reason)
}

/// The address of this machine from which the coordinator is reached. Nothing is sent.
fn interface_towards(coordinator: &str) -> IpAddr {
    let fallback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let authority = coordinator
        .split("://")
        .last()
        .unwrap_or_default()
        .trim_end_matches('/');
    let find = || {
        use std::net::ToSocketAddrs as _;
        let target: SocketAddr = authority.to_socket_addrs().ok()?.next()?;
        let any: SocketAddr = if target.is_ipv4() {
            ([0, 0, 0, 0], 0).into()
        } else {
            ([0u16; 8], 0).into()
        };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(target).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    find().unwrap_or(fallback)
}
