use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use lockstep_engine::geometry::{Geometry, Node};
use lockstep_engine::ids::{Epoch, Lane, Rank, Step, WorkerId};
use lockstep_engine::job::{self, Job, Outcome, Phase, Rules};
use lockstep_engine::ledger::{self, Entry, Span};
use lockstep_engine::membership::{Membership, Source};
use lockstep_engine::random::Stream;
use lockstep_engine::rank::{self, RankMachine, Task, TaskEnd, Word};
use lockstep_engine::time::Instant;

const MS: u64 = 1000;
/// Faults are injected until then; after it the job must end within `PATIENCE`.
const CALM: u64 = 1500 * MS;
const PATIENCE: u64 = 30_000 * MS;

/// What happened in a run, to see that faults were really met.
pub(crate) struct Tally {
    pub(crate) kills: u64,
    pub(crate) rollbacks: u64,
    pub(crate) pauses: u64,
    pub(crate) stale: u64,
}

#[derive(Clone, Debug)]
enum Happening {
    ToCoordinator(job::Event),
    ToWorker(WorkerId, rank::Event),
    Partials {
        from: WorkerId,
        to: WorkerId,
        epoch: Epoch,
        step: Step,
        nodes: Vec<(Node, u64)>,
    },
    State {
        to: WorkerId,
        epoch: Epoch,
        step: Step,
        state: u64,
    },
    TaskDone(WorkerId, u64),
    Closed {
        at: WorkerId,
        peer: WorkerId,
    },
    Heartbeat(WorkerId),
    Tick,
    Start(u32),
    Fault,
    Wake(WorkerId),
    Leave(WorkerId),
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: std::cmp::Reverse<u64>,
    order: std::cmp::Reverse<u64>,
    index: usize,
}

/// One rank process.
struct Process {
    machine: RankMachine,
    task: Option<(u64, Task)>,
    epoch: Epoch,
    membership: Option<Membership>,
    state: Option<(Step, u64)>,
    lanes: BTreeMap<Lane, u64>,
    reduced: Option<(Epoch, Step, u64)>,
    heard: HashMap<(Epoch, Step), BTreeMap<Node, u64>>,
    given: HashMap<(Epoch, Step), u64>,
    paused_until: u64,
    missed: Vec<Happening>,
}

pub(crate) struct World {
    seed: u64,
    story: bool,
    now: u64,
    rng: Stream,
    drawn: u64,
    queue: BinaryHeap<Due>,
    pool: Vec<Option<Happening>>,
    links: HashMap<(Option<WorkerId>, Option<WorkerId>), u64>,
    job: Job,
    rules: Rules,
    workers: BTreeMap<WorkerId, Process>,
    incarnations: u128,
    tasks: u64,
    ledger: Vec<Entry>,
    digests: BTreeMap<Step, String>,
    checkpoints: BTreeMap<Step, u64>,
    announced: Epoch,
    persisted: Epoch,
    past: Vec<(u64, Happening)>,
    outcome: Option<Outcome>,
    checkpoint_every: u64,
    tally: Tally,
}

fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        let mut x = hash ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^ (x >> 32)
    })
}

fn lane_gradient(geometry: &Geometry, state: u64, step: Step, lane: Lane) -> u64 {
    let positions = geometry.positions(step, lane).flatten();
    positions.fold(mix(&[1, state, step.0]), |sum, position| mix(&[2, sum, position]))
}

fn combine(nodes: &BTreeMap<Node, u64>, node: Node) -> Option<u64> {
    if let Some(&value) = nodes.get(&node) {
        return Some(value);
    }
    let (left, right) = node.children()?;
    Some(mix(&[3, combine(nodes, left)?, combine(nodes, right)?]))
}

