//! How often each document is used, so that sources or languages have the shares that were asked for.
//!
//! With shares `w` and tokens `T`, component `c` is used `S w / T` times. `S` is the least that uses all of everything, or,
//! where a component would then be used more than `max_epochs` times, the most at which none is: shares are exact,
//! and components of which there is plenty are used in part. A use of `e` times means `⌊e⌋` copies of every document, and one
//! more of those whose digest draws less than the rest. Copies are a whole pass apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::counts::Counts;
use crate::spec::{MixBy, MixSettings};

/// Which word of a digest decides on the last copy: none that decides something else.
const DRAW: usize = 3;

/// Uses by component.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Epochs {
    by: MixBy,
    /// None: everything once.
    of: Option<BTreeMap<String, Share>>,
}

/// A component of the mix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// How often its documents are used.
    pub epochs: f64,
    /// Its share of the tokens, from 0 to 1.
    pub share: f64,
}

impl Epochs {
    pub(super) fn new(mix: &MixSettings, counts: &Counts) -> Self {
        if !mix.is_on() {
            return Self::default();
        }
        let tokens = match mix.by {
            MixBy::Source => &counts.tokens,
            MixBy::Language => &counts.fertility,
        };
        let tokens = tokens
            .iter()
            .map(|(name, of)| (name.as_str(), of.tokens as f64))
            .collect();
        Self {
            by: mix.by,
            of: Some(shares(&tokens, mix)),
        }
    }

    /// How many passes there are over the documents.
    pub(super) fn passes(&self) -> u32 {
        let most = |of: &BTreeMap<String, Share>| of.values().map(|share| share.epochs).fold(0.0, f64::max);
        self.of.as_ref().map_or(1, |of| most(of).ceil() as u32)
    }

    /// How often a document is used.
    pub(super) fn uses(&self, row: &Row) -> u32 {
        let Some(of) = &self.of else { return 1 };
        let name = match self.by {
            MixBy::Source => &row.source,
            MixBy::Language => row.language(),
        };
        let epochs = of.get(name).map_or(0.0, |share| share.epochs);
        let draw = row.digest.word(DRAW) as f64 / u64::MAX as f64;
        epochs.floor() as u32 + u32::from(draw < epochs.fract())
    }

    /// For the report.
    pub(super) fn shown(&self) -> BTreeMap<String, Share> {
        self.of.clone().unwrap_or_default()
    }
}

/// Epochs and shares of components with so many tokens.
fn shares(tokens: &BTreeMap<&str, f64>, mix: &MixSettings) -> BTreeMap<String, Share> {
    let weight = |name: &str, tokens: f64| {
        if mix.weights.is_empty() {
            tokens.powf(1.0 / mix.temperature)
        } else {
            mix.weights.get(name).copied().unwrap_or(0.0)
        }
    };
    let used: Vec<(&str, f64, f64)> = tokens
        .iter()
        .map(|(&name, &tokens)| (name, tokens, weight(name, tokens)))
        .filter(|(_, tokens, weight)| *tokens > 0.0 && *weight > 0.0)
        .collect();
    let all = used
        .iter()
        .map(|(_, tokens, weight)| tokens / weight)
        .fold(0.0, f64::max);
    let most = used
        .iter()
        .map(|(_, tokens, weight)| mix.max_epochs * tokens / weight)
        .fold(f64::INFINITY, f64::min);
    let scale = all.min(most);
    let weights: f64 = used.iter().map(|(_, _, weight)| weight).sum();
    used.into_iter()
        .map(|(name, tokens, weight)| {
            let share = Share {
                epochs: scale * weight / tokens,
                share: weight / weights,
            };
            (name.to_owned(), share)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_are_those_asked_for_and_nothing_is_used_too_often(
            components in prop::collection::vec((1u32..1_000_000, 1u32..1000), 1..8),
            max_epochs in 1.0f64..10.0,
        ) {
            let names: Vec<String> = (0..components.len()).map(|index| format!("c{index}")).collect();
            let tokens = names.iter().zip(&components).map(|(name, c)| (name.as_str(), f64::from(c.0))).collect();
            let weights: BTreeMap<String, f64> =
                names.iter().zip(&components).map(|(name, c)| (name.clone(), f64::from(c.1))).collect();
            let all: f64 = weights.values().sum();
            let mix = MixSettings { weights: weights.clone(), max_epochs, ..MixSettings::default() };
            let of = shares(&tokens, &mix);
            let used = |name: &str| of[name].epochs * tokens[name];
            let sum: f64 = names.iter().map(|name| used(name)).sum();
            for name in &names {
                prop_assert!((used(name) / sum - weights[name] / all).abs() < 1e-9);
                prop_assert!(of[name].epochs <= max_epochs * (1.0 + 1e-9));
            }
            // Either all of everything is used, or something as often as it may be.
            let least = of.values().map(|share| share.epochs).fold(f64::INFINITY, f64::min);
            let most = of.values().map(|share| share.epochs).fold(0.0, f64::max);
            prop_assert!(least > 1.0 - 1e-9 || most > max_epochs * (1.0 - 1e-9));
        }

        #[test]
        fn temperature_evens_out(tokens in prop::collection::vec(1u32..1_000_000, 2..6), temperature in 1.5f64..50.0) {
            let names: Vec<String> = (0..tokens.len()).map(|index| format!("c{index}")).collect();
            let sizes: BTreeMap<&str, f64> =
                names.iter().zip(&tokens).map(|(name, t)| (name.as_str(), f64::from(*t))).collect();
            let share = |temperature| {
                let mix = MixSettings { temperature, max_epochs: 1000.0, ..MixSettings::default() };
                shares(&sizes, &mix).values().map(|share| share.share).fold(0.0, f64::max)
            };
            prop_assert!(share(temperature) <= share(1.0 + 1e-12) + 1e-9);
        }
    }
}
