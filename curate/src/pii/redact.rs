//! What happens to a text in which private data was found.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Detector, Found, Kind, Policy, Settings};

/// How often a text is searched at most, each time with what was found replaced.
const ROUNDS: usize = 8;
/// The reason of a document where the last round still found something.
const UNSETTLED: &str = "pii.unsettled";

/// Findings by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counts(pub BTreeMap<Kind, u64>);

impl Counts {
    /// Counts `found` in.
    pub fn add(&mut self, found: &[Found]) {
        found
            .iter()
            .for_each(|found| *self.0.entry(found.kind).or_default() += 1);
    }

    /// Counts what others counted in.
    pub fn merge(&mut self, other: &Self) {
        other
            .0
            .iter()
            .for_each(|(&kind, &count)| *self.0.entry(kind).or_default() += count);
    }

    /// Findings of all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// What became of a text.
pub struct Cleaned<'a> {
    /// The text, with placeholders where the policy is `redact`.
    pub text: Cow<'a, str>,
    /// What was found, replaced or not.
    pub counts: Counts,
    /// Why the document is dropped, if it is: the code, and how many of which kind.
    pub verdict: Option<(&'static str, String)>,
}

/// The text with a placeholder in the place of each finding whose policy is `redact`. `found` is what
/// [`Detector::find`] found in this text.
#[must_use]
pub fn redact<'a>(text: &'a str, found: &[Found], settings: &Settings) -> Cow<'a, str> {
    let mut redacted = String::new();
    let mut from = 0;
    for found in found
        .iter()
        .filter(|found| settings.policy(found.kind) == Policy::Redact)
    {
        let Some(before) = text.get(from..found.range.start) else {
            continue;
        };
        redacted.push_str(before);
        redacted.push_str(found.kind.placeholder());
        from = found.range.end;
    }
    if from == 0 {
        return Cow::Borrowed(text);
    }
    redacted.push_str(text.get(from..).unwrap_or_default());
    Cow::Owned(redacted)
}

/// Why a document with these findings is dropped, if it is: the code of the most specific kind whose policy says so, and
/// how many there are of it.
#[must_use]
pub fn verdict(found: &[Found], settings: &Settings) -> Option<(&'static str, String)> {
    let drops = found
        .iter()
        .map(|found| found.kind)
        .filter(|&kind| settings.policy(kind) == Policy::Drop);
    let kind = drops.min()?;
    let count = found.iter().filter(|found| found.kind == kind).count();
    Some((kind.code(), format!("{count} of {}", kind.name())))
}

impl Detector {
    /// Searches `text` and replaces what is to be, until nothing is left to be replaced: what stands next to a
    /// placeholder may look different without what was there. So cleaning what was cleaned changes nothing. A text that
    /// goes on to reveal more after 8 rounds is made to, and dropped as `pii.unsettled`.
    #[must_use]
    pub fn clean<'a>(&self, text: &'a str) -> Cleaned<'a> {
        let settings = self.settings();
        let mut cleaned = Cleaned {
            text: Cow::Borrowed(text),
            counts: Counts::default(),
            verdict: None,
        };
        let mut found = Vec::new();
        for _ in 0..ROUNDS {
            self.find(&cleaned.text, &mut found);
            cleaned.verdict = verdict(&found, settings);
            let (replaced, left): (Vec<_>, Vec<_>) = found
                .iter()
                .cloned()
                .partition(|found| settings.policy(found.kind) == Policy::Redact);
            cleaned.counts.add(&replaced);
            if cleaned.verdict.is_some() || replaced.is_empty() {
                cleaned.counts.add(&left);
                return cleaned;
            }
            cleaned.text = Cow::Owned(redact(&cleaned.text, &found, settings).into_owned());
        }
        cleaned.verdict = Some((
            UNSETTLED,
            format!("{} found, and more in round {ROUNDS}", cleaned.counts.total()),
        ));
        cleaned
    }
}
