//! When the leader dies, a coordinator that lives leads within the lease and a second.

use crate::cluster::candidate::Role;
use crate::cluster::network::{Place, Process};
use crate::cluster::store::LEASE;
use crate::cluster::{What, World};
use crate::plan::MS;

const BOUND: u64 = LEASE + 1000 * MS;

/// A leader's death.
#[derive(Clone, Debug)]
pub(crate) struct Vacancy {
    term: u64,
    died: u64,
    heir: Process,
}

impl World {
    /// A process is about to die. If it leads, and another coordinator lives, that one is to follow it.
    pub(crate) fn expect_heir(&mut self, place: Place) {
        let Place::Coordinator(index) = place else { return };
        let Some(term) = self.leader(index).map(|leader| leader.term) else {
            return;
        };
        let others = (0..self.coordinators.len()).filter(|&other| other != index);
        let alive = others.filter(|&other| self.coordinators[other].life.alive).min();
        if let Some(other) = alive {
            let heir = self.coordinator_process(other);
            let died = self.now;
            self.at(died + BOUND, What::Vacant(Vacancy { term, died, heir }));
        }
    }

    pub(crate) fn check_heir(&mut self, vacancy: &Vacancy) {
        let undisturbed = self.watch.trouble_until < vacancy.died;
        if !undisturbed || self.life(vacancy.heir.place) != Some(vacancy.heir.life) {
            return;
        }
        let leads = |role: &Role| matches!(role, Role::Leading(leader) if leader.term > vacancy.term);
        let mut roles = self.coordinators.iter().map(|coordinator| &coordinator.role);
        // One that has led since may have died, too.
        if !roles.any(leads) && self.store.is_vacant_since(vacancy.term) {
            self.violated(format!(
                "nobody leads {} ms after the death of the leader",
                BOUND / MS
            ));
        }
        self.count("leaders that had an heir in time");
    }
}
