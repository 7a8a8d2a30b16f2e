//! What a model learns from at once.

use candle_core::{Device, Tensor};

use crate::error::{ComputeContext, Result, TrainerError};

/// One microbatch: `sequences × length` tokens and, for each, the token that follows it.
#[derive(Clone, Debug)]
pub struct Batch {
    inputs_bt: Tensor,
    targets_bt: Tensor,
    inputs: Vec<u32>,
    targets: Vec<u32>,
    sequences: usize,
    largest: u32,
}

impl Batch {
    /// From `sequences` rows of `length + 1` tokens, row after row: a row's first `length` are the inputs,
    /// its last `length` the targets.
    ///
    /// # Errors
    /// [`TrainerError::Batch`] when the rows are not whole or hold fewer than two tokens.
    pub fn new(tokens: &[u32], sequences: usize, device: &Device) -> Result<Self> {
        if sequences == 0 || !tokens.len().is_multiple_of(sequences) || tokens.len() / sequences < 2 {
            let problem = format!(
                "{} tokens are not {sequences} rows of at least two tokens each (inputs and one target more)",
                tokens.len()
            );
            return Err(TrainerError::Batch { problem });
        }
        let row = tokens.len() / sequences;
        let pick = |from: usize| -> Vec<u32> {
            tokens
                .chunks_exact(row)
                .flat_map(|row| row[from..from + row.len() - 1].iter().copied())
                .collect()
        };
        let (inputs, targets) = (pick(0), pick(1));
        let shape = (sequences, row - 1);
        Ok(Self {
            inputs_bt: Tensor::from_slice(&inputs, shape, device).doing("make a batch")?,
            targets_bt: Tensor::from_slice(&targets, shape, device).doing("make a batch")?,
            inputs,
            targets,
            sequences,
            largest: tokens.iter().copied().max().unwrap_or(0),
        })
    }

    /// Inputs, `u32`, (sequences, length).
    #[must_use]
    pub fn inputs(&self) -> &Tensor {
        &self.inputs_bt
    }

    /// Targets, `u32`, (sequences, length).
    #[must_use]
    pub fn targets(&self) -> &Tensor {
        &self.targets_bt
    }

    /// Inputs, row after row, on the host.
    #[must_use]
    pub fn input_ids(&self) -> &[u32] {
        &self.inputs
    }

    /// Rows.
    #[must_use]
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// Tokens of a row.
    #[must_use]
    pub fn length(&self) -> usize {
        self.inputs.len() / self.sequences
    }

    /// Targets, row after row, on the host.
    #[must_use]
    pub fn target_ids(&self) -> &[u32] {
        &self.targets
    }

    /// The largest token among inputs and targets: a model's vocabulary must reach beyond it.
    #[must_use]
    pub fn largest_token(&self) -> u32 {
        self.largest
    }

    /// Tokens predicted: sequences × length.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.targets.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_inputs_one_later() {
        let batch = Batch::new(&[1, 2, 3, 4, 5, 6], 2, &Device::Cpu).unwrap();
        assert_eq!(batch.inputs().to_vec2::<u32>().unwrap(), [[1, 2], [4, 5]]);
        assert_eq!(batch.targets().to_vec2::<u32>().unwrap(), [[2, 3], [5, 6]]);
        assert_eq!((batch.target_ids(), batch.tokens()), (&[2, 3, 5, 6][..], 4));
        assert_eq!(
            Batch::new(&[9, 3, 4, 5], 2, &Device::Cpu)
                .unwrap()
                .largest_token(),
            9
        );
    }

    #[test]
    fn ragged_rows_are_refused() {
        for (tokens, sequences) in [
            (&[1, 2, 3][..], 2),
            (&[1, 2][..], 2),
            (&[][..], 1),
            (&[1, 2][..], 0),
        ] {
            assert!(Batch::new(tokens, sequences, &Device::Cpu).is_err());
        }
    }
}
