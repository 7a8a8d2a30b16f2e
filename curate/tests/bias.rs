//! An audit of text that nobody here wrote: which languages does the filter by language drop?

#[expect(dead_code, reason = "not all of it is used here")]
#[path = "language/texts.rs"]
mod texts;

use lockstep_curate::bias::{Auditor, Counts, Dimension, Lexicon, Observed, Settings};
use lockstep_curate::language;

use texts::declarations;

#[test]
fn a_filter_by_language_drops_some_scripts_more_than_others() {
    let Some(declarations) = declarations() else {
        return;
    };
    let settings = Settings {
        min_documents: 10,
        ..Settings::default()
    };
    let auditor = Auditor::new(settings, &Lexicon::built_in().unwrap()).unwrap();
    let mut parts = vec![Counts::default(); 3];
    for (i, declaration) in declarations.iter().enumerate() {
        let text = declaration.paragraphs.join("\n");
        let identified = language::identify(&text);
        let verdict = language::verdict(&identified, &language::Settings::default());
        let observed = Observed {
            text: &text,
            language: identified.language,
            script: identified.script,
            source: "udhr",
            url: Some("https://www.ohchr.org/"),
            dropped: verdict.as_ref().map(|(reason, _)| *reason),
        };
        auditor.observe(&mut parts[i % 3], &observed);
    }
    let mut counts = Counts::default();
    parts.into_iter().rev().for_each(|part| counts.merge(part));
    let report = auditor.report(&counts);
    assert_eq!(report.all.documents, declarations.len() as u64);
    assert_eq!(
        report.all.dropped.values().sum::<u64>(),
        report.all.documents - report.all.kept_documents
    );
    let rows = &report.representation[&Dimension::Language];
    assert_eq!(
        rows.iter().map(|row| row.kept_bytes).sum::<u64>(),
        report.all.kept_bytes
    );
    assert_eq!(report.representation[&Dimension::Domain][0].name, "ohchr.org");
    for effect in report
        .effects
        .iter()
        .filter(|effect| effect.dimension == Dimension::Script)
    {
        let (low, high) = effect.interval;
        println!(
            "{} {}: {:.3} ({low:.3} to {high:.3}), {:.2} times all",
            effect.reason, effect.name, effect.rate, effect.ratio
        );
        assert!(low <= effect.rate && effect.rate <= high);
    }
    // Most languages that the identifier does not know are written in Latin letters.
    let latin = report
        .effects
        .iter()
        .find(|effect| effect.name == "Latn" && effect.reason == "language.confidence");
    assert!(latin.unwrap().ratio > 1.0);
    // "Everyone has the right to … his family": the English declaration speaks of men.
    let mentions = |group: &str| {
        let english = &counts.languages["eng"].groups["gender"];
        english.get(group).map_or(0, |group| group.mentions)
    };
    assert!(mentions("male") > mentions("female") && mentions("female") > 0);
}
