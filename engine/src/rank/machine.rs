//! What is wanted against what is there: [`RankMachine::next`] is the whole of it.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::{Command, Event, Reduced, Snapshot, Task, TaskEnd, Verdict, Word};
use crate::geometry::Geometry;
use crate::ids::{Epoch, Lane, Rank, Step, WorkerId};
use crate::job::Offer;
use crate::ledger::{Entry, Span};
use crate::membership::{Member, Membership, Source};
use crate::plants::{Plant, planted};

/// Entries kept for a coordinator that does not know them; beyond, the oldest go.
const VOUCHED: usize = 4096;

/// A rank's side of one job.
#[derive(Clone, Debug)]
pub struct RankMachine {
    me: WorkerId,
    geometry: Geometry,
    steps: Step,

    /// What is wanted: the membership as last announced; `None` before the first and while held.
    membership: Option<Membership>,
    /// Members of the epoch that was announced last, also while held.
    members: Vec<WorkerId>,
    /// The highest epoch heard of.
    epoch: Epoch,
    /// Whose feed to take while it is no member.
    donor: Option<Member>,
    /// A committed step that is not applied yet.
    verdict: Option<Verdict>,
    /// A part of a checkpoint that is to be copied.
    snapshot: Option<Snapshot>,

    /// What is there: the step whose state is here.
    held: Option<Step>,
    /// Lanes of the step after `held` that are computed and folded.
    computed: BTreeSet<Lane>,
    /// Lanes computed since the epoch or the step began, and what they took.
    work: (u32, Duration),
    /// What will be in the ledger of the step that was reduced, once it is committed; and of committed steps that are
    /// not known to be recorded.
    pending: Option<Entry>,
    vouched: VecDeque<Entry>,
    /// The epoch that the data plane is in.
    entered: Epoch,
    /// The epoch in which the state was said to be held, the lanes to be computed, the step reduced, a snapshot taken, a
    /// peer lost, the end done; and the epoch that ended with its last commit.
    told_holding: Epoch,
    told_computed: Epoch,
    reduced: Epoch,
    copied: Epoch,
    broken: Epoch,
    finished: Epoch,
    over: Epoch,
    busy: Option<Task>,
    /// What is under way is of a state that was forgotten.
    void: bool,
    failed: bool,
    stale: u64,
}

