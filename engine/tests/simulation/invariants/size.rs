//! There are never more members than the job's most, each once, in order.

use lockstep_engine::membership::Membership;

use crate::cluster::World;

impl World {
    pub(crate) fn check_size(&mut self, membership: &Membership) {
        let members = &membership.members;
        let sorted = members.is_sorted_by(|a, b| {
            (&a.worker.slot, a.worker.incarnation) < (&b.worker.slot, b.worker.incarnation)
        });
        if members.len() > self.plan.rules.max_workers as usize || members.is_empty() || !sorted {
            self.violated(format!("members {members:?}"));
        }
        if members
            .windows(2)
            .any(|pair| pair[0].worker.slot == pair[1].worker.slot)
        {
            self.violated(format!("two processes of one slot: {members:?}"));
        }
        self.count("epochs");
        if members.len() == self.plan.rules.max_workers as usize {
            self.count("epochs of full size");
        }
    }
}
