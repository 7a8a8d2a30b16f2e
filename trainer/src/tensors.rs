//! Reading candle's tensors on the host.

use candle_core::{CpuStorage, DType, Result, Storage, Tensor};

/// Reads the values of a tensor as `f32`: in place if they are that, lie one after the other and on the host.
pub(crate) fn read<R>(tensor: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.to_dtype(DType::F32)?.contiguous()?;
    let (storage, place) = tensor.storage_and_layout();
    if let (Storage::Cpu(CpuStorage::F32(values)), Some((start, end))) =
        (&*storage, place.contiguous_offsets())
    {
        return Ok(f(&values[start..end]));
    }
    drop(storage);
    Ok(f(&tensor.flatten_all()?.to_vec1()?))
}

/// Adds the values of a tensor to `into`.
pub(crate) fn add(tensor: &Tensor, into: &mut [f32]) -> Result<()> {
    read(tensor, |values| {
        for (sum, value) in into.iter_mut().zip(values) {
            *sum += value;
        }
    })
}
