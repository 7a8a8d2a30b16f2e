//! A coordinator's process: it leads while it has the store's lease by its own clock, and does what the job's machine
//! says, in order; what follows on an epoch waits until the epoch is stored.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lockstep_engine::ids::{Epoch, WorkerId};
use lockstep_engine::job::{Command, Event, Job, Past};
use lockstep_engine::ledger::Entry;
use lockstep_engine::rank;
use lockstep_engine::time::Instant;

use super::network::{ConnId, Place, Process};
use super::store::{LEASE, Reply, Request, Write};
use super::{Life, Payload, What, World};
use crate::faults::Moment;
use crate::invariants::planted_here;
use crate::plan::MS;

const TICK: u64 = 20 * MS;
/// A request to the store that is not answered is repeated after so long.
const AGAIN: u64 = 100 * MS;
/// A leader trusts its clock to this part of its lease.
const TRUST: u64 = LEASE * 95 / 100;

#[derive(Default)]
pub(crate) struct Coordinator {
    pub(crate) life: Life,
    pub(crate) role: Role,
}

#[derive(Default)]
pub(crate) enum Role {
    #[default]
    Down,
    /// It asks for the lease.
    Idle {
        asked: u64,
    },
    /// It has the lease and reads the store.
    Loading {
        term: u64,
        until: u64,
        asked: u64,
    },
    Leading(Box<Leader>),
}

pub(crate) struct Leader {
    pub(crate) term: u64,
    /// By its own clock.
    until: u64,
    renewed: u64,
    pub(crate) job: Job,
    inbox: VecDeque<Event>,
    outbox: VecDeque<Command>,
    /// The epoch that is being stored, and when it was asked for last.
    waiting: Option<(Epoch, u64)>,
    pub(crate) sessions: BTreeMap<WorkerId, ConnId>,
    writes: VecDeque<(u64, Write)>,
    numbered: u64,
    asked: u64,
    /// Who was told to follow whom.
    pub(crate) follows: BTreeMap<WorkerId, WorkerId>,
    /// Whether people know that it is paused.
    pub(crate) paused: bool,
    /// Events that may come again.
    pub(crate) past: Vec<Event>,
}

impl World {
    pub(crate) fn leader(&mut self, index: usize) -> Option<&mut Leader> {
        match &mut self.coordinators[index].role {
            Role::Leading(leader) => Some(leader),
            _ => None,
        }
    }

    fn coordinator_process(&self, index: usize) -> Process {
        Process {
            place: Place::Coordinator(index),
            life: self.coordinators[index].life.life,
        }
    }

    pub(crate) fn start_coordinator(&mut self, index: usize) {
        self.coordinators[index].role = Role::Idle { asked: 0 };
        self.coordinator_timer(index);
    }

    pub(crate) fn coordinator_timer(&mut self, index: usize) {
        let who = self.coordinator_process(index);
        let clock = self.coordinators[index].life.clock(self.now);
        self.at(self.now + TICK, What::Timer(who));
        match &mut self.coordinators[index].role {
            Role::Down => {}
            Role::Idle { asked } => {
                if clock.saturating_sub(*asked) > AGAIN || *asked == 0 {
                    *asked = clock;
                    self.ask(who, Request::Lease { term: 0, sent: clock });
                }
            }
            Role::Loading { term, until, asked } => {
                let term = *term;
                if clock >= *until {
                    self.step_down(index, "its lease is over before the store is read");
                } else if clock.saturating_sub(*asked) > AGAIN {
                    *asked = clock;
                    self.ask(who, Request::Load { term });
                }
            }
            Role::Leading(_) => self.lead_on(index, clock),
        }
    }

