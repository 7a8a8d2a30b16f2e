//! The machines' side: a daemon for each node, a rank process for each device.
//!
//! | module | what it does |
//! |---|---|
//! | [`daemon`] | registers the node, starts a rank process for each slot that the coordinator fills, relays logs |
//! | [`rank`] | the rank process: joins its job, runs until it is told to leave |
//! | `link` | a rank's stream to the coordinator, opened again when it breaks |
//! | `session` | carries the engine's rank machine between the coordinator's stream and the executor |
//! | `executor` | a thread that owns device, data and data plane, and runs one task at a time |
//! | `checkpoints` | writes a rank's part of each checkpoint while training goes on |
//! | `loader` | positions of the sample order to batches |
//! | `validation` | how well the final weights predict the held-out text |
//! | [`lifeline`] | ends a process with its parent, whatever happened to the parent |

mod checkpoints;
pub mod daemon;
mod executor;
pub mod lifeline;
mod link;
mod loader;
pub mod rank;
mod session;
mod validation;

use std::time::Duration;

use lockstep_proto::wire::nodes_client::NodesClient;
use tonic::transport::{Channel, Endpoint};

/// Why a daemon or a rank process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The coordinator's address cannot be read.
    #[error("coordinator `{address}`: {problem}; give it as http://HOST:PORT")]
    Address {
        /// As given.
        address: String,
        /// Why.
        problem: String,
    },
    /// Nobody answers there.
    #[error(
        "no coordinator at {address}: {problem}; start one with `lockstep coordinator`, or check --coordinator"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        problem: String,
    },
    /// The coordinator would not have us.
    #[error("the coordinator refused: {0}")]
    Refused(String),
    /// The coordinator's versions and ours differ.
    #[error("{0}")]
    Version(String),
    /// The stream to the coordinator broke.
    #[error("lost the coordinator: {0}")]
    Lost(String),
    /// The coordinator sent this rank away.
    #[error("evicted: {0}")]
    Evicted(String),
    /// The rank cannot go on; the coordinator was told.
    #[error("{0}")]
    Fatal(String),
    /// The system refused something.
    #[error("{action}: {source}")]
    System {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

impl Error {
    /// A refusal in the coordinator's words.
    fn refused(status: &tonic::Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            tonic::Code::FailedPrecondition => Self::Version(message),
            tonic::Code::Unavailable | tonic::Code::Cancelled | tonic::Code::Unknown => Self::Lost(message),
            _ => Self::Refused(message),
        }
    }
}

/// Opens a channel to the coordinator at `address`, a URL.
async fn connect(address: &str) -> Result<NodesClient<Channel>, Error> {
    let endpoint = Endpoint::from_shared(address.to_owned())
        .map_err(|error| Error::Address {
            address: address.to_owned(),
            problem: error.to_string(),
        })?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(5))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    let channel = endpoint.connect().await.map_err(|error| Error::Unreachable {
        address: address.to_owned(),
        problem: innermost(&error),
    })?;
    Ok(NodesClient::new(channel))
}

/// The last cause in a chain of errors, which says most.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
