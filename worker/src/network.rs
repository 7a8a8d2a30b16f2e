//! What is trained.

use lockstep_engine::spec::Spec;
use lockstep_trainer::{Decoder, Device, Network};

use crate::memory;

/// Makes what a rank trains, with the initial weights that the job's spec decides: the same in every process. Errors are for
/// people.
pub type MakeNetwork = fn(&Spec, &Device) -> Result<Box<dyn Network>, String>;

/// The built-in model, as `[model]` describes it.
///
/// # Errors
/// When it does not fit the memory that this machine has left.
pub fn decoder(spec: &Spec, device: &Device) -> Result<Box<dyn Network>, String> {
    memory::check(spec)?;
    let decoder = Decoder::new(&spec.model, spec.train.seed, spec.memory.recompute, device);
    Ok(Box::new(decoder.map_err(|error| error.to_string())?))
}
