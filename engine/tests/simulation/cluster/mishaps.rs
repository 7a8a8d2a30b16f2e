//! How faults are carried out.

use lockstep_engine::job;

use super::network::{Place, Process};
use super::{Trap, What, World};
use crate::faults::{Blow, CALM, Kind, Moment};
use crate::invariants::planted_here;

impl World {
    pub(crate) fn start(&mut self, place: Place) {
        let (offset, rate) = (self.dice.below(1 << 40), 9_900 + self.dice.below(201));
        let reuse = planted_here("a restarted process keeps its name");
        let Some(life) = self.life_of(place) else { return };
        if life.alive {
            return;
        }
        life.alive = true;
        life.life += u32::from(!reuse || life.life == 0);
        (life.offset, life.rate) = (offset, rate);
        life.paused_until = 0;
        life.missed.clear();
        life.trap = None;
        match place {
            Place::Coordinator(index) => self.start_coordinator(index),
            Place::Worker(slot) => self.start_worker(slot),
            Place::Store => {}
        }
    }

    /// The process dies; another one takes its place later.
    pub(crate) fn crash(&mut self, place: Place, back: u64, why: &str) {
        let Some(life) = self.life(place) else { return };
        self.tell(|| format!("{place:?} dies ({why})"));
        self.expect_prompt_notice(place);
        let process = Process { place, life };
        self.close_all(process);
        if let Some(life) = self.life_of(place) {
            life.alive = false;
            life.missed.clear();
        }
        match place {
            Place::Coordinator(index) => self.coordinators[index].role = super::coordinator::Role::Down,
            Place::Worker(slot) => self.workers[slot].run = None,
            Place::Store => {}
        }
        self.at(self.now + back, What::Start(place));
    }

    fn pause(&mut self, place: Place, lasts: u64) {
        let until = self.now + lasts;
        let Some(number) = self.life(place) else { return };
        self.tell(|| format!("{place:?} is stopped for {} ms", lasts / 1000));
        if matches!(place, Place::Coordinator(_)) {
            self.watch.trouble(until);
        }
        if let Some(life) = self.life_of(place) {
            life.paused_until = life.paused_until.max(until);
        }
        self.at(until, What::Wake(Process { place, life: number }));
    }

    pub(crate) fn wake(&mut self, process: Process) {
        if self.life(process.place) != Some(process.life) {
            return;
        }
        let now = self.now;
        let Some(life) = self.life_of(process.place) else {
            return;
        };
        if now < life.paused_until {
            return;
        }
        let missed = std::mem::take(&mut life.missed);
        // First it goes on with what it was at.
        match process.place {
            Place::Coordinator(index) => self.pump(index),
            Place::Worker(slot) => self.rank_pump(slot),
            Place::Store => {}
        }
        for what in missed {
            self.at(self.now, what);
        }
    }

    /// Before each command of a process: whether a fault strikes here.
    pub(crate) fn trapped(&mut self, place: Place) -> bool {
        let Some(life) = self.life_of(place) else {
            return false;
        };
        let Some(trap) = &mut life.trap else { return false };
        trap.commands -= 1;
        if trap.commands > 0 {
            return false;
        }
        let then = trap.then;
        life.trap = None;
        match then {
            Ok(lasts) => self.pause(place, lasts),
            Err(back) => self.crash(place, back, "between two commands"),
        }
        true
    }

