//! The coordinator: runs the engine's job machines behind gRPC, with a store for what must survive it.
//!
//! | module | what it does |
//! |---|---|
//! | `services` | gRPC in and out; no decisions |
//! | [`leadership`] | whether this coordinator leads: alone, or elected among several |
//! | `reign` | one leadership from beginning to end: its actor and recorder |
//! | `actor` | owns all jobs and nodes; places jobs on slots |
//! | `message` | what the actor is asked and told |
//! | `nodes` | the machines: whose daemons are connected, what runs in their slots |
//! | `submission` | a job on its way in |
//! | `run` | one job: its machine, its ranks' streams, its watchers |
//! | [`store`] | what survives: jobs, epochs, ledger, checkpoints |
//! | `recorder` | writes ledger and logs off the steps' path |
//! | `lines` | the logs' files: whole lines, kept while the disk is full |
//! | [`ledger_log`] | `ledger.jsonl`: the ledger's history, which stays with the run |
//! | [`jsonl`] | files of one JSON value a line, whose last may be torn |
//! | [`summary`] | `summary.json` |
//!
//! It never links candle: decisions about tensors are the ranks'.

mod actor;
pub mod jsonl;
pub mod leadership;
pub mod ledger_log;
mod lines;
mod message;
mod nodes;
mod recorder;
mod reign;
mod run;
mod services;
pub mod store;
mod submission;
pub mod summary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use lockstep_proto::wire::jobs_server::JobsServer;
use lockstep_proto::wire::nodes_server::NodesServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use leadership::{Role, Seat};
use services::{Services, Standing};
use store::StoreError;

/// A silent peer is given up after these two: sooner than its lease runs out.
const KEEPALIVE_INTERVAL: Duration = Duration::from_millis(500);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_millis(1_250);

/// How to run a coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What it keeps, and where.
    pub store: StoreOptions,
    /// The URL at which workers, people and other coordinators find it; by default the address it listens on.
    pub advertise: Option<String>,
}

/// Which store to use.
#[derive(Clone, Debug)]
pub enum StoreOptions {
    /// A file in this folder, for one coordinator.
    Redb(PathBuf),
    /// An etcd cluster, for several coordinators.
    #[cfg(feature = "etcd")]
    Etcd(store::etcd::Options),
}

/// Why a coordinator cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be had.
    #[error("listen on {address}: {source}; is another coordinator running there? Choose another --listen")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Others could not find it.
    #[error(
        "listen on {address}: this says nothing of where others find this coordinator; add --advertise http://HOST:{port}",
        port = address.port()
    )]
    Advertise {
        /// Where it listens.
        address: SocketAddr,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The recorder's thread cannot be started.
    #[error("start the recorder: {0}")]
    Recorder(std::io::Error),
    /// The server ended.
    #[error("serve gRPC: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// A coordinator that is bound to its address but does not serve yet.
#[derive(Debug)]
pub struct Coordinator {
    listener: TcpListener,
    seat: Seat,
    advertise: String,
}

impl Coordinator {
    /// Opens the store and binds the address.
    ///
    /// # Errors
    /// When either cannot be had.
    pub async fn bind(options: &Options) -> Result<Self, Error> {
        let address = options.listen;
        let listen = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let bound = listener.local_addr().map_err(listen)?;
        let advertise = options.advertise.clone();
        let seat = match &options.store {
            StoreOptions::Redb(folder) => Seat::alone(store::redb::Redb::open(folder)?),
            #[cfg(feature = "etcd")]
            StoreOptions::Etcd(etcd) => {
                if advertise.is_none() && bound.ip().is_unspecified() {
                    return Err(Error::Advertise { address: bound });
                }
                let url = advertise.clone().unwrap_or_else(|| format!("http://{bound}"));
                Seat::elected(etcd, url).await?
            }
        };
        Ok(Self {
            listener,
            seat,
            advertise: advertise.unwrap_or_else(|| format!("http://{bound}")),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; what was committed is written, and the leadership given up, before it returns.
    ///
    /// # Errors
    /// When the store or the server fails.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let first = match self.seat.role() {
            Role::Leading(_) => Standing::Rising,
            Role::Standby { leader } => Standing::Standby { leader },
        };
        let (standing_in, standing) = watch::channel(first);
        let services = Services::new(standing, self.advertise);
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(JobsServer::new(services.clone()))
            .add_service(NodesServer::new(services));
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        // Open streams would keep a graceful stop waiting for ever: the server ends with the reign.
        tokio::select! {
            served = server.serve_with_incoming(incoming) => Ok(served?),
            reigned = reign::follow(self.seat, &standing_in, &shutdown) => reigned,
        }
    }
}
