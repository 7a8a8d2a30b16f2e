//! What a feed tells, as frames: the framing alone, over any reader and writer.
//!
//! A feed is one of [`Told::Same`], [`Told::State`] and, if the follower is one step behind,
//! [`Told::Gradient`], then the gradients of the steps after it, one by one. Each is a frame that announces it,
//! and the values of its parts in pieces. There may be idle frames before any of the announcements. A refusal
//! stands alone.

use std::fmt;
use std::io::{Read, Write};
use std::ops::Range;
use std::sync::Arc;

use lockstep_engine::ids::{Epoch, Step};

use crate::error::LossReason;
use crate::frame::{FrameError, Header, Kind};
use crate::limits::MAX_PAYLOAD_BYTES;
use crate::wire;

/// Values of a full piece.
const PIECE_VALUES: usize = MAX_PAYLOAD_BYTES as usize / size_of::<f32>();

/// What a donor tells.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// The follower's state is the donor's.
    Same(Step),
    /// The state as of a step.
    State { step: Step, parts: Vec<Arc<Vec<f32>>> },
    /// The reduced gradient of a step, unless it was skipped.
    Gradient {
        step: Step,
        gradient: Option<Arc<Vec<f32>>>,
    },
    /// Nothing, and why.
    Refused(String),
    /// Nothing yet.
    Idle,
}

/// What a follower is told, and does: from the state of the step before to that of `step`.
#[derive(Clone, PartialEq)]
pub enum Advance {
    /// The first, if the state that is held is the donor's.
    Same {
        /// Its step.
        step: Step,
    },
    /// The first, if the state that is held is of no use: the one to take instead.
    State {
        /// The step after which it is the state.
        step: Step,
        /// Its parts.
        parts: Vec<Vec<f32>>,
    },
    /// A step to be applied.
    Gradient {
        /// The step, one more than that of the state.
        step: Step,
        /// The reduced gradient; `None` if nothing is applied in this step.
        values: Option<Vec<f32>>,
    },
}

impl Advance {
    /// The step whose state is held after it.
    #[must_use]
    pub fn step(&self) -> Step {
        match *self {
            Self::Same { step } | Self::State { step, .. } | Self::Gradient { step, .. } => step,
        }
    }
}

impl fmt::Debug for Advance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Same { step } => write!(f, "Same({step})"),
            Self::State { step, parts } => {
                let lens: Vec<usize> = parts.iter().map(Vec::len).collect();
                write!(f, "State({step}, {lens:?} values)")
            }
            Self::Gradient { step, values } => {
                write!(f, "Gradient({step}, {:?} values)", values.as_ref().map(Vec::len))
            }
        }
    }
}

impl Told {
    /// The step of which it tells.
    pub(crate) fn step(&self) -> Option<Step> {
        match *self {
            Self::Same(step) | Self::State { step, .. } | Self::Gradient { step, .. } => Some(step),
            Self::Refused(_) | Self::Idle => None,
        }
    }

    /// The values, by part.
    fn parts(&self) -> &[Arc<Vec<f32>>] {
        match self {
            Self::State { parts, .. } => parts,
            Self::Gradient { gradient, .. } => gradient.as_slice(),
            Self::Same(_) | Self::Refused(_) | Self::Idle => &[],
        }
    }

    /// Writes it as frames, and says of each how many bytes its payload has.
    pub(crate) fn write(
        &self,
        mut to: impl Write,
        job: u64,
        epoch: Epoch,
        mut written: impl FnMut(u64),
    ) -> Result<(), LossReason> {
        let lengths = || {
            let lens = self.parts().iter().map(|part| part.len() as u64);
            lens.flat_map(u64::to_le_bytes).collect()
        };
        let (kind, payload): (Kind, Vec<u8>) = match self {
            Self::Same(_) => (Kind::Same, Vec::new()),
            Self::State { .. } => (Kind::State, lengths()),
            Self::Gradient { .. } => (Kind::Gradient, lengths()),
            Self::Refused(why) => (Kind::Refused, why.clone().into_bytes()),
            Self::Idle => (Kind::Idle, Vec::new()),
        };
        let step = self.step().unwrap_or_default();
        let bare = |kind| Header {
            step,
            ..Header::bare(kind, job, epoch)
        };
        let mut write = |header: Header, payload: &[u8]| -> Result<(), LossReason> {
            wire::write_frame(&mut to, &header.announcing(payload), payload)?;
            written(payload.len() as u64);
            Ok(())
        };
        write(bare(kind), &payload)?;
        for (bucket, part) in (0u32..).zip(self.parts()) {
            for (chunk, range) in (0u32..).zip(pieces(part.len())) {
                let header = Header {
                    bucket,
                    chunk,
                    ..bare(Kind::Values)
                };
                write(header, bytemuck::cast_slice(&part[range]))?;
            }
        }
        Ok(())
    }
}

/// How a part of `len` values is cut; an empty one has no piece.
fn pieces(len: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len)
        .step_by(PIECE_VALUES)
        .map(move |start| start..(start + PIECE_VALUES).min(len))
}

