//! Splitting a projection into heads, turning them by rotary positions (Su et al., "RoFormer", 2021, in the
//! half-split pairing that Hugging Face's weights have), and merging them again.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::{ROWS_PER_TASK, is_fused, produced, read, slice};

/// Sines and cosines of all positions.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    cos: Arc<[f32]>,
    sin: Arc<[f32]>,
    cos_th: Tensor,
    sin_th: Tensor,
}

impl Rotary {
    /// The angle of pair `i` at position `p` is `p · theta^(−2i / width)`, computed in f64.
    pub(crate) fn new(
        positions: usize,
        width: usize,
        theta: f64,
        dtype: DType,
        device: &Device,
    ) -> Result<Self> {
        let half = width / 2;
        let angle = |p: usize, i: usize| p as f64 * theta.powf(-2.0 * i as f64 / width as f64);
        let angles: Vec<f64> = (0..positions)
            .flat_map(|p| (0..half).map(move |i| angle(p, i)))
            .collect();
        let table = |f: fn(f64) -> f64| angles.iter().map(|&a| f(a)).collect::<Vec<f64>>();
        let (cos, sin) = (table(f64::cos), table(f64::sin));
        let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Arc<[f32]>>();
        let tensor = |values: Vec<f64>| Tensor::from_vec(values, (positions, half), &Device::Cpu);
        Ok(Self {
            cos: narrow(&cos),
            sin: narrow(&sin),
            cos_th: tensor(cos)?.to_dtype(dtype)?.to_device(device)?,
            sin_th: tensor(sin)?.to_dtype(dtype)?.to_device(device)?,
        })
    }
}

/// The axes of a split: `sequences` × `length` rows of `heads` heads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Axes {
    pub(crate) sequences: usize,
    pub(crate) length: usize,
    pub(crate) heads: usize,
}

/// `x` (sequences · length, heads · width) to (sequences, heads, length, width); with `rotary`, turned by the
/// positions from `past` on.
pub(crate) fn split(x: &Tensor, axes: Axes, rotary: Option<&Rotary>, past: usize) -> Result<Tensor> {
    if is_fused(x) {
        return x.contiguous()?.apply_op1(Split {
            axes,
            rotary: rotary.cloned(),
            past,
        });
    }
    composed_split(x, axes, rotary, past)
}

/// (sequences, heads, length, width) to (sequences · length, heads · width).
pub(crate) fn merge(x_bhtd: &Tensor) -> Result<Tensor> {
    if is_fused(x_bhtd) {
        return x_bhtd.contiguous()?.apply_op1(Merge);
    }
    composed_merge(x_bhtd)
}

/// The same of candle's own operations.
pub(super) fn composed_split(x: &Tensor, axes: Axes, rotary: Option<&Rotary>, past: usize) -> Result<Tensor> {
    let Axes {
        sequences,
        length,
        heads,
    } = axes;
    let width = x.dim(D::Minus1)? / heads;
    let x_bhtd = x
        .reshape((sequences, length, heads, width))?
        .transpose(1, 2)?
        .contiguous()?;
    let Some(rotary) = rotary else { return Ok(x_bhtd) };
    let half = width / 2;
    let (cos, sin) = (
        rotary.cos_th.narrow(0, past, length)?,
        rotary.sin_th.narrow(0, past, length)?,
    );
    let (a, b) = (
        x_bhtd.narrow(D::Minus1, 0, half)?,
        x_bhtd.narrow(D::Minus1, half, half)?,
    );
    let first = (a.broadcast_mul(&cos)? - b.broadcast_mul(&sin)?)?;
    let second = (b.broadcast_mul(&cos)? + a.broadcast_mul(&sin)?)?;
    Tensor::cat(&[first, second], D::Minus1)?.contiguous()
}

/// The same of candle's own operations.
pub(super) fn composed_merge(x_bhtd: &Tensor) -> Result<Tensor> {
    let (b, h, t, d) = x_bhtd.dims4()?;
    x_bhtd.transpose(1, 2)?.contiguous()?.reshape((b * t, h * d))
}

struct Split {
    axes: Axes,
    rotary: Option<Rotary>,
    past: usize,
}

impl CustomOp1 for Split {
    fn name(&self) -> &'static str {
        "split-heads"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let Axes {
            sequences,
            length,
            heads,
        } = self.axes;
        let width = x.len() / (sequences * length * heads);
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(length * width)
            .enumerate()
            .for_each(|(i, y_td)| {
                let (b, h) = (i / heads, i % heads);
                for (t, y) in y_td.chunks_exact_mut(width).enumerate() {
                    let at = ((b * length + t) * heads + h) * width;
                    let x = &x[at..at + width];
                    match &self.rotary {
                        None => y.copy_from_slice(x),
                        Some(rotary) => turn(y, x, rotary, self.past + t, 1.0),
                    }
                }
            });
        Ok(produced(y, (sequences, heads, length, width)))
    }

    /// The inverse of the permutation and of the rotation, which is orthogonal.
    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let Axes { length, heads, .. } = self.axes;
        let dx = read(dy, |dy| {
            let width = dy.len() / (self.axes.sequences * length * heads);
            let mut dx = vec![0.0; dy.len()];
            dx.par_chunks_mut(heads * width)
                .enumerate()
                .with_min_len(ROWS_PER_TASK)
                .for_each(|(row, dx)| {
                    let (b, t) = (row / length, row % length);
                    for (h, dx) in dx.chunks_exact_mut(width).enumerate() {
                        let at = ((b * heads + h) * length + t) * width;
                        let dy = &dy[at..at + width];
                        match &self.rotary {
                            None => dx.copy_from_slice(dy),
                            Some(rotary) => turn(dx, dy, rotary, self.past + t, -1.0),
                        }
                    }
                });
            dx
        })?;
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// Turns one head at one position, forth (`sign` 1) or back (−1).
fn turn(y: &mut [f32], x: &[f32], rotary: &Rotary, position: usize, sign: f32) {
    let half = x.len() / 2;
    let range = position * half..(position + 1) * half;
    let (cos, sin) = (&rotary.cos[range.clone()], &rotary.sin[range]);
    let ((y_a, y_b), (x_a, x_b)) = (y.split_at_mut(half), x.split_at(half));
    for i in 0..half {
        let (c, s) = (cos[i], sign * sin[i]);
        y_a[i] = x_a[i] * c - x_b[i] * s;
        y_b[i] = x_b[i] * c + x_a[i] * s;
    }
}

struct Merge;

impl CustomOp1 for Merge {
    fn name(&self) -> &'static str {
        "merge-heads"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let (sequences, heads, length, width) = layout.shape().dims4()?;
        let mut y = vec![0.0; x.len()];
        y.par_chunks_mut(heads * width)
            .enumerate()
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(row, y)| {
                let (b, t) = (row / length, row % length);
                for (h, y) in y.chunks_exact_mut(width).enumerate() {
                    let at = ((b * heads + h) * length + t) * width;
                    y.copy_from_slice(&x[at..at + width]);
                }
            });
        Ok(produced(y, (sequences * length, heads * width)))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        let (sequences, heads, length, _) = x.dims4()?;
        split(
            &dy.detach(),
            Axes {
                sequences,
                length,
                heads,
            },
            None,
            0,
        )
        .map(Some)
    }
}
