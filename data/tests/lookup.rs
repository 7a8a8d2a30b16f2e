//! Documents found again: by their tokens, their samples and their names.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod common;

use std::collections::BTreeSet;
use std::fs;

use common::{Place, megatron, prose, quiet, rows};
use lockstep_data::{DataError, Dataset, DocumentRecord, Named, Part};

/// A dataset of many small shards.
fn sharded() -> (Place, Dataset) {
    let place = Place::with_prose(60);
    let mut options = place.options("data");
    options.shard_bytes = 600;
    quiet(&options).unwrap();
    let dataset = Dataset::open(&options.out).unwrap();
    assert!(dataset.manifest().train.shards.len() > 20);
    (place, dataset)
}

fn documents(dataset: &Dataset) -> Vec<DocumentRecord> {
    dataset.documents().unwrap().map(Result::unwrap).collect()
}

#[test]
fn the_tokens_of_each_document_are_where_it_says() {
    let (place, dataset) = sharded();
    let folder = place.root().join("data");
    let (documents, rows) = (documents(&dataset), rows(&folder));
    assert_eq!(documents.len(), rows.len());
    for (document, row) in documents.iter().zip(&rows) {
        let (split, stem) = match document.split {
            Part::Train => (dataset.train(), "shard"),
            Part::Validation => (dataset.validation(), "validation"),
        };
        let shard = megatron::documents(&folder.join(format!("{stem}-{:05}", row.number("shard"))));
        let mut tokens = vec![0; (document.tokens.end - document.tokens.start) as usize];
        split.read_at(document.tokens.start, &mut tokens).unwrap();
        assert_eq!(tokens, shard[row.number("sequence") as usize], "{document:?}");
        assert_eq!(row.text("path"), Some(document.id.as_str()));
        assert_eq!(row.text("digest"), Some(document.digest.as_str()));
        assert_eq!(row.text("licence"), document.licence.as_deref());
        assert_eq!(row.number("bytes") as u64, document.bytes);
    }
    // Together they are the whole of both streams.
    for (part, split) in [
        (Part::Train, dataset.train()),
        (Part::Validation, dataset.validation()),
    ] {
        let of_part = documents.iter().filter(|document| document.split == part);
        let end = of_part.fold(0, |at, document| {
            assert_eq!(document.tokens.start, at);
            document.tokens.end
        });
        assert_eq!(end, split.tokens());
    }
}

#[test]
fn the_samples_of_tokens_are_those_whose_windows_hold_one() {
    let (_place, dataset) = sharded();
    let train = dataset.train();
    for sequence_length in [1, 7, 64, 500] {
        let windows: Vec<BTreeSet<u64>> = (0..train.samples(sequence_length))
            .map(|sample| {
                let start = sample * sequence_length as u64;
                (start..=start + sequence_length as u64).collect()
            })
            .collect();
        for document in documents(&dataset).iter().filter(|d| d.split == Part::Train) {
            let holds = |window: &BTreeSet<u64>| window.range(document.tokens.clone()).next().is_some();
            let expected: Vec<u64> = (0..)
                .zip(&windows)
                .filter(|(_, w)| holds(w))
                .map(|(i, _)| i)
                .collect();
            let found: Vec<u64> = train
                .samples_of(document.tokens.clone(), sequence_length)
                .collect();
            assert_eq!(found, expected, "{document:?} in samples of {sequence_length}");
        }
    }
    assert!(train.samples_of(5..5, 7).is_empty());
    assert!(train.samples_of(train.tokens()..train.tokens() + 9, 7).is_empty());
}

#[test]
fn a_document_has_several_names_and_a_wrong_one_brings_up_those_like_it() {
    let (_place, dataset) = sharded();
    let all = documents(&dataset);
    let wanted = all
        .iter()
        .find(|document| document.id == "part-3/0017.txt")
        .unwrap();
    for name in [&wanted.id, &wanted.digest] {
        assert_eq!(
            dataset.find_document(name).unwrap(),
            Named::One(Box::new(wanted.clone()))
        );
    }
    let Named::Nothing(nearest) = dataset.find_document("0017.txt").unwrap() else {
        panic!("no such document");
    };
    assert_eq!(nearest[0], wanted.id);
    let Named::Nothing(nearest) = dataset.find_document("prat-3/0017.txt").unwrap() else {
        panic!("no such document");
    };
    assert!(nearest.contains(&wanted.id), "{nearest:?}");
    // The folders right below the corpus are its sources.
    let Named::Several(count, first) = dataset.find_document("part-3").unwrap() else {
        panic!("many documents are of this source");
    };
    let of_source: Vec<_> = all
        .iter()
        .filter(|document| document.source == "part-3")
        .collect();
    assert!(of_source.len() > 5);
    assert_eq!(count, of_source.len() as u64);
    assert!(first.iter().eq(of_source.into_iter().take(5)), "{first:?}");

    let place = Place::new([("only.txt", prose(1, 4_000))]);
    quiet(&place.options("data")).unwrap();
    let dataset = Dataset::open(&place.root().join("data")).unwrap();
    assert!(matches!(dataset.find_document("corpus").unwrap(), Named::One(one) if one.id == "only.txt"));
}

#[test]
fn a_table_that_cannot_be_true_is_named() {
    let (place, dataset) = sharded();
    let path = place.root().join("data/documents.parquet");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, vec![0; bytes.len()]).unwrap();
    let error = dataset.find_document("x").unwrap_err();
    assert!(
        matches!(&error, DataError::Malformed { path: p, .. } if *p == path),
        "{error}"
    );

    // The table of another dataset.
    let other = Place::with_prose(59);
    quiet(&other.options("data")).unwrap();
    fs::copy(other.root().join("data/documents.parquet"), &path).unwrap();
    let error = dataset.find_document("x").unwrap_err();
    assert!(
        matches!(&error, DataError::Malformed { path: p, .. } if *p == path),
        "{error}"
    );
}