    /// What a leader does every so often.
    fn lead_on(&mut self, index: usize, clock: u64) {
        let who = self.coordinator_process(index);
        let Some(leader) = self.leader(index) else { return };
        if clock >= leader.until {
            self.step_down(index, "its lease is over by its own clock");
            return;
        }
        let term = leader.term;
        let mut requests = Vec::new();
        if clock.saturating_sub(leader.renewed) > LEASE / 4 {
            leader.renewed = clock;
            requests.push(Request::Lease { term, sent: clock });
        }
        if let Some((epoch, asked)) = &mut leader.waiting
            && clock.saturating_sub(*asked) > AGAIN
        {
            *asked = clock;
            requests.push(Request::Persist { term, epoch: *epoch });
        }
        if let Some((number, write)) = leader.writes.front()
            && clock.saturating_sub(leader.asked) > AGAIN
        {
            leader.asked = clock;
            let (number, write) = (*number, write.clone());
            requests.push(Request::Write { term, number, write });
        }
        leader.inbox.push_back(Event::Tick);
        for request in requests {
            self.ask(who, request);
        }
        self.pump(index);
    }

    pub(crate) fn replied(&mut self, who: Process, reply: Reply) {
        let Place::Coordinator(index) = who.place else {
            return;
        };
        let clock = self.coordinators[index].life.clock(self.now);
        match (&mut self.coordinators[index].role, reply) {
            (Role::Idle { asked }, Reply::Leased { term, sent }) if *asked == sent => {
                let until = sent + TRUST;
                self.coordinators[index].role = Role::Loading {
                    term,
                    until,
                    asked: clock,
                };
                self.ask(who, Request::Load { term });
            }
            (Role::Loading { term, until, .. }, Reply::Leased { term: of, sent }) if *term == of => {
                *until = (*until).max(sent + TRUST);
            }
            (Role::Leading(leader), Reply::Leased { term, sent }) if leader.term == term => {
                leader.until = leader.until.max(sent + TRUST);
            }
            (Role::Loading { .. } | Role::Leading(_), Reply::Refused) => {
                self.step_down(index, "the store refuses it");
            }
            (
                Role::Loading { term, until, .. },
                Reply::Loaded {
                    term: of,
                    epoch,
                    ledger,
                },
            ) if *term == of => {
                let (term, until) = (*term, *until);
                self.begin_to_lead(index, term, until, epoch, &ledger);
            }
            (Role::Leading(leader), Reply::Persisted(epoch)) => {
                leader.waiting.take_if(|(of, _)| *of == epoch);
                self.pump(index);
            }
            (Role::Leading(leader), Reply::Written(number)) => {
                if leader.writes.front().is_some_and(|(of, _)| *of == number)
                    && let Some((_, write)) = leader.writes.pop_front()
                {
                    if let Write::Record(Entry { epoch, step, .. }) = write {
                        leader.inbox.push_back(Event::Recorded { epoch, step });
                    }
                    self.write_next(index);
                    self.pump(index);
                }
            }
            _ => {}
        }
    }

    fn begin_to_lead(&mut self, index: usize, term: u64, until: u64, epoch: Epoch, ledger: &[Entry]) {
        self.tell(|| {
            format!(
                "coordinator {index} leads in term {term}: epoch {epoch}, step {}",
                ledger.len()
            )
        });
        self.count("leaders");
        let job = Job::new(self.plan.rules.clone(), epoch, Past::of(ledger));
        let slots = (self.plan.slots - self.quarantined.len()) as u32;
        self.coordinators[index].role = Role::Leading(Box::new(Leader {
            term,
            until,
            renewed: 0,
            job,
            inbox: VecDeque::from([Event::Expected(slots)]),
            outbox: VecDeque::new(),
            waiting: None,
            sessions: BTreeMap::new(),
            writes: VecDeque::new(),
            numbered: 0,
            asked: 0,
            follows: BTreeMap::new(),
            paused: false,
            past: Vec::new(),
        }));
        self.pump(index);
    }

    fn step_down(&mut self, index: usize, reason: &str) {
        self.tell(|| format!("coordinator {index} leads no more: {reason}"));
        self.count("leaders that stepped down");
        let role = std::mem::replace(&mut self.coordinators[index].role, Role::Idle { asked: 0 });
        if let Role::Leading(leader) = role {
            for conn in leader.sessions.into_values() {
                self.close(conn, 1, false);
            }
        }
    }

