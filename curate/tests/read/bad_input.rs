//! Input that is bad: what can be read is, and the rest is told.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::SystemTime;

use lockstep_curate::read;
use parquet::basic::Compression;

use crate::support::{
    All, Endless, MadeUp, folder, gzip, read_all, read_from, read_unit, settings, table, warc_record, zstd,
};

fn read_one(name: &str, bytes: &[u8]) -> All {
    let source = folder(&[(name, bytes)]);
    read_all(&settings(source.path()))
}

/// Lines that do not compress well, so that a file cut in the middle holds about half of them.
fn lines(count: usize) -> String {
    let mut state = 7_u64;
    let mut text = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        format!("{state:x}")
    };
    (0..count)
        .map(|_| format!("{{\"text\":\"{}\"}}\n", text().repeat(2) + &text()))
        .collect()
}

#[test]
fn of_a_truncated_file_what_was_read_is_kept() {
    let lines = lines(10_000);
    for (name, whole) in [
        ("a.jsonl.gz", gzip(lines.as_bytes())),
        ("a.jsonl.zst", zstd(lines.as_bytes())),
    ] {
        let all = read_one(name, &whole[..whole.len() / 2]);
        assert!(
            (2000..9999).contains(&all.documents.len()),
            "{name} {}",
            all.documents.len()
        );
        assert_eq!(all.reasons(), ["read.truncated"], "{name}");
        let expected: Vec<String> = lines
            .lines()
            .map(|line| line[9..line.len() - 2].to_owned())
            .collect();
        assert_eq!(all.texts(), expected[..all.documents.len()]);
        let kept: usize = lines
            .split_inclusive('\n')
            .take(all.documents.len())
            .map(str::len)
            .sum();
        assert_eq!(
            all.dropped[0].origin.offset, kept as u64,
            "the line that is broken off"
        );
    }
}

#[test]
fn a_file_of_several_members_is_read_to_its_end() {
    let members = [
        gzip(b"{\"text\":\"a\"}\n{\"te"),
        gzip(b""),
        gzip(b"xt\":\"b\"}\n"),
    ]
    .concat();
    assert_eq!(read_one("a.jsonl.gz", &members).texts(), ["a", "b"]);
    let frames = [zstd(b"{\"text\":\"a\"}\n{\"te"), zstd(b"xt\":\"b\"}\n")].concat();
    assert_eq!(read_one("a.jsonl.zst", &frames).texts(), ["a", "b"]);
    let damaged = [gzip(b"{\"text\":\"a\"}\n"), b"rubbish after the end".to_vec()].concat();
    let all = read_one("a.jsonl.gz", &damaged);
    assert_eq!((all.texts(), all.reasons()), (vec!["a"], vec!["read.gzip"]));
}

#[test]
fn what_is_not_compressed_as_its_name_says_is_told() {
    assert_eq!(
        read_one("a.jsonl.gz", b"{\"text\":\"a\"}\n").reasons(),
        ["read.gzip"]
    );
    assert_eq!(read_one("a.txt.zst", b"plain").reasons(), ["read.zstd"]);
    let all = read_one("a.jsonl.bz2", b"BZh9");
    assert_eq!(all.reasons(), ["read.compression"]);
    assert!(
        all.dropped[0].detail.contains("bzip2 -dc"),
        "{}",
        all.dropped[0].detail
    );
    assert_eq!(read_one("a.csv.xz", b"\xfd7zXZ").reasons(), ["read.compression"]);
}

#[test]
fn a_bad_line_does_not_stop_the_next() {
    let lines: [(&[u8], Option<&str>); 8] = [
        (b"{\"text\":\"good\"}", None),
        (b"{\"text\":\"caf\xe9\"}", Some("read.utf8")),
        (b"{\"id\":1}", Some("read.no_text")),
        (b"[\"text\"]", Some("read.not_an_object")),
        (b"{\"text\":7}", Some("read.text_type")),
        (b"{\"text\":\"cut off", Some("read.json")),
        (b"{\"text\":\"\"}", Some("read.empty")),
        (b"{\"other\":{\"schema\":[1,{}]},\"text\":\"good too\"}", None),
    ];
    let bytes = lines.map(|(line, _)| line).join(&b'\n');
    let all = read_one("a.jsonl", &bytes);
    assert_eq!(all.texts(), ["good", "good too"]);
    let reasons: Vec<&str> = lines.iter().filter_map(|(_, reason)| *reason).collect();
    assert_eq!(all.reasons(), reasons);
    assert_eq!(all.dropped[0].origin.offset, 16);
    assert!(
        all.dropped.iter().all(|dropped| !dropped.detail.contains("caf")),
        "no text is told"
    );
}