/// State and digest of every step, computed with no cluster at all.
fn reference(geometry: &Geometry, step: Step) -> (u64, u64) {
    let (mut state, mut root) = (mix(&[0]), 0);
    for s in (1..=step.0).map(Step) {
        let lanes = (0..geometry.lanes).map(Lane);
        let nodes = lanes
            .map(|lane| (Node::leaf(lane), lane_gradient(geometry, state, s, lane)))
            .collect();
        root = combine(&nodes, Node::root(geometry.lanes)).unwrap();
        state = mix(&[4, state, root]);
    }
    (state, root)
}

impl World {
    pub(crate) fn new(seed: u64, story: bool) -> Self {
        let rng = Stream::new(seed, 0x51);
        let pick = |index: u64, n: u64| (rng.uniform(1_000_000 + index) * n as f64) as u64;
        let lanes = 1 << pick(0, 4);
        let min_workers = 1 + pick(1, 2) as u32;
        let rules = Rules {
            steps: Step(5 + pick(2, 20)),
            geometry: Geometry {
                microbatches: lanes * (1 + pick(3, 3) as u32),
                lanes,
                sequences: 2,
            },
            min_workers,
            max_workers: (min_workers + pick(4, 4) as u32).min(lanes.max(min_workers)),
            lease: Duration::from_millis(400),
            gather: Duration::from_millis(200),
            kills: (0..pick(5, 3))
                .map(|i| job::Kill {
                    slot: i as u32,
                    step: Step(2 + pick(6 + i, 6)),
                })
                .collect(),
        };
        let mut world = Self {
            seed,
            story,
            now: 0,
            rng,
            drawn: 0,
            queue: BinaryHeap::new(),
            pool: Vec::new(),
            links: HashMap::new(),
            job: Job::new(rules.clone(), Epoch(0), Step(0)),
            workers: BTreeMap::new(),
            incarnations: 0,
            tasks: 0,
            ledger: Vec::new(),
            digests: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            announced: Epoch(0),
            persisted: Epoch(0),
            past: Vec::new(),
            outcome: None,
            checkpoint_every: pick(9, 5),
            tally: Tally {
                kills: 0,
                rollbacks: 0,
                pauses: 0,
                stale: 0,
            },
            rules,
        };
        let slots = world.rules.max_workers + pick(10, 2) as u32;
        world.at(0, Happening::ToCoordinator(job::Event::Expected(slots)));
        for slot in 0..slots {
            let at = world.below(100 * MS);
            world.at(at, Happening::Start(slot));
        }
        world.at(0, Happening::Tick);
        world.at(20 * MS, Happening::Fault);
        world
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.drawn += 1;
        (self.rng.uniform(self.drawn) * bound as f64) as u64
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn at(&mut self, at: u64, happening: Happening) {
        let index = self.pool.len();
        self.pool.push(Some(happening));
        self.queue.push(Due {
            at: std::cmp::Reverse(at),
            order: std::cmp::Reverse(index as u64),
            index,
        });
    }

    fn delay(&mut self) -> u64 {
        match self.below(20) {
            0 => self.below(60 * MS),
            1..5 => self.below(5 * MS),
            _ => self.below(MS),
        }
    }

    /// Sends along an ordered link.
    fn send(&mut self, from: Option<&WorkerId>, to: Option<&WorkerId>, happening: Happening) {
        let delay = self.delay();
        let link = self.links.entry((from.cloned(), to.cloned())).or_default();
        let at = (self.now + delay).max(*link + 1);
        *link = at;
        let fenced = matches!(
            &happening,
            Happening::ToCoordinator(
                job::Event::Holding { .. }
                    | job::Event::Reduced(_)
                    | job::Event::PeerLost { .. }
                    | job::Event::Finished { .. }
            ) | Happening::ToWorker(..)
                | Happening::Partials { .. }
                | Happening::State { .. }
        );
        if fenced && self.chance(10) {
            self.past.push((at, happening.clone()));
        }
        self.at(at, happening);
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if self.story {
            println!("{:>9.3} ms  {}", self.now as f64 / 1e3, text());
        }
    }

    pub(crate) fn run(&mut self) {
        while let Some(Due { at, index, .. }) = self.queue.pop() {
            self.now = at.0;
            assert!(
                self.now < CALM + PATIENCE,
                "seed {}: no end after faults ended: {:?}",
                self.seed,
                self.job
            );
            let Some(happening) = self.pool[index].take() else {
                continue;
            };
            self.happen(happening);
            if self.outcome.is_some() {
                return;
            }
        }
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::ToCoordinator(event) => self.coordinator(event),
            Happening::Tick => {
                self.coordinator(job::Event::Tick);
                self.at(self.now + 50 * MS, Happening::Tick);
            }
            Happening::Start(slot) => self.start(slot),
            Happening::Fault => self.fault(),
            Happening::Leave(worker) => self.kill(&worker, "evicted"),
            Happening::Wake(worker) => {
                let missed = self
                    .workers
                    .get_mut(&worker)
                    .map(|p| std::mem::take(&mut p.missed))
                    .unwrap_or_default();
                for happening in missed {
                    self.happen(happening);
                }
            }
            Happening::ToWorker(ref worker, _)
            | Happening::Partials { to: ref worker, .. }
            | Happening::State { to: ref worker, .. }
            | Happening::TaskDone(ref worker, _)
            | Happening::Closed { at: ref worker, .. }
            | Happening::Heartbeat(ref worker) => {
                let worker = worker.clone();
                let now = self.now;
                match self.workers.get_mut(&worker) {
                    Some(process) if now < process.paused_until => process.missed.push(happening),
                    Some(_) => self.at_worker(&worker, happening),
                    None => {}
                }
            }
        }
    }

