//! One small function for each reader of bytes that somebody else wrote: it is given any bytes and asserts what must hold.

use std::fs;
use std::panic;
use std::sync::{Arc, Once};

use lockstep_curate::bias::{Auditor, Lexicon};
use lockstep_curate::decontaminate::{IndexBuilder, Scratch};
use lockstep_curate::licence::Gate;
use lockstep_curate::pii::{Detector, Policy};
use lockstep_curate::quality::{Rules, rules};
use lockstep_curate::read::SourceSettings;
use lockstep_curate::{Spec, bias, decontaminate, language, licence, normalise, pii, quality, words};
use lockstep_data::Tokenizer;
use lockstep_data::megatron::IndexHeader;
use lockstep_data::tokenizer::END_OF_TEXT;

use crate::samples;
use crate::support::{All, MadeUp, read_from, settings};

/// A reader under test.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Good input, of which it is told what is wrong once it is damaged.
    pub(crate) samples: fn() -> Vec<Vec<u8>>,
    /// Panics if what must hold does not.
    pub(crate) check: fn(&[u8]),
}

/// All of them.
pub(crate) const TARGETS: &[Target] = &[
    Target {
        name: "jsonl",
        samples: || vec![samples::jsonl()],
        check: jsonl,
    },
    Target {
        name: "csv",
        samples: || vec![samples::csv()],
        check: |bytes| drop(read("a.csv", bytes)),
    },
    Target {
        name: "html",
        samples: || vec![samples::html()],
        check: |bytes| one("a.html", bytes),
    },
    Target {
        name: "warc",
        samples: || vec![samples::warc()],
        check: |bytes| drop(read("a.warc", bytes)),
    },
    Target {
        name: "parquet",
        samples: samples::tables,
        check: |bytes| drop(read("a.parquet", bytes)),
    },
    Target {
        name: "text",
        samples: samples::texts,
        check: |bytes| one("a.txt", bytes),
    },
    Target {
        name: "markdown",
        samples: samples::texts,
        check: |bytes| one("a.md", bytes),
    },
    Target {
        name: "code",
        samples: samples::prose,
        check: |bytes| one("a.rs", bytes),
    },
    Target {
        name: "jsonl-gzip",
        samples: || samples::packed("a.jsonl.gz"),
        check: |bytes| drop(read("a.jsonl.gz", bytes)),
    },
    Target {
        name: "jsonl-zstd",
        samples: || samples::packed("a.jsonl.zst"),
        check: |bytes| drop(read("a.jsonl.zst", bytes)),
    },
    Target {
        name: "warc-gzip",
        samples: || samples::packed("a.warc.gz"),
        check: |bytes| drop(read("a.warc.gz", bytes)),
    },
    Target {
        name: "warc-zstd",
        samples: || samples::packed("a.warc.zst"),
        check: |bytes| drop(read("a.warc.zst", bytes)),
    },
    Target {
        name: "manifest-cargo",
        samples: || {
            vec![
                b"[workspace.package]\nlicense = \"MIT\"\n[package]\nlicense = \"MIT OR Apache-2.0\"\n"
                    .to_vec(),
            ]
        },
        check: |bytes| drop(read("Cargo.toml", bytes)),
    },
    Target {
        name: "manifest-npm",
        samples: || vec![br#"{"name":"a","license":{"type":"MIT","url":"b"}}"#.to_vec()],
        check: |bytes| drop(read("package.json", bytes)),
    },
    Target {
        name: "manifest-python",
        samples: || vec![b"[project]\nlicense = {text = \"BSD-3-Clause\"}\nlicense = \"MIT\"\n".to_vec()],
        check: |bytes| drop(read("pyproject.toml", bytes)),
    },
    Target {
        name: "normalise",
        samples: samples::texts,
        check: normalise_,
    },
    Target {
        name: "language",
        samples: samples::prose,
        check: language_,
    },
    Target {
        name: "quality",
        samples: samples::prose,
        check: quality_,
    },
    Target {
        name: "pii",
        samples: samples::prose,
        check: pii_,
    },
    Target {
        name: "licence",
        samples: samples::licences,
        check: licence_,
    },
    Target {
        name: "exclusions",
        samples: || vec![format!("# digests\n{}  a\n", "0123456789abcdef".repeat(4)).into()],
        check: |bytes| drop(gate().exclude_digests(&lossy(bytes))),
    },
    Target {
        name: "evaluations",
        samples: || {
            vec![br#"{"question":"What is the colour of the sky over the sea on a clear day in June?","choices":["a"]}"#.to_vec()]
        },
        check: evaluations,
    },
    Target {
        name: "lexicon",
        samples: samples::lexicons,
        check: lexicon,
    },
    Target {
        name: "spec",
        samples: samples::specs,
        check: spec,
    },
    Target {
        name: "tokenizer",
        samples: samples::tokenizers,
        check: tokenizer,
    },
    Target {
        name: "index",
        samples: samples::indices,
        check: index,
    },
];

/// The target of this name.
pub(crate) fn named(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Most that any reader may hold, with the settings of [`small`].
const MOST_BYTES: u64 = 32 << 20;

fn small() -> SourceSettings {
    SourceSettings {
        max_record_bytes: 256 << 10,
        max_html_bytes: 32 << 10,
        max_page_bytes: 1 << 20,
        ..settings("/".as_ref())
    }
}

/// Panics of libraries are expected, and are not printed: to look up a backtrace takes memory, which is measured here.
fn silence_libraries() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !panic
                .location()
                .is_some_and(|location| location.file().contains("/registry/src/"))
            {
                print(panic);
            }
        }));
    });
}

