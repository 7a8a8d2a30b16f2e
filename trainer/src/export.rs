//! Export in Hugging Face's layout, as transformers, vLLM and llama.cpp's converter read it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use lockstep_engine::spec::ModelSpec;
use serde_json::{Value, json};
use tokenizers::Tokenizer;

use crate::error::{Result, StorageContext, TrainerError};
use crate::files::{self, Staging};
use crate::layout::Layout;
use crate::tensor_file::{self, Entry};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const WEIGHTS: &str = "model.safetensors";
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// What is exported besides the weights.
#[derive(Clone, Copy, Debug)]
pub struct Export<'a> {
    /// The model's shape.
    pub model: &'a ModelSpec,
    /// The tokenizer, a Hugging Face `tokenizer.json`.
    pub tokenizer: &'a Path,
    /// The token between documents: it starts a text and ends it.
    pub end_of_text: u32,
}

impl Export<'_> {
    /// Writes the model with the flat `weights` to the folder `place`, whole or not at all. A model that is there
    /// is replaced.
    ///
    /// # Errors
    /// [`TrainerError::Length`], [`TrainerError::Shape`] when layout and shape differ, [`TrainerError::Tokenizer`],
    /// [`TrainerError::Occupied`] when `place` holds something else, [`TrainerError::DiskFull`],
    /// [`TrainerError::Storage`].
    pub fn write(&self, place: &Path, layout: &Layout, weights: &[f32]) -> Result<()> {
        layout.check("the weights", weights.len())?;
        self.check_layout(layout)?;
        let tokenizer_json = fs::read(self.tokenizer).at("read", self.tokenizer)?;
        let end_of_text = self.end_of_text_token(&tokenizer_json)?;
        let is_model = place.join(CONFIG).is_file();
        let is_empty = fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
        if place.exists() && !is_model && !is_empty {
            return Err(TrainerError::Occupied {
                path: place.to_owned(),
                what: "an exported model",
            });
        }

        let parent = files::parent(place);
        fs::create_dir_all(parent).at("create folder", parent)?;
        let name = place
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        let staging = Staging::new(parent.join(format!(".tmp-export-{name}")))?;
        let json = |file, value: Value| {
            staging.file(file, |out| {
                serde_json::to_writer_pretty(&mut *out, &value)?;
                out.write_all(b"\n")
            })
        };
        json(CONFIG, self.config())?;
        json("generation_config.json", self.generation_config())?;
        json("tokenizer_config.json", self.tokenizer_config(&end_of_text))?;
        staging.file(TOKENIZER, |out| out.write_all(&tokenizer_json))?;
        staging.file(WEIGHTS, |out| {
            let entries: Vec<Entry<'_>> = layout.parameters().iter().map(|p| p.entry(weights)).collect();
            tensor_file::write(out, &BTreeMap::from([("format", "pt".to_owned())]), &entries)
        })?;

        let aside = parent.join(format!(".tmp-export-{name}-replaced"));
        files::remove(&aside)?;
        if place.exists() {
            fs::rename(place, &aside).at("move aside", place)?;
        }
        staging.publish(place)?;
        files::remove(&aside)
    }

    fn check_layout(&self, layout: &Layout) -> Result<()> {
        let expected = crate::llama::shapes(self.model);
        let found = layout.parameters().iter().map(|p| (&p.name, &p.shape));
        if found.eq(expected.iter().map(|(name, shape)| (name, shape))) {
            return Ok(());
        }
        let problem =
            "the layout is not that of the Llama architecture of this shape; only that can be exported";
        Err(TrainerError::Shape {
            problem: problem.to_owned(),
        })
    }

    /// The text of the end-of-text token.
    fn end_of_text_token(&self, tokenizer_json: &[u8]) -> Result<String> {
        let path = self.tokenizer.to_owned();
        let tokenizer = match Tokenizer::from_bytes(tokenizer_json) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                return Err(TrainerError::Tokenizer {
                    path,
                    problem: error.to_string(),
                });
            }
        };
        let (tokens, rows) = (tokenizer.get_vocab_size(true), self.model.vocab_size);
        if tokens > rows {
            let problem = format!("has {tokens} tokens, the model's vocab_size is {rows}");
            return Err(TrainerError::Tokenizer { path, problem });
        }
        let missing = || format!("has no token {}, which is to end a text", self.end_of_text);
        tokenizer
            .id_to_token(self.end_of_text)
            .ok_or_else(|| TrainerError::Tokenizer {
                path,
                problem: missing(),
            })
    }

    fn config(&self) -> Value {
        let spec = self.model;
        json!({
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": false,
            "attention_dropout": 0.0,
            "bos_token_id": self.end_of_text,
            "eos_token_id": self.end_of_text,
            "head_dim": spec.hidden_size / spec.num_attention_heads,
            "hidden_act": "silu",
            "hidden_size": spec.hidden_size,
            "initializer_range": 0.02,
            "intermediate_size": spec.intermediate_size,
            "max_position_embeddings": spec.max_position_embeddings,
            "mlp_bias": false,
            "model_type": "llama",
            "num_attention_heads": spec.num_attention_heads,
            "num_hidden_layers": spec.num_hidden_layers,
            "num_key_value_heads": spec.num_key_value_heads,
            "pretraining_tp": 1,
            "rms_norm_eps": spec.rms_norm_eps,
            "rope_scaling": null,
            "rope_theta": spec.rope_theta,
            "tie_word_embeddings": spec.tie_word_embeddings,
            "torch_dtype": "float32",
            "use_cache": true,
            "vocab_size": spec.vocab_size,
        })
    }

    fn generation_config(&self) -> Value {
        json!({
            "_from_model_config": true,
            "bos_token_id": self.end_of_text,
            "eos_token_id": self.end_of_text,
        })
    }

    fn tokenizer_config(&self, end_of_text: &str) -> Value {
        json!({
            "add_bos_token": false,
            "add_eos_token": false,
            "bos_token": end_of_text,
            "clean_up_tokenization_spaces": false,
            "eos_token": end_of_text,
            "model_max_length": self.model.max_position_embeddings,
            "tokenizer_class": "PreTrainedTokenizerFast",
        })
    }
}
