//! Checkpoints: whole or absent, and they notice every damage.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{small, trained, variants};
use lockstep_engine::ids::Step;
use lockstep_trainer::checkpoint::{self, About, Corruption, Policy};
use lockstep_trainer::{Layout, State, TrainerError};

fn about(step: u64) -> About {
    About {
        cursor: 16 * step,
        seed: 7,
        config_digest: "c0ffee".to_owned(),
        dataset_digest: "dada".to_owned(),
        parent: step.checked_sub(1).map(Step),
        validation_bits_per_byte: None,
    }
}

fn newest(keep: u64) -> Policy {
    Policy {
        keep,
        ..Policy::default()
    }
}

struct Setup {
    dir: tempfile::TempDir,
    layout: Layout,
    state: State,
}

fn setup() -> Setup {
    let trainer = trained(&small(4, 2, false), 2);
    Setup {
        dir: tempfile::tempdir().unwrap(),
        layout: trainer.layout().clone(),
        state: trainer.state().clone(),
    }
}

impl Setup {
    fn write(&self, step: u64, shards: usize) -> PathBuf {
        let state = State {
            step: Step(step),
            ..self.state.clone()
        };
        checkpoint::write(self.dir.path(), &state, &self.layout, &about(step), shards).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn bits(state: &State) -> Vec<u32> {
    [&state.weights, &state.first, &state.second]
        .into_iter()
        .flat_map(|values| values.iter().map(|v| v.to_bits()))
        .collect()
}

#[test]
fn any_number_of_shards_gives_back_the_same_bits() {
    let setup = setup();
    for shards in [1, 2, 3, 7] {
        let path = setup.write(shards as u64, shards);
        let loaded = checkpoint::load(&path).unwrap();
        assert_eq!(bits(&loaded.state), bits(&setup.state));
        assert_eq!(loaded.manifest.about, about(shards as u64));
        assert_eq!(
            (loaded.state.step, loaded.manifest.shards.len()),
            (Step(shards as u64), shards)
        );
        assert_eq!(loaded.manifest.weights_digest, setup.state.weights_digest());
        assert_eq!(checkpoint::verify(&path).unwrap(), loaded.manifest);
    }
    assert_eq!(
        setup.names(),
        ["step-00000001", "step-00000002", "step-00000003", "step-00000007"]
    );
}

#[test]
fn shards_are_plain_safetensors() {
    let setup = setup();
    let path = setup.write(1, 2);
    let mut weights = Vec::new();
    for file in ["shard-1-of-2.safetensors", "shard-2-of-2.safetensors"] {
        let tensors = candle_core::safetensors::load(path.join(file), &candle_core::Device::Cpu).unwrap();
        weights.extend(tensors["weights"].to_vec1::<f32>().unwrap());
    }
    assert_eq!(weights, *setup.state.weights);
}

#[test]
fn any_changed_byte_is_found_and_its_file_named() {
    let setup = setup();
    let path = setup.write(1, 2);
    for file in ["shard-1-of-2.safetensors", "shard-2-of-2.safetensors"] {
        let file_path = path.join(file);
        let whole = fs::read(&file_path).unwrap();
        let places = [0, 7, 8, 20, whole.len() / 2, whole.len() - 1];
        for place in places.into_iter().chain((0..whole.len()).step_by(1999)) {
            let mut damaged = whole.clone();
            damaged[place] ^= 1 << (place % 8);
            fs::write(&file_path, &damaged).unwrap();
            for result in [
                checkpoint::verify(&path).map(drop),
                checkpoint::load(&path).map(drop),
            ] {
                let Err(TrainerError::Corrupt { path: at, corruption }) = result else {
                    panic!("{file} {place}")
                };
                let Corruption::Digest {
                    file: named,
                    found,
                    expected,
                } = corruption
                else {
                    panic!("{corruption}")
                };
                assert_eq!((at, named.as_str()), (path.clone(), file));
                assert_eq!(found, blake3::hash(&damaged).to_hex().as_str());
                assert_eq!(expected, blake3::hash(&whole).to_hex().as_str());
            }
        }
        fs::write(&file_path, &whole).unwrap();
    }
    checkpoint::verify(&path).unwrap();
}

fn damage(path: &Path, how: &str) {
    let shard = path.join("shard-1-of-1.safetensors");
    let manifest = path.join("manifest.json");
    let edit = |from: &str, to: &str| {
        let text = fs::read_to_string(&manifest).unwrap();
        assert!(text.contains(from));
        fs::write(&manifest, text.replacen(from, to, 1)).unwrap();
    };
    match how {
        "truncated shard" => {
            let whole = fs::read(&shard).unwrap();
            fs::write(&shard, &whole[..whole.len() - 4]).unwrap();
        }
        "longer shard" => {
            let mut whole = fs::read(&shard).unwrap();
            whole.push(0);
            fs::write(&shard, &whole).unwrap();
        }
        "missing shard" => fs::remove_file(&shard).unwrap(),
        "missing manifest" => fs::remove_file(&manifest).unwrap(),
        "truncated manifest" => {
            let whole = fs::read(&manifest).unwrap();
            fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
        }
        "empty manifest" => fs::write(&manifest, "").unwrap(),
        "edited cursor" => edit("\"cursor\": 16", "\"cursor\": 17"),
        "edited seed" => edit("\"seed\": 7", "\"seed\": 8"),
        "foreign version" => edit("\"version\": 1", "\"version\": 2"),
        "file in place of folder" => {
            fs::remove_dir_all(path).unwrap();
            fs::write(path, "x").unwrap();
        }
        _ => panic!("{how}"),
    }
}

#[test]
fn every_damage_is_told_apart() {
    for (how, expected) in [
        ("truncated shard", "shard-1-of-1.safetensors has"),
        ("longer shard", "shard-1-of-1.safetensors has"),
        ("missing shard", "shard-1-of-1.safetensors is missing"),
        ("missing manifest", "manifest.json is missing"),
        ("truncated manifest", "manifest.json cannot be read"),
        ("empty manifest", "manifest.json cannot be read"),
        ("edited cursor", "manifest.json has digest"),
        ("edited seed", "manifest.json has digest"),
        ("foreign version", "format version 2, this build reads 1"),
        ("file in place of folder", "read "),
    ] {
        let setup = setup();
        let path = setup.write(1, 1);
        damage(&path, how);
        let found = [
            checkpoint::verify(&path).unwrap_err(),
            checkpoint::load(&path).unwrap_err(),
        ];
        for error in found {
            assert!(error.to_string().contains(expected), "{how}: {error}");
        }
    }
}

#[test]
fn the_newest_valid_one_is_found_behind_bad_ones_and_leftovers() {
    let setup = setup();
    let dir = setup.dir.path();
    assert!(matches!(checkpoint::newest_valid(dir), Ok((None, skipped)) if skipped.is_empty()));
    assert!(matches!(checkpoint::newest_valid(&dir.join("none")), Ok((None, skipped)) if skipped.is_empty()));
    for step in [2, 9, 10, 100_000_000] {
        setup.write(step, 1);
    }
    damage(&dir.join("step-00000010"), "truncated shard");
    damage(&dir.join("step-100000000"), "missing manifest");
    let leftover = dir.join(".tmp-step-00000011-epoch-0");
    fs::create_dir(&leftover).unwrap();
    fs::write(leftover.join("manifest.json"), "{").unwrap();
    fs::write(leftover.join("shard-3-of-3.safetensors"), "half").unwrap();
    fs::create_dir(dir.join("step-x")).unwrap();
    fs::write(dir.join("notes.txt"), "").unwrap();

    let (found, skipped) = checkpoint::newest_valid(dir).unwrap();
    let found = found.unwrap();
    assert_eq!(
        (found.manifest.step, found.path),
        (Step(9), dir.join("step-00000009"))
    );
    let skipped: Vec<String> = skipped.iter().map(|s| s.reason.to_string()).collect();
    assert_eq!(skipped.len(), 2);
    assert!(
        skipped[0].contains("manifest.json is missing") && skipped[1].contains("bytes"),
        "{skipped:?}"
    );
    let steps: Vec<u64> = checkpoint::list(dir)
        .unwrap()
        .iter()
        .map(|(step, _)| step.0)
        .collect();
    assert_eq!(steps, [2, 9, 10, 100_000_000]);

    // The next writer clears what a dead one left, and touches nothing else.
    let path = setup.write(11, 1);
    assert_eq!(fs::read_dir(path).unwrap().count(), 2);
    assert!(!setup.names().iter().any(|name| name.starts_with(".tmp")));
    assert!(dir.join("notes.txt").exists() && dir.join("step-x").exists());
}

#[test]
fn pruning_keeps_the_newest_whole_ones() {
    let setup = setup();
    let dir = setup.dir.path();
    for step in 1..=6 {
        setup.write(step, 1);
    }
    assert_eq!(checkpoint::prune(dir, &newest(0)).unwrap(), []);
    assert_eq!(checkpoint::prune(dir, &newest(4)).unwrap(), [Step(2), Step(1)]);
    damage(&dir.join("step-00000006"), "truncated shard");
    damage(&dir.join("step-00000003"), "missing shard");
    // 6 is broken and does not count; 5 and 4 are kept; 3 goes.
    assert_eq!(checkpoint::prune(dir, &newest(2)).unwrap(), [Step(3)]);
    assert_eq!(setup.names(), ["step-00000004", "step-00000005", "step-00000006"]);
    assert_eq!(checkpoint::prune(dir, &newest(2)).unwrap(), []);
}

#[test]
fn writing_a_step_again_keeps_a_good_one_and_replaces_a_bad_one() {
    let setup = setup();
    let path = setup.write(1, 1);
    let modified = || {
        fs::metadata(path.join("manifest.json"))
            .unwrap()
            .modified()
            .unwrap()
    };
    let first = modified();
    setup.write(1, 1);
    assert_eq!(modified(), first);
    damage(&path, "truncated shard");
    setup.write(1, 1);
    checkpoint::verify(&path).unwrap();
    // The same step from another history is another checkpoint.
    let other = State {
        step: Step(1),
        weights: setup.state.second.clone(),
        ..setup.state.clone()
    };
    checkpoint::write(setup.dir.path(), &other, &setup.layout, &about(1), 2).unwrap();
    assert_eq!(bits(&checkpoint::load(&path).unwrap().state), bits(&other));
    assert_eq!(setup.names(), ["step-00000001"]);
}

#[test]
fn a_checkpoint_of_another_run_is_refused_by_name() {
    let setup = setup();
    let path = setup.write(1, 1);
    let manifest = checkpoint::load(&path).unwrap().manifest;
    manifest.check_run(&path, &setup.layout, &about(1)).unwrap();
    // Cursor and parent are not the run's identity.
    manifest.check_run(&path, &setup.layout, &about(50)).unwrap();
    let others = [
        (
            About {
                config_digest: "x".to_owned(),
                ..about(1)
            },
            "the configuration is c0ffee, this run has x",
        ),
        (
            About {
                dataset_digest: "x".to_owned(),
                ..about(1)
            },
            "the dataset is dada, this run has x",
        ),
        (About { seed: 8, ..about(1) }, "the seed is 7, this run has 8"),
    ];
    for (other, expected) in others {
        let error = manifest.check_run(&path, &setup.layout, &other).unwrap_err();
        assert!(
            matches!(error, TrainerError::Mismatch { .. }) && error.to_string().contains(expected),
            "{error}"
        );
    }
    for spec in variants().iter().skip(1) {
        let error = manifest
            .check_run(&path, trained(spec, 0).layout(), &about(1))
            .unwrap_err();
        assert!(matches!(error, TrainerError::Mismatch { .. }), "{error}");
    }
}

#[test]
fn pruning_follows_the_policy_and_never_takes_the_last_good_one() {
    let setup = setup();
    let dir = setup.dir.path();
    for (step, score) in [
        (10, Some(2.5)),
        (15, Some(2.0)),
        (20, None),
        (25, Some(2.2)),
        (30, Some(2.1)),
        (35, None),
    ] {
        let state = State {
            step: Step(step),
            ..setup.state.clone()
        };
        let about = About {
            validation_bits_per_byte: score,
            ..about(step)
        };
        checkpoint::write(dir, &state, &setup.layout, &about, 1).unwrap();
    }
    let policy = Policy {
        keep: 1,
        keep_every: 20,
        keep_best: 2,
    };
    // The newest looks whole but is not: the one before it counts as the newest.
    let shard = dir.join("step-00000035").join("shard-1-of-1.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    assert_eq!(checkpoint::prune(dir, &policy).unwrap(), [Step(25), Step(10)]);
    assert_eq!(
        setup.names(),
        ["step-00000015", "step-00000020", "step-00000030", "step-00000035"]
    );
    // When none is good, none goes.
    for step in ["step-00000015", "step-00000020", "step-00000030"] {
        damage(&dir.join(step), "truncated shard");
    }
    assert_eq!(checkpoint::prune(dir, &newest(1)).unwrap(), []);
    assert_eq!(setup.names().len(), 4);
}

#[test]
fn a_score_comes_back_to_a_millionth() {
    let setup = setup();
    for (step, (given, kept)) in [
        (Some(2.123_456_789), Some(2.123_457)),
        (Some(0.1 + 0.2), Some(0.3)),
        (Some(1.0 / 3.0), Some(0.333_333)),
        (Some(f64::NAN), None),
        (None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let state = State {
            step: Step(step as u64),
            ..setup.state.clone()
        };
        let about = About {
            validation_bits_per_byte: given,
            ..about(1)
        };
        let path = checkpoint::write(setup.dir.path(), &state, &setup.layout, &about, 1).unwrap();
        let manifest = checkpoint::verify(&path).unwrap();
        assert_eq!(manifest.about.validation_bits_per_byte, kept);
    }
}
