//! Duplicates through all stages and files, against the same in memory, however the work is cut.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod editions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lockstep_curate::dedup::bands::edges;
use lockstep_curate::dedup::exact::{Digest128, DigestWriter, Digests};
use lockstep_curate::dedup::minhash::similarity_of_sketches;
use lockstep_curate::dedup::{
    Duplicate, Keep, NearSettings, PartWriter, Parts, Signature, Signer, Slice, SortSettings, compare, drops,
    finished, read_drops,
};
use proptest::prelude::*;

/// How the work is cut, which must not matter.
#[derive(Clone, Debug)]
struct Cut {
    part: usize,
    slices: u64,
    memory_bytes: usize,
}

const UNCUT: Cut = Cut {
    part: usize::MAX,
    slices: 1,
    memory_bytes: 1 << 20,
};

fn cut() -> impl Strategy<Value = Cut> {
    (1usize..20, 1u64..4, 0usize..3000).prop_map(|(part, slices, memory_bytes)| Cut {
        part,
        slices,
        memory_bytes,
    })
}

fn sort(folder: &Path, cut: &Cut) -> SortSettings {
    let mut sort = SortSettings::new(folder);
    sort.memory_bytes = cut.memory_bytes;
    sort
}

fn slices(cut: &Cut) -> impl Iterator<Item = Slice> + use<> {
    let of = cut.slices;
    (0..of).map(move |index| Slice { index, of })
}

/// The near-duplicates of texts by way of files in `folder`; files of an earlier call there are used.
fn near(folder: &Path, texts: &[String], settings: &NearSettings, cut: &Cut) -> Vec<Duplicate> {
    let mut signer = Signer::new(settings).unwrap();
    let mut files = Vec::new();
    for (i, part) in texts.chunks(cut.part.min(texts.len().max(1))).enumerate() {
        files.push(folder.join(format!("part-{i}")));
        if finished(&files[i]).unwrap() {
            continue;
        }
        let mut writer = PartWriter::create(&files[i], settings).unwrap();
        for text in part {
            let rank = settings.keep.rank(text.len(), quality(text));
            writer.push(signer.sign(text), rank).unwrap();
        }
        writer.commit().unwrap();
    }
    let parts = Parts::open(&files, settings).unwrap();
    let mut tables = Vec::new();
    for band in 0..settings.bands {
        for slice in slices(cut) {
            tables.push(folder.join(format!("edges-{band}-{}", slice.index)));
            edges(&parts, band, slice, &sort(folder, cut), &tables[tables.len() - 1]).unwrap();
        }
    }
    if let Some(least) = settings.verify {
        let alike = |slice: Slice| {
            let out = folder.join(format!("alike-{}", slice.index));
            compare((&parts, least), &tables, slice, &sort(folder, cut), &out).unwrap();
            out
        };
        tables = slices(cut).map(alike).collect();
    }
    let out = folder.join("drops");
    drops(parts.documents(), &tables, parts.ranks(), &out).unwrap();
    read_drops(&out).unwrap().map(Result::unwrap).collect()
}

/// A score like any other.
fn quality(text: &str) -> f32 {
    text.bytes().map(f32::from).sum::<f32>() % 7.0 - 3.0
}

/// The same over all pairs, in memory.
fn naive(texts: &[String], settings: &NearSettings) -> Vec<Duplicate> {
    let mut signer = Signer::new(settings).unwrap();
    let signatures: Vec<Option<Signature>> = texts.iter().map(|text| signer.sign(text).cloned()).collect();
    let mut labels: Vec<usize> = (0..texts.len()).collect();
    let alike = |a: &Signature, b: &Signature| {
        let [a, b]: [Vec<u8>; 2] = [a, b].map(|signature| signature.sketch().collect());
        settings
            .verify
            .is_none_or(|least| similarity_of_sketches(&a, &b) >= least)
    };
    for band in 0..settings.bands {
        let bucket = |i: usize| {
            signatures[i]
                .as_ref()
                .map(|signature| &signature.values()[band * settings.rows..][..settings.rows])
        };
        for a in 0..texts.len() {
            for b in 0..a {
                // With `verify`, only the first of a bucket is compared with.
                let first = settings.verify.is_none() || (0..b).all(|i| bucket(i) != bucket(a));
                if let (Some(x), Some(y)) = (&signatures[a], &signatures[b])
                    && first
                    && bucket(a) == bucket(b)
                    && alike(x, y)
                {
                    let (from, to) = (labels[a], labels[b]);
                    labels
                        .iter_mut()
                        .filter(|label| **label == from)
                        .for_each(|label| *label = to);
                }
            }
        }
    }
    let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    labels
        .iter()
        .enumerate()
        .for_each(|(i, &label)| clusters.entry(label).or_default().push(i));
    let mut duplicates = Vec::new();
    for members in clusters.into_values() {
        let better = |&a: &usize, &b: &usize| {
            let order = match settings.keep {
                Keep::Longest => texts[a].len().cmp(&texts[b].len()),
                Keep::First => std::cmp::Ordering::Equal,
                Keep::BestQuality => quality(&texts[a]).partial_cmp(&quality(&texts[b])).unwrap(),
            };
            order.then(b.cmp(&a))
        };
        let kept = members.iter().copied().max_by(better).unwrap();
        duplicates.extend(members.iter().filter(|&&i| i != kept).map(|&document| Duplicate {
            document: document as u32,
            kept: kept as u32,
            cluster_size: members.len() as u32,
        }));
    }
    duplicates.sort_by_key(|duplicate| duplicate.document);
    duplicates
}

