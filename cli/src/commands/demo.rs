//! `demo`: the main job in minutes, on this machine, for real.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use lockstep_coordinator::summary::Summary;
use lockstep_data::{BuildOptions, Corpus};
use lockstep_trainer::{DeviceName, Generator, Sampling};

use super::jobs::absolute;
use super::run::{Job, JobOptions, KillAt, describe, finished, locally};
use crate::failure::Failure;
use crate::output::{Format, bold};
use crate::progress::Progress;
use crate::{chart, output};

/// The main job in minutes: text to a trained model on this machine, with a worker killed on the way.
///
/// It builds a dataset from the Rust and Markdown sources that cargo has unpacked on this machine (or from --corpus),
/// starts a coordinator and four rank processes over loopback, trains a small Llama on it, sends SIGKILL to one rank in
/// the middle, and shows the run carry on. Then it scores the held-out text, exports the model and lets it write.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Any folder of text, instead of cargo's registry.
    #[arg(long, value_name = "DIR")]
    corpus: Option<PathBuf>,
    /// The folder for everything; by default `lockstep-demo`, or the first of `lockstep-demo-2`, … that is free.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Optimizer steps; the default takes about three minutes on two cores.
    #[arg(long, value_name = "N", default_value_t = STEPS, value_parser = clap::value_parser!(u64).range(4..=1_000_000))]
    steps: u64,
    /// Use at most so many MB of the text.
    #[arg(long, value_name = "MB", default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_megabytes: u64,
    /// Rank processes.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=4))]
    workers: u32,
}

const STEPS: u64 = 480;
const VOCABULARY: usize = 2048;
/// What the sampled text continues.
const PROMPT: &str = "/// Returns the number of ";

#[derive(serde::Serialize)]
struct Reply {
    summary: Summary,
    sample: String,
    out: PathBuf,
}

pub(crate) async fn run(args: Args, format: Format) -> anyhow::Result<()> {
    let say = |line: &str| {
        if format == Format::Text {
            eprintln!("{line}");
        }
    };
    let out = absolute(&free_folder(args.out.as_deref())?)?;
    let corpus = args.corpus.as_deref().map(absolute).transpose()?;
    let corpus = corpus.map_or(Corpus::CargoRegistry(None), Corpus::Folder);

    say(&bold("1. The text"));
    let dataset = out.join("dataset");
    let max_bytes = Some(args.max_megabytes.saturating_mul(1_000_000));
    let build = BuildOptions {
        max_bytes,
        ..BuildOptions::new(corpus, &dataset, VOCABULARY)
    };
    let built = super::data::build(&build, format)?;
    say(&super::data::describe(&dataset, &built));

    // A worker dies in the middle, and a replacement takes its place.
    let kill = KillAt {
        slot: args.workers - 1,
        step: args.steps / 2,
    };
    let spec_file = out.join("demo.toml");
    std::fs::write(&spec_file, spec(&args, &dataset))
        .map_err(Failure::storage(format!("write {}", spec_file.display())))?;
    let options = JobOptions {
        spec: spec_file.clone(),
        out: Some(out.clone()),
        resume: false,
        kill: vec![kill],
    };
    let prepared = Job::read(&options)?.prepare(format)?;

    say(&bold(&format!(
        "\n2. Training with {} workers; worker {} dies at step {}",
        args.workers, kill.slot, kill.step
    )));
    let job = locally(
        &prepared,
        args.workers,
        None,
        Progress::for_format(format, "train"),
    )
    .await?;
    let summary = finished(&job)?;

    say(&bold("\n3. What it learned"));
    let losses = losses(&out)?;
    let curve = out.join("loss.svg");
    let svg = chart::svg("Training loss", &losses, &[kill.step as usize]);
    std::fs::write(&curve, svg).map_err(Failure::storage(format!("write {}", curve.display())))?;
    say(&chart::terminal(&losses, 78, 10));
    say(&verdict(&summary));

    say(&bold("\n4. The model"));
    let model = out.join("model");
    super::checkpoint::export(&out, &model)?;
    let generator = Generator::open(&model, &DeviceName::Cpu.open()?)?;
    let sampling = Sampling {
        max_tokens: 80,
        temperature: 0.7,
        ..Sampling::default()
    };
    let sample = generator
        .generate(PROMPT, &sampling, |_| ControlFlow::Continue(()))?
        .text;
    let reply = Reply {
        summary,
        sample: format!("{PROMPT}{sample}"),
        out: out.clone(),
    };
    format.print(&reply, |reply| {
        format!(
            "{}\n\n{}\n\n{}",
            reply.sample,
            describe(&reply.summary, &out),
            farewell(&out, &spec_file)
        )
    })
}

