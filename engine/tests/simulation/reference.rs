//! What a run is without a cluster: gradients are hashes, equal hashes stand for equal bits.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_engine::geometry::{Geometry, Node};
use lockstep_engine::ids::{Lane, Step};
use lockstep_engine::job::BadStep;
use lockstep_engine::rank::Reduced;

use crate::plan::{Bad, Plan};

/// One number out of several.
pub(crate) fn mix(parts: &[u64]) -> u64 {
    parts.iter().fold(0xcbf2_9ce4_8422_2325, |hash, part| {
        let mut x = hash ^ part.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        x = (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x ^ (x >> 32)
    })
}

/// The state before the first step.
pub(crate) fn seed_state() -> u64 {
    mix(&[0])
}

/// The gradient of one lane.
pub(crate) fn lane_gradient(geometry: &Geometry, state: u64, step: Step, lane: Lane) -> u64 {
    let positions = geometry.positions(step, lane).flatten();
    positions.fold(mix(&[1, state, step.0]), |sum, position| mix(&[2, sum, position]))
}

/// The partial sum of `node`, if all below it is there.
pub(crate) fn combine(nodes: &BTreeMap<Node, u64>, node: Node) -> Option<u64> {
    if let Some(&value) = nodes.get(&node) {
        return Some(value);
    }
    let (left, right) = node.children()?;
    Some(mix(&[3, combine(nodes, left)?, combine(nodes, right)?]))
}

/// The state after a gradient is applied.
pub(crate) fn apply(state: u64, gradient: u64) -> u64 {
    mix(&[4, state, gradient])
}

/// The whole gradient of `step` from `state`, computed in one place.
pub(crate) fn gradient(geometry: &Geometry, state: u64, step: Step) -> u64 {
    let lanes = (0..geometry.lanes).map(Lane);
    let nodes = lanes
        .map(|lane| (Node::leaf(lane), lane_gradient(geometry, state, step, lane)))
        .collect();
    combine(&nodes, Node::root(geometry.lanes)).unwrap()
}

/// What a member says of a reduced gradient. `weights` is the state before it, where members compare them.
pub(crate) fn reduced(plan: &Plan, step: Step, gradient: u64, weights: Option<u64>) -> Reduced {
    let usual = 1.0 + (gradient % 100) as f32 / 1000.0;
    let (loss, finite) = match plan.bad.get(&step) {
        Some(Bad::Loss) => (f32::NAN, true),
        Some(Bad::Gradient) => (usual, false),
        Some(Bad::Spike) => (usual * 1000.0, true),
        None => (usual, true),
    };
    Reduced {
        digest: format!("{gradient:x}"),
        loss,
        finite,
        weights: weights.map(|state| format!("{state:x}")),
    }
}

/// How a run ends that nothing disturbs: the final state, and which steps were skipped; or the step that stops it.
pub(crate) fn undisturbed(plan: &Plan) -> Result<(u64, BTreeSet<Step>), Step> {
    let rules = &plan.rules;
    let mut states = vec![seed_state()];
    let mut losses: Vec<f32> = Vec::new();
    let mut skipped = BTreeSet::new();
    while losses.len() < rules.steps.0 as usize {
        let step = Step(losses.len() as u64 + 1);
        let state = states[losses.len()];
        let gradient = gradient(&rules.geometry, state, step);
        let result = reduced(plan, step, gradient, None);
        if !is_bad(rules.guard.spike_factor, &losses, result.loss, result.finite) {
            losses.push(result.loss);
            states.push(apply(state, gradient));
            continue;
        }
        let last = match rules.guard.policy {
            BadStep::Stop => return Err(step),
            BadStep::Skip => step.0 - 1,
            BadStep::Rollback => (step.0 - 1)
                .checked_div(rules.checkpoint_every)
                .map_or(0, |nth| nth * rules.checkpoint_every),
        } as usize;
        losses.truncate(last);
        states.truncate(last + 1);
        for void in last as u64 + 1..=step.0 {
            losses.push(f32::NAN);
            states.push(states[last]);
            skipped.insert(Step(void));
        }
    }
    Ok((states[rules.steps.0 as usize], skipped))
}

fn is_bad(factor: f32, losses: &[f32], loss: f32, finite: bool) -> bool {
    let mut good: Vec<f32> = losses
        .iter()
        .rev()
        .copied()
        .filter(|l| l.is_finite())
        .take(32)
        .collect();
    good.sort_by(f32::total_cmp);
    let spike = good.len() >= 8 && factor > 0.0 && loss > factor * good[good.len() / 2];
    !loss.is_finite() || !finite || spike
}
