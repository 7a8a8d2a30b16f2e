//! The edge: wire messages in and out of domain types.

use std::net::SocketAddr;

use lockstep_engine::geometry::Assignment;
use lockstep_engine::ids::{Epoch, Lane, NodeId, Rank, Step, WorkerId};
use lockstep_engine::job::{Kill, Offer};
use lockstep_engine::ledger::{Entry, Span};
use lockstep_engine::membership::{Member, Membership, Source};
use lockstep_engine::rank::{Snapshot, Verdict};
use lockstep_engine::tasks;

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

impl From<wire::Entered> for tasks::Entry {
    fn from(entered: wire::Entered) -> Self {
        let wire::Entered {
            phase,
            tasks,
            open,
            holds,
            room,
        } = entered;
        Self {
            phase,
            tasks,
            open,
            holds,
            room,
        }
    }
}

impl From<tasks::Entry> for wire::Entered {
    fn from(entry: tasks::Entry) -> Self {
        let tasks::Entry {
            phase,
            tasks,
            open,
            holds,
            room,
        } = entry;
        Self {
            phase,
            tasks,
            open,
            holds,
            room,
        }
    }
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
        if membership.weights.len() != count {
            let problem = format!("{} weights for {count} members", membership.weights.len());
            return Err(invalid("membership.weights", problem));
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
            state: Step(membership.state),
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
            weights: membership.weights,
            first: Assignment::from_owners(membership.owners.into_iter().map(Rank).collect()),
            recompute: membership.recompute,
            snapshot: membership.snapshot,
        })
    }
}

impl From<&Membership> for wire::Membership {
    fn from(membership: &Membership) -> Self {
        Self {
            epoch: membership.epoch.0,
            base: membership.base.0,
            state: membership.state.0,
            members: membership.members.iter().map(Into::into).collect(),
            sources: membership.sources.iter().map(|&source| source.into()).collect(),
            owners: membership.first.owners().iter().map(|rank| rank.0).collect(),
            recompute: membership.recompute,
            weights: membership.weights.clone(),
            snapshot: membership.snapshot,
        }
    }
}

impl From<&Member> for wire::Member {
    fn from(member: &Member) -> Self {
        Self {
            worker: Some((&member.worker).into()),
            address: member.address.to_string(),
        }
    }
}

impl From<Verdict> for wire::StepCommitted {
    fn from(verdict: Verdict) -> Self {
        Self {
            epoch: verdict.epoch.0,
            step: verdict.step.0,
            ends_epoch: verdict.ends_epoch,
            skip: verdict.skip,
            snapshot: verdict.snapshot,
            recorded: verdict.recorded.0,
        }
    }
}

impl From<wire::StepCommitted> for Verdict {
    fn from(commit: wire::StepCommitted) -> Self {
        Self {
            epoch: Epoch(commit.epoch),
            step: Step(commit.step),
            skip: commit.skip,
            ends_epoch: commit.ends_epoch,
            snapshot: commit.snapshot,
            recorded: Step(commit.recorded),
        }
    }
}

impl From<Snapshot> for wire::Snapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self {
            step: snapshot.step.0,
            epoch: snapshot.epoch.0,
            shard: snapshot.shard,
            of: snapshot.of,
        }
    }
}

impl From<wire::Snapshot> for Snapshot {
    fn from(snapshot: wire::Snapshot) -> Self {
        Self {
            step: Step(snapshot.step),
            epoch: Epoch(snapshot.epoch),
            shard: snapshot.shard,
            of: snapshot.of,
        }
    }
}

impl From<&Entry> for wire::Entry {
    fn from(entry: &Entry) -> Self {
        let span = |span: &Span| wire::OwnedSpan {
            from: span.positions.start,
            to: span.positions.end,
            worker: Some((&span.worker).into()),
        };
        Self {
            step: entry.step.0,
            epoch: entry.epoch.0,
            workers: entry.workers,
            digest: entry.digest.clone(),
            loss: entry.loss,
            spans: entry.spans.iter().map(span).collect(),
            milliseconds: entry.milliseconds,
            skipped: entry.skipped,
            unseen_to: entry.unseen_to.map(|step| step.0),
        }
    }
}

impl TryFrom<wire::Entry> for Entry {
    type Error = WireError;
    fn try_from(entry: wire::Entry) -> Result<Self, WireError> {
        let span = |span: wire::OwnedSpan| {
            Ok(Span {
                positions: span.from..span.to,
                worker: required("entry.spans.worker", span.worker)?.try_into()?,
            })
        };
        Ok(Self {
            step: Step(entry.step),
            epoch: Epoch(entry.epoch),
            workers: entry.workers,
            digest: entry.digest,
            loss: entry.loss,
            spans: entry
                .spans
                .into_iter()
                .map(span)
                .collect::<Result<_, WireError>>()?,
            milliseconds: entry.milliseconds,
            skipped: entry.skipped,
            unseen_to: entry.unseen_to.map(Step),
        })
    }
}

impl From<&Offer> for wire::Offer {
    fn from(offer: &Offer) -> Self {
        Self {
            epoch: offer.epoch.0,
            held: offer.held.0,
            lanes: offer.lanes.iter().map(|lane| lane.0).collect(),
            members: offer.members.iter().map(Into::into).collect(),
            entries: offer.entries.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Offer> for Offer {
    type Error = WireError;
    fn try_from(offer: wire::Offer) -> Result<Self, WireError> {
        Ok(Self {
            epoch: Epoch(offer.epoch),
            held: Step(offer.held),
            lanes: offer.lanes.into_iter().map(Lane).collect(),
            members: offer
                .members
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            entries: offer
                .entries
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
        })
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
            state: Step(7),
            members: (0..4).map(member).collect(),
            sources: vec![
                Source::Held,
                Source::Seed,
                Source::Checkpoint,
                Source::Peer(Rank(2)),
            ],
            weights: vec![1, 2, 3, 4],
            first: Assignment::fresh(8, 4),
            recompute: true,
            snapshot: true,
        }
    }

    #[test]
    fn a_membership_survives_the_wire() {
        let there = wire::Membership::from(&membership());
        assert_eq!(Membership::try_from(there).unwrap(), membership());
    }

    #[test]
    fn an_offer_survives_the_wire() {
        let worker = membership().members[1].worker.clone();
        let entry = Entry {
            step: Step(8),
            epoch: Epoch(2),
            workers: 3,
            digest: "d".into(),
            loss: 1.5,
            spans: vec![Span {
                positions: 4..6,
                worker: worker.clone(),
            }],
            milliseconds: 2.5,
            skipped: true,
            unseen_to: Some(Step(9)),
        };
        let offer = Offer {
            epoch: Epoch(3),
            held: Step(9),
            lanes: vec![Lane(1), Lane(3)],
            members: vec![worker],
            entries: vec![entry],
        };
        assert_eq!(Offer::try_from(wire::Offer::from(&offer)).unwrap(), offer);
        let mut spoilt = wire::Offer::from(&offer);
        spoilt.entries[0].spans[0].worker = None;
        let error = Offer::try_from(spoilt).unwrap_err().to_string();
        assert_eq!(error, "entry.spans.worker is missing");
    }

    #[test]
    fn what_is_missing_or_invalid_is_named() {
        type Spoil = fn(&mut wire::Membership);
        let cases: [(Spoil, &str); 7] = [
            (|m| m.weights.truncate(3), "3 weights for 4 members"),
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
