//! What a build writes: every document back, with its provenance, in a format that others read.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Place, megatron, prose, quiet, rows};
use lockstep_data::skip::SkipReason;
use lockstep_data::{BuildOptions, Corpus, Dataset, Digest};

/// Every document of the dataset, decoded, by path; checks on the way what the table says of it.
fn texts(dataset: &Path) -> BTreeMap<String, String> {
    let tokenizer = tokenizers::Tokenizer::from_file(dataset.join("tokenizer.json")).unwrap();
    let mut texts = BTreeMap::new();
    for row in rows(dataset) {
        let stem = if row.text("split") == Some("train") {
            "shard"
        } else {
            "validation"
        };
        let shard = megatron::documents(&dataset.join(format!("{stem}-{:05}", row.number("shard"))));
        let mut tokens = shard[row.number("sequence") as usize].clone();
        assert_eq!(tokens.len() as i64, row.number("tokens"));
        assert_eq!(tokens.pop(), Some(0), "a document ends with the end of text");
        assert!(!tokens.contains(&0), "and has none inside");
        let text = tokenizer.decode(&tokens, false).unwrap();
        assert_eq!(text.len() as i64, row.number("bytes"));
        assert_eq!(
            Digest::of(text.as_bytes()).to_string(),
            row.text("digest").unwrap()
        );
        texts.insert(row.text("path").unwrap().to_owned(), text);
    }
    texts
}

fn originals(place: &Place) -> BTreeMap<String, String> {
    let read = |i: usize| {
        let name = format!("part-{}/{i:04}.txt", i % 7);
        (
            name.clone(),
            fs::read_to_string(place.corpus().join(name)).unwrap(),
        )
    };
    (0..fs_count(&place.corpus())).map(read).collect()
}

fn fs_count(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| fs::read_dir(entry.unwrap().path()).unwrap().count())
        .sum()
}

#[test]
fn every_document_comes_back_through_megatrons_format() {
    let place = Place::with_prose(60);
    let mut options = place.options("data");
    options.shard_bytes = 4_000;
    let manifest = quiet(&options).unwrap().manifest;
    assert!(manifest.train.shards.len() > 3, "{:?}", manifest.train.shards);
    assert_eq!(texts(&options.out), originals(&place));

    // Counts agree with the table.
    let rows = rows(&options.out);
    for (split, record) in [("train", &manifest.train), ("validation", &manifest.validation)] {
        let of_split: Vec<_> = rows
            .iter()
            .filter(|row| row.text("split") == Some(split))
            .collect();
        let sum = |column| of_split.iter().map(|row| row.number(column) as u64).sum::<u64>();
        assert_eq!(
            (of_split.len() as u64, sum("bytes"), sum("tokens")),
            (record.documents, record.bytes, record.tokens)
        );
    }
    assert_eq!(manifest.corpus.documents, 60);
    assert_eq!(
        manifest.corpus.bytes,
        manifest.train.bytes + manifest.validation.bytes
    );
    assert_eq!((manifest.vocab_size, manifest.eos_id), (300, 0));
    // Every shard but the last passes the size, and does so with its last document only.
    let (last, full) = manifest.train.shards.split_last().unwrap();
    assert!(full.iter().all(|shard| shard.tokens * 2 >= 4_000));
    assert!(last.tokens > 0);
}

#[test]
fn a_large_vocabulary_takes_four_bytes_a_token() {
    let word = |i: u64| {
        let letters =
            (0..9).map(|k| char::from(b'a' + (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (k * 5) & 15) as u8));
        letters.collect::<String>()
    };
    let text = |from: u64| {
        (from..from + 24_000)
            .map(|i| format!("{} {} ", word(i), word(i)))
            .collect::<String>()
    };
    let place = Place::new([
        ("a.txt", text(0)),
        ("b.txt", text(0) + "b"),
        ("c.txt", prose(1, 500)),
    ]);
    let mut options = place.options("data");
    options.vocab_size = 66_000;
    let built = quiet(&options);
    let manifest = built.unwrap().manifest;
    let idx = fs::read(options.out.join("shard-00000.idx")).unwrap();
    assert_eq!(idx[17], 4);
    assert_eq!(texts(&options.out).len(), 3);
    let dataset = Dataset::open(&options.out).unwrap();
    let stream = megatron::documents(&options.out.join("shard-00000")).concat();
    assert_eq!(dataset.train().read_all().unwrap(), stream);
    assert!(stream.iter().any(|token| *token > u32::from(u16::MAX)));
    assert_eq!(manifest.files["shard-00000.bin"].bytes, 4 * manifest.train.tokens);
}

