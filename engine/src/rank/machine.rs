//! What is wanted against what is there: [`RankMachine::next`] is the whole of it.

use std::collections::{BTreeSet, VecDeque};

use super::{Command, Event, Task, TaskEnd, Word};
use crate::geometry::Geometry;
use crate::ids::{Epoch, Lane, Rank, Step, WorkerId};
use crate::job::Offer;
use crate::ledger::{Entry, Span};
use crate::membership::{Membership, Source};

/// Entries kept for a coordinator that does not know them; beyond, the oldest go.
const VOUCHED: usize = 4096;

/// A rank's side of one job.
#[derive(Clone, Debug)]
pub struct RankMachine {
    me: WorkerId,
    geometry: Geometry,
    steps: Step,
    checkpoint_every: u64,

    /// What is wanted: the membership as last announced; `None` before the first and while held.
    membership: Option<Membership>,
    /// Members of the epoch that was announced last, also while held.
    members: Vec<WorkerId>,
    /// The highest epoch heard of.
    epoch: Epoch,
    /// A committed step that is not applied yet.
    verdict: Option<Step>,

    /// What is there: the step whose state is here.
    held: Option<Step>,
    /// Lanes of the step after `held` that are computed and folded.
    computed: BTreeSet<Lane>,
    /// What will be in the ledger of the step that was reduced, once it is committed; and of committed steps that are
    /// not known to be recorded.
    pending: Option<Entry>,
    vouched: VecDeque<Entry>,
    /// The epoch that the data plane is in.
    entered: Epoch,
    /// The epoch in which the state was handed on, was said to be held, the step reduced, a peer lost, the end done;
    /// and the epoch that ended with its last commit.
    donated: Epoch,
    told_holding: Epoch,
    reduced: Epoch,
    broken: Epoch,
    finished: Epoch,
    over: Epoch,
    /// The newest checkpoint written, or resumed from.
    checkpointed: Step,
    busy: Option<Task>,
    failed: bool,
    stale: u64,
}

impl RankMachine {
    /// A rank that was just started: it holds nothing.
    ///
    /// `steps` is the job's last step; a checkpoint is due every `checkpoint_every` steps (0: never) and at the
    /// end.
    #[must_use]
    pub fn new(me: WorkerId, geometry: Geometry, steps: Step, checkpoint_every: u64) -> Self {
        Self {
            me,
            geometry,
            steps,
            checkpoint_every,
            membership: None,
            members: Vec::new(),
            epoch: Epoch(0),
            verdict: None,
            held: None,
            computed: BTreeSet::new(),
            pending: None,
            vouched: VecDeque::new(),
            entered: Epoch(0),
            donated: Epoch(0),
            told_holding: Epoch(0),
            reduced: Epoch(0),
            broken: Epoch(0),
            finished: Epoch(0),
            over: Epoch(0),
            checkpointed: Step(0),
            busy: None,
            failed: false,
            stale: 0,
        }
    }

    /// The step whose state it holds, if any.
    #[must_use]
    pub fn held(&self) -> Option<Step> {
        self.held
    }

    /// The highest epoch that it has heard of.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What it brings along to a coordinator that may know less: the next one, or the same after it was started anew.
    /// Nothing is given up while there is no coordinator: what is being computed goes on.
    #[must_use]
    pub fn offer(&self) -> Option<Offer> {
        // A committed step is as good as applied.
        let held = self.verdict.or(self.held)?;
        let lanes = match self.verdict {
            Some(_) => Vec::new(),
            None => self.computed.iter().copied().collect(),
        };
        Some(Offer {
            held,
            lanes,
            members: self.members.clone(),
            entries: self.vouched.iter().cloned().collect(),
        })
    }

