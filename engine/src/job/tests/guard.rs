use super::*;

fn guarded(policy: BadStep, checkpoint_every: u64) -> Bench {
    Bench::of(
        1,
        Rules {
            guard: Guard {
                policy,
                spike_factor: 3.0,
            },
            checkpoint_every,
            ..rules()
        },
    )
}

fn with_loss(loss: f32) -> Reduced {
    Reduced {
        loss,
        ..Bench::reduced("bad")
    }
}

#[test]
fn stop_ends_the_job_and_says_what_to_do() {
    for bad in [
        with_loss(f32::NAN),
        with_loss(f32::INFINITY),
        Reduced {
            finite: false,
            ..Bench::reduced("bad")
        },
    ] {
        let mut bench = guarded(BadStep::Stop, 0);
        bench.run_to(2);
        let out = bench.all_report(&bad);
        assert!(
            matches!(&out[0], Command::End { outcome: Outcome::Failed(why), .. }
                if why.starts_with("step 3:") && why.contains("guard.bad_step")),
            "{out:?}"
        );
    }
}

#[test]
fn skip_commits_the_step_without_its_gradient_and_records_that() {
    let mut bench = guarded(BadStep::Skip, 0);
    bench.run_to(2);
    let out = bench.all_report(&with_loss(f32::NAN));
    assert!(verdict(&out).skip && recorded(&out)[0].skipped);
    assert_eq!(recorded(&out)[0].unseen_to, None);
    assert!(!verdict(&bench.all_report(&Bench::reduced("d"))).skip);
}

#[test]
fn a_spike_is_one_only_against_enough_good_steps() {
    let mut bench = guarded(BadStep::Skip, 0);
    bench.run_to(7);
    assert!(
        !verdict(&bench.all_report(&with_loss(50.0))).skip,
        "7 steps are not enough"
    );
    assert!(!verdict(&bench.all_report(&with_loss(2.9))).skip);
    assert!(verdict(&bench.all_report(&with_loss(3.1))).skip);
}

#[test]
fn rollback_forgets_goes_on_after_the_bad_step_and_says_which_were_skipped() {
    let mut bench = guarded(BadStep::Rollback, 4);
    bench.run_to(6);
    let out = bench.all_report(&with_loss(f32::NAN));
    assert!(matches!(out[1], Command::Hold { forget: true, .. }), "{out:?}");
    assert_eq!(bench.said(NoteKind::BadStep), 1);
    let fence = bench.job.epoch();
    // Whoever missed it, and brings what it had, is to forget it too.
    let offer = Offer {
        epoch: Epoch(1),
        held: Step(6),
        ..Offer::default()
    };
    let out = bench.join_as(worker(5), &[], Some(offer));
    assert!(
        matches!(&out[..], [Command::Hold { workers, epoch, forget: true, .. }]
            if *workers == [worker(5)] && *epoch == fence),
        "{out:?}"
    );
    let out = bench.join_as(worker(0), &[4], None);
    assert_eq!(out[0], Command::Truncate(Step(4)));
    let skipped: Vec<_> = recorded(&out)
        .iter()
        .map(|e| (e.step.0, e.skipped, e.unseen_to))
        .collect();
    assert_eq!(skipped, [5, 6, 7].map(|step| (step, true, Some(Step(7)))));
    let membership = announced(&out);
    assert_eq!((membership.base, membership.state), (Step(7), Step(4)));
    assert_eq!(membership.sources, [Source::Checkpoint]);
    assert!(!membership.snapshot, "no checkpoint is due after step 7");
    assert_eq!(verdict(&bench.all_report(&Bench::reduced("d"))).step, Step(8));
}

#[test]
fn a_checkpoint_that_is_due_after_skipped_steps_is_taken_by_the_new_epoch() {
    let mut bench = guarded(BadStep::Rollback, 4);
    bench.run_to(7);
    bench.all_report(&with_loss(f32::NAN));
    let out = bench.join_as(worker(0), &[4], None);
    let membership = announced(&out);
    assert_eq!((membership.base, membership.state), (Step(8), Step(4)));
    assert!(membership.snapshot);
}

#[test]
fn steps_that_were_skipped_stay_skipped_when_the_job_falls_back_before_them() {
    let mut ledger: Vec<Entry> = (1..=6).map(|step| entry(step, 1)).collect();
    ledger[4].skipped = true;
    let mut bench = Bench::after(rules(), Epoch(1), Past::of(&ledger));
    bench.join_as(worker(0), &[3], None);
    bench.now += 3000;
    assert_eq!(announced(&bench.give(Event::Tick)).base, Step(3));
    let out = bench.all_report(&Bench::reduced("d"));
    assert!(verdict(&out).ends_epoch, "step 5 is not computed again");
    assert_eq!(
        recorded(&out).iter().map(|e| e.step.0).collect::<Vec<_>>(),
        [4, 5]
    );
    assert_eq!((announced(&out).base, announced(&out).state), (Step(5), Step(4)));
}

#[test]
fn a_torn_run_of_skipped_steps_does_not_count() {
    let mut ledger: Vec<Entry> = (1..=7).map(|step| entry(step, 1)).collect();
    for entry in &mut ledger[4..] {
        (entry.skipped, entry.unseen_to, entry.epoch) = (true, Some(Step(7)), Epoch(3));
    }
    let whole = Past::of(&ledger);
    assert_eq!((whole.committed(), whole.fence), (Step(7), Epoch(3)));
    let torn = Past::of(&ledger[..6]);
    assert_eq!((torn.committed(), torn.fence), (Step(4), Epoch(0)));
}
