//! Exact reductions between ranks over framed TCP.
//!
//! Ranks hold partial gradients at nodes of the fixed tree over lanes. This crate moves them, combines them in
//! the tree's order and gives every rank the same bits, whoever computed what and however many there are. It
//! uses threads and blocking sockets, so it can be called from any kind of program, and it never sees a tensor.
//!
//! Nothing here decides who is a member: the caller [enters](Endpoint::enter) a group, is told when a member is
//! lost, and [raises](Handle::raise) the epoch to stop what is running for an older one.
//!
//! ```
//! use std::net::{Ipv4Addr, SocketAddr};
//!
//! use lockstep_collective::{Endpoint, Group, Options, Partials, Peer};
//! use lockstep_engine::geometry::{Assignment, Node};
//! use lockstep_engine::ids::{Epoch, Rank, Step};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
//! let endpoint = Endpoint::bind(Options::new(listen, 42, "node/0#1"))?;
//! let me = Peer { identity: "node/0#1".into(), address: endpoint.local_addr() };
//! endpoint.enter(Group { epoch: Epoch(1), rank: Rank(0), members: vec![me] })?;
//!
//! let assignment = Assignment::fresh(2, 1);
//! let mut partials = Partials::new(2, 3);
//! for lane in assignment.lanes_of(Rank(0)) {
//!     let mut gradient = partials.buffer();
//!     gradient.fill(0.5);
//!     partials.insert(Node::leaf(lane), gradient)?;
//! }
//! let mut reduced = vec![0.0; 3];
//! endpoint.all_reduce(Step(1), &[0..2, 2..3], &assignment, &partials, &mut reduced)?;
//! assert_eq!(reduced, [1.0; 3]);
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it holds |
//! |---|---|
//! | [`partials`] | a rank's folded gradients of the step in flight, and their buffers |
//! | [`frame`] | the header on the wire, its checks, and the greeting |
//! | [`endpoint`] | bind, enter, raise, close: the public face |
//! | [`error`] | what can go wrong, and what to do about it |
//! | `fold` | the one addition and the fixed tree |
//! | `pool` | buffers that come back |
//! | `plan` | how buckets are cut in chunks and pieces |
//! | `reduction` | one all-reduce as a pure machine: frames in, frames out |
//! | `all_reduce`, `transfer` | the operations: machines driven over the links |
//! | `operation` | what operations share: waiting, fencing, giving up |
//! | `state` | what all threads share, under one lock |
//! | `mailbox` | frames that arrived before anybody asked for them |
//! | `outbound`, `inbound` | threads that write, and threads that read |

mod advance;
mod all_reduce;
pub mod endpoint;
pub mod error;
pub mod feed;
mod fold;
pub mod following;
pub mod frame;
pub mod greeting;
mod inbound;
pub mod limits;
mod mailbox;
mod operation;
mod outbound;
pub mod partials;
mod plan;
mod pool;
mod reduction;
mod state;
mod wire;

pub use advance::{Advance, Shape};
pub use endpoint::{Endpoint, Group, Handle, Options, Peer};
pub use error::{CollectiveError, LossReason, PeerLost};
pub use feed::{Feed, FollowRequest, Start};
pub use following::{FollowOptions, Following};
pub use partials::{Partials, PartialsError};
pub use state::Stats;

// Payloads go from memory to the wire as they are.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "the wire format is little-endian, and so must be the machine"
);
