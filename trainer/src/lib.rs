//! Model, optimizer, flat parameters, checkpoints and export, on candle.
//!
//! A [`Trainer`] owns a [`Model`] and its [`State`]: [`accumulate`](Trainer::accumulate) adds a microbatch's
//! gradient to a flat buffer, [`apply`](Trainer::apply) takes a step with a reduced one. Both give the same bits
//! from the same bits, whatever the number of threads: that is what makes the result of a run independent of who
//! computed what.
//!
//! | module | what |
//! |---|---|
//! | [`network`] | what is trained |
//! | [`model`] | bring your own: through candle's autograd |
//! | [`decoder`] | the built-in model, with a forward and backward of its own |
//! | [`llama`] | the same in candle, for inference and as the reference |
//! | `ops` | its operations, with fused CPU loops |
//! | [`batch`] | tokens in, next tokens out |
//! | [`layout`] | where each parameter lies in the flat buffers; buckets |
//! | [`state`] | weights, moments, step |
//! | [`trainer`] | accumulate, apply, restore, evaluate |
//! | [`adamw`] | the optimizer and the norm |
//! | [`schedule`] | the learning rate |
//! | [`checkpoint`] | write, verify, load, prune |
//! | [`export`] | Hugging Face's layout |
//! | [`numerics`] | which bits this build computes |
//! | [`memory`] | what a process takes, by plan |
//! | [`generate`] | text from an exported model |
//! | [`device`] | CPU or GPU |
//! | [`error`] | what can go wrong |

pub mod adamw;
pub mod batch;
pub mod checkpoint;
pub mod decoder;
pub mod device;
pub mod error;
pub mod export;
pub mod generate;
pub mod layout;
pub mod llama;
pub mod memory;
pub mod model;
pub mod network;
pub mod numerics;
pub mod schedule;
pub mod state;
pub mod trainer;

mod files;
mod ops;
mod tensor_file;
mod tensors;
#[cfg(test)]
mod testing;

pub use batch::Batch;
pub use decoder::Decoder;
pub use device::DeviceName;
pub use error::TrainerError;
pub use export::Export;
pub use generate::{Finish, Generated, Generator, Sampling};
pub use layout::{Layout, Parameter};
pub use llama::Llama;
pub use lockstep_kernels::isa;
pub use model::Model;
pub use network::{Flat, Gradient, Network};
pub use schedule::Schedule;
pub use state::State;
pub use trainer::{Applied, Evaluation, Trainer};

// What signatures of this crate mention.
pub use candle_core::{DType, Device, Tensor, Var};
