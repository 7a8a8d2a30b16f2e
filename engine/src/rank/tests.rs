use super::*;
use crate::geometry::{Assignment, Geometry};
use crate::ids::Rank;

fn worker(slot: u32) -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot,
        incarnation: 1,
    }
}

fn member(slot: u32) -> Member {
    Member {
        worker: worker(slot),
        address: ([127, 0, 0, 1], 9000).into(),
    }
}

fn membership(epoch: u64, base: u64, slots: &[u32], sources: &[Source]) -> Membership {
    Membership {
        epoch: Epoch(epoch),
        base: Step(base),
        state: Step(base),
        members: slots.iter().map(|&slot| member(slot)).collect(),
        sources: sources.to_vec(),
        weights: vec![1; slots.len()],
        first: Assignment::fresh(4, slots.len() as u32),
        recompute: false,
        snapshot: false,
    }
}

fn new(slot: u32, steps: u64) -> RankMachine {
    let geometry = Geometry {
        microbatches: 4,
        lanes: 4,
        sequences: 2,
    };
    RankMachine::new(worker(slot), geometry, Step(steps))
}

fn done(machine: &mut RankMachine) -> Vec<Command> {
    machine.step(Event::Ended(TaskEnd::Done))
}

const TOOK: Duration = Duration::from_millis(5);

fn computed(machine: &mut RankMachine) -> Vec<Command> {
    machine.step(Event::Ended(TaskEnd::Computed { took: TOOK }))
}

fn result() -> Reduced {
    Reduced {
        digest: "d".into(),
        loss: 1.0,
        finite: true,
        weights: None,
    }
}

fn reduced(machine: &mut RankMachine) -> Vec<Command> {
    machine.step(Event::Ended(TaskEnd::Reduced(result())))
}

fn verdict(epoch: u64, step: u64) -> Verdict {
    Verdict {
        epoch: Epoch(epoch),
        step: Step(step),
        skip: false,
        ends_epoch: false,
        snapshot: false,
        recorded: Step(0),
    }
}

fn run(task: Task) -> Command {
    Command::Run(task)
}

fn compute(step: u64, lane: u32) -> Command {
    run(Task::Compute {
        step: Step(step),
        lane: Lane(lane),
    })
}

fn reduce(epoch: u64, step: u64) -> Command {
    run(Task::Reduce {
        epoch: Epoch(epoch),
        step: Step(step),
    })
}

fn apply(step: u64, skip: bool) -> Command {
    run(Task::Apply {
        step: Step(step),
        skip,
    })
}

fn enter(membership: &Membership, keep: &[u32]) -> Command {
    run(Task::Enter {
        membership: membership.clone(),
        keep: keep.iter().copied().map(Lane).collect(),
    })
}

fn follow(epoch: u64, slot: u32) -> Command {
    run(Task::Follow {
        epoch: Epoch(epoch),
        donor: member(slot),
    })
}

fn told_computed(epoch: u64, step: u64, lanes: u32) -> Command {
    Command::Tell(Word::Computed {
        epoch: Epoch(epoch),
        step: Step(step),
        lanes,
        took: TOOK * lanes,
    })
}

fn told_reduced(epoch: u64, step: u64, lanes: &[u32]) -> Command {
    Command::Tell(Word::Reduced {
        epoch: Epoch(epoch),
        step: Step(step),
        result: result(),
        lanes: lanes.iter().copied().map(Lane).collect(),
    })
}

/// Worker 0 of two, with the seed's state, computing its first lane of step 1.
fn computing(steps: u64) -> RankMachine {
    let mut machine = new(0, steps);
    let m = membership(1, 0, &[0, 1], &[Source::Seed, Source::Seed]);
    let out = machine.step(Event::Announced(m.clone()));
    assert_eq!(out, [Command::Raise(Epoch(1)), enter(&m, &[])]);
    let acquire = Task::Acquire {
        step: Step(0),
        source: Source::Seed,
    };
    assert_eq!(done(&mut machine), [run(acquire)]);
    let told = Command::Tell(Word::Holding { epoch: Epoch(1) });
    assert_eq!(done(&mut machine), [told, compute(1, 0)]);
    machine
}

