//! `bench`: speed on this machine, as ratios against a peer measured in the same run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context as _;
use lockstep_data::Dataset;
use lockstep_engine::ids::{Lane, Step};
use lockstep_engine::order::SampleOrder;
use lockstep_engine::spec::Spec;
use lockstep_trainer::{Batch, Decoder, DeviceName, Schedule, Trainer};

use super::run::{Job, JobOptions, finished, locally};
use super::{allreduce, drills, pipeline, speed};
use crate::failure::Failure;
use crate::output::{Format, table};
use crate::progress::Progress;

/// Measure speed and recovery on this machine.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    Step(speed::StepArgs),
    Scaling(speed::ScalingArgs),
    Memory(speed::MemoryArgs),
    Allreduce(allreduce::AllreduceArgs),
    Overhead(OverheadArgs),
    Overlap(drills::OverlapArgs),
    Chaos(drills::ChaosArgs),
    Soak(drills::SoakArgs),
    Faults(drills::FaultsArgs),
    Streams(drills::StreamsArgs),
    Data(pipeline::DataArgs),

    #[command(hide = true)]
    AllreduceRank(allreduce::RankArgs),
    #[command(hide = true)]
    DataStage(pipeline::StageArgs),
    #[command(hide = true)]
    TrainLoop(speed::LoopArgs),
    #[command(hide = true)]
    Products {
        spec: PathBuf,
    },
    #[command(hide = true)]
    PlainLoop {
        /// A spec whose `data.dataset` is built.
        spec: PathBuf,
    },
}

/// What the step protocol costs: one worker against a plain loop of the same trainer.
///
/// The two run in turn, A B A B, on the same data, with the same threads; the median of the rounds' ratios counts.
#[derive(Debug, clap::Args)]
pub(crate) struct OverheadArgs {
    /// The model.
    #[arg(long, default_value = "tiny", value_parser = super::spec::preset())]
    preset: String,
    /// A built dataset whose vocabulary is the preset's; by default one is built from cargo's registry.
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// Steps of each measurement.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(3..=100_000))]
    steps: u64,
    /// Rounds of one measurement each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct PlainLoop {
    step_ms_median: f64,
    weights_blake3: String,
}

#[derive(serde::Serialize)]
struct Round {
    plain_ms: f64,
    one_worker_ms: f64,
    ratio: f64,
}

#[derive(serde::Serialize)]
struct Overhead {
    preset: String,
    steps: u64,
    rounds: Vec<Round>,
    median_ratio: f64,
    same_weights: bool,
}

pub(crate) async fn run(command: Command, format: Format) -> anyhow::Result<()> {
    match command {
        Command::Step(args) => speed::step(args, format).await,
        Command::Scaling(args) => speed::scaling(args, format).await,
        Command::Memory(args) => speed::memory(args, format).await,
        Command::TrainLoop(args) => speed::train_loop(&args),
        Command::Products { spec } => speed::products(&spec),
        Command::Overhead(args) => overhead(args, format).await,
        Command::Overlap(args) => drills::overlap(args, format).await,
        Command::Chaos(args) => drills::chaos(args, format).await,
        Command::Soak(args) => drills::soak(args, format).await,
        Command::Faults(args) => drills::faults(args, format).await,
        Command::Streams(args) => drills::streams(args, format).await,
        Command::Data(args) => pipeline::run(args, format).await,
        Command::DataStage(args) => pipeline::stage(&args),
        Command::Allreduce(args) => allreduce::run(args, format).await,
        Command::AllreduceRank(args) => allreduce::rank(&args),
        Command::PlainLoop { spec } => plain_loop(&spec),
    }
}

async fn overhead(args: OverheadArgs, format: Format) -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("lockstep-bench-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(Failure::storage(format!("create {}", folder.display())))?;
    let result = measure(&args, &folder).await;
    std::fs::remove_dir_all(&folder).ok();
    format.print(&result?, |overhead| {
        let rows = overhead.rounds.iter().map(|round| {
            [
                format!("{:.2}", round.plain_ms),
                format!("{:.2}", round.one_worker_ms),
                format!("{:.4}", round.ratio),
            ]
        });
        format!(
            "{}\n\none worker takes {:.4} of the plain loop's time (median of {} rounds); the weights are {}",
            table(["plain loop ms", "one worker ms", "ratio"], rows),
            overhead.median_ratio,
            overhead.rounds.len(),
            if overhead.same_weights {
                "the same"
            } else {
                "DIFFERENT"
            }
        )
    })
}

