//! `lockstep`: train language models across machines, in one binary.
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

fn main() -> ExitCode {
    let cli = commands::Cli::parse();
    match commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
