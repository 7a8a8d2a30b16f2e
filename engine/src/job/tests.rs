use super::*;
use crate::ids::{Lane, Rank};
use crate::membership::Source;
use crate::time::Instant;

fn worker(slot: u32) -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot,
        incarnation: 1,
    }
}

fn rules() -> Rules {
    Rules {
        steps: Step(3),
        geometry: Geometry {
            microbatches: 4,
            lanes: 4,
            sequences: 2,
        },
        min_workers: 1,
        max_workers: 2,
        lease: Duration::from_secs(5),
        gather: Duration::from_secs(2),
        kills: Vec::new(),
    }
}

/// A job and its clock; every event comes a millisecond after the one before.
struct Bench {
    job: Job,
    now: u64,
}

impl Bench {
    fn new(rules: Rules) -> Self {
        let mut bench = Self {
            job: Job::new(rules, Epoch(0), Step(0)),
            now: 0,
        };
        assert_eq!(bench.give(Event::Expected(2)), []);
        bench
    }

    fn give(&mut self, event: Event) -> Vec<Command> {
        self.now += 1;
        let out = self.job.step(Instant(Duration::from_millis(self.now)), event);
        out.into_iter()
            .filter(|command| !matches!(command, Command::Note { .. }))
            .collect()
    }

    fn join(&mut self, slot: u32) -> Vec<Command> {
        let address = ([127, 0, 0, 1], 9000 + slot as u16).into();
        self.give(Event::Joined {
            worker: worker(slot),
            address,
            checkpoints: Vec::new(),
        })
    }

    /// Two members, both holding the seed's state.
    fn pair(rules: Rules) -> Self {
        let mut bench = Self::new(rules);
        bench.join(0);
        bench.join(1);
        for slot in [0, 1] {
            assert_eq!(
                bench.give(Event::Holding {
                    worker: worker(slot),
                    epoch: Epoch(1)
                }),
                []
            );
        }
        bench
    }

    fn report(&mut self, slot: u32, step: u64, lanes: &[u32], digest: &str) -> Vec<Command> {
        let epoch = self.job.epoch();
        self.report_in(epoch, slot, step, lanes, digest)
    }

    fn report_in(&mut self, epoch: Epoch, slot: u32, step: u64, lanes: &[u32], digest: &str) -> Vec<Command> {
        let geometry = rules().geometry;
        let span = |lane: &u32| Span {
            positions: geometry.span(Step(step), Lane(*lane)),
            worker: worker(slot),
        };
        self.give(Event::Reduced(Report {
            worker: worker(slot),
            epoch,
            step: Step(step),
            digest: digest.to_owned(),
            loss: 1.0,
            spans: lanes.iter().map(span).collect(),
        }))
    }
}

