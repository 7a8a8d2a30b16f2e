//! However a source is cut, the same documents come of it.

use std::ops::ControlFlow;

use lockstep_curate::read::{self, Cut};
use parquet::basic::Compression;
use proptest::prelude::*;

use crate::support::{All, folder, read_all, settings, table};

fn lines() -> impl Strategy<Value = Vec<String>> {
    let line = prop_oneof![
        4 => "[a-zé\\n\"]{1,40}".prop_map(|text| serde_json::json!({ "text": text }).to_string()),
        1 => "[ \t]{0,3}",
        1 => "[a-z{}]{1,30}",
        1 => (60..200_usize).prop_map(|length| "x".repeat(length)),
    ];
    prop::collection::vec(line, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn lines_are_read_once_each(
        lines in lines(),
        unit_bytes in 1..400_u64,
        carriage_return: bool,
        ends: bool,
    ) {
        let mut text = lines.join(if carriage_return { "\r\n" } else { "\n" });
        if ends {
            text.push('\n');
        }
        prop_assume!(!text.is_empty());
        let source = folder(&[("a.jsonl", text.as_bytes())]);
        let mut settings = settings(source.path());
        settings.max_record_bytes = 100;
        let whole = read_all(&settings);
        settings.unit_bytes = Some(unit_bytes);
        let cut = read_all(&settings);
        let told = lines.iter().filter(|line| !line.trim().is_empty()).count();
        // Of a file without any line that much is told.
        let told = if told == 0 && unit_bytes >= text.len() as u64 { 1 } else { told };
        prop_assert_eq!(cut.documents.len() + cut.dropped.len(), told);
        if told > 1 {
            prop_assert_eq!(whole, cut);
        }
    }

    #[test]
    fn rows_and_files_are_read_once_each(
        texts in prop::collection::vec(prop::option::of("[a-z]{0,50}"), 1..60),
        rows in 1..20_usize,
        unit_bytes in 1..4000_u64,
    ) {
        let texts: Vec<Option<&str>> = texts.iter().map(Option::as_deref).collect();
        let table = table::of("text", &texts, rows, Compression::SNAPPY);
        let files: Vec<(&str, &[u8])> = vec![("a.txt", b"a"), ("b.parquet", &table), ("c.csv", b"text\nc\n"), ("d.txt", b"d")];
        let source = folder(&files);
        let mut settings = settings(source.path());
        let whole = read_all(&settings);
        prop_assert_eq!(read::list(&settings).unwrap().units.len(), 1);
        settings.unit_bytes = Some(unit_bytes);
        prop_assert_eq!(whole, read_all(&settings));
    }
}

#[test]
fn a_large_file_is_cut_and_small_ones_are_put_together() {
    let lines = "{\"text\":\"a\"}\n".repeat(100);
    let source = folder(&[
        ("a.txt", b"a"),
        ("b.txt", b"b"),
        ("c.jsonl", lines.as_bytes()),
        ("d.txt", b"d"),
    ]);
    let mut settings = settings(source.path());
    settings.unit_bytes = Some(500);
    let listing = read::list(&settings).unwrap();
    let cuts: Vec<Vec<(&str, Cut)>> = listing
        .units
        .iter()
        .map(|unit| unit.parts.iter().map(|part| (&*part.file, part.cut)).collect())
        .collect();
    let bytes = |start, end| Cut::Bytes { start, end };
    assert_eq!(
        cuts,
        [
            vec![("a.txt", Cut::Whole), ("b.txt", Cut::Whole)],
            vec![("c.jsonl", bytes(0, 500))],
            vec![("c.jsonl", bytes(500, 1000))],
            vec![("c.jsonl", bytes(1000, 1300)), ("d.txt", Cut::Whole)],
        ]
    );
    assert_eq!(listing.bytes(), 1303);
    assert_eq!(listing.units[2].name(), "test-000002");
}

#[test]
fn a_small_source_is_enough_for_several_cores() {
    let source = folder(&[("a.jsonl", b"{}")]);
    let settings = settings(source.path());
    let units_of = |bytes: u64| {
        // Listed, and not read: a file without blocks will do.
        let file = std::fs::File::create(source.path().join("a.jsonl")).unwrap();
        file.set_len(bytes).unwrap();
        read::list(&settings).unwrap().units.len()
    };
    let mebibytes = |count: u64| count << 20;
    assert_eq!(units_of(mebibytes(1)), 1);
    assert_eq!(units_of(mebibytes(20)), 10);
    assert_eq!(units_of(mebibytes(512)), 64);
    assert_eq!(units_of(mebibytes(64 * 200)), 200);
}

#[test]
fn a_sink_that_breaks_off_is_not_called_again() {
    let source = folder(&[("a.jsonl", "{\"text\":\"a\"}\n".repeat(9).as_bytes())]);
    let settings = settings(source.path());
    let unit = read::list(&settings).unwrap().units.remove(0);
    let mut called = 0;
    let flow = read::read(&unit, &settings, &mut |_| {
        called += 1;
        if called == 3 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert_eq!((flow, called), (ControlFlow::Break(()), 3));
}

#[test]
fn the_order_of_a_folder_does_not_matter() {
    let source = folder(&[
        ("b.txt", b"b"),
        ("a/c.txt", b"a/c"),
        ("a-b.txt", b"a-b"),
        ("Z.txt", b"Z"),
    ]);
    let all: All = read_all(&settings(source.path()));
    assert_eq!(all.texts(), ["Z", "a-b", "a/c", "b"]);
}
