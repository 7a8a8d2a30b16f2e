//! The machine itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Command, Entry, Event, Outcome};
use crate::ids::WorkerId;
use crate::job::NoteKind;
use crate::time::Instant;

/// A connected worker.
#[derive(Clone, Debug)]
struct Worker {
    last_seen: Instant,
    /// Where it is; empty before it said so.
    phase: String,
    /// How many more tasks it can do at once.
    room: u32,
    /// It is to leave.
    drains: bool,
}

/// A phase, as far as it is known.
#[derive(Clone, Debug, Default)]
struct Phase {
    tasks: u32,
    open: BTreeSet<u32>,
    /// Whoever is at a task. Several are only if one was given up and came back.
    taken: BTreeMap<u32, BTreeSet<WorkerId>>,
}

impl Phase {
    fn is_over(&self) -> bool {
        self.open.is_empty() && self.taken.is_empty()
    }

    fn done(&self) -> u32 {
        self.tasks - (self.open.len() + self.taken.len()) as u32
    }

    /// Nobody of `worker`'s tasks is its any more; those that nobody else is at are open again.
    fn give_back(&mut self, worker: &WorkerId) -> usize {
        let mut given_back = Vec::new();
        for (task, holders) in &mut self.taken {
            if holders.remove(worker) && holders.is_empty() {
                given_back.push(*task);
            }
        }
        self.taken.retain(|_, holders| !holders.is_empty());
        self.open.extend(&given_back);
        given_back.len()
    }

    fn is_at(&self, worker: &WorkerId) -> bool {
        self.taken.values().any(|holders| holders.contains(worker))
    }
}

/// The coordinator's side of one build.
#[derive(Clone, Debug)]
pub struct Tasks {
    /// A worker silent for so long is given up.
    lease: Duration,
    workers: BTreeMap<WorkerId, Worker>,
    phases: BTreeMap<String, Phase>,
    /// The phase that was entered last.
    current: String,
    is_over: bool,
}

impl Tasks {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(lease: Duration) -> Self {
        Self {
            lease,
            workers: BTreeMap::new(),
            phases: BTreeMap::new(),
            current: String::new(),
            is_over: false,
        }
    }

    /// The phase that was entered last, its tasks that are done, and all of them.
    #[must_use]
    pub fn progress(&self) -> Option<(&str, u32, u32)> {
        let phase = self.phases.get(&self.current)?;
        Some((&self.current, phase.done(), phase.tasks))
    }

    /// Those who are connected.
    pub fn workers(&self) -> impl ExactSizeIterator<Item = &WorkerId> {
        self.workers.keys()
    }

