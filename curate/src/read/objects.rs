//! Object stores as folders: S3, Google Cloud Storage, Azure Blob Storage and, for tests, this machine by way of the same
//! library.
//!
//! The library is asynchronous, readers are not: they wait for it on their own threads, while one thread of a small runtime
//! drives the connections. Addresses and credentials come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::{Buf, Bytes};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{Error, GetOptions, ListResult, ObjectMeta, ObjectStore, ObjectStoreExt};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::place::{Place, Scheme};
use super::store::{Entry, FileState, Kind, Store, StoredFile};

/// The first block that is asked for; each is twice the last, so that a page's header costs little, and a file few requests.
const FIRST_BLOCK_BYTES: u64 = 256 << 10;
/// A reader holds one block of at most this size, and has asked for the next.
const MAX_BLOCK_BYTES: u64 = 8 << 20;

/// A bucket, whose common prefixes are folders.
pub struct Objects(Arc<Bucket>);

struct Bucket {
    /// What all paths begin with: scheme and bucket.
    base: String,
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    outage: OnceLock<String>,
}

impl Objects {
    /// The bucket that a place is in; nothing is asked of it yet.
    pub(crate) fn open(place: &Place<'_>) -> Result<Self, Error> {
        let store: Arc<dyn ObjectStore> = match place.scheme {
            Scheme::Local => Arc::new(LocalFileSystem::new()),
            Scheme::S3 => Arc::new(AmazonS3Builder::from_env().with_url(place.base).build()?),
            Scheme::Google => Arc::new(
                GoogleCloudStorageBuilder::from_env()
                    .with_url(place.base)
                    .build()?,
            ),
            Scheme::Azure => Arc::new(MicrosoftAzureBuilder::from_env().with_url(place.base).build()?),
        };
        Self::over(place.base, store)
    }

    /// A store that is open already, under paths that begin with `base`, such as `s3://bucket`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn over(base: &str, store: Arc<dyn ObjectStore>) -> Result<Self, Error> {
        let runtime = crate::runtime::start().map_err(|error| Error::Generic {
            store: "runtime",
            source: error.into(),
        })?;
        Ok(Self(Arc::new(Bucket {
            base: base.to_owned(),
            store,
            runtime,
            outage: OnceLock::new(),
        })))
    }
}

impl Bucket {
    fn key(&self, path: &Path) -> io::Result<Key> {
        let inside = path.to_str().and_then(|path| path.strip_prefix(&self.base));
        let inside = inside.ok_or_else(|| io::Error::other(format!("not in {}", self.base)))?;
        Key::parse(inside).map_err(io::Error::other)
    }

    /// Waits for an answer. Once the store has failed to give one, nothing more is asked of it.
    fn wait<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> io::Result<T> {
        if let Some(outage) = self.outage.get() {
            return Err(io::Error::other(outage.as_str()));
        }
        self.runtime.block_on(answer).map_err(|error| {
            let kind = match &error {
                Error::NotFound { .. } => io::ErrorKind::NotFound,
                Error::PermissionDenied { .. } => io::ErrorKind::PermissionDenied,
                Error::Precondition { .. } => io::ErrorKind::StaleNetworkFileHandle,
                Error::InvalidPath { .. } => io::ErrorKind::InvalidFilename,
                _ => {
                    self.outage.get_or_init(|| error.to_string());
                    io::ErrorKind::Other
                }
            };
            io::Error::new(kind, error)
        })
    }

    fn list(&self, folder: &Key) -> io::Result<ListResult> {
        self.wait(self.store.list_with_delimiter(Some(folder)))
    }
}

fn state_of(object: &ObjectMeta) -> FileState {
    let tag = object.e_tag.clone();
    FileState {
        bytes: object.size,
        version: Some(tag.unwrap_or_else(|| object.last_modified.to_rfc3339()).into()),
    }
}

impl Store for Objects {
    fn look_at(&self, path: &Path) -> io::Result<Kind> {
        let key = self.0.key(path)?;
        if key.as_ref().is_empty() {
            return Ok(Kind::Folder);
        }
        match self.0.wait(self.0.store.head(&key)) {
            Ok(object) => Ok(Kind::File(state_of(&object))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let listed = self.0.list(&key)?;
                let is_empty = listed.objects.is_empty() && listed.common_prefixes.is_empty();
                if is_empty { Err(error) } else { Ok(Kind::Folder) }
            }
            Err(error) => Err(error),
        }
    }

