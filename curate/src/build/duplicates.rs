//! The second phase: which documents are there twice, or nearly.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::documents::Documents;
use super::run::Run;
use crate::dedup::{self, Parts, Slice, SortSettings, bands, clusters, exact::Digests};
use crate::error::CurateError;
use crate::spec::Stage;
use crate::work::{Key, Work};

const EDGES: &str = "edges";
const FOREST: &str = "forest";
const DROPS: &str = "drops";

/// Documents that go because another one stays.
pub(super) struct Duplicates {
    pub(super) key: Key,
    /// By ordinal.
    drops: BTreeMap<u32, Duplicate>,
}

/// Why a document goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Duplicate {
    /// The ordinal of the one that stays.
    pub(super) kept: u32,
    /// Documents of its cluster.
    pub(super) cluster_size: u32,
    /// Whether its text is the same as an earlier one's.
    pub(super) is_exact: bool,
}

impl Duplicates {
    pub(super) fn get(&self, ordinal: u64) -> Option<&Duplicate> {
        self.drops.get(&u32::try_from(ordinal).ok()?)
    }

    /// The ordinals of documents that stay in place of others.
    pub(super) fn stand_ins(&self) -> impl Iterator<Item = u32> {
        self.drops.values().map(|duplicate| duplicate.kept)
    }

    fn none(key: Key) -> Self {
        Self {
            key,
            drops: BTreeMap::new(),
        }
    }
}

pub(super) fn run(run: &mut Run<'_>, work: &Work, documents: &Documents) -> Result<Duplicates, CurateError> {
    let near = run.spec.dedup.near.settings();
    let exact = run.spec.dedup.exact;
    let slices = documents.slices();
    let key = Key::new("duplicates", &(exact, &near, slices), &[&documents.key])?;
    if !run.spec.runs(Stage::Dedup) || !exact && near.is_none() {
        return Ok(Duplicates::none(key));
    }
    let digests = Digests::open(documents.digests())?;
    let parts = near
        .as_ref()
        .map(|near| Parts::open(documents.signatures(), near))
        .transpose()?;
    // Slices of exact ones, then of each band.
    let exact = if exact { slices } else { 0 };
    let tasks = exact + near.as_ref().map_or(0, |near| near.bands * slices);
    let verify = near.as_ref().and_then(|near| near.verify).zip(parts.as_ref());
    let forests = if verify.is_some() { slices } else { 0 };
    let edges = work.phase("edges", &key)?;
    run.progress
        .enter("find duplicates", (tasks + forests) as u64 + 2, "tasks");
    edges.run(
        tasks,
        run.progress,
        |_| 1,
        |task, folder| {
            let (sort, out) = (SortSettings::new(folder), folder.join(EDGES));
            match (&parts, task.checked_sub(exact)) {
                (_, None) => digests.edges(Slice::new(task, slices), &sort, &out)?,
                (Some(parts), Some(task)) => {
                    let (band, slice) = (task / slices, Slice::new(task % slices, slices));
                    bands::edges(parts, band, slice, &sort, &out)?;
                }
                (None, Some(_)) => {}
            }
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let edges: Vec<PathBuf> = (0..tasks).map(|task| edges.task(task).join(EDGES)).collect();
    let of_exact = edges.get(..exact).unwrap_or_default();
    let compared = work.phase("forests", &key)?;
    compared.run(
        forests,
        run.progress,
        |_| 1,
        |task, folder| {
            let (slice, out) = (Slice::new(task, slices), folder.join(FOREST));
            let verify = verify.map(|(least, parts)| (parts, least));
            dedup::forest(digests.documents(), &edges, slice, verify, &out)?;
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let of_all = match verify {
        Some(_) => (0..forests)
            .map(|task| compared.task(task).join(FOREST))
            .collect(),
        None => edges.clone(),
    };
    let joined = work.phase("clusters", &key)?;
    joined.run(
        2,
        run.progress,
        |_| 1,
        |task, folder| {
            let out = folder.join(DROPS);
            let edges = if task == 0 { of_exact } else { &of_all };
            dedup::drops(digests.documents(), edges, digests.ranks(), &out)?;
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let mut duplicates = Duplicates::none(key);
    let [exact, all] = [0, 1].map(|task| joined.task(task).join(DROPS));
    for found in clusters::read_drops(&all)? {
        let found = found?;
        duplicates.drops.insert(
            found.document,
            Duplicate {
                kept: found.kept,
                cluster_size: found.cluster_size,
                is_exact: false,
            },
        );
    }
    for found in clusters::read_drops(&exact)? {
        if let Some(duplicate) = duplicates.drops.get_mut(&found?.document) {
            duplicate.is_exact = true;
        }
    }
    let mut sizes: BTreeMap<u32, u32> = BTreeMap::new();
    for duplicate in duplicates.drops.values() {
        sizes.insert(duplicate.kept, duplicate.cluster_size);
    }
    for size in sizes.into_values() {
        run.counts.clusters.add_log2(u64::from(size));
    }
    Ok(duplicates)
}
