//! Real processes: three workers train the model, one of them dies, and the bits are those of one worker alone.
#![cfg(test)]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

const STEPS: u64 = 12;

/// Lines that say something of each other, so that there is something to learn.
fn write_corpus(folder: &Path) {
    std::fs::create_dir(folder).unwrap();
    for document in 0..40u32 {
        let mut text = String::new();
        for line in 0..30 {
            let number = (document * 7 + line) % 10;
            writeln!(
                text,
                "after {number} comes {}, and nothing else.",
                (number + 1) % 10
            )
            .unwrap();
        }
        std::fs::write(folder.join(format!("{document}.txt")), text).unwrap();
    }
}

fn run(folder: &Path, name: &str, arguments: &[&str]) -> Value {
    let job = include_str!("../job.toml").replace("steps = 100", &format!("steps = {STEPS}"));
    std::fs::write(folder.join("job.toml"), job).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_own-model"))
        .args(["run", "job.toml", "-o", "json", "--out", name])
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{name}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn three_workers_of_which_one_dies_train_it_as_one_does() {
    let folder = tempfile::tempdir().unwrap();
    write_corpus(&folder.path().join("corpus"));
    let alone = run(folder.path(), "alone", &["--workers", "1"]);
    let three = run(folder.path(), "three", &["--workers", "3", "--kill", "1@5"]);
    assert_eq!(three["weights_blake3"], alone["weights_blake3"]);
    for (name, summary) in [("alone", &alone), ("three", &three)] {
        let number = |field: &str| summary[field].as_f64().unwrap();
        assert_eq!(
            (number("samples_missed"), number("samples_repeated")),
            (0.0, 0.0),
            "{name}"
        );
        assert!(
            number("loss_last") < 0.8 * number("loss_first"),
            "{name}: {summary:#}"
        );
    }
    assert_eq!((&three["kills"], &three["workers_max"]), (&1.into(), &3.into()));
}