/// The same, when it has reported step 1.
fn reported(steps: u64) -> RankMachine {
    let mut machine = computing(steps);
    assert_eq!(computed(&mut machine), [compute(1, 1)]);
    assert_eq!(computed(&mut machine), [told_computed(1, 1, 2), reduce(1, 1)]);
    assert_eq!(reduced(&mut machine), [told_reduced(1, 1, &[0, 1])]);
    machine
}

#[test]
fn a_step_is_computed_reduced_reported_and_applied_only_after_the_commit() {
    let mut machine = reported(9);
    for (epoch, step) in [(0, 1), (2, 1), (1, 2)] {
        let out = machine.step(Event::Committed(verdict(epoch, step)));
        assert_eq!(out, [], "not the commit of what it reported");
    }
    assert_eq!(machine.step(Event::Committed(verdict(1, 1))), [apply(1, false)]);
    assert_eq!(machine.step(Event::Committed(verdict(1, 1))), [], "said twice");
    assert_eq!(done(&mut machine), [compute(2, 0)]);
    assert_eq!((machine.held(), machine.stale()), (Some(Step(1)), 4));
}

#[test]
fn a_gradient_that_is_thrown_away_counts_as_a_step() {
    let mut machine = reported(9);
    let skip = Verdict {
        skip: true,
        ..verdict(1, 1)
    };
    assert_eq!(machine.step(Event::Committed(skip)), [apply(1, true)]);
    assert_eq!(done(&mut machine), [compute(2, 0)]);
    assert!(machine.offer().unwrap().entries[0].skipped);
}

#[test]
fn after_a_loss_it_keeps_what_it_computed_and_computes_only_the_orphans() {
    let mut machine = computing(9);
    computed(&mut machine);
    computed(&mut machine);
    // In the middle of the reduction of epoch 1:
    let m = membership(2, 0, &[0], &[Source::Held]);
    assert_eq!(
        machine.step(Event::Announced(m.clone())),
        [Command::Raise(Epoch(2))]
    );
    let out = machine.step(Event::Ended(TaskEnd::Superseded));
    assert_eq!(out, [enter(&m, &[0, 1])]);
    assert_eq!(done(&mut machine), [compute(1, 2)]);
    assert_eq!(computed(&mut machine), [compute(1, 3)]);
    assert_eq!(computed(&mut machine), [told_computed(2, 1, 2), reduce(2, 1)]);
    assert_eq!(reduced(&mut machine), [told_reduced(2, 1, &[0, 1, 2, 3])]);
}

#[test]
fn what_is_folded_into_a_subtree_that_it_may_not_use_is_lost() {
    let mut machine = computing(9);
    computed(&mut machine);
    computed(&mut machine);
    // Lanes 0 and 1 are one sum now; only lane 0 stays its own.
    let m = Membership {
        first: Assignment::from_owners([0, 1, 1, 1].map(Rank).to_vec()),
        ..membership(2, 0, &[0, 1], &[Source::Held; 2])
    };
    machine.step(Event::Announced(m.clone()));
    assert_eq!(machine.step(Event::Ended(TaskEnd::Superseded)), [enter(&m, &[])]);
    assert_eq!(done(&mut machine), [compute(1, 0)]);
}

#[test]
fn a_disputed_step_is_computed_from_nothing() {
    let mut machine = reported(9);
    let m = Membership {
        recompute: true,
        ..membership(2, 0, &[0, 1], &[Source::Held; 2])
    };
    assert_eq!(machine.step(Event::Announced(m.clone()))[1], enter(&m, &[]));
    assert_eq!(done(&mut machine), [compute(1, 0)]);
}

#[test]
fn a_lost_peer_is_told_once_and_a_new_epoch_awaited() {
    let mut machine = computing(9);
    computed(&mut machine);
    computed(&mut machine);
    let (peer, reason) = (worker(1), "eof".to_owned());
    let end = TaskEnd::PeerLost {
        peer: peer.clone(),
        reason: reason.clone(),
    };
    let epoch = Epoch(1);
    let word = Word::PeerLost {
        epoch,
        peer: peer.clone(),
        reason: reason.clone(),
    };
    assert_eq!(machine.step(Event::Ended(end)), [Command::Tell(word)]);
    assert_eq!(machine.step(Event::PeerLost { epoch, peer, reason }), []);
    let m = membership(2, 0, &[0], &[Source::Held]);
    let out = machine.step(Event::Announced(m.clone()));
    assert_eq!(out, [Command::Raise(Epoch(2)), enter(&m, &[0, 1])]);
}

