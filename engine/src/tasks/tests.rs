//! The machine against a small world: workers that walk through phases, die, are cut off, and come to another leader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::time::Instant;

const PHASES: [(&str, u32); 3] = [("read", 7), ("join", 1), ("write", 4)];
const LEASE: Duration = Duration::from_secs(10);

fn worker(slot: u32) -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot,
        incarnation: 1,
    }
}

/// A process that walks through the phases.
#[derive(Default)]
struct Walker {
    phase: usize,
    threads: u32,
    /// What it saw open when it came to the phase.
    open: Vec<u32>,
    holds: BTreeSet<u32>,
    up: VecDeque<Event>,
    down: VecDeque<Command>,
    /// The coordinator has this stream, and not another one that broke.
    is_connected: bool,
}

struct World {
    machine: Tasks,
    now: Instant,
    walkers: BTreeMap<WorkerId, Walker>,
    /// Done tasks of each phase, as the shared folder shows them.
    folder: Vec<BTreeSet<u32>>,
    next: u32,
    outcome: Option<Outcome>,
    /// Whether a worker was cut off: it may then be at a task that another one was given.
    was_cut: bool,
}

impl World {
    fn new() -> Self {
        Self {
            machine: Tasks::new(LEASE),
            now: Instant::default(),
            walkers: BTreeMap::new(),
            folder: vec![BTreeSet::new(); PHASES.len()],
            next: 0,
            outcome: None,
            was_cut: false,
        }
    }

    fn give(&mut self, event: Event) {
        for command in self.machine.step(self.now, event) {
            match command {
                Command::Give { ref worker, .. }
                | Command::Over { ref worker, .. }
                | Command::Evict { ref worker, .. } => {
                    if let Command::Give { task, ref phase, .. } = command {
                        self.check_alone(task, phase);
                    }
                    let worker = worker.clone();
                    if let Some(walker) = self.walkers.get_mut(&worker).filter(|walker| walker.is_connected) {
                        walker.down.push_back(command);
                    }
                }
                Command::End(outcome) => self.outcome = Some(outcome),
                Command::Kill(_) | Command::Note { .. } => {}
            }
        }
    }

    /// Nobody who is alive is at it, or about to be.
    fn check_alone(&self, task: u32, phase: &str) {
        let at_it = |walker: &Walker| {
            let is_told = |command: &Command| matches!(command, Command::Give { phase: of, task: told, .. } if of == phase && *told == task);
            PHASES.get(walker.phase).is_some_and(|(name, _)| *name == phase) && walker.holds.contains(&task)
                || walker.down.iter().any(is_told)
        };
        let others = self.walkers.values().filter(|walker| at_it(walker)).count();
        assert!(
            self.was_cut || others == 0,
            "task {task} of {phase} is given twice"
        );
    }

    fn start(&mut self) {
        let name = worker(self.next);
        let threads = 1 + self.next % 3;
        self.next += 1;
        let mut walker = Walker {
            threads,
            ..Walker::default()
        };
        walker.up.push_back(Event::Joined(name.clone()));
        self.walkers.insert(name.clone(), walker);
        self.enter(&name, 0);
    }

    /// Comes to the first phase from `phase` on in which something is to be done.
    fn enter(&mut self, name: &WorkerId, mut phase: usize) {
        let open = loop {
            let Some((_, tasks)) = PHASES.get(phase) else {
                break Vec::new();
            };
            let open: Vec<u32> = (0..*tasks)
                .filter(|task| !self.folder[phase].contains(task))
                .collect();
            if !open.is_empty() {
                break open;
            }
            phase += 1;
        };
        let walker = self.walkers.get_mut(name).unwrap();
        (walker.phase, walker.open) = (phase, open);
        let word = Self::where_it_is(name, walker);
        walker.up.push_back(word);
    }

