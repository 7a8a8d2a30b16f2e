//! `bench step`, `scaling` and `memory`: what training takes, beside what a peer takes in the same run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::Context as _;
use lockstep_engine::random::Stream;
use lockstep_engine::spec::Spec;
use lockstep_trainer::{Batch, DType, Decoder, DeviceName, Llama, Network, Schedule, Trainer, memory};

use super::run::{Job, JobOptions, finished, locally};
use crate::failure::Failure;
use crate::output::{Format, table};
use crate::progress::Progress;

/// The peer's step.
const TORCH: &str = include_str!("../../../benches/peers/step.py");
/// Steps that do not count.
const WARM_UP: u64 = 2;

/// Measure the speed of a training step, in turn with a peer's: A B A B.
///
/// A step is one microbatch a rank, clipping and AdamW, in f32. With one rank it is a process that trains and does nothing
/// else; with more it is a whole job, with coordinator, daemon and ranks, against DDP over gloo. Each has one
/// thread. The median of the rounds' ratios counts.
#[derive(Debug, clap::Args)]
pub(crate) struct StepArgs {
    #[command(flatten)]
    what: What,
    /// Ranks.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    ranks: u32,
    /// What to compare with; may be repeated.
    #[arg(long, value_name = "PEER")]
    against: Vec<Peer>,
    /// The Python that has PyTorch.
    #[arg(long, value_name = "PATH", env = "LOCKSTEP_PYTHON", default_value = "python3")]
    python: PathBuf,
}

/// What is trained, and for how long.
#[derive(Clone, Debug, clap::Args)]
struct What {
    /// The model.
    #[arg(long, default_value = "tiny", conflicts_with = "spec")]
    preset: String,
    /// A spec whose [model], [memory], batch.sequences and batch.sequence_length are used instead.
    #[arg(long, value_name = "FILE")]
    spec: Option<PathBuf>,
    /// Sequences of a microbatch, when no spec is given.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    sequences: u32,
    /// Steps of each measurement.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    steps: u64,
    /// Rounds of one measurement each.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// A built dataset for jobs, whose vocabulary is the model's; by default one is built from cargo's registry.
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
}

/// Another way to do the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Peer {
    /// PyTorch, eager; with several ranks DDP over gloo.
    Torch,
    /// PyTorch through torch.compile.
    TorchCompile,
    /// This program's model over candle's autograd; one rank.
    Autograd,
    /// This program's decoder in candle's operations; one rank.
    Generic,
}

/// Weak scaling: how much of its speed a rank keeps when there are more, each with as much to do as before.
///
/// Whole jobs, with one thread a rank, in turn.
#[derive(Debug, clap::Args)]
pub(crate) struct ScalingArgs {
    #[command(flatten)]
    what: What,
    /// Ranks, against one.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(2..=64))]
    ranks: u32,
}

/// Measure the peak memory of a process that trains, beside what was planned, and PyTorch's.
#[derive(Debug, clap::Args)]
pub(crate) struct MemoryArgs {
    #[command(flatten)]
    what: What,
    /// Compare with PyTorch's process.
    #[arg(long, value_name = "PEER", value_parser = ["torch"])]
    against: Option<String>,
    /// The Python that has PyTorch.
    #[arg(long, value_name = "PATH", env = "LOCKSTEP_PYTHON", default_value = "python3")]
    python: PathBuf,
}

/// What one process found.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
struct Found {
    step_ms: f64,
    tokens_per_second: f64,
    peak_bytes: u64,
}

impl What {
    fn source(&self, ranks: u32, dataset: &Path) -> anyhow::Result<String> {
        if !ranks.is_power_of_two() {
            let message = format!("--ranks {ranks}: must be a power of two, so that all have as much to do");
            return Err(Failure::Usage(message).into());
        }
        let (model, length, sequences) = match &self.spec {
            None => (format!("preset = {:?}", self.preset), None, self.sequences),
            Some(path) => {
                let spec = super::spec::read(path)?;
                let fields = toml_fields(&spec.model)? + "[memory]\n" + &toml_fields(&spec.memory)?;
                (fields, Some(spec.batch.sequence_length), spec.batch.sequences)
            }
        };
        let length = length.map_or(String::new(), |length| format!("sequence_length = {length}\n"));
        Ok(format!(
            "[job]\nname = \"bench\"\n[data]\ndataset = {:?}\n[model]\n{model}\n[train]\nsteps = {}\n\
             [batch]\nmicrobatches = {ranks}\nlanes = {ranks}\nsequences = {sequences}\n{length}\
             [checkpoint]\nevery = 0\n[elastic]\nmin_workers = {ranks}\nmax_workers = {ranks}\n",
            dataset.display().to_string(),
            self.steps + WARM_UP,
        ))
    }

