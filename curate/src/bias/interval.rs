//! Intervals of 95%.

/// The quantile of the normal distribution at 0.975.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval of a share, `successes` of `trials` (E. B. Wilson, 1927; formula as in R. G. Newcombe,
/// "Two-sided confidence intervals for the single proportion", 1998, method 3):
/// `(p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)`. From 0 to 1 if there are no trials.
#[must_use]
pub fn wilson(successes: u64, trials: u64) -> (f64, f64) {
    if trials == 0 {
        return (0.0, 1.0);
    }
    let n = trials as f64;
    let p = successes as f64 / n;
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let whole = 1.0 + Z * Z / n;
    // At the ends the bounds are 0 and 1; rounding would miss them.
    let low = if successes == 0 {
        0.0
    } else {
        (middle - half) / whole
    };
    let high = if successes == trials {
        1.0
    } else {
        (middle + half) / whole
    };
    (low, high)
}

/// The natural logarithm of the odds ratio of a table `[a, b, c, d]`, `(a/b) / (c/d)`, with its interval: a half is
/// added to each count (J. B. S. Haldane, 1956; F. J. Anscombe, 1956), and the interval is Wald's, with the standard error
/// `√(1/a + 1/b + 1/c + 1/d)` of the counts so corrected (B. Woolf, 1955; J. J. Gart, 1966).
#[must_use]
pub fn log_odds(table: [u64; 4]) -> (f64, (f64, f64)) {
    let [a, b, c, d] = table.map(|count| count as f64 + 0.5);
    let log_odds = (a * d / (b * c)).ln();
    let half = Z * (1.0 / a + 1.0 / b + 1.0 / c + 1.0 / d).sqrt();
    (log_odds, (log_odds - half, log_odds + half))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_as_published() {
        // Newcombe 1998, table I, method 3.
        for (successes, trials, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0000, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (from, to) = wilson(successes, trials);
            assert!(
                (from - low).abs() < 5e-5 && (to - high).abs() < 5e-5,
                "{successes} of {trials}: {from} to {to}"
            );
        }
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert_eq!((wilson(0, 7).0, wilson(7, 7).1), (0.0, 1.0));
    }

    #[test]
    fn log_odds_by_hand() {
        // ln(10.5·40.5 / (20.5·30.5)) = ln 0.680128 = -0.385474; √(1/10.5 + 1/20.5 + 1/30.5 + 1/40.5) = 0.448884.
        let (log_odds, (from, to)) = super::log_odds([10, 20, 30, 40]);
        assert!((log_odds + 0.385_474).abs() < 1e-5, "{log_odds}");
        assert!(
            (to - from - 2.0 * 1.959_964 * 0.448_884).abs() < 1e-4,
            "{from} to {to}"
        );
        // Sides swapped, the sign is.
        let (swapped, _) = super::log_odds([30, 40, 10, 20]);
        assert!((log_odds + swapped).abs() < 1e-12);
        assert!(super::log_odds([0, 0, 0, 0]).0.abs() < 1e-12);
    }
}
