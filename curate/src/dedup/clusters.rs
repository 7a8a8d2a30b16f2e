//! Who is joined to whom, and who stays.
//!
//! Edges are joined by union-find in an array of one u32 for each document: 4 bytes × documents, and an eighth for a
//! mark; clusters of more than one document take 12 bytes each. For a billion documents that is 4.2 GB and what their
//! clusters take. The result does not depend on the order of edges, so their files are read one after the other. Where pairs
//! have to be alike in more than a bucket, that is found out before, in slices ([`compare`]).

use std::path::Path;

use crate::dedup::minhash::similarity_of_sketches;
use crate::dedup::sort::Sorter;
use crate::dedup::table::{Kind, TableReader, TableWriter, finished};
use crate::dedup::{DedupError, Parts, Slice, SortSettings};

const EDGES: Kind = *b"edges\0\0\x01";
const DROPS: Kind = *b"drops\0\0\x01";

/// A document that is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// Its ordinal.
    pub document: u32,
    /// The ordinal of the document of its cluster that stays.
    pub kept: u32,
    /// How many documents the cluster has, with the one that stays.
    pub cluster_size: u32,
}

/// That two documents are the same; `from` comes after `to`.
#[derive(Clone, Copy)]
struct Edge {
    from: u32,
    to: u32,
}

impl Edge {
    fn of([record]: [u64; 1]) -> Self {
        Self {
            from: (record >> 32) as u32,
            to: record as u32,
        }
    }
}

/// Writes a file of edges. `records` are sorted, and each is what makes documents the same and then an ordinal: there is an edge
/// from each document to the first that is the same.
pub(crate) fn write_edges<const N: usize>(
    documents: u32,
    records: impl Iterator<Item = Result<[u64; N], DedupError>>,
    out: &Path,
) -> Result<(), DedupError> {
    let mut writer = TableWriter::create(out)?;
    let mut first: Option<[u64; N]> = None;
    for record in records {
        let record = record?;
        let of_first = first.as_ref().and_then(|first| first.split_last());
        match (record.split_last(), of_first) {
            (Some((ordinal, what)), Some((to, same))) if what == same => {
                writer.push(&[ordinal << 32 | to])?
            }
            _ => first = Some(record),
        }
    }
    writer.commit(EDGES, [u64::from(documents), 0, 0, 0])
}

/// The edges of a file, if it is of so many documents.
fn read_edges(path: &Path, documents: u32) -> Result<TableReader<1>, DedupError> {
    let table = TableReader::<1>::open(path, EDGES)?;
    match table.parameters() {
        [of, ..] if of == u64::from(documents) => Ok(table),
        _ => Err(DedupError::OtherSettings {
            path: path.to_owned(),
        }),
    }
}

/// Of the pairs that files of edges name, writes those whose sketches are at least so similar: a file of edges of a slice of
/// documents. Each pair is compared once, in whatever buckets it meets. Slices are tasks that need nothing of each other.
///
/// Memory: a run of the sort.
///
/// # Errors
/// If a file cannot be read or written.
pub fn compare<P: AsRef<Path>>(
    (parts, least): (&Parts, f64),
    edges: &[P],
    slice: Slice,
    sort: &SortSettings,
    out: &Path,
) -> Result<(), DedupError> {
    if finished(out)? {
        return Ok(());
    }
    let documents = parts.documents();
    let mut pairs = Sorter::new(sort);
    for path in edges {
        for record in read_edges(path.as_ref(), documents)? {
            let record = record?;
            if slice.holds(u64::from(Edge::of(record).from)) {
                pairs.push(record)?;
            }
        }
    }
    let mut sketches = parts.sketches();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (mut last, mut read) = (None, None);
    let mut writer = TableWriter::create(out)?;
    for record in pairs.finish()? {
        let record = record?;
        if last.replace(record) == Some(record) {
            continue;
        }
        let Edge { from, to } = Edge::of(record);
        if read.replace(from) != Some(from) {
            sketches.read(from, &mut a)?;
        }
        sketches.read(to, &mut b)?;
        if similarity_of_sketches(&a, &b) >= least {
            writer.push(&record)?;
        }
    }
    writer.commit(EDGES, [u64::from(documents), 0, 0, 0])
}

