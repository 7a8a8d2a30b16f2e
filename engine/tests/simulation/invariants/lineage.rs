//! The state is a function of the committed steps alone: that of the ledger's steps, computed in one place.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::ids::Step;
use lockstep_engine::job::Outcome;
use lockstep_engine::ledger::Entry;
use lockstep_engine::membership::Membership;

use crate::cluster::World;
use crate::plan::Plan;
use crate::reference;

pub(crate) struct Lineage {
    /// By step: the state that the ledger's steps lead to.
    states: Vec<u64>,
    /// By step: the states that committed steps led to, on any lineage that has been cut since.
    valid: BTreeMap<Step, BTreeSet<u64>>,
    undisturbed: Result<(u64, BTreeSet<Step>), Step>,
    /// The first committed step to which wrong weights contributed, until it is committed anew.
    tainted: Option<Step>,
    /// Digests of such steps.
    spoilt: BTreeSet<(Step, String)>,
}

impl Lineage {
    pub(crate) fn new(plan: &Plan) -> Self {
        let state = reference::seed_state();
        Self {
            states: vec![state],
            valid: BTreeMap::from([(Step(0), BTreeSet::from([state]))]),
            undisturbed: reference::undisturbed(plan),
            tainted: None,
            spoilt: BTreeSet::new(),
        }
    }

    pub(crate) fn cut(&mut self, step: Step) {
        self.states.truncate(step.0 as usize + 1);
    }

    fn is_tainted(&self, step: Step) -> bool {
        self.tainted.is_some_and(|tainted| step >= tainted)
    }

    /// The state after a step of the ledger.
    pub(crate) fn state(&self, step: Step) -> Option<u64> {
        self.states.get(step.0 as usize).copied()
    }

    /// Steps were skipped unseen: the state is the same under a new number.
    pub(crate) fn skipped(&mut self, membership: &Membership) {
        let before = self.valid.get(&membership.state).cloned().unwrap_or_default();
        for step in membership.state.0 + 1..=membership.base.0 {
            self.valid.entry(Step(step)).or_default().extend(&before);
        }
    }
}

impl World {
    /// A committed gradient is that of a state that committed steps have led to.
    pub(crate) fn check_gradient(&mut self, step: Step, skip: bool, digest: &str) {
        let geometry = self.plan.rules.geometry;
        let before = self
            .watch
            .lineage
            .valid
            .get(&Step(step.0 - 1))
            .cloned()
            .unwrap_or_default();
        for state in before {
            let gradient = reference::gradient(&geometry, state, step);
            if format!("{gradient:x}") == digest {
                let after = if skip {
                    state
                } else {
                    reference::apply(state, gradient)
                };
                let lineage = &mut self.watch.lineage;
                lineage.valid.entry(step).or_default().insert(after);
                lineage.tainted.take_if(|tainted| step <= *tainted);
                return;
            }
        }
        let mut runs = self.workers.iter().filter_map(|worker| worker.run.as_ref());
        let is_tainted = runs.any(|run| run.tainted);
        let lineage = &mut self.watch.lineage;
        if is_tainted || lineage.is_tainted(step) {
            lineage.tainted.get_or_insert(step);
            lineage.spoilt.insert((step, digest.to_owned()));
            self.count("steps of wrong weights");
            return;
        }
        self.violated(format!(
            "step {step} is committed with the gradient of no committed state"
        ));
    }

    /// A worker's state is one that committed steps have led to, unless a fault made it wrong.
    pub(crate) fn check_state(&mut self, slot: usize) {
        let Some(run) = self.run_of(slot) else { return };
        let (Some((step, state)), false) = (run.state, run.tainted) else {
            return;
        };
        let lineage = &self.watch.lineage;
        let valid = lineage.valid.get(&step);
        if !lineage.is_tainted(step) && !valid.is_some_and(|valid| valid.contains(&state)) {
            self.violated(format!(
                "slot {slot} has a state of step {step} that no committed steps lead to"
            ));
        }
    }

    /// The ledger grows by one step, whose gradient is that of the state before it.
    pub(crate) fn check_recorded(&mut self, entry: &Entry) {
        self.progressed();
        self.check_samples(entry);
        let geometry = self.plan.rules.geometry;
        let states = &mut self.watch.lineage.states;
        if entry.step.0 != states.len() as u64 {
            let text = format!("step {} is recorded after step {}", entry.step, states.len() - 1);
            self.violated(text);
            return;
        }
        let state = states[states.len() - 1];
        let gradient = reference::gradient(&geometry, state, entry.step);
        let unseen = entry.unseen_to.is_some();
        states.push(if entry.skipped {
            state
        } else {
            reference::apply(state, gradient)
        });
        let spoilt = &self.watch.lineage.spoilt;
        let is_spoilt = spoilt.contains(&(entry.step, entry.digest.clone()));
        if !unseen && !is_spoilt && entry.digest != format!("{gradient:x}") {
            self.violated(format!(
                "step {} is recorded with a gradient that is not its own",
                entry.step
            ));
        }
    }

    /// The job is over: what came out is what would have come out undisturbed.
    pub(crate) fn check_end(&mut self) {
        let undisturbed = self.watch.lineage.undisturbed.clone();
        let Some(outcome) = self.store.outcome.clone() else {
            return;
        };
        match (undisturbed, outcome) {
            (Ok((state, skipped)), Outcome::Done { weights }) => {
                let of = |entry: &Entry| entry.skipped.then_some(entry.step);
                let really: BTreeSet<Step> = self.store.ledger.iter().filter_map(of).collect();
                if weights != format!("{state:x}") {
                    self.violated(format!("the final weights are {weights}, not {state:x}"));
                } else if skipped != really {
                    self.violated(format!("steps {really:?} were skipped, not {skipped:?}"));
                } else if self.watch.lineage.state(self.plan.rules.steps) != Some(state) {
                    self.violated("the ledger does not lead to the final weights");
                }
                self.check_all_samples();
                self.check_all_checkpoints();
                self.count("done");
                if !skipped.is_empty() {
                    self.count("done with steps skipped");
                }
            }
            (Err(step), Outcome::Failed(reason)) if reason.starts_with(&format!("step {step}:")) => {
                self.count("stopped at a bad step");
            }
            (_, Outcome::Failed(reason))
                if reason.contains("check the hardware") && self.watch.wrongs > 1 =>
            {
                self.count("failed by wrong results");
            }
            (_, outcome) => self.violated(format!("it ended with {outcome:?}")),
        }
    }
}
