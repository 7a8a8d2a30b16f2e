//! Whatever is wrong with the raw text, `data build` ends as it should: what is good is in the dataset, and each record
//! that is not is in `dropped.parquet`, with its file, its place and a reason.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;
use support::place::Place;
use support::process::{Process, Ran};
use support::raw::{Row, SPEC, lines, rows, table, text};

/// A place with the spec, and with enough good documents in `raw/good.jsonl`.
fn place() -> Place {
    let place = Place::new();
    fs::create_dir(place.path("raw")).unwrap();
    fs::write(place.path("spec.toml"), SPEC).unwrap();
    put(&place, "good.jsonl", lines(0..30));
    place
}

fn put(place: &Place, name: impl AsRef<OsStr>, bytes: impl AsRef<[u8]>) {
    fs::write(place.path("raw").join(Path::new(name.as_ref())), bytes).unwrap();
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What became of the raw files.
struct Fate {
    kept: Vec<Row>,
    dropped: Vec<Row>,
}

impl Fate {
    /// Of a build that ended well.
    fn of(place: &Place, ran: Ran) -> Self {
        ran.code(0);
        place.run("data verify out").code(0);
        assert!(!place.path("out.work").exists(), "nothing is left of the work");
        Self {
            kept: rows(&place.path("out/documents.parquet")),
            dropped: rows(&place.path("out/dropped.parquet")),
        }
    }

    /// Where the records of a file begin that are kept.
    fn kept(&self, file: &str) -> Vec<u64> {
        let mut offsets: Vec<u64> = self.rows(&self.kept, file).map(offset).collect();
        offsets.sort_unstable();
        offsets
    }

    /// Where the records of a file begin that are not, why, and in which words.
    fn dropped(&self, file: &str) -> Vec<(u64, &str, &str)> {
        self.rows(&self.dropped, file)
            .map(|row| (offset(row), row["reason"].as_str(), row["detail"].as_str()))
            .collect()
    }

    fn rows<'f>(&self, rows: &'f [Row], file: &str) -> impl Iterator<Item = &'f Row> {
        rows.iter().filter(move |row| row["file"] == file)
    }

    /// Asserts that of a file nothing is kept, and that it is dropped as a whole for this reason, in these words.
    #[track_caller]
    fn refused(&self, file: &str, reason: &str, words: &str) {
        assert!(self.kept(file).is_empty(), "{file}");
        let dropped = self.dropped(file);
        assert!(
            matches!(dropped[..], [(0, why, detail)] if why == reason && detail.contains(words)),
            "{file}: {dropped:?}"
        );
    }
}

fn offset(row: &Row) -> u64 {
    row["offset"].parse().unwrap()
}