impl RankMachine {
    /// A rank that was just started: it holds nothing.
    ///
    /// `steps` is the job's last step.
    #[must_use]
    pub fn new(me: WorkerId, geometry: Geometry, steps: Step) -> Self {
        Self {
            me,
            geometry,
            steps,
            membership: None,
            members: Vec::new(),
            epoch: Epoch(0),
            donor: None,
            verdict: None,
            snapshot: None,
            held: None,
            computed: BTreeSet::new(),
            work: (0, Duration::ZERO),
            pending: None,
            vouched: VecDeque::new(),
            entered: Epoch(0),
            told_holding: Epoch(0),
            told_computed: Epoch(0),
            reduced: Epoch(0),
            copied: Epoch(0),
            broken: Epoch(0),
            finished: Epoch(0),
            over: Epoch(0),
            busy: None,
            void: false,
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
        let held = self.verdict.map(|verdict| verdict.step).or(self.held)?;
        let lanes = match self.verdict {
            Some(_) => Vec::new(),
            None => self.computed.iter().copied().collect(),
        };
        Some(Offer {
            epoch: self.epoch,
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
            Event::Committed(verdict) => self.committed(verdict),
            Event::Follow { epoch, donor } => self.told_to_follow(epoch, donor, &mut out),
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
        self.donor = None;
        out.push(Command::Raise(self.epoch));
    }

    /// It is out of the epoch, or was never in: it keeps its state and goes on with its donor's.
    fn told_to_follow(&mut self, epoch: Epoch, donor: Member, out: &mut Vec<Command>) {
        if epoch < self.epoch || (epoch == self.epoch && self.membership.is_some()) {
            self.stale += 1;
            return;
        }
        self.epoch = epoch;
        self.membership = None;
        self.donor = Some(donor);
        // Whatever it does for a lower epoch, or with another donor, is over.
        out.push(Command::Raise(epoch));
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
            self.void = self.busy.is_some();
            self.held = None;
            self.verdict = None;
            self.snapshot = None;
            self.donor = None;
            self.computed.clear();
            self.vouched.clear();
            self.members.clear();
            out.push(Command::Ready);
        }
    }

    fn committed(&mut self, verdict: Verdict) {
        let epoch = verdict.epoch;
        let expected = self.held.map(Step::next) == Some(verdict.step) && self.verdict.is_none();
        let part = self.membership.as_ref().and_then(|m| {
            let (step, of) = (verdict.step, m.members.len() as u32);
            let Rank(shard) = m.rank_of(&self.me)?;
            Some(Snapshot {
                step,
                epoch,
                shard,
                of,
            })
        });
        let Some(part) = part.filter(|_| {
            expected && (epoch == self.epoch && self.reduced == epoch || planted(Plant::CommitOfAnyEpoch))
        }) else {
            self.stale += 1;
            return;
        };
        self.verdict = Some(verdict);
        self.snapshot = verdict.snapshot.then_some(part);
        self.vouched.extend(self.pending.take().map(|entry| Entry {
            skipped: verdict.skip,
            ..entry
        }));
        let spare = self.vouched.len().saturating_sub(VOUCHED);
        self.vouched.drain(..spare);
        self.vouched.retain(|entry| entry.step > verdict.recorded);
        if verdict.ends_epoch {
            self.over = epoch;
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

    fn donor_lost(&mut self, peer: WorkerId, reason: String, out: &mut Vec<Command>) {
        let epoch = self.epoch;
        if self.membership.is_some() {
            self.peer_lost(epoch, peer, reason, out);
        } else if self.donor.take_if(|donor| donor.worker == peer).is_some() {
            out.push(Command::Tell(Word::PeerLost { epoch, peer, reason }));
        }
    }

    fn ended(&mut self, end: TaskEnd, out: &mut Vec<Command>) {
        let Some(task) = self.busy.take() else {
            self.stale += 1;
            return;
        };
        let end = match end {
            TaskEnd::Failed(reason) => TaskEnd::Failed(reason),
            _ if std::mem::take(&mut self.void) && !planted(Plant::ForgetNothing) => TaskEnd::Superseded,
            end => end,
        };
        match end {
            TaskEnd::Done => self.done(task, out),
            TaskEnd::Computed { took } => self.computed(&task, took),
            TaskEnd::Followed { step } => self.followed(step, out),
            TaskEnd::Reduced(result) => self.reduced(task, result, out),
            TaskEnd::Superseded => {}
            TaskEnd::PeerLost { peer, reason } if matches!(task, Task::Follow { .. }) => {
                self.donor_lost(peer, reason, out);
            }
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
                self.work = (0, Duration::ZERO);
            }
            Task::Acquire { step, .. } => self.holds(step),
            Task::Skip { to } => self.holds(to),
            Task::Apply { step, .. } => {
                self.verdict = None;
                self.held = Some(step);
                self.computed.clear();
                self.work = (0, Duration::ZERO);
                self.reduced = Epoch(0);
                self.told_computed = Epoch(0);
            }
            Task::Snapshot(snapshot) => {
                self.copied = self.copied.max(snapshot.epoch);
                self.snapshot.take_if(|due| *due == snapshot);
            }
            Task::Finish { .. } => {
                self.finished = self.entered;
                out.push(Command::Tell(Word::Finished { epoch: self.entered }));
            }
            // They end with a result, or not at all.
            Task::Compute { .. } | Task::Follow { .. } | Task::Reduce { .. } => self.stale += 1,
        }
    }

    /// The state of `step` came from elsewhere.
    fn holds(&mut self, step: Step) {
        self.held = Some(step);
        self.verdict = None;
        self.computed.clear();
        self.vouched.clear();
    }

    fn computed(&mut self, task: &Task, took: Duration) {
        if let Task::Compute { step, lane } = task
            && self.held.map(Step::next) == Some(*step)
        {
            self.computed.insert(*lane);
            self.work.0 += 1;
            self.work.1 += took;
        }
    }

    fn followed(&mut self, step: Step, out: &mut Vec<Command>) {
        self.holds(step);
        if self.membership.is_none() && self.donor.is_some() {
            out.push(Command::Tell(Word::Following { step }));
        }
    }

    fn reduced(&mut self, task: Task, result: Reduced, out: &mut Vec<Command>) {
        let (Task::Reduce { epoch, step }, Some(membership)) = (task, &self.membership) else {
            self.stale += 1;
            return;
        };
        if membership.epoch != epoch {
            return; // overtaken in the same moment
        }
        let assignment = membership.assignment(step);
        let mine = membership.rank_of(&self.me);
        let mut lanes: Vec<Lane> = mine
            .map(|me| assignment.lanes_of(me).collect())
            .unwrap_or_default();
        if planted(Plant::CountTwice) {
            lanes.extend(lanes.first().copied());
        }
        if planted(Plant::ApplyBeforeCommit) {
            self.verdict = Some(Verdict {
                epoch,
                step,
                skip: false,
                ends_epoch: false,
                snapshot: false,
                recorded: Step(0),
            });
        }
        self.pending = Some(self.entry(membership, step, &result));
        self.reduced = epoch;
        out.push(Command::Tell(Word::Reduced {
            epoch,
            step,
            result,
            lanes,
        }));
    }

    /// What the coordinator will record of a step that is reduced in this epoch, as far as a member can know it.
    fn entry(&self, membership: &Membership, step: Step, result: &Reduced) -> Entry {
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
            digest: result.digest.clone(),
            loss: result.loss,
            spans: (0u32..).zip(assignment.owners()).filter_map(span).collect(),
            milliseconds: 0.0,
            skipped: false,
            unseen_to: None,
        }
    }

    /// The next task, from what is wanted and what is there; tells the coordinator of holding on the way.
    fn next(&mut self, out: &mut Vec<Command>) -> Option<Task> {
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
