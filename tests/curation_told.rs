//! What is told of documents goes with them, from stage to stage and from one verb to the next, and into the report.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::collections::BTreeSet;
use std::fs;

use lockstep_data::Digest;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::disk::Disk;
use support::place::Place;
use support::raw::{Row, SPEC, lines, rows, text};

const ENGLISH: &str =
    "The house by the river has a garden, and in the morning the people of the village bring water to it. ";
const FRENCH: &str = "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison et de \
                      conscience et doivent agir les uns envers les autres dans un esprit de fraternité. ";

/// A place with these raw files, and with documents enough for a tokenizer.
fn place(files: &[(&str, &[u8])]) -> Place {
    let place = Place::new();
    fs::create_dir(place.path("raw")).unwrap();
    fs::write(place.path("raw/good.jsonl"), lines(0..60)).unwrap();
    for (name, bytes) in files {
        fs::write(place.path("raw").join(name), bytes).unwrap();
    }
    fs::write(place.path("spec.toml"), SPEC).unwrap();
    place
}

/// Stages without `quality`, which drops text that says the same again and again.
const LENIENT: &str = "stages = [\"normalise\", \"language\", \"licence\", \"tokenize\"]";

/// Builds with more in the spec, and gives the report.
fn built(place: &Place, more: &str, out: &str) -> Value {
    built_by(place, &format!("{SPEC}{more}"), out)
}

fn built_by(place: &Place, spec: &str, out: &str) -> Value {
    fs::write(place.path("spec.toml"), spec).unwrap();
    let line = format!("data build spec.toml --out {out} -o json");
    place.run(&line).code(0).json()
}

/// The row of a file in a table of a dataset.
fn row(place: &Place, table: &str, file: &str) -> Row {
    let mut rows = rows(&place.path(table)).into_iter();
    let found = rows.find(|row| row["file"] == file);
    found.ok_or(format!("{file} is not in {table}")).unwrap()
}

#[test]
fn bytes_that_had_to_be_decoded_are_counted_and_known_by_their_digest() {
    // These letters have the same numbers in Unicode and in Windows-1252.
    let windows: Vec<u8> = FRENCH.repeat(9).chars().map(|c| c as u8).collect();
    let damaged = [FRENCH.repeat(8).as_bytes(), b"\xff"].concat();
    let place = place(&[("windows.txt", &windows), ("damaged.txt", &damaged)]);
    let spec = format!("{LENIENT}{SPEC}");
    let report = built_by(&place, &spec, "out");
    let altered = &report["counts"]["stages"]["read"]["altered"];
    assert_eq!(*altered, json!({"windows-1252": 1, "replaced": 1}));
    for (file, bytes) in [("windows.txt", &windows), ("damaged.txt", &damaged)] {
        let row = row(&place, "out/documents.parquet", file);
        assert_eq!(row["original_digest"], Digest::of(bytes).to_string(), "{file}");
    }
    // What is known by this digest can be left out by it.
    fs::write(place.path("out.txt"), Digest::of(&windows).to_string()).unwrap();
    let spec = format!("{spec}[licence.exclude]\ndigests = [\"out.txt\"]\n");
    built_by(&place, &spec, "without");
    let gone = row(&place, "without/dropped.parquet", "windows.txt");
    assert_eq!(gone["reason"], "exclude.digest");
    row(&place, "without/documents.parquet", "damaged.txt");
}

#[test]
fn verbs_tell_each_other_what_the_next_has_to_know() {
    let page = format!(
        "<html><head><meta name=\"robots\" content=\"noai\"></head><body><article><h1>A page</h1><p>{}</p></article></body></html>",
        text(100)
    );
    // Nearly all lines of it end in a bracket, which C4 does not have in prose.
    let code = "fn add(a: u32, b: u32) -> u32 {\n    a + b\n}\n\n".repeat(40);
    let place = place(&[("page.html", page.as_bytes()), ("add.rs", code.as_bytes())]);
    place.run("data read raw --out read").code(0);
    let report = place
        .run("data licence read/documents-00000.jsonl.zst --out licence -o json")
        .code(0)
        .json();
    let dropped = &report["counts"]["stages"]["licence"]["dropped"];
    assert_eq!(dropped["consent.opt_out"]["documents"], 1, "{dropped:#}");
    let report = place
        .run("data quality licence/documents-00000.jsonl.zst --out quality -o json")
        .code(0)
        .json();
    let scores = &report["counts"]["scores"];
    let count = |rule: &str| -> u64 {
        let bins = scores[rule]["bins"].as_object().unwrap();
        bins.values().map(|bin| bin.as_u64().unwrap()).sum()
    };
    assert_eq!(
        (count("code.lines"), count("gopher.words")),
        (1, 60),
        "{scores:#}"
    );
    // The lines of code are counted by powers of two: 160 are in 2⁷ to 2⁸.
    assert_eq!(scores["code.lines"]["bins"], json!({"7": 1}));
    let spec = SPEC.replace("path = \"raw\"", "path = \"quality/*.jsonl.zst\"");
    fs::write(place.path("spec.toml"), spec).unwrap();
    place.run("data build spec.toml --out out").code(0);
    let origins: BTreeSet<String> = rows(&place.path("out/documents.parquet"))
        .into_iter()
        .map(|row| row["derived_from"].clone())
        .collect();
    assert!(
        origins.iter().any(|origin| origin.ends_with("/good.jsonl")),
        "{origins:?}"
    );
    assert_eq!(origins.len(), 61, "{origins:?}");
}

