//! Each fused operation against the same composed of candle's own, values and gradients.

use candle_core::{Device, Result, Tensor, Var};
use lockstep_engine::random::Stream;

use super::heads::{Axes, Rotary};
use super::softmax::CausalSoftmax;
use super::*;
use crate::batch::Batch;

fn normal(shape: impl Into<Shape>, site: u64) -> Var {
    let shape = shape.into();
    let stream = Stream::new(5, site);
    let values: Vec<f32> = (0..shape.elem_count() as u64)
        .map(|i| stream.normal_pair(i)[0] as f32)
        .collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Runs both, pulls the same random gradient back through both, and compares all.
fn agree(
    arguments: &[Var],
    fused: impl Fn(&[Var]) -> Result<Tensor>,
    composed: impl Fn(&[Var]) -> Result<Tensor>,
) {
    let run = |f: &dyn Fn(&[Var]) -> Result<Tensor>| {
        let y = f(arguments).unwrap();
        let pull = normal(y.shape().clone(), 99).as_detached_tensor();
        let gradients = (&y * pull).unwrap().sum_all().unwrap().backward().unwrap();
        let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let mut all = vec![(y.dims().to_vec(), flat(&y))];
        all.extend(
            arguments
                .iter()
                .map(|a| (a.dims().to_vec(), flat(gradients.get(a).unwrap()))),
        );
        all
    };
    for (i, ((shape_a, a), (shape_b, b))) in run(&fused).iter().zip(run(&composed)).enumerate() {
        assert_eq!(*shape_a, shape_b);
        let size = b.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        let worst = a.iter().zip(&b).fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(
            size > 0.0 && worst <= 1e-5 * size.max(1.0),
            "output {i}: off by {worst}, size {size}"
        );
    }
}

#[test]
fn linear_and_its_gradients() {
    let arguments = [normal((7, 5), 1), normal((3, 5), 2)];
    agree(
        &arguments,
        |a| linear::linear(&a[0], &a[1]),
        |a| a[0].matmul(&a[1].t()?),
    );
}

#[test]
fn rms_norm_and_its_gradients() {
    for rows in [1, 3, 40] {
        let arguments = [normal((rows, 24), 1), normal(24, 2)];
        agree(
            &arguments,
            |a| norm::rms_norm(&a[0], &a[1], 1e-5),
            |a| norm::composed(&a[0], &a[1], 1e-5),
        );
    }
}

#[test]
fn swiglu_and_its_gradients() {
    let arguments = [normal((70, 80), 1), normal((70, 80), 2)];
    agree(
        &arguments,
        |a| swiglu::swiglu(&a[0], &a[1]),
        |a| swiglu::composed(&a[0], &a[1]),
    );
}

#[test]
fn causal_softmax_and_its_gradients() {
    for (groups, queries, past) in [(1, 1, 0), (1, 9, 0), (2, 9, 0), (2, 3, 6), (1, 1, 8)] {
        let options = CausalSoftmax {
            scale: 0.3,
            queries,
            past,
        };
        let arguments = [normal((3, groups * queries, past + queries), 1)];
        if past + queries == 1 {
            continue; // one key: the weight is 1 and its gradient 0
        }
        agree(
            &arguments,
            |a| softmax::causal_softmax(&a[0], options),
            |a| softmax::composed(&a[0], options),
        );
    }
    let alone = softmax::causal_softmax(
        &normal((1, 1, 1), 1),
        CausalSoftmax {
            scale: 1.0,
            queries: 1,
            past: 0,
        },
    );
    assert_eq!(
        alone.unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        [1.0]
    );
}

#[test]
fn heads_and_their_gradients() {
    let rotary = Rotary::new(12, 6, 10_000.0, DType::F32, &Device::Cpu).unwrap();
    let axes = Axes {
        sequences: 2,
        length: 5,
        heads: 3,
    };
    for (rotary, past) in [(None, 0), (Some(&rotary), 0), (Some(&rotary), 7)] {
        agree(
            &[normal((10, 18), 1)],
            |a| heads::split(&a[0], axes, rotary, past),
            |a| heads::composed_split(&a[0], axes, rotary, past),
        );
    }
    agree(
        &[normal((2, 3, 5, 6), 1)],
        |a| heads::merge(&a[0]),
        |a| heads::composed_merge(&a[0]),
    );
}

#[test]
fn cross_entropy_and_its_gradients() {
    let batch = Batch::new(
        &(0..33).map(|i| i * 7 % 50).collect::<Vec<u32>>(),
        3,
        &Device::Cpu,
    )
    .unwrap();
    let arguments = [normal((30, 50), 1)];
    agree(
        &arguments,
        |a| loss::mean_cross_entropy(&a[0], &batch),
        |a| loss::composed(&a[0], &batch),
    );
    assert!(
        loss::mean_cross_entropy(&normal((30, 20), 1), &batch).is_err(),
        "a token outside the vocabulary"
    );
}
