use super::*;
use crate::geometry::Assignment;
use crate::membership::Member;

fn worker(slot: u32) -> WorkerId {
    WorkerId {
        node: "n".parse().unwrap(),
        slot,
        incarnation: 1,
    }
}

fn membership(epoch: u64, base: u64, slots: &[u32], sources: &[Source]) -> Membership {
    let address = ([127, 0, 0, 1], 9000).into();
    Membership {
        epoch: Epoch(epoch),
        base: Step(base),
        members: slots
            .iter()
            .map(|&slot| Member {
                worker: worker(slot),
                address,
            })
            .collect(),
        sources: sources.to_vec(),
        first: Assignment::fresh(4, slots.len() as u32),
        recompute: false,
    }
}

fn done(machine: &mut RankMachine) -> Vec<Command> {
    machine.step(Event::Ended(TaskEnd::Done))
}

fn run(task: Task) -> Command {
    Command::Run(task)
}

/// Worker 0 of two, with the seed's state, computing its first lane of step 1.
fn computing(steps: u64, checkpoint_every: u64) -> RankMachine {
    let mut machine = RankMachine::new(worker(0), Step(steps), checkpoint_every);
    let m = membership(1, 0, &[0, 1], &[Source::Seed, Source::Seed]);
    let out = machine.step(Event::Announced(m.clone()));
    assert_eq!(out, [Command::Raise(Epoch(1)), run(Task::Enter(m))]);
    assert_eq!(
        done(&mut machine),
        [run(Task::Acquire {
            step: Step(0),
            source: Source::Seed
        })]
    );
    let out = done(&mut machine);
    let lane = Lane(0);
    let told = Command::Tell(Word::Holding { epoch: Epoch(1) });
    assert_eq!(out, [told, run(Task::Compute { step: Step(1), lane })]);
    machine
}

fn reduced(epoch: u64, step: u64, lanes: &[u32]) -> Command {
    let lanes = lanes.iter().copied().map(Lane).collect();
    Command::Tell(Word::Reduced {
        epoch: Epoch(epoch),
        step: Step(step),
        lanes,
    })
}

#[test]
fn a_step_is_computed_reduced_reported_and_applied_only_after_the_commit() {
    let mut machine = computing(9, 0);
    assert_eq!(
        done(&mut machine),
        [run(Task::Compute {
            step: Step(1),
            lane: Lane(1)
        })]
    );
    assert_eq!(
        done(&mut machine),
        [run(Task::Reduce {
            epoch: Epoch(1),
            step: Step(1)
        })]
    );
    assert_eq!(done(&mut machine), [reduced(1, 1, &[0, 1])]);
    for (epoch, step) in [(0, 1), (2, 1), (1, 2)] {
        let event = Event::Committed {
            epoch: Epoch(epoch),
            step: Step(step),
            ends_epoch: false,
        };
        assert_eq!(machine.step(event), [], "not the commit of what it reported");
    }
    let commit = Event::Committed {
        epoch: Epoch(1),
        step: Step(1),
        ends_epoch: false,
    };
    assert_eq!(machine.step(commit), [run(Task::Apply { step: Step(1) })]);
    assert_eq!(
        done(&mut machine),
        [run(Task::Compute {
            step: Step(2),
            lane: Lane(0)
        })]
    );
    assert_eq!((machine.held(), machine.stale()), (Some(Step(1)), 3));
}

#[test]
fn after_a_loss_it_keeps_what_it_computed_and_computes_only_the_orphans() {
    let mut machine = computing(9, 0);
    done(&mut machine);
    done(&mut machine);
    // In the middle of the reduction of epoch 1:
    let m = membership(2, 0, &[0], &[Source::Held]);
    assert_eq!(
        machine.step(Event::Announced(m.clone())),
        [Command::Raise(Epoch(2))]
    );
    assert_eq!(
        machine.step(Event::Ended(TaskEnd::Superseded)),
        [run(Task::Enter(m))]
    );
    assert_eq!(
        done(&mut machine),
        [run(Task::Compute {
            step: Step(1),
            lane: Lane(2)
        })]
    );
    assert_eq!(
        done(&mut machine),
        [run(Task::Compute {
            step: Step(1),
            lane: Lane(3)
        })]
    );
    assert_eq!(
        done(&mut machine),
        [run(Task::Reduce {
            epoch: Epoch(2),
            step: Step(1)
        })]
    );
    assert_eq!(done(&mut machine), [reduced(2, 1, &[0, 1, 2, 3])]);
}

