//! The operations in candle's tensors: on any device that candle has.
//!
//! Every product is of contiguous or transposed matrices, which is what all of candle's backends take. **On a GPU none of
//! this has run yet.**

use std::ops::Range;

use candle_core::{D, DType, Device, Result, Tensor};
use lockstep_engine::spec::ModelSpec;
use lockstep_kernels::embedding;
use lockstep_kernels::head;
use lockstep_kernels::matmul::Into;
use lockstep_kernels::rotary::{Rotary, Turn};

use super::ops::{Attended, Ops};
use crate::batch::Batch;
use crate::tensors;

/// Queries of a tile: scores exist for so many of each head at a time.
const QUERIES: usize = 128;

/// Tensors on a device.
pub(crate) struct Generic {
    spec: ModelSpec,
    device: Device,
    /// All weights.
    flat: Tensor,
    /// (positions, 1, width / 2)
    cos: Tensor,
    sin: Tensor,
}

/// Sequences × heads × length × width.
struct Heads {
    q: Tensor,
    k: Tensor,
    v: Tensor,
}

impl Generic {
    pub(crate) fn new(spec: &ModelSpec, device: &Device) -> Result<Self> {
        let width = spec.hidden_size / spec.num_attention_heads;
        let positions = spec.max_position_embeddings;
        let rotary = Rotary::new(positions, width, spec.rope_theta);
        let table = |values: &[f32]| Tensor::from_slice(values, (positions, 1, width / 2), device);
        Ok(Self {
            spec: spec.clone(),
            device: device.clone(),
            flat: Tensor::zeros(0, DType::F32, device)?,
            cos: table(rotary.cos())?,
            sin: table(rotary.sin())?,
        })
    }

    fn width(&self) -> usize {
        self.spec.hidden_size / self.spec.num_attention_heads
    }

    /// Some heads of all rows: (sequences, count, length, width).
    fn heads(&self, batch: &Batch, rows: &Tensor, first: usize, count: usize) -> Result<Tensor> {
        let width = self.width();
        rows.narrow(1, first * width, count * width)?
            .reshape((batch.sequences(), batch.length(), count, width))?
            .transpose(1, 2)?
            .contiguous()
    }

    /// The inverse of [`Self::heads`].
    fn rows(&self, batch: &Batch, heads_bhtd: &Tensor) -> Result<Tensor> {
        heads_bhtd
            .transpose(1, 2)?
            .contiguous()?
            .reshape((batch.tokens(), heads_bhtd.dim(1)? * self.width()))
    }

    fn split(&self, batch: &Batch, qkv: &Tensor) -> Result<Heads> {
        let (heads, kv) = (self.spec.num_attention_heads, self.spec.num_key_value_heads);
        Ok(Heads {
            q: self.heads(batch, qkv, 0, heads)?,
            k: self.heads(batch, qkv, heads, kv)?,
            v: self.heads(batch, qkv, heads + kv, kv)?,
        })
    }

    /// Rows `queries` of every head, those of a group below each other: (sequences · kv heads, group · queries, width).
    fn tile(&self, heads_bhtd: &Tensor, queries: &Range<usize>) -> Result<Tensor> {
        let (b, h, _, d) = heads_bhtd.dims4()?;
        let kv = self.spec.num_key_value_heads;
        heads_bhtd
            .narrow(2, queries.start, queries.len())?
            .contiguous()?
            .reshape((b * kv, h / kv * queries.len(), d))
    }

    /// The inverse of [`Self::tile`].
    fn untile(&self, batch: &Batch, tile: &Tensor, queries: &Range<usize>) -> Result<Tensor> {
        let heads = self.spec.num_attention_heads;
        tile.reshape((batch.sequences(), heads, queries.len(), tile.dim(D::Minus1)?))
    }

