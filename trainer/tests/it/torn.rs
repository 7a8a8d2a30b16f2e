//! Checkpoints that several members write, and what a crash leaves of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use crate::common::{byte_spec, trained};
use lockstep_engine::ids::{Epoch, Step};
use lockstep_engine::random::Stream;
use lockstep_trainer::checkpoint::{
    self, About, Attempt, Background, Corruption, Done, Job, Piece, Policy, Report,
};
use lockstep_trainer::{Layout, State, TrainerError};

/// A model of some thousands of parameters: several chunks of the hash for each member.
struct Run {
    dir: tempfile::TempDir,
    layout: Layout,
    state: State,
}

impl Run {
    fn new() -> Self {
        let trainer = trained(&byte_spec(4, 2, false), 2);
        Self {
            dir: tempfile::tempdir().unwrap(),
            layout: trainer.layout().clone(),
            state: trainer.state().clone(),
        }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The state after `step`, another one for every step.
    fn at(&self, step: u64) -> State {
        let mut state = State {
            step: Step(step),
            ..self.state.clone()
        };
        Arc::make_mut(&mut state.weights)[0] = step as f32;
        state
    }

    fn attempt(&self, step: u64, epoch: u64) -> Attempt {
        Attempt::new(self.dir(), Step(step), Epoch(epoch))
    }

    fn shards(&self, attempt: &Attempt, count: usize) -> Vec<Report> {
        let state = self.at(attempt.step().0);
        (0..count)
            .map(|index| attempt.write(&Piece::of(&state, index, count).unwrap()).unwrap())
            .collect()
    }

    fn seal(&self, attempt: &Attempt, reports: Vec<Report>) -> Result<PathBuf, TrainerError> {
        attempt.seal(reports, &self.layout, &About::default())
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn members_write_at_once_and_one_seals() {
    let run = Run::new();
    let count = 4;
    for (step, epoch) in [(1, 3), (2, 3)] {
        let state = run.at(step);
        // Each member has a thread and an `Attempt` of its own; they meet in the folder alone.
        let mut reports: Vec<Report> = std::thread::scope(|scope| {
            let write = |index| {
                let (run, state) = (&run, &state);
                scope.spawn(move || {
                    let piece = Piece::of(state, index, count).unwrap();
                    run.attempt(step, epoch).write(&piece).unwrap()
                })
            };
            let members: Vec<_> = (0..count).map(write).collect();
            members.into_iter().map(|member| member.join().unwrap()).collect()
        });
        assert!(matches!(checkpoint::newest_valid(run.dir()), Ok((found, skipped))
            if found.as_ref().is_none_or(|found| found.manifest.step < Step(step)) && skipped.is_empty()));
        reports.rotate_left(step as usize);
        let path = run.seal(&run.attempt(step, epoch), reports).unwrap();
        let loaded = checkpoint::load(&path).unwrap();
        assert_eq!(loaded.state, state);
        assert_eq!(loaded.manifest.weights_digest, state.weights_digest());
        assert_eq!(loaded.manifest.shards.len(), count);
        // The same as one process writes.
        let alone = tempfile::tempdir().unwrap();
        let other = checkpoint::write(alone.path(), &state, &run.layout, &About::default(), count).unwrap();
        assert_eq!(checkpoint::verify(&other).unwrap(), loaded.manifest);
    }
    assert_eq!(run.names(), ["step-00000001", "step-00000002"]);
}

#[test]
fn what_is_not_whole_is_not_sealed() {
    let run = Run::new();
    run.seal(&run.attempt(1, 1), run.shards(&run.attempt(1, 1), 2))
        .unwrap();
    let attempt = run.attempt(2, 1);
    let reports = run.shards(&attempt, 3);
    let refused = |reports: Vec<Report>, expected: &str| {
        let error = run.seal(&attempt, reports).unwrap_err();
        assert!(
            matches!(error, TrainerError::Corrupt { .. } | TrainerError::Length { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(expected), "{expected}: {error}");
        assert_eq!(run.names(), [".tmp-step-00000002-epoch-1", "step-00000001"]);
    };
    let elements = run.layout.len();
    for gone in 0..3 {
        let mut some = reports.clone();
        some.remove(gone);
        refused(some, if gone == 2 { "of" } else { "expected a range from" });
    }
    refused(Vec::new(), &format!("the shards hold 0 of {elements} elements"));
    let mut twice = reports.clone();
    twice.push(reports[1].clone());
    refused(twice, "expected a range from");
    let mut foreign = reports.clone();
    foreign[1].elements += 1;
    refused(foreign, "a shard's state holds");
    let mut outside = reports.clone();
    outside[1].shard.file = "../step-00000001/manifest.json".to_owned();
    refused(outside, "is not a shard's name");
    let mut odd = reports.clone();
    odd[1].subtrees.pop();
    refused(odd, "its digests do not fit its range");
    let file = attempt.folder().join(&reports[1].shard.file);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..100]).unwrap();
    refused(reports.clone(), "shard-2-of-3.safetensors has 100 bytes");
    fs::remove_file(&file).unwrap();
    refused(reports.clone(), "shard-2-of-3.safetensors is missing");
    fs::write(&file, &whole).unwrap();
    run.seal(&attempt, reports).unwrap();
    checkpoint::load(&run.dir().join("step-00000002")).unwrap();
}

#[test]
fn sealing_again_or_with_other_members_changes_nothing() {
    let run = Run::new();
    let attempt = run.attempt(1, 1);
    let reports = run.shards(&attempt, 2);
    let path = run.seal(&attempt, reports.clone()).unwrap();
    let manifest = fs::read(path.join("manifest.json")).unwrap();
    // The coordinator did not hear of it and asks again; then another epoch of three does it all over.
    run.seal(&attempt, reports).unwrap();
    let other = run.attempt(1, 2);
    run.seal(&other, run.shards(&other, 3)).unwrap();
    assert_eq!(fs::read(path.join("manifest.json")).unwrap(), manifest);
    assert_eq!(run.names(), ["step-00000001"]);
    // Of a damaged one, nothing stays.
    let shard = path.join("shard-1-of-2.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&shard, bytes).unwrap();
    let third = run.attempt(1, 3);
    run.seal(&third, run.shards(&third, 3)).unwrap();
    assert_eq!(checkpoint::verify(&path).unwrap().shards.len(), 3);
    assert_eq!(run.names(), ["step-00000001"]);
}

#[test]
fn many_that_seal_the_same_at_once_make_one_checkpoint() {
    let run = Run::new();
    for round in 1..=60 {
        let attempt = run.attempt(round, 1);
        let reports = run.shards(&attempt, 2);
        let sealed: Vec<_> = std::thread::scope(|scope| {
            let seal = |_| scope.spawn(|| run.seal(&attempt, reports.clone()));
            let members: Vec<_> = (0..3).map(seal).collect();
            members.into_iter().map(|member| member.join().unwrap()).collect()
        });
        assert!(sealed.iter().any(Result::is_ok), "{sealed:?}");
        let path = checkpoint::folder(run.dir(), Step(round));
        assert_eq!(
            checkpoint::load(&path).unwrap().state,
            run.at(round),
            "{sealed:?}"
        );
    }
}

/// What a crash, or a disk that forgets what was not synced, can leave of the try at step 3.
const STAGES: &[&str] = &[
    "the folder is made",
    "half a shard",
    "one shard of two",
    "all shards",
    "half a manifest",
    "the manifest, not renamed",
    "the old one moved aside",
    "renamed",
];

fn crash(run: &Run, stage: &str) {
    let attempt = run.attempt(3, 5);
    let folder = attempt.folder();
    if stage == "the folder is made" {
        return fs::create_dir(&folder).unwrap();
    }
    let reports = run.shards(&attempt, 2);
    let cut = |file: &Path| {
        let bytes = fs::read(file).unwrap();
        fs::write(file, &bytes[..bytes.len() / 2]).unwrap();
    };
    match stage {
        "half a shard" => {
            fs::remove_file(folder.join(&reports[1].shard.file)).unwrap();
            cut(&folder.join(&reports[0].shard.file));
        }
        "one shard of two" => fs::remove_file(folder.join(&reports[0].shard.file)).unwrap(),
        "all shards" => {}
        _ => {
            let path = run.seal(&attempt, reports).unwrap();
            match stage {
                "half a manifest" => {
                    fs::rename(&path, &folder).unwrap();
                    cut(&folder.join("manifest.json"));
                }
                "the manifest, not renamed" => fs::rename(&path, &folder).unwrap(),
                "the old one moved aside" => {
                    fs::rename(&path, run.dir().join(".tmp-step-00000003-replaced")).unwrap();
                }
                "renamed" => {}
                _ => panic!("{stage}"),
            }
        }
    }
}

#[test]
fn a_crash_at_any_stage_leaves_the_others_and_is_cleared_later() {
    for stage in STAGES {
        let run = Run::new();
        for step in [1, 2] {
            checkpoint::write(run.dir(), &run.at(step), &run.layout, &About::default(), 1).unwrap();
        }
        crash(&run, stage);
        let (found, skipped) = checkpoint::newest_valid(run.dir()).unwrap();
        let newest = if *stage == "renamed" { 3 } else { 2 };
        assert_eq!(found.unwrap().manifest.step, Step(newest), "{stage}");
        assert!(skipped.is_empty(), "{stage}: {skipped:?}");
        for step in 1..=newest {
            let path = checkpoint::folder(run.dir(), Step(step));
            assert_eq!(checkpoint::load(&path).unwrap().state, run.at(step), "{stage}");
        }
        // An older try, or pruning, does not touch one that may still be under way.
        let before = run.names();
        checkpoint::prune(run.dir(), &Policy::default()).unwrap();
        let under_way = |name: &&String| name.contains("epoch");
        assert!(
            before
                .iter()
                .filter(under_way)
                .eq(run.names().iter().filter(under_way)),
            "{stage}"
        );
        // The next epoch, of three, does it again, and clears what was left.
        let attempt = run.attempt(3, 6);
        let reports = run.shards(&attempt, 3);
        let path = run.seal(&attempt, reports).unwrap();
        assert_eq!(checkpoint::load(&path).unwrap().state, run.at(3), "{stage}");
        assert_eq!(
            run.names(),
            ["step-00000001", "step-00000002", "step-00000003"],
            "{stage}"
        );
    }
}

#[test]
fn a_checkpoint_torn_in_any_file_is_skipped_and_named() {
    let run = Run::new();
    for step in 1..=3 {
        checkpoint::write(run.dir(), &run.at(step), &run.layout, &About::default(), 2).unwrap();
    }
    let path = checkpoint::folder(run.dir(), Step(3));
    let files = [
        "shard-1-of-2.safetensors",
        "shard-2-of-2.safetensors",
        "manifest.json",
    ];
    for file in files {
        let at = path.join(file);
        let whole = fs::read(&at).unwrap();
        let altered = |change: fn(&mut Vec<u8>)| {
            let mut bytes = whole.clone();
            change(&mut bytes);
            Some(bytes)
        };
        for damaged in [
            None,
            Some(Vec::new()),
            altered(|bytes| bytes.truncate(1)),
            altered(|bytes| bytes.truncate(bytes.len() / 2)),
            altered(|bytes| bytes.truncate(bytes.len() - 3)),
            altered(|bytes| bytes.push(b'x')),
            altered(|bytes| bytes[0] ^= 1),
            altered(|bytes| {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
            }),
            altered(|bytes| bytes.fill(0)),
        ] {
            match &damaged {
                None => fs::remove_file(&at).unwrap(),
                Some(bytes) => fs::write(&at, bytes).unwrap(),
            }
            let (found, skipped) = checkpoint::newest_valid(run.dir()).unwrap();
            let shown = damaged.map(|bytes| bytes.len());
            assert_eq!(found.unwrap().manifest.step, Step(2), "{file} {shown:?}");
            assert_eq!((skipped.len(), &skipped[0].path), (1, &path), "{file} {shown:?}");
            let words = skipped[0].reason.to_string();
            assert!(words.contains("step-00000003") && words.contains(file), "{words}");
            for step in [1, 2] {
                let path = checkpoint::folder(run.dir(), Step(step));
                assert_eq!(checkpoint::load(&path).unwrap().state, run.at(step));
            }
            fs::write(&at, &whole).unwrap();
        }
    }
    checkpoint::load(&path).unwrap();
}

#[test]
fn the_background_makes_checkpoints_while_training_goes_on() {
    let run = Run::new();
    let (done, results) = mpsc::channel();
    let background = Background::start("checkpoints", move |outcome| {
        let _ = done.send(outcome);
    })
    .unwrap();
    let layout = std::sync::Arc::new(run.layout.clone());
    let mut state = run.at(1);
    for step in 1..=3 {
        state.step = Step(step);
        let expected = state.clone();
        let attempt = run.attempt(step, 9);
        background
            .submit(Job::Write {
                attempt: attempt.clone(),
                piece: Piece::of(&state, 0, 1).unwrap(),
            })
            .unwrap();
        // Training goes on at once; the piece shares the state, and whoever changes that changes a copy.
        Arc::make_mut(&mut state.weights)
            .iter_mut()
            .for_each(|weight| *weight += 1.0);
        let Done::Wrote { result, .. } = results.recv().unwrap() else {
            panic!("another job's outcome")
        };
        background
            .submit(Job::Seal {
                attempt,
                reports: vec![result.unwrap()],
                layout: layout.clone(),
                about: About::default(),
            })
            .unwrap();
        let Done::Sealed { result, .. } = results.recv().unwrap() else {
            panic!("another job's outcome")
        };
        assert_eq!(checkpoint::load(&result.unwrap()).unwrap().state, expected);
    }
    let policy = Policy {
        keep: 1,
        ..Policy::default()
    };
    let target = tempfile::tempdir().unwrap();
    for job in [
        Job::Mirror {
            dir: run.dir().to_owned(),
            target: format!("file://{}", target.path().display()).parse().unwrap(),
            policy: Policy::default(),
        },
        Job::Prune {
            dir: run.dir().to_owned(),
            policy,
        },
    ] {
        background.submit(job).unwrap();
    }
    drop(background);
    let rest: Vec<Done> = results.iter().collect();
    let [
        Done::Mirrored { result: Ok(mirrored) },
        Done::Pruned { result: Ok(pruned) },
    ] = &rest[..]
    else {
        panic!("{rest:?}")
    };
    assert_eq!(mirrored.copied, [Step(3), Step(2), Step(1)]);
    assert_eq!(pruned, &[Step(2), Step(1)]);
    assert_eq!(checkpoint::list(target.path()).unwrap().len(), 3);
    assert_eq!(run.names(), ["step-00000003"]);
}

const VICTIM: &str = "LOCKSTEP_TEST_CHECKPOINTS_INTO";

/// The process that the next test kills: the same test binary, told by a variable to do nothing but write
/// checkpoints and say so.
fn write_for_ever(dir: &Path) {
    let run = Run::new();
    let mut out = std::io::stdout();
    let say = |out: &mut std::io::Stdout, text: String| {
        // Whoever reads may be gone already.
        let _ = writeln!(out, "{text}").and_then(|()| out.flush());
    };
    let first = checkpoint::list(dir)
        .unwrap()
        .last()
        .map_or(1, |(step, _)| step.0 + 1);
    for step in first.. {
        let attempt = Attempt::new(dir, Step(step), Epoch(1));
        let reports = run.shards(&attempt, 3);
        say(&mut out, "\nwritten".to_owned());
        attempt.seal(reports, &run.layout, &About::default()).unwrap();
        say(&mut out, format!("\nsealed {step}"));
        let policy = Policy {
            keep: 2,
            ..Policy::default()
        };
        checkpoint::prune(dir, &policy).unwrap();
        say(&mut out, "\npruned".to_owned());
    }
}

#[test]
fn a_kill_at_any_instant_leaves_whole_checkpoints() {
    if let Some(dir) = std::env::var_os(VICTIM) {
        return write_for_ever(Path::new(&dir));
    }
    let seed = u64::from(std::process::id());
    eprintln!("seed {seed}");
    let random = Stream::new(seed, 0);
    let run = Run::new();
    let mut last = 0;
    for round in 0..25 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "torn::a_kill_at_any_instant_leaves_whole_checkpoints",
                "--nocapture",
            ])
            .env(VICTIM, run.dir())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Some lines later, and then some instructions: no two rounds are killed at the same place.
        let mut lines = BufReader::new(victim.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let wanted = 1 + (random.uniform(2 * round) * 9.0) as usize;
        let mut sealed = |line: &String| {
            if let Some(step) = line.strip_prefix("sealed ") {
                last = step.parse().unwrap();
            }
        };
        let said =
            |line: &String| ["written", "pruned"].contains(&line.as_str()) || line.starts_with("sealed ");
        lines
            .by_ref()
            .filter(said)
            .take(wanted)
            .for_each(|line| sealed(&line));
        for _ in 0..(random.uniform(2 * round + 1) * 3e6) as u64 {
            std::hint::spin_loop();
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        lines.for_each(|line| sealed(&line));

        let (found, skipped) = checkpoint::newest_valid(run.dir()).unwrap();
        assert!(skipped.is_empty(), "{skipped:?}");
        // One that was said to be sealed is there, or a newer one.
        assert!(found.map_or(0, |found| found.manifest.step.0) >= last, "{last}");
        for (step, path) in checkpoint::list(run.dir()).unwrap() {
            assert_eq!(checkpoint::load(&path).unwrap().state, run.at(step.0));
        }
    }
    assert!(last > 0);
}

/// A glance sees what is missing or cut short, and no more: that is what makes it cheap.
#[test]
fn a_glance_sees_sizes_and_not_bytes() {
    let run = Run::new();
    let attempt = run.attempt(1, 1);
    let report = attempt.write(&Piece::of(&run.at(1), 0, 1).unwrap()).unwrap();
    let path = run.seal(&attempt, vec![report]).unwrap();
    let manifest = checkpoint::verify(&path).unwrap();
    assert_eq!(checkpoint::glance(&path).unwrap(), manifest);
    let shard = path.join(&manifest.shards[0].file);
    let mut bytes = fs::read(&shard).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&shard, &bytes).unwrap();
    assert_eq!(checkpoint::glance(&path).unwrap(), manifest);
    assert!(matches!(
        checkpoint::verify(&path),
        Err(TrainerError::Corrupt { .. })
    ));
    fs::write(&shard, &bytes[1..]).unwrap();
    assert!(matches!(
        checkpoint::glance(&path),
        Err(TrainerError::Corrupt { .. })
    ));
    fs::remove_file(&shard).unwrap();
    assert!(checkpoint::glance(&path).is_err());
}

#[test]
fn a_piece_of_another_layout_is_told_apart() {
    let run = Run::new();
    let attempt = run.attempt(1, 1);
    let short = State {
        step: Step(1),
        ..State::initial(vec![0.0; 10])
    };
    let report = attempt.write(&Piece::of(&short, 0, 1).unwrap()).unwrap();
    let error = run.seal(&attempt, vec![report]).unwrap_err();
    assert!(matches!(error, TrainerError::Length { found: 10, .. }), "{error}");
    let report = attempt.write(&Piece::of(&run.at(1), 0, 1).unwrap()).unwrap();
    let path = run.seal(&attempt, vec![report]).unwrap();
    fs::remove_file(path.join("manifest.json")).unwrap();
    assert!(matches!(
        checkpoint::verify(&path),
        Err(TrainerError::Corrupt { corruption: Corruption::Missing { file }, .. }) if file == "manifest.json"
    ));
}