#[test]
fn a_lost_peer_is_told_once_and_a_new_epoch_awaited() {
    let mut machine = computing(9, 0);
    done(&mut machine);
    done(&mut machine);
    let end = TaskEnd::PeerLost {
        peer: worker(1),
        reason: "eof".into(),
    };
    let word = Word::PeerLost {
        epoch: Epoch(1),
        peer: worker(1),
        reason: "eof".into(),
    };
    assert_eq!(machine.step(Event::Ended(end)), [Command::Tell(word)]);
    let again = Event::PeerLost {
        epoch: Epoch(1),
        peer: worker(1),
        reason: "eof".into(),
    };
    assert_eq!(machine.step(again), []);
    let m = membership(2, 0, &[0], &[Source::Held]);
    assert_eq!(
        machine.step(Event::Announced(m.clone())),
        [Command::Raise(Epoch(2)), run(Task::Enter(m))]
    );
}

#[test]
fn announcements_of_the_past_and_for_others_are_void() {
    let mut machine = computing(9, 0);
    assert_eq!(
        machine.step(Event::Announced(membership(1, 0, &[0], &[Source::Seed]))),
        []
    );
    assert_eq!(
        machine.step(Event::Announced(membership(5, 0, &[1], &[Source::Seed]))),
        []
    );
    assert_eq!(
        machine.step(Event::Held {
            epoch: Epoch(1),
            forget: true
        }),
        []
    );
    assert_eq!((machine.stale(), machine.epoch()), (3, Epoch(1)));
}

#[test]
fn a_donor_gives_before_it_computes_and_a_newcomer_takes_before_it_does() {
    let mut machine = computing(9, 0);
    done(&mut machine);
    done(&mut machine);
    done(&mut machine);
    machine.step(Event::Committed {
        epoch: Epoch(1),
        step: Step(1),
        ends_epoch: true,
    });
    assert_eq!(
        done(&mut machine),
        [],
        "the epoch is over; the next is on its way"
    );
    let m = membership(
        2,
        1,
        &[0, 1, 2],
        &[Source::Held, Source::Held, Source::Peer(Rank(0))],
    );
    machine.step(Event::Announced(m.clone()));
    assert_eq!(
        done(&mut machine),
        [run(Task::Donate {
            step: Step(1),
            to: vec![Rank(2)]
        })]
    );
    assert_eq!(
        done(&mut machine),
        [run(Task::Compute {
            step: Step(2),
            lane: Lane(0)
        })]
    );

    let mut newcomer = RankMachine::new(worker(2), Step(9), 0);
    newcomer.step(Event::Announced(m));
    assert_eq!(
        done(&mut newcomer),
        [run(Task::Acquire {
            step: Step(1),
            source: Source::Peer(Rank(0))
        })]
    );
    assert_eq!(
        done(&mut newcomer)[1],
        run(Task::Compute {
            step: Step(2),
            lane: Lane(2)
        })
    );
}

#[test]
fn a_disputed_step_is_computed_from_nothing() {
    let mut machine = computing(9, 0);
    done(&mut machine);
    done(&mut machine);
    done(&mut machine);
    let m = Membership {
        recompute: true,
        ..membership(2, 0, &[0, 1], &[Source::Held; 2])
    };
    machine.step(Event::Announced(m));
    assert_eq!(
        done(&mut machine),
        [run(Task::Compute {
            step: Step(1),
            lane: Lane(0)
        })]
    );
}

#[test]
fn the_first_rank_writes_checkpoints_when_due_and_everyone_ends() {
    let mut machine = computing(2, 1);
    for step in 1..=2 {
        done(&mut machine);
        done(&mut machine);
        done(&mut machine);
        machine.step(Event::Committed {
            epoch: Epoch(1),
            step: Step(step),
            ends_epoch: false,
        });
        assert_eq!(done(&mut machine), [run(Task::Checkpoint { step: Step(step) })]);
        let out = done(&mut machine);
        assert_eq!(
            out[0],
            Command::Tell(Word::CheckpointWritten { step: Step(step) })
        );
        let next = if step == 1 {
            Task::Compute {
                step: Step(2),
                lane: Lane(0),
            }
        } else {
            Task::Finish { evaluate: true }
        };
        assert_eq!(out[1], run(next));
    }
    assert_eq!(
        done(&mut machine),
        [Command::Tell(Word::Finished { epoch: Epoch(1) })]
    );
    // If a member is lost at the end, the others say it again.
    machine.step(Event::Announced(membership(2, 2, &[0], &[Source::Held])));
    assert_eq!(done(&mut machine), [run(Task::Finish { evaluate: true })]);
}

#[test]
fn told_to_forget_it_looks_for_checkpoints_and_says_so() {
    let mut machine = computing(9, 0);
    let out = machine.step(Event::Held {
        epoch: Epoch(2),
        forget: true,
    });
    assert_eq!(out, [Command::Raise(Epoch(2)), Command::Ready]);
    assert_eq!((done(&mut machine), machine.held()), (vec![], None));
}

#[test]
fn what_another_process_would_meet_as_well_is_fatal() {
    let mut machine = computing(9, 0);
    let out = machine.step(Event::Ended(TaskEnd::Failed("shard 0 is corrupt".into())));
    assert_eq!(out, [Command::Tell(Word::Fatal("shard 0 is corrupt".into()))]);
}
