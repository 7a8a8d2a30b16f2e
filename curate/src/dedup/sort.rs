//! Sorting more records than fit in memory: sorted runs on disk, merged.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{BufWriter, Seek, Write};
use std::path::{Path, PathBuf};

use crate::dedup::table::{Records, put_words};
use crate::dedup::{DedupError, SortSettings};

/// Runs that are merged into one before there are more of them: bounds open files and their buffers. A second level
/// begins only after `FAN_IN` times the memory of a run, a third after its square.
const FAN_IN: usize = 64;

/// Sorts records of `N` words, most significant word first.
pub(crate) struct Sorter<const N: usize> {
    /// The run that is being filled.
    run: Vec<[u64; N]>,
    capacity: usize,
    /// Runs on disk. Those of a level are merged from `FAN_IN` runs of the level before.
    levels: Vec<Vec<Records<N>>>,
    scratch: PathBuf,
}

impl<const N: usize> Sorter<N> {
    pub(crate) fn new(settings: &SortSettings) -> Self {
        let capacity = (settings.memory_bytes / (8 * N)).max(2);
        Self {
            // Reserved at once: pages that are not touched cost nothing, and growing would copy.
            run: Vec::with_capacity(capacity),
            capacity,
            levels: Vec::new(),
            scratch: settings.scratch.clone(),
        }
    }

    pub(crate) fn push(&mut self, record: [u64; N]) -> Result<(), DedupError> {
        if self.run.len() == self.capacity {
            self.spill()?;
        }
        self.run.push(record);
        Ok(())
    }

    /// All records, in order.
    pub(crate) fn finish(mut self) -> Result<Merge<N, Sorted<N>>, DedupError> {
        self.run.sort_unstable();
        let scratch = self.scratch;
        let runs = self.levels.into_iter().flatten();
        let on_disk = runs.map(|run| Sorted::OnDisk(run, scratch.clone()));
        Merge::new(on_disk.chain([Sorted::InMemory(self.run.into_iter())]))
    }

    fn spill(&mut self) -> Result<(), DedupError> {
        self.run.sort_unstable();
        let mut run = write_run(&self.scratch, self.run.drain(..).map(Ok))?;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let Some(runs) = self.levels.get_mut(level) else {
                break;
            };
            runs.push(run);
            if runs.len() < FAN_IN {
                break;
            }
            let scratch = &self.scratch;
            let runs = runs.drain(..).map(|run| Sorted::OnDisk(run, scratch.clone()));
            run = write_run(scratch, Merge::new(runs)?)?;
        }
        Ok(())
    }
}

fn write_run<const N: usize>(
    scratch: &Path,
    records: impl Iterator<Item = Result<[u64; N], DedupError>>,
) -> Result<Records<N>, DedupError> {
    let failed = |error| DedupError::io("sort in", scratch, error);
    let file = tempfile::tempfile_in(scratch).map_err(failed)?;
    let mut writer = BufWriter::with_capacity(1 << 18, file);
    let mut encoded = Vec::with_capacity(8 * N);
    let mut count = 0;
    for record in records {
        encoded.clear();
        put_words(&mut encoded, &record?);
        writer.write_all(&encoded).map_err(failed)?;
        count += 1;
    }
    let mut file: File = writer.into_inner().map_err(|error| failed(error.into_error()))?;
    file.rewind().map_err(failed)?;
    Ok(Records::new(file, count))
}

/// A sorted run.
pub(crate) enum Sorted<const N: usize> {
    InMemory(std::vec::IntoIter<[u64; N]>),
    /// With the folder that it is in.
    OnDisk(Records<N>, PathBuf),
}

impl<const N: usize> Iterator for Sorted<N> {
    type Item = Result<[u64; N], DedupError>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::InMemory(run) => run.next().map(Ok),
            Self::OnDisk(run, scratch) => run
                .advance()
                .map_err(|error| DedupError::io("sort in", scratch, error))
                .transpose(),
        }
    }
}

/// Several sorted streams as one.
pub(crate) struct Merge<const N: usize, I> {
    sources: Vec<I>,
    heads: BinaryHeap<Reverse<([u64; N], usize)>>,
}

impl<const N: usize, I: Iterator<Item = Result<[u64; N], DedupError>>> Merge<N, I> {
    pub(crate) fn new(sources: impl IntoIterator<Item = I>) -> Result<Self, DedupError> {
        let mut sources: Vec<I> = sources.into_iter().collect();
        let mut heads = BinaryHeap::with_capacity(sources.len());
        for (i, source) in sources.iter_mut().enumerate() {
            if let Some(head) = source.next() {
                heads.push(Reverse((head?, i)));
            }
        }
        Ok(Self { sources, heads })
    }
}

impl<const N: usize, I: Iterator<Item = Result<[u64; N], DedupError>>> Iterator for Merge<N, I> {
    type Item = Result<[u64; N], DedupError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut least = self.heads.peek_mut()?;
        let Reverse((record, i)) = *least;
        match self.sources.get_mut(i).and_then(Iterator::next) {
            Some(Ok(next)) => *least = Reverse((next, i)),
            Some(Err(error)) => return Some(Err(error)),
            None => {
                PeekMut::pop(least);
            }
        }
        Some(Ok(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sorted(records: &[[u64; 2]], memory_bytes: usize) -> Vec<[u64; 2]> {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = SortSettings::new(folder.path());
        settings.memory_bytes = memory_bytes;
        let mut sorter = Sorter::new(&settings);
        records.iter().for_each(|&record| sorter.push(record).unwrap());
        let sorted = sorter.finish().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        sorted
    }

    #[test]
    fn three_levels_of_runs_are_merged() {
        // Two records a run: 64 runs a level, so 10,000 records reach the third.
        let records: Vec<_> = (0..10_000u64)
            .map(|i| [i.wrapping_mul(0x9E37_79B9_7F4A_7C15), i])
            .collect();
        let mut expected = records.clone();
        expected.sort();
        assert_eq!(sorted(&records, 0), expected);
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_a_sort_in_memory(
            records in prop::collection::vec([0u64..20, 0u64..1000], 0..600), memory_bytes in 0usize..5000,
        ) {
            let mut expected = records.clone();
            expected.sort();
            prop_assert_eq!(sorted(&records, memory_bytes), expected);
        }
    }
}