#[test]
fn bad_records_are_told_and_the_good_beside_them_kept() {
    let place = place();
    // Invalid UTF-8, no text, not JSON, a text that is none, and one line that is good, in every kind of order.
    let bad: [(&[u8], &str); 5] = [
        (b"{\"text\":\"caf\xe9\"}\n", "read.utf8"),
        (b"{\"id\":1}\n", "read.no_text"),
        (b"{\"text\":\n", "read.json"),
        (b"{\"text\":[1]}\n", "read.text_type"),
        (b"[]\n", "read.not_an_object"),
    ];
    let mut mixed = Vec::new();
    let (mut bad_at, mut good_at) = (Vec::new(), Vec::new());
    for (number, (line, reason)) in (100..).zip(bad) {
        bad_at.push((mixed.len() as u64, reason));
        mixed.extend_from_slice(line);
        good_at.push(mixed.len() as u64);
        mixed.extend_from_slice(lines(number..number + 1).as_bytes());
    }
    put(&place, "mixed.jsonl", &mixed);
    // Objects of differing fields.
    let objects = [
        json!({"id": 7, "text": text(110), "url": ["a", 1]}),
        json!({"text": text(111), "metadata": "none", "license": {"name": "MIT"}}),
        json!({"deep": [[[{}]]], "text": text(112), "metadata": {"url": null}}),
    ];
    put(
        &place,
        "fields.jsonl",
        objects.map(|object| object.to_string()).join("\n"),
    );
    // Cut off in the middle.
    let all = lines(200..300);
    let whole = gzip(all.as_bytes());
    put(&place, "cut.jsonl.gz", &whole[..whole.len() / 2]);
    // Text in an old encoding is mended, and bytes that are no text are not.
    put(
        &place,
        "latin.txt",
        text(120)
            .replace("house", "caf\u{e9}")
            .chars()
            .map(|c| c as u8)
            .collect::<Vec<_>>(),
    );
    let noise = (0..2000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 23) as u8);
    put(&place, "noise.txt", noise.collect::<Vec<_>>());
    // Tables of differing schemas in one source.
    let (texts, numbers) = ([text(130), text(131)], [1, 2]);
    put(&place, "a.parquet", table(("text", &texts), ("id", &numbers)));
    put(&place, "b.parquet", table(("content", &texts), ("id", &numbers)));
    put(&place, "c.parquet", table(("id", &texts), ("text", &numbers)));
    let texts = [text(132), text(133)];
    put(&place, "d.parquet", table(("text", &texts), ("views", &numbers)));
    // Names that break lines, and names that are no text.
    put(&place, "two\nlines.txt", text(140));
    put(&place, OsStr::from_bytes(b"caf\xe9.txt"), text(141));
    put(&place, "bad\nname.txt", "");

    let fate = Fate::of(&place, place.run("data build spec.toml --out out"));
    let report: serde_json::Value = serde_json::from_str(&place.read("out/report.json")).unwrap();
    assert_eq!(
        report["counts"]["stages"]["read"]["altered"],
        json!({"windows-1252": 1})
    );
    assert_eq!(fate.kept("good.jsonl").len(), 30);
    assert_eq!(fate.kept("mixed.jsonl"), good_at);
    let told: Vec<_> = fate
        .dropped("mixed.jsonl")
        .iter()
        .map(|(at, reason, _)| (*at, *reason))
        .collect();
    assert_eq!(told, bad_at);
    assert_eq!(fate.kept("fields.jsonl").len(), 3);
    assert_eq!(fate.kept("latin.txt"), [0]);
    fate.refused("noise.txt", "read.binary", "not text");

    let kept = fate.kept("cut.jsonl.gz");
    assert!((20..90).contains(&kept.len()), "{kept:?}");
    let ends = all.match_indices('\n').map(|(at, _)| at as u64 + 1);
    let broken_off = ends.take(kept.len()).last().unwrap();
    assert!(
        matches!(fate.dropped("cut.jsonl.gz")[..], [(at, "read.truncated", _)] if at == broken_off),
        "{:?}, not at {broken_off}",
        fate.dropped("cut.jsonl.gz")
    );

    assert_eq!(
        (fate.kept("a.parquet").len(), fate.kept("d.parquet").len()),
        (2, 2)
    );
    fate.refused("b.parquet", "read.column", "the file has: content, id");
    fate.refused("c.parquet", "read.column", "column text holds INT64, not texts");

    assert_eq!(fate.kept(r"two\x0alines.txt"), [0]);
    assert_eq!(fate.kept(r"caf\xe9.txt"), [0]);
    fate.refused(r"bad\x0aname.txt", "read.empty", "the file is empty");
    let shown = place
        .run(r"data show out --document web/two\x0alines.txt -o json")
        .code(0)
        .json();
    assert_eq!(shown["text"], text(140));
}

#[test]
fn a_line_of_more_than_two_gigabytes_takes_little_memory() {
    let place = place();
    let spec = SPEC.replace("path = \"raw\"", "path = \"raw\"\nmax_record_bytes = 4194304");
    fs::write(place.path("spec.toml"), spec).unwrap();
    // As it lies on the disk: a hole of 2.2 GB between two good lines.
    let mut sparse = File::create(place.path("raw/sparse.jsonl")).unwrap();
    let good = lines(200..201);
    let (line, end) = (good.len() as u64, good.len() as u64 + 2_200_000_000);
    sparse.write_all(good.as_bytes()).unwrap();
    sparse.set_len(end).unwrap();
    let mut sparse = fs::OpenOptions::new()
        .append(true)
        .open(place.path("raw/sparse.jsonl"))
        .unwrap();
    sparse
        .write_all(format!("\n{}", lines(201..202)).as_bytes())
        .unwrap();
    // The same packed, and as one document; each frame is 64 MB.
    let frame = zstd::encode_all(&vec![b'x'; 64 << 20][..], 1).unwrap();
    let pack = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    let around = |before: &str, after: &str| [pack(before), frame.repeat(33), pack(after)].concat();
    let before = format!("{}{{\"text\":\"", lines(210..211));
    put(
        &place,
        "packed.jsonl.zst",
        around(&before, &format!("\"}}\n{}", lines(211..212))),
    );
    put(&place, "packed.txt.zst", around("", ""));

    // With 300 MB of data, a build that held one of these lines would not end well.
    let build = place.command("data build spec.toml --out out");
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -d 300000 && exec \"$0\" \"$@\""]);
    limited
        .arg(build.get_program())
        .args(build.get_args())
        .current_dir(place.root());
    for (name, value) in build.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    limited.env("RAYON_NUM_THREADS", "2");
    let fate = Fate::of(&place, Process::start(&mut limited).finish());

    let too_long = [
        ("sparse.jsonl", line, vec![0, end + 1]),
        ("packed.jsonl.zst", lines(210..211).len() as u64, vec![]),
    ];
    for (file, at, kept) in too_long {
        let dropped = fate.dropped(file);
        assert!(
            matches!(dropped[..], [(found, "read.too_long", _)] if found == at),
            "{file}: {dropped:?}"
        );
        if !kept.is_empty() {
            assert_eq!(fate.kept(file), kept);
        }
        assert_eq!(fate.kept(file).len(), 2, "{file}");
    }
    fate.refused("packed.txt.zst", "read.too_long", "max_record_bytes = 4194304");
}