/// The folder asked for, or the first default one that is free.
fn free_folder(asked: Option<&Path>) -> anyhow::Result<PathBuf> {
    let is_free = |path: &Path| !path.join("checkpoints").exists() && !path.join("coordinator").exists();
    if let Some(out) = asked {
        if is_free(out) {
            return Ok(out.to_owned());
        }
        return Err(Failure::Usage(format!(
            "{} holds a run already; choose another --out",
            out.display()
        ))
        .into());
    }
    let names = (1..1000).map(|n| {
        if n == 1 {
            "lockstep-demo".to_owned()
        } else {
            format!("lockstep-demo-{n}")
        }
    });
    let free = names.map(PathBuf::from).find(|path| is_free(path));
    free.ok_or_else(|| Failure::Usage("all demo folders are taken; choose an --out".to_owned()).into())
}

/// The demo's job, as a spec that `lockstep run` takes as well.
fn spec(args: &Args, dataset: &Path) -> String {
    format!(
        "# Written by `lockstep demo`. The same spec gives the same weights with any number of workers.\n\
         [job]\nname = \"demo\"\n\n\
         [data]\ndataset = {dataset:?}\n\n\
         [model]\npreset = \"tiny\"\nvocab_size = {VOCABULARY}\n\n\
         [train]\nsteps = {steps}\nseed = 7\n\n\
         [batch]\nmicrobatches = 8\nsequences = 2\n\n\
         [optim]\nlearning_rate = 4e-3\n\n\
         [schedule]\nwarmup_steps = {warmup}\n\n\
         [checkpoint]\nevery = {every}\n\n\
         [elastic]\nmin_workers = 1\nmax_workers = 4\n",
        dataset = dataset.display().to_string(),
        steps = args.steps,
        warmup = (args.steps / 12).max(1),
        every = (args.steps / 4).max(1),
    )
}

/// The loss of each step of a run, from its metrics; of a step that was committed again, the last.
fn losses(out: &Path) -> anyhow::Result<Vec<f64>> {
    let path = out.join("metrics.jsonl");
    let text =
        std::fs::read_to_string(&path).map_err(Failure::storage(format!("read {}", path.display())))?;
    let loss = |line: &str| {
        let line = serde_json::from_str::<serde_json::Value>(line).ok()?;
        Some((line.get("step")?.as_u64()?, line.get("loss")?.as_f64()?))
    };
    Ok(text
        .lines()
        .filter_map(loss)
        .collect::<BTreeMap<_, _>>()
        .into_values()
        .collect())
}

fn verdict(summary: &Summary) -> String {
    let (model, gzip) = (summary.val_bits_per_byte, summary.gzip_bits_per_byte);
    let against = if model < gzip {
        format!("{:.3} bits better than", gzip - model)
    } else {
        format!("{:.3} bits from", model - gzip)
    };
    format!("held-out text: {model:.3} bits per byte, {against} gzip -9 ({gzip:.3}) on the same text")
}

fn farewell(out: &Path, spec: &Path) -> String {
    let me = std::env::args().next().unwrap_or_else(|| "lockstep".to_owned());
    let (out, spec) = (out.display(), spec.display());
    format!(
        "{}\nEverything is in {out}: the dataset, the checkpoints, the model (Hugging Face layout), loss.svg,\n\
         events.jsonl, metrics.jsonl and summary.json. Try next:\n\n  \
         {me} generate --model {out}/model --prompt \"fn main() {{\"\n  \
         {me} checkpoint verify {out}\n  \
         {me} run {spec} --workers 2 --out {out}-again    # other workers, no kill: the same weights\n",
        output::bold("Where things are"),
    )
}