    fn where_it_is(name: &WorkerId, walker: &Walker) -> Event {
        let worker = name.clone();
        match PHASES.get(walker.phase) {
            None => Event::Built {
                worker,
                summary: "built".to_owned(),
            },
            Some((phase, tasks)) => Event::Entered {
                worker,
                entry: Entry {
                    phase: (*phase).to_owned(),
                    tasks: *tasks,
                    open: walker.open.clone(),
                    holds: walker.holds.iter().copied().collect(),
                    room: walker.threads - walker.holds.len() as u32,
                },
            },
        }
    }

    /// Says again, on a new stream, where each of these is.
    fn reconnect(&mut self, names: &[WorkerId]) {
        for name in names {
            let walker = self.walkers.get_mut(name).unwrap();
            walker.down.clear();
            walker.is_connected = false;
            let words = [Event::Joined(name.clone()), Self::where_it_is(name, walker)];
            walker.up = words.into();
        }
    }

    fn nth(&self, number: usize) -> Option<WorkerId> {
        let names: Vec<&WorkerId> = self.walkers.keys().collect();
        (!names.is_empty()).then(|| names[number % names.len()].clone())
    }

    /// One message further, up or down, or one task done.
    fn go_on(&mut self, name: &WorkerId, which: usize) -> bool {
        let walker = self.walkers.get_mut(name).unwrap();
        match which % 3 {
            0 => {
                let Some(event) = walker.up.pop_front() else {
                    return false;
                };
                walker.is_connected |= matches!(event, Event::Joined(_));
                self.give(event);
            }
            1 => {
                let Some(command) = walker.down.pop_front() else {
                    return false;
                };
                let here = PHASES.get(walker.phase).map_or("", |(phase, _)| *phase);
                match command {
                    Command::Give { phase, task, .. } if phase == here => {
                        assert!(
                            (walker.holds.len() as u32) < walker.threads,
                            "more than it has room for"
                        );
                        walker.holds.insert(task);
                    }
                    Command::Over { phase, .. } if phase == here => {
                        let at = walker.phase;
                        walker.holds.clear();
                        assert_eq!(
                            self.folder[at].len() as u32,
                            PHASES[at].1,
                            "{phase} is over too early"
                        );
                        self.enter(name, at + 1);
                    }
                    Command::Evict { .. } => {
                        self.walkers.remove(name);
                        let (worker, reason) = (name.clone(), "it ended".to_owned());
                        self.give(Event::Left { worker, reason });
                    }
                    _ => {}
                }
            }
            _ => {
                let Some(task) = walker.holds.pop_first() else {
                    return false;
                };
                self.folder[walker.phase].insert(task);
                walker.up.push_back(Event::Done {
                    worker: name.clone(),
                    phase: PHASES[walker.phase].0.to_owned(),
                    task,
                });
            }
        }
        true
    }

    /// Until nothing moves any more.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            let names: Vec<WorkerId> = self.walkers.keys().cloned().collect();
            let mut moved = false;
            for name in names {
                for which in 0..3 {
                    moved |= self.walkers.contains_key(&name) && self.go_on(&name, which);
                }
            }
            if !moved {
                return;
            }
        }
        panic!("it never comes to rest");
    }
}

