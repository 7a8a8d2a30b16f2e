//! What training a decoder takes.

use lockstep_engine::spec::{ModelSpec, Recompute};

/// Columns of its arrays.
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) ffn: usize,
    pub(super) qkv: usize,
}

impl Sizes {
    pub(super) fn new(spec: &ModelSpec) -> Self {
        let (hidden, ffn) = (spec.hidden_size, spec.intermediate_size);
        let kv = hidden / spec.num_attention_heads * spec.num_key_value_heads;
        Self {
            hidden,
            ffn,
            qkv: hidden + 2 * kv,
        }
    }
}

/// Bytes of activations for microbatches of `sequences` sequences of `length` tokens.
#[must_use]
pub fn activations(spec: &ModelSpec, recompute: Recompute, sequences: usize, length: usize) -> u64 {
    let Sizes { hidden, ffn, qkv } = Sizes::new(spec);
    let (n, blocks) = ((sequences * length) as u64, spec.num_hidden_layers as u64);
    let values = |columns: usize| n * columns as u64;
    let saved = values(3 * hidden + qkv + 2 * ffn) + values(spec.num_attention_heads);
    let kept = match recompute {
        Recompute::None => blocks * saved,
        Recompute::Block => saved + blocks * values(hidden),
    };
    let work = values(4 * hidden + ffn + qkv);
    let logits = (lockstep_kernels::head::chunk(spec.vocab_size) * spec.vocab_size) as u64;
    size_of::<f32>() as u64 * (kept + work + logits)
}
