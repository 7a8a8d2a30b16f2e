//! A source that is open: what its path means is looked up once.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::list::{self, ListError, Listing};
use super::place;
use super::settings::SourceSettings;
use super::store::Store;
use super::unit::Unit;
use super::walk::Root;
use super::{Read, read_below};

/// An open source.
pub struct Source {
    store: Arc<dyn Store>,
    root: Root,
    settings: SourceSettings,
}

impl Source {
    /// Opens a source that has a path: of this machine, or of an object store.
    ///
    /// # Errors
    /// If a setting is out of bounds, this build has no support for the store, or the source is not there.
    pub fn open(settings: &SourceSettings) -> Result<Self, ListError> {
        settings.check().map_err(ListError::Setting)?;
        Self::open_in(place::store_of(&settings.path)?, settings)
    }

    /// Opens a source whose path is one of this store.
    ///
    /// # Errors
    /// If the source is not there.
    pub fn open_in(store: Arc<dyn Store>, settings: &SourceSettings) -> Result<Self, ListError> {
        let root = Root::of(&*store, settings)?;
        Ok(Self::below(store, root, settings))
    }

    /// Opens all that a store holds.
    pub(crate) fn all_of(store: Arc<dyn Store>, settings: &SourceSettings) -> Self {
        Self::below(store, Root::all(), settings)
    }

    fn below(store: Arc<dyn Store>, root: Root, settings: &SourceSettings) -> Self {
        Self {
            store,
            root,
            settings: settings.clone(),
        }
    }

    /// Lists it.
    ///
    /// # Errors
    /// If it cannot be read as a whole, or a part of it is missing because the store does not answer any more.
    pub fn list(&self) -> Result<Listing, ListError> {
        let listing = list::list_below(&*self.store, &self.root, &self.settings);
        match self.outage() {
            Some(problem) => Err(ListError::Outage {
                path: self.settings.path.clone(),
                problem: problem.to_owned(),
            }),
            None => listing,
        }
    }

    /// Reads one of its units, until the sink breaks off.
    pub fn read(&self, unit: &Unit, sink: &mut dyn FnMut(Read) -> ControlFlow<()>) -> ControlFlow<()> {
        read_below(&*self.store, Ok(&self.root), unit, &self.settings, sink)
    }

    /// Why its store does not answer any more, if it does not: what was read since is not to be relied on.
    #[must_use]
    pub fn outage(&self) -> Option<&str> {
        self.store.outage()
    }
}
