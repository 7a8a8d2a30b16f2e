//! Licences, opt-outs and exclusions decide as they are set.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use lockstep_curate::licence::{Exclude, Gate, GateError, Missing, Settings};
use lockstep_curate::{Document, Origin};
use proptest::prelude::*;

fn document() -> Document {
    Document {
        origin: Origin {
            source: "forum".into(),
            file: "2024/a/b.jsonl".into(),
            record: 3,
            offset: 100,
        },
        text: "text".to_owned(),
        id: None,
        url: Some("https://www.example.com/path/page.html".to_owned()),
        language: None,
        licence: None,
        opt_outs: Vec::new(),
        created: None,
        is_code: false,
        recoded: None,
        derived_from: None,
    }
}

fn digest() -> [u8; 32] {
    *blake3::hash(b"text").as_bytes()
}

fn list(entries: &[&str]) -> Vec<String> {
    entries.iter().map(|entry| (*entry).to_owned()).collect()
}

fn code(settings: &Settings, document: &Document) -> Option<&'static str> {
    Gate::new(settings)
        .unwrap()
        .verdict(document, &[digest()])
        .map(|(code, _)| code)
}

fn licensed(allow: &[&str], deny: &[&str], licence: &str) -> Option<&'static str> {
    let settings = Settings {
        allow: list(allow),
        deny: list(deny),
        ..Settings::default()
    };
    code(
        &settings,
        &Document {
            licence: Some(licence.to_owned()),
            ..document()
        },
    )
}

#[test]
fn expressions_are_evaluated() {
    let denied = Some("licence.denied");
    for (allow, deny, licence, expected) in [
        (&["permissive"][..], &[][..], "MIT", None),
        (&["permissive"], &[], "GPLv3", denied),
        (&["permissive"], &[], "MIT OR GPL-3.0-only", None),
        (&["permissive"], &[], "MIT AND GPL-3.0-only", denied),
        (&["permissive"], &[], "(MIT AND GPL-3.0-only) OR Apache-2.0", None),
        (&["permissive"], &[], "MIT/Apache-2.0", None),
        (&["permissive"], &[], "Apache-2.0 WITH LLVM-exception", None),
        (&["permissive", "public-domain"], &[], "CC0-1.0", None),
        (&["permissive"], &[], "CC0-1.0", denied),
        (&[], &["copyleft"], "MIT", None),
        (&[], &["copyleft"], "LGPL-2.1-or-later", denied),
        (&[], &["copyleft"], "MIT OR LGPL-2.1-or-later", None),
        // The closer name decides.
        (&["MPL-2.0"], &["copyleft"], "MPL-2.0", None),
        (&["permissive"], &["BSD-4-Clause"], "BSD-4-Clause", denied),
        (
            &["GPL-2.0 WITH Classpath-exception-2.0"],
            &["GPL-2.0"],
            "GPL-2.0-only WITH Classpath-exception-2.0",
            None,
        ),
        (
            &["GPL-2.0 WITH Classpath-exception-2.0"],
            &["GPL-2.0"],
            "GPL-2.0-only",
            denied,
        ),
        (&["MIT"], &["MIT"], "MIT", denied),
        (&["BSD-*"], &[], "BSD-3-Clause-Clear", None),
        (&["GPL-3.0"], &[], "GPL-3.0-or-later", None),
        (&[], &["non-commercial"], "CC BY-NC 4.0", denied),
        (&[], &["proprietary"], "UNLICENSED", denied),
    ] {
        assert_eq!(
            licensed(allow, deny, licence),
            expected,
            "{allow:?} {deny:?} {licence}"
        );
    }
}

#[test]
fn what_is_missing_or_unknown_is_a_setting() {
    let unknown = Document {
        licence: Some("see LICENSE".to_owned()),
        ..document()
    };
    let said_nothing = Document {
        licence: Some("NOASSERTION".to_owned()),
        ..document()
    };
    assert_eq!(code(&Settings::default(), &document()), None);
    assert_eq!(code(&Settings::default(), &unknown), None);
    let strict = Settings {
        missing: Missing::Drop,
        unknown: Missing::Drop,
        ..Settings::default()
    };
    assert_eq!(code(&strict, &document()), Some("licence.missing"));
    assert_eq!(code(&strict, &said_nothing), Some("licence.missing"));
    assert_eq!(code(&strict, &unknown), Some("licence.unknown"));
}

