//! What a rank's runtime does: one task at a time, and checkpoints in the background.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_engine::geometry::Node;
use lockstep_engine::ids::{Epoch, Lane, Step};
use lockstep_engine::job;
use lockstep_engine::membership::Source;
use lockstep_engine::rank::{Event, Snapshot, Task, TaskEnd};

use super::feed::Item;
use super::network::Place;
use super::{Payload, What, World};
use crate::faults::Moment;
use crate::invariants::planted_here;
use crate::plan::MS;
use crate::reference;

/// What the writer in the background has done.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    Shard(Snapshot, u64),
    Manifest { step: Step, epoch: Epoch, of: u32 },
}

impl World {
    /// Whatever waits for others in a lower epoch is over.
    pub(crate) fn raise(&mut self, slot: usize, epoch: Epoch) {
        let Some(run) = self.run_of(slot) else { return };
        run.fence = run.fence.max(epoch);
        run.heard.retain(|(of, _), _| *of >= epoch);
        let waits = |task: &mut (u64, Task)| match &task.1 {
            Task::Reduce { epoch: of, .. } | Task::Follow { epoch: of, .. } => *of < epoch,
            _ => false,
        };
        if run.task.take_if(waits).is_some() {
            self.rank(slot, Event::Ended(TaskEnd::Superseded));
        }
    }

