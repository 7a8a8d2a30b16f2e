use super::*;

#[test]
fn a_step_is_committed_when_every_member_reported_the_same_digest() {
    let mut bench = Bench::of(2, rules());
    assert_eq!(bench.report(0, 1, &[0, 1], Bench::reduced("d")), []);
    let out = bench.report(1, 1, &[2, 3], Bench::reduced("d"));
    let expected = Verdict {
        epoch: Epoch(1),
        step: Step(1),
        skip: false,
        ends_epoch: false,
        snapshot: false,
        recorded: Step(0),
    };
    assert_eq!(verdict(&out), expected);
    assert!(matches!(&out[0], Command::Commit { workers, .. } if workers.len() == 2));
    let entries = recorded(&out);
    let positions: Vec<_> = entries[0].spans.iter().map(|s| s.positions.clone()).collect();
    assert_eq!(positions, [0..2, 2..4, 4..6, 6..8]);
    assert_eq!((entries[0].workers, bench.job.committed()), (2, Step(1)));
}

#[test]
fn reports_of_other_epochs_steps_and_strangers_have_no_effect() {
    let mut bench = Bench::of(2, rules());
    let d = || Bench::reduced("d");
    bench.report(0, 1, &[0, 1], d());
    for out in [
        bench.report_in(Epoch(0), 1, 1, &[2, 3], d()),
        bench.report_in(Epoch(2), 1, 1, &[2, 3], d()),
        bench.report(1, 2, &[2, 3], d()),
        bench.report(7, 1, &[2, 3], d()),
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
        bench.follow(1, 0),
    ] {
        assert_eq!(out, []);
    }
    assert_eq!((bench.job.stale(), bench.job.committed()), (7, Step(0)));
}

#[test]
fn members_hear_what_is_safe_on_disk_but_not_of_a_history_that_was_cut() {
    let mut bench = Bench::of(1, rules());
    bench.run_to(2);
    bench.give(Event::Recorded {
        epoch: Epoch(1),
        step: Step(2),
    });
    assert_eq!(verdict(&bench.all_report(&Bench::reduced("d"))).recorded, Step(2));
    bench.leave(0);
    assert_eq!(announced(&bench.join(0)).base, Step(0));
    bench.give(Event::Recorded {
        epoch: Epoch(1),
        step: Step(3),
    });
    assert_eq!(verdict(&bench.all_report(&Bench::reduced("d"))).recorded, Step(0));
}

#[test]
fn a_planned_kill_holds_the_commit_until_the_victim_is_gone() {
    let kill = Kill {
        slot: 1,
        step: Step(2),
    };
    let mut bench = Bench::of(
        2,
        Rules {
            kills: vec![kill],
            ..rules()
        },
    );
    let out = bench.all_report(&Bench::reduced("d"));
    assert_eq!(out.last(), Some(&Command::Kill(worker(1))));
    assert_eq!(
        bench.all_report(&Bench::reduced("e")),
        [],
        "it may be fast, but it is doomed"
    );
    bench.leave(1);
    assert_eq!(verdict(&bench.all_report(&Bench::reduced("e"))).step, Step(2));
}

#[test]
fn a_step_whose_samples_do_not_add_up_is_never_committed() {
    let mut bench = Bench::of(2, rules());
    bench.report(0, 1, &[0, 1], Bench::reduced("d"));
    let out = bench.report(1, 1, &[1, 2, 3], Bench::reduced("d"));
    assert!(
        matches!(&out[0], Command::End { outcome: Outcome::Failed(why), .. } if why.contains("samples")),
        "{out:?}"
    );
}
