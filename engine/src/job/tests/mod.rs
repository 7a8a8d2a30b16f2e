//! The job's machine, driven event by event; a room a concept, as in the machine.

mod checkpoints;
mod corruption;
mod followers;
mod gathering;
mod guard;
mod members;
mod pace;
mod steps;

use super::*;
use crate::ids::Rank;
use crate::membership::Source;
use crate::time::Instant;

pub(super) fn worker(slot: u32) -> WorkerId {
    life(slot, 1)
}

pub(super) fn life(slot: u32, incarnation: u128) -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot,
        incarnation,
    }
}

pub(super) fn rules() -> Rules {
    Rules {
        steps: Step(50),
        geometry: Geometry {
            microbatches: 4,
            lanes: 4,
            sequences: 2,
        },
        min_workers: 1,
        max_workers: 2,
        spares: 0,
        lease: Duration::from_secs(5),
        gather: Duration::from_secs(2),
        checkpoint_every: 0,
        guard: Guard {
            policy: BadStep::Stop,
            spike_factor: 0.0,
        },
        kills: Vec::new(),
    }
}

/// A job and its clock; every event comes a millisecond after the one before.
pub(super) struct Bench {
    pub(super) job: Job,
    pub(super) now: u64,
    pub(super) notes: Vec<(NoteKind, String)>,
    geometry: Geometry,
}

impl Bench {
    pub(super) fn new(rules: Rules) -> Self {
        Self::after(rules, Epoch(0), Past::default())
    }

    /// A leader that finds this in the store.
    pub(super) fn after(rules: Rules, epoch: Epoch, past: Past) -> Self {
        let (geometry, expected) = (rules.geometry, rules.max_workers);
        let mut bench = Self {
            job: Job::new(rules, epoch, past),
            now: 0,
            notes: Vec::new(),
            geometry,
        };
        assert_eq!(bench.give(Event::Expected(expected)), []);
        bench
    }

    /// The commands but for the notes, which are kept.
    pub(super) fn give(&mut self, event: Event) -> Vec<Command> {
        self.now += 1;
        let mut out = Vec::new();
        for command in self.job.step(Instant(Duration::from_millis(self.now)), event) {
            match command {
                Command::Note { kind, text } => self.notes.push((kind, text)),
                command => out.push(command),
            }
        }
        out
    }

    pub(super) fn said(&self, kind: NoteKind) -> usize {
        self.notes.iter().filter(|note| note.0 == kind).count()
    }

    pub(super) fn join(&mut self, slot: u32) -> Vec<Command> {
        self.join_as(worker(slot), &[], None)
    }

    pub(super) fn join_as(
        &mut self,
        worker: WorkerId,
        checkpoints: &[u64],
        offer: Option<Offer>,
    ) -> Vec<Command> {
        let address = ([127, 0, 0, 1], 9000 + worker.slot as u16).into();
        self.give(Event::Joined {
            worker,
            address,
            checkpoints: checkpoints.iter().copied().map(Step).collect(),
            offer,
        })
    }

    pub(super) fn leave(&mut self, slot: u32) -> Vec<Command> {
        self.give(Event::Left {
            worker: worker(slot),
            reason: "connection closed".into(),
        })
    }

    pub(super) fn hold(&mut self, slot: u32) {
        let epoch = self.job.epoch();
        let worker = worker(slot);
        assert_eq!(self.give(Event::Holding { worker, epoch }), []);
    }

    pub(super) fn follow(&mut self, slot: u32, step: u64) -> Vec<Command> {
        self.give(Event::Following {
            worker: worker(slot),
            step: Step(step),
        })
    }

    /// Members in slots 0 to `count`, all of which hold the seed's state.
    pub(super) fn of(count: u32, rules: Rules) -> Self {
        let mut bench = Self::new(Rules {
            max_workers: count.max(rules.max_workers),
            ..rules
        });
        bench.give(Event::Expected(count));
        (0..count).for_each(|slot| drop(bench.join(slot)));
        bench.now += 3000;
        bench.give(Event::Tick);
        (0..count).for_each(|slot| bench.hold(slot));
        bench
    }

    pub(super) fn reduced(digest: &str) -> Reduced {
        Reduced {
            digest: digest.to_owned(),
            loss: 1.0,
            finite: true,
            weights: Some("w".to_owned()),
        }
    }

