//! The arithmetic of a decoder on a CPU, forward and backward, over slices: no tensors, no graph, and once warm no
//! allocation.
//!
//! **The same bits everywhere**: on every processor that this compiles for, with any number of threads. Each result is a
//! function of shapes and values alone, because every sum has a fixed order, multiplications and additions are fused exactly
//! where the code says so, and exponentials and logarithms are ours or `libm`'s, not the system's. (Which NaN comes out
//! of several is the exception.)
//!
//! | module | what |
//! |---|---|
//! | [`isa`] | which instructions there are |
//! | [`matrix`] | matrices in slices |
//! | [`matmul`] | products |
//! | [`attention`] | causal, tiled, with grouped queries |
//! | [`norm`] | RMSNorm |
//! | [`rotary`] | rotary positions |
//! | [`swiglu`] | the gated activation |
//! | [`embedding`] | look-up, and sums by token |
//! | [`head`] | the last product, fused with cross entropy |
//! | [`adamw`] | the norm of a gradient, and the update |
//! | [`numeric`] | sums and exponentials |
//! | [`scratch`] | buffers that are kept |
//! | `parallel` | pieces of work on all threads |

pub mod adamw;
pub mod attention;
pub mod embedding;
pub mod head;
pub mod isa;
pub mod matmul;
pub mod matrix;
pub mod norm;
pub mod numeric;
mod parallel;
pub mod rotary;
pub mod scratch;
pub mod swiglu;

pub use matrix::{Matrix, MatrixMut};
pub use scratch::Buffer;
