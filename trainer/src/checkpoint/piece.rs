//! One member's part of the state.

use std::ops::Range;
use std::sync::Arc;

use lockstep_engine::ids::Step;

use super::tree;
use crate::error::{Result, TrainerError};
use crate::state::State;

/// The `index`-th of `count` consecutive parts of `0..len`, of about the same size.
///
/// They meet at multiples of 256 elements, so that the digest of the whole follows from those of the parts; of a
/// very small model, all is in the last.
#[must_use]
pub fn part(len: usize, index: usize, count: usize) -> Range<usize> {
    let cut = |i: usize| match (len as u128 * i as u128 / count as u128) as usize {
        at if at == len => len,
        at => at - at % tree::CHUNK,
    };
    cut(index)..cut(index + 1)
}

/// One part of a state as it is at an instant, to be written while training goes on. It shares the state's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Piece {
    pub(super) step: Step,
    /// Of `0..count`.
    pub(super) index: usize,
    pub(super) count: usize,
    /// Elements of the whole state.
    pub(super) len: usize,
    pub(super) range: Range<usize>,
    weights: Arc<Vec<f32>>,
    first: Arc<Vec<f32>>,
    second: Arc<Vec<f32>>,
}

impl Piece {
    /// Part `index` of `count` of `state`: three runs of memory.
    ///
    /// # Errors
    /// [`Setting`](TrainerError::Setting) when there is no such part, [`Length`](TrainerError::Length) when the
    /// moments are not as long as the weights.
    pub fn of(state: &State, index: usize, count: usize) -> Result<Self> {
        if index >= count {
            return Err(TrainerError::Setting {
                field: "shard",
                value: index.to_string(),
                bound: "below the number of shards",
            });
        }
        let len = state.weights.len();
        let share = |what, values: &Arc<Vec<f32>>| {
            if values.len() == len {
                return Ok(values.clone());
            }
            Err(TrainerError::Length {
                what,
                found: values.len(),
                expected: len,
            })
        };
        Ok(Self {
            step: state.step,
            index,
            count,
            len,
            range: part(len, index, count),
            weights: share("the weights", &state.weights)?,
            first: share("the first moment", &state.first)?,
            second: share("the second moment", &state.second)?,
        })
    }

    /// The last step that was applied to the state.
    #[must_use]
    pub fn step(&self) -> Step {
        self.step
    }

    /// The elements of the flat buffers that it holds.
    #[must_use]
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// The names of what it holds, in its file and in the order there.
    pub(super) const PARTS: [&str; 3] = ["weights", "first", "second"];

    /// What it holds.
    pub(super) fn parts(&self) -> [&[f32]; 3] {
        [&self.weights, &self.first, &self.second].map(|values| &values[self.range.clone()])
    }

    /// The name of the file that holds it.
    #[must_use]
    pub fn file(&self) -> String {
        format!("shard-{}-of-{}.safetensors", self.index + 1, self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_tile_and_are_alike(len in 0usize..100_000, count in 1usize..20) {
            let mut at = 0;
            for index in 0..count {
                let part = part(len, index, count);
                prop_assert_eq!(part.start, at);
                prop_assert!(part.len().abs_diff(len / count) <= tree::CHUNK);
                at = part.end;
            }
            prop_assert_eq!(at, len);
        }
    }

    #[test]
    fn a_piece_that_cannot_be_is_refused() {
        let state = State::initial(vec![1.0; 10]);
        assert!(matches!(
            Piece::of(&state, 2, 2),
            Err(TrainerError::Setting { field: "shard", .. })
        ));
        let torn = State {
            second: Arc::new(vec![0.0; 9]),
            ..state
        };
        assert!(matches!(
            Piece::of(&torn, 0, 2),
            Err(TrainerError::Length {
                found: 9,
                expected: 10,
                ..
            })
        ));
    }
}
