//! Workers that are no members: they follow a member's feed, and so have its state without stopping anybody.

use super::{Job, note};
use crate::ids::{Step, WorkerId};
use crate::job::{Command, NoteKind, Phase};
use crate::plants::{Plant, planted};
use crate::time::Instant;

/// A follower may enter when it was seen to be no more than so many steps behind: the rest is on its way.
const LAG: u64 = 2;

impl Job {
    /// Gives a donor to everybody who is to follow and has none: as many as there is room for, and the spares.
    pub(super) fn feed(&mut self, out: &mut Vec<Command>) {
        let idle = self.members.len() == self.peers.len();
        if idle || !matches!(self.phase, Phase::Stepping | Phase::Finishing) {
            return;
        }
        let wanted = (self.rules.max_workers + self.rules.spares) as usize;
        let wanted = wanted.saturating_sub(self.members.len());
        let fed = self.peers.values().filter(|peer| peer.donor.is_some()).count();
        let hungry = |(worker, peer): &(&WorkerId, &super::Peer)| {
            peer.donor.is_none() && !peer.drains && !self.members.contains(worker)
        };
        let hungry: Vec<WorkerId> = self
            .peers
            .iter()
            .filter(hungry)
            .map(|(worker, _)| worker.clone())
            .take(wanted.saturating_sub(fed))
            .collect();
        for worker in hungry {
            let Some(donor) = self.least_busy_donor().and_then(|donor| self.member(&donor)) else {
                return;
            };
            if let Some(peer) = self.peers.get_mut(&worker) {
                peer.donor = Some(donor.worker.clone());
            }
            let epoch = self.epoch;
            out.push(Command::Follow { worker, epoch, donor });
        }
    }

    /// The member with the fewest followers of those that hold the state; the last of them, as the first rank has more
    /// to do.
    fn least_busy_donor(&self) -> Option<WorkerId> {
        let followers = |member: &WorkerId| {
            let of_it = |peer: &&super::Peer| peer.donor.as_ref() == Some(member);
            self.peers.values().filter(of_it).count()
        };
        let holders = self.members.iter().rev().filter(|member| self.holds(member));
        holders.min_by_key(|member| followers(member)).cloned()
    }

    pub(super) fn following(&mut self, now: Instant, worker: &WorkerId, step: Step) {
        self.seen(now, worker);
        let gathering = self.phase == Phase::Gathering;
        match self.peers.get_mut(worker) {
            // While all gather, it may still follow the donor that it had before.
            Some(peer) if !self.members.contains(worker) && (gathering || peer.donor.is_some()) => {
                peer.at = Some(step);
            }
            _ => self.stale += 1,
        }
    }

    /// Whoever followed `donor` needs another one; [`feed`](Self::feed) finds it.
    pub(super) fn orphan(&mut self, donor: &WorkerId) {
        for peer in self.peers.values_mut().filter(|_| !planted(Plant::OrphanForever)) {
            peer.donor.take_if(|of| of == donor);
        }
    }

    /// Whether a worker that is no member could be one at a boundary without anybody waiting for it.
    pub(super) fn is_near(&self, worker: &WorkerId) -> bool {
        self.is_behind(worker, LAG)
    }

    /// Whether a follower was seen so many steps behind the state that members have, or fewer.
    pub(super) fn is_behind(&self, worker: &WorkerId, steps: u64) -> bool {
        let at = self.peers.get(worker).and_then(|peer| peer.at);
        at.is_some_and(|at| at.0 + steps >= self.state.0)
    }

    /// Workers that can become members at the boundary after the step in flight, in order.
    pub(super) fn candidates(&self) -> Vec<WorkerId> {
        let ready = |(worker, peer): &(&WorkerId, &super::Peer)| {
            !peer.drains && !self.members.contains(worker) && self.is_near(worker)
        };
        self.peers
            .iter()
            .filter(ready)
            .map(|(worker, _)| worker.clone())
            .collect()
    }

    pub(super) fn drain(&mut self, now: Instant, worker: &WorkerId, out: &mut Vec<Command>) {
        let Some(peer) = self.peers.get_mut(worker) else {
            return;
        };
        peer.drains = true;
        if self.members.contains(worker) {
            out.push(note(
                NoteKind::Drained,
                format!("{worker} is drained; it leaves at the next boundary at which it can be spared"),
            ));
        } else {
            self.evict(now, worker, "its node is drained", out);
        }
    }

    /// Members that are to leave and can be spared at the boundary, when `joining` come.
    pub(super) fn leaving(&self, joining: usize) -> Vec<WorkerId> {
        let drains = |worker: &&WorkerId| self.peers.get(*worker).is_some_and(|peer| peer.drains);
        let spare = (self.members.len() + joining).saturating_sub(self.rules.min_workers as usize);
        self.members.iter().filter(drains).take(spare).cloned().collect()
    }
}
