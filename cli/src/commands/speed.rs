//! `bench step`, `scaling` and `memory`: what training takes, beside what a peer takes in the same run.

mod alone;
mod memory;
mod peaks;
mod processes;
mod scaling;

use std::path::{Path, PathBuf};

use lockstep_bench::spread::median;
use lockstep_engine::spec::Spec;

use crate::failure::Failure;
use crate::output::{Format, table};
use processes::Bench;

pub(crate) use alone::{LoopArgs, products, train_loop};
pub(crate) use memory::{MemoryArgs, memory};
pub(super) use processes::{answer, build_dataset};
pub(crate) use scaling::{ScalingArgs, scaling};

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
    #[arg(long, default_value = "tiny", conflicts_with = "spec", value_parser = super::spec::preset())]
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

/// PyTorch beside what is measured.
#[derive(Debug, clap::Args)]
struct Beside {
    /// Measure PyTorch as well, in turn.
    #[arg(long, value_name = "PEER", value_parser = ["torch"])]
    against: Option<String>,
    /// The Python that has PyTorch.
    #[arg(long, value_name = "PATH", env = "LOCKSTEP_PYTHON", default_value = "python3")]
    python: PathBuf,
}

impl What {
    /// The model, as it was named.
    fn name(&self) -> String {
        let spec = self.spec.as_ref().map(|path| path.display().to_string());
        spec.unwrap_or_else(|| self.preset.clone())
    }

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

/// Round by round, the one by the other.
fn ratios(of: &[f64], by: &[f64]) -> Vec<f64> {
    of.iter().zip(by).map(|(of, by)| of / by).collect()
}

/// Says on standard error how far it is.
fn say_round(round: u32, what: &What) {
    eprintln!("round {} of {}", round + 1, what.rounds);
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
    /// The best that a product of the step's shapes reaches on one thread, and the share of it, with one rank: medians of the rounds.
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
    let (mut ours, mut peaks, mut shares): (Vec<f64>, Vec<f64>, Vec<f64>) = Default::default();
    let gflops = |tokens_per_second: f64| tokens_per_second * flops(&spec) / 1e9;
    let mut theirs: Vec<Vec<f64>> = vec![Vec::new(); args.against.len()];
    for round in 0..args.what.rounds {
        say_round(round, &args.what);
        if args.ranks == 1 {
            let (found, peak) = bench.process("decoder", true).await?;
            ours.push(found.tokens_per_second);
            peaks.extend(peak);
            // By round, as the machine's speed changes from one to the next.
            shares.extend(peak.map(|peak| gflops(found.tokens_per_second) / peak));
        } else {
            ours.push(bench.job(args.ranks).await?);
        }
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
        let ratios = ratios(&ours, &tokens_per_second);
        Compared {
            peer,
            median_ratio: median(&ratios),
            tokens_per_second,
            ratios,
        }
    });
    let speed = median(&ours);
    let result = Speed {
        model: args.what.name(),
        parameters: spec.model.parameters(),
        ranks: args.ranks,
        median_tokens_per_second: speed,
        model_gflops: gflops(speed),
        peak_gflops: (!peaks.is_empty()).then(|| median(&peaks)),
        share_of_peak: (!shares.is_empty()).then(|| median(&shares)),
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
            ", {:.1}% of what the best of the step's products reaches, {peak:.1} GFLOP/s (medians)",
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        what: What,
    }

    fn what(line: &str) -> What {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        <Line as clap::Parser>::try_parse_from(words).unwrap().what
    }

    #[test]
    fn a_model_is_named_as_it_was_asked_for() {
        assert_eq!(what("").name(), "tiny");
        assert_eq!(what("--preset small").name(), "small");
        assert_eq!(what("--spec job.toml").name(), "job.toml");
    }
}
