//! Text from an exported model.
//!
//! | module | what |
//! |---|---|
//! | `load` | reading a folder in Hugging Face's layout |
//! | `sampling` | choosing the next token |
//! | `detokenizer` | tokens to text, piece by piece |

mod detokenizer;
mod load;
mod sampling;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};
use tokenizers::Tokenizer;

pub use sampling::Sampling;

use crate::error::{ComputeContext, Result, TrainerError};
use crate::llama::{Cache, Llama};
use detokenizer::Detokenizer;
use sampling::Sampler;

/// An exported model, ready to write.
pub struct Generator {
    path: PathBuf,
    model: Llama,
    tokenizer: Tokenizer,
    start: Option<u32>,
    ends: Vec<u32>,
}

/// Why a text ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model wrote its end-of-text token.
    EndOfText,
    /// `max_tokens` were written.
    Length,
    /// The caller's function said so.
    Stopped,
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// The text, without the prompt.
    pub text: String,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
}

impl Generator {
    /// Loads the folder of an exported Llama, `f32`, `f16` or `bf16`.
    ///
    /// # Errors
    /// [`TrainerError::NotAModel`] names the file, field or tensor that is missing or wrong;
    /// [`TrainerError::Tokenizer`].
    pub fn open(path: &Path, device: &Device) -> Result<Self> {
        let (model, config) = load::llama(path, device)?;
        let file = path.join(crate::export::TOKENIZER);
        if !file.is_file() {
            let problem = format!("{} is missing", crate::export::TOKENIZER);
            return Err(TrainerError::NotAModel {
                path: path.to_owned(),
                problem,
            });
        }
        let tokenizer = Tokenizer::from_file(&file).map_err(|error| TrainerError::Tokenizer {
            path: file,
            problem: error.to_string(),
        })?;
        let start = config
            .bos_token_id
            .or_else(|| config.eos_token_id.first().copied());
        Ok(Self {
            path: path.to_owned(),
            model,
            tokenizer,
            start,
            ends: config.eos_token_id,
        })
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &Llama {
        &self.model
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Continues `prompt`; `on_text` gets every piece as soon as its last character is whole, and may stop.
    ///
    /// Only the last `max_position_embeddings` tokens are seen. When the window is full, its older half is
    /// forgotten. An empty prompt starts a new text. The same seed gives the same text.
    ///
    /// # Errors
    /// [`TrainerError::Setting`], [`TrainerError::Tokenizer`], [`TrainerError::NotAModel`] when the prompt is
    /// empty and no token starts a text or the prompt has tokens that the model lacks, [`TrainerError::Compute`].
    pub fn generate(
        &self,
        prompt: &str,
        sampling: &Sampling,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated> {
        let sampler = Sampler::new(sampling)?;
        let mut window = self.encode(prompt)?;
        let context = self.model.spec().max_position_embeddings;
        window.drain(..window.len().saturating_sub(context));
        let mut cache = Cache::default();
        let mut detokenizer = Detokenizer::new(&self.tokenizer);
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut finish = Finish::Length;
        for index in 0..sampling.max_tokens {
            if window.len() > context {
                window.drain(..window.len() - context.div_ceil(2));
                cache.clear();
            }
            let logits = self.model.next_logits(&window[cache.len()..], &mut cache);
            let logits = logits
                .and_then(|l| l.to_dtype(DType::F32)?.to_vec1::<f32>())
                .doing("predict a token")?;
            let token = sampler.choose(&logits, index);
            if self.ends.contains(&token) {
                finish = Finish::EndOfText;
                break;
            }
            window.push(token);
            tokens.push(token);
            let piece = detokenizer
                .push(token)
                .map_err(|problem| self.tokenizer_error(&problem))?;
            text.push_str(&piece);
            if !piece.is_empty() && on_text(&piece).is_break() {
                finish = Finish::Stopped;
                break;
            }
        }
        let rest = detokenizer
            .finish()
            .map_err(|problem| self.tokenizer_error(&problem))?;
        text.push_str(&rest);
        if !rest.is_empty() && finish != Finish::Stopped {
            // The text is over: whether to stop is no longer a question.
            let _ = on_text(&rest);
        }
        Ok(Generated { text, tokens, finish })
    }

    fn encode(&self, prompt: &str) -> Result<Vec<u32>> {
        let not_a_model = |problem| TrainerError::NotAModel {
            path: self.path.clone(),
            problem,
        };
        let encoding = self
            .tokenizer
            .encode(prompt, false)
            .map_err(|e| self.tokenizer_error(&e.to_string()))?;
        let tokens = encoding.get_ids().to_vec();
        let rows = self.model.spec().vocab_size;
        if let Some(token) = tokens
            .iter()
            .chain(&self.start)
            .find(|&&token| token as usize >= rows)
        {
            return Err(not_a_model(format!(
                "its tokenizer makes token {token}, its vocab_size is {rows}"
            )));
        }
        match (tokens.is_empty(), self.start) {
            (false, _) => Ok(tokens),
            (true, Some(start)) => Ok(vec![start]),
            (true, None) => Err(not_a_model(
                "config.json names neither bos_token_id nor eos_token_id to start a text; give a prompt"
                    .to_owned(),
            )),
        }
    }

    fn tokenizer_error(&self, problem: &str) -> TrainerError {
        TrainerError::Tokenizer {
            path: self.path.join(crate::export::TOKENIZER),
            problem: problem.to_owned(),
        }
    }
}
