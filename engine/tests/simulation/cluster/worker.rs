//! A rank's process: its session with whoever leads, and its machine.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::SocketAddr;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::{Epoch, Step, WorkerId};
use lockstep_engine::job;
use lockstep_engine::ledger::Span;
use lockstep_engine::membership::Membership;
use lockstep_engine::rank::{Command, Event, RankMachine, Task, TaskEnd, Verdict, Word};

use super::feed::Feed;
use super::network::{ConnId, Place, Process};
use super::{Life, Payload, What, World};
use crate::plan::MS;

const HEARTBEAT: u64 = 80 * MS;

/// A slot, and the process in it.
#[derive(Default)]
pub(crate) struct Worker {
    pub(crate) life: Life,
    pub(crate) id: Option<WorkerId>,
    pub(crate) run: Option<Run>,
    /// What is wrong with the slot.
    pub(crate) slow: (u64, u64),
    pub(crate) disk_full_until: u64,
    pub(crate) drained_until: u64,
    pub(crate) wrong_gradient: bool,
    pub(crate) wrong_weights: bool,
    pub(crate) wrong_partial: bool,
    /// What the lane under way takes.
    pub(crate) compute_took: u64,
    next: usize,
}

/// What is in the memory of a process.
pub(crate) struct Run {
    pub(crate) machine: RankMachine,
    /// With which coordinator, through which connection, and when it was heard last by the own clock.
    pub(crate) session: Option<(usize, ConnId, u64)>,
    pub(crate) outbox: VecDeque<Command>,
    pub(crate) task: Option<(u64, Task)>,
    /// The task under way is of a state that was forgotten: it has no effect.
    pub(crate) void: bool,
    pub(crate) fence: Epoch,
    pub(crate) membership: Option<Membership>,
    pub(crate) state: Option<(Step, u64)>,
    /// Sums of computed lanes, folded as far as they go.
    pub(crate) partials: BTreeMap<Node, u64>,
    pub(crate) reduced: Option<(Epoch, Step, u64)>,
    pub(crate) heard: HashMap<(Epoch, Step), BTreeMap<Node, u64>>,
    /// Through which partials go to each peer, and come from it.
    pub(crate) links: BTreeMap<WorkerId, ConnId>,
    pub(crate) inward: BTreeMap<WorkerId, ConnId>,
    pub(crate) feed: Option<Feed>,
    /// Followers, and the gradient that was applied last.
    pub(crate) fed: Vec<ConnId>,
    pub(crate) applied: Option<(Step, u64, bool)>,
    /// Its weights are wrong.
    pub(crate) tainted: bool,
    /// Whether a snapshot was taken of its state.
    pub(crate) copied: bool,
    pub(crate) told: Option<Verdict>,
    pub(crate) past: Vec<Event>,
}

impl World {
    pub(crate) fn worker_process(&self, slot: usize) -> Process {
        Process {
            place: Place::Worker(slot),
            life: self.workers[slot].life.life,
        }
    }

    pub(crate) fn slot_of(&self, worker: &WorkerId) -> Option<usize> {
        let slot = worker.slot as usize;
        (self.workers[slot].id.as_ref() == Some(worker) && self.workers[slot].life.alive).then_some(slot)
    }

    pub(crate) fn run_of(&mut self, slot: usize) -> Option<&mut Run> {
        self.workers[slot].run.as_mut()
    }

    pub(crate) fn start_worker(&mut self, slot: usize) {
        if self.quarantined.contains(&slot) {
            self.workers[slot].life.alive = false;
            return;
        }
        let incarnation = u128::from(self.workers[slot].life.life);
        let id = WorkerId {
            node: "sim".parse().unwrap(),
            slot: slot as u32,
            incarnation,
        };
        self.tell(|| format!("{id}.{incarnation} starts"));
        let machine = RankMachine::new(id.clone(), self.plan.rules.geometry, self.plan.rules.steps);
        self.workers[slot].id = Some(id);
        self.workers[slot].run = Some(Run {
            machine,
            session: None,
            outbox: VecDeque::new(),
            task: None,
            void: false,
            fence: Epoch(0),
            membership: None,
            state: None,
            partials: BTreeMap::new(),
            reduced: None,
            heard: HashMap::new(),
            links: BTreeMap::new(),
            inward: BTreeMap::new(),
            feed: None,
            fed: Vec::new(),
            applied: None,
            tainted: false,
            copied: false,
            told: None,
            past: Vec::new(),
        });
        self.seek(slot);
        self.worker_timer(slot);
    }

