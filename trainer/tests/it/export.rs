//! Exported models, as others read them.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::llama as theirs;
use lockstep_engine::spec::Recompute;
use lockstep_trainer::{Batch, Decoder, Export, Flat, Generator, Llama, Network, Trainer, TrainerError};

use crate::common::{byte_spec, constant, optim, trained, write_tokenizer};

fn export(dir: &Path, trainer: &Trainer<Llama>) -> std::path::PathBuf {
    let tokenizer = dir.join("source-tokenizer.json");
    write_tokenizer(&tokenizer);
    let place = dir.join("model");
    let export = Export {
        model: trainer.model().spec(),
        tokenizer: &tokenizer,
        end_of_text: 0,
    };
    export
        .write(&place, trainer.layout(), &trainer.state().weights)
        .unwrap();
    place
}

const SEQUENCE: [u32; 9] = [5, 200, 3, 3, 77, 256, 0, 9, 42];

#[test]
fn candle_transformers_gives_the_same_logits_and_losses() {
    for (heads, kv_heads, tied) in [(4, 2, false), (4, 4, false), (4, 1, true), (2, 2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let trainer = trained(&byte_spec(heads, kv_heads, tied), 4);
        let place = export(dir.path(), &trainer);

        let config: theirs::LlamaConfig =
            serde_json::from_slice(&fs::read(place.join("config.json")).unwrap()).unwrap();
        let config = config.into_config(false);
        assert_eq!(
            (config.num_key_value_heads, config.tie_word_embeddings),
            (kv_heads, tied)
        );
        let tensors = fs::read(place.join("model.safetensors")).unwrap();
        let weights = VarBuilder::from_buffered_safetensors(tensors, DType::F32, &Device::Cpu).unwrap();
        let model = theirs::Llama::load(weights, &config).unwrap();

        let tokens = Tensor::new(&SEQUENCE[..8], &Device::Cpu)
            .unwrap()
            .unsqueeze(0)
            .unwrap();
        let ours = trainer.model().logits(&tokens).unwrap();
        let mut surprise = 0.0;
        for length in 1..=8 {
            let mut cache = theirs::Cache::new(false, DType::F32, &config, &Device::Cpu).unwrap();
            let part = tokens.narrow(1, 0, length).unwrap();
            let theirs = model
                .forward(&part, 0, &mut cache)
                .unwrap()
                .i(0)
                .unwrap()
                .to_vec1::<f32>()
                .unwrap();
            let ours = ours.i((0, length - 1)).unwrap().to_vec1::<f32>().unwrap();
            let size = theirs.iter().fold(0.0f32, |m, x| m.max(x.abs()));
            assert!(size > 0.1, "logits that say something: {size}");
            let worst = ours
                .iter()
                .zip(&theirs)
                .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(worst < 1e-4, "{heads} {kv_heads} {tied}: {worst}");
            let total: f64 = theirs.iter().map(|&x| f64::from(x).exp()).sum();
            surprise += total.ln() - f64::from(theirs[SEQUENCE[length] as usize]);
        }
        // The decoder's forward tells losses only.
        let spec = trainer.model().spec();
        let decoder = Decoder::new(spec, 0, Recompute::None, &Device::Cpu).unwrap();
        let flat = Flat {
            layout: trainer.layout(),
            weights: &trainer.state().weights,
        };
        let batch = Batch::new(&SEQUENCE, 1, &Device::Cpu).unwrap();
        let nll = decoder.nll(flat, &batch).unwrap();
        assert!(
            (nll - surprise).abs() < 1e-4 * surprise,
            "{heads} {kv_heads} {tied}: {nll}, {surprise}"
        );
    }
}

#[test]
fn the_files_are_those_of_hugging_face_s_layout() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = trained(&byte_spec(4, 2, true), 0);
    let place = export(dir.path(), &trainer);
    let mut names: Vec<_> = fs::read_dir(&place)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    let json = |file: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(place.join(file)).unwrap()).unwrap()
    };
    let config = json("config.json");
    assert_eq!(config["architectures"][0], "LlamaForCausalLM");
    assert_eq!(
        (&config["head_dim"], &config["torch_dtype"]),
        (&4.into(), &"float32".into())
    );
    assert_eq!(
        (&config["bos_token_id"], &config["eos_token_id"]),
        (&0.into(), &0.into())
    );
    assert_eq!(json("tokenizer_config.json")["eos_token"], "<|endoftext|>");
    let tensors = candle_core::safetensors::load(place.join("model.safetensors"), &Device::Cpu).unwrap();
    assert!(
        !tensors.contains_key("lm_head.weight"),
        "a tied head is not stored twice"
    );
    assert_eq!(tensors.len(), trainer.layout().parameters().len());
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        2,
        "nothing temporary stays"
    );
}

