//! Object stores as folders: the same documents as of a folder of this machine.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use lockstep_curate::read::{ListError, Objects, Source, SourceSettings};
use object_store::aws::AmazonS3Builder;
use object_store::{ClientOptions, RetryConfig};

use crate::server::{Server, answer};
use crate::support::All;

pub(crate) fn settings(path: &str) -> SourceSettings {
    SourceSettings {
        name: "test".to_owned(),
        path: path.to_owned(),
        ..SourceSettings::default()
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Lines of so many bytes in all.
pub(crate) fn lines(bytes: usize) -> String {
    let mut text = String::new();
    while text.len() < bytes {
        text.push_str(&format!(
            "{{\"text\":\"line {} of {}\"}}\n",
            text.len(),
            "x".repeat(text.len() % 97)
        ));
    }
    text
}

/// Files of all kinds, one of them several blocks long.
pub(crate) fn files() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("raw/Cargo.toml", b"[package]\nlicense = \"MIT\"".to_vec()),
        ("raw/a/large.jsonl", lines(3 << 20).into_bytes()),
        ("raw/a/part.jsonl.gz", gzip(lines(1 << 20).as_bytes())),
        ("raw/a/b/note 1.txt", b"A note.".to_vec()),
        ("raw/a/b/ü.md", b"# Title".to_vec()),
        ("raw/a/empty.txt", Vec::new()),
        ("raw/.hidden", b"x".to_vec()),
        ("raw/picture.png", b"\x89PNG".to_vec()),
        ("other/c.txt", b"Not below raw.".to_vec()),
    ]
}

pub(crate) fn write_files(folder: &Path) {
    for (name, bytes) in files() {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// Whether a path of an object store and one of this machine hold the same, whole and cut.
pub(crate) fn assert_same(open: impl Fn(&SourceSettings) -> Source, remote: &str, local: &str) -> All {
    let mut all = All::default();
    for unit_bytes in [1 << 30, 700_000] {
        let cut = |path| SourceSettings {
            unit_bytes: Some(unit_bytes),
            ..settings(path)
        };
        all = All::of(&open(&cut(remote)));
        let expected = All::of(&Source::open(&cut(local)).unwrap());
        assert_eq!(all.reasons(), expected.reasons());
        assert!(
            all == expected,
            "{remote} {} {}",
            all.documents.len(),
            expected.documents.len()
        );
    }
    all
}

#[test]
fn an_object_store_is_read_as_a_folder_is() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let local = folder.path().to_str().unwrap();
    let open = |settings: &SourceSettings| Source::open(settings).unwrap();
    for (path, documents) in [
        ("", true),
        ("/", true),
        ("/raw", true),
        ("/raw/a/b/note 1.txt", true),
        ("/**/*.jsonl*", true),
        ("/raw/*/*.{jsonl,jsonl.gz}", true),
        ("/*/*.txt", true),
        ("/raw/*.none", false),
    ] {
        let all = assert_same(open, &format!("file://{local}{path}"), &format!("{local}{path}"));
        assert_eq!(!all.documents.is_empty(), documents, "{path}");
    }
    let all = All::of(&open(&settings(&format!("file://{local}/raw"))));
    assert!(
        all.documents
            .iter()
            .any(|document| document.licence.as_deref() == Some("MIT"))
    );
    let refused = Source::open(&settings(&format!("file://{local}/nowhere")));
    assert!(matches!(refused, Err(ListError::Unreadable { .. })));
}

#[test]
fn an_object_that_changes_after_it_was_listed_is_told() {
    let folder = tempfile::tempdir().unwrap();
    write_files(folder.path());
    let source = Source::open(&settings(&format!("file://{}/other", folder.path().display()))).unwrap();
    let before = source.list().unwrap();
    assert_eq!(source.list().unwrap(), before);
    // By another file of the same size, as only then the time does not decide.
    fs::write(folder.path().join("new"), "not below raw.").unwrap();
    fs::rename(folder.path().join("new"), folder.path().join("other/c.txt")).unwrap();
    let all = All::of_listing(&source, &before);
    assert_eq!((all.texts(), all.reasons()), (vec![], vec!["read.changed"]));
    assert_ne!(source.list().unwrap().units, before.units);
    assert_eq!(All::of(&source).texts(), ["not below raw."]);
}

#[test]
fn a_store_that_does_not_answer_any_more_is_no_store_without_files() {
    const LISTED: &str = "<ListBucketResult><Contents><Key>a.txt</Key><Size>1</Size><ETag>\"1\"</ETag>\
        <LastModified>2024-05-01T00:00:00Z</LastModified></Contents></ListBucketResult>";
    let server = Server::start(|path, _| match path.contains("list-type") {
        true => answer("200 OK", &[], LISTED.as_bytes()),
        false => answer("500 Internal Server Error", &[], b""),
    });
    let no_retry = RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    };
    let store = AmazonS3Builder::new()
        .with_bucket_name("bucket")
        .with_endpoint(server.url(""))
        .with_region("us-east-1")
        .with_skip_signature(true)
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(no_retry)
        .build()
        .unwrap();
    let store = Arc::new(Objects::over("s3://bucket", Arc::new(store)).unwrap());
    let source = Source::open_in(store, &settings("s3://bucket")).unwrap();
    let listing = source.list().unwrap();
    assert_eq!((listing.units.len(), source.outage()), (1, None));
    let all = All::of_listing(&source, &listing);
    assert_eq!(all.reasons(), ["read.unreadable"]);
    assert!(source.outage().unwrap().contains("500"), "{:?}", source.outage());
    // It is asked nothing more, and what is missing is not taken for missing.
    let asked = server.asked_at_all();
    assert!(matches!(source.list(), Err(ListError::Outage { .. })));
    assert_eq!(server.asked_at_all(), asked);
}
