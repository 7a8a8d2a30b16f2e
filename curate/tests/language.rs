//! Identification on text that nobody here wrote. Bounds are just below what was measured; the figures are printed.

#[path = "language/texts.rs"]
mod texts;

use std::collections::BTreeMap;

use lockstep_curate::language::{Settings, code, identify, verdict, verdict_on_claim};
use lockstep_curate::quality::{self, Rules};

use texts::{declarations, fetch, html_files, paragraphs};

#[test]
fn declarations_of_human_rights() {
    let Some(declarations) = declarations() else {
        return;
    };
    let settings = Settings::default();
    let (mut right, mut known, mut right_paragraphs, mut known_paragraphs) = (0, 0, 0, 0);
    let (mut refused, mut unknown, mut kept_of_known) = (0, 0, 0);
    let mut languages = BTreeMap::new();
    for declaration in declarations {
        let paragraphs = declaration.paragraphs;
        let identified = identify(&paragraphs.join("\n"));
        let dropped = verdict(&identified, &settings).is_some();
        let Ok(label) = code(&declaration.iso_639_3) else {
            unknown += 1;
            refused += usize::from(dropped);
            continue;
        };
        known += 1;
        languages.insert(label, ());
        kept_of_known += usize::from(!dropped);
        if identified.language == Some(label) {
            right += 1;
        } else {
            println!(
                "{}: {label} taken for {:?}",
                declaration.name, identified.language
            );
        }
        for paragraph in paragraphs.iter().filter(|paragraph| paragraph.len() >= 100) {
            known_paragraphs += 1;
            right_paragraphs += usize::from(identify(paragraph).language == Some(label));
        }
    }
    println!(
        "{right} of {known} declarations in {} languages are identified, {kept_of_known} kept; {right_paragraphs} of \
         {known_paragraphs} paragraphs of 100 bytes or more; of {unknown} in other languages {refused} are dropped",
        languages.len()
    );
    assert!(known > 100 && unknown > 400, "the data is another one");
    let share = |part: usize, whole: usize| part as f64 / whole as f64;
    assert!(share(right, known) > 0.94);
    assert!(share(right_paragraphs, known_paragraphs) > 0.935);
    assert!(share(kept_of_known, known) > 0.98);
    assert!(share(refused, unknown) > 0.42);
}

/// What the filters drop of declarations in the languages that are identified, each judged as what it is.
#[test]
fn filters_and_declarations() {
    let Some(declarations) = declarations() else {
        return;
    };
    let rules = Rules::new(&quality::Settings::default()).unwrap();
    let mut scorer = rules.scorer();
    let mut languages: BTreeMap<&str, (usize, Vec<&str>)> = BTreeMap::new();
    for declaration in declarations {
        let Ok(label) = code(&declaration.iso_639_3) else {
            continue;
        };
        let scores = scorer.score(&declaration.paragraphs.join("\n"), Some(label));
        let (given, reasons) = languages.entry(label).or_default();
        *given += 1;
        reasons.extend(
            rules
                .verdict(&scores, Some(label), false)
                .map(|reason| reason.code),
        );
    }
    let given: usize = languages.values().map(|(given, _)| given).sum();
    let dropped: usize = languages.values().map(|(_, reasons)| reasons.len()).sum();
    println!(
        "{dropped} of {given} declarations in {} languages are dropped",
        languages.len()
    );
    for (language, (given, reasons)) in languages.iter().filter(|(_, (_, reasons))| !reasons.is_empty()) {
        println!("{language}: {} of {given}, {}", reasons.len(), reasons.join(", "));
        assert!(reasons.len() < *given, "{language} is dropped altogether");
    }
    assert!(given > 100 && dropped < given / 20);
}

/// Locales of the handbook of which hardly anything is translated, and those that are translated. Of the others about half is.
const ENGLISH: [&str; 11] = [
    "cs-CZ", "da-DK", "el-GR", "hr-HR", "ko-KR", "nl-NL", "pl-PL", "ro-RO", "tr-TR", "vi-VN", "zh-TW",
];
const TRANSLATED: [&str; 9] = [
    "ca-ES", "de-DE", "en-US", "es-ES", "fr-FR", "id-ID", "it-IT", "nb-NO", "pt-BR",
];

#[test]
fn locales_that_are_english_under_a_foreign_name() {
    let Some(folder) = fetch("handbook.sh") else {
        return;
    };
    let settings = Settings {
        drop_false_claims: true,
        ..Settings::default()
    };
    let mut locales: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    locales.sort();
    assert_eq!(locales.len(), 26);
    for locale in locales {
        let name = locale.file_name().unwrap().to_str().unwrap().to_owned();
        let (mut bytes, mut false_bytes, mut mixed) = (0, 0, 0);
        // A sample of its pages, to be quick.
        for file in html_files(&locale).into_iter().step_by(4) {
            let text = paragraphs(&std::fs::read_to_string(file).unwrap()).join("\n");
            let identified = identify(&text);
            bytes += text.len();
            if verdict_on_claim(&identified, &name, &settings).is_some() {
                false_bytes += text.len();
            }
            mixed += usize::from(settings.is_mixed(&identified));
        }
        let share = false_bytes as f64 / bytes as f64;
        println!(
            "{name}: {:.1}% of {bytes} bytes are in another language; {mixed} files are mixed",
            100.0 * share
        );
        assert!(share > 0.75 || !ENGLISH.contains(&name.as_str()), "{name}");
        assert!(share < 0.3 || !TRANSLATED.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn long_documents_are_identified_in_bounded_time() {
    // 75 MB in one line: what is looked at is bounded, or this would take minutes.
    let text = "Tous les êtres humains naissent libres et égaux en dignité et en droits. ".repeat(1_000_000);
    let identified = identify(&text);
    assert_eq!(identified.language, Some("fra"));
    assert_eq!(identify(&"a".repeat(32 << 20)).script, Some("Latn"));
}
