//! Text from exported models.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{Device, IndexOp, Tensor};
use lockstep_engine::spec::ModelSpec;
use lockstep_trainer::{Batch, Export, Finish, Generated, Generator, Llama, Sampling, Trainer, TrainerError};

use crate::common::{byte_spec, trained, trainer, write_tokenizer};

fn export(dir: &Path, trainer: &Trainer<Llama>) -> PathBuf {
    let tokenizer = dir.join("tokenizer.json");
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

fn greedy(max_tokens: usize) -> Sampling {
    Sampling {
        temperature: 0.0,
        top_k: 0,
        seed: 0,
        max_tokens,
    }
}

fn generate(generator: &Generator, prompt: &str, sampling: &Sampling) -> (Generated, Vec<String>) {
    let mut pieces = Vec::new();
    let generated = generator.generate(prompt, sampling, |piece| {
        pieces.push(piece.to_owned());
        ControlFlow::Continue(())
    });
    (generated.unwrap(), pieces)
}

/// A model that has learnt one text by heart, of characters of one to four bytes, then its end.
fn parrot(dir: &Path) -> (Generator, &'static str) {
    let text = "aé→🦀b";
    let spec = ModelSpec {
        max_position_embeddings: 16,
        ..byte_spec(4, 2, true)
    };
    let mut trainer = trainer(&spec);
    let place = export(dir, &trainer);
    let tokenizer = Generator::open(&place, &Device::Cpu).unwrap().tokenizer().clone();
    let ids = tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let tokens = [vec![0], ids, vec![0]].concat();
    let batch = Batch::new(&tokens, 1, &Device::Cpu).unwrap();
    for _ in 0..80 {
        let mut gradient = trainer.layout().zeros();
        trainer.accumulate(&batch, &mut gradient).unwrap();
        trainer.apply(&gradient, 1.0).unwrap();
    }
    (
        Generator::open(&export(dir, &trainer), &Device::Cpu).unwrap(),
        text,
    )
}

#[test]
fn a_text_learnt_by_heart_comes_back_in_whole_characters() {
    let dir = tempfile::tempdir().unwrap();
    let (generator, text) = parrot(dir.path());
    // An empty prompt starts a new text.
    let (generated, pieces) = generate(&generator, "", &greedy(40));
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        (text, Finish::EndOfText)
    );
    assert_eq!(pieces, text.chars().map(String::from).collect::<Vec<_>>());
    assert_eq!(generated.tokens.len(), text.len());

    let (generated, _) = generate(
        &generator,
        "aé",
        &Sampling {
            temperature: 0.01,
            ..greedy(40)
        },
    );
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("→🦀b", Finish::EndOfText)
    );

    // Cut inside a character: what is open is shown as such.
    let (generated, pieces) = generate(&generator, "aé→", &greedy(2));
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("\u{fffd}", Finish::Length)
    );
    assert_eq!(pieces, ["\u{fffd}"]);

    let mut seen = String::new();
    let stop_after_two = |piece: &str| {
        seen.push_str(piece);
        if seen.chars().count() == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let generated = generator.generate("", &greedy(40), stop_after_two).unwrap();
    assert_eq!(
        (generated.text.as_str(), generated.finish),
        ("aé", Finish::Stopped)
    );
    assert_eq!(seen, "aé");
}

/// The cache gives what a model without one gives, also when the window slides.
#[test]
fn generation_follows_the_model_s_logits() {
    let dir = tempfile::tempdir().unwrap();
    let spec = ModelSpec {
        max_position_embeddings: 8,
        ..byte_spec(4, 2, false)
    };
    let place = export(dir.path(), &trained(&spec, 6));
    let generator = Generator::open(&place, &Device::Cpu).unwrap();
    for prompt in [
        "h",
        "hello",
        "exactly8",
        "a prompt that is longer than the context",
    ] {
        let (generated, _) = generate(&generator, prompt, &greedy(20));
        let ids = generator
            .tokenizer()
            .encode(prompt, false)
            .unwrap()
            .get_ids()
            .to_vec();
        let mut window = ids[ids.len().saturating_sub(8)..].to_vec();
        for (i, &token) in generated.tokens.iter().enumerate() {
            if window.len() > 8 {
                window.drain(..window.len() - 4);
            }
            let tokens = Tensor::new(window.as_slice(), &Device::Cpu)
                .unwrap()
                .unsqueeze(0)
                .unwrap();
            let logits = generator.model().logits(&tokens).unwrap();
            let logits = logits.i((0, window.len() - 1)).unwrap().to_vec1::<f32>().unwrap();
            let best = logits.iter().copied().fold(f32::MIN, f32::max);
            assert!(best - logits[token as usize] < 1e-4, "{prompt}: token {i}");
            window.push(token);
        }
        assert!(generated.finish == Finish::EndOfText || generated.tokens.len() == 20);
    }
}

