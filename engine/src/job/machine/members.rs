//! Who comes and who goes.

use std::collections::BTreeSet;

use super::{Job, Peer, note};
use crate::geometry::Assignment;
use crate::ids::{Rank, Step, WorkerId};
use crate::job::{Command, NoteKind, Offer, Phase};
use crate::membership::{Membership, Source};
use crate::plants::{Plant, planted};
use crate::time::Instant;

impl Job {
    pub(super) fn joined(
        &mut self,
        now: Instant,
        worker: WorkerId,
        peer: Peer,
        offer: Option<Offer>,
        out: &mut Vec<Command>,
    ) {
        // It missed what was said since its connection broke, so it comes as any other; and a process that was
        // started anew stands in for the one before it.
        let same_place = |other: &&WorkerId| other.node == worker.node && other.slot == worker.slot;
        let before: Vec<WorkerId> = self.peers.keys().filter(same_place).cloned().collect();
        for old in before {
            if old == worker {
                self.left(now, &old, "it connected anew", out);
            } else {
                self.evict(now, &old, "a new process has taken its place", out);
            }
        }
        let missed = |offer: &Offer| offer.epoch < self.past.fence && !planted(Plant::NoFence);
        if offer.as_ref().is_some_and(missed) {
            // It missed that the job went back. It is to say anew that it is ready, with empty hands.
            out.push(Command::Hold {
                workers: vec![worker],
                epoch: self.epoch,
                forget: true,
                reason: "its state is of steps that do not count any more".to_owned(),
            });
            return;
        }
        out.push(note(
            NoteKind::Joined,
            format!("{worker} is ready at {}", peer.address),
        ));
        let committed = self.committed();
        self.peers.insert(worker.clone(), peer);
        match (&self.phase, offer) {
            (Phase::Gathering, offer) => {
                self.gathering_since.get_or_insert(now);
                if let Some(offer) = offer {
                    self.take_offer(&worker, offer);
                }
            }
            (_, Some(offer)) if offer.held == committed => {
                if let Some(peer) = self.peers.get_mut(&worker) {
                    peer.at = Some(committed);
                }
            }
            _ => {}
        }
        if self.phase == Phase::Paused {
            self.regroup(now, "enough workers again", out);
        }
        // Otherwise newcomers enter at the next step's boundary.
    }

    pub(super) fn left(&mut self, now: Instant, worker: &WorkerId, reason: &str, out: &mut Vec<Command>) {
        let killed = self.condemned.remove(worker);
        self.known.remove(worker);
        if self.peers.remove(worker).is_none() {
            return;
        }
        out.push(note(NoteKind::Lost, format!("{worker} is gone: {reason}")));
        self.orphan(worker);
        self.pace.forget(worker);
        self.checkpoint_writer_left(worker, out);
        if self.members.contains(worker) {
            if !killed {
                self.lost_at.get_or_insert(now);
            }
            self.regroup(now, &format!("{worker} is gone"), out);
        } else if self.phase == Phase::Paused && !self.peers.keys().any(|peer| self.holds(peer)) {
            self.regroup(now, &format!("{worker} is gone"), out);
        } else if self.peers.is_empty() {
            self.gathering_since = None;
        }
    }

    pub(super) fn evict(&mut self, now: Instant, worker: &WorkerId, reason: &str, out: &mut Vec<Command>) {
        out.push(Command::Evict {
            worker: worker.clone(),
            reason: reason.to_owned(),
        });
        self.left(now, worker, reason, out);
    }

