//! The built-in model's fast path: the Llama architecture (see [`crate::llama`]) with a forward and a backward of its
//! own, layer by layer, straight into the flat gradient.
//!
//! | module | what |
//! |---|---|
//! | `stack` | embedding, blocks and head, forth and back |
//! | `layers` | the two halves of a block |
//! | `places` | where its parameters lie in the flat buffers |
//! | `ops` | the operations that they need |
//! | `cpu` | those on a CPU, by kernels |
//! | `generic` | those of candle's tensors, on any device |
//! | [`memory`] | what its activations take |
//! | `peak` | what its products reach by themselves |

mod cpu;
mod generic;
mod layers;
pub mod memory;
mod ops;
mod peak;
mod places;
mod stack;

use candle_core::Device;
use lockstep_engine::spec::{ModelSpec, Recompute};

use crate::batch::Batch;
use crate::error::{ComputeContext, Result};
use crate::layout::Layout;
use crate::llama::init;
use crate::network::{Flat, Gradient, Network};
use cpu::Cpu;
use generic::Generic;
pub use peak::peak_gflops;
pub use places::layout;
use stack::Stack;

/// A Llama-architecture decoder in training.
pub struct Decoder {
    spec: ModelSpec,
    seed: u64,
    stack: Stacks,
}

/// Which operations it uses is decided once, by the device.
enum Stacks {
    Cpu(Box<Stack<Cpu>>),
    Generic(Box<Stack<Generic>>),
}

impl Decoder {
    /// A decoder on `device`, whose initial weights are those of [`Llama::new`](crate::Llama::new).
    ///
    /// # Errors
    /// [`TrainerError::Compute`](crate::TrainerError::Compute) when the device has no room.
    pub fn new(spec: &ModelSpec, seed: u64, recompute: Recompute, device: &Device) -> Result<Self> {
        if !device.is_cpu() {
            return Self::generic(spec, seed, recompute, device);
        }
        Ok(Self {
            spec: spec.clone(),
            seed,
            stack: Stacks::Cpu(Box::new(Stack::new(spec, recompute, Cpu::new(spec)))),
        })
    }

    /// The same in candle's operations, on any device.
    ///
    /// # Errors
    /// As [`Decoder::new`].
    pub fn generic(spec: &ModelSpec, seed: u64, recompute: Recompute, device: &Device) -> Result<Self> {
        let ops = Generic::new(spec, device).doing("make the rotary tables")?;
        Ok(Self {
            spec: spec.clone(),
            seed,
            stack: Stacks::Generic(Box::new(Stack::new(spec, recompute, ops))),
        })
    }
}

impl Network for Decoder {
    fn layout(&self) -> Result<Layout> {
        layout(&self.spec)
    }

    fn initial(&self, layout: &Layout) -> Result<Vec<f32>> {
        let mut weights = layout.zeros();
        for parameter in layout.parameters() {
            let values = init::weights(&self.spec, self.seed, &parameter.name, &parameter.shape);
            weights[parameter.range.clone()].copy_from_slice(&values);
        }
        Ok(weights)
    }

    fn take(&mut self, flat: Flat<'_>) -> Result<()> {
        let taken = match &mut self.stack {
            Stacks::Cpu(stack) => stack.take(flat.weights),
            Stacks::Generic(stack) => stack.take(flat.weights),
        };
        taken.doing("move weights to the device")
    }

    fn accumulate(&self, flat: Flat<'_>, batch: &Batch, gradient: &mut dyn Gradient) -> Result<f32> {
        let loss = match &self.stack {
            Stacks::Cpu(stack) => stack.accumulate(flat.weights, batch, gradient),
            Stacks::Generic(stack) => stack.accumulate(flat.weights, batch, gradient),
        };
        loss.doing("compute the gradient")
    }

    fn nll(&self, flat: Flat<'_>, batch: &Batch) -> Result<f64> {
        let loss = match &self.stack {
            Stacks::Cpu(stack) => stack.nll(flat.weights, batch),
            Stacks::Generic(stack) => stack.nll(flat.weights, batch),
        };
        loss.doing("evaluate a batch")
    }
}