/// Joins what files of edges say and writes which documents are dropped, in the order of their ordinals, so that they
/// can be merged with the documents. Of each cluster the document of the highest rank stays, the first of them among
/// equals; `ranks` gives one for each document, in their order. Read the file with [`read_drops`].
///
/// # Errors
/// If a file cannot be read or written.
pub fn drops<P: AsRef<Path>>(
    documents: u32,
    edges: &[P],
    ranks: impl IntoIterator<Item = Result<u32, DedupError>>,
    out: &Path,
) -> Result<(), DedupError> {
    if finished(out)? {
        return Ok(());
    }
    let mut labels = Trees::grow(documents, edges)?.label();
    let mut clusters = vec![Cluster::default(); labels.clusters];
    let mut ranked = 0;
    for (document, rank) in ranks.into_iter().enumerate() {
        let rank = rank?;
        ranked += 1;
        let label = labels.of_document.get(document).copied().unwrap_or(ALONE);
        if let Some(cluster) = clusters.get_mut(label as usize) {
            if cluster.size == 0 || rank > cluster.rank {
                (cluster.rank, cluster.kept) = (rank, document as u32);
            }
            cluster.size += 1;
        }
    }
    if ranked != u64::from(documents) {
        return Err(DedupError::Ranks { ranked, documents });
    }
    let mut writer = TableWriter::create(out)?;
    for (document, label) in labels.of_document.drain(..).enumerate() {
        let document = document as u64;
        if let Some(cluster) = clusters
            .get(label as usize)
            .filter(|cluster| u64::from(cluster.kept) != document)
        {
            let drop = [document << 32 | u64::from(cluster.kept), u64::from(cluster.size)];
            writer.push(&drop)?;
        }
    }
    writer.commit(DROPS, [u64::from(documents), 0, 0, 0])
}

/// The documents that a file of [`drops`] names, in the order of their ordinals.
///
/// # Errors
/// If it cannot be read; and after the last document, if the file was damaged.
pub fn read_drops(path: &Path) -> Result<impl Iterator<Item = Result<Duplicate, DedupError>>, DedupError> {
    let records = TableReader::<2>::open(path, DROPS)?;
    Ok(records.map(|record| {
        record.map(|[pair, size]| Duplicate {
            document: (pair >> 32) as u32,
            kept: pair as u32,
            cluster_size: size as u32,
        })
    }))
}

#[derive(Clone, Copy, Default)]
struct Cluster {
    rank: u32,
    kept: u32,
    size: u32,
}

/// The label of a document that is in no cluster but its own.
const ALONE: u32 = u32::MAX;

struct Labels {
    of_document: Vec<u32>,
    clusters: usize,
}

/// Trees of documents: a document's parent comes before it, or is it.
struct Trees {
    parents: Vec<u32>,
    /// Documents that ever were a parent, a bit each.
    has_children: Vec<u64>,
}

impl Trees {
    fn grow<P: AsRef<Path>>(documents: u32, edges: &[P]) -> Result<Self, DedupError> {
        let mut trees = Self {
            parents: (0..documents).collect(),
            has_children: vec![0; (documents as usize).div_ceil(64)],
        };
        for path in edges {
            for record in read_edges(path.as_ref(), documents)? {
                let Edge { from, to } = Edge::of(record?);
                trees.join(from, to);
            }
        }
        Ok(trees)
    }

    fn parent(&self, document: u32) -> u32 {
        self.parents.get(document as usize).copied().unwrap_or(document)
    }

    fn set_parent(&mut self, document: u32, parent: u32) {
        if let Some(place) = self.parents.get_mut(document as usize) {
            *place = parent;
        }
    }

    /// The first document of the tree. Halves the way for the next time.
    fn root(&mut self, mut document: u32) -> u32 {
        loop {
            let parent = self.parent(document);
            let grandparent = self.parent(parent);
            if parent == grandparent {
                return parent;
            }
            self.set_parent(document, grandparent);
            document = grandparent;
        }
    }

    fn join(&mut self, a: u32, b: u32) {
        let (a, b) = (self.root(a), self.root(b));
        if a != b {
            self.set_parent(a.max(b), a.min(b));
            let root = a.min(b) as usize;
            if let Some(bits) = self.has_children.get_mut(root / 64) {
                *bits |= 1 << (root % 64);
            }
        }
    }

