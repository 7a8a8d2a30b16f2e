//! One per node: registers it, starts a rank process for each slot that the coordinator fills, relays logs.
//!
//! A rank is this program, started as `PROGRAM rank …`.
//!
//! The ranks are the daemon's, not the connection's: when the coordinator is lost they go on, and the next one, or the
//! same one started anew, is told of them. They end with the daemon, and with their jobs.

mod child;
mod outbox;

use std::net::IpAddr;
use std::time::Duration;

use lockstep_engine::ids::{JobId, NodeId, WorkerId};
use lockstep_proto::convert::required;
use lockstep_proto::wire::nodes_client::NodesClient;
use lockstep_proto::{DAEMON_HEARTBEAT, DAEMON_SILENCE, VERSION, wire};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use crate::Error;
use crate::endpoints::{Endpoints, Leader};
use crate::processor;
use child::Children;
use outbox::Outbox;

/// How to run a node's daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// URLs of the coordinators.
    pub coordinators: Endpoints,
    /// This machine's name, unlike any other's.
    pub node: NodeId,
    /// Ranks that it can run at once: its devices, or shares of its processors.
    pub slots: u32,
    /// Threads of each rank; by default the processors are shared among the slots.
    pub threads: Option<u32>,
    /// The interface of the data plane; by default the one that leads to the coordinator.
    pub interface: Option<IpAddr>,
}

/// How long the coordinator may be missing at the start.
const FIRST_PATIENCE: Duration = Duration::from_secs(10);
/// How long another daemon of the same name may seem to be there: it may have died just now.
const NAME_PATIENCE: Duration = DAEMON_SILENCE.saturating_add(Duration::from_secs(1));
/// How long one search for the leader goes on before it is said that there is none.
const SEARCH: Duration = Duration::from_secs(10);
/// Between two tries to register.
const RETRY: Duration = Duration::from_millis(200);
/// Messages that may wait for the connection.
const UP_QUEUE: usize = 1024;

/// Runs until `shutdown`. A coordinator that was there once is waited for, for ever.
///
/// # Errors
/// When no coordinator leads at the start, or it refuses this node; when the processor cannot be used.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    processor::tell();
    let numerics =
        lockstep_trainer::numerics::fingerprint().map_err(|error| Error::Fatal(error.to_string()))?;
    let (outbox, words) = Outbox::new();
    let mut daemon = Daemon {
        numerics,
        incarnation: uuid::Uuid::new_v4().as_u128(),
        children: Children::new(options.clone(), words),
        outbox,
        options,
        was_there: false,
    };
    let lived = shutdown.run_until_cancelled(daemon.live()).await;
    // Nobody is there to be told any more: what they say is thrown away.
    drop(daemon.outbox);
    daemon.children.end().await;
    lived.unwrap_or(Ok(()))
}

struct Daemon {
    options: Options,
    /// Of this process.
    incarnation: u128,
    /// Which bits it computes.
    numerics: String,
    children: Children,
    outbox: Outbox,
    /// Whether a coordinator has taken it in before.
    was_there: bool,
}

impl Daemon {
    /// Registers, serves, and registers again, for ever.
    async fn live(&mut self) -> Result<(), Error> {
        let mut since = Instant::now();
        loop {
            let registered = self.register().await;
            let was_registered = registered.is_ok();
            let ended = match registered {
                Ok((up, mut down)) => self.serve(&up, &mut down).await,
                Err(error) => Err(error),
            };
            match ended {
                Ok(()) => tracing::warn!("the coordinator closed the connection; waiting for it"),
                Err(Error::Lost(reason)) if self.was_there => {
                    tracing::warn!("lost the coordinator: {reason}; waiting for it");
                }
                Err(error @ (Error::Unreachable { .. } | Error::Leaderless(_))) if self.was_there => {
                    tracing::warn!("{error}; waiting for one");
                }
                Err(Error::Unreachable { .. } | Error::Leaderless(_) | Error::Lost(_))
                    if since.elapsed() < FIRST_PATIENCE => {}
                Err(Error::Refused(_)) if since.elapsed() < NAME_PATIENCE => {}
                Err(error) => return Err(error),
            }
            if was_registered {
                since = Instant::now();
            }
            self.outbox.keep_for(RETRY).await;
        }
    }