#[test]
fn what_is_not_text_is_left_out_and_counted() {
    let place = Place::with_prose(30);
    let same = fs::read(place.corpus().join("part-0/0000.txt")).unwrap();
    place.add("part-0/copy.txt", &same);
    place.add("z/copy.txt", &same);
    place.add("z/latin1.txt", b"caf\xE9");
    place.add("z/program", b"\x7FELF\0\0text");
    place.add("z/empty.txt", b"");
    place.add("z/.hidden", b"secret");
    place.add(".git/objects/text", b"secret");
    std::os::unix::fs::symlink("../part-0", place.corpus().join("z/link")).unwrap();
    std::os::unix::fs::symlink("..", place.corpus().join("z/loop")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(place.corpus().join("z/socket")).unwrap();

    let manifest = quiet(&place.options("data")).unwrap().manifest;
    let expected = [
        (SkipReason::Hidden, 2),
        (SkipReason::Symlink, 2),
        (SkipReason::Special, 1),
        (SkipReason::Empty, 1),
        (SkipReason::Binary, 1),
        (SkipReason::NotUtf8, 1),
        (SkipReason::Duplicate, 2),
    ];
    assert_eq!(manifest.skipped.iter().collect::<Vec<_>>(), expected);
    assert_eq!(manifest.corpus.documents, 30);
    // Of equal ones, the first by path stays.
    let paths = rows(&place.root().join("data"));
    assert!(
        paths
            .iter()
            .any(|row| row.text("path") == Some("part-0/0000.txt"))
    );
    assert!(!paths.iter().any(|row| row.text("path").unwrap().contains("copy")));
}

#[test]
fn a_budget_takes_whole_documents() {
    let place = Place::with_prose(80);
    let mut options = place.options("data");
    options.max_bytes = Some(20_000);
    let manifest = quiet(&options).unwrap().manifest;
    let used = manifest.train.bytes + manifest.validation.bytes;
    assert!((18_000..=20_000).contains(&used), "{used}");
    let (left_out, used) = (
        manifest.skipped.count(SkipReason::OverBudget),
        rows(&options.out).len() as u64,
    );
    assert_eq!(left_out + used, 80);
    let originals = originals(&place);
    assert!(
        texts(&options.out)
            .iter()
            .all(|(path, text)| originals[path] == *text)
    );
}

#[test]
fn what_is_held_out_does_not_hang_on_names_or_neighbours() {
    let held_out = |place: &Place| -> BTreeSet<String> {
        quiet(&place.options("data")).unwrap();
        let rows = rows(&place.root().join("data"));
        let held = rows.iter().filter(|row| row.text("split") == Some("validation"));
        held.map(|row| row.text("digest").unwrap().to_owned()).collect()
    };
    let named = |name: &dyn Fn(usize) -> String, count: usize| {
        let names: Vec<String> = (0..count).map(name).collect();
        Place::new(
            names
                .iter()
                .enumerate()
                .map(|(i, name)| (name.as_str(), prose(i as u64, 400))),
        )
    };
    let base = held_out(&named(&|i| format!("{i:03}.txt"), 80));
    assert!((2..=20).contains(&base.len()), "{}", base.len());
    assert_eq!(
        held_out(&named(&|i| format!("other/{:03}.md", 999 - i), 80)),
        base
    );
    assert!(held_out(&named(&|i| format!("{i:03}.txt"), 120)).is_superset(&base));
}

#[test]
fn a_crate_lends_its_files_name_version_and_licence() {
    let place = Place::new([]);
    let manifest = |name: &str, licence: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"1.2.3\"\nlicense = \"{licence}\"\n")
    };
    for index in ["index.crates.io-aaaa", "index.crates.io-bbbb"] {
        place.add(
            &format!("{index}/ka-1.2.3/Cargo.toml"),
            manifest("ka", "MIT OR Apache-2.0").as_bytes(),
        );
        place.add(&format!("{index}/ka-1.2.3/src/lib.rs"), prose(1, 3000).as_bytes());
        place.add(&format!("{index}/ka-1.2.3/README.md"), prose(2, 3000).as_bytes());
        place.add(&format!("{index}/ka-1.2.3/LICENSE"), prose(3, 3000).as_bytes());
        // A crate inside a crate is text of the outer one.
        place.add(
            &format!("{index}/ka-1.2.3/tests/inner/Cargo.toml"),
            manifest("inner", "Zlib").as_bytes(),
        );
        place.add(
            &format!("{index}/ka-1.2.3/tests/inner/lib.rs"),
            prose(4, 3000).as_bytes(),
        );
    }
    place.add(
        "index.crates.io-aaaa/lo-0.1.0/src/lib.rs",
        prose(5, 3000).as_bytes(),
    );
    place.add("index.crates.io-aaaa/stray.rs", prose(6, 3000).as_bytes());

    let mut options = place.options("data");
    options.corpus = Corpus::CargoRegistry(Some(place.corpus()));
    let manifest = quiet(&options).unwrap().manifest;
    let mut found: Vec<[Option<String>; 4]> = rows(&options.out)
        .iter()
        .map(|row| ["path", "source", "version", "licence"].map(|column| row.text(column).map(str::to_owned)))
        .collect();
    found.sort();
    let ka = |path: &str| {
        [Some(path), Some("ka"), Some("1.2.3"), Some("MIT OR Apache-2.0")].map(|t| t.map(str::to_owned))
    };
    assert_eq!(
        found,
        [
            ka("ka-1.2.3/README.md"),
            ka("ka-1.2.3/src/lib.rs"),
            ka("ka-1.2.3/tests/inner/lib.rs"),
            [
                Some("lo-0.1.0/src/lib.rs".to_owned()),
                Some("lo-0.1.0".to_owned()),
                None,
                None
            ],
        ]
    );
    assert_eq!(manifest.skipped.count(SkipReason::Duplicate), 3);
    assert_eq!(manifest.skipped.count(SkipReason::OtherKind), 7);
}

