//! Causal attention with grouped queries, and the keys and values that generation keeps.

use candle_core::{D, Result, Tensor};

use crate::ops::softmax::{CausalSoftmax, causal_softmax};

/// Queries (b, heads, t, d) over keys and values (b, kv_heads, past + t, d) to (b, heads, t, d).
///
/// Query head `h` uses key head `h / (heads / kv_heads)`, so the queries of a group are stacked as rows of one
/// product and no key is copied.
pub(super) fn attend(q_bhtd: &Tensor, k_bhtd: &Tensor, v_bhtd: &Tensor, past: usize) -> Result<Tensor> {
    let (b, heads, t, d) = q_bhtd.dims4()?;
    let (_, kv_heads, keys, _) = k_bhtd.dims4()?;
    let rows = heads / kv_heads * t;
    let q = q_bhtd.reshape((b * kv_heads, rows, d))?;
    let k = k_bhtd.reshape((b * kv_heads, keys, d))?;
    let v = v_bhtd.reshape((b * kv_heads, keys, d))?;
    let scores = q.matmul(&k.transpose(D::Minus2, D::Minus1)?)?;
    let options = CausalSoftmax {
        scale: 1.0 / (d as f64).sqrt(),
        queries: t,
        past,
    };
    causal_softmax(&scores, options)?
        .matmul(&v)?
        .reshape((b, heads, t, d))
}

/// Keys and values of the tokens so far, per block.
#[derive(Default)]
pub(crate) struct Cache {
    blocks: Vec<(Tensor, Tensor)>,
    len: usize,
}

impl Cache {
    /// Tokens held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Appends the keys and values of block `index` and returns all of them.
    pub(super) fn extend(&mut self, index: usize, k: Tensor, v: Tensor) -> Result<(Tensor, Tensor)> {
        let joined = match self.blocks.get(index) {
            Some((old_k, old_v)) => (Tensor::cat(&[old_k, &k], 2)?, Tensor::cat(&[old_v, &v], 2)?),
            None => (k, v),
        };
        let joined = (joined.0.contiguous()?, joined.1.contiguous()?);
        match self.blocks.get_mut(index) {
            Some(held) => *held = joined.clone(),
            None => self.blocks.push(joined.clone()),
        }
        Ok(joined)
    }

    /// Counts the tokens that every block has now appended.
    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
