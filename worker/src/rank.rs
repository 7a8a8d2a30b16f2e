//! The rank process: joins its job, runs until it is told to leave.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;

use lockstep_engine::ids::{JobId, Step, WorkerId};
use lockstep_engine::rank::RankMachine;
use lockstep_engine::spec::Spec;
use lockstep_proto::{VERSION, wire};
use tokio::sync::mpsc;

use crate::Error;
use crate::build;
use crate::endpoints::Endpoints;
use crate::executor::{Executor, Setup, Work};
use crate::link::Link;
use crate::network::MakeNetwork;
use crate::processor;
use crate::session::{Inside, Session};

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
    /// What is trained.
    pub network: MakeNetwork,
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
    let Some(mut link) = Link::open(&options.coordinators, hello).await? else {
        return Ok(());
    };
    if link.welcome.builds {
        return build::run(link, &options.worker).await;
    }
    processor::tell();
    let spec =
        Spec::parse(&link.welcome.spec).map_err(|error| Error::Fatal(format!("the job's spec: {error}")))?;
    let (endings_in, endings) = mpsc::channel(4);
    let (losses_in, losses) = mpsc::unbounded_channel();
    let (written_in, written) = mpsc::unbounded_channel();
    let (work, queue) = std::sync::mpsc::channel();
    let (started, start) = tokio::sync::oneshot::channel();
    let setup = Setup {
        spec: spec.clone(),
        network: options.network,
        out: PathBuf::from(&link.welcome.out),
        worker: options.worker.clone(),
        interface: options
            .interface
            .unwrap_or_else(|| interface_towards(&link.leader)),
        on_peer_lost: Box::new(move |lost| drop(losses_in.send(lost))),
        work: work.clone(),
        queue,
        on_written: Arc::new(move |written| drop(written_in.send(written))),
    };
    let execute = move || {
        let executor = match Executor::new(setup) {
            Ok(executor) => executor,
            Err(reason) => return drop(started.send(Err(reason))),
        };
        let endpoint = executor.endpoint();
        let parts = (
            endpoint.handle(),
            endpoint.local_addr(),
            executor.checkpoints(),
            executor.void(),
        );
        if started.send(Ok(parts)).is_ok() {
            executor.run(|ending| drop(endings_in.blocking_send(ending)));
        }
    };
    let executor = std::thread::Builder::new()
        .name("executor".into())
        .spawn(execute)
        .map_err(|source| Error::System {
            action: "start the executor thread",
            source,
        })?;
    let started = start
        .await
        .map_err(|_| Error::Fatal("the executor thread ended while starting".to_owned()))?;
    let (plane, address, checkpoints, void) = match started {
        Ok(parts) => parts,
        Err(reason) => return Err(link.last_words(reason).await),
    };
    tracing::info!("ready; data plane at {address}");
    let mut session = Session {
        machine: RankMachine::new(options.worker.clone(), spec.geometry(), Step(spec.train.steps)),
        worker: options.worker,
        address,
        work,
        plane,
        checkpoints,
        void,
        up: None,
        spoke: tokio::time::Instant::now(),
        members: BTreeMap::new(),
        spans: BTreeMap::new(),
        finished: None,
    };
    let mut inside = Inside {
        endings,
        losses,
        written,
    };
    match session
        .run(&mut link, &mut inside, spec.elastic.heartbeat())
        .await
    {
        Ok(()) => {
            // What is being written, and copied elsewhere, is finished before this process leaves.
            session.work.send(Work::Stop).ok();
            drop((session, inside));
            tokio::task::spawn_blocking(move || executor.join()).await.ok();
            Ok(())
        }
        Err(Error::Fatal(reason)) => Err(link.last_words(reason).await),
        Err(error) => Err(error),
    }
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