#[test]
fn words_of_the_past_and_for_others_are_void() {
    let mut machine = computing(9);
    let void = [
        Event::Announced(membership(1, 0, &[0], &[Source::Seed])),
        Event::Announced(membership(5, 0, &[1], &[Source::Seed])),
        Event::Held {
            epoch: Epoch(1),
            forget: true,
        },
        Event::Follow {
            epoch: Epoch(1),
            donor: member(1),
        },
    ];
    for event in void {
        assert_eq!(machine.step(event), []);
    }
    assert_eq!((machine.stale(), machine.epoch()), (4, Epoch(1)));
}

#[test]
fn a_newcomer_follows_its_donor_and_enters_where_it_is() {
    let mut machine = new(2, 9);
    let donor = member(1);
    let out = machine.step(Event::Follow {
        epoch: Epoch(3),
        donor,
    });
    assert_eq!(out, [Command::Raise(Epoch(3)), follow(3, 1)]);
    let followed = |step| Event::Ended(TaskEnd::Followed { step: Step(step) });
    let told = |step| Command::Tell(Word::Following { step: Step(step) });
    assert_eq!(machine.step(followed(4)), [told(4), follow(3, 1)]);
    // It is a member after step 5, and one step behind.
    let m = membership(
        4,
        5,
        &[0, 1, 2],
        &[Source::Held, Source::Held, Source::Peer(Rank(0))],
    );
    assert_eq!(
        machine.step(Event::Announced(m.clone())),
        [Command::Raise(Epoch(4))]
    );
    assert_eq!(machine.step(Event::Ended(TaskEnd::Superseded)), [enter(&m, &[])]);
    assert_eq!(done(&mut machine), [follow(4, 0)]);
    let out = machine.step(followed(5));
    let told = Command::Tell(Word::Holding { epoch: Epoch(4) });
    assert_eq!(out, [told, compute(6, 2)]);
}

#[test]
fn a_follower_says_once_that_its_donor_is_gone_and_waits_for_another() {
    let mut machine = new(2, 9);
    let told = |slot| Event::Follow {
        epoch: Epoch(3),
        donor: member(slot),
    };
    machine.step(told(1));
    let lost = |slot| {
        Event::Ended(TaskEnd::PeerLost {
            peer: worker(slot),
            reason: "eof".into(),
        })
    };
    let out = machine.step(lost(1));
    assert!(
        matches!(&out[..], [Command::Tell(Word::PeerLost { peer, .. })] if *peer == worker(1)),
        "{out:?}"
    );
    assert_eq!(machine.step(told(0)), [Command::Raise(Epoch(3)), follow(3, 0)]);
    // That the old donor is gone does not matter any more.
    machine.step(told(1));
    assert_eq!(machine.step(lost(0)), [follow(3, 1)]);
}

#[test]
fn whoever_is_put_out_applies_what_is_committed_and_follows() {
    let mut machine = computing(9);
    computed(&mut machine);
    computed(&mut machine);
    reduced(&mut machine);
    assert_eq!(machine.step(Event::Committed(verdict(1, 1))), [apply(1, false)]);
    let donor = member(1);
    let epoch = Epoch(2);
    assert_eq!(
        machine.step(Event::Follow { epoch, donor }),
        [Command::Raise(epoch)]
    );
    assert_eq!(done(&mut machine), [follow(2, 1)]);
    assert_eq!(machine.held(), Some(Step(1)));
}

#[test]
fn a_follower_that_moved_on_says_anew_where_it_is() {
    let mut machine = new(2, 9);
    machine.step(Event::Follow {
        epoch: Epoch(3),
        donor: member(1),
    });
    machine.step(Event::Ended(TaskEnd::Followed { step: Step(5) }));
    // A leader that knew it at step 4.
    machine.step(Event::Announced(membership(4, 4, &[2], &[Source::Held])));
    machine.step(Event::Ended(TaskEnd::Superseded));
    assert_eq!(done(&mut machine), [Command::Ready]);
    assert_eq!(machine.offer().unwrap().held, Step(5));
}

