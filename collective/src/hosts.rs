//! Which members of a group are of which host.

use lockstep_engine::geometry::{Assignment, Node};
use lockstep_engine::ids::Rank;

/// The members of each host, in the order of their ranks; hosts in the order of their first members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    members: Vec<Vec<Rank>>,
    /// The host of each member.
    of: Vec<usize>,
}

impl Hosts {
    /// Of members whose hosts have these names, by rank.
    pub(crate) fn new(names: &[&str]) -> Self {
        let (mut known, mut members, mut of) = (Vec::new(), Vec::<Vec<Rank>>::new(), Vec::new());
        for (rank, name) in (0u32..).map(Rank).zip(names) {
            let host = known
                .iter()
                .position(|other| other == name)
                .unwrap_or(known.len());
            if host == known.len() {
                known.push(*name);
                members.push(Vec::new());
            }
            members[host].push(rank);
            of.push(host);
        }
        Self { members, of }
    }

    /// The members of each.
    pub(crate) fn members(&self) -> &[Vec<Rank>] {
        &self.members
    }

    /// The members of the host of `rank`, itself included.
    pub(crate) fn around(&self, rank: Rank) -> &[Rank] {
        &self.members[self.of[rank.index()]]
    }

    /// Whether no two members are of the same.
    pub(crate) fn are_apart(&self) -> bool {
        self.members.len() == self.of.len()
    }

    /// The nodes that the members of each host hold together, as large as can be, by rank: those of one host hold the same.
    pub(crate) fn nodes(&self, assignment: &Assignment) -> Vec<Vec<Node>> {
        let host = |rank: Rank| Rank(self.of[rank.index()] as u32);
        let owners = assignment.owners().iter().map(|&owner| host(owner)).collect();
        let of_hosts = Assignment::from_owners(owners);
        let nodes: Vec<Vec<Node>> = (0..self.members.len() as u32)
            .map(|host| of_hosts.nodes_of(Rank(host)))
            .collect();
        self.of.iter().map(|&host| nodes[host].clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_host_hold_the_largest_subtrees_of_all_their_lanes() {
        let node = |start, len| Node { start, len };
        let fresh = Assignment::fresh(4, 4);
        let in_runs = Hosts::new(&["a", "a", "b", "b"]);
        assert_eq!(in_runs.members(), [[0, 1].map(Rank), [2, 3].map(Rank)]);
        let (left, right) = (vec![node(0, 2)], vec![node(2, 2)]);
        assert_eq!(in_runs.nodes(&fresh), [left.clone(), left, right.clone(), right]);
        let in_turn = Hosts::new(&["a", "b", "a", "b"]);
        assert_eq!(in_turn.around(Rank(3)), [1, 3].map(Rank));
        let (even, odd) = (vec![node(0, 1), node(2, 1)], vec![node(1, 1), node(3, 1)]);
        assert_eq!(in_turn.nodes(&fresh), [even.clone(), odd.clone(), even, odd]);
        assert!(!in_turn.are_apart() && Hosts::new(&["a", "b"]).are_apart());
    }
}
