//! The model's operations, each with a backward.
//!
//! On a CPU in `f32` they are fused loops: parallel over independent rows, every sum in an order fixed by the
//! shape alone, so that the bits do not depend on the number of threads. Elsewhere each is composed of candle's
//! own operations, which is also what the tests compare it with.
//!
//! | module | operation |
//! |---|---|
//! | [`linear`] | `x · wᵀ` |
//! | [`norm`] | RMSNorm |
//! | [`heads`] | split into heads, with rotary positions, and merge |
//! | [`softmax`] | scaled causal softmax |
//! | [`swiglu`] | `silu(gate) · up` |
//! | [`loss`] | cross entropy |

pub(crate) mod heads;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod norm;
pub(crate) use lockstep_kernels::numeric;
pub(crate) mod softmax;
pub(crate) mod swiglu;
#[cfg(test)]
mod tests;

use candle_core::{CpuStorage, DType, Layout, Result, Shape, Storage, Tensor, bail};

/// Rows of a parallel task: enough work to pay for handing it over.
pub(crate) const ROWS_PER_TASK: usize = 16;

/// Whether the fused loops apply.
pub(crate) fn is_fused(x: &Tensor) -> bool {
    x.device().is_cpu() && x.dtype() == DType::F32
}

/// The values of a contiguous `f32` tensor on the CPU.
pub(crate) fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(&storage.as_slice::<f32>()?[start..end]),
        None => bail!("a fused operation was given a strided tensor"),
    }
}

/// Reads the values of an `f32` tensor on the CPU in place; copies only what is strided.
pub(crate) fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => bail!("a fused operation was given a tensor of another device"),
    }
}

/// Two at once.
pub(crate) fn read2<R>(a: &Tensor, b: &Tensor, f: impl FnOnce(&[f32], &[f32]) -> R) -> Result<R> {
    read(a, |a| read(b, |b| f(a, b)))?
}

/// Wraps what a fused loop produced.
pub(crate) fn produced(values: Vec<f32>, shape: impl Into<Shape>) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), shape.into())
}
