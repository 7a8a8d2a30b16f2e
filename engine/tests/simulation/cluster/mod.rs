//! A whole cluster in one thread: coordinators, workers, the store, the network, and what goes wrong.

pub(crate) mod coordinator;
pub(crate) mod executor;
pub(crate) mod feed;
pub(crate) mod mishaps;
pub(crate) mod network;
pub(crate) mod store;
pub(crate) mod worker;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::{Epoch, Step, WorkerId};
use lockstep_engine::{job, rank};

use crate::faults::{Blow, Moment};
use crate::invariants::{Watch, promptness};
use crate::plan::{Dice, MS, Plan};
use coordinator::Coordinator;
use feed::Item;
use network::{ConnId, Network, Place, Process};
use store::{Reply, Request, Store};
use worker::Worker;

/// What travels along a connection.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    /// A worker's first word, and any later one.
    ToCoordinator(job::Event),
    /// A sign of life.
    Heartbeat(WorkerId),
    /// The answer to it.
    Alive,
    ToWorker(rank::Event),
    Seal {
        step: Step,
        epoch: Epoch,
        shards: Vec<String>,
    },
    /// The worker's process is to end.
    Leave,
    /// A data connection begins.
    Peer(WorkerId),
    Partials {
        epoch: Epoch,
        step: Step,
        nodes: Vec<(Node, u64)>,
    },
    /// A follower wants the feed; it has the state of this step.
    Feed(Option<Step>),
    Fed(Item),
}

/// What happens at a moment.
#[derive(Clone, Debug)]
pub(crate) enum What {
    Start(Place),
    Fault(usize),
    Wake(Process),
    Deliver {
        conn: ConnId,
        to: usize,
        payload: Payload,
    },
    Closed {
        conn: ConnId,
        to: usize,
    },
    KeepAlive {
        conn: ConnId,
    },
    Asked {
        who: Process,
        request: Request,
    },
    Replied {
        who: Process,
        reply: Reply,
    },
    Timer(Process),
    /// The worker looks for a coordinator.
    Seek(Process),
    TaskDone(Process, u64),
    /// A part of a checkpoint, or a manifest, is on disk.
    Written(Process, executor::Written),
    Undrain(usize),
    Blow(Place, Blow),
    Prompt(promptness::Due),
    Progress,
}

struct Due {
    at: u64,
    order: u64,
    what: What,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

/// How often each thing happened.
pub(crate) type Tally = BTreeMap<&'static str, u64>;

/// Crash or pause in the middle of a list of commands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trap {
    commands: u64,
    /// How long it is paused, or how long it is dead.
    then: Result<u64, u64>,
}

/// What any process has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Life {
    pub(crate) alive: bool,
    pub(crate) life: u32,
    pub(crate) paused_until: u64,
    pub(crate) missed: Vec<What>,
    pub(crate) trap: Option<Trap>,
    /// Its clock: where it begins, and how fast it goes, in parts of ten thousand.
    offset: u64,
    rate: u64,
}

impl Life {
    /// What its clock says.
    pub(crate) fn clock(&self, now: u64) -> u64 {
        self.offset + now / 10_000 * self.rate + now % 10_000 * self.rate / 10_000
    }
}

pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) story: bool,
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    order: u64,
    queue: BinaryHeap<Due>,
    pub(crate) network: Network,
    pub(crate) store: Store,
    pub(crate) coordinators: Vec<Coordinator>,
    pub(crate) workers: Vec<Worker>,
    /// What survives processes: parts of checkpoints, and whole ones.
    pub(crate) shards: BTreeMap<(Step, Epoch, u32), u64>,
    pub(crate) sealed: BTreeMap<Step, u64>,
    pub(crate) quarantined: BTreeSet<usize>,
    /// Faults that wait for a moment.
    pub(crate) awaited: Vec<(Moment, u64, Place, Blow)>,
    pub(crate) watch: Watch,
    pub(crate) tally: Tally,
    pub(crate) failure: Option<String>,
}

impl World {
    /// A cluster in which only the faults named by `only`, if any are, happen.
    pub(crate) fn new(plan: Plan, only: Option<&[usize]>, story: bool) -> Self {
        let mut world = Self {
            dice: Dice::new(plan.seed, 3),
            story,
            now: 0,
            order: 0,
            queue: BinaryHeap::new(),
            network: Network::default(),
            store: Store::default(),
            coordinators: (0..plan.coordinators).map(|_| Coordinator::default()).collect(),
            workers: (0..plan.slots).map(|_| Worker::default()).collect(),
            shards: BTreeMap::new(),
            sealed: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            awaited: Vec::new(),
            watch: Watch::new(&plan),
            tally: Tally::new(),
            failure: None,
            plan,
        };
        for coordinator in 0..world.plan.coordinators {
            let at = world.dice.below(20 * MS);
            world.at(at, What::Start(Place::Coordinator(coordinator)));
        }
        for slot in 0..world.plan.slots {
            world.at(world.plan.starts[slot], What::Start(Place::Worker(slot)));
        }
        for index in 0..world.plan.faults.len() {
            if only.is_none_or(|only| only.contains(&index)) {
                world.at(world.plan.faults[index].at, What::Fault(index));
            }
        }
        world.at(crate::faults::CALM, What::Progress);
        world
    }