    /// The first `end` keys or values: (sequences · kv heads, end, width).
    fn seen(&self, heads_bhtd: &Tensor, end: usize) -> Result<Tensor> {
        let (b, h, _, d) = heads_bhtd.dims4()?;
        heads_bhtd
            .narrow(2, 0, end)?
            .contiguous()?
            .reshape((b * h, end, d))
    }

    /// Scaled scores of a tile of queries, −∞ where a key is later: (sequences · kv heads, group · queries, keys).
    fn scores(&self, q: &Tensor, k: &Tensor, queries: &Range<usize>) -> Result<Tensor> {
        let group = self.spec.num_attention_heads / self.spec.num_key_value_heads;
        let row =
            |query: usize| (0..queries.end).map(move |key| if key > query { f32::NEG_INFINITY } else { 0.0 });
        let mask: Vec<f32> = (0..group).flat_map(|_| queries.clone().flat_map(row)).collect();
        let mask = Tensor::from_vec(mask, (group * queries.len(), queries.end), &self.device)?;
        let scale = 1.0 / (self.width() as f64).sqrt();
        (q.matmul(&k.t()?)? * scale)?.broadcast_add(&mask)
    }
}

fn tiles(length: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length)
        .step_by(QUERIES)
        .map(move |first| first..(first + QUERIES).min(length))
}

/// `1 / sqrt(mean(x²) + ε)` of each row.
fn inverse(x: &Tensor, eps: f64) -> Result<Tensor> {
    (x.sqr()?.mean_keepdim(D::Minus1)? + eps)?.sqrt()?.recip()
}

impl Ops for Generic {
    type Array = Tensor;
    type Weight<'w> = Tensor;

    fn array(&self, rows: usize, cols: usize) -> Result<Tensor> {
        Tensor::zeros((rows, cols), DType::F32, &self.device)
    }

    fn take(&mut self, weights: &[f32]) -> Result<()> {
        self.flat = Tensor::from_slice(weights, weights.len(), &self.device)?;
        Ok(())
    }

