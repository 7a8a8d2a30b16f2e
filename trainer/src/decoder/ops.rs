//! What a decoder computes with: one small interface, implemented for CPUs and for every device that candle has.

use std::ops::Range;

use candle_core::Result;
use lockstep_kernels::matmul::Into;
use lockstep_kernels::rotary::Turn;

use crate::batch::Batch;

/// What [`Ops::attention`] was given and gave: queries, keys and values; the result; the softmax's denominators.
pub(super) type Attended<'a, A> = (&'a A, &'a A, &'a A);

/// Operations on matrices of activations, each with its backward. Rows are tokens, sequence after sequence.
///
/// Results go where the caller says; gradients of weights are added to parts of the flat buffer on the host. Errors
/// are the device's.
pub(crate) trait Ops: Send + Sync {
    /// A matrix of activations.
    type Array: Send;
    /// A parameter; a matrix is (out, in).
    type Weight<'w>
    where
        Self: 'w;

    /// Room for `rows` × `cols` values.
    fn array(&self, rows: usize, cols: usize) -> Result<Self::Array>;

    /// Learns that the flat weights have changed.
    fn take(&mut self, weights: &[f32]) -> Result<()>;

    /// A part of the flat weights: rows of `cols` values.
    fn weight<'w>(&'w self, weights: &'w [f32], at: Range<usize>, cols: usize) -> Result<Self::Weight<'w>>;

    /// `to = from`.
    fn copy(&self, from: &Self::Array, to: &mut Self::Array) -> Result<()>;

    /// `x = 0`.
    fn clear(&self, x: &mut Self::Array) -> Result<()>;

    /// `x`: the row of `table` of each input.
    fn embed(&self, batch: &Batch, table: Self::Weight<'_>, x: &mut Self::Array) -> Result<()>;

    /// Adds each row of `dx` to its token's.
    fn embed_backward(&self, batch: &Batch, dx: &Self::Array, dtable: &mut [f32]) -> Result<()>;

    /// `z`: RMSNorm of `x`.
    fn norm(&self, x: &Self::Array, w: Self::Weight<'_>, z: &mut Self::Array) -> Result<()>;

    /// Adds to `dx`, the gradient of the residual stream, and to `dw`.
    fn norm_backward(
        &self,
        x: &Self::Array,
        w: Self::Weight<'_>,
        dz: &Self::Array,
        dx: &mut Self::Array,
        dw: &mut [f32],
    ) -> Result<()>;

    /// `y = x · wᵀ`, or added to `y`.
    fn linear(&self, x: &Self::Array, w: Self::Weight<'_>, y: &mut Self::Array, into: Into) -> Result<()>;

    /// `dx = dy · w`.
    fn linear_input(&self, dy: &Self::Array, w: Self::Weight<'_>, dx: &mut Self::Array) -> Result<()>;

    /// `dw += dyᵀ · x`.
    fn linear_weight(&self, dy: &Self::Array, x: &Self::Array, dw: &mut [f32]) -> Result<()>;

    /// Turns queries and keys by their positions, or back.
    fn turn(&self, batch: &Batch, qkv: &mut Self::Array, turn: Turn) -> Result<()>;

    /// Causal attention of each sequence. `lse` (sequences · heads, length) is for the backward.
    fn attention(
        &self,
        batch: &Batch,
        qkv: &Self::Array,
        y: &mut Self::Array,
        lse: &mut Self::Array,
    ) -> Result<()>;

    /// `dqkv` of `dy`.
    fn attention_backward(
        &self,
        batch: &Batch,
        forward: Attended<'_, Self::Array>,
        dy: &Self::Array,
        dqkv: &mut Self::Array,
    ) -> Result<()>;

    /// `a = silu(gate) · up`.
    fn swiglu(&self, gate_up: &Self::Array, a: &mut Self::Array) -> Result<()>;

    /// Turns `gate_up` into its gradient, and the gradient of `a` into `a`.
    fn swiglu_backward(&self, gate_up: &mut Self::Array, da: &mut Self::Array) -> Result<()>;

    /// Sum over targets of the cross entropy of `h · wᵀ`, in nats. With `gradients`, those of the mean: `dh` is
    /// replaced, the weights' is added to.
    fn cross_entropy(
        &self,
        batch: &Batch,
        h: &Self::Array,
        w: Self::Weight<'_>,
        gradients: Option<(&mut Self::Array, &mut [f32])>,
    ) -> Result<f64>;
}
