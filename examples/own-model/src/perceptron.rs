//! A neural n-gram model (Bengio et al., 2003): the embeddings of the last tokens, side by side, through one hidden layer.

use candle_core::{Device, Result, Tensor, Var};
use lockstep::engine::random::Stream;
use lockstep::engine::spec::ModelSpec;
use lockstep::trainer::{Batch, Model};

/// Tokens that the next one is guessed from.
const CONTEXT: usize = 4;

/// The model. Its parameters are candle's variables, its gradient comes from candle's autograd.
pub(crate) struct Perceptron {
    parameters: Vec<(String, Var)>,
}

impl Perceptron {
    /// `hidden_size` is the width of an embedding, `intermediate_size` that of the hidden layer.
    pub(crate) fn new(spec: &ModelSpec, seed: u64, device: &Device) -> Result<Self> {
        let shapes = [
            ("embed", vec![spec.vocab_size, spec.hidden_size]),
            ("hidden", vec![spec.intermediate_size, CONTEXT * spec.hidden_size]),
            ("bias", vec![1, spec.intermediate_size]),
            ("head", vec![spec.vocab_size, spec.intermediate_size]),
        ];
        let make = |(site, (name, shape)): (usize, (&str, Vec<usize>))| {
            let stream = Stream::new(seed, site as u64);
            let deviation = 1.0 / (shape[1] as f64).sqrt();
            let len = shape.iter().product::<usize>() as u64;
            let values: Vec<f32> = (0..len)
                .map(|i| (stream.normal_pair(i)[0] * deviation) as f32)
                .collect();
            Ok((name.to_owned(), Var::from_vec(values, shape, device)?))
        };
        let parameters = shapes.into_iter().enumerate().map(make).collect::<Result<_>>()?;
        Ok(Self { parameters })
    }
}

impl Model for Perceptron {
    fn parameters(&self) -> &[(String, Var)] {
        &self.parameters
    }

    fn loss(&self, batch: &Batch) -> Result<Tensor> {
        let [embed, hidden, bias, head] = [0, 1, 2, 3].map(|at| self.parameters[at].1.as_tensor());
        let (sequences, length) = batch.inputs().dims2()?;
        let width = embed.dim(1)?;
        let x = embed
            .index_select(&batch.inputs().flatten_all()?, 0)?
            .reshape((sequences, length, width))?;
        // The token itself and those before it; zeros before the first.
        let before = |back: usize| x.narrow(1, 0, length - back)?.pad_with_zeros(1, back, 0);
        let window = (0..CONTEXT).map(before).collect::<Result<Vec<_>>>()?;
        let window = Tensor::cat(&window, 2)?.reshape((sequences * length, CONTEXT * width))?;
        let inner = window.matmul(&hidden.t()?)?.broadcast_add(bias)?.tanh()?;
        let logits = inner.matmul(&head.t()?)?;
        // Cross entropy of operations that candle can differentiate.
        let largest = logits.max_keepdim(1)?.detach();
        let shifted = logits.broadcast_sub(&largest)?;
        let chosen = shifted.gather(&batch.targets().flatten_all()?.unsqueeze(1)?, 1)?;
        (shifted.exp()?.sum_keepdim(1)?.log()? - chosen)?.mean_all()
    }
}