#[test]
fn a_line_of_two_gigabytes_is_not_held() {
    let file = Endless {
        byte: b'x',
        bytes: 2 << 30,
    };
    let store = MadeUp::of("a.jsonl", file);
    let mut settings = settings("/".as_ref());
    settings.max_record_bytes = 1 << 20;
    settings.unit_bytes = Some(64 << 20);
    let mut all = All::default();
    let used = allocation_counter::measure(|| all = read_from(&store, &settings));
    assert_eq!(all.reasons(), ["read.too_long"]);
    assert!(used.bytes_max < 8 << 20, "{} bytes", used.bytes_max);
    // Each unit reads its own bytes, and not to the end of the line.
    let units = read::list_in(&store, &settings).unwrap().units;
    assert_eq!(units.len(), 32);
    let mut all = All::default();
    read_unit(&store, &units[3], &settings, &mut all);
    assert_eq!(all, All::default());
}

#[test]
fn what_expands_without_end_is_not_held() {
    let bomb = gzip(&vec![b'x'; 64 << 20]);
    for name in ["a.jsonl.gz", "a.txt.gz", "a.csv.gz", "a.html.gz", "a.warc.gz"] {
        let source = folder(&[(name, &bomb)]);
        let mut settings = settings(source.path());
        settings.max_record_bytes = 1 << 20;
        let mut all = All::default();
        let used = allocation_counter::measure(|| all = read_all(&settings));
        assert_eq!(all.documents, [], "{name}");
        assert_eq!(all.dropped.len(), 1, "{name}");
        assert!(used.bytes_max < 8 << 20, "{name}: {} bytes", used.bytes_max);
    }
}

#[test]
fn a_table_without_the_column_says_which_it_has() {
    let table = table::of("content", &[Some("a")], 9, Compression::SNAPPY);
    let all = read_one("a.parquet", &table);
    assert_eq!(all.reasons(), ["read.column"]);
    assert!(
        all.dropped[0].detail.contains("the file has: id, content"),
        "{}",
        all.dropped[0].detail
    );
    // The first line of a CSV file that is no header is a record, and may be private.
    let all = read_one("a.csv", b"Jane Roe,jane@roe.org\nJoe Roe,joe@roe.org\n");
    assert_eq!(all.reasons(), ["read.column"]);
    let detail = &all.dropped[0].detail;
    assert!(
        detail.contains("among the 2") && !detail.contains("roe"),
        "{detail}"
    );
    let source = folder(&[("a.parquet", &table)]);
    let mut settings = settings(source.path());
    settings.fields.text = vec!["id".to_owned()];
    let all = read_all(&settings);
    assert_eq!(all.reasons(), ["read.column"]);
    assert!(
        all.dropped[0].detail.contains("INT64"),
        "{}",
        all.dropped[0].detail
    );
}

#[test]
fn files_of_mixed_schemas_are_each_read_by_their_own() {
    let good = table::of("text", &[Some("a")], 9, Compression::SNAPPY);
    let other = table::of("content", &[Some("b")], 9, Compression::SNAPPY);
    let source = folder(&[
        ("1.parquet", &good),
        ("2.parquet", &other),
        ("3.csv", b"text,id\nc,1\n"),
        ("4.csv", b"id,text\n1,d\n2,e,f\n3\n"),
        ("5.jsonl", b"{\"text\":\"g\"}\n{\"content\":\"h\"}\n"),
    ]);
    let all = read_all(&settings(source.path()));
    assert_eq!(all.texts(), ["a", "c", "d", "g"]);
    assert_eq!(
        all.reasons(),
        ["read.column", "read.csv", "read.csv", "read.no_text"]
    );
}

#[test]
fn a_damaged_table_is_told() {
    let table = table::of(
        "text",
        &[Some("some text"), Some("more text")],
        1,
        Compression::SNAPPY,
    );
    assert_eq!(
        read_one("a.parquet", &table[..table.len() - 9]).reasons(),
        ["read.parquet"]
    );
    assert_eq!(read_one("a.parquet", b"PAR1").reasons(), ["read.parquet"]);
    let mut pages = table.clone();
    pages[40..90].fill(0xff);
    let all = read_one("a.parquet", &pages);
    assert!(!all.dropped.is_empty() && all.documents.len() < 2, "{all:?}");
}

