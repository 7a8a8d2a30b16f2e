//! The same bits whatever the number of threads, and whatever instructions the processor has.
//!
//! Both are decided once in a process, so each is one of its own: this test, started again.

use std::process::Command;

use candle_core::{DType, Device};
use lockstep_engine::spec::{ModelSpec, Recompute, presets};
use lockstep_trainer::{Decoder, Llama, Network, Trainer, state};

use crate::common::{batch, constant, optim};

const PROBE: &str = "LOCKSTEP_TEST_PRINT_DIGESTS";

/// Shapes whose products are large enough to be split, one that no vector or block divides, and one whose logits are
/// computed in chunks.
fn shapes() -> Vec<(ModelSpec, usize, usize)> {
    let preset = |index: usize| presets()[index].model.clone();
    let wide = ModelSpec {
        num_hidden_layers: 1,
        ..preset(2)
    };
    let odd = ModelSpec {
        vocab_size: 1003,
        hidden_size: 132,
        intermediate_size: 301,
        num_hidden_layers: 1,
        num_attention_heads: 6,
        num_key_value_heads: 3,
        max_position_embeddings: 130,
        ..preset(0)
    };
    let wordy = ModelSpec {
        vocab_size: 33_000,
        hidden_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        num_key_value_heads: 1,
        ..preset(0)
    };
    vec![
        (wordy, 2, 55),
        (preset(0), 5, 64),
        (preset(1), 3, 70),
        (wide, 1, 90),
        (odd, 3, 127),
    ]
}

/// Of the gradient of two microbatches and of the weights two steps later, for every shape.
fn digests() -> Vec<String> {
    let mut digests = Vec::new();
    let paths = shapes().into_iter().flat_map(|(spec, sequences, length)| {
        let decoder = Decoder::new(&spec, 5, Recompute::None, &Device::Cpu).unwrap();
        let llama = Llama::new(&spec, 5, DType::F32, &Device::Cpu).unwrap();
        let paths: [(&str, Box<dyn Network>); 2] =
            [("decoder", Box::new(decoder)), ("autograd", Box::new(llama))];
        paths.map(|path| (path, spec.clone(), sequences, length))
    });
    for ((name, model), spec, sequences, length) in paths {
        let mut trainer = Trainer::new(model, &optim(), constant(1e-2)).unwrap();
        for step in 0..2 {
            let mut gradient = trainer.layout().zeros();
            for microbatch in 0..2 {
                let batch = batch(&spec, sequences, length, 2 * step + microbatch);
                trainer.accumulate(&batch, &mut gradient).unwrap();
            }
            let applied = trainer.apply(&gradient, 0.5).unwrap();
            digests.push(format!(
                "{name} {} {:x}",
                state::digest(&gradient),
                applied.grad_norm.to_bits()
            ));
        }
        let nll = trainer
            .evaluate([Ok(batch(&spec, sequences, length, 9))])
            .unwrap()
            .nll;
        digests.push(format!("{name} {} {:x}", trainer.weights_digest(), nll.to_bits()));
    }
    digests
}

#[test]
fn bits_depend_on_neither_threads_nor_instructions() {
    if std::env::var_os(PROBE).is_some() {
        digests().iter().for_each(|digest| println!("digest {digest}"));
        return;
    }
    let here = digests();
    assert_eq!(here.len(), 6 * shapes().len());
    for (threads, isa) in [("1", "avx512"), ("2", "avx2"), ("5", "portable")] {
        let name = "threads::bits_depend_on_neither_threads_nor_instructions";
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads", "1"])
            .env(PROBE, "1")
            .env("LOCKSTEP_ISA", isa)
            .env("RAYON_NUM_THREADS", threads)
            .env("CANDLE_NUM_THREADS", threads)
            .output()
            .unwrap();
        let output = String::from_utf8(child.stdout).unwrap();
        let there: Vec<&str> = output
            .lines()
            .filter_map(|line| Some(line.split_once("digest ")?.1))
            .collect();
        assert!(child.status.success(), "{output}");
        assert_eq!(there, here, "{threads} threads, {isa}");
    }
}
