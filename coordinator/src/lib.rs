//! The coordinator: runs the engine's job machines behind gRPC, with a store for what must survive it.
//!
//! | module | what it does |
//! |---|---|
//! | `services` | gRPC in and out; no decisions |
//! | `actor` | owns all jobs and nodes; places jobs on slots |
//! | `run` | one job: its machine, its ranks' streams, its watchers |
//! | [`store`] | what survives: jobs, epochs, ledger, checkpoints |
//! | `recorder` | writes ledger and logs off the steps' path |
//! | [`ledger_log`] | `ledger.jsonl`: the ledger's history, which stays with the run |
//! | [`jsonl`] | files of one JSON value a line, whose last may be torn |
//! | [`summary`] | `summary.json` |
//!
//! It never links candle: decisions about tensors are the ranks'.

mod actor;
pub mod jsonl;
pub mod ledger_log;
mod recorder;
mod run;
mod services;
pub mod store;
pub mod summary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use lockstep_proto::wire::jobs_server::JobsServer;
use lockstep_proto::wire::nodes_server::NodesServer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use actor::{Actor, Message};
use recorder::Recorder;
use services::Services;
use store::{Store, StoreError};

/// Messages that may wait for the actor.
const INBOX: usize = 4096;

/// How to run a coordinator.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The folder of its store.
    pub state: PathBuf,
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
    store: Arc<Store>,
}

impl Coordinator {
    /// Opens the store and binds the address.
    ///
    /// # Errors
    /// When either cannot be had.
    pub async fn bind(options: &Options) -> Result<Self, Error> {
        let address = options.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        let store = Arc::new(Store::open(&options.state)?);
        Ok(Self { listener, store })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown`; what was committed is written before it returns.
    ///
    /// # Errors
    /// When the store or the server fails.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        let (inbox, messages) = mpsc::channel(INBOX);
        let failures = inbox.clone().downgrade();
        let failed = move |job, reason| {
            if let Some(inbox) = failures.upgrade() {
                inbox.blocking_send(Message::RecordsFailed { job, reason }).ok();
            }
        };
        let recorder = Recorder::start(Arc::clone(&self.store), failed).map_err(Error::Recorder)?;
        let actor = Actor::new(self.store, recorder.clone(), inbox.clone())?;
        let actor = tokio::spawn(actor.run(messages));
        let services = Services::new(inbox);
        let server = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(2)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .add_service(JobsServer::new(services.clone()))
            .add_service(NodesServer::new(services));
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        tokio::select! {
            served = server.serve_with_incoming(incoming) => served?,
            () = shutdown.cancelled() => {}
        }
        // Open streams would keep a graceful stop waiting for ever: the actor ends with them.
        actor.abort();
        recorder.flush().await;
        Ok(())
    }
}
