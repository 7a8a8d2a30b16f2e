//! The all-reduce: which way it goes, and the machine of `reduction`, driven over the links.

use std::ops::Range;
use std::sync::PoisonError;

use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Step};

use crate::across::Across;
use crate::agreement::Way;
use crate::call::{Call, Place};
use crate::endpoint::Endpoint;
use crate::error::CollectiveError;
use crate::local::{Local, Rounds};
use crate::mailbox::{Topic, Turn};
use crate::operation::Operation;
use crate::partials::{Held, Partials};
use crate::pool::Pool;
use crate::reduction::{Outbox, Reduction};

impl Endpoint {
    /// Adds what all members hold of a bucket up by the fixed tree over lanes, into `out` of every member: the same
    /// bits everywhere, whatever the group and the assignment, as if one thread had walked the tree. (Not a
    /// number is an exception: which of its payloads comes out is up to the processor.)
    ///
    /// Every member passes the same `epoch`, `step`, `bucket` and `assignment`, and what it holds itself, which must be at
    /// exactly `assignment.nodes_of(rank)`. In an epoch steps only go up, and in a step the numbers of buckets; each is
    /// reduced once. On success nobody reads what is held any more (unless this member had all lanes: what it has left
    /// to send are the partials themselves).
    ///
    /// Each member adds up a near-equal share of the bucket, its chunk, and sends it to all others:
    /// reduce-scatter and all-gather in one, in pieces that overlap sending, adding and receiving. In the
    /// aligned case a member sends and receives `2(n-1)/n` of the bucket, which is the least possible. A small bucket
    /// between three members or more goes to one of them instead, as frames take longer than values there.
    ///
    /// # Errors
    /// [`CollectiveError::Superseded`] and [`CollectiveError::PeerLost`] at once, whatever it was waiting for, the first also
    /// if another epoch was entered before it began;
    /// what is held is unharmed and `out` is to be thrown away. [`CollectiveError::TimedOut`] when nothing has
    /// come for longer than [`timeout`](crate::Options::timeout). Others when arguments do not fit together,
    /// or not with those of another member.
    pub fn reduce(
        &self,
        (epoch, step, bucket): (Epoch, Step, u32),
        assignment: &Assignment,
        held: &Held,
        out: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let shared = self.shared();
        let turn = Turn { step, bucket };
        let mut operation = Operation::begin(shared)?;
        let entered = operation.roster().epoch;
        if entered != epoch {
            // Whoever asks has not heard of the group that was entered since.
            return Err(CollectiveError::Superseded { epoch, by: entered });
        }
        let place = Place {
            job: shared.job,
            epoch,
            turn,
            rank: operation.roster().rank,
            members: operation.roster().size(),
        };
        let call = Call::new(place, assignment, held, out)?;
        let way = operation.way(place)?;
        operation.claim(turn)?;
        match way {
            Way::Broken(error) => Err(error),
            Way::Tcp => over_tcp(&mut operation, call, &shared.pool, out),
            Way::Shared(neighbours) => {
                let mut neighbours = neighbours.lock().unwrap_or_else(PoisonError::into_inner);
                let Some(rounds) = Rounds::new(&call, &[call.root], neighbours.slots()) else {
                    return over_tcp(&mut operation, call, &shared.pool, out);
                };
                let reduced = Local::new(&call, &rounds, &mut operation, &mut neighbours).run(out);
                operation.end_in_memory(reduced)
            }
            Way::Across(hosts, neighbours) => {
                let Some(across) = Across::new(&call, assignment, &hosts) else {
                    return over_tcp(&mut operation, call, &shared.pool, out);
                };
                let reduced = across.run(&mut operation, neighbours.as_deref(), (&shared.pool, out));
                if neighbours.is_some() {
                    operation.end_in_memory(reduced)
                } else {
                    reduced
                }
            }
        }
    }

    /// [Reduces](Self::reduce) ranges of the gradient in the group that was entered last, bucket after bucket: `out` is as long as a gradient, and its
    /// values outside the buckets are left alone.
    ///
    /// # Errors
    /// Those of [`Self::reduce`], and [`CollectiveError::Argument`] for a bucket that is no part of the gradient.
    pub fn all_reduce(
        &self,
        step: Step,
        buckets: &[Range<usize>],
        assignment: &Assignment,
        partials: &Partials,
        out: &mut [f32],
    ) -> Result<(), CollectiveError> {
        let wrong = |argument, problem| CollectiveError::Argument { argument, problem };
        if out.len() != partials.len() {
            let problem = format!("{} values where a gradient has {}", out.len(), partials.len());
            return Err(wrong("out", problem));
        }
        let hold = |range: &Range<usize>| partials.held(range.clone());
        let held = buckets.iter().map(hold).collect::<Result<Vec<_>, _>>();
        let held = held.map_err(|error| wrong("buckets", error.to_string()))?;
        let epoch = Operation::begin(self.shared())?.roster().epoch;
        for (bucket, (range, held)) in (0u32..).zip(buckets.iter().zip(&held)) {
            self.reduce((epoch, step, bucket), assignment, held, &mut out[range.clone()])?;
        }
        Ok(())
    }
}

/// Reduces between all members with frames.
fn over_tcp(
    operation: &mut Operation<'_>,
    call: Call<'_>,
    pool: &Pool,
    out: &mut [f32],
) -> Result<(), CollectiveError> {
    over_links(operation, Reduction::between_all(call, pool), out, || ())
}

/// Reduces with frames; `moved` is called whenever some have come or gone.
pub(crate) fn over_links(
    operation: &mut Operation<'_>,
    mut reduction: Reduction<'_>,
    out: &mut [f32],
    mut moved: impl FnMut(),
) -> Result<(), CollectiveError> {
    let Place {
        epoch, turn, members, ..
    } = reduction.place();
    let mut outbox = Outbox::new(members as usize);
    reduction.start(out, &mut outbox);
    let topic = Topic::reduction(epoch, turn);
    let mut batch = Vec::new();
    while reduction.missing() > 0 || !outbox.is_empty() {
        let awaited = || reduction.awaited().collect();
        operation.exchange(&mut outbox, &topic, reduction.missing(), awaited, &mut batch)?;
        moved();
        for frame in batch.drain(..) {
            // Frames of strangers do not get as far as this.
            let Some(from) = operation.roster().rank_of(&frame.sender) else {
                continue;
            };
            reduction.accept(from, &frame.header, frame.payload, out, &mut outbox)?;
        }
    }
    operation.settle(|link| link.holds_partial_of(epoch, turn));
    Ok(())
}
