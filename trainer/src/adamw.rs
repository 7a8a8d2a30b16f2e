//! AdamW with decoupled decay (Loshchilov and Hutter, 2019) over flat buffers, with fixed bits.
//!
//! Powers are taken by repeated squaring, not by the system's mathematics library.

use std::sync::Arc;

use lockstep_engine::spec::OptimSpec;
use lockstep_kernels::adamw::{Constants, Updated};

use crate::layout::Layout;
use crate::state::State;

pub use lockstep_kernels::adamw::norm;

/// One update: `state.step` must already be the step that is taken. `scale` multiplies the gradient.
///
/// With g = scale · gradient: m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g²,
/// w ← w − η λ w − η (m / (1 − β₁ᵗ)) / (sqrt(v / (1 − β₂ᵗ)) + ε), with λ = 0 where a parameter does not decay.
pub(crate) fn update(
    state: &mut State,
    layout: &Layout,
    gradient: &[f32],
    scale: f32,
    optim: &OptimSpec,
    learning_rate: f64,
) {
    let step = state.step.0;
    let correct = |beta: f64| 1.0 - power(beta, step);
    let constants = Constants {
        scale,
        beta1: optim.beta1 as f32,
        beta2: optim.beta2 as f32,
        rest1: (1.0 - optim.beta1) as f32,
        rest2: (1.0 - optim.beta2) as f32,
        eps: optim.eps as f32,
        rate: (learning_rate / correct(optim.beta1)) as f32,
        root: (1.0 / correct(optim.beta2)) as f32,
        keep: 1.0,
    };
    let keep = (1.0 - learning_rate * optim.weight_decay) as f32;
    let weights = Arc::make_mut(&mut state.weights);
    let first = Arc::make_mut(&mut state.first);
    let second = Arc::make_mut(&mut state.second);
    for parameter in layout.parameters() {
        let range = parameter.range.clone();
        let constants = if parameter.decays {
            Constants { keep, ..constants }
        } else {
            constants
        };
        let of = Updated {
            weights: &mut weights[range.clone()],
            first: &mut first[range.clone()],
            second: &mut second[range.clone()],
        };
        lockstep_kernels::adamw::update(of, &gradient[range], constants);
    }
}

/// `base` to the power `exponent`.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut rest) = (1.0, base, exponent);
    while rest > 0 {
        if rest & 1 == 1 {
            result *= square;
        }
        square *= square;
        rest >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_right() {
        for (base, exponent) in [(0.9f64, 1u64), (0.95, 7), (0.999, 1000), (0.9, 1 << 40), (0.0, 3)] {
            let exact = base.powf(exponent as f64);
            assert!(
                (power(base, exponent) - exact).abs() <= 1e-12 * exact,
                "{base}^{exponent}"
            );
        }
        assert_eq!(power(0.9, 0), 1.0);
    }

    #[test]
    fn the_norm_is_right_and_sees_infinities() {
        let values: Vec<f32> = (0..100_000).map(|i| (i % 7) as f32 - 3.0).collect();
        let exact = values
            .iter()
            .map(|&x| f64::from(x) * f64::from(x))
            .sum::<f64>()
            .sqrt();
        assert!((norm(&values) - exact).abs() < 1e-9 * exact);
        assert!(norm(&[1.0, f32::INFINITY]).is_infinite() && norm(&[f32::NAN]).is_nan());
        assert_eq!(norm(&[]), 0.0);
    }
}
