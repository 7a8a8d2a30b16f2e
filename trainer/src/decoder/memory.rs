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
/// the kernels keep on one thread. What is beyond the largest number is the largest.
#[must_use]
pub fn activations(spec: &ModelSpec, recompute: Recompute, sequences: usize, length: usize) -> u64 {
    let Sizes { hidden, ffn, qkv } = Sizes::new(spec);
    let tokens = sequences * length;
    let saved = 3 * hidden + qkv + 2 * ffn + spec.num_attention_heads;
    let work = 4 * hidden + ffn + qkv;
    let logits = head::chunk(spec.vocab_size).min(tokens) * spec.vocab_size;
    let shape = shape(spec, sequences, length);
    let rotary = spec.max_position_embeddings * shape.width;
    let widest = spec.vocab_size.max(2 * ffn).max(qkv);
    let kernels = matmul::scratch(hidden.max(ffn), widest) + shape.scratch() + tokens.div_ceil(64) * hidden;
    // All that a spec allows: 2^16 sequences of 2^20 tokens, 2^20 values of each in 2^10 blocks.
    let [tokens, saved, work, hidden, blocks] =
        [tokens, saved, work, hidden, spec.num_hidden_layers].map(|size| size as u128);
    let kept = match recompute {
        Recompute::None => blocks * saved,
        Recompute::Block => saved + blocks * hidden,
    };
    let values = tokens * (kept + work) + (logits + rotary + kernels) as u128;
    u64::try_from(size_of::<f32>() as u128 * values).unwrap_or(u64::MAX)
}

/// Bytes of what the kernels keep on each thread beyond the first: it computes parts of products, and attention.
#[must_use]
pub fn of_thread(spec: &ModelSpec, sequences: usize, length: usize) -> u64 {
    let Sizes { hidden, ffn, .. } = Sizes::new(spec);
    let shape = shape(spec, sequences, length);
    (size_of::<f32>() * (matmul::scratch(hidden.max(ffn), shape.width) + shape.scratch())) as u64
}

fn shape(spec: &ModelSpec, sequences: usize, length: usize) -> Shape {
    Shape {
        sequences,
        length,
        heads: spec.num_attention_heads,
        kv_heads: spec.num_key_value_heads,
        width: spec.hidden_size / spec.num_attention_heads,
    }
}