    /// Evicts whoever was silent for a lease, and whoever drains and is no member any more.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Command>) {
        let spared = |(worker, peer): &(&WorkerId, &Peer)| {
            peer.drains && !self.members.is_empty() && !self.members.contains(worker)
        };
        let spared: Vec<WorkerId> = self
            .peers
            .iter()
            .filter(spared)
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in spared {
            self.evict(now, &worker, "its node is drained", out);
        }
        let lease = self.rules.lease;
        let silent: Vec<WorkerId> = self
            .peers
            .iter()
            .filter(|(_, peer)| now.since(peer.last_seen) > lease)
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in silent {
            let reason = format!("nothing heard from it for {} ms, its lease", lease.as_millis());
            self.evict(now, &worker, &reason, out);
        }
    }

    /// After a change among the members: on with the survivors, or pause, or start over when no state is left.
    fn regroup(&mut self, now: Instant, reason: &str, out: &mut Vec<Command>) {
        if !self.peers.keys().any(|worker| self.holds(worker)) {
            out.push(note(
                NoteKind::Paused,
                format!("{reason}; no worker holds the state any more"),
            ));
            self.fall_back(self.committed(), reason, out);
        } else if (self.peers.len() as u32) < self.rules.min_workers && !planted(Plant::NoMinimum) {
            self.members.clear();
            self.phase = Phase::Paused;
            self.hold(reason, false, out);
            let (have, need) = (self.peers.len(), self.rules.min_workers);
            let text = format!("{reason}; paused with {have} of at least {need} workers");
            out.push(note(NoteKind::Paused, text));
        } else {
            self.announce(now, reason, out);
        }
    }

    pub(super) fn hold(&mut self, reason: &str, forget: bool, out: &mut Vec<Command>) {
        self.raise(out);
        let workers = self.workers();
        out.push(Command::Hold {
            workers,
            epoch: self.epoch,
            forget,
            reason: reason.to_owned(),
        });
    }

    /// Raises the epoch: whatever was said in lower ones is void.
    fn raise(&mut self, out: &mut Vec<Command>) {
        self.epoch = self.epoch.next();
        self.reports.clear();
        self.finished.clear();
        self.complaints.close();
        out.push(Command::PersistEpoch(self.epoch));
    }

    /// Whether newcomers may enter now: nothing of the step in flight has been computed yet, or nobody trains.
    fn at_boundary(&self) -> bool {
        self.owners.is_empty() || self.members.is_empty()
    }

    /// The members of the next epoch: those of this one, then others that hold the state, newcomers at a boundary.
    fn choose(&self) -> Vec<WorkerId> {
        let stays = |worker: &&WorkerId| self.members.contains(*worker);
        let mut chosen: Vec<&WorkerId> = self.peers.keys().filter(stays).collect();
        let drains = |w: &WorkerId| self.peers.get(w).is_some_and(|peer| peer.drains);
        let mut others: Vec<&WorkerId> = self.peers.keys().filter(|w| !self.members.contains(*w)).collect();
        others.sort_by_key(|w| (!self.holds(w), drains(w), !self.is_near(w)));
        let begins = self.members.is_empty();
        let boundary = self.at_boundary();
        // Whoever is far behind is waited for, and whoever drains is kept, only if it must be.
        let least = self.rules.min_workers as usize;
        for worker in others {
            // One step behind, it has the state before it could compute the first of the lost lanes.
            let ready = self.holds(worker) || self.is_behind(worker, 1) || (boundary && self.is_near(worker));
            if begins || (ready && !drains(worker)) || chosen.len() < least {
                chosen.push(worker);
            }
        }
        let most = self.rules.max_workers as usize + usize::from(planted(Plant::NoMaximum));
        chosen.truncate(most);
        let mut chosen: Vec<WorkerId> = chosen.into_iter().cloned().collect();
        chosen.sort();
        chosen
    }

    /// Raises the epoch and announces its members.
    pub(super) fn announce(&mut self, now: Instant, reason: &str, out: &mut Vec<Command>) {
        let chosen = self.choose();
        let count = chosen.len() as u32;
        let rank_of = |w: &WorkerId| chosen.iter().position(|c| c == w).map(|rank| Rank(rank as u32));
        let weights = self.weigh(&chosen);
        let again = !self.owners.is_empty();
        let first = if again {
            let kept: Vec<Option<Rank>> = self.owners.iter().map(|w| rank_of(w.as_ref()?)).collect();
            Assignment::keeping(&kept, &weights)
        } else {
            Assignment::weighted(self.rules.geometry.lanes, &weights)
        };
        self.give_out(&first, &chosen);
        self.raise(out);
        let (epoch, base) = (self.epoch, self.committed());
        let recompute = self.corruption.recompute(base.next());
        let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        out.push(note(
            NoteKind::Epoch,
            format!(
                "epoch {epoch} after step {base} with {count} workers ({}): {reason}",
                names.join(", ")
            ),
        ));
        let finishing = base == self.rules.steps;
        // A step that was skipped unseen has a checkpoint too, and the last one must.
        let skipped = self.state < base && self.checkpoint_due(base);
        let snapshot = skipped || (finishing && self.lacks_last_checkpoint());
        out.push(Command::Announce(Membership {
            epoch,
            base,
            state: self.state,
            members: chosen.iter().filter_map(|w| self.member(w)).collect(),
            sources: self.sources(&chosen),
            weights,
            first,
            recompute,
            snapshot,
        }));
        for worker in &chosen {
            if let Some(peer) = self.peers.get_mut(worker) {
                peer.donor = None;
            }
        }
        // Whoever is out follows a member from now on; its donor may be out too.
        let stays: BTreeSet<WorkerId> = chosen.iter().cloned().collect();
        for donor in self
            .members
            .drain(..)
            .filter(|member| !stays.contains(member))
            .collect::<Vec<_>>()
        {
            self.orphan(&donor);
        }
        self.members = chosen;
        self.corruption.keep(&self.members);
        if snapshot {
            self.begin_checkpoint(base, out);
        }
        self.phase = if finishing {
            Phase::Finishing
        } else {
            Phase::Stepping
        };
        self.pace.begin(now, again);
        self.inject(now, out);
    }

    /// Remembers who computes what of the step in flight.
    pub(super) fn give_out(&mut self, assignment: &Assignment, members: &[WorkerId]) {
        let owner = |rank: &Rank| members.get(rank.index()).cloned();
        self.owners = assignment.owners().iter().map(owner).collect();
    }

    /// Where each member gets the state of the last committed step.
    fn sources(&self, members: &[WorkerId]) -> Vec<Source> {
        let holder = members.iter().position(|w| self.holds(w));
        let has_checkpoint = |w: &WorkerId| {
            self.peers
                .get(w)
                .is_some_and(|peer| peer.checkpoints.contains(&self.state))
        };
        let reader = members.iter().position(has_checkpoint);
        let source = |worker: &WorkerId| match (holder, reader) {
            (Some(_), _) if self.holds(worker) => Source::Held,
            (Some(_), _) if planted(Plant::NearIsThere) && self.is_near(worker) => Source::Held,
            (Some(donor), _) => Source::Peer(Rank(donor as u32)),
            (None, _) if self.state == Step(0) => Source::Seed,
            (None, Some(_)) if has_checkpoint(worker) => Source::Checkpoint,
            (None, reader) => Source::Peer(Rank(reader.unwrap_or_default() as u32)),
        };
        members.iter().map(source).collect()
    }
}
