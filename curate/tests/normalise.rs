//! Normalisation and decoding of text that nobody here wrote.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[expect(dead_code, reason = "not all of it is used here")]
#[path = "language/texts.rs"]
mod texts;

use std::ops::ControlFlow;

use encoding_rs::{Encoding, WINDOWS_1252};
use lockstep_curate::Document;
use lockstep_curate::normalise::{Settings, normalise};
use lockstep_curate::read::{Read, SourceSettings, read_all};
use lockstep_data::Digest;

use texts::declarations;

#[test]
fn declarations_are_no_mojibake_and_are_mended_when_made_so() {
    let Some(declarations) = declarations() else {
        return;
    };
    let settings = Settings::default();
    let (mut mended, mut bytes) = (0, 0);
    for declaration in &declarations {
        let text = declaration.paragraphs.join("\n");
        let normal = normalise(&text, &settings);
        assert_eq!(normal.changes.mojibake, 0, "{}", declaration.name);
        assert_eq!(
            normalise(&normal.text, &settings).changes.total(),
            0,
            "{}",
            declaration.name
        );
        let (misread, _) = WINDOWS_1252.decode_without_bom_handling(normal.text.as_bytes());
        if normalise(&misread, &settings).text == normal.text {
            mended += 1;
        } else {
            println!("{} stays as it was misread, or in part", declaration.name);
        }
        bytes += text.len();
    }
    println!(
        "{mended} of {} misread declarations, of {bytes} bytes in all, are mended",
        declarations.len()
    );
    assert_eq!(mended, declarations.len());
}

/// The one document of a text file with this content.
fn read_as_a_file(content: &[u8]) -> Document {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("text.txt"), content).unwrap();
    let settings = SourceSettings {
        name: "old".to_owned(),
        path: folder.path().to_str().unwrap().to_owned(),
        ..SourceSettings::default()
    };
    let mut document = None;
    let taken = read_all(&settings, &mut |read| {
        if let Read::Document(read) = read {
            document = Some(read);
        }
        ControlFlow::Continue(())
    });
    taken.unwrap();
    document.unwrap()
}

#[test]
fn declarations_in_old_encodings_are_decoded() {
    let Some(declarations) = declarations() else {
        return;
    };
    for (names, label) in [
        (
            &["fra", "deu_1996", "spa", "swe", "dan", "ita", "nld"][..],
            "windows-1252",
        ),
        (&["pol", "ces", "hun", "slk", "hrv"], "windows-1250"),
        (&["rus", "ukr", "bul"], "windows-1251"),
        (&["ell_monotonic"], "windows-1253"),
        (&["heb"], "windows-1255"),
        (&["jpn"], "Shift_JIS"),
        (&["jpn"], "EUC-JP"),
        (&["kor"], "EUC-KR"),
        (&["cmn_hans"], "GBK"),
        (&["cmn_hant"], "Big5"),
        (&["tha"], "windows-874"),
    ] {
        for name in names {
            let declaration = declarations.iter().find(|one| one.name == *name).unwrap();
            let encoding = Encoding::for_label(label.as_bytes()).unwrap();
            // What the encoding has no character for was not written in it.
            let has = |c: &char| !encoding.encode(c.encode_utf8(&mut [0; 4])).2;
            let text: String = declaration.paragraphs.join("\n").chars().filter(has).collect();
            let (bytes, _, _) = encoding.encode(&text);
            let document = read_as_a_file(&bytes);
            let recoded = document.recoded.unwrap();
            assert!(
                document.text == text,
                "{name} in {label} is read as {}",
                recoded.from
            );
            assert_eq!(recoded.original, Digest::of(&bytes));
        }
    }
}
