//! The built-in model: the Llama architecture (Touvron et al., 2023) with grouped queries (Ainslie et al., 2023),
//! in the names, shapes and rotary pairing of Hugging Face's `LlamaForCausalLM`.

mod attention;
pub(crate) mod init;
mod weights;

use std::ops::Range;

use candle_core::{DType, Device, Result as CandleResult, Tensor, Var};
use lockstep_engine::spec::ModelSpec;

pub(crate) use attention::Cache;
pub(crate) use weights::{PER_BLOCK, shapes};

use crate::batch::Batch;
use crate::error::{ComputeContext, Result};
use crate::model::Model;
use crate::ops::heads::{Axes, Rotary, merge, split};
use crate::ops::linear::linear;
use crate::ops::loss::mean_cross_entropy;
use crate::ops::norm::rms_norm;
use crate::ops::swiglu::swiglu;
use weights::{Block, Weights};

/// A Llama-architecture decoder.
pub struct Llama {
    spec: ModelSpec,
    parameters: Vec<(String, Var)>,
    /// The parameters as a graph's leaves, and the same storages untracked, for inference.
    tracked: Weights,
    untracked: Weights,
    rotary: Rotary,
}

impl Llama {
    /// A model with initial weights that depend on `seed` and each parameter's name alone: normal with deviation
    /// 0.02, divided by `sqrt(2 · layers)` where a block writes to the residual stream; norms 1 (Radford et al.,
    /// 2019). `dtype` is `F32` to train, `F64` to check.
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute) when the device has no room.
    pub fn new(spec: &ModelSpec, seed: u64, dtype: DType, device: &Device) -> Result<Self> {
        let initial = |name: &str, shape: &[usize]| init::weights(spec, seed, name, shape);
        Self::from_values(spec, dtype, device, |name, shape| Ok(initial(name, shape)))
    }

    /// A model with the given weights: `values` returns those of a parameter by name and shape.
    ///
    /// # Errors
    /// Those of `values`, and [`TrainerError::Compute`](crate::TrainerError::Compute).
    pub fn from_values(
        spec: &ModelSpec,
        dtype: DType,
        device: &Device,
        mut values: impl FnMut(&str, &[usize]) -> Result<Vec<f32>>,
    ) -> Result<Self> {
        let mut parameters = Vec::new();
        for (name, shape) in shapes(spec) {
            let values = values(&name, &shape)?;
            let tensor = Tensor::from_vec(values, shape, device).and_then(|t| t.to_dtype(dtype));
            let var = tensor
                .and_then(|t| Var::from_tensor(&t))
                .doing("make a parameter")?;
            parameters.push((name, var));
        }
        let width = spec.hidden_size / spec.num_attention_heads;
        let rotary = Rotary::new(
            spec.max_position_embeddings,
            width,
            spec.rope_theta,
            dtype,
            device,
        )
        .doing("make the rotary tables")?;
        let tracked = Weights::new(spec, parameters.iter().map(|(_, var)| var.as_tensor().clone()));
        let untracked = Weights::new(spec, parameters.iter().map(|(_, var)| var.as_detached_tensor()));
        let (tracked, untracked) = (
            tracked.doing("group the parameters")?,
            untracked.doing("group the parameters")?,
        );
        Ok(Self {
            spec: spec.clone(),
            parameters,
            tracked,
            untracked,
            rotary,
        })
    }

    /// Its shape.
    #[must_use]
    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    /// The scores of every next token: `u32` tokens (sequences, length) to (sequences, length, vocabulary).
    ///
    /// # Errors
    /// From candle; also when `length` is above `max_position_embeddings`.
    pub fn logits(&self, tokens_bt: &Tensor) -> CandleResult<Tensor> {
        let (b, t) = tokens_bt.dims2()?;
        let hidden = self.hidden(&self.untracked, tokens_bt, None)?;
        self.head(&self.untracked, &hidden)?
            .reshape((b, t, self.spec.vocab_size))
    }

    /// The scores of the token after `tokens`, which continue what `cache` holds; (vocabulary).
    pub(crate) fn next_logits(&self, tokens: &[u32], cache: &mut Cache) -> CandleResult<Tensor> {
        let tokens_bt = Tensor::new(tokens, self.untracked.embedding.device())?.unsqueeze(0)?;
        let hidden = self.hidden(&self.untracked, &tokens_bt, Some(cache))?;
        let last = hidden.narrow(0, tokens.len() - 1, 1)?;
        self.head(&self.untracked, &last)?.squeeze(0)
    }

    fn head(&self, weights: &Weights, hidden_nd: &Tensor) -> CandleResult<Tensor> {
        linear(hidden_nd, weights.head.as_ref().unwrap_or(&weights.embedding))
    }

    /// The final hidden states, normalised: (sequences · length, hidden).
    fn hidden(
        &self,
        weights: &Weights,
        tokens_bt: &Tensor,
        mut cache: Option<&mut Cache>,
    ) -> CandleResult<Tensor> {
        let (sequences, length) = tokens_bt.dims2()?;
        let past = cache.as_ref().map_or(0, |cache| cache.len());
        if past + length > self.spec.max_position_embeddings {
            let (found, bound) = (past + length, self.spec.max_position_embeddings);
            candle_core::bail!(
                "a sequence of {found} tokens is longer than max_position_embeddings = {bound}"
            );
        }
        let eps = self.spec.rms_norm_eps;
        let mut x_nd = weights.embedding.index_select(&tokens_bt.flatten_all()?, 0)?;
        for (index, block) in weights.blocks.iter().enumerate() {
            let z_nd = rms_norm(&x_nd, &block.input_norm, eps)?;
            let cache = cache.as_deref_mut().map(|cache| (cache, index));
            let y_nd = self.attend(block, &z_nd, (sequences, length, past), cache)?;
            x_nd = (x_nd + linear(&y_nd, &block.output)?)?;
            let z_nd = rms_norm(&x_nd, &block.post_norm, eps)?;
            let y_nf = swiglu(&linear(&z_nd, &block.gate)?, &linear(&z_nd, &block.up)?)?;
            x_nd = (x_nd + linear(&y_nf, &block.down)?)?;
        }
        if let Some(cache) = cache {
            cache.advance(length);
        }
        rms_norm(&x_nd, &weights.norm, eps)
    }

    fn attend(
        &self,
        block: &Block,
        z_nd: &Tensor,
        (sequences, length, past): (usize, usize, usize),
        cache: Option<(&mut Cache, usize)>,
    ) -> CandleResult<Tensor> {
        let project = |weight, heads, turned: bool| {
            let axes = Axes {
                sequences,
                length,
                heads,
            };
            split(&linear(z_nd, weight)?, axes, turned.then_some(&self.rotary), past)
        };
        let (heads, kv_heads) = (self.spec.num_attention_heads, self.spec.num_key_value_heads);
        let q_bhtd = project(&block.query, heads, true)?;
        let k_bhtd = project(&block.key, kv_heads, true)?;
        let v_bhtd = project(&block.value, kv_heads, false)?;
        let (k_bhtd, v_bhtd) = match cache {
            Some((cache, index)) => cache.extend(index, k_bhtd, v_bhtd)?,
            None => (k_bhtd, v_bhtd),
        };
        merge(&attention::attend(&q_bhtd, &k_bhtd, &v_bhtd, past)?)
    }

    fn mean_loss(&self, weights: &Weights, batch: &Batch) -> CandleResult<Tensor> {
        // Not every device checks the indices of a look-up itself.
        let (token, vocabulary) = (batch.largest_token(), self.spec.vocab_size);
        if token as usize >= vocabulary {
            candle_core::bail!(
                "token {token} is outside the vocabulary of {vocabulary}; was the data built for this model?"
            );
        }
        let hidden = self.hidden(weights, batch.inputs(), None)?;
        mean_cross_entropy(&self.head(weights, &hidden)?, batch)
    }
}

impl Model for Llama {
    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn loss(&self, batch: &Batch) -> CandleResult<Tensor> {
        self.mean_loss(&self.tracked, batch)
    }

    fn nll(&self, batch: &Batch) -> CandleResult<f64> {
        let loss = self
            .mean_loss(&self.untracked, batch)?
            .to_dtype(DType::F64)?
            .to_scalar::<f64>()?;
        Ok(loss * batch.tokens() as f64)
    }

    /// The embedding, each block, and the final norm with the head.
    fn buckets(&self) -> Vec<Range<usize>> {
        let mut start = 0;
        let blocks = (0..self.spec.num_hidden_layers).map(|block| 1 + (block + 1) * weights::PER_BLOCK);
        let ends = std::iter::once(1)
            .chain(blocks)
            .chain(std::iter::once(self.parameters.len()));
        ends.map(|end| std::mem::replace(&mut start, end)..end).collect()
    }
}