#[test]
fn an_older_export_is_replaced_and_other_folders_are_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let place = export(dir.path(), &trained(&byte_spec(4, 2, true), 0));
    let before = fs::read(place.join("model.safetensors")).unwrap();
    fs::create_dir(dir.path().join(".tmp-export-model")).unwrap();
    let trainer = trained(&byte_spec(4, 2, true), 1);
    export(dir.path(), &trainer);
    assert_ne!(fs::read(place.join("model.safetensors")).unwrap(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

    let foreign = dir.path().join("photos");
    fs::create_dir(&foreign).unwrap();
    fs::write(foreign.join("cat.png"), "").unwrap();
    let tokenizer = dir.path().join("source-tokenizer.json");
    let export = Export {
        model: trainer.model().spec(),
        tokenizer: &tokenizer,
        end_of_text: 0,
    };
    let error = export
        .write(&foreign, trainer.layout(), &trainer.state().weights)
        .unwrap_err();
    assert!(matches!(error, TrainerError::Occupied { .. }), "{error}");
    assert!(foreign.join("cat.png").exists());
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = dir.path().join("tokenizer.json");
    write_tokenizer(&tokenizer);
    let trainer = trained(&byte_spec(4, 2, true), 0);
    let (layout, weights) = (trainer.layout(), &trainer.state().weights);
    let place = dir.path().join("model");
    let good = Export {
        model: trainer.model().spec(),
        tokenizer: &tokenizer,
        end_of_text: 0,
    };

    let error = good.write(&place, layout, &weights[1..]).unwrap_err();
    assert!(matches!(error, TrainerError::Length { .. }));
    let other = byte_spec(4, 4, true);
    let error = Export {
        model: &other,
        ..good
    }
    .write(&place, layout, weights)
    .unwrap_err();
    assert!(matches!(error, TrainerError::Shape { .. }));
    let error = Export {
        end_of_text: 256 + 9,
        ..good
    }
    .write(&place, layout, weights)
    .unwrap_err();
    assert!(error.to_string().contains("has no token 265"), "{error}");
    let missing = dir.path().join("none.json");
    let error = Export {
        tokenizer: &missing,
        ..good
    }
    .write(&place, layout, weights)
    .unwrap_err();
    assert!(matches!(error, TrainerError::Storage { .. }));
    fs::write(&tokenizer, "{}").unwrap();
    let error = good.write(&place, layout, weights).unwrap_err();
    assert!(matches!(error, TrainerError::Tokenizer { .. }));
    assert!(!place.exists());
    write_tokenizer(&tokenizer);

    let narrow = crate::common::small(4, 2, true);
    let model = Llama::new(&narrow, 1, DType::F32, &Device::Cpu).unwrap();
    let narrow = Trainer::new(model, &optim(), constant(1.0)).unwrap();
    let export = Export {
        model: narrow.model().spec(),
        ..good
    };
    let error = export
        .write(&place, narrow.layout(), &narrow.state().weights)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("has 257 tokens, the model's vocab_size is 23"),
        "{error}"
    );
}

#[test]
fn an_export_loads_again_with_the_same_logits() {
    let dir = tempfile::tempdir().unwrap();
    let trainer = trained(&byte_spec(4, 2, false), 2);
    let place = export(dir.path(), &trainer);
    let loaded = Generator::open(&place, &Device::Cpu).unwrap();
    assert_eq!(loaded.model().spec(), trainer.model().spec());
    let tokens = Tensor::new(&[5u32, 200, 3], &Device::Cpu)
        .unwrap()
        .unsqueeze(0)
        .unwrap();
    let logits = |model: &Llama| {
        model
            .logits(&tokens)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1::<f32>()
            .unwrap()
    };
    assert_eq!(logits(loaded.model()), logits(trainer.model()));
}
