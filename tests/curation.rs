//! From raw text to a dataset, by way of a spec: the same bytes whatever happens on the way, and a reason for all that
//! is not in them.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::sync::LazyLock;

use lockstep_proto::wire;
use rustix::process::Signal;
use serde_json::{Value, json};
use support::cluster::{Coordinator, faulty_worker};
use support::disk::Disk;
use support::place::Place;
use support::process::Process;
use support::raw::{self, Row, lines, rows, text};

/// The spec that others use too, with small units and passages.
static SPEC: LazyLock<String> = LazyLock::new(|| {
    let spec = raw::SPEC.replace("path = \"raw\"", "path = \"raw\"\nunit_bytes = 20000");
    spec + "[dedup.passages]\n"
});

/// A paragraph of two documents.
const SHARED: &str = "The people of the village have music and water in the morning, and paper and a picture in the \
                      evening. That is the river of the garden, and the winter of the station with a market.";

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
    // Two that begin alike: a paragraph stays in the first.
    for number in [500, 501] {
        let text = format!("{SHARED}\n\n{}", text(number));
        lines.push(json!({ "text": text }).to_string());
    }
    lines.push(json!({"text": "Too short."}).to_string());
    lines.push(json!({"text": text(600), "opt_outs": ["noai"]}).to_string());
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
    fs::write(place.path("spec.toml"), &*SPEC).unwrap();
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
        ("licence", "consent.opt_out", 1),
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
    let removed = &report["counts"]["stages"]["dedup"]["altered"]["passage_bytes"];
    assert!(removed.as_u64() >= Some(SHARED.len() as u64), "{report:#}");
    // Every document has its scores, whichever stage dropped it; what is no document has none.
    let dropped_rows = rows(&place.path("out/dropped.parquet"));
    assert_eq!(dropped_rows.len() as u64, gone);
    for row in dropped_rows {
        let scores = row.get("scores").map_or("", |scores| scores);
        assert_eq!(scores.contains("\"words\":"), row["stage"] != "read", "{row:#?}");
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
    let manifest: Value = serde_json::from_slice(&fs::read(place.path("out/dataset.json")).unwrap()).unwrap();
    let measured = manifest["gzip_bits_per_byte"].as_f64().unwrap();
    assert!(
        (measured - gzip_bits_per_byte(&held_out_text(&place))).abs() < 1e-9,
        "{measured}"
    );
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

/// The text of all documents that are held out, in order.
fn held_out_text(place: &Place) -> String {
    let all = rows(&place.path("out/documents.parquet"));
    let held_out = all.iter().filter(|row| row["split"] == "validation");
    let text = |row: &Row| {
        let shown = place.run(&format!("data show out --document {} -o json", row["digest"]));
        let shown: Value = serde_json::from_str(&shown.code(0).out).unwrap();
        shown["text"].as_str().unwrap().to_owned()
    };
    held_out.map(text).collect()
}

fn gzip_bits_per_byte(text: &str) -> f64 {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(text.as_bytes()).unwrap();
    gzip.finish().unwrap().len() as f64 * 8.0 / text.len() as f64
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
    // At 500 there are so many units that searches among all documents are shared out, and so are comparisons.
    for (verify, name) in [("[dedup.near]\nverify = 0.7\n", "verified"), ("", "out")] {
        let [digest, coarse, fine] = [20_000, 3_000_000, 500].map(|bytes| {
            let spec = SPEC.replace("unit_bytes = 20000", &format!("unit_bytes = {bytes}"));
            fs::write(place.path("spec.toml"), spec + verify).unwrap();
            let (digest, report) = built(&place, &format!("{name}-{bytes}"));
            assert_eq!(dropped(&report, "dedup", "dedup.near"), 1, "{report:#}");
            digest
        });
        assert_eq!([&coarse, &fine], [&digest; 2], "{name}");
    }
    let spec = format!("{}[dedup.near]\nverify = 0.7\n", *SPEC);
    fs::write(place.path("spec.toml"), spec).unwrap();
    let (digest, _) = built(&place, "out");
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
fn a_file_that_changes_between_two_tries_is_read_again() {
    let place = place();
    let (before, _) = built(&place, "out");
    let mut command = place.command("data build spec.toml --out killed");
    let marker = place.path("marker");
    let fault = format!("point=task-done;do=kill;once={};step=20", marker.display());
    command.env(lockstep_faults::VARIABLE, fault);
    assert_eq!(Process::start(&mut command).finish().signal, Some(9));
    // One letter of the first document, which was read; the size stays.
    let file = place.path("raw/a.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    let at = text.find("river").unwrap();
    fs::write(&file, format!("{}R{}", &text[..at], &text[at + 1..])).unwrap();
    let (fresh, _) = built(&place, "fresh");
    assert_ne!(fresh, before);
    assert_eq!(built(&place, "killed").0, fresh);
    // Written again with the same text, it is another input, of which the same bytes come.
    fs::write(&file, text).unwrap();
    place
        .run("data build spec.toml --out out")
        .code(3)
        .says(&["other input", "nothing was touched"]);
    assert_eq!(built(&place, "again").0, before);
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
    // The last stage makes a dataset of what the others left.
    fs::write(place.path("tokens.toml"), "[tokenizer]\nvocab_size = 300\n").unwrap();
    place
        .run("data tokenize unique/*.jsonl.zst --spec tokens.toml --out tokens")
        .code(0);
    place.run("data verify tokens").code(0);
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
            "[[source]]\nname = \"a\"\npath = \"raw\"\n[dedup.near]\nverfy = 0.5\n",
            &["line 5", "verfy", "verify"],
        ),
        (
            "[dedup]\nnear = 3\n",
            &["line 2", "a table of settings, true or false"],
        ),
        (
            "[[source]]\nname = \"a\"\nlist = \"urls.txt\"\n",
            &["line 3", "source.list = \"urls.txt\"", "set network = true"],
        ),
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

/// A spec of two sources: `large` has 400 documents, `little` a quarter of that.
fn two_sources(place: &Place) -> String {
    let mut spec = SPEC.replace(
        "[[source]]\nname = \"web\"\npath = \"raw\"\nunit_bytes = 20000\n",
        "",
    );
    for (name, numbers) in [("large", 0..400), ("little", 1000..1100)] {
        fs::write(place.path(&format!("{name}.jsonl")), lines(numbers)).unwrap();
        spec += &format!("[[source]]\nname = \"{name}\"\npath = \"{name}.jsonl\"\n");
    }
    spec
}

/// A document in French that begins with another sentence for each number.
fn french(from: usize) -> String {
    const SENTENCES: [&str; 6] = [
        "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
        "Ils sont doués de raison et de conscience et doivent agir dans un esprit de fraternité.",
        "La maison près de la rivière a un jardin où les enfants du village jouent le matin.",
        "Au marché, on achète du pain, du fromage et des légumes pour la semaine.",
        "Le professeur de musique arrive toujours à la gare avant le premier train du soir.",
        "En hiver, la neige couvre les toits et personne ne sort avant midi.",
    ];
    let sentence = |at: usize| SENTENCES[(from + at) % SENTENCES.len()];
    (0..SENTENCES.len()).map(sentence).collect::<Vec<_>>().join(" ")
}

#[test]
fn what_the_mix_has_no_use_for_has_a_reason() {
    let place = Place::new();
    let spec = two_sources(&place);
    // No weight of a source names it.
    let french = (0..12).map(|from| json!({ "text": french(from) }).to_string() + "\n");
    fs::write(place.path("french.jsonl"), french.collect::<String>()).unwrap();
    let build = |mix: &str| {
        let more = if mix.starts_with("by") {
            "[[source]]\nname = \"french\"\npath = \"french.jsonl\"\n"
        } else {
            ""
        };
        fs::write(place.path("spec.toml"), format!("{spec}{more}[mix]\n{mix}")).unwrap();
        fs::remove_dir_all(place.path("out")).ok();
        place.run("data build spec.toml --out out -o json")
    };
    let of = |rows: &[Row], column: &str, value: &str| {
        rows.iter().filter(|row| row[column] == value).count() as u64
    };
    for (mix, reason) in [
        ("weights = { large = 1 }", "mix.weight"),
        ("weights = { large = 1, little = 1 }\nmax_epochs = 1", "mix.share"),
        ("by = \"language\"\nweights = { en = 1 }", "mix.weight"),
    ] {
        let report = build(mix).code(0).json();
        let (used, not) = (
            rows(&place.path("out/documents.parquet")),
            rows(&place.path("out/dropped.parquet")),
        );
        let flow = &report["counts"]["stages"]["mix"];
        let (went_on, not_used) = (of(&used, "split", "train"), of(&not, "stage", "mix"));
        assert_eq!(of(&not, "reason", reason), not_used, "{mix}");
        assert_eq!(flow["passed"]["documents"], went_on, "{mix}");
        assert_eq!(flow["given"]["documents"], went_on + not_used, "{mix}");
        assert!(not_used > 0, "{mix}: {flow:#}");
        if reason == "mix.share" {
            assert_eq!(of(&not, "source", "little"), 0, "of that there is too little");
        }
    }
    let page = place.read("out/report.html");
    assert!(page.contains("<h2>Mix</h2>") && page.contains("<td>eng</td>"));
    build("by = \"language\"\nweights = { de = 1 }").code(2).says(&[
        "mix.weights",
        "nothing is left of what they name",
        "eng",
    ]);
    for (weights, words) in [
        ("{ tlh = 1 }", "no language that is identified has this code"),
        ("{ en = 1, eng = 2 }", "is the same language as"),
    ] {
        build(&format!("by = \"language\"\nweights = {weights}"))
            .code(2)
            .says(&["mix.weights.", words]);
    }
}

#[test]
fn tokens_are_shared_as_the_weights_ask() {
    let place = Place::new();
    // Of one source there is four times as much as of the other; it is to have thrice the tokens.
    let spec = two_sources(&place);
    let shares = |weights: &str| {
        fs::write(
            place.path("spec.toml"),
            format!("{spec}[mix]\nmax_epochs = 8\n{weights}"),
        )
        .unwrap();
        fs::remove_dir_all(place.path("out")).ok();
        built(&place, "out");
        // Counted from the shards: an index tells how many tokens each document has, in the order of the table.
        let index = fs::read(place.path("out/shard-00000.idx")).unwrap();
        let sequences = u64::from_le_bytes(index[18..26].try_into().unwrap()) as usize;
        let lengths = index[34..][..4 * sequences].as_chunks::<4>().0.iter();
        let lengths = lengths.map(|bytes| u64::from(u32::from_le_bytes(*bytes)));
        let documents = rows(&place.path("out/documents.parquet")).into_iter();
        let train: Vec<_> = documents.filter(|row| row["split"] == "train").collect();
        assert_eq!(train.len(), sequences);
        let (mut large, mut all) = (0, 0);
        for (row, tokens) in train.iter().zip(lengths) {
            large += if row["source"] == "large" { tokens } else { 0 };
            all += tokens;
        }
        assert_eq!(
            fs::metadata(place.path("out/shard-00000.bin")).unwrap().len(),
            2 * all
        );
        large as f64 / all as f64
    };
    let asked = |weights: &str, share: f64| {
        let found = shares(weights);
        assert!(
            (found - share).abs() < 0.01,
            "{weights}: {found}, asked for {share}"
        );
    };
    asked("weights = { large = 3, little = 1 }", 0.75);
    asked("weights = { large = 1, little = 1 }", 0.5);
    // Tokens to the power of a half: two to one.
    asked("temperature = 2.0", 2.0 / 3.0);
}

#[test]
fn lines_that_c4_drops_are_cleaned_away_if_that_is_asked_for() {
    let place = place();
    let line = "Click here for more words about the house of water";
    let extra = json!({"text": format!("{}\n\n{line}\n{}", text(2000), text(2001))});
    fs::write(place.path("raw/c.jsonl"), extra.to_string()).unwrap();
    let has_line = |out: &str| {
        let shown = place
            .run(&format!("data show {out} --document web/c.jsonl -o json"))
            .code(0)
            .json();
        shown["text"].as_str().unwrap().contains(line)
    };
    let (_, report) = built(&place, "out");
    assert!(has_line("out"));
    assert_eq!(report["counts"]["stages"]["quality"]["altered"], json!({}));
    let spec = SPEC.replace(
        "[quality.gopher_quality]",
        "[quality]\nclean_lines = true\n[quality.gopher_quality]",
    );
    fs::write(place.path("spec.toml"), spec).unwrap();
    let (_, report) = built(&place, "cleaned");
    assert!(!has_line("cleaned"));
    let altered = &report["counts"]["stages"]["quality"]["altered"];
    assert!(altered["unterminated_lines"].as_u64().unwrap() >= 1, "{altered}");
    assert!(altered["blank_lines"].as_u64().unwrap() >= 100, "{altered}");
}

#[test]
fn a_tokenizer_is_brought_with_the_token_that_ends_documents() {
    let place = place();
    built(&place, "out");
    let json = place.read("out/tokenizer.json").replace("<|endoftext|>", "</s>");
    fs::write(place.path("brought.json"), json).unwrap();
    let brought = "path = \"brought.json\"\nend_of_text = \"</s>\"";
    fs::write(place.path("spec.toml"), SPEC.replace("vocab_size = 300", brought)).unwrap();
    built(&place, "again");
    let manifest: Value = serde_json::from_str(&place.read("again/dataset.json")).unwrap();
    assert_eq!(
        (&manifest["vocab_size"], &manifest["eos_id"]),
        (&json!(300), &json!(0))
    );
    let shards = |out: &str| fs::read(place.path(&format!("{out}/shard-00000.bin"))).unwrap();
    assert!(shards("again") == shards("out"), "the same tokens");
    let shown = place.run("data show again --document 0 -o json").code(0).json();
    assert!(text_is_of(&shown), "{shown:#}");
    // The same spec, but another file: what stands there is not what it describes any more.
    let reused = place.run("data build spec.toml --out again").code(0);
    assert!(reused.out.contains("is there already"), "{}", reused.out);
    fs::write(place.path("brought.json"), place.read("brought.json") + "\n").unwrap();
    place
        .run("data build spec.toml --out again")
        .code(3)
        .says(&["was built with another spec or from other input"]);
    for (settings, words) in [
        ("path = \"brought.json\"", &["no token <|endoftext|>"][..]),
        (
            "end_of_text = \"</s>\"",
            &["tokenizer.end_of_text", "give its `path`"],
        ),
    ] {
        fs::write(
            place.path("spec.toml"),
            SPEC.replace("vocab_size = 300", settings),
        )
        .unwrap();
        place.run("data build spec.toml --out bad").code(2).says(words);
    }
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

/// Awaits the end of the build `small`, and checks that it gave the dataset of this digest and left nothing else.
fn await_built(place: &Place, coordinator: &Coordinator, digest: &str) {
    let job = coordinator.await_job("small", "done", |job| job.state() == wire::JobState::Done);
    let summary: Value = serde_json::from_str(&job.summary).unwrap();
    assert_eq!(summary["dataset"], digest, "{summary:#}");
    place.run("data verify out").code(0);
    place.await_none_like(" rank ");
    assert!(!place.path("out.work").exists(), "nothing is left of the work");
}

#[test]
fn a_cluster_builds_the_same_bytes_whichever_of_its_processes_die() {
    let place = place();
    let (digest, _) = built(&place, "alone");
    let coordinator = Coordinator::start(&place);
    let fault = |point: &str| {
        format!(
            "point={point};do=kill;step=2;once={}",
            place.path(point).display()
        )
    };
    // With a task that nobody sees; and with one of which nobody was told.
    let _workers = [("alpha", "task-written"), ("beta", "task-done")]
        .map(|(name, point)| faulty_worker(&place, &coordinator.url, name, &fault(point)));
    let submit = format!(
        "data submit spec.toml --out out --coordinator {} -o json",
        coordinator.url
    );
    let job = place.run(&submit).code(0).json();
    assert_eq!(job["name"], "small", "{job:#}");
    await_built(&place, &coordinator, &digest);
    let events = place.read("out.job/events.jsonl");
    for point in ["task-written", "task-done"] {
        assert!(place.path(point).exists(), "nobody died at {point}: {events}");
    }
    assert_eq!(events.matches("tasks given back").count(), 2, "{events}");
    // What is there is found, what was left beside it is removed, and what is not of this spec is not touched.
    fs::create_dir(place.path("out.work")).unwrap();
    fs::write(place.path("out.work/lock"), "").unwrap();
    place.run(&submit).code(0);
    await_built(&place, &coordinator, &digest);
    fs::write(place.path("spec.toml"), SPEC.replace("300", "310")).unwrap();
    place.run(&submit).code(0);
    let failed = coordinator.await_job("small", "failed", |job| job.state() == wire::JobState::Failed);
    assert!(failed.reason.contains("another spec"), "{failed:#?}");
}

#[test]
fn a_build_goes_on_under_a_coordinator_that_knows_nothing_of_its_tasks() {
    let place = place();
    let (digest, _) = built(&place, "alone");
    let coordinator = Coordinator::start(&place);
    let marker = place.path("stopped");
    let fault = format!("point=task-written;do=stop;step=3;once={}", marker.display());
    let _worker = faulty_worker(&place, &coordinator.url, "alpha", &fault);
    place
        .run(&format!(
            "data submit spec.toml --out out --coordinator {}",
            coordinator.url
        ))
        .code(0);
    place.await_file("stopped");
    coordinator.process.signal(Signal::KILL);
    let address = coordinator.address().to_owned();
    drop(coordinator);
    let coordinator = Coordinator::start_at(&place, &address);
    let [rank] = &place.ranks("alpha")[..] else {
        panic!("one rank is there")
    };
    rustix::process::kill_process(rank.pid, Signal::CONT).unwrap();
    await_built(&place, &coordinator, &digest);
}

#[test]
fn a_build_that_is_cancelled_goes_on_when_it_is_submitted_again() {
    let place = place();
    let (digest, _) = built(&place, "alone");
    let coordinator = Coordinator::start(&place);
    let marker = place.path("held");
    let fault = format!("point=task-done;do=hold;step=2;once={}", marker.display());
    let _worker = faulty_worker(&place, &coordinator.url, "alpha", &fault);
    let submit = format!(
        "data submit spec.toml --out out --coordinator {}",
        coordinator.url
    );
    place.run(&submit).code(0);
    place.await_file("held");
    place
        .run(&format!(
            "data submit spec.toml --out other --coordinator {}",
            coordinator.url
        ))
        .code(2)
        .says(&["a job named `small` is not over yet"]);
    place
        .run(&format!("{submit} --name another"))
        .code(2)
        .says(&["the job `small`", "choose another --out"]);
    let cancel = format!("cancel small --coordinator {} -o json", coordinator.url);
    assert_eq!(place.run(&cancel).code(0).json()["state"], "cancelled");
    fs::write(place.path("held.go"), "").unwrap();
    place.await_none_like(" rank ");
    assert!(!place.path("out").exists() && place.path("out.work").exists());
    place.run(&submit).code(0);
    await_built(&place, &coordinator, &digest);
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
