//! One all-reduce as its caller asked for it, with arguments that fit together.

use std::ops::Range;

use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank, Step};

use crate::error::CollectiveError;
use crate::partials::Partials;

/// Which reduction this is, and whose part in it is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The job's tag.
    pub(crate) job: u64,
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// The step.
    pub(crate) step: Step,
    /// This member.
    pub(crate) rank: Rank,
    /// Number of members.
    pub(crate) members: u32,
}

/// What is to be reduced.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    /// Which reduction it is.
    pub(crate) place: Place,
    /// The parts of the gradient that are reduced.
    pub(crate) buckets: &'a [Range<usize>],
    /// The node of the sum.
    pub(crate) root: Node,
    /// The nodes that each member holds, by rank.
    pub(crate) nodes: Vec<Vec<Node>>,
    /// What this member holds.
    pub(crate) partials: &'a Partials,
}

impl<'a> Call<'a> {
    /// Checks that everything fits together: see [`crate::Endpoint::all_reduce`] for what must.
    pub(crate) fn new(
        place: Place,
        buckets: &'a [Range<usize>],
        assignment: &Assignment,
        partials: &'a Partials,
    ) -> Result<Self, CollectiveError> {
        let wrong = |argument, problem| Err(CollectiveError::Argument { argument, problem });
        let lanes = assignment.owners().len() as u32;
        if !lanes.is_power_of_two() || lanes != partials.lanes() {
            let problem = format!(
                "{lanes} lanes where the partials have {}, a power of two",
                partials.lanes()
            );
            return wrong("assignment", problem);
        }
        if let Some(owner) = assignment.owners().iter().find(|owner| owner.0 >= place.members) {
            return wrong(
                "assignment",
                format!("lanes of rank {owner} in a group of {}", place.members),
            );
        }
        let len = partials.len();
        if let Some(bucket) = buckets
            .iter()
            .find(|bucket| bucket.start > bucket.end || bucket.end > len)
        {
            return wrong(
                "buckets",
                format!("{bucket:?} is no part of a gradient of {len} values"),
            );
        }
        let nodes: Vec<Vec<Node>> = (0..place.members)
            .map(|rank| assignment.nodes_of(Rank(rank)))
            .collect();
        let held: Vec<Node> = partials.nodes().collect();
        if held != nodes[place.rank.index()] {
            let expected = nodes[place.rank.index()].clone();
            return Err(CollectiveError::WrongPartials { held, expected });
        }
        Ok(Self {
            place,
            buckets,
            root: Node::root(lanes),
            nodes,
            partials,
        })
    }
}
