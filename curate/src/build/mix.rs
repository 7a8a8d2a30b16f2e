//! How often each document is used, so that sources or languages have the shares that were asked for.
//!
//! With shares `w` and tokens `T`, component `c` is used `S w / T` times. `S` is the least that uses all of everything, or,
//! where a component would then be used more than `max_epochs` times, the most at which none is: shares are exact,
//! and components of which there is plenty are used in part. A use of `e` times means `⌊e⌋` copies of every document, and one
//! more of those whose digest draws less than the rest. Copies are a whole pass apart. What is used 0 times is told in
//! `dropped.parquet`, as is all else that is not in the dataset.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::row::Row;
use crate::counts::Counts;
use crate::error::CurateError;
use crate::spec::{MixBy, MixSettings};

/// What the mix is called where stages are listed.
pub(super) const STAGE: &str = "mix";

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
    /// # Errors
    /// If nothing is left of all that the weights name.
    pub(super) fn new(mix: &MixSettings, counts: &Counts) -> Result<Self, CurateError> {
        if !mix.is_on() {
            return Ok(Self::default());
        }
        let tokens = match mix.by {
            MixBy::Source => &counts.tokens,
            MixBy::Language => &counts.fertility,
        };
        let tokens: BTreeMap<&str, f64> = tokens
            .iter()
            .map(|(name, of)| (name.as_str(), of.tokens as f64))
            .collect();
        let of = shares(&tokens, mix);
        if tokens.is_empty() {
            // There is nothing to weigh.
            return Ok(Self::default());
        }
        if of.values().all(|share| share.epochs == 0.0) {
            let names: Vec<&str> = tokens.into_keys().collect();
            let problem = format!(
                "mix.weights: nothing is left of what they name; there is {}",
                names.join(", ")
            );
            return Err(CurateError::Spec { path: None, problem });
        }
        Ok(Self {
            by: mix.by,
            of: Some(of),
        })
    }

    /// Whether documents are used other than once.
    pub(super) fn is_on(&self) -> bool {
        self.of.is_some()
    }

    /// How many passes there are over the documents.
    pub(super) fn passes(&self) -> u32 {
        let most = |of: &BTreeMap<String, Share>| of.values().map(|share| share.epochs).fold(0.0, f64::max);
        self.of.as_ref().map_or(1, |of| most(of).ceil() as u32)
    }

    /// How often a document is used.
    pub(super) fn uses(&self, row: &Row) -> u32 {
        let Some(of) = &self.of else { return 1 };
        let epochs = of.get(self.component(row)).map_or(0.0, |share| share.epochs);
        let draw = row.digest.word(DRAW) as f64 / u64::MAX as f64;
        epochs.floor() as u32 + u32::from(draw < epochs.fract())
    }

    fn component<'r>(&self, row: &'r Row) -> &'r str {
        match self.by {
            MixBy::Source => &row.source,
            MixBy::Language => row.language(),
        }
    }

    /// Why a document is not used, if it is not: a code and the words.
    pub(super) fn verdict(&self, row: &Row) -> Option<(&'static str, String)> {
        if self.uses(row) > 0 {
            return None;
        }
        let name = self.component(row);
        let epochs = self.of.as_ref().and_then(|of| of.get(name))?.epochs;
        Some(if epochs == 0.0 {
            ("mix.weight", format!("{name} has no weight"))
        } else {
            let part = epochs * 100.0;
            ("mix.share", format!("{part:.1}% of {name} makes its share"))
        })
    }

    /// For the report.
    pub(super) fn shown(&self) -> BTreeMap<String, Share> {
        self.of.clone().unwrap_or_default()
    }
}

/// Epochs and shares of components with so many tokens, and of those that the weights name and that have none.
fn shares(tokens: &BTreeMap<&str, f64>, mix: &MixSettings) -> BTreeMap<String, Share> {
    let weights = mix.by_component();
    let weight = |name: &str, tokens: f64| match &weights {
        Some(weights) => weights.get(name).copied().unwrap_or(0.0),
        None => tokens.powf(1.0 / mix.temperature),
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
    let sum: f64 = used.iter().map(|(_, _, weight)| weight).sum();
    let named = weights.iter().flatten().map(|(name, _)| *name);
    let mut shares: BTreeMap<String, Share> = named
        .chain(tokens.keys().copied())
        .map(|name| (name.to_owned(), Share::default()))
        .collect();
    for (name, tokens, weight) in used {
        let share = Share {
            epochs: scale * weight / tokens,
            share: weight / sum,
        };
        shares.insert(name.to_owned(), share);
    }
    shares
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
        fn nothing_is_used_once(temperature in 1.5f64..50.0) {
            let mix = MixSettings { temperature, ..MixSettings::default() };
            let epochs = Epochs::new(&mix, &Counts::default()).unwrap();
            prop_assert!(!epochs.is_on() && epochs.passes() == 1);
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