#[test]
fn opt_outs_are_honoured_unless_told_otherwise() {
    for opt_out in [
        "noai",
        "X-Robots-Tag: noindex, noai",
        "tdm-reservation: 1",
        "Content-Usage: train-ai=n",
    ] {
        let document = Document {
            opt_outs: list(&["index", opt_out]),
            ..document()
        };
        assert_eq!(
            code(&Settings::default(), &document),
            Some("consent.opt_out"),
            "{opt_out}"
        );
        assert_eq!(
            code(
                &Settings {
                    opt_outs: Vec::new(),
                    ..Settings::default()
                },
                &document
            ),
            None
        );
    }
    let noindex = Document {
        opt_outs: list(&["noindex"]),
        ..document()
    };
    assert_eq!(code(&Settings::default(), &noindex), None);
    let settings: Settings = toml::from_str("opt_outs = [\"noindex\"]").unwrap();
    assert_eq!(code(&settings, &noindex), Some("consent.opt_out"));
}

#[test]
fn exclusions_match_each_field() {
    type Field = fn(Vec<String>) -> Exclude;
    let sources: Field = |sources| Exclude {
        sources,
        ..Exclude::default()
    };
    let files: Field = |files| Exclude {
        files,
        ..Exclude::default()
    };
    let urls: Field = |urls| Exclude {
        urls,
        ..Exclude::default()
    };
    let domains: Field = |domains| Exclude {
        domains,
        ..Exclude::default()
    };
    for (field, pattern, excluded) in [
        (sources, "forum", true),
        (sources, "for*", true),
        (sources, "f", false),
        (files, "2024/**", true),
        (files, "2024/*", false),
        (files, "**/*.jsonl", true),
        (urls, "https://www.example.com/*", true),
        (urls, "*/page.htm", false),
        (domains, "example.com", true),
        (domains, "EXAMPLE.com", true),
        (domains, "ample.com", false),
        (domains, "www.example.com", true),
        (domains, "*.org", false),
    ] {
        let settings = Settings {
            exclude: field(list(&[pattern])),
            ..Settings::default()
        };
        assert_eq!(
            code(&settings, &document()) == Some("exclude.pattern"),
            excluded,
            "{pattern}"
        );
    }
}

#[test]
fn excluded_digests_are_dropped_before_all_else() {
    let mut gate = Gate::new(&Settings::default()).unwrap();
    let hex = blake3::hash(b"text").to_hex().to_string();
    assert_eq!(
        gate.exclude_digests(&format!("# erased\n\n{hex}  asked on Monday\n")),
        Ok(1)
    );
    let document = Document {
        opt_outs: list(&["noai"]),
        ..document()
    };
    assert_eq!(
        gate.verdict(&document, &[digest()]),
        Some(("exclude.digest", hex.clone()))
    );
    assert_eq!(gate.verdict(&document, &[[0; 32]]).unwrap().0, "consent.opt_out");
    let error = gate.exclude_digests(&format!("{hex}\nabc")).unwrap_err();
    assert_eq!(error, GateError::Digest { line: 2 });
}

#[test]
fn settings_that_mean_nothing_are_refused() {
    let settings = Settings {
        allow: list(&["permisive"]),
        ..Settings::default()
    };
    let error = Gate::new(&settings).err().unwrap().to_string();
    assert!(
        error.contains("licence.allow: `permisive`") && error.contains("permissive"),
        "{error}"
    );
    for wrong in ["MIT OR ISC", "QQQ-*", ""] {
        assert!(
            Gate::new(&Settings {
                deny: list(&[wrong]),
                ..Settings::default()
            })
            .is_err(),
            "{wrong}"
        );
    }
    let exclude = Exclude {
        files: list(&["a[b"]),
        ..Exclude::default()
    };
    let error = Gate::new(&Settings {
        exclude,
        ..Settings::default()
    })
    .err()
    .unwrap()
    .to_string();
    assert!(error.contains("licence.exclude.files: `a[b`"), "{error}");
    assert!(toml::from_str::<Settings>("allows = []").is_err());
}

proptest! {
    // Each licence stands for true or false: the gate evaluates AND and OR as logic does.
    #[test]
    fn a_gate_is_logic(terms in prop::collection::vec(any::<(bool, bool)>(), 1..8)) {
        let name = |allowed: bool| if allowed { "MIT" } else { "GPL-3.0-only" };
        let mut text = name(terms[0].0).to_owned();
        let mut value = terms[0].0;
        for &(allowed, and) in &terms[1..] {
            text = format!("({text}) {} {}", if and { "AND" } else { "OR" }, name(allowed));
            value = if and { value && allowed } else { value || allowed };
        }
        prop_assert_eq!(licensed(&["permissive"], &[], &text).is_none(), value);
    }

    #[test]
    fn any_statement_gets_a_verdict(licence in ".{0,40}", opt_out in ".{0,40}", url in ".{0,40}") {
        let document = Document { licence: Some(licence), opt_outs: vec![opt_out], url: Some(url), ..document() };
        code(&Settings::default(), &document);
    }
}
