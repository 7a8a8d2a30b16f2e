//! What drives asynchronous libraries while threads of this crate wait for them.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// A runtime of one thread, which drives connections; whoever waits does so on a thread of their own.
pub(crate) fn start() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("network")
        .enable_all()
        .build()
}