/// A build by somebody whom permissions bind, as they do not bind root.
fn build_as_nobody(place: &Place) -> Ran {
    // A copy of the program: its folder may be closed to others.
    let program = place.path("lockstep");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_lockstep"), &program).unwrap();
    }
    mode(&program, 0o755);
    mode(place.root(), 0o777);
    let mut command = place.command_of(&program, "data build spec.toml --out out");
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        command.uid(65_534).gid(65_534);
    }
    Process::start(&mut command).finish()
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn folders_and_files_that_must_not_be_read() {
    let place = place();
    fs::create_dir(place.path("raw/closed")).unwrap();
    put(&place, "closed/secret.txt", text(100));
    put(&place, "secret.txt", text(101));
    mode(&place.path("raw/closed"), 0o000);
    mode(&place.path("raw/secret.txt"), 0o000);
    let ran = build_as_nobody(&place);
    mode(&place.path("raw/closed"), 0o755);
    let fate = Fate::of(&place, ran);
    assert_eq!(fate.kept("good.jsonl").len(), 30);
    fate.refused("closed", "read.unreadable", "ermission denied");
    fate.refused("secret.txt", "read.unreadable", "ermission denied");
    // The source itself.
    fs::remove_dir_all(place.path("out")).unwrap();
    mode(&place.path("raw"), 0o000);
    let ran = build_as_nobody(&place);
    mode(&place.path("raw"), 0o755);
    ran.code(7).says(&["source", "raw", "ermission denied"]);
    assert!(!place.path("out").exists() && !place.path("out.work").exists());
}

#[test]
fn links_in_a_circle() {
    let place = place();
    let raw = place.path("raw");
    fs::create_dir(raw.join("deep")).unwrap();
    put(&place, "deep/a.txt", text(100));
    symlink("..", raw.join("deep/up")).unwrap();
    symlink("deep", raw.join("same")).unwrap();
    symlink("itself", raw.join("itself")).unwrap();
    symlink("nowhere", raw.join("gone")).unwrap();
    let fate = Fate::of(&place, place.run("data build spec.toml --out out"));
    assert_eq!(fate.kept("deep/a.txt"), [0]);
    for link in ["deep/up", "same", "itself", "gone"] {
        fate.refused(link, "read.link", "follow_links");
    }
    fs::remove_dir_all(place.path("out")).unwrap();
    let spec = SPEC.replace("path = \"raw\"", "path = \"raw\"\nfollow_links = true");
    fs::write(place.path("spec.toml"), spec).unwrap();
    let fate = Fate::of(&place, place.run("data build spec.toml --out out"));
    assert_eq!(
        (fate.kept("good.jsonl").len(), fate.kept("deep/a.txt")),
        (30, vec![0])
    );
    assert_eq!(
        fate.kept.len(),
        31,
        "a folder is read once, however many links lead to it"
    );
    for link in ["deep/up", "same"] {
        fate.refused(link, "read.link_loop", "read already");
    }
    fate.refused("itself", "read.unreadable", "symbolic links");
    fate.refused("gone", "read.unreadable", "No such file");
}

#[test]
fn when_nothing_is_left_the_filter_that_dropped_most_is_named() {
    let place = place();
    // Thirty are too long for one filter, and three are not in the one language that is kept.
    let strict = "[quality.gopher_quality]\nmax_words = 60\nmin_stop_words = 0";
    let spec = SPEC.replace("[quality.gopher_quality]\nmin_stop_words = 0", strict);
    let spec = spec.replace("min_confidence = 0.0", "min_confidence = 0.0\nkeep = [\"eng\"]");
    fs::write(place.path("spec.toml"), spec).unwrap();
    let german =
        "Alle Menschen sind frei und gleich an Würde und Rechten geboren, und sie sollen einander begegnen. ";
    put(&place, "deutsch.txt", german.repeat(3));
    let ran = place.run("data build spec.toml --out out").code(3);
    ran.says(&[
        "no document is left of 31 that were read",
        "gopher.words",
        "(30)",
        "loosen",
        "web/good.jsonl",
    ]);
    assert!(!place.path("out").exists());
}

#[test]
fn when_nothing_can_be_read_the_first_record_is_told() {
    let place = place();
    put(&place, "good.jsonl", "{\"content\":\"a\"}\n{\"content\":\"b\"}\n");
    put(&place, "other.txt.bz2", "BZh9");
    let ran = place.run("data build spec.toml --out out").code(3);
    ran.says(&[
        "hold no document",
        "3 records could not be used",
        "read.no_text",
        "web/good.jsonl",
        "set fields.text",
    ]);
    assert!(!place.path("out").exists());
}
