//! Beginning, and beginning again: which state is the newest that somebody can vouch for.

use super::{Job, note};
use crate::ids::{Step, WorkerId};
use crate::job::{Command, NoteKind, Offer, Phase};
use crate::plants::{Plant, planted};
use crate::time::Instant;

impl Job {
    /// Takes down what a worker kept while there was no coordinator: a leader that has just begun knows no more than
    /// the store and what workers tell it.
    pub(super) fn take_offer(&mut self, worker: &WorkerId, offer: Offer) {
        let Offer {
            epoch: _,
            held,
            lanes,
            members,
            entries,
        } = offer;
        self.known.extend(members);
        for entry in entries {
            self.vouched.entry(entry.step).or_insert(entry);
        }
        if let Some(peer) = self.peers.get_mut(worker) {
            peer.at = Some(held);
            peer.lanes = lanes;
        }
    }

    /// Whether every step up to `step` is in the ledger, or a worker brought its entry along.
    fn is_accounted_for(&self, step: Step) -> bool {
        (self.committed().0 + 1..=step.0).all(|s| self.vouched.contains_key(&Step(s)))
    }

    /// Begins, or begins again, once those that can be expected are there.
    pub(super) fn try_gather(&mut self, now: Instant, out: &mut Vec<Command>) {
        let Some(since) = self.gathering_since else { return };
        let ready = self.peers.len() as u32;
        let wanted = self
            .rules
            .max_workers
            .min(self.expected.max(self.rules.min_workers));
        // Workers that hold state are about to reconnect, if they live; new ones may take long to start.
        let (complete, patience) = if self.known.is_empty() {
            (ready >= wanted, self.rules.gather)
        } else {
            let here = |worker: &WorkerId| self.peers.contains_key(worker);
            (self.known.iter().all(here), self.rules.lease)
        };
        if ready < self.rules.min_workers || (!complete && now.since(since) < patience) {
            return;
        }
        let offers = self.peers.values().filter_map(|peer| peer.at);
        let held = offers.filter(|&step| self.is_accounted_for(step)).max();
        // A checkpoint may be ahead of the ledger, when the commit that it follows was never recorded or was cut.
        let stored = self.peers.values().flat_map(|peer| &peer.checkpoints);
        let committed = self.committed();
        let stored = stored
            .copied()
            .filter(|&step| step <= committed || planted(Plant::CheckpointBeyondLedger))
            .max();
        let base = held.max(stored).unwrap_or_default();
        let reason = match base {
            _ if held == Some(base) => {
                format!("{ready} workers are ready; going on from the state that they hold")
            }
            Step(0) => format!("{ready} workers are ready; starting from the seed"),
            step => format!("{ready} workers are ready; resuming from the checkpoint of step {step}"),
        };
        self.take_up(base, out);
        let workers = self.workers();
        self.jump(&workers, out);
        self.committed_at = Some(now);
        self.gathering_since = None;
        self.announce(now, &reason, out);
        if held != Some(base) {
            self.corruption.begun(base, &self.members);
        }
    }

    /// Makes the ledger end at `base`, and remembers who brought which of the lanes after it.
    fn take_up(&mut self, base: Step, out: &mut Vec<Command>) {
        // The store may have more than counts.
        if !planted(Plant::NoTruncate) {
            out.push(Command::Truncate(base.min(self.committed())));
        }
        if base > self.committed() {
            out.push(note(
                NoteKind::Recovered,
                format!(
                    "workers vouch for steps {} to {base}, which the ledger lacks",
                    self.committed().next()
                ),
            ));
            let missing = (self.committed().0 + 1..=base.0).map(Step);
            for entry in missing.filter_map(|step| self.vouched.remove(&step)) {
                self.past
                    .losses
                    .push(if entry.skipped { f32::NAN } else { entry.loss });
                out.push(Command::Record(entry));
            }
            self.state = base;
        } else {
            self.cut(base);
            self.cut_checkpoints(base);
        }
        self.recorded = self.recorded.min(base);
        self.cut_in = self.epoch;
        self.vouched.clear();
        self.known.clear();
        let mut owners = vec![None; self.rules.geometry.lanes as usize];
        for (worker, peer) in &mut self.peers {
            let lanes = std::mem::take(&mut peer.lanes);
            if peer.at != Some(base) {
                peer.at = None;
                continue;
            }
            for lane in lanes {
                if let Some(owner) = owners.get_mut(lane.index()) {
                    owner.get_or_insert_with(|| worker.clone());
                }
            }
        }
        self.owners = if owners.iter().any(Option::is_some) && !self.jumps() {
            owners
        } else {
            Vec::new()
        };
    }

    /// The state that workers have does not count any more, nor that of workers which come back later.
    pub(super) fn go_back(&mut self, step: Step, reason: &str, out: &mut Vec<Command>) {
        self.fall_back(step, reason, out);
        self.past.fence = self.epoch;
    }

    /// Nobody here has the state any more: all begin again, from a checkpoint of `step` or before it, unless somebody
    /// brings a newer state.
    pub(super) fn fall_back(&mut self, step: Step, reason: &str, out: &mut Vec<Command>) {
        self.hold(reason, true, out);
        self.cut(step);
        self.corruption.forget();
        // Those that are left look for checkpoints again and say anew that they are ready.
        self.members.clear();
        self.owners.clear();
        self.condemned.clear();
        self.peers.clear();
        self.phase = Phase::Gathering;
        self.gathering_since = None;
    }
}
