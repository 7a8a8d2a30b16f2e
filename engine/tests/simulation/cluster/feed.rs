//! The feed: a donor's state, and then each reduced gradient that it applies.

use std::collections::VecDeque;

use lockstep_engine::ids::{Step, WorkerId};
use lockstep_engine::membership::Member;
use lockstep_engine::rank::{Event, Task, TaskEnd};

use super::network::{ConnId, Place};
use super::{Payload, What, World};
use crate::invariants::planted_here;
use crate::plan::MS;
use crate::reference;

/// What a feed gives.
#[derive(Clone, Debug)]
pub(crate) enum Item {
    Snapshot {
        step: Step,
        state: u64,
        tainted: bool,
    },
    /// The gradient of a step, or that it was thrown away.
    Gradient {
        step: Step,
        gradient: u64,
        skip: bool,
    },
    /// All steps up to this one were skipped.
    Skipped {
        to: Step,
    },
}

/// A follower's end.
pub(crate) struct Feed {
    pub(crate) donor: WorkerId,
    pub(crate) conn: ConnId,
    /// The state that it has led to.
    at: Option<Step>,
    items: VecDeque<Item>,
}

impl World {
    /// The task to follow begins: through the feed that is open, or a new one.
    pub(crate) fn follow(&mut self, slot: usize, donor: &Member) {
        let process = self.worker_process(slot);
        let place = Place::Worker(donor.worker.slot as usize);
        let there = self.slot_of(&donor.worker).is_some();
        let Some(run) = self.run_of(slot) else { return };
        let held = run.state.map(|(step, _)| step);
        // A state that came from elsewhere needs a feed of its own.
        let goes_on = |feed: &Feed| feed.donor == donor.worker && feed.at == held;
        if !run.feed.as_ref().is_some_and(goes_on) {
            let old = run.feed.take();
            if let Some(old) = old {
                self.close(old.conn, 0, false);
            }
            let conn = self.connect(process, place, Payload::Feed(held));
            if !there {
                // Another process has taken the place: it refuses.
                self.network.conns[conn].open[1] = false;
                let at = self.now + self.delay();
                self.at(at, What::Closed { conn, to: 0 });
            }
            if let Some(run) = self.run_of(slot) {
                run.feed = Some(Feed {
                    donor: donor.worker.clone(),
                    conn,
                    at: held,
                    items: VecDeque::new(),
                });
            }
        }
        self.take_from_feed(slot);
    }

    /// A follower has come: it gets what it lacks.
    pub(crate) fn begin_to_feed(&mut self, slot: usize, conn: ConnId, held: Option<Step>) {
        let Some(run) = self.run_of(slot) else { return };
        run.fed.push(conn);
        let Some((step, state)) = run.state else { return };
        let tainted = run.tainted;
        let item = match run.applied {
            _ if held == Some(step) => return,
            Some((of, gradient, skip)) if of == step && held.map(Step::next) == Some(of) => {
                Item::Gradient { step, gradient, skip }
            }
            _ => Item::Snapshot { step, state, tainted },
        };
        let takes = if matches!(item, Item::Snapshot { .. }) {
            self.dice.below(30 * MS)
        } else {
            0
        };
        self.send_after(takes, conn, 1, Payload::Fed(item));
    }

    /// The state has changed: all followers hear of it.
    pub(crate) fn feed_all(&mut self, slot: usize, item: &Item) {
        let Some(run) = self.run_of(slot) else { return };
        run.applied = match item {
            Item::Gradient { step, gradient, skip } => Some((*step, *gradient, *skip)),
            _ => None,
        };
        let fed = run.fed.clone();
        let drop = self.dice.chance(10) && planted_here("a feed drops a gradient");
        for conn in fed {
            if !drop {
                self.send(conn, 1, Payload::Fed(item.clone()));
            }
        }
    }

    /// The state is gone, and with it the feed.
    pub(crate) fn stop_feeding(&mut self, slot: usize) {
        let fed = self
            .run_of(slot)
            .map(|run| std::mem::take(&mut run.fed))
            .unwrap_or_default();
        for conn in fed {
            self.close(conn, 1, false);
        }
    }

    pub(crate) fn fed(&mut self, slot: usize, conn: ConnId, item: Item) {
        let Some(run) = self.run_of(slot) else { return };
        if let Some(feed) = run.feed.as_mut().filter(|feed| feed.conn == conn) {
            feed.items.push_back(item);
            self.take_from_feed(slot);
        }
    }

    pub(crate) fn feed_closed(&mut self, slot: usize) {
        let Some(run) = self.run_of(slot) else { return };
        let Some(feed) = run.feed.take() else { return };
        let waits = |task: &mut (u64, Task)| matches!(&task.1, Task::Follow { donor, .. } if donor.worker == feed.donor);
        if run.task.take_if(waits).is_some() {
            let reason = "the feed closed".to_owned();
            let peer = feed.donor;
            self.rank(slot, Event::Ended(TaskEnd::PeerLost { peer, reason }));
        }
    }

    /// If the task is to follow and there is something, take it.
    fn take_from_feed(&mut self, slot: usize) {
        let Some(run) = self.workers[slot].run.as_mut() else {
            return;
        };
        let (Some((_, Task::Follow { .. })), Some(feed)) = (&run.task, &mut run.feed) else {
            return;
        };
        while let Some(item) = feed.items.pop_front() {
            run.copied = false;
            let held = run.state.map(|(step, _)| step);
            let (step, state) = match (&item, run.state) {
                (Item::Snapshot { step, state, tainted }, _) => {
                    run.tainted = *tainted;
                    (*step, *state)
                }
                (Item::Gradient { step, .. }, _) if held >= Some(*step) => continue,
                (Item::Skipped { to }, _) if held >= Some(*to) => continue,
                (Item::Gradient { step, gradient, skip }, Some((held, state))) => {
                    if held.next() != *step {
                        let text = format!("a follower at {held} was given the gradient of {step}");
                        self.violated(text);
                        return;
                    }
                    let state = if *skip {
                        state
                    } else {
                        reference::apply(state, *gradient)
                    };
                    (*step, state)
                }
                (Item::Skipped { to }, Some((_, state))) => (*to, state),
                (_, None) => {
                    self.violated("a follower without a state was given no snapshot");
                    return;
                }
            };
            feed.at = Some(step);
            run.task = None;
            run.state = Some((step, state));
            run.partials.clear();
            run.reduced = None;
            self.feed_all(slot, &item);
            self.check_state(slot);
            self.count("feed items");
            self.rank(slot, Event::Ended(TaskEnd::Followed { step }));
            return;
        }
    }
}