    /// As in a step before which weights are not compared.
    pub(super) fn unasked(digest: &str) -> Reduced {
        Reduced {
            weights: None,
            ..Self::reduced(digest)
        }
    }

    pub(super) fn report(&mut self, slot: u32, step: u64, lanes: &[u32], result: Reduced) -> Vec<Command> {
        let epoch = self.job.epoch();
        self.report_in(epoch, slot, step, lanes, result)
    }

    pub(super) fn report_in(
        &mut self,
        epoch: Epoch,
        slot: u32,
        step: u64,
        lanes: &[u32],
        result: Reduced,
    ) -> Vec<Command> {
        let span = |lane: &u32| Span {
            positions: self.geometry.span(Step(step), Lane(*lane)),
            worker: worker(slot),
        };
        let spans = lanes.iter().map(span).collect();
        self.give(Event::Reduced(Report {
            worker: worker(slot),
            epoch,
            step: Step(step),
            result,
            spans,
        }))
    }

    /// All members report `result` of the step in flight, each with the lanes that are its own.
    pub(super) fn all_report(&mut self, result: &Reduced) -> Vec<Command> {
        self.each_reports(|_| result.clone())
    }

    pub(super) fn each_reports(&mut self, result: impl Fn(u32) -> Reduced) -> Vec<Command> {
        let step = self.job.committed().0 + 1;
        let members = self.job.members().to_vec();
        let lanes = self.geometry.lanes as usize;
        let mut out = Vec::new();
        for (rank, member) in members.iter().enumerate() {
            // Who reports which lanes matters only for their sum.
            let (from, to) = (rank * lanes / members.len(), (rank + 1) * lanes / members.len());
            let lanes: Vec<u32> = (from as u32..to as u32).collect();
            out = self.report(member.slot, step, &lanes, result(member.slot));
        }
        out
    }

    /// Commits steps up to this one.
    pub(super) fn run_to(&mut self, step: u64) {
        self.run_with(step, &Self::reduced("d"));
    }

    pub(super) fn run_with(&mut self, step: u64, result: &Reduced) {
        while self.job.committed() < Step(step) {
            let before = self.job.committed();
            self.all_report(result);
            assert!(self.job.committed() > before, "{:?}", self.notes);
        }
    }
}

pub(super) fn announced(commands: &[Command]) -> &Membership {
    let found = commands.iter().find_map(|command| match command {
        Command::Announce(membership) => Some(membership),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no announcement in {commands:?}"))
}

pub(super) fn slots(membership: &Membership) -> Vec<u32> {
    membership.members.iter().map(|m| m.worker.slot).collect()
}

pub(super) fn verdict(commands: &[Command]) -> Verdict {
    let found = commands.iter().find_map(|command| match command {
        Command::Commit { verdict, .. } => Some(*verdict),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no commit in {commands:?}"))
}

pub(super) fn evicted(commands: &[Command]) -> Vec<u32> {
    let slot = |command: &Command| match command {
        Command::Evict { worker, .. } => Some(worker.slot),
        _ => None,
    };
    commands.iter().filter_map(slot).collect()
}

pub(super) fn recorded(commands: &[Command]) -> Vec<&Entry> {
    fn entry(command: &Command) -> Option<&Entry> {
        match command {
            Command::Record(entry) => Some(entry),
            _ => None,
        }
    }
    commands.iter().filter_map(entry).collect()
}

pub(super) fn entry(step: u64, epoch: u64) -> Entry {
    let geometry = rules().geometry;
    let span = |lane| Span {
        positions: geometry.span(Step(step), Lane(lane)),
        worker: worker(0),
    };
    Entry {
        step: Step(step),
        epoch: Epoch(epoch),
        workers: 1,
        digest: "d".into(),
        loss: 1.0,
        spans: (0..geometry.lanes).map(span).collect(),
        milliseconds: 0.0,
        skipped: false,
        unseen_to: None,
    }
}

/// The ledger of so many steps, nothing special about any of them.
pub(super) fn past(steps: u64) -> Past {
    Past::of(&(1..=steps).map(|step| entry(step, 1)).collect::<Vec<_>>())
}
