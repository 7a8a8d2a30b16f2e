//! One member's part of the state.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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

/// One part of a state as it is at an instant, to be written while training goes on.
///
/// It shares the state's values until they are written, or until it is to [let go](Self::let_go) of them. Clones are of
/// the same piece.
#[derive(Clone, Debug)]
pub struct Piece {
    pub(super) step: Step,
    /// Of `0..count`.
    pub(super) index: usize,
    pub(super) count: usize,
    /// Elements of the whole state.
    pub(super) len: usize,
    pub(super) range: Range<usize>,
    lent: Arc<Lent>,
}

/// What is to be written, until it is; and a bell that rings then.
#[derive(Debug)]
struct Lent {
    values: Mutex<Option<Values>>,
    written: Condvar,
}

/// By the names of [`Piece::PARTS`]; the first element of the piece's range lies at `from`.
#[derive(Debug)]
struct Values {
    parts: [Arc<Vec<f32>>; 3],
    from: usize,
}

impl Lent {
    fn lock(&self) -> MutexGuard<'_, Option<Values>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let range = part(len, index, count);
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
            lent: Arc::new(Lent {
                values: Mutex::new(Some(Values {
                    parts: [
                        share("the weights", &state.weights)?,
                        share("the first moment", &state.first)?,
                        share("the second moment", &state.second)?,
                    ],
                    from: range.start,
                })),
                written: Condvar::new(),
            }),
            range,
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

    /// Looks at elements, counted from the first of the range, of the `part`-th part. Whoever lets go waits for it: a block at
    /// a time, and for no disk.
    pub(super) fn with<T>(
        &self,
        part: usize,
        elements: Range<usize>,
        look: impl FnOnce(&[f32]) -> T,
    ) -> io::Result<T> {
        let lent = self.lent.lock();
        let Values { parts, from } = lent
            .as_ref()
            .ok_or_else(|| io::Error::other("nothing is left of a piece that was written"))?;
        Ok(look(&parts[part][from + elements.start..from + elements.end]))
    }

    /// It is written, or will never be: nothing is left of it.
    pub(super) fn end(&self) {
        *self.lent.lock() = None;
        self.lent.written.notify_all();
    }

    /// Sees to it that the state's values are the state's alone again: waits until they are written, for as long as
    /// `patience`, and copies what is left. Returns whether they were.
    pub fn let_go(&self, patience: Duration) -> bool {
        let waited = self
            .lent
            .written
            .wait_timeout_while(self.lent.lock(), patience, |values| values.is_some());
        let (mut values, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if let Some(Values { parts, from }) = &mut *values {
            let range = *from..*from + self.range.len();
            *parts = parts
                .each_ref()
                .map(|values| Arc::new(values[range.clone()].to_vec()));
            *from = 0;
        }
        values.is_none()
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
