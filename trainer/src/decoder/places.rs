//! Where the parameters lie in the flat buffers.

use std::ops::Range;

use lockstep_engine::spec::ModelSpec;

use super::layers::{Attention, FeedForward, Place};
use crate::error::Result;
use crate::layout::{Layout, decays};
use crate::llama::{PER_BLOCK, shapes};

/// Names and shapes of a decoder's parameters, and its buckets: the embedding, each block, and the final norm with the head.
///
/// # Errors
/// None for a shape that a spec may have.
pub fn layout(spec: &ModelSpec) -> Result<Layout> {
    let shapes = shapes(spec);
    let mut start = 0;
    let blocks = (0..spec.num_hidden_layers).map(|block| 1 + (block + 1) * PER_BLOCK);
    let ends = std::iter::once(1)
        .chain(blocks)
        .chain(std::iter::once(shapes.len()));
    let buckets: Vec<Range<usize>> = ends.map(|end| std::mem::replace(&mut start, end)..end).collect();
    let with_decay = shapes
        .into_iter()
        .map(|(name, shape)| (decays(&name, &shape), name, shape));
    Layout::new(
        with_decay.map(|(decays, name, shape)| (name, shape, decays)),
        &buckets,
    )
}

/// All parameters, by what they do; those that are used as one matrix are one place.
pub(super) struct Places {
    pub(super) embedding: Place,
    pub(super) blocks: Vec<(Attention, FeedForward)>,
    pub(super) norm: Place,
    /// The embedding's, if it is the head.
    pub(super) head: Place,
}

impl Places {
    /// In the order of [`shapes`], in which matrices that are used as one follow each other.
    pub(super) fn new(spec: &ModelSpec) -> Self {
        let (width, ffn) = (spec.hidden_size, spec.intermediate_size);
        let kv = width / spec.num_attention_heads * spec.num_key_value_heads;
        let mut end = 0;
        let mut next = |rows: usize, cols: usize| {
            let start = end;
            end += rows * cols;
            Place { at: start..end, cols }
        };
        let embedding = next(spec.vocab_size, width);
        let block = |_| {
            let attention = Attention {
                norm: next(1, width),
                qkv: next(width + 2 * kv, width),
                output: next(width, width),
            };
            let feed_forward = FeedForward {
                norm: next(1, width),
                gate_up: next(2 * ffn, width),
                down: next(width, ffn),
            };
            (attention, feed_forward)
        };
        let blocks = (0..spec.num_hidden_layers).map(block).collect();
        let norm = next(1, width);
        let head = if spec.tie_word_embeddings {
            embedding.clone()
        } else {
            next(spec.vocab_size, width)
        };
        Self {
            embedding,
            blocks,
            norm,
            head,
        }
    }
}