    fn at_worker(&mut self, worker: &WorkerId, happening: Happening) {
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        match happening {
            Happening::ToWorker(_, event) => self.rank(worker, event),
            Happening::Partials {
                epoch, step, nodes, ..
            }
                // What the data plane does: drop what is old, keep what is early.
                if epoch >= process.epoch => {
                    process.heard.entry((epoch, step)).or_default().extend(nodes);
                    self.try_reduce(worker);
                }
            Happening::State {
                epoch, step, state, ..
            }
                if epoch >= process.epoch => {
                    process.given.insert((epoch, step), state);
                    self.try_receive(worker);
                }
            Happening::TaskDone(_, id)
                if process.task.as_ref().is_some_and(|(running, _)| *running == id) => {
                    self.complete(worker);
                }
            Happening::Closed { peer, .. } => {
                let reason = "connection closed".to_owned();
                let epoch = process.epoch;
                let waiting = process.task.as_ref().is_some_and(|(_, task)| {
                    matches!(
                        task,
                        Task::Reduce { .. }
                            | Task::Acquire {
                                source: Source::Peer(_),
                                ..
                            }
                    )
                });
                let member = process
                    .membership
                    .as_ref()
                    .is_some_and(|m| m.rank_of(&peer).is_some());
                if member && waiting {
                    process.task = None;
                    self.rank(worker, rank::Event::Ended(TaskEnd::PeerLost { peer, reason }));
                } else if member {
                    self.rank(worker, rank::Event::PeerLost { epoch, peer, reason });
                }
            }
            Happening::Heartbeat(_) => {
                self.send(
                    Some(worker),
                    None,
                    Happening::ToCoordinator(job::Event::Heartbeat(worker.clone())),
                );
                self.at(self.now + 100 * MS, Happening::Heartbeat(worker.clone()));
            }
            _ => {}
        }
    }

    fn start(&mut self, slot: u32) {
        self.incarnations += 1;
        let worker = WorkerId {
            node: "sim".parse().unwrap(),
            slot,
            incarnation: self.incarnations,
        };
        self.tell(|| format!("{worker:#} starts"));
        let process = Process {
            machine: RankMachine::new(worker.clone(), self.rules.steps, self.checkpoint_every),
            task: None,
            epoch: Epoch(0),
            membership: None,
            state: None,
            lanes: BTreeMap::new(),
            reduced: None,
            heard: HashMap::new(),
            given: HashMap::new(),
            paused_until: 0,
            missed: Vec::new(),
        };
        self.workers.insert(worker.clone(), process);
        self.ready(&worker);
        self.at(self.now + 100 * MS, Happening::Heartbeat(worker));
    }

