//! Reading a dataset: the right tokens across shards, and every kind of damage found.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use common::{Place, megatron, prose, quiet};
use lockstep_data::{DataError, Dataset, Digest, ErrorKind, Manifest};
use proptest::prelude::*;

/// A dataset of many small shards, and the tokens of its training split by another reader.
static SHARDED: LazyLock<(Dataset, Vec<u32>)> = LazyLock::new(|| {
    let place = Place::with_prose(60);
    let mut options = place.options("data");
    options.shard_bytes = 600;
    let manifest = quiet(&options).unwrap().manifest;
    assert!(manifest.train.shards.len() > 20);
    let shards = (0..manifest.train.shards.len()).map(|i| options.out.join(format!("shard-{i:05}")));
    let stream = shards
        .flat_map(|prefix| megatron::documents(&prefix).concat())
        .collect();
    let dataset = Dataset::open(&options.out).unwrap();
    // The folder goes, as statics are never dropped; what is open stays readable.
    (dataset, stream)
});

proptest! {
    #[test]
    fn any_window_is_that_of_the_plain_stream(start in 0usize..30_000, len in 0usize..3_000) {
        let (dataset, stream) = &*SHARDED;
        let start = start % stream.len();
        let len = len.min(stream.len() - start);
        let mut out = vec![u32::MAX; len];
        dataset.train().read_at(start as u64, &mut out).unwrap();
        prop_assert_eq!(&out, &stream[start..start + len]);
    }

    #[test]
    fn samples_tile_the_stream_and_share_one_token(sequence_length in 1usize..500) {
        let (dataset, stream) = &*SHARDED;
        let samples = dataset.train().samples(sequence_length);
        let mut out = vec![0; sequence_length + 1];
        for sample in [0, samples / 2, samples - 1] {
            dataset.train().read(sample, &mut out).unwrap();
            let start = sample as usize * sequence_length;
            prop_assert_eq!(&out, &stream[start..=start + sequence_length]);
        }
        // The last one ends where not even one more would fit.
        prop_assert!(stream.len() - 1 - (samples as usize * sequence_length) < sequence_length);
        let error = dataset.train().read(samples, &mut out).unwrap_err();
        prop_assert!(matches!(error, DataError::OutOfRange { split: "train", .. }), "{}", error);
    }
}

#[test]
fn the_whole_stream_is_read() {
    let (dataset, stream) = &*SHARDED;
    assert_eq!(&dataset.train().read_all().unwrap(), stream);
    assert_eq!(dataset.train().tokens(), stream.len() as u64);
    let held_out = dataset.validation();
    assert_eq!(held_out.read_all().unwrap().len() as u64, held_out.tokens());
    assert_eq!(held_out.bytes(), dataset.manifest().validation.bytes);
    let mut out = [0; 2];
    assert!(dataset.train().read_at(u64::MAX, &mut out).is_err());
    assert!(dataset.train().read(u64::MAX, &mut out).is_err());
}

#[test]
fn a_corpus_smaller_than_one_batch_is_named_with_both_sizes() {
    let (dataset, stream) = &*SHARDED;
    let train = dataset.train();
    let all = (stream.len() as u64 - 1) / 64;
    assert_eq!(train.require(all, 64).unwrap(), all);
    let error = train.require(all + 1, 64).unwrap_err();
    let needed = (all + 1) * 64 + 1;
    assert!(
        error.to_string().contains(&format!(
            "holds {} tokens, one batch needs {needed}",
            stream.len()
        )),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Input);
}

#[test]
fn the_tokenizer_reads_what_it_wrote() {
    let (place, folder) = fresh();
    let tokenizer = Dataset::open(&folder).unwrap().tokenizer().unwrap();
    assert_eq!(tokenizer.vocab_size(), 300);
    let mut tokens = Vec::new();
    for i in [0u64, 13] {
        let text = prose(i, 300 + i as usize * 37 % 900);
        assert_eq!(
            text,
            fs::read_to_string(place.corpus().join(format!("part-{}/{i:04}.txt", i % 7))).unwrap()
        );
        tokens.extend(tokenizer.encode(&text).unwrap());
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap()).unwrap(), text);
    }
    assert!(tokens.len() > 100);
}

/// A fresh small dataset.
fn fresh() -> (Place, std::path::PathBuf) {
    let place = Place::with_prose(20);
    let options = place.options("data");
    quiet(&options).unwrap();
    (place, options.out)
}

fn error_of(folder: &Path) -> DataError {
    Dataset::open(folder)
        .and_then(|dataset| dataset.verify())
        .unwrap_err()
}