    /// Does what is to be done, in order, until something has to be waited for.
    pub(crate) fn pump(&mut self, index: usize) {
        loop {
            let place = Place::Coordinator(index);
            let clock = self.coordinators[index].life.clock(self.now);
            if !self.coordinators[index].life.alive || self.now < self.coordinators[index].life.paused_until {
                return;
            }
            let Some(leader) = self.leader(index) else { return };
            if leader.waiting.is_some() {
                return;
            }
            if !leader.outbox.is_empty() {
                if self.trapped(place) {
                    return;
                }
                let Some(command) = self.leader(index).and_then(|leader| leader.outbox.pop_front()) else {
                    return;
                };
                self.carry_out(index, command);
            } else if let Some(event) = leader.inbox.pop_front() {
                if clock >= leader.until {
                    self.step_down(index, "its lease is over by its own clock");
                    return;
                }
                let commands = leader
                    .job
                    .step(Instant(Duration::from_micros(clock)), event.clone());
                leader.outbox.extend(commands.iter().cloned());
                if self.story && event != Event::Tick && !matches!(event, Event::Heartbeat(_)) {
                    self.tell(|| format!("  to coordinator {index}: {event:?}"));
                }
                self.check_decision(index, &commands);
                self.check_followers(index, &commands);
            } else {
                return;
            }
        }
    }

    fn write(&mut self, index: usize, write: Write) {
        let Some(leader) = self.leader(index) else { return };
        leader.numbered += 1;
        let number = leader.numbered;
        leader.writes.push_back((number, write));
        if leader.writes.len() == 1 {
            self.write_next(index);
        }
    }

    fn write_next(&mut self, index: usize) {
        let who = self.coordinator_process(index);
        let clock = self.coordinators[index].life.clock(self.now);
        let Some(leader) = self.leader(index) else { return };
        if let Some((number, write)) = leader.writes.front().cloned() {
            leader.asked = clock;
            let term = leader.term;
            self.ask(who, Request::Write { term, number, write });
        }
    }

    fn to_worker(&mut self, index: usize, worker: &WorkerId, payload: Payload) {
        let conn = self
            .leader(index)
            .and_then(|leader| leader.sessions.get(worker).copied());
        if let Some(conn) = conn {
            self.send(conn, 1, payload);
        }
    }

    fn carry_out(&mut self, index: usize, command: Command) {
        match command {
            Command::PersistEpoch(epoch) => {
                let who = self.coordinator_process(index);
                let clock = self.coordinators[index].life.clock(self.now);
                let Some(leader) = self.leader(index) else { return };
                let term = leader.term;
                if !planted_here("announce before the epoch is stored") {
                    leader.waiting = Some((epoch, clock));
                }
                self.ask(who, Request::Persist { term, epoch });
            }
            Command::Announce(membership) => {
                self.check_announced(&membership);
                for member in &membership.members {
                    let event = rank::Event::Announced(membership.clone());
                    self.to_worker(index, &member.worker, Payload::ToWorker(event));
                }
            }
            Command::Hold {
                workers,
                epoch,
                forget,
                ..
            } => {
                for worker in &workers {
                    let event = rank::Event::Held { epoch, forget };
                    self.to_worker(index, worker, Payload::ToWorker(event));
                }
            }
            Command::Commit { workers, verdict } => {
                self.check_commit(&workers, &verdict);
                for worker in &workers {
                    self.to_worker(index, worker, Payload::ToWorker(rank::Event::Committed(verdict)));
                }
            }
            Command::Follow { worker, epoch, donor } => {
                self.to_worker(
                    index,
                    &worker,
                    Payload::ToWorker(rank::Event::Follow { epoch, donor }),
                );
            }
            Command::Seal {
                worker,
                step,
                epoch,
                shards,
            } => {
                self.to_worker(index, &worker, Payload::Seal { step, epoch, shards });
            }
            Command::Evict { worker, .. } => {
                self.to_worker(index, &worker, Payload::Leave);
                let leader = self.leader(index);
                if let Some(conn) = leader.and_then(|leader| leader.sessions.remove(&worker)) {
                    self.close(conn, 1, false);
                }
            }
            Command::Quarantine { worker, .. } => {
                self.check_quarantine(&worker);
                self.quarantined.insert(worker.slot as usize);
                let slots = (self.plan.slots - self.quarantined.len()) as u32;
                if let Some(leader) = self.leader(index) {
                    leader.inbox.push_back(Event::Expected(slots));
                }
            }
            Command::Kill(worker) => {
                let slot = worker.slot as usize;
                if self.workers[slot].id.as_ref() == Some(&worker) {
                    let back = self.dice.below(300 * MS);
                    self.crash(Place::Worker(slot), back, "by the job");
                }
            }
            Command::Record(entry) => self.write(index, Write::Record(entry)),
            Command::Truncate(step) => self.write(index, Write::Truncate(step)),
            Command::RecordCheckpoint { step, weights } => {
                self.write(index, Write::Checkpoint(step, weights))
            }
            Command::Note { kind, text } => {
                self.tell(|| format!("{kind:?}: {text}"));
                self.comes(Moment::Note(kind));
            }
            Command::Recovered { .. } => self.count("recoveries"),
            Command::End { outcome, .. } => self.write(index, Write::End(outcome)),
        }
    }