    fn ready(&mut self, worker: &WorkerId) {
        let address: SocketAddr = ([127, 0, 0, 1], 9000).into();
        let checkpoints = self.checkpoints.keys().copied().collect();
        let event = job::Event::Joined {
            worker: worker.clone(),
            address,
            checkpoints,
        };
        self.send(Some(worker), None, Happening::ToCoordinator(event));
    }

    /// The process dies: what it sent last may be lost, its connections close, and it may start anew.
    fn kill(&mut self, worker: &WorkerId, reason: &str) {
        if self.workers.remove(worker).is_none() {
            return;
        }
        self.tell(|| format!("{worker:#} dies ({reason})"));
        self.tally.kills += 1;
        let lost_after = self.now + self.below(3 * MS);
        let from_it = |happening: &Happening| match happening {
            Happening::ToCoordinator(event) => sender(event) == Some(worker),
            Happening::Partials { from, .. } => from == worker,
            _ => false,
        };
        let lost: Vec<usize> = self
            .queue
            .iter()
            .filter(|due| due.at.0 > lost_after && self.pool[due.index].as_ref().is_some_and(from_it))
            .map(|due| due.index)
            .collect();
        for index in lost {
            self.pool[index] = None;
        }
        // The close comes after whatever still arrives.
        for link in self
            .links
            .iter_mut()
            .filter(|((from, _), _)| from.as_ref() == Some(worker))
        {
            *link.1 = (*link.1).min(lost_after);
        }
        let left = job::Event::Left {
            worker: worker.clone(),
            reason: reason.to_owned(),
        };
        self.send(Some(worker), None, Happening::ToCoordinator(left));
        for at in self.workers.keys().cloned().collect::<Vec<_>>() {
            let closed = Happening::Closed {
                at: at.clone(),
                peer: worker.clone(),
            };
            self.send(Some(worker), Some(&at), closed);
        }
        let back = self.now + self.below(300 * MS);
        self.at(back, Happening::Start(worker.slot));
    }

    fn fault(&mut self) {
        if self.now > CALM {
            return;
        }
        let again = self.now + self.below(150 * MS);
        self.at(again, Happening::Fault);
        let all: Vec<WorkerId> = self.workers.keys().cloned().collect();
        if all.is_empty() {
            return;
        }
        let victim = all[self.below(all.len() as u64) as usize].clone();
        match self.below(20) {
            0..6 => self.kill(&victim, "killed"),
            6 => all
                .iter()
                .for_each(|worker| self.kill(worker, "killed with all others")),
            7 => {
                let until = self.now + self.below(900 * MS);
                self.tell(|| format!("{victim:#} is stopped for {} ms", (until - self.now) / MS));
                if let Some(process) = self.workers.get_mut(&victim) {
                    process.paused_until = until;
                    self.tally.pauses += 1;
                }
                self.at(until, Happening::Wake(victim));
            }
            8..14 if !self.past.is_empty() => {
                let index = self.below(self.past.len() as u64) as usize;
                let (arrived, again) = self.past[index].clone();
                // Links are ordered: what comes again has come before.
                if arrived < self.now {
                    self.tell(|| format!("comes again: {again:?}"));
                    self.at(self.now, again);
                }
            }
            _ => {}
        }
    }

    fn coordinator(&mut self, event: job::Event) {
        if event != job::Event::Tick && !matches!(event, job::Event::Heartbeat(_)) {
            self.tell(|| format!("  to coordinator: {event:?}"));
        }
        for command in self.job.step(Instant(Duration::from_micros(self.now)), event) {
            self.carry_out(command);
        }
    }

