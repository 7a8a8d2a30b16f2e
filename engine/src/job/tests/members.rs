use super::*;

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
    assert_eq!(slots(membership), [0, 1]);
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
    assert_eq!(slots(announced(&bench.give(Event::Tick))), [0]);
}

#[test]
fn a_loss_raises_the_epoch_at_once_and_survivors_keep_their_lanes() {
    let mut bench = Bench::of(2, rules());
    bench.report(1, 1, &[2, 3], Bench::reduced("d"));
    let out = bench.leave(0);
    assert_eq!(out[0], Command::PersistEpoch(Epoch(2)));
    let membership = announced(&out);
    assert_eq!((membership.base, membership.state), (Step(0), Step(0)));
    assert_eq!(membership.sources, [Source::Held]);
    assert_eq!(membership.first.owners(), [Rank(0); 4]);
    // The old report is void; the new one commits, and the recovery is timed.
    let out = bench.report(1, 1, &[0, 1, 2, 3], Bench::reduced("d"));
    assert_eq!(verdict(&out).epoch, Epoch(2));
    let took = out.iter().find_map(|command| match command {
        Command::Recovered { took } => Some(*took),
        _ => None,
    });
    assert_eq!(took, Some(Duration::from_millis(1)));
}

#[test]
fn below_the_minimum_it_pauses_says_so_and_goes_on_with_the_lanes_it_had() {
    let mut bench = Bench::of(
        2,
        Rules {
            min_workers: 2,
            ..rules()
        },
    );
    let out = bench.leave(1);
    assert!(
        matches!(&out[1], Command::Hold { workers, forget: false, .. } if *workers == [worker(0)]),
        "{out:?}"
    );
    assert_eq!(
        (bench.job.phase(), bench.said(NoteKind::Paused)),
        (&Phase::Paused, 1)
    );
    let out = bench.join(3);
    let membership = announced(&out);
    assert_eq!(membership.sources, [Source::Held, Source::Peer(Rank(0))]);
    assert_eq!(membership.first.owners(), [0, 0, 1, 1].map(Rank));
}

#[test]
fn after_a_pause_the_only_holder_comes_in_although_it_drains() {
    let mut bench = Bench::of(
        2,
        Rules {
            min_workers: 2,
            ..rules()
        },
    );
    bench.give(Event::Drain(worker(1)));
    bench.leave(0);
    let out = bench.join_as(life(0, 2), &[], None);
    let membership = announced(&out);
    assert_eq!(slots(membership), [0, 1]);
    assert_eq!(membership.sources, [Source::Peer(Rank(1)), Source::Held]);
}

#[test]
fn a_silent_worker_loses_its_lease() {
    let mut bench = Bench::of(2, rules());
    bench.now += 4990;
    bench.give(Event::Heartbeat(worker(0)));
    bench.now += 20;
    let out = bench.give(Event::Tick);
    assert_eq!((evicted(&out), slots(announced(&out))), (vec![1], vec![0]));
}

#[test]
fn a_bad_link_is_tried_anew_and_the_second_time_costs_one_member_its_place() {
    let mut bench = Bench::of(2, rules());
    let blame = |epoch| Event::PeerLost {
        by: worker(0),
        epoch: Epoch(epoch),
        peer: worker(1),
        reason: "reset".into(),
    };
    assert_eq!(
        bench.give(blame(1)),
        [],
        "the peer may be dead: then its own connection closes"
    );
    bench.now += 100;
    assert_eq!(slots(announced(&bench.give(Event::Tick))), [0, 1]);
    assert_eq!(bench.give(blame(1)), [], "it speaks of the epoch before");
    assert_eq!(bench.give(blame(2)), []);
    bench.now += 100;
    let out = bench.give(Event::Tick);
    assert_eq!((evicted(&out), slots(announced(&out))), (vec![1], vec![0]));
}

#[test]
fn a_new_process_takes_the_place_of_the_one_before_it_at_once() {
    let mut bench = Bench::of(2, rules());
    let out = bench.join_as(life(1, 2), &[], None);
    assert_eq!((evicted(&out), slots(announced(&out))), (vec![1], vec![0]));
    let follows =
        |command: &Command| matches!(command, Command::Follow { worker, .. } if *worker == life(1, 2));
    assert!(out.iter().any(follows), "{out:?}");
}

#[test]
fn whoever_drains_leaves_at_a_boundary_if_it_can_be_spared() {
    let mut bench = Bench::of(2, rules());
    assert_eq!(bench.give(Event::Drain(worker(0))), []);
    let out = bench.all_report(&Bench::reduced("d"));
    assert!(verdict(&out).ends_epoch);
    assert_eq!((slots(announced(&out)), evicted(&out)), (vec![1], vec![0]));
    // The last one stays.
    bench.give(Event::Drain(worker(1)));
    let out = bench.all_report(&Bench::reduced("e"));
    assert!(!verdict(&out).ends_epoch && evicted(&out).is_empty());
}
