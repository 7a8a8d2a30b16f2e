//! The model and its layout.

use candle_core::{DType, Device, IndexOp, Tensor};
use lockstep_engine::spec::presets;
use lockstep_trainer::{Llama, Model, Trainer};

use crate::common::{constant, optim, small, trained, trainer, variants};

#[test]
fn the_layout_has_hugging_face_s_names_without_gaps() {
    let trainer = trainer(&small(4, 2, false));
    let layout = trainer.layout();
    let names: Vec<&str> = layout.parameters().iter().map(|p| p.name.as_str()).collect();
    assert_eq!(
        names[..3],
        [
            "model.embed_tokens.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.0.self_attn.q_proj.weight"
        ]
    );
    assert_eq!(names[names.len() - 2..], ["model.norm.weight", "lm_head.weight"]);
    let mut at = 0;
    for parameter in layout.parameters() {
        assert_eq!(parameter.range.start, at);
        assert_eq!(parameter.range.len(), parameter.shape.iter().product::<usize>());
        at = parameter.range.end;
    }
    assert_eq!(at, layout.len());
    let kv = layout.find("model.layers.1.self_attn.k_proj.weight").unwrap();
    assert_eq!(kv.shape, [8, 16]);
    assert!(layout.find("model.layers.2.self_attn.k_proj.weight").is_none());
}

#[test]
fn buckets_are_embedding_blocks_and_head() {
    for spec in variants() {
        let trainer = trainer(&spec);
        let layout = trainer.layout();
        let buckets = layout.buckets();
        assert_eq!(buckets.len(), 2 + spec.num_hidden_layers);
        let bucket_of = |name: &str| {
            let range = &layout.find(name).unwrap().range;
            buckets
                .iter()
                .position(|b| b.start <= range.start && range.end <= b.end)
                .unwrap()
        };
        assert_eq!(bucket_of("model.embed_tokens.weight"), 0);
        assert_eq!(bucket_of("model.layers.0.mlp.down_proj.weight"), 1);
        assert_eq!(bucket_of("model.layers.1.input_layernorm.weight"), 2);
        assert_eq!(bucket_of("model.norm.weight"), 3);
    }
}

#[test]
fn a_layout_fits_every_preset() {
    for preset in presets().into_iter().take(3) {
        let model = Llama::new(&preset.model, 0, DType::F32, &Device::Cpu).unwrap();
        let trainer = Trainer::new(model, &optim(), constant(1.0)).unwrap();
        assert_eq!(trainer.layout().len(), preset.model.parameters());
    }
}

#[test]
fn a_seed_decides_the_weights() {
    let digest = |seed| {
        let model = Llama::new(&small(4, 2, false), seed, DType::F32, &Device::Cpu).unwrap();
        Trainer::new(model, &optim(), constant(1.0))
            .unwrap()
            .weights_digest()
    };
    assert_eq!(digest(3), digest(3));
    assert_ne!(digest(3), digest(4));
}

#[test]
fn a_token_sees_only_what_came_before() {
    for spec in variants() {
        let trainer = trained(&spec, 3);
        let logits = |tokens: &[u32]| {
            let tokens = Tensor::new(tokens, &Device::Cpu).unwrap().unsqueeze(0).unwrap();
            trainer
                .model()
                .logits(&tokens)
                .unwrap()
                .i(0)
                .unwrap()
                .to_vec2::<f32>()
                .unwrap()
        };
        let whole = logits(&[1, 5, 9, 2, 7, 7]);
        let changed = logits(&[1, 5, 9, 3, 7, 7]);
        let part = logits(&[1, 5, 9]);
        for t in 0..3 {
            assert_eq!(whole[t], changed[t]);
            assert!(whole[t].iter().zip(&part[t]).all(|(a, b)| (a - b).abs() < 1e-5));
        }
        for t in 3..6 {
            assert_ne!(whole[t], changed[t]);
        }
    }
}

#[test]
fn logits_and_loss_agree() {
    let spec = small(4, 1, true);
    let trainer = trained(&spec, 3);
    let batch = crate::common::batch(&spec, 2, 9, 4);
    let logits = trainer
        .model()
        .logits(batch.inputs())
        .unwrap()
        .reshape((18, 23))
        .unwrap();
    let logits = logits.to_dtype(DType::F64).unwrap().to_vec2::<f64>().unwrap();
    let nll: f64 = logits
        .iter()
        .zip(batch.target_ids())
        .map(|(row, &target)| row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[target as usize])
        .sum();
    assert!((trainer.model().nll(&batch).unwrap() - nll).abs() < 1e-4 * nll);
}

#[test]
fn sequences_beyond_the_context_and_foreign_tokens_are_refused() {
    let spec = small(4, 2, false);
    let trainer = trainer(&spec);
    let error = trainer.accumulate(
        &crate::common::batch(&spec, 1, 13, 0),
        &mut trainer.layout().zeros(),
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("max_position_embeddings = 12")
    );
    let tokens = lockstep_trainer::Batch::new(&[1, 23], 1, &Device::Cpu).unwrap();
    let error = trainer
        .accumulate(&tokens, &mut trainer.layout().zeros())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("token 23 is outside the vocabulary of 23"),
        "{error}"
    );
}
