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

#[test]
fn gradients_computed_with_wrong_weights_are_nobodys_fault() {
    let mut bench = Bench::of(3, rules());
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
