//! No time-out is needed to notice a closed connection: the member is out long before its lease is over.

use lockstep_engine::ids::WorkerId;

use crate::cluster::network::Place;
use crate::cluster::{What, World};
use crate::plan::MS;

/// The close travels, an epoch before it may still be on its way to the store, and so is its own; far less than a lease.
const BOUND: u64 = 330 * MS;

/// A death that has to be noticed.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    coordinator: usize,
    term: u64,
    worker: WorkerId,
    died: u64,
}

impl World {
    /// A process is about to die: whoever leads it is to notice.
    pub(crate) fn expect_prompt_notice(&mut self, place: Place) {
        let Place::Worker(slot) = place else { return };
        let Some(worker) = self.workers[slot].id.clone() else {
            return;
        };
        for coordinator in 0..self.coordinators.len() {
            let Some(leader) = self.leader(coordinator) else {
                continue;
            };
            let (term, conn) = (leader.term, leader.sessions.get(&worker).copied());
            if conn.is_some_and(|conn| self.network.conns[conn].open == [true; 2]) {
                let due = Due {
                    coordinator,
                    term,
                    worker: worker.clone(),
                    died: self.now,
                };
                self.at(self.now + BOUND, What::Prompt(due));
            }
        }
    }

    pub(crate) fn check_prompt(&mut self, due: &Due) {
        if self.watch.trouble_until >= due.died {
            return;
        }
        let Some(leader) = self.leader(due.coordinator) else {
            return;
        };
        if leader.term == due.term && leader.job.members().contains(&due.worker) {
            self.violated(format!(
                "{} is dead for {} ms and still a member",
                due.worker,
                BOUND / MS
            ));
        }
        self.count("deaths noticed in time");
    }
}
