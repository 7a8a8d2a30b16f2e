//! Documents that share a bucket of a band.

use std::path::Path;

use crate::dedup::clusters;
use crate::dedup::sort::Sorter;
use crate::dedup::table::finished;
use crate::dedup::{DedupError, Parts, Slice, SortSettings};

/// Writes the edges of a slice of a band to `out`: from each document to the first one in its bucket. Bands and slices
/// of them are tasks that need nothing of each other.
///
/// With `verify`, documents are so compared with the first of their bucket only. Two alike that share a bucket with a
/// first one that is like neither are not joined here; they share other buckets without it.
///
/// Memory: a run of the sort.
///
/// # Errors
/// If a part or the folder of the sort cannot be read or written.
pub fn edges(
    parts: &Parts,
    band: usize,
    slice: Slice,
    sort: &SortSettings,
    out: &Path,
) -> Result<(), DedupError> {
    if finished(out)? {
        return Ok(());
    }
    let mut buckets = Sorter::new(sort);
    parts.for_each_bucket(band, |ordinal, bucket| match slice.holds(bucket) {
        true => buckets.push([bucket, u64::from(ordinal)]),
        false => Ok(()),
    })?;
    clusters::write_edges(parts.documents(), buckets.finish()?, out)
}