    fn entries(&self, folder: &Path) -> io::Result<Vec<io::Result<Entry>>> {
        let folder = self.0.key(folder)?;
        let listed = self.0.list(&folder)?;
        let entry = |key: &Key, kind| {
            let name = key.filename()?.into();
            Some(Ok(Entry { name, kind }))
        };
        // A marker of the folder itself is not in it.
        let objects = listed.objects.iter().filter(|object| object.location != folder);
        let objects = objects.filter_map(|object| entry(&object.location, Kind::File(state_of(object))));
        let folders = listed.common_prefixes.iter();
        Ok(objects
            .chain(folders.filter_map(|key| entry(key, Kind::Folder)))
            .collect())
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn StoredFile>> {
        let key = self.0.key(path)?;
        let object = self.0.wait(self.0.store.head(&key))?;
        Ok(Arc::new(Object {
            bucket: Arc::clone(&self.0),
            key,
            state: state_of(&object),
            tag: object.e_tag,
        }))
    }

    fn outage(&self) -> Option<&str> {
        self.0.outage.get().map(String::as_str)
    }
}

struct Object {
    bucket: Arc<Bucket>,
    key: Key,
    state: FileState,
    tag: Option<String>,
}

impl StoredFile for Object {
    /// As it was opened: of what changed since, the service gives no block.
    fn state(&self) -> io::Result<FileState> {
        Ok(self.state.clone())
    }

    fn read(&self, range: Range<u64>) -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(Blocks {
            bucket: Arc::clone(&self.bucket),
            key: self.key.clone(),
            tag: self.tag.clone(),
            left: range.start..range.end.min(self.state.bytes),
            size: FIRST_BLOCK_BYTES,
            block: Bytes::new(),
            ahead: None,
        }))
    }
}

/// A block on its way.
type Ahead = JoinHandle<Result<Bytes, Error>>;

/// Reads an object block by block, of which one is asked for ahead. Each is a request of its own, that the library tries
/// again by its own policy: a reader may take its time.
struct Blocks {
    bucket: Arc<Bucket>,
    key: Key,
    tag: Option<String>,
    /// What has not been asked for.
    left: Range<u64>,
    /// Of the next block, in bytes.
    size: u64,
    block: Bytes,
    ahead: Option<Ahead>,
}

impl Blocks {
    /// Asks for the next block; none at the end.
    fn ask(&mut self) -> Option<Ahead> {
        if self.left.is_empty() {
            return None;
        }
        let end = self.left.end.min(self.left.start.saturating_add(self.size));
        let range = self.left.start..end;
        self.left.start = end;
        self.size = (2 * self.size).min(MAX_BLOCK_BYTES);
        let options = GetOptions::new()
            .with_range(Some(range.clone()))
            .with_if_match(self.tag.clone());
        let (store, key) = (Arc::clone(&self.bucket.store), self.key.clone());
        Some(self.bucket.runtime.spawn(async move {
            let block = store.get_opts(&key, options).await?.bytes().await?;
            if block.len() as u64 == range.end - range.start {
                return Ok(block);
            }
            let problem = format!(
                "{} bytes came of {} that were asked for",
                block.len(),
                range.end - range.start
            );
            Err(Error::Generic {
                store: "object",
                source: problem.into(),
            })
        }))
    }
}

impl io::Read for Blocks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            let is_first = self.size == FIRST_BLOCK_BYTES;
            let Some(next) = self.ahead.take().or_else(|| self.ask()) else {
                return Ok(0);
            };
            self.block = self.bucket.wait(async { next.await? })?;
            // Whoever asks for a second block reads on.
            if !is_first {
                self.ahead = self.ask();
            }
        }
        let read = buffer.len().min(self.block.len());
        self.block
            .split_to(read)
            .copy_to_slice(buffer.get_mut(..read).unwrap_or_default());
        Ok(read)
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        if let Some(ahead) = &self.ahead {
            ahead.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use object_store::PutPayload;
    use object_store::memory::InMemory;
    use proptest::prelude::*;

    use super::*;

    fn bucket(bytes: &[u8]) -> Objects {
        let objects = Objects::over("s3://b", Arc::new(InMemory::new())).unwrap();
        put(&objects, bytes);
        objects
    }

    fn put(objects: &Objects, bytes: &[u8]) {
        let key = Key::from("x");
        let put = objects.0.store.put(&key, PutPayload::from(bytes.to_vec()));
        objects.0.runtime.block_on(put).unwrap();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(8))]

        #[test]
        fn any_range_is_read(bytes in 0..3_u64 << 20, start in 0..4_u64 << 20, length in 0..4_u64 << 20) {
            let content: Vec<u8> = (0..bytes).map(|at| (at >> 8 ^ at) as u8).collect();
            let file = bucket(&content).open(Path::new("s3://b/x")).unwrap();
            let mut read = Vec::new();
            file.read(start..start + length).unwrap().read_to_end(&mut read).unwrap();
            let at = |at: u64| at.min(bytes) as usize;
            prop_assert!(read == content[at(start)..at(start + length)]);
        }
    }

    #[test]
    fn what_is_written_again_while_it_is_read_is_not_mixed() {
        let objects = bucket(&[1; 1 << 20]);
        let file = objects.open(Path::new("s3://b/x")).unwrap();
        let mut reader = file.read(0..1 << 20).unwrap();
        reader.read_exact(&mut [0; 100]).unwrap();
        put(&objects, &[2; 1 << 20]);
        let error = reader.read_to_end(&mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StaleNetworkFileHandle);
        assert_eq!(objects.outage(), None);
    }
}
