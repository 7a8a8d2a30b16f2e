//! Embedding, blocks and head, forth and back.

use std::sync::{Mutex, PoisonError};

use candle_core::{Result, bail};
use lockstep_engine::spec::{ModelSpec, Recompute};

use super::layers::{Layer, Pass, SavedAttention, SavedFeedForward, Work};
use super::memory::Sizes;
use super::ops::Ops;
use super::places::Places;
use crate::batch::Batch;
use crate::network::Gradient;

/// A decoder over some operations.
pub(super) struct Stack<O: Ops> {
    spec: ModelSpec,
    recompute: Recompute,
    ops: O,
    places: Places,
    /// Arrays for batches of one shape, kept from batch to batch.
    room: Mutex<Option<Room<O::Array>>>,
}

/// What the forward of a block saves.
struct SavedBlock<A> {
    attention: SavedAttention<A>,
    feed_forward: SavedFeedForward<A>,
}

/// Arrays for batches of one shape.
struct Room<A> {
    /// Sequences and their length.
    shape: (usize, usize),
    /// The residual stream, and its gradient.
    x: A,
    dx: A,
    /// One for each block; or one for all, if blocks are recomputed.
    blocks: Vec<SavedBlock<A>>,
    /// The argument of each block, if blocks are recomputed.
    inputs: Vec<A>,
    work: Work<A>,
}

impl<O: Ops> Stack<O> {
    pub(super) fn new(spec: &ModelSpec, recompute: Recompute, ops: O) -> Self {
        Self {
            spec: spec.clone(),
            recompute,
            ops,
            places: Places::new(spec),
            room: Mutex::new(None),
        }
    }

    pub(super) fn take(&mut self, weights: &[f32]) -> Result<()> {
        self.ops.take(weights)
    }

    /// Adds the gradient of the mean loss to `gradient`, and returns that loss.
    pub(super) fn accumulate(
        &self,
        weights: &[f32],
        batch: &Batch,
        gradient: &mut dyn Gradient,
    ) -> Result<f32> {
        self.in_room(batch, |room| {
            let pass = self.pass(weights, batch);
            let loss = self.forward(&pass, room, true, Some(gradient))?;
            self.backward(&pass, room, gradient)?;
            Ok((loss / batch.tokens() as f64) as f32)
        })
    }

    /// The sum over targets of the loss.
    pub(super) fn nll(&self, weights: &[f32], batch: &Batch) -> Result<f64> {
        self.in_room(batch, |room| {
            self.forward(&self.pass(weights, batch), room, false, None)
        })
    }

