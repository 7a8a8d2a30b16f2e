//! Documents whose text is the same, byte for byte, by 128 bits of their BLAKE3 digest: among a billion documents two
//! different ones meet with a probability of 10⁻²¹.

use std::path::{Path, PathBuf};

use crate::dedup::clusters;
use crate::dedup::sort::Sorter;
use crate::dedup::table::{Kind, TableReader, TableWriter, finished, words_of};
use crate::dedup::{DedupError, Slice, SortSettings};

const KIND: Kind = *b"digests1";

/// The first half of a BLAKE3 digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest128(pub(crate) [u64; 2]);

impl Digest128 {
    /// The digest of a text as it is: normalise it before.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(words_of(blake3::hash(text.as_bytes()).as_bytes()))
    }
}

/// Writes a part: the digests of a task's documents, in their order. Nothing stands at its place before
/// [`DigestWriter::commit`].
pub struct DigestWriter(TableWriter<3>);

impl DigestWriter {
    /// Begins a part.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create(path: &Path) -> Result<Self, DedupError> {
        Ok(Self(TableWriter::create(path)?))
    }

    /// Adds the next document and its [rank](crate::dedup::Keep::rank).
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn push(&mut self, digest: Digest128, rank: u32) -> Result<(), DedupError> {
        let Digest128([a, b]) = digest;
        self.0.push(&[a, b, u64::from(rank)])
    }

    /// Ends the part and gives it its name.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn commit(self) -> Result<(), DedupError> {
        self.0.commit(KIND, [0; 4])
    }
}

/// Parts, one after the other: all documents.
#[derive(Clone, Debug)]
pub struct Digests {
    paths: Vec<PathBuf>,
    documents: u32,
}

impl Digests {
    /// Looks at parts, in the order that gives the ordinals.
    ///
    /// # Errors
    /// If one cannot be read or is damaged.
    pub fn open<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, DedupError> {
        let paths: Vec<PathBuf> = paths.into_iter().map(|path| path.as_ref().to_owned()).collect();
        let mut documents = 0;
        for path in &paths {
            documents += TableReader::<3>::open(path, KIND)?.records();
        }
        Ok(Self {
            paths,
            documents: u32::try_from(documents).map_err(|_| DedupError::TooManyDocuments { documents })?,
        })
    }

    /// How many documents there are.
    #[must_use]
    pub fn documents(&self) -> u32 {
        self.documents
    }

    /// The rank of each document, in their order.
    pub fn ranks(&self) -> impl Iterator<Item = Result<u32, DedupError>> {
        self.records()
            .map(|record| record.map(|[_, _, rank]| rank as u32))
    }

    /// Writes the edges of a slice to `out`: from each document to the first one with its digest, for
    /// [`drops`](crate::dedup::drops). Slices are tasks that need nothing of each other.
    ///
    /// Memory: a run of the sort.
    ///
    /// # Errors
    /// If a part or the folder of the sort cannot be read or written.
    pub fn edges(&self, slice: Slice, sort: &SortSettings, out: &Path) -> Result<(), DedupError> {
        if finished(out)? {
            return Ok(());
        }
        let mut digests = Sorter::new(sort);
        for (ordinal, record) in self.records().enumerate() {
            let [a, b, _] = record?;
            if slice.holds(a) {
                digests.push([a, b, ordinal as u64])?;
            }
        }
        clusters::write_edges(self.documents, digests.finish()?, out)
    }

    fn records(&self) -> impl Iterator<Item = Result<[u64; 3], DedupError>> {
        self.paths.iter().flat_map(|path| {
            let (records, error) = match TableReader::<3>::open(path, KIND) {
                Ok(records) => (Some(records), None),
                Err(error) => (None, Some(Err(error))),
            };
            error.into_iter().chain(records.into_iter().flatten())
        })
    }
}