/// Reads a file twice, and checks what must hold.
pub(crate) fn read(name: &str, bytes: &[u8]) -> All {
    silence_libraries();
    let store = MadeUp::of(name, Arc::<[u8]>::from(bytes));
    let mut all = All::default();
    let used = allocation_counter::measure(|| all = read_from(&store, &small()));
    assert!(used.bytes_max < MOST_BYTES, "{} bytes held", used.bytes_max);
    assert!(
        !all.documents.is_empty() || !all.dropped.is_empty(),
        "nothing is told"
    );
    assert_eq!(read_from(&store, &small()), all);
    for document in &all.documents {
        assert!(!document.text.trim().is_empty() && document.text.len() <= 3 * small().max_record_bytes);
    }
    for dropped in &all.dropped {
        assert!(dropped.reason.starts_with("read."), "{dropped:?}");
        assert!(dropped.detail.len() < 4096, "{dropped:?}");
    }
    if !name.ends_with("gz") && !name.ends_with("zst") {
        let origins = all.documents.iter().map(|document| &document.origin);
        let mut origins = origins.chain(all.dropped.iter().map(|dropped| &dropped.origin));
        assert!(origins.all(|origin| origin.offset <= bytes.len() as u64));
    }
    all
}

/// Of a file that is one document, one thing is told.
fn one(name: &str, bytes: &[u8]) {
    let all = read(name, bytes);
    assert_eq!(all.documents.len() + all.dropped.len(), 1, "{all:?}");
}

/// Of each line one thing is told, at the place where it begins.
fn jsonl(bytes: &[u8]) {
    let all = read("a.jsonl", bytes);
    let mut offset = 0;
    let mut begins = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let content = if offset == 0 {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line)
        } else {
            line
        };
        if !content.trim_ascii().is_empty() {
            begins.push(offset);
        }
        offset += line.len() as u64;
    }
    let origins = all.documents.iter().map(|document| &document.origin);
    let origins = origins.chain(all.dropped.iter().map(|dropped| &dropped.origin));
    let mut told: Vec<u64> = origins.map(|origin| origin.offset).collect();
    told.sort_unstable();
    assert!(
        told == begins || begins.is_empty() && told == [0],
        "{told:?} {begins:?}"
    );
}

/// Text loses its control characters and is in form C; a second time changes nothing.
fn normalise_(bytes: &[u8]) {
    let settings = normalise::Settings::default();
    let text = lossy(bytes);
    let once = normalise::normalise(&text, &settings);
    assert!(once.text.len() <= 3 * text.len(), "{} bytes", once.text.len());
    assert_eq!(once.changes.total() == 0, once.text == text);
    let twice = normalise::normalise(&once.text, &settings);
    assert_eq!((twice.changes.total(), &twice.text), (0, &once.text));
    let is_control = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    assert!(!once.text.contains(is_control), "{:?}", once.text);
}

fn language_(bytes: &[u8]) {
    let identified = language::identify(&lossy(bytes));
    let share = 0.0..=1.0 + 1e-9;
    assert!(share.contains(&identified.confidence), "{identified:?}");
    assert!(
        share.contains(&(identified.share() + identified.other_share())),
        "{identified:?}"
    );
    let known = identified
        .language
        .is_none_or(|code| language::code(code) == Ok(code));
    assert!(known, "{identified:?}");
}

