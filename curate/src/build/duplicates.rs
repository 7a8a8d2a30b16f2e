//! The second phase: which documents are there twice, or nearly.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::documents::Documents;
use super::run::Run;
use crate::dedup::{self, Parts, Slice, SortSettings, bands, clusters, exact::Digests};
use crate::error::CurateError;
use crate::spec::Stage;
use crate::work::{Key, Phase, Work};

const EDGES: &str = "edges";
const DROPS: &str = "drops";
/// Slices of a band, at most: each reads all of the band, and bands are many.
const MOST_NEAR_SLICES: usize = 16;

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

/// A search that is a task.
enum Search<'p> {
    /// For the same text.
    Exact(Slice),
    /// For nearly the same text, in a band.
    Near(&'p Parts, usize, Slice),
}

pub(super) fn run(run: &mut Run<'_>, work: &Work, documents: &Documents) -> Result<Duplicates, CurateError> {
    let near = run.spec.dedup.near.settings();
    let exact = run.spec.dedup.exact;
    let slices = documents.slices();
    let near_slices = slices.min(MOST_NEAR_SLICES);
    let key = Key::new("duplicates", &(exact, &near, slices), &[&documents.key])?;
    if !run.spec.runs(Stage::Dedup) || !exact && near.is_none() {
        return Ok(Duplicates::none(key));
    }
    let digests = Digests::open(documents.digests())?;
    let parts = near
        .as_ref()
        .map(|near| Parts::open(documents.signatures(), near))
        .transpose()?;
    let each = |of: usize| (0..of).map(move |index| Slice::new(index, of));
    let of_exact = if exact { slices } else { 0 };
    let mut searches: Vec<Search<'_>> = each(slices).take(of_exact).map(Search::Exact).collect();
    let mut verify = None;
    if let Some((near, parts)) = near.as_ref().zip(parts.as_ref()) {
        let in_band = |band| each(near_slices).map(move |slice| Search::Near(parts, band, slice));
        searches.extend((0..near.bands).flat_map(in_band));
        verify = near.verify.map(|least| (parts, least));
    }
    let comparisons = verify.map_or(0, |_| near_slices);
    let tasks = searches.len() + comparisons + 2;
    run.progress.enter("find duplicates", tasks as u64, "tasks");
    let (progress, cost) = (run.progress, |_| 1);

    let searched = work.phase("edges", &key)?;
    searched.run(searches.len(), progress, cost, |task, folder| {
        let (sort, out) = (SortSettings::new(folder), folder.join(EDGES));
        match searches[task] {
            Search::Exact(slice) => digests.edges(slice, &sort, &out)?,
            Search::Near(parts, band, slice) => bands::edges(parts, band, slice, &sort, &out)?,
        }
        progress.advance(1);
        Ok(())
    })?;
    let edges_of = |phase: &Phase, tasks: usize| -> Vec<PathBuf> {
        (0..tasks).map(|task| phase.task(task).join(EDGES)).collect()
    };
    let mut edges = edges_of(&searched, searches.len());
    let exact_edges = edges_of(&searched, of_exact);

    if let Some(verify) = verify {
        let compared = work.phase("alike", &key)?;
        compared.run(comparisons, progress, cost, |task, folder| {
            let (sort, out) = (SortSettings::new(folder), folder.join(EDGES));
            dedup::compare(verify, &edges, Slice::new(task, comparisons), &sort, &out)?;
            progress.advance(1);
            Ok(())
        })?;
        edges = edges_of(&compared, comparisons);
    }
    let joined = work.phase("clusters", &key)?;
    joined.run(2, progress, cost, |task, folder| {
        let edges = if task == 0 { &exact_edges } else { &edges };
        dedup::drops(digests.documents(), edges, digests.ranks(), &folder.join(DROPS))?;
        progress.advance(1);
        Ok(())
    })?;
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