    pub(crate) fn fault(&mut self, index: usize) {
        let kind = self.plan.faults[index].kind.clone();
        self.tell(|| format!("fault {index}: {kind:?}"));
        self.count(kind.name());
        match kind {
            Kind::Crash { place, back } => self.crash(place, back, "killed"),
            Kind::CrashWithin {
                place,
                commands,
                back,
            } => self.trap(place, commands, Err(back)),
            Kind::CrashWorkers { back } => {
                for place in self
                    .places()
                    .into_iter()
                    .filter(|p| matches!(p, Place::Worker(_)))
                {
                    let back = back + self.dice.below(50_000);
                    self.crash(place, back, "killed with all others");
                }
            }
            Kind::CrashAll { back } => {
                for place in self.places() {
                    let back = back + self.dice.below(50_000);
                    self.crash(place, back, "killed with all others");
                }
            }
            Kind::Pause { place, lasts } => self.pause(place, lasts),
            Kind::PauseWithin {
                place,
                commands,
                lasts,
            } => self.trap(place, commands, Ok(lasts)),
            Kind::Cut {
                from,
                to,
                both,
                lasts,
            } => {
                self.watch.trouble(self.now + lasts);
                self.cut(from, to, lasts);
                if both {
                    self.cut(to, from, lasts);
                }
            }
            Kind::Isolate { place, lasts } => self.isolate(place, lasts),
            Kind::Break { a, b } => self.break_between(a, b),
            Kind::StoreDown { lasts } => {
                self.watch.trouble(self.now + lasts);
                self.store.down_until = self.store.down_until.max(self.now + lasts);
            }
            Kind::StoreSlow { lasts } => {
                self.watch.trouble(self.now + lasts);
                self.store.slow_until = self.store.slow_until.max(self.now + lasts);
            }
            Kind::Slow { slot, factor, lasts } => self.workers[slot].slow = (factor, self.now + lasts),
            Kind::WrongGradient { slot } => self.workers[slot].wrong_gradient = true,
            Kind::WrongPartial { slot } => self.workers[slot].wrong_partial = true,
            Kind::When {
                moment,
                after,
                victim,
                then,
            } => self.awaited.push((moment, after, victim, then)),
            Kind::WrongWeights { slot } => self.workers[slot].wrong_weights = true,
            Kind::Stale { place, which } => self.repeat(place, which),
            Kind::Drain { slot, lasts } => self.drain(slot, lasts),
            Kind::DiskFull { slot, lasts } => self.workers[slot].disk_full_until = self.now + lasts,
        }
    }

    fn places(&self) -> Vec<Place> {
        let coordinators = (0..self.coordinators.len()).map(Place::Coordinator);
        let workers = (0..self.workers.len()).map(Place::Worker);
        coordinators.chain(workers).collect()
    }

    fn isolate(&mut self, place: Place, lasts: u64) {
        self.watch.trouble(self.now + lasts);
        let mut others = self.places();
        others.push(Place::Store);
        for other in others {
            self.cut(place, other, lasts);
            self.cut(other, place, lasts);
        }
    }

    /// A moment has come that faults may wait for.
    pub(crate) fn comes(&mut self, moment: Moment) {
        if let Some(at) = self.awaited.iter().position(|awaited| awaited.0 == moment)
            && self.now < CALM
        {
            let (_, after, victim, blow) = self.awaited.swap_remove(at);
            self.count("moments that came");
            self.at(self.now + after, What::Blow(victim, blow));
        }
    }

    pub(crate) fn strike(&mut self, victim: Place, blow: Blow) {
        match blow {
            Blow::Crash { back } => self.crash(victim, back, "at that moment"),
            Blow::Pause { lasts } => self.pause(victim, lasts),
            Blow::Isolate { lasts } => self.isolate(victim, lasts),
        }
    }

    fn trap(&mut self, place: Place, commands: u64, then: Result<u64, u64>) {
        if let Some(life) = self.life_of(place) {
            life.trap = Some(Trap { commands, then });
        }
    }

    /// A message of the past comes to whom it came before.
    fn repeat(&mut self, place: Place, which: u64) {
        let pick = |len: usize| (len > 0).then(|| (which % len.max(1) as u64) as usize);
        match place {
            Place::Coordinator(index) => {
                let Some(leader) = self.leader(index) else { return };
                if let Some(at) = pick(leader.past.len()) {
                    let event = leader.past[at].clone();
                    self.tell(|| format!("comes again: {event:?}"));
                    self.give(index, event);
                }
            }
            Place::Worker(slot) => {
                let Some(run) = self.run_of(slot) else { return };
                if let Some(at) = pick(run.past.len()) {
                    let event = run.past[at].clone();
                    self.tell(|| format!("comes again: {event:?}"));
                    // A repetition is no new word of a coordinator's.
                    let told = self.run_of(slot).and_then(|run| run.told);
                    self.rank(slot, event);
                    if let Some(run) = self.run_of(slot) {
                        run.told = told;
                    }
                }
            }
            Place::Store => {}
        }
    }

    fn drain(&mut self, slot: usize, lasts: u64) {
        let Some(worker) = self.workers[slot].id.clone() else {
            return;
        };
        self.workers[slot].drained_until = self.now + lasts;
        self.at(self.now + lasts, What::Undrain(slot));
        for index in 0..self.coordinators.len() {
            self.give(index, job::Event::Drain(worker.clone()));
        }
    }

    /// The node is free again; a process that is still there may stay.
    pub(crate) fn undrain(&mut self, slot: usize) {
        self.workers[slot].drained_until = 0;
        self.start(Place::Worker(slot));
    }
}
