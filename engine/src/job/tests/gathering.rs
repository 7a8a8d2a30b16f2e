use super::*;

fn offer(held: u64, lanes: &[u32], entries: &[u64]) -> Offer {
    Offer {
        epoch: Epoch(3),
        held: Step(held),
        lanes: lanes.iter().copied().map(Lane).collect(),
        members: vec![worker(0), worker(1)],
        entries: entries.iter().map(|&step| entry(step, 3)).collect(),
    }
}

#[test]
fn when_all_state_is_lost_it_resumes_from_the_newest_checkpoint_that_the_ledger_covers() {
    let mut bench = Bench::of(2, rules());
    bench.run_to(1);
    bench.leave(0);
    let out = bench.leave(1);
    assert!(matches!(out[1], Command::Hold { forget: true, .. }), "{out:?}");
    // The checkpoint of step 2 belongs to a commit that the ledger does not have.
    bench.join_as(worker(0), &[1, 2], None);
    let out = bench.join(1);
    assert_eq!(out[0], Command::Truncate(Step(1)));
    assert_eq!(announced(&out).base, Step(1));
    assert_eq!(
        announced(&out).sources,
        [Source::Checkpoint, Source::Peer(Rank(0))]
    );
}

#[test]
fn a_new_leader_goes_on_from_what_workers_hold_as_soon_as_all_are_back() {
    let mut bench = Bench::after(rules(), Epoch(3), past(7));
    assert_eq!(
        bench.join_as(worker(0), &[4], Some(offer(7, &[0], &[]))),
        [],
        "the other is about to come"
    );
    let out = bench.join_as(worker(1), &[4], Some(offer(7, &[2], &[])));
    let membership = announced(&out);
    assert_eq!((membership.epoch, membership.base), (Epoch(4), Step(7)));
    assert_eq!(membership.sources, [Source::Held; 2]);
    // What they have computed of the step in flight stays theirs.
    assert_eq!(membership.first.owners()[0], Rank(0));
    assert_eq!(membership.first.owners()[2], Rank(1));
    assert!(!membership.recompute);
}

#[test]
fn it_waits_no_longer_than_a_lease_for_those_that_were_members() {
    let mut bench = Bench::after(rules(), Epoch(3), past(7));
    bench.join_as(worker(0), &[], Some(offer(7, &[], &[])));
    bench.now += 4900;
    assert_eq!(bench.give(Event::Heartbeat(worker(0))), []);
    bench.now += 100;
    assert_eq!(slots(announced(&bench.give(Event::Tick))), [0]);
}

#[test]
fn workers_vouch_for_steps_that_the_last_leader_did_not_record() {
    let mut bench = Bench::after(rules(), Epoch(3), past(5));
    // One has heard of the last commit, the other has not.
    bench.join_as(worker(0), &[], Some(offer(7, &[], &[6, 7])));
    let out = bench.join_as(worker(1), &[], Some(offer(6, &[1], &[6])));
    assert_eq!(
        out[0],
        Command::Truncate(Step(5)),
        "the store may have a torn end"
    );
    assert_eq!(
        recorded(&out).iter().map(|e| e.step.0).collect::<Vec<_>>(),
        [6, 7]
    );
    let membership = announced(&out);
    assert_eq!(membership.base, Step(7));
    assert_eq!(membership.sources, [Source::Held, Source::Peer(Rank(0))]);
}

#[test]
fn a_state_with_a_gap_before_it_does_not_count() {
    let mut bench = Bench::after(rules(), Epoch(3), past(5));
    bench.join_as(worker(0), &[4], Some(offer(7, &[], &[7])));
    let out = bench.join_as(worker(1), &[4], Some(offer(5, &[], &[])));
    assert_eq!(announced(&out).base, Step(5));
    assert_eq!(announced(&out).sources, [Source::Peer(Rank(1)), Source::Held]);
}

#[test]
fn the_ledger_is_cut_back_to_what_somebody_has() {
    let mut bench = Bench::after(rules(), Epoch(3), past(7));
    bench.join_as(worker(0), &[4], Some(offer(6, &[0, 1], &[])));
    let out = bench.join_as(worker(1), &[4], None);
    assert_eq!(out[0], Command::Truncate(Step(6)));
    assert_eq!(announced(&out).base, Step(6));
}

#[test]
fn whoever_comes_back_with_the_last_committed_state_is_in_at_once_when_it_is_needed() {
    let mut bench = Bench::of(2, rules());
    bench.run_to(3);
    bench.leave(1);
    bench.join_as(worker(1), &[], Some(offer(3, &[2, 3], &[])));
    let out = bench.leave(0);
    assert_eq!((slots(announced(&out)), announced(&out).base), (vec![1], Step(3)));
}
