use super::*;

/// Each member computes one step, `took(slot)` milliseconds a lane, and all report.
fn step(bench: &mut Bench, took: impl Fn(u32) -> u64) -> Vec<Command> {
    let (epoch, step) = (bench.job.epoch(), bench.job.committed().next());
    for member in bench.job.members().to_vec() {
        let took = Duration::from_millis(2 * took(member.slot));
        let event = Event::Computed {
            worker: member,
            epoch,
            step,
            lanes: 2,
            took,
        };
        assert_eq!(bench.give(event), []);
    }
    bench.all_report(&Bench::reduced("d"))
}

#[test]
fn a_member_that_is_late_follows_and_the_others_compute_its_lanes() {
    let mut bench = Bench::of(2, rules());
    for _ in 0..6 {
        step(&mut bench, |_| 10);
    }
    let computed = Event::Computed {
        worker: worker(0),
        epoch: Epoch(1),
        step: Step(7),
        lanes: 2,
        took: Duration::from_millis(20),
    };
    bench.give(computed);
    // Steps take some 4 ms here: late is twice that and 100 ms.
    bench.now += 90;
    assert_eq!(bench.give(Event::Tick), []);
    bench.now += 60;
    let out = bench.give(Event::Tick);
    let membership = announced(&out);
    assert_eq!((slots(membership), bench.said(NoteKind::Slow)), (vec![0], 1));
    assert_eq!(membership.first.owners(), [Rank(0); 4]);
    assert!(evicted(&out).is_empty(), "it is not dead");
    let follows = |command: &Command| matches!(command, Command::Follow { worker: w, .. } if *w == worker(1));
    assert!(out.iter().any(follows), "{out:?}");
    // Once it has shown that it lives, it is in again.
    bench.all_report(&Bench::reduced("d"));
    bench.follow(1, 7);
    let out = bench.all_report(&Bench::reduced("d"));
    assert_eq!(slots(announced(&out)), [0, 1]);
}

#[test]
fn nobody_is_late_before_it_is_known_what_is_usual() {
    let mut bench = Bench::of(2, rules());
    step(&mut bench, |_| 10);
    bench.now += 4000;
    assert_eq!(bench.give(Event::Tick), []);
}

#[test]
fn lanes_follow_the_speed_of_members_and_the_slow_one_is_named() {
    let mut bench = Bench::of(2, rules());
    let mut out = Vec::new();
    for _ in 0..40 {
        out = step(&mut bench, |slot| if slot == 1 { 30 } else { 10 });
        if verdict(&out).ends_epoch {
            break;
        }
    }
    let membership = announced(&out);
    assert_eq!(membership.weights, [8, 3]);
    assert_eq!(membership.first.owners(), [0, 0, 0, 1].map(Rank));
    let (slowest, why) = bench.job.slowest().unwrap();
    assert_eq!(slowest, worker(1));
    assert!(why.contains("30 ms a lane"), "{why}");
}

#[test]
fn an_exchange_that_hangs_is_begun_anew_and_then_without_whoever_is_silent() {
    let mut bench = Bench::of(2, rules());
    for _ in 0..6 {
        step(&mut bench, |_| 10);
    }
    let hang = |bench: &mut Bench| {
        let epoch = bench.job.epoch();
        for slot in [0, 1] {
            bench.give(Event::Computed {
                worker: worker(slot),
                epoch,
                step: Step(7),
                lanes: 2,
                took: Duration::from_millis(20),
            });
        }
        bench.report(0, 7, &[0, 1], Bench::reduced("d"));
        for _ in 0..3 {
            bench.now += 1800;
            bench.give(Event::Heartbeat(worker(0)));
            bench.give(Event::Heartbeat(worker(1)));
        }
        bench.give(Event::Tick)
    };
    let out = hang(&mut bench);
    assert_eq!(slots(announced(&out)), [0, 1]);
    let out = hang(&mut bench);
    assert_eq!((evicted(&out), slots(announced(&out))), (vec![1], vec![0]));
}
