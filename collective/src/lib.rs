//! Exact reductions between ranks, over framed TCP, through shared memory, or both.
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
//! A newcomer is brought up to the job by a *feed*, which concerns no group: it [follows](Endpoint::follow) a
//! donor over a connection of its own, takes the state in the background and applies the reduced gradients of
//! the steps after it, [one by one](Following::next). The donor answers a [`FollowRequest`] between two steps,
//! [pushes](Feed::push) what it applies, and never waits for a follower: one that is too slow is let go, and
//! may ask again.
//!
//! | module | what it holds |
//! |---|---|
//! | [`partials`] | a rank's folded gradients of the step in flight, and their buffers |
//! | [`frame`] | the header on the wire, and its checks |
//! | [`greeting`] | the first frame of a connection: who opens it, and what for |
//! | [`endpoint`] | bind, enter, raise, close: the public face |
//! | [`feed`], [`following`] | how a newcomer catches up: the donor's end, and its own |
//! | [`error`] | what can go wrong, and what to do about it |
//! | [`limits`] | the bounds below |
//! | `fold` | the one addition and the fixed tree |
//! | `pool` | buffers that come back |
//! | `precision` | how precise gradients are between lanes, and as words of the wire |
//! | `hosts` | which members are of which host, and what these hold together |
//! | `plan` | how a bucket is cut in chunks and pieces, and who has to do with each |
//! | `reduction` | one reduction as a pure machine: frames in, frames out |
//! | `all_reduce` | the operation: which way it goes, and the machine driven over the links |
//! | `call` | what is asked of an all-reduce, with arguments that fit together |
//! | `agreement` | how members agree on the way: shared memory in each host, or the links alone |
//! | `local` | an all-reduce through shared memory, and the halves of one |
//! | `across` | an all-reduce of several hosts: one half in memory, the links, the other half |
//! | `neighbours`, `slots` | everybody's memory and how far everybody is; what lies where in it |
//! | `walk` | the fixed tree over values that all are there |
//! | `operation` | what operations share: waiting, fencing, giving up |
//! | `advance` | what a feed tells, as frames |
//! | `state` | what all threads share, under one lock |
//! | `mailbox` | frames that arrived before anybody asked for them |
//! | `outbound`, `inbound` | links of one or more connections: threads that write, and threads that read |
//! | `wire` | frames on sockets |
//!
//! # Bounds
//!
//! Whatever the other ends do, an endpoint holds, waits and tries again no more than this. The numbers are in
//! [`limits`] unless an [option](Options) sets them.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | a frame of values | 4 MiB | the connection is closed |
//! | a greeting or a refusal; an identity or a token | 4 KiB; 1 KiB | the connection is closed; an error |
//! | parts of a state | 64 | an error |
//! | what a follower reads into | the [`Shape`] that it gives | the feed ends |
//! | members of a group | 1,024 | an error |
//! | connections of a link to a member | [`streams`](Options::streams), at most 16 | an error; refused by the member |
//! | connections of others that have greeted and are no members | 16,384: 16 for each of 1,024 | refused |
//! | connections that have not greeted | 256, and 5 s each | the oldest makes room |
//! | followers, waiting or answered | 16 | refused |
//! | frames that wait, a sender | for the operation that runs [`mailbox_bytes`](Options::mailbox_bytes), for others as many, headers included, each and one frame; one more for each of its connections | the sender is held back |
//! | frames queued for a member | 8; they share the values | the operation waits |
//! | gradients that wait for a follower | [`feed_bytes`](Options::feed_bytes), or one; they share the values | it is let go |
//! | what a follower has read and not asked for | 2 advances, and one under way | the donor's queue grows |
//! | shared memory of a member, in an epoch | 2.5 MiB, and 32 KiB more for each member of its host beyond 64 | TCP, if the system has none |
//! | what a host holds together, of several | each member has its chunk of it, as buffers of payloads: no more than members hold each, on average | |
//! | idle buffers | 256 MiB of payloads, 2 gradients a feed | given back to the system |
//! | connecting, each connection | attempts of 1 s, for 10 s | the member or donor is lost |
//! | connecting anew to a member without an epoch | once a link | the member is lost |
//! | an operation, or a write to a follower, in silence | [`timeout`](Options::timeout) | an error; the follower is let go |
//! | a feed in silence | [`feed_timeout`](Options::feed_timeout); it says that it is alive four times as often | the follower asks somebody else |
//! | accepting again when the system is out of something | every 100 ms | |
//! | closing | 1 s, for each thing that may hang | |

mod across;
mod advance;
mod agreement;
mod all_reduce;
mod call;
pub mod endpoint;
pub mod error;
pub mod feed;
mod fold;
pub mod following;
pub mod frame;
pub mod greeting;
mod hosts;
mod inbound;
pub mod limits;
mod local;
mod mailbox;
mod neighbours;
mod operation;
mod outbound;
pub mod partials;
mod plan;
mod pool;
mod precision;
mod reduction;
mod slots;
mod state;
mod walk;
mod wire;

pub use advance::{Advance, Shape};
pub use endpoint::{Computing, Endpoint, Group, Handle, Options, Peer, Transport};
pub use error::{CollectiveError, LossReason, PeerLost};
pub use feed::{Feed, FollowRequest, Start};
pub use following::{FollowOptions, Following};
pub use partials::{Held, Partials, PartialsError};
pub use precision::Precision;
pub use state::Stats;

// Payloads go from memory to the wire as they are.
const _: () = assert!(
    cfg!(target_endian = "little"),
    "the wire format is little-endian, and so must be the machine"
);
