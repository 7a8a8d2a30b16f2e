//! Which bits this build computes on this machine.

use lockstep_engine::ids::Step;
use lockstep_engine::spec::{Decay, ModelSpec, OptimSpec, Recompute, ScheduleSpec};

use crate::batch::Batch;
use crate::decoder::Decoder;
use crate::device::DeviceName;
use crate::error::Result;
use crate::schedule::Schedule;
use crate::trainer::Trainer;

/// Digits of a fingerprint.
const DIGITS: usize = 16;

/// A digest of what a tiny training step gives: processes with different ones must not train together.
///
/// It is the same on every processor, so another one means another build (or a broken machine).
///
/// # Errors
/// [`TrainerError::Compute`](crate::TrainerError::Compute) from the device.
pub fn fingerprint() -> Result<String> {
    let model = ModelSpec {
        vocab_size: 61,
        hidden_size: 36,
        intermediate_size: 400,
        num_hidden_layers: 2,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        max_position_embeddings: 400,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: false,
    };
    let optim = OptimSpec {
        learning_rate: 1e-2,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        clip: 0.5,
    };
    let schedule = ScheduleSpec {
        warmup_steps: 2,
        decay: Decay::Cosine,
        min_ratio: 0.1,
        decay_fraction: 0.5,
    };
    let device = DeviceName::Cpu.open()?;
    let decoder = Decoder::new(&model, 1, Recompute::None, &device)?;
    let schedule = Schedule::new(&schedule, optim.learning_rate, 3);
    let mut trainer = Trainer::new(decoder, &optim, schedule)?;
    // Longer than a tile of keys, and than a block of a sum; wider than one too.
    for step in 0..3u32 {
        let mut gradient = trainer.layout().zeros();
        let tokens: Vec<u32> = (0..401).map(|i| (i * 7919 + step * 13) % 61).collect();
        trainer.accumulate(&Batch::new(&tokens, 1, &device)?, &mut gradient)?;
        trainer.apply(&gradient, 1.0)?;
    }
    debug_assert_eq!(trainer.state().step, Step(3));
    let mut digest = trainer.state().digest();
    digest.truncate(DIGITS);
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed once on an AMD EPYC with AVX-512. It changes with the arithmetic and with nothing else: say so in the
    /// changelog, as checkpoints of before then go on with other bits.
    #[test]
    fn this_machine_computes_the_bits_of_all_others() {
        assert_eq!(fingerprint().unwrap(), "9168ff8bd0e8f166");
    }
}