    fn carry_out(&mut self, command: job::Command) {
        match command {
            job::Command::PersistEpoch(epoch) => {
                assert!(epoch > self.persisted, "epoch {epoch} after {}", self.persisted);
                self.persisted = epoch;
            }
            job::Command::Announce(membership) => {
                assert_eq!(
                    membership.epoch, self.persisted,
                    "announced before it was persisted"
                );
                assert!(membership.epoch > self.announced);
                assert!(membership.members.len() as u32 <= self.rules.max_workers);
                assert!(membership.members.is_sorted_by(|a, b| a.worker < b.worker));
                self.announced = membership.epoch;
                for member in &membership.members {
                    let event = rank::Event::Announced(membership.clone());
                    let to = &member.worker;
                    self.send(None, Some(to), Happening::ToWorker(to.clone(), event));
                }
            }
            job::Command::Hold {
                workers,
                epoch,
                forget,
                ..
            } => {
                for to in &workers {
                    let event = rank::Event::Held { epoch, forget };
                    self.send(None, Some(to), Happening::ToWorker(to.clone(), event));
                }
            }
            job::Command::Commit {
                workers,
                epoch,
                step,
                ends_epoch,
            } => {
                assert!(
                    workers.len() as u32 >= self.rules.min_workers,
                    "committed below the minimum"
                );
                for to in &workers {
                    let event = rank::Event::Committed {
                        epoch,
                        step,
                        ends_epoch,
                    };
                    self.send(None, Some(to), Happening::ToWorker(to.clone(), event));
                }
            }
            job::Command::Evict { worker, .. } => {
                self.send(None, Some(&worker), Happening::Leave(worker.clone()))
            }
            job::Command::Kill(worker) => self.at(self.now, Happening::Leave(worker)),
            job::Command::Record(entry) => {
                let (_, root) = reference(&self.rules.geometry, entry.step);
                assert_eq!(
                    entry.digest,
                    root.to_string(),
                    "step {}: not the reference's gradient",
                    entry.step
                );
                let first = self
                    .digests
                    .entry(entry.step)
                    .or_insert_with(|| entry.digest.clone());
                assert_eq!(*first, entry.digest, "two digests for step {}", entry.step);
                assert_eq!(
                    entry.step.0,
                    self.ledger.len() as u64 + 1,
                    "steps are committed in order"
                );
                self.ledger.push(entry);
            }
            job::Command::Truncate(step) => {
                self.tally.rollbacks += u64::from(!self.ledger.is_empty());
                self.ledger.truncate(step.0 as usize);
            }
            job::Command::Note { kind, text } => self.tell(|| format!("{kind:?}: {text}")),
            job::Command::End { outcome, .. } => self.outcome = Some(outcome),
            job::Command::RecordCheckpoint { .. } | job::Command::Recovered { .. } => {}
        }
    }

    fn rank(&mut self, worker: &WorkerId, event: rank::Event) {
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        for command in process.machine.step(event) {
            match command {
                rank::Command::Raise(epoch) => self.raise(worker, epoch),
                rank::Command::Run(task) => self.begin(worker, task),
                rank::Command::Ready => self.ready(worker),
                rank::Command::Tell(word) => self.say(worker, word),
            }
        }
    }

