//! Names, shapes and grouping of the parameters.

use candle_core::{Result, Tensor, bail};
use lockstep_engine::spec::ModelSpec;

/// Parameters of a block.
pub(crate) const PER_BLOCK: usize = 9;

/// Hugging Face's names and shapes, in the order of the flat buffers.
pub(crate) fn shapes(spec: &ModelSpec) -> Vec<(String, Vec<usize>)> {
    let (width, ffn) = (spec.hidden_size, spec.intermediate_size);
    let kv = width / spec.num_attention_heads * spec.num_key_value_heads;
    let mut all = vec![(
        "model.embed_tokens.weight".to_owned(),
        vec![spec.vocab_size, width],
    )];
    for block in 0..spec.num_hidden_layers {
        let parameters: [(&str, Vec<usize>); PER_BLOCK] = [
            ("input_layernorm", vec![width]),
            ("self_attn.q_proj", vec![width, width]),
            ("self_attn.k_proj", vec![kv, width]),
            ("self_attn.v_proj", vec![kv, width]),
            ("self_attn.o_proj", vec![width, width]),
            ("post_attention_layernorm", vec![width]),
            ("mlp.gate_proj", vec![ffn, width]),
            ("mlp.up_proj", vec![ffn, width]),
            ("mlp.down_proj", vec![width, ffn]),
        ];
        all.extend(parameters.map(|(name, shape)| (format!("model.layers.{block}.{name}.weight"), shape)));
    }
    all.push(("model.norm.weight".to_owned(), vec![width]));
    if !spec.tie_word_embeddings {
        all.push(("lm_head.weight".to_owned(), vec![spec.vocab_size, width]));
    }
    all
}

/// The parameters, by what they do. A matrix is (out, in).
pub(super) struct Weights {
    pub(super) embedding: Tensor,
    pub(super) blocks: Vec<Block>,
    pub(super) norm: Tensor,
    /// `None` when the embedding is the head.
    pub(super) head: Option<Tensor>,
}

/// The parameters of one block.
pub(super) struct Block {
    pub(super) input_norm: Tensor,
    pub(super) query: Tensor,
    pub(super) key: Tensor,
    pub(super) value: Tensor,
    pub(super) output: Tensor,
    pub(super) post_norm: Tensor,
    pub(super) gate: Tensor,
    pub(super) up: Tensor,
    pub(super) down: Tensor,
}

impl Weights {
    /// Groups tensors that come in the order of [`shapes`].
    pub(super) fn new(spec: &ModelSpec, tensors: impl Iterator<Item = Tensor>) -> Result<Self> {
        let mut tensors = tensors;
        let mut next = || match tensors.next() {
            Some(tensor) => Ok(tensor),
            None => bail!("too few parameters for the model's shape"),
        };
        let embedding = next()?;
        let block = |_| {
            Ok(Block {
                input_norm: next()?,
                query: next()?,
                key: next()?,
                value: next()?,
                output: next()?,
                post_norm: next()?,
                gate: next()?,
                up: next()?,
                down: next()?,
            })
        };
        let blocks = (0..spec.num_hidden_layers).map(block).collect::<Result<_>>()?;
        let norm = next()?;
        let head = if spec.tie_word_embeddings {
            None
        } else {
            Some(next()?)
        };
        Ok(Self {
            embedding,
            blocks,
            norm,
            head,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_engine::spec::presets;

    #[test]
    fn shapes_add_up_to_the_engine_s_count() {
        for preset in presets() {
            for tied in [false, true] {
                let spec = ModelSpec {
                    tie_word_embeddings: tied,
                    ..preset.model.clone()
                };
                let total: usize = shapes(&spec)
                    .iter()
                    .map(|(_, s)| s.iter().product::<usize>())
                    .sum();
                assert_eq!(total, spec.parameters(), "{}", preset.name);
            }
        }
    }
}