    /// Finds the leader and introduces this node with what runs on it.
    async fn register(
        &mut self,
    ) -> Result<(mpsc::Sender<wire::DaemonUp>, Streaming<wire::DaemonDown>), Error> {
        let patience = if self.was_there { SEARCH } else { FIRST_PATIENCE };
        let leader = self.options.coordinators.leader(patience);
        let Leader { channel, url } = self.outbox.keep_during(leader).await?;
        let (up, messages) = mpsc::channel(UP_QUEUE);
        let interface = self.options.interface;
        let hello = wire::DaemonHello {
            version: VERSION.to_owned(),
            node: self.options.node.to_string(),
            slots: self.options.slots,
            incarnation: self.incarnation.to_be_bytes().to_vec(),
            interface: interface.map(|ip| ip.to_string()).unwrap_or_default(),
            running: self.children.running(),
            numerics: self.numerics.clone(),
        };
        send(&up, wire::daemon_up::What::Hello(hello)).await?;
        let mut client = NodesClient::new(channel);
        let opened = client.daemon(ReceiverStream::new(messages));
        let reply = self
            .outbox
            .keep_during(opened)
            .await
            .map_err(|status| Error::refused(&status))?;
        self.was_there = true;
        tracing::info!(node = %self.options.node, slots = self.options.slots, "registered with {url}");
        Ok((up, reply.into_inner()))
    }

    /// Starts and kills ranks as the coordinator says and passes on what they say, until the stream ends.
    async fn serve(
        &mut self,
        up: &mpsc::Sender<wire::DaemonUp>,
        down: &mut Streaming<wire::DaemonDown>,
    ) -> Result<(), Error> {
        let mut beats = tokio::time::interval(DAEMON_HEARTBEAT);
        loop {
            tokio::select! {
                message = down.message() => {
                    let message = message.map_err(|status| Error::Lost(status.message().to_owned()))?;
                    let Some(message) = message else { return Ok(()) };
                    self.obey(message)?;
                }
                word = self.outbox.next() => {
                    if let wire::daemon_up::What::Exited(exited) = &word {
                        self.children.reported(exited);
                    }
                    send(up, word).await?;
                }
                _ = beats.tick() => send(up, wire::daemon_up::What::Heartbeat(wire::Heartbeat {})).await?,
            }
        }
    }

    fn obey(&mut self, message: wire::DaemonDown) -> Result<(), Error> {
        use wire::daemon_down::What;
        let invalid = |error: lockstep_proto::WireError| Error::Lost(error.to_string());
        match required("message", message.what).map_err(invalid)? {
            What::Start(start) => {
                let job: JobId = start
                    .job
                    .parse()
                    .map_err(|error: lockstep_engine::ids::InvalidId| Error::Lost(error.to_string()))?;
                let worker = required("start.worker", start.worker)
                    .and_then(WorkerId::try_from)
                    .map_err(invalid)?;
                self.children.start(job, worker);
            }
            What::Kill(kill) => {
                let worker = required("kill.worker", kill.worker)
                    .and_then(WorkerId::try_from)
                    .map_err(invalid)?;
                self.children.kill(&worker);
            }
            What::Rejected(rejected) => return Err(Error::Refused(rejected.reason)),
        }
        Ok(())
    }
}

async fn send(up: &mpsc::Sender<wire::DaemonUp>, what: wire::daemon_up::What) -> Result<(), Error> {
    let message = wire::DaemonUp { what: Some(what) };
    up.send(message)
        .await
        .map_err(|_| Error::Lost("its stream is closed".to_owned()))
}
