//! The shape of a model, in Hugging Face's field names, and the presets.

use super::reader::{Reader, Section, nearest};

/// A Llama-architecture decoder: RMSNorm, rotary positions, grouped-query attention, SwiGLU.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct ModelSpec {
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width inside the SwiGLU.
    pub intermediate_size: usize,
    /// Decoder blocks.
    pub num_hidden_layers: usize,
    /// Query heads; `hidden_size / num_attention_heads` is the width of one, and is even.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Longest sequence, in tokens.
    pub max_position_embeddings: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in RMSNorm.
    pub rms_norm_eps: f64,
    /// Whether the head is the embedding, transposed.
    pub tie_word_embeddings: bool,
}

/// A named shape.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The name to write in a spec.
    pub name: &'static str,
    /// What it is for.
    pub about: &'static str,
    /// Its shape.
    pub model: ModelSpec,
}

/// All presets, smallest first.
#[must_use]
pub fn presets() -> Vec<Preset> {
    let shape = |vocab, hidden, ffn, layers, heads, kv_heads, length, tied| ModelSpec {
        vocab_size: vocab,
        hidden_size: hidden,
        intermediate_size: ffn,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        max_position_embeddings: length,
        rope_theta: 10_000.0,
        rms_norm_eps: 1e-5,
        tie_word_embeddings: tied,
    };
    let preset = |name, about, model| Preset { name, about, model };
    vec![
        preset(
            "nano",
            "seconds on a laptop; for tests",
            shape(512, 64, 172, 2, 4, 2, 64, false),
        ),
        preset(
            "tiny",
            "minutes on a laptop; the demo's",
            shape(1024, 128, 344, 4, 4, 4, 128, false),
        ),
        preset(
            "small",
            "an hour on a workstation",
            shape(4096, 256, 688, 4, 4, 4, 256, false),
        ),
        preset(
            "base",
            "34M parameters: a GPU, or patience",
            shape(8192, 512, 1376, 8, 8, 8, 256, false),
        ),
        preset(
            "gpt2",
            "101M parameters, grouped queries, tied head: GPUs",
            shape(32768, 768, 2048, 12, 12, 4, 1024, true),
        ),
    ]
}

impl ModelSpec {
    /// Number of weights.
    #[must_use]
    pub fn parameters(&self) -> usize {
        let kv = self.hidden_size / self.num_attention_heads * self.num_key_value_heads;
        let attention = 2 * self.hidden_size * (self.hidden_size + kv);
        let mlp = 3 * self.hidden_size * self.intermediate_size;
        let block = attention + mlp + 2 * self.hidden_size;
        let embeddings = if self.tie_word_embeddings { 1 } else { 2 } * self.vocab_size * self.hidden_size;
        embeddings + self.num_hidden_layers * block + self.hidden_size
    }

    pub(super) fn read(reader: &mut Reader<'_>, section: &mut Section<'_, '_>) -> Self {
        let presets = presets();
        let names: Vec<&str> = presets.iter().map(|p| p.name).collect();
        let expected = format!("one of {}", names.join(", "));
        let mut unknown = None;
        let preset = section.text(reader, "preset", &expected, |name| {
            let found = presets.iter().find(|p| p.name == name);
            unknown = found.is_none().then(|| nearest(name, &names)).flatten();
            found
        });
        if let Some(near) = unknown {
            reader.reject(format!("model.preset: did you mean `{near}`?"));
        }
        let mut model = preset.unwrap_or(&presets[1]).model.clone();
        let kv_follows_heads = model.num_attention_heads == model.num_key_value_heads;
        let mut set = |field: &mut usize, name, bound| {
            let given = section.integer(reader, name, bound);
            if let Some(value) = given {
                *field = value as usize;
            }
            given.is_some()
        };
        set(&mut model.vocab_size, "vocab_size", 258..=1 << 20);
        set(&mut model.hidden_size, "hidden_size", 2..=1 << 16);
        set(&mut model.intermediate_size, "intermediate_size", 1..=1 << 18);
        set(&mut model.num_hidden_layers, "num_hidden_layers", 1..=1024);
        let heads_given = set(&mut model.num_attention_heads, "num_attention_heads", 1..=1024);
        let kv_given = set(&mut model.num_key_value_heads, "num_key_value_heads", 1..=1024);
        set(
            &mut model.max_position_embeddings,
            "max_position_embeddings",
            8..=1 << 20,
        );
        if heads_given && !kv_given && kv_follows_heads {
            model.num_key_value_heads = model.num_attention_heads;
        }
        model.rope_theta = section
            .number(reader, "rope_theta", 1.0..=1e9)
            .unwrap_or(model.rope_theta);
        model.rms_norm_eps = section
            .number(reader, "rms_norm_eps", 1e-12..=1e-1)
            .unwrap_or(model.rms_norm_eps);
        model.tie_word_embeddings = section
            .flag(reader, "tie_word_embeddings")
            .unwrap_or(model.tie_word_embeddings);
        let (hidden, heads, kv) = (
            model.hidden_size,
            model.num_attention_heads,
            model.num_key_value_heads,
        );
        if hidden % (2 * heads) != 0 {
            reader.reject(format!(
                "model.hidden_size = {hidden}: must be an even multiple of num_attention_heads = {heads}"
            ));
        }
        if heads % kv != 0 {
            reader.reject(format!(
                "model.num_key_value_heads = {kv}: must divide num_attention_heads = {heads}"
            ));
        }
        model
    }
}
