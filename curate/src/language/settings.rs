//! Which languages are kept, and how sure they must be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Identified, code, codes};

/// Which documents are kept by their language.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Languages to keep, as codes in ISO 639-3 or 639-1; empty, the default, for all.
    pub keep: Vec<String>,
    /// Languages to drop. Default: none.
    pub drop: Vec<String>,
    /// The least confidence in the main language. Default: 0.65, as in FineWeb, which means it for another identifier.
    pub min_confidence: f64,
    /// The largest share of letters that may surely be in another language. Default: 1, so that mixed documents are
    /// marked and kept.
    pub max_other_share: f64,
    /// From which share of other languages on a document is marked as mixed. Default: 0.2, our choice.
    pub mixed_share: f64,
    /// Drop documents whose record or source claims another language than the identified one. Default: false.
    pub drop_false_claims: bool,
    /// Other bounds for some languages.
    pub per_language: BTreeMap<String, Override>,
}

/// Bounds for one language instead of the general ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Override {
    /// Instead of [`Settings::min_confidence`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_confidence: Option<f64>,
    /// Instead of [`Settings::max_other_share`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_other_share: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keep: Vec::new(),
            drop: Vec::new(),
            min_confidence: 0.65,
            max_other_share: 1.0,
            mixed_share: 0.2,
            drop_false_claims: false,
            per_language: BTreeMap::new(),
        }
    }
}

impl Settings {
    /// Whether every code is a language's and every bound a share.
    ///
    /// # Errors
    /// Names the field, its value and what it may be.
    pub fn check(&self) -> Result<(), String> {
        let lists = [("keep", &self.keep), ("drop", &self.drop)];
        for (field, given) in lists
            .iter()
            .flat_map(|(field, list)| list.iter().map(move |code| (field, code)))
        {
            code(given).map_err(|error| format!("{field} = {error}"))?;
        }
        let is_kept = |dropped: &&String| self.keep.iter().any(|kept| code(kept) == code(dropped));
        if let Some(both) = self.drop.iter().find(is_kept) {
            return Err(format!(
                "drop = `{both}`: is in keep too; leave it in one of them"
            ));
        }
        let general = [
            ("min_confidence".to_owned(), self.min_confidence),
            ("max_other_share".to_owned(), self.max_other_share),
            ("mixed_share".to_owned(), self.mixed_share),
        ];
        general
            .iter()
            .try_for_each(|(field, value)| check_share(field, *value))?;
        let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
        for (given, bounds) in &self.per_language {
            let language = code(given).map_err(|error| format!("per_language = {error}"))?;
            if let Some(other) = seen.insert(language, given) {
                return Err(format!(
                    "per_language = `{given}`: is the same language as `{other}`; leave one"
                ));
            }
            for (field, value) in [
                ("min_confidence", bounds.min_confidence),
                ("max_other_share", bounds.max_other_share),
            ] {
                value.map_or(Ok(()), |value| {
                    check_share(&format!("per_language.{given}.{field}"), value)
                })?;
            }
        }
        Ok(())
    }

    /// Whether a document is to be marked as being in several languages.
    #[must_use]
    pub fn is_mixed(&self, identified: &Identified) -> bool {
        let other = identified.other_share();
        other > 0.0 && other >= self.mixed_share
    }

    fn bounds(&self, language: &str) -> (f64, f64) {
        let own = self.per_language.iter().find(|(given, _)| is(given, language));
        let own = own.map(|(_, bounds)| *bounds).unwrap_or_default();
        (
            own.min_confidence.unwrap_or(self.min_confidence),
            own.max_other_share.unwrap_or(self.max_other_share),
        )
    }
}

fn check_share(field: &str, value: f64) -> Result<(), String> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(format!("{field} = {value}: must be from 0 to 1"))
}

/// Whether a code, of whatever kind, means `language`.
fn is(given: &str, language: &str) -> bool {
    given == language || code(given) == Ok(language)
}

/// Why a document is dropped for its language, as a reason's code and its detail; `None` if it is kept.
#[must_use]
pub fn verdict(identified: &Identified, settings: &Settings) -> Option<(&'static str, String)> {
    let Some(language) = identified.language else {
        let script = identified.script.unwrap_or("none");
        let wanted = !settings.keep.is_empty() || settings.min_confidence > 0.0;
        return wanted.then(|| ("language.unknown", format!("no language known; script: {script}")));
    };
    if settings.drop.iter().any(|given| is(given, language)) {
        return Some(("language.dropped", format!("{language} is to be dropped")));
    }
    if !settings.keep.is_empty() && !settings.keep.iter().any(|given| is(given, language)) {
        return Some((
            "language.not_kept",
            format!("{language} is not among those to keep"),
        ));
    }
    let (min_confidence, max_other_share) = settings.bounds(language);
    let confidence = identified.confidence;
    if confidence < min_confidence {
        let detail = format!("confidence {confidence:.3} in {language} < {min_confidence}");
        return Some(("language.confidence", detail));
    }
    let other = identified.other_share();
    if other > max_other_share {
        let detail = format!("share {other:.3} of other languages than {language} > {max_other_share}");
        return Some(("language.mixed", detail));
    }
    None
}

