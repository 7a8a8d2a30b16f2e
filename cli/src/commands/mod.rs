//! The verbs. Each module holds its arguments, its help and what it does.

mod allreduce;
mod bench;
mod checkpoint;
mod cluster;
mod data;
mod demo;
mod drills;
mod generate;
mod jobs;
mod lineage;
mod nodes;
mod pipeline;
mod run;
mod spec;
mod speed;

use clap::{Parser, Subcommand};
use lockstep_worker::network::MakeNetwork;

use crate::output::Format;

/// Train language models across machines; any process may die at any instant, and the final weights are bit for
/// bit those of an undisturbed run.
#[derive(Debug, Parser)]
#[command(
    name = "lockstep",
    version,
    propagate_version = true,
    after_help = "Start with `lockstep demo`: it trains a small model on this machine, kills a worker on the way,\n\
                  and shows what is left. Then write a spec (`lockstep validate`, `lockstep presets`) and `lockstep run` it.",
    after_long_help = crate::failure::TABLE
)]
pub(crate) struct Cli {
    /// How results are printed; progress and messages go to stderr.
    #[arg(short, long, global = true, value_enum, default_value_t)]
    output: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Args),
    Run(run::Args),
    Coordinator(cluster::CoordinatorArgs),
    Worker(cluster::WorkerArgs),
    #[command(hide = true)]
    Rank(cluster::RankArgs),
    Submit(jobs::SubmitArgs),
    List(jobs::ListArgs),
    /// Show where a job stands.
    Status(jobs::JobArgs),
    /// Print what a job's workers wrote.
    Logs(jobs::TailArgs),
    /// Print what happened to a job, with reasons: joins, losses, epochs, checkpoints.
    Events(jobs::TailArgs),
    /// End a job; its checkpoints stay.
    Cancel(jobs::JobArgs),
    Nodes(nodes::NodesArgs),
    Drain(nodes::DrainArgs),
    Undrain(nodes::UndrainArgs),
    Validate(spec::ValidateArgs),
    /// List the model presets.
    Presets,
    /// Build datasets from raw text, and look into them.
    #[command(subcommand)]
    Data(data::Command),
    /// List, verify, prune and export checkpoints.
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    Lineage(lineage::Args),
    Generate(generate::Args),
    /// Measure speed and recovery on this machine.
    #[command(subcommand)]
    Bench(bench::Command),
}

/// Runs the verb. Ranks train `network`.
pub(crate) fn run(cli: Cli, network: MakeNetwork) -> anyhow::Result<()> {
    let format = cli.output;
    match cli.command {
        Command::Demo(args) => block_on(demo::run(args, format)),
        Command::Run(args) => block_on(run::run(args, format)),
        Command::Coordinator(args) => block_on(cluster::coordinator(args)),
        Command::Worker(args) => block_on(cluster::worker(args)),
        Command::Rank(args) => block_on(cluster::rank(args, network)),
        Command::Submit(args) => block_on(jobs::submit(args, format)),
        Command::List(args) => block_on(jobs::list(args, format)),
        Command::Status(args) => block_on(jobs::status(args, format)),
        Command::Logs(args) => block_on(jobs::tail(args, true)),
        Command::Events(args) => block_on(jobs::tail(args, false)),
        Command::Cancel(args) => block_on(jobs::cancel(args, format)),
        Command::Nodes(args) => block_on(nodes::list(args, format)),
        Command::Drain(args) => block_on(nodes::drain(args, format)),
        Command::Undrain(args) => block_on(nodes::undrain(args, format)),
        Command::Validate(args) => spec::validate(&args, format),
        Command::Presets => spec::presets(format),
        Command::Data(command) => data::run(command, format),
        Command::Checkpoint(command) => checkpoint::run(command, format),
        Command::Lineage(args) => lineage::run(&args, format),
        Command::Generate(args) => generate::run(&args, format),
        Command::Bench(command) => block_on(bench::run(command, format)),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?
        .block_on(work)
}

/// Writes the log to stderr, as `RUST_LOG` says or else from `level` up.
fn log_to_stderr(level: &str) {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A line that standard error does not take, as on a full disk, is lost: to complain of it there would panic.
    tracing_subscriber::fmt()
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colours)
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