    fn parse(&self, ranks: u32) -> anyhow::Result<Spec> {
        Ok(Spec::parse(&self.source(ranks, Path::new("no-data"))?)?)
    }
}

/// Fields of a section, as lines.
fn toml_fields(model: &impl serde::Serialize) -> anyhow::Result<String> {
    let fields = serde_json::to_value(model)?;
    let fields = fields.as_object().into_iter().flatten();
    Ok(fields
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect())
}

#[derive(serde::Serialize)]
struct Compared {
    peer: Peer,
    tokens_per_second: Vec<f64>,
    /// Ours over theirs, round by round.
    ratios: Vec<f64>,
    median_ratio: f64,
}

#[derive(serde::Serialize)]
struct Speed {
    model: String,
    parameters: usize,
    ranks: u32,
    tokens_per_second: Vec<f64>,
    median_tokens_per_second: f64,
    /// 6 × parameters outside of the embedding + 6 × layers × length × width, for each token.
    model_gflops: f64,
    /// The best that a product of the step's shapes reaches on one thread, and the share of it, with one rank.
    peak_gflops: Option<f64>,
    share_of_peak: Option<f64>,
    against: Vec<Compared>,
}

/// Operations of the model for a token, forward and backward.
fn flops(spec: &Spec) -> f64 {
    let model = &spec.model;
    let outside =
        model.parameters() - model.vocab_size * model.hidden_size * usize::from(!model.tie_word_embeddings);
    let attention = model.num_hidden_layers * spec.batch.sequence_length * model.hidden_size;
    6.0 * (outside + attention) as f64
}

pub(crate) async fn step(args: StepArgs, format: Format) -> anyhow::Result<()> {
    let spec = args.what.parse(args.ranks)?;
    if args.ranks > 1
        && args
            .against
            .iter()
            .any(|peer| matches!(peer, Peer::Autograd | Peer::Generic))
    {
        return Err(Failure::Usage(
            "--against autograd and generic: compare processes; leave --ranks out".to_owned(),
        )
        .into());
    }
    let folder = tempfile::Builder::new().prefix("lockstep-bench-").tempdir()?;
    let bench = Bench::new(&args.what, folder.path(), Some(&args.python)).await?;
    let (mut ours, mut peaks) = (Vec::new(), Vec::new());
    let mut theirs: Vec<Vec<f64>> = vec![Vec::new(); args.against.len()];
    for round in 0..args.what.rounds {
        eprintln!("round {} of {}", round + 1, args.what.rounds);
        let found = if args.ranks == 1 {
            bench.process("decoder", true).await?
        } else {
            bench.job(args.ranks).await?
        };
        ours.push(found.0.tokens_per_second);
        peaks.extend(found.1);
        for (peer, speeds) in args.against.iter().zip(&mut theirs) {
            let found = match peer {
                Peer::Torch => bench.torch(args.ranks, false).await?,
                Peer::TorchCompile => bench.torch(args.ranks, true).await?,
                Peer::Autograd => bench.process("autograd", false).await?.0,
                Peer::Generic => bench.process("generic", false).await?.0,
            };
            speeds.push(found.tokens_per_second);
        }
    }
    let against = args.against.iter().zip(theirs).map(|(&peer, tokens_per_second)| {
        let ratios: Vec<f64> = ours
            .iter()
            .zip(&tokens_per_second)
            .map(|(ours, theirs)| ours / theirs)
            .collect();
        Compared {
            peer,
            median_ratio: median(&ratios),
            tokens_per_second,
            ratios,
        }
    });
    let speed = median(&ours);
    let model_gflops = speed * flops(&spec) / 1e9;
    let peak_gflops = peaks.iter().copied().reduce(f64::max);
    let result = Speed {
        model: args
            .what
            .spec
            .as_ref()
            .map_or(args.what.preset.clone(), |path| path.display().to_string()),
        parameters: spec.model.parameters(),
        ranks: args.ranks,
        median_tokens_per_second: speed,
        model_gflops,
        peak_gflops,
        share_of_peak: peak_gflops.map(|peak| model_gflops / peak),
        against: against.collect(),
        tokens_per_second: ours,
    };
    format.print(&result, describe)
}

