//! The decoder's own forward and backward, on kernels and in candle's operations, against candle's autograd in f64,
//! which `gradients` checks by finite differences.

use std::ops::Range;

use candle_core::{DType, Device, Tensor};
use lockstep_engine::random::Stream;
use lockstep_engine::spec::{ModelSpec, Recompute};
use lockstep_trainer::{Decoder, Flat, Gradient, Layout, Llama, Model, Network};
use proptest::prelude::*;

use crate::common::{batch, small, variants};

/// Weights large enough that no path is negligible, and not so large that the softmax of attention is all or nothing: then
/// rounding alone, f32 against f64, is more than what is allowed here. So they shrink with the width.
fn weights(layout: &Layout, seed: u64) -> Vec<f32> {
    let stream = Stream::new(seed, 0);
    let mut drawn = 0;
    let mut next = || {
        drawn += 1;
        stream.normal_pair(drawn)[0] as f32
    };
    let mut weights = layout.zeros();
    for parameter in layout.parameters() {
        let values = &mut weights[parameter.range.clone()];
        match parameter.shape[..] {
            [_, inputs] => {
                let deviation = 1.2 / (inputs as f32).sqrt();
                values.fill_with(|| deviation * next());
            }
            _ => values.fill_with(|| 1.0 + 0.2 * next()),
        }
    }
    weights
}

/// A gradient whose buckets must be done one after the other, the last first, and are left alone from then on.
struct Watched<'l> {
    buckets: &'l [Range<usize>],
    values: Vec<f32>,
    left: usize,
}

impl Gradient for Watched<'_> {
    fn at(&mut self, range: Range<usize>) -> &mut [f32] {
        let holds = |bucket: &Range<usize>| bucket.start <= range.start && range.end <= bucket.end;
        let bucket = self.buckets.iter().position(holds);
        assert!(
            bucket.is_some_and(|bucket| bucket < self.left),
            "{range:?} in {bucket:?}"
        );
        &mut self.values[range]
    }

    fn done(&mut self, bucket: usize) {
        self.left -= 1;
        assert_eq!(bucket, self.left);
    }
}

fn on(
    network: &mut dyn Network,
    weights: &[f32],
    spec: &ModelSpec,
    rows: (usize, usize),
) -> (f32, f64, Vec<f32>) {
    let layout = network.layout().unwrap();
    let flat = Flat {
        layout: &layout,
        weights,
    };
    network.take(flat).unwrap();
    let batch = batch(spec, rows.0, rows.1, 1);
    let mut watched = Watched {
        buckets: layout.buckets(),
        values: layout.zeros(),
        left: layout.buckets().len(),
    };
    let loss = network.accumulate(flat, &batch, &mut watched).unwrap();
    assert_eq!(watched.left, 0, "buckets that were never done");
    (loss, network.nll(flat, &batch).unwrap(), watched.values)
}

/// Loss and gradient by candle's autograd.
fn autograd(
    spec: &ModelSpec,
    layout: &Layout,
    weights: &[f32],
    rows: (usize, usize),
    dtype: DType,
) -> (f64, Vec<f64>) {
    let values = |name: &str, _: &[usize]| Ok(weights[layout.find(name).unwrap().range.clone()].to_vec());
    let model = Llama::from_values(spec, dtype, &Device::Cpu, values).unwrap();
    let loss = model.loss(&batch(spec, rows.0, rows.1, 1)).unwrap();
    let gradients = loss.backward().unwrap();
    let flat = |tensor: &Tensor| {
        let wide = tensor.to_dtype(DType::F64).unwrap();
        wide.flatten_all().unwrap().to_vec1::<f64>().unwrap()
    };
    let all = model.parameters().iter();
    let gradient = all
        .flat_map(|(_, var)| flat(gradients.get(var).unwrap()))
        .collect();
    (flat(&loss)[0], gradient)
}

fn agrees(spec: &ModelSpec, rows: (usize, usize), seed: u64) {
    let layout = Decoder::new(spec, 0, Recompute::None, &Device::Cpu)
        .unwrap()
        .layout()
        .unwrap();
    let weights = weights(&layout, seed);
    let (exact_loss, exact) = autograd(spec, &layout, &weights, rows, DType::F64);
    let (_, rounded) = autograd(spec, &layout, &weights, rows, DType::F32);
    let decoders = [
        ("kernels", Decoder::new(spec, 0, Recompute::None, &Device::Cpu)),
        (
            "tensors",
            Decoder::generic(spec, 0, Recompute::None, &Device::Cpu),
        ),
    ];
    for (name, decoder) in decoders {
        let (loss, nll, gradient) = on(&mut decoder.unwrap(), &weights, spec, rows);
        let tokens = (rows.0 * rows.1) as f64;
        assert!(
            (f64::from(loss) - exact_loss).abs() < 1e-4 * exact_loss.max(1.0),
            "{name}: {loss}, exact {exact_loss}"
        );
        assert!(
            (nll / tokens - exact_loss).abs() < 1e-4 * exact_loss.max(1.0),
            "{name}: {nll}"
        );
        for parameter in layout.parameters() {
            let (found, exact) = (
                &gradient[parameter.range.clone()],
                &exact[parameter.range.clone()],
            );
            let size = exact.iter().fold(0.0f64, |m, g| m.max(g.abs()));
            // Where rounding alone is worse, as with rows near zero, the reference in f32 shows how much.
            let rounded = rounded[parameter.range.clone()].iter().zip(exact);
            let noise = rounded.fold(0.0f64, |m, (r, e)| m.max((r - e).abs()));
            let bound = (3e-5 * size.max(0.1)).max(4.0 * noise);
            for (f, e) in found.iter().zip(exact) {
                assert!(
                    (f64::from(*f) - e).abs() < bound,
                    "{name}, {}: {f}, exact {e} of {size}, rounding {noise}",
                    parameter.name
                );
            }
        }
    }
}

