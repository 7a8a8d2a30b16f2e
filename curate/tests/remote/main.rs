//! Sources that are not on this machine: object stores, and lists of addresses.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "helpers of tests fail as tests do"
)]

mod addresses;
mod objects;
mod s3;
mod server;
mod support;
