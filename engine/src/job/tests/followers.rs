use super::*;

/// Member 1 alone, with worker 0 following it.
fn with_a_follower() -> Bench {
    let mut bench = Bench::of(2, rules());
    bench.leave(0);
    let out = bench.join(0);
    let [
        Command::Follow {
            worker: of,
            epoch,
            donor,
        },
    ] = out.as_slice()
    else {
        panic!("{out:?}")
    };
    assert_eq!((of, *epoch, &donor.worker), (&worker(0), Epoch(2), &worker(1)));
    bench
}

#[test]
fn a_newcomer_follows_a_member_and_stops_nobody() {
    let mut bench = with_a_follower();
    let out = bench.all_report(&Bench::reduced("d"));
    assert!(!verdict(&out).ends_epoch, "it has nothing yet");
    assert_eq!(bench.follow(0, 1), []);
    let out = bench.all_report(&Bench::reduced("e"));
    assert!(verdict(&out).ends_epoch);
    let membership = announced(&out);
    assert_eq!((membership.epoch, membership.base), (Epoch(3), Step(2)));
    // It is one step behind, and has it by the time that it is needed.
    assert_eq!(membership.sources, [Source::Peer(Rank(1)), Source::Held]);
}

#[test]
fn whoever_is_far_behind_is_not_waited_for() {
    let mut bench = with_a_follower();
    bench.run_to(3);
    bench.follow(0, 1);
    let out = bench.all_report(&Bench::reduced("d"));
    assert!(!verdict(&out).ends_epoch, "step 1 is more than two behind step 4");
    bench.follow(0, 3);
    assert!(verdict(&bench.all_report(&Bench::reduced("d"))).ends_epoch);
}

#[test]
fn a_follower_whose_donor_is_gone_gets_another_one() {
    let mut bench = Bench::of(3, Rules { spares: 1, ..rules() });
    let donor = |out: &[Command]| {
        let found = out.iter().find_map(|command| match command {
            Command::Follow {
                worker: of, donor, ..
            } if *of == worker(3) => Some(donor.worker.slot),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{out:?}"))
    };
    let out = bench.join(3);
    assert_eq!(donor(&out), 2, "the last rank has the least to do");
    assert_eq!(donor(&bench.leave(2)), 1);
    // It says itself that it cannot reach its donor.
    let epoch = bench.job.epoch();
    let lost = Event::PeerLost {
        by: worker(3),
        epoch,
        peer: worker(1),
        reason: "refused".into(),
    };
    donor(&bench.give(lost));
}

#[test]
fn spares_follow_but_stay_out_until_there_is_room() {
    let mut bench = Bench::of(2, Rules { spares: 1, ..rules() });
    assert!(matches!(bench.join(2)[..], [Command::Follow { .. }]));
    assert_eq!(bench.join(3), [], "neither a member nor a spare");
    bench.follow(2, 0);
    assert!(!verdict(&bench.all_report(&Bench::reduced("d"))).ends_epoch);
    bench.follow(2, 1);
    let out = bench.leave(0);
    assert_eq!(
        slots(announced(&out)),
        [1, 2],
        "it holds the state: in the middle of a step"
    );
    assert_eq!(announced(&out).sources, [Source::Held; 2]);
    let follows = |command: &Command| matches!(command, Command::Follow { worker: w, .. } if *w == worker(3));
    assert!(out.iter().any(follows), "the next spare takes its place");
}
