//! The optimizer against the published update and against candle's own.

use std::time::Duration;

use crate::common::{batch, constant, optim, small, trainer};
use candle_core::{DType, Device};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::random::Stream;
use lockstep_engine::spec::OptimSpec;
use lockstep_trainer::checkpoint::{Attempt, Piece};
use lockstep_trainer::{Llama, Model, State, Trainer, TrainerError};

fn normals(n: usize, site: u64) -> Vec<f32> {
    let stream = Stream::new(9, site);
    (0..n as u64).map(|i| stream.normal_pair(i)[0] as f32).collect()
}

/// Algorithm 2 of Loshchilov and Hutter (2019), element by element in f64, after clipping by the global norm.
#[test]
fn updates_follow_the_paper() {
    let spec = small(4, 2, false);
    for clip in [0.0, 0.5] {
        let optim = OptimSpec { clip, ..optim() };
        let model = Llama::new(&spec, 1, DType::F32, &Device::Cpu).unwrap();
        let mut trainer = Trainer::new(model, &optim, constant(1e-2)).unwrap();
        let n = trainer.layout().len();
        let mut w: Vec<f64> = trainer.state().weights.iter().map(|&w| f64::from(w)).collect();
        let (mut m, mut v) = (vec![0.0f64; n], vec![0.0f64; n]);
        let (mut decayed, mut clipped) = (0, 0);
        for t in 1..=8 {
            // AdamW hardly sees a constant factor: only some of the steps are clipped.
            let gradient: Vec<f32> = normals(n, t as u64).iter().map(|g| g * 0.01 * t as f32).collect();
            let scale = 0.25;
            let norm = gradient
                .iter()
                .map(|&g| (scale * f64::from(g)).powi(2))
                .sum::<f64>()
                .sqrt();
            let shrink = if clip > 0.0 && norm > clip {
                clip / norm
            } else {
                1.0
            };
            clipped += usize::from(shrink < 1.0);
            for parameter in trainer.layout().parameters() {
                let excluded = parameter.name.contains("norm") || parameter.name.contains("embed");
                decayed += usize::from(!excluded);
                for i in parameter.range.clone() {
                    let g = scale * shrink * f64::from(gradient[i]);
                    m[i] = optim.beta1 * m[i] + (1.0 - optim.beta1) * g;
                    v[i] = optim.beta2 * v[i] + (1.0 - optim.beta2) * g * g;
                    let m_hat = m[i] / (1.0 - optim.beta1.powi(t));
                    let v_hat = v[i] / (1.0 - optim.beta2.powi(t));
                    let lambda = if excluded { 0.0 } else { optim.weight_decay };
                    w[i] -= 1e-2 * (m_hat / (v_hat.sqrt() + optim.eps) + lambda * w[i]);
                }
            }
            let applied = trainer.apply(&gradient, scale as f32).unwrap();
            assert!((applied.grad_norm - norm).abs() < 1e-6 * norm && applied.learning_rate == 1e-2);
            let worst = trainer
                .state()
                .weights
                .iter()
                .zip(&w)
                .map(|(a, b)| (f64::from(*a) - b).abs());
            assert!(worst.fold(0.0, f64::max) < 1e-6);
        }
        assert!(
            if clip > 0.0 {
                (1..8).contains(&clipped)
            } else {
                clipped == 0
            },
            "{clipped} of 8 steps clipped"
        );
        assert_eq!(decayed, 8 * 15, "two blocks of seven matrices and the head decay");
        assert_eq!(trainer.state().step, Step(8));
    }
}

#[test]
fn a_tied_head_does_not_decay() {
    let decays = |tied| {
        let trainer = trainer(&small(4, 2, tied));
        let names: Vec<String> = trainer
            .layout()
            .parameters()
            .iter()
            .filter(|p| p.decays)
            .map(|p| p.name.clone())
            .collect();
        names
    };
    assert!(decays(false).contains(&"lm_head.weight".to_owned()));
    assert!(decays(true).iter().all(|name| name.ends_with("_proj.weight")));
}

/// The same model trained with candle-nn's optimizer gives the same losses.
#[test]
fn twenty_steps_follow_candle_s_own_loop() {
    let spec = small(4, 2, false);
    // Its decay has no exclusions: compare without.
    let optim = OptimSpec {
        weight_decay: 0.0,
        ..optim()
    };
    let model = || Llama::new(&spec, 1, DType::F32, &Device::Cpu).unwrap();
    let mut ours = Trainer::new(model(), &optim, constant(1e-2)).unwrap();
    let theirs = model();
    let OptimSpec {
        beta1, beta2, eps, ..
    } = optim;
    let params = ParamsAdamW {
        lr: 1e-2,
        beta1,
        beta2,
        eps,
        weight_decay: 0.0,
    };
    let vars = theirs.parameters().iter().map(|(_, var)| var.clone()).collect();
    let mut optimizer = AdamW::new(vars, params).unwrap();
    let (mut first, mut last) = (0.0, 0.0);
    for step in 0..20 {
        let batch = batch(&spec, 4, 12, step % 3);
        let mut gradient = ours.layout().zeros();
        let loss = ours.accumulate(&batch, &mut gradient).unwrap();
        ours.apply(&gradient, 1.0).unwrap();
        let their_loss = theirs.loss(&batch).unwrap();
        optimizer.backward_step(&their_loss).unwrap();
        let their_loss = their_loss.to_scalar::<f32>().unwrap();
        assert!(
            (loss - their_loss).abs() < 1e-4,
            "step {step}: {loss} {their_loss}"
        );
        if step == 0 {
            first = loss;
        }
        last = loss;
    }
    assert!(last < first - 0.3, "it learns: {first} to {last}");
}