#[test]
fn a_seed_decides_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let generator = Generator::open(
        &export(dir.path(), &trainer(&byte_spec(4, 2, false))),
        &Device::Cpu,
    )
    .unwrap();
    let tokens = |seed| {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: 0,
            seed,
            max_tokens: 30,
        };
        generate(&generator, "x", &sampling).0.tokens
    };
    assert_eq!(tokens(1), tokens(1));
    assert_ne!(tokens(1), tokens(2));
    let bad = Sampling {
        temperature: -1.0,
        ..Sampling::default()
    };
    let error = generator
        .generate("x", &bad, |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(matches!(
        error,
        TrainerError::Setting {
            field: "temperature",
            ..
        }
    ));
}

#[test]
fn folders_that_are_not_models_are_refused_with_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let open = |place: &Path| match Generator::open(place, &Device::Cpu) {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.to_string(),
    };
    let edit = |from: &'static str, to: &'static str| {
        move |place: &Path| {
            let file = place.join("config.json");
            let text = fs::read_to_string(&file).unwrap();
            assert!(text.contains(from), "{from}");
            fs::write(file, text.replacen(from, to, 1)).unwrap();
        }
    };
    let remove = |name: &'static str| move |place: &Path| fs::remove_file(place.join(name)).unwrap();
    let cut = |place: &Path| {
        let file = place.join("model.safetensors");
        let whole = fs::read(&file).unwrap();
        fs::write(&file, &whole[..whole.len() - 100]).unwrap();
    };
    let split = |place: &Path| {
        fs::rename(
            place.join("model.safetensors"),
            place.join("model.safetensors.index.json"),
        )
        .unwrap();
    };
    type Damage<'a> = (&'a str, Box<dyn Fn(&Path) + 'a>);
    let cases: Vec<Damage<'_>> = vec![
        ("config.json is missing", Box::new(remove("config.json"))),
        (
            "model.safetensors is missing",
            Box::new(remove("model.safetensors")),
        ),
        ("tokenizer.json is missing", Box::new(remove("tokenizer.json"))),
        ("split into several files", Box::new(split)),
        ("model.safetensors is damaged", Box::new(cut)),
        (
            "config.json: missing field `hidden_size`",
            Box::new(edit("\"hidden_size\"", "\"hidden\"")),
        ),
        ("config.json: expected", Box::new(edit("{", "["))),
        (
            "model_type must be \"llama\"",
            Box::new(edit("\"model_type\": \"llama\"", "\"model_type\": \"gpt2\"")),
        ),
        (
            "rope_scaling must be null",
            Box::new(edit(
                "\"rope_scaling\": null",
                "\"rope_scaling\": {\"rope_type\": \"yarn\"}",
            )),
        ),
        (
            "num_key_value_heads must divide",
            Box::new(edit("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3")),
        ),
        (
            "hidden_size must be an even multiple",
            Box::new(edit("\"num_attention_heads\": 4", "\"num_attention_heads\": 0")),
        ),
        (
            "asks for [280, 16]",
            Box::new(edit("\"vocab_size\": 257", "\"vocab_size\": 280")),
        ),
        (
            "has no tensor `model.layers.2.",
            Box::new(edit("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3")),
        ),
    ];
    for (expected, damage) in &cases {
        let place = export(dir.path(), &trainer(&byte_spec(4, 2, false)));
        assert_eq!(open(&place), "ok");
        damage(&place);
        let error = open(&place);
        assert!(
            error.contains(expected) && error.contains("model"),
            "{expected}: {error}"
        );
        fs::remove_dir_all(&place).unwrap();
    }
    assert!(open(&dir.path().join("none")).contains("it is not a folder"));
    assert!(open(dir.path()).contains("config.json is missing"));
}

#[test]
fn without_a_starting_token_a_prompt_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let place = export(dir.path(), &trainer(&byte_spec(4, 2, false)));
    let file = place.join("config.json");
    let text = fs::read_to_string(&file).unwrap();
    let text = text.replace("\"bos_token_id\": 0", "\"bos_token_id\": null");
    fs::write(&file, text.replace("\"eos_token_id\": 0", "\"eos_token_id\": []")).unwrap();
    let generator = Generator::open(&place, &Device::Cpu).unwrap();
    let error = generator
        .generate("", &greedy(3), |_| ControlFlow::Continue(()))
        .unwrap_err();
    assert!(error.to_string().contains("give a prompt"), "{error}");
    assert_eq!(generate(&generator, "x", &greedy(3)).0.finish, Finish::Length);
}