/// Scores are numbers in their bounds, and no words are outside of the text.
fn quality_(bytes: &[u8]) {
    let text = lossy(bytes);
    let judge = Rules::new(&quality::Settings::default()).unwrap();
    let mut scorer = judge.scorer();
    let scores = scorer.score(&text, Some("eng"));
    for rule in rules() {
        let value = rule.value(&scores);
        assert!(value.is_none_or(f64::is_finite), "{} = {value:?}", rule.code);
    }
    let _ = judge.verdict(&scores, Some("eng"), true);
    assert_eq!(scorer.score(&text, Some("eng")), scores);
    let cleaned = scorer.clean(&text, Some("eng")).text.into_owned();
    assert!(cleaned.len() <= text.len());
    assert!(cleaned.lines().count() <= scores.c4_kept_lines as usize);
    for word in words::words(&text) {
        assert!(
            text.get(word.start..word.end)
                .is_some_and(|word| !word.contains(char::is_whitespace))
        );
    }
}

/// What was found is in the text, in order; what is left of it has nothing to be found; what was replaced is gone.
fn pii_(bytes: &[u8]) {
    let text = lossy(bytes);
    let settings = pii::Settings::default();
    let detector = Detector::new(&settings).unwrap();
    let mut found = Vec::new();
    detector.find(&text, &mut found);
    let mut end = 0;
    for one in &found {
        assert!(one.range.start >= end && text.get(one.range.clone()).is_some_and(|value| !value.is_empty()));
        end = one.range.end;
    }
    let cleaned = detector.clean(&text);
    if cleaned.verdict.is_some() {
        return;
    }
    let mut left = Vec::new();
    detector.find(&cleaned.text, &mut left);
    left.retain(|found| settings.policy(found.kind) == Policy::Redact);
    assert_eq!(left, [], "in {:?}", cleaned.text);
    assert_eq!(
        cleaned.text == text,
        !found
            .iter()
            .any(|found| settings.policy(found.kind) == Policy::Redact)
    );
}

fn gate() -> Gate {
    Gate::new(&licence::Settings::default()).unwrap()
}

/// What a statement is read as is read as the same.
fn licence_(bytes: &[u8]) {
    let statement = lossy(bytes);
    let Some(read) = licence::read(&statement) else {
        return;
    };
    let again = licence::read(read.as_ref());
    assert_eq!(again.as_ref().map(ToString::to_string), Some(read.to_string()));
    let allowing = licence::Settings {
        allow: vec![statement],
        ..licence::Settings::default()
    };
    drop(Gate::new(&allowing));
}

/// A text that is cut holds nothing of what it was cut for.
fn evaluations(bytes: &[u8]) {
    let text = lossy(bytes);
    let mut builder = IndexBuilder::new(&decontaminate::Settings::default()).unwrap();
    for (number, line) in (0..).zip(text.lines()) {
        if builder.add("set", number, line).is_err() {
            break;
        }
    }
    let index = builder.finish();
    let mut scratch = Scratch::default();
    let found = index.scan(&text, &mut scratch);
    for range in &found.ranges {
        assert!(text.get(range.clone()).is_some(), "{range:?}");
    }
    if let Ok(cut) = index.cut(&text, &mut scratch) {
        assert!(cut.len() <= text.len());
        assert!(index.scan(&cut, &mut scratch).is_empty());
    }
}

fn lexicon(bytes: &[u8]) {
    let Ok(lexicon) = Lexicon::parse("a", &lossy(bytes)) else {
        return;
    };
    drop(Auditor::new(
        bias::Settings::default(),
        &[("a".to_owned(), lexicon)],
    ));
}

/// A spec that is read is read again from what it is written as.
fn spec(bytes: &[u8]) {
    if let Ok(spec) = Spec::parse(&lossy(bytes)) {
        assert_eq!(Spec::parse(&spec.to_toml().unwrap()).unwrap(), spec);
    }
}

/// A tokenizer that is read gives tokens of its vocabulary, and is read again from what it is written as.
fn tokenizer(bytes: &[u8]) {
    silence_libraries();
    let Ok(tokenizer) = Tokenizer::from_json(&lossy(bytes), END_OF_TEXT) else {
        return;
    };
    let text = "the cat, <|endoftext|> ab\u{e9}\u{4f60} \n ";
    if let Ok(tokens) = tokenizer.encode(text) {
        drop(tokenizer.decode(&tokens));
    }
    drop(tokenizer.decode(&[0, 1, u32::MAX]));
    let again = Tokenizer::from_json(&tokenizer.to_json().unwrap(), END_OF_TEXT).unwrap();
    assert_eq!(again.encode(text).ok(), tokenizer.encode(text).ok());
}

/// An index that is read is as long as it says.
fn index(bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.idx");
    fs::write(&path, bytes).unwrap();
    if let Ok(head) = IndexHeader::read(&path) {
        assert_eq!(34 + 12 * head.sequences + 8 * head.bounds, bytes.len() as u64);
    }
}
