//! One all-reduce as a pure machine: frames in, frames out, no sockets.
//!
//! Every member owns a run of pieces. It sends its partials of everybody else's pieces to their owners, folds
//! the partials of its own as they come, in any order, and sends each piece to everybody once it is whole. Where hosts
//! reduce among themselves first, "everybody" is one member of each, and others for other pieces.

use std::collections::VecDeque;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::Rank;

use crate::call::{Call, Place};
use crate::error::CollectiveError;
use crate::fold::{Fold, Segment};
use crate::frame::{Header, Kind};
use crate::partials::Held;
use crate::plan::{self, Errand};
use crate::pool::Pool;
use crate::precision::Precision;

/// A frame to be sent.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// What it says; length and checksum are filled in when it is written, unless `sealed`.
    pub(crate) header: Header,
    /// The values.
    pub(crate) payload: Segment,
    /// Whether length and checksum are those of the payload.
    pub(crate) sealed: bool,
}

/// Frames that wait for room in the queues of the links, by rank.
#[derive(Debug)]
pub(crate) struct Outbox {
    urgent: Vec<VecDeque<Outgoing>>,
    normal: Vec<VecDeque<Outgoing>>,
}

impl Outbox {
    /// Nothing for any of `members`.
    pub(crate) fn new(members: usize) -> Self {
        let queues = || (0..members).map(|_| VecDeque::new()).collect();
        Self {
            urgent: queues(),
            normal: queues(),
        }
    }

    /// Adds a frame for `to`: after all others, or before the ones that are not urgent.
    pub(crate) fn push(&mut self, to: Rank, frame: Outgoing, urgent: bool) {
        let queues = if urgent {
            &mut self.urgent
        } else {
            &mut self.normal
        };
        queues[to.index()].push_back(frame);
    }

    /// The next frame for `to`.
    pub(crate) fn pop(&mut self, to: Rank) -> Option<Outgoing> {
        self.urgent[to.index()]
            .pop_front()
            .or_else(|| self.normal[to.index()].pop_front())
    }

    /// The ranks for which frames wait.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = Rank> {
        let pairs = self.urgent.iter().zip(&self.normal);
        (0u32..)
            .zip(pairs)
            .filter(|(_, (u, n))| !u.is_empty() || !n.is_empty())
            .map(|(rank, _)| Rank(rank))
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting().next().is_none()
    }
}

/// What is known of a piece.
#[derive(Debug)]
enum Progress {
    /// This member's: it waits for so many partials of others.
    Folding { fold: Fold, missing: usize },
    /// Another's: it waits for the sum.
    Expected,
    /// Its sum is in the output.
    Done,
}

/// The machine.
#[derive(Debug)]
pub(crate) struct Reduction<'a> {
    place: Place,
    /// Those that this member has partials of, which follow each other.
    errands: Vec<Errand>,
    root: Node,
    nodes: Vec<Vec<Node>>,
    held: &'a Held,
    pool: &'a Pool,
    progress: Vec<Progress>,
    /// Frames still missing, by sender.
    missing: Vec<usize>,
}

impl<'a> Reduction<'a> {
    /// The machine for a bucket between all members, before it has done anything.
    pub(crate) fn between_all(call: Call<'a>, pool: &'a Pool) -> Self {
        let errands = plan::errands(call.held.len(), call.place.members);
        let errands = plan::in_few_frames(errands, call.place.turn.bucket);
        Self::of(call, errands, pool)
    }

    /// A machine for some pieces only: those of which this member has partials. Their ranges are in what it holds, and
    /// in its output.
    pub(crate) fn of(call: Call<'a>, errands: Vec<Errand>, pool: &'a Pool) -> Self {
        let Call {
            place,
            root,
            nodes,
            held,
        } = call;
        let (progress, missing) = (Vec::with_capacity(errands.len()), vec![0; nodes.len()]);
        Self {
            place,
            errands,
            root,
            nodes,
            held,
            pool,
            progress,
            missing,
        }
    }

    /// Queues this member's partials, and finishes the pieces that need nobody else.
    pub(crate) fn start(&mut self, out: &mut [f32], outbox: &mut Outbox) {
        let me = self.place.rank;
        for at in 0..self.errands.len() {
            let Errand { piece, between } = &self.errands[at];
            let lend = |(node, value): &(Node, Segment)| (*node, value.lend(piece.range.clone()));
            let mine = self.held.values().iter().map(lend);
            if piece.owner == me {
                let mut fold = Fold::new(self.held.precision());
                for (node, value) in mine {
                    // Nodes of one rank are as large as can be: they neither overlap nor fold.
                    let _ = fold.insert(node, value, self.pool);
                }
                let mut of_others = 0;
                for &other in between.iter().filter(|&&rank| rank != me) {
                    let nodes = self.nodes[other.index()].len();
                    self.missing[other.index()] += nodes;
                    of_others += nodes;
                }
                self.progress.push(Progress::Folding {
                    fold,
                    missing: of_others,
                });
                if of_others == 0 {
                    self.finish(at, out, outbox);
                }
            } else {
                for (node, values) in mine {
                    let payload = self.held.precision().pack(values, self.pool);
                    let header = Header {
                        node,
                        ..self.header(Kind::Partial, piece.index)
                    };
                    outbox.push(
                        piece.owner,
                        Outgoing {
                            header,
                            payload: payload.lend(0..payload.values().len()),
                            sealed: false,
                        },
                        false,
                    );
                    // The pool hands it out again when the link has written it.
                    payload.recycle(self.pool);
                }
                self.missing[piece.owner.index()] += 1;
                self.progress.push(Progress::Expected);
            }
        }
    }