fn describe(speed: &Speed) -> String {
    let mut text = format!(
        "{}, {} parameters, {} rank{} of one thread: {:.0} tokens/s, {:.1} GFLOP/s of the model",
        speed.model,
        speed.parameters,
        speed.ranks,
        if speed.ranks == 1 { "" } else { "s" },
        speed.median_tokens_per_second,
        speed.model_gflops,
    );
    if let (Some(peak), Some(share)) = (speed.peak_gflops, speed.share_of_peak) {
        text += &format!(
            ", {:.1}% of the {peak:.1} that the best of the step's products reaches",
            share * 100.0
        );
    }
    let rows = speed.against.iter().map(|compared| {
        let rounds: Vec<String> = compared
            .ratios
            .iter()
            .map(|ratio| format!("{ratio:.2}"))
            .collect();
        let name = clap::ValueEnum::to_possible_value(&compared.peer)
            .map_or(String::new(), |name| name.get_name().to_owned());
        [
            name,
            format!("{:.0}", median(&compared.tokens_per_second)),
            format!("{:.3}", compared.median_ratio),
            rounds.join(" "),
        ]
    });
    if !speed.against.is_empty() {
        text += "\n\n";
        text += &table(["against", "its tokens/s", "ours is times", "rounds"], rows);
    }
    text
}

#[derive(serde::Serialize)]
struct Scaling {
    model: String,
    ranks: u32,
    one: Vec<f64>,
    many: Vec<f64>,
    /// Of a rank's speed, the share that is kept, round by round.
    kept: Vec<f64>,
    median_kept: f64,
}

pub(crate) async fn scaling(args: ScalingArgs, format: Format) -> anyhow::Result<()> {
    args.what.parse(args.ranks)?;
    let folder = tempfile::Builder::new().prefix("lockstep-bench-").tempdir()?;
    let bench = Bench::new(&args.what, folder.path(), None).await?;
    let (mut one, mut many) = (Vec::new(), Vec::new());
    for round in 0..args.what.rounds {
        eprintln!("round {} of {}", round + 1, args.what.rounds);
        one.push(bench.job(1).await?.0.tokens_per_second);
        many.push(bench.job(args.ranks).await?.0.tokens_per_second);
    }
    let kept: Vec<f64> = one
        .iter()
        .zip(&many)
        .map(|(one, many)| many / f64::from(args.ranks) / one)
        .collect();
    let result = Scaling {
        model: args.what.preset.clone(),
        ranks: args.ranks,
        median_kept: median(&kept),
        one,
        many,
        kept,
    };
    format.print(&result, |scaling| {
        let rows = scaling.one.iter().zip(&scaling.many).zip(&scaling.kept);
        let rows = rows.map(|((one, many), kept)| {
            [
                format!("{one:.0}"),
                format!("{many:.0}"),
                format!("{:.1}%", kept * 100.0),
            ]
        });
        format!(
            "{}\n\na rank of {} keeps {:.1}% of its speed (median of {} rounds)",
            table(["tokens/s of one rank", "of all", "kept"], rows),
            scaling.ranks,
            scaling.median_kept * 100.0,
            scaling.kept.len(),
        )
    })
}

#[derive(serde::Serialize)]
struct Memory {
    model: String,
    planned_bytes: u64,
    measured_bytes: u64,
    torch_bytes: Option<u64>,
    /// Ours over PyTorch's.
    ratio: Option<f64>,
}

pub(crate) async fn memory_of(args: MemoryArgs, format: Format) -> anyhow::Result<()> {
    let spec = args.what.parse(1)?;
    let folder = tempfile::Builder::new().prefix("lockstep-bench-").tempdir()?;
    let bench = Bench::new(&args.what, folder.path(), Some(&args.python)).await?;
    let measured = bench.process("decoder", false).await?.0.peak_bytes;
    let torch = match args.against {
        Some(_) => Some(bench.torch(1, false).await?.peak_bytes),
        None => None,
    };
    let result = Memory {
        model: args.what.preset.clone(),
        planned_bytes: memory::of_process(&spec),
        measured_bytes: measured,
        torch_bytes: torch,
        ratio: torch.map(|torch| measured as f64 / torch as f64),
    };
    format.print(&result, |memory| {
        let mebibytes = |bytes: u64| format!("{:.0} MiB", bytes as f64 / f64::from(1 << 20));
        let mut rows = vec![
            ["planned".to_owned(), mebibytes(memory.planned_bytes)],
            ["measured".to_owned(), mebibytes(memory.measured_bytes)],
        ];
        if let (Some(torch), Some(ratio)) = (memory.torch_bytes, memory.ratio) {
            rows.push(["PyTorch's process".to_owned(), mebibytes(torch)]);
            rows.push(["ours is times".to_owned(), format!("{ratio:.3}")]);
        }
        table([memory.model.as_str(), "peak"], rows)
    })
}