    fn pass<'p>(&'p self, weights: &'p [f32], batch: &'p Batch) -> Pass<'p, O> {
        Pass {
            ops: &self.ops,
            weights,
            batch,
        }
    }

    fn in_room<R>(&self, batch: &Batch, f: impl FnOnce(&mut Room<O::Array>) -> Result<R>) -> Result<R> {
        let (token, vocabulary) = (batch.largest_token(), self.spec.vocab_size);
        if token as usize >= vocabulary {
            bail!(
                "token {token} is outside the vocabulary of {vocabulary}; was the data built for this model?"
            );
        }
        let (length, bound) = (batch.length(), self.spec.max_position_embeddings);
        if length > bound {
            bail!("a sequence of {length} tokens is longer than max_position_embeddings = {bound}");
        }
        let shape = (batch.sequences(), length);
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let room = match &mut *room {
            Some(room) if room.shape == shape => room,
            other => {
                *other = None; // the old ones go before the new ones come
                other.insert(self.new_room(shape)?)
            }
        };
        f(room)
    }

    fn new_room(&self, (sequences, length): (usize, usize)) -> Result<Room<O::Array>> {
        let sizes = Sizes::new(&self.spec);
        let n = sequences * length;
        let array = |cols| self.ops.array(n, cols);
        let block = || {
            Ok(SavedBlock {
                attention: SavedAttention {
                    x: array(sizes.hidden)?,
                    qkv: array(sizes.qkv)?,
                    y: array(sizes.hidden)?,
                    lse: self
                        .ops
                        .array(sequences * self.spec.num_attention_heads, length)?,
                },
                feed_forward: SavedFeedForward {
                    x: array(sizes.hidden)?,
                    gate_up: array(2 * sizes.ffn)?,
                },
            })
        };
        let (blocks, inputs) = match self.recompute {
            Recompute::None => (self.places.blocks.len(), 0),
            Recompute::Block => (1, self.places.blocks.len()),
        };
        Ok(Room {
            shape: (sequences, length),
            x: array(sizes.hidden)?,
            dx: array(sizes.hidden)?,
            blocks: (0..blocks).map(|_| block()).collect::<Result<_>>()?,
            inputs: (0..inputs).map(|_| array(sizes.hidden)).collect::<Result<_>>()?,
            work: Work {
                z: array(sizes.hidden)?,
                dz: array(sizes.hidden)?,
                a: array(sizes.ffn)?,
                dqkv: array(sizes.qkv)?,
            },
        })
    }

    /// The sum of the losses; with a gradient, that of the head is added to it, and `work.dz` is that of its argument.
    fn forward(
        &self,
        pass: &Pass<'_, O>,
        room: &mut Room<O::Array>,
        saves: bool,
        gradient: Option<&mut dyn Gradient>,
    ) -> Result<f64> {
        let Room {
            x,
            blocks,
            inputs,
            work,
            ..
        } = room;
        let Places {
            embedding,
            norm,
            head,
            ..
        } = &self.places;
        self.ops.embed(pass.batch, pass.weight(embedding)?, x)?;
        for (index, (attention, feed_forward)) in self.places.blocks.iter().enumerate() {
            if let Some(input) = inputs.get_mut(index)
                && saves
            {
                self.ops.copy(x, input)?;
            }
            // What is not needed later is written over.
            let place = if saves && inputs.is_empty() { index } else { 0 };
            let saved = &mut blocks[place];
            attention.forward(pass, x, &mut saved.attention, work)?;
            feed_forward.forward(pass, x, &mut saved.feed_forward, work)?;
        }
        self.ops.norm(x, pass.weight(norm)?, &mut work.z)?;
        let gradients = gradient.map(|gradient| (&mut work.dz, gradient.at(head.at.clone())));
        self.ops
            .cross_entropy(pass.batch, &work.z, pass.weight(head)?, gradients)
    }

    fn backward(
        &self,
        pass: &Pass<'_, O>,
        room: &mut Room<O::Array>,
        gradient: &mut dyn Gradient,
    ) -> Result<()> {
        let Room {
            x,
            dx,
            blocks,
            inputs,
            work,
            ..
        } = room;
        let Places { embedding, norm, .. } = &self.places;
        self.ops.clear(dx)?;
        let dw = gradient.at(norm.at.clone());
        self.ops.norm_backward(x, pass.weight(norm)?, &work.dz, dx, dw)?;
        gradient.done(self.places.blocks.len() + 1);
        for (index, (attention, feed_forward)) in self.places.blocks.iter().enumerate().rev() {
            let saved = &mut blocks[if inputs.is_empty() { index } else { 0 }];
            if let Some(input) = inputs.get(index) {
                self.ops.copy(input, x)?;
                attention.forward(pass, x, &mut saved.attention, work)?;
                feed_forward.forward(pass, x, &mut saved.feed_forward, work)?;
            }
            feed_forward.backward(pass, dx, &mut saved.feed_forward, work, gradient)?;
            attention.backward(pass, dx, &mut saved.attention, work, gradient)?;
            gradient.done(index + 1);
        }
        self.ops
            .embed_backward(pass.batch, dx, gradient.at(embedding.at.clone()))?;
        gradient.done(0);
        Ok(())
    }
}