#[test]
fn a_gradient_that_is_not_finite_changes_nothing() {
    let mut trainer = trainer(&small(4, 2, false));
    let before = trainer.state().clone();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut gradient = trainer.layout().zeros();
        gradient[17] = bad;
        let error = trainer.apply(&gradient, 1.0).unwrap_err();
        assert!(matches!(error, TrainerError::NonFiniteGradient { step: 1 }));
    }
    assert_eq!(*trainer.state(), before);
}

/// A checkpoint is written from such a piece while training goes on, whether or not the writer is done by then.
#[test]
fn a_piece_of_a_state_stays_as_it_was_while_training_goes_on() {
    let spec = small(4, 2, true);
    let mut trainer = trainer(&spec);
    let gradient = vec![0.5; trainer.layout().len()];
    trainer.apply(&gradient, 1.0).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let digest_of = |piece: &Piece, epoch| {
        let attempt = Attempt::new(dir.path(), piece.step(), Epoch(epoch));
        attempt.write(piece).unwrap().shard.digest
    };
    let [shared, own] = [(); 2].map(|()| Piece::of(trainer.state(), 1, 3).unwrap());
    let at_once = digest_of(&shared, 1);
    assert!(!own.let_go(Duration::from_millis(1)), "it is not written");
    assert_eq!(digest_of(&own, 2), at_once);
    let before = trainer.weights_digest();
    trainer.apply(&gradient, 1.0).unwrap();
    assert_ne!(trainer.weights_digest(), before);
    assert_eq!(digest_of(&shared, 3), at_once);
    assert_eq!(digest_of(&own, 4), at_once);

    // What nobody shares is changed where it lies.
    let place = trainer.state().weights.as_ptr();
    let piece = Piece::of(trainer.state(), 1, 3).unwrap();
    piece.let_go(Duration::from_millis(1));
    trainer.apply(&gradient, 1.0).unwrap();
    assert_eq!(trainer.state().weights.as_ptr(), place);
    drop(piece);
}

#[test]
fn a_restored_state_continues_as_if_never_left() {
    let spec = small(4, 2, true);
    let run = |trainer: &mut Trainer<Llama>, steps: std::ops::Range<u64>| {
        for step in steps {
            let mut gradient = trainer.layout().zeros();
            trainer
                .accumulate(&batch(&spec, 2, 12, step), &mut gradient)
                .unwrap();
            trainer.apply(&gradient, 1.0).unwrap();
        }
    };
    let mut straight = trainer(&spec);
    run(&mut straight, 0..6);
    let mut first = trainer(&spec);
    run(&mut first, 0..3);
    let mut second = Trainer::new(
        Llama::new(&spec, 77, DType::F32, &Device::Cpu).unwrap(),
        &optim(),
        constant(1e-2),
    )
    .unwrap();
    second.restore(first.state().clone()).unwrap();
    assert_eq!(second.weights_digest(), first.weights_digest());
    run(&mut second, 3..6);
    assert_eq!(*second.state(), *straight.state());
    assert_eq!(second.weights_digest(), straight.weights_digest());

    let short = State::initial(vec![0.0; 3]);
    assert!(matches!(
        second.restore(short),
        Err(TrainerError::Length { found: 3, .. })
    ));
    assert_eq!(*second.state(), *straight.state());
}

#[test]
fn evaluation_is_the_mean_over_all_tokens() {
    let spec = small(4, 2, false);
    let trainer = trainer(&spec);
    let batches = [batch(&spec, 3, 12, 0), batch(&spec, 1, 5, 1)];
    let losses: Vec<f64> = batches
        .iter()
        .map(|batch| f64::from(trainer.accumulate(batch, &mut trainer.layout().zeros()).unwrap()))
        .collect();
    let evaluation = trainer.evaluate(batches.into_iter().map(Ok)).unwrap();
    assert_eq!(evaluation.tokens, 41);
    assert!((evaluation.nll - (36.0 * losses[0] + 5.0 * losses[1])).abs() < 1e-4);
    assert!((evaluation.loss() - evaluation.nll / 41.0).abs() < 1e-12);
    let bits = evaluation.bits_per_byte(100);
    assert!((bits - evaluation.nll / 2f64.ln() / 100.0).abs() < 1e-12);
    assert_eq!(trainer.evaluate([]).unwrap().loss(), 0.0);
}
