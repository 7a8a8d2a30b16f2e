//! The faults, drawn up front, so that each can be left out when a failing seed is shrunk.

use lockstep_engine::job::NoteKind;
use lockstep_engine::rank::Task;

use crate::cluster::network::Place;
use crate::plan::{Dice, MS};

/// Faults begin before this moment; those that last are over soon after.
pub(crate) const CALM: u64 = 1500 * MS;

/// Something goes wrong.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    pub(crate) at: u64,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// The process dies, and comes back.
    Crash { place: Place, back: u64 },
    /// It dies in the middle of what it does: after so many commands more.
    CrashWithin { place: Place, commands: u64, back: u64 },
    /// All workers die at once.
    CrashWorkers { back: u64 },
    /// Every process dies at once.
    CrashAll { back: u64 },
    /// SIGSTOP, and SIGCONT.
    Pause { place: Place, lasts: u64 },
    /// The same in the middle of what it does.
    PauseWithin { place: Place, commands: u64, lasts: u64 },
    /// Nothing passes from one place to another.
    Cut {
        from: Place,
        to: Place,
        both: bool,
        lasts: u64,
    },
    /// Nothing passes from and to a place.
    Isolate { place: Place, lasts: u64 },
    /// Their connections break.
    Break { a: Place, b: Place },
    /// The store does not answer.
    StoreDown { lasts: u64 },
    /// The store takes its time.
    StoreSlow { lasts: u64 },
    /// The worker computes slowly.
    Slow { slot: usize, factor: u64, lasts: u64 },
    /// The worker's copy of the next gradient is wrong.
    WrongGradient { slot: usize },
    /// A partial of the worker's goes wrong in its memory after it was sent.
    WrongPartial { slot: usize },
    /// The worker's weights are wrong after the next step.
    WrongWeights { slot: usize },
    /// The next time that this moment comes, and a little later, something befalls a process.
    When {
        moment: Moment,
        after: u64,
        victim: Place,
        then: Blow,
    },
    /// A message from the past comes again.
    Stale { place: Place, which: u64 },
    /// The worker's node is wanted for something else for a while.
    Drain { slot: usize, lasts: u64 },
    /// The worker cannot write.
    DiskFull { slot: usize, lasts: u64 },
}

/// What a fault may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// A leader says something of this kind.
    Note(NoteKind),
    /// The worker in this slot begins to do this.
    Enter(usize),
    Acquire(usize),
    Follow(usize),
    Skip(usize),
    Compute(usize),
    Reduce(usize),
    Apply(usize),
    Snapshot(usize),
    Seal(usize),
    Finish(usize),
}

impl Moment {
    pub(crate) fn of(task: &Task, slot: usize) -> Self {
        match task {
            Task::Enter { .. } => Self::Enter(slot),
            Task::Acquire { .. } => Self::Acquire(slot),
            Task::Follow { .. } => Self::Follow(slot),
            Task::Skip { .. } => Self::Skip(slot),
            Task::Compute { .. } => Self::Compute(slot),
            Task::Reduce { .. } => Self::Reduce(slot),
            Task::Apply { .. } => Self::Apply(slot),
            Task::Snapshot(_) => Self::Snapshot(slot),
            Task::Finish { .. } => Self::Finish(slot),
        }
    }
}

/// What befalls a process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Blow {
    Crash { back: u64 },
    Pause { lasts: u64 },
    Isolate { lasts: u64 },
}

impl Kind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Crash {
                place: Place::Worker(_),
                ..
            } => "worker crash",
            Self::Crash { .. } => "coordinator crash",
            Self::CrashWithin {
                place: Place::Worker(_),
                ..
            } => "worker crash between two commands",
            Self::CrashWithin { .. } => "coordinator crash between two commands",
            Self::CrashWorkers { .. } => "crash of all workers",
            Self::CrashAll { .. } => "crash of all",
            Self::Pause {
                place: Place::Worker(_),
                ..
            } => "worker pause",
            Self::Pause { .. } => "coordinator pause",
            Self::PauseWithin {
                place: Place::Worker(_),
                ..
            } => "worker pause between two commands",
            Self::PauseWithin { .. } => "coordinator pause between two commands",
            Self::Cut { both: true, .. } => "two-way cut",
            Self::Cut { .. } => "one-way cut",
            Self::Isolate { .. } => "isolation",
            Self::Break { .. } => "broken connection",
            Self::StoreDown { .. } => "store down",
            Self::StoreSlow { .. } => "store slow",
            Self::Slow { .. } => "slow worker",
            Self::WrongGradient { .. } => "wrong gradient",
            Self::WrongPartial { .. } => "wrong partial",
            Self::When {
                moment: Moment::Note(_),
                ..
            } => "blow at a decision",
            Self::When { .. } => "blow at a task",
            Self::WrongWeights { .. } => "wrong weights",
            Self::Stale { .. } => "stale message",
            Self::Drain { .. } => "drain",
            Self::DiskFull { .. } => "full disk",
        }
    }
}