/// Why a document is dropped for being in another language than its record or source claims; `None` if it is kept. A
/// claim that is no language which can be identified is not judged, nor is one that is [not sure](Settings::min_confidence)
/// to be false.
#[must_use]
pub fn verdict_on_claim(
    identified: &Identified,
    claimed: &str,
    settings: &Settings,
) -> Option<(&'static str, String)> {
    let language = identified.language?;
    let claimed = code(claimed).ok()?;
    let is_false = claimed != language && identified.confidence >= settings.bounds(language).0;
    (settings.drop_false_claims && is_false && codes().any(|code| code == claimed))
        .then(|| ("language.claim", format!("claims {claimed}, is {language}")))
}

#[cfg(test)]
mod tests {
    use super::super::Share;
    use super::*;

    fn german(confidence: f64, other: f64) -> Identified {
        let share = |language, share| Share { language, share };
        Identified {
            language: Some("deu"),
            script: Some("Latn"),
            confidence,
            shares: vec![share("deu", 1.0 - other), share("eng", other)],
        }
    }

    fn settings(toml: &str) -> Settings {
        let settings: Settings = toml::from_str(toml).unwrap();
        settings.check().unwrap();
        settings
    }

    fn reason(identified: &Identified, toml: &str) -> Option<&'static str> {
        verdict(identified, &settings(toml)).map(|(reason, _)| reason)
    }

    #[test]
    fn languages_are_kept_and_dropped_by_either_code() {
        let sure = german(1.0, 0.0);
        assert_eq!(reason(&sure, ""), None);
        assert_eq!(reason(&sure, "keep = ['de', 'eng']"), None);
        assert_eq!(reason(&sure, "keep = ['en']"), Some("language.not_kept"));
        assert_eq!(reason(&sure, "drop = ['de']"), Some("language.dropped"));
        assert_eq!(reason(&Identified::default(), ""), Some("language.unknown"));
        assert_eq!(reason(&Identified::default(), "min_confidence = 0.0"), None);
    }

    #[test]
    fn bounds_are_per_language_where_given() {
        assert_eq!(reason(&german(0.6, 0.0), ""), Some("language.confidence"));
        assert_eq!(
            reason(&german(0.6, 0.0), "per_language.de.min_confidence = 0.5"),
            None
        );
        assert_eq!(
            reason(&german(0.6, 0.0), "per_language.en.min_confidence = 0.5"),
            Some("language.confidence")
        );
        assert_eq!(
            reason(&german(1.0, 0.3), "max_other_share = 0.25"),
            Some("language.mixed")
        );
        assert_eq!(
            reason(
                &german(1.0, 0.3),
                "max_other_share = 0.25\nper_language.deu.max_other_share = 0.4"
            ),
            None
        );
        assert!(settings("").is_mixed(&german(1.0, 0.3)));
        assert!(!settings("").is_mixed(&german(1.0, 0.1)));
    }

    #[test]
    fn a_false_claim_is_dropped_on_demand() {
        let demand = settings("drop_false_claims = true");
        let reason = |claim: &str, settings: &Settings| {
            verdict_on_claim(&german(1.0, 0.0), claim, settings).map(|(reason, _)| reason)
        };
        assert_eq!(reason("nl-NL", &demand), Some("language.claim"));
        assert_eq!(reason("de-AT", &demand), None);
        assert_eq!(reason("tlh", &demand), None);
        assert_eq!(reason("nl-NL", &settings("")), None);
    }

    #[test]
    fn mistakes_are_named() {
        for (toml, parts) in [
            ("keep = ['english']", vec!["keep", "`english`", "`eng`"]),
            ("drop = ['xx']", vec!["drop", "`xx`"]),
            ("keep = ['de']\ndrop = ['deu']", vec!["drop", "`deu`", "keep"]),
            ("min_confidence = 2.0", vec!["min_confidence = 2", "0 to 1"]),
            (
                "per_language.de.max_other_share = -1.0",
                vec!["per_language.de.max_other_share = -1"],
            ),
            (
                "per_language.de = {}\nper_language.deu = {}",
                vec!["`de`", "`deu`"],
            ),
        ] {
            let error = toml::from_str::<Settings>(toml).unwrap().check().unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        assert!(toml::from_str::<Settings>("kep = []").is_err());
    }
}
