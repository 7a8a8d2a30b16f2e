//! How a figure is spread over its repetitions.

use serde::Serialize;

/// Median, 99th percentile and largest of some values. With fewer than a hundred values the 99th percentile is the
/// largest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Values.
    pub n: usize,
    /// Half are at most this.
    pub p50: f64,
    /// 99 of a hundred are at most this.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of these values (nearest rank); not a number when there are none.
    #[must_use]
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let nearest = (values.len() * percent).div_ceil(100).max(1);
            values.get(nearest - 1).copied().unwrap_or(f64::NAN)
        };
        Self {
            n: values.len(),
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

/// The median of some values, of an even number the mean of the two in the middle; not a number when there are none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = |at: usize| sorted.get(at).copied().unwrap_or(f64::NAN);
    let half = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) && half > 0 {
        f64::midpoint(middle(half - 1), middle(half))
    } else {
        middle(half)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let all = Spread::of((1..=200).rev().map(f64::from).collect());
        assert_eq!((all.n, all.p50, all.p99, all.max), (200, 100.0, 198.0, 200.0));
        let few = Spread::of(vec![3.0, 1.0, 2.0]);
        assert_eq!((few.p50, few.p99, few.max), (2.0, 3.0, 3.0));
        assert!(Spread::of(Vec::new()).p50.is_nan());
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(
            (median(&[3.0, 1.0, 2.0]), median(&[4.0, 1.0, 2.0, 3.0])),
            (2.0, 2.5)
        );
        assert!(median(&[]).is_nan());
    }
}