    pub(crate) fn at(&mut self, at: u64, what: What) {
        self.order += 1;
        self.queue.push(Due {
            at: at.max(self.now),
            order: self.order,
            what,
        });
    }

    pub(crate) fn tell(&self, text: impl FnOnce() -> String) {
        if self.story {
            println!("{:>9.3} ms  {}", self.now as f64 / 1e3, text());
        }
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.tally.entry(what).or_default() += 1;
    }

    /// An invariant does not hold.
    pub(crate) fn violated(&mut self, text: impl Into<String>) {
        let text = text.into();
        self.tell(|| format!("VIOLATED: {text}"));
        self.failure.get_or_insert(text);
    }

    /// Runs until the job is over or an invariant does not hold.
    pub(crate) fn run(&mut self) {
        while self.failure.is_none() && !self.is_over() {
            let Some(Due { at, what, .. }) = self.queue.pop() else {
                self.violated("nothing happens any more");
                return;
            };
            self.now = at;
            self.happen(what);
        }
        if self.failure.is_none() {
            self.check_end();
        }
    }

    fn is_over(&self) -> bool {
        // With too many slots in quarantine nothing can go on.
        let left = self.plan.slots - self.quarantined.len();
        self.store.outcome.is_some() || left < self.plan.rules.min_workers as usize
    }

    pub(crate) fn life_of(&mut self, place: Place) -> Option<&mut Life> {
        match place {
            Place::Coordinator(index) => Some(&mut self.coordinators[index].life),
            Place::Worker(slot) => Some(&mut self.workers[slot].life),
            Place::Store => None,
        }
    }

    /// The life that the process of a place is in, unless it is dead.
    pub(crate) fn life(&mut self, place: Place) -> Option<u32> {
        let life = self.life_of(place)?;
        life.alive.then_some(life.life)
    }

    fn happen(&mut self, what: What) {
        let whom = match &what {
            What::Deliver { conn, to, .. } | What::Closed { conn, to } => {
                Some(self.network.conns[*conn].ends[*to])
            }
            What::Replied { who, .. }
            | What::Timer(who)
            | What::Seek(who)
            | What::TaskDone(who, _)
            | What::Written(who, _) => Some(*who),
            _ => None,
        };
        if let Some(Process { place, life }) = whom {
            if self.life(place) != Some(life) {
                return;
            }
            let now = self.now;
            if let Some(life) = self.life_of(place)
                && now < life.paused_until
            {
                life.missed.push(what);
                return;
            }
        }
        match what {
            What::Start(place) => self.start(place),
            What::Fault(index) => self.fault(index),
            What::Wake(process) => self.wake(process),
            What::Deliver { conn, to, payload } if self.arrives(conn, to) => {
                match self.network.conns[conn].ends[to].place {
                    Place::Coordinator(index) => self.coordinator_hears(index, conn, payload),
                    Place::Worker(slot) => self.worker_hears(slot, conn, payload),
                    Place::Store => {}
                }
            }
            What::Deliver { .. } => {}
            What::Closed { conn, to } => {
                if std::mem::replace(&mut self.network.conns[conn].open[to], false) {
                    match self.network.conns[conn].ends[to].place {
                        Place::Coordinator(index) => self.session_closed(index, conn),
                        Place::Worker(slot) => self.worker_conn_closed(slot, conn),
                        Place::Store => {}
                    }
                }
            }
            What::KeepAlive { conn } => self.keep_alive(conn),
            What::Asked { who, request } => self.asked(who, request),
            What::Replied { who, reply } => self.replied(who, reply),
            What::Timer(Process { place, .. }) => match place {
                Place::Coordinator(index) => self.coordinator_timer(index),
                Place::Worker(slot) => self.worker_timer(slot),
                Place::Store => {}
            },
            What::Seek(Process { place, .. }) => {
                if let Place::Worker(slot) = place {
                    self.seek(slot);
                }
            }
            What::TaskDone(Process { place, .. }, id) => {
                if let Place::Worker(slot) = place {
                    self.task_done(slot, id);
                }
            }
            What::Written(Process { place, .. }, written) => {
                if let Place::Worker(slot) = place {
                    self.written(slot, written);
                }
            }
            What::Undrain(slot) => self.undrain(slot),
            What::Blow(victim, blow) => self.strike(victim, blow),
            What::Prompt(due) => self.check_prompt(&due),
            What::Progress => self.check_progress(),
        }
    }
}
