//! The two halves of a block, each of which adds to the residual stream: `x += f(norm(x))`.

use std::ops::Range;

use candle_core::Result;
use lockstep_kernels::matmul::Into;
use lockstep_kernels::rotary::Turn;

use super::ops::Ops;
use crate::batch::Batch;
use crate::network::Gradient;

/// What a pass over the layers has at hand.
pub(super) struct Pass<'p, O: Ops> {
    pub(super) ops: &'p O,
    /// The flat weights.
    pub(super) weights: &'p [f32],
    pub(super) batch: &'p Batch,
}

/// Where a parameter, or several that are one matrix, lies in the flat buffers.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) at: Range<usize>,
    /// Values of a row.
    pub(super) cols: usize,
}

impl<'p, O: Ops> Pass<'p, O> {
    pub(super) fn weight(&self, place: &Place) -> Result<O::Weight<'p>> {
        self.ops.weight(self.weights, place.at.clone(), place.cols)
    }
}

/// Arrays that layers use one after the other.
pub(super) struct Work<A> {
    /// What a norm gives: (n, hidden).
    pub(super) z: A,
    /// A gradient of the same shape.
    pub(super) dz: A,
    /// Inside of the SwiGLU: (n, intermediate).
    pub(super) a: A,
    /// Gradients of queries, keys and values.
    pub(super) dqkv: A,
}

/// A part of the model with a forward and a backward.
pub(super) trait Layer<O: Ops> {
    /// What the backward needs of the forward.
    type Saved;

    /// Adds to `x`, and saves what the backward needs.
    fn forward(
        &self,
        pass: &Pass<'_, O>,
        x: &mut O::Array,
        saved: &mut Self::Saved,
        work: &mut Work<O::Array>,
    ) -> Result<()>;

    /// Turns the gradient `dx` of the forward's result into that of its argument, and adds the weights' gradients
    /// to `gradient`. What was saved is used up.
    fn backward(
        &self,
        pass: &Pass<'_, O>,
        dx: &mut O::Array,
        saved: &mut Self::Saved,
        work: &mut Work<O::Array>,
        gradient: &mut dyn Gradient,
    ) -> Result<()>;
}

/// Attention, and where its weights are. Those of queries, keys and values are one matrix.
pub(super) struct Attention {
    pub(super) norm: Place,
    pub(super) qkv: Place,
    pub(super) output: Place,
}

/// What [`Attention`] saves.
pub(super) struct SavedAttention<A> {
    pub(super) x: A,
    pub(super) qkv: A,
    pub(super) y: A,
    pub(super) lse: A,
}

impl<O: Ops> Layer<O> for Attention {
    type Saved = SavedAttention<O::Array>;

    fn forward(
        &self,
        pass: &Pass<'_, O>,
        x: &mut O::Array,
        saved: &mut Self::Saved,
        work: &mut Work<O::Array>,
    ) -> Result<()> {
        let Pass { ops, batch, .. } = *pass;
        ops.copy(x, &mut saved.x)?;
        ops.norm(x, pass.weight(&self.norm)?, &mut work.z)?;
        ops.linear(&work.z, pass.weight(&self.qkv)?, &mut saved.qkv, Into::Fresh)?;
        ops.turn(batch, &mut saved.qkv, Turn::Forth)?;
        ops.attention(batch, &saved.qkv, &mut saved.y, &mut saved.lse)?;
        ops.linear(&saved.y, pass.weight(&self.output)?, x, Into::Sum)
    }

    fn backward(
        &self,
        pass: &Pass<'_, O>,
        dx: &mut O::Array,
        saved: &mut Self::Saved,
        work: &mut Work<O::Array>,
        gradient: &mut dyn Gradient,
    ) -> Result<()> {
        let Pass { ops, batch, .. } = *pass;
        let SavedAttention { x, qkv, y, lse } = saved;
        ops.linear_weight(dx, y, gradient.at(self.output.at.clone()))?;
        ops.linear_input(dx, pass.weight(&self.output)?, &mut work.dz)?;
        ops.attention_backward(batch, (qkv, y, lse), &work.dz, &mut work.dqkv)?;
        ops.turn(batch, &mut work.dqkv, Turn::Back)?;
        ops.norm(x, pass.weight(&self.norm)?, &mut work.z)?;
        ops.linear_weight(&work.dqkv, &work.z, gradient.at(self.qkv.at.clone()))?;
        ops.linear_input(&work.dqkv, pass.weight(&self.qkv)?, &mut work.dz)?;
        let dw = gradient.at(self.norm.at.clone());
        ops.norm_backward(x, pass.weight(&self.norm)?, &work.dz, dx, dw)
    }
}

/// The gated feed-forward, and where its weights are. Those of gates and ups are one matrix.
pub(super) struct FeedForward {
    pub(super) norm: Place,
    pub(super) gate_up: Place,
    pub(super) down: Place,
}

/// What [`FeedForward`] saves.
pub(super) struct SavedFeedForward<A> {
    pub(super) x: A,
    pub(super) gate_up: A,
}

impl<O: Ops> Layer<O> for FeedForward {
    type Saved = SavedFeedForward<O::Array>;

    fn forward(
        &self,
        pass: &Pass<'_, O>,
        x: &mut O::Array,
        saved: &mut Self::Saved,
        work: &mut Work<O::Array>,
    ) -> Result<()> {
        let ops = pass.ops;
        ops.copy(x, &mut saved.x)?;
        ops.norm(x, pass.weight(&self.norm)?, &mut work.z)?;
        let gate_up = pass.weight(&self.gate_up)?;
        ops.linear(&work.z, gate_up, &mut saved.gate_up, Into::Fresh)?;
        ops.swiglu(&saved.gate_up, &mut work.a)?;
        ops.linear(&work.a, pass.weight(&self.down)?, x, Into::Sum)
    }

    fn backward(
        &self,
        pass: &Pass<'_, O>,
        dx: &mut O::Array,
        saved: &mut Self::Saved,
        work: &mut Work<O::Array>,
        gradient: &mut dyn Gradient,
    ) -> Result<()> {
        let ops = pass.ops;
        let SavedFeedForward { x, gate_up } = saved;
        ops.linear_input(dx, pass.weight(&self.down)?, &mut work.a)?;
        ops.swiglu_backward(gate_up, &mut work.a)?;
        ops.linear_weight(dx, &work.a, gradient.at(self.down.at.clone()))?;
        ops.norm(x, pass.weight(&self.norm)?, &mut work.z)?;
        ops.linear_weight(gate_up, &work.z, gradient.at(self.gate_up.at.clone()))?;
        ops.linear_input(gate_up, pass.weight(&self.gate_up)?, &mut work.dz)?;
        let dw = gradient.at(self.norm.at.clone());
        ops.norm_backward(x, pass.weight(&self.norm)?, &work.dz, dx, dw)
    }
}