    /// Messages dropped by a fence.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    /// Takes what happened, returns what to do, in order.
    pub fn step(&mut self, event: Event) -> Vec<Command> {
        let mut out = Vec::new();
        match event {
            Event::Announced(membership) => self.announced(membership, &mut out),
            Event::Held { epoch, forget } => self.told_to_hold(epoch, forget, &mut out),
            Event::Committed {
                epoch,
                step,
                ends_epoch,
                recorded,
            } => self.committed(epoch, step, ends_epoch, recorded),
            Event::Ended(end) => self.ended(end, &mut out),
            Event::PeerLost { epoch, peer, reason } => self.peer_lost(epoch, peer, reason, &mut out),
        }
        let idle = self.busy.is_none() && !self.failed;
        if let Some(task) = idle.then(|| self.next(&mut out)).flatten() {
            self.busy = Some(task.clone());
            out.push(Command::Run(task));
        }
        out
    }

    fn announced(&mut self, membership: Membership, out: &mut Vec<Command>) {
        if membership.epoch <= self.epoch || membership.rank_of(&self.me).is_none() {
            self.stale += 1;
            return;
        }
        self.epoch = membership.epoch;
        self.members = membership
            .members
            .iter()
            .map(|member| member.worker.clone())
            .collect();
        self.membership = Some(membership);
        out.push(Command::Raise(self.epoch));
    }

    fn told_to_hold(&mut self, epoch: Epoch, forget: bool, out: &mut Vec<Command>) {
        if epoch <= self.epoch {
            self.stale += 1;
            return;
        }
        self.epoch = epoch;
        self.membership = None;
        out.push(Command::Raise(epoch));
        if forget {
            self.held = None;
            self.verdict = None;
            self.computed.clear();
            self.vouched.clear();
            self.members.clear();
            out.push(Command::Ready);
        }
    }

    fn committed(&mut self, epoch: Epoch, step: Step, ends_epoch: bool, recorded: Step) {
        let expected = self.held.map(Step::next);
        if epoch == self.epoch && self.reduced == epoch && expected == Some(step) {
            self.verdict = Some(step);
            self.vouched.extend(self.pending.take());
            let spare = self.vouched.len().saturating_sub(VOUCHED);
            self.vouched.drain(..spare);
            self.vouched.retain(|entry| entry.step > recorded);
            if ends_epoch {
                self.over = epoch;
            }
        } else {
            self.stale += 1;
        }
    }

    fn peer_lost(&mut self, epoch: Epoch, peer: WorkerId, reason: String, out: &mut Vec<Command>) {
        let member = self
            .membership
            .as_ref()
            .is_some_and(|m| m.rank_of(&peer).is_some());
        if epoch != self.epoch || !member {
            self.stale += 1;
        } else if self.broken < epoch {
            self.broken = epoch;
            out.push(Command::Tell(Word::PeerLost { epoch, peer, reason }));
        }
    }

    fn ended(&mut self, end: TaskEnd, out: &mut Vec<Command>) {
        let Some(task) = self.busy.take() else {
            self.stale += 1;
            return;
        };
        match end {
            TaskEnd::Done => self.done(task, out),
            TaskEnd::Reduced { digest, loss } => self.reduced(task, digest, loss, out),
            TaskEnd::Superseded => {}
            TaskEnd::PeerLost { peer, reason } => self.peer_lost(self.entered, peer, reason, out),
            TaskEnd::Failed(reason) => {
                self.failed = true;
                out.push(Command::Tell(Word::Fatal(reason)));
            }
        }
    }

    fn done(&mut self, task: Task, out: &mut Vec<Command>) {
        match task {
            Task::Enter { membership, keep } => {
                self.entered = membership.epoch;
                self.computed = keep;
            }
            Task::Acquire { step, source } => {
                self.held = Some(step);
                self.computed.clear();
                self.vouched.clear();
                if source == Source::Checkpoint {
                    self.checkpointed = step;
                }
            }
            Task::Donate { .. } => self.donated = self.entered,
            Task::Compute { step, lane } => {
                if self.held.map(Step::next) == Some(step) {
                    self.computed.insert(lane);
                }
            }
            Task::Apply { step } => {
                self.held = Some(step);
                self.verdict = None;
                self.computed.clear();
                self.reduced = Epoch(0);
            }
            Task::Checkpoint { step } => {
                self.checkpointed = step;
                out.push(Command::Tell(Word::CheckpointWritten { step }));
            }
            Task::Finish { .. } => {
                self.finished = self.entered;
                out.push(Command::Tell(Word::Finished { epoch: self.entered }));
            }
            // It ends with a result, or not at all.
            Task::Reduce { .. } => self.stale += 1,
        }
    }

