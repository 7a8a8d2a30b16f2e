use super::*;

fn digests(bench: &mut Bench, of: impl Fn(u32) -> &'static str) -> Vec<Command> {
    bench.each_reports(|slot| Bench::reduced(of(slot)))
}

fn weights(bench: &mut Bench, of: impl Fn(u32) -> &'static str) -> Vec<Command> {
    bench.each_reports(|slot| Reduced {
        weights: Some(of(slot).to_owned()),
        ..Bench::reduced("d")
    })
}

#[test]
fn a_disputed_step_is_computed_again_and_who_was_wrong_is_known_then() {
    let mut bench = Bench::of(2, rules());
    let out = digests(&mut bench, |slot| ["d", "odd"][slot as usize]);
    assert!(announced(&out).recompute && announced(&out).members.len() == 2);
    let out = digests(&mut bench, |_| "d");
    assert_eq!(verdict(&out).step, Step(1));
    let strikes: Vec<_> = bench
        .notes
        .iter()
        .filter(|note| note.1.contains("n/1 was caught"))
        .collect();
    assert_eq!(strikes.len(), 1, "{:?}", bench.notes);
}

#[test]
fn with_three_the_odd_one_goes_the_second_time() {
    let mut bench = Bench::of(3, rules());
    let odd = |slot| if slot == 1 { "odd" } else { "d" };
    assert!(announced(&digests(&mut bench, odd)).recompute);
    let out = digests(&mut bench, odd);
    assert_eq!((evicted(&out), slots(announced(&out))), (vec![1], vec![0, 2]));
}

#[test]
fn without_a_majority_twice_the_job_ends() {
    let mut bench = Bench::of(2, rules());
    digests(&mut bench, |slot| ["d", "e"][slot as usize]);
    let out = digests(&mut bench, |slot| ["d", "e"][slot as usize]);
    assert!(
        matches!(&out[0], Command::End { outcome: Outcome::Failed(why), .. } if why.contains("hardware"))
    );
}

#[test]
fn caught_twice_a_slot_is_quarantined_whatever_process_is_in_it() {
    let mut bench = Bench::of(2, rules());
    for round in 0..2 {
        digests(&mut bench, |slot| ["d", "odd"][slot as usize]);
        let out = digests(&mut bench, |_| "d");
        let quarantined =
            |command: &Command| matches!(command, Command::Quarantine { worker: w, .. } if w.slot == 1);
        assert_eq!(out.iter().any(quarantined), round == 1, "{out:?}");
        if round == 1 {
            assert_eq!((evicted(&out), slots(announced(&out))), (vec![1], vec![0]));
        }
    }
}

#[test]
fn the_odd_one_in_weights_goes_and_so_do_its_followers_and_the_checkpoint_of_its_making() {
    let mut bench = Bench::of(
        3,
        Rules {
            spares: 1,
            checkpoint_every: 1,
            ..rules()
        },
    );
    bench.join(3);
    assert!(verdict(&weights(&mut bench, |_| "w")).snapshot);
    let epoch = bench.job.epoch();
    for shard in 0..3 {
        let snapshot = Snapshot {
            step: Step(1),
            epoch,
            shard,
            of: 3,
        };
        let out = bench.give(Event::ShardWritten {
            worker: worker(shard),
            snapshot,
            record: String::new(),
        });
        assert_eq!(out, [], "not sealed before the next step's agreement");
    }
    let out = weights(&mut bench, |slot| if slot == 2 { "odd" } else { "w" });
    assert_eq!((evicted(&out), slots(announced(&out))), (vec![3, 2], vec![0, 1]));
    let out = weights(&mut bench, |_| "w");
    assert!(
        !out.iter().any(|command| matches!(command, Command::Seal { .. })),
        "{out:?}"
    );
}

#[test]
fn two_that_differ_in_weights_go_back_and_who_was_wrong_is_known_when_the_step_comes_again() {
    let mut bench = Bench::of(2, rules());
    bench.run_to(1);
    let out = weights(&mut bench, |slot| ["w", "odd"][slot as usize]);
    assert!(matches!(out[1], Command::Hold { forget: true, .. }), "{out:?}");
    for slot in [0, 1] {
        bench.join_as(worker(slot), &[1], None);
    }
    bench.now += 3000;
    bench.give(Event::Tick);
    assert_eq!(bench.job.committed(), Step(1));
    let out = weights(&mut bench, |_| "w");
    assert_eq!(verdict(&out).step, Step(2));
    assert!(
        bench.notes.iter().any(|note| note.1.contains("n/1 was caught")),
        "{:?}",
        bench.notes
    );
}

/// Says anew what a worker says that has forgotten its state, and waits until all begin again.
fn begin_again(bench: &mut Bench, slots: u32, checkpoint: u64) {
    for slot in 0..slots {
        bench.join_as(worker(slot), &[checkpoint], None);
    }
    bench.now += 3000;
    bench.give(Event::Tick);
    assert_eq!(bench.job.committed(), Step(checkpoint));
}

