//! What a stranger reads first, and what a script may rely on.

mod support;

use support::job::Job;
use support::place::Place;

/// Every verb, and words that its help must have: what it does, and the options that people look for.
const VERBS: [(&str, &[&str]); 50] = [
    (
        "demo",
        &[
            "text to a trained model on this machine",
            "--corpus",
            "sends SIGKILL to one rank",
        ],
    ),
    (
        "run",
        &[
            "follow it to its end",
            "--resume goes on from the newest checkpoint",
            "--workers",
            "--kill <WORKER@STEP>",
        ],
    ),
    (
        "coordinator",
        &[
            "started again with the same --state",
            "--listen",
            "three on different machines over one etcd cluster",
            "--lease-ms",
            "--advertise",
        ],
    ),
    (
        "worker",
        &[
            "one rank process for each slot",
            "--name",
            "--slots",
            "LOCKSTEP_COORDINATOR",
        ],
    ),
    (
        "submit",
        &["Queue a job", "must be paths that every node sees", "--out"],
    ),
    ("list", &["List a coordinator's jobs", "--coordinator"]),
    ("status", &["here a job stands", "<NAME>"]),
    ("logs", &["what a job's workers wrote", "--follow"]),
    ("events", &["what happened to a job", "--follow"]),
    ("cancel", &["End a job; its checkpoints stay"]),
    ("nodes", &["those that are drained", "--coordinator"]),
    (
        "drain",
        &["no new ranks on a machine", "lockstep undrain", "<NODE>"],
    ),
    ("undrain", &["have ranks again", "<NODE>"]),
    ("validate", &["Check a spec", "All problems are told at once"]),
    ("presets", &["model presets"]),
    (
        "data",
        &["from raw text", "build", "dedup", "pii", "show", "diff", "verify"],
    ),
    (
        "data build",
        &[
            "goes on where it stopped",
            "[[source]]",
            "--vocab-size",
            "--max-megabytes",
        ],
    ),
    ("data read", &["any format", "[PATH]...", "--out"]),
    ("data normalise", &["Unicode form C", "--out"]),
    ("data language", &["Identify languages", "--spec"]),
    ("data licence", &["opt-outs", "--spec"]),
    ("data quality", &["Gopher, C4, FineWeb", "--spec"]),
    ("data decontaminate", &["evaluation sets", "--spec"]),
    ("data pii", &["redact private data", "--spec"]),
    ("data dedup", &["there twice, or nearly", "--spec"]),
    ("data bias", &["Audit whom the text speaks of", "--spec"]),
    ("data tokenize", &["train or load a tokenizer", "--spec"]),
    (
        "data submit",
        &[
            "whichever of them die",
            "--max-workers",
            "lockstep events -f NAME",
        ],
    ),
    ("data show", &["provenance and scores", "--document"]),
    ("data diff", &["between two datasets"]),
    ("data verify", &["against its digest", "<DATASET>"]),
    (
        "checkpoint",
        &[
            "List, verify, prune and export checkpoints",
            "ls",
            "verify",
            "prune",
            "export",
        ],
    ),
    ("checkpoint ls", &["List a run's checkpoints", "<RUN>"]),
    ("checkpoint verify", &["against their digests", "<PATH>"]),
    (
        "checkpoint prune",
        &["newest that verifies always stays", "--keep-best"],
    ),
    ("checkpoint export", &["Hugging Face's layout", "--out"]),
    (
        "lineage",
        &[
            "which steps, checkpoints and exports of a run saw a document",
            "--run",
            "--document",
            "--step",
            "lockstep lineage --run runs/first",
        ],
    ),
    (
        "generate",
        &[
            "Continue a text",
            "give the same text",
            "--prompt",
            "--temperature",
            "--seed",
        ],
    ),
    ("bench", &["Measure speed and recovery on this machine"]),
    ("bench step", &["in turn with a peer's", "--against", "--ranks"]),
    ("bench scaling", &["Weak scaling", "--ranks", "--against"]),
    ("bench memory", &["peak memory", "--ranks", "--against"]),
    (
        "bench allreduce",
        &["between rank processes", "--sizes", "--transport", "--streams"],
    ),
    ("bench chaos", &["the chaos matrix", "--subset", "--cell"]),
    ("bench soak", &["many random faults", "--faults", "--seed"]),
    ("bench faults", &["Measure recovery", "not run here", "--kills"]),
    ("bench streams", &["with many workers", "--workers"]),
    (
        "bench data",
        &["from raw text to a dataset", "--stage", "--against", "--input"],
    ),
    ("help", &["Commands:"]),
    ("data help", &["Commands:"]),
];

#[test]
fn every_verb_says_what_it_does() {
    let place = Place::new();
    for (verb, words) in VERBS {
        let asked = if verb.ends_with("help") {
            verb.to_owned()
        } else {
            format!("{verb} --help")
        };
        let help = place.run(&asked).code(0);
        assert!(help.err.is_empty(), "{help:#?}");
        // Where a line is broken depends on the terminal.
        let text = help.out.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(
                text.contains(word),
                "`{word}` is not in the help of {verb}:\n{}",
                help.out
            );
        }
    }
    // And no verb is missing above.
    let help = place.run("-h").code(0).out;
    let listed = help
        .split("Commands:\n")
        .nth(1)
        .unwrap()
        .split("\n\n")
        .next()
        .unwrap();
    let verbs = listed.lines().filter(|line| !line.starts_with("   "));
    let mut verbs: Vec<&str> = verbs
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    let mut known: Vec<&str> = VERBS
        .map(|(verb, _)| verb)
        .into_iter()
        .filter(|verb| !verb.contains(' '))
        .collect();
    verbs.sort_unstable();
    known.sort_unstable();
    assert_eq!(verbs, known);
}

#[test]
fn the_exit_codes_are_listed() {
    let help = Place::new().run("--help").code(0).out;
    let table = help.split("Exit codes:").nth(1).unwrap();
    for code in [0, 1, 2, 3, 4, 5, 6, 7, 130] {
        assert!(
            table
                .lines()
                .any(|line| line.trim_start().starts_with(&format!("{code}  "))),
            "{code}: {table}"
        );
    }
}

#[test]
fn results_are_json_for_programs() {
    let place = Place::with(&Job::default());
    let presets = place.run("presets -o json").code(0).json();
    let names: Vec<&str> = presets.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["base", "gpt2", "nano", "small", "tiny"]);
    assert_eq!(presets["nano"]["hidden_size"], 64);
    let spec = place.run("validate small.toml -o json").code(0).json();
    assert_eq!(
        (&spec["train"]["steps"], &spec["batch"]["lanes"]),
        (&30.into(), &4.into())
    );
    assert_eq!(spec["optim"]["beta2"], 0.95, "defaults are written out");
}

/// What `validate` prints is a spec again, and means the same.
#[test]
fn a_spec_with_its_defaults_is_a_spec() {
    let place = Place::with(&Job::default());
    let text = place.run("validate small.toml").code(0).out;
    assert!(text.starts_with("# small.toml is valid: "), "{text}");
    std::fs::write(place.path("full.toml"), &text).unwrap();
    let json = |file: &str| place.run(&format!("validate {file} -o json")).code(0).json();
    assert_eq!(json("full.toml"), json("small.toml"));
}

#[test]
fn the_version_is_told() {
    let version = Place::new().run("--version").code(0).out;
    assert_eq!(version.trim(), format!("lockstep {}", lockstep_proto::VERSION));
}