    pub(crate) fn worker_timer(&mut self, slot: usize) {
        let process = self.worker_process(slot);
        self.at(self.now + HEARTBEAT, What::Timer(process));
        let clock = self.workers[slot].life.clock(self.now);
        let id = self.workers[slot].id.clone();
        let lease = self.plan.rules.lease.as_micros() as u64;
        let Some(run) = self.run_of(slot) else { return };
        if let (Some((_, conn, heard)), Some(id)) = (run.session, id) {
            if clock.saturating_sub(heard) > lease {
                run.session = None;
                self.close(conn, 0, false);
                self.seek(slot);
            } else {
                self.send(conn, 0, Payload::Heartbeat(id));
            }
        }
    }

    fn ready(&mut self, slot: usize) -> job::Event {
        let address: SocketAddr = ([127, 0, 0, 1], 9000).into();
        let checkpoints = self.sealed.keys().copied().collect();
        let offer = self.run_of(slot).and_then(|run| run.machine.offer());
        job::Event::Joined {
            worker: self.workers[slot].id.clone().unwrap(),
            address,
            checkpoints,
            offer,
        }
    }

    /// Knocks at the next coordinator.
    pub(crate) fn seek(&mut self, slot: usize) {
        if self.run_of(slot).is_none_or(|run| run.session.is_some()) {
            return;
        }
        let process = self.worker_process(slot);
        self.workers[slot].next += 1;
        let index = self.workers[slot].next % self.coordinators.len();
        let hello = Payload::ToCoordinator(self.ready(slot));
        let conn = self.connect(process, Place::Coordinator(index), hello);
        let clock = self.workers[slot].life.clock(self.now);
        if let Some(run) = self.run_of(slot) {
            run.session = Some((index, conn, clock));
        }
    }

    pub(crate) fn worker_hears(&mut self, slot: usize, conn: ConnId, payload: Payload) {
        let clock = self.workers[slot].life.clock(self.now);
        let Some(run) = self.workers[slot].run.as_mut() else {
            return;
        };
        if let Some((_, session, heard)) = &mut run.session
            && *session == conn
        {
            *heard = clock;
        }
        match payload {
            Payload::ToWorker(event) => {
                if run.past.len() < 100 && !matches!(event, Event::Follow { .. }) {
                    run.past.push(event.clone());
                }
                self.rank(slot, event);
            }
            Payload::Seal { step, epoch, shards } => self.seal(slot, step, epoch, shards.len() as u32),
            Payload::Leave => {
                let back = 20 * MS + self.dice.below(200 * MS);
                let drained = self.workers[slot].drained_until.saturating_sub(self.now);
                self.crash(Place::Worker(slot), back.max(drained), "evicted");
            }
            Payload::Peer(peer) => {
                run.inward.insert(peer, conn);
            }
            Payload::Partials { epoch, step, nodes } => {
                if epoch >= run.fence {
                    run.heard.entry((epoch, step)).or_default().extend(nodes);
                    self.try_reduce(slot);
                } else {
                    self.count("old data frames dropped");
                }
            }
            Payload::Feed(held) => self.begin_to_feed(slot, conn, held),
            Payload::Fed(item) => self.fed(slot, conn, item),
            Payload::ToCoordinator(_) | Payload::Heartbeat(_) | Payload::Alive => {}
        }
    }

