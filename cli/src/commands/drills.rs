//! `bench chaos`: what the promise is worth when processes really die, on this machine.

use anyhow::Context as _;
use lockstep_bench::cell::Cell;
use lockstep_bench::chaos::{Chaos, Outcome, Verdict};
use lockstep_bench::spread::Spread;
use lockstep_bench::{Bench, Error};

use crate::failure::Failure;
use crate::interrupt;
use crate::output::{Format, table};

/// Run the chaos matrix: each fault, at each moment of a step, to each kind of process, in a cluster of its own.
///
/// After each the bits must be those of an undisturbed run, every sample used once, no process left behind. Cut and
/// slow links and full disks need root.
#[derive(Debug, clap::Args)]
pub(crate) struct ChaosArgs {
    /// Twelve cells that have every fault, every moment and every target among them.
    #[arg(long, conflicts_with = "cell")]
    subset: bool,
    /// One cell, FAULT:MOMENT:TARGET, such as kill:during-reduce:worker; may be repeated.
    #[arg(long, value_name = "CELL")]
    cell: Vec<Cell>,
}

/// How long a verdict takes with many workers, which are simulated: real streams to a real coordinator.
///
/// From the last of their reports of a step to the commit's arrival at each of them.
#[derive(Debug, clap::Args)]
pub(crate) struct StreamsArgs {
    /// Simulated workers, each with a connection of its own.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(2..=4096))]
    workers: u32,
    /// Steps.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    steps: u64,
}

fn bench() -> anyhow::Result<Bench> {
    Ok(Bench {
        program: std::env::current_exe().context("find this program")?,
        stop: interrupt::heed()?.token().clone(),
    })
}

/// Runs a drill, which waits in its own ways, beside the runtime.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> anyhow::Result<T> {
    let result = tokio::task::spawn_blocking(work).await.context("run the drill")?;
    result.map_err(|error| match error {
        Error::Usage(_) | Error::NeedsRoot { .. } => anyhow::Error::from(Failure::Usage(error.to_string())),
        Error::Interrupted => Failure::Interrupted(error.to_string()).into(),
        other => other.into(),
    })
}

pub(crate) async fn chaos(args: ChaosArgs, format: Format) -> anyhow::Result<()> {
    let cells = match args {
        ChaosArgs { subset: true, .. } => Cell::subset(),
        ChaosArgs { cell, .. } if !cell.is_empty() => cell,
        _ => Cell::all(),
    };
    let bench = bench()?;
    let verdicts = beside(move || {
        let chaos = Chaos::prepare(&bench)?;
        let mut verdicts = Vec::new();
        for cell in cells {
            let verdict = chaos.run(cell)?;
            eprintln!("{}", verdict_line(&verdict).join("  "));
            verdicts.push(verdict);
        }
        Ok(verdicts)
    })
    .await?;
    format.print(&verdicts, |verdicts| {
        table(
            ["cell", "outcome", "seconds", "why"],
            verdicts.iter().map(verdict_line),
        )
    })?;
    let failed = |verdict: &&Verdict| matches!(verdict.outcome, Outcome::Failed { .. });
    match verdicts.iter().filter(failed).count() {
        0 => Ok(()),
        count => Err(Failure::Job(format!("{count} of {} cells failed", verdicts.len())).into()),
    }
}

pub(crate) async fn streams(args: StreamsArgs, format: Format) -> anyhow::Result<()> {
    let bench = bench()?;
    let measured = beside(move || lockstep_bench::streams::measure(&bench, args.workers, args.steps)).await?;
    format.print(&measured, |measured| {
        let Spread { p50, p99, max, .. } = measured.verdict_ms;
        format!(
            "{} workers, {} steps: a verdict takes {p50:.1} ms (median), {p99:.1} ms (99th percentile), {max:.1} ms (most);\n\
             the coordinator's processor time is {:.3} ms a step and worker",
            measured.workers, measured.steps, measured.coordinator_cpu_ms
        )
    })
}

fn verdict_line(verdict: &Verdict) -> [String; 4] {
    let (outcome, why) = match &verdict.outcome {
        Outcome::Passed => ("passed", ""),
        Outcome::Failed { reason } => ("FAILED", reason.as_str()),
        Outcome::Senseless { reason } => ("makes no sense", reason.as_str()),
        Outcome::Skipped { reason } => ("skipped", reason.as_str()),
    };
    let seconds = format!("{:.1}", verdict.seconds);
    [verdict.cell.clone(), outcome.to_owned(), seconds, why.to_owned()]
}
