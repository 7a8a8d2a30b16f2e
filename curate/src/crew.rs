//! Who does the tasks of a phase: the threads of this process alone, or those of several on a shared folder.

use rayon::prelude::*;

use crate::error::CurateError;

/// The tasks of a phase that were not done when this process looked.
pub struct OpenTasks<'t> {
    /// The phase, by a name that no other phase of the build has.
    pub phase: &'t str,
    /// How many tasks it has, done or not.
    pub tasks: usize,
    /// Those that are not done.
    pub open: Vec<usize>,
    /// Does one; that another process may have done it meanwhile, or be at it, is no matter.
    pub do_one: &'t (dyn Fn(usize) -> Result<(), CurateError> + Sync),
}

/// Those who work on a build.
pub trait Crew: Send + Sync {
    /// What tells the files of this process from those of others, if there are others.
    fn name(&self) -> Option<&str>;

    /// Returns once all of these tasks are done, by whomever.
    ///
    /// # Errors
    /// Those of tasks, and [`CurateError::Interrupted`].
    fn run(&self, tasks: OpenTasks<'_>) -> Result<(), CurateError>;
}

/// The threads of rayon's current pool, and nobody else.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Crew for Alone {
    fn name(&self) -> Option<&str> {
        None
    }

    fn run(&self, tasks: OpenTasks<'_>) -> Result<(), CurateError> {
        // One by one, so that what is begun is ended in about the order of the tasks.
        tasks
            .open
            .into_par_iter()
            .with_max_len(1)
            .try_for_each(tasks.do_one)
    }
}
