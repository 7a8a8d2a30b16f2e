//! What each format and each kind of source yields.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use lockstep_curate::read::{self, Format, ListError};
use parquet::basic::Compression;

use crate::support::{folder, gzip, read_all, settings, table, warc_record, zstd};

#[test]
fn a_source_tree_is_read_with_its_languages_and_licences() {
    let tree = folder(&[
        ("Cargo.toml", b"[package]\nlicense = \"MIT\""),
        ("README.md", b"# Title"),
        ("src/lib.rs", b"//! A crate."),
        ("web/package.json", b"{\"license\": \"ISC\"}"),
        ("web/app.ts", b"// SPDX-License-Identifier: Zlib\nlet a;"),
        ("web/b.ts", b"let b;"),
        ("logo.png", b"\x89PNG"),
        (".git/config", b"x"),
    ]);
    let all = read_all(&settings(tree.path()));
    let told: Vec<_> = all
        .documents
        .iter()
        .map(|d| {
            (
                &*d.origin.file,
                d.language.as_deref(),
                d.licence.as_deref(),
                d.is_code,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("Cargo.toml", Some("TOML"), Some("MIT"), true),
            ("README.md", None, Some("MIT"), false),
            ("src/lib.rs", Some("Rust"), Some("MIT"), true),
            ("web/app.ts", Some("TypeScript"), Some("Zlib"), true),
            ("web/b.ts", Some("TypeScript"), Some("ISC"), true),
        ]
    );
    let dropped: Vec<_> = all
        .dropped
        .iter()
        .map(|d| (&*d.origin.file, &*d.reason))
        .collect();
    assert_eq!(
        dropped,
        [
            (".git", "read.hidden"),
            ("logo.png", "read.format"),
            ("web/package.json", "read.format")
        ]
    );
    assert!(all.dropped.iter().all(|dropped| dropped.stage == "read"));
}

#[test]
fn records_are_the_same_in_every_format() {
    let line = r#"{"id":"1","text":"one, \"two\"\nthree","url":"http://a","created":"2024"}"#;
    let jsonl = format!("{line}\n\n{}\n", line.replace("one", "ONE"));
    let csv = "id,text,url,created\n1,\"one, \"\"two\"\"\nthree\",http://a,2024\n1,\"ONE, \"\"two\"\"\nthree\",http://a,2024\n";
    let files = [
        ("a.jsonl", jsonl.clone().into_bytes()),
        ("b.jsonl.gz", gzip(jsonl.as_bytes())),
        ("c.json.zst", zstd(jsonl.as_bytes())),
        ("d.csv", csv.as_bytes().to_vec()),
        (
            "e.csv.gz",
            gzip(
                csv.replace('\n', "\r\n")
                    .replace("\"\"\r\nthree", "\"\"\nthree")
                    .as_bytes(),
            ),
        ),
        ("f.csv.zst", zstd(format!("\u{feff}{csv}").as_bytes())),
    ];
    for (name, bytes) in files {
        let source = folder(&[(name, &bytes)]);
        let all = read_all(&settings(source.path()));
        assert_eq!(
            all.texts(),
            ["one, \"two\"\nthree", "ONE, \"two\"\nthree"],
            "{name} {all:?}"
        );
        for document in &all.documents {
            assert_eq!(document.id.as_deref(), Some("1"), "{name}");
            assert_eq!(document.url.as_deref(), Some("http://a"));
            assert_eq!(document.created.as_deref(), Some("2024"));
        }
    }
}

#[test]
fn an_offset_leads_back_to_its_record() {
    let source = folder(&[
        ("a.jsonl", b"{\"text\":\"a\"}\r\n \n{\"text\":\"b\"}\n"),
        ("b.csv", b"text\r\nx\r\n\r\ny\r\n"),
    ]);
    let all = read_all(&settings(source.path()));
    let at: Vec<_> = all
        .documents
        .iter()
        .map(|d| (d.origin.record, d.origin.offset))
        .collect();
    assert_eq!(at, [(0, 0), (16, 16), (0, 6), (1, 11)]);
}

#[test]
fn parquet_is_read_in_every_compression() {
    let texts = [Some("one"), None, Some("three"), Some(""), Some("five")];
    let mut levels = vec![
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::LZ4,
    ];
    levels.push(Compression::ZSTD(Default::default()));
    levels.push(Compression::GZIP(Default::default()));
    levels.push(Compression::BROTLI(Default::default()));
    for compression in levels {
        let source = folder(&[("a.parquet", &table::of("text", &texts, 2, compression))]);
        let all = read_all(&settings(source.path()));
        assert_eq!(all.texts(), ["one", "three", "five"], "{compression:?} {all:?}");
        let ids: Vec<_> = all.documents.iter().map(|d| d.id.as_deref().unwrap()).collect();
        assert_eq!(ids, ["0", "2", "4"]);
        let dropped: Vec<_> = all
            .dropped
            .iter()
            .map(|d| (d.origin.record, &*d.reason))
            .collect();
        assert_eq!(dropped, [(1, "read.no_text"), (3, "read.empty")]);
    }
}

#[test]
fn a_crawl_is_read_plain_and_compressed_by_record() {
    let page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=iso-8859-1\r\nX-Robots-Tag: noai\r\n\
        TDM-Reservation: 1\r\n\r\n<html lang=fr><body><p>D\xe9j\xe0 vu.</p></body></html>";
    let records = [
        warc_record("warcinfo", "application/warc-fields", b"software: x\r\n"),
        warc_record("request", "application/http", b"GET / HTTP/1.1\r\n\r\n"),
        warc_record("response", "application/http; msgtype=response", page),
        warc_record("response", "application/http", b"HTTP/1.1 404 No\r\n\r\nno"),
        warc_record(
            "response",
            "application/http",
            b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\nx",
        ),
        warc_record("conversion", "text/plain", "Schon gesehen.".as_bytes()),
    ];
    let zipped: Vec<u8> = records.iter().flat_map(|record| gzip(record)).collect();
    for (name, bytes) in [("a.warc", records.concat()), ("a.warc.gz", zipped)] {
        let source = folder(&[(name, &bytes)]);
        let all = read_all(&settings(source.path()));
        assert_eq!(all.texts(), ["Déjà vu.", "Schon gesehen."]);
        let page = &all.documents[0];
        assert_eq!(page.opt_outs, ["noai", "tdm-reservation"]);
        assert_eq!(page.language.as_deref(), Some("fr"));
        assert_eq!(page.url.as_deref(), Some("http://example.org/a"));
        assert_eq!(page.created.as_deref(), Some("2024-05-01T00:00:00Z"));
        assert_eq!(page.id.as_deref(), Some("urn:uuid:1"));
        assert_eq!(page.origin.record, 2);
        assert_eq!(page.origin.offset, (records[0].len() + records[1].len()) as u64);
        let dropped: Vec<_> = all
            .dropped
            .iter()
            .map(|d| (d.origin.record, &*d.reason))
            .collect();
        assert_eq!(dropped, [(3, "read.http_status"), (4, "read.content_type")]);
    }
}

#[test]
fn fields_and_defaults_are_what_the_settings_say() {
    let source = folder(&[(
        "a.data",
        br#"{"body":{"raw":"hi"},"meta":{"lic":["MIT","BSL-1.0"]},"lang":"de"}"#,
    )]);
    let mut settings = settings(source.path());
    settings.format = Format::Jsonl;
    settings.fields.text = vec!["content".into(), "body.raw".into()];
    settings.fields.licence = vec!["meta.lic".into()];
    settings.language = Some("en".to_owned());
    settings.licence = Some("CC0-1.0".to_owned());
    settings.code = true;
    let all = read_all(&settings);
    let document = all.one();
    assert_eq!(document.text, "hi");
    assert_eq!(document.licence.as_deref(), Some("MIT AND BSL-1.0"));
    assert_eq!(document.language.as_deref(), Some("en"));
    assert!(document.is_code);
    settings.fields.language = vec!["lang".into()];
    settings.fields.licence = vec!["none".into()];
    let all = read_all(&settings);
    assert_eq!(all.one().language.as_deref(), Some("de"));
    assert_eq!(all.one().licence.as_deref(), Some("CC0-1.0"));
}

#[test]
fn encodings_are_told_by_the_bytes() {
    let latin = "caf\u{e9} cr\u{e8}me \u{e0} la carte, voil\u{e0} le go\u{fb}t du No\u{eb}l";
    let bytes: Vec<u8> = latin.chars().map(|c| c as u8).collect();
    let page = [b"<meta charset=latin1><body><p>".as_slice(), &bytes, b"</p>"].concat();
    let wide: Vec<u8> = latin.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let source = folder(&[("a.txt", &bytes), ("b.html", &page), ("c.txt", &wide)]);
    assert_eq!(read_all(&settings(source.path())).texts(), [latin; 3]);
}

#[test]
fn a_source_is_a_file_or_a_glob_too() {
    let source = folder(&[
        ("a/x.txt", b"ax"),
        ("a/y.md", b"ay"),
        ("a/b/z.txt", b"abz"),
        ("c/x.txt", b"cx"),
        ("odd[1].txt", b"odd"),
    ]);
    let texts = |path: &str| {
        let all = read_all(&settings(&source.path().join(path)));
        all.documents
            .iter()
            .map(|d| (d.origin.file.to_string(), d.text.clone()))
            .collect::<Vec<_>>()
    };
    let pairs = |pairs: &[(&str, &str)]| {
        pairs
            .iter()
            .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
            .collect::<Vec<_>>()
    };
    assert_eq!(texts("a/x.txt"), pairs(&[("x.txt", "ax")]));
    assert_eq!(texts("odd[1].txt"), pairs(&[("odd[1].txt", "odd")]));
    assert_eq!(texts("*/*.txt"), pairs(&[("a/x.txt", "ax"), ("c/x.txt", "cx")]));
    assert_eq!(texts("**/*.txt").len(), 4);
    assert_eq!(
        texts("a/**/*.{txt,md}"),
        pairs(&[("b/z.txt", "abz"), ("x.txt", "ax"), ("y.md", "ay")])
    );
    assert_eq!(texts("a/*.none"), []);
}

#[test]
fn globs_include_and_exclude() {
    let source = folder(&[
        ("a.txt", b"a"),
        ("b.md", b"b"),
        ("t/c.txt", b"c"),
        ("t/n/d.txt", b"d"),
    ]);
    let mut settings = settings(source.path());
    settings.include = vec!["*.txt".to_owned()];
    assert_eq!(read_all(&settings).texts(), ["a", "c", "d"]);
    settings.exclude = vec!["n".to_owned()];
    assert_eq!(read_all(&settings).texts(), ["a", "c"]);
    settings.exclude = vec!["t/**".to_owned()];
    assert_eq!(read_all(&settings).texts(), ["a"]);
    assert_eq!(read::list(&settings).unwrap().excluded, 3);
    assert_eq!(read::list(&settings).unwrap().dropped, []);
}

#[test]
fn links_are_followed_only_if_they_are_to_be_and_never_in_circles() {
    let source = folder(&[("a/x.txt", b"x"), ("b/y.txt", b"y")]);
    let at = |path: &str| source.path().join(path);
    symlink("..", at("a/up")).unwrap();
    symlink("../b", at("a/side")).unwrap();
    symlink("self", at("self")).unwrap();
    symlink("a/x.txt", at("file.txt")).unwrap();
    let mut settings = settings(source.path());
    let all = read_all(&settings);
    assert_eq!(all.texts(), ["x", "y"]);
    assert_eq!(all.reasons(), ["read.link"; 4]);
    settings.follow_links = true;
    let all = read_all(&settings);
    // The folder b is read once, under the first of its names.
    assert_eq!(all.texts(), ["y", "x", "x"]);
    let dropped: Vec<_> = all
        .dropped
        .iter()
        .map(|d| (&*d.origin.file, &*d.reason))
        .collect();
    assert_eq!(
        dropped,
        [
            ("a/up", "read.link_loop"),
            ("b", "read.link_loop"),
            ("self", "read.unreadable")
        ]
    );
}

#[test]
fn names_that_are_not_text_are_escaped() {
    let source = folder(&[]);
    for name in [b"a\nb.txt".as_slice(), b"c\\d.txt", b"e\xff.txt", b"e\\xff.txt"] {
        fs::write(source.path().join(OsStr::from_bytes(name)), name).unwrap();
    }
    let all = read_all(&settings(source.path()));
    let files: Vec<_> = all
        .documents
        .iter()
        .map(|document| &*document.origin.file)
        .collect();
    assert_eq!(files, [r"a\x0ab.txt", r"c\\d.txt", r"e\\xff.txt", r"e\xff.txt"]);
    assert_eq!(all.texts()[1], "c\\d.txt");
}

#[test]
fn what_is_no_source_is_an_error() {
    let refused = |path: &str| read::list(&settings(path.as_ref())).unwrap_err();
    assert!(matches!(refused("/no/such/folder"), ListError::Unreadable { .. }));
    assert!(matches!(refused("/no/such/*.txt"), ListError::Unreadable { .. }));
    assert!(matches!(refused("/dev/null"), ListError::NotAFile { .. }));
    assert!(matches!(refused(""), ListError::Setting(_)));
}