#[test]
fn a_damaged_crawl_goes_on_at_the_next_record() {
    let good = warc_record("conversion", "text/plain", b"good");
    let no_length = b"WARC/1.0\r\nWARC-Type: conversion\r\n\r\nlost\r\n\r\n".to_vec();
    let bytes = [
        b"rubbish\nmore\n".to_vec(),
        good.clone(),
        no_length,
        good.clone(),
        good[..good.len() - 6].to_vec(),
    ];
    let all = read_one("a.warc", &bytes.concat());
    assert_eq!(all.texts(), ["good", "good"]);
    assert_eq!(
        all.reasons(),
        ["read.warc", "read.warc", "read.warc", "read.truncated"]
    );
}

#[test]
fn what_is_empty_is_told() {
    let source = folder(&[
        ("a.txt", b""),
        ("b.txt", b" \n"),
        ("c.jsonl", b"\n\n"),
        ("d.csv", b"text\n"),
        ("e.jsonl.gz", &gzip(b"")),
        ("f.html", b"<p></p>"),
        ("g.warc", b"\r\n"),
        ("h.parquet", &table::of("text", &[], 9, Compression::SNAPPY)),
    ]);
    let all = read_all(&settings(source.path()));
    assert_eq!(all.reasons(), ["read.empty"; 8], "{all:?}");
    assert_eq!(all.documents, []);
}

#[test]
fn binary_files_are_no_text() {
    let noise: Vec<u8> = (0..10_000_u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 23) as u8)
        .collect();
    assert_eq!(read_one("a.txt", &noise).reasons(), ["read.binary"]);
    assert_eq!(read_one("a.rs", b"\x7fELF\0\0\0").reasons(), ["read.binary"]);
}

#[test]
fn a_file_that_changes_between_list_and_read_is_told() {
    let source = folder(&[
        ("a.txt", b"a"),
        ("b.jsonl", b"{\"text\":\"b\"}\n"),
        ("c.txt", b"c"),
        ("d.txt", b"d"),
    ]);
    let settings = settings(source.path());
    let unit = read::list(&settings).unwrap().units.remove(0);
    fs::write(source.path().join("a.txt"), "longer").unwrap();
    let same_size = fs::File::create(source.path().join("d.txt")).unwrap();
    (&same_size).write_all(b"D").unwrap();
    same_size.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    fs::remove_file(source.path().join("c.txt")).unwrap();
    let mut all = All::default();
    assert_eq!(
        read_unit(&read::LocalStore, &unit, &settings, &mut all),
        unit.bytes
    );
    assert_eq!(
        (all.texts(), all.reasons()),
        (vec!["b"], vec!["read.changed", "read.unreadable", "read.changed"])
    );
}

#[test]
fn a_file_that_changes_while_it_is_read_is_told() {
    let source = folder(&[("a.jsonl", "{\"text\":\"a\"}\n".repeat(3).as_bytes())]);
    let settings = settings(source.path());
    let unit = read::list(&settings).unwrap().units.remove(0);
    let mut reasons = Vec::new();
    let flow = read::read(&unit, &settings, &mut |read| {
        if let read::Read::Document(document) = &read
            && document.origin.offset == 0
        {
            let path = source.path().join("a.jsonl");
            fs::OpenOptions::new()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(b"more")
                .unwrap();
        }
        if let read::Read::Dropped(dropped) = read {
            reasons.push(dropped.reason.clone());
        }
        std::ops::ControlFlow::Continue(())
    });
    assert!(flow.is_continue());
    assert_eq!(reasons, ["read.changed"]);
}

#[test]
fn what_must_not_be_read_is_told() {
    let source = folder(&[("a.txt", b"a"), ("b.txt", b"b"), ("c/d.txt", b"d")]);
    let mode = |path: &str, mode| {
        fs::set_permissions(source.path().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("b.txt", 0);
    mode("c", 0);
    let all = read_all(&settings(source.path()));
    let is_root = fs::read(source.path().join("b.txt")).is_ok();
    mode("c", 0o755);
    if is_root {
        // Whoever runs this may read everything.
        assert_eq!(all.texts(), ["a", "b", "d"]);
    } else {
        assert_eq!(all.texts(), ["a"]);
        assert_eq!(all.reasons(), ["read.unreadable", "read.unreadable"]);
    }
}

#[test]
fn a_pipe_is_not_opened() {
    let source = folder(&[("a.txt", b"a")]);
    let made = Command::new("mkfifo")
        .arg(source.path().join("b.txt"))
        .status()
        .unwrap();
    assert!(made.success());
    let all = read_all(&settings(source.path()));
    assert_eq!((all.texts(), all.reasons()), (vec!["a"], vec!["read.special"]));
}
