//! What is wanted against what is there.

use std::collections::BTreeSet;

use super::RankMachine;
use crate::ids::{Lane, Rank};
use crate::membership::{Membership, Source};
use crate::plants::{Plant, planted};
use crate::rank::{Command, Snapshot, Task, Verdict, Word};

impl RankMachine {
    /// The next task, from what is wanted and what is there; tells the coordinator of holding on the way.
    pub(super) fn next(&mut self, out: &mut Vec<Command>) -> Option<Task> {
        // A verdict stands whatever happens to the membership.
        if let Some(Verdict { step, skip, .. }) = self.verdict {
            return Some(Task::Apply { step, skip });
        }
        if let Some(due) = self.snapshot.take_if(|due| self.held == Some(due.step)) {
            return Some(Task::Snapshot(due));
        }
        let epoch = self.epoch;
        let Some(membership) = &self.membership else {
            let donor = self.donor.clone()?;
            return Some(Task::Follow { epoch, donor });
        };
        if self.entered < epoch {
            return self.enter(membership);
        }
        if self.broken == epoch || self.over == epoch {
            return None; // a new epoch is on its way
        }
        let me = membership.rank_of(&self.me)?;
        let source = membership.sources.get(me.index()).copied()?;
        if self.told_holding < epoch {
            let here = self.held == Some(membership.base) || self.held == Some(membership.state);
            if source == Source::Held && !here && !planted(Plant::NearIsThere) {
                // It followed its donor further after it had said where it was.
                self.membership = None;
                out.push(Command::Ready);
                return None;
            }
            if let Some(task) = self.come_by(membership, source) {
                return Some(task);
            }
            self.told_holding = epoch;
            if source != Source::Held {
                out.push(Command::Tell(Word::Holding { epoch }));
            }
        }
        let held = self.held?;
        if membership.snapshot && held == membership.base && self.copied < epoch {
            let (Rank(shard), of) = (me, membership.members.len() as u32);
            let (step, epoch) = (held, epoch);
            return Some(Task::Snapshot(Snapshot {
                step,
                epoch,
                shard,
                of,
            }));
        }
        if held == self.steps {
            return (self.finished < epoch).then_some(Task::Finish {
                evaluate: me == Rank(0),
            });
        }
        let step = held.next();
        let assignment = membership.assignment(step);
        if let Some(lane) = assignment.lanes_of(me).find(|lane| !self.computed.contains(lane)) {
            return Some(Task::Compute { step, lane });
        }
        if self.reduced == epoch {
            return None;
        }
        if self.told_computed != epoch {
            self.told_computed = epoch;
            let (lanes, took) = self.work;
            out.push(Command::Tell(Word::Computed {
                epoch,
                step,
                lanes,
                took,
            }));
        }
        Some(Task::Reduce { epoch, step })
    }

    /// What is still to be done to hold the state of the epoch's base.
    fn come_by(&self, membership: &Membership, source: Source) -> Option<Task> {
        let &Membership {
            base, state, epoch, ..
        } = membership;
        match (self.held, source) {
            (Some(held), _) if held == base => None,
            (Some(_), Source::Held) if planted(Plant::NearIsThere) => None,
            (Some(held), _) if held == state => Some(Task::Skip { to: base }),
            (_, Source::Peer(donor)) => {
                let donor = membership.members.get(donor.index())?.clone();
                Some(Task::Follow { epoch, donor })
            }
            (_, source) => Some(Task::Acquire { step: state, source }),
        }
    }

    fn enter(&self, membership: &Membership) -> Option<Task> {
        let me = membership.rank_of(&self.me)?;
        let anew = membership.recompute && !planted(Plant::KeepDisputed);
        let goes_on = !anew && self.held == Some(membership.base);
        let keep = if goes_on && planted(Plant::KeepWhatIsLost) {
            let mine: BTreeSet<Lane> = membership.first.lanes_of(me).collect();
            mine.intersection(&self.computed).copied().collect()
        } else if goes_on {
            membership.first.usable(me, &self.computed)
        } else {
            BTreeSet::new()
        };
        Some(Task::Enter {
            membership: membership.clone(),
            keep,
        })
    }
}
