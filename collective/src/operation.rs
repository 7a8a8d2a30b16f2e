//! What operations share: moving frames to and from the links, waiting, and giving up.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use lockstep_engine::ids::{Epoch, Rank};

use crate::agreement::Way;
use crate::error::{CollectiveError, LossReason};
use crate::frame::FrameError;
use crate::hosts::Hosts;
use crate::limits::{LONGEST_SLEEP, QUEUE_FRAMES};
use crate::mailbox::{Received, Topic, Turn};
use crate::neighbours::Neighbours;
use crate::outbound::Link;
use crate::reduction::Outbox;
use crate::slots::Unreadable;
use crate::state::{Roster, Shared, State, Traffic};

/// An operation in the group that was current when it began.
pub(crate) struct Operation<'a> {
    shared: &'a Shared,
    roster: Arc<Roster>,
    heard: Instant,
    /// How often the alarm had rung when it was last seen to what.
    rung: u32,
}

impl<'a> Operation<'a> {
    /// Begins one.
    pub(crate) fn begin(shared: &'a Shared) -> Result<Self, CollectiveError> {
        let rung = shared.alarm.count();
        let state = shared.lock();
        let roster = match &state.roster {
            Some(roster) => roster.clone(),
            None if state.closed => return Err(CollectiveError::Closed),
            None => return Err(CollectiveError::NotEntered),
        };
        check(&state, roster.epoch)?;
        Ok(Self {
            shared,
            roster,
            heard: Instant::now(),
            rung,
        })
    }

    /// The group.
    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Claims a reduction. Frames of earlier ones are stale from now on.
    pub(crate) fn claim(&self, turn: Turn) -> Result<(), CollectiveError> {
        let mut state = self.shared.lock();
        self.check(&state)?;
        if state.begun.is_some_and(|begun| turn <= begun) {
            return Err(CollectiveError::AlreadyRun {
                epoch: self.roster.epoch,
                step: turn.step,
                bucket: turn.bucket,
            });
        }
        state.begun = Some(turn);
        state.purge(&self.shared.pool);
        drop(state);
        self.shared.room.notify_all();
        Ok(())
    }

    /// Moves frames from `outbox` to the links and frames of `topic` to `batch`, and waits until it has moved
    /// any; at once if nothing is to be sent and `missing` is 0.
    ///
    /// A loss ends the operation unless all is sent and the frames at hand are all that it still needs.
    pub(crate) fn exchange(
        &mut self,
        outbox: &mut Outbox,
        topic: &Topic,
        missing: usize,
        awaited: impl Fn() -> Vec<Rank>,
        batch: &mut Vec<Received>,
    ) -> Result<(), CollectiveError> {
        let mut state = self.shared.lock();
        loop {
            self.check(&state)?;
            state.mailbox.take(topic, batch);
            if (missing > batch.len() || !outbox.is_empty())
                && let Some(lost) = state.loss()
            {
                return Err(lost);
            }
            let mut moved = false;
            for rank in (0..self.roster.size()).map(Rank) {
                let Some(link) = state.link_to(rank) else { continue };
                while link.queue.len() < QUEUE_FRAMES
                    && let Some(frame) = outbox.pop(rank)
                {
                    link.push(frame);
                    moved = true;
                }
            }
            if moved || !batch.is_empty() {
                self.heard = Instant::now();
                self.unblock_readers(&state);
                if missing == 0 || !batch.is_empty() {
                    return Ok(());
                }
            }
            if missing == 0 && outbox.is_empty() {
                return Ok(());
            }
            let waiting = || {
                let mut ranks = awaited();
                ranks.extend(outbox.waiting());
                ranks.sort_unstable();
                ranks.dedup();
                ranks
            };
            state = self.wait(state, waiting)?;
        }
    }

    /// The way between the members, if they have agreed on one.
    pub(crate) fn known_way(&self) -> Result<Option<Way>, CollectiveError> {
        let state = self.shared.lock();
        self.check(&state)?;
        Ok(state.way.clone())
    }

    /// Notes how a reduction through shared memory has ended. After one that ended in the middle, stages were left out, so
    /// counts of them mean nothing any more.
    pub(crate) fn end_in_memory(&self, reduced: Result<(), CollectiveError>) -> Result<(), CollectiveError> {
        match &reduced {
            Ok(()) => self.shared.lock().stats.shared_reductions += 1,
            Err(error) => self.set_way(Way::Broken(error.clone())),
        }
        reduced
    }

    /// Notes on which way the members have agreed, unless they are a group no more.
    pub(crate) fn set_way(&self, way: Way) {
        let mut state = self.shared.lock();
        if self.check(&state).is_ok() && state.epoch() == self.roster.epoch {
            state.way = Some(way);
        }
    }