    pub(crate) fn worker_conn_closed(&mut self, slot: usize, conn: ConnId) {
        let process = self.worker_process(slot);
        let again = self.now + 5 * MS + self.dice.below(20 * MS);
        let Some(run) = self.workers[slot].run.as_mut() else {
            return;
        };
        if run.session.is_some_and(|(_, session, _)| session == conn) {
            run.session = None;
            self.at(again, What::Seek(process));
            return;
        }
        run.fed.retain(|of| *of != conn);
        if run.feed.as_ref().is_some_and(|feed| feed.conn == conn) {
            self.feed_closed(slot);
            return;
        }
        let peer = run
            .links
            .iter()
            .find(|(_, of)| **of == conn)
            .map(|(peer, _)| peer.clone());
        let Some(peer) = peer else { return };
        run.links.remove(&peer);
        let Some(membership) = &run.membership else { return };
        if membership.rank_of(&peer).is_none() {
            return;
        }
        let (epoch, reason) = (membership.epoch, "connection closed".to_owned());
        if run
            .task
            .take_if(|(_, task)| matches!(task, Task::Reduce { .. }))
            .is_some()
        {
            self.rank(slot, Event::Ended(TaskEnd::PeerLost { peer, reason }));
        } else {
            self.rank(slot, Event::PeerLost { epoch, peer, reason });
        }
    }

    /// Gives the machine an event, and does what it says.
    pub(crate) fn rank(&mut self, slot: usize, event: Event) {
        let name = self.workers[slot].id.clone();
        if self.story {
            self.tell(|| format!("  to {}: {event:?}", name.unwrap()));
        }
        let Some(run) = self.run_of(slot) else { return };
        if let Event::Committed(verdict) = &event
            && verdict.epoch >= run.fence
        {
            run.told = Some(*verdict);
        }
        let commands = run.machine.step(event);
        run.outbox.extend(commands);
        self.rank_pump(slot);
    }

    pub(crate) fn rank_pump(&mut self, slot: usize) {
        loop {
            if !self.workers[slot].life.alive || self.now < self.workers[slot].life.paused_until {
                return;
            }
            if self.run_of(slot).is_none_or(|run| run.outbox.is_empty()) || self.trapped(Place::Worker(slot))
            {
                return;
            }
            let Some(command) = self.run_of(slot).and_then(|run| run.outbox.pop_front()) else {
                return;
            };
            match command {
                Command::Raise(epoch) => self.raise(slot, epoch),
                Command::Run(task) => self.begin(slot, task),
                Command::Ready => {
                    if self.run_of(slot).is_some_and(|run| run.machine.held().is_none()) {
                        self.forget(slot);
                    }
                    let event = self.ready(slot);
                    self.say(slot, event);
                }
                Command::Tell(word) => self.word(slot, word),
            }
        }
    }

    /// Says something to the coordinator, if there is one.
    pub(crate) fn say(&mut self, slot: usize, event: job::Event) {
        if let job::Event::Reduced(report) = &event {
            self.watch.digests.said(report);
        }
        if let Some((_, conn, _)) = self.run_of(slot).and_then(|run| run.session) {
            self.send(conn, 0, Payload::ToCoordinator(event));
        }
    }

    fn word(&mut self, slot: usize, word: Word) {
        let worker = self.workers[slot].id.clone().unwrap();
        let event = match word {
            Word::Holding { epoch } => job::Event::Holding { worker, epoch },
            Word::Following { step } => job::Event::Following { worker, step },
            Word::Computed {
                epoch,
                step,
                lanes,
                took,
            } => job::Event::Computed {
                worker,
                epoch,
                step,
                lanes,
                took,
            },
            Word::Reduced {
                epoch,
                step,
                result,
                lanes,
            } => {
                let geometry = self.plan.rules.geometry;
                let span = |lane| Span {
                    positions: geometry.span(step, lane),
                    worker: worker.clone(),
                };
                let spans = lanes.into_iter().map(span).collect();
                job::Event::Reduced(job::Report {
                    worker: worker.clone(),
                    epoch,
                    step,
                    result,
                    spans,
                })
            }
            Word::PeerLost { epoch, peer, reason } => job::Event::PeerLost {
                by: worker,
                epoch,
                peer,
                reason,
            },
            Word::Finished { epoch } => {
                let state = self.run_of(slot).and_then(|run| run.state);
                let weights = state.map(|(_, state)| format!("{state:x}")).unwrap_or_default();
                job::Event::Finished {
                    worker,
                    epoch,
                    weights,
                }
            }
            Word::Fatal(reason) => job::Event::Fatal { worker, reason },
        };
        self.say(slot, event);
    }
}
