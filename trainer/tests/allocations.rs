//! What the decoder allocates: as much as was planned, and once it is warm nothing.
#![cfg(test)]

use lockstep_engine::random::Stream;
use lockstep_engine::spec::Spec;
use lockstep_trainer::decoder::memory;
use lockstep_trainer::{Batch, Decoder, Device, Schedule, Trainer};

fn spec(preset: &str, recompute: &str) -> Spec {
    Spec::parse(&format!(
        "[model]\npreset = {preset:?}\n[data]\ncorpus = \".\"\n[memory]\nrecompute = {recompute:?}\n[batch]\nsequences = 4\n"
    ))
    .unwrap()
}

fn batch(spec: &Spec, site: u64) -> Batch {
    let (sequences, length) = (spec.batch.sequences as usize, spec.batch.sequence_length);
    let stream = Stream::new(1, site);
    let draw = |i| (stream.uniform(i) * spec.model.vocab_size as f64) as u32;
    let tokens: Vec<u32> = (0..(sequences * (length + 1)) as u64).map(draw).collect();
    Batch::new(&tokens, sequences, &Device::Cpu).unwrap()
}

/// Allocations are counted of the thread that asks, so the work must stay on it.
fn alone(test: impl FnOnce() + Send) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    pool.install(test);
}

fn trainer(spec: &Spec) -> Trainer<Decoder> {
    let decoder = Decoder::new(&spec.model, 0, spec.memory.recompute, &Device::Cpu).unwrap();
    Trainer::new(decoder, &spec.optim, Schedule::of(spec)).unwrap()
}

#[test]
fn a_warm_step_allocates_nothing() {
    for recompute in ["none", "block"] {
        let spec = spec("nano", recompute);
        alone(|| {
            let mut trainer = trainer(&spec);
            let mut gradient = trainer.layout().zeros();
            let batches = [0, 1, 2].map(|site| batch(&spec, site));
            let mut step = |batch| {
                gradient.fill(0.0);
                trainer.accumulate(batch, &mut gradient).unwrap();
                trainer.apply(&gradient, 1.0).unwrap();
            };
            step(&batches[0]);
            let found = allocation_counter::measure(|| batches[1..].iter().for_each(&mut step));
            assert_eq!(found.count_total, 0, "{recompute}: {found:?}");
        });
    }
}

#[test]
fn the_plan_is_within_a_tenth_of_what_is_allocated() {
    for preset in ["nano", "tiny", "small"] {
        for recompute in ["none", "block"] {
            let spec = spec(preset, recompute);
            let (sequences, length) = (spec.batch.sequences as usize, spec.batch.sequence_length);
            let planned = memory::activations(&spec.model, spec.memory.recompute, sequences, length);
            alone(|| {
                let trainer = trainer(&spec);
                let mut gradient = trainer.layout().zeros();
                let batch = batch(&spec, 0);
                let found = allocation_counter::measure(|| {
                    trainer.accumulate(&batch, &mut gradient).unwrap();
                });
                let ratio = found.bytes_max as f64 / planned as f64;
                assert!(
                    (0.9..=1.1).contains(&ratio),
                    "{preset}, {recompute}: planned {planned}, {found:?}"
                );
            });
        }
    }
}
