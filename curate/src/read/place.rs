//! Where a source's path leads: into a folder of this machine, or into an object store.

use std::sync::Arc;

use super::list::ListError;
use super::store::{LocalStore, Store};

/// A path into an object store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'p> {
    /// Whose store it is.
    pub(crate) scheme: Scheme,
    /// Scheme and bucket: what all paths into the same store begin with.
    pub(crate) base: &'p str,
}

/// Kinds of object stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// This machine.
    Local,
    S3,
    Google,
    Azure,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Self::Local => "files as an object store",
            Self::S3 => "S3",
            Self::Google => "Google Cloud Storage",
            Self::Azure => "Azure Blob Storage",
        }
    }
}

impl<'p> Place<'p> {
    /// The object store that a path leads into; none if it is a path of this machine.
    ///
    /// # Errors
    /// If it is an address of another kind.
    pub(crate) fn of(path: &'p str) -> Result<Option<Self>, String> {
        let Some((scheme, inside)) = path.split_once("://") else {
            return Ok(None);
        };
        let scheme = match scheme {
            "file" => Scheme::Local,
            "s3" => Scheme::S3,
            "gs" => Scheme::Google,
            "az" | "abfs" | "abfss" => Scheme::Azure,
            "http" | "https" => {
                return Err(format!(
                    "source.path = {path:?}: is an address; write it into a file, one address a line, and name that file \
                     by source.list"
                ));
            }
            _ => {
                return Err(format!(
                    "source.path = {path:?}: must be a path, or begin with s3://, gs://, az://, abfs://, abfss:// or file://"
                ));
            }
        };
        let bucket = inside.find('/').unwrap_or(inside.len());
        if (bucket == 0) != (scheme == Scheme::Local) {
            let what = if bucket == 0 {
                "a bucket"
            } else {
                "an absolute path"
            };
            return Err(format!(
                "source.path = {path:?}: must have {what} after the `://`"
            ));
        }
        let base = path.get(..path.len() - inside.len() + bucket).unwrap_or(path);
        Ok(Some(Self { scheme, base }))
    }
}

/// The store that a source's path leads into.
pub(crate) fn store_of(path: &str) -> Result<Arc<dyn Store>, ListError> {
    match Place::of(path).map_err(ListError::Setting)? {
        None => Ok(Arc::new(LocalStore)),
        Some(place) => open(path, &place),
    }
}

#[cfg(feature = "remote")]
fn open(path: &str, place: &Place<'_>) -> Result<Arc<dyn Store>, ListError> {
    match super::objects::Objects::open(place) {
        Ok(objects) => Ok(Arc::new(objects)),
        Err(error) => Err(ListError::Setting(format!(
            "source.path = {path:?}: {error}; the address and credentials of {} come from the environment",
            place.scheme.name()
        ))),
    }
}

#[cfg(not(feature = "remote"))]
fn open(path: &str, place: &Place<'_>) -> Result<Arc<dyn Store>, ListError> {
    Err(ListError::Setting(format!(
        "source.path = {path:?}: this build does not read {}, where {} is; build with `--features remote`, or copy the \
         files to a folder",
        place.scheme.name(),
        place.base
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_leads_into_one_store_or_is_refused() {
        let base = |path| Place::of(path).map(|place| place.map(|place| (place.scheme, place.base)));
        assert_eq!(base("raw/**/*.txt"), Ok(None));
        assert_eq!(base("s3://b/raw/*"), Ok(Some((Scheme::S3, "s3://b"))));
        assert_eq!(base("gs://b"), Ok(Some((Scheme::Google, "gs://b"))));
        assert_eq!(base("az://c@a/x"), Ok(Some((Scheme::Azure, "az://c@a"))));
        assert_eq!(base("file:///x/y"), Ok(Some((Scheme::Local, "file://"))));
        for (path, words) in [
            ("s3:///x", "a bucket"),
            ("file://x/y", "an absolute path"),
            ("https://a/x", "source.list"),
            ("ftp://a/x", "must be a path, or begin with"),
        ] {
            assert!(base(path).unwrap_err().contains(words), "{path}");
        }
    }

    #[cfg(not(feature = "remote"))]
    #[test]
    fn a_build_without_object_stores_says_so() {
        let Err(error) = store_of("s3://bucket/x") else {
            panic!("opened")
        };
        assert!(error.to_string().contains("`--features remote`"), "{error}");
    }
}