    /// Waits for all members to greet, and says which are of which host. `None` if one shares memory with none.
    pub(crate) fn hosts(&mut self) -> Result<Option<Hosts>, CollectiveError> {
        let Some(here) = &self.shared.host else {
            return Ok(None);
        };
        let mut state = self.shared.lock();
        loop {
            self.check(&state)?;
            if let Some(lost) = state.loss() {
                return Err(lost);
            }
            let (mut silent, mut names) = (Vec::new(), Vec::new());
            for (rank, member) in (0u32..).map(Rank).zip(&self.roster.members) {
                match state.host_of(&member.identity) {
                    _ if rank == self.roster.rank => names.push(here.as_str()),
                    Some("") => return Ok(None),
                    Some(host) => names.push(host),
                    None => silent.push(rank),
                }
            }
            if silent.is_empty() {
                return Ok(Some(Hosts::new(&names)));
            }
            state = self.wait(state, || silent.clone())?;
        }
    }

    /// Waits until all neighbours have come to a stage. A loss ends the operation if there is anything to wait for.
    pub(crate) fn await_stage(&mut self, neighbours: &Neighbours, stage: u32) -> Result<(), CollectiveError> {
        let alarm = &self.shared.alarm;
        loop {
            let behind = neighbours.look(stage, !self.shared.computing.load(Ordering::Relaxed));
            let rung = alarm.count();
            if behind.is_none() && rung == self.rung {
                self.heard = Instant::now();
                return Ok(());
            }
            let state = self.shared.lock();
            self.check(&state)?;
            let loss = state.loss();
            drop(state);
            self.rung = rung;
            // Whoever is lost now may have come so far before.
            let Some(rank) = behind.and_then(|_| neighbours.behind(stage).next()) else {
                self.heard = Instant::now();
                return Ok(());
            };
            if let Some(lost) = loss {
                return Err(lost);
            }
            let after = self.shared.timeout;
            let left = (self.heard + after).saturating_duration_since(Instant::now());
            if left.is_zero() {
                let waiting = neighbours.behind(stage).map(|rank| neighbours.member(rank));
                let waiting = waiting.collect();
                return Err(CollectiveError::TimedOut { after, waiting });
            }
            let slept = neighbours.sleep((rank, stage), (alarm, rung), left.min(LONGEST_SLEEP));
            let failed = |error: std::io::Error| CollectiveError::System {
                verb: "wait for a member".to_owned(),
                kind: error.kind(),
            };
            if slept.map_err(failed)? {
                self.heard = Instant::now();
            }
        }
    }

    /// What it means that a member's message cannot be read. A damaged one is a loss, as a damaged frame is: the
    /// connection breaks, so that the other end hears of it.
    pub(crate) fn cannot_read(&self, rank: Rank, problem: Unreadable) -> CollectiveError {
        if problem == Unreadable::Another {
            let what = "other arguments, or another step, in shared memory".to_owned();
            return CollectiveError::Disagreement { rank, what };
        }
        let identity = self.roster.members[rank.index()].identity.clone();
        let reason = LossReason::Frame(FrameError::PayloadChecksum);
        let mut state = self.shared.lock();
        state.stats.bad_frames += 1;
        state.hang_up(&identity);
        let lost = state.lose(&identity, reason.clone());
        self.shared.tell(state, lost);
        CollectiveError::PeerLost {
            rank,
            identity,
            reason,
        }
    }

    /// Adds up what went through shared memory.
    pub(crate) fn note(&self, traffic: &mut Traffic) {
        let Traffic { sent, received } = std::mem::take(traffic);
        let mut state = self.shared.lock();
        state.stats.sent_frames += sent.0;
        state.stats.sent_bytes += sent.1;
        state.stats.shared_bytes += sent.1;
        state.stats.received_frames += received.0;
        state.stats.received_bytes += received.1;
        drop(state);
        self.shared.events.notify_all();
    }

    /// Waits until no link holds a frame that `which` holds of. Gives up without an error when the operation
    /// is over anyway.
    pub(crate) fn settle(&self, which: impl Fn(&Link) -> bool) {
        let mut state = self.shared.lock();
        state.settling += 1;
        while self.check(&state).is_ok() && state.links.values().any(|link| link.is_open() && which(link)) {
            match self.wait(state, Vec::new) {
                Ok(woken) => state = woken,
                Err(_) => {
                    state = self.shared.lock();
                    break;
                }
            }
        }
        state.settling -= 1;
    }

    fn check(&self, state: &State) -> Result<(), CollectiveError> {
        check(state, self.roster.epoch)
    }

    fn unblock_readers(&self, state: &State) {
        if state.blocked_readers > 0 {
            self.shared.room.notify_all();
        }
    }

    /// Waits for anything to happen, but not for ever.
    fn wait<'s>(
        &self,
        state: MutexGuard<'s, State>,
        waiting: impl Fn() -> Vec<Rank>,
    ) -> Result<MutexGuard<'s, State>, CollectiveError>
    where
        'a: 's,
    {
        let after = self.shared.timeout;
        let left = (self.heard + after).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CollectiveError::TimedOut {
                after,
                waiting: waiting(),
            });
        }
        let woken = self.shared.events.wait_timeout(state, left);
        Ok(woken.unwrap_or_else(PoisonError::into_inner).0)
    }
}

/// Whether an operation of `epoch` may go on.
fn check(state: &State, epoch: Epoch) -> Result<(), CollectiveError> {
    if state.closed {
        return Err(CollectiveError::Closed);
    }
    if state.raised > epoch {
        return Err(CollectiveError::Superseded {
            epoch,
            by: state.raised,
        });
    }
    Ok(())
}
