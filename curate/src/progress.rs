//! How far a build has come, for whoever watches, and the wish to stop.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::error::CurateError;

/// What a build does now.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now {
    /// The phase, in words.
    pub phase: &'static str,
    /// Work done, in the phase's unit.
    pub done: u64,
    /// So much of that was done before this process came to it.
    pub found: u64,
    /// Work that the phase will have done.
    pub total: u64,
    /// What is counted: `bytes`, `documents` or `tasks`.
    pub unit: &'static str,
    /// When the phase began.
    pub since: Instant,
}

/// Shared between the threads that work and those that watch.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    found: AtomicU64,
    stop: AtomicBool,
    now: Mutex<Option<Now>>,
}

impl Progress {
    /// What is being done, if anything is yet.
    #[must_use]
    pub fn now(&self) -> Option<Now> {
        let now = *self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.map(|now| Now {
            done: self.done.load(Ordering::Relaxed),
            found: self.found.load(Ordering::Relaxed),
            ..now
        })
    }

    /// Asks the build to stop at the next document.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self, phase: &'static str, total: u64, unit: &'static str) {
        self.done.store(0, Ordering::Relaxed);
        self.found.store(0, Ordering::Relaxed);
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(Now {
            phase,
            done: 0,
            found: 0,
            total,
            unit,
            since: Instant::now(),
        });
    }

    pub(crate) fn advance(&self, by: u64) {
        self.done.fetch_add(by, Ordering::Relaxed);
    }

    /// Work that is found done.
    pub(crate) fn find(&self, work: u64) {
        self.found.fetch_add(work, Ordering::Relaxed);
        self.advance(work);
    }

    /// An error once the build was told to stop.
    pub(crate) fn check(&self) -> Result<(), CurateError> {
        if self.stop.load(Ordering::Relaxed) {
            Err(CurateError::Interrupted)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_done_is_told_apart_phase_by_phase() {
        let progress = Progress::default();
        progress.enter("documents", 10, "tasks");
        progress.find(4);
        progress.advance(2);
        let now = progress.now().unwrap();
        assert_eq!((now.done, now.found), (6, 4));
        progress.enter("sample", 10, "tasks");
        let now = progress.now().unwrap();
        assert_eq!((now.done, now.found), (0, 0));
    }
}
