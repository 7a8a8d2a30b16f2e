//! The model with its optimizer, over flat buffers.

use lockstep_engine::ids::Step;
use lockstep_engine::spec::OptimSpec;

use crate::adamw;
use crate::batch::Batch;
use crate::error::{Result, TrainerError};
use crate::layout::Layout;
use crate::network::{Flat, Gradient, Network};
use crate::schedule::Schedule;
use crate::state::State;

/// A model in training.
///
/// [`accumulate`](Self::accumulate) and [`apply`](Self::apply) are deterministic: the same bits from the same
/// bits, whatever the number of threads.
pub struct Trainer<N> {
    model: N,
    layout: Layout,
    state: State,
    optim: OptimSpec,
    schedule: Schedule,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Applied {
    /// The learning rate used.
    pub learning_rate: f64,
    /// The global norm of the scaled gradient, before clipping.
    pub grad_norm: f64,
}

/// How well a model predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Sum over all targets, in nats.
    pub nll: f64,
    /// Targets.
    pub tokens: u64,
}

impl Evaluation {
    /// Nats per token; 0 when there were none.
    #[must_use]
    pub fn loss(&self) -> f64 {
        self.nll / self.tokens.max(1) as f64
    }

    /// Bits per byte of a text of `bytes` bytes, to compare models of different tokenizers.
    #[must_use]
    pub fn bits_per_byte(&self, bytes: u64) -> f64 {
        self.nll / std::f64::consts::LN_2 / bytes.max(1) as f64
    }
}

impl<N: Network> Trainer<N> {
    /// Takes a network with its initial weights.
    ///
    /// # Errors
    /// [`TrainerError::Shape`] when a parameter is not `f32` or the layout is invalid, [`TrainerError::Compute`] from
    /// the device.
    pub fn new(model: N, optim: &OptimSpec, schedule: Schedule) -> Result<Self> {
        let layout = model.layout()?;
        let weights = model.initial(&layout)?;
        let mut trainer = Self {
            model,
            layout,
            state: State::initial(weights),
            optim: optim.clone(),
            schedule,
        };
        trainer.fill_model()?;
        Ok(trainer)
    }

    /// The model, with the current weights.
    #[must_use]
    pub fn model(&self) -> &N {
        &self.model
    }

    /// Where each parameter lies in the flat buffers.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The current state; a clone is a snapshot.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// BLAKE3 in hexadecimal over the weights' little-endian bytes, in the layout's order.
    #[must_use]
    pub fn weights_digest(&self) -> String {
        self.state.weights_digest()
    }

    /// Adds the gradient of the mean loss of `batch` to `gradient`, elementwise, and returns that loss.
    ///
    /// Starting from zeros, microbatch after microbatch, this is the left fold that a lane is made of.
    ///
    /// # Errors
    /// [`TrainerError::Length`], [`TrainerError::NoGradient`], [`TrainerError::Compute`].
    pub fn accumulate(&self, batch: &Batch, gradient: &mut [f32]) -> Result<f32> {
        self.layout.check("the gradient", gradient.len())?;
        let mut gradient = gradient;
        self.accumulate_in_buckets(batch, &mut gradient)
    }

    /// The same, to a gradient that hears of each bucket as soon as it is done.
    ///
    /// # Errors
    /// [`TrainerError::NoGradient`], [`TrainerError::Compute`].
    pub fn accumulate_in_buckets(&self, batch: &Batch, gradient: &mut dyn Gradient) -> Result<f32> {
        self.model.accumulate(self.flat(), batch, gradient)
    }

    /// Takes one step: multiplies `gradient` by `scale` (one over the number of microbatches in it), clips it to
    /// `optim.clip`, updates weights and moments, and moves the weights into the model.
    ///
    /// # Errors
    /// [`TrainerError::Length`] and [`TrainerError::NonFiniteGradient`], both before anything is changed;
    /// [`TrainerError::Compute`] when the device fails while taking the weights: restore a state then.
    pub fn apply(&mut self, gradient: &[f32], scale: f32) -> Result<Applied> {
        self.layout.check("the gradient", gradient.len())?;
        let step = self.state.step.next();
        let grad_norm = adamw::norm(gradient) * f64::from(scale).abs();
        if !grad_norm.is_finite() {
            return Err(TrainerError::NonFiniteGradient { step: step.0 });
        }
        let clip = self.optim.clip;
        let scale = if clip > 0.0 && grad_norm > clip {
            (f64::from(scale) * (clip / grad_norm)) as f32
        } else {
            scale
        };
        let learning_rate = self.schedule.rate(step);
        self.state.step = step;
        adamw::update(
            &mut self.state,
            &self.layout,
            gradient,
            scale,
            &self.optim,
            learning_rate,
        );
        self.fill_model()?;
        Ok(Applied {
            learning_rate,
            grad_norm,
        })
    }

    /// Takes the steps up to `step` without a gradient: the state stays as it is, under another number.
    pub fn skip(&mut self, step: Step) {
        self.state.step = step;
    }

    /// Replaces the state, as after loading a checkpoint or fetching a snapshot.
    ///
    /// # Errors
    /// [`TrainerError::Length`], before anything is changed; [`TrainerError::Compute`].
    pub fn restore(&mut self, state: State) -> Result<()> {
        self.layout.check("the weights", state.weights.len())?;
        self.layout.check("the first moment", state.first.len())?;
        self.layout.check("the second moment", state.second.len())?;
        self.state = state;
        self.fill_model()
    }

    /// Scores the model on `batches`.
    ///
    /// # Errors
    /// Those of the batches, and [`TrainerError::Compute`].
    pub fn evaluate(&self, batches: impl IntoIterator<Item = Result<Batch>>) -> Result<Evaluation> {
        let mut total = Evaluation { nll: 0.0, tokens: 0 };
        for batch in batches {
            let batch = batch?;
            total.nll += self.model.nll(self.flat(), &batch)?;
            total.tokens += batch.tokens() as u64;
        }
        Ok(total)
    }

    fn flat(&self) -> Flat<'_> {
        Flat {
            layout: &self.layout,
            weights: &self.state.weights,
        }
    }

    fn fill_model(&mut self) -> Result<()> {
        self.model.take(Flat {
            layout: &self.layout,
            weights: &self.state.weights,
        })
    }
}
