//! A step is committed once an epoch, with the one digest that every member of the epoch has reported.

use std::collections::{BTreeMap, HashMap};

use lockstep_engine::ids::{Epoch, Step, WorkerId};
use lockstep_engine::job::Report;
use lockstep_engine::membership::Membership;
use lockstep_engine::rank::Verdict;

use crate::cluster::World;

#[derive(Default)]
pub(crate) struct Digests {
    said: HashMap<(Epoch, Step), BTreeMap<WorkerId, String>>,
    members: BTreeMap<Epoch, Vec<WorkerId>>,
    committed: BTreeMap<(Epoch, Step), Verdict>,
}

impl Digests {
    pub(crate) fn said(&mut self, report: &Report) {
        let said = self.said.entry((report.epoch, report.step)).or_default();
        said.insert(report.worker.clone(), report.result.digest.clone());
    }

    /// Whether it is the first of its epoch.
    pub(crate) fn announced(&mut self, membership: &Membership) -> bool {
        let members = membership.members.iter().map(|m| m.worker.clone()).collect();
        self.members.insert(membership.epoch, members).is_none()
    }
}

impl World {
    /// A leader, perhaps one of the past, commits a step.
    pub(crate) fn check_commit(&mut self, workers: &[WorkerId], verdict: &Verdict) {
        let at = (verdict.epoch, verdict.step);
        let Digests {
            said,
            members,
            committed,
        } = &mut self.watch.digests;
        let text = format!("step {} of epoch {}", verdict.step, verdict.epoch);
        if committed.insert(at, *verdict).is_some() {
            self.violated(format!("{text} is committed twice"));
            return;
        }
        let said = said.get(&at).cloned().unwrap_or_default();
        let members = members.get(&verdict.epoch).cloned().unwrap_or_default();
        if members != workers {
            self.violated(format!("{text} is committed to others than its members"));
            return;
        }
        let mut words: Vec<Option<&String>> = members.iter().map(|member| said.get(member)).collect();
        words.dedup();
        match words.as_slice() {
            [Some(digest)] => {
                let digest = (*digest).clone();
                self.check_gradient(verdict.step, verdict.skip, &digest);
            }
            _ => self.violated(format!("{text} is committed, but its members said {said:?}")),
        }
        self.count("commits");
        if workers.len() < self.plan.rules.min_workers as usize {
            self.violated(format!(
                "{text} is committed by {} members, below the minimum",
                workers.len()
            ));
        }
    }
}
