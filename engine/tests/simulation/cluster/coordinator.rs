//! A coordinator that leads: it does what the job's machine says, in order; what follows on an epoch waits until the
//! epoch is stored.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lockstep_engine::ids::{Epoch, WorkerId};
use lockstep_engine::job::{Command, Event, Job, NoteKind, Past};
use lockstep_engine::ledger::Entry;
use lockstep_engine::rank;
use lockstep_engine::time::Instant;

use super::candidate::Role;
use super::network::{ConnId, Place, Process};
use super::store::{Reply, Request, Write};
use super::{Payload, World};
use crate::faults::Moment;
use crate::invariants::planted_here;
use crate::plan::MS;

/// A request to the store that is not answered is repeated after so long.
pub(crate) const AGAIN: u64 = 100 * MS;
pub(crate) struct Leader {
    pub(crate) term: u64,
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

    pub(crate) fn coordinator_process(&self, index: usize) -> Process {
        Process {
            place: Place::Coordinator(index),
            life: self.coordinators[index].life.life,
        }
    }

    /// What a leader does every so often: it asks again for what was not answered.
    pub(crate) fn lead_on(&mut self, index: usize, clock: u64) {
        let who = self.coordinator_process(index);
        let Some(leader) = self.leader(index) else { return };
        let term = leader.term;
        let mut requests = Vec::new();
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

    /// The store has done something for the leader.
    pub(crate) fn done_by_store(&mut self, index: usize, reply: Reply) {
        let Some(leader) = self.leader(index) else { return };
        match reply {
            Reply::Persisted(epoch) => {
                leader.waiting.take_if(|(of, _)| *of == epoch);
                self.pump(index);
            }
            Reply::Written(number) if leader.writes.front().is_some_and(|(of, _)| *of == number) => {
                if let Some((_, Write::Record(Entry { epoch, step, .. }))) = leader.writes.pop_front() {
                    leader.inbox.push_back(Event::Recorded { epoch, step });
                }
                self.write_next(index);
                self.pump(index);
            }
            _ => {}
        }
    }

    pub(crate) fn begin_to_lead(&mut self, index: usize, term: u64, epoch: Epoch, ledger: &[Entry]) {
        self.tell(|| {
            format!(
                "coordinator {index} leads in term {term}: epoch {epoch}, step {}",
                ledger.len()
            )
        });
        self.count("leaders");
        if self
            .coordinators
            .iter()
            .any(|other| matches!(other.role, Role::Leading(_)))
        {
            self.count("two leaders at once");
        }
        let job = Job::new(self.plan.rules.clone(), epoch, Past::of(ledger));
        let slots = (self.plan.slots - self.quarantined.len()) as u32;
        self.coordinators[index].role = Role::Leading(Box::new(Leader {
            term,
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
                if !self.still_leads(index) {
                    return;
                }
                let Some(leader) = self.leader(index) else { return };
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

    fn tell_worker(&mut self, index: usize, worker: &WorkerId, payload: Payload) {
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
                    self.tell_worker(index, &member.worker, Payload::ToWorker(event));
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
                    self.tell_worker(index, worker, Payload::ToWorker(event));
                }
            }
            Command::Commit { workers, verdict } => {
                self.check_commit(&workers, &verdict);
                for worker in &workers {
                    self.tell_worker(index, worker, Payload::ToWorker(rank::Event::Committed(verdict)));
                }
            }
            Command::Follow { worker, epoch, donor } => {
                self.tell_worker(
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
                self.tell_worker(index, &worker, Payload::Seal { step, epoch, shards });
            }
            Command::Evict { worker, .. } => {
                self.tell_worker(index, &worker, Payload::Leave);
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
                self.count(said(kind));
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

/// What leaders decided, for the tally.
fn said(kind: NoteKind) -> &'static str {
    match kind {
        NoteKind::Joined => "said: joined",
        NoteKind::Lost => "said: lost",
        NoteKind::Epoch => "said: epoch",
        NoteKind::Paused => "said: paused",
        NoteKind::Killed => "said: killed",
        NoteKind::Checkpoint => "said: checkpoint",
        NoteKind::Recovered => "said: recovered",
        NoteKind::Corruption => "said: corruption",
        NoteKind::Slow => "said: slow",
        NoteKind::BadStep => "said: bad step",
        NoteKind::Drained => "said: drained",
        NoteKind::Phase => "said: phase",
        NoteKind::Storage => "said: storage",
        NoteKind::Ended => "said: ended",
    }
}