#[test]
fn a_flipped_bit_is_found_in_whichever_file_it_is() {
    let (_place, folder) = fresh();
    let dataset = Dataset::open(&folder).unwrap();
    dataset.verify().unwrap();
    let files: Vec<String> = dataset.manifest().files.keys().cloned().collect();
    assert_eq!(files.len(), 6, "{files:?}");
    for name in files {
        let path = folder.join(&name);
        let good = fs::read(&path).unwrap();
        let mut bad = good.clone();
        *bad.last_mut().unwrap() ^= 0x10;
        fs::write(&path, &bad).unwrap();
        let error = error_of(&folder);
        let DataError::Corrupt {
            path: named,
            expected,
            found,
        } = &error
        else {
            panic!("{name}: {error}")
        };
        assert_eq!(
            (named, *expected, *found),
            (&path, Digest::of(&good), Digest::of(&bad))
        );
        assert!(error.to_string().contains(&expected.to_string()), "{error}");
        assert_eq!(error.kind(), ErrorKind::Damaged);
        fs::write(&path, &good).unwrap();
    }
    dataset.verify().unwrap();
}

#[test]
fn a_short_file_is_found_on_opening() {
    let (_place, folder) = fresh();
    let path = folder.join("shard-00000.bin");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 1]).unwrap();
    let error = Dataset::open(&folder).unwrap_err();
    let expected = format!("{} bytes, expected {}", good.len() - 1, good.len());
    assert!(
        matches!(&error, DataError::Truncated { path: named, .. } if *named == path),
        "{error}"
    );
    assert!(error.to_string().contains(&expected), "{error}");
}

#[test]
fn a_file_cut_while_open_is_found_on_reading() {
    let (_place, folder) = fresh();
    let dataset = Dataset::open(&folder).unwrap();
    fs::write(folder.join("shard-00000.bin"), [1, 0, 1, 0]).unwrap();
    let mut out = [0; 2];
    dataset.train().read_at(0, &mut out).unwrap();
    assert_eq!(out, [1, 1]);
    let error = dataset.train().read_at(1, &mut out).unwrap_err();
    assert!(
        matches!(error, DataError::Truncated { found_bytes: 4, .. }),
        "{error}"
    );
    assert!(matches!(error_of(&folder), DataError::Truncated { .. }));
}

#[test]
fn a_missing_file_is_named() {
    for name in [
        "shard-00000.bin",
        "validation-00000.idx",
        "tokenizer.json",
        "documents.parquet",
    ] {
        let (_place, folder) = fresh();
        fs::remove_file(folder.join(name)).unwrap();
        let error = error_of(&folder);
        assert!(
            matches!(&error, DataError::Missing { path } if path.ends_with(name)),
            "{name}: {error}"
        );
    }
}

#[test]
fn what_is_no_dataset_is_said_to_be_none() {
    let place = Place::with_prose(1);
    for folder in [
        place.corpus(),
        place.root().join("nowhere"),
        place.corpus().join("part-0/0000.txt"),
    ] {
        let error = Dataset::open(&folder).unwrap_err();
        assert!(matches!(error, DataError::NotADataset { .. }), "{error}");
        assert!(error.to_string().contains("build one there first"), "{error}");
    }
}

/// Opens a dataset whose manifest was changed as text.
fn with_manifest(change: impl FnOnce(String) -> String) -> DataError {
    let (_place, folder) = fresh();
    let path = folder.join("dataset.json");
    let json = fs::read_to_string(&path).unwrap();
    let changed = change(json.clone());
    assert_ne!(json, changed);
    fs::write(&path, changed).unwrap();
    error_of(&folder)
}

#[test]
fn another_version_is_refused_before_anything_else() {
    let error = with_manifest(|_| r#"{"format_version": 7, "new": true}"#.to_owned());
    assert!(
        matches!(
            error,
            DataError::Version {
                found: 7,
                supported: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .contains("dataset format 7, but this program reads 1"),
        "{error}"
    );
}

#[test]
fn a_manifest_that_contradicts_itself_is_refused() {
    let malformed = |error: DataError, why: &str| {
        assert!(matches!(error, DataError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    malformed(with_manifest(|json| json[..json.len() / 2].to_owned()), "EOF");
    malformed(with_manifest(|_| "{}".to_owned()), "format_version is missing");
    malformed(
        with_manifest(|json| json.replacen("\"tokens\": ", "\"tokens\": 1", 1)),
        "sum of its shards",
    );
    malformed(
        with_manifest(|json| json.replace("documents.parquet", "../documents.parquet")),
        "path",
    );
    let swap = |json: String| {
        let mut manifest: Manifest = serde_json::from_str(&json).unwrap();
        manifest.digest = Digest::of(b"another");
        serde_json::to_string(&manifest).unwrap()
    };
    malformed(with_manifest(swap), "not that of its files");
    let widen = |json: String| json.replace("\"u16\"", "\"i32\"");
    malformed(with_manifest(widen), "another size");
}

#[test]
fn an_index_that_contradicts_the_manifest_is_refused() {
    let (_place, folder) = fresh();
    let path = folder.join("shard-00000.idx");
    let mut idx = fs::read(&path).unwrap();
    idx[17] = 4;
    fs::write(&path, idx).unwrap();
    let error = Dataset::open(&folder).unwrap_err();
    assert!(
        matches!(&error, DataError::Malformed { path: named, .. } if *named == path),
        "{error}"
    );
}
