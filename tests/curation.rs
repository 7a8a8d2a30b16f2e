//! From raw text to a dataset, by way of a spec: the same bytes whatever happens on the way, and a reason for all that
//! is not in them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use support::disk::Disk;
use support::place::Place;
use support::process::Process;

const SPEC: &str = r#"
name = "small"
[[source]]
name = "web"
path = "raw"
unit_bytes = 20000
[language]
min_confidence = 0.0
[quality.gopher_quality]
min_stop_words = 0
[tokenizer]
vocab_size = 300
[dedup.passages]
"#;

/// A document of English words, another for each number.
fn text(number: u64) -> String {
    const WORDS: [&str; 24] = [
        "the", "house", "of", "water", "and", "people", "that", "river", "have", "morning", "with", "market",
        "to", "garden", "be", "winter", "summer", "music", "paper", "teacher", "village", "station",
        "evening", "picture",
    ];
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(1);
    let mut draw = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % below
    };
    let mut sentence = || {
        let words: Vec<&str> = (0..8 + draw(8)).map(|_| WORDS[draw(WORDS.len())]).collect();
        let text = words.join(" ");
        format!("{}{}.", text[..1].to_uppercase(), &text[1..])
    };
    let mut paragraph = || (0..4).map(|_| sentence()).collect::<Vec<_>>().join(" ");
    (0..4).map(|_| paragraph()).collect::<Vec<_>>().join("\n\n")
}

/// Documents of all fates, in files of several formats.
fn write_raw(folder: &Path) {
    fs::create_dir_all(folder.join("deep")).unwrap();
    let mut lines = Vec::new();
    for number in 0..120 {
        lines.push(
            json!({"id": number.to_string(), "text": text(number), "license": "CC-BY-4.0"}).to_string(),
        );
    }
    // Again, nearly again, private, of no use, and broken.
    lines.push(json!({"text": text(3)}).to_string());
    lines.push(json!({"text": format!("{} And the end.", text(5))}).to_string());
    lines.push(json!({"text": format!("{} Ask anna.smith@example.com for more.", text(1000))}).to_string());
    lines.push(json!({"text": "Too short."}).to_string());
    lines.push(json!({"words": 1}).to_string());
    lines.push("{ not json".to_owned());
    fs::write(folder.join("a.jsonl"), lines.join("\n")).unwrap();
    let file = fs::File::create(folder.join("b.jsonl.gz")).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    for number in 200..240 {
        writeln!(gzip, "{}", json!({"text": text(number)})).unwrap();
    }
    gzip.finish().unwrap();
    for number in 300..320 {
        fs::write(folder.join(format!("deep/{number}.txt")), text(number)).unwrap();
    }
    fs::write(
        folder.join("page.html"),
        format!(
            "<html><body><article><h1>A page</h1><p>{}</p></article></body></html>",
            text(400)
        ),
    )
    .unwrap();
}

fn place() -> Place {
    let place = Place::new();
    write_raw(&place.path("raw"));
    fs::write(place.path("spec.toml"), SPEC).unwrap();
    place
}

/// The dataset's digest, and its report.
fn built(place: &Place, out: &str) -> (String, Value) {
    let report = place
        .run(&format!("data build spec.toml --out {out} -o json"))
        .code(0);
    let report: Value = serde_json::from_str(&report.out).unwrap();
    place.run(&format!("data verify {out}")).code(0);
    assert!(
        !place.path(&format!("{out}.work")).exists(),
        "nothing is left of the work"
    );
    (report["digest"].as_str().unwrap().to_owned(), report)
}

fn dropped(report: &Value, stage: &str, reason: &str) -> u64 {
    report["counts"]["stages"][stage]["dropped"][reason]["documents"]
        .as_u64()
        .unwrap_or(0)
}