/// The processes that are measured.
struct Bench<'a> {
    what: &'a What,
    folder: &'a Path,
    python: Option<&'a Path>,
    program: PathBuf,
}

impl<'a> Bench<'a> {
    async fn new(what: &'a What, folder: &'a Path, python: Option<&'a Path>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        std::fs::write(folder.join("step.py"), TORCH)
            .map_err(Failure::storage(format!("write {}", folder.display())))?;
        Ok(Self {
            what,
            folder,
            python,
            program,
        })
    }

    /// A process that trains, and the best that its products reach if that is asked for.
    async fn process(&self, path: &str, with_peak: bool) -> anyhow::Result<(Found, Option<f64>)> {
        let spec = self.folder.join("process.toml");
        std::fs::write(&spec, self.what.source(1, Path::new("no-data"))?)
            .map_err(Failure::storage(format!("write {}", spec.display())))?;
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(["bench", "train-loop", "--path", path])
            .arg(&spec)
            .env("RAYON_NUM_THREADS", "1")
            .env("CANDLE_NUM_THREADS", "1");
        let found = answer(command, "the loop").await?;
        let peak = if with_peak {
            let mut command = tokio::process::Command::new(&self.program);
            command
                .args(["bench", "products"])
                .arg(&spec)
                .env("RAYON_NUM_THREADS", "1");
            Some(answer::<f64>(command, "the products").await?)
        } else {
            None
        };
        Ok((found, peak))
    }

    /// A whole job, with one thread a rank.
    async fn job(&self, ranks: u32) -> anyhow::Result<(Found, Option<f64>)> {
        let dataset = self.dataset()?;
        let spec_file = self.folder.join(format!("job-{ranks}.toml"));
        let source = self.what.source(ranks, &dataset)?;
        std::fs::write(&spec_file, &source)
            .map_err(Failure::storage(format!("write {}", spec_file.display())))?;
        let out = self.folder.join("job");
        let options = JobOptions {
            spec: spec_file,
            out: Some(out.clone()),
            resume: false,
            kill: Vec::new(),
        };
        let prepared = Job::read(&options)?.prepare(Format::Json)?;
        let summary = finished(&locally(&prepared, ranks, Some(1), Progress::quiet()).await?)?;
        std::fs::remove_dir_all(&out).ok();
        let spec = Spec::parse(&source)?;
        let tokens = (spec.samples_per_step() * spec.batch.sequence_length as u64) as f64;
        let step_ms = summary.step_ms_median;
        Ok((
            Found {
                step_ms,
                tokens_per_second: tokens / step_ms * 1e3,
                peak_bytes: 0,
            },
            None,
        ))
    }

    fn dataset(&self) -> anyhow::Result<PathBuf> {
        if let Some(dataset) = &self.what.dataset {
            return super::jobs::absolute(dataset);
        }
        let path = self.folder.join("dataset");
        if !path.exists() {
            let vocabulary = self.what.parse(1)?.model.vocab_size;
            let corpus = lockstep_data::Corpus::CargoRegistry(None);
            let options = lockstep_data::BuildOptions::new(corpus, &path, vocabulary);
            let options = lockstep_data::BuildOptions {
                max_bytes: Some(4_000_000),
                ..options
            };
            super::data::build(&options, Format::Json)?;
        }
        Ok(path)
    }

