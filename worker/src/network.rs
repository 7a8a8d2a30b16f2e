//! What is trained.

use lockstep_engine::spec::Spec;
use lockstep_trainer::{Decoder, Device, Network};

/// Makes what a rank trains, with the initial weights that the job's spec decides: the same in every process. Errors are for
/// people.
pub type MakeNetwork = fn(&Spec, &Device) -> Result<Box<dyn Network>, String>;

/// The built-in model, as `[model]` describes it.
///
/// # Errors
/// When the device cannot be used.
pub fn decoder(spec: &Spec, device: &Device) -> Result<Box<dyn Network>, String> {
    let decoder = Decoder::new(&spec.model, spec.train.seed, spec.memory.recompute, device);
    Ok(Box::new(decoder.map_err(|error| error.to_string())?))
}

/// Whether it is the built-in model, of which is known what it takes.
pub(crate) fn is_decoder(network: MakeNetwork) -> bool {
    std::ptr::fn_addr_eq(network, decoder as MakeNetwork)
}
