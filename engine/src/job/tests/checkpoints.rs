use super::*;

fn shard(bench: &mut Bench, slot: u32, step: u64, epoch: u64, of: u32) -> Vec<Command> {
    let snapshot = Snapshot {
        step: Step(step),
        epoch: Epoch(epoch),
        shard: slot,
        of,
    };
    bench.give(Event::ShardWritten {
        worker: worker(slot),
        snapshot,
        record: format!("part {slot}"),
    })
}

fn written(bench: &mut Bench, slot: u32, step: u64) -> Vec<Command> {
    bench.give(Event::CheckpointWritten {
        worker: worker(slot),
        step: Step(step),
        weights: "w".into(),
    })
}

/// Two members; a checkpoint is due after every second step.
fn every_second_step(steps: u64) -> Bench {
    let mut bench = Bench::of(
        2,
        Rules {
            checkpoint_every: 2,
            steps: Step(steps),
            ..rules()
        },
    );
    bench.run_to(1);
    assert!(verdict(&bench.all_report(&Bench::reduced("d"))).snapshot);
    bench
}

fn sealer(out: &[Command]) -> u32 {
    let found = out.iter().find_map(|command| match command {
        Command::Seal { worker, shards, .. } => {
            assert_eq!(shards[..], ["part 0", "part 1"]);
            Some(worker.slot)
        }
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{out:?}"))
}

#[test]
fn a_checkpoint_is_sealed_when_all_parts_are_written_and_the_next_step_is_agreed_on() {
    let mut bench = every_second_step(50);
    assert_eq!(shard(&mut bench, 0, 2, 1, 2), []);
    assert_eq!(shard(&mut bench, 1, 2, 1, 2), []);
    let out = bench.all_report(&Bench::reduced("d"));
    assert_eq!(sealer(&out), 0);
    let out = written(&mut bench, 0, 2);
    assert!(
        matches!(&out[..], [Command::RecordCheckpoint { step: Step(2), .. }]),
        "{out:?}"
    );
    // Or the other way round.
    bench.all_report(&Bench::reduced("d"));
    bench.all_report(&Bench::reduced("d"));
    assert_eq!(shard(&mut bench, 1, 4, 1, 2), []);
    assert_eq!(sealer(&shard(&mut bench, 0, 4, 1, 2)), 0);
}

#[test]
fn parts_of_other_attempts_and_other_writers_do_not_count() {
    let mut bench = every_second_step(50);
    bench.all_report(&Bench::reduced("d"));
    shard(&mut bench, 0, 2, 1, 2);
    let stale = bench.job.stale();
    assert_eq!(shard(&mut bench, 1, 2, 0, 2), []);
    assert_eq!(shard(&mut bench, 1, 1, 1, 2), []);
    assert_eq!(bench.job.stale(), stale + 2);
    assert_eq!(sealer(&shard(&mut bench, 1, 2, 1, 2)), 0);
}

#[test]
fn a_lost_writer_costs_the_checkpoint_and_a_lost_sealer_does_not() {
    let mut bench = every_second_step(50);
    shard(&mut bench, 0, 2, 1, 2);
    bench.leave(1);
    bench.all_report(&Bench::reduced("d"));
    assert_eq!(shard(&mut bench, 1, 2, 1, 2), []);
    assert!(
        bench
            .notes
            .iter()
            .any(|note| note.1.contains("gone before its part was written"))
    );

    let mut bench = every_second_step(50);
    shard(&mut bench, 0, 2, 1, 2);
    shard(&mut bench, 1, 2, 1, 2);
    assert_eq!(sealer(&bench.all_report(&Bench::reduced("d"))), 0);
    assert_eq!(sealer(&bench.leave(0)), 1);
}

#[test]
fn a_full_disk_costs_one_checkpoint_but_the_last_one_is_tried_again() {
    let full = |bench: &mut Bench, step| {
        bench.give(Event::CheckpointFailed {
            worker: worker(1),
            step: Step(step),
            reason: "no space left".into(),
        })
    };
    let mut bench = every_second_step(4);
    assert_eq!(full(&mut bench, 2), []);
    assert_eq!(bench.said(NoteKind::Checkpoint), 1);
    bench.run_to(4);
    assert_eq!(full(&mut bench, 4), [], "the job does not end without it");
    let problem = bench.job.last_checkpoint_problem().unwrap().to_owned();
    assert!(problem.contains("no space left"), "{problem}");
    bench.now += 5_000;
    for slot in [0, 1] {
        bench.give(Event::Heartbeat(worker(slot)));
    }
    let out = bench.give(Event::Tick);
    assert!(announced(&out).snapshot, "it is tried again: {out:?}");
}

fn finish(bench: &mut Bench, slot: u32, weights: &str) -> Vec<Command> {
    let epoch = bench.job.epoch();
    bench.give(Event::Finished {
        worker: worker(slot),
        epoch,
        weights: weights.into(),
    })
}

#[test]
fn the_job_ends_when_all_agree_and_the_last_checkpoint_is_complete() {
    let mut bench = every_second_step(2);
    assert_eq!(*bench.job.phase(), Phase::Finishing);
    shard(&mut bench, 0, 2, 1, 2);
    shard(&mut bench, 1, 2, 1, 2);
    assert_eq!(finish(&mut bench, 0, "w"), []);
    assert_eq!(sealer(&finish(&mut bench, 1, "w")), 0);
    let out = written(&mut bench, 0, 2);
    assert!(
        matches!(&out[1], Command::End { outcome: Outcome::Done { weights }, workers } if weights == "w" && workers.len() == 2),
        "{out:?}"
    );
}

#[test]
fn members_that_differ_at_the_end_seal_nothing_and_go_back() {
    let mut bench = every_second_step(2);
    shard(&mut bench, 0, 2, 1, 2);
    shard(&mut bench, 1, 2, 1, 2);
    finish(&mut bench, 0, "w");
    let out = finish(&mut bench, 1, "odd");
    assert!(
        matches!(
            &out[..],
            [Command::PersistEpoch(_), Command::Hold { forget: true, .. }]
        ),
        "{out:?}"
    );
}

#[test]
fn a_loss_at_the_end_takes_the_last_checkpoint_anew_and_a_new_leader_does_too() {
    let mut bench = every_second_step(2);
    shard(&mut bench, 0, 2, 1, 2);
    let out = bench.leave(1);
    assert!(announced(&out).snapshot && announced(&out).base == Step(2));
    assert_eq!(*bench.job.phase(), Phase::Finishing);

    let rules = Rules {
        steps: Step(2),
        ..rules()
    };
    let mut bench = Bench::after(rules, Epoch(4), past(2));
    let offer = Offer {
        epoch: Epoch(4),
        held: Step(2),
        members: vec![worker(0)],
        ..Offer::default()
    };
    let out = bench.join_as(worker(0), &[], Some(offer));
    assert!(
        announced(&out).snapshot,
        "that it was sealed was lost with the leader before"
    );
}