#[test]
fn gradients_are_those_of_autograd() {
    for spec in variants() {
        agrees(&spec, (2, 7), 3);
    }
}

/// More keys than a tile has, more terms than a block of a sum has, more rows than are packed at a time, and a query more
/// and less than a strip and a tile have.
#[test]
fn tiles_and_blocks_fit_together() {
    let spec = ModelSpec {
        hidden_size: 36,
        intermediate_size: 400,
        num_hidden_layers: 1,
        num_attention_heads: 3,
        num_key_value_heads: 1,
        max_position_embeddings: 400,
        ..small(3, 1, false)
    };
    agrees(&spec, (1, 400), 5);
    agrees(&spec, (3, 385), 6);
    for length in [47, 49, 96, 97, 145] {
        agrees(&spec, (1, length), 7);
    }
}

/// More tokens than have logits at a time, and as many; and more logits of a token than a product packs at a time.
#[test]
fn chunks_of_logits_fit_together() {
    let spec = ModelSpec {
        vocab_size: 33_000,
        hidden_size: 8,
        num_hidden_layers: 1,
        ..small(1, 1, false)
    };
    for rows in [(10, 11), (8, 12)] {
        agrees(&spec, rows, 8);
    }
    let tied = ModelSpec {
        tie_word_embeddings: true,
        ..spec
    };
    agrees(&tied, (10, 11), 9);
}

proptest! {
    // The same shapes in every run: of some thousands there is one in which rounding alone is beyond the bound, as rows
    // near zero are divided by their norm.
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(4),
        ..ProptestConfig::with_cases(240)
    })]
    #[test]
    fn any_shape_agrees(
        (heads, kv_heads) in prop::sample::select(vec![(1, 1), (2, 1), (3, 3), (6, 2), (4, 4)]),
        half in 1usize..9, ffn in 1usize..70, layers in 1usize..3, vocabulary in 2usize..90,
        sequences in 1usize..4, length in 1usize..40, tied: bool, seed in 0u64..1000,
    ) {
        // Of two or four values a row, some are near zero, and their norm makes anything of a rounding: see below.
        let half = half.max(4usize.div_ceil(heads));
        let spec = ModelSpec {
            vocab_size: vocabulary,
            hidden_size: 2 * half * heads,
            intermediate_size: ffn,
            num_hidden_layers: layers,
            max_position_embeddings: length.max(8),
            ..small(heads, kv_heads, tied)
        };
        agrees(&spec, (sequences, length), seed);
    }
}

/// One head of two values, with seeds whose rows are not near zero.
#[test]
fn the_narrowest_agrees() {
    let spec = ModelSpec {
        hidden_size: 2,
        intermediate_size: 1,
        ..small(1, 1, false)
    };
    for (seed, length) in [(1, 1), (2, 2), (3, 12)] {
        agrees(&spec, (2, length), seed);
    }
}

#[test]
fn recomputing_changes_no_bit() {
    for spec in variants() {
        let results = [Recompute::None, Recompute::Block].map(|recompute| {
            let mut decoder = Decoder::new(&spec, 0, recompute, &Device::Cpu).unwrap();
            let weights = weights(&decoder.layout().unwrap(), 7);
            on(&mut decoder, &weights, &spec, (3, 11))
        });
        assert_eq!(results[0], results[1]);
    }
}

#[test]
fn bad_batches_are_refused() {
    let spec = small(4, 2, false);
    let decoder = Decoder::new(&spec, 0, Recompute::None, &Device::Cpu).unwrap();
    let layout = decoder.layout().unwrap();
    let (weights, mut gradient) = (layout.zeros(), layout.zeros());
    let flat = Flat {
        layout: &layout,
        weights: &weights,
    };
    let mut error = |spec: &ModelSpec, length| {
        let refused = decoder.accumulate(flat, &batch(spec, 1, length, 0), &mut gradient.as_mut_slice());
        refused.unwrap_err().to_string()
    };
    assert!(error(&spec, 13).contains("longer than max_position_embeddings = 12"));
    let wide = ModelSpec {
        vocab_size: 4000,
        ..spec.clone()
    };
    assert!(error(&wide, 12).contains("outside the vocabulary of 23"));
}
