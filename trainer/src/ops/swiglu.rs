//! The gate of SwiGLU (Shazeer, 2020): `silu(gate) · up`, elementwise.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use rayon::prelude::*;

use super::numeric::sigmoid;
use super::{is_fused, produced, read, read2, slice};

/// Elements of a parallel task.
const BLOCK: usize = 4096;

struct SwiGlu;

/// Two tensors of one shape to a third of it.
pub(crate) fn swiglu(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if is_fused(gate) {
        return gate.contiguous()?.apply_op2(&up.contiguous()?, SwiGlu);
    }
    composed(gate, up)
}

/// The same of candle's own operations.
pub(super) fn composed(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    gate.silu()? * up
}

impl CustomOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (gate, up) = (slice(s1, l1)?, slice(s2, l2)?);
        let mut y = vec![0.0; gate.len()];
        y.par_chunks_mut(BLOCK)
            .zip(gate.par_chunks(BLOCK))
            .zip(up.par_chunks(BLOCK))
            .for_each(|((y, gate), up)| {
                for ((y, &gate), up) in y.iter_mut().zip(gate).zip(up) {
                    *y = gate * sigmoid(gate) * up;
                }
            });
        Ok(produced(y, l1.shape()))
    }

    /// With s = sigmoid(gate): d gate = dy · up · s · (1 + gate · (1 − s)), d up = dy · gate · s.
    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (dgate, dup) = read(dy, |dy| read2(gate, up, |gate, up| backward(gate, up, dy)))??;
        let wrap = |values| Tensor::from_vec(values, gate.shape(), gate.device());
        Ok((Some(wrap(dgate)?), Some(wrap(dup)?)))
    }
}

fn backward(gate: &[f32], up: &[f32], dy: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (mut dgate, mut dup) = (vec![0.0; gate.len()], vec![0.0; gate.len()]);
    let out = dgate.par_chunks_mut(BLOCK).zip(dup.par_chunks_mut(BLOCK));
    let arguments = gate
        .par_chunks(BLOCK)
        .zip(up.par_chunks(BLOCK))
        .zip(dy.par_chunks(BLOCK));
    out.zip(arguments).for_each(|((dgate, dup), ((gate, up), dy))| {
        let out = dgate.iter_mut().zip(dup);
        for ((dgate, dup), ((&gate, up), dy)) in out.zip(gate.iter().zip(up).zip(dy)) {
            let s = sigmoid(gate);
            *dgate = dy * up * (s * (1.0 + gate * (1.0 - s)));
            *dup = dy * (gate * s);
        }
    });
    (dgate, dup)
}
