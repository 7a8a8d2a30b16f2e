//! What training a decoder takes.

use lockstep_engine::spec::{ModelSpec, Recompute};
use lockstep_kernels::attention::Shape;
use lockstep_kernels::{head, matmul};

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

/// Bytes of activations for microbatches of `sequences` sequences of `length` tokens, of the rotary tables, and of what
/// the kernels keep on one thread.
#[must_use]
pub fn activations(spec: &ModelSpec, recompute: Recompute, sequences: usize, length: usize) -> u64 {
    let Sizes { hidden, ffn, qkv } = Sizes::new(spec);
    let (tokens, blocks) = (sequences * length, spec.num_hidden_layers);
    let saved = tokens * (3 * hidden + qkv + 2 * ffn + spec.num_attention_heads);
    let kept = match recompute {
        Recompute::None => blocks * saved,
        Recompute::Block => saved + blocks * tokens * hidden,
    };
    let work = tokens * (4 * hidden + ffn + qkv);
    let logits = head::chunk(spec.vocab_size).min(tokens) * spec.vocab_size;
    let shape = Shape {
        sequences,
        length,
        heads: spec.num_attention_heads,
        kv_heads: spec.num_key_value_heads,
        width: hidden / spec.num_attention_heads,
    };
    let rotary = spec.max_position_embeddings * shape.width;
    let widest = spec.vocab_size.max(2 * ffn).max(qkv);
    let kernels = matmul::scratch(hidden.max(ffn), widest) + shape.scratch() + tokens.div_ceil(64) * hidden;
    (size_of::<f32>() * (kept + work + logits + rotary + kernels)) as u64
}