#[test]
fn a_document_in_two_languages_is_marked() {
    let both = format!("{}\n\n{}", ENGLISH.repeat(15), FRENCH.repeat(8));
    let plain = ENGLISH.repeat(20);
    let place = place(&[("both.txt", both.as_bytes()), ("plain.txt", plain.as_bytes())]);
    let report = built_by(&place, &format!("{LENIENT}{SPEC}"), "out");
    assert_eq!(report["counts"]["mixed_language"]["documents"], 1);
    let marked = row(&place, "out/documents.parquet", "both.txt");
    let share: f64 = marked["other_languages"].parse().unwrap();
    assert!(
        marked["is_mixed"] == "1" && (0.2..0.8).contains(&share),
        "{marked:?}"
    );
    let plain = row(&place, "out/documents.parquet", "plain.txt");
    let share: f64 = plain["other_languages"].parse().unwrap();
    assert!(plain["is_mixed"] == "0" && share < 0.1, "{plain:?}");
}

#[test]
fn the_report_has_what_was_found_of_evaluations() {
    let question =
        "Which river flows through the garden of the old station in the village of the winter music teacher?";
    let place = place(&[("leak.txt", format!("{}\n\n{question}", text(100)).as_bytes())]);
    let items = format!(
        "{}\n{}\n",
        json!({"question": question}),
        json!({"question": "Too short?"})
    );
    fs::write(place.path("quiz.jsonl"), items).unwrap();
    fs::write(
        place.path("clean.jsonl"),
        json!({"question": "Too short?"}).to_string(),
    )
    .unwrap();
    let sets = "[decontaminate.sets]\nquiz = \"quiz.jsonl\"\nclean = \"clean.jsonl\"\n";
    let report = built(&place, sets, "out");
    let found = &report["contamination"];
    assert_eq!(
        (&found["documents"], &found["contaminated"]),
        (&json!(61), &json!(1))
    );
    let quiz = &found["sets"]["quiz"];
    assert_eq!((&quiz["items"], &quiz["too_short"]), (&json!(2), &json!(1)));
    assert_eq!(quiz["found"]["0"]["documents"], 1, "{quiz:#}");
    let clean = &found["sets"]["clean"];
    assert_eq!(
        (&clean["items"], &clean["too_short"]),
        (&json!(1), &json!(1)),
        "all that it has is too short"
    );
    let page = place.read("out/report.html");
    assert!(page.contains("<td>quiz</td>") && page.contains("<td>clean</td>"));
}

#[test]
fn licences_that_are_none_are_one() {
    let of = |number: u64| json!({"text": text(number), "license": format!("(c) Jane Roe {number}, jane{number}@roe.org")});
    let lines = (100..120).map(|number| of(number).to_string() + "\n");
    let place = place(&[("own.jsonl", lines.collect::<String>().as_bytes())]);
    let report = built(&place, "", "out");
    let licences = &report["counts"]["licences"];
    assert_eq!(licences["not understood"]["documents"], 20, "{licences:#}");
    assert_eq!(licences["not stated"]["documents"], 60);
    assert!(!place.read("out/report.html").contains("roe.org"));
}

#[test]
fn the_report_has_the_work_of_each_stage() {
    let place = place(&[]);
    let report = built(&place, "", "out");
    let phases = report["phases"].as_array().unwrap().iter();
    let stages: BTreeSet<&str> = phases
        .filter_map(|phase| phase["stages"].as_object())
        .flat_map(|stages| stages.keys().map(String::as_str))
        .collect();
    for stage in [
        "read",
        "normalise",
        "language",
        "licence",
        "quality",
        "pii",
        "dedup",
        "bias",
        "tokenize",
    ] {
        assert!(stages.contains(stage), "{stage} is not among {stages:?}");
    }
}

/// Disks of all sizes up to what the build takes: it is full in one phase after the other.
#[test]
fn a_disk_that_is_full_in_any_phase_leaves_what_is_done() {
    let Some(disk) = Disk::new(64 << 10) else { return };
    let place = place(&[]);
    let digest = built(&place, "", "out")["digest"].clone();
    let out = disk.path().join("out");
    let mut full = BTreeSet::new();
    let built = loop {
        let ran = place.run(&format!("data build spec.toml --out {} -o json", out.display()));
        if ran.code != Some(7) {
            break ran.code(0).json();
        }
        let ran = ran.says(&["no space left", "goes on where it stopped"]);
        full.insert(ran.err.lines().last().unwrap_or_default().to_owned());
        assert!(!out.exists(), "{}", ran.err);
        disk.grow();
    };
    assert_eq!(built["digest"], digest);
    assert!(full.len() >= 3, "full in {full:#?}");
}

#[test]
fn ctrl_c_leaves_what_is_done() {
    let place = place(&[]);
    for file in 0..40 {
        let numbers = 1000 * file..1000 * file + 400;
        fs::write(place.path(&format!("raw/{file}.jsonl")), lines(numbers)).unwrap();
    }
    let digest = built(&place, "", "whole")["digest"].clone();
    let build = place.start("data build spec.toml --out out");
    build.await_err(|line| line.contains('%'));
    build.signal(Signal::INT);
    build
        .finish()
        .code(130)
        .says(&["interrupted", "goes on where it stopped"]);
    assert!(place.path("out.work").exists() && !place.path("out").exists());
    assert_eq!(built(&place, "", "out")["digest"], digest);
    assert!(!place.path("out.work").exists());
}