/// How long things are that a feed may tell. Nothing else is taken in, so nobody can make a follower allocate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Values of each part of a state.
    pub state: Vec<usize>,
    /// Values of a reduced gradient.
    pub gradient: usize,
}

/// The end of a feed on which frames come in. It takes only what comes next and fits.
#[derive(Debug)]
pub(crate) struct Intake {
    pub(crate) job: u64,
    pub(crate) shape: Shape,
    /// The lowest step of use.
    pub(crate) at_least: Step,
    /// The step whose state was held before.
    pub(crate) held: Option<Step>,
    /// The step whose state is held after all that was read.
    pub(crate) reached: Option<Step>,
}

impl Intake {
    /// Reads the next of what the donor tells, straight into its buffers: new ones for a state, and what
    /// `buffer` gives for a gradient. `heard` is told of each frame how many bytes its payload has.
    pub(crate) fn read(
        &mut self,
        mut from: impl Read,
        buffer: impl FnOnce(usize) -> Vec<f32>,
        mut heard: impl FnMut(u64),
    ) -> Result<Advance, LossReason> {
        let (header, lens) = loop {
            let header = wire::read_header(&mut from, self.job)?;
            let mut payload = vec![0; header.length as usize];
            wire::read_payload(&mut from, &header, &mut payload)?;
            heard(header.length);
            match header.kind {
                Kind::Idle => {}
                Kind::Refused if self.reached.is_none() => {
                    return Err(LossReason::Refused(
                        String::from_utf8_lossy(&payload).into_owned(),
                    ));
                }
                _ => break (header, payload),
            }
        };
        let lens: Vec<u64> = lens
            .chunks_exact(8)
            .map(|bytes| u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
            .collect();
        let step = header.step;
        self.check(&header, &lens)?;
        let mut read = |part: u32, values: &mut [f32]| -> Result<(), LossReason> {
            for (chunk, range) in (0u32..).zip(pieces(values.len())) {
                let length = range.len() as u64 * size_of::<f32>() as u64;
                let piece = wire::read_header(&mut from, self.job)?;
                let found = (piece.kind, piece.step, piece.bucket, piece.chunk, piece.length);
                let expected = (Kind::Values, step, part, chunk, length);
                if found != expected {
                    return Err(unexpected(&format!("{found:?}"), &format!("{expected:?}")));
                }
                wire::read_payload(&mut from, &piece, bytemuck::cast_slice_mut(&mut values[range]))?;
                heard(length);
            }
            Ok(())
        };
        let advance = match header.kind {
            Kind::State => {
                let mut parts = Vec::with_capacity(self.shape.state.len());
                for (part, &len) in (0u32..).zip(&self.shape.state) {
                    let mut values = vec![0.0; len];
                    read(part, &mut values)?;
                    parts.push(values);
                }
                Advance::State { step, parts }
            }
            Kind::Gradient if lens.is_empty() => Advance::Gradient { step, values: None },
            Kind::Gradient => {
                let mut values = buffer(self.shape.gradient);
                read(0, &mut values)?;
                let values = Some(values);
                Advance::Gradient { step, values }
            }
            _ => Advance::Same { step },
        };
        self.reached = Some(step);
        Ok(advance)
    }

    /// Whether what is announced comes next, and fits.
    fn check(&self, header: &Header, lens: &[u64]) -> Result<(), LossReason> {
        let step = header.step;
        let behind = |held: Option<Step>| held.map(Step::next) == Some(step);
        let comes_next = match (self.reached, header.kind) {
            (None, Kind::State) => true,
            (None, Kind::Same) => self.held == Some(step),
            (None, Kind::Gradient) => behind(self.held),
            (Some(_), Kind::Gradient) => behind(self.reached),
            _ => false,
        };
        if !comes_next || step < self.at_least {
            let expected = match (self.reached, self.held) {
                (Some(reached), _) => format!("the gradient of step {}", reached.next()),
                (None, held) => format!("a start from step {} on, holding {held:?}", self.at_least),
            };
            return Err(unexpected(
                &format!("{:?} of step {step}", header.kind),
                &expected,
            ));
        }
        let same = |expected: &[usize]| lens.iter().copied().eq(expected.iter().map(|&len| len as u64));
        let (state, gradient) = (&self.shape.state, std::slice::from_ref(&self.shape.gradient));
        let (fits, expected) = match header.kind {
            Kind::State => (same(state), state.as_slice()),
            Kind::Gradient => (lens.is_empty() || same(gradient), gradient),
            _ => (true, &[][..]),
        };
        if fits {
            return Ok(());
        }
        let found = format!("{:?} of {lens:?} values", header.kind);
        Err(unexpected(&found, &format!("{expected:?}")))
    }
}

fn unexpected(found: &str, expected: &str) -> LossReason {
    FrameError::Feed {
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
    .into()
}

#[cfg(test)]
mod tests;
