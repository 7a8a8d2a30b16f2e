//! How a build behaves: the same bytes every time, whole or not at all, never over somebody's data.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Place, contents, prose, quiet};
use lockstep_data::{BuildOptions, Corpus, DataError, Dataset, ErrorKind, Progress, Stage, build};

#[test]
fn the_same_text_gives_the_same_bytes() {
    let forward = Place::with_prose(150);
    let backward = Place::new([]);
    for i in (0..150).rev() {
        backward.add(
            &format!("part-{}/{i:04}.txt", i % 7),
            prose(i, 300 + i as usize * 37 % 900).as_bytes(),
        );
    }
    let build_with = |place: &Place, threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut options = place.options(&format!("data-{threads}"));
        options.vocab_size = 600;
        options.shard_bytes = 10_000;
        pool.install(|| quiet(&options)).unwrap();
        contents(&options.out)
    };
    let first = build_with(&forward, 1);
    assert!(first.len() > 8, "{:?}", first.keys());
    assert_eq!(build_with(&backward, 1), first);
    for threads in [2, 3, 8] {
        assert_eq!(build_with(&backward, threads), first, "{threads} threads");
    }
}

#[test]
fn progress_runs_from_nothing_to_all_in_each_stage() {
    let place = Place::with_prose(300);
    let mut seen: Vec<Progress> = Vec::new();
    build(
        &place.options("data"),
        &mut |progress| seen.push(progress),
        &AtomicBool::new(false),
    )
    .unwrap();
    for stage in [Stage::Read, Stage::Tokenizer, Stage::Tokenize] {
        let of_stage: Vec<_> = seen.iter().filter(|progress| progress.stage == stage).collect();
        let (first, last) = (of_stage[0], of_stage[of_stage.len() - 1]);
        assert_eq!(
            (first.done_bytes, last.done_bytes),
            (0, last.total_bytes),
            "{stage}"
        );
        assert!(
            of_stage
                .windows(2)
                .all(|pair| pair[0].done_bytes < pair[1].done_bytes),
            "{stage}"
        );
        assert!(last.total_bytes > 0, "{stage}");
    }
    assert!(seen.windows(2).all(|pair| pair[0].stage <= pair[1].stage));
}

#[test]
fn an_interrupted_build_leaves_nothing() {
    let place = Place::with_prose(300);
    for stage in [Stage::Read, Stage::Tokenizer, Stage::Tokenize] {
        for at_end in [false, true] {
            let cancelled = AtomicBool::new(false);
            let mut report = |progress: Progress| {
                if progress.stage == stage && (progress.done_bytes == progress.total_bytes) == at_end {
                    cancelled.store(true, Ordering::Relaxed);
                }
            };
            let error = build(&place.options("data"), &mut report, &cancelled).unwrap_err();
            assert!(matches!(error, DataError::Interrupted), "{stage}: {error}");
            assert_eq!(error.kind(), ErrorKind::Interrupted);
            assert_eq!(place.entries(), [""; 0], "{stage}");
        }
    }
    assert!(!quiet(&place.options("data")).unwrap().reused);
}

/// Not a test by itself: the process that dies in [`a_build_that_died_is_cleared_away`].
#[test]
fn die_while_tokenizing() {
    let Some(root) = std::env::var_os("LOCKSTEP_TEST_DIE_IN") else {
        return;
    };
    let root = std::path::PathBuf::from(root);
    let mut options = BuildOptions::new(Corpus::Folder(root.join("corpus")), root.join("data"), 300);
    options.validation_fraction = 0.1;
    let mut report = |progress: Progress| {
        if progress.stage == Stage::Tokenize && progress.done_bytes > 0 {
            std::process::abort();
        }
    };
    build(&options, &mut report, &AtomicBool::new(false)).unwrap();
}

#[test]
fn a_build_that_died_is_cleared_away() {
    let place = Place::with_prose(40);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "die_while_tokenizing"])
        .env("LOCKSTEP_TEST_DIE_IN", place.root())
        .output()
        .unwrap()
        .status;
    assert!(!status.success());
    assert_eq!(place.entries(), [".data.building"]);
    assert!(place.root().join(".data.building/shard-00000.bin").exists());
    quiet(&place.options("data")).unwrap();
    assert_eq!(place.entries(), ["data"]);
    Dataset::open(&place.root().join("data"))
        .unwrap()
        .verify()
        .unwrap();
    assert!(
        contents(&place.root().join("data"))
            .keys()
            .all(|name| !name.starts_with('.'))
    );
}