fn announced(commands: &[Command]) -> &Membership {
    let found = commands.iter().find_map(|command| match command {
        Command::Announce(membership) => Some(membership),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("no announcement in {commands:?}"))
}

#[test]
fn the_first_epoch_starts_from_the_seed_when_all_expected_are_there() {
    let mut bench = Bench::new(rules());
    assert_eq!(bench.join(1), []);
    let out = bench.join(0);
    assert_eq!(
        out[..2],
        [Command::Truncate(Step(0)), Command::PersistEpoch(Epoch(1))]
    );
    let membership = announced(&out);
    assert_eq!(
        membership
            .members
            .iter()
            .map(|m| m.worker.slot)
            .collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(membership.sources, [Source::Seed, Source::Seed]);
    assert_eq!(membership.first.owners(), [0, 0, 1, 1].map(Rank));
}

#[test]
fn it_does_not_wait_for_ever_for_the_rest() {
    let mut bench = Bench::new(rules());
    assert_eq!(bench.join(0), []);
    bench.now += 1900;
    assert_eq!(bench.give(Event::Heartbeat(worker(0))), []);
    bench.now += 200;
    assert_eq!(announced(&bench.give(Event::Tick)).members.len(), 1);
}

#[test]
fn a_step_is_committed_when_every_member_reported_the_same_digest() {
    let mut bench = Bench::pair(rules());
    assert_eq!(bench.report(0, 1, &[0, 1], "d"), []);
    let out = bench.report(1, 1, &[2, 3], "d");
    let [
        Command::Commit {
            workers,
            epoch: Epoch(1),
            step: Step(1),
            ends_epoch: false,
        },
        Command::Record(entry),
    ] = out.as_slice()
    else {
        panic!("{out:?}")
    };
    assert_eq!(workers.len(), 2);
    assert_eq!(
        entry
            .spans
            .iter()
            .map(|s| s.positions.clone())
            .collect::<Vec<_>>(),
        [0..2, 2..4, 4..6, 6..8]
    );
    assert_eq!((entry.workers, bench.job.committed()), (2, Step(1)));
}

#[test]
fn reports_of_other_epochs_steps_and_strangers_have_no_effect() {
    let mut bench = Bench::pair(rules());
    bench.report(0, 1, &[0, 1], "d");
    for out in [
        bench.report_in(Epoch(0), 1, 1, &[2, 3], "d"),
        bench.report_in(Epoch(2), 1, 1, &[2, 3], "d"),
        bench.report(1, 2, &[2, 3], "d"),
        bench.report(7, 1, &[2, 3], "d"),
        bench.give(Event::Holding {
            worker: worker(1),
            epoch: Epoch(9),
        }),
        bench.give(Event::PeerLost {
            by: worker(0),
            epoch: Epoch(0),
            peer: worker(1),
            reason: String::new(),
        }),
    ] {
        assert_eq!(out, []);
    }
    assert_eq!((bench.job.stale(), bench.job.committed()), (6, Step(0)));
}

#[test]
fn a_loss_raises_the_epoch_at_once_and_survivors_keep_their_lanes() {
    let mut bench = Bench::pair(rules());
    bench.report(1, 1, &[2, 3], "d");
    let out = bench.give(Event::Left {
        worker: worker(0),
        reason: "connection closed".into(),
    });
    assert_eq!(out[0], Command::PersistEpoch(Epoch(2)));
    let membership = announced(&out);
    assert_eq!(membership.base, Step(0));
    assert_eq!(membership.sources, [Source::Held]);
    assert_eq!(membership.first.owners(), [Rank(0); 4]);
    // The old report is void; the new one commits, and the recovery is timed.
    let out = bench.report(1, 1, &[0, 1, 2, 3], "d");
    assert!(matches!(
        out[0],
        Command::Commit {
            epoch: Epoch(2),
            step: Step(1),
            ..
        }
    ));
    assert!(matches!(out[2], Command::Recovered { took } if took == Duration::from_millis(1)));
}

#[test]
fn newcomers_wait_for_the_boundary_and_take_the_state_of_a_member() {
    let mut bench = Bench::pair(rules());
    bench.give(Event::Left {
        worker: worker(0),
        reason: String::new(),
    });
    assert_eq!(bench.join(0), [], "no change while a step is in flight");
    let out = bench.report(1, 1, &[0, 1, 2, 3], "d");
    assert!(
        matches!(out[0], Command::Commit { ends_epoch: true, .. }),
        "{out:?}"
    );
    let membership = announced(&out);
    assert_eq!((membership.epoch, membership.base), (Epoch(3), Step(1)));
    assert_eq!(membership.sources, [Source::Peer(Rank(1)), Source::Held]);
    assert_eq!(membership.receivers_of(Rank(1)), [Rank(0)]);
}

#[test]
fn workers_beyond_the_maximum_wait() {
    let mut bench = Bench::pair(rules());
    assert_eq!(bench.join(2), []);
    bench.report(0, 1, &[0, 1], "d");
    let out = bench.report(1, 1, &[2, 3], "d");
    assert!(matches!(
        out[0],
        Command::Commit {
            ends_epoch: false,
            ..
        }
    ));
    bench.give(Event::Left {
        worker: worker(0),
        reason: String::new(),
    });
    let out = bench.report(1, 2, &[0, 1, 2, 3], "e");
    assert_eq!(announced(&out).members[1].worker, worker(2));
}

#[test]
fn below_the_minimum_it_pauses_says_so_and_goes_on_with_the_lanes_it_had() {
    let mut bench = Bench::pair(Rules {
        min_workers: 2,
        ..rules()
    });
    let out = bench.give(Event::Left {
        worker: worker(1),
        reason: String::new(),
    });
    assert!(
        matches!(&out[1], Command::Hold { workers, forget: false, .. } if *workers == [worker(0)]),
        "{out:?}"
    );
    assert_eq!(*bench.job.phase(), Phase::Paused);
    let out = bench.join(3);
    let membership = announced(&out);
    assert_eq!(membership.sources, [Source::Held, Source::Peer(Rank(0))]);
    assert_eq!(membership.first.owners(), [0, 0, 1, 1].map(Rank));
}

#[test]
fn when_all_state_is_lost_it_resumes_from_the_newest_checkpoint_that_the_ledger_covers() {
    let mut bench = Bench::pair(rules());
    bench.report(0, 1, &[0, 1], "d");
    bench.report(1, 1, &[2, 3], "d");
    bench.give(Event::Left {
        worker: worker(0),
        reason: String::new(),
    });
    let out = bench.give(Event::Left {
        worker: worker(1),
        reason: String::new(),
    });
    assert!(matches!(out[1], Command::Hold { forget: true, .. }), "{out:?}");
    let address = ([127, 0, 0, 1], 9000).into();
    // The checkpoint of step 2 belongs to a commit that the ledger does not have.
    bench.give(Event::Joined {
        worker: worker(0),
        address,
        checkpoints: vec![Step(1), Step(2)],
    });
    let out = bench.give(Event::Joined {
        worker: worker(1),
        address,
        checkpoints: Vec::new(),
    });
    assert_eq!(out[0], Command::Truncate(Step(1)));
    let membership = announced(&out);
    assert_eq!(membership.base, Step(1));
    assert_eq!(membership.sources, [Source::Checkpoint, Source::Peer(Rank(0))]);
}

#[test]
fn a_silent_worker_loses_its_lease_and_a_blamed_one_its_place() {
    let mut bench = Bench::pair(rules());
    bench.now += 4990;
    bench.give(Event::Heartbeat(worker(0)));
    bench.now += 20;
    let out = bench.give(Event::Tick);
    assert!(
        matches!(&out[0], Command::Evict { worker: w, .. } if *w == worker(1)),
        "{out:?}"
    );
    assert_eq!(announced(&out).members.len(), 1);

    let mut bench = Bench::pair(rules());
    let blame = Event::PeerLost {
        by: worker(0),
        epoch: Epoch(1),
        peer: worker(1),
        reason: "reset".into(),
    };
    let out = bench.give(blame.clone());
    assert!(matches!(&out[0], Command::Evict { worker: w, .. } if *w == worker(1)));
    assert_eq!(bench.give(blame), [], "said twice, it is stale");
}

#[test]
fn a_planned_kill_holds_the_commit_until_the_victim_is_gone() {
    let mut bench = Bench::pair(Rules {
        kills: vec![Kill {
            slot: 1,
            step: Step(2),
        }],
        ..rules()
    });
    bench.report(0, 1, &[0, 1], "d");
    let out = bench.report(1, 1, &[2, 3], "d");
    assert_eq!(out.last(), Some(&Command::Kill(worker(1))));
    bench.report(0, 2, &[0, 1], "e");
    assert_eq!(
        bench.report(1, 2, &[2, 3], "e"),
        [],
        "it may be fast, but it is doomed"
    );
    bench.give(Event::Left {
        worker: worker(1),
        reason: String::new(),
    });
    assert!(matches!(
        bench.report(0, 2, &[0, 1, 2, 3], "e")[0],
        Command::Commit { step: Step(2), .. }
    ));
}

#[test]
fn different_digests_are_computed_again_and_then_the_odd_one_goes() {
    let mut bench = Bench::new(Rules {
        max_workers: 3,
        ..rules()
    });
    bench.give(Event::Expected(3));
    (0..3).for_each(|slot| drop(bench.join(slot)));
    let lanes: [&[u32]; 3] = [&[0], &[1], &[2, 3]];
    for (round, slot) in [0, 1, 2, 0, 1, 2].into_iter().enumerate() {
        let digest = if slot == 1 { "odd" } else { "d" };
        let out = bench.report(slot, 1, lanes[slot as usize], digest);
        match round {
            2 => assert!(announced(&out).recompute && announced(&out).members.len() == 3),
            5 => assert!(
                matches!(&out[0], Command::Evict { worker: w, .. } if *w == worker(1)),
                "{out:?}"
            ),
            _ => assert_eq!(out, []),
        }
    }
}

#[test]
fn a_step_whose_samples_do_not_add_up_is_never_committed() {
    let mut bench = Bench::pair(rules());
    bench.report(0, 1, &[0, 1], "d");
    let out = bench.report(1, 1, &[1, 2, 3], "d");
    assert!(
        matches!(&out[0], Command::End { outcome: Outcome::Failed(why), .. } if why.contains("samples")),
        "{out:?}"
    );
}

#[test]
fn it_ends_when_every_member_has_the_same_final_weights() {
    let mut bench = Bench::pair(rules());
    for step in 1..=3 {
        bench.report(0, step, &[0, 1], "d");
        bench.report(1, step, &[2, 3], "d");
    }
    assert_eq!(*bench.job.phase(), Phase::Finishing);
    let finished = |slot, epoch| Event::Finished {
        worker: worker(slot),
        epoch,
        weights: "w".into(),
    };
    assert_eq!(bench.give(finished(0, Epoch(1))), []);
    // One dies at the very end: the other says it again in the new epoch.
    bench.give(Event::Left {
        worker: worker(1),
        reason: String::new(),
    });
    let out = bench.give(finished(0, Epoch(2)));
    assert!(
        matches!(&out[0], Command::End { outcome: Outcome::Done { weights }, .. } if weights == "w"),
        "{out:?}"
    );
    assert_eq!(bench.join(5), [], "nothing happens after the end");
}