#[test]
fn a_plain_folder_has_sources_and_licences_too() {
    let place = Place::new([
        ("top.txt", prose(1, 3000)),
        ("book/a/one.txt", prose(2, 3000)),
        ("code/src/lib.rs", prose(3, 3000)),
        (
            "code/Cargo.toml",
            "[package]\nname = \"x\"\nlicense = \"Apache-2.0\"\n".to_owned(),
        ),
        (
            "tagged/LICENSE",
            "SPDX-License-Identifier: CC-BY-4.0\n".to_owned(),
        ),
        ("tagged/deep/down/two.txt", prose(4, 3000)),
    ]);
    quiet(&place.options("data")).unwrap();
    let of = |path: &str| {
        let rows = rows(&place.root().join("data"));
        let row = rows.iter().find(|row| row.text("path") == Some(path)).unwrap();
        assert_eq!(row.text("version"), None);
        (
            row.text("source").unwrap().to_owned(),
            row.text("licence").map(str::to_owned),
        )
    };
    assert_eq!(of("top.txt"), ("corpus".to_owned(), None));
    assert_eq!(of("book/a/one.txt"), ("book".to_owned(), None));
    assert_eq!(
        of("code/src/lib.rs"),
        ("code".to_owned(), Some("Apache-2.0".to_owned()))
    );
    assert_eq!(
        of("tagged/deep/down/two.txt"),
        ("tagged".to_owned(), Some("CC-BY-4.0".to_owned()))
    );
}

#[test]
fn gzip_does_as_well_as_the_real_one() {
    let place = Place::with_prose(200);
    let mut options: BuildOptions = place.options("data");
    options.validation_fraction = 0.5;
    let manifest = quiet(&options).unwrap().manifest;
    let rows = rows(&options.out);
    let held = rows.iter().filter(|row| row.text("split") == Some("validation"));
    let text: Vec<u8> = held
        .flat_map(|row| fs::read(place.corpus().join(row.text("path").unwrap())).unwrap())
        .collect();
    assert_eq!(text.len() as u64, manifest.validation.bytes);
    let file = place.root().join("validation.txt");
    fs::write(&file, &text).unwrap();
    let ours = manifest.gzip_bits_per_byte.unwrap();
    let gzip = Command::new("gzip")
        .args(["-9", "-c"])
        .arg(&file)
        .stderr(Stdio::null())
        .output();
    let Ok(output) = gzip.inspect_err(|error| println!("not compared: no gzip here ({error})")) else {
        assert!(ours > 1.0 && ours < 8.0, "{ours}");
        return;
    };
    let theirs = output.stdout.len() as f64 * 8.0 / text.len() as f64;
    assert!((ours / theirs - 1.0).abs() < 0.03, "{ours} against {theirs}");
}

#[test]
fn a_lone_document_leaves_nothing_to_hold_out() {
    let place = Place::new([("only.txt", prose(1, 5000))]);
    let manifest = quiet(&place.options("data")).unwrap().manifest;
    assert_eq!((manifest.train.documents, manifest.validation.documents), (1, 0));
    assert_eq!(manifest.gzip_bits_per_byte, None);
    assert_eq!(
        megatron::documents(&place.root().join("data/validation-00000")),
        Vec::<Vec<u32>>::new()
    );
    let dataset = Dataset::open(&place.root().join("data")).unwrap();
    dataset.verify().unwrap();
    assert_eq!(dataset.validation().samples(8), 0);
}
