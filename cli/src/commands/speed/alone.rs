//! What a measured process of ours does: it trains, or multiplies, and nothing else.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lockstep_engine::random::Stream;
use lockstep_trainer::{Batch, DType, Decoder, DeviceName, Llama, Network, Schedule, Trainer};

use super::processes::Found;
use super::{WARM_UP, median, peaks};
use crate::commands::spec;

/// The hidden verb behind one measurement of `bench step`.
#[derive(Debug, clap::Args)]
pub(crate) struct LoopArgs {
    spec: PathBuf,
    #[arg(long)]
    path: String,
}

/// Trains on random tokens and does nothing else.
pub(crate) fn train_loop(args: &LoopArgs) -> anyhow::Result<()> {
    let spec = spec::read(&args.spec)?;
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
        peak_bytes: peaks::own()?,
    };
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

/// The hidden verb that measures products alone: the most GFLOP/s over those of a step.
pub(crate) fn products(spec: &Path) -> anyhow::Result<()> {
    let spec = spec::read(spec)?;
    println!(
        "{}",
        lockstep_trainer::decoder::peak_gflops(
            &spec.model,
            spec.batch.sequences as usize * spec.batch.sequence_length
        )
    );
    Ok(())
}
