//! `lockstep`: train language models across machines, in one binary. As a library it is the same program with a model of your
//! own.
//!
//! | module | what it does |
//! |---|---|
//! | `commands` | one module a verb: its arguments, its help, what it does |
//! | `local` | a whole cluster on this machine: the same processes over loopback |
//! | `client` | speaks to a coordinator, and follows a job |
//! | `progress` | bars with rates and time left on a terminal, plain lines elsewhere |
//! | `interrupt` | Ctrl-C and SIGTERM, for the verbs that have something to end in order |
//! | `exports` | which models were exported from a run |
//! | `output` | results as tables for people or JSON for programs |
//! | `chart` | the loss curve, as SVG and in the terminal |
//! | `failure` | errors to exit codes |

mod chart;
mod client;
mod commands;
mod exports;
mod failure;
mod interrupt;
mod local;
mod output;
mod progress;

use std::process::ExitCode;

use clap::Parser as _;
use lockstep_worker::network::{self, MakeNetwork};

pub use lockstep_engine as engine;
pub use lockstep_trainer as trainer;

/// The program with the built-in model.
#[must_use]
pub fn main() -> ExitCode {
    main_with(network::decoder)
}

/// The program with a model of your own. Each of its processes calls this: coordinators, daemons, and ranks, which make the
/// model.
#[must_use]
pub fn main_with(network: MakeNetwork) -> ExitCode {
    let cli = commands::Cli::parse();
    raise_file_limit();
    match commands::run(cli, network) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}

/// A shell often allows 1,024 open files, and the system many more: a coordinator has a connection to each worker, a rank to
/// each member.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    let limit = Rlimit {
        current: now.maximum,
        ..now
    };
    // With what there is most jobs run too, and one that does not says so.
    let _ = setrlimit(Resource::Nofile, limit);
}
