//! Gradients: present, right, additive.

use crate::common::{batch, small, trainer, variants};
use candle_core::{DType, Device, Tensor, Var};
use lockstep_engine::random::Stream;
use lockstep_trainer::{Batch, Llama, Model, Network, Trainer, TrainerError};

#[test]
fn every_parameter_gets_a_gradient() {
    for spec in variants() {
        let trainer = trainer(&spec);
        let mut gradient = trainer.layout().zeros();
        let loss = trainer
            .accumulate(&batch(&spec, 2, 12, 0), &mut gradient)
            .unwrap();
        assert!(
            (f64::from(loss) - (spec.vocab_size as f64).ln()).abs() < 0.05,
            "a fresh model guesses: {loss}"
        );
        for parameter in trainer.layout().parameters() {
            let part = &gradient[parameter.range.clone()];
            let filled = part.iter().filter(|g| **g != 0.0).count();
            // Tokens absent from the batch leave rows of the embedding alone.
            let wanted = if parameter.name.contains("embed") {
                part.len() / 4
            } else {
                part.len() * 9 / 10
            };
            assert!(filled >= wanted, "{}: {filled} of {}", parameter.name, part.len());
            assert!(part.iter().all(|g| g.is_finite()));
        }
    }
}

/// Central differences of the f64 model, whose operations are candle's own, against its autograd and against the
/// fused f32 operations.
#[test]
fn gradients_are_finite_differences() {
    for spec in variants() {
        let batch = batch(&spec, 2, 7, 1);
        // Weights ten times the initial ones, so that no path is negligible.
        let stream = Stream::new(3, 0);
        let mut drawn = 0;
        let mut values = |_: &str, shape: &[usize]| {
            let mut next = || {
                drawn += 1;
                stream.normal_pair(drawn)[0] as f32
            };
            let is_norm = shape.len() == 1;
            Ok((0..shape.iter().product())
                .map(|_| if is_norm { 1.0 + 0.2 * next() } else { 0.3 * next() })
                .collect())
        };
        let exact = Llama::from_values(&spec, DType::F64, &Device::Cpu, &mut values).unwrap();
        let weights: Vec<Vec<f64>> = exact.parameters().iter().map(|(_, var)| flat(var)).collect();
        let mut at = 0;
        let copy = |_: &str, _: &[usize]| {
            at += 1;
            Ok(weights[at - 1].iter().map(|&w| w as f32).collect())
        };
        let fused = Llama::from_values(&spec, DType::F32, &Device::Cpu, copy).unwrap();

        let loss = || exact.loss(&batch).unwrap().to_scalar::<f64>().unwrap();
        let exact_gradients = exact.loss(&batch).unwrap().backward().unwrap();
        let fused_gradients = fused.loss(&batch).unwrap().backward().unwrap();
        for (i, ((name, var), (_, fused_var))) in
            exact.parameters().iter().zip(fused.parameters()).enumerate()
        {
            let exact_gradient: Vec<f64> = flat(exact_gradients.get(var).unwrap());
            let fused_gradient: Vec<f64> = flat(fused_gradients.get(fused_var).unwrap());
            let size = exact_gradient.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            assert!(size > 1e-6, "{name}: {size}");
            for (e, f) in exact_gradient.iter().zip(&fused_gradient) {
                assert!(
                    (e - f).abs() < 1e-5 * size.max(0.1),
                    "{name}: fused {f}, exact {e}"
                );
            }
            let step = (weights[i].len() / 5).max(1);
            for entry in (0..weights[i].len()).step_by(step) {
                let h = 1e-5;
                let at = |shift: f64| {
                    let mut moved = weights[i].clone();
                    moved[entry] += shift;
                    var.set(&Tensor::from_vec(moved, var.shape(), &Device::Cpu).unwrap())
                        .unwrap();
                    loss()
                };
                let difference = (at(h) - at(-h)) / (2.0 * h);
                at(0.0);
                let found = exact_gradient[entry];
                assert!(
                    (difference - found).abs() < 1e-7 * size.max(0.1),
                    "{name}[{entry}]: {found} {difference}"
                );
            }
        }
    }
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    tensor
        .flatten_all()
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap()
        .to_vec1()
        .unwrap()
}

#[test]
fn two_microbatches_add_up() {
    let spec = small(4, 2, false);
    let trainer = trainer(&spec);
    let batches = [batch(&spec, 2, 12, 0), batch(&spec, 2, 12, 1)];
    let mut folded = trainer.layout().zeros();
    let mut separate = Vec::new();
    for batch in &batches {
        trainer.accumulate(batch, &mut folded).unwrap();
        let mut one = trainer.layout().zeros();
        trainer.accumulate(batch, &mut one).unwrap();
        separate.push(one);
    }
    let added: Vec<f32> = separate[0].iter().zip(&separate[1]).map(|(a, b)| a + b).collect();
    assert_eq!(bits(&folded), bits(&added));
    assert_ne!(bits(&separate[0]), bits(&separate[1]));
}

/// The gradient of a batch is the mean of its sequences': nothing leaks from one to another.
#[test]
fn sequences_do_not_see_each_other() {
    let spec = small(4, 2, true);
    let trainer = trainer(&spec);
    let rows: Vec<Vec<u32>> = (0..3)
        .map(|r| (0..13).map(|i| (i * i + 5 * r) % 23).collect())
        .collect();
    let gradient = |tokens: &[u32], sequences| {
        let mut gradient = trainer.layout().zeros();
        let batch = Batch::new(tokens, sequences, &Device::Cpu).unwrap();
        let loss = trainer.accumulate(&batch, &mut gradient).unwrap();
        (loss, gradient)
    };
    let (loss, together) = gradient(&rows.concat(), 3);
    let apart: Vec<_> = rows.iter().map(|row| gradient(row, 1)).collect();
    assert!((loss - apart.iter().map(|(loss, _)| loss).sum::<f32>() / 3.0).abs() < 1e-5);
    for (i, together) in together.iter().enumerate() {
        let mean = apart.iter().map(|(_, g)| g[i]).sum::<f32>() / 3.0;
        assert!((together - mean).abs() < 1e-5, "{i}: {together} {mean}");
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|v| v.to_bits()).collect()
}

/// A model whose second parameter is cut off, as candle's operations without a backward cut it.
struct Frozen(Vec<(String, Var)>);

impl Model for Frozen {
    fn parameters(&self) -> &[(String, Var)] {
        &self.0
    }
    fn loss(&self, _: &Batch) -> candle_core::Result<Tensor> {
        (self.0[0].1.as_tensor() * self.0[1].1.as_detached_tensor())?.sum_all()
    }
}

#[test]
fn a_frozen_parameter_is_an_error_that_names_it() {
    let var = |x: f32| Var::from_vec(vec![x], 1, &Device::Cpu).unwrap();
    let model: Box<dyn Network> = Box::new(Frozen(vec![
        ("live".to_owned(), var(2.0)),
        ("frozen".to_owned(), var(3.0)),
    ]));
    let trainer = Trainer::new(model, &crate::common::optim(), crate::common::constant(0.1)).unwrap();
    let batch = Batch::new(&[0, 0], 1, &Device::Cpu).unwrap();
    let error = trainer
        .accumulate(&batch, &mut trainer.layout().zeros())
        .unwrap_err();
    assert!(
        matches!(&error, TrainerError::NoGradient { parameter } if parameter == "frozen"),
        "{error}"
    );
    let error = trainer.accumulate(&batch, &mut [0.0; 5]).unwrap_err();
    assert!(matches!(
        error,
        TrainerError::Length {
            found: 5,
            expected: 2,
            ..
        }
    ));
}
