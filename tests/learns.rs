//! A cluster learns what a plain loop learns: the oracle here is written out with candle's own autograd and optimizer
//! in f64, on the same batches, and shares no arithmetic with the ranks' fused kernels, folds or flat AdamW.

mod support;

use std::f64::consts::PI;

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Var};
use candle_nn::{AdamW, Optimizer as _, ParamsAdamW};
use lockstep_data::Dataset;
use lockstep_engine::order::SampleOrder;
use lockstep_engine::spec::Spec;
use lockstep_trainer::{Batch, Llama, Model as _};
use support::job::Job;
use support::place::Place;

const STEPS: u64 = 20;
const SAMPLES_PER_STEP: u64 = 16;
const LENGTH: usize = 32;

#[test]
fn the_cluster_s_losses_are_those_of_a_plain_loop() {
    let place = Place::with(&Job {
        steps: STEPS,
        ..Job::default()
    });
    place.summary("run small.toml --local --workers 3 --out out --kill 1@8");
    let metrics = place.read("out/metrics.jsonl");
    let found: Vec<(u64, f64)> = metrics
        .lines()
        .map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            (line["step"].as_u64().unwrap(), line["loss"].as_f64().unwrap())
        })
        .collect();
    let expected = plain_loop(&place);
    assert_eq!(found.len(), expected.len());
    for ((step, found), (expected_step, expected)) in found.iter().zip((1..).zip(&expected)) {
        assert_eq!(*step, expected_step);
        assert!(
            (found - expected).abs() < 1e-4,
            "step {step}: {found}, by the plain loop {expected}"
        );
    }
    let (first, last) = (expected[0], expected[STEPS as usize - 1]);
    assert!(last < first - 0.5, "it learns: {first} to {last}");
}

/// The losses of each step, before its update.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
fn plain_loop(place: &Place) -> Vec<f64> {
    let spec = Spec::parse(&place.read("small.toml")).unwrap();
    let dataset = Dataset::open(&place.dataset()).unwrap();
    let order = SampleOrder::new(dataset.train().samples(LENGTH), spec.train.seed);
    let model = Llama::new(&spec.model, spec.train.seed, DType::F64, &Device::Cpu).unwrap();
    let vars = |decays: bool| -> Vec<Var> {
        let chosen = model.parameters().iter().filter(|(name, var)| {
            let excluded = name.contains("norm") || name.contains("embed");
            assert_eq!(var.rank() == 1, name.contains("norm"), "{name}");
            excluded != decays
        });
        chosen.map(|(_, var)| var.clone()).collect()
    };
    let optimizer = |decays, weight_decay| {
        let params = ParamsAdamW {
            lr: 0.0,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay,
        };
        AdamW::new(vars(decays), params).unwrap()
    };
    let mut optimizers = [optimizer(true, 0.1), optimizer(false, 0.0)];
    let mut losses = Vec::new();
    for step in 1..=STEPS {
        let mut tokens = Vec::new();
        for position in (step - 1) * SAMPLES_PER_STEP..step * SAMPLES_PER_STEP {
            let mut row = [0; LENGTH + 1];
            dataset.train().read(order.sample(position), &mut row).unwrap();
            tokens.extend(row);
        }
        // Microbatches of equal size: the mean of their means is the mean over the whole.
        let batch = Batch::new(&tokens, SAMPLES_PER_STEP as usize, &Device::Cpu).unwrap();
        let loss = model.loss(&batch).unwrap();
        let mut gradients = loss.backward().unwrap();
        clip(&mut gradients, model.parameters(), 1.0);
        // One step of warm-up at the peak, then half a cosine to a tenth of it.
        let done = (step - 1) as f64 / (STEPS - 1) as f64;
        let rate = 1e-2 * (0.1 + 0.9 * 0.5 * (1.0 + (PI * done).cos()));
        for optimizer in &mut optimizers {
            optimizer.set_learning_rate(rate);
            optimizer.step(&gradients).unwrap();
        }
        losses.push(loss.to_scalar::<f64>().unwrap());
    }
    losses
}

/// Scales all gradients so that their common norm is at most `bound`.
#[expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]
fn clip(gradients: &mut GradStore, parameters: &[(String, Var)], bound: f64) {
    let square = |var: &Var| {
        let sum = gradients.get(var).unwrap().sqr().unwrap().sum_all().unwrap();
        sum.to_scalar::<f64>().unwrap()
    };
    let norm = parameters.iter().map(|(_, var)| square(var)).sum::<f64>().sqrt();
    for (_, var) in parameters.iter().filter(|_| norm > bound) {
        let scaled = (gradients.get(var).unwrap() * (bound / norm)).unwrap();
        gradients.insert(var, scaled);
    }
}
