//! What the whole-cluster tests share: folders, jobs, processes, and ways to wait for a state.
//!
//! | module | what it does |
//! |---|---|
//! | [`place`] | a folder of its own for each test, and the command line run inside it |
//! | [`job`] | a corpus, a dataset and a spec small enough that a step takes milliseconds |
//! | [`process`] | one process: its output as it comes, its end, each within a bound of time |
//! | [`cluster`] | a coordinator and node daemons, and what the coordinator says of a job |
//! | [`disk`] | a small disk that can be filled |
//! | `etcd` | a real etcd, for several coordinators |
//! | `raw` | raw text to build datasets from, and the tables that a build writes |
//! | [`system`] | what the kernel knows: processes by a tag in their environment, files that change |
//!
//! Nothing here sleeps: whoever waits is woken by the kernel or by an answer, and gives up loudly after [`PATIENCE`].

#![expect(dead_code, reason = "each test binary uses a part of it")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

pub(crate) mod cluster;
pub(crate) mod disk;
pub(crate) mod etcd;
pub(crate) mod job;
pub(crate) mod place;
pub(crate) mod process;
pub(crate) mod raw;
pub(crate) mod system;

use std::time::Duration;

/// How long a state may take to come about: far beyond what a loaded machine needs, and not for ever.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