    /// Takes what happened at `now`; returns what to do, in order.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Command> {
        let mut commands = Vec::new();
        if self.is_over {
            return commands;
        }
        if let Some(worker) = speaker(&event).and_then(|worker| self.workers.get_mut(worker)) {
            worker.last_seen = now;
        }
        match event {
            Event::Joined(worker) => self.joined(now, worker, &mut commands),
            Event::Entered { worker, entry } => self.entered(&worker, entry, &mut commands),
            Event::Done { worker, phase, task } => self.done(&worker, &phase, task, &mut commands),
            // Who was given up says no more how it ends.
            Event::Built { worker, .. } | Event::Fatal { worker, .. }
                if !self.workers.contains_key(&worker) => {}
            Event::Built { summary, .. } => self.end(Outcome::Built(summary), &mut commands),
            Event::Heartbeat(_) => {}
            Event::Left { worker, reason } => self.left(&worker, &reason, &mut commands),
            Event::Fatal { worker, reason } => {
                self.end(Outcome::Failed(format!("{worker}: {reason}")), &mut commands);
            }
            Event::Drain(worker) => self.drain(&worker, &mut commands),
            Event::Cancel => self.end(Outcome::Cancelled, &mut commands),
            Event::Tick => self.tick(now, &mut commands),
        }
        commands
    }

    fn joined(&mut self, now: Instant, worker: WorkerId, commands: &mut Vec<Command>) {
        if let Some(there) = self.workers.get_mut(&worker) {
            // On another stream, before the end of the first was heard of: it will say where it is, and until then gets nothing.
            there.phase.clear();
            there.room = 0;
            return;
        }
        let text = format!("{worker} takes part, with {} others", self.workers.len());
        commands.push(note(NoteKind::Joined, text));
        let there = Worker {
            last_seen: now,
            phase: String::new(),
            room: 0,
            drains: false,
        };
        self.workers.insert(worker, there);
    }

    fn entered(&mut self, worker: &WorkerId, entry: Entry, commands: &mut Vec<Command>) {
        let Some(there) = self.workers.get_mut(worker) else {
            return;
        };
        let Entry {
            phase: name,
            tasks,
            open,
            holds,
            room,
        } = entry;
        there.phase.clone_from(&name);
        there.room = room;
        self.phases.entry(name.clone()).or_insert_with(|| {
            let open: BTreeSet<u32> = open.into_iter().chain(holds.iter().copied()).collect();
            let open: BTreeSet<u32> = open.into_iter().filter(|task| *task < tasks).collect();
            let text = format!("{name}: {} of {tasks} tasks are to be done", open.len());
            commands.push(note(NoteKind::Phase, text));
            Phase {
                tasks,
                open,
                taken: BTreeMap::new(),
            }
        });
        self.current.clone_from(&name);
        // What it does not say that it is at, here or in a phase that it has left, it is not at: a word was lost.
        let phases = self.phases.iter_mut();
        let mut given_back: Vec<String> = phases
            .filter_map(|(of, phase)| (phase.give_back(worker) > 0).then(|| of.clone()))
            .collect();
        given_back.retain(|of| *of != name);
        let phase = self.phases.entry(name.clone()).or_default();
        for task in holds {
            // It may have been given to another one meanwhile: then both do it.
            if phase.open.remove(&task) || phase.taken.contains_key(&task) {
                phase.taken.entry(task).or_default().insert(worker.clone());
            }
        }
        for other in given_back {
            self.assign(&other, commands);
        }
        self.assign(&name, commands);
        if self.phases.get(&name).is_some_and(Phase::is_over) {
            let worker = worker.clone();
            commands.push(Command::Over { worker, phase: name });
        }
    }

    fn done(&mut self, worker: &WorkerId, name: &str, task: u32, commands: &mut Vec<Command>) {
        if let Some(there) = self.workers.get_mut(worker).filter(|there| there.phase == name) {
            there.room += 1;
        }
        let Some(phase) = self.phases.get_mut(name) else {
            return;
        };
        // Whoever did it: its files are there.
        let was_open = phase.open.remove(&task);
        let was_taken = phase.taken.remove(&task).is_some();
        if (was_open || was_taken) && phase.is_over() {
            let waiting = self.workers.iter().filter(|(_, there)| there.phase == name);
            commands.extend(waiting.map(|(worker, _)| Command::Over {
                worker: worker.clone(),
                phase: name.to_owned(),
            }));
        }
        self.assign(name, commands);
        self.dismiss(worker, commands);
    }

    /// Gives open tasks of a phase, in their order, to those who have room, one each in turn.
    fn assign(&mut self, name: &str, commands: &mut Vec<Command>) {
        let Some(phase) = self.phases.get_mut(name) else {
            return;
        };
        let mut waiting: Vec<(&WorkerId, &mut Worker)> = self
            .workers
            .iter_mut()
            .filter(|(_, there)| there.phase == name && !there.drains)
            .collect();
        loop {
            let mut given = false;
            for (worker, there) in waiting.iter_mut().filter(|(_, there)| there.room > 0) {
                let Some(task) = phase.open.pop_first() else {
                    return;
                };
                there.room -= 1;
                given = true;
                phase.taken.entry(task).or_default().insert((*worker).clone());
                commands.push(Command::Give {
                    worker: (*worker).clone(),
                    phase: name.to_owned(),
                    task,
                });
            }
            if !given {
                return;
            }
        }
    }

    fn left(&mut self, worker: &WorkerId, reason: &str, commands: &mut Vec<Command>) {
        if self.workers.remove(worker).is_none() {
            return;
        }
        let names: Vec<String> = self.phases.keys().cloned().collect();
        let given_back: usize = self
            .phases
            .values_mut()
            .map(|phase| phase.give_back(worker))
            .sum();
        let text = format!("{worker} is gone: {reason}; tasks given back: {given_back}");
        commands.push(note(NoteKind::Lost, text));
        for name in names {
            self.assign(&name, commands);
        }
    }

    fn drain(&mut self, worker: &WorkerId, commands: &mut Vec<Command>) {
        if let Some(there) = self.workers.get_mut(worker) {
            there.drains = true;
            self.dismiss(worker, commands);
        }
    }

    /// Sends a worker away that is to leave and is at nothing any more.
    fn dismiss(&mut self, worker: &WorkerId, commands: &mut Vec<Command>) {
        let drains = self.workers.get(worker).is_some_and(|there| there.drains);
        if drains && !self.phases.values().any(|phase| phase.is_at(worker)) {
            self.workers.remove(worker);
            let reason = "its node is drained".to_owned();
            commands.push(note(NoteKind::Drained, format!("{worker} leaves: {reason}")));
            let worker = worker.clone();
            commands.push(Command::Evict { worker, reason });
        }
    }

    fn tick(&mut self, now: Instant, commands: &mut Vec<Command>) {
        let lease = self.lease;
        let silent = |(_, there): &(&WorkerId, &Worker)| now.since(there.last_seen) > lease;
        let silent: Vec<WorkerId> = self
            .workers
            .iter()
            .filter(silent)
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in silent {
            let reason = format!("silent for more than {} s", lease.as_secs_f64());
            self.left(&worker, &reason, commands);
            commands.push(Command::Kill(worker.clone()));
            commands.push(Command::Evict { worker, reason });
        }
    }

    fn end(&mut self, outcome: Outcome, commands: &mut Vec<Command>) {
        self.is_over = true;
        let text = match &outcome {
            Outcome::Built(_) => "the dataset is in its place".to_owned(),
            Outcome::Failed(reason) => format!("failed: {reason}"),
            Outcome::Cancelled => "cancelled".to_owned(),
        };
        commands.push(note(NoteKind::Ended, text));
        commands.push(Command::End(outcome));
    }
}

/// Who says so, if it is a worker.
fn speaker(event: &Event) -> Option<&WorkerId> {
    match event {
        Event::Joined(worker)
        | Event::Heartbeat(worker)
        | Event::Entered { worker, .. }
        | Event::Done { worker, .. }
        | Event::Built { worker, .. }
        | Event::Fatal { worker, .. } => Some(worker),
        Event::Left { .. } | Event::Drain(_) | Event::Cancel | Event::Tick => None,
    }
}

fn note(kind: NoteKind, text: String) -> Command {
    Command::Note { kind, text }
}
