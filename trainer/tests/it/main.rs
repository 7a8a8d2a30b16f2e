//! Black-box tests of the crate.
#![cfg(test)]

mod checkpoints;
mod common;
mod decoder;
mod export;
mod generation;
mod gradients;
mod model;
mod optimizer;
mod threads;
mod torn;
