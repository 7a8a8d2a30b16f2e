//! A member cannot reach another one: the peer is dead, or the link between them is.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Job;
use crate::ids::{Epoch, WorkerId};
use crate::job::Command;
use crate::time::Instant;

/// How long the coordinator's own connection to an accused member may take to break too. When it does not, the
/// member lives and the link is to blame.
const DOUBT: Duration = Duration::from_millis(100);

/// What members say of each other in the step in flight.
#[derive(Clone, Debug, Default)]
pub(super) struct Complaints {
    open: Option<Complaint>,
    /// Pairs whose link has broken before, lower worker first.
    bad_links: BTreeSet<(WorkerId, WorkerId)>,
}

#[derive(Clone, Debug)]
struct Complaint {
    since: Instant,
    by: WorkerId,
    peer: WorkerId,
    reason: String,
}

impl Complaints {
    /// The step is committed: links have a clean slate.
    pub(super) fn forgive(&mut self) {
        self.bad_links.clear();
    }

    /// The epoch is raised: what was said of the last one does not matter any more.
    pub(super) fn close(&mut self) {
        self.open = None;
    }

    /// Remembers that the link between two members broke; whether it had before.
    fn again(&mut self, a: &WorkerId, b: &WorkerId) -> bool {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        !self.bad_links.insert((low.clone(), high.clone()))
    }

    /// Bad links of a member.
    fn count(&self, worker: &WorkerId) -> usize {
        self.bad_links
            .iter()
            .filter(|(a, b)| a == worker || b == worker)
            .count()
    }
}

impl Job {
    pub(super) fn peer_lost(
        &mut self,
        now: Instant,
        by: WorkerId,
        epoch: Epoch,
        peer: WorkerId,
        reason: String,
    ) {
        self.seen(now, &by);
        if epoch != self.epoch || !self.members.contains(&by) || !self.members.contains(&peer) {
            self.stale += 1;
            return;
        }
        let since = now;
        self.complaints.open.get_or_insert(Complaint {
            since,
            by,
            peer,
            reason,
        });
    }

    /// Acts on a complaint that nothing has settled in the meantime: the first time with fresh connections, the
    /// second time without the member that has more bad links.
    pub(super) fn judge_complaints(&mut self, now: Instant, out: &mut Vec<Command>) {
        let due = |complaint: &mut Complaint| now.since(complaint.since) >= DOUBT;
        let Some(Complaint { by, peer, reason, .. }) = self.complaints.open.take_if(due) else {
            return;
        };
        if !self.complaints.again(&by, &peer) {
            let reason = format!("{by} cannot reach {peer} ({reason}); both are alive, so they connect anew");
            self.announce(now, &reason, out);
            return;
        }
        let worse = if self.complaints.count(&by) > self.complaints.count(&peer) {
            by.clone()
        } else {
            peer.clone()
        };
        let reason = format!("{by} cannot reach {peer} for the second time in a step: {reason}");
        self.evict(now, &worse, &reason, out);
    }
}
