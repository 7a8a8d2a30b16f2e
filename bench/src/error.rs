//! What can go wrong with a drill itself, apart from what it finds.

use std::io;

/// Why a drill could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was asked for what cannot be.
    #[error("{0}")]
    Usage(String),
    /// It needs rights that this process does not have.
    #[error("{what} need root: run this command as root, or leave them out")]
    NeedsRoot {
        /// What, in the plural.
        what: &'static str,
    },
    /// The system refused something.
    #[error("{action}: {source}")]
    System {
        /// Verb and object.
        action: String,
        /// Why.
        source: io::Error,
    },
    /// A program of the system refused something.
    #[error("`{command}` failed: {said}")]
    Tool {
        /// The command line.
        command: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// The drill's dataset could not be built.
    #[error(transparent)]
    Data(#[from] lockstep_data::DataError),
    /// A state did not come about in time, or a process ended that should not.
    #[error("{0}")]
    Drill(String),
    /// Somebody asked for the end.
    #[error("interrupted; nothing is left running")]
    Interrupted,
}

impl Error {
    /// Says what was being done when the system refused.
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }
}