    /// The state does not count any more.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.stop_feeding(slot);
        let Some(run) = self.run_of(slot) else { return };
        run.void = run.task.is_some();
        run.state = None;
        run.tainted = false;
        run.partials.clear();
        run.reduced = None;
        run.applied = None;
        if let Some(feed) = run.feed.take() {
            self.close(feed.conn, 0, false);
        }
    }

    pub(crate) fn begin(&mut self, slot: usize, task: Task) {
        let process = self.worker_process(slot);
        self.order += 1;
        let id = self.order;
        let (factor, until) = self.workers[slot].slow;
        let factor = if self.now < until { factor } else { 1 };
        let took = match &task {
            Task::Compute { .. } => (2 * MS + self.dice.below(12 * MS)) * factor,
            Task::Acquire { .. } => self.dice.below(30 * MS),
            _ => self.dice.below(2 * MS),
        };
        self.tell(|| format!("  slot {slot} begins {task:?}"));
        self.check_task(slot, &task);
        self.comes(Moment::of(&task, slot));
        let Some(run) = self.run_of(slot) else { return };
        if run.task.is_some() {
            self.violated(format!(
                "slot {slot} is given {task:?} while another task is under way"
            ));
            return;
        }
        run.task = Some((id, task.clone()));
        match task {
            Task::Reduce { epoch, step } => self.begin_reduce(slot, epoch, step),
            Task::Follow { donor, .. } => self.follow(slot, &donor),
            _ => self.at(self.now + took, What::TaskDone(process, id)),
        }
        if let Some(run) = self.run_of(slot)
            && let Some((of, Task::Compute { .. })) = &run.task
            && *of == id
        {
            self.workers[slot].compute_took = took;
        }
    }

    pub(crate) fn task_done(&mut self, slot: usize, id: u64) {
        let geometry = self.plan.rules.geometry;
        let took = Duration::from_micros(self.workers[slot].compute_took);
        let process = self.worker_process(slot);
        let Some(run) = self.run_of(slot) else { return };
        let Some((_, task)) = run.task.take_if(|(of, _)| *of == id) else {
            return;
        };
        let mut end = TaskEnd::Done;
        if std::mem::take(&mut run.void) {
            self.rank(slot, Event::Ended(end));
            return;
        }
        match task {
            Task::Enter { membership, keep } => {
                let kept =
                    |node: &Node| (node.start..node.start + node.len).map(|lane| keep.contains(&Lane(lane)));
                if run
                    .partials
                    .keys()
                    .any(|node| kept(node).any(|k| k) && !kept(node).all(|k| k))
                {
                    self.violated(format!("slot {slot} is to keep {keep:?}, a part of a sum"));
                    return;
                }
                run.partials.retain(|node, _| kept(node).all(|k| k));
                run.membership = Some(membership);
                self.link(slot);
            }
            Task::Acquire { step, source } => {
                let state = match source {
                    Source::Seed => Some(reference::seed_state()),
                    Source::Checkpoint => self.sealed.get(&step).copied(),
                    Source::Held | Source::Peer(_) => None,
                };
                let Some(state) = state else {
                    self.violated(format!("slot {slot} is to acquire {step} from {source:?}"));
                    return;
                };
                self.set_state(slot, step, state, false);
                self.feed_all(
                    slot,
                    &Item::Snapshot {
                        step,
                        state,
                        tainted: false,
                    },
                );
            }
            Task::Skip { to } => {
                let Some((_, state)) = run.state else { return };
                let tainted = run.tainted;
                self.set_state(slot, to, state, tainted);
                self.feed_all(slot, &Item::Skipped { to });
            }
            Task::Compute { step, lane } => {
                let Some((_, state)) = run.state else { return };
                let gradient = reference::lane_gradient(&geometry, state, step, lane);
                fold(&mut run.partials, Node::leaf(lane), gradient);
                end = TaskEnd::Computed { took };
            }
            Task::Apply { step, skip } => self.apply(slot, step, skip),
            Task::Snapshot(snapshot) => {
                let Some((step, state)) = run.state else { return };
                if step != snapshot.step {
                    self.violated(format!("slot {slot} at {step} is to copy {}", snapshot.step));
                }
                if planted_here("a part is reported before it is written") {
                    let worker = self.workers[slot].id.clone().unwrap();
                    let record = format!("{state:x}");
                    let word = job::Event::ShardWritten {
                        worker,
                        snapshot,
                        record,
                    };
                    self.say(slot, word);
                }
                if let Some(run) = self.run_of(slot) {
                    run.copied = true;
                }
                let at = self.now + self.dice.below(40 * MS);
                self.at(at, What::Written(process, Written::Shard(snapshot, state)));
            }
            Task::Finish { .. } => {}
            Task::Follow { .. } | Task::Reduce { .. } => return,
        }
        self.check_state(slot);
        self.rank(slot, Event::Ended(end));
    }

    fn set_state(&mut self, slot: usize, step: Step, state: u64, tainted: bool) {
        let Some(run) = self.run_of(slot) else { return };
        run.state = Some((step, state));
        run.tainted = tainted;
        run.partials.clear();
        run.reduced = None;
    }

    fn apply(&mut self, slot: usize, step: Step, skip: bool) {
        let wrong = self.workers[slot].wrong_weights;
        let Some(run) = self.run_of(slot) else { return };
        // What a lone member computes cannot be told from what is right.
        let wrong = wrong && run.membership.as_ref().is_some_and(|m| m.members.len() > 1);
        let (Some((held, state)), Some((epoch, of, gradient))) = (run.state, run.reduced) else {
            self.violated(format!(
                "slot {slot} is to apply {step}, but has no state or no gradient"
            ));
            return;
        };
        let told = run
            .told
            .map(|verdict| (verdict.epoch, verdict.step, verdict.skip));
        if told != Some((epoch, step, skip)) || held.next() != step || of != step {
            self.violated(format!(
                "slot {slot} at {held} applies {step} with the gradient of {of} of epoch {epoch}, told {told:?}"
            ));
            return;
        }
        let mut tainted = run.tainted;
        let mut state = if skip {
            state
        } else {
            reference::apply(state, gradient)
        };
        if wrong {
            (state, tainted) = (reference::mix(&[state, slot as u64]), true);
            self.workers[slot].wrong_weights = false;
            self.count("weights made wrong");
            self.watch.wrongs += 1;
            self.watch.really_wrong.insert(slot);
        }
        self.set_state(slot, step, state, tainted);
        if let Some(run) = self.run_of(slot) {
            run.copied = false;
        }
        self.feed_all(slot, &Item::Gradient { step, gradient, skip });
    }

    /// Connects to the members that there is no connection to.
    fn link(&mut self, slot: usize) {
        let process = self.worker_process(slot);
        let me = self.workers[slot].id.clone().unwrap();
        let Some(run) = self.run_of(slot) else { return };
        let members = run
            .membership
            .as_ref()
            .map(|m| m.members.clone())
            .unwrap_or_default();
        run.links
            .retain(|peer, _| members.iter().any(|m| m.worker == *peer));
        for peer in members
            .into_iter()
            .map(|member| member.worker)
            .filter(|peer| *peer != me)
        {
            if self.run_of(slot).is_none_or(|run| run.links.contains_key(&peer)) {
                continue;
            }
            let conn = self.connect(
                process,
                Place::Worker(peer.slot as usize),
                Payload::Peer(me.clone()),
            );
            if self.slot_of(&peer).is_none() {
                self.network.conns[conn].open[1] = false;
                let at = self.now + self.delay();
                self.at(at, What::Closed { conn, to: 0 });
            }
            if let Some(run) = self.run_of(slot) {
                run.links.insert(peer, conn);
            }
        }
    }

    fn begin_reduce(&mut self, slot: usize, epoch: Epoch, step: Step) {
        let me = self.workers[slot].id.clone().unwrap();
        let Some(run) = self.run_of(slot) else { return };
        let Some(membership) = run.membership.clone().filter(|m| m.epoch == epoch) else {
            self.violated(format!(
                "slot {slot} reduces in epoch {epoch} that it did not enter"
            ));
            return;
        };
        let assignment = membership.assignment(step);
        let rank = membership.rank_of(&me).unwrap();
        let mut nodes = Vec::new();
        for node in assignment.nodes_of(rank) {
            match reference::combine(&run.partials, node) {
                Some(sum) => nodes.push((node, sum)),
                None => {
                    self.violated(format!("slot {slot} reduces {step} without all of its lanes"));
                    return;
                }
            }
        }
        let links: Vec<_> = run.links.values().copied().collect();
        let members = membership.members.len();
        for conn in links {
            let nodes = nodes.clone();
            self.send(conn, 0, Payload::Partials { epoch, step, nodes });
        }
        let wrong = self.wrong_partial(slot, step, members);
        if let Some(run) = self.run_of(slot) {
            let mut nodes = nodes;
            if wrong && let Some((node, sum)) = nodes.first_mut() {
                // What was sent was right.
                *sum = reference::mix(&[*sum, slot as u64]);
                run.partials.insert(*node, *sum);
            }
            run.heard.entry((epoch, step)).or_default().extend(nodes);
        }
        self.try_reduce(slot);
    }

    /// Whether a partial goes wrong in memory after it was sent. A lone member's mistake cannot be told, nor those of two
    /// at once.
    fn wrong_partial(&mut self, slot: usize, step: Step, members: usize) -> bool {
        let wrong = self.workers[slot].wrong_partial && members > 1 && step > self.watch.wrong_in;
        if wrong {
            self.workers[slot].wrong_partial = false;
            self.count("partials made wrong");
            self.watch.really_wrong.insert(slot);
            self.watch.wrongs += 1;
            self.watch.wrong_in = step;
        }
        wrong
    }

    pub(crate) fn try_reduce(&mut self, slot: usize) {
        let lanes = self.plan.rules.geometry.lanes;
        let compare = self.plan.compare_every;
        let wrong = self.workers[slot].wrong_gradient;
        let Some(run) = self.run_of(slot) else { return };
        let Some((_, Task::Reduce { epoch, step })) = run.task else {
            return;
        };
        let Some(mut gradient) = run
            .heard
            .get(&(epoch, step))
            .and_then(|nodes| reference::combine(nodes, Node::root(lanes)))
        else {
            return;
        };
        // A lone member's mistake cannot be told.
        let members = run.membership.as_ref().map_or(0, |m| m.members.len());
        let wrong = wrong && members > 1;
        if wrong {
            gradient ^= 1 << slot;
        }
        run.reduced = Some((epoch, step, gradient));
        run.task = None;
        let doubted = run
            .membership
            .as_ref()
            .is_some_and(|membership| membership.recompute && step == membership.base.next());
        let compared = run.copied || doubted || compare > 0 && step.0 % compare == 0;
        let weights = run.state.filter(|_| compared).map(|(_, state)| state);
        let result = reference::reduced(&self.plan, step, gradient, weights);
        if wrong {
            self.workers[slot].wrong_gradient = false;
            self.count("gradients made wrong");
            self.watch.really_wrong.insert(slot);
            self.watch.wrongs += 1;
        }
        self.rank(slot, Event::Ended(TaskEnd::Reduced(result)));
    }

    pub(crate) fn seal(&mut self, slot: usize, step: Step, epoch: Epoch, of: u32) {
        let process = self.worker_process(slot);
        self.comes(Moment::Seal(slot));
        let at = self.now + self.dice.below(10 * MS);
        self.at(at, What::Written(process, Written::Manifest { step, epoch, of }));
    }

    /// Something is on disk now.
    pub(crate) fn written(&mut self, slot: usize, written: Written) {
        let worker = self.workers[slot].id.clone().unwrap();
        let event = match written {
            Written::Shard(Snapshot { step, .. }, _)
                if self.now < self.workers[slot].disk_full_until && step < self.plan.rules.steps =>
            {
                self.count("parts that did not fit the disk");
                let reason = "the disk is full".to_owned();
                job::Event::CheckpointFailed { worker, step, reason }
            }
            Written::Shard(snapshot, state) => {
                self.shards
                    .insert((snapshot.step, snapshot.epoch, snapshot.shard), state);
                let record = format!("{state:x}");
                job::Event::ShardWritten {
                    worker,
                    snapshot,
                    record,
                }
            }
            Written::Manifest { step, epoch, of } => {
                let parts: Vec<Option<u64>> = (0..of)
                    .map(|shard| self.shards.get(&(step, epoch, shard)).copied())
                    .collect();
                let Some(parts) = parts
                    .into_iter()
                    .collect::<Option<Vec<u64>>>()
                    .filter(|p| !p.is_empty())
                else {
                    self.violated(format!(
                        "the checkpoint of {step} of epoch {epoch} is sealed without all its parts"
                    ));
                    return;
                };
                let whole = parts.windows(2).all(|pair| pair[0] == pair[1]);
                let state = if whole { parts[0] } else { reference::mix(&parts) };
                // One that is whole is never replaced.
                let state = *self.sealed.entry(step).or_insert(state);
                self.count("checkpoints sealed");
                let weights = format!("{state:x}");
                job::Event::CheckpointWritten {
                    worker,
                    step,
                    weights,
                }
            }
        };
        // It may die between the write and the word.
        self.trapped(Place::Worker(slot));
        self.say(slot, event);
    }
}

/// Adds a sum to those that are there; two halves become one, and cannot be taken apart again.
fn fold(partials: &mut BTreeMap<Node, u64>, node: Node, sum: u64) {
    match partials.remove(&node.sibling()) {
        Some(other) if node.is_left() => fold(partials, node.parent(), reference::mix(&[3, sum, other])),
        Some(other) => fold(partials, node.parent(), reference::mix(&[3, other, sum])),
        None => drop(partials.insert(node, sum)),
    }
}
