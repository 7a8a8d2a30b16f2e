//! Small models and batches that the tests share.

use std::path::Path;

use candle_core::{DType, Device};
use lockstep_engine::random::Stream;
use lockstep_engine::spec::{Decay, ModelSpec, OptimSpec, ScheduleSpec};
use lockstep_trainer::{Batch, Llama, Schedule, Trainer};

#[path = "../../src/testing.rs"]
mod testing;

/// Two blocks of width 16 over 23 tokens.
pub(crate) fn small(heads: usize, kv_heads: usize, tied: bool) -> ModelSpec {
    ModelSpec {
        vocab_size: 23,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        max_position_embeddings: 12,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: tied,
    }
}

/// Grouped queries or not, tied head or not.
pub(crate) fn variants() -> Vec<ModelSpec> {
    let all = [
        (4, 2, false),
        (4, 2, true),
        (4, 4, false),
        (4, 1, true),
        (2, 2, true),
    ];
    all.into_iter()
        .map(|(heads, kv_heads, tied)| small(heads, kv_heads, tied))
        .collect()
}

pub(crate) fn optim() -> OptimSpec {
    OptimSpec {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        clip: 0.0,
    }
}

pub(crate) fn constant(rate: f64) -> Schedule {
    let spec = ScheduleSpec {
        warmup_steps: 0,
        decay: Decay::Constant,
        min_ratio: 1.0,
        decay_fraction: 0.0,
    };
    Schedule::new(&spec, rate, 1_000_000)
}

/// Uniform tokens, different for every `site`.
pub(crate) fn batch(spec: &ModelSpec, sequences: usize, length: usize, site: u64) -> Batch {
    let stream = Stream::new(11, site);
    let count = (sequences * (length + 1)) as u64;
    let tokens: Vec<u32> = (0..count)
        .map(|i| (stream.uniform(i) * spec.vocab_size as f64) as u32)
        .collect();
    Batch::new(&tokens, sequences, &Device::Cpu).unwrap()
}

pub(crate) fn trainer(spec: &ModelSpec) -> Trainer<Llama> {
    let model = Llama::new(spec, 1, DType::F32, &Device::Cpu).unwrap();
    Trainer::new(model, &optim(), constant(1e-2)).unwrap()
}

/// The same after a few steps.
pub(crate) fn trained(spec: &ModelSpec, steps: u64) -> Trainer<Llama> {
    let mut trainer = trainer(spec);
    for step in 0..steps {
        let mut gradient = trainer.layout().zeros();
        let batch = batch(spec, 2, spec.max_position_embeddings, 100 + step);
        trainer.accumulate(&batch, &mut gradient).unwrap();
        trainer.apply(&gradient, 1.0).unwrap();
    }
    trainer
}

/// [`small`] for [`write_tokenizer`]'s 257 tokens.
pub(crate) fn byte_spec(heads: usize, kv_heads: usize, tied: bool) -> ModelSpec {
    ModelSpec {
        vocab_size: 257,
        ..small(heads, kv_heads, tied)
    }
}

/// Writes the tokenizer of one token a byte, with `<|endoftext|>` as 0.
pub(crate) fn write_tokenizer(path: &Path) {
    testing::byte_tokenizer().save(path, false).unwrap();
}