pub(crate) fn draw(dice: &mut Dice, coordinators: usize, slots: usize, calm: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = 20 * MS;
    let gap = [60, 150, 400][dice.below(3) as usize] * MS;
    let weights = dice.chance(50);
    loop {
        at += dice.below(2 * gap);
        if at >= CALM {
            return faults;
        }
        let kind = if calm {
            quiet_kind(dice, slots, weights)
        } else {
            any_kind(dice, coordinators, slots)
        };
        faults.push(Fault { at, kind });
    }
}

/// Wrong memory. Nothing tells a lone wrong copy from a right one, so no other faults disturb those that could.
fn quiet_kind(dice: &mut Dice, slots: usize, weights: bool) -> Kind {
    let slot = dice.below(slots as u64) as usize;
    let lasts = dice.below(600 * MS);
    match dice.below(3) {
        0 if weights => Kind::WrongWeights { slot },
        0 => Kind::WrongPartial { slot },
        1 if weights => Kind::WrongGradient { slot },
        1 => Kind::DiskFull { slot, lasts },
        _ => Kind::Stale {
            place: Place::Worker(slot),
            which: dice.next(),
        },
    }
}

fn when(dice: &mut Dice, coordinators: usize, slots: usize) -> Kind {
    let mut slot = || dice.below(slots as u64) as usize;
    let (actor, other) = (slot(), slot());
    let coordinator = Place::Coordinator(dice.below(coordinators as u64) as usize);
    let moment = match dice.below(20) {
        0..4 => Moment::Note(NoteKind::BadStep),
        4 => Moment::Note(NoteKind::Epoch),
        5 => Moment::Note(NoteKind::Paused),
        6 => Moment::Note(NoteKind::Checkpoint),
        7 => Moment::Note(NoteKind::Recovered),
        8 => Moment::Note(NoteKind::Corruption),
        9 => Moment::Note(NoteKind::Ended),
        10 => Moment::Enter(actor),
        11 => Moment::Acquire(actor),
        12 => Moment::Follow(actor),
        13 => Moment::Skip(actor),
        14 => Moment::Compute(actor),
        15 => Moment::Reduce(actor),
        16 => Moment::Apply(actor),
        17 => Moment::Snapshot(actor),
        18 => Moment::Seal(actor),
        _ => Moment::Finish(actor),
    };
    let victim = match (dice.below(4), moment) {
        (0, _) => coordinator,
        (1, _) => Place::Worker(other),
        (_, Moment::Note(_)) => coordinator,
        _ => Place::Worker(actor),
    };
    let longest = [1, 4 * MS, 20 * MS][dice.below(3) as usize];
    let after = dice.below(longest);
    let lasts = dice.below(900 * MS);
    let then = match dice.below(4) {
        0 => Blow::Pause { lasts },
        1 => Blow::Isolate { lasts },
        _ => Blow::Crash {
            back: dice.below(300 * MS),
        },
    };
    Kind::When {
        moment,
        after,
        victim,
        then,
    }
}

fn any_kind(dice: &mut Dice, coordinators: usize, slots: usize) -> Kind {
    let slot = dice.below(slots as u64) as usize;
    let other = dice.below(slots as u64) as usize;
    let worker = Place::Worker(slot);
    let coordinator = Place::Coordinator(dice.below(coordinators as u64) as usize);
    let any = if dice.chance(30) { coordinator } else { worker };
    let lasts = dice.below(900 * MS);
    let back = dice.below(300 * MS);
    let commands = 1 + dice.below(25);
    match dice.below(100) {
        0..4 => when(dice, coordinators, slots),
        4..15 => Kind::Crash { place: worker, back },
        15..19 => Kind::Crash {
            place: coordinator,
            back,
        },
        19..25 => Kind::CrashWithin {
            place: worker,
            commands,
            back,
        },
        25..31 => Kind::CrashWithin {
            place: coordinator,
            commands,
            back,
        },
        31..34 => Kind::CrashWorkers { back },
        34..36 => Kind::CrashAll { back },
        36..40 => Kind::Pause { place: worker, lasts },
        40..44 => Kind::Pause {
            place: coordinator,
            lasts,
        },
        44..46 => Kind::PauseWithin {
            place: worker,
            commands,
            lasts,
        },
        46..50 => Kind::PauseWithin {
            place: coordinator,
            commands,
            lasts,
        },
        50..56 => {
            let ends = match dice.below(4) {
                0 => (coordinator, Place::Store),
                1 => (coordinator, worker),
                2 => (worker, coordinator),
                _ => (worker, Place::Worker(other)),
            };
            Kind::Cut {
                from: ends.0,
                to: ends.1,
                both: dice.chance(50),
                lasts,
            }
        }
        56..60 => Kind::Isolate { place: any, lasts },
        60..66 => Kind::Break {
            a: worker,
            b: if dice.chance(50) {
                coordinator
            } else {
                Place::Worker(other)
            },
        },
        66..69 => Kind::StoreDown { lasts },
        69..71 => Kind::StoreSlow { lasts },
        71..77 => Kind::Slow {
            slot,
            factor: 2 + dice.below(20),
            lasts,
        },
        77..81 => Kind::WrongGradient { slot },
        81..86 => when(dice, coordinators, slots),
        86..94 => Kind::Stale {
            place: any,
            which: dice.next(),
        },
        94..97 => Kind::Drain { slot, lasts },
        _ => Kind::DiskFull { slot, lasts },
    }
}
