//! The machine itself: one handler an event, and [`Job::announce`] as the one place that changes membership.

mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Command, Event, NoteKind, Outcome, Phase, Report, Rules};
use crate::geometry::Assignment;
use crate::ids::{Epoch, Rank, Step, WorkerId};
use crate::membership::{Member, Membership, Source};
use crate::time::Instant;

/// A connected worker.
#[derive(Clone, Debug)]
struct Peer {
    address: SocketAddr,
    checkpoints: Vec<Step>,
    last_seen: Instant,
    /// Whether it is known to have the state of the last committed step (or to be about to apply it).
    holds: bool,
}

/// The coordinator's side of one job.
#[derive(Clone, Debug)]
pub struct Job {
    rules: Rules,
    phase: Phase,
    epoch: Epoch,
    committed: Step,
    expected: u32,
    peers: BTreeMap<WorkerId, Peer>,
    /// Members of the epoch, in rank order. Empty when gathering or paused.
    members: Vec<WorkerId>,
    /// Who computes each lane of the step in flight; outlives a pause, so that survivors keep their lanes.
    owners: Vec<WorkerId>,
    reports: BTreeMap<WorkerId, Report>,
    finished: BTreeMap<WorkerId, String>,
    /// Members to be killed in this step; it is not committed before they are gone.
    condemned: BTreeSet<WorkerId>,
    gathering_since: Option<Instant>,
    committed_at: Option<Instant>,
    lost_at: Option<Instant>,
    /// Disagreements over the step in flight.
    disputes: u32,
    /// Messages that were dropped because they spoke of another epoch or step.
    stale: u64,
}