#[test]
fn the_same_build_again_reuses_what_is_there() {
    let place = Place::with_prose(40);
    let options = place.options("data");
    let first = quiet(&options).unwrap();
    let before = contents(&options.out);
    let again = quiet(&options).unwrap();
    assert!(!first.reused && again.reused);
    assert_eq!(first.manifest, again.manifest);
    assert_eq!(contents(&options.out), before);
    assert_eq!(place.entries(), ["data"]);
}

#[test]
fn a_dataset_inside_its_corpus_is_not_part_of_it() {
    let place = Place::with_prose(40);
    let options = place.options("corpus/built/data");
    let first = quiet(&options).unwrap();
    assert!(quiet(&options).unwrap().reused);
    assert_eq!(first.manifest.corpus.documents, 40);
}

#[test]
fn what_stands_in_the_way_is_never_touched() {
    let place = Place::with_prose(40);
    let refused = |options: &BuildOptions, why: &str| {
        let before = fs::metadata(&options.out)
            .unwrap()
            .is_dir()
            .then(|| contents(&options.out));
        let error = quiet(options).unwrap_err();
        assert!(matches!(&error, DataError::Occupied { .. }), "{error}");
        assert_eq!(error.kind(), ErrorKind::Output);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(
            fs::metadata(&options.out)
                .unwrap()
                .is_dir()
                .then(|| contents(&options.out)),
            before
        );
    };
    let options = place.options("data");
    fs::write(&options.out, "a file").unwrap();
    refused(&options, "is a file");
    fs::remove_file(&options.out).unwrap();

    fs::create_dir(&options.out).unwrap();
    fs::write(options.out.join("thesis.txt"), "precious").unwrap();
    refused(&options, "no dataset");
    fs::remove_file(options.out.join("thesis.txt")).unwrap();

    quiet(&options).unwrap();
    let mut other = options.clone();
    (other.vocab_size, other.max_bytes) = (301, Some(1_000_000));
    refused(
        &other,
        "vocab_size = 300 where 301 is wanted, max_bytes = none where 1000000 is wanted",
    );
    other = options.clone();
    other.validation_fraction = 0.2;
    refused(&other, "validation_fraction");

    place.add("more.txt", b"something new");
    refused(&options, "other text");
    fs::remove_file(place.corpus().join("more.txt")).unwrap();
    assert!(quiet(&options).unwrap().reused);

    fs::write(options.out.join("shard-00000.bin"), "short").unwrap();
    refused(&options, "cannot be used");
    assert_eq!(place.entries(), ["data"]);
}

#[test]
fn a_symbolic_link_to_an_empty_folder_is_followed() {
    let place = Place::with_prose(40);
    fs::create_dir(place.root().join("disk")).unwrap();
    std::os::unix::fs::symlink("disk", place.root().join("data")).unwrap();
    quiet(&place.options("data")).unwrap();
    assert!(place.root().join("data").is_symlink());
    assert!(place.root().join("disk/dataset.json").is_file());
    assert!(quiet(&place.options("data")).unwrap().reused);
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let place = Place::with_prose(40);
    let file = place.corpus().join("part-0/0007.txt");
    let changes: [&dyn Fn(); 2] = [&|| fs::write(&file, "other").unwrap(), &|| {
        fs::remove_file(&file).unwrap()
    }];
    for change in changes {
        let mut report = |progress: Progress| {
            if progress.stage == Stage::Tokenize && progress.done_bytes == 0 {
                change();
            }
        };
        let error = build(&place.options("data"), &mut report, &AtomicBool::new(false)).unwrap_err();
        assert!(
            matches!(&error, DataError::CorpusChanged { path } if path.ends_with("part-0/0007.txt")),
            "{error}"
        );
        assert_eq!(place.entries(), [""; 0]);
    }
}
