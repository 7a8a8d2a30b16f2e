//! What a seed stands for: the job, the machines, and the faults.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_engine::geometry::Geometry;
use lockstep_engine::ids::Step;
use lockstep_engine::job::{BadStep, Guard, Kill, Rules};

use crate::faults::{self, Fault};

/// Times are in microseconds.
pub(crate) const MS: u64 = 1000;

/// Random numbers of one purpose (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, purpose: u64) -> Self {
        Self(crate::reference::mix(&[seed, purpose]))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `bound`, which is at least 1.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// How a step's data do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// The loss is no number.
    Loss,
    /// The gradient is not finite.
    Gradient,
    /// The loss is far too large.
    Spike,
}

/// Everything that is fixed before the run begins.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) rules: Rules,
    pub(crate) coordinators: usize,
    pub(crate) slots: usize,
    /// When each slot's first process starts.
    pub(crate) starts: Vec<u64>,
    pub(crate) bad: BTreeMap<Step, Bad>,
    /// Members compare their weights every so many steps.
    pub(crate) compare_every: u64,
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed, 1);
        let lanes = 1u32 << dice.below(4);
        let min_workers = 1 + dice.below(2) as u32;
        let max_workers = (min_workers + dice.below(4) as u32).min(lanes.max(min_workers));
        let steps = Step(5 + dice.below(20));
        // Nothing tells a lone wrong copy from a right one, so weights go wrong only where nobody dies.
        let calm = dice.chance(10) && max_workers > 1;
        let kills = if calm { 0 } else { dice.below(8).saturating_sub(5) };
        let policy = [
            BadStep::Stop,
            BadStep::Skip,
            BadStep::Skip,
            BadStep::Rollback,
            BadStep::Rollback,
        ][dice.below(5) as usize];
        // What happens around going back is rare, and is sought.
        let goes_back = !calm && dice.chance(10);
        let policy = if goes_back { BadStep::Rollback } else { policy };
        let mut bad = BTreeMap::new();
        if goes_back {
            bad.insert(Step(9 + dice.below(3)), Bad::Spike);
        } else if dice.chance(40) {
            for _ in 0..1 + dice.below(3) {
                let kind = [Bad::Loss, Bad::Gradient, Bad::Spike][dice.below(3) as usize];
                bad.insert(Step(1 + dice.below(steps.0)), kind);
            }
        }
        let rules = Rules {
            steps,
            geometry: Geometry {
                microbatches: lanes * (1 + dice.below(3) as u32),
                lanes,
                sequences: 2,
            },
            min_workers,
            max_workers,
            spares: dice.below(2) as u32,
            lease: Duration::from_millis(600),
            gather: Duration::from_millis(200),
            checkpoint_every: if goes_back && dice.chance(50) {
                0
            } else {
                dice.below(5)
            },
            guard: Guard {
                policy,
                spike_factor: if goes_back {
                    3.0
                } else {
                    [0.0, 3.0][dice.below(2) as usize]
                },
            },
            kills: (0..kills)
                .map(|slot| Kill {
                    slot: slot as u32,
                    step: Step(2 + dice.below(6)),
                })
                .collect(),
        };
        let slots = (max_workers as u64 + dice.below(3)) as usize;
        // Some come late: the job grows.
        let starts = (0..slots)
            .map(|_| {
                if dice.chance(25) {
                    dice.below(900 * MS)
                } else {
                    dice.below(100 * MS)
                }
            })
            .collect();
        let coordinators = [1, 2, 3, 3][dice.below(4) as usize];
        let mut faults = faults::draw(&mut Dice::new(seed, 2), coordinators, slots, calm);
        if goes_back {
            faults.extend(faults::when_it_goes_back(
                &mut Dice::new(seed, 4),
                coordinators,
                slots,
            ));
        }
        Self {
            seed,
            coordinators,
            slots,
            starts,
            bad,
            compare_every: if calm { 1 + dice.below(4) } else { dice.below(4) },
            faults,
            rules,
        }
    }
}
