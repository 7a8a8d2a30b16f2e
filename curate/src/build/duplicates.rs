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
    let key = Key::new("duplicates", &(exact, &near), &[&documents.key])?;
    if !run.spec.runs(Stage::Dedup) || !exact && near.is_none() {
        return Ok(Duplicates::none(key));
    }
    let digests = Digests::open(documents.digests())?;
    let parts = near
        .as_ref()
        .map(|near| Parts::open(documents.signatures(), near))
        .transpose()?;
    // One task for exact duplicates, then one a band, and each of them a slice.
    let (kinds, slices) = (1 + near.as_ref().map_or(0, |near| near.bands), documents.slices());
    let verified = near.as_ref().and_then(|near| near.verify).zip(parts.as_ref());
    let verified = verified.map(|(least, parts)| (parts, least));
    let bands_to_verify = verified.map_or(0, |_| kinds - 1);
    let edges = work.phase("edges", &key)?;
    let tasks = kinds * slices + bands_to_verify + 2;
    run.progress.enter("find duplicates", tasks as u64, "tasks");
    edges.run(
        kinds * slices,
        run.progress,
        |_| 1,
        |task, folder| {
            let (sort, out) = (SortSettings::new(folder), folder.join(EDGES));
            let slice = Slice::new(task % slices, slices);
            match (&parts, (task / slices).checked_sub(1)) {
                (_, None) => digests.edges(slice, &sort, &out)?,
                (Some(parts), Some(band)) => bands::edges(parts, band, slice, &sort, &out)?,
                (None, Some(_)) => {}
            }
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let of_kind = |kind: usize| -> Vec<PathBuf> {
        let tasks = kind * slices..(kind + 1) * slices;
        tasks.map(|task| edges.task(task).join(EDGES)).collect()
    };
    // Comparing signatures takes most of the time where it is asked for, so each band is a task.
    let forests = work.phase("forests", &key)?;
    forests.run(
        bands_to_verify,
        run.progress,
        |_| 1,
        |band, folder| {
            let out = folder.join(EDGES);
            dedup::forest(digests.documents(), &of_kind(1 + band), verified, &out)?;
            run.progress.advance(1);
            Ok(())
        },
    )?;
    let same = if exact { of_kind(0) } else { Vec::new() };
    let near: Vec<PathBuf> = match verified {
        Some(_) => (0..bands_to_verify)
            .map(|band| forests.task(band).join(EDGES))
            .collect(),
        None => (1..kinds).flat_map(of_kind).collect(),
    };
    let joined = work.phase("clusters", &key)?;
    joined.run(
        2,
        run.progress,
        |_| 1,
        |task, folder| {
            let out = folder.join(DROPS);
            let edges = match task {
                0 => same.clone(),
                _ => [&*same, &near].concat(),
            };
            dedup::drops(digests.documents(), &edges, None, digests.ranks(), &out)?;
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