prop_compose! {
    /// Documents of which many are edits of others, and some have few words or none.
    fn corpus()(
        words in prop::collection::vec(prop::collection::vec(0u8..12, 0..30), 1..12),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..12), 0..40),
    ) -> Vec<String> {
        let mut documents = words;
        for (of, place, word) in edits {
            let mut document = documents[of.index(documents.len())].clone();
            let place = place.index(document.len() + 1);
            if place < document.len() { document[place] = word } else { document.push(word) }
            documents.push(document);
        }
        documents.iter().map(|words| words.iter().map(|word| format!("w{word} ")).collect()).collect()
    }
}

fn settings() -> impl Strategy<Value = NearSettings> {
    let keep = prop::sample::select(vec![Keep::Longest, Keep::First, Keep::BestQuality]);
    let sizes = prop::sample::select(vec![(14, 8), (5, 3), (3, 1)]);
    (sizes, 0u32..9, prop::option::of(0.0f64..1.0), keep).prop_map(|((bands, rows), seed, verify, keep)| {
        NearSettings {
            bands,
            rows,
            seed,
            verify,
            keep,
            ..NearSettings::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn near_duplicates_are_those_of_all_pairs_however_the_work_is_cut(
        texts in corpus(), settings in settings(), cut in cut(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        prop_assert_eq!(near(folder.path(), &texts, &settings, &cut), naive(&texts, &settings));
    }

    #[test]
    fn exact_duplicates_are_those_of_a_set_however_the_work_is_cut(
        texts in prop::collection::vec("[ab]{0,3}", 0..40), cut in cut(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let part = |(i, texts): (usize, &[String])| {
            let path = folder.path().join(format!("part-{i}"));
            let mut writer = DigestWriter::create(&path).unwrap();
            texts.iter().for_each(|text| writer.push(Digest128::of(text), 0).unwrap());
            writer.commit().unwrap();
            path
        };
        let parts = Digests::open(texts.chunks(cut.part).enumerate().map(part)).unwrap();
        let tables: Vec<PathBuf> = slices(&cut).map(|slice| {
            let out = folder.path().join(format!("edges-{}", slice.index));
            parts.edges(slice, &sort(folder.path(), &cut), &out).unwrap();
            out
        }).collect();
        let out = folder.path().join("drops");
        drops(parts.documents(), &tables, parts.ranks(), &out).unwrap();
        let dropped: BTreeSet<u32> = read_drops(&out).unwrap().map(|drop| drop.unwrap().document).collect();
        let mut seen = BTreeSet::new();
        let expected = (0..).zip(&texts).filter(|(_, text)| !seen.insert(*text)).map(|(i, _)| i);
        prop_assert!(expected.eq(dropped));
    }
}

fn documents(count: usize) -> Vec<String> {
    let text = |i: usize| {
        (0..60)
            .map(|word| format!("w{} ", (word * 7 + i / 3 * 11) % 97))
            .collect::<String>()
    };
    (0..count)
        .map(|i| text(i) + if i % 3 == 2 { "and more" } else { "" })
        .collect()
}

#[test]
fn what_is_finished_is_used_and_what_is_cut_short_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let (texts, settings) = (documents(60), NearSettings::default());
    let cut = Cut { part: 7, ..UNCUT };
    let expected = near(folder.path(), &texts, &settings, &cut);
    assert!(expected.len() >= 40);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let whole: Vec<Vec<u8>> = files.iter().map(|path| std::fs::read(path).unwrap()).collect();
    // Killed at any point: of the files from some stage on, there are none, or they are cut short.
    for (i, path) in files.iter().enumerate() {
        match i % 3 {
            0 => std::fs::remove_file(path).unwrap(),
            1 => std::fs::write(path, &whole[i][..whole[i].len() * i / files.len()]).unwrap(),
            _ => {}
        }
    }
    assert_eq!(near(folder.path(), &texts, &settings, &cut), expected);
    assert!(
        files
            .iter()
            .zip(&whole)
            .all(|(path, whole)| std::fs::read(path).unwrap() == *whole)
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), files.len());
}

#[test]
fn no_documents_have_no_duplicates() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(near(folder.path(), &[], &NearSettings::default(), &UNCUT), []);
}

#[test]
fn verified_candidates_are_as_similar_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    // One row a band: whoever shares a word 5-gram is a candidate.
    let settings = NearSettings {
        bands: 112,
        rows: 1,
        verify: Some(0.9),
        ..NearSettings::default()
    };
    let base: Vec<String> = (0..200).map(|word| format!("word{word}")).collect();
    let text = |words: usize| base[..words].join(" ");
    // Jaccard similarities with the first: 190/196 = 0.97, and 96/196 = 0.49.
    let texts = [text(200), text(194), text(100)];
    let drop = Duplicate {
        document: 1,
        kept: 0,
        cluster_size: 2,
    };
    assert_eq!(near(folder.path(), &texts, &settings, &UNCUT), [drop]);
}