#[test]
fn every_document_is_in_the_dataset_or_has_a_reason() {
    let place = place();
    let (_, report) = built(&place, "out");
    let given = report["counts"]["stages"]["read"]["given"]["documents"]
        .as_u64()
        .unwrap();
    let stages = report["counts"]["stages"].as_object().unwrap();
    let gone: u64 = stages
        .values()
        .flat_map(|flow| flow["dropped"].as_object().unwrap().values())
        .map(|tally| tally["documents"].as_u64().unwrap())
        .sum();
    let kept: u64 = report["splits"]
        .as_array()
        .unwrap()
        .iter()
        .map(|split| split["documents"].as_u64().unwrap())
        .sum();
    assert_eq!(given, gone + kept, "{report:#}");
    for (stage, reason, count) in [
        ("read", "read.no_text", 1),
        ("read", "read.json", 1),
        ("quality", "gopher.words", 1),
        ("dedup", "dedup.exact", 1),
        ("dedup", "dedup.near", 1),
    ] {
        assert_eq!(
            dropped(&report, stage, reason),
            count,
            "{stage} {reason}: {report:#}"
        );
    }
    // Private data is counted, replaced, and nowhere to be found.
    assert_eq!(report["counts"]["pii"]["email"]["eng"], 1, "{report:#}");
    for file in place.files("out") {
        let content = fs::read(&file).unwrap();
        let found = memchr_find(&content, b"anna.smith");
        assert!(!found, "{} has a private text", file.display());
    }
    let shown = place.run("data show out --document 0 -o json").code(0);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    assert_eq!(shown["source"], "web");
    assert_eq!(shown["more"]["language"], "eng", "{shown:#}");
    assert!(
        shown["more"]["scores"]["words"].as_u64().unwrap() > 50,
        "{shown:#}"
    );
    assert!(text_is_of(&shown), "{shown:#}");
    // What is there is not built again, and another spec does not overwrite it.
    let again = place.run("data build spec.toml --out out").code(0);
    assert!(again.out.contains("is there already"), "{again:#?}");
    fs::write(place.path("other.toml"), SPEC.replace("300", "310")).unwrap();
    place
        .run("data build other.toml --out out")
        .code(3)
        .says(&["another spec", "nothing was touched"]);
    place.run("data build other.toml --out other").code(0);
    let diff = place.run("data diff out other").code(0);
    assert!(
        diff.out.contains("only in") && diff.out.contains("tokens, train"),
        "{diff:#?}"
    );
}

fn memchr_find(content: &[u8], part: &[u8]) -> bool {
    content.windows(part.len()).any(|window| window == part)
}

/// Whether a shown document has the words that its provenance says.
fn text_is_of(shown: &Value) -> bool {
    let text = shown["text"].as_str().unwrap();
    let digest = blake3::hash(text.as_bytes()).to_hex().to_string();
    digest == shown["digest"].as_str().unwrap()
}

#[test]
fn the_same_bytes_however_the_work_is_cut_and_whatever_dies_on_the_way() {
    let place = place();
    let (digest, _) = built(&place, "out");
    let spec = SPEC.replace("unit_bytes = 20000", "unit_bytes = 3000000");
    fs::write(place.path("spec.toml"), spec).unwrap();
    assert_eq!(built(&place, "coarse").0, digest);
    fs::write(place.path("spec.toml"), SPEC).unwrap();
    // Killed before and after tasks of every phase get their names, over and over, in the same folder.
    for (number, point) in ["task-written", "task-done"].iter().cycle().take(10).enumerate() {
        let marker = place.path(&format!("marker-{number}"));
        let fault = format!(
            "point={point};do=kill;once={};step={}",
            marker.display(),
            1 + 2 * number
        );
        let mut command = place.command("data build spec.toml --out killed");
        command.env(lockstep_faults::VARIABLE, fault);
        let ran = Process::start(&mut command).finish();
        let died = ran.signal == Some(9);
        assert!(died || ran.code == Some(0), "{ran:#?}");
        assert_eq!(died, !place.path("killed").exists());
        if !died {
            assert!(number > 3, "too few tasks to be killed in: {ran:#?}");
            break;
        }
    }
    assert_eq!(built(&place, "killed").0, digest);
}

#[test]
fn one_stage_alone() {
    let place = place();
    place.run("data pii raw/a.jsonl --out clean").code(0);
    let again = place
        .run("data dedup clean/*.jsonl.zst --out unique -o json")
        .code(0);
    let report: Value = serde_json::from_str(&again.out).unwrap();
    assert_eq!(dropped(&report, "dedup", "dedup.exact"), 1, "{report:#}");
    // Settings need no sources; without the exact ones, MinHash finds them all the same.
    fs::write(place.path("near.toml"), "[dedup]\nexact = false\n").unwrap();
    let near = place
        .run("data dedup raw/a.jsonl --spec near.toml --out near -o json")
        .code(0);
    let report: Value = serde_json::from_str(&near.out).unwrap();
    assert_eq!(dropped(&report, "dedup", "dedup.near"), 2, "{report:#}");
    assert_eq!(dropped(&report, "dedup", "dedup.exact"), 0, "{report:#}");
    for folder in ["clean", "unique", "near"] {
        for file in ["report.html", "report.json", "dropped.parquet", "spec.toml"] {
            assert!(
                place.path(&format!("{folder}/{file}")).exists(),
                "{folder}/{file}"
            );
        }
    }
}

