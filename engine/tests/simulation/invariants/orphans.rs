//! A follower whose donor is gone gets another one at once, as long as there is room for it.

use lockstep_engine::job::{Command, Phase};

use crate::cluster::World;

impl World {
    pub(crate) fn check_followers(&mut self, index: usize, commands: &[Command]) {
        let room = (self.plan.rules.max_workers + self.plan.rules.spares) as usize;
        let drained: Vec<u32> = (0..self.workers.len())
            .filter(|&slot| self.workers[slot].drained_until > 0)
            .map(|slot| slot as u32)
            .collect();
        let Some(leader) = self.leader(index) else { return };
        for command in commands {
            match command {
                Command::Follow { worker, donor, .. } => {
                    leader.follows.insert(worker.clone(), donor.worker.clone());
                }
                Command::Announce(membership) => {
                    leader
                        .follows
                        .retain(|worker, _| membership.rank_of(worker).is_none());
                }
                Command::Hold { .. } => leader.follows.clear(),
                _ => {}
            }
        }
        let there = leader.job.workers();
        leader.follows.retain(|worker, _| there.contains(worker));
        if !matches!(leader.job.phase(), Phase::Stepping | Phase::Finishing) {
            return;
        }
        let is_orphan = |donor| !there.contains(donor);
        let fed = leader.follows.values().filter(|donor| !is_orphan(donor)).count();
        let orphan = leader
            .follows
            .iter()
            .find(|(worker, donor)| is_orphan(donor) && !drained.contains(&worker.slot));
        if let Some((worker, donor)) = orphan
            && leader.job.members().len() + fed < room
        {
            let text = format!("{worker} follows {donor}, which is gone");
            self.violated(text);
        }
    }
}
