//! Every bound of this crate on what others can make it hold, wait for or try again, in one place.
//!
//! The table in the crate's documentation lists them, with those that [`Options`](crate::Options) sets.

use std::time::Duration;

/// The most bytes that a payload of values may have.
pub const MAX_PAYLOAD_BYTES: u64 = 4 << 20;
/// The most bytes that a greeting may have, and a refusal.
pub const MAX_HELLO_BYTES: u64 = 4 << 10;
/// The most bytes of an identity and of a token: a greeting has three such texts at most.
pub const MAX_NAME_BYTES: usize = MAX_HELLO_BYTES as usize / 4;
/// The most parts of a state.
pub const MAX_PARTS: usize = 64;
/// The most members of a group. A group of `n` has `n - 1` links each way; a connection has two threads where it was
/// opened, and one at the other end.
pub const MAX_MEMBERS: usize = 1024;
/// The most connections of a link.
pub const MAX_STREAMS: usize = 16;
/// The most connections that have greeted and are not of members: of an older or newer group, with luck.
pub const MAX_OUTSIDERS: usize = 1024 * MAX_STREAMS;
/// The most connections that have not greeted yet. The oldest makes room for a new one: members greet at once, so this
/// is for those that the system has not let greet yet while others came, such as all connections of 16 links.
pub const MAX_STRANGERS: usize = 16 * MAX_STREAMS;
/// The most followers at a time, those that wait for an answer included. Others are refused.
pub const MAX_FOLLOWERS: usize = 16;

/// The most frames in the queue of a link. They are references: the values stay where they are.
pub(crate) const QUEUE_FRAMES: usize = 8;
/// What the system takes of a frame before it can be sent, where a link has several streams: the one that has room is the
/// one that is free. Without, a stream takes 4 MiB however slow it is, and others have nothing to do.
pub(crate) const UNSENT_BYTES: u32 = 128 << 10;
/// What a follower takes in before it is asked for it; then it reads on when there is room.
pub(crate) const INBOX_ADVANCES: usize = 2;
/// Buffers of gradients that a follower keeps to read the next ones into.
pub(crate) const SPARE_GRADIENTS: usize = 2;
/// Idle buffers of payloads that are kept.
pub(crate) const POOL_BYTES: usize = 256 << 20;

/// How long a connection may take to greet.
pub(crate) const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a member may take to accept a connection.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt lasts; closing the endpoint waits for no more than this.
pub(crate) const CONNECT_ATTEMPT: Duration = Duration::from_secs(1);
/// How long to wait before accepting again when the system is out of something.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a member sleeps in shared memory before it looks again, whatever should have woken it.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long closing waits for the acceptor to be reached.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// A feed with nothing to say says so this many times a time-out, so that its silence means something.
pub(crate) const IDLE_FRAMES_A_TIMEOUT: u32 = 4;
