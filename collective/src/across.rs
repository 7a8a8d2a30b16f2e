//! An all-reduce between members of several hosts, some of whom share memory.
//!
//! | phase | way | what |
//! |---|---|---|
//! | gather | memory | the members of a host add up what they hold together, each for a chunk of the bucket |
//! | reduce | links | who has the same chunk on other hosts adds the sums of the hosts up |
//! | spread | memory | the members of a host give each other their chunks of the result |
//!
//! The first goes as far as the tree allows: to the largest subtrees whose lanes are all of the host. Who waits in
//! memory has nothing to send any more, so the phases need not overlap for all to come to the end.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::Rank;

use crate::all_reduce::over_links;
use crate::call::{Call, Place};
use crate::error::CollectiveError;
use crate::fold::Segment;
use crate::hosts::Hosts;
use crate::local::{Local, Rounds};
use crate::neighbours::Neighbours;
use crate::operation::Operation;
use crate::partials::Held;
use crate::plan::{self, Errand};
use crate::pool::Pool;
use crate::reduction::Reduction;
use crate::slots::Slots;

/// What a member has to do in one.
#[derive(Debug)]
pub(crate) struct Across<'a> {
    call: Call<'a>,
    /// The same among the members of this host; `None` if there is one alone.
    inside: Option<(Call<'a>, Rounds)>,
    /// The nodes of each member's host.
    nodes: Vec<Vec<Node>>,
    /// What this member has to do with other hosts, of its chunk.
    errands: Vec<Errand>,
    chunk: Range<usize>,
}

impl<'a> Across<'a> {
    /// Of this call. `None` if any member has so many nodes that no slot has room for them.
    pub(crate) fn new(call: &Call<'a>, assignment: &Assignment, hosts: &Hosts) -> Option<Self> {
        let shared = hosts.members().iter().filter(|members| members.len() > 1);
        for members in shared {
            let most = members.iter().map(|rank| call.nodes[rank.index()].len()).max();
            if Slots::new(members.len() as u32).piece_values(most.unwrap_or_default()) == 0 {
                return None;
            }
        }
        let (me, nodes, members) = (
            call.place.rank,
            hosts.nodes(assignment),
            hosts.around(call.place.rank),
        );
        let count = members.len() as u32;
        let rank = (0u32..).zip(members).find(|&(_, &member)| member == me)?.0;
        let inside = if count > 1 {
            let place = Place {
                rank: Rank(rank),
                members: count,
                ..call.place
            };
            let held_by = members.iter().map(|member| call.nodes[member.index()].clone());
            let inside = Call {
                place,
                nodes: held_by.collect(),
                ..call.clone()
            };
            let rounds = Rounds::new(&inside, &nodes[me.index()], &Slots::new(count))?;
            Some((inside, rounds))
        } else {
            None
        };
        let len = call.held.len();
        let chunk = plan::cut(len, rank, count)..plan::cut(len, rank + 1, count);
        let mut errands = plan::in_few_frames(plan::errands_between(len, hosts), call.place.turn.bucket);
        errands.retain(|errand| errand.between.contains(&me));
        for Errand { piece, .. } in &mut errands {
            piece.range = piece.range.start - chunk.start..piece.range.end - chunk.start;
        }
        Some(Self {
            call: call.clone(),
            inside,
            nodes,
            errands,
            chunk,
        })
    }

    /// Reduces to `out`.
    pub(crate) fn run(
        self,
        operation: &mut Operation<'_>,
        neighbours: Option<&Mutex<Neighbours>>,
        (pool, out): (&Pool, &mut [f32]),
    ) -> Result<(), CollectiveError> {
        let between = Call {
            nodes: self.nodes,
            ..self.call
        };
        let (Some((inside, rounds)), Some(neighbours)) = (&self.inside, neighbours) else {
            return over_links(operation, Reduction::of(between, self.errands, pool), out, || ());
        };
        let mut neighbours = neighbours.lock().unwrap_or_else(PoisonError::into_inner);
        let nodes = &between.nodes[between.place.rank.index()];
        let len = self.chunk.len();
        let mut sums: Vec<Segment> = nodes
            .iter()
            .map(|_| Segment::pooled(pool.take_rounded(len), len))
            .collect();
        // Buffers from the pool are nobody else's.
        let mut places: Vec<&mut [f32]> = sums.iter_mut().filter_map(Segment::values_mut).collect();
        Local::new(inside, rounds, operation, &mut neighbours).gather(&mut places)?;
        let held = Held::of(between.held, nodes.iter().copied().zip(sums).collect(), len);
        let reduction = Reduction::of(
            Call {
                held: &held,
                ..between
            },
            self.errands,
            pool,
        );
        over_links(operation, reduction, &mut out[self.chunk], || neighbours.beat())?;
        held.recycle(pool);
        Local::new(inside, rounds, operation, &mut neighbours).spread(out)
    }
}
