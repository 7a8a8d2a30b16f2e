//! The last checkpoint, which the end of the job waits for.

use super::*;
use crate::geometry::Geometry;
use crate::job::{BadStep, Event, Guard, Outcome, Past, Report, Rules};
use crate::ledger::Span;
use crate::membership::Membership;
use crate::rank::Reduced;

fn worker() -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot: 0,
        incarnation: 1,
    }
}

/// A job of one step and one worker, and its clock.
struct Bench {
    job: Job,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let rules = Rules {
            steps: Step(1),
            geometry: Geometry {
                microbatches: 1,
                lanes: 1,
                sequences: 1,
            },
            min_workers: 1,
            max_workers: 1,
            spares: 0,
            lease: Duration::from_secs(60),
            gather: Duration::ZERO,
            checkpoint_every: 0,
            guard: Guard {
                policy: BadStep::Stop,
                spike_factor: 0.0,
            },
            kills: Vec::new(),
        };
        let job = Job::new(rules, Epoch(0), Past::default());
        let now = Duration::ZERO;
        Self { job, now }
    }

    fn give(&mut self, event: Event) -> Vec<Command> {
        self.job.step(Instant(self.now), event)
    }

    fn tick_after(&mut self, pause: Duration) -> Vec<Command> {
        self.now += pause;
        self.give(Event::Tick)
    }

    fn fail(&mut self) -> Vec<Command> {
        self.give(Event::CheckpointFailed {
            worker: worker(),
            step: Step(1),
            reason: "no space left".into(),
        })
    }

    /// The worker writes its part and seals, in the epoch that there is.
    fn write(&mut self) -> Vec<Command> {
        let epoch = self.job.epoch();
        let snapshot = Snapshot {
            step: Step(1),
            epoch,
            shard: 0,
            of: 1,
        };
        self.give(Event::ShardWritten {
            worker: worker(),
            snapshot,
            record: "part".into(),
        });
        self.give(Event::Finished {
            worker: worker(),
            epoch,
            weights: "w".into(),
        });
        self.give(Event::CheckpointWritten {
            worker: worker(),
            step: Step(1),
            weights: "w".into(),
        })
    }
}

fn announced(commands: &[Command]) -> Option<&Membership> {
    commands.iter().find_map(|command| match command {
        Command::Announce(membership) => Some(membership),
        _ => None,
    })
}

#[test]
fn the_last_checkpoint_is_tried_in_one_epoch_after_another_until_it_is_written() {
    let mut bench = Bench::new();
    bench.give(Event::Expected(1));
    let began = bench.give(Event::Joined {
        worker: worker(),
        address: ([127, 0, 0, 1], 9).into(),
        checkpoints: Vec::new(),
        offer: None,
    });
    assert!(announced(&began).is_some(), "{began:?}");
    let epoch = bench.job.epoch();
    bench.give(Event::Holding {
        worker: worker(),
        epoch,
    });
    bench.give(Event::Reduced(Report {
        worker: worker(),
        epoch,
        step: Step(1),
        result: Reduced {
            digest: "d".into(),
            loss: 1.0,
            finite: true,
            weights: None,
        },
        spans: vec![Span {
            positions: 0..1,
            worker: worker(),
        }],
    }));
    assert_eq!(bench.job.phase(), &Phase::Finishing);
    assert_eq!(bench.job.last_checkpoint_problem(), None);

    for round in 0..3 {
        let epoch = bench.job.epoch();
        bench.fail();
        assert_eq!(bench.job.phase(), &Phase::Finishing, "round {round}");
        let problem = bench.job.last_checkpoint_problem();
        assert!(
            problem.is_some_and(|text| text.contains("no space left")),
            "{problem:?}"
        );
        // A failure that comes twice is no reason to wait longer, nor is it tried at once.
        assert_eq!(bench.fail(), []);
        assert_eq!(bench.tick_after(RETRY - Duration::from_millis(1)), []);
        let again = bench.tick_after(Duration::from_millis(1));
        let membership = announced(&again).unwrap();
        assert_eq!((membership.epoch, membership.snapshot), (epoch.next(), true));
        assert_eq!(bench.tick_after(RETRY), [], "while it is under way");
    }
    let end = bench.write();
    let done = Outcome::Done { weights: "w".into() };
    assert_eq!(bench.job.phase(), &Phase::Ended(done), "{end:?}");
    assert_eq!(bench.job.last_checkpoint_problem(), None);
}
