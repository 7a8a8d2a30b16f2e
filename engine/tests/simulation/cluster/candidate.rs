//! A coordinator's process: a candidate for the store's lease, which leads while it has it.

use std::time::Duration;

use lockstep_engine::lead::{Candidate, Command, Event, Rules};
use lockstep_engine::time::Instant;

use super::coordinator::{AGAIN, Leader};
use super::network::{Place, Process};
use super::store::{LEASE, Reply, Request};
use super::{Life, What, World};
use crate::plan::MS;

const TICK: u64 = 20 * MS;
const TTL: Duration = Duration::from_micros(LEASE);

#[derive(Default)]
pub(crate) struct Coordinator {
    pub(crate) life: Life,
    candidate: Option<Candidate>,
    /// When it asked for the lease, while that is not answered.
    campaign: Option<u64>,
    /// Of the lease that it had last.
    term: u64,
    pub(crate) role: Role,
}

#[derive(Default)]
pub(crate) enum Role {
    /// It does not lead.
    #[default]
    Standby,
    /// It has the lease and reads the store.
    Loading {
        asked: u64,
    },
    Leading(Box<Leader>),
}

impl World {
    pub(crate) fn start_coordinator(&mut self, index: usize) {
        let candidate = Candidate::new(Rules { ttl: TTL });
        let life = std::mem::take(&mut self.coordinators[index].life);
        self.coordinators[index] = Coordinator {
            life,
            candidate: Some(candidate),
            ..Coordinator::default()
        };
        self.coordinator_timer(index);
    }

    pub(crate) fn coordinator_timer(&mut self, index: usize) {
        let who = self.coordinator_process(index);
        let clock = self.coordinators[index].life.clock(self.now);
        self.at(self.now + TICK, What::Timer(who));
        let unanswered = |sent: &mut u64| clock.saturating_sub(*sent) > AGAIN;
        let event = match self.coordinators[index].campaign.take_if(unanswered) {
            Some(_) => Event::NotWon("no answer".to_owned()),
            None => Event::Tick,
        };
        self.candidate(index, event);
        let term = self.coordinators[index].term;
        match &mut self.coordinators[index].role {
            Role::Loading { asked } if clock.saturating_sub(*asked) > AGAIN => {
                *asked = clock;
                self.ask(who, Request::Load { term });
            }
            Role::Leading(_) => self.lead_on(index, clock),
            Role::Loading { .. } | Role::Standby => {}
        }
    }

    /// Gives the candidate an event, and does what it says.
    fn candidate(&mut self, index: usize, event: Event) {
        let who = self.coordinator_process(index);
        let coordinator = &mut self.coordinators[index];
        let clock = coordinator.life.clock(self.now);
        let Some(candidate) = &mut coordinator.candidate else {
            return;
        };
        for command in candidate.step(Instant(Duration::from_micros(clock)), event) {
            let term = self.coordinators[index].term;
            match command {
                Command::Campaign => {
                    self.coordinators[index].campaign = Some(clock);
                    self.ask(who, Request::Campaign { asked: clock });
                }
                Command::KeepAlive(request) => self.ask(who, Request::KeepAlive { term, request }),
                Command::TakeUp => {
                    self.coordinators[index].role = Role::Loading { asked: clock };
                    self.ask(who, Request::Load { term });
                }
                Command::StepDown(reason) => self.step_down(index, &reason),
            }
        }
    }

    /// Whether it leads by its own clock; if it did until now, it steps down.
    pub(crate) fn still_leads(&mut self, index: usize) -> bool {
        let coordinator = &self.coordinators[index];
        let now = Instant(Duration::from_micros(coordinator.life.clock(self.now)));
        let leads = coordinator
            .candidate
            .as_ref()
            .is_some_and(|candidate| candidate.leads(now));
        if !leads {
            self.candidate(index, Event::Tick);
        }
        leads
    }

    pub(crate) fn replied(&mut self, who: Process, reply: Reply) {
        let Place::Coordinator(index) = who.place else {
            return;
        };
        let coordinator = &mut self.coordinators[index];
        let current = coordinator.term;
        let standby = matches!(coordinator.role, Role::Standby);
        match reply {
            Reply::Won { term, asked } if coordinator.campaign == Some(asked) => {
                (coordinator.campaign, coordinator.term) = (None, term);
                self.candidate(index, Event::Won { ttl: TTL });
            }
            Reply::NotWon { asked } if coordinator.campaign == Some(asked) => {
                coordinator.campaign = None;
                self.candidate(index, Event::NotWon("somebody else leads".to_owned()));
            }
            Reply::KeptAlive { term, request } if term == current => {
                self.candidate(index, Event::KeptAlive { request, ttl: TTL });
            }
            Reply::Refused { term } if term == current && !standby => {
                self.candidate(index, Event::Lost("the store refuses it".to_owned()));
            }
            Reply::Loaded { term, epoch, ledger } if term == current => {
                if matches!(coordinator.role, Role::Loading { .. }) {
                    self.begin_to_lead(index, term, epoch, &ledger);
                }
            }
            reply => self.done_by_store(index, reply),
        }
    }

    fn step_down(&mut self, index: usize, reason: &str) {
        self.tell(|| format!("coordinator {index} leads no more: {reason}"));
        self.count("leaders that stepped down");
        if let Role::Leading(leader) = std::mem::take(&mut self.coordinators[index].role) {
            for conn in leader.sessions.into_values() {
                self.close(conn, 1, false);
            }
        }
    }
}