    /// Which reduction this is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }

    /// Frames still missing.
    pub(crate) fn missing(&self) -> usize {
        self.missing.iter().sum()
    }

    /// The ranks of which frames are missing.
    pub(crate) fn awaited(&self) -> impl Iterator<Item = Rank> {
        (0u32..)
            .zip(&self.missing)
            .filter(|&(_, &missing)| missing > 0)
            .map(|(rank, _)| Rank(rank))
    }

    /// Takes in a frame of this epoch and step. Pieces that it completes go to `out`, and to everybody.
    pub(crate) fn accept(
        &mut self,
        from: Rank,
        header: &Header,
        payload: Segment,
        out: &mut [f32],
        outbox: &mut Outbox,
    ) -> Result<(), CollectiveError> {
        let Header { chunk, node, .. } = *header;
        let disagree = |what: &str| {
            let (kind, bucket) = (header.kind, header.bucket);
            let what = format!("{what}: {kind:?} of piece {chunk} of bucket {bucket}, {node:?}");
            Err(CollectiveError::Disagreement { rank: from, what })
        };
        let first = self.errands.first().map_or(0, |first| first.piece.index);
        let at = chunk.wrapping_sub(first) as usize;
        let Some(Errand { piece, between }) = self.errands.get(at) else {
            return disagree("no such piece");
        };
        let precision = self.held.precision();
        if payload.values().len() != precision.wire_len(piece.range.len()) {
            return disagree("another length");
        }
        match (&mut self.progress[at], header.kind) {
            (Progress::Folding { fold, missing }, Kind::Partial) => {
                if !between.contains(&from) || !self.nodes[from.index()].contains(&node) {
                    return disagree("another's lanes");
                }
                let values = unpacked(payload, piece.range.len(), precision, self.pool);
                if fold.insert(node, values, self.pool).is_err() {
                    return disagree("sent twice");
                }
                *missing -= 1;
                self.missing[from.index()] -= 1;
                if *missing == 0 {
                    self.finish(at, out, outbox);
                }
                Ok(())
            }
            (progress @ Progress::Expected, Kind::Reduced) => {
                if piece.owner != from {
                    return disagree("another's piece");
                }
                precision.unpack(payload.values(), &mut out[piece.range.clone()]);
                payload.recycle(self.pool);
                *progress = Progress::Done;
                self.missing[from.index()] -= 1;
                Ok(())
            }
            _ => disagree("unexpected"),
        }
    }

    /// Sends the whole piece at `at`, which is this member's, everywhere.
    fn finish(&mut self, at: usize, out: &mut [f32], outbox: &mut Outbox) {
        let Errand { piece, between } = &self.errands[at];
        let Progress::Folding { mut fold, .. } = std::mem::replace(&mut self.progress[at], Progress::Done)
        else {
            return;
        };
        let Some(sum) = fold.remove(self.root) else { return };
        out[piece.range.clone()].copy_from_slice(sum.values());
        if between.len() > 1 {
            let sum = self
                .held
                .precision()
                .pack(sum.lend(0..sum.values().len()), self.pool);
            let header = self.header(Kind::Reduced, piece.index).announcing(sum.bytes());
            for &rank in between.iter().filter(|&&rank| rank != self.place.rank) {
                let payload = sum.lend(0..sum.values().len());
                outbox.push(
                    rank,
                    Outgoing {
                        header,
                        payload,
                        sealed: true,
                    },
                    true,
                );
            }
            sum.recycle(self.pool);
        }
        // The pool hands it out again when the last link has written it.
        sum.recycle(self.pool);
    }

    fn header(&self, kind: Kind, chunk: u32) -> Header {
        let Place { job, epoch, turn, .. } = self.place;
        Header {
            step: turn.step,
            bucket: turn.bucket,
            chunk,
            ..Header::bare(kind, job, epoch)
        }
    }
}

/// Values that came over the wire.
fn unpacked(payload: Segment, len: usize, precision: Precision, pool: &Pool) -> Segment {
    if precision == Precision::F32 {
        return payload;
    }
    let mut values = Segment::pooled(pool.take_rounded(len), len);
    // A buffer from the pool is nobody else's.
    if let Some(values) = values.values_mut() {
        precision.unpack(payload.values(), values);
    }
    payload.recycle(pool);
    values
}

#[cfg(test)]
mod tests;