    /// Numbers the trees of more than one document, and writes each document's number in place of its parent: parents
    /// come first, so a parent's place holds its number already.
    fn label(self) -> Labels {
        let Self {
            mut parents,
            has_children,
        } = self;
        let mut clusters = 0;
        for document in 0..parents.len() {
            let parent = parents.get(document).map_or(document, |&parent| parent as usize);
            let label = if parent != document {
                parents.get(parent).copied().unwrap_or(ALONE)
            } else if has_children
                .get(document / 64)
                .is_some_and(|bits| bits >> (document % 64) & 1 == 1)
            {
                clusters += 1;
                clusters - 1
            } else {
                ALONE
            };
            if let Some(place) = parents.get_mut(document) {
                *place = label;
            }
        }
        Labels {
            of_document: parents,
            clusters: clusters as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    fn write(folder: &Path, name: &str, documents: usize, edges: &[(u32, u32)]) -> PathBuf {
        let path = folder.join(name);
        let mut writer = TableWriter::create(&path).unwrap();
        for &(a, b) in edges {
            let [from, to] = [a.max(b), a.min(b)].map(u64::from);
            writer.push(&[from << 32 | to]).unwrap();
        }
        writer.commit(EDGES, [documents as u64, 0, 0, 0]).unwrap();
        path
    }

    fn read(path: &Path) -> Vec<Duplicate> {
        read_drops(path).unwrap().map(Result::unwrap).collect()
    }

    /// By repeated relabelling of everything.
    fn naive(ranks: &[u32], edges: &[(u32, u32)]) -> Vec<Duplicate> {
        let mut labels: Vec<usize> = (0..ranks.len()).collect();
        for _ in 0..ranks.len() {
            for &(a, b) in edges {
                let least = labels[a as usize].min(labels[b as usize]);
                (labels[a as usize], labels[b as usize]) = (least, least);
            }
        }
        let mut clusters: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        labels
            .iter()
            .enumerate()
            .for_each(|(i, &label)| clusters.entry(label).or_default().push(i as u32));
        let mut drops = Vec::new();
        for members in clusters.values() {
            let best = members.iter().map(|&i| ranks[i as usize]).max().unwrap();
            let kept = *members.iter().find(|&&i| ranks[i as usize] == best).unwrap();
            let cluster_size = members.len() as u32;
            let others = members.iter().filter(|&&i| i != kept);
            drops.extend(others.map(|&document| Duplicate {
                document,
                kept,
                cluster_size,
            }));
        }
        drops.sort_by_key(|drop| drop.document);
        drops
    }

    proptest! {
        // Each case syncs many files.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn clusters_are_those_of_a_naive_labelling_however_edges_are_grouped(
            ranks in prop::collection::vec(0u32..5, 1..60),
            pairs in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 0..60),
            cuts in prop::collection::vec(0usize..60, 3),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let n = ranks.len();
            let pairs: Vec<_> = pairs.iter().map(|(a, b)| (a.index(n) as u32, b.index(n) as u32)).filter(|(a, b)| a != b).collect();
            let expected = naive(&ranks, &pairs);
            let run = |files: &[PathBuf], name: &str| {
                let out = folder.path().join(name);
                drops(n as u32, files, ranks.iter().map(|&rank| Ok(rank)), &out).unwrap();
                read(&out)
            };
            let whole = [write(folder.path(), "whole", n, &pairs)];
            prop_assert_eq!(&run(&whole, "of-whole"), &expected);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(pairs.len())).chain([0, pairs.len()]).collect();
            cuts.sort();
            let files: Vec<_> = cuts.windows(2).enumerate()
                .map(|(i, cut)| write(folder.path(), &format!("cut-{i}"), n, &pairs[cut[0]..cut[1]]))
                .collect();
            prop_assert_eq!(&run(&files, "of-cuts"), &expected);
        }
    }

    #[test]
    fn a_finished_file_is_left_alone_and_a_cut_one_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let edges = [write(folder.path(), "edges", 2, &[(0, 1)])];
        let out = folder.path().join("drops");
        let make = || drops(2, &edges, [Ok(1), Ok(2)], &out).unwrap();
        make();
        let whole = std::fs::read(&out).unwrap();
        // Ranks that are wrong are not even looked at.
        drops(2, &edges, [Ok(1)], &out).unwrap();
        assert_eq!(std::fs::read(&out).unwrap(), whole);
        std::fs::write(&out, &whole[..20]).unwrap();
        make();
        assert_eq!(std::fs::read(&out).unwrap(), whole);
        assert_eq!(
            read(&out),
            [Duplicate {
                document: 0,
                kept: 1,
                cluster_size: 2
            }]
        );
    }

    #[test]
    fn edges_of_other_documents_and_missing_ranks_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let edges = [write(folder.path(), "edges", 2, &[(0, 1)])];
        let out = folder.path().join("drops");
        let error = drops(3, &edges, [Ok(1), Ok(2), Ok(3)], &out).unwrap_err();
        assert!(matches!(error, DedupError::OtherSettings { .. }), "{error}");
        let error = drops(2, &edges, [Ok(1)], &out).unwrap_err();
        assert!(
            matches!(
                error,
                DedupError::Ranks {
                    ranked: 1,
                    documents: 2
                }
            ),
            "{error}"
        );
        assert!(!out.exists());
    }

    #[test]
    fn a_long_chain_takes_no_time_and_no_stack() {
        let folder = tempfile::tempdir().unwrap();
        let n = 300_000u32;
        let edges: Vec<_> = (1..n).map(|i| (n - i, n - i - 1)).collect();
        let edges = [write(folder.path(), "edges", n as usize, &edges)];
        let out = folder.path().join("drops");
        drops(n, &edges, (0..n).map(|_| Ok(0)), &out).unwrap();
        let drops = read(&out);
        assert!(drops.iter().all(|drop| drop.kept == 0 && drop.cluster_size == n));
        assert_eq!(drops.len() as u32, n - 1);
    }
}
