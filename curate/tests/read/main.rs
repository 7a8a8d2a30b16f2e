//! Sources are read as documents, whatever is wrong with them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bad_input;
mod sources;
mod support;
mod units;
