//! Black-box tests: endpoints, and members played by hand, on loopback.
#![expect(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

mod exactness;
mod feed;
mod fencing;
mod hosts;
mod loss;
mod renewal;
mod shared;
mod steady;
mod strangers;
mod streams;
mod support;