async fn measure(args: &OverheadArgs, folder: &Path) -> anyhow::Result<Overhead> {
    let source = |dataset: &Path| {
        format!(
            "[job]\nname = \"bench\"\n[data]\ndataset = {:?}\n[model]\npreset = {:?}\n[train]\nsteps = {}\n\
             [batch]\nmicrobatches = 8\nsequences = 1\n[checkpoint]\nevery = 0\n[elastic]\nmax_workers = 1\n",
            dataset.display().to_string(),
            args.preset,
            args.steps
        )
    };
    let dataset = match &args.dataset {
        Some(dataset) => super::jobs::absolute(dataset)?,
        None => {
            let path = folder.join("dataset");
            let vocabulary = Spec::parse(&source(&path))?.model.vocab_size;
            speed::build_dataset(&path, vocabulary)?;
            path
        }
    };
    let spec_file = folder.join("bench.toml");
    std::fs::write(&spec_file, source(&dataset))
        .map_err(Failure::storage(format!("write {}", spec_file.display())))?;
    let mut rounds = Vec::new();
    let mut same_weights = true;
    for round in 0..args.rounds {
        let plain = in_a_process(&spec_file).await?;
        let out = folder.join(format!("round-{round}"));
        let options = JobOptions {
            spec: spec_file.clone(),
            out: Some(out.clone()),
            resume: false,
            kill: Vec::new(),
        };
        let prepared = Job::read(&options)?.prepare(Format::Json)?;
        let summary = finished(&locally(&prepared, 1, None, Progress::quiet()).await?)?;
        std::fs::remove_dir_all(&out).ok();
        same_weights &= plain.weights_blake3 == summary.weights_blake3;
        let (plain_ms, one_worker_ms) = (plain.step_ms_median, summary.step_ms_median);
        rounds.push(Round {
            plain_ms,
            one_worker_ms,
            ratio: one_worker_ms / plain_ms,
        });
    }
    let mut ratios: Vec<f64> = rounds.iter().map(|round| round.ratio).collect();
    ratios.sort_by(f64::total_cmp);
    let median_ratio = ratios[ratios.len() / 2];
    Ok(Overhead {
        preset: args.preset.clone(),
        steps: args.steps,
        rounds,
        median_ratio,
        same_weights,
    })
}

/// The plain loop in a process of its own, as a rank has one, with a rank's threads.
async fn in_a_process(spec: &Path) -> anyhow::Result<PlainLoop> {
    let threads = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .to_string();
    let output = tokio::process::Command::new(std::env::current_exe().context("find this program")?)
        .args(["bench", "plain-loop"])
        .arg(spec)
        .env("RAYON_NUM_THREADS", &threads)
        .env("CANDLE_NUM_THREADS", &threads)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("start the plain loop")?;
    if !output.status.success() {
        let log = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::Job(format!("the plain loop failed: {}", log.trim())).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Training with nothing around it: no processes, no protocol, no digests; the same microbatches in the same order.
fn plain_loop(spec: &Path) -> anyhow::Result<()> {
    let spec = super::spec::read(spec)?;
    let dataset = Dataset::open(&spec.data.dataset.clone().unwrap_or_default())?;
    let length = spec.batch.sequence_length;
    let samples = dataset.train().require(spec.samples_per_step(), length)?;
    let order = SampleOrder::new(samples, spec.train.seed);
    let device = DeviceName::Cpu.open()?;
    let model = Decoder::new(&spec.model, spec.train.seed, spec.memory.recompute, &device)?;
    let mut trainer = Trainer::new(model, &spec.optim, Schedule::of(&spec))?;
    let geometry = spec.geometry();
    let mut times = Vec::new();
    let mut gradient = trainer.layout().zeros();
    let mut tokens = vec![0; (length + 1) * spec.batch.sequences as usize];
    for step in 1..=spec.train.steps {
        let started = Instant::now();
        gradient.fill(0.0);
        for positions in (0..geometry.lanes).flat_map(|lane| geometry.positions(Step(step), Lane(lane))) {
            for (row, position) in tokens.chunks_exact_mut(length + 1).zip(positions) {
                dataset.train().read(order.sample(position), row)?;
            }
            let batch = Batch::new(&tokens, spec.batch.sequences as usize, &device)?;
            trainer.accumulate(&batch, &mut gradient)?;
        }
        trainer.apply(&gradient, 1.0 / geometry.microbatches as f32)?;
        times.push(started.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    let result = PlainLoop {
        step_ms_median: times[times.len() / 2],
        weights_blake3: trainer.weights_digest(),
    };
    println!("{}", serde_json::to_string(&result)?);
    Ok(())
}
