//! The whole program with a model of your own: coordinator, daemons and ranks of this binary train it.
//!
//! ```text
//! cargo run --release -p own-model -- run examples/own-model/job.toml --workers 3 --kill 1@40
//! ```

mod perceptron;

use std::process::ExitCode;

use lockstep::engine::spec::Spec;
use lockstep::trainer::{Device, Network};
use perceptron::Perceptron;

fn main() -> ExitCode {
    lockstep::main_with(network)
}

/// Every rank calls this: it must make the same weights everywhere, so they depend on the spec alone.
fn network(spec: &Spec, device: &Device) -> Result<Box<dyn Network>, String> {
    let model = Perceptron::new(&spec.model, spec.train.seed, device);
    Ok(Box::new(
        model.map_err(|error| format!("make the perceptron: {error}"))?,
    ))
}