impl Job {
    /// A job that no worker has joined yet. `epoch` is the last one that was persisted and `committed` the last
    /// step in the ledger, both zero for a new job.
    #[must_use]
    pub fn new(rules: Rules, epoch: Epoch, committed: Step) -> Self {
        Self {
            rules,
            phase: Phase::Gathering,
            epoch,
            committed,
            expected: 0,
            peers: BTreeMap::new(),
            members: Vec::new(),
            owners: Vec::new(),
            reports: BTreeMap::new(),
            finished: BTreeMap::new(),
            condemned: BTreeSet::new(),
            gathering_since: None,
            committed_at: None,
            lost_at: None,
            disputes: 0,
            stale: 0,
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The current epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The last committed step.
    #[must_use]
    pub fn committed(&self) -> Step {
        self.committed
    }

    /// Members of the current epoch, in rank order.
    #[must_use]
    pub fn members(&self) -> &[WorkerId] {
        &self.members
    }

    /// Workers that are connected, members or not.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerId> {
        self.peers.keys().cloned().collect()
    }

    /// Messages dropped by a fence.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// Takes what happened at `now`, returns what to do, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        if matches!(self.phase, Phase::Ended(_)) {
            return out;
        }
        match event {
            Event::Expected(count) => self.expected = count,
            Event::Joined {
                worker,
                address,
                checkpoints,
            } => {
                self.joined(now, worker, address, checkpoints, &mut out);
            }
            Event::Left { worker, reason } => self.left(now, &worker, &reason, &mut out),
            Event::Heartbeat(worker) => self.seen(now, &worker),
            Event::Holding { worker, epoch } => {
                self.seen(now, &worker);
                match self.peers.get_mut(&worker) {
                    Some(peer) if epoch == self.epoch => peer.holds = true,
                    _ => self.stale += 1,
                }
            }
            Event::Reduced(report) => self.reduced(now, report, &mut out),
            Event::PeerLost {
                by,
                epoch,
                peer,
                reason,
            } => {
                self.seen(now, &by);
                if epoch == self.epoch && self.members.contains(&by) && self.members.contains(&peer) {
                    let reason = format!("{by} lost its connection to it: {reason}");
                    self.evict(now, &peer, &reason, &mut out);
                } else {
                    self.stale += 1;
                }
            }
            Event::CheckpointWritten {
                worker,
                step,
                weights,
            } => {
                self.seen(now, &worker);
                out.push(note(
                    NoteKind::Checkpoint,
                    format!("{worker} wrote the checkpoint of step {step}"),
                ));
                out.push(Command::RecordCheckpoint { step, weights });
            }
            Event::Finished {
                worker,
                epoch,
                weights,
            } => self.finished(now, worker, epoch, weights, &mut out),
            Event::Fatal { worker, reason } => {
                self.end(Outcome::Failed(format!("{worker}: {reason}")), &mut out);
            }
            Event::Cancel => self.end(Outcome::Cancelled, &mut out),
            Event::Tick => self.tick(now, &mut out),
        }
        if self.phase == Phase::Gathering {
            self.try_gather(now, &mut out);
        }
        out
    }

    fn seen(&mut self, now: Instant, worker: &WorkerId) {
        if let Some(peer) = self.peers.get_mut(worker) {
            peer.last_seen = now;
        }
    }

    fn joined(
        &mut self,
        now: Instant,
        worker: WorkerId,
        address: SocketAddr,
        checkpoints: Vec<Step>,
        out: &mut Vec<Command>,
    ) {
        out.push(note(NoteKind::Joined, format!("{worker} is ready at {address}")));
        self.peers.insert(
            worker,
            Peer {
                address,
                checkpoints,
                last_seen: now,
                holds: false,
            },
        );
        match self.phase {
            Phase::Gathering => {
                self.gathering_since.get_or_insert(now);
            }
            Phase::Paused => self.regroup(now, "enough workers again", out),
            // Newcomers enter at the next step's boundary.
            Phase::Stepping | Phase::Finishing | Phase::Ended(_) => {}
        }
    }

    fn left(&mut self, now: Instant, worker: &WorkerId, reason: &str, out: &mut Vec<Command>) {
        let killed = self.condemned.remove(worker);
        if self.peers.remove(worker).is_none() {
            return;
        }
        out.push(note(NoteKind::Lost, format!("{worker} is gone: {reason}")));
        if self.members.contains(worker) {
            if !killed {
                self.lost_at.get_or_insert(now);
            }
            self.regroup(now, &format!("{worker} is gone"), out);
        } else if self.phase == Phase::Paused && !self.peers.values().any(|peer| peer.holds) {
            self.regroup(now, &format!("{worker} is gone"), out);
        } else if self.peers.is_empty() {
            self.gathering_since = None;
        }
    }

    fn evict(&mut self, now: Instant, worker: &WorkerId, reason: &str, out: &mut Vec<Command>) {
        out.push(Command::Evict {
            worker: worker.clone(),
            reason: reason.to_owned(),
        });
        self.left(now, worker, reason, out);
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Command>) {
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

    /// Begins, or begins again from a checkpoint, when no worker holds any state.
    fn try_gather(&mut self, now: Instant, out: &mut Vec<Command>) {
        let ready = self.peers.len() as u32;
        let wanted = self
            .rules
            .max_workers
            .min(self.expected.max(self.rules.min_workers));
        let Some(since) = self.gathering_since else { return };
        let waited = now.since(since) >= self.rules.gather;
        if ready < self.rules.min_workers || (ready < wanted && !waited) {
            return;
        }
        // A checkpoint may be ahead of the ledger, when the commit that it follows was never recorded or was cut.
        let known = self.committed;
        let offers = self
            .peers
            .values()
            .flat_map(|peer| peer.checkpoints.iter().copied());
        let base = offers.filter(|&step| step <= known).max().unwrap_or_default();
        out.push(Command::Truncate(base));
        self.committed = base;
        self.owners.clear();
        self.committed_at = Some(now);
        self.gathering_since = None;
        let reason = match base {
            Step(0) => format!("{ready} workers are ready; starting from the seed"),
            step => format!("{ready} workers are ready; resuming from the checkpoint of step {step}"),
        };
        self.announce(now, &reason, out);
    }

    /// After a change among the members: on with the survivors, or pause, or start over when no state is left.
    fn regroup(&mut self, now: Instant, reason: &str, out: &mut Vec<Command>) {
        let holders = self.peers.values().filter(|peer| peer.holds).count();
        if holders == 0 {
            out.push(note(
                NoteKind::Paused,
                format!("{reason}; no worker holds the state any more"),
            ));
            self.hold(reason, true, out);
            // Those that are left look for checkpoints again and say anew that they are ready.
            self.members.clear();
            self.condemned.clear();
            self.peers.clear();
            self.phase = Phase::Gathering;
            self.gathering_since = None;
        } else if (self.peers.len() as u32) < self.rules.min_workers {
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

    fn hold(&mut self, reason: &str, forget: bool, out: &mut Vec<Command>) {
        self.epoch = self.epoch.next();
        self.reports.clear();
        out.push(Command::PersistEpoch(self.epoch));
        let workers = self.workers();
        out.push(Command::Hold {
            workers,
            epoch: self.epoch,
            forget,
            reason: reason.to_owned(),
        });
    }

    /// Whether newcomers may enter now: nothing of the step in flight has been computed yet, or nobody trains.
    fn at_boundary(&self) -> bool {
        self.owners.is_empty() || self.members.is_empty()
    }

    /// Raises the epoch and announces its members: holders first come, newcomers while there is room.
    fn announce(&mut self, now: Instant, reason: &str, out: &mut Vec<Command>) {
        let room = self.rules.max_workers as usize;
        let stays = |worker: &WorkerId| self.members.contains(worker);
        let mut chosen: Vec<WorkerId> = self
            .peers
            .iter()
            .filter(|(w, peer)| stays(w) || peer.holds)
            .map(|(w, _)| w.clone())
            .collect();
        chosen.truncate(room);
        let admit = self.at_boundary() || chosen.len() < self.rules.min_workers as usize;
        if admit {
            let newcomers = self.peers.keys().filter(|w| !chosen.contains(w)).cloned();
            let newcomers: Vec<WorkerId> = newcomers.take(room - chosen.len()).collect();
            chosen.extend(newcomers);
        }
        chosen.sort();

        self.epoch = self.epoch.next();
        self.reports.clear();
        self.finished.clear();
        let lanes = self.rules.geometry.lanes;
        let count = chosen.len() as u32;
        let rank_of = |w: &WorkerId| chosen.iter().position(|c| c == w).map(|rank| Rank(rank as u32));
        let first = if self.owners.is_empty() {
            Assignment::fresh(lanes, count)
        } else {
            let kept: Vec<Option<Rank>> = self.owners.iter().map(rank_of).collect();
            Assignment::keeping(&kept, count)
        };
        self.owners = first
            .owners()
            .iter()
            .filter_map(|rank| chosen.get(rank.index()).cloned())
            .collect();

        let sources = self.sources(&chosen);
        let address_of = |w: &WorkerId| self.peers.get(w).map(|peer| peer.address);
        let members: Vec<Member> = chosen
            .iter()
            .filter_map(|w| {
                Some(Member {
                    worker: w.clone(),
                    address: address_of(w)?,
                })
            })
            .collect();
        let names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
        let (epoch, base, recompute) = (self.epoch, self.committed, self.disputes > 0);
        out.push(Command::PersistEpoch(epoch));
        out.push(note(
            NoteKind::Epoch,
            format!(
                "epoch {epoch} after step {base} with {count} workers ({}): {reason}",
                names.join(", ")
            ),
        ));
        out.push(Command::Announce(Membership {
            epoch,
            base,
            members,
            sources,
            first,
            recompute,
        }));
        self.members = chosen;
        self.phase = if base == self.rules.steps {
            Phase::Finishing
        } else {
            Phase::Stepping
        };
        self.inject(now, out);
    }

    /// Where each member gets the state of the last committed step.
    fn sources(&self, members: &[WorkerId]) -> Vec<Source> {
        let holder = members
            .iter()
            .position(|w| self.peers.get(w).is_some_and(|peer| peer.holds));
        let has_checkpoint = |w: &WorkerId| {
            self.peers
                .get(w)
                .is_some_and(|peer| peer.checkpoints.contains(&self.committed))
        };
        let reader = members.iter().position(has_checkpoint);
        let source = |worker: &WorkerId| match (holder, reader) {
            (Some(_), _) if self.peers.get(worker).is_some_and(|peer| peer.holds) => Source::Held,
            (Some(donor), _) => Source::Peer(Rank(donor as u32)),
            (None, _) if self.committed == Step(0) => Source::Seed,
            (None, Some(_)) if has_checkpoint(worker) => Source::Checkpoint,
            (None, reader) => Source::Peer(Rank(reader.unwrap_or_default() as u32)),
        };
        members.iter().map(source).collect()
    }

    /// Carries out the faults that are due in the step in flight.
    fn inject(&mut self, now: Instant, out: &mut Vec<Command>) {
        if self.phase != Phase::Stepping {
            return;
        }
        let step = self.committed.next();
        let due: Vec<super::Kill> = self
            .rules
            .kills
            .iter()
            .copied()
            .filter(|kill| kill.step == step)
            .collect();
        self.rules.kills.retain(|kill| kill.step > step);
        for kill in due {
            match self
                .members
                .iter()
                .find(|worker| worker.slot == kill.slot)
                .cloned()
            {
                Some(worker) => {
                    self.lost_at.get_or_insert(now);
                    out.push(note(
                        NoteKind::Killed,
                        format!("SIGKILL to {worker} while step {step} is in flight"),
                    ));
                    out.push(Command::Kill(worker.clone()));
                    self.condemned.insert(worker);
                }
                None => {
                    let text = format!("no member in slot {} to kill at step {step}", kill.slot);
                    out.push(note(NoteKind::Killed, text));
                }
            }
        }
    }

    fn finished(
        &mut self,
        now: Instant,
        worker: WorkerId,
        epoch: Epoch,
        weights: String,
        out: &mut Vec<Command>,
    ) {
        self.seen(now, &worker);
        if self.phase != Phase::Finishing || epoch != self.epoch || !self.members.contains(&worker) {
            self.stale += 1;
            return;
        }
        if let Some(peer) = self.peers.get_mut(&worker) {
            peer.holds = true;
        }
        self.finished.insert(worker, weights);
        if self.finished.len() < self.members.len() {
            return;
        }
        let mut digests: Vec<&String> = self.finished.values().collect();
        digests.dedup();
        let outcome = match digests.as_slice() {
            [weights] => Outcome::Done {
                weights: (*weights).clone(),
            },
            _ => Outcome::Failed("the final weights differ between workers; check the hardware".to_owned()),
        };
        self.end(outcome, out);
    }

    fn end(&mut self, outcome: Outcome, out: &mut Vec<Command>) {
        let text = match &outcome {
            Outcome::Done { weights } => {
                format!("all {} steps are committed; weights {weights}", self.rules.steps)
            }
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Cancelled => format!("cancelled after step {}", self.committed),
        };
        out.push(note(NoteKind::Ended, text));
        out.push(Command::End {
            workers: self.workers(),
            outcome: outcome.clone(),
        });
        self.members.clear();
        self.phase = Phase::Ended(outcome);
    }
}

fn note(kind: NoteKind, text: String) -> Command {
    Command::Note { kind, text }
}