    fn reduced(&mut self, task: Task, digest: String, loss: f32, out: &mut Vec<Command>) {
        let (Task::Reduce { epoch, step }, Some(membership)) = (task, &self.membership) else {
            self.stale += 1;
            return;
        };
        if membership.epoch != epoch {
            return; // overtaken in the same moment
        }
        let assignment = membership.assignment(step);
        let mine = membership.rank_of(&self.me);
        let lanes = mine
            .map(|me| assignment.lanes_of(me).collect())
            .unwrap_or_default();
        self.pending = Some(self.entry(membership, step, &digest, loss));
        self.reduced = epoch;
        out.push(Command::Tell(Word::Reduced {
            epoch,
            step,
            digest,
            loss,
            lanes,
        }));
    }

    /// What the coordinator will record of a step that is reduced in this epoch, as far as a member can know it.
    fn entry(&self, membership: &Membership, step: Step, digest: &str, loss: f32) -> Entry {
        let assignment = membership.assignment(step);
        let span = |(lane, owner): (u32, &Rank)| {
            Some(Span {
                positions: self.geometry.span(step, Lane(lane)),
                worker: membership.members.get(owner.index())?.worker.clone(),
            })
        };
        Entry {
            step,
            epoch: membership.epoch,
            workers: membership.members.len() as u32,
            digest: digest.to_owned(),
            loss,
            spans: (0u32..).zip(assignment.owners()).filter_map(span).collect(),
            milliseconds: 0.0,
        }
    }

    /// The next task, from what is wanted and what is there; tells the coordinator of holding on the way.
    fn next(&mut self, out: &mut Vec<Command>) -> Option<Task> {
        // A verdict stands whatever happens to the membership.
        if let Some(step) = self.verdict {
            return Some(Task::Apply { step });
        }
        let membership = self.membership.as_ref()?;
        let (epoch, base) = (membership.epoch, membership.base);
        if self.entered < epoch {
            return self.enter(membership);
        }
        if self.broken == epoch || self.over == epoch {
            return None; // a new epoch is on its way
        }
        let me = membership.rank_of(&self.me)?;
        let source = membership.sources.get(me.index()).copied()?;
        let held = match self.held {
            Some(held) if held == base || source == Source::Held || self.told_holding == epoch => held,
            _ => return Some(Task::Acquire { step: base, source }),
        };
        if source != Source::Held && self.told_holding < epoch {
            self.told_holding = epoch;
            out.push(Command::Tell(Word::Holding { epoch }));
        }
        let receivers = membership.receivers_of(me);
        if held == base && self.donated < epoch && !receivers.is_empty() {
            return Some(Task::Donate {
                step: base,
                to: receivers,
            });
        }
        if self.checkpoint_due(held) && me == Rank(0) {
            return Some(Task::Checkpoint { step: held });
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
        (self.reduced != epoch).then_some(Task::Reduce { epoch, step })
    }

    fn enter(&self, membership: &Membership) -> Option<Task> {
        let me = membership.rank_of(&self.me)?;
        let goes_on = !membership.recompute && self.held == Some(membership.base);
        let keep = if goes_on {
            membership.first.usable(me, &self.computed)
        } else {
            BTreeSet::new()
        };
        Some(Task::Enter {
            membership: membership.clone(),
            keep,
        })
    }

    fn checkpoint_due(&self, held: Step) -> bool {
        let periodic = self.checkpoint_every > 0 && held.0.is_multiple_of(self.checkpoint_every);
        held > self.checkpointed && (periodic || held == self.steps)
    }
}
