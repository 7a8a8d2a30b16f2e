//! What operations share: moving frames to and from the links, waiting, and giving up.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Instant;

use lockstep_engine::ids::{Epoch, Rank, Step};

use crate::error::CollectiveError;
use crate::limits::QUEUE_FRAMES;
use crate::mailbox::{Received, Topic};
use crate::outbound::Link;
use crate::reduction::Outbox;
use crate::state::{Roster, Shared, State};

/// An operation in the group that was current when it began.
pub(crate) struct Operation<'a> {
    shared: &'a Shared,
    roster: Arc<Roster>,
    heard: Instant,
}

impl<'a> Operation<'a> {
    /// Begins one.
    pub(crate) fn begin(shared: &'a Shared) -> Result<Self, CollectiveError> {
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
        })
    }

    /// The group.
    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    /// Claims the reduction of `step`. Frames of earlier ones are stale from now on.
    pub(crate) fn claim(&self, step: Step) -> Result<(), CollectiveError> {
        let mut state = self.shared.lock();
        self.check(&state)?;
        if state.begun.is_some_and(|begun| step <= begun) {
            return Err(CollectiveError::AlreadyRun {
                epoch: self.roster.epoch,
                step,
            });
        }
        state.begun = Some(step);
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
