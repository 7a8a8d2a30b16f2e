//! Memory that one process writes and others of its host read, with a safe face.
//!
//! A [`Segment`] is anonymous memory of the system: it has no name, and is gone when the last process that has it
//! mapped is, however that one ends. Its maker gives out a [`Ticket`], and whoever is of the same [`host`] opens a
//! [`View`] of it, which can only read: a process that has lost its place can do no harm to anybody else's memory.
//!
//! Both have *words*, by which one tells the other how far it is, and bytes, which are copied in and out. Nobody
//! ever gets a reference to bytes that another process may write.
//!
//! | module | what it holds |
//! |---|---|
//! | `host` | which processes can open each other's segments |
//! | `mapping`, `stream` | mapped memory, and copying to it: the only places with `unsafe` |
//! | `segment` | the writer's end |
//! | `view` | a reader's end |
//! | `wait` | sleeping until a word changes, or an [`Alarm`] rings |

mod host;
mod mapping;
mod segment;
mod stream;
mod view;
mod wait;

pub use host::host;
pub use segment::{Segment, Ticket};
pub use stream::stream;
pub use view::View;
pub use wait::{Alarm, sleep};

/// Words of a segment. Each has a cache line of its own.
pub const WORDS: usize = 16;