    fn weight<'w>(&'w self, _: &'w [f32], at: Range<usize>, cols: usize) -> Result<Tensor> {
        self.flat
            .narrow(0, at.start, at.len())?
            .reshape((at.len() / cols, cols))
    }

    fn copy(&self, from: &Tensor, to: &mut Tensor) -> Result<()> {
        *to = from.clone();
        Ok(())
    }

    fn clear(&self, x: &mut Tensor) -> Result<()> {
        *x = x.zeros_like()?;
        Ok(())
    }

    fn embed(&self, batch: &Batch, table: Tensor, x: &mut Tensor) -> Result<()> {
        *x = table.index_select(&batch.inputs().flatten_all()?, 0)?;
        Ok(())
    }

    fn embed_backward(&self, batch: &Batch, dx: &Tensor, dtable: &mut [f32]) -> Result<()> {
        tensors::read(dx, |dx| embedding::embed_backward(batch.input_ids(), dx, dtable))
    }

    fn norm(&self, x: &Tensor, w: Tensor, z: &mut Tensor) -> Result<()> {
        let inverse = inverse(x, self.spec.rms_norm_eps)?;
        *z = x.broadcast_mul(&inverse)?.broadcast_mul(&w)?;
        Ok(())
    }

    fn norm_backward(
        &self,
        x: &Tensor,
        w: Tensor,
        dz: &Tensor,
        dx: &mut Tensor,
        dw: &mut [f32],
    ) -> Result<()> {
        let r = inverse(x, self.spec.rms_norm_eps)?;
        let g = dz.broadcast_mul(&w)?;
        let pull = ((&g * x)?.mean_keepdim(D::Minus1)? * r.sqr()?)?;
        let of_x = (g - x.broadcast_mul(&pull)?)?.broadcast_mul(&r)?;
        *dx = (&*dx + of_x)?;
        tensors::add(&(dz * x.broadcast_mul(&r)?)?.sum(0)?, dw)
    }

    fn linear(&self, x: &Tensor, w: Tensor, y: &mut Tensor, into: Into) -> Result<()> {
        let product = x.matmul(&w.t()?)?;
        *y = match into {
            Into::Fresh => product,
            Into::Sum => (&*y + product)?,
        };
        Ok(())
    }

    fn linear_input(&self, dy: &Tensor, w: Tensor, dx: &mut Tensor) -> Result<()> {
        *dx = dy.matmul(&w)?;
        Ok(())
    }

    fn linear_weight(&self, dy: &Tensor, x: &Tensor, dw: &mut [f32]) -> Result<()> {
        tensors::add(&dy.t()?.matmul(x)?, dw)
    }

    fn turn(&self, batch: &Batch, qkv: &mut Tensor, turn: Turn) -> Result<()> {
        let turned = self.spec.num_attention_heads + self.spec.num_key_value_heads;
        let (width, half) = (self.width(), self.width() / 2);
        let x =
            qkv.narrow(1, 0, turned * width)?
                .reshape((batch.sequences(), batch.length(), turned, width))?;
        let (a, b) = (x.narrow(3, 0, half)?, x.narrow(3, half, half)?);
        let (cos, sin) = (
            self.cos.narrow(0, 0, batch.length())?,
            self.sin.narrow(0, 0, batch.length())?,
        );
        let sin = if turn == Turn::Forth { sin } else { sin.neg()? };
        let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
        let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
        let x = Tensor::cat(&[first, second], 3)?.reshape((batch.tokens(), turned * width))?;
        let rest = qkv.narrow(1, turned * width, qkv.dim(1)? - turned * width)?;
        *qkv = Tensor::cat(&[x, rest], 1)?.contiguous()?;
        Ok(())
    }

    fn attention(&self, batch: &Batch, qkv: &Tensor, y: &mut Tensor, lse: &mut Tensor) -> Result<()> {
        let Heads { q, k, v } = self.split(batch, qkv)?;
        let (mut ys, mut lses) = (Vec::new(), Vec::new());
        for queries in tiles(batch.length()) {
            let (k, v) = (self.seen(&k, queries.end)?, self.seen(&v, queries.end)?);
            let scores = self.scores(&self.tile(&q, &queries)?, &k, &queries)?;
            let largest = scores.max_keepdim(D::Minus1)?;
            let p = scores.broadcast_sub(&largest)?.exp()?;
            let total = p.sum_keepdim(D::Minus1)?;
            let y = p.matmul(&v)?.broadcast_div(&total)?;
            ys.push(self.untile(batch, &y, &queries)?);
            lses.push(self.untile(batch, &(largest + total.log()?)?, &queries)?);
        }
        *y = self.rows(batch, &Tensor::cat(&ys, 2)?)?;
        *lse = Tensor::cat(&lses, 2)?;
        Ok(())
    }

    fn attention_backward(
        &self,
        batch: &Batch,
        (qkv, y, lse): Attended<'_, Tensor>,
        dy: &Tensor,
        dqkv: &mut Tensor,
    ) -> Result<()> {
        let heads = self.spec.num_attention_heads;
        let Heads { q, k, v } = self.split(batch, qkv)?;
        let (y, dy) = (self.heads(batch, y, 0, heads)?, self.heads(batch, dy, 0, heads)?);
        let scale = 1.0 / (self.width() as f64).sqrt();
        let length = batch.length();
        let (mut dqs, mut dk, mut dv) = (Vec::new(), k.zeros_like()?, v.zeros_like()?);
        for queries in tiles(length) {
            let (k, v) = (self.seen(&k, queries.end)?, self.seen(&v, queries.end)?);
            let [q, y, dy, lse] = [&q, &y, &dy, lse].map(|of| self.tile(of, &queries));
            let (q, y, dy, lse) = (q?, y?, dy?, lse?);
            let p = self.scores(&q, &k, &queries)?.broadcast_sub(&lse)?.exp()?;
            let pull = (&dy * y)?.sum_keepdim(D::Minus1)?;
            let dp = dy.matmul(&v.t()?)?.broadcast_sub(&pull)?;
            let ds = ((&p * dp)? * scale)?;
            dqs.push(self.untile(batch, &ds.matmul(&k)?, &queries)?);
            let grow = |part: Tensor| {
                part.pad_with_zeros(1, 0, length - queries.end)?
                    .reshape(dk.shape())
            };
            let (of_k, of_v) = (grow(ds.t()?.matmul(&q)?)?, grow(p.t()?.matmul(&dy)?)?);
            (dk, dv) = ((dk + of_k)?, (dv + of_v)?);
        }
        let dq = Tensor::cat(&dqs, 2)?;
        let parts = [
            self.rows(batch, &dq)?,
            self.rows(batch, &dk)?,
            self.rows(batch, &dv)?,
        ];
        *dqkv = Tensor::cat(&parts, 1)?.contiguous()?;
        Ok(())
    }

    fn swiglu(&self, gate_up: &Tensor, a: &mut Tensor) -> Result<()> {
        let width = gate_up.dim(1)? / 2;
        let (gate, up) = (gate_up.narrow(1, 0, width)?, gate_up.narrow(1, width, width)?);
        *a = (gate.contiguous()?.silu()? * up.contiguous()?)?;
        Ok(())
    }

    fn swiglu_backward(&self, gate_up: &mut Tensor, da: &mut Tensor) -> Result<()> {
        let width = gate_up.dim(1)? / 2;
        let (gate, up) = (
            gate_up.narrow(1, 0, width)?.contiguous()?,
            gate_up.narrow(1, width, width)?.contiguous()?,
        );
        // 1 / (1 + e⁻ˣ)
        let s = (gate.neg()?.exp()? + 1.0)?.recip()?;
        let silu = (&gate * &s)?;
        // s · (1 + gate · (1 − s)) = s + silu · (1 − s)
        let slope = (&s + (&silu * s.affine(-1.0, 1.0)?)?)?;
        let dgate = ((&*da * &up)? * slope)?;
        let dup = (&*da * &silu)?;
        *gate_up = Tensor::cat(&[dgate, dup], 1)?.contiguous()?;
        *da = (silu * up)?;
        Ok(())
    }

    fn cross_entropy(
        &self,
        batch: &Batch,
        h: &Tensor,
        w: Tensor,
        mut gradients: Option<(&mut Tensor, &mut [f32])>,
    ) -> Result<f64> {
        let (rows, vocabulary) = (batch.tokens(), w.dim(0)?);
        let targets = batch.targets().flatten_all()?;
        let words = Tensor::arange(0u32, vocabulary as u32, &self.device)?.unsqueeze(0)?;
        let (mut total, mut dhs) = (0.0, Vec::new());
        for first in (0..rows).step_by(head::chunk(vocabulary)) {
            let count = head::chunk(vocabulary).min(rows - first);
            let h = h.narrow(0, first, count)?;
            let targets = targets.narrow(0, first, count)?.unsqueeze(1)?;
            let logits = h.matmul(&w.t()?)?;
            let largest = logits.max_keepdim(D::Minus1)?;
            let p = logits.broadcast_sub(&largest)?.exp()?;
            let sum = p.sum_keepdim(D::Minus1)?;
            let losses = ((largest + sum.log()?)? - logits.gather(&targets, 1)?)?;
            total += losses.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
            if let Some((_, dw)) = &mut gradients {
                let chosen = words.broadcast_eq(&targets)?.to_dtype(DType::F32)?;
                let dlogits = ((p.broadcast_div(&sum)? - chosen)? / rows as f64)?;
                dhs.push(dlogits.matmul(&w)?);
                tensors::add(&dlogits.t()?.matmul(&h)?, dw)?;
            }
        }
        if let Some((dh, _)) = gradients {
            *dh = Tensor::cat(&dhs, 0)?;
        }
        Ok(total)
    }
}
