//! State from one member to another: what a newcomer needs before it can take part.

use std::ops::Range;
use std::sync::Arc;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::{Rank, Step};

use crate::endpoint::Endpoint;
use crate::error::CollectiveError;
use crate::fold::Segment;
use crate::frame::{Header, Kind, MAX_PAYLOAD_BYTES};
use crate::mailbox::{Received, Topic};
use crate::operation::Operation;
use crate::reduction::{Outbox, Outgoing};

/// Values of a frame of a state.
const PIECE_VALUES: usize = MAX_PAYLOAD_BYTES as usize / size_of::<f32>();

/// Frames of a part of `len` values: an empty part has one too, so that its length is known.
fn pieces_of(len: usize) -> usize {
    len.div_ceil(PIECE_VALUES).max(1)
}

/// The place of piece `index` in a part of `len` values.
fn piece(len: usize, index: usize) -> Range<usize> {
    let start = (index * PIECE_VALUES).min(len);
    start..(start + PIECE_VALUES).min(len)
}

impl Endpoint {
    /// Sends the state as of `step` to rank `to`, which [receives](Self::receive_state) it. Returns once all of
    /// it is written or queued; the parts are shared, not copied, and may be dropped.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce).
    pub fn send_state(&self, to: Rank, step: Step, parts: &[Arc<Vec<f32>>]) -> Result<(), CollectiveError> {
        let shared = self.shared();
        let mut operation = Operation::begin(shared)?;
        let (members, epoch) = (operation.roster().size(), operation.roster().epoch);
        check_other(operation.roster().rank, to, members)?;
        let header = Header {
            step,
            ..Header::bare(Kind::State, shared.job, epoch)
        };
        let mut outbox = Outbox::new(members as usize);
        for (number, part) in (0u32..).zip(parts) {
            let count = pieces_of(part.len());
            let shape = Node {
                start: count as u32,
                len: parts.len() as u32,
            };
            for (chunk, index) in (0u32..).zip(0..count) {
                let header = Header {
                    bucket: number,
                    chunk,
                    node: shape,
                    ..header
                };
                let payload = Segment::lent(part.clone(), piece(part.len(), index));
                outbox.push(
                    to,
                    Outgoing {
                        header,
                        payload,
                        sealed: false,
                    },
                    false,
                );
            }
        }
        while !outbox.is_empty() {
            operation.exchange(&mut outbox, None, 0, Vec::new, &mut Vec::new())?;
        }
        Ok(())
    }

    /// Receives the state as of `step` that rank `from` [sends](Self::send_state), into `parts`, whose number
    /// and lengths must be the sender's.
    ///
    /// # Errors
    /// As [`all_reduce`](Self::all_reduce); `parts` are then to be thrown away.
    pub fn receive_state(
        &self,
        from: Rank,
        step: Step,
        parts: &mut [Vec<f32>],
    ) -> Result<(), CollectiveError> {
        let shared = self.shared();
        let mut operation = Operation::begin(shared)?;
        let (members, epoch) = (operation.roster().size(), operation.roster().epoch);
        check_other(operation.roster().rank, from, members)?;
        let sender = operation.roster().members[from.index()].identity.as_str().into();
        let topic = Topic {
            epoch,
            state_of: Some(sender),
            step,
        };
        let mut got: Vec<Vec<bool>> = parts
            .iter()
            .map(|part| vec![false; pieces_of(part.len())])
            .collect();
        let mut missing: usize = got.iter().map(Vec::len).sum();
        let (mut outbox, mut batch) = (Outbox::new(members as usize), Vec::new());
        while missing > 0 {
            operation.exchange(&mut outbox, Some(&topic), missing, || vec![from], &mut batch)?;
            for frame in batch.drain(..) {
                place(&frame, parts, &mut got)
                    .map_err(|what| CollectiveError::Disagreement { rank: from, what })?;
                frame.payload.recycle(&shared.pool);
                missing -= 1;
            }
        }
        Ok(())
    }
}

/// Copies a frame's values to where they belong, once.
fn place(frame: &Received, parts: &mut [Vec<f32>], got: &mut [Vec<bool>]) -> Result<(), String> {
    let Header {
        bucket, chunk, node, ..
    } = frame.header;
    if node.len as usize != parts.len() {
        return Err(format!(
            "a state of {} parts where {} are expected",
            node.len,
            parts.len()
        ));
    }
    let (Some(part), Some(got)) = (parts.get_mut(bucket as usize), got.get_mut(bucket as usize)) else {
        return Err(format!("part {bucket} of a state of {}", node.len));
    };
    let range = piece(part.len(), chunk as usize);
    let values = frame.payload.values();
    if node.start as usize != got.len() || values.len() != range.len() {
        return Err(format!(
            "part {bucket} has another length than the {} expected",
            part.len()
        ));
    }
    match got.get_mut(chunk as usize) {
        Some(got) if !*got => *got = true,
        _ => return Err(format!("piece {chunk} of part {bucket} of a state, twice")),
    }
    part[range].copy_from_slice(values);
    Ok(())
}

fn check_other(me: Rank, other: Rank, members: u32) -> Result<(), CollectiveError> {
    if other != me && other.0 < members {
        return Ok(());
    }
    let problem = format!("{other} is not another of {members} members");
    Err(CollectiveError::Argument {
        argument: "rank",
        problem,
    })
}
