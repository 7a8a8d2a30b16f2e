//! The wire contract of the control plane, and the edge at which it becomes domain types.
//!
//! | module | what it holds |
//! |---|---|
//! | [`wire`] | generated messages, clients and servers; nothing past the edge sees them |
//! | [`convert`] | `TryFrom` wire to domain types of the engine, `From` the other way |
//!
//! The wire itself is in `lockstep.proto`, beside this crate's manifest.

pub mod convert;

/// The generated messages, clients and servers.
#[expect(
    missing_docs,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    reason = "generated; documented in lockstep.proto"
)]
pub mod wire {
    tonic::include_proto!("lockstep.v1");
}

pub use convert::WireError;

/// The version that both sides of a stream must share.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How often a node daemon says that it is alive.
pub const DAEMON_HEARTBEAT: std::time::Duration = std::time::Duration::from_millis(500);

/// A daemon that has said nothing for so long may be replaced by another process of the same name, which tries for longer
/// than this. A heartbeat may be late on a busy machine.
pub const DAEMON_SILENCE: std::time::Duration = DAEMON_HEARTBEAT.saturating_mul(4);

/// The metadata key under which a coordinator that does not lead names the leader's URL.
pub const LEADER_KEY: &str = "lockstep-leader";

/// Checks a peer's version.
///
/// # Errors
/// A sentence that names both versions and says what to do.
pub fn check_version(theirs: &str) -> Result<(), String> {
    if theirs == VERSION {
        return Ok(());
    }
    Err(format!(
        "version {theirs} cannot work with this coordinator's version {VERSION}; install the same `lockstep` on all machines"
    ))
}