    fn say(&mut self, worker: &WorkerId, word: Word) {
        let worker = worker.clone();
        let event = match word {
            Word::Holding { epoch } => job::Event::Holding {
                worker: worker.clone(),
                epoch,
            },
            Word::Reduced { epoch, step, lanes } => {
                let (_, _, digest) = self.workers[&worker].reduced.expect("a result to report");
                let span = |lane| Span {
                    positions: self.rules.geometry.span(step, lane),
                    worker: worker.clone(),
                };
                let spans = lanes.into_iter().map(span).collect();
                let digest = digest.to_string();
                job::Event::Reduced(job::Report {
                    worker: worker.clone(),
                    epoch,
                    step,
                    digest,
                    loss: 0.0,
                    spans,
                })
            }
            Word::PeerLost { epoch, peer, reason } => job::Event::PeerLost {
                by: worker.clone(),
                epoch,
                peer,
                reason,
            },
            Word::CheckpointWritten { step } => job::Event::CheckpointWritten {
                worker: worker.clone(),
                step,
                weights: String::new(),
            },
            Word::Finished { epoch } => {
                let weights = self.workers[&worker].state.expect("a final state").1.to_string();
                job::Event::Finished {
                    worker: worker.clone(),
                    epoch,
                    weights,
                }
            }
            Word::Fatal(reason) => panic!("seed {}: {worker} failed: {reason}", self.seed),
        };
        self.send(Some(&worker), None, Happening::ToCoordinator(event));
    }

    fn raise(&mut self, worker: &WorkerId, epoch: Epoch) {
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        process.epoch = epoch;
        process.heard.retain(|(of, _), _| *of >= epoch);
        process.given.retain(|(of, _), _| *of >= epoch);
        let overtaken = process.task.as_ref().is_some_and(|(_, task)| {
            matches!(
                task,
                Task::Reduce { .. }
                    | Task::Acquire {
                        source: Source::Peer(_),
                        ..
                    }
                    | Task::Donate { .. }
            )
        });
        if overtaken {
            process.task = None;
            self.rank(worker, rank::Event::Ended(TaskEnd::Superseded));
        }
    }

    fn begin(&mut self, worker: &WorkerId, task: Task) {
        self.tasks += 1;
        let id = self.tasks;
        let millis = match &task {
            Task::Compute { .. } => 2 + self.below(20),
            Task::Checkpoint { .. } | Task::Acquire { .. } => self.below(30),
            _ => self.below(2),
        };
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        assert!(process.task.is_none(), "one task at a time");
        process.task = Some((id, task.clone()));
        match task {
            Task::Reduce { epoch, step } => self.begin_reduce(worker, epoch, step),
            Task::Acquire {
                source: Source::Peer(_),
                ..
            } => self.try_receive(worker),
            _ => self.at(self.now + millis * MS, Happening::TaskDone(worker.clone(), id)),
        }
    }

    fn begin_reduce(&mut self, worker: &WorkerId, epoch: Epoch, step: Step) {
        let process = &self.workers[worker];
        let membership = process.membership.clone().expect("entered");
        assert_eq!(membership.epoch, epoch);
        let assignment = membership.assignment(step);
        let me = membership.rank_of(worker).expect("a member");
        let leaves: BTreeMap<Node, u64> = process.lanes.iter().map(|(l, g)| (Node::leaf(*l), *g)).collect();
        let nodes: Vec<(Node, u64)> = assignment
            .nodes_of(me)
            .into_iter()
            .map(|node| {
                (
                    node,
                    combine(&leaves, node).expect("every lane of mine is computed"),
                )
            })
            .collect();
        for member in &membership.members {
            let to = member.worker.clone();
            let partials = Happening::Partials {
                from: worker.clone(),
                to,
                epoch,
                step,
                nodes: nodes.clone(),
            };
            if member.worker == *worker {
                self.at(self.now, partials);
            } else {
                self.send(Some(worker), Some(&member.worker), partials);
            }
        }
    }

    fn try_reduce(&mut self, worker: &WorkerId) {
        let lanes = self.rules.geometry.lanes;
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        let Some((_, Task::Reduce { epoch, step })) = process.task else {
            return;
        };
        let Some(nodes) = process.heard.get(&(epoch, step)) else {
            return;
        };
        let Some(root) = combine(nodes, Node::root(lanes)) else {
            return;
        };
        process.reduced = Some((epoch, step, root));
        process.task = None;
        self.rank(worker, rank::Event::Ended(TaskEnd::Done));
    }

