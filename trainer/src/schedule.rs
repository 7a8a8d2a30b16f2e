//! The learning rate as a pure function of the step.

use std::f64::consts::PI;

use lockstep_engine::ids::Step;
use lockstep_engine::spec::{Decay, ScheduleSpec, Spec};

/// Warm-up, then decay.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    spec: ScheduleSpec,
    peak: f64,
    steps: u64,
}

impl Schedule {
    /// The schedule of a run of `steps` steps with the peak rate `peak`.
    #[must_use]
    pub fn new(spec: &ScheduleSpec, peak: f64, steps: u64) -> Self {
        Self {
            spec: spec.clone(),
            peak,
            steps,
        }
    }

    /// The schedule of a job.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        Self::new(&spec.schedule, spec.optim.learning_rate, spec.train.steps)
    }

    /// The learning rate that takes the weights from `step - 1` to `step`.
    ///
    /// Warm-up: `peak · step / warmup_steps`. Cosine (Loshchilov and Hutter, 2017) and warm-up-stable-decay (Hu et
    /// al., "MiniCPM", 2024) reach `min_ratio · peak` at the last step and stay there; constant never leaves the
    /// peak.
    #[must_use]
    pub fn rate(&self, step: Step) -> f64 {
        let Self { spec, peak, steps } = self;
        let step = step.0.min(*steps);
        if step < spec.warmup_steps {
            return peak * step as f64 / spec.warmup_steps as f64;
        }
        let floor = peak * spec.min_ratio;
        let decay_from = match spec.decay {
            Decay::Constant => return *peak,
            Decay::Cosine => spec.warmup_steps,
            Decay::Wsd => {
                let length = (spec.decay_fraction * *steps as f64).round() as u64;
                steps.saturating_sub(length).max(spec.warmup_steps)
            }
        };
        if step <= decay_from {
            return *peak;
        }
        let done = (step - decay_from) as f64 / (steps - decay_from) as f64;
        let kept = match spec.decay {
            Decay::Cosine => 0.5 * (1.0 + libm::cos(PI * done)),
            Decay::Wsd | Decay::Constant => 1.0 - done,
        };
        floor + (peak - floor) * kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn schedule(
        decay: Decay,
        warmup_steps: u64,
        steps: u64,
        min_ratio: f64,
        decay_fraction: f64,
    ) -> Schedule {
        Schedule::new(
            &ScheduleSpec {
                warmup_steps,
                decay,
                min_ratio,
                decay_fraction,
            },
            2.0,
            steps,
        )
    }

    fn rates(schedule: &Schedule) -> Vec<f64> {
        (0..=schedule.steps).map(|s| schedule.rate(Step(s))).collect()
    }

    #[test]
    fn worked_by_hand() {
        let near = |found: &[f64], wanted: &[f64]| {
            assert_eq!(found.len(), wanted.len());
            assert!(
                found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-12),
                "{found:?} {wanted:?}"
            );
        };
        let cosine = rates(&schedule(Decay::Cosine, 2, 6, 0.0, 0.0));
        near(
            &cosine,
            &[0.0, 1.0, 2.0, 1.0 + 0.5f64.sqrt(), 1.0, 1.0 - 0.5f64.sqrt(), 0.0],
        );
        near(
            &rates(&schedule(Decay::Wsd, 1, 5, 0.5, 0.4)),
            &[0.0, 2.0, 2.0, 2.0, 1.5, 1.0],
        );
        near(
            &rates(&schedule(Decay::Constant, 4, 5, 0.5, 0.4)),
            &[0.0, 0.5, 1.0, 1.5, 2.0, 2.0],
        );
    }

    proptest! {
        #[test]
        fn rises_then_falls_to_the_floor_and_stays(
            decay in prop_oneof![Just(Decay::Cosine), Just(Decay::Wsd), Just(Decay::Constant)],
            (steps, warmup) in (1u64..400).prop_flat_map(|n| (Just(n), 0..=n)),
            min_ratio in 0.0f64..=1.0,
            decay_fraction in 0.0f64..=1.0,
        ) {
            let schedule = schedule(decay, warmup, steps, min_ratio, decay_fraction);
            let rates = rates(&schedule);
            let (rise, fall) = rates.split_at(warmup as usize);
            prop_assert!(rise.windows(2).all(|w| w[0] < w[1]));
            prop_assert!(fall.windows(2).all(|w| w[0] >= w[1] - 1e-12));
            prop_assert!(rates.iter().all(|&r| (0.0..=2.0).contains(&r)));
            prop_assert_eq!(fall[0], 2.0);
            let length = (decay_fraction * steps as f64).round();
            let decays = match decay {
                Decay::Constant => false,
                Decay::Cosine => warmup < steps,
                Decay::Wsd => warmup < steps && length >= 1.0,
            };
            let last = if decays { 2.0 * min_ratio } else { 2.0 };
            prop_assert!((rates[steps as usize] - last).abs() < 1e-12);
            prop_assert_eq!(schedule.rate(Step(steps + 5)), rates[steps as usize]);
        }
    }
}
