//! What training takes of a process's memory, by plan.

use lockstep_engine::spec::Spec;

use crate::decoder::memory;

/// Program, stacks, tables and packed panels: what a process has whatever the model is.
const BASE: u64 = 24 << 20;
/// Copies of all parameters: weights and two moments.
const STATE: u64 = 3;

/// Bytes that a rank's process takes on one thread when it is alone, and so has most to do: the state, gradients,
/// activations. Other members take some more. A state that is fed to a joiner takes a copy; so does the part of it that a
/// disk slower than training has not written, of two checkpoints at most.
///
/// A rank with all lanes folds them as they come, and so holds one partial sum for each level of the tree over lanes,
/// the lane that it computes, and the reduced gradient.
#[must_use]
pub fn of_rank(spec: &Spec) -> u64 {
    let partials = u64::from(spec.batch.lanes.ilog2()) + 1;
    let training = copies(spec, STATE + partials + 1).saturating_add(activations_of(spec));
    // Until a state that is loaded replaces the initial one, it lies beside it.
    let resuming = copies(spec, 2 * STATE);
    training.max(resuming).saturating_add(BASE)
}

/// Bytes that a process takes on one thread which trains alone: as a rank, with one gradient.
#[must_use]
pub fn of_process(spec: &Spec) -> u64 {
    (BASE + copies(spec, STATE + 1)).saturating_add(activations_of(spec))
}

/// Bytes that a process takes for each thread beyond the first.
#[must_use]
pub fn of_thread(spec: &Spec) -> u64 {
    memory::of_thread(
        &spec.model,
        spec.batch.sequences as usize,
        spec.batch.sequence_length,
    )
}

fn copies(spec: &Spec, count: u64) -> u64 {
    count * spec.model.parameters() as u64 * size_of::<f32>() as u64
}

fn activations_of(spec: &Spec) -> u64 {
    let batch = &spec.batch;
    memory::activations(
        &spec.model,
        spec.memory.recompute,
        batch.sequences as usize,
        batch.sequence_length,
    )
}