    pub(crate) fn coordinator_hears(&mut self, index: usize, conn: ConnId, payload: Payload) {
        let Role::Leading(leader) = &mut self.coordinators[index].role else {
            self.close(conn, 1, false);
            return;
        };
        let current = |leader: &Leader, worker: &WorkerId| leader.sessions.get(worker) == Some(&conn);
        match payload {
            Payload::ToCoordinator(event) => {
                if let Event::Joined { worker, .. } = &event
                    && !leader.sessions.values().any(|&of| of == conn)
                {
                    if self.quarantined.contains(&(worker.slot as usize)) {
                        self.close(conn, 1, false);
                        return;
                    }
                    let old = leader.sessions.insert(worker.clone(), conn);
                    leader.inbox.push_back(event);
                    if let Some(old) = old {
                        self.close(old, 1, false);
                    }
                } else if leader.sessions.values().any(|&of| of == conn) {
                    if leader.past.len() < 200 && may_repeat(&event) {
                        leader.past.push(event.clone());
                    }
                    leader.inbox.push_back(event);
                }
                self.pump(index);
            }
            Payload::Heartbeat(worker) if current(leader, &worker) => {
                leader.inbox.push_back(Event::Heartbeat(worker));
                self.send(conn, 1, Payload::Alive);
                self.pump(index);
            }
            _ => {}
        }
    }

    pub(crate) fn session_closed(&mut self, index: usize, conn: ConnId) {
        let Some(leader) = self.leader(index) else { return };
        let worker = leader
            .sessions
            .iter()
            .find(|(_, of)| **of == conn)
            .map(|(worker, _)| worker.clone());
        if let Some(worker) = worker {
            leader.sessions.remove(&worker);
            let reason = "connection closed".to_owned();
            leader.inbox.push_back(Event::Left { worker, reason });
            self.pump(index);
        }
    }

    /// An event from the past, or from nowhere, comes to whoever leads.
    pub(crate) fn give(&mut self, index: usize, event: Event) {
        if let Some(leader) = self.leader(index) {
            leader.inbox.push_back(event);
            self.pump(index);
        }
    }
}

/// What carries a fence may come late or twice.
fn may_repeat(event: &Event) -> bool {
    matches!(
        event,
        Event::Holding { .. }
            | Event::Computed { .. }
            | Event::Reduced(_)
            | Event::PeerLost { .. }
            | Event::ShardWritten { .. }
            | Event::Finished { .. }
    )
}
