//! Reading a folder in Hugging Face's layout.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use candle_core::safetensors::SliceSafetensors;
use candle_core::{DType, Device};
use lockstep_engine::spec::ModelSpec;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::error::{ComputeContext, Result, StorageContext, TrainerError};
use crate::export::{CONFIG, WEIGHTS};
use crate::llama::Llama;

/// Longest sequence for which rotary tables are made.
const MOST_POSITIONS: usize = 1 << 20;

/// The fields of `config.json` that matter here.
#[derive(Deserialize)]
pub(super) struct Config {
    model_type: String,
    hidden_act: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rope_theta: Option<f64>,
    rope_scaling: Option<Value>,
    rms_norm_eps: f64,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
    pub(super) bos_token_id: Option<u32>,
    #[serde(default, deserialize_with = "none_one_or_many")]
    pub(super) eos_token_id: Vec<u32>,
}

fn none_one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Tokens {
        One(u32),
        Many(Vec<u32>),
    }
    Ok(match Option::deserialize(deserializer)? {
        None => Vec::new(),
        Some(Tokens::One(token)) => vec![token],
        Some(Tokens::Many(tokens)) => tokens,
    })
}

impl Config {
    fn read(path: &Path) -> Result<Self> {
        if !path.is_dir() {
            return Err(wrong(
                path,
                "it is not a folder; name the folder of an exported model".to_owned(),
            ));
        }
        serde_json::from_slice(&read(path, CONFIG)?)
            .map_err(|error| wrong(path, format!("{CONFIG}: {error}")))
    }

    /// The shape, when it is one that [`Llama`] computes.
    fn spec(&self) -> Result<ModelSpec, String> {
        let require = |holds: bool, problem: &str| if holds { Ok(()) } else { Err(problem.to_owned()) };
        require(self.model_type == "llama", "model_type must be \"llama\"")?;
        require(self.hidden_act == "silu", "hidden_act must be \"silu\"")?;
        require(
            !self.attention_bias && !self.mlp_bias,
            "attention_bias and mlp_bias must be false",
        )?;
        let plain = |scaling: &Value| {
            scaling.is_null() || scaling.get("rope_type").and_then(Value::as_str) == Some("default")
        };
        require(
            self.rope_scaling.as_ref().is_none_or(plain),
            "rope_scaling must be null",
        )?;
        let (width, heads) = (self.hidden_size, self.num_attention_heads);
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        require(
            heads > 0 && width > 0 && width % (2 * heads) == 0,
            "hidden_size must be an even multiple of num_attention_heads",
        )?;
        require(
            kv_heads > 0 && heads % kv_heads == 0,
            "num_key_value_heads must divide num_attention_heads",
        )?;
        let head_dim = self.head_dim.unwrap_or(width / heads);
        require(
            head_dim == width / heads,
            "head_dim must be hidden_size / num_attention_heads",
        )?;
        require(
            (1..=MOST_POSITIONS).contains(&self.max_position_embeddings),
            "max_position_embeddings must be 1 to 1048576",
        )?;
        Ok(ModelSpec {
            vocab_size: self.vocab_size,
            hidden_size: width,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            max_position_embeddings: self.max_position_embeddings,
            rope_theta: self.rope_theta.unwrap_or(10_000.0),
            rms_norm_eps: self.rms_norm_eps,
            tie_word_embeddings: self.tie_word_embeddings,
        })
    }
}

/// Loads the model and its configuration.
pub(super) fn llama(path: &Path, device: &Device) -> Result<(Llama, Config)> {
    let config = Config::read(path)?;
    let spec = config
        .spec()
        .map_err(|problem| wrong(path, format!("{CONFIG}: {problem}")))?;
    if !path.join(WEIGHTS).exists() && path.join(format!("{WEIGHTS}.index.json")).exists() {
        return Err(wrong(
            path,
            format!("its weights are split into several files; join them into one {WEIGHTS}"),
        ));
    }
    let bytes = read(path, WEIGHTS)?;
    let tensors = SliceSafetensors::new(&bytes)
        .map_err(|error| wrong(path, format!("{WEIGHTS} is damaged: {error}")))?;
    let model = Llama::from_values(&spec, DType::F32, device, |name, shape| {
        let missing = |_| wrong(path, format!("{WEIGHTS} has no tensor `{name}`"));
        let found = tensors.get(name).map_err(missing)?.shape().to_vec();
        if found != shape {
            return Err(wrong(
                path,
                format!("`{name}` has shape {found:?}, {CONFIG} asks for {shape:?}"),
            ));
        }
        let tensor = tensors
            .load(name, &Device::Cpu)
            .and_then(|t| t.to_dtype(DType::F32)?.flatten_all());
        tensor.and_then(|t| t.to_vec1()).doing("read a weight")
    })?;
    Ok((model, config))
}

fn read(path: &Path, file: &str) -> Result<Vec<u8>> {
    let file_path = path.join(file);
    match fs::read(&file_path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(wrong(path, format!("{file} is missing"))),
        read => read.at("read", &file_path),
    }
}

fn wrong(path: &Path, problem: String) -> TrainerError {
    TrainerError::NotAModel {
        path: path.to_owned(),
        problem,
    }
}