#[derive(Clone, Debug)]
enum Act {
    Start,
    GoOn(usize, usize),
    /// Its process dies.
    Die(usize),
    /// Its stream breaks, and it comes back.
    Cut(usize),
    /// It opens another stream, of which the coordinator hears before the end of the one that broke.
    Reopen(usize),
    /// Another coordinator leads, which knows nothing.
    NewLeader,
    Drain(usize),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        2 => Just(Act::Start),
        40 => (any::<usize>(), any::<usize>()).prop_map(|(who, which)| Act::GoOn(who, which)),
        1 => any::<usize>().prop_map(Act::Die),
        1 => any::<usize>().prop_map(Act::Cut),
        1 => any::<usize>().prop_map(Act::Reopen),
        1 => Just(Act::NewLeader),
        1 => any::<usize>().prop_map(Act::Drain),
    ];
    prop::collection::vec(act, 0..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whoever_dies_each_task_is_done_and_nobody_waits_for_ever(acts in acts()) {
        let mut world = World::new();
        for act in acts {
            match act {
                Act::Start if world.walkers.len() < 4 => world.start(),
                Act::Start => {}
                Act::GoOn(who, which) => {
                    if let Some(name) = world.nth(who) {
                        world.go_on(&name, which);
                    }
                }
                Act::Die(who) => {
                    if let Some(worker) = world.nth(who) {
                        world.walkers.remove(&worker);
                        world.give(Event::Left { worker, reason: "it died".to_owned() });
                    }
                }
                Act::Cut(who) => {
                    if let Some(worker) = world.nth(who) {
                        world.was_cut = true;
                        world.give(Event::Left { worker: worker.clone(), reason: "cut".to_owned() });
                        world.reconnect(&[worker]);
                    }
                }
                Act::Reopen(who) => {
                    if let Some(worker) = world.nth(who) {
                        world.was_cut = true;
                        world.reconnect(&[worker]);
                    }
                }
                Act::NewLeader => {
                    world.was_cut = true;
                    if world.outcome.is_none() {
                        world.machine = Tasks::new(LEASE);
                    }
                    let names: Vec<WorkerId> = world.walkers.keys().cloned().collect();
                    world.reconnect(&names);
                }
                Act::Drain(who) => {
                    if let Some(worker) = world.nth(who) {
                        world.give(Event::Drain(worker));
                    }
                }
            }
        }
        world.start();
        world.settle();
        prop_assert_eq!(world.outcome, Some(Outcome::Built("built".to_owned())));
        for ((_, tasks), done) in PHASES.iter().zip(&world.folder) {
            prop_assert_eq!(done.len() as u32, *tasks);
        }
    }
}

#[test]
fn who_is_silent_loses_its_tasks_to_the_others() {
    let mut world = World::new();
    (0..2).for_each(|_| world.start());
    let [silent, other] = [worker(0), worker(1)];
    for name in [&silent, &other] {
        (0..2).for_each(|_| assert!(world.go_on(name, 0)));
    }
    world.now = Instant(LEASE);
    world.give(Event::Heartbeat(other.clone()));
    world.give(Event::Tick);
    assert_eq!(world.machine.workers().len(), 2, "not yet");
    world.now = Instant(LEASE + Duration::from_millis(1));
    let commands = world.machine.step(world.now, Event::Tick);
    assert!(commands.contains(&Command::Kill(silent.clone())), "{commands:?}");
    assert_eq!(world.machine.workers().collect::<Vec<_>>(), [&other]);
    world.walkers.remove(&silent);
    world.settle();
    assert!(matches!(world.outcome, Some(Outcome::Built(_))));
}

#[test]
fn a_reason_that_others_would_meet_ends_the_build() {
    let mut machine = Tasks::new(LEASE);
    machine.step(Instant::default(), Event::Joined(worker(0)));
    let fatal = Event::Fatal {
        worker: worker(0),
        reason: "no source".to_owned(),
    };
    let commands = machine.step(Instant::default(), fatal);
    let failed = Outcome::Failed(format!("{}: no source", worker(0)));
    assert_eq!(commands.last(), Some(&Command::End(failed)));
    assert_eq!(machine.step(Instant::default(), Event::Cancel), [], "it is over");

    // Of one that was given up, nothing of that counts.
    let mut machine = Tasks::new(LEASE);
    let summary = "built".to_owned();
    machine.step(Instant::default(), Event::Joined(worker(0)));
    let reason = "it was silent".to_owned();
    machine.step(
        Instant::default(),
        Event::Left {
            worker: worker(0),
            reason: reason.clone(),
        },
    );
    for late in [
        Event::Fatal {
            worker: worker(0),
            reason,
        },
        Event::Built {
            worker: worker(0),
            summary,
        },
    ] {
        assert_eq!(machine.step(Instant::default(), late), []);
    }
}
