//! Tokens per second of a training step, per preset:
//!
//! ```text
//! RAYON_NUM_THREADS=2 CANDLE_NUM_THREADS=2 cargo run --release -p lockstep-trainer --example speed -- tiny 10
//! ```
//!
//! A step is two microbatches of four sequences of the preset's whole context, then the update. Prints the median
//! over the steps, after two to warm up, and how it divides.

use std::time::{Duration, Instant};

use lockstep_engine::random::Stream;
use lockstep_engine::spec::Spec;
use lockstep_trainer::{Batch, DType, Device, Llama, Schedule, Trainer};

const MICROBATCHES: u64 = 2;
const SEQUENCES: usize = 4;
const WARM_UP: u64 = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let preset = arguments.next().unwrap_or_else(|| "tiny".to_owned());
    let steps: u64 = arguments.next().map_or(Ok(8), |n| n.parse())?;
    let spec = Spec::parse(&format!(
        "[model]\npreset = \"{preset}\"\n[data]\ncorpus = \".\"\n[train]\nsteps = 100\n"
    ))?;
    let length = spec.model.max_position_embeddings;
    let model = Llama::new(&spec.model, 0, DType::F32, &Device::Cpu)?;
    let mut trainer = Trainer::new(model, &spec.optim, Schedule::of(&spec))?;
    let mut gradient = trainer.layout().zeros();

    let (mut compute, mut update) = (Vec::new(), Vec::new());
    let mut loss = 0.0;
    for step in 0..WARM_UP + steps {
        let begin = Instant::now();
        gradient.fill(0.0);
        for microbatch in 0..MICROBATCHES {
            let stream = Stream::new(step, microbatch);
            let draw = |i| (stream.uniform(i) * spec.model.vocab_size as f64) as u32;
            let tokens: Vec<u32> = (0..(SEQUENCES * (length + 1)) as u64).map(draw).collect();
            loss = trainer.accumulate(&Batch::new(&tokens, SEQUENCES, &Device::Cpu)?, &mut gradient)?;
        }
        let computed = Instant::now();
        trainer.apply(&gradient, 1.0 / MICROBATCHES as f32)?;
        if step >= WARM_UP {
            compute.push(computed - begin);
            update.push(computed.elapsed());
        }
    }
    let (compute, update) = (median(compute), median(update));
    let tokens = MICROBATCHES as usize * SEQUENCES * length;
    let threads = std::env::var("RAYON_NUM_THREADS").unwrap_or_else(|_| "default".to_owned());
    println!(
        "{preset}: {:.0} tokens/s with {threads} threads; gradient {:.1} ms, update {:.1} ms, {} weights, loss {loss:.3}",
        tokens as f64 / (compute + update).as_secs_f64(),
        compute.as_secs_f64() * 1e3,
        update.as_secs_f64() * 1e3,
        trainer.layout().len(),
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
