//! The machine itself: what it knows, and one handler an event.
//!
//! | room | what it decides |
//! |---|---|
//! | `gathering` | when to begin, or to begin again, and from which state |
//! | `members` | who comes, who goes, and [`Job::announce`]: the one place that changes membership |
//! | `followers` | who follows whom until it can become a member |
//! | `links` | what to do when a member cannot reach another one |
//! | `pace` | who is slow, how many lanes each gets, and when the others wait no longer |
//! | `verdict` | whether a step is committed |
//! | `guard` | what to do about a step that would do harm |
//! | `corruption` | whose results are wrong |
//! | `checkpoints` | which parts are written, and when a checkpoint is whole |
//! | `ending` | injected faults, and the end |

mod checkpoints;
mod corruption;
mod ending;
mod followers;
mod gathering;
mod guard;
mod links;
mod members;
mod pace;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::{Command, Event, NoteKind, Outcome, Past, Phase, Report, Rules};
use crate::ids::{Epoch, Lane, Step, WorkerId};
use crate::ledger::Entry;
use crate::membership::Member;
use crate::plants::{Plant, planted};
use crate::time::Instant;

use checkpoints::Checkpoints;
use corruption::Corruption;
use links::Complaints;
use pace::Pace;

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
    /// Whom it follows, while it is no member.
    donor: Option<WorkerId>,
    /// It is to leave.
    drains: bool,
}

/// The coordinator's side of one job.
#[derive(Clone, Debug)]
pub struct Job {
    rules: Rules,
    phase: Phase,
    epoch: Epoch,
    /// The losses of the committed steps, whose number is that of the last of them.
    past: Past,
    /// The step whose state members have: the last committed one, but for those after it that were skipped unseen.
    state: Step,
    /// Steps that are to be skipped unseen once those before them are committed.
    void: BTreeSet<Step>,
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
    corruption: Corruption,
    pace: Pace,
    checkpoints: Checkpoints,
    gathering_since: Option<Instant>,
    /// Whom to wait for when gathering, from what workers brought along, and the steps that they vouch for.
    known: BTreeSet<WorkerId>,
    vouched: BTreeMap<Step, Entry>,
    committed_at: Option<Instant>,
    lost_at: Option<Instant>,
    /// Messages that were dropped because they spoke of another epoch or step.
    stale: u64,
}

impl Job {
    /// A job that no worker has joined yet. `epoch` is the last one that was persisted and `past` what the ledger
    /// says, nothing for a new job.
    #[must_use]
    pub fn new(rules: Rules, epoch: Epoch, past: Past) -> Self {
        let committed = past.committed();
        Self {
            rules,
            phase: Phase::Gathering,
            epoch,
            past,
            state: committed,
            void: BTreeSet::new(),
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
            corruption: Corruption::default(),
            pace: Pace::default(),
            checkpoints: Checkpoints::default(),
            gathering_since: None,
            known: BTreeSet::new(),
            vouched: BTreeMap::new(),
            committed_at: None,
            lost_at: None,
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
        self.past.committed()
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
        if !matches!(self.phase, Phase::Ended(_)) {
            self.handle(now, event, &mut out);
        }
        if self.phase == Phase::Gathering {
            self.try_gather(now, &mut out);
        }
        self.feed(&mut out);
        out
    }

    fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Command>) {
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
                    donor: None,
                    drains: false,
                };
                self.joined(now, worker, peer, offer, out);
            }
            Event::Left { .. } if planted(Plant::WaitForLease) => {}
            Event::Left { worker, reason } => self.left(now, &worker, &reason, out),
            Event::Heartbeat(worker) => self.seen(now, &worker),
            Event::Holding { worker, epoch } => {
                self.seen(now, &worker);
                let committed = self.committed();
                match self.peers.get_mut(&worker) {
                    Some(peer) if epoch == self.epoch => peer.at = Some(committed),
                    _ => self.stale += 1,
                }
            }
            Event::Following { worker, step } => self.following(now, &worker, step),
            Event::Computed {
                worker,
                epoch,
                step,
                lanes,
                took,
            } => {
                self.seen(now, &worker);
                if epoch == self.epoch && step == self.committed().next() && self.members.contains(&worker) {
                    self.pace.computed(worker, lanes, took);
                } else {
                    self.stale += 1;
                }
            }
            Event::Reduced(report) => self.reduced(now, report, out),
            Event::PeerLost {
                by,
                epoch,
                peer,
                reason,
            } => self.peer_lost(now, by, epoch, peer, reason),
            Event::ShardWritten {
                worker,
                snapshot,
                record,
            } => {
                self.seen(now, &worker);
                self.shard_written(&worker, snapshot, record, out);
            }
            Event::CheckpointFailed { worker, step, reason } => {
                self.seen(now, &worker);
                self.checkpoint_failed(&worker, step, &reason, out);
            }
            Event::CheckpointWritten {
                worker,
                step,
                weights,
            } => {
                self.seen(now, &worker);
                self.checkpoint_written(&worker, step, weights, out);
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
            } => self.finished(now, worker, epoch, weights, out),
            Event::Fatal { worker, reason } => {
                self.end(Outcome::Failed(format!("{worker}: {reason}")), out);
            }
            Event::Drain(worker) => self.drain(now, &worker, out),
            Event::Cancel => self.end(Outcome::Cancelled, out),
            Event::Tick => {
                self.expire(now, out);
                self.judge_complaints(now, out);
                self.mind_the_slow(now, out);
            }
        }
    }

    fn seen(&mut self, now: Instant, worker: &WorkerId) {
        if let Some(peer) = self.peers.get_mut(worker) {
            peer.last_seen = now;
        }
    }

    /// Whether `worker` has the state of the last committed step, or one that differs from it by its number alone.
    fn holds(&self, worker: &WorkerId) -> bool {
        let at = self.peers.get(worker).and_then(|peer| peer.at);
        at.is_some() && (at == Some(self.committed()) || at == Some(self.state))
    }

    fn member(&self, worker: &WorkerId) -> Option<Member> {
        let (worker, address) = (worker.clone(), self.peers.get(worker)?.address);
        Some(Member { worker, address })
    }
}

fn note(kind: NoteKind, text: String) -> Command {
    Command::Note { kind, text }
}