    fn try_receive(&mut self, worker: &WorkerId) {
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        let Some((_, Task::Acquire { step, .. })) = process.task else {
            return;
        };
        let Some(&state) = process.given.get(&(process.epoch, step)) else {
            return;
        };
        process.state = Some((step, state));
        process.lanes.clear();
        process.task = None;
        self.rank(worker, rank::Event::Ended(TaskEnd::Done));
    }

    fn complete(&mut self, worker: &WorkerId) {
        let geometry = self.rules.geometry;
        let Some(process) = self.workers.get_mut(worker) else {
            return;
        };
        let Some((_, task)) = process.task.take() else {
            return;
        };
        match task {
            Task::Enter(membership) => {
                if membership.recompute {
                    process.lanes.clear();
                }
                process.membership = Some(membership);
            }
            Task::Acquire { step, source } => {
                let state = match source {
                    Source::Seed => reference(&geometry, Step(0)).0,
                    Source::Checkpoint => self.checkpoints[&step],
                    other => panic!("told to use {other:?} without holding anything"),
                };
                process.state = Some((step, state));
                process.lanes.clear();
            }
            Task::Compute { step, lane } => {
                let (held, state) = process.state.expect("state");
                assert_eq!(held.next(), step, "computes on the state before the step");
                process
                    .lanes
                    .insert(lane, lane_gradient(&geometry, state, step, lane));
            }
            Task::Apply { step } => {
                let (held, state) = process.state.expect("state");
                let (_, of, root) = process.reduced.take().expect("a reduced gradient");
                assert!(held.next() == step && of == step, "applies the next step, once");
                let state = mix(&[4, state, root]);
                assert_eq!(
                    state,
                    reference(&geometry, step).0,
                    "{worker} differs from the reference after {step}"
                );
                process.state = Some((step, state));
                process.lanes.clear();
                self.tell(|| format!("{worker:#} applied {step}"));
            }
            Task::Checkpoint { step } => {
                let (held, state) = process.state.expect("state");
                assert_eq!(held, step);
                self.checkpoints.insert(step, state);
            }
            Task::Donate { step, to } => {
                let membership = process.membership.clone().expect("entered");
                let (held, state) = process.state.expect("a donor holds state");
                assert_eq!(held, step);
                for Rank(rank) in to {
                    let to = membership.members[rank as usize].worker.clone();
                    let given = Happening::State {
                        to: to.clone(),
                        epoch: membership.epoch,
                        step,
                        state,
                    };
                    self.send(Some(worker), Some(&to), given);
                }
            }
            Task::Finish { .. } => {}
            Task::Reduce { .. } => unreachable!("a reduction ends by what arrives"),
        }
        self.rank(worker, rank::Event::Ended(TaskEnd::Done));
    }

    pub(crate) fn check_end(&self) {
        let steps = self.rules.steps;
        let (state, _) = reference(&self.rules.geometry, steps);
        assert_eq!(
            self.outcome,
            Some(Outcome::Done {
                weights: state.to_string()
            }),
            "seed {}",
            self.seed
        );
        assert!(matches!(self.job.phase(), Phase::Ended(_)));
        let expected = steps.0 * self.rules.geometry.samples();
        let audit = ledger::audit(&self.ledger, expected);
        assert_eq!(
            (audit.used, audit.missed, audit.repeated),
            (expected, 0, 0),
            "seed {}",
            self.seed
        );
    }

    pub(crate) fn tally(mut self) -> Tally {
        self.tally.stale += self.job.stale() + self.workers.values().map(|p| p.machine.stale()).sum::<u64>();
        self.tally
    }
}

fn sender(event: &job::Event) -> Option<&WorkerId> {
    match event {
        job::Event::Joined { worker, .. }
        | job::Event::Heartbeat(worker)
        | job::Event::Holding { worker, .. }
        | job::Event::CheckpointWritten { worker, .. }
        | job::Event::Finished { worker, .. } => Some(worker),
        job::Event::Reduced(report) => Some(&report.worker),
        job::Event::PeerLost { by, .. } => Some(by),
        _ => None,
    }
}