#[test]
fn what_is_wrong_with_a_spec_is_said_with_its_line() {
    let place = place();
    for (spec, words) in [
        ("", &["source", "[[source]]"][..]),
        (
            "[[source]]\nname = \"a\"\npath = \"raw\"\n[quality]\nwrong = 1\n",
            &["line 5", "wrong"],
        ),
        ("[[source]]\nname = \"a\"\npath = \"nowhere\"\n", &["nowhere"]),
        (
            "[output]\nvalidation_fraction = 2\n[[source]]\nname = \"a\"\npath = \"raw\"\n",
            &["line 2", "validation_fraction = 2", "below 1"],
        ),
        (
            "[[source]]\nname = \"a\"\npath = \"raw\"\n[language]\nkeep = [\"xx\"]\n",
            &["keep", "xx"],
        ),
        (
            "[[source]]\nname = \"a\"\npath = \"raw\"\n[mix.weights]\nb = 1.0\n",
            &["mix.weights.b", "no source"],
        ),
    ] {
        fs::write(place.path("bad.toml"), spec).unwrap();
        place.run("data build bad.toml --out out").code(2).says(words);
        assert!(!place.path("out").exists());
    }
    place
        .run("data build missing.toml --out out")
        .code(2)
        .says(&["missing.toml"]);
}

#[test]
fn too_little_text_for_the_vocabulary() {
    let place = place();
    fs::write(
        place.path("spec.toml"),
        SPEC.replace("vocab_size = 300", "vocab_size = 9000"),
    )
    .unwrap();
    place
        .run("data build spec.toml --out out")
        .code(2)
        .says(&["tokenizer.vocab_size = 9000", "lower it to at most"]);
}

#[test]
fn a_link_is_followed_to_where_the_dataset_goes() {
    let place = place();
    fs::create_dir(place.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink(place.path("elsewhere"), place.path("out")).unwrap();
    built(&place, "out");
    assert!(place.path("out").is_symlink(), "the link stays");
    assert!(place.path("elsewhere/dataset.json").exists());
}

#[test]
fn nothing_is_left_after_filters() {
    let place = place();
    fs::write(
        place.path("spec.toml"),
        SPEC.replace("min_stop_words = 0", "min_words = 90000"),
    )
    .unwrap();
    place.run("data build spec.toml --out out").code(3).says(&[
        "no document is left",
        "gopher.words",
        "loosen",
    ]);
    assert!(!place.path("out").exists());
}

#[test]
fn a_full_disk_stops_it_and_the_same_command_goes_on() {
    let Some(disk) = Disk::new(24 << 20) else { return };
    let place = place();
    let (digest, _) = built(&place, "out");
    let out = disk.path().join("out");
    disk.fill();
    place
        .run(&format!("data build spec.toml --out {}", out.display()))
        .code(7)
        .says(&["no space left", "goes on where it stopped"]);
    assert!(!out.exists());
    disk.free();
    let ran = place
        .run(&format!("data build spec.toml --out {} -o json", out.display()))
        .code(0);
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["digest"].as_str().unwrap(), digest);
}

#[test]
fn stages_are_measured_without_peers_and_their_absence_is_told() {
    let place = Place::new();
    let command = "bench data --megabytes 1 --rounds 1 --python no-such-python";
    let report = place.summary(&format!(
        "{command} --stage language --stage filters --stage minhash"
    ));
    assert_eq!(report["not_installed"], json!(["datatrove"]));
    let kept = |stage: usize| {
        let measured = &report["stages"][stage];
        assert!(measured["megabytes_per_second"].as_f64().unwrap() > 0.0 && measured["against"].is_null());
        let took = &measured["ours"][0];
        let documents = took["documents"].as_u64().unwrap();
        assert!(took["bytes"].as_u64().unwrap() >= 1_000_000 && documents > 200);
        (took["kept"].as_u64().unwrap(), documents)
    };
    // Made text is English that filters let pass; one document in ten is nearly another.
    let (english, documents) = kept(0);
    assert_eq!(english, documents);
    let (good, _) = kept(1);
    assert!(good * 10 > documents * 9, "{good} of {documents}");
    let (unlike, _) = kept(2);
    assert_eq!(unlike, documents - documents / 10);

    place
        .run(&format!("{command} --stage pii --against datatrove"))
        .code(2)
        .says(&["--against datatrove: no-such-python cannot import it; install it"]);
}
