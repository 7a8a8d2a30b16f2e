//! The machine itself: what it knows, and one handler an event.
//!
//! | room | what it decides |
//! |---|---|
//! | `gathering` | when to begin, or to begin again, and from which state |
//! | `members` | who comes, who goes, and [`Job::announce`]: the one place that changes membership |
//! | `links` | what to do when a member cannot reach another one |
//! | `verdict` | whether a step is committed |
//! | `ending` | injected faults, and the end |

mod ending;
mod gathering;
mod links;
mod members;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Command, Event, NoteKind, Outcome, Phase, Report, Rules};
use crate::ids::{Epoch, Lane, Step, WorkerId};
use crate::ledger::Entry;
use crate::time::Instant;

use links::Complaints;

/// A connected worker.
#[derive(Clone, Debug)]
struct Peer {
    address: SocketAddr,
    checkpoints: Vec<Step>,
    last_seen: Instant,
    /// The step whose state it is known to have, or to be about to have once it carries out what it was told.
    at: Option<Step>,
    /// The lanes of the step after it that it brought along.
    lanes: Vec<Lane>,
}

/// The coordinator's side of one job.
#[derive(Clone, Debug)]
pub struct Job {
    rules: Rules,
    phase: Phase,
    epoch: Epoch,
    committed: Step,
    /// The last step that is safe on disk, and the epoch below which nothing counts since the ledger was cut.
    recorded: Step,
    cut_in: Epoch,
    expected: u32,
    peers: BTreeMap<WorkerId, Peer>,
    /// Members of the epoch, in rank order. Empty when gathering or paused.
    members: Vec<WorkerId>,
    /// Who computes each lane of the step in flight, `None` for a lane that nobody has begun; empty when no lane was
    /// given out. Outlives a pause, so that survivors keep their lanes.
    owners: Vec<Option<WorkerId>>,
    reports: BTreeMap<WorkerId, Report>,
    finished: BTreeMap<WorkerId, String>,
    /// Members to be killed in this step; it is not committed before they are gone.
    condemned: BTreeSet<WorkerId>,
    complaints: Complaints,
    gathering_since: Option<Instant>,
    /// Whom to wait for when gathering, from what workers brought along, and the steps that they vouch for.
    known: BTreeSet<WorkerId>,
    vouched: BTreeMap<Step, Entry>,
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
            recorded: committed,
            cut_in: epoch,
            expected: 0,
            peers: BTreeMap::new(),
            members: Vec::new(),
            owners: Vec::new(),
            reports: BTreeMap::new(),
            finished: BTreeMap::new(),
            condemned: BTreeSet::new(),
            complaints: Complaints::default(),
            gathering_since: None,
            known: BTreeSet::new(),
            vouched: BTreeMap::new(),
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
                offer,
            } => {
                let peer = Peer {
                    address,
                    checkpoints,
                    last_seen: now,
                    at: None,
                    lanes: Vec::new(),
                };
                self.joined(now, worker, peer, offer, &mut out);
            }
            Event::Left { worker, reason } => self.left(now, &worker, &reason, &mut out),
            Event::Heartbeat(worker) => self.seen(now, &worker),
            Event::Holding { worker, epoch } => {
                self.seen(now, &worker);
                let committed = self.committed;
                match self.peers.get_mut(&worker) {
                    Some(peer) if epoch == self.epoch => peer.at = Some(committed),
                    _ => self.stale += 1,
                }
            }
            Event::Reduced(report) => self.reduced(now, report, &mut out),
            Event::PeerLost {
                by,
                epoch,
                peer,
                reason,
            } => self.peer_lost(now, by, epoch, peer, reason),
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
            Event::Recorded { epoch, step } => {
                if epoch > self.cut_in {
                    self.recorded = step;
                }
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
            Event::Tick => {
                self.expire(now, &mut out);
                self.judge_complaints(now, &mut out);
            }
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

    /// Whether `worker` has the state of the last committed step.
    fn holds(&self, worker: &WorkerId) -> bool {
        self.peers
            .get(worker)
            .is_some_and(|peer| peer.at == Some(self.committed))
    }
}

fn note(kind: NoteKind, text: String) -> Command {
    Command::Note { kind, text }
}
