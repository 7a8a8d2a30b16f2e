//! Independent pieces of work on all threads.

use rayon::prelude::*;

/// Calls `work` with every index below `count`. On one thread it allocates nothing.
pub(crate) fn for_each(count: usize, work: impl Fn(usize) + Send + Sync) {
    if count == 1 || rayon::current_num_threads() == 1 {
        (0..count).for_each(work);
    } else {
        (0..count).into_par_iter().for_each(work);
    }
}