    async fn torch(&self, ranks: u32, compile: bool) -> anyhow::Result<Found> {
        let spec = self.what.parse(ranks)?;
        let (model, batch) = (&spec.model, &spec.batch);
        if model.tie_word_embeddings {
            return Err(Failure::Usage(
                "--against torch: the peer's head is not tied; set model.tie_word_embeddings = false"
                    .to_owned(),
            )
            .into());
        }
        let plan = serde_json::json!({
            "vocab": model.vocab_size, "width": model.hidden_size, "layers": model.num_hidden_layers,
            "heads": model.num_attention_heads, "kv_heads": model.num_key_value_heads, "ffn": model.intermediate_size,
            "length": batch.sequence_length, "sequences": batch.sequences,
            "steps": self.what.steps, "threads": 1, "compile": compile,
        });
        let python = self.python.unwrap_or(Path::new("python3"));
        let mut command = tokio::process::Command::new(python);
        if ranks > 1 {
            command.args([
                "-m",
                "torch.distributed.run",
                "--standalone",
                "--nproc-per-node",
                &ranks.to_string(),
            ]);
        }
        command
            .arg(self.folder.join("step.py"))
            .arg(plan.to_string())
            .env("OMP_NUM_THREADS", "1");
        answer(command, "PyTorch").await
    }
}

/// The last line of what a process prints, as JSON.
async fn answer<T: serde::de::DeserializeOwned>(
    mut command: tokio::process::Command,
    who: &str,
) -> anyhow::Result<T> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("start {who}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    match said.lines().next_back().map(serde_json::from_str) {
        Some(Ok(found)) if output.status.success() => Ok(found),
        _ => {
            let log = String::from_utf8_lossy(&output.stderr);
            let last: Vec<&str> = log.trim().lines().rev().take(3).collect();
            let last: Vec<&str> = last.into_iter().rev().collect();
            Err(Failure::Job(format!("{who} failed ({}): {}", output.status, last.join("; "))).into())
        }
    }
}

/// The hidden verb behind one measurement of [`step`].
#[derive(Debug, clap::Args)]
pub(crate) struct LoopArgs {
    spec: PathBuf,
    #[arg(long)]
    path: String,
}

/// Trains on random tokens and does nothing else.
pub(crate) fn train_loop(args: &LoopArgs) -> anyhow::Result<()> {
    let spec = super::spec::read(&args.spec)?;
    let device = DeviceName::Cpu.open()?;
    let (seed, recompute) = (spec.train.seed, spec.memory.recompute);
    let network: Box<dyn Network> = match args.path.as_str() {
        "autograd" => Box::new(Llama::new(&spec.model, seed, DType::F32, &device)?),
        "generic" => Box::new(Decoder::generic(&spec.model, seed, recompute, &device)?),
        _ => Box::new(Decoder::new(&spec.model, seed, recompute, &device)?),
    };
    let mut trainer = Trainer::new(network, &spec.optim, Schedule::of(&spec))?;
    let mut gradient = trainer.layout().zeros();
    let sequences = spec.batch.sequences as usize;
    let tokens = sequences * spec.batch.sequence_length;
    let mut times = Vec::new();
    for step in 0..spec.train.steps {
        let stream = Stream::new(step, 0);
        let draw = |i| (stream.uniform(i) * spec.model.vocab_size as f64) as u32;
        let drawn: Vec<u32> = (0..(tokens + sequences) as u64).map(draw).collect();
        let batch = Batch::new(&drawn, sequences, &device)?;
        let started = Instant::now();
        gradient.fill(0.0);
        trainer.accumulate(&batch, &mut gradient)?;
        trainer.apply(&gradient, 1.0)?;
        if step >= WARM_UP {
            times.push(started.elapsed().as_secs_f64());
        }
    }
    let step = median(&times);
    let found = Found {
        step_ms: step * 1e3,
        tokens_per_second: tokens as f64 / step,
        peak_bytes: peak_bytes()?,
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// The hidden verb that measures products alone: the most GFLOP/s over those of a step.
pub(crate) fn products(spec: &Path) -> anyhow::Result<()> {
    let spec = super::spec::read(spec)?;
    println!(
        "{}",
        lockstep_trainer::decoder::peak_gflops(
            &spec.model,
            spec.batch.sequences as usize * spec.batch.sequence_length
        )
    );
    Ok(())
}

/// The most memory that this process ever had resident.
fn peak_bytes() -> anyhow::Result<u64> {
    let status =
        std::fs::read_to_string("/proc/self/status").map_err(Failure::storage("read /proc/self/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    Ok(kibibytes.context("find VmHWM in /proc/self/status")? * 1024)
}

/// Of an even number, the mean of the two in the middle.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) && half > 0 {
        (middle(half - 1) + middle(half)) / 2.0
    } else {
        middle(half)
    }
}