#[test]
fn steps_since_an_agreement_may_be_of_wrong_weights_so_that_all_go_back_though_one_is_odd() {
    let mut bench = Bench::of(3, rules());
    weights(&mut bench, |_| "w");
    bench.run_with(3, &Bench::unasked("d"));
    let out = weights(&mut bench, |slot| ["spoilt", "spoilt", "odd"][slot as usize]);
    assert!(matches!(out[1], Command::Hold { forget: true, .. }), "{out:?}");
    assert_eq!(evicted(&out), []);
    begin_again(&mut bench, 3, 1);
    bench.run_with(3, &Bench::unasked("d"));
    // The others' weights were not right either, and that was not their fault.
    assert_eq!(verdict(&weights(&mut bench, |_| "w")).step, Step(4));
    let caught: Vec<_> = bench
        .notes
        .iter()
        .filter(|note| note.1.contains("was caught"))
        .collect();
    assert!(
        caught.len() == 1 && caught[0].1.starts_with("n/2"),
        "{:?}",
        bench.notes
    );
}

#[test]
fn of_two_nobody_is_blamed_for_weights_that_both_had_to_give_up() {
    let mut bench = Bench::of(2, rules());
    weights(&mut bench, |_| "w");
    bench.run_with(3, &Bench::unasked("d"));
    weights(&mut bench, |slot| ["spoilt", "odd"][slot as usize]);
    begin_again(&mut bench, 2, 1);
    bench.run_with(3, &Bench::unasked("d"));
    assert_eq!(verdict(&weights(&mut bench, |_| "w")).step, Step(4));
    assert!(
        !bench.notes.iter().any(|note| note.1.contains("was caught")),
        "{:?}",
        bench.notes
    );
}

#[test]
fn who_is_cast_out_untested_takes_along_what_it_contributed_to() {
    let mut bench = Bench::of(3, rules());
    weights(&mut bench, |_| "w");
    bench.run_with(3, &Bench::unasked("d"));
    let odd = |slot| if slot == 1 { "odd" } else { "d" };
    let said = |slot| Bench::unasked(odd(slot));
    bench.each_reports(said);
    let out = bench.each_reports(said);
    assert_eq!(evicted(&out), [1]);
    assert!(
        out.iter()
            .any(|command| matches!(command, Command::Hold { forget: true, .. })),
        "{out:?}"
    );
    assert_eq!(*bench.job.phase(), Phase::Gathering);
}

#[test]
fn members_that_differ_in_the_end_go_back_too() {
    let mut bench = Bench::of(
        3,
        Rules {
            checkpoint_every: 2,
            ..rules()
        },
    );
    let steps = rules().steps.0;
    bench.run_with(steps, &Bench::unasked("d"));
    for slot in 0..3 {
        let weights = ["w", "odd", "w"][slot as usize].to_owned();
        let (worker, epoch) = (worker(slot), bench.job.epoch());
        bench.give(Event::Finished {
            worker,
            epoch,
            weights,
        });
    }
    assert!(matches!(bench.job.phase(), Phase::Gathering), "{:?}", bench.notes);
    begin_again(&mut bench, 3, 2);
}

#[test]
fn gradients_computed_with_wrong_weights_are_nobodys_fault() {
    let mut bench = Bench::of(3, rules());
    weights(&mut bench, |_| "w");
    digests(&mut bench, |slot| ["d", "d", "e"][slot as usize]);
    let out = bench.each_reports(|slot| Reduced {
        weights: Some(["odd", "w", "w"][slot as usize].to_owned()),
        ..Bench::reduced("d")
    });
    assert_eq!(evicted(&out), [0]);
    // Without it the right gradient is another one.
    digests(&mut bench, |_| "right");
    let caught = bench.notes.iter().filter(|note| note.1.contains("was caught"));
    assert_eq!(caught.count(), 1, "{:?}", bench.notes);
}

#[test]
fn a_bad_step_is_computed_again_with_weights_compared_before_it_is_judged() {
    let bad = |weights: Option<&str>| Reduced {
        loss: f32::NAN,
        weights: weights.map(str::to_owned),
        ..Bench::reduced("d")
    };
    let mut bench = Bench::of(2, rules());
    bench.run_to(1);
    let again = |out: &[Command]| announced(out).recompute && announced(out).base == Step(1);
    assert!(again(&bench.each_reports(|_| bad(None))));
    // Somebody's weights are the reason: all go back, and nothing is judged.
    let out = bench.each_reports(|slot| bad(Some(["w", "odd"][slot as usize])));
    assert!(matches!(out[1], Command::Hold { forget: true, .. }), "{out:?}");
    begin_again(&mut bench, 2, 1);
    // All have just loaded them: it really is bad.
    let out = bench.each_reports(|_| bad(None));
    assert!(
        matches!(&out[..], [Command::End { outcome: Outcome::Failed(why), .. }] if why.starts_with("step 2")),
        "{out:?}"
    );
}

#[test]
fn a_job_that_goes_back_again_and_again_ends() {
    let mut bench = Bench::of(2, rules());
    for round in 0..20 {
        // Each time at another step, so that nothing happens twice.
        bench.run_with(1 + round % 3, &Bench::unasked("d"));
        let out = weights(&mut bench, |slot| ["w", "odd"][slot as usize]);
        if let Some(Command::End {
            outcome: Outcome::Failed(why),
            ..
        }) = out.first()
        {
            assert!(round == 8 && why.contains("check the hardware"), "{round}: {why}");
            return;
        }
        begin_again(&mut bench, 2, 0);
    }
    panic!("it goes on for ever: {:?}", bench.notes);
}
