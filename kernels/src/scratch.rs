//! Buffers that threads keep from call to call.

/// Makes `values` at least `len` long. What it held is gone if it was shorter: the old one goes before the new one comes.
pub(crate) fn grow(values: &mut Vec<f32>, len: usize) {
    if values.len() < len {
        *values = Vec::new();
        *values = vec![0.0; len];
    }
}
