//! One all-reduce as its caller asked for it, with arguments that fit together.

use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::{Epoch, Rank};

use crate::error::CollectiveError;
use crate::mailbox::Turn;
use crate::partials::Held;

/// Which reduction this is, and whose part in it is played.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The job's tag.
    pub(crate) job: u64,
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// The step, and the bucket in it.
    pub(crate) turn: Turn,
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
    /// The node of the sum.
    pub(crate) root: Node,
    /// The nodes that each member holds, by rank.
    pub(crate) nodes: Vec<Vec<Node>>,
    /// What this member holds.
    pub(crate) held: &'a Held,
}

impl<'a> Call<'a> {
    /// Checks that everything fits together: see [`crate::Endpoint::reduce`] for what must.
    pub(crate) fn new(
        place: Place,
        assignment: &Assignment,
        held: &'a Held,
        out: &[f32],
    ) -> Result<Self, CollectiveError> {
        let wrong = |argument, problem| Err(CollectiveError::Argument { argument, problem });
        let lanes = assignment.owners().len() as u32;
        if !lanes.is_power_of_two() || lanes != held.lanes() {
            let problem = format!(
                "{lanes} lanes where the partials have {}, a power of two",
                held.lanes()
            );
            return wrong("assignment", problem);
        }
        if let Some(owner) = assignment.owners().iter().find(|owner| owner.0 >= place.members) {
            return wrong(
                "assignment",
                format!("lanes of rank {owner} in a group of {}", place.members),
            );
        }
        if out.len() != held.len() {
            let problem = format!("{} values where the bucket has {}", out.len(), held.len());
            return wrong("out", problem);
        }
        let nodes: Vec<Vec<Node>> = (0..place.members)
            .map(|rank| assignment.nodes_of(Rank(rank)))
            .collect();
        let found: Vec<Node> = held.values().iter().map(|(node, _)| *node).collect();
        if found != nodes[place.rank.index()] {
            let expected = nodes[place.rank.index()].clone();
            return Err(CollectiveError::WrongPartials {
                held: found,
                expected,
            });
        }
        Ok(Self {
            place,
            root: Node::root(lanes),
            nodes,
            held,
        })
    }
}
