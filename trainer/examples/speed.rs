//! Tokens per second of a training step, per preset and path:
//!
//! ```text
//! RAYON_NUM_THREADS=1 cargo run --release -p lockstep-trainer --example speed -- tiny 10 decoder
//! ```
//!
//! A step is one microbatch of eight sequences of the preset's whole context, then the update. Prints the median
//! over the steps, after two to warm up, and how it divides.

use std::time::{Duration, Instant};

use lockstep_engine::random::Stream;
use lockstep_engine::spec::Spec;
use lockstep_trainer::{Batch, DType, Decoder, Device, Llama, Network, Schedule, Trainer};

const SEQUENCES: usize = 8;
const WARM_UP: u64 = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let preset = arguments.next().unwrap_or_else(|| "tiny".to_owned());
    let steps: u64 = arguments.next().map_or(Ok(8), |n| n.parse())?;
    let path = arguments.next().unwrap_or_else(|| "decoder".to_owned());
    let spec = Spec::parse(&format!(
        "[model]\npreset = \"{preset}\"\n[data]\ncorpus = \".\"\n[train]\nsteps = 100\n"
    ))?;
    let length = spec.model.max_position_embeddings;
    let recompute = spec.memory.recompute;
    let network: Box<dyn Network> = match path.as_str() {
        "decoder" => Box::new(Decoder::new(&spec.model, 0, recompute, &Device::Cpu)?),
        "generic" => Box::new(Decoder::generic(&spec.model, 0, recompute, &Device::Cpu)?),
        "autograd" => Box::new(Llama::new(&spec.model, 0, DType::F32, &Device::Cpu)?),
        other => return Err(format!("{other}: must be decoder, generic or autograd").into()),
    };
    let mut trainer = Trainer::new(network, &spec.optim, Schedule::of(&spec))?;
    let mut gradient = trainer.layout().zeros();

    let (mut compute, mut update) = (Vec::new(), Vec::new());
    let mut loss = 0.0;
    for step in 0..WARM_UP + steps {
        let begin = Instant::now();
        gradient.fill(0.0);
        let stream = Stream::new(step, 0);
        let draw = |i| (stream.uniform(i) * spec.model.vocab_size as f64) as u32;
        let tokens: Vec<u32> = (0..(SEQUENCES * (length + 1)) as u64).map(draw).collect();
        loss = trainer.accumulate(&Batch::new(&tokens, SEQUENCES, &Device::Cpu)?, &mut gradient)?;
        let computed = Instant::now();
        trainer.apply(&gradient, 1.0)?;
        if step >= WARM_UP {
            compute.push(computed - begin);
            update.push(computed.elapsed());
        }
    }
    let (compute, update) = (median(compute), median(update));
    let tokens = SEQUENCES * length;
    println!(
        "{preset} {path}: {:.0} tokens/s; gradient {:.1} ms, update {:.1} ms, {} weights, loss {loss:.6}",
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
