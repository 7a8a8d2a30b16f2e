//! What a build says when it cannot be done, and that it leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Place, prose, quiet};
use lockstep_data::skip::SkipReason;
use lockstep_data::{BuildOptions, Corpus, DataError, ErrorKind};

/// The error of a build, after which nothing must be left.
fn failure(place: &Place, options: &BuildOptions) -> DataError {
    let error = quiet(options).unwrap_err();
    assert_eq!(place.entries(), [""; 0], "{error}");
    error
}

#[test]
fn a_corpus_must_be_a_folder_that_is_there() {
    let place = Place::with_prose(1);
    let mut options = place.options("data");
    options.corpus = Corpus::Folder(place.root().join("nowhere"));
    let error = failure(&place, &options);
    assert!(matches!(error, DataError::CorpusMissing { .. }), "{error}");
    assert!(error.to_string().contains("no such folder"), "{error}");
    options.corpus = Corpus::Folder(place.corpus().join("part-0/0000.txt"));
    let error = failure(&place, &options);
    assert!(matches!(error, DataError::NotAFolder { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn a_corpus_without_text_says_what_it_holds_instead() {
    let place = Place::new([]);
    let error = failure(&place, &place.options("data"));
    assert!(
        error.to_string().contains("holds no text (left out: none)"),
        "{error}"
    );
    place.add("a.bin", b"\0\0");
    place.add("b.bin", b"\0\x01");
    place.add("c.txt", b"\xFF\xFE");
    let error = failure(&place, &place.options("data"));
    assert!(
        error
            .to_string()
            .contains("holds no text (left out: 2 binary, 1 not UTF-8)"),
        "{error}"
    );
    assert!(matches!(error, DataError::NoText { skipped, .. } if skipped.count(SkipReason::Binary) == 2));
}

#[test]
fn a_corpus_too_small_for_the_vocabulary_says_what_would_do() {
    let place = Place::new([("a.txt", prose(1, 200)), ("b.txt", prose(2, 200))]);
    let mut options = place.options("data");
    options.vocab_size = 4096;
    let error = failure(&place, &options);
    let DataError::CorpusTooSmall {
        vocab_size: 4096,
        reached,
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert!(
        error
            .to_string()
            .contains(&format!("lower model.vocab_size to at most {reached}")),
        "{error}"
    );
    options.vocab_size = reached;
    quiet(&options).unwrap();
}

#[test]
fn options_out_of_bounds_are_named_with_value_and_bound() {
    let place = Place::with_prose(3);
    let refused = |change: &dyn Fn(&mut BuildOptions), text: &str| {
        let mut options = place.options("data");
        change(&mut options);
        let error = failure(&place, &options);
        assert!(matches!(error, DataError::InvalidOption { .. }), "{error}");
        assert_eq!(error.to_string(), text);
    };
    refused(
        &|o| o.vocab_size = 256,
        "vocab_size = 256: must be 257 to 16777216",
    );
    for fraction in ["0", "1", "-0.1", "NaN"] {
        let text = format!("validation_fraction = {fraction}: must be above 0 and below 1");
        refused(&|o| o.validation_fraction = fraction.parse().unwrap(), &text);
    }
    refused(&|o| o.max_bytes = Some(0), "max_bytes = 0: must be at least 1");
    refused(&|o| o.shard_bytes = 0, "shard_bytes = 0: must be at least 1");
    refused(
        &|o| o.tokenizer_sample_bytes = 0,
        "tokenizer_sample_bytes = 0: must be at least 1",
    );
}

#[test]
fn a_budget_below_every_document_is_refused() {
    let place = Place::with_prose(3);
    let mut options = place.options("data");
    options.max_bytes = Some(10);
    let error = failure(&place, &options);
    assert!(
        matches!(error, DataError::BudgetTooSmall { max_bytes: 10, .. }),
        "{error}"
    );
}

/// A small disk, taken away in the end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, size: &str) -> Result<Self, String> {
        fs::create_dir(at).map_err(|error| error.to_string())?;
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(at)
            .output();
        match mount {
            Ok(output) if output.status.success() => Ok(Self(at.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "unmount {}",
            self.0.display()
        );
    }
}

#[test]
fn a_full_disk_is_said_to_be_full_and_left_clean() {
    let place = Place::with_prose(20);
    for seed in 100..103 {
        place.add(&format!("long-{seed}.txt"), prose(seed, 400_000).as_bytes());
    }
    let mount_point = place.root().join("disk");
    let disk = match SmallDisk::mount(&mount_point, "384k") {
        Ok(disk) => disk,
        Err(problem) => {
            println!(
                "not tested on a full disk: no tmpfs can be mounted here ({})",
                problem.trim()
            );
            return;
        }
    };
    let error = quiet(&place.options("disk/data")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Storage, "{error}");
    let DataError::StorageFull {
        needed_bytes: Some(needed),
        ..
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!(fs::read_dir(&mount_point).unwrap().count(), 0, "nothing is left");

    // The estimate is near what it takes where there is room.
    let manifest = quiet(&place.options("data")).unwrap().manifest;
    let takes: u64 = manifest.files.values().map(|file| file.bytes).sum();
    assert!(
        (takes * 7 / 10..takes * 13 / 10).contains(&needed),
        "{needed} of {takes}"
    );
    drop(disk);

    // Too small even for the tokenizer: the size is not known yet.
    fs::remove_dir(&mount_point).unwrap();
    let _disk = SmallDisk::mount(&mount_point, "4k").unwrap();
    let error = quiet(&place.options("disk/data")).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::StorageFull {
                needed_bytes: None,
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(fs::read_dir(&mount_point).unwrap().count(), 0, "nothing is left");
}

/// Not a test by itself: what [`access_denied_is_told_apart`] runs as a user without privileges.
#[test]
fn build_as_somebody_else() {
    let Some(root) = std::env::var_os("LOCKSTEP_TEST_BUILD_IN") else {
        return;
    };
    let root = PathBuf::from(root);
    let build = |corpus: &str, out: &str| {
        quiet(&BuildOptions::new(
            Corpus::Folder(root.join(corpus)),
            root.join(out),
            300,
        ))
    };
    let denied = |corpus: &str, out: &str, action: &str| {
        let error = build(corpus, out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(error.to_string().starts_with(action), "{error}");
    };
    denied("corpus/closed", "open/data", "read corpus");
    denied("corpus", "data", "create folder");
    let skipped = build("corpus", "open/data").unwrap().manifest.skipped;
    assert_eq!(skipped.iter().collect::<Vec<_>>(), [(SkipReason::Unreadable, 2)]);
}

#[test]
fn access_denied_is_told_apart() {
    let place = Place::with_prose(20);
    place.add("closed/a.txt", b"text");
    place.add("closed.txt", b"text");
    fs::create_dir(place.root().join("open")).unwrap();
    // A copy: the folder of the test's own program may be closed to others.
    let program = place.root().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mode = |path: &str, mode| {
        fs::set_permissions(place.root().join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    let root = fs::metadata(place.root()).unwrap();
    for (path, bits) in [
        ("", 0o555),
        ("open", 0o777),
        ("program", 0o755),
        ("corpus/closed", 0),
        ("corpus/closed.txt", 0),
    ] {
        mode(path, bits);
    }
    let mut command = Command::new(&program);
    command
        .args(["--exact", "build_as_somebody_else"])
        .env("LOCKSTEP_TEST_BUILD_IN", place.root());
    if fs::read_dir(place.corpus().join("closed")).is_ok() {
        // Permissions do not bind root: be somebody whom they bind.
        command.uid(65_534);
    }
    let output = command.output().unwrap();
    mode("", root.permissions().mode());
    mode("corpus/closed", 0o755);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
}