#[test]
fn steps_that_were_skipped_unseen_change_the_number_alone() {
    let mut machine = new(0, 9);
    let m = Membership {
        state: Step(4),
        snapshot: true,
        ..membership(2, 7, &[0], &[Source::Checkpoint])
    };
    machine.step(Event::Announced(m));
    let acquire = Task::Acquire {
        step: Step(4),
        source: Source::Checkpoint,
    };
    assert_eq!(done(&mut machine), [run(acquire)]);
    assert_eq!(done(&mut machine), [run(Task::Skip { to: Step(7) })]);
    let out = done(&mut machine);
    let snapshot = Snapshot {
        step: Step(7),
        epoch: Epoch(2),
        shard: 0,
        of: 1,
    };
    assert_eq!(out[1], run(Task::Snapshot(snapshot)));
    assert_eq!(done(&mut machine), [compute(8, 0)]);
}

#[test]
fn its_part_of_a_checkpoint_is_copied_at_once_and_everyone_ends() {
    let mut machine = reported(1);
    let last = Verdict {
        snapshot: true,
        ..verdict(1, 1)
    };
    machine.step(Event::Committed(last));
    let snapshot = Snapshot {
        step: Step(1),
        epoch: Epoch(1),
        shard: 0,
        of: 2,
    };
    assert_eq!(done(&mut machine), [run(Task::Snapshot(snapshot))]);
    assert_eq!(done(&mut machine), [run(Task::Finish { evaluate: true })]);
    assert_eq!(
        done(&mut machine),
        [Command::Tell(Word::Finished { epoch: Epoch(1) })]
    );
    // If a member is lost at the end, the others say it again, and copy it again if they are told so.
    let m = Membership {
        snapshot: true,
        ..membership(2, 1, &[0], &[Source::Held])
    };
    machine.step(Event::Announced(m));
    let snapshot = Snapshot {
        epoch: Epoch(2),
        of: 1,
        ..snapshot
    };
    assert_eq!(done(&mut machine), [run(Task::Snapshot(snapshot))]);
    assert_eq!(done(&mut machine), [run(Task::Finish { evaluate: true })]);
}

#[test]
fn without_a_coordinator_it_offers_what_it_has_and_what_it_can_vouch_for() {
    let mut machine = computing(9);
    computed(&mut machine);
    let offer = machine.offer().unwrap();
    assert_eq!((offer.epoch, offer.held), (Epoch(1), Step(0)));
    assert_eq!(
        (offer.lanes, offer.members),
        (vec![Lane(0)], vec![worker(0), worker(1)])
    );
    computed(&mut machine);
    reduced(&mut machine);
    assert_eq!(
        machine.offer().unwrap().entries,
        [],
        "what is not committed nobody can vouch for"
    );
    machine.step(Event::Committed(verdict(1, 1)));
    let offer = machine.offer().unwrap();
    assert_eq!(
        (offer.held, offer.lanes.len()),
        (Step(1), 0),
        "a committed step is as good as applied"
    );
    let [entry] = &offer.entries[..] else {
        panic!("{offer:?}")
    };
    assert_eq!((entry.step, entry.digest.as_str()), (Step(1), "d"));
    assert_eq!(
        entry.spans.iter().map(|s| s.worker.slot).collect::<Vec<_>>(),
        [0, 0, 1, 1]
    );
    // Until it is known to be safe.
    done(&mut machine);
    computed(&mut machine);
    computed(&mut machine);
    reduced(&mut machine);
    machine.step(Event::Committed(Verdict {
        recorded: Step(1),
        ..verdict(1, 2)
    }));
    assert_eq!(machine.offer().unwrap().entries.len(), 1);
}

#[test]
fn told_to_forget_it_says_so_and_nothing_under_way_brings_it_back() {
    for begun in [computing as fn(u64) -> RankMachine, |steps| {
        let mut machine = reported(steps);
        machine.step(Event::Committed(verdict(1, 1)));
        machine
    }] {
        let mut machine = begun(9);
        let out = machine.step(Event::Held {
            epoch: Epoch(2),
            forget: true,
        });
        assert_eq!(out, [Command::Raise(Epoch(2)), Command::Ready]);
        assert_eq!((machine.offer(), done(&mut machine)), (None, vec![]));
        assert_eq!(machine.held(), None);
    }
}

#[test]
fn what_another_process_would_meet_as_well_is_fatal() {
    let mut machine = computing(9);
    let out = machine.step(Event::Ended(TaskEnd::Failed("shard 0 is corrupt".into())));
    assert_eq!(out, [Command::Tell(Word::Fatal("shard 0 is corrupt".into()))]);
}
