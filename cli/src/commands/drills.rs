//! `bench chaos`, `soak`, `faults` and `streams`: what the promise is worth when processes really die, and what it
//! takes to keep it.

use anyhow::Context as _;
use lockstep_bench::cell::Cell;
use lockstep_bench::chaos::{Chaos, Outcome, Verdict};
use lockstep_bench::figures::{self, Bound, Figure};
use lockstep_bench::soak::Options;
use lockstep_bench::spread::Spread;
use lockstep_bench::{Bench, Error, overlap};

use crate::failure::Failure;
use crate::interrupt;
use crate::output::{Format, seconds, table};

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

/// Run one job under many random faults: processes killed and stopped, links cut.
///
/// Its bits must be those of an undisturbed run. The seed decides which faults come, when and to whom.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArgs {
    /// Faults in the run.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    faults: u64,
    /// By default another one each time; it is printed.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// Measure recovery: what a death, a silence or a replacement costs, beside what it must reach.
///
/// The model has 5.3 million parameters and 2 workers, as the reference has, which is what torchft 0.2 did on this
/// class of machine; it is published by us and not run here.
#[derive(Debug, clap::Args)]
pub(crate) struct FaultsArgs {
    /// SIGKILLs of each distribution.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    kills: u64,
    /// SIGSTOPs, and cuts where this is run as root.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1000))]
    silences: u64,
    /// Pairs of windows of 30 s, without and with a death every 15 s.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    pairs: u32,
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

/// What it saves to reduce buckets of the gradient while others are still computed, and to send them in bf16.
///
/// Two workers on hosts of their own, which are network namespaces (as root), with a link of a given speed. Each round runs the same
/// job with `collective.overlap` off, on, and on with `collective.precision = "bf16"`; the median of the rounds' ratios counts.
#[derive(Debug, clap::Args)]
pub(crate) struct OverlapArgs {
    /// What a host can send, in megabits a second.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    megabits: u32,
    /// Steps of each run.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..=100_000))]
    steps: u64,
    /// Rounds of three runs each.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

pub(super) fn bench() -> anyhow::Result<Bench> {
    Ok(Bench {
        program: std::env::current_exe().context("find this program")?,
        has_etcd_store: cfg!(feature = "etcd"),
        stop: interrupt::heed()?.token().clone(),
    })
}

/// Runs a drill, which waits in its own ways, beside the runtime.
pub(super) async fn beside<T: Send + 'static>(
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

pub(crate) async fn soak(args: SoakArgs, format: Format) -> anyhow::Result<()> {
    let bench = bench()?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = args.seed.unwrap_or_else(|| now.map_or(0, |now| now.as_secs()));
    eprintln!("seed {seed}");
    let faults = args.faults;
    let soaked = beside(move || lockstep_bench::soak::soak(&bench, Options { faults, seed })).await?;
    format.print(&soaked, |soaked| {
        let faults = soaked.faults.iter().map(|(name, count)| [(*name).to_owned(), count.to_string()]);
        format!(
            "{}\n\nthe bits of the undisturbed run after {} steps, {} memberships and {faults_in_all} faults in {}; \
             the longest kept it for {:.1} s (seed {})",
            table(["fault", "times"], faults),
            soaked.steps,
            soaked.epochs,
            seconds(soaked.seconds),
            soaked.longest_seconds,
            soaked.seed,
            faults_in_all = soaked.faults.iter().map(|(_, count)| count).sum::<u64>(),
        )
    })
}

pub(crate) async fn faults(args: FaultsArgs, format: Format) -> anyhow::Result<()> {
    let bench = bench()?;
    let options = figures::Options {
        kills: args.kills,
        silences: args.silences,
        pairs: args.pairs,
        streams: 1000,
    };
    let measured =
        beside(move || figures::measure(&bench, options, |what| eprintln!("measures {what}"))).await?;
    format.print(&measured, |measured| {
        let header = [
            "figure",
            "value",
            "must be",
            "",
            "n",
            "reference (torchft 0.2, not run here)",
        ];
        table(header, measured.iter().map(figure_line))
    })
}

fn figure_line(figure: &Figure) -> [String; 6] {
    let unit = figure.unit;
    let bound = match figure.bound {
        Some(Bound::AtMost(most)) => format!("≤ {most} {unit}"),
        Some(Bound::AtLeast(least)) => format!("≥ {least} {unit}"),
        None => "-".to_owned(),
    };
    let verdict = match figure.holds() {
        Some(true) => "holds",
        Some(false) => "MISSED",
        None if figure.value.is_some() => "",
        None => "not measured",
    };
    [
        figure.what.to_owned(),
        figure
            .value
            .map_or("-".to_owned(), |value| format!("{value:.2} {unit}")),
        bound,
        verdict.to_owned(),
        figure.n.to_string(),
        figure.reference.unwrap_or_default().to_owned(),
    ]
}

pub(crate) async fn overlap(args: OverlapArgs, format: Format) -> anyhow::Result<()> {
    let bench = bench()?;
    let options = overlap::Options {
        megabits: args.megabits,
        steps: args.steps,
        rounds: args.rounds,
    };
    let measured = beside(move || overlap::measure(&bench, options)).await?;
    format.print(&measured, |measured| {
        let rows = measured.rounds.iter().map(|round| {
            [
                format!("{:.1}", round.after_ms),
                format!("{:.1}", round.overlapped_ms),
                format!("{:.3}", round.ratio()),
                format!("{:.1}", round.bf16_ms),
                format!("{:.3}", round.ratio_of_bf16()),
            ]
        });
        format!(
            "{}\n\na step over {} Mbit/s takes {:.3} of its time when buckets are reduced while others are computed, with the same \
             weights, and {:.3} of that in bf16, with others (medians of {} rounds)",
            table(["after the backward ms", "overlapped ms", "ratio", "bf16 ms", "ratio"], rows),
            measured.megabits,
            measured.ratio,
            measured.ratio_of_bf16,
            measured.rounds.len(),
        )
    })
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
