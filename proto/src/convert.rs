//! The edge: wire messages in and out of domain types.

use std::net::SocketAddr;

use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, NodeId, Rank, Step, WorkerId};
use lockstep_engine::job::Kill;
use lockstep_engine::membership::{Member, Membership, Source};

use crate::wire;

/// A message that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field that is there cannot be read.
    #[error("{field} is invalid: {problem}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// Why.
        problem: String,
    },
}

impl From<WireError> for tonic::Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

fn invalid(field: &'static str, problem: impl ToString) -> WireError {
    WireError::Invalid {
        field,
        problem: problem.to_string(),
    }
}

/// Takes a field that must be there.
///
/// # Errors
/// [`WireError::Missing`].
pub fn required<T>(field: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or(WireError::Missing(field))
}

/// Reads a socket address.
///
/// # Errors
/// [`WireError::Invalid`].
pub fn address(field: &'static str, text: &str) -> Result<SocketAddr, WireError> {
    text.parse()
        .map_err(|error| invalid(field, format!("`{text}`: {error}")))
}

impl TryFrom<wire::WorkerId> for WorkerId {
    type Error = WireError;
    fn try_from(id: wire::WorkerId) -> Result<Self, WireError> {
        let node: NodeId = id.node.parse().map_err(|error| invalid("worker.node", error))?;
        let bytes: [u8; 16] = id.incarnation.try_into().map_err(|bytes: Vec<u8>| {
            invalid("worker.incarnation", format!("{} bytes, not 16", bytes.len()))
        })?;
        Ok(Self {
            node,
            slot: id.slot,
            incarnation: u128::from_be_bytes(bytes),
        })
    }
}

impl From<&WorkerId> for wire::WorkerId {
    fn from(id: &WorkerId) -> Self {
        Self {
            node: id.node.to_string(),
            slot: id.slot,
            incarnation: id.incarnation.to_be_bytes().to_vec(),
        }
    }
}

impl TryFrom<wire::Member> for Member {
    type Error = WireError;
    fn try_from(member: wire::Member) -> Result<Self, WireError> {
        Ok(Self {
            worker: required("member.worker", member.worker)?.try_into()?,
            address: address("member.address", &member.address)?,
        })
    }
}

impl TryFrom<wire::Source> for Source {
    type Error = WireError;
    fn try_from(source: wire::Source) -> Result<Self, WireError> {
        use wire::source::What;
        Ok(match required("source", source.what)? {
            What::Held(_) => Self::Held,
            What::Seed(_) => Self::Seed,
            What::Stored(_) => Self::Checkpoint,
            What::Peer(rank) => Self::Peer(Rank(rank)),
        })
    }
}

impl From<Source> for wire::Source {
    fn from(source: Source) -> Self {
        use wire::source::{Held, Seed, Stored, What};
        let what = match source {
            Source::Held => What::Held(Held {}),
            Source::Seed => What::Seed(Seed {}),
            Source::Checkpoint => What::Stored(Stored {}),
            Source::Peer(rank) => What::Peer(rank.0),
        };
        Self { what: Some(what) }
    }
}

impl TryFrom<wire::Membership> for Membership {
    type Error = WireError;
    fn try_from(membership: wire::Membership) -> Result<Self, WireError> {
        let count = membership.members.len();
        if membership.sources.len() != count {
            let problem = format!("{} sources for {count} members", membership.sources.len());
            return Err(invalid("membership.sources", problem));
        }
        if !membership.owners.len().is_power_of_two() {
            let problem = format!("{} lanes, not a power of two", membership.owners.len());
            return Err(invalid("membership.owners", problem));
        }
        if let Some(rank) = membership.owners.iter().find(|&&rank| rank as usize >= count) {
            return Err(invalid("membership.owners", format!("rank {rank} of {count}")));
        }
        Ok(Self {
            epoch: Epoch(membership.epoch),
            base: Step(membership.base),
            members: membership
                .members
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            sources: membership
                .sources
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            first: Assignment::from_owners(membership.owners.into_iter().map(Rank).collect()),
            recompute: membership.recompute,
        })
    }
}

impl From<&Membership> for wire::Membership {
    fn from(membership: &Membership) -> Self {
        let member = |member: &Member| wire::Member {
            worker: Some((&member.worker).into()),
            address: member.address.to_string(),
        };
        Self {
            epoch: membership.epoch.0,
            base: membership.base.0,
            members: membership.members.iter().map(member).collect(),
            sources: membership.sources.iter().map(|&source| source.into()).collect(),
            owners: membership.first.owners().iter().map(|rank| rank.0).collect(),
            recompute: membership.recompute,
        }
    }
}

impl From<wire::Kill> for Kill {
    fn from(kill: wire::Kill) -> Self {
        Self {
            slot: kill.slot,
            step: Step(kill.step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership() -> Membership {
        let worker = |slot| WorkerId {
            node: "n".parse().unwrap(),
            slot,
            incarnation: u128::MAX - u128::from(slot),
        };
        let member = |slot| Member {
            worker: worker(slot),
            address: ([10, 0, 0, 1], 7000).into(),
        };
        Membership {
            epoch: Epoch(3),
            base: Step(9),
            members: (0..4).map(member).collect(),
            sources: vec![
                Source::Held,
                Source::Seed,
                Source::Checkpoint,
                Source::Peer(Rank(2)),
            ],
            first: Assignment::fresh(8, 4),
            recompute: true,
        }
    }

    #[test]
    fn a_membership_survives_the_wire() {
        let there = wire::Membership::from(&membership());
        assert_eq!(Membership::try_from(there).unwrap(), membership());
    }

    #[test]
    fn what_is_missing_or_invalid_is_named() {
        type Spoil = fn(&mut wire::Membership);
        let cases: [(Spoil, &str); 6] = [
            (|m| m.members[1].worker = None, "member.worker is missing"),
            (|m| m.sources[0].what = None, "source is missing"),
            (|m| m.sources.truncate(3), "3 sources for 4 members"),
            (|m| m.owners[0] = 4, "rank 4 of 4"),
            (|m| m.owners.truncate(7), "7 lanes"),
            (
                |m| m.members[0].address = "nowhere".into(),
                "member.address is invalid: `nowhere`",
            ),
        ];
        for (spoil, expected) in cases {
            let mut message = wire::Membership::from(&membership());
            spoil(&mut message);
            let error = Membership::try_from(message).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
